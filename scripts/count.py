"""Prints "PASSED FAILED" for the results of a test run: `count.py junit FILE` or `count.py meson FILE`."""
import json
import re
import sys
import xml.etree.ElementTree

CHECK = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)$", re.M)


def junit(path):
    passed = failed = 0
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        outcomes = {child.tag for child in case}
        if outcomes & {"failure", "error"}:
            failed += 1
        elif "skipped" not in outcomes:
            passed += 1
    return passed, failed


def meson(path):
    """A program that uses Check counts as many as it has checks, any other as one."""
    passed = failed = 0
    with open(path) as log:
        for result in map(json.loads, log):
            found = [tuple(map(int, m)) for m in CHECK.findall(result.get("stdout") or "")]
            bad = sum(failures + errors for _, failures, errors in found)
            if result["result"] == "OK":
                passed += sum(checks for checks, _, _ in found) or 1
            else:
                passed += sum(checks for checks, _, _ in found) - bad
                failed += bad or 1
    return passed, failed


try:
    print(*{"junit": junit, "meson": meson}[sys.argv[1]](sys.argv[2]))
except (OSError, ValueError, xml.etree.ElementTree.ParseError) as problem:
    print(f"no results: {problem}", file=sys.stderr)
    print("0 1")

"""Reads the results of a test run, KIND FILE: `junit` of pytest (with the plugin again.py), or `meson`.

    count.py KIND FILE [SECOND]            prints "PASSED FAILED"
    count.py again KIND FILE MOST          what is to be run a second time, one a line
    count.py unsteady KIND FILE SECOND     what failed, and passed in the second run, one a line

Nothing is run again when more than MOST have failed: that is not bad luck. Nor is what is final, see again.py."""
import json
import re
import sys
import xml.etree.ElementTree

CHECK = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)$", re.M)
BROKEN = re.compile(r"(Address|Thread|Leak|UndefinedBehavior|Memory)Sanitizer|runtime error:|FATAL: .*San"
                    r"|:E:.*(Received signal|Early exit)")
NAMES = re.compile(r"^[^\s:]+:\d+:[FE]:[^:\n]*:([^:\n]+):", re.M)


class Result:
    """Of one test of pytest's, or one program of Meson's."""

    def __init__(self, name, passed=0, failed=0, again=None):
        self.name, self.passed, self.failed, self.again = name, passed, failed, again


def junit(path):
    """By name. One that fails, and then in its teardown as well, is there twice."""
    cases = {}
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        cases.setdefault((case.get("classname"), case.get("name")), []).append(case)
    found = {}
    for key, parts in cases.items():
        outcomes = [{child.tag for child in part} for part in parts]
        properties = {p.get("name"): p.get("value") for part in parts for p in part.iter("property")}
        failed = sum(1 for o in outcomes if o & {"failure", "error"})
        passed = sum(1 for o in outcomes if not o & {"failure", "error", "skipped"})
        again = properties.get("id") if failed and "final" not in properties else None
        found[key] = Result(properties.get("id", "").rsplit("/", 1)[-1] or ".".join(filter(None, key)), passed, failed, again)
    return found


def meson(path):
    """A program that uses Check counts as many as it has checks, any other as one."""
    found = {}
    with open(path) as log:
        for result in map(json.loads, log):
            name = result["name"].split(" / ")[-1]
            output = (result.get("stdout") or "") + (result.get("stderr") or "")
            suites = [tuple(map(int, m)) for m in CHECK.findall(result.get("stdout") or "")]
            bad = sum(failures + errors for _, failures, errors in suites)
            checks = sum(checks for checks, _, _ in suites)
            if result["result"] == "OK":
                found[name] = Result(name, checks or 1)
                continue
            final = BROKEN.search(output) or (result["result"] != "TIMEOUT" and (result.get("returncode") or 0) < 0)
            # A run that was cut off has no sum.
            which = " ".join([name, *NAMES.findall(output)])
            found[name] = Result(which, checks - bad, bad or 1, None if final else name)
    return found


KINDS = {"junit": junit, "meson": meson}


def both(kind, first, second=None):
    """The results, and those that are the second's in place of a failure."""
    results = KINDS[kind](first)
    replaced = {}
    if second:
        for key, result in KINDS[kind](second).items():
            if key in results and results[key].again:
                replaced[key] = results[key]
                results[key] = result
    return results, replaced


def count(kind, *files):
    results, _ = both(kind, *files)
    print(sum(r.passed for r in results.values()), sum(r.failed for r in results.values()))


def again(kind, path, most):
    failed = [r for r in KINDS[kind](path).values() if r.failed]
    if len(failed) <= int(most):
        for result in failed:
            if result.again:
                print(result.again)


def unsteady(kind, *files):
    results, replaced = both(kind, *files)
    for key, result in replaced.items():
        if results[key].passed and not results[key].failed:
            print(result.name)


try:
    if sys.argv[1] in KINDS:
        count(*sys.argv[1:])
    else:
        {"again": again, "unsteady": unsteady}[sys.argv[1]](*sys.argv[2:])
except (OSError, ValueError, xml.etree.ElementTree.ParseError) as problem:
    print(f"no results: {problem}", file=sys.stderr)
    if sys.argv[1] in KINDS:
        print("0 1")

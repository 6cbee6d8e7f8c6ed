"""A plugin of pytest for scripts/test: notes of each test that failed how it is run again, and whether it may be.

In the results (--junitxml) such a test has the property `id`, which is pytest's argument for it alone, and, when no second
try can excuse it, `final`: a sanitizer's report, a server that ended by itself or logged an error that the test does
not expect, or something that was seen and must never be (harness.Fault)."""
import re
import sys

import pytest

SANITIZER = re.compile(r"(Address|Thread|Leak|UndefinedBehavior|Memory)Sanitizer|runtime error:|FATAL: .*San")


def why_final(call, report):
    if call.excinfo and getattr(call.excinfo.value, "final", False):
        return str(call.excinfo.value)
    if found := SANITIZER.search(str(report.longrepr)):
        return found[0]
    harness = sys.modules.get("harness")
    return next(filter(None, (server.fault() for server in harness.Server.started)), None) if harness else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if not report.failed:
        return
    notes = [("id", f"{item.path}::{item.nodeid.split('::', 1)[1]}")]
    if why := why_final(call, report):
        notes.append(("final", why.splitlines()[0][:300] if why.strip() else "yes"))
    # The results are made from the report of the last phase, which copies the item's.
    item.user_properties.extend(notes)
    report.user_properties.extend(notes)

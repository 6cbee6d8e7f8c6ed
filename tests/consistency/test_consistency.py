"""Short runs of what `run` and `differential` do for longer, for scripts/test. Needs a build with delays."""
import os
import subprocess

import pytest

import differential_run
import history

SEED = 20260101


@pytest.mark.parametrize("rule", history.BROKEN)
def test_a_broken_rule_is_found(cluster, rule):
    """The test of the test: with the rule broken there are violations, every time."""
    summary = history.find_broken(cluster, rule, seed=SEED)
    assert history.violations(summary) > 0, summary


def test_nothing_that_is_read_is_wrong(cluster):
    """With delays, first without faults and then with."""
    summary, faults, report = history.check(cluster, calm_seconds=8, faulty_seconds=37, seed=SEED, pause=(0.2, 0.8),
                                            readers=12, writers=4, read_pause=2000, write_pause=8000)
    print("\n".join(history.describe(summary, faults)))
    history.harness.must(history.violations(summary) == 0 and summary["strange"] == 0, f"{summary}")
    # It did look at what it is about.
    assert summary["hits"] > 1000 and summary["writes"] > 500 and summary["foreign"] > 300, summary
    assert len(faults) >= 6 and summary["truncated"] > 0 and report["stream"]["gaps"] > 0, (faults, report["stream"])
    assert summary["rolled_back"] > 0 and summary["foreign_rolled_back"] > 0


def test_what_is_cached_equals_what_is_not(cluster):
    found = differential_run.run(cluster, writes=150, seed=SEED)
    print("\n".join(differential_run.describe(found)))
    history.harness.must(found["different"] == 0, f"{found}")
    assert found["writes"] == 150 and found["hits"] > found["reads"] / 3 and found["uncached_hits"] == 0, found


def test_a_forgotten_dependency_is_found(cluster):
    """The test of the test: an endpoint that does not say all that it is made from."""
    found = differential_run.run(cluster, writes=25, seed=SEED, paths="/api/admin/courses?", only=["course_pricing_rules"],
                                 spoilt={"courses/list.sql": "-- @depends !course_pricing_rules"})
    assert found["different"] > 0, found


@pytest.mark.parametrize("name, value", [("PROVOST_DELAYS", "nowhere=0.5:1ms"), ("PROVOST_DELAYS", "store=2:1ms"),
                                         ("PROVOST_DELAYS", "store=0.5"), ("PROVOST_BREAK", "everything")])
def test_what_is_misspelt_is_refused(name, value):
    """A delay that is nowhere would make the other tests pass for nothing."""
    done = subprocess.run([history.harness.BINARY, "version"], env={**os.environ, name: value}, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    assert done.returncode == 1 and f"{name}: `{value}`" in done.stdout, done.stdout

"""Answers past their time: refreshed behind the callers' backs, given while the database is away, and never unmarked.

Bodies say when their statement ran, on this machine's own clock, so that an answer which claims to be fresh can be
held against its ttl."""
import collections
import contextlib
import json
import statistics
import time

import pytest

from caching import GATE, cut_off, healed, held, invalidate, is_hit, is_stale, report, settings, start, status, waiting
from harness import Server, must, patience, quick, reset_statements, statements, wait_until
from load import Load
from problems import problem

TEXT = "json_build_object('n', :n, 'at', extract(epoch FROM clock_timestamp()), 'id', gen_random_uuid())"
ENDPOINTS = {
    "hot.sql": f"-- @route GET /api/hot\n-- @query n integer\n-- @cache ttl=1s swr=10s tags=hot\nSELECT {TEXT} FROM pg_sleep(0.3)",
    "gated.sql": f"""-- @route GET /api/gated
-- @query n integer
-- @cache ttl=300ms swr=1h stale_if_error=1h tags=gated
-- @timeout 2m
SELECT json_build_object('n', :n, 'id', gen_random_uuid(), 'gate', {GATE})""",
    "long.sql": f"-- @route GET /api/long\n-- @query n integer\n-- @cache ttl=1h tags=long\nSELECT {TEXT}",
    "short.sql": f"-- @route GET /api/short\n-- @query n integer\n-- @cache ttl=1s tags=short\nSELECT {TEXT}",
    "strict.sql": f"-- @route GET /api/strict\n-- @query n integer\n-- @cache ttl=1s stale_if_error=0\nSELECT {TEXT}",
    "written.sql": f"-- @route GET /api/written\n-- @query n integer\n-- @cache ttl=1h max_stale=2s tags=written\nSELECT {TEXT}",
    "absent.sql": "-- @route GET /api/absent\n-- @query n integer\n-- @cache ttl=300ms\n"
                  "SELECT json_build_object('n', :n) WHERE :n < 0",
    "timed.sql": f"""-- @route GET /api/timed
-- @query n integer
-- @cache ttl=300ms
-- @timeout 300ms
SELECT json_build_object('n', :n, 'gate', {GATE})""",
    "divided.sql": "-- @route GET /api/divided\n-- @cache ttl=300ms\n-- @depends !divisor\nSELECT json_build_object('q', 1 / v) FROM divisor",
}


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("stale", empty_template)
    cluster.sql("stale", "CREATE TABLE divisor AS SELECT 1 AS v; GRANT SELECT ON divisor TO provost_app")
    yield "stale"
    cluster.drop("stale")


@pytest.fixture
def server(cluster, db):
    with Server(cluster, db, ENDPOINTS, allow_errors="cannot be reached") as server:
        yield server


@contextlib.contextmanager
def stopped(cluster, mode="fast"):
    cluster.stop(mode)
    try:
        yield
    finally:
        if not cluster.pids():
            cluster.start()
        cluster.wait_ready()


class Seen:
    """What a load keeps of an answer: how it came about, and what it says."""

    def __init__(self, answer):
        self.wall = time.time()
        self.cache = status(answer) if answer.header("Cache-Status") else None
        self.body = json.loads(answer.body) if answer.status == 200 else None
        self.problem = json.loads(answer.body)["detail"] if answer.status >= 400 else None

    @property
    def fresh(self):
        return self.cache.keys() == {"hit", "ttl"}

    @property
    def detail(self):
        return self.cache.get("detail")


def claims_hold(results, ttl):
    """Nothing that claims to be fresh is older than its ttl. When it was asked for it was younger still."""
    for r in results:
        if r.status == 200 and r.seen.fresh:
            age = r.seen.wall - r.seconds - r.seen.body["at"]
            must(age < ttl, f"an unmarked answer of {age:.3f} s: {r}")


# ---- stale while revalidate ----------------------------------------------------------------------

@pytest.mark.threads
def test_a_hot_key_expires_under_load(cluster, db, server):
    """One statement per ttl, and once it is warm nobody waits for it."""
    assert server.get("/api/hot").status == 200
    reset_statements(cluster.dsn(db))
    begun = time.monotonic()
    before = report(server)
    with Load(server, "/api/hot", clients=8, see=Seen, seconds=40) as load:
        wait_until(lambda: report(server)["refreshes"] >= before["refreshes"] + 5, 60, "five refreshes", interval=0.1)
    elapsed = time.monotonic() - begun
    ran = sum(n for text, n in statements(cluster.dsn(db)).items() if "pg_sleep" in text)
    slowest = max(r.seconds for r in load.results)
    print(f"\n{len(load.results)} answers in {elapsed:.1f} s, {ran} statements of 300 ms; the slowest answer took"
          f" {slowest * 1000:.0f} ms", end="")
    assert load.statuses() == {200}
    assert all(r.seen.cache.get("hit") for r in load.results), "somebody waited for the statement"
    assert {r.seen.detail for r in load.results} == {None, "swr"}
    # Each is fresh for 950 ms at least.
    assert 4 <= ran <= elapsed / 0.95 + 1
    claims_hold(load.results, 1)
    for r in load.results:
        assert r.seen.cache["ttl"] <= 0 if r.seen.detail else r.seen.cache["ttl"] >= 0, r.seen.cache


def test_one_refresh_at_a_time(cluster, db, server):
    """However long it takes, and however many ask meanwhile."""
    first = server.get("/api/gated")
    with held(cluster, db) as gate:
        wait_until(lambda: is_stale(server.get("/api/gated"), "swr"), 5, "it is past its ttl")
        wait_until(lambda: waiting(cluster, db) == 1, 10, "the refresh runs")
        with Load(server, "/api/gated", clients=4, see=Seen) as load:
            # Longer than the time after which another caller would be told to refresh.
            wait_until(lambda: time.monotonic() - load.results[0].begun > 2.5 if load.results else False, 10)
        assert all(is_swr(r) and r.seen.body["id"] == first.json()["id"] for r in load.results)
        assert waiting(cluster, db) == 1 and report(server)["refreshes"] == 1
        gate.open()
        wait_until(lambda: server.get("/api/gated").body != first.body, 10, "it is new")
    assert load.statuses() == {200}


def is_swr(result):
    return result.seen.cache.get("hit") and result.seen.detail == "swr" and result.seen.cache["ttl"] <= 0


def test_swr_is_over_with_an_invalidation(cluster, db, server):
    first = server.get("/api/gated")
    with held(cluster, db) as gate:
        wait_until(lambda: is_stale(server.get("/api/gated"), "swr"), 5)
        wait_until(lambda: waiting(cluster, db) == 1, 10, "the refresh runs")
        invalidate(server, "tag=gated")
        # Not the stale one, and not what the refresh reads, which was begun before.
        with start(server, "/api/gated") as client:
            wait_until(lambda: report(server)["misses"] == 2, 10)
            gate.open()
            answer = client.response()
    assert status(answer) == {"fwd": "stale", "stored": True} and answer.body != first.body
    found = server.get("/api/gated")
    assert status(found)["hit"] and found.body == answer.body


def test_a_refresh_that_fails_leaves_what_there_is(cluster, db, server):
    """And is tried again, but not with every request."""
    assert server.get("/api/divided").json() == {"q": 1}
    settings(server, {"endpoint divided": {"swr": "1h"}})
    cluster.sql(db, "UPDATE divisor SET v = 0")
    try:
        wait_until(lambda: report(server)["refreshes"] >= 2 if is_stale(server.get("/api/divided"), "swr") else None, 20,
                   "two refreshes")
        answer = server.get("/api/divided")
        assert is_stale(answer, "swr") and answer.json() == {"q": 1}
    finally:
        cluster.sql(db, "UPDATE divisor SET v = 1")
    wait_until(lambda: is_hit(server.get("/api/divided")), 10, "it is fresh again")


# ---- max_stale -----------------------------------------------------------------------------------

def test_max_stale(server):
    """After an invalidation, for as long as what was read is not older."""
    first = server.get("/api/written")
    assert is_hit(server.get("/api/written"))
    invalidate(server, "tag=written")
    seen = []

    def ask():
        answer = server.get("/api/written")
        seen.append((time.time(), answer))
        return answer.body != first.body
    wait_until(ask, 10, "it is read anew")
    # The very first may come too late on a machine that is very busy.
    assert all(status(a) == {"hit": True, "ttl": 0, "detail": "max-stale"} for _, a in seen[:-1])
    assert seen[:-1] or seen[0][0] - first.json()["at"] >= 2
    assert status(seen[-1][1]) == {"fwd": "stale", "stored": True}
    assert seen[-1][0] - first.json()["at"] >= 2 - 0.5, "it was allowed for longer"
    assert is_hit(server.get("/api/written"))


# ---- stale if error ------------------------------------------------------------------------------

def test_a_statement_that_takes_too_long_is_no_such_error(cluster, db, server):
    assert server.get("/api/timed").status == 200
    with held(cluster, db):
        answer = wait_until(lambda: a if (a := server.get("/api/timed")).status != 200 else None, 10, "it is past its ttl")
        problem(answer, 504)
        assert status(answer) == {"fwd": "stale"}
        problem(server.get("/api/timed?n=1"), 504)
    wait_until(lambda: is_hit(server.get("/api/timed")), 10)


def test_a_statement_that_fails_by_itself_is_no_such_error(cluster, db, server):
    """The database is well, and says that there is no such answer any more."""
    assert server.get("/api/divided").status == 200
    cluster.sql(db, "UPDATE divisor SET v = 0")
    try:
        answer = wait_until(lambda: a if (a := server.get("/api/divided")).status != 200 else None, 10, "it is past its ttl")
        problem(answer, 422)
        assert status(answer) == {"fwd": "stale"}
    finally:
        cluster.sql(db, "UPDATE divisor SET v = 1")
    assert server.get("/api/divided").status == 200


def test_what_may_be_given_when_the_database_is_away(cluster, db, server):
    for path in ("/api/long", "/api/short", "/api/strict", "/api/written", "/api/long?n=2"):
        assert server.get(path).status == 200
    assert server.get("/api/absent").status == 404
    with stopped(cluster):
        cut_off(server)
        # Not past its ttl, but nobody tells of changes.
        assert is_stale(server.get("/api/long"), "stale-if-error")
        stale = wait_until(lambda: a if is_stale(a := server.get("/api/short"), "stale-if-error") else None, 10)
        assert stale.status == 200 and status(stale)["ttl"] <= 0 and stale.header("ETag")
        assert server.get("/api/short", {"If-None-Match": stale.header("ETag")}).status == 304
        assert server.head("/api/short").header("Content-Length") == str(len(stale.body))
        problem(wait_until(lambda: a if (a := server.get("/api/strict")).status != 200 else None, 10), 503)
        problem(wait_until(lambda: a if (a := server.get("/api/absent")).status != 404 else None, 10), 503)
        problem(server.get("/api/long?n=99"), 503)
        # Invalidated: given all the same, and marked.
        invalidate(server, "tag=long")
        answer = server.get("/api/long")
        assert answer.status == 200 and is_stale(answer, "stale-if-error") and status(answer)["ttl"] <= 0
        assert report(server)["stale"]["staleIfError"] >= 3
    healed(server)
    wait_until(lambda: server.get("/api/long?n=99").status == 200, 20, "healed")
    assert status(server.get("/api/long")) == {"fwd": "stale", "stored": True}
    assert is_hit(server.get("/api/long"))


class Outage:
    """Loads of what is fresh, what expires, and what nobody has asked for before."""
    KEYS = 20

    def __init__(self, server):
        self.server = server
        self.long = Load(server, lambda n: f"/api/long?n={n % self.KEYS}", clients=2, pause=0.001, see=Seen)
        self.short = Load(server, lambda n: f"/api/short?n={n % self.KEYS}", clients=2, pause=0.001, see=Seen)
        self.unknown = Load(server, lambda n: f"/api/long?n={n + 1000}", clients=2, pause=0.005, see=Seen)
        self.loads = (self.long, self.short, self.unknown)

    def warm(self):
        for n in range(self.KEYS):
            assert self.server.get(f"/api/long?n={n}").status == self.server.get(f"/api/short?n={n}").status == 200

    def __enter__(self):
        for load in self.loads:
            load.start()
        return self

    def __exit__(self, *_):
        for load in self.loads:
            load.ending.set()
        for load in self.loads:
            load.end()


@pytest.mark.threads
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_database_stopped_under_load(cluster, db, server, mode):
    outage = Outage(server)
    outage.warm()
    with outage:
        for load in outage.loads:
            load.wait(20, 200)
        with stopped(cluster, mode):
            cut_off(server)
            known = time.monotonic()
            wait_until(lambda: any(r.seen.detail for r in outage.short.since(known)), 10, "something is past its ttl")
            outage.unknown.wait(100, 503)
            for load in (outage.long, outage.short):
                load.wait(200, 200)
            wait_until(lambda: time.monotonic() > known + 1.2 or None, 5)
            expired = time.monotonic()
            outage.short.wait(200, 200)
            gone = time.monotonic()
        wait_until(lambda: server.get("/api/long?n=999").status == 200, 20, "healed")
        back = time.monotonic()
        outage.unknown.wait(20, 200)
        outage.short.wait(5 * outage.KEYS, 200)
        # What is not fresh yet is at its next request.
        wait_until(lambda: all(is_hit(server.get(f"/api/short?n={n}")) for n in range(outage.KEYS)), 20, "all is fresh again")

    assert outage.long.statuses() == {200} and outage.short.statuses() == {200}, "what is stored is answered"
    away = [r for r in outage.long.since(known) if r.ended < gone]
    assert away and {r.seen.detail for r in away} == {"stale-if-error"}, "nothing is fresh while nobody tells of changes"
    claims_hold(outage.short.results, 1)
    late = [r for r in outage.short.since(expired) if r.ended < gone]
    assert late and {r.seen.detail for r in late} == {"stale-if-error"} and all(r.seen.cache["ttl"] < 0 for r in late)

    assert outage.unknown.statuses() == {200, 503}
    refused = [r for r in outage.unknown.results if r.status == 503]
    assert all(r.retry_after for r in refused)
    later = [r.seconds for r in refused if r.begun > known and r.ended < gone]
    print(f"\nstopped ({mode}): {len(refused)} refused, {len(later)} of them after the loss was known: median "
          f"{statistics.median(later) * 1000:.1f} ms, max {max(later) * 1000:.1f} ms; "
          f"{sum(bool(r.seen.detail) for r in outage.short.results)} stale answers; healed {(back - gone) * 1000:.0f} ms after "
          f"the start was asked for", end="")
    assert statistics.median(later) < patience(0.1) and max(later) < patience(2)


@pytest.mark.threads
def test_database_frozen_under_load(cluster, db, server):
    """Within a second it is known that it hangs: what is stored is answered at once, and marked."""
    settings(server, {"database": {**quick(), "statement_timeout": "500ms", "acquire_timeout": "300ms"}})
    outage = Outage(server)
    outage.warm()
    with outage:
        outage.long.wait(20, 200)
        cluster.sigstop()
        frozen = time.monotonic()
        try:
            wait_until(lambda: any(r.seen.detail for r in outage.long.results), 10, "it is known", interval=0.001)
            known = time.monotonic()
            outage.long.wait(300, 200)
            outage.unknown.wait(5)
            wait_until(lambda: sum(r.status == 504 for r in outage.unknown.results) >= 2, 30, "statements run into their timeout")
            thawed = time.monotonic()
        finally:
            cluster.sigcont()
        cluster.wait_ready()
        wait_until(lambda: server.get("/api/long?n=999").status == 200, 20, "healed")
    assert outage.long.statuses() == {200}
    away = [r for r in outage.long.since(known) if r.ended < thawed]
    assert away and {r.seen.detail for r in away} == {"stale-if-error"}
    print(f"\nfrozen: known after {(known - frozen) * 1000:.0f} ms; then what is stored took "
          f"{max(r.seconds for r in away) * 1000:.1f} ms at most", end="")
    assert max(r.seconds for r in away) < patience(0.3), "nobody waits for what is known to hang"
    claims_hold(outage.short.results, 1)
    for name, load in (("what expires", outage.short), ("what is unknown", outage.unknown)):
        answers = collections.Counter(r.seen.problem or r.seen.detail or 200 for r in load.results)
        print(f"\nfrozen, of {name}: {dict(answers)}", end="")
    assert outage.short.statuses() <= {200, 503, 504} and outage.unknown.statuses() <= {200, 503, 504}


# ---- the background ------------------------------------------------------------------------------

@pytest.mark.threads
def test_refreshes_do_not_keep_requests_waiting(cluster, db):
    """They have a quarter of the workers; one that somebody must wait for is not bound by that."""
    with Server(cluster, db, ENDPOINTS, {"workers": {"threads": 4}}) as server:
        paths = [f"/api/gated?n={n}" for n in range(10)]
        bodies = {path: server.get(path).body for path in paths}
        with held(cluster, db) as gate:
            for path in paths:
                wait_until(lambda: is_stale(server.get(path), "swr"), 5, f"{path} is past its ttl")
            wait_until(lambda: waiting(cluster, db) == 1 and report(server)["refreshes"] == 10, 10, "one refresh runs, nine wait")
            for n in range(50):
                assert server.get(f"/api/long?n={n}").status == 200
            assert waiting(cluster, db) == 1
            # No stale answer after an invalidation: those who ask wait for the refreshes that have yet to begin.
            invalidate(server, "tag=gated")
            with start(server, paths[5]) as five, start(server, paths[7]) as seven:
                wait_until(lambda: waiting(cluster, db) == 3, 10, "two more run")
                gate.open()
                five, seven = five.response(), seven.response()
        assert five.status == seven.status == 200
        assert five.body != bodies[paths[5]] and seven.body != bodies[paths[7]]
        assert status(five) == status(seven) == {"fwd": "stale", "collapsed": True}
        wait_until(lambda: all(server.get(path).body != bodies[path] for path in paths), 20, "all are new")


def test_stop_while_refreshes_run_and_wait(cluster, db):
    config = {"http": {"shutdown_timeout": "1s", "drain_delay": "0"}, "workers": {"threads": 4}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        for n in range(5):
            server.get(f"/api/gated?n={n}")
        with held(cluster, db):
            for n in range(5):
                wait_until(lambda: is_stale(server.get(f"/api/gated?n={n}"), "swr"), 5)
            wait_until(lambda: waiting(cluster, db) == 1, 10)
            server.stop()


def test_the_access_log_says_why(cluster, db):
    config = {"http": {"access_log": "./access.log"}, "database": {"statement_timeout": "10s"}}
    with Server(cluster, db, ENDPOINTS, config, allow_errors="cannot be reached") as server:
        server.get("/api/gated")
        server.get("/api/short")
        with held(cluster, db) as gate:
            wait_until(lambda: is_stale(server.get("/api/gated"), "swr"), 5)
            first, second = start(server, "/api/gated?n=1"), start(server, "/api/gated?n=1")
            wait_until(lambda: report(server)["collapsed"] == 1, 10)
            gate.open()
            assert first.response().status == second.response().status == 200
        with stopped(cluster):
            wait_until(lambda: is_stale(server.get("/api/short"), "stale-if-error"), 10)
        log = server.folder / "access.log"
        for how in ("swr", "collapsed", "stale-if-error"):
            wait_until(lambda: f" cache={how} " in log.read_text(), 5, f"cache={how} in the log")

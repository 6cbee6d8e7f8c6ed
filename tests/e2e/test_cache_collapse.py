"""Requests for one key that come together share one statement, and nobody is given what was read before a change.

Statements wait for a lock that the test holds, so that nothing here depends on how long they run."""
import contextlib
import resource

import pytest

from caching import GATE, held, invalidate, is_hit, is_stored, report, start, status, waiting
from harness import Server, reset_statements, statements, wait_until
from problems import problem

ENDPOINTS = {
    # Whatever is told of the gate, `v` is what the table said when the statement began.
    "state.sql": f"""-- @route GET /api/state
-- @query n integer
-- @cache tags=state
-- @timeout 2m
SELECT json_build_object('v', v, 'n', :n, 'id', gen_random_uuid(), 'gate', {GATE}) FROM state""",
    "off.sql": f"""-- @route GET /api/off
-- @cache off
-- @timeout 2m
SELECT json_build_object('v', v, 'id', gen_random_uuid(), 'gate', {GATE}) FROM state""",
    "tolerant.sql": f"""-- @route GET /api/tolerant
-- @cache max_stale=1h tags=state
-- @timeout 2m
SELECT json_build_object('v', v, 'id', gen_random_uuid(), 'gate', {GATE}) FROM state""",
    "absent.sql": f"""-- @route GET /api/absent
-- @cache tags=state
-- @timeout 2m
SELECT json_build_object('v', v) FROM state WHERE {GATE} IS NULL""",
    "failing.sql": f"""-- @route GET /api/failing
-- @timeout 2m
SELECT json_build_object('v', 1 / (v - v), 'gate', {GATE}) FROM state""",
    "timed.sql": f"""-- @route GET /api/timed
-- @timeout 200ms
SELECT json_build_object('v', v, 'gate', {GATE}) FROM state""",
}
CONFIG = {"cache": {"ttl": "1h", "negative_ttl": "1h"}, "workers": {"threads": 8, "queue_timeout": "2m"}}


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("collapse", empty_template)
    cluster.sql("collapse", "CREATE TABLE state AS SELECT 1 AS v; GRANT SELECT ON state TO provost_app")
    yield "collapse"
    cluster.drop("collapse")


@pytest.fixture(scope="module")
def shared(cluster, db):
    with Server(cluster, db, ENDPOINTS, CONFIG) as server:
        yield server


def change(cluster, db, server, v):
    """Told of when this returns: later it would make old what a test has filled since."""
    before = report(server)["stream"]["changes"]
    cluster.sql(db, "UPDATE state SET v = %s", v)
    wait_until(lambda: report(server)["stream"]["changes"] > before, 10, "the change is told of")


@pytest.fixture
def server(cluster, db, shared):
    change(cluster, db, shared, 1)
    invalidate(shared, "all")
    return shared


def collapsed(server, more, since):
    wait_until(lambda: report(server)["collapsed"] == since + more, 30, f"{more} have joined")


def started(cluster, db, count=1):
    wait_until(lambda: waiting(cluster, db) == count, 20, f"{count} statements run")


@contextlib.contextmanager
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.threads
def test_a_thousand_requests_one_statement(cluster, db):
    with many_descriptors(), \
            Server(cluster, db, ENDPOINTS, {**CONFIG, "http": {"max_connections": 1200, "header_timeout": "1m"}}) as server:
        reset_statements(cluster.dsn(db))
        with held(cluster, db) as gate, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(start(server, "/api/state")) for _ in range(1000)]
            collapsed(server, 999, 0)
            started(cluster, db)
            gate.open()
            answers = [client.response() for client in clients]
        assert {a.status for a in answers} == {200}
        assert len({a.body for a in answers}) == 1 and len({a.header("ETag") for a in answers}) == 1
        assert sum(n for text, n in statements(cluster.dsn(db)).items() if "json_build_object" in text) == 1
        assert report(server)["statements"] == report(server)["stores"] == 1
        assert sum(is_stored(a) for a in answers) == 1
        assert sum(status(a) == {"fwd": "miss", "collapsed": True} for a in answers) == 999
        assert is_hit(server.get("/api/state")) and server.get("/api/state").body == answers[0].body


def test_distinct_keys_do_not_share(cluster, db, server):
    with held(cluster, db) as gate:
        clients = [start(server, f"/api/state?n={n}") for n in range(4)]
        started(cluster, db, 4)
        gate.open()
        answers = [client.response() for client in clients]
    assert [a.json()["n"] for a in answers] == [0, 1, 2, 3] and len({a.json()["id"] for a in answers}) == 4


def test_cache_off_is_collapsed_too(cluster, db, server):
    before = report(server)
    with held(cluster, db) as gate:
        clients = [start(server, "/api/off") for _ in range(10)]
        collapsed(server, 9, before["collapsed"])
        gate.open()
        answers = [client.response() for client in clients]
    assert len({a.body for a in answers}) == 1
    assert sorted(len(status(a)) for a in answers) == [1] + 9 * [2]
    assert all(status(a)["fwd"] == "bypass" and "stored" not in status(a) for a in answers)
    again = server.get("/api/off")
    assert status(again) == {"fwd": "bypass"} and again.body != answers[0].body
    assert report(server)["stores"] == before["stores"]


def test_failures_are_shared_and_not_stored(cluster, db, server):
    before = report(server)
    with held(cluster, db) as gate:
        clients = [start(server, "/api/timed") for _ in range(5)]
        collapsed(server, 4, before["collapsed"])
        answers = [client.response() for client in clients]
        for answer in answers:
            problem(answer, 504)
            assert "stored" not in status(answer)
        gate.open()
    assert is_stored(server.get("/api/timed"))
    for _ in range(2):
        problem(server.get("/api/failing"), 422)
    assert report(server)["stores"] == before["stores"] + 1


def test_a_shared_absence(cluster, db, server):
    before = report(server)
    with held(cluster, db) as gate:
        clients = [start(server, "/api/absent") for _ in range(5)]
        collapsed(server, 4, before["collapsed"])
        gate.open()
        answers = [client.response() for client in clients]
    for answer in answers:
        problem(answer, 404)
    assert len({a.header("X-Request-Id") for a in answers}) == 5, "each its own"
    assert is_hit(server.get("/api/absent"))


# ---- leaving -------------------------------------------------------------------------------------

@pytest.mark.threads
def test_who_leaves_does_not_hurt_the_others(cluster, db, server):
    """Nor does the one for whom it was begun."""
    before = report(server)
    with held(cluster, db) as gate:
        clients = [start(server, "/api/state")]
        started(cluster, db)
        clients += [start(server, "/api/state") for _ in range(9)]
        collapsed(server, 9, before["collapsed"])
        for client in clients[:5]:
            client.close()
        # Who leaves later is noticed later: by then they all have been.
        with start(server, "/api/state?n=1"):
            started(cluster, db, 2)
        started(cluster, db, 1)
        gate.open()
        answers = [client.response() for client in clients[5:]]
    assert {a.status for a in answers} == {200} and len({a.body for a in answers}) == 1
    assert report(server)["statements"] == before["statements"] + 2
    assert is_hit(server.get("/api/state"))


@pytest.mark.threads
def test_the_last_to_leave_cancels_the_statement(cluster, db, server):
    with held(cluster, db) as gate:
        before = report(server)
        clients = [start(server, "/api/state") for _ in range(5)]
        collapsed(server, 4, before["collapsed"])
        started(cluster, db)
        for client in clients:
            client.close()
        started(cluster, db, 0)
        # Who comes now does not join what was given up.
        with start(server, "/api/state") as late:
            started(cluster, db)
            gate.open()
            answer = late.response()
    assert answer.status == 200 and status(answer)["stored"]
    assert is_hit(server.get("/api/state"))


@pytest.mark.threads
def test_coming_and_going(cluster, db, server):
    """Some leave at once, at the same time as others join."""
    with held(cluster, db) as gate:
        stays = []
        for _ in range(30):
            stays.append(start(server, "/api/state"))
            start(server, "/api/state").close()
        started(cluster, db)
        gate.open()
        answers = [client.response() for client in stays]
    assert {a.status for a in answers} == {200} and len({a.body for a in answers}) == 1
    assert server.get("/api/state").body == answers[0].body


# ---- a change meanwhile --------------------------------------------------------------------------

@pytest.mark.threads
@pytest.mark.parametrize("query", ["tag=state", "endpoint=state", "all"])
def test_an_invalidation_during_the_fill(cluster, db, server, query):
    """Who came before it may have the old answer; nobody after it does, and it is not stored."""
    before = report(server)
    with held(cluster, db) as gate:
        early = [start(server, "/api/state") for _ in range(3)]
        collapsed(server, 2, before["collapsed"])
        started(cluster, db)
        change(cluster, db, server, 2)
        invalidate(server, query)
        late = [start(server, "/api/state") for _ in range(3)]
        collapsed(server, 4, before["collapsed"])         # two of them with the third
        assert waiting(cluster, db) == 1, "one fill of a key at a time"
        gate.open()
        early, late = [c.response() for c in early], [c.response() for c in late]
    assert [a.json()["v"] for a in early] == [1, 1, 1] and not any("stored" in status(a) for a in early)
    assert [a.json()["v"] for a in late] == [2, 2, 2] and len({a.body for a in late}) == 1
    assert sum("stored" in status(a) for a in late) == 1
    after = server.get("/api/state")
    assert is_hit(after) and after.body == late[0].body
    assert report(server)["statements"] == before["statements"] + 2
    assert report(server)["outdated"] == before["outdated"] + 1


@pytest.mark.threads
def test_invalidations_one_after_the_other(cluster, db, server):
    """One fill runs and one waits: those who come after a second change share what waits."""
    before = report(server)
    with held(cluster, db) as gate:
        groups = []
        for v in (1, 2, 3, 4):
            change(cluster, db, server, v)
            invalidate(server, "tag=state")
            groups.append([start(server, "/api/state"), start(server, "/api/state")])
            # Of the first two groups one each begins a fill; all others join.
            collapsed(server, 1 if v == 1 else 2 * v - 2, before["collapsed"])
            started(cluster, db)
        gate.open()
        groups = [[c.response().json()["v"] for c in group] for group in groups]
    assert groups[0] == [1, 1] and groups[1:] == [[4, 4]] * 3
    assert report(server)["statements"] == before["statements"] + 2
    assert server.get("/api/state").json()["v"] == 4


@pytest.mark.threads
def test_an_unrelated_invalidation_during_the_fill(cluster, db, server):
    before = report(server)
    with held(cluster, db) as gate:
        first = start(server, "/api/state")
        started(cluster, db)
        invalidate(server, "tag=unrelated&endpoint=absent")
        second = start(server, "/api/state")
        collapsed(server, 1, before["collapsed"])
        gate.open()
        first, second = first.response(), second.response()
    assert first.body == second.body and status(first)["stored"]
    assert is_hit(server.get("/api/state"))


def test_a_change_during_what_may_be_stale(cluster, db, server):
    """max_stale allows for being given what runs, and for storing it."""
    before = report(server)
    with held(cluster, db) as gate:
        first = start(server, "/api/tolerant")
        started(cluster, db)
        change(cluster, db, server, 2)
        invalidate(server, "tag=state")
        second = start(server, "/api/tolerant")
        collapsed(server, 1, before["collapsed"])
        gate.open()
        first, second = first.response(), second.response()
    assert first.body == second.body and first.json()["v"] == 1
    assert status(second) == {"fwd": "miss", "collapsed": True, "detail": "max-stale"} and "detail" not in status(first)
    found = server.get("/api/tolerant")
    assert status(found) == {"hit": True, "ttl": 0, "detail": "max-stale"} and found.body == first.body


def test_a_change_during_what_is_not_cached(cluster, db, server):
    """What @cache off joins is new enough, too."""
    with held(cluster, db) as gate:
        first = start(server, "/api/off")
        started(cluster, db)
        change(cluster, db, server, 2)
        invalidate(server, "endpoint=off")
        seen = report(server)["collapsed"]
        second, third = start(server, "/api/off"), start(server, "/api/off")
        collapsed(server, 1, seen)
        gate.open()
        assert first.response().json()["v"] == 1
        assert second.response().json()["v"] == third.response().json()["v"] == 2

# ---- what waits behind a fill --------------------------------------------------------------------

def test_what_waits_behind_a_fill_counts_in_the_queue(cluster, db):
    """Joining it does not."""
    config = {"workers": {"threads": 1, "queue": 1, "queue_timeout": "2m"}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        with held(cluster, db) as gate:
            first = start(server, "/api/state")
            started(cluster, db)
            invalidate(server, "tag=state")
            parked = start(server, "/api/state")
            wait_until(lambda: report(server)["misses"] == 2, 10)
            refused = wait_until(lambda: a if (a := server.get("/api/state?n=7", seconds=1)).status == 503 else None, 10)
            problem(refused, 503)
            seen = report(server)["collapsed"]
            joins = start(server, "/api/state")
            collapsed(server, 1, seen)
            gate.open()
            answers = [c.response() for c in (first, parked, joins)]
        assert [a.status for a in answers] == [200] * 3
        assert answers[1].body == answers[2].body != answers[0].body
        assert server.get("/api/state?n=7").status == 200


@pytest.mark.threads
def test_what_waits_behind_a_fill_has_a_deadline(cluster, db):
    """What it waits for goes on."""
    config = {"workers": {"threads": 4, "queue_timeout": "300ms"}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        with held(cluster, db) as gate:
            first = start(server, "/api/state")
            started(cluster, db)
            for _ in range(3):
                invalidate(server, "tag=state")
                late = [start(server, "/api/state") for _ in range(3)]
                for client in late:
                    problem(client.response(), 503)
            assert waiting(cluster, db) == 1
            gate.open()
            assert first.response().status == 200
        assert is_stored(server.get("/api/state"), "miss")


@pytest.mark.threads
def test_who_waits_behind_a_fill_leaves(cluster, db, server):
    with held(cluster, db) as gate:
        first = start(server, "/api/state")
        started(cluster, db)
        before = report(server)
        for _ in range(5):
            invalidate(server, "tag=state")
            start(server, "/api/state").close()
        # Who leaves later is noticed later: by then they all have been.
        with start(server, "/api/state?n=1"):
            started(cluster, db, 2)
        started(cluster, db, 1)
        late = start(server, "/api/state")
        wait_until(lambda: report(server)["misses"] >= before["misses"] + 2, 10)
        gate.open()
        assert first.response().status == 200 and late.response().status == 200
    assert is_hit(server.get("/api/state"))


@pytest.mark.threads
def test_the_fill_in_front_is_given_up(cluster, db, server):
    """What waited behind it runs once its statement is cancelled."""
    with held(cluster, db) as gate:
        first = start(server, "/api/state")
        started(cluster, db)
        before = report(server)
        change(cluster, db, server, 2)
        invalidate(server, "tag=state")
        late = start(server, "/api/state")
        wait_until(lambda: report(server)["misses"] == before["misses"] + 1, 10)
        first.close()
        # A statement is counted when it has ended.
        wait_until(lambda: report(server)["statements"] == before["statements"] + 1, 10, "the first is cancelled")
        started(cluster, db)
        gate.open()
        answer = late.response()
    assert answer.status == 200 and answer.json()["v"] == 2
    wait_until(lambda: is_hit(server.get("/api/state")), 5)


@pytest.mark.threads
def test_stop_with_fills_that_run_and_wait(cluster, db):
    config = {"http": {"shutdown_timeout": "1s", "drain_delay": "0"}, "workers": {"threads": 4, "queue_timeout": "2m"}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        with held(cluster, db):
            clients = [start(server, "/api/state") for _ in range(3)]
            started(cluster, db)
            invalidate(server, "all")
            clients += [start(server, "/api/state") for _ in range(3)]
            clients += [start(server, f"/api/state?n={n}") for n in range(8)]
            wait_until(lambda: report(server)["misses"] == 14, 10)
            server.stop()
            for client in clients:
                problem(client.response(), 503)

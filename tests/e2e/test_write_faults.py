"""Writes at the edge: connections lost at chosen places, deadlocks, constraints that fail at the end. A write's data and
its audit row are both there or both not; what was answered is true; and whatever happened, no later read is old."""
import os
import threading
import time

import pytest

import cutting
from cutting import CuttingProxy, once
from harness import Server, patience, wait_until

pytestmark = pytest.mark.threads

TABLES = """
CREATE TABLE thing (id integer PRIMARY KEY, n integer NOT NULL, parent integer REFERENCES thing DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE audit (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, thing integer NOT NULL, n integer NOT NULL);
INSERT INTO thing SELECT id, 0 FROM generate_series(1, 20) id;
CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE 'thirteen' USING ERRCODE = 'check_violation'; END $$;
CREATE CONSTRAINT TRIGGER no_thirteen AFTER UPDATE ON thing DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.n = 13) EXECUTE FUNCTION odd();
CREATE FUNCTION conflict() RETURNS integer LANGUAGE plpgsql VOLATILE AS $$
BEGIN RAISE 'conflict' USING ERRCODE = 'serialization_failure'; END $$;
"""

WRITE = """-- Sets a thing and says so in the audit.
-- @route PATCH /api/things/:id
-- @path id integer
-- @body n integer required
-- @body parent integer
WITH t AS (UPDATE thing SET n = :n, parent = coalesce(:parent, parent) WHERE id = :id RETURNING id, n),
     a AS (INSERT INTO audit (thing, n) SELECT id, n FROM t)
SELECT json_build_object('id', id, 'n', n) FROM t
"""

# Takes a row, waits until another such write has taken its own, and wants the other's.
CROSS = """-- @route POST /api/cross
-- @body first integer required
-- @body second integer required
-- @status 200
-- @timeout 20s
WITH a AS (UPDATE thing SET n = n + 1 WHERE id = :first RETURNING id),
     w AS (SELECT pg_sleep(0.2)::text AS waited FROM a),
     b AS (UPDATE thing SET n = n + 1 FROM w WHERE thing.id = :second AND w.waited IS NOT NULL RETURNING thing.id),
     c AS (INSERT INTO audit (thing, n) SELECT :first, 1 FROM b)
SELECT json_build_object('done', (SELECT count(*) FROM b))
"""

CONFLICT = """-- @route POST /api/conflict
-- @status 200
WITH t AS (UPDATE thing SET n = n + 1 WHERE id = 1 RETURNING id), a AS (INSERT INTO audit (thing, n) SELECT id, 1 FROM t)
SELECT json_build_object('n', conflict()) FROM t
"""

READ = """-- @route GET /api/things/:id
-- @path id integer
-- @cache ttl=1h stale_if_error=0
-- @depends thing(id=:id)
SELECT json_build_object('id', id, 'n', n) FROM thing WHERE id = :id
"""

ENDPOINTS = {"write.sql": WRITE, "cross.sql": CROSS, "conflict.sql": CONFLICT, "read.sql": READ}
UNKNOWN = "may or may not have been done"


@pytest.fixture
def tables(cluster, empty_database):
    cluster.sql(empty_database, TABLES)
    cluster.sql(empty_database, f'ALTER DATABASE "{empty_database}" SET deadlock_timeout = \'100ms\'')
    return empty_database


def state(cluster, db, thing):
    """What the database has: the thing's n, and what the audit says of it, in order."""
    n = cluster.sql(db, "SELECT n FROM thing WHERE id = %s", thing)[0][0]
    return n, [row[0] for row in cluster.sql(db, "SELECT n FROM audit WHERE thing = %s ORDER BY id", thing)]


def shown(server, thing):
    return server.get(f"/api/things/{thing}").json()["n"]


def write(server, thing, n, **more):
    return server.request("PATCH", f"/api/things/{thing}", body={"n": n, **more}, seconds=20)


class Cut:
    """A server whose pool goes through one proxy and whose listener through another."""

    def __init__(self, cluster, db):
        self.cluster, self.db = cluster, db
        self.pool, self.stream = CuttingProxy(cluster.app_dsn(db)), CuttingProxy(cluster.app_dsn(db))
        self.server = Server(cluster, db, endpoints=ENDPOINTS, allow_errors=True, config={
            "database": {"url": self.pool.dsn, "listen_url": self.stream.dsn, "pool_min": "2", "pool_max": "4",
                         "sync_timeout": "1s"}})

    def __enter__(self):
        self.pool.__enter__()
        self.stream.__enter__()
        self.server.__enter__()
        return self

    def __exit__(self, *failure):
        self.pool.rule = self.stream.rule = None
        try:
            self.server.__exit__(*failure)
        finally:
            self.pool.__exit__()
            self.stream.__exit__()

    def store(self, thing):
        """Until its answer comes from the cache."""
        def is_hit():
            return "; hit" in self.server.get(f"/api/things/{thing}").header("Cache-Status")
        wait_until(is_hit, 10, "an answer from the cache")

    def settled(self, thing):
        """What the database has once nobody is at it any more."""
        wait_until(lambda: not [b for b in self.cluster.backends(self.db)
                                if b["state"] != "idle" and "provost" in b["application_name"]], 10)
        return state(self.cluster, self.db, thing)


@pytest.mark.parametrize("place", [cutting.before_begin, cutting.before_commit], ids=lambda f: f.__name__)
def test_lost_before_its_commit(cluster, tables, place):
    """Nothing was committed, but Provost cannot know that: it had sent everything."""
    with Cut(cluster, tables) as cut:
        cut.store(1)
        cut.pool.rule = once(place)
        answer = write(cut.server, 1, 5)
        assert cut.pool.cuts == 1
        assert answer.status == 503 and UNKNOWN in answer.json()["detail"], answer
        assert cut.settled(1) == (0, [])
        assert shown(cut.server, 1) == 0
        assert write(cut.server, 1, 6).status == 200
        assert shown(cut.server, 1) == 6


def test_lost_after_its_commit(cluster, tables):
    """The rows had come, and its token comes: it was committed, and is answered so."""
    with Cut(cluster, tables) as cut:
        cut.store(1)
        cut.pool.rule = once(cutting.after_commit)
        answer = write(cut.server, 1, 5)
        assert cut.pool.cuts == 1
        assert answer.status == 200 and answer.json() == {"id": 1, "n": 5}, answer
        assert cut.settled(1) == (5, [5])
        assert shown(cut.server, 1) == 5


def test_lost_with_its_answer(cluster, tables):
    """Its token comes, so it was committed; its rows never do. It is not called unknown, and not a success with a body
    that nobody has."""
    with Cut(cluster, tables) as cut:
        cut.store(1)
        cut.pool.rule = once(cutting.with_nothing_back())
        answer = write(cut.server, 1, 5)
        assert cut.pool.cuts == 1
        assert UNKNOWN not in answer.body.decode(), answer
        assert answer.status >= 500 and "was committed" in answer.json()["detail"], answer
        assert cut.settled(1) == (5, [5])
        assert shown(cut.server, 1) == 5


def test_lost_with_the_stream(cluster, tables):
    """Neither PostgreSQL's word nor the token comes: unknown, and committed. No later read is old."""
    with Cut(cluster, tables) as cut:
        cut.store(1)
        cut.stream.rule = once(cutting.before_token)
        cut.pool.rule = once(cutting.after_commit)
        answer = write(cut.server, 1, 5)
        assert cut.pool.cuts == 1 and cut.stream.cuts == 1
        assert answer.status == 503 and UNKNOWN in answer.json()["detail"], answer
        assert shown(cut.server, 1) == 5
        assert cut.settled(1) == (5, [5])


def test_stream_lost_with_the_token(cluster, tables):
    """PostgreSQL says that it is committed: that it is not heard of makes no difference to the writer."""
    with Cut(cluster, tables) as cut:
        cut.store(1)
        cut.store(2)
        cut.stream.rule = once(cutting.before_token)
        answer = write(cut.server, 1, 5)
        assert cut.stream.cuts == 1
        assert answer.status == 200, answer
        assert shown(cut.server, 1) == 5 and shown(cut.server, 2) == 0
        assert cut.settled(1) == (5, [5])


def test_dead_connections_are_not_a_writers_affair(cluster, tables):
    """All of the pool's were ended while they were idle: the write goes by another, once."""
    with Cut(cluster, tables) as cut:
        for n in range(1, 6):
            cut.store(1)
            cut.pool.end_let_in()
            answer = write(cut.server, 1, n)
            if answer.status == 503:    # its end had not been noticed when the write was sent
                assert UNKNOWN in answer.json()["detail"], answer
            else:
                assert answer.status == 200, answer
            n_now, audit = cut.settled(1)
            assert audit[-1:] == ([n_now] if audit else []) and len(audit) == len(set(audit))
            assert (answer.status != 200) or n_now == n
            assert shown(cut.server, 1) == n_now


def test_backends_ended_under_writes(cluster, tables):
    """Administrators end connections while writers are at it: each answer is true, each audit row has its change."""
    told, lock = [], threading.Lock()

    def writer(server, thing):
        for n in range(101, 140):
            answer = write(server, thing, n)
            with lock:
                told.append((thing, n, answer.status, answer.body))

    with Server(cluster, tables, endpoints=ENDPOINTS, allow_errors=True, config={"database": {"sync_timeout": "1s"}}) as server:
        threads = [threading.Thread(target=writer, args=(server, thing)) for thing in range(1, 5)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            cluster.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                                    " AND usename = 'provost_app'", tables)
            time.sleep(0.05)
        audit = set(cluster.sql(tables, "SELECT thing, n FROM audit"))
        assert len(audit) == cluster.sql(tables, "SELECT count(*) FROM audit")[0][0], "a write was run twice"
        for thing, n, status, body in told:
            if status == 200:
                assert (thing, n) in audit, (thing, n, body)
            elif UNKNOWN.encode() not in body and b"has been made" not in body:
                assert status == 503 and (thing, n) not in audit, (thing, n, status, body)
        assert sum(status == 200 for _, _, status, _ in told) > 0
        for thing in range(1, 5):
            n, rows = state(cluster, tables, thing)
            assert n == (rows[-1] if rows else 0)
            wait_until(lambda: shown(server, thing) == n, 10)


def test_deadlock(cluster, tables):
    """PostgreSQL ends one of two that wait for each other; it is run again, and both are done once."""
    with Server(cluster, tables, endpoints=ENDPOINTS) as server:
        answers = []

        def cross(first, second):
            answers.append(server.request("POST", "/api/cross", body={"first": first, "second": second}, seconds=20))
        for _ in range(3):
            threads = [threading.Thread(target=cross, args=pair) for pair in ((1, 2), (2, 1))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(patience(20))
        assert [(a.status, a.json()) for a in answers] == [(200, {"done": 1})] * 6
        assert state(cluster, tables, 1) == (6, [1] * 3) and state(cluster, tables, 2) == (6, [1] * 3)
        assert shown(server, 1) == 6
        deadlocks = cluster.sql(tables, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert wait_until(lambda: cluster.sql(
            tables, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0][0] > 0, 10), deadlocks


def test_conflict_that_stays(cluster, tables):
    """Tried four times, then 503; nothing is left of any of them."""
    with Server(cluster, tables, endpoints=ENDPOINTS) as server:
        answer = server.request("POST", "/api/conflict", seconds=20)
        assert answer.status == 503 and answer.header("Retry-After"), answer
        assert UNKNOWN not in answer.body.decode()
        assert state(cluster, tables, 1) == (0, [])


@pytest.mark.parametrize("body, status", [({"n": 13}, 422), ({"n": 4, "parent": 999}, 409)], ids=["trigger", "foreign key"])
def test_constraint_that_fails_at_the_end(cluster, tables, body, status):
    """Deferred to the commit: told as what it is, and nothing is left, nor any answer made old that need not be."""
    with Server(cluster, tables, endpoints=ENDPOINTS) as server:
        wait_until(lambda: "; hit" in server.get("/api/things/1").header("Cache-Status"), 10)
        answer = server.request("PATCH", "/api/things/1", body=body)
        assert answer.status == status, answer
        assert state(cluster, tables, 1) == (0, [])
        assert "; hit" in server.get("/api/things/1").header("Cache-Status")
        assert write(server, 1, 3).status == 200 and shown(server, 1) == 3
        assert state(cluster, tables, 1) == (3, [3])


def test_read_only_is_told(cluster, tables):
    """A database that takes no writes: 503, not unknown."""
    with Server(cluster, tables, endpoints=ENDPOINTS) as server:
        cluster.sql(tables, "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                            " RAISE 'no' USING ERRCODE = 'read_only_sql_transaction'; END $$;"
                            "CREATE TRIGGER a BEFORE UPDATE ON thing EXECUTE FUNCTION stop()")
        answer = write(server, 1, 1)
        assert answer.status == 503 and UNKNOWN not in answer.body.decode(), answer
        assert state(cluster, tables, 1) == (0, [])


def test_recovery_is_told(cluster, tables):
    """A server in recovery refuses to begin the transaction, but not to end it: nothing was done, whatever COMMIT says."""
    note = "-- @route POST /api/notes\n-- @body n integer required\n-- @returns none\nINSERT INTO audit (thing, n) VALUES (1, :n)\n"
    signal = cluster.data / "standby.signal"
    with Server(cluster, tables, endpoints={**ENDPOINTS, "note.sql": note}, allow_errors=True) as server:
        assert server.request("POST", "/api/notes", body={"n": 1}).status == 204
        try:
            cluster.stop()
            signal.touch()
            os.chown(signal, *(getattr(cluster.data.stat(), name) for name in ("st_uid", "st_gid")))
            cluster.start()
            cluster.wait_ready()
            wait_until(lambda: server.get("/api/things/1").status == 200, 10, "reads are answered")
            answers = [server.request("POST", "/api/notes", body={"n": 2}), write(server, 1, 5)]
        finally:
            cluster.stop()
            signal.unlink()
            cluster.start()
        for answer in answers:
            assert answer.status == 503 and answer.header("Retry-After") and UNKNOWN not in answer.body.decode(), answer
        assert state(cluster, tables, 1) == (0, [1])

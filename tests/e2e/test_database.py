"""The database fails in every way it knows, under load, and comes back.

What must hold each time: the stated status and no other, no connection cut, 503 at once when the loss is
known, everything healed within two seconds of the database's return, and nothing left behind.
"""
import contextlib
import re
import statistics
import subprocess
import threading
import time

import psycopg2
import pytest

from harness import Server, must, patience, wait_until
from load import SANITIZED, Load, nothing_left_behind, sessions

ENDPOINTS = {
    # `n` makes every request another one, so that none is answered with another's answer.
    "one.sql": "-- @route GET /api/one\n-- @query n integer\n-- @cache off\n"
               "SELECT json_build_object('one', 1, 'n', :n)",
    "pid.sql": "-- @route GET /api/pid\n-- @query n integer\n-- @cache off\n"
               "SELECT json_build_object('pid', pg_backend_pid(), 'n', :n)",
    "sleep.sql": "-- @route GET /api/sleep/:ms\n-- @path ms integer min=0\n-- @query n integer\n-- @cache off\n"
                 "SELECT json_build_object('pid', pg_backend_pid(), 'n', :n) FROM pg_sleep(:ms / 1000.0)",
}


def one(n):
    return f"/api/one?n={n}"


def pid(server):
    answer = server.get("/api/pid")
    assert answer.status == 200, answer
    return answer.json()["pid"]


def is_problem(answer, status):
    assert answer.status == status, answer
    assert answer.header("Content-Type") == "application/problem+json", answer
    assert (answer.header("Retry-After") is not None) == (status == 503), answer
    return True


def heals(server, seconds=2, path="/api/one"):
    """The time until the first 200."""
    begun = time.monotonic()
    wait_until(lambda: server.get(path).status == 200, seconds, f"{path} answers 200 again", interval=0.005)
    return time.monotonic() - begun


@contextlib.contextmanager
def stopped(cluster, mode="fast"):
    cluster.stop(mode)
    try:
        yield
    finally:
        if not cluster.pids():
            cluster.start()
        cluster.wait_ready()


@contextlib.contextmanager
def stalled(cluster):
    cluster.sigstop()
    try:
        yield
    finally:
        cluster.sigcont()


class Probes:
    """Asks /livez and /readyz all along; both must answer 200 at once whatever the database does."""

    def __init__(self, server):
        self.loads = [Load(server, path, clients=1, pause=0.02) for path in ("/livez", "/readyz")]

    def __enter__(self):
        for load in self.loads:
            load.start()
        return self

    def __exit__(self, failure, *_):
        for load in self.loads:
            load.end()
        for load in self.loads if not failure else ():
            assert load.statuses() == {200}
            slow = [r for r in load.results if r.seconds > patience(0.25)]
            assert not slow, slow


def check_loss(load, what):
    """From the first 503 after the last 200 of a load: how soon it came, and how fast the ones after it."""
    answers = sorted(load.answered(), key=lambda r: r.ended)
    assert load.statuses() <= {200, 503}, load.statuses()
    refused = [r for r in answers if r.status == 503]
    assert refused, "nothing was refused"
    assert all(r.retry_after for r in refused)
    good = [r for r in answers if r.status == 200 and r.ended <= refused[0].ended]
    detected = refused[0].ended - good[-1].ended
    slowest = max(r.seconds for r in refused)
    later = [r.seconds for r in refused if r.begun > refused[0].ended]
    print(f"\n{what}: 503 {detected * 1000:.0f} ms after the last 200; then {len(later)} refusals, median "
          f"{statistics.median(later) * 1000:.1f} ms, max {max(later) * 1000:.1f} ms", end="")
    assert detected < patience(1), f"it took {detected:.2f} s to notice the loss"
    assert slowest < patience(1), f"a request waited {slowest:.2f} s"
    late = [s for s in later if s > patience(0.1)]
    assert len(late) <= len(later) // 100, f"503 after {max(late):.3f} s although the loss was known"


# ---- gone and back -------------------------------------------------------------------------------

@pytest.mark.threads
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stopped_and_started(cluster, empty_database, mode):
    config = {"database": {"pool_min": 2, "pool_max": 4}}
    with Server(cluster, empty_database, ENDPOINTS, config, allow_errors="cannot be reached") as server:
        with Load(server, one, clients=4) as load:
            load.wait(50, 200)
        with nothing_left_behind(server, cluster, empty_database, 4):
            with Probes(server), Load(server, one, clients=4, pause=0.002) as load:
                load.wait(20, 200)
                with stopped(cluster, mode):
                    load.wait(100, 503)
                    wait_until(lambda: server.get("/readyz").json()["database"] == "down", what="known to be down")
                    is_problem(server.get("/api/one"), 503)
                healed = heals(server)
                load.wait(20, 200)
            check_loss(load, f"stopped ({mode})")
            print(f"; healed after {healed * 1000:.0f} ms")
        assert server.get("/readyz").json()["database"] == "up"
        assert "the database is back" in server.log()


def test_running_statements_when_it_is_stopped(cluster, empty_database):
    """Reads that ran when the database went away have been tried again in vain: 503, not an error."""
    with Server(cluster, empty_database, ENDPOINTS, {"database": {"pool_max": 4}},
                allow_errors="cannot be reached") as server:
        with Load(server, lambda n: f"/api/sleep/30000?n={n}", clients=3, pause=0.02) as load:
            wait_until(lambda: len(running(cluster, empty_database)) == 3, what="three statements run")
            with stopped(cluster):
                load.wait(3, 503, seconds=2)
                load.end()
        assert load.statuses() == {503}
        heals(server)


@pytest.mark.threads
def test_backends_terminated_under_load(cluster, empty_database):
    """A read whose connection dies, idle or busy, is run again on another: no request fails."""
    config = {"database": {"pool_min": 2, "pool_max": 6}, "workers": {"threads": 6}}
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        with Load(server, one, clients=4) as load:
            load.wait(50, 200)
        with nothing_left_behind(server, cluster, empty_database, 6):
            busy = Load(server, lambda n: f"/api/sleep/{n % 40}?n={n}", clients=4)
            with Probes(server), Load(server, one, clients=2) as quick, busy:
                killed = 0
                for _ in range(10):
                    killed += cluster.kill_backends(empty_database)
                    quick.wait(10)
                    busy.wait(10)
                    # A request whose connection dies twice is not tried a third time.
                    quick.wait_each()
                    busy.wait_each()
            assert killed >= 10
            assert quick.statuses() == {200} and busy.statuses() == {200}
            print(f"\nterminated: {killed} connections under {len(quick.results) + len(busy.results)} requests")


def test_idle_connections_terminated(cluster, empty_database):
    """Connections that died while nobody used them are not a reason for a request to fail."""
    with Server(cluster, empty_database, ENDPOINTS, {"database": {"pool_min": 4, "pool_max": 4}}) as server:
        for _ in range(10):
            wait_until(lambda: len(sessions(cluster, empty_database)) == 4, what="four sessions")
            cluster.kill_backends(empty_database)
            answer = server.get("/api/one")
            assert answer.status == 200, answer


def test_statement_that_ends_its_own_backend(cluster, empty_database):
    """Tried twice, then refused: never over and over. The others do not suffer."""
    endpoints = {**ENDPOINTS, "suicide.sql": "-- @route GET /api/suicide\n-- @cache off\n"
                                             "SELECT json_build_object('x', pg_terminate_backend(pg_backend_pid()))"}
    with Server(cluster, empty_database, endpoints, {"database": {"pool_max": 4}}) as server:
        with Load(server, one, clients=2) as load:
            for _ in range(3):
                is_problem(server.get("/api/suicide"), 503)
                load.wait(5)
        assert load.statuses() == {200}


def test_crash_and_recovery(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, {"database": {"pool_max": 4}},
                allow_errors="cannot be reached") as server:
        with Load(server, one, clients=4) as load:
            load.wait(50, 200)
        with nothing_left_behind(server, cluster, empty_database, 4):
            with Probes(server), Load(server, one, clients=4, pause=0.002) as load:
                load.wait(20, 200)
                cluster.crash()
                # Some may have come already, and no more may.
                wait_until(lambda: any(r.status == 503 for r in list(load.results)), 10, "one is refused")
                cluster.wait_ready()
                healed = heals(server)
                load.wait(50, 200)
            check_loss(load, "crashed")
            print(f"; healed {healed * 1000:.0f} ms after the recovery")


@pytest.mark.threads
def test_absent_at_the_start(cluster, empty_database):
    with stopped(cluster):
        with Server(cluster, empty_database, ENDPOINTS, wait="/livez",
                    allow_errors="cannot be reached|waiting for the database") as server:
            server.wait_log("waiting for the database")
            is_problem(server.get("/api/one"), 503)
            answer = server.get("/readyz")
            assert answer.status == 503 and answer.json()["status"] == "starting"
            cluster.start()
            wait_until(lambda: server.get("/readyz").status == 200, 2, "ready by itself", interval=0.001)
            assert server.get("/api/one").status == 200, "ready is who can answer"
            assert server.log().count("waiting for the database") == 1


def test_pool_of_none(cluster, empty_database):
    """Without a connection to keep, having none is not a loss."""
    with Server(cluster, empty_database, ENDPOINTS, {"database": {"pool_min": 0}}) as server:
        assert server.get("/readyz").json()["database"] == "up"
        assert not sessions(cluster, empty_database)
        assert server.get("/api/one").status == 200
        assert len(sessions(cluster, empty_database)) == 1


def test_wrong_password(cluster, empty_database):
    """A refused login is logged in PostgreSQL's words and without the secret; once let in, all is well."""
    secret = "only-the-server-knows-7Qx"
    cluster.sql("postgres", "CREATE ROLE stranger LOGIN PASSWORD 'something else'")
    try:
        url = re.sub(r"//provost_app:[^@]*@", f"//stranger:{secret}@", cluster.app_dsn(empty_database))
        server = Server(cluster, empty_database, ENDPOINTS, wait="/livez",
                        allow_errors="cannot be reached|waiting for the database")
        server.write_config({"database": {"url": url}})
        with server:
            server.wait_log('level=error .*password authentication failed for user \\\\?"stranger')
            is_problem(server.get("/api/one"), 503)
            assert server.get("/readyz").status == 503
            cluster.sql("postgres", f"ALTER ROLE stranger PASSWORD '{secret}'")
            wait_until(lambda: server.get("/readyz").status == 200, 2, "ready once it is let in")
            assert server.get("/api/one").status == 200
            assert secret not in server.log()
    finally:
        cluster.kill_backends(empty_database)
        cluster.sql("postgres", "DROP ROLE stranger")


# ---- stalled -------------------------------------------------------------------------------------

def running(cluster, db):
    return [b for b in sessions(cluster, db) if b["state"] == "active"]


STALL = {"database": {"pool_min": 2, "pool_max": 2, "acquire_timeout": "300ms", "statement_timeout": "700ms"},
         "workers": {"threads": 6, "queue_timeout": "400ms"}}


@pytest.mark.threads
def test_stalled(cluster, empty_database):
    """A server that answers nothing any more: 504 for what runs, 503 for what waits, each in its time."""
    with Server(cluster, empty_database, ENDPOINTS, STALL) as server:
        with Load(server, one, clients=4) as load:
            load.wait(50, 200)
        with nothing_left_behind(server, cluster, empty_database, 2):
            with Probes(server), Load(server, one, clients=12, pause=0.002) as load:
                load.wait(50, 200)
                with stalled(cluster):
                    stopped_at = time.monotonic()
                    load.wait(30, 503)
                    load.wait(1, 504) if not any(r.status == 504 for r in load.results) else None
                healed = heals(server)
                load.wait(50, 200)
            assert load.statuses() == {200, 503, 504}
            # Two ran; whoever took their connections back is a part of the stall, not of the load.
            ran = [r for r in load.results if r.status == 504]
            assert all(0.69 < r.seconds < 0.7 + 0.4 + 0.3 + patience(0.3) for r in ran), ran
            waited = [r for r in load.results if r.status == 503]
            assert all(r.seconds < 0.4 + 0.3 + patience(0.3) for r in waited), max(waited, key=lambda r: r.seconds)
            assert all(r.retry_after for r in waited)
            print(f"\nstalled for {time.monotonic() - stopped_at:.1f} s: {len(ran)} of 504, {len(waited)} of 503 within "
                  f"{max(r.seconds for r in waited) * 1000:.0f} ms; healed after {healed * 1000:.0f} ms")
        wait_until(lambda: not running(cluster, empty_database), 5, "no statement is left behind")


def test_stalled_for_long(cluster, empty_database):
    """Longer than a cancelled statement and an attempt to connect are waited for."""
    with Server(cluster, empty_database, ENDPOINTS, STALL, allow_errors="cannot be reached") as server:
        with Load(server, one, clients=4) as load:
            load.wait(50, 200)
        with nothing_left_behind(server, cluster, empty_database, 2):
            with Probes(server), Load(server, one, clients=8, pause=0.01) as load:
                with stalled(cluster):
                    server.wait_log("did not end; its connection is closed", 10)
                    server.wait_log("the database cannot be reached", 15)
                    known = time.monotonic()
                    load.wait(50, 503)
                    quick = [r for r in load.since(known) if r.ended - known < 5]
                healed = heals(server)
                load.wait(50, 200)
            assert load.statuses() <= {200, 503, 504}
            assert all(r.seconds < patience(0.1) for r in quick), max(quick, key=lambda r: r.seconds)
            print(f"\nstalled for long: refused within {max(r.seconds for r in quick) * 1000:.1f} ms once known; "
                  f"healed after {healed * 1000:.0f} ms")
        wait_until(lambda: not running(cluster, empty_database), 5, "no statement is left behind")


# ---- not enough of it ----------------------------------------------------------------------------

@pytest.mark.threads
def test_pool_exhausted(cluster, empty_database):
    config = {"database": {"pool_min": 1, "pool_max": 2, "acquire_timeout": "300ms"}, "workers": {"threads": 8}}
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        with Load(server, lambda n: f"/api/sleep/1500?n={n}", clients=2):
            wait_until(lambda: len(running(cluster, empty_database)) == 2, what="both connections are taken")
            with Load(server, one, clients=4) as load:
                load.wait(8, 503)
            assert load.statuses() <= {200, 503}    # one may have slipped in where a sleep ended
            refused = [r for r in load.results if r.status == 503]
            assert all(r.retry_after and 0.29 < r.seconds < patience(1.2) for r in refused), refused
        heals(server)


def test_queue_full(cluster, empty_database):
    """Past the queue's length requests are refused at once, past its timeout in time."""
    config = {"workers": {"threads": 1, "queue": 2, "queue_timeout": "400ms"}}
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        with Load(server, lambda n: f"/api/sleep/1500?n={n}", clients=1):
            wait_until(lambda: running(cluster, empty_database), what="the worker is busy")
            with Load(server, one, clients=4) as load:
                def refused(least, most):
                    return [r for r in list(load.results) if r.status == 503 and least <= r.seconds < most]
                wait_until(lambda: len(refused(0.39, 100)) >= 2, 10, "two have waited")
                wait_until(lambda: len(refused(0, 0.3)) >= 10, 10, "ten were refused at once")
            assert load.statuses() <= {200, 503} and all(r.retry_after for r in refused(0, 100))
            assert not refused(patience(1.2), 100), "in time, or nearly"


def test_no_more_connections(cluster, empty_database):
    """PostgreSQL takes no more: those there are go on serving, and the pool grows when there is room."""
    config = {"database": {"pool_min": 1, "pool_max": 4, "acquire_timeout": "500ms"}, "workers": {"threads": 4}}
    cluster.restart(max_connections=9, superuser_reserved_connections=3)
    with contextlib.ExitStack() as others:
        others.callback(cluster.restart)
        with Server(cluster, empty_database, ENDPOINTS, config, allow_errors="cannot be reached") as server:
            heals(server)
            with pytest.raises(psycopg2.OperationalError, match="reserved|too many"):
                for _ in range(20):
                    others.enter_context(contextlib.closing(psycopg2.connect(cluster.app_dsn(empty_database))))
            assert len(sessions(cluster, empty_database)) < 4
            with Load(server, lambda n: f"/api/sleep/50?n={n}", clients=4) as load:
                load.wait(20, 200)
            assert load.statuses() == {200}
            server.wait_log("level=warn .*a connection could not be established.*(reserved|too many)")
            # Without a connection of its own: refused, and at once.
            for backend in sessions(cluster, empty_database):
                cluster.sql("postgres", "SELECT pg_terminate_backend(%s)", backend["pid"])
                with contextlib.suppress(psycopg2.OperationalError):
                    while True:
                        others.enter_context(contextlib.closing(psycopg2.connect(cluster.app_dsn(empty_database))))
            if not sessions(cluster, empty_database):
                wait_until(lambda: server.get("/readyz").json()["database"] == "down", what="known to be down")
                is_problem(server.get("/api/one"), 503)
            cluster.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                                    " WHERE usename = 'provost_app' AND application_name <> 'provost'")
            heals(server)
            with Load(server, lambda n: f"/api/sleep/50?n={n}", clients=4) as load:
                wait_until(lambda: len(sessions(cluster, empty_database)) == 4, what="the pool grows again")
            assert load.statuses() == {200}


# ---- other than it was ---------------------------------------------------------------------------

ROWS = {
    "rows.sql": "-- @route GET /api/rows\n-- @cache off\n-- @returns rows\nSELECT * FROM item",
    "other.sql": "-- @route GET /api/other\n-- @cache off\n-- @returns rows\nSELECT * FROM other_item",
}


def test_dropped_and_recreated_table(cluster, empty_database):
    cluster.sql(empty_database, "CREATE TABLE item AS SELECT 1 AS a")
    cluster.sql(empty_database, "CREATE TABLE other_item AS SELECT 2 AS b")
    with Server(cluster, empty_database, ROWS, {"database": {"pool_min": 3, "pool_max": 3}}) as server:
        with Load(server, "/api/other", clients=2) as load:
            assert all(server.get("/api/rows").json() == [{"a": 1}] for _ in range(6))

            cluster.sql(empty_database, "DROP TABLE item")
            answer = server.get("/api/rows")
            assert is_problem(answer, 500)
            assert b"item" not in answer.body, "the database's words are not for clients"
            server.wait_log('sqlstate=42P01 reason="relation \\\\?"item')

            cluster.sql(empty_database, "CREATE TABLE item AS SELECT 'x'::text AS c, true AS a")
            assert all(server.get("/api/rows").json() == [{"c": "x", "a": True}] for _ in range(6))
            load.wait(10)
        assert load.statuses() == {200}


@pytest.mark.threads
def test_columns_change_under_load(cluster, empty_database):
    """0A000, cached plan must not change result type: prepared anew, and nobody notices."""
    cluster.sql(empty_database, "CREATE TABLE item AS SELECT 1 AS a")
    endpoints = {"rows.sql": ROWS["rows.sql"]}
    with Server(cluster, empty_database, endpoints, {"database": {"pool_min": 3, "pool_max": 3}}) as server:
        with Load(server, "/api/rows", clients=3) as load:
            for i in range(10):
                load.wait(10)
                cluster.sql(empty_database, f"ALTER TABLE item ADD COLUMN c{i} integer DEFAULT {i}")
                # That a column is added is not told: who asks may be given what somebody else has begun to read before.
                found = wait_until(lambda: r if f"c{i}" in (r := server.get("/api/rows").json()[0]) else None, 10)
                assert found[f"c{i}"] == i
        assert load.statuses() == {200}


@pytest.mark.parametrize("command", ["DEALLOCATE ALL", "DISCARD PLANS"])
def test_prepared_statements_gone(cluster, empty_database, command):
    """Somebody in the session takes back what was prepared (26000): prepared anew, and nobody notices."""
    cluster.sql(empty_database, "CREATE FUNCTION run(command text) RETURNS text LANGUAGE plpgsql AS "
                                "$$BEGIN EXECUTE command; RETURN command; END$$")
    endpoints = {**ENDPOINTS, "run.sql": "-- @route GET /api/run\n-- @query command text\n-- @cache off\n"
                                         "SELECT json_build_object('ran', run(:command))"}
    with Server(cluster, empty_database, endpoints, {"database": {"pool_min": 1, "pool_max": 1}}) as server:
        before = pid(server)
        for _ in range(3):
            assert server.get("/api/run?command=" + command.replace(" ", "%20")).json() == {"ran": command}
            assert all(server.get(one(n)).status == 200 for n in range(3))
        assert pid(server) == before


SESSION = {**ENDPOINTS, "show.sql": """-- @route GET /api/show
-- @cache off
SELECT json_build_object('zone', current_setting('TimeZone'), 'read_only', current_setting('transaction_read_only'),
                         'name', U&'caf\\00e9',
                         'planned_anew', (SELECT sum(custom_plans) FROM pg_prepared_statements))"""}


def test_sessions(cluster, empty_database):
    """In UTC, read-only, and otherwise as the operator's URL and the database have it."""
    config = {"database": {"pool_min": 1, "pool_max": 1}}
    for mode, planned_anew in (("force_generic_plan", 0), ("force_custom_plan", 11)):
        server = Server(cluster, empty_database, SESSION, config)
        url = cluster.app_dsn(empty_database) + f"&options=-c%20plan_cache_mode%3D{mode}&client_encoding=LATIN1"
        server.write_config({"database": {"url": url}})
        with server:
            for n in range(10):
                assert server.get(one(n)).status == 200
            shown = server.get("/api/show").json()
            assert (shown["zone"], shown["read_only"], shown["name"]) == ("UTC", "on", "caf\u00e9")
            assert planned_anew - 1 <= shown["planned_anew"] <= planned_anew
    cluster.sql("postgres", f'ALTER DATABASE "{empty_database}" SET plan_cache_mode = force_generic_plan')
    with Server(cluster, empty_database, SESSION, config) as server:
        for n in range(10):
            assert server.get(one(n)).status == 200
        assert server.get("/api/show").json()["planned_anew"] == 0


@pytest.mark.skipif(SANITIZED, reason="their allocators keep what is freed")
def test_large_value_leaves_no_buffer_behind(cluster, empty_database):
    """What libpq needed for it is not kept for the life of the session."""
    endpoints = {**ENDPOINTS, "large.sql": "-- @route GET /api/large/:mib\n-- @path mib integer\n-- @cache off\n"
                                           "-- @timeout 1m\nSELECT to_json(repeat('x', :mib * 1024 * 1024))"}
    with Server(cluster, empty_database, endpoints, {"database": {"pool_min": 1, "pool_max": 1}}) as server:
        assert server.get("/api/one").status == 200
        with nothing_left_behind(server, cluster, empty_database, 1, grown=24 << 20):
            for mib in (8, 64):
                done = subprocess.run(["curl", "-sSf", "-o", "/dev/null", "-w", "%{size_download}",
                                       f"{server.url}/api/large/{mib}"], capture_output=True, text=True, timeout=patience(60))
                assert done.stdout == str((mib << 20) + 2), done
            assert server.get("/api/one").status == 200


# ---- cancelled -----------------------------------------------------------------------------------

def test_cancelled_statement_ends_and_its_connection_is_drained(cluster, empty_database):
    config = {"database": {"pool_min": 1, "pool_max": 1}, "endpoint sleep": {"timeout": "200ms"}}
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        before = pid(server)
        for n in range(5):
            begun = time.monotonic()
            is_problem(server.get(f"/api/sleep/60000?n={n}"), 504)
            assert time.monotonic() - begun < patience(0.5)
            # The only connection there is: had it been given out undrained, this would be the other's answer.
            answer = server.get(one(n))
            assert answer.json() == {"one": 1, "n": n}
            assert not running(cluster, empty_database)
        assert pid(server) == before, "the connection was used again"
        assert server.log().count("statement cancelled at its timeout") == 5


@pytest.mark.threads
def test_no_late_cancel(cluster, empty_database):
    """Statements that end just when they are cancelled: no cancel ever hits the connection's next one."""
    config = {"database": {"pool_min": 2, "pool_max": 2, "acquire_timeout": "5s"}, "endpoint sleep": {"timeout": "20ms"}}
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        racing = Load(server, lambda n: f"/api/sleep/{17 + n % 5}?n={n}", clients=2)
        with Load(server, lambda n: f"/api/pid?n={n}", clients=2) as load, racing:
            wait_until(lambda: sum(1 for r in list(racing.results) if r.status == 504) >= 50, 20, "50 cancelled statements")
        assert load.statuses() == {200}, "a cancel has hit another statement"
        assert racing.statuses() <= {200, 504}
        cancelled = sum(1 for r in racing.results if r.status == 504)
        print(f"\ncancelled {cancelled} of {len(racing.results)} beside {len(load.results)} others")
        must(not re.search("sqlstate=57014", server.log()), "a cancel has hit another statement")


def test_cancelled_by_somebody_else(cluster, empty_database):
    """57014 that was not our deadline: 503."""
    with Server(cluster, empty_database, ENDPOINTS) as server:
        answers = []
        client = threading.Thread(target=lambda: answers.append(server.get("/api/sleep/30000")))
        client.start()
        victim = wait_until(lambda: running(cluster, empty_database), what="the statement runs")[0]["pid"]

        def cancelled():     # again, since one between two messages is not heeded
            cluster.sql("postgres", "SELECT pg_cancel_backend(%s)", victim)
            return answers
        wait_until(cancelled, 5, "it is answered", interval=0.1)
        client.join(patience(5))
        assert is_problem(answers[0], 503)
        assert server.get("/api/one").status == 200

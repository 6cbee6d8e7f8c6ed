"""What is bounded, and what a client gets that goes past it: connections, time, the queue, the pool, statements.

A statement is held up by an advisory lock that the test holds, so that nothing here depends on how long it runs."""
import contextlib
import select
import socket
import time

import pytest

from harness import Server, patience, wait_until
from load import descriptors
from problems import problem

LOCK = 4711
ENDPOINTS = {
    "quick.sql": "-- At once.\n-- @route GET /api/quick\n-- @cache off\nSELECT json_build_object('quick', true)",
    # `n` makes every request another one, so that none is answered with another's answer.
    "held.sql": "-- Waits for the test.\n-- @route GET /api/held\n-- @query n integer\n-- @cache off\n"
                f"SELECT json_build_object('held', pg_advisory_xact_lock_shared({LOCK})::text, 'n', :n)",
    "timed.sql": "-- Waits for the test, for 200 ms.\n-- @route GET /api/timed\n-- @cache off\n-- @timeout 200ms\n"
                 f"SELECT json_build_object('timed', pg_advisory_xact_lock_shared({LOCK})::text)",
    "overridden.sql": "-- Waits for the test, for less than the file says.\n-- @route GET /api/overridden\n-- @cache off\n-- @timeout 1h\n"
                      f"SELECT json_build_object('timed', pg_advisory_xact_lock_shared({LOCK})::text)",
    "large.sql": "-- A large answer.\n-- @route GET /api/large\nSELECT to_json(repeat('x', 30000000))",
}


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("http_limits", empty_template)
    yield "http_limits"
    cluster.drop("http_limits")


@contextlib.contextmanager
def held(cluster, db):
    """No statement of /api/held ends within the block."""
    with contextlib.closing(cluster.connect(db)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        yield


def waiting(cluster, db):
    """How many statements wait for the lock."""
    return cluster.sql("postgres", "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
                                   " WHERE NOT granted AND locktype = 'advisory' AND datname = %s", db)[0][0]


def start(server, path="/api/held"):
    """Sends a request and leaves its answer for later."""
    connection = server.connect(30)
    connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


GET = b"GET /api/quick HTTP/1.1\r\nHost: localhost\r\n\r\n"


# ---- connections ---------------------------------------------------------------------------------

def admitted(server):
    """A connection that has been let in, or None. One that its client is done with counts until the server has closed it."""
    connection = server.connect()
    connection.send(GET)
    if connection.response().status == 200:
        return connection
    connection.close()
    return None


@pytest.mark.threads
def test_connections_beyond_the_limit_are_told_and_closed(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS, config={"http": {"max_connections": 5}}) as server:
        # That which asked for /readyz may still be counted.
        kept = [wait_until(lambda: admitted(server), what="it is let in") for _ in range(5)]
        for _ in range(10):
            with server.connect() as surplus:
                surplus.send(GET)
                answer = surplus.response()
                assert problem(answer, 503)["detail"] == "Too many connections are open. Try again."
                assert answer.header("Connection").lower() == "close" and surplus.closed()
        for connection in kept:
            connection.send(GET)
            assert connection.response().status == 200
        kept.pop().close()
        wait_until(lambda: server.get("/api/quick").status == 200, what="a place is free again")
        for connection in kept:
            connection.close()


def test_who_is_refused_takes_no_place(cluster, db):
    """Those who try again and again would else keep one another out."""
    config = {"http": {"max_connections": 2, "threads": 1}, "database": {"pool_min": 1, "pool_max": 1}}
    with Server(cluster, db, endpoints=ENDPOINTS, config=config) as server, contextlib.ExitStack() as stack:
        kept = [stack.enter_context(wait_until(lambda: admitted(server), what="it is let in")) for _ in range(2)]
        had = descriptors(server)
        surplus = [stack.enter_context(server.connect(30)) for _ in range(5)]
        # The one thread that has taken them over looks at what is closed afterwards.
        wait_until(lambda: descriptors(server) == had + 5, what="they are taken over")
        kept.pop().close()
        stack.enter_context(wait_until(lambda: admitted(server), what="a place is free again"))
        for connection in surplus:
            connection.send(GET)
            assert connection.response().status == 503


# ---- time ----------------------------------------------------------------------------------------

IDLE = 1.5


@pytest.fixture(scope="module")
def hasty(cluster, db):
    times = {"header_timeout": "400ms", "idle_timeout": f"{IDLE * 1000:.0f}ms", "access_log": "./access.log"}
    with Server(cluster, db, endpoints=ENDPOINTS, config={"http": times}) as server:
        yield server


def closed_while(connection, act, begun, seconds=10):
    """Seconds from `begun` until the server closes, calling act() meanwhile. `begun` is from before the server's own
    clock for it can have started, which may be long before this is called."""
    end = time.monotonic() + patience(seconds)
    connection.socket.settimeout(0.02)
    while time.monotonic() < end:
        try:
            act()
            if not connection.socket.recv(1):
                return time.monotonic() - begun
            raise AssertionError("an answer")
        except TimeoutError:
            continue
        except ConnectionError:
            return time.monotonic() - begun
    raise AssertionError("the connection is still open")


def answered(server):
    """A connection with an answer behind it, and when it was asked for. Whoever says nothing for 400 ms is rightly cut off,
    and a test that has to wait for a processor may be: it begins anew."""
    def attempt():
        begun, connection = time.monotonic(), server.connect()
        try:
            connection.send(GET)
            assert connection.response().status == 200
            return connection, begun
        except ConnectionError:
            connection.close()
            assert time.monotonic() - begun > 0.4, "closed before its time"
    return wait_until(attempt, 10, "an answer")


def start_after(server, request):
    """Sends it on a connection that has been answered before, which is not new and silent for long."""
    connection, _ = answered(server)
    connection.send(request)
    return connection


DRIBBLED = {
    "nothing": b"",
    "the request line": b"GET /api/quick?" + b"x" * 1000,
    "the fields": b"GET /api/quick HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"x" * 1000,
    "empty lines": b"\r\n" * 500,
}


@pytest.mark.parametrize("case", DRIBBLED)
def test_a_dribbled_head_is_cut_off(hasty, case):
    begun = time.monotonic()
    with hasty.connect() as connection:
        rest = iter(DRIBBLED[case])
        seconds = closed_while(connection, lambda: connection.send(bytes(filter(None, [next(rest, None)]))), begun)
        assert 0.3 < seconds < patience(3)


def test_a_dribbled_second_head_is_cut_off(hasty):
    connection, _ = answered(hasty)
    with connection:
        rest, begun = iter(DRIBBLED["the fields"]), time.monotonic()
        assert 0.3 < closed_while(connection, lambda: connection.send(bytes([next(rest)])), begun) < patience(4)


def test_a_body_that_does_not_come_is_not_waited_for(hasty):
    begun = time.monotonic()
    with hasty.connect() as connection:
        connection.send(b"GET /api/quick HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhell")
        assert 0.3 < closed_while(connection, lambda: None, begun) < patience(5)


def test_an_idle_connection_is_closed(hasty):
    connection, begun = answered(hasty)
    with connection:
        assert 1.4 < closed_while(connection, lambda: None, begun) < patience(5)


def test_a_busy_connection_is_kept(hasty):
    """For twice as long as an idle one. One that this test has kept waiting for longer than IDLE proves nothing."""
    def kept():
        connection, asked = answered(hasty)
        end = asked + 2 * IDLE
        with connection:
            while time.monotonic() < end:
                if select.select([connection.socket], [], [], 0.1)[0]:
                    assert time.monotonic() - asked > IDLE, "closed although it was busy"
                    return False
                before, asked = asked, time.monotonic()
                try:
                    connection.send(GET)
                    assert connection.response().status == 200
                except ConnectionError:
                    assert time.monotonic() - before > IDLE, "closed although it was busy"
                    return False
        return True
    wait_until(kept, 30, "it is kept")


def test_a_client_that_waits_for_a_slow_statement_is_kept(cluster, hasty, db):
    with held(cluster, db):
        connection = start_after(hasty, b"GET /api/held HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not connection.closed(2.5 / patience(1))
        connection.socket.settimeout(patience(10))
    assert connection.response().status == 200


def test_a_client_that_reads_nothing_is_closed(hasty):
    log = hasty.folder / "access.log"
    with answered(hasty)[0] as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.send(b"GET /api/large HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: deaf\r\n\r\n")
        # The line is written when the server is done with the request, one way or the other.
        wait_until(lambda: "id=deaf" in log.read_text(), 10, "the request is given up")


def test_a_client_that_reads_slowly_is_served(hasty):
    """For longer than one that reads nothing. One that has not read for longer than IDLE proves nothing."""
    def served():
        with start_after(hasty, b"GET /api/large HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
            received, paused, at = bytearray(), 0, time.monotonic()
            slow_until = at + 2 * IDLE
            while len(received) < 30_000_002:
                try:
                    data = connection.socket.recv(65536)
                except ConnectionResetError:
                    data = b""
                now = time.monotonic()
                paused, at = max(paused, now - at), now
                if not data:
                    assert paused > IDLE, "closed although it was reading"
                    return None
                received += data
                if now < slow_until:
                    time.sleep(0.01)
            connection.buffer = bytes(received)
            return connection.response()
    assert len(wait_until(served, 30, "it is served").body) == 30_000_002


# ---- the queue and the pool ----------------------------------------------------------------------

@pytest.mark.threads
def test_a_full_queue_refuses_at_once(cluster, db):
    config = {"workers": {"threads": 1, "queue": 2, "queue_timeout": "1m"}, "database": {"statement_timeout": "1m"}}
    with Server(cluster, db, endpoints=ENDPOINTS, config=config) as server:
        with held(cluster, db):
            connections = [start(server)]
            wait_until(lambda: waiting(cluster, db) == 1, what="the first runs")
            connections += [start(server, f"/api/held?n={n}") for n in range(6)]
            refused = wait_until(lambda: len(r := readable(connections)) == 4 and r, what="four are refused")
            for connection in refused:
                assert problem(connection.response(), 503)["detail"].startswith("Too many requests are waiting.")
                connections.remove(connection)
            assert server.get("/livez").status == 200
        assert [c.response().status for c in connections] == [200, 200, 200]


def readable(connections):
    ready, _, _ = select.select([c.socket for c in connections], [], [], 0)
    return [c for c in connections if c.socket in ready]


def test_a_queue_has_a_deadline(cluster, db):
    config = {"workers": {"threads": 1, "queue_timeout": "200ms"}}
    with Server(cluster, db, endpoints=ENDPOINTS, config=config) as server:
        with held(cluster, db):
            first = start(server)
            wait_until(lambda: waiting(cluster, db) == 1, what="the first runs")
            before = time.monotonic()
            assert problem(server.get("/api/quick"), 503)["detail"].startswith("No worker became free")
            assert 0.2 <= time.monotonic() - before < patience(2)
        assert first.response().status == 200
        wait_until(lambda: server.get("/api/quick").status == 200, what="it is answered in the 200 ms there are")


def test_a_pool_has_a_deadline(cluster, db):
    config = {"workers": {"threads": 2}, "database": {"pool_max": 1, "pool_min": 1, "acquire_timeout": "200ms"}}
    with Server(cluster, db, endpoints=ENDPOINTS, config=config) as server:
        with held(cluster, db):
            first = start(server)
            wait_until(lambda: waiting(cluster, db) == 1, what="the first runs")
            before = time.monotonic()
            assert problem(server.get("/api/quick"), 503)["detail"].startswith("No database connection became free")
            assert 0.2 <= time.monotonic() - before < patience(2)
        assert first.response().status == 200
        wait_until(lambda: server.get("/api/quick").status == 200, what="it is answered in the 200 ms there are")


# ---- statements ----------------------------------------------------------------------------------

TIMEOUTS = {
    "@timeout": "/api/timed",
    "[endpoint NAME] timeout": "/api/overridden",
    "[database] statement_timeout": "/api/held",
}


@pytest.fixture(scope="module")
def timed(cluster, db):
    config = {"database": {"statement_timeout": "300ms"}, "endpoint overridden": {"timeout": "250ms"}}
    with Server(cluster, db, endpoints=ENDPOINTS, config=config) as server:
        yield server


@pytest.mark.parametrize("case", TIMEOUTS)
def test_a_statement_has_a_deadline(cluster, timed, db, case):
    with held(cluster, db):
        before = time.monotonic()
        document = problem(timed.get(TIMEOUTS[case]), 504)
        assert 0.2 <= time.monotonic() - before < patience(3)
        assert "within the time allowed" in document["detail"]
        wait_until(lambda: waiting(cluster, db) == 0, what="the statement is cancelled")
    line = timed.wait_log(f"level=warn msg=\"statement cancelled at its timeout\".*request={document['instance']}.*")[0]
    assert f"endpoint={TIMEOUTS[case].rsplit('/', 1)[1]}" in line
    assert timed.get("/api/quick").status == 200
    wait_until(lambda: timed.get(TIMEOUTS[case]).status == 200, what="it is answered in the time allowed")


def test_a_long_deadline_outlasts_the_general_one(cluster, db):
    config = {"database": {"statement_timeout": "100ms"}, "endpoint held": {"timeout": "1m"}}
    with Server(cluster, db, endpoints=ENDPOINTS, config=config) as server:
        with held(cluster, db):
            connection = start(server)
            assert not connection.closed(0.5 / patience(1))
            connection.socket.settimeout(patience(10))
        assert connection.response().status == 200

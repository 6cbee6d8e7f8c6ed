"""SIGTERM and SIGINT: nothing that was accepted is lost, and the end comes in time, whatever hangs."""
import contextlib
import signal
import threading
import time

import pytest

from harness import Closed, Connection, Server, patience, wait_until
from load import Load, sessions

ENDPOINTS = {
    "one.sql": "-- @route GET /api/one\n-- @query n integer\n-- @cache off\n"
               "SELECT json_build_object('one', 1, 'n', :n)",
    "sleep.sql": "-- @route GET /api/sleep/:ms\n-- @path ms integer min=0\n-- @query n integer\n-- @cache off\n"
                 "SELECT json_build_object('n', :n) FROM pg_sleep(:ms / 1000.0)",
}


def one(n):
    return f"/api/one?n={n}"


def running(cluster, db):
    return [b for b in sessions(cluster, db) if b["state"] == "active"]


@contextlib.contextmanager
def stalled(cluster):
    cluster.sigstop()
    try:
        yield
    finally:
        cluster.sigcont()


class Asked:
    """A request on its way in a thread of its own."""

    def __init__(self, server, path):
        self.answer = self.error = None
        self.thread = threading.Thread(target=self._ask, args=(server, path), daemon=True)
        self.thread.start()

    def _ask(self, server, path):
        try:
            self.answer = server.get(path, {"Connection": None}, seconds=60)
        except (OSError, Closed) as e:
            self.error = e

    def join(self, seconds=15):
        self.thread.join(patience(seconds))
        assert not self.thread.is_alive(), "no end to the request"
        return self.answer


def ends_within(server, seconds, number=signal.SIGTERM):
    """Sends the signal; the time until the end, with exit code 0."""
    begun = time.monotonic()
    server.signal(number)
    assert server.wait_exit(seconds) == 0
    return time.monotonic() - begun


def ask(connection, server, path):
    connection.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    return connection.response()


# ---- under load ----------------------------------------------------------------------------------

@pytest.mark.threads
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_request_is_lost(cluster, empty_database, number):
    """Clients that keep their connection and clients that connect for each request, several hundred times a
    second: every connection that came about gets complete answers until it is told Connection: close."""
    rounds = 1 if number == signal.SIGINT else 4
    for _ in range(rounds):
        with Server(cluster, empty_database, ENDPOINTS) as server:
            kept = Load(server, lambda n: f"/api/sleep/{n % 8}?n={n}", clients=3, until_refused=True)
            anew = Load(server, one, clients=5, keep_alive=False, until_refused=True)
            kept.start()
            anew.start()
            begun, before = time.monotonic(), len(anew.results)
            anew.wait(200, 200)
            rate = (len(anew.results) - before) / (time.monotonic() - begun)
            kept.wait(20, 200)
            took = ends_within(server, 5, number)
            kept.join()
            anew.join()
            print(f"\nstopped in {took * 1000:.0f} ms under {rate:.0f} connects/s:"
                  f" {len(anew.answered())} + {len(kept.answered())} answers, none lost", end="")
            assert anew.statuses() == {200} and kept.statuses() == {200}
            assert all(r.error in (None, "refused") for r in anew.results + kept.results)


def test_pipelined_and_queued_requests_are_answered(cluster, empty_database):
    """What waits in the server's queue when the stop begins has been accepted, and is answered."""
    with Server(cluster, empty_database, ENDPOINTS, {"workers": {"threads": 1, "queue_timeout": "1m"}, "database": {"pool_max": 1}}) as server:
        with contextlib.ExitStack() as stack:
            asked = [stack.enter_context(server.connect(30)) for _ in range(8)]
            for n, connection in enumerate(asked):      # accepted is what has been sent whole
                connection.send(f"GET /api/sleep/300?n={n} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            wait_until(lambda: running(cluster, empty_database), what="a statement runs")
            ends_within(server, 10)
            answers = [connection.response() for connection in asked]
        assert [a.status for a in answers] == [200] * 8
        assert answers[-1].header("Connection") == "close"


def test_request_that_is_slow_to_start(cluster, empty_database):
    """A connection that was accepted may still be about to send its first request."""
    def answer_in_time(server):
        """None when it was not: it has half a second from when it was accepted, all of which a busy machine may take."""
        with Connection(server.port) as late:
            wait_until(lambda: descriptors_of_clients(server) >= 1, what="the connection")
            server.signal(signal.SIGTERM)
            stopping = time.monotonic()
            wait_until(lambda: time.monotonic() - stopping > 0.1, what="a client that takes its time")
            with contextlib.suppress(OSError):
                return ask(late, server, "/api/one")
            sent = time.monotonic() - stopping
            assert sent > 0.3, f"it was closed {sent:.2f} s after the stop"

    for _ in range(5):
        with Server(cluster, empty_database, ENDPOINTS) as server:
            answer = answer_in_time(server)
            assert server.wait_exit(5) == 0
        if answer:
            break
    assert answer and answer.status == 200 and answer.header("Connection") == "close", answer


def descriptors_of_clients(server):
    """Established connections to the server's port, from the kernel's table."""
    port = f":{server.port:04X}"
    with open("/proc/net/tcp") as table:
        return sum(1 for line in table if line.split()[1].endswith(port) and line.split()[3] == "01")


# ---- draining ------------------------------------------------------------------------------------

def test_drain_delay(cluster, empty_database):
    """While draining only /readyz says so; a reload does not shorten it."""
    delay = patience(1)
    with Server(cluster, empty_database, ENDPOINTS, {"http": {"drain_delay": f"{round(delay * 1000)}ms"}}) as server:
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.get("/readyz").status == 503, what="/readyz says 503")
        assert server.get("/readyz").json()["status"] == "draining"
        server.signal(signal.SIGHUP)
        with Load(server, one, clients=2, keep_alive=False, until_refused=True) as load, \
                Connection(server.port) as kept:
            for _ in range(10):
                answer = ask(kept, server, "/api/one")
                assert answer.status == 200 and answer.header("Connection") is None, answer
            assert server.get("/livez").status == 200
            assert server.wait_exit(delay + 5) == 0
            ended = time.monotonic() - begun
            load.join()
        assert ended >= delay - 0.001, f"it ended after {ended:.2f} s"
        assert load.statuses() == {200}
        assert max(r.ended for r in load.answered()) - begun > 0.9 * delay


def test_second_signal_ends_the_drain_delay(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, {"http": {"drain_delay": "60s"}}) as server:
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.get("/readyz").status == 503, what="/readyz says 503")
        assert ends_within(server, 5) < patience(2)


@pytest.mark.threads
def test_after_the_close_of_the_listener(cluster, empty_database):
    """New connections are refused; those there are get an answer with Connection: close; what runs ends."""
    with Server(cluster, empty_database, ENDPOINTS) as server:
        with Connection(server.port) as idle:
            assert ask(idle, server, "/api/one").status == 200
            asked = Asked(server, f"/api/sleep/{round(min(patience(1500), 5000))}")
            wait_until(lambda: running(cluster, empty_database), what="the statement runs")
            server.signal(signal.SIGTERM)

            def refused():
                try:
                    Connection(server.port, 5).close()
                except ConnectionRefusedError:
                    return True
            wait_until(refused, 5, "new connections are refused")
            assert asked.answer is None
            answer = ask(idle, server, "/api/one")
            assert answer.status == 200 and answer.header("Connection") == "close", answer
            assert idle.closed(2)
        answer = asked.join()
        assert answer.status == 200 and answer.header("Connection") == "close", answer
        assert server.wait_exit(5) == 0


def test_idle_connections_do_not_hold_it_up(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as server:
        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(Connection(server.port)) for _ in range(50)]
            for connection in kept[:25]:
                assert ask(connection, server, "/api/one").status == 200
            kept[0].send(b"GET /api/one HT")    # nor does the beginning of a request
            assert ends_within(server, 15) < patience(3)


# ---- what hangs ----------------------------------------------------------------------------------

def test_shutdown_timeout(cluster, empty_database):
    """A statement that does not end is cancelled when the time is up, and its caller told."""
    with Server(cluster, empty_database, ENDPOINTS,
                {"http": {"shutdown_timeout": "500ms"}, "database": {"statement_timeout": "60s"}}) as server:
        asked = [Asked(server, f"/api/sleep/60000?n={n}") for n in range(3)]
        wait_until(lambda: len(running(cluster, empty_database)) == 3, what="the statements run")
        took = ends_within(server, 10)
        print(f"\nshutdown_timeout of 500 ms: ended after {took * 1000:.0f} ms")
        assert 0.5 <= took < patience(1.5), f"it took {took:.2f} s"
        for a in asked:
            assert a.join().status == 503 and a.answer.header("Retry-After"), a.error
        wait_until(lambda: not running(cluster, empty_database), 3, "the statements have ended")
        assert "requests unfinished" in server.log()


def test_shutdown_timeout_with_waiting_requests(cluster, empty_database):
    """So it is with those that wait for a worker or for a connection."""
    config = {"http": {"shutdown_timeout": "500ms"}, "workers": {"threads": 2, "queue_timeout": "1m"},
              "database": {"statement_timeout": "60s", "pool_max": 1, "acquire_timeout": "1m"}}
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        asked = [Asked(server, f"/api/sleep/60000?n={n}") for n in range(5)]
        wait_until(lambda: running(cluster, empty_database), what="a statement runs")
        wait_until(lambda: descriptors_of_clients(server) >= 5, what="five connections")
        took = ends_within(server, 10)
        assert took < patience(1.5), f"it took {took:.2f} s"
        assert [a.join().status for a in asked] == [503] * 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal(cluster, empty_database, number):
    with Server(cluster, empty_database, ENDPOINTS,
                {"http": {"shutdown_timeout": "60s"}, "database": {"statement_timeout": "60s"}}) as server:
        asked = Asked(server, "/api/sleep/60000")
        wait_until(lambda: running(cluster, empty_database), what="the statement runs")
        server.signal(number)
        server.wait_log("stopping")
        assert not asked.answer
        assert ends_within(server, 10, number) < patience(1.5)
        assert asked.join().status == 503


def test_while_starting_without_a_database(cluster, empty_database):
    cluster.stop()
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            with Server(cluster, empty_database, ENDPOINTS, wait="/livez",
                        allow_errors="cannot be reached|waiting for the database") as server:
                server.wait_log("waiting for the database")
                assert ends_within(server, 5, number) < patience(1)
    finally:
        cluster.start()


def test_while_starting_with_a_stalled_database(cluster, empty_database):
    """The check of the endpoints waits for an answer that does not come; the signal is not kept waiting."""
    with stalled(cluster):
        with Server(cluster, empty_database, ENDPOINTS, wait="/livez", triggers=False,
                    allow_errors="cannot be reached|waiting for the database") as server:
            assert ends_within(server, 20) < patience(2)


def test_while_reloading_with_a_stalled_database(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, allow_errors="reload|database") as server:
        with stalled(cluster):
            server.write_endpoint("two.sql", ENDPOINTS["one.sql"].replace("/api/one", "/api/two"))
            server.signal(signal.SIGHUP)
            wait_until(lambda: server.get("/livez").status == 200)
            assert ends_within(server, 20) < patience(2)


@pytest.mark.threads
def test_with_a_stalled_database_under_load(cluster, empty_database):
    config = {"http": {"shutdown_timeout": "500ms"}, "database": {"pool_max": 2}}
    with Server(cluster, empty_database, ENDPOINTS, config, allow_errors="cannot be reached") as server:
        load = Load(server, one, clients=8, until_refused=True).start()
        load.wait(50, 200)
        with stalled(cluster):
            wait_until(lambda: time.monotonic() - max(r.ended for r in list(load.results)) > 0.2, what="all wait")
            took = ends_within(server, 10)
            load.join()
        print(f"\nwith a stalled database: ended after {took * 1000:.0f} ms")
        assert took < 0.5 + patience(2.5), f"it took {took:.2f} s"
        assert load.statuses() <= {200, 503}


def test_taken_port(cluster, empty_database):
    """A start that fails is not a stop: exit code 1, and a line that says what to do."""
    with Server(cluster, empty_database, ENDPOINTS) as first:
        second = Server(cluster, empty_database, ENDPOINTS, wait=None, allow_errors=True)
        second.write_config({"http": {"listen": f"127.0.0.1:{first.port}"}})
        second.start()
        assert second.wait_exit(10) == 1
        assert "PROVOST_HTTP_LISTEN" in second.log()
        assert first.get("/api/one").status == 200


def test_pid_file(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, args=["--pidfile", "pid"]) as server:
        assert (server.folder / "pid").read_text().strip() == str(server.pid)
        server.stop()
        assert not (server.folder / "pid").exists()

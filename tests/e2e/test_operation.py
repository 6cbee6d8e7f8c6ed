"""What an operator does to the server, and what it does where the machine gives it little."""
import contextlib
import re
import signal
import socket
import subprocess

import pytest

import harness
from harness import BINARY, Connection, Server, free_port, patience, wait_until
from load import SANITIZED, descriptors

ENDPOINTS = {
    "one.sql": "-- @route GET /api/one\n-- @cache off\nSELECT json_build_object('one', 1)",
}


def reload(server):
    """Tells the server and waits until it is done; the lines it logged about it."""
    seen = len(server.log())
    server.signal(signal.SIGHUP)
    server.wait_log('msg="reload: (applied|nothing was changed)"', 20, seen)
    return server.log()[seen:]


# ---- reload --------------------------------------------------------------------------------------

def test_endpoints_are_checked_against_the_database_in_use(cluster, empty_database):
    """Another database in the file is for the next start, and said so at each reload until then."""
    with Server(cluster, empty_database, ENDPOINTS) as server:
        server.write_config({"database": {"url": cluster.app_dsn("no_such_database")}})
        for n in range(2):
            server.write_endpoint("two.sql", f"-- @route GET /api/two\n-- @cache off\nSELECT json_build_object('n', {n})")
            log = reload(server)
            assert "reload: applied" in log, log
            assert re.search('msg="config: this change needs a restart" section=database key=url .*no_such_database', log)
            assert "password=***" in log
            assert server.get("/api/two").json() == {"n": n}
        server.write_config({"database": {"url": cluster.app_dsn(empty_database)}})
        assert "needs a restart" not in reload(server)


def test_an_access_log_that_cannot_be_opened_refuses_all(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, allow_errors="reload: ") as server:
        server.write_config({"http": {"access_log": "/nowhere/access", "max_url": 256}})
        log = reload(server)
        assert "reload: nothing was changed" in log and "/nowhere/access cannot be opened" in log, log
        assert server.get("/api/one?n=" + 300 * "1").status != 414


def test_a_rotated_access_log_is_let_go_whatever_the_rest_comes_to(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, {"http": {"access_log": "./access"}},
                allow_errors="reload: ") as server:
        file = server.folder / "access"
        file.rename(server.folder / "access.1")
        server.write_config({"http": {"max_url": "wrong"}})
        assert "reload: nothing was changed" in reload(server)
        server.get("/api/one", {"X-Request-Id": "after"})
        wait_until(lambda: file.exists() and "id=after" in file.read_text(), what="a line in the new file")


def test_a_rotated_access_log_is_let_go_without_a_database(cluster):
    config = {"http": {"access_log": "./access"}, "database": {"url": f"postgresql://127.0.0.1:{free_port()}/none"}}
    with Server(None, None, ENDPOINTS, config, wait="/livez", allow_errors="waiting for the database|reload|reached") as server:
        file = server.folder / "access"
        server.wait_log("waiting for the database")
        file.rename(server.folder / "access.1")
        server.reload()
        wait_until(file.exists, what="the new file")


def test_a_reload_that_is_refused_late_leaves_the_access_log_where_it_was(cluster, empty_database):
    """The triggers are looked at last; without an answer nothing of the reload holds."""
    with Server(cluster, empty_database, ENDPOINTS, {"http": {"access_log": "./access"}}, allow_errors="reload: ") as server, \
            contextlib.closing(cluster.connect(empty_database)) as other:
        other.autocommit = False
        other.cursor().execute("LOCK TABLE pg_catalog.pg_trigger IN ACCESS EXCLUSIVE MODE")
        server.write_config({"http": {"access_log": "./moved"}})
        log = reload(server)
        assert "its triggers were being checked" in log and "reload: nothing was changed" in log, log
        server.get("/api/one", {"X-Request-Id": "after"})
        wait_until(lambda: "id=after" in (server.folder / "access").read_text(), what="a line in the file as before")
        other.rollback()
        assert "reload: applied" in reload(server)
        server.get("/api/one", {"X-Request-Id": "moved"})
        wait_until(lambda: "id=moved" in (server.folder / "moved").read_text(), what="a line in the new file")
        assert "id=after" not in (server.folder / "moved").read_text()


# ---- the pid file --------------------------------------------------------------------------------

def command(server, *args):
    done = subprocess.run([BINARY, *args], cwd=server.folder, env=server.environment(), text=True, timeout=patience(20),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def test_a_second_start_leaves_the_pid_file_alone(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, args=["--pidfile", "pid"]) as first:
        file = first.folder / "pid"
        for config in ({}, {"http": {"listen": f"127.0.0.1:{first.port}"}}):
            second = Server(cluster, empty_database, ENDPOINTS, config, args=["--pidfile", file], wait=None,
                            allow_errors="pid file belongs to a server that runs")
            with second:
                assert second.wait_exit() == 1
            assert "pid file belongs to a server that runs" in second.log()
            assert file.read_text() == f"{first.pid}\n"
        code, output = command(first, "reload", "--config", first.ini, "--pidfile", "pid")
        assert code == 0 and str(first.pid) in output, output
        first.wait_log("reload: applied")


def test_a_start_that_fails_leaves_no_pid_file(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as first:
        # Nobody has been told that it is ready: there is nothing to drain.
        second = Server(cluster, empty_database, ENDPOINTS, {"http": {"listen": f"127.0.0.1:{first.port}", "drain_delay": "1h"}},
                        args=["--pidfile", "pid"], wait=None, allow_errors="cannot listen")
        with second:
            assert second.wait_exit() == 1
        assert not (second.folder / "pid").exists()


def test_a_stale_pid_file_names_nobody(cluster, empty_database):
    """The process it names is a stranger, who would not survive the signal."""
    with Server(cluster, empty_database, ENDPOINTS, args=["--pidfile", "pid"]) as server:
        server.kill()
        file = server.folder / "pid"
        stranger = subprocess.Popen(["sleep", "60"])
        try:
            file.write_text(f"{stranger.pid}\n")
            code, output = command(server, "reload", "--config", server.ini, "--pidfile", "pid")
            assert code == 1 and "does not run" in output and str(stranger.pid) in output
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()
        server.start()    # and is no obstacle
        assert file.read_text() == f"{server.pid}\n"


# ---- threads that cannot be started --------------------------------------------------------------

FAIL_NTH_THREAD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
static int calls;
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    if (__sync_add_and_fetch(&calls, 1) == atoi(getenv("FAIL_THREAD"))) {
        *t = 0x1234;    /* glibc stores the id before clone fails */
        return EAGAIN;
    }
    return real(t, a, f, arg);
}
"""


@pytest.mark.skipif(SANITIZED, reason="a sanitizer has its own pthread_create")
def test_a_thread_that_cannot_be_started(cluster, empty_database, tmp_path):
    """Whichever it is, the start fails and says so."""
    (tmp_path / "fail.c").write_text(FAIL_NTH_THREAD)
    library = tmp_path / "fail.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "fail.c", "-ldl"], check=True)
    config = {"http": {"threads": 2}, "workers": {"threads": 2}}
    for number in range(1, 11):    # log, pool, cancel, listener, 2 workers, hub, janitor, 2 of http
        server = Server(cluster, empty_database, ENDPOINTS, config, wait=None, allow_errors=True,
                        env={"LD_PRELOAD": str(library), "FAIL_THREAD": str(number)})
        with server:
            assert server.wait_exit() == 1, f"thread {number}: {server.log()}"
        assert "cannot start" in server.log(), f"thread {number}: {server.log()}"


# ---- descriptors ---------------------------------------------------------------------------------

@pytest.fixture
def limited(tmp_path, monkeypatch):
    """Servers of this test start with that many descriptors."""
    def limit(count):
        script = tmp_path / "limited"
        script.write_text(f'#!/bin/sh\nulimit -n {count}\nexec {BINARY} "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr(harness, "BINARY", script)
    return limit


SMALL = {"http": {"threads": 1}, "database": {"pool_max": 4}}


def test_idle_clients_leave_descriptors_to_the_rest(cluster, empty_database, limited):
    limited(300)
    with Server(cluster, empty_database, ENDPOINTS, SMALL, allow_errors="reload: ") as server:
        allowed = (300 - 64 - 2 * 4 - 64) // 2    # the other half is for WebSockets
        assert re.search(f"level=warn .*max_connections=1000 allowed={allowed} max_clients=10000 allowed_clients={allowed} limit=300", server.log())
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(Connection(server.port))
            wait_until(lambda: descriptors(server) >= allowed + 64, what="the reserve is full")
            cluster.kill_backends(empty_database)    # new connections need descriptors
            log = reload(server)
            assert "reload: applied" in log, log
        wait_until(lambda: server.get("/api/one").status == 200, what="served")

        server.write_config({"database": {"pool_max": 5}})
        log = reload(server)
        assert "reload: nothing was changed" in log and "pool_max: 5 connections" in log, log


def test_too_few_descriptors(cluster, empty_database, limited):
    limited(140)
    with Server(cluster, empty_database, ENDPOINTS, SMALL, wait=None, allow_errors="too few descriptors") as server:
        assert server.wait_exit() == 1
        assert "limit=140 needed=152" in server.log()


# ---- clients that do not take their answers ------------------------------------------------------

LARGE = {
    **ENDPOINTS,
    "large.sql": "-- @route GET /api/large\n-- @query size integer max=100000000 default=30000000\n-- @cache off\n"
                 "SELECT to_json(repeat('x', :size))",
}


def ask_for_large(server, stack, name, size=30_000_000):
    """A connection with a request for more than the kernel buffers, on which nothing has been read."""
    connection = stack.enter_context(server.connect())
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.send(f"GET /api/large?size={size} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {name}\r\n\r\n".encode())
    return connection


def test_answers_that_are_not_taken(cluster, empty_database):
    """Who reads nothing, and who reads a trickle, is closed; the access log claims nothing of them."""
    config = {"http": {"idle_timeout": "1500ms", "access_log": "./access"}}
    with Server(cluster, empty_database, LARGE, config) as server, contextlib.ExitStack() as stack:
        def logged(name):
            return re.search(f"id={name} .*", (server.folder / "access").read_text())

        ask_for_large(server, stack, "deaf")
        trickle = ask_for_large(server, stack, "trickle")

        def both():
            with contextlib.suppress(ConnectionError):
                trickle.socket.recv(1024)
            return logged("deaf") and logged("trickle")
        wait_until(both, 8, "both are given up", interval=0.05)
        for name in ("deaf", "trickle"):
            assert re.search(r"status=200 bytes=- .* aborted=yes$", logged(name)[0]), logged(name)[0]
        server.request("GET", "/api/large?size=1000000", {"X-Request-Id": "whole"})
        line = wait_until(lambda: logged("whole"))[0]
        assert "bytes=1000002" in line and "aborted" not in line


def test_large_answers_in_flight_are_bounded(cluster, empty_database):
    config = {"http": {"access_log": "./access", "idle_timeout": "10m"}, "database": {"statement_timeout": "2m"}}
    with Server(cluster, empty_database, LARGE, config) as server:
        with contextlib.ExitStack() as stack:
            for n in range(7):
                deaf = ask_for_large(server, stack, f"deaf{n}", 70_000_000)
                # It is on its way, and stays there.
                assert deaf.socket.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            answer = server.get("/api/large?size=70000000", seconds=30)
            assert answer.status == 503 and answer.header("Retry-After"), answer
            assert "large answers" in answer.json()["detail"]
            assert server.get("/api/large?size=60000").status == 200
        wait_until(lambda: server.get("/api/large?size=70000000", seconds=30).status == 200, 20, "they are gone")


# ---- proxies -------------------------------------------------------------------------------------

def test_requests_that_came_through_a_proxy_are_refused(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as server:
        for name in ("Forwarded", "X-Forwarded-For", "x-forwarded-anything", "Via", "X-Real-IP"):
            assert server.get("/api/one", {name: "1.1 somebody"}).status == 403, name
        for name in ("X-Forwarded", "Viaduct", "X-Real-IPs", "X", "X-Fo"):
            assert server.get("/api/one", {name: "1.1 somebody"}).status == 200, name


# ---- stop ----------------------------------------------------------------------------------------

def test_kept_connections_are_told_that_the_server_stops(cluster, empty_database):
    """Whoever asks now and then gets an answer with Connection: close, not a closed connection."""
    with Server(cluster, empty_database, ENDPOINTS) as server, contextlib.ExitStack() as stack:
        kept = [stack.enter_context(server.connect()) for _ in range(3)]
        ask = b"GET /api/one HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for connection in kept:
            connection.send(ask)
            assert connection.response().header("Connection") != "close"
        server.signal(signal.SIGTERM)
        server.wait_log("msg=stopping")
        for connection in kept:
            assert not connection.closed(0.4 / patience(1))
            connection.send(ask)
            answer = connection.response()
            assert answer.status == 200 and answer.header("Connection") == "close", answer
        assert server.wait_exit() == 0

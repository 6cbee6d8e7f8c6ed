"""SIGHUP: everything or nothing, no request fails, and nothing piles up however often it comes."""
import re
import signal
import subprocess
import time

import pytest

from harness import BINARY, Server, patience, wait_until
from load import SANITIZED, Load, descriptors, rss, sessions, threads

ENDPOINTS = {
    "one.sql": "-- @route GET /api/one\n-- @query n integer\n-- @cache off\n"
               "SELECT json_build_object('one', 1, 'n', :n)",
    "sleep.sql": "-- @route GET /api/sleep/:ms\n-- @path ms integer min=0\n-- @query n integer\n-- @cache off\n"
                 "SELECT json_build_object('n', :n) FROM pg_sleep(:ms / 1000.0)",
}


def one(n):
    return f"/api/one?n={n}"


def version(number, route="/api/version"):
    return f"-- @route GET {route}\n-- @cache off\nSELECT json_build_object('version', {number})"


def reloads(server):
    return len(re.findall('msg="reload: (applied|nothing was changed)"', server.log()))


def reload(server, applied=True):
    """Tells the server and waits until it is done; the lines it logged about it."""
    seen, before = len(server.log()), reloads(server)
    server.reload()
    wait_until(lambda: reloads(server) > before, 10, "the reload is done")
    log = server.log()[seen:]
    assert ("reload: applied" in log) == applied, log
    return log


def replace_config(server, changes):
    """In one go, for a server that may be reading it."""
    place, server.ini = server.ini, server.folder / "new.ini"
    server.write_config(changes)
    server.ini = server.ini.rename(place)


def changes(log):
    """{section.key: (from, to)} of the lines that name a changed key; each key has one line."""
    found = re.findall(r'msg="config: changed" section="?([^"\n]+?)"? key=(\S+) from="?([^"\n]+?)"? to="?([^"\n]+?)"?$',
                       log, re.M)
    keys = [f"{section}.{key}" for section, key, _, _ in found]
    assert len(keys) == len(set(keys)) == log.count('msg="config: changed"'), log
    return {key: (old, new) for key, (_, _, old, new) in zip(keys, found)}


# ---- live changes --------------------------------------------------------------------------------

@pytest.mark.threads
def test_a_hundred_reloads_under_load(cluster, empty_database):
    """Pool, workers and timeouts change all the time; no request notices."""
    count = 10 if SANITIZED else 100
    settings = [{"workers": {"threads": 8}, "database": {"pool_min": 1, "pool_max": 8, "acquire_timeout": "5s"}},
                {"workers": {"threads": 2}, "database": {"pool_min": 0, "pool_max": 2, "acquire_timeout": "6s"}},
                {"workers": {"threads": 5}, "database": {"pool_min": 4, "pool_max": 5, "statement_timeout": "7s"}},
                {"workers": {"threads": 1}, "database": {"pool_min": 1, "pool_max": 1, "statement_timeout": "8s"}}]
    # Reloads that are finished before the next one, so that each has its lines.
    with Server(cluster, empty_database, ENDPOINTS, settings[-1], triggers=False) as server:
        with Load(server, lambda n: f"/api/sleep/{n % 5}?n={n}", clients=3) as busy, \
                Load(server, one, clients=3, keep_alive=False) as quick:
            busy.wait(20)
            for i in range(count):
                server.write_config(settings[i % len(settings)])
                log = reload(server)
                assert "workers.threads" in changes(log), log
            busy.wait(20)
            quick.wait(20)
        assert busy.statuses() == {200} and quick.statuses() == {200}
        print(f"\n{count} reloads under {len(busy.results) + len(quick.results)} requests, none failed")


@pytest.mark.threads
def test_signals_that_come_faster_than_reloads_go(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as server:
        with Load(server, one, clients=2) as load:
            for i in range(200):
                replace_config(server, {"database": {"pool_max": 3 + i % 5}})
                server.signal(signal.SIGHUP)
            replace_config(server, {"database": {"pool_max": 13}})
            server.signal(signal.SIGHUP)
            server.wait_log("key=pool_max .*to=13", 20)
            load.wait(10)
        assert load.statuses() == {200}


def test_pool_sizes(cluster, empty_database):
    """What pg_stat_activity shows follows pool_min and pool_max."""
    config = {"database": {"pool_min": 2, "pool_max": 2}, "workers": {"threads": 16}}
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        def open_sessions():
            return len(sessions(cluster, empty_database))

        wait_until(lambda: open_sessions() == 2, what="pool_min of 2")
        with Load(server, lambda n: f"/api/sleep/100?n={n}", clients=12) as load:
            for pool_max in (9, 3, 6):
                server.write_config({"database": {"pool_max": pool_max}})
                assert changes(reload(server)).keys() == {"database.pool_max"}
                wait_until(lambda: open_sessions() == pool_max, 3, f"pool_max of {pool_max}")
        assert load.statuses() == {200}
        for pool_min in (4, 6):
            server.write_config({"database": {"pool_min": pool_min, "pool_max": 6}})
            changed = changes(reload(server))
            assert changed["database.pool_min"][1] == str(pool_min), changed
            wait_until(lambda: open_sessions() >= pool_min, 3, f"pool_min of {pool_min}")
        server.write_config({"database": {"pool_min": 1, "pool_max": 1}})
        reload(server)
        wait_until(lambda: open_sessions() == 1, 3, "one session")


def test_worker_count(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, {"workers": {"threads": 4}}) as server:
        base = threads(server) - 4
        for count in (32, 1, 256, 3):
            server.write_config({"workers": {"threads": count}})
            assert changes(reload(server))["workers.threads"][1] == str(count)
            wait_until(lambda: threads(server) == base + count, 3, f"{count} workers")
            assert server.get("/api/one").status == 200


def test_timeouts(cluster, empty_database):
    config = {"database": {"statement_timeout": "30s", "pool_max": 1}, "workers": {"threads": 2}}
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        server.write_config({"database": {"statement_timeout": "200ms", "acquire_timeout": "100ms"}})
        changed = changes(reload(server))
        assert changed == {"database.statement_timeout": ("30s", "200ms"), "database.acquire_timeout": ("1s", "100ms")}
        assert server.get("/api/sleep/5000").status == 504
        server.write_config({"endpoint sleep": {"timeout": "2s"}})
        assert "endpoint sleep.timeout" in changes(reload(server))
        assert server.get("/api/sleep/500").status == 200


def test_log_level_and_access_log(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as server:
        access = server.folder / "access"
        server.write_config({"http": {"access_log": access}, "log": {"level": "debug"}})
        reload(server)
        assert server.get("/api/one").status == 200
        wait_until(lambda: access.exists() and "route=/api/one" in access.read_text(), what="a line of access")
        access.rename(server.folder / "access.1")
        reload(server)
        assert server.get("/api/one").status == 200
        wait_until(lambda: access.exists() and "route=/api/one" in access.read_text(), what="a line in the new file")


def test_prepare(cluster, empty_database):
    """`prepare` is live, too: sessions that are of the other kind are replaced."""
    prepared = "-- @route GET /api/prepared\n-- @cache off\nSELECT json_build_object('n', count(*)) FROM pg_prepared_statements"
    with Server(cluster, empty_database, {**ENDPOINTS, "prepared.sql": prepared},
                {"database": {"pool_min": 1, "pool_max": 2}}) as server:
        with Load(server, one, clients=2) as load:
            for word, has in (("no", False), ("yes", True)):
                server.write_config({"database": {"prepare": word}})
                assert changes(reload(server)).keys() == {"database.prepare"} or word == "yes"
                wait_until(lambda: (server.get("/api/prepared").json()["n"] > 0) == has, 3, f"prepare = {word}")
                load.wait(10)
        assert load.statuses() == {200}


def test_restart_only_keys_warn(cluster, empty_database):
    """They say so and stay what they were; the rest of the file is applied."""
    with Server(cluster, empty_database, ENDPOINTS, {"http": {"threads": 2}}) as server:
        server.write_config({"http": {"threads": 1, "max_connections": 7}, "workers": {"threads": 3}})
        log = reload(server)
        for key, old, new in (("threads", "2", "1"), ("max_connections", "1000", "7")):
            assert re.search(f'level=warn msg="config: this change needs a restart" section=http key={key}'
                             f" from={old} to={new}", log), log
        assert changes(log).keys() == {"workers.threads"}


def test_same_file_changes_nothing(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as server:
        log = reload(server)
        assert changes(log) == {} and "level=warn" not in log
        assert re.search("keys_changed=0 endpoints=2", log)


# ---- endpoints -----------------------------------------------------------------------------------

@pytest.mark.threads
def test_endpoints_change_atomically(cluster, empty_database):
    """Two endpoints change together; nobody sees the new one of them and then the old one of the other."""
    endpoints = {"a.sql": version(0, "/api/a"), "b.sql": version(0, "/api/b")}
    with Server(cluster, empty_database, endpoints) as server:
        with Load(server, lambda n: "/api/ab"[:5] + "ab"[n % 2], clients=2) as load:
            for number in range(1, 4 if SANITIZED else 20):
                server.write_endpoint("a.sql", version(number, "/api/a"))
                server.write_endpoint("b.sql", version(number, "/api/b"))
                before = reloads(server)
                server.reload()
                seen = 0
                while reloads(server) == before:
                    for path in ("/api/a", "/api/b"):
                        got = server.get(path).json()["version"]
                        assert seen <= got <= number, f"{path} is at {got} after {seen}"
                        seen = got
                assert server.get("/api/a").json() == server.get("/api/b").json() == {"version": number}
        assert load.statuses() == {200}


def test_endpoints_come_and_go(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as server:
        assert server.get("/api/version").status == 404
        server.write_endpoint("deep/version.sql", version(1))
        assert "endpoints=3" in reload(server)
        assert server.get("/api/version").json() == {"version": 1}
        server.write_endpoint("deep/version.sql", version(2, "/api/moved"))
        reload(server)
        assert server.get("/api/version").status == 404
        assert server.get("/api/moved").json() == {"version": 2}
        server.remove_endpoint("deep/version.sql")
        assert "endpoints=2" in reload(server)
        assert server.get("/api/moved").status == 404
        assert server.get("/api/one").status == 200


def test_statement_that_runs_while_its_endpoint_is_removed(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as server:
        with Load(server, lambda n: f"/api/sleep/300?n={n}", clients=4) as load:
            wait_until(lambda: [b for b in sessions(cluster, empty_database) if b["state"] == "active"])
            server.remove_endpoint("sleep.sql")
            reload(server)
            load.wait(4, 404)
        assert load.statuses() == {200, 404}
        assert sum(1 for r in load.results if r.status == 200) >= 4


BROKEN = {
    "a statement that PostgreSQL refuses": ("new.sql", version(1, "/api/x").replace("SELECT", "SELEKT"), r"new\.sql:3: .*syntax error"),
    "a table that does not exist": ("new.sql", "-- @route GET /api/x\nSELECT *\nFROM nowhere",
                                    r"new\.sql:3: .*relation .*nowhere"),
    "an unknown directive": ("new.sql", "-- @route GET /api/x\n-- @nonsense\nSELECT 1", r"new\.sql:2: "),
    "a route that is taken": ("new.sql", version(1, "/api/one"), r"new\.sql:1: .*|one\.sql:1: "),
    "an unused parameter": ("new.sql", "-- @route GET /api/x\n-- @query unused text\nSELECT 1", r"new\.sql:2: "),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_endpoint(cluster, empty_database, what):
    """Nothing changes, not even what would have been good, and the log says where and why."""
    path, text, expected = BROKEN[what]
    with Server(cluster, empty_database, ENDPOINTS, allow_errors="reload") as server:
        server.write_endpoint(path, text)
        server.write_endpoint("good.sql", version(1))
        server.write_config({"database": {"pool_max": 3}})
        log = reload(server, applied=False)
        assert re.search(f'level=error msg="reload: refused" reason=".*({expected})', log), log
        assert server.get("/api/one").status == 200
        assert server.get("/api/version").status == 404
        assert changes(log) == {}
        server.remove_endpoint(path)
        assert changes(reload(server)).keys() == {"database.pool_max"}
        assert server.get("/api/version").status == 200


@pytest.mark.parametrize("line, expected", [
    ("[database]\npool_max = many", r"provost\.ini:\d+: "),
    ("[database]\npool_min = 9\npool_max = 3", r"pool_m"),
    ("[database]\nno_such_key = 1", r"provost\.ini:\d+: .*no_such_key"),
    ("[endpoint nowhere]\ntimeout = 1s", r"provost\.ini:\d+: .*nowhere"),
    ("not an ini file", r"provost\.ini:\d+: "),
])
def test_broken_configuration(cluster, empty_database, line, expected):
    with Server(cluster, empty_database, ENDPOINTS, allow_errors="reload") as server:
        good = server.ini.read_text()
        server.write_endpoint("good.sql", version(1))
        server.ini.write_text(good + line + "\n")
        log = reload(server, applied=False)
        assert re.search(f'level=error msg="reload: refused" reason=".*{expected}', log), log
        assert server.get("/api/version").status == 404
        server.ini.write_text(good)
        reload(server)
        assert server.get("/api/version").status == 200


def test_missing_configuration(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, allow_errors="reload") as server:
        server.ini.rename(server.folder / "elsewhere")
        log = reload(server, applied=False)
        assert re.search('reason=".*provost.ini', log), log
        assert server.get("/api/one").status == 200


def test_without_the_database(cluster, empty_database):
    """Endpoints that cannot be checked are not taken over."""
    with Server(cluster, empty_database, ENDPOINTS, allow_errors="reload|cannot be reached") as server:
        server.write_endpoint("good.sql", version(1))
        cluster.stop()
        try:
            log = reload(server, applied=False)
            assert "cannot connect to the database" in log
        finally:
            cluster.start()
        wait_until(lambda: server.get("/api/one").status == 200, 2, "healed")
        assert server.get("/api/version").status == 404
        reload(server)
        assert server.get("/api/version").status == 200


def test_while_waiting_for_the_database(cluster, empty_database):
    """A reload that comes before the server is ready is done once it is."""
    cluster.stop()
    try:
        with Server(cluster, empty_database, ENDPOINTS, wait="/livez",
                    allow_errors="cannot be reached|waiting for the database") as server:
            server.wait_log("waiting for the database")
            server.write_endpoint("good.sql", version(1))
            server.reload()
            assert server.get("/readyz").status == 503
            cluster.start()
            wait_until(lambda: server.get("/readyz").status == 200, 3, "ready")
            wait_until(lambda: server.get("/api/version").status == 200, 2, "the new endpoint is there")
    finally:
        if not cluster.pids():
            cluster.start()


# ---- the command ---------------------------------------------------------------------------------

def command(server, *args):
    done = subprocess.run([BINARY, *args], cwd=server.folder, env=server.environment(), text=True, timeout=patience(20),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def test_reload_command(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, args=["--pidfile", "pid"]) as server:
        reload_it = ("reload", "--config", server.ini, "--pidfile", "pid")
        server.write_endpoint("new.sql", version(1))
        code, output = command(server, *reload_it)
        assert code == 0 and str(server.pid) in output, output
        wait_until(lambda: server.get("/api/version").status == 200, what="the new endpoint")

        # What is broken is not even sent.
        before = reloads(server)
        server.write_endpoint("new.sql", version(2).replace("SELECT", "SELEKT"))
        code, output = command(server, *reload_it)
        assert code == 1 and re.search(r"new\.sql:3: ", output), output
        assert server.get("/api/version").json() == {"version": 1} and reloads(server) == before
        server.write_endpoint("new.sql", version(2))

        code, output = command(server, "reload", "--config", server.ini)
        assert code == 2 and "--pidfile" in output
        code, output = command(server, "reload", "--config", server.ini, "--pidfile", "no-such-file")
        assert code == 1 and "no-such-file" in output
        (server.folder / "stale").write_text("4194304\n")    # past the largest pid there can be
        code, output = command(server, "reload", "--config", server.ini, "--pidfile", "stale")
        assert code == 1 and "4194304" in output
        (server.folder / "nonsense").write_text("-1\n")
        code, output = command(server, "reload", "--config", server.ini, "--pidfile", "nonsense")
        assert code == 1, output
        assert server.get("/api/one").status == 200


# ---- nothing piles up ----------------------------------------------------------------------------

def test_nothing_piles_up(cluster, empty_database):
    """Memory, descriptors, threads, and what is prepared in the sessions, over a hundred reloads that change
    every endpoint each time."""
    count, many = 100, 8
    if SANITIZED:
        count = 20

    def endpoints(number):
        return {f"v{i}.sql": version(number * 1000 + i, f"/api/v{i}") for i in range(many)}

    prepared = {**ENDPOINTS, "prepared.sql": "-- @route GET /api/prepared\n-- @cache off\n"
                                             "SELECT json_build_object('count', count(*)) FROM pg_prepared_statements"}
    with Server(cluster, empty_database, {**prepared, **endpoints(0)}, {"database": {"pool_min": 1, "pool_max": 1}},
                triggers=False) as server:
        def turn(number):
            for path, text in endpoints(number).items():
                server.write_endpoint(path, text)
            reload(server)
            for i in range(many):
                assert server.get(f"/api/v{i}").json() == {"version": number * 1000 + i}
            return server.get("/api/prepared").json()["count"]

        for number in range(1, 6):
            turn(number)
        before = rss(server), descriptors(server), threads(server)
        most = max(turn(number) for number in range(6, 6 + count))
        grown = (rss(server) - before[0]) / 1024
        wait_until(lambda: descriptors(server) <= before[1] and threads(server) == before[2],
                   what=f"{before[1]} descriptors and {before[2]} threads")
        print(f"\n{count} reloads of {many} endpoints: RSS grew by {grown:.0f} KiB, {most} statements prepared at most")
        if not SANITIZED:
            assert grown < 4096
        # Those of the catalogue and of the one before it, at most.
        assert most <= 2 * (many + len(prepared)) + 1, most


def test_unchanged_statements_stay_prepared(cluster, empty_database):
    """A reload costs the sessions nothing for what did not change."""
    text = "-- @route GET /api/prepared\n-- @cache off\n" \
           "SELECT json_agg(json_build_object('name', name, 'at', prepare_time) ORDER BY name) FROM pg_prepared_statements"
    with Server(cluster, empty_database, {**ENDPOINTS, "prepared.sql": text},
                {"database": {"pool_min": 1, "pool_max": 1}}) as server:
        assert server.get("/api/one").status == 200
        assert server.get("/api/prepared").status == 200
        before = server.get("/api/prepared").json()
        assert len(before) == 2
        for _ in range(3):
            reload(server)
            assert server.get("/api/one").status == 200
        assert server.get("/api/prepared").json() == before


def test_reload_is_done_while_requests_hang(cluster, empty_database):
    """A worker that leaves is not waited for: a reload takes no longer than its checks."""
    config = {"workers": {"threads": 8}, "database": {"pool_max": 8, "statement_timeout": "60s"},
              "http": {"shutdown_timeout": "200ms"}}
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        with Load(server, lambda n: f"/api/sleep/1500?n={n}", clients=6) as load:
            wait_until(lambda: len([b for b in sessions(cluster, empty_database) if b["state"] == "active"]) == 6)
            server.write_config({"workers": {"threads": 1}, "database": {"pool_max": 1}})
            begun = time.monotonic()
            reload(server)
            assert time.monotonic() - begun < patience(1)
            load.wait(6, 200)
        # The clients' next requests found one connection for all of them.
        assert load.statuses() <= {200, 503}
        assert sum(1 for r in load.results if r.status == 200) >= 6

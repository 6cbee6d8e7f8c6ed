"""The command line, the configuration file, and the environment, as the real program takes them."""
import contextlib
import os
import re
import signal
import socket
import subprocess

import pytest

from harness import BINARY, REPO, Connection, Server, free_port, patience, wait_until
from problems import problem

LOCK = 815
ENDPOINTS = {
    "session.sql": "-- The session as it is.\n-- @route GET /api/session\n"
                   "SELECT json_build_object('search_path', current_setting('search_path'), 'zone', current_setting('TimeZone'),"
                   " 'read_only', current_setting('transaction_read_only'), 'encoding', current_setting('client_encoding'),"
                   " 'user', current_user, 'database', current_database(), 'pid', pg_backend_pid(),"
                   " 'prepared', (SELECT count(*) FROM pg_prepared_statements))",
    "held.sql": f"-- Waits for the test.\n-- @route GET /api/held\n-- @query n integer\n-- @cache off\nSELECT json_build_object('v', pg_advisory_xact_lock_shared({LOCK})::text, 'n', :n)",
}


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("config", empty_template)
    cluster.sql("config", "CREATE SCHEMA school; GRANT USAGE ON SCHEMA school TO provost_app;"
                          'CREATE SCHEMA "Odd, School"; GRANT USAGE ON SCHEMA "Odd, School" TO provost_app')
    yield "config"
    cluster.drop("config")


def provost(*arguments, env=None, cwd=None):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PROVOST_")) and k != "DATABASE_URL"}
    return subprocess.run([BINARY, *arguments], text=True, capture_output=True, timeout=patience(30), cwd=cwd,
                          env={**kept, **(env or {})}, stdin=subprocess.DEVNULL)


# ---- the command line ----------------------------------------------------------------------------

USAGE = {
    "nothing": [],
    "an unknown command": ["surf"],
    "an unknown option": ["serve", "--fast"],
    "two commands": ["check", "serve"],
    "--config without a file": ["check", "--config"],
    "an unknown form of help": ["--help-config=poem"],
    "reload of nobody": ["reload"],
}


@pytest.mark.parametrize("case", USAGE)
def test_usage(case):
    done = provost(*USAGE[case])
    assert done.returncode == 2 and done.stdout == "" and done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--help-config"], ["schema", "print"]])
def test_a_full_disk_is_no_success(arguments):
    """Half of a script that goes on to psql is not to look like all of it."""
    with open("/dev/full", "w") as full:
        done = subprocess.run([BINARY, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=patience(30))
    assert done.returncode == 1 and "No space left" in done.stderr, done


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["serve", "--help"], ["--help", "serve"]])
def test_help(arguments):
    done = provost(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("serve", "check", "reload", "version", "--config", "--pidfile", "--help-config", "SIGHUP", "DATABASE_URL"):
        assert word in done.stdout


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(arguments):
    done = provost(*arguments)
    assert (done.returncode, done.stderr) == (0, "") and re.fullmatch(r"provost \d+\.\d+\.\d+\n", done.stdout)


def test_help_config_names_every_key():
    done = provost("--help-config")
    assert (done.returncode, done.stderr) == (0, "")
    for key in ("listen", "max_connections", "origins", "queue_timeout", "pool_max", "statement_timeout", "level", "timeout"):
        assert re.search(rf"^  {key}$", done.stdout, re.M), key
    assert done.stdout == provost("--help-config=text").stdout


@pytest.mark.parametrize("form, file", [("sample", "config/provost.ini"), ("markdown", "docs/CONFIGURATION.md")])
def test_help_config_is_what_the_repository_holds(form, file):
    assert provost(f"--help-config={form}").stdout == (REPO / file).read_text()


def test_the_default_configuration(tmp_path):
    done = provost("check", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("config/provost.ini: the file cannot be read: No such file")


def test_reload_without_a_server(tmp_path):
    done = provost("reload", "--pidfile", tmp_path / "pid")
    assert done.returncode == 1 and "does the server run?" in done.stderr


def test_the_pid_file(cluster, db, tmp_path):
    file = tmp_path / "provost.pid"
    with Server(cluster, db, endpoints=ENDPOINTS, args=["--pidfile", file]) as server:
        assert file.read_text() == f"{server.pid}\n"
        done = provost("reload", "--pidfile", file, "--config", server.ini)
        assert done.returncode == 0 and str(server.pid) in done.stdout
        server.wait_log("reload: applied")
    assert not file.exists()


def test_a_pid_file_that_cannot_be_written(cluster, db, tmp_path):
    server = Server(cluster, db, endpoints=ENDPOINTS, args=["--pidfile", tmp_path / "nowhere/pid"], wait=None, allow_errors=True)
    with server:
        assert server.wait_exit() == 1
    assert "cannot write the pid file" in server.log()


# ---- the file ------------------------------------------------------------------------------------

GOOD_URL = "postgresql://u:s3cr3t@127.0.0.1:1/x"
# name of the case: (the file, the errors as (line, pattern)); {url} keeps the rest good
BROKEN = {
    "an unknown key": ("[http]\nlissen = 127.0.0.1:1\n{db}", [(2, "no key `lissen`; did you mean `listen`")]),
    "a key of another section": ("[http]\npool_max = 3\n{db}", [(2, "key of .database., not of .http.")]),
    "an unknown section": ("[htpp]\nlisten = 127.0.0.1:1\n{db}", [(1, r"no section \[htpp\]; did you mean \[http\]")]),
    "a key without a section": ("listen = 127.0.0.1:1\n{db}", [(1, "stands in no section")]),
    "a line that is none": ("[http]\nlisten\n{db}", [(2, "key = value")]),
    "a key twice": ("[http]\nmax_url = 1KiB\nmax_url = 2KiB\n{db}", [(3, "set in line 2 already")]),
    "a word for a number": ("[workers]\nthreads = many\n{db}", [(2, "`many` is not accepted; write a whole number from 1 to 256")]),
    "a number out of bounds": ("[workers]\nthreads = 1000\n{db}", [(2, "from 1 to 256")]),
    "a negative number": ("[workers]\nqueue = -1\n{db}", [(2, "from 1 to 1000000")]),
    "a duration without a unit": ("[http]\nidle_timeout = 5\n{db}", [(2, "a duration")]),
    "a duration out of bounds": ("[http]\nidle_timeout = 1ms\n{db}", [(2, "from 10ms to 1h")]),
    "a size out of bounds": ("[http]\nmax_url = 1MiB\n{db}", [(2, "from 256 to 32KiB")]),
    "a word for yes": ("[http]\ndevelopment = maybe\n{db}", [(2, "yes or no")]),
    "a level that is none": ("[log]\nlevel = loud\n{db}", [(2, "one of error, warn, info, debug")]),
    "an origin with a path": ("[http]\norigins = https://a.example/\n{db}", [(2, "leave out what follows the host")]),
    "all origins": ("[http]\norigins = *\n{db}", [(2, "origin")]),
    "a log that is a word": ("[http]\naccess_log = yes\n{db}", [(2, "off, stderr, or the path")]),
    "an endpoint without a name": ("[endpoint]\ntimeout = 1s\n{db}", [(1, "name the endpoint")]),
    "an endpoint twice": ("[endpoint a]\ntimeout = 1s\n[endpoint a]\n{db}", [(3, "begun in line 1 already")]),
    "a comment in the wrong place": ("[http]\nmax_url = 1KiB # small\n{db}", [(2, "begins with ` ;`")]),
    "more connections kept than allowed": ("[database]\nurl = {url}\npool_min = 5\npool_max = 3\n", [(3, "pool_min .5. is more than pool_max .3.")]),
    "no database": ("[http]\n[database]\n", [(2, "no database is set")]),
    "another kind of database": ("[database]\nurl = mysql://a/b\n", [(2, "no URL of a PostgreSQL database")]),
    "an unknown parameter of the URL": ("[database]\nurl = {url}?speed=fast\n", [(2, "`speed` is no parameter")]),
    "a password with a slash": ("[database]\nurl = postgresql://u:s3cr3t/x@host/d\n", [(2, "%2F")]),
    "a limit that is none": ("[database]\nurl = {url}?connection_limit=x\n", [(2, "connection_limit")]),
    "all at once": ("[http]\nlissen = 1\nmax_url = x\n[nowhere]\n[workers]\nthreads = 0x10\n[database]\nurl = mysql://x\n",
                    [(2, "lissen"), (3, "max_url"), (4, "nowhere"), (6, "threads"), (8, "PostgreSQL")]),
    "addresses that others reach": ("[http]\nlisten = 0.0.0.0:8080\n[auth]\nmode = none\n{db}", [(4, "whoever reaches the server")]),
    "addresses that others reach by IPv6": ("[http]\nlisten = [::]:8080\n[auth]\nmode = none\n{db}", [(4, "whoever reaches the server")]),
    "an address of a network": ("[http]\nlisten = 192.0.2.1:8080\n[auth]\nmode = none\n{db}", [(4, "whoever reaches the server")]),
    "every address": ("[http]\nlisten = *:8080\n{db}", [(2, "an address with a port")]),
    "a name": ("[http]\nlisten = admin.example.org:8080\n{db}", [(2, "an address with a port")]),
    "no port": ("[http]\nlisten = 127.0.0.1\n{db}", [(2, "an address with a port")]),
    "a port beyond all": ("[http]\nlisten = 127.0.0.1:65536\n{db}", [(2, "an address with a port")]),
}


@pytest.mark.parametrize("command", ["check", "serve"])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_file(tmp_path, command, case):
    text, expected = BROKEN[case]
    ini = tmp_path / "provost.ini"
    ini.write_text(text.replace("{db}", "[database]\nurl = {url}\n").replace("{url}", GOOD_URL))
    done = provost(command, "--config", ini)
    assert done.returncode == 1 and done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not re.fullmatch(r"\d+ errors?", line)]
    found = [re.fullmatch(rf"{re.escape(str(ini))}:(\d+): (.+)", line) for line in lines]
    assert all(found) and [int(m[1]) for m in found] == [line for line, _ in expected], done.stderr
    for match, (_, pattern) in zip(found, expected):
        assert re.search(pattern, match[2]), match[2]
    assert "s3cr3t" not in done.stderr


@pytest.mark.parametrize("content", [b"\xff\xfe[\x00", b"[http]\nlisten = \0\n", b"x" * (2 << 20), b"[http]\nmax_url = " + b"1" * 5000],
                         ids=["UTF-16", "a NUL", "too large", "a long line"])
def test_files_that_are_no_text(tmp_path, content):
    ini = tmp_path / "provost.ini"
    ini.write_bytes(content)
    done = provost("check", "--config", ini)
    assert done.returncode == 1 and str(ini) in done.stderr


def test_the_same_file_in_other_clothes(cluster, db):
    server = Server(cluster, db, endpoints=ENDPOINTS)
    server.ini.write_bytes(b"\xef\xbb\xbf; a comment\r\n# another\r\n\r\n  [http]  ; here\r\n\tlisten=127.0.0.1:%d   ; there\r\n[log]\r\nlevel = info\r\n[auth]\r\nmode = none\r\n"
                           b"[database]\r\n  url   =   %s  \r\n" % (server.port, cluster.app_dsn(db).encode()))
    with server:
        assert server.get("/api/session").status == 200


# ---- the environment -----------------------------------------------------------------------------

def test_the_environment_comes_before_the_file(cluster, db):
    port = free_port()
    server = Server(cluster, db, endpoints=ENDPOINTS, config={"http": {"max_url": "1KiB"}, "log": {"level": "error"}},
                    env={"PROVOST_HTTP_LISTEN": f"127.0.0.1:{port}", "PROVOST_HTTP_MAX_URL": "256", "PROVOST_LOG_LEVEL": "info"})
    server.port = port
    with server:
        assert server.get("/livez?" + "x" * 249).status == 200
        problem(server.get("/livez?" + "x" * 251), 414)
        assert f"port={port}" in server.log()


def test_an_empty_variable_is_none(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS, env={"PROVOST_HTTP_MAX_URL": "", "DATABASE_URL": ""}) as server:
        assert server.get("/livez").status == 200


def test_a_wrong_variable_is_named(cluster, db):
    server = Server(cluster, db, endpoints=ENDPOINTS)
    done = provost("check", "--config", server.ini, env={"PROVOST_HTTP_MAX_URL": "x", "PROVOST_WORKERS_THREADS": "0", "DATABASE_URL": "mysql://s3cr3t"})
    assert done.returncode == 1 and "s3cr3t" not in done.stderr
    assert [line.split(": ")[0] for line in done.stderr.splitlines()[:-1]] == ["PROVOST_HTTP_MAX_URL", "PROVOST_WORKERS_THREADS", "DATABASE_URL"]


def test_an_unknown_variable_is_warned_of(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS, env={"PROVOST_HTTP_LISSEN": "s3cr3t", "PROVOST_URL": "x", "PROVOST_TOKEN": "x"}) as server:
        assert len(re.findall("no such key, variable ignored", server.log())) == 1
        assert "variable=PROVOST_HTTP_LISSEN" in server.log() and "s3cr3t" not in server.log()


def test_which_database_url_counts(cluster, db):
    wrong = "postgresql://nobody@127.0.0.1:1/nowhere"
    right = cluster.app_dsn(db)
    for file, env in ((wrong, {"DATABASE_URL": right}),
                      (wrong, {"DATABASE_URL": wrong, "PROVOST_DATABASE_URL": right}),
                      (None, {"DATABASE_URL": right}), (right, {})):
        server = Server(cluster, db, endpoints=ENDPOINTS, config={"database": {"url": file}}, env=env)
        done = provost("check", "--config", server.ini, env=env)
        assert done.returncode == 0, (file, env, done)


# ---- the URL of an ORM ---------------------------------------------------------------------------

def with_parameters(url, **parameters):
    return url + ("&" if "?" in url else "?") + "&".join(f"{k}={v}" for k, v in parameters.items())


def session(server):
    return server.get("/api/session").json()


def test_the_session(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        got = session(server)
        assert got["zone"] == "UTC" and got["read_only"] == "on" and got["encoding"] == "UTF8"
        assert got["user"] == "provost_app" and got["database"] == db and got["prepared"] >= 1
        assert {b["application_name"] for b in cluster.backends(db)} == {"provost"}


@pytest.mark.parametrize("schema, path", [("school", "school"), ("Odd%2C%20School", '"Odd, School"')])
def test_schema_of_an_orm_s_url(cluster, db, schema, path):
    url = with_parameters(cluster.app_dsn(db), schema=schema)
    for more in ({}, {"pgbouncer": "true"}):
        with Server(cluster, db, endpoints=ENDPOINTS, config={"database": {"url": None}},
                    env={"DATABASE_URL": with_parameters(url, **more) if more else url}) as server:
            assert session(server)["search_path"] == path


@contextlib.contextmanager
def held(cluster, db):
    with contextlib.closing(cluster.connect(db)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        yield


def waiting(cluster, db):
    return sum(b["state"] == "active" and "pg_advisory_xact_lock_shared" in b["query"] for b in cluster.backends(db))


@pytest.mark.parametrize("more, config, limit", [
    ({"connection_limit": 3}, {}, 3),
    ({"pool": 2}, {}, 2),
    ({"connection_limit": 3}, {"pool_max": 4}, 4),
])
def test_connection_limit_of_an_orm_s_url(cluster, db, more, config, limit):
    url = with_parameters(cluster.app_dsn(db), pool_timeout=20, **more)
    with Server(cluster, db, endpoints=ENDPOINTS, config={"database": {"url": url, **config}}) as server:
        with held(cluster, db):
            connections = []
            for n in range(6):
                connections.append(server.connect(30))
                connections[-1].send(f"GET /api/held?n={n} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            wait_until(lambda: waiting(cluster, db) == limit, what=f"{limit} statements run")
            mine = [b for b in cluster.backends(db) if b["application_name"] == "provost"]
            assert len(mine) == limit
        assert [c.response().status for c in connections] == [200] * 6


def test_pgbouncer_in_an_orm_s_url_keeps_nothing_prepared(cluster, db):
    url = with_parameters(cluster.app_dsn(db), pgbouncer="true", connection_limit=1)
    with Server(cluster, db, endpoints=ENDPOINTS, config={"database": {"url": url}}) as server:
        for _ in range(3):
            assert session(server)["prepared"] == 0
        assert session(server)["zone"] == "UTC"


def test_application_name_of_the_url(cluster, db):
    url = with_parameters(cluster.app_dsn(db), application_name="dashboard")
    with Server(cluster, db, endpoints=ENDPOINTS, config={"database": {"url": url}}):
        assert {b["application_name"] for b in cluster.backends(db)} == {"dashboard"}


def test_parameters_without_an_effect_are_taken(cluster, db):
    url = with_parameters(cluster.app_dsn(db), sslmode="disable", connect_timeout=5, socket_timeout=3, statement_cache_size=100)
    server = Server(cluster, db, endpoints=ENDPOINTS, config={"database": {"url": url}})
    assert provost("check", "--config", server.ini).returncode == 0


def test_a_scheme_with_a_driver(cluster, db):
    url = re.sub("^postgres(ql)?:", "postgresql+asyncpg:", cluster.app_dsn(db))
    server = Server(cluster, db, endpoints=ENDPOINTS, config={"database": {"url": url}})
    assert provost("check", "--config", server.ini).returncode == 0


def test_no_password_in_the_log(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS, config={"log": {"level": "debug"}}) as server:
        server.write_config({"database": {"url": with_parameters(cluster.app_dsn(db), application_name="x")}})
        server.reload()
        server.wait_log("reload: applied")
        assert re.search("this change needs a restart.*key=url", server.log())
    password = re.search(r"://[^:]+:([^@]+)@|password=([^&]+)", cluster.app_dsn(db))
    assert password and (password[1] or password[2]) not in server.log()


# ---- listening -----------------------------------------------------------------------------------

@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_listening(cluster, db, address):
    port = free_port()
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    host = {"localhost": "127.0.0.1"}.get(address, address.strip("[]"))
    if family == socket.AF_INET6:
        try:
            socket.create_server((host, 0), family=family).close()
        except OSError:
            pytest.skip("no IPv6 here")
    server = Server(cluster, db, endpoints=ENDPOINTS, config={"http": {"listen": f"{address}:{port}"}}, wait=None)
    with server:
        server.wait_log("msg=ready", 20)
        connection = Connection.__new__(Connection)
        connection.socket, connection.buffer = socket.create_connection((host, port), timeout=patience(10)), b""
        with connection:
            connection.send(f"GET /api/session HTTP/1.1\r\nHost: {address}:{port}\r\n\r\n".encode())
            assert connection.response().status == 200


def test_any_free_port(cluster, db):
    server = Server(cluster, db, endpoints=ENDPOINTS, config={"http": {"listen": "127.0.0.1:0"}}, wait=None)
    with server:
        server.port = int(server.wait_log(r"msg=listening .*\bport=(\d+)", 20)[1])
        wait_until(lambda: server.get("/readyz").status == 200, 20)


def test_an_address_in_use(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS) as first:
        second = Server(cluster, db, endpoints=ENDPOINTS, config={"http": {"listen": f"127.0.0.1:{first.port}"}}, wait=None,
                        allow_errors="cannot listen")
        with second:
            assert second.wait_exit() == 1
        assert "Address already in use" in second.log() and "PROVOST_HTTP_LISTEN" in second.log()
        assert first.get("/livez").status == 200


def test_an_address_is_free_again_at_once(cluster, db):
    server = Server(cluster, db, endpoints=ENDPOINTS)
    for _ in range(3):
        with server:
            assert server.get("/api/session").status == 200


def test_an_access_log_that_cannot_be_opened(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS, config={"http": {"access_log": "/nowhere/access.log"}}, wait=None,
                allow_errors="access_log: /nowhere/access.log cannot be opened") as server:
        assert server.wait_exit() == 1
        assert re.search("level=error [^\n]*access_log: [^\n]* No such file", server.log())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_stop(cluster, db, number):
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        server.signal(number)
        assert server.wait_exit() == 0

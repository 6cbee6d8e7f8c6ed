"""What the end-to-end tests stand on: a real PostgreSQL, the real server, a strict HTTP client.

A test in short (fixtures `cluster` and `database` come from conftest.py):

    def test_hello(cluster, database):
        endpoints = {"hello.sql": "-- @route GET /api/hello\\n-- @role public\\nSELECT json_build_object('a', 1)"}
        with Server(cluster, database, endpoints=endpoints, config={"workers": {"threads": 4}}) as server:
            answer = server.get("/api/hello")
            assert answer.status == 200 and answer.json() == {"a": 1}

Cluster   one private PostgreSQL for the whole session
    dsn(db) / app_dsn(db)           URL of the owner (superuser) / of the server's own role
    sql(db, text, *args)            runs one statement as the owner, returns its rows
    create(db, template), drop(db)  databases; fixture `database` is a copy of the demo per module,
                                    `empty_database` has only pg_stat_statements
    stop("fast"|"immediate"), start(**settings), restart(mode, **settings)     start(max_connections=9)
    sigstop(), sigcont()            freezes the postmaster and every process of it
    kill_backends(db), crash()      ends connections cleanly / SIGKILLs a backend (recovery follows)
    backends(db)                    rows of pg_stat_activity: pid, state, query, application_name; without the
                                    server's listener, and its connection that looks at triggers
Server    one process of $PROVOST_BINARY (build/provost), a context manager
    Server(cluster, db, endpoints=None|{path: text}|folder, config={section: {key: value}},
           env={}, args=[], wait="/readyz", allow_errors=False, owner=False, token=False, triggers=True)
    endpoints=None copies config/endpoints. owner=True connects as the superuser. token=True: callers must
    prove who they are ([auth] mode = token, the default of the server); else mode = none. Its heartbeats are
    PATIENT: on a busy machine the server's own of 300 ms may be overdue, and then nothing is cached and everything
    stored is old; what is about losing a silent stream says config={"database": quick()}. triggers=True: before
    start and reload the schema `provost` and the triggers of the endpoints' tables are installed, where that can
    be done: without them nothing is cached. install_triggers() does it at any other time.
    get(path, headers) head(path) request(method, path, headers, body)    a Response each, own connection
    raw(bytes, count=1, head=False)     sends bytes as they are -> [Response]; connect() -> Connection
    url, port, pid, log(), wait_log(regex), reload(), write_config({...}), write_endpoint(path, text),
    remove_endpoint(path), signal(n), stop() -> asserts exit 0, kill(), wait_exit() -> code
    Leaving the block stops the server and fails the test on: a wrong exit code, a sanitizer's report,
    a line with level=error (unless allow_errors is True or a regex that matches it).
    On failure the test's report has the tail of the log.
Response  status, reason, headers [(name, value)], header(name), body (bytes), json(), version
Connection  send(bytes), response(head=False) -> Response, closed(seconds) -> the peer has closed
statements(dsn, own=False) -> {query: calls} of pg_stat_statements, without BEGIN, COMMIT, SET and, unless
    own, without what begins with /* provost */; never the server's look at triggers, nor the listener's and the courier's, which may
    come at any time;  reset_statements(dsn);  calls(dsn) -> their sum
wait_until(fn, seconds=5) -> fn()'s first true value; never sleep for a fixed time instead
must(condition, what) -> an assertion whose failure is final; scripts/test runs other failures once more
free_port() -> a port nobody listens on
Mark a test that exercises several threads at once with @pytest.mark.threads: it runs under
ThreadSanitizer too. Scale any deadline of your own with patience(seconds): sanitizers are slow.
"""
import atexit
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psycopg2

REPO = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("PROVOST_BINARY", REPO / "build/provost")).resolve()
SLOWNESS = float(os.environ.get("PROVOST_TEST_SLOWNESS", "1"))
# Short, for the sake of sockets; scripts/test names a folder in which it cleans up after us.
SCRATCH = pathlib.Path(tempfile.mkdtemp(prefix="provost-e2e-", dir=os.environ.get("PROVOST_SCRATCH", "/tmp")))
SCRATCH.chmod(0o711)
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
# Where clusters are; in memory, when scripts/test has found plenty of it.
CLUSTERS = pathlib.Path(os.environ.get("PROVOST_MEMORY", SCRATCH))
SANITIZER = re.compile(r"(Address|Thread|Leak|UndefinedBehavior|Memory)Sanitizer|runtime error:|FATAL: .*San")


def end_on_term():
    """The session stops what it started, ended by SIGTERM, and is not disturbed in that by another: scripts/test sends one
    to `timeout` as well, which hands it on."""
    def end(number, _):
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, end)


CORES = len(os.sched_getaffinity(0))
MOST_CROWDED = 8


def crowding():
    """How many want each core of this machine, now or of late: 1 when nobody has to wait for one."""
    now = int(pathlib.Path("/proc/loadavg").read_text().split()[3].split("/")[0])
    return min(max(os.getloadavg()[0] / CORES, now / CORES, 1), MOST_CROWDED)


def patience(seconds):
    """The deadline that `seconds` becomes: sanitizers make the binary slower, and other work the machine, which is not
    known of it before it has; hence twice as long on the best of them."""
    return seconds * SLOWNESS * max(crowding(), 2)


def wait_until(condition, seconds=5, what=None, interval=0.01):
    """Polls until condition() is true and returns that value; fails past the deadline."""
    begun = time.monotonic()
    while True:
        # Asked before the condition is: who is not scheduled for long must not fail for that.
        late = time.monotonic() - begun > patience(seconds)
        value = condition()
        if value:
            return value
        if late:
            raise AssertionError(f"not within {time.monotonic() - begun:.1f} s: {what or condition}")
        time.sleep(interval)


# What the server waits for on the stream of changes before it takes it for lost.
PATIENT = {"heartbeat": "10s", "sync_timeout": "20s"}


def quick():
    """The server's own heartbeat, as long as such a machine may take for it."""
    return {"heartbeat": f"{round(min(300 * SLOWNESS * crowding(), 10_000))}ms"}


RESERVED = []


def free_port():
    """A port that nobody listens on, and that nobody else is given while this process runs: it stays bound, which
    keeps it from other processes and from outgoing connections, but not from who binds it with SO_REUSEADDR."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    RESERVED.append(reserved)
    return reserved.getsockname()[1]


# ---- PostgreSQL ----------------------------------------------------------------------------------

# In the statements with which the server looks at triggers, and at what leads to tables, every few seconds, on a
# connection of its own.
COVERAGE = "-- Whether changes of tables are told:"
# Durability is not under test, and tests do not wait for disks.
TEST_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off",
                 "shared_buffers": "64MB", "max_connections": "60"}


class Cluster:
    def __init__(self, **settings):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="pg-", dir=CLUSTERS))
        self.home.chmod(0o711)
        self.settings = {**TEST_SETTINGS, **settings}
        self.urls = {}
        self.start()
        self.data = pathlib.Path(self._script("data"))

    def _script(self, command, *args):
        done = subprocess.run([REPO / "scripts/cluster", command, self.home, *args], text=True, timeout=300,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, f"scripts/cluster {command}: {done.stdout}"
        return done.stdout.strip()

    def start(self, **settings):
        settings = {**self.settings, **settings}
        self._script("start", *(f"{name}={value}" for name, value in settings.items()))

    def stop(self, mode="fast"):
        self.sigcont()
        self._script("stop", mode)

    def restart(self, mode="fast", **settings):
        self.stop(mode)
        self.start(**settings)

    def remove(self):
        self.sigcont()
        self._script("remove")

    def load_demo(self, db, scale):
        self._script("load", db, str(scale))

    def dsn(self, db="postgres", role="provost"):
        if role not in self.urls:
            self.urls[role] = self._script("url", "NAME", role).split("/NAME?")
        before, after = self.urls[role]
        return f"{before}/{db}?{after}"

    def app_dsn(self, db):
        return self.dsn(db, "provost_app")

    def connect(self, db):
        connection = psycopg2.connect(self.dsn(db), application_name="e2e")
        connection.autocommit = True
        return connection

    def sql(self, db, text, *args):
        with contextlib.closing(self.connect(db)) as connection, connection.cursor() as cursor:
            cursor.execute(text, args or None)
            return cursor.fetchall() if cursor.description else []

    def create(self, db, template="template1"):
        self.sql("postgres", f'CREATE DATABASE "{db}" TEMPLATE "{template}"')

    def drop(self, db):
        self.sql("postgres", f'DROP DATABASE IF EXISTS "{db}" WITH (FORCE)')

    def backends(self, db):
        rows = self.sql("postgres", "SELECT pid, state, query, application_name FROM pg_stat_activity"
                                    f" WHERE datname = %s AND pid <> pg_backend_pid() AND query NOT LIKE '%%{COVERAGE}%%'"
                                    " AND application_name NOT LIKE '%%listener' AND application_name NOT LIKE '%%courier'", db)
        return [dict(zip(("pid", "state", "query", "application_name"), row)) for row in rows]

    def kill_backends(self, db):
        return len(self.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                                        " WHERE datname = %s AND pid <> pg_backend_pid()", db))

    def crash(self):
        """Kills a backend, upon which PostgreSQL ends all of them and recovers."""
        with contextlib.closing(self.connect("postgres")) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)

    def pids(self):
        """The postmaster and its processes: all those whose working folder is the data."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "cwd") == str(self.data):
                    found.append(int(entry.name))
        return sorted(found)

    def _signal_all(self, number):
        # Again until nothing is new, since a postmaster may fork while it is being stopped.
        seen = set()
        while fresh := set(self.pids()) - seen:
            for pid in sorted(fresh):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            seen |= fresh

    def sigstop(self):
        self._signal_all(signal.SIGSTOP)

    def sigcont(self):
        if hasattr(self, "data"):
            self._signal_all(signal.SIGCONT)

    def wait_ready(self, seconds=20):
        def ready():
            with contextlib.suppress(psycopg2.OperationalError):
                return self.sql("postgres", "SELECT 1")
        wait_until(ready, seconds, "PostgreSQL accepts connections")


STATEMENTS = f"""
SELECT query, sum(calls)::int FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND query !~* '^\\s*(begin|commit|rollback|set|reset|show|discard|deallocate|listen)\\M'
  AND query NOT LIKE '%%pg_stat_statements%%'
  AND query NOT LIKE '%%{COVERAGE}%%'
  AND query !~ '^/\\* provost \\*/ (LISTEN|SELECT pg_catalog.(pg_notify|set_config)\\()'
  AND (%s OR query NOT LIKE '/* provost */%%')
GROUP BY query"""


def _query(dsn, text, *args):
    with contextlib.closing(psycopg2.connect(dsn, application_name="e2e")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(text, args)
            return cursor.fetchall()


# What the courier says once a minute, and when its connection is new; it deletes in transactions.
COURIER = re.compile(r"/\* provost \*/ (DELETE|SELECT) .*provost\.(outbox|event_key)", re.S)
TRANSACTION = ("/* provost */ BEGIN READ WRITE", "/* provost */ COMMIT")


def statements(dsn, own=False):
    """How often each statement has run in that database, by its normalised text. Of a transaction of the courier's that
    has not ended there may be a part: whoever looks at what is the server's own asks until it is what it should be."""
    found = dict(_query(dsn, STATEMENTS, own))
    couriers = {query: calls for query, calls in found.items() if COURIER.match(query)}
    deletions = sum(calls for query, calls in couriers.items() if COURIER.match(query)[1] == "DELETE")
    rest = {query: calls - (deletions if query in TRANSACTION else 0) for query, calls in found.items() if query not in couriers}
    return {query: calls for query, calls in rest.items() if calls > 0}


def calls(dsn, own=False):
    return sum(statements(dsn, own).values())


def reset_statements(dsn):
    _query(dsn, "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = current_database()")


# ---- HTTP ----------------------------------------------------------------------------------------

class Response:
    def __init__(self, version, status, reason, headers, body):
        self.version, self.status, self.reason, self.headers, self.body = version, status, reason, headers, body

    def header(self, name):
        """The value of a header that may be there once; None when it is not."""
        values = [v for n, v in self.headers if n.lower() == name.lower()]
        assert len(values) < 2, f"{name} is repeated: {values}"
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.reason} {self.headers} {self.body[:300]!r}>"


class Closed(ConnectionError):
    """The server closed the connection where an answer, or the rest of one, was due."""


STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) ([1-5]\d\d) ([^\r\n]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")


class Connection:
    """One TCP connection that says exactly what it is told to and reads answers by the letter of RFC 9112."""

    def __init__(self, port, seconds=10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patience(seconds))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _receive(self):
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(f"after {self.buffer[:200]!r}")
        return data

    def _more(self):
        self.buffer += self._receive()

    def _line(self):
        while b"\r\n" not in self.buffer:
            assert b"\n" not in self.buffer, f"a bare newline: {self.buffer[:200]!r}"
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def _take(self, size):
        pieces, have = [self.buffer], len(self.buffer)
        while have < size:
            pieces.append(self._receive())
            have += len(pieces[-1])
        data = b"".join(pieces)
        self.buffer = data[size:]
        return data[:size]

    def response(self, head=False):
        """The next answer. Say head=True for one to HEAD, which has a length but no body."""
        match = STATUS_LINE.fullmatch(self._line())
        assert match, "not a status line"
        version, status, reason = match[1].decode(), int(match[2]), match[3].decode()
        headers = []
        while line := self._line():
            field = FIELD_LINE.fullmatch(line)
            assert field, f"not a header: {line!r}"
            headers.append((field[1].decode(), field[2].decode("latin-1")))
        return Response(version, status, reason, headers, self._body(status, headers, head))

    def _body(self, status, headers, head):
        lengths = [v for n, v in headers if n.lower() == "content-length"]
        codings = [v for n, v in headers if n.lower() == "transfer-encoding"]
        assert len(lengths) < 2 and not (lengths and codings), f"ambiguous length: {headers}"
        if head or status < 200 or status in (204, 304):
            assert not (codings or (lengths and (status < 200 or status == 204))), f"a length with {status}"
            return b""
        if codings:
            assert codings == ["chunked"], codings
            return self._chunks()
        assert lengths and lengths[0].isdigit(), f"no length: {headers}"
        return self._take(int(lengths[0]))

    def _chunks(self):
        body = b""
        while size := int(self._line(), 16):
            body += self._take(size)
            assert self._line() == b""
        assert self._line() == b""
        return body

    def closed(self, seconds=5):
        """Whether the server closes without sending anything more within the given time."""
        assert not self.buffer, f"unread: {self.buffer[:200]!r}"
        self.socket.settimeout(patience(seconds))
        try:
            data = self.socket.recv(1)
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        assert not data, f"unexpected: {data!r}"
        return True


# ---- the server ----------------------------------------------------------------------------------

# What the log says of the stream of changes once it is known how it is.
STREAM = re.compile("the stream of changes is live|changes cannot be (listened to|heard)")


class Fault(AssertionError):
    """Something that must never be, however busy the machine: no second try excuses it (scripts/again.py)."""
    final = True


def must(condition, what):
    """For what a test sees once in a thousand times, and is a fault of the server all the same: an answer that is too old."""
    if not condition:
        raise Fault(what)


class Server:
    started = []     # all of this test, for the report of a failure

    def __init__(self, cluster, db, endpoints=None, config=None, env=None, args=(), wait="/readyz",
                 allow_errors=False, owner=False, token=False, triggers=True):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.wait, self.allow_errors, self.args, self.env = wait, allow_errors, list(args), env or {}
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="server-", dir=SCRATCH))
        self.ini = self.folder / "provost.ini"
        self.log_file = self.folder / "log"
        self.process, self.sent = None, set()
        self.sections = {"http": {"listen": f"127.0.0.1:{self.port}"}, "auth": {"mode": "token" if token else "none"}}
        self.owner_dsn = cluster.dsn(db) if cluster and triggers else None
        if cluster:
            self.sections["database"] = {"url": cluster.dsn(db) if owner else cluster.app_dsn(db), **PATIENT}
        self.write_config(config or {})
        self._write_endpoints(endpoints)

    def _write_endpoints(self, endpoints):
        if endpoints is None:
            endpoints = REPO / "config/endpoints"
        if isinstance(endpoints, dict):
            (self.folder / "endpoints").mkdir()
            for path, text in endpoints.items():
                self.write_endpoint(path, text)
        else:
            shutil.copytree(endpoints, self.folder / "endpoints")

    def write_endpoint(self, path, text):
        file = self.folder / "endpoints" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def remove_endpoint(self, path):
        (self.folder / "endpoints" / path).unlink()

    def write_config(self, changes):
        """Merges the changes into the configuration and writes it; a value of None removes a key."""
        for section, keys in changes.items():
            self.sections.setdefault(section, {}).update(keys)
        lines = []
        for section, keys in self.sections.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {value}" for key, value in keys.items() if value is not None]
        self.ini.write_text("\n".join(lines) + "\n")

    def environment(self):
        kept = {k: v for k, v in os.environ.items()
                if not k.startswith(("PG", "PROVOST_")) and k != "DATABASE_URL"}
        return {**kept, **self.env}

    def __enter__(self):
        self.start()
        return self

    def _command(self, *words):
        env = {**self.environment(), "PROVOST_DATABASE_URL": self.owner_dsn}
        return subprocess.run([BINARY, *words, "--config", self.ini], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, env=env, cwd=self.folder, text=True, timeout=patience(60))

    def install_triggers(self):
        """What it said; a failure is one."""
        done = self._command("triggers", "install")
        if "provost schema install" in done.stdout:
            schema = self._command("schema", "install")
            assert schema.returncode == 0, schema.stdout
            done = self._command("triggers", "install")
        assert done.returncode == 0, f"triggers install: {done.stdout}"
        return done.stdout

    def _try_install(self):
        # What is wrong with configuration, endpoints or database is the server's to say.
        if self.owner_dsn:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.install_triggers()

    def start(self):
        Server.started.append(self)
        self._try_install()
        begun = len(self.log())
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([BINARY, "serve", "--config", self.ini, *self.args], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, env=self.environment(), cwd=self.folder)
        self.pid = self.process.pid
        if self.wait:
            wait_until(self._answers, 20, f"{self.wait} answers 200")
        if self.wait == "/readyz" and self.sections.get("log", {}).get("level") not in ("error", "warn"):
            self._wait_for_stream(begun)

    def _wait_for_stream(self, since):
        # The server waits for it, too, before it is ready, but not for long; and there are tests in which it never comes.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: STREAM.search(self.log()[since:]), 5)

    def _answers(self):
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log()[-3000:]}"
        try:
            return self.get(self.wait).status == 200
        except OSError:
            return False

    def __exit__(self, failure, *_):
        try:
            if failure:
                self.kill()
            else:
                self.stop()
                self.check_log()
        finally:
            self.kill()

    def fault_in_log(self):
        for line in self.log().splitlines():
            if SANITIZER.search(line):
                return f"a sanitizer's report: {line}"
            if "level=error" in line and self.allow_errors is not True:
                if not (self.allow_errors and re.search(self.allow_errors, line)):
                    return f"an error in the log: {line}"

    def fault(self):
        """What is wrong with the server itself, if anything, whatever a test says."""
        code = self.process.poll() if self.process else None
        if code is not None and code < 0 and -code not in self.sent:
            return f"the server ended with signal {-code}"
        return self.fault_in_log()

    def check_log(self):
        fault = self.fault_in_log()
        must(not fault, fault)

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def wait_log(self, pattern, seconds=5, since=0):
        """Waits for a match past position `since` of the log."""
        return wait_until(lambda: re.search(pattern, self.log()[since:]), seconds, f"{pattern!r} in the log")

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.sent.add(number)
        self.process.send_signal(number)

    def reload(self):
        self._try_install()
        self.signal(signal.SIGHUP)

    def wait_exit(self, seconds=15):
        return self.process.wait(timeout=patience(seconds))

    def stop(self, seconds=15):
        """SIGTERM, upon which the server ends in time with 0. A server that has ended is left alone."""
        if self.running():
            self.signal(signal.SIGTERM)
            code = self.wait_exit(seconds)
            must(code == 0, f"exit code {code} after SIGTERM")

    def kill(self):
        if self.running():
            self.sent.add(signal.SIGKILL)
            self.process.kill()
            self.process.wait()

    # -- clients

    def connect(self, seconds=10):
        return Connection(self.port, seconds)

    def raw(self, data, count=1, head=False, seconds=10):
        """Sends the bytes on a new connection and reads that many answers, fewer when it closes."""
        answers = []
        with self.connect(seconds) as connection:
            connection.send(data)
            with contextlib.suppress(Closed):
                while len(answers) < count:
                    answers.append(connection.response(head))
        return answers

    def request(self, method, path, headers=None, body=None, seconds=10):
        """One request on a connection of its own. A body that is not bytes or text is sent as JSON."""
        fields = {"Host": f"127.0.0.1:{self.port}", "Connection": "close", **(headers or {})}
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            fields.setdefault("Content-Type", "application/json")
        data = body.encode() if isinstance(body, str) else body or b""
        if body is not None:
            fields.setdefault("Content-Length", len(data))
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items() if v is not None)]
        with self.connect(seconds) as connection:
            connection.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data)
            return connection.response(method == "HEAD")

    def get(self, path, headers=None, **options):
        return self.request("GET", path, headers, **options)

    def head(self, path, headers=None, **options):
        return self.request("HEAD", path, headers, **options)

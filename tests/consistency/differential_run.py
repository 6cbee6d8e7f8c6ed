"""Whether what is cached equals what is not, after any write: the demo's endpoints on the demo's tables.

Two servers with the same endpoints, one of which caches nothing. After each random write by SQL (tables.py), and once
its notification has been processed, every request is asked of both.
"""
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
import time
import urllib.parse

import history
from tables import Writes

harness = history.harness
ENDPOINTS = harness.REPO / "config/endpoints"
CLOCKS = re.compile(rb'"(timestamp|daysSinceEnrollment)"\s*:\s*("[^"]*"|-?\d+)')

# Acknowledged when everything that was committed before it has been processed; changes nothing.
SYNC = "-- Returns when all that was committed before has been heard of.\n-- @route POST /api/sync\n-- @returns none\nSELECT 1\n"

# Values to ask for, by parameter: a statement each. Ids by the table that their path names.
IDS = {"/courses/": "course", "/institutions/": "institution", "/users/": '"user"', "/categories/": "category",
       "/tags/": "tag", "/payments/": "payments"}
VALUES = {
    "institutionId": "SELECT id FROM institution ORDER BY md5(id) LIMIT 2",
    "categoryId": "SELECT id FROM category ORDER BY md5(id) LIMIT 2",
    "userId": 'SELECT "recipientId" FROM notification_logs LIMIT 1',
    "level": "SELECT DISTINCT level FROM course ORDER BY 1 LIMIT 2",
    "search": "SELECT unnest(ARRAY['english', 'an', 'x'])",
    "status": "SELECT unnest(ARRAY['ACTIVE', 'PENDING'])",
    "paymentStatus": "SELECT unnest(ARRAY['PAID', 'PENDING'])",
    "role": "SELECT unnest(ARRAY['STUDENT', 'ADMIN'])",
    "startDate": "SELECT '2025-01-01'", "endDate": "SELECT '2025-12-31'",
}


def uncached_endpoints():
    """A copy of the endpoints in which each GET says `@cache off`."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="uncached-", dir=harness.SCRATCH))
    shutil.copytree(ENDPOINTS, folder, dirs_exist_ok=True)
    for file in folder.rglob("*.sql"):
        text = re.sub(r"^-- @cache .*\n", "", file.read_text(), flags=re.M)
        file.write_text(re.sub(r"^(-- @route GET .*)$", r"\1\n-- @cache off", text, flags=re.M))
    return folder


def cached_endpoints(spoilt):
    """`spoilt`: directives to add to some of the files."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cached-", dir=harness.SCRATCH))
    shutil.copytree(ENDPOINTS, folder, dirs_exist_ok=True)
    (folder / "sync.sql").write_text(SYNC)
    for name, directive in spoilt.items():
        file = folder / name
        file.write_text(re.sub(r"^(-- @route .*)$", rf"\1\n{directive}", file.read_text(), flags=re.M))
    return folder


def left_out():
    """Tables whose changes by themselves an answer need not show: its `@depends` says so (`!TABLE`)."""
    return {table for file in ENDPOINTS.rglob("*.sql") for line in re.findall(r"^-- @depends .*", file.read_text(), re.M)
            for table in re.findall(r"!(\w+)", line)}


def requests_of(server, ask):
    """The paths to compare: every GET endpoint, with each of its parameters by itself."""
    paths = []
    for e in json.loads(server.get("/").body)["endpoints"]:
        if e["method"] != "GET":
            continue
        query = {p["name"]: p for p in e["parameters"] if p["in"] == "query"}
        required = {n: ask(VALUES[n])[0][0] for n, p in query.items() if p.get("required")}
        for route in _routes(e["path"], ask):
            for more in _variations(query, ask):
                values = {**required, **more}
                paths.append(route + ("?" + urllib.parse.urlencode(values) if values else ""))
    return list(dict.fromkeys(paths))


def _routes(route, ask):
    if ":" not in route:
        return [route]
    table = next(t for part, t in IDS.items() if part in route)
    ids = [row[0] for row in ask(f"SELECT id FROM {table} ORDER BY md5(id) LIMIT 3")] + ["not-there"]
    return [re.sub(r":\w+", i, route) for i in ids]


def _variations(query, ask):
    yield {}
    for name, p in query.items():
        if name == "page":
            yield {"page": 2}
        elif name == "limit":
            yield {"limit": 3}
        elif p.get("enum"):
            yield from ({name: value} for value in p["enum"][:2])
        elif name in VALUES and not p.get("required"):
            yield from ({name: row[0]} for row in ask(VALUES[name]))


class Connection:
    """One kept connection, on which many requests are sent before the first answer is read."""

    def __init__(self, port):
        self.host, self.buffer = f"127.0.0.1:{port}", b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, requests):
        """(method, path, ETag or None) each."""
        self.socket.sendall("".join(
            f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n{f'If-None-Match: {etag}' if etag else 'X-A: b'}\r\n\r\n"
            for method, path, etag in requests).encode())

    def answer(self):
        """Status, header fields, body."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self._receive()
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        status = int(lines[0].split()[1])
        length = 0 if status in (204, 304) else int(fields["content-length"])
        while len(self.buffer) < end + 4 + length:
            self._receive()
        body, self.buffer = self.buffer[end + 4:end + 4 + length], self.buffer[end + 4 + length:]
        return status, fields, body

    def _receive(self):
        data = self.socket.recv(1 << 20)
        assert data, "the server has closed the connection"
        self.buffer += data


class Client:
    """A few connections to a server, and the ETags of what came: what is the same is not sent again."""

    CONNECTIONS = 3

    def __init__(self, port):
        self.connections = [Connection(port) for _ in range(self.CONNECTIONS)]
        self.known, self.hits, self.reads = {}, 0, 0

    def ask(self, paths):
        """Has the answers made; get_all reads them."""
        for i, connection in enumerate(self.connections):
            connection.send([("GET", path, self.known[path][1] if path in self.known else None)
                             for path in paths[i::self.CONNECTIONS]])

    def get_all(self, paths):
        """Of each path the status and the body, the clocks' fields left out."""
        found = {}
        for i, connection in enumerate(self.connections):
            for path in paths[i::self.CONNECTIONS]:
                found[path] = self._take(path, *connection.answer())
        return found

    def _take(self, path, status, fields, body):
        self.reads += 1
        self.hits += "; hit" in fields.get("cache-status", "")
        if status == 200:
            self.known[path] = CLOCKS.sub(b"", body), fields["etag"]
        if status in (200, 304):
            return 200, self.known[path][0]
        return status, b""

    def sync(self):
        self.connections[0].send([("POST", "/api/sync", None)])
        status = self.connections[0].answer()[0]
        assert status == 204, status


def compare(cached, plain, paths):
    """The paths whose answers differ, with both."""
    cached.ask(paths)
    plain.ask(paths)
    a, b = cached.get_all(paths), plain.get_all(paths)
    return [(path, a[path], b[path]) for path in paths if a[path] != b[path] or a[path][0] not in (200, 404)]


def report(different, what):
    print(f"DIFFERENT after {what}:")
    for path, a, b in different[:5]:
        print(f"  {path}\n    cached   {a[0]} {a[1][:300]}\n    uncached {b[0]} {b[1][:300]}")


def run(cluster, writes, scale=0.01, seed=0, progress=500, only=None, spoilt=None, paths=""):
    """Returns what it came to. `only`: the tables to write to; `paths`: what to ask for begins so."""
    database = f"differential_{os.getpid()}"
    cluster.load_demo(database, scale)
    ask = lambda text: cluster.sql(database, text)     # noqa: E731
    cached = harness.Server(cluster, database, endpoints=cached_endpoints(spoilt or {}))
    plain = harness.Server(cluster, database, endpoints=uncached_endpoints(), triggers=False)
    found = {"writes": 0, "different": 0, "comparisons": 0, "seconds": 0.0}
    with cached, plain, contextlib.closing(cluster.connect(database)) as connection:
        paths = [path for path in requests_of(cached, ask) if path.startswith(paths)]
        a, b = Client(cached.port), Client(plain.port)
        random_writes = Writes(connection, seed, only, left_out())
        compare(a, b, paths)
        begun = time.monotonic()
        while found["writes"] < writes:
            what, rows = random_writes.one()
            a.sync()
            different = compare(a, b, paths)
            found["writes"] += 1
            found["comparisons"] += len(paths)
            found["different"] += len(different)
            if different and not spoilt:
                report(different, f"write {found['writes']}: {what} ({rows} rows)")
            if found["writes"] % progress == 0:
                print(f"{found['writes']} writes, {found['different']} differences,"
                      f" {time.monotonic() - begun:.0f} s", flush=True)
        found.update(seconds=time.monotonic() - begun, paths=len(paths), hits=a.hits, reads=a.reads,
                     tables=len(random_writes.tables), refused=random_writes.refused, kinds=random_writes.done,
                     uncached_hits=b.hits)
    cluster.drop(database)
    return found


def describe(found):
    yield (f"{found['writes']} random writes to {found['tables']} tables in {found['seconds']:.0f} s"
           f" ({len(found['kinds'])} kinds of table and operation; {found['refused']} more were refused by the database)")
    yield (f"{found['paths']} requests after each, {found['comparisons']} comparisons:"
           f" {100 * found['hits'] / max(1, found['reads']):.1f} % of them hits, {found['different']} different")

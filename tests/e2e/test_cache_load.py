"""Everything at once: hits, misses, refreshes, invalidations, reloads and encodings, each answer checked for what it says.

An item's version is raised by a write, after which what was stored is invalidated; who asks from then on is not to
see an older one."""
import collections
import gzip
import hashlib
import json
import random
import socket
import threading
import time

import pytest

from caching import invalidate, plain, report, settings, status
from harness import Connection, Server, must, patience, wait_until
from load import SANITIZED, Load, rss, threads

ITEMS = 40
REPEATS = 100
ENDPOINTS = {
    # The first hundred digits say what all the others must be.
    "item.sql": f"""-- @route GET /api/items/:id
-- @path id integer
-- @cache ttl=400ms swr=10s tags=items
SELECT json_build_object('id', id, 'v', v, 'text', repeat(md5(id || ':' || v), {REPEATS})) FROM item WHERE id = :id""",
    "lasting.sql": f"""-- @route GET /api/lasting/:id
-- @path id integer
-- @cache ttl=1h tags=items
SELECT json_build_object('id', id, 'v', v, 'text', repeat(md5(id || ':' || v), {REPEATS})) FROM item WHERE id = :id""",
    "off.sql": f"""-- @route GET /api/off/:id
-- @path id integer
-- @cache off
SELECT json_build_object('id', id, 'v', v, 'text', repeat(md5(id || ':' || v), {REPEATS})) FROM item WHERE id = :id""",
    "large.sql": """-- @route GET /api/large/:size
-- @path size integer
-- @cache ttl=1h tags=large
SELECT json_build_object('v', v, 'text', repeat(md5('0:' || v), :size / 32)) FROM item WHERE id = 0""",
    # Half as large with gzip: still more than what the kernel takes over.
    "noise.sql": """-- @route GET /api/noise/:size
-- @path size integer
-- @cache ttl=1h
SELECT json_build_object('v', 0, 'noise', string_agg(md5(i::text), '' ORDER BY i)) FROM generate_series(1, :size / 32) i""",
}


def text_of(number, v):
    return hashlib.md5(f"{number}:{v}".encode()).hexdigest()


@pytest.fixture
def db(cluster, empty_database):
    cluster.sql(empty_database, "CREATE TABLE item AS SELECT i AS id, 0 AS v FROM generate_series(0, %s) i", ITEMS - 1)
    cluster.sql(empty_database, "ALTER TABLE item ADD PRIMARY KEY (id); GRANT SELECT ON item TO provost_app")
    return empty_database


class Worker(threading.Thread):
    """Repeats something until it is told to end; its failure is that of who joins it."""

    def __init__(self, what):
        super().__init__(daemon=True)
        self.what, self.turns, self.failure, self.ending = what, 0, None, threading.Event()

    def run(self):
        try:
            while not self.ending.is_set():
                self.what()
                self.turns += 1
        except BaseException as e:
            self.failure = e

    def end(self):
        self.ending.set()
        self.join(patience(60))
        assert not self.is_alive(), "it hangs"
        if self.failure:
            raise self.failure


class Versions:
    """What has been written, and what has been invalidated as well."""

    def __init__(self, cluster, db, server):
        self.server = server
        self.connection = cluster.connect(db)
        self.written = [0] * ITEMS
        self.floor = [0] * ITEMS
        self.random = random.Random(5)

    def write(self):
        number = self.random.randrange(ITEMS)
        v = self.written[number] + 1
        self.written[number] = v
        with self.connection.cursor() as cursor:
            cursor.execute("UPDATE item SET v = %s WHERE id = %s", (v, number))
        invalidate(self.server, self.random.choice(["tag=items", "endpoint=item&endpoint=lasting", "all"]))
        self.floor[number] = v


ACCEPT = [None, "gzip", "br", "gzip, br", "gzip;q=0.5, identity", "identity;q=0, gzip"]


class Reader:
    """A client that keeps its connection, and what it has seen."""

    def __init__(self, server, versions, seed):
        self.server, self.versions, self.random = server, versions, random.Random(seed)
        self.connection = None
        self.known = {}                   # path: (etag, version)
        self.counts = collections.Counter()

    def turn(self):
        kind = self.random.choice(["items", "items", "items", "lasting", "lasting", "off"])
        number = min(int(self.random.expovariate(0.15)), ITEMS + 3)
        path, head = f"/api/{kind}/{number}", self.random.random() < 0.1
        fields = {"Host": "localhost", "Accept-Encoding": self.random.choice(ACCEPT)}
        if path in self.known and self.random.random() < 0.3:
            fields["If-None-Match"] = self.known[path][0]
        floor = self.versions.floor[number] if number < ITEMS else None
        if not self.connection:
            self.connection = Connection(self.server.port, 30)
        lines = [f"{'HEAD' if head else 'GET'} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items() if v)]
        self.connection.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = self.connection.response(head)
        if (answer.header("Connection") or "").lower() == "close" or self.random.random() < 0.01:
            self.connection.close()
            self.connection = None
        self.check(path, number, floor, answer, head)

    def check(self, path, number, floor, answer, head):
        found = status(answer)
        self.counts[found.get("detail") or ("hit" if "hit" in found else found["fwd"])] += 1
        self.counts[answer.header("Content-Encoding") or "identity"] += 1
        if floor is None:
            assert answer.status == 404, answer
            self.counts["404"] += 1
            return
        if answer.status == 304:
            self.counts["304"] += 1
            v = self.known[path][1]
        else:
            assert answer.status == 200, answer
            if head:
                assert int(answer.header("Content-Length")) > 30 and answer.body == b""
                return
            text = plain(answer)
            body = json.loads(text)
            v = body["v"]
            assert body["id"] == number and body["text"] == text_of(number, v) * REPEATS, (path, v)
            self.known[path] = answer.header("ETag"), v
        assert found.get("detail") in (None, "swr"), answer
        must(floor <= v <= self.versions.written[number], f"{path} is at {v}, and was at {floor} before: {answer.headers}")


CONFIGS = [
    {"cache": {"capacity": "64MiB", "compression": "gzip,br"}, "workers": {"threads": 6}, "endpoint lasting": {"ttl": "200ms"}},
    {"cache": {"capacity": "1MiB", "compression": "gzip"}, "workers": {"threads": 2}, "endpoint item": {"swr": "0"}},
    {"cache": {"capacity": "256KiB", "negative_ttl": "100ms"}, "workers": {"threads": 9}, "endpoint lasting": {"ttl": None}},
    {"cache": {"capacity": "8MiB", "compression": "br", "negative_ttl": None}, "endpoint item": {"swr": None, "ttl": "50ms"}},
    {"cache": {"compression": "off"}, "database": {"pool_max": 3}},
    {"cache": {"compression": "gzip,br", "capacity": "16MiB"}, "endpoint item": {"ttl": None}, "database": {"pool_max": 8}},
]


@pytest.mark.threads
def test_everything_at_once(cluster, db):
    config = {"cache": {"shards": 4}, "workers": {"threads": 4}, "http": {"threads": 2}}
    # A machine with much else to do may leave PostgreSQL too little to check the endpoints in ten seconds.
    late = 'reload: (refused" reason="the database did not answer in time|nothing was changed")'
    with Server(cluster, db, ENDPOINTS, config, allow_errors=late) as server:
        versions = Versions(cluster, db, server)
        readers = [Reader(server, versions, seed) for seed in range(6)]
        changes, writes = iter(range(1 << 30)), iter(range(1, 1 << 30))

        def write():
            versions.write()
            # So that something is hit as well; every tenth time for longer than any ttl of items, which are else
            # invalidated before they expire.
            writing.ending.wait(0.02 if next(writes) % 10 else 1)

        def reload():
            settings(server, CONFIGS[next(changes) % len(CONFIGS)])

        workers = [Worker(r.turn) for r in readers] + [Worker(write), Worker(reload), Worker(lambda: report(server))]
        writing, reloading = workers[-3], workers[-2]
        for worker in workers:
            worker.start()
        # Each configuration once, or twice.
        reloads_wanted, turns_wanted = (len(CONFIGS), 300) if SANITIZED else (2 * len(CONFIGS), 3000)

        def enough():
            failed = any(w.failure for w in workers)
            counts = sum((r.counts for r in readers), collections.Counter())
            return failed or (reloading.turns >= reloads_wanted and writing.turns >= 50
                              and sum(w.turns for w in workers[:6]) >= turns_wanted
                              and all(counts[what] >= 5 for what in ("hit", "swr", "stale", "bypass", "gzip", "br", "404", "304")))
        try:
            wait_until(enough, 100, "everything has happened", interval=0.1)
        finally:
            counts = sum((r.counts for r in readers), collections.Counter())
            print(f"\n{reloading.turns} reloads, {writing.turns} writes, {dict(counts)}", end="")
            for worker in workers:
                worker.ending.set()
        for worker in workers:
            worker.end()
        found = report(server)
        assert found["bytes"] <= found["settings"]["capacity"]
        versions.connection.close()


@pytest.mark.threads
def test_storms_of_reloads(cluster, db):
    """Signals that do not wait for each other; no request fails or says anything wrong."""
    def see(answer):
        body = answer.json()
        assert body["text"] == text_of(body["id"], body["v"]) * REPEATS
        return status(answer)

    with Server(cluster, db, ENDPOINTS, {"cache": {"shards": 2}}) as server:
        had = threads(server) - report(server)["settings"]["workers"]["threads"]
        with Load(server, lambda n: f"/api/lasting/{n % ITEMS}", clients=3, see=see, seconds=60) as keyed, \
                Load(server, lambda n: f"/api/off/{n % ITEMS}", clients=1, see=see, seconds=60) as other:
            keyed.wait(100)
            for n in range(20):
                place, server.ini = server.ini, server.folder / "new.ini"
                server.write_config({"cache": {"ttl": f"{1 + n}s", "capacity": f"{128 << n % 8}KiB", "shards": 2},
                                     "endpoint lasting": {"ttl": f"{50 + n}ms"}, "workers": {"threads": 1 + n * 7 % 12}})
                server.ini = server.ini.rename(place)
                server.reload()
                keyed.wait(10)
                other.wait(2)
            wait_until(lambda: report(server)["settings"]["ttl"] == 20_000, 20, "the last has been applied")
            keyed.wait(100)
        assert keyed.statuses() == {200} and other.statuses() == {200}
        found = report(server)["settings"]
        assert found["capacity"] == 128 << 10 << 19 % 8 and found["workers"]["threads"] == 1 + 19 * 7 % 12
        wait_until(lambda: threads(server) == had + found["workers"]["threads"], 10, "no worker is left over")
        print(f"\n{len(keyed.results) + len(other.results)} requests, none failed; RSS {rss(server) >> 20} MiB", end="")


# ---- large bodies, read slowly -------------------------------------------------------------------

class SlowReader:
    """Takes a little at a time, so that the answer is in the server for as long as it takes."""

    def __init__(self, server, path, headers=""):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.socket.settimeout(patience(30))
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        self.data = b""

    def take(self, size):
        while size > 0:
            piece = self.socket.recv(min(size, 8192))
            assert piece, "it was cut short"
            self.data += piece
            size -= len(piece)

    def finish(self):
        """The body's version, once all of it is there and right."""
        while b"\r\n\r\n" not in self.data:
            self.take(1)
        head, body = self.data.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        pieces, have = [body], len(body)
        while have < length:
            pieces.append(self.socket.recv(1 << 16))
            assert pieces[-1], "it was cut short"
            have += len(pieces[-1])
        assert have == length
        self.socket.close()
        return version_of(b"".join(pieces))


def version_of(body):
    if body.startswith(b"\x1f\x8b"):
        body = gzip.decompress(body)
    found = json.loads(body)
    if "noise" in found:
        assert found["noise"] == "".join(hashlib.md5(str(i + 1).encode()).hexdigest() for i in range(len(found["noise"]) // 32))
        return found["v"]
    assert found["text"] == text_of(0, found["v"]) * (len(found["text"]) // 32)
    return found["v"]


@pytest.mark.threads
# Larger than what the kernel takes over of an answer that nobody reads.
@pytest.mark.parametrize("size", [8_000_000, 12_000_000], ids=["stored", "larger than max_entry"])
def test_large_bodies_read_slowly(cluster, db, size):
    """What is being read is not touched by what becomes of its entry: each gets one version, whole."""
    path = f"/api/large/{size}"
    rounds = 6
    with Server(cluster, db, ENDPOINTS, {"cache": {"max_entry": "10MiB", "capacity": "256MiB", "shards": 4}}) as server:
        before, readers = rss(server), []
        for v in range(rounds):
            cluster.sql(db, "UPDATE item SET v = %s WHERE id = 0", v)
            invalidate(server, ["tag=large", "endpoint=large", "all"][v % 3])
            fresh = [SlowReader(server, path) for _ in range(3)]
            for reader in fresh:
                reader.take(20_000)
            assert version_of(server.get(path).body) == v
            if size < 10 << 20:
                assert status(server.get(path)).get("hit"), "it is stored"
            readers.append(fresh)
            for group in readers:
                for reader in group:
                    reader.take(10_000)
        assert report(server)["tooLarge"] == 0 if size < 10 << 20 else report(server)["tooLarge"] >= rounds
        # Some leave in the middle; the entries of the others are evicted.
        for group in readers:
            group.pop().socket.close()
        settings(server, {"cache": {"capacity": "256KiB", "max_entry": None}})
        assert report(server)["entries"] == 0
        most = rss(server)
        for v, group in enumerate(readers):
            for reader in group:
                assert reader.finish() == v
        print(f"\n{3 * rounds} readers of {size} bytes in {rounds} versions: RSS {before >> 20}, {most >> 20}, then "
              f"{rss(server) >> 20} MiB", end="")
        if not SANITIZED:
            # Once for each version rather than for each reader.
            assert most < before + (rounds + 3) * size + (8 << 20)
            wait_until(lambda: rss(server) < before + 2 * size + (8 << 20), 10, "the memory is given back")


@pytest.mark.threads
def test_a_large_body_in_several_codings_at_once(cluster, db):
    """What is being sent is counted once, whichever coding was first and whichever is last."""
    path = "/api/noise/8000000"
    with Server(cluster, db, ENDPOINTS, {"cache": {"max_entry": "32MiB", "capacity": "512MiB", "shards": 4}}) as server:
        wait_until(lambda: server.get(path, {"Accept-Encoding": "gzip"}).header("Content-Encoding") == "gzip", 30, "encoded")
        for first, second in (("gzip", "identity"), ("identity", "gzip")) * 3:
            readers = [SlowReader(server, path, f"Accept-Encoding: {coding}\r\n") for coding in (first, second)]
            for reader in readers:
                reader.take(20_000)
            for reader in readers:
                assert reader.finish() == 0
        assert server.get(path).status == 200

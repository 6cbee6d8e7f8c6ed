"""POST /api/batch: many GETs as one request."""
import asyncio
import contextlib
import json
import pathlib
import re
import statistics
import tempfile
import threading
import time
import urllib.parse

import pytest

import callers as c
from caching import held, report, waiting
from harness import SCRATCH, Server, patience, quick, statements, wait_until
from problems import MEMBERS, problem

SETUP = """
CREATE TABLE thing (id integer PRIMARY KEY, name text, size integer);
INSERT INTO thing SELECT i, 'thing ' || i, i FROM generate_series(1, 200) i;
GRANT ALL ON ALL TABLES IN SCHEMA public TO provost_app;
"""
ENDPOINTS = {
    "get.sql": "-- One.\n-- @route GET /api/things/:id\n-- @path id integer min=1\n-- @query pad integer max=20000000\n-- @returns json\n"
               "SELECT json_build_object('id', id, 'name', name, 'pad', repeat('x', :pad)) FROM thing WHERE id = :id",
    "odd.sql": "-- As PostgreSQL writes it.\n-- @route GET /api/odd\nSELECT '{\"a\" :  [1.50, \"\\u00e9\\n\"]}'::json",
    "rows.sql": "-- Some.\n-- @route GET /api/things\n-- @query ids integer[]\nSELECT id, size FROM thing WHERE id = ANY(:ids) ORDER BY id",
    "divide.sql": "-- Divides.\n-- @route GET /api/divide/:n\n-- @path n integer\nSELECT json_build_object('q', 100 / :n)",
    "live.sql": "-- Never stored.\n-- @route GET /api/live/:id\n-- @path id integer\n-- @cache off\nSELECT json_build_object('id', :id)",
    "gate.sql": "-- Waits.\n-- @route GET /api/gate/:id\n-- @path id integer\nSELECT json_build_object('id', :id, 'g', pg_advisory_xact_lock_shared(4712)::text)",
    "none.sql": "-- Says nothing.\n-- @route GET /api/none\n-- @returns none\nSELECT 1 AS x",
    "student.sql": "-- For students.\n-- @route GET /api/student\n-- @role student\nSELECT json_build_object('sub', :auth_sub)",
    "me.sql": "-- Who.\n-- @route GET /api/me\n-- @role student,admin\nSELECT json_build_object('sub', :auth_sub)",
    "public.sql": "-- All.\n-- @route GET /api/public\n-- @role public\nSELECT json_build_object('sub', :auth_sub)",
    "write.sql": "-- Writes.\n-- @route POST /api/write\n-- @returns none\nINSERT INTO thing VALUES (-1, 'new', 1)",
}
MAX = 50
DOWN = "the database cannot be reached"  # one test takes it away


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("batch", empty_template)
    cluster.sql("batch", SETUP)
    yield "batch"
    cluster.drop("batch")


@pytest.fixture(scope="module")
def server(cluster, db):
    with Server(cluster, db, ENDPOINTS, allow_errors=DOWN) as server:
        yield server


def ask(server, *paths, headers=None):
    return server.request("POST", "/api/batch", headers, {"requests": list(paths)})


def batch(server, *paths, headers=None):
    answer = ask(server, *paths, headers=headers)
    assert answer.status == 200, answer
    assert answer.header("Content-Type") == "application/json; charset=utf-8"
    assert answer.header("ETag") is None and answer.header("Cache-Status") is None
    found = answer.json()
    assert [item["path"] for item in found] == list(paths)
    for item in found:
        assert list(item) == ["path", "status", "etag", "cache", "body"]
        if item["status"] >= 400:
            assert item["etag"] is None and MEMBERS <= set(item["body"]) and item["body"]["status"] == item["status"]
            assert item["body"]["instance"] == answer.header("X-Request-Id")
    return found


def statuses(items):
    return [item["status"] for item in items]


numbers = iter(range(10**6))


def fresh():
    """The path of an answer that nobody has asked for."""
    return f"/api/things?ids=1&ids={next(numbers) + 1000}"


# ---- what is answered ----------------------------------------------------------------------------

def test_each_as_by_itself(server):
    paths = ["/api/things/1", "/api/odd", "/api/things?ids=3&ids=2", "/api/none", "/api/things/2?pad=3"]
    for _ in range(2):
        found = batch(server, *paths)
        for path, item in zip(paths, found):
            single = server.get(path)
            assert (item["status"], item["body"]) == (single.status, single.json() if single.body else None)
            assert item["etag"] == single.header("ETag")


def test_bodies_are_not_changed(server):
    for _ in range(2):
        text = ask(server, "/api/odd", "/api/odd").body
        assert text.count(b'"body":{"a" :  [1.50, "\\u00e9\\n"]}}') == 2


def test_nothing_and_most(server):
    assert batch(server) == []
    found = batch(server, *(f"/api/things/{i}" for i in range(1, MAX + 1)))
    assert [item["body"]["id"] for item in found] == list(range(1, MAX + 1))


def test_hits_and_misses(server):
    known, new = "/api/things/1", fresh()
    batch(server, known)
    found = batch(server, known, new, "/api/live/1", known)
    assert found[0]["cache"].startswith("provost; hit; ttl=") and found[0] == found[3]
    assert found[1]["cache"] == "provost; fwd=miss; stored"
    assert found[2]["cache"] == "provost; fwd=bypass"
    assert batch(server, new)[0]["cache"].startswith("provost; hit; ttl=")


def test_the_same_path_twice_is_one_statement(server, cluster, db):
    def ran():
        return sum(n for text, n in statements(cluster.dsn(db)).items() if "size FROM thing" in text)
    new, before = fresh(), ran()
    found = batch(server, new, new, new)
    assert ran() == before + 1
    assert sorted(item["cache"] for item in found) == ["provost; fwd=miss; collapsed"] * 2 + ["provost; fwd=miss; stored"]
    assert found[0]["body"] == found[1]["body"] == found[2]["body"]


def test_failures_are_each_ones_own(server):
    new = fresh()
    paths = ["/api/things/1", "/api/divide/0", "/api/things/9999", "/api/nothing", "/api/write", "/api/things/x?pad=y", "/livez",
             "/api/batch", "/", "/api/divide/5", new, "/api/divide/0", "/" + "a" * 9000]
    found = batch(server, *paths)
    assert statuses(found) == [200, 422, 404, 404, 405, 400, 404, 404, 404, 200, 200, 422, 404]
    assert found[9]["body"] == {"q": 20} and found[10]["body"] == [{"id": 1, "size": 1}]
    assert {e["name"] for e in found[5]["body"]["errors"]} == {"id", "pad"}
    assert "division" not in json.dumps(found)
    assert found[3]["cache"] is None and found[2]["cache"] == "provost; fwd=miss; stored"
    assert batch(server, "/api/things/9999")[0]["cache"].startswith("provost; hit; ttl=")


def test_conditions_are_nobodys(server):
    answer = ask(server, "/api/things/1", headers={"If-None-Match": "*", "Accept-Encoding": "gzip"})
    assert answer.status == 200 and answer.json()[0]["status"] == 200 and answer.header("Content-Encoding") is None


def test_a_target_that_is_too_long(server):
    assert statuses(batch(server, "/api/things/1?x=" + "y" * 9000)) == [414]


def test_large_bodies(server):
    """Beyond 32 MiB together the rest is told to come by itself; what fits is there."""
    big = [f"/api/things/{i}?pad=10000000" for i in range(1, 6)]
    for _ in range(2):
        found = batch(server, *big, "/api/things/1")
        assert statuses(found) == [200, 200, 200, 507, 507, 200]
        assert all(len(item["body"]["pad"]) == 10000000 for item in found[:3])


# ---- what is refused as a whole ------------------------------------------------------------------

def errors_of(answer, status=422):
    return {e["name"]: e["reason"] for e in problem(answer, status, ["errors"])["errors"]}


@pytest.mark.parametrize("wrong", ["", "api/things/1", "POST /api/write", "GET /api/things/1", "http://localhost/api/things/1", "*", "/a b",
                                   "/a#b", "/caf\u00e9", "/%zz", "\n"])
def test_what_is_no_path(server, wrong):
    assert errors_of(ask(server, "/api/things/1", wrong, "/api/things/2")) == {
        "requests[1]": "must be the path of a GET, such as /api/admin/stats"}


@pytest.mark.parametrize("body, errors", [
    ({}, ["requests"]), ({"requests": None}, ["requests"]), ({"requests": "/api/things/1"}, ["requests"]),
    ({"requests": ["/a"] * (MAX + 1)}, ["requests"]), ({"requests": [], "x": 1}, ["x"]),
    ({"requests": [1, None, {"path": "/a"}]}, ["requests[0]", "requests[1]", "requests[2]"])])
def test_members(server, body, errors):
    assert list(errors_of(server.request("POST", "/api/batch", body=body))) == errors


def test_repeated_members(server):
    answer = server.request("POST", "/api/batch", {"Content-Type": "application/json"}, b'{"requests":[],"requests":["/a"]}')
    assert errors_of(answer) == {"requests": "given more than once"}


def test_other_bodies(server):
    headers = {"Content-Type": "application/json"}
    for body in (b"", b"[]", b'["/api/things/1"]', b"{", b"null"):
        assert list(errors_of(server.request("POST", "/api/batch", headers, body), 400)) == [""]
    problem(server.request("POST", "/api/batch", {"Content-Type": "text/plain"}, b"{}"), 415)
    problem(server.request("POST", "/api/batch", headers, b'{"requests":[]}' + b" " * 65536), 413)
    assert server.request("POST", "/api/batch", headers, b'{"requests":[]}'.ljust(65536)).json() == []


def test_methods(server):
    answer = server.get("/api/batch")
    problem(answer, 405)
    assert answer.header("Allow") == "POST, OPTIONS"


# ---- who is calling ------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def world(cluster, db):
    issuer = c.Issuer(SCRATCH / "batch-issuer")
    server = Server(cluster, db, ENDPOINTS, {"auth": issuer.config()}, token=True, allow_errors=DOWN)
    c.prepare(cluster, db, server)
    with server:
        yield server, issuer


def test_roles(world):
    server, issuer = world
    paths = ["/api/things/1", "/api/student", "/api/me", "/api/public", "/api/nothing"]
    admin, student, none = (c.bearer(issuer.jwt(who, roles)) for who, roles in (("ada", ["admin"]), ("stu", ["student"]), ("norma", [])))
    for _ in range(2):
        assert statuses(batch(server, *paths, headers=admin)) == [200, 403, 200, 200, 404]
        found = batch(server, *paths, headers=student)
        assert statuses(found) == [403, 200, 200, 200, 404]
        assert [found[i]["body"]["sub"] for i in (1, 2, 3)] == ["stu"] * 3
        assert statuses(batch(server, *paths, headers=none)) == [403, 403, 403, 200, 404]
    problem(ask(server, *paths), 401)
    problem(ask(server, *paths, headers=c.bearer("x")), 401)


def test_a_cookie_from_anywhere(world):
    """It changes nothing, and whoever may not see it does not get to."""
    server, issuer = world
    headers = {**c.session(issuer.cookie("ada", "admin")), "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = ask(server, "/api/things/1", headers=headers)
    assert answer.status == 200 and answer.header("Access-Control-Allow-Origin") is None


# ---- waiting -------------------------------------------------------------------------------------

def start(server, *paths):
    connection = server.connect(60)
    body = json.dumps({"requests": paths}).encode()
    connection.send(b"POST /api/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(body), body))
    return connection


@pytest.mark.threads
def test_many_batches_at_once(server):
    found = []

    def run(k):
        for n in range(10):
            ids = [(k * 7 + n * 3 + i) % 150 + 1 for i in range(20)]
            found.append([item["body"]["id"] for item in batch(server, *(f"/api/things/{i}?pad={n % 3}" for i in ids))] == ids)
    threads = [threading.Thread(target=run, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 60


def test_joining_a_single_request(server, cluster, db):
    with held(cluster, db) as gate:
        one = server.connect(60)
        one.send(b"GET /api/gate/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: waiting(cluster, db) == 1)
        before = report(server)["collapsed"]
        both = start(server, "/api/gate/1", "/api/things/1")
        wait_until(lambda: report(server)["collapsed"] > before, what="it has joined")
        gate.open()
        assert one.response().json()["id"] == 1
        item = both.response().json()[0]
        assert item["body"]["id"] == 1 and "collapsed" in item["cache"]


@pytest.mark.threads
def test_a_caller_who_leaves(server, cluster, db):
    """All that it waited for is given up, and the statements are cancelled."""
    with held(cluster, db):
        connection = start(server, *(f"/api/gate/{i}" for i in range(10, 13)), "/api/things/1")
        wait_until(lambda: waiting(cluster, db) > 0)
        connection.close()
        wait_until(lambda: waiting(cluster, db) == 0, 10)
    assert statuses(batch(server, "/api/gate/10")) == [200]


def test_a_stop_while_batches_wait(cluster, db):
    with held(cluster, db), Server(cluster, db, ENDPOINTS, {"http": {"shutdown_timeout": "1s"}}) as server:
        connection = start(server, "/api/gate/1", "/api/gate/2", "/api/things/1")
        wait_until(lambda: waiting(cluster, db) > 0)
        server.signal(15)
        assert statuses(connection.response().json())[:2] == [503, 503]
        assert server.wait_exit() == 0


def test_an_old_answer_while_the_database_is_down(cluster, empty_template):
    cluster.create("batch_down", empty_template)
    cluster.sql("batch_down", SETUP)
    try:
        with Server(cluster, "batch_down", ENDPOINTS, {"cache": {"ttl": "1ms"}}, allow_errors=DOWN) as server:
            assert statuses(batch(server, "/api/things/1")) == [200]
            cluster.stop("immediate")
            try:
                wait_until(lambda: server.get("/readyz").json()["database"] == "down", 20)
                found = batch(server, "/api/things/1", "/api/things/2")
                assert statuses(found) == [200, 503]
                assert found[0]["cache"].endswith("detail=stale-if-error") and found[0]["body"]["id"] == 1
            finally:
                cluster.start()
                cluster.wait_ready()
    finally:
        cluster.drop("batch_down")


def test_an_old_answer_when_a_database_that_hangs_was_waited_for_in_vain(cluster, empty_template):
    cluster.create("batch_hangs", empty_template)
    cluster.sql("batch_hangs", SETUP)
    config = {"cache": {"ttl": "1ms"}, "database": {**quick(), "statement_timeout": f"{patience(2):.0f}s"}}
    try:
        with Server(cluster, "batch_hangs", ENDPOINTS, config, allow_errors=DOWN) as server:
            old = wait_until(lambda: a if "stored" in (a := batch(server, "/api/gate/1")[0])["cache"] else None, 20)
            with held(cluster, "batch_hangs"):
                connection = start(server, "/api/gate/1")
                wait_until(lambda: waiting(cluster, "batch_hangs") > 0)
                cluster.sigstop()
                try:
                    wait_until(lambda: server.get("/readyz").json()["database"] == "down", 20)
                    found = connection.response().json()[0]
                finally:
                    cluster.sigcont()
                assert found["status"] == 200 and found["body"] == old["body"], found
                assert found["cache"].endswith("detail=stale-if-error"), found
    finally:
        cluster.drop("batch_hangs")


# ---- one round trip ------------------------------------------------------------------------------

DELAY = 0.01


class Proxy:
    """Stands before PostgreSQL's socket: each direction takes DELAY. Counts how often the client speaks anew."""

    def __init__(self, target):
        self.target = target
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="proxy-", dir=SCRATCH))
        self.turns = 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        path = self.folder / pathlib.Path(self.target).name
        self.server = self.loop.run_until_complete(asyncio.start_unix_server(self._client, path))
        self.ready.set()
        self.loop.run_forever()

    async def _client(self, reader, writer):
        other_reader, other_writer = await asyncio.open_unix_connection(self.target)
        last = [None]
        await asyncio.gather(self._pump(reader, other_writer, "there", last), self._pump(other_reader, writer, "back", last))

    async def _pump(self, reader, writer, way, last):
        queue = asyncio.Queue()

        async def deliver():
            while (item := await queue.get()) is not None:
                due, data = item
                await asyncio.sleep(max(0, due - time.monotonic()))
                writer.write(data)
            writer.close()
        task = asyncio.ensure_future(deliver())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if last[0] != way and way == "there" and b"/* provost */" not in data:
                    self.turns += 1
                last[0] = way
                await queue.put((time.monotonic() + DELAY, data))
        await queue.put(None)
        with contextlib.suppress(ConnectionError):
            await task

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


def test_one_round_trip(cluster, db, capsys):
    """Ten misses wait for the database once. Each way takes 10 ms, so ten round trips would take 200 ms."""
    near = cluster.app_dsn(db)
    host = re.search(r"host=([^&]+)", near)[1]
    proxy = Proxy(urllib.parse.unquote(host) + "/.s.PGSQL.5432")
    far = near.replace(host, urllib.parse.quote(str(proxy.folder), ""))
    one = {"pool_min": 1, "pool_max": 1, "url": far, "listen_url": near}
    try:
        with Server(cluster, db, ENDPOINTS, {"database": one}) as server:
            batch(server, "/api/things/1")
            # The rest of the server's own look at triggers may come through at the same time, and an answer while the last
            # of it is being sent: that makes turns more, never fewer, and not of most.
            all_turns = []
            for first in range(101, 151, 10):
                ids = list(range(first, first + 10))
                turns, began = proxy.turns, time.monotonic()
                found = batch(server, *(f"/api/things/{i}" for i in ids))
                took = time.monotonic() - began
                assert [item["body"]["id"] for item in found] == ids
                assert {item["cache"] for item in found} == {"provost; fwd=miss; stored"}
                all_turns.append(proxy.turns - turns)
            assert min(all_turns) == statistics.median(all_turns) == 1, all_turns
            with capsys.disabled():
                print(f"[ten misses over a way of 2 x 10 ms: {took * 1000:.1f} ms]", end=" ")
    finally:
        proxy.close()

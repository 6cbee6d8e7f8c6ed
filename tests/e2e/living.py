"""What tests of live endpoints have in common: tables, endpoints that show them, and what the server says of those who watch.

db, sql                 fixtures: a database of the module's own, and what runs statements in it as somebody else
issuer                  who signs tokens of users
identified(...)         a server whose callers must say who they are; enter(...): a socket of one of them
hear(server)            waits until it has heard of all that was committed so far
report(server)          the figures of paths that are watched
runs(cluster, db, text) how often a statement with that text has run
quiet(server)           waits until nothing is read any more
"""
import contextlib
import time

import pytest

import caching
import callers
from harness import SCRATCH, Server, statements, wait_until
from websocket import WebSocket

TABLES = """
CREATE TABLE item (id text PRIMARY KEY, n integer NOT NULL, owner text NOT NULL DEFAULT 'ada');
CREATE TABLE other (id text PRIMARY KEY, n integer NOT NULL);
CREATE TABLE big (id integer PRIMARY KEY, fill text NOT NULL);
"""
ENDPOINTS = {
    "items/list.sql": "-- @route GET /api/items\n-- @query least integer min=0 max=1000\n"
                      "SELECT coalesce(json_agg(json_build_object('id', id, 'n', n) ORDER BY id), '[]') FROM item WHERE n >= coalesce(:least, 0)",
    "items/get.sql": "-- @route GET /api/items/:id\n-- @path id text max=20\n-- @depends item(id=:id)\n"
                     "SELECT json_build_object('id', id, 'n', n) FROM item WHERE id = :id",
    "items/put.sql": "-- @route PUT /api/items/:id\n-- @path id text max=20\n-- @body n integer required\n"
                     "INSERT INTO item (id, n) VALUES (:id, :n) ON CONFLICT (id) DO UPDATE SET n = :n RETURNING json_build_object('n', n)",
    "mine.sql": "-- @route GET /api/mine\n-- @role admin, student\n"
                "SELECT json_build_object('who', :auth_sub, 'n', coalesce((SELECT sum(n) FROM item WHERE owner = :auth_sub), 0))",
    "shared.sql": "-- @route GET /api/shared\n-- @role admin, student\nSELECT json_build_object('n', coalesce(sum(n), 0)) FROM item",
    "both.sql": "-- @route GET /api/both\nSELECT json_build_object('items', (SELECT count(*) FROM item), 'others', (SELECT count(*) FROM other))",
    "other.sql": "-- @route GET /api/other\nSELECT json_build_object('sum', coalesce(sum(n), 0)) FROM other",
    "parity.sql": "-- @route GET /api/parity\nSELECT json_build_object('odd', count(*) FILTER (WHERE n % 2 = 1)) FROM other",
    "inverse.sql": "-- @route GET /api/inverse\nSELECT json_build_object('x', 12 / n) FROM other WHERE id = 'a'",
    "big.sql": "-- @route GET /api/big/:id\n-- @path id integer\n-- @depends big(id=:id)\nSELECT json_build_object('fill', fill) FROM big WHERE id = :id",
    "clock.sql": "-- @route GET /api/clock\n-- @cache ttl=300ms\nSELECT json_build_object('now', clock_timestamp())",
    "still.sql": "-- @route GET /api/still\n-- @cache off\nSELECT json_build_object('one', 1)",
    "touch.sql": "-- @route POST /api/touch\n-- @returns none\nUPDATE item SET n = n WHERE false",
    "slow.sql": f"-- @route GET /api/slow\nSELECT json_build_object('n', (SELECT count(*) FROM other), 'gate', {caching.GATE})",
}


@pytest.fixture(scope="module")
def db(request, cluster, empty_template):
    name = request.module.__name__.removeprefix("test_")
    cluster.create(name, empty_template)
    cluster.sql(name, TABLES)
    yield name
    cluster.wait_ready()
    cluster.drop(name)


@pytest.fixture
def sql(cluster, db):
    """Runs statements as somebody else, in transactions of their own."""
    connection = cluster.connect(db)

    def run(text, *args):
        with connection.cursor() as cursor:
            cursor.execute(text, args)
    run("TRUNCATE item, other, big")
    yield run
    connection.close()


@pytest.fixture(scope="module")
def issuer(request):
    return callers.Issuer(SCRATCH / f"{request.module.__name__}-issuer")


@contextlib.contextmanager
def identified(cluster, db, issuer, endpoints=None, **config):
    server = Server(cluster, db, endpoints or ENDPOINTS, {"auth": issuer.config(), "websocket": {"max_per_user": 0}, **config}, token=True)
    callers.prepare(cluster, db, server)
    with server:
        yield server


def enter(server, issuer, sub, *roles, **options):
    return WebSocket(server.port, "/ws", callers.bearer(issuer.jwt(sub, list(roles))), hello=True, **options)


def report(server, headers=None):
    answer = server.get("/api/admin/websocket", headers)
    assert answer.status == 200, answer
    return answer.json()["live"]


def hear(server):
    """Until the server has heard of all that was committed before: when a write is acknowledged, it has."""
    answer = server.request("POST", "/api/touch", {"Content-Type": "application/json"}, b"{}")
    assert answer.status == 204, answer


def etag(server, path):
    return server.get(path).header("ETag")


def runs(cluster, db, text):
    """How often a statement has run."""
    return sum(n for query, n in statements(cluster.dsn(db)).items() if text in query)


def quiet(server, seconds=0.3):
    """Nothing is read any more, and nothing waits for it."""
    def reads():
        now = report(server)
        return now["firstReads"] + now["refreshes"] + now["reading"] + now["waiting"]
    last, since = reads(), time.monotonic()

    def still():
        nonlocal last, since
        found = reads()
        if found != last:
            last, since = found, time.monotonic()
        return time.monotonic() - since > seconds
    wait_until(still, 20)

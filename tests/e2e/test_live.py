"""Live endpoints: paths that are watched over a WebSocket."""
import contextlib
import json
import threading
import time

import pytest

import caching
import callers as c
from harness import SCRATCH, Server, calls, patience, reset_statements, wait_until
from websocket import Ended, WebSocket

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
    "still.sql": "-- @route GET /api/still\nSELECT json_build_object('one', 1)",
    "slow.sql": f"-- @route GET /api/slow\nSELECT json_build_object('n', (SELECT count(*) FROM other), 'gate', {caching.GATE})",
}


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("live", empty_template)
    cluster.sql("live", TABLES)
    yield "live"
    cluster.wait_ready()
    cluster.drop("live")


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
def server(cluster, db):
    with Server(cluster, db, ENDPOINTS) as server:
        yield server


def report(server):
    answer = server.get("/api/admin/websocket")
    assert answer.status == 200, answer
    return answer.json()["live"]


def etag(server, path):
    return server.get(path).header("ETag")


# ---- the body, and what becomes of it ------------------------------------------------------------

def test_current_body_then_changes(server, sql):
    sql("INSERT INTO item VALUES ('a', 1)")
    with WebSocket(server.port, hello=True) as ws:
        ws.subscribe("/api/items")
        first = ws.data("/api/items")
        assert first == {"ev": "data", "path": "/api/items", "etag": etag(server, "/api/items"), "body": [{"id": "a", "n": 1}]}
        sql("UPDATE item SET n = 2")
        found = ws.data("/api/items")
        assert found["body"] == [{"id": "a", "n": 2}] and found["etag"] == etag(server, "/api/items")
        sql("INSERT INTO item VALUES ('b', 3)")
        assert [i["id"] for i in ws.data("/api/items")["body"]] == ["a", "b"]
        assert ws.call("unsubscribe", path="/api/items")["ev"] == "ok"
        assert ws.call("unsubscribe", path="/api/items")["ev"] == "ok"
        sql("UPDATE item SET n = 7")
        assert ws.silent()
        assert report(server)["paths"] == 0

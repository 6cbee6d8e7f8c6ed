"""Live endpoints: paths that are watched over a WebSocket."""
import contextlib
import json

import pytest

import caching
from harness import Server, wait_until
from living import ENDPOINTS, db, enter, etag, hear, identified, issuer, quiet, report  # noqa: F401
from websocket import WebSocket


@pytest.fixture(scope="module")
def server(cluster, db):
    with Server(cluster, db, ENDPOINTS) as server:
        yield server


@pytest.fixture
def sql(cluster, db, server):
    """Runs statements as somebody else, in transactions of their own; the module's server has heard of them on return."""
    connection = cluster.connect(db)

    def run(text, *args):
        with connection.cursor() as cursor:
            cursor.execute(text, args)
        hear(server)
    run("TRUNCATE item, other, big")
    yield run
    connection.close()


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


def test_what_the_client_has_is_not_sent(server, sql):
    sql("INSERT INTO item VALUES ('a', 1)")
    tag = etag(server, "/api/items")
    bare = tag.strip('"')
    with WebSocket(server.port, hello=True) as ws:
        for has in (tag, f"W/{tag}", f'"{bare}-gzip"'):
            ws.subscribe("/api/items", etag=has)
            assert ws.call("ping")["ev"] == "ok"    # a body would have come before it
        for other in ('"x"', "", "*", bare, f'"{bare[:-1]}"', f'"{"0" * len(bare)}"'):
            ws.subscribe("/api/items", etag=other)
            assert ws.data()["etag"] == tag
        ws.subscribe("/api/items", etag=None)
        assert ws.data()["etag"] == tag
        # Once more is as good as once: one body per change.
        sql("UPDATE item SET n = 2")
        assert ws.data()["body"][0]["n"] == 2
        assert ws.call("subscribe", path="/api/items", etag=1)["code"] == 4400
        assert report(server)["subscriptions"] == 1
        sql("UPDATE item SET n = 3")
        assert ws.data()["body"][0]["n"] == 3
        assert ws.silent()


def test_parameters_make_paths(server, sql):
    sql("INSERT INTO item VALUES ('a', 1), ('b', 5)")
    with WebSocket(server.port, hello=True) as ws:
        for path, ids in (("/api/items?least=2", ["b"]), ("/api/items?least=0", ["a", "b"]), ("/api/items?least=2&unknown=1", ["b"])):
            ws.subscribe(path)
            assert [i["id"] for i in ws.data(path)["body"]] == ids
        assert report(server)["paths"] == 3
        sql("DELETE FROM item WHERE id = 'b'")
        found = {(d := ws.data())["path"]: d["body"] for _ in range(3)}
        assert found == {"/api/items?least=2": [], "/api/items?least=0": [{"id": "a", "n": 1}], "/api/items?least=2&unknown=1": []}


def test_writes_through_the_server(server, sql):
    """By the time a write is acknowledged, whoever subscribes is not answered from before it."""
    with WebSocket(server.port, hello=True) as ws, WebSocket(server.port, hello=True) as row, server.connect() as http:
        ws.subscribe("/api/items")
        assert ws.data()["body"] == []
        row.subscribe("/api/items/a")
        assert row.event("error")["code"] == 4404
        for n in range(20):
            body = json.dumps({"n": n}).encode()
            http.send(b"PUT /api/items/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert http.response().status in (200, 201)
            row.op("subscribe", path="/api/items/a", id=f"{n}")
            while (found := row.any_event()) != {"ev": "ok", "id": f"{n}", "path": "/api/items/a"}:
                assert found["ev"] == "data", found     # told before it was asked for
            assert row.data()["body"]["n"] == n
        # The last of them, whatever of the others.
        wait_until(lambda: ws.data()["body"] == [{"id": "a", "n": 19}], 10)


def test_what_is_rolled_back_is_not_told(server, cluster, db, sql):
    with contextlib.closing(cluster.connect(db)) as connection, WebSocket(server.port, hello=True) as ws:
        connection.autocommit = False
        ws.subscribe("/api/items")
        assert ws.data()["body"] == []
        quiet(server)       # what came before it may be told of late
        before = report(server)["refreshes"]
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO item VALUES ('a', 1)")
        connection.rollback()
        assert ws.silent()
        assert report(server)["refreshes"] == before
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO item VALUES ('b', 1)")
        connection.commit()
        assert ws.data()["body"] == [{"id": "b", "n": 1}]


def test_what_is_the_same_is_not_sent(server, sql):
    sql("INSERT INTO other VALUES ('a', 1)")
    with WebSocket(server.port, hello=True) as ws:
        ws.subscribe("/api/parity")
        assert ws.data()["body"] == {"odd": 1}
        before = report(server)["unchanged"]
        sql("UPDATE other SET n = 3")
        wait_until(lambda: report(server)["unchanged"] > before, 10)
        sql("UPDATE other SET n = 4")
        assert ws.data()["body"] == {"odd": 0}


def test_rows_that_come_and_go(server, sql):
    with WebSocket(server.port, hello=True) as ws:
        ws.subscribe("/api/items/a")
        found = ws.event("error")
        assert (found["code"], found["path"], found["live"]) == (4404, "/api/items/a", True) and "id" not in found
        sql("INSERT INTO item VALUES ('a', 1)")
        assert ws.data("/api/items/a")["body"] == {"id": "a", "n": 1}
        sql("INSERT INTO item VALUES ('b', 1)")     # another row
        sql("DELETE FROM item WHERE id = 'a'")
        found = ws.event("error")
        assert (found["code"], found["path"], found["live"]) == (4404, "/api/items/a", True)
        sql("INSERT INTO item VALUES ('a', 1)")     # the same body as before
        assert ws.data("/api/items/a")["body"] == {"id": "a", "n": 1}


def test_what_fails_is_tried_again(server, sql):
    """Several, of which more is heard while they wait."""
    sql("INSERT INTO other VALUES ('a', 1)")
    paths = ["/api/inverse", "/api/inverse?b", "/api/inverse?c"]
    with WebSocket(server.port, hello=True) as ws:
        for path in paths:
            ws.subscribe(path)
            assert ws.data(path)["body"] == {"x": 12}
        sql("UPDATE other SET n = 0")
        code = 4000 + server.get("/api/inverse").status
        found = [ws.event("error") for _ in paths]
        assert sorted(e["path"] for e in found) == paths and all(e["code"] == code and e["live"] is True for e in found)
        for n in range(5):
            sql("INSERT INTO other VALUES (%s, 1)", f"x{n}")
        sql("UPDATE other SET n = 4")
        assert {(d := ws.data())["path"]: d["body"] for _ in paths} == dict.fromkeys(paths, {"x": 3})


def test_a_ttl_ends(server):
    with WebSocket(server.port, hello=True) as ws:
        ws.subscribe("/api/clock")
        assert len({ws.data("/api/clock")["body"]["now"] for _ in range(3)}) == 3


def test_invalidation_by_hand(server, sql):
    sql("INSERT INTO item VALUES ('a', 1)")
    for query in ("all", "endpoint=items/list"):
        with WebSocket(server.port, hello=True) as ws:
            ws.subscribe("/api/items")
            ws.data()
            before = report(server)["unchanged"]
            caching.invalidate(server, query)
            wait_until(lambda: report(server)["unchanged"] > before, 10)
            sql("UPDATE item SET n = n + 1")
            ws.data("/api/items")


def test_a_gap_of_the_stream(server, cluster, db, sql):
    """What was committed while nobody listened is seen; whoever watches is told that there was a gap."""
    sql("INSERT INTO item VALUES ('a', 1)")
    with WebSocket(server.port, hello=True) as ws:
        ws.subscribe("/api/items")
        ws.data()
        ws.join("table:other")
        cluster.sql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE '%%listener'", db)
        sql("UPDATE item SET n = 2")
        found = {}
        while not {"resync", "data"} <= found.keys():
            event = ws.any_event(20)
            found[event["ev"]] = event
        assert found["resync"]["paths"] == ["/api/items"] and found["resync"]["rooms"] == ["table:other"]
        assert found["data"]["body"][0]["n"] == 2


# ---- who may, and what is refused ----------------------------------------------------------------

@pytest.mark.parametrize("path, code", [
    ("/api/nothing", 4404), ("/api/admin/cache", 4404), ("/", 4404), ("/livez", 4404), ("/api/items?least=x", 4400), ("/api/items?least=1001", 4400),
    ("/api/items?least=1&least=2", 4400), ("/api/big/x", 4400), ("/api/still", 4422), ("", 4400), ("items", 4400), ("/api/%zz", 4400),
    ("http://localhost/api/items", 4400), ("/api/items/" + "x" * 30, 4400), ("/api/items?x=" + "x" * 3000, 4400),
    (None, 4400), (1, 4400), (["/api/items"], 4400),
], ids=lambda value: repr(value)[:30])
def test_refused(server, path, code):
    with WebSocket(server.port, hello=True) as ws:
        found = ws.call("subscribe", path=path)
        assert found["ev"] == "error" and found["code"] == code and found["message"] and found["live"] is False, found
        assert found.get("path") in (path, None)
        ws.op("subscribe", path=path)       # without an id as well
        assert ws.event("error")["code"] == code
        assert report(server)["subscriptions"] == 0


def test_what_is_refused_leaves_what_stands(server, sql):
    """And the error says so: another subscription to a path that is watched may be refused for how it was asked for."""
    with WebSocket(server.port, hello=True) as ws:
        ws.subscribe("/api/items")
        ws.data("/api/items")
        found = ws.call("subscribe", path="/api/items", etag=5)
        assert (found["code"], found["path"], found["live"]) == (4400, "/api/items", True)
        sql("INSERT INTO item VALUES ('a', 1)")
        assert ws.data("/api/items")["body"] == [{"id": "a", "n": 1}]
        assert ws.call("unsubscribe", path="/api/items")["ev"] == "ok"
        found = ws.call("subscribe", path="/api/items", etag=5)
        assert (found["code"], found["live"]) == (4400, False)


def test_answers_that_differ_from_user_to_user(cluster, db, issuer, sql):
    with identified(cluster, db, issuer) as server, enter(server, issuer, "ada", "admin") as ada, enter(server, issuer, "bob", "student") as bob:
        for ws, who in ((ada, "ada"), (bob, "bob")):
            ws.subscribe("/api/mine")
            assert ws.data("/api/mine")["body"] == {"who": who, "n": 0}
        sql("INSERT INTO item VALUES ('b', 7, 'bob')")
        assert bob.data("/api/mine")["body"] == {"who": "bob", "n": 7}
        assert ada.silent()
        found = bob.call("subscribe", path="/api/items")
        assert found["code"] == 4403 and found["live"] is False


def test_renewal_with_less_right(cluster, db, issuer, sql):
    with identified(cluster, db, issuer) as server, enter(server, issuer, "ada", "admin") as ws:
        for path in ("/api/items", "/api/shared", "/api/mine"):
            ws.subscribe(path)
            ws.data(path)
        assert ws.call("auth", token=issuer.jwt("ada", ["admin"]))["ev"] == "ok"
        assert ws.call("auth", token=issuer.jwt("ada", ["student"]))["ev"] == "ok"
        found = ws.event("error")
        assert (found["code"], found["path"], found["live"]) == (4403, "/api/items", False)
        sql("INSERT INTO item VALUES ('a', 7)")
        assert {(d := ws.data())["path"]: d["body"]["n"] for _ in range(2)} == {"/api/shared": 7, "/api/mine": 7}
        assert ws.silent()


def test_reloads(cluster, db, sql):
    sql("INSERT INTO item VALUES ('a', 1)")
    with Server(cluster, db, ENDPOINTS) as server, WebSocket(server.port, hello=True) as ws:
        for path in ("/api/items", "/api/both", "/api/items/a", "/api/parity"):
            ws.subscribe(path)
            ws.data(path)
        server.remove_endpoint("both.sql")
        server.write_endpoint("items/list.sql", ENDPOINTS["items/list.sql"].replace("'n', n", "'number', n"))
        server.reload()
        found = sorted((ws.any_event(20) for _ in range(2)), key=lambda e: e["ev"])
        assert found[0]["ev"] == "data" and found[0]["path"] == "/api/items" and found[0]["body"] == [{"id": "a", "number": 1}]
        assert {k: found[1][k] for k in ("ev", "path", "code", "live")} == {"ev": "error", "path": "/api/both", "code": 4404, "live": False}
        sql("UPDATE item SET n = 2")
        assert {(d := ws.data())["path"] for _ in range(2)} == {"/api/items", "/api/items/a"}
        assert report(server)["paths"] == 3
        assert ws.silent()


def test_those_who_watch_what_a_reload_changes(cluster, db, sql):
    """All of them go over to what is there now, in whatever order they leave it."""
    sql("INSERT INTO item VALUES ('a', 1)")
    with Server(cluster, db, ENDPOINTS) as server, contextlib.ExitStack() as stack:
        stays = [stack.enter_context(WebSocket(server.port, hello=True)) for _ in range(5)]
        for n in range(4):
            goes = [stack.enter_context(WebSocket(server.port, hello=True)) for _ in range(5)]
            for ws in [*stays, *goes] if n == 0 else goes:
                ws.subscribe("/api/items")
                ws.data()
            server.write_endpoint("items/list.sql", ENDPOINTS["items/list.sql"].replace("'n', n", f"'n{n}', n"))
            server.reload()
            for ws in (*stays, *goes):
                assert ws.data(seconds=20)["body"] == [{"id": "a", f"n{n}": 1}]
            for ws in goes[n:] + goes[:n]:
                assert ws.call("unsubscribe", path="/api/items")["ev"] == "ok"
            sql("UPDATE item SET n = 2")
            for ws in stays:
                assert ws.data()["body"] == [{"id": "a", f"n{n}": 2}]
            assert report(server)["paths"] == 1 and report(server)["subscriptions"] == 5
            sql("UPDATE item SET n = 1")
            for ws in stays:
                ws.data()


def test_the_interval_is_set_by_a_reload(cluster, db, sql):
    sql("INSERT INTO item VALUES ('a', 0)")
    with Server(cluster, db, ENDPOINTS, {"websocket": {"refresh_interval": "1h"}}) as server, WebSocket(server.port, hello=True) as ws:
        ws.subscribe("/api/items")
        ws.data()
        sql("UPDATE item SET n = -2")       # the first shows at once, the next after an hour
        assert ws.data()["body"] == []
        sql("UPDATE item SET n = 1")
        assert ws.silent()
        caching.settings(server, {"websocket": {"refresh_interval": "20ms"}})
        assert ws.data()["body"][0]["n"] == 1
        for n in range(2, 6):
            sql("UPDATE item SET n = %s", n)
            assert ws.data()["body"][0]["n"] == n

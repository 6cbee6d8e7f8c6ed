"""Live endpoints: what many cost, those who are slow, and limits."""
import contextlib
import resource
import time

import pytest

import callers
from harness import SLOWNESS, Server, reset_statements, wait_until
from living import ENDPOINTS, db, enter, identified, issuer, quiet, report, runs, sql  # noqa: F401
from websocket import WebSocket


# ---- many ----------------------------------------------------------------------------------------

def closes(server, code):
    return server.get("/api/admin/websocket").json()["closes"].get(str(code), 0)


@pytest.mark.threads
def test_one_statement_however_many_watch(cluster, db, sql):
    """2,000 subscribers of one path, one change: one statement."""
    many = 2000 if SLOWNESS == 1 else 300
    sql("INSERT INTO other VALUES ('a', 1)")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, many + 500), hard), hard))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(cluster, db, ENDPOINTS, {"websocket": {"max_clients": many + 100, "ping_interval": "1h"}}))
        sockets = [stack.enter_context(WebSocket(server.port, hello=True)) for _ in range(many)]
        for ws in sockets:
            ws.op("subscribe", path="/api/other")
        for ws in sockets:
            assert ws.data("/api/other", 30)["body"] == {"sum": 1}
        assert report(server)["subscriptions"] == many and report(server)["paths"] == 1
        assert runs(cluster, db, "FROM other") >= 1
        quiet(server)
        before = report(server)["refreshes"]
        reset_statements(cluster.dsn(db))
        sql("UPDATE other SET n = 5")
        found = [ws.data("/api/other", 30) for ws in sockets]
        assert all(d["body"] == {"sum": 5} for d in found)
        quiet(server)
        assert runs(cluster, db, "sum(n)") == 1
        assert report(server)["refreshes"] == before + 1


def test_one_statement_per_path_and_transaction(cluster, db, sql):
    """A transaction that touches what 20 paths show, with a statement for each: 20 statements."""
    with Server(cluster, db, ENDPOINTS) as server, WebSocket(server.port, hello=True) as ws, \
            contextlib.closing(cluster.connect(db)) as connection:
        paths = [f"/api/items/{n}" for n in range(20)]
        sql("INSERT INTO item SELECT n, 0 FROM generate_series(0, 19) n")
        for path in paths:
            ws.subscribe(path)
            assert ws.data(path)["body"]["n"] == 0
        quiet(server)
        before = report(server)["refreshes"]
        for turn in range(1, 6):
            reset_statements(cluster.dsn(db))
            connection.autocommit = False
            with connection.cursor() as cursor:
                for n in range(20):
                    cursor.execute("UPDATE item SET n = %s WHERE id = %s", (turn, str(n)))
            connection.commit()
            found = {(d := ws.data())["path"]: d["body"]["n"] for _ in paths}
            assert found == dict.fromkeys(paths, turn)
            quiet(server)
            assert runs(cluster, db, "WHERE id = $1") == 20
        assert report(server)["refreshes"] == before + 100


def test_a_table_that_is_written_all_the_time(cluster, db, sql):
    """A hundred writes a second: at most four refreshes a second of each path, and none is left out in the end."""
    sql("INSERT INTO other VALUES ('a', 0)")
    paths = ["/api/other", "/api/both", "/api/parity"]
    with Server(cluster, db, ENDPOINTS) as server, WebSocket(server.port, hello=True) as ws:
        for path in paths:
            ws.subscribe(path)
            ws.data(path)
        reset_statements(cluster.dsn(db))
        begun, n = time.monotonic(), 0
        while time.monotonic() - begun < 3 or n < 30 or runs(cluster, db, "sum(n)") < 3:
            n += 1
            sql("UPDATE other SET n = %s", 2 * n)
            time.sleep(max(0, begun + n / 100 - time.monotonic()))
        wait_until(lambda: ws.data()["body"] == {"sum": 2 * n}, 10)
        quiet(server)
        lasted = time.monotonic() - begun
        for text in ("sum(n)", "FROM item", "FILTER"):
            assert 1 <= runs(cluster, db, text) <= 4 * lasted + 1


# ---- who is slow ---------------------------------------------------------------------------------

@pytest.mark.threads
def test_who_is_slow_gets_the_latest(cluster, db, sql):
    """And loses no event for it: bodies wait where they cost nothing, and are not of the backlog."""
    megabyte, turns = 1 << 20, 30
    sql("INSERT INTO big VALUES (1, '')")
    sql("ALTER TABLE big ALTER fill SET STORAGE EXTERNAL")
    config = {"websocket": {"backlog": "64KiB", "refresh_interval": "10ms"}}
    with Server(cluster, db, ENDPOINTS, config) as server, WebSocket(server.port, hello=True) as quick, \
            WebSocket(server.port, hello=True, receive_buffer=4096) as slow:
        for ws in (quick, slow):
            ws.subscribe("/api/big/1")
            assert ws.data()["body"] == {"fill": ""}
        slow.join("table:other")
        for turn in range(turns):
            sql("UPDATE big SET fill = repeat(%s, %s)", chr(ord("a") + turn % 26), megabyte + turn)
            assert len(quick.data(seconds=30)["body"]["fill"]) == megabyte + turn
            sql("INSERT INTO other VALUES (%s, 0)", str(turn))
        assert report(server)["postponed"] > 0
        bodies, events = [], []
        while len(events) < turns or bodies[-1] != megabyte + turns - 1:
            found = slow.any_event(60)
            if found["ev"] == "data":
                bodies.append(len(found["body"]["fill"]))
            else:
                assert found["ev"] == "change", found
                events += found["keys"]
        assert events == [str(turn) for turn in range(turns)]
        # What the kernel and the outbox held, and the last.
        assert bodies == sorted(set(bodies)) and len(bodies) < turns / 2, bodies
        assert slow.call("ping")["ev"] == "ok"


def test_what_is_outdated_is_not_kept_for_ever(cluster, db, sql):
    """Each client that does not read keeps a body that no other does, until that is too much."""
    sql("INSERT INTO big VALUES (1, 'x')")
    sql("ALTER TABLE big ALTER fill SET STORAGE EXTERNAL")
    with Server(cluster, db, ENDPOINTS, {"websocket": {"refresh_interval": "10ms"}}) as server, contextlib.ExitStack() as stack:
        quick = stack.enter_context(WebSocket(server.port, hello=True))
        quick.subscribe("/api/big/1")
        quick.data()
        for n in range(20):
            sql("UPDATE big SET fill = repeat(%s, 3900000)", chr(ord("a") + n))
            assert quick.data(seconds=30)["body"]["fill"][0] == chr(ord("a") + n)
            bodies = report(server)["bodies"]
            slow = stack.enter_context(WebSocket(server.port, hello=True, receive_buffer=4096))
            slow.op("subscribe", path="/api/big/1")
            wait_until(lambda: report(server)["bodies"] == bodies + 1)
        sql("UPDATE big SET fill = 'last'")
        assert quick.data(seconds=30)["body"]["fill"] == "last"
        wait_until(lambda: closes(server, 1013) > 0 and report(server)["outdatedBytes"] < 64 << 20, 30)
        assert quick.call("ping")["ev"] == "ok"
        assert closes(server, 1006) == 0


# ---- limits --------------------------------------------------------------------------------------

def test_paths_of_one_client(cluster, db, sql):
    with Server(cluster, db, ENDPOINTS) as server:
        with WebSocket(server.port, hello=True) as ws:
            for n in range(256):
                ws.op("subscribe", path=f"/api/items?least={n}")
                assert ws.data()["body"] == []
            found = ws.call("subscribe", path="/api/items?least=256")
            assert (found["code"], found["live"]) == (4429, False)
            ws.subscribe("/api/items?least=7")      # one of those that it has
            ws.data()
            assert ws.call("unsubscribe", path="/api/items?least=0")["ev"] == "ok"
            ws.subscribe("/api/items?least=256")
            ws.data()
        wait_until(lambda: report(server)["paths"] == report(server)["subscriptions"] == 0)
        with WebSocket(server.port, hello=True) as ws:
            refused = None
            for n in range(256):
                ws.op("subscribe", path=f"/api/items?least=0&x={n}" + "x" * 1900)
                refused = ws.any_event()
                if refused["ev"] == "error":
                    break
            assert refused["code"] == 4429


LARGE = 3900000  # bytes: four of them are a user's share, 17 are what there is for all


def watched(ws, number):
    """What is said of /api/big/N."""
    ws.subscribe(f"/api/big/{number}")
    return ws.any_event(30)


def is_refused(found, code, text):
    return (found["ev"], found["code"], found["live"]) == ("error", code, False) and text in found["message"]


def test_bodies_of_one_user(cluster, db, issuer, sql):
    """What one user watches has a share of the room, whatever its sockets are."""
    sql("INSERT INTO big SELECT n, repeat('x', %s) FROM generate_series(1, 6) n", LARGE)
    sql("INSERT INTO big VALUES (7, 'small'), (100, repeat('x', 4300000))")
    with identified(cluster, db, issuer) as server, enter(server, issuer, "ada", "admin") as ada, \
            enter(server, issuer, "ada", "admin") as other, enter(server, issuer, "bob", "admin") as bob:
        def now():
            return report(server, callers.admin_headers(issuer))
        assert is_refused(watched(ada, 100), 4413, "too large")
        assert [watched(ada if n % 2 else other, n)["ev"] for n in range(1, 5)] == ["data"] * 4
        assert is_refused(watched(ada, 5), 4429, "16 MiB") and is_refused(watched(other, 6), 4429, "16 MiB")
        assert watched(ada, 7)["body"] == {"fill": "small"} and watched(other, 1)["ev"] == "data"
        # Nobody else is concerned: neither by what it watches, nor by watching the same.
        assert [watched(bob, n)["ev"] for n in (1, 5, 6)] == ["data"] * 3
        assert watched(ada, 5)["ev"] == "data"      # bob's share has room for it
        # What outgrows the share ends; what another has room for does not.
        assert watched(bob, 7)["ev"] == "data"
        sql("UPDATE big SET fill = repeat('y', %s) WHERE id = 7", LARGE)
        assert len(ada.data(seconds=30)["body"]["fill"]) == len(bob.data(seconds=30)["body"]["fill"]) == LARGE
        # Who leaves takes along what its share had room for, and the other's has not.
        bob.close()
        ended = [ada.any_event(30) for _ in range(2)]
        assert {found["path"] for found in ended} == {"/api/big/5", "/api/big/7"} and all(is_refused(found, 4429, "16 MiB") for found in ended)
        assert now()["paths"] == 4 and now()["bodyBytes"] < 16 << 20
        # Room that is given back is there for the next.
        for ws in (ada, other):
            for n in range(1, 8):
                assert ws.call("unsubscribe", path=f"/api/big/{n}")["ev"] == "ok"
        assert now()["bodyBytes"] == 0
        assert [watched(ada, n)["ev"] for n in range(3, 7)] == ["data"] * 4


def test_bodies_of_all(cluster, db, issuer, sql):
    sql("INSERT INTO big SELECT n, repeat('x', %s) FROM generate_series(1, 18) n", LARGE)
    with identified(cluster, db, issuer) as server, contextlib.ExitStack() as stack:
        users = [stack.enter_context(enter(server, issuer, f"user {n}", "admin")) for n in range(5)]
        events = [watched(users[n // 4], n + 1) for n in range(18)]
        assert [e["ev"] for e in events[:17]] == ["data"] * 17
        assert is_refused(events[17], 4503, "")
        sql("UPDATE big SET fill = 'y' WHERE id <= 2")
        for _ in range(2):
            assert users[0].data(seconds=30)["body"] == {"fill": "y"}
        assert watched(users[4], 18)["ev"] == "data"
        # One that outgrows the room, later on.
        sql("UPDATE big SET fill = repeat('x', %s) WHERE id <= 2", LARGE)
        found = sorted((users[0].any_event(30) for _ in range(2)), key=lambda e: e["ev"])
        assert found[0]["ev"] == "data" and is_refused(found[1], 4503, "")

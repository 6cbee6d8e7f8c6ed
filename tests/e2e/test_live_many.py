"""Live endpoints: what many cost, those who are slow, and limits."""
import contextlib
import resource
import time

import pytest

from harness import SLOWNESS, Server, reset_statements, wait_until
from living import ENDPOINTS, TABLES, quiet, report, runs
from websocket import WebSocket


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("live_many", empty_template)
    cluster.sql("live_many", TABLES)
    yield "live_many"
    cluster.wait_ready()
    cluster.drop("live_many")


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


def test_bodies_that_are_too_large(cluster, db, sql):
    sql("INSERT INTO big SELECT n, repeat('x', 3900000) FROM generate_series(1, 18) n")
    sql("INSERT INTO big VALUES (100, repeat('x', 4300000))")
    with Server(cluster, db, ENDPOINTS) as server, WebSocket(server.port, hello=True) as ws:
        ws.subscribe("/api/big/100")
        found = ws.event("error", 30)
        assert (found["code"], found["path"], found["live"]) == (4413, "/api/big/100", False)
        events = []
        for n in range(1, 19):
            ws.subscribe(f"/api/big/{n}")
            events.append(ws.any_event(30))
        assert [e["ev"] for e in events[:17]] == ["data"] * 17
        assert (events[17]["ev"], events[17]["code"], events[17]["live"]) == ("error", 4503, False)
        sql("UPDATE big SET fill = 'y' WHERE id <= 2")
        for _ in range(2):
            assert ws.data(seconds=30)["body"] == {"fill": "y"}
        ws.subscribe("/api/big/18")
        ws.data(seconds=30)
        # One that outgrows the room, later on.
        sql("UPDATE big SET fill = repeat('x', 3900000) WHERE id <= 2")
        found = sorted((ws.any_event(30) for _ in range(2)), key=lambda e: e["ev"])
        assert found[0]["ev"] == "data" and (found[1]["code"], found[1]["live"]) == (4503, False)

"""Live endpoints while the database is away, and while a statement runs."""
import pytest

import caching
from cutting import CuttingProxy, before_listen
from harness import Server, wait_until
from living import ENDPOINTS, db, report, sql  # noqa: F401
from websocket import WebSocket


# ---- the database is away ------------------------------------------------------------------------

def test_the_database_away_and_back(cluster, db, sql):
    sql("INSERT INTO item VALUES ('a', 1)")
    sql("INSERT INTO other VALUES ('a', 1)")
    with Server(cluster, db, ENDPOINTS, allow_errors=True) as server, WebSocket(server.port, hello=True) as ws:
        ws.subscribe("/api/items")
        ws.data()
        assert server.get("/api/shared").status == 200
        cluster.stop("immediate")
        away = True
        try:
            wait_until(lambda: server.get("/api/other").status == 503, 20)
            with WebSocket(server.port, hello=True) as late:
                late.subscribe("/api/other")
                found = late.event("error", 30)
                assert (found["code"], found["path"], found["live"]) == (4503, "/api/other", True)
                late.subscribe("/api/shared")       # stored: shown as what it is
                while (found := late.any_event(30))["path"] != "/api/shared":
                    assert found["ev"] == "error"
                assert found["stale"] is True and found["body"] == {"n": 1}
                cluster.start()
                away = False
                cluster.sql(db, "UPDATE item SET n = 5")
                # Both are read anew by themselves, and what was stale is said again.
                seen = {}
                while not {"/api/other", "/api/shared"} <= seen.keys() or seen["/api/shared"]["body"] != {"n": 5}:
                    event = late.any_event(60)
                    if event["ev"] == "data" and "stale" not in event:
                        seen[event["path"]] = event
                assert seen["/api/other"]["body"] == {"sum": 1}
                wait_until(lambda: (e := ws.any_event(60))["ev"] == "data" and e["body"][0]["n"] == 5, 30)
        finally:
            if away:
                cluster.start()


@pytest.mark.threads
def test_while_the_stream_is_away(cluster, db, sql):
    """Whoever comes is not told what others were told before: nobody knows whether it has changed."""
    sql("INSERT INTO item VALUES ('a', 1)")
    with CuttingProxy(cluster.dsn(db)) as proxy, Server(cluster, db, ENDPOINTS, {"database": {"listen_url": proxy.dsn}}) as server, \
            WebSocket(server.port, hello=True) as early, WebSocket(server.port, hello=True) as late:
        early.subscribe("/api/items")
        assert early.data()["body"][0]["n"] == 1
        proxy.rule = before_listen
        proxy.end_all()
        server.wait_log("the stream of changes was lost", 10)
        assert server.get("/api/still").status == 200   # so it is not the database that is away
        for n in range(2, 6):
            sql("UPDATE item SET n = %s", n)
            late.subscribe("/api/items")
            assert late.data()["body"][0]["n"] == n
            assert early.data()["body"][0]["n"] == n
        sql("UPDATE item SET n = 7")
        proxy.rule = None
        for ws in (early, late):
            found = [ws.any_event(20), ws.any_event(20)]
            assert sorted(event["ev"] for event in found) == ["data", "resync"], found
            assert next(event for event in found if event["ev"] == "data")["body"][0]["n"] == 7


# ---- while a statement runs ----------------------------------------------------------------------

@pytest.mark.threads
def test_who_comes_while_it_is_read_gets_it_once(cluster, db, sql):
    with Server(cluster, db, ENDPOINTS) as server, WebSocket(server.port, hello=True) as first, WebSocket(server.port, hello=True) as second:
        with caching.held(cluster, db):
            first.subscribe("/api/slow")
            wait_until(lambda: caching.waiting(cluster, db) == 1)
            second.subscribe("/api/slow")
            second.subscribe("/api/slow")
            assert report(server)["paths"] == 1 and report(server)["reading"] == 1
        for ws in (first, second):
            assert ws.data("/api/slow")["body"]["n"] == 0
            assert ws.silent()


def received(server):
    return server.get("/api/admin/websocket").json()["messages"]["received"]


def changes(server):
    return caching.report(server)["stream"]["changes"]


@pytest.mark.threads
def test_who_comes_behind_a_change_is_not_told_what_was_before(cluster, db, sql):
    """The statement that runs was begun before the change: its answer is for those who asked before."""
    with Server(cluster, db, ENDPOINTS) as server, WebSocket(server.port, hello=True) as first, WebSocket(server.port, hello=True) as second:
        with caching.held(cluster, db):
            first.subscribe("/api/slow")
            wait_until(lambda: caching.waiting(cluster, db) == 1)
            before = changes(server)
            sql("INSERT INTO other VALUES ('a', 1)")
            wait_until(lambda: changes(server) > before)
            second.subscribe("/api/slow")
        assert second.data("/api/slow")["body"]["n"] == 1
        wait_until(lambda: first.data("/api/slow")["body"]["n"] == 1, 10)


def test_who_was_behind_and_asks_again_is_not_told_what_was_before(cluster, db, sql):
    """What waited for it to catch up is no answer to what it has asked since."""
    sql("INSERT INTO big VALUES (1, repeat('x', 3000000))")
    with Server(cluster, db, ENDPOINTS) as server, WebSocket(server.port, hello=True) as quick, \
            WebSocket(server.port, hello=True, receive_buffer=4096) as behind:
        quick.subscribe("/api/slow")
        assert quick.data("/api/slow")["body"]["n"] == 0
        behind.subscribe("/api/big/1")
        wait_until(lambda: report(server)["bodies"] == 2)
        behind.op("subscribe", path="/api/slow")
        wait_until(lambda: report(server)["postponed"] == 1)
        with caching.held(cluster, db) as gate:
            sql("INSERT INTO other VALUES ('a', 1)")
            wait_until(lambda: caching.waiting(cluster, db) == 1)
            before = received(server)
            behind.op("subscribe", path="/api/slow")
            wait_until(lambda: received(server) > before)
            assert len(behind.data("/api/big/1", 30)["body"]["fill"]) == 3000000
            assert behind.call("ping")["ev"] == "ok"
            gate.open()
            for ws in (behind, quick):
                assert ws.data("/api/slow")["body"]["n"] == 1


@pytest.mark.threads
@pytest.mark.parametrize("leaves", ["unsubscribe", "close", "stop"])
def test_nobody_waits_any_more(cluster, db, sql, leaves):
    with Server(cluster, db, ENDPOINTS, {"http": {"shutdown_timeout": "2s"}}, allow_errors=True) as server, caching.held(cluster, db) as gate:
        ws = WebSocket(server.port, hello=True)
        ws.subscribe("/api/slow")
        wait_until(lambda: caching.waiting(cluster, db) == 1)
        if leaves == "unsubscribe":
            assert ws.call("unsubscribe", path="/api/slow")["ev"] == "ok"
            ws.subscribe("/api/slow")
            gate.open()
            ws.data("/api/slow")
            assert ws.silent()
        elif leaves == "close":
            ws.close()
            wait_until(lambda: report(server)["paths"] == 0)
            gate.open()
            wait_until(lambda: report(server)["reading"] == 0)
        else:
            server.stop()       # the statement is cancelled, and its answer is for nobody
            ws.event("bye")
        ws.close()

"""What SQL publishes (provost.publish), from the transaction to the sockets: rooms, users, the outbox, losses."""
import contextlib
import itertools
import json
import threading

import psycopg2
import pytest

import callers as c
from cutting import CuttingProxy, before_commit
from harness import SCRATCH, Server, wait_until
from websocket import WebSocket

ENDPOINTS = {"one.sql": "-- @route GET /api/one\nSELECT json_build_object('n', 1)"}
PUBLISH = "SELECT provost.publish(%s, %s, %s::jsonb)"
names = (f"user{n}" for n in itertools.count())


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("publish", empty_template)
    yield "publish"
    cluster.drop("publish")


@pytest.fixture(scope="module")
def issuer():
    return c.Issuer(SCRATCH / "publish-issuer")


def new_server(cluster, db, issuer, websocket=None, database=None, **options):
    config = {"auth": issuer.config(), "rooms": {"news": "reader, admin", "other": "reader, admin"}, "websocket": websocket or {}}
    if database:
        config["database"] = database
    server = Server(cluster, db, ENDPOINTS, config, token=True, **options)
    c.prepare(cluster, db, server)
    return server


@pytest.fixture(scope="module")
def server(cluster, db, issuer):
    # The last of the tests restarts the database.
    with new_server(cluster, db, issuer, allow_errors="the database cannot be reached") as server:
        yield server


@pytest.fixture
def sql(cluster, db):
    """Runs a statement, in a transaction of its own."""
    connection = cluster.connect(db)

    def run(text, *values):
        with connection.cursor() as cursor:
            cursor.execute(text, values or None)
            return cursor.fetchall() if cursor.description else []
    yield run
    connection.close()


@pytest.fixture
def publish(sql):
    def run(room, data, name="n"):
        return sql(PUBLISH, room, name, json.dumps(data))[0][0]
    return run


@pytest.fixture
def user():
    """Nobody whom another test knows."""
    return next(names)


def connect(server, issuer, subject, rooms=(), roles=("reader",), **options):
    ws = WebSocket(server.port, "/ws", c.bearer(issuer.jwt(subject, list(roles))), hello=True, **options)
    for room in rooms:
        ws.join(room)
    return ws


def report(server, issuer, part=None):
    answer = server.get("/api/admin/websocket", c.admin_headers(issuer))
    assert answer.status == 200, answer
    return answer.json()[part] if part else answer.json()


def outbox(sql, subject):
    return [row for (row,) in sql("SELECT id FROM provost.outbox WHERE room = 'user:' || %s ORDER BY id", subject)]


def until(ws, nid):
    """All events up to the one with that number."""
    found = [ws.event("event")]
    while found[-1].get("nid") != nid:
        found.append(ws.event("event"))
    return found


def nothing_before_now(publish, user, *sockets):
    """What is published now is the next that they hear; it is acknowledged."""
    nid = publish(f"user:{user}", "now")
    for ws in sockets:
        found = ws.event("event")
        assert found["nid"] == nid and found["data"] == "now", found
    assert sockets[0].call("ack", ids=[nid])["ev"] == "ok"


# ---- rooms ---------------------------------------------------------------------------------------

def test_to_a_room(server, issuer, publish, user):
    with connect(server, issuer, user, ["news"]) as one, connect(server, issuer, user, ["news", "other"]) as both, \
            connect(server, issuer, user, ["other"]) as other:
        publish("news", {"a": [1, "ä\"\n"], "b": None}, "saved")
        found = one.event("event")
        assert set(found) == {"ev", "room", "name", "data", "seq"}
        assert (found["room"], found["name"], found["data"]) == ("news", "saved", {"a": [1, 'ä"\n'], "b": None})
        assert both.event("event")["data"] == found["data"]
        publish("other", 2)
        assert other.event("event")["data"] == 2
        second = both.event("event")
        assert second["data"] == 2 and second["seq"] > found["seq"]


def test_to_a_role(server, issuer, publish, user):
    with connect(server, issuer, user, ["role:READER"]) as ws:
        publish("role:Reader", 1)
        assert ws.event("event")["room"] == "role:reader"


def test_what_is_rolled_back_is_not_said(cluster, db, server, issuer, publish, user):
    with connect(server, issuer, user, ["news"]) as ws, contextlib.closing(psycopg2.connect(cluster.dsn(db))) as connection:
        with connection.cursor() as cursor:
            cursor.execute(PUBLISH, ("news", "n", '"rolled back"'))
            cursor.execute(PUBLISH, (f"user:{user}", "n", '"rolled back"'))
            cursor.execute(PUBLISH, ("news", "n", json.dumps("x" * 9000)))
        connection.rollback()
        publish("news", "committed")
        assert ws.event("event")["data"] == "committed"
        with connection.cursor() as cursor:
            cursor.execute(PUBLISH, ("news", "n", '"kept"'))
            cursor.execute("SAVEPOINT s")
            cursor.execute(PUBLISH, ("news", "n", '"rolled back"'))
            cursor.execute("ROLLBACK TO s")
        connection.commit()
        publish("news", "last")
        assert [ws.event("event")["data"] for _ in range(2)] == ["kept", "last"]


@pytest.mark.threads
def test_a_thousand_at_once(cluster, db, server, issuer, user):
    """Each exactly once, in order per publisher; now and then one that does not fit into a notification."""
    publishers, each = 8, 125

    def run(number):
        with contextlib.closing(cluster.connect(db)) as connection, connection.cursor() as cursor:
            for n in range(each):
                data = {"from": number, "n": n, "fill": "x" * (9000 if n % 25 == 7 else 10)}
                cursor.execute(PUBLISH, ("news", "n", json.dumps(data)))
    threads = [threading.Thread(target=run, args=(number,)) for number in range(publishers)]
    with connect(server, issuer, user, ["news"]) as ws:
        for thread in threads:
            thread.start()
        found = [ws.event("event", 30)["data"] for _ in range(publishers * each)]
        for thread in threads:
            thread.join()
        for number in range(publishers):
            assert [e["n"] for e in found if e["from"] == number] == list(range(each))
        assert report(server, issuer, "published")["lost"] == 0


@pytest.mark.parametrize("room", ["news", "user"])
def test_a_large_one_between_small_ones(server, issuer, publish, user, room):
    room = room if room == "news" else f"user:{user}"
    with connect(server, issuer, user, ["news"]) as ws:
        sizes = [10, 100_000, 10, 10, 9000, 10, 500_000, 10]     # all of it less than the backlog
        for n, size in enumerate(sizes):
            publish(room, [n, "x" * size])
        for n, size in enumerate(sizes):
            assert ws.event("event", 20)["data"] == [n, "x" * size]


def test_in_the_order_of_one_transaction(server, issuer, sql, user):
    with connect(server, issuer, user, ["news"]) as ws:
        sql("SELECT provost.publish('news', 'n', to_jsonb(repeat('x', CASE i % 7 WHEN 3 THEN 9000 ELSE 3 END) || i))"
            " FROM generate_series(1, 300) i")
        assert [int(ws.event("event")["data"].strip("x")) for _ in range(300)] == list(range(1, 301))


# ---- what is not genuine -------------------------------------------------------------------------

def test_what_is_forged_is_dropped_and_counted(cluster, db, server, issuer, sql, publish, user):
    def tell(payload):
        with contextlib.closing(psycopg2.connect(cluster.app_dsn(db))) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify('provost', %s)", (payload,))
            connection.commit()
    with connect(server, issuer, user, ["news"]) as ws:
        publish("news", "genuine")
        ws.event("event")
        before = report(server, issuer, "published")["forged"]
        text = '{"id":1,"room":"news","name":"n","data":"forged"}'
        (digest,), = sql("SELECT provost.hmac_sha256(ipad, opad, 'another text') FROM provost.event_key")
        tell(f"event {digest} {text}")
        tell(f"event {'0' * 64} {text}")
        tell(f"event {'0' * 64} {text.replace('news', 'user:' + user)}")
        (digest,), = sql("SELECT provost.hmac_sha256(ipad, opad, convert_to(%s, 'UTF8')) FROM provost.event_key", text)
        tell(f"event {digest} {text.replace('forged', 'forget')}")
        publish("news", "genuine")
        assert ws.event("event")["data"] == "genuine"
        assert report(server, issuer, "published")["forged"] == before + 4


def test_another_key_is_read_and_what_was_lost_is_looked_at_anew(server, issuer, sql, publish, user):
    with connect(server, issuer, user, ["news"]) as ws:
        publish("news", 1)
        assert ws.event("event")["data"] == 1
        sql("SELECT provost.renew_event_key()")
        publish("news", 2)                      # cannot be told from a forged one
        nid = publish(f"user:{user}", 3)
        assert ws.event("resync", 20)["rooms"] == ["news"]
        assert ws.event("event")["nid"] == nid, "what is kept is not lost"
        publish("news", 4)
        assert ws.event("event")["data"] == 4


def test_a_server_without_the_rights_says_so(cluster, empty_database, issuer):
    server = Server(cluster, empty_database, ENDPOINTS, {"auth": issuer.config()}, token=True)
    c.prepare(cluster, empty_database, server)
    cluster.sql(empty_database, "REVOKE ALL ON provost.event_key FROM provost_app")
    with server, connect(server, issuer, "ada", ["news"], ["admin"]):
        cluster.sql(empty_database, "SELECT provost.publish('news', 'n', '1')")
        server.wait_log("what is published .* waits.*provost grants print", 10)
        assert server.get("/readyz").status == 200


# ---- users ---------------------------------------------------------------------------------------

def test_to_every_connection_of_a_user_once_until_one_acknowledges(cluster, db, server, issuer, sql, publish, user):
    key = c.bearer(c.insert_key(cluster, db, user, ["reader"]))
    wait_until(lambda: server.get("/api/one", key).status == 403)
    with connect(server, issuer, user) as one, connect(server, issuer, user, [f"user:{user}"]) as joined, \
            WebSocket(server.port, "/ws", key, hello=True) as by_key, connect(server, issuer, user + "x") as stranger:
        nid = publish(f"user:{user}", {"n": 1}, "note")
        for ws in (one, joined, by_key):
            found = ws.event("event")
            assert set(found) == {"ev", "room", "name", "data", "seq", "nid"}
            assert (found["room"], found["name"], found["data"], found["nid"]) == (f"user:{user}", "note", {"n": 1}, nid)
        assert stranger.call("ack", ids=[nid])["ev"] == "ok"
        assert outbox(sql, user) == [nid], "it is not the stranger's"
        assert joined.call("ack", ids=[nid])["ev"] == "ok"
        assert outbox(sql, user) == [], "the ok says that it is committed"
        assert one.call("ack", ids=[nid, 2**53])["ev"] == "ok", "again, and what there is not, does no harm"
        nothing_before_now(publish, user, one, joined, by_key)
        nothing_before_now(publish, user + "x", stranger)
    with connect(server, issuer, user) as ws:
        nothing_before_now(publish, user, ws)


def test_what_is_not_acknowledged_comes_again(server, issuer, publish, user):
    first = [publish(f"user:{user}", n) for n in range(3)]      # nobody is there
    for _ in range(2):
        with connect(server, issuer, user) as ws:
            assert [(e["nid"], e["data"]) for e in until(ws, first[-1])] == list(zip(first, range(3)))
    with connect(server, issuer, user) as one, connect(server, issuer, user) as two:
        assert len(until(one, first[-1])) == len(until(two, first[-1])) == 3
        assert one.call("ack", ids=[first[0], first[2]])["ev"] == "ok"
    with connect(server, issuer, user) as ws:
        assert [e["nid"] for e in until(ws, first[1])] == [first[1]]
        assert ws.call("ack", ids=[first[1]])["ev"] == "ok"
        nothing_before_now(publish, user, ws)


def test_a_large_one_is_kept_whole(server, issuer, publish, user):
    nids = [publish(f"user:{user}", text) for text in ("x" * 100_000, "ä" * 9000, "small")]
    with connect(server, issuer, user) as ws:
        assert [e["data"] for e in until(ws, nids[-1])] == ["x" * 100_000, "ä" * 9000, "small"]


def test_pages(server, issuer, sql, user):
    """More than is sent at once: the rest comes as it is acknowledged, each once, in order."""
    sql("SELECT provost.publish('user:' || %s, 'n', to_jsonb(i)) FROM generate_series(1, 2500) i", user)
    with connect(server, issuer, user) as ws:
        seen = []
        while len(seen) < 2500:
            page = [ws.event("event", 20) for _ in range(250)]
            seen += page
            ws.op("ack", ids=[e["nid"] for e in page])
        assert [e["data"] for e in seen] == list(range(1, 2501))
        assert ws.call("ping")["ev"] == "ok"
        wait_until(lambda: outbox(sql, user) == [])


@pytest.mark.parametrize("others", [1, 1200])
def test_a_lower_number_that_commits_later(cluster, db, server, issuer, sql, user, others):
    """Whether or not there are more of them than a page holds: then those above the page wait, and it does not."""
    with contextlib.closing(psycopg2.connect(cluster.dsn(db))) as connection, connection.cursor() as cursor:
        cursor.execute(PUBLISH, (f"user:{user}", "n", '"late"'))
        late, = cursor.fetchone()
        sql("SELECT provost.publish('user:' || %s, 'n', to_jsonb(i)) FROM generate_series(1, %s) i", user, others)
        with connect(server, issuer, user) as ws:
            page = [ws.event("event") for _ in range(min(others, 1000))]
            assert [e["data"] for e in page] == list(range(1, len(page) + 1)) and page[0]["nid"] > late
            connection.commit()
            found = ws.event("event")
            assert (found["nid"], found["data"]) == (late, "late")
            if others > 1000:
                assert ws.call("ack", ids=[e["nid"] for e in page[:256]])["ev"] == "ok"
                assert [ws.event("event")["data"] for _ in range(others - 1000)] == list(range(1001, others + 1))
            sql("SELECT provost.publish('user:' || %s, 'n', to_jsonb(%s))", user, others + 1)
            assert ws.event("event")["data"] == others + 1


@pytest.mark.threads
def test_while_connections_come_and_go(cluster, db, server, issuer, sql, user):
    """Each connection has each event exactly once from what was unacknowledged at its hello on."""
    total = 400

    def run():
        with contextlib.closing(cluster.connect(db)) as connection, connection.cursor() as cursor:
            for n in range(total):
                cursor.execute(PUBLISH, (f"user:{user}", "n", json.dumps([n, "x" * (9000 if n % 50 == 20 else 1)])))
    thread = threading.Thread(target=run)
    thread.start()
    connections = 0
    while thread.is_alive() or connections < 3:
        with connect(server, issuer, user) as ws:
            connections += 1
            for n in range(min(total, 20 * connections)):
                assert ws.event("event", 20)["data"][0] == n, "from the first, for none is acknowledged"
    thread.join()
    with connect(server, issuer, user) as ws:
        found = [ws.event("event", 20) for _ in range(total)]
        assert [e["data"][0] for e in found] == list(range(total))
        for at in range(0, total, 200):
            assert ws.call("ack", ids=[e["nid"] for e in found[at:at + 200]])["ev"] == "ok"
    assert outbox(sql, user) == []


# ---- acknowledging -------------------------------------------------------------------------------

@pytest.mark.parametrize("members", [
    {}, {"ids": []}, {"ids": 1}, {"ids": "1"}, {"ids": ["1"]}, {"ids": [1.5]}, {"ids": [0]}, {"ids": [-1]}, {"ids": [2**53 + 1]}, {"ids": [None]},
    {"ids": list(range(1, 258))}, {"ids": {"1": 1}}, {"ids": [[1]]},
], ids=lambda members: json.dumps(members)[:30])
def test_what_is_no_acknowledgement(server, issuer, user, members):
    with connect(server, issuer, user) as ws:
        answer = ws.call("ack", **members)
        assert answer["ev"] == "error" and answer["code"] == 4400 and "ids must be" in answer["message"]
        assert ws.call("ack", ids=list(range(2**53 - 255, 2**53 + 1)))["ev"] == "ok"


@pytest.mark.threads
def test_an_acknowledgement_that_cannot_be_committed(cluster, db, issuer, sql, publish, user):
    with CuttingProxy(cluster.dsn(db)) as proxy:
        server = new_server(cluster, db, issuer, database={"listen_url": proxy.dsn})
        with server, connect(server, issuer, user) as ws:
            nid = publish(f"user:{user}", 1)
            assert ws.event("event")["nid"] == nid
            proxy.rule = before_commit
            answer = ws.call("ack", ids=[nid])
            assert answer["ev"] == "error" and answer["code"] == 4503
            assert proxy.cuts and outbox(sql, user) == [nid]
            ws.op("ack", ids=[nid])
            assert ws.event("error")["code"] == 4503, "also without an id"
            proxy.rule = None
            assert ws.call("ack", ids=[nid])["ev"] == "ok"
            assert outbox(sql, user) == []


# ---- losses --------------------------------------------------------------------------------------

def cut_listen(to_server, kind, payload):
    return "before" if to_server and kind == b"P" and b"LISTEN provost" in payload else None


@pytest.mark.threads
def test_while_the_stream_is_away(cluster, db, issuer, publish, user):
    with CuttingProxy(cluster.dsn(db)) as proxy:
        server = new_server(cluster, db, issuer, database={"listen_url": proxy.dsn})
        with server, connect(server, issuer, user, ["news"]) as ws, connect(server, issuer, user) as roomless:
            server.wait_log("the stream of changes is live")
            nothing_before_now(publish, user, ws, roomless)
            proxy.rule = cut_listen
            proxy.end_all()
            server.wait_log("the stream of changes was lost", 10)
            publish("news", "lost")
            nid = publish(f"user:{user}", "kept")
            large = publish(f"user:{user}", "x" * 20000)
            proxy.rule = None
            assert ws.event("resync", 20)["rooms"] == ["news"]
            for socket in (ws, roomless):
                assert [e["nid"] for e in until(socket, large)] == [nid, large]
            assert ws.call("ack", ids=[nid, large])["ev"] == "ok"
            nothing_before_now(publish, user, ws, roomless)
            publish("news", "heard")
            assert ws.event("event")["data"] == "heard"


def test_a_restart(cluster, db, issuer, publish, user):
    server = new_server(cluster, db, issuer)
    with server:
        with connect(server, issuer, user) as ws:
            first = publish(f"user:{user}", 1)
            second = publish(f"user:{user}", 2)
            until(ws, second)
            assert ws.call("ack", ids=[first])["ev"] == "ok"
        server.stop()
        third = publish(f"user:{user}", 3)
        server.start()
        with connect(server, issuer, user) as ws:
            assert [e["nid"] for e in until(ws, third)] == [second, third]


def test_what_a_reference_leads_to_is_gone(cluster, db, server, issuer, publish, user):
    with connect(server, issuer, user, ["news"]) as ws, contextlib.closing(psycopg2.connect(cluster.dsn(db))) as connection:
        lost = report(server, issuer, "published")["lost"]
        with connection.cursor() as cursor:
            cursor.execute(PUBLISH, ("news", "n", json.dumps("x" * 9000)))
            cursor.execute("DELETE FROM provost.outbox WHERE id = %s", cursor.fetchone())
        connection.commit()
        assert ws.event("resync")["rooms"] == ["news"]
        assert report(server, issuer, "published")["lost"] == lost + 1
        publish("news", 1)
        assert ws.event("event")["data"] == 1


def test_who_falls_behind_is_told_again(cluster, db, issuer, sql, publish, user):
    with new_server(cluster, db, issuer, websocket={"backlog": "64KiB", "stall_timeout": "1m"}) as server, \
            connect(server, issuer, user, ["news"], receive_buffer=4096) as slow, connect(server, issuer, user) as quick:
        mine = []
        while not report(server, issuer)["messages"]["dropped"] > 100:
            mine.append(publish(f"user:{user}", "x" * 500))
            sql("SELECT provost.publish('news', 'n', to_jsonb(repeat('y', 500) || i)) FROM generate_series(1, 50) i")
            assert len(mine) < 2000
        mine.append(publish(f"user:{user}", "last"))
        assert [e["nid"] for e in until(quick, mine[-1])] == mine, "who reads misses nothing, and hears nothing twice"
        events = []
        while not events or events[-1].get("nid") != mine[-1]:
            events.append(slow.any_event())
        # One each time that it fell behind: what the kernel has taken by then makes room for the next.
        resyncs = [i for i, e in enumerate(events) if e["ev"] == "resync"]
        assert 1 <= len(resyncs) == report(server, issuer)["resyncs"]
        behind = [e["nid"] for e in events[resyncs[-1]:] if "nid" in e]
        assert behind == sorted(behind) and set(behind) == set(mine), "who has fallen behind is told all of it, in order"


def test_one_larger_than_the_backlog(cluster, db, issuer, publish, user):
    with new_server(cluster, db, issuer, websocket={"backlog": "4KiB"}) as server, connect(server, issuer, user, ["news"]) as ws:
        publish("news", "x" * 50_000)
        assert len(ws.event("event")["data"]) == 50_000
        nids = [publish(f"user:{user}", "y" * 50_000) for _ in range(3)]
        assert sorted({e["nid"] for e in until(ws, nids[-1])}) == nids


# ---- purging -------------------------------------------------------------------------------------

def test_what_is_old_is_purged(cluster, empty_database, issuer):
    def ids():
        return [row for (row,) in cluster.sql(empty_database, "SELECT id FROM provost.outbox ORDER BY id")]
    server = new_server(cluster, empty_database, issuer, websocket={"outbox_age": "1h"})
    for room in ("user:ada", "user:ada", "news", "news"):
        cluster.sql(empty_database, PUBLISH, room, "n", json.dumps("x" * 9000))
    cluster.sql(empty_database, "UPDATE provost.outbox SET created_at = now() - interval '59 minutes' WHERE id = 1;"
                                " UPDATE provost.outbox SET created_at = now() - interval '61 minutes' WHERE id = 2;"
                                " UPDATE provost.outbox SET created_at = now() - interval '9 minutes' WHERE id = 3;"
                                " UPDATE provost.outbox SET created_at = now() - interval '11 minutes' WHERE id = 4")
    with server:
        assert ids() == [1, 2, 3, 4]
        server.write_config({"websocket": {"outbox_age": "4s"}})      # so that it is looked every second
        cluster.sql(empty_database, "UPDATE provost.outbox SET created_at = now() + interval '1 hour' WHERE id = 1")
        server.reload()
        wait_until(lambda: ids() == [1, 3], 20)
        wait_until(lambda: report(server, issuer, "outbox")["purged"] == 2)
        wait_until(lambda: report(server, issuer, "outbox")["kept"] == 1)
        cluster.sql(empty_database, "UPDATE provost.outbox SET created_at = now() - interval '5 s' WHERE id = 1")
        wait_until(lambda: ids() == [3], 20)


# ---- the last: it takes the database away from the server of the others as well -------------------

def outbox_is_empty(cluster, db, user):
    return cluster.sql(db, "SELECT count(*) FROM provost.outbox WHERE room = 'user:' || %s", user) == [(0,)]


def test_a_restart_of_the_database(cluster, db, issuer, user):
    """The connections are made anew, whatever was done with them."""
    def say(n):
        return cluster.sql(db, PUBLISH, f"user:{user}", "n", json.dumps(n))[0][0]
    with new_server(cluster, db, issuer, allow_errors="the database cannot be reached") as server, connect(server, issuer, user) as ws:
        first = say(1)
        assert ws.event("event")["nid"] == first
        cluster.restart()
        cluster.wait_ready()
        second = say(2)
        # Once more is allowed: the stream had a gap.
        while ws.event("event", 20)["nid"] != second:
            pass
        wait_until(lambda: ws.call("ack", ids=[first, second])["ev"] == "ok", 20)
        assert outbox_is_empty(cluster, db, user)

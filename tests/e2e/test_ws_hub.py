"""The hub over real sockets: rooms, changes, resync, stalls, floods, resume, the end."""
import contextlib
import json
import re
import signal
import socket
import struct
import threading
import time

import pytest

import callers as c
from harness import SCRATCH, Closed, Server, wait_until
from websocket import BINARY, CLOSE, FIN, PING, PONG, TEXT, Ended, Refused, WebSocket, frame

ENDPOINTS = {"one.sql": "-- @route GET /api/one\nSELECT json_build_object('n', 1)"}


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("ws_hub", empty_template)
    yield "ws_hub"
    cluster.drop("ws_hub")


@pytest.fixture(scope="module")
def server(cluster, db):
    with Server(cluster, db, ENDPOINTS, allow_errors=False) as server:
        yield server


@pytest.fixture
def tell(cluster, db):
    """Says on the channel what a trigger would say."""
    connection = cluster.connect(db)

    def say(table, *keys, op="UPDATE", known=True, times=1):
        payload = {"table": table, "op": op}
        if known:
            payload |= {"key": "id", "values": {"id": list(keys)}}
        with connection.cursor() as cursor:
            for _ in range(times):
                cursor.execute("SELECT pg_notify('provost', %s)", (json.dumps(payload),))
    yield say
    connection.close()


def report(server):
    answer = server.get("/api/admin/websocket")
    assert answer.status == 200, answer
    return answer.json()


def closes(server, code):
    return report(server)["closes"].get(str(code), 0)


# ---- messages ------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [
    "", "x", "{", "[]", "1", "null", '"join"', "{}", '{"op":1}', '{"op":"ping"} x', '{"op":"ping"}{"op":"ping"}', "{'op':'ping'}",
    '{"op":"ping",}', '{"op":"ping","id":NaN}', '{"op":"ping","id":null}', '{"op":"ping","id":[1]}', '{"op":"ping","id":1.5}',
    '{"op":"ping","id":"' + "x" * 100 + '"}', '{"op":"ping","id":18446744073709551617}', '{"op":"ping","id":-9223372036854775808}', '{"op":"ping","x":"\t"}',
    '{"op":"ping","x":"\\ud800"}', "[" * 10000, '{"op":"ping","a":' * 500,
], ids=lambda text: text[:25])
def test_what_is_not_a_message(server, text):
    with WebSocket(server.port, hello=True) as ws:
        ws.text(text)
        assert ws.closed()[0] == 4400


@pytest.mark.parametrize("members, code", [
    ({"op": "nothing"}, 4400), ({"op": "publish", "room": "news"}, 4400), ({"op": "PING"}, 4400), ({"op": ""}, 4400),
    *(({"op": "join", "room": room}, 4400) for room in (
        "", ":", "table:", "table::", "table::x", "table:x:", "user:", "role:", "nobody:x", "a b", "ä", "x" * 65,
        "table:" + "x" * 600, "table:a\nb", None, 1, ["table:x"])),
    ({"op": "join"}, 4400), ({"op": "leave", "room": "table:"}, 4400),
    ({"op": "join", "room": "user:somebody else"}, 4403), ({"op": "join", "room": "role:student"}, 4403),
    ({"op": "resume"}, 4400), ({"op": "resume", "session": "x", "seq": "1"}, 4400), ({"op": "resume", "session": "x", "seq": -1}, 4400),
], ids=lambda value: json.dumps(value)[:50])
def test_errors_leave_the_socket_open(server, members, code):
    with WebSocket(server.port, hello=True) as ws:
        ws.text(json.dumps({**members, "id": "a"}))
        found = ws.event("error")
        assert found["id"] == "a" and found["code"] == code and found["message"], found
        ws.text(json.dumps(members))    # without an id as well
        assert ws.event("error")["code"] == code
        assert ws.call("ping")["ev"] == "ok"


def test_ids(server):
    with WebSocket(server.port, hello=True) as ws:
        for i in (0, 1, -1, 2**53, "", "a", 'quote"d', "ä/ö", "x" * 60):
            ws.op("ping", id=i)
            assert ws.event("ok")["id"] == i
        ws.op("ping")       # asks for no answer
        ws.op("ping", id="last")
        assert ws.event("ok")["id"] == "last"
    with WebSocket(server.port, hello=True) as ws:
        ws.frame(FIN | BINARY, b'{"op":"ping"}')
        assert ws.closed()[0] == 1003
    with WebSocket(server.port, hello=True) as ws:
        ws.text(json.dumps({"op": "ping", "x": "x" * 70000}))
        assert ws.closed()[0] == 1009


# ---- rooms and changes ---------------------------------------------------------------------------

def test_changes(server, tell):
    with WebSocket(server.port, hello=True) as table, WebSocket(server.port, hello=True) as row, \
            WebSocket(server.port, hello=True) as both, WebSocket(server.port, hello=True) as other:
        table.join("table:course")
        row.join("table:course:a")
        for room in ("table:course", "table:course:a", "table:course:b"):
            both.join(room)
        other.join("table:payments")
        other.join("table:cours")

        tell("course", "a", "b", op="INSERT")
        found = table.event("change")
        assert {k: v for k, v in found.items() if k != "seq"} == \
            {"ev": "change", "room": "table:course", "table": "course", "op": "INSERT", "keys": ["a", "b"]}
        assert row.event("change")["room"] == "table:course:a"
        events = [both.event("change") for _ in range(3)]
        assert [e["room"] for e in events] == ["table:course", "table:course:a", "table:course:b"]
        assert [e["seq"] for e in events] == sorted({e["seq"] for e in events})

        tell("course", "z")
        assert table.event("change")["keys"] == ["z"] and both.event("change")["keys"] == ["z"]
        tell("course", op="TRUNCATE", known=False)      # any row may have changed
        assert table.event("change")["keys"] is None
        assert row.event("change")["op"] == "TRUNCATE"
        assert {both.event("change")["room"] for _ in range(3)} == {"table:course", "table:course:a", "table:course:b"}

        assert table.call("leave", room="table:course")["ev"] == "ok"
        assert table.call("leave", room="table:course")["ev"] == "ok"
        tell("course", "a")
        assert row.event("change")["keys"] == ["a"]
        assert table.silent() and other.silent()


def test_joining_twice_is_joining(server, tell):
    with WebSocket(server.port, hello=True) as ws:
        ws.join("table:t")
        ws.join("table:t")
        tell("t", "1")
        ws.event("change")
        assert ws.silent()


def test_too_many_rooms(server):
    with WebSocket(server.port, hello=True) as ws:
        for n in range(256):
            ws.join(f"table:t{n}")
        found = ws.call("join", room="table:one-more")
        assert found["ev"] == "error" and found["code"] == 4429
        ws.call("leave", room="table:t0")
        ws.join("table:one-more")
    wait_until(lambda: report(server)["connectedClients"] == 0)


def test_real_triggers(cluster, fresh_database):
    """COMMIT of a statement, to a frame."""
    with Server(cluster, fresh_database, ENDPOINTS) as server:
        c.command(server, "triggers", "install", "course", url=cluster.dsn(fresh_database))
        with WebSocket(server.port, hello=True) as ws:
            ws.join("table:course")
            (key,), = cluster.sql(fresh_database, "SELECT min(id) FROM course")
            cluster.sql(fresh_database, "UPDATE course SET priority = priority + 1 WHERE id = %s", key)
            found = ws.event("change")
            assert found["op"] == "UPDATE" and found["keys"] == [key]
            cluster.sql(fresh_database, "BEGIN; UPDATE course SET priority = 7; ROLLBACK")
            assert ws.silent()


def test_who_may_join(cluster, db):
    issuer = c.Issuer(SCRATCH / "ws-hub-issuer")
    config = {"auth": issuer.config(), "rooms": {"news": "Editor, student", "staff.only": "admin"}, "websocket": {"max_per_user": 0}}
    server = Server(cluster, db, ENDPOINTS, config, token=True)
    c.prepare(cluster, db, server)
    rooms = ["table:course", "table:course:a", "user:ada", "user:bob", "role:admin", "role:ADMIN", "role:editor", "news", "staff.only",
             "elsewhere"]
    allowed = {("ada", "admin"): {"table:course", "table:course:a", "user:ada", "role:admin", "role:ADMIN", "staff.only", "elsewhere"},
               ("bob", "editor"): {"user:bob", "role:editor", "news"}, ("eve", "Student"): {"news"}, ("nil", None): set()}
    with server:
        for (sub, role), may in allowed.items():
            with WebSocket(server.port, "/ws", c.bearer(issuer.jwt(sub, [role] if role else [])), hello=True) as ws:
                found = {room: ws.call("join", room=room) for room in rooms}
                assert {room for room in rooms if found[room]["ev"] == "ok"} == may
                assert all(f["code"] == 4403 for f in found.values() if f["ev"] == "error")
        # What a reload takes away is taken away at once.
        with WebSocket(server.port, "/ws", c.bearer(issuer.jwt("bob", ["editor"])), hello=True) as ws:
            ws.join("news")
            server.write_config({"rooms": {"news": "student"}})
            server.reload()
            found = ws.event("error")
            assert found["room"] == "news" and found["code"] == 4403
            assert ws.call("join", room="news")["ev"] == "error"


def test_configuration_of_rooms(cluster, db):
    server = Server(cluster, db, ENDPOINTS, {"rooms": {"a b": "admin", "ä": "admin", "empty": "", "x" * 65: "admin"}})
    done = c.command(server, "check", check=False)
    assert done.returncode == 1 and done.stderr.count("[rooms]") == 4, done


# ---- falling behind ------------------------------------------------------------------------------

def test_who_falls_behind_gets_one_resync(cluster, db, tell):
    with Server(cluster, db, ENDPOINTS, {"websocket": {"backlog": "64KiB", "stall_timeout": "1m"}}) as server:
        with WebSocket(server.port, hello=True, receive_buffer=4096) as slow, WebSocket(server.port, hello=True) as quick:
            slow.join("table:t")
            quick.join("table:t")
            sent = 0
            while not report(server)["messages"]["dropped"] > 100:
                tell("t", "k" * 200, times=50)
                sent += 50
                assert sent < 50000
                # Whoever reads misses nothing.
                for _ in range(50):
                    quick.event("change")
            # What was on its way comes first, whole; then one resync; then what is new. It is one each time that it fell
            # behind: again, if the kernel took the resync and there was room for more.
            times = report(server)["resyncs"]
            assert times >= 1
            for _ in range(times):
                events = [slow.any_event()]
                while events[-1]["ev"] == "change":
                    events.append(slow.any_event())
                assert events[-1]["ev"] == "resync" and events[-1]["rooms"] == ["table:t"]
            assert slow.silent()
            tell("t", "new")
            assert slow.event("change")["keys"] == ["new"]
            assert report(server)["resyncs"] == times


def test_who_takes_nothing_is_closed(cluster, db, tell):
    with Server(cluster, db, ENDPOINTS, {"websocket": {"backlog": "1MiB", "stall_timeout": "500ms"}}) as server:
        with WebSocket(server.port, hello=True, receive_buffer=4096) as slow:
            slow.join("table:t")
            sent = 0
            while not closes(server, 1013):
                tell("t", "k" * 500, times=20)
                sent += 20
                assert sent < 100000
            assert report(server)["stalls"] == 1
            # Whoever wakes up soon enough is told why.
            with contextlib.suppress(Ended, ConnectionError):
                while True:
                    opcode, payload = slow.receive()
                    if opcode == CLOSE:
                        assert struct.unpack("!H", payload[:2])[0] == 1013
                        break
        wait_until(lambda: report(server)["connectedClients"] == 0)


def test_a_trickle_is_not_a_stall(cluster, db, tell):
    with Server(cluster, db, ENDPOINTS, {"websocket": {"backlog": "16MiB", "stall_timeout": "5s"}}) as server:
        with WebSocket(server.port, hello=True, receive_buffer=4096) as slow:
            slow.join("table:t")
            tell("t", "k" * 500, times=3000)
            # For longer than the timeout; anew if it was the machine that took nothing for long.
            since = last = time.monotonic()
            while last < since + 8:
                slow.socket.recv(20000)
                time.sleep(0.02)
                now = time.monotonic()
                since, last = (now if now - last > 2 else since), now
            assert report(server)["connectedClients"] == 1 and not report(server)["stalls"]


@pytest.mark.parametrize("what", ["pings", "replies", "nonsense ops"])
def test_floods(cluster, db, what):
    data = {"pings": frame(FIN | PING, b"x" * 100), "replies": frame(FIN | TEXT, b'{"op":"ping","id":1}'),
            "nonsense ops": frame(FIN | TEXT, b'{"op":"x"}')}[what] * 100
    with Server(cluster, db, ENDPOINTS) as server:
        with WebSocket(server.port, hello=True) as ws, WebSocket(server.port, hello=True) as other:
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    ws.send(data)
            wait_until(lambda: closes(server, 4429) == 1)
            with contextlib.suppress(Ended, ConnectionError):
                while (found := ws.receive())[0] != CLOSE:
                    pass
                assert struct.unpack("!H", found[1][:2])[0] == 4429
            assert other.call("ping")["ev"] == "ok"
        wait_until(lambda: report(server)["connectedClients"] == 0)


# ---- peers that are gone -------------------------------------------------------------------------

def test_half_open_peers(cluster, db):
    """Who does not answer pings is dropped; who does is kept."""
    with Server(cluster, db, ENDPOINTS, {"websocket": {"ping_interval": "3s"}}) as server:
        with WebSocket(server.port, hello=True) as dead, WebSocket(server.port, hello=True) as alive:
            def dropped():
                opcode, payload = alive.receive()
                assert opcode == PING
                alive.frame(FIN | PONG, payload)
                return closes(server, 1006)
            wait_until(dropped, 15)
            assert report(server)["connectedClients"] == 1
            assert dead.receive()[0] == PING


def test_abrupt_ends(server):
    for n in range(30):
        ws = WebSocket(server.port, hello=True)
        ws.join("table:t")
        if n % 3 == 0:      # RST
            ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif n % 3 == 1:
            ws.socket.shutdown(socket.SHUT_WR)
        ws.close()
    wait_until(lambda: report(server)["connectedClients"] == 0)


# ---- gaps, resume --------------------------------------------------------------------------------

def test_resync_after_a_gap(cluster, db):
    with Server(cluster, db, ENDPOINTS, allow_errors=True) as server:
        with WebSocket(server.port, hello=True) as ws, WebSocket(server.port, hello=True) as roomless:
            ws.join("table:a")
            ws.join("news")
            before = report(server)["resyncs"]
            cluster.kill_backends(db)
            found = ws.event("resync", 15)
            assert sorted(found["rooms"]) == ["news", "table:a"]
            assert report(server)["resyncs"] == before + 1
            assert ws.silent() and roomless.silent()


def test_resume(server, tell):
    before = report(server)["resumable"]    # of other tests' clients
    first = WebSocket(server.port, hello=True)
    first.join("table:t")
    first.join("news")
    tell("t", "1")
    seen = first.event("change")["seq"]
    tell("t", "2")
    tell("t", "3")
    first.close()       # it may have had them, and may not
    wait_until(lambda: report(server)["resumable"] == before + 1)
    tell("t", "4")
    with WebSocket(server.port, hello=True) as ws:
        assert ws.hello["session"] != first.hello["session"]
        found = ws.call("resume", session=first.hello["session"], seq=seen)
        assert found["ev"] == "ok" and found["resumed"] and sorted(found["rooms"]) == ["news", "table:t"]
        assert [ws.event("change")["keys"] for _ in range(3)] == [["2"], ["3"], ["4"]]
        tell("t", "5")
        assert ws.event("change")["keys"] == ["5"]
        # Once only.
        assert ws.call("resume", session=first.hello["session"], seq=seen)["resumed"] is False
        assert ws.event("resync")["rooms"]
        assert report(server)["resumable"] == before
    with WebSocket(server.port, hello=True) as ws:
        for session, seq in (("0" * 32, 0), ("", 0), ("x" * 500, 0), (ws.hello["session"], 0)):
            assert ws.call("resume", session=session, seq=seq)["resumed"] is False
            assert ws.event("resync")["rooms"] == []


def test_resume_takes_over_from_a_connection_that_is_not_known_to_be_dead(server, tell):
    with WebSocket(server.port, hello=True) as old, WebSocket(server.port, hello=True) as new:
        old.join("table:t")
        assert new.call("resume", session=old.hello["session"], seq=old.hello["seq"])["resumed"] is True
        assert old.closed()[0] == 4001
        tell("t", "1")
        assert new.event("change")["keys"] == ["1"]


def test_resume_after_the_rooms_were_joined_again(server, tell):
    """What was missed before the join comes; what was told since it does not come twice."""
    before = report(server)
    with WebSocket(server.port, hello=True) as first:
        first.join("table:t")
    wait_until(lambda: report(server)["resumable"] == before["resumable"] + 1)
    tell("t", "missed")
    wait_until(lambda: report(server)["events"] == before["events"] + 1)
    with WebSocket(server.port, hello=True) as ws:
        ws.join("table:t")
        tell("t", "told")
        assert ws.event("change")["keys"] == ["told"]
        assert ws.call("resume", session=first.hello["session"], seq=first.hello["seq"])["resumed"] is True
        assert ws.event("change")["keys"] == ["missed"]
        assert ws.silent()


def test_resume_after_too_long(cluster, db, tell):
    with Server(cluster, db, ENDPOINTS, {"websocket": {"resume_window": "1s"}}) as server:
        with WebSocket(server.port, hello=True) as ws:
            ws.join("table:t")
            session, seq = ws.hello["session"], ws.hello["seq"]
        # It may be over before anybody has looked: what it is before that, test_report looks at.
        wait_until(lambda: report(server)["connectedClients"] == 0)
        wait_until(lambda: report(server)["resumable"] == 0, 5)
        wait_until(lambda: report(server)["rooms"] == 0)
        with WebSocket(server.port, hello=True) as ws:
            assert ws.call("resume", session=session, seq=seq)["resumed"] is False
            ws.event("resync")


def test_what_is_no_longer_kept_is_a_resync(server, tell):
    """More than the history holds: the rooms come back, the events do not."""
    with WebSocket(server.port, hello=True) as keeps:
        keeps.join("table:t")
        ws = WebSocket(server.port, hello=True)
        ws.join("table:t")
        ws.close()
        tell("t", "x" * 100, times=4200)
        for _ in range(4200):
            keeps.event("change")
    with WebSocket(server.port, hello=True) as ws2:
        found = ws2.call("resume", session=ws.hello["session"], seq=ws.hello["seq"])
        assert found["resumed"] is True and ws2.event("resync")["rooms"] == ["table:t"]
        tell("t", "new")
        assert ws2.event("change")["keys"] == ["new"]


def test_sessions_are_of_one_subject(cluster, db):
    issuer = c.Issuer(SCRATCH / "ws-resume-issuer")
    server = Server(cluster, db, ENDPOINTS, {"auth": issuer.config()}, token=True)
    c.prepare(cluster, db, server)
    with server, WebSocket(server.port, "/ws", c.bearer(issuer.jwt("ada")), hello=True) as ada:
        ada.join("user:ada")
        with WebSocket(server.port, "/ws", c.bearer(issuer.jwt("bob")), hello=True) as bob:
            assert bob.call("resume", session=ada.hello["session"], seq=0)["resumed"] is False
            bob.event("resync")
        assert ada.call("ping")["ev"] == "ok"
        # Whoever comes back with less right gets less.
        with WebSocket(server.port, "/ws", c.bearer(issuer.jwt("ada")), hello=True) as again:
            again.join("table:t")
            session = again.hello["session"]
        with WebSocket(server.port, "/ws", c.bearer(issuer.jwt("ada", ["student"])), hello=True) as less:
            found = less.call("resume", session=session, seq=again.hello["seq"])
            assert found["resumed"] is True and found["rooms"] == []


# ---- the end -------------------------------------------------------------------------------------

@pytest.mark.threads
def test_bye(cluster, db):
    """Everybody is told, with hints that differ; then comes the close."""
    server = Server(cluster, db, ENDPOINTS)
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        sockets = [stack.enter_context(WebSocket(server.port, hello=True)) for _ in range(20)]
        nobody = stack.enter_context(WebSocket(server.port, hello=True))
        server.signal(signal.SIGTERM)
        hints = []
        for ws in sockets:
            hints.append(ws.event("bye")["retry"])
            assert ws.closed()[0] == 1001
        assert len(set(hints)) > 10 and all(500 <= hint <= 2000 for hint in hints), hints
        assert nobody     # who does not answer holds nobody up for long
        assert server.wait_exit(15) == 0


@pytest.mark.threads
def test_restarts_under_load(cluster, db, tell):
    """Clients come and go, changes fly, the server stops and starts: every frame is good, every end clean."""
    server = Server(cluster, db, ENDPOINTS, {"websocket": {"stall_timeout": "2s"}})
    stop, failed, seen = threading.Event(), [], [0]

    def client(n):
        while not stop.is_set():
            try:
                with WebSocket(server.port, hello=True) as ws:
                    ws.op("join", room="table:t")
                    for _ in range(5 + n * 7):
                        if ws.any_event(5)["ev"] == "change":
                            seen[0] += 1
            except (OSError, Refused, Closed):
                time.sleep(0.01)
            except AssertionError as e:
                if "opcode" not in str(e) and not re.match(r"\(8, ", str(e)):
                    failed.append(e)
    with server:
        threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                before = seen[0]

                def more():
                    tell("t", "k", times=20)
                    return seen[0] > before + 100
                wait_until(more, 20)
                server.stop()
                server.start()
        finally:
            stop.set()
            # Each waits for a number of them.
            while any(thread.is_alive() for thread in threads):
                tell("t", "k", times=20)
                threads[0].join(0.05)
    assert not failed, failed


@pytest.mark.threads
def test_adopting_and_publishing_at_once(cluster, db, tell):
    """Sockets come and go on all http threads while changes are told and the report is read."""
    with Server(cluster, db, ENDPOINTS, {"http": {"threads": 3}}) as server:
        stop, failed = threading.Event(), []

        def churn():
            try:
                while not stop.is_set():
                    with WebSocket(server.port, hello=True) as ws:
                        ws.op("join", room="table:t")
                        ws.op("join", room="table:t:k")
                        ws.any_event()
            except Exception as e:      # of a thread: told below
                failed.append(e)

        threads = [threading.Thread(target=churn) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            tell("t", "k", times=20)
            report(server)
        stop.set()

        def ended():    # each waits for one event more
            tell("t", "k")
            return not any(thread.is_alive() for thread in threads)
        wait_until(ended, 20)
        assert not failed, failed
        wait_until(lambda: report(server)["connectedClients"] == 0)


# ---- the report ----------------------------------------------------------------------------------

def test_report(cluster, db, tell):
    with Server(cluster, db, ENDPOINTS) as server:
        with WebSocket(server.port, hello=True) as ws:
            ws.join("table:t")
            tell("t", "1")
            ws.event("change")
            # What has been received is counted as sent a moment later.
            found = wait_until(lambda: f if (f := report(server))["messages"]["sent"] >= 3 else None)
            assert found["connectedClients"] == found["activeUsers"] == found["rooms"] == found["memberships"] == 1
            assert found["events"] == 1 and found["messages"]["sent"] == 3 and found["messages"]["received"] == 1
            assert found["bytes"]["sent"] > 100 and found["batch"]["mean"] >= 1 and found["batch"]["max"] >= 1
            ws.end()
            ws.closed()
        wait_until(lambda: report(server)["connectedClients"] == 0)
        found = report(server)
        assert found["closes"] == {"1000": 1} and found["resumable"] == found["rooms"] == 1
        assert server.request("POST", "/api/admin/websocket").status == 405

"""/ws: handshakes, origins, who opens it, and whether they still may."""
import contextlib
import json
import random
import re
import time

import pytest

import callers as c
import harness
from callers import ADMIN, IDENTIFIED, NOBODY
from harness import BINARY, SCRATCH, Server, wait_until
from websocket import FIN, TEXT, Refused, WebSocket, frame, handshake, new_key

ENDPOINTS = {"one.sql": "-- @route GET /api/one\nSELECT json_build_object('n', 1)"}
SITE = "https://admin.example.org"


@pytest.fixture(scope="module")
def issuer():
    return c.Issuer(SCRATCH / "ws-issuer")


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("ws_handshake", empty_template)
    yield "ws_handshake"
    cluster.drop("ws_handshake")


@pytest.fixture(scope="module")
def open_server(cluster, db):
    """Everybody is the administrator."""
    with Server(cluster, db, ENDPOINTS, {"http": {"origins": SITE}}) as server:
        yield server


def guarded(cluster, db, config):
    """A server whose callers must say who they are, not started yet."""
    server = Server(cluster, db, ENDPOINTS, config, token=True)
    c.prepare(cluster, db, server)
    return server


@pytest.fixture(scope="module")
def server(cluster, db, issuer):
    config = {"auth": issuer.config(), "websocket": {"auth_timeout": "1m", "max_per_user": 0}}
    with guarded(cluster, db, config) as server:
        yield server


@pytest.fixture(scope="module")
def hasty_server(cluster, db, issuer):
    """One that does not wait long for who somebody is."""
    with guarded(cluster, db, {"auth": issuer.config(), "websocket": {"auth_timeout": "2s"}}) as server:
        yield server


def ask(server, **changes):
    answer, = server.raw(handshake(server.port, **changes), head=changes.get("method") == "HEAD")
    return answer


def refused(server, headers=None, path="/ws"):
    with pytest.raises(Refused) as e:
        WebSocket(server.port, path, headers)
    return e.value.response


# ---- the handshake -------------------------------------------------------------------------------

@pytest.mark.parametrize("status, changes", [
    (426, {"Upgrade": None}), (426, {"Upgrade": "h2c"}), (426, {"Upgrade": "websockets"}), (426, {"Connection": None}),
    (426, {"Connection": "keep-alive"}), (426, {"Connection": "upgraded"}), (426, {"Sec-WebSocket-Version": None}),
    (426, {"Sec-WebSocket-Version": "8"}), (426, {"Sec-WebSocket-Version": "013"}), (426, {"Sec-WebSocket-Version": "13, 8"}),
    (400, {"Sec-WebSocket-Key": ""}), (400, {"Sec-WebSocket-Key": "x" * 24}), (400, {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAB=="}),
    (400, {"Sec-WebSocket-Key": "AAAA"}), (400, {"Sec-WebSocket-Key": new_key() + "\r\nSec-WebSocket-Key: " + new_key()}),
    (400, {"version": "HTTP/1.0"}), (405, {"method": "POST"}), (405, {"method": "HEAD"}),
    (400, {"Content-Length": "1\r\n\r\nx"}), (400, {"Transfer-Encoding": "chunked\r\n\r\n0"}),
    (403, {"Origin": "https://evil.example.org"}), (403, {"Origin": "null"}), (403, {"Origin": SITE + ".evil.example.org"}),
    (403, {"Origin": SITE + ":444"}), (403, {"Origin": "http://admin.example.org"}),
    (404, {"path": "/ws/"}), (404, {"path": "/WS"}),
])
def test_bad_handshakes(open_server, status, changes):
    """The answer is HTTP's, a problem document; nothing has become a WebSocket."""
    answer = ask(open_server, **changes)
    assert answer.status == status, answer
    if changes.get("method") != "HEAD":
        assert answer.header("Content-Type") == "application/problem+json" and answer.json()["status"] == status
    if status == 426:
        assert answer.header("Sec-WebSocket-Version") == "13" and answer.header("Upgrade") == "websocket"
    if status == 405:
        assert "GET" in answer.header("Allow")


@pytest.mark.parametrize("headers", [
    {}, {"Upgrade": "WebSocket"}, {"Connection": "upgrade"}, {"Connection": "keep-alive,UPGRADE"}, {"Upgrade": "h2c, websocket"},
    {"Origin": SITE}, {"Sec-WebSocket-Protocol": "chat"}, {"Sec-WebSocket-Extensions": "permessage-deflate"},
])
def test_good_handshakes(open_server, headers):
    """Neither a subprotocol nor an extension is agreed to."""
    with WebSocket(open_server.port, "/ws?x=1", headers, hello=True) as ws:
        assert not ws.response.header("Sec-WebSocket-Protocol") and not ws.response.header("Sec-WebSocket-Extensions")
        assert re.fullmatch("[0-9a-f]{32}", ws.hello["session"]) and ws.hello["seq"] >= 0
        assert ws.hello["heartbeat"] == 25000
        ws.end()
        assert ws.closed() == (1000, "")


def test_the_servers_own_origin_is_permitted(open_server):
    with WebSocket(open_server.port, "/ws", {"Origin": f"http://127.0.0.1:{open_server.port}"}, hello=True):
        pass


def test_the_log_names_an_origin_that_is_refused(cluster, db):
    """And not each of them: anybody can come from anywhere."""
    with Server(cluster, db, ENDPOINTS, {"http": {"origins": SITE}}) as server:
        WebSocket(server.port, headers={"Origin": SITE}).close()
        for n in range(20):
            assert refused(server, {"Origin": f"https://site-{n}.example.org/{'x' * 2000}"}).status == 403
        server.wait_log("https://site-0.example.org/", 10)
        lines = [line for line in server.log().splitlines() if "refused for its origin" in line]
        assert len(lines) == 1 and "level=warn" in lines[0] and "[http] origins" in lines[0] and len(lines[0]) < 600


def test_a_kept_connection_can_become_a_websocket(open_server):
    with open_server.connect() as connection:
        connection.send(b"GET /api/one HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.response().status == 200
        connection.send(handshake(open_server.port))
        assert connection.response(head=True).status == 101


# ---- who ------------------------------------------------------------------------------------------

def test_every_caller(cluster, db, issuer, server):
    """The table of callers: who is known over HTTP is known here, in the same role."""
    keys = c.make_keys(cluster, db)
    for body in c.revocations(keys):
        assert server.request("POST", "/api/admin/revocations", c.admin_headers(issuer), body).status in (200, 201, 204)
    own = {"Origin": f"http://127.0.0.1:{server.port}"}
    failed = []
    for caller in c.callers(issuer, keys):
        try:
            if caller.who in IDENTIFIED:
                with WebSocket(server.port, "/ws", {**own, **caller.headers}, hello=True) as ws:
                    expected = "ok" if caller.who == ADMIN else "error"
                    assert ws.call("join", room="table:course")["ev"] == expected
            elif caller.who == NOBODY:
                with WebSocket(server.port, "/ws", {**own, **caller.headers}) as ws:
                    ws.op("join", room="table:course")
                    assert ws.closed()[0] == 4401
            else:
                assert refused(server, {**own, **caller.headers}).status == 401
        except (AssertionError, OSError, Refused, pytest.fail.Exception) as e:
            failed.append(f"{caller}: {e!r}")
    assert not failed, "\n".join(failed)


def test_every_token_as_the_first_message(cluster, db, issuer, server):
    keys = c.make_keys(cluster, db)
    for body in c.revocations(keys):
        server.request("POST", "/api/admin/revocations", c.admin_headers(issuer), body)
    failed = []
    for caller in c.callers(issuer, keys):
        field = caller.headers.get("Authorization", "")
        if not field.startswith("Bearer ") or "Cookie" in caller.headers or len(field) > 3900:
            continue
        try:
            with WebSocket(server.port) as ws:
                ws.op("auth", token=field[7:], id=1)
                if caller.who in IDENTIFIED:
                    assert ws.event("ok")["id"] == 1
                    ws.event("hello")
                else:
                    assert ws.closed()[0] == 4401
        except (AssertionError, OSError) as e:
            failed.append(f"{caller}: {e!r}")
    assert not failed, "\n".join(failed)


def test_a_cookie_without_an_origin_is_nobodys(server, hasty_server, issuer):
    cookie = c.session(issuer.cookie())
    with WebSocket(hasty_server.port, "/ws", cookie) as ws:
        assert ws.closed(5)[0] == 4408
    assert refused(server, {**cookie, "Origin": "https://evil.example.org"}).status == 403
    with WebSocket(server.port, "/ws", {**cookie, "Origin": f"http://127.0.0.1:{server.port}"}, hello=True):
        pass


def test_who_does_not_say_who_it_is(server, hasty_server):
    start = time.monotonic()
    with WebSocket(hasty_server.port) as ws:
        assert ws.closed() == (4408, "who you are was not said in time")
    assert time.monotonic() - start > 1.9
    # A ping is no credential, and buys no time.
    with WebSocket(hasty_server.port, extra=frame(FIN | 9, b"still here")) as ws:
        assert ws.receive() == (10, b"still here")
        assert ws.closed()[0] == 4408
    with WebSocket(server.port) as ws:
        ws.text(json.dumps({"op": "auth", "token": "x" * 5000}))
        assert ws.closed()[0] == 1009
    for text, code in (("nonsense", 4400), ('{"op":"ping"}', 4401), ('{"op":"auth"}', 4401), ('{"op":"auth","token":7}', 4401),
                       ('{"op":"auth","token":"x"}', 4401)):
        with WebSocket(server.port) as ws:
            ws.text(text)
            assert ws.closed()[0] == code, text


def test_renewal(server, issuer):
    """A token that ends takes its socket along, unless a new one has come in time."""
    def token(seconds, sub="ada", roles=("admin",)):
        return issuer.jwt(sub, roles, exp=int(time.time()) - 15 + seconds)    # its leeway is 15 s

    def opened(stack):
        """Two sockets, of which the second's token was renewed, and for how long the first's is good: as soon as can be."""
        for seconds in (2, 4, 8, 16, 32):
            end = time.monotonic() + seconds - 1
            with contextlib.suppress(Refused):
                found = [stack.enter_context(WebSocket(server.port, "/ws", c.bearer(token(seconds)), hello=True)) for _ in range(2)]
                found[1].op("auth", token=token(3600), id=1)
                if time.monotonic() < end:
                    return *found, seconds
        raise AssertionError("no socket in time")

    with contextlib.ExitStack() as stack:
        short, long, seconds = opened(stack)
        assert long.event("ok")["id"] == 1
        long.join("table:course")
        assert short.closed(10 + seconds)[0] == 4401
        assert long.call("ping")["ev"] == "ok"
        found = long.call("auth", token="nonsense")
        assert found["ev"] == "error" and found["code"] == 4401
        assert long.call("ping")["ev"] == "ok"
        long.op("auth", token=issuer.jwt("somebody else"))
        assert long.closed()[0] == 4403


def test_rights_are_looked_at_anew(server, issuer):
    with WebSocket(server.port, "/ws", c.bearer(issuer.jwt("ada", ["admin", "editor"])), hello=True) as ws:
        for room in ("table:course", "role:editor", "user:ada"):
            ws.join(room)
        assert ws.call("auth", token=issuer.jwt("ada", ["editor"]))["ev"] == "ok"
        found = ws.event("error")
        assert found["code"] == 4403 and found["room"] == "table:course"
        assert ws.call("ping")["ev"] == "ok"


def test_revocation(cluster, db, issuer, server):
    jti, key = "a token to be revoked", c.insert_key(cluster, db, "robot", ["admin"])
    with contextlib.ExitStack() as stack:
        def connect(token):
            def attempt():
                with contextlib.suppress(Refused):
                    return stack.enter_context(WebSocket(server.port, "/ws", c.bearer(token), hello=True))
            return wait_until(attempt, 10)
        revoked, kept, robot = connect(issuer.jwt(jti=jti)), connect(issuer.jwt()), connect(key)
        assert server.request("POST", "/api/admin/revocations", c.admin_headers(issuer), {"token": jti}).status < 300
        assert revoked.closed(10)[0] == 4401
        cluster.sql(db, "UPDATE provost.api_key SET revoked_at = now() WHERE id = %s", c.id_of(key))
        assert robot.closed(15)[0] == 4401
        assert kept.call("ping")["ev"] == "ok"


def test_a_reload_that_changes_nothing_of_it_keeps_sockets(server, issuer):
    with WebSocket(server.port, "/ws", c.bearer(issuer.jwt()), hello=True) as ws:
        since = len(server.log())
        server.reload()
        server.wait_log("reload: applied", 10, since)
        assert ws.silent(1.5)
        assert ws.call("ping")["ev"] == "ok"


# ---- limits --------------------------------------------------------------------------------------

def count(server):
    return server.get("/api/admin/websocket").json()["connectedClients"]


def test_max_clients(cluster, db):
    with Server(cluster, db, ENDPOINTS, {"websocket": {"max_clients": 3}}) as server:
        with contextlib.ExitStack() as stack:
            open_ones = [stack.enter_context(WebSocket(server.port, hello=True)) for _ in range(3)]
            answer = refused(server)
            assert answer.status == 503 and answer.header("Retry-After"), answer
            open_ones[0].close()
            wait_until(lambda: count(server) == 2)
            stack.enter_context(WebSocket(server.port, hello=True))
        wait_until(lambda: count(server) == 0)


def test_those_who_have_not_said_who_they_are_have_a_share(cluster, db, issuer):
    config = {"auth": issuer.config(), "websocket": {"max_clients": 20}}
    with guarded(cluster, db, config) as server, contextlib.ExitStack() as stack:
        nobody = [stack.enter_context(WebSocket(server.port)) for _ in range(16)]
        assert refused(server).status == 503
        known = stack.enter_context(WebSocket(server.port, "/ws", c.bearer(issuer.jwt()), hello=True))
        nobody[0].op("auth", token=issuer.jwt("bob"))
        nobody[0].event("hello")
        stack.enter_context(WebSocket(server.port))
        assert known.call("ping")["ev"] == "ok"


@pytest.mark.parametrize("policy", ["replace", "reject"])
def test_per_user(cluster, db, issuer, policy):
    config = {"auth": issuer.config(), "websocket": {"max_per_user": 2, "per_user_policy": policy}}
    with guarded(cluster, db, config) as server, contextlib.ExitStack() as stack:
        def connect(token, hello=True):
            return stack.enter_context(WebSocket(server.port, "/ws", c.bearer(token), hello=hello))
        first, second, other = (connect(issuer.jwt(sub)) for sub in ("ada", "ada", "bob"))
        third = connect(issuer.jwt("ada"), hello=policy == "replace")
        if policy == "replace":
            assert first.closed()[0] == 4001
            kept = (second, third, other)
        else:
            assert third.closed()[0] == 4429
            kept = (first, second, other)
        for ws in kept:
            assert ws.call("ping")["ev"] == "ok"


def test_per_address(cluster, db):
    with Server(cluster, db, ENDPOINTS, {"websocket": {"max_per_address": 2}}) as server, contextlib.ExitStack() as stack:
        for address in ("127.0.0.2", "127.0.0.3"):
            for _ in range(2):
                stack.enter_context(WebSocket(server.port, hello=True, address=address))
            with WebSocket(server.port, address=address) as ws:
                assert ws.closed()[0] == 4429


def test_descriptors(cluster, db, tmp_path, monkeypatch):
    """WebSockets and requests have a share each; neither takes the other's."""
    script = tmp_path / "limited"
    script.write_text(f'#!/bin/sh\nulimit -n 300\nexec {BINARY} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(harness, "BINARY", script)
    with Server(cluster, db, ENDPOINTS, {"http": {"threads": 1}, "database": {"pool_max": 4}}) as server:
        allowed = int(re.search(r"level=warn .*allowed_clients=(\d+) limit=300", server.log())[1])
        with contextlib.ExitStack() as stack:
            for _ in range(allowed):
                stack.enter_context(WebSocket(server.port, hello=True))
            assert refused(server).status == 503
            assert server.get("/api/one").status == 200
        wait_until(lambda: count(server) == 0)
        with WebSocket(server.port, hello=True):
            pass


# ---- chance --------------------------------------------------------------------------------------

def test_halves_of_handshakes(open_server):
    """Cut anywhere, and closed: nothing is left of it."""
    data = handshake(open_server.port) + frame(FIN | TEXT, b'{"op":"ping","id":1}')
    for n in random.Random(1).sample(range(len(data)), 40):
        with open_server.connect() as connection:
            connection.send(data[:n])
    wait_until(lambda: count(open_server) == 0)

"""What changes while the server runs: revocations, keys, secrets, settings; and what keeps it from starting."""
import contextlib
import itertools
import random
import re
import secrets
import signal
import threading
import time

import pytest

import callers as c
from caching import is_hit, settings
from harness import Closed, Server, must, patience, wait_until
from problems import problem

ENDPOINTS = {
    "me.sql": "-- @route GET /api/me\n-- @role admin,student\n-- @cache ttl=1h\nSELECT json_build_object('sub', :auth_sub)",
    "admin.sql": "-- @route GET /api/admins\n-- @cache ttl=1h\nSELECT json_build_object('a', 1)",
    "asks.sql": "-- @route GET /api/asks\n-- @role admin,student\n-- @cache off\nSELECT json_build_object('sub', :auth_sub)",
}
PATHS = ("/api/me", "/api/asks")
# Looked for in the database every five seconds.
SEEN_WITHIN = 12


@pytest.fixture
def issuer(tmp_path):
    return c.Issuer(tmp_path / "issuer")


@pytest.fixture
def prepared(cluster, empty_database, issuer):
    """A server that is not started yet, on a database with the schema."""
    server = Server(cluster, empty_database, endpoints=ENDPOINTS, token=True, config={"auth": issuer.config()})
    c.prepare(cluster, empty_database, server)
    return server


class Kept:
    """A connection that is kept."""

    def __init__(self, server, headers):
        self.connection, self.headers = server.connect(), headers

    def get(self, path="/api/me", headers=None):
        fields = "".join(f"{n}: {v}\r\n" for n, v in (headers or self.headers).items())
        self.connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
        return self.connection.response()

    def statuses(self):
        return [self.get(path).status for path in PATHS]


def revoke(server, issuer, body, status=200):
    answer = server.request("POST", "/api/admin/revocations", c.admin_headers(issuer), body)
    assert answer.status == status, answer
    return answer


def unrevoke(server, issuer, query, status=200):
    answer = server.request("DELETE", f"/api/admin/revocations?{query}", c.admin_headers(issuer))
    assert answer.status == status, answer


# ---- revocations ---------------------------------------------------------------------------------

def kinds(issuer, key):
    """What is revoked: the caller's headers, the body, the query that takes it back."""
    return {
        "jti": (c.bearer(issuer.jwt("ada", jti="t/1 ü")), {"token": "t/1 ü"}, "token=t/1+%C3%BC"),
        "jti of RS256": (c.bearer(issuer.jwt("ada", alg="RS256", jti="t2")), {"token": "t2", "exp": int(time.time()) + 3600},
                         "token=t2"),
        "subject": (c.bearer(issuer.jwt("ada&bob")), {"subject": "ada&bob"}, "subject=ada%26bob"),
        "subject for ever": (c.bearer(issuer.jwt("cyd", iat=int(time.time()) + 10)), {"subject": "cyd", "forever": True},
                             "subject=cyd"),
        "API key": (c.bearer(key), {"token": c.id_of(key)}, f"token={c.id_of(key)}"),
        "subject of an API key": (c.bearer(key), {"subject": "robot"}, "subject=robot"),
        "jti of a cookie": (c.session(issuer.cookie("dee", jti="t3")), {"token": "t3"}, "token=t3"),
        "subject of a cookie": (c.chunks(issuer.cookie("eve")), {"subject": "eve"}, "subject=eve"),
    }


def test_a_revocation_is_in_force_for_the_next_request(cluster, empty_database, prepared, issuer):
    key = c.insert_key(cluster, empty_database, "robot", ["admin"])
    with prepared as server:
        other = Kept(server, c.bearer(issuer.jwt("somebody else")))
        for name, (headers, body, query) in kinds(issuer, key).items():
            kept = Kept(server, headers)
            assert kept.statuses() == [200, 200], name
            assert is_hit(kept.get()), "known, on this connection, to an answer that is stored"
            revoke(server, issuer, body)
            assert kept.statuses() == [401, 401], name
            assert "revoked" in kept.get().header("WWW-Authenticate")
            assert [server.get(path, headers).status for path in PATHS] == [401, 401], "on another connection"
            assert other.statuses() == [200, 200]
            unrevoke(server, issuer, query)
            assert kept.statuses() == [200, 200], name
            assert is_hit(kept.get())
            unrevoke(server, issuer, query, 404)
        assert cluster.sql(empty_database, "SELECT count(*) FROM provost.revocation") == [(0,)]


def test_a_subject_is_revoked_up_to_now(prepared, issuer):
    now = int(time.time())
    with prepared as server:
        revoke(server, issuer, {"subject": "ada"})
        assert server.get("/api/me", c.bearer(issuer.jwt("ada", iat=now - 5))).status == 401
        assert server.get("/api/me", c.bearer(issuer.jwt("ada", iat=None))).status == 401
        # An issuer's clock may be ahead by the leeway: what looks as if it came later may be older.
        assert server.get("/api/me", c.bearer(issuer.jwt("ada", iat=now + 10))).status == 401
        assert server.get("/api/me", c.session(issuer.cookie("ada", iat=now + 10))).status == 401
        revoke(server, issuer, {"subject": "ada", "forever": True})
        assert server.get("/api/me", c.bearer(issuer.jwt("ada", iat=now + 10))).status == 401
        assert server.get("/api/me", c.bearer(issuer.jwt("Ada", iat=now - 5))).status == 200


def test_a_revocation_survives_a_restart(cluster, empty_database, prepared, issuer):
    key = c.insert_key(cluster, empty_database, "robot", ["admin"])
    by_jti, by_subject = c.bearer(issuer.jwt("ada", jti="t1")), c.bearer(issuer.jwt("bob"))
    with prepared as server:
        for body in ({"token": "t1"}, {"subject": "bob"}, {"token": c.id_of(key)}):
            revoke(server, issuer, body)
        assert cluster.sql(empty_database, "SELECT DISTINCT created_by FROM provost.revocation") == [("the administrator",)]
        server.stop()
        server.start()
        for headers in (by_jti, by_subject, c.bearer(key)):
            assert server.get("/api/me", headers).status == 401, "with the first request after ready"
        assert server.get("/api/me", c.bearer(issuer.jwt("ada"))).status == 200


@pytest.mark.parametrize("case", ["no database", "locked", "no right"])
def test_nobody_is_served_before_it_is_known_who_was_revoked(cluster, empty_database, prepared, issuer, case):
    revoked, good = c.bearer(issuer.jwt("admin", jti="t1")), c.admin_headers(issuer)
    with prepared as server:
        revoke(server, issuer, {"token": "t1"})
    server = Server(cluster, empty_database, endpoints=ENDPOINTS, token=True, config={"auth": issuer.config()}, wait="/livez",
                    allow_errors=True)
    with holding(cluster, empty_database, case) as let_go:
        with server:
            wait_until(lambda: re.search("level=(warn|error)", server.log()), 15, "it is said")
            for headers in (revoked, good):
                for path in ("/api/admin/cache", "/api/me", "/nothing"):
                    answer = server.get(path, headers)
                    assert answer.status == 503 and answer.header("Retry-After"), answer
            assert server.get("/readyz").status == 503 and server.get("/").json()["endpoints"] == []
            let_go()
            wait_until(lambda: server.get("/readyz").status == 200, 30, "ready")
            assert server.get("/api/admin/cache", revoked).status == 401
            assert server.get("/api/admin/cache", good).status == 200


@contextlib.contextmanager
def holding(cluster, db, case):
    """What keeps a server from reading revocations, until the function given is called."""
    if case == "no database":
        cluster.stop()
        yield lambda: (cluster.start(), cluster.wait_ready())
    elif case == "locked":
        with contextlib.closing(cluster.connect(db)) as connection:
            connection.cursor().execute("BEGIN; LOCK TABLE provost.revocation")
            yield lambda: connection.cursor().execute("ROLLBACK")
    else:
        cluster.sql(db, "REVOKE ALL ON provost.revocation FROM provost_app")
        yield lambda: cluster.sql(db, "GRANT SELECT, INSERT, UPDATE, DELETE ON provost.revocation TO provost_app")


def test_what_must_not_be_stored_is_refused(cluster, empty_database, prepared, issuer):
    key, token = c.insert_key(cluster, empty_database, "robot", ["admin"]), issuer.jwt("ada", jti="t1")
    past, now = int(time.time()) - 1, int(time.time())
    with prepared as server:
        for body in ({"token": token}, {"token": "pv_x"}, {"subject": "ada", "exp": past}, {"subject": "ada", "exp": 1 << 62},
                     {"subject": "ada", "exp": now + 3600, "forever": True}):
            revoke(server, issuer, body, 422)
        assert cluster.sql(empty_database, "SELECT count(*) FROM provost.revocation") == [(0,)]
        # Of a whole key its id is meant.
        assert server.get("/api/me", c.bearer(key)).status == 200
        revoke(server, issuer, {"token": key})
        assert cluster.sql(empty_database, "SELECT what FROM provost.revocation") == [(c.id_of(key),)]
        assert server.get("/api/me", c.bearer(key)).status == 401
        unrevoke(server, issuer, f"token={key}")
        assert server.get("/api/me", c.bearer(key)).status == 200


def test_another_instance_follows_within_seconds(cluster, empty_database, prepared, issuer):
    headers = c.bearer(issuer.jwt("ada", jti="t1"))
    other = Server(cluster, empty_database, endpoints=ENDPOINTS, token=True, config={"auth": issuer.config()})
    with prepared as server, other:
        kept = Kept(other, headers)
        assert kept.get().status == 200
        revoke(server, issuer, {"token": "t1"})
        wait_until(lambda: kept.get().status == 401, SEEN_WITHIN)
        unrevoke(server, issuer, "token=t1")
        other.reload()      # which looks at once
        wait_until(lambda: kept.get().status == 200, SEEN_WITHIN)


def test_without_the_database_it_stays_as_it_is(cluster, empty_database, prepared, issuer):
    key = c.insert_key(cluster, empty_database, "robot", ["admin"])
    gone = c.bearer(issuer.jwt("ada", jti="t1"))
    prepared.allow_errors = True
    with prepared as server:
        known = Kept(server, c.bearer(key))
        assert known.statuses() == [200, 200]
        revoke(server, issuer, {"token": "t1"})
        before = len(server.log())
        cluster.sql("postgres", "CHECKPOINT")    # or the crash undoes it: the tests' cluster commits without the disk
        cluster.stop("immediate")
        try:
            server.wait_log("API keys and revocations stay as they are", SEEN_WITHIN, before)
            assert known.get().status == 200 and known.get("/api/asks").status == 503
            assert server.get("/api/me", c.bearer(key)).status == 200, "a stored answer, on a new connection"
            assert server.get("/api/asks", c.bearer(issuer.jwt("new"))).status == 503
            for path in PATHS:
                assert server.get(path, gone).status == 401
                assert server.get(path, c.bearer(issuer.jwt(key=b"x" * 32))).status == 401
            assert server.get("/api/admins", c.bearer(issuer.jwt("stu", ["student"]))).status == 403
            problem(revoke(server, issuer, {"token": "t2"}, 503), 503)
            assert server.get("/api/asks", c.bearer(issuer.jwt(jti="t2"))).status == 503, "not half in force"
        finally:
            cluster.start()
            cluster.wait_ready()
        wait_until(lambda: known.get("/api/asks").status == 200, 20)
        assert server.get("/api/me", gone).status == 401
        wait_until(lambda: server.request("POST", "/api/admin/revocations", c.admin_headers(issuer), {"token": "t2"}).status == 200, 20)


BODIES = [
    (b"", 400), (b"{", 400), (b"[]", 422), (b"null", 400), (b"{}", 422), (b'{"token":1}', 422), (b'{"token":""}', 422),
    (b'{"token":"a","subject":"b"}', 422), (b'{"token":"a\\u0000b"}', 422), (b'{"token":"' + b"x" * 256 + b'"}', 422),
    (b'{"token":"a","exp":"soon"}', 422), (b'{"token":"a","exp":-1}', 422), (b'{"token":"a","more":1}', 422),
    (b'{"subject":"a","forever":1}', 422), (b'{"token":"\xff"}', 400), (b'{"token":"a"} x', 400),
    (b'{"token":"\\u0001"}', 422), (b'{"token":"' + b"x" * 5000 + b'"}', 413),
]


def test_what_is_no_revocation_is_refused(cluster, empty_database, prepared, issuer):
    json_type = {**c.admin_headers(issuer), "Content-Type": "application/json"}
    with prepared as server:
        for body, status in BODIES:
            answer = server.request("POST", "/api/admin/revocations", json_type, body)
            assert answer.status == status, (body[:80], answer)
            problem(answer, status)
        for media_type in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            headers = {**json_type, "Content-Type": media_type}
            assert server.request("POST", "/api/admin/revocations", headers, b'{"token":"a"}').status == 415
        for query in ("", "?token=", "?token=a&subject=b", "?token=%00", "?token=%zz", "?other=a"):
            assert server.request("DELETE", "/api/admin/revocations" + query, c.admin_headers(issuer)).status == 422, query
        assert cluster.sql(empty_database, "SELECT count(*) FROM provost.revocation") == [(0,)]


# ---- API keys ------------------------------------------------------------------------------------

def test_keys_are_made_and_revoked_by_command(cluster, empty_database, prepared):
    owner = cluster.dsn(empty_database)
    with prepared as server:
        made = c.command(server, "key", "new", "--subject", "robot", "--roles", "ADMIN", url=owner)
        key = made.stdout.strip()
        kept = Kept(server, c.bearer(key))
        assert key not in made.stderr
        server.reload()     # which looks at once
        wait_until(lambda: kept.get().status == 200, SEEN_WITHIN)
        assert kept.get("/api/admins").status == 200
        c.command(server, "key", "revoke", c.id_of(key), url=owner)
        wait_until(lambda: kept.get().status == 401, SEEN_WITHIN)
        assert "revoked" in kept.get().header("WWW-Authenticate")


def kept_while_good(server, make, seconds):
    """A connection whose credential was good once, and for how many seconds it is; one that expired before it could be
    is tried again for longer."""
    while seconds < 100:
        headers, end = make(seconds), time.monotonic() + seconds
        kept = Kept(server, headers)
        wait_until(lambda: kept.get().status == 200 or time.monotonic() >= end, seconds + 1)
        if time.monotonic() < end:
            return kept, seconds
        seconds *= 2
    raise AssertionError("nothing opened in time")


def test_keys_expire_on_kept_connections(cluster, empty_database, prepared):
    with prepared as server:
        kept, seconds = kept_while_good(server, lambda seconds: c.bearer(
            c.insert_key(cluster, empty_database, "robot", ["admin"], expires=f"{seconds} seconds")), 3)
        wait_until(lambda: kept.get().status == 401, seconds + 10)
        assert "expired" in kept.get().header("WWW-Authenticate")


def test_tokens_expire_on_kept_connections(prepared, issuer):
    prepared.write_config({"auth": {"leeway": "0"}})
    with prepared as server:
        kept, seconds = kept_while_good(server, lambda seconds: c.bearer(issuer.jwt(exp=int(time.time() + seconds))), 3)
        wait_until(lambda: kept.get().status == 401, seconds + 10)
        assert "expired" in kept.get().header("WWW-Authenticate")


# ---- secrets -------------------------------------------------------------------------------------

def test_replaced_secrets(prepared, issuer):
    with prepared as server:
        kept = [Kept(server, headers) for headers in (c.bearer(issuer.jwt()), c.session(issuer.cookie()),
                                                      c.bearer(issuer.jwt(alg="RS256")), c.bearer(issuer.jwt(alg="ES256")))]
        assert all(k.statuses() == [200, 200] for k in kept)
        issuer.jwt_secret, issuer.nextauth_secret = secrets.token_urlsafe(48), secrets.token_urlsafe(32)
        issuer.keys = {"RS256": c.new_rsa(), "ES256": c.new_ec()}
        issuer.write_secrets()
        issuer.write_jwks()
        new = [c.bearer(issuer.jwt()), c.session(issuer.cookie()), c.bearer(issuer.jwt(alg="RS256")),
               c.bearer(issuer.jwt(alg="ES256"))]
        for headers, k in zip(new, kept):
            wait_until(lambda: server.get("/api/me", headers).status == 200, SEEN_WITHIN)
            wait_until(lambda: k.statuses() == [401, 401], SEEN_WITHIN)
            assert k.get("/api/me", headers).status == 200


def test_two_secrets_while_one_is_replaced(prepared, issuer, tmp_path):
    old, former = c.bearer(issuer.jwt()), tmp_path / "former"
    with prepared as server:
        kept = Kept(server, old)
        assert kept.get().status == 200
        c.write(former, issuer.jwt_secret)
        issuer.jwt_secret = secrets.token_urlsafe(48)
        issuer.write_secrets()
        settings(server, {"auth": {"jwt_secret_file": f"{issuer.jwt_file}, {former}"}})
        assert kept.get().status == 200 and server.get("/api/me", c.bearer(issuer.jwt())).status == 200
        settings(server, {"auth": {"jwt_secret_file": issuer.jwt_file}})
        assert kept.get().status == 401 and server.get("/api/me", c.bearer(issuer.jwt())).status == 200


# Files are looked at every five seconds, and at a reload; once is enough for the former.
@pytest.mark.parametrize("text, by_itself", [
    ("", True), ("not long\n", False), ("two lines, the first of which\nwould do by itself, being long enough\n", False)])
def test_a_bad_secret_file_changes_nothing(prepared, issuer, text, by_itself):
    prepared.allow_errors = "the files that have changed are refused|reload|jwt.secret"
    with prepared as server:
        kept = Kept(server, c.bearer(issuer.jwt()))
        assert kept.get().status == 200
        c.write(issuer.jwt_file, text)
        if by_itself:
            server.wait_log("level=error .*jwt_secret.*empty", SEEN_WITHIN)
            assert kept.get().status == 200 and server.get("/api/me", c.bearer(issuer.jwt())).status == 200
        before = len(server.log())
        server.reload()
        server.wait_log("reload: nothing was changed", 10, before)
        assert re.search("level=error .*jwt_secret.*(empty|short|one line)", server.log()[before:])
        assert text == "" or text.strip().split("\n")[0] not in server.log()
        assert kept.get().status == 200 and server.get("/api/me", c.bearer(issuer.jwt())).status == 200
        before = len(server.log())
        issuer.write_secrets()
        if not by_itself:
            server.reload()
        server.wait_log("keys and secrets were read anew" if by_itself else "reload: applied", SEEN_WITHIN, before)
        assert kept.get().status == 200


def test_secrets_in_the_environment(cluster, empty_database, issuer):
    given = {"PROVOST_AUTH_JWT_SECRET": issuer.jwt_secret, "NEXTAUTH_SECRET": issuer.nextauth_secret}
    config = {"auth": {**issuer.config(), "jwt_secret_file": None, "nextauth_secret_file": None, "algorithms": "HS256",
                       "jwks_file": None}}
    server = Server(cluster, empty_database, endpoints=ENDPOINTS, token=True, config=config, env=given)
    c.prepare(cluster, empty_database, server)
    with server:
        callers = [c.bearer(issuer.jwt()), c.session(issuer.cookie())]
        kept = [Kept(server, headers) for headers in callers]
        assert all(k.get().status == 200 for k in kept)
        # They were wiped from the environment, and must outlive a reload all the same.
        settings(server, {"cache": {"ttl": "9m"}})
        assert all(k.get().status == 200 for k in kept)
        assert all(server.get("/api/me", headers).status == 200 for headers in callers)


# ---- what keeps it from starting -----------------------------------------------------------------

# A change of [auth], and what the sentence says, which is the same of `serve` and of `provost check`.
REFUSED = {
    "no secret": ({"jwt_secret_file": None}, r"there is no key for HS256: name one in \[auth\] jwt_secret_file"),
    "no keys": ({"jwks_file": None}, r"there is no key for RS256: name one in \[auth\] key_files or jwks_file"),
    "no such file": ({"jwt_secret_file": "{folder}/nothing"}, r"jwt_secret_file: .*/nothing does not exist"),
    "an empty file": ({"jwt_secret_file": "{empty}"}, r"jwt_secret_file: .* is empty"),
    "a short secret": ({"jwt_secret_file": "{short}"}, r"is too short to be safe: make one with `openssl rand -base64 48`"),
    "a folder": ({"jwt_secret_file": "{folder}"}, r"is not a regular file"),
    "open to all": ({"jwt_secret_file": "{open}"}, r"may be written by everybody: chmod o-w"),
    "a key instead of a secret": ({"jwt_secret_file": "{pem}"}, r"is a key in PEM format, not a secret"),
    "a secret instead of a key": ({"key_files": "{good}"}, r"key_files: .*{good}"),
    "a JWKS that is none": ({"jwks_file": "{good}"}, r"jwks_file: .*"),
    "a short NextAuth secret": ({"nextauth_secret_file": "{short}"}, r"nextauth_secret_file: .* is too short to be safe"),
    "no NextAuth secret": ({"nextauth_secret_file": "{folder}/nothing"}, r"nextauth_secret_file: .*/nothing does not exist"),
    "no issuer": ({"issuer": None}, r"\[auth\] issuer: must be what your tokens have as iss"),
    "no audience": ({"audience": None}, r"\[auth\] audience: must be what your tokens have as aud"),
    "an algorithm that is none": ({"algorithms": "HS256, none"}, r"`?none`? .*HS256, RS256"),
    "no algorithm": ({"algorithms": None}, r"algorithm"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_at_the_start(cluster, empty_database, issuer, tmp_path, case):
    files = {name: tmp_path / name for name in ("empty", "short", "open", "pem", "good")}
    for name, text in (("empty", ""), ("short", "hush, hush"), ("open", "x" * 40), ("pem", c.public_pem(issuer.keys["RS256"]).decode()),
                       ("good", "a secret that is good enough, as far as its length goes")):
        c.write(files[name], text)
    files["open"].chmod(0o666)
    change, sentence = REFUSED[case]
    change = {key: value and value.format(folder=tmp_path, **files) for key, value in change.items()}
    sentence = sentence.replace("{good}", re.escape(str(files["good"])))
    server = Server(cluster, empty_database, endpoints=ENDPOINTS, token=True, wait=None, allow_errors=True,
                    config={"auth": issuer.config()})
    c.prepare(cluster, empty_database, server)
    server.write_config({"auth": change})
    checked = c.command(server, "check", check=False)
    assert checked.returncode == 1 and re.search(sentence, checked.stderr + checked.stdout), checked
    server.start()
    assert server.wait_exit() == 1
    assert re.search(sentence, server.log()), server.log()
    for secret in ("hush, hush", "a secret that is good", issuer.jwt_secret, issuer.nextauth_secret, c.public_pem(issuer.keys["RS256"]).decode()[30:60]):
        assert secret not in server.log() + checked.stderr + checked.stdout


@pytest.mark.parametrize("case", ["no secret", "a JWKS that is none", "no issuer", "an algorithm that is none"])
def test_refused_at_a_reload(prepared, issuer, tmp_path, case):
    good = tmp_path / "good"
    c.write(good, "a secret that is good enough, as far as its length goes")
    change = {key: value and value.format(good=good) for key, value in REFUSED[case][0].items()}
    prepared.allow_errors = "reload"
    with prepared as server:
        kept = Kept(server, c.bearer(issuer.jwt()))
        assert kept.get().status == 200
        settings(server, {"auth": change})
        assert "reload: nothing was changed" in server.log()
        assert kept.get().status == 200 and server.get("/api/me", c.bearer(issuer.jwt(alg="RS256"))).status == 200
        settings(server, {"auth": issuer.config()})
        assert kept.get().status == 200


def test_a_secret_that_is_broken_while_a_reload_goes_on(cluster, empty_database, prepared, issuer, tmp_path):
    """What was good when it was looked at first, and is not when it is to hold: nothing of the reload does."""
    prepared.allow_errors = "reload|the files that have changed are refused"
    second = tmp_path / "second"
    c.write(second, "another secret, of which there is as much as there must be")
    cluster.sql(empty_database, "CREATE TABLE held (n integer); GRANT SELECT ON held TO provost_app")
    with prepared as server, contextlib.closing(cluster.connect(empty_database)) as other:
        def status(path="/api/me"):
            return server.get(path, c.bearer(issuer.jwt())).status

        assert status() == 200
        other.autocommit = False
        other.cursor().execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        server.write_endpoint("held.sql", "-- @route GET /api/held\n-- @cache off\nSELECT count(*) FROM held")
        server.write_config({"auth": {"jwt_secret_file": f"{issuer.jwt_file}, {second}"}, "http": {"max_url": 256}})
        before = len(server.log())
        server.signal(signal.SIGHUP)
        wait_until(lambda: cluster.sql(empty_database, "SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0] > 0,
                   what="the endpoints are being checked")
        c.write(second, "short")
        other.rollback()
        server.wait_log("reload: (applied|nothing was changed)", 20, before)
        assert re.search("reload: refused.*jwt_secret_file.*too short", server.log()[before:]), server.log()[before:]
        assert "config: changed" not in server.log()[before:]
        assert status() == 200 and status("/api/me?n=" + 300 * "1") == 200
        c.write(second, "another secret, of which there is as much as there must be")
        server.reload()
        server.wait_log("reload: applied", 20, before)
        assert status("/api/me?n=" + 300 * "1") == 414


def test_an_audience_that_changed(prepared, issuer):
    with prepared as server:
        kept = Kept(server, c.bearer(issuer.jwt()))
        assert kept.get().status == 200
        settings(server, {"auth": {"audience": "another"}})
        assert kept.get().status == 401, "though it is known"
        assert kept.get("/api/me", c.bearer(issuer.jwt(aud="another"))).status == 200
        settings(server, {"auth": {"audience": c.AUDIENCE}})
        assert kept.get().status == 200


# ---- all at once ---------------------------------------------------------------------------------

class Crowd:
    """Callers of all kinds on connections of their own; each has statuses that it may see."""

    def __init__(self, server, members, seed):
        self.server, self.members, self.dice = server, members, random.Random(seed)
        self.ending, self.answers, self.wrong = threading.Event(), itertools.count(), []

    def client(self, member, seed):
        dice, connection = random.Random(seed), None
        headers, allowed = member
        fields = "".join(f"{n}: {v}\r\n" for n, v in headers.items())
        while not self.ending.is_set() and not self.wrong:
            connection = connection or self.server.connect(60)
            try:
                path = dice.choice(("/api/me", "/api/me", "/api/asks", "/", "/api/admin/cache"))
                connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
                status = connection.response().status
            except Closed as e:
                status = repr(e)
            if status not in (allowed | {200} if path == "/" else allowed | {403} if path.endswith("cache") else allowed):
                self.wrong.append((headers, path, status))
            next(self.answers)
            if dice.random() < 0.02:
                connection.close()
                connection = None

    @contextlib.contextmanager
    def calling(self):
        threads = [threading.Thread(target=self.client, args=(member, n)) for n, member in enumerate(self.members)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.ending.set()
            for thread in threads:
                thread.join(patience(60))
        assert not any(thread.is_alive() for thread in threads)
        must(all(status != 200 for _, _, status in self.wrong), f"{self.wrong[:5]}")
        assert not self.wrong, self.wrong[:5]


@pytest.mark.threads
def test_everything_changes_while_all_kinds_call(cluster, empty_database, prepared, issuer, tmp_path):
    """Whoever is not concerned never notices; who is sees 200 or 401, and nothing else."""
    lasting, passing = tmp_path / "lasting", c.Issuer(tmp_path / "passing")
    key = {name: c.insert_key(cluster, empty_database, name, ["admin"]) for name in ("lasting", "victim", "table")}
    c.write(lasting, issuer.jwt_secret)
    prepared.write_config({"auth": {"jwt_secret_file": f"{lasting}, {passing.jwt_file}",
                                    "nextauth_secret_file": f"{issuer.nextauth_file}, {passing.nextauth_file}"}})
    always, sometimes, never = {200}, {200, 401}, {401}
    members = [(c.bearer(key["lasting"]), always), (c.bearer(issuer.jwt("lasting")), always),
               (c.bearer(issuer.jwt("lasting", alg="ES256")), always), (c.session(issuer.cookie("lasting")), always),
               (c.bearer(key["victim"]), sometimes), (c.bearer(key["table"]), sometimes),
               (c.bearer(issuer.jwt("victim")), sometimes), (c.session(issuer.cookie("victim")), sometimes),
               (c.bearer(passing.jwt("lasting")), sometimes), (c.session(passing.cookie("lasting")), sometimes),
               (c.bearer(issuer.jwt(key=b"x" * 32)), never), (c.bearer(c.new_key()[0]), never)]
    prepared.allow_errors = False
    with prepared as server:
        crowd = Crowd(server, members, 1)
        with crowd.calling():
            for n in range(12):
                issued = issuer.jwt("victim")   # before: unless forever, later ones are good
                revoke(server, issuer, {"subject": "victim", "forever": n % 2 == 0})
                assert server.get("/api/me", c.bearer(issued)).status == 401
                cluster.sql(empty_database, "UPDATE provost.api_key SET revoked_at = CASE WHEN revoked_at IS NULL THEN now() END"
                                            " WHERE subject = 'table'")
                if n % 3 == 0:
                    passing.jwt_secret, passing.nextauth_secret = secrets.token_urlsafe(48), secrets.token_urlsafe(32)
                    passing.write_secrets()
                settings(server, {"auth": {"leeway": f"{15 + n % 2}s"}, "cache": {"ttl": f"{n + 1}m"}})
                unrevoke(server, issuer, "subject=victim")
                assert server.get("/api/me", c.bearer(issuer.jwt("victim"))).status == 200
        assert next(crowd.answers) > 500
        assert server.get("/api/me", c.bearer(passing.jwt("lasting"))).status == 200

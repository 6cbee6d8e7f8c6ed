"""Answers that depend on who asks: kept apart between callers, shared between the tokens of one."""
import itertools
import threading
import time

import pytest

import callers as c
from caching import is_hit
from harness import SCRATCH, Server, calls, must, patience, reset_statements

ROLES = "-- @role admin,student\n"
ENDPOINTS = {
    "mine.sql": "-- @route GET /api/mine/:n\n" + ROLES + "-- @path n integer\n-- @cache ttl=1h vary=sub\n"
                "SELECT json_build_object('n', :n, 'sub', :auth_sub)",
    # Nothing in the statement says that it varies: what its author says counts.
    "declared.sql": "-- @route GET /api/declared\n" + ROLES + "-- @cache ttl=1h vary=sub\nSELECT json_build_object('a', 1)",
    "implied.sql": "-- @route GET /api/implied\n" + ROLES + "-- @cache ttl=1h\nSELECT json_build_object('sub', :auth_sub)",
    "role.sql": "-- @route GET /api/role/:n\n" + ROLES + "-- @path n integer\n-- @cache ttl=1h vary=role\n"
                "SELECT json_build_object('n', :n, 'role', :auth_role)",
    "both.sql": "-- @route GET /api/both\n" + ROLES + "-- @cache ttl=1h vary=sub,role\n"
                "SELECT json_build_object('sub', :auth_sub, 'role', :auth_role)",
    "claims.sql": "-- @route GET /api/claims/:n\n" + ROLES + "-- @path n integer\n-- @cache ttl=1h\n"
                  "SELECT json_build_object('n', :n, 'tenant', :auth_claims::json->>'tenant', 'claims', :auth_claims::json)",
    "same.sql": "-- @route GET /api/same\n" + ROLES + "-- @cache ttl=1h\nSELECT json_build_object('a', 1)",
    "public.sql": "-- @route GET /api/public\n-- @role public\n-- @cache ttl=1h\nSELECT json_build_object('sub', :auth_sub)",
    # So short-lived that fills and hits of all callers mix, and slow enough for them to collapse.
    "busy.sql": "-- @route GET /api/busy/:n\n" + ROLES + "-- @path n integer\n-- @cache ttl=30ms vary=sub\n"
                "SELECT json_build_object('n', :n, 'sub', :auth_sub, 'slept', pg_sleep(0.005)::text)",
    "busy-role.sql": "-- @route GET /api/busy-role/:n\n" + ROLES + "-- @path n integer\n-- @cache ttl=30ms vary=role\n"
                     "SELECT json_build_object('n', :n, 'role', :auth_role, 'slept', pg_sleep(0.005)::text)",
    "busy-claims.sql": "-- @route GET /api/busy-claims/:n\n" + ROLES + "-- @path n integer\n-- @cache ttl=30ms\n"
                       "SELECT json_build_object('n', :n, 'sub', :auth_claims::json->>'sub', 'slept', pg_sleep(0.005)::text)",
    "off.sql": "-- @route GET /api/off\n" + ROLES + "-- @cache off\n"
               "SELECT json_build_object('sub', :auth_sub, 'slept', pg_sleep(0.01)::text)",
}


@pytest.fixture(scope="module")
def issuer():
    return c.Issuer(SCRATCH / "sharing-issuer")


@pytest.fixture(scope="module")
def server(cluster, empty_template, issuer, request):
    cluster.create("sharing", empty_template)
    request.addfinalizer(lambda: cluster.drop("sharing"))
    server = Server(cluster, "sharing", endpoints=ENDPOINTS, token=True, config={"auth": issuer.config()})
    c.prepare(cluster, "sharing", server)
    with server:
        yield server


@pytest.fixture
def count(cluster, server):
    """A function that gets a path by all of these callers; how many statements that took, and the bodies."""
    dsn = cluster.dsn("sharing")

    def count(path, *headers):
        server.request("DELETE", "/api/admin/cache?all", {**headers[0], **ADMIN})
        reset_statements(dsn)
        answers = [server.get(path, h) for h in headers]
        assert {a.status for a in answers} == {200}, answers
        return calls(dsn), [a.json() for a in answers]
    return count


ADMIN = {}


@pytest.fixture(autouse=True)
def administrator(issuer):
    ADMIN.update(c.admin_headers(issuer))


def tokens_of(issuer, sub, roles=("admin",), **claims):
    """Tokens of one user that differ in all that does not matter."""
    now = int(time.time())
    return [c.bearer(token) for token in (
        issuer.jwt(sub, roles, **claims),
        issuer.jwt(sub, roles, iat=now - 100, exp=now + 100, jti="another", **claims),
        issuer.jwt(sub, roles, jti=None, iat=None, nbf=now - 50, **claims),
        issuer.jwt(sub, roles, alg="RS256", **claims),
        issuer.jwt(sub, roles, alg="ES256", exp=now + 7200, **claims),
    )]


@pytest.mark.parametrize("path", ["/api/mine/1", "/api/implied", "/api/declared", "/api/role/1", "/api/both", "/api/claims/1",
                                  "/api/same", "/api/public"])
def test_tokens_of_one_user_share(issuer, count, path):
    n, bodies = count(path, *tokens_of(issuer, "ada"))
    assert n == 1 and all(body == bodies[0] for body in bodies), bodies


def test_a_second_token_hits(server, issuer):
    first, second = tokens_of(issuer, "hitter")[:2]
    server.get("/api/mine/2", first)
    assert is_hit(server.get("/api/mine/2", second))


def test_a_cookie_and_a_token_of_one_user_share(issuer, count):
    n, bodies = count("/api/mine/3", c.bearer(issuer.jwt("ada")), c.session(issuer.cookie("ada")),
                      c.session(issuer.cookie("ada")), c.chunks(issuer.cookie("ada")))
    assert n == 1 and bodies[0] == {"n": 3, "sub": "ada"}


USERS = ["ada", "Ada", "ada ", "adä", "ada,admin", "ad", "a", "\u0061\u0301", "á", "1", "'", "NULL", "x" * 255]


@pytest.mark.parametrize("path", ["/api/mine/4", "/api/implied", "/api/both", "/api/public"])
def test_users_are_kept_apart(issuer, count, path):
    headers = [c.bearer(issuer.jwt(user)) for user in USERS] * 2
    n, bodies = count(path, *headers)
    assert [body["sub"] for body in bodies] == USERS * 2
    assert n == len(USERS)


def test_users_are_kept_apart_where_only_the_author_says_so(issuer, count):
    assert count("/api/declared", *[c.bearer(issuer.jwt(user)) for user in USERS] * 2)[0] == len(USERS)


def test_nobody_is_not_an_empty_user(server, issuer, count):
    n, bodies = count("/api/public", c.bearer(issuer.jwt("ada")), {}, {}, c.bearer("x"))
    assert [body["sub"] for body in bodies] == ["ada", None, None, None] and n == 2


def test_roles(issuer, count):
    one = [c.bearer(issuer.jwt(sub, roles)) for sub, roles in (
        ("ada", ["admin"]), ("bob", "ADMIN"), ("cyd", ("Admin", "admin")), ("dee", "admin"))]
    two = [c.bearer(issuer.jwt(sub, roles)) for sub, roles in (
        ("ada", ["admin", "student"]), ("bob", "student,admin"), ("cyd", "student admin student"))]
    three = [c.bearer(issuer.jwt("ada", ["student"]))]
    n, bodies = count("/api/role/1", *one, *two, *three)
    assert [body["role"] for body in bodies] == ["admin"] * 4 + ["admin,student"] * 3 + ["student"]
    assert n == 3
    n, bodies = count("/api/both", *one, *two, *three)
    assert n == 8


def test_claims(issuer, count):
    one, other = tokens_of(issuer, "ada", tenant="one"), tokens_of(issuer, "ada", tenant="other")
    n, bodies = count("/api/claims/2", *one, *other)
    assert [body["tenant"] for body in bodies] == ["one"] * 5 + ["other"] * 5 and n == 2
    claims = bodies[0]["claims"]
    assert claims == {"iss": c.ISSUER, "aud": c.AUDIENCE, "sub": "ada", "roles": ["admin"], "tenant": "one"}


def test_what_does_not_vary_is_shared_by_all(issuer, count):
    assert count("/api/same", *[c.bearer(issuer.jwt(user, "admin student")) for user in USERS],
                 c.session(issuer.cookie("bob", "student")))[0] == 1


# ---- under load ----------------------------------------------------------------------------------

class Users:
    """Clients that change between users on kept connections, and compare each answer with whom they were."""

    def __init__(self, server, path, who, seconds):
        self.server, self.path, self.who, self.seconds = server, path, who, seconds
        self.wrong, self.right = [], []

    def client(self, seed):
        end = time.monotonic() + self.seconds
        with self.server.connect() as connection:
            for n in itertools.count(seed):
                if self.wrong or (time.monotonic() > end and len(self.right) > 500):
                    return
                headers, member, expected = self.who[(n * 7 + n // 13) % len(self.who)]
                path = self.path.format(n=n % 3)
                fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
                answer = connection.response()
                if answer.status != 200 or answer.json()[member] != expected or answer.json().get("n", n % 3) != n % 3:
                    self.wrong.append((path, expected, answer))
                self.right.append(path)

    def run(self, clients=8):
        threads = [threading.Thread(target=self.client, args=(seed * 5,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(patience(60))
            assert not thread.is_alive()
        must(all(answer.status != 200 for _, _, answer in self.wrong), f"{self.wrong[:3]}")
        assert not self.wrong, self.wrong[:3]
        assert len(self.right) > 500


def users(issuer, member):
    found = []
    for n in range(4):
        kinds = [c.bearer(issuer.jwt(f"user {n}")), c.bearer(issuer.jwt(f"user {n}", alg="ES256")),
                 c.session(issuer.cookie(f"user {n}"))]
        found += [(headers, member, f"user {n}") for headers in kinds]
    return found


@pytest.mark.threads
@pytest.mark.parametrize("path", ["/api/busy/{n}", "/api/busy-claims/{n}", "/api/off"])
def test_users_never_see_each_others_answers(server, issuer, path):
    Users(server, path, users(issuer, "sub"), 2).run()


@pytest.mark.threads
def test_roles_never_see_each_others_answers(server, issuer):
    who = [(c.bearer(issuer.jwt(sub, roles)), "role", ",".join(sorted(roles)))
           for sub in ("ada", "bob") for roles in (["admin"], ["student"], ["student", "admin"])]
    Users(server, "/api/busy-role/{n}", who, 2).run()

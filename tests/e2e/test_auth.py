"""Every path by every caller, with the status that each deserves. The callers are in callers.py."""
import random
import re
from urllib.parse import urlencode

import pytest

import callers as c
from callers import ADMIN, IDENTIFIED, NOBODY, STUDENT
from harness import REPO, SCRATCH, Server
from problems import problem

OWN = {
    "own/public.sql": "-- @route GET /api/public\n-- @role public\nSELECT json_build_object('public', true)",
    "own/greeting.sql": "-- For everybody, with the caller's name if it is known.\n-- @route GET /api/greeting\n-- @role public\n"
                        "SELECT json_build_object('sub', :auth_sub, 'role', :auth_role)",
    "own/student.sql": "-- @route GET /api/student\n-- @role student\nSELECT json_build_object('student', true)",
    "own/both.sql": "-- @route GET /api/both/:n\n-- @role Student,ADMIN\n-- @path n integer\nSELECT json_build_object('n', :n)",
    "own/me.sql": "-- @route GET /api/me\n-- @role student,admin\n"
                  "SELECT json_build_object('sub', :auth_sub, 'role', :auth_role, 'claims', :auth_claims::json)",
}
OWN_WRITES = {
    "own/post.sql": "-- @route POST /api/student\n-- @role student\n-- @body n integer\nSELECT json_build_object('n', :n)",
    "own/put.sql": "-- @route PUT /api/both/:n\n-- @role Student,ADMIN\n-- @path n integer\n-- @returns none\nSELECT :n",
    "own/delete.sql": "-- @route DELETE /api/only\n-- @returns none\nSELECT 1 AS x",
    "own/open.sql": "-- @route POST /api/public\n-- @role public\n-- @body n integer\nSELECT json_build_object('n', :n)",
}
ORIGIN = "https://admin.example.org"

# Path of each endpoint of the demo, with what it cannot do without; a course's, institution's or user's id for {}.
DEMO = {
    "categories/list": "/api/admin/categories",
    "courses/enrollments": "/api/admin/courses/{course}/enrollments",
    "courses/get": "/api/admin/courses/{course}",
    "courses/list": "/api/admin/courses",
    "institutions/courses": "/api/admin/institutions/{institution}/courses",
    "institutions/get": "/api/admin/institutions/{institution}",
    "institutions/list": "/api/admin/institutions",
    "notifications/list": "/api/admin/notifications",
    "payments/list": "/api/admin/payments",
    "payments/pending-count": "/api/admin/payments/pending-count",
    "revenue": "/api/admin/revenue?startDate=2025-01-01&endDate=2025-12-31",
    "stats": "/api/admin/stats",
    "subscriptions/list": "/api/admin/subscriptions",
    "subscriptions/stats": "/api/admin/subscriptions/stats",
    "tags/list": "/api/admin/tags",
    "users/get": "/api/admin/users/{user}",
    "users/list": "/api/admin/users",
}

# Its writes, none of which does anything: what is wrong, or not there, is told to those alone who may write.
NOTHING = {"nothing at all": 1}
DEMO_WRITES = {
    "categories/create": ("POST", "/api/admin/categories", NOTHING, 422),
    "categories/delete": ("DELETE", "/api/admin/categories/none", None, 404),
    "categories/replace": ("PUT", "/api/admin/categories/none", NOTHING, 422),
    "courses/create": ("POST", "/api/admin/courses", NOTHING, 422),
    "courses/delete": ("DELETE", "/api/admin/courses/none", None, 404),
    "courses/enrollment-update": ("PATCH", "/api/admin/courses/none/enrollments", NOTHING, 422),
    "courses/replace": ("PUT", "/api/admin/courses/none", NOTHING, 422),
    "courses/update": ("PATCH", "/api/admin/courses/none", NOTHING, 422),
    "courses/weekly-prices": ("POST", "/api/admin/courses/none/weekly-prices", NOTHING, 422),
    "institutions/create": ("POST", "/api/admin/institutions", NOTHING, 422),
    "institutions/delete": ("DELETE", "/api/admin/institutions/none", None, 404),
    "institutions/update": ("PATCH", "/api/admin/institutions/none", NOTHING, 422),
    "notifications/create": ("POST", "/api/admin/notifications", NOTHING, 422),
    "payments/approve": ("POST", "/api/admin/payments/approve/none", None, 404),
    "payments/disapprove": ("POST", "/api/admin/payments/disapprove/none", NOTHING, 422),
    "tags/create": ("POST", "/api/admin/tags", NOTHING, 422),
    "tags/delete": ("DELETE", "/api/admin/tags/none", None, 404),
    "tags/replace": ("PUT", "/api/admin/tags/none", NOTHING, 422),
    "users/status": ("PATCH", "/api/admin/users/none/status", NOTHING, 422),
    "users/update": ("PATCH", "/api/admin/users/none", NOTHING, 422),
}

PUBLIC, FOR_ADMIN, FOR_STUDENT, FOR_BOTH = object(), object(), object(), object()
ALLOWED = {FOR_ADMIN: {ADMIN}, FOR_STUDENT: {STUDENT}, FOR_BOTH: {STUDENT, ADMIN}}


class Door:
    """A request, and the status it has for whom."""

    def __init__(self, method, path, whom, status=200, body=None, write=False, unknown_first=False):
        self.method, self.path, self.whom, self.status = method, path, whom, status
        self.body, self.write, self.unknown_first = body, write, unknown_first

    def expected(self, caller):
        if self.whom is PUBLIC:
            return self.status
        if caller.who not in IDENTIFIED:
            return 401
        if self.unknown_first:
            return self.status
        if caller.who not in ALLOWED[self.whom]:
            return 403
        return 403 if self.write and caller.from_cookie else self.status

    def __repr__(self):
        return f"{self.method} {self.path}"


# Methods by which a path of the demo, without its parameters, can be written to.
WRITTEN = {}
for _method, _path, _, _ in DEMO_WRITES.values():
    WRITTEN.setdefault(re.sub("/none", "/{}", _path), set()).add(_method)


def endpoint_doors(path, whom, written=()):
    """404 and 405 are for whoever is known; what asks for the path as such needs its role."""
    found = [Door("GET", path, whom), Door("HEAD", path, whom)]
    found += [Door(method, path, FOR_ADMIN, 405, unknown_first=True) for method in ("POST", "PUT", "PATCH", "DELETE")
              if method not in written]
    return found + [Door("OPTIONS", path, whom, 204), Door("BREW", path, whom, 405)]


def builtin_doors():
    found = []
    for path in ("/", "/livez", "/readyz"):
        found += [Door("GET", path, PUBLIC), Door("HEAD", path, PUBLIC), Door("OPTIONS", path, PUBLIC, 204),
                  Door("POST", path, PUBLIC, 405), Door("DELETE", path, PUBLIC, 405)]
    for path, status in (("/client", 302), ("/client/", 302), ("/client/demo.html", 200), ("/client/demo.js", 200)):
        found += [Door("GET", path, PUBLIC, status), Door("HEAD", path, PUBLIC, status), Door("OPTIONS", path, PUBLIC, 204),
                  Door("POST", path, PUBLIC, 405), Door("BREW", path, PUBLIC, 405)]
    found += [Door(method, "/client/nothing", PUBLIC, 404) for method in ("GET", "HEAD", "POST", "OPTIONS", "BREW")]
    found += [Door("GET", "/clients", FOR_ADMIN, 404, unknown_first=True), Door("GET", "/client%2Fdemo.html", FOR_ADMIN, 404, unknown_first=True)]
    cache, revocations = "/api/admin/cache", "/api/admin/revocations"
    sockets = "/api/admin/websocket"
    found += [Door("GET", sockets, FOR_ADMIN), Door("HEAD", sockets, FOR_ADMIN), Door("OPTIONS", sockets, FOR_ADMIN, 204),
              Door("POST", sockets, FOR_ADMIN, 405), Door("GET", "/ws/", FOR_ADMIN, 404, unknown_first=True),
              Door("GET", "/echo", FOR_ADMIN, 404, unknown_first=True)]
    found += [Door("GET", cache, FOR_ADMIN), Door("HEAD", cache, FOR_ADMIN), Door("OPTIONS", cache, FOR_ADMIN, 204),
              Door("POST", cache, FOR_ADMIN, 405), Door("BREW", cache, FOR_ADMIN, 405),
              Door("DELETE", cache, FOR_ADMIN, 400, write=True), Door("DELETE", cache + "?tag=nothing", FOR_ADMIN, write=True),
              Door("GET", revocations, FOR_ADMIN, 405), Door("HEAD", revocations, FOR_ADMIN, 405),
              Door("PUT", revocations, FOR_ADMIN, 405), Door("OPTIONS", revocations, FOR_ADMIN, 204),
              Door("POST", revocations, FOR_ADMIN, body={"token": "of nobody"}, write=True),
              Door("POST", revocations, FOR_ADMIN, 422, body={"nothing": 1}, write=True),
              Door("DELETE", revocations + "?token=never+revoked", FOR_ADMIN, 404, write=True)]
    return found


def write_doors():
    """Who may not write is told so before anything of what was sent is looked at."""
    found = [Door(method, path, FOR_ADMIN, status, body, write=True) for method, path, body, status in DEMO_WRITES.values()]
    only = "/api/only"
    return found + [
        Door("POST", "/api/student", FOR_STUDENT, 201, {"n": 1}, write=True), Door("POST", "/api/student", FOR_STUDENT, 422, NOTHING, write=True),
        Door("PUT", "/api/both/1", FOR_BOTH, 204, write=True), Door("PUT", "/api/both/x", FOR_BOTH, 400, write=True),
        Door("DELETE", only, FOR_ADMIN, 204, write=True), Door("POST", "/api/public", PUBLIC, 201, {"n": 1}),
        Door("POST", "/api/public", PUBLIC, 422, NOTHING),
        *(Door(method, only, FOR_ADMIN, 405, unknown_first=True) for method in ("GET", "HEAD", "POST", "BREW")),
        Door("OPTIONS", only, FOR_ADMIN, 204, unknown_first=True)]


def batch_doors():
    """For whoever is known; what it asks for is the items' own matter. A read, so a cookie will do."""
    batch, body = "/api/batch", {"requests": ["/api/public"]}
    found = [Door("POST", batch, FOR_ADMIN, 200, body, unknown_first=True), Door("POST", batch, FOR_ADMIN, 422, NOTHING, unknown_first=True)]
    return found + [Door(method, batch, FOR_ADMIN, 405, unknown_first=True) for method in ("GET", "PUT", "BREW")]


def unknown_doors():
    paths = ("/nothing", "/api", "/api/admin", "/api/admin/nothing", "/api/admin/stats/", "/api/admin/courses/x/y/z", "/livez/",
             "//", "/api/admin/cache/", "/api/admin/revocations/x", "/API/admin/stats", "/api/admin/%73tats%2F")
    return [Door(method, path, FOR_ADMIN, 404, unknown_first=True)
            for path in paths for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "BREW")]


class World:
    """A server with all doors, and all callers."""

    def __init__(self, cluster, db, server, issuer, keys):
        self.cluster, self.db, self.server, self.issuer = cluster, db, server, issuer
        self.callers = c.callers(issuer, keys)
        self.caller = {caller.name: caller for caller in self.callers}
        ids = {table: cluster.sql(db, f'SELECT min(id) FROM "{table}"')[0][0] for table in ("course", "institution", "user")}
        self.doors = [door for path in DEMO.values() for door in
                      endpoint_doors(path.format(**ids), FOR_ADMIN, WRITTEN.get(re.sub(r"{\w+}", "{}", path), ()))]
        self.doors += endpoint_doors("/api/student", FOR_STUDENT, ["POST"]) + endpoint_doors("/api/both/1", FOR_BOTH, ["PUT"])
        self.doors += write_doors() + batch_doors()
        self.doors += endpoint_doors("/api/me", FOR_BOTH)
        for path in ("/api/public", "/api/greeting"):
            self.doors += [door if door.unknown_first else Door(door.method, path, PUBLIC, door.status)
                           for door in endpoint_doors(path, PUBLIC, ["POST"] if path == "/api/public" else ())]
        self.doors += builtin_doors() + unknown_doors()


@pytest.fixture(scope="module")
def world(cluster, database):
    issuer = c.Issuer(SCRATCH / "auth-issuer")
    server = Server(cluster, database, token=True, config={"auth": issuer.config(), "log": {"level": "debug"},
                                                           "http": {"origins": ORIGIN}})
    for path, text in (OWN | OWN_WRITES).items():
        server.write_endpoint(path, text)
    c.prepare(cluster, database, server)
    keys = c.make_keys(cluster, database)
    with server:
        for body in c.revocations(keys):
            answer = server.request("POST", "/api/admin/revocations", c.admin_headers(issuer), body)
            assert answer.status == 200, answer
        yield World(cluster, database, server, issuer, keys)


# ---- the walk ------------------------------------------------------------------------------------

def ask(connection, port, door, headers):
    body = c.compact(door.body) if door.body else b""
    fields = {"Host": f"127.0.0.1:{port}", **headers}
    if body:
        fields |= {"Content-Type": "application/json", "Content-Length": len(body)}
    lines = [f"{door.method} {door.path} HTTP/1.1", *(f"{n}: {v}" for n, v in fields.items())]
    connection.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return connection.response(door.method == "HEAD")


def check(answer, door, caller):
    assert answer.status == door.expected(caller), (caller, door, answer)
    challenge = answer.header("WWW-Authenticate")
    if answer.status != 401:
        assert challenge is None, answer
    elif caller.who == NOBODY:
        assert challenge == 'Bearer realm="provost"', answer
    else:
        assert challenge.startswith('Bearer realm="provost", error="invalid_token", error_description="'), answer
    if answer.status >= 400 and door.method != "HEAD":
        problem(answer, answer.status, ["errors"] if answer.status in (400, 422) and "errors" in answer.json() else ())
    assert answer.header("Set-Cookie") is None


@pytest.mark.parametrize("name", c.names())
def test_every_path_by(world, name):
    caller, server = world.caller[name], world.server
    with server.connect() as connection:
        for door in world.doors:
            check(ask(connection, server.port, door, caller.headers), door, caller)


@pytest.mark.parametrize("seed", range(4))
def test_one_connection_for_all_callers(world, seed):
    """What a connection remembers of one caller is never the next one's."""
    dice, server = random.Random(seed), world.server
    with server.connect() as connection:
        caller = world.callers[0]
        for _ in range(3000):
            caller = dice.choice(world.callers) if dice.random() < 0.7 else caller
            door = dice.choice(world.doors)
            check(ask(connection, server.port, door, caller.headers), door, caller)


def test_the_table_has_the_whole_demo(world):
    files = sorted(str(f.relative_to(REPO / "config/endpoints").with_suffix("")) for f in (REPO / "config/endpoints").rglob("*.sql"))
    assert files == sorted([*DEMO, *DEMO_WRITES])
    listed = world.server.get("/", c.admin_headers(world.issuer)).json()["endpoints"]
    assert {e["name"] for e in listed} == {
        *DEMO, *DEMO_WRITES, "own/public", "own/greeting", "own/both", "own/me", "own/put", "own/delete", "own/open"}


def test_unknown_and_known_paths_cannot_be_told_apart(world):
    for name in ("nothing", "a JWT: expired", "a cookie of another secret"):
        bodies = set()
        for path in ("/api/admin/stats", "/api/admin/nothing", "/api/student", "/api/admin/cache", "/x"):
            for method in ("GET", "DELETE", "OPTIONS", "BREW"):
                answer = world.server.request(method, path, {**world.caller[name].headers, "X-Request-Id": "same"})
                fixed = [(n, v) for n, v in answer.headers if n != "Date"]
                bodies.add((answer.status, repr(fixed), answer.body))
        assert len(bodies) == 1, bodies


# ---- who one is ----------------------------------------------------------------------------------

SHOWN = {"an API key": ("robot", "admin"), "HS256, student": ("stu", "student"), "ES256, admin in capitals": ("ada", "admin,other"),
         "a cookie": ("ada", "admin"), "a cookie in chunks": ("ada", "admin"), "a student's cookie": ("stu", "student"),
         "a student's token beside an admin's cookie": ("stu", "student")}


@pytest.mark.parametrize("name", SHOWN)
def test_the_caller_in_sql(world, name):
    caller, (subject, role) = world.caller[name], SHOWN[name]
    seen = world.server.get("/api/me", caller.headers).json()
    assert (seen["sub"], seen["role"]) == (subject, role)
    assert not {"exp", "iat", "nbf", "jti"} & set(seen["claims"] or {}), seen
    assert world.server.get("/api/greeting", caller.headers).json() == {"sub": subject, "role": role}


def test_who_is_not_known_is_nobody_to_a_public_endpoint(world):
    for caller in world.callers:
        if caller.who not in IDENTIFIED:
            assert world.server.get("/api/greeting", caller.headers).json() == {"sub": None, "role": None}, caller


def test_the_index_lists_what_one_may_call(world):
    def listed(name):
        return {e["name"] for e in world.server.get("/", world.caller[name].headers).json()["endpoints"]}
    public = {"own/public", "own/greeting", "own/open"}
    assert listed("nothing") == public
    assert listed("a JWT: expired") == public
    assert listed("a cookie without a role") == public
    assert listed("HS256, student") == public | {"own/student", "own/both", "own/me", "own/post", "own/put"}


def test_repeated_fields_are_refused(world):
    token, cookie = world.issuer.jwt(), world.issuer.cookie()
    for field in (f"Authorization: Bearer {token}", f"Cookie: {c.COOKIE}={cookie}"):
        head = f"GET /api/me HTTP/1.1\r\nHost: localhost\r\n{field}\r\n{field}\r\n\r\n"
        problem(world.server.raw(head.encode())[0], 400)


def test_the_order_of_chunks_does_not_matter(world):
    pieces = c.chunks(world.issuer.cookie())["Cookie"].split("; ")
    for seed in range(5):
        random.Random(seed).shuffle(pieces)
        assert world.server.get("/api/me", {"Cookie": "; ".join(pieces)}).json()["sub"] == "ada"


def test_credentials_in_the_url_are_nobodys(world):
    token = world.issuer.jwt()
    for query in ({"token": token}, {"access_token": token}, {"authorization": f"Bearer {token}"}):
        assert world.server.get("/api/me?" + urlencode(query)).status == 401
    assert world.server.raw(f"GET http://ada:{token}@localhost/api/me HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())[0].status == 400


def test_token_mode_answers_to_any_name(world):
    headers = c.admin_headers(world.issuer)
    for host in ("dashboard.example.org", "10.0.0.1:8080", "[2001:db8::1]:80"):
        assert world.server.get("/api/admin/stats", {**headers, "Host": host}).status == 200
    for field in ({"X-Forwarded-For": "192.0.2.1"}, {"Forwarded": "for=192.0.2.1"}, {"Via": "1.1 x"}, {"X-Real-IP": "192.0.2.1"}):
        assert world.server.get("/api/admin/stats", {**headers, **field}).status == 200


# ---- browsers ------------------------------------------------------------------------------------

WRITES = {"invalidate": ("DELETE", "/api/admin/cache?tag=nothing", None),
          "revoke": ("POST", "/api/admin/revocations", {"token": "of nobody"})}
# Of what a browser says by itself, and whether a change by cookie is then meant.
SAID = {
    "nothing": ({}, False),
    "a permitted origin": ({"Origin": ORIGIN}, True),
    "a permitted origin, another site": ({"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"}, True),
    "its own origin": ({"Origin": "http://{host}"}, True),
    "its own origin, behind TLS": ({"Origin": "https://{host}"}, True),
    "its own origin, behind TLS, by itself": ({"Origin": "https://{host}", "Sec-Fetch-Site": "same-origin"}, True),
    "its own host, of another scheme": ({"Origin": "http://{host}", "Sec-Fetch-Site": "cross-site"}, False),
    "its own host, of a scheme that is no page's": ({"Origin": "ftp://{host}"}, False),
    "its own host, without a scheme": ({"Origin": "://{host}"}, False),
    "its own host at another port": ({"Origin": "http://127.0.0.1:1"}, False),
    "same origin": ({"Sec-Fetch-Site": "same-origin"}, True),
    "same site": ({"Sec-Fetch-Site": "same-site"}, False),
    "another site": ({"Sec-Fetch-Site": "cross-site"}, False),
    "no site": ({"Sec-Fetch-Site": "none"}, False),
    "the null origin": ({"Origin": "null"}, False),
    "an empty origin": ({"Origin": ""}, False),
    "another origin": ({"Origin": "https://evil.example.org"}, False),
    "another origin that says it is the same": ({"Origin": "https://evil.example.org", "Sec-Fetch-Site": "same-origin"}, False),
    "an origin that begins alike": ({"Origin": ORIGIN + ".evil.example"}, False),
    "an origin that ends alike": ({"Origin": "https://evil-admin.example.org"}, False),
    "a permitted origin without TLS": ({"Origin": "http://admin.example.org"}, False),
    "a permitted origin at another port": ({"Origin": ORIGIN + ":8443"}, False),
    "a permitted referer": ({"Referer": ORIGIN + "/x"}, False),
}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("write", WRITES)
def test_a_change_by_cookie_must_be_meant(world, write, said):
    (method, path, body), (headers, meant) = WRITES[write], SAID[said]
    headers = {n: v.format(host=f"127.0.0.1:{world.server.port}") for n, v in headers.items()}
    for name in ("a cookie", "a secure cookie", "a cookie in chunks"):
        answer = world.server.request(method, path, {**world.caller[name].headers, **headers}, body)
        assert answer.status == (200 if meant else 403), answer
    for name in ("an API key", "RS256, admin"):
        assert world.server.request(method, path, {**world.caller[name].headers, **headers}, body).status == 200
    for name in ("a student's cookie", "a cookie without a role"):
        assert world.server.request(method, path, {**world.caller[name].headers, **headers}, body).status == 403
    answer = world.server.request(method, path, {**world.caller["a cookie of another secret"].headers, **headers}, body)
    assert answer.status == 401
    # To read nobody must mean it: an answer is not shown to the pages of others.
    answer = world.server.get("/api/admin/stats", {**world.caller["a cookie"].headers, **headers})
    assert answer.status == 200 and (answer.header("Access-Control-Allow-Origin") == ORIGIN) == (headers.get("Origin") == ORIGIN)


@pytest.mark.parametrize("origin", [ORIGIN, "https://evil.example.org", "null"])
def test_a_preflight_tells_nothing(world, origin):
    seen = set()
    for path in ("/api/admin/stats", "/api/admin/nothing", "/api/admin/cache", "/api/public", "/api/student", "/x", "/livez"):
        for method in ("GET", "DELETE", "POST"):
            answer = world.server.request("OPTIONS", path, {"Origin": origin, "Access-Control-Request-Method": method,
                                                            "Access-Control-Request-Headers": "authorization",
                                                            "X-Request-Id": "same"})
            assert answer.status == 204
            seen.add(repr([(n, v) for n, v in answer.headers if n != "Date"]))
            permitted = answer.header("Access-Control-Allow-Origin") == origin
            assert permitted == (origin == ORIGIN)
            if permitted:
                assert {"GET", "DELETE", "POST"} <= set(answer.header("Access-Control-Allow-Methods").split(", "))
                assert "authorization" in answer.header("Access-Control-Allow-Headers").lower()
                assert answer.header("Access-Control-Allow-Credentials") == "true"
    assert len(seen) == 1, seen


def test_a_page_of_a_permitted_origin_may_read_why_it_was_refused(world):
    answer = world.server.get("/api/admin/stats", {"Origin": ORIGIN})
    assert answer.status == 401 and answer.header("Access-Control-Allow-Origin") == ORIGIN


# ---- mode = none ---------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def open_server(cluster, database):
    with Server(cluster, database) as server:
        yield server


def test_without_identities_everybody_is_the_administrator(open_server, world):
    assert open_server.get("/api/admin/stats").status == 200
    for caller in world.callers:
        assert open_server.get("/api/admin/stats", caller.headers).status == 200, caller
    answer = open_server.request("POST", "/api/admin/revocations", body={"token": "x"})
    problem(answer, 409)


@pytest.mark.parametrize("host", ["dashboard.example.org", "10.0.0.1", "127.0.0.1.example.org", "localhost.example.org",
                                  "[2001:db8::1]", "0.0.0.0", "127.example.org"])
def test_without_identities_other_names_are_refused(open_server, host):
    for path in ("/", "/livez", "/api/admin/stats", "/api/admin/cache", "/nothing"):
        problem(open_server.get(path, {"Host": host}), 403)


@pytest.mark.parametrize("field", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "x-forwarded-proto", "Via", "X-Real-IP"])
def test_without_identities_proxies_are_refused(open_server, field):
    for path in ("/", "/api/admin/stats"):
        problem(open_server.get(path, {field: "127.0.0.1"}), 403)


def test_without_identities_other_sites_pages_change_nothing(open_server):
    def invalidate(headers):
        return open_server.request("DELETE", "/api/admin/cache?tag=nothing", headers).status
    own = f"http://127.0.0.1:{open_server.port}"
    assert [invalidate(h) for h in ({}, {"Origin": own}, {"Origin": own, "Sec-Fetch-Site": "same-origin"})] == [200] * 3
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Origin": own, "Sec-Fetch-Site": "cross-site"}):
        assert invalidate(headers) == 403, headers


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_without_identities_others_cannot_be_listened_to(cluster, database, listen):
    server = Server(cluster, database, config={"http": {"listen": listen}}, wait=None, allow_errors=True)
    server.start()
    assert server.wait_exit() != 0
    assert "[auth] mode: with none, whoever reaches the server is its administrator: write token" in server.log()

"""What answers carry: request ids, timing, CORS; and what is not an endpoint: health, the index, the access log."""
import os
import re

import pytest

from harness import Server, wait_until
from problems import problem

ENDPOINTS = {
    "greetings/hello.sql": "-- A greeting\n-- in two lines.\n-- @route GET /api/hello\nSELECT json_build_object('hello', 'world')",
    "greetings/item.sql": """-- An item.
-- @route GET /api/items/:id
-- @role staff,Admin
-- @path id text max=36
-- @query page integer min=1 max=9 default=1
-- @query status text upper enum=ON|OFF
-- @query tags text[]
-- @query from date required
SELECT json_build_object('id', :id, 'page', :page, 'status', :status, 'tags', :tags, 'from', :from)""",
    "open.sql": "-- For everyone.\n-- @route GET /api/open\n-- @role public\nSELECT json_build_object('open', true)",
    "missing.sql": "-- Never there.\n-- @route GET /api/missing\nSELECT json_build_object('x', 1) WHERE false",
    "failing.sql": "-- Always fails.\n-- @route GET /api/failing\n-- @query n integer default=0\nSELECT json_build_object('x', 1 / :n)",
}
ORIGINS = ["https://admin.example.org", "http://localhost:3000"]


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("http_answers", empty_template)
    yield "http_answers"
    cluster.drop("http_answers")


@pytest.fixture(scope="module")
def server(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        yield server


@pytest.fixture(scope="module")
def logging(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS,
                config={"http": {"access_log": "./access.log", "origins": ", ".join(ORIGINS)}}) as server:
        yield server


# ---- every answer --------------------------------------------------------------------------------

def test_headers_of_a_success(server):
    answer = server.get("/api/hello")
    assert answer.status == 200 and answer.reason == "OK" and answer.version == "HTTP/1.1"
    assert answer.header("Content-Type") == "application/json; charset=utf-8"
    assert answer.header("Cache-Control") == "private, no-cache"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Content-Length") == str(len(answer.body))
    assert re.fullmatch(r'"[0-9a-f]{32}"', answer.header("ETag"))
    assert answer.header("Server") is None, "says nothing of what it runs on"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.header("Date"))


def test_etag_is_of_the_body(server):
    first, again = server.get("/api/hello"), server.get("/api/hello")
    other = server.get("/api/items/1?from=2024-01-01")
    assert first.header("ETag") == again.header("ETag") != other.header("ETag")


def test_server_timing_of_what_went_to_the_database(server):
    pattern = r"queue;dur=\d+\.\d{3}, db;dur=\d+\.\d{3}"
    server.request("DELETE", "/api/admin/cache?all")
    for path in ("/api/hello", "/api/missing", "/api/failing"):
        assert re.fullmatch(pattern, server.get(path).header("Server-Timing")), path
    for path in ("/api/hello", "/api/missing"):
        assert server.get(path).header("Server-Timing") is None, f"{path} is stored"
    for path in ("/", "/livez", "/readyz", "/nope", "/api/items/1"):
        assert server.get(path).header("Server-Timing") is None, path


KEPT = ["a", "abc-123._X", "0" * 128, "..", "00000000-0000-0000-0000-000000000000"]
REPLACED = {"empty": "", "too long": "0" * 129, "a blank": "a b", "a quote": 'a"b', "an equals sign": "a=b", "a list": "a,b",
            "not ASCII": "\xe4", "a slash": "a/b", "an escape": "%41", "markup": "<script>"}


@pytest.mark.parametrize("path", ["/api/hello", "/livez", "/nope", "/api/items/1", "/api/failing"])
@pytest.mark.parametrize("sane", KEPT)
def test_sane_request_id_is_kept(server, sane, path):
    assert server.get(path, {"X-Request-Id": sane}).header("X-Request-Id") == sane


@pytest.mark.parametrize("case", REPLACED)
def test_other_request_id_is_replaced(server, case):
    answer = server.get("/api/hello", {"X-Request-Id": REPLACED[case]})
    assert re.fullmatch("[0-9a-f]{16}", answer.header("X-Request-Id"))


def test_request_ids_differ(server):
    with server.connect() as connection:
        ids = set()
        for _ in range(500):
            connection.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            ids.add(connection.response().header("X-Request-Id"))
    assert len(ids) == 500


# ---- CORS ----------------------------------------------------------------------------------------

FOREIGN_ORIGINS = ["https://evil.example.org", "https://admin.example.org.evil.org", "https://admin.example.org:444",
                   "http://admin.example.org", "https://admin.example.or", "null", "", "https://ADMIN.example.org/"]
PREFLIGHT = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-request-id"}


def cors(answer):
    return {n: v for n, v in answer.headers if n.startswith("Access-Control-") or (n, v) == ("Vary", "Origin")}


@pytest.mark.parametrize("path", ["/api/hello", "/livez", "/", "/nope", "/api/items/1", "/api/failing", "/api/missing"])
@pytest.mark.parametrize("origin", ORIGINS)
def test_cors_of_a_permitted_origin(logging, origin, path):
    assert cors(logging.get(path, {"Origin": origin})) == {
        "Vary": "Origin", "Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "ETag, Age, Cache-Status, X-Request-Id, Server-Timing, Retry-After"}


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_cors_of_another_origin(logging, origin):
    for method, more in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        assert cors(logging.request(method, "/api/hello", {"Origin": origin, **more})) == {"Vary": "Origin"}


def test_cors_without_an_origin(logging):
    assert cors(logging.get("/api/hello")) == {"Vary": "Origin"}


def test_cors_preflight(logging):
    answer = logging.request("OPTIONS", "/api/items/1", {"Origin": ORIGINS[1], **PREFLIGHT})
    assert answer.status == 204
    assert cors(answer) == {
        "Vary": "Origin", "Access-Control-Allow-Origin": ORIGINS[1], "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",  # whatever the path
        "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match, X-Request-Id",
        "Access-Control-Max-Age": "600"}


def test_options_that_is_no_preflight(logging):
    answer = logging.request("OPTIONS", "/api/hello", {"Origin": ORIGINS[0]})
    assert answer.status == 204 and "Access-Control-Allow-Methods" not in cors(answer)


def test_cors_of_a_method_that_is_not_there(logging):
    answer = logging.request("POST", "/api/hello", {"Origin": ORIGINS[0]})
    assert answer.status == 405 and cors(answer)["Access-Control-Allow-Origin"] == ORIGINS[0]


@pytest.mark.parametrize("origin", [*ORIGINS, None])
def test_no_cors_unless_configured(server, origin):
    for method, more in (("GET", {}), ("OPTIONS", PREFLIGHT)):
        assert cors(server.request(method, "/api/hello", {"Origin": origin, **more})) == {}


# ---- health and the index ------------------------------------------------------------------------

def test_livez(server):
    answer = server.get("/livez?anything=%zz")
    assert answer.status == 200 and answer.json() == {"status": "alive"}


def test_readyz(server):
    answer = server.get("/readyz")
    assert answer.status == 200 and answer.json() == {"status": "ready", "database": "up"}


def test_index(server):
    answer = server.get("/")
    assert answer.status == 200
    index = answer.json()
    assert index["name"] == "provost" and re.fullmatch(r"\d+\.\d+\.\d+", index["version"])
    assert [e["name"] for e in index["endpoints"]] == ["failing", "greetings/hello", "greetings/item", "missing", "open"]
    by_name = {e["name"]: e for e in index["endpoints"]}
    assert by_name["greetings/hello"] == {
        "name": "greetings/hello", "method": "GET", "path": "/api/hello", "description": "A greeting\nin two lines.",
        "roles": ["admin"], "parameters": []}
    assert by_name["open"]["roles"] == ["public"]
    assert by_name["greetings/item"]["roles"] == ["staff", "Admin"]
    assert by_name["greetings/item"]["parameters"] == [
        {"name": "id", "in": "path", "type": "text", "required": True, "max": "36"},
        {"name": "page", "in": "query", "type": "integer", "required": False, "default": "1", "min": "1", "max": "9"},
        {"name": "status", "in": "query", "type": "text", "required": False, "enum": ["ON", "OFF"]},
        {"name": "tags", "in": "query", "type": "text[]", "required": False},
        {"name": "from", "in": "query", "type": "date", "required": True},
    ]


# ---- the access log ------------------------------------------------------------------------------

FIELD = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"=]*)(?: |$)')


def logfmt(line):
    """The fields of a line; fails on what is not logfmt."""
    fields, position = [], 0
    while position < len(line):
        match = FIELD.match(line, position)
        assert match, f"not logfmt at {position}: {line!r}"
        fields.append((match[1], match[2].strip('"')))
        position = match.end()
    assert len(dict(fields)) == len(fields), f"a field twice: {line!r}"
    return dict(fields)


def access_lines(server, last_id, name="access.log"):
    """The lines of the access log up to the request with that id."""
    file = server.folder / name
    wait_until(lambda: file.exists() and f"id={last_id} " in file.read_text(), what=f"{last_id} in the access log")
    return [logfmt(line) for line in file.read_text().splitlines()]


def logged(server, path, method="GET", **headers):
    """The response and the access line of a request."""
    logged.count += 1
    identity = f"logged-{logged.count}"
    answer = server.request(method, path, {"X-Request-Id": identity, **headers})
    [line] = [l for l in access_lines(server, identity) if l["id"] == identity]
    return answer, line


logged.count = 0


def test_access_line_of_a_success(logging):
    answer, line = logged(logging, "/api/items/secret-id?from=2024-01-01&tags=secret-tag")
    assert answer.status == 200
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
    assert line["method"] == "GET" and line["route"] == "/api/items/:id" and line["status"] == "200"
    assert line["bytes"] == str(len(answer.body))
    assert 0 < int(line["db_us"]) <= int(line["us"]) and int(line["queue_us"]) >= 0


@pytest.mark.parametrize("path, status, route", [
    ("/livez", 200, "-"), ("/nope/secret", 404, "-"), ("/api/items/secret?from=x", 400, "/api/items/:id"),
    ("/api/failing", 422, "/api/failing"), ("/api/missing", 404, "/api/missing"), ("/api/items/%GG", 400, "-"),
])
def test_access_line_of_other_answers(logging, path, status, route):
    answer, line = logged(logging, path)
    assert answer.status == status and line["status"] == str(status) and line["route"] == route
    assert line["bytes"] == str(len(answer.body))


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_access_line_of_an_answer_without_a_body(logging, method):
    _, line = logged(logging, "/api/hello", method)
    assert line["method"] == method and line["bytes"] == "0"


def test_access_line_of_a_refused_head(logging):
    answer, line = logged(logging, "/api/hello", Host="example.org")
    assert answer.status == 403 and line["status"] == "403"


def test_access_log_holds_no_values(logging):
    logged(logging, "/api/items/secret-id?from=2024-01-01&tags=secret-tag&page=secret-page&secret-name=1", Cookie="secret-cookie",
           Authorization="Bearer secret-token", Referer="http://localhost/secret-referer")
    logged(logging, "/nope/secret-path?secret-query")
    assert "secret" not in (logging.folder / "access.log").read_text()
    assert "secret" not in logging.log()


def test_a_request_cannot_forge_a_line(logging):
    _, line = logged(logging, "/api/hello", method="GET\"level=error", Origin="a\" status=1")
    assert line["status"] != "1"


def test_access_log_is_opened_anew_after_a_rotation(logging):
    logged(logging, "/livez")
    os.rename(logging.folder / "access.log", logging.folder / "access.log.1")
    logged_before = logging.get("/livez", {"X-Request-Id": "still-old"})
    assert logged_before.status == 200
    access_lines(logging, "still-old", "access.log.1")
    position = len(logging.log())
    logging.reload()
    logging.wait_log("reload: applied", since=position)
    logged(logging, "/livez")
    assert "logged-" in (logging.folder / "access.log").read_text()


def test_access_log_to_stderr_and_off(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS, config={"http": {"access_log": "stderr"}}) as server:
        server.get("/api/hello", {"X-Request-Id": "seen"})
        line = logfmt(server.wait_log(r"ts=[^\n]* id=seen [^\n]*")[0])
        assert line["route"] == "/api/hello"
        server.write_config({"http": {"access_log": "off"}})
        server.reload()
        server.wait_log("reload: applied")
        server.get("/api/hello", {"X-Request-Id": "unseen"})
    assert "unseen" not in server.log()


# ---- the error log -------------------------------------------------------------------------------

def test_a_failed_statement_is_logged_with_its_request(server):
    answer = server.get("/api/failing")
    document = problem(answer, 422)
    line = logfmt(server.wait_log(f"ts=[^\n]* request={document['instance']} [^\n]*")[0])
    assert line["level"] == "warn" and line["msg"] == "statement failed"
    assert line["endpoint"] == "failing" and line["sqlstate"] == "22012" and "division by zero" in line["reason"]
    assert b"division" not in answer.body


def test_every_line_of_the_log_is_logfmt(server):
    for line in server.log().splitlines():
        fields = logfmt(line)
        assert list(fields)[:3] == ["ts", "level", "msg"] and fields["level"] in ("error", "warn", "info", "debug")

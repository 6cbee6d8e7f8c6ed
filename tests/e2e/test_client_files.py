"""/client/: the browser's side, which is part of the server, for everybody."""
import gzip
import hashlib
import re

import pytest

import callers as c
from harness import REPO, SCRATCH, Server
from problems import problem

FILES = REPO / "src/web/client"
ENDPOINTS = {"one.sql": "-- @route GET /api/one\nSELECT json_build_object('n', 1)"}
SITE = "https://admin.example.org"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".svg": "image/svg+xml", ".ts": "text/plain; charset=utf-8"}
NAMES = sorted(path.name for path in FILES.iterdir() if path.name != "package.json")    # which is for Node
PACKED = {"Accept-Encoding": "gzip"}


@pytest.fixture(scope="module")
def server(cluster, empty_template, request):
    """It asks who is calling; /client/ is for everybody all the same."""
    cluster.create("client_files", empty_template)
    request.addfinalizer(lambda: cluster.drop("client_files"))
    issuer = c.Issuer(SCRATCH / "client-issuer")
    server = Server(cluster, "client_files", ENDPOINTS, {"auth": issuer.config(), "http": {"origins": SITE}}, token=True)
    c.prepare(cluster, "client_files", server)
    with server:
        assert server.get("/api/one").status == 401
        yield server


@pytest.mark.parametrize("name", NAMES)
def test_is_there_as_it_is(server, name):
    answer = server.get(f"/client/{name}")
    data = (FILES / name).read_bytes()
    assert answer.status == 200 and answer.body == data
    assert answer.header("Content-Type") == TYPES[(FILES / name).suffix]
    assert answer.header("Content-Length") == str(len(data))
    assert answer.header("ETag") == f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    assert answer.header("Cache-Control") == "no-cache"
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Content-Encoding") is None
    assert "Accept-Encoding" in [value for field, value in answer.headers if field == "Vary"]


@pytest.mark.parametrize("name", NAMES)
def test_packed(server, name):
    plain, packed = server.get(f"/client/{name}"), server.get(f"/client/{name}", PACKED)
    if packed.header("Content-Encoding") is None:
        assert len(gzip.compress(plain.body)) > len(plain.body) * 0.8, "worth packing"
        return
    assert packed.header("Content-Encoding") == "gzip" and len(packed.body) < len(plain.body)
    assert gzip.decompress(packed.body) == plain.body
    assert packed.header("ETag") != plain.header("ETag"), "strong tags name bytes"


def test_the_large_ones_are_packed(server):
    assert server.get("/client/demo.js", PACKED).header("Content-Encoding") == "gzip"
    assert server.get("/client/demo.js", {"Accept-Encoding": "gzip;q=0"}).header("Content-Encoding") is None
    assert server.get("/client/demo.js", {"Accept-Encoding": "br"}).header("Content-Encoding") is None


@pytest.mark.parametrize("coding", [{}, PACKED], ids=["plain", "packed"])
def test_known_already(server, coding):
    first = server.get("/client/demo.js", coding)
    for tags in (first.header("ETag"), f'"other", W/{first.header("ETag")}', "*"):
        again = server.get("/client/demo.js", {**coding, "If-None-Match": tags})
        assert again.status == 304 and again.body == b"" and again.header("ETag") == first.header("ETag"), tags
        assert again.header("Cache-Control") == "no-cache" and again.header("Content-Encoding") is None
    assert server.get("/client/demo.js", {**coding, "If-None-Match": '"other"'}).status == 200


def test_head_has_the_lengths(server):
    for coding in ({}, PACKED):
        for name in NAMES:
            body, head = server.get(f"/client/{name}", coding), server.head(f"/client/{name}", coding)
            same = [(n, v) for n, v in body.headers if n not in ("Date", "X-Request-Id")]
            assert [(n, v) for n, v in head.headers if n not in ("Date", "X-Request-Id")] == same
            assert head.status == 200 and head.header("Content-Length") == str(len(body.body))


@pytest.mark.parametrize("path", ["demo", "demo.htm", "demo.html/", "demo.htmlx", "../api/one", "./demo.html", "%64emo.html", "demo.html%00",
                                  "/demo.html", "DEMO.HTML", "assets.c", "%2e%2e/api/one", "x" * 300])
def test_nothing_else_is_there(server, path):
    for method in ("GET", "HEAD", "POST", "OPTIONS", "BREW"):
        answer = server.request(method, f"/client/{path}")
        assert answer.status == 404, (method, answer)
        if method != "HEAD":
            problem(answer, 404)


def test_queries_are_ignored(server):
    assert server.get("/client/demo.html?limit=1&x=%2F..").body == (FILES / "demo.html").read_bytes()


@pytest.mark.parametrize("path", ["/client/demo.html", "/client", "/client/"])
def test_methods(server, path):
    for method in ("POST", "PUT", "PATCH", "DELETE", "BREW"):
        answer = server.request(method, path)
        problem(answer, 405)
        assert answer.header("Allow") == "GET, HEAD, OPTIONS"
    assert server.request("POST", path, body={"n": 1}).status == 405
    options = server.request("OPTIONS", path)
    assert options.status == 204 and options.header("Allow") == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("path, to", [("/client", "client/demo.html"), ("/client/", "demo.html"), ("/client?x=/", "client/demo.html")])
def test_the_folder_leads_to_the_page(server, path, to):
    for method in ("GET", "HEAD"):
        answer = server.request(method, path)
        assert answer.status == 302 and answer.header("Location") == to and answer.body == b""


def test_pages_of_other_origins_may_import_it(server):
    allowed = server.get("/client/demo.js", {"Origin": SITE})
    assert allowed.header("Access-Control-Allow-Origin") == SITE
    assert sorted(value for field, value in allowed.headers if field == "Vary") == ["Accept-Encoding", "Origin"]
    assert server.get("/client/demo.js", {"Origin": SITE, "If-None-Match": "*"}).header("Access-Control-Allow-Origin") == SITE
    other = server.get("/client/demo.js", {"Origin": "https://elsewhere.example.org"})
    assert other.status == 200 and other.header("Access-Control-Allow-Origin") is None


def test_pages_are_kept_to_what_they_need(server):
    for name in NAMES:
        answer = server.get(f"/client/{name}")
        if not name.endswith(".html"):
            assert answer.header("Content-Security-Policy") is None
            continue
        policy = dict(part.strip().split(" ", 1) for part in answer.header("Content-Security-Policy").split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in answer.header("Content-Security-Policy")
        text = answer.body.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", text), "nothing inline"
        for linked in re.findall(r'(?:src|href)="([^"#]+)"', text):
            assert server.get(f"/client/{linked}").status == 200, linked


def test_whoever_asks_and_whatever_they_show(server):
    for headers in (c.bearer("nonsense"), c.session("nonsense"), {"Cookie": "theme=dark"}):
        assert server.get("/client/demo.html", headers).status == 200, headers


def test_compression_may_be_off(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, {"cache": {"compression": "br"}}) as server:
        assert server.get("/client/demo.js", PACKED).header("Content-Encoding") is None


def test_without_callers_only_this_machine_is_answered(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as server:
        assert server.get("/client/demo.html").status == 200
        assert server.get("/client/demo.html", {"Host": "eve.example.org"}).status == 403
        assert server.get("/client/demo.html", {"X-Forwarded-For": "192.0.2.1"}).status == 403


def test_while_there_is_no_database(cluster):
    with Server(None, None, ENDPOINTS, {"database": {"url": "postgresql://nobody@127.0.0.1:1/none"}}, wait="/livez",
                allow_errors=True) as server:
        assert server.get("/readyz").status == 503
        assert server.get("/client/demo.html").status == 200


def test_many_on_one_connection(server):
    """Nothing is copied, nothing is freed: the same bytes over and over."""
    data = (FILES / "demo.css").read_bytes()
    with server.connect() as connection:
        for turn in range(300):
            coding = "gzip" if turn % 2 else "identity"
            connection.send(f"GET /client/demo.css HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {coding}\r\n\r\n".encode())
            answer = connection.response()
            assert (gzip.decompress(answer.body) if turn % 2 else answer.body) == data

"""Answers that are stored: what makes two requests one, what an answer says of where it comes from, its tags and
conditions, its encodings, and how it is invalidated."""
import contextlib
import itertools
import re

import pytest

from caching import invalidate, is_hit, is_stale, is_stored, plain, report, settings, settings_of, status
from harness import Server, calls, reset_statements, statements, wait_until
from problems import problem

ENDPOINTS = {
    # A body of its own each time that the statement runs.
    "id.sql": "-- @route GET /api/id\n-- @cache tags=ids\nSELECT json_build_object('id', gen_random_uuid())",
    "other.sql": "-- @route GET /api/other\n-- @cache tags=others,ids/more\nSELECT json_build_object('id', gen_random_uuid())",
    "constant.sql": "-- @route GET /api/constant\n-- @cache tags=constants\nSELECT json_build_object('constant', 1)",
    "item.sql": """-- @route GET /api/items/:id
-- @path id integer
-- @query page integer default=1
-- @query status text upper
-- @query tags text[]
SELECT json_build_object('id', :id, 'page', :page, 'status', :status, 'tags', :tags, 'at', gen_random_uuid())""",
    "large.sql": """-- @route GET /api/large
-- @query n integer default=0
-- @cache tags=large
SELECT json_build_object('n', :n, 'at', gen_random_uuid(), 'text', repeat('all work and no play ', 400))""",
    "small.sql": "-- @route GET /api/small\nSELECT json_build_object('text', repeat('x', 900))",
    "absent.sql": """-- @route GET /api/absent
-- @query n integer default=0
-- @cache tags=absences
SELECT json_build_object('x', 1) WHERE :n < 0""",
    "none.sql": "-- @route GET /api/none\n-- @returns none\nSELECT 1",
    "failing.sql": """-- @route GET /api/failing
-- @query n integer default=0
SELECT json_build_object('x', 1 / :n, 'at', gen_random_uuid())""",
    "fixed.sql": "-- @route GET /api/fixed\n-- @cache off\nSELECT json_build_object('fixed', 1)",
    "things.sql": "-- @route GET /api/things\n-- @query n integer\n"
                  "SELECT json_build_object('n', :n, 'things', count(*), 'at', gen_random_uuid()) FROM thing",
    "thing.sql": """-- @route GET /api/things/:id
-- @path id integer
-- @depends thing(id=:id)
SELECT json_build_object('id', id, 'at', gen_random_uuid()) FROM thing WHERE id = :id""",
    "long.sql": """-- @route GET /api/long
-- @query text text
SELECT json_build_object('length', length(:text), 'at', gen_random_uuid())""",
    "off.sql": "-- @route GET /api/off\n-- @cache off\n"
               "SELECT json_build_object('id', gen_random_uuid(), 'text', repeat('off ', 1000))",
}
CONFIG = {"cache": {"ttl": "1h", "negative_ttl": "1h"}}


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("cache", empty_template)
    cluster.sql("cache", "CREATE TABLE thing AS SELECT id FROM generate_series(1, 9) id; ALTER TABLE thing ADD PRIMARY KEY (id);"
                         "GRANT SELECT ON thing TO provost_app")
    yield "cache"
    cluster.drop("cache")


@pytest.fixture(scope="module")
def shared(cluster, db):
    with Server(cluster, db, ENDPOINTS, CONFIG) as server:
        yield server


@pytest.fixture
def server(shared):
    """With nothing stored."""
    invalidate(shared, "all")
    return shared


fresh_numbers = itertools.count(1000)


# ---- hits ----------------------------------------------------------------------------------------

def test_a_hit_runs_no_statement(cluster, db, server):
    first = server.get("/api/id")
    assert first.status == 200 and first.header("Server-Timing")
    reset_statements(cluster.dsn(db))
    before = report(server)
    for _ in range(100):
        answer = server.get("/api/id")
        assert answer.status == 200 and is_hit(answer), answer
        assert answer.body == first.body and answer.header("ETag") == first.header("ETag")
    assert calls(cluster.dsn(db)) == 0, statements(cluster.dsn(db))
    after = report(server)
    assert after["hits"] == before["hits"] + 100 and after["misses"] == before["misses"]
    assert after["statements"] == before["statements"]


def common(answer):
    """What all hits of an entry have in common, in one coding."""
    own = ("Date", "X-Request-Id", "Cache-Status", "Age")
    return sorted(field for field in answer.headers if field[0] not in own)


@pytest.mark.threads
def test_hits_again_and_again(server):
    """More of an answer is kept than its body, for those that are asked for again and again: not what is each one's own.
    There are more entries than places for them."""
    paths = [f"/api/items/{n}?page=5" for n in range(40)]
    stored = {path: server.get(path).body for path in paths}
    ids = set()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(4)]
        for turn, path in itertools.product(range(3), paths):
            found = []
            for n, connection in enumerate(connections):
                own = f"X-Request-Id: of-{turn}.{n}\r\n" if n else ""
                connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{own}\r\n".encode())
            for n, connection in enumerate(connections):
                answer = connection.response()
                assert answer.status == 200 and is_hit(answer) and answer.body == stored[path]
                if n:
                    assert answer.header("X-Request-Id") == f"of-{turn}.{n}"
                else:
                    ids.add(answer.header("X-Request-Id"))
                found.append(common(answer))
            assert found.count(found[0]) == len(found), found
    assert len(ids) == 3 * len(paths) and all(re.fullmatch("[0-9a-f]{16}", name) for name in ids)


def test_hits_again_and_again_grow_older(server):
    """Each tells its own age, and the time that is left."""
    stored = server.get("/api/id")

    def ages():
        answer = server.get("/api/id")
        assert is_hit(answer) and answer.body == stored.body
        return int(answer.header("Age")), status(answer)["ttl"]
    sums = set()
    wait_until(lambda: sums.add(sum(ages())) or ages()[0] >= 2, 10, "it ages")
    assert max(sums) - min(sums) <= 1, sums     # both are rounded down
    invalidate(server, "tag=ids")
    fresh = server.get("/api/id")
    assert is_stored(fresh, "stale") and fresh.body != stored.body
    for _ in range(8):
        answer = server.get("/api/id")
        assert is_hit(answer) and answer.body == fresh.body and answer.header("ETag") == fresh.header("ETag")


@pytest.mark.parametrize("accept", ["gzip", "br"])
def test_hits_again_and_again_in_several_codings(server, accept):
    path = f"/api/large?n={next(fresh_numbers)}"
    stored = server.get(path)
    answers = {accept: encoded(server, path, accept), "identity": server.get(path, {"Accept-Encoding": "identity"})}
    for coding in [accept, accept, accept, "identity", "identity", "identity", accept, "identity"] * 3:
        answer = server.get(path, {"Accept-Encoding": coding})
        assert common(answer) == common(answers[coding]) and plain(answer) == stored.body
        known = server.get(path, {"Accept-Encoding": coding, "If-None-Match": answer.header("ETag")})
        assert known.status == 304 and known.header("Content-Type") is None and is_hit(known)
        head = server.head(path, {"Accept-Encoding": coding})
        assert head.status == 200 and common(head) == common(answer) and is_hit(head)


def test_ttl_and_age(server):
    stored = server.get("/api/id")
    assert status(stored)["fwd"] in ("miss", "stale") and status(stored)["stored"]
    answer = server.get("/api/id")
    # Shortened by a twentieth at most.
    assert 3600 * 19 // 20 - 60 <= status(answer)["ttl"] <= 3600 and int(answer.header("Age")) <= 60
    wait_until(lambda: int(server.get("/api/id").header("Age")) >= 1, 5, "it ages")
    assert server.get("/api/id").body == stored.body


@pytest.mark.parametrize("first, second", [
    ("/api/items/1", "/api/items/1?page=1"),
    ("/api/items/1?page=2&status=on", "/api/items/1?status=ON&page=2"),
    ("/api/items/1?page=2", "/api/items/1?page=%2B02&unknown=1&utm_source=x"),
    ("/api/items/1", "/api/items/+001?status=&tags="),
    ("/api/items/1?tags=a&tags=b&page=3", "/api/items/1?tags=a&page=3&tags=b"),
    ("/api/items/1", "/api/i%74ems/%31"),
])
def test_requests_that_are_one(server, first, second):
    """Order, defaults, spelling and unknown names make no difference."""
    stored = server.get(first)
    again = server.get(second)
    assert stored.status == again.status == 200
    assert is_hit(again) and again.body == stored.body


def test_requests_that_differ(server):
    paths = ["/api/items/1", "/api/items/2", "/api/items/1?page=2", "/api/items/1?status=a", "/api/items/1?status=1",
             "/api/items/1?tags=a", "/api/items/1?tags=a&tags=b", "/api/items/1?tags=b&tags=a", "/api/items/1?tags=a,b",
             "/api/items/1?status=a&tags=a", "/api/items/11", "/api/items/1?status=aa"]
    bodies = [server.get(path).body for path in paths]
    assert len(set(bodies)) == len(paths)
    for path, body in zip(paths, bodies):
        answer = server.get(path)
        assert is_hit(answer) and answer.body == body, path


def test_long_keys(server):
    """On one connection, whose memory for keys comes and goes."""
    with server.connect() as connection:
        def ask(length):
            connection.send(f"GET /api/long?text={'x' * length} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            return connection.response()
        lengths = [1, 7000, 2, 6999, 4096, 1, 7001, 3]
        bodies = {length: ask(length).body for length in lengths}
        for length in lengths[::-1]:
            answer = ask(length)
            assert is_hit(answer) and answer.body == bodies[length] and answer.json()["length"] == length
    assert report(server)["mostAccessed"]


def test_pipelined(server):
    """Hits, misses and what is not there, in the order of the requests."""
    paths = [f"/api/items/{n % 7}?page={n % 3 + 1}" if n % 5 else f"/api/absent?n={n % 10}" for n in range(60)]
    request = "".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in paths)
    bodies = {}
    for path, answer in zip(paths, server.raw(request.encode(), len(paths)), strict=True):
        if "absent" in path:
            assert answer.status == 404
        else:
            assert answer.status == 200 and f"/api/items/{answer.json()['id']}?page={answer.json()['page']}" == path
            assert bodies.setdefault(path, answer.body) == answer.body


def test_ranges_are_not_offered(server):
    whole = server.get("/api/large")
    answer = server.get("/api/large", {"Range": "bytes=0-9"})
    assert answer.status == 200 and answer.body == whole.body and answer.header("Content-Range") is None


def test_report(server):
    before = report(server)
    for n in range(3):
        for _ in range(200 + n):
            server.get(f"/api/items/{n + 70}?status=top")
    after = report(server)
    assert after["stores"] == before["stores"] + 3 and after["misses"] == before["misses"] + 3
    assert after["hits"] == before["hits"] + 600
    assert round(100 * after["hits"] / (after["hits"] + after["misses"]), 2) == after["hitRate"]
    assert 0 < after["bytes"] <= after["settings"]["capacity"]
    top = {int(t["values"]["id"]): t["hits"] for t in after["mostAccessed"]
           if t["endpoint"] == "item" and t["values"].get("status") == "TOP"}
    assert top == {70: 199, 71: 200, 72: 201}
    assert settings_of(server, "id")["cached"] is True and settings_of(server, "off")["cached"] is False


# ---- conditions ----------------------------------------------------------------------------------

def test_etag_is_strong_and_of_the_body(server):
    first, other = server.get("/api/id"), server.get("/api/other")
    assert re.fullmatch(r'"[0-9a-f]{32}"', first.header("ETag"))
    assert first.header("ETag") != other.header("ETag")
    invalidate(server, "tag=ids")
    assert server.get("/api/id").header("ETag") != first.header("ETag")
    constant = server.get("/api/constant").header("ETag")
    invalidate(server, "tag=constants")
    again = server.get("/api/constant")
    assert not is_hit(again) and again.header("ETag") == constant


def test_get_head_and_304_agree(server):
    def same(answer):
        return [answer.header(n) for n in ("ETag", "Cache-Control", "Vary")]
    miss = server.head("/api/large")
    assert miss.status == 200 and status(miss)["stored"], "HEAD fills"
    get, head = server.get("/api/large"), server.head("/api/large")
    match = server.get("/api/large", {"If-None-Match": get.header("ETag")})
    match_head = server.head("/api/large", {"If-None-Match": get.header("ETag")})
    assert is_hit(get) and is_hit(head) and is_hit(match) and is_hit(match_head)
    assert match.status == match_head.status == 304 and match.body == b""
    assert same(miss) == same(get) == same(head) == same(match) == same(match_head)
    length = str(len(get.body))
    assert miss.header("Content-Length") == get.header("Content-Length") == head.header("Content-Length") == length
    for answer in (match, match_head):
        assert answer.header("Content-Length") in (None, length), "RFC 9110, section 8.6"
        assert answer.header("Content-Type") is None
    assert get.header("Content-Type") == head.header("Content-Type") == "application/json; charset=utf-8"


def test_304_of_a_miss(server):
    """A body that has not changed need not be sent, wherever it comes from."""
    tag = server.get("/api/constant").header("ETag")
    invalidate(server, "tag=constants")
    answer = server.get("/api/constant", {"If-None-Match": tag})
    assert answer.status == 304 and status(answer)["stored"] and answer.header("ETag") == tag


@pytest.mark.parametrize("value, matches", [
    ("{tag}", True), ("W/{tag}", True), ("*", True), ('"x", {tag}', True), ('{tag},"x"', True), (' "a" ,, W/{tag} ', True),
    ('"x"', False), ("{bare}", False), ("w/{tag}", False), ('"x{bare}"', False), ('"{bare}x"', False), ("", False),
    ('"", "W/{bare}"', False), ('"{bare}', False), ("*, {tag}", False),
])
def test_if_none_match(server, value, matches):
    get = server.get("/api/large")
    tag = get.header("ETag")
    for send in (server.get, server.head):
        answer = send("/api/large", {"If-None-Match": value.format(tag=tag, bare=tag.strip('"'))})
        assert answer.status == (304 if matches else 200), answer
        assert is_hit(answer) and answer.header("ETag") == tag
        assert answer.body == (b"" if matches or send == server.head else get.body)


def test_if_none_match_in_several_lines(server):
    tag = server.get("/api/id").header("ETag")
    request = f'GET /api/id HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: "a"\r\nIf-None-Match: {tag}\r\n\r\n'
    assert server.raw(request.encode())[0].status == 304


def test_a_304_keeps_the_connection(server):
    tag = server.get("/api/large").header("ETag")
    request = f"GET /api/large HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\n\r\n".encode()
    plain_request = b"GET /api/large HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with server.connect() as connection:
        for _ in range(5):
            connection.send(request)
            assert connection.response().status == 304
            connection.send(plain_request)
            assert connection.response().status == 200


def test_conditions_on_what_is_not_stored(server):
    tag = server.get("/api/fixed").header("ETag")
    for send in (server.get, server.head):
        answer = send("/api/fixed", {"If-None-Match": f'"x", {tag}'})
        assert answer.status == 304 and answer.header("ETag") == tag and status(answer) == {"fwd": "bypass"}


# ---- encodings -----------------------------------------------------------------------------------

def encoded(server, path, accept):
    """Asks until the answer is encoded; those before are not."""
    def ask():
        answer = server.get(path, {"Accept-Encoding": accept})
        assert answer.status == 200 and answer.header("Vary") == "Accept-Encoding"
        return answer if answer.header("Content-Encoding") else None
    return wait_until(ask, 10, f"{path} is sent in {accept}")


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_encoded_once_and_sent_ever_after(server, coding):
    path = f"/api/large?n={next(fresh_numbers)}"
    before = report(server)["encodings"]
    first = server.get(path, {"Accept-Encoding": coding})
    assert is_stored(first) and first.header("Content-Encoding") is None
    answer = encoded(server, path, coding)
    assert answer.header("Content-Encoding") == coding and is_hit(answer)
    assert plain(answer) == first.body and len(answer.body) < len(first.body) // 10
    assert answer.header("Content-Length") == str(len(answer.body))
    bare = first.header("ETag").strip('"')
    assert answer.header("ETag") == f'"{bare}-{coding}"'

    head = server.head(path, {"Accept-Encoding": coding})
    for name in ("ETag", "Content-Length", "Content-Encoding", "Vary", "Content-Type"):
        assert head.header(name) == answer.header(name), name
    identity = server.get(path)
    assert identity.body == first.body and identity.header("ETag") == first.header("ETag")
    for _ in range(20):
        assert server.get(path, {"Accept-Encoding": coding}).body == answer.body
    assert report(server)["encodings"] == before + 1


def test_conditions_on_an_encoded_body(server):
    path = f"/api/large?n={next(fresh_numbers)}"
    identity = server.get(path).header("ETag")
    gzip, br = encoded(server, path, "gzip").header("ETag"), encoded(server, path, "br").header("ETag")
    assert len({identity, gzip, br}) == 3
    lengths = {a.header("ETag"): a.header("Content-Length")
               for a in (server.head(path, {"Accept-Encoding": c}) for c in ("identity", "gzip", "br"))}
    for accept, own in (("gzip", gzip), ("br", br), ("identity", identity)):
        for tag in (identity, gzip, br):
            answer = server.get(path, {"Accept-Encoding": accept, "If-None-Match": tag})
            assert answer.status == 304 and answer.header("ETag") == tag, "whichever the client has is right"
            assert answer.header("Content-Encoding") is None and answer.header("Content-Length") == lengths[tag]
        answer = server.get(path, {"Accept-Encoding": accept, "If-None-Match": f"W/{identity}, {gzip}, {br}"})
        assert answer.status == 304 and answer.header("ETag") == own
    answer = server.get(path, {"If-None-Match": f'{identity[:-1]}-deflate"'})
    assert answer.status == 200


@pytest.mark.parametrize("accept, coding", [
    ("gzip", "gzip"), ("br", "br"), ("gzip, br", "br"), ("br,gzip", "br"), ("gzip, deflate, br, zstd", "br"), ("*", "br"),
    ("gzip;q=1, br;q=0.5", "gzip"), ("br;q=0.001, gzip;q=0.002", "gzip"), ("br;q=0, *", "gzip"), ("br;q=0, gzip;q=0, *", None),
    ("gzip;q=0", None), ("deflate", None), ("", None), (None, None), ("identity", None), ("identity;q=0.5, gzip;q=0.4", None),
    ("identity;q=0.5, gzip;q=0.5", "gzip"), ("identity;q=0, gzip", "gzip"), ("identity;q=0", None), ("*;q=0", None),
    ("*;q=0, gzip;q=0.1", "gzip"), ("GZIP", "gzip"), ("x-gzip", "gzip"), ("gzip ; q=0.0", None), ("gzip;q=2", None),
    ("gzip;level=9", None), ("gzipx", None),
])
def test_choice_of_coding(server, accept, coding):
    encoded(server, "/api/large?n=7", "gzip;q=1, br;q=0")
    encoded(server, "/api/large?n=7", "br")
    answer = server.get("/api/large?n=7", {"Accept-Encoding": accept})
    assert answer.status == 200 and answer.header("Content-Encoding") == coding, answer
    assert plain(answer) == server.get("/api/large?n=7").body


def test_small_bodies_are_not_encoded(server):
    before = report(server)["encodings"]
    for _ in range(30):
        for path in ("/api/small", "/api/id", "/api/off"):
            answer = server.get(path, {"Accept-Encoding": "gzip, br"})
            assert answer.status == 200 and answer.header("Content-Encoding") is None
            assert answer.header("Vary") == "Accept-Encoding"
    assert report(server)["encodings"] == before


def test_an_encoded_body_goes_with_its_entry(server):
    old = encoded(server, "/api/large?n=3", "gzip")
    invalidate(server, "tag=large")
    first = server.get("/api/large?n=3", {"Accept-Encoding": "gzip"})
    assert status(first)["fwd"] and first.header("Content-Encoding") is None
    again = encoded(server, "/api/large?n=3", "gzip")
    assert plain(again) == first.body != plain(old) and again.header("ETag") != old.header("ETag")


def test_compression_settings(cluster, db):
    with Server(cluster, db, ENDPOINTS, {"cache": {"compression": "off"}}) as server:
        both = {"Accept-Encoding": "gzip, br"}
        for _ in range(20):
            assert server.get("/api/large", both).header("Content-Encoding") is None
        assert report(server)["encodings"] == 0 and report(server)["settings"]["compression"] == []
        settings(server, {"cache": {"compression": "gzip"}})
        assert encoded(server, "/api/large", "br, gzip").header("Content-Encoding") == "gzip"
        settings(server, {"cache": {"compression": "gzip,br"}})
        wait_until(lambda: server.get("/api/large", both).header("Content-Encoding") == "br", 10)
        settings(server, {"cache": {"compression": "off"}})
        answer = server.get("/api/large", both)
        assert is_hit(answer) and answer.header("Content-Encoding") is None
        assert answer.header("ETag") == server.get("/api/large").header("ETag")


# ---- what is not stored, and what is not there ---------------------------------------------------

def test_cache_off(cluster, db, server):
    reset_statements(cluster.dsn(db))
    answers = [server.get("/api/off") for _ in range(5)]
    assert all(status(a) == {"fwd": "bypass"} for a in answers)
    assert len({a.body for a in answers}) == calls(cluster.dsn(db)) == 5


def test_errors_are_not_stored(cluster, db, server):
    reset_statements(cluster.dsn(db))
    stores = report(server)["stores"]
    for _ in range(3):
        answer = server.get("/api/failing")
        problem(answer, 422)
        assert status(answer) == {"fwd": "miss"}
    assert calls(cluster.dsn(db)) == 0, "failed statements are not counted there"
    assert report(server)["stores"] == stores
    assert server.get("/api/failing?n=1").json()["x"] == 1
    assert is_hit(server.get("/api/failing?n=1"))


def test_nothing_is_not_stored(server):
    for _ in range(3):
        answer = server.get("/api/none")
        assert answer.status == 204 and status(answer) == {"fwd": "miss"}, answer


def test_absences_are_stored(cluster, db, server):
    path = f"/api/absent?n={next(fresh_numbers)}"
    before = report(server)
    first = server.get(path)
    problem(first, 404)
    assert is_stored(first)
    reset_statements(cluster.dsn(db))
    for _ in range(5):
        answer = server.get(path)
        problem(answer, 404)
        assert is_hit(answer) and answer.header("Vary") == "Accept-Encoding"
    assert answer.header("X-Request-Id") != first.header("X-Request-Id")
    assert server.head(path).status == 404
    assert server.get(path, {"If-None-Match": "*"}).status == 404
    assert calls(cluster.dsn(db)) == 0
    after = report(server)
    assert after["stores"] == before["stores"] + 1 and after["entries"] >= after["absences"] >= 1
    invalidate(server, "tag=absences")
    answer = server.get(path)
    assert answer.status == 404 and status(answer)["fwd"] in ("miss", "stale"), answer
    assert calls(cluster.dsn(db)) == 1


def test_absences_expire(cluster, db):
    with Server(cluster, db, ENDPOINTS, {"cache": {"negative_ttl": "300ms", "ttl": "1h"}}) as server:
        found = server.get("/api/id")
        assert server.get("/api/absent").status == 404
        wait_until(lambda: status(server.get("/api/absent")).get("fwd"), 5, "it is asked for again")
        assert is_hit(server.get("/api/id")) and server.get("/api/id").body == found.body
        settings(server, {"cache": {"negative_ttl": "0"}})
        for _ in range(3):
            answer = server.get("/api/absent?n=5")
            assert answer.status == 404 and status(answer) == {"fwd": "miss"}
        settings(server, {"cache": {"negative_ttl": "1h"}, "endpoint absent": {"ttl": "1ms"}})
        server.get("/api/absent?n=6")
        wait_until(lambda: status(server.get("/api/absent?n=6")).get("fwd"), 5, "never longer than the endpoint's ttl")


def test_answers_that_are_no_endpoints(server):
    for path in ("/", "/livez", "/readyz", "/nope", "/api/admin/cache", "/api/items/x"):
        answer = server.get(path)
        assert answer.header("Cache-Status") is None and answer.header("Age") is None, path


# ---- invalidation by hand ------------------------------------------------------------------------

ALL = ("/api/id", "/api/other", "/api/constant", "/api/items/1", "/api/items/2")


@pytest.mark.parametrize("query, gone", [
    ("tag=ids", {"/api/id"}),
    ("tag=ids%2Fmore", {"/api/other"}),
    ("tag=ids/more", {"/api/other"}),
    ("tag=others", {"/api/other"}),
    ("tag=nobody", set()),
    ("tag=id", set()),
    ("endpoint=item", {"/api/items/1", "/api/items/2"}),
    ("endpoint=id", {"/api/id"}),
    ("tag=ids&tag=constants", {"/api/id", "/api/constant"}),
    ("tag=others&endpoint=item&x=1", {"/api/other", "/api/items/1", "/api/items/2"}),
    ("endpoint=id&endpoint=constant", {"/api/id", "/api/constant"}),
    ("t%61g=i%64s", set()),
    ("all", set(ALL)),
    ("all=", set(ALL)),
    ("all=yes", set(ALL)),
    ("tag=nobody&all", set(ALL)),
])
def test_invalidation(server, query, gone):
    bodies = {path: server.get(path).body for path in ALL}
    answer = server.request("DELETE", f"/api/admin/cache?{query}")
    if query.startswith("t%61g"):
        problem(answer, 400)         # names are compared as they are
    else:
        assert answer.status == 200 and answer.json() == {"success": True}
    for path in ALL:
        answer = server.get(path)
        if path in gone:
            assert status(answer)["stored"], (path, answer)
            assert path == "/api/constant" or answer.body != bodies[path]
            assert is_hit(server.get(path))
        else:
            assert is_hit(answer) and answer.body == bodies[path], (path, answer)


@pytest.mark.parametrize("query, gone", [
    ("tag=thing", {"/api/things", "/api/things?n=1", "/api/things/1", "/api/things/2"}),
    ("tag=thing:id=1", {"/api/things/1"}),
    ("tag=thing%3Aid%3D2&tag=thing:id=77", {"/api/things/2"}),
    ("tag=thing:*", {"/api/things/1", "/api/things/2"}),
    ("tag=things", set()),
])
def test_invalidation_by_tables_and_rows(server, query, gone):
    paths = ("/api/things", "/api/things?n=1", "/api/things/1", "/api/things/2")
    for path in paths:
        assert server.get(path).status == 200
    invalidate(server, query)
    assert {path for path in paths if not is_hit(server.get(path))} == gone


def test_invalidations_are_counted_when_they_are_found(server):
    server.get("/api/id")
    before = report(server)["invalidations"]
    invalidate(server, "tag=ids")
    invalidate(server, "tag=ids")
    server.get("/api/id")
    assert report(server)["invalidations"] >= before + 1


@pytest.mark.parametrize("query, code", [
    ("", 400), ("?", 400), ("?x=1", 400), ("?tag", 400), ("?tag=", 400), ("?endpoint=", 400), ("?tag=%zz", 400),
    ("?all=0", 400), ("?all=false", 400), ("?endpoint=nope", 404), ("?tag=ids&endpoint=nope", 404), ("?endpoint=nope&all", 404), ("?tag=ids&tag=", 400),
    ("?endpoint=id.sql", 404),
])
def test_refused_invalidations_do_nothing(server, query, code):
    body = server.get("/api/id").body
    problem(server.request("DELETE", f"/api/admin/cache{query}"), code)
    answer = server.get("/api/id")
    assert is_hit(answer) and answer.body == body


def test_methods_of_the_report(server):
    body = server.get("/api/id").body
    for method in ("PUT", "POST", "PATCH", "BREW"):
        answer = server.request(method, "/api/admin/cache?all", body=b"")
        problem(answer, 405)
        assert answer.header("Allow") == "GET, HEAD, DELETE, OPTIONS"
    options = server.request("OPTIONS", "/api/admin/cache")
    assert options.status == 204 and options.header("Allow") == "GET, HEAD, DELETE, OPTIONS"
    head = server.head("/api/admin/cache?all")
    assert head.status == 200 and int(head.header("Content-Length")) > 100
    assert is_hit(server.get("/api/id")) and server.get("/api/id").body == body


# ---- the access log ------------------------------------------------------------------------------

def test_access_log_says_how(cluster, db):
    config = {"http": {"access_log": "./access.log"}, "cache": {"ttl": "1h"}, "endpoint other": {"max_stale": "1h"}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        expected = []

        def ask(path, how, method="GET"):
            expected.append((path, how))
            return server.request(method, path, {"X-Request-Id": f"log-{len(expected)}-"})

        ask("/api/id", "miss")
        ask("/api/id", "hit")
        ask("/api/off", "bypass")
        ask("/api/other", "miss")
        ask("/api/admin/cache?all", None, "DELETE")
        ask("/api/id", "expired")
        assert is_stale(ask("/api/other", "max-stale"), "max-stale")
        ask("/api/absent", "miss")
        ask("/api/absent", "hit")
        ask("/livez", None)

        def line(n):
            return re.search(f".* id=log-{n}- .*", (server.folder / "access.log").read_text())
        for n, (path, how) in enumerate(expected, 1):
            text = wait_until(lambda: line(n), 5, f"{path} is in the log")[0]
            field = re.search(r"\bcache=(\S+)", text)
            assert (field and field[1]) in ((how,) if how else (None, "-")), (path, how, text)
            if how in ("hit", "max-stale"):
                assert "db_us=0" in text, text

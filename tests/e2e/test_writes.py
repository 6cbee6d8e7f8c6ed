"""Endpoints that write: their bodies, what they answer, and what has happened then."""
import contextlib
import json
import random
import re
import threading
import uuid

import pytest

import callers
from caching import status as cache_status
from harness import BINARY, Server, must, statements, wait_until
from problems import problem

SETUP = """
CREATE TABLE item (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, title text NOT NULL UNIQUE CHECK (title <> 'forbidden'),
    price numeric, note text, parent integer REFERENCES item DEFERRABLE INITIALLY DEFERRED, owner integer REFERENCES item);
CREATE TABLE price (item integer REFERENCES item, week integer, price numeric, note text, PRIMARY KEY (item, week));
CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text, what text, item integer);
CREATE TABLE counter (id integer PRIMARY KEY, n integer NOT NULL);
INSERT INTO counter VALUES (1, 0);
GRANT ALL ON ALL TABLES IN SCHEMA public TO provost_app;
"""

TYPES = {"t": "text", "i": "integer", "b": "bigint", "n": "number", "d": "numeric", "f": "boolean", "u": "uuid",
         "day": "date", "at": "timestamp", "j": "json", "ts": "text[]", "is": "integer[]", "ds": "numeric[]", "js": "json[]"}
ECHO = "\n".join(["-- Says what it was told.", "-- @route POST /api/echo", *(f"-- @body {n} {t}" for n, t in TYPES.items()),
                  "-- @body rows json[] {a integer required min=1, b text default='x', c numeric}",
                  "-- @returns json",
                  "SELECT json_build_object('body', :body, " + ", ".join(f"'{n}', :{n}" for n in TYPES) + ", 'rows', :rows,"
                  " 'types', json_build_array(" + ", ".join(f"pg_typeof(:{n})::text" for n in [*TYPES, "rows"]) + "))"])
ENDPOINTS = {
    "echo.sql": ECHO,
    "create.sql": """-- Creates an item with an audit row.
-- @route POST /api/items
-- @body title text required trim min=1 max=40
-- @body price numeric min=0
-- @body parent integer
-- @body owner integer
-- @body prices json[] {week integer required min=1 max=53, price numeric required min=0, note text} max=520
-- @returns row
WITH new AS (
    INSERT INTO item (title, price, parent, owner) VALUES (:title, :price, :parent, :owner) RETURNING id, title, price
), weeks AS (
    INSERT INTO price (item, week, price, note)
    SELECT new.id, p.week, p.price, p.note
      FROM new, jsonb_to_recordset(:prices) AS p(week integer, price numeric, note text)
), log AS (
    INSERT INTO audit (who, what, item) SELECT :auth_sub, 'create', id FROM new
)
SELECT id, title, price FROM new""",
    "patch.sql": """-- Changes what is given; null clears.
-- @route PATCH /api/items/:id
-- @path id integer
-- @body title text trim min=1 max=40
-- @body price numeric min=0
-- @body note text default='a default'
-- @returns row
UPDATE item SET
    title = CASE WHEN :body ? 'title' THEN :title ELSE title END,
    price = CASE WHEN :body ? 'price' THEN :price ELSE price END,
    note = CASE WHEN :body ? 'note' THEN :note ELSE note END
 WHERE id = :id RETURNING id, title, price, note""",
    "get.sql": "-- One item.\n-- @route GET /api/items/:id\n-- @path id integer\n-- @returns row\n"
               "SELECT id, title, price, note FROM item WHERE id = :id",
    "delete.sql": "-- Deletes one.\n-- @route DELETE /api/items/:id\n-- @path id integer\n-- @returns none\nDELETE FROM item WHERE id = :id",
    "audit.sql": """-- Writes a row, whether or not there is an item.
-- @route POST /api/audit/:id
-- @path id integer
-- @returns row
WITH log AS (INSERT INTO audit (what, item) VALUES ('look', :id))
SELECT title FROM item WHERE id = :id""",
    "rows.sql": "-- Several.\n-- @route PUT /api/rows\n-- @body ids integer[] required max=9\n-- @returns rows\n"
                "INSERT INTO audit (what, item) SELECT 'row', i FROM unnest(:ids) AS i RETURNING item",
    "accept.sql": "-- Another status.\n-- @route POST /api/accept\n-- @status 202\n-- @returns json\n"
                  "WITH log AS (INSERT INTO audit (what) VALUES ('accept')) SELECT json_build_object('ok', true)",
    "optional.sql": "-- All may be left out.\n-- @route POST /api/optional\n-- @body reason text max=9\n-- @body n integer default=7\n"
                    "-- @returns json\nSELECT json_build_object('reason', :reason, 'n', :n, 'body', :body)",
    "required.sql": "-- Not all.\n-- @route POST /api/required\n-- @body reason text required\n-- @query q integer\n-- @returns json\n"
                    "SELECT json_build_object('reason', :reason, 'q', :q, 'length', length(:reason))",
    "fail.sql": "-- Fails as told, after a change.\n-- @route POST /api/fail\n-- @body status integer required\n-- @body message text required\n"
                "-- @returns none\nWITH log AS (INSERT INTO audit (what) VALUES ('fail') RETURNING 1)\n"
                "SELECT provost.fail(:status, :message) FROM log",
    "count.sql": "-- Counts.\n-- @route POST /api/count\n-- @returns row\nUPDATE counter SET n = n + 1 WHERE id = 1 RETURNING n",
    "counted.sql": "-- The count.\n-- @route GET /api/count\n-- @returns row\nSELECT n FROM counter WHERE id = 1",
    "public.sql": "-- For everybody.\n-- @route POST /api/public\n-- @role public\n-- @body t text\n-- @returns json\n"
                  "SELECT json_build_object('t', :t)",
}
MAX_BODY = 1 << 20
HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("writes", empty_template)
    cluster.sql("writes", SETUP)
    callers.prepare(cluster, "writes", Server(cluster, "writes", ENDPOINTS))
    yield "writes"
    cluster.drop("writes")


@pytest.fixture(scope="module")
def server(cluster, db):
    with Server(cluster, db, ENDPOINTS, {"http": {"access_log": "stderr"}}) as server:
        yield server


def title():
    return uuid.uuid4().hex


def create(server, **members):
    answer = server.request("POST", "/api/items", body={"title": title(), **members})
    assert answer.status == 201, answer
    return answer.json()


def errors_of(answer, status):
    return {(e["in"], e["name"]): e["reason"] for e in problem(answer, status, ["errors"])["errors"]}


def audited(cluster, db, what):
    return cluster.sql(db, "SELECT count(*) FROM audit WHERE what = %s", what)[0][0]


# ---- values --------------------------------------------------------------------------------------

GOOD = {"t": ' a"é\n\U0001f600\\ ', "i": -7, "b": 9007199254740993, "n": 1e-3, "d": 12.5, "f": True, "u": "123E4567-e89b-12d3-a456-426614174000",
        "day": "2024-02-29", "at": "2024-02-29T12:00:00+02:00", "j": {"a": [1, None, {"b": "\u2028"}]}, "ts": ["a,b", '"', "", "NULL", "{}"],
        "is": [1, -2], "ds": [0.5, 1e20], "js": [{"a": 1}, None, "x"], "rows": [{"a": 1, "c": None}, {"b": "y", "a": 2}]}


def test_every_type(server):
    found = server.request("POST", "/api/echo", body=GOOD).json()
    expected = {**GOOD, "u": GOOD["u"].lower(), "at": "2024-02-29T10:00:00+00:00", "rows": [{"a": 1, "b": "x", "c": None}, {"b": "y", "a": 2}]}
    assert {n: found[n] for n in GOOD} == expected
    assert found["body"] == {**expected, "at": "2024-02-29T10:00:00Z"}
    assert found["types"] == ["text", "integer", "bigint", "double precision", "numeric", "boolean", "uuid", "date",
                              "timestamp with time zone", "jsonb", "text[]", "integer[]", "numeric[]", "jsonb[]", "jsonb"]


def test_null_and_absent(server):
    found = server.request("POST", "/api/echo", body=dict.fromkeys([*TYPES, "rows"])).json()
    assert found["body"] == dict.fromkeys([*TYPES, "rows"]) and all(found[n] is None for n in TYPES)
    found = server.request("POST", "/api/echo", body={}).json()
    assert found["body"] == {} and all(found[n] is None for n in TYPES)
    found = server.request("POST", "/api/optional", body={"n": None}).json()
    assert found == {"reason": None, "n": None, "body": {"n": None}}
    assert server.request("POST", "/api/optional", body={}).json() == {"reason": None, "n": 7, "body": {}}


def test_strings_are_not_pasted(server, cluster, db):
    nasty = "'; DROP TABLE item; -- $1 :title \\' {} \""
    assert create(server, title=nasty[:40].strip())["title"] == nasty[:40].strip()
    assert cluster.sql(db, "SELECT count(*) FROM item")[0][0] > 0


def test_all_errors_at_once(server):
    wrong = {"title": "  ", "price": "1", "prices": [{"week": 54, "price": 1}, 7, {"week": 1, "x": 2}, {"week": None, "price": 1.5}],
             "owner": 1.5, "titel": "a"}
    assert errors_of(server.request("POST", "/api/items", body=wrong), 422) == {
        ("body", "title"): "must be at least 1 characters long", ("body", "price"): "must be a number, not a string",
        ("body", "prices[0].week"): "must be from 1 to 53", ("body", "prices[1]"): "must be an object, not a number",
        ("body", "prices[2].x"): "is not declared", ("body", "prices[2].price"): "is required",
        ("body", "prices[3].week"): "must not be null",
        ("body", "owner"): "must be an integer from -2147483648 to 2147483647", ("body", "titel"): "is not declared"}


def test_path_query_and_body_at_once(server):
    found = errors_of(server.request("PATCH", "/api/items/x", body={"price": -1, "id": 3}), 400)
    assert set(found) == {("path", "id"), ("body", "price"), ("body", "id")}
    found = errors_of(server.request("POST", "/api/required?q=x", body={"reason": None}), 400)
    assert found == {("query", "q"): "must be an integer from -2147483648 to 2147483647", ("body", "reason"): "must not be null"}


def test_many_errors_are_cut(server):
    found = errors_of(server.request("POST", "/api/echo", body={f"x{i}": 1 for i in range(1000)}), 422)
    assert len(found) == 64


NOT_JSON = {"nothing": b"", "blanks": b"  \r\n", "words": b"hello", "a form": b"reason=x", "an array": b"[]", "a string": b'"reason"',
            "null": b"null", "cut short": b'{"reason": "x"', "a comma too many": b'{"reason": "x",}', "two": b'{"reason":"x"}{}',
            "a comment": b'{"reason":"x"} // y', "NaN": b'{"reason": NaN}', "a raw newline": b'{"reason": "\n"}',
            "a NUL": b'{"reason": "x\x00"}', "a NUL behind": b'{"reason":"x"}\x00', "Latin 1": b'{"reason": "\xe9"}',
            "a surrogate in UTF-8": b'{"reason":"\xed\xa0\x80"}', "a byte order mark": b'\xef\xbb\xbf{"reason":"x"}',
            "deep": b'{"reason":' + b"[" * 100000 + b"]" * 100000 + b"}"}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_not_an_object(server, name):
    answer = server.request("POST", "/api/required", {"Content-Type": "application/json"}, NOT_JSON[name])
    assert list(errors_of(answer, 400)) == [("body", "")]


def test_characters_that_postgresql_cannot_hold(server):
    for escape, reason in ((b"\\u0000", "must not contain \\u0000"), (b"\\ud800", "must not contain half a surrogate pair")):
        answer = server.request("POST", "/api/required", {"Content-Type": "application/json"}, b'{"reason":"a' + escape + b'"}')
        assert errors_of(answer, 422) == {("body", "reason"): reason}


def test_repeated_members(server):
    answer = server.request("POST", "/api/required", {"Content-Type": "application/json"}, b'{"reason":"a","re\\u0061son":"b"}')
    assert errors_of(answer, 422) == {("body", "reason"): "given more than once"}


@pytest.mark.parametrize("type_, accepted", [
    ("application/json", True), ("Application/JSON", True), ("application/json; charset=utf-8", True), ('application/json;charset="UTF-8"', True),
    ("application/json; profile=x", True), ("application/json ;", True), ("application/json; charset=latin1", False), ("application/jsonx", False),
    ("text/plain", False), ("application/x-www-form-urlencoded", False), ("multipart/form-data; boundary=x", False), ("", False), (None, False),
    ("application/json; charset", False), ("application/json, text/plain", False), ("application/merge-patch+json", False)])
def test_media_types(server, type_, accepted):
    answer = server.request("POST", "/api/required", {"Content-Type": type_}, b'{"reason":"x"}')
    if accepted:
        assert answer.status == 201, answer
    else:
        problem(answer, 415)


def test_codings_of_the_body(server):
    headers = {"Content-Type": "application/json"}
    problem(server.request("POST", "/api/required", {**headers, "Content-Encoding": "gzip"}, b'{"reason":"x"}'), 415)
    assert server.request("POST", "/api/required", {**headers, "Content-Encoding": "identity"}, b'{"reason":"x"}').status == 201
    twice = b"POST /api/required HTTP/1.1\r\n" + HOST + JSON + b"Content-Type: text/plain\r\nContent-Length: 14\r\n\r\n" + b'{"reason":"x"}'
    problem(server.raw(twice)[0], 415)


def test_nothing_where_nothing_is_required(server):
    assert server.request("POST", "/api/optional").json() == {"reason": None, "n": 7, "body": {}}
    assert server.request("POST", "/api/optional", {"Content-Type": "text/plain", "Content-Length": 0}).status == 201
    problem(server.request("POST", "/api/optional", {"Content-Type": "text/plain"}, b"x"), 415)


def test_bodies_nobody_reads(server):
    """An endpoint without members drops what comes, whatever it is."""
    assert server.request("POST", "/api/accept", {"Content-Type": "text/plain"}, b"x" * 100000).status == 202


# ---- what is answered ----------------------------------------------------------------------------

def test_an_answer(server):
    answer = server.request("POST", "/api/items", body={"title": title(), "price": 12.50})
    assert answer.status == 201 and answer.header("Content-Type") == "application/json; charset=utf-8"
    assert cache_status(answer) == {"fwd": "method"}
    assert answer.header("Cache-Control") == "private, no-cache"
    assert answer.header("ETag") is None and answer.header("Age") is None and answer.header("Vary") is None
    assert answer.header("Server-Timing").startswith("queue;dur=")
    assert answer.json()["price"] == 12.5


def test_statuses(server):
    assert server.request("POST", "/api/accept").status == 202
    answer = server.request("PUT", "/api/rows", body={"ids": [3, 1]})
    assert answer.status == 200 and answer.json() == [{"item": 3}, {"item": 1}]
    assert server.request("PUT", "/api/rows", body={"ids": []}).json() == []
    answer = server.request("DELETE", f"/api/items/{create(server)['id']}")
    assert (answer.status, answer.body) == (204, b"") and cache_status(answer) == {"fwd": "method"}
    assert answer.header("Content-Type") is None
    assert server.request("DELETE", "/api/items/2147483647").status == 204


def test_no_row_still_commits(server, cluster, db):
    before = audited(cluster, db, "look")
    problem(server.request("POST", "/api/audit/2147483647"), 404)
    assert audited(cluster, db, "look") == before + 1


def test_conditions_do_not_stop_a_write(server, cluster, db):
    before = audited(cluster, db, "accept")
    for _ in range(3):
        answer = server.request("POST", "/api/accept", {"If-None-Match": "*", "Accept-Encoding": "gzip, br"})
        assert answer.status == 202 and answer.header("Content-Encoding") is None
    assert audited(cluster, db, "accept") == before + 3


def test_methods_of_a_path(server):
    for path, allowed in ((f"/api/items/{create(server)['id']}", "GET, HEAD, PATCH, DELETE, OPTIONS"), ("/api/items", "POST, OPTIONS"),
                          ("/api/rows", "PUT, OPTIONS"), ("/api/count", "GET, HEAD, POST, OPTIONS")):
        answer = server.request("OPTIONS", path)
        assert (answer.status, answer.header("Allow")) == (204, allowed)
        answer = server.request("BREW", path)
        problem(answer, 405)
        assert answer.header("Allow") == allowed
    assert server.head("/api/items").status == 405


def test_the_index_lists_writes(server):
    listed = {e["name"]: e for e in server.get("/").json()["endpoints"]}
    assert listed["create"]["method"] == "POST"
    parameters = {p["name"]: p for p in listed["create"]["parameters"]}
    assert parameters["title"]["in"] == "body" and parameters["title"]["required"] is True
    assert parameters["prices"]["type"] == "json[]"
    assert [m["name"] for m in parameters["prices"]["members"]] == ["week", "price", "note"]
    assert parameters["prices"]["members"][0] | {"min": "1", "max": "53"} == parameters["prices"]["members"][0]


def test_the_access_log(server):
    answer = server.request("POST", "/api/items", body={"title": title()})
    line = server.wait_log(f".*id={answer.header('X-Request-Id')}.*")[0]
    assert "method=POST" in line and "route=/api/items" in line and "cache=write" in line and "status=201" in line


# ---- what is refused by the database -------------------------------------------------------------

def test_constraints(server):
    first = create(server)
    cases = [({"title": first["title"]}, 409), ({"title": "forbidden"}, 422), ({"title": title(), "owner": 2147483647}, 409),
             ({"title": title(), "parent": 2147483647}, 409),
             ({"title": title(), "prices": [{"week": 1, "price": 1}, {"week": 1, "price": 2}]}, 409)]
    for body, status in cases:
        answer = server.request("POST", "/api/items", body=body)
        problem(answer, status)
        assert "item" not in answer.json()["detail"]
    problem(server.request("PATCH", f"/api/items/{first['id']}", body={"title": None}), 422)
    create(server, owner=first["id"])
    problem(server.request("DELETE", f"/api/items/{first['id']}"), 409)


def test_what_fails_has_done_nothing(server, cluster, db):
    before = audited(cluster, db, "create"), cluster.sql(db, "SELECT count(*) FROM item")
    problem(server.request("POST", "/api/items", body={"title": title(), "parent": 2147483647}), 409)
    problem(server.request("POST", "/api/items", body={"title": title(), "prices": [{"week": 1, "price": 1}] * 2}), 409)
    assert (audited(cluster, db, "create"), cluster.sql(db, "SELECT count(*) FROM item")) == before


def test_failing_by_hand(server, cluster, db):
    for status in (400, 404, 409, 422, 503):
        answer = server.request("POST", "/api/fail", body={"status": status, "message": "Not “this” way."})
        assert problem(answer, status)["detail"] == "Not “this” way."
    assert audited(cluster, db, "fail") == 0


def test_two_of_one_title(server, cluster, db):
    for _ in range(20):
        name, found = title(), []
        threads = [threading.Thread(target=lambda: found.append(server.request("POST", "/api/items", body={"title": name}).status))
                   for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [201, 409]


@pytest.mark.threads
def test_writes_are_not_collapsed(server, cluster, db):
    before, found = cluster.sql(db, "SELECT n FROM counter")[0][0], []
    def run():
        for _ in range(10):
            found.append(server.request("POST", "/api/count").json()["n"])
    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(before + 1, before + 61))


# ---- absent and null -----------------------------------------------------------------------------

def test_patch(server):
    item = create(server, price=5)
    path = f"/api/items/{item['id']}"
    assert server.request("PATCH", path, body={"note": "n"}).json() == {**item, "note": "n"}
    assert server.request("PATCH", path, body={}).json() == {**item, "note": "n"}
    assert server.request("PATCH", path, body={"price": None}).json() == {**item, "price": None, "note": "n"}
    assert server.request("PATCH", path, body={"note": None, "price": 6}).json() == {**item, "price": 6, "note": None}
    problem(server.request("PATCH", "/api/items/2147483647", body={"note": "n"}), 404)


# ---- reading what was written --------------------------------------------------------------------

@pytest.mark.threads
def test_read_your_writes(server):
    path = f"/api/items/{create(server)['id']}"
    with server.connect(60) as one, server.connect(60) as other:
        for n in range(200):
            body = json.dumps({"price": n}).encode()
            one.send(b"PATCH %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s" % (path.encode(), HOST, JSON, len(body), body))
            assert one.response().json()["price"] == n
            for connection in (one, other):
                connection.send(b"GET %s HTTP/1.1\r\n%s\r\n" % (path.encode(), HOST))
                price = connection.response().json()["price"]
                must(price == n, f"{price} was read after {n} was written")


# ---- on the wire ---------------------------------------------------------------------------------

def post(path, body, more=b""):
    return b"POST %s HTTP/1.1\r\n%s%s%sContent-Length: %d\r\n\r\n%s" % (path, HOST, JSON, more, len(body), body)


def test_pipelined(server):
    names = [title() for _ in range(20)]
    requests = [post(b"/api/items", json.dumps({"title": name}).encode()) + post(b"/api/required", b'{"reason":') for name in names]
    with server.connect(30) as connection:
        connection.send(b"".join(requests))
        for name in names:
            assert connection.response().json()["title"] == name
            problem(connection.response(), 400, ["errors"])


def test_expect_continue(server):
    body = json.dumps({"reason": "x"}).encode()
    with server.connect() as connection:
        connection.send(b"POST /api/required HTTP/1.1\r\n%s%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (HOST, JSON, len(body)))
        assert connection.response().status == 100
        connection.send(body)
        assert connection.response().status == 201


def test_chunks(server):
    body = json.dumps({"reason": "x" * 1000}).encode()
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7]) for i in range(0, len(body), 7))
    head = b"POST /api/required HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    assert server.raw(head + pieces + b"0\r\n\r\n")[0].json()["length"] == 1000


def test_a_byte_at_a_time(server):
    with server.connect() as connection:
        for byte in post(b"/api/required", b'{"reason":"slow"}'):
            connection.send(bytes([byte]))
        assert connection.response().json()["reason"] == "slow"


def test_max_body(server):
    around = len('{"reason":""}')
    body = b'{"reason":"' + b"x" * (MAX_BODY - around) + b'"}'
    assert len(body) == MAX_BODY
    assert server.request("POST", "/api/required", {"Content-Type": "application/json"}, body).json()["length"] == MAX_BODY - around
    announced = b"POST /api/required HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1)
    problem(server.raw(announced)[0], 413)
    chunks = b"".join(b"10000\r\n" + b" " * 65536 + b"\r\n" for _ in range(17))
    head = b"POST /api/required HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    problem(server.raw(head + chunks + b"0\r\n\r\n")[0], 413)


def test_closed_in_the_middle(server, cluster, db):
    before = audited(cluster, db, "create")
    whole = post(b"/api/items", json.dumps({"title": title()}).encode())
    for size in range(10, len(whole)):
        with server.connect() as connection:
            connection.send(whole[:size])
    wait_until(lambda: server.get("/livez").status == 200)
    assert audited(cluster, db, "create") == before


def test_slow_bodies_end(cluster, db):
    with Server(cluster, db, ENDPOINTS, {"http": {"idle_timeout": "500ms"}}) as server, server.connect() as connection:
        connection.send(post(b"/api/required", b"x" * 100)[:-50])
        assert connection.closed(10)


def test_a_caller_who_leaves(cluster, db, server):
    """What has been sent is done, whoever still listens."""
    before = audited(cluster, db, "accept")
    for _ in range(10):
        with server.connect() as connection:
            connection.send(b"POST /api/accept HTTP/1.1\r\n" + HOST + b"\r\n")
    wait_until(lambda: audited(cluster, db, "accept") > before)


# ---- who may make us hold something --------------------------------------------------------------

BIG = 16 << 20


def resident(server):
    with open(f"/proc/{server.pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


def send_but_the_end(server, count, size, path=b"/api/required", more=b""):
    """Bodies of which the last byte is still to come."""
    head = b"POST %s HTTP/1.1\r\n%s%s%sContent-Length: %d\r\n\r\n" % (path, HOST, JSON, more, size)
    body = b'{"reason":"' + b"x" * (size - 13) + b'"}'
    connections = [server.connect(60) for _ in range(count)]
    for connection in connections:
        connection.send(head + body[:-1])
    return connections


@pytest.mark.skipif("san" in str(BINARY), reason="sanitizers have memory of their own")
def test_strangers_are_not_buffered(cluster, db):
    with Server(cluster, db, ENDPOINTS, {"http": {"max_body": "16MiB"}}, token=True) as server:
        server.request("POST", "/api/required", {"Content-Type": "application/json"}, b"{}")
        before = resident(server)
        connections = send_but_the_end(server, 8, BIG)
        wait_until(lambda: server.get("/livez").status == 200)
        assert resident(server) - before < BIG
        for connection in connections:
            connection.send(b"}")
            problem(connection.response(), 401)
            connection.close()


def test_bodies_together_are_bounded(cluster, db):
    config = {"http": {"max_body": "16MiB"}, "database": {"pool_max": 2}, "workers": {"threads": 2}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        connections = send_but_the_end(server, 8, BIG)
        statuses = []
        for connection in connections:
            connection.send(b"}")
            answer = connection.response()
            statuses.append(answer.status)
            if answer.status == 503:
                assert problem(answer, 503)["detail"].startswith("Too many large requests")
            connection.close()
        assert statuses.count(201) >= 3 and statuses.count(503) >= 4 and len(statuses) == 8, statuses
        # All of it is given back.
        wait_until(lambda: server.request("POST", "/api/required", {"Content-Type": "application/json"},
                                          b'{"reason":"' + b"x" * (BIG - 13) + b'"}').status == 201)


# ---- who may write -------------------------------------------------------------------------------

def test_pages_of_others_cannot_write(server, cluster, db):
    """Without a token ([auth] mode = none) only this origin's pages may."""
    before = audited(cluster, db, "accept")
    for path in ("/api/accept", "/api/public"):
        problem(server.request("POST", path, {"Origin": "https://evil.example"}), 403)
        problem(server.request("POST", path, {"Sec-Fetch-Site": "cross-site"}), 403)
    assert audited(cluster, db, "accept") == before
    assert server.request("POST", "/api/accept", {"Origin": server.url}).status == 202
    assert server.request("POST", "/api/public", body={"t": "x"}).json() == {"t": "x"}


def test_one_statement_each(server, cluster, db):
    def ran():
        return sum(n for text, n in statements(cluster.dsn(db)).items() if "FROM unnest(" in text)
    before = ran()
    server.request("PUT", "/api/rows", body={"ids": [1]})
    assert ran() == before + 1


def test_a_pause_between_requests(server):
    """A connection that has carried a large body goes on with small ones."""
    with server.connect() as connection:
        for size in (500000, 1, 200000, 1):
            connection.send(post(b"/api/required", json.dumps({"reason": "y" * size}).encode()))
            assert connection.response().json()["length"] == size
        connection.send(b"GET /api/count HTTP/1.1\r\n" + HOST + b"\r\n")
        assert connection.response().status == 200


def test_bytes_at_random(cluster, db):
    """Whatever comes is answered or closed, and the server lives."""
    dice = random.Random(7)
    good = post(b"/api/items", json.dumps({"title": "a", "prices": [{"week": 1, "price": 1}]}).encode(), b"Connection: close\r\n")
    with Server(cluster, db, ENDPOINTS, {"http": {"idle_timeout": "300ms", "header_timeout": "300ms"}}) as server:
        for _ in range(150):
            data = bytearray(good)
            for _ in range(dice.randint(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            with server.connect(20) as connection:
                end = b""
                connection.send(bytes(data))
                with contextlib.suppress(ConnectionResetError):     # closed with something of ours unread
                    while piece := connection.socket.recv(65536):
                        end += piece
                assert not end or re.match(rb"HTTP/1.1 (100|20[01]|4\d\d|50[15]) ", end), end
        assert server.get("/livez").status == 200

"""Results as JSON: the shapes of @returns, and every type of column."""
import json

import pytest

from harness import Server
from problems import problem

SETUP = """
CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'happy');
CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
CREATE DOMAIN label AS text;
CREATE TYPE pair AS (a integer, b text);
"""

# name of the case: (an expression, the JSON it becomes, to the letter)
VALUES = {
    "smallint": ("-5::int2", "-5"),
    "integer": ("2147483647", "2147483647"),
    "bigint, beyond a double": ("9223372036854775807", "9223372036854775807"),
    "smallest bigint": ("'-9223372036854775808'::int8", "-9223372036854775808"),
    "oid": ("4294967295::oid", "4294967295"),
    "numeric keeps its zeros": ("1.50::numeric", "1.50"),
    "numeric of many digits": ("123456789012345678901234567890.123456789", "123456789012345678901234567890.123456789"),
    "small numeric": ("-0.00000001", "-0.00000001"),
    "numeric NaN": ("'NaN'::numeric", '"NaN"'),
    "numeric Infinity": ("'-Infinity'::numeric", '"-Infinity"'),
    "double": ("0.1::float8", "0.1"),
    "large double": ("1e300::float8", "1e+300"),
    "small double": ("-2.5e-10::float8", "-2.5e-10"),
    "negative zero": ("'-0'::float8", "-0"),
    "double NaN": ("'NaN'::float8", '"NaN"'),
    "double Infinity": ("'Infinity'::float8", '"Infinity"'),
    "real": ("1.5::float4", "1.5"),
    "money": ("12.34::numeric::money::numeric", "12.34"),
    "true": ("true", "true"),
    "false": ("false", "false"),
    "text": ("'hello'::text", '"hello"'),
    "empty text": ("''::text", '""'),
    "quotes and backslashes": (r"""'a"b\c/d'::text""", r'"a\"b\\c/d"'),
    "control characters": (r"E'\x01\n\r\t\x1f\x7f'", None),
    "umlauts and emoji": ("'äß🎓'::text", '"äß🎓"'),
    "line separators": (r"U&'\2028\2029'", None),
    "varchar": ("'ab'::varchar(5)", '"ab"'),
    "char is padded": ("'ab'::char(4)", '"ab  "'),
    "name": ("'ab'::name", '"ab"'),
    "one byte": ("'x'::\"char\"", '"x"'),
    "uuid": ("'123E4567-e89b-12d3-a456-426614174000'::uuid", '"123e4567-e89b-12d3-a456-426614174000"'),
    "date": ("'2026-01-02'::date", '"2026-01-02"'),
    "date infinity": ("'infinity'::date", '"infinity"'),
    "time": ("'03:04:05.6'::time", '"03:04:05.6"'),
    "interval": ("'1 day 2 hours'::interval", '"1 day 02:00:00"'),
    "timestamp": ("'2026-01-02 03:04:05.678'::timestamp", '"2026-01-02T03:04:05.678"'),
    "timestamptz is RFC 3339": ("'2026-01-02 03:04:05.678+02'::timestamptz", '"2026-01-02T01:04:05.678+00:00"'),
    "timestamptz of whole seconds": ("'2026-01-02 03:04:05Z'::timestamptz", '"2026-01-02T03:04:05+00:00"'),
    "timestamptz infinity": ("'-infinity'::timestamptz", '"-infinity"'),
    "timestamptz before Christ": ("'0044-03-15 12:00:00+00 BC'::timestamptz", '"0044-03-15 12:00:00+00 BC"'),
    "timestamptz far ahead": ("'12026-01-02 03:04:05Z'::timestamptz", '"12026-01-02T03:04:05+00:00"'),
    "json as it is": ("""'{"b" : 1, "a":[null]}'::json""", '{"b" : 1, "a":[null]}'),
    "jsonb": ("""'{"b":1,"a":2}'::jsonb""", '{"a": 2, "b": 1}'),
    "json text": ("""'"x"'::json""", '"x"'),
    "json null": ("'null'::jsonb", "null"),
    "bytea": (r"'\x00ff'::bytea", r'"\\x00ff"'),
    "inet": ("'10.0.0.1/8'::inet", '"10.0.0.1/8"'),
    "range": ("'[1,5)'::int4range", '"[1,5)"'),
    "point": ("'(1,2)'::point", '"(1,2)"'),
    "bits": ("B'101'", '"101"'),
    "enum": ("'happy'::mood", '"happy"'),
    "domain over a number": ("42::percent", "42"),
    "domain over a text": ("'x'::label", '"x"'),
    "composite": ("(1, 'a b')::pair", '"(1,\\"a b\\")"'),
    "NULL integer": ("NULL::integer", "null"),
    "NULL text": ("NULL::text", "null"),
    "NULL json": ("NULL::json", "null"),
    "NULL array": ("NULL::integer[]", "null"),
    "NULL of no type": ("NULL", "null"),

    "array of integers": ("ARRAY[1,-2,NULL]", "[1,-2,null]"),
    "empty array": ("'{}'::text[]", "[]"),
    "nested array": ("ARRAY[[1,2],[3,4]]", "[[1,2],[3,4]]"),
    "array with other bounds": ("'[0:1]={5,6}'::int[]", "[5,6]"),
    "nested array with other bounds": ("'[0:1][2:2]={{5},{6}}'::int[]", "[[5],[6]]"),
    "array of bigints": ("ARRAY[9223372036854775807]", "[9223372036854775807]"),
    "array of numerics": ("ARRAY[1.50, 'NaN'::numeric]", '[1.50,"NaN"]'),
    "array of doubles": ("ARRAY[0.1::float8, 'Infinity'::float8]", '[0.1,"Infinity"]'),
    "array of booleans": ("ARRAY[true,false,NULL]", "[true,false,null]"),
    "array of texts": ("ARRAY['a','b c','']", '["a","b c",""]'),
    "array of awkward texts": (r"""ARRAY['NULL','null','{a,b}','"','\','a"b\c',',',' x ',NULL]""",
                               r'["NULL","null","{a,b}","\"","\\","a\"b\\c",","," x ",null]'),
    "array of texts with newlines": (r"ARRAY[E'a\nb', E'\t']", r'["a\nb","\t"]'),
    "nested array of texts": ("ARRAY[['a',NULL],['{}','d']]", '[["a",null],["{}","d"]]'),
    "array of varchars": ("ARRAY['a'::varchar]", '["a"]'),
    "array of uuids": ("ARRAY['123e4567-e89b-12d3-a456-426614174000'::uuid]", '["123e4567-e89b-12d3-a456-426614174000"]'),
    "array of dates": ("ARRAY['2026-01-02'::date]", '["2026-01-02"]'),
    "array of timestamps": ("ARRAY['2026-01-02 03:04:05'::timestamp]", '["2026-01-02T03:04:05"]'),
    "array of timestamptzs": ("ARRAY['2026-01-02 03:04:05Z'::timestamptz, NULL]", '["2026-01-02T03:04:05+00:00",null]'),
    "array of jsons": (r"""ARRAY['{"a":"\"x\\"}'::json]""", None),
    "array of jsonbs": ("""ARRAY['{"a": [1, "b,c"]}'::jsonb, 'null']""", '[{"a": [1, "b,c"]},null]'),
    "array of times": ("ARRAY['03:04:05'::time]", '["03:04:05"]'),
    "array of intervals": ("ARRAY['1 day 2 hours'::interval]", '["1 day 02:00:00"]'),
    "array of byteas": (r"ARRAY['\x00ff'::bytea]", r'["\\x00ff"]'),
    "array of inets": ("ARRAY['10.0.0.1'::inet]", '["10.0.0.1"]'),
    "array of ranges": ("ARRAY['[1,5)'::int4range, 'empty']", '["[1,5)","empty"]'),
    "array of points": ("ARRAY['(1,2)'::point]", '["(1,2)"]'),
    "array of timestamp ranges": ("ARRAY[tstzrange('2026-01-02Z', NULL)]", '["[\\"2026-01-02 00:00:00+00\\",)"]'),
    # Only PostgreSQL knows the numbers of types that somebody made; to_json() says what they are.
    "array of an enum": ("ARRAY['happy', 'sad']::mood[]", '"{happy,sad}"'),
    "array of an enum by to_json": ("to_json(ARRAY['happy', 'so \"so\"', NULL]::mood[])", '["happy","so \\"so\\"",null]'),
}

# What is easier to say as a value than to the letter.
MEANINGS = {
    "control characters": "\x01\n\r\t\x1f\x7f",
    "line separators": "\u2028\u2029",
    "array of jsons": [{"a": '"x\\'}],
}

SHAPES = {
    "json.sql": "-- @route GET /api/json\n-- @query n integer default=1\nSELECT json_build_object('n', i) FROM generate_series(1, :n) i",
    "jsonb.sql": "-- @route GET /api/jsonb\nSELECT '[1, 2]'::jsonb",
    "json-null.sql": "-- @route GET /api/json-null\nSELECT NULL::json",
    "json-declared.sql": "-- @route GET /api/json-declared\n-- @returns json\nSELECT '{}'::json AS anything",
    "json-large.sql": "-- @route GET /api/json-large\nSELECT json_agg(repeat('ä', 1000)) FROM generate_series(1, 5000)",
    "rows.sql": "-- @route GET /api/rows\n-- @query n integer default=2\nSELECT i AS id, 'row ' || i AS \"the Name\" FROM generate_series(1, :n) i ORDER BY i",
    "rows-of-json.sql": "-- @route GET /api/rows-of-json\n-- @returns rows\nSELECT json_build_object('a', i) AS j FROM generate_series(1, 2) i",
    "rows-many.sql": "-- @route GET /api/rows-many\nSELECT i, i::text AS t FROM generate_series(1, 20000) i ORDER BY i",
    "rows-names.sql": "-- @route GET /api/rows-names\nSELECT 1 AS \"a\"\"b\\c\", 2 AS \"ü\", 3 AS \"\n\"",
    "row.sql": "-- @route GET /api/row\n-- @returns row\n-- @query n integer default=1\nSELECT i AS id, NULL AS nothing FROM generate_series(1, :n) i ORDER BY i",
    "none.sql": "-- @route GET /api/none\n-- @returns none\nSELECT 1 WHERE false",
    "none-of-rows.sql": "-- @route GET /api/none-of-rows\n-- @returns none\nSELECT generate_series(1, 10)",
    "accepted.sql": "-- @route GET /api/accepted\n-- @status 202\nSELECT '{}'::json",
    "values.sql": "-- @route GET /api/values\nVALUES (1, 'a'), (2, 'b')",
    "table.sql": "-- @route GET /api/table\n-- @returns row\nTABLE pg_am LIMIT 0",
    "comments.sql": "-- @route GET /api/comments\n-- @query v text\n/* :nothing */ SELECT ':v' AS a, :v AS b, $$:v$$ AS c, 1::int AS d -- :v\n;\n",
}

ENDPOINTS = {f"value-{i}.sql": f"-- A value.\n-- @route GET /api/value/{i}\n-- @returns row\nSELECT {expression} AS v\n"
             for i, (expression, _) in enumerate(VALUES.values())}
ENDPOINTS |= {name: "-- A shape.\n" + text for name, text in SHAPES.items()}


@pytest.fixture(scope="module")
def server(cluster, empty_template, request):
    db = "endpoints_returns"
    cluster.create(db, empty_template)
    request.addfinalizer(lambda: cluster.drop(db))
    cluster.sql(db, SETUP)
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        yield server


@pytest.mark.parametrize("case", VALUES)
def test_value(server, case):
    answer = server.get(f"/api/value/{list(VALUES).index(case)}")
    assert answer.status == 200, answer
    text = VALUES[case][1]
    if text is None:
        assert answer.json() == {"v": MEANINGS[case]}
    else:
        assert answer.body.decode() == f'{{"v":{text}}}'
        answer.json()


def body(server, path):
    answer = server.get(path)
    assert answer.status == 200 and answer.header("Content-Type") == "application/json; charset=utf-8", answer
    return answer.body.decode()


def test_json_is_sent_as_it_is(server):
    assert body(server, "/api/json") == '{"n" : 1}'
    assert body(server, "/api/jsonb") == "[1, 2]"
    assert body(server, "/api/json-declared") == "{}"


def test_json_takes_the_first_row(server):
    assert body(server, "/api/json?n=3") == '{"n" : 1}'


def test_json_null_is_null(server):
    assert body(server, "/api/json-null") == "null"


def test_large_json(server):
    assert json.loads(body(server, "/api/json-large")) == ["ä" * 1000] * 5000


def test_rows(server):
    assert body(server, "/api/rows") == '[{"id":1,"the Name":"row 1"},{"id":2,"the Name":"row 2"}]'
    assert body(server, "/api/rows?n=0") == "[]"
    assert body(server, "/api/rows-of-json") == '[{"j":{"a" : 1}},{"j":{"a" : 2}}]'
    assert body(server, "/api/values") == '[{"column1":1,"column2":"a"},{"column1":2,"column2":"b"}]'


def test_many_rows(server):
    assert json.loads(body(server, "/api/rows-many")) == [{"i": i, "t": str(i)} for i in range(1, 20001)]


def test_names_of_columns_are_escaped(server):
    assert json.loads(body(server, "/api/rows-names")) == [{'a"b\\c': 1, "ü": 2, "\n": 3}]


def test_row(server):
    assert body(server, "/api/row") == '{"id":1,"nothing":null}'
    assert body(server, "/api/row?n=3") == '{"id":1,"nothing":null}'


@pytest.mark.parametrize("path", ["/api/json?n=0", "/api/row?n=0", "/api/table"])
def test_no_row_is_404(server, path):
    assert problem(server.get(path), 404)["detail"] == "There is no such record."


@pytest.mark.parametrize("path", ["/api/none", "/api/none-of-rows"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_none(server, path, method):
    answer = server.request(method, path)
    assert answer.status == 204 and answer.body == b""
    assert answer.header("Content-Type") is None and answer.header("ETag") is None


def test_status(server):
    answer = server.get("/api/accepted")
    assert answer.status == 202 and answer.json() == {}


def test_names_in_comments_and_strings_are_no_parameters(server):
    assert server.get("/api/comments?v=x").json() == [{"a": ":v", "b": "x", "c": ":v", "d": 1}]


def test_head_lengths_of_all_shapes(server):
    for path in ("/api/json", "/api/rows", "/api/row", "/api/json-large", "/api/json?n=0"):
        got, head = server.get(path), server.head(path)
        assert head.status == got.status and head.header("Content-Length") == str(len(got.body)), path

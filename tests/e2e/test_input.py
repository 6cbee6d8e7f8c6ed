"""Parameters of a request: what is taken, in which form it reaches PostgreSQL, and what is refused, why."""
import re
from urllib.parse import quote

import pytest

from harness import Server
from problems import bad_parameters, problem

# How a declared parameter `v` is seen by PostgreSQL: its value as JSON, and its type.
SEEN = "SELECT json_build_object('v', to_json(:v), 'type', pg_typeof(:v)::text)"

TYPES = {
    "text": "text",
    "integer": "integer",
    "bigint": "bigint",
    "number": "double precision",
    "numeric": "numeric",
    "boolean": "boolean",
    "uuid": "uuid",
    "date": "date",
    "timestamp": "timestamp with time zone",
    "json": "jsonb",
}

DECLARATIONS = {
    **{name: name for name in TYPES},
    "text-1-3": "text min=1 max=3",
    "text-max-36": "text max=36",
    "text-default": "text default='two words, it''s'",
    "text-enum": "text enum=A|B|c",
    "text-trim": "text trim",
    "text-upper": "text trim upper enum=DRAFT|PUBLISHED",
    "text-lower": "text lower",
    "text-trim-min": "text trim min=2",
    "integer-1-10": "integer min=1 max=10",
    "integer-default": "integer default=7",
    "integer-min": "integer min=0",
    "bigint-max": "bigint max=9007199254740993",
    "number-min": "number min=-1.5 max=2e3",
    "numeric-max": "numeric min=0.01 max=99999999999999999999.99",
    "date-range": "date min=2020-01-01 max=2029-12-31",
    "timestamp-min": "timestamp min=2020-01-01T00:00:00Z",
    "boolean-default": "boolean default=false",
    "required": "integer required",
    "texts": "text[] max=3",
    "integers": "integer[]",
    "uuids": "uuid[]",
    "texts-upper": "text[] trim upper enum=A|B",
    "texts-min": "text[] min=2",
    "integers-default": "integer[] default=1|2",
    "texts-required": "text[] required",
    "jsons": "json[]",
    "timestamps": "timestamp[]",
}

ENDPOINTS = {f"{name}.sql": f"-- One parameter.\n-- @route GET /api/{name}\n-- @query v {declaration}\n{SEEN}\n"
             for name, declaration in DECLARATIONS.items()}
ENDPOINTS |= {
    "path.sql": "-- A text in the path.\n-- @route GET /api/path/:v\n-- @path v text max=36\n" + SEEN,
    "path-number.sql": "-- A number in the path.\n-- @route GET /api/path-number/:v\n-- @path v integer min=1\n" + SEEN,
    "deep.sql": """-- Two parameters in the path, in another order than they are declared.
-- @route GET /api/deep/:a/between/:b
-- @path b text
-- @path a text
SELECT json_build_object('a', :a, 'b', :b)""",
    "deep-static.sql": """-- A static segment beats a parameter.
-- @route GET /api/deep/known/between/:b
-- @path b text
SELECT json_build_object('static', :b)""",
    "many.sql": """-- Parameters of all kinds together.
-- @route GET /api/many/:id
-- @path id uuid
-- @query page integer min=1 default=1
-- @query limit integer min=1 max=100 default=50
-- @query status text trim upper enum=ON|OFF
-- @query from date required
-- @query tags integer[] max=2
-- @query search text max=5
SELECT json_build_object('id', :id, 'page', :page, 'limit', :limit, 'status', :status, 'from', :from,
                         'tags', :tags, 'search', :search)""",
    "nothing.sql": "-- No parameters.\n-- @route GET /api/nothing\nSELECT json_build_object('ok', true)",
    "odd.sql": """-- Names as dashboards have them.
-- @route GET /api/odd
-- @query camelCase integer
-- @query snake_case integer
-- @query _x integer
SELECT json_build_object('camelCase', :camelCase, 'snake_case', :snake_case, '_x', :_x)""",
}

UUID = "123e4567-e89b-12d3-a456-426614174000"


@pytest.fixture(scope="module")
def server(cluster, empty_template, request):
    cluster.create("input", empty_template)
    request.addfinalizer(lambda: cluster.drop("input"))
    with Server(cluster, "input", endpoints=ENDPOINTS) as server:
        yield server


# ---- what is taken -------------------------------------------------------------------------------

# name of the case: (endpoint, query, value as PostgreSQL has it)
TAKEN = {
    "text as it is": ("text", "v=hello", "hello"),
    "plus is a blank": ("text", "v=a+b", "a b"),
    "escaped plus is a plus": ("text", "v=a%2Bb", "a+b"),
    "escaped ampersand and equals are data": ("text", "v=a%26b%3Dc", "a&b=c"),
    "an equals sign in the value": ("text", "v=a=b==", "a=b=="),
    "a question mark in the query": ("text", "v=a?b", "a?b"),
    "semicolons do not separate": ("text", "v=a;v=b", "a;v=b"),
    "a slash in the query": ("text", "v=/a/b", "/a/b"),
    "lower and upper hex digits": ("text", "v=%c3%A4", "ä"),
    "four bytes of UTF-8": ("text", "v=%F0%9F%8E%93", "🎓"),
    "quotes and backslashes": ("text", "v=" + quote("'\"\\--/*;$1:v"), "'\"\\--/*;$1:v"),
    "control characters but NUL": ("text", "v=%01%0A%0D%09%1F", "\x01\n\r\t\x1f"),
    "percent itself": ("text", "v=100%25", "100%"),
    "decoded once only": ("text", "v=%2525", "%25"),
    "an escaped name": ("text", "%76=x", "x"),
    "the word NULL is a text": ("text", "v=NULL", "NULL"),
    "blanks are kept without trim": ("text", "v=+a+", " a "),
    "a combining sequence as it is": ("text", "v=e%CC%81", "e\u0301"),
    "trim": ("text-trim", "v=+%09a+b%0A", "a b"),
    "trim, then upper, then enum": ("text-upper", "v=+draft+", "DRAFT"),
    "lower": ("text-lower", "v=ABC%C3%84", "abcä"),
    "enum in its own case": ("text-enum", "v=c", "c"),
    "length counts characters": ("text-1-3", "v=" + quote("äöü"), "äöü"),
    "text at its maximum": ("text-max-36", "v=" + "x" * 36, "x" * 36),
    "default with blanks and a quote": ("text-default", "", "two words, it's"),

    "integer": ("integer", "v=42", 42),
    "integer with a plus": ("integer", "v=%2B42", 42),
    "integer with leading zeros": ("integer", "v=007", 7),
    "negative zero": ("integer", "v=-0", 0),
    "smallest integer": ("integer", "v=-2147483648", -2147483648),
    "largest integer": ("integer", "v=2147483647", 2147483647),
    "integer at its minimum": ("integer-1-10", "v=1", 1),
    "integer at its maximum": ("integer-1-10", "v=10", 10),
    "default integer": ("integer-default", "", 7),
    "default unless given": ("integer-default", "v=8", 8),
    "smallest bigint": ("bigint", "v=-9223372036854775808", -9223372036854775808),
    "largest bigint": ("bigint", "v=9223372036854775807", 9223372036854775807),
    "bigint bound beyond a double": ("bigint-max", "v=9007199254740993", 9007199254740993),
    "number": ("number", "v=-12.5", -12.5),
    "number with an exponent": ("number", "v=1e3", 1000),
    "number shortest to the same double": ("number", "v=0.1", 0.1),
    "number at its bound": ("number-min", "v=2000", 2000),
    "numeric keeps its digits": ("numeric", "v=123456789012345678901234567890.12", 123456789012345678901234567890.12),
    "numeric at its bound": ("numeric-max", "v=0.01", 0.01),
    "true": ("boolean", "v=true", True),
    "TRUE": ("boolean", "v=TRUE", True),
    "1 is true": ("boolean", "v=1", True),
    "0 is false": ("boolean", "v=0", False),
    "default false": ("boolean-default", "", False),
    "uuid in capitals": ("uuid", "v=" + UUID.upper(), UUID),
    "date": ("date", "v=2024-02-29", "2024-02-29"),
    "first date": ("date", "v=0001-01-01", "0001-01-01"),
    "last date": ("date", "v=9999-12-31", "9999-12-31"),
    "date at its bounds": ("date-range", "v=2029-12-31", "2029-12-31"),
    "timestamp in UTC": ("timestamp", "v=2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"),
    "timestamp without an offset is UTC": ("timestamp", "v=2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00"),
    "timestamp of a day is its midnight": ("timestamp", "v=2026-01-02", "2026-01-02T00:00:00+00:00"),
    "timestamp with an offset": ("timestamp", "v=2026-01-02T03:04:05%2B02:00", "2026-01-02T01:04:05+00:00"),
    "timestamp with microseconds": ("timestamp", "v=2026-01-02T03:04:05.000678Z", "2026-01-02T03:04:05.000678+00:00"),
    "timestamp at its minimum": ("timestamp-min", "v=2020-01-01T00:00:00Z", "2020-01-01T00:00:00+00:00"),
    "timestamp across midnight": ("timestamp", "v=2026-01-01T00:30:00%2B01:00", "2025-12-31T23:30:00+00:00"),
    "json object": ("json", "v=" + quote('{"a": [1, null, "x"]}'), {"a": [1, None, "x"]}),
    "json scalar": ("json", "v=3", 3),
    "json null is a value": ("json", "v=null", None),

    "array of one": ("texts", "v=a", ["a"]),
    "array by repetition, in order": ("texts", "v=b&v=a&v=b", ["b", "a", "b"]),
    "array elements are data": ("texts", "v=" + quote('a,b"{}\\') + "&v=NULL&v=+", ['a,b"{}\\', "NULL", " "]),
    "array of integers": ("integers", "v=3&v=-1", [3, -1]),
    "array of uuids": ("uuids", f"v={UUID.upper()}", [UUID]),
    "array elements trimmed and raised": ("texts-upper", "v=+a&v=B", ["A", "B"]),
    "empty elements are dropped": ("texts", "v=&v=a&v=", ["a"]),
    "array default": ("integers-default", "", [1, 2]),
    "array of json": ("jsons", "v=" + quote('{"a":"\\"{,"}') + "&v=1", [{"a": '"{,'}, 1]),
    "array of timestamps": ("timestamps", "v=2026-01-02T03:04:05Z", ["2026-01-02T03:04:05+00:00"]),

    "absent is NULL": ("text", "", None),
    "an empty value is absent": ("text", "v=", None),
    "a name without equals is absent": ("text", "v", None),
    "an empty value takes the default": ("integer-default", "v=", 7),
    "an empty value beside a value": ("integer", "v=&v=4&v=", 4),
    "only blanks, trimmed, is absent": ("text-trim", "v=+++", None),
    "only blanks, trimmed, is not below min": ("text-trim-min", "v=+", None),
    "an absent array is NULL": ("texts", "", None),
    "an array of empty values is absent": ("texts", "v=&v=", None),
    "unknown names are ignored": ("integer", "w=x&v=1&V=2&vv=3&%00=4", 1),
    "unknown names may be badly encoded": ("integer", "%=1&%zz=2&%ff=3&v=1&w=%zz", 1),
    "stray ampersands": ("integer", "&&v=1&&", 1),
    "1024 pairs": ("integer", "&".join(["x=1"] * 1023) + "&v=1", 1),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(server, case):
    endpoint, query, value = TAKEN[case]
    answer = server.get(f"/api/{endpoint}?{query}")
    assert answer.status == 200, answer
    assert answer.json()["v"] == value


@pytest.mark.parametrize("name", TYPES)
def test_type_in_postgresql(server, name):
    assert server.get(f"/api/{name}").json() == {"v": None, "type": TYPES[name]}


# ---- what is refused -----------------------------------------------------------------------------

# name of the case: (endpoint, query, what the reason says)
REFUSED = {
    "integer: a word": ("integer", "v=abc", "integer"),
    "integer: a fraction": ("integer", "v=1.0", "integer"),
    "integer: an exponent": ("integer", "v=1e3", "integer"),
    "integer: hexadecimal": ("integer", "v=0x10", "integer"),
    "integer: a blank in front": ("integer", "v=+1", "integer"),
    "integer: a sign alone": ("integer", "v=-", "integer"),
    "integer: one too large": ("integer", "v=2147483648", "-2147483648 to 2147483647"),
    "integer: one too small": ("integer", "v=-2147483649", "-2147483648 to 2147483647"),
    "integer: a thousand digits": ("integer", "v=" + "9" * 1000, "-2147483648 to 2147483647"),
    "integer: other digits": ("integer", "v=" + quote("٣"), "integer"),
    "integer: below min": ("integer-1-10", "v=0", "from 1 to 10"),
    "integer: above max is an error, not clamped": ("integer-1-10", "v=11", "from 1 to 10"),
    "integer: below the only bound": ("integer-min", "v=-1", "at least 0"),
    "bigint: one too large": ("bigint", "v=9223372036854775808", "9223372036854775807"),
    "bigint: exact above 2^53": ("bigint-max", "v=9007199254740994", "at most 9007199254740993"),
    "number: a word": ("number", "v=x", "number"),
    "number: NaN": ("number", "v=NaN", "number"),
    "number: Infinity": ("number", "v=Infinity", "number"),
    "number: overflow": ("number", "v=1e309", "finite"),
    "number: no digits behind the point": ("number", "v=1.", "number"),
    "number: below min": ("number-min", "v=-1.6", "from -1.5 to 2000"),
    "numeric: a word": ("numeric", "v=x", "number"),
    "numeric: NaN": ("numeric", "v=NaN", "number"),
    "numeric: too many digits": ("numeric", "v=" + "9" * 1001, "1000 digits"),
    "numeric: too large an exponent": ("numeric", "v=1e2000", "1000 digits"),
    "numeric: above max by a cent": ("numeric-max", "v=100000000000000000000", "99999999999999999999.99"),
    "boolean: yes": ("boolean", "v=yes", "true or false"),
    "boolean: 2": ("boolean", "v=2", "true or false"),
    "uuid: too short": ("uuid", "v=" + UUID[:-1], "UUID"),
    "uuid: braces": ("uuid", "v=%7B" + UUID + "%7D", "UUID"),
    "uuid: a letter that is no digit": ("uuid", "v=g" + UUID[1:], "UUID"),
    "date: a day that is not": ("date", "v=2023-02-29", "day that exists"),
    "date: month 13": ("date", "v=2023-13-01", "day that exists"),
    "date: American": ("date", "v=01/02/2023", "YYYY-MM-DD"),
    "date: a word of PostgreSQL": ("date", "v=today", "YYYY-MM-DD"),
    "date: infinity": ("date", "v=infinity", "YYYY-MM-DD"),
    "date: with a time": ("date", "v=2023-01-01T00:00:00Z", "YYYY-MM-DD"),
    "date: below min": ("date-range", "v=2019-12-31", "2020-01-01 to 2029-12-31"),
    "timestamp: hour 25": ("timestamp", "v=2026-01-02T25:00:00Z", "instant that exists"),
    "timestamp: an offset whose plus became a blank": ("timestamp", "v=2026-01-02T03:04:05+02:00", "%2B02:00"),
    "timestamp: a zone's name": ("timestamp", "v=2026-01-02T03:04:05+Europe/Paris", "timestamp"),
    "timestamp: below min": ("timestamp-min", "v=2019-12-31T23:59:59.999999Z", "at least 2020-01-01T00:00:00Z"),
    "json: not JSON": ("json", "v=%7Ba:1}", "JSON"),
    "json: two values": ("json", "v=1+2", "JSON"),
    "json: a NUL escape": ("json", "v=" + quote('"\\u0000"'), "\\u0000"),
    "json: too deep": ("json", "v=" + quote("[" * 33 + "]" * 33), "32"),
    "text: too long": ("text-1-3", "v=abcd", "at most 3 characters"),
    "text: too long by characters, not bytes": ("text-1-3", "v=" + quote("äöüß"), "at most 3 characters"),
    "text: too short": ("text-trim-min", "v=+a+", "at least 2 characters"),
    "text: not of the enum": ("text-enum", "v=D", "one of A, B, c"),
    "text: of the enum in another case": ("text-enum", "v=a", "one of A, B, c"),
    "text: %00": ("text", "v=a%00b", "NUL"),
    "text: a broken escape": ("text", "v=%", "percent-encoded"),
    "text: half an escape": ("text", "v=%4", "percent-encoded"),
    "text: no hex digits": ("text", "v=%zz", "percent-encoded"),
    "text: a byte that is not UTF-8": ("text", "v=%ff", "UTF-8"),
    "text: a sequence cut short": ("text", "v=%C3", "UTF-8"),
    "text: an overlong slash": ("text", "v=%C0%AF", "UTF-8"),
    "text: a surrogate": ("text", "v=%ED%A0%80", "UTF-8"),
    "text: beyond Unicode": ("text", "v=%F4%90%80%80", "UTF-8"),
    "text: an overlong NUL": ("text", "v=%C0%80", "UTF-8"),
    "a repeated scalar": ("integer", "v=1&v=1", "more than once"),
    "a scalar repeated under an escaped name": ("integer", "v=1&%76=2", "more than once"),
    "required and absent": ("required", "", "required"),
    "required and empty": ("required", "v=", "required"),
    "a required array, empty": ("texts-required", "v=", "required"),
    "array: too many": ("texts", "v=a&v=b&v=c&v=d", "at most 3 elements"),
    "array: too few": ("texts-min", "v=a", "at least 2 elements"),
    "array: a wrong element is numbered": ("integers", "v=1&v=x&v=y", "element 2"),
    "array: not of the enum": ("texts-upper", "v=a&v=c", "element 2 must be one of A, B"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(server, case):
    endpoint, query, reason = REFUSED[case]
    errors = bad_parameters(server.get(f"/api/{endpoint}?{query}"))
    assert list(errors) == [("query", "v")]
    assert re.search(re.escape(reason), errors["query", "v"]), errors


def test_reasons_never_repeat_the_value(server):
    answer = server.get("/api/integer?v=hunter2")
    bad_parameters(answer)
    assert b"hunter2" not in answer.body


def test_too_many_pairs(server):
    errors = bad_parameters(server.get("/api/integer?" + "&".join(["x=1"] * 1025)))
    assert list(errors) == [("query", "")] and "1024" in errors["query", ""]


def test_all_wrong_parameters_are_reported_at_once(server):
    query = "page=0&limit=101&status=maybe&tags=1&tags=2&tags=3&search=toolong"
    errors = bad_parameters(server.get(f"/api/many/not-a-uuid?{query}"))
    assert set(errors) == {("path", "id"), ("query", "page"), ("query", "limit"), ("query", "status"),
                           ("query", "from"), ("query", "tags"), ("query", "search")}
    assert "required" in errors["query", "from"]


def test_one_wrong_parameter_among_good_ones(server):
    errors = bad_parameters(server.get(f"/api/many/{UUID}?page=2&limit=1000&from=2024-01-01&unknown=1"))
    assert list(errors) == [("query", "limit")]


def test_all_parameters_together(server):
    answer = server.get(f"/api/many/{UUID.upper()}?tags=5&status=+on&from=2024-01-01&limit=100&tags=6&search=a%25b")
    assert answer.json() == {"id": UUID, "page": 1, "limit": 100, "status": "ON", "from": "2024-01-01",
                             "tags": [5, 6], "search": "a%b"}


def test_names_keep_their_case(server):
    answer = server.get("/api/odd?camelCase=1&camelcase=2&snake_case=3&_x=4&_X=5")
    assert answer.json() == {"camelCase": 1, "snake_case": 3, "_x": 4}


def test_an_endpoint_without_parameters_ignores_the_query(server):
    assert server.get("/api/nothing?a=%zz&a=1&%00").json() == {"ok": True}


# ---- the path ------------------------------------------------------------------------------------

PATHS = {
    "as it is": ("abc", "abc"),
    "%2F is data": ("a%2Fb", "a/b"),
    "%2f is data": ("%2f", "/"),
    "an escaped question mark": ("a%3Fb%23c", "a?b#c"),
    "plus stays a plus": ("a+b", "a+b"),
    "escaped blank": ("a%20b", "a b"),
    "umlauts": ("%C3%A4", "ä"),
    "sub-delimiters": ("a;b=1,c!$'()*@:~", "a;b=1,c!$'()*@:~"),
    "dots inside": ("a..b", "a..b"),
    "at its maximum": ("x" * 36, "x" * 36),
    "escapes do not count": ("%78" * 36, "x" * 36),
}


@pytest.mark.parametrize("case", PATHS)
def test_path(server, case):
    path, value = PATHS[case]
    assert server.get(f"/api/path/{path}").json() == {"v": value, "type": "text"}


# name of the case: (path, what the reason says)
PATHS_REFUSED = {
    "%00": ("/api/path/a%00b", "NUL"),
    "%00 alone": ("/api/path/%00", "NUL"),
    "a byte that is not UTF-8": ("/api/path/%FF", "UTF-8"),
    "overlong": ("/api/path/%C0%AF", "UTF-8"),
    "too long": ("/api/path/" + "x" * 37, "at most 36 characters"),
    "not a number": ("/api/path-number/abc", "integer"),
    "below min": ("/api/path-number/0", "at least 1"),
    "beyond its type": ("/api/path-number/99999999999", "integer"),
    "a number and a path": ("/api/path-number/1%2F2", "integer"),
}


@pytest.mark.parametrize("case", PATHS_REFUSED)
def test_path_refused(server, case):
    path, reason = PATHS_REFUSED[case]
    errors = bad_parameters(server.get(path))
    assert list(errors) == [("path", "v")] and reason in errors["path", "v"]


def test_two_path_parameters_go_by_name(server):
    assert server.get("/api/deep/1/between/2").json() == {"a": "1", "b": "2"}


def test_a_static_segment_beats_a_parameter(server):
    assert server.get("/api/deep/known/between/2").json() == {"static": "2"}
    assert server.get("/api/deep/kno%77n/between/2").json() == {"static": "2"}


UNKNOWN = {
    "nothing like it": "/nope",
    "only a prefix": "/api",
    "a slash at the end": "/api/nothing/",
    "a double slash": "/api//nothing",
    "a slash in front": "//api/nothing",
    "another case": "/API/nothing",
    "an empty parameter": "/api/path/",
    "a segment too many": "/api/path/a/b",
    "a segment too few": "/api/deep/1/between",
    "dots are not resolved": "/api/path/../nothing",
    "escaped dots are not resolved": "/api/%2e%2e/api/nothing",
    "an escaped slash does not split": "/api%2Fnothing",
    "%00 behind a known path": "/api/nothing%00",
    "bytes that are not UTF-8": "/api/%FF",
    "many segments": "/a" * 200,
    "a parameter's colon": "/api/:v/x",
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_path(server, case):
    problem(server.get(UNKNOWN[case]), 404)

"""`provost check`, and `serve` before it serves: everything that is wrong with endpoint files, at once, with its line."""
import re
import subprocess

import pytest

from harness import BINARY, Server, patience, reset_statements, statements

SETUP = """
CREATE TABLE open_table (id integer PRIMARY KEY, name text);
CREATE TABLE closed_table (id integer PRIMARY KEY);
CREATE VIEW closed_view AS SELECT * FROM closed_table;
REVOKE ALL ON closed_table, closed_view FROM provost_app;
CREATE TABLE half_open (id integer, secret text);
REVOKE ALL ON half_open FROM provost_app;
GRANT SELECT (id) ON half_open TO provost_app;
CREATE FUNCTION closed_function() RETURNS integer LANGUAGE sql AS 'SELECT 1';
REVOKE ALL ON FUNCTION closed_function() FROM PUBLIC;
"""
GOOD = "-- Good.\n-- @route GET /api/good\nSELECT json_build_object('a', 1)\n"


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("check", empty_template)
    cluster.sql("check", SETUP)
    yield "check"
    cluster.drop("check")


def run(server, command="check", *arguments, env=None):
    return subprocess.run([BINARY, command, "--config", server.ini, *arguments], text=True, capture_output=True,
                          timeout=patience(30), env={**server.environment(), **(env or {})}, cwd=server.folder)


def errors_of(server, done):
    """(file below endpoints/, line, sentence) of each line of a failed check."""
    assert done.returncode == 1 and done.stdout == "", done
    *lines, last = done.stderr.splitlines()
    found = []
    for line in lines:
        match = re.fullmatch(rf"{re.escape(str(server.folder))}/endpoints/([^:]+)(?::(\d+))?: (.+)", line)
        assert match, f"no place in: {line}"
        found.append((match[1], int(match[2] or 0), match[3]))
    assert last == f"{len(lines)} error{'s' * (len(lines) != 1)}"
    return found


def test_good_endpoints(cluster, db):
    server = Server(cluster, db, endpoints={"a.sql": GOOD, "b/c.sql": GOOD.replace("/good", "/good/two")})
    done = run(server)
    assert (done.returncode, done.stderr) == (0, "") and re.search(r": good; 2 endpoints checked against the database\n$", done.stdout)


def test_the_shipped_endpoints_are_good(cluster, database):
    server = Server(cluster, database)
    server.install_triggers()
    done = run(server)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert re.search(r"; \d\d endpoints checked", done.stdout)


# name of the case: (text, the errors as (line, pattern)); alone in their file
BROKEN = {
    "nothing": ("", [(1, "@route"), (1, "no statement")]),
    "no directives": ("SELECT 1", [(1, "@route")]),
    "no statement": ("-- @route GET /api/x\n", [(2, "no statement")]),
    "only comments behind the head": ("-- @route GET /api/x\n/* nothing */ -- else\n", [(2, "no statement")]),
    "no method": ("-- @route /api/x\nSELECT 1", [(1, "method and a path")]),
    "an unknown method": ("-- @route FETCH /api/x\nSELECT 1", [(1, "`FETCH` is not a method")]),
    "a method in small letters": ("-- @route get /api/x\nSELECT 1", [(1, "`get` is not a method")]),
    "a write that is cached": ("-- @route POST /api/x\n-- @cache ttl=1s\nSELECT 1", [(2, "@cache goes with GET only")]),
    "a write that depends": ("-- @route PUT /api/x\n-- @depends course\nSELECT 1", [(2, "@depends goes with GET only")]),
    "a write without columns to return": ("-- @route POST /api/x\nCREATE TEMP TABLE t AS SELECT 1", [(2, "@returns rows needs")]),
    "a body that is not declared": ("-- @route PATCH /api/x\nSELECT :body", [(2, "no @body is declared")]),
    "a path without a slash": ("-- @route GET api/x\nSELECT 1", [(1, "begins with `/`")]),
    "a path that ends in a slash": ("-- @route GET /api/x/\nSELECT 1", [(1, "empty segment")]),
    "dots in a path": ("-- @route GET /api/../x\nSELECT 1", [(1, r"`\.` or `\.\.`")]),
    "a query in a path": ("-- @route GET /api/x?y\nSELECT 1", [(1, "path segment")]),
    "a path of our own": ("-- @route GET /livez\nSELECT 1", [(1, "Provost's own")]),
    "the root": ("-- @route GET /\nSELECT 1", [(1, "Provost's own")]),
    "the batch": ("-- @route GET /api/batch\nSELECT 1", [(1, "Provost's own")]),
    "a word too many": ("-- @route GET /api/x y\nSELECT 1", [(1, "one word too many")]),
    "a path parameter that is not declared": ("-- @route GET /api/x/:id\nSELECT 1", [(1, "`:id` of the route is not declared")]),
    "a declared one that is not in the path": ("-- @route GET /api/x\n-- @path id text\nSELECT :id", [(2, "no `:id`")]),
    "a path parameter twice": ("-- @route GET /api/:a/:a\n-- @path a text\nSELECT :a", [(1, "stands twice")]),
    "an unknown directive": ("-- @route GET /api/x\n-- @quary n integer\nSELECT 1", [(2, "unknown directive `@quary`")]),
    "a directive before @route": ("-- @status 200\n-- @route GET /api/x\nSELECT 1", [(1, "first directive must be @route")]),
    "@route twice": ("-- @route GET /api/x\n-- @route GET /api/y\nSELECT 1", [(2, "stands twice")]),
    "a directive among the SQL": ("-- @route GET /api/x\nSELECT 1\n-- @timeout 1s\n", [(3, "before it")]),
    "an unknown type": ("-- @route GET /api/x\n-- @query n int\nSELECT :n", [(2, "`int` is not a type")]),
    "an unknown option": ("-- @route GET /api/x\n-- @query n integer maximum=3\nSELECT :n", [(2, "unknown option `maximum`")]),
    "min above max": ("-- @route GET /api/x\n-- @query n integer min=3 max=2\nSELECT :n", [(2, "min=3 is above max=2")]),
    "a default that is refused": ("-- @route GET /api/x\n-- @query n integer max=2 default=3\nSELECT :n", [(2, "the default must be at most 2")]),
    "a default of another type": ("-- @route GET /api/x\n-- @query n integer default=x\nSELECT :n", [(2, "the default must be an integer")]),
    "a default that is required": ("-- @route GET /api/x\n-- @query n integer required default=3\nSELECT :n", [(2, "exclude each other")]),
    "trim of a number": ("-- @route GET /api/x\n-- @query n integer trim\nSELECT :n", [(2, "`trim` does not go with integer")]),
    "an enum that cannot be reached": ("-- @route GET /api/x\n-- @query n text upper enum=a\nSELECT :n", [(2, "never reached")]),
    "an open quote": ("-- @route GET /api/x\n-- @query n text default='a\nSELECT :n", [(2, "quote is not closed")]),
    "a parameter twice": ("-- @route GET /api/x\n-- @query n text\n-- @query n text\nSELECT :n", [(3, "stands twice: first in line 2")]),
    "a parameter of our own name": ("-- @route GET /api/x\n-- @query auth_sub text\nSELECT :auth_sub", [(2, "Provost's own name")]),
    "a body with GET": ("-- @route GET /api/x\n-- @body n text\nSELECT :n", [(2, "@body does not go with GET")]),
    "an unused parameter": ("-- @route GET /api/x\n-- @query n text\nSELECT 1", [(2, "declared, but the SQL does not use :n")]),
    "an undeclared parameter": ("-- @route GET /api/x\nSELECT 1,\n  :n", [(3, "`:n` is not declared")]),
    "a parameter in its number": ("-- @route GET /api/x\nSELECT $1", [(2, r"write :name, not \$1")]),
    "a role that is none": ("-- @route GET /api/x\n-- @role a b\nSELECT 1", [(2, "comma is missing")]),
    "public and others": ("-- @route GET /api/x\n-- @role public,admin\nSELECT 1", [(2, "public stands alone")]),
    "an unknown shape": ("-- @route GET /api/x\n-- @returns list\nSELECT 1", [(2, "json, rows, row or none")]),
    "a status that is none": ("-- @route GET /api/x\n-- @status 404\nSELECT 1", [(2, "200 to 299")]),
    "204 with a body": ("-- @route GET /api/x\n-- @status 204\nSELECT 1", [(2, "@returns none")]),
    "a timeout without a unit": ("-- @route GET /api/x\n-- @timeout 5\nSELECT 1", [(2, "not a duration")]),
    "a timeout of a day": ("-- @route GET /api/x\n-- @timeout 24h\nSELECT 1", [(2, "is not from")]),
    "a lifetime that is none": ("-- @route GET /api/x\n-- @cache ttl=soon\nSELECT 1", [(2, "not a duration")]),
    "a dependency that is none": ("-- @route GET /api/x\n-- @depends a b c\nSELECT 1", [(2, "@depends|comma")]),
    "two statements": ("-- @route GET /api/x\nSELECT 1;\nSELECT 2", [(3, "second statement")]),
    "an open string": ("-- @route GET /api/x\nSELECT 1,\n 'a", [(3, "string constant is not closed")]),
    "an open comment": ("-- @route GET /api/x\nSELECT 1\n/* a", [(3, "is not closed")]),
    "an open dollar quote": ("-- @route GET /api/x\nSELECT $a$ x $b$", [(2, "dollar-quoted string is not closed")]),
    "bytes that are no text": (b"-- @route GET /api/x\nSELECT '\xff'", [(2, "not UTF-8")]),
    "a NUL byte": (b"-- @route GET /api/x\nSELECT '\0'", [(2, "not UTF-8")]),
    "a byte order mark": (b"\xef\xbb\xbf-- @route GET /api/x\nSELECT 1", [(1, "byte order mark")]),
    "several things": ("-- @route GET /api/x/:id\n-- @query a int\n-- @query b text\n-- @returns x\nSELECT :a,\n:c,\n:d",
                       [(1, "`:id`"), (2, "`int`"), (3, "does not use :b"), (4, "@returns"), (6, "`:c`"), (7, "`:d`")]),
}

# What only PostgreSQL knows.
REFUSED = {
    "a syntax error": ("-- @route GET /api/x\nSELECT 1\n  FORM course", [(3, 'syntax error at or near "course"')]),
    "a table that is not there": ("-- @route GET /api/x\nSELECT 1\nFROM\n  nowhere", [(4, 'relation "nowhere" does not exist .SQLSTATE 42P01')]),
    "a column that is not there": ("-- @route GET /api/x\nSELECT id,\n nam FROM open_table", [(3, 'column "nam" does not exist.*hint: .*name')]),
    "an error behind letters of many bytes": ("-- @route GET /api/x\nSELECT 'äöüßäöüßäöüß' AS a, -- äöüßäöüß\n 'ü' AS b,\n nowhere,\n 1,\n 2,\n 3",
                                              [(4, 'column "nowhere"')]),
    "an error behind a description": ("-- Äpfel\n-- @route GET /api/x\n-- @query a text\n\n-- Birnen\nSELECT :a,\n nowhere", [(7, "nowhere")]),
    "types that do not go together": ("-- @route GET /api/x\n-- @query n integer\nSELECT 1\nWHERE 'a' = :n + 'b'::text", [(4, "operator does not exist")]),
    "a table without the right": ("-- @route GET /api/x\nSELECT * FROM closed_table", [(2, "permission denied for table closed_table .SQLSTATE 42501.*provost grants print")]),
    "a view without the right": ("-- @route GET /api/x\nSELECT * FROM closed_view", [(2, "permission denied for view closed_view")]),
    "a column without the right": ("-- @route GET /api/x\nSELECT secret FROM half_open", [(2, "permission denied for table half_open")]),
    "an INSERT": ("-- @route GET /api/x\nINSERT INTO open_table VALUES (1) RETURNING id", [(2, "must not change or lock rows")]),
    "an UPDATE in a WITH": ("-- @route GET /api/x\nWITH u AS (UPDATE open_table SET name = '' RETURNING id) SELECT * FROM u",
                            [(2, "must not change or lock rows")]),
    "a DELETE that returns nothing": ("-- @route GET /api/x\n-- @returns none\nDELETE FROM open_table", [(3, "must not change or lock rows")]),
    "FOR UPDATE": ("-- @route GET /api/x\nSELECT id FROM open_table FOR UPDATE", [(2, "must not change or lock rows")]),
    "FOR SHARE below": ("-- @route GET /api/x\nSELECT (SELECT id FROM open_table LIMIT 1 FOR SHARE) AS id", [(2, "must not change or lock rows")]),
    "json of two columns": ("-- @route GET /api/x\n-- @returns json\nSELECT '{}'::json AS a, 1 AS b", [(3, "exactly one column.*has 2 columns")]),
    "json of a text": ("-- @route GET /api/x\n-- @returns json\nSELECT '{}'::text", [(3, "exactly one column of type json.* 1 column of another type")]),
    "rows of no columns": ("-- @route GET /api/x\n-- @returns rows\nSELECT", [(3, "needs a statement that returns columns")]),
    "two columns of one name": ("-- @route GET /api/x\nSELECT 1 AS a, 2 AS a", [(2, 'two columns are named "a"')]),
    "columns without names": ("-- @route GET /api/x\nSELECT 1, 2", [(2, r'two columns are named "\?column\?"')]),
    "a utility statement": ("-- @route GET /api/x\n-- @returns none\nVACUUM", [(3, ".")]),
    "a transaction's end": ("-- @route GET /api/x\n-- @returns none\nCOMMIT", [(3, ".")]),
    "COPY": ("-- @route GET /api/x\n-- @returns none\nCOPY open_table TO STDOUT", [(3, "syntax error at or near \"COPY\"")]),
    "a table made": ("-- @route GET /api/x\n-- @returns none\nCREATE TABLE made (id integer)", [(3, ".")]),
    "SELECT INTO": ("-- @route GET /api/x\n-- @returns none\nSELECT 1 AS a INTO made", [(3, "must read")]),
    "CREATE TABLE AS": ("-- @route GET /api/x\n-- @returns none\nCREATE TABLE made AS SELECT 1 AS a", [(3, "must read")]),
    "a cursor": ("-- @route GET /api/x\n-- @returns none\nDECLARE c CURSOR WITH HOLD FOR SELECT 1", [(3, "must read")]),
}


def write(server, name, text):
    file = server.folder / "endpoints" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize("case", [*BROKEN, *REFUSED])
def test_broken_endpoint(cluster, db, case):
    text, expected = {**BROKEN, **REFUSED}[case]
    server = Server(cluster, db, endpoints={"good.sql": GOOD})
    write(server, "broken.sql", text)
    found = sorted(errors_of(server, run(server)))
    assert [(file, line) for file, line, _ in found] == [("broken.sql", line) for line, _ in expected], found
    for (_, _, sentence), (_, pattern) in zip(found, expected):
        assert re.search(pattern, sentence), found


@pytest.mark.parametrize("table", [BROKEN, REFUSED], ids=["by us", "by PostgreSQL"])
def test_everything_broken_is_shown_at_once(cluster, db, table):
    table = {n: v for n, v in table.items() if "path of our own" not in n}
    server = Server(cluster, db, endpoints={"good.sql": GOOD})
    for i, (text, _) in enumerate(table.values()):
        route = f"/api/broken{i}"
        text = text if isinstance(text, bytes) else text.replace("GET /api/x", f"GET {route}").replace("GET /api/:a", f"GET {route}/:a")
        write(server, f"broken{i:03}.sql", text)
    found = errors_of(server, run(server))
    expected = [f"broken{i:03}.sql" for i, (_, errors) in enumerate(table.values()) for _ in errors]
    assert sorted(file for file, _, _ in found) == expected


def test_what_we_and_postgresql_refuse_is_shown_together(cluster, db):
    server = Server(cluster, db, config={"endpoint a": {"timeout": "1s"}}, endpoints={
        "good.sql": GOOD, "a.sql": "-- @route GET /api/a\n-- @x\nSELECT 1",
        "b.sql": "-- @route GET /api/b\nSELECT nowhere", "c.sql": "-- @route GET /api/good\nSELECT nothing"})
    assert sorted((file, line) for file, line, _ in errors_of(server, run(server))) == [
        ("a.sql", 2), ("b.sql", 2), ("c.sql", 2), ("good.sql", 2)]


def test_lifetimes_of_what_is_never_cached(cluster, db):
    server = Server(cluster, db, config={"endpoint live": {"ttl": "1m"}, "endpoint good": {"ttl": "1m"}},
                    endpoints={"good.sql": GOOD, "live.sql": GOOD.replace("/good", "/live").replace("SELECT", "-- @cache off\nSELECT", 1)})
    done = run(server)
    assert done.returncode == 1
    assert re.fullmatch(r"\S+provost.ini:\d+: \[endpoint live\] is never cached \(@cache off\): take ttl, swr, max_stale"
                        r" and stale_if_error out\n1 error\n", done.stderr)


def test_nothing_broken_was_run(cluster, db):
    server = Server(cluster, db, endpoints={"good.sql": GOOD})
    for i, (text, _) in enumerate(REFUSED.values()):
        write(server, f"broken{i:03}.sql", text.replace("/api/x", f"/api/broken{i}"))
    dsn = cluster.dsn(db)
    reset_statements(dsn)
    run(server)
    assert all(query.startswith("/* provost */") for query in statements(dsn, own=True)), "an endpoint's statement was run"
    assert cluster.sql(db, "SELECT count(*), to_regclass('made') FROM open_table") == [(0, None)]


# ---- files together ------------------------------------------------------------------------------

def test_the_same_route_twice(cluster, db):
    server = Server(cluster, db, endpoints={
        "a.sql": "-- @route GET /api/x/:id\n-- @path id text\nSELECT :id AS a",
        "b.sql": "-- Another.\n-- @route GET /api/x/:other\n-- @path other text\nSELECT :other AS a"})
    [(file, line, sentence)] = errors_of(server, run(server))
    assert (file, line) == ("b.sql", 2) and re.search(r"GET /api/x/:other is the same route as /api/x/:id in .*/a\.sql:1", sentence)


def test_names_and_places_of_files(cluster, db):
    server = Server(cluster, db, endpoints={"good.sql": GOOD, "a b.sql": GOOD, "notes.txt": "x", ".hidden.sql": "x", "empty/readme.md": "x"})
    (server.folder / "endpoints/link.sql").symlink_to("nowhere.sql")
    (server.folder / "endpoints/loop").symlink_to(".")
    found = errors_of(server, run(server))
    assert sorted(file for file, _, _ in found) == ["a b.sql", "link.sql", "loop"], found


def test_a_file_that_is_too_large(cluster, db):
    server = Server(cluster, db, endpoints={"good.sql": GOOD, "large.sql": GOOD + "-" * (1 << 20)})
    [(file, line, sentence)] = errors_of(server, run(server))
    assert (file, line) == ("large.sql", 0) and "larger than" in sentence


@pytest.mark.parametrize("prepare", ["no folder", "an empty folder"])
def test_no_endpoints(cluster, db, prepare):
    server = Server(cluster, db, endpoints={})
    if prepare == "no folder":
        (server.folder / "endpoints").rmdir()
    done = run(server)
    assert done.returncode == 1 and re.search(r"/endpoints: (cannot be read|holds no endpoint)", done.stderr)


def test_an_endpoint_section_without_an_endpoint(cluster, db):
    server = Server(cluster, db, endpoints={"good.sql": GOOD}, config={"endpoint nowhere": {"timeout": "1s"}})
    done = run(server)
    assert done.returncode == 1
    assert re.search(rf"{server.ini}:\d+: \[endpoint nowhere\]: there is no such endpoint", done.stderr)


# ---- the database --------------------------------------------------------------------------------

@pytest.mark.parametrize("url, pattern", [
    ("postgresql://provost_app@127.0.0.1:1/x", "cannot connect to the database: .*refused"),
    ("postgresql://provost_app@/x?host=/nowhere", "cannot connect to the database: .*/nowhere"),
])
def test_a_database_that_is_not_there(cluster, db, url, pattern):
    server = Server(cluster, db, endpoints={"good.sql": GOOD}, config={"database": {"url": url}})
    done = run(server)
    assert done.returncode == 1 and re.search(pattern, done.stderr) and done.stderr.endswith("1 error\n")


def test_a_wrong_password_is_not_shown(cluster, db):
    url = re.sub("://([^:]+):[^@]*@", r"://\1:s3cr3t-word@", cluster.app_dsn(db))
    if "s3cr3t-word" not in url:
        url += ("&" if "?" in url else "?") + "password=s3cr3t-word"
    done = run(Server(cluster, db, endpoints={"good.sql": GOOD}, config={"database": {"url": url}}))
    assert done.returncode == 1 and "password authentication failed" in done.stderr and "s3cr3t" not in done.stderr


def test_the_owner_may_read_what_the_role_may_not(cluster, db):
    endpoints = {"closed.sql": "-- @route GET /api/x\nSELECT * FROM closed_table"}
    assert run(Server(cluster, db, endpoints=endpoints, owner=True)).returncode == 0
    assert run(Server(cluster, db, endpoints=endpoints)).returncode == 1


def test_check_without_prepared_statements(cluster, db):
    server = Server(cluster, db, endpoints={"good.sql": GOOD, "bad.sql": "-- @route GET /api/x\nSELECT nowhere"},
                    config={"database": {"prepare": "no"}})
    assert [(file, line) for file, line, _ in errors_of(server, run(server))] == [("bad.sql", 2)]


# ---- serve ---------------------------------------------------------------------------------------

def test_serve_refuses_broken_files_before_it_listens(cluster, db):
    server = Server(cluster, db, endpoints={"good.sql": GOOD, "a.sql": "SELECT 1", "b.sql": "-- @route GET /api/x\n-- @x\nSELECT 1"})
    done = run(server, "serve")
    assert done.returncode == 1 and done.stdout == ""
    assert [line.split("/endpoints/")[1].split(": ")[0] for line in done.stderr.splitlines()] == ["a.sql:1", "b.sql:2"]


def test_serve_ends_when_postgresql_refuses_a_statement(cluster, db):
    server = Server(cluster, db, endpoints={"good.sql": GOOD, "a.sql": "-- @route GET /api/x\nSELECT nowhere",
                                            "b.sql": "-- @route GET /api/y\nSELECT\nnowhere"})
    done = run(server, "serve")
    assert done.returncode == 1
    assert re.search(r"level=error [^\n]*endpoints/a\.sql:2: [^\n]*nowhere", done.stderr)
    assert re.search(r"level=error [^\n]*endpoints/b\.sql:3: [^\n]*nowhere", done.stderr)

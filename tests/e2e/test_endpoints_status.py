"""What the database's errors become: a status, a sentence of ours, and the database's own words in the log alone."""
import contextlib
from urllib.parse import quote

import pytest

from harness import Server, patience, wait_until
from problems import problem

SECRET = 'key "secret" of "course_slug_key"'
SETUP = """
CREATE FUNCTION raise_it(state text, message text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN RAISE EXCEPTION USING ERRCODE = state, MESSAGE = message, DETAIL = 'a detail', HINT = 'a hint'; END $$;
-- Conflicts until it has run so many times in this session. A lock of the session outlives the rollback.
CREATE FUNCTION conflict(key integer, times integer, state text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE n integer;
BEGIN
    SELECT count(*) INTO n FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND classid = key;
    PERFORM pg_advisory_lock(key, n);
    IF n < times THEN RAISE EXCEPTION USING ERRCODE = state, MESSAGE = 'conflict'; END IF;
    RETURN n + 1;
END $$;
CREATE TABLE visit (id integer PRIMARY KEY);
INSERT INTO visit VALUES (1), (2);
CREATE TABLE doomed (id integer);
CREATE FUNCTION write_it() RETURNS integer LANGUAGE sql VOLATILE AS 'INSERT INTO visit VALUES (3) RETURNING id';
GRANT ALL ON ALL TABLES IN SCHEMA public TO provost_app;
"""
ENDPOINTS = {
    "raise.sql": """-- Raises what it is told.
-- @route GET /api/raise
-- @query state text required
-- @query message text
SELECT json_build_object('never', raise_it(:state, :message))""",
    "conflict.sql": """-- Conflicts some times.
-- @route GET /api/conflict
-- @query key integer required
-- @query times integer required
-- @query state text default=40001
SELECT json_build_object('run', conflict(:key, :times, :state))""",
    "divide.sql": "-- Divides.\n-- @route GET /api/divide\n-- @query n integer required\nSELECT json_build_object('q', 10 / :n)",
    "cast.sql": "-- Casts.\n-- @route GET /api/cast\n-- @query v text\nSELECT json_build_object('i', :v::integer)",
    "several.sql": "-- One of several.\n-- @route GET /api/several\nSELECT json_build_object('v', (SELECT id FROM visit))",
    "doomed.sql": "-- From a table that goes.\n-- @route GET /api/doomed\n-- @cache off\nSELECT json_build_object('n', count(*)) FROM doomed",
    "revoked.sql": "-- From a table that is closed.\n-- @route GET /api/revoked\n-- @cache off\nSELECT json_build_object('n', count(*)) FROM visit",
    "write.sql": "-- Writes behind a function.\n-- @route GET /api/write\nSELECT json_build_object('v', write_it())",
    "sleep.sql": "-- Waits.\n-- @route GET /api/sleep\n-- @timeout 1m\nSELECT json_build_object('v', pg_advisory_xact_lock_shared(99)::text)",
    "good.sql": "-- Works.\n-- @route GET /api/good\nSELECT json_build_object('good', true)",
}
# One session, so that what a statement does to it shows in the next.
ONE = {"workers": {"threads": 1}, "database": {"pool_min": 1, "pool_max": 1}}


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("endpoints_status", empty_template)
    cluster.sql("endpoints_status", SETUP)
    yield "endpoints_status"
    cluster.drop("endpoints_status")


@pytest.fixture(scope="module")
def server(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS, config=ONE) as server:
        yield server


@pytest.fixture(scope="module")
def developing(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS, config={**ONE, "http": {"development": "yes"}}) as server:
        yield server


STATUSES = {
    "23505": 409, "23503": 409, "23P01": 409,
    "23502": 422, "23514": 422, "21000": 422, "P0001": 422,
    "22012": 422, "22003": 422, "22001": 422, "22P02": 422, "22007": 422, "2200G": 422, "22000": 422,
    "22021": 400, "22P05": 400,
    "40001": 503, "40P01": 503,
    "57014": 503, "55P03": 503, "25006": 503,
    "53000": 503, "53100": 503, "53200": 503, "53300": 503, "53400": 503,
    "57P01": 503, "57P02": 503, "57P03": 503, "57P04": 503,
    "08000": 503, "08003": 503, "08006": 503, "08P01": 503,
    "23000": 500, "23001": 500, "40000": 500, "40002": 500, "42P01": 500, "42501": 500, "42601": 500, "42P05": 500,
    "0A000": 500, "26000": 500, "25P02": 500, "28000": 500, "3D000": 500, "54001": 500, "55000": 500, "57000": 500,
    "58030": 500, "F0000": 500, "P0000": 500, "P0002": 500, "P0004": 500, "XX000": 500, "XX002": 500, "HV000": 500,
    # raised by hand, but no status that says no
    "PT200": 500, "PT204": 500, "PT399": 500, "PT600": 500, "PT999": 500, "PT4XX": 500, "PTABC": 500, "PT40A": 500,
}


@pytest.mark.parametrize("state", STATUSES)
def test_status_of_sqlstate(server, state):
    answer = server.get(f"/api/raise?state={state}&message={SECRET.replace(' ', '+')}")
    document = problem(answer, STATUSES[state])
    for word in (b"secret", b"course_slug_key", state.encode(), b"a detail", b"a hint", b"raise_it"):
        assert word not in answer.body, "the database's words reach the client"
    line = server.wait_log(f"[^\n]* request={document['instance']} [^\n]*")[0]
    assert f"sqlstate={state}" in line and "endpoint=raise" in line and "course_slug_key" in line
    assert server.get("/api/good").status == 200


@pytest.mark.parametrize("state", ["23505", "P0001", "XX000", "40001", "PT600"])
def test_development_shows_the_database_s_words(developing, state):
    document = problem(developing.get(f"/api/raise?state={state}&message=say+%22it%22"), STATUSES[state], ["database"])
    assert document["database"] == {"sqlstate": state, "message": 'say "it"'}


def test_development_shows_nothing_where_the_database_said_nothing(developing):
    problem(developing.get("/api/nope"), 404)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 410, 422, 423, 429, 451, 500, 502, 503, 504])
def test_status_raised_by_hand(server, status):
    document = problem(server.get(f"/api/raise?state=PT{status}&message=There+is+no+course+%22x%22."), status)
    assert document["detail"] == 'There is no course "x".'


@pytest.mark.parametrize("message", ["Größe ✓", "two\nlines\tand \\ \"quotes\"", "x" * 5000, "\x01"])
def test_message_raised_by_hand_is_kept(server, message):
    document = problem(server.get(f"/api/raise?state=PT409&message={quote(message)}"), 409)
    assert document["detail"] == message


REAL = {
    "division by zero": ("/api/divide?n=0", 422, "22012"),
    "a text that is no number": ("/api/cast?v=abc", 422, "22P02"),
    "a number out of range": ("/api/cast?v=99999999999", 422, "22003"),
    "a subquery of two rows": ("/api/several", 422, "21000"),
    "a write behind a function": ("/api/write", 503, "25006"),
}


@pytest.mark.parametrize("case", REAL)
def test_real_errors(server, case):
    path, status, state = REAL[case]
    document = problem(server.get(path), status)
    assert f"sqlstate={state}" in server.wait_log(f"[^\n]* request={document['instance']} [^\n]*")[0]
    assert server.get("/api/good").status == 200


def test_a_write_behind_a_function_writes_nothing(cluster, db, server):
    server.get("/api/write")
    assert cluster.sql(db, "SELECT count(*) FROM visit WHERE id = 3") == [(0,)]


def test_a_table_that_is_gone_and_back(cluster, db, server):
    assert server.get("/api/doomed").json() == {"n": 0}
    cluster.sql(db, "ALTER TABLE doomed RENAME TO gone")
    problem(server.get("/api/doomed"), 500)
    cluster.sql(db, "ALTER TABLE gone RENAME TO doomed")
    assert server.get("/api/doomed").json() == {"n": 0}


def test_a_right_that_is_taken_away(cluster, db, server):
    cluster.sql(db, "REVOKE ALL ON visit FROM provost_app")
    try:
        problem(server.get("/api/revoked"), 500)
    finally:
        cluster.sql(db, "GRANT ALL ON visit TO provost_app")
    assert server.get("/api/revoked").status == 200


def test_a_statement_cancelled_by_hand(cluster, db, server):
    with contextlib.closing(cluster.connect(db)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(99)")
        with server.connect() as client:
            client.send(b"GET /api/sleep HTTP/1.1\r\nHost: localhost\r\n\r\n")
            cancelled = "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            wait_until(lambda: cluster.sql(db, cancelled), what="the statement waits")
            problem(client.response(), 503)
    assert server.get("/api/good").status == 200


# ---- conflicts -----------------------------------------------------------------------------------

def attempts(cluster, key):
    return cluster.sql("postgres", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s", key)[0][0]


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_conflicts_are_retried_three_times(cluster, server, state):
    key = 1000 + int(state[2:] == "001")
    problem(server.get(f"/api/conflict?key={key}&times=100&state={state}"), 503)
    assert attempts(cluster, key) == 4


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_conflict_that_passes_is_not_seen(cluster, server, times):
    answer = server.get(f"/api/conflict?key={2000 + times}&times={times}")
    assert answer.status == 200 and answer.json() == {"run": times + 1}
    assert attempts(cluster, 2000 + times) == times + 1


@pytest.mark.parametrize("state", ["23505", "P0001", "XX000", "PT503", "55P03", "57014"])
def test_other_errors_are_not_retried(cluster, server, state):
    key = 3000 + sorted(STATUSES | {"PT503": 503}).index(state)
    assert server.get(f"/api/conflict?key={key}&times=100&state={state}").status >= 409
    assert attempts(cluster, key) == 1


@pytest.mark.parametrize("state", ["26000", "42P05", "0A000"])
def test_errors_that_sound_like_a_lost_statement_harm_no_later_request(server, state):
    for _ in range(2):
        problem(server.get(f"/api/raise?state={state}&message=x"), 500)
        assert problem(server.get("/api/raise?state=PT404&message=Nothing+here."), 404)["detail"] == "Nothing here."


def test_an_error_costs_no_session(cluster, db, server):
    before = {b["pid"] for b in cluster.backends(db) if b["application_name"] == "provost"}
    for state in STATUSES:
        server.get(f"/api/raise?state={state}&message=x", seconds=patience(10))
    assert {b["pid"] for b in cluster.backends(db) if b["application_name"] == "provost"} == before

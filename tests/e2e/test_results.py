"""Large results, statements that fail in all ways at once, and what the log says of refusals."""
import time

import pytest

from harness import Server, patience, wait_until

LONG = "a_name_of_sixty_three_bytes_that_is_repeated_in_every_row_______"[:62]

ENDPOINTS = {
    "rows.sql": "-- @route GET /api/rows\n-- @query n integer required\n-- @query w integer required\n"
                "-- @returns rows\nSELECT repeat('x', :w) AS x FROM generate_series(1, :n)",
    "value.sql": "-- @route GET /api/value\n-- @query n integer required\nSELECT to_json(repeat('x', :n))",
    "wide.sql": "-- @route GET /api/wide\n-- @query n integer required\n-- @returns rows\n-- @timeout 5m\nSELECT "
                + ", ".join(f"i AS {LONG}{c}" for c in "abcdefghij") + " FROM generate_series(1, :n) i",
    "first.sql": "-- @route GET /api/first\n-- @returns row\nSELECT i FROM generate_series(1, 100000) i",
    "late.sql": "-- @route GET /api/late\n-- @returns rows\n-- @query n integer required\n"
                "SELECT 1 / (:n - i) AS x FROM generate_series(1, 100000) i",
    "slow_conflict.sql": "-- @route GET /api/slow-conflict\n-- @timeout 1s\nSELECT slow_conflict()",
    "unsupported.sql": "-- @route GET /api/unsupported\nSELECT unsupported()",
    "sleep.sql": "-- @route GET /api/sleep\n-- @query s number required\nSELECT to_json(pg_sleep(:s)::text)",
}
FUNCTIONS = """
CREATE FUNCTION slow_conflict() RETURNS json LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.7); RAISE 'again' USING ERRCODE = '40001'; END $$;
CREATE FUNCTION unsupported() RETURNS json LANGUAGE plpgsql AS
$$ BEGIN RAISE 'not this' USING ERRCODE = '0A000'; END $$"""


@pytest.fixture
def server(cluster, empty_database):
    cluster.sql(empty_database, FUNCTIONS)
    with Server(cluster, empty_database, ENDPOINTS) as server:
        yield server


@pytest.mark.parametrize("n, w", [(300000, 60), (50000, 200), (20000, 1000)])
def test_many_rows_are_sent_whole(server, n, w):
    answer = server.get(f"/api/rows?n={n}&w={w}", seconds=60)
    assert answer.status == 200
    assert len(answer.body) == n * (w + len('{"x":""},')) + 1
    assert answer.body.startswith(b'[{"x":"xxx') and answer.body.endswith(b'xxx"}]')


def test_no_rows(server):
    assert server.get("/api/rows?n=0&w=1").json() == []


def test_a_large_value_is_sent_whole(server):
    answer = server.get("/api/value?n=40000000", seconds=60)
    assert answer.status == 200 and len(answer.body) == 40000002


def test_a_body_beyond_the_limit_is_an_error_that_is_logged(server):
    answer = server.get("/api/wide?n=450000", seconds=100)
    assert answer.status == 500 and answer.header("Retry-After") is None
    server.wait_log("result too large")
    assert server.get("/api/rows?n=1&w=1").json() == [{"x": "x"}]


def test_only_the_first_row_of_row_counts(server):
    assert server.get("/api/first").json() == {"i": 1}


def test_an_error_behind_many_rows_is_an_error(server):
    assert server.get("/api/late?n=90000").status == 422
    assert len(server.get("/api/late?n=200000").json()) == 100000


def test_retries_share_one_deadline(server):
    begun = time.monotonic()
    assert server.get("/api/slow-conflict").status in (503, 504)
    assert time.monotonic() - begun < patience(1.6)


def test_a_statement_that_fails_at_first_is_prepared_once(server, cluster, empty_database):
    """What is prepared outlives the failure of its first run: no error of our own making is provoked."""
    cluster.sql("postgres", f"ALTER DATABASE \"{empty_database}\" SET log_min_error_statement = error")
    log = cluster.home / "postgres.log"
    begun = log.stat().st_size      # it is every test's
    for _ in range(3):
        assert server.get("/api/late?n=1").status == 422
    assert server.get("/api/unsupported").status == 500
    assert server.get("/api/unsupported").status == 500
    assert b"already exists" not in log.read_bytes()[begun:]
    assert server.log().count("sqlstate=0A000") == 2


def test_refusals_leave_a_line(cluster, empty_database):
    config = {"workers": {"threads": 1, "queue": 1}, "database": {"pool_max": 1, "pool_min": 1}}
    cluster.sql(empty_database, FUNCTIONS)
    with Server(cluster, empty_database, ENDPOINTS, config) as server:
        with server.connect() as a, server.connect() as b, server.connect() as c:
            def ask(connection, s):
                connection.send(f"GET /api/sleep?s={s} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

            ask(a, 1)
            wait_until(lambda: any("pg_sleep" in row["query"] and row["state"] == "active"
                                   for row in cluster.backends(empty_database)))
            ask(b, 1.001)        # not the same statement, or they would share it
            ask(c, 1.002)
            assert sorted(x.response().status for x in (a, b, c)) == [200, 200, 503]
        server.wait_log(r'msg="requests found no room, worker, connection or database" queue_full=1 ')

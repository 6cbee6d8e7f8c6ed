"""What answers are made from: the shipped endpoints', and what `check` and `serve` say when it is not known."""
import os
import re
import subprocess

import pytest

from caching import is_hit, is_stored
from harness import BINARY, Server, patience, reset_statements, statements

# As somebody who reads the statements would say it.
SHIPPED = """
categories/list: category
courses/enrollments: category, course(id=:id), course_enrollment_counts(courseId=:id), institution, payments,
    student_course_enrollments(courseId=:id), students
courses/get: category, course(id=:id), course_completion_counts(courseId=:id), course_enrollment_counts(courseId=:id),
    course_pricing_rules(courseId=:id), course_weekly_prices(courseId=:id), coursetag(courseId=:id), institution, tag
courses/list: category, course, course_completion_counts, course_enrollment_counts, course_pricing_rules,
    course_search, course_weekly_prices, coursetag, institution, table_counts, tag
institutions/courses: category, course(institutionId=:id), course_completion_counts, course_enrollment_counts,
    course_pricing_rules, course_weekly_prices, coursetag, institution(id=:id)
institutions/get: course(institutionId=:id), institution(id=:id), user(institutionId=:id)
institutions/list: course, institution, user
notifications/list: notification_logs(recipientId=:userId)
payments/list: course, institution, payments, student_course_enrollments, students
payments/pending-count: payment_totals
revenue: institution, revenue_sums
stats: course, institution, payment_totals, student_course_enrollments, students, table_counts, user
subscriptions/list: commission_tiers, institution, institution_counts, institution_subscriptions, revenue_sums
subscriptions/stats: commission_tiers, institution, institution_subscriptions, revenue_sums
tags/list: tag, tag_course_counts
users/get: booking(userId=:id), institution, user(id=:id)
users/list: institution, table_counts, user
"""
SETUP = """
CREATE TABLE open_table (id integer PRIMARY KEY, name text);
CREATE FUNCTION hiding() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT count(*) FROM open_table); END';
"""
HIDES = "-- @route GET /api/hides\nSELECT hiding() AS n\n"


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("dependencies", empty_template)
    cluster.sql("dependencies", SETUP)
    yield "dependencies"
    cluster.drop("dependencies")


def check(cluster, db, endpoints=None, triggers=True):
    """(what it says of each endpoint, what it logs) of a check that finds nothing wrong."""
    server = Server(cluster, db, endpoints=endpoints)
    if triggers:
        server.install_triggers()
    done = subprocess.run([BINARY, "check", "--config", server.ini], text=True, capture_output=True, timeout=patience(30),
                          env=server.environment(), cwd=server.folder)
    assert done.returncode == 0, done
    return dict(re.findall(r"^  ([^:]+): (.*)$", done.stdout, re.M)), done.stderr


def test_the_shipped_endpoints(cluster, database):
    found, log = check(cluster, database)
    assert found == dict(re.findall(r"^(\S+): (.*)$", SHIPPED.replace(",\n    ", ", "), re.M)) and log == ""


def test_what_a_function_hides_is_told(cluster, db):
    found, log = check(cluster, db, {"hides.sql": HIDES, "sees.sql": "-- @route GET /api/sees\nSELECT id FROM open_table"})
    assert found["hides"].startswith("neither cached nor collapsed: PostgreSQL does not know what hiding() reads: ")
    assert found["sees"] == "open_table"
    [line] = log.splitlines()
    assert "level=warn" in line and "endpoint=hides" in line and "@depends" in line


@pytest.mark.parametrize("directive, found", [("-- @depends open_table\n", "open_table"), ("-- @cache off\n", None)])
def test_a_warning_is_answered(cluster, db, directive, found):
    said, log = check(cluster, db, {"hides.sql": HIDES.replace("SELECT", directive + "SELECT")})
    assert log == "" and (said["hides"] == found if found else said["hides"].startswith("neither"))


def test_a_read_that_refuses_is_cached(cluster, db):
    """provost.fail hides nothing."""
    installed = subprocess.run([BINARY, "schema", "install"], text=True, capture_output=True, timeout=patience(30),
                               env={**os.environ, "PROVOST_DATABASE_URL": cluster.dsn(db)})
    assert installed.returncode == 0, installed
    text = ("-- @route GET /api/x\n-- @query low integer\n-- @query high integer\n-- @cache ttl=1h\n"
            "SELECT CASE WHEN :low <= :high THEN json_build_object('n', (SELECT count(*) FROM open_table))\n"
            "ELSE to_json(provost.fail(422, 'low must not be above high')::text) END")
    said, log = check(cluster, db, {"x.sql": text})
    assert said == {"x": "open_table"} and log == ""
    with Server(cluster, db, endpoints={"x.sql": text}) as server:
        assert is_stored(server.get("/api/x?low=1&high=2")) and is_hit(server.get("/api/x?low=1&high=2"))
        assert "level=warn" not in server.log()
        for _ in range(2):
            answer = server.get("/api/x?low=2&high=1")
            assert answer.status == 422 and answer.json()["detail"] == "low must not be above high"


def test_what_is_left_out_in_vain_is_told(cluster, db):
    said, log = check(cluster, db, {"x.sql": "-- @route GET /api/x\n-- @depends !open_table\nSELECT 1 AS n"})
    [line] = log.splitlines()
    assert said == {"x": "no table"} and "endpoint=x" in line and "table=open_table" in line and "level=warn" in line


def test_without_temporary_tables_it_is_served_all_the_same(cluster, db):
    endpoint = {"x.sql": "-- @route GET /api/x\nSELECT count(*) AS n FROM open_table"}
    cluster.sql(db, f"REVOKE TEMPORARY ON DATABASE {db} FROM PUBLIC")
    try:
        with Server(cluster, db, endpoints=endpoint) as server:
            server.wait_log(f"endpoint=x .*GRANT TEMPORARY ON DATABASE {db} TO provost_app")
            assert server.get("/api/x").json() == [{"n": 0}]
    finally:
        cluster.sql(db, f"GRANT TEMPORARY ON DATABASE {db} TO PUBLIC")


def test_behind_a_pooler(cluster, db):
    with Server(cluster, db, endpoints={"hides.sql": HIDES}, config={"database": {"prepare": "no"}}) as server:
        server.wait_log("endpoint=hides .*hiding")


def test_all_that_is_asked_is_marked_as_ours(cluster, db):
    reset_statements(cluster.dsn(db))
    check(cluster, db, {"x.sql": "-- @route GET /api/x\n-- @query id integer\n-- @depends open_table(id=:id)\n"
                                 "SELECT name FROM open_table WHERE id = :id"}, triggers=False)
    assert statements(cluster.dsn(db)) == {}

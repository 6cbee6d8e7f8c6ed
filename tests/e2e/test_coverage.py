"""Endpoints whose tables do not tell of their changes are served, but neither cached nor collapsed, while that lasts."""
import re
import subprocess

import pytest

from caching import GATE, held, is_hit, is_stored, report, settings, start, status, waiting
from harness import BINARY, Server, patience, wait_until

TABLES = """
CREATE TABLE goods (id integer PRIMARY KEY, shop text);
CREATE TABLE tag (name text PRIMARY KEY);
CREATE TABLE part (id integer PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
"""
PATHS = {"goods": "SELECT count(*) AS n FROM goods", "tag": "SELECT count(*) AS n FROM tag",
         "part": "SELECT count(*) AS n FROM part", "both": "SELECT (SELECT count(*) FROM goods) + count(*) AS n FROM tag"}
ENDPOINTS = {f"{name}.sql": f"-- @route GET /api/{name}\n-- @role public\n-- @returns row\n{sql}" for name, sql in PATHS.items()}
LOOK = 15    # seconds; the server looks every five


@pytest.fixture
def db(cluster, empty_database):
    cluster.sql(empty_database, TABLES)
    return empty_database


def uncovered(server):
    return report(server)["uncovered"]


def warnings(server, table):
    return re.findall(rf'level=warn msg="endpoints of a table [^\n]* table={table} reason="([^"]*)" help="([^"]*)"', server.log())


def is_bypassed(answer):
    return status(answer) == {"fwd": "bypass"}


def test_without_triggers_nothing_is_cached_until_there_are(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS, triggers=False) as server:
        assert sorted(uncovered(server)) == ["both", "goods", "part", "tag"]
        for _ in range(2):
            answer = server.get("/api/goods")
            assert answer.status == 200 and answer.json() == {"n": 0} and is_bypassed(answer), answer
        assert report(server)["stores"] == 0
        assert warnings(server, "goods") == [("goods has no triggers", "run provost triggers install, as the owner of the database")]
        server.owner_dsn = cluster.dsn(db)
        server.install_triggers()
        wait_until(lambda: uncovered(server) == [], LOOK, "the triggers are found")
        assert is_stored(server.get("/api/goods")) and is_hit(server.get("/api/goods"))
        assert len(warnings(server, "goods")) == 1
        assert "cached again: its changes are told\" table=goods" in server.log()


# What is done to a table, how it is mended, and what depends on it.
DAMAGE = {
    "disabled": ("goods", "ALTER TABLE goods DISABLE TRIGGER provost_insert", "ALTER TABLE goods ENABLE ALWAYS TRIGGER provost_insert"),
    "all disabled": ("goods", "ALTER TABLE goods DISABLE TRIGGER USER", None),
    "enabled, but not always": ("goods", "ALTER TABLE goods ENABLE TRIGGER provost_insert", None),
    "dropped": ("goods", "DROP TRIGGER provost_delete ON goods", None),
    "a child": ("goods", "CREATE TABLE goods_2 (x text) INHERITS (goods)", "DROP TABLE goods_2"),
    "a partition": ("part", "CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20)", None),
    "a partition attached": ("part", "CREATE TABLE part_2 (LIKE part); ALTER TABLE part ATTACH PARTITION part_2 DEFAULT",
                             "ALTER TABLE part DETACH PARTITION part_2"),
    "a partition's": ("part", "ALTER TABLE part_1 DISABLE TRIGGER provost_update", None),
    "the function": ("goods", "DO $$ BEGIN EXECUTE replace((SELECT pg_get_functiondef(oid) FROM pg_proc WHERE"
                     " obj_description(oid) LIKE '% goods'), '250', '0'); END $$", None),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_happens_while_it_runs_is_noticed(cluster, db, case):
    table, damage, mend = DAMAGE[case]
    path = f"/api/{table}"
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        assert is_stored(server.get(path)) and is_hit(server.get(path)) and uncovered(server) == []
        cluster.sql(db, damage)
        dependents = ["both", "goods"] if table == "goods" else ["part"]
        wait_until(lambda: sorted(uncovered(server)) == dependents, LOOK, "it is noticed")
        assert is_bypassed(server.get(path)) and len(warnings(server, table)) == 1
        assert is_stored(server.get("/api/tag")) and is_hit(server.get("/api/tag")), "others are cached"
        cluster.sql(db, f"SET session_replication_role = replica; INSERT INTO {table} VALUES (1)")
        if mend:
            cluster.sql(db, mend)
        else:
            server.install_triggers()
        wait_until(lambda: uncovered(server) == [], LOOK, "it is noticed that it is mended")
        answer = server.get(path)
        assert not is_hit(answer) and answer.json() == {"n": 1}, "what was stored before is not served any more"
        assert is_hit(server.get(path)) and len(warnings(server, table)) == 1


GAPS = {
    "a trigger that was disabled for a moment": "ALTER TABLE goods DISABLE TRIGGER provost_insert; INSERT INTO goods VALUES (1);"
                                                " ALTER TABLE goods ENABLE ALWAYS TRIGGER provost_insert",
    "a table that was written anew": "CREATE OR REPLACE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1';"
                                     " ALTER TABLE goods DISABLE TRIGGER USER; INSERT INTO goods VALUES (1);"
                                     " ALTER TABLE goods ALTER id TYPE bigint, ENABLE ALWAYS TRIGGER provost_insert,"
                                     " ENABLE ALWAYS TRIGGER provost_update, ENABLE ALWAYS TRIGGER provost_delete,"
                                     " ENABLE ALWAYS TRIGGER provost_truncate",
}


@pytest.mark.parametrize("case", GAPS)
def test_a_gap_between_two_looks_is_one(cluster, db, case):
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        assert server.get("/api/goods").json() == {"n": 0} and server.get("/api/both").json() == {"n": 0}
        cluster.sql(db, GAPS[case])
        wait_until(lambda: server.get("/api/goods").json() == {"n": 1}, LOOK, "it is noticed")
        assert server.get("/api/both").json() == {"n": 1} and not warnings(server, "goods")


def test_a_partition_that_goes_is_noticed(cluster, db):
    cluster.sql(db, "INSERT INTO part VALUES (1)")
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        assert server.get("/api/part").json() == {"n": 1}
        cluster.sql(db, "ALTER TABLE part DETACH PARTITION part_1")
        wait_until(lambda: server.get("/api/part").json() == {"n": 0}, LOOK, "what is in it counts no more")


def test_a_reload_brings_nothing_back(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        assert is_stored(server.get("/api/goods"))
        cluster.sql(db, "ALTER TABLE goods DISABLE TRIGGER provost_insert")
        wait_until(lambda: "goods" in uncovered(server), LOOK)
        cluster.sql(db, "INSERT INTO goods VALUES (1); ALTER TABLE goods ENABLE ALWAYS TRIGGER provost_insert")
        settings(server, {"log": {"level": "debug"}})
        answer = server.get("/api/goods")
        assert uncovered(server) == [] and answer.json() == {"n": 1} and not is_hit(answer), answer


def test_a_reload_keeps_what_is_good(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        assert is_stored(server.get("/api/goods"))
        settings(server, {"log": {"level": "debug"}})
        assert is_hit(server.get("/api/goods"))


def test_a_reload_does_not_cache_what_is_new_and_not_covered(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        cluster.sql(db, "CREATE TABLE later (id integer)")
        server.owner_dsn = None
        server.write_endpoint("later.sql", "-- @route GET /api/later\n-- @role public\n-- @returns row\nSELECT count(*) AS n FROM later")
        settings(server, {})
        assert uncovered(server) == ["later"] and is_bypassed(server.get("/api/later")) and is_bypassed(server.get("/api/later"))


@pytest.mark.parametrize("triggers", [True, False], ids=["covered", "uncovered"])
@pytest.mark.parametrize("cache", ["-- @cache off\n", ""], ids=["never cached", "cached"])
@pytest.mark.threads
def test_requests_share_a_statement_only_where_changes_are_told(cluster, db, triggers, cache):
    endpoints = {"held.sql": f"-- @route GET /api/held\n-- @role public\n{cache}SELECT count(*) AS n, {GATE} AS gate FROM goods"}
    with Server(cluster, db, endpoints=endpoints, triggers=triggers) as server, held(cluster, db) as gate:
        asked = [start(server, "/api/held") for _ in range(3)]
        wait_until(lambda: waiting(cluster, db) == (1 if triggers else 3), what="they are under way")
        gate.open()
        assert [c.response().status for c in asked] == [200] * 3


def test_what_cannot_have_triggers_is_said_with_what_helps(cluster, db):
    cluster.sql(db, "CREATE MATERIALIZED VIEW seen AS SELECT 1 AS id")
    head = "-- @route GET /api/{0}\n-- @role public\n{1}SELECT id FROM seen"
    endpoints = {"seen.sql": head.format("seen", ""), "anyway.sql": head.format("anyway", "-- @depends !seen\n")}
    with Server(cluster, db, endpoints=endpoints) as server:
        assert uncovered(server) == ["seen"] and is_bypassed(server.get("/api/seen"))
        assert is_stored(server.get("/api/anyway")) and is_hit(server.get("/api/anyway"))
        [(reason, help)] = warnings(server, "seen")
        assert reason == "seen is a materialized view" and "@depends !TABLE" in help


def test_a_table_that_was_dropped_and_made_anew_waits_for_a_reload(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        assert is_stored(server.get("/api/tag"))
        cluster.sql(db, "DROP TABLE tag; CREATE TABLE tag (name text PRIMARY KEY); INSERT INTO tag VALUES ('x')")
        wait_until(lambda: "tag" in uncovered(server), LOOK)
        assert server.get("/api/tag").json() == {"n": 1}
        settings(server, {})
        assert uncovered(server) == [] and server.get("/api/tag").json() == {"n": 1} and is_hit(server.get("/api/tag"))


def test_check_says_what_is_not_cached(cluster, db):
    server = Server(cluster, db, endpoints=ENDPOINTS, triggers=False)

    def check():
        done = subprocess.run([BINARY, "check", "--config", server.ini], capture_output=True, text=True,
                              env=server.environment(), timeout=patience(60))
        assert done.returncode == 0, done
        return re.findall(r"^note: (changes .*)$", done.stderr, re.M)

    assert check() == [f"changes of table {table} are not told ({table} has no triggers), so what depends on it is neither cached"
                       f" nor collapsed ({names}): run provost triggers install, as the owner of the database"
                       for table, names in (("goods", "both, goods"), ("tag", "both, tag"), ("part", "part"))]
    server.owner_dsn = cluster.dsn(db)
    server.install_triggers()
    assert check() == []


def test_the_look_survives_the_loss_of_its_connection(cluster, db):
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        assert cluster.kill_backends(db)
        cluster.sql(db, "ALTER TABLE goods DISABLE TRIGGER provost_insert")
        wait_until(lambda: "goods" in uncovered(server), LOOK)

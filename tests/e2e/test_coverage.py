"""Endpoints whose tables do not tell of their changes are served, but neither cached nor collapsed, while that lasts."""
import contextlib
import re
import subprocess
import time

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
    writes = {"add.sql": "-- @route POST /api/goods\n-- @role public\n-- @returns none\nINSERT INTO goods VALUES (1)"}
    with Server(cluster, db, endpoints={**ENDPOINTS, **writes}, triggers=False) as server:
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


# What is done to a table t, and how it is mended (None: by installing again). A look takes seconds: all are done at
# once, each to a table of its own.
PLAIN, PARTED = "CREATE TABLE {t} (id integer)", ("CREATE TABLE {t} (id integer) PARTITION BY RANGE (id);"
                                                  " CREATE TABLE {t}_1 PARTITION OF {t} FOR VALUES FROM (0) TO (10)")
DAMAGE = {
    "disabled": (PLAIN, "ALTER TABLE {t} DISABLE TRIGGER provost_insert", "ALTER TABLE {t} ENABLE ALWAYS TRIGGER provost_insert"),
    "all_disabled": (PLAIN, "ALTER TABLE {t} DISABLE TRIGGER USER", None),
    "not_always": (PLAIN, "ALTER TABLE {t} ENABLE TRIGGER provost_insert", None),
    "dropped": (PLAIN, "DROP TRIGGER provost_delete ON {t}", None),
    "child": (PLAIN, "CREATE TABLE {t}_2 (x text) INHERITS ({t})", "DROP TABLE {t}_2"),
    "partition": (PARTED, "CREATE TABLE {t}_2 PARTITION OF {t} FOR VALUES FROM (10) TO (20)", None),
    "attached": (PARTED, "CREATE TABLE {t}_2 (LIKE {t}); ALTER TABLE {t} ATTACH PARTITION {t}_2 DEFAULT",
                 "ALTER TABLE {t} DETACH PARTITION {t}_2"),
    "in_partition": (PARTED, "ALTER TABLE {t}_1 DISABLE TRIGGER provost_update", None),
    "function": (PLAIN, "DO $$ BEGIN EXECUTE replace((SELECT pg_get_functiondef(oid) FROM pg_proc WHERE"
                 " obj_description(oid) LIKE 'Provost: % {t}'), 'LIMIT', 'LIMIT '); END $$", None),
}
# What comes and goes between two looks: nothing is missing at either.
GAPS = {
    "moment": (PLAIN, "ALTER TABLE {t} DISABLE TRIGGER provost_insert; INSERT INTO {t} VALUES (1);"
               " ALTER TABLE {t} ENABLE ALWAYS TRIGGER provost_insert"),
    "attached": (PARTED, "CREATE TABLE more (id integer); INSERT INTO more VALUES (11);"
                 " ALTER TABLE {t} ATTACH PARTITION more FOR VALUES FROM (11) TO (12);"),
}


def counting(tables):
    return {f"{t}.sql": f"-- @route GET /api/{t}\n-- @role public\n-- @returns row\nSELECT count(*) AS n FROM {t}" for t in tables}


def test_what_happens_while_it_runs_is_noticed(cluster, db):
    for t, (create, _, _) in DAMAGE.items():
        cluster.sql(db, create.format(t=t))
    with Server(cluster, db, endpoints={**counting(DAMAGE), **ENDPOINTS}) as server:
        assert uncovered(server) == []
        for t in DAMAGE:
            assert is_stored(server.get(f"/api/{t}")) and is_hit(server.get(f"/api/{t}"))
        for t, (_, damage, _) in DAMAGE.items():
            cluster.sql(db, damage.format(t=t))
        wait_until(lambda: sorted(uncovered(server)) == sorted(DAMAGE), LOOK, "all are noticed")
        for t in DAMAGE:
            assert is_bypassed(server.get(f"/api/{t}")) and len(warnings(server, t)) == 1, t
        assert is_stored(server.get("/api/tag")) and is_hit(server.get("/api/tag")), "others are cached"
        for t, (_, _, mend) in DAMAGE.items():
            cluster.sql(db, f"SET session_replication_role = replica; INSERT INTO {t} VALUES (1); {(mend or '').format(t=t)}")
        server.install_triggers()
        wait_until(lambda: uncovered(server) == [], LOOK, "it is noticed that all are mended")
        for t in DAMAGE:
            answer = server.get(f"/api/{t}")
            assert not is_hit(answer) and answer.json() == {"n": 1}, f"{t}: what was stored before is not served any more"
            assert is_hit(server.get(f"/api/{t}")) and len(warnings(server, t)) == 1, t


def test_a_gap_between_two_looks_is_one(cluster, db):
    for t, (create, _) in GAPS.items():
        cluster.sql(db, create.format(t=t))
    with Server(cluster, db, endpoints=counting(GAPS)) as server:
        for t in GAPS:
            assert server.get(f"/api/{t}").json() == {"n": 0}
        for t, (_, change) in GAPS.items():
            cluster.sql(db, change.format(t=t))
        for t in GAPS:
            wait_until(lambda: server.get(f"/api/{t}").json() == {"n": 1}, LOOK, f"{t} is noticed")


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


# What leads from an endpoint to its table: how it is made, how it is replaced while the server runs, and with what else
# than the table's own rows it then has to do.
WAYS = {
    "view": ("CREATE VIEW {n}_way AS SELECT id FROM {n}",
             "CREATE OR REPLACE VIEW {n}_way AS SELECT id FROM {n} UNION ALL SELECT 1 FROM other", "SELECT count(*) AS n FROM {n}_way"),
    "view_anew": ("CREATE VIEW {n}_way AS SELECT id FROM {n}",
                  "DROP VIEW {n}_way; CREATE VIEW {n}_way AS SELECT 1 FROM other", "SELECT count(*) AS n FROM {n}_way"),
    "inner_view": ("CREATE VIEW {n}_in AS SELECT id FROM {n}; CREATE VIEW {n}_way AS SELECT id FROM {n}_in",
                   "CREATE OR REPLACE VIEW {n}_in AS SELECT id FROM {n} UNION ALL SELECT 1 FROM other",
                   "SELECT count(*) AS n FROM {n}_way"),
    "routine": ("CREATE FUNCTION {n}_way() RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM {n})",
                "CREATE OR REPLACE FUNCTION {n}_way() RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM other)",
                "SELECT {n}_way() AS n"),
    "immutable": ("CREATE FUNCTION {n}_way() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 0; END'",
                  "CREATE OR REPLACE FUNCTION {n}_way() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1; END'",
                  "SELECT {n}_way() AS n"),
    "policy": ("ALTER TABLE {n} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {n} USING (id > 0)",
               "CREATE POLICY q ON {n} USING (EXISTS (SELECT FROM other))", "SELECT count(*) AS n FROM {n}"),
    "row_security": ("SELECT 1", "ALTER TABLE {n} ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON {n} USING (EXISTS (SELECT FROM other))",
                     "SELECT count(*) AS n FROM {n}"),
    "default_value": ("CREATE FUNCTION {n}_way(i int DEFAULT 0) RETURNS int LANGUAGE sql IMMUTABLE RETURN i",
                      "CREATE OR REPLACE FUNCTION {n}_way(i int DEFAULT 1) RETURNS int LANGUAGE sql IMMUTABLE RETURN i", "SELECT {n}_way() AS n"),
    "view_owner": ("CREATE VIEW {n}_way AS SELECT id FROM {n}", "ALTER VIEW {n}_way OWNER TO provost_app", "SELECT count(*) AS n FROM {n}_way"),
    "definer_owner": ("CREATE FUNCTION {n}_way() RETURNS int LANGUAGE sql IMMUTABLE SECURITY DEFINER RETURN 0",
                      "ALTER FUNCTION {n}_way OWNER TO provost_app", "SELECT {n}_way() AS n"),
}
# What is the same afterwards, which is no change; nor is who owns what nobody's rights come from.
SAME = {
    "same": ("CREATE VIEW {n}_way AS SELECT id FROM {n}", "CREATE OR REPLACE VIEW {n}_way AS SELECT id FROM {n}",
             "SELECT count(*) AS n FROM {n}_way"),
    "owner": ("CREATE FUNCTION {n}_way() RETURNS int LANGUAGE sql IMMUTABLE RETURN 0",
              "ALTER TABLE {n} OWNER TO provost_app; ALTER FUNCTION {n}_way OWNER TO provost_app",
              "SELECT count(*) + {n}_way() AS n FROM {n}"),
}


def replaced(server):
    return sorted(re.findall(r'level=warn msg="endpoint: neither cached nor collapsed until a reload[^\n]* endpoint=(\S+)', server.log()))


def test_what_leads_to_other_tables_than_before_waits_for_a_reload(cluster, db):
    ways = {**WAYS, **SAME}
    cluster.sql(db, "CREATE TABLE other (id integer)")
    for name, (make, _, _) in ways.items():
        cluster.sql(db, f"CREATE TABLE {name} (id integer); " + make.format(n=name))
    endpoints = {f"{n}.sql": f"-- @route GET /api/{n}\n-- @role public\n-- @returns row\n{ask.format(n=n)}" for n, (_, _, ask) in ways.items()}
    with Server(cluster, db, endpoints={**endpoints, "tag.sql": ENDPOINTS["tag.sql"]}) as server:
        assert uncovered(server) == []
        for name in ways:
            answer = server.get(f"/api/{name}")
            assert is_stored(answer) and answer.json() == {"n": 0} and is_hit(server.get(f"/api/{name}")), name
        for name, (_, replace, _) in ways.items():
            cluster.sql(db, replace.format(n=name))
        wait_until(lambda: uncovered(server) == sorted(WAYS), LOOK, "all are noticed")
        assert replaced(server) == sorted(WAYS)
        for name in WAYS:
            assert is_bypassed(server.get(f"/api/{name}")), name
        assert is_stored(server.get("/api/tag")) and is_hit(server.get("/api/tag")), "others are cached"
        for name in SAME:
            wait_until(lambda: is_stored(server.get(f"/api/{name}"), "stale"), LOOK, "made anew, it may have been another between two looks")
        server.install_triggers()
        server.reload()
        wait_until(lambda: uncovered(server) == [], LOOK, "all are loaded again")
        for name in WAYS:
            assert is_stored(server.get(f"/api/{name}")) and is_hit(server.get(f"/api/{name}")), name
        cluster.sql(db, "INSERT INTO other VALUES (1)")
        for name in WAYS.keys() - {"immutable", "default_value", "view_owner", "definer_owner"}:
            wait_until(lambda: not is_hit(server.get(f"/api/{name}")), 10, f"{name}: a change of the other table is told")
        assert replaced(server) == sorted(WAYS)


def test_what_was_another_for_a_while_leaves_nothing_behind(cluster, db):
    """A view is replaced, and is what it was again, with a reload for each; what was stored before the first was noticed
    would be found again."""
    make = "CREATE OR REPLACE VIEW way AS SELECT id FROM goods"
    other = "CREATE OR REPLACE VIEW way AS SELECT id FROM goods UNION ALL SELECT 7"
    cluster.sql(db, make)
    endpoints = {"way.sql": "-- @route GET /api/way\n-- @role public\n-- @returns row\nSELECT count(*) AS n FROM way"}
    with Server(cluster, db, endpoints=endpoints) as server:
        for sql, n in ((other, 1), (make, 0)):
            cluster.sql(db, sql)
            server.get("/api/way")
            wait_until(lambda: uncovered(server) == ["way"], LOOK, "it is noticed")
            assert server.get("/api/way").json() == {"n": n}
            server.reload()
            wait_until(lambda: uncovered(server) == [], LOOK, "it is loaded again")
            for _ in range(2):
                assert server.get("/api/way").json() == {"n": n}


def test_functions_of_others_are_not_called(cluster, db):
    """Who may create functions in a schema of the path makes one that fits better than PostgreSQL's own."""
    cluster.sql(db, "CREATE VIEW way AS SELECT id FROM goods; CREATE FUNCTION concat_ws(text, oid, xid) RETURNS text"
                    " LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''called as %'', current_user; END'")
    endpoints = {"way.sql": "-- @route GET /api/way\n-- @role public\n-- @returns row\nSELECT count(*) AS n FROM way"}
    with Server(cluster, db, endpoints=endpoints) as server:
        assert uncovered(server) == [] and "called as" not in server.log()
        assert is_stored(server.get("/api/way")) and is_hit(server.get("/api/way"))


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


def test_a_column_that_is_found_by_other_spellings(cluster, db):
    """What narrows must have values of one spelling each, also when that ends while the server runs."""
    by_name = ("-- @route GET /api/tags/:name\n-- @path name text\n-- @role public\n-- @returns rows\n-- @cache ttl=1h\n"
               "-- @depends tag(name=:name)\nSELECT name FROM tag WHERE name = :name")
    cluster.sql(db, "INSERT INTO tag VALUES ('A'); CREATE COLLATION careless"
                    " (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    with Server(cluster, db, endpoints={**ENDPOINTS, "name.sql": by_name}) as server:
        assert server.get("/api/tags/a").json() == [] and is_hit(server.get("/api/tags/a"))
        cluster.sql(db, "ALTER TABLE tag ALTER name TYPE text COLLATE careless")
        wait_until(lambda: "name" in uncovered(server), LOOK, "it is noticed")
        assert server.get("/api/tags/a").json() == [{"name": "A"}]
        cluster.sql(db, "DELETE FROM tag WHERE name = 'A'")
        assert server.get("/api/tags/a").json() == []


def test_news_at_will_do_not_make_looks_at_will(cluster, db):
    """Any role may say that everything has changed, as often as it likes."""
    looks = "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements WHERE query LIKE '%are told: one row per%'"
    with Server(cluster, db, endpoints=ENDPOINTS) as server:
        assert is_stored(server.get("/api/goods"))
        before, begun, sent = cluster.sql(db, looks)[0][0], time.monotonic(), 0
        with contextlib.closing(cluster.connect(db)) as connection, connection.cursor() as cursor:
            while time.monotonic() < begun + 2:
                cursor.execute("NOTIFY provost, 'epoch'")
                sent += 1
        seconds = time.monotonic() - begun
        assert sent > 100 and cluster.sql(db, looks)[0][0] - before <= 5 * seconds + 3

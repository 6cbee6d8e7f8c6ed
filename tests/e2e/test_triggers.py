"""`provost triggers`: what the database tells of changes, as a session in LISTEN receives it, and the commands."""
import concurrent.futures
import contextlib
import json
import select
import subprocess

import psycopg2
import pytest

from conftest import copy_of
from harness import BINARY, Server, patience, wait_until

# ---- the tables ----------------------------------------------------------------------------------

TABLES = """
CREATE TABLE course (id text PRIMARY KEY, "institutionId" text, title text);
CREATE TABLE lesson (id integer PRIMARY KEY, course text REFERENCES course ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE note (id integer PRIMARY KEY, course text REFERENCES course ON DELETE SET NULL);
CREATE SCHEMA shop;
CREATE TABLE shop.course (id integer PRIMARY KEY, title text);
CREATE SCHEMA "Odd. Shop";
CREATE TABLE "Odd. Shop"."it's ""it"" $provost$ \\ {x}" ("the ""key""'s \\ {,}" text PRIMARY KEY, "n" integer);
CREATE TABLE pair (a uuid, b bigint, c smallint, PRIMARY KEY (a, b));
CREATE TABLE wide (id varchar(9000) PRIMARY KEY);
CREATE TABLE keyless (x jsonb);
CREATE TABLE dated (at timestamptz PRIMARY KEY, x integer);
CREATE TABLE counted (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, rows integer, r integer, a text, n text);
CREATE TABLE parted (id integer, region text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parted_eu PARTITION OF parted FOR VALUES IN ('eu') PARTITION BY RANGE (id);
CREATE TABLE parted_eu_1 PARTITION OF parted_eu FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_us (region text, gone integer, id integer, PRIMARY KEY (id, region));
ALTER TABLE parted_us DROP COLUMN gone;
ALTER TABLE parted ATTACH PARTITION parted_us FOR VALUES IN ('us');
CREATE TABLE animal (id integer PRIMARY KEY, owner text);
CREATE TABLE dog (name text) INHERITS (animal);
CREATE TABLE mother (id integer PRIMARY KEY, home text);
CREATE TABLE father (id integer PRIMARY KEY, home text);
CREATE TABLE kid () INHERITS (mother, father);
"""

PATHS = {
    "course": ("i text", "@depends course(institutionId=:i)", 'SELECT id FROM course WHERE "institutionId" = :i'),
    "lesson": ("i text", "@depends lesson(course=:i)", "SELECT id FROM lesson WHERE course = :i"),
    "note": (None, "", "SELECT id FROM note"),
    "shop": (None, "", "SELECT id FROM shop.course"),
    "odd": ("i integer", '@depends "Odd. Shop"."it\'s ""it"" $provost$ \\ {x}"(n=:i)',
            'SELECT n FROM "Odd. Shop"."it\'s ""it"" $provost$ \\ {x}" WHERE n = :i'),
    "pair": ("c integer", "@depends pair(c=:c)", "SELECT a FROM pair WHERE c = :c"),
    "wide": (None, "", "SELECT id FROM wide"),
    "keyless": (None, "", "SELECT x FROM keyless"),
    "dated": (None, "", "SELECT at FROM dated"),
    "counted": ("r integer", "@depends counted(rows=:r), counted(r=:r)",
                "SELECT id FROM counted WHERE rows = :r AND r = :r"),
    "parted": (None, "", "SELECT id FROM parted"),
    "animal": ("o text", "@depends animal(owner=:o)", "SELECT id FROM animal WHERE owner = :o"),
    "mother": ("h text", "@depends mother(home=:h)", "SELECT id FROM mother WHERE home = :h"),
    "father": (None, "", "SELECT id FROM father"),
}


def endpoint(name):
    parameter, depends, sql = PATHS[name]
    lines = [f"-- @route GET /api/{name}", "-- @role public"]
    lines += [f"-- @query {parameter}"] if parameter else []
    lines += [f"-- {depends}"] if depends else []
    return "\n".join([*lines, sql])


ENDPOINTS = {f"{name}.sql": endpoint(name) for name in PATHS}
ODD = "Odd. Shop.it's \"it\" $provost$ \\ {x}"
ODD_SQL = '"Odd. Shop"."it\'s ""it"" $provost$ \\ {x}"'
ODD_KEY = "the \"key\"'s \\ {,}"


class Told:
    """A database with the triggers, and what a session in LISTEN hears."""

    def __init__(self, cluster, db, server):
        self.cluster, self.db, self.server, self.marks = cluster, db, server, 0
        self.listening = cluster.connect(db)
        with self.listening.cursor() as cursor:
            cursor.execute("LISTEN provost")

    @contextlib.contextmanager
    def heard(self):
        """The payloads of what is committed within the block, in order; in the list once it has ended."""
        found, self.marks = [], self.marks + 1
        self._mark("begin")
        yield found
        self._mark("end")
        payloads = [n.payload for n in self.listening.notifies]
        found += payloads[payloads.index(f"begin {self.marks}") + 1:payloads.index(f"end {self.marks}")]
        self.listening.notifies.clear()

    def _mark(self, word):
        """Behind all that was committed before."""
        self.cluster.sql(self.db, f"NOTIFY provost, '{word} {self.marks}'")
        wait_until(lambda: self._has(f"{word} {self.marks}"), 10, f"{word} is heard")

    def _has(self, payload):
        if select.select([self.listening], [], [], 0.2)[0]:
            self.listening.poll()
        return any(n.payload == payload for n in self.listening.notifies)

    def run(self, *statements):
        """Runs them in one transaction; the payloads that came of it."""
        with self.heard() as found:
            with contextlib.closing(psycopg2.connect(self.cluster.dsn(self.db))) as connection:
                with connection, connection.cursor() as cursor:
                    for statement in statements:
                        cursor.execute(statement)
        return found


@pytest.fixture(scope="module")
def told(cluster, empty_template, request):
    for db in copy_of(cluster, empty_template, request):
        cluster.sql(db, TABLES)
        server = Server(cluster, db, endpoints=ENDPOINTS)    # never started: its files are what counts
        server.install_triggers()
        told = Told(cluster, db, server)
        yield told
        told.listening.close()


# ---- what is told --------------------------------------------------------------------------------

def row(table, op, key="id", **values):
    return {"table": table, "op": op, **({"key": key} if key else {}), "values": values}


def alone(table, op):
    return {"table": table, "op": op}


A, B = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"

# What is there before, the statements of one transaction, what they tell.
CASES = {
    "insert": ("", ["INSERT INTO course VALUES ('a', 'x', ''), ('b', NULL, '')"],
               [row("course", "INSERT", id=["a", "b"], institutionId=["x"])]),
    "only NULLs": ("", ["INSERT INTO course (id) VALUES ('a')"], [row("course", "INSERT", id=["a"], institutionId=[])]),
    "old and new values": ("INSERT INTO course VALUES ('a', 'x', '')", ["UPDATE course SET \"institutionId\" = 'y'"],
                           [row("course", "UPDATE", id=["a"], institutionId=["x", "y"])]),
    "another column": ("INSERT INTO course VALUES ('a', 'x', '')", ["UPDATE course SET title = 'y'"],
                       [row("course", "UPDATE", id=["a"], institutionId=["x"])]),
    "the key": ("INSERT INTO course VALUES ('a', 'x', '')", ["UPDATE course SET id = 'b'"],
                [row("course", "UPDATE", id=["a", "b"], institutionId=["x"])]),
    "delete": ("INSERT INTO course VALUES ('a', 'x', ''), ('b', 'x', '')", ["DELETE FROM course"],
               [row("course", "DELETE", id=["a", "b"], institutionId=["x"])]),
    "no row": ("INSERT INTO course VALUES ('a', 'x', '')",
               ["UPDATE course SET title = '' WHERE false", "DELETE FROM course WHERE id = 'b'",
                "INSERT INTO course SELECT 'c' WHERE false", "INSERT INTO course VALUES ('a') ON CONFLICT DO NOTHING"], []),
    "truncate": ("INSERT INTO course VALUES ('a', 'x', '')", ["TRUNCATE course CASCADE"],
                 [alone("course", "TRUNCATE"), alone("lesson", "TRUNCATE"), alone("note", "TRUNCATE")]),
    "rolled back": ("", ["SAVEPOINT s", "INSERT INTO course VALUES ('a')", "ROLLBACK TO s"], []),
    "equal ones of a transaction": ("INSERT INTO course VALUES ('a', 'x', '')",
                                    ["UPDATE course SET title = 'y'", "UPDATE course SET title = 'z'"],
                                    [row("course", "UPDATE", id=["a"], institutionId=["x"])]),
    "escaped values": ("", ["INSERT INTO course VALUES (E'\"\\\\\\n\\t\\x01é€\U0001F600', '{,}', '')"],
                       [row("course", "INSERT", id=['"\\\n\t\x01é€\U0001F600'], institutionId=["{,}"])]),
    "another schema": ("", ["INSERT INTO shop.course VALUES (-7)"], [row("shop.course", "INSERT", id=["-7"])]),
    "odd names": ("", [f"INSERT INTO {ODD_SQL} VALUES ('v', 3)"],
                  [row(ODD, "INSERT", ODD_KEY, **{ODD_KEY: ["v"], "n": ["3"]})]),
    "odd names, truncated": ("", [f"TRUNCATE {ODD_SQL}"], [alone(ODD, "TRUNCATE")]),
    "a key of two columns": ("", [f"INSERT INTO pair VALUES ('{A.upper()}', 1, 2), ('{B}', 1, 3)"],
                             [row("pair", "INSERT", None, a=[A, B], b=["1"], c=["2", "3"])]),
    "without a key": ("", ["INSERT INTO keyless VALUES ('1')", "UPDATE keyless SET x = '2'", "DELETE FROM keyless",
                           "DELETE FROM keyless"],
                      [alone("keyless", "INSERT"), alone("keyless", "UPDATE"), alone("keyless", "DELETE")]),
    "a key of another type": ("", ["INSERT INTO dated VALUES (now())"], [alone("dated", "INSERT")]),
    "columns called as the function's own": ("", ["INSERT INTO counted (rows, r, a, n) VALUES (1, 2, 'x', 'y')"],
                                             [row("counted", "INSERT", id=["1"], rows=["1"], r=["2"])]),
    "250 rows": ("", ["INSERT INTO wide SELECT i FROM generate_series(1000, 1249) i",
                      "UPDATE wide SET id = id || 'x'", "DELETE FROM wide"],
                 [row("wide", "INSERT", id=[str(i) for i in range(1000, 1250)]),
                  row("wide", "UPDATE", id=sorted(f"{i}{x}" for i in range(1000, 1250) for x in ("", "x"))),
                  row("wide", "DELETE", id=[f"{i}x" for i in range(1000, 1250)])]),
    "251 rows": ("", ["INSERT INTO wide SELECT i FROM generate_series(1, 251) i", "UPDATE wide SET id = id || 'x'",
                      "DELETE FROM wide"],
                 [alone("wide", "INSERT"), alone("wide", "UPDATE"), alone("wide", "DELETE")]),
    "a payload past the limit": ("", ["INSERT INTO wide VALUES (repeat('x', 8000))"], [alone("wide", "INSERT")]),
    "past it in bytes alone": ("", ["INSERT INTO wide VALUES (repeat('€', 2700))"], [alone("wide", "INSERT")]),
    "past it by escapes": ("", ["INSERT INTO wide VALUES (repeat(chr(1), 1500))"], [alone("wide", "INSERT")]),
    "on conflict, an update": ("INSERT INTO course VALUES ('a', 'x', '')",
                               ["INSERT INTO course VALUES ('a', 'y', '') ON CONFLICT (id)"
                                " DO UPDATE SET \"institutionId\" = excluded.\"institutionId\""],
                               [row("course", "UPDATE", id=["a"], institutionId=["x", "y"])]),
    "on conflict, both": ("INSERT INTO course VALUES ('a', 'x', '')",
                          ["INSERT INTO course VALUES ('a', 'y', ''), ('b', 'z', '') ON CONFLICT (id) DO UPDATE SET title = ''"],
                          [row("course", "UPDATE", id=["a"], institutionId=["x"]),
                           row("course", "INSERT", id=["b"], institutionId=["z"])]),
    "merge": ("INSERT INTO course VALUES ('a', 'x', ''), ('b', 'x', '')",
              ["MERGE INTO course c USING (VALUES ('a'), ('b'), ('c')) v (id) ON v.id = c.id"
               " WHEN MATCHED AND c.id = 'a' THEN UPDATE SET \"institutionId\" = 'y' WHEN MATCHED THEN DELETE"
               " WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'z', '')"],
              [row("course", "UPDATE", id=["a"], institutionId=["x", "y"]),
               row("course", "DELETE", id=["b"], institutionId=["x"]),
               row("course", "INSERT", id=["c"], institutionId=["z"])]),
    "several in one statement": ("INSERT INTO course VALUES ('a', 'x', '')",
                                 ["WITH d AS (DELETE FROM course RETURNING id) INSERT INTO shop.course SELECT 5 FROM d"],
                                 [row("course", "DELETE", id=["a"], institutionId=["x"]),
                                  row("shop.course", "INSERT", id=["5"])]),
    "cascades": ("INSERT INTO course VALUES ('a', 'x', ''); INSERT INTO lesson VALUES (1, 'a'), (2, 'a');"
                 " INSERT INTO note VALUES (3, 'a')", ["DELETE FROM course"],
                 [row("course", "DELETE", id=["a"], institutionId=["x"]),
                  row("lesson", "DELETE", id=["1", "2"], course=["a"]), row("note", "UPDATE", id=["3"])]),
    "a cascade of an update": ("INSERT INTO course VALUES ('a', 'x', ''); INSERT INTO lesson VALUES (1, 'a')",
                               ["UPDATE course SET id = 'b'"],
                               [row("course", "UPDATE", id=["a", "b"], institutionId=["x"]),
                                row("lesson", "UPDATE", id=["1"], course=["a", "b"])]),
    "replication role": ("", ["SET LOCAL session_replication_role = replica", "INSERT INTO course VALUES ('a', 'x', '')"],
                         [row("course", "INSERT", id=["a"], institutionId=["x"])]),
    "a partitioned table": ("", ["INSERT INTO parted VALUES (1, 'eu'), (2, 'us')"],
                            [row("parted", "INSERT", None, id=["1", "2"], region=["eu", "us"])]),
    "a partition": ("", ["INSERT INTO parted_us (id, region) VALUES (2, 'us')"],
                    [row("parted", "INSERT", None, id=["2"], region=["us"])]),
    "a partition of a partition": ("", ["INSERT INTO parted_eu_1 VALUES (1, 'eu')", "INSERT INTO parted_eu VALUES (2, 'eu')"],
                                   [row("parted", "INSERT", None, id=["1"], region=["eu"]),
                                    row("parted", "INSERT", None, id=["2"], region=["eu"])]),
    "a row that moves": ("INSERT INTO parted VALUES (1, 'eu')", ["UPDATE parted SET region = 'us'"],
                         [row("parted", "UPDATE", None, id=["1"], region=["eu", "us"])]),
    "a partition truncated": ("", ["TRUNCATE parted_us"], [alone("parted", "TRUNCATE")]),
    "a partitioned table truncated": ("", ["TRUNCATE parted"], [alone("parted", "TRUNCATE")]),
    "a child, through its parent": ("INSERT INTO dog VALUES (1, 'me', 'rex')", ["UPDATE animal SET owner = 'you'"],
                                    [row("animal", "UPDATE", id=["1"], owner=["me", "you"])]),
    "a child": ("", ["INSERT INTO dog VALUES (1, 'me', 'rex')"], [row("animal", "INSERT", id=["1"], owner=["me"])]),
    "a child of two": ("", ["INSERT INTO kid VALUES (1, 'h')"],
                       [row("father", "INSERT", id=["1"], home=["h"]), row("mother", "INSERT", id=["1"], home=["h"])]),
    "a child of two, by one": ("INSERT INTO kid VALUES (1, 'h')", ["DELETE FROM mother"],
                               [row("mother", "DELETE", id=["1"], home=["h"])]),
}


def emptied(told):
    told.cluster.sql(told.db, f"TRUNCATE course, lesson, note, shop.course, {ODD_SQL}, pair, wide, keyless, dated, parted,"
                              " animal, mother, father; TRUNCATE counted RESTART IDENTITY")


def normal(payload):
    message = json.loads(payload)
    for column, values in message.get("values", {}).items():
        assert len(set(values)) == len(values), f"{column} repeats values"
        values.sort()
    return message


@pytest.mark.parametrize("case", CASES)
def test_what_is_told(told, case):
    before, statements, expected = CASES[case]
    emptied(told)
    if before:
        told.cluster.sql(told.db, before)
    found = [normal(payload) for payload in told.run(*statements)]
    for message in expected:
        for values in message.get("values", {}).values():
            values.sort()
    assert sorted(found, key=json.dumps) == sorted(expected, key=json.dumps)


def test_copy_tells(told):
    emptied(told)
    with told.heard() as found:
        done = subprocess.run(["psql", "-qXc", "\\copy course from stdin", told.cluster.dsn(told.db)], input="a\tx\tt\n",
                              text=True, timeout=patience(30))
        assert done.returncode == 0
    assert [normal(payload) for payload in found] == [row("course", "INSERT", id=["a"], institutionId=["x"])]


def test_who_writes_needs_no_rights_of_ours(told):
    """Neither on the function nor on pg_notify's channel; nor is the writer's search_path used."""
    emptied(told)
    payloads = told.run("SET LOCAL ROLE provost_app", "CREATE TEMP TABLE provost_new (id text)",
                        "SET LOCAL search_path = pg_temp, shop", "INSERT INTO public.course VALUES ('a', 'x', '')")
    assert [normal(p) for p in payloads] == [row("course", "INSERT", id=["a"], institutionId=["x"])]


@pytest.mark.parametrize("ddl, undo", [
    ('ALTER TABLE course RENAME COLUMN "institutionId" TO other', 'ALTER TABLE course RENAME COLUMN other TO "institutionId"'),
    ("ALTER FUNCTION pg_catalog.array_to_json(anyarray) RENAME TO hidden",
     "ALTER FUNCTION pg_catalog.hidden(anyarray) RENAME TO array_to_json"),
], ids=["a column renamed", "an error of any kind"])
def test_the_writer_never_fails(told, ddl, undo):
    emptied(told)
    told.cluster.sql(told.db, ddl)
    try:
        payloads = told.run("INSERT INTO course (id) VALUES ('a')", "UPDATE course SET title = ''", "DELETE FROM course")
    finally:
        told.cluster.sql(told.db, undo)
    told_of_course = [m for m in map(json.loads, payloads) if m["table"] == "course"]
    assert told_of_course == [alone("course", op) for op in ("INSERT", "UPDATE", "DELETE")]


def test_keys_and_revocations_tell(told):
    payloads = told.run("INSERT INTO provost.revocation (kind, what) VALUES ('token', 'a'), ('token', 'b')",
                        "DELETE FROM provost.revocation WHERE what = 'c'", "DELETE FROM provost.revocation",
                        "UPDATE provost.api_key SET note = ''", "TRUNCATE provost.api_key")
    assert [json.loads(p) for p in payloads] == [alone("provost.revocation", "INSERT"), alone("provost.revocation", "DELETE"),
                                                 alone("provost.api_key", "TRUNCATE")]


# ---- the commands --------------------------------------------------------------------------------

GOODS = {"goods.sql": "-- @route GET /api/goods\n-- @role public\n-- @query shop text\n-- @depends goods(shop=:shop)\n"
                      "SELECT id, (SELECT count(*) FROM tag) AS n FROM goods WHERE shop = :shop"}
GOODS_TABLES = "CREATE TABLE goods (id integer PRIMARY KEY, shop text); CREATE TABLE tag (name text PRIMARY KEY)"


@pytest.fixture
def goods(cluster, empty_database):
    """A database with two tables, and a server for it that was not started, without triggers."""
    cluster.sql(empty_database, GOODS_TABLES)
    return Server(cluster, empty_database, endpoints=GOODS, triggers=False)


def triggers(cluster, server, *words, status=0, url=None, db=None):
    env = {**server.environment(), "PROVOST_DATABASE_URL": url or cluster.dsn(db)}
    done = subprocess.run([BINARY, "triggers", *words, "--config", server.ini], capture_output=True, text=True, env=env,
                          timeout=patience(60))
    assert done.returncode == status, done
    return done.stdout + done.stderr


@pytest.fixture
def command(cluster, empty_database, goods):
    def run(*words, status=0, url=None):
        return triggers(cluster, goods, *words, status=status, url=url, db=empty_database)
    subprocess.run([BINARY, "schema", "install", "--database", cluster.dsn(empty_database)], check=True,
                   stdout=subprocess.DEVNULL, timeout=patience(60))
    return run


ALL = "goods: installed; tells id, shop\ntag: installed; tells name\n"
SAME = ALL.replace("installed", "up to date")


def marks(cluster, db):
    """What a trigger's row in the catalogue is, which every change of it replaces."""
    return cluster.sql(db, "SELECT tgrelid::regclass::text, tgname, oid, xmin::text FROM pg_trigger"
                           " WHERE tgname LIKE 'provost%' AND NOT tgrelid::regclass::text LIKE 'provost.%' ORDER BY 1, 2")


def test_install_is_idempotent(cluster, empty_database, command):
    assert command("status", status=1) == "goods: missing: it has no triggers\ntag: missing: it has no triggers\n"
    assert command("install") == ALL
    before = marks(cluster, empty_database)
    assert len(before) == 8
    assert command("install") == SAME and marks(cluster, empty_database) == before
    assert command("status") == "goods: installed\ntag: installed\n"


def test_what_changes_triggers_tells_all_servers_to_begin_anew(cluster, empty_database, command, goods):
    told = Told(cluster, empty_database, goods)
    for word, expected in (("install", ["epoch"]), ("install", []), ("remove", ["epoch"]), ("remove", [])):
        with told.heard() as found:
            command(word)
        assert found == expected, word
    told.listening.close()


def test_what_is_printed_is_what_is_installed(cluster, empty_database, command):
    text = command("print")
    subprocess.run(["psql", "-qX", "-v", "ON_ERROR_STOP=1", cluster.dsn(empty_database)], input=text, text=True, check=True,
                   stdout=subprocess.DEVNULL, timeout=patience(60))
    assert command("install") == SAME
    assert command("print") == text


def test_default_privileges_open_no_function(cluster, empty_database, command):
    cluster.sql(empty_database, "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO provost_app;"
                                " ALTER DEFAULT PRIVILEGES IN SCHEMA provost GRANT EXECUTE ON FUNCTIONS TO pg_monitor")
    assert command("install") == ALL
    may = "SELECT DISTINCT proacl::text FROM pg_proc WHERE proname LIKE 'changed\\_%'"
    assert cluster.sql(empty_database, may) == [("{provost=X/provost}",)]
    assert command("install") == SAME
    cluster.sql(empty_database, "DO $$ BEGIN EXECUTE 'GRANT EXECUTE ON FUNCTION provost.' ||"
                                " (SELECT proname FROM pg_proc WHERE proname LIKE 'changed\\_%' LIMIT 1) || ' TO pg_monitor'; END $$")
    assert command("install") != SAME
    assert cluster.sql(empty_database, may) == [("{provost=X/provost}",)]


def test_the_owner_of_a_function_keeps_it(cluster, empty_database, command):
    """Whoever installs, whatever the owner is granted by default besides."""
    may = "SELECT DISTINCT proacl::text FROM pg_proc WHERE proname LIKE 'changed\\_%'"
    assert command("install") == ALL
    cluster.sql(empty_database, "DO $$ DECLARE f regprocedure; BEGIN"
                                " FOR f IN SELECT oid FROM pg_proc WHERE proname LIKE 'changed\\_%' LOOP"
                                " EXECUTE format('ALTER FUNCTION %s OWNER TO provost_app', f);"
                                " EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_monitor', f); END LOOP; END $$;"
                                " ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO provost_app")
    assert command("install") != SAME
    assert cluster.sql(empty_database, may) == [("{provost_app=X/provost_app}",)]


def test_functions_are_locked_up(cluster, empty_database, command):
    command("install")
    rows = cluster.sql(empty_database, "SELECT prosecdef, proconfig, has_function_privilege('provost_app', oid, 'EXECUTE'),"
                                       " obj_description(oid) FROM pg_proc WHERE proname LIKE 'changed\\_%' ORDER BY 4")
    assert rows == [(True, ["search_path=pg_catalog, pg_temp"], False, f"Provost: tells of changes of {t}")
                    for t in ("goods", "tag")]


def test_remove(cluster, empty_database, command):
    command("install")
    assert command("remove", "tag") == "tag: removed\n"
    assert command("status", status=1) == "goods: installed\ntag: missing: it has no triggers\n"
    assert command("remove") == "goods: removed\n"
    assert not marks(cluster, empty_database)
    assert cluster.sql(empty_database, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'changed\\_%'") == [(0,)]
    assert command("remove") == ""


def test_tables_by_name(cluster, empty_database, command):
    cluster.sql(empty_database, 'CREATE TABLE "Other" (id uuid PRIMARY KEY); CREATE SCHEMA s; CREATE TABLE s.part (id bigint PRIMARY KEY)'
                                " PARTITION BY RANGE (id); CREATE TABLE s.part_1 PARTITION OF s.part DEFAULT")
    assert command("install", '"Other"', "s.part_1") == ("Other: installed; tells id\n" + ALL.replace("tag", "s.part: installed,"
                                                         " on 2 of 2 tables; tells id\ntag"))
    assert command("status") == ("goods: installed\ntag: installed\nOther: installed, though no endpoint needs them\n"
                                 "s.part: installed, though no endpoint needs them\n")
    assert command("remove", "s.part") == "s.part: removed\ns.part_1: removed\n"


@pytest.mark.parametrize("name, said", [
    ("nothing", "there is no table nothing"), ("Other", "there is no table Other"), ("v", "only tables can have"),
    ("pg_class", "only tables can have"), ("a b", "table a b"), ("'; DROP TABLE tag", "table '; DROP"),
])
def test_names_that_are_no_tables(cluster, empty_database, command, name, said):
    cluster.sql(empty_database, 'CREATE TABLE "Other" (id integer); CREATE VIEW v AS SELECT 1')
    assert said in command("install", name, status=1)
    assert not marks(cluster, empty_database)


def test_columns_are_added_and_never_taken_away(cluster, empty_database, command, goods):
    assert "goods: installed; tells id, shop\n" in command("install")
    text = goods.folder / "endpoints/goods.sql"
    cluster.sql(empty_database, "ALTER TABLE goods ADD kind text")
    text.write_text(text.read_text().replace("shop=:shop", "kind=:shop").replace("WHERE shop", "WHERE kind"))
    assert "goods: outdated: it has triggers that do not tell of kind\n" in command("status", status=1)
    assert "goods: updated; tells id, shop, kind\n" in command("install")
    assert "goods: installed\n" in command("status")


# What was done to the tables, and how that is called.
DAMAGE = {
    "disabled": ("ALTER TABLE goods DISABLE TRIGGER provost_update",
                 "goods: disabled: it has provost_update disabled, or not enabled always"),
    "enabled, not always": ("ALTER TABLE goods ENABLE TRIGGER provost_update", "goods: disabled: it has provost_update disabled"),
    "all disabled": ("ALTER TABLE goods DISABLE TRIGGER ALL",
                     "goods: disabled: it has provost_delete, provost_insert, provost_truncate, provost_update disabled"),
    "dropped": ("DROP TRIGGER provost_insert ON goods", "goods: missing: it lacks provost_insert"),
    "another function": ("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
                         " CREATE OR REPLACE TRIGGER provost_delete AFTER DELETE ON goods REFERENCING OLD TABLE AS provost_old"
                         " FOR EACH STATEMENT EXECUTE FUNCTION f(); ALTER TABLE goods ENABLE ALWAYS TRIGGER provost_delete",
                         "goods: outdated: it has had provost_delete changed"),
    "a condition": ("DO $$ BEGIN EXECUTE replace(replace((SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname ="
                    " 'provost_truncate' AND tgrelid = 'goods'::regclass), 'CREATE', 'CREATE OR REPLACE'), 'EXECUTE',"
                    " 'WHEN (false) EXECUTE'); END $$; ALTER TABLE goods ENABLE ALWAYS TRIGGER provost_truncate",
                    "goods: outdated: it has had provost_truncate changed"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_not_in_order_is_said_and_mended(cluster, empty_database, command, case):
    change, said = DAMAGE[case]
    command("install")
    cluster.sql(empty_database, change)
    found = command("status", status=1)
    assert said in found and "tag: installed\n" in found
    assert "goods: updated" in command("install") and "tag: up to date" in command("install")
    assert command("status") == "goods: installed\ntag: installed\n"


def test_a_renamed_table_tells_by_its_new_name(cluster, empty_database, command, goods):
    command("install")
    cluster.sql(empty_database, "ALTER TABLE goods RENAME TO wares")
    text = goods.folder / "endpoints/goods.sql"
    text.write_text(text.read_text().replace("goods(", "wares(").replace("FROM goods", "FROM wares"))
    assert "wares: outdated: it has triggers that tell of a table by another name\n" in command("status", status=1)
    assert "wares: updated; tells id\n" not in command("install")
    assert cluster.sql(empty_database, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'changed\\_%'") == [(2,)], "the old one is gone"


def test_members_that_came_later(cluster, empty_database, command):
    cluster.sql(empty_database, "CREATE TABLE child () INHERITS (goods)")
    command("install")
    cluster.sql(empty_database, "CREATE TABLE child_2 () INHERITS (child)")
    assert "goods: missing: child_2 has no triggers\n" in command("status", status=1)
    assert "goods: updated, on 1 of 3 tables; tells id, shop\n" in command("install")
    assert "goods: installed\n" in command("status")


def test_what_cannot_have_triggers(cluster, empty_database, command, goods):
    cluster.sql(empty_database, "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;"
                                " CREATE FOREIGN TABLE away (id text) SERVER files OPTIONS (filename '/dev/null');"
                                " CREATE TABLE mixed (id integer, x text) PARTITION BY LIST (x);"
                                " CREATE TABLE mixed_1 PARTITION OF mixed FOR VALUES IN ('a');"
                                " CREATE FOREIGN TABLE mixed_2 PARTITION OF mixed FOR VALUES IN ('b') SERVER files OPTIONS (filename '/dev/null');"
                                " CREATE MATERIALIZED VIEW seen AS SELECT 1 AS id; CREATE SEQUENCE serial")
    for name in ("away", "mixed", "seen"):
        goods.write_endpoint(f"{name}.sql", f"-- @route GET /api/{name}\nSELECT count(*) FROM {name}")
    goods.write_endpoint("serial.sql", "-- @route GET /api/serial\nSELECT last_value FROM serial")
    lines = {"away: unsupported: it is a foreign table", "mixed: unsupported: mixed_2 is a foreign table",
             "seen: unsupported: it is a materialized view", "serial: unsupported: it is a sequence"}
    assert set(command("install").splitlines()) == lines | set(ALL.splitlines())
    assert set(command("status", status=1).splitlines()) == lines | {"goods: installed", "tag: installed"}
    assert len(marks(cluster, empty_database)) == 8


def test_the_schema_must_be_there(cluster, empty_database, goods):
    assert "run `provost schema install` first" in triggers(cluster, goods, "install", status=1, db=empty_database)


def test_only_the_owner_can(cluster, empty_database, command):
    cluster.sql(empty_database, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO provost_app")
    assert "run this as its owner, `provost`" in command("install", status=1, url=cluster.app_dsn(empty_database))
    cluster.sql(empty_database, "GRANT CREATE ON SCHEMA provost TO provost_app")
    said = command("install", status=1, url=cluster.app_dsn(empty_database))
    assert "table goods belongs to the role `provost`" in said and "table tag belongs" in said
    assert not marks(cluster, empty_database)


def test_an_owner_that_is_no_superuser(cluster, empty_database, command):
    cluster.sql(empty_database, "ALTER SCHEMA provost OWNER TO provost_app; ALTER TABLE goods OWNER TO provost_app;"
                                " ALTER TABLE tag OWNER TO provost_app")
    assert command("install", url=cluster.app_dsn(empty_database)) == ALL


def test_a_table_in_use_is_not_waited_for_long(cluster, empty_database, command):
    """A writer that is in the midst of a transaction is not disturbed, and those behind it only briefly."""
    with contextlib.closing(cluster.connect(empty_database)) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; INSERT INTO tag VALUES ('x')")
        said = command("install", status=1)
        assert "table tag was in use all the time: process" in said and "(e2e, provost)" in said
        assert not marks(cluster, empty_database)
        cursor.execute("COMMIT")
    assert command("install") == ALL


@pytest.mark.parametrize("word", ["install", "remove"])
def test_a_table_that_is_dropped_meanwhile_is_nobodys_loss(cluster, empty_database, command, word):
    """The command has read what there is, and waits for the table, when it goes."""
    if word == "remove":
        command("install")
    with contextlib.closing(cluster.connect(empty_database)) as connection, connection.cursor() as cursor, \
            contextlib.closing(cluster.connect(empty_database)) as other, other.cursor() as watching, \
            concurrent.futures.ThreadPoolExecutor(1) as pool:
        def waits():
            watching.execute("SELECT FROM pg_locks WHERE NOT granted AND relation = 'tag'::regclass")
            return watching.rowcount
        cursor.execute("BEGIN; LOCK tag IN ROW EXCLUSIVE MODE")     # endpoints are described beside it
        done = pool.submit(command, word)
        wait_until(waits, 10, "it waits")
        cursor.execute("DROP TABLE tag; COMMIT")
        said = done.result()
    assert said == {"install": "goods: installed; tells id, shop\n", "remove": "goods: removed\n"}[word]
    assert {table for table, *_ in marks(cluster, empty_database)} == ({"goods"} if word == "install" else set())


def test_triggers_that_are_good_take_no_lock(cluster, empty_database, command):
    command("install")
    with contextlib.closing(cluster.connect(empty_database)) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; INSERT INTO tag VALUES ('x')")
        assert command("install") == SAME
        cursor.execute("ROLLBACK")

"""`provost grants print`: a role with these grants, and no others, serves all endpoints."""
import contextlib
import os
import re
import secrets
import subprocess

import psycopg2
import pytest

from harness import BINARY, Server, patience

ROLE = "least_privileged"


def provost(server, *words, url=None):
    env = server.environment()
    if url:
        env["PROVOST_DATABASE_URL"] = url
    return subprocess.run([BINARY, *words, "--config", server.ini], text=True, capture_output=True,
                          timeout=patience(30), env=env)


def printed(server, url, role=ROLE):
    done = provost(server, "grants", "print", "--role", role, url=url)
    assert done.returncode == 0 and done.stderr == "", done
    return done.stdout


@pytest.fixture
def role(cluster):
    """A role that nobody has granted anything yet; the URL of a database as it."""
    password = secrets.token_hex(8)

    def url(db):
        cluster.sql("postgres", f"ALTER ROLE {ROLE} PASSWORD '{password}'")
        return re.sub("//[^@]*@", f"//{ROLE}:{password}@", cluster.dsn(db))
    yield url
    for (db,) in cluster.sql("postgres", "SELECT datname FROM pg_database WHERE datallowconn"):
        if cluster.sql("postgres", "SELECT 1 FROM pg_roles WHERE rolname = %s", ROLE):
            cluster.sql(db, f"DROP OWNED BY {ROLE}")
    cluster.sql("postgres", f"DROP ROLE IF EXISTS {ROLE}")


def install(server, url):
    env = {**server.environment(), "PROVOST_DATABASE_URL": url}
    subprocess.run([BINARY, "schema", "install"], check=True, capture_output=True, env=env, timeout=patience(30))


def close_public(cluster, db):
    """As a careful administrator has it: whoever is not granted something does not have it."""
    cluster.sql(db, f'REVOKE ALL ON DATABASE "{db}" FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC')


def test_the_demo(cluster, fresh_database, role):
    db, owner = fresh_database, cluster.dsn(fresh_database)
    close_public(cluster, db)
    server = Server(cluster, db, token=True)
    server.install_triggers()
    text = printed(server, owner)
    assert printed(server, owner) == text, "the same each time"
    assert "password" not in text.replace("no password", "").replace("\\password", "")
    cluster.sql(db, text.replace("%", "%%"))
    cluster.sql(db, text.replace("%", "%%"))        # again, as after a change
    server.install_triggers()
    server.write_config({"database": {"url": role(db)}})
    done = provost(server, "check")
    assert done.returncode == 0 and done.stderr == "" and "; 37 endpoints checked" in done.stdout, done
    with server:
        server.wait_log("API keys and revocations were read")

    # No more than these.
    rights = cluster.sql(db, "SELECT c.oid::regclass::text, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a"
                             " WHERE a.grantee = %s::regrole AND c.relnamespace <> 'provost'::regnamespace", ROLE)
    assert {'"user"', "course", "payment_totals"} <= {table for table, right in rights if right == "SELECT"}
    assert [right for table, right in rights if table == "audit_logs"] == ["INSERT"], "written, never read"
    assert {table for table, right in rights if right == "INSERT"} == {"audit_logs", "notification_logs"}, "the rest by functions with the owner's rights"
    assert {table for table, right in rights if right == "DELETE"} == {"category", "course", "institution", "tag"}
    assert {table for table, right in rights if right == "UPDATE"} == {
        '"user"', "booking", "category", "course", "institution", "payments", "student_course_enrollments", "tag"}
    assert {right for table, right in rights if table == "notification_logs"} == {"SELECT", "INSERT"}
    functions = cluster.sql(db, "SELECT p.proname FROM pg_proc p, aclexplode(p.proacl) a WHERE a.grantee = %s::regrole ORDER BY 1", ROLE)
    assert functions == [("insert_with_slug",), ("publish",), ("replace_course_tags",), ("replace_weekly_prices",)]
    rights = cluster.sql(db, "SELECT c.relname, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a"
                             " WHERE a.grantee = %s::regrole AND c.relnamespace = 'provost'::regnamespace ORDER BY 1, 2", ROLE)
    assert rights == [("api_key", "SELECT"), ("event_key", "SELECT"), ("outbox", "DELETE"), ("outbox", "SELECT"), *(("revocation", right) for right in ("DELETE", "INSERT", "SELECT", "UPDATE"))]

    # And none is there for nothing.
    lines = re.findall(r"^GRANT (?:SELECT|INSERT|UPDATE|DELETE|EXECUTE) ON (?:FUNCTION )?public\..*;$", text, re.M)
    assert len(lines) > 30
    for line in lines:
        revoke = line.replace("GRANT", "REVOKE").replace(" TO ", " FROM ").replace("INOUT made ", "")
        cluster.sql(db, revoke)
        done = provost(server, "check")
        assert done.returncode == 1 and re.search(r"permission denied for \w+ .*SQLSTATE 42501", done.stderr), (line, done)
        cluster.sql(db, line)


def test_a_role_without_them_is_told_what_it_lacks(cluster, fresh_database, role):
    cluster.sql(fresh_database, f"CREATE ROLE {ROLE} LOGIN")
    server = Server(cluster, fresh_database, token=True)
    install(server, cluster.dsn(fresh_database))
    server.write_config({"database": {"url": role(fresh_database)}})
    done = provost(server, "check")
    assert done.returncode == 1 and "permission denied for table course" in done.stderr
    assert "provost grants print" in done.stderr, "for the keys"


SETUP = """
CREATE SCHEMA shop;
CREATE TABLE shop.secret (id integer);
CREATE TABLE shop.own (id integer, kind text);
CREATE TABLE shop.part (id integer) PARTITION BY RANGE (id);
CREATE TABLE shop.part_1 PARTITION OF shop.part DEFAULT;
CREATE TABLE behind_invoker (id integer);
CREATE TABLE behind_function (id integer);
CREATE TABLE behind_text (id integer);
CREATE TABLE behind_definer (id integer);
CREATE TABLE behind_policy (id integer);
CREATE TABLE guarded (id integer);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON guarded FOR SELECT USING (id IN (SELECT id FROM behind_policy));
CREATE VIEW plain AS SELECT * FROM shop.secret;
CREATE VIEW invoker WITH (security_invoker = true) AS SELECT * FROM behind_invoker;
CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql STABLE RETURN (SELECT count(*) FROM behind_function);
REVOKE ALL ON FUNCTION counted() FROM PUBLIC;
CREATE FUNCTION hidden(a integer) RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT count(*) FROM behind_text); END';
CREATE FUNCTION defined() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER RETURN (SELECT count(*) FROM behind_definer);
CREATE FUNCTION shop.same(a integer, b integer) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN a = b;
REVOKE ALL ON FUNCTION shop.same FROM PUBLIC;
CREATE OPERATOR shop.=== (FUNCTION = shop.same, LEFTARG = integer, RIGHTARG = integer);
"""
STATEMENTS = {
    "view": "SELECT id FROM plain", "invoker": "SELECT id FROM invoker", "part": "SELECT id FROM shop.part WHERE id = 1",
    "function": "SELECT counted()", "definer": "SELECT defined()", "policy": "SELECT id FROM guarded",
    "operator": "SELECT id FROM shop.own WHERE id OPERATOR(shop.===) 1 -- a comment", "folded": "SELECT id FROM shop.own WHERE false",
}
PARAMETERS = {
    "opaque": "-- @query a integer\n-- @query b text[]\n-- @depends behind_text, !guarded\n"
              "SELECT hidden(:a) AS x, (SELECT count(*) FROM shop.own WHERE kind = ANY (:b)) AS y",
}


def test_what_is_reached_with_whose_rights(cluster, empty_database, role):
    db, owner = empty_database, cluster.dsn(empty_database)
    cluster.sql(db, SETUP)
    close_public(cluster, db)
    endpoints = {f"{n}.sql": f"-- @route GET /api/{n}\n-- @role public\n{text}" for n, text in {**STATEMENTS, **PARAMETERS}.items()}
    server = Server(cluster, db, endpoints=endpoints, token=True)
    install(server, owner)
    text = printed(server, owner)
    assert set(re.findall(r"^GRANT SELECT ON (?!provost)(\S+) ", text, re.M)) == {
        "public.plain", "public.invoker", "public.behind_invoker", "public.behind_function", "public.behind_text",
        "public.guarded", "public.behind_policy", "shop.own", "shop.part"}
    assert set(re.findall(r"^GRANT EXECUTE ON FUNCTION (\S+\(.*\)) TO", text, re.M)) == {
        "provost.publish(text, text, jsonb)", "public.counted()", "shop.same(a integer, b integer)"}
    cluster.sql(db, text)
    server.write_config({"database": {"url": role(db)}})
    with server:
        for name in (*STATEMENTS, *PARAMETERS):
            assert server.get(f"/api/{name}").status == 200, name


WRITTEN = """
CREATE TABLE log (id serial PRIMARY KEY, what text);
CREATE TABLE counter (name text PRIMARY KEY, n integer NOT NULL DEFAULT 1);
CREATE TABLE numbered (id integer GENERATED ALWAYS AS IDENTITY, what text DEFAULT 'x' || current_user);
CREATE TABLE queue (id integer, taken boolean);
CREATE TABLE source (id integer);
CREATE TABLE target (id integer, n integer);
CREATE TABLE untouched (id serial);
CREATE TABLE base (id integer, n integer);
CREATE VIEW over_base AS SELECT * FROM base;
CREATE FUNCTION is_good(n integer) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN n > 0;
CREATE FUNCTION default_n() RETURNS integer LANGUAGE sql STABLE RETURN 7;
CREATE FUNCTION folded(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN lower(t); END';
REVOKE ALL ON FUNCTION is_good, default_n, folded FROM PUBLIC;
CREATE TABLE checked (n integer DEFAULT default_n() CHECK (is_good(n)), t text DEFAULT '');
CREATE INDEX ON checked (folded(t));
CREATE TABLE allowed (id integer);
CREATE TABLE guarded (id integer);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY added ON guarded FOR INSERT WITH CHECK (id IN (SELECT id FROM allowed));
INSERT INTO allowed VALUES (1);
INSERT INTO base VALUES (1, 1);
"""
WRITES = {
    "serial": ("INSERT INTO log (what) VALUES (:a)", {"INSERT ON public.log", "USAGE ON SEQUENCE public.log_id_seq"}),
    "identity": ("INSERT INTO numbered DEFAULT VALUES", {"INSERT ON public.numbered"}),
    "upsert": ("INSERT INTO counter (name) VALUES (:a) ON CONFLICT (name) DO UPDATE SET n = counter.n + 1 RETURNING n",
               {"INSERT ON public.counter", "SELECT ON public.counter", "UPDATE ON public.counter"}),
    "blind": ("UPDATE target SET n = 1", {"UPDATE ON public.target"}),
    "moving": ("WITH x AS (DELETE FROM source RETURNING id) UPDATE target SET n = 1 FROM x WHERE target.id = x.id",
              {"DELETE ON public.source", "SELECT ON public.source", "SELECT ON public.target", "UPDATE ON public.target"}),
    "locking": ("SELECT id FROM queue FOR UPDATE SKIP LOCKED", {"SELECT ON public.queue", "UPDATE ON public.queue"}),
    "view": ("UPDATE over_base SET n = 2 WHERE id = 1", {"SELECT ON public.over_base", "UPDATE ON public.over_base"}),
    "checked": ("INSERT INTO checked DEFAULT VALUES", {"INSERT ON public.checked", "EXECUTE ON FUNCTION public.is_good(n integer)",
                                                       "EXECUTE ON FUNCTION public.default_n()", "EXECUTE ON FUNCTION public.folded(t text)"}),
    "policy": ("INSERT INTO guarded VALUES (1)", {"INSERT ON public.guarded", "SELECT ON public.allowed"}),
    "called": ("SELECT nextval('untouched_id_seq')", {"USAGE ON SEQUENCE public.untouched_id_seq"}),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_a_write_needs_it_can_do_with_that(cluster, empty_database, role, name):
    db, owner = empty_database, cluster.dsn(empty_database)
    cluster.sql(db, WRITTEN)
    close_public(cluster, db)
    statement, needs = WRITES[name]
    declared = "-- @body a text\n" * (":a" in statement) + "-- @returns none\n"
    server = Server(cluster, db, token=True, endpoints={"w.sql": f"-- @route POST /api/w\n{declared}{statement}"})
    install(server, owner)
    text = printed(server, owner)
    granted = set(re.findall(r"^GRANT ((?!.* ON (?:SCHEMA |DATABASE |(?:FUNCTION )?provost\.)).*) TO least_privileged;$", text, re.M))
    assert granted == needs
    cluster.sql(db, text)
    server.write_config({"database": {"url": role(db)}})
    done = provost(server, "check")
    assert done.returncode == 0, done
    with contextlib.closing(psycopg2.connect(role(db))) as connection, connection.cursor() as cursor:
        cursor.execute(statement.replace(":a", "'a'"))
        connection.commit()


def test_an_endpoint_that_cannot_be_served_is_an_error_with_its_place(cluster, empty_database):
    server = Server(cluster, empty_database, endpoints={
        "a.sql": "-- @route GET /api/a\nSELECT id FROM nowhere", "b.sql": "-- @route GET /api/b\nSELECT nothing"})
    install(server, cluster.dsn(empty_database))
    done = provost(server, "grants", "print", url=cluster.dsn(empty_database))
    assert done.returncode == 1 and done.stdout == ""
    assert re.search(r"a\.sql:2: .*nowhere", done.stderr) and re.search(r"b\.sql:2: .*nothing", done.stderr)


def test_the_schema_must_be_there(cluster, empty_database):
    server = Server(cluster, empty_database, endpoints={"a.sql": "-- @route GET /api/a\nSELECT 1 AS a"})
    done = provost(server, "grants", "print", url=cluster.dsn(empty_database))
    assert done.returncode == 1 and done.stdout == "" and "provost schema install" in done.stderr


def test_nothing_is_left_in_the_database(cluster, empty_database):
    db = empty_database
    server = Server(cluster, db, endpoints={"a.sql": "-- @route GET /api/a\nSELECT 1 AS a"})
    install(server, cluster.dsn(db))
    before = cluster.sql(db, "SELECT count(*) FROM pg_proc")
    printed(server, cluster.dsn(db))
    assert cluster.sql(db, "SELECT count(*) FROM pg_proc") == before
    assert cluster.sql("postgres", "SELECT 1 FROM pg_roles WHERE rolname = %s", ROLE) == []


def test_names_that_need_quotes(cluster, empty_database):
    db = empty_database
    cluster.sql(db, 'CREATE SCHEMA "Odd ""S"; CREATE TABLE "Odd ""S"."a.b" (id integer)')
    server = Server(cluster, db, endpoints={"a.sql": '-- @route GET /api/a\nSELECT id FROM "Odd ""S"."a.b"'})
    install(server, cluster.dsn(db))
    assert 'GRANT SELECT ON "Odd ""S"."a.b" TO "my ""role";' in printed(server, cluster.dsn(db), 'my "role')

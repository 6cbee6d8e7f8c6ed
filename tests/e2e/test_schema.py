"""Provost's own schema, and API keys: `provost schema` and `provost key`."""
import contextlib
import hashlib
import os
import re
import subprocess

import psycopg2
import pytest

from harness import BINARY, Server, patience, statements, wait_until

GOOD = {"good.sql": "-- @route GET /api/good\nSELECT json_build_object('a', 1)"}
KEY = re.compile(r"pv_([a-z2-7]{12})_[0-9A-Za-z]{43}\n")


def provost(*words, url=None, env=None, **options):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PROVOST_")) and k != "DATABASE_URL"}
    if url:
        environment["PROVOST_DATABASE_URL"] = url
    return subprocess.run([BINARY, *words], text=True, capture_output=True, timeout=patience(30),
                          env={**environment, **(env or {})}, **options)


def done(*words, **options):
    result = provost(*words, **options)
    assert result.returncode == 0 and result.stderr == "", result
    return result.stdout


def refused(pattern, *words, status=1, **options):
    result = provost(*words, **options)
    assert result.returncode == status and result.stdout == "" and re.search(pattern, result.stderr), result


@pytest.fixture
def url(cluster, empty_database):
    return cluster.dsn(empty_database)


@pytest.fixture
def installed(url):
    done("schema", "install", url=url)
    return url


# ---- the schema ----------------------------------------------------------------------------------

def test_install_twice(cluster, empty_database, url):
    assert done("schema", "install", url=url) == "the schema `provost` is installed, version 3\n"
    cluster.sql(empty_database, "INSERT INTO provost.api_key (id, digest, subject, roles)"
                                " VALUES ('aaaaaaaaaaaa', sha256('x'), 'me', '{admin}')")
    assert done("schema", "install", url=url) == "the schema `provost` is up to date, version 3\n"
    assert cluster.sql(empty_database, "SELECT count(*) FROM provost.api_key") == [(1,)]


def test_an_earlier_version_is_brought_up_to_date_with_what_is_in_it(cluster, empty_database, installed):
    cluster.sql(empty_database, "INSERT INTO provost.api_key (id, digest, subject, roles)"
                                " VALUES ('aaaaaaaaaaaa', sha256('x'), 'me', '{admin}')")
    cluster.sql(empty_database, "DROP TABLE provost.revocation; DROP FUNCTION provost.fail;"
                                " COMMENT ON SCHEMA provost IS 'Provost, version 0'")
    assert done("schema", "install", url=installed) == "the schema `provost` is upgraded from version 0 to 3\n"
    assert cluster.sql(empty_database, "SELECT id, to_regclass('provost.revocation')::text,"
                                       " to_regproc('provost.fail')::text FROM provost.api_key") \
        == [("aaaaaaaaaaaa", "provost.revocation", "provost.fail")]


@pytest.mark.parametrize("change, pattern", [
    ("COMMENT ON SCHEMA provost IS 'Provost, version 99'", "of version 99, and this Provost knows none beyond 3"),
    ("COMMENT ON SCHEMA provost IS NULL", "that Provost did not make"),
    ("COMMENT ON SCHEMA provost IS 'Provost, version 1x'", "that Provost did not make"),
])
def test_what_is_somebody_elses_is_left_alone(cluster, empty_database, installed, change, pattern):
    cluster.sql(empty_database, change)
    cluster.sql(empty_database, "DROP TABLE provost.revocation")
    refused(pattern, "schema", "install", url=installed)
    assert cluster.sql(empty_database, "SELECT to_regclass('provost.revocation')") == [(None,)]


def test_an_empty_schema_is_filled(cluster, empty_database, url):
    cluster.sql(empty_database, "CREATE SCHEMA provost")
    assert "is installed" in done("schema", "install", url=url)


def test_a_failure_leaves_nothing_behind(cluster, empty_database, url):
    cluster.sql(empty_database, "CREATE FUNCTION spoil() RETURNS event_trigger LANGUAGE plpgsql AS"
                                " $$ BEGIN IF tg_tag = 'COMMENT' THEN RAISE 'spoiled'; END IF; END $$;"
                                " CREATE EVENT TRIGGER spoil ON ddl_command_end EXECUTE FUNCTION spoil()")
    refused("cannot be installed: spoiled", "schema", "install", url=url)
    assert cluster.sql(empty_database, "SELECT to_regnamespace('provost')") == [(None,)]


def test_installations_at_once(cluster, empty_database, url):
    env = {"PATH": os.environ["PATH"], "PROVOST_DATABASE_URL": url}
    started = [subprocess.Popen([BINARY, "schema", "install"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
               for _ in range(6)]
    said = sorted(p.communicate(timeout=patience(30))[0] for p in started)
    assert [p.returncode for p in started] == [0] * 6, said
    assert sum("is installed" in text for text in said) == 1, said


def test_who_is_not_the_owner_is_told_so(cluster, empty_database):
    refused("permission denied for database .*run this as the owner", "schema", "install", url=cluster.app_dsn(empty_database))


def test_print_is_what_is_installed(cluster, empty_database):
    cluster.sql(empty_database, done("schema", "print"))
    assert cluster.sql(empty_database, "SELECT to_regclass('provost.api_key')::text") == [("provost.api_key",)]
    assert "is up to date, version 3" in done("schema", "install", url=cluster.dsn(empty_database))


def test_nobody_but_the_owner_has_rights_on_the_tables(cluster, empty_database, installed):
    with contextlib.closing(psycopg2.connect(cluster.app_dsn(empty_database))) as connection:
        connection.autocommit = True
        for table in ("api_key", "revocation"):
            for statement in (f"SELECT FROM provost.{table}", f"DELETE FROM provost.{table}"):
                with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(statement)


def rights(cluster, db):
    """Who but the owner has rights on the schema and its tables."""
    return cluster.sql(db, "SELECT name, grantee::regrole::text, string_agg(privilege_type, ',' ORDER BY privilege_type)"
                           " FROM (SELECT relname, relacl, relowner FROM pg_class WHERE relnamespace = 'provost'::regnamespace"
                           " UNION ALL SELECT nspname, nspacl, nspowner FROM pg_namespace WHERE nspname = 'provost') o(name, acl, owner),"
                           " aclexplode(acl) WHERE grantee <> owner GROUP BY 1, 2 ORDER BY 1, 2")


@pytest.mark.parametrize("how", ["install", "print"])
@pytest.mark.parametrize("to", ["provost_app", "PUBLIC"])
def test_default_privileges_open_nothing(cluster, empty_database, url, how, to):
    cluster.sql(empty_database, f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {to};"
                                f" ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO {to}")
    if how == "install":
        done("schema", "install", url=url)
    else:
        cluster.sql(empty_database, done("schema", "print"))
    assert rights(cluster, empty_database) == [("provost", "-", "USAGE")]


def test_a_table_made_anew_has_no_default_privileges_and_the_others_keep_their_grants(cluster, empty_database, installed):
    cluster.sql(empty_database, "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO provost_app; DROP TABLE provost.revocation;"
                                " GRANT SELECT ON provost.api_key TO provost_app")
    done("schema", "install", url=installed)
    assert rights(cluster, empty_database) == [("api_key", "provost_app", "SELECT"), ("provost", "-", "USAGE")]


@pytest.mark.parametrize("granted_rights, to, named", [
    ("ALL", "provost_app", "DELETE, INSERT, TRIGGER, TRUNCATE, UPDATE"),
    ("INSERT", "PUBLIC", "INSERT"),
    ("UPDATE (digest)", "provost_app", "UPDATE"),
])
def test_who_may_write_keys_is_named_until_it_is_revoked(cluster, empty_database, installed, granted_rights, to, named):
    cluster.sql(empty_database, f"GRANT {granted_rights} ON provost.api_key TO {to}")
    result = provost("schema", "install", url=installed)
    revoke = f"REVOKE {named} ON provost.api_key FROM {to}"
    assert result.returncode == 0 and f"warning: {to} has {named} on" in result.stderr and result.stderr.endswith(f"{revoke}\n"), result
    cluster.sql(empty_database, revoke)
    done("schema", "install", url=installed)


def test_a_schema_of_another_role_is_not_adopted(cluster, empty_database, url):
    cluster.sql(empty_database, "CREATE SCHEMA provost AUTHORIZATION provost_app")
    refused("belongs to the role `provost_app`.*ALTER SCHEMA provost OWNER TO provost\n", "schema", "install", url=url)
    assert cluster.sql(empty_database, "SELECT to_regclass('provost.api_key')") == [(None,)]
    cluster.sql(empty_database, "ALTER SCHEMA provost OWNER TO provost")
    done("schema", "install", url=url)


def test_a_role_that_is_no_superuser_installs_in_its_own_schema(cluster, empty_database):
    cluster.sql(empty_database, "CREATE SCHEMA provost AUTHORIZATION provost_app")
    for state in ("is installed", "is up to date"):
        assert state in done("schema", "install", url=cluster.app_dsn(empty_database))


@pytest.mark.parametrize("to", ["provost_app", "PUBLIC"])
@pytest.mark.parametrize("before", ["empty", "installed"])
def test_a_schema_where_others_may_create_is_refused(cluster, empty_database, url, before, to):
    if before == "installed":
        done("schema", "install", url=url)
    cluster.sql(empty_database, f"CREATE SCHEMA IF NOT EXISTS provost; GRANT CREATE ON SCHEMA provost TO {to}")
    refused(f"first run: REVOKE CREATE ON SCHEMA provost FROM {to}\n", "schema", "install", url=url)
    cluster.sql(empty_database, f"REVOKE CREATE ON SCHEMA provost FROM {to}")
    done("schema", "install", url=url)


@pytest.mark.parametrize("kind, name", [("TABLE", "api_key"), ("FUNCTION", "fail")])
def test_what_another_role_owns_in_it_is_refused(cluster, empty_database, installed, kind, name):
    cluster.sql(empty_database, "GRANT CREATE ON SCHEMA provost TO provost_app;"
                                f" ALTER {kind} provost.{name} OWNER TO provost_app; REVOKE CREATE ON SCHEMA provost FROM provost_app")
    refused(f"`provost.{name}` belongs to the role `provost_app`", "schema", "install", url=installed)


@pytest.mark.parametrize("create", [
    "DOMAIN provost.d AS text", "TYPE provost.e AS ENUM ('a')", 'COLLATION provost.c FROM "C"',
    "OPERATOR provost.=== (FUNCTION = int4eq, LEFTARG = integer, RIGHTARG = integer)",
])
def test_a_schema_with_something_of_any_kind_in_it_is_left_alone(cluster, empty_database, url, create):
    cluster.sql(empty_database, f"CREATE SCHEMA provost; CREATE {create}")
    refused("that Provost did not make", "schema", "install", url=url)


@pytest.mark.parametrize("status, message, sqlstate, said", [
    (404, "'no such course'", "PT404", "no such course"),
    (400, "''", "PT400", ""),
    (599, "'%s % $1 ''quoted'''", "PT599", "%s % $1 'quoted'"),
    (400, "NULL", "PT400", ""),
    (399, "'x'", "XX000", "399 is not a status"),
    (600, "'x'", "XX000", "600 is not a status"),
    ("NULL", "'x'", "XX000", "NULL is not a status"),
])
def test_fail(cluster, empty_database, installed, status, message, sqlstate, said):
    with contextlib.closing(psycopg2.connect(cluster.app_dsn(empty_database))) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.Error) as failure:
            cursor.execute(f"SELECT provost.fail({status}, {message})")
        assert failure.value.pgcode == sqlstate and said in failure.value.diag.message_primary


def test_fail_reaches_the_caller(cluster, empty_database, installed):
    endpoints = {"x.sql": "-- @route GET /api/x\n-- @query n integer\nSELECT provost.fail(:n, 'as told') AS a"}
    with Server(cluster, empty_database, endpoints=endpoints) as server:
        for status in (409, 422, 503):
            answer = server.get(f"/api/x?n={status}")
            assert answer.status == status and answer.json()["detail"] == "as told"


# ---- keys ----------------------------------------------------------------------------------------

def new_key(url, *more, subject="me", roles="admin"):
    result = provost("key", "new", "--subject", subject, "--roles", roles, *more, url=url)
    assert result.returncode == 0, result
    match = KEY.fullmatch(result.stdout)
    assert match, "stdout has the key and nothing else"
    assert match[0].strip() not in result.stderr and match[1] in result.stderr
    return match[0].strip(), match[1]


def test_only_a_digest_of_a_key_is_stored(cluster, empty_database, installed):
    key, key_id = new_key(installed, "--expires", "90d", "--note", "for 'tests'", roles="Admin, reader")
    [(digest, subject, roles, days, revoked, note)] = cluster.sql(
        empty_database, "SELECT encode(digest, 'hex'), subject, roles, expires_at - created_at = '90 days', revoked_at, note"
                        " FROM provost.api_key WHERE id = %s", key_id)
    assert digest == hashlib.sha256(key.encode()).hexdigest()
    assert (subject, roles, days, revoked, note) == ("me", ["admin", "reader"], True, None, "for 'tests'")


def test_list_and_revoke(cluster, empty_database, installed):
    (one, one_id), (_, two_id), (_, old_id) = (new_key(installed, subject=s) for s in ("zoë", "two", "old"))
    cluster.sql(empty_database, "UPDATE provost.api_key SET expires_at = now() - interval '1 s' WHERE id = %s", old_id)
    assert done("key", "revoke", one_id, url=installed) == f"the key {one_id} is revoked; running servers refuse it within a few seconds\n"
    text = done("key", "list", url=installed)
    head, *rows = text.splitlines()
    assert head.split() == ["id", "subject", "roles", "created", "expires", "state", "note"]
    assert {row[:12]: row.split()[-1] for row in rows} == {one_id: "revoked", two_id: "active", old_id: "expired"}
    assert len({re.search(r"admin", row).start() for row in rows}) == 1, "columns stand below each other"
    assert one[16:] not in text and hashlib.sha256(one.encode()).hexdigest() not in text
    refused(f"no key of the id {one_id} is in force", "key", "revoke", one_id, url=installed)
    refused("no key of the id aaaaaaaaaaaa", "key", "revoke", "aaaaaaaaaaaa", url=installed)


def test_a_whole_key_is_not_repeated(installed):
    key, _ = new_key(installed)
    result = provost("key", "revoke", key, url=installed)
    assert result.returncode == 2 and "never the key itself" in result.stderr and key not in result.stderr


@pytest.mark.parametrize("words, status, pattern", [
    (["key", "new"], 2, "--subject NAME --roles"),
    (["key", "new", "--subject", "a"], 2, "--subject NAME --roles"),
    (["key", "new", "--subject", "a", "--roles", ", "], 2, "without a role"),
    (["key", "new", "--subject", "", "--roles", "a"], 1, "a subject that is not a text"),
    (["key", "new", "--subject", "a\nb", "--roles", "a"], 1, "a subject that is not a text"),
    (["key", "new", "--subject", "a", "--roles", "a" * 65], 1, "a role that is not a name"),
    (["key", "new", "--subject", "a", "--roles", "a", "--expires", "90"], 2, "such as 90d"),
    (["key", "new", "--subject", "a", "--roles", "a", "--expires", "0"], 2, "such as 90d"),
    (["key", "new", "--subject", "a", "--roles", "a", "--note", "x" * 1001], 2, "more than 1000"),
    (["key", "revoke"], 2, "give the id"),
    (["key", "list", "more"], 2, "takes no further word"),
    (["key"], 2, "there is no command"),
    (["key", "old"], 2, "there is no command"),
    (["schema"], 2, r"there is no command \"schema\" \(but `schema install`, `schema print`\)"),
])
def test_mistakes_are_explained_and_change_nothing(cluster, empty_database, installed, words, status, pattern):
    refused(pattern, *words, status=status, url=installed)
    assert cluster.sql(empty_database, "SELECT count(*) FROM provost.api_key") == [(0,)]


def test_keys_need_the_schema(url):
    for words in (["key", "new", "--subject", "a", "--roles", "b"], ["key", "list"], ["key", "revoke", "aaaaaaaaaaaa"]):
        refused("run `provost schema install` first", *words, url=url)


def test_the_database_by_option_comes_first_and_its_password_is_not_shown(cluster, empty_database, installed):
    new_key("host=/nowhere", "--database", installed)
    wrong = re.sub("://([^:]+):[^@]*@", r"://\1:s3cr3t-word@", installed)
    result = provost("key", "list", "--database", wrong)
    assert result.returncode == 1 and "cannot connect" in result.stderr and "s3cr3t" not in result.stderr


def test_the_url_is_not_among_the_arguments_of_a_command_that_runs(cluster, empty_database, installed):
    with contextlib.closing(psycopg2.connect(installed)) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK provost.api_key")
        command = subprocess.Popen([BINARY, "key", "list", "--database", installed], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: any("api_key k" in b["query"] for b in cluster.backends(empty_database)), 10)
            words = open(f"/proc/{command.pid}/cmdline").read().split("\0")
        finally:
            holder.rollback()
            assert command.wait(patience(10)) == 0
    assert words[1:3] == ["key", "list"] and installed not in words and set(words[4]) == {"x"}


def test_names_of_postgresql_that_others_have_made_are_not_called(cluster, empty_database, url):
    cluster.sql(empty_database, "GRANT CREATE ON SCHEMA public TO provost_app")
    with contextlib.closing(psycopg2.connect(cluster.app_dsn(empty_database))) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE FUNCTION public.octet_length(x text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$;"
                       "CREATE FUNCTION public.to_regnamespace(x unknown) RETURNS oid LANGUAGE plpgsql AS $$ BEGIN RAISE 'hijacked'; END $$"
                       .replace("x unknown", "x varchar"))
    done("schema", "install", url=url)
    new_key(url)


# ---- a server that runs --------------------------------------------------------------------------

def loaded(server, since=0):
    """What the server last said it has read: keys and revocations."""
    found = re.findall(r"API keys and revocations were read\" api_keys=(\d+) revocations=(\d+)", server.log()[since:])
    return tuple(map(int, found[-1])) if found else None


@pytest.fixture
def granted(cluster, empty_database, installed):
    cluster.sql(empty_database, "GRANT SELECT ON provost.api_key TO provost_app;"
                                " GRANT SELECT, INSERT, UPDATE, DELETE ON provost.revocation TO provost_app")
    return installed


def test_keys_are_there_when_it_is_ready_and_followed_while_it_runs(cluster, empty_database, granted):
    new_key(granted)
    with Server(cluster, empty_database, endpoints=GOOD, token=True, wait="/readyz") as server:
        server.wait_log("msg=ready")
        assert loaded(server) == (1, 0) and server.log().index("api_keys=1") < server.log().index("msg=ready")
        new_key(granted)
        cluster.sql(empty_database, "INSERT INTO provost.revocation (kind, what, issued_before) VALUES ('subject', 'him', 'infinity')")
        wait_until(lambda: loaded(server) == (2, 1), 10, "what is new was read by itself")
        since = len(server.log())
        cluster.sql(empty_database, "DELETE FROM provost.revocation")
        server.reload()
        wait_until(lambda: loaded(server, since) == (2, 0), 4, "a reload reads at once")


def test_a_row_that_is_no_key_keeps_no_other_from_being_read(cluster, empty_database, granted):
    new_key(granted)
    cluster.sql(empty_database, "INSERT INTO provost.api_key (id, digest, subject, roles) VALUES ('aaaaaaaaaaaa', sha256('x'), 'me', '{\"a,b c\"}')")
    with Server(cluster, empty_database, endpoints=GOOD, token=True, allow_errors="left out: API key `aaaaaaaaaaaa`") as server:
        wait_until(lambda: loaded(server) == (1, 0))
        server.wait_log("level=error [^\n]*left out: API key `aaaaaaaaaaaa`")


def test_what_was_read_stays_while_the_database_is_away(cluster, empty_database, granted):
    with Server(cluster, empty_database, endpoints=GOOD, token=True, allow_errors="cannot be reached") as server:
        cluster.stop("fast")    # immediate may lose what was committed a moment ago: commits are asynchronous here
        try:
            server.wait_log("level=warn [^\n]*stay as they are", 10)
        finally:
            cluster.start()
        cluster.wait_ready()
        new_key(granted)
        wait_until(lambda: loaded(server) == (1, 0), 15, "keys are read again")
        assert len(re.findall("stay as they are", server.log())) == 1, "told once"


@pytest.mark.parametrize("case, pattern", [("no schema", "provost schema install"), ("no rights", "provost grants print")])
def test_what_is_missing_is_said(cluster, empty_database, url, case, pattern):
    if case == "no rights":
        done("schema", "install", url=url)
    wait = "/livez" if case == "no rights" else "/readyz"    # who was revoked must be known
    with Server(cluster, empty_database, endpoints=GOOD, token=True, wait=wait, triggers=False) as server:
        server.wait_log(f"level=warn [^\n]*{pattern}")
        check = provost("check", "--config", server.ini)
        assert check.returncode == (1 if case == "no rights" else 0) and re.search(pattern, check.stderr), check
        done("schema", "install", url=url)
        cluster.sql(empty_database, "GRANT SELECT ON provost.api_key, provost.revocation TO provost_app")
        wait_until(lambda: loaded(server) == (0, 0), 10, "it is found by itself")


def test_mode_none_reads_no_keys(cluster, empty_database, url, granted):
    with Server(cluster, empty_database, endpoints=GOOD, config={"database": {"pool_min": 0}}) as server:
        assert "API keys" not in server.log()
        assert not [query for query in statements(url, own=True) if "FROM provost.api_key k" in query]
        with Server(cluster, empty_database, endpoints=GOOD, token=True):
            assert [query for query in statements(url, own=True) if "FROM provost.api_key k" in query]


def test_revocations_whose_time_has_passed_are_dropped(cluster, empty_database, granted):
    _, key_id = new_key(granted)
    cluster.sql(empty_database, "INSERT INTO provost.revocation (kind, what, until) VALUES"
                                " ('token', 'old', now() - interval '2 hours'), ('token', 'new', now()), ('token', 'kept', NULL),"
                                " ('token', %s, now() - interval '2 hours')", key_id)
    with Server(cluster, empty_database, endpoints=GOOD, token=True):
        def what():
            return {row[0] for row in cluster.sql(empty_database, "SELECT what FROM provost.revocation")}
        wait_until(lambda: what() == {"new", "kept", key_id}, 10, "what is of no use any more is gone")


# ---- secrets -------------------------------------------------------------------------------------

def test_secrets_show_nowhere(cluster, empty_database, granted, tmp_path):
    filed = "filed-secret-" + "f" * 32
    given = {"PROVOST_AUTH_JWT_SECRET": "given-jwt-secret-" + "j" * 32, "PROVOST_AUTH_NEXTAUTH_SECRET": "given-nextauth-secret-1",
             "NEXTAUTH_SECRET": "plain-nextauth-secret-2"}
    (tmp_path / "secret").write_text(filed + "\n")
    (tmp_path / "secret").chmod(0o600)
    config = {"auth": {"algorithms": "HS256", "issuer": "*", "audience": "*", "jwt_secret_file": tmp_path / "secret"},
              "log": {"level": "debug"}}
    key, _ = new_key(granted)
    with Server(cluster, empty_database, endpoints=GOOD, config=config, env=given, token=True) as server:
        server.get("/api/good", {"Authorization": f"Bearer {key}"})
        since = len(server.log())
        server.write_config({"auth": {"leeway": "20s"}})
        server.reload()
        server.wait_log("reload: applied", since=since)
        shown = "".join(open(f"/proc/{server.pid}/{name}", "rb").read().decode(errors="replace") for name in ("environ", "cmdline"))
        shown += server.log() + provost("check", "--config", server.ini, env=given).stderr
        for secret in (filed, key, *given.values()):
            assert secret not in shown
        assert "PROVOST_AUTH_JWT_SECRET" in shown, "the variables are there, without their values"
        # Of a process that is not dumpable these files are root's.
        assert os.stat(f"/proc/{server.pid}/environ").st_uid == 0


@pytest.mark.parametrize("config, env, pattern", [
    ({"algorithms": "HS256", "issuer": "*", "audience": "*"}, {}, "no key for HS256"),
    ({"algorithms": "HS256", "issuer": "*", "audience": "*", "jwt_secret_file": "/nowhere/x"}, {}, "/nowhere/x does not exist"),
    ({"algorithms": "HS256", "issuer": "*", "audience": "*"}, {"PROVOST_AUTH_JWT_SECRET": "sh0rt-secret"}, "too short .*openssl rand"),
    ({"algorithms": "HS256"}, {"PROVOST_AUTH_JWT_SECRET": "s" * 40}, r"issuer: must be .*\n.*audience: must be"),
    ({}, {"PROVOST_AUTH_JWT_SECRET": "s3cret" * 7}, "HS256 is not among"),
    ({"jwks_file": "/nowhere/jwks"}, {}, "list those that your tokens are signed with"),
    ({"nextauth_secret_file": "/nowhere/n"}, {}, "/nowhere/n does not exist"),
    ({}, {"NEXTAUTH_SECRET": "sh0rt"}, "too short"),
])
def test_a_missing_or_wrong_secret_stops_the_start(cluster, empty_database, config, env, pattern):
    server = Server(cluster, empty_database, endpoints=GOOD, config={"auth": config}, env=env, token=True)
    for command in ("check", "serve"):
        result = provost(command, "--config", server.ini, env=env)
        assert result.returncode == 1 and re.search(pattern, result.stderr), result
        assert not any(value in result.stderr for value in env.values())


def test_a_reload_with_a_missing_secret_changes_nothing(cluster, empty_database, granted):
    with Server(cluster, empty_database, endpoints=GOOD, token=True, allow_errors="reload: ") as server:
        server.write_config({"auth": {"nextauth_secret_file": "/nowhere/n"}, "http": {"max_url": "1KiB"}})
        server.reload()
        server.wait_log("reload: refused[^\n]*/nowhere/n does not exist")
        server.wait_log("nothing was changed")
        assert server.get("/livez?" + "x" * 2000).status == 200


def test_a_secret_that_changes_is_read_anew(cluster, empty_database, granted, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a" * 40)
    secret.chmod(0o600)
    with Server(cluster, empty_database, endpoints=GOOD, token=True, config={"auth": {"nextauth_secret_file": secret}},
                allow_errors="files that have changed are refused") as server:
        secret.write_text("short")
        server.wait_log("level=error [^\n]*files that have changed are refused[^\n]*too short", 10)
        secret.write_text("b" * 40)
        server.wait_log("keys and secrets were read anew", 10)

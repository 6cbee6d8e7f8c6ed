"""provost.publish, as the database has it: what it accepts, what it sends and keeps, and who may call it."""
import contextlib
import hashlib
import hmac
import json
import re
import subprocess

import psycopg2
import pytest

import callers as c
from harness import BINARY, Server, patience

CALL = "SELECT provost.publish(%s, %s, %s::jsonb)"
PAYLOAD_MAX = 7999


def install(cluster, db):
    subprocess.run([BINARY, "schema", "install"], check=True, capture_output=True, timeout=patience(30),
                   env={"PROVOST_DATABASE_URL": cluster.dsn(db)})


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("publish_sql", empty_template)
    install(cluster, "publish_sql")
    yield "publish_sql"
    cluster.drop("publish_sql")


@pytest.fixture
def session(cluster, db):
    """One that listens; publish() returns the id and what was sent."""
    connection = psycopg2.connect(cluster.dsn(db))
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("LISTEN provost")

    class Session:
        @staticmethod
        def run(text, *values):
            cursor.execute(text, values or None)
            return cursor.fetchall()

        @staticmethod
        def heard():
            connection.poll()
            found, connection.notifies[:] = [n.payload for n in connection.notifies], []
            return found

        def publish(self, *values):
            (number,), = self.run(CALL, *values)
            payload, = self.heard()
            return number, payload

        def outbox(self, number):
            return self.run("SELECT room, name, data, durable FROM provost.outbox WHERE id = %s", number)
    yield Session()
    connection.close()


def key(session):
    """The key's blocks, and so what is hashed before and behind the text."""
    (ipad, opad), = session.run("SELECT ipad, opad FROM provost.event_key")
    return bytes(ipad), bytes(opad)


def checked(session, payload):
    """The object, of a payload whose digest is right."""
    word, digest, text = payload.split(" ", 2)
    ipad, opad = key(session)
    assert word == "event"
    assert digest == hashlib.sha256(opad + hashlib.sha256(ipad + text.encode()).digest()).hexdigest()
    return json.loads(text)


# ---- what is sent and kept -----------------------------------------------------------------------

@pytest.mark.parametrize("room, kept", [
    ("news", "news"), ("A-z_0.9", "A-z_0.9"), ("x" * 64, "x" * 64), ("role:ADMIN", "role:admin"), ("role:Ä B", "role:Ä b"),
    ("role:" + "x" * 64, "role:" + "x" * 64),
])
def test_to_a_room(session, room, kept):
    number, payload = session.publish(room, "a.b:c-d_E", '{"n": [1, 2.50, "ä\\u0001\\"", null]}')
    assert checked(session, payload) == {"id": number, "room": kept, "name": "a.b:c-d_E", "data": {"n": [1, 2.5, 'ä\x01"', None]}}
    assert session.outbox(number) == []


@pytest.mark.parametrize("room", ["user:a", 'user:ä "b\\ :', "user:" + "x" * 255, "user:Admin"])
def test_to_a_user_is_kept(session, room):
    number, payload = session.publish(room, "n", "null")
    assert checked(session, payload) == {"id": number, "room": room, "name": "n", "data": None}
    assert session.outbox(number) == [(room, "n", None, True)]


@pytest.mark.parametrize("room", ["news", "user:a"])
@pytest.mark.parametrize("letter", ["x", "ä"])
def test_what_does_not_fit_is_kept_and_sent_by_reference(session, room, letter):
    """Bytes count; the limit is met exactly."""
    def text(n):
        return json.dumps(letter * n, ensure_ascii=False)
    _, small = session.publish(room, "n", text(1))
    most = 1 + (PAYLOAD_MAX - len(small.encode())) // len(letter.encode())
    number, payload = session.publish(room, "n", text(most))
    assert checked(session, payload)["data"] == letter * most
    assert PAYLOAD_MAX - 8 < len(payload.encode()) <= PAYLOAD_MAX
    assert len(session.outbox(number)) == (room == "user:a")
    number, payload = session.publish(room, "n", text(most + 1))
    assert checked(session, payload) == {"id": number, "room": room, "name": "n", "ref": True}
    assert session.outbox(number) == [(room, "n", letter * (most + 1), room == "user:a")]


def test_up_to_a_megabyte(session):
    number, payload = session.publish("news", "n", json.dumps("x" * (2**20 - 2)))
    assert checked(session, payload)["ref"] and len(session.outbox(number)) == 1


def test_ids_rise_and_equal_ones_are_all_sent(session):
    session.run("SELECT provost.publish('news', 'n', '1') FROM generate_series(1, 50)")
    numbers = [checked(session, payload)["id"] for payload in session.heard()]
    assert len(numbers) == 50 and numbers == sorted(set(numbers))


def test_rolled_back_nothing_was_said(cluster, db, session):
    other = psycopg2.connect(cluster.dsn(db))
    with other.cursor() as cursor:
        cursor.execute(CALL, ("user:a", "n", '"rolled back"'))
        number, = cursor.fetchone()
    other.rollback()
    other.close()
    session.publish("news", "n", "1")       # and nothing before it
    assert session.outbox(number) == []


# ---- what is refused -----------------------------------------------------------------------------

@pytest.mark.parametrize("values, sqlstate, said", [
    ((None, "n", "1"), "22004", "room is NULL"),
    (("news", None, "1"), "22004", "name is NULL"),
    (("news", "n", None), "22004", "data is NULL"),
    *(((room, "n", "1"), "22023", "room must be") for room in (
        "", " ", ":", "a b", "ä", "x" * 65, "news\n", "user:", "role:", "user:" + "x" * 256, "user:" + "ä" * 128, "role:" + "x" * 65,
        "user:a\x01", "user:a\x7f", "USER:a", "nobody:x", "a:b")),
    (("table:course", "n", "1"), "22023", "room must not be a table"),
    *((("news", name, "1"), "22023", "name must be") for name in ("", "a b", "ä", "x" * 65, "n\n", 'a"b')),
    (("news", "n", json.dumps("x" * (2**20 - 1))), "22023", "data is larger than 1048576 bytes"),
], ids=lambda value: repr(value)[:50])
def test_what_is_refused(session, values, sqlstate, said):
    with pytest.raises(psycopg2.Error) as failure:
        session.run(CALL, *values)
    assert failure.value.pgcode == sqlstate and said in failure.value.diag.message_primary
    assert failure.value.diag.message_primary.startswith("provost.publish: ")
    assert session.heard() == []


def test_without_a_key(cluster, empty_database):
    install(cluster, empty_database)
    cluster.sql(empty_database, "DELETE FROM provost.event_key")
    with pytest.raises(psycopg2.errors.InternalError_, match="provost schema install"):
        cluster.sql(empty_database, "SELECT provost.publish('news', 'n', '1')")
    install(cluster, empty_database)
    cluster.sql(empty_database, "SELECT provost.publish('news', 'n', '1')")


def test_in_a_session_that_only_reads(session):
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        session.run("BEGIN READ ONLY; SELECT provost.publish('news', 'n', '1')")
    session.run("ROLLBACK; SELECT 1")


# ---- the digest ----------------------------------------------------------------------------------

# RFC 4231, 4.2 to 4.8: key, data, HMAC-SHA-256 (of 4.6 the first 128 bits).
RFC_4231 = [
    ("0b" * 20, "4869205468657265", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    ("4a656665", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    ("aa" * 20, "dd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    ("0102030405060708090a0b0c0d0e0f10111213141516171819", "cd" * 50,
     "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
    ("0c" * 20, "546573742057697468205472756e636174696f6e", "a3b6167473100ee06e0c796c2955552b"),
    ("aa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First".hex(),
     "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
    ("aa" * 131, (b"This is a test using a larger than block-size key and a larger than block-size data. "
                  b"The key needs to be hashed before being used by the HMAC algorithm.").hex(),
     "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
]


@pytest.mark.parametrize("hmac_key, data, digest", RFC_4231)
def test_the_digest_is_hmac_sha256(session, hmac_key, data, digest):
    (found,), = session.run("SELECT provost.hmac_sha256(provost.hmac_pad(k, 54), provost.hmac_pad(k, 92), %s::bytea)"
                            " FROM decode(%s, 'hex') k", bytes.fromhex(data), hmac_key)
    assert found.startswith(digest)
    assert found == hmac.new(bytes.fromhex(hmac_key), bytes.fromhex(data), "sha256").hexdigest()


def test_each_installation_has_a_key_of_its_own_and_keeps_it(cluster, db, session, empty_database):
    install(cluster, empty_database)
    other = cluster.sql(empty_database, "SELECT ipad, opad FROM provost.event_key")
    mine = key(session)
    assert tuple(map(bytes, other[0])) != mine
    install(cluster, db)
    assert key(session) == mine
    assert bytes(a ^ 0x36 for a in mine[0]) == bytes(b ^ 0x5C for b in mine[1]), "one key in both"
    assert mine[0][32:] == b"\x36" * 32 and len(set(mine[0][:32])) > 8
    session.run("SELECT provost.renew_event_key()")
    assert key(session) != mine


# ---- who may -------------------------------------------------------------------------------------

FORBIDDEN = ["SELECT provost.publish('news', 'n', '1')", "SELECT ipad FROM provost.event_key", "SELECT count(*) FROM provost.event_key",
             "SELECT * FROM provost.outbox", "DELETE FROM provost.outbox", "INSERT INTO provost.outbox VALUES (1, 'user:a', 'n', '1', 1, true)",
             "SELECT nextval('provost.event_id')", "SELECT provost.renew_event_key()", "UPDATE provost.event_key SET ipad = opad"]


def refusals(cluster, db):
    """Of the statements above, as the server's role."""
    found = []
    with contextlib.closing(psycopg2.connect(cluster.app_dsn(db))) as connection:
        connection.autocommit = True
        for statement in FORBIDDEN:
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
            except psycopg2.errors.InsufficientPrivilege:
                found.append(statement)
    return found


@pytest.mark.parametrize("defaults", [False, True])
def test_nobody_may_by_default(cluster, empty_database, defaults):
    if defaults:
        cluster.sql(empty_database, "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO provost_app;"
                                    " ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO provost_app;"
                                    " ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO provost_app")
    install(cluster, empty_database)
    assert refusals(cluster, empty_database) == FORBIDDEN


def test_the_servers_role_may_what_it_needs(cluster, empty_database):
    server = Server(cluster, empty_database, {"one.sql": "-- @route GET /api/one\nSELECT 1 AS n"}, token=True)
    c.prepare(cluster, empty_database, server)
    assert refusals(cluster, empty_database) == [FORBIDDEN[5], FORBIDDEN[6], FORBIDDEN[7], FORBIDDEN[8]]
    install(cluster, empty_database)
    assert len(refusals(cluster, empty_database)) == 4, "what was granted stays"


# ---- upgrading -----------------------------------------------------------------------------------

def test_version_2_is_upgraded_in_place(cluster, empty_database):
    install(cluster, empty_database)
    cluster.sql(empty_database, "DROP FUNCTION provost.publish, provost.renew_event_key, provost.hmac_pad, provost.hmac_sha256;"
                                " DROP TABLE provost.outbox, provost.event_key; DROP SEQUENCE provost.event_id;"
                                " COMMENT ON SCHEMA provost IS 'Provost, version 2';"
                                " INSERT INTO provost.api_key (id, digest, subject, roles)"
                                " VALUES ('aaaaaaaaaaaa', sha256('x'), 'me', '{admin}');"
                                " INSERT INTO provost.revocation (kind, what) VALUES ('token', 'x')")
    done = subprocess.run([BINARY, "schema", "install"], capture_output=True, text=True, timeout=patience(30),
                          env={"PROVOST_DATABASE_URL": cluster.dsn(empty_database)})
    assert done.returncode == 0 and "upgraded from version 2 to 3" in done.stdout and not done.stderr, done
    assert cluster.sql(empty_database, "SELECT id FROM provost.api_key") == [("aaaaaaaaaaaa",)]
    assert cluster.sql(empty_database, "SELECT provost.publish('user:me', 'n', '1'), count(*) FROM provost.revocation") == [(1, 1)]
    install(cluster, empty_database)
    assert cluster.sql(empty_database, "SELECT id FROM provost.outbox") == [(1,)]


def test_a_sequence_made_anew_goes_on_behind_what_is_kept(cluster, empty_database):
    install(cluster, empty_database)
    cluster.sql(empty_database, "SELECT setval('provost.event_id', 41), provost.publish('user:me', 'n', '1'); DROP SEQUENCE provost.event_id")
    install(cluster, empty_database)
    assert cluster.sql(empty_database, "SELECT provost.publish('user:me', 'n', '1')") == [(43,)]


# ---- in endpoints --------------------------------------------------------------------------------

TABLE = "CREATE TABLE note (id integer PRIMARY KEY, owner text, text text)"
ENDPOINTS = {
    "write.sql": """-- @route POST /api/notes
-- @body id integer required
-- @body text text required
WITH made AS (INSERT INTO note VALUES (:id, 'me', :text) RETURNING *),
     told AS (SELECT provost.publish('user:' || owner, 'note', to_jsonb(made)) AS id FROM made)
SELECT json_build_object('id', made.id, 'event', told.id) FROM made, told
""",
    "say.sql": "-- @route POST /api/say\n-- @body room text\n-- @body name text\nSELECT json_build_object('id', provost.publish(:room, :name, '{}'))",
}


def test_a_writing_endpoint_may_publish(cluster, empty_database):
    cluster.sql(empty_database, TABLE)
    server = Server(cluster, empty_database, ENDPOINTS)
    c.prepare(cluster, empty_database, server)
    with server:        # as the least privileged role, which checks the endpoints, too
        answer = server.request("POST", "/api/notes", body={"id": 1, "text": "x"})
        assert answer.status == 201, answer
        assert cluster.sql(empty_database, "SELECT id, room, name, data FROM provost.outbox") == \
            [(answer.json()["event"], "user:me", "note", {"id": 1, "owner": "me", "text": "x"})]
        answer = server.request("POST", "/api/notes", body={"id": 1, "text": "again"})
        assert answer.status == 409
        assert cluster.sql(empty_database, "SELECT count(*) FROM provost.outbox") == [(1,)]
        for body in ({"name": "n"}, {"room": "table:note", "name": "n"}, {"room": "news", "name": "a b"}):
            assert server.request("POST", "/api/say", body=body).status == 422
        assert server.request("POST", "/api/say", body={"room": "news", "name": "n"}).status == 201


@pytest.mark.parametrize("statement", [
    "SELECT provost.publish('news', 'n', '1') AS id", "WITH p AS (SELECT provost.publish('news', 'n', '1') AS id) SELECT 1 AS n FROM p",
    "SELECT hidden() AS n",
])
def test_a_get_must_not_publish(cluster, empty_database, statement):
    server = Server(cluster, empty_database, {"x.sql": f"-- @route GET /api/x\n{statement}"}, owner=True)
    install(cluster, empty_database)
    cluster.sql(empty_database, "CREATE FUNCTION hidden() RETURNS bigint LANGUAGE sql RETURN provost.publish('news', 'n', '1')")
    done = server._command("check")
    assert done.returncode == 1 and re.search(r"x.sql:2.*a GET must not call provost.publish", done.stdout), done.stdout

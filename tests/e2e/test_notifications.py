"""Notifications: written, listed, and sent to those they are for; and what is said to all administrators."""
import pytest

import callers as c
from caching import is_hit
from harness import SCRATCH, Server, wait_until
from problems import bad_parameters
from test_writes_demo import Api, at_once
from websocket import WebSocket

SENDER = "the administrator"
NOTE = {"type": "SYSTEM", "title": "Maintenance", "content": "On Sunday, from 2 to 4."}


@pytest.fixture(scope="module")
def issuer():
    return c.Issuer(SCRATCH / "notifications")


@pytest.fixture(scope="module")
def server(cluster, database, issuer):
    """Served with the rights that `provost grants print` names, and no others."""
    server = Server(cluster, database, config={"auth": issuer.config(), "workers": {"threads": 8}, "database": {"pool_max": 8}}, token=True)
    cluster.sql(database, "DROP OWNED BY provost_app")
    c.prepare(cluster, database, server)
    with server:
        yield server


@pytest.fixture
def api(server, issuer):
    return Api(server, issuer.jwt(SENDER))


@pytest.fixture
def sql(cluster, database):
    return lambda text, *args: cluster.sql(database, text, *args)


@pytest.fixture
def people(sql):
    """Ids of some users, in order, for a test that is not to see another's notifications."""
    found = [user for user, in sql("""SELECT u.id FROM "user" u WHERE role = 'STUDENT' AND status = 'ACTIVE'
                                      AND NOT EXISTS (SELECT FROM notification_logs n WHERE n."recipientId" = u.id) ORDER BY id LIMIT 4""")]
    assert len(found) == 4
    return found


@pytest.fixture
def socket(server, issuer):
    """socket(user): a connection of that user's, whom no role is needed for."""
    opened = []

    def socket(user, roles=("student",)):
        opened.append(WebSocket(server.port, "/ws", c.bearer(issuer.jwt(user, roles)), hello=True))
        return opened[-1]
    yield socket
    for ws in opened:
        ws.close()


@pytest.fixture
def unchanged(sql):
    """A block that writes nothing anywhere."""
    tables = ("notification_logs", "notification_counts", "audit_logs", "payments", "provost.outbox")

    def state():
        return sql("SELECT " + ", ".join(f"(SELECT (count(*), sum(hashtextextended(t::text, 0))) FROM {t} t)::text" for t in tables))

    class Block:
        def __enter__(self):
            self.before = state()

        def __exit__(self, failure, *_):
            assert failure or state() == self.before
    return Block()


@pytest.fixture
def refusing(sql):
    """refusing(table, when): a block in which no such row gets into that table."""
    class Block:
        def __init__(self, table, when="true"):
            self.table, self.when = table, when

        def __enter__(self):
            sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not now''; END';"
                f" CREATE TRIGGER refuse BEFORE INSERT ON {self.table} FOR EACH ROW WHEN ({self.when}) EXECUTE FUNCTION refuse()")

        def __exit__(self, *_):
            sql(f"DROP TRIGGER refuse ON {self.table}; DROP FUNCTION refuse()")
    return Block


def page(api, query):
    return api.get(f"/notifications?{query}")


def rows(sql, title):
    return sql('SELECT "recipientId", status, "sentAt" = "createdAt", "readAt", metadata FROM notification_logs WHERE title = %s ORDER BY 1', title)


# ---- writing -------------------------------------------------------------------------------------

def test_users_are_notified(api, sql, people, socket):
    ws = socket(people[0])
    body = {**NOTE, "recipientIds": [people[1], f" {people[0]} ", people[1]], "title": " To two "}
    assert api.done("POST", "/notifications", body, 202) == {"count": 2}

    found = rows(sql, "To two")
    (audit_id, user, details), = sql("""SELECT "resourceId", "userId", details FROM audit_logs WHERE resource = 'notification' AND action = 'CREATE'
                                        AND details ->> 'title' = 'To two'""")
    assert (user, details) == (SENDER, {**NOTE, "title": "To two", "recipientIds": [people[1], people[0], people[1]], "count": 2})
    assert found == [(people[n], "SENT", True, None, {"sentBy": SENDER, "batchId": audit_id}) for n in (0, 1)]

    # What a dashboard is sent is what it would have read.
    event = ws.event("event")
    assert (event["room"], event["name"]) == (f"user:{people[0]}", "notification") and isinstance(event["nid"], int)
    assert page(api, f"userId={people[0]}") == {"notifications": [event["data"]], "pagination": {"total": 1, "page": 1, "limit": 50, "totalPages": 1}}
    assert page(api, "limit=2")["notifications"][0]["title"] == "To two"

    # Kept until it is acknowledged.
    assert sql("SELECT room, name FROM provost.outbox WHERE id = %s", event["nid"]) == [(f"user:{people[0]}", "notification")]
    ws.op("ack", ids=[event["nid"]])
    wait_until(lambda: sql("SELECT room FROM provost.outbox WHERE data ->> 'title' = 'To two'") == [(f"user:{people[1]}",)], 5, "it is acknowledged")
    assert socket(people[1]).event("event")["data"]["recipientId"] == people[1], "who comes later gets it then"


def test_a_role_is_notified(api, sql, socket, people):
    sql("""UPDATE "user" SET status = 'SUSPENDED' WHERE role = 'ADMIN' AND id = (SELECT min(id) FROM "user" WHERE role = 'ADMIN')""")
    active = [user for user, in sql("""SELECT id FROM "user" WHERE role = 'ADMIN' AND status = 'ACTIVE' ORDER BY id""")]
    assert api.done("POST", "/notifications", {**NOTE, "role": "admin", "title": "To a role"}, 202) == {"count": len(active)}
    assert [row[0] for row in rows(sql, "To a role")] == active
    assert socket(active[-1], ("admin",)).event("event")["data"]["title"] == "To a role"

    sql("""UPDATE "user" SET status = 'SUSPENDED' WHERE role = 'INSTRUCTOR'""")
    assert api.done("POST", "/notifications", {**NOTE, "role": "INSTRUCTOR", "title": "To nobody"}, 202) == {"count": 0}
    assert rows(sql, "To nobody") == []
    # Named, one who is suspended is notified: it may be about that.
    assert api.done("POST", "/notifications", {**NOTE, "recipientIds": sql("SELECT min(id) FROM \"user\" WHERE status = 'SUSPENDED'")[0]}, 202) == {"count": 1}


def test_a_long_notification_arrives_whole(api, people, socket):
    ws = socket(people[0])
    content = "Überall " * 1249 + "bis hier"
    api.done("POST", "/notifications", {**NOTE, "recipientIds": people[:1], "content": content}, 202)
    assert ws.event("event")["data"]["content"] == content


WRONG = [
    ({"recipientIds": []}, "recipientIds"), ({"recipientIds": ["x"] * 1001}, "recipientIds"), ({"recipientIds": "x"}, "recipientIds"),
    ({"recipientIds": [1]}, "recipientIds"), ({"recipientIds": [None]}, "recipientIds"), ({"role": "VISITOR"}, "role"), ({"role": ["ADMIN"]}, "role"),
    ({"type": None}, "type"), ({"type": " "}, "type"), ({"type": "x" * 51}, "type"), ({"title": None}, "title"), ({"title": "\t"}, "title"),
    ({"title": "x" * 256}, "title"), ({"content": None}, "content"), ({"content": ""}, "content"), ({"content": "x" * 10001}, "content"),
    ({"status": "READ"}, "status"), ({"subject": "x"}, "subject"), ({"id": "x"}, "id"),
]


@pytest.mark.parametrize("wrong, name", WRONG, ids=lambda v: str(v)[:40])
def test_what_is_not_a_notification(api, people, unchanged, wrong, name):
    body = {**NOTE, **({} if "role" in wrong else {"recipientIds": people[:1]}), **wrong}
    with unchanged:
        problem = api.refused("POST", "/notifications", body, 422)
    assert [e["name"].split("[")[0] for e in problem["errors"]] == [name], problem


@pytest.mark.parametrize("given", ["neither", "both", "null"])
def test_recipients_or_a_role(api, people, unchanged, given):
    body = {"neither": {}, "both": {"recipientIds": people, "role": "ADMIN"}, "null": {"recipientIds": None, "role": None}}[given]
    with unchanged:
        assert api.refused("POST", "/notifications", {**NOTE, **body}, 422)["detail"] == "Either recipientIds or role is required, and not both."


def test_recipients_that_nobody_is(api, people, unchanged):
    """Their places are told: values are not echoed."""
    for ids, told in (
            (["nobody"], "recipientIds[0]"), ([people[0], "x" * 5000, people[1], "x", people[0]], "recipientIds[1], recipientIds[3]"),
            ([people[0], people[0].upper() + " x"], "recipientIds[1]"), ([people[0], ""], "recipientIds[1]"),
            ([str(n) for n in range(10)], ", ".join(f"recipientIds[{n}]" for n in range(10))),
            (people + [str(n) for n in range(996)], ", ".join(f"recipientIds[{n}]" for n in range(4, 14)) + " and 986 more")):
        with unchanged:
            assert api.refused("POST", "/notifications", {**NOTE, "recipientIds": ids}, 422)["detail"] == f"There is no such user: {told}."


def test_a_role_of_as_many_as_may_be(api, sql, unchanged, socket):
    sql("""INSERT INTO "user" (id, name, email, password, role) SELECT 'many' || n, 'n', n || '@many.example', 'p', 'INSTITUTION_STAFF'
           FROM generate_series(1, 5001 - (SELECT count(*) FROM "user" WHERE role = 'INSTITUTION_STAFF' AND status = 'ACTIVE')) n""")
    try:
        with unchanged:
            assert api.refused("POST", "/notifications", {**NOTE, "role": "INSTITUTION_STAFF"}, 422)["detail"] == \
                "More than 5000 active users have this role."
        sql("""UPDATE "user" SET status = 'SUSPENDED' WHERE id = 'many1'""")
        sockets = [socket(f"many{n}") for n in (2, 1000, 4900)]
        assert api.done("POST", "/notifications", {**NOTE, "role": "INSTITUTION_STAFF", "title": "To all"}, 202) == {"count": 5000}
        for ws in sockets:
            # More than the hub has room for, if it is not scheduled for long: it says so, and reads what is kept.
            while (event := ws.any_event())["ev"] == "resync":
                pass
            assert event["data"]["title"] == "To all"
        assert sql("SELECT count(DISTINCT \"recipientId\") FROM notification_logs WHERE title = 'To all'") == [(5000,)]
        assert socket("many7").event("event")["data"]["title"] == "To all"
    finally:
        sql("""DELETE FROM "user" WHERE id LIKE 'many%%'; DELETE FROM provost.outbox WHERE room LIKE 'user:many%%'""")


@pytest.mark.parametrize("table, when", [("audit_logs", "true"), ("notification_logs", "NEW.\"recipientId\" = '{}'"),
                                         ("provost.outbox", "NEW.room = 'user:{}'")])
def test_all_or_nothing(api, people, unchanged, refusing, socket, table, when):
    """What fails for one of three, or is not recorded, is for nobody."""
    ws = socket(people[0])
    body = {**NOTE, "recipientIds": people[:3]}
    with unchanged, refusing(table, when.format(people[2])):
        api.refused("POST", "/notifications", {**body, "title": "Undone"}, 422)
    api.done("POST", "/notifications", {**body, "title": "Done"}, 202)
    assert ws.event("event")["data"]["title"] == "Done", "the first that is heard"


@pytest.mark.threads
def test_many_at_once(api, sql, people, socket):
    """Each is heard once by each, those of one sender in order."""
    sockets = {user: socket(user) for user in people}

    def send(sender):
        for n in range(10):
            api.done("POST", "/notifications", {**NOTE, "recipientIds": people, "title": f"Of {sender}", "content": str(n)}, 202)
    at_once(*[lambda s=s: send(s) for s in range(6)])
    for user, ws in sockets.items():
        events = [ws.event("event") for _ in range(60)]
        assert len({e["nid"] for e in events}) == 60 and {e["data"]["recipientId"] for e in events} == {user}
        for sender in range(6):
            assert [e["data"]["content"] for e in events if e["data"]["title"] == f"Of {sender}"] == [str(n) for n in range(10)]
    found = sql("SELECT count(*), count(DISTINCT metadata ->> 'batchId') FROM notification_logs WHERE title LIKE 'Of %%'")
    assert found == [(240, 60)]


# ---- reading -------------------------------------------------------------------------------------

def test_the_list(api, sql, people):
    api.done("POST", "/notifications", {**NOTE, "recipientIds": people[:2]}, 202)
    sql("""UPDATE notification_logs SET status = 'READ', "readAt" = now() WHERE "recipientId" = %s""", people[0])
    total = sql("SELECT count(*) FROM notification_logs")[0][0]
    assert page(api, "")["pagination"] == {"total": total, "page": 1, "limit": 50, "totalPages": (total + 49) // 50}
    for status in ("READ", "sent"):
        expected = sql("SELECT id FROM notification_logs WHERE status = upper(%s) ORDER BY \"createdAt\" DESC, id DESC", status)
        found = page(api, f"status={status}&limit=100")
        assert [n["id"] for n in found["notifications"]] == [i for i, in expected[:100]] and found["pagination"]["total"] == len(expected)
    assert page(api, f"userId={people[0]}&status=sent")["notifications"] == []
    assert page(api, f"userId={people[0]}&status=Read")["pagination"]["total"] == 1
    assert page(api, "page=100000")["notifications"] == []


def test_what_cannot_be_listed(api):
    for query, names in (("page=0&limit=101", {"page", "limit"}), ("status=LOST", {"status"}), ("userId=" + "x" * 37, {"userId"}),
                         ("page=x&limit=-1&status=1", {"page", "limit", "status"})):
        assert set(bad_parameters(api("GET", f"/notifications?{query}"))) == {("query", name) for name in names}


def test_a_notification_makes_old_what_shows_it_and_nothing_else(api, people):
    shows = [f"/notifications?userId={people[0]}", "/notifications", "/notifications?status=sent"]
    others = [f"/notifications?userId={people[1]}", "/notifications?status=failed&userId=nobody", "/stats", "/payments/pending-count", "/users",
              "/courses"]

    def others_stay():
        for path in shows + others:
            wait_until(lambda path=path: is_hit(api("GET", path)), 5, f"{path} is stored")
        api.done("POST", "/notifications", {**NOTE, "recipientIds": people[:1]}, 202)
        assert not any([is_hit(api("GET", path)) for path in shows])
        return all([is_hit(api("GET", path)) for path in others])
    # While the stream from the database is late nothing is taken for fresh, and on a busy machine it may be late.
    wait_until(others_stay, 10, "a notification leaves the others alone")


# ---- payments ------------------------------------------------------------------------------------

def test_decisions_about_payments_are_said_to_all_administrators(api, sql, socket):
    first, second, third = (row[0] for row in sql("SELECT id FROM payments WHERE status = 'PENDING' ORDER BY id LIMIT 3"))
    listeners = [socket("ada", ("admin",)), socket("bob", ("Admin", "editor"))]
    student = socket("stu")
    for ws in listeners:
        ws.join("role:ADMIN")
    assert student.call("join", room="role:ADMIN")["code"] == 4403

    paid = api.done("POST", f"/payments/approve/{first}")["payment"]
    api.refused("POST", f"/payments/approve/{first}", None, 409)
    api.refused("POST", "/payments/approve/nowhere", None, 404)
    api.refused("POST", f"/payments/disapprove/{first}", {"reason": "x"}, 409)
    api.done("POST", f"/payments/disapprove/{second}", {"reason": "No money came"})
    api.done("POST", f"/payments/disapprove/{third}")

    def row(of, *more):
        columns = ["id", "status", "amount", "currency", "institutionId", "enrollmentId", *more]
        return sql(f"""SELECT to_jsonb(p) FROM (SELECT {', '.join(f'"{c}"' for c in columns)} FROM payments WHERE id = %s) p""", of)[0][0]
    for ws in listeners:
        approved, failed, silent = (ws.event("event") for _ in range(3))
        assert {e["room"] for e in (approved, failed, silent)} == {"role:admin"}
        assert approved["name"] == "payment.approved"
        assert approved["data"] == {**row(first, "paidAt", "commissionAmount", "institutionAmount"), "decidedBy": SENDER}
        assert approved["data"]["commissionAmount"] == paid["commissionAmount"] and approved["data"]["status"] == "COMPLETED"
        assert failed["name"] == silent["name"] == "payment.disapproved"
        assert failed["data"] == {**row(second), "reason": "No money came", "decidedBy": SENDER}
        assert silent["data"] == {**row(third), "reason": None, "decidedBy": SENDER}


def test_a_decision_that_is_taken_back_is_not_said(api, sql, socket, unchanged, refusing):
    first, second = (row[0] for row in sql("SELECT id FROM payments WHERE status = 'PENDING' ORDER BY id LIMIT 2"))
    ws = socket("ada", ("admin",))
    ws.join("role:ADMIN")
    with unchanged, refusing("audit_logs"):
        api.refused("POST", f"/payments/approve/{first}", None, 422)
        api.refused("POST", f"/payments/disapprove/{first}", None, 422)
    api.done("POST", f"/payments/approve/{second}")
    assert ws.event("event")["data"]["id"] == second


# ---- live ----------------------------------------------------------------------------------------

def test_the_sidebar_is_told_what_it_used_to_poll_for(api, sql, people, socket):
    """Subscribed to, the number of open payments and a user's notifications say what a read would."""
    waiting = sql("SELECT id FROM payments WHERE status = 'PENDING' ORDER BY id LIMIT 1")[0][0]
    ws = socket(people[0], ("admin",))
    count, mine = "/api/admin/payments/pending-count", f"/api/admin/notifications?userId={people[0]}"
    shown = {}

    def until(true):
        """What comes last counts: one change may be read before another."""
        while not true():
            event = ws.any_event()
            if event["ev"] == "data":
                shown[event["path"]] = event["body"]
    for path in (count, mine):
        ws.op("subscribe", path=path)
    until(lambda: len(shown) == 2)
    before = shown[count]["count"]
    assert shown[mine]["notifications"] == []

    api.done("POST", "/notifications", {**NOTE, "recipientIds": people[:2]}, 202)
    expected = page(api, f"userId={people[0]}")
    assert expected["pagination"]["total"] == 1
    until(lambda: shown[mine] == expected)
    api.done("POST", f"/payments/approve/{waiting}")
    until(lambda: shown[count] == {"count": before - 1})
    sql("INSERT INTO payments (amount, \"institutionId\", \"enrollmentId\") VALUES (1, 'x', 'x')")
    until(lambda: shown[count] == {"count": before})

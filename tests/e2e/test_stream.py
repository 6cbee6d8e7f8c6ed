"""The stream of changes: what it makes old, what is served while it is lost, and what else it tells of.

Changes are sent by hand, as the triggers send them, or made and told of by the triggers themselves."""
import json
import os
import signal
import statistics
import time

import pytest

import callers
from caching import is_hit, is_stale, report, settings, status
from harness import Server, must, patience, quick, wait_until
from load import Load
from problems import problem

ENDPOINTS = {
    "one.sql": "-- @route GET /api/items/:id\n-- @path id integer\n-- @cache ttl=1h\n-- @depends item(id=:id)\n"
               "SELECT json_build_object('id', id, 'n', n) FROM item WHERE id = :id",
    "all.sql": "-- @route GET /api/items\n-- @cache ttl=1h\nSELECT coalesce(json_agg(n ORDER BY id), '[]') FROM item",
    "other.sql": "-- @route GET /api/other\n-- @cache ttl=1h\nSELECT json_build_object('n', n) FROM other",
    "strict.sql": "-- @route GET /api/strict\n-- @cache ttl=1h stale_if_error=0\nSELECT json_build_object('n', n) FROM other",
}


def stream(server):
    return report(server)["stream"]


def live(server):
    return stream(server)["state"] == "live"


def tell(cluster, db, text):
    cluster.sql(db, "SELECT pg_notify('provost', %s)", text if isinstance(text, str) else json.dumps(text))


def listener_pid(cluster, db):
    found = cluster.sql("postgres", "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'provost listener'", db)
    return found[0][0] if found else None


def database_of(server):
    return server.get("/readyz").json()["database"]


@pytest.fixture
def db(cluster, empty_database):
    cluster.sql(empty_database, "CREATE TABLE item (id integer PRIMARY KEY, n integer); CREATE TABLE other (n integer);"
                                "INSERT INTO item SELECT i, 0 FROM generate_series(1, 3) i; INSERT INTO other VALUES (0);"
                                "GRANT SELECT ON item, other TO provost_app")
    return empty_database


@pytest.fixture
def server(cluster, db):
    with Server(cluster, db, ENDPOINTS, allow_errors="cannot be reached") as server:
        wait_until(lambda: live(server), 10)
        yield server


@pytest.fixture
def beating(server):
    """So often that its end is noticed soon, and not so often that a busy machine does not keep up."""
    settings(server, {"database": {"heartbeat": "1s"}})
    return server


def warm(server, *paths):
    for path in paths:
        server.get(path)
        wait_until(lambda: is_hit(server.get(path)), 10, f"{path} is stored")


EVERYTHING = ("/api/items", "/api/items/1", "/api/items/2", "/api/other")


def old_after(cluster, db, server, text):
    """Which of all answers are invalidated by what is told."""
    warm(server, *EVERYTHING)
    before = stream(server)
    tell(cluster, db, text)
    wait_until(lambda: (now := stream(server)) and sum(now[k] - before[k] for k in ("changes", "epochs", "unreadable")) == 1,
               10, "it is processed")
    return {path for path in EVERYTHING if not is_hit(server.get(path))}


def test_what_a_change_makes_old(cluster, db, server):
    def change(**more):
        return {"table": "item", "op": "UPDATE", **more}
    assert old_after(cluster, db, server, change(values={"id": ["1"]})) == {"/api/items", "/api/items/1"}
    assert old_after(cluster, db, server, change(key="id", values={"id": ["1", "2"], "n": ["0"]})) == {
        "/api/items", "/api/items/1", "/api/items/2"}
    # Of rows that are not known, or not by what the endpoint is narrowed by.
    assert old_after(cluster, db, server, change()) == {"/api/items", "/api/items/1", "/api/items/2"}
    assert old_after(cluster, db, server, change(values={"n": ["0"]})) == {"/api/items", "/api/items/1", "/api/items/2"}
    assert old_after(cluster, db, server, change(values={"id": []})) == {"/api/items"}
    assert old_after(cluster, db, server, {"table": "other", "op": "TRUNCATE"}) == {"/api/other"}
    assert old_after(cluster, db, server, {"table": "unknown", "op": "INSERT"}) == set()
    assert old_after(cluster, db, server, "epoch") == set(EVERYTHING)
    assert old_after(cluster, db, server, "what is this") == set(EVERYTHING)
    assert stream(server)["gaps"] == 0


def test_a_commit_by_somebody_else_is_seen(cluster, db, server):
    """By the triggers that the tables have, within what the report calls lag."""
    took = []
    for n in range(1, 21):
        warm(server, "/api/items/1", "/api/items/2")
        cluster.sql(db, "UPDATE item SET n = %s WHERE id = 1", n)
        begun = time.monotonic()
        wait_until(lambda: server.get("/api/items/1").json()["n"] == n, 10, "the change is seen", interval=0)
        took.append(time.monotonic() - begun)
        assert is_hit(server.get("/api/items/2"))
    found = stream(server)
    assert found["changes"] >= 20 and 0 <= found["lagMs"] <= found["lagMaxMs"]
    print(f"\nseen within {statistics.median(took) * 1000:.1f} ms (median), {max(took) * 1000:.1f} ms (max); "
          f"lag {found['lagMs']} ms, {found['lagMaxMs']} ms at most", end="")
    assert statistics.median(took) < patience(1)


def test_report(beating):
    server = beating
    wait_until(lambda: stream(server)["lagMs"] > 0, 10)
    wait_until(lambda: live(server), 10)
    found = stream(server)
    assert found.keys() == {"state", "lagMs", "lagMaxMs", "changes", "syncs", "lateSyncs", "epochs", "unreadable", "gaps"}
    assert found["state"] == "live"


# ---- losing the stream ---------------------------------------------------------------------------

class Item:
    """What a load keeps: the value, and whether it was called fresh."""

    def __init__(self, answer):
        self.fresh = is_hit(answer) if answer.header("Cache-Status") else False
        self.n = json.loads(answer.body)["n"] if answer.status == 200 else None


@pytest.mark.threads
def test_the_listeners_session_is_killed_under_load(cluster, db, server):
    """What is committed while nobody tells of it is seen all the same: nothing was fresh meanwhile."""
    warm(server, "/api/items/1", "/api/items/2")
    with Load(server, "/api/items/1", clients=4, see=Item) as load:
        for n in range(1, 6):
            load.wait(20, 200)
            before = stream(server)["gaps"]
            # One transaction: the session is gone when the change is visible.
            cluster.sql(db, "UPDATE item SET n = %s WHERE id = 1", n)
            pid = listener_pid(cluster, db)
            cluster.sql("postgres", "SELECT pg_terminate_backend(%s, 5000)", pid)
            wait_until(lambda: (s := stream(server)) and s["gaps"] > before and s["state"] == "live", 10, "it is live again")
            back = time.monotonic()
            load.wait(20, 200)
            must(all(r.seen.n == n for r in load.since(back)), "stale after the stream was back")
            wait_until(lambda: is_hit(server.get("/api/items/1")), 10, "it is cached again")
    assert load.statuses() == {200}
    assert stream(server)["gaps"] == 5
    # What became old by that was not told to be: it is counted as what was raised, once each.
    assert report(server)["invalidations"] >= 5


def test_a_listeners_session_that_hangs(cluster, db, beating):
    """The database answers: whoever asks it is answered by it, after the first."""
    server = beating
    warm(server, "/api/items/1", "/api/strict")
    before = report(server)
    pid = listener_pid(cluster, db)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: stream(server)["state"] == "overdue", 10)
        cluster.sql(db, "UPDATE item SET n = 7 WHERE id = 1")
        fresh = wait_until(lambda: a if status(a := server.get("/api/items/1")) == {"fwd": "stale"} else None, 10,
                           "the database is asked, and nothing is stored")
        assert fresh.json()["n"] == 7
        assert database_of(server) == "up"
        assert status(server.get("/api/strict")) == {"fwd": "stale"}
        assert status(server.get("/api/items/3")) == {"fwd": "miss"}
        assert status(server.get("/api/items/3")) == {"fwd": "miss"}
        assert report(server)["invalidations"] == before["invalidations"], "nothing was invalidated"
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: live(server), 10)
    # Nothing was missed. But the database has answered meanwhile: nothing from before comes back after that.
    assert status(server.get("/api/strict")) == {"fwd": "stale", "stored": True}
    warm(server, "/api/items/1")
    assert server.get("/api/items/1").json()["n"] == 7
    assert listener_pid(cluster, db) == pid and stream(server)["gaps"] == 0


def hang(cluster, server):
    """Seconds until it is noticed, and until stored answers come meanwhile, at most."""
    warm(server, "/api/items/1", "/api/strict")
    first = server.get("/api/items/1")
    begun = time.monotonic()
    cluster.sigstop()
    try:
        wait_until(lambda: database_of(server) == "down", 10, interval=0.005)
        noticed = time.monotonic() - begun
        took = []
        for _ in range(50):
            begun = time.monotonic()
            answer = server.get("/api/items/1")
            took.append(time.monotonic() - begun)
            assert is_stale(answer, "stale-if-error") and answer.body == first.body
    finally:
        cluster.sigcont()
    cluster.wait_ready()
    wait_until(lambda: database_of(server) == "up" and live(server), 20)
    wait_until(lambda: is_hit(server.get("/api/items/1")), 20, "it is healed")
    return noticed, max(took)


def test_a_cluster_that_hangs_is_noticed_within_a_second(cluster, db, server):
    """Stored answers go on, marked; all else fails in its time; and it heals by itself."""
    for left in range(4, -1, -1):
        # Three heartbeats, of 300 ms on a machine that has nothing else to do. How busy it is, each try finds out anew.
        config = quick()
        settings(server, {"database": config})
        limit = 3 * int(config["heartbeat"].removesuffix("ms")) / 1000 + patience(0.2)
        noticed, took = hang(cluster, server)
        if not left or (noticed < limit and took < patience(0.3)):
            break
    print(f"\na cluster that hangs was noticed after {noticed * 1000:.0f} ms; stored answers took {took * 1000:.1f} ms at most", end="")
    assert noticed < limit and took < patience(0.3)


def test_without_the_database_at_the_start(cluster, db):
    """Nothing waits for the stream but the first cached answer."""
    cluster.stop()
    try:
        with Server(cluster, db, ENDPOINTS, wait="/livez", allow_errors="cannot be reached|waiting for the database") as server:
            problem(server.get("/api/items"), 503)
            cluster.start()
            wait_until(lambda: server.get("/readyz").status == 200, 20)
            wait_until(lambda: live(server), 10)
            # Which is told, too: the endpoints are cached from now on.
            server.install_triggers()
            warm(server, "/api/items")
    finally:
        if not cluster.pids():
            cluster.start()
        cluster.wait_ready()


# ---- identities ----------------------------------------------------------------------------------

def test_a_revocation_by_sql_counts_at_once(cluster, empty_database, tmp_path):
    """Not at the next look, which comes every five seconds."""
    issuer = callers.Issuer(tmp_path / "issuer")
    endpoints = {"me.sql": "-- @route GET /api/me\n-- @role admin,student\n-- @cache off\nSELECT json_build_object('sub', :auth_sub)"}
    server = Server(cluster, empty_database, endpoints, {"auth": issuer.config()}, token=True)
    callers.prepare(cluster, empty_database, server)
    took = []
    with server:
        wait_until(lambda: "stream of changes is live" in server.log(), 10)
        for n in range(20):
            headers = callers.bearer(issuer.jwt("ada", ["student"], jti=f"t{n}"))
            assert server.get("/api/me", headers).status == 200
            begun = time.monotonic()
            cluster.sql(empty_database, "INSERT INTO provost.revocation (kind, what) VALUES ('token', %s)", f"t{n}")
            told = time.monotonic()
            wait_until(lambda: server.get("/api/me", headers).status == 401, 10, "it is revoked", interval=0)
            took.append(time.monotonic() - told)
            assert time.monotonic() - begun < patience(1)
        key = callers.insert_key(cluster, empty_database, "robot", ["student"])
        wait_until(lambda: server.get("/api/me", callers.bearer(key)).status == 200, 1, "the key is known")
        callers.command(server, "key", "revoke", callers.id_of(key), url=cluster.dsn(empty_database))
        wait_until(lambda: server.get("/api/me", callers.bearer(key)).status == 401, 1, "the key is revoked")
    print(f"\na revocation by SQL counted {statistics.median(took) * 1000:.1f} ms after its commit (median), "
          f"{max(took) * 1000:.1f} ms (max)", end="")


# ---- listen_url ----------------------------------------------------------------------------------

def test_listen_url(cluster, db):
    """Another way to the same database. Without one, behind a pooler, the log says what is wrong."""
    config = {"database": {"prepare": "no", "listen_url": cluster.app_dsn(db)}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        warm(server, "/api/items")
        assert "transaction pooler" not in server.log()
    with Server(cluster, db, ENDPOINTS, {"database": {"prepare": "no"}}) as server:
        server.wait_log("changes cannot be heard through a transaction pooler.*listen_url")


def test_a_listen_url_that_leads_nowhere(cluster, db):
    """The database answers, so nothing is down; nothing is cached, either."""
    config = {"database": {"listen_url": "postgresql://nobody@127.0.0.1:1/nothing"}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        server.wait_log("listener: changes cannot be listened to", 10)
        for _ in range(3):
            assert status(server.get("/api/items")) == {"fwd": "miss"}
        # For more than the second after which a database seems to be away.
        wait_until(lambda: stream(server)["state"] == "connecting" and "gaps" in stream(server), 10)
        assert status(server.get("/api/items")) == {"fwd": "miss"}

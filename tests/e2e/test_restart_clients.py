"""Two hundred users who are notified while their server is restarted, or killed, or their connections are lost: all come
back, spread, and none misses anything."""
import time

import pytest

import callers as c
from harness import SCRATCH, SLOWNESS, Server, wait_until
from swarm import Publisher, Swarm, users

CLIENTS = 200 if SLOWNESS == 1 else 60
# As the hub says it: `bye` names a moment from RETRY to RETRY + SPREAD later, in milliseconds.
RETRY, SPREAD = 500, max(1000, 2 * CLIENTS)


@pytest.fixture
def world(cluster, fresh_database):
    """(server, header fields of each user, those of an administrator), with the server stopped."""
    issuer = c.Issuer(SCRATCH / f"restart-{fresh_database}")
    server = Server(cluster, fresh_database, config={"auth": issuer.config()}, token=True)
    server.install_triggers()
    c.prepare(cluster, fresh_database, server)
    server.owner_dsn = None     # what a start would install is there, so that it takes no longer than a start
    headers = {user: c.bearer(issuer.jwt(user, ["admin"])) for user in users(cluster, fresh_database, CLIENTS)}
    return server, headers, c.admin_headers(issuer)


def outbox(cluster, db):
    return cluster.sql(db, "SELECT count(*) FROM provost.outbox")[0][0]


def everything_arrives(cluster, db, swarm, publisher):
    """Once nobody publishes any more, each has seen all of its own, and the outbox is empty."""
    publisher.end()
    published = publisher.published()
    assert all(published.values())
    wait_until(lambda: not swarm.missing(published), 20, "every notification is seen", interval=0.1)
    for user, member in swarm.members.items():
        assert {d["id"] for d in member.data.values()} == published[user], "nothing but its own, either"
        assert len(member.data) == len(published[user]), "a notification is one event"
    wait_until(lambda: outbox(cluster, db) == 0, 20, "all is acknowledged", interval=0.1)
    return sum(len(ids) for ids in published.values())


def say(how, swarm, seconds, count):
    again = sum(sum(m.seen.values()) - len(m.seen) for m in swarm.members.values())
    print(f"\n{how}: {CLIENTS} clients, the last was back after {seconds:.2f} s; {count} notifications, {again} of them sent again")


@pytest.mark.threads
def test_a_restart(cluster, fresh_database, world):
    server, headers, admin = world
    with server, Swarm(server, headers, ["table:course"]) as swarm, \
            Publisher(cluster, fresh_database, server, admin, headers) as publisher:
        publisher.wait(2000)
        stopped = time.monotonic()
        server.stop()
        server.start()
        seconds = swarm.back_since(stopped)
        publisher.wait(1000)
        count = everything_arrives(cluster, fresh_database, swarm, publisher)
        say("SIGTERM", swarm, seconds, count)

        byes = []
        for member in swarm.members.values():
            first, second = member.connections[:2]
            assert first.code == 1001 and first.bye is not None, member
            assert second.begun - first.ended >= first.bye / 1000, "not before it was told to"
            assert second.resumed is False and member.events["resync"] >= 1, member
            byes.append(first.bye)
        assert all(RETRY <= bye < RETRY + SPREAD for bye in byes)
        # Each quarter of the window is expected to have a quarter of them.
        for quarter in range(4):
            low = RETRY + quarter * SPREAD / 4
            assert sum(low <= bye < low + SPREAD / 4 for bye in byes) >= CLIENTS // 40, sorted(byes)
        assert publisher.statuses[202] >= 2


@pytest.mark.threads
def test_a_crash(cluster, fresh_database, world):
    server, headers, admin = world
    with server, Swarm(server, headers, ["table:course"]) as swarm, \
            Publisher(cluster, fresh_database, server, admin, headers) as publisher:
        for _ in range(2):
            publisher.wait(2000)
            killed = time.monotonic()
            server.kill()
            server.start()
            seconds = swarm.back_since(killed)
        publisher.wait(1000)
        count = everything_arrives(cluster, fresh_database, swarm, publisher)
        say("SIGKILL, twice", swarm, seconds, count)
        assert all(x.bye is None for m in swarm.members.values() for x in m.connections)


@pytest.mark.threads
def test_lost_connections(cluster, fresh_database, world):
    """The server knows them, and their rooms, when they come back."""
    server, headers, admin = world
    with server, Swarm(server, headers, ["table:course"]) as swarm, \
            Publisher(cluster, fresh_database, server, admin, headers) as publisher:
        for _ in range(3):
            publisher.wait(1000)
            lost = time.monotonic()
            swarm.cut()
            seconds = swarm.back_since(lost)
        publisher.wait(1000)
        count = everything_arrives(cluster, fresh_database, swarm, publisher)
        say("lost, three times", swarm, seconds, count)
        assert all(x.resumed for m in swarm.members.values() for x in m.connections[1:] if x.open)
        (course,), = cluster.sql(fresh_database, "UPDATE course SET priority = priority + 1 WHERE id = (SELECT min(id) FROM course) RETURNING id")
        wait_until(lambda: all(course in m.changed for m in swarm.members.values()), 10, "all hear of a change in their room")

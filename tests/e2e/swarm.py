"""Many users, each with one connection that comes back by itself, and somebody who notifies all of them meanwhile.

users(cluster, db, n)       ids of users of the demo
with Swarm(server, headers, rooms=()) as swarm:     headers: {user: header fields}; all are open when the block begins
    swarm.members[user]     seen: {nid: how often on the wire}, data: {nid: data}, changed: {key, ...} in the rooms, and
                            what became of each connection
    swarm.open()            how many are connected, and in all their rooms, now
    swarm.back_since(t)     waits until each has lost the connection it had at that time and has another -> seconds
    swarm.cut()             loses all connections, as a network does
    swarm.missing(expected) what of {user: {notification, ...}} has not been seen by its user
    Leaving the block ends them, and fails if anybody was told what the protocol does not know.
with Publisher(cluster, db, server, headers, users) as publisher:
    publisher.wait(more)    that many more notifications are committed
    publisher.published()   {user: {id of notification, ...}}: whatever is committed

A member behaves as docs/WEBSOCKET.md wants: after `bye` it comes back when it was told to, otherwise after a random
part of a time that doubles; it takes up its session, joins its rooms if that is not known any more, and acknowledges
what is durable.
"""
import collections
import contextlib
import json
import os
import random
import select
import socket
import struct
import threading
import time

import psycopg2

from harness import Closed, patience, wait_until
from websocket import CLOSE, FIN, PING, PONG, TEXT, Ended, Refused, WebSocket

BACKOFF, BACKOFF_MAX = 0.5, 4       # seconds: as long as the first pause may be, and the longest
LATE = 0.1                          # of what `bye` says: so much later at most
ACK_MAX = 256                       # numbers in one acknowledgement
OVER = {1000, 1001, 1013, 4001}     # closes that are no fault of the client's
TYPE = "SWARM"                      # of the publisher's notifications


def users(cluster, db, count):
    found = [user for user, in cluster.sql(db, """SELECT id FROM "user" WHERE role = 'STUDENT' AND status = 'ACTIVE' ORDER BY id LIMIT %s""", count)]
    assert len(found) == count
    return found


class Connected:
    """One connection of a member's, and how it ended."""

    def __init__(self, begun):
        self.begun, self.ended = begun, None
        self.open = None            # when it was in all its rooms
        self.resumed = None         # None: it was the first
        self.bye = self.code = None


class Member:
    def __init__(self, swarm, user, headers):
        self.swarm, self.user, self.headers = swarm, user, headers
        self.seen, self.data = collections.Counter(), {}
        self.connections, self.pauses = [], []
        self.events, self.changed = collections.Counter(), set()
        self.session = self.seq = self.socket = None
        self.unacknowledged, self.awaited = [], {}
        self.wrong = None
        self.thread = threading.Thread(target=self._run, name=user, daemon=True)

    def __repr__(self):
        return f"<{self.user}: {len(self.connections)} connections, {dict(self.events)}, wrong: {self.wrong}>"

    # -- connections

    def _run(self):
        failures = 0
        try:
            while not self.swarm.ending.is_set():
                now = Connected(time.monotonic())
                try:
                    with WebSocket(self.swarm.server.port, "/ws", self.headers) as ws:
                        self.socket = ws.socket
                        self.connections.append(now)
                        self._attend(ws, now)
                except Refused as refused:
                    assert refused.response.status == 503, refused
                except (OSError, Ended, Closed):
                    pass
                finally:
                    now.ended = time.monotonic()
                failures = 0 if now.open else failures + 1
                self._pause(now.bye, failures)
        except Exception as e:      # pylint: disable=broad-except
            self.wrong = e

    def _pause(self, bye, failures):
        seconds = random.random() * min(BACKOFF_MAX, BACKOFF * 2**failures)
        if bye is not None:
            seconds = bye / 1000 * (1 + LATE * random.random())
        self.pauses.append(seconds)
        self.swarm.ending.wait(seconds)

    def _readable(self, ws):
        """Waits for something to read, or for the end. What is due is acknowledged before it waits."""
        if ws.connection.buffer:
            return True
        poll = select.poll()
        poll.register(ws.socket, select.POLLIN)
        if poll.poll(0):
            return True
        self._acknowledge(ws)
        poll.register(self.swarm.ended, select.POLLIN)
        poll.poll()
        return not self.swarm.ending.is_set()

    def _acknowledge(self, ws):
        while self.unacknowledged:
            ids, self.unacknowledged = self.unacknowledged[:ACK_MAX], self.unacknowledged[ACK_MAX:]
            self._ask(ws, "ack", ids=ids)

    def _attend(self, ws, now):
        self.awaited, self.unacknowledged = {}, []
        while self._readable(ws):
            opcode, payload = ws.receive()
            if opcode == PING:
                ws.frame(FIN | PONG, payload)
            elif opcode == CLOSE:
                now.code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                assert now.code in OVER, payload
                ws.frame(FIN | CLOSE, payload[:2])
                return
            else:
                assert opcode == TEXT, opcode
                self._take(ws, now, json.loads(payload))

    # -- what is said

    def _take(self, ws, now, event):
        kind = event["ev"]
        self.events[kind] += 1
        take = getattr(self, f"_take_{kind}", None)
        assert take, event
        if kind != "hello":
            self.seq = event.get("seq", self.seq)
        take(ws, now, event)

    def _take_hello(self, ws, now, event):
        former, self.session = self.session, event["session"]
        if former is None:
            self.seq = event["seq"]
            self._join(ws, now, self.swarm.rooms)
        else:
            self._ask(ws, "resume", session=former, seq=self.seq)

    def _take_ok(self, ws, now, event):
        asked, _ = self.awaited.pop(event["id"])
        if asked == "resume":
            now.resumed = event["resumed"]
            self._join(ws, now, [room for room in self.swarm.rooms if room not in event["rooms"]])
        elif asked == "join" and all(name != "join" for name, _ in self.awaited.values()):
            now.open = time.monotonic()

    def _take_error(self, ws, now, event):
        """Only what could not be written down is said again."""
        asked, members = self.awaited.pop(event.get("id"), (None, None))
        assert asked == "ack" and event["code"] == 4503, event
        self.unacknowledged += members["ids"]

    def _take_event(self, ws, now, event):
        if "nid" in event:
            assert event["room"] == f"user:{self.user}", event
            assert self.data.setdefault(event["nid"], event["data"]) == event["data"], event
            self.seen[event["nid"]] += 1
            self.unacknowledged.append(event["nid"])

    def _take_change(self, ws, now, event):
        assert event["room"] in self.swarm.rooms, event
        self.changed.update(event["keys"] or ())

    def _take_resync(self, ws, now, event):
        pass

    def _take_bye(self, ws, now, event):
        now.bye = event["retry"]

    def _ask(self, ws, name, **members):
        number = self.events["asked"] = self.events["asked"] + 1
        self.awaited[number] = name, members
        ws.op(name, id=number, **members)

    def _join(self, ws, now, rooms):
        for room in rooms:
            self._ask(ws, "join", room=room)
        if not rooms:
            now.open = time.monotonic()

    def is_open(self):
        return bool(self.connections) and self.connections[-1].open is not None and self.connections[-1].ended is None


class Swarm:
    def __init__(self, server, headers, rooms=()):
        self.server, self.rooms = server, list(rooms)
        self.ending = threading.Event()
        self.ended, self.end_fd = os.pipe()
        self.members = {user: Member(self, user, fields) for user, fields in headers.items()}

    def __enter__(self):
        for member in self.members.values():
            member.thread.start()
        try:
            wait_until(lambda: self.open() == len(self.members), 20, "all are connected")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, failure, *_):
        self.end()
        if not failure:
            self.check()

    def end(self):
        self.ending.set()
        os.write(self.end_fd, b"x")     # which nobody reads: it stays readable for all
        for member in self.members.values():
            member.thread.join(patience(10))
        os.close(self.end_fd)
        os.close(self.ended)

    def check(self):
        wrong = [m for m in self.members.values() if m.wrong]
        assert not wrong, wrong[:5]

    def open(self):
        self.check()
        return sum(m.is_open() for m in self.members.values())

    def cut(self):
        for member in self.members.values():
            with contextlib.suppress(OSError):
                member.socket.shutdown(socket.SHUT_RDWR)

    def back_since(self, moment, seconds=20):
        def back():
            self.check()
            return all(m.is_open() and m.connections[-1].begun > moment for m in self.members.values())
        wait_until(back, seconds, "all are back")
        return max(m.connections[-1].open for m in self.members.values()) - moment

    def missing(self, expected):
        """By the ids of notifications. `data` may grow meanwhile."""
        found = {}
        for user, ids in expected.items():
            lost = ids - {d["id"] for d in list(self.members[user].data.values())}
            if lost:
                found[user] = lost
        return found


# ---- who notifies them ---------------------------------------------------------------------------

NOTIFY = """
WITH added AS (
    INSERT INTO notification_logs ("recipientId", type, title, content, status) SELECT u, %s, 'By SQL', %s, 'SENT' FROM unnest(%s) u
    RETURNING *)
SELECT count(provost.publish('user:' || "recipientId", 'notification', to_jsonb(added))) FROM added"""


class Publisher:
    """Notifies some of the users by SQL, all the time, and all of them over HTTP, whenever the server answers."""

    def __init__(self, cluster, db, server, headers, notified, each=20):
        self.cluster, self.db, self.server, self.headers = cluster, db, server, headers
        self.users, self.each = list(notified), each
        self.ending = threading.Event()
        self.statuses = collections.Counter()
        self.wrong = None
        self.threads = [threading.Thread(target=self._guard, args=(work,), daemon=True) for work in (self._by_sql, self._by_http)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, failure, *_):
        self.end()
        assert failure or self.wrong is None, self.wrong

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(patience(30))
            assert not thread.is_alive(), "the publisher hangs"

    def _guard(self, work):
        try:
            work()
        except Exception as e:      # pylint: disable=broad-except
            self.wrong = e

    def _by_sql(self):
        connection = psycopg2.connect(self.cluster.dsn(self.db), application_name="e2e")
        connection.autocommit = True
        with connection.cursor() as cursor:
            while not self.ending.wait(0.05):
                cursor.execute(NOTIFY, (TYPE, "x" * random.choice((10, 100, 9000)), random.sample(self.users, min(self.each, len(self.users)))))
        connection.close()

    def _by_http(self):
        body = {"recipientIds": self.users, "type": TYPE, "title": "By HTTP", "content": "y"}
        while not self.ending.wait(0.2):
            try:
                answer = self.server.request("POST", "/api/admin/notifications", self.headers, body)
                self.statuses[answer.status] += 1
                assert answer.status in (202, 503, 504), answer
                assert answer.status != 202 or answer.json() == {"count": len(self.users)}, answer
            except (OSError, Closed):
                self.statuses["no answer"] += 1     # it may have been committed

    def count(self):
        assert self.wrong is None, self.wrong
        return self.cluster.sql(self.db, "SELECT count(*) FROM notification_logs WHERE type = %s", TYPE)[0][0]

    def wait(self, more, seconds=20):
        before = self.count()
        wait_until(lambda: self.count() >= before + more, seconds, f"{more} more notifications", interval=0.05)

    def published(self):
        found = {user: set() for user in self.users}
        for user, notification in self.cluster.sql(self.db, 'SELECT "recipientId", id FROM notification_logs WHERE type = %s', TYPE):
            found[user].add(notification)
        return found

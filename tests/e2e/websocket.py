"""A strict WebSocket client (RFC 6455) over a raw socket, which can also send what is forbidden.

    with WebSocket(server.port, "/ws", headers) as ws:      the handshake; Refused(response) if it is refused
        ws.hello                 the server's first event, where one was waited for (hello=True)
        ws.text('{"op":"ping"}') / ws.op("join", room="news", id=1) / ws.frame(opcode, payload, ...)
        ws.send(bytes)           as they are
        ws.receive()             the next message: (opcode, payload); control frames too; checks every frame
        ws.event("change")       the next event (JSON), of that kind: others before it fail the test
        ws.call("join", room=R)  sends the op with an id and returns the answer to it
        ws.subscribe(path)       and ws.data(path): the next event, which must be of that path
        ws.closed()              (code, reason) of the close that must come next, and TCP's end behind it
        ws.silent(seconds)       whether nothing comes
    handshake(**changes)         the bytes of a handshake; a header of None is left out
"""
import base64
import hashlib
import json
import os
import socket
import struct
import time

from harness import Connection, patience

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0
FIN = 0x80
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Refused(Exception):
    def __init__(self, response):
        super().__init__(repr(response))
        self.response = response


class Ended(ConnectionError):
    """TCP ended, without a close."""


def mask(payload, key):
    if not payload:
        return b""
    repeated = (key * (len(payload) // 4 + 1))[:len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


def frame(first, payload=b"", masked=True, length=None, key=b"\x37\xfa\x21\x3d"):
    """`length`: how to write it: None (the shortest), 16 or 64."""
    n = len(payload)
    bit = 0x80 if masked else 0
    if n <= 125 and length is None:
        head = struct.pack("!BB", first, bit | n)
    elif n <= 0xFFFF and length != 64:
        head = struct.pack("!BBH", first, bit | 126, n)
    else:
        head = struct.pack("!BBQ", first, bit | 127, n)
    return head + key + mask(payload, key) if masked else head + payload


def handshake(port, path="/ws", key=None, method="GET", version="HTTP/1.1", **changes):
    fields = {"Host": f"127.0.0.1:{port}", "Upgrade": "websocket", "Connection": "keep-alive, Upgrade",
              "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key or new_key(), **changes}
    lines = [f"{method} {path} {version}", *(f"{n}: {v}" for n, v in fields.items() if v is not None)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def new_key():
    return base64.b64encode(os.urandom(16)).decode()


class WebSocket:
    def __init__(self, port, path="/ws", headers=None, hello=False, extra=b"", receive_buffer=None, address=None):
        key = new_key()
        self.connection = Connection(port) if receive_buffer is None and address is None \
            else small_connection(port, receive_buffer, address)
        self.socket = self.connection.socket
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ids = 0
        self.said_close = False
        try:
            self.send(handshake(port, path, key, **(headers or {})) + extra)
            self._upgraded(self.connection.response(head=True), key)
            self.hello = self.event("hello") if hello else None
        except BaseException:
            self.close()
            raise

    def _upgraded(self, response, key):
        if response.status != 101:
            lengths = [int(v) for n, v in response.headers if n.lower() == "content-length"]
            response.body = self.connection._take(lengths[0]) if lengths else b""
            raise Refused(response)
        expected = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        assert response.header("Sec-WebSocket-Accept") == expected, response
        assert response.header("Upgrade").lower() == "websocket" and response.header("Connection") == "Upgrade", response
        self.response = response

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.connection.close()

    # -- sending

    def send(self, data):
        self.connection.send(data)

    def frame(self, first, payload=b"", **options):
        self.send(frame(first, payload, **options))

    def text(self, text):
        self.frame(FIN | TEXT, text.encode())

    def op(self, name, **members):
        self.text(json.dumps({"op": name, **members}))

    def end(self, code=1000, reason=b""):
        self.said_close = True
        self.frame(FIN | CLOSE, struct.pack("!H", code) + reason)

    # -- receiving

    def _take(self, size):
        try:
            return self.connection._take(size)
        except ConnectionError as e:
            raise Ended(str(e)) from None

    def receive(self, seconds=10):
        """One frame, which is a whole message: the server does not fragment."""
        self.socket.settimeout(patience(seconds))
        first, second = self._take(2)
        assert not first & 0x70 and first & FIN, f"first byte {first:#x}"
        assert not second & 0x80, "a server does not mask"
        opcode, n = first & 15, second
        assert opcode in (TEXT, BINARY, CLOSE, PING, PONG), opcode
        if n == 126:
            n, = struct.unpack("!H", self._take(2))
            assert n > 125, "not the shortest length"
        elif n == 127:
            n, = struct.unpack("!Q", self._take(8))
            assert n > 0xFFFF, "not the shortest length"
        assert n <= 125 or opcode < CLOSE
        payload = self._take(n)
        if opcode == TEXT:
            payload.decode()
        return opcode, payload

    def message(self, seconds=10):
        """The next that is no ping; pings are answered."""
        end = time.monotonic() + patience(seconds)
        while True:
            opcode, payload = self.receive(max(0.01, (end - time.monotonic()) / patience(1)))
            if opcode != PING:
                return opcode, payload
            self.frame(FIN | PONG, payload)

    def any_event(self, seconds=10):
        opcode, payload = self.message(seconds)
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    def event(self, kind, seconds=10):
        found = self.any_event(seconds)
        assert found["ev"] == kind, found
        return found

    def call(self, name, **members):
        self.ids += 1
        self.op(name, id=self.ids, **members)
        found = self.any_event()
        assert found["ev"] in ("ok", "error") and found["id"] == self.ids, found
        return found

    def join(self, room):
        found = self.call("join", room=room)
        assert found["ev"] == "ok", found
        return found

    def subscribe(self, path, **members):
        found = self.call("subscribe", path=path, **members)
        assert found["ev"] == "ok" and found["path"] == path, found
        return found

    def data(self, path=None, seconds=10):
        """The next event, which is the body of a path."""
        found = self.event("data", seconds)
        assert path is None or found["path"] == path, found
        return found

    def closed(self, seconds=10):
        opcode, payload = self.message(seconds)
        assert opcode == CLOSE, (opcode, payload)
        assert len(payload) != 1
        if not self.said_close:
            self.frame(FIN | CLOSE, payload[:2])
        assert self.connection.closed(seconds)
        return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (1005, "")

    def silent(self, seconds=0.3):
        """Nothing but pings comes."""
        self.socket.settimeout(seconds)
        try:
            found = self.receive(seconds / patience(1))
        except TimeoutError:
            return True
        return found[0] == PING and self.silent(seconds)


def small_connection(port, receive_buffer, address):
    """One whose peer can send little before we read, or that comes from another address of this machine."""
    found = Connection.__new__(Connection)
    found.socket = socket.socket()
    if receive_buffer:
        found.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    found.socket.settimeout(patience(10))
    if address:
        found.socket.bind((address, 0))
    found.socket.connect(("127.0.0.1", port))
    found.buffer = b""
    return found

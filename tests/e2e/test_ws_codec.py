"""RFC 6455 over a real socket: the table of tests/unit/test_ws.c, in the order of Autobahn's categories."""
import contextlib
import os
import re
import struct
import time

import pytest

from harness import REPO, Server, patience
from websocket import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, Refused, WebSocket, frame

T, B, C = FIN | TEXT, FIN | BINARY, FIN | CONTINUATION
T_, B_, C_ = TEXT, BINARY, CONTINUATION
CL, PI, PO = FIN | CLOSE, FIN | PING, FIN | PONG

ENDPOINTS = {"one.sql": "-- @route GET /api/one\nSELECT json_build_object('n', 1)"}


@pytest.fixture(scope="module")
def server(cluster, empty_template):
    cluster.create("ws_codec", empty_template)
    with Server(cluster, "ws_codec", ENDPOINTS, args=["--test-echo"]) as s:
        yield s
    cluster.drop("ws_codec")


def close(code, reason=b""):
    return CL, struct.pack("!H", code) + reason


CASES = {**{f"1.{kind}": 8 for kind in (1, 2)}, "2": 11, "3": 7, "4.1": 5, "4.2": 5, "5": 20,
         **{f"6.{n}": count for n, count in enumerate((3, 4, 2, 4, 5, 11, 4, 2, 4, 3, 5, 8, 5, 10, 1, 3, 5, 5, 5, 7, 8, 34, 7), 1)},
         "7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2, "10.1": 1}
"""Autobahn's cases of the categories 1 to 7 and 10: how many there are of each kind."""
UTF8 = [line.split() for line in (REPO / "tests/unit/utf8_cases.txt").read_text().splitlines()]
"""Texts: the case, whether it is valid, its bytes."""

# What is sent, and what comes back: messages, pongs, and a close with its code. A name may be that of several cases, which differ
# in how the bytes are cut.
GREEK = "κόσμε".encode()
X = b"x"
SIZES = list(enumerate((0, 125, 126, 127, 128, 65535, 65536, 65536), 1))
CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
NO_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)
TWO = [(T_, b"b"), (C, b"c")]
TABLE = {
    # 1, 2
    **{f"1.1.{at}": ([(T, X * n)], [(TEXT, X * n)]) for at, n in SIZES},
    **{f"1.2.{at}": ([(B, b"\xfe" * n)], [(BINARY, b"\xfe" * n)]) for at, n in SIZES},
    "2.1": ([(PI, b"")], [(PONG, b"")]),
    "2.2": ([(PI, b"Hello")], [(PONG, b"Hello")]),
    "2.3": ([(PI, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")], [(PONG, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")]),
    "2.4 2.6": ([(PI, b"\xfe" * 125)], [(PONG, b"\xfe" * 125)]),
    "2.5": ([(PI, b"\xfe" * 126)], 1002),
    "2.7": ([(PO, b""), (PI, b"x")], [(PONG, b"x")]),
    "2.8 2.9": ([(PO, b"unsolicited"), (PI, b"x")], [(PONG, b"x")]),
    "2.10 2.11": ([(PI, bytes([n])) for n in range(10)], [(PONG, bytes([n])) for n in range(10)]),
    # 3, 4
    **{f"3.{n}": ([(T | n << 4, b"x")], 1002) for n in range(1, 8)},
    "3 behind a message": ([(T, b"a"), (T | 0x40, b"b")], [(TEXT, b"a"), 1002]),
    "3 of a ping": ([(PI | 0x40, b"")], 1002),
    **{f"4.1.{at}": ([(T, b"a"), (FIN | n, b"")], [(TEXT, b"a"), 1002]) for at, n in enumerate((3, 4, 5, 6, 7), 1)},
    **{f"4.2.{at}": ([(T, b"a"), (FIN | n, b"b")], [(TEXT, b"a"), 1002]) for at, n in enumerate((11, 12, 13, 14, 15), 1)},
    # 5
    "5.1": ([(PING, b"a"), (C, b"b")], 1002),
    "5.2": ([(PONG, b"a"), (C, b"b")], 1002),
    "5.3 5.4 5.5": ([(T_, b"a"), (C, b"b")], [(TEXT, b"ab")]),
    "5.6 5.7 5.8": ([(T_, b"a"), (PI, b"p"), (C, b"b")], [(PONG, b"p"), (TEXT, b"ab")]),
    "5.9 5.10 5.11": ([(C, b"a"), (T, b"b")], 1002),
    "5.12 5.13 5.14": ([(C_, b"a"), (T, b"b")], 1002),
    "5.15": ([(T_, b"a"), (C, b"b"), (C_, b"c"), (T, b"d")], [(TEXT, b"ab"), 1002]),
    "5.16": ([(C_, b"a"), *TWO] * 2, 1002),
    "5.17": ([(C, b"a"), *TWO] * 2, 1002),
    "5.18": ([(T_, b"a"), (T, b"b")], 1002),
    "5.19 5.20": ([(T_, b"a"), (C_, b"b"), (PI, b"1"), (C_, b"c"), (C_, b"d"), (PI, b"2"), (C, b"e")],
             [(PONG, b"1"), (PONG, b"2"), (TEXT, b"abcde")]),
    "5 empty": ([(B_, b""), (C_, b""), (C, b"")], [(BINARY, b"")]),
    # 6
    "6.1.1": ([(T, b"")], [(TEXT, b"")]),
    "6.1.2": ([(T_, b""), (C_, b""), (C, b"")], [(TEXT, b"")]),
    "6.1.3": ([(T_, b""), (C_, b"middle"), (C, b"")], [(TEXT, b"middle")]),
    "6.2.2": ([(T_, GREEK[:5]), (C, GREEK[5:])], [(TEXT, GREEK)]),
    **{name: ([(T, bytes.fromhex(text))], [(TEXT, bytes.fromhex(text))] if valid == "valid" else 1007) for name, valid, text in UTF8},
    **{f"{name} in fragments of a byte": ([(T_, b""), *((C_, bytes([byte])) for byte in bytes.fromhex(text)), (C, b"")],
                                          [(TEXT, bytes.fromhex(text))] if valid == "valid" else 1007) for name, valid, text in UTF8},
    **{f"6 behind ASCII, {text}": ([(T, b"-" * 40 + bytes.fromhex(text))], 1007) for _, valid, text in UTF8 if valid == "invalid"},
    # 7
    "7.1.1": ([(T, b"a"), close(1000)], [(TEXT, b"a"), 1000]),
    "7.1.2": ([close(1000), (CL, b"")], 1000),
    "7.1.3": ([close(1000), (PI, b"")], 1000),
    "7.1.4": ([close(1000), (T, b"b")], 1000),
    "7.1.5": ([(T_, b"a"), close(1000), (C, b"b")], 1000),
    "7.1.6": ([(T, X * (256 << 10)), (T, b"Hello World!"), close(1000), (PI, b"")],
              [(TEXT, X * (256 << 10)), (TEXT, b"Hello World!"), 1000]),
    "7.3.1": ([(CL, b"")], 1005),
    "7.3.2": ([(CL, b"\x03")], 1002),
    "7.3.3": ([close(1000)], 1000),
    "7.3.4": ([close(1000, b"Hello World!")], 1000),
    "7.3.5": ([close(1000, X * 123)], 1000),
    "7.3.6": ([close(1000, X * 124)], 1002),
    "7.5.1": ([close(1000, b"\xce\xba\xed\xa0\x80")], 1007),
    **{f"7.7.{at}": ([close(code)], code) for at, code in enumerate(CODES, 1)},
    **{f"7.7 {code}": ([close(code)], code) for code in (1012, 1013, 1014)},
    **{f"7.9.{at}": ([close(code)], 1002) for at, code in enumerate(NO_CODES, 1)},
    "7.9 1015": ([close(1015)], 1002),
    **{f"7.13.{at}": ([close(code)], 1002) for at, code in enumerate((5000, 65535), 1)},
    # 10
    "10.1.1": ([(T_, X * 1300), *[(C_, X * 1300)] * 49, (C, X * 536)], [(TEXT, X * 65536)]),
}
# What has come so far cannot become a text, whatever follows: nothing does.
AT_ONCE = {
    "6.4.1": frame(T_, GREEK) + frame(C_, b"\xf4\x90\x80\x80"),
    "6.4.2": frame(T_, GREEK + b"\xf4") + frame(C_, b"\x90"),
    "6.4.3": frame(T, GREEK + b"\xf4\x90\x80\x80edited")[:-6],
    "6.4.4": frame(T, GREEK + b"\xf4\x90\x80\x80edited")[:-8],
    "a long one": frame(T, b"abc\xff" + b"x" * 1000)[:20],
}
HOW = {"whole": None, "in halves": 2, "in pieces": 7}


def exchange(ws, sent, expected, pieces):
    data = b"".join(frame(first, payload) for first, payload in sent)
    ws.said_close = any(first == CL for first, _ in sent)
    step = len(data) if pieces is None else max(1, len(data) // pieces)
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(data), step):
            ws.send(data[at:at + step])
    for what in expected if isinstance(expected, list) else [expected]:
        if isinstance(what, int):
            assert ws.closed()[0] == what
        else:
            assert ws.receive() == what


def numbers(names):
    return {number for name in names for number in re.split("[ ,]", name) if re.fullmatch(r"\d+(\.\d+)+", number)}


def test_every_case_is_there():
    """In the table here and in that of the codec alone."""
    codec = (REPO / "tests/unit/test_ws.c").read_text()
    for found in (numbers([*TABLE, *AT_ONCE]), numbers([*re.findall(r'"(\d[^"]*)"', codec), *(name for name, _, _ in UTF8)])):
        missing = [f"{kind}.{n}" for kind, count in CASES.items() for n in range(1, count + 1) if f"{kind}.{n}" not in found]
        assert not missing, missing


@pytest.mark.parametrize("how", HOW)
def test_table(server, how):
    failed = []
    for name, (sent, expected) in TABLE.items():
        with WebSocket(server.port, "/echo") as ws:
            try:
                exchange(ws, sent, expected, HOW[how])
            except (AssertionError, OSError) as e:
                failed.append(f"{name}: {e!r}")
    assert not failed, "\n".join(failed)


def test_byte_by_byte(server):
    """Each byte in a segment of its own, of those that are short."""
    for name, (sent, expected) in TABLE.items():
        if sum(len(payload) for _, payload in sent) > 60:
            continue
        with WebSocket(server.port, "/echo") as ws:
            exchange(ws, sent, expected, 1000)


@pytest.mark.parametrize("data", [
    frame(T, b"abc", masked=False), frame(PI, b"", masked=False), frame(T, b"abc", length=16), frame(T, b"abc", length=64),
    frame(B, b"x" * 65535, length=64), struct.pack("!BBQ", B, 0xFF, 1 << 63) + b"abcd",
], ids=["unmasked", "unmasked ping", "two bytes for one", "eight bytes for one", "eight bytes for two", "past 63 bits"])
def test_bad_frames(server, data):
    with WebSocket(server.port, "/echo") as ws:
        ws.send(data)
        assert ws.closed()[0] == 1002


@pytest.mark.parametrize("data", AT_ONCE.values(), ids=AT_ONCE)
def test_invalid_text_fails_before_its_message_ends(server, data):
    with WebSocket(server.port, "/echo") as ws:
        ws.send(data)
        assert ws.closed()[0] == 1007


def test_sizes(server):
    """Up to 16 MiB comes back; a byte more is refused by its header alone."""
    for n in (1 << 20, 16 << 20):
        payload = os.urandom(1 << 16) * (n >> 16)
        with WebSocket(server.port, "/echo") as ws:
            ws.frame(B, payload)
            assert ws.receive(30) == (BINARY, payload)
            ws.end()
            assert ws.closed() == (1000, "")
    with WebSocket(server.port, "/echo") as ws:
        ws.send(struct.pack("!BBQ", B, 0xFF, (16 << 20) + 1) + b"abcd")
        assert ws.closed()[0] == 1009
    with WebSocket(server.port, "/echo") as ws:
        ws.frame(B_, b"x" * (16 << 20))
        ws.send(struct.pack("!BB", C, 0x81))
        ws.send(b"abcdx")
        assert ws.closed(30)[0] == 1009


def test_what_comes_with_the_handshake(server):
    """Frames in the same segment as the request are not lost."""
    extra = frame(T, b"first") + frame(PI, b"p") + frame(T, b"x" * 5000)
    with WebSocket(server.port, "/echo", extra=extra) as ws:
        assert [ws.receive() for _ in range(3)] == [(TEXT, b"first"), (PONG, b"p"), (TEXT, b"x" * 5000)]


def test_who_does_not_read_is_not_read_from(server):
    """Echoes wait in the kernel's buffers, not in ours."""
    def resident():
        with open(f"/proc/{server.pid}/statm") as f:
            return int(f.read().split()[1]) * 4096
    before, data = resident(), frame(B, b"x" * 60000)
    with WebSocket(server.port, "/echo", receive_buffer=4096) as ws:
        ws.socket.settimeout(patience(1))
        with contextlib.suppress(TimeoutError):
            for _ in range(2000):
                ws.socket.sendall(data)
        assert resident() - before < 30 << 20


def test_peers_that_vanish(server):
    for n in range(20):
        ws = WebSocket(server.port, "/echo")
        ws.send(frame(B, b"x" * 100)[:n])
        ws.close()
    with WebSocket(server.port, "/echo") as ws:
        ws.text("still there")
        assert ws.receive() == (TEXT, b"still there")


def test_many_messages(server):
    """A thousand small ones at once, in their order."""
    with WebSocket(server.port, "/echo") as ws:
        ws.send(b"".join(frame(T, str(n).encode()) for n in range(1000)))
        assert [ws.receive()[1] for _ in range(1000)] == [str(n).encode() for n in range(1000)]
        start = time.monotonic()
        ws.end(1001, b"bye")
        assert ws.closed() == (1001, "")
        assert time.monotonic() - start < patience(2)


def test_how_many_are_echoed(server):
    """Each may hold 32 MiB, so there are 64 at most; others' ends may not have been seen yet."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(WebSocket(server.port, "/echo")) for _ in range(65)]
        assert found[-1].closed()[0] == 4429


def test_without_the_option_there_is_no_echo(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS) as server, pytest.raises(Refused) as refused:
        WebSocket(server.port, "/echo")
    assert refused.value.response.status == 404

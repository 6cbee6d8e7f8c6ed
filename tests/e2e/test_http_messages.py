"""Requests to the letter of RFC 9112: which are answered, which are refused, and that none hides a second one."""
import concurrent.futures
import contextlib
import random
import select
import socket

import pytest

from harness import Closed, Server, patience, wait_until
from problems import problem

ENDPOINTS = {
    "hello.sql": "-- A greeting.\n-- @route GET /api/hello\nSELECT json_build_object('hello', 'world')",
    "item.sql": "-- An item.\n-- @route GET /api/items/:id\n-- @path id text\nSELECT json_build_object('id', :id)",
}
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HOST = b"Host: localhost\r\n"
# What an attacker would have taken for a request of its own. Its answer, and its line in the access log,
# would show the id.
SMUGGLED = b"GET /api/items/smuggled HTTP/1.1\r\n" + HOST + b"X-Request-Id: smuggled\r\n\r\n"


@pytest.fixture(scope="module")
def server(cluster, empty_template, request):
    cluster.create("http_messages", empty_template)
    request.addfinalizer(lambda: cluster.drop("http_messages"))
    with Server(cluster, "http_messages", endpoints=ENDPOINTS,
                config={"http": {"access_log": "./access.log", "max_body": "1000", "max_url": "1KiB"}}) as server:
        yield server
        # stderr's writer and the access log's are the same thread, so this waits for both.
        assert server.get("/api/hello", {"X-Request-Id": "the-last"}).status == 200
        log = server.folder / "access.log"
        wait_until(lambda: "id=the-last" in log.read_text(), what="the last line of the access log")
        assert "smuggled" not in log.read_text()


def get(path=b"/api/hello", headers=b""):
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + headers + b"\r\n"


def answers_until_close(server, data, seconds=5):
    """Every answer to the bytes, and whether the server then closed the connection."""
    answers = []
    with server.connect(seconds) as connection:
        connection.send(data)
        while True:
            try:
                answers.append(connection.response())
            except Closed:
                return answers, True
            except TimeoutError:
                return answers, False


# ---- refused -------------------------------------------------------------------------------------

# name of the case: (the request, the status; None where libmicrohttpd may close without a word)
REFUSED = {
    # the request line
    "no version": (b"GET /api/hello\r\n" + HOST + b"\r\n", 400),
    "HTTP/0.9 spelled out": (b"GET /api/hello HTTP/0.9\r\n" + HOST + b"\r\n", 505),
    "HTTP/1.2": (b"GET /api/hello HTTP/1.2\r\n" + HOST + b"\r\n", 505),
    "HTTP/2.0": (b"GET /api/hello HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.10": (b"GET /api/hello HTTP/1.10\r\n" + HOST + b"\r\n", 400),
    "a version in small letters": (b"GET /api/hello http/1.1\r\n" + HOST + b"\r\n", 400),
    "no name of a protocol": (b"GET /api/hello 1.1\r\n" + HOST + b"\r\n", 400),
    "a fraction of a version": (b"GET /api/hello HTTP/1\r\n" + HOST + b"\r\n", 400),
    "a blank in the target": (b"GET /api/items/a b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a tab in the target": (b"GET /api/items/a\tb HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two blanks before the target": (b"GET  /api/hello HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "two blanks before the version": (b"GET /api/hello  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a blank behind the version": (b"GET /api/hello HTTP/1.1 \r\n" + HOST + b"\r\n", 400),
    "a raw NUL in the target": (b"GET /api/hello\0 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a raw NUL in the middle of the target": (b"GET /api/items/a\0b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a raw NUL in the query": (b"GET /api/hello?a=\0b HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a raw NUL in the method": (b"GET\0 /api/hello HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a raw NUL in the version": (b"GET /api/hello HTTP/1.1\0\r\n" + HOST + b"\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "nothing but blanks": (b"   \r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 64 + b"\r\n\r\n", 400),

    # Host
    "no Host": (b"GET /api/hello HTTP/1.1\r\n\r\n", 400),
    "no Host in HTTP/1.0": (b"GET /api/hello HTTP/1.0\r\n\r\n", 400),
    "an empty Host": (b"GET /api/hello HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "two Hosts": (get(headers=HOST), 400),
    "two different Hosts": (get(headers=b"host: 127.0.0.1\r\n"), 400),
    "a Host with a path": (b"GET /api/hello HTTP/1.1\r\nHost: localhost/x\r\n\r\n", 400),
    "a Host with a user": (b"GET /api/hello HTTP/1.1\r\nHost: a@localhost\r\n\r\n", 400),
    "a Host with a blank": (b"GET /api/hello HTTP/1.1\r\nHost: local host\r\n\r\n", 400),
    "a list of Hosts": (b"GET /api/hello HTTP/1.1\r\nHost: localhost, localhost\r\n\r\n", 400),

    # fields
    "whitespace before the colon": (get(headers=b"X-A : b\r\n"), 400),
    "a tab before the colon": (get(headers=b"X-A\t: b\r\n"), 400),
    "whitespace before Content-Length's colon": (get(headers=b"Content-Length : 5\r\n") + b"hello" + SMUGGLED, 400),
    "whitespace before Transfer-Encoding's colon": (get(headers=b"Transfer-Encoding : chunked\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "a field without a colon": (get(headers=b"X-A\r\n"), 400),
    "a field without a name": (get(headers=b": b\r\n"), 400),
    "a folded field": (get(headers=b"X-A: b\r\n c\r\n"), 400),
    "a folded first field": (b"GET /api/hello HTTP/1.1\r\n X-A: b\r\n" + HOST + b"\r\n", 400),
    "a folded Content-Length": (get(headers=b"Content-Length:\r\n 5\r\n") + b"hello" + SMUGGLED, 400),
    "a folded Transfer-Encoding": (get(headers=b"Transfer-Encoding:\r\n chunked\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "a NUL in a field's value": (get(headers=b"X-A: a\0b\r\n"), 400),
    "a NUL in a field's name": (get(headers=b"X-\0A: b\r\n"), 400),
    "a control character in a value": (get(headers=b"X-A: a\x01b\r\n"), 400),
    "DEL in a value": (get(headers=b"X-A: a\x7fb\r\n"), 400),
    "a bare CR in a value": (get(headers=b"X-A: a\rb\r\n"), 400),
    "a bare CR before a hidden field": (get(headers=b"X-A: a\rContent-Length: 5\r\n") + b"hello" + SMUGGLED, 400),
    "a bare CR in the request line": (b"GET /api/hello\r HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a NUL behind a length": (get(headers=b"Content-Length: 5\0 5\r\n") + b"hello" + SMUGGLED, 400),
    "a NUL behind a coding": (get(headers=b"Transfer-Encoding: chunked\0x\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "a request line that ends in a bare newline": (b"GET /api/hello HTTP/1.1\n" + HOST + b"\r\n", 400),
    "a field that ends in a bare newline": (get(headers=b"X-A: b\nX-B: c\r\n"), 400),
    "a head all in bare newlines": (b"GET /api/hello HTTP/1.1\nHost: localhost\n\n", 400),
    "a bare newline hides a length": (get(headers=b"X-A: b\nContent-Length: 5\r\n") + b"hello" + SMUGGLED, 400),
    "a blank in a name": (get(headers=b"X A: b\r\n"), 400),
    "a quote in a name": (get(headers=b"X\"A: b\r\n"), 400),
    "a byte beyond ASCII in a name": (get(headers=b"X-\xc3\xa4: b\r\n"), 400),

    # lengths
    "Content-Length twice, the same": (get(headers=b"Content-Length: 5\r\nContent-Length: 5\r\n") + b"hello" + SMUGGLED, 400),
    "Content-Length twice, different": (get(headers=b"Content-Length: 0\r\nContent-Length: 5\r\n") + SMUGGLED, 400),
    "Content-Length twice in other cases": (get(headers=b"content-length: 0\r\nCONTENT-LENGTH: 5\r\n") + SMUGGLED, 400),
    "a list of lengths": (get(headers=b"Content-Length: 0, 5\r\n") + SMUGGLED, 400),
    "an empty length": (get(headers=b"Content-Length:\r\n") + SMUGGLED, 400),
    "a length with a plus": (get(headers=b"Content-Length: +5\r\n") + b"hello" + SMUGGLED, 400),
    "a negative length": (get(headers=b"Content-Length: -1\r\n") + SMUGGLED, 400),
    "minus zero": (get(headers=b"Content-Length: -0\r\n") + SMUGGLED, 400),
    "a hexadecimal length": (get(headers=b"Content-Length: 0x5\r\n") + b"hello" + SMUGGLED, 400),
    "a length with a fraction": (get(headers=b"Content-Length: 5.0\r\n") + b"hello" + SMUGGLED, 400),
    "a length with a blank inside": (get(headers=b"Content-Length: 5 5\r\n") + b"hello" + SMUGGLED, 400),
    "a length with a word behind it": (get(headers=b"Content-Length: 5x\r\n") + b"hello" + SMUGGLED, 400),
    "a length in another script": (get(headers=b"Content-Length: \xd9\xa5\r\n") + b"hello" + SMUGGLED, 400),
    "a length that wraps 64 bits to 5": (get(headers=b"Content-Length: 18446744073709551621\r\n") + b"hello" + SMUGGLED, (400, 413)),
    "a length of 64 bits": (get(headers=b"Content-Length: 18446744073709551615\r\n") + SMUGGLED, (400, 413)),
    "a length of thirty digits": (get(headers=b"Content-Length: 100000000000000000000000000005\r\n") + b"hello" + SMUGGLED, (400, 413)),
    "a body longer than max_body": (get(headers=b"Content-Length: 1001\r\n") + b"x" * 1001 + SMUGGLED, 413),

    # codings
    "length and coding": (get(headers=b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "coding and length": (get(headers=b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "length 0 and coding": (get(headers=b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "coding twice": (get(headers=b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "coding identity": (get(headers=b"Transfer-Encoding: identity\r\n") + SMUGGLED, 400),
    "coding gzip": (get(headers=b"Transfer-Encoding: gzip\r\n") + SMUGGLED, 400),
    "coding gzip, chunked": (get(headers=b"Transfer-Encoding: gzip, chunked\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "coding chunked, identity": (get(headers=b"Transfer-Encoding: chunked, identity\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "coding identity and then chunked": (get(headers=b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "coding xchunked": (get(headers=b"Transfer-Encoding: xchunked\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "coding in quotes": (get(headers=b"Transfer-Encoding: \"chunked\"\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "coding with a parameter": (get(headers=b"Transfer-Encoding: chunked;a=b\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "an empty coding": (get(headers=b"Transfer-Encoding:\r\n") + SMUGGLED, 400),
    "coding behind a vertical tab": (get(headers=b"Transfer-Encoding: \x0bchunked\r\n") + b"0\r\n\r\n" + SMUGGLED, 400),
    "coding in HTTP/1.0": (b"GET /api/hello HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),

}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(server, case):
    data, status = REFUSED[case]
    answers, closed = answers_until_close(server, data)
    assert closed, f"the connection stays open after {answers}"
    assert len(answers) <= 1, f"a second request was answered: {answers}"
    if answers:
        assert answers[0].status in (status if isinstance(status, tuple) else (status,)), answers
        assert answers[0].header("X-Request-Id") != "smuggled"
        assert b"hello" not in answers[0].body


# Bodies in chunks that are not quite: libmicrohttpd takes some of them. None may end where a second request
# begins, so nothing behind a chunked body is answered, not even behind a good one.
CHUNKS = {
    "good": b"5\r\nhello\r\n0\r\n\r\n",
    "empty": b"0\r\n\r\n",
    "with a trailer": b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n",
    "a chunk's size with a minus": b"-1\r\nx\r\n0\r\n\r\n",
    "a chunk's size with a plus": b"+1\r\nx\r\n0\r\n\r\n",
    "a chunk's size with 0x": b"0x1\r\nx\r\n0\r\n\r\n",
    "a chunk's size with a blank in front": b" 1\r\nx\r\n0\r\n\r\n",
    "a chunk's size with a word": b"1z\r\nx\r\n0\r\n\r\n",
    "an empty size": b"\r\nx\r\n0\r\n\r\n",
    "a chunk's size that wraps to 0": b"10000000000000000\r\n\r\n",
    "a chunk's size that ends in a bare newline": b"5\nhello\r\n0\r\n\r\n",
    "a chunk that ends in a bare newline": b"5\r\nhello\n0\r\n\r\n",
    "a last chunk that ends in a bare newline": b"5\r\nhello\r\n0\n\r\n",
    "a body that ends in a bare newline": b"5\r\nhello\r\n0\r\n\n",
    "an extension that ends in a bare newline": b"5;a\nhello\r\n0\r\n\r\n",
    "a bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a chunk's size with a blank behind": b"5 \r\nhello\r\n0\r\n\r\n",
    "a folded trailer": b"0\r\nX-A: b\r\n c\r\n\r\n",
    "a chunk longer than it says": b"1\r\nxyz\r\n0\r\n\r\n",
    "a chunk shorter than it says": b"3\r\nx\r\n0\r\n\r\n",
    "a trailer that looks like a length": b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
    "no empty line at the end": b"5\r\nhello\r\n0\r\n",
}


@pytest.mark.parametrize("case", CHUNKS)
def test_nothing_behind_chunks_is_answered(server, case):
    answers, closed = answers_until_close(server, get(headers=CHUNKED) + CHUNKS[case] + SMUGGLED)
    assert closed and len(answers) <= 1, answers
    if answers:
        assert answers[0].status in (200, 400, 413), answers
        assert answers[0].header("X-Request-Id") != "smuggled"
        assert answers[0].header("Connection").lower() == "close"


# What never ends is never answered.
ENDLESS = {
    "a chunk of 64 bits": get(headers=b"Transfer-Encoding: chunked\r\n") + b"ffffffffffffffff\r\n" + SMUGGLED,
    "a head all in bare CRs": b"GET /api/hello HTTP/1.1\rHost: localhost\r\r" + SMUGGLED.replace(b"\r\n", b"\r"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_endless(server, case):
    answers, _ = answers_until_close(server, ENDLESS[case], 0.5)
    assert answers == []


# ---- foreign callers -----------------------------------------------------------------------------

FOREIGN = {
    "another name": b"Host: admin.example.org\r\n",
    "another address": b"Host: 10.0.0.1\r\n",
    "another address of IPv6": b"Host: [::2]\r\n",
    "our name as a prefix": b"Host: localhost.example.org\r\n",
    "our name as a suffix": b"Host: notlocalhost\r\n",
    "our address as a prefix": b"Host: 127.0.0.1.example.org\r\n",
    "127 and a word": b"Host: 127.example.org:80\r\n",
    "brackets left open": b"Host: [::1\r\n",
    "a word behind the brackets": b"Host: [::1]example.org\r\n",
    "Forwarded": HOST + b"Forwarded: for=192.0.2.1\r\n",
    "X-Forwarded-For": HOST + b"X-Forwarded-For: 192.0.2.1\r\n",
    "x-forwarded-host": HOST + b"x-forwarded-host: localhost\r\n",
    "absolute-form of another host": (b"http://admin.example.org/api/hello", HOST),
    "X-Forwarded-Proto": HOST + b"X-Forwarded-Proto: https\r\n",
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_callers_are_refused(server, case):
    target, fields = FOREIGN[case] if isinstance(FOREIGN[case], tuple) else (b"/api/hello", FOREIGN[case])
    answers, closed = answers_until_close(server, b"GET " + target + b" HTTP/1.1\r\n" + fields + b"\r\n" + SMUGGLED)
    assert len(answers) == 1 and closed
    problem(answers[0], 403)


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "localhost:8080", "127.0.0.1", "127.0.0.1:1", "127.1.2.3",
                                  "[::1]", "[::1]:8080"])
def test_own_names(server, host):
    assert server.get("/api/hello", {"Host": host}).status == 200


# ---- taken ---------------------------------------------------------------------------------------

# name of the case: the request; it is answered 200 and the next one on the same connection too.
TAKEN = {
    "plain": get(),
    "field names in any case": b"GET /api/hello HTTP/1.1\r\nhOST: localhost\r\n\r\n",
    "no blank behind the colon": b"GET /api/hello HTTP/1.1\r\nHost:localhost\r\n\r\n",
    "blanks around a value": b"GET /api/hello HTTP/1.1\r\nHost: \t localhost \t \r\n\r\n",
    "an empty value": get(headers=b"X-A:\r\n"),
    "a value beyond ASCII": get(headers=b"X-A: \xc3\xa4\xff\r\n"),
    "a tab inside a value": get(headers=b"X-A: a\tb\r\n"),
    "a repeated field of ours": get(headers=b"X-A: a\r\nX-A: b\r\n"),
    "names that only begin like a proxy's": get(headers=b"X: 1\r\nX-F: 1\r\nForward: 1\r\n"),
    "odd but allowed names": get(headers=b"!#$%&'*+-.^_`|~09az: x\r\n"),
    "an empty query": get(b"/api/hello?"),
    "absolute-form": get(b"http://localhost/api/hello"),
    "absolute-form with a query": get(b"HTTP://127.0.0.1:80/api/hello?a=b"),
    "an empty line in front": b"\r\n" + get(),
    "Content-Length 0": get(headers=b"Content-Length: 0\r\n"),
    "Content-Length with leading zeros": get(headers=b"Content-Length: 005\r\n") + b"hello",
    "a body is read and dropped": get(headers=b"Content-Length: 5\r\n") + b"hello",
    "a body that looks like a request": get(headers=b"Content-Length: %d\r\n" % len(SMUGGLED)) + SMUGGLED,
    "a body of max_body bytes": get(headers=b"Content-Length: 1000\r\n") + b"x" * 1000,
    "Expect of something else": get(headers=b"Expect: a-miracle\r\n"),
    "an upgrade that is not offered": get(headers=b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    "Connection keep-alive": get(headers=b"Connection: keep-alive\r\n"),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(server, case):
    with server.connect() as connection:
        for _ in range(2):
            connection.send(TAKEN[case])
            answer = connection.response()
            assert answer.status == 200 and answer.json() == {"hello": "world"}
        connection.send(get(b"/api/items/next"))
        assert connection.response().json() == {"id": "next"}


# The same, but the connection is closed behind it.
TAKEN_IN_CHUNKS = {
    "an empty chunked body": get(headers=CHUNKED) + b"0\r\n\r\n",
    "chunks": get(headers=CHUNKED) + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    "a chunk that looks like a request": get(headers=CHUNKED) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
    "sizes with leading zeros and capitals": get(headers=CHUNKED) + b"000A\r\n0123456789\r\n000\r\n\r\n",
    "a chunk's extension": get(headers=CHUNKED) + b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "trailers": get(headers=CHUNKED) + b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n",
    "chunked in capitals": get(headers=b"TRANSFER-ENCODING: Chunked\r\n") + b"0\r\n\r\n",
    "chunks of max_body bytes": get(headers=CHUNKED) + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("case", TAKEN_IN_CHUNKS)
def test_taken_in_chunks(server, case):
    answers, closed = answers_until_close(server, TAKEN_IN_CHUNKS[case])
    assert [a.json() for a in answers] == [{"hello": "world"}] and closed


def test_every_byte_alone(server):
    requests = (get(b"/api/items/a%2Fb?x=1", b"Content-Length: 5\r\n") + b"hello"
                + get(headers=CHUNKED) + b"5;a\r\nhello\r\n0\r\nX-B: c\r\n\r\n")
    with server.connect() as connection:
        for i in range(len(requests)):
            connection.send(requests[i:i + 1])
        assert connection.response().json() == {"id": "a/b"}
        assert connection.response().json() == {"hello": "world"}


@pytest.mark.parametrize("cut", range(0, len(get(headers=b"Content-Length: 5\r\n") + b"hell"), 7))
def test_a_client_that_leaves_early_harms_nobody(server, cut):
    with server.connect() as connection:
        connection.send((get(headers=b"Content-Length: 5\r\n") + b"hell")[:cut])
    assert server.get("/api/hello").status == 200


def test_expect_continue(server):
    with server.connect() as connection:
        connection.send(get(headers=b"Content-Length: 5\r\nExpect: 100-continue\r\n"))
        assert connection.response().status == 100
        connection.send(b"hello")
        assert connection.response().status == 200


def test_expect_continue_for_a_body_that_is_too_large(server):
    answers, closed = answers_until_close(server, get(headers=b"Content-Length: 5000\r\nExpect: 100-continue\r\n"))
    assert [a.status for a in answers] == [413] and closed


# ---- lengths that are too much -------------------------------------------------------------------

def test_target_at_its_maximum(server):
    path = "/api/hello?" + "x" * (1024 - len("/api/hello?"))
    assert server.get(path).status == 200
    problem(server.get(path + "x"), 414)


def test_target_far_beyond_its_maximum(server):
    answers, closed = answers_until_close(server, get(b"/api/hello?" + b"x" * 10_000))
    assert [a.status for a in answers] == [414] and closed
    problem(answers[0], 414)


@pytest.mark.parametrize("size", [20_000, 100_000, 1_000_000])
def test_target_beyond_all_memory(server, size):
    try:
        answers, closed = answers_until_close(server, get(b"/api/" + b"x" * size), patience(12))
    except (ConnectionResetError, BrokenPipeError):
        return
    assert closed and [a.status for a in answers] in ([], [414], [431])


@pytest.mark.parametrize("header", [b"X-A: " + b"x" * 100_000 + b"\r\n", b"X-A: b\r\n" * 20_000], ids=["one", "many"])
def test_head_beyond_all_memory(server, header):
    try:
        answers, closed = answers_until_close(server, get(headers=header), patience(12))
    except (ConnectionResetError, BrokenPipeError):
        return
    assert closed and [a.status for a in answers] in ([], [431], [413])


@pytest.mark.parametrize("size", [100, 5000, 8000, 10_000, 13_000])
def test_large_heads_in_pieces(server, size):
    request = get(headers=b"X-A: " + b"x" * size + b"\r\nX-B: c\r\nContent-Length: 2\r\n") + b"hi"
    with server.connect() as connection:
        for _ in range(2):
            for start in range(0, len(request), 3000):
                connection.send(request[start:start + 3000])
                select.select([connection.socket], [], [], 0.001)
            assert connection.response().status == 200


@pytest.mark.parametrize("size", [21_000, 24_000, 33_000, 50_000])
def test_heads_beyond_their_memory(server, size):
    """Told, and closed; the next client is served."""
    answers, closed = answers_until_close(server, get(headers=b"X-A: " + b"x" * size + b"\r\n"))
    assert [a.status for a in answers] == [431] and closed
    assert server.get("/api/hello").status == 200


def test_a_session_cookie_of_8_KiB(server):
    with server.connect() as connection:
        for _ in range(2):
            connection.send(get(headers=b"Cookie: session=" + b"x" * 8184 + b"\r\n"))
            assert connection.response().status == 200


def test_many_fields(server):
    fields = b"".join(b"X-%d: %d\r\n" % (i, i) for i in range(120))
    with server.connect() as connection:
        for _ in range(2):
            connection.send(get(headers=fields))
            assert connection.response().status == 200


def test_body_beyond_max_body_by_length(server):
    answers, closed = answers_until_close(server, get(headers=b"Content-Length: 1001\r\n"))
    assert [a.status for a in answers] == [413] and closed
    problem(answers[0], 413)


def test_body_beyond_max_body_by_chunks(server):
    body = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    with server.connect() as connection:
        connection.send(get(headers=CHUNKED) + body * 3 + b"0\r\n\r\n")
        problem(connection.response(), 413)


def test_endless_chunks_are_cut_off(server):
    chunk = b"ffff\r\n" + b"x" * 0xffff + b"\r\n"
    with server.connect() as connection:
        connection.send(get(headers=CHUNKED))
        with pytest.raises(ConnectionError):
            for _ in range(1000):
                connection.send(chunk)


# ---- several requests on a connection ------------------------------------------------------------

def test_pipelined_requests_are_answered_in_order(server):
    ids = [f"item-{i}" for i in range(100)]
    with server.connect() as connection:
        connection.send(b"".join(get(f"/api/items/{i}".encode()) for i in ids))
        assert [connection.response().json()["id"] for _ in ids] == ids


def test_pipelined_requests_of_all_kinds(server):
    requests = [
        (get(), 200), (get(b"/api/nope"), 404), (get(headers=b"Content-Length: 2\r\n") + b"hi", 200),
        (b"POST /api/hello HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi", 405), (get(b"/livez"), 200),
        (get(b"/api/items/%ff"), 400), (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 204),
        (get(headers=CHUNKED) + b"2\r\nhi\r\n0\r\n\r\n", 200),
    ]
    with server.connect() as connection:
        connection.send(b"".join(data for data, _ in requests))
        assert [connection.response().status for _ in requests] == [status for _, status in requests]


def test_what_is_pipelined_behind_a_refused_head_is_never_answered(server):
    answers, closed = answers_until_close(server, get() + get(headers=HOST) + SMUGGLED + SMUGGLED)
    assert [a.status for a in answers] == [200, 400] and closed


def test_what_is_pipelined_behind_connection_close_is_never_answered(server):
    answers, closed = answers_until_close(server, get(headers=b"Connection: close\r\n") + SMUGGLED)
    assert [a.status for a in answers] == [200] and closed
    assert answers[0].header("Connection").lower() == "close"


@pytest.mark.parametrize("value", [b"close", b"Close", b"x, close", b"close, x", b"keep-alive, close", b" close "])
def test_connection_close(server, value):
    answers, closed = answers_until_close(server, get(headers=b"Connection: " + value + b"\r\n") + SMUGGLED)
    assert [a.status for a in answers] == [200] and closed


def test_a_thousand_requests_on_a_connection(server):
    with server.connect() as connection:
        for i in range(1000):
            connection.send(get(f"/api/items/{i}".encode()))
            answer = connection.response()
            assert answer.status == 200 and answer.json() == {"id": str(i)}
        local = connection.socket.getsockname()
        assert local[1], "the same connection to the end"


def test_http_1_0_closes(server):
    answers, closed = answers_until_close(server, b"GET /api/hello HTTP/1.0\r\n" + HOST + b"\r\n" + SMUGGLED)
    assert [a.status for a in answers] == [200] and closed


def test_http_1_0_keeps_alive_when_asked(server):
    with server.connect() as connection:
        for _ in range(3):
            connection.send(b"GET /api/hello HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n")
            answer = connection.response()
            assert answer.status == 200 and answer.header("Connection").lower() == "keep-alive"


# ---- targets and methods -------------------------------------------------------------------------

MALFORMED_TARGETS = {
    "no slash": b"api/hello",
    "a fragment": b"/api/hello#x",
    "a broken escape": b"/api/hello%",
    "half an escape": b"/api/items/%4",
    "no hex digits": b"/api/items/%GG",
    "a byte beyond ASCII": b"/api/items/\xc3\xa4",
    "a control character": b"/api/items/\x01",
    "authority-form": b"localhost:80",
    "absolute-form without a host": b"http:///api/hello",
    "absolute-form with a user": b"http://user@localhost/api/hello",
    "another scheme": b"ftp://localhost/api/hello",
    "asterisk": b"*",
    "asterisk and more": b"*/api",
}


@pytest.mark.parametrize("case", MALFORMED_TARGETS)
def test_malformed_target(server, case):
    [answer] = server.raw(get(MALFORMED_TARGETS[case]))
    problem(answer, 400)


METHODS = {
    "POST": 405, "PUT": 405, "PATCH": 405, "DELETE": 405, "TRACE": 405, "CONNECT": 405, "PROPFIND": 405, "get": 405,
    "Head": 405, "options": 405, "A" * 40: 405,
}


@pytest.mark.parametrize("path", ["/api/hello", "/api/items/1", "/", "/livez", "/readyz"])
@pytest.mark.parametrize("method", METHODS)
def test_method_that_is_not_there(server, method, path):
    answer = server.request(method, path)
    problem(answer, METHODS[method])
    assert answer.header("Allow") == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("method", ["POST", "TRACE", "HEAD", "OPTIONS"])
def test_method_of_an_unknown_path(server, method):
    answer = server.request(method, "/api/nope")
    assert answer.status == 404 and answer.header("Allow") is None


def test_post_with_a_body_keeps_the_connection(server):
    with server.connect() as connection:
        for _ in range(2):
            connection.send(b"POST /api/hello HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello")
            assert connection.response().status == 405


@pytest.mark.parametrize("path", ["/api/hello", "/api/items/1", "/", "/livez", "/readyz", "*"])
def test_options(server, path):
    answer = server.request("OPTIONS", path)
    assert answer.status == 204 and answer.body == b""
    assert answer.header("Allow") == "GET, HEAD, OPTIONS"
    assert answer.header("Content-Type") is None


@pytest.mark.parametrize("path", ["/api/hello", "/api/items/1", "/", "/livez", "/readyz", "/api/nope", "/api/items/%ff"])
def test_head_is_get_without_the_body(server, path):
    def fields(answer):
        return {n: v for n, v in answer.headers if n not in ("Date", "X-Request-Id", "Server-Timing")}
    headers = {"X-Request-Id": "same"}
    got, head = server.get(path, headers), server.head(path, headers)
    assert head.status == got.status and head.body == b""
    assert fields(head) == fields(got)
    assert head.header("Content-Length") == str(len(got.body))


def test_head_keeps_the_connection(server):
    with server.connect() as connection:
        connection.send(b"HEAD /api/hello HTTP/1.1\r\n" + HOST + b"\r\n" + get())
        assert connection.response(head=True).status == 200
        assert connection.response().json() == {"hello": "world"}


# ---- anything ------------------------------------------------------------------------------------

PIECES = [b"\0", b"\r", b"\n", b"\r\n", b" ", b":", b"\t", b"\xff", b"%", b"%00", b"/", b"?", b"#", b"0", b"-", b"Host: a\r\n",
          b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1", b"\r\n\r\n", b"x" * 300]


def mutate(random, data):
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data))
        end = at + random.choice([0, 0, 1, 2, 10])
        data = data[:at] + random.choice([*PIECES, b"", data[at:at + 20]]) + data[end:]
    return data


@pytest.mark.parametrize("seed", range(4))
def test_random_requests_get_an_answer_or_none(server, seed):
    generator = random.Random(seed)
    good = [get(b"/api/items/a%2Fb?x=1&y=2", b"Accept: */*\r\nX-Request-Id: abc\r\n"), get(headers=b"Content-Length: 5\r\n") + b"hello",
            get(headers=CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"]
    for _ in range(75):
        data = mutate(generator, generator.choice(good))
        with server.connect(5) as connection, contextlib.suppress(ConnectionError):
            connection.send(data)
            ended = False
            while True:
                # Where the request is not whole the server waits for the rest, until it learns that there is none.
                if not ended and not connection.buffer and not select.select([connection.socket], [], [], 0.02)[0]:
                    connection.socket.shutdown(socket.SHUT_WR)
                    ended = True
                try:
                    status = connection.response().status
                except TimeoutError:
                    pytest.fail(f"neither an answer nor the end: {data!r}")
                assert status in (100, 200, 204, 400, 403, 404, 405, 413, 414, 431, 505), (status, data)
    assert server.get("/api/hello").json() == {"hello": "world"}


# ---- many at once --------------------------------------------------------------------------------

@pytest.mark.threads
def test_many_clients_with_requests_of_all_kinds(server):
    """Each client's answers are its own and in order, whatever the others do."""
    requests = [
        (lambda i: get(f"/api/items/{i}".encode()), 200), (lambda i: get(b"/api/nope"), 404), (lambda i: get(b"/"), 200),
        (lambda i: get(b"/api/items/%ff"), 400), (lambda i: get(headers=b"Content-Length: 5\r\n") + b"hello", 200),
        (lambda i: b"POST /api/hello HTTP/1.1\r\n" + HOST + b"\r\n", 405), (lambda i: get(b"/readyz"), 200),
    ]

    def client(number):
        for round_ in range(3):
            with server.connect(30) as connection:
                for start in range(0, 30, 3):
                    batch = [number * 1000 + round_ * 100 + start + i for i in range(3)]
                    connection.send(b"".join(requests[i % len(requests)][0](i) for i in batch))
                    for i in batch:
                        check(connection.response(), i)
                if number % 2:
                    connection.send(get(headers=HOST))
                    assert connection.response().status == 400 and connection.closed()
        return number

    def check(answer, i):
        kind = i % len(requests)
        assert answer.status == requests[kind][1], answer
        if kind == 0:
            assert answer.json() == {"id": str(i)}

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        running = [pool.submit(client, number) for number in range(1, 9)]
        position = len(server.log())
        server.reload()
        server.wait_log("reload: applied", since=position)
        assert [f.result() for f in running] == list(range(1, 9))


@pytest.mark.parametrize("threads, workers", [(1, 1), (4, 2)])
def test_any_number_of_threads(cluster, server, threads, workers):
    config = {"http": {"threads": threads}, "workers": {"threads": workers}, "database": {"pool_min": 1, "pool_max": workers}}
    with Server(cluster, "http_messages", endpoints=ENDPOINTS, config=config) as other:
        connections = [other.connect(30) for _ in range(40)]
        for i, connection in enumerate(connections):
            connection.send(get(f"/api/items/{i}".encode()) + get(f"/api/items/{i + 100}".encode()))
        for i, connection in enumerate(connections):
            assert connection.response().json() == {"id": str(i)}
            assert connection.response().json() == {"id": str(i + 100)}
            connection.close()

"""Cookies made by the real NextAuth 4, installed with npm for the time of the test."""
import json
import pathlib
import random
import re
import shutil
import subprocess

import pytest

import callers as c
from harness import SCRATCH, Server, patience

HERE = pathlib.Path(__file__).parent / "nextauth"
SECRET = "what the front end has as NEXTAUTH_SECRET"
ME = {"me.sql": "-- @route GET /api/me\n-- @role admin,student\n"
                "SELECT json_build_object('sub', :auth_sub, 'role', :auth_role)"}
HOUR = 3600
TOKENS = {
    "admin": {"name": "Ada Admin", "email": "ada@example.org", "picture": None, "sub": "user-1", "role": "ADMIN"},
    "student": {"name": "Stu Dent", "sub": "user-2", "role": "Student"},
    "roles": {"sub": "user-3", "role": ["Teacher", "admin"]},
    "unicode": {"name": "Ådå 🎓", "sub": "usér-4", "role": "admin"},
    "large": {"sub": "user-5", "role": "admin", "picture": "https://example.org/" + "x" * 5000},
    "nobody": {"name": "Nobody", "role": "admin"},
    "guest": {"sub": "user-6"},
}


def make(folder, secret, tokens, max_age=HOUR):
    asked = {"secret": secret, "cookies": [{"name": name, "token": token, "maxAge": max_age} for name, token in tokens.items()]}
    done = subprocess.run(["node", "make_cookies.mjs"], cwd=folder, input=json.dumps(asked), text=True, capture_output=True,
                          timeout=patience(60))
    assert done.returncode == 0, done
    return {made["name"]: made for made in json.loads(done.stdout)["cookies"]}


@pytest.fixture(scope="module")
def nextauth():
    """A folder with the package installed."""
    folder = SCRATCH / "nextauth"
    shutil.copytree(HERE, folder)
    done = subprocess.run(["npm", "install", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"], cwd=folder,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience(100))
    assert done.returncode == 0, f"npm could not install next-auth: {done}"
    assert json.loads((folder / "node_modules/next-auth/package.json").read_text())["version"].startswith("4.")
    return folder


@pytest.fixture(scope="module")
def made(nextauth):
    return make(nextauth, SECRET, TOKENS)


@pytest.fixture(scope="module")
def server(cluster, empty_template, request):
    cluster.create("nextauth", empty_template)
    request.addfinalizer(lambda: cluster.drop("nextauth"))
    secret = SCRATCH / "nextauth.secret"
    c.write(secret, SECRET + "\n")
    server = Server(cluster, "nextauth", endpoints=ME, token=True, config={"auth": {"nextauth_secret_file": secret}})
    c.prepare(cluster, "nextauth", server)
    with server:
        yield server


@pytest.mark.parametrize("name, subject, role", [("admin", "user-1", "admin"), ("student", "user-2", "student"),
                                                 ("roles", "user-3", "admin,teacher"), ("unicode", "usér-4", "admin")])
@pytest.mark.parametrize("cookie", [c.COOKIE, c.SECURE_COOKIE])
def test_opens(server, made, name, subject, role, cookie):
    answer = server.get("/api/me", c.session(made[name]["value"], cookie))
    assert answer.status == 200 and answer.json() == {"sub": subject, "role": role}


def test_its_own_chunks(server, made):
    pieces = made["large"]["chunks"]
    assert [piece["name"] for piece in pieces] == [f"{c.COOKIE}.{n}" for n in range(len(pieces))] and len(pieces) > 1
    fields = [f"{piece['name']}={piece['value']}" for piece in pieces]
    for order in (fields, fields[::-1]):
        assert server.get("/api/me", {"Cookie": "; ".join(order)}).json()["sub"] == "user-5"
    for missing in range(len(fields)):
        left = fields[:missing] + fields[missing + 1:]
        assert server.get("/api/me", {"Cookie": "; ".join(left)}).status == 401
    pieces = c.chunks(made["admin"]["value"])["Cookie"].split("; ")
    assert server.get("/api/me", {"Cookie": "; ".join(pieces)}).status == 200
    assert server.get("/api/me", {"Cookie": "; ".join([*pieces, pieces[0]])}).status == 401


def test_without_a_subject_or_a_role(server, made):
    assert server.get("/api/me", c.session(made["nobody"]["value"])).status == 401
    assert server.get("/api/me", c.session(made["guest"]["value"])).status == 403


def test_of_another_secret_or_expired(server, nextauth):
    other = make(nextauth, SECRET + "!", {"admin": TOKENS["admin"]})["admin"]
    assert server.get("/api/me", c.session(other["value"])).status == 401
    # Below zero by more than the leeway.
    expired = make(nextauth, SECRET, {"admin": TOKENS["admin"]}, max_age=-60)["admin"]
    answer = server.get("/api/me", c.session(expired["value"]))
    assert answer.status == 401 and "expired" in answer.header("WWW-Authenticate")


class Asker:
    """Many requests on one connection, and on another when the server has closed it."""

    def __init__(self, server):
        self.server, self.connection = server, None

    def status(self, value):
        self.connection = self.connection or self.server.connect()
        self.connection.send(b"GET /api/me HTTP/1.1\r\nHost: localhost\r\nCookie: " + c.COOKIE.encode() + b"=" + value + b"\r\n\r\n")
        answer = self.connection.response()
        if (answer.header("Connection") or "").lower() == "close":
            self.connection.close()
            self.connection = None
        return answer.status


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def test_any_flipped_bit_closes_it(server, made):
    value, asker = made["admin"]["value"], Asker(server)
    assert asker.status(value.encode()) == 200
    flips = 0
    for at, character in enumerate(value):
        for bit in range(6):
            other = "A" if character == "." else ALPHABET[ALPHABET.index(character) ^ 1 << bit]
            assert asker.status((value[:at] + other + value[at + 1:]).encode()) == 401, (at, bit)
            flips += 1
    assert flips > 200 and asker.status(value.encode()) == 200


def test_any_flipped_bit_of_its_text_closes_it(server, made):
    """Which may make it another header, too: one that is refused as such, never one that opens."""
    value, asker, dice = made["admin"]["value"].encode(), Asker(server), random.Random(7)
    for _ in range(600):
        at, bit = dice.randrange(len(value)), dice.randrange(8)
        flipped = value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1:]
        assert asker.status(flipped) in (400, 401), (at, bit)
    assert asker.status(value) == 200


def test_any_prefix_is_refused(server, made):
    value, asker = made["admin"]["value"].encode(), Asker(server)
    for end in range(len(value)):
        assert asker.status(value[:end]) == 401, end
    for more in (b"A", b".", b"=", b".AAAA"):
        assert asker.status(value + more) == 401
    assert re.fullmatch(rb"[A-Za-z0-9_-]+\.\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", value)

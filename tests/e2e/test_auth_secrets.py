"""What must not be seen is nowhere to be seen: logs, answers, the process's own files."""
import pathlib
import re
import resource
import signal
import subprocess

import pytest

import callers as c
from caching import settings
from harness import BINARY, Server, patience, wait_until

ENDPOINTS = {
    "me.sql": "-- @route GET /api/me\n-- @role admin,student\nSELECT json_build_object('sub', :auth_sub)",
    "fails.sql": "-- @route GET /api/fails\n-- @role admin,student\nSELECT 1 / (length(:auth_claims::text) * 0)",
}
# Of a token, what is too long to be there by chance, or to be an API key's id, which is public.
PIECE = 13


def pieces(token):
    """A token and what it is made of, but for its header, which many have in common."""
    parts = [part for part in re.split(r"[._]", token) if len(part) >= PIECE]
    return {token, *(part for part in parts if not part.startswith("eyJhbGciOi"))}


def shown(headers):
    for name, value in headers.items():
        for word in re.split(r"[;, =]+", value):
            if len(word) >= 40 and name in ("Authorization", "Cookie"):
                yield word


class Secrets:
    def __init__(self, issuer, keys, callers):
        self.texts = {issuer.jwt_secret, issuer.nextauth_secret, c.nextauth_key(issuer.nextauth_secret).hex()}
        for token in [*keys.values(), *(word for caller in callers for word in shown(caller.headers))]:
            self.texts |= pieces(token)
        assert len(self.texts) > 100

    def check(self, where, text):
        text = text if isinstance(text, str) else text.decode("latin-1")
        found = [secret for secret in self.texts if secret in text]
        assert not found, f"{where} has {found[:3]}"


@pytest.fixture(params=["files", "environment"])
def world(cluster, empty_database, tmp_path, request):
    issuer = c.Issuer(tmp_path / "issuer")
    access = tmp_path / "access.log"
    config = {"auth": issuer.config(), "log": {"level": "debug"}, "http": {"access_log": access, "development": "yes"}}
    env = {}
    if request.param == "environment":
        config["auth"] |= {"jwt_secret_file": None, "nextauth_secret_file": None}
        env = {"PROVOST_AUTH_JWT_SECRET": issuer.jwt_secret, "PROVOST_AUTH_NEXTAUTH_SECRET": issuer.nextauth_secret}
    server = Server(cluster, empty_database, endpoints=ENDPOINTS, token=True, config=config, env=env, allow_errors=True)
    c.prepare(cluster, empty_database, server)
    keys = c.make_keys(cluster, empty_database)
    with server:
        yield server, issuer, keys, access


PATHS = ("/api/me", "/api/fails", "/api/admin/cache", "/", "/nothing", "/api/me?%zz=1", "/api/admin/revocations")


def test_nowhere(world):
    server, issuer, keys, access = world
    callers = c.callers(issuer, keys)
    secrets = Secrets(issuer, keys, callers)
    passwords = {re.search("://[^:]+:([^@]+)@", url)[1] for url in (server.owner_dsn, server.sections["database"]["url"])}
    assert len(passwords) == 2 and min(map(len, passwords)) > PIECE
    secrets.texts |= passwords
    for body in c.revocations(keys):
        server.request("POST", "/api/admin/revocations", c.admin_headers(issuer), body)
    for caller in callers:
        for path in PATHS:
            for method in ("GET", "DELETE"):
                answer = server.request(method, path, caller.headers)
                secrets.check((caller, path), answer.body + repr(answer.headers).encode())
    # What is refused before anybody has looked at who asks.
    for headers in (c.admin_headers(issuer), c.session(issuer.cookie()), c.bearer(keys["admin"])):
        secrets.texts |= {piece for word in shown(headers) for piece in pieces(word)}
        fields = "".join(f"{n}: {v}\r\n" for n, v in headers.items())
        for head in (f"GET /api/me HTTP/1.1\r\n{fields}\r\n", f"GET /api/me HTTP/1.1\r\nHost: a\r\n{fields}{fields}\r\n",
                     f"GET /api/me HTTP/1.1\r\nHost: a\r\n{fields}bad line\r\n\r\n", f"GET /api/me HTTP/9.9\r\nHost: a\r\n{fields}\r\n",
                     f"GET /api/me HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: x\r\n\r\n"):
            for answer in server.raw(head.encode()):
                secrets.check("a refusal", answer.body + repr(answer.headers).encode())
    issuer.write_jwks()
    settings(server, {"auth": {"issuer": ""}})
    settings(server, {"auth": {"issuer": c.ISSUER}})
    wait_until(lambda: len(re.findall("keys and secrets were read anew|reload: applied", server.log())) >= 1, 12)
    process = pathlib.Path(f"/proc/{server.pid}")
    secrets.check("the environment", (process / "environ").read_bytes())
    secrets.check("the arguments", (process / "cmdline").read_bytes())
    for thread in (process / "task").iterdir():
        secrets.check("a thread's name", (thread / "comm").read_bytes())
    secrets.check("the log", server.log())
    lines = access.read_text()
    secrets.check("the access log", lines)
    assert lines.count("\n") > len(callers) * len(PATHS) and "sub=robot" in lines and "level=debug" in server.log()
    for command in (("check",), ("config", "print"), ("key", "list")):
        done = subprocess.run([BINARY, *command, "--config", server.ini], capture_output=True, env=server.environment(),
                              timeout=patience(30))
        secrets.check(command, done.stdout + done.stderr)


def test_secrets_lie_in_pages_that_core_dumps_leave_out(world):
    """VmFlags `dd`: MADV_DONTDUMP."""
    maps = pathlib.Path(f"/proc/{world[0].pid}/smaps").read_text()
    assert len(re.findall(r"^VmFlags:.*\bdd\b", maps, re.M)) >= 2


def cores_of(server):
    """What a crash leaves in the server's folder."""
    with server:
        resource.prlimit(server.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        server.signal(signal.SIGABRT)
        assert server.wait_exit() == -signal.SIGABRT
    return [file.name for file in server.folder.glob("*core*")]


def test_a_crash_leaves_no_core_dump(cluster, empty_database):
    """With `mode = none` it does, where the machine is set up for it; and then with `mode = token` it does not."""
    files = {"one.sql": "-- @route GET /api/one\nSELECT json_build_object('n', 1)"}
    if not cores_of(Server(cluster, empty_database, endpoints=files, triggers=False)):
        pytest.skip("no core dumps beside a process, or none of processes with a sanitizer, on this machine")
    assert cores_of(Server(cluster, empty_database, endpoints=files, token=True, triggers=False)) == []

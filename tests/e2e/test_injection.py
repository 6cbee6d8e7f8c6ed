"""Texts of callers never become SQL: whatever they send, the database runs the shipped statements."""
import contextlib
import re
from urllib.parse import quote, quote_plus

import psycopg2
import pytest

import callers as c
from harness import SCRATCH, Server

# All that this database was told to do, utility statements included.
RUN = """SELECT query FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = %s)
         AND userid = (SELECT oid FROM pg_roles WHERE rolname = 'provost_app')"""
OWN = "/* provost */"

TEXTS = [
    "'", "''", "' OR '1'='1", "' OR 1=1 --", "'; DROP TABLE course; --", "'); DELETE FROM course; --", "\\'; SELECT 1; --",
    "\\", "\\\\", "E'\\047'", "\"", "\"; SELECT 1; --", "--", "-- \n SELECT 1", "/*", "*/", "/* x */", "/*/**/", ";", ";;", "$$", "$$;SELECT 1;$$",
    "$tag$ x $tag$", "$1", "$2", ":id", ":search", "::text", "?", "%s", "%d%n", "{}", "{a,b}", "{\"a\"}", "NULL", "null", "true", "0", "-1", "1e309",
    "%", "_", "%%%", "\\%", "a%' OR 'a' LIKE 'a", "*", "(", ")", "((((", "[", "|", "&", "!", "<->", "a & b", "!a", "a:*", "'a':1A",
    "UNION SELECT password FROM \"user\"", "1; SELECT pg_sleep(9)", "pg_sleep(9)", "' || pg_sleep(9) || '", "COPY course TO PROGRAM 'id'",
    "\n", "\r\n", "\t", "\v", "\x01", "\x1f", "\x7f", "\x1b[31m", "\u0085", "\u00a0", "\u200b", "\u202e", "\u2028", "\ufeff", "\ufffd", "\uffff", "\U0010ffff",
    "ʼ", "＇", "‘", "’", "ä", "ß", "İ", "ı", "e\u0301", "Å", "Å", "ﬁ", "🎓", "👨‍👩‍👧", "日本語", "ع", "a\u0300" * 20, "x" * 36, "x" * 37, "x" * 100, "x" * 101,
    "x" * 2000, "'" * 100, "<script>alert(1)</script>", "../../etc/passwd", "..%2f", "${jndi:ldap://x}", "a=b&c=d", "#", " ", "  a  ", "+",
]
# As they are, percent-encoded already: bytes that are no text.
RAW = ["%00", "a%00b", "%00'", "%27", "%2527", "%u0027", "%bf%27", "%c0%a7", "%e0%80%a7", "%ff", "%fe%ff%00%27", "%ed%a0%80", "%f4%90%80%80", "%c3", "%80",
       "%", "%2", "%zz", "'", "%27%20OR%201=1--", "%EF%BC%87", "%25%32%37", "a;b", "'--", "%0d%0aX:1", "%5c%27", "+%27+OR+1", "%C2%00"]


@pytest.fixture(scope="module")
def issuer():
    return c.Issuer(SCRATCH / "injection-issuer")


@pytest.fixture(scope="module")
def server(cluster, database, issuer):
    server = Server(cluster, database, token=True, config={"auth": issuer.config(), "cache": {"ttl": "0"}})
    for path in list((server.folder / "endpoints").rglob("*.sql")):
        text = path.read_text()
        path.write_text("\n".join(line for line in text.split("\n") if not line.startswith("-- @cache")))
    server.write_endpoint("own/who.sql", "-- @route GET /api/who\n-- @role public\n"
                          "SELECT json_build_object('sub', :auth_sub, 'role', :auth_role, 'claims', :auth_claims::json)")
    c.prepare(cluster, database, server)
    with server:
        yield server


def ran(cluster, database):
    with contextlib.closing(psycopg2.connect(cluster.dsn())) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        cursor.execute(RUN, [database])
        found = {query for (query,) in cursor.fetchall()}
        connection.commit()
    return found


def encodings(text):
    """In a query and in a path; the same text each time."""
    return {quote(text, safe=""), quote_plus(text, safe=""), "".join(f"%{byte:02x}" for byte in text.encode())}


def targets(endpoint, parameter):
    """Paths that carry each of the corpus in that parameter, and what the others must have."""
    others = "".join(f"&{p['name']}=2025-01-01" for p in endpoint["parameters"] if p["required"] and p["in"] == "query"
                     and p["name"] != parameter["name"])
    values = {form for text in TEXTS for form in encodings(text)} | {form for form in RAW}
    for value in sorted(values):
        if parameter["in"] == "query":
            yield f"{endpoint['path']}?{parameter['name']}={value}{others}".replace(":id", "x")
        elif "/" not in value and "?" not in value:
            yield endpoint["path"].replace(f":{parameter['name']}", value) + ("?" + others[1:] if others else "")


def visible(target):
    """What may stand in a request's line; the rest is the business of test_http_messages.py."""
    return all(0x20 < ord(character) < 0x7f and character != "#" for character in target)


def baseline(cluster, database, server, headers, endpoints):
    """The statements of all endpoints, each having been asked in earnest."""
    for endpoint in endpoints:
        needed = "&".join(f"{p['name']}=2025-01-01" for p in endpoint["parameters"] if p["required"] and p["in"] == "query")
        answer = server.get(endpoint["path"].replace(":id", "x") + "?" + needed, headers)
        assert answer.status in (200, 404), (endpoint, answer)
    return ran(cluster, database)


def test_every_text_of_every_endpoint(cluster, database, server, issuer):
    headers = c.admin_headers(issuer)
    endpoints = [e for e in server.get("/", headers).json()["endpoints"] if e["method"] == "GET"]
    shipped = baseline(cluster, database, server, headers, endpoints)
    assert len([q for q in shipped if "SELECT" in q and not q.startswith(OWN)]) == len(endpoints) == 18
    fields = "".join(f"{n}: {v}\r\n" for n, v in headers.items())
    asked, statuses, tried = 0, {}, set()
    connection = server.connect(60)
    for endpoint in endpoints:
        for parameter in endpoint["parameters"]:
            if parameter["type"] not in ("text", "date"):
                continue
            tried.add((endpoint["name"], parameter["name"]))
            for target in filter(visible, targets(endpoint, parameter)):
                connection.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
                answer = connection.response()
                assert answer.status in (200, 400, 404), (target, answer)
                assert answer.status == 400 or b"syntax" not in answer.body
                asked, statuses[answer.status] = asked + 1, statuses.get(answer.status, 0) + 1
                if (answer.header("Connection") or "").lower() == "close":
                    connection.close()
                    connection = server.connect(60)
    connection.close()
    assert len(tried) >= 20 and asked > 3000 and all(statuses.get(status) for status in (200, 400, 404)), (statuses, tried)
    assert {query for query in ran(cluster, database) - shipped if not query.startswith(OWN)} == set()
    assert cluster.sql(database, "SELECT count(*) > 0 FROM course") == [(True,)]


def test_every_text_in_a_body(cluster, database, server, issuer):
    headers, path = c.admin_headers(issuer), "/api/admin/categories"

    def post(text):
        # As a name it becomes part of a slug, which a function looks for with SQL it has put together.
        return server.request("POST", path, headers, {"name": text, "description": text})
    assert post("In earnest").status == 201
    shipped, statuses = ran(cluster, database), set()
    for text in TEXTS:
        answer = post(text)
        statuses.add(answer.status)
        assert answer.status in (201, 400, 422), (text, answer)
        if answer.status == 201:
            made = answer.json()
            assert made["description"] == text and re.fullmatch("[a-z0-9-]{1,50}", made["slug"]), made
    assert statuses >= {201, 422}
    assert {query for query in ran(cluster, database) - shipped if not query.startswith(OWN)} == set()
    assert cluster.sql(database, "SELECT count(*) > 0 FROM course") == [(True,)]


def test_what_a_token_says(cluster, database, server, issuer):
    """Who signs tokens may be trusted; whom they name, and what they call themselves, less so."""
    headers = c.admin_headers(issuer)
    server.get("/api/who", headers)
    shipped = ran(cluster, database)
    for text in filter(lambda text: len(text) < 1000, TEXTS):     # else the token is too large
        fits = 0 < len(text.encode()) <= 255 and not any(ord(character) < 0x20 or 0x7f <= ord(character) < 0xa0 for character in text)
        answer = server.get("/api/who", c.bearer(issuer.jwt(text, "admin", name=text, **{"a" + text: text})))
        assert answer.status == 200, (text, answer)
        seen = answer.json()
        assert seen["sub"] == (text if fits else None), text
        if fits:
            assert seen["claims"]["name"] == text and seen["claims"]["a" + text] == text
        assert server.get("/api/who", c.session(issuer.cookie(text, "admin"))).status == 200
        roles = server.get("/api/who", c.bearer(issuer.jwt("ada", [text[:64], "admin"])))
        assert roles.status == 200, (text, roles)
    assert ran(cluster, database) == shipped


def test_what_a_revocation_names(cluster, database, server, issuer):
    headers = c.admin_headers(issuer)
    server.request("POST", "/api/admin/revocations", headers, {"token": "a"})
    server.request("DELETE", "/api/admin/revocations?token=a", headers)
    shipped = ran(cluster, database)
    for text in TEXTS:
        for member in ("token", "subject"):
            answer = server.request("POST", "/api/admin/revocations", headers, {member: text})
            assert answer.status in (200, 422), (text, answer)
            kept = cluster.sql(database, "SELECT what FROM provost.revocation")
            assert kept == ([(text,)] if answer.status == 200 else []), text
            if answer.status == 200:
                answer = server.request("DELETE", f"/api/admin/revocations?{member}={quote(text, safe='')}", headers)
                assert answer.status == 200, (text, answer)
    for value in RAW:
        answer = server.request("DELETE", f"/api/admin/revocations?token={value}", headers)
        assert answer.status in (404, 422), (value, answer)
    assert {query for query in ran(cluster, database) - shipped if not query.startswith(OWN)} == set()

"""What tests of the cache have in common: reading what an answer says of it, and holding statements up.

status(answer)          the parameters of Cache-Status by RFC 9211, strictly: {"hit": True, "ttl": 42}
is_hit, is_miss, ...    whether an answer came about that way
plain(answer)           the body, decoded
report(server)          what GET /api/admin/cache says;  settings_of(server, endpoint) -> what holds for it
invalidate(server, query)
held(cluster, db)       a block in which no statement that says GATE gets past it;  waiting(cluster, db) -> how many wait
start(server, path)     sends a request and leaves its answer for later
settings(server, {...}) rewrites the configuration, reloads, and waits until that is done
healed(server)          waits until the database, which was away, is back, and changes are heard again
cut_off(server)         waits until the database is known to be away, by all that know of it
"""
import contextlib
import ctypes
import ctypes.util
import re
import zlib

from harness import wait_until

LOCK = 4712
# In a statement's text. What it reads beside this it has read by the snapshot from before.
GATE = f"pg_advisory_xact_lock_shared({LOCK})::text"

PARAMETER = re.compile(r"; ([a-z*][a-z0-9_.*-]*)(?:=(-?\d{1,15}|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*))?")
KNOWN = {"hit", "fwd", "stored", "collapsed", "ttl", "detail"}
FORWARDED = {"bypass", "method", "miss", "stale"}


def status(answer):
    """Cache-Status as a list of one item: a token with parameters (RFC 9211, section 2; RFC 8941)."""
    text = answer.header("Cache-Status")
    assert text is not None, answer
    found, at = {}, len("provost")
    assert text.startswith("provost"), text
    while at < len(text):
        match = PARAMETER.match(text, at)
        assert match, f"{text!r} from {text[at:]!r}"
        name, value = match[1], match[2]
        assert name in KNOWN and name not in found, text
        found[name] = True if value is None else int(value) if re.fullmatch(r"-?\d+", value) else value
        at = match.end()
    assert ("hit" in found) != ("fwd" in found), f"one of hit and fwd: {text}"
    assert found.get("hit", True) is True and found.get("stored", True) is True and found.get("collapsed", True) is True
    if "hit" in found:
        assert isinstance(found.get("ttl"), int) and not {"stored", "collapsed"} & found.keys(), text
        assert int(answer.header("Age")) >= 0
        assert answer.header("Server-Timing") is None
    else:
        assert found["fwd"] in FORWARDED and "ttl" not in found, text
        assert found.get("detail", "max-stale") == "max-stale" and (found.get("collapsed") or "detail" not in found), text
        assert answer.header("Age") is None
    return found


def is_hit(answer):
    """Fresh, and says for how long."""
    found = status(answer)
    return found.keys() == {"hit", "ttl"} and found["ttl"] >= 0


def is_stale(answer, detail):
    found = status(answer)
    return found.get("hit") is True and found.get("detail") == detail


def is_stored(answer, fwd="miss"):
    return status(answer) == {"fwd": fwd, "stored": True}


# ---- encodings -----------------------------------------------------------------------------------

def _brotli(data, most):
    library = ctypes.CDLL(ctypes.util.find_library("brotlidec") or "libbrotlidec.so.1")
    size, out = ctypes.c_size_t(most), ctypes.create_string_buffer(most)
    done = library.BrotliDecoderDecompress(ctypes.c_size_t(len(data)), data, ctypes.byref(size), out)
    assert done == 1, "not brotli"
    return out.raw[:size.value]


def plain(answer, most=16 << 20):
    coding = answer.header("Content-Encoding")
    if coding == "gzip":
        return zlib.decompress(answer.body, 16 + zlib.MAX_WBITS)
    if coding == "br":
        return _brotli(answer.body, most)
    assert coding is None, coding
    return answer.body


# ---- the server ----------------------------------------------------------------------------------

def report(server):
    answer = server.get("/api/admin/cache")
    assert answer.status == 200, answer
    return answer.json()


def settings_of(server, endpoint):
    return next(e for e in report(server)["endpoints"] if e["name"] == endpoint)


def healed(server, seconds=20):
    """Answers may come before the stream of changes is back: those are not stored, and when it is back nothing from
    before is fresh."""
    wait_until(lambda: server.get("/readyz").json()["database"] == "up" and report(server)["stream"]["state"] == "live",
               seconds, "the database and its stream are back")


def cut_off(server, seconds=10):
    """The pool may know it before the stream does, until when what is stored is fresh."""
    wait_until(lambda: server.get("/readyz").json()["database"] == "down" and report(server)["stream"]["state"] != "live",
               seconds, "the database is known to be away")


def invalidate(server, query):
    answer = server.request("DELETE", f"/api/admin/cache?{query}")
    assert answer.status == 200 and answer.json() == {"success": True}, answer


def reloads(server):
    return len(re.findall('msg="reload: (applied|nothing was changed)"', server.log()))


def settings(server, changes):
    before = reloads(server)
    server.write_config(changes)
    server.reload()
    # Checking the endpoints may take ten seconds before it is given up.
    wait_until(lambda: reloads(server) > before, 15, "the reload is done")


# ---- statements that wait ------------------------------------------------------------------------

class Gate:
    def __init__(self, cursor):
        self.cursor = cursor
        self.closed = True

    def open(self):
        if self.closed:
            self.cursor.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
        self.closed = False


@contextlib.contextmanager
def held(cluster, db):
    with contextlib.closing(cluster.connect(db)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        yield Gate(cursor)


def waiting(cluster, db):
    return cluster.sql("postgres", "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
                                   " WHERE NOT granted AND locktype = 'advisory' AND datname = %s", db)[0][0]


def start(server, path, seconds=60):
    connection = server.connect(seconds)
    connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection

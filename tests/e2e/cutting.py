"""A proxy between Provost and PostgreSQL that knows messages (protocol 3.0) and loses connections between chosen ones.

    with CuttingProxy(dsn) as proxy:
        proxy.rule = rule           # rule(to_server, kind, payload) -> None, "before", "after", "swallow"
        Server(..., config={"database": {"url": proxy.dsn}})

`kind` is a message's type, a byte; `payload` what follows its length. "before" and "after" end the connection, without
the message or with it; "swallow" goes on without it. `cuts` counts the connections that a rule ended. The database is one
that is reached through a socket in the file system.
"""
import contextlib
import socket
import struct
import threading
import urllib.parse

SHUT = (OSError, ValueError)


class CuttingProxy:
    def __init__(self, dsn):
        parts = urllib.parse.urlsplit(dsn)
        query = urllib.parse.parse_qs(parts.query)
        folder = query.get("host", [urllib.parse.unquote(parts.hostname or "")])[0]
        port = query.get("port", [str(parts.port or 5432)])[0]
        self.target = f"{folder}/.s.PGSQL.{port}"
        self.rule, self.cuts, self.open, self.let_in = None, 0, set(), set()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = (f"postgresql://{parts.netloc.rsplit('@', 1)[0]}@127.0.0.1:{self.listener.getsockname()[1]}{parts.path}"
                    "?sslmode=disable&gssencmode=disable")

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.end_all()

    def end_all(self):
        """Ends every connection."""
        with self.lock:
            pairs = list(self.open)
        for pair in pairs:
            self._end(pair)

    def end_let_in(self):
        """Ends every connection that PostgreSQL has let in; not one that is being made."""
        with self.lock:
            pairs = list(self.let_in)
        for pair in pairs:
            self._end(pair)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self.target)
                except OSError:
                    client.close()
                    continue
                pair = client, server
                with self.lock:
                    self.open.add(pair)
                threading.Thread(target=self._pump, args=(pair, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(pair, False), daemon=True).start()

    def _end(self, pair):
        with self.lock:
            self.open.discard(pair)
            self.let_in.discard(pair)
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        # The pump that is not in recv() closes them when it is done.

    def _pump(self, pair, to_server):
        source, target = pair if to_server else pair[::-1]
        first = to_server       # the startup message has no type
        try:
            while True:
                kind = b"" if first else self._exactly(source, 1)
                length = self._exactly(source, 4)
                payload = self._exactly(source, struct.unpack("!I", length)[0] - 4)
                verdict = self.rule(to_server, kind, payload) if self.rule and not first else None
                first = False
                if verdict in (None, "after"):
                    target.sendall(kind + length + payload)
                    if kind == b"Z" and not to_server:
                        with self.lock:
                            self.let_in |= {pair} & self.open
                if verdict in ("before", "after"):
                    with self.lock:
                        self.cuts += 1
                    break
        except SHUT:
            pass
        self._end(pair)
        source.close()

    @staticmethod
    def _exactly(source, n):
        data = b""
        while len(data) < n:
            piece = source.recv(n - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data


def once(rule):
    """The rule until it has ended a connection; the connections after that live."""
    done = []

    def wrapped(to_server, kind, payload):
        verdict = None if done else rule(to_server, kind, payload)
        if verdict in ("before", "after"):
            done.append(True)
        return verdict
    return wrapped


def before_listen(to_server, kind, payload):
    """The stream of changes does not come back."""
    return "before" if to_server and kind == b"P" and b"LISTEN provost" in payload else None


# ---- places in a write's transaction -------------------------------------------------------------

def before_begin(to_server, kind, payload):
    """Provost has sent it, and nothing of it arrives."""
    return "before" if to_server and kind == b"P" and b"BEGIN READ WRITE" in payload else None


def before_commit(to_server, kind, payload):
    """All but COMMIT arrives."""
    return "before" if to_server and kind == b"P" and b" COMMIT" in payload else None


def after_commit(to_server, kind, payload):
    """PostgreSQL's word that it has committed does not arrive."""
    return "before" if not to_server and kind == b"C" and payload == b"COMMIT\0" else None


def with_nothing_back():
    """Nothing of what PostgreSQL answers to the transaction arrives, and it commits."""
    state = {"in": False}

    def rule(to_server, kind, payload):
        if to_server:
            return None
        if kind == b"C" and payload == b"BEGIN\0":
            state["in"] = True
        if kind == b"C" and payload == b"COMMIT\0" and state["in"]:
            return "before"
        return "swallow" if state["in"] else None
    return rule


def before_token(to_server, kind, payload):
    """For the listener's connection: it is lost when a write's token is due."""
    return "before" if not to_server and kind == b"A" and b"sync " in payload else None

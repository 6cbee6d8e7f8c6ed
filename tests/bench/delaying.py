"""A TCP proxy in front of a PostgreSQL that is reached by a socket in the file system, which holds every byte for a while."""
import asyncio
import threading
import urllib.parse


class DelayingProxy:
    """A block in which there is one. `seconds`: each way. `dsn`: the given one, but through the proxy."""

    def __init__(self, dsn, seconds):
        parts = urllib.parse.urlsplit(dsn)
        query = urllib.parse.parse_qs(parts.query)
        folder = query.get("host", [urllib.parse.unquote(parts.hostname or "")])[0]
        port = query.get("port", [str(parts.port or 5432)])[0]
        self.target, self.seconds = f"{folder}/.s.PGSQL.{port}", seconds
        self.user = parts.netloc.rsplit("@", 1)[0]
        self.database = parts.path
        self.loop = asyncio.new_event_loop()

    def __enter__(self):
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        port = self.server.sockets[0].getsockname()[1]
        self.dsn = f"postgresql://{self.user}@127.0.0.1:{port}{self.database}?sslmode=disable"
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.server.close()

    async def _serve(self, reader, writer):
        try:
            database = await asyncio.open_unix_connection(self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._pump(reader, database[1]), self._pump(database[0], writer))

    async def _pump(self, reader, writer):
        """Bytes leave as long after they came, in the order in which they came."""
        def deliver(data):
            if data:
                writer.write(data)
            else:
                writer.close()
        while True:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            self.loop.call_later(self.seconds, deliver, data)
            if not data:
                return

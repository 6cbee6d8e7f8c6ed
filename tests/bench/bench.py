"""What the benchmarks share: a running home of scripts/run, the endpoint files, medians and tables."""
import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

REPO = pathlib.Path(__file__).resolve().parents[2]


def say(text=""):
    print(text, flush=True)


def die(text):
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {text}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- a server with its database ------------------------------------------------------------------

def read_env(file):
    """NAME='value' lines as a shell reads them."""
    return dict(word.split("=", 1) for word in shlex.split(file.read_text()))


class Home:
    """A home of scripts/run: one that runs already is used as it is, any other is started and stopped."""

    def __init__(self, folder, scale="1", settings=None, config=REPO / "config/provost.ini"):
        self.folder, self.scale, self.settings = pathlib.Path(folder).absolute(), scale, settings or {}
        self.config, self.process = config, None

    def __enter__(self):
        if not self._runs():
            try:
                self._start()
            except BaseException:
                self.__exit__()
                raise
        env = read_env(self.folder / "env")
        self.url, self.dsn = env["PROVOST_URL"], env["DATABASE_URL"]
        return self

    def _runs(self):
        if not (self.folder / "env").exists():
            return False
        with contextlib.suppress(OSError):
            url = read_env(self.folder / "env")["PROVOST_URL"]
            return urllib.request.urlopen(url + "/readyz", timeout=5).status == 200
        return False

    def _start(self):
        say(f"starting scripts/run --home {self.folder} --scale {self.scale} (loading takes a while the first time)")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PROVOST_", "PG", "DATABASE_URL"))}
        self.process = subprocess.Popen(
            [REPO / "scripts/run", "--home", self.folder, "--port", str(free_port()), "--scale", self.scale,
             "--config", self.config],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**environment, **self.settings})
        output = []
        for line in self.process.stdout:
            output.append(line)
            if line.startswith("Provost is ready"):
                return
        die("scripts/run failed:\n" + "".join(output[-20:]))

    def __exit__(self, *_):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def processor_seconds(self):
        """What the server and what the database's processes have used so far. The latter must not come or go
        in between, which those of a pool do not."""
        data = run(REPO / "scripts/cluster", "data", self.folder).strip()
        database = 0
        for entry in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "cwd") == data:
                    database += used(entry.name)
        return used((self.folder / "server.pid").read_text().strip()), database

    def pool_max(self):
        """What the server said when it started."""
        found = re.findall(r"msg=listening .*pool_max=(\d+)", (self.folder / "server.log").read_text())
        return int(found[-1])

    def get(self, path):
        return self.answer(path)[1]

    def answer(self, path):
        """Its headers and its body."""
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.headers, answer.read()

    def ask(self, sql, *args):
        """One statement's rows."""
        import psycopg2
        with contextlib.closing(psycopg2.connect(self.dsn)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, args or None)
            return cursor.fetchall()


def used(pid):
    """Processor seconds of a process and of its children that have ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def temporary_home():
    """A folder for a new home; its database goes with it."""
    with tempfile.TemporaryDirectory(prefix="provost-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)     # postgres has to pass
        home = pathlib.Path(folder) / "home"
        try:
            yield home
        finally:
            if home.exists():
                run(REPO / "scripts/cluster", "remove", home)


def end_on_sigterm():
    """As on SIGINT: what was started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


# ---- endpoint files ------------------------------------------------------------------------------

ENDPOINTS = REPO / "config/endpoints"


@contextlib.contextmanager
def configuration(sections="", **replaced):
    """A configuration file beside a copy of the endpoints, for a Home. `replaced` gives other texts for some of
    them, by name."""
    with tempfile.TemporaryDirectory(prefix="provost-bench-config-") as folder:
        copy = pathlib.Path(folder) / "endpoints"
        shutil.copytree(ENDPOINTS, copy)
        for name, text in replaced.items():
            (copy / f"{name}.sql").write_text(text)
        config = pathlib.Path(folder) / "provost.ini"
        config.write_text(sections)
        yield config


def endpoint_text(name):
    return (ENDPOINTS / f"{name}.sql").read_text()


def cacheable_endpoints():
    """The names of those that may have a time to live: a section with one for any other is an error."""
    for file in sorted(ENDPOINTS.rglob("*.sql")):
        text = file.read_text()
        if re.search(r"^-- @route\s+GET\b", text, re.M) and not re.search(r"^-- @cache\s+off\b", text, re.M):
            yield str(file.relative_to(ENDPOINTS).with_suffix(""))

TYPES = {"text": "text", "integer": "integer", "bigint": "bigint", "number": "double precision", "numeric": "numeric",
         "boolean": "boolean", "uuid": "uuid", "date": "date", "timestamp": "timestamptz", "json": "jsonb"}

# What is not searched for parameters: strings, quoted names, dollar quotes, comments, casts.
TOKEN = re.compile(r"""'(?:[^']|'')*' | "(?:[^"]|"")*" | \$(\w*)\$.*?\$\1\$ | --[^\n]* | /\*.*?\*/ | :: | :=
                       | :(?P<name>[A-Za-z_]\w*)""", re.X | re.S)


def parameters(endpoint):
    """The parameters of an endpoint file: {name: (type in SQL, default or None)}."""
    found = {}
    text = endpoint_text(endpoint)
    for name, type_name, options in re.findall(r"^-- @(?:query|path)\s+(\w+)\s+(\w+)(.*)$", text, re.M):
        default = re.search(r"\bdefault=('(?:[^']|'')*'|\S+)", options)
        found[name] = TYPES[type_name], default and default[1].strip("'")
    return found


def statement_of(endpoint, replace):
    """The statement of an endpoint file for pgbench, each `:name` replaced by what replace(name) gives."""
    text = endpoint_text(endpoint)
    statement = "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip().rstrip(";")
    return TOKEN.sub(lambda m: replace(m["name"]) if m["name"] else for_pgbench(m[0]), statement) + ";\n"


def with_defaults(endpoint):
    """The statement with its defaults, or NULL, as literals of the parameters' types."""
    def literal(name):
        type_name, default = parameters(endpoint)[name]
        return ("NULL" if default is None else f"'{default}'") + f"::{type_name}"
    return statement_of(endpoint, literal)


def with_parameters(endpoint):
    """The statement with pgbench's own parameters, and the options that give them their defaults; one that
    pgbench does not know is NULL."""
    known = parameters(endpoint)
    options = [f"-D{name}={default}" for name, (_, default) in known.items() if default is not None]
    return statement_of(endpoint, lambda name: f"(:{name})::{known[name][0]}"), options


def for_pgbench(token):
    """pgbench takes `:name` for a variable even in a comment, which goes, and in a string, which is rewritten."""
    if token.startswith(("--", "/*")):
        return " "
    if not token.startswith("'") or not re.search(r":\w", token):
        return token
    return "U&" + token.replace("\\", "\\\\").replace(":", "\\003A")


# ---- numbers -------------------------------------------------------------------------------------

def median(values):
    return statistics.median(values)


def spread(values):
    """How far the values lie apart, in percent of their median."""
    return 100 * (max(values) - min(values)) / statistics.median(values)


def run(*command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=600, **options)
    if done.returncode != 0:
        die(f"{command[0]} failed with {done.returncode}:\n{done.stdout[-3000:]}")
    return done.stdout


def machine():
    """Load that is not ours disturbs; it is printed with the figures."""
    with open("/proc/loadavg") as f:
        load = f.read().split()[0]
    return f"{os.cpu_count()} cores, load average {load} at {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"

"""The endpoint files as prepared statements on a database that holds the demo data.

PLANS_DATABASE_URL names that database: config/demo/schema.sql and generate.sql, scale 0.1 or more,
and a role that may create databases (the tests of the totals write into one of their own).
"""
import json
import os
import pathlib
import re

import psycopg2
import psycopg2.extras
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENDPOINTS = ROOT / 'config' / 'endpoints'
TYPES = {'text': 'text', 'integer': 'int4', 'bigint': 'int8', 'number': 'float8', 'numeric': 'numeric', 'boolean': 'bool',
         'uuid': 'uuid', 'date': 'date', 'timestamp': 'timestamptz', 'json': 'jsonb'}
TOKEN = re.compile(r"""--[^\n]*|'(?:[^']|'')*'|"[^"]*"|::|:([A-Za-z_]\w*)""")


class Endpoint:
    """One endpoint file: its parameters, and its SQL with $n for :name."""

    def __init__(self, name):
        source = (ENDPOINTS / (name + '.sql')).read_text()
        self.name = name
        self.params = {}
        self.body = set()
        for line in source.splitlines():
            found = re.match(r'-- @(path|query|body) (\w+) (\w+)(\[\](?! \{))?(.*)', line)
            if found:
                default = re.search(r'\bdefault=(\S+)', found[5])
                self.params[found[2]] = (TYPES[found[3]] + (found[4] or ''), default[1] if default else None)
                if found[1] == 'body':
                    self.body.add(found[2])
        self.params.update({'body': ('jsonb', None), 'auth_sub': ('text', 'tester')})
        self.used = []

        def bind(match):
            name = match[1]
            if name is None:
                return match[0]
            assert name in self.params, f'{self.name}: :{name} is not declared'
            if name not in self.used:
                self.used.append(name)
            return f'${self.used.index(name) + 1}'

        self.sql = TOKEN.sub(bind, source)
        used = set(self.used) | (self.body if 'body' in self.used else set())
        assert set(self.params) - used <= {'body', 'auth_sub'}, f'{name}: a parameter is not used'

    def prepare(self, cursor, as_name='endpoint'):
        cursor.execute(f'DEALLOCATE ALL; PREPARE {as_name}'
                       + ('(' + ', '.join(self.params[p][0] for p in self.used) + ')' if self.used else '')
                       + ' AS ' + self.sql)

    def _literal(self, name, value):
        if isinstance(value, list) and self.params[name][0].endswith('[]'):
            return '{' + ','.join(json.dumps(element) for element in value) + '}'
        return json.dumps(value) if isinstance(value, (dict, list)) else value

    def arguments(self, cursor, values):
        """Of `values` those that @body declares are the body's members, in the form that the server brings them to."""
        assert set(values) <= set(self.params) - {'body'}, f'{self.name} has no such parameter'
        values = dict(values, body=json.dumps({k: v for k, v in values.items() if k in self.body}))
        given = [self._literal(p, values.get(p, self.params[p][1])) for p in self.used]
        return cursor.mogrify('(' + ', '.join(['%s'] * len(given)) + ')',
                              [None if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in given]).decode() if given else ''


def endpoints(methods):
    names = []
    for path in sorted(ENDPOINTS.rglob('*.sql')):
        if re.search(rf'^-- @route ({methods}) ', path.read_text(), re.M):
            names.append(str(path.relative_to(ENDPOINTS))[:-len('.sql')])
    return names


def reading():
    """Names of all endpoints that are GET."""
    return endpoints('GET')


def writing():
    """Names of all others."""
    return endpoints('POST|PUT|PATCH|DELETE')


@pytest.fixture(scope='session')
def url():
    if 'PLANS_DATABASE_URL' not in os.environ:
        pytest.fail('PLANS_DATABASE_URL names no database: see tests/plans/conftest.py', pytrace=False)
    return os.environ['PLANS_DATABASE_URL']


@pytest.fixture
def connection(url):
    connection = psycopg2.connect(url)
    psycopg2.extras.register_default_json(connection, loads=json.loads)
    with connection.cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'")
    yield connection
    connection.rollback()
    connection.close()


@pytest.fixture
def cursor(connection):
    """Whatever a test writes with it is rolled back."""
    with connection.cursor() as cursor:
        yield cursor


@pytest.fixture
def call(cursor):
    """call('courses/list', page=2): the answer, or None where there is no row."""

    def call(name, /, **values):
        endpoint = Endpoint(name)
        endpoint.prepare(cursor)
        cursor.execute('EXECUTE endpoint' + endpoint.arguments(cursor, values))
        rows = cursor.fetchall()
        assert len(rows) <= 1
        return rows[0][0] if rows else None

    return call


@pytest.fixture
def one(cursor):
    """The single value of a query."""

    def one(sql, *args):
        cursor.execute(sql, args)
        return cursor.fetchone()[0]

    return one


@pytest.fixture(scope='session')
def sample(url):
    """Rows of the demo data that a test of the plans wants to name."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute('''
            WITH ranked AS (SELECT "courseId" AS id, sum(n) AS n FROM course_enrollment_counts GROUP BY 1)
            SELECT (SELECT id FROM ranked ORDER BY n DESC LIMIT 1),
                   (SELECT max(n)::int FROM ranked),
                   (SELECT id FROM ranked WHERE n BETWEEN 5 AND 50 ORDER BY n DESC, id LIMIT 1),
                   (SELECT max(n)::int FROM ranked WHERE n BETWEEN 5 AND 50),
                   (SELECT id FROM institution ORDER BY id LIMIT 1),
                   (SELECT "categoryId" FROM course GROUP BY 1 ORDER BY count(*), 1 LIMIT 1),
                   (SELECT id FROM "user" WHERE role = 'STUDENT' ORDER BY id LIMIT 1),
                   (SELECT "recipientId" FROM notification_logs GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1)''')
        keys = ('popular', 'popular_enrollments', 'ordinary', 'ordinary_enrollments', 'institution', 'category', 'user', 'notified')
        return dict(zip(keys, cursor.fetchone()))

"""The demo data: the same for the same scale and day, and never on top of other data."""
import pathlib
import subprocess

import psycopg2
import pytest

DEMO = pathlib.Path(__file__).resolve().parents[2] / 'config' / 'demo'
TABLES = ['institution', 'category', 'course', 'tag', 'coursetag', 'course_weekly_prices', 'course_pricing_rules', '"user"', 'students',
          'student_course_enrollments', 'student_course_completions', 'payments', 'booking', 'notification_logs', 'commission_tiers',
          'institution_subscriptions', 'audit_logs']


def psql(dsn, *args):
    return subprocess.run(['psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', dsn, *args], capture_output=True, text=True, check=False)


@pytest.fixture
def load(url):
    """load(scale=…, today=…) makes a database and returns its DSN."""
    admin = psycopg2.connect(url)
    admin.autocommit = True
    cursor = admin.cursor()
    names = []

    def load(**variables):
        name = f'plans_demo_test_{len(names)}'
        names.append(name)
        cursor.execute(f'DROP DATABASE IF EXISTS {name} WITH (FORCE)')
        cursor.execute(f'CREATE DATABASE {name} TEMPLATE template0')
        dsn = psycopg2.extensions.make_dsn(url, dbname=name)
        done = psql(dsn, '-f', DEMO / 'schema.sql')
        assert done.returncode == 0, done.stderr
        done = psql(dsn, *[f'-v{k}={v}' for k, v in variables.items()], '-f', DEMO / 'generate.sql')
        assert done.returncode == 0, done.stderr
        assert done.stderr == ''
        return dsn

    yield load
    for name in names:
        cursor.execute(f'DROP DATABASE IF EXISTS {name} WITH (FORCE)')
    admin.close()


def contents(dsn):
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        digests = {}
        for table in TABLES:
            cursor.execute(f'SELECT count(*), md5(string_agg(t::text, chr(10) ORDER BY id)) FROM {table} t')
            digests[table] = cursor.fetchone()
    connection.close()
    return digests


def test_the_same_scale_and_day_give_the_same_data(load):
    first = contents(load(scale='0.01'))
    assert first == contents(load(scale='0.01', today='2026-01-01'))
    assert all(rows > 0 for rows, _ in first.values())
    assert (first['course'][0], first['students'][0], first['student_course_enrollments'][0]) == (100, 500, 5000)
    assert (first['student_course_completions'][0], first['payments'][0], first['category'][0], first['tag'][0]) == (2000, 3000, 33, 100)


def test_nothing_happened_after_today(load):
    dsn = load(scale='0.01', today='2026-07-01')
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        for table, column in (('payments', 'paidAt'), ('payments', 'createdAt'), ('student_course_enrollments', 'createdAt'),
                              ('"user"', 'lastLoginAt'), ('course', 'updatedAt'), ('student_course_completions', 'createdAt')):
            cursor.execute(f'SELECT max("{column}") BETWEEN \'2026-06-20\' AND \'2026-07-01\' FROM {table}')
            assert cursor.fetchone()[0], (table, column)
    connection.close()


def test_data_are_never_mixed_with_others(load):
    dsn = load(scale='0.01')
    before = contents(dsn)
    again = psql(dsn, '-f', DEMO / 'generate.sql')
    assert again.returncode != 0
    assert 'wants empty tables' in again.stderr
    assert contents(dsn) == before

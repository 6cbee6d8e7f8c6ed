"""The endpoints that write, as statements: the plans of rows found by id, the totals after each, what is recorded.

What they answer over HTTP, and what happens when several write at once, is in tests/e2e/test_writes_demo.py.
"""
import re

import pytest

from conftest import ENDPOINTS, ROOT, writing
from test_plans import TABLES, plan
from test_totals import differences

PRICES = [{'weekNumber': w, 'year': 2026, 'price': w} for w in (1, 2)]

# endpoint, its parameters; of its row, and of those that hang on it, each is found through an index.
CASES = [
    ('courses/create', {'title': 'Plans', 'categoryId': '{category}', 'base_price': 1, 'tags': [{'id': '{tag}'}], 'weeklyPrices': PRICES}),
    ('courses/replace', {'id': '{popular}', 'title': 'Plans', 'categoryId': '{category}', 'tags': [{'id': '{tag}'}]}),
    ('courses/replace', {'id': '{ordinary}', 'title': 'Plans', 'categoryId': '{category}'}),
    ('courses/update', {'id': '{popular}', 'institutionId': None, 'status': 'DRAFT', 'weeklyPrices': PRICES}),
    ('courses/delete', {'id': '{uncompleted}'}),
    ('courses/weekly-prices', {'id': '{popular}', 'prices': PRICES}),
    ('courses/enrollment-update', {'id': '{popular}', 'enrollmentId': '{enrollment}', 'status': 'DROPPED', 'notes': 'x'}),
    ('institutions/create', {'name': 'Plans', 'city': 'x', 'country': 'x', 'email': 'x'}),
    ('institutions/update', {'id': '{institution}', 'name': 'Plans', 'socialMedia': {'a': 1}}),
    ('institutions/delete', {'id': '{unsubscribed}'}),
    ('users/update', {'id': '{user}', 'name': 'Plans', 'institutionId': '{institution}'}),
    ('users/status', {'id': '{user}', 'status': 'SUSPENDED'}),
    ('categories/create', {'name': 'Plans'}),
    ('categories/replace', {'id': '{category}', 'name': 'Plans'}),
    ('categories/delete', {'id': '{unused}'}),
    ('tags/create', {'name': 'Plans', 'parentId': '{tag}'}),
    ('tags/replace', {'id': '{tag}', 'name': 'Plans'}),
    ('tags/delete', {'id': '{tag}'}),
    ('notifications/create', {'recipientIds': ['{user}', '{notified}', '{user}'], 'type': 'SYSTEM', 'title': 'Plans', 'content': 'x'}),
    ('notifications/create', {'role': 'INSTITUTION', 'type': 'SYSTEM', 'title': 'Plans', 'content': 'x'}),
    ('payments/approve', {'paymentId': '{payment}'}),
    ('payments/disapprove', {'paymentId': '{payment}', 'reason': 'x'}),
]
IDS = [f'{n} {" ".join(p)}' for n, p in CASES]


@pytest.fixture
def rows(cursor, sample, one):
    """Ids for the cases. Some of them have to be made: the demo has no such rows."""
    cursor.execute((ROOT / 'src' / 'schema' / 'schema.sql').read_text())
    return dict(
        sample,
        tag=one('SELECT "tagId" FROM coursetag ORDER BY 1 LIMIT 1'),
        enrollment=one('SELECT id FROM student_course_enrollments WHERE "courseId" = %s LIMIT 1', sample['popular']),
        payment=one("SELECT p.id FROM payments p JOIN booking b ON b.id = p.metadata ->> 'bookingId' WHERE p.status = 'PENDING' ORDER BY 1 LIMIT 1"),
        uncompleted=one('''INSERT INTO course (title, slug, "categoryId") VALUES ('u', 'u', %s) RETURNING id''', sample['category']),
        unsubscribed=one("INSERT INTO institution (name, slug, city, country, email) VALUES ('u', 'u', 'u', 'u', 'u') RETURNING id"),
        unused=one("INSERT INTO category (name, slug) VALUES ('u', 'u') RETURNING id"))


def filled(value, rows):
    if isinstance(value, dict):
        return {k: filled(v, rows) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, rows) for v in value]
    return value.format(**rows) if isinstance(value, str) else value


def returns_none(name):
    return '@returns none' in (ENDPOINTS / f'{name}.sql').read_text()


def test_every_endpoint_that_writes_has_a_case():
    assert {name for name, _ in CASES} == set(writing())


@pytest.mark.parametrize('mode', ['force_custom_plan', 'force_generic_plan'])
@pytest.mark.parametrize('name, params', CASES, ids=IDS)
def test_a_row_is_found_through_an_index(cursor, rows, name, params, mode):
    nodes = plan(cursor, name, filled(params, rows), mode)
    assert any(n['Node Type'] == 'ModifyTable' for n in nodes)
    for node in nodes:
        if node.get('Relation Name') in TABLES and node['Node Type'] != 'ModifyTable':
            assert node['Node Type'] != 'Seq Scan', node
            read = node['Actual Loops'] * (node['Actual Rows'] + node.get('Rows Removed by Filter', 0))
            assert read <= 200, f"{node['Node Type']} on {node['Relation Name']} reads {read} rows"


@pytest.mark.parametrize('name, params', CASES, ids=IDS)
def test_it_is_recorded_once_and_the_totals_stay_true(cursor, call, rows, one, name, params):
    before = one('SELECT count(*) FROM audit_logs')
    answer = call(name, **filled(params, rows))
    assert (answer is None) == returns_none(name)
    assert one('SELECT count(*) FROM audit_logs') == before + 1
    cursor.execute('SELECT "userId", action, resource, "resourceId", details, severity, category FROM audit_logs'
                   " ORDER BY \"timestamp\" = now() DESC LIMIT 1")
    user, action, resource, of, details, _, category = cursor.fetchone()
    assert (user, category) == ('tester', 'ADMIN') and isinstance(details, dict) and of
    assert resource in ('course', 'enrollment', 'institution', 'user', 'category', 'tag', 'payment', 'notification')
    assert action == {'create': 'CREATE', 'delete': 'DELETE', 'approve': 'APPROVE', 'disapprove': 'DISAPPROVE'}.get(name.split('/')[1], 'UPDATE')
    assert differences(cursor) == {}


@pytest.mark.parametrize('name, key', [(n, k) for n in writing() if not n.endswith('/create')
                                       for k in ['paymentId' if n.startswith('payments/') else 'id']])
def test_nothing_is_recorded_of_what_is_not_there(call, rows, one, name, key):
    params = next(p for n, p in CASES if n == name)
    before = one('SELECT count(*) FROM audit_logs')
    if returns_none(name):
        with pytest.raises(Exception) as error:
            call(name, **filled({**params, key: 'nothing'}, rows))
        assert error.value.pgcode == 'PT404'
    else:
        assert call(name, **filled({**params, key: 'nothing'}, rows)) is None
        assert one('SELECT count(*) FROM audit_logs') == before


def test_what_refers_to_a_row_is_found_through_an_index(cursor):
    """Deleting a row looks for what refers to it in each table that may."""
    cursor.execute('''SELECT k.conrelid::regclass::text, k.conname FROM pg_constraint k
                      WHERE k.contype = 'f' AND NOT EXISTS (
                          SELECT FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indpred IS NULL AND i.indkey[0] = k.conkey[1])''')
    assert cursor.fetchall() == []


def test_what_is_written_is_what_a_read_answers(call, rows):
    changed = call('courses/update', id=rows['popular'], description=None, priority=3)
    assert changed == call('courses/get', id=rows['popular'])
    assert call('users/status', id=rows['user'], status='SUSPENDED') == call('users/get', id=rows['user'])
    assert call('institutions/update', id=rows['institution'], metadata={'a': 1}) == call('institutions/get', id=rows['institution'])


@pytest.mark.parametrize('name, slug', [
    ('Général – Été', 'general-ete'), ("Beginner's  English!", 'beginners-english'), ('d’été', 'dete'), ('Straße', 'strasse'),
    ('Ørsted Ægir Łódź', 'orsted-aegir-lodz'), ('  --a--  ', 'a'), ('C++ & C#', 'c-c'), ('日本語', ''), ('', ''), ('A1/B2', 'a1-b2'),
])
def test_slugs(one, name, slug):
    assert one('SELECT slug_of(%s)', name) == slug
    assert re.fullmatch(r'([a-z0-9]+(-[a-z0-9]+)*)?', slug)

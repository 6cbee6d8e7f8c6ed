"""What the planner makes of every endpoint: no large table is read from end to end where an index serves.

Both kinds of plan are looked at, for the server's prepared statements may run under either: one made
for the values at hand, and the generic one. Branches that did not run do not count.
"""
import pytest

from conftest import Endpoint, reading

# Of these, those that have this many rows here: reading a few hundred pages and sorting is no mistake.
# The courses are 10,000 at scale 1.
MANY = 5000
TABLES = {'course', 'course_search', 'coursetag', 'course_weekly_prices', 'course_pricing_rules', 'user', 'students',
          'student_course_enrollments', 'student_course_completions', 'payments', 'booking', 'notification_logs', 'audit_logs',
          'course_enrollment_counts', 'course_completion_counts', 'revenue_sums'}

NEWEST = 'at a small scale the newest thousand are a large part of all users'

# endpoint, its parameters, and the large tables it may read whole, each with the reason.
CASES = [
    ('courses/get', {'id': '{popular}'}, {}),
    ('courses/get', {'id': '{ordinary}'}, {}),
    ('courses/list', {}, {}),
    ('courses/list', {'limit': 100}, {}),
    ('courses/list', {'page': 50}, {}),
    *[('courses/list', {'sort': sign + column, 'page': 3}, {})
      for column in ('createdAt', 'title', 'base_price', 'priority') for sign in ('', '-')],
    ('courses/list', {'status': 'PUBLISHED'}, {}),
    ('courses/list', {'level': 'ADVANCED', 'sort': 'title'}, {}),
    ('courses/list', {'level': 'NONE'}, {}),
    ('courses/list', {'categoryId': '{category}', 'status': 'DRAFT'}, {}),
    ('courses/list', {'institutionId': '{institution}', 'sort': '-title'}, {}),
    ('courses/list', {'institutionId': '{institution}', 'search': 'english'}, {}),
    ('courses/list', {'search': 'cambridge'}, {}),
    ('courses/list', {'search': 'no such course'}, {}),
    ('courses/list', {'search': 'zq'}, {}),
    ('courses/list', {'search': '_!'}, {}),
    ('courses/list', {'search': 'a*b*c'}, {}),
    ('courses/enrollments', {'id': '{popular}'}, {}),
    ('courses/enrollments', {'id': '{popular}', 'page': '{last}'}, {}),
    ('courses/enrollments', {'id': '{popular}', 'status': 'ACTIVE'}, {}),
    ('courses/enrollments', {'id': '{popular}', 'paymentStatus': 'REFUNDED'}, {}),
    ('courses/enrollments', {'id': '{popular}', 'status': 'CANCELLED', 'paymentStatus': 'PENDING', 'page': 2}, {}),
    ('courses/enrollments', {'id': '{popular}', 'search': 'popescu'}, {}),
    ('courses/enrollments', {'id': '{popular}', 'search': 'popescu12'}, {}),
    ('courses/enrollments', {'id': '{popular}', 'search': 'example'}, {}),
    ('courses/enrollments', {'id': '{popular}', 'search': 'qx'}, {}),
    ('courses/enrollments', {'id': '{ordinary}'}, {}),
    ('courses/enrollments', {'id': '{ordinary}', 'search': 'a'}, {}),
    ('courses/enrollments', {'id': 'nobody'}, {}),
    ('institutions/list', {}, {}),
    ('institutions/list', {'search': 'london', 'status': 'ACTIVE'}, {}),
    ('institutions/get', {'id': '{institution}'}, {}),
    ('institutions/courses', {'id': '{institution}'}, {}),
    ('users/list', {}, {}),
    ('users/list', {'page': 20}, {}),
    ('users/list', {'role': 'STUDENT'}, {}),
    ('users/list', {'role': 'ADMIN'}, {}),
    ('users/list', {'institutionId': '{institution}'}, {}),
    ('users/list', {'institutionId': '{institution}', 'role': 'INSTRUCTOR'}, {}),
    ('users/list', {'search': 'maria'}, {'user': NEWEST}),
    ('users/list', {'search': 'no such user'}, {'user': NEWEST}),
    ('users/list', {'search': 'e'}, {'user': NEWEST}),
    ('users/list', {'search': 'qx'}, {'user': NEWEST}),
    ('users/get', {'id': '{user}'}, {}),
    ('categories/list', {}, {}),
    ('tags/list', {}, {}),
    ('tags/list', {'include': 'hierarchy'}, {}),
    ('tags/list', {'categoryId': '{category}'}, {}),
    ('payments/list', {}, {}),
    ('payments/list', {'page': 20}, {}),
    ('payments/list', {'status': 'PENDING'}, {}),
    ('payments/list', {'institutionId': '{institution}'}, {}),
    ('payments/list', {'institutionId': '{institution}', 'status': 'FAILED'}, {}),
    ('payments/pending-count', {}, {}),
    ('notifications/list', {}, {}),
    ('notifications/list', {'page': 20}, {}),
    ('notifications/list', {'status': 'FAILED'}, {}),
    ('notifications/list', {'userId': '{notified}'}, {}),
    ('notifications/list', {'userId': '{notified}', 'status': 'READ'}, {}),
    ('notifications/list', {'userId': 'nobody'}, {}),
    ('stats', {}, {}),
    ('revenue', {'startDate': '2025-12-01', 'endDate': '2025-12-31'}, {}),
    ('revenue', {'startDate': '2025-11-20', 'endDate': '2025-12-10'}, {}),
    ('revenue', {'startDate': '2024-01-15', 'endDate': '2025-12-20', 'type': 'breakdown'}, {}),
    ('revenue', {'startDate': '2024-01-15', 'endDate': '2025-12-20', 'type': 'projection'}, {}),
    ('subscriptions/list', {}, {}),
    ('subscriptions/stats', {}, {}),
]


@pytest.fixture
def large(one):
    return {t for t in TABLES if one('SELECT reltuples FROM pg_class WHERE oid = %s::regclass', f'"{t}"') >= MANY}


def filled(params, sample):
    values = dict(sample, last=max(1, sample['popular_enrollments'] // 50))
    return {k: v.format(**values) if isinstance(v, str) else v for k, v in params.items()}


def executed(node):
    """The plan's nodes that ran."""
    if node.get('Actual Loops', 0) > 0:
        yield node
    for child in node.get('Plans', ()):
        yield from executed(child)


def plan(cursor, name, params, mode):
    endpoint = Endpoint(name)
    endpoint.prepare(cursor)
    cursor.execute(f'SET plan_cache_mode = {mode}')
    cursor.execute('EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE endpoint' + endpoint.arguments(cursor, params))
    return list(executed(cursor.fetchone()[0][0]['Plan']))


def test_every_endpoint_has_a_case():
    """Only the lists named here are this test's; new endpoints that read must join them."""
    here = {name for name, _, _ in CASES}
    others = {'performance', 'performance/metrics', 'performance/health', 'system-health', 'cache'}
    assert set(reading()) - others == here


@pytest.mark.parametrize('mode', ['force_custom_plan', 'force_generic_plan'])
@pytest.mark.parametrize('name, params, allowed', CASES, ids=[f'{n} {p}' for n, p, _ in CASES])
def test_no_large_table_is_read_whole(cursor, sample, large, name, params, allowed, mode):
    nodes = plan(cursor, name, filled(params, sample), mode)
    whole = {n['Relation Name'] for n in nodes if n['Node Type'] == 'Seq Scan' and n['Relation Name'] in large}
    assert whole <= set(allowed)


@pytest.mark.parametrize('name, params, table, index', [
    ('courses/enrollments', {'id': '{popular}'}, 'student_course_enrollments', 'enrollments_by_course, enrollments_by_status'),
    ('courses/enrollments', {'id': '{popular}', 'search': 'qx'}, 'students', 'students_gram_search'),
    ('revenue', {'startDate': '2025-11-20', 'endDate': '2025-12-10'}, 'revenue_sums', 'revenue_sums_key'),
])
def test_a_large_table_without_its_index_is_seen_to_be_read_whole(cursor, sample, large, name, params, table, index):
    """What the test above looks for is there to be found, at this scale too."""
    cursor.execute(f'DROP INDEX {index}')
    nodes = plan(cursor, name, filled(params, sample), 'force_generic_plan')
    assert table in {n['Relation Name'] for n in nodes if n['Node Type'] == 'Seq Scan' and n['Relation Name'] in large}


# The first pages, and the last: what is read must not grow with the table. The popular course has about
# a tenth of all enrolments.
BOUNDED = [
    ('courses/get', {'id': '{popular}'}),
    ('courses/list', {'limit': 10}),
    ('courses/list', {'sort': '-title', 'status': 'PUBLISHED'}),
    ('courses/enrollments', {'id': '{popular}'}),
    ('courses/enrollments', {'id': '{popular}', 'page': '{last}'}),
    ('courses/enrollments', {'id': '{popular}', 'status': 'ACTIVE', 'page': 2}),
    ('users/list', {}),
    ('users/list', {'role': 'STUDENT', 'page': 2}),
    ('payments/list', {}),
    ('payments/list', {'status': 'PENDING'}),
    ('payments/list', {'institutionId': '{institution}'}),
    ('payments/pending-count', {}),
    ('notifications/list', {}),
    ('notifications/list', {'limit': 100, 'page': 3}),
    ('notifications/list', {'status': 'FAILED'}),
    ('notifications/list', {'userId': '{notified}'}),
    ('stats', {}),
]


@pytest.mark.parametrize('mode', ['force_custom_plan', 'force_generic_plan'])
@pytest.mark.parametrize('name, params', BOUNDED, ids=[f'{n} {p}' for n, p in BOUNDED])
def test_a_page_reads_little(cursor, sample, name, params, mode):
    for node in plan(cursor, name, filled(params, sample), mode):
        if node.get('Relation Name') in TABLES:
            read = node['Actual Loops'] * (node['Actual Rows'] + node.get('Rows Removed by Filter', 0))
            assert read <= 1500, f"{node['Node Type']} on {node['Relation Name']} reads {read} rows"


@pytest.mark.parametrize('name', reading())
def test_the_generic_plan_is_not_shunned(cursor, name):
    """With an estimate far above a custom plan's, every call would be planned anew."""
    endpoint = Endpoint(name)
    endpoint.prepare(cursor)
    cursor.execute('SET plan_cache_mode = force_generic_plan')
    values = {p: '2025-12-01' for p in endpoint.used if endpoint.params[p][0] == 'date'}
    cursor.execute('EXPLAIN (FORMAT JSON) EXECUTE endpoint' + endpoint.arguments(cursor, values))
    assert cursor.fetchone()[0][0]['Plan']['Total Cost'] < 100000

"""What the endpoints answer, held against plain SQL over the same rows."""
import json
import re

import pytest

from conftest import ENDPOINTS, Endpoint, reading

COURSE_COUNTS = '''
    SELECT (SELECT count(*) FROM student_course_enrollments WHERE "courseId" = %(id)s),
           (SELECT count(*) FROM student_course_completions WHERE "courseId" = %(id)s),
           (SELECT count(*) FROM coursetag WHERE "courseId" = %(id)s),
           (SELECT count(*) FROM course_weekly_prices WHERE "courseId" = %(id)s),
           (SELECT count(*) FROM course_pricing_rules WHERE "courseId" = %(id)s)'''
REQUIRED = {'revenue': {'startDate': '2025-11-10', 'endDate': '2025-12-20'}}


def columns(cursor, table):
    cursor.execute('SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped', (table,))
    return {name for name, in cursor}


def keys_of(value):
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for member in value:
            yield from keys_of(member)


@pytest.mark.parametrize('name', reading())
def test_a_password_never_leaves(call, sample, one, name):
    values = dict(REQUIRED.get(name, {}))
    if 'id' in Endpoint(name).params:
        values['id'] = {'users': sample['user'], 'institutions': sample['institution']}.get(name.split('/')[0], sample['popular'])
    answer = call(name, **values)
    assert answer is not None
    assert 'password' not in set(keys_of(answer))
    assert '$2b$' not in json.dumps(answer)


def test_no_endpoint_that_reads_names_the_password():
    for name in reading():
        statement = re.sub(r'^--.*$', '', (ENDPOINTS / (name + '.sql')).read_text(), flags=re.M)
        assert 'password' not in statement, name


def test_every_list_can_be_empty(cursor, call):
    cursor.execute('TRUNCATE institution, category, course, tag, coursetag, course_weekly_prices, course_pricing_rules, "user", '
                   'students, student_course_enrollments, student_course_completions, payments, booking, commission_tiers, '
                   'institution_subscriptions, notification_logs CASCADE')
    assert call('courses/list') == {'courses': [], 'pagination': {'total': 0, 'page': 1, 'limit': 10, 'totalPages': 0}}
    assert call('users/list') == {'users': []}
    for values in ({}, {'userId': 'u'}, {'status': 'SENT'}):
        assert call('notifications/list', **values) == {'notifications': [], 'pagination': {'total': 0, 'page': 1, 'limit': 50, 'totalPages': 0}}
    for name in ('institutions/list', 'categories/list', 'tags/list', 'payments/list', 'subscriptions/list'):
        assert call(name) == []
    assert call('tags/list', include='hierarchy') == []
    assert call('payments/pending-count') == {'count': 0}
    stats = call('stats')
    assert set(stats['statistics'].values()) == {0}
    assert stats['recentEnrollments'] == [] and stats['recentUsers'] == []
    assert call('subscriptions/stats') == {'totalSubscriptions': 0, 'activeSubscriptions': 0, 'monthlyRevenue': 0, 'annualRevenue': 0,
                                           'averageCommissionRate': 0, 'topPerformingInstitutions': []}
    assert call('revenue', startDate='2025-01-01', endDate='2025-12-31') == {
        'totalRevenue': 0, 'commissionRevenue': 0, 'growthRate': 0, 'topRevenueSources': []}


@pytest.mark.parametrize('name', ['courses/get', 'courses/enrollments', 'institutions/get', 'institutions/courses', 'users/get'])
def test_an_unknown_id_is_no_row(call, name):
    assert call(name, id='nobody') is None


# -- courses ---------------------------------------------------------------------------------------

def test_a_course_carries_all_its_columns_and_true_counts(cursor, call, sample):
    for course in (sample['popular'], sample['ordinary']):
        item = call('courses/get', id=course)
        assert set(item) == columns(cursor, 'course') | {
            'institution', 'category', 'courseTags', 'courseWeeklyPrices', 'coursePricingRules', '_count'}
        cursor.execute(COURSE_COUNTS, {'id': course})
        assert tuple(item['_count'][k] for k in ('studentCourseEnrollments', 'studentCourseCompletions', 'courseTags',
                                                 'courseWeeklyPrices', 'coursePricingRules')) == cursor.fetchone()
        assert len(item['courseTags']) == item['_count']['courseTags']
        assert len(item['courseWeeklyPrices']) == item['_count']['courseWeeklyPrices']
        assert len(item['coursePricingRules']) == item['_count']['coursePricingRules']
        assert set(item['category']) == {'id', 'name', 'description'}
        assert all(set(t) == {'id', 'tag'} and set(t['tag']) == {'id', 'name', 'color', 'icon'} for t in item['courseTags'])


def test_a_list_item_is_the_detail(call):
    for item in call('courses/list', limit=30)['courses']:
        assert item == call('courses/get', id=item['id'])


def test_a_platform_course_has_no_institution(call, one):
    item = call('courses/get', id=one('SELECT id FROM course WHERE "institutionId" IS NULL LIMIT 1'))
    assert item['institution'] is None and item['institutionId'] is None


@pytest.mark.parametrize('sort', [s + c for c in ('createdAt', 'title', 'base_price', 'priority') for s in ('', '-')])
@pytest.mark.parametrize('filters', [{}, {'status': 'PUBLISHED'}, {'level': 'ADVANCED', 'status': 'DRAFT'}, {'category': True},
                                     {'institution': True}, {'search': 'english'}, {'search': 'zz'}, {'search': 'an'},
                                     {'search': 'cambridge', 'status': 'ARCHIVED'}, {'institution': True, 'search': 'e'},
                                     {'search': 'e', 'status': 'DRAFT', 'level': 'BEGINNER'}],
                         ids=str)
def test_pages_of_courses_follow_the_order_and_lose_none(cursor, call, sample, sort, filters):
    values = {k: v for k, v in filters.items() if k in ('status', 'level', 'search')}
    if 'category' in filters:
        values['categoryId'] = sample['category']
    if 'institution' in filters:
        values['institutionId'] = sample['institution']
    column, direction = sort.lstrip('-'), 'DESC' if sort.startswith('-') else 'ASC'
    cursor.execute(f'''SELECT id FROM course WHERE (%(status)s IS NULL OR status = %(status)s)
                         AND (%(level)s IS NULL OR level = %(level)s)
                         AND (%(categoryId)s IS NULL OR "categoryId" = %(categoryId)s)
                         AND (%(institutionId)s IS NULL OR "institutionId" = %(institutionId)s)
                         AND (%(search)s IS NULL OR strpos(lower(title), %(search)s) > 0 OR strpos(lower(description), %(search)s) > 0)
                       ORDER BY "{column}" {direction}, id {direction}''',
                   {k: values.get(k) for k in ('status', 'level', 'categoryId', 'institutionId', 'search')})
    expected = [id for id, in cursor]
    limit = 7
    pages = -(-len(expected) // limit)
    for page in {1, 2, max(1, pages // 2), max(1, pages), pages + 1}:
        answer = call('courses/list', sort=sort, limit=limit, page=page, **values)
        assert answer['pagination'] == {'total': len(expected), 'page': page, 'limit': limit, 'totalPages': pages}
        assert [c['id'] for c in answer['courses']] == expected[(page - 1) * limit:page * limit]


def test_the_last_page_there_can_be_is_empty(call, sample):
    assert call('courses/list', page=2147483647, limit=100)['courses'] == []
    assert call('courses/enrollments', id=sample['popular'], page=2147483647, limit=100)['enrollments'] == []
    assert call('users/list', page=2147483647, limit=100)['users'] == []
    assert call('users/list', page=2147483647, limit=100, search='a')['users'] == []
    assert call('payments/list', page=2147483647, limit=100) == []
    assert call('institutions/list', page=2147483647, limit=500) == []


TITLES = ['50% off_now', r'back\slash 50%', 'under_score', 'ÉCOLE d’été', '100% online', "O'Brien's", 'n']
TERMS = ['%', '_', '\\', '50%', 'r_s', 'k\\s', '%off%', '_______', 'école', 'ÉTÉ', "O'B", '%%%', 'e', '0%', 'é', 'TÉ', 'n', 'N’S', '% o', ' ’ ', '’']


@pytest.mark.parametrize('title', TITLES)
def test_search_takes_every_character_for_itself(cursor, call, title):
    cursor.execute('TRUNCATE course, students, "user" CASCADE')
    cursor.execute('INSERT INTO course (id, title, slug, "categoryId") SELECT %s, %s, %s, min(id) FROM category', ('c', title, 's'))
    cursor.execute('INSERT INTO "user" (id, name, email, password) VALUES (%s, %s, %s, %s)', ('u', title, '@', 'x'))
    cursor.execute('INSERT INTO students (id, name, email) VALUES (%s, %s, %s)', ('u', title, '@'))
    cursor.execute('INSERT INTO student_course_enrollments ("studentId", "courseId") VALUES (%s, %s)', ('u', 'c'))
    for term in TERMS:
        found = term.lower() in title.lower()
        answer = call('courses/list', search=term)
        assert (len(answer['courses']), answer['pagination']['total']) == (found, found), term
        assert len(call('users/list', search=term)['users']) == found, term
        answer = call('courses/enrollments', id='c', search=term)
        assert (len(answer['enrollments']), answer['pagination']['total']) == (found, found), term


# -- enrolments ------------------------------------------------------------------------------------

@pytest.mark.parametrize('which', ['popular', 'ordinary'])
@pytest.mark.parametrize('filters', [{}, {'status': 'ACTIVE'}, {'paymentStatus': 'PENDING'}, {'status': 'PENDING_PAYMENT', 'paymentStatus': 'FAILED'},
                                     {'status': 'ACTIVE', 'paymentStatus': 'FAILED'}], ids=str)
def test_pages_of_enrolments_lose_none(cursor, call, sample, which, filters):
    cursor.execute('''SELECT id FROM student_course_enrollments WHERE "courseId" = %(id)s
                        AND (%(status)s IS NULL OR status = %(status)s)
                        AND (%(paymentStatus)s IS NULL OR "paymentStatus" = %(paymentStatus)s)
                      ORDER BY "createdAt" DESC, id DESC''',
                   {'id': sample[which], 'status': filters.get('status'), 'paymentStatus': filters.get('paymentStatus')})
    expected = [id for id, in cursor]
    limit = 30
    pages = -(-len(expected) // limit)
    for page in {1, 2, max(1, pages // 2), pages // 2 + 1, max(1, pages - 1), max(1, pages), pages + 1, pages + 2}:
        answer = call('courses/enrollments', id=sample[which], page=page, limit=limit, **filters)
        assert answer['pagination'] == {'total': len(expected), 'page': page, 'limit': limit, 'totalPages': pages}
        assert [e['id'] for e in answer['enrollments']] == expected[(page - 1) * limit:page * limit]
        assert answer['course']['id'] == sample[which]


@pytest.mark.parametrize('term', ['popescu', 'maria', 'example', 'qx', 'nobody at all', 'an'])
@pytest.mark.parametrize('status', [None, 'COMPLETED'])
@pytest.mark.parametrize('which', ['popular', 'ordinary'])
def test_a_search_among_enrolments_finds_them_all(cursor, call, sample, which, term, status):
    cursor.execute('''SELECT e.id FROM student_course_enrollments e JOIN students s ON s.id = e."studentId"
                      WHERE "courseId" = %(id)s AND (%(status)s IS NULL OR e.status = %(status)s)
                        AND (strpos(lower(s.name), %(term)s) > 0 OR strpos(lower(s.email), %(term)s) > 0)
                      ORDER BY e."createdAt" DESC, e.id DESC''', {'id': sample[which], 'status': status, 'term': term})
    expected = [id for id, in cursor]
    for page in (1, 2, 6):
        answer = call('courses/enrollments', id=sample[which], search=term, page=page, **({'status': status} if status else {}))
        assert [e['id'] for e in answer['enrollments']] == expected[(page - 1) * 50:page * 50]
        # Exact, or, for a frequent term in a large course, at least three pages on.
        total = answer['pagination']['total']
        assert total == len(expected) or (total == (page + 3) * 50 + 1 < len(expected) and sample[which + '_enrollments'] > 3000)


def test_an_enrolment_adds_up(cursor, call, sample, one):
    student = one('SELECT "studentId" FROM student_course_enrollments WHERE "courseId" = %s LIMIT 1', sample['ordinary'])
    cursor.execute('''INSERT INTO student_course_enrollments (id, "studentId", "courseId", "createdAt")
                      VALUES ('mine', %s, %s, now() - interval '10 days 1 hour'),
                             ('orphan', 'nobody', %s, now() - interval '23 hours')''', (student, sample['ordinary'], sample['ordinary']))
    cursor.execute('''INSERT INTO payments (id, amount, status, "institutionId", "enrollmentId", "createdAt") VALUES
                      ('a', 10.10, 'COMPLETED', 'x', 'mine', now() - interval '3 days'), ('b', 20.20, 'PAID', 'x', 'mine', now() - interval '2 days'),
                      ('c', 40.40, 'PENDING', 'x', 'mine', now() - interval '1 day'), ('d', 80.80, 'REFUNDED', 'x', 'mine', now() - interval '4 days')''')
    items = {e['id']: e for e in call('courses/enrollments', id=sample['ordinary'], limit=100)['enrollments']}
    mine = items['mine']
    assert set(mine) == columns(cursor, 'student_course_enrollments') | {'student', 'payments', 'totalPaid', 'latestPayment', 'daysSinceEnrollment'}
    assert set(mine['student']) == {'id', 'name', 'email', 'phone', 'status', 'created_at', 'last_active'}
    assert [p['id'] for p in mine['payments']] == ['c', 'b', 'a', 'd']
    assert mine['latestPayment']['id'] == 'c'
    assert mine['totalPaid'] == 30.3
    assert mine['daysSinceEnrollment'] == 10
    assert items['orphan']['student'] is None and items['orphan']['payments'] == [] and items['orphan']['totalPaid'] == 0
    assert items['orphan']['latestPayment'] is None and items['orphan']['daysSinceEnrollment'] == 0


# -- institutions, users, categories, tags ---------------------------------------------------------

def test_institutions_by_name_with_true_counts(cursor, call, sample):
    items = call('institutions/list', limit=500)
    assert [(i['name'], i['id']) for i in items] == sorted((i['name'], i['id']) for i in items)
    cursor.execute('''SELECT i.id, (SELECT count(*) FROM "user" u WHERE u."institutionId" = i.id),
                             (SELECT count(*) FROM course c WHERE c."institutionId" = i.id) FROM institution i''')
    counts = {id: {'users': users, 'courses': courses} for id, users, courses in cursor}
    assert {i['id']: i['_count'] for i in items} == counts
    assert all(set(i) == columns(cursor, 'institution') | {'_count'} for i in items)
    detail = call('institutions/get', id=sample['institution'])
    assert detail in items
    courses = call('institutions/courses', id=sample['institution'])
    assert len(courses) == detail['_count']['courses']
    for course in courses:
        assert course['_count'] == call('courses/get', id=course['id'])['_count']


def test_institutions_are_filtered(call):
    everyone = call('institutions/list', limit=500)
    assert call('institutions/list', limit=500, status='PENDING') == [i for i in everyone if i['status'] == 'PENDING'] != []
    dublin = call('institutions/list', limit=500, search='DUBLIN')
    assert dublin and dublin == [i for i in everyone if 'dublin' in (i['name'] + '\n' + i['city']).lower()]


@pytest.mark.parametrize('filters', [{}, {'role': 'STUDENT'}, {'role': 'ADMIN'}, {'institution': True}, {'institution': True, 'role': 'INSTRUCTOR'},
                                     {'search': 'maria'}, {'search': 'popescu1'}, {'search': 'example'}, {'search': 'qx'}, {'search': 'ł'},
                                     {'search': 'nobody at all'}, {'search': 'smith', 'role': 'INSTRUCTOR'},
                                     {'search': 'a', 'institution': True}], ids=str)
def test_pages_of_users_lose_none(cursor, call, sample, filters):
    values = {k: v for k, v in filters.items() if k != 'institution'}
    if 'institution' in filters:
        values['institutionId'] = sample['institution']
    cursor.execute('''SELECT id FROM "user" WHERE (%(role)s IS NULL OR role = %(role)s)
                        AND (%(institutionId)s IS NULL OR "institutionId" = %(institutionId)s)
                        AND (%(search)s IS NULL OR strpos(lower(name), %(search)s) > 0 OR strpos(lower(email), %(search)s) > 0)
                      ORDER BY "createdAt" DESC, id DESC''', {k: values.get(k) for k in ('role', 'institutionId', 'search')})
    expected = [id for id, in cursor]
    for page in (1, 2, 5, 40):
        assert [u['id'] for u in call('users/list', page=page, limit=20, **values)['users']] == expected[(page - 1) * 20:page * 20]


def test_a_user_is_as_in_the_list_with_bookings(cursor, call, one):
    listed = {u['id']: u for u in call('users/list', limit=100)['users']}
    cursor.execute('SELECT "userId", count(*) FROM booking WHERE "userId" = ANY (%s) GROUP BY 1 UNION ALL SELECT %s, 0',
                   (list(listed), one('SELECT id FROM "user" WHERE role = \'ADMIN\' ORDER BY id LIMIT 1')))
    for id, bookings in cursor.fetchall():
        detail = call('users/get', id=id)
        assert detail.pop('bookingsCount') == bookings
        assert set(detail) == columns(cursor, '"user"') - {'password'} | {'institution'}
        assert id not in listed or detail == listed[id]


def nested(tags):
    for tag in tags:
        yield tag['id'], [child['id'] for child in tag['children']]
        yield from nested(tag['children'])


def test_tags_by_name_flat_and_nested(cursor, call):
    flat = call('tags/list')
    assert [(t['name'], t['id']) for t in flat] == sorted((t['name'], t['id']) for t in flat)
    cursor.execute('SELECT t.id, (SELECT count(*) FROM coursetag c WHERE c."tagId" = t.id), '
                   '(SELECT count(*) FROM tag k WHERE k."parentId" = t.id) FROM tag t')
    assert {t['id']: t['_count'] for t in flat} == {id: {'courses': c, 'children': k} for id, c, k in cursor}
    children = {t['id']: [k['id'] for k in flat if k['parentId'] == t['id']] for t in flat}
    tree = call('tags/list', include='hierarchy')
    assert [t['id'] for t in tree] == [t['id'] for t in flat if t['parentId'] is None]
    assert dict(nested(tree)) == children
    assert {**tree[0], 'children': None} == {**next(t for t in flat if t['id'] == tree[0]['id']), 'children': None}


def test_tags_nest_to_any_depth_and_survive_a_cycle(cursor, call):
    cursor.execute('DELETE FROM tag')
    chain = [(f'deep{n:03}', f'deep{n - 1:03}' if n else None) for n in range(300)]
    others = [('a', 'c'), ('b', 'a'), ('c', 'b'), ('under c', 'c'), ('self', 'self'), ('lost', 'no such tag'), ('under lost', 'lost')]
    for id, parent in chain + others:
        cursor.execute('INSERT INTO tag (id, name, slug, "parentId") VALUES (%s, %s, %s, %s)', (id, id, id, parent))
    tree = call('tags/list', include='hierarchy')
    found = dict(nested(tree))
    assert [t['id'] for t in tree] == ['a', 'deep000', 'lost', 'self']
    assert len(list(nested(tree))) == len(found) == len(chain) + len(others)
    assert found['a'] == ['b'] and found['b'] == ['c'] and found['c'] == ['under c'] and found['lost'] == ['under lost']
    assert found['deep298'] == ['deep299'] and found['self'] == []


def test_a_tag_stands_at_the_top_of_its_category(cursor, call, one):
    category = one('SELECT "categoryId" FROM tag WHERE "parentId" IS NOT NULL AND "categoryId" IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1')
    flat = call('tags/list', categoryId=category)
    assert flat and all(t['categoryId'] == category for t in flat)
    assert {id for id, _ in nested(call('tags/list', categoryId=category, include='hierarchy'))} == {t['id'] for t in flat}


# -- payments, statistics, revenue, subscriptions --------------------------------------------------

@pytest.mark.parametrize('filters', [{}, {'status': 'PENDING'}, {'institution': True}, {'institution': True, 'status': 'COMPLETED'}], ids=str)
def test_pages_of_payments_lose_none(cursor, call, sample, filters):
    values = {k: v for k, v in filters.items() if k == 'status'}
    if 'institution' in filters:
        values['institutionId'] = sample['institution']
    cursor.execute('''SELECT id, amount, "institutionAmount" FROM payments WHERE (%(status)s IS NULL OR status = %(status)s)
                        AND (%(institutionId)s IS NULL OR "institutionId" = %(institutionId)s)
                      ORDER BY "createdAt" DESC, id DESC LIMIT 300''', {k: values.get(k) for k in ('status', 'institutionId')})
    expected = cursor.fetchall()
    for page in (1, 2, 3):
        items = call('payments/list', page=page, limit=100, **values)
        assert [(p['id'], p['amount'], p['institutionAmount']) for p in items] == expected[(page - 1) * 100:page * 100]
        assert all(set(p) == {'id', 'amount', 'status', 'paymentMethod', 'referenceNumber', 'paidAt', 'createdAt', 'commissionAmount',
                              'institutionAmount', 'student', 'course', 'institution', 'enrollment'} for p in items)


@pytest.mark.parametrize('filters', [{}, {'status': 'READ'}, {'userId': True}, {'userId': True, 'status': True}], ids=str)
def test_pages_of_notifications_lose_none(cursor, call, one, sample, filters):
    some = {'userId': sample['notified'], 'status': one('SELECT min(status) FROM notification_logs WHERE "recipientId" = %s', sample['notified'])}
    values = {k: some[k] if v is True else v for k, v in filters.items()}
    cursor.execute('''SELECT id, to_jsonb(n) FROM notification_logs n WHERE (%(status)s IS NULL OR status = %(status)s)
                        AND (%(userId)s IS NULL OR "recipientId" = %(userId)s) ORDER BY "createdAt" DESC, id DESC''',
                   {k: values.get(k) for k in ('status', 'userId')})
    expected = cursor.fetchall()
    assert len(expected) > 5
    limit = max(1, len(expected) // 40)
    for page in (1, 2, 41, 999):
        answer = call('notifications/list', page=page, limit=limit, **values)
        assert [(n['id'], n) for n in answer['notifications']] == expected[(page - 1) * limit:page * limit]
        assert answer['pagination'] == {'total': len(expected), 'page': page, 'limit': limit,
                                        'totalPages': (len(expected) + limit - 1) // limit}


def test_an_orphaned_payment_is_listed(cursor, call):
    cursor.execute('''INSERT INTO payments (id, amount, "institutionId", "enrollmentId", "createdAt")
                      VALUES ('orphan', 1, 'gone', 'gone', now() + interval '1 day')''')
    first = call('payments/list', limit=1)[0]
    assert (first['id'], first['student'], first['course'], first['institution'], first['enrollment']) == ('orphan', None, None, None, None)


def test_the_demo_data_has_what_real_data_has(one):
    assert one('SELECT count(*) FROM payments p WHERE NOT EXISTS (SELECT FROM student_course_enrollments e WHERE e.id = p."enrollmentId")')
    assert one('SELECT count(*) FROM payments p WHERE NOT EXISTS (SELECT FROM institution i WHERE i.id = p."institutionId")')
    assert one('SELECT count(*) FROM payments p JOIN booking b ON b.id = p.metadata ->> \'bookingId\'')
    assert one('SELECT count(DISTINCT status) FROM payments') == 7
    assert one('SELECT count(DISTINCT status) FROM student_course_enrollments') == 7
    assert one('SELECT count(*) FROM "user" WHERE status = \'SUSPENDED\'')
    assert one('SELECT count(*) FROM "user" WHERE role = \'ADMIN\'') == 20
    assert one('SELECT count(*) FROM students s LEFT JOIN "user" u USING (id) WHERE u.id IS NULL') == 0
    assert one('SELECT count(*) FROM course WHERE title ~ \'[^ -~]\'')
    assert one('SELECT bool_and(n BETWEEN 2 AND 8) FROM (SELECT count(*) AS n FROM coursetag GROUP BY "courseId") t')
    assert one('SELECT max(n) / sum(n) FROM (SELECT "courseId", count(*) AS n FROM student_course_enrollments GROUP BY 1) t') > 0.08


def test_pending_payments_are_counted(call, one):
    assert call('payments/pending-count') == {
        'count': one("SELECT count(*) FROM payments WHERE status IN ('PENDING', 'PROCESSING', 'INITIATED')")}


def test_statistics(cursor, call):
    cursor.execute('''SELECT json_build_object(
        'totalUsers', (SELECT count(*) FROM "user"), 'totalInstitutions', (SELECT count(*) FROM institution),
        'totalCourses', (SELECT count(*) FROM course), 'totalEnrollments', (SELECT count(*) FROM student_course_enrollments),
        'totalCompletions', (SELECT count(*) FROM student_course_completions),
        'totalRevenue', (SELECT sum(amount::numeric) FROM payments WHERE status = 'COMPLETED'),
        'totalCommission', (SELECT sum("commissionAmount"::numeric) FROM payments WHERE status = 'COMPLETED'),
        'totalInstitutionRevenue', (SELECT sum("institutionAmount"::numeric) FROM payments WHERE status = 'COMPLETED'),
        'activeUsers', (SELECT count(*) FROM "user" WHERE status = 'ACTIVE'),
        'activeInstitutions', (SELECT count(*) FROM institution WHERE "isActive"),
        'activeCourses', (SELECT count(*) FROM course WHERE status = 'PUBLISHED'))''')
    expected = cursor.fetchone()[0]
    stats = call('stats')
    assert stats['statistics'] == expected
    assert set(stats) == {'statistics', 'recentEnrollments', 'recentUsers', 'timestamp'}
    cursor.execute('SELECT id FROM student_course_enrollments ORDER BY "createdAt" DESC, id DESC LIMIT 5')
    assert [e['id'] for e in stats['recentEnrollments']] == [id for id, in cursor]
    cursor.execute('SELECT id FROM "user" ORDER BY "createdAt" DESC, id DESC LIMIT 5')
    assert [u['id'] for u in stats['recentUsers']] == [id for id, in cursor]


RANGES = [('2025-12-01', '2025-12-31'), ('2025-12-10', '2025-12-10'), ('2025-11-20', '2025-12-10'), ('2025-10-15', '2025-12-31'),
          ('2025-10-01', '2025-12-05'), ('2024-01-15', '2025-12-20'), ('2024-12-31', '2025-01-01'), ('2025-12-20', '2025-12-10'),
          ('1990-01-01', '1990-12-31'), ('2000-01-01', '2100-01-01'), ('2024-02-29', '2024-03-01')]
IN_RANGE = '''status = 'COMPLETED' AND (coalesce("paidAt", "createdAt") AT TIME ZONE 'UTC')::date BETWEEN %(first)s AND %(last)s'''


@pytest.mark.parametrize('first, last', RANGES)
def test_revenue_metrics(cursor, call, one, first, last):
    cursor.execute(f'''
        WITH day AS (SELECT %(first)s::date AS first, %(last)s::date AS last),
        paid AS (SELECT *, (coalesce("paidAt", "createdAt") AT TIME ZONE 'UTC')::date AS on FROM payments WHERE status = 'COMPLETED')
        SELECT coalesce(sum(amount::numeric) FILTER (WHERE paid.on BETWEEN first AND last), 0),
               coalesce(sum("commissionAmount"::numeric) FILTER (WHERE paid.on BETWEEN first AND last), 0),
               coalesce(sum(amount::numeric) FILTER (WHERE paid.on BETWEEN first - (last - first + 1) AND first - 1), 0)
        FROM paid, day''', {'first': first, 'last': last})
    total, commission, before = map(float, cursor.fetchone())
    answer = call('revenue', startDate=first, endDate=last)
    assert answer['totalRevenue'] == pytest.approx(total, abs=1e-5)
    assert answer['commissionRevenue'] == pytest.approx(commission, abs=1e-5)
    assert answer['growthRate'] == (0 if before == 0 else pytest.approx((total - before) / before * 100, abs=0.006))
    cursor.execute(f'''SELECT "institutionId", sum(amount::numeric)::float8 FROM payments WHERE {IN_RANGE}
                       GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5''', {'first': first, 'last': last})
    assert [(s['id'], pytest.approx(s['revenue'], abs=1e-5)) for s in answer['topRevenueSources']] == cursor.fetchall()


def test_growth_is_zero_when_there_was_nothing_before(cursor, call):
    cursor.execute('DELETE FROM payments')
    cursor.execute('''INSERT INTO payments (amount, status, "institutionId", "enrollmentId", "paidAt", "createdAt") VALUES
        (10, 'COMPLETED', 'x', 'e', '2025-03-01T00:00Z', '2020-01-01'), (20, 'COMPLETED', 'x', 'e', NULL, '2025-03-31T23:59:59.999Z'),
        (40, 'COMPLETED', 'y', 'e', '2025-04-01T00:00Z', '2025-03-15'), (80, 'PAID', 'y', 'e', '2025-03-15', '2025-03-15')''')
    march = call('revenue', startDate='2025-03-01', endDate='2025-03-31')
    assert (march['totalRevenue'], march['growthRate']) == (30, 0)
    assert call('revenue', startDate='2025-03-02', endDate='2025-04-01')['growthRate'] == 500
    assert call('revenue', startDate='2025-04-02', endDate='2025-04-03')['growthRate'] == -100


@pytest.mark.parametrize('first, last', RANGES)
def test_revenue_breakdown(cursor, call, first, last):
    answer = call('revenue', startDate=first, endDate=last, type='breakdown')
    cursor.execute(f'''SELECT "institutionId", sum(amount::numeric)::float8, count(*) FROM payments WHERE {IN_RANGE}
                       GROUP BY 1 ORDER BY 2 DESC, 1''', {'first': first, 'last': last})
    assert [(i['id'], pytest.approx(i['revenue'], abs=1e-5), i['payments']) for i in answer['byInstitution']] == cursor.fetchall()
    cursor.execute(f'''SELECT i."subscriptionPlan", sum(p.amount::numeric)::float8
                       FROM payments p LEFT JOIN institution i ON i.id = p."institutionId"
                       WHERE {IN_RANGE.replace('status', 'p.status').replace('"createdAt"', 'p."createdAt"')}
                       GROUP BY 1 ORDER BY 2 DESC, 1''', {'first': first, 'last': last})
    assert [(p['plan'], pytest.approx(p['revenue'], abs=1e-5)) for p in answer['byPlan']] == cursor.fetchall()
    cursor.execute('''SELECT to_char(month, 'YYYY-MM'), (
            SELECT coalesce(sum(amount::numeric), 0)::float8 FROM payments
            WHERE status = 'COMPLETED' AND date_trunc('month', coalesce("paidAt", "createdAt") AT TIME ZONE 'UTC') = month)
        FROM generate_series(date_trunc('month', %s::timestamp) - interval '11 months', %s::timestamp, '1 month') month''', (last, last))
    assert [(t['month'], pytest.approx(t['revenue'], abs=1e-5)) for t in answer['byTimeframe']] == cursor.fetchall()
    assert len(answer['byTimeframe']) == 12


def test_revenue_projection(call):
    total = call('revenue', startDate='2025-11-01', endDate='2025-11-30')['totalRevenue']
    answer = call('revenue', startDate='2025-11-01', endDate='2025-11-30', type='projection')
    assert answer['nextMonth'] == pytest.approx(total, abs=0.01)
    assert answer['nextQuarter'] == pytest.approx(3 * total, abs=0.01)
    assert (answer['basis']['days'], answer['basis']['totalRevenue']) == (30, total)


def test_subscriptions(cursor, call):
    items = call('subscriptions/list')
    cursor.execute('''SELECT s.id, (SELECT count(*) FROM course c WHERE c."institutionId" = s."institutionId"),
        (SELECT coalesce(sum(amount::numeric), 0)::float8 FROM payments p WHERE p."institutionId" = s."institutionId" AND p.status = 'COMPLETED'),
        (SELECT count(*) FROM student_course_enrollments e JOIN course c ON c.id = e."courseId"
         WHERE c."institutionId" = s."institutionId" AND e.status IN ('ENROLLED', 'ACTIVE', 'IN_PROGRESS'))
        FROM institution_subscriptions s JOIN institution i ON i.id = s."institutionId" ORDER BY i.name, s.id''')
    assert [(s['id'], s['totalCourses'], s['revenueGenerated'], s['activeStudents']) for s in items] == cursor.fetchall()
    assert all(set(s) == columns(cursor, 'institution_subscriptions') | {
        'institution', 'commissionTier', 'revenueGenerated', 'activeStudents', 'totalCourses'} for s in items)
    assert [s['id'] for s in call('subscriptions/list', status='CANCELLED')] == [s['id'] for s in items if s['status'] == 'CANCELLED'] != []


def test_subscription_statistics(call):
    items = call('subscriptions/list')
    active = [s['commissionTier'] for s in items if s['status'] == 'ACTIVE']
    monthly = sum(t['price'] / (12 if t['planType'] == 'ENTERPRISE' else 1) for t in active)
    answer = call('subscriptions/stats')
    assert (answer['totalSubscriptions'], answer['activeSubscriptions']) == (len(items), len(active))
    assert answer['monthlyRevenue'] == pytest.approx(monthly, abs=0.01)
    assert answer['annualRevenue'] == pytest.approx(12 * monthly, abs=0.01)
    assert answer['averageCommissionRate'] == pytest.approx(sum(t['commissionRate'] for t in active) / len(active), abs=0.01)
    best = sorted(((s['revenueGenerated'], s['institution']['id']) for s in items), key=lambda b: (-b[0], b[1]))[:5]
    assert [(b['revenue'], b['id']) for b in answer['topPerformingInstitutions']] == best

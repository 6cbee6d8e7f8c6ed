"""The maintained totals stay true to the rows they count, whoever writes, and together or not."""
import pathlib
import random
import threading

import psycopg2
import pytest

SCHEMA = pathlib.Path(__file__).resolve().parents[2] / 'config' / 'demo' / 'schema.sql'

# What each maintained table must add up to.
TRUTH = {
    'course_enrollment_counts': (
        'SELECT "courseId", status, "paymentStatus", sum(n) FROM course_enrollment_counts GROUP BY 1, 2, 3 HAVING sum(n) <> 0',
        'SELECT "courseId", status, "paymentStatus", count(*) FROM student_course_enrollments GROUP BY 1, 2, 3'),
    'course_completion_counts': (
        'SELECT "courseId", sum(n) FROM course_completion_counts GROUP BY 1 HAVING sum(n) <> 0',
        'SELECT "courseId", count(*) FROM student_course_completions GROUP BY 1'),
    'tag_course_counts': (
        'SELECT "tagId", sum(n) FROM tag_course_counts GROUP BY 1 HAVING sum(n) <> 0',
        'SELECT "tagId", count(*) FROM coursetag GROUP BY 1'),
    'table_counts': (
        'SELECT name, status, sum(n) FROM table_counts GROUP BY 1, 2 HAVING sum(n) <> 0',
        ' UNION ALL '.join(f"SELECT '{t}', status, count(*) FROM \"{t}\" GROUP BY 2" for t in (
            'user', 'course', 'student_course_enrollments', 'student_course_completions'))),
    'notification_counts': (
        'SELECT status, sum(n) FROM notification_counts GROUP BY 1 HAVING sum(n) <> 0',
        'SELECT status, count(*) FROM notification_logs GROUP BY 1'),
    'payment_totals': (
        'SELECT status, sum(n), sum(amount), sum("commissionAmount"), sum("institutionAmount") FROM payment_totals '
        'GROUP BY 1 HAVING sum(n) <> 0',
        'SELECT status, count(*), sum(amount::numeric), sum("commissionAmount"::numeric), sum("institutionAmount"::numeric) '
        'FROM payments GROUP BY 1'),
    'revenue_sums': (
        'SELECT span, first, "institutionId", sum(n), sum(amount), sum("commissionAmount") FROM revenue_sums '
        'GROUP BY 1, 2, 3 HAVING sum(n) <> 0',
        ' UNION ALL '.join(
            f'''SELECT '{span}', date_trunc('{unit}', coalesce("paidAt", "createdAt") AT TIME ZONE 'UTC')::date, {institution}, count(*),
                       sum(amount::numeric), sum("commissionAmount"::numeric)
                FROM payments WHERE status = 'COMPLETED' GROUP BY 2, 3'''
            for span, unit, institution in (('total', 'day', "''"), ('day', 'day', '"institutionId"'),
                                            ('month', 'month', '"institutionId"'), ('year', 'year', '"institutionId"')))),
    'institution_counts': (
        'SELECT name, "institutionId", sum(n) FROM institution_counts GROUP BY 1, 2 HAVING sum(n) <> 0',
        '''SELECT 'courses', coalesce("institutionId", ''), count(*) FROM course GROUP BY 2
           UNION ALL SELECT 'places', coalesce(c."institutionId", ''), count(*)
           FROM student_course_enrollments e JOIN course c ON c.id = e."courseId"
           WHERE e.status IN ('ENROLLED', 'ACTIVE', 'IN_PROGRESS') GROUP BY 2'''),
    'course_search': (
        'SELECT "courseId", text FROM course_search',
        "SELECT id, lower(title || E'\\n' || coalesce(description, '')) FROM course"),
}


def differences(cursor):
    wrong = {}
    for table, (kept, counted) in TRUTH.items():
        cursor.execute(kept)
        kept = sorted(cursor.fetchall())
        cursor.execute(counted)
        counted = sorted(cursor.fetchall())
        if kept != counted:
            wrong[table] = (kept, counted)
    return wrong


@pytest.fixture
def database(url):
    """A database of the test's own, with the schema, two institutions, five courses and four tags."""
    name = 'plans_totals_test'
    admin = psycopg2.connect(url)
    admin.autocommit = True
    with admin.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS {name} WITH (FORCE)')
        cursor.execute(f'CREATE DATABASE {name} TEMPLATE template0')

    def connect():
        return psycopg2.connect(url, dbname=name, options='-c timezone=UTC -c deadlock_timeout=50ms')

    with connect() as connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA.read_text())
        cursor.execute('''INSERT INTO category (id, name, slug) VALUES ('g', 'g', 'g');
            INSERT INTO institution (id, name, slug, city, country, email) SELECT 'i' || n, 'i', 'i' || n, 'x', 'x', 'x' FROM generate_series(0, 1) n;
            INSERT INTO course (id, title, slug, "categoryId", "institutionId")
            SELECT 'c' || n, 'Course ' || n, 'c' || n, 'g', CASE WHEN n < 5 THEN 'i' || n % 2 END FROM generate_series(1, 5) n;
            INSERT INTO tag (id, name, slug) SELECT 't' || n, 't' || n, 't' || n FROM generate_series(1, 4) n''')
    connection.close()
    yield connect
    with admin.cursor() as cursor:
        cursor.execute(f'DROP DATABASE {name} WITH (FORCE)')
    admin.close()


@pytest.fixture
def write(database):
    connection = database()
    connection.autocommit = True
    with connection.cursor() as cursor:
        yield cursor
    connection.close()


ENROLL = '''INSERT INTO student_course_enrollments ("studentId", "courseId", status, "paymentStatus")
            SELECT 's' || n, 'c' || 1 + n %% 3, (ARRAY['ACTIVE', 'COMPLETED', 'DROPPED'])[1 + n %% 3 * n %% 2], (ARRAY['PAID', 'PENDING'])[1 + n %% 2]
            FROM generate_series(1, %s) n'''
PAY = '''INSERT INTO payments (amount, status, "commissionAmount", "institutionAmount", "institutionId", "enrollmentId", "paidAt", "createdAt")
         SELECT n * 0.1, (ARRAY['COMPLETED', 'PENDING', 'PAID'])[1 + n %% 3], n * 0.01, n * 0.09, 'i' || n %% 2, 'e',
                CASE WHEN n %% 4 > 0 THEN timestamptz '2025-01-31 23:00Z' + n * interval '1 hour' END, '2024-12-31 23:59:59Z'
         FROM generate_series(1, %s) n'''
COMPLETE = '''INSERT INTO student_course_completions ("courseId", "studentId", status)
              SELECT 'c' || 1 + n %% 5, 's', 'COMPLETED' FROM generate_series(1, %s) n'''
TAG = '''INSERT INTO coursetag ("courseId", "tagId") SELECT 'c' || c, 't' || t FROM generate_series(1, 5) c, generate_series(1, 4) t
         WHERE (c + t) %% %s > 0'''
JOIN = '''INSERT INTO "user" (name, email, password, status) SELECT 'n', n || '@x', 'p', (ARRAY['ACTIVE', 'SUSPENDED'])[1 + n %% 2]
          FROM generate_series(1, %s) n'''

NOTIFY = '''INSERT INTO notification_logs ("recipientId", type, title, content, status)
            SELECT 'u' || n %% 3, 'SYSTEM', 't', 'c', (ARRAY['SENT', 'READ', 'FAILED'])[1 + n %% 3] FROM generate_series(1, %s) n'''


@pytest.mark.parametrize('change', [
    '',
    'UPDATE student_course_enrollments SET "courseId" = \'c5\' WHERE "courseId" = \'c1\'',
    'UPDATE student_course_enrollments SET progress = 50',
    "UPDATE student_course_enrollments SET status = 'ENROLLED', \"paymentStatus\" = 'PAID' WHERE \"studentId\" < 's3'",
    'DELETE FROM student_course_enrollments WHERE "courseId" = \'c2\'',
    'DELETE FROM student_course_enrollments',
    'TRUNCATE student_course_enrollments',
    'TRUNCATE student_course_completions',
    'TRUNCATE payments',
    'TRUNCATE "user"',
    'TRUNCATE notification_logs',
    "UPDATE notification_logs SET status = 'READ' WHERE status = 'SENT'",
    "UPDATE notification_logs SET \"readAt\" = now()",
    "DELETE FROM notification_logs WHERE \"recipientId\" = 'u1'",
    'TRUNCATE coursetag',
    'TRUNCATE course CASCADE',
    'TRUNCATE tag CASCADE',
    'DELETE FROM student_course_completions; DELETE FROM course WHERE id IN (\'c1\', \'c2\')',
    "DELETE FROM student_course_completions WHERE \"courseId\" = 'c3'; DELETE FROM course WHERE id = 'c3'",
    "DELETE FROM tag WHERE id = 't1'",
    "UPDATE course SET \"institutionId\" = 'i1'",
    "UPDATE course SET \"institutionId\" = NULL WHERE id = 'c1'; UPDATE course SET \"institutionId\" = 'i0' WHERE id = 'c5'",
    "DELETE FROM institution WHERE id = 'i1'",
    'UPDATE coursetag SET "tagId" = \'t4\' WHERE "tagId" = \'t3\' AND "courseId" IN (SELECT id FROM course EXCEPT SELECT "courseId" FROM coursetag WHERE "tagId" = \'t4\')',
    "UPDATE course SET status = 'ARCHIVED', title = 'ÉTÉ ' || title, description = 'Neu' WHERE id < 'c3'",
    "UPDATE payments SET status = 'COMPLETED', \"paidAt\" = '2025-05-05' WHERE status = 'PENDING'",
    "UPDATE payments SET amount = amount + 0.2, \"institutionId\" = 'i3'",
    "UPDATE payments SET \"paidAt\" = NULL",
    'DELETE FROM payments WHERE amount < 3',
    "UPDATE \"user\" SET status = 'SUSPENDED'",
    'DELETE FROM "user" WHERE status = \'ACTIVE\'',
    'UPDATE student_course_completions SET "courseId" = \'c1\', status = \'FAILED\'',
    'DELETE FROM student_course_completions',
    "INSERT INTO course (id, title, slug, \"categoryId\") VALUES ('c1', 'x', 'x', 'g') ON CONFLICT (id) DO UPDATE SET title = excluded.title",
    "MERGE INTO student_course_enrollments e USING (VALUES ('c1'), ('c2')) v (c) ON e.\"courseId\" = v.c WHEN MATCHED AND v.c = 'c1' THEN DELETE "
    "WHEN MATCHED THEN UPDATE SET status = 'CANCELLED'",
    'SELECT refill_totals()',
])
def test_totals_follow_each_kind_of_change(write, change):
    for statement, n in ((ENROLL, 40), (PAY, 60), (COMPLETE, 25), (TAG, 3), (JOIN, 9), (NOTIFY, 10)):
        write.execute(statement, (n,))
    assert differences(write) == {}
    if change:
        write.execute(change)
    assert differences(write) == {}


def test_a_change_taken_back_leaves_no_trace(database):
    connection = database()
    with connection.cursor() as cursor:
        cursor.execute(ENROLL, (40,))
        connection.commit()
        cursor.execute('SAVEPOINT a')
        cursor.execute('DELETE FROM student_course_enrollments')
        cursor.execute('ROLLBACK TO a')
        cursor.execute(PAY, (10,))
        connection.rollback()
        assert differences(cursor) == {}
    connection.close()


def test_refill_repairs(write):
    write.execute(ENROLL, (40,))
    write.execute(PAY, (40,))
    write.execute('UPDATE course_enrollment_counts SET n = n + 1; DELETE FROM payment_totals; DELETE FROM course_search')
    assert set(differences(write)) == {'course_enrollment_counts', 'payment_totals', 'course_search'}
    write.execute('SELECT refill_totals()')
    assert differences(write) == {}


def test_writers_do_not_wait_for_each_other(database):
    """Two open transactions enrol in, and pay for, the same course; neither may block."""
    first, second = database(), database()
    with first.cursor() as one, second.cursor() as two:
        one.execute(ENROLL, (6,))
        first.commit()
        one.execute(ENROLL, (6,))
        one.execute(PAY, (6,))
        two.execute("SET lock_timeout = '2s'")
        two.execute(ENROLL, (6,))
        two.execute(PAY, (6,))
        first.commit()
        second.commit()
        assert differences(one) == {}
    first.close()
    second.close()


def test_a_writer_without_rights_on_the_totals_keeps_them(write):
    write.execute('DROP ROLE IF EXISTS plans_test_writer; CREATE ROLE plans_test_writer')
    try:
        write.execute('GRANT SELECT, INSERT, UPDATE, DELETE ON student_course_enrollments, course TO plans_test_writer; SET ROLE plans_test_writer')
        write.execute(ENROLL, (6,))
        write.execute("UPDATE course SET title = 'New' WHERE id = 'c1'")
        write.execute('RESET ROLE')
        assert differences(write) == {}
    finally:
        write.execute('RESET ROLE; DROP OWNED BY plans_test_writer; DROP ROLE plans_test_writer')


def test_totals_stay_true_under_concurrent_writers(database):
    """Six writers, random statements, several to a transaction, some rolled back, courses come, move and go."""
    refused, broken = [], []

    def work(seed):
        rng = random.Random(seed)
        connection = database()
        try:
            for turn in range(60):
                course = rng.choice(['c1', 'c1', 'c1', 'c2', 'c3', f'w{seed}'])
                other = rng.choice(['c1', 'c2', 'c4'])
                statements = rng.choices([
                    ('INSERT INTO student_course_enrollments ("studentId", "courseId", status) '
                     'SELECT %s, %s, \'ACTIVE\' FROM generate_series(1, 3) WHERE EXISTS (SELECT FROM course WHERE id = %s)', (f's{seed}', course, course)),
                    ('UPDATE student_course_enrollments SET "courseId" = %s WHERE "studentId" = %s AND "courseId" = \'c1\'', (other, f's{seed}')),
                    ('UPDATE student_course_enrollments SET status = %s WHERE "studentId" = %s AND "courseId" = %s',
                     (rng.choice(['ACTIVE', 'COMPLETED']), f's{seed}', other)),
                    ('DELETE FROM student_course_enrollments WHERE "studentId" = %s AND "courseId" = %s', (f's{seed}', other)),
                    (PAY, (rng.randint(1, 5),)),
                    ("UPDATE payments SET status = 'COMPLETED' WHERE id IN (SELECT id FROM payments WHERE status = 'PENDING' "
                     'ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED)', ()),
                    ('INSERT INTO course (id, title, slug, "categoryId") VALUES (%s, %s, %s, \'g\') ON CONFLICT DO NOTHING',
                     (f'w{seed}', f'w{seed}', f'w{seed}')),
                    ('DELETE FROM course WHERE id = %s', (f'w{rng.randint(1, 6)}',)),
                    ('UPDATE course SET "institutionId" = %s WHERE id = %s', (rng.choice(['i0', 'i1', None]), other)),
                ], weights=[6, 2, 3, 2, 4, 3, 2, 1, 2], k=rng.randint(1, 4))
                try:
                    with connection.cursor() as cursor:
                        for statement, args in statements:
                            cursor.execute(statement, args)
                    connection.rollback() if rng.random() < 0.15 else connection.commit()
                except (psycopg2.errors.DeadlockDetected, psycopg2.errors.ForeignKeyViolation) as error:
                    # The rows themselves may be locked both ways round; a course may go while one enrols.
                    refused.append(error)
                    connection.rollback()
        except Exception as error:  # pylint: disable=broad-except
            broken.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    assert len(refused) < 100
    connection = database()
    with connection.cursor() as cursor:
        assert differences(cursor) == {}
        cursor.execute('SELECT count(*) FROM student_course_enrollments')
        assert cursor.fetchone()[0] > 0
        # A key's rows grow with the writers it has at once, not with what they write.
        cursor.execute('SELECT max(n) FROM (SELECT count(*) AS n FROM course_enrollment_counts GROUP BY "courseId", status, "paymentStatus") t')
        assert cursor.fetchone()[0] <= 4 * len(threads)
    connection.close()

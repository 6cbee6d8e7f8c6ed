-- Demo data for schema.sql, into empty tables. Run as their owner:
--
--   psql -v ON_ERROR_STOP=1 -v scale=0.01 [-v today=2026-01-01] -f generate.sql
--
-- scale 1 is 10,000 courses, 50,000 students, 500,000 enrolments, 300,000 payments over two years.
-- The same scale and today give the same data: every value is a hash of its row's number, and all
-- times lie before `today` (courses may start after it). Sign-in is no matter of this data: password
-- holds no real hash.

\set ON_ERROR_STOP on
\if :{?scale}
\else
    \set scale 1
\endif
\if :{?today}
\else
    \set today 2026-01-01
\endif
\set QUIET on
\pset tuples_only on
\pset format unaligned
SET client_min_messages = warning;
SET TimeZone = UTC;
SET synchronous_commit = off;
SET work_mem = '64MB';
SET maintenance_work_mem = '256MB';
SET max_parallel_workers_per_gather = 0;
SET jit = off;

SELECT EXISTS (SELECT FROM course) OR EXISTS (SELECT FROM "user") AS filled \gset
\if :filled
    \warn 'There is data in this database already: generate.sql wants empty tables.'
    DO $$ BEGIN RAISE EXCEPTION 'the demo tables are not empty'; END $$;
\endif

\echo demo data: scale :scale, today :today

-- How many of each, and when "now" is. Temporary, as are the helpers: they leave with the session.
CREATE TEMP TABLE size AS
SELECT :'today'::timestamptz                             AS today,
       greatest(10,  200 * :scale)::int                  AS institutions,
       greatest(50,  10000 * :scale)::int                AS courses,
       100                                               AS tags,
       greatest(100, 50000 * :scale)::int                AS students,
       greatest(500, 500000 * :scale)::int               AS enrollments,
       greatest(200, 200000 * :scale)::int               AS completions,
       greatest(300, 300000 * :scale)::int               AS payments;

-- A number in [0,1) that only depends on row n of stream s.
CREATE FUNCTION pg_temp.r(n bigint, s int) RETURNS float8 LANGUAGE sql IMMUTABLE
    RETURN (hashint8extended(n, s) & 9007199254740991) / 9007199254740992.0::float8;
-- The id of row n of a kind: a uuid in shape.
CREATE FUNCTION pg_temp.key(kind text, n bigint) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN md5(kind || n)::uuid::text;
CREATE FUNCTION pg_temp.pick(a text[], x float8) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN a[1 + floor(x * cardinality(a))::int];
-- Zipf-like rank in 1..m for x in [0,1): rank k is drawn about 1/k as often as the first. The first
-- gets 5% on top, so that some 10% of everything goes to one row at any scale.
CREATE FUNCTION pg_temp.zipf(m int, x float8) RETURNS int LANGUAGE sql IMMUTABLE
    RETURN least(m, greatest(1, floor(power(m + 1, (x - 0.05) / 0.95))::int));

CREATE TEMP TABLE word AS SELECT
    ARRAY['Amelia','Sofía','Zoë','François','Björn','Yuki','Wei','Olga','Chloé','Łukasz','Mehmet','Ayşe','Carlos','Ana',
          'Nguyễn','Priya','Rahul','Fatima','Omar','Ingrid','José','Maria','Liam','Emma','Noah','Olivia','Hugo','Élodie',
          'Giulia','Marco','Katarína','Tomáš','Søren','Freja','Aoife','Seán','Hana','Kenji','Min-jun','Seo-yeon','Ivan',
          'Anastasia','Dmitri','Nadia','Samuel','Grace','Daniel','Lucía','Mateo','Isabella'] AS first,
    ARRAY['amelia','sofia','zoe','francois','bjorn','yuki','wei','olga','chloe','lukasz','mehmet','ayse','carlos','ana',
          'nguyen','priya','rahul','fatima','omar','ingrid','jose','maria','liam','emma','noah','olivia','hugo','elodie',
          'giulia','marco','katarina','tomas','soren','freja','aoife','sean','hana','kenji','minjun','seoyeon','ivan',
          'anastasia','dmitri','nadia','samuel','grace','daniel','lucia','mateo','isabella'] AS first_ascii,
    ARRAY['Smith','Müller','García','Dubois','Rossi','Nowak','Kowalska','Yılmaz','Tanaka','Suzuki','Kim','Park','Wang','Li',
          'Silva','Santos','Ivanov','Petrova','Johansson','Nielsen','O''Brien','Murphy','Patel','Sharma','Khan','Hussein',
          'Haddad','Nagy','Horváth','Novák','Popescu','Papadopoulos','Jansen','de Vries','Schmidt','Fischer','Moreau',
          'Lefèvre','Fernández','Castro','Brown','Taylor','Wilson','Clarke','Okafor','Mensah','Diallo','Tran','Lê','Andersen'] AS last,
    ARRAY['smith','mueller','garcia','dubois','rossi','nowak','kowalska','yilmaz','tanaka','suzuki','kim','park','wang','li',
          'silva','santos','ivanov','petrova','johansson','nielsen','obrien','murphy','patel','sharma','khan','hussein',
          'haddad','nagy','horvath','novak','popescu','papadopoulos','jansen','devries','schmidt','fischer','moreau',
          'lefevre','fernandez','castro','brown','taylor','wilson','clarke','okafor','mensah','diallo','tran','le','andersen'] AS last_ascii,
    ARRAY['London|United Kingdom|GBP','Dublin|Ireland|EUR','Paris|France|EUR','Berlin|Germany|EUR','Madrid|Spain|EUR',
          'Valletta|Malta|EUR','New York|United States|USD','Toronto|Canada|USD','Sydney|Australia|USD','Cape Town|South Africa|USD',
          'Kraków|Poland|EUR','İstanbul|Türkiye|USD','Tōkyō|Japan|USD','Seoul|South Korea|USD','São Paulo|Brazil|USD',
          'Bogotá|Colombia|USD','Edinburgh|United Kingdom|GBP','Wien|Austria|EUR','Zürich|Switzerland|EUR','Lisboa|Portugal|EUR'] AS city,
    ARRAY['Academy of English','Language School','International College','Institute of Languages','Language Centre',
          'Sprachschule','École de langues','Academia de Idiomas','College of Further Studies','Study Centre'] AS school,
    ARRAY['General English','Business English','IELTS Exam Preparation','Cambridge C1 Advanced','TOEFL iBT Preparation',
          'Academic English','English for Teachers','Business French','Français général','DELF B2 Preparation','General German',
          'Deutsch für den Beruf','Goethe-Zertifikat B1','Español general','DELE B2 Preparation','Italian for Beginners',
          'JLPT N3','JLPT N2 日本語','HSK 4 中文','TOPIK II 한국어','Portuguese Conversation','Русский язык','Arabic for Travellers',
          'Dutch Integration Course','Polish Conversation','Legal English','Medical English','English for Aviation',
          'Summer Junior Camp','Pronunciation Workshop','OET Nursing','Türkçe'] AS subject,
    ARRAY['Intensive','Semi-intensive','Evening','Morning','Weekend','Online','One-to-one','Crash Course','Standard','Premium',
          'Small Group','Long-term'] AS mode,
    ARRAY['BEGINNER','ELEMENTARY','INTERMEDIATE','UPPER_INTERMEDIATE','ADVANCED','PROFICIENCY'] AS levels;

-- Off while rows pour in: the maintained tables are filled in one go, plain indexes built after it.
CREATE TEMP TABLE suspended AS
    SELECT tgrelid::regclass::text AS source, tgname AS name FROM pg_trigger
    WHERE tgfoid IN ('keep_totals'::regproc, 'keep_course_search'::regproc);
CREATE TEMP TABLE dropped AS
    SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
    FROM pg_index i
    WHERE i.indrelid IN ('course'::regclass, 'coursetag'::regclass, 'course_weekly_prices'::regclass, '"user"'::regclass,
                         'students'::regclass, 'student_course_enrollments'::regclass, 'student_course_completions'::regclass,
                         'payments'::regclass, 'course_search'::regclass, 'notification_logs'::regclass)
      AND NOT i.indisunique;
BEGIN;
SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', source, name) FROM suspended \gexec
SELECT format('DROP INDEX %s', name) FROM dropped \gexec

\echo institutions, categories, tags, tiers
INSERT INTO institution
SELECT pg_temp.key('institution', n), format('%s %s%s', split_part(p.place, '|', 1), pg_temp.pick(w.school, pg_temp.r(n, 12)),
           CASE WHEN n > 100 THEN ' ' || n ELSE '' END),
       'institution-' || n, 'Courses for adults and young learners since ' || 1960 + floor(60 * pg_temp.r(n, 13)) || '.',
       1 + n % 200 || ' High Street', split_part(p.place, '|', 1), NULL, split_part(p.place, '|', 2), 'P' || 10000 + n,
       'office' || n || '@school.example', 'https://school' || n || '.example',
       CASE WHEN n % 3 > 0 THEN 'info' || n || '@school.example' END, CASE WHEN n % 4 > 0 THEN '+44 20 ' || 70000000 + n END,
       CASE WHEN n % 5 > 0 THEN pg_temp.pick(w.first, pg_temp.r(n, 14)) || ' ' || pg_temp.pick(w.last, pg_temp.r(n, 15)) END,
       CASE WHEN n % 5 > 0 THEN 'Director of Studies' END, NULL, NULL, NULL, NULL, 'Library, Wi-Fi, Café',
       s.status, s.status = 'ACTIVE', split_part(p.place, '|', 3), 8 + floor(13 * pg_temp.r(n, 16)),
       CASE WHEN n % 7 = 0 THEN '{"earlyBird": 5}'::jsonb END, NULL,
       CASE WHEN n % 2 = 0 THEN jsonb_build_object('instagram', '@school' || n) END, 15, NULL,
       pg_temp.pick(ARRAY['BASIC','BASIC','PROFESSIONAL','ENTERPRISE'], pg_temp.r(n, 17)), n % 20 = 0, s.status = 'ACTIVE',
       z.today - (730 + 365 * pg_temp.r(n, 18)) * interval '1 day', z.today - 300 * pg_temp.r(n, 19) * interval '1 day'
FROM size z, word w, generate_series(1, z.institutions) n,
     LATERAL (SELECT pg_temp.pick(w.city, pg_temp.r(n, 11)) AS place) p,
     LATERAL (SELECT CASE WHEN n % 10 = 8 THEN 'PENDING' WHEN n % 40 = 39 THEN 'SUSPENDED' ELSE 'ACTIVE' END AS status) s;

INSERT INTO category
SELECT pg_temp.key('category', n), name, 'category-' || n, CASE WHEN n % 6 > 0 THEN name || ' courses of every level.' END,
       z.today - interval '3 years', z.today - interval '1 year'
FROM size z, unnest(ARRAY['General English','Business English','Exam Preparation','Academic English','English for Specific Purposes',
    'Teacher Training','French','German','Spanish','Italian','Portuguese','Japanese','Chinese','Korean','Arabic','Russian','Dutch',
    'Polish','Turkish','Scandinavian Languages','Young Learners','Summer Schools','Conversation','Pronunciation','Grammar','Writing',
    'Translation & Interpreting','Culture & History','Work & Study','University Pathway','Family Courses','Golden Age 50+',
    'One-to-one']) WITH ORDINALITY AS c (name, n);

-- Ten roots, thirty children, sixty grandchildren.
INSERT INTO tag
SELECT pg_temp.key('tag', n),
       CASE WHEN n <= 10 THEN root ELSE format('%s %s', root, CASE WHEN n <= 40 THEN pg_temp.pick(w.mode, (n % 30) / 30.0)
                                                                 ELSE initcap(replace(pg_temp.pick(w.levels, (n % 6) / 6.0), '_', ' ')) || ' ' || n END) END,
       'tag-' || n, CASE WHEN n % 3 = 0 THEN 'Courses tagged ' || root END,
       CASE WHEN n % 4 > 0 THEN pg_temp.key('category', 1 + n % 33) END,
       CASE WHEN n <= 10 THEN NULL WHEN n <= 40 THEN pg_temp.key('tag', 1 + n % 10) ELSE pg_temp.key('tag', 11 + n % 30) END,
       0, CASE WHEN n % 5 > 0 THEN '#' || left(md5(n::text), 6) END, CASE WHEN n % 2 = 0 THEN 'tag' END, n % 10 = 0, n % 5,
       z.today - interval '2 years', z.today - interval '1 year'
FROM size z, word w, generate_series(1, z.tags) n,
     LATERAL (SELECT (ARRAY['Skills','Exam','Audience','Format','Level','Goal','Region','Schedule','Funding','Extras'])
                     [CASE WHEN n <= 10 THEN n WHEN n <= 40 THEN 1 + n % 10 ELSE 1 + (11 + n % 30) % 10 END] AS root) t;

INSERT INTO commission_tiers VALUES
    (pg_temp.key('tier', 1), 'BASIC', 'Basic', 'For a first course or two', 15, 49, 'USD', 'MONTHLY', '["listing"]', true),
    (pg_temp.key('tier', 2), 'PROFESSIONAL', 'Professional', 'For a school', 12, 149, 'USD', 'MONTHLY', '["listing", "live classes"]', true),
    (pg_temp.key('tier', 3), 'ENTERPRISE', 'Enterprise', 'For a group of schools', 8, 4990, 'USD', 'ANNUAL', '["listing", "live classes", "reports"]', true),
    (pg_temp.key('tier', 4), 'STARTER', 'Starter', 'No longer sold', 18, 19, 'USD', 'MONTHLY', '[]', false);
INSERT INTO institution_subscriptions
SELECT pg_temp.key('subscription', n), i.id, t.id,
       (ARRAY['ACTIVE','ACTIVE','ACTIVE','ACTIVE','ACTIVE','ACTIVE','TRIAL','PAST_DUE','CANCELLED','EXPIRED'])[1 + n % 10],
       z.today - (30 + n % 600) * interval '1 day', z.today + (n % 365 - 30) * interval '1 day', n % 4 > 0
FROM size z, generate_series(1, z.institutions) n
JOIN institution i ON i.id = pg_temp.key('institution', n)
JOIN commission_tiers t ON t."planType" = i."subscriptionPlan"
WHERE n % 12 > 0;

\echo courses
-- Course 1 is the most popular, course 2 the next: enrolments are drawn by rank. One in twelve is the
-- platform's own.
INSERT INTO course
SELECT pg_temp.key('course', n),
       format('%s – %s %s', pg_temp.pick(w.subject, pg_temp.r(n, 21)), pg_temp.pick(w.mode, pg_temp.r(n, 22)), n),
       'course-' || n,
       CASE WHEN n % 25 > 0 THEN format('%s. Taught by native speakers in %s groups; %s weeks with a certificate at the end%s',
           pg_temp.pick(w.subject, pg_temp.r(n, 21)), lower(pg_temp.pick(w.mode, pg_temp.r(n, 23))), 1 + n % 48,
           (ARRAY['.', ', 100% online.', ', materials included. Niveau débutant à avancé.', ', all_inclusive.', '. 初級から上級まで。'])[1 + n % 5]) END,
       1 + n % 48, pg_temp.pick(w.levels, pg_temp.r(n, 24)),
       CASE WHEN n % 10 < 8 THEN 'PUBLISHED' WHEN n % 10 = 8 THEN 'DRAFT' ELSE 'ARCHIVED' END,
       CASE WHEN n % 12 > 0 THEN pg_temp.key('institution', 1 + (n + n / 7) % z.institutions) END,
       pg_temp.key('category', pg_temp.zipf(33, pg_temp.r(n, 25))),
       date_trunc('day', z.today) + (floor(400 * pg_temp.r(n, 26)) - 200) * interval '1 day',
       date_trunc('day', z.today) + (floor(400 * pg_temp.r(n, 26)) - 200 + 7 * (1 + n % 48)) * interval '1 day',
       10 + n % 20, 49 + 10 * floor(95 * pg_temp.r(n, 27)),
       pg_temp.pick(ARRAY['FULL_COURSE','WEEKLY','WEEKLY','MONTHLY'], pg_temp.r(n, 28)),
       pg_temp.pick(ARRAY['CEFR','CEFR','CEFR','CEFR','ACTFL','JLPT','HSK','TOPIK'], pg_temp.r(n, 29)),
       n % 30 = 0, n % 50 = 1, CASE WHEN n % 9 = 0 THEN n % 100 ELSE 0 END,
       n % 4 = 0, CASE WHEN n % 4 = 0 THEN 'GROUP' END, CASE WHEN n % 4 = 0 THEN 'WEEKLY' END,
       CASE WHEN n % 4 = 0 THEN jsonb_build_object('day', 'Tuesday', 'time', '18:30') END,
       n % 12 = 0, n % 24 = 0, CASE WHEN n % 24 = 0 THEN 'PROFESSIONAL' END,
       pg_temp.pick(ARRAY['SELF_PACED','LIVE_ONLINE','IN_PERSON','BLENDED'], pg_temp.r(n, 30)),
       CASE WHEN n % 6 = 0 THEN 'Start any Monday.' END,
       z.today - 1000 * pg_temp.r(n, 31) * interval '1 day', z.today - 100 * pg_temp.r(n, 32) * interval '1 day'
FROM size z, word w, generate_series(1, z.courses) n;

INSERT INTO coursetag
SELECT DISTINCT ON ("courseId", "tagId") md5(c.id || t.id)::uuid::text, c.id AS "courseId", t.id AS "tagId",
       c."createdAt", c."createdAt"
FROM size z, generate_series(1, z.courses) n, LATERAL generate_series(1, 2 + n % 7) k,
     LATERAL (SELECT pg_temp.key('course', n) AS id, z.today - 1000 * pg_temp.r(n, 31) * interval '1 day' AS "createdAt") c,
     LATERAL (SELECT pg_temp.key('tag', 1 + (n * 13 + k * (7 + n % 3)) % z.tags) AS id) t;

INSERT INTO course_weekly_prices
SELECT md5(c.id || week)::uuid::text, c.id, week, extract(year FROM z.today)::int,
       round((49 + 200 * pg_temp.r(n, 27) + 5 * (week % 13))::numeric, 2), z.today - interval '90 days', z.today - interval '90 days'
FROM size z, generate_series(1, z.courses, 10) n, LATERAL generate_series(1, 52) week,
     LATERAL (SELECT pg_temp.key('course', n) AS id) c;

INSERT INTO course_pricing_rules
SELECT md5(c.id || 'rule' || k)::uuid::text, c.id, (ARRAY['EARLY_BIRD','LONG_STAY','GROUP'])[k], 5 * k + n % 5,
       z.today - interval '90 days', z.today - interval '90 days'
FROM size z, generate_series(1, z.courses) n, LATERAL generate_series(1, n % 4) k,
     LATERAL (SELECT pg_temp.key('course', n) AS id) c;
SELECT '  ' || (SELECT count(*) FROM course) || ' courses, ' || (SELECT count(*) FROM coursetag) || ' coursetags, '
            || (SELECT count(*) FROM course_weekly_prices) || ' weekly prices, ' || (SELECT count(*) FROM course_pricing_rules) || ' rules';

\echo users and students
-- Users 1 to 20 are admins; then five staff for each institution; then the students.
INSERT INTO "user"
SELECT pg_temp.key('user', n), p.first || ' ' || p.last, p.email || n || '@' || (ARRAY['mail.example','post.example','uni.example'])[1 + n % 3],
       '$2b$10$' || left(md5('password' || n) || md5('drowssap' || n), 53), p.role, p.institution,
       CASE WHEN n % 33 = 7 THEN 'SUSPENDED' ELSE 'ACTIVE' END,
       CASE WHEN n % 3 = 0 THEN 'https://images.example/' || n || '.jpg' END,
       CASE WHEN n % 5 > 0 THEN p.created + interval '1 hour' END,
       CASE WHEN n % 7 > 0 THEN p.created + (z.today - p.created) * pg_temp.r(n, 43) END,
       p.created, p.created + (z.today - p.created) * pg_temp.r(n, 44)
FROM size z, word w, LATERAL generate_series(1, 20 + 5 * z.institutions + z.students) n,
     LATERAL (SELECT pg_temp.pick(w.first, pg_temp.r(n, 41)) AS first, pg_temp.pick(w.last, pg_temp.r(n, 42)) AS last,
                     pg_temp.pick(w.first_ascii, pg_temp.r(n, 41)) || '.' || pg_temp.pick(w.last_ascii, pg_temp.r(n, 42)) AS email,
                     CASE WHEN n <= 20 THEN 'ADMIN'
                          WHEN n <= 20 + 5 * z.institutions
                          THEN (ARRAY['INSTITUTION','INSTITUTION_STAFF','INSTRUCTOR','INSTRUCTOR','INSTITUTION_STAFF'])[1 + (n - 21) % 5]
                          ELSE 'STUDENT' END AS role,
                     CASE WHEN n > 20 AND n <= 20 + 5 * z.institutions THEN pg_temp.key('institution', 1 + (n - 21) / 5)
                          WHEN n > 20 AND n % 10 = 0 THEN pg_temp.key('institution', pg_temp.zipf(z.institutions, pg_temp.r(n, 45))) END AS institution,
                     z.today - (CASE WHEN n <= 20 THEN 900 ELSE 900 * pg_temp.r(n, 46) END) * interval '1 day' AS created) p;
INSERT INTO students
SELECT u.id, u.name, u.email, CASE WHEN hashtext(u.id) % 4 > 0 THEN '+44 7' || 100000000 + abs(hashtext(u.id)) % 899999999 END,
       CASE WHEN hashtext(u.id) % 12 = 0 THEN 'inactive' ELSE 'active' END, u."createdAt", u."updatedAt", coalesce(u."lastLoginAt", u."createdAt")
FROM "user" u WHERE u.role = 'STUDENT';
SELECT '  ' || (SELECT count(*) FROM "user") || ' users, ' || (SELECT count(*) FROM students) || ' students';

\echo enrolments
-- n of a student's user row is drawn at random, the course by rank.
INSERT INTO student_course_enrollments
SELECT pg_temp.key('enrollment', n), pg_temp.key('user', 21 + 5 * z.institutions + floor(z.students * pg_temp.r(n, 51))::int),
       pg_temp.key('course', d.course), d.status,
       CASE WHEN d.status = 'COMPLETED' THEN 100 WHEN d.status IN ('ACTIVE', 'IN_PROGRESS', 'DROPPED') THEN floor(100 * pg_temp.r(n, 53)) ELSE 0 END,
       date_trunc('day', d.created) + interval '7 days', CASE WHEN n % 3 > 0 THEN date_trunc('day', d.created) + interval '91 days' END,
       d.paid, CASE WHEN d.paid = 'PAID' THEN d.created + interval '1 day' * pg_temp.r(n, 54) END, 1 + n % 3,
       CASE WHEN d.course % 24 = 0 THEN 'SUBSCRIPTION' ELSE 'DIRECT' END, CASE WHEN d.course % 24 = 0 THEN 'SUBSCRIPTION_BASED' ELSE 'COURSE_BASED' END,
       d.status NOT IN ('DROPPED', 'CANCELLED'), d.course % 12 = 0, d.created, d.created + (z.today - d.created) * pg_temp.r(n, 55)
FROM size z, generate_series(1, z.enrollments) n,
     LATERAL (SELECT e.*, CASE WHEN e.status = 'PENDING_PAYMENT' THEN CASE WHEN n % 4 = 0 THEN 'FAILED' ELSE 'PENDING' END
                               WHEN e.status = 'CANCELLED' THEN CASE WHEN n % 2 = 0 THEN 'REFUNDED' ELSE 'PENDING' END
                               ELSE 'PAID' END AS paid
              FROM (SELECT pg_temp.zipf(z.courses, pg_temp.r(n, 52)) AS course,
                           pg_temp.pick(ARRAY['PENDING_PAYMENT','PENDING_PAYMENT','ENROLLED','ENROLLED','ENROLLED','ACTIVE','ACTIVE','IN_PROGRESS',
                                              'IN_PROGRESS','COMPLETED','COMPLETED','COMPLETED','COMPLETED','DROPPED','CANCELLED'], pg_temp.r(n, 56)) AS status,
                           z.today - 730 * (1 - sqrt(1 - pg_temp.r(n, 57))) * interval '1 day' AS created) e) d;
SELECT '  ' || count(*) || ' enrolments' FROM student_course_enrollments;

\echo completions
INSERT INTO student_course_completions
SELECT pg_temp.key('completion', n), pg_temp.key('course', pg_temp.zipf(z.courses, pg_temp.r(n, 61))),
       pg_temp.key('user', 21 + 5 * z.institutions + floor(z.students * pg_temp.r(n, 62))::int),
       pg_temp.pick(ARRAY['COMPLETED','COMPLETED','COMPLETED','COMPLETED','COMPLETED','PASSED','PASSED','FAILED'], pg_temp.r(n, 63)),
       z.today - 700 * pg_temp.r(n, 64) * interval '1 day', z.today - 700 * pg_temp.r(n, 64) * interval '1 day'
FROM size z, generate_series(1, z.completions) n;
SELECT '  ' || count(*) || ' completions' FROM student_course_completions;

\echo payments and bookings
-- For enrolment n, or (one in 200) one that is gone, and of an institution that may be gone too (one in
-- 300). A platform course's payment names the institution 'platform', which does not exist. The first
-- of every twenty pending ones names a booking.
INSERT INTO payments
SELECT pg_temp.key('payment', n), d.amount, d.status,
       CASE WHEN d.status IN ('COMPLETED', 'PAID', 'REFUNDED') AND n % 50 > 0 THEN d.created + interval '2 days' * pg_temp.r(n, 71) END,
       CASE WHEN d.booked THEN jsonb_build_object('bookingId', pg_temp.key('booking', n)) WHEN n % 3 = 0 THEN jsonb_build_object('source', 'web') END,
       CASE WHEN n % 300 = 150 THEN pg_temp.key('gone institution', n % 9) WHEN d.course % 12 = 0 THEN 'platform' ELSE d.institution END,
       CASE WHEN n % 200 = 100 THEN pg_temp.key('gone enrollment', n) ELSE pg_temp.key('enrollment', d.enrollment) END,
       CASE WHEN d.status = 'COMPLETED' AND d.course % 12 > 0 THEN round(d.amount::numeric * 0.12, 2) ELSE 0 END,
       CASE WHEN d.status = 'COMPLETED' AND d.course % 12 > 0 THEN d.amount::numeric - round(d.amount::numeric * 0.12, 2) ELSE d.amount END,
       CASE WHEN n % 11 > 0 THEN pg_temp.pick(ARRAY['CREDIT_CARD','CREDIT_CARD','BANK_TRANSFER','PAYPAL','CASH'], pg_temp.r(n, 72)) END,
       CASE WHEN n % 7 > 0 THEN 'REF-' || lpad(n::text, 8, '0') END, CASE WHEN n % 40 = 0 THEN 'Paid at the office; reçu n° ' || n END,
       CASE WHEN n % 6 > 0 THEN 'key-' || n END, 'USD',
       CASE WHEN d.status = 'REFUNDED' THEN d.amount END, CASE WHEN d.status = 'REFUNDED' THEN least(d.created + interval '20 days', z.today) END,
       d.created, d.created + (z.today - d.created) * pg_temp.r(n, 73) * 0.1
FROM size z, generate_series(1, z.payments) n,
     LATERAL (SELECT e.*, e.status IN ('PENDING', 'PROCESSING', 'INITIATED') AND n % 20 < 10 AS booked,
                     pg_temp.key('institution', 1 + (e.course + e.course / 7) % z.institutions) AS institution
              FROM (SELECT x.enrollment, pg_temp.zipf(z.courses, pg_temp.r(x.enrollment, 52)) AS course,
                           pg_temp.pick(ARRAY['COMPLETED','COMPLETED','COMPLETED','COMPLETED','COMPLETED','COMPLETED','COMPLETED','COMPLETED',
                                              'COMPLETED','COMPLETED','COMPLETED','COMPLETED','COMPLETED','COMPLETED','PAID','FAILED',
                                              'REFUNDED','PENDING','PROCESSING','INITIATED'], pg_temp.r(n, 74)) AS status,
                           round((49 + 950 * pg_temp.r(n, 75))::numeric, 2)::float8 AS amount,
                           z.today - (2 + 728 * (1 - sqrt(1 - pg_temp.r(n, 76)))) * interval '1 day' AS created
                    FROM (SELECT 1 + floor(z.enrollments * pg_temp.r(n, 77))::bigint AS enrollment) x) e) d;
INSERT INTO booking
SELECT p.metadata ->> 'bookingId', e."courseId", p."institutionId", e."studentId", e."studentId", 'PENDING', p.amount, p."createdAt", p."createdAt"
FROM payments p JOIN student_course_enrollments e ON e.id = p."enrollmentId"
WHERE p.metadata ? 'bookingId';
SELECT '  ' || (SELECT count(*) FROM payments) || ' payments, ' || (SELECT count(*) FROM booking) || ' bookings';

\echo audit and notification rows
INSERT INTO audit_logs
SELECT pg_temp.key('audit', n), CASE WHEN n % 9 > 0 THEN pg_temp.key('user', 1 + n % 20) END,
       pg_temp.pick(ARRAY['UPDATE','UPDATE','CREATE','DELETE','APPROVE','LOGIN'], pg_temp.r(n, 81)),
       pg_temp.pick(ARRAY['course','payment','user','institution'], pg_temp.r(n, 82)), pg_temp.key('course', n),
       jsonb_build_object('row', n), CASE WHEN n % 20 = 0 THEN 'WARNING' ELSE 'INFO' END, 'ADMIN',
       z.today - 365 * pg_temp.r(n, 83) * interval '1 day'
FROM size z, generate_series(1, z.courses) n;
INSERT INTO notification_logs
SELECT pg_temp.key('notification', n), pg_temp.key('user', 1 + n % (20 + 5 * z.institutions)),
       pg_temp.pick(ARRAY['PAYMENT','ENROLLMENT','SYSTEM','COURSE'], pg_temp.r(n, 84)), CASE WHEN n % 2 = 0 THEN 'News' END,
       'Notification ' || n, 'Nouvelle inscription à votre cours n° ' || n, d.status,
       CASE WHEN d.status = 'FAILED' THEN 'mailbox full' END, CASE WHEN d.status IN ('SENT', 'READ') THEN d.created END,
       CASE WHEN d.status = 'READ' THEN d.created + interval '1 hour' END, NULL, d.created
FROM size z, generate_series(1, 2 * z.courses) n,
     LATERAL (SELECT (ARRAY['SENT','SENT','READ','READ','PENDING','FAILED'])[1 + n % 6] AS status,
                     z.today - 90 * pg_temp.r(n, 85) * interval '1 day' AS created) d;

\echo totals
SELECT refill_totals();
UPDATE tag SET "usageCount" = t.n FROM tag_course_counts t WHERE t."tagId" = tag.id;

\echo indexes
SELECT definition FROM dropped \gexec
SELECT format('ALTER TABLE %s ENABLE TRIGGER %I', source, name) FROM suspended \gexec
COMMIT;

\echo vacuum and analyze
VACUUM (ANALYZE) institution, category, course, tag, coursetag, course_weekly_prices, course_pricing_rules, "user", students,
    student_course_enrollments, student_course_completions, payments, booking, notification_logs, commission_tiers,
    institution_subscriptions, audit_logs, course_enrollment_counts, course_completion_counts, tag_course_counts, table_counts,
    payment_totals, notification_counts, revenue_sums, institution_counts, course_search;
\echo demo data is ready

-- The course platform's tables, as its web application and dashboards know them, and the small
-- maintained tables ("totals") that answer what would otherwise count millions of rows.
--
-- Load as the owner of an empty database: psql -v ON_ERROR_STOP=1 -1 -f schema.sql
-- Column names are the application's: camelCase ones are quoted. Ids are text of at most 36
-- characters (uuid or cuid). Foreign keys exist where the platform promises them and nowhere else:
-- payments, bookings, tags' parents and enrolments' students may point at nothing.

SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- The dashboards' statements are short: compiling one costs more than running it. They are also written so
-- that one plan serves all values of their parameters, and planning a list costs more than running it.
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET jit = off', current_database());
    EXECUTE format('ALTER DATABASE %I SET plan_cache_mode = force_generic_plan', current_database());
END $$;

-- ---------------------------------------------------------------------------------------------
-- Tables
-- ---------------------------------------------------------------------------------------------

CREATE TABLE institution (
    id                 text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    name               varchar(255) NOT NULL,
    slug               varchar(100) NOT NULL UNIQUE,
    description        text NOT NULL DEFAULT '',
    address            text NOT NULL DEFAULT '',
    city               varchar(100) NOT NULL,
    state              varchar(100),
    country            varchar(100) NOT NULL,
    postcode           varchar(20),
    email              varchar(50) NOT NULL,
    website            text,
    "institutionEmail" text,
    telephone          text,
    "contactName"      text,
    "contactJobTitle"  text,
    "contactPhone"     text,
    "contactEmail"     text,
    "logoUrl"          text,
    "mainImageUrl"     text,
    facilities         text,
    status             text NOT NULL DEFAULT 'PENDING',
    "isApproved"       boolean NOT NULL DEFAULT false,
    currency           varchar(3) NOT NULL DEFAULT 'USD',
    "commissionRate"   float8 NOT NULL DEFAULT 10,
    "discountSettings" jsonb,
    metadata           jsonb,
    "socialMedia"      jsonb,
    "defaultMaxStudents" integer NOT NULL DEFAULT 15,
    "stripeCustomerId" text,
    "subscriptionPlan" text NOT NULL DEFAULT 'BASIC',
    "isFeatured"       boolean NOT NULL DEFAULT false,
    "isActive"         boolean NOT NULL DEFAULT true,
    "createdAt"        timestamptz NOT NULL DEFAULT now(),
    "updatedAt"        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE category (
    id          text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    name        varchar(50) NOT NULL,
    slug        varchar(50) NOT NULL UNIQUE,
    description text,
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now()
);

-- A course without an institution is the platform's own.
CREATE TABLE course (
    id                     text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    title                  varchar(100) NOT NULL,
    slug                   varchar(100) NOT NULL UNIQUE,
    description            text,
    duration               integer NOT NULL DEFAULT 0,
    level                  varchar(20) NOT NULL DEFAULT 'BEGINNER',
    status                 varchar(20) NOT NULL DEFAULT 'DRAFT',
    "institutionId"        text REFERENCES institution (id) ON DELETE SET NULL,
    "categoryId"           text NOT NULL REFERENCES category (id) ON DELETE RESTRICT,
    "startDate"            timestamptz NOT NULL DEFAULT now(),
    "endDate"              timestamptz NOT NULL DEFAULT now(),
    "maxStudents"          integer NOT NULL DEFAULT 15,
    base_price             float8 NOT NULL DEFAULT 0,
    "pricingPeriod"        text NOT NULL DEFAULT 'WEEKLY',
    framework              text NOT NULL DEFAULT 'CEFR',
    "isFeatured"           boolean NOT NULL DEFAULT false,
    "isSponsored"          boolean NOT NULL DEFAULT false,
    priority               integer NOT NULL DEFAULT 0,
    "hasLiveClasses"       boolean NOT NULL DEFAULT false,
    "liveClassType"        text,
    "liveClassFrequency"   text,
    "liveClassSchedule"    jsonb,
    "isPlatformCourse"     boolean NOT NULL DEFAULT false,
    "requiresSubscription" boolean NOT NULL DEFAULT false,
    "subscriptionTier"     text,
    "marketingType"        text NOT NULL DEFAULT 'SELF_PACED',
    "marketingDescription" text,
    "createdAt"            timestamptz NOT NULL DEFAULT now(),
    "updatedAt"            timestamptz NOT NULL DEFAULT now(),
    UNIQUE (title, "institutionId")
);

CREATE TABLE tag (
    id           text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    name         varchar(50) NOT NULL,
    slug         varchar(50) NOT NULL UNIQUE,
    description  text,
    "categoryId" text,
    "parentId"   text,
    "usageCount" integer NOT NULL DEFAULT 0,
    color        varchar(7),
    icon         varchar(50),
    featured     boolean NOT NULL DEFAULT false,
    priority     integer NOT NULL DEFAULT 0,
    "createdAt"  timestamptz NOT NULL DEFAULT now(),
    "updatedAt"  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE coursetag (
    id          text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "courseId"  text NOT NULL REFERENCES course (id) ON DELETE CASCADE,
    "tagId"     text NOT NULL REFERENCES tag (id) ON DELETE CASCADE,
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now(),
    UNIQUE ("courseId", "tagId")
);

CREATE TABLE course_weekly_prices (
    id           text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "courseId"   text NOT NULL REFERENCES course (id) ON DELETE CASCADE,
    "weekNumber" integer NOT NULL,
    year         integer NOT NULL,
    price        float8 NOT NULL,
    "createdAt"  timestamptz NOT NULL DEFAULT now(),
    "updatedAt"  timestamptz NOT NULL DEFAULT now(),
    UNIQUE ("courseId", year, "weekNumber")
);

CREATE TABLE course_pricing_rules (
    id          text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "courseId"  text NOT NULL REFERENCES course (id) ON DELETE CASCADE,
    "ruleType"  varchar(20) NOT NULL,
    "ruleValue" float8 NOT NULL,
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now()
);

-- password is a hash and never leaves the database: no endpoint reads it.
CREATE TABLE "user" (
    id              text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    name            text NOT NULL,
    email           varchar(100) NOT NULL UNIQUE,
    password        text NOT NULL,
    role            text NOT NULL DEFAULT 'STUDENT',
    "institutionId" text REFERENCES institution (id) ON DELETE SET NULL,
    status          text NOT NULL DEFAULT 'ACTIVE',
    image           text,
    "emailVerified" timestamptz,
    "lastLoginAt"   timestamptz,
    "createdAt"     timestamptz NOT NULL DEFAULT now(),
    "updatedAt"     timestamptz NOT NULL DEFAULT now()
);

-- The learner's side of a user: students.id is "user".id.
CREATE TABLE students (
    id          text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    name        text NOT NULL,
    email       text NOT NULL UNIQUE,
    phone       text,
    status      text NOT NULL DEFAULT 'active',
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    last_active timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE student_course_enrollments (
    id                 text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "studentId"        text NOT NULL,
    "courseId"         text NOT NULL REFERENCES course (id) ON DELETE CASCADE,
    status             text NOT NULL DEFAULT 'PENDING_PAYMENT',
    progress           float8 NOT NULL DEFAULT 0,
    "startDate"        timestamptz NOT NULL DEFAULT now(),
    "endDate"          timestamptz,
    "paymentStatus"    text NOT NULL DEFAULT 'PENDING',
    "paymentDate"      timestamptz,
    version            integer NOT NULL DEFAULT 1,
    "accessMethod"     text NOT NULL DEFAULT 'DIRECT',
    "enrollmentType"   text NOT NULL DEFAULT 'COURSE_BASED',
    "isActive"         boolean NOT NULL DEFAULT true,
    "isPlatformCourse" boolean NOT NULL DEFAULT false,
    "createdAt"        timestamptz NOT NULL DEFAULT now(),
    "updatedAt"        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE student_course_completions (
    id          text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "courseId"  text NOT NULL REFERENCES course (id),
    "studentId" text NOT NULL,
    status      varchar(20) NOT NULL,
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now()
);

-- No foreign keys: payments outlive what they paid for, and a read must not break on it.
CREATE TABLE payments (
    id                  text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    amount              float8 NOT NULL,
    status              text NOT NULL DEFAULT 'PENDING',
    "paidAt"            timestamptz,
    metadata            jsonb,
    "institutionId"     text NOT NULL,
    "enrollmentId"      text NOT NULL,
    "commissionAmount"  float8 NOT NULL DEFAULT 0,
    "institutionAmount" float8 NOT NULL DEFAULT 0,
    "paymentMethod"     text,
    "referenceNumber"   text,
    notes               text,
    "idempotencyKey"    text UNIQUE,
    currency            text NOT NULL DEFAULT 'USD',
    "refundAmount"      float8,
    "refundedAt"        timestamptz,
    "createdAt"         timestamptz NOT NULL DEFAULT now(),
    "updatedAt"         timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE booking (
    id              text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "courseId"      text NOT NULL,
    "institutionId" text NOT NULL,
    "studentId"     text NOT NULL,
    "userId"        text NOT NULL,
    status          text NOT NULL DEFAULT 'PENDING',
    amount          float8 NOT NULL DEFAULT 0,
    "createdAt"     timestamptz NOT NULL DEFAULT now(),
    "updatedAt"     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE notification_logs (
    id             text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "recipientId"  text NOT NULL,
    type           text NOT NULL,
    subject        text,
    title          text NOT NULL,
    content        text NOT NULL,
    status         text NOT NULL DEFAULT 'PENDING',
    "errorMessage" text,
    "sentAt"       timestamptz,
    "readAt"       timestamptz,
    metadata       jsonb,
    "createdAt"    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE commission_tiers (
    id               text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "planType"       text NOT NULL UNIQUE,
    name             text NOT NULL,
    description      text NOT NULL DEFAULT '',
    "commissionRate" float8 NOT NULL,
    price            float8 NOT NULL,
    currency         text NOT NULL DEFAULT 'USD',
    "billingCycle"   text NOT NULL DEFAULT 'MONTHLY',
    features         jsonb NOT NULL DEFAULT '[]',
    "isActive"       boolean NOT NULL DEFAULT true
);

CREATE TABLE institution_subscriptions (
    id                 text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "institutionId"    text NOT NULL UNIQUE REFERENCES institution (id),
    "commissionTierId" text NOT NULL REFERENCES commission_tiers (id),
    status             text NOT NULL DEFAULT 'ACTIVE',
    "startDate"        timestamptz NOT NULL DEFAULT now(),
    "endDate"          timestamptz NOT NULL,
    "autoRenew"        boolean NOT NULL DEFAULT true
);

CREATE TABLE audit_logs (
    id           text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (length(id) <= 36),
    "userId"     text,
    action       text NOT NULL,
    resource     text NOT NULL,
    "resourceId" text,
    details      jsonb NOT NULL DEFAULT '{}',
    severity     text NOT NULL DEFAULT 'INFO',
    category     text NOT NULL DEFAULT 'ADMIN',
    "timestamp"  timestamptz NOT NULL DEFAULT now()
);

-- ---------------------------------------------------------------------------------------------
-- Indexes. A list's order always ends in id, so that pages neither overlap nor lose a row. Columns
-- under INCLUDE let a page's ids, and the filters on them, be read from the index alone.
-- ---------------------------------------------------------------------------------------------

-- All characters and pairs of neighbours of a text. A search whose term has no trigram to look up (one
-- or two letters, or letters between signs) looks these up instead of reading every text.
CREATE FUNCTION grams(folded text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT coalesce(array_agg(a) || array_agg(a || coalesce(b, '')), '{}')
            FROM unnest(string_to_array(folded, NULL), (string_to_array(folded, NULL))[2:]) AS u (a, b));
-- What to look a folded term up by. One of one or two letters is in every text that has it as a gram, and
-- in no other; of a longer one that has to be checked.
CREATE FUNCTION term_grams(folded text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN length(folded) BETWEEN 1 AND 2 THEN ARRAY[folded] ELSE grams(folded) END;

-- One per sort order of the course list; each is walked in both directions.
CREATE INDEX course_by_created  ON course ("createdAt", id) INCLUDE ("institutionId", "categoryId", status, level);
CREATE INDEX course_by_title    ON course (title, id)       INCLUDE ("institutionId", "categoryId", status, level);
CREATE INDEX course_by_price    ON course (base_price, id)  INCLUDE ("institutionId", "categoryId", status, level);
CREATE INDEX course_by_priority ON course (priority, id)    INCLUDE ("institutionId", "categoryId", status, level);
CREATE INDEX course_by_institution ON course ("institutionId", "createdAt", id) INCLUDE ("categoryId", status, level);
CREATE INDEX course_by_category    ON course ("categoryId", "createdAt", id)    INCLUDE (status, level);
CREATE INDEX course_by_level       ON course (level, status);

CREATE INDEX institution_by_name ON institution (name, id);
CREATE INDEX tag_by_parent       ON tag ("parentId");
CREATE INDEX tag_by_category     ON tag ("categoryId");
CREATE INDEX coursetag_by_tag    ON coursetag ("tagId");
CREATE INDEX course_pricing_rules_by_course ON course_pricing_rules ("courseId");

CREATE INDEX user_by_created     ON "user" ("createdAt", id);
CREATE INDEX user_by_role        ON "user" (role, "createdAt", id);
CREATE INDEX user_by_institution ON "user" ("institutionId", "createdAt", id);
CREATE INDEX user_name_search    ON "user" USING gin (name gin_trgm_ops);
CREATE INDEX user_email_search   ON "user" USING gin (email gin_trgm_ops);
CREATE INDEX user_gram_search    ON "user" USING gin (grams(lower(name || E'\n' || email)));

CREATE INDEX students_name_search  ON students USING gin (name gin_trgm_ops);
CREATE INDEX students_email_search ON students USING gin (email gin_trgm_ops);
CREATE INDEX students_gram_search  ON students USING gin (grams(lower(name || E'\n' || email)));

CREATE INDEX enrollments_by_course  ON student_course_enrollments ("courseId", "createdAt", id) INCLUDE (status, "paymentStatus", "studentId");
CREATE INDEX enrollments_by_status  ON student_course_enrollments ("courseId", status, "createdAt", id) INCLUDE ("paymentStatus", "studentId");
CREATE INDEX enrollments_by_student ON student_course_enrollments ("studentId", "courseId");
CREATE INDEX enrollments_by_created ON student_course_enrollments ("createdAt", id);

CREATE INDEX completions_by_course  ON student_course_completions ("courseId");
CREATE INDEX completions_by_student ON student_course_completions ("studentId");

CREATE INDEX payments_by_created            ON payments ("createdAt", id);
CREATE INDEX payments_by_status             ON payments (status, "createdAt", id);
CREATE INDEX payments_by_institution        ON payments ("institutionId", "createdAt", id);
CREATE INDEX payments_by_institution_status ON payments ("institutionId", status, "createdAt", id);
CREATE INDEX payments_by_enrollment         ON payments ("enrollmentId");

CREATE INDEX booking_by_user    ON booking ("userId");
CREATE INDEX booking_by_student ON booking ("studentId");
CREATE INDEX notification_logs_by_created   ON notification_logs ("createdAt", id);
CREATE INDEX notification_logs_by_recipient ON notification_logs ("recipientId", "createdAt", id) INCLUDE (status);
CREATE INDEX notification_logs_by_status    ON notification_logs (status, "createdAt", id);
CREATE INDEX institution_subscriptions_by_tier ON institution_subscriptions ("commissionTierId");
CREATE INDEX audit_logs_by_time     ON audit_logs ("timestamp", id);
CREATE INDEX audit_logs_by_resource ON audit_logs (resource, "resourceId");

-- ---------------------------------------------------------------------------------------------
-- Totals. Small tables that hold what lists and statistics would otherwise count row by row.
--
-- keep_totals(), a statement-level trigger on the counted tables, adds what a statement changed. To
-- read a total, always sum: several rows may stand for one key. A writer adds to a row that no other
-- transaction holds, and starts a new row when all are held, so writers never wait for each other
-- and cannot deadlock here; a key's rows grow with the writers it has at once, not with what they write.
-- refill_totals() computes them all afresh (after a load with the triggers off).
-- ---------------------------------------------------------------------------------------------

-- Enrolments of a course, by the two columns its list can be filtered by.
CREATE TABLE course_enrollment_counts (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "courseId"      text NOT NULL REFERENCES course (id) ON DELETE CASCADE,
    status          text NOT NULL,
    "paymentStatus" text NOT NULL,
    n               bigint NOT NULL
);
CREATE INDEX course_enrollment_counts_key ON course_enrollment_counts ("courseId", status, "paymentStatus") INCLUDE (n);

-- Completions of a course.
CREATE TABLE course_completion_counts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "courseId" text NOT NULL REFERENCES course (id) ON DELETE CASCADE,
    n          bigint NOT NULL
);
CREATE INDEX course_completion_counts_key ON course_completion_counts ("courseId") INCLUDE (n);

-- Courses that carry a tag.
CREATE TABLE tag_course_counts (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "tagId" text NOT NULL REFERENCES tag (id) ON DELETE CASCADE,
    n       bigint NOT NULL
);
CREATE INDEX tag_course_counts_key ON tag_course_counts ("tagId") INCLUDE (n);

-- Rows of the tables user, course, student_course_enrollments and student_course_completions, by status.
CREATE TABLE table_counts (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name   text NOT NULL,
    status text NOT NULL,
    n      bigint NOT NULL
);
CREATE INDEX table_counts_key ON table_counts (name, status);

-- Number and sums of all payments, by status. Sums are numeric: adding and taking away stays exact.
CREATE TABLE payment_totals (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status              text NOT NULL,
    n                   bigint NOT NULL,
    amount              numeric NOT NULL,
    "commissionAmount"  numeric NOT NULL,
    "institutionAmount" numeric NOT NULL
);
CREATE INDEX payment_totals_key ON payment_totals (status);

-- Number of all notifications, by status. Apart from table_counts, so that a notification makes no other answer old.
CREATE TABLE notification_counts (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status text NOT NULL,
    n      bigint NOT NULL
);
CREATE INDEX notification_counts_key ON notification_counts (status);

-- Revenue: COMPLETED payments by the UTC day of coalesce(paidAt, createdAt), for each institution and
-- span: 'day', 'month' and 'year', first being the span's first day, so that a long range is a few
-- spans; and 'total', a day of all institutions together, under the institutionId ''. A payment's
-- institutionId may name no institution.
CREATE TABLE revenue_sums (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    span               text NOT NULL,
    first              date NOT NULL,
    "institutionId"    text NOT NULL,
    n                  bigint NOT NULL,
    amount             numeric NOT NULL,
    "commissionAmount" numeric NOT NULL
);
CREATE INDEX revenue_sums_key ON revenue_sums (span, first, "institutionId") INCLUDE (n, amount, "commissionAmount");

-- An institution's 'courses', and the 'places' taken on them. Under '': the platform's own.
CREATE TABLE institution_counts (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL,
    "institutionId" text NOT NULL,
    n               bigint NOT NULL
);
CREATE INDEX institution_counts_key ON institution_counts (name, "institutionId");

CREATE FUNCTION takes_place(enrollment_status text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN enrollment_status IN ('ENROLLED', 'ACTIVE', 'IN_PROGRESS');

-- What the course search looks at: title and description, folded to lower case once, when written.
CREATE TABLE course_search (
    "courseId" text PRIMARY KEY REFERENCES course (id) ON DELETE CASCADE,
    text       text NOT NULL
);
CREATE INDEX course_search_text  ON course_search USING gin (text gin_trgm_ops);
CREATE INDEX course_search_grams ON course_search USING gin (grams(text));

CREATE FUNCTION course_search_text(title text, description text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN lower(title || E'\n' || coalesce(description, ''));

CREATE FUNCTION keep_course_search() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO course_search VALUES (NEW.id, course_search_text(NEW.title, NEW.description))
        ON CONFLICT ("courseId") DO UPDATE SET text = excluded.text;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_course_search AFTER INSERT OR UPDATE OF title, description ON course
    FOR EACH ROW EXECUTE FUNCTION keep_course_search();

-- Arguments: the total's table; its key columns; the same as expressions over a changed row r; the
-- summed columns, '' for none; a condition on r, '' for none; the rows of the total that TRUNCATE
-- of the counted table empties, '' for all.
-- For a course (or tag) deleted in the same statement there is nothing left to count, and its rows
-- are gone by their own foreign key: hence the conditions with EXISTS.
CREATE FUNCTION keep_totals() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    total   text := TG_ARGV[0];
    keys    text := TG_ARGV[1];
    exprs   text := TG_ARGV[2];
    sums    text[] := string_to_array(nullif(TG_ARGV[3], ''), ', ');
    cond    text := coalesce(nullif(TG_ARGV[4], ''), 'true');
    emptied text := coalesce(nullif(TG_ARGV[5], ''), 'true');
    source  text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('DELETE FROM %I WHERE %s', total, emptied);
        RETURN NULL;
    END IF;
    source := CASE TG_OP WHEN 'INSERT' THEN 'SELECT 1 AS sign, * FROM new_rows'
                         WHEN 'DELETE' THEN 'SELECT -1 AS sign, * FROM old_rows'
                         ELSE 'SELECT 1 AS sign, * FROM new_rows UNION ALL SELECT -1, * FROM old_rows' END;
    -- FOR UPDATE SKIP LOCKED picks a row nobody else is adding to; the update then sees its latest
    -- version, so nothing added by others is lost.
    EXECUTE format($q$
        WITH delta AS MATERIALIZED (
            SELECT * FROM (SELECT %2$s, sum(sign) AS n %4$s FROM (%1$s) r WHERE %6$s GROUP BY %3$s) d
            WHERE n <> 0 %5$s
        ), picked AS MATERIALIZED (
            SELECT d.*, (SELECT t.id FROM %7$I t WHERE (%8$s) = (%9$s) LIMIT 1 FOR UPDATE SKIP LOCKED) AS held
            FROM delta d
        ), added AS (
            UPDATE %7$I t SET n = t.n + p.n %10$s FROM picked p WHERE t.id = p.held
        )
        INSERT INTO %7$I (%11$s) SELECT %11$s FROM picked WHERE held IS NULL $q$,
        source,
        (SELECT string_agg(e || ' AS ' || k, ', ' ORDER BY i)
           FROM unnest(string_to_array(exprs, '; '), string_to_array(keys, ', ')) WITH ORDINALITY AS u (e, k, i)),
        (SELECT string_agg(i::text, ', ') FROM generate_series(1, array_length(string_to_array(keys, ', '), 1)) i),
        (SELECT string_agg(format(', sum(sign * %1$s::numeric) AS %1$s', s), '') FROM unnest(sums) s),
        (SELECT string_agg(format(' OR %s <> 0', s), '') FROM unnest(sums) s),
        cond,
        total,
        (SELECT string_agg('t.' || k, ', ') FROM unnest(string_to_array(keys, ', ')) k),
        (SELECT string_agg('d.' || k, ', ') FROM unnest(string_to_array(keys, ', ')) k),
        (SELECT string_agg(format(', %1$s = t.%1$s + p.%1$s', s), '') FROM unnest(sums) s),
        array_to_string(string_to_array(keys, ', ') || ARRAY['n'] || coalesce(sums, '{}'), ', '));
    RETURN NULL;
END $$;

-- Four triggers for each line: one per event, because transition tables allow no other way.
DO $$
DECLARE
    counted record;
    event   text;
    args    text;
BEGIN
    FOR counted IN
        SELECT * FROM (VALUES
            ('student_course_enrollments', 'course_enrollment_counts', '"courseId", status, "paymentStatus"',
                'r."courseId"; r.status; r."paymentStatus"', '', 'EXISTS (SELECT FROM course c WHERE c.id = r."courseId")', ''),
            ('student_course_completions', 'course_completion_counts', '"courseId"',
                'r."courseId"', '', 'EXISTS (SELECT FROM course c WHERE c.id = r."courseId")', ''),
            ('coursetag', 'tag_course_counts', '"tagId"',
                'r."tagId"', '', 'EXISTS (SELECT FROM tag t WHERE t.id = r."tagId")', ''),
            ('user', 'table_counts', 'name, status', '''user''; r.status', '', '', 'name = ''user'''),
            ('course', 'table_counts', 'name, status', '''course''; r.status', '', '', 'name = ''course'''),
            ('student_course_enrollments', 'table_counts', 'name, status',
                '''student_course_enrollments''; r.status', '', '', 'name = ''student_course_enrollments'''),
            ('student_course_completions', 'table_counts', 'name, status',
                '''student_course_completions''; r.status', '', '', 'name = ''student_course_completions'''),
            ('notification_logs', 'notification_counts', 'status', 'r.status', '', '', ''),
            ('payments', 'payment_totals', 'status', 'r.status', 'amount, "commissionAmount", "institutionAmount"', '', ''),
            ('payments', 'revenue_sums', 'span, first, "institutionId"', format(
                'unnest(ARRAY[''total'', ''day'', ''month'', ''year'']); '
                'unnest(ARRAY[%1$s, %1$s, date_trunc(''month'', %1$s), date_trunc(''year'', %1$s)])::date; '
                'unnest(ARRAY['''', r."institutionId", r."institutionId", r."institutionId"])',
                'date_trunc(''day'', coalesce(r."paidAt", r."createdAt") AT TIME ZONE ''UTC'')'),
                'amount, "commissionAmount"', 'r.status = ''COMPLETED''', ''),
            ('course', 'institution_counts', 'name, "institutionId"', '''courses''; coalesce(r."institutionId", '''')', '', '',
                'name = ''courses'''),
            -- The lock waits for one who moves the course to another institution (see keep_places).
            ('student_course_enrollments', 'institution_counts', 'name, "institutionId"',
                '''places''; coalesce((SELECT c."institutionId" FROM course c WHERE c.id = r."courseId" FOR KEY SHARE), '''')',
                '', 'takes_place(r.status)', 'name = ''places''')
        ) AS v (source, total, keys, exprs, sums, cond, emptied)
    LOOP
        args := format('%L, %L, %L, %L, %L, %L', counted.total, counted.keys, counted.exprs, counted.sums,
                       counted.cond, counted.emptied);
        FOREACH event IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] LOOP
            EXECUTE format('CREATE TRIGGER %I AFTER %s ON %I %s FOR EACH STATEMENT EXECUTE FUNCTION keep_totals(%s)',
                'keep_' || counted.total || '_' || lower(event), event, counted.source,
                CASE event WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS new_rows'
                           WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
                           WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS old_rows' ELSE '' END,
                args);
        END LOOP;
    END LOOP;
END $$;

-- The places on a course follow it to another institution, and go when it is deleted. They are looked
-- up by course, so its enrolments have to be deleted while it is still there: before their foreign key
-- does it. FOR UPDATE waits for open transactions that changed enrolments of the course, and keeps
-- others out until this one has ended; what they changed is seen by the statements below, under READ
-- COMMITTED.
CREATE FUNCTION keep_places() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    places bigint;
    change record;
BEGIN
    PERFORM FROM course WHERE id = OLD.id FOR UPDATE;
    IF TG_OP = 'DELETE' THEN
        DELETE FROM student_course_enrollments WHERE "courseId" = OLD.id;
        RETURN OLD;
    END IF;
    SELECT sum(n) INTO places FROM course_enrollment_counts WHERE "courseId" = OLD.id AND takes_place(status);
    FOR change IN SELECT * FROM (VALUES (OLD."institutionId", -places), (NEW."institutionId", places)) v (institution, n)
                  WHERE places <> 0 LOOP
        UPDATE institution_counts SET n = n + change.n
        WHERE id = (SELECT id FROM institution_counts
                    WHERE name = 'places' AND "institutionId" = coalesce(change.institution, '') LIMIT 1 FOR UPDATE SKIP LOCKED);
        IF NOT FOUND THEN
            INSERT INTO institution_counts (name, "institutionId", n) VALUES ('places', coalesce(change.institution, ''), change.n);
        END IF;
    END LOOP;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_places_moved BEFORE UPDATE ON course
    FOR EACH ROW WHEN (OLD."institutionId" IS DISTINCT FROM NEW."institutionId") EXECUTE FUNCTION keep_places();
CREATE TRIGGER keep_places_deleted BEFORE DELETE ON course FOR EACH ROW EXECUTE FUNCTION keep_places();

-- ---------------------------------------------------------------------------------------------
-- Writing. What one statement cannot do: try again with another slug, and replace rows that were
-- written while it waited for a lock, for it sees the database as it was when it began. Each
-- statement of a function sees it anew. They have the owner's rights, and change no other tables.
-- ---------------------------------------------------------------------------------------------

-- A name in letters that need no escape in a URL: without accents, whatever else being a hyphen.
CREATE FUNCTION slug_of(name text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN trim('-' FROM regexp_replace(
        replace(replace(replace(translate(
            lower(regexp_replace(normalize(name, NFKD), U&'[\0300-\036f''\2019]', '', 'g')),
            'øłđı', 'oldi'), 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe'),
        '[^a-z0-9]+', '-', 'g'));

-- Inserts a row of `made`'s type, an institution, category, course or tag, with the columns given, the
-- others at their defaults, and a slug made of the name: with -1, -2 … behind it where that is taken.
-- Two who want the same slug at once get different ones: the later waits for the earlier.
CREATE FUNCTION insert_with_slug(INOUT made anyelement, name text, given jsonb) LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    target  text := pg_typeof(made);
    columns text;
    longest integer;
    slug    text;
    tried   integer := -1;
    added   integer := 0;
BEGIN
    IF target NOT IN ('institution', 'category', 'course', 'tag') THEN
        RAISE EXCEPTION 'insert_with_slug: % has no slug', target;
    END IF;
    SELECT string_agg(format(', %I', key), '' ORDER BY key) INTO columns FROM jsonb_each(given) WHERE value <> 'null';
    SELECT atttypmod - 4 INTO longest FROM pg_attribute WHERE attrelid = target::regclass AND attname = 'slug';
    name := coalesce(nullif(slug_of(name), ''), target);
    WHILE added = 0 LOOP
        -- A count, which is looked up in the index for one after the other, until one is free.
        EXECUTE format($q$
            SELECT n, slug
            FROM (SELECT generate_series($1, 1000000) AS n) s,
                 LATERAL (SELECT CASE n WHEN 0 THEN '' ELSE '-' || n END AS number) t,
                 LATERAL (SELECT rtrim(left($2, $3 - length(number)), '-') || number AS slug) u
            WHERE (SELECT count(*) FROM %I there WHERE there.slug = u.slug) = 0 LIMIT 1 $q$, target)
            INTO STRICT tried, slug USING tried + 1, name, longest;
        EXECUTE format($q$
            INSERT INTO %1$I (slug%2$s) SELECT $1%2$s FROM jsonb_populate_record(NULL::%1$I, $2)
            ON CONFLICT (slug) DO NOTHING RETURNING * $q$, target, columns)
            INTO made USING slug, given;
        GET DIAGNOSTICS added = ROW_COUNT;
    END LOOP;
END $$;

-- Gives a course these tags and no others, or with NULL leaves it those it has, and returns them. One
-- that stays keeps its row. Whoever calls it has changed the course's row, so that others wait.
CREATE FUNCTION replace_course_tags(course text, tags text[]) RETURNS SETOF coursetag LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF tags IS NOT NULL THEN
        DELETE FROM coursetag WHERE "courseId" = course AND "tagId" <> ALL (tags);
        INSERT INTO coursetag ("courseId", "tagId") SELECT DISTINCT course, tag FROM unnest(tags) tag ORDER BY tag
            ON CONFLICT ("courseId", "tagId") DO NOTHING;
    END IF;
    RETURN QUERY SELECT * FROM coursetag WHERE "courseId" = course;
END $$;

-- The same for weekly prices: objects with weekNumber, year and price. A row is changed where its price is.
CREATE FUNCTION replace_weekly_prices(course text, prices jsonb) RETURNS SETOF course_weekly_prices LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF prices IS NOT NULL THEN
        DELETE FROM course_weekly_prices w WHERE w."courseId" = course AND (w."weekNumber", w.year) NOT IN (
            SELECT p."weekNumber", p.year FROM jsonb_to_recordset(prices) AS p ("weekNumber" integer, year integer));
        INSERT INTO course_weekly_prices AS w ("courseId", "weekNumber", year, price)
            SELECT course, p.* FROM jsonb_to_recordset(prices) AS p ("weekNumber" integer, year integer, price float8)
            ORDER BY p.year, p."weekNumber"
            ON CONFLICT ("courseId", year, "weekNumber") DO UPDATE SET price = excluded.price, "updatedAt" = excluded."updatedAt"
            WHERE w.price <> excluded.price;
    END IF;
    RETURN QUERY SELECT * FROM course_weekly_prices WHERE "courseId" = course;
END $$;

REVOKE EXECUTE ON FUNCTION insert_with_slug(anyelement, text, jsonb), replace_course_tags(text, text[]),
    replace_weekly_prices(text, jsonb) FROM PUBLIC;

-- Every maintained table, computed afresh. Keeps writers of the counted tables out while it runs.
CREATE FUNCTION refill_totals() RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    LOCK TABLE "user", course, coursetag, student_course_enrollments, student_course_completions, payments, notification_logs
        IN SHARE ROW EXCLUSIVE MODE;
    TRUNCATE course_enrollment_counts, course_completion_counts, tag_course_counts, table_counts, payment_totals,
        notification_counts, revenue_sums, institution_counts, course_search;
    INSERT INTO course_enrollment_counts ("courseId", status, "paymentStatus", n)
        SELECT "courseId", status, "paymentStatus", count(*) FROM student_course_enrollments GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
    INSERT INTO course_completion_counts ("courseId", n)
        SELECT "courseId", count(*) FROM student_course_completions GROUP BY 1 ORDER BY 1;
    INSERT INTO tag_course_counts ("tagId", n) SELECT "tagId", count(*) FROM coursetag GROUP BY 1 ORDER BY 1;
    INSERT INTO table_counts (name, status, n)
        SELECT 'user', status, count(*) FROM "user" GROUP BY 2
        UNION ALL SELECT 'course', status, count(*) FROM course GROUP BY 2
        UNION ALL SELECT 'student_course_enrollments', status, count(*) FROM student_course_enrollments GROUP BY 2
        UNION ALL SELECT 'student_course_completions', status, count(*) FROM student_course_completions GROUP BY 2;
    INSERT INTO notification_counts (status, n) SELECT status, count(*) FROM notification_logs GROUP BY 1;
    INSERT INTO payment_totals (status, n, amount, "commissionAmount", "institutionAmount")
        SELECT status, count(*), sum(amount::numeric), sum("commissionAmount"::numeric), sum("institutionAmount"::numeric)
        FROM payments GROUP BY 1;
    INSERT INTO revenue_sums (span, first, "institutionId", n, amount, "commissionAmount")
        SELECT 'day', (coalesce("paidAt", "createdAt") AT TIME ZONE 'UTC')::date, "institutionId", count(*),
               sum(amount::numeric), sum("commissionAmount"::numeric)
        FROM payments WHERE status = 'COMPLETED' GROUP BY 2, 3 ORDER BY 2, 3;
    INSERT INTO revenue_sums (span, first, "institutionId", n, amount, "commissionAmount")
        SELECT v.span, v.first, v.institution, sum(d.n), sum(d.amount), sum(d."commissionAmount")
        FROM revenue_sums d, LATERAL (VALUES ('total', d.first, ''),
                                             ('month', date_trunc('month', d.first::timestamp)::date, d."institutionId"),
                                             ('year', date_trunc('year', d.first::timestamp)::date, d."institutionId"))
                                     AS v (span, first, institution)
        WHERE d.span = 'day' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
    INSERT INTO institution_counts (name, "institutionId", n)
        SELECT 'courses', coalesce("institutionId", ''), count(*) FROM course GROUP BY 2
        UNION ALL SELECT 'places', coalesce(c."institutionId", ''), sum(e.n)
        FROM course_enrollment_counts e JOIN course c ON c.id = e."courseId" WHERE takes_place(e.status) GROUP BY 2;
    INSERT INTO course_search SELECT id, course_search_text(title, description) FROM course;
END $$;
REVOKE EXECUTE ON FUNCTION refill_totals() FROM PUBLIC;

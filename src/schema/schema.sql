-- Provost's own schema. `provost schema install` runs this text as a whole, in one transaction, in every
-- database whose schema is not of a later version: each statement leaves what is there already as it is, or
-- replaces it. What a later version changes stands behind what it changes, in the same manner
-- (ALTER TABLE … ADD COLUMN IF NOT EXISTS).

-- Default privileges (ALTER DEFAULT PRIVILEGES) are meant for an application's objects: with them, others
-- could write API keys of their own. They are taken off what is new here; what is granted later stays.
DO $do$
DECLARE
    command text;
BEGIN
    IF to_regnamespace('provost') IS NOT NULL THEN
        RETURN;
    END IF;
    CREATE SCHEMA provost;
    FOR command IN
        SELECT DISTINCT format('REVOKE ALL ON SCHEMA provost FROM %s',
                               CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
        FROM pg_namespace n, aclexplode(n.nspacl) g
        WHERE n.nspname = 'provost' AND g.grantee <> n.nspowner
    LOOP
        EXECUTE command;
    END LOOP;
END
$do$;
-- For provost.fail, which everybody may call. The tables are nobody's but the owner's.
GRANT USAGE ON SCHEMA provost TO PUBLIC;

-- ---------------------------------------------------------------------------------------------
-- Ends a statement with an HTTP status and a message for the caller:
--     SELECT provost.fail(409, 'the course is full') WHERE …
-- ---------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION provost.fail(status integer, message text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog
AS $$
BEGIN
    IF status BETWEEN 400 AND 599 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT' || status, MESSAGE = coalesce(message, '');
    END IF;
    -- A mistake of whoever calls it, not of the client: 500.
    RAISE EXCEPTION 'provost.fail: % is not a status from 400 to 599', coalesce(status::text, 'NULL')
        USING ERRCODE = 'internal_error';
END
$$;
GRANT EXECUTE ON FUNCTION provost.fail(integer, text) TO PUBLIC;

-- One statement, so that no table is ever there with the default privileges on it.
DO $do$
DECLARE
    missing text[] := ARRAY(SELECT t FROM unnest('{api_key,revocation}'::text[]) t
                            WHERE to_regclass('provost.' || t) IS NULL);
    command text;
BEGIN

-- ---------------------------------------------------------------------------------------------
-- API keys: made by `provost key new`. The digest is the SHA-256 of a key that holds 256 random bits.
-- ---------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS provost.api_key (
    id         text PRIMARY KEY CHECK (id ~ '^[a-z2-7]{12}$'),
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
    subject    text NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 255 AND subject !~ '[[:cntrl:]]'),
    roles      text[] NOT NULL CHECK (array_position(roles, NULL) IS NULL),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    note       text NOT NULL DEFAULT ''
);

-- ---------------------------------------------------------------------------------------------
-- Revocations: of a token by its id (jti, or an API key's id), or of all that a subject was given up to a
-- moment, 'infinity' for whatever it will be given. `until`: when none of them can be valid any more;
-- NULL: not known, the row stays until somebody deletes it.
-- ---------------------------------------------------------------------------------------------

CREATE TABLE IF NOT EXISTS provost.revocation (
    kind          text NOT NULL CHECK (kind IN ('token', 'subject')),
    what          text NOT NULL CHECK (octet_length(what) BETWEEN 1 AND 255 AND what !~ '[[:cntrl:]]'),
    issued_before timestamptz,
    until         timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_by    text NOT NULL DEFAULT current_user,
    PRIMARY KEY (kind, what),
    CHECK ((kind = 'subject') = (issued_before IS NOT NULL))
);

FOR command IN
    SELECT DISTINCT format('REVOKE ALL ON provost.%I FROM %s', c.relname,
                           CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
    FROM pg_class c, aclexplode(c.relacl) g
    WHERE c.relnamespace = 'provost'::regnamespace AND c.relname = ANY (missing) AND g.grantee <> c.relowner
LOOP
    EXECUTE command;
END LOOP;

END
$do$;

-- ---------------------------------------------------------------------------------------------
-- Version 2: who changes keys or revocations tells the running servers. By row, so that a statement that
-- changes none tells nothing; equal notifications of a transaction are one.
-- ---------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION provost.tell() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('provost', format('{"table":"provost.%s","op":"%s"}', TG_TABLE_NAME, TG_OP));
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION provost.tell() FROM PUBLIC;

-- What is there is left alone: no writer is kept waiting.
DO $do$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY '{api_key,revocation}'::text[] LOOP
        CONTINUE WHEN 2 = (SELECT count(*) FROM pg_trigger g
                           WHERE g.tgrelid = ('provost.' || t)::regclass AND g.tgenabled = 'A'
                             AND g.tgfoid = 'provost.tell()'::regprocedure
                             AND (g.tgname, g.tgtype) IN (('provost_tell', 29), ('provost_truncate', 32)));
        EXECUTE format('CREATE OR REPLACE TRIGGER provost_tell AFTER INSERT OR UPDATE OR DELETE ON provost.%I'
                       ' FOR EACH ROW EXECUTE FUNCTION provost.tell()', t);
        EXECUTE format('CREATE OR REPLACE TRIGGER provost_truncate AFTER TRUNCATE ON provost.%I'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION provost.tell()', t);
        EXECUTE format('ALTER TABLE provost.%I ENABLE ALWAYS TRIGGER provost_tell,'
                       ' ENABLE ALWAYS TRIGGER provost_truncate', t);
    END LOOP;
END
$do$;

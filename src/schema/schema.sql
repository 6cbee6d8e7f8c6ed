-- Provost's own schema. `provost schema install` runs this text as a whole, in one transaction, in every
-- database whose schema is not of a later version: each statement leaves what is there already as it is, or
-- replaces it. What a later version changes stands behind what it changes, in the same manner
-- (ALTER TABLE ... ADD COLUMN IF NOT EXISTS).

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
--     SELECT provost.fail(409, 'the course is full') WHERE ...
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

-- ---------------------------------------------------------------------------------------------
-- Version 3: provost.publish, by which SQL says something to the clients of all servers that listen.
--
-- Every role may NOTIFY, so what is published carries a digest: HMAC-SHA256 (RFC 2104) of its text in
-- UTF-8, with a key that the owner and the servers' role alone may read. It is kept as the two blocks
-- that the key is mixed into: there is no exclusive or of bytes in SQL that is quick.
-- ---------------------------------------------------------------------------------------------

DO $do$
DECLARE
    missing text[] := ARRAY(SELECT name FROM unnest(
        '{event_key,outbox,event_id,hmac_pad,hmac_sha256,renew_event_key,publish}'::text[]) name
        WHERE NOT EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = 'provost'::regnamespace)
          AND NOT EXISTS (SELECT FROM pg_proc WHERE proname = name AND pronamespace = 'provost'::regnamespace));
    command text;
BEGIN

CREATE TABLE IF NOT EXISTS provost.event_key (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    ipad       bytea NOT NULL CHECK (octet_length(ipad) = 64),
    opad       bytea NOT NULL CHECK (octet_length(opad) = 64),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Up to what every reader of JSON keeps exactly.
CREATE SEQUENCE IF NOT EXISTS provost.event_id AS bigint MAXVALUE 9007199254740991;

-- What is kept: for a user, until it is acknowledged (`durable`); what is too large for a notification,
-- until the servers have fetched it. The servers purge both.
CREATE TABLE IF NOT EXISTS provost.outbox (
    id         bigint PRIMARY KEY,
    room       text NOT NULL,
    name       text NOT NULL,
    data       jsonb NOT NULL,
    bytes      integer NOT NULL, -- of `data` as text
    durable    boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS outbox_room ON provost.outbox (room, id) WHERE durable;
CREATE INDEX IF NOT EXISTS outbox_age ON provost.outbox (durable, created_at);

-- The key as a block of 64 bytes, mixed with 0x36 (inner) or 0x5c (outer).
CREATE OR REPLACE FUNCTION provost.hmac_pad(key bytea, mask integer) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT
RETURN (SELECT string_agg(set_byte('\x00'::bytea, 0, get_byte(block, i) # mask), ''::bytea ORDER BY i)
        FROM (SELECT CASE WHEN octet_length(key) > 64 THEN sha256(key) ELSE key END
                     || decode(repeat('00', 64), 'hex')) b (block), generate_series(0, 63) i);

CREATE OR REPLACE FUNCTION provost.hmac_sha256(ipad bytea, opad bytea, message bytea) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
RETURN encode(sha256(opad || sha256(ipad || message)), 'hex');

-- Four random UUIDs are 488 random bits.
CREATE OR REPLACE FUNCTION provost.renew_event_key() RETURNS void
    LANGUAGE sql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO provost.event_key (ipad, opad)
    SELECT provost.hmac_pad(key, 54), provost.hmac_pad(key, 92)
    FROM (SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
                        || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))) k (key)
    ON CONFLICT (one) DO UPDATE SET ipad = excluded.ipad, opad = excluded.opad, created_at = excluded.created_at
$$;

-- Says `data` to those in the room, under a name, if the transaction commits; the id that it got. What is
-- for a user is kept until it is acknowledged. Rooms are named as clients name them, but for a table's,
-- in which nothing but its changes is told.
CREATE OR REPLACE FUNCTION provost.publish(room text, name text, data jsonb) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    -- pg_notify takes less than 8000 bytes; what the server calls the length of a room or a name is bytes, too.
    payload_max CONSTANT integer := 7999;
    data_max    CONSTANT integer := 1048576;
    durable boolean := starts_with(room, 'user:');
    problem text;
    body    text;
    message text;
    payload text;
    key     provost.event_key;
    id      bigint;
BEGIN
    problem := CASE WHEN room IS NULL THEN 'room' WHEN name IS NULL THEN 'name' WHEN data IS NULL THEN 'data' END;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'provost.publish: % is NULL', problem USING ERRCODE = 'null_value_not_allowed';
    END IF;
    body := data::text;
    IF starts_with(room, 'table:') THEN
        problem := 'room must not be a table''s: what is told there are its changes';
    ELSIF NOT (CASE
        WHEN room ~ '[\x01-\x1f\x7f]' THEN false
        WHEN durable THEN octet_length(convert_to(room, 'UTF8')) BETWEEN 6 AND 5 + 255
        WHEN starts_with(room, 'role:') THEN octet_length(convert_to(room, 'UTF8')) BETWEEN 6 AND 5 + 64
        ELSE room ~ '^[A-Za-z0-9_.-]{1,64}$' END)
    THEN
        problem := 'room must be user:SUBJECT, role:ROLE, or 1 to 64 of A-Z a-z 0-9 _ . -';
    ELSIF name !~ '^[A-Za-z0-9_.:-]{1,64}$' THEN
        problem := 'name must be 1 to 64 of A-Z a-z 0-9 _ . : -';
    ELSIF octet_length(body) > data_max THEN
        problem := format('data is larger than %s bytes', data_max);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'provost.publish: %', problem USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF starts_with(room, 'role:') THEN
        room := lower(room COLLATE "C");
    END IF;
    SELECT * INTO key FROM provost.event_key;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'provost.publish: there is no key' USING ERRCODE = 'internal_error',
            HINT = 'Run `provost schema install` as the owner of the database.';
    END IF;

    id := nextval('provost.event_id');
    message := format('{"id":%s,"room":%s,"name":"%s",', id, to_json(room), name);
    IF octet_length(body) <= payload_max THEN
        payload := message || format('"data":%s}', body);
        payload := format('event %s %s', provost.hmac_sha256(key.ipad, key.opad, convert_to(payload, 'UTF8')), payload);
    END IF;
    IF payload IS NULL OR greatest(octet_length(payload), octet_length(convert_to(payload, 'UTF8'))) > payload_max THEN
        payload := message || '"ref":true}';
        payload := format('event %s %s', provost.hmac_sha256(key.ipad, key.opad, convert_to(payload, 'UTF8')), payload);
        INSERT INTO provost.outbox (id, room, name, data, bytes, durable)
        VALUES (id, room, name, data, octet_length(body), durable);
    ELSIF durable THEN
        INSERT INTO provost.outbox (id, room, name, data, bytes, durable)
        VALUES (id, room, name, data, octet_length(body), durable);
    END IF;
    PERFORM pg_notify('provost', payload);
    RETURN id;
END
$$;

FOR command IN
    SELECT DISTINCT format('REVOKE ALL ON %s FROM %s', o.object,
                           CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END)
    FROM (SELECT format('provost.%I', relname), relname, relowner, relacl
          FROM pg_class WHERE relnamespace = 'provost'::regnamespace
          UNION ALL
          SELECT 'FUNCTION ' || oid::regprocedure, proname, proowner, coalesce(proacl, acldefault('f', proowner))
          FROM pg_proc WHERE pronamespace = 'provost'::regnamespace) o (object, name, owner, acl), aclexplode(o.acl) g
    WHERE o.name = ANY (missing) AND g.grantee <> o.owner
LOOP
    EXECUTE command;
END LOOP;

-- Made anew it goes on behind what is kept.
IF 'event_id' = ANY (missing) THEN
    PERFORM setval('provost.event_id', max(id)) FROM provost.outbox;
END IF;

IF NOT EXISTS (SELECT FROM provost.event_key) THEN
    PERFORM provost.renew_event_key();
END IF;

END
$do$;

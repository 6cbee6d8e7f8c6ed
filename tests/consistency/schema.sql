-- What the history checker writes and reads. A row's version `v` only ever grows; what else it holds follows
-- from its id and version, so that one look at a row tells whether it was ever committed.
CREATE TABLE item (
    id  integer PRIMARY KEY,
    key text    NOT NULL UNIQUE,    -- long ones do not fit into one notification
    grp integer NOT NULL,           -- group_of(id, v)
    v   bigint  NOT NULL,
    w   bigint  NOT NULL            -- who wrote it; odd: never committed
);
CREATE INDEX item_by_group ON item (grp);

-- Written together with its item: whoever sees them differ sees what never was.
CREATE TABLE note (
    item integer PRIMARY KEY,
    v    bigint  NOT NULL
);

-- Rows that come and go. The sequence keeps a write that comes late from undoing a later one.
CREATE TABLE blink (
    id integer PRIMARY KEY,
    v  bigint  NOT NULL
);
CREATE TABLE blink_sequence (
    id integer PRIMARY KEY,
    v  bigint  NOT NULL
);

-- A row changes its group with every eighth version.
CREATE FUNCTION group_of(id integer, v bigint) RETURNS integer IMMUTABLE LANGUAGE sql
    RETURN ((id + (v >> 3)) % 100)::integer;

-- One in twenty has 1,500 bytes; the checker makes the same.
CREATE FUNCTION key_of(id integer) RETURNS text IMMUTABLE LANGUAGE sql
    RETURN CASE WHEN id % 20 = 0 THEN rpad('long/' || id || '/', 1500, id || '.') ELSE 'key/' || id END;

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'an odd writer is never committed' USING ERRCODE = 'check_violation';
END $$;
CREATE CONSTRAINT TRIGGER refuse_odd AFTER INSERT OR UPDATE ON item DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.w % 2 = 1) EXECUTE FUNCTION refuse();

INSERT INTO item
SELECT id, key_of(id), group_of(id, 1), 1, 0 FROM generate_series(0, :rows - 1) AS id;
INSERT INTO note SELECT id, 1 FROM item;
INSERT INTO blink_sequence SELECT id, 0 FROM generate_series(0, 15) AS id;

"""Random valid writes to any table of a database, made from its catalogue.

Writes(connection, seed).one() -> (what was done, rows), or None when the database refused it. Inserts are copies of rows
with another key and other unique values; updates give some columns, keys among them, values of the same column elsewhere
or new ones; deletes cascade as they will. Several rows at a time now and then. Everything commits by itself.
"""
import json
import random
import uuid

import psycopg2
import psycopg2.extras
from psycopg2 import sql

COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL), CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 END, a.attnotnull,
       a.attidentity <> '' OR a.attgenerated <> '',
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND a.attnum = ANY (i.indkey)),
       (SELECT f.confrelid::regclass::text FROM pg_constraint f WHERE f.conrelid = a.attrelid AND f.contype = 'f'
           AND f.conkey = ARRAY[a.attnum] LIMIT 1)
FROM pg_attribute a WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""


class Column:
    def __init__(self, name, kind, length, not_null, made, unique, references):
        self.name, self.kind, self.length, self.not_null = name, kind, length, not_null
        self.made, self.unique, self.references = made, unique, references


class Writes:
    def __init__(self, connection, seed, only=None, without=()):
        self.connection, self.random = connection, random.Random(seed)
        connection.autocommit = True
        self.cursor = connection.cursor()
        self.tables = {name: [Column(*row) for row in self._ask(COLUMNS, (name,))] for (name,) in self._ask(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " ORDER BY 1") if name not in without and (not only or name in only)}
        self.done, self.refused = {}, 0

    def _ask(self, text, values=()):
        self.cursor.execute(text, values)
        return self.cursor.fetchall()

    def one(self):
        """Tries until one has changed something."""
        while True:
            table = self.random.choice(list(self.tables))
            action = self.random.choices([self._update, self._insert, self._delete], [50, 33, 17])[0]
            try:
                rows = action(table)
            except (psycopg2.IntegrityError, psycopg2.DataError, psycopg2.errors.RaiseException):
                self.refused += 1
                continue
            if rows:
                what = f"{action.__name__[1:]} {table}"
                self.done[what] = self.done.get(what, 0) + 1
                return what, rows

    # -- values

    def _existing(self, table, column):
        found = self._ask(sql.SQL("SELECT {} FROM {} OFFSET floor(random() * (SELECT count(*) FROM {})) LIMIT 1").format(
            sql.Identifier(column), sql.SQL(table), sql.SQL(table)))
        return found[0][0] if found else None

    def _new(self, c):
        r = self.random
        if c.kind in ("text", "character varying"):
            text = str(uuid.UUID(int=r.getrandbits(128)))
            if not c.unique:
                text = r.choice([text, "", "ümlaut 'quoted' \"x\"", "a, {b}", "NULL", text * 3])
            return text[:c.length or 36]
        if c.kind in ("integer", "bigint"):
            return r.choice([0, 1, r.randint(1, 50), r.randint(1, 3000)])
        if c.kind in ("double precision", "numeric"):
            return round(r.uniform(0, 1000), 2)
        if c.kind == "boolean":
            return r.random() < 0.5
        if c.kind == "jsonb":
            return json.dumps(r.choice([{}, {"a": 1, "b": [True, None]}, ["x"]]))
        if c.kind in ("timestamp with time zone", "date"):
            return f"2025-{r.randint(1, 12):02}-{r.randint(1, 28):02}" + (
                f" {r.randint(0, 23):02}:{r.randint(0, 59):02}:00Z" if c.kind != "date" else "")
        raise AssertionError(f"no value for {c.kind}")

    def _value(self, table, c):
        if c.references:
            return self._existing(c.references, "id")
        if not c.not_null and self.random.random() < 0.15:
            return None
        if c.unique or self.random.random() < 0.4:
            return self._new(c)
        value = self._existing(table, c.name)
        return json.dumps(value) if c.kind == "jsonb" and value is not None else value

    def _some(self):
        return self.random.choice([1, 1, 1, 1, 2, 3, 20])

    # -- writes

    def _where(self, table):
        """Some rows, by where they lie."""
        return sql.SQL("ctid = ANY (ARRAY(SELECT ctid FROM {} TABLESAMPLE BERNOULLI (100)"
                       " ORDER BY md5(ctid::text || {}) LIMIT {}))").format(
            sql.SQL(table), sql.Literal(str(self.random.random())), sql.Literal(self._some()))

    def _update(self, table):
        columns = [c for c in self.tables[table] if not c.made]
        chosen = self.random.sample(columns, min(len(columns), self.random.choice([1, 1, 2, 3])))
        assignments = [sql.SQL("{} = {}").format(sql.Identifier(c.name), sql.Literal(self._value(table, c))) for c in chosen]
        self.cursor.execute(sql.SQL("UPDATE {} SET {} WHERE {}").format(
            sql.SQL(table), sql.SQL(", ").join(assignments), self._where(table)))
        return self.cursor.rowcount

    def _insert(self, table):
        columns = [c for c in self.tables[table] if not c.made]
        names = sql.SQL(", ").join(sql.Identifier(c.name) for c in columns)
        rows = self._ask(sql.SQL("SELECT {} FROM {} WHERE {}").format(names, sql.SQL(table), self._where(table)))
        tuples = []
        for row in rows:
            values = []
            for c, value in zip(columns, row):
                if c.unique or self.random.random() < 0.2:
                    value = self._value(table, c)
                elif c.kind == "jsonb" and value is not None:
                    value = json.dumps(value)
                values.append(sql.Literal(value))
            tuples.append(sql.SQL("({})").format(sql.SQL(", ").join(values)))
        if not tuples:
            return 0
        # As they are in a VALUES list of one row, literals take the columns' types.
        for one in tuples:
            self.cursor.execute(sql.SQL("INSERT INTO {} ({}) VALUES {}").format(sql.SQL(table), names, one))
        return len(tuples)

    def _delete(self, table):
        self.cursor.execute(sql.SQL("DELETE FROM {} WHERE {}").format(sql.SQL(table), self._where(table)))
        return self.cursor.rowcount

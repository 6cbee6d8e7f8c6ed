/*
 * stmt: a statement with numbered parameters, as PostgreSQL's extended protocol wants it.
 *
 * The contract between endpoint (who writes it) and db (who prepares and runs it). Immutable once
 * built. `name` is derived from the text and the types, so an unchanged statement keeps its name
 * over a reload and connections keep what they have prepared.
 */
#ifndef PROVOST_STMT_H
#define PROVOST_STMT_H

#include "provost/base.h"

typedef uint32_t pg_oid;

/* Where the value of $n comes from. */
enum bind_source {
	BIND_PARAM, /* endpoint->param[index] */
	BIND_BODY,  /* :body, all @body members as jsonb */
	BIND_AUTH_SUB,
	BIND_AUTH_ROLE,
	BIND_AUTH_CLAIMS,
};

struct bind {
	enum bind_source source;
	size_t index; /* BIND_PARAM only */
};

struct stmt {
	char *sql; /* NUL-terminated, `$1`..`$n` */
	size_t sql_len;
	uint64_t id;   /* of text and types: equal ids are the same statement */
	char name[24]; /* "pv_" and the id in hexadecimal */
	size_t binds;
	struct bind *bind;
	pg_oid *oid; /* type of each bind */
};

/* Computes id and name from sql and oid. */
void stmt_seal(struct stmt *s);
/* The name that goes with an id. */
void stmt_name(uint64_t id, char *ret, size_t size);
void stmt_done(struct stmt *s);

#endif

/*
 * json: jansson for tokens and keys, as cjose uses it.
 *
 * Claims are read with jansson rather than json-c because it is the stricter of the two (RFC 8259
 * to the letter, no NUL, a repeated member can be refused), because it prints members sorted, and
 * because a header that two parsers read differently is how such checks are got round. Two of its
 * functions have the names of json-c's: a program linked with both would call whichever comes
 * first. They are poisoned here; libcjose's own calls are bound to the right library by symbol
 * versions.
 */
#ifndef PROVOST_AUTH_JSON_H
#define PROVOST_AUTH_JSON_H

#include <jansson.h>
#include <string.h>

#pragma GCC poison json_object_get json_object_iter_next

#include "provost/base.h"

/* Wipes what jansson frees: it holds claims, and the secrets of JWKs. Before its first use. */
void json_wipe_freed(void);

/* An object, strictly: one value, no member twice, no deeper than `depth`. NULL otherwise; -ENOMEM
 * cannot be told apart. The caller ends it with json_decref. */
json_t *json_object_parse(const void *text, size_t n, unsigned depth);

static inline json_t *json_member(const json_t *o, const char *name)
{
	return json_object_getn(o, name, strlen(name));
}

#define _cleanup_json_ _cleanup_(json_decrefp)

#endif

/*
 * url: what an operator or an ORM calls a database URL, as libpq understands it.
 *
 * Parameters that only an ORM knows are taken out; those that say something Provost has a key for
 * are returned as settings. No text that comes out of here but the connection string itself holds a
 * password. Pure.
 */
#ifndef PROVOST_CONFIG_URL_H
#define PROVOST_CONFIG_URL_H

#include "provost/base.h"

enum { URL_WHY_MAX = 400 };

struct url_settings {
	char *conninfo;             /* for libpq; to be freed */
	int64_t pool_max;           /* connection_limit; -1 where the URL is silent */
	int64_t acquire_timeout_ms; /* pool_timeout; -1 */
	bool no_prepare; /* pgbouncer=true, statement_cache_size=0, prepared_statements=false */
};

void url_settings_done(struct url_settings *s);

/* -EINVAL with what to write instead in `why`. */
int url_read(const char *text, struct url_settings *ret, char why[URL_WHY_MAX]) _must_check_;

/* A connection string as keywords and values, secrets masked; the caller frees. */
char *url_display(const char *conninfo);

#endif

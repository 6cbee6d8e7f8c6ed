/*
 * urlquery: what stands behind the `?` of a database URL, taken apart into what libpq gets and what
 * an ORM meant for itself. Pure.
 */
#ifndef PROVOST_CONFIG_URLQUERY_H
#define PROVOST_CONFIG_URLQUERY_H

#include "provost/buf.h"
#include "url.h"

/* Zeroed by the caller but for settings and why, which are the caller's. */
struct url_query {
	struct url_settings *settings;
	char *why;       /* URL_WHY_MAX bytes */
	struct buf kept; /* `?name=value&...` for libpq; empty without */
	char *options;   /* decoded, as the URL has them */
	char *schema;    /* decoded */
	bool ssl_strict; /* sslaccept=strict */
	bool ssl_cert, ssl_key;
};

/* `s` is what follows the `?`. -EINVAL with a sentence in q->why. */
int url_query_read(struct url_query *q, const char *s) _must_check_;
void url_query_done(struct url_query *q);

/* Fills `why`; -EINVAL. */
int url_refuse(char why[URL_WHY_MAX], const char *fmt, ...) _printf_(2, 3);

#endif

/*
 * identity: how one is made. Private to src/auth.
 */
#ifndef PROVOST_AUTH_IDENTITY_H
#define PROVOST_AUTH_IDENTITY_H

#include "provost/identity.h"

/* Roles as they are collected: normalised, not yet sorted. */
struct role_set {
	char name[IDENTITY_ROLES_MAX][IDENTITY_ROLE_MAX + 1];
	size_t count;
};

/* Adds one, in lower case. -EINVAL: empty, too long, not UTF-8, or with a comma or a control
 * character; -E2BIG: too many. */
int role_set_add(struct role_set *r, const char *name, size_t n) _must_check_;

/* UTF-8 of 1 to `max` bytes without control characters (C0, DEL, C1). */
bool is_plain_text(const char *s, size_t n, size_t max);

/* What an identity is made of; everything is copied. */
struct identity_parts {
	enum identity_kind kind;
	const char *subject, *claims, *token_id;
	struct role_set *roles; /* sorted here */
	int64_t issued_s, expires_s;
	uint64_t origin;
};

/* NULL when out of memory. */
struct identity *identity_new(const struct identity_parts *p);
/* Claims of an identity that no token brought: its subject and roles. */
struct identity *identity_new_plain(struct identity_parts *p);

#endif

/*
 * target: the request target as it came (RFC 9112, section 3.2), taken apart before any decoding.
 * Pure functions; no allocation.
 */
#ifndef PROVOST_TARGET_H
#define PROVOST_TARGET_H

#include "provost/values.h"

struct target {
	struct slice authority; /* absolute-form only */
	struct slice path;      /* from the first `/`; empty for `*` */
	struct slice query;     /* behind the first `?`; empty without */
	bool asterisk;          /* `*` */
};

/* Origin-form, absolute-form (http, https) or `*`. -EINVAL for anything else: a fragment, a blank,
 * a control character, a byte above 0x7E, a broken escape in the path, a path that begins with `//`
 * is taken as a path. */
int target_parse(const char *s, size_t n, struct target *ret) _must_check_;

/* Takes the next `name=value` off a raw query; value empty without `=`. False at the end. */
bool target_take_pair(struct slice *query, struct slice *ret_name, struct slice *ret_value);

#endif

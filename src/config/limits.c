#include "limits.h"

#include <errno.h>

#include "provost/units.h"

#define MAX_ENTRY_UNSET (INT64_C(8) << 20)

enum { SIZE_TEXT_MAX = 32 };

static int64_t largest_entry(const struct config *c)
{
	return c->cache.capacity / c->cache.shards / 4;
}

int limits_check_capacity(const struct config *c, const char *file, unsigned line,
                          struct errors *errs)
{
	int64_t least = (int64_t)c->cache.shards * CACHE_SHARE_MIN;
	char is[SIZE_TEXT_MAX], wanted[SIZE_TEXT_MAX];

	if (c->cache.capacity >= least)
		return 0;
	units_format_size(c->cache.capacity, is, sizeof(is));
	units_format_size(least, wanted, sizeof(wanted));
	errors_add(
	    errs, file, line,
	    "[cache] capacity (%s) is too little for %u shards, which need 64KiB each: write "
	    "at least %s, or fewer shards",
	    is, c->cache.shards, wanted);
	return -EINVAL;
}

void limits_fit_max_entry(struct config *c, const char *file, unsigned line, struct errors *errs)
{
	int64_t largest = largest_entry(c);
	char is[SIZE_TEXT_MAX], allowed[SIZE_TEXT_MAX];

	if (!c->max_entry_is_set) {
		c->cache.max_entry = MIN(MAX_ENTRY_UNSET, largest);
		return;
	}
	if (c->cache.max_entry <= largest)
		return;
	units_format_size(c->cache.max_entry, is, sizeof(is));
	units_format_size(largest, allowed, sizeof(allowed));
	errors_add(errs, file, line,
	           "[cache] max_entry (%s) is more than a fourth of a shard's share of capacity "
	           "(%s): lower it, raise capacity, or write fewer shards",
	           is, allowed);
}

int limits_check_development(const struct config *c, const char *file, unsigned line,
                             struct errors *errs)
{
	if (!c->http.development || http_listen_check(c->http.listen) != -EPERM)
		return 0;
	errors_add(errs, file, line,
	           "[http] development shows the database's words to every caller: write no, or "
	           "listen on an address of this machine alone");
	return -EINVAL;
}

int limits_keep(struct config *c, struct errors *errs)
{
	int r = limits_check_capacity(c, c->file, 0, errs);

	if (r == 0)
		r = limits_check_development(c, c->file, 0, errs);
	if (r < 0)
		return r;
	if (c->max_entry_is_set)
		c->cache.max_entry = MIN(c->cache.max_entry, largest_entry(c));
	else
		limits_fit_max_entry(c, NULL, 0, errs);
	return 0;
}

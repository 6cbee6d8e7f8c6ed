#include "provost/units.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct unit {
	const char *name;
	int64_t factor;
};

/* From the largest down: formatting takes the first that divides. */
static const struct unit durations[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0},
};
static const struct unit sizes[] = {
    {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}, {NULL, 0},
};

/* The digits at `s`; `*ret_unit` is what follows them. */
static int read_digits(const char *s, int64_t *ret, const char **ret_unit)
{
	int64_t v = 0;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *s - '0', &v))
			return -ERANGE;
	}
	*ret = v;
	*ret_unit = s;
	return 0;
}

static const struct unit *find_unit(const struct unit *table, const char *name)
{
	for (const struct unit *u = table; u->name; u++) {
		if (strcmp(u->name, name) == 0)
			return u;
	}
	return NULL;
}

static int read_quantity(const struct unit *table, const char *s, int64_t *ret)
{
	const struct unit *u;
	const char *name;
	int64_t v;
	int r;

	/* The unit is looked at first, so that nonsense is nonsense however many digits it has. */
	name = s + strspn(s, "0123456789");
	u = find_unit(table, name);
	if (!u)
		return -EINVAL;
	r = read_digits(s, &v, &name);
	if (r < 0)
		return r;
	if (__builtin_mul_overflow(v, u->factor, &v))
		return -ERANGE;
	*ret = v;
	return 0;
}

static void format_quantity(const struct unit *table, int64_t v, char *out, size_t n)
{
	const struct unit *u = table;

	ALWAYS(v >= 0);
	while (v % u->factor)
		u++;
	if (v == 0)
		snprintf(out, n, "0");
	else
		snprintf(out, n, "%" PRId64 "%s", v / u->factor, u->name);
}

int units_duration(const char *s, int64_t *ret_ms)
{
	if (strcmp(s, "0") == 0) {
		*ret_ms = 0;
		return 0;
	}
	return read_quantity(durations, s, ret_ms);
}

int units_size(const char *s, int64_t *ret_bytes)
{
	return read_quantity(sizes, s, ret_bytes);
}

void units_format_duration(int64_t ms, char *out, size_t n)
{
	format_quantity(durations, ms, out, n);
}

void units_format_size(int64_t bytes, char *out, size_t n)
{
	format_quantity(sizes, bytes, out, n);
}

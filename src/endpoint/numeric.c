#include <errno.h>
#include <string.h>

#include "value.h"

/* 0.digits * 10^point, without zeros at either end; no digits: zero. */
struct decimal {
	bool negative;
	char digit[VALUES_NUMERIC_MAX + 1];
	size_t digits;
	long point;
};

/* Zeros written out at most; beyond that an exponent is shorter and bounds what a few bytes of
 * request can become. */
enum { PLAIN_ZEROS_MAX = 20 };

static const char not_numeric[] = "must be a decimal number, such as -12.50";
static const char too_long[] = "must have at most 1000 digits before and behind the point";

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* [+-]digits, clamped far beyond what is allowed; the position behind it, or NULL. */
static const char *read_exponent(const char *p, const char *end, long *ret)
{
	bool negative = false;
	long v = 0;

	if (p < end && (*p == '+' || *p == '-'))
		negative = *p++ == '-';
	if (p == end || !is_digit(*p))
		return NULL;
	for (; p < end && is_digit(*p); p++)
		v = MIN(v * 10 + (*p - '0'), 1000000L);
	*ret = negative ? -v : v;
	return p;
}

static void add_digit(struct decimal *d, char c, bool behind_point)
{
	ALWAYS(d->digits < ELEMENTSOF(d->digit));
	if (d->digits == 0 && c == '0') {
		d->point -= behind_point;
		return;
	}
	d->digit[d->digits++] = c;
	d->point += !behind_point;
}

/* Of text with at most as many digits, but for leading zeros, as there is room for. */
static int parse(const char *s, size_t n, struct decimal *d, const char **ret_why)
{
	const char *p = s, *end = s + n, *digits;
	long exponent = 0;

	*ret_why = not_numeric;
	if (p < end && (*p == '+' || *p == '-'))
		d->negative = *p++ == '-';
	for (digits = p; p < end && is_digit(*p); p++)
		add_digit(d, *p, false);
	if (p == digits)
		return -EINVAL;
	if (p < end && *p == '.') {
		for (digits = ++p; p < end && is_digit(*p); p++)
			add_digit(d, *p, true);
		if (p == digits)
			return -EINVAL;
	}
	if (p < end && (*p == 'e' || *p == 'E')) {
		p = read_exponent(p + 1, end, &exponent);
		if (!p)
			return -EINVAL;
	}
	if (p != end)
		return -EINVAL;
	while (d->digits > 0 && d->digit[d->digits - 1] == '0')
		d->digits--;
	if (d->digits == 0) {
		*d = (struct decimal){0};
		return 0;
	}
	d->point += exponent;
	*ret_why = too_long;
	if (d->point > VALUES_NUMERIC_MAX || (long)d->digits - d->point > VALUES_NUMERIC_MAX)
		return -EINVAL;
	return 0;
}

static void add_zeros(struct buf *out, long n)
{
	for (; n > 0; n--)
		buf_addc(out, '0');
}

static void add_plain(const struct decimal *d, struct buf *out)
{
	size_t whole = d->point > 0 ? MIN((size_t)d->point, d->digits) : 0;

	if (whole == 0)
		buf_addc(out, '0');
	buf_add(out, d->digit, whole);
	add_zeros(out, d->point - (long)d->digits);
	if (whole == d->digits)
		return;
	buf_addc(out, '.');
	add_zeros(out, -d->point);
	buf_add(out, d->digit + whole, d->digits - whole);
}

static void add_scientific(const struct decimal *d, struct buf *out)
{
	buf_addc(out, d->digit[0]);
	if (d->digits > 1) {
		buf_addc(out, '.');
		buf_add(out, d->digit + 1, d->digits - 1);
	}
	buf_addf(out, "e%ld", d->point - 1);
}

/* The scale is not kept: 1.50 and 1.5 are one value, and one cache key. */
int numeric_canonical(const char *s, size_t n, struct buf *out, const char **ret_why)
{
	struct decimal d = {0};
	int r;

	*ret_why = too_long;
	if (n > VALUES_NUMERIC_MAX)
		return -EINVAL;
	r = parse(s, n, &d, ret_why);
	if (r < 0)
		return r;
	if (d.negative)
		buf_addc(out, '-');
	if (d.point - (long)d.digits > PLAIN_ZEROS_MAX || -d.point > PLAIN_ZEROS_MAX)
		add_scientific(&d, out);
	else
		add_plain(&d, out);
	return 0;
}

static int compare_magnitude(const struct decimal *a, const struct decimal *b)
{
	int r;

	if (a->digits == 0 || b->digits == 0)
		return (a->digits > 0) - (b->digits > 0);
	if (a->point != b->point)
		return a->point < b->point ? -1 : 1;
	r = memcmp(a->digit, b->digit, MIN(a->digits, b->digits));
	if (r != 0)
		return r;
	return (a->digits > b->digits) - (a->digits < b->digits);
}

/* Of normal forms, which may be a few characters longer than what they were made of. */
int numeric_compare(struct slice a, struct slice b)
{
	struct decimal x = {0}, y = {0};
	const char *why;
	int r = parse(a.p, a.n, &x, &why);

	ALWAYS(r == 0);
	r = parse(b.p, b.n, &y, &why);
	ALWAYS(r == 0);
	if (x.negative != y.negative)
		return x.negative ? -1 : 1;
	return x.negative ? compare_magnitude(&y, &x) : compare_magnitude(&x, &y);
}

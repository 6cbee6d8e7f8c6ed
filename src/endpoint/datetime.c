#include <errno.h>

#include "value.h"

/* What PostgreSQL, JavaScript and RFC 3339 all can say. */
enum { YEAR_MIN = 1, YEAR_MAX = 9999 };

struct instant {
	int year, month, day;
	int hour, minute, second;
	int micros;
	int offset; /* minutes east of UTC */
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Exactly `n` digits at `*p`. */
static bool take_digits(const char **p, const char *end, int n, int *ret)
{
	int v = 0;

	if (end - *p < n)
		return false;
	for (int i = 0; i < n; i++) {
		if (!is_digit((*p)[i]))
			return false;
		v = v * 10 + ((*p)[i] - '0');
	}
	*p += n;
	*ret = v;
	return true;
}

static bool take_char(const char **p, const char *end, char c)
{
	if (*p == end || **p != c)
		return false;
	(*p)++;
	return true;
}

static int days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (month == 2 && leap);
}

static bool take_date(const char **p, const char *end, struct instant *t)
{
	return take_digits(p, end, 4, &t->year) && take_char(p, end, '-') &&
	       take_digits(p, end, 2, &t->month) && take_char(p, end, '-') &&
	       take_digits(p, end, 2, &t->day);
}

static bool date_exists(const struct instant *t)
{
	return t->year >= YEAR_MIN && t->year <= YEAR_MAX && t->month >= 1 && t->month <= 12 &&
	       t->day >= 1 && t->day <= days_in_month(t->year, t->month);
}

int date_canonical(const char *s, size_t n, struct buf *out, const char **ret_why)
{
	struct instant t = {0};
	const char *p = s, *end = s + n;

	if (!take_date(&p, end, &t) || p != end) {
		*ret_why = "must be a date: YYYY-MM-DD";
		return -EINVAL;
	}
	if (!date_exists(&t)) {
		*ret_why = "must be a day that exists, from year 0001 to 9999";
		return -EINVAL;
	}
	buf_add(out, s, n);
	return 0;
}

/* Digits of a second: one to six. */
static bool take_fraction(const char **p, const char *end, struct instant *t)
{
	int digits = 0;

	for (; *p < end && is_digit(**p); (*p)++) {
		if (++digits > 6)
			return false;
		t->micros = t->micros * 10 + (**p - '0');
	}
	if (digits == 0)
		return false;
	for (; digits < 6; digits++)
		t->micros *= 10;
	return true;
}

static bool take_offset(const char **p, const char *end, struct instant *t)
{
	int sign, hours, minutes;

	if (*p == end)
		return true;
	if (take_char(p, end, 'Z') || take_char(p, end, 'z'))
		return true;
	if (**p != '+' && **p != '-')
		return false;
	sign = *(*p)++ == '-' ? -1 : 1;
	if (!take_digits(p, end, 2, &hours) || !take_char(p, end, ':') ||
	    !take_digits(p, end, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	t->offset = sign * (hours * 60 + minutes);
	return true;
}

/* RFC 3339, section 5.6; also without seconds (HTML's datetime-local), without an offset (UTC), and
 * a date alone (its first instant, UTC). */
static bool take_timestamp(const char **p, const char *end, struct instant *t)
{
	if (!take_date(p, end, t))
		return false;
	if (*p == end)
		return true;
	if (!take_char(p, end, 'T') && !take_char(p, end, 't') && !take_char(p, end, ' '))
		return false;
	if (!take_digits(p, end, 2, &t->hour) || !take_char(p, end, ':') ||
	    !take_digits(p, end, 2, &t->minute))
		return false;
	if (take_char(p, end, ':')) {
		if (!take_digits(p, end, 2, &t->second))
			return false;
		if (take_char(p, end, '.') && !take_fraction(p, end, t))
			return false;
	}
	return take_offset(p, end, t) && *p == end;
}

/* Steps the day by one; the offset moves an instant no further. */
static void step_day(struct instant *t, int by)
{
	t->day += by;
	if (t->day == 0) {
		if (--t->month == 0) {
			t->month = 12;
			t->year--;
		}
		t->day = days_in_month(t->year, t->month);
	} else if (t->day > days_in_month(t->year, t->month)) {
		t->day = 1;
		if (++t->month == 13) {
			t->month = 1;
			t->year++;
		}
	}
}

static void to_utc(struct instant *t)
{
	int minutes = t->hour * 60 + t->minute - t->offset;

	if (minutes < 0) {
		minutes += 24 * 60;
		step_day(t, -1);
	} else if (minutes >= 24 * 60) {
		minutes -= 24 * 60;
		step_day(t, 1);
	}
	t->hour = minutes / 60;
	t->minute = minutes % 60;
	t->offset = 0;
}

int timestamp_canonical(const char *s, size_t n, struct buf *out, const char **ret_why)
{
	struct instant t = {0};
	const char *p = s;

	if (!take_timestamp(&p, s + n, &t)) {
		*ret_why = "must be a timestamp: YYYY-MM-DDTHH:MM:SS, at most six digits of a "
		           "second, and Z or an offset such as +02:00 (in a URL %2B02:00)";
		return -EINVAL;
	}
	if (date_exists(&t) && t.hour <= 23 && t.minute <= 59 && t.second <= 59) {
		to_utc(&t);
		if (t.year >= YEAR_MIN && t.year <= YEAR_MAX) {
			buf_addf(out, "%04d-%02d-%02dT%02d:%02d:%02d", t.year, t.month, t.day,
			         t.hour, t.minute, t.second);
			if (t.micros)
				buf_addf(out, ".%06d", t.micros);
			buf_addc(out, 'Z');
			return 0;
		}
	}
	*ret_why = "must be an instant that exists, from year 0001 to 9999, before 24:00, without "
	           "leap seconds";
	return -EINVAL;
}

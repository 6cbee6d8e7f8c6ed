#include <errno.h>
#include <string.h>
#include <strings.h>

#include "keys.h"
#include "origins.h"
#include "provost/units.h"
#include "rooms.h"
#include "url.h"

/* ---- reading ------------------------------------------------------------------------- */

static int refuse(const struct key *k, char why[KEY_WHY_MAX])
{
	_cleanup_buf_ struct buf accepts = {0};

	key_accepts(k, &accepts);
	buf_addc(&accepts, '\0');
	snprintf(why, KEY_WHY_MAX, "write %s", accepts.failed ? "something else" : accepts.data);
	return -EINVAL;
}

bool key_in_bounds(const struct key *k, int64_t v)
{
	return (v >= k->min && v <= k->max) || (v == 0 && k->zero);
}

static int set_bool(const struct key *k, bool *to, const char *text, char why[KEY_WHY_MAX])
{
	static const char *const yes[] = {"yes", "true", "on", "1"};
	static const char *const no[] = {"no", "false", "off", "0"};

	for (size_t i = 0; i < ELEMENTSOF(yes); i++) {
		if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
			*to = strcasecmp(text, yes[i]) == 0;
			return 0;
		}
	}
	return refuse(k, why);
}

/* Digits only: neither a sign nor the blanks that strtol would allow. */
static int read_integer(const char *text, int64_t *ret)
{
	if (!*text || text[strspn(text, "0123456789")] || strlen(text) > 18)
		return -EINVAL;
	*ret = strtoll(text, NULL, 10);
	return 0;
}

static int read_number(const struct key *k, const char *text, int64_t *ret, char why[KEY_WHY_MAX])
{
	int64_t v;
	int r;

	if (k->type == KEY_DURATION || k->type == KEY_SECONDS)
		r = units_duration(text, &v);
	else if (k->type == KEY_SIZE)
		r = units_size(text, &v);
	else
		r = read_integer(text, &v);
	if (r < 0 || !key_in_bounds(k, v))
		return refuse(k, why);
	if (k->type == KEY_POWER && (v & (v - 1)) != 0)
		return refuse(k, why);
	if (k->type == KEY_SECONDS && v % 1000 != 0)
		return refuse(k, why);
	*ret = v;
	return 0;
}

static int set_number(const struct key *k, void *to, const char *text, char why[KEY_WHY_MAX])
{
	int64_t v = 0;
	int r = read_number(k, text, &v, why);

	if (r < 0)
		return r;
	if (k->type == KEY_INTEGER || k->type == KEY_POWER)
		*(unsigned *)to = (unsigned)v;
	else
		*(int64_t *)to = k->type == KEY_SECONDS ? v / 1000 : v;
	return 0;
}

/* Whether the words of `text`, separated by commas, are all codings, and at least one. */
static bool read_codings(const char *text, struct compression *ret)
{
	struct compression found = {0};

	for (const char *s = text;; s++) {
		s += strspn(s, " \t");
		size_t len = strcspn(s, ", \t");
		if (len == 4 && strncasecmp(s, "gzip", len) == 0)
			found.gzip = true;
		else if (len == 2 && strncasecmp(s, "br", len) == 0)
			found.br = true;
		else
			return false;
		s += len;
		s += strspn(s, " \t");
		if (!*s)
			break;
		if (*s != ',')
			return false;
	}
	*ret = found;
	return true;
}

static int set_codings(const struct key *k, struct compression *to, const char *text,
                       char why[KEY_WHY_MAX])
{
	if (strcasecmp(text, "off") == 0) {
		*to = (struct compression){0};
		return 0;
	}
	return read_codings(text, to) ? 0 : refuse(k, why);
}

static int set_text(char **to, const char *text)
{
	char *copy = xstrdup(text);

	free(*to);
	*to = copy;
	return 0;
}

/* Which of the choices it is; -1: none. */
static int find_choice(const char *choices, const char *text, size_t len)
{
	for (int i = 0; *choices; i++) {
		size_t n = strcspn(choices, ",");

		if (len == n && strncmp(choices, text, n) == 0)
			return i;
		choices += n;
		choices += strspn(choices, ", ");
	}
	return -1;
}

static int set_choice(const struct key *k, char **to, const char *text, char why[KEY_WHY_MAX])
{
	if (find_choice(k->choices, text, strlen(text)) < 0)
		return refuse(k, why);
	return set_text(to, text);
}

static int set_enum(const struct key *k, unsigned *to, const char *text, char why[KEY_WHY_MAX])
{
	int i = find_choice(k->choices, text, strlen(text));

	if (i < 0)
		return refuse(k, why);
	*to = (unsigned)i;
	return 0;
}

static void set_text_or_null(char **to, const char *text)
{
	if (*text) {
		(void)set_text(to, text);
		return;
	}
	free(*to);
	*to = NULL;
}

/* Whether all between the commas of `text` is something, and one of the choices, if there are any.
 */
static bool read_list(const struct key *k, const char *text, struct strlist *to)
{
	for (const char *s = text; *s; s++) {
		s += strspn(s, " \t");
		size_t len = strcspn(s, ","), n = len;
		while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
			n--;
		if (n == 0 || (k->choices && find_choice(k->choices, s, n) < 0))
			return false;
		strlist_add(to, s, n);
		s += len;
		if (!*s)
			return true;
		if (!s[1 + strspn(s + 1, " \t")])
			return false;
	}
	return true;
}

static int set_list(const struct key *k, struct strlist *to, const char *text,
                    char why[KEY_WHY_MAX])
{
	struct strlist list = {.item = NULL};

	if (!read_list(k, text, &list)) {
		strlist_done(&list);
		return refuse(k, why);
	}
	strlist_done(to);
	*to = list;
	return 0;
}

static int set_listen(const struct key *k, char **to, const char *text, char why[KEY_WHY_MAX])
{
	int r = http_listen_check(text);

	/* Whether others may reach it is a matter of other keys. */
	if (r < 0 && r != -EPERM)
		return refuse(k, why);
	return set_text(to, text);
}

/* A word such as `on` would make a file of that name: a path shows by its slash. */
static int set_target(const struct key *k, char **to, const char *text, char why[KEY_WHY_MAX])
{
	bool path = strchr(text, '/') && text[strlen(text) - 1] != '/';

	if (!path && strcmp(text, "off") != 0 && strcmp(text, "stderr") != 0)
		return refuse(k, why);
	return set_text(to, text);
}

int key_set(const struct key *k, void *base, const char *text, char why[KEY_WHY_MAX])
{
	void *to = (char *)base + k->offset;

	switch (k->type) {
	case KEY_BOOL:
		return set_bool(k, to, text, why);
	case KEY_INTEGER:
	case KEY_POWER:
	case KEY_SIZE:
	case KEY_DURATION:
	case KEY_SECONDS:
		return set_number(k, to, text, why);
	case KEY_CHOICE:
		return set_choice(k, to, text, why);
	case KEY_ENUM:
		return set_enum(k, to, text, why);
	case KEY_TEXT:
		set_text_or_null(to, text);
		return 0;
	case KEY_LIST:
		return set_list(k, to, text, why);
	case KEY_LISTEN:
		return set_listen(k, to, text, why);
	case KEY_ORIGINS:
		return origins_read(text, to, why, KEY_WHY_MAX);
	case KEY_TARGET:
		return set_target(k, to, text, why);
	case KEY_CODINGS:
		return set_codings(k, to, text, why);
	case KEY_URL:
		return set_text(to, text);
	case KEY_ROOMS:
		break; /* they have names: rooms_add */
	}
	return -EINVAL;
}

/* ---- comparing and writing ----------------------------------------------------------- */

static bool text_equal(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool codings_equal(const struct compression *a, const struct compression *b)
{
	return a->gzip == b->gzip && a->br == b->br;
}

bool key_is_unset(const struct key *k, const void *base)
{
	return k->type == KEY_DURATION && *(const int64_t *)((const char *)base + k->offset) < 0;
}

bool key_equal(const struct key *k, const void *base_a, const void *base_b)
{
	const void *a = (const char *)base_a + k->offset;
	const void *b = (const char *)base_b + k->offset;

	switch (k->type) {
	case KEY_BOOL:
		return *(const bool *)a == *(const bool *)b;
	case KEY_INTEGER:
	case KEY_POWER:
	case KEY_ENUM:
		return *(const unsigned *)a == *(const unsigned *)b;
	case KEY_SIZE:
	case KEY_DURATION:
	case KEY_SECONDS:
		return *(const int64_t *)a == *(const int64_t *)b;
	case KEY_ORIGINS:
	case KEY_LIST:
		return strlist_equal(a, b);
	case KEY_CODINGS:
		return codings_equal(a, b);
	case KEY_ROOMS:
		return rooms_equal(a, b);
	case KEY_CHOICE:
	case KEY_TEXT:
	case KEY_LISTEN:
	case KEY_TARGET:
	case KEY_URL:
		break;
	}
	return text_equal(*(char *const *)a, *(char *const *)b);
}

void key_copy(const struct key *k, void *base_to, const void *base_from)
{
	void *to = (char *)base_to + k->offset;
	const void *from = (const char *)base_from + k->offset;

	bool number = k->type == KEY_INTEGER || k->type == KEY_POWER || k->type == KEY_ENUM;

	ALWAYS(number || k->type == KEY_LISTEN || k->type == KEY_URL);
	if (number)
		*(unsigned *)to = *(const unsigned *)from;
	else
		set_text_or_null(to, *(char *const *)from ? *(char *const *)from : "");
}

static void format_list(const struct strlist *l, struct buf *out)
{
	for (size_t i = 0; i < l->count; i++)
		buf_addf(out, "%s%s", i ? ", " : "", l->item[i]);
}

static void format_enum(const struct key *k, unsigned i, struct buf *out)
{
	const char *s = k->choices;

	for (; i > 0; i--) {
		s += strcspn(s, ",");
		s += strspn(s, ", ");
	}
	buf_add(out, s, strcspn(s, ","));
}

static void format_codings(const struct compression *c, struct buf *out)
{
	if (!c->gzip && !c->br)
		buf_adds(out, "off");
	else
		buf_addf(out, "%s%s%s", c->gzip ? "gzip" : "", c->gzip && c->br ? "," : "",
		         c->br ? "br" : "");
}

static void format_url(const char *url, struct buf *out)
{
	_cleanup_free_ char *shown = url ? url_display(url) : NULL;

	buf_adds(out, shown ? shown : "");
}

void key_format(const struct key *k, const void *base, struct buf *out)
{
	const void *at = (const char *)base + k->offset;
	const char *text;
	char number[KEY_TEXT_MAX];

	switch (k->type) {
	case KEY_BOOL:
		buf_adds(out, *(const bool *)at ? "yes" : "no");
		return;
	case KEY_INTEGER:
	case KEY_POWER:
		buf_addf(out, "%u", *(const unsigned *)at);
		return;
	case KEY_SIZE:
	case KEY_DURATION:
		key_format_number(k, *(const int64_t *)at, number);
		buf_adds(out, number);
		return;
	case KEY_SECONDS:
		key_format_number(k, 1000 * *(const int64_t *)at, number);
		buf_adds(out, number);
		return;
	case KEY_ENUM:
		format_enum(k, *(const unsigned *)at, out);
		return;
	case KEY_ORIGINS:
	case KEY_LIST:
		format_list(at, out);
		return;
	case KEY_CODINGS:
		format_codings(at, out);
		return;
	case KEY_ROOMS:
		rooms_format(at, out);
		return;
	case KEY_URL:
		format_url(*(char *const *)at, out);
		return;
	case KEY_CHOICE:
	case KEY_TEXT:
	case KEY_LISTEN:
	case KEY_TARGET:
		text = *(char *const *)at;
		buf_adds(out, text ? text : "");
		return;
	}
}

void key_done(const struct key *k, void *base)
{
	void *at = (char *)base + k->offset;

	switch (k->type) {
	case KEY_BOOL:
	case KEY_INTEGER:
	case KEY_POWER:
	case KEY_SIZE:
	case KEY_DURATION:
	case KEY_SECONDS:
	case KEY_ENUM:
	case KEY_CODINGS:
		return;
	case KEY_ORIGINS:
	case KEY_LIST:
		strlist_done(at);
		return;
	case KEY_ROOMS:
		rooms_done(at);
		return;
	case KEY_CHOICE:
	case KEY_TEXT:
	case KEY_LISTEN:
	case KEY_TARGET:
	case KEY_URL:
		free(*(char **)at);
		*(char **)at = NULL;
		return;
	}
}

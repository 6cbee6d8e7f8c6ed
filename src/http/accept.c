#include "accept.h"

#include <string.h>
#include <strings.h>

enum { WEIGHT_MAX = 1000 };

static const struct {
	const char *name, *suffix;
} codings[CODING_IDENTITY + 1] = {
    [CODING_GZIP] = {"gzip", "-gzip"},
    [CODING_BR] = {"br", "-br"},
    [CODING_IDENTITY] = {"identity", ""},
};

/* Best first, among equals. */
static const unsigned preference[] = {CODING_BR, CODING_GZIP};

struct text {
	const char *p, *end;
};

static bool is_ows(char c)
{
	return c == ' ' || c == '\t';
}

static void skip_ows(struct text *t)
{
	while (t->p < t->end && is_ows(*t->p))
		t->p++;
}

static bool take_char(struct text *t, char c)
{
	if (t->p == t->end || *t->p != c)
		return false;
	t->p++;
	return true;
}

/* ---- Accept-Encoding ----------------------------------------------------------------- */

/* RFC 9110, section 5.6.2; locale-free. */
static bool is_tchar(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_name(const char *p, size_t n, const char *name)
{
	return strlen(name) == n && strncasecmp(p, name, n) == 0;
}

/* qvalue of RFC 9110, section 12.4.2, in thousandths. */
static bool take_qvalue(struct text *t, unsigned *ret)
{
	unsigned q, unit = WEIGHT_MAX;

	if (t->p == t->end || (*t->p != '0' && *t->p != '1'))
		return false;
	q = (unsigned)(*t->p++ - '0') * unit;
	if (take_char(t, '.')) {
		while (unit > 1 && t->p < t->end && *t->p >= '0' && *t->p <= '9') {
			unit /= 10;
			q += (unsigned)(*t->p++ - '0') * unit;
		}
	}
	*ret = q;
	return q <= WEIGHT_MAX;
}

/* [ OWS ";" OWS "q=" qvalue ], up to the end. */
static bool take_weight(struct text *t, unsigned *ret)
{
	*ret = WEIGHT_MAX;
	skip_ows(t);
	if (t->p == t->end)
		return true;
	if (!take_char(t, ';'))
		return false;
	skip_ows(t);
	if (!take_char(t, 'q') && !take_char(t, 'Q'))
		return false;
	if (!take_char(t, '=') || !take_qvalue(t, ret))
		return false;
	skip_ows(t);
	return t->p == t->end;
}

static uint16_t *weight_of(struct accept *a, const char *p, size_t n)
{
	if (is_name(p, n, "*"))
		return &a->any;
	if (is_name(p, n, "x-gzip")) /* RFC 9110, section 8.4.1.3 */
		return &a->coding[CODING_GZIP];
	for (size_t i = 0; i < ELEMENTSOF(codings); i++)
		if (is_name(p, n, codings[i].name))
			return &a->coding[i];
	return NULL;
}

static void add_element(struct accept *a, struct text t)
{
	const char *name;
	uint16_t *weight;
	unsigned q;

	skip_ows(&t);
	for (name = t.p; t.p < t.end && is_tchar(*t.p); t.p++)
		;
	weight = weight_of(a, name, (size_t)(t.p - name));
	if (weight && take_weight(&t, &q) && (*weight == 0 || q + 1 < *weight))
		*weight = (uint16_t)(q + 1);
}

void accept_add(struct accept *a, const char *s, size_t n)
{
	const char *end = s + n;

	/* No quoted strings here: a comma always separates. */
	for (;;) {
		const char *comma = memchr(s, ',', (size_t)(end - s));

		add_element(a, (struct text){s, comma ? comma : end});
		if (!comma)
			return;
		s = comma + 1;
	}
}

static unsigned weight(const struct accept *a, unsigned coding)
{
	unsigned named = a->coding[coding] ? a->coding[coding] : a->any;

	return named ? named - 1 : 0;
}

unsigned accept_choose(const struct accept *a, unsigned available)
{
	unsigned best = CODING_IDENTITY;

	for (size_t i = ELEMENTSOF(preference); i-- > 0;) {
		unsigned w = weight(a, preference[i]);

		if ((available & 1u << preference[i]) && w > 0 && w >= weight(a, best))
			best = preference[i];
	}
	return best;
}

unsigned accept_wanted(const struct accept *a, unsigned makeable, unsigned available)
{
	unsigned best = accept_choose(a, makeable | available);

	return best != CODING_IDENTITY && !(available & 1u << best) ? best : CODING_IDENTITY;
}

const char *coding_name(unsigned coding)
{
	ALWAYS(coding < ELEMENTSOF(codings));
	return codings[coding].name;
}

/* ---- If-None-Match ------------------------------------------------------------------- */

void etag_format(const char hash[ETAG_DIGITS], unsigned coding, char out[ETAG_MAX])
{
	ALWAYS(coding < ELEMENTSOF(codings));
	etag_text(hash, codings[coding].suffix, out);
}

/* etagc of RFC 9110, section 8.8.3: commas and bytes above ASCII too, but no blanks. */
static bool is_etagc(char c)
{
	unsigned char u = (unsigned char)c;

	return u >= 0x21 && u != '"' && u != 0x7f;
}

/* An entity-tag; `*ret` gets what stands between its quotes. Weak or strong is all one here. */
static bool take_etag(struct text *t, struct text *ret)
{
	if (t->p < t->end && *t->p == 'W') {
		t->p++;
		if (!take_char(t, '/'))
			return false;
	}
	if (!take_char(t, '"'))
		return false;
	for (ret->p = t->p; t->p < t->end && is_etagc(*t->p); t->p++)
		;
	ret->end = t->p;
	return take_char(t, '"');
}

static unsigned tag_of(const char *hash, struct text tag)
{
	size_t n = (size_t)(tag.end - tag.p);

	if (n < ETAG_DIGITS || memcmp(tag.p, hash, ETAG_DIGITS) != 0)
		return 0;
	for (unsigned i = 0; i < ELEMENTSOF(codings); i++)
		if (n - ETAG_DIGITS == strlen(codings[i].suffix) &&
		    memcmp(tag.p + ETAG_DIGITS, codings[i].suffix, n - ETAG_DIGITS) == 0)
			return 1u << i;
	return 0;
}

/* One element and the comma behind it; an empty one is allowed (RFC 9110, section 5.6.1.2). */
static bool take_element(struct none_match *m, const char *hash, struct text *t)
{
	skip_ows(t);
	if (take_char(t, '*')) {
		m->any = true;
	} else if (t->p < t->end && *t->p != ',') {
		struct text tag;

		if (!take_etag(t, &tag))
			return false;
		m->tags |= tag_of(hash, tag);
		m->listed = true;
	}
	skip_ows(t);
	return t->p == t->end || take_char(t, ',');
}

void none_match_add(struct none_match *m, const char hash[ETAG_DIGITS], const char *s, size_t n)
{
	struct text t = {s, s + n};

	while (t.p < t.end)
		if (!take_element(m, hash, &t)) {
			m->malformed = true;
			return;
		}
}

unsigned none_match_tags(const struct none_match *m)
{
	if (m->malformed || (m->any && m->listed))
		return 0;
	return m->any ? (unsigned)CODING_ALL : m->tags;
}

unsigned none_match_pick(unsigned tags, unsigned chosen)
{
	ALWAYS(tags != 0 && tags <= CODING_ALL && chosen <= CODING_IDENTITY);
	if (tags & 1u << chosen)
		return chosen;
	return (unsigned)__builtin_ctz(tags);
}

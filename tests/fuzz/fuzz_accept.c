/*
 * Any bytes, as Accept-Encoding and as If-None-Match: weights stay in their range, what is chosen
 * is there and not refused, a line split at a comma between elements means the same, and a tag of
 * ours that matches stands in the text.
 */
#include <string.h>

#include "../../src/http/accept.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char hash[] = "0123456789abcdef0123456789abcdef";

static void check_choice(const struct accept *a, unsigned available)
{
	unsigned c = accept_choose(a, available);

	ALWAYS(c == CODING_IDENTITY || (available & 1u << c));
	if (c != CODING_IDENTITY)
		ALWAYS(a->coding[c] ? a->coding[c] > 1 : a->any > 1);
	c = accept_wanted(a, available, 0);
	ALWAYS(c == accept_choose(a, available));
}

static void check_encodings(const char *s, size_t n)
{
	struct accept a = {0}, b = {0};
	const char *comma = memchr(s, ',', n);

	accept_add(&a, s, n);
	for (size_t i = 0; i < ELEMENTSOF(a.coding); i++)
		ALWAYS(a.coding[i] <= 1001);
	ALWAYS(a.any <= 1001);
	for (unsigned available = 0; available < 1u << CODING_COUNT; available++)
		check_choice(&a, available);
	if (!comma)
		return;
	accept_add(&b, s, (size_t)(comma - s));
	accept_add(&b, comma + 1, n - (size_t)(comma + 1 - s));
	ALWAYS(memcmp(&a, &b, sizeof(a)) == 0);
}

static void check_tags(const char *s, size_t n)
{
	struct none_match m = {0};
	unsigned tags;

	none_match_add(&m, hash, s, n);
	tags = none_match_tags(&m);
	ALWAYS(tags <= CODING_ALL && !(tags && m.malformed));
	for (unsigned i = 0; i <= CODING_IDENTITY && !m.any; i++) {
		char tag[ETAG_MAX];

		etag_format(hash, i, tag);
		ALWAYS(!(tags & 1u << i) || memmem(s, n, tag, strlen(tag)));
	}
	if (tags)
		ALWAYS(tags & 1u << none_match_pick(tags, CODING_IDENTITY));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *s = xcalloc(size ? size : 1, 1);

	memcpy(s, data, size);
	check_encodings(s, size);
	check_tags(s, size);
	return 0;
}

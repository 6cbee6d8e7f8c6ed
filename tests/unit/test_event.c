/*
 * What provost.publish has sent, as text: whose it is, and what it says.
 */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "../../src/courier/event.h"

#define IPAD 0x36
#define OPAD 0x5C

/* ---- whose --------------------------------------------------------------------------- */

/* A key as the database keeps it. */
static void pad(const unsigned char *key, size_t n, unsigned char with,
                char out[2 * EVENT_KEY_LEN + 1])
{
	for (size_t i = 0; i < EVENT_KEY_LEN; i++)
		snprintf(out + 2 * i, 3, "%02x", (i < n ? key[i] : 0) ^ with);
}

static int read_key(const unsigned char *key, size_t n, unsigned char out[EVENT_KEY_LEN])
{
	char ipad[2 * EVENT_KEY_LEN + 1], opad[2 * EVENT_KEY_LEN + 1];

	pad(key, n, IPAD, ipad);
	pad(key, n, OPAD, opad);
	return event_key(ipad, opad, out);
}

/* RFC 4231, sections 4.3 to 4.5: those whose data are text, or bytes without NUL. */
START_TEST(rfc_4231)
{
	static const struct {
		unsigned char key[32];
		size_t n;
		const char *text, *digest;
	} cases[] = {
	    {"\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b", 20,
	     "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
	    {"Jefe", 4, "what do ya want for nothing?",
	     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
	};
	for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
		unsigned char key[EVENT_KEY_LEN];
		char digest[CHANGE_DIGEST_LEN + 1];
		ck_assert_int_eq(read_key(cases[i].key, cases[i].n, key), 0);
		ck_assert(event_is_genuine(key, cases[i].digest, cases[i].text));
		ck_assert(!event_is_genuine(key, cases[i].digest, "Hi there"));
		/* Each digit counts. */
		for (size_t k = 0; k < CHANGE_DIGEST_LEN; k++) {
			memcpy(digest, cases[i].digest, sizeof digest);
			digest[k] = digest[k] == '0' ? '1' : '0';
			ck_assert(!event_is_genuine(key, digest, cases[i].text));
		}
		key[63] ^= 1;
		ck_assert(!event_is_genuine(key, cases[i].digest, cases[i].text));
	}
}
END_TEST

START_TEST(what_is_no_key)
{
	unsigned char key[EVENT_KEY_LEN];
	char ipad[2 * EVENT_KEY_LEN + 1], opad[2 * EVENT_KEY_LEN + 1];

	pad((const unsigned char *)"k", 1, IPAD, ipad);
	pad((const unsigned char *)"k", 1, OPAD, opad);
	ck_assert_int_eq(event_key(ipad, opad, key), 0);
	ck_assert_int_eq(event_key(ipad, ipad, key), -EINVAL);
	ck_assert_int_eq(event_key(ipad + 2, opad, key), -EINVAL);
	ck_assert_int_eq(event_key(ipad, "", key), -EINVAL);
	ipad[5] = 'G';
	ck_assert_int_eq(event_key(ipad, opad, key), -EINVAL);
}
END_TEST

/* ---- what it says -------------------------------------------------------------------- */

static struct event event;

static void teardown(void)
{
	event_done(&event);
}

START_TEST(with_its_data)
{
	const char *text =
	    "{\"id\":7,\"room\":\"news\",\"name\":\"a.b:c\",\"data\":{\"a\": [1, \"}\"]}}";

	ck_assert_int_eq(event_parse(text, &event), 0);
	ck_assert(event.id == 7 && !event.durable);
	ck_assert_str_eq(event.room, "news");
	ck_assert_str_eq(event.name, "a.b:c");
	ck_assert_uint_eq(event.data_len, strlen("{\"a\": [1, \"}\"]}"));
	ck_assert(!memcmp(event.data, "{\"a\": [1, \"}\"]}", event.data_len));
}
END_TEST

START_TEST(by_reference)
{
	ck_assert_int_eq(event_parse("{\"id\":9007199254740991,\"room\":\"user:\\\"\\\\ \xc3\xa4\","
	                             "\"name\":\"n\",\"ref\":true}",
	                             &event),
	                 0);
	ck_assert(event.id == INT64_C(9007199254740991) && event.durable && !event.data);
	ck_assert_str_eq(event.room, "user:\"\\ \xc3\xa4");
}
END_TEST

START_TEST(every_prefix_is_refused)
{
	static const char *const texts[] = {
	    "{\"id\":7,\"room\":\"n\\\"\",\"name\":\"n\",\"data\":1}",
	    "{\"id\":7,\"room\":\"n\",\"name\":\"n\",\"ref\":true}",
	};
	for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
		for (size_t n = 0; n < strlen(texts[i]); n++) {
			_cleanup_free_ char *part = xstrndup(texts[i], n);
			struct event untouched = {.id = 42};
			ck_assert_msg(event_parse(part, &untouched) == -EINVAL, "accepted: %s",
			              part);
			ck_assert(untouched.id == 42 && !untouched.room);
		}
		ck_assert_int_eq(event_parse(texts[i], &event), 0);
		event_done(&event);
	}
}
END_TEST

START_TEST(what_publish_does_not_write_is_refused)
{
	static const char *const texts[] = {
	    "",
	    "{}",
	    "{\"id\":0,\"room\":\"n\",\"name\":\"n\",\"data\":1}",
	    "{\"id\":-1,\"room\":\"n\",\"name\":\"n\",\"data\":1}",
	    "{\"id\":99999999999999999999,\"room\":\"n\",\"name\":\"n\",\"data\":1}",
	    "{\"id\":1.5,\"room\":\"n\",\"name\":\"n\",\"data\":1}",
	    "{\"id\":1,\"room\":1,\"name\":\"n\",\"data\":1}",
	    "{\"id\":1,\"room\":\"a\\u0000b\",\"name\":\"n\",\"data\":1}",
	    "{\"id\":1,\"name\":\"n\",\"room\":\"n\",\"data\":1}",
	    "{\"id\":1, \"room\":\"n\",\"name\":\"n\",\"data\":1}",
	    "{\"id\":1,\"room\":\"n\",\"name\":\"n\",\"data\":}",
	    "{\"id\":1,\"room\":\"n\",\"name\":\"n\",\"ref\":false}",
	    "{\"id\":1,\"room\":\"n\",\"name\":\"n\"}",
	};
	for (size_t i = 0; i < ELEMENTSOF(texts); i++)
		ck_assert_msg(event_parse(texts[i], &event) == -EINVAL, "accepted: %s", texts[i]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("event");
	TCase *t = tcase_create("event");

	tcase_add_checked_fixture(t, NULL, teardown);
	tcase_add_test(t, rfc_4231);
	tcase_add_test(t, what_is_no_key);
	tcase_add_test(t, with_its_data);
	tcase_add_test(t, by_reference);
	tcase_add_test(t, every_prefix_is_refused);
	tcase_add_test(t, what_publish_does_not_write_is_refused);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed > 0;
}

/*
 * Entity-tags: made, and read again.
 */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "provost/etag.h"

static const unsigned char BYTES[ETAG_BYTES] = {0x00, 0x12, 0x9a, 0xff, 0xa0, 5,  6,  7,
                                                8,    9,    10,   11,   12,   13, 14, 0xf0};
#define HEX "00129affa005060708090a0b0c0d0ef0"

START_TEST(made)
{
	char digits[ETAG_DIGITS], text[ETAG_MAX];
	etag_hex(BYTES, digits);
	ck_assert(!memcmp(digits, HEX, ETAG_DIGITS));
	etag_text(digits, "", text);
	ck_assert_str_eq(text, "\"" HEX "\"");
	etag_text(digits, "-gzip", text);
	ck_assert_str_eq(text, "\"" HEX "-gzip\"");
}
END_TEST

START_TEST(read_again)
{
	static const char *const good[] = {"\"" HEX "\"", "W/\"" HEX "\"", "\"" HEX "-gzip\"",
	                                   "W/\"" HEX "-br\""};
	for (size_t i = 0; i < ELEMENTSOF(good); i++) {
		unsigned char bytes[ETAG_BYTES] = {0};
		ck_assert_int_eq(etag_parse(good[i], strlen(good[i]), bytes), 0);
		ck_assert(!memcmp(bytes, BYTES, sizeof bytes));
		/* No prefix of it is one. */
		for (size_t n = 0; n < strlen(good[i]); n++) {
			char *cut = xstrndup(good[i], n);
			ck_assert_int_eq(etag_parse(cut, n, bytes), -EINVAL);
			free(cut);
		}
	}
}
END_TEST

START_TEST(not_ours)
{
	static const char *const bad[] = {
	    "",
	    "\"\"",
	    "*",
	    HEX,
	    "\"" HEX,
	    "w/\"" HEX "\"",
	    "W/ \"" HEX "\"",
	    "\"x0129affa005060708090a0b0c0d0ef0\"",
	    "\"0012"
	    "9AFFA005060708090A0B0C0D0EF0\"",
	    "\"" HEX "0\"",
	    "\"" HEX "gzip\"",
	    " \"" HEX "\"",
	};
	for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
		unsigned char bytes[ETAG_BYTES];
		ck_assert_msg(etag_parse(bad[i], strlen(bad[i]), bytes) == -EINVAL, "%s", bad[i]);
	}
	/* A NUL is no digit. */
	char text[] = "\"" HEX "\"";
	unsigned char bytes[ETAG_BYTES];
	text[5] = '\0';
	ck_assert_int_eq(etag_parse(text, sizeof text - 1, bytes), -EINVAL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("etag");
	TCase *t = tcase_create("etag");
	suite_add_tcase(s, t);
	tcase_add_test(t, made);
	tcase_add_test(t, read_again);
	tcase_add_test(t, not_ours);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

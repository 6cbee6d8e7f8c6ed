#include <brotli/decode.h>
#include <check.h>
#include <errno.h>
#include <string.h>
#include <zlib.h>

#include "../../src/engine/encode.h"
#include "provost/buf.h"

/* Decodes to `len` bytes, or fails the test. */
static void decode_gzip(const void *in, size_t n, void *out, size_t len)
{
	z_stream z = {.next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)n};

	ck_assert_int_eq(inflateInit2(&z, 15 + 16), Z_OK);
	z.next_out = out;
	z.avail_out = (uInt)len;
	ck_assert_int_eq(inflate(&z, Z_FINISH), Z_STREAM_END);
	ck_assert_uint_eq(z.total_out, len);
	ck_assert_uint_eq(z.avail_in, 0);
	inflateEnd(&z);
}

static void decode_br(const void *in, size_t n, void *out, size_t len)
{
	size_t got = len;

	ck_assert_int_eq(BrotliDecoderDecompress(n, in, &got, out), BROTLI_DECODER_RESULT_SUCCESS);
	ck_assert_uint_eq(got, len);
}

static void round_trip(enum entry_coding coding, const void *body, size_t len)
{
	_cleanup_free_ void *out = NULL, *back = xcalloc(len + 1, 1);
	size_t n = 0;

	ck_assert_int_eq(encode_body(coding, body, len, &out, &n), 0);
	ck_assert_uint_le(n * 100, len * (100 - ENCODE_SAVING_MIN));
	if (coding == CODING_GZIP)
		decode_gzip(out, n, back, len);
	else
		decode_br(out, n, back, len);
	ck_assert(memcmp(back, body, len) == 0);
}

static void add_rows(struct buf *b, size_t len)
{
	buf_adds(b, "[");
	for (unsigned i = 0; b->len < len; i++)
		buf_addf(b, "{\"id\":%u,\"title\":\"Course number %u\",\"price\":%u.50},", i,
		         i * 7919, i % 100);
	b->len = len;
}

/* A generator of its own, so that a failure can be repeated. */
static void add_noise(struct buf *b, size_t len)
{
	uint64_t x = 88172645463325252u;

	while (b->len < len) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		buf_addc(b, (char)(x >> 32));
	}
}

static const size_t sizes[] = {
    ENCODE_MIN, ENCODE_MIN + 1, 20000, 65519, 65520, 65521, 65536, 300000, 8 << 20,
};

START_TEST(round_trips)
{
	_cleanup_buf_ struct buf body = {0};

	add_rows(&body, sizes[_i]);
	for (int c = 0; c < CODING_COUNT; c++)
		round_trip((enum entry_coding)c, body.data, body.len);
}
END_TEST

START_TEST(all_bytes)
{
	_cleanup_buf_ struct buf body = {0};

	for (int i = 0; i < 4096; i++)
		buf_addc(&body, (char)i);
	for (int c = 0; c < CODING_COUNT; c++)
		round_trip((enum entry_coding)c, body.data, body.len);
}
END_TEST

START_TEST(incompressible)
{
	_cleanup_buf_ struct buf body = {0};
	void *out = &body;
	size_t n = 77;

	add_noise(&body, sizes[_i]);
	for (int c = 0; c < CODING_COUNT; c++)
		ck_assert_int_eq(encode_body((enum entry_coding)c, body.data, body.len, &out, &n),
		                 -ENODATA);
	ck_assert_ptr_eq(out, &body);
	ck_assert_uint_eq(n, 77);
}
END_TEST

/* Never larger, whatever little there is; and at no length is more written than there is room. */
START_TEST(tiny)
{
	static const char zeros[200];
	_cleanup_buf_ struct buf noise = {0};

	add_noise(&noise, sizeof(zeros));
	for (size_t len = 0; len <= sizeof(zeros); len++) {
		for (int c = 0; c < CODING_COUNT; c++) {
			void *out = NULL;
			size_t n;
			int r = encode_body((enum entry_coding)c, zeros, len, &out, &n);

			ck_assert(r == -ENODATA || (r == 0 && n * 100 <= len * 95));
			free(out);
			r = encode_body((enum entry_coding)c, noise.data, len, &out, &n);
			ck_assert_int_eq(r, -ENODATA);
		}
	}
}
END_TEST

/* Half noise, half zeros in any proportion: around the saving that is asked for. */
START_TEST(just_worth_it)
{
	_cleanup_buf_ struct buf body = {0};
	char zeros[400] = {0};
	bool refused = false, made = false;

	for (size_t n = 0; n <= sizeof(zeros); n++) {
		body.len = 0;
		add_noise(&body, 4000 - n);
		buf_add(&body, zeros, n);
		for (int c = 0; c < CODING_COUNT; c++) {
			void *out = NULL;
			size_t len;
			int r = encode_body((enum entry_coding)c, body.data, body.len, &out, &len);

			refused |= r == -ENODATA;
			made |= r == 0;
			ck_assert(r == -ENODATA || (r == 0 && len <= 3800));
			free(out);
		}
	}
	ck_assert(refused && made);
}
END_TEST

/* One body has one encoding, so one tag; and no clock or machine stands in it. */
START_TEST(deterministic)
{
	_cleanup_free_ void *a = NULL, *b = NULL;
	_cleanup_buf_ struct buf body = {0};
	size_t n, m;

	add_rows(&body, 20000);
	ck_assert_int_eq(encode_body((enum entry_coding)_i, body.data, body.len, &a, &n), 0);
	ck_assert_int_eq(encode_body((enum entry_coding)_i, body.data, body.len, &b, &m), 0);
	ck_assert_uint_eq(n, m);
	ck_assert_mem_eq(a, b, n);
	if (_i == CODING_GZIP)
		ck_assert_mem_eq(a, "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", 10);
}
END_TEST

/* The length alone decides; nothing is read. */
START_TEST(too_big)
{
	void *out;
	size_t n;

	ck_assert_int_eq(encode_body((enum entry_coding)_i, "", (size_t)ENCODE_MAX + 1, &out, &n),
	                 -EFBIG);
	ck_assert_int_eq(encode_body((enum entry_coding)_i, "", SIZE_MAX, &out, &n), -EFBIG);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("encode");
	TCase *t = tcase_create("encode");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, round_trips, 0, ELEMENTSOF(sizes));
	tcase_add_test(t, all_bytes);
	tcase_add_loop_test(t, incompressible, 0, ELEMENTSOF(sizes));
	tcase_add_test(t, tiny);
	tcase_add_test(t, just_worth_it);
	tcase_add_loop_test(t, deterministic, 0, CODING_COUNT);
	tcase_add_loop_test(t, too_big, 0, CODING_COUNT);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

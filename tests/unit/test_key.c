#include <check.h>
#include <errno.h>
#include <string.h>

#include "provost/key.h"

static const char FILTERS[] = "-- @route GET /a/:id\n"
                              "-- @path id uuid\n"
                              "-- @query q text trim\n"
                              "-- @query sort text lower default=title\n"
                              "-- @query page integer default=1\n"
                              "-- @query tag text[]\n"
                              "-- @query after timestamp\n"
                              "SELECT :id, :q, :sort, :page, :tag, :after";
#define ID "123e4567-e89b-12d3-a456-426614174000"

static const struct key_caller nobody;

static struct endpoint *parse(const char *name, const char *text)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct endpoint *e = endpoint_parse(name, "t.sql", text, strlen(text), errs);

	ck_assert_msg(e != NULL, "%s", e ? "" : errors_text(errs, 0));
	key_seal(e);
	return e;
}

static void key_of(const struct endpoint *e, const char *id, const char *query, struct buf *out)
{
	struct slice path = {id, strlen(id)};
	struct values v = {0};

	ck_assert_int_eq(values_read(&v, e, &path, 1, (struct slice){query, strlen(query)}), 0);
	ck_assert_int_eq(key_build(e, &v, &nobody, out), 0);
	values_done(&v);
}

static bool equal(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

/* Two targets of one endpoint, and whether they ask for the same. */
static const struct {
	const char *id, *query, *other_id, *other;
	bool same;
} requests[] = {
    {ID, "q=a&sort=title", ID, "sort=title&q=a", true},
    {ID, "", ID, "sort=title&page=1", true},
    {ID, "", ID, "sort=&page=", true},
    {ID, "sort=TITLE", ID, "", true},
    {ID, "sort=Price", ID, "sort=price", true},
    {ID, "page=007", ID, "page=%2B7", true},
    {ID, "page=7", ID, "%70age=7", true},
    {ID, "q=a+b", ID, "q=a%20b", true},
    {ID, "q=a+b", ID, "q=%61%20%62", true},
    {ID, "q=%2f", ID, "q=/", true},
    {ID, "q=%c3%a9", ID, "q=\xc3\xa9", true},
    {ID, "q=+a+", ID, "q=a", true},
    {ID, "q=+", ID, "", true},
    {ID, "q=a", ID, "q=a&utm_source=x&qq=1&%=%", true},
    {ID, "q=a", ID, "&&q=a&", true},
    {ID, "tag=a&page=2&tag=b", ID, "tag=a&tag=b&page=2", true},
    {ID, "tag=a&tag=", ID, "tag=a", true},
    {ID, "after=2024-01-01", ID, "after=2024-01-01T01:00:00%2B01:00", true},
    {"123E4567-E89B-12D3-A456-426614174000", "", ID, "", true},
    {"%31"
     "23e4567-e89b-12d3-a456-426614174000",
     "", ID, "", true},

    {ID, "", "123e4567-e89b-12d3-a456-426614174001", "", false},
    {ID, "q=a", ID, "q=b", false},
    {ID, "q=a", ID, "q=A", false},
    {ID, "q=a", ID, "", false},
    {ID, "q=a%2Bb", ID, "q=a+b", false},
    {ID, "q=%01", ID, "", false},
    {ID, "q=%01", ID, "q=%01%01", false},
    {ID, "q=title", ID, "sort=title", false},
    {ID, "q=a&sort=b", ID, "q=a%01b&sort=", false},
    {ID, "q=ab&sort=c", ID, "q=a&sort=bc", false},
    {ID, "page=1", ID, "page=11", false},
    {ID, "tag=a&tag=b", ID, "tag=b&tag=a", false},
    {ID, "tag=a&tag=b", ID, "tag=a%22,%22b", false},
    {ID, "tag=a,b", ID, "tag=a&tag=b", false},
    {ID, "tag=a", ID, "tag=a&tag=a", false},
    {ID, "tag=NULL", ID, "", false},
};

START_TEST(equal_requests)
{
	_cleanup_endpoint_ struct endpoint *e = parse("t", FILTERS);
	_cleanup_buf_ struct buf a = {0}, b = {0};

	key_of(e, requests[_i].id, requests[_i].query, &a);
	key_of(e, requests[_i].other_id, requests[_i].other, &b);
	ck_assert_msg(equal(&a, &b) == requests[_i].same, "?%s ?%s", requests[_i].query,
	              requests[_i].other);
}
END_TEST

enum { TUPLE = 3 };

static const char *const texts[] = {NULL,
                                    "",
                                    "\x01",
                                    "\x01\x01",
                                    "a",
                                    "a\x01",
                                    "\x01"
                                    "a"};

enum { TUPLES = ELEMENTSOF(texts) * ELEMENTSOF(texts) * ELEMENTSOF(texts) };

static const char *tuple_text(size_t tuple, size_t i)
{
	for (; i > 0; i--)
		tuple /= ELEMENTSOF(texts);
	return texts[tuple % ELEMENTSOF(texts)];
}

/* Values as no query string can give them all to one endpoint. */
static void tuple_values(size_t tuple, struct values *v, ptrdiff_t offset[TUPLE])
{
	v->offset = offset;
	v->count = TUPLE;
	for (size_t i = 0; i < TUPLE; i++) {
		const char *text = tuple_text(tuple, i);

		offset[i] = text ? (ptrdiff_t)v->arena.len : -1;
		if (text)
			buf_add(&v->arena, text, strlen(text) + 1);
	}
}

static void tuple_key(const struct endpoint *e, size_t tuple, struct buf *out)
{
	ptrdiff_t offset[TUPLE];
	struct values v = {0};

	tuple_values(tuple, &v, offset);
	ck_assert_int_eq(key_build(e, &v, &nobody, out), 0);
	buf_done(&v.arena);
}

static struct endpoint *parse_tuple(const char *name)
{
	return parse(name, "-- @route GET /t\n-- @query a text\n-- @query b text\n"
	                   "-- @query c text\nSELECT :a, :b, :c");
}

START_TEST(different_values_have_different_keys)
{
	_cleanup_endpoint_ struct endpoint *e = parse_tuple("t");
	static struct buf key[TUPLES];
	size_t clashes = 0;

	for (size_t i = 0; i < TUPLES; i++) {
		tuple_key(e, i, &key[i]);
		for (size_t j = 0; j < i; j++)
			clashes += equal(&key[i], &key[j]);
	}
	for (size_t i = 0; i < TUPLES; i++)
		buf_done(&key[i]);
	ck_assert_uint_eq(clashes, 0);
}
END_TEST

START_TEST(values_come_back)
{
	_cleanup_endpoint_ struct endpoint *e = parse_tuple("courses/list");

	for (size_t i = 0; i < TUPLES; i++) {
		_cleanup_buf_ struct buf key = {0};
		const char *value[TUPLE];

		tuple_key(e, i, &key);
		ck_assert_str_eq(key_endpoint(key.data), "courses/list");
		key_values(e, key.data, key.len, value, NULL, NULL);
		for (size_t j = 0; j < TUPLE; j++)
			ck_assert_pstr_eq(value[j], tuple_text(i, j));
	}
}
END_TEST

START_TEST(arrays_come_back)
{
	_cleanup_endpoint_ struct endpoint *e = parse("t", FILTERS);
	_cleanup_buf_ struct buf key = {0};
	const char *value[6];

	key_of(e, ID, "tag=a%22,b&tag=%01&page=3", &key);
	ck_assert_uint_eq(e->params, ELEMENTSOF(value));
	key_values(e, key.data, key.len, value, NULL, NULL);
	ck_assert_str_eq(value[0], ID);
	ck_assert_ptr_null(value[1]);
	ck_assert_str_eq(value[2], "title");
	ck_assert_str_eq(value[3], "3");
	ck_assert_str_eq(value[4], "{\"a\\\",b\",\"\x01\"}");
	ck_assert_ptr_null(value[5]);
}
END_TEST

START_TEST(no_parameters)
{
	_cleanup_endpoint_ struct endpoint *e = parse("t", "-- @route GET /t\nSELECT 1");
	_cleanup_buf_ struct buf key = {0};
	struct values v = {0};

	ck_assert_int_eq(key_build(e, &v, &nobody, &key), 0);
	ck_assert_uint_eq(key.len, e->key_prefix_len);
	key_values(e, key.data, key.len, NULL, NULL, NULL);
}
END_TEST

/* The same file under two names, of which one begins with the other. */
START_TEST(names_have_an_end)
{
	_cleanup_endpoint_ struct endpoint *a = parse_tuple("t"), *b = parse_tuple("t1");
	_cleanup_buf_ struct buf x = {0}, y = {0};

	ck_assert_uint_eq(a->fingerprint, b->fingerprint);
	tuple_key(a, 0, &x);
	tuple_key(b, 0, &y);
	ck_assert(memcmp(x.data, y.data, MIN(x.len, y.len)) != 0);
	ck_assert_str_eq(key_endpoint(y.data), "t1");
}
END_TEST

/* One name before and after the file has changed. */
START_TEST(files_have_fingerprints)
{
	_cleanup_endpoint_ struct endpoint *a = parse("t", "-- @route GET /t\nSELECT 1"),
	                                   *b = parse("t", "-- @route GET /t\nSELECT 2"),
	                                   *c = parse("t", "-- @route GET /t\nSELECT 1");

	ck_assert_uint_ne(a->fingerprint, b->fingerprint);
	ck_assert_mem_ne(a->key_prefix, b->key_prefix, a->key_prefix_len);
	ck_assert_mem_eq(a->key_prefix, c->key_prefix, a->key_prefix_len);
	c->fingerprint++;
	key_seal(c);
	ck_assert_mem_ne(a->key_prefix, c->key_prefix, a->key_prefix_len);
}
END_TEST

START_TEST(full_buffer)
{
	_cleanup_endpoint_ struct endpoint *e = parse_tuple("t");
	_cleanup_buf_ struct buf whole = {0};
	ptrdiff_t offset[TUPLE];
	struct values v = {0};

	tuple_values(TUPLES - 1, &v, offset);
	ck_assert_int_eq(key_build(e, &v, &nobody, &whole), 0);
	for (size_t max = 4; max < whole.len + 3; max++) {
		_cleanup_buf_ struct buf out = {.max = max};

		buf_adds(&out, "abc");
		ck_assert_int_eq(key_build(e, &v, &nobody, &out), -ENOMEM);
		ck_assert_uint_eq(out.len, 3);
	}
	whole.max = 2 * whole.len;
	ck_assert_int_eq(key_build(e, &v, &nobody, &whole), 0);
	ck_assert_uint_eq(whole.len, whole.max);
	ck_assert_mem_eq(whole.data, whole.data + whole.len / 2, whole.len / 2);
	buf_done(&v.arena);
}
END_TEST

/* What an endpoint varies by joins its keys, and nothing else of who is calling does. */
static const struct {
	const char *text;
	struct key_caller a, b;
	bool same;
} callers[] = {
    {"-- @route GET /a\nSELECT 1", {"s", "r", "c"}, {"S", "R", "C"}, true},
    {"-- @route GET /a\nSELECT :auth_sub", {"s", "r", "c"}, {"s", "R", "C"}, true},
    {"-- @route GET /a\nSELECT :auth_sub", {"s", "r", "c"}, {"S", "r", "c"}, false},
    {"-- @route GET /a\nSELECT :auth_sub", {"s", "r", "c"}, {NULL, NULL, NULL}, false},
    {"-- @route GET /a\nSELECT :auth_sub", {"", "r", "c"}, {NULL, NULL, NULL}, false},
    {"-- @route GET /a\nSELECT :auth_role", {"s", "r", "c"}, {"S", "r", "C"}, true},
    {"-- @route GET /a\nSELECT :auth_role", {"s", "r", "c"}, {"s", "R", "c"}, false},
    {"-- @route GET /a\nSELECT :auth_claims", {"s", "r", "c"}, {"s", "r", "C"}, false},
    {"-- @route GET /a\n-- @cache vary=sub\nSELECT 1", {"s", "r", "c"}, {"S", "r", "c"}, false},
    {"-- @route GET /a\n-- @cache vary=role,sub\nSELECT 1",
     {"s", "r", "c"},
     {"s", "R", "c"},
     false},
    {"-- @route GET /a\nSELECT :auth_sub, :auth_role", {"ab", "c", ""}, {"a", "bc", ""}, false},
};

START_TEST(callers_are_kept_apart)
{
	_cleanup_endpoint_ struct endpoint *e = parse("t", callers[_i].text);
	_cleanup_buf_ struct buf a = {0}, b = {0};
	struct values v = {0};
	struct key_caller back;

	ck_assert_int_eq(key_build(e, &v, &callers[_i].a, &a), 0);
	ck_assert_int_eq(key_build(e, &v, &callers[_i].b, &b), 0);
	ck_assert_int_eq(equal(&a, &b), callers[_i].same);
	key_values(e, a.data, a.len, NULL, NULL, &back);
	if (e->cache.vary_sub)
		ck_assert_str_eq(back.subject, callers[_i].a.subject);
	else
		ck_assert_ptr_null(back.subject);
	if (e->cache.vary_role)
		ck_assert_str_eq(back.roles, callers[_i].a.roles);
	else
		ck_assert_ptr_null(back.roles);
	if (e->cache.vary_claims)
		ck_assert_str_eq(back.claims, callers[_i].a.claims);
	else
		ck_assert_ptr_null(back.claims);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("key");
	TCase *t = tcase_create("key");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, equal_requests, 0, ELEMENTSOF(requests));
	tcase_add_test(t, different_values_have_different_keys);
	tcase_add_test(t, values_come_back);
	tcase_add_test(t, arrays_come_back);
	tcase_add_test(t, no_parameters);
	tcase_add_test(t, names_have_an_end);
	tcase_add_test(t, files_have_fingerprints);
	tcase_add_test(t, full_buffer);
	tcase_add_loop_test(t, callers_are_kept_apart, 0, ELEMENTSOF(callers));
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

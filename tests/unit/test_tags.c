#include <check.h>
#include <string.h>

#include "provost/buf.h"
#include "provost/tags.h"

static struct generations *g;

static void setup(void)
{
	g = generations_new();
}

static void teardown(void)
{
	generations_free(&g);
}

/* ---- helpers ------------------------------------------------------------------------- */

static char COURSE[] = "course", ID[] = "id", KIND[] = "kind", USER[] = "user", NAME[] = "x/get";

static struct param PARAMS[] = {{.type = TYPE_TEXT}, {.type = TYPE_TEXT, .array = true}};

static struct endpoint endpoint(struct dependency *d, size_t n)
{
	return (struct endpoint){
	    .name = NAME, .param = PARAMS, .params = 2, .dependency = d, .dependencies = n};
}

/* Dependencies on rows, told apart by the one parameter or the array. */
static struct dependency ONE[] = {{.table = COURSE, .column = ID, .param = 0}};
static struct dependency MANY[] = {{.table = COURSE, .column = ID, .param = 1}};

static gen_slot tag(const char *text)
{
	return generations_slot(g, text, strlen(text));
}

static gen_slot own(void)
{
	return tag("\1x/get");
}

/* That an answer for these two values carries the endpoint's own tag and exactly these. */
static void check_tags(const struct endpoint *e, const char *scalar, const char *array,
                       const char *const *expected, size_t n)
{
	const char *const values[] = {scalar, array};
	gen_slot slot[TAGS_MIN];
	ck_assert_uint_eq(tags_of(g, e, values, slot, TAGS_MIN), n + 1);
	ck_assert_uint_eq(slot[0], own());
	for (size_t i = 0; i < n; i++)
		ck_assert_msg(slot[i + 1] == tag(expected[i]), "tag %zu is not %s", i, expected[i]);
}

#define CHECK_TAGS(e, scalar, array, ...)                                                          \
	do {                                                                                       \
		const char *const expected_[] = {__VA_ARGS__};                                     \
		check_tags((e), (scalar), (array), expected_, ELEMENTSOF(expected_));              \
	} while (0)

/* ---- what an answer carries ---------------------------------------------------------- */

START_TEST(nothing_but_its_own)
{
	struct endpoint e = endpoint(NULL, 0);
	check_tags(&e, NULL, NULL, NULL, 0);
}
END_TEST

START_TEST(whole_tables_and_names)
{
	struct dependency d[] = {{.table = COURSE}, {.table = USER}};
	struct endpoint e = endpoint(d, 2);
	strlist_add(&e.cache.tags, "stats", 5);
	CHECK_TAGS(&e, NULL, NULL, "stats", "course", "user");
	strlist_done(&e.cache.tags);
}
END_TEST

START_TEST(rows)
{
	struct endpoint e = endpoint(ONE, 1);
	CHECK_TAGS(&e, "42", NULL, "course:*", "course:id=42");
	CHECK_TAGS(&e, "", NULL, "course:*", "course:id=");
	CHECK_TAGS(&e, "{a,b}", NULL, "course:*", "course:id={a,b}");
}
END_TEST

START_TEST(rows_of_null_are_the_table)
{
	struct endpoint e = endpoint(ONE, 1);
	CHECK_TAGS(&e, NULL, NULL, "course");
}
END_TEST

START_TEST(several_narrowings_of_one_table)
{
	struct dependency d[] = {{.table = COURSE, .column = ID, .param = 0},
	                         {.table = COURSE, .column = KIND, .param = 1},
	                         {.table = USER}};
	struct endpoint e = endpoint(d, 3);
	CHECK_TAGS(&e, "1", "{a}", "course:*", "course:id=1", "course:kind=a", "user");
	CHECK_TAGS(&e, "1", NULL, "course", "user");
	CHECK_TAGS(&e, NULL, "{a}", "course", "user");
}
END_TEST

START_TEST(elements)
{
	struct endpoint e = endpoint(MANY, 1);
	CHECK_TAGS(&e, NULL, "{1,2}", "course:*", "course:id=1", "course:id=2");
	CHECK_TAGS(&e, NULL, "{\"b c\",NULL,a,null}", "course:*", "course:id=b c", "course:id=a");
	CHECK_TAGS(&e, NULL, "{\"NULL\",NULLS}", "course:*", "course:id=NULL", "course:id=NULLS");
	CHECK_TAGS(&e, NULL, "{\"a\\\"b\",\"\\\\\",\"\",\"},{\"}", "course:*", "course:id=a\"b",
	           "course:id=\\", "course:id=", "course:id=},{");
	CHECK_TAGS(&e, NULL, "{a\\,b}", "course:*", "course:id=a,b");
}
END_TEST

START_TEST(arrays_without_elements_are_the_table)
{
	static const char *const none[] = {"{}",    "{NULL}", "",          "{",       "{a",
	                                   "{\"a",  "{a,",    "{\"a\\",    "{a}x",    "a",
	                                   "{{a}}", "{a\\",   "[2:2]={a}", "{\"a\"b}"};
	struct endpoint e = endpoint(MANY, 1);
	for (size_t i = 0; i < ELEMENTSOF(none); i++)
		CHECK_TAGS(&e, NULL, none[i], "course");
}
END_TEST

/* An array of `n` elements. */
static char *array_of(size_t n)
{
	struct buf b = {0};
	size_t len;
	for (size_t i = 0; i < n; i++)
		buf_addf(&b, "%c%zu", i ? ',' : '{', i);
	buf_addc(&b, '}');
	return buf_take(&b, &len);
}

START_TEST(too_many_elements_are_the_table)
{
	struct dependency d[] = {{.table = COURSE, .column = ID, .param = 1}, {.table = USER}};
	struct endpoint e = endpoint(d, 2);
	const size_t room = TAGS_MIN - 3; /* its own, course:*, user */
	for (size_t n = room - 1; n < room + 2; n++) {
		_cleanup_free_ char *array = array_of(n);
		const char *const values[] = {NULL, array};
		gen_slot slot[TAGS_MIN];
		size_t tags = tags_of(g, &e, values, slot, TAGS_MIN);
		ck_assert_uint_eq(tags, n <= room ? n + 3 : 3);
		ck_assert_uint_eq(slot[1], tag(n <= room ? "course:*" : "course"));
		ck_assert_uint_eq(slot[tags - 1], tag("user"));
	}
}
END_TEST

START_TEST(as_many_tables_as_there_may_be)
{
	struct dependency d[TAGS_MIN - 1];
	char name[TAGS_MIN][8];
	struct endpoint e = endpoint(d, TAGS_MIN - 1);
	const char *const values[] = {"1", "{1,2}"};
	gen_slot slot[TAGS_MIN];
	for (size_t i = 0; i < e.dependencies; i++) {
		snprintf(name[i], sizeof name[i], "t%03zu", i);
		d[i] = (struct dependency){.table = name[i], .column = ID, .param = i % 2};
	}
	ck_assert_uint_eq(tags_of(g, &e, values, slot, TAGS_MIN), TAGS_MIN);
	for (size_t i = 0; i < e.dependencies; i++)
		ck_assert_uint_eq(slot[i + 1], tag(name[i]));
}
END_TEST

/* ---- raising ------------------------------------------------------------------------- */

/* Whether an answer for this value, begun now, is fresh after the tag, or the endpoint of that
 * name, was raised. Two tags may share a slot by chance: three keys, and they do not. */
static bool survives(struct dependency *d, const char *value, const char *raised, bool by_endpoint)
{
	struct endpoint e = endpoint(d, d ? 1 : 0);
	for (int i = 0; i < 3; i++) {
		const char *const values[] = {value, NULL};
		struct generations *mine = generations_new();
		gen_slot slot[TAGS_MIN];
		size_t n = tags_of(mine, &e, values, slot, TAGS_MIN);
		uint64_t start = generations_now(mine);
		if (by_endpoint)
			tags_raise_endpoint(mine, raised);
		else
			tags_raise(mine, raised, strlen(raised));
		bool fresh = generations_fresh(mine, slot, n, start, 0);
		generations_free(&mine);
		if (fresh)
			return true;
	}
	return false;
}

START_TEST(a_table_reaches_all_that_is_made_from_it)
{
	struct dependency whole[] = {{.table = COURSE}};
	ck_assert(!survives(whole, NULL, "course", false));
	ck_assert(!survives(ONE, "42", "course", false));
	ck_assert(!survives(ONE, NULL, "course", false));
	ck_assert(survives(whole, NULL, "user", false));
}
END_TEST

START_TEST(rows_reach_only_what_is_made_from_them)
{
	ck_assert(!survives(ONE, "42", "course:id=42", false));
	ck_assert(survives(ONE, "42", "course:id=43", false));
	ck_assert(survives(ONE, NULL, "course:id=42", false));
	ck_assert(!survives(ONE, "42", "course:*", false));
}
END_TEST

START_TEST(endpoints_have_a_space_of_their_own)
{
	ck_assert(!survives(NULL, NULL, "x/get", true));
	ck_assert(survives(NULL, NULL, "x/get", false));
	ck_assert(survives(NULL, NULL, "x/list", true));
	struct dependency d[] = {{.table = NAME}};
	ck_assert(survives(d, NULL, "x/list", true));
}
END_TEST

/* Around the length of a block, and where only the last byte or the first block differs. */
START_TEST(no_length_is_cut)
{
	char value[1100], text[1200];
	for (size_t n = 1; n<sizeof value; n += n> 200 && n < 600 ? 1 : 97) {
		memset(value, 'v', n);
		value[n] = '\0';
		snprintf(text, sizeof text, "course:id=%s", value);
		ck_assert(!survives(ONE, value, text, false));
		text[strlen(text) - 1] = 'w';
		ck_assert(survives(ONE, value, text, false));
		text[strlen(text) - 1] = '\0';
		ck_assert(survives(ONE, value, text, false));
		snprintf(text, sizeof text, "course:id=w%s", value + 1);
		ck_assert(survives(ONE, value, text, false));
	}
}
END_TEST

static Suite *suite(void)
{
	const TTest *const tests[] = {
	    nothing_but_its_own,
	    whole_tables_and_names,
	    rows,
	    rows_of_null_are_the_table,
	    several_narrowings_of_one_table,
	    elements,
	    arrays_without_elements_are_the_table,
	    too_many_elements_are_the_table,
	    as_many_tables_as_there_may_be,
	    a_table_reaches_all_that_is_made_from_it,
	    rows_reach_only_what_is_made_from_them,
	    endpoints_have_a_space_of_their_own,
	    no_length_is_cut,
	};
	Suite *s = suite_create("tags");
	TCase *c = tcase_create("tags");
	tcase_add_checked_fixture(c, setup, teardown);
	for (size_t i = 0; i < ELEMENTSOF(tests); i++)
		tcase_add_test(c, tests[i]);
	suite_add_tcase(s, c);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(suite());
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

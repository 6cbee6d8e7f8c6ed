#include <check.h>
#include <errno.h>
#include <string.h>

#include "provost/key.h"
#include "provost/values.h"

static struct endpoint *parse(const char *text)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct endpoint *e = endpoint_parse("t", "t.sql", text, strlen(text), errs);

	ck_assert_msg(e != NULL, "%s\n%s", text, e ? "" : errors_text(errs, 0));
	key_seal(e);
	return e;
}

/* An endpoint with one member, p, whose statement also asks for :body. */
static struct endpoint *endpoint_with(const char *rule)
{
	_cleanup_free_ char *text =
	    xasprintf("-- @route POST /t\n-- @body p %s\nSELECT :p, :body", rule);

	return parse(text);
}

static int read_body(struct values *v, const struct endpoint *e, const char *body, size_t n)
{
	ck_assert_int_eq(values_read(v, e, NULL, 0, (struct slice){"", 0}), 0);
	return values_read_body(v, e, (struct slice){body, n});
}

/* ---- what one member comes to -------------------------------------------------------- */

/* `in` is the member's value; `out` what is bound, `body` what stands in :body, or else `reason`
 * is part of what is wrong. */
static const struct {
	const char *rule, *in, *out, *body, *reason;
} one[] = {
    {"text", "\"abc\"", "abc", "\"abc\"", NULL},
    {"text", "\"\"", "", "\"\"", NULL},
    {"text", "\" a \"", " a ", "\" a \"", NULL},
    {"text", "null", NULL, "null", NULL},
    {"text", "1", NULL, NULL, "must be a string, not a number"},
    {"text", "true", NULL, NULL, "must be a string, not true or false"},
    {"text", "[]", NULL, NULL, "must be a string, not an array"},
    {"text", "{}", NULL, NULL, "must be a string, not an object"},
    {"text", "\"a\\u0000b\"", NULL, NULL, "must not contain \\u0000"},
    {"text", "\"\\ud800\"", NULL, NULL, "half a surrogate pair"},
    {"text", "\"\\ud800\\u0041\"", NULL, NULL, "half a surrogate pair"},
    {"text", "\"\\udc00\\ud800\"", NULL, NULL, "half a surrogate pair"},
    {"text", "\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80", "\"\xf0\x9f\x98\x80\"", NULL},
    {"text", "\"\\u0041\\n\\t\\\"\\\\\\/\\b\\f\\r\"", "A\n\t\"\\/\b\f\r",
     "\"A\\n\\t\\\"\\\\/\\b\\f\\r\"", NULL},
    {"text", "\"\\u001f\\u0001\"", "\x1f\x01", "\"\\u001f\\u0001\"", NULL},
    {"text trim upper", "\" a\\u00e9 \"", "A\xc3\x89", "\"A\xc3\x89\"", NULL},
    {"text trim min=1", "\"  \"", NULL, NULL, "at least 1 characters"},
    {"text max=2", "\"\xc3\xa9\xc3\xa9\"", "\xc3\xa9\xc3\xa9", "\"\xc3\xa9\xc3\xa9\"", NULL},
    {"text max=2", "\"abc\"", NULL, NULL, "at most 2 characters"},
    {"text lower enum=a|b", "\"B\"", "b", "\"b\"", NULL},
    {"text enum=a|b", "\"\"", NULL, NULL, "must be one of a, b"},
    {"text required", "null", NULL, NULL, "must not be null"},
    {"text required", "\"\"", "", "\"\"", NULL},
    {"text default=x", "null", NULL, "null", NULL},

    {"integer", "1", "1", "1", NULL},
    {"integer", "-0", "0", "0", NULL},
    {"integer", "2147483647", "2147483647", "2147483647", NULL},
    {"integer", "2147483648", NULL, NULL, "must be an integer from"},
    {"integer", "1.0", NULL, NULL, "must be an integer from"},
    {"integer", "1e2", NULL, NULL, "must be an integer from"},
    {"integer", "\"1\"", NULL, NULL, "must be a number, not a string"},
    {"integer", "true", NULL, NULL, "must be a number, not true or false"},
    {"integer min=1 max=9", "0", NULL, NULL, "must be from 1 to 9"},
    {"bigint", "-9223372036854775808", "-9223372036854775808", "-9223372036854775808", NULL},
    {"bigint", "9007199254740993", "9007199254740993", "9007199254740993", NULL},
    {"bigint", "9223372036854775808", NULL, NULL, "must be an integer"},
    {"bigint", "18446744073709551616", NULL, NULL, "must be an integer"},
    {"number", "1.50", "1.5", "1.5", NULL},
    {"number", "1E3", "1000", "1000", NULL},
    {"number", "1e400", NULL, NULL, "finite"},
    {"number", "\"1\"", NULL, NULL, "must be a number, not a string"},
    {"numeric", "12.50", "12.5", "12.5", NULL},
    {"numeric", "1e30", "1e30", "1e30", NULL},
    {"numeric", "0.1000000000000000000000000000000000001",
     "0.1000000000000000000000000000000000001", "0.1000000000000000000000000000000000001", NULL},
    {"numeric min=0", "-0.01", NULL, NULL, "must be at least 0"},
    {"numeric", "\"1\"", NULL, NULL, "must be a number, not a string"},
    {"boolean", "true", "true", "true", NULL},
    {"boolean", "false", "false", "false", NULL},
    {"boolean", "1", NULL, NULL, "must be true or false, not a number"},
    {"boolean", "\"true\"", NULL, NULL, "must be true or false, not a string"},
    {"uuid", "\"123E4567-e89b-12d3-a456-426614174000\"", "123e4567-e89b-12d3-a456-426614174000",
     "\"123e4567-e89b-12d3-a456-426614174000\"", NULL},
    {"uuid", "\"\"", NULL, NULL, "must be a UUID"},
    {"date", "\"2024-02-29\"", "2024-02-29", "\"2024-02-29\"", NULL},
    {"date", "\"2023-02-29\"", NULL, NULL, "must be"},
    {"date", "20240229", NULL, NULL, "must be a string, not a number"},
    {"timestamp", "\"2024-02-29T12:00+02:00\"", "2024-02-29T10:00:00Z", "\"2024-02-29T10:00:00Z\"",
     NULL},
    {"json", " { \"a\" : [ 1 , null ] } ", "{\"a\":[1,null]}", "{\"a\":[1,null]}", NULL},
    {"json", "\"x\"", "\"x\"", "\"x\"", NULL},
    {"json", "null", NULL, "null", NULL},
    {"json required", "null", NULL, NULL, "must not be null"},
    {"json", "1e999", NULL, NULL, "exponent beyond 308"},
    {"json", "[\"\\u0000\"]", NULL, NULL, "must not contain \\u0000"},
    {"json", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
     "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
     "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", NULL},
    {"json", "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", NULL, NULL,
     "nested at most 32 deep"},

    {"text[]", "[]", "{}", "[]", NULL},
    {"text[]", "[ \"a\" , \"b\\\"\\\\,{}\" ]", "{\"a\",\"b\\\"\\\\,{}\"}",
     "[\"a\",\"b\\\"\\\\,{}\"]", NULL},
    {"text[]", "[\"\", \"NULL\"]", "{\"\",\"NULL\"}", "[\"\",\"NULL\"]", NULL},
    {"text[]", "\"a\"", NULL, NULL, "must be an array, not a string"},
    {"text[]", "null", NULL, "null", NULL},
    {"text[] required", "[]", "{}", "[]", NULL},
    {"text[] min=1", "[]", NULL, NULL, "at least 1 elements"},
    {"text[] max=2", "[\"a\",\"b\",1]", NULL, NULL, "at most 2 elements"},
    {"text[] upper", "[\"a\"]", "{\"A\"}", "[\"A\"]", NULL},
    {"integer[]", "[1,-2]", "{1,-2}", "[1,-2]", NULL},
    {"boolean[]", "[true,false]", "{true,false}", "[true,false]", NULL},
    {"date[]", "[\"2024-01-01\"]", "{2024-01-01}", "[\"2024-01-01\"]", NULL},
    {"json[]", "[1, {\"a\": \"\\\"\"}, null]", "{\"1\",\"{\\\"a\\\":\\\"\\\\\\\"\\\"}\",\"null\"}",
     "[1,{\"a\":\"\\\"\"},null]", NULL},
    {"json[] {a integer}", "[]", "[]", "[]", NULL},
    {"json[] {a integer, b text trim default='x \"y'}", "[{\"a\": 1, \"b\":\" z \"}, {}]",
     "[{\"a\":1,\"b\":\"z\"},{\"b\":\"x \\\"y\"}]", "[{\"a\":1,\"b\":\"z\"},{\"b\":\"x \\\"y\"}]",
     NULL},
    {"json[] {a integer default=7, b text default=q}", "[{\"b\":null}]", "[{\"b\":null,\"a\":7}]",
     "[{\"b\":null,\"a\":7}]", NULL},
    {"json[] {a json}", "[{\"a\":{\"x\":[]}}]", "[{\"a\":{\"x\":[]}}]", "[{\"a\":{\"x\":[]}}]",
     NULL},
    {"json[] {a integer} max=1", "[{},{}]", NULL, NULL, "at most 1 elements"},
    {"json[] {a integer} default=''", "null", NULL, "null", NULL},
};

static void check_one(size_t i)
{
	_cleanup_endpoint_ struct endpoint *e = endpoint_with(one[i].rule);
	_cleanup_free_ char *body = xasprintf(" {\"p\" : %s }\r\n", one[i].in);
	struct values v = {0};
	int r = read_body(&v, e, body, strlen(body));

	if (one[i].reason) {
		ck_assert_msg(r == -EINVAL && v.errors == 1, "%s %s: %d", one[i].rule, body, r);
		ck_assert_str_eq(v.error[0].name, "p");
		ck_assert_int_eq(v.error[0].in, IN_BODY);
		ck_assert(values_only_members_wrong(&v));
		ck_assert_msg(strstr(v.error[0].reason, one[i].reason), "%s %s: %s", one[i].rule,
		              body, v.error[0].reason);
	} else {
		_cleanup_free_ char *whole = xasprintf("{\"p\":%s}", one[i].body);

		ck_assert_msg(r == 0, "%s %s: %s", one[i].rule, body,
		              v.errors ? v.error[0].reason : "");
		ck_assert_pstr_eq(values_get(&v, 0), one[i].out);
		ck_assert_str_eq(values_body(&v), whole);
	}
	values_done(&v);
}

/* In one process: each of Check's own costs a sanitizer a tenth of a second. */
START_TEST(reads_members)
{
	for (size_t i = 0; i < ELEMENTSOF(one); i++)
		check_one(i);
}
END_TEST

/* A default is bound, and is not in :body; the normal form reads as itself. */
START_TEST(members_left_out)
{
	static const struct {
		const char *rule, *out;
	} absent[] = {
	    {"text", NULL},
	    {"text default=x", "x"},
	    {"integer default=5", "5"},
	    {"text[] default=a|b", "{\"a\",\"b\"}"},
	    {"json default={}", "{}"},
	    {"json[] {a integer}", NULL},
	    {"json[] {a integer} default=''", "[]"},
	};
	for (size_t i = 0; i < ELEMENTSOF(absent); i++) {
		_cleanup_endpoint_ struct endpoint *e = endpoint_with(absent[i].rule);
		struct values v = {0};

		ck_assert_int_eq(read_body(&v, e, "{}", 2), 0);
		ck_assert_pstr_eq(values_get(&v, 0), absent[i].out);
		ck_assert_str_eq(values_body(&v), "{}");
		values_done(&v);
	}
}
END_TEST

/* ---- errors -------------------------------------------------------------------------- */

static const char course[] =
    "-- @route PUT /c/:id\n"
    "-- @path id integer\n"
    "-- @query q integer\n"
    "-- @body title text required trim min=1 max=10\n"
    "-- @body ids integer[]\n"
    "-- @body prices json[] {week integer required min=1 max=53, price numeric required, "
    "note text} max=4\n"
    "SELECT :id, :q, :title, :ids, :prices";

/* Errors as `name: reason`, one a line. */
static char *errors_of(const struct values *v)
{
	_cleanup_buf_ struct buf b = {0};
	size_t n;

	for (size_t i = 0; i < v->errors; i++)
		buf_addf(&b, "%s %s: %s\n", param_in_name(v->error[i].in), v->error[i].name,
		         v->error[i].reason);
	return buf_take(&b, &n);
}

static const struct {
	const char *path, *query, *body, *errors;
	bool members_only;
} wrong[] = {
    {"1", "", "{}", "body title: is required\n", true},
    {"1", "", "{\"title\":\"a\",\"titel\":1,\"\":2}",
     "body titel: is not declared\nbody \"\": is not declared\n", true},
    {"1", "", "{\"title\":\"a\",\"id\":1,\"q\":1}",
     "body id: is not declared\nbody q: is not declared\n", true},
    {"1", "", "{\"title\":\"a\",\"title\":\"a\"}", "body title: given more than once\n", true},
    {"1", "", "{\"title\":\"a\",\"t\\u0069tle\":\"a\"}", "body title: given more than once\n",
     true},
    {"1", "", "{\"x\":1,\"x\":2,\"title\":\"a\"}", "body x: is not declared\n", true},
    {"1", "", "{\"\\u0000\":1,\"title\":\"a\"}", "body \\u0000: is not declared\n", true},
    {"1", "",
     "{\"title\":\"\",\"ids\":[1,null,\"3\",4.5],\"prices\":[{\"week\":54,\"price\":1},7,"
     "{\"price\":null,\"note\":1,\"x\":0},{\"week\":1,\"price\":2,\"week\":2}]}",
     "body title: must be at least 1 characters long\n"
     "body ids[1]: must not be null\n"
     "body ids[2]: must be a number, not a string\n"
     "body ids[3]: must be an integer from -2147483648 to 2147483647\n"
     "body prices[0].week: must be from 1 to 53\n"
     "body prices[1]: must be an object, not a number\n"
     "body prices[2].price: must not be null\n"
     "body prices[2].note: must be a string, not a number\n"
     "body prices[2].x: is not declared\n"
     "body prices[2].week: is required\n"
     "body prices[3].week: given more than once\n",
     true},
    {"x", "q=y", "{\"ids\":1}",
     "query q: must be an integer from -2147483648 to 2147483647\n"
     "path id: must be an integer from -2147483648 to 2147483647\n"
     "body ids: must be an array, not a number\nbody title: is required\n",
     false},
    {"1", "", "[]", "body : must be a JSON object\n", false},
    {"1", "", "\"title\"", "body : must be a JSON object\n", false},
    {"1", "", "null", "body : must be a JSON object\n", false},
    {"1", "", "", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "{\"title\":\"a\"}}", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "{\"title\":\"a\",}", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "{'title':'a'}", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "{\"title\":NaN}", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "{\"title\":\"\x01\"}", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "{\"title\":\"\\x\"}", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "{\"title\":\"\\u12\"}", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "{\"title\":01}", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "\xef\xbb\xbf{}", "body : must be JSON (RFC 8259)\n", false},
    {"1", "", "{\"title\":\"\xff\"}", "body : must be valid UTF-8\n", false},
    {"1", "", "{\"title\":\"\xed\xa0\x80\"}", "body : must be valid UTF-8\n", false},
};

START_TEST(reports_all_at_once)
{
	_cleanup_endpoint_ struct endpoint *e = parse(course);
	struct slice path = {wrong[_i].path, strlen(wrong[_i].path)};
	struct slice query = {wrong[_i].query, strlen(wrong[_i].query)};
	struct slice body = {wrong[_i].body, strlen(wrong[_i].body)};
	struct values v = {0};
	int r = values_read(&v, e, &path, 1, query);

	ck_assert(r == 0 || r == -EINVAL);
	ck_assert_int_eq(values_read_body(&v, e, body), -EINVAL);
	_cleanup_free_ char *found = errors_of(&v);
	/* The query's stand in the order of declaration, before the body's. */
	if (!strncmp(wrong[_i].path, "x", 1))
		ck_assert(strstr(found, "path id: ") && strstr(found, "query q: ") &&
		          strstr(found, strstr(wrong[_i].errors, "body ")));
	else
		ck_assert_str_eq(found, wrong[_i].errors);
	ck_assert_int_eq(values_only_members_wrong(&v), wrong[_i].members_only);
	values_done(&v);
}
END_TEST

START_TEST(errors_are_bounded)
{
	_cleanup_endpoint_ struct endpoint *e = endpoint_with("integer[]");
	_cleanup_buf_ struct buf elements = {0}, names = {0};
	struct values v = {0};

	buf_adds(&elements, "{\"p\":[true");
	buf_adds(&names, "{\"x\":0");
	for (int i = 0; i < 100000; i++) {
		buf_adds(&elements, ",true");
		buf_addf(&names, ",\"x%d\":0", i);
	}
	buf_adds(&elements, "]}");
	buf_adds(&names, "}");
	ck_assert_int_eq(read_body(&v, e, elements.data, elements.len), -EINVAL);
	ck_assert_uint_eq(v.errors, VALUES_ERRORS_MAX);
	ck_assert_str_eq(v.error[63].name, "p[63]");
	values_reset(&v);
	ck_assert_int_eq(read_body(&v, e, names.data, names.len), -EINVAL);
	ck_assert_uint_eq(v.errors, VALUES_ERRORS_MAX);
	values_done(&v);
}
END_TEST

/* Names are the client's: they are cut, between characters. */
START_TEST(names_are_cut)
{
	_cleanup_endpoint_ struct endpoint *e = endpoint_with("integer");
	_cleanup_buf_ struct buf body = {0};
	struct values v = {0};

	buf_adds(&body, "{\"");
	for (int i = 0; i < _i; i++)
		buf_addc(&body, 'x');
	for (int i = 0; i < 1000; i++)
		buf_adds(&body, "\xe2\x82\xac");
	buf_adds(&body, "\":1}");
	ck_assert_int_eq(read_body(&v, e, body.data, body.len), -EINVAL);
	ck_assert_uint_lt(strlen(v.error[0].name), VALUES_NAME_MAX);
	ck_assert_int_gt(utf8_length(v.error[0].name, strlen(v.error[0].name)), 40);
	values_done(&v);
}
END_TEST

START_TEST(depth_is_bounded)
{
	_cleanup_endpoint_ struct endpoint *e = endpoint_with("json");
	_cleanup_buf_ struct buf body = {0};
	struct values v = {0};

	buf_adds(&body, "{\"x\":");
	for (int i = 0; i < 500000; i++)
		buf_addc(&body, '[');
	ck_assert_int_eq(read_body(&v, e, body.data, body.len), -EINVAL);
	ck_assert_str_eq(v.error[0].reason, "must be nested less deep");
	ck_assert(!values_only_members_wrong(&v));
	values_done(&v);
}
END_TEST

/* ---- bytes --------------------------------------------------------------------------- */

static const char whole[] =
    "{\"title\":\"a\\u00e9\\ud83d\\ude00\",\"ids\":[1,-2,3e0],\"prices\":[{\"week\":1,\"price\":"
    "1.50,\"note\":null},{\"note\":\"\\\"\",\"week\":53,\"price\":0}]}";

/* Check notes each assertion that holds in a file. */
#define MUST(x)                                                                                    \
	do {                                                                                       \
		if (!(x))                                                                          \
			ck_abort_msg("%s", #x);                                                    \
	} while (0)

/* What values_read_body makes of these bytes is what it makes of them where they end at a wall: the
 * sanitizers see a byte read too far. */
static int read_exactly(struct values *v, const struct endpoint *e, const char *body, size_t n)
{
	_cleanup_free_ char *copy = xcalloc(n + (n == 0), 1);
	struct slice path = {"1", 1};

	memcpy(copy, body, n);
	MUST(values_read(v, e, &path, 1, (struct slice){"", 0}) == 0);
	return values_read_body(v, e, (struct slice){copy, n});
}

START_TEST(every_prefix)
{
	_cleanup_endpoint_ struct endpoint *e = parse(course);

	for (size_t n = 0; n < sizeof(whole) - 1; n++) {
		struct values v = {0};

		ck_assert_int_eq(read_exactly(&v, e, whole, n), -EINVAL);
		ck_assert_uint_eq(v.errors, 1);
		ck_assert_str_eq(v.error[0].name, "");
		values_done(&v);
	}
}
END_TEST

/* Of one that is whole with one byte changed: no crash, and a sane answer. */
START_TEST(every_byte)
{
	_cleanup_endpoint_ struct endpoint *e = parse(course);
	char body[sizeof(whole)];
	size_t good = 0;

	for (size_t i = 0; i < sizeof(whole) - 1; i++) {
		for (int c = 0; c < 256; c++) {
			struct values v = {0};
			int r;

			memcpy(body, whole, sizeof(whole));
			body[i] = (char)c;
			r = read_exactly(&v, e, body, sizeof(whole) - 1);
			MUST(r == 0 || r == -EINVAL);
			MUST(r == 0 ? v.errors == 0 : v.errors > 0);
			good += r == 0;
			values_done(&v);
		}
	}
	ck_assert_uint_gt(good, 0);
}
END_TEST

/* ---- room ---------------------------------------------------------------------------- */

/* Where a byte of the body grows most. */
START_TEST(arena_has_room)
{
	static const char *const dense[][2] = {
	    {"boolean[]", "true"},
	    {"timestamp[]", "\"2024-01-01\""},
	    {"numeric[]", "1e19"},
	    {"number[]", "1e14"},
	    {"json[]", "\"\\\"\\\"\\\"\\\"\\\"\\\"\\\"\""},
	    {"text[]", "\"\\\\\\\\\\\\\\\\\""},
	    {"text[] upper", "\"\xc9\x90\xc9\x90\xc9\x90\""},
	    {"text[]", "\"\\u0001\\u0001\""},
	    {"json[] {a number}", "{\"a\":1e14}"},
	};
	_cleanup_endpoint_ struct endpoint *e = endpoint_with(dense[_i][0]);
	_cleanup_buf_ struct buf b = {0};
	struct values v = {0};

	buf_addf(&b, "{\"p\":[%s", dense[_i][1]);
	for (int i = 0; i < 50000; i++)
		buf_addf(&b, ",%s", dense[_i][1]);
	buf_adds(&b, "]}");
	ck_assert_int_eq(read_body(&v, e, b.data, b.len), 0);
	values_done(&v);
}
END_TEST

/* A few bytes that stand for long defaults are refused past a bound, and told why. */
START_TEST(defaults_are_bounded)
{
	_cleanup_buf_ struct buf rule = {0}, b = {0};
	struct values v = {0};

	buf_adds(&rule, "json[] {a text default=");
	for (int i = 0; i < 1000; i++)
		buf_addc(&rule, 'x');
	buf_adds(&rule, "}");
	buf_addc(&rule, '\0');
	_cleanup_endpoint_ struct endpoint *e = endpoint_with(rule.data);

	buf_adds(&b, "{\"p\":[{}");
	for (int i = 0; i < 100000; i++)
		buf_adds(&b, ",{}");
	buf_adds(&b, "]}");
	ck_assert_int_eq(read_body(&v, e, b.data, b.len), -EINVAL);
	ck_assert_uint_eq(v.errors, 1);
	ck_assert_str_eq(v.error[0].reason, "is one too many, with the defaults of its members");
	ck_assert_uint_lt(v.arena.len, 17 * b.len + 65536);
	values_reset(&v);
	ck_assert_int_eq(read_body(&v, e, "{\"p\":[{},{},{},{}]}", 19), 0);
	values_done(&v);
}
END_TEST

/* ---- the key ------------------------------------------------------------------------- */

START_TEST(body_joins_the_key)
{
	static const struct key_caller nobody;
	static const char *const texts[] = {
	    "-- @route POST /t\n-- @body p text\n-- @body q text\nSELECT :body, :auth_sub",
	    "-- @route POST /t\n-- @body p text\n-- @body q text\nSELECT :p, :q",
	};
	const struct key_caller caller = {"sub", NULL, NULL};

	for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
		_cleanup_endpoint_ struct endpoint *e = parse(texts[i]);
		_cleanup_buf_ struct buf key = {0};
		const char *value[2], *body;
		struct key_caller back = nobody;
		struct values v = {0};

		ck_assert_int_eq(read_body(&v, e, "{\"q\": \"x\"}", 10), 0);
		ck_assert_int_eq(key_build(e, &v, &caller, &key), 0);
		key_values(e, key.data, key.len, value, &body, &back);
		ck_assert_ptr_null(value[0]);
		ck_assert_str_eq(value[1], "x");
		ck_assert_pstr_eq(body, i ? NULL : "{\"q\":\"x\"}");
		ck_assert_pstr_eq(back.subject, i ? NULL : "sub");
		values_done(&v);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("body");
	TCase *t = tcase_create("body");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_test(t, reads_members);
	tcase_add_test(t, members_left_out);
	tcase_add_loop_test(t, reports_all_at_once, 0, ELEMENTSOF(wrong));
	tcase_add_test(t, errors_are_bounded);
	tcase_add_loop_test(t, names_are_cut, 0, 4);
	tcase_add_test(t, depth_is_bounded);
	tcase_add_test(t, every_prefix);
	tcase_add_test(t, every_byte);
	tcase_add_loop_test(t, arena_has_room, 0, 9);
	tcase_add_test(t, defaults_are_bounded);
	tcase_add_test(t, body_joins_the_key);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

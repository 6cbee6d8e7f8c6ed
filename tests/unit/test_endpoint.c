#include <check.h>
#include <string.h>

#include "provost/buf.h"
#include "provost/endpoint.h"

static struct endpoint *parse(const char *text, size_t len, struct errors *errs)
{
	/* A copy of exactly its size, so that a sanitizer sees a byte read behind it. */
	_cleanup_free_ char *copy = xcalloc(len ? len : 1, 1);

	memcpy(copy, text, len);
	return endpoint_parse("dir/t", "t.sql", copy, len, errs);
}

static struct endpoint *parse_ok(const char *text)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct endpoint *e = parse(text, strlen(text), errs);

	ck_assert_msg(e != NULL, "%s\n%s", text, e ? "" : errors_text(errs, 0));
	ck_assert_uint_eq(errors_count(errs), 0);
	return e;
}

/* Files with exactly one thing wrong. */
static const struct {
	const char *text, *error;
} broken[] = {
    /* The file. */
    {"", "t.sql:1: the file needs `-- @route METHOD /path` at its head"},
    {"SELECT 1", "t.sql:1: the file needs `-- @route"},
    {"\xef\xbb\xbf-- @route GET /a\nSELECT 1", "t.sql:1: the file begins with a byte order mark"},
    {"-- @route GET /a\nSELECT '\xff'", "t.sql:2: the line is not UTF-8"},

    /* Directives. */
    {"-- @route GET /a\n-- @foo\nSELECT 1", "t.sql:2: unknown directive `@foo`"},
    {"-- @route GET /a\n-- @ role x\nSELECT 1", "t.sql:2: unknown directive `@ role`"},
    {"-- @Route GET /a\n-- @route GET /a\nSELECT 1", "t.sql:1: unknown directive `@Route`"},
    {"-- @role x\n-- @route GET /a\nSELECT 1", "t.sql:1: the first directive must be @route"},
    {"-- @role x\nSELECT 1", "t.sql:1: the first directive must be @route, not @role"},
    {"-- @route GET /a\n\n-- @route GET /b\nSELECT 1",
     "t.sql:3: @route stands twice: first in line 1"},
    {"-- @route GET /a\n-- @role x\n-- @role y\nSELECT 1", "t.sql:3: @role stands twice"},
    {"-- @route GET /a\nSELECT 1\n  -- @role x",
     "t.sql:3: @role stands behind the beginning of the SQL"},
    {"-- @route GET /a\n/* b */ SELECT 1\n--@cache off\n", "t.sql:3: @cache stands behind"},

    /* @route. */
    {"-- @route\nSELECT 1", "t.sql:1: @route needs a method and a path"},
    {"-- @route GET\nSELECT 1", "t.sql:1: @route needs a method and a path"},
    {"-- @route get /a\nSELECT 1", "t.sql:1: `get` is not a method"},
    {"-- @route HEAD /a\nSELECT 1", "t.sql:1: `HEAD` is not a method"},
    {"-- @route GET a\nSELECT 1", "begins with `/`"},
    {"-- @route GET /a b\nSELECT 1", "t.sql:1: @route: `b` is one word too many"},
    {"-- @route GET /a/\nSELECT 1", "empty segment"},
    {"-- @route GET //a\nSELECT 1", "empty segment"},
    {"-- @route GET /a//b\nSELECT 1", "empty segment"},
    {"-- @route GET /a?b\nSELECT 1", "is not a path segment"},
    {"-- @route GET /a{b}\nSELECT 1", "is not a path segment"},
    {"-- @route GET /a%2\nSELECT 1", "broken percent-escape"},
    {"-- @route GET /a%00\nSELECT 1", "broken percent-escape"},
    {"-- @route GET /\xc3\xa9\nSELECT 1", "is not a path segment"},
    {"-- @route GET /a/../b\nSELECT 1", "cannot contain `.` or `..`"},
    {"-- @route GET /:1\nSELECT 1", "`:1` is not the name of a parameter"},
    {"-- @route GET /:\nSELECT 1", "`:` is not the name of a parameter"},
    {"-- @route GET /:a/:a\n-- @path a text\nSELECT :a", "`:a` stands twice in the route"},
    {"-- @route GET /:a\nSELECT 1", "t.sql:1: `:a` of the route is not declared"},
    {"-- @route GET /:a\n-- @query a text\nSELECT :a",
     "t.sql:1: `:a` of the route is not declared"},
    {"-- @route GET /a\n-- @path a text\nSELECT :a", "t.sql:2: @path a: the route has no `:a`"},
    {"-- @route GET /1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g/x\nSELECT 1",
     "at most 32 segments"},

    /* @role. */
    {"-- @route GET /a\n-- @role\nSELECT 1", "t.sql:2: @role needs the roles"},
    {"-- @route GET /a\n-- @role a b\nSELECT 1", "a comma is missing before `b`"},
    {"-- @route GET /a\n-- @role a,,b\nSELECT 1", "`` is not the name of a role"},
    {"-- @route GET /a\n-- @role 1a\nSELECT 1", "`1a` is not the name of a role"},
    {"-- @route GET /a\n-- @role a.b\nSELECT 1", "`a.b` is not the name of a role"},
    {"-- @route GET /a\n-- @role a, A\nSELECT 1", "the role `A` stands twice"},
    {"-- @route GET /a\n-- @role public,a\nSELECT 1", "@role public stands alone"},

    /* Parameters. */
    {"-- @route GET /a\n-- @query\nSELECT 1", "t.sql:2: `` is not the name of a parameter"},
    {"-- @route GET /a\n-- @query 1a text\nSELECT 1", "`1a` is not the name of a parameter"},
    {"-- @route GET /a\n-- @query a-b text\nSELECT 1", "`a-b` is not the name of a parameter"},
    {"-- @route GET /a\n-- @query body text\nSELECT 1", "`body` is Provost's own name"},
    {"-- @route GET /a\n-- @query auth_x text\nSELECT 1", "`auth_x` is Provost's own name"},
    {"-- @route GET /a\n-- @query a\nSELECT :a", "a: `` is not a type"},
    {"-- @route GET /a\n-- @query a int\nSELECT :a", "a: `int` is not a type"},
    {"-- @route GET /a\n-- @query a Text\nSELECT :a", "a: `Text` is not a type"},
    {"-- @route GET /a\n-- @query a text[][]\nSELECT :a", "a: `text[][]` is not a type"},
    {"-- @route GET /a\n-- @query a []\nSELECT :a", "a: `[]` is not a type"},
    {"-- @route GET /a\n-- @query a text\n-- @query a text\nSELECT :a",
     "t.sql:3: the parameter `a` stands twice: first in line 2"},
    {"-- @route GET /:a\n-- @path a text\n-- @query a text\nSELECT :a",
     "t.sql:3: the parameter `a` stands twice"},
    {"-- @route GET /:a\n-- @path a text[]\nSELECT :a", "a path parameter is one value"},
    {"-- @route GET /a\n-- @query a text\nSELECT 1",
     "t.sql:2: `a` is declared, but the SQL does not use :a"},
    {"-- @route GET /a\nSELECT\n  :a + :a",
     "t.sql:3: `:a` is not declared: add `-- @query a TYPE`"},
    {"-- @route GET /a\nSELECT ':a', :b", "t.sql:2: `:b` is not declared"},
    {"-- @route GET /a\nSELECT :auth_name",
     "there are :auth_sub, :auth_role and :auth_claims only"},
    {"-- @route POST /a\nSELECT :body", "t.sql:2: `:body` is used, but no @body is declared"},
    {"-- @route GET /a\n-- @body a text\nSELECT :a", "t.sql:2: @body does not go with GET"},

    /* Options. */
    {"-- @route GET /a\n-- @query a text foo\nSELECT :a", "a: unknown option `foo`"},
    {"-- @route GET /a\n-- @query a text foo=1\nSELECT :a", "a: unknown option `foo`"},
    {"-- @route GET /a\n-- @query a text trim trim\nSELECT :a", "a: `trim` stands twice"},
    {"-- @route GET /a\n-- @query a text trim=yes\nSELECT :a", "a: `trim` takes no value"},
    {"-- @route GET /a\n-- @query a text min\nSELECT :a", "a: `min` needs a value"},
    {"-- @route GET /a\n-- @query a text min=\nSELECT :a", "`min=` lacks its value"},
    {"-- @route GET /a\n-- @query a text min=x\nSELECT :a", "min=x is not a count of characters"},
    {"-- @route GET /a\n-- @query a text min=-1\nSELECT :a", "is not a count of characters"},
    {"-- @route GET /a\n-- @query a text max=99999999999\nSELECT :a",
     "is not a count of characters"},
    {"-- @route GET /a\n-- @query a integer[] max=x\nSELECT :a", "is not a count of elements"},
    {"-- @route GET /a\n-- @query a integer min=x\nSELECT :a", "a: min=x: must be an integer"},
    {"-- @route GET /a\n-- @query a integer max=3000000000\nSELECT :a", "must be an integer from"},
    {"-- @route GET /a\n-- @query a date min=2023-02-29\nSELECT :a", "day that exists"},
    {"-- @route GET /a\n-- @query a integer trim\nSELECT :a", "`trim` does not go with integer"},
    {"-- @route GET /a\n-- @query a integer[] upper\nSELECT :a",
     "`upper` does not go with integer[]"},
    {"-- @route GET /a\n-- @query a json lower\nSELECT :a", "`lower` does not go with json"},
    {"-- @route GET /a\n-- @query a boolean min=1\nSELECT :a", "`min` does not go with boolean"},
    {"-- @route GET /a\n-- @query a uuid max=1\nSELECT :a", "`max` does not go with uuid"},
    {"-- @route GET /a\n-- @query a json max=1\nSELECT :a", "`max` does not go with json"},
    {"-- @route GET /a\n-- @query a integer enum=1|2\nSELECT :a",
     "`enum` does not go with integer"},
    {"-- @route GET /a\n-- @query a text upper lower\nSELECT :a",
     "upper and lower exclude each other"},
    {"-- @route GET /a\n-- @query a integer min=2 max=1\nSELECT :a", "a: min=2 is above max=1"},
    {"-- @route GET /a\n-- @query a integer min=10 max=9\nSELECT :a", "min=10 is above max=9"},
    {"-- @route GET /a\n-- @query a text min=2 max=1\nSELECT :a", "min=2 is above max=1"},
    {"-- @route GET /a\n-- @query a numeric min=0.11 max=0.1\nSELECT :a",
     "min=0.11 is above max=0.1"},
    {"-- @route GET /a\n-- @query a timestamp min=2024-01-01T00:00:00.1Z max=2024-01-01\nSELECT :a",
     "is above"},
    {"-- @route GET /a\n-- @query a text enum=A||B\nSELECT :a", "enum has an empty value"},
    {"-- @route GET /a\n-- @query a text enum=A|A\nSELECT :a", "the enum value `A` stands twice"},
    {"-- @route GET /a\n-- @query a text upper enum=a\nSELECT :a", "`a` is never reached"},
    {"-- @route GET /a\n-- @query a text trim enum=' a'\nSELECT :a", "` a` is never reached"},
    {"-- @route GET /a\n-- @query a text max=2 enum=abc\nSELECT :a",
     "`abc` must be at most 2 characters"},
    {"-- @route GET /a\n-- @query a text required default=x\nSELECT :a",
     "required and default exclude"},
    {"-- @route GET /:a\n-- @path a text default=x\nSELECT :a", "needs no default"},
    {"-- @route GET /a\n-- @query a integer default=x\nSELECT :a",
     "the default must be an integer"},
    {"-- @route GET /a\n-- @query a integer min=1 default=0\nSELECT :a",
     "the default must be at least 1"},
    {"-- @route GET /a\n-- @query a text enum=A|B default=C\nSELECT :a",
     "the default must be one of A, B"},
    {"-- @route GET /a\n-- @query a text max=2 default=abc\nSELECT :a",
     "the default must be at most 2"},
    {"-- @route GET /a\n-- @query a text[] max=1 default=a|b\nSELECT :a",
     "the default must have at most 1 elements"},
    {"-- @route GET /a\n-- @query a text default='x\nSELECT :a", "the value's quote is not closed"},
    {"-- @route GET /a\n-- @query a text default='x'y\nSELECT :a",
     "goes on behind its closing quote"},
    {"-- @route GET /a\n-- @query a text default=x'y\nSELECT :a", "has a quote in it"},

    /* Members. */
    {"-- @route POST /a\n-- @body a json {x text}\nSELECT :a", "members in {} go with"},
    {"-- @route GET /a\n-- @query a json[] {x text}\nSELECT :a", "members in {} go with"},
    {"-- @route POST /a\n-- @body a json[] {x text\nSELECT :a", "{ is not closed"},
    {"-- @route POST /a\n-- @body a json[] {}\nSELECT :a", "is not the name of a parameter"},
    {"-- @route POST /a\n-- @body a json[] {x text,}\nSELECT :a", "is not the name of a parameter"},
    {"-- @route POST /a\n-- @body a json[] {x text y}\nSELECT :a", "x: unknown option `y`"},
    {"-- @route POST /a\n-- @body a json[] {x text, x text}\nSELECT :a",
     "the member `x` stands twice"},
    {"-- @route POST /a\n-- @body a json[] {x text[]}\nSELECT :a", "cannot be an array"},
    {"-- @route POST /a\n-- @body a json[] {x foo}\nSELECT :a", "x: `foo` is not a type"},
    {"-- @route POST /a\n-- @body a json[] {x text} default=1\nSELECT :a", "the only default"},
    {"-- @route POST /a\n-- @body a json[] {x text} min=1 default=''\nSELECT :a",
     "the default must have at least 1 elements"},
    {"-- @route POST /a\n-- @body a json[] {x integer min=2 max=1} max=3\nSELECT :a",
     "x: min=2 is above max=1"},

    /* @returns, @status, @timeout. */
    {"-- @route GET /a\n-- @returns\nSELECT 1", "@returns is json, rows, row or none, not ``"},
    {"-- @route GET /a\n-- @returns unset\nSELECT 1", "not `unset`"},
    {"-- @route GET /a\n-- @returns json rows\nSELECT 1", "not `json rows`"},
    {"-- @route GET /a\n-- @status 404\nSELECT 1", "from 200 to 299, not `404`"},
    {"-- @route GET /a\n-- @status 2x0\nSELECT 1", "from 200 to 299, not `2x0`"},
    {"-- @route GET /a\n-- @status 0200\nSELECT 1", "from 200 to 299"},
    {"-- @route GET /a\n-- @status 206\nSELECT 1", "@status 206 means what no endpoint can"},
    {"-- @route GET /a\n-- @status 204\nSELECT 1", "t.sql:2: @status 204 has no body"},
    {"-- @route POST /a\n-- @returns none\n-- @status 201\nSELECT 1",
     "t.sql:3: @returns none answers 204, not 201"},
    {"-- @route GET /a\n-- @timeout\nSELECT 1", "@timeout: `` is not a duration"},
    {"-- @route GET /a\n-- @timeout 10\nSELECT 1", "@timeout: `10` is not a duration"},
    {"-- @route GET /a\n-- @timeout 0\nSELECT 1", "is not from 1ms to 1h"},
    {"-- @route GET /a\n-- @timeout 2h\nSELECT 1", "is not from 1ms to 1h"},
    {"-- @route GET /a\n-- @timeout 2s 3s\nSELECT 1", "is not a duration"},

    /* @cache. */
    {"-- @route GET /a\n-- @cache\nSELECT 1", "@cache without options"},
    {"-- @route GET /a\n-- @cache foo=1\nSELECT 1", "@cache: unknown option `foo`"},
    {"-- @route GET /a\n-- @cache ttl\nSELECT 1", "`ttl` needs a value"},
    {"-- @route GET /a\n-- @cache off=1\nSELECT 1", "`off` takes no value"},
    {"-- @route GET /a\n-- @cache ttl=1s ttl=2s\nSELECT 1", "@cache: `ttl` stands twice"},
    {"-- @route GET /a\n-- @cache ttl=10\nSELECT 1", "@cache ttl: `10` is not a duration"},
    {"-- @route GET /a\n-- @cache swr=-1s\nSELECT 1", "@cache swr: `-1s` is not a duration"},
    {"-- @route GET /a\n-- @cache ttl=366d\nSELECT 1", "is not from 0 to 365d"},
    {"-- @route GET /a\n-- @cache max_stale=99999999999999999999d\nSELECT 1",
     "is not from 0 to 365d"},
    {"-- @route GET /a\n-- @cache off ttl=1s\nSELECT 1", "@cache off stands alone"},
    {"-- @route GET /a\n-- @cache tags=a,a\nSELECT 1", "the tag `a` stands twice"},
    {"-- @route GET /a\n-- @cache tags=a:b\nSELECT 1", "`a:b` is not the name of a tag"},
    {"-- @route GET /a\n-- @cache vary=ip\nSELECT 1",
     "`ip` is not the name of a claim that can vary (sub, role)"},
    {"-- @route POST /a\n-- @cache off\nSELECT 1", "t.sql:2: @cache goes with GET only, not POST"},

    /* @depends. */
    {"-- @route GET /a\n-- @depends\nSELECT 1", "t.sql:2: @depends lists tables"},
    {"-- @route GET /a\n-- @depends a,\nSELECT 1", "@depends lists tables"},
    {"-- @route GET /a\n-- @depends a b\nSELECT 1", "@depends: `b` is one word too many"},
    {"-- @route GET /a\n-- @depends 1a\nSELECT 1", "@depends lists tables"},
    {"-- @route GET /a\n-- @depends \"a\nSELECT 1", "@depends lists tables"},
    {"-- @route GET /a\n-- @depends a.\nSELECT 1", "@depends lists tables"},
    {"-- @route GET /a\n-- @depends a(b)\nSELECT 1", "a table is narrowed as in a(column=:param)"},
    {"-- @route GET /a\n-- @depends a(b=1)\nSELECT 1", "a table is narrowed as in"},
    {"-- @route GET /a\n-- @depends a(b=:c\nSELECT 1", "a table is narrowed as in"},
    {"-- @route GET /a\n-- @depends a(b=:c)\nSELECT 1", "`:c` is not a @path or @query parameter"},
    {"-- @route GET /a\n-- @query c date\n-- @depends a(b=:c)\nSELECT :c",
     "t.sql:3: @depends a: `:c` is date"},
    {"-- @route GET /a\n-- @query c text\n-- @depends !a(b=:c)\nSELECT :c", "left out as a whole"},
    {"-- @route GET /a\n-- @depends a\n-- @depends !a\nSELECT 1",
     "t.sql:3: @depends names a and leaves it out"},
    {"-- @route GET /a\n-- @depends a, a\nSELECT 1", "says the same of a twice"},
    {"-- @route PUT /a\n-- @depends a\nSELECT 1", "@depends goes with GET only, not PUT"},

    /* The statement. */
    {"-- @route GET /a\n", "t.sql:2: there is no statement"},
    {"-- @route GET /a\n-- nothing\n", "t.sql:3: there is no statement"},
    {"-- @route GET /a\n\nSELECT 1;\nSELECT 2", "t.sql:4: a second statement"},
    {"-- @route GET /a\nSELECT\n'a", "t.sql:3: a string constant is not closed"},
    {"-- @route GET /a\nSELECT $1", "t.sql:2: parameters have names here"},
};

START_TEST(refuses)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	const char *text = broken[_i].text;
	_cleanup_endpoint_ struct endpoint *e = parse(text, strlen(text), errs);
	bool found = false;

	ck_assert_msg(e == NULL, "accepted:\n%s", text);
	for (size_t i = 0; errors_text(errs, i); i++)
		found |= strstr(errors_text(errs, i), broken[_i].error) != NULL;
	ck_assert_msg(found, "%s\nsays %s\nnot  %s", text, errors_text(errs, 0), broken[_i].error);
	/* One mistake, one message; a head that is missing takes the rest with it. */
	if (text[0] == '-' && strncmp(text, "-- @r", 5) == 0)
		ck_assert_msg(errors_count(errs) == 1, "%s\nalso says %s", text,
		              errors_text(errs, 1));
}
END_TEST

START_TEST(reports_all_at_once)
{
	static const char text[] = "-- Something.\n"
	                           "-- @route GET /a/:id\n"
	                           "-- @foo\n"
	                           "-- @query n integer min=x\n"
	                           "-- @timeout never\n"
	                           "SELECT :n,\n"
	                           "       :m";
	static const char *const lines[] = {
	    "t.sql:3: ", "t.sql:4: ", "t.sql:5: ", "t.sql:2: ", "t.sql:7: "};
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_ptr_null(parse(text, sizeof(text) - 1, errs));
	ck_assert_uint_eq(errors_count(errs), ELEMENTSOF(lines));
	for (size_t i = 0; i < ELEMENTSOF(lines); i++)
		ck_assert_msg(strncmp(errors_text(errs, i), lines[i], strlen(lines[i])) == 0, "%s",
		              errors_text(errs, i));
}
END_TEST

static const char full[] =
    "-- One course with its tags.\r\n"
    "--\n"
    "-- @route GET /api/admin/caf%C3%A9/:id\n"
    "--   Details for whoever edits it.  \n"
    "-- @role admin, Institution_Staff\n"
    "-- @path id text max=36\n"
    "\n"
    "-- @query q text trim lower min=2 max=100 default='it''s'\n"
    "-- @query status text[] upper enum=DRAFT|PUBLISHED max=2\n"
    "-- @query since timestamp min=2020-01-01\n"
    "-- @returns row\n"
    "-- @status 203\n"
    "-- @cache ttl=10m swr=1m max_stale=500ms stale_if_error=0 tags=courses,x vary=role\n"
    "-- @depends course(id=:id), school.\"User\"(\"ownerId\" = :id), !visits\n"
    "-- @depends tag\n"
    "-- @timeout 2s\n"
    "  SELECT *, ':id' FROM course -- of :whom\n"
    "WHERE id=:id AND (:q::text IS NULL OR title LIKE:q)\n"
    "  AND status = ANY(:status) AND x > :since ; -- the end\n";

START_TEST(reads_everything)
{
	_cleanup_endpoint_ struct endpoint *e = parse_ok(full);
	const struct param *p;

	ck_assert_str_eq(e->name, "dir/t");
	ck_assert_str_eq(e->file, "t.sql");
	ck_assert_str_eq(e->description,
	                 "One course with its tags.\n\nDetails for whoever edits it.");
	ck_assert_int_eq(e->method, METHOD_GET);
	ck_assert_str_eq(e->route, "/api/admin/caf%C3%A9/:id");
	ck_assert_uint_eq(e->segments, 4);
	ck_assert_str_eq(e->segment[2].text, "caf\xc3\xa9");
	ck_assert(!e->segment[2].param && e->segment[3].param);
	ck_assert_uint_eq(e->route_line, 3);
	ck_assert_uint_eq(e->roles.count, 2);
	ck_assert_str_eq(e->roles.item[1], "Institution_Staff");
	ck_assert(!e->is_public);

	ck_assert_uint_eq(e->params, 4);
	p = endpoint_param(e, "id");
	ck_assert(p->in == IN_PATH && p->required && p->max.set && p->max.count == 36 && p->used);
	ck_assert_uint_eq(p->line, 6);
	p = endpoint_param(e, "q");
	ck_assert(p->in == IN_QUERY && !p->required && p->trim && p->lower && !p->upper);
	ck_assert_str_eq(p->default_value, "it's");
	p = endpoint_param(e, "status");
	ck_assert(p->array && p->upper && p->max.count == 2 && p->enumeration.count == 2);
	p = endpoint_param(e, "since");
	ck_assert_str_eq(p->min.text, "2020-01-01T00:00:00Z");
	ck_assert_ptr_null(endpoint_param(e, "x"));

	ck_assert_int_eq(e->returns, RETURNS_ROW);
	ck_assert_uint_eq(e->status, 203);
	ck_assert_int_eq(e->timeout_ms, 2000);
	ck_assert(e->cache.set && !e->cache.off);
	ck_assert_int_eq(e->cache.ttl_ms, 600000);
	ck_assert_int_eq(e->cache.swr_ms, 60000);
	ck_assert_int_eq(e->cache.max_stale_ms, 500);
	ck_assert_int_eq(e->cache.stale_if_error_ms, 0);
	ck_assert(strlist_has(&e->cache.tags, "x") && e->cache.tags.count == 2);
	ck_assert(!e->cache.vary_sub && e->cache.vary_role);

	ck_assert_uint_eq(e->depends, 4);
	ck_assert_str_eq(e->depend[0].table, "course");
	ck_assert_str_eq(e->depend[0].column, "id");
	ck_assert_str_eq(e->depend[0].param, "id");
	ck_assert_str_eq(e->depend[1].table, "school.\"User\"");
	ck_assert_str_eq(e->depend[1].column, "\"ownerId\"");
	ck_assert(e->depend[2].exclude && !e->depend[2].column);
	ck_assert_str_eq(e->depend[3].table, "tag");
	ck_assert_uint_eq(e->depend[3].line, 15);
}
END_TEST

START_TEST(rewrites_the_statement)
{
	_cleanup_endpoint_ struct endpoint *e = parse_ok(full);
	static const char sql[] = "  SELECT *, ':id' FROM course -- of :whom\n"
	                          "WHERE id=$1 AND ($2::text IS NULL OR title LIKE $2)\n"
	                          "  AND status = ANY($3) AND x > $4";
	static const pg_oid oids[] = {25, 25, 1009, 1184};

	ck_assert_str_eq(e->stmt.sql, sql);
	ck_assert_uint_eq(e->stmt.sql_len, sizeof(sql) - 1);
	ck_assert_uint_eq(e->stmt.binds, 4);
	for (size_t i = 0; i < 4; i++) {
		ck_assert_int_eq(e->stmt.bind[i].source, BIND_PARAM);
		ck_assert_uint_eq(e->stmt.bind[i].index, i);
		ck_assert_uint_eq(e->stmt.oid[i], oids[i]);
	}
	ck_assert_uint_eq(e->sql_line, 17);
	ck_assert_uint_eq(endpoint_sql_line(e, 0), 17);
	ck_assert_uint_eq(endpoint_sql_line(e, (size_t)(strstr(sql, "WHERE") - sql)), 18);
	ck_assert_uint_eq(endpoint_sql_line(e, (size_t)(strstr(sql, "$4") - sql)), 19);
	ck_assert_uint_eq(endpoint_sql_line(e, 100000), 19);
}
END_TEST

/* A `$n` never runs into its neighbours. */
static const struct {
	const char *sql, *rewritten;
} fused[] = {
    {"SELECT:a", "SELECT $1"},          {"SELECT 1:a", "SELECT 1 $1"},
    {"SELECT :a:b", "SELECT $1 $2"},    {"SELECT $$x$$:a", "SELECT $$x$$ $1"},
    {"SELECT 'x':a", "SELECT 'x'$1"},   {"SELECT \xc3\xa9:a", "SELECT \xc3\xa9 $1"},
    {"SELECT (:a)", "SELECT ($1)"},     {"SELECT :a'x'", "SELECT $1'x'"},
    {"SELECT :b, :a", "SELECT $1, $2"},
};

START_TEST(keeps_tokens_apart)
{
	_cleanup_free_ char *text =
	    xasprintf("-- @route GET /a\n-- @query a text\n-- @query b text\n%s -- %s",
	              fused[_i].sql, "\n,:a,:b");
	_cleanup_endpoint_ struct endpoint *e = parse_ok(text);

	ck_assert_int_eq(strncmp(e->stmt.sql, fused[_i].rewritten, strlen(fused[_i].rewritten)), 0);
}
END_TEST

START_TEST(defaults)
{
	_cleanup_endpoint_ struct endpoint *get = parse_ok("--@route GET /a\nTABLE t");
	_cleanup_endpoint_ struct endpoint *post =
	    parse_ok("--@route POST /a\n--@role PUBLIC\nTABLE t");
	_cleanup_endpoint_ struct endpoint *none =
	    parse_ok("--@route DELETE /a\n--@returns none\n--@status 204\nTABLE t");

	ck_assert(get->status == 200 && get->returns == RETURNS_UNSET && get->timeout_ms == -1);
	ck_assert(get->roles.count == 1 && strcmp(get->roles.item[0], "admin") == 0);
	ck_assert(!get->cache.set && get->cache.ttl_ms == -1 && get->cache.swr_ms == -1);
	ck_assert_str_eq(get->description, "");
	ck_assert_str_eq(get->stmt.sql, "TABLE t");
	ck_assert(post->status == 201 && post->is_public && post->roles.count == 0);
	ck_assert_uint_eq(none->status, 204);
}
END_TEST

START_TEST(reads_bodies)
{
	_cleanup_endpoint_ struct endpoint *e = parse_ok(
	    "-- @route PATCH /a/:id\n"
	    "-- @path id bigint\n"
	    "-- @body title text required max=10\n"
	    "-- @body prices json[] {week integer min=1 max=53, note text default='a, {b}', "
	    "price numeric} max=520\n"
	    "SELECT :body, :id, :body ? 'title', :body");
	const struct param *p = endpoint_param(e, "prices");

	ck_assert_uint_eq(e->stmt.binds, 2);
	ck_assert_int_eq(e->stmt.bind[0].source, BIND_BODY);
	ck_assert_uint_eq(e->stmt.oid[0], 3802);
	ck_assert_uint_eq(e->stmt.oid[1], 20);
	ck_assert(p->used && p->array && p->type == TYPE_JSON && p->max.count == 520);
	ck_assert_uint_eq(p->members, 3);
	ck_assert_str_eq(p->member[0].name, "week");
	ck_assert_str_eq(p->member[0].max.text, "53");
	ck_assert_str_eq(p->member[1].default_value, "a, {b}");
	ck_assert_int_eq(p->member[2].type, TYPE_NUMERIC);
}
END_TEST

/* One jsonb, for jsonb_to_recordset. */
START_TEST(objects_are_one_jsonb)
{
	_cleanup_endpoint_ struct endpoint *e =
	    parse_ok("-- @route POST /a\n-- @body p json[] {a text} default=''\n"
	             "-- @body q json[]\nSELECT :p, :q");

	ck_assert_uint_eq(e->stmt.oid[0], 3802);
	ck_assert_str_eq(e->param[0].default_value, "[]");
	ck_assert_uint_eq(e->stmt.oid[1], 3807);
}
END_TEST

START_TEST(knows_the_caller)
{
	_cleanup_endpoint_ struct endpoint *e =
	    parse_ok("-- @route GET /a\nSELECT\n:auth_sub, :auth_sub");
	_cleanup_endpoint_ struct endpoint *r = parse_ok("-- @route GET /a\nSELECT :auth_role");
	_cleanup_endpoint_ struct endpoint *c = parse_ok("-- @route GET /a\nSELECT :auth_claims");

	ck_assert_uint_eq(e->auth_line, 3);
	ck_assert_uint_eq(e->stmt.binds, 1);
	ck_assert_int_eq(e->stmt.bind[0].source, BIND_AUTH_SUB);
	ck_assert(e->cache.vary_sub && !e->cache.vary_role);
	ck_assert(!r->cache.vary_sub && r->cache.vary_role);
	ck_assert(!c->cache.vary_sub && !c->cache.vary_role && c->cache.vary_claims);
	ck_assert_uint_eq(c->stmt.oid[0], 3802);
}
END_TEST

START_TEST(types_have_oids)
{
	static const struct {
		const char *type;
		pg_oid oid;
	} types[] = {
	    {"text", 25},        {"integer", 23},    {"bigint", 20},        {"number", 701},
	    {"numeric", 1700},   {"boolean", 16},    {"uuid", 2950},        {"date", 1082},
	    {"timestamp", 1184}, {"json", 3802},     {"text[]", 1009},      {"integer[]", 1007},
	    {"bigint[]", 1016},  {"number[]", 1022}, {"numeric[]", 1231},   {"boolean[]", 1000},
	    {"uuid[]", 2951},    {"date[]", 1182},   {"timestamp[]", 1185}, {"json[]", 3807},
	};

	for (size_t i = 0; i < ELEMENTSOF(types); i++) {
		_cleanup_free_ char *text =
		    xasprintf("-- @route GET /a\n-- @query a %s\nSELECT :a", types[i].type);
		_cleanup_endpoint_ struct endpoint *e = parse_ok(text);

		ck_assert_uint_eq(e->stmt.oid[0], types[i].oid);
	}
}
END_TEST

START_TEST(statements_have_names)
{
	_cleanup_endpoint_ struct endpoint *a =
	    parse_ok("-- @route GET /a\n-- @query a text\nSELECT :a");
	_cleanup_endpoint_ struct endpoint *b =
	    parse_ok("-- @route GET /b\n-- changed\n-- @query b text\n\nSELECT :b;");
	_cleanup_endpoint_ struct endpoint *c =
	    parse_ok("-- @route GET /a\n-- @query a bigint\nSELECT :a");

	ck_assert_str_eq(a->stmt.name, b->stmt.name);
	ck_assert_uint_eq(a->stmt.id, b->stmt.id);
	ck_assert_str_ne(a->stmt.name, c->stmt.name);
	ck_assert_uint_eq(strlen(a->stmt.name), 19);
	ck_assert_int_eq(strncmp(a->stmt.name, "pv_", 3), 0);
}
END_TEST

START_TEST(limits)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_buf_ struct buf text = {0};

	buf_adds(&text, "-- @route GET /a\n");
	for (int i = 0; i <= ENDPOINT_PARAMS_MAX; i++)
		buf_addf(&text, "-- @query p%d text\n", i);
	buf_adds(&text, "SELECT 1");
	for (int i = 0; i < ENDPOINT_PARAMS_MAX; i++)
		buf_addf(&text, ", :p%d", i);
	ck_assert_ptr_null(parse(text.data, text.len, errs));
	ck_assert_uint_eq(errors_count(errs), 1);
	ck_assert(strstr(errors_text(errs, 0), "at most 128 parameters"));
}
END_TEST

START_TEST(refuses_large_files)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_free_ char *text = xcalloc(ENDPOINT_FILE_MAX + 1, 1);

	memset(text, ' ', ENDPOINT_FILE_MAX + 1);
	ck_assert_ptr_null(endpoint_parse("t", "t.sql", text, ENDPOINT_FILE_MAX + 1, errs));
	ck_assert_str_eq(errors_text(errs, 0), "t.sql: the file is larger than 1048576 bytes");
}
END_TEST

START_TEST(every_prefix)
{
	for (size_t n = 0; n < sizeof(full); n++) {
		_cleanup_errors_ struct errors *errs = errors_new();
		_cleanup_endpoint_ struct endpoint *e = parse(full, n, errs);

		ck_assert((e != NULL) == (errors_count(errs) == 0));
	}
}
END_TEST

/* Whatever one byte becomes, the file is read or refused with a reason. */
START_TEST(byte_flips)
{
	static const char bytes[] = "\0\n :'\"$@={}(),-/*;[]|x9\x80\xff";
	char text[sizeof(full)];

	for (size_t i = 0; i < sizeof(full) - 1; i++) {
		for (size_t b = 0; b < sizeof(bytes) - 1; b++) {
			_cleanup_errors_ struct errors *errs = errors_new();
			_cleanup_endpoint_ struct endpoint *e = NULL;

			memcpy(text, full, sizeof(full));
			text[i] = bytes[b];
			e = endpoint_parse("t", "t.sql", text, sizeof(full) - 1, errs);
			ck_assert((e != NULL) == (errors_count(errs) == 0));
		}
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("endpoint");
	TCase *t = tcase_create("endpoint");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, refuses, 0, ELEMENTSOF(broken));
	tcase_add_test(t, reports_all_at_once);
	tcase_add_test(t, reads_everything);
	tcase_add_test(t, rewrites_the_statement);
	tcase_add_loop_test(t, keeps_tokens_apart, 0, ELEMENTSOF(fused));
	tcase_add_test(t, defaults);
	tcase_add_test(t, reads_bodies);
	tcase_add_test(t, objects_are_one_jsonb);
	tcase_add_test(t, knows_the_caller);
	tcase_add_test(t, types_have_oids);
	tcase_add_test(t, statements_have_names);
	tcase_add_test(t, limits);
	tcase_add_test(t, refuses_large_files);
	tcase_add_test(t, every_prefix);
	tcase_add_test(t, byte_flips);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#include <check.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "../../src/endpoint/router.h"
#include "provost/catalog.h"

/* A directory of its own per test, removed behind it. */
static char dir[] = "/tmp/provost-router-XXXXXX";

static void setup(void)
{
	strcpy(dir + sizeof(dir) - 7, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void teardown(void)
{
	_cleanup_free_ char *command = xasprintf("rm -rf '%s'", dir);

	ck_assert_int_eq(system(command), 0);
}

static void make_directory(const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);

	ck_assert_int_eq(mkdir(path, 0755), 0);
}

static void put(const char *name, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	_cleanup_fclose_ FILE *f = fopen(path, "we");

	ck_assert_ptr_nonnull(f);
	ck_assert_int_ge(fputs(text, f), 0);
}

/* A GET endpoint of that route; its parameters are text and stand in the answer. */
static void put_route(const char *name, const char *route)
{
	_cleanup_buf_ struct buf text = {0};
	_cleanup_buf_ struct buf sql = {0};

	buf_addf(&text, "-- @route GET %s\n", route);
	buf_adds(&sql, "SELECT 1");
	for (const char *p = route; (p = strstr(p, "/:")); p += 2) {
		int n = (int)strcspn(p + 2, "/");

		buf_addf(&text, "-- @path %.*s text\n", n, p + 2);
		buf_addf(&sql, ", :%.*s", n, p + 2);
	}
	buf_add(&text, sql.data, sql.len);
	buf_addc(&text, '\0');
	put(name, text.data);
}

static struct catalog *load(void)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct catalog *c = catalog_load(dir, errs);

	ck_assert_msg(c != NULL, "%s", c ? "" : errors_text(errs, 0));
	return c;
}

/* Loading fails; some error ends in `name` + `text`. */
static void expect_error(const char *name, const char *text)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_catalog_ struct catalog *c = catalog_load(dir, errs);
	_cleanup_free_ char *full = xasprintf("%s%s%s", dir, name, text);
	bool found = false;

	ck_assert_ptr_null(c);
	for (size_t i = 0; errors_text(errs, i); i++)
		found |= strncmp(errors_text(errs, i), full, strlen(full)) == 0;
	ck_assert_msg(found, "`%s` is not `%s`", errors_text(errs, 0), full);
}

/* ---- routing -----------------------------------------------------------------------------------
 */

static const char *const routes[][2] = {
    {"list.sql", "/api/courses"},
    {"get.sql", "/api/courses/:id"},
    {"top.sql", "/api/courses/top"},
    {"sub.sql", "/api/courses/:id/tags"},
    {"topsub.sql", "/api/courses/top/prices"},
    {"deep.sql", "/api/:kind/:id/tags/:tag"},
    {"anykind.sql", "/api/:kind"},
    {"cafe.sql", "/caf%C3%A9/:x"},
    {"slash.sql", "/a%2Fb"},
    {"plus.sql", "/a+b"},
};

/* A path, the endpoint it leads to, and its raw parameters joined by blanks. */
static const struct {
	const char *path, *name, *params;
} found[] = {
    {"/api/courses", "list", ""},
    {"/api/courses/", NULL, ""},
    {"/api//courses", NULL, ""},
    {"//api/courses", NULL, ""},
    {"/api/courses/1", "get", "1"},
    {"/api/courses/top", "top", ""},
    {"/api/courses/t%6Fp", "top", ""},
    {"/api/courses/t%6fp", "top", ""},
    {"/api/courses/Top", "get", "Top"},
    {"/api/courses/to", "get", "to"},
    {"/api/courses/top2", "get", "top2"},
    {"/api/courses/top/prices", "topsub", ""},
    {"/api/courses/top/tags", "sub", "top"},
    {"/api/courses/1/tags", "sub", "1"},
    {"/api/courses/1/tags/", NULL, ""},
    {"/api/courses/1/tags/2", "deep", "courses 1 2"},
    {"/api/courses/top/tags/2", "deep", "courses top 2"},
    {"/api/users", "anykind", "users"},
    {"/api/users/1/tags/2", "deep", "users 1 2"},
    {"/api/users/1", NULL, ""},
    {"/api/courses/1%2F2", "get", "1%2F2"},
    {"/api/courses/%", "get", "%"},
    {"/api/courses/%00", "get", "%00"},
    {"/api/courses/%2e%2e", "get", "%2e%2e"},
    {"/api%2Fcourses", NULL, ""},
    {"/%61pi/courses", "list", ""},
    {"/caf%C3%A9/1", "cafe", "1"},
    {"/caf\xc3\xa9/1", "cafe", "1"},
    {"/cafe/1", NULL, ""},
    {"/a%2Fb", "slash", ""},
    {"/a%2fb", "slash", ""},
    {"/a/b", NULL, ""},
    {"/a+b", "plus", ""},
    {"/a%2Bb", "plus", ""},
    {"/a%20b", NULL, ""},
    {"/", NULL, ""},
    {"", NULL, ""},
    {"api/courses", NULL, ""},
    {"/api/courses/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7", NULL,
     ""},
};

START_TEST(finds)
{
	_cleanup_catalog_ struct catalog *c = NULL;

	for (size_t i = 0; i < ELEMENTSOF(routes); i++)
		put_route(routes[i][0], routes[i][1]);
	c = load();
	for (size_t i = 0; i < ELEMENTSOF(found); i++) {
		struct slice path = {found[i].path, strlen(found[i].path)};
		_cleanup_buf_ struct buf params = {0};
		struct route_match m;

		catalog_route(c, METHOD_GET, path, &m);
		ck_assert_msg((m.endpoint != NULL) == (found[i].name != NULL), "%s", found[i].path);
		ck_assert_uint_eq(m.methods, found[i].name ? 1u << METHOD_GET : 0);
		if (!m.endpoint)
			continue;
		ck_assert_msg(strcmp(m.endpoint->name, found[i].name) == 0, "%s: %s", found[i].path,
		              m.endpoint->name);
		for (size_t j = 0; j < m.paths; j++) {
			if (j > 0)
				buf_addc(&params, ' ');
			buf_add(&params, m.path[j].p, m.path[j].n);
		}
		buf_addc(&params, '\0');
		ck_assert_str_eq(params.data, found[i].params);
	}
}
END_TEST

/* The catalogue would refuse these methods today; the router knows them all. */
START_TEST(knows_methods)
{
	static const char *const texts[] = {
	    "-- @route GET /a/:x\n-- @path x text\nSELECT :x",
	    "-- @route PUT /a/:y\n-- @path y text\nSELECT :y",
	    "-- @route PUT /a/b\nSELECT 1",
	    "-- @route POST /:z/b\n-- @path z text\nSELECT :z",
	    "-- @route DELETE /a/b/c\nSELECT 1",
	};
	_cleanup_errors_ struct errors *errs = errors_new();
	struct endpoint *e[ELEMENTSOF(texts)];
	struct catalog c = {.root = router_new()};
	struct slice path = {"/a/b", 4};
	struct route_match m;

	for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
		e[i] = endpoint_parse("t", "t.sql", texts[i], strlen(texts[i]), errs);
		ck_assert_ptr_nonnull(e[i]);
		ck_assert_ptr_null(router_add(c.root, e[i]));
	}
	ck_assert_ptr_eq(router_add(c.root, e[1]), e[1]);
	/* Static beats the parameter only among those that have the method. */
	catalog_route(&c, METHOD_PUT, path, &m);
	ck_assert_ptr_eq(m.endpoint, e[2]);
	ck_assert_uint_eq(m.paths, 0);
	catalog_route(&c, METHOD_GET, path, &m);
	ck_assert_ptr_eq(m.endpoint, e[0]);
	ck_assert(m.paths == 1 && m.path[0].n == 1 && m.path[0].p[0] == 'b');
	catalog_route(&c, METHOD_POST, path, &m);
	ck_assert_ptr_eq(m.endpoint, e[3]);
	ck_assert(m.paths == 1 && m.path[0].p[0] == 'a');
	catalog_route(&c, METHOD_DELETE, path, &m);
	ck_assert_ptr_null(m.endpoint);
	ck_assert_uint_eq(m.methods, 1u << METHOD_GET | 1u << METHOD_PUT | 1u << METHOD_POST);
	router_free(&c.root);
	for (size_t i = 0; i < ELEMENTSOF(texts); i++)
		endpoint_free(&e[i]);
}
END_TEST

START_TEST(finds_by_name)
{
	_cleanup_catalog_ struct catalog *c = NULL;

	make_directory("b");
	make_directory("b/c");
	put_route("b/c/x.sql", "/1");
	put_route("b/x.sql", "/2");
	put_route("b.sql", "/3");
	put_route("a.sql", "/4");
	c = load();
	ck_assert_uint_eq(c->endpoints, 4);
	for (size_t i = 1; i < c->endpoints; i++)
		ck_assert_int_lt(strcmp(c->endpoint[i - 1]->name, c->endpoint[i]->name), 0);
	ck_assert_str_eq(catalog_find(c, "b/c/x")->route, "/1");
	ck_assert_str_eq(catalog_find(c, "b")->route, "/3");
	ck_assert_ptr_null(catalog_find(c, "b/c"));
	ck_assert_ptr_null(catalog_find(c, ""));
}
END_TEST

/* ---- loading -----------------------------------------------------------------------------------
 */

START_TEST(leaves_other_files_alone)
{
	_cleanup_catalog_ struct catalog *c = NULL;

	put_route("a.sql", "/a");
	put("README.md", "not SQL");
	put(".hidden.sql", "not SQL");
	put("a.sql~", "not SQL");
	put("#a.sql#", "not SQL");
	put(".a.sql.swp", "not SQL");
	put(".sql", "not SQL");
	make_directory(".git");
	put(".git/x.sql", "not SQL");
	make_directory("empty");
	c = load();
	ck_assert_uint_eq(c->endpoints, 1);
}
END_TEST

START_TEST(reports_every_file)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_catalog_ struct catalog *c = NULL;

	put("a.sql", "-- @route GET /a\n-- @foo\nSELECT :x");
	put("b.sql", "SELECT");
	put_route("c.sql", "/c");
	put_route("d.sql", "/c");
	c = catalog_load(dir, errs);
	ck_assert_ptr_null(c);
	ck_assert_uint_eq(errors_count(errs), 4);
}
END_TEST

START_TEST(refuses_an_empty_directory)
{
	expect_error("", ": holds no endpoint");
}
END_TEST

START_TEST(refuses_a_missing_directory)
{
	_cleanup_errors_ struct errors *errs = errors_new();

	ck_assert_ptr_null(catalog_load("/nonexistent/endpoints", errs));
	ck_assert_str_eq(errors_text(errs, 0),
	                 "/nonexistent/endpoints: cannot be read: No such file or directory");
}
END_TEST

START_TEST(refuses_duplicates)
{
	put_route("a.sql", "/x/:a/y");
	put_route("b.sql", "/x/:b/y");
	expect_error("/b.sql:1: ", "GET /x/:b/y is the same route as /x/:a/y in ");
}
END_TEST

START_TEST(refuses_the_same_in_other_letters)
{
	put_route("a.sql", "/x%79");
	put_route("b.sql", "/xy");
	expect_error("/b.sql:1: ", "GET /xy is the same route as /x%79 in ");
}
END_TEST

static const char *const reserved[] = {
    "/livez",
    "/readyz",
    "/metrics",
    "/ws",
    "/echo",
    "/client",
    "/client/a",
    "/client/a/b.js",
    "/api/batch",
    "/",
    "/live%7A",
    "/client/:x",
    "/api/admin/cache",
    "/api/admin/revocations",
    "/api/admin/websocket",
};

START_TEST(refuses_reserved_paths)
{
	put_route("a.sql", reserved[_i]);
	expect_error("/a.sql:1: ", "`/");
}
END_TEST

static const char *const free_paths[] = {"/:x",      "/livez/x", "/api/:x",
                                         "/clients", "/ws2",     "/Client"};

START_TEST(allows_others)
{
	_cleanup_catalog_ struct catalog *c = NULL;

	put_route("a.sql", free_paths[_i]);
	c = load();
	ck_assert_uint_eq(c->endpoints, 1);
}
END_TEST

START_TEST(refuses_odd_names)
{
	put_route("a b.sql", "/a");
	expect_error("/a b.sql", ": an endpoint's name has letters");
}
END_TEST

START_TEST(follows_links_to_files)
{
	_cleanup_free_ char *link = xasprintf("%s/b.sql", dir);
	_cleanup_catalog_ struct catalog *c = NULL;

	make_directory("..data");
	put_route("..data/b.sql", "/b");
	ck_assert_int_eq(symlink("..data/b.sql", link), 0);
	c = load();
	ck_assert_ptr_nonnull(catalog_find(c, "b"));
}
END_TEST

START_TEST(refuses_links_to_directories)
{
	_cleanup_free_ char *link = xasprintf("%s/loop", dir);

	put_route("a.sql", "/a");
	ck_assert_int_eq(symlink(".", link), 0);
	expect_error("/loop", ": links to a directory are not followed");
}
END_TEST

START_TEST(refuses_broken_links_and_pipes)
{
	_cleanup_free_ char *link = xasprintf("%s/b.sql", dir);

	put_route("a.sql", "/a");
	ck_assert_int_eq(symlink("nowhere", link), 0);
	expect_error("/b.sql", ": cannot be read");
	ck_assert_int_eq(unlink(link), 0);
	ck_assert_int_eq(mkfifo(link, 0600), 0);
	expect_error("/b.sql", ": is neither a file nor a directory");
}
END_TEST

START_TEST(refuses_deep_directories)
{
	_cleanup_buf_ struct buf path = {0};

	for (int i = 0; i <= CATALOG_DEPTH_MAX; i++) {
		_cleanup_free_ char *name = NULL;

		buf_adds(&path, i ? "/d" : "d");
		name = xstrndup(path.data, path.len);
		make_directory(name);
	}
	expect_error("/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d",
	             ": directories are nested deeper than 16");
}
END_TEST

START_TEST(refuses_large_files)
{
	_cleanup_free_ char *text = xcalloc(ENDPOINT_FILE_MAX + 100000, 1);

	memset(text, ' ', ENDPOINT_FILE_MAX + 99999);
	put("a.sql", text);
	expect_error("/a.sql", ": the file is larger than");
}
END_TEST

START_TEST(can_be_published)
{
	struct catalog *c;

	put_route("a.sql", "/a");
	c = load();
	ck_assert_ptr_nonnull(c->object.free);
	c->object.free(&c->object);
}
END_TEST

/* The endpoints that Provost ships. */
START_TEST(loads_the_shipped_endpoints)
{
	const char *root = getenv("SOURCE_ROOT");
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_catalog_ struct catalog *c = NULL;
	_cleanup_free_ char *path = NULL;

	if (!root)
		return;
	path = xasprintf("%s/config/endpoints", root);
	c = catalog_load(path, errs);
	ck_assert_msg(c != NULL, "%s", c ? "" : errors_text(errs, 0));
	ck_assert_ptr_nonnull(catalog_find(c, "courses/get"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("router");
	TCase *t = tcase_create("router");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, finds);
	tcase_add_test(t, knows_methods);
	tcase_add_test(t, finds_by_name);
	tcase_add_test(t, leaves_other_files_alone);
	tcase_add_test(t, reports_every_file);
	tcase_add_test(t, refuses_an_empty_directory);
	tcase_add_test(t, refuses_a_missing_directory);
	tcase_add_test(t, refuses_duplicates);
	tcase_add_test(t, refuses_the_same_in_other_letters);
	tcase_add_loop_test(t, refuses_reserved_paths, 0, ELEMENTSOF(reserved));
	tcase_add_loop_test(t, allows_others, 0, ELEMENTSOF(free_paths));
	tcase_add_test(t, refuses_odd_names);
	tcase_add_test(t, follows_links_to_files);
	tcase_add_test(t, refuses_links_to_directories);
	tcase_add_test(t, refuses_broken_links_and_pipes);
	tcase_add_test(t, refuses_deep_directories);
	tcase_add_test(t, refuses_large_files);
	tcase_add_test(t, can_be_published);
	tcase_add_test(t, loads_the_shipped_endpoints);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

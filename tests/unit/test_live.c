#include <dirent.h>

#include "engine_fixture.h"

#include "provost/catalog.h"
#include "provost/live.h"
#include "provost/snapshot.h"

/* ---- what is watched ----------------------------------------------------------------- */

/* Whoever reads an item waits for a lock of its number, so that a test can hold each of them. */
enum { FIRST_ITEM = 910001, LAST_ITEM = 910400, NO_ITEM = 910999 };

static void create_objects(void)
{
	pg_open();
	pg_ask("SET client_min_messages = error;"
	       "DROP SCHEMA IF EXISTS test_live CASCADE;"
	       "CREATE SCHEMA test_live;"
	       "CREATE TABLE test_live.item (id integer PRIMARY KEY, n integer);"
	       "INSERT INTO test_live.item SELECT i, 1 FROM generate_series(910001, 910400) i;"
	       "CREATE FUNCTION test_live.secret() RETURNS integer LANGUAGE plpgsql STABLE"
	       " AS 'BEGIN RETURN 1; END';"
	       "GRANT USAGE ON SCHEMA test_live TO public;"
	       "GRANT SELECT ON test_live.item TO public");
	pg_close();
}

static const struct file {
	const char *name, *text;
} files[] = {
    {"item.sql", "-- @route GET /api/items/:id\n"
                 "-- @path id integer\n"
                 "-- @role Staff,admin\n"
                 "-- @depends test_live.item(id=:id)\n"
                 "SELECT to_json(i.n) FROM test_live.item i,"
                 " LATERAL pg_advisory_xact_lock_shared(i.id) WHERE i.id = :id\n"},
    {"items.sql", "-- @route GET /api/items\n"
                  "-- @query limit integer min=1 max=100 default=10\n"
                  "-- @query page integer min=1 default=1\n"
                  "-- @query sort text enum=up|down\n"
                  "SELECT json_build_array(count(*), :limit, :page, :sort) FROM test_live.item\n"},
    {"mine.sql", "-- @route GET /api/mine\n"
                 "-- @role staff\n"
                 "SELECT json_build_array(:auth_sub, count(*)) FROM test_live.item\n"},
    {"hello.sql", "-- @route GET /hello\n"
                  "-- @role public\n"
                  "SELECT '1'::json\n"},
    {"asis.sql", "-- @route GET /api/asis\n"
                 "-- @cache off\n"
                 "SELECT to_json(count(*)) FROM test_live.item\n"},
    {"tagged.sql", "-- @route GET /api/tagged\n"
                   "-- @cache tags=weather\n"
                   "SELECT '1'::json\n"},
    {"never.sql", "-- @route GET /api/never\n"
                  "-- @cache off\n"
                  "SELECT '1'::json\n"},
    {"opaque.sql", "-- @route GET /api/opaque\n"
                   "SELECT to_json(test_live.secret())\n"},
    {"nothing.sql", "-- @route GET /api/nothing\n"
                    "-- @returns none\n"
                    "SELECT id FROM test_live.item\n"},
    {"any.sql", "-- @route GET /api/admin/:what\n"
                "-- @path what text\n"
                "SELECT to_json(:what::text) FROM test_live.item\n"},
    {"add.sql", "-- @route POST /api/additions\n"
                "-- @returns none\n"
                "SELECT id FROM test_live.item\n"},
    {"broken.sql", "-- @route GET /api/broken\n"
                   "SELECT to_json(1 / (count(*) - count(*))) FROM test_live.item\n"},
    {"many.sql", "-- @route GET /api/many\n"
                 "-- @query a json[] required\n-- @query b uuid required\n"
                 "-- @query c date required\n-- @query d timestamp required\n"
                 "-- @query e numeric required\n-- @query f uuid required\n"
                 "-- @query g date required\n-- @query h timestamp required\n"
                 "-- @query i uuid required\n-- @query j timestamp required\n"
                 "-- @query k uuid required\n-- @query l timestamp required\n"
                 "SELECT json_build_array(:a, :b, :c, :d, :e, :f, :g, :h, :i, :j, :k, :l)"
                 " FROM test_live.item\n"},
    {"large.sql", "-- @route GET /api/large\n"
                  "-- @query bytes integer\n"
                  "SELECT to_json(repeat('x', :bytes)) FROM test_live.item LIMIT 1\n"},
};

static struct snapshot *catalogs;
static struct catalog *catalog; /* that was published last */
static struct live *live;

static void write_file(const char *dir, const struct file *f)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, f->name);
	_cleanup_fclose_ FILE *out = fopen(path, "w");
	ck_assert_ptr_nonnull(out);
	fputs(f->text, out);
}

static void remove_files(const char *dir)
{
	for (size_t i = 0; i < ELEMENTSOF(files); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, files[i].name);
		unlink(path);
	}
	rmdir(dir);
}

/* As PostgreSQL describes it; what only the configuration says is set here. */
static struct catalog *load(void)
{
	char dir[] = "/tmp/test_live_XXXXXX";
	_cleanup_errors_ struct errors *errs = errors_new();
	ck_assert_ptr_nonnull(mkdtemp(dir));
	for (size_t i = 0; i < ELEMENTSOF(files); i++)
		write_file(dir, &files[i]);
	struct catalog *c = catalog_load(dir, errs);
	remove_files(dir);
	ck_assert_msg(c, "%s", errors_text(errs, 0));
	int r = engine_describe(c, getenv("PROVOST_TEST_APP_DSN"), true, -1, clock_us() + 60000000,
	                        errs);
	ck_assert_msg(r == 0, "%s", errors_text(errs, 0));
	for (size_t i = 0; i < c->endpoints; i++)
		c->endpoint[i]->freshness = (struct freshness){.ttl_ms = 600000};
	return c;
}

static void publish(void)
{
	catalog = load();
	snapshot_set(catalogs, &catalog->object);
}

static void setup_live(void)
{
	setup();
	catalogs = snapshot_new();
}

static void teardown_live(void)
{
	live_free(&live);
	teardown();
	snapshot_set(catalogs, NULL);
	snapshot_free(&catalogs);
}

static void start_live(unsigned threads, unsigned queue)
{
	const struct engine_options o = options(threads, queue);
	start(relay->url, threads, PATIENCE_MS, &o);
	publish();
	live = live_new(catalogs, cache, engine, generations);
}

static void change_items(void)
{
	tags_raise_table(generations, "test_live.item");
	tags_raise_rows(generations, "test_live.item");
}

/* ---- finding ------------------------------------------------------------------------- */

static char admin[] = "admin", staff[] = "staff", guest[] = "guest";

static struct identity as(char **role, const char *subject)
{
	return (struct identity){.kind = IDENTITY_JWT,
	                         .subject = subject,
	                         .roles = {.item = role, .count = 1},
	                         .roles_text = *role,
	                         .claims = "{}",
	                         .token_id = ""};
}

static char *administrator[] = {admin}, *employee[] = {staff}, *visitor[] = {guest};

static int find_as(const char *path, char **role, const char *subject, struct live_path *ret,
                   struct live_problem *problem)
{
	const struct identity i = as(role, subject);
	return live_find(live, path, strlen(path), &i, ret, problem);
}

static struct live_path find(const char *path)
{
	struct live_problem problem;
	struct live_path p;
	ck_assert_msg(find_as(path, administrator, "a", &p, &problem) == 0, "%s: %s", path,
	              problem.detail);
	return p;
}

static struct live_path find_item(int id)
{
	char path[64];
	snprintf(path, sizeof path, "/api/items/%d", id);
	return find(path);
}

static bool same_key(struct live_path a, struct live_path b)
{
	bool same = a.key.len == b.key.len && !memcmp(a.key.data, b.key.data, a.key.len);
	live_path_done(&a);
	live_path_done(&b);
	return same;
}

START_TEST(paths_with_the_same_answer_have_the_same_key)
{
	start_live(2, 10);
	ck_assert(same_key(find("/api/items"), find("/api/items?page=1&limit=10")));
	ck_assert(same_key(find("/api/items?x=1"), find("/api/items?limit=%310")));
	ck_assert(!same_key(find("/api/items"), find("/api/items?page=2")));
	ck_assert(same_key(find("/hello"), find("/hello?a")));
}
END_TEST

START_TEST(who_is_calling_is_in_the_key_where_the_answer_depends_on_it)
{
	struct live_problem problem;
	struct live_path a, b, c;
	start_live(2, 10);
	ck_assert_int_eq(find_as("/api/mine", employee, "a", &a, &problem), 0);
	ck_assert_int_eq(find_as("/api/mine", employee, "b", &b, &problem), 0);
	ck_assert_int_eq(find_as("/api/mine", employee, "a", &c, &problem), 0);
	ck_assert(a.key.len == c.key.len && !memcmp(a.key.data, c.key.data, a.key.len));
	live_path_done(&c);
	ck_assert(!same_key(a, b));
	ck_assert_int_eq(find_as("/api/items/910001", employee, "a", &a, &problem), 0);
	ck_assert_int_eq(find_as("/api/items/910001", administrator, "b", &b, &problem), 0);
	ck_assert(same_key(a, b));
	ck_assert_int_eq(find_as("/hello", visitor, "c", &a, &problem), 0);
	live_path_done(&a);
}
END_TEST

START_TEST(how_long_an_answer_may_be_shown)
{
	struct live_path p;
	start_live(2, 10);
	p = find("/hello");
	ck_assert_int_eq(live_path_ttl_ms(&p), 600000);
	live_path_done(&p);
	p = find("/api/asis");
	ck_assert_int_eq(live_path_ttl_ms(&p), 0);
	live_path_done(&p);
	p = find("/api/items/1");
	ck_assert_int_eq(live_path_ttl_ms(&p), 0);
	live_path_done(&p);
	catalog_find(catalog, "tagged")->freshness.ttl_ms = 0;
	p = find("/api/tagged");
	ck_assert_int_eq(live_path_ttl_ms(&p), 0);
	live_path_done(&p);
}
END_TEST

static const struct refusal {
	const char *path;
	char **role;
	unsigned status;
	const char *detail;
} refusals[] = {
    {"", administrator, 400, "must be that of a GET"},
    {"api/items", administrator, 400, "must be that of a GET"},
    {"*", administrator, 400, "must be that of a GET"},
    {"http://host/api/items", administrator, 400, "must be that of a GET"},
    {"/api/items#a", administrator, 400, "must be that of a GET"},
    {"/api/items ", administrator, 400, "must be that of a GET"},
    {"/api/%zz", administrator, 400, "must be that of a GET"},
    {"/api/courses", administrator, 404, "There is nothing at this path."},
    {"/api/items/", administrator, 404, "There is nothing at this path."},
    {"/", administrator, 404, "Only endpoints can be live"},
    {"/livez", administrator, 404, "Only endpoints can be live"},
    {"/ws", administrator, 404, "Only endpoints can be live"},
    {"/client/demo.html", administrator, 404, "Only endpoints can be live"},
    /* Though an endpoint's route fits. */
    {"/api/admin/cache", administrator, 404, "Only endpoints can be live"},
    {"/api/admin/cache?x=1", visitor, 404, "Only endpoints can be live"},
    {"/api/additions", administrator, 405, "The path does not answer to GET."},
    {"/api/additions", visitor, 405, "The path does not answer to GET."},
    {"/api/items", visitor, 403, "This is not for your role."},
    {"/api/items", employee, 403, "This is not for your role."},
    {"/api/never", visitor, 403, "This is not for your role."},
    {"/api/items?limit=0", visitor, 403, "This is not for your role."},
    {"/api/items/x", administrator, 400, "id: must be"},
    {"/api/items?limit=1&limit=2", administrator, 400, "limit: "},
    {"/api/items?limit=%zz", administrator, 400, "limit: "},
    {"/api/never", administrator, 422, "no table, no tag and no ttl"},
    {"/api/opaque", administrator, 422, "`provost check`"},
    {"/api/nothing", administrator, 422, "returns nothing"},
};

START_TEST(refuses)
{
	start_live(1, 1);
	for (const struct refusal *x = refusals; x < refusals + ELEMENTSOF(refusals); x++) {
		struct live_problem problem = {0};
		struct live_path p;
		ck_assert_int_eq(find_as(x->path, x->role, "a", &p, &problem), -EINVAL);
		ck_assert_msg(problem.status == x->status && strstr(problem.detail, x->detail),
		              "%s: %u %s", x->path, problem.status, problem.detail);
	}
}
END_TEST

START_TEST(an_endpoint_of_any_name_but_our_own_is_found)
{
	start_live(1, 1);
	struct live_path p = find("/api/admin/caches");
	ck_assert_str_eq(p.endpoint->name, "any");
	live_path_done(&p);
}
END_TEST

START_TEST(all_parameters_that_are_wrong_are_named)
{
	struct live_problem problem;
	struct live_path p;
	start_live(1, 1);
	ck_assert_int_eq(
	    find_as("/api/items?limit=0&page=x&sort=up", administrator, "a", &p, &problem),
	    -EINVAL);
	ck_assert_uint_eq(problem.status, 400);
	ck_assert_ptr_nonnull(strstr(problem.detail, "limit: "));
	ck_assert_ptr_nonnull(strstr(problem.detail, "; page: "));
	ck_assert_ptr_null(strstr(problem.detail, "sort"));
}
END_TEST

START_TEST(of_many_that_are_wrong_as_many_are_named_as_there_is_room_for)
{
	struct live_problem problem;
	struct live_path p;
	start_live(1, 1);
	ck_assert_int_eq(find_as("/api/many?b=x&c=x&d=x&e=x&f=x&g=x&h=x&i=x&j=x&k=x&l=x",
	                         administrator, "a", &p, &problem),
	                 -EINVAL);
	size_t n = strlen(problem.detail), end = strlen("; and more");
	ck_assert_uint_gt(n, end);
	ck_assert_str_eq(problem.detail + n - end, "; and more");
	ck_assert_ptr_nonnull(strstr(problem.detail, "; b: "));
}
END_TEST

START_TEST(a_long_path_is_refused)
{
	struct live_problem problem;
	struct live_path p;
	char path[LIVE_PATH_MAX + 2] = "/hello?";
	start_live(1, 1);
	memset(path + 7, 'x', sizeof path - 8);
	ck_assert_uint_eq(strlen(path), LIVE_PATH_MAX + 1);
	ck_assert_int_eq(find_as(path, administrator, "a", &p, &problem), -EINVAL);
	ck_assert_uint_eq(problem.status, 414);
	path[LIVE_PATH_MAX] = '\0';
	ck_assert_int_eq(find_as(path, administrator, "a", &p, &problem), 0);
	live_path_done(&p);
}
END_TEST

START_TEST(without_a_catalogue_nothing_is_found)
{
	const struct engine_options o = options(1, 1);
	struct live_problem problem;
	struct live_path p;
	start(relay->url, 1, PATIENCE_MS, &o);
	live = live_new(catalogs, cache, engine, generations);
	ck_assert_int_eq(find_as("/hello", administrator, "a", &p, &problem), -EINVAL);
	ck_assert_uint_eq(problem.status, 503);
}
END_TEST

START_TEST(a_path_is_found_anew_when_its_endpoint_is_another)
{
	start_live(1, 10);
	struct live_path before = find("/api/items"), after;
	ck_assert(live_path_is_current(live, &before));
	publish();
	ck_assert(!live_path_is_current(live, &before));
	after = find("/api/items");
	ck_assert(live_path_is_current(live, &after));
	ck_assert(same_key(before, after));
}
END_TEST

START_TEST(what_is_not_told_of_is_not_live)
{
	struct live_problem problem;
	struct live_path p, again;
	start_live(1, 10);
	p = find("/api/items");
	struct endpoint *e = catalog_find(catalog, "items");
	atomic_store(&e->uncovered, true);
	ck_assert(!live_path_is_current(live, &p));
	ck_assert_int_eq(find_as("/api/items", administrator, "a", &again, &problem), -EINVAL);
	ck_assert_uint_eq(problem.status, 422);
	ck_assert_ptr_nonnull(strstr(problem.detail, "`provost triggers install`"));
	atomic_store(&e->uncovered, false);
	ck_assert(live_path_is_current(live, &p));
	live_path_done(&p);
}
END_TEST

/* ---- reading ------------------------------------------------------------------------- */

struct reading {
	struct live_read read;
	atomic_uint done;
};

static void count_reading(struct live_read *r)
{
	struct reading *g = (struct reading *)((char *)r - offsetof(struct reading, read));
	atomic_fetch_add(&g->done, 1);
}

static int begin(struct reading *g, const struct live_path *p, enum live_urgency urgency)
{
	atomic_init(&g->done, 0);
	g->read.done = count_reading;
	return live_read(live, p, urgency, &g->read);
}

static void begin_item(struct reading *g, int id, enum live_urgency urgency)
{
	struct live_path p = find_item(id);
	ck_assert_int_eq(begin(g, &p, urgency), 0);
	live_path_done(&p); /* it has been copied */
}

static bool has_ended(struct reading *g)
{
	return atomic_load(&g->done) > 0;
}

static void await(struct reading *g)
{
	WAIT_UNTIL(has_ended(g));
	ck_assert_uint_eq(atomic_load(&g->done), 1);
}

/* Who was parked behind a statement may be answered before those who waited for it. */
static void end_reading(struct reading *g)
{
	await(g);
	live_read_done(&g->read);
}

static void expect_body(struct reading *g, const char *body)
{
	await(g);
	ck_assert_msg(g->read.status == 200, "%u: %s", g->read.status, g->read.detail);
	ck_assert_uint_eq(g->read.body_len, strlen(body));
	ck_assert_mem_eq(g->read.body, body, strlen(body));
}

static void expect_status(struct reading *g, unsigned status)
{
	await(g);
	ck_assert_uint_eq(g->read.status, status);
	ck_assert(g->read.detail && *g->read.detail);
	ck_assert_ptr_null(g->read.body);
}

static bool is_old(const struct reading *g)
{
	return live_is_old(live, g->read.slot, g->read.slots, g->read.start);
}

static unsigned executed(void)
{
	return atomic_load(&relay->executed);
}

static void lock_item(int id, bool on)
{
	char sql[64];
	snprintf(sql, sizeof sql, "SELECT pg_advisory_%s(%d)", on ? "lock" : "unlock", id);
	pg_ask(sql);
}

START_TEST(what_is_in_the_cache_is_read_from_there)
{
	struct reading first, second;
	start_live(2, 10);
	begin_item(&first, FIRST_ITEM, LIVE_FIRST);
	expect_body(&first, "1");
	ck_assert(!first.read.stale && first.read.slots > 0);
	WAIT_UNTIL(stats().busy == 0);
	for (int i = 0; i < 2; i++) {
		begin_item(&second, FIRST_ITEM, i ? LIVE_REFRESH : LIVE_FIRST);
		ck_assert_uint_eq(atomic_load(&second.done), 1);
		expect_body(&second, "1");
		ck_assert_mem_eq(second.read.etag, first.read.etag, sizeof first.read.etag);
		ck_assert_uint_eq(second.read.start, first.read.start);
		ck_assert_uint_eq(second.read.started_ms, first.read.started_ms);
		ck_assert_uint_eq(second.read.slots, first.read.slots);
		ck_assert_mem_eq(second.read.slot, first.read.slot,
		                 first.read.slots * sizeof(gen_slot));
		end_reading(&second);
	}
	ck_assert_uint_eq(executed(), 1);
	end_reading(&first);
}
END_TEST

START_TEST(what_is_not_stored_is_asked_for_each_time)
{
	struct reading g;
	start_live(2, 10);
	struct live_path p = find("/api/asis");
	for (unsigned i = 1; i <= 2; i++) {
		ck_assert_int_eq(begin(&g, &p, LIVE_FIRST), 0);
		expect_body(&g, "400");
		ck_assert_uint_eq(executed(), i);
		ck_assert(!is_old(&g));
		change_items();
		ck_assert(is_old(&g));
		end_reading(&g);
	}
	live_path_done(&p);
}
END_TEST

START_TEST(an_answer_is_old_after_a_change_of_what_it_was_made_from)
{
	struct reading one, other, cached;
	start_live(2, 10);
	begin_item(&one, FIRST_ITEM, LIVE_FIRST);
	begin_item(&other, FIRST_ITEM + 1, LIVE_FIRST);
	expect_body(&one, "1");
	expect_body(&other, "1");
	WAIT_UNTIL(stats().busy == 0);
	begin_item(&cached, FIRST_ITEM, LIVE_FIRST);
	await(&cached);
	uint64_t raises = live_raises(live);
	ck_assert(!is_old(&one) && !is_old(&other) && !is_old(&cached));
	tags_raise_row(generations, "test_live.item", "id", "910001");
	ck_assert(live_raises(live) > raises);
	ck_assert(is_old(&one) && !is_old(&other) && is_old(&cached));
	generations_raise_epoch(generations);
	ck_assert(is_old(&other));
	end_reading(&one);
	end_reading(&other);
	end_reading(&cached);
	begin_item(&one, FIRST_ITEM, LIVE_REFRESH);
	expect_body(&one, "1");
	ck_assert(!is_old(&one));
	ck_assert_uint_eq(executed(), 3);
	end_reading(&one);
}
END_TEST

START_TEST(a_hundred_readers_are_one_statement)
{
	static struct reading g[100];
	start_live(2, 10);
	lock_item(FIRST_ITEM, true);
	for (size_t i = 0; i < ELEMENTSOF(g); i++)
		begin_item(&g[i], FIRST_ITEM, i % 2 ? LIVE_REFRESH : LIVE_FIRST);
	WAIT_UNTIL(pg_running() == 1);
	ck_assert_uint_eq(stats().waiting, 0);
	lock_item(FIRST_ITEM, false);
	for (size_t i = 0; i < ELEMENTSOF(g); i++)
		expect_body(&g[i], "1");
	ck_assert_uint_eq(executed(), 1);
	for (size_t i = 0; i < ELEMENTSOF(g); i++)
		end_reading(&g[i]);
}
END_TEST

/* ---- failures ------------------------------------------------------------------------ */

START_TEST(a_failure_says_what_http_would)
{
	struct reading g;
	start_live(2, 10);
	struct live_path p = find("/api/broken");
	ck_assert_int_eq(begin(&g, &p, LIVE_FIRST), 0);
	expect_status(&g, 422);
	ck_assert_str_eq(g.read.detail, "A value is outside of what the database accepts.");
	ck_assert(!is_old(&g));
	change_items();
	ck_assert(is_old(&g));
	end_reading(&g);
	live_path_done(&p);
}
END_TEST

/* It is told when there is one again. */
START_TEST(what_is_not_there_is_404)
{
	struct reading g;
	start_live(2, 10);
	for (unsigned i = 0; i < 2; i++) {
		begin_item(&g, NO_ITEM, LIVE_FIRST);
		expect_status(&g, 404);
		ck_assert_uint_eq(executed(), 1); /* then it is in the cache that it is not */
		ck_assert(!is_old(&g));
		end_reading(&g);
		WAIT_UNTIL(stats().busy == 0);
	}
	begin_item(&g, NO_ITEM, LIVE_FIRST);
	tags_raise_row(generations, "test_live.item", "id", "910999");
	ck_assert(is_old(&g));
	end_reading(&g);
}
END_TEST

START_TEST(a_large_body_is_left_to_http)
{
	struct reading g;
	char path[64];
	start_live(2, 10);
	for (int more = -2; more <= -1; more++) { /* with its quotes */
		snprintf(path, sizeof path, "/api/large?bytes=%d", LIVE_BODY_MAX + more);
		struct live_path p = find(path);
		ck_assert_int_eq(begin(&g, &p, LIVE_FIRST), 0);
		await(&g);
		ck_assert_uint_eq(g.read.status, more == -2 ? 200 : 413);
		ck_assert_uint_eq(g.read.body_len, more == -2 ? LIVE_BODY_MAX : 0);
		ck_assert(!is_old(&g));
		end_reading(&g);
		live_path_done(&p);
	}
}
END_TEST

START_TEST(a_full_queue_refuses)
{
	struct reading busy, waiting, more = {0};
	start_live(1, 1);
	lock_item(FIRST_ITEM, true);
	begin_item(&busy, FIRST_ITEM, LIVE_FIRST);
	WAIT_UNTIL(pg_running() == 1);
	begin_item(&waiting, FIRST_ITEM + 1, LIVE_FIRST);
	struct live_path p = find_item(FIRST_ITEM + 2);
	ck_assert_int_eq(begin(&more, &p, LIVE_FIRST), -EAGAIN);
	live_path_done(&p);
	lock_item(FIRST_ITEM, false);
	expect_body(&busy, "1");
	expect_body(&waiting, "1");
	ck_assert(!has_ended(&more));
	end_reading(&busy);
	end_reading(&waiting);
}
END_TEST

static struct endpoint *allow_stale(const char *name)
{
	struct endpoint *e = catalog_find(catalog, name);
	e->freshness.stale_if_error_ms = 600000;
	return e;
}

START_TEST(what_was_stored_stands_in_for_a_database_that_is_away)
{
	struct reading before, g;
	start_live(2, 10);
	struct endpoint *e = allow_stale("item");
	begin_item(&before, FIRST_ITEM, LIVE_FIRST);
	expect_body(&before, "1");
	WAIT_UNTIL(stats().busy == 0);
	change_items();
	tags_raise_row(generations, "test_live.item", "id", "910001");
	relay_stop(&relay);
	for (unsigned i = 0; i < 4; i++) {
		begin_item(&g, FIRST_ITEM, i % 2 ? LIVE_FIRST : LIVE_REFRESH);
		expect_body(&g, "1");
		ck_assert(g.read.stale && is_old(&g));
		ck_assert_uint_eq(g.read.start, before.read.start);
		end_reading(&g);
	}
	/* It is known by now: nobody waits for it. */
	WAIT_UNTIL(!engine_database_is_up(engine));
	begin_item(&g, FIRST_ITEM, LIVE_FIRST);
	ck_assert_uint_eq(atomic_load(&g.done), 1);
	ck_assert(g.read.stale);
	end_reading(&g);
	begin_item(&g, FIRST_ITEM + 1, LIVE_FIRST);
	expect_status(&g, 503);
	end_reading(&g);
	e->freshness.stale_if_error_ms = 0;
	begin_item(&g, FIRST_ITEM, LIVE_FIRST);
	expect_status(&g, 503);
	ck_assert(!g.read.stale);
	end_reading(&g);
	end_reading(&before);
	relay = relay_start(0); /* for teardown */
}
END_TEST

/* The database runs, and says no: that is the answer. */
START_TEST(nothing_stands_in_for_a_refusal)
{
	struct reading g;
	start_live(2, 10);
	allow_stale("broken");
	struct live_path p = find("/api/broken");
	for (unsigned i = 0; i < 2; i++) {
		ck_assert_int_eq(begin(&g, &p, LIVE_REFRESH), 0);
		expect_status(&g, 422);
		end_reading(&g);
	}
	live_path_done(&p);
}
END_TEST

/* ---- the background ------------------------------------------------------------------ */

START_TEST(refreshes_have_a_quota)
{
	struct reading refresh[3], first;
	start_live(4, 10);
	for (int i = 0; i < 3; i++) {
		lock_item(FIRST_ITEM + i, true);
		begin_item(&refresh[i], FIRST_ITEM + i, LIVE_REFRESH);
	}
	WAIT_UNTIL(pg_running() == 1);
	ck_assert_uint_eq(stats().refreshes, 3);
	ck_assert_uint_eq(stats().waiting, 0); /* for them no request is refused */
	begin_item(&first, FIRST_ITEM + 3, LIVE_FIRST);
	expect_body(&first, "1");
	end_reading(&first);
	ck_assert_uint_eq(pg_running(), 1);
	/* A request for the same is not held up by it. */
	begin_item(&first, FIRST_ITEM + 2, LIVE_FIRST);
	WAIT_UNTIL(pg_running() == 2);
	for (int i = 0; i < 3; i++)
		lock_item(FIRST_ITEM + i, false);
	for (int i = 0; i < 3; i++)
		expect_body(&refresh[i], "1");
	expect_body(&first, "1");
	ck_assert_uint_eq(executed(), 4);
	end_reading(&first);
	for (int i = 0; i < 3; i++)
		end_reading(&refresh[i]);
}
END_TEST

/* Begins a reading, and when its statement runs a refresh that must not have the same answer. */
static void begin_behind(struct reading *first, struct reading *refresh, int id)
{
	unsigned running = pg_running();
	lock_item(id, true);
	begin_item(first, id, LIVE_FIRST);
	WAIT_UNTIL(pg_running() == running + 1);
	change_items();
	char value[16];
	snprintf(value, sizeof value, "%d", id);
	tags_raise_row(generations, "test_live.item", "id", value);
	begin_item(refresh, id, LIVE_REFRESH);
}

START_TEST(a_refresh_waits_behind_what_is_too_old)
{
	struct reading first, refresh[3], other;
	start_live(4, 1);
	begin_behind(&first, &refresh[0], FIRST_ITEM);
	begin_item(&refresh[1], FIRST_ITEM, LIVE_REFRESH);
	begin_item(&refresh[2], FIRST_ITEM, LIVE_REFRESH);
	ck_assert_uint_eq(stats().refreshes, 1);
	ck_assert_uint_eq(stats().waiting, 0);
	begin_item(&other, FIRST_ITEM + 1, LIVE_FIRST); /* into a queue of one */
	expect_body(&other, "1");
	ck_assert(!has_ended(&first) && !has_ended(&refresh[0]));
	lock_item(FIRST_ITEM, false);
	expect_body(&first, "1");
	ck_assert(is_old(&first));
	for (size_t i = 0; i < ELEMENTSOF(refresh); i++) {
		expect_body(&refresh[i], "1");
		ck_assert(!is_old(&refresh[i]));
		end_reading(&refresh[i]);
	}
	ck_assert_uint_eq(executed(), 3);
	end_reading(&first);
	end_reading(&other);
}
END_TEST

/* Who asks puts up with what is a little old; a refresh is there to show the change. */
START_TEST(a_refresh_does_not_join_what_max_stale_allows_for)
{
	struct reading first, refresh, request;
	start_live(4, 10);
	catalog_find(catalog, "item")->freshness.max_stale_ms = 600000;
	begin_behind(&first, &refresh, FIRST_ITEM);
	begin_item(&request, FIRST_ITEM, LIVE_FIRST);
	lock_item(FIRST_ITEM, false);
	expect_body(&request, "1");
	ck_assert_ptr_eq(request.read.waiter.job, first.read.waiter.job);
	ck_assert(is_old(&request));
	expect_body(&refresh, "1");
	ck_assert(!is_old(&refresh));
	await(&first);
	end_reading(&first);
	end_reading(&refresh);
	end_reading(&request);
}
END_TEST

/* What has waited behind a request is as much in the background as before. */
START_TEST(the_quota_holds_for_what_waited_behind_another)
{
	struct reading busy, first, refresh, request;
	start_live(4, 10);
	lock_item(FIRST_ITEM + 1, true);
	begin_item(&busy, FIRST_ITEM + 1, LIVE_REFRESH);
	WAIT_UNTIL(pg_running() == 1);
	begin_behind(&first, &refresh, FIRST_ITEM);
	lock_item(FIRST_ITEM, false);
	expect_body(&first, "1");
	WAIT_UNTIL(stats().busy == 1);
	/* The workers have had time to take it, by when they have done as much for another. */
	begin_item(&request, FIRST_ITEM + 2, LIVE_FIRST);
	expect_body(&request, "1");
	end_reading(&request);
	ck_assert(!has_ended(&refresh));
	ck_assert_uint_eq(executed(), 3);
	lock_item(FIRST_ITEM + 1, false);
	expect_body(&busy, "1");
	expect_body(&refresh, "1");
	end_reading(&busy);
	end_reading(&first);
	end_reading(&refresh);
}
END_TEST

START_TEST(a_request_takes_a_refresh_along)
{
	struct reading busy, first, refresh, request;
	start_live(4, 10);
	lock_item(FIRST_ITEM + 1, true);
	begin_item(&busy, FIRST_ITEM + 1, LIVE_REFRESH);
	WAIT_UNTIL(pg_running() == 1);
	begin_behind(&first, &refresh, FIRST_ITEM);
	begin_item(&request, FIRST_ITEM, LIVE_FIRST);
	ck_assert_uint_eq(stats().waiting, 1); /* it counts as a request's now */
	lock_item(FIRST_ITEM, false);
	expect_body(&refresh, "1");
	expect_body(&request, "1");
	ck_assert_ptr_eq(refresh.read.waiter.job, request.read.waiter.job);
	ck_assert(!has_ended(&busy));
	lock_item(FIRST_ITEM + 1, false);
	await(&busy);
	end_reading(&busy);
	end_reading(&first);
	end_reading(&refresh);
	end_reading(&request);
}
END_TEST

START_TEST(refreshes_that_wait_are_bounded)
{
	enum { MORE = ENGINE_BACKGROUND_MAX + 20 };
	static struct reading g[MORE];
	struct reading first, parked;
	unsigned refused = 0;
	start_live(4, 10);
	lock_item(FIRST_ITEM, true);
	begin_item(&g[0], FIRST_ITEM, LIVE_REFRESH);
	WAIT_UNTIL(pg_running() == 1);
	begin_behind(&first, &parked, LAST_ITEM); /* counts as one that waits */
	for (int i = 1; i < MORE; i++) {
		struct live_path p = find_item(FIRST_ITEM + i);
		int r = begin(&g[i], &p, LIVE_REFRESH);
		ck_assert(r == 0 || r == -EAGAIN);
		ck_assert(r == 0 ? i < ENGINE_BACKGROUND_MAX : i >= ENGINE_BACKGROUND_MAX);
		refused += r == -EAGAIN;
		live_path_done(&p);
	}
	ck_assert_uint_eq(refused, MORE - ENGINE_BACKGROUND_MAX);
	ck_assert_uint_eq(stats().refused, 0); /* nor is any request */
	lock_item(FIRST_ITEM, false);
	lock_item(LAST_ITEM, false);
	for (int i = 0; i < MORE - (int)refused; i++) {
		expect_body(&g[i], "1");
		end_reading(&g[i]);
	}
	expect_body(&parked, "1");
	end_reading(&first);
	end_reading(&parked);
}
END_TEST

START_TEST(what_waits_for_too_long_is_told)
{
	struct reading busy, first, refresh, other;
	start_live(4, 10);
	lock_item(FIRST_ITEM + 1, true);
	begin_item(&busy, FIRST_ITEM + 1, LIVE_REFRESH);
	WAIT_UNTIL(pg_running() == 1);
	begin_behind(&first, &refresh, FIRST_ITEM);
	begin_item(&other, FIRST_ITEM + 2, LIVE_REFRESH);
	engine_expire(engine, clock_us() + 120000000);
	expect_status(&refresh, 503);
	expect_status(&other, 503);
	ck_assert(!has_ended(&busy) && !has_ended(&first));
	lock_item(FIRST_ITEM, false);
	lock_item(FIRST_ITEM + 1, false);
	await(&busy);
	await(&first);
	end_reading(&busy);
	end_reading(&first);
	end_reading(&refresh);
	end_reading(&other);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------- */

START_TEST(a_stop_ends_every_reading_once)
{
	struct reading g[7];
	start_live(4, 10);
	lock_item(FIRST_ITEM, true);
	begin_item(&g[0], FIRST_ITEM, LIVE_REFRESH); /* runs */
	WAIT_UNTIL(pg_running() == 1);
	begin_item(&g[1], FIRST_ITEM, LIVE_REFRESH);     /* has joined it */
	begin_item(&g[2], FIRST_ITEM + 1, LIVE_REFRESH); /* waits for the quota */
	begin_behind(&g[3], &g[4], FIRST_ITEM + 2);      /* runs; is parked behind it */
	begin_behind(&g[5], &g[6], FIRST_ITEM + 3);
	engine_stop(engine, 0);
	for (size_t i = 0; i < ELEMENTSOF(g); i++) {
		expect_status(&g[i], 503);
		ck_assert_str_eq(g[i].read.detail, "The server is stopping. Try again.");
		end_reading(&g[i]);
	}
	struct live_path p = find_item(FIRST_ITEM);
	struct reading late;
	ck_assert_int_eq(begin(&late, &p, LIVE_FIRST), -ESHUTDOWN);
	ck_assert_int_eq(begin(&late, &p, LIVE_REFRESH), -ESHUTDOWN);
	ck_assert(!has_ended(&late));
	live_path_done(&p);
}
END_TEST

enum { READERS = 3, KEYS = 8, TURNS = 150 };

static atomic_bool over, endless;

/* TURNS times, or until the engine stops: where its queue is short most of them may be refused.
 * Each reading that was accepted ends once, whatever becomes of it. */
static void *read_often(void *arg)
{
	unsigned *ended = arg;
	bool stopped = false;
	for (unsigned turn = 0; !stopped && (turn < TURNS || atomic_load(&endless)); turn++) {
		struct reading g[4];
		bool accepted[ELEMENTSOF(g)];
		for (size_t i = 0; i < ELEMENTSOF(g); i++) {
			struct live_path p = find_item(FIRST_ITEM + (int)jitter(KEYS));
			(void)live_path_is_current(live, &p);
			int r = begin(&g[i], &p, i % 2 ? LIVE_REFRESH : LIVE_FIRST);
			accepted[i] = r == 0;
			stopped |= r == -ESHUTDOWN;
			live_path_done(&p);
		}
		for (size_t i = 0; i < ELEMENTSOF(g); i++) {
			if (!accepted[i])
				continue;
			await(&g[i]);
			ck_assert(g[i].read.status == 200 || g[i].read.status == 503);
			(void)is_old(&g[i]);
			end_reading(&g[i]);
			++*ended;
		}
	}
	return NULL;
}

static void *change_often(void *arg)
{
	(void)arg;
	while (!atomic_load(&over)) {
		char value[16];
		snprintf(value, sizeof value, "%d", FIRST_ITEM + (int)jitter(KEYS));
		tags_raise_row(generations, "test_live.item", "id", value);
		engine_expire(engine, clock_us());
		sched_yield();
	}
	return NULL;
}

static void spawn(pthread_t *thread, void *(*run)(void *), void *arg)
{
	ck_assert_int_eq(pthread_create(thread, NULL, run, arg), 0);
}

START_TEST(threads_read_while_everything_changes)
{
	pthread_t reader[READERS], changer;
	unsigned ended[READERS] = {0};
	start_live(4, 100);
	atomic_store(&over, false);
	spawn(&changer, change_often, NULL);
	for (size_t i = 0; i < READERS; i++)
		spawn(&reader[i], read_often, &ended[i]);
	publish();
	publish();
	for (size_t i = 0; i < READERS; i++)
		pthread_join(reader[i], NULL);
	atomic_store(&over, true);
	pthread_join(changer, NULL);
	for (size_t i = 0; i < READERS; i++)
		ck_assert_uint_gt(ended[i], 0);
	WAIT_UNTIL(stats().busy == 0);
	ck_assert_uint_eq(stats().waiting, 0);
}
END_TEST

START_TEST(a_stop_comes_while_threads_read)
{
	pthread_t reader[READERS], changer;
	unsigned ended[READERS] = {0};
	start_live(2, 4);
	atomic_store(&over, false);
	atomic_store(&endless, true);
	spawn(&changer, change_often, NULL);
	for (size_t i = 0; i < READERS; i++)
		spawn(&reader[i], read_often, &ended[i]);
	WAIT_UNTIL(executed() >= 50);
	engine_stop(engine, clock_us() + 10000000);
	for (size_t i = 0; i < READERS; i++)
		pthread_join(reader[i], NULL);
	atomic_store(&over, true);
	pthread_join(changer, NULL);
	ck_assert_uint_eq(stats().waiting, 0);
	ck_assert_uint_eq(stats().busy, 0);
}
END_TEST

static void add_finding(Suite *s)
{
	TCase *c = tcase_create("find");
	tcase_add_unchecked_fixture(c, create_objects, NULL);
	tcase_add_checked_fixture(c, setup_live, teardown_live);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, paths_with_the_same_answer_have_the_same_key);
	tcase_add_test(c, who_is_calling_is_in_the_key_where_the_answer_depends_on_it);
	tcase_add_test(c, how_long_an_answer_may_be_shown);
	tcase_add_test(c, refuses);
	tcase_add_test(c, an_endpoint_of_any_name_but_our_own_is_found);
	tcase_add_test(c, all_parameters_that_are_wrong_are_named);
	tcase_add_test(c, of_many_that_are_wrong_as_many_are_named_as_there_is_room_for);
	tcase_add_test(c, a_long_path_is_refused);
	tcase_add_test(c, without_a_catalogue_nothing_is_found);
	tcase_add_test(c, a_path_is_found_anew_when_its_endpoint_is_another);
	tcase_add_test(c, what_is_not_told_of_is_not_live);
	suite_add_tcase(s, c);
}

static void add_reading(Suite *s)
{
	TCase *c = tcase_create("read");
	tcase_add_unchecked_fixture(c, create_objects, NULL);
	tcase_add_checked_fixture(c, setup_live, teardown_live);
	tcase_set_timeout(c, 60);
	tcase_add_test(c, what_is_in_the_cache_is_read_from_there);
	tcase_add_test(c, what_is_not_stored_is_asked_for_each_time);
	tcase_add_test(c, an_answer_is_old_after_a_change_of_what_it_was_made_from);
	tcase_add_test(c, a_hundred_readers_are_one_statement);
	tcase_add_test(c, a_failure_says_what_http_would);
	tcase_add_test(c, what_is_not_there_is_404);
	tcase_add_test(c, a_large_body_is_left_to_http);
	tcase_add_test(c, a_full_queue_refuses);
	tcase_add_test(c, what_was_stored_stands_in_for_a_database_that_is_away);
	tcase_add_test(c, nothing_stands_in_for_a_refusal);
	tcase_add_test(c, refreshes_have_a_quota);
	tcase_add_test(c, a_refresh_waits_behind_what_is_too_old);
	tcase_add_test(c, a_refresh_does_not_join_what_max_stale_allows_for);
	tcase_add_test(c, the_quota_holds_for_what_waited_behind_another);
	tcase_add_test(c, a_request_takes_a_refresh_along);
	tcase_add_test(c, refreshes_that_wait_are_bounded);
	tcase_add_test(c, what_waits_for_too_long_is_told);
	tcase_add_test(c, a_stop_ends_every_reading_once);
	tcase_add_test(c, threads_read_while_everything_changes);
	tcase_add_test(c, a_stop_comes_while_threads_read);
	suite_add_tcase(s, c);
}

int main(void)
{
	if (!pg_is_there())
		return PG_SKIPPED;
	Suite *s = suite_create("live");
	add_finding(s);
	add_reading(s);
	conn_global_init();
	return pg_run_suite(s);
}

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "provost/catalog.h"
#include "router.h"

struct loader {
	struct catalog *catalog;
	struct errors *errs;
	size_t files; /* `*.sql` seen, readable or not */
};

/* ---- what is not an endpoint's ------------------------------------------------------- */

/* Paths that Provost answers itself; with a `*`, all below as well. */
static const char *const reserved[] = {
    "/",
    "/livez",
    "/readyz",
    "/metrics",
    "/ws",
    "/echo",
    "/client",
    "/client/*",
    "/api/batch",
    "/api/admin/cache",
    "/api/admin/revocations",
    "/api/admin/websocket",
};

/* The route as literal text; parameters as NUL-free bytes that no literal has. */
static bool route_is(const struct endpoint *e, const char *path)
{
	for (size_t i = 0; i < e->segments; i++) {
		size_t n = e->segment[i].param ? 0 : strlen(e->segment[i].text);

		if (strcmp(path, "/*") == 0)
			return true;
		if (n == 0 || *path != '/' || strncmp(path + 1, e->segment[i].text, n) != 0)
			return false;
		path += 1 + n;
	}
	return *path == '\0' || (e->segments == 0 && strcmp(path, "/") == 0);
}

static void reserved_check(const struct endpoint *e, struct errors *errs)
{
	for (size_t i = 0; i < ELEMENTSOF(reserved); i++)
		if (route_is(e, reserved[i]))
			errors_add(errs, e->file, e->route_line,
			           "`%s` is a path of Provost's own: take another", e->route);
}

bool catalog_is_reserved(struct slice path)
{
	for (size_t i = 0; i < ELEMENTSOF(reserved); i++) {
		size_t n = strlen(reserved[i]);
		bool all = n > 1 && reserved[i][n - 1] == '*';
		n -= all;
		if ((all ? path.n >= n : path.n == n) && !memcmp(path.p, reserved[i], n))
			return true;
	}
	return false;
}

/* ---- one file ------------------------------------------------------------------------ */

static int read_all(int fd, struct buf *out)
{
	for (;;) {
		char *to = buf_reserve(out, 16384);
		ssize_t n;

		if (!to)
			return -EFBIG;
		n = read(fd, to, 16384);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		out->len += (size_t)n;
	}
}

/* Also refuses what grew beyond the limit since it was looked at. */
static int read_file(const char *path, struct buf *out)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	return read_all(fd, out);
}

static void keep(struct loader *l, struct endpoint *e)
{
	struct catalog *c = l->catalog;

	c->endpoint = xrealloc(c->endpoint, c->endpoints + 1, sizeof(struct endpoint *));
	c->endpoint[c->endpoints++] = e;
}

/* `name` with the extension. */
static void load_file(struct loader *l, const char *path, const char *name)
{
	_cleanup_buf_ struct buf text = {.max = ENDPOINT_FILE_MAX + 32768};
	_cleanup_free_ char *base = xstrndup(name, strlen(name) - strlen(".sql"));
	struct endpoint *e;
	int r;

	if (l->files++ >= CATALOG_ENDPOINTS_MAX) {
		if (l->files == CATALOG_ENDPOINTS_MAX + 1)
			errors_add(l->errs, path, 0, "there are more than %d endpoint files",
			           CATALOG_ENDPOINTS_MAX);
		return;
	}
	r = read_file(path, &text);
	if (r == -EFBIG) {
		errors_add(l->errs, path, 0, "the file is larger than %d bytes", ENDPOINT_FILE_MAX);
		return;
	}
	if (r < 0) {
		errors_add(l->errs, path, 0, "cannot be read: %s", strerror(-r));
		return;
	}
	e = endpoint_parse(base, path, text.data ? text.data : "", text.len, l->errs);
	if (!e)
		return;
	reserved_check(e, l->errs);
	keep(l, e);
}

/* ---- directories --------------------------------------------------------------------- */

static bool ends_in_sql(const char *name)
{
	size_t n = strlen(name);

	return n > 4 && strcmp(name + n - 4, ".sql") == 0;
}

/* Names end up in configuration sections, logs and metrics. */
static bool name_is_plain(const char *name)
{
	return name[strspn(name,
	                   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")] ==
	       '\0';
}

static int is_visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

/* By bytes: alphasort would follow the locale. */
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void load_directory(struct loader *l, const char *dir, const char *prefix, unsigned depth);

static void load_entry(struct loader *l, const char *path, const char *name, const char *entry,
                       unsigned depth)
{
	struct stat link, st;
	bool directory, file;

	if (lstat(path, &link) < 0 || stat(path, &st) < 0) {
		errors_add(l->errs, path, 0, "cannot be read: %s", strerror(errno));
		return;
	}
	directory = S_ISDIR(st.st_mode);
	file = S_ISREG(st.st_mode) && ends_in_sql(entry);
	if (!directory && !file) {
		if (ends_in_sql(entry))
			errors_add(l->errs, path, 0, "is neither a file nor a directory");
		return;
	}
	if (!name_is_plain(entry))
		errors_add(l->errs, path, 0,
		           "an endpoint's name has letters, digits and _-. only: rename it");
	else if (file)
		load_file(l, path, name);
	else if (S_ISLNK(link.st_mode))
		errors_add(l->errs, path, 0,
		           "links to a directory are not followed: use the directory itself");
	else
		load_directory(l, path, name, depth + 1);
}

static void load_directory(struct loader *l, const char *dir, const char *prefix, unsigned depth)
{
	struct dirent **list = NULL;
	int n;

	if (depth > CATALOG_DEPTH_MAX) {
		errors_add(l->errs, dir, 0, "directories are nested deeper than %d",
		           CATALOG_DEPTH_MAX);
		return;
	}
	n = scandir(dir, &list, is_visible, by_bytes);
	if (n < 0) {
		errors_add(l->errs, dir, 0, "cannot be read: %s", strerror(errno));
		return;
	}
	for (int i = 0; i < n; i++) {
		const char *entry = list[i]->d_name;
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, entry);
		_cleanup_free_ char *name = xasprintf("%s%s%s", prefix, *prefix ? "/" : "", entry);

		load_entry(l, path, name, entry, depth);
		free(list[i]);
	}
	free(list);
}

/* ---- the catalogue ------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	const struct endpoint *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static void build_routes(struct catalog *c, struct errors *errs)
{
	c->root = router_new();
	for (size_t i = 0; i < c->endpoints; i++) {
		const struct endpoint *e = c->endpoint[i], *other = router_add(c->root, e);

		if (other)
			errors_add(errs, e->file, e->route_line,
			           "%s %s is the same route as %s in %s:%u", method_name(e->method),
			           e->route, other->route, other->file, other->route_line);
	}
}

static void catalog_destroy(struct snapshot_object *o)
{
	struct catalog *c = (struct catalog *)o;

	router_free(&c->root);
	for (size_t i = 0; i < c->endpoints; i++)
		endpoint_free(&c->endpoint[i]);
	free(c->endpoint);
	free(c);
}

_Static_assert(offsetof(struct catalog, object) == 0, "the snapshot's object stands first");

void catalog_free(struct catalog **c)
{
	if (*c)
		catalog_destroy(&(*c)->object);
	*c = NULL;
}

struct catalog *catalog_load_good(const char *dir, struct errors *errs)
{
	struct catalog *c = xcalloc(1, sizeof(*c));
	struct loader l = {.catalog = c, .errs = errs};
	size_t before = errors_count(errs);

	c->object.free = catalog_destroy;
	load_directory(&l, dir, "", 0);
	if (l.files == 0 && errors_count(errs) == before)
		errors_add(errs, dir, 0, "holds no endpoint: put a *.sql file there");
	if (c->endpoints)
		qsort(c->endpoint, c->endpoints, sizeof(struct endpoint *), by_name);
	build_routes(c, errs);
	return c;
}

struct catalog *catalog_load(const char *dir, struct errors *errs)
{
	size_t before = errors_count(errs);
	struct catalog *c = catalog_load_good(dir, errs);

	if (errors_count(errs) > before)
		catalog_free(&c);
	return c;
}

struct endpoint *catalog_find(const struct catalog *c, const char *name)
{
	size_t low = 0, high = c->endpoints;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int r = strcmp(name, c->endpoint[middle]->name);

		if (r == 0)
			return c->endpoint[middle];
		if (r < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

/*
 * catalog: all endpoints of a directory, and the router over them.
 *
 * Loading reads every `*.sql` below a directory in the order of names (hidden files are left out, a
 * link to a file is followed, a link to a directory refused, depth and count are bounded) and
 * reports all errors of all files. Immutable once published; see snapshot.h for how it is shared.
 */
#ifndef PROVOST_CATALOG_H
#define PROVOST_CATALOG_H

#include "provost/endpoint.h"
#include "provost/snapshot.h"
#include "provost/values.h"

enum { CATALOG_ENDPOINTS_MAX = 4096, CATALOG_DEPTH_MAX = 16 };

struct catalog {
	struct snapshot_object object; /* first; its free function is set, so it may be published */
	struct endpoint **endpoint;    /* sorted by name */
	size_t endpoints;
	struct route_node *root;
};

/* NULL when anything was wrong, with all of it in `errs`: unreadable directory, broken files,
 * duplicate routes (same method, same shape), routes that Provost keeps for itself. An empty
 * directory is an error. */
struct catalog *catalog_load(const char *dir, struct errors *errs);
/* The same, but what is good is returned whatever else was wrong: for a check that goes on to show
 * all that is wrong with it, not for serving. */
struct catalog *catalog_load_good(const char *dir, struct errors *errs);
/* For a catalogue that was never published; a published one belongs to its snapshot. */
void catalog_free(struct catalog **c);
#define _cleanup_catalog_ _cleanup_(catalog_free)

struct endpoint *catalog_find(const struct catalog *c, const char *name);

/* Whether Provost answers the raw path itself, whatever the endpoints. */
bool catalog_is_reserved(struct slice path);

/* What a path leads to. */
struct route_match {
	const struct endpoint *endpoint; /* NULL: the path is unknown, or not with that method */
	unsigned methods; /* bit per enum method that the path answers to; 0: unknown */
	struct slice path[ENDPOINT_PATH_SEGMENTS_MAX]; /* raw segments of the path parameters */
	size_t paths;
};

/* Finds the endpoint of a raw path (from the first `/` to before `?`). Segments are split first and
 * decoded after, so `%2F` is data; a static segment beats a parameter, segment by segment from the
 * left, among the endpoints that have the method. No allocation. */
void catalog_route(const struct catalog *c, enum method m, struct slice path,
                   struct route_match *ret);

#endif

/*
 * asset: the files of the browser's side (src/web/client), which are part of the program.
 *
 * scripts/embed_assets.py makes their table when the program is built: bytes, type, hash, and what
 * gzip makes of them where that is smaller. All of it is constant, so any thread may look, and
 * nothing is ever freed.
 */
#ifndef PROVOST_ASSET_H
#define PROVOST_ASSET_H

#include <stdbool.h>
#include <stddef.h>

struct asset_bytes {
	const char *bytes; /* NULL: there are none */
	size_t len;
};

struct asset {
	const char *name; /* without a folder */
	const char *type; /* the value of Content-Type */
	const char *hash; /* of the bytes: 32 hexadecimal digits */
	bool is_page;     /* HTML, which a browser may be asked to limit */
	struct asset_bytes identity, gzip;
};

/* The file of that name, or NULL. */
const struct asset *asset_find(const char *name, size_t n);

/* By name; src/web/asset.c is for all who look one up. */
extern const struct asset ASSETS[];
extern const size_t ASSETS_COUNT;

#endif

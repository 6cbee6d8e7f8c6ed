#include "provost/asset.h"

#include <string.h>

const struct asset *asset_find(const char *name, size_t n)
{
	/* A handful: a walk is as quick as anything. */
	for (size_t i = 0; i < ASSETS_COUNT; i++) {
		const struct asset *a = &ASSETS[i];
		if (strlen(a->name) == n && !memcmp(a->name, name, n))
			return a;
	}
	return NULL;
}

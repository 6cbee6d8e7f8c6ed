/*
 * snapshot: an immutable object that readers on many threads use while one writer replaces it.
 *
 * A reader's snapshot_use costs one load of a line that hardly ever changes: each thread caches its
 * own reference and renews it only after a replacement. The object a thread got from snapshot_use
 * stays valid until that same thread calls snapshot_use again. Whoever keeps it longer (a job, a
 * suspended request) takes a reference of its own with snapshot_ref while it is valid. The last
 * reference frees it, on whichever thread that is.
 *
 * Bound: an idle thread keeps at most one replaced object alive per snapshot, until it calls
 * snapshot_use again or exits. At most SNAPSHOTS_MAX snapshots exist.
 */
#ifndef PROVOST_SNAPSHOT_H
#define PROVOST_SNAPSHOT_H

#include <stdatomic.h>

#include "provost/base.h"

enum { SNAPSHOTS_MAX = 16 };

/* Embedded first in the object. */
struct snapshot_object {
	atomic_uint refs;
	void (*free)(struct snapshot_object *);
};

struct snapshot;

struct snapshot *snapshot_new(void);
/* No reader may be left. */
void snapshot_free(struct snapshot **s);

/* Publishes `o` (refs is set here; ownership moves in). NULL publishes nothing to read. */
void snapshot_set(struct snapshot *s, struct snapshot_object *o);
struct snapshot_object *snapshot_use(struct snapshot *s);

void snapshot_ref(struct snapshot_object *o);
void snapshot_unref(struct snapshot_object *o);

#endif

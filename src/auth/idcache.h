/*
 * idcache: identities under the SHA-256 of what was verified, compared in full.
 *
 * Any thread. A fixed table of sets of a few ways each: the digest is evenly spread, so it chooses
 * the set; within a full set the one that was used the longest ago goes. Sets share a few locks,
 * each held for one set. Only verified identities get in, so there is nothing to flood it with.
 */
#ifndef PROVOST_AUTH_IDCACHE_H
#define PROVOST_AUTH_IDCACHE_H

#include "digest.h"
#include "provost/auth.h"

struct idcache;

struct idcache *idcache_new(void);
void idcache_free(struct idcache **c);

/* A reference to what is there, made by the settings `origin` and good at `now_s`; NULL. */
struct identity *idcache_get(struct idcache *c, const unsigned char digest[DIGEST_LEN],
                             uint64_t origin, int64_t now_s);
/* Takes a reference of its own. */
void idcache_put(struct idcache *c, const unsigned char digest[DIGEST_LEN], struct identity *i,
                 int64_t now_s);
void idcache_clear(struct idcache *c);
size_t idcache_count(struct idcache *c);

#endif

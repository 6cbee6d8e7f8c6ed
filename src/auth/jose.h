/*
 * jose: what JWS and JWE share: headers, and cjose's keys for the time of one use.
 */
#ifndef PROVOST_AUTH_JOSE_H
#define PROVOST_AUTH_JOSE_H

#include <cjose/cjose.h>

#include "compact.h"
#include "json.h"
#include "provost/secret.h"

/* A protected header: NULL unless it is a small JSON object without `crit`, `b64` and `zip`: we
 * know no extension that may be critical, and unencoded or compressed content is none of ours. */
json_t *jose_header(const struct compact_part *part);

/* A key of cjose's from a secret, in common memory; release wipes it. NULL when out of memory. */
cjose_jwk_t *jose_key_new(const struct secret *s);
void jose_key_release(cjose_jwk_t *k, const struct secret *s);

#endif

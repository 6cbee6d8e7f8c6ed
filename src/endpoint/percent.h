/* percent: one byte at a time, for comparing without decoding. Internal to src/endpoint. */
#ifndef PROVOST_ENDPOINT_PERCENT_H
#define PROVOST_ENDPOINT_PERCENT_H

#include "provost/values.h"

/* The decoded byte at `*i` (< in.n), which moves on; -1 for a broken escape. `plus`: `+` is a
 * blank. */
int percent_next(struct slice in, size_t *i, bool plus);

#endif

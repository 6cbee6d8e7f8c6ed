/*
 * units: durations and sizes as people write them, in the configuration and in endpoint files.
 * Pure functions.
 */
#ifndef PROVOST_UNITS_H
#define PROVOST_UNITS_H

#include "provost/base.h"

/* `500ms`, `2s`, `10m`, `1h`, `7d`, or `0`: a duration with its unit, in ms. -EINVAL for anything
 * else, -ERANGE past INT64_MAX ms. */
int units_duration(const char *s, int64_t *ret_ms) _must_check_;
/* `4096`, `64KiB`, `256MiB`, `2GiB`: bytes. */
int units_size(const char *s, int64_t *ret_bytes) _must_check_;
/* The shortest spelling that units_duration / units_size read back to the same value. */
void units_format_duration(int64_t ms, char *out, size_t n);
void units_format_size(int64_t bytes, char *out, size_t n);

#endif

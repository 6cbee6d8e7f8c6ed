/*
 * accept: what a client asks of an answer's representation: the codings it takes, and whether it
 * has the body already.
 *
 * Each field is read line by line, because a repeated field is one list (RFC 9110, section 5.3).
 * Pure functions over borrowed bytes, in time linear to them; no allocation.
 */
#ifndef PROVOST_HTTP_ACCEPT_H
#define PROVOST_HTTP_ACCEPT_H

#include "provost/cache.h"
#include "provost/etag.h"

enum {
	CODING_IDENTITY = CODING_COUNT,                 /* beside enum entry_coding */
	CODING_ALL = (1u << (CODING_IDENTITY + 1)) - 1, /* bits of all of them */
};

/* ---- Accept-Encoding: RFC 9110, section 12.5.3 --------------------------------------- */

/* Weights in thousandths; 0: not named. A weight of q stands as q + 1. */
struct accept {
	uint16_t coding[CODING_IDENTITY + 1];
	uint16_t any; /* `*` */
};

/* Adds one field line to `a`, zeroed before the first; without any, nothing but identity is
 * accepted. Elements that are malformed, or of codings we do not make, are passed over. Of a coding
 * that is named twice the lower weight counts, so that a refusal stands. */
void accept_add(struct accept *a, const char *s, size_t n);

/* What to send when `available` (bits of 1 << enum entry_coding) are there besides identity: the
 * one with the highest weight; of equals br, gzip, identity. Identity is the last choice unless the
 * client gives it a weight, and is sent for want of anything better even when refused. */
unsigned accept_choose(const struct accept *a, unsigned available);

/* The coding that would be chosen if all of `makeable` were there, and is not among `available`:
 * worth making. CODING_IDENTITY: none. */
unsigned accept_wanted(const struct accept *a, unsigned makeable, unsigned available);

/* "gzip", "br", "identity". */
const char *coding_name(unsigned coding);

/* ---- If-None-Match: RFC 9110, section 13.1.2 ----------------------------------------- */

/* The strong tag of a body (its hash) in a coding, with its quotes. */
void etag_format(const char hash[ETAG_DIGITS], unsigned coding, char out[ETAG_MAX]);

struct none_match {
	unsigned tags; /* bits of 1 << coding: our tags that were named */
	bool any;      /* `*` */
	bool listed;   /* an entity-tag, ours or not */
	bool malformed;
};

/* Adds one field line to `m`, zeroed before the first. */
void none_match_add(struct none_match *m, const char hash[ETAG_DIGITS], const char *s, size_t n);

/* The codings whose tags match, in the weak comparison: bits of 1 << coding, all for `*`. 0: the
 * condition is true, as it is when any line is malformed, and the answer is sent. */
unsigned none_match_tags(const struct none_match *m);

/* Of what matched, the coding whose tag a 304 carries: `chosen`, which the answer would have had,
 * if it is among them. */
unsigned none_match_pick(unsigned tags, unsigned chosen);

#endif

/*
 * buf: a growing byte buffer with a ceiling.
 *
 * Appending past `max`, or out of memory, sets `failed` and appends nothing more: check once at the
 * end. Growth doubles. The memory can be taken over with buf_take. Owned by one thread at a time.
 */
#ifndef PROVOST_BUF_H
#define PROVOST_BUF_H

#include "provost/base.h"

struct buf {
	char *data;
	size_t len;
	size_t cap;
	size_t max; /* bytes; 0 means SIZE_MAX / 2 */
	bool failed;
};

void buf_done(struct buf *b);
#define _cleanup_buf_ _cleanup_(buf_done)

/* Room for `n` more bytes at the end, without changing len; NULL when that fails. */
char *buf_reserve(struct buf *b, size_t n);

void buf_add(struct buf *b, const void *p, size_t n);
void buf_addc(struct buf *b, char c);
void buf_adds(struct buf *b, const char *s);
/* In decimal. */
void buf_addi(struct buf *b, int64_t n);
void buf_addf(struct buf *b, const char *fmt, ...) _printf_(2, 3);

/* `n` bytes of valid UTF-8 as a JSON string with its quotes (RFC 8259, section 7). */
void buf_add_json_string(struct buf *b, const char *s, size_t n);

/* Hands the bytes over, NUL-terminated behind `*ret_len`; NULL when the buffer failed. The buffer
 * is empty afterwards. The caller frees. */
char *buf_take(struct buf *b, size_t *ret_len);

#endif

#include "provost/buf.h"

#include <stdarg.h>
#include <string.h>

enum { BUF_CAP_MIN = 256 };

static size_t buf_max(const struct buf *b)
{
	return b->max ? b->max : SIZE_MAX / 2;
}

void buf_done(struct buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = 0;
	b->cap = 0;
	b->failed = false;
}

/* Room for `need` bytes in all and one more, so that buf_take's NUL always fits. */
static bool buf_grow(struct buf *b, size_t need)
{
	size_t cap = b->cap ? b->cap : BUF_CAP_MIN;
	char *data;

	while (cap <= need)
		cap = cap > buf_max(b) / 2 ? need + 1 : cap * 2;
	data = realloc(b->data, cap);
	if (!data)
		return false;
	b->data = data;
	b->cap = cap;
	return true;
}

char *buf_reserve(struct buf *b, size_t n)
{
	if (b->failed)
		return NULL;
	if (b->len > buf_max(b) || n > buf_max(b) - b->len) {
		b->failed = true;
		return NULL;
	}
	if (b->cap <= b->len + n && !buf_grow(b, b->len + n)) {
		b->failed = true;
		return NULL;
	}
	return b->data + b->len;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	char *to = buf_reserve(b, n);

	if (!to || n == 0)
		return;
	memcpy(to, p, n);
	b->len += n;
}

void buf_addc(struct buf *b, char c)
{
	buf_add(b, &c, 1);
}

void buf_adds(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_addi(struct buf *b, int64_t n)
{
	char text[INTEGER_TEXT_MAX];

	buf_add(b, text, (size_t)(integer_text(text, n) - text));
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;
	size_t room;
	char *to;
	int n;

	/* An empty reservation makes sure that there is a byte to print to. */
	if (!buf_reserve(b, 0))
		return;
	room = b->cap - b->len;
	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(b->data + b->len, room, fmt, ap);
	va_end(ap);
	if (n < 0) {
		b->failed = true;
	} else {
		to = buf_reserve(b, (size_t)n);
		if (to) {
			if ((size_t)n >= room)
				vsnprintf(to, (size_t)n + 1, fmt, again);
			b->len += (size_t)n;
		}
	}
	va_end(again);
}

static void add_json_escape(struct buf *b, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	static const char letter[] = {
	    ['"'] = '"',  ['\\'] = '\\', ['\b'] = 'b', ['\f'] = 'f',
	    ['\n'] = 'n', ['\r'] = 'r',  ['\t'] = 't',
	};
	char e[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

	if (c < sizeof(letter) && letter[c]) {
		e[1] = letter[c];
		buf_add(b, e, 2);
	} else {
		buf_add(b, e, sizeof(e));
	}
}

void buf_add_json_string(struct buf *b, const char *s, size_t n)
{
	size_t from = 0;

	buf_addc(b, '"');
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		buf_add(b, s + from, i - from);
		add_json_escape(b, c);
		from = i + 1;
	}
	buf_add(b, s + from, n - from);
	buf_addc(b, '"');
}

char *buf_take(struct buf *b, size_t *ret_len)
{
	char *data = NULL;

	if (buf_reserve(b, 0)) {
		b->data[b->len] = '\0';
		data = b->data;
		if (ret_len)
			*ret_len = b->len;
		b->data = NULL;
	}
	buf_done(b);
	return data;
}

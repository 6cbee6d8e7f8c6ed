#include <endian.h>
#include <errno.h>
#include <string.h>

#include "provost/ws.h"

/* ---- masks --------------------------------------------------------------------------- */

/* The mask as it is for the byte `n` further on. */
static uint32_t turned(uint32_t mask, size_t n)
{
	uint8_t from[4], to[4];
	memcpy(from, &mask, 4);
	for (size_t i = 0; i < 4; i++)
		to[i] = from[(i + n) & 3];
	memcpy(&mask, to, 4);
	return mask;
}

void ws_mask(char *data, size_t n, uint32_t mask, size_t offset)
{
	uint8_t key[4];
	size_t i = 0;
	mask = turned(mask, offset);
	memcpy(key, &mask, 4);
	const uint64_t word = (uint64_t)mask << 32 | mask;
	for (; n - i >= 8; i += 8) {
		uint64_t x;
		memcpy(&x, data + i, sizeof x);
		x ^= word;
		memcpy(data + i, &x, sizeof x);
	}
	for (; i < n; i++)
		data[i] = (char)((uint8_t)data[i] ^ key[i & 3]);
}

/* ---- codes --------------------------------------------------------------------------- */

bool ws_code_is_valid(unsigned code)
{
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
	       (code >= 3000 && code <= 4999);
}

unsigned ws_code_of_error(int r)
{
	switch (r) {
	case -EILSEQ:
		return WS_CODE_NOT_UTF8;
	case -EMSGSIZE:
		return WS_CODE_TOO_LARGE;
	case -ENOMEM:
		return WS_CODE_INTERNAL;
	default:
		return WS_CODE_PROTOCOL;
	}
}

/* ---- headers ------------------------------------------------------------------------- */

size_t ws_header(uint8_t out[WS_SERVER_HEADER_MAX], enum ws_opcode opcode, uint64_t payload)
{
	out[0] = (uint8_t)(0x80 | opcode);
	if (payload <= WS_CONTROL_MAX) {
		out[1] = (uint8_t)payload;
		return 2;
	}
	if (payload <= UINT16_MAX) {
		uint16_t n = htobe16((uint16_t)payload);
		out[1] = 126;
		memcpy(out + 2, &n, sizeof n);
		return 4;
	}
	uint64_t n = htobe64(payload);
	out[1] = 127;
	memcpy(out + 2, &n, sizeof n);
	return 10;
}

static bool is_control(unsigned opcode)
{
	return opcode & 8;
}

/* How long the header is, as far as can be told. */
static size_t header_needs(const struct ws_decoder *d)
{
	unsigned length = d->header_len < 2 ? 0 : d->header[1] & 0x7F;
	if (d->header_len < 2)
		return 2;
	return 2 + (length == 126 ? 2 : length == 127 ? 8 : 0) + 4;
}

/* Of the first byte alone, so that what is wrong is said at once. */
static int check_first(const struct ws_decoder *d)
{
	unsigned opcode = d->header[0] & 0x0F;
	bool final = d->header[0] & 0x80;
	if (d->header[0] & 0x70) /* no extension gives RSV1 to RSV3 a meaning */
		return -EPROTO;
	if (opcode > WS_PONG || (opcode > WS_BINARY && opcode < WS_CLOSE))
		return -EPROTO;
	if (is_control(opcode))
		return final ? 0 : -EPROTO;
	/* A continuation continues something, and nothing else may begin before its end. */
	return (opcode == WS_CONTINUATION) == (d->opcode != 0) ? 0 : -EPROTO;
}

static int check_second(const struct ws_decoder *d)
{
	if (!(d->header[1] & 0x80)) /* section 5.1: a client masks */
		return -EPROTO;
	if (is_control(d->header[0] & 0x0F) && (d->header[1] & 0x7F) > WS_CONTROL_MAX)
		return -EPROTO;
	return 0;
}

/* Section 5.2: the shortest form, and never the highest bit. */
static int read_length(const struct ws_decoder *d, uint64_t *ret)
{
	unsigned length = d->header[1] & 0x7F;
	uint16_t n16;
	uint64_t n64;
	if (length == 126) {
		memcpy(&n16, d->header + 2, sizeof n16);
		*ret = be16toh(n16);
		return *ret > WS_CONTROL_MAX ? 0 : -EPROTO;
	}
	if (length == 127) {
		memcpy(&n64, d->header + 2, sizeof n64);
		*ret = be64toh(n64);
		return *ret > UINT16_MAX && !(*ret >> 63) ? 0 : -EPROTO;
	}
	*ret = length;
	return 0;
}

static int begin_frame(struct ws_decoder *d)
{
	uint64_t length;
	int r = read_length(d, &length);
	if (r < 0)
		return r;
	d->frame = d->header[0] & 0x0F;
	d->final = d->header[0] & 0x80;
	memcpy(&d->mask, d->header + d->header_len - 4, 4);
	d->left = length;
	d->in_payload = true;
	d->control = 0;
	if (is_control(d->frame))
		return 0;
	if (d->frame != WS_CONTINUATION) {
		d->opcode = d->frame;
		d->utf8 = (struct ws_utf8){0};
	}
	return length > d->max || d->gathered.len > d->max - length ? -EMSGSIZE : 0;
}

/* Byte by byte: there are few, and each may be the one that is wrong. */
static int take_header(struct ws_decoder *d, char **data, size_t *n)
{
	while (*n > 0 && !d->in_payload) {
		int r = 0;
		d->header[d->header_len++] = (uint8_t) * *data;
		(*data)++;
		(*n)--;
		if (d->header_len == 1)
			r = check_first(d);
		else if (d->header_len == 2)
			r = check_second(d);
		if (r == 0 && d->header_len >= 2 && d->header_len == header_needs(d))
			r = begin_frame(d);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- payloads ------------------------------------------------------------------------ */

static int keep(struct ws_decoder *d, const char *p, size_t n)
{
	/* The header has been let pass; should `max` have fallen since, the next will not be. */
	d->gathered.max = MAX(d->gathered.max, d->max + WS_CONTROL_MAX + 1);
	buf_add(&d->gathered, p, n);
	if (d->gathered.failed)
		return -ENOMEM;
	if (is_control(d->frame))
		d->control = (uint8_t)(d->control + n);
	return 0;
}

static int end_close(const char *p, size_t n, struct ws_event *ret)
{
	struct ws_utf8 utf8 = {0};
	ret->code = WS_CODE_NONE;
	if (n == 0)
		return 1;
	if (n == 1)
		return -EPROTO;
	ret->code = (unsigned)(uint8_t)p[0] << 8 | (uint8_t)p[1];
	if (!ws_code_is_valid(ret->code))
		return -EPROTO;
	ret->data = p + 2;
	ret->len = n - 2;
	if (!ws_utf8_feed(&utf8, ret->data, ret->len) || !ws_utf8_whole(&utf8))
		return -EILSEQ;
	return 1;
}

/* The frame is whole. `p` is its payload if it came in one piece, else NULL: it was gathered. */
static int end_frame(struct ws_decoder *d, const char *p, size_t n, struct ws_event *ret)
{
	d->in_payload = false;
	d->header_len = 0;
	if (is_control(d->frame)) {
		if (!p) {
			n = d->control;
			d->gathered.len -= n; /* the bytes stay until the next call */
			p = d->gathered.data + d->gathered.len;
		}
		*ret = (struct ws_event){.opcode = d->frame, .data = p, .len = n};
		return d->frame == WS_CLOSE ? end_close(p, n, ret) : 1;
	}
	if (!d->final)
		return 0;
	if (d->opcode == WS_TEXT && !ws_utf8_whole(&d->utf8))
		return -EILSEQ;
	if (!p) {
		p = d->gathered.data;
		n = d->gathered.len;
	}
	*ret = (struct ws_event){.opcode = d->opcode, .data = n ? p : "", .len = n};
	d->opcode = 0;
	return 1;
}

/* Whether the payload `take`n is all of a message or a control frame, so that nothing need be kept.
 */
static bool lies_in_input(const struct ws_decoder *d, size_t take)
{
	if (take != d->left)
		return false;
	if (is_control(d->frame))
		return d->control == 0;
	return d->final && d->frame != WS_CONTINUATION && d->gathered.len == 0;
}

static int take_payload(struct ws_decoder *d, char **data, size_t *n, struct ws_event *ret)
{
	size_t take = *n < d->left ? *n : (size_t)d->left;
	char *p = *data;
	bool whole = lies_in_input(d, take);
	ws_mask(p, take, d->mask, 0);
	d->mask = turned(d->mask, take);
	*data += take;
	*n -= take;
	if (!is_control(d->frame) && d->opcode == WS_TEXT && !ws_utf8_feed(&d->utf8, p, take))
		return -EILSEQ;
	int r = whole || take == 0 ? 0 : keep(d, p, take);
	d->left -= take;
	if (r < 0 || d->left > 0)
		return r;
	return end_frame(d, whole ? p : NULL, take, ret);
}

/* ---- the decoder --------------------------------------------------------------------- */

void ws_decoder_init(struct ws_decoder *d, uint64_t max)
{
	*d = (struct ws_decoder){.max = max};
}

void ws_decoder_done(struct ws_decoder *d)
{
	buf_done(&d->gathered);
}

bool ws_decoder_is_idle(const struct ws_decoder *d)
{
	return !d->opcode && !d->in_payload && d->header_len == 0;
}

/* What the last event pointed to is not needed any more. */
static void forget_message(struct ws_decoder *d)
{
	if (d->opcode || d->in_payload)
		return;
	buf_done(&d->gathered);
}

int ws_decode(struct ws_decoder *d, char **data, size_t *n, struct ws_event *ret)
{
	int r = d->failed ? -EPROTO : 0;
	if (r == 0)
		forget_message(d);
	while (r == 0) {
		if (!d->in_payload)
			r = take_header(d, data, n);
		if (r < 0 || !d->in_payload || (*n == 0 && d->left > 0))
			break;
		r = take_payload(d, data, n, ret);
	}
	d->failed |= r < 0;
	return r;
}

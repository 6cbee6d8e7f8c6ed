/*
 * ws: the WebSocket protocol, RFC 6455, a server's side of it, strictly.
 *
 * Pure functions over the caller's memory; nothing here does I/O, logs or knows what messages mean.
 * A decoder is fed whatever came, in pieces of any size, and hands out whole messages; all that the
 * RFC forbids fails as soon as the bytes that show it are there, text that is not UTF-8 included.
 *
 * Memory: a message that lies in the input as one frame is handed out where it lies, unmasked in
 * place. Others are gathered in the decoder's buffer, which grows with what has come and never by
 * what a header promises; a length past `max` is refused when its header is read.
 */
#ifndef PROVOST_WS_H
#define PROVOST_WS_H

#include "provost/buf.h"

enum {
	WS_CONTROL_MAX = 125,      /* bytes of a control frame's payload (section 5.5) */
	WS_REASON_MAX = 123,       /* of them, behind the code of a close */
	WS_SERVER_HEADER_MAX = 10, /* bytes before a payload of ours: no mask */
	WS_CLIENT_HEADER_MAX = 14,
	WS_KEY_LEN = 24,    /* of Sec-WebSocket-Key */
	WS_ACCEPT_LEN = 28, /* of Sec-WebSocket-Accept */
};

enum ws_opcode {
	WS_CONTINUATION = 0,
	WS_TEXT = 1,
	WS_BINARY = 2,
	WS_CLOSE = 8,
	WS_PING = 9,
	WS_PONG = 10,
};

/* Section 7.4; what is past 4000 is ours (docs/WEBSOCKET.md). */
enum ws_code {
	WS_CODE_NORMAL = 1000,
	WS_CODE_GOING_AWAY = 1001,
	WS_CODE_PROTOCOL = 1002,
	WS_CODE_UNSUPPORTED = 1003,
	WS_CODE_NONE = 1005, /* a close without a code; never sent */
	WS_CODE_LOST = 1006, /* no close at all; never sent */
	WS_CODE_NOT_UTF8 = 1007,
	WS_CODE_TOO_LARGE = 1009,
	WS_CODE_INTERNAL = 1011,
	WS_CODE_STALLED = 1013,
	WS_CODE_REPLACED = 4001,
	WS_CODE_BAD_REQUEST = 4400,
	WS_CODE_UNAUTHENTICATED = 4401,
	WS_CODE_FORBIDDEN = 4403,
	WS_CODE_AUTH_TIMEOUT = 4408,
	WS_CODE_LIMIT = 4429,
	WS_CODE_UNAVAILABLE = 4503, /* of an error */
};

/* ---- UTF-8, across any split --------------------------------------------------------- */

/* Zeroed at first. What the next byte must be, when a character has begun. */
struct ws_utf8 {
	uint8_t need, low, high;
};
/* False as soon as no continuation could make the text valid (RFC 3629). */
bool ws_utf8_feed(struct ws_utf8 *u, const char *s, size_t n);
static inline bool ws_utf8_whole(const struct ws_utf8 *u)
{
	return u->need == 0;
}

/* ---- decoding ------------------------------------------------------------------------ */

struct ws_decoder {
	uint64_t left;       /* of the current frame's payload */
	uint64_t max;        /* bytes of a message; may be changed between two */
	struct buf gathered; /* of the message, then of a control frame between its fragments */
	uint32_t mask; /* as it stands in the header; turned so that the next byte is its first */
	uint8_t header[WS_CLIENT_HEADER_MAX];
	uint8_t header_len;
	bool in_payload, failed;
	uint8_t frame;   /* enum ws_opcode of the current frame */
	bool final;      /* it ends its message */
	uint8_t opcode;  /* of the message that has begun; 0: none */
	uint8_t control; /* bytes at the end of `gathered` that are a control frame's */
	struct ws_utf8 utf8;
};

struct ws_event {
	enum ws_opcode opcode; /* WS_TEXT, WS_BINARY, WS_CLOSE, WS_PING, WS_PONG */
	const char *data;      /* valid until the next call; of a close: the reason */
	size_t len;
	unsigned code; /* of a close; WS_CODE_NONE: there was none */
};

/* `max`: bytes of a message. */
void ws_decoder_init(struct ws_decoder *d, uint64_t max);
void ws_decoder_done(struct ws_decoder *d);

/* Takes bytes off the input, unmasking them in place. 1: an event; call again, there may be more.
 * 0: all has been taken, and more is needed. Otherwise the connection has failed, for good, and
 * nothing more is taken:
 *   -EPROTO    close with 1002,
 *   -EILSEQ    1007,
 *   -EMSGSIZE  1009,
 *   -ENOMEM    1011. */
int ws_decode(struct ws_decoder *d, char **data, size_t *n, struct ws_event *ret) _must_check_;
/* The code for it. */
unsigned ws_code_of_error(int r);
/* Something of a message is kept: it has begun. */
bool ws_decoder_is_idle(const struct ws_decoder *d);

/* ---- encoding ------------------------------------------------------------------------ */

/* The header of one whole, unfragmented frame from a server. Returns its length. */
size_t ws_header(uint8_t out[WS_SERVER_HEADER_MAX], enum ws_opcode opcode, uint64_t payload);
/* Whether a peer may close with it (section 7.4, and IANA's registry). */
bool ws_code_is_valid(unsigned code);
/* XOR with the mask (as in the header's memory), whose turn is `offset` bytes into the payload. */
void ws_mask(char *data, size_t n, uint32_t mask, size_t offset);

/* ---- the handshake, section 4.2 ------------------------------------------------------ */

/* 16 bytes in base64, in its only spelling. */
bool ws_key_is_valid(const char *key, size_t n);
/* NUL-terminated. -EIO: there is no SHA-1. */
int ws_accept(const char key[WS_KEY_LEN], char out[WS_ACCEPT_LEN + 1]) _must_check_;
/* Whether a list of tokens (RFC 9110, section 5.6.1) has this one, whatever its case. */
bool ws_has_token(const char *list, size_t n, const char *token);

#endif

/* Any bytes in any pieces: what a decoder makes of them does not depend on the pieces, what it
 * hands out is within bounds, and text is UTF-8. The first byte is the size of the pieces. */
#include <string.h>

#include "provost/ws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MESSAGE_MAX = 1000 };

static void check(const struct ws_event *e)
{
	bool control = e->opcode & 8;
	ALWAYS(e->len <= (control ? (size_t)WS_CONTROL_MAX : (size_t)MESSAGE_MAX));
	ALWAYS(e->opcode != WS_TEXT || utf8_length(e->data, e->len) >= 0);
	if (e->opcode == WS_CLOSE && e->code != WS_CODE_NONE)
		ALWAYS(ws_code_is_valid(e->code) && e->len <= WS_REASON_MAX);
}

static void say(struct buf *log, const struct ws_event *e)
{
	buf_addf(log, "%d %zu %u ", (int)e->opcode, e->len, e->code);
	buf_add(log, e->data, e->len);
}

static void run(const uint8_t *data, size_t size, size_t piece, struct buf *log)
{
	struct ws_decoder d;
	struct ws_event e;
	int r = 0;
	ws_decoder_init(&d, MESSAGE_MAX);
	for (size_t at = 0; at < size && r == 0; at += piece) {
		size_t n = MIN(piece, size - at);
		_cleanup_free_ char *copy = xcalloc(n, 1);
		char *p = copy;
		memcpy(copy, data + at, n);
		while ((r = ws_decode(&d, &p, &n, &e)) > 0) {
			check(&e);
			say(log, &e);
		}
		ALWAYS(d.gathered.cap <= 4 * MESSAGE_MAX);
	}
	buf_addf(log, "%d", r);
	ws_decoder_done(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf whole = {0}, pieces = {0};
	if (size < 2)
		return 0;
	run(data + 1, size - 1, size, &whole);
	run(data + 1, size - 1, 1u + data[0] % 16, &pieces);
	ALWAYS(whole.len == pieces.len && !memcmp(whole.data, pieces.data, whole.len));
	return 0;
}

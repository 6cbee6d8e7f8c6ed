#include <string.h>

#include "hub_impl.h"

struct message *message_new(enum message_kind kind, enum ws_opcode opcode, const void *payload,
                            size_t n)
{
	uint8_t header[WS_SERVER_HEADER_MAX];
	size_t header_len = ws_header(header, opcode, n);
	ALWAYS(n < UINT32_MAX - WS_SERVER_HEADER_MAX);
	struct message *m = malloc(sizeof *m + header_len + n);
	if (!m)
		return NULL;
	*m = (struct message){.refs = 1, .size = (uint32_t)(header_len + n), .kind = kind};
	memcpy(m->frame, header, header_len);
	if (n)
		memcpy(m->frame + header_len, payload, n);
	return m;
}

void message_unref(struct message *m)
{
	ALWAYS(m->refs > 0);
	if (--m->refs == 0)
		free(m);
}

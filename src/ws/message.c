#include <string.h>

#include "hub_impl.h"

struct message *message_of(enum message_kind kind, enum ws_opcode opcode, const struct iovec *part,
                           size_t parts)
{
	uint8_t header[WS_SERVER_HEADER_MAX];
	size_t n = 0;
	for (size_t i = 0; i < parts; i++)
		n += part[i].iov_len;
	ALWAYS(n < UINT32_MAX - WS_SERVER_HEADER_MAX);
	size_t header_len = ws_header(header, opcode, n);
	struct message *m = malloc(sizeof *m + header_len + n);
	if (!m)
		return NULL;
	*m = (struct message){.refs = 1, .size = (uint32_t)(header_len + n), .kind = kind};
	memcpy(m->frame, header, header_len);
	uint8_t *to = m->frame + header_len;
	for (size_t i = 0; i < parts; i++) {
		if (part[i].iov_len)
			memcpy(to, part[i].iov_base, part[i].iov_len);
		to += part[i].iov_len;
	}
	return m;
}

struct message *message_new(enum message_kind kind, enum ws_opcode opcode, const void *payload,
                            size_t n)
{
	const struct iovec part = {(void *)(uintptr_t)payload, n};
	return message_of(kind, opcode, &part, 1);
}

void message_unref(struct message *m)
{
	ALWAYS(m->refs > 0);
	if (--m->refs == 0)
		free(m);
}

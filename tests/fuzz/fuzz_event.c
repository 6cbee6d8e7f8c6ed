/*
 * Any bytes, as the text of what was published: what is accepted is whole, its data lies in the
 * text; what is refused leaves nothing behind.
 */
#include <errno.h>
#include <string.h>

#include "../../src/courier/event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *s = xcalloc(size + 1, 1);
	struct event e = {.id = -42};

	memcpy(s, data, size);
	int r = event_parse(s, &e);
	ALWAYS(r == 0 || r == -EINVAL);
	if (r < 0) {
		ALWAYS(e.id == -42 && !e.room && !e.name);
		return 0;
	}
	ALWAYS(e.id > 0 && e.room && e.name);
	ALWAYS(e.durable == !strncmp(e.room, "user:", 5));
	ALWAYS(!e.data ||
	       (e.data > s && e.data_len > 0 && e.data + e.data_len + 1 == s + strlen(s)));
	event_done(&e);
	return 0;
}

/*
 * Any bytes, as a payload: what is accepted is whole, and what it holds are texts; what is refused
 * leaves nothing behind.
 */
#include <errno.h>
#include <string.h>

#include "provost/change.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_table(const struct change *c)
{
	bool key = !c->key;

	ALWAYS(c->table && *c->table && c->op);
	ALWAYS(c->known || (!c->columns && !c->key));
	for (size_t i = 0; i < c->columns; i++) {
		ALWAYS(utf8_length(c->column[i].name, strlen(c->column[i].name)) >= 0);
		key |= c->key == c->column[i].name;
		for (size_t k = 0; k < c->column[i].values; k++)
			ALWAYS(c->column[i].value[k]);
	}
	ALWAYS(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *s = xcalloc(size + 1, 1);
	struct change c = {.number = 42};

	memcpy(s, data, size);
	int r = change_parse(s, &c);
	ALWAYS(r == 0 || r == -EINVAL);
	if (r < 0) {
		ALWAYS(c.number == 42 && !c.table && !c.column);
		return 0;
	}
	if (c.kind == CHANGE_TABLE)
		check_table(&c);
	else if (c.kind == CHANGE_EVENT)
		ALWAYS(c.digest == s + 6 && c.event == c.digest + CHANGE_DIGEST_LEN + 1);
	else
		ALWAYS(!c.table && (c.kind == CHANGE_EPOCH || strlen(c.token) == CHANGE_TOKEN_LEN));
	change_done(&c);
	return 0;
}

#include <inttypes.h>

#include <xxhash.h>

#include "provost/stmt.h"

void stmt_seal(struct stmt *s)
{
	XXH3_state_t *state = XXH3_createState();

	ALWAYS(state);
	XXH3_64bits_reset(state);
	/* With the terminating NUL, so that text and types cannot run into each other. */
	XXH3_64bits_update(state, s->sql, s->sql_len + 1);
	if (s->binds)
		XXH3_64bits_update(state, s->oid, s->binds * sizeof(*s->oid));
	s->id = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	stmt_name(s->id, s->name, sizeof(s->name));
}

void stmt_name(uint64_t id, char *ret, size_t size)
{
	snprintf(ret, size, "pv_%016" PRIx64, id);
}

void stmt_done(struct stmt *s)
{
	free(s->sql);
	free(s->bind);
	free(s->oid);
	*s = (struct stmt){0};
}

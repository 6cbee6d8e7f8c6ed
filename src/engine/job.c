#include <string.h>

#include "engine_impl.h"
#include "provost/key.h"

/* In one piece: the job, the binds, the request's id, the key. */
static size_t size_of_asked(const struct ask *a, size_t *ret_id_len)
{
	*ret_id_len = strlen(a->request_id) + 1;
	return sizeof(struct job) + a->endpoint->stmt.binds * sizeof(char *) + *ret_id_len +
	       a->key.len;
}

static const char *value_of(const struct bind *b, const char *const *param, const char *body,
                            const struct key_caller *caller)
{
	switch (b->source) {
	case BIND_PARAM:
		return param[b->index];
	case BIND_BODY:
		return body;
	case BIND_AUTH_SUB:
		return caller->subject;
	case BIND_AUTH_ROLE:
		return caller->roles;
	case BIND_AUTH_CLAIMS:
		return caller->claims;
	default:
		ALWAYS(!"a source of values");
		return NULL;
	}
}

/* The values of the statement's binds, all of which are in the key. */
static void bind(struct job *j, const char **value)
{
	const struct stmt *s = &j->endpoint->stmt;
	const char *param[ENDPOINT_PARAMS_MAX], *body;
	struct key_caller caller;
	key_values(j->endpoint, j->key.bytes, j->key.len, param, &body, &caller);
	for (size_t i = 0; i < s->binds; i++)
		value[i] = value_of(&s->bind[i], param, body, &caller);
	j->values = value;
}

static struct job *job_new(size_t size, enum job_kind kind)
{
	struct job *j = malloc(size);
	if (!j)
		return NULL;
	memset(j, 0, offsetof(struct job, slot));
	memset(&j->slots, 0, sizeof *j - offsetof(struct job, slots));
	j->kind = kind;
	atomic_init(&j->refs, 1);
	atomic_init(&j->start, JOB_NOT_SENT);
	atomic_init(&j->started_ms, 0);
	TAILQ_INIT(&j->waiters);
	TAILQ_INIT(&j->members);
	return j;
}

static struct job *job_new_asked(const struct ask *a, enum job_kind kind)
{
	size_t id_len, size = size_of_asked(a, &id_len);
	struct job *j = job_new(size, kind);
	if (!j)
		return NULL;
	const char **value = (const char **)(j + 1);
	char *id = (char *)(value + a->endpoint->stmt.binds);
	memcpy(id, a->request_id, id_len);
	memcpy(id + id_len, a->key.bytes, a->key.len);
	snapshot_ref(&a->catalog->object);
	j->catalog = a->catalog;
	j->endpoint = a->endpoint;
	j->request_id = id;
	j->key = (struct cache_key){a->key.hash, id + id_len, a->key.len};
	bind(j, value);
	return j;
}

struct job *job_new_fill(const struct ask *a)
{
	return job_new_asked(a, JOB_FILL);
}

struct job *job_new_write(const struct ask *a)
{
	return job_new_asked(a, JOB_WRITE);
}

struct job *job_new_batch(void)
{
	return job_new(sizeof(struct job), JOB_BATCH);
}

struct job *job_new_encode(struct entry *entry, enum entry_coding coding)
{
	struct job *j = job_new(sizeof *j, JOB_ENCODE);
	if (!j)
		return NULL;
	entry_ref(entry);
	j->entry = entry;
	j->coding = coding;
	return j;
}

struct job *job_new_call(struct call *c)
{
	struct job *j = job_new(sizeof *j, JOB_CALL);
	if (j)
		j->call = c;
	return j;
}

uint64_t job_timeout_us(const struct job *j, uint64_t otherwise_us)
{
	int64_t own_ms = j->endpoint->timeout_ms;
	return own_ms >= 0 ? (uint64_t)own_ms * 1000 : otherwise_us;
}

/* Whoever joins from now on is measured against this moment. Sequentially consistent: the clock of
 * generations is read before the statement leaves, and a request that still sees JOB_NOT_SENT has
 * come before that. */
void job_note_start(struct engine *e, struct job *j)
{
	atomic_store_explicit(&j->started_ms, clock_ms(), memory_order_relaxed);
	atomic_store(&j->start, generations_now(e->generations));
}

void job_ref(struct job *j)
{
	/* Relaxed: who refs has a reference, which keeps it alive. */
	atomic_fetch_add_explicit(&j->refs, 1, memory_order_relaxed);
}

void job_unref(struct job **jp)
{
	struct job *j = *jp;
	*jp = NULL;
	/* Release what this thread did to it, and let the last see what all others did. */
	if (!j || atomic_fetch_sub_explicit(&j->refs, 1, memory_order_acq_rel) > 1)
		return;
	ALWAYS(TAILQ_EMPTY(&j->waiters) && !j->listed && !j->next && !j->senders);
	ALWAYS(TAILQ_EMPTY(&j->members) && !j->batch);
	answer_done(&j->answer);
	if (j->entry)
		entry_unref(&j->entry);
	if (j->catalog)
		snapshot_unref(&j->catalog->object);
	free(j);
}

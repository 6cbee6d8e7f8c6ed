/*
 * The cache against a model of it that is plain enough to be seen right: an array of keys, lists as
 * arrays, generations as numbers. What the model does not predict is how many entries an operation
 * evicts, since that is a matter of malloc's sizes; it says which they must have been.
 *
 * MODEL_SEED repeats a run, MODEL_OPERATIONS makes it longer.
 */
#include <inttypes.h>

#include "cache_fixture.h"

enum { KEYS = 400, TAGS = 40, KEPT = 32, SHARDS = 2, TAGS_OF_ONE = 3, BODY = 3000, ARRAYS = 6144 };

#define MUST(e)                                                                                    \
	do {                                                                                       \
		if (!(e))                                                                          \
			ck_abort_msg("operation %u, key %u: %s", operation, at, #e);               \
	} while (0)

struct modelled {
	bool there, invalidated, expired; /* the latter two: counted */
	bool perishable;
	unsigned version; /* of the body */
	enum entry_kind kind;
	unsigned claims; /* bits */
	bool variant[CODING_COUNT];
	gen_slot tag[TAGS_OF_ONE];
	size_t tags;
	uint64_t start, started_ms, dead_ms, refresh_ms, hits, moved, shave;
	int64_t charge;
};

struct list {
	unsigned id[KEYS]; /* newest first */
	size_t count;
	uint64_t clock;
};

static struct modelled model[KEYS];
static struct list lists[SHARDS][2];
static uint64_t v, epoch, tag_v[TAGS];
static struct counters expected;
static uint64_t hits, misses;
static uint64_t now_ms, seed;
static unsigned operation, at; /* for messages */

static struct {
	struct entry *entry;
	unsigned id, version;
} kept[KEPT];

static uint64_t rnd(uint64_t bound)
{
	uint64_t z = seed += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return (uint64_t)((unsigned __int128)(z ^ z >> 31) * bound >> 64);
}

/* Two keys each have the same hash. */
static struct cache_key key_of(unsigned id)
{
	static char text[KEYS][16];
	uint64_t hash = (id / 2 + 1) * 0x9e3779b97f4a7c15u;

	if (!text[id][0])
		snprintf(text[id], sizeof(text[id]), "key-%u", id);
	return (struct cache_key){hash, text[id], strlen(text[id])};
}

static unsigned shard_of(unsigned id)
{
	return (unsigned)(cache_shard(c, key_of(id).hash) - c->shard);
}

static struct list *list_of(unsigned id)
{
	return &lists[shard_of(id)][model[id].kind];
}

/* ---- what the model does --------------------------------------------------------------------- */

static void list_remove(struct list *l, unsigned id)
{
	size_t i = 0;

	while (l->id[i] != id)
		i++;
	memmove(&l->id[i], &l->id[i + 1], (--l->count - i) * sizeof(l->id[0]));
}

static void list_add(struct list *l, unsigned id)
{
	memmove(&l->id[1], &l->id[0], l->count++ * sizeof(l->id[0]));
	l->id[0] = id;
	model[id].moved = l->clock;
}

static void model_remove(unsigned id)
{
	list_remove(list_of(id), id);
	model[id].there = false;
}

static void model_hit(unsigned id)
{
	struct list *l = list_of(id);

	model[id].hits++;
	if (l->clock - model[id].moved > l->count / 8) {
		list_remove(l, id);
		list_add(l, id);
	}
}

static bool raised(const struct modelled *m)
{
	bool is = epoch > m->start;

	for (size_t i = 0; i < m->tags; i++)
		is |= tag_v[m->tag[i]] > m->start;
	return is;
}

static int64_t ttl_of(const struct modelled *m)
{
	int64_t ttl = rules.ttl_ms;

	if (m->kind == ENTRY_ABSENCE && ttl > options.negative_ttl_ms)
		ttl = options.negative_ttl_ms;
	return ttl - (int64_t)((uint64_t)(ttl / 20) * m->shave / 65536);
}

struct prediction {
	enum cache_state state;
	int64_t age, left;
	bool stale;
};

static struct prediction predict(const struct modelled *m, bool is_raised)
{
	struct prediction p = {.age = (int64_t)(now_ms - m->started_ms)};
	int64_t expiry = (int64_t)m->started_ms + ttl_of(m), now = (int64_t)now_ms;

	p.left = expiry - now;
	if (now < expiry && !is_raised)
		p.state = CACHE_FRESH;
	else if (m->kind == ENTRY_ABSENCE)
		p.state = CACHE_MISS;
	else if (now >= expiry && now < expiry + rules.swr_ms && !is_raised)
		p.state = CACHE_SWR;
	else if (now < expiry && is_raised && p.age < rules.max_stale_ms)
		p.state = CACHE_MAX_STALE;
	p.stale = m->kind == ENTRY_BODY && rules.stale_if_error_ms &&
	          now < expiry + rules.stale_if_error_ms;
	return p;
}

static void count_end(struct modelled *m, bool is_raised, bool past)
{
	if (is_raised && !m->invalidated) {
		m->invalidated = true;
		expected.invalidations++;
	}
	if (past && !m->expired) {
		m->expired = true;
		expected.expirations++;
	}
}

/* ---- what must be so ------------------------------------------------------------------------- */

static bool found(unsigned id)
{
	struct cache_key k = key_of(id);

	return table_find(&cache_shard(c, k.hash)->table, k) != NULL;
}

static uint64_t counted(size_t offset)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < SHARDS; i++) {
		uint64_t one;

		memcpy(&one, (const char *)&c->shard[i].n + offset, sizeof(one));
		n += one;
	}
	return n;
}

/* Those at the end of the list that are gone, and no others: `count` tells those. */
static uint64_t take_evicted(struct list *l, int64_t *last)
{
	uint64_t n = 0;

	while (l->count > 0 && !found(l->id[l->count - 1])) {
		*last = model[l->id[l->count - 1]].charge;
		model_remove(l->id[l->count - 1]);
		n++;
	}
	return n;
}

static void check_shard(unsigned i)
{
	const struct shard *s = &c->shard[i];
	int64_t last_absence = 0, last_body = 0, share = s->rules.share;

	expected.evictions += take_evicted(&lists[i][ENTRY_ABSENCE], &last_absence);
	expected.evictions += take_evicted(&lists[i][ENTRY_BODY], &last_body);
	MUST(s->bodies.count == lists[i][ENTRY_BODY].count);
	MUST(s->absences.count == lists[i][ENTRY_ABSENCE].count);
	MUST(s->absence_bytes <= share / ABSENCE_SHARE);
	MUST(s->bytes + table_bytes_due(&s->table) <= share || s->table.count == 0);
	/* No eviction without need; what else was needed then were arrays of the table. */
	MUST(!last_body || shard_bytes_locked(s) + last_body + ARRAYS > share);
}

static void check_evictions(void)
{
	for (unsigned i = 0; i < SHARDS; i++)
		check_shard(i);
	MUST(expected.evictions == counted(offsetof(struct counters, evictions)));
}

static void check_entry(struct entry *e, unsigned id, unsigned version)
{
	size_t len;
	const unsigned *body = entry_body(e, &len);
	unsigned words[2];

	if (entry_kind(e) == ENTRY_ABSENCE) {
		MUST(len == 0);
		return;
	}
	memcpy(words, body, sizeof(words));
	MUST(words[0] == id && words[1] == version);
}

static void keep(struct entry *e, unsigned id, unsigned version)
{
	size_t i = rnd(KEPT);

	if (kept[i].entry)
		check_entry(kept[i].entry, kept[i].id, kept[i].version);
	entry_unref(&kept[i].entry);
	kept[i].entry = e;
	kept[i].id = id;
	kept[i].version = version;
}

static void check_everything(void)
{
	struct counters sum = {0};
	uint64_t sum_hits = 0, sum_misses = 0;

	for (unsigned i = 0; i < SHARDS; i++) {
		const struct shard *s = &c->shard[i];
		uint64_t *to = (uint64_t *)&sum;
		const uint64_t *from = (const uint64_t *)&s->n;

		for (size_t k = 0; k < sizeof(sum) / sizeof(*to); k++)
			to[k] += from[k];
		sum_hits += s->hits;
		sum_misses += s->misses;
		for (unsigned kind = 0; kind < 2; kind++) {
			const struct list *l = &lists[i][kind];
			const struct entry *e =
			    kind == ENTRY_BODY ? s->bodies.newest : s->absences.newest;

			for (size_t k = 0; k < l->count; k++, e = e->older) {
				at = l->id[k];
				MUST(e && e->key_len == key_of(at).len);
				MUST(memcmp(entry_key(e), key_of(at).bytes, e->key_len) == 0);
				MUST(e->hits == model[at].hits);
				MUST(entry_charge(e) == model[at].charge);
			}
			MUST(e == NULL);
		}
	}
	MUST(memcmp(&sum, &expected, sizeof(sum)) == 0);
	MUST(sum_hits == hits && sum_misses == misses);
	MUST(generations_raises(g) == v);
	recount();
}

/* ---- operations ------------------------------------------------------------------------------ */

static void do_get(unsigned id)
{
	struct modelled *m = &model[id];
	bool is_raised = raised(m);
	struct prediction p = predict(m, is_raised);
	struct cache_found f;

	cache_get(c, key_of(id), &rules, now_ms, &f);
	if (!m->there) {
		MUST(f.state == CACHE_MISS && !f.stale && !f.expired && !f.entry);
		misses++;
		return;
	}
	count_end(m, is_raised, p.left <= 0);
	MUST(f.state == p.state);
	if (p.state == CACHE_MISS) {
		MUST(!f.entry && f.expired && f.stale == p.stale);
		misses++;
		return;
	}
	hits++;
	expected.swr += p.state == CACHE_SWR;
	expected.max_stale += p.state == CACHE_MAX_STALE;
	MUST(f.age_ms == p.age && f.ttl_ms == (is_raised ? 0 : p.left));
	MUST(f.refresh == (p.state == CACHE_SWR && now_ms >= m->refresh_ms));
	if (f.refresh)
		m->refresh_ms = now_ms + CACHE_REFRESH_MS;
	model_hit(id);
	check_entry(f.entry, id, m->version);
	keep(f.entry, id, m->version);
}

static void do_get_stale(unsigned id)
{
	struct modelled *m = &model[id];
	bool is_raised = raised(m);
	struct prediction p = predict(m, is_raised);
	struct cache_found f;

	if (!cache_get_stale(c, key_of(id), &rules, now_ms, &f)) {
		MUST(!m->there || !p.stale);
		return;
	}
	MUST(m->there && p.stale);
	count_end(m, is_raised, p.left <= 0);
	expected.stale_if_error++;
	MUST(f.state == p.state && f.age_ms == p.age);
	MUST(is_raised ? f.ttl_ms <= 0 : f.ttl_ms == p.left);
	model_hit(id);
	check_entry(f.entry, id, m->version);
	keep(f.entry, id, m->version);
}

static void do_peek(unsigned id)
{
	struct modelled *m = &model[id];
	struct entry *e = cache_peek(c, key_of(id), &rules, now_ms);

	MUST((e != NULL) == (m->there && predict(m, raised(m)).state == CACHE_FRESH));
	if (e)
		check_entry(e, id, m->version);
	entry_unref(&e);
}

static struct entry *fill(unsigned id, struct modelled *m)
{
	static unsigned version;
	static unsigned body[BODY / sizeof(unsigned)];
	struct entry_parts p = {.key = key_of(id), .slot = m->tag};
	struct entry *e;

	*m = (struct modelled){.there = true, .version = ++version};
	m->kind = rnd(5) ? ENTRY_BODY : ENTRY_ABSENCE;
	m->tags = rnd(TAGS_OF_ONE + 1);
	for (size_t i = 0; i < m->tags; i++)
		m->tag[i] = (gen_slot)rnd(TAGS);
	/* Some statements were sent a while ago. */
	m->start = v - MIN(v, rnd(4) ? 0 : rnd(20));
	m->started_ms = now_ms - (rnd(4) ? 0 : rnd(3000));
	body[0] = id;
	body[1] = version;
	p.kind = m->kind;
	p.body = body;
	p.body_len = m->kind == ENTRY_ABSENCE ? 0 : 8 + rnd(rnd(20) ? 300 : BODY - 8);
	p.slots = m->tags;
	p.start = m->start;
	p.started_ms = m->started_ms;
	e = entry_new(&p);
	MUST(e != NULL);
	m->shave = e->shave;
	m->charge = entry_charge(e);
	m->perishable =
	    m->kind == ENTRY_ABSENCE || (rules.max_stale_ms == 0 && rules.stale_if_error_ms == 0);
	m->dead_ms = m->started_ms + (uint64_t)ttl_of(m);
	if (m->kind == ENTRY_BODY)
		m->dead_ms += (uint64_t)MAX(rules.swr_ms, rules.stale_if_error_ms);
	return e;
}

static int predict_put(const struct modelled *m)
{
	int64_t share = options.capacity / SHARDS;
	struct prediction p = predict(m, false);

	if (m->charge > options.max_entry || m->charge > share / ENTRY_SHARE ||
	    (m->kind == ENTRY_ABSENCE && m->charge > share / ABSENCE_SHARE)) {
		expected.refused++;
		return -E2BIG;
	}
	if (p.state == CACHE_MISS && !p.stale)
		return -ECANCELED;
	if (raised(m) && predict(m, true).state == CACHE_MISS) {
		expected.outdated++;
		return -ESTALE;
	}
	return 0;
}

static void do_put(unsigned id)
{
	struct modelled m, *old = &model[id];
	_cleanup_entry_ struct entry *e = fill(id, &m);
	int r = cache_put(c, e, &rules, now_ms);

	MUST(r == predict_put(&m));
	if (r < 0)
		return;
	if (old->there &&
	    (old->start > m.start || (old->start == m.start && old->started_ms > m.started_ms)))
		return;
	expected.stores++;
	if (old->there) {
		m.hits = old->hits;
		model_remove(id);
	}
	model[id] = m;
	list_of(id)->clock++;
	list_add(list_of(id), id);
	check_evictions();
}

static void do_variant(unsigned id)
{
	enum entry_coding coding = rnd(CODING_COUNT);
	struct modelled *m = &model[id];
	struct cache_key k = key_of(id);
	struct entry *e = table_find(&cache_shard(c, k.hash)->table, k);
	size_t len = rnd(3) ? 100 + rnd(500) : 0, got;
	int64_t before;
	bool claimed;

	MUST((e != NULL) == m->there);
	if (!e)
		return;
	claimed = cache_claim_variant(c, e, coding);
	MUST(claimed == !(m->claims & 1u << coding));
	m->claims |= 1u << coding;
	if (claimed) {
		before = entry_charge(e);
		entry_ref(e);
		cache_attach(c, e, coding, len ? xcalloc(1, len) : NULL, len);
		m->variant[coding] = entry_variant(e, coding, &got) != NULL;
		MUST(!m->variant[coding] || (len && got == len));
		m->charge = entry_charge(e);
		MUST(m->variant[coding] == (m->charge > before));
		keep(e, id, m->version);
		check_evictions();
	}
}

static void do_raise(void)
{
	v++;
	if (rnd(100) == 0) {
		generations_raise_epoch(g);
		epoch = v;
	} else {
		gen_slot tag = (gen_slot)rnd(TAGS);

		generations_raise(g, tag);
		tag_v[tag] = v;
	}
}

/* All that is gone was dead; after a whole turn all that was dead is gone. */
static void do_sweep(unsigned calls)
{
	for (unsigned i = 0; i < calls; i++)
		cache_sweep(c, now_ms);
	for (unsigned id = 0; id < KEYS; id++) {
		struct modelled *m = &model[id];
		bool past = now_ms >= m->dead_ms, is_raised = m->perishable && raised(m);

		at = id;
		if (!m->there)
			continue;
		if (found(id)) {
			MUST(calls < CACHE_SWEEP_TURN || !(past || is_raised));
			continue;
		}
		MUST(past || is_raised);
		count_end(m, !past && is_raised, past);
		model_remove(id);
	}
}

static void do_configure(void)
{
	options.capacity = (int64_t)(4096 << rnd(6)) + (int64_t)rnd(4096);
	options.max_entry = rnd(4) ? 8192 : 1024;
	options.negative_ttl_ms = (int64_t)rnd(3000);
	cache_configure(c, &options);
	check_evictions();
}

static void do_other_rules(void)
{
	rules.ttl_ms = rnd(20) ? (int64_t)(100 << rnd(6)) : 0;
	rules.swr_ms = rnd(2) ? (int64_t)rnd(3000) : 0;
	rules.max_stale_ms = rnd(2) ? (int64_t)rnd(3000) : 0;
	rules.stale_if_error_ms = rnd(2) ? (int64_t)rnd(10000) : 0;
}

static void do_something(void)
{
	unsigned id = (unsigned)MIN(rnd(KEYS), rnd(KEYS)), what = (unsigned)rnd(1000);

	at = id;
	if (what < 450)
		do_get(id);
	else if (what < 500)
		do_get_stale(id);
	else if (what < 540)
		do_peek(id);
	else if (what < 780)
		do_put(id);
	else if (what < 840)
		do_variant(id);
	else if (what < 920)
		do_raise();
	else if (what < 970)
		now_ms += rnd(rnd(10) ? 20 : 1000);
	else if (what < 990)
		do_sweep(1 + (unsigned)rnd(40));
	else if (what < 998)
		do_other_rules();
	else
		do_configure();
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

START_TEST(cache_is_as_its_model)
{
	uint64_t operations = number_of("MODEL_OPERATIONS", 1000000);

	seed = number_of("MODEL_SEED", clock_us());
	printf("MODEL_SEED=%" PRIu64 "\n", seed);
	fflush(stdout);
	now_ms = T0;
	do_other_rules();
	for (; operation < operations; operation++) {
		do_something();
		if (operation % 1024 == 0)
			check_everything();
		if (operation % 16384 == 0)
			do_sweep(CACHE_SWEEP_TURN);
	}
	check_everything();
	/* The run has been where it was meant to go. */
	ck_assert_uint_gt(expected.evictions, 1000);
	ck_assert_uint_gt(expected.swr, 100);
	ck_assert_uint_gt(expected.max_stale, 100);
	ck_assert_uint_gt(expected.outdated, 100);
	ck_assert_uint_gt(expected.refused, 100);
	ck_assert_uint_gt(expected.expirations, 1000);
	ck_assert_uint_gt(expected.invalidations, 1000);
	for (size_t i = 0; i < KEPT; i++)
		entry_unref(&kept[i].entry);
}
END_TEST

static void model_setup(void)
{
	fixture(64 << 10, SHARDS);
}

static Suite *cache_model_suite(void)
{
	Suite *s = suite_create("cache_model");
	TCase *t = tcase_create("cache_model");

	tcase_set_timeout(t, 600);
	tcase_add_checked_fixture(t, model_setup, teardown);
	tcase_add_test(t, cache_is_as_its_model);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run(cache_model_suite());
}

/*
 * recency_bench: hits and moves of the cache's rule of recency, beside exact LRU (every hit moves)
 * and FIFO (none does). Zipf's law over 100,000 keys, of which two in a hundred change places every
 * 400,000 requests; 4,000,000 requests, the first quarter not counted. Same requests for all, so
 * that the figures depend on nothing else.
 */
#include <math.h>
#include <stdio.h>

#include "../../src/cache/internal.h"
#include <string.h>

enum { KEYS = 100000, REQUESTS = 4000000, WARM = REQUESTS / 4, DRIFT = 400000 };
enum rule { RULE_PROVOST, RULE_LRU, RULE_FIFO, RULES };

static struct entry *entry;
static bool *there;
static double *sum;
static uint32_t *key_of_rank;
static uint64_t state;

/* xorshift64 */
static double uniform(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (double)(state >> 11) * 0x1p-53;
}

static size_t below(size_t n)
{
	return (size_t)(uniform() * (double)n);
}

static void swap_ranks(size_t a, size_t b)
{
	uint32_t key = key_of_rank[a];
	key_of_rank[a] = key_of_rank[b];
	key_of_rank[b] = key;
}

static size_t draw(void)
{
	double u = uniform() * sum[KEYS - 1];
	size_t low = 0, high = KEYS - 1;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (sum[middle] < u)
			low = middle + 1;
		else
			high = middle;
	}
	return key_of_rank[low];
}

/* Whether the entry was moved. */
static bool hit(struct recency *r, struct entry *e, enum rule rule)
{
	struct entry *newest = r->newest;
	if (rule == RULE_FIFO || newest == e)
		return false;
	if (rule == RULE_PROVOST) {
		recency_hit(r, e);
	} else {
		recency_remove(r, e);
		recency_insert(r, e);
	}
	return r->newest != newest;
}

static void put(struct recency *r, size_t key, size_t room)
{
	if (r->count == room) {
		struct entry *victim = recency_victim(r);
		recency_remove(r, victim);
		there[victim - entry] = false;
	}
	recency_insert(r, &entry[key]);
	there[key] = true;
}

static void run(enum rule rule, size_t room)
{
	static const char *const name[] = {"provost", "LRU", "FIFO"};
	struct recency r = {0};
	unsigned hits = 0, moves = 0;

	state = 88172645463325252u;
	memset(entry, 0, KEYS * sizeof(*entry));
	memset(there, 0, KEYS * sizeof(*there));
	for (uint32_t i = 0; i < KEYS; i++)
		key_of_rank[i] = i;
	for (size_t i = KEYS - 1; i > 0; i--)
		swap_ranks(i, below(i + 1));
	for (unsigned n = 0; n < REQUESTS; n++) {
		for (unsigned i = 0; n % DRIFT == DRIFT - 1 && i < KEYS / 50; i++)
			swap_ranks(below(KEYS), below(KEYS));
		size_t key = draw();
		bool found = there[key], moved = false;
		if (found)
			moved = hit(&r, &entry[key], rule);
		else
			put(&r, key, room);
		if (n >= WARM) {
			hits += found;
			moves += moved;
		}
	}
	printf("  %s %.4f (%.3f moves)", name[rule], (double)hits / (REQUESTS - WARM),
	       (double)moves / (REQUESTS - WARM));
	fflush(stdout);
}

int main(void)
{
	static const double exponent[] = {0.8, 0.99, 1.2};
	static const double share[] = {0.01, 0.1, 0.5};

	entry = xcalloc(KEYS, sizeof(*entry));
	there = xcalloc(KEYS, sizeof(*there));
	sum = xcalloc(KEYS, sizeof(*sum));
	key_of_rank = xcalloc(KEYS, sizeof(*key_of_rank));
	for (size_t z = 0; z < ELEMENTSOF(exponent); z++) {
		for (size_t i = 0; i < KEYS; i++)
			sum[i] = (i ? sum[i - 1] : 0) + pow((double)(i + 1), -exponent[z]);
		for (size_t s = 0; s < ELEMENTSOF(share); s++) {
			printf("exponent %.2f, room for %2.0f %%:", exponent[z], share[s] * 100);
			for (enum rule rule = 0; rule < RULES; rule++)
				run(rule, (size_t)(share[s] * KEYS));
			putchar('\n');
		}
	}
	free(entry);
	free(there);
	free(sum);
	free(key_of_rank);
	return 0;
}

/*
 * cache_bench: what a lookup costs, what two threads make of it, what an entry takes, and what the
 * process takes for a capacity.
 *
 *   cache_bench [--entries N[,N...]] [--body BYTES] [--zipf EXPONENT] [--puts PERCENT[,PERCENT...]]
 *               [--rounds N] [--ms N] [--shards N] [--slots N] [--raises] [--cpu-time]
 *               [--default-malloc]
 *   cache_bench --churn MINUTES [--capacity SIZE] [--mix stationary|shifting] [--default-malloc]
 *
 * One thread and two take turns within a run, so that both see the same machine; figures are the
 * median of the rounds and their spread (lowest - highest). --raises keeps another tag being
 * raised, so that hits look at every slot of theirs. SIZE is as in the
 * configuration: 256MiB.
 */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "provost/cache.h"
#include "provost/units.h"

enum { THREADS = 2, ROUNDS_MAX = 100, LIST_MAX = 8, SAMPLES = 1 << 20, KEY_LEN = 40 };

static const struct freshness hour = {.ttl_ms = 3600000, .stale_if_error_ms = 3600000};

static struct options {
	size_t entries[LIST_MAX], entry_counts;
	size_t puts[LIST_MAX], put_counts;
	size_t body, rounds, ms, shards, slots;
	double zipf, churn_minutes;
	int64_t capacity;
	bool shifting, default_malloc, raises, cpu_time;
} opt = {
    .entries = {1000, 10000, 100000, 1000000},
    .entry_counts = 4,
    .puts = {0, 5},
    .put_counts = 2,
    .body = 200,
    .rounds = 7,
    .ms = 300,
    .shards = 16,
    .slots = 6,
    .zipf = 1.0,
    .capacity = (int64_t)256 << 20,
};

/* ---- random numbers -------------------------------------------------------------------------- */

struct rng {
	uint64_t state;
};

static uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static uint64_t rng_below(struct rng *r, uint64_t bound)
{
	return (uint64_t)((unsigned __int128)rng_next(r) * bound >> 64);
}

static double rng_unit(struct rng *r)
{
	return (double)(rng_next(r) >> 11) / (double)(1ull << 53);
}

/* Ranks by Zipf's law, drawn beforehand: drawing them costs more than a lookup. */
static void draw_zipf(uint32_t *sample, size_t n, size_t entries, double exponent, uint64_t seed)
{
	_cleanup_free_ double *sum = xcalloc(entries, sizeof(*sum));
	struct rng r = {seed};
	double total = 0;

	for (size_t i = 0; i < entries; i++)
		sum[i] = total += pow((double)(i + 1), -exponent);
	for (size_t i = 0; i < n; i++) {
		double x = rng_unit(&r) * total;
		size_t low = 0, high = entries - 1;

		while (low < high) {
			size_t mid = (low + high) / 2;

			if (sum[mid] < x)
				low = mid + 1;
			else
				high = mid;
		}
		sample[i] = (uint32_t)low;
	}
}

/* ---- lookups --------------------------------------------------------------------------------- */

struct key_text {
	char text[KEY_LEN];
};

/* As a request's: a name, a fingerprint, a value. */
static struct cache_key key_of(const struct cache *c, struct key_text *k, uint32_t id)
{
	static const char digit[] = "0123456789abcdef";

	memcpy(k->text,
	       "users-get\0"
	       "0123456789abcdef0123"
	       "\1"
	       "00000000",
	       KEY_LEN);
	for (size_t i = 0; i < 8; i++)
		k->text[31 + i] = digit[id >> (28 - 4 * i) & 15];
	return cache_key(c, k->text, KEY_LEN);
}

static struct entry *make(const struct cache *c, const struct generations *g, uint32_t id,
                          size_t body_len)
{
	static const char body[1 << 20];
	struct entry_parts p = {.body = body, .body_len = MIN(body_len, sizeof(body))};
	gen_slot slot[CACHE_SLOTS_MAX];
	struct key_text k;
	struct entry *e;

	for (size_t i = 0; i < opt.slots; i++)
		slot[i] = (gen_slot)((id * 31 + i * 7919) | 1);
	p.key = key_of(c, &k, id);
	p.slot = slot;
	p.slots = opt.slots;
	p.start = generations_now(g);
	p.started_ms = clock_ms();
	e = entry_new(&p);
	ALWAYS(e != NULL);
	return e;
}

static void put(struct cache *c, const struct generations *g, uint32_t id, size_t body_len)
{
	_cleanup_entry_ struct entry *e = make(c, g, id, body_len);

	if (cache_put(c, e, &hour, clock_ms()) < 0)
		abort();
}

struct looker {
	struct cache *c;
	struct generations *g;
	const uint32_t *sample;
	size_t puts; /* percent */
	uint64_t seed;
	atomic_bool *go, *stop;
	uint64_t hits, stores;
	double seconds;
};

/* On a machine that has other work to do, a thread's own time says more. It leaves out what the
 * thread waits for, locks included. */
static uint64_t time_us(void)
{
	struct timespec ts;

	if (!opt.cpu_time)
		return clock_us();
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void look(struct looker *l)
{
	struct rng r = {l->seed};
	uint64_t began = time_us(), now = clock_ms();
	uint64_t hits = 0, stores = 0;
	size_t at = rng_below(&r, SAMPLES);
	struct cache_found f;
	struct key_text k;

	for (unsigned i = 0; i % 256 || !atomic_load_explicit(l->stop, memory_order_relaxed); i++) {
		uint32_t id = l->sample[at++ % SAMPLES];

		if (l->puts && rng_next(&r) % 100 < l->puts) {
			put(l->c, l->g, id, opt.body);
			stores++;
			continue;
		}
		cache_get(l->c, key_of(l->c, &k, id), &hour, now, &f);
		ALWAYS(f.state == CACHE_FRESH);
		entry_unref(&f.entry);
		hits++;
	}
	l->hits = hits;
	l->stores = stores;
	l->seconds = (double)(time_us() - began) / 1e6;
}

static void *look_thread(void *arg)
{
	struct looker *l = arg;

	while (!atomic_load(l->go))
		sched_yield();
	look(l);
	return NULL;
}

/* Operations in a second, of all threads. */
static double round_of(struct cache *c, struct generations *g, const uint32_t *sample,
                       size_t threads, size_t puts, uint64_t seed)
{
	atomic_bool go = false, stop = false;
	struct looker l[THREADS];
	pthread_t t[THREADS];
	double rate = 0;

	for (size_t i = 0; i < threads; i++) {
		l[i] = (struct looker){.c = c,
		                       .g = g,
		                       .sample = sample,
		                       .puts = puts,
		                       .seed = seed + i,
		                       .go = &go,
		                       .stop = &stop};
		ALWAYS(pthread_create(&t[i], NULL, look_thread, &l[i]) == 0);
	}
	atomic_store(&go, true);
	for (uint64_t until = clock_ms() + opt.ms; clock_ms() < until;) {
		usleep(1000);
		if (opt.raises)
			generations_raise(g, 0);
	}
	atomic_store(&stop, true);
	for (size_t i = 0; i < threads; i++) {
		pthread_join(t[i], NULL);
		rate += (double)(l[i].hits + l[i].stores) / l[i].seconds;
	}
	return rate;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *x, size_t n)
{
	qsort(x, n, sizeof(*x), compare);
	return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static void compare_threads(struct cache *c, struct generations *g, size_t entries,
                            const uint32_t *sample, size_t puts)
{
	double one[ROUNDS_MAX], two[ROUNDS_MAX], ratio[ROUNDS_MAX], ns[ROUNDS_MAX];
	double m1, m2, m;

	for (size_t i = 0; i < opt.rounds; i++) {
		one[i] = round_of(c, g, sample, 1, puts, i * 10);
		two[i] = round_of(c, g, sample, 2, puts, i * 10 + 5);
		ratio[i] = two[i] / one[i];
		ns[i] = 1e9 / one[i];
	}
	m1 = median(one, opt.rounds);
	m2 = median(two, opt.rounds);
	m = median(ns, opt.rounds);
	printf("%9zu %5zu%% %8.0f (%.0f - %.0f)", entries, puts, m, ns[0], ns[opt.rounds - 1]);
	m = median(ratio, opt.rounds);
	printf("%11.2f %10.2f %8.2f", m1 / 1e6, m2 / 1e6, m);
	printf(" (%.2f - %.2f)\n", ratio[0], ratio[opt.rounds - 1]);
	fflush(stdout);
}

static void bench_lookups(size_t entries)
{
	struct cache_options o = {
	    .capacity = (int64_t)(entries * (opt.body + 512) * 2 + (64 << 20)),
	    .shards = (unsigned)opt.shards,
	    .max_entry = 4 << 20,
	    .negative_ttl_ms = 1000,
	};
	_cleanup_free_ uint32_t *sample = xcalloc(SAMPLES, sizeof(*sample));
	_cleanup_free_ uint32_t *id = xcalloc(entries, sizeof(*id));
	struct generations *g = generations_new();
	struct cache *c = cache_new(&o, g);
	struct cache_stats s;
	struct rng r = {4711};

	/* Who was stored when, and lies where, has nothing to do with who is asked for. */
	for (uint32_t i = 0; i < entries; i++) {
		size_t at = rng_below(&r, i + 1);

		id[i] = id[at];
		id[at] = i;
	}
	for (size_t i = 0; i < entries; i++)
		put(c, g, id[i], opt.body);
	draw_zipf(sample, SAMPLES, entries, opt.zipf, 17);
	cache_stats(c, &s);
	ALWAYS(s.entries == entries && s.evictions == 0);
	for (size_t i = 0; i < opt.put_counts; i++)
		compare_threads(c, g, entries, sample, opt.puts[i]);
	printf("%9zu entries: %.1f bytes each beyond key (%d) and body (%zu), of %zu slots\n",
	       entries, (double)s.bytes / (double)entries - KEY_LEN - (double)opt.body, KEY_LEN,
	       opt.body, opt.slots);
	cache_stats_done(&s);
	cache_free(&c);
	generations_free(&g);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static int64_t rss(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/statm", "re");
	long size, resident;

	ALWAYS(f && fscanf(f, "%ld %ld", &size, &resident) == 2);
	return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

static uint64_t longest_trim_us;

struct churner {
	struct cache *c;
	struct generations *g;
	uint64_t seed;
	atomic_bool *stop;
	_Atomic unsigned *phase;
};

static double log_uniform(struct rng *r, double low, double high)
{
	return low * pow(high / low, rng_unit(r));
}

/* What a body measures: the same for ever, or now small ones, now large ones. */
static size_t body_size(struct rng *r, unsigned phase)
{
	static const struct {
		double low, high;
	} range[] = {{150, 1500}, {4000, 40000}, {600, 6000}, {30000, 300000}};

	if (!opt.shifting)
		return (size_t)log_uniform(r, 200, 100000);
	phase %= ELEMENTSOF(range);
	return (size_t)log_uniform(r, range[phase].low, range[phase].high);
}

/* A variant of about a fifth, for every third body, in a block that is too large, as encoders'. */
static void churn_variant(struct churner *x, struct entry *e, struct rng *r, size_t body)
{
	void *bytes;

	if (rng_below(r, 3) || !cache_claim_variant(x->c, e, CODING_GZIP))
		return;
	bytes = xcalloc(1, body + 100);
	cache_attach(x->c, e, CODING_GZIP, bytes, body / 5);
}

static void *churn_thread(void *arg)
{
	struct churner *x = arg;
	struct rng r = {x->seed};

	while (!atomic_load_explicit(x->stop, memory_order_relaxed)) {
		/* Some ids often, most hardly ever: far more than there is room for. */
		uint32_t id = (uint32_t)log_uniform(&r, 1, 1e8);
		unsigned phase = atomic_load_explicit(x->phase, memory_order_relaxed);
		struct cache_found f;
		struct key_text k;
		struct entry *e;
		size_t body;

		cache_get(x->c, key_of(x->c, &k, id), &hour, clock_ms(), &f);
		if (f.entry) {
			entry_unref(&f.entry);
			/* Refilled now and then, else the hot ones would keep their sizes. */
			if (rng_below(&r, 50))
				continue;
		}
		body = body_size(&r, phase);
		e = make(x->c, x->g, id, body);
		if (cache_put(x->c, e, &hour, clock_ms()) == 0)
			churn_variant(x, e, &r, body);
		entry_unref(&e);
	}
	return NULL;
}

/* What a server does every second and every 10 ms. */
static void wait_as_janitor(struct cache *c, double seconds)
{
	static unsigned naps;

	for (uint64_t until = clock_us() + (uint64_t)(seconds * 1e6); clock_us() < until;) {
		uint64_t began;

		usleep(10000);
		cache_sweep(c, clock_ms());
		if (opt.default_malloc || ++naps % 10)
			continue;
		began = clock_us();
		cache_trim_memory(c, clock_ms());
		longest_trim_us = MAX(longest_trim_us, clock_us() - began);
	}
}

static void churn(void)
{
	struct cache_options o = {
	    .capacity = opt.capacity,
	    .shards = (unsigned)opt.shards,
	    .max_entry = 4 << 20,
	    .negative_ttl_ms = 1000,
	};
	struct generations *g = generations_new();
	struct cache *c = cache_new(&o, g);
	_Atomic unsigned phase = 0;
	atomic_bool stop = false;
	pthread_t t[THREADS];
	struct churner x[THREADS];
	double seconds = opt.churn_minutes * 60, highest = 0, ratio = 0;
	/* Each size comes up at least three times. */
	double phase_seconds = MIN(20, seconds / 12);
	uint64_t began = clock_ms();

	for (size_t i = 0; i < THREADS; i++) {
		x[i] = (struct churner){c, g, i + 1, &stop, &phase};
		ALWAYS(pthread_create(&t[i], NULL, churn_thread, &x[i]) == 0);
	}
	printf("%8s %10s %10s %12s %10s %7s\n", "seconds", "entries", "evicted", "bytes (MiB)",
	       "rss (MiB)", "ratio");
	for (unsigned i = 1; (double)(clock_ms() - began) < seconds * 1000; i++) {
		struct cache_stats s;
		double at;

		wait_as_janitor(c, MIN(5, seconds / 24));
		at = (double)(clock_ms() - began) / 1000;
		atomic_store(&phase, (unsigned)(at / phase_seconds));
		cache_stats(c, &s);
		ratio = (double)rss() / (double)opt.capacity;
		if (s.evictions)
			highest = MAX(highest, ratio);
		printf("%8.1f %10" PRIu64 " %10" PRIu64 " %12.1f %10.1f %7.3f\n", at, s.entries,
		       s.evictions, (double)s.bytes / 1048576, (double)rss() / 1048576, ratio);
		fflush(stdout);
		cache_stats_done(&s);
	}
	atomic_store(&stop, true);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	printf("%s, %s malloc: rss / capacity %.3f at the end, %.3f at most\n",
	       opt.shifting ? "shifting" : "stationary", opt.default_malloc ? "default" : "tuned",
	       ratio, highest);
	printf("longest trim: %.1f ms\n", (double)longest_trim_us / 1000);
	cache_free(&c);
	generations_free(&g);
}

/* ---- options --------------------------------------------------------------------------------- */

static size_t numbers(char *text, size_t *to)
{
	char *save, *item = strtok_r(text, ",", &save);
	size_t n = 0;

	for (; item && n < LIST_MAX; item = strtok_r(NULL, ",", &save))
		to[n++] = strtoul(item, NULL, 10);
	return n;
}

static _noreturn_ void usage(void)
{
	fputs("usage: cache_bench [--entries N,...] [--body BYTES] [--zipf EXPONENT] [--puts "
	      "PERCENT,...]\n"
	      "                   [--rounds N] [--ms N] [--shards N] [--slots N] [--raises] "
	      "[--cpu-time]\n"
	      "                   [--default-malloc]\n"
	      "       cache_bench --churn MINUTES [--capacity SIZE] [--mix stationary|shifting] "
	      "[--default-malloc]\n",
	      stderr);
	exit(2);
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
	    {"entries", 1, NULL, 'e'}, {"body", 1, NULL, 'b'},
	    {"zipf", 1, NULL, 'z'},    {"puts", 1, NULL, 'p'},
	    {"rounds", 1, NULL, 'r'},  {"ms", 1, NULL, 't'},
	    {"shards", 1, NULL, 's'},  {"slots", 1, NULL, 'l'},
	    {"churn", 1, NULL, 'c'},   {"capacity", 1, NULL, 'C'},
	    {"mix", 1, NULL, 'm'},     {"default-malloc", 0, NULL, 'd'},
	    {"raises", 0, NULL, 'R'},  {"cpu-time", 0, NULL, 'T'},
	    {NULL, 0, NULL, 0},
	};
	int o;

	while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (o) {
		case 'e':
			opt.entry_counts = numbers(optarg, opt.entries);
			break;
		case 'p':
			opt.put_counts = numbers(optarg, opt.puts);
			break;
		case 'b':
			opt.body = strtoul(optarg, NULL, 10);
			break;
		case 'z':
			opt.zipf = strtod(optarg, NULL);
			break;
		case 'r':
			opt.rounds = MIN(strtoul(optarg, NULL, 10), (size_t)ROUNDS_MAX);
			break;
		case 't':
			opt.ms = strtoul(optarg, NULL, 10);
			break;
		case 's':
			opt.shards = strtoul(optarg, NULL, 10);
			break;
		case 'l':
			opt.slots = strtoul(optarg, NULL, 10);
			break;
		case 'c':
			opt.churn_minutes = strtod(optarg, NULL);
			break;
		case 'C':
			if (units_size(optarg, &opt.capacity) < 0)
				usage();
			break;
		case 'm':
			opt.shifting = strcmp(optarg, "shifting") == 0;
			break;
		case 'd':
			opt.default_malloc = true;
			break;
		case 'T':
			opt.cpu_time = true;
			break;
		case 'R':
			opt.raises = true;
			break;
		default:
			usage();
		}
	}
	if (optind < argc || opt.rounds == 0)
		usage();
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	if (!opt.default_malloc)
		cache_tune_allocator();
	if (opt.churn_minutes > 0) {
		churn();
		return EXIT_SUCCESS;
	}
	printf("%9s %6s %-22s %9s %10s   %s\n", "entries", "puts", "  ns, 1 thread", "1: M/s",
	       "2: M/s", "2 / 1");
	for (size_t i = 0; i < opt.entry_counts; i++)
		bench_lookups(opt.entries[i]);
	return EXIT_SUCCESS;
}

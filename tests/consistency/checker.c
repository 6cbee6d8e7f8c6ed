/*
 * checker: writes through Provost and beside it, reads, and says of every answer whether it may be
 * (model.h). For tests/consistency/run, which starts what this needs and does the harm.
 *
 *   checker --port N --dsn URL [--rows N] [--operations N] [--seconds N] [--seed N] ...
 *
 * Lines on stdin: `phase N`, from which on times are counted apart; `wide`, `truncate`: to be done
 * now; `stop`. The last line on stdout is `SUMMARY` and a JSON document. Exit status: 0; 1 with
 * violations; 2 for a bad command line.
 */
#include <getopt.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "work.h"

enum { WORKERS_MAX = 128 };

struct options {
	unsigned readers, batchers, writers, foreign, blinkers, probes, invalidators;
	unsigned seconds; /* 0: until there are as many operations, or `stop` */
	unsigned rows;
	bool until_violation;
};

static int64_t violations(const struct work *w)
{
	int64_t n = 0;
	for (int i = 0; i < 3; i++)
		n += atomic_load(&w->m.violations[i]);
	return n;
}

/* ---- orders from stdin --------------------------------------------------------------- */

static void obey(struct work *w, char *line)
{
	int n;
	if (sscanf(line, "phase %d", &n) == 1 && n >= 0 && n < PHASES)
		atomic_store(&w->phase, n);
	else if (!strncmp(line, "wide", 4))
		atomic_store(&w->wide, 1);
	else if (!strncmp(line, "truncate", 8))
		atomic_store(&w->truncate, 1);
	else if (!strncmp(line, "stop", 4))
		atomic_store(&w->stop, true);
}

/* Until it is time to stop. Without stdin there are no orders. */
static void wait_for_end(struct work *w, const struct options *o)
{
	uint64_t until = work_now_us() + (uint64_t)o->seconds * 1000000;
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	char line[128];
	while (!atomic_load(&w->stop)) {
		if (poll(&p, 1, 50) > 0) {
			ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
			if (n <= 0) {
				p.fd = -1;
				continue;
			}
			line[n] = '\0';
			for (char *at, *l = strtok_r(line, "\n", &at); l;
			     l = strtok_r(NULL, "\n", &at))
				obey(w, l);
		}
		if ((o->seconds && work_now_us() >= until) || (o->until_violation && violations(w)))
			atomic_store(&w->stop, true);
	}
}

/* ---- the end ------------------------------------------------------------------------- */

/* Everything is as the database says, once a last write is acknowledged. */
static void look_at_all(struct work *w, const char *dsn)
{
	struct worker x;
	struct answer a;
	bool sent;
	worker_init(&x, w, WORKERS_MAX);
	for (int i = 0; i < 100; i++) {
		if (client_ask(&x.client, "PUT", "/api/blinks/0", "{\"v\":0}", &a, &sent) == 0 &&
		    a.status == 200)
			break;
		usleep(100000);
	}
	PGconn *c = PQconnectdb(dsn);
	PGresult *r = PQexec(c, "SELECT id, v FROM item");
	if (a.status != 200 || PQresultStatus(r) != PGRES_TUPLES_OK) {
		printf("STRANGE the end: %d, %s\n", a.status, PQerrorMessage(c));
		atomic_fetch_add(&w->n.strange, 1);
	}
	for (int i = 0; i < PQntuples(r); i++) {
		struct row *row = &w->m.row[atoi(PQgetvalue(r, i, 0))];
		int64_t v = atoll(PQgetvalue(r, i, 1));
		atomic_store(&row->inflight, 0);
		if (v < atomic_load(&row->known)) {
			printf("VIOLATION impossible: row %d is at %" PRId64 " in the database, "
			       "was committed at %" PRId64 "\n",
			       i, v, atomic_load(&row->known));
			atomic_fetch_add(&w->m.violations[IMPOSSIBLE], 1);
		}
		atomic_store(&row->known, v);
		atomic_store(&row->acked, v);
	}
	PQclear(r);
	PQfinish(c);
	w->operations = 0;
	for (int i = 0; i < w->m.views; i++)
		(void)worker_look(&x, &w->m.view[i]);
	worker_done(&x);
}

static int compare_us(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void print_times(const char *name, struct times *t)
{
	printf(",\"%s\":[", name);
	for (int i = 0; i < PHASES; i++) {
		uint32_t n = atomic_load(&t[i].n) < LAGS ? atomic_load(&t[i].n) : LAGS;
		qsort(t[i].us, n, sizeof t[i].us[0], compare_us);
		printf("%s{\"n\":%u,\"p50\":%u,\"p99\":%u,\"max\":%u}", i ? "," : "", n,
		       n ? t[i].us[n / 2] : 0, n ? t[i].us[n - 1 - n / 100] : 0,
		       n ? t[i].us[n - 1] : 0);
	}
	printf("]");
}

static void print_summary(struct work *w, double seconds)
{
	const struct {
		const char *name;
		_Atomic int64_t *n;
	} counts[] = {
	    {"reads", &w->n.reads},
	    {"hits", &w->n.hits},
	    {"writes", &w->n.writes},
	    {"rolled_back", &w->n.rolled_back},
	    {"no_row", &w->n.missing},
	    {"refused", &w->n.refused},
	    {"unknown", &w->n.unknown},
	    {"not_answered", &w->n.not_answered},
	    {"foreign", &w->n.foreign},
	    {"foreign_rolled_back", &w->n.foreign_rolled_back},
	    {"foreign_unknown", &w->n.foreign_unknown},
	    {"wide", &w->n.wide},
	    {"truncated", &w->n.truncated},
	    {"invalidated", &w->n.invalidated},
	    {"strange", &w->n.strange},
	    {"stale", &w->m.violations[STALE]},
	    {"backwards", &w->m.violations[BACKWARDS]},
	    {"impossible", &w->m.violations[IMPOSSIBLE]},
	};
	printf("SUMMARY {\"seconds\":%.1f", seconds);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		printf(",\"%s\":%" PRId64, counts[i].name, atomic_load(counts[i].n));
	print_times("lag_us", w->lag);
	print_times("ack_us", w->ack);
	printf("}\n");
}

/* ---- the threads --------------------------------------------------------------------- */

static struct worker workers[WORKERS_MAX];
static pthread_t threads[WORKERS_MAX];
static int running;

static void start(struct work *w, void *(*f)(void *), unsigned n)
{
	for (unsigned i = 0; i < n && running < WORKERS_MAX; i++, running++) {
		worker_init(&workers[running], w, running + 1);
		if (pthread_create(&threads[running], NULL, f, &workers[running]) != 0)
			abort();
	}
}

static void run(struct work *w, const struct options *o)
{
	uint64_t since = work_now_us();
	start(w, work_foreign, o->foreign);
	start(w, work_blink, o->blinkers);
	start(w, work_probe, o->probes);
	start(w, work_write, o->writers);
	start(w, work_invalidate, o->invalidators);
	start(w, work_batch, o->batchers);
	start(w, work_read, o->readers);
	wait_for_end(w, o);
	for (int i = 0; i < running; i++) {
		pthread_join(threads[i], NULL);
		worker_done(&workers[i]);
	}
	double seconds = (double)(work_now_us() - since) / 1e6;
	if (!o->until_violation)
		look_at_all(w, w->dsn);
	print_summary(w, seconds);
}

static const struct option OPTIONS[] = {
    {"port", 1, NULL, 'p'},
    {"dsn", 1, NULL, 'd'},
    {"rows", 1, NULL, 'R'},
    {"operations", 1, NULL, 'o'},
    {"seconds", 1, NULL, 's'},
    {"seed", 1, NULL, 'S'},
    {"hot", 1, NULL, 'h'},
    {"readers", 1, NULL, 'r'},
    {"writers", 1, NULL, 'w'},
    {"foreign", 1, NULL, 'f'},
    {"blinkers", 1, NULL, 'b'},
    {"probes", 1, NULL, 'P'},
    {"invalidators", 1, NULL, 'i'},
    {"batchers", 1, NULL, 'B'},
    {"read-pause", 1, NULL, 'x'},
    {"write-pause", 1, NULL, 'y'},
    {"invalidate-pause", 1, NULL, 'z'},
    {"until-violation", 0, NULL, 'u'},
    {NULL, 0, NULL, 0},
};

static bool take(struct options *o, struct work *w, int c)
{
	unsigned long n = optarg ? strtoul(optarg, NULL, 10) : 0;
	unsigned u = (unsigned)n;
	switch (c) {
	case 'p':
		w->port = (unsigned short)n;
		return true;
	case 'd':
		w->dsn = optarg;
		return true;
	case 'o':
		w->operations = (int64_t)n;
		return true;
	case 'S':
		w->seed = n;
		return true;
	case 'h':
		w->hot = u;
		return true;
	case 'x':
		w->read_pause_us = u;
		return true;
	case 'y':
		w->write_pause_us = u;
		return true;
	case 'z':
		w->invalidate_pause_us = u;
		return true;
	case 'R':
		o->rows = u;
		return true;
	case 's':
		o->seconds = u;
		return true;
	case 'r':
		o->readers = u;
		return true;
	case 'B':
		o->batchers = u;
		return true;
	case 'w':
		o->writers = u;
		return true;
	case 'f':
		o->foreign = u;
		return true;
	case 'b':
		o->blinkers = u;
		return true;
	case 'P':
		o->probes = u;
		return true;
	case 'i':
		o->invalidators = u;
		return true;
	case 'u':
		o->until_violation = true;
		return true;
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	static struct work w = {.hot = 20};
	struct options o = {.readers = 12,
	                    .batchers = 2,
	                    .writers = 4,
	                    .foreign = 3,
	                    .blinkers = 1,
	                    .probes = 1,
	                    .rows = 2000};
	int c;
	while ((c = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1)
		if (!take(&o, &w, c))
			return 2;
	if (!w.port || !w.dsn || optind < argc || o.rows < PAGE || o.rows % PAGE || o.rows > 5000 ||
	    w.hot < 4 || w.hot > o.rows / 2) {
		fprintf(stderr,
		        "checker: --port, --dsn, and --rows a multiple of %d up to 5000, --hot 4 "
		        "or more\n",
		        PAGE);
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	model_init(&w.m, (int)o.rows);
	run(&w, &o);
	int64_t wrong = violations(&w) + atomic_load(&w.n.strange);
	model_free(&w.m);
	return wrong ? 1 : 0;
}

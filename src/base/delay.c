#include "provost/delay.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "provost/units.h"

static const char *const point_name[DELAY_COUNT] = {
    [DELAY_FILL_START] = "fill-start",
    [DELAY_FILL_SEND] = "fill-send",
    [DELAY_FILL_RESULT] = "fill-result",
    [DELAY_STORE] = "store",
    [DELAY_PUT] = "put",
    [DELAY_JOIN] = "join",
    [DELAY_JOINED] = "joined",
    [DELAY_RAISE] = "raise",
    [DELAY_TAGS] = "tags",
    [DELAY_LISTEN] = "listen",
    [DELAY_TOKEN] = "token",
    [DELAY_WRITE] = "write",
    [DELAY_COMMIT] = "commit",
    [DELAY_ANSWER] = "answer",
};

static const char *const rule_name[RULE_COUNT] = {
    [RULE_JOIN] = "join",
    [RULE_STORE] = "store",
    [RULE_MAXIMUM] = "maximum",
    [RULE_TOKEN] = "token",
};

enum { THREAD_NAME_MAX = 16 };

static struct {
	uint64_t chance; /* of 2^32 */
	uint64_t most_us;
	char thread[THREAD_NAME_MAX]; /* how the names of those concerned begin */
} point[DELAY_COUNT];
static bool broken[RULE_COUNT];

/* Threads are named as they start. */
static bool is_concerned(const char *thread)
{
	static _Thread_local char name[THREAD_NAME_MAX];
	if (!*name)
		(void)prctl(PR_GET_NAME, name);
	return !strncmp(name, thread, strlen(thread));
}

void delay_at(enum delay_point p)
{
	if (!point[p].chance || jitter(UINT64_C(1) << 32) >= point[p].chance ||
	    !is_concerned(point[p].thread))
		return;
	uint64_t us = jitter(point[p].most_us + 1);
	struct timespec t = {.tv_sec = (time_t)(us / 1000000),
	                     .tv_nsec = (long)(us % 1000000) * 1000};
	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

bool delay_is_broken(enum delay_rule r)
{
	return broken[r];
}

/* ---- reading the environment --------------------------------------------------------- */

static int index_of(const char *name, const char *const *names, int n)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(name, names[i]))
			return i;
	return -ENOENT;
}

static int set_points(char *name, double chance, uint64_t most_us)
{
	char *thread = strchr(name, '@');
	if (thread)
		*thread++ = '\0';
	int i = index_of(name, point_name, DELAY_COUNT), last = i + 1;
	if (!strcmp(name, "all")) {
		i = 0;
		last = DELAY_COUNT;
	}
	if (i < 0)
		return i;
	for (; i < last; i++) {
		point[i].chance = (uint64_t)(chance * 4294967296.0);
		point[i].most_us = most_us;
		snprintf(point[i].thread, sizeof point[i].thread, "%s", thread ? thread : "");
	}
	return 0;
}

/* One `NAME[@THREAD]=PROBABILITY:MOST`, which is taken apart. */
static int read_delay(char *word)
{
	char *chance = strchr(word, '='), *most = chance ? strchr(chance, ':') : NULL, *end;
	int64_t ms;
	if (!most)
		return -EINVAL;
	*chance++ = '\0';
	*most++ = '\0';
	double p = strtod(chance, &end);
	if (end == chance || *end || !(p >= 0 && p <= 1) || units_duration(most, &ms) < 0)
		return -EINVAL;
	return set_points(word, p, (uint64_t)ms * 1000);
}

static int read_rule(char *word)
{
	int i = index_of(word, rule_name, RULE_COUNT);
	if (i >= 0)
		broken[i] = true;
	return i;
}

static int read_list(const char *list, const char *variable, int (*read)(char *word),
                     struct errors *errs)
{
	_cleanup_free_ char *copy = xstrdup(list ? list : "");
	int result = 0;
	char *at = NULL;
	for (char *w = strtok_r(copy, ",", &at); w; w = strtok_r(NULL, ",", &at)) {
		_cleanup_free_ char *said = xstrdup(w);
		if (read(w) >= 0)
			continue;
		errors_add(errs, NULL, 0, "%s: `%s` is nothing that provost/delay.h knows",
		           variable, said);
		result = -EINVAL;
	}
	return result;
}

int delay_setup(const char *delays, const char *rules, struct errors *errs)
{
	int a = read_list(delays, "PROVOST_DELAYS", read_delay, errs);
	int b = read_list(rules, "PROVOST_BREAK", read_rule, errs);
	return a < 0 ? a : b;
}

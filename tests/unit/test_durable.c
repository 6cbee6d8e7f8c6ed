/*
 * Who is told what of what is kept for a user: each interleaving as it is wanted. The keeper here
 * is as slow, and as full, as a test says; what it hands over is what "was committed".
 */
#include <errno.h>
#include <pthread.h>

#include "hub_fixture.h"

/* ---- the keeper ---------------------------------------------------------------------- */

enum { LOADS_MAX = 16, ROWS_MAX = 16 };

struct asked {
	char subject[IDENTITY_SUBJECT_MAX + 1];
	int64_t after;
	uint64_t number;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static struct asked asked[LOADS_MAX];
static unsigned loads, answered;
static bool is_full;

static int load(void *arg, const char *subject, int64_t after, uint64_t number)
{
	(void)arg;
	pthread_mutex_lock(&lock);
	int r = is_full || loads == LOADS_MAX ? -EAGAIN : 0;
	if (r == 0) {
		struct asked *a = &asked[loads++];
		a->after = after;
		a->number = number;
		snprintf(a->subject, sizeof a->subject, "%s", subject);
	}
	pthread_mutex_unlock(&lock);
	return r;
}

static int acknowledge(void *arg, const struct hub_ack *a)
{
	(void)arg;
	(void)a;
	return -EAGAIN;
}

static void set_full(bool full)
{
	pthread_mutex_lock(&lock);
	is_full = full;
	pthread_mutex_unlock(&lock);
}

static unsigned unanswered(void)
{
	pthread_mutex_lock(&lock);
	unsigned n = loads - answered;
	pthread_mutex_unlock(&lock);
	return n;
}

/* ---- the whole ----------------------------------------------------------------------- */

static const struct hub_options OPTIONS = {.max_clients = 100,
                                           .tick_ms = 1,
                                           .backlog = 64 << 10,
                                           .max_message = 1 << 16,
                                           .stall_timeout_ms = 60000,
                                           .ping_interval_ms = 60000,
                                           .auth_timeout_ms = 60000,
                                           .resume_window_ms = 60000,
                                           .refresh_interval_ms = 1000};
static struct hub *hub;
static char data[128 << 10];
static struct hub_row row[ROWS_MAX]; /* what was committed, in the order of ids */
static size_t rows;

static void setup(void)
{
	setup_auth();
	memset(data, 'x', sizeof data);
	data[0] = '"';
	hub = hub_new(&OPTIONS, auth, NULL);
	hub_set_keeper(hub, &(struct hub_keeper){.load = load, .ack = acknowledge});
	ck_assert_int_eq(hub_start(hub), 0);
}

static void teardown(void)
{
	hub_stop(hub, 10);
	hub_free(&hub);
	teardown_auth();
}

/* Until the hub has read all mail so far: it has closed somebody who came later. */
static void settle(void)
{
	int fd = adopt_with(hub, NULL, 0);
	say(fd, "?");
	ck_assert(hears(fd, "\x11\x30")); /* 4400 */
	close(fd);
}

/* ---- rows and pages ------------------------------------------------------------------ */

static void commit(int64_t id, size_t n)
{
	size_t at = rows++;
	ck_assert(at < ROWS_MAX && n >= 2 && n < sizeof data);
	for (; at > 0 && row[at - 1].id > id; at--)
		row[at] = row[at - 1];
	row[at] = (struct hub_row){.id = id, .name = "n", .data = data, .data_len = n};
}

static void publish(int64_t id)
{
	hub_publish_event(hub, &(struct hub_event){.id = id,
	                                           .room = "user:anonymous",
	                                           .name = "n",
	                                           .data = "1",
	                                           .data_len = 1,
	                                           .durable = true});
}

static struct asked next_load(void)
{
	WAIT_UNTIL(unanswered() > 0);
	pthread_mutex_lock(&lock);
	struct asked a = asked[answered++];
	pthread_mutex_unlock(&lock);
	return a;
}

/* With `most` of what there is. */
static void answer(const struct asked *a, size_t most)
{
	size_t first = 0;
	while (first < rows && row[first].id <= a->after)
		first++;
	const struct hub_kept k = {.subject = a->subject,
	                           .number = a->number,
	                           .row = row + first,
	                           .rows = MIN(most, rows - first),
	                           .more = rows - first > most};
	ck_assert_int_eq(hub_kept(hub, &k), 0);
}

static void answer_next(size_t most)
{
	const struct asked a = next_load();
	answer(&a, most);
}

/* ---- hearing ------------------------------------------------------------------------- */

/* How often each number was heard, up to the last; loads are answered meanwhile. */
static void hear(int fd, int64_t last, unsigned times[static 100])
{
	static char got[1 << 20];
	size_t n = 0;
	char end[32];
	uint64_t until_ms = clock_ms() + PATIENCE_MS;
	snprintf(end, sizeof end, "\"nid\":%lld}", (long long)last);
	while (!memmem(got, n, end, strlen(end))) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ck_assert_msg(clock_ms() < until_ms, "%s is not heard", end);
		if (unanswered() > 0)
			answer_next(ROWS_MAX);
		if (poll(&p, 1, 10) <= 0)
			continue;
		ssize_t r = read(fd, got + n, sizeof got - n);
		ck_assert_int_gt(r, 0);
		n += (size_t)r;
	}
	for (const char *at = got; (at = memmem(at, (size_t)(got + n - at), "\"nid\":", 6));) {
		at += 6;
		times[strtol(at, NULL, 10)]++;
	}
}

/* The keeper is full when the next page is due, and then something with a lower number comes. */
START_TEST(a_lower_number_while_the_next_page_waits_to_be_asked_for)
{
	unsigned times[100] = {0};
	int fd = adopt(hub);
	commit(10, 2);
	commit(20, 2);
	commit(25, 2);
	answer_next(2);
	settle();
	set_full(true);
	hub_acked(hub, &(struct hub_ack){.subject = "anonymous"}, true);
	commit(15, 2);
	publish(15);
	publish(25);
	settle();
	ck_assert_uint_eq(unanswered(), 0);
	set_full(false);
	hear(fd, 25, times);
	for (unsigned i = 10; i <= 25; i += 5)
		ck_assert_uint_eq(times[i], 1);
	close(fd);
}
END_TEST

/* There is room for a part of the page, and what has a lower number came behind its snapshot. */
START_TEST(a_lower_number_while_a_page_is_told_in_part)
{
	unsigned times[100] = {0};
	int fd = adopt(hub);
	commit(10, 40 << 10);
	commit(20, 40 << 10);
	const struct asked a = next_load();
	publish(5);
	answer(&a, 2);
	commit(5, 2);
	settle();
	commit(30, 2);
	publish(30);
	hear(fd, 30, times);
	ck_assert(times[5] && times[10] && times[20]);
	close(fd);
}
END_TEST

/* Another connection is further on than the page that both are told. */
START_TEST(a_lower_number_beyond_the_page_of_somebody_else)
{
	unsigned times[100] = {0};
	int first = adopt(hub);
	for (int64_t id = 10; id <= 50; id += 10)
		commit(id, 2);
	answer_next(4);
	settle();
	set_full(true);
	int second = adopt(hub);
	hub_acked(hub, &(struct hub_ack){.subject = "anonymous"}, true);
	settle();
	set_full(false);
	const struct asked a = next_load(); /* for both */
	ck_assert_int_eq(a.after, 0);
	publish(35);
	answer(&a, 2);
	commit(35, 2);
	settle();
	commit(60, 2);
	hub_acked(hub, &(struct hub_ack){.subject = "anonymous"}, true);
	hear(first, 60, times);
	for (unsigned i = 10; i <= 60; i += 10)
		ck_assert_uint_eq(times[i], 1);
	ck_assert_uint_ge(times[35], 1);
	memset(times, 0, sizeof times);
	hear(second, 60, times);
	for (unsigned i = 10; i <= 60; i += 10)
		ck_assert_uint_eq(times[i], 1);
	ck_assert_uint_ge(times[35], 1);
	close(first);
	close(second);
}
END_TEST

/* Who takes nothing is not loaded for again and again, in vain. */
START_TEST(a_page_that_there_is_no_room_for_is_asked_for_once)
{
	unsigned times[100] = {0};
	int fd = adopt_with(hub, anybody(), 4096);
	commit(10, 30 << 10);
	commit(20, 50 << 10);
	answer_next(2);
	for (unsigned i = 0; i < 10; i++) {
		settle();
		ck_assert_uint_eq(unanswered(), 0);
	}
	hear(fd, 20, times);
	ck_assert(times[10] == 1 && times[20] == 1);
	close(fd);
}
END_TEST

/* The stream is behind: it brings what earlier pages had. */
START_TEST(what_an_earlier_page_had_is_not_told_again)
{
	unsigned times[100] = {0};
	int fd = adopt(hub);
	commit(10, 2);
	commit(20, 2);
	commit(30, 2);
	answer_next(1);
	settle();
	for (unsigned page = 2; page <= 3; page++) {
		hub_acked(hub, &(struct hub_ack){.subject = "anonymous"}, true);
		publish(10); /* while the next is asked for, */
		answer_next(1);
		settle();
		publish(10); /* and when it has been told */
		publish(20);
	}
	commit(40, 2);
	publish(40);
	hear(fd, 40, times);
	for (unsigned i = 10; i <= 40; i += 10)
		ck_assert_uint_eq(times[i], 1);
	close(fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("durable");
	TCase *c = tcase_create("durable");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, a_lower_number_while_the_next_page_waits_to_be_asked_for);
	tcase_add_test(c, a_lower_number_while_a_page_is_told_in_part);
	tcase_add_test(c, a_lower_number_beyond_the_page_of_somebody_else);
	tcase_add_test(c, a_page_that_there_is_no_room_for_is_asked_for_once);
	tcase_add_test(c, what_an_earlier_page_had_is_not_told_again);
	suite_add_tcase(s, c);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}

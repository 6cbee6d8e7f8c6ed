#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "wait_until.h"

#include "provost/log.h"

/* Check forks, so every test has a stderr of its own to bend. */

static int capture;

/* stderr becomes a file in memory. */
static void capture_stderr(void)
{
	capture = memfd_create("stderr", 0);
	ck_assert_int_ge(capture, 0);
	ck_assert_int_eq(dup2(capture, STDERR_FILENO), STDERR_FILENO);
}

static char *read_file(int fd)
{
	struct stat st;
	char *s;

	ck_assert_int_eq(fstat(fd, &st), 0);
	s = xcalloc((size_t)st.st_size + 1, 1);
	ck_assert_int_eq(pread(fd, s, (size_t)st.st_size, 0), st.st_size);
	return s;
}

static char *read_path(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY);

	return fd < 0 ? xstrdup("") : read_file(fd);
}

static size_t count(const char *s, const char *what)
{
	size_t n = 0;

	while ((s = strstr(s, what))) {
		n++;
		s += strlen(what);
	}
	return n;
}

/* stderr becomes a pipe; its reading end. */
static int pipe_stderr(void)
{
	int fd[2];

	ck_assert_int_eq(pipe(fd), 0);
	ck_assert_int_eq(dup2(fd[1], STDERR_FILENO), STDERR_FILENO);
	close(fd[1]);
	return fd[0];
}

static char folder[64];

static void make_folder(void)
{
	strcpy(folder, "/tmp/provost-log-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(folder));
}

static char *path_of(const char *name)
{
	return xasprintf("%s/%s", folder, name);
}

static void remove_folder(void)
{
	static const char *const names[] = {"access", "access.1", "fifo"};

	for (size_t i = 0; i < ELEMENTSOF(names); i++) {
		_cleanup_free_ char *path = path_of(names[i]);

		unlink(path);
	}
	rmdir(folder);
}

/* ---- lines ----------------------------------------------------------------------------------- */

START_TEST(line_has_time_level_message_and_fields)
{
	_cleanup_free_ char *s = NULL;
	int y, mo, d, h, mi, sec, ms, end = 0;

	capture_stderr();
	log_info("pool: connected", LOGU("connection", 3), LOGI("delta", -1), LOGS("to", "db"));
	s = read_file(capture);
	ck_assert_int_eq(
	    sscanf(s, "ts=%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &y, &mo, &d, &h, &mi, &sec, &ms, &end),
	    7);
	ck_assert_int_eq(end, (int)strlen("ts=2026-01-02T03:04:05.678Z"));
	ck_assert_str_eq(s + end,
	                 " level=info msg=\"pool: connected\" connection=3 delta=-1 to=db\n");
}
END_TEST

static const struct {
	const char *value;
	const char *want;
} values[] = {
    {"plain", " v=plain\n"},
    {"a/b:c;d'e[f]{g}", " v=a/b:c;d'e[f]{g}\n"},
    {NULL, " v=-\n"},
    {"", " v=\"\"\n"},
    {"two words", " v=\"two words\"\n"},
    {"a=b", " v=\"a=b\"\n"},
    {"say \"hi\"", " v=\"say \\\"hi\\\"\"\n"},
    {"back\\slash", " v=\"back\\\\slash\"\n"},
    {"line\nfeed\r\t", " v=\"line\\nfeed\\r\\t\"\n"},
    {"\x1b[31m\x01\x7f", " v=\"\\x1b[31m\\x01\\x7f\"\n"},
    {"Zürich €", " v=\"Zürich €\"\n"},
    {"\xc2\x9b", " v=\"\\xc2\\x9b\"\n"},
    {"\xc2\xa0", " v=\"\xc2\xa0\"\n"},
    {"bad \xff\xc3", " v=\"bad \\xff\\xc3\"\n"},
    {"\xed\xa0\x80", " v=\"\\xed\\xa0\\x80\"\n"},
};

START_TEST(values_are_quoted_where_needed)
{
	_cleanup_free_ char *s = NULL;
	const char *v;

	capture_stderr();
	log_warn("m", LOGS("v", values[_i].value));
	s = read_file(capture);
	v = strstr(s, " v=");
	ck_assert_ptr_nonnull(v);
	ck_assert_str_eq(v, values[_i].want);
}
END_TEST

START_TEST(numbers_have_their_whole_range)
{
	_cleanup_free_ char *s = NULL;

	capture_stderr();
	log_error("m", LOGI("i", INT64_MIN), LOGU("u", UINT64_MAX));
	s = read_file(capture);
	ck_assert_ptr_nonnull(strstr(s, " i=-9223372036854775808 u=18446744073709551615\n"));
}
END_TEST

START_TEST(long_line_is_cut_and_says_so)
{
	static const size_t lengths[] = {3900, 4000, 4010, 4020, 4030,  4040,
	                                 4050, 4060, 4070, 5000, 100000};
	static const char *const fillers[] = {"x", " ", "\"", "ü", "\x01"};

	for (size_t i = 0; i < ELEMENTSOF(lengths) * ELEMENTSOF(fillers); i++) {
		const char *filler = fillers[i % ELEMENTSOF(fillers)];
		size_t n = lengths[i / ELEMENTSOF(fillers)] / strlen(filler);
		_cleanup_free_ char *big = xcalloc(n * strlen(filler) + 1, 1), *s = NULL;

		for (size_t j = 0; j < n; j++)
			strcat(big + j * strlen(filler), filler);
		capture_stderr();
		log_info("m", LOGS("big", big), LOGS("after", "a b"), LOGU("n", 1));
		s = read_file(capture);
		ck_assert_uint_le(strlen(s), LOG_LINE_MAX);
		ck_assert_uint_eq(count(s, "\n"), 1);
		ck_assert_int_eq(s[strlen(s) - 1], '\n');
		ck_assert_int_ge(utf8_length(s, strlen(s)), 0);
		/* Either all of it is there, or the line says that it is not. */
		ck_assert((strstr(s, " after=\"a b\" n=1\n") != NULL) !=
		          (strstr(s, " cut=yes\n") != NULL));
		close(capture);
	}
}
END_TEST

START_TEST(levels_hide_what_is_below_them)
{
	_cleanup_free_ char *s = NULL;

	capture_stderr();
	ck_assert(log_enabled(LOG_LEVEL_INFO));
	ck_assert(!log_enabled(LOG_LEVEL_DEBUG));
	log_debug("hidden");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("shown");
	log_set_level(LOG_LEVEL_ERROR);
	log_warn("hidden");
	log_error("shown");
	s = read_file(capture);
	ck_assert_uint_eq(count(s, "shown"), 2);
	ck_assert_uint_eq(count(s, "hidden"), 0);
	ck_assert_uint_eq(count(s, "level=debug msg=shown"), 1);
	ck_assert_uint_eq(count(s, "level=error msg=shown"), 1);
}
END_TEST

START_TEST(levels_are_parsed)
{
	ck_assert_int_eq(log_level_parse("error"), LOG_LEVEL_ERROR);
	ck_assert_int_eq(log_level_parse("warn"), LOG_LEVEL_WARN);
	ck_assert_int_eq(log_level_parse("info"), LOG_LEVEL_INFO);
	ck_assert_int_eq(log_level_parse("debug"), LOG_LEVEL_DEBUG);
	ck_assert_int_eq(log_level_parse("INFO"), -EINVAL);
	ck_assert_int_eq(log_level_parse(""), -EINVAL);
}
END_TEST

/* ---- the writer ------------------------------------------------------------------------------ */

START_TEST(stop_writes_out_everything)
{
	_cleanup_free_ char *s = NULL;

	capture_stderr();
	ck_assert_int_eq(log_start(), 0);
	for (unsigned i = 0; i < 1000; i++)
		log_info("line", LOGU("i", i));
	log_stop();
	s = read_file(capture);
	ck_assert_uint_eq(count(s, "msg=line"), 1000);
	ck_assert_ptr_nonnull(strstr(s, " i=999\n"));
	ck_assert_uint_eq(log_dropped(), 0);
}
END_TEST

START_TEST(lines_around_the_writers_life_come_out)
{
	_cleanup_free_ char *s = NULL;

	capture_stderr();
	log_info("before");
	ck_assert_int_eq(log_start(), 0);
	log_info("during");
	log_stop();
	log_info("after");
	log_stop();
	ck_assert_int_eq(log_start(), 0);
	log_info("again");
	log_stop();
	s = read_file(capture);
	ck_assert(strstr(s, "before") < strstr(s, "during"));
	ck_assert(strstr(s, "during") < strstr(s, "after"));
	ck_assert(strstr(s, "after") < strstr(s, "again"));
	ck_assert_uint_eq(count(s, "\n"), 4);
}
END_TEST

enum { LOGGERS = 6, LINES_EACH = 3000 };

static void *log_many(void *arg)
{
	unsigned self = *(unsigned *)arg;

	for (unsigned i = 0; i < LINES_EACH; i++)
		log_info("many", LOGU("thread", self), LOGU("i", i),
		         LOGS("filler", "0123456789 0123456789 0123456789 0123456789"),
		         LOGU("end", self));
	return NULL;
}

static void run_loggers(void)
{
	pthread_t t[LOGGERS];
	unsigned self[LOGGERS];

	for (unsigned i = 0; i < LOGGERS; i++) {
		self[i] = i;
		ck_assert_int_eq(pthread_create(&t[i], NULL, log_many, &self[i]), 0);
	}
	for (unsigned i = 0; i < LOGGERS; i++)
		pthread_join(t[i], NULL);
}

/* Every line whole, each thread's in order; lines lost are admitted to. */
static void verify_lines(FILE *f, atomic_uint_fast64_t *ret_lines,
                         atomic_uint_fast64_t *ret_admitted)
{
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	int next[LOGGERS] = {0};

	atomic_store(ret_lines, 0);
	atomic_store(ret_admitted, 0);
	while (getline(&line, &size, f) > 0) {
		unsigned thread, i, end;
		const char *lost = strstr(line, " msg=\"log: lines were lost");
		const char *p = strstr(line, " msg=many thread=");

		ck_assert_mem_eq(line, "ts=2", 4);
		ck_assert_uint_eq(count(line, "ts=2"), 1);
		if (lost) {
			atomic_fetch_add(ret_admitted,
			                 strtoull(strstr(lost, " count=") + 7, NULL, 10));
			continue;
		}
		ck_assert_ptr_nonnull(p);
		ck_assert_int_eq(sscanf(p,
		                        " msg=many thread=%u i=%u filler=\"0123456789 0123456789 "
		                        "0123456789 0123456789\" end=%u\n",
		                        &thread, &i, &end),
		                 3);
		ck_assert_uint_eq(thread, end);
		ck_assert_uint_lt(thread, LOGGERS);
		ck_assert_int_ge((int)i, next[thread]);
		next[thread] = (int)i + 1;
		atomic_fetch_add(ret_lines, 1);
	}
}

START_TEST(lines_of_many_threads_stay_whole)
{
	_cleanup_fclose_ FILE *f = NULL;
	atomic_uint_fast64_t lines, admitted;

	capture_stderr();
	ck_assert_int_eq(log_start(), 0);
	run_loggers();
	log_stop();
	f = fdopen(capture, "r");
	rewind(f);
	verify_lines(f, &lines, &admitted);
	ck_assert_uint_eq(lines + log_dropped(), LOGGERS * LINES_EACH);
	ck_assert_uint_eq(admitted, log_dropped());
}
END_TEST

struct pipe_reader {
	int fd;
	atomic_uint_fast64_t lines, admitted;
};

static void *verify_pipe(void *arg)
{
	struct pipe_reader *r = arg;
	FILE *f = fdopen(r->fd, "r");

	verify_lines(f, &r->lines, &r->admitted);
	fclose(f);
	return NULL;
}

START_TEST(full_pipe_holds_nobody_up_and_losses_are_admitted)
{
	struct pipe_reader r = {.fd = pipe_stderr()};
	uint64_t lines = 0;
	pthread_t reader;

	ck_assert_int_eq(log_start(), 0);
	/* More than the pipe and both buffers take; nobody reads. */
	for (; log_dropped() == 0; lines += LOGGERS * LINES_EACH)
		run_loggers();

	/* Now somebody does: what comes out is whole, and what is missing is told. */
	ck_assert_int_eq(pthread_create(&reader, NULL, verify_pipe, &r), 0);
	WAIT_UNTIL(atomic_load(&r.lines) + log_dropped() == lines);
	log_stop();
	close(STDERR_FILENO);
	pthread_join(reader, NULL);
	ck_assert_uint_gt(lines, log_dropped());
	ck_assert_uint_eq(atomic_load(&r.admitted), log_dropped());
}
END_TEST

START_TEST(stuck_pipe_does_not_hold_stop_up)
{
	uint64_t before;
	int fd = pipe_stderr();

	ck_assert_int_eq(log_start(), 0);
	while (log_dropped() == 0)
		log_info("filler", LOGS("text", "0123456789012345678901234567890123456789"));
	before = clock_ms();
	log_stop();
	/* The contract is a second; the rest is for a busy machine. */
	ck_assert_uint_lt(clock_ms() - before, 20000);
	close(fd);
}
END_TEST

START_TEST(closed_pipe_does_not_end_the_process)
{
	ck_assert_int_eq(log_start(), 0);
	close(pipe_stderr());
	log_info("to nobody");
	log_info("to nobody");
	/* Written by the writer, whose SIGPIPE is blocked. */
	while (log_dropped() < 2)
		sched_yield();
	log_stop();
	ck_assert_uint_eq(log_dropped() >= 2, 1);
}
END_TEST

/* ---- the access log -------------------------------------------------------------------------- */

static void access_line(const char *msg)
{
	log_access(msg, LOG_FIELDS(LOGU("status", 200)));
}

START_TEST(access_log_is_off_at_first)
{
	_cleanup_free_ char *s = NULL;

	capture_stderr();
	ck_assert(!log_access_enabled());
	access_line("nowhere");
	ck_assert_int_eq(log_access_open(NULL), 0);
	ck_assert_int_eq(log_access_open("off"), 0);
	ck_assert(!log_access_enabled());
	access_line("nowhere");
	s = read_file(capture);
	ck_assert_str_eq(s, "");
}
END_TEST

START_TEST(access_log_goes_to_stderr)
{
	_cleanup_free_ char *s = NULL;

	capture_stderr();
	ck_assert_int_eq(log_access_open("stderr"), 0);
	ck_assert_int_eq(log_start(), 0);
	access_line("GET /a");
	log_stop();
	s = read_file(capture);
	ck_assert_ptr_nonnull(strstr(s, "Z msg=\"GET /a\" status=200\n"));
	ck_assert_int_eq(log_access_open("off"), 0);
}
END_TEST

START_TEST(access_log_without_message_has_only_fields)
{
	_cleanup_free_ char *s = NULL;

	capture_stderr();
	ck_assert_int_eq(log_access_open("stderr"), 0);
	access_line(NULL);
	s = read_file(capture);
	ck_assert_ptr_nonnull(strstr(s, "Z status=200\n"));
	ck_assert_int_eq(log_access_open("off"), 0);
}
END_TEST

START_TEST(access_log_appends_to_a_file)
{
	_cleanup_free_ char *path = NULL, *s = NULL;

	make_folder();
	path = path_of("access");
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(log_access_open(path), 0);
		ck_assert_int_eq(log_start(), 0);
		for (int j = 0; j < 500; j++)
			access_line("hello");
		log_stop();
	}
	s = read_path(path);
	ck_assert_uint_eq(count(s, "msg=hello"), 1000);
	ck_assert_int_eq(log_access_open("off"), 0);
	remove_folder();
}
END_TEST

START_TEST(access_log_lets_a_rotated_file_go)
{
	_cleanup_free_ char *path = NULL, *rotated = NULL, *was = NULL, *is = NULL;
	size_t written = 1;

	make_folder();
	path = path_of("access");
	rotated = path_of("access.1");
	ck_assert_int_eq(log_access_open(path), 0);
	ck_assert_int_eq(log_start(), 0);
	access_line("hello");
	ck_assert_int_eq(rename(path, rotated), 0);
	ck_assert_int_eq(log_access_open(path), 0);
	/* Until lines arrive in the new file; the test's timeout ends the wait. */
	for (is = read_path(path); !*is; is = read_path(path)) {
		free(is);
		access_line("hello");
		written++;
		sched_yield();
	}
	free(is);
	log_stop();
	was = read_path(rotated);
	is = read_path(path);
	ck_assert_uint_ge(count(was, "msg=hello"), 1);
	ck_assert_uint_eq(count(was, "msg=hello") + count(is, "msg=hello") + log_dropped(),
	                  written);
	ck_assert_int_eq(log_access_open("off"), 0);
	remove_folder();
}
END_TEST

START_TEST(access_log_keeps_its_target_when_a_new_one_fails)
{
	_cleanup_free_ char *path = NULL, *fifo = NULL, *s = NULL;

	make_folder();
	path = path_of("access");
	fifo = path_of("fifo");
	ck_assert_int_eq(mkfifo(fifo, 0600), 0);
	ck_assert_int_eq(log_access_open(path), 0);
	ck_assert_int_eq(log_start(), 0);
	ck_assert_int_eq(log_access_open("/nonexistent/access"), -ENOENT);
	ck_assert_int_eq(log_access_open("/"), -EISDIR);
	ck_assert_int_eq(log_access_open(fifo), -ENXIO);
	ck_assert(log_access_enabled());
	access_line("hello");
	log_stop();
	s = read_path(path);
	ck_assert_uint_eq(count(s, "msg=hello"), 1);
	ck_assert_int_eq(log_access_open("off"), 0);
	remove_folder();
}
END_TEST

START_TEST(access_log_switched_off_keeps_what_was_logged)
{
	_cleanup_free_ char *path = NULL, *s = NULL;

	make_folder();
	path = path_of("access");
	ck_assert_int_eq(log_access_open(path), 0);
	ck_assert_int_eq(log_start(), 0);
	for (int i = 0; i < 100; i++)
		access_line("hello");
	ck_assert_int_eq(log_access_open("off"), 0);
	ck_assert(!log_access_enabled());
	access_line("hello");
	log_stop();
	s = read_path(path);
	ck_assert_uint_eq(count(s, "msg=hello"), 100);
	remove_folder();
}
END_TEST

START_TEST(stuck_access_log_leaves_the_error_log_alone)
{
	_cleanup_free_ char *fifo = NULL, *s = NULL;
	int reader;

	make_folder();
	fifo = path_of("fifo");
	capture_stderr();
	ck_assert_int_eq(mkfifo(fifo, 0600), 0);
	reader = open(fifo, O_RDONLY | O_NONBLOCK);
	ck_assert_int_eq(log_access_open(fifo), 0);
	ck_assert_int_eq(log_start(), 0);
	while (log_dropped() == 0)
		access_line("nobody reads this");
	log_error("still here");
	for (s = read_file(capture); !*s; s = read_file(capture)) {
		free(s);
		sched_yield();
	}
	ck_assert_ptr_nonnull(strstr(s, "msg=\"still here\""));
	log_stop();
	close(reader);
	ck_assert_int_eq(log_access_open("off"), 0);
	remove_folder();
}
END_TEST

START_TEST(access_log_survives_being_switched_under_load)
{
	_cleanup_free_ char *path = NULL;
	pthread_t t;
	unsigned self = 0;

	make_folder();
	path = path_of("access");
	capture_stderr();
	ck_assert_int_eq(log_start(), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, log_many, &self), 0);
	for (int i = 0; i < 200; i++) {
		ck_assert_int_eq(log_access_open(i % 3 ? path : i % 2 ? "off" : "stderr"), 0);
		access_line("hello");
	}
	pthread_join(t, NULL);
	log_stop();
	ck_assert_int_eq(log_access_open("off"), 0);
	remove_folder();
}
END_TEST

static Suite *log_suite(void)
{
	Suite *s = suite_create("log");
	TCase *t = tcase_create("lines");

	tcase_add_test(t, line_has_time_level_message_and_fields);
	tcase_add_loop_test(t, values_are_quoted_where_needed, 0, ELEMENTSOF(values));
	tcase_add_test(t, numbers_have_their_whole_range);
	tcase_add_test(t, long_line_is_cut_and_says_so);
	tcase_add_test(t, levels_hide_what_is_below_them);
	tcase_add_test(t, levels_are_parsed);
	suite_add_tcase(s, t);

	t = tcase_create("writer");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, stop_writes_out_everything);
	tcase_add_test(t, lines_around_the_writers_life_come_out);
	tcase_add_test(t, lines_of_many_threads_stay_whole);
	tcase_add_test(t, full_pipe_holds_nobody_up_and_losses_are_admitted);
	tcase_add_test(t, stuck_pipe_does_not_hold_stop_up);
	tcase_add_test(t, closed_pipe_does_not_end_the_process);
	suite_add_tcase(s, t);

	t = tcase_create("access");
	tcase_set_timeout(t, 60);
	tcase_add_test(t, access_log_is_off_at_first);
	tcase_add_test(t, access_log_goes_to_stderr);
	tcase_add_test(t, access_log_without_message_has_only_fields);
	tcase_add_test(t, access_log_appends_to_a_file);
	tcase_add_test(t, access_log_lets_a_rotated_file_go);
	tcase_add_test(t, access_log_keeps_its_target_when_a_new_one_fails);
	tcase_add_test(t, access_log_switched_off_keeps_what_was_logged);
	tcase_add_test(t, stuck_access_log_leaves_the_error_log_alone);
	tcase_add_test(t, access_log_survives_being_switched_under_load);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(log_suite());
	int failed;

	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

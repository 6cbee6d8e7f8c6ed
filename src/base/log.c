#include "provost/log.h"
#include "provost/errors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>

#include "logfmt.h"

/*
 * Two sinks, stderr and the access log, each with a lock of its own and two buffers of fixed size:
 * threads fill one under the lock while the writer empties the other without it. A write that does
 * not fit is a dropped line; nobody waits.
 *
 * The writer asks poll(2) before it writes and hands a pipe at most PIPE_BUF bytes of whole lines,
 * so it hardly ever blocks itself, lines of several processes on one pipe do not mix, and a stuck
 * stderr does not keep it from the access log. O_NONBLOCK on stderr is not an option: the flag
 * belongs to the open file, which is shared with whoever started us.
 */

enum {
	SINK_BYTES = 512 * 1024, /* per buffer; two per sink */
	ACCESS_LINGER_MS = 20,   /* access lines may gather this long before they are written */
	ACCESS_SWITCH_MS = 200,  /* a replaced target gets this long to take what is buffered */
	STOP_MS = 900,           /* of the second that log_stop may take */
};

_Static_assert(LOG_LINE_MAX <= PIPE_BUF, "a line must be one atomic write to a pipe");

struct sink {
	pthread_mutex_t lock; /* guards the members down to next_fd */
	char *fill;           /* the buffer being filled */
	size_t filled;
	uint64_t dropped;  /* lines, since the last one that fitted */
	uint64_t lost;     /* lines, ever */
	bool running;      /* the writer owns the members below; else lines are written directly */
	bool next_pending; /* log_access_open has a new target */
	int next_fd;
	/* The writer's own while running; under the lock before and after. */
	int fd; /* -1: lines go nowhere */
	bool regular;
	char *out;
	size_t out_len, out_pos;
	uint64_t switch_by_ms; /* 0: no new target in sight */
};

static char memory[4][SINK_BYTES];

static struct sink error_sink = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .fill = memory[0],
    .next_fd = -1,
    .fd = STDERR_FILENO,
    .out = memory[1],
};
static struct sink access_sink = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .fill = memory[2],
    .next_fd = -1,
    .fd = -1,
    .out = memory[3],
};
static struct sink *const sinks[] = {&error_sink, &access_sink};

/* Relaxed both: a line more or less after a change harms nobody. */
static atomic_int max_level = LOG_LEVEL_INFO;
static atomic_bool access_on;

static atomic_bool stopping;
static pthread_t writer;
static int wake_fd = -1;

/* ---- from the loggers into the buffers ----------------------------------------------- */

static void wake_writer(void)
{
	uint64_t one = 1;

	/* Fails only when the counter is at its end, and then the writer is awake anyway. */
	if (write(wake_fd, &one, sizeof(one)) < 0)
		return;
}

static uint64_t count_lines(const char *s, size_t n)
{
	const char *end = s + n;
	uint64_t lines = 0;

	while ((s = memchr(s, '\n', (size_t)(end - s)))) {
		lines++;
		s++;
	}
	return lines;
}

static void write_directly_locked(struct sink *s, const struct line *l)
{
	ssize_t r;

	if (s->fd < 0)
		return;
	do
		r = write(s->fd, l->text, l->n);
	while (r < 0 && errno == EINTR);
	if (r != (ssize_t)l->n)
		s->lost++;
}

static bool append_locked(struct sink *s, const struct line *l)
{
	if (l->n > SINK_BYTES - s->filled)
		return false;
	memcpy(s->fill + s->filled, l->text, l->n);
	s->filled += l->n;
	return true;
}

static void format_dropped(struct line *l, uint64_t count)
{
	logfmt_line(l, logfmt_level_name(LOG_LEVEL_WARN),
	            "log: lines were lost, the target is too slow",
	            (const struct log_field[]){LOGU("count", count), {.type = LOG_END}});
}

/* Says first how many lines are missing before this one; without room for both, neither. */
static bool append_after_loss_locked(struct sink *s, const struct line *l)
{
	struct line notice;

	if (s->dropped) {
		format_dropped(&notice, s->dropped);
		if (notice.n + l->n > SINK_BYTES - s->filled || !append_locked(s, &notice))
			return false;
		s->dropped = 0;
	}
	return append_locked(s, l);
}

static void submit(struct sink *s, const struct line *l)
{
	bool wake = false;

	pthread_mutex_lock(&s->lock);
	if (!s->running) {
		write_directly_locked(s, l);
	} else {
		size_t before = s->filled;

		if (append_after_loss_locked(s, l)) {
			/* Once per batch, and again at the half, which ends the lingering. */
			wake =
			    before == 0 || (before < SINK_BYTES / 2 && s->filled >= SINK_BYTES / 2);
		} else {
			s->dropped++;
			s->lost++;
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (wake)
		wake_writer();
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
	struct line l;

	if (!log_enabled(level))
		return;
	logfmt_line(&l, logfmt_level_name(level), msg, fields);
	submit(&error_sink, &l);
}

void log_errors(const char *msg, const struct errors *errs)
{
	for (size_t i = 0; errors_text(errs, i); i++)
		log_error(msg, LOGS("reason", errors_text(errs, i)));
}

void log_access(const char *msg, const struct log_field *fields)
{
	struct line l;

	if (!log_access_enabled())
		return;
	logfmt_line(&l, NULL, msg, fields);
	submit(&access_sink, &l);
}

bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&max_level, memory_order_relaxed);
}

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
}

int log_level_parse(const char *s)
{
	for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
		if (strcmp(s, logfmt_level_name((enum log_level)level)) == 0)
			return level;
	}
	return -EINVAL;
}

bool log_access_enabled(void)
{
	return atomic_load_explicit(&access_on, memory_order_relaxed);
}

uint64_t log_dropped(void)
{
	uint64_t lost = 0;

	for (size_t i = 0; i < ELEMENTSOF(sinks); i++) {
		pthread_mutex_lock(&sinks[i]->lock);
		lost += sinks[i]->lost;
		pthread_mutex_unlock(&sinks[i]->lock);
	}
	return lost;
}

/* ---- targets ------------------------------------------------------------------------- */

static bool is_regular(int fd)
{
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static void adopt(struct sink *s, int fd)
{
	if (s->fd > STDERR_FILENO)
		close(s->fd);
	s->fd = fd;
	s->regular = is_regular(fd);
}

static int open_target(const char *target, int *ret_fd)
{
	int fd;

	if (!target || strcmp(target, "off") == 0) {
		*ret_fd = -1;
		return 0;
	}
	if (strcmp(target, "stderr") == 0)
		fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	else /* O_NONBLOCK: a FIFO without a reader must not hold up whoever opens it */
		fd = open(target, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
		          0640);
	if (fd < 0)
		return -errno;
	*ret_fd = fd;
	return 0;
}

int log_access_open(const char *target)
{
	struct sink *s = &access_sink;
	int fd = -1, superseded = -1, r;

	r = open_target(target, &fd);
	if (r < 0)
		return r;

	pthread_mutex_lock(&s->lock);
	atomic_store_explicit(&access_on, fd >= 0, memory_order_relaxed);
	if (!s->running) {
		adopt(s, fd);
	} else {
		if (s->next_pending)
			superseded = s->next_fd;
		s->next_fd = fd;
		s->next_pending = true;
	}
	pthread_mutex_unlock(&s->lock);
	if (superseded >= 0)
		close(superseded);
	if (wake_fd >= 0)
		wake_writer();
	return 0;
}

/* ---- from the buffers to the targets ------------------------------------------------- */

static bool has_output(const struct sink *s)
{
	return s->out_pos < s->out_len;
}

/* The old target keeps what was logged for it, unless it takes too long or nothing is waiting. */
static void switch_target_locked(struct sink *s, uint64_t now_ms)
{
	if (!s->next_pending)
		return;
	if (s->switch_by_ms == 0)
		s->switch_by_ms = now_ms + ACCESS_SWITCH_MS;
	if ((has_output(s) || s->filled > 0) && now_ms < s->switch_by_ms && s->fd >= 0)
		return;
	adopt(s, s->next_fd);
	s->next_pending = false;
	s->switch_by_ms = 0;
}

/* Takes the whole batch that the loggers have gathered, once the last one is out and when it is
 * worth a write. Whether it took one. */
static bool take_batch(struct sink *s, uint64_t now_ms, size_t worth)
{
	bool taken = false;

	pthread_mutex_lock(&s->lock);
	switch_target_locked(s, now_ms);
	if (!has_output(s) && s->filled > 0 && (s->filled >= worth || s->next_pending)) {
		char *empty = s->out;

		s->out = s->fill;
		s->out_len = s->filled;
		s->out_pos = 0;
		s->fill = empty;
		s->filled = 0;
		taken = true;
	}
	pthread_mutex_unlock(&s->lock);
	return taken;
}

/* What one write may hand over: whole lines that a pipe with a free page takes without blocking; a
 * file takes all. */
static size_t chunk_length(const struct sink *s)
{
	const char *from = s->out + s->out_pos;
	size_t n = s->out_len - s->out_pos;
	const char *end;

	if (s->regular || n <= PIPE_BUF)
		return n;
	end = memrchr(from, '\n', PIPE_BUF);
	return end ? (size_t)(end + 1 - from) : PIPE_BUF;
}

/* The target will not have it: what is left of the batch is lost, and counted. */
static void give_up_batch(struct sink *s)
{
	uint64_t lines = count_lines(s->out + s->out_pos, s->out_len - s->out_pos);

	s->out_pos = s->out_len;
	pthread_mutex_lock(&s->lock);
	s->dropped += lines;
	s->lost += lines;
	pthread_mutex_unlock(&s->lock);
}

static void write_chunk(struct sink *s)
{
	ssize_t r = write(s->fd, s->out + s->out_pos, chunk_length(s));

	if (r >= 0)
		s->out_pos += (size_t)r;
	else if (errno != EINTR && errno != EAGAIN)
		give_up_batch(s);
}

static void discard_without_target(struct sink *s)
{
	if (s->fd < 0)
		s->out_pos = s->out_len;
}

static int min_timeout(int a, int b)
{
	if (a < 0)
		return b;
	return b < 0 ? a : MIN(a, b);
}

static void empty_eventfd(void)
{
	uint64_t count;

	if (read(wake_fd, &count, sizeof(count)) < 0)
		return;
}

/* Sleeps until woken, a target takes more, or `timeout_ms` passed; then writes a chunk to whom it
 * may. */
static void wait_and_write(int timeout_ms)
{
	struct pollfd p[1 + ELEMENTSOF(sinks)] = {{.fd = wake_fd, .events = POLLIN}};

	for (size_t i = 0; i < ELEMENTSOF(sinks); i++) {
		p[i + 1].fd = has_output(sinks[i]) ? sinks[i]->fd : -1;
		p[i + 1].events = POLLOUT;
	}
	if (poll(p, ELEMENTSOF(p), timeout_ms) <= 0)
		return;
	if (p[0].revents)
		empty_eventfd();
	for (size_t i = 0; i < ELEMENTSOF(sinks); i++) {
		/* An error or a closed descriptor shows in the write. */
		if (p[i + 1].revents)
			write_chunk(sinks[i]);
	}
}

static int switch_timeout(const struct sink *s, uint64_t now_ms)
{
	if (s->switch_by_ms == 0)
		return -1;
	return s->switch_by_ms > now_ms ? (int)(s->switch_by_ms - now_ms) : 0;
}

static void *run_writer(void *arg)
{
	uint64_t linger_until_ms = 0;

	while (!atomic_load(&stopping)) {
		uint64_t now_ms = clock_ms();
		int timeout_ms = -1;

		take_batch(&error_sink, now_ms, 1);
		if (take_batch(&access_sink, now_ms, now_ms < linger_until_ms ? SINK_BYTES / 2 : 1))
			linger_until_ms = now_ms + ACCESS_LINGER_MS;
		for (size_t i = 0; i < ELEMENTSOF(sinks); i++) {
			discard_without_target(sinks[i]);
			timeout_ms = min_timeout(timeout_ms, switch_timeout(sinks[i], now_ms));
		}
		if (now_ms < linger_until_ms)
			timeout_ms = min_timeout(timeout_ms, (int)(linger_until_ms - now_ms));
		wait_and_write(timeout_ms);
	}
	return NULL;
}

/* ---- life ---------------------------------------------------------------------------- */

static void set_running(bool running)
{
	for (size_t i = 0; i < ELEMENTSOF(sinks); i++) {
		pthread_mutex_lock(&sinks[i]->lock);
		sinks[i]->regular = is_regular(sinks[i]->fd);
		sinks[i]->running = running;
		pthread_mutex_unlock(&sinks[i]->lock);
	}
}

/* No signal is handled here, and a closed pipe is EPIPE, not the end of the process. */
static int start_thread(void)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&writer, NULL, run_writer, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r == 0)
		pthread_setname_np(writer, "log");
	return -r;
}

int log_start(void)
{
	int r;

	ALWAYS(wake_fd < 0);
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake_fd < 0)
		return -errno;
	atomic_store(&stopping, false);
	set_running(true);
	r = start_thread();
	if (r < 0) {
		set_running(false);
		close(wake_fd);
		wake_fd = -1;
	}
	return r;
}

static bool join_writer(unsigned timeout_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	return pthread_timedjoin_np(writer, NULL, &until) == 0;
}

static void admit_loss(struct sink *s)
{
	struct line notice;

	pthread_mutex_lock(&s->lock);
	if (s->dropped) {
		format_dropped(&notice, s->dropped);
		if (append_locked(s, &notice))
			s->dropped = 0;
	}
	pthread_mutex_unlock(&s->lock);
}

/* The writer is gone: writes out what it left, as far as the target takes it in time. */
static void finish_sink(struct sink *s, uint64_t deadline_ms)
{
	bool told = false;

	for (;;) {
		uint64_t now_ms = clock_ms();
		struct pollfd p = {.fd = s->fd, .events = POLLOUT};

		if (!take_batch(s, now_ms, 1) && !has_output(s) && !told) {
			told = true;
			admit_loss(s);
			take_batch(s, now_ms, 1);
		}
		discard_without_target(s);
		if (!has_output(s))
			return;
		if (now_ms >= deadline_ms || poll(&p, 1, (int)(deadline_ms - now_ms)) == 0) {
			give_up_batch(s);
			return;
		}
		write_chunk(s);
	}
}

/* On the caller's thread, which must survive a pipe that nobody reads any more. */
static void finish_sinks(uint64_t deadline_ms)
{
	const struct timespec at_once = {0};
	sigset_t sigpipe, before, pending;

	sigemptyset(&sigpipe);
	sigaddset(&sigpipe, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
	for (size_t i = 0; i < ELEMENTSOF(sinks); i++)
		finish_sink(sinks[i], deadline_ms);
	if (!sigismember(&pending, SIGPIPE))
		sigtimedwait(&sigpipe, NULL, &at_once);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void log_stop(void)
{
	uint64_t deadline_ms = clock_ms() + STOP_MS;

	if (wake_fd < 0)
		return;
	atomic_store(&stopping, true);
	wake_writer();
	/* It can only be stuck in a write that poll had promised would not block, a disk that
	 * hangs, say; then what it holds is its own for ever. */
	if (!join_writer(STOP_MS))
		return;
	finish_sinks(deadline_ms);
	set_running(false);
	close(wake_fd);
	wake_fd = -1;
}

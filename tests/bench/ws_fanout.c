/*
 * What it costs to tell many the same thing: the hub beside a plain loop of send over the same
 * sockets, in one run, round by round in turns.
 *
 *   ws_fanout [clients [rounds [messages per round]]]      5000 7 20
 *
 * The hub is the one of the server, linked; its sockets are connections over loopback, from several
 * addresses. A second process reads all of them, counts, and checks every frame. Two ways of
 * telling: single events, each published when the one before has arrived everywhere, and bursts
 * of 16. CPU time is this process's: what reading costs is not in it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "provost/auth.h"
#include "provost/hub.h"
#include "provost/ws.h"

enum { BURST = 16, PER_ADDRESS = 20000, READ_SIZE = 256 << 10, PAYLOAD = 200, ROUNDS_MAX = 100 };

/* Between the two processes. */
struct shared {
	_Atomic uint64_t frames; /* read, whole, by the reader */
	_Atomic uint64_t wrong;
	atomic_bool stop;
};

struct reader {
	int fd;
	unsigned in_frame; /* bytes of the current frame that have come */
	unsigned size;     /* of it, header included; 0: not known yet */
	unsigned char head[4];
};

static struct shared *shared;
static unsigned clients = 5000, rounds = 7, messages = 20;

_noreturn_ static void die(const char *what)
{
	fprintf(stderr, "ws_fanout: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double seconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the reader's process ------------------------------------------------------------ */

/* Frames are text, unmasked and whole; what is in them begins with a brace and ends with one. */
static uint64_t take(struct reader *r, const unsigned char *p, size_t n)
{
	uint64_t whole = 0;
	for (size_t i = 0; i < n;) {
		if (r->in_frame < 4) {
			r->head[r->in_frame++] = p[i++];
			if (r->in_frame == 2 && r->head[1] < 126)
				r->size = 2u + r->head[1];
			if (r->in_frame == 4 && r->head[1] == 126)
				r->size = 4u + ((unsigned)r->head[2] << 8 | r->head[3]);
			bool wrong = r->head[0] != 0x81 || (r->in_frame > 1 && r->head[1] > 126);
			if (wrong)
				atomic_fetch_add(&shared->wrong, 1);
		} else {
			size_t step = MIN(n - i, (size_t)(r->size - r->in_frame));
			i += step;
			r->in_frame += (unsigned)step;
			if (r->in_frame == r->size && p[i - 1] != '}')
				atomic_fetch_add(&shared->wrong, 1);
		}
		if (r->size && r->in_frame == r->size) {
			r->in_frame = r->size = 0;
			whole++;
		}
	}
	return whole;
}

static int connect_from(unsigned i, const struct sockaddr_in *to)
{
	struct sockaddr_in from = {.sin_family = AF_INET};
	from.sin_addr.s_addr = htonl(0x7F000002 + i / PER_ADDRESS);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from) < 0 ||
	    connect(fd, (const struct sockaddr *)to, sizeof *to) < 0)
		die("connect");
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

_noreturn_ static void reader_process(const struct sockaddr_in *to)
{
	struct reader *readers = xcalloc(clients, sizeof *readers);
	unsigned char *buffer = xcalloc(READ_SIZE, 1);
	struct epoll_event events[512];
	int epoll = epoll_create1(0);
	for (unsigned i = 0; i < clients; i++) {
		struct epoll_event e = {.events = EPOLLIN, .data.ptr = &readers[i]};
		readers[i].fd = connect_from(i, to);
		epoll_ctl(epoll, EPOLL_CTL_ADD, readers[i].fd, &e);
	}
	/* What the hub joins for is asked for by a masked frame of each. */
	static const char join[] = "{\"op\":\"join\",\"room\":\"table:t\"}";
	for (unsigned i = 0; i < clients; i++) {
		char frame[6 + sizeof join - 1] = {(char)0x81, (char)(0x80 | (sizeof join - 1))};
		memcpy(frame + 6, join, sizeof join - 1);
		if (write(readers[i].fd, frame, sizeof frame) != sizeof frame)
			die("write");
	}
	while (!atomic_load(&shared->stop)) {
		int n = epoll_wait(epoll, events, 512, 100);
		for (int i = 0; i < n; i++) {
			struct reader *r = events[i].data.ptr;
			ssize_t got = read(r->fd, buffer, READ_SIZE);
			if (got > 0)
				atomic_fetch_add(&shared->frames, take(r, buffer, (size_t)got));
		}
	}
	exit(0);
}

/* ---- telling ------------------------------------------------------------------------- */

static bool await(uint64_t frames)
{
	double end = seconds(CLOCK_MONOTONIC) + 30;
	while (atomic_load(&shared->frames) < frames) {
		if (seconds(CLOCK_MONOTONIC) > end)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return true;
}

struct figure {
	double rate; /* messages a second, by this process's and the kernel's CPU time for it */
	double wall;
};

struct telling {
	struct hub *hub;
	int *fd;
	uint64_t expected;
};

/* Padded so that its frame's payload is about PAYLOAD bytes. */
static void publish(struct hub *h, unsigned n)
{
	static const char pad[] =
	    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
	    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";
	char key[160];
	snprintf(key, sizeof key, "%s%08u", pad, n % 100000000);
	const char *keys[] = {key};
	hub_publish_change(h, &(struct hub_change){"t", "UPDATE", keys, 1, true});
}

static void by_hub(struct telling *t, unsigned burst)
{
	for (unsigned i = 0; i < burst; i++)
		publish(t->hub, i);
}

/* The same bytes, framed once, by one send for each. */
static void by_send(struct telling *t, unsigned burst)
{
	char frame[4 + PAYLOAD] = {(char)0x81, 126, 0, (char)PAYLOAD};
	memset(frame + 4, 'k', PAYLOAD);
	frame[4] = '{';
	frame[sizeof frame - 1] = '}';
	for (unsigned b = 0; b < burst; b++)
		for (unsigned i = 0; i < clients; i++)
			while (send(t->fd[i], frame, sizeof frame, MSG_NOSIGNAL) < 0)
				if (errno != EAGAIN)
					die("send");
}

static struct figure run(struct telling *t, void (*how)(struct telling *, unsigned), unsigned burst)
{
	double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC),
	       waiting = 0;
	for (unsigned m = 0; m < messages; m += burst) {
		how(t, burst);
		t->expected += (uint64_t)burst * clients;
		double own = seconds(CLOCK_THREAD_CPUTIME_ID);
		if (!await(t->expected)) {
			fprintf(stderr, "ws_fanout: %llu of %llu frames have arrived\n",
			        (unsigned long long)atomic_load(&shared->frames),
			        (unsigned long long)t->expected);
			exit(1);
		}
		waiting += seconds(CLOCK_THREAD_CPUTIME_ID) - own;
	}
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu - waiting;
	wall = seconds(CLOCK_MONOTONIC) - wall;
	double n = (double)((messages + burst - 1) / burst * burst) * clients;
	return (struct figure){n / cpu, n / wall};
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double median(double *v, unsigned n)
{
	qsort(v, n, sizeof *v, by_value);
	return v[n / 2];
}

static void compare(struct telling *t, unsigned burst)
{
	double ratio[ROUNDS_MAX], wall[ROUNDS_MAX], hub[ROUNDS_MAX], loop[ROUNDS_MAX];
	(void)run(t, by_hub, burst);
	(void)run(t, by_send, burst);
	for (unsigned i = 0; i < rounds; i++) {
		struct figure a = run(t, by_hub, burst), b = run(t, by_send, burst);
		ratio[i] = a.rate / b.rate;
		wall[i] = a.wall / b.wall;
		hub[i] = a.rate;
		loop[i] = b.rate;
		printf("%2u  burst of %2u: hub %7.0f/s of CPU (%.2f us), %7.0f/s; send %7.0f/s of "
		       "CPU (%.2f us), "
		       "%7.0f/s; ratio %.2f, by the clock %.2f\n",
		       i + 1, burst, a.rate, 1e6 / a.rate, a.wall, b.rate, 1e6 / b.rate, b.wall,
		       ratio[i], wall[i]);
	}
	double low = ratio[0], high = ratio[0];
	for (unsigned i = 1; i < rounds; i++) {
		low = MIN(low, ratio[i]);
		high = MAX(high, ratio[i]);
	}
	printf("burst of %2u, median of %u: hub %.2f us a message, send %.2f us; ratio %.2f (%.2f "
	       "to %.2f), by the "
	       "clock %.2f\n\n",
	       burst, rounds, 1e6 / median(hub, rounds), 1e6 / median(loop, rounds),
	       median(ratio, rounds), low, high, median(wall, rounds));
}

/* ---- setting up ---------------------------------------------------------------------- */

static size_t resident(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	if (!f || fscanf(f, "%*d %ld", &pages) != 1)
		die("/proc/self/statm");
	fclose(f);
	return (size_t)pages * 4096;
}

static int listen_somewhere(struct sockaddr_in *ret)
{
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof *ret;
	*ret =
	    (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0 || bind(fd, (struct sockaddr *)ret, sizeof *ret) < 0 || listen(fd, 4096) < 0 ||
	    getsockname(fd, (struct sockaddr *)ret, &len) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0)
		die("listen");
	return fd;
}

static struct auth *open_auth(void)
{
	struct auth *a = auth_new();
	struct auth_options o;
	_cleanup_errors_ struct errors *errs = errors_new();
	auth_options_init(&o);
	o.mode = AUTH_NONE;
	ALWAYS(auth_configure(a, &o, errs, NULL) == 0);
	auth_options_done(&o);
	return a;
}

static void adopt_all(struct telling *t, struct auth *auth, int listener)
{
	struct identity *i = NULL;
	const char *reason;
	ALWAYS(auth_identify(auth, &(struct credentials){0}, time(NULL), &i, &reason) == 0);
	for (unsigned n = 0; n < clients; n++) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		/* A second descriptor for the plain loop, of the same socket. */
		t->fd[n] = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (t->fd[n] < 0 || hub_reserve(t->hub, true) < 0)
			die("accept");
		ALWAYS(hub_adopt(t->hub,
		                 &(struct hub_socket){.fd = fd, .identity = identity_ref(i)}) == 0);
	}
	identity_unref(&i);
	t->expected = clients; /* a hello each */
	ALWAYS(await(t->expected));
}

static void await_joined(struct hub *h)
{
	struct hub_stats s;
	do {
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		hub_stats(h, &s);
	} while (s.memberships < clients);
}

int main(int argc, char **argv)
{
	struct sockaddr_in at;
	struct rlimit limit;
	clients = argc > 1 ? (unsigned)atoi(argv[1]) : clients;
	rounds = argc > 2 ? MIN((unsigned)atoi(argv[2]), (unsigned)ROUNDS_MAX) : rounds;
	messages = argc > 3 ? (unsigned)atoi(argv[3]) : messages;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	signal(SIGPIPE, SIG_IGN);
	shared =
	    mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int listener = listen_somewhere(&at);
	pid_t child = fork();
	if (child == 0)
		reader_process(&at);
	struct hub_options o = {.max_clients = clients,
	                        .tick_ms = 1,
	                        .backlog = 1 << 20,
	                        .max_message = 1 << 16,
	                        .stall_timeout_ms = 30000,
	                        .ping_interval_ms = 3600000,
	                        .auth_timeout_ms = 5000,
	                        .resume_window_ms = 120000};
	struct auth *auth = open_auth();
	struct telling t = {.hub = hub_new(&o, auth, NULL), .fd = xcalloc(clients, sizeof(int))};
	ALWAYS(hub_start(t.hub) == 0);
	size_t before = resident();
	adopt_all(&t, auth, listener);
	await_joined(t.hub);
	printf("%u clients, idle: %.0f bytes resident each\n\n", clients,
	       (double)(resident() - before) / clients);
	compare(&t, 1);
	messages = MAX(messages, 4 * BURST);
	compare(&t, BURST);
	printf("afterwards, idle: %.0f bytes resident each; frames that were wrong: %llu\n",
	       (double)(resident() - before) / clients,
	       (unsigned long long)atomic_load(&shared->wrong));
	atomic_store(&shared->stop, true);
	waitpid(child, NULL, 0);
	hub_stop(t.hub, 1000);
	hub_free(&t.hub);
	auth_free(&auth);
	return atomic_load(&shared->wrong) > 0;
}

#include "signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/* Only looked at, never read: sigtimedwait takes the signals. */
static int descriptor(const sigset_t *signals)
{
	int fd = signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK);
	ALWAYS(fd >= 0);
	return fd;
}

void signals_init(struct signals *g)
{
	sigset_t stops;
	sigemptyset(&stops);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGINT);
	g->all = stops;
	sigaddset(&g->all, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &g->all, NULL);
	signal(SIGPIPE, SIG_IGN);
	g->stop_fd = descriptor(&stops);
	g->any_fd = descriptor(&g->all);
}

void signals_done(struct signals *g)
{
	close(g->stop_fd);
	close(g->any_fd);
}

int signals_within(const struct signals *g, int64_t ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	int r = sigtimedwait(&g->all, NULL, &t);
	return r > 0 ? r : 0;
}

int signals_or_readable_within(const struct signals *g, int wake, int64_t ms)
{
	struct pollfd p[] = {
	    {.fd = g->any_fd, .events = POLLIN},
	    {.fd = wake, .events = POLLIN},
	};
	(void)poll(p, ELEMENTSOF(p), (int)MIN(ms, INT64_C(60000)));
	return signals_within(g, 0);
}

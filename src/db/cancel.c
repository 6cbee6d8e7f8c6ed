#include "cancel.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "conn_impl.h"
#include "provost/log.h"

struct cancel_request {
	TAILQ_ENTRY(cancel_request) link;
	PGcancel *target;
	unsigned number; /* of the connection */
};

struct cancel {
	cancel_done_fn *done;
	void *arg;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t work;
	pthread_cond_t ended;
	TAILQ_HEAD(, cancel_request) queue;
	unsigned queued;
	bool stopping, gone;
};

struct cancel_request *cancel_request_new(const struct conn *c)
{
	struct cancel_request *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->number = c->number;
	r->target = PQgetCancel(c->pg);
	if (!r->target)
		cancel_request_free(&r);
	return r;
}

void cancel_request_free(struct cancel_request **rp)
{
	struct cancel_request *r = *rp;
	*rp = NULL;
	if (!r)
		return;
	PQfreeCancel(r->target);
	free(r);
}

static void end_request(struct cancel *k, struct cancel_request *r)
{
	k->done(k->arg, r->number);
	cancel_request_free(&r);
}

void cancel_send(struct cancel *k, struct cancel_request *r)
{
	struct cancel_request *oldest = NULL;
	pthread_mutex_lock(&k->lock);
	if (k->queued == CANCEL_QUEUE_MAX) {
		oldest = TAILQ_FIRST(&k->queue);
		TAILQ_REMOVE(&k->queue, oldest, link);
		k->queued--;
	}
	TAILQ_INSERT_TAIL(&k->queue, r, link);
	k->queued++;
	pthread_cond_signal(&k->work);
	pthread_mutex_unlock(&k->lock);
	if (oldest)
		end_request(k, oldest);
}

static struct cancel_request *next(struct cancel *k)
{
	struct cancel_request *r = NULL;
	pthread_mutex_lock(&k->lock);
	while (!k->stopping && TAILQ_EMPTY(&k->queue))
		pthread_cond_wait(&k->work, &k->lock);
	if (!k->stopping) {
		r = TAILQ_FIRST(&k->queue);
		TAILQ_REMOVE(&k->queue, r, link);
		k->queued--;
	}
	pthread_mutex_unlock(&k->lock);
	return r;
}

static bool is_stopping(struct cancel *k)
{
	pthread_mutex_lock(&k->lock);
	bool stopping = k->stopping;
	pthread_mutex_unlock(&k->lock);
	return stopping;
}

static void *run(void *arg)
{
	struct cancel *k = arg;
	struct cancel_request *r;
	pthread_setname_np(pthread_self(), "cancel");
	while ((r = next(k))) {
		char why[256] = "";
		if (!PQcancel(r->target, why, sizeof why))
			log_warn("pool: a cancel request could not be sent",
			         LOGU("connection", r->number), LOGS("reason", why));
		if (is_stopping(k))
			cancel_request_free(&r);
		else
			end_request(k, r);
	}
	pthread_mutex_lock(&k->lock);
	k->gone = true;
	pthread_cond_signal(&k->ended);
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

struct cancel *cancel_new(cancel_done_fn *done, void *arg)
{
	struct cancel *k = xcalloc(1, sizeof *k);
	k->done = done;
	k->arg = arg;
	TAILQ_INIT(&k->queue);
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->work, NULL);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->ended, &attr);
	pthread_condattr_destroy(&attr);
	return k;
}

int cancel_start(struct cancel *k)
{
	int r = pthread_create(&k->thread, NULL, run, k);
	k->started = r == 0;
	return -r;
}

/* Whether the thread has ended. */
static bool wait_gone(struct cancel *k)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += 1;
	pthread_mutex_lock(&k->lock);
	k->stopping = true;
	pthread_cond_signal(&k->work);
	int r = 0;
	while (!k->gone && r == 0)
		r = pthread_cond_timedwait(&k->ended, &k->lock, &until);
	bool gone = k->gone;
	pthread_mutex_unlock(&k->lock);
	return gone;
}

void cancel_stop(struct cancel *k)
{
	if (!k->started)
		return;
	if (wait_gone(k)) {
		pthread_join(k->thread, NULL);
		k->started = false;
	} else {
		pthread_detach(k->thread);
	}
}

void cancel_free(struct cancel **kp)
{
	struct cancel *k = *kp;
	*kp = NULL;
	if (!k || k->started)
		return; /* its thread is stuck in PQcancel and still looks at it */
	struct cancel_request *r;
	while ((r = TAILQ_FIRST(&k->queue))) {
		TAILQ_REMOVE(&k->queue, r, link);
		cancel_request_free(&r);
	}
	pthread_cond_destroy(&k->work);
	pthread_cond_destroy(&k->ended);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

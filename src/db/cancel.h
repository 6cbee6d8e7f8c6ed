/*
 * cancel: sends cancel requests from a thread of its own, because PQcancel blocks for as long as
 * the server does.
 *
 * A request is a copy of what is needed to reach the backend (PQgetCancel), so it outlives its
 * connection. Any thread may send. The queue is bounded: beyond CANCEL_QUEUE_MAX the oldest is
 * given up. A server may drop one without a word, so the pool sends another while a statement goes
 * on; in the end it closes the connection, which its server notices within
 * client_connection_check_interval.
 */
#ifndef PROVOST_DB_CANCEL_H
#define PROVOST_DB_CANCEL_H

#include "provost/base.h"

enum { CANCEL_QUEUE_MAX = 256 };

struct cancel;
struct cancel_request;
struct conn;

/* Called on the canceller's thread, or on the sender's for one given up, when the request for the
 * connection of that number can no longer arrive late. */
typedef void cancel_done_fn(void *arg, unsigned number);

struct cancel *cancel_new(cancel_done_fn *done, void *arg);
int cancel_start(struct cancel *k) _must_check_;
/* Gives up what is queued and waits for the one being sent, at most a second: then the thread is
 * left to end by itself with the process. */
void cancel_stop(struct cancel *k);
void cancel_free(struct cancel **k);

/* For what the connection is running now; its owner calls. NULL when out of memory. */
struct cancel_request *cancel_request_new(const struct conn *c);
void cancel_request_free(struct cancel_request **r);
/* Takes the request over. */
void cancel_send(struct cancel *k, struct cancel_request *r);

#endif

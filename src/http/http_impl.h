/*
 * What the files of the http module share: the server, a connection, and the one request that it
 * carries at a time.
 *
 * server.c   the daemon, connections, deadlines, stopping
 * request.c  the way of a request, from its first line to its answer or its job
 * body.c     what is kept of a request's body
 * lookup.c   what the cache has for a request
 * batch.c    /api/batch
 * route.c    from a path to an endpoint, who may call it, and its values
 * respond.c  answers and problem documents
 * problem.c  the texts of problem documents
 * sending.c  bodies in flight
 * kept.c     responses that are sent again and again
 * accept.c   codings that a client takes, and bodies that it has
 * builtin.c  /, /livez, /readyz
 * report.c   /api/admin/cache
 * revoke.c   /api/admin/revocations
 * index.c    the text of /
 * cors.c     origins
 * assets.c   /client/: the browser's side
 * head.c     what a request's head must look like
 * caller.c   who is calling, and what they may
 * upgrade.c  /ws and /echo: the handshake, and the handing over
 * sockets.c  /api/admin/websocket
 */
#ifndef PROVOST_HTTP_IMPL_H
#define PROVOST_HTTP_IMPL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "accept.h"
#include "provost/auth.h"
#include "provost/cache.h"
#include "provost/catalog.h"
#include "provost/engine.h"
#include "provost/http.h"
#include "provost/snapshot.h"
#include "provost/status.h"
#include "provost/target.h"
#include "provost/values.h"

enum { REQUEST_ID_MAX = 128, TARGET_INLINE = 512 };

/* The options that a reload changes, as requests see them. */
struct http_live {
	struct snapshot_object object;
	struct strlist origins;
	size_t max_url, max_body;
	uint64_t idle_timeout_ms, header_timeout_ms;
	bool development;
	unsigned codings;           /* bits of enum entry_coding that variants may have */
	struct freshness freshness; /* what endpoints have that say nothing; for the report */
};

/* What GET / answers is made of. */
struct http_index {
	struct snapshot_object object;
	struct index_part {
		char *text; /* of one endpoint */
		bool is_public;
		struct strlist roles;
	} * part;
	size_t parts;
};

/* Where the three words of the request line stand in libmicrohttpd's buffer. */
struct request_line {
	const char *method;
	struct slice target; /* from before libmicrohttpd took it apart */
	const char *version;
};

/* Headers we act on; borrowed from the connection until the request is completed. */
struct head {
	const char *host, *origin, *request_id, *preflight_method, *fetch_site;
	struct credentials credentials;
	bool proxied;                 /* a field that proxies add is there */
	const char *content_type;     /* "" where it is repeated: of no type */
	const char *content_encoding; /* likewise */
	struct accept accept;         /* Accept-Encoding, all lines */
	bool conditional;             /* If-None-Match is there */
	const char *why;              /* a refusal: the sentence */
	unsigned status;              /* and its status; 0: the head is good */
	bool chunked;                 /* a Transfer-Encoding was named */
	/* RFC 6455, section 4.2.1. */
	bool upgrades;  /* Connection names the upgrade */
	bool websocket; /* to WebSocket */
	const char *ws_key, *ws_version;
	bool ws_repeated; /* either is there more than once */
	uint64_t length;  /* Content-Length, 0 without */
};

enum step {
	STEP_NEW,     /* accepted; no request yet */
	STEP_IDLE,    /* between requests */
	STEP_HEAD,    /* the request line has come */
	STEP_BODY,    /* the head has been checked */
	STEP_WAITING, /* suspended, waiting for a job of the engine */
	STEP_SENDING, /* an answer is queued */
};

/* How an answer came about, for Cache-Status (RFC 9211) and the access log. */
enum served {
	SERVED_OTHER, /* not an endpoint's */
	SERVED_HIT,
	SERVED_SWR,
	SERVED_MAX_STALE,
	SERVED_STALE_IF_ERROR,
	SERVED_MISS,
	SERVED_EXPIRED, /* a miss, because what was there was not fresh any more */
	SERVED_BYPASS,  /* the endpoint is not cached */
	SERVED_WRITE,
	SERVED_COUNT,
};

struct courier;
struct hub;
/* What becomes of a request's body. */
enum body_fate {
	BODY_UNDECIDED, /* nothing of it has come */
	BODY_DROPPED,   /* nobody needs it, or whoever sent it may not call what does */
	BODY_KEPT,
	BODY_CROWDED, /* there was no room for it */
};

struct batch;
struct revoke;
struct upgrade;

/* Owned by the connection's http thread, but for what says otherwise. While it waits for a job the
 * engine owns `waiter`. */
struct request {
	struct MHD_Connection *connection;
	char id[REQUEST_ID_MAX + 1];
	uint64_t started_us;
	struct request_line line;
	bool too_long;  /* the target is past max_url and was not kept */
	size_t body;    /* bytes received of it */
	bool body_over; /* more than max_body */
	enum body_fate fate;
	struct buf content; /* what is kept of it */
	size_t charged;     /* bytes of http->bodies; what is made of it included */
	char *target;       /* inline_target or allocated */
	size_t target_len;
	struct target parsed; /* of it */
	char inline_target[TARGET_INLINE];
	struct head head;
	struct identity
	    *identity;           /* of who is calling, once asked for; the client's memory has it */
	struct catalog *catalog; /* a reference of its own while it waits */
	const struct endpoint *endpoint;
	struct values values; /* its memory, and that of key, is kept from request to request */
	struct buf key;
	struct waiter waiter;
	struct batch *batch;     /* what is being answered together, or NULL */
	struct revoke *revoke;   /* what is being changed in the database, or NULL */
	struct upgrade *upgrade; /* what is to be handed over once the 101 has gone, or NULL */
	enum outcome refused;    /* by the engine, without a job; OUTCOME_OK: it was not */
	enum served served;
	int64_t ttl_ms, age_ms; /* of a hit */
	unsigned status;        /* of the answer, for the access log */
	size_t sent;            /* bytes of its body */
};

enum { WAITERS_BITS = 8 };
_Static_assert(BATCH_MAX < 1 << WAITERS_BITS, "the number fits");

struct client {
	unsigned magic;
#define CLIENT_MAGIC 0xC11E47A1u
	struct http *http;
	int fd;       /* the connection's own descriptor; valid while on the list */
	bool refused; /* beyond max_connections */
	uint64_t accepted_ms;
	LIST_ENTRY(client) link; /* http->lock */

	/* Written by the http thread, read by the sweep, which may also extend the deadline. */
	atomic_int step;
	_Atomic uint64_t deadline_ms; /* of the step; 0: none */
	/* The ticket of the first of its waiters, above WAITERS_BITS with their number, while
	 * waiting; the others' follow. One word: of two, the sweep could see one request's ticket
	 * with the number of the one before, and give up what others wait for. */
	_Atomic uint64_t waiters;
	/* The sweep's: bytes the peer had taken when it last saw the deadline change, and that
	 * deadline. */
	uint64_t acked, acked_deadline_ms;

	struct auth_memory auth; /* of the credentials that came last */

	struct request request;
};

struct http {
	struct engine *engine;
	struct cache *cache;
	struct generations *generations;
	struct auth *auth;
	struct identities *identities; /* NULL: mode = none */
	struct pool *pool;
	struct hub *hub;
	struct courier *courier;
	bool test_echo;
	struct listener *listener;
	struct endpoint *batch;   /* what /api/batch takes */
	struct snapshot *catalog; /* of struct catalog */
	struct snapshot *live;    /* of struct http_live */
	struct snapshot *index;   /* of struct http_index */
	struct MHD_Daemon *daemon;
	int listen_fd;
	bool quiesced;
	char *listen;
	unsigned threads, max_connections;
	size_t max_url;                  /* bytes that connections have memory for */
	atomic_int phase;                /* enum http_phase */
	_Atomic uint64_t origin_warn_ms; /* not before: upgrade.c's */
	_Atomic uint64_t probed_ms;

	_Atomic size_t bodies; /* bytes of requests' bodies that are kept */

	pthread_mutex_t sending_lock; /* guards sending_bytes, and the counts of senders */
	size_t sending_bytes;         /* of large bodies that are being sent, each once */

	pthread_mutex_t lock; /* guards clients, count, admitted */
	LIST_HEAD(, client) clients;
	size_t count;
	size_t admitted; /* of them, those that are not refused */
};

/* ---- listen.c ------------------------------------------------------------------------ */

/* A listening socket, or negative errno with a sentence in errs. */
int listen_open(const char *listen, struct errors *errs);

/* ---- head.c -------------------------------------------------------------------------- */

/* Reads the head of the request once: what we act on, and whether it may be served. RFC 9112,
 * sections 3.2, 5.1 and 6. */
void head_read(struct MHD_Connection *c, const struct request_line *l, size_t max_body,
               struct head *ret);
/* Whether a host, with or without a port, is this machine. */
bool head_is_local(struct slice host);

/* ---- caller.c ------------------------------------------------------------------------ */

/* Where callers are not identified (mode = none): whether the request may be answered all the same.
 * A name that an attacker points at this machine (DNS rebinding) must not reach it through
 * somebody's browser, nor may what somebody else sends through a proxy. NULL, or a sentence. */
const char *caller_refusal(struct request *q);

/* Makes out who is calling, once per request. 0 with q->identity; -EACCES: nobody valid, or no
 * memory, and the answer (401, 503) is in `*ret`. */
int caller_identify(struct request *q, enum MHD_Result *ret);
/* Likewise, and that they have one of the roles; else 401 or 403. NULL: none is asked for. */
int caller_require(struct request *q, const struct strlist *roles, enum MHD_Result *ret);
/* Whether caller_require would let them, without an answer. */
bool caller_may(struct request *q, const struct strlist *roles);
/* That what changes something was not sent by another site's page with the cookie that the browser
 * adds by itself, or with nothing where nothing is asked for; else 403. After caller_require. */
int caller_require_intent(struct request *q, enum MHD_Result *ret);
/* Whether a page of that origin may act for its user here: this host's, or one of [http] origins.
 */
bool caller_origin_permitted(struct request *q);
/* Who opens a socket: 0 with a reference, or NULL for nobody. A cookie without an Origin is
 * nothing, because the browser adds it by itself. -EACCES: what is shown is not accepted, and the
 * answer is in `*ret`. */
int caller_identify_socket(struct request *q, struct identity **ret_identity, enum MHD_Result *ret);
/* Makes out who is calling, where nobody will do as well. */
void caller_look(struct request *q);
/* What an endpoint can vary by. */
struct key_caller caller_key(const struct request *q);

/* ---- request.c: libmicrohttpd's callbacks -------------------------------------------- */

void *request_begin(void *cls, const char *uri, struct MHD_Connection *connection);
enum MHD_Result request_handle(void *cls, struct MHD_Connection *connection, const char *url,
                               const char *method, const char *version, const char *data,
                               size_t *data_size, void **con_cls);
void request_completed(void *cls, struct MHD_Connection *connection, void **con_cls,
                       enum MHD_RequestTerminationCode why);

/* Suspends the connection until the call has ended. */
enum MHD_Result request_call(struct request *q, struct call *c);
/* Answers with what the cache still has under stale-if-error; false: it has nothing. */
bool request_answer_stale(struct request *q, enum MHD_Result *ret);
/* Suspends the connection for so many waiters; the ticket of the first, which those of the others
 * follow. */
uint64_t request_suspend(struct request *q, unsigned waiters);
/* What the engine's refusal means. */
enum outcome request_refusal(int r);
/* An endpoint's answer: from the cache, or from a job that the connection is suspended for. */
enum MHD_Result request_read(struct request *q, const struct ask *a);
/* Suspends the connection until it has been done. */
enum MHD_Result request_write(struct request *q, const struct ask *a);
/* Beyond this thread's next look at the catalogue. */
void request_keep_catalog(struct request *q, struct catalog *catalog);
/* With the connection. */
void request_free_memory(struct request *q);

/* The options as they are now; valid until this thread asks again. */
const struct http_live *http_live(struct http *h);

static inline struct client *client_of(struct request *q)
{
	return (struct client *)((char *)q - offsetof(struct client, request));
}
static inline struct http *http_of(struct request *q)
{
	return client_of(q)->http;
}

/* ---- lookup.c ------------------------------------------------------------------------ */

/* What may answer the request now, with a reference that is the caller's; false: it takes a fill.
 * `*ret_served` is how it is, or will be, answered. */
bool lookup(struct http *h, const struct ask *a, enum served *ret_served, struct cache_found *ret);
/* What may where the database has failed. False: nothing, and nothing is set. */
bool lookup_stale(struct http *h, const struct endpoint *e, struct cache_key key,
                  enum served *ret_served, struct cache_found *ret);

/* ---- body.c -------------------------------------------------------------------------- */

/* One piece of it: kept where somebody needs it who may call, what takes it has room for it, and
 * all that are kept together are within their bound; else counted and dropped. */
void body_take(struct request *q, const char *data, size_t n);
/* Frees what is kept, once it has been made into something else, which goes on being counted. */
void body_forget(struct request *q);
/* Frees what is kept, and counts it no more. */
void body_done(struct request *q);
/* At the end of the body: whether it can be read as JSON. 0, or the status and a sentence. Without
 * a body: 0. */
unsigned body_refusal(const struct request *q, const char **ret_why);
/* Whether a Content-Type is application/json, in UTF-8 if it says. */
bool body_type_is_json(const char *type);

/* ---- route.c ------------------------------------------------------------------------- */

/* Answers for the endpoint that the path leads to, or says why not. */
enum MHD_Result route_answer(struct request *q);
/* How much of the request's body is kept for an endpoint: 0 where none reads it, or not for this
 * caller. */
size_t route_body_max(struct request *q);

/* ---- respond.c ----------------------------------------------------------------------- */

/* Each queues one answer; what it returns is the handler's result. */

/* `len` bytes of JSON that stay valid until `done(arg)`; `done` may be NULL for static bytes. */
enum MHD_Result respond_json(struct request *q, unsigned status, const char *body, size_t len,
                             void (*done)(void *), void *arg);
/* An RFC 9457 problem document. `detail` is for the caller's eyes. */
enum MHD_Result respond_problem(struct request *q, unsigned status, const char *detail);
/* 401: `challenge` is the value of WWW-Authenticate (RFC 9110, section 11.6.1). */
enum MHD_Result respond_unauthenticated(struct request *q, const char *challenge);
/* 101. `upgraded` is called with the request once it has gone. */
enum MHD_Result respond_upgrade(struct request *q, const char *accept, MHD_UpgradeHandler upgraded);
/* 426: only a WebSocket of version 13 can be had here (RFC 6455, section 4.4). */
enum MHD_Result respond_upgrade_required(struct request *q, const char *detail);
/* 405 with what is allowed, bits of enum method. */
enum MHD_Result respond_not_allowed(struct request *q, unsigned methods);
/* 204 with Allow, and the CORS preflight headers where the origin is permitted. */
enum MHD_Result respond_options(struct request *q, unsigned methods);
/* 400 with every parameter that is wrong, 422 where it is members of the body alone. */
enum MHD_Result respond_bad_values(struct request *q);
/* What the cache had; takes the reference over. */
enum MHD_Result respond_found(struct request *q, struct cache_found *found);
/* What the job came to. */
enum MHD_Result respond_job(struct request *q);
/* The answers to a batch: the response over them, or NULL, `busy` when too much is being sent. */
enum MHD_Result respond_batch(struct request *q, struct MHD_Response *r, size_t len, bool busy);
/* What the engine refused. */
enum MHD_Result respond_refusal(struct request *q, enum outcome outcome);

/* A response over bytes that belong to `done(arg)`; `done` may be NULL for static bytes. NULL, with
 * the bytes given back, when out of memory: the handler then returns MHD_NO, which closes the
 * connection. */
struct MHD_Response *response_over(const char *body, size_t len, void (*done)(void *), void *arg);

/* Cache-Status (RFC 9211) of what the cache answered, or of what `w` has waited for. */
enum { CACHE_STATUS_MAX = 80 };
void cache_status_format(enum served served, int64_t ttl_ms, const struct waiter *w,
                         char out[CACHE_STATUS_MAX]);

/* What the other files' answers are made with. Adds what all answers carry; without a type where
 * there is no body. */
void respond_add(struct request *q, struct MHD_Response *r, const char *type,
                 const char *cache_control);
/* The codings in which the client has the body with that hash already, bits of 1 << coding
 * (RFC 9110, section 13.1.2). */
unsigned respond_known(struct request *q, const char hash[ETAG_DIGITS]);
/* Sends it; takes the response over. */
enum MHD_Result respond_queue(struct request *q, unsigned status, struct MHD_Response *r);

/* ---- problem.c ----------------------------------------------------------------------- */

/* The reason phrase of RFC 9110, section 15. */
const char *status_title(unsigned status);
/* Problem documents, appended to `b`; `id` is the request's. */
void problem_text(struct buf *b, const char *id, unsigned status, const char *detail);
#define PROBLEM_NOT_ALLOWED "The path does not answer to this method; Allow says to which."
/* Every parameter that is wrong, and the status: 400, or 422 where it is members of the body alone.
 */
unsigned problem_of_values(struct buf *b, const char *id, const struct values *v);
/* Of an answer that is not OUTCOME_OK, and the status. */
unsigned problem_of_answer(struct buf *b, const char *id, const struct answer *a, bool development);

/* The same over several pieces, one behind the other. */
struct MHD_Response *response_over_pieces(const struct MHD_IoVec *piece, unsigned count,
                                          void (*done)(void *), void *arg);

/* ---- sending.c ----------------------------------------------------------------------- */

/* A body that is shared by all who are being sent it, and by whom it is kept. */
struct body {
	const char *bytes;
	const struct MHD_IoVec *pieces; /* instead of bytes, when not NULL; copied */
	unsigned count;                 /* of them */
	size_t len;
	size_t counted;       /* bytes; the same for every representation that the owner keeps */
	unsigned *senders;    /* of it, under sending_lock */
	void (*done)(void *); /* gives `owner` back */
	void *owner;
};

/* A response over the body, which takes the owner's reference over. Large bodies that are being
 * sent are bounded, by bytes, each counted once however many are sent it. NULL: `*ret_busy` when
 * too much is being sent, else no memory; the reference has been given back. */
struct MHD_Response *sending_response(struct http *h, const struct body *b, bool *ret_busy);

/* ---- kept.c -------------------------------------------------------------------------- */

/* What is each request's own in a hit's answer. */
struct varying {
	char id[REQUEST_ID_MAX + 1];
	char cache_status[CACHE_STATUS_MAX];
	char age[INTEGER_TEXT_MAX];
};

/* This thread's response for the entry in this coding, with these fields, or NULL. It stays the
 * thread's: queue it, do not destroy it. */
struct MHD_Response *kept_find(const struct entry *e, unsigned coding, const struct varying *v);
/* A response for the entry, whose body has that many bytes, in this coding. The response keeps the
 * entry alive; all its other fields must be the entry's. True: it was taken over, because the entry
 * is asked for again and again. Until the thread ends, or the place is needed. */
bool kept_put(const struct entry *e, unsigned coding, size_t bytes, struct MHD_Response *r,
              const struct varying *v);

/* ---- builtin.c ----------------------------------------------------------------------- */

/* Answers the path if it is one of Provost's own. */
bool builtin_answer(struct request *q, enum MHD_Result *ret);
/* How much of the request's body its answer needs; 0: none of it, or not for this caller. */
size_t builtin_body_max(struct request *q);

/* ---- upgrade.c ----------------------------------------------------------------------- */

/* Answers 101, upon which the connection becomes the hub's, or says why not. */
enum MHD_Result upgrade_ws(struct request *q);
enum MHD_Result upgrade_echo(struct request *q);
void upgrade_free(struct upgrade **u);

/* ---- sockets.c ----------------------------------------------------------------------- */

enum MHD_Result sockets_report(struct request *q);
/* ---- batch.c ------------------------------------------------------------------------- */

/* POST /api/batch. */
enum MHD_Result batch_begin(struct request *q);
/* Once all that it waited for has been answered. */
enum MHD_Result batch_respond(struct request *q);
void batch_free(struct batch **b);
/* What its body must be. Exits when out of memory. */
struct endpoint *batch_declare(void);

/* ---- revoke.c ------------------------------------------------------------------------ */

/* POST and DELETE. The connection is suspended; the answer is revoke_respond's. */
enum MHD_Result revoke_add(struct request *q);
enum MHD_Result revoke_remove(struct request *q);
/* Once the database has answered. */
enum MHD_Result revoke_respond(struct request *q);
void revoke_free(struct revoke **r);

/* ---- report.c ------------------------------------------------------------------------ */

/* GET: what the cache does, and the settings in force. */
enum MHD_Result report_cache(struct request *q);
/* DELETE: invalidates by hand: ?tag=, ?endpoint=, ?all. */
enum MHD_Result report_invalidate(struct request *q);

/* ---- index.c ------------------------------------------------------------------------- */

/* NULL: of no endpoint. Exits when out of memory. */
struct http_index *index_new(const struct catalog *catalog);
/* The index for somebody, or for nobody (NULL); the caller's to free. NULL when out of memory. */
char *index_render(const struct http_index *x, const struct identity *i, size_t *ret_len);

/* ---- assets.c ------------------------------------------------------------------------ */

#define ASSETS_PREFIX "/client/"
/* Whether the path, which begins with the prefix, is one of a file. */
bool assets_has(struct request *q);
/* The file, which is there. */
enum MHD_Result assets_answer(struct request *q);
/* To the page that shows what the others are for. */
enum MHD_Result assets_redirect(struct request *q);

/* ---- cors.c -------------------------------------------------------------------------- */

/* Adds the headers for a permitted origin, and Vary where origins are configured. */
void cors_add(struct request *q, struct MHD_Response *r, bool preflight, const char *methods);
/* "GET, HEAD, OPTIONS" of bits of enum method, to a buffer of ALLOW_MAX. */
enum { ALLOW_MAX = 64 };
void allow_format(unsigned methods, char out[ALLOW_MAX]);

#endif

#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <time.h>

#include "../endpoint/value.h"
#include "durable.h"
#include "ops.h"
#include "provost/auth.h"

#define OP_ID_NUMBER_MAX (1ll << 53) /* what JSON's readers agree on */

/* ---- what is said -------------------------------------------------------------------- */

struct buf *ops_begin(struct hub *h, const char *ev)
{
	h->text.len = 0;
	h->text.failed = false;
	buf_addf(&h->text, "{\"ev\":\"%s\"", ev);
	return &h->text;
}

void ops_add_text(struct buf *b, const char *name, const char *value, size_t n)
{
	buf_addf(b, ",\"%s\":", name);
	buf_add_json_string(b, value, n);
}

struct message *ops_message(struct hub *h, enum message_kind kind)
{
	buf_addc(&h->text, '}');
	if (h->text.failed) {
		buf_done(&h->text);
		return NULL;
	}
	return message_new(kind, WS_TEXT, h->text.data, h->text.len);
}

static void add_rooms(struct buf *b, const struct session *s)
{
	buf_adds(b, ",\"rooms\":[");
	for (uint32_t i = 0; s && i < s->members; i++) {
		const struct room *r = s->member[i]->room;
		if (i)
			buf_addc(b, ',');
		buf_add_json_string(b, r->name, r->len);
	}
	buf_addc(b, ']');
}

void ops_hello(struct hub *h, struct client *c)
{
	struct buf *b = ops_begin(h, "hello");
	buf_addf(b, ",\"session\":\"%s\",\"seq\":%llu,\"heartbeat\":%lld", c->session->id,
	         (unsigned long long)h->seq, (long long)h->options.ping_interval_ms);
	client_reply(h, c, ops_message(h, MESSAGE_REPLY));
	durable_owe(h, c);
}

void ops_resync(struct hub *h, struct client *c)
{
	if (c->resync_waits)
		return;
	struct buf *b = ops_begin(h, "resync");
	add_rooms(b, c->session);
	watches_add(b, c);
	buf_addf(b, ",\"seq\":%llu", (unsigned long long)h->seq);
	c->resync_waits = true;
	COUNT(h, resyncs, 1);
	client_put(h, c, ops_message(h, MESSAGE_RESYNC));
}

void ops_bye(struct hub *h, struct client *c, uint64_t retry_ms)
{
	struct buf *b = ops_begin(h, "bye");
	buf_addf(b, ",\"retry\":%llu", (unsigned long long)retry_ms);
	client_put(h, c, ops_message(h, MESSAGE_REPLY));
}

/* ---- one operation ------------------------------------------------------------------- */

void op_error(const struct op *o, unsigned code, const char *message)
{
	struct buf *b = ops_begin(o->h, "error");
	if (o->id)
		buf_addf(b, ",\"id\":%s", o->id);
	buf_addf(b, ",\"code\":%u", code);
	ops_add_text(b, "message", message, strlen(message));
	client_reply(o->h, o->c, ops_message(o->h, MESSAGE_REPLY));
}

struct buf *op_ok(const struct op *o)
{
	if (!o->id)
		return NULL;
	struct buf *b = ops_begin(o->h, "ok");
	buf_addf(b, ",\"id\":%s", o->id);
	return b;
}

void op_ok_end(const struct op *o, const struct buf *b)
{
	if (b)
		client_reply(o->h, o->c, ops_message(o->h, MESSAGE_REPLY));
}

const char *op_text(const struct op *o, const char *name, size_t *ret_n)
{
	struct json_object *v;
	if (!json_object_object_get_ex(o->root, name, &v) ||
	    !json_object_is_type(v, json_type_string))
		return NULL;
	*ret_n = (size_t)json_object_get_string_len(v);
	return json_object_get_string(v);
}

static void op_ping(const struct op *o)
{
	op_ok_end(o, op_ok(o));
}

/* The room's name as it is kept, in `name`. */
static int op_room(const struct op *o, char name[HUB_ROOM_MAX + 1], size_t *ret_n)
{
	size_t n = 0;
	const char *text = op_text(o, "room", &n);
	if (text && room_normalise(text, n, name, ret_n) == 0)
		return 0;
	op_error(o, WS_CODE_BAD_REQUEST,
	         "room must be table:NAME, table:NAME:ID, user:SUBJECT, role:ROLE, or a name");
	return -EINVAL;
}

static void op_join(const struct op *o)
{
	char name[HUB_ROOM_MAX + 1];
	size_t n;
	if (op_room(o, name, &n) < 0)
		return;
	if (!room_permits(o->h, name, n, o->c->identity)) {
		op_error(o, WS_CODE_FORBIDDEN, "this room is not for you");
		return;
	}
	int r = room_join(o->h, o->c->session, name, n);
	if (r == -ENOSPC) {
		op_error(o, WS_CODE_LIMIT, "you are in too many rooms");
	} else if (r < 0) {
		op_error(o, WS_CODE_INTERNAL, "out of memory");
	} else {
		struct buf *b = op_ok(o);
		if (b)
			ops_add_text(b, "room", name, n);
		op_ok_end(o, b);
	}
}

static void op_leave(const struct op *o)
{
	char name[HUB_ROOM_MAX + 1];
	size_t n;
	if (op_room(o, name, &n) < 0)
		return;
	room_leave(o->h, o->c->session, name, n);
	struct buf *b = op_ok(o);
	if (b)
		ops_add_text(b, "room", name, n);
	op_ok_end(o, b);
}

/* Replies go before what was missed. */
static void op_resume(const struct op *o)
{
	size_t n = 0;
	struct json_object *v;
	const char *id = op_text(o, "session", &n);
	if (!id || !json_object_object_get_ex(o->root, "seq", &v) ||
	    !json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 0) {
		op_error(o, WS_CODE_BAD_REQUEST, "resume needs session and seq");
		return;
	}
	bool found = session_take(o->h, o->c, id);
	struct buf *b = op_ok(o);
	if (b) {
		buf_addf(b, ",\"resumed\":%s", found ? "true" : "false");
		add_rooms(b, o->c->session);
	}
	op_ok_end(o, b);
	if (!client_is_open(o->c))
		return;
	if (!found || !history_tell(o->h, o->c, json_object_get_uint64(v)))
		ops_resync(o->h, o->c);
}

/* ---- auth ---------------------------------------------------------------------------- */

static int identify(const struct op *o, struct identity **ret, const char **reason)
{
	size_t n = 0;
	const char *token = op_text(o, "token", &n);
	_cleanup_buf_ struct buf b = {0};
	*reason = "auth needs a token";
	if (!token || n > AUTH_TOKEN_MAX)
		return -ENOKEY;
	buf_adds(&b, "Bearer ");
	buf_add(&b, token, n);
	if (b.failed)
		return -ENOMEM;
	const struct credentials credentials = {.authorization = {b.data, b.len}};
	int r = auth_identify(o->h->auth, &credentials, time(NULL), ret, reason);
	explicit_bzero(b.data, b.len);
	return r;
}

static void op_renew(const struct op *o, struct identity *i)
{
	if (strcmp(i->subject, o->c->identity->subject) != 0) {
		identity_unref(&i);
		client_close(o->h, o->c, WS_CODE_FORBIDDEN, "this is somebody else's connection");
		return;
	}
	client_renew(o->h, o->c, i);
	op_ok_end(o, op_ok(o));
	ops_review(o->h, o->c);
	watches_review(o->h, o->c);
}

static void op_auth(const struct op *o)
{
	struct identity *i = NULL;
	const char *reason;
	bool first = o->c->state == CLIENT_UNIDENTIFIED;
	/* A signature costs the hub's thread as much as hundreds of messages. */
	if (!first && o->c->allowance < AUTH_ALLOWANCE) {
		client_close(o->h, o->c, WS_CODE_LIMIT, "too many messages");
		return;
	}
	o->c->allowance -= MIN(o->c->allowance, (uint32_t)AUTH_ALLOWANCE);
	int r = identify(o, &i, &reason);
	if (r < 0 && first)
		client_close(o->h, o->c, WS_CODE_UNAUTHENTICATED, reason ? reason : "");
	else if (r < 0)
		op_error(o, WS_CODE_UNAUTHENTICATED, reason ? reason : "the token is not accepted");
	else if (!first)
		op_renew(o, i);
	else if (client_identify(o->h, o->c, i)) {
		op_ok_end(o, op_ok(o));
		ops_hello(o->h, o->c);
	}
}

void ops_review(struct hub *h, struct client *c)
{
	for (uint32_t i = 0; client_is_open(c) && c->session && i < c->session->members;) {
		struct member *m = c->session->member[i];
		const struct room *r = m->room;
		if (room_permits(h, r->name, r->len, c->identity)) {
			i++;
			continue;
		}
		struct buf *b = ops_begin(h, "error");
		buf_addf(b, ",\"code\":%u", WS_CODE_FORBIDDEN);
		ops_add_text(b, "message", "this room is not for you any more", 33);
		ops_add_text(b, "room", r->name, r->len);
		struct message *said = ops_message(h, MESSAGE_REPLY);
		member_free(h, m);
		client_reply(h, c, said);
	}
}

/* ---- which --------------------------------------------------------------------------- */

static const struct {
	const char *name;
	void (*run)(const struct op *o);
} OPS[] = {
    {"join", op_join},           {"leave", op_leave},
    {"ping", op_ping},           {"resume", op_resume},
    {"auth", op_auth},           {"ack", op_ack},
    {"subscribe", op_subscribe}, {"unsubscribe", op_unsubscribe},
};

/* An `id` is an integer or a short text. */
static int read_id(struct op *o)
{
	struct json_object *v;
	if (!json_object_object_get_ex(o->root, "id", &v))
		return 0;
	bool number = json_object_is_type(v, json_type_int);
	if (!number && !json_object_is_type(v, json_type_string))
		return -EINVAL;
	int64_t n = number ? json_object_get_int64(v) : 0;
	if (n > OP_ID_NUMBER_MAX || n < -OP_ID_NUMBER_MAX)
		return -EINVAL;
	const char *text = json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN |
	                                                         JSON_C_TO_STRING_NOSLASHESCAPE);
	if (!text || strlen(text) > OP_ID_MAX)
		return -EINVAL;
	o->id = text; /* for as long as the root is there */
	return 0;
}

static void run(struct op *o)
{
	size_t n = 0;
	const char *name = op_text(o, "op", &n);
	if (!name) {
		client_close(o->h, o->c, WS_CODE_BAD_REQUEST, "op is missing");
		return;
	}
	if (read_id(o) < 0) {
		client_close(o->h, o->c, WS_CODE_BAD_REQUEST,
		             "id must be an integer or a short text");
		return;
	}
	if (o->c->state == CLIENT_UNIDENTIFIED && strcmp(name, "auth") != 0) {
		client_close(o->h, o->c, WS_CODE_UNAUTHENTICATED, "say first who you are");
		return;
	}
	for (size_t i = 0; i < ELEMENTSOF(OPS); i++) {
		if (!strcmp(OPS[i].name, name)) {
			OPS[i].run(o);
			return;
		}
	}
	op_error(o, WS_CODE_BAD_REQUEST, "there is no such op");
}

/* json-c builds the tree; what JSON is it does not decide (endpoint/json.c says why). */
static struct json_object *parse(const char *text, size_t n)
{
	_cleanup_buf_ struct buf plain = {0};
	const char *why;
	if (json_canonical(text, n, &plain, &why) < 0)
		return NULL;
	struct json_tokener *t = json_tokener_new_ex(JSON_TOKENER_DEFAULT_DEPTH);
	struct json_object *root = t ? json_tokener_parse_ex(t, plain.data, (int)plain.len) : NULL;
	if (t)
		json_tokener_free(t);
	return root;
}

void ops_take(struct hub *h, struct client *c, const char *text, size_t n)
{
	struct op o = {.h = h, .c = c, .root = parse(text, n)};
	if (!o.root || !json_object_is_type(o.root, json_type_object))
		client_close(h, c, WS_CODE_BAD_REQUEST, "messages are JSON objects");
	else
		run(&o);
	json_object_put(o.root);
}

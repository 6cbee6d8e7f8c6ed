#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "http_impl.h"
#include "provost/identities.h"
#include "provost/log.h"

/* One change of the revocations, on its way through the database. */
struct revoke {
	struct call call;
	struct identities *identities;
	struct revocation revocation;
	char *by; /* who does it */
	bool remove;
	int result; /* of identities_revoke or identities_unrevoke */
};

void revoke_free(struct revoke **r)
{
	if (!*r)
		return;
	free((*r)->revocation.what);
	free((*r)->by);
	free(*r);
	*r = NULL;
}

/* ---- what is asked ------------------------------------------------------------------- */

/* A refusal: its status and sentence. */
struct refusal {
	unsigned status;
	const char *why;
};

static const struct refusal NOT_NAMED = {
    422, "Name what is revoked: {\"token\": ID} (a JWT's jti, or an API key's id) or {\"subject\": "
         "SUBJECT}, not both; with {\"exp\": SECONDS}, in the future, or {\"forever\": true}."};

#define EXP_MAX_S (100 * 366 * INT64_C(86400)) /* PostgreSQL has an end of time */

/* The id that is meant. A whole key, or a whole JWT, must not be stored: of a key the id is taken.
 */
static int find_id(const char **what, size_t *n, char id[APIKEY_ID_LEN + 1])
{
	if (apikey_parse(*what, *n, id) == 0) {
		*what = id;
		*n = APIKEY_ID_LEN;
		return 0;
	}
	return apikey_is_like(*what, *n) || (*n > 3 && !memcmp(*what, "eyJ", 3)) ? -EINVAL : 0;
}

static int name_it(struct revocation *r, const char *member, const char *what, size_t n)
{
	char id[APIKEY_ID_LEN + 1];
	r->kind = !strcmp(member, "token") ? REVOKE_TOKEN : REVOKE_SUBJECT;
	if (r->kind == REVOKE_TOKEN && find_id(&what, &n, id) < 0)
		return -EINVAL;
	if (r->what || n == 0 || n > IDENTITY_SUBJECT_MAX || memchr(what, 0, n))
		return -EINVAL;
	r->what = malloc(n + 1);
	if (!r->what)
		return -ENOMEM;
	memcpy(r->what, what, n);
	r->what[n] = '\0';
	return 0;
}

/* One member; false: it is not one of ours, or not of its type. */
static bool read_member(struct revocation *r, const char *name, struct json_object *v)
{
	if (!strcmp(name, "token") || !strcmp(name, "subject"))
		return json_object_is_type(v, json_type_string) &&
		       name_it(r, name, json_object_get_string(v),
		               (size_t)json_object_get_string_len(v)) == 0;
	if (!strcmp(name, "exp") && json_object_is_type(v, json_type_int)) {
		int64_t now = time(NULL);
		r->until_s = json_object_get_int64(v);
		return r->until_s > now && r->until_s < now + EXP_MAX_S;
	}
	if (!strcmp(name, "forever") && json_object_is_type(v, json_type_boolean)) {
		if (json_object_get_boolean(v))
			r->issued_before_s = INT64_MAX;
		return true;
	}
	return false;
}

static bool read_object(struct revocation *r, struct json_object *o)
{
	json_object_object_foreach(o, name, value) if (!read_member(r, name, value)) return false;
	bool forever = r->kind == REVOKE_SUBJECT && r->issued_before_s == INT64_MAX;
	return r->what && !(forever && r->until_s);
}

static struct json_object *parse(const struct buf *body)
{
	struct json_tokener *t = json_tokener_new_ex(4);
	if (!t)
		return NULL;
	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	struct json_object *o = json_tokener_parse_ex(t, body->data, (int)body->len);
	bool whole = o && json_tokener_get_error(t) == json_tokener_success &&
	             json_tokener_get_parse_end(t) == body->len;
	if (!whole) {
		json_object_put(o);
		o = NULL;
	}
	json_tokener_free(t);
	return o;
}

static struct refusal read_body(struct request *q, struct revocation *r)
{
	struct refusal no = {0};
	no.status = body_refusal(q, &no.why);
	if (no.status)
		return no;
	struct json_object *o = q->content.len ? parse(&q->content) : NULL;
	if (!o)
		return (struct refusal){400, "The body is not JSON."};
	bool good = json_object_is_type(o, json_type_object) && read_object(r, o);
	json_object_put(o);
	return good ? (struct refusal){0} : NOT_NAMED;
}

/* ?token=ID or ?subject=SUBJECT */
static struct refusal read_query(struct request *q, struct revocation *r)
{
	struct slice rest = q->parsed.query, name, value;
	while (target_take_pair(&rest, &name, &value)) {
		_cleanup_buf_ struct buf text = {.max = 4096};
		bool token = name.n == 5 && !memcmp(name.p, "token", 5);
		bool subject = name.n == 7 && !memcmp(name.p, "subject", 7);
		if (!token && !subject)
			continue;
		if (percent_decode(value, true, &text) < 0 || text.len == 0 ||
		    name_it(r, token ? "token" : "subject", text.data, text.len) < 0)
			return NOT_NAMED;
	}
	return r->what ? (struct refusal){0} : NOT_NAMED;
}

/* ---- doing it ------------------------------------------------------------------------ */

static void run(struct call *c, struct conn *conn, uint64_t deadline_us)
{
	struct revoke *r = (struct revoke *)((char *)c - offsetof(struct revoke, call));
	const struct revocation *what = &r->revocation;
	r->result = r->remove ? identities_unrevoke(r->identities, conn, what->kind, what->what,
	                                            deadline_us)
	                      : identities_revoke(r->identities, conn, what, r->by, deadline_us);
}

static enum MHD_Result begin(struct request *q, bool remove)
{
	struct http *h = http_of(q);
	struct revoke *r = calloc(1, sizeof *r);
	q->revoke = r; /* freed with the request */
	if (!r || !(r->by = strdup(q->identity->subject)))
		return respond_problem(q, 503, "The server is out of memory. Try again.");
	if (!h->identities)
		return respond_problem(q, 409,
		                       "Callers are not identified (mode = none), so there "
		                       "is nothing to revoke.");
	r->call.run = run;
	r->identities = h->identities;
	r->remove = remove;
	/* A token may say that it was issued a little later than it is here. */
	r->revocation.issued_before_s = time(NULL) + auth_leeway_s(h->auth);
	struct refusal no = remove ? read_query(q, &r->revocation) : read_body(q, &r->revocation);
	if (no.status)
		return respond_problem(q, no.status, no.why);
	return request_call(q, &r->call);
}

enum MHD_Result revoke_add(struct request *q)
{
	return begin(q, false);
}

enum MHD_Result revoke_remove(struct request *q)
{
	return begin(q, true);
}

static enum MHD_Result respond_result(struct request *q, int r)
{
	static const char done[] = "{\"success\":true}";
	switch (r) {
	case 0:
		return respond_json(q, 200, done, sizeof done - 1, NULL, NULL);
	case -ENOENT:
		return respond_problem(q, 404,
		                       "There is no such revocation, or the schema is not "
		                       "installed: provost schema install.");
	case -EINVAL:
		return respond_problem(q, 422, "This cannot be revoked.");
	case -ENOSPC:
		return respond_problem(q, 503, "There are too many revocations.");
	case -EACCES:
		return respond_problem(q, 503,
		                       "The server's role may not write revocations: provost "
		                       "grants print.");
	case -ETIMEDOUT:
		return respond_problem(q, 504,
		                       "The database did not answer within the time allowed.");
	case -EIO:
		log_warn("the database refused a revocation", LOGS("request", q->id));
		return respond_problem(q, 500, "The database refused it.");
	default:
		return respond_problem(q, 503, "The database cannot be reached. Try again.");
	}
}

enum MHD_Result revoke_respond(struct request *q)
{
	enum outcome o = q->waiter.job->answer.outcome;
	return o == OUTCOME_OK ? respond_result(q, q->revoke->result) : respond_refusal(q, o);
}

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "http_impl.h"
#include "provost/key.h"

const char *caller_refusal(struct request *q)
{
	struct slice host = {q->head.host, strlen(q->head.host)};
	if (auth_mode(http_of(q)->auth) != AUTH_NONE)
		return NULL;
	/* In absolute-form it is the target that says which host is meant (RFC 9112, section
	 * 3.2.2). */
	if (!head_is_local(host) || (q->parsed.authority.n && !head_is_local(q->parsed.authority)))
		return "Callers are not identified (mode = none), so only requests to localhost, "
		       "127.0.0.1 or [::1] are answered.";
	if (q->head.proxied)
		return "Requests that came through a proxy are refused, because callers are not "
		       "identified (mode = none): this server answers its own machine only.";
	return NULL;
}

static int look(struct request *q, const char **reason)
{
	struct client *c = client_of(q);
	return auth_identify_again(c->http->auth, &c->auth, &q->head.credentials, time(NULL),
	                           &q->identity, reason);
}

void caller_look(struct request *q)
{
	const char *reason;
	if (look(q, &reason) < 0)
		q->identity = NULL;
}

int caller_identify(struct request *q, enum MHD_Result *ret)
{
	char challenge[AUTH_CHALLENGE_MAX];
	const char *reason;
	if (q->identity)
		return 0;
	int r = look(q, &reason);
	if (r == 0)
		return 0;
	q->identity = NULL;
	if (r == -ENOMEM) {
		*ret = respond_problem(q, 503, "The server is out of memory. Try again.");
		return -EACCES;
	}
	auth_challenge(r, reason, challenge);
	*ret = respond_unauthenticated(q, challenge);
	return -EACCES;
}

int caller_require(struct request *q, const struct strlist *roles, enum MHD_Result *ret)
{
	if (caller_identify(q, ret) < 0)
		return -EACCES;
	if (!roles || identity_allows(q->identity, roles))
		return 0;
	*ret = respond_problem(q, 403, "This is not for your role.");
	return -EACCES;
}

/* The same origin as the request's own host, whatever the scheme: TLS may end in front of us. */
static bool is_own_origin(const struct head *h)
{
	const char *authority = strstr(h->origin, "://");
	return authority && !strcasecmp(authority + 3, h->host);
}

int caller_require_intent(struct request *q, enum MHD_Result *ret)
{
	const struct head *h = &q->head;
	if (!q->identity->from_cookie)
		return 0;
	if (h->origin &&
	    (is_own_origin(h) || strlist_has(&http_live(http_of(q))->origins, h->origin)))
		return 0;
	if (!h->origin && h->fetch_site && !strcmp(h->fetch_site, "same-origin"))
		return 0;
	*ret = respond_problem(q, 403,
	                       "With a session cookie, changes are accepted from pages of this "
	                       "origin and of [http] origins only.");
	return -EACCES;
}

struct key_caller caller_key(const struct request *q)
{
	const struct identity *i = q->identity;
	if (!i)
		return (struct key_caller){0};
	return (struct key_caller){i->subject, i->roles_text, i->claims};
}

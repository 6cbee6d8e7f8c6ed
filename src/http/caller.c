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

static bool is_starting(struct request *q)
{
	struct http *h = http_of(q);
	return atomic_load_explicit(&h->phase, memory_order_relaxed) == HTTP_STARTING &&
	       auth_mode(h->auth) != AUTH_NONE;
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
	if (is_starting(q) || look(q, &reason) < 0)
		q->identity = NULL;
}

int caller_identify(struct request *q, enum MHD_Result *ret)
{
	char challenge[AUTH_CHALLENGE_MAX];
	const char *reason;
	if (q->identity)
		return 0;
	/* What was revoked may not have been read yet. */
	if (is_starting(q)) {
		*ret = respond_problem(q, 503, "The server is starting. Try again.");
		return -EACCES;
	}
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

bool caller_may(struct request *q, const struct strlist *roles)
{
	caller_look(q);
	return q->identity && (!roles || identity_allows(q->identity, roles));
}

/* The same origin as the request's own host; of either scheme, because TLS may end in front of us,
 * unless the browser says that the page's was another. */
static bool is_own_origin(const struct head *h)
{
	static const char *const schemes[] = {"http://", "https://"};
	if (h->fetch_site && strcmp(h->fetch_site, "same-origin"))
		return false;
	for (size_t i = 0; i < ELEMENTSOF(schemes); i++) {
		size_t n = strlen(schemes[i]);
		if (!strncmp(h->origin, schemes[i], n) && !strcasecmp(h->origin + n, h->host))
			return true;
	}
	return false;
}

bool caller_origin_permitted(struct request *q)
{
	const struct head *h = &q->head;
	return is_own_origin(h) || strlist_has(&http_live(http_of(q))->origins, h->origin);
}

int caller_identify_socket(struct request *q, struct identity **ret_identity, enum MHD_Result *ret)
{
	struct credentials shown = q->head.credentials;
	char challenge[AUTH_CHALLENGE_MAX];
	const char *reason;
	if (!q->head.origin)
		shown.cookie = (struct auth_field){0};
	*ret_identity = NULL;
	int r = auth_identify(http_of(q)->auth, &shown, time(NULL), ret_identity, &reason);
	if (r == 0 || r == -ENOKEY)
		return 0;
	auth_challenge(r, reason, challenge);
	*ret = r == -ENOMEM ? respond_problem(q, 503, "The server is out of memory. Try again.")
	                    : respond_unauthenticated(q, challenge);
	return -EACCES;
}

/* Whether a page of another site may have sent it, without its user's will. */
static bool is_from_elsewhere(struct request *q)
{
	const struct head *h = &q->head;
	if (h->origin)
		return !caller_origin_permitted(q);
	if (h->fetch_site)
		return strcmp(h->fetch_site, "same-origin");
	/* No browser's, or a page's that does not say: as good as the credential is. */
	return q->identity && q->identity->from_cookie;
}

int caller_require_intent(struct request *q, enum MHD_Result *ret)
{
	const struct identity *i = q->identity;
	bool by_itself = !i || i->from_cookie || i->kind == IDENTITY_NONE;
	if (!by_itself || !is_from_elsewhere(q))
		return 0;
	*ret = respond_problem(q, 403,
	                       "Changes for which a browser shows no token are accepted from pages "
	                       "of this origin and of [http] origins only.");
	return -EACCES;
}

struct key_caller caller_key(const struct request *q)
{
	const struct identity *i = q->identity;
	if (!i)
		return (struct key_caller){0};
	return (struct key_caller){i->subject, i->roles_text, i->claims};
}

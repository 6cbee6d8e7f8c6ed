#include "claims.h"

#include <errno.h>
#include <math.h>

#include "json.h"
#include "refuse.h"

/* 2^53: up to here every second is a double of its own, and sums with leeways do not overflow. */
#define SECONDS_MAX 9007199254740992.0

/* ---- moments ------------------------------------------------------------------------- */

enum moment { MOMENT_ABSENT, MOMENT_PRESENT, MOMENT_MALFORMED };

/* A NumericDate (RFC 7519, section 2), to the whole second before it. */
static enum moment get_moment(const json_t *claims, const char *name, int64_t *ret_s)
{
	const json_t *j = json_member(claims, name);
	double s;

	if (!j)
		return MOMENT_ABSENT;
	if (!json_is_number(j))
		return MOMENT_MALFORMED;
	s = floor(json_number_value(j));
	if (!(s >= 0 && s <= SECONDS_MAX))
		return MOMENT_MALFORMED;
	*ret_s = (int64_t)s;
	return MOMENT_PRESENT;
}

static int check_times(const struct claim_rules *rules, const json_t *claims, int64_t now_s,
                       struct identity_parts *p, const char **reason)
{
	int64_t exp_s = 0, nbf_s = 0, iat_s = 0;
	enum moment exp = get_moment(claims, "exp", &exp_s);
	enum moment nbf = get_moment(claims, "nbf", &nbf_s);
	enum moment iat = get_moment(claims, "iat", &iat_s);

	if (exp == MOMENT_ABSENT)
		return refuse(reason, -EKEYREJECTED, "the token does not expire");
	if (exp == MOMENT_MALFORMED || nbf == MOMENT_MALFORMED || iat == MOMENT_MALFORMED)
		return refuse(reason, -EKEYREJECTED,
		              "a time in the token is not a number of seconds");
	if (now_s - rules->leeway_s >= exp_s)
		return refuse(reason, -EKEYEXPIRED, "the token has expired");
	if (nbf == MOMENT_PRESENT && nbf_s > now_s + rules->leeway_s)
		return refuse(reason, -EKEYEXPIRED, "the token is not valid yet");
	if (iat == MOMENT_PRESENT && iat_s > now_s + rules->leeway_s)
		return refuse(reason, -EKEYEXPIRED, "the token was issued in the future");
	if (rules->max_lifetime_s > 0 && exp_s > now_s + rules->max_lifetime_s + rules->leeway_s)
		return refuse(reason, -EKEYREJECTED,
		              "the token is valid for longer than is accepted");
	p->expires_s = exp_s + rules->leeway_s;
	p->issued_s = iat == MOMENT_PRESENT ? iat_s : INT64_MIN;
	return 0;
}

/* ---- whose and for whom -------------------------------------------------------------- */

static bool is_text(const json_t *j, const char *s)
{
	return json_is_string(j) && strcmp(json_string_value(j), s) == 0;
}

static bool is_one_of(const json_t *j, const struct strlist *l)
{
	return json_is_string(j) && strlist_has(l, json_string_value(j));
}

static bool is_for(const json_t *aud, const struct strlist *audience)
{
	for (size_t i = 0; i < json_array_size(aud); i++)
		if (is_one_of(json_array_get(aud, i), audience))
			return true;
	return is_one_of(aud, audience);
}

static int check_parties(const struct claim_rules *rules, const json_t *claims, const char **reason)
{
	if (rules->issuer && !is_text(json_member(claims, "iss"), rules->issuer))
		return refuse(reason, -EKEYREJECTED, "the token is from another issuer");
	if (rules->audience && !is_for(json_member(claims, "aud"), rules->audience))
		return refuse(reason, -EKEYREJECTED, "the token is for another audience");
	return 0;
}

/* ---- named claims -------------------------------------------------------------------- */

/* A member of that name, dots and all (`https://example.com/roles`), else a path. */
static const json_t *find_claim(const json_t *claims, const char *name)
{
	const json_t *j = json_member(claims, name);
	const char *dot;

	if (j)
		return j;
	for (j = claims; (dot = strchr(name, '.')); name = dot + 1) {
		j = json_object_getn(j, name, (size_t)(dot - name));
		if (!j)
			return NULL;
	}
	return json_member(j, name);
}

static bool get_text(const json_t *j, const char **ret)
{
	if (!json_is_string(j) ||
	    !is_plain_text(json_string_value(j), json_string_length(j), IDENTITY_SUBJECT_MAX))
		return false;
	*ret = json_string_value(j);
	return true;
}

int claims_add_roles(struct role_set *r, const char *s, size_t n, bool scopes)
{
	const char *end = s + n;

	while (s < end) {
		const char *word = s;
		int err;

		while (s < end && *s != ',' && !(scopes && *s == ' '))
			s++;
		const char *stop = s;
		while (word < stop && *word == ' ')
			word++;
		while (stop > word && stop[-1] == ' ')
			stop--;
		if (stop > word) {
			err = role_set_add(r, word, (size_t)(stop - word));
			if (err < 0)
				return err;
		}
		s += s < end;
	}
	return 0;
}

static int get_roles(const json_t *j, bool scopes, struct role_set *r)
{
	if (!j || json_is_null(j))
		return 0;
	if (json_is_string(j))
		return claims_add_roles(r, json_string_value(j), json_string_length(j), scopes);
	if (!json_is_array(j))
		return -EINVAL;
	for (size_t i = 0; i < json_array_size(j); i++) {
		const json_t *e = json_array_get(j, i);
		int err;

		if (!json_is_string(e))
			return -EINVAL;
		err = role_set_add(r, json_string_value(e), json_string_length(e));
		if (err < 0)
			return err;
	}
	return 0;
}

static int check_names(const struct claim_rules *rules, const json_t *claims,
                       struct identity_parts *p, const char **reason)
{
	const json_t *jti = json_member(claims, "jti");
	const char *sub;

	if (!get_text(find_claim(claims, rules->subject), &p->subject) ||
	    (rules->sub && !get_text(json_member(claims, "sub"), &sub)))
		return refuse(reason, -EKEYREJECTED, "the token has no usable subject");
	if (get_roles(find_claim(claims, rules->roles), rules->scopes, p->roles) < 0)
		return refuse(reason, -EKEYREJECTED, "the token has no usable roles");
	p->token_id = "";
	/* One that cannot be named cannot be revoked. */
	if (jti && !get_text(jti, &p->token_id))
		return refuse(reason, -EKEYREJECTED, "the token has no usable jti");
	return 0;
}

/* ---- all together -------------------------------------------------------------------- */

/* Members that are different in each token of one user. */
static const char *const fleeting[] = {"exp", "nbf", "iat", "jti"};

static int make_identity(json_t *claims, struct identity_parts *p, struct identity **ret,
                         const char **reason)
{
	_cleanup_free_ char *text = NULL;
	/* They may lie in what is removed below. */
	_cleanup_free_ char *token_id = strdup(p->token_id);
	_cleanup_free_ char *subject = strdup(p->subject);

	for (size_t i = 0; i < ELEMENTSOF(fleeting); i++)
		json_object_del(claims, fleeting[i]);
	text = json_dumps(claims, JSON_COMPACT | JSON_SORT_KEYS);
	if (!text || !token_id || !subject)
		return refuse(reason, -ENOMEM, "out of memory");
	p->claims = text;
	p->token_id = token_id;
	p->subject = subject;
	*ret = identity_new(p);
	return *ret ? 0 : refuse(reason, -ENOMEM, "out of memory");
}

int claims_identify(const struct claim_rules *rules, const void *text, size_t n, int64_t now_s,
                    struct identity **ret, const char **reason)
{
	_cleanup_json_ json_t *claims = json_object_parse(text, n, AUTH_CLAIMS_DEPTH_MAX);
	struct role_set roles = {.count = 0};
	struct identity_parts p = {.kind = rules->kind, .roles = &roles, .origin = rules->origin};
	int r;

	if (!claims)
		return refuse(reason, -EBADMSG, "the claims are not a JSON object");
	r = check_times(rules, claims, now_s, &p, reason);
	if (r == 0)
		r = check_parties(rules, claims, reason);
	if (r == 0)
		r = check_names(rules, claims, &p, reason);
	return r < 0 ? r : make_identity(claims, &p, ret, reason);
}

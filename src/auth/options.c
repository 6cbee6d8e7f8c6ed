#include "settings.h"

void auth_options_init(struct auth_options *o)
{
	*o = (struct auth_options){
	    .mode = AUTH_TOKEN,
	    .jwt_claims = {.subject = xstrdup("sub"), .roles = xstrdup("roles")},
	    .cookie_claims = {.subject = xstrdup("sub"), .roles = xstrdup("role")},
	    .leeway_s = AUTH_LEEWAY_S,
	};
}

static void secrets_done(struct auth_secrets *s)
{
	secret_unref(&s->given);
	strlist_done(&s->files);
}

static void claims_done(struct auth_claims *c)
{
	free(c->subject);
	free(c->roles);
	*c = (struct auth_claims){.subject = NULL};
}

void auth_options_done(struct auth_options *o)
{
	strlist_done(&o->algorithms);
	secrets_done(&o->jwt_secret);
	strlist_done(&o->key_files);
	free(o->jwks_file);
	free(o->issuer);
	o->jwks_file = o->issuer = NULL;
	strlist_done(&o->audience);
	claims_done(&o->jwt_claims);
	secrets_done(&o->nextauth_secret);
	claims_done(&o->cookie_claims);
}

/* ---- copying ------------------------------------------------------------------------- */

static struct strlist copy_list(const struct strlist *l)
{
	struct strlist c = {.item = NULL};

	for (size_t i = 0; i < l->count; i++)
		strlist_add(&c, l->item[i], strlen(l->item[i]));
	return c;
}

static char *copy_text(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static struct auth_secrets copy_secrets(const struct auth_secrets *s)
{
	return (struct auth_secrets){
	    .given = s->given ? secret_ref(s->given) : NULL,
	    .files = copy_list(&s->files),
	};
}

static struct auth_claims copy_claims(const struct auth_claims *c)
{
	return (struct auth_claims){copy_text(c->subject), copy_text(c->roles)};
}

void auth_options_copy(struct auth_options *to, const struct auth_options *from)
{
	*to = (struct auth_options){
	    .mode = from->mode,
	    .algorithms = copy_list(&from->algorithms),
	    .jwt_secret = copy_secrets(&from->jwt_secret),
	    .key_files = copy_list(&from->key_files),
	    .jwks_file = copy_text(from->jwks_file),
	    .issuer = copy_text(from->issuer),
	    .audience = copy_list(&from->audience),
	    .jwt_claims = copy_claims(&from->jwt_claims),
	    .nextauth_secret = copy_secrets(&from->nextauth_secret),
	    .cookie_claims = copy_claims(&from->cookie_claims),
	    .leeway_s = from->leeway_s,
	    .max_lifetime_s = from->max_lifetime_s,
	};
}

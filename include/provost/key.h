/*
 * key: a request for an endpoint as bytes, for the cache and for whoever wants the same answer.
 *
 * The endpoint's prefix (name, NUL, fingerprint) and then per parameter, in the order of their
 * declaration, a 0 byte for NULL, or a 1 byte, PostgreSQL's text and a NUL; then likewise `:body`,
 * where the statement asks for it, and of who is calling, what the endpoint varies by: subject,
 * roles, claims. Requests that normalise to the same values have the same key, no two others have,
 * and the values can be read back out of it. Pure functions.
 */
#ifndef PROVOST_KEY_H
#define PROVOST_KEY_H

#include "provost/buf.h"
#include "provost/endpoint.h"
#include "provost/values.h"

/* Sets the endpoint's prefix: when everything is known that its answers depend on. */
void key_seal(struct endpoint *e);

/* Who is calling, in texts; NULL where nobody is. */
struct key_caller {
	const char *subject, *roles, *claims;
};

/* Appends the key to `out`; -ENOMEM when it is full. */
int key_build(const struct endpoint *e, const struct values *v, const struct key_caller *caller,
              struct buf *out) _must_check_;

/* Points `value`, one per parameter of the endpoint, `ret_body` and `ret_caller` (or NULL) into the
 * key's bytes: text or NULL, as is what the endpoint does not ask for or vary by. */
void key_values(const struct endpoint *e, const void *key, size_t len, const char **value,
                const char **ret_body, struct key_caller *ret_caller);

/* The name of the endpoint whose key it is; NUL-terminated, within the key. */
const char *key_endpoint(const void *key);

#endif

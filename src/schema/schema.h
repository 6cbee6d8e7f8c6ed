/*
 * schema: Provost's own schema in the database, for those who administer it.
 *
 * The text is src/schema/schema.sql, which leaves alone what is there already; a comment on the
 * schema says of which version it is. Blocks; for commands, not for the server.
 */
#ifndef PROVOST_SCHEMA_H
#define PROVOST_SCHEMA_H

#include "provost/errors.h"

enum { SCHEMA_VERSION = 3 };

struct admin;

/* What installing runs. */
void schema_print(FILE *to);
/* Installs the schema, brings an earlier one up to date, or repairs this version's, in one
 * transaction. `*ret_before`: the version that was there, -1 for none. -EINVAL with an error, and
 * nothing changed: also where the schema, or something in it, is another role's (superusers aside),
 * or others may create objects there. Warns on stderr of others who may write API keys. */
int schema_install(struct admin *a, int *ret_before, struct errors *errs) _must_check_;

#endif

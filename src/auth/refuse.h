/*
 * refuse: why somebody is not let in: an errno, and the static text that may be told.
 */
#ifndef PROVOST_AUTH_REFUSE_H
#define PROVOST_AUTH_REFUSE_H

static inline int refuse(const char **reason, int err, const char *why)
{
	*reason = why;
	return err;
}

#endif

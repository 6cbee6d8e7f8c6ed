/* RFC 9457. */
#include <string.h>

#include "http_impl.h"

const char *status_title(unsigned status)
{
	const char *phrase = MHD_get_reason_phrase_for(status);
	return phrase ? phrase : "Error";
}

static void member(struct buf *b, const char *name, const char *value)
{
	buf_add_json_string(b, name, strlen(name));
	buf_addc(b, ':');
	buf_add_json_string(b, value, strlen(value));
}

/* All but the closing brace. */
static void open_typed(struct buf *b, const char *id, unsigned status, const char *type,
                       const char *title, const char *detail)
{
	buf_addc(b, '{');
	member(b, "type", type);
	buf_addc(b, ',');
	member(b, "title", title);
	buf_addf(b, ",\"status\":%u,", status);
	member(b, "detail", detail);
	buf_addc(b, ',');
	member(b, "instance", id);
	buf_addc(b, ',');
	member(b, "message", detail);
}

/* The type about:blank says no more than the status, and has its title (section 4.2.1). */
static void open_plain(struct buf *b, const char *id, unsigned status, const char *detail)
{
	open_typed(b, id, status, "about:blank", status_title(status), detail);
}

void problem_text(struct buf *b, const char *id, unsigned status, const char *detail)
{
	open_plain(b, id, status, detail);
	buf_addc(b, '}');
}

/* The body's members alone are no matter of the request's syntax. */
static const char *say_bad_values(const struct values *v, unsigned status)
{
	if (status == 422)
		return v->errors == 1 ? "A member of the body is not valid."
		                      : "Several members of the body are not valid.";
	if (v->errors > 1)
		return "Several parameters are not valid.";
	return v->error[0].in == IN_BODY ? "The body is not valid." : "A parameter is not valid.";
}

unsigned problem_of_values(struct buf *b, const char *id, const struct values *v)
{
	unsigned status = values_only_members_wrong(v) ? 422 : 400;
	open_plain(b, id, status, say_bad_values(v, status));
	buf_adds(b, ",\"errors\":[");
	for (size_t i = 0; i < v->errors; i++) {
		const struct value_error *e = &v->error[i];
		buf_adds(b, i ? ",{" : "{");
		member(b, "name", e->name);
		buf_addc(b, ',');
		member(b, "in", param_in_name(e->in));
		buf_addc(b, ',');
		member(b, "reason", e->reason);
		buf_addc(b, '}');
	}
	buf_adds(b, "]}");
	return status;
}

/* What a program must be able to tell from other failures has a type of its own. */
static void open_failure(struct buf *b, const char *id, const struct answer *a, unsigned status,
                         const char *detail)
{
	if (a->outcome == OUTCOME_UNKNOWN)
		open_typed(b, id, status, "urn:provost:outcome-unknown", "Outcome Unknown", detail);
	else if (a->outcome == OUTCOME_ANSWER_LOST)
		open_typed(b, id, status, "urn:provost:answer-lost", "Answer Lost", detail);
	else
		open_plain(b, id, status, detail);
}

unsigned problem_of_answer(struct buf *b, const char *id, const struct answer *a, bool development)
{
	const char *detail;
	unsigned status = status_of_answer(a, &detail);
	open_failure(b, id, a, status, detail);
	if (a->outcome == OUTCOME_SQL_ERROR && development) {
		buf_adds(b, ",\"database\":{");
		member(b, "sqlstate", a->sqlstate);
		buf_addc(b, ',');
		member(b, "message", a->message ? a->message : "");
		buf_addc(b, '}');
	}
	buf_addc(b, '}');
	return status;
}

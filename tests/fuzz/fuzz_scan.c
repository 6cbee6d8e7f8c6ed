/*
 * Any bytes: the scanner reads nothing behind its input, its findings lie in it in order, and after
 * the parameters are numbered a second scan sees the very same tokens: none of ours, all of the
 * rest.
 */
#include <string.h>

#include "provost/buf.h"
#include "provost/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_places(const char *sql, size_t len, const struct scan_result *r)
{
	size_t before = 0;

	ALWAYS(r->end > 0 && r->end <= len);
	for (size_t i = 0; i < r->params; i++) {
		const struct scan_param *p = &r->param[i];

		ALWAYS(p->start >= before && p->end > p->start + 1 && p->end <= r->end);
		ALWAYS(sql[p->start] == ':');
		before = p->end;
	}
}

/* Names become an operand without a colon. */
static void rewrite(const char *sql, const struct scan_result *r, struct buf *out)
{
	size_t from = 0;

	for (size_t i = 0; i < r->params; i++) {
		buf_add(out, sql + from, r->param[i].start - from);
		buf_adds(out, " 0 ");
		from = r->param[i].end;
	}
	buf_add(out, sql + from, r->end - from);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *sql = xcalloc(size ? size : 1, 1);
	_cleanup_buf_ struct buf out = {0};
	struct scan_result r = {0}, again = {0};
	const char *why = NULL;
	size_t pos = 0;

	memcpy(sql, data, size);
	if (scan_sql(sql, size, &r, &pos, &why) < 0) {
		ALWAYS(why && pos <= size);
		return 0;
	}
	check_places(sql, size, &r);
	rewrite(sql, &r, &out);
	ALWAYS(scan_sql(out.data, out.len, &again, &pos, &why) == 0);
	ALWAYS(again.params == 0);
	scan_result_done(&again);
	scan_result_done(&r);
	return 0;
}

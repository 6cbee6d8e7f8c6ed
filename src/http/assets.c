#include <string.h>

#include "http_impl.h"
#include "provost/asset.h"

/* Scripts, styles, pictures and connections of this server alone; nothing inline, nothing framed,
 * nowhere to send a form. The page keeps a token, so whatever could be brought into it is kept out.
 */
static const char PAGE_POLICY[] =
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/* Asked for again each time, which a 304 answers: page, client and server are of one version. */
static const char CACHE_CONTROL[] = "no-cache";

static const struct asset *asset_of(struct request *q)
{
	const struct slice path = q->parsed.path;
	const size_t skip = strlen(ASSETS_PREFIX);
	return path.n > skip ? asset_find(path.p + skip, path.n - skip) : NULL;
}

bool assets_has(struct request *q)
{
	return asset_of(q) != NULL;
}

static unsigned available(struct request *q, const struct asset *a)
{
	unsigned bits = 1u << CODING_IDENTITY;
	if (a->gzip.bytes)
		bits |= http_live(http_of(q))->codings & 1u << CODING_GZIP;
	return bits;
}

static enum MHD_Result send_asset(struct request *q, const struct asset *a, unsigned coding,
                                  bool known)
{
	const struct asset_bytes *b = coding == CODING_GZIP ? &a->gzip : &a->identity;
	char etag[ETAG_MAX];
	struct MHD_Response *r = response_over(b->bytes, b->len, NULL, NULL);
	if (!r)
		return MHD_NO;
	q->sent = known ? 0 : b->len;
	respond_add(q, r, known ? NULL : a->type, CACHE_CONTROL);
	cors_add(q, r, false, NULL);
	etag_format(a->hash, coding, etag);
	MHD_add_response_header(r, "ETag", etag);
	MHD_add_response_header(r, "Vary", "Accept-Encoding");
	if (coding != CODING_IDENTITY && !known)
		MHD_add_response_header(r, "Content-Encoding", coding_name(coding));
	if (a->is_page) {
		MHD_add_response_header(r, "Content-Security-Policy", PAGE_POLICY);
		MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
	}
	return respond_queue(q, known ? 304 : 200, r);
}

enum MHD_Result assets_answer(struct request *q)
{
	const struct asset *a = asset_of(q);
	unsigned there = available(q, a);
	unsigned coding = accept_choose(&q->head.accept, there);
	unsigned known = respond_known(q, a->hash) & there;
	if (known)
		coding = none_match_pick(known, coding);
	return send_asset(q, a, coding, known);
}

/* Relative, so that it holds behind a proxy that has the server under a path of its own. */
enum MHD_Result assets_redirect(struct request *q)
{
	bool in_folder = q->parsed.path.p[q->parsed.path.n - 1] == '/';
	struct MHD_Response *r = response_over("", 0, NULL, NULL);
	if (!r)
		return MHD_NO;
	respond_add(q, r, NULL, CACHE_CONTROL);
	MHD_add_response_header(r, "Location", in_folder ? "demo.html" : "client/demo.html");
	return respond_queue(q, 302, r);
}

#include <string.h>

#include "http_impl.h"

void allow_format(unsigned methods, char out[ALLOW_MAX])
{
	out[0] = '\0';
	for (unsigned m = 0; m < METHOD_COUNT; m++) {
		if (!(methods & 1u << m))
			continue;
		strcat(out, method_name(m));
		strcat(out, m == METHOD_GET ? ", HEAD, " : ", ");
	}
	strcat(out, "OPTIONS");
}

void cors_add(struct request *q, struct MHD_Response *r, bool preflight, const char *methods)
{
	const struct http_live *live = http_live(http_of(q));
	const char *origin = q->head.origin;
	if (live->origins.count == 0)
		return;
	MHD_add_response_header(r, "Vary", "Origin");
	if (!origin || !strlist_has(&live->origins, origin))
		return;
	MHD_add_response_header(r, "Access-Control-Allow-Origin", origin);
	MHD_add_response_header(r, "Access-Control-Allow-Credentials", "true");
	if (!preflight) {
		MHD_add_response_header(r, "Access-Control-Expose-Headers",
		                        "ETag, Age, Cache-Status, X-Request-Id, "
		                        "Server-Timing, Retry-After");
		return;
	}
	MHD_add_response_header(r, "Access-Control-Allow-Methods", methods);
	MHD_add_response_header(r, "Access-Control-Allow-Headers",
	                        "Authorization, Content-Type, If-None-Match, X-Request-Id");
	MHD_add_response_header(r, "Access-Control-Max-Age", "600");
}

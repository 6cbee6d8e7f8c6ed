#include <string.h>

#include "provost/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Any bytes give either a configuration or errors, and a configuration is like itself. The printed
 * differences from the defaults walk through every way of formatting. */
static void ignore(void *arg, const char *section, const char *key, const char *from,
                   const char *to, bool restart)
{
	ALWAYS(section && key && from && to);
}

static struct config *defaults(void)
{
	static struct config *c;
	static char url[] = "DATABASE_URL=postgresql://db/main";
	static char *const env[] = {url, NULL};

	if (!c) {
		struct errors *errs = errors_new();

		c = config_parse(NULL, "", 0, env, errs);
		ALWAYS(c);
		errors_free(&errs);
	}
	return c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *const env[] = {NULL};
	struct errors *errs = errors_new();
	struct config *c = config_parse("fuzz.ini", (const char *)data, size, env, errs);

	ALWAYS((c == NULL) == (errors_count(errs) > 0));
	if (c) {
		ALWAYS(config_diff(c, c, NULL, NULL) == 0);
		config_diff(c, defaults(), ignore, NULL);
	}
	for (size_t i = 0; errors_text(errs, i); i++)
		ALWAYS(strncmp(errors_text(errs, i), "fuzz.ini:", 9) == 0);
	config_free(&c);
	errors_free(&errs);
	return 0;
}

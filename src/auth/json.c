#include "json.h"

#include <malloc.h>
#include <pthread.h>
#include <sodium.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void wipe_and_free(void *p)
{
	if (p)
		sodium_memzero(p, malloc_usable_size(p));
	free(p);
}

static void set_functions(void)
{
	json_set_alloc_funcs(malloc, wipe_and_free);
}

void json_wipe_freed(void)
{
	pthread_once(&once, set_functions);
}

/* Before parsing, so that jansson's recursion is bounded by us. Brackets within strings do not
 * count; whether the text is JSON at all is not the question here. */
static bool is_too_deep(const char *s, size_t n, unsigned max)
{
	unsigned depth = 0;
	bool string = false;

	for (size_t i = 0; i < n; i++) {
		if (string) {
			if (s[i] == '\\')
				i++;
			else if (s[i] == '"')
				string = false;
		} else if (s[i] == '"') {
			string = true;
		} else if (s[i] == '{' || s[i] == '[') {
			if (++depth > max)
				return true;
		} else if ((s[i] == '}' || s[i] == ']') && depth > 0) {
			depth--;
		}
	}
	return false;
}

json_t *json_object_parse(const void *text, size_t n, unsigned depth)
{
	json_t *j;

	if (is_too_deep(text, n, depth))
		return NULL;
	j = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
	if (j && !json_is_object(j)) {
		json_decref(j);
		j = NULL;
	}
	return j;
}

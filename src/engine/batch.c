#include "provost/engine.h"

void engine_submit_batch(struct engine *e, const struct ask *a, struct waiter *const *w, int *ret,
                         size_t n)
{
	for (size_t i = 0; i < n; i++)
		ret[i] = engine_submit(e, &a[i], w[i]);
}

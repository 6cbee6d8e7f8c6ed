#include <string.h>

#include "percent.h"
#include "router.h"

struct route_node {
	char *text;                /* decoded; NULL in the root and in parameters */
	struct route_node **child; /* static, sorted by text */
	size_t children;
	struct route_node *param;
	const struct endpoint *endpoint[METHOD_COUNT];
};

struct route_node *router_new(void)
{
	return xcalloc(1, sizeof(struct route_node));
}

void router_free(struct route_node **root)
{
	struct route_node *node = *root;

	if (!node)
		return;
	for (size_t i = 0; i < node->children; i++)
		router_free(&node->child[i]);
	router_free(&node->param);
	free(node->child);
	free(node->text);
	free(node);
	*root = NULL;
}

/* The child called `text`, made where it is missing. */
static struct route_node *static_child(struct route_node *node, const char *text)
{
	struct route_node *child;
	size_t at = 0;

	for (; at < node->children; at++) {
		int r = strcmp(node->child[at]->text, text);

		if (r == 0)
			return node->child[at];
		if (r > 0)
			break;
	}
	child = router_new();
	child->text = xstrdup(text);
	node->child = xrealloc(node->child, node->children + 1, sizeof(struct route_node *));
	memmove(node->child + at + 1, node->child + at,
	        (node->children - at) * sizeof(struct route_node *));
	node->child[at] = child;
	node->children++;
	return child;
}

const struct endpoint *router_add(struct route_node *root, const struct endpoint *e)
{
	struct route_node *node = root;

	for (size_t i = 0; i < e->segments; i++) {
		if (!e->segment[i].param) {
			node = static_child(node, e->segment[i].text);
			continue;
		}
		if (!node->param)
			node->param = router_new();
		node = node->param;
	}
	if (node->endpoint[e->method])
		return node->endpoint[e->method];
	node->endpoint[e->method] = e;
	return NULL;
}

struct search {
	struct slice segment[ENDPOINT_PATH_SEGMENTS_MAX];
	size_t segments;
	struct slice param[ENDPOINT_PATH_SEGMENTS_MAX]; /* of the way to the node at hand */
	size_t params;
	enum method method;
	struct route_match *ret;
};

/* Splits at slashes. False for what no route has: empty segments, or too many. */
static bool split(struct slice path, struct search *s)
{
	const char *p = path.p, *end = p + path.n;

	if (path.n == 0 || *p != '/')
		return false;
	while (p < end) {
		const char *start = ++p;

		while (p < end && *p != '/')
			p++;
		if (p == start || s->segments == ENDPOINT_PATH_SEGMENTS_MAX)
			return false;
		s->segment[s->segments++] = (struct slice){start, (size_t)(p - start)};
	}
	return true;
}

/* The order of a raw segment, decoded, and a text. A broken escape sorts high and equals nothing.
 */
static int compare_segment(struct slice raw, const char *text)
{
	size_t i = 0;

	for (; *text; text++) {
		int c;

		if (i == raw.n)
			return -1;
		c = percent_next(raw, &i, false);
		if (c != (unsigned char)*text)
			return c < 0 || c > (unsigned char)*text ? 1 : -1;
	}
	return i < raw.n;
}

static const struct route_node *find_static(const struct route_node *node, struct slice raw)
{
	size_t low = 0, high = node->children;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int r = compare_segment(raw, node->child[middle]->text);

		if (r == 0)
			return node->child[middle];
		if (r < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

static void reached(struct search *s, const struct route_node *node)
{
	struct route_match *ret = s->ret;

	for (unsigned m = 0; m < METHOD_COUNT; m++)
		if (node->endpoint[m])
			ret->methods |= 1u << m;
	if (ret->endpoint || !node->endpoint[s->method])
		return;
	ret->endpoint = node->endpoint[s->method];
	ret->paths = s->params;
	memcpy(ret->path, s->param, s->params * sizeof(*s->param));
}

/* All ways to the path's end, the preferred one first: Allow needs the methods of all of them. */
static void walk(struct search *s, const struct route_node *node, size_t depth)
{
	const struct route_node *child;

	if (depth == s->segments) {
		reached(s, node);
		return;
	}
	child = find_static(node, s->segment[depth]);
	if (child)
		walk(s, child, depth + 1);
	if (node->param) {
		s->param[s->params++] = s->segment[depth];
		walk(s, node->param, depth + 1);
		s->params--;
	}
}

void catalog_route(const struct catalog *c, enum method m, struct slice path,
                   struct route_match *ret)
{
	struct search s = {.method = m, .ret = ret};

	ALWAYS((size_t)m < METHOD_COUNT);
	ret->endpoint = NULL;
	ret->methods = 0;
	ret->paths = 0;
	if (split(path, &s))
		walk(&s, c->root, 0);
}

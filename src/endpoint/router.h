/*
 * router: a trie of path segments. Internal to src/endpoint.
 *
 * Built by one thread while loading, immutable after. Nodes borrow the endpoints. Depth is at most
 * ENDPOINT_PATH_SEGMENTS_MAX, which bounds the recursion over it; a path visits each node at most
 * once.
 */
#ifndef PROVOST_ENDPOINT_ROUTER_H
#define PROVOST_ENDPOINT_ROUTER_H

#include "provost/catalog.h"

struct route_node;

struct route_node *router_new(void);
void router_free(struct route_node **root);

/* NULL when added, otherwise the endpoint that has this method and shape already. */
const struct endpoint *router_add(struct route_node *root, const struct endpoint *e);

#endif

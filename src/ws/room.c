#include <errno.h>
#include <string.h>

#include "hub_impl.h"

static const char TABLE[] = "table:", USER[] = "user:", ROLE[] = "role:";

static bool begins(const char *s, size_t n, const char *with)
{
	return n >= strlen(with) && !memcmp(s, with, strlen(with));
}

/* ---- names --------------------------------------------------------------------------- */

bool hub_room_is_word(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		if (!letter && !(c >= '0' && c <= '9') && c != '_' && c != '.' && c != '-')
			return false;
	}
	return n > 0 && n <= HUB_ROOM_WORD_MAX;
}

static bool has_control(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7F)
			return true;
	return false;
}

/* `NAME` or `NAME:ID`, neither empty. */
static bool is_table(const char *s, size_t n)
{
	const char *colon = memchr(s, ':', n);
	size_t name = colon ? (size_t)(colon - s) : n;
	return name > 0 && name != n - 1;
}

static void lower(char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] >= 'A' && s[i] <= 'Z')
			s[i] = (char)(s[i] - 'A' + 'a');
}

int room_normalise(const char *name, size_t n, char out[HUB_ROOM_MAX + 1], size_t *ret_n)
{
	bool good;
	if (n == 0 || n > HUB_ROOM_MAX || has_control(name, n) || utf8_length(name, n) < 0)
		return -EINVAL;
	if (begins(name, n, TABLE))
		good = is_table(name + strlen(TABLE), n - strlen(TABLE));
	else if (begins(name, n, USER))
		good = n > strlen(USER) && n - strlen(USER) <= IDENTITY_SUBJECT_MAX;
	else if (begins(name, n, ROLE))
		good = n > strlen(ROLE) && n - strlen(ROLE) <= IDENTITY_ROLE_MAX;
	else
		good = hub_room_is_word(name, n);
	if (!good)
		return -EINVAL;
	memcpy(out, name, n);
	out[n] = '\0';
	if (begins(name, n, ROLE))
		lower(out + strlen(ROLE), n - strlen(ROLE));
	*ret_n = n;
	return 0;
}

/* ---- rights -------------------------------------------------------------------------- */

static bool is_admin(const struct identity *i)
{
	return strlist_has(&i->roles, "admin");
}

static bool permits_word(const struct hub *h, const char *name, const struct identity *i)
{
	for (size_t r = 0; r < h->options.rooms; r++)
		if (!strcmp(h->options.room[r].name, name))
			return identity_allows(i, &h->options.room[r].roles);
	return is_admin(i);
}

bool room_permits(const struct hub *h, const char *name, size_t n, const struct identity *i)
{
	if (begins(name, n, TABLE))
		return is_admin(i);
	if (begins(name, n, USER))
		return !strcmp(name + strlen(USER), i->subject);
	if (begins(name, n, ROLE))
		return strlist_has(&i->roles, name + strlen(ROLE));
	return permits_word(h, name, i);
}

/* ---- rooms --------------------------------------------------------------------------- */

struct room *room_find(const struct hub *h, const char *name, size_t n)
{
	_Static_assert(offsetof(struct room, node) == 0, "a node is its room");
	return (struct room *)names_find(&h->rooms, name, n);
}

static struct room *room_get(struct hub *h, const char *name, size_t n)
{
	struct room *r = room_find(h, name, n);
	if (r)
		return r;
	r = calloc(1, sizeof *r + n + 1);
	if (!r)
		return NULL;
	memcpy(r->name, name, n);
	r->len = (uint32_t)n;
	r->id = ++h->room_id;
	names_add(&h->rooms, &r->node, r->name, n);
	COUNT(h, rooms, 1);
	return r;
}

static void room_put(struct hub *h, struct room *r)
{
	if (r->members > 0)
		return;
	names_remove(&h->rooms, &r->node);
	COUNT(h, rooms, -1);
	free(r->member);
	free(r);
}

/* ---- members ------------------------------------------------------------------------- */

struct member *room_member(const struct session *s, const struct room *r)
{
	for (uint32_t i = 0; i < s->members; i++)
		if (s->member[i]->room == r)
			return s->member[i];
	return NULL;
}

/* Room for one more. */
static int grow(struct member ***array, uint32_t count, uint32_t *cap, uint32_t least)
{
	if (count < *cap)
		return 0;
	uint32_t to = *cap ? *cap * 2 : least;
	struct member **grown = realloc(*array, to * sizeof(struct member *));
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*cap = to;
	return 0;
}

static int enter(struct hub *h, struct session *s, struct room *r)
{
	struct member *m;
	if (grow(&r->member, r->members, &r->cap, 1) < 0 ||
	    grow(&s->member, s->members, &s->cap, 1) < 0 || !(m = malloc(sizeof *m)))
		return -ENOMEM;
	*m = (struct member){
	    .room = r, .session = s, .at = r->members, .since = h->seq, .joined = h->seq};
	r->member[r->members++] = m;
	s->member[s->members++] = m;
	COUNT(h, memberships, 1);
	return 0;
}

int room_join(struct hub *h, struct session *s, const char *name, size_t n)
{
	struct room *r = room_find(h, name, n);
	if (r && room_member(s, r))
		return 0;
	if (s->members >= HUB_ROOMS_PER_CLIENT)
		return -ENOSPC;
	r = room_get(h, name, n);
	if (!r)
		return -ENOMEM;
	int e = enter(h, s, r);
	if (e < 0)
		room_put(h, r);
	return e;
}

void member_free(struct hub *h, struct member *m)
{
	struct room *r = m->room;
	struct session *s = m->session;
	r->member[m->at] = r->member[--r->members];
	r->member[m->at]->at = m->at;
	for (uint32_t i = 0; i < s->members; i++) {
		if (s->member[i] != m)
			continue;
		s->member[i] = s->member[--s->members];
		break;
	}
	free(m);
	COUNT(h, memberships, -1);
	room_put(h, r);
}

void room_leave(struct hub *h, struct session *s, const char *name, size_t n)
{
	struct room *r = room_find(h, name, n);
	struct member *m = r ? room_member(s, r) : NULL;
	if (m)
		member_free(h, m);
}

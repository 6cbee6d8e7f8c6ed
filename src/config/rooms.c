#include "rooms.h"

#include <errno.h>
#include <string.h>

static int refuse(char why[KEY_WHY_MAX], const char *sentence)
{
	snprintf(why, KEY_WHY_MAX, "%s", sentence);
	return -EINVAL;
}

/* Roles, separated by commas; empty ones are left out. */
static void read_roles(const char *text, struct strlist *to)
{
	while (*text) {
		text += strspn(text, ", \t");
		size_t n = strcspn(text, ",");
		size_t len = n;
		while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'))
			len--;
		if (len > 0)
			strlist_add(to, text, len);
		text += n;
	}
}

static struct hub_room *find(const struct hub_options *o, const char *name)
{
	for (size_t i = 0; i < o->rooms; i++)
		if (strcmp(o->room[i].name, name) == 0)
			return &o->room[i];
	return NULL;
}

int rooms_add(struct hub_options *o, const char *name, const char *roles, char why[KEY_WHY_MAX])
{
	struct strlist list = {.item = NULL};

	if (!hub_room_is_word(name, strlen(name)))
		return refuse(why, "a room's name has 1 to 64 of A-Z a-z 0-9 _ . -");
	if (find(o, name))
		return refuse(why, "the room is there already: keep one of them");
	if (o->rooms == CONFIG_ROOMS_MAX)
		return refuse(why, "there are too many rooms");
	read_roles(roles, &list);
	if (list.count == 0)
		return refuse(why, "write roles separated by commas");
	o->room = xrealloc(o->room, o->rooms + 1, sizeof(*o->room));
	o->room[o->rooms++] = (struct hub_room){xstrdup(name), list};
	return 0;
}

/* The order does not matter. */
bool rooms_equal(const struct hub_options *a, const struct hub_options *b)
{
	if (a->rooms != b->rooms)
		return false;
	for (size_t i = 0; i < a->rooms; i++) {
		const struct hub_room *other = find(b, a->room[i].name);

		if (!other || !strlist_equal(&a->room[i].roles, &other->roles))
			return false;
	}
	return true;
}

void rooms_format(const struct hub_options *o, struct buf *out)
{
	for (size_t i = 0; i < o->rooms; i++) {
		buf_addf(out, "%s%s:", i ? "; " : "", o->room[i].name);
		for (size_t r = 0; r < o->room[i].roles.count; r++)
			buf_addf(out, "%s%s", r ? ", " : " ", o->room[i].roles.item[r]);
	}
}

void rooms_done(struct hub_options *o)
{
	for (size_t i = 0; i < o->rooms; i++) {
		free(o->room[i].name);
		strlist_done(&o->room[i].roles);
	}
	free(o->room);
	o->room = NULL;
	o->rooms = 0;
}

/*
 * keys: the one table that describes every key of the configuration, and what its types mean.
 *
 * A row says where a key stands, what it accepts, what it is without being set, when a change takes
 * effect and what it is for; parsing, checking, comparing and every printed form follow it. Private
 * to src/config. Pure functions over the caller's memory.
 */
#ifndef PROVOST_CONFIG_KEYS_H
#define PROVOST_CONFIG_KEYS_H

#include "provost/buf.h"
#include "provost/config.h"

enum key_type {
	KEY_BOOL,     /* bool */
	KEY_INTEGER,  /* unsigned */
	KEY_POWER,    /* unsigned, a power of two */
	KEY_SIZE,     /* int64_t, bytes */
	KEY_DURATION, /* int64_t, ms */
	KEY_SECONDS,  /* int64_t, s; bounds in ms */
	KEY_CHOICE,   /* char *, one of `choices` */
	KEY_ENUM,     /* unsigned or an enum: which of `choices` it is, from 0 */
	KEY_TEXT,     /* char *, NULL when empty */
	KEY_LIST,     /* struct strlist; each one of `choices`, where there are some */
	KEY_LISTEN,   /* char *, checked by http_listen_check */
	KEY_ORIGINS,  /* struct strlist, each in the form in which browsers send it */
	KEY_TARGET,   /* char *, where log lines go */
	KEY_CODINGS,  /* struct compression */
	KEY_URL,      /* char *, as written: url.h makes sense of it */
	KEY_ROOMS, /* the rooms of struct hub_options; the key's name is the operator's: rooms.h */
};

struct key {
	const char *section; /* "endpoint": the key of each [endpoint NAME] */
	const char *name;
	enum key_type type;
	bool restart;     /* a change takes effect at the next start only */
	int64_t min, max; /* inclusive */
	const char *zero; /* 0 is accepted whatever `min` is, and means this; NULL: no such thing */
	const char *choices;  /* KEY_CHOICE, KEY_ENUM, KEY_LIST: separated by ", " */
	const char *each;     /* KEY_TEXT, KEY_LIST: what to write, for people */
	const char *fallback; /* as the file would spell it; NULL: none */
	const char *example;  /* shown where there is no fallback */
	const char *unset;    /* what holds where there is no fallback */
	size_t offset;        /* in struct config; "endpoint": in struct endpoint_override */
	const char *doc;      /* sentences */
};

enum { KEY_TEXT_MAX = 64, KEY_WHY_MAX = 400 };

extern const struct key config_keys[];
extern const size_t config_keys_count;

/* NULL where there is none. */
const struct key *key_find(const char *section, const char *name);
size_t key_index(const struct key *k);
/* The table's own spelling of a section's name, or NULL. */
const char *key_section(const char *name);
bool key_is_endpoint(const struct key *k);
/* Whether the environment comes before it: not where names are the file's own. */
bool key_has_variable(const struct key *k);

/* The nearest known name, or NULL when nothing is near. */
const char *key_nearest(const char *section, const char *name);
const char *key_nearest_section(const char *section);
/* A section that has a key of that name, or NULL. */
const char *key_section_of(const char *name);

/* PROVOST_SECTION_KEY. */
void key_variable(const struct key *k, char out[KEY_TEXT_MAX]);
/* What the key accepts, with units and bounds: "a duration (500ms, 10s, 5m) from 10ms to 1h". */
void key_accepts(const struct key *k, struct buf *out);

void key_format_number(const struct key *k, int64_t v, char out[KEY_TEXT_MAX]);

/* ---- values: src/config/keyvalue.c --------------------------------------------------- */

/* Reads `text` into the key's place in `base`, which holds a valid value before and after. -EINVAL
 * with what to write instead in `why`, and nothing changed. */
int key_set(const struct key *k, void *base, const char *text, char why[KEY_WHY_MAX]) _must_check_;
/* Within the bounds that key_set keeps to. */
bool key_in_bounds(const struct key *k, int64_t v);
/* An endpoint's key that its section leaves out. */
bool key_is_unset(const struct key *k, const void *base);
bool key_equal(const struct key *k, const void *a, const void *b);
/* For a key that only a restart applies. */
void key_copy(const struct key *k, void *to, const void *from);
/* As the file would spell it; a secret is masked. */
void key_format(const struct key *k, const void *base, struct buf *out);
void key_done(const struct key *k, void *base);

#endif

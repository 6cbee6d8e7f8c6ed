#include <string.h>
#include <time.h>

#include "../schema/admin.h"
#include "commands.h"
#include "provost/auth.h"
#include "provost/buf.h"
#include "provost/units.h"

enum { NOTE_MAX = 1000, EXPIRES_MAX_DAYS = 36500, MS_PER_DAY = 86400000, COLUMNS_MAX = 8 };

/* ---- new ----------------------------------------------------------------------------- */

static void add_words(struct strlist *l, const char *text)
{
	for (const char *s = text; *s;) {
		s += strspn(s, ", \t");
		size_t n = strcspn(s, ", \t");
		if (n > 0)
			strlist_add(l, s, n);
		s += n;
	}
}

static int read_expiry(const char *text, int64_t now_s, int64_t *ret_s, struct errors *errs)
{
	int64_t ms;

	*ret_s = 0;
	if (!text)
		return 0;
	if (units_duration(text, &ms) < 0 || ms < 1000 ||
	    ms > (int64_t)EXPIRES_MAX_DAYS * MS_PER_DAY) {
		errors_add(errs, NULL, 0,
		           "--expires %s: write how long the key is to be good for, such as 90d; "
		           "without --expires it does not expire",
		           text);
		return -1;
	}
	*ret_s = now_s + ms / 1000;
	return 0;
}

/* What the server would refuse is not stored: it would refuse all keys with it. */
static bool is_sound(const struct apikey *k, struct errors *errs)
{
	struct auth *a = auth_new();
	_cleanup_errors_ struct errors *why = errors_new();
	int r = auth_keys_set(a, k, 1, why);

	auth_free(&a);
	if (r < 0)
		errors_add(errs, NULL, 0, "such a key cannot be made: %s", errors_text(why, 0));
	return r == 0;
}

static char *joined(const struct strlist *l)
{
	struct buf b = {0};
	char *text;

	for (size_t i = 0; i < l->count; i++)
		buf_addf(&b, "%s%s", i ? "," : "", l->item[i]);
	buf_addc(&b, '\0');
	text = buf_take(&b, NULL);
	ALWAYS(text);
	return text;
}

static int insert(struct admin *a, const struct apikey *k, const char *note, struct errors *errs)
{
	char digest[2 + APIKEY_DIGEST_TEXT_LEN + 1] = "\\x";
	_cleanup_free_ char *roles = joined(&k->roles);
	_cleanup_free_ char *created = xasprintf("%lld", (long long)k->created_s);
	_cleanup_free_ char *expires =
	    k->expires_s ? xasprintf("%lld", (long long)k->expires_s) : NULL;
	const char *const values[] = {k->id, digest, k->subject, roles, created, expires, note};

	apikey_digest_format(k->digest, digest + 2);
	_cleanup_pgresult_ PGresult *r = admin_query(
	    a, "the key cannot be stored",
	    "/* provost */ INSERT INTO provost.api_key"
	    " (id, digest, subject, roles, created_at, expires_at, note) VALUES"
	    " ($1, $2::bytea, $3, string_to_array(lower($4), ','), to_timestamp($5::bigint),"
	    " to_timestamp($6::bigint), coalesce($7, ''))",
	    ELEMENTSOF(values), values, errs);
	return r ? 0 : -1;
}

static void explain(const struct apikey *k, int64_t expires_s)
{
	char date[32] = "never";
	time_t t = (time_t)expires_s;
	struct tm tm;

	if (expires_s && gmtime_r(&t, &tm))
		strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S UTC", &tm);
	fprintf(
	    stderr,
	    "This is the key %s of %s; it expires: %s. It is not shown again, and only its digest\n"
	    "is stored. Running servers accept it within a few seconds. To take it back:\n"
	    "provost key revoke %s\n",
	    k->id, k->subject, date, k->id);
}

static int make(const struct command_line *l, struct apikey *k, struct errors *errs)
{
	_cleanup_admin_ struct admin a = {NULL};
	char text[APIKEY_LEN + 1];
	int r = -1;

	apikey_generate(k, text);
	if (is_sound(k, errs) && command_connect(l, &a, errs) == 0 &&
	    insert(&a, k, l->note, errs) == 0) {
		puts(text);
		r = fflush(stdout) == 0 ? 0 : -1;
		if (r < 0)
			errors_add(
			    errs, NULL, 0,
			    "the key cannot be written to stdout: revoke %s and make another",
			    k->id);
	}
	apikey_wipe(text);
	return r;
}

int command_key_new(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct apikey k = {.created_s = time(NULL)};

	if (!l->subject || !l->roles) {
		fprintf(stderr, "provost key new: say whose it is and what it may: --subject NAME "
		                "--roles admin[,NAME]\n");
		return 2;
	}
	if (l->note && strlen(l->note) > NOTE_MAX) {
		fprintf(stderr, "provost key new: --note has more than %d bytes\n", NOTE_MAX);
		return 2;
	}
	if (read_expiry(l->expires, k.created_s, &k.expires_s, errs) < 0)
		return errors_print(errs, stderr), 2;
	add_words(&k.roles, l->roles);
	if (k.roles.count == 0) {
		fprintf(stderr, "provost key new: a key without a role may do nothing: name one "
		                "with --roles\n");
		return 2;
	}
	k.subject = xstrdup(l->subject);
	int r = make(l, &k, errs);
	if (r == 0)
		explain(&k, k.expires_s);
	apikey_done(&k);
	return r == 0 ? 0 : command_failed(errs);
}

/* ---- list ---------------------------------------------------------------------------- */

static const char LIST[] =
    /* clang-format off */
    "/* provost */ SELECT k.id, k.subject, array_to_string(k.roles, ',') AS roles,"
    " to_char(k.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS created,"
    " coalesce(to_char(k.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), 'never') AS expires,"
    " CASE WHEN k.revoked_at IS NOT NULL OR EXISTS (SELECT FROM provost.revocation r"
    "  WHERE r.kind = 'token' AND r.what = k.id"
    "  OR r.kind = 'subject' AND r.what = k.subject AND k.created_at <= r.issued_before)"
    " THEN 'revoked' WHEN k.expires_at <= now() THEN 'expired' ELSE 'active' END AS state,"
    " k.note FROM provost.api_key k ORDER BY k.created_at, k.id";
/* clang-format on */

static int column_width(const PGresult *r, int column)
{
	ssize_t width = utf8_length(PQfname(r, column), strlen(PQfname(r, column)));

	for (int i = 0; i < PQntuples(r); i++) {
		const char *text = PQgetvalue(r, i, column);
		width = MAX(width, utf8_length(text, strlen(text)));
	}
	return (int)width;
}

static void print_cell(const char *text, int width, bool last)
{
	int n = (int)utf8_length(text, strlen(text));

	printf("%s%*s", text, last ? 0 : width - n + 2, "");
}

static void print_table(const PGresult *r)
{
	int width[COLUMNS_MAX], columns = PQnfields(r);

	ALWAYS(columns <= COLUMNS_MAX);
	for (int c = 0; c < columns; c++)
		width[c] = column_width(r, c);
	for (int i = -1; i < PQntuples(r); i++) {
		for (int c = 0; c < columns; c++)
			print_cell(i < 0 ? PQfname(r, c) : PQgetvalue(r, i, c), width[c],
			           c == columns - 1);
		putchar('\n');
	}
}

int command_key_list(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_admin_ struct admin a = {NULL};
	_cleanup_pgresult_ PGresult *r = NULL;

	if (command_connect(l, &a, errs) == 0)
		r = admin_query(&a, "the keys cannot be read", LIST, 0, NULL, errs);
	if (!r)
		return command_failed(errs);
	print_table(r);
	return 0;
}

/* ---- revoke -------------------------------------------------------------------------- */

static int take_back(const struct command_line *l, struct errors *errs)
{
	_cleanup_admin_ struct admin a = {NULL};
	const char *const values[] = {l->argument};
	_cleanup_pgresult_ PGresult *r = NULL;

	if (command_connect(l, &a, errs) == 0)
		r = admin_query(&a, "the key cannot be revoked",
		                "/* provost */ UPDATE provost.api_key SET revoked_at = now()"
		                " WHERE id = $1 AND revoked_at IS NULL",
		                1, values, errs);
	if (!r)
		return -1;
	if (*PQcmdTuples(r) != '0')
		return 0;
	errors_add(errs, NULL, 0,
	           "no key of the id %s is in force; `provost key list` shows what there is",
	           l->argument);
	return -1;
}

int command_key_revoke(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new();

	if (!l->argument || !apikey_id_valid(l->argument, strlen(l->argument))) {
		/* Not shown: it may be a whole key. */
		fprintf(stderr, "provost key revoke: give the id of a key, the 12 characters "
		                "behind pv_; never the key itself\n");
		return 2;
	}
	if (take_back(l, errs) < 0)
		return command_failed(errs);
	printf("the key %s is revoked; running servers refuse it within a few seconds\n",
	       l->argument);
	return 0;
}

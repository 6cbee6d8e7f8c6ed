#include <string.h>

#include "keys.h"
#include "provost/config.h"

enum { WIDTH = 80 };

/* How much of `text` goes on a line: up to the last blank that leaves it short enough. */
static size_t line_length(const char *text, size_t room)
{
	size_t n = 0;

	for (size_t i = 0; text[i]; i++) {
		if (i > room && n > 0)
			return n;
		if (text[i] == ' ')
			n = i;
	}
	return strlen(text) <= room || n == 0 ? strlen(text) : n;
}

/* `text` in lines of at most WIDTH columns, each behind `prefix`. Texts here are ASCII. */
static void print_wrapped(FILE *to, const char *prefix, const char *text)
{
	while (*text) {
		size_t n = line_length(text, WIDTH - strlen(prefix));

		fprintf(to, "%s%.*s\n", prefix, (int)n, text);
		text += n;
		text += strspn(text, " ");
	}
}

static char *accepts_text(const struct key *k)
{
	struct buf b = {0};
	char *text;

	buf_adds(&b, "Accepts ");
	key_accepts(k, &b);
	text = buf_take(&b, NULL);
	ALWAYS(text);
	return text;
}

static bool begins_section(size_t i)
{
	return i == 0 || strcmp(config_keys[i].section, config_keys[i - 1].section) != 0;
}

static const char *section_title(const struct key *k)
{
	return key_is_endpoint(k) ? "endpoint NAME" : k->section;
}

/* What a key is without being set, for people. */
static const char *fallback_text(const struct key *k)
{
	if (!k->fallback)
		return k->unset;
	return *k->fallback ? k->fallback : "empty";
}

/* ---- --help-config ------------------------------------------------------------------- */

static void help_key(FILE *to, const struct key *k)
{
	_cleanup_free_ char *accepts = accepts_text(k);
	_cleanup_free_ char *about = xasprintf("%s. Default: %s.%s", accepts, fallback_text(k),
	                                       k->restart ? " A change needs a restart." : "");

	fprintf(to, "  %s\n", k->name);
	print_wrapped(to, "      ", k->doc);
	print_wrapped(to, "      ", about);
}

void config_print_help(FILE *to)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		const struct key *k = &config_keys[i];

		if (begins_section(i))
			fprintf(to, "%s[%s]\n", i ? "\n" : "", section_title(k));
		help_key(to, k);
	}
	fputs(
	    "\nA key is overridden by the environment: PROVOST_HTTP_LISTEN is listen of [http].\n",
	    to);
}

/* ---- the sample ---------------------------------------------------------------------- */

static const char sample_head[] =
    "; Provost's configuration. Every key stands here with its default, commented out;\n"
    "; docs/CONFIGURATION.md says more. A line beginning with `;` or `#` is a comment, and\n"
    "; so is what follows a blank and `;` behind a value. The environment comes before this\n"
    "; file: PROVOST_HTTP_LISTEN is listen of [http]. SIGHUP applies changes, except those\n"
    "; marked (restart).\n";

static void sample_key(FILE *to, const struct key *k)
{
	_cleanup_free_ char *accepts = accepts_text(k);
	_cleanup_free_ char *about = xasprintf("%s.%s", accepts, k->restart ? " (restart)" : "");
	const char *value = k->fallback ? k->fallback : k->example;
	/* What would be a room of its own when brought to life is not. */
	const char *comment = k->type == KEY_ROOMS ? "; " : ";";

	fputc('\n', to);
	print_wrapped(to, "; ", k->doc);
	print_wrapped(to, "; ", about);
	fprintf(to, "%s%s =%s%s\n", comment, k->name, *value ? " " : "", value);
}

void config_print_sample(FILE *to)
{
	fputs(sample_head, to);
	for (size_t i = 0; i < config_keys_count; i++) {
		const struct key *k = &config_keys[i];

		if (begins_section(i) && key_is_endpoint(k))
			fputs("\n; What holds for one endpoint, named as its file is below "
			      "endpoints/.\n"
			      ";[endpoint courses/get]\n",
			      to);
		else if (begins_section(i))
			fprintf(to, "\n[%s]\n", k->section);
		sample_key(to, k);
	}
}

/* ---- docs/CONFIGURATION.md ----------------------------------------------------------- */

/* clang-format off */
static const char markdown_head[] =
	"# Configuration\n"
	"\n"
	"Provost reads one ini file, `--config FILE`. Endpoints are read from the folder `endpoints` beside\n"
	"it. `provost check` reads both and reports every mistake with file and line, as the server does\n"
	"before it starts. `config/provost.ini` has every key with its default, commented out, and\n"
	"`provost --help-config` prints them (`=sample` as that file, `=markdown` as this document).\n"
	"\n"
	"## The file\n"
	"\n"
	"```ini\n"
	"; A comment. So is a line that begins with #.\n"
	"[http]\n"
	"listen = 127.0.0.1:8080   ; a comment behind a value: a blank and `;`\n"
	"\n"
	"[endpoint courses/get]\n"
	"timeout = 30s\n"
	"```\n"
	"\n"
	"- Sections are in brackets, keys are `key = value`, blanks around both do not matter. Values are not\n"
	"  quoted and end with the line; a line has at most 4096 bytes, the file at most 1 MiB, in UTF-8.\n"
	"- A section or key that does not exist, a key that is set twice, a value that is not accepted, and\n"
	"  keys that contradict each other are errors, never ignored.\n"
	"- Durations have a unit: `500ms`, `10s`, `5m`, `1h`, `7d`; so have sizes above single bytes: `4096`,\n"
	"  `64KiB`, `16MiB`, `1GiB` (powers of 1024). `0` needs none. Switches are `yes` or `no`.\n"
	"\n"
	"## What comes first\n"
	"\n"
	"1. The environment: `PROVOST_SECTION_KEY`, as `PROVOST_HTTP_LISTEN` for `listen` of `[http]`. An\n"
	"   empty variable counts as unset; a `PROVOST_` variable that is no key is logged and ignored.\n"
	"   `[endpoint NAME]` and `[rooms]` have no variables.\n"
	"2. The file.\n"
	"3. The default.\n"
	"\n"
	"The database's URL is taken from `PROVOST_DATABASE_URL`, then `DATABASE_URL`, then the file. What an\n"
	"ORM's URL says of other keys (below) holds where neither the file nor the environment sets them.\n"
	"\n"
	"Secrets have no key. They are read from the files that `[auth]` names, or from `PROVOST_AUTH_JWT_SECRET`,\n"
	"`PROVOST_AUTH_NEXTAUTH_SECRET` and `NEXTAUTH_SECRET`, whose values are overwritten in the environment once\n"
	"they are read: they do not show in `/proc/PID/environ`, a log or an error, and a change needs a restart. A\n"
	"file is read anew when it changes.\n"
	"\n"
	"## Reload and restart\n"
	"\n"
	"SIGHUP reads everything anew: the file, and the endpoints. If anything is wrong, all of it is logged\n"
	"and nothing changes. Keys marked *restart* keep their value until the next start, and the log says\n"
	"so. The environment is that of the start.\n"
	"\n"
	"## Database URLs\n"
	"\n"
	"`[database] url` takes what libpq takes: a URL, `postgresql://user:password@host:port/database?name=value`,\n"
	"or keywords, `host=/run/postgresql dbname=app user=app`. In a URL, `/`, `@`, `:`, `?`, `#` and `%`\n"
	"inside user or password are written `%2F`, `%40`, `%3A`, `%3F`, `%23` and `%25`. A password is never\n"
	"logged, nor shown in an error.\n"
	"\n"
	"The URL of an ORM may be used as it is: `postgres://` is the same as `postgresql://`, a driver behind a plus\n"
	"(`postgresql+psycopg2://`) is left out, and these parameters are understood besides\n"
	"[libpq's own](https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS):\n"
	"\n"
	"| parameter | what Provost makes of it |\n"
	"|---|---|\n"
	"| `schema=NAME` | `search_path` is that schema alone |\n"
	"| `connection_limit=N`, `pool=N` | `pool_max`, unless that is set |\n"
	"| `pool_timeout=SECONDS` | `acquire_timeout`, unless that is set; 0 is an hour |\n"
	"| `pgbouncer=true`, `statement_cache_size=0`, `prepared_statements=false` | `prepare = no`, unless that is set |\n"
	"| `ssl=true` | `sslmode=require` |\n"
	"| `sslaccept=accept_invalid_certs` | what libpq does unless `sslmode` says otherwise |\n"
	"| `sslaccept=strict` | needs `sslmode=verify-full` (or `verify-ca`) and `sslrootcert=FILE`; an error without |\n"
	"| `sslcert=FILE` | the client's certificate, with `sslkey=FILE`; without it an error, because to Prisma it is the server's, which is `sslrootcert` here |\n"
	"| `sslidentity=FILE` | an error: libpq reads no PKCS#12 |\n"
	"| `socket_timeout`, `max_connection_lifetime`, `max_idle_connection_lifetime`, `single_use_connections` | no effect: `statement_timeout` and `max_lifetime` say it |\n"
	"\n"
	"Any other parameter is an error. A URL for JDBC (`jdbc:postgresql://`) is not understood.\n"
	"\n"
	"## Keys\n";
/* clang-format on */

static void markdown_section(FILE *to, const struct key *k)
{
	fprintf(to, "\n### [%s]\n", section_title(k));
	if (key_is_endpoint(k))
		fputs("\nWhat holds for one endpoint, named as its file is below `endpoints/`, "
		      "without `.sql`.\n"
		      "Each may have one such section.\n",
		      to);
}

static void markdown_key(FILE *to, const struct key *k)
{
	_cleanup_free_ char *accepts = accepts_text(k);
	char variable[KEY_TEXT_MAX];

	fprintf(to, "\n#### `%s`\n\n", k->name);
	print_wrapped(to, "", k->doc);
	fprintf(to, "\n- %s\n", accepts);
	if (k->fallback && *k->fallback)
		fprintf(to, "- Default: `%s`\n", k->fallback);
	else
		fprintf(to, "- Default: %s\n", fallback_text(k));
	if (key_has_variable(k)) {
		key_variable(k, variable);
		fprintf(to, "- Variable: `%s`\n", variable);
	}
	fprintf(to, "- A change takes effect: %s\n", k->restart ? "*restart*" : "on reload");
}

void config_print_markdown(FILE *to)
{
	fputs(markdown_head, to);
	for (size_t i = 0; i < config_keys_count; i++) {
		if (begins_section(i))
			markdown_section(to, &config_keys[i]);
		markdown_key(to, &config_keys[i]);
	}
}

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>

#include "callers.h"
#include "commands/commands.h"
#include "load.h"
#include "pidfile.h"
#include "provost/auth.h"
#include "provost/catalog.h"
#include "provost/config.h"
#include "provost/conn.h"
#include "provost/coverage.h"
#include "provost/delay.h"
#include "provost/engine.h"
#include "provost/identities.h"
#include "provost/log.h"
#include "serve.h"

extern char **environ;

enum { CHECK_TIMEOUT_MS = 30000 };

static void usage(FILE *to)
{
	fputs("provost: SQL files as a JSON API over PostgreSQL\n"
	      "\n"
	      "usage: provost COMMAND [options]\n"
	      "\n"
	      "commands:\n"
	      "  serve           run the server in the foreground until SIGTERM or SIGINT\n"
	      "  check           validate the configuration and every endpoint, also against\n"
	      "                  the database; print all that is wrong; exit 1 if anything is\n"
	      "  reload          check, then tell the running server (--pidfile) to apply it\n"
	      "  schema install  create the schema `provost`, or bring it up to date\n"
	      "  schema print    print its SQL\n"
	      "  key new         make an API key, and print it, once\n"
	      "  key list        list the API keys\n"
	      "  key revoke ID   take one back\n"
	      "  triggers install [TABLE ...]\n"
	      "                  have the database tell of changes of the tables that endpoints\n"
	      "                  read, and of those named: what is not told of is not cached\n"
	      "  triggers print [TABLE ...]\n"
	      "                  print its SQL\n"
	      "  triggers status [TABLE ...]\n"
	      "                  how each table stands; exit 1 unless all are told of\n"
	      "  triggers remove [TABLE ...]\n"
	      "                  remove them, from the tables named or from all\n"
	      "  grants print    print SQL that gives a role what the server needs, no more\n"
	      "  version         print the version\n"
	      "\n"
	      "  schema, triggers, key and grants are for the owner of the database, not for\n"
	      "  the role that the server runs as.\n"
	      "\n"
	      "options:\n"
	      "  --config FILE         the configuration (default: config/provost.ini);\n"
	      "                        endpoints are read from `endpoints/` beside it\n"
	      "  --test-echo           serve: WebSockets at /echo get every message back, so that\n"
	      "                        a conformance client can be pointed at it\n"
	      "  --pidfile FILE        where serve writes its pid and reload reads it\n"
	      "  --database URL        the database, for schema, triggers, key and grants. Every\n"
	      "                        user of the machine can see the arguments of a process:\n"
	      "                        put one with a password into PROVOST_DATABASE_URL\n"
	      "  --subject NAME        key new: whose it is\n"
	      "  --roles admin[,NAME]  key new: what its holder may do\n"
	      "  --expires 90d         key new: how long it is good for (without it: for ever)\n"
	      "  --note TEXT           key new: what `key list` is to say about it\n"
	      "  --role NAME           grants print: the role (default: provost_server)\n"
	      "  --help                this text\n"
	      "  --help-config[=FORM]  every key of the configuration; FORM is text (default),\n"
	      "                        sample (an ini file) or markdown\n"
	      "\n"
	      "signals of a running server:\n"
	      "  SIGHUP             reload configuration and endpoints: all of it or nothing\n"
	      "  SIGTERM, SIGINT    finish the requests that were begun, then exit 0\n"
	      "\n"
	      "environment:\n"
	      "  PROVOST_DATABASE_URL, DATABASE_URL   the database, before [database] url\n"
	      "  PROVOST_SECTION_KEY                  any key, before the file\n"
	      "  PROVOST_AUTH_JWT_SECRET, PROVOST_AUTH_NEXTAUTH_SECRET, NEXTAUTH_SECRET\n"
	      "                                       secrets; wiped once they are read\n"
	      "\n"
	      "exit status: 0 success; 1 something is wrong, and was said; 2 usage\n",
	      to);
}

static int help_config(const char *form)
{
	if (!form || !strcmp(form, "text"))
		config_print_help(stdout);
	else if (!strcmp(form, "sample"))
		config_print_sample(stdout);
	else if (!strcmp(form, "markdown"))
		config_print_markdown(stdout);
	else {
		fprintf(stderr, "provost: --help-config has the forms text, sample and markdown\n");
		return 2;
	}
	return 0;
}

static void say_notes(const struct errors *notes)
{
	for (size_t i = 0; errors_text(notes, i); i++)
		fprintf(stderr, "note: %s\n", errors_text(notes, i));
}

static int command_serve(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new(), *notes = errors_new();
	struct config *config = config_load(command_config_file(l), environ, errs);
	struct catalog *catalog = config ? load_catalog(config, errs) : NULL;
	struct auth *auth = config ? load_auth(config, errs, notes) : NULL;
	if (!catalog || !auth) {
		errors_print(errs, stderr);
		catalog_free(&catalog);
		auth_free(&auth);
		config_free(&config);
		return 1;
	}
	callers_warn(notes);
	return serve(config, catalog, auth,
	             &(struct serve_options){.pidfile = l->pidfile, .test_echo = l->test_echo});
}

/* All that is wrong with who may call. Without the schema the server works, for others than keys.
 */
static void check_auth(const struct config *config, uint64_t deadline_us, struct errors *errs,
                       struct errors *notes)
{
	struct auth *auth = load_auth(config, errs, notes);
	_cleanup_errors_ struct errors *why = errors_new();
	int r = 0;
	if (auth && config->auth.mode != AUTH_NONE)
		r = identities_check(config->pool.url, config->pool.prepare, deadline_us, why);
	/* That the database cannot be reached is said by the endpoints' check. */
	if (r < 0 && r != -ENOTCONN)
		errors_add(r == -ENOENT ? notes : errs, NULL, 0, "%s", errors_text(why, 0));
	auth_free(&auth);
}

/* Without triggers the server works, but caches nothing. */
static void check_coverage(const struct config *config, const struct catalog *catalog,
                           uint64_t deadline_us, struct errors *notes)
{
	_cleanup_errors_ struct errors *ignored = errors_new();
	_cleanup_conn_ struct conn *conn =
	    conn_open(config->pool.url, config->pool.prepare, -1, deadline_us, ignored);
	if (conn)
		(void)!coverage_check(catalog, conn, deadline_us, notes);
}

/* One line: what its answers are made from. Those of a write are never looked for. */
static void print_dependencies(const struct endpoint *e)
{
	if (e->method != METHOD_GET)
		return;
	printf("  %s: ", e->name);
	if (e->opaque)
		printf("neither cached nor collapsed: %s", e->opaque);
	else if (e->dependencies == 0)
		printf("no table");
	for (size_t i = 0; !e->opaque && i < e->dependencies; i++) {
		const struct dependency *d = &e->dependency[i];
		printf("%s%s", i ? ", " : "", d->table);
		if (d->column)
			printf("(%s=:%s)", d->column, e->param[d->param].name);
	}
	putchar('\n');
}

static int command_check(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new(), *notes = errors_new();
	_cleanup_config_ struct config *config = config_load(command_config_file(l), environ, errs);
	_cleanup_catalog_ struct catalog *catalog = config ? load_good_catalog(config, errs) : NULL;
	uint64_t deadline_us = clock_us() + CHECK_TIMEOUT_MS * 1000ull;
	int r = -EINVAL;
	if (catalog)
		r = engine_describe(catalog, config->pool.url, config->pool.prepare, -1,
		                    deadline_us, errs);
	if (r == 0)
		check_coverage(config, catalog, deadline_us, notes);
	if (config)
		check_auth(config, deadline_us, errs, notes);
	say_notes(notes);
	if (errors_count(errs) > 0) {
		errors_print(errs, stderr);
		fprintf(stderr, "%zu error%s\n", errors_count(errs),
		        errors_count(errs) == 1 ? "" : "s");
		return 1;
	}
	for (size_t i = 0; i < catalog->endpoints; i++)
		print_dependencies(catalog->endpoint[i]);
	printf("%s: good; %zu endpoint%s checked against the database\n", command_config_file(l),
	       catalog->endpoints, catalog->endpoints == 1 ? "" : "s");
	return 0;
}

/* Looks again before it signals: the server may have ended while its files were checked. */
static int find_server(const char *pidfile, pid_t *ret)
{
	int r = pidfile_read(pidfile, ret);
	if (r == -ESRCH)
		fprintf(stderr,
		        "provost reload: the server does not run: process %ld left %s behind\n",
		        (long)*ret, pidfile);
	else if (r < 0)
		fprintf(stderr, "provost reload: no pid in %s; does the server run?\n", pidfile);
	return r;
}

static int command_reload(const struct command_line *l)
{
	pid_t pid;
	if (!l->pidfile) {
		fprintf(stderr, "provost reload: say which server with --pidfile FILE\n");
		return 2;
	}
	if (find_server(l->pidfile, &pid) < 0)
		return 1;
	int r = command_check(l);
	if (r != 0)
		return r;
	if (find_server(l->pidfile, &pid) < 0)
		return 1;
	if (kill(pid, SIGHUP) < 0) {
		fprintf(stderr, "provost reload: cannot signal process %ld: %s\n", (long)pid,
		        strerror(errno));
		return 1;
	}
	printf("process %ld was told to reload; its log says whether it did, or why not\n",
	       (long)pid);
	return 0;
}

static int command_version(const struct command_line *l)
{
	(void)l;
	puts("provost " PROVOST_VERSION);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(const struct command_line *);
	bool argument; /* takes one word more */
	bool words;    /* takes any number */
} COMMANDS[] = {
    {"serve", command_serve},
    {"check", command_check},
    {"reload", command_reload},
    {"schema install", command_schema_install},
    {"schema print", command_schema_print},
    {"key new", command_key_new},
    {"key list", command_key_list},
    {"key revoke", command_key_revoke, .argument = true},
    {"grants print", command_grants_print},
    {"triggers install", command_triggers_install, .words = true},
    {"triggers print", command_triggers_print, .words = true},
    {"triggers remove", command_triggers_remove, .words = true},
    {"triggers status", command_triggers_status, .words = true},
    {"version", command_version},
};

static const struct option OPTIONS[] = {
    {"config", required_argument, NULL, 'c'},
    {"pidfile", required_argument, NULL, 'p'},
    {"database", required_argument, NULL, 'd'},
    {"subject", required_argument, NULL, 's'},
    {"roles", required_argument, NULL, 'R'},
    {"expires", required_argument, NULL, 'e'},
    {"note", required_argument, NULL, 'n'},
    {"role", required_argument, NULL, 'r'},
    {"help", no_argument, NULL, 'h'},
    {"help-config", optional_argument, NULL, 'H'},
    {"version", no_argument, NULL, 'v'},
    {"test-echo", no_argument, NULL, 'E'},
    {NULL, 0, NULL, 0},
};

/* An option with a value. */
static void take_option(struct command_line *l, int c, char *value)
{
	switch (c) {
	case 'c':
		l->config = value;
		break;
	case 'p':
		l->pidfile = value;
		break;
	case 'd':
		/* So that all there is to be known of URLs stays in one place. */
		setenv("PROVOST_DATABASE_URL", value, 1);
		/* There may be a password in it, and others see the arguments. */
		memset(value, 'x', strlen(value));
		l->database = true;
		break;
	case 's':
		l->subject = value;
		break;
	case 'R':
		l->roles = value;
		break;
	case 'e':
		l->expires = value;
		break;
	case 'n':
		l->note = value;
		break;
	case 'r':
		l->role = value;
		break;
	}
}

/* Whether the words begin with the command's name; how many words that has. */
static int words_of(const char *name, char **word, int words)
{
	const char *blank = strchr(name, ' ');
	size_t n = blank ? (size_t)(blank - name) : strlen(name);

	if (strlen(word[0]) != n || strncmp(word[0], name, n) != 0)
		return 0;
	if (!blank)
		return 1;
	return words > 1 && strcmp(word[1], blank + 1) == 0 ? 2 : 0;
}

/* The delays and broken rules of tests/consistency, in builds that have them. */
static int set_delays(void)
{
#ifdef WITH_DELAYS
	_cleanup_errors_ struct errors *errs = errors_new();
	if (delay_setup(getenv("PROVOST_DELAYS"), getenv("PROVOST_BREAK"), errs) < 0) {
		errors_print(errs, stderr);
		return 1;
	}
	fputs("provost: this build has delays for tests: it is not for use\n", stderr);
#endif
	return 0;
}

/* Names what begins with the same word, where something does. */
static int unknown_command(char **word, int words)
{
	size_t n = strlen(word[0]);
	const char *before = " (but ";

	fprintf(stderr, "provost: there is no command \"%s%s%s\"", word[0], words > 1 ? " " : "",
	        words > 1 ? word[1] : "");
	for (size_t i = 0; i < ELEMENTSOF(COMMANDS); i++) {
		const char *name = COMMANDS[i].name;
		if (strncmp(name, word[0], n) != 0 || name[n] != ' ')
			continue;
		fprintf(stderr, "%s`%s`", before, name);
		before = ", ";
	}
	fprintf(stderr, "%s; provost --help says what there is\n", *before == ',' ? ")" : "");
	return 2;
}

static int run_command(struct command_line *l, char **word, int words)
{
	for (size_t i = 0; i < ELEMENTSOF(COMMANDS); i++) {
		int n = words_of(COMMANDS[i].name, word, words);
		if (n == 0)
			continue;
		if (words > n + COMMANDS[i].argument && !COMMANDS[i].words) {
			fprintf(stderr,
			        "provost %s takes no further word; provost --help says what "
			        "there is\n",
			        COMMANDS[i].name);
			return 2;
		}
		if (set_delays() != 0)
			return 1;
		l->argument = words > n ? word[n] : NULL;
		for (int k = n; k < words; k++)
			strlist_add(&l->words, word[k], strlen(word[k]));
		conn_global_init();
		int status = COMMANDS[i].run(l);
		strlist_done(&l->words);
		return status;
	}
	return unknown_command(word, words);
}

static int run(int argc, char **argv)
{
	struct command_line l = {.config = NULL};
	int c;
	while ((c = getopt_long(argc, argv, "h", OPTIONS, NULL)) != -1) {
		switch (c) {
		case 'h':
			usage(stdout);
			return 0;
		case 'H':
			return help_config(optarg);
		case 'v':
			return command_version(&l);
		case 'E':
			l.test_echo = true;
			break;
		case '?':
			fprintf(stderr, "provost --help says what there is\n");
			return 2;
		default:
			take_option(&l, c, optarg);
		}
	}
	if (optind == argc) {
		usage(stderr);
		return 2;
	}
	return run_command(&l, argv + optind, argc - optind);
}

/* What was asked for is there in full, or the exit status says that it is not. */
static int finish_output(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	fprintf(stderr, "provost: what there is to say cannot be written: %s\n", strerror(errno));
	return status ? status : 1;
}

int main(int argc, char **argv)
{
	return finish_output(run(argc, argv));
}

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>

#include "pidfile.h"
#include "provost/catalog.h"
#include "provost/config.h"
#include "provost/conn.h"
#include "provost/engine.h"
#include "serve.h"

extern char **environ;

enum { CHECK_TIMEOUT_MS = 30000 };

struct command_line {
	const char *config;
	const char *pidfile;
};

static void usage(FILE *to)
{
	fputs("provost: SQL files as a JSON API over PostgreSQL\n"
	      "\n"
	      "usage: provost COMMAND [options]\n"
	      "\n"
	      "commands:\n"
	      "  serve      run the server in the foreground until SIGTERM or SIGINT\n"
	      "  check      validate the configuration and every endpoint, also against the\n"
	      "             database; print all that is wrong; exit 1 if anything is\n"
	      "  reload     check, then tell the running server (--pidfile) to apply it\n"
	      "  version    print the version\n"
	      "\n"
	      "options:\n"
	      "  --config FILE         the configuration (default: config/provost.ini);\n"
	      "                        endpoints are read from `endpoints/` beside it\n"
	      "  --pidfile FILE        where serve writes its pid and reload reads it\n"
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

static int command_serve(const struct command_line *l)
{
	_cleanup_errors_ struct errors *errs = errors_new();
	struct config *config = config_load(l->config, environ, errs);
	struct catalog *catalog = config ? serve_load_catalog(config, errs) : NULL;
	if (!catalog) {
		errors_print(errs, stderr);
		config_free(&config);
		return 1;
	}
	return serve(config, catalog, l->pidfile);
}

/* One line: what its answers are made from. */
static void print_dependencies(const struct endpoint *e)
{
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
	_cleanup_errors_ struct errors *errs = errors_new();
	_cleanup_config_ struct config *config = config_load(l->config, environ, errs);
	_cleanup_catalog_ struct catalog *catalog = config ? serve_load_good(config, errs) : NULL;
	if (catalog)
		(void)!engine_describe(catalog, config->pool.url, config->pool.prepare, -1,
		                       clock_us() + CHECK_TIMEOUT_MS * 1000ull, errs);
	if (errors_count(errs) > 0) {
		errors_print(errs, stderr);
		fprintf(stderr, "%zu error%s\n", errors_count(errs),
		        errors_count(errs) == 1 ? "" : "s");
		return 1;
	}
	for (size_t i = 0; i < catalog->endpoints; i++)
		print_dependencies(catalog->endpoint[i]);
	printf("%s: good; %zu endpoint%s checked against the database\n", l->config,
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
	printf("process %ld was told to reload; its log says what changed\n", (long)pid);
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
} COMMANDS[] = {
    {"serve", command_serve},
    {"check", command_check},
    {"reload", command_reload},
    {"version", command_version},
};

static const struct option OPTIONS[] = {
    {"config", required_argument, NULL, 'c'}, {"pidfile", required_argument, NULL, 'p'},
    {"help", no_argument, NULL, 'h'},         {"help-config", optional_argument, NULL, 'H'},
    {"version", no_argument, NULL, 'v'},      {NULL, 0, NULL, 0},
};

int main(int argc, char **argv)
{
	struct command_line l = {.config = "config/provost.ini"};
	int c;
	while ((c = getopt_long(argc, argv, "h", OPTIONS, NULL)) != -1) {
		switch (c) {
		case 'c':
			l.config = optarg;
			break;
		case 'p':
			l.pidfile = optarg;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'H':
			return help_config(optarg);
		case 'v':
			return command_version(&l);
		default:
			fprintf(stderr, "provost --help says what there is\n");
			return 2;
		}
	}
	if (optind + 1 != argc) {
		usage(stderr);
		return 2;
	}
	conn_global_init();
	for (size_t i = 0; i < ELEMENTSOF(COMMANDS); i++)
		if (!strcmp(argv[optind], COMMANDS[i].name))
			return COMMANDS[i].run(&l);
	fprintf(stderr, "provost: there is no command \"%s\"; provost --help says what there is\n",
	        argv[optind]);
	return 2;
}

/*
 * malloc_count: to be preloaded, counts calls of malloc, calloc, realloc and strdup by thread and
 * by the object (program or library) that calls, in the file that MALLOC_COUNT_FILE names. Whoever
 * maps or reads that file sees the counts as they grow; tests/bench/hit_cost does.
 *
 * glibc only. What is loaded with dlopen after the start counts as "other".
 */
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { OBJECTS = 64, THREADS = 64, NAME = 64 };

/* Read by hit_cost: little-endian, no padding. Object 0 is "other"; thread 0 all beyond THREADS. */
struct counts {
	char object[OBJECTS][NAME];
	struct {
		_Atomic uint64_t tid;
		_Atomic uint64_t calls[OBJECTS];
	} thread[THREADS];
};

static struct counts *counts; /* NULL: nothing is counted yet, or at all */
static struct {
	uintptr_t from, to;
} range[OBJECTS];
static unsigned objects = 1;
static _Atomic unsigned threads = 1;
static __thread unsigned slot __attribute__((tls_model("initial-exec")));

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static int add_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	const char *slash = strrchr(info->dlpi_name, '/');
	const char *name = *info->dlpi_name ? info->dlpi_name : "provost";
	struct counts *c = arg;
	if (objects == OBJECTS)
		return 1;
	range[objects].from = UINTPTR_MAX;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t from = info->dlpi_addr + p->p_vaddr;
		if (p->p_type != PT_LOAD)
			continue;
		if (from < range[objects].from)
			range[objects].from = from;
		if (from + p->p_memsz > range[objects].to)
			range[objects].to = from + p->p_memsz;
	}
	strncpy(c->object[objects++], slash ? slash + 1 : name, NAME - 1);
	return 0;
}

__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("MALLOC_COUNT_FILE");
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (fd < 0)
		return;
	struct counts *c = MAP_FAILED;
	if (ftruncate(fd, sizeof *c) == 0)
		c = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (c == MAP_FAILED)
		return;
	strcpy(c->object[0], "other");
	dl_iterate_phdr(add_object, c);
	counts = c;
}

static unsigned thread_slot(void)
{
	if (slot)
		return slot;
	unsigned n = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed);
	if (n >= THREADS)
		return 0;
	counts->thread[n].tid = (uint64_t)gettid();
	return slot = n;
}

static void count(const void *caller)
{
	uintptr_t at = (uintptr_t)caller;
	unsigned o = objects;
	if (!counts)
		return;
	while (--o > 0)
		if (at >= range[o].from && at < range[o].to)
			break;
	atomic_fetch_add_explicit(&counts->thread[thread_slot()].calls[o], 1, memory_order_relaxed);
}

void *malloc(size_t n)
{
	count(__builtin_return_address(0));
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
	count(__builtin_return_address(0));
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
	count(__builtin_return_address(0));
	return __libc_realloc(p, n);
}

/* libc's own would be counted as libc's. */
char *strdup(const char *s)
{
	size_t n = strlen(s) + 1;
	count(__builtin_return_address(0));
	char *copy = __libc_malloc(n);
	return copy ? memcpy(copy, s, n) : NULL;
}

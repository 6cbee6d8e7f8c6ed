#include "provost/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

enum { SECRET_MAGIC = 0x53454352 };

struct secret {
	unsigned magic;
	atomic_uint refs;
	size_t len;
	unsigned char *bytes; /* from sodium_malloc, read-only */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init(void)
{
	ALWAYS(sodium_init() >= 0);
}

/* Takes `bytes` over. */
static struct secret *wrap(unsigned char *bytes, size_t n)
{
	struct secret *s = malloc(sizeof *s);

	if (!s) {
		sodium_free(bytes);
		return NULL;
	}
	*s = (struct secret){.magic = SECRET_MAGIC, .len = n, .bytes = bytes};
	atomic_init(&s->refs, 1);
	sodium_mprotect_readonly(bytes);
	return s;
}

struct secret *secret_new(const void *bytes, size_t n)
{
	unsigned char *p;

	pthread_once(&once, init);
	if (n == 0 || n > SECRET_MAX)
		return NULL;
	p = sodium_malloc(n);
	if (!p)
		return NULL;
	memcpy(p, bytes, n);
	return wrap(p, n);
}

struct secret *secret_take(char *text)
{
	size_t n = strlen(text);
	struct secret *s = secret_new(text, n);

	sodium_memzero(text, n);
	return s;
}

static ssize_t read_full(int fd, unsigned char *to, size_t max)
{
	size_t len = 0;

	while (len < max) {
		ssize_t n = read(fd, to + len, max - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

static int read_secret(int fd, struct secret **ret)
{
	/* One byte more than may be there, to tell whether there is more. */
	unsigned char *p = sodium_malloc(SECRET_MAX + 1);
	ssize_t n;
	struct secret *s = NULL;

	if (!p)
		return -ENOMEM;
	n = read_full(fd, p, SECRET_MAX + 1);
	if (n > 0 && n <= SECRET_MAX)
		s = secret_new(p, (size_t)n);
	sodium_free(p);
	if (n < 0)
		return (int)n;
	if (n == 0)
		return -ENODATA;
	if (n > SECRET_MAX)
		return -EFBIG;
	if (!s)
		return -ENOMEM;
	*ret = s;
	return 0;
}

int secret_read_file(const char *path, struct secret **ret, bool *ret_shared)
{
	/* Without O_NONBLOCK a named pipe would hold whoever loads for ever. */
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int r;

	pthread_once(&once, init);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EISDIR;
	if (st.st_mode & S_IWOTH)
		return -EPERM;
	r = read_secret(fd, ret);
	if (r == 0 && ret_shared)
		*ret_shared = (st.st_mode & S_IROTH) != 0;
	return r;
}

struct secret *secret_ref(struct secret *s)
{
	CHECK_MAGIC(s, SECRET_MAGIC);
	/* Relaxed: whoever raises it already holds the object. */
	atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
	return s;
}

void secret_unref(struct secret **sp)
{
	struct secret *s = *sp;

	*sp = NULL;
	if (!s)
		return;
	CHECK_MAGIC(s, SECRET_MAGIC);
	/* Release what this thread did with it, acquire what all others did, before it is freed. */
	if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1)
		return;
	s->magic = 0;
	sodium_free(s->bytes); /* zeroes */
	free(s);
}

const unsigned char *secret_bytes(const struct secret *s)
{
	CHECK_MAGIC(s, SECRET_MAGIC);
	return s->bytes;
}

size_t secret_len(const struct secret *s)
{
	CHECK_MAGIC(s, SECRET_MAGIC);
	return s->len;
}

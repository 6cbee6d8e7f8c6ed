#include "pidfile.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

enum { LOCK_TRIES = 5, LOCK_RETRY_MS = 10 };

/* Who reads the file holds a shared lock for a moment, hence more than one try. */
static int lock(int fd)
{
	const struct timespec retry = {.tv_nsec = LOCK_RETRY_MS * 1000000};
	for (unsigned n = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; n++) {
		if (errno != EWOULDBLOCK || n == LOCK_TRIES)
			return -errno;
		nanosleep(&retry, NULL);
	}
	return 0;
}

/* Whether the path still leads to what was locked: its last holder may have removed it. */
static bool is_at(const char *path, int fd)
{
	struct stat a, b;
	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

int pidfile_lock(const char *path)
{
	for (;;) {
		_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
		if (fd < 0)
			return -errno;
		int r = lock(fd);
		if (r < 0)
			return r;
		if (!is_at(path, fd))
			continue;
		if (ftruncate(fd, 0) < 0)
			return -errno;
		int ret = fd;
		fd = -1;
		return ret;
	}
}

int pidfile_write(int fd)
{
	return dprintf(fd, "%d\n", (int)getpid()) < 0 ? -errno : 0;
}

void pidfile_remove(const char *path, int fd)
{
	if (fd < 0)
		return;
	(void)unlink(path);
	close(fd);
}

int pidfile_read(const char *path, pid_t *ret)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	long pid;
	if (!f || fscanf(f, "%ld", &pid) != 1 || pid <= 1)
		return -ENOENT;
	*ret = (pid_t)pid;
	return flock(fileno(f), LOCK_SH | LOCK_NB) == 0 ? -ESRCH : 0;
}

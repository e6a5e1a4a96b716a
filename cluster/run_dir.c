/* Whoever has the lock of a file that is still the one at its path has the directory. */
#include "cluster/run_dir.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_TRIES   5
#define LOCK_WAIT_US 10000

static bool is_file_at(int fd, const char *path)
{
    struct stat open_one, there;
    return fstat(fd, &open_one) == 0 && stat(path, &there) == 0 &&
           open_one.st_ino == there.st_ino && open_one.st_dev == there.st_dev;
}

/* Whether this call made it, which is asked of the system, since two may try at once. */
static int make_dir(const char *dir, bool *made)
{
    *made = mkdir(dir, 0777) == 0;
    if (*made || errno != ENOENT)
        return *made ? 0 : lh_fs_mkdirs(dir); /* with its sentence */
    char *parent = NULL;
    LH_TRY(lh_mem_strdup(&parent, dir));
    size_t n = strlen(parent);
    while (n > 1 && parent[n - 1] == '/')
        n--;
    while (n > 1 && parent[n - 1] != '/')
        n--;
    parent[n] = '\0';
    int rc = lh_fs_mkdirs(parent);
    lh_mem_free(parent);
    LH_TRY(rc);
    *made = mkdir(dir, 0777) == 0;
    return *made ? 0 : lh_fs_mkdirs(dir);
}

/* Who looks whether the lock is held holds it himself for a moment (run_watch.c). */
static int take_lock(int fd)
{
    int rc;
    for (int tries = 0; (rc = flock(fd, LOCK_EX | LOCK_NB)) != 0 && tries < LOCK_TRIES; tries++) {
        if (errno != EWOULDBLOCK)
            break;
        usleep(LOCK_WAIT_US);
        errno = EWOULDBLOCK;
    }
    return rc;
}

int lh_run_dir_open(struct lh_run_dir *d, const char *path)
{
    char *lock = NULL;
    *d = (struct lh_run_dir){.path = path, .lock = -1};
    LH_TRY(make_dir(path, &d->made));
    LH_TRY(lh_run_dir_in(d, ".lock", &lock));
    int rc = 0;
    d->lock = open(lock, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (d->lock < 0)
        rc = lh_err_errno(errno, "%s", lock);
    else if (take_lock(d->lock) == 0)
        d->locked = is_file_at(d->lock, lock); /* not so if its owner gave up just now */
    else if (errno != EWOULDBLOCK)
        rc = lh_err_errno(errno, "%s", lock);
    if (rc == 0 && !d->locked)
        rc = lh_err_set(LH_EBUSY, "%s: another scheduler works on this run", path);
    lh_mem_free(lock);
    return rc;
}

void lh_run_dir_close(struct lh_run_dir *d, bool remove)
{
    if (remove && d->made && d->locked)
        lh_fs_remove_tree(d->path);
    if (d->lock >= 0)
        close(d->lock);
    *d = (struct lh_run_dir){.lock = -1};
}

int lh_run_dir_in(const struct lh_run_dir *d, const char *name, char **out)
{
    return lh_mem_printf(out, "%s/%s", d->path, name);
}

int lh_run_dir_write(const struct lh_run_dir *d, const char *name, const char *text)
{
    char *path = NULL;
    LH_TRY(lh_run_dir_in(d, name, &path));
    int rc = lh_fs_replace_file(path, text, strlen(text), true);
    lh_mem_free(path);
    return rc;
}

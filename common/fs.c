/* Files and directories. A partial directory's owner is known by a file lock, which the kernel
 * frees when the process dies however it dies; a process id alone may be in use again. */
#include "common/fs.h"

#include "common/err.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int lh_fs_mkdirs(const char *path)
{
    char *copy;
    int rc = 0;
    LH_TRY(lh_mem_strdup(&copy, path));
    for (char *at = copy + 1; *copy; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char c = *at;
        *at = '\0';
        if (mkdir(copy, 0777) < 0 && errno != EEXIST) {
            rc = lh_err_errno(errno, "%s: cannot make this directory", copy);
            break;
        }
        *at = c;
        if (c == '\0')
            break;
    }
    lh_mem_free(copy);
    return rc;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

int lh_fs_remove_tree(const char *path)
{
    if (!lh_fs_exists(path))
        return 0;
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        return lh_err_errno(errno, "%s: cannot remove", path);
    return 0;
}

bool lh_fs_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

int lh_fs_write(int fd, const void *data, size_t n, const char *path)
{
    const char *p = data;
    while (n > 0) {
        ssize_t got = write(fd, p, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return lh_err_errno(got < 0 ? errno : EIO, "%s: cannot write", path);
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

int lh_fs_pwrite(int fd, const void *data, size_t n, uint64_t offset, const char *path)
{
    const char *p = data;
    while (n > 0) {
        ssize_t got = pwrite(fd, p, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return lh_err_errno(got < 0 ? errno : EIO, "%s: cannot write", path);
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

int lh_fs_read_file(char **out, size_t *n, const char *path, size_t max)
{
    char *text = NULL;
    size_t used = 0, cap = 0;
    int rc;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return lh_err_errno(errno, "%s", path);
    for (;;) {
        LH_TRY_TO(fail, LH_GROW(&text, &cap, used + 65536, path));
        ssize_t got = read(fd, text + used, cap - used - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            rc = lh_err_errno(errno, "%s: cannot read", path);
            goto fail;
        }
        if (got == 0)
            break;
        used += (size_t)got;
        if (used > max) {
            rc = lh_err_set(LH_EFORMAT, "%s: larger than %zu bytes; it is not what it should be",
                            path, max);
            goto fail;
        }
    }
    close(fd);
    text[used] = '\0';
    *out = text;
    if (n)
        *n = used;
    return 0;
fail:
    close(fd);
    lh_mem_free(text);
    return rc;
}

static int sync_close(int fd, const char *path)
{
    int e = fsync(fd) < 0 ? errno : 0;
    if (close(fd) < 0 && e == 0)
        e = errno;
    return e ? lh_err_errno(e, "%s: cannot make it durable", path) : 0;
}

static int write_file(const char *path, const void *data, size_t n, bool durable)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return lh_err_errno(errno, "%s: cannot create", path);
    int rc = lh_fs_write(fd, data, n, path);
    if (rc >= 0 && durable)
        return sync_close(fd, path);
    if (close(fd) < 0 && rc >= 0)
        rc = lh_err_errno(errno, "%s: cannot write", path);
    return rc;
}

int lh_fs_write_file(const char *path, const void *data, size_t n)
{
    return write_file(path, data, n, true);
}

static int parent_of(const char *target, char **out)
{
    const char *slash = strrchr(target, '/');
    if (!slash)
        return lh_mem_strdup(out, ".");
    return lh_mem_printf(out, "%.*s", slash == target ? 1 : (int)(slash - target), target);
}

int lh_fs_replace_file(const char *path, const void *data, size_t n, bool durable)
{
    char *aside = NULL, *parent = NULL;
    int rc;
    LH_TRY_TO(done, lh_mem_printf(&aside, "%s.partial", path));
    LH_TRY_TO(done, parent_of(path, &parent)); /* nothing but I/O may fail after the rename */
    LH_TRY_TO(done, write_file(aside, data, n, durable));
    if (rename(aside, path) != 0) {
        rc = lh_err_errno(errno, "%s: cannot take the place of the old one", path);
        goto done;
    }
    if (durable)
        rc = lh_fs_sync_dir(parent);
done:
    if (rc < 0 && aside)
        unlink(aside);
    lh_mem_free(aside);
    lh_mem_free(parent);
    return rc;
}

int lh_fs_sync_all(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return lh_err_errno(errno, "%s", dir);
    int e = syncfs(fd) < 0 ? errno : 0;
    close(fd);
    return e ? lh_err_errno(e, "%s: cannot make it durable", dir) : 0;
}

int lh_fs_sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return lh_err_errno(errno, "%s", path);
    return sync_close(fd, path);
}

/* --- partial directories -------------------------------------------------------------------- */

/* Takes the lock of a partial directory; *fd is -1 if another process holds it. */
static int take_lock(const char *dir, bool create, int *fd)
{
    char *path;
    *fd = -1;
    LH_TRY(lh_mem_printf(&path, "%s/.lock", dir));
    *fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0666);
    int rc = 0;
    if (*fd < 0) {
        rc = lh_err_errno(errno, "%s", path);
    } else if (flock(*fd, LOCK_EX | LOCK_NB) < 0) {
        close(*fd);
        *fd = -1;
    }
    lh_mem_free(path);
    return rc;
}

/* A directory without a lock file is between two system calls of its owner's begin or commit, or
 * its owner died there: the process id in its name decides. */
static bool owner_is_dead(const char *path)
{
    const char *dash = strrchr(path, '-');
    long pid = dash ? strtol(dash + 1, NULL, 10) : 0;
    return pid > 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/* Removes what dead processes left beside the target. Failing to is no reason to stop. */
static int clean_dead(const char *target)
{
    char *pattern;
    glob_t found;
    LH_TRY(lh_mem_printf(&pattern, "%s.partial-*", target));
    if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            int fd, rc = take_lock(found.gl_pathv[i], false, &fd);
            if (fd >= 0 || (rc == LH_ENOENT && owner_is_dead(found.gl_pathv[i])))
                lh_fs_remove_tree(found.gl_pathv[i]);
            if (fd >= 0)
                close(fd);
        }
        globfree(&found);
    }
    lh_mem_free(pattern);
    lh_err_clear();
    return 0;
}

static int check_target(const char *target, bool replace, const char *marker)
{
    if (!lh_fs_exists(target))
        return 0;
    char *path;
    LH_TRY(lh_mem_printf(&path, "%s/%s", target, marker));
    bool known = lh_fs_exists(path);
    lh_mem_free(path);
    if (known)
        return replace ? 0
                       : lh_err_set(LH_EEXIST,
                                    "%s: already exists; replace it with --force, or choose "
                                    "another name",
                                    target);
    return replace
               ? lh_err_set(LH_EEXIST, "%s: has no %s, so it is not replaced; remove it yourself",
                            target, marker)
               : lh_err_set(LH_EEXIST, "%s: already exists; choose another name or remove it first",
                            target);
}

int lh_fs_partial_begin(struct lh_fs_partial *p, const char *target, bool replace,
                        const char *marker)
{
    *p = (struct lh_fs_partial){.lock = -1, .replace = replace};
    int rc;
    LH_TRY(lh_mem_strdup(&p->target, target));
    size_t n = strlen(p->target);
    while (n > 1 && p->target[n - 1] == '/')
        p->target[--n] = '\0';
    if (n == 0) {
        rc = lh_err_set(LH_EUSAGE, "an empty path is no place for a result");
        goto fail;
    }
    LH_TRY_TO(fail, check_target(p->target, replace, marker));
    char *slash = strrchr(p->target, '/');
    if (slash && slash != p->target) {
        *slash = '\0';
        rc = lh_fs_mkdirs(p->target);
        *slash = '/';
        if (rc < 0)
            goto fail;
    }
    LH_TRY_TO(fail, clean_dead(p->target));
    char *path;
    LH_TRY_TO(fail, lh_mem_printf(&path, "%s.partial-%ld", p->target, (long)getpid()));
    if (mkdir(path, 0777) < 0) {
        rc = errno == EEXIST
                 ? lh_err_set(LH_EBUSY, "%s: in use; wait for its owner or remove it", path)
                 : lh_err_errno(errno, "%s: cannot make this directory", path);
        lh_mem_free(path);
        goto fail;
    }
    p->path = path;
    LH_TRY_TO(fail, take_lock(path, true, &p->lock));
    if (p->lock < 0) {
        rc = lh_err_set(LH_EBUSY, "%s: locked by another process", path);
        goto fail;
    }
    return 0;
fail:
    lh_fs_partial_abort(p);
    return rc;
}

static void forget(struct lh_fs_partial *p)
{
    if (p->lock >= 0 && p->target)
        close(p->lock);
    lh_mem_free(p->path);
    lh_mem_free(p->target);
    *p = (struct lh_fs_partial){.lock = -1};
}

int lh_fs_partial_commit(struct lh_fs_partial *p)
{
    int rc;
    char *lock = NULL, *parent = NULL;
    LH_TRY_TO(fail, lh_mem_printf(&lock, "%s/.lock", p->path));
    LH_TRY_TO(fail, parent_of(p->target, &parent)); /* nothing but I/O may fail after the rename */
    if (unlink(lock) < 0) {
        rc = lh_err_errno(errno, "%s: cannot remove", lock);
        goto fail;
    }
    LH_TRY_TO(fail, lh_fs_sync_dir(p->path));
    bool exchanged = false;
    int got;
    if (p->replace && lh_fs_exists(p->target)) {
        got = renameat2(AT_FDCWD, p->path, AT_FDCWD, p->target, RENAME_EXCHANGE);
        exchanged = got == 0;
    } else {
        got = renameat2(AT_FDCWD, p->path, AT_FDCWD, p->target, RENAME_NOREPLACE);
        if (got < 0 && errno == EINVAL) /* a file system without the flag */
            got = rename(p->path, p->target);
    }
    if (got < 0) {
        rc = lh_err_errno(errno, "%s: cannot be moved to %s", p->path, p->target);
        goto fail;
    }
    rc = lh_fs_sync_dir(parent);
    if (exchanged)
        lh_fs_remove_tree(p->path);
    lh_mem_free(parent);
    lh_mem_free(lock);
    forget(p);
    return rc;
fail:
    lh_mem_free(parent);
    lh_mem_free(lock);
    lh_fs_partial_abort(p);
    return rc;
}

void lh_fs_partial_abort(struct lh_fs_partial *p)
{
    if (p->path) {
        struct lh_err saved;
        lh_err_save(&saved, 0);
        lh_fs_remove_tree(p->path);
        lh_err_load(&saved);
    }
    forget(p);
}

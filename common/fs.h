/* Files and directories: the few calls that everything durable is made of, with the sentences of
 * their failures. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int lh_fs_mkdirs(const char *path); /* and its parents; one that exists is fine */

/* Removes a file or a directory with all in it, symbolic links not followed; a missing path is
 * fine. */
int lh_fs_remove_tree(const char *path);

bool lh_fs_exists(const char *path); /* symbolic links not followed */

/* All of n bytes or an error. `path` is for the sentence. */
int lh_fs_write(int fd, const void *data, size_t n, const char *path);
int lh_fs_pwrite(int fd, const void *data, size_t n, uint64_t offset, const char *path);

/* A whole file, NUL-terminated behind its n bytes; the caller frees. Errors: LH_ENOENT, LH_EACCES,
 * LH_EIO, LH_EFORMAT if larger than `max`. */
int lh_fs_read_file(char **out, size_t *n, const char *path, size_t max);

/* Creates or overwrites, fsyncs. Not atomic: for files inside a partial directory. */
int lh_fs_write_file(const char *path, const void *data, size_t n);

/* Writes PATH.partial and renames it to PATH, so that a reader sees the old file or the new one and
 * never a half. `durable`: and so that this holds after a crash too (fsync of file and directory).
 * On failure the old one stays. */
int lh_fs_replace_file(const char *path, const void *data, size_t n, bool durable);

/* Makes everything below a directory durable, and whatever else its file system holds back: for
 * many files one call that is far cheaper than an fsync of each. */
int lh_fs_sync_all(const char *dir);
int lh_fs_sync_dir(const char *path); /* makes names inside it durable */

/* --- a directory that appears whole or not at all ---------------------------------------------
 * Work goes on in "<target>.partial-<pid>", which holds a locked file `.lock`. A partial directory
 * whose lock is free belongs to a process that died: the next begin for the same target removes
 * it. */
struct lh_fs_partial {
    char *target, *path;
    int lock;
    bool replace;
};

/* Errors: LH_EEXIST if the target exists (with `replace`: only if it has no file `marker`, since it
 * is then nothing that may be removed); LH_EBUSY, LH_EACCES, LH_EIO. */
int lh_fs_partial_begin(struct lh_fs_partial *p, const char *target, bool replace,
                        const char *marker);
/* fsyncs the directory and renames it to the target; with `replace` what was there is exchanged in
 * one step and then removed. On failure the partial directory is removed. */
int lh_fs_partial_commit(struct lh_fs_partial *p);
void lh_fs_partial_abort(struct lh_fs_partial *p); /* idempotent; zeroed content allowed */

/* Which files of a table are there, and why. See rowtable_files.h. */
#include "ps/rowtable_files.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "ps/rowtable_run.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct file {
    uint64_t number;
    bool held;
};

struct version {
    uint64_t version;
    uint64_t *runs; /* [n] their numbers */
    uint32_t n;
    bool damaged; /* nobody knows what it names */
};

struct lh_rowtable_files {
    char *dir;
    pthread_mutex_t mutex; /* of what follows */
    struct file *files;
    size_t n_files, cap_files;
    struct version *versions;
    size_t n_versions, cap_versions;
    uint64_t next; /* number no run has had */
};

/* --- names ----------------------------------------------------------------------------------- */

int lh_rowtable_files_dir(char **out, const char *store, const char *name)
{
    return lh_mem_printf(out, "%s/tables/%s", store, name);
}

static int path_of(char **out, const char *dir, uint64_t version)
{
    return lh_mem_printf(out, "%s/v%" PRIu64, dir, version);
}

static bool is_version(const char *name, uint64_t *version)
{
    char again[32];
    if (sscanf(name, "v%20" SCNu64, version) != 1)
        return false;
    snprintf(again, sizeof again, "v%" PRIu64, *version);
    return strcmp(name, again) == 0;
}

int lh_rowtable_files_read(const char *dir, uint64_t version, struct lh_rowtable_version *out)
{
    char *path = NULL, *bytes = NULL;
    size_t n = 0;
    int rc;
    LH_TRY(path_of(&path, dir, version));
    rc = lh_fs_read_file(&bytes, &n, path, lh_rowtable_block_version_size(LH_ROWTABLE_BLOCK_RUNS));
    if (rc >= 0) {
        rc = lh_rowtable_block_read_version(out, bytes, n);
        if (rc >= 0 && out->version != version) {
            lh_mem_free(out->runs);
            rc = lh_err_set(LH_ECORRUPT, "is version %" PRIu64 "; was the file renamed?",
                            out->version);
        }
        if (rc < 0)
            rc = lh_err_prefix(rc, "%s", path);
    }
    lh_mem_free(bytes);
    lh_mem_free(path);
    return rc;
}

/* --- bookkeeping ----------------------------------------------------------------------------- */

static struct file *find(struct lh_rowtable_files *f, uint64_t number)
{
    for (size_t i = 0; i < f->n_files; i++) {
        if (f->files[i].number == number)
            return &f->files[i];
    }
    return NULL;
}

static int enter(struct lh_rowtable_files *f, uint64_t number, bool held)
{
    struct file *file = find(f, number);
    if (file) {
        file->held = held;
        return 0;
    }
    LH_TRY(LH_GROW(&f->files, &f->cap_files, f->n_files + 1, "files of a table"));
    f->files[f->n_files++] = (struct file){number, held};
    if (number >= f->next)
        f->next = number + 1;
    return 0;
}

/* Takes the place of an older one of that version. */
static int enter_version(struct lh_rowtable_files *f, uint64_t version,
                         const struct lh_rowtable_version *v)
{
    struct version new = {.version = version, .n = v ? v->n_runs : 0, .damaged = !v};
    size_t at = 0;
    LH_TRY(LH_GROW(&f->versions, &f->cap_versions, f->n_versions + 1, "files of a table"));
    LH_TRY(LH_NEW_ARRAY(&new.runs, new.n, "files of a table"));
    for (uint32_t i = 0; i < new.n; i++)
        new.runs[i] = v->runs[i].number;
    while (at < f->n_versions && f->versions[at].version != version)
        at++;
    if (at < f->n_versions)
        lh_mem_free(f->versions[at].runs);
    else
        f->n_versions++;
    f->versions[at] = new;
    return 0;
}

static bool is_needed(const struct lh_rowtable_files *f, const struct file *file)
{
    if (file->held)
        return true;
    for (size_t i = 0; i < f->n_versions; i++) {
        const struct version *v = &f->versions[i];
        if (v->damaged)
            return true;
        for (uint32_t k = 0; k < v->n; k++) {
            if (v->runs[k] == file->number)
                return true;
        }
    }
    return false;
}

static int sweep(struct lh_rowtable_files *f)
{
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; i < f->n_files; i++) {
        const struct file file = f->files[i];
        if (rc < 0 || is_needed(f, &file) || (rc = lh_rowtable_run_remove(f->dir, file.number)) < 0)
            f->files[kept++] = file;
    }
    f->n_files = kept;
    return rc;
}

static int look_at(struct lh_rowtable_files *f, const char *name)
{
    static const char partial[] = ".partial";
    const size_t n = strlen(name), tail = sizeof partial - 1;
    uint64_t number;
    if (lh_rowtable_run_is_name(name, &number))
        return enter(f, number, false);
    if (is_version(name, &number)) {
        struct lh_rowtable_version v;
        int rc = lh_rowtable_files_read(f->dir, number, &v);
        if (rc < 0)
            return rc == LH_ECORRUPT || rc == LH_EFORMAT ? enter_version(f, number, NULL) : rc;
        rc = enter_version(f, number, &v);
        lh_mem_free(v.runs);
        return rc;
    }
    if (n > tail && strcmp(name + n - tail, partial) == 0) { /* of lh_fs_replace_file */
        char *path = NULL;
        LH_TRY(lh_mem_printf(&path, "%s/%s", f->dir, name));
        unlink(path);
        lh_mem_free(path);
    }
    return 0;
}

static int look_around(struct lh_rowtable_files *f)
{
    int rc = 0;
    DIR *d = opendir(f->dir);
    if (!d)
        return lh_err_errno(errno, "%s: cannot be listed", f->dir);
    errno = 0;
    for (struct dirent *e; rc >= 0 && (e = readdir(d));)
        rc = look_at(f, e->d_name);
    closedir(d);
    return rc;
}

/* The table's directory, made so that a power cut does not take it from below its files. */
static int make_dir(const char *dir)
{
    static const char *const above[] = {"..", "../.."};
    char *path = NULL;
    int rc = lh_fs_mkdirs(dir);
    for (size_t i = 0; rc >= 0 && i < 2; i++) {
        LH_TRY(lh_mem_printf(&path, "%s/%s", dir, above[i]));
        rc = lh_fs_sync_dir(path);
        lh_mem_free(path);
    }
    return rc;
}

/* --- the calls ------------------------------------------------------------------------------- */

int lh_rowtable_files_open(struct lh_rowtable_files **out, const char *dir)
{
    int rc;
    struct lh_rowtable_files *f = NULL;
    LH_TRY(LH_NEW(&f, "files of a table"));
    pthread_mutex_init(&f->mutex, NULL);
    LH_TRY_TO(fail, lh_mem_strdup(&f->dir, dir));
    LH_TRY_TO(fail, make_dir(dir));
    LH_TRY_TO(fail, look_around(f));
    LH_TRY_TO(fail, sweep(f));
    *out = f;
    return 0;
fail:
    lh_rowtable_files_close(&f);
    return rc;
}

void lh_rowtable_files_close(struct lh_rowtable_files **out)
{
    struct lh_rowtable_files *f = *out;
    if (!f)
        return;
    for (size_t i = 0; i < f->n_versions; i++)
        lh_mem_free(f->versions[i].runs);
    lh_mem_free(f->versions);
    lh_mem_free(f->files);
    lh_mem_free(f->dir);
    pthread_mutex_destroy(&f->mutex);
    lh_mem_free(f);
    *out = NULL;
}

int lh_rowtable_files_take(struct lh_rowtable_files *f, uint64_t *number)
{
    pthread_mutex_lock(&f->mutex);
    *number = f->next;
    int rc = enter(f, *number, true);
    pthread_mutex_unlock(&f->mutex);
    return rc;
}

int lh_rowtable_files_hold(struct lh_rowtable_files *f, uint64_t number)
{
    pthread_mutex_lock(&f->mutex);
    int rc = enter(f, number, true);
    pthread_mutex_unlock(&f->mutex);
    return rc;
}

int lh_rowtable_files_drop(struct lh_rowtable_files *f, uint64_t number)
{
    pthread_mutex_lock(&f->mutex);
    struct file *file = find(f, number);
    if (file)
        file->held = false;
    int rc = sweep(f);
    pthread_mutex_unlock(&f->mutex);
    return rc;
}

int lh_rowtable_files_add(struct lh_rowtable_files *f, const struct lh_rowtable_version *v)
{
    int rc;
    void *bytes = NULL;
    char *path = NULL;
    const size_t n = lh_rowtable_block_version_size(v->n_runs);
    LH_TRY_TO(done, path_of(&path, f->dir, v->version));
    LH_TRY_TO(done, lh_mem_alloc(&bytes, 1, n, "version of a table"));
    lh_rowtable_block_write_version(bytes, v);
    /* Entered first: if the file cannot be written, runs are kept for nothing until a prune. */
    pthread_mutex_lock(&f->mutex);
    rc = enter_version(f, v->version, v);
    pthread_mutex_unlock(&f->mutex); /* nobody waits for the disk */
    LH_TRY_TO(done, rc);
    rc = lh_fs_replace_file(path, bytes, n, true);
done:
    lh_mem_free(bytes);
    lh_mem_free(path);
    return rc;
}

static bool is_listed(uint64_t version, const uint64_t *keep, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (keep[i] == version)
            return true;
    }
    return false;
}

static int prune(struct lh_rowtable_files *f, const uint64_t *keep, size_t n)
{
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; i < f->n_versions; i++) {
        struct version *v = &f->versions[i];
        char *path = NULL;
        bool stays = rc < 0 || is_listed(v->version, keep, n);
        if (!stays && (rc = path_of(&path, f->dir, v->version)) >= 0) {
            if (unlink(path) != 0 && errno != ENOENT)
                rc = lh_err_errno(errno, "%s: cannot be removed", path);
            lh_mem_free(path);
        }
        if (stays || rc < 0)
            f->versions[kept++] = *v;
        else
            lh_mem_free(v->runs);
    }
    f->n_versions = kept;
    return rc < 0 ? rc : sweep(f);
}

int lh_rowtable_files_prune(struct lh_rowtable_files *f, const uint64_t *keep, size_t n)
{
    pthread_mutex_lock(&f->mutex);
    int rc = prune(f, keep, n);
    pthread_mutex_unlock(&f->mutex);
    return rc;
}

/* Lines of a run: which stay when it goes back, and how they get to a disk that may be full. The
 * file holds whole lines only: what a failed write left of one is cut off. */
#include "cluster/step_lines.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct lh_step_lines {
    char *path;
    int fd;
    uint64_t end; /* bytes of whole lines in the file */
    char *text;   /* lines that are not in it yet */
    size_t n, cap;
    bool failing;  /* the last write failed, and it was said */
    bool unsynced; /* its last sync failed */
};

/* Whether a line (n bytes, its newline included) belongs to a step up to `last`. */
static bool stays(const char *line, size_t n, uint64_t last)
{
    static const char head[] = "{\"step\": ";
    if (n < sizeof head || line[n - 1] != '\n' || strncmp(line, head, sizeof head - 1) != 0)
        return false;
    const char *at = line + sizeof head - 1;
    char *end;
    unsigned long long step = strtoull(at, &end, 10);
    return end != at && step <= last;
}

/* Bytes of the lines in the file up to step `last`. */
static int whole_lines(const char *path, uint64_t last, uint64_t *out)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    *out = 0;
    while ((n = getline(&line, &cap, f)) > 0 && stays(line, (size_t)n, last))
        *out += (uint64_t)n;
    free(line);
    int failed = ferror(f);
    fclose(f);
    return failed ? -1 : 0;
}

int lh_step_lines_back(struct lh_step_lines *l, uint64_t last)
{
    size_t keep = 0;
    for (const char *newline; (newline = memchr(l->text + keep, '\n', l->n - keep));) {
        size_t end = (size_t)(newline - l->text) + 1;
        if (!stays(l->text + keep, end - keep, last))
            break;
        keep = end;
    }
    l->n = keep;
    if (whole_lines(l->path, last, &l->end) != 0 || ftruncate(l->fd, (off_t)l->end) != 0)
        return lh_err_errno(errno, "%s", l->path);
    return 0;
}

int lh_step_lines_open(struct lh_step_lines **out, const char *path, uint64_t last)
{
    struct lh_step_lines *l = NULL;
    int rc;
    LH_TRY(LH_NEW(&l, "lines of steps"));
    l->fd = -1;
    LH_TRY_TO(fail, lh_mem_strdup(&l->path, path));
    LH_TRY_TO(fail, LH_GROW(&l->text, &l->cap, 1, "lines of steps"));
    l->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (l->fd < 0) {
        rc = lh_err_errno(errno, "%s", path);
        goto fail;
    }
    LH_TRY_TO(fail, lh_step_lines_back(l, last));
    *out = l;
    return 0;
fail:
    lh_step_lines_close(&l);
    return rc;
}

int lh_step_lines_print(struct lh_step_lines *l, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int rc = 0, need = vsnprintf(l->text + l->n, l->cap - l->n, fmt, ap);
    if (need >= 0 && (size_t)need >= l->cap - l->n) {
        rc = LH_GROW(&l->text, &l->cap, l->n + (size_t)need + 1, "lines of steps");
        if (rc >= 0)
            vsnprintf(l->text + l->n, l->cap - l->n, fmt, again);
    }
    if (rc >= 0 && need > 0)
        l->n += (size_t)need;
    va_end(again);
    va_end(ap);
    return rc;
}

static int write_out(struct lh_step_lines *l)
{
    int rc = l->n > 0 ? lh_fs_pwrite(l->fd, l->text, l->n, l->end, l->path) : 0;
    if (rc >= 0) {
        l->end += l->n;
        l->n = 0;
    } else if (ftruncate(l->fd, (off_t)l->end) != 0) {
        /* then half a line stays, which the next write covers and a reader stops at */
    }
    return rc;
}

int lh_step_lines_flush(struct lh_step_lines *l)
{
    int rc = write_out(l);
    if (rc < 0 && !l->failing)
        lh_log_tell(LH_LOG_WARN, "disk_error",
                    LH_FIELDS(LH_F("code", lh_err_name(rc)), LH_F("reason", lh_err_text())),
                    "%s; its lines are kept in memory until they can be written", lh_err_text());
    if (rc >= 0 && l->failing)
        lh_log_tell(LH_LOG_INFO, "disk_again", LH_FIELDS(LH_F("path", l->path)),
                    "%s: can be written again, and nothing of it was lost", l->path);
    l->failing = rc < 0;
    return l->n > LH_STEP_LINES_MAX ? rc : 0;
}

int lh_step_lines_sync(struct lh_step_lines *l)
{
    LH_TRY(lh_step_lines_flush(l));
    int rc = fdatasync(l->fd) == 0 ? 0 : lh_err_errno(errno, "%s", l->path);
    if (rc < 0 && !l->unsynced)
        lh_log_tell(LH_LOG_WARN, "disk_error",
                    LH_FIELDS(LH_F("code", lh_err_name(rc)), LH_F("reason", lh_err_text())),
                    "%s; its lines may be lost if this machine stops", lh_err_text());
    if (rc >= 0 && l->unsynced)
        lh_log_tell(LH_LOG_INFO, "disk_again", LH_FIELDS(LH_F("path", l->path)),
                    "%s: can be synced again, and nothing of it was lost", l->path);
    l->unsynced = rc < 0;
    return 0;
}

int lh_step_lines_close(struct lh_step_lines **out)
{
    struct lh_step_lines *l = *out;
    int rc = 0;
    if (!l)
        return 0;
    if (l->fd >= 0) {
        rc = write_out(l);
        if (close(l->fd) != 0 && rc >= 0)
            rc = lh_err_errno(errno, "%s", l->path);
    }
    lh_mem_free(l->text);
    lh_mem_free(l->path);
    lh_mem_free(l);
    *out = NULL;
    return rc;
}

#include "tests/faultkit.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

static char home[256]; /* what the group shares */

static const char schema[] = "input: {files: [log.csv]}\n"
                             "columns:\n"
                             "  u: id\n"
                             "  t: {type: time, unit: s}\n"
                             "  x: number\n"
                             "  y: number\n"
                             "  g: {type: category, values: [F, M]}\n"
                             "  r: number\n"
                             "trajectory: {user: u, time: t}\n"
                             "split: {train: 60%, validation: 0.2, test: rest}\n"
                             "partition: {hash: 2, by_day: false}\n"
                             "reward: {column: r}\n"
                             "state_high: [{one_hot: g}]\n"
                             "state_low: [{column: x}]\n"
                             "action: [{column: y}]\n";

static const char job[] = "dataset: data\n"
                          "algorithm: resact\n"
                          "seed: 3\n"
                          "network: {hidden: [8, 8], z_high: 4, z_low: 4}\n"
                          "objective: {estimators: 2}\n"
                          "train: {batch: 32, micro_batch: 16, steps: 20}\n"
                          "checkpoint: {every: 10}\n";

static bool write_log(const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return false;
    fputs("u,t,x,y,g,r\n", f);
    for (int u = 0; u < 20; u++)
        for (int t = 0; t < 8; t++)
            fprintf(f, "%d,%d,%.3f,%.3f,%s,%d\n", u, u * 100 + t, ((u * 7 + t * 5) % 23) / 11.5 - 1,
                    ((u * 5 + t * 11) % 19) / 9.5 - 1, (u + t) % 2 ? "F" : "M", (u + t * t) % 3);
    return fclose(f) == 0;
}

static bool write_text(const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", home, name);
    FILE *f = fopen(path, "w");
    return f && fputs(text, f) >= 0 && fclose(f) == 0;
}

int faultkit_group_setup(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    char log[300], *out = NULL;
    snprintf(home, sizeof home, "%s/longhaul-fault-XXXXXX", base ? base : "/tmp");
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what the program leaves behind becomes our child */
    if (!mkdtemp(home))
        return -1;
    snprintf(log, sizeof log, "%s/log.csv", home);
    if (!write_log(log) || !write_text("schema.yaml", schema) || !write_text("job.yaml", job) ||
        !write_text("states.csv", "g=F,g=M,x\n1,0,0.5\n0,1,-0.5\n"))
        return -1;
    int status = kit_run(&out,
                         "cd '%s' && export PATH='%s':$PATH OPENBLAS_NUM_THREADS=1 && "
                         "longhaul import schema.yaml --out data --quiet && "
                         "longhaul train job.yaml --dir run --quiet && "
                         "longhaul export --dir run --out snap",
                         home, LH_BINARY_DIR);
    if (status != 0)
        print_error("the fixture could not be made (%d): %s\n", status, out);
    free(out);
    return status == 0 ? 0 : -1;
}

int faultkit_group_teardown(void **state)
{
    (void)state;
    return kit_run(NULL, "rm -rf '%s'", home) == 0 ? 0 : -1;
}

int faultkit_setup(void **state)
{
    if (kit_setup(state) < 0)
        return -1;
    if (kit_run(NULL, "cp -a '%s'/. '%s'", home, kit_dir()) != 0)
        return -1;
    /* the run knows its dataset by an absolute path */
    return kit_run(NULL, "sed -i \"s|'%s'|'%s'|; s|%s/|%s/|\" '%s/run/config.yaml'", home,
                   kit_dir(), home, kit_dir(), kit_dir()) == 0
               ? 0
               : -1;
}

/* --- running ------------------------------------------------------------------------------------
 */
static struct faultkit_end run(const char *command)
{
    struct faultkit_end end = {0};
    char errors[300];
    snprintf(errors, sizeof errors, "%s/stderr", home);
    end.status = kit_run(NULL,
                         "cd '%s' && export PATH='%s':$PATH OPENBLAS_NUM_THREADS=1 "
                         "TMPDIR='%s' && { %s\n} >/dev/null 2>'%s' </dev/null",
                         kit_dir(), LH_BINARY_DIR, kit_dir(), command, errors);
    end.said = kit_read(errors, NULL);
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
        fail_msg("%s: a process is left", command);
    return end;
}

#define FORMAT_COMMAND                                                                             \
    char command[2048];                                                                            \
    va_list ap;                                                                                    \
    va_start(ap, fmt);                                                                             \
    vsnprintf(command, sizeof command, fmt, ap);                                                   \
    va_end(ap)

struct faultkit_end faultkit_run(const char *fmt, ...)
{
    FORMAT_COMMAND;
    return run(command);
}

void faultkit_passes(const char *fmt, ...)
{
    FORMAT_COMMAND;
    struct faultkit_end end = run(command);
    if (end.status != 0)
        fail_msg("%s: status %d: %s", command, end.status, end.said);
    free(end.said);
}

static void assert_one_line(int code, const char *says, const char *command)
{
    struct faultkit_end end = run(command);
    if (end.status != lh_err_exit_status(code))
        fail_msg("%s: status %d, expected %d (%s): %s", command, end.status,
                 lh_err_exit_status(code), lh_err_name(code), end.said);
    const char *newline = strchr(end.said, '\n');
    if (strncmp(end.said, "longhaul: ", 10) != 0 || !newline || newline[1])
        fail_msg("%s: not one line: %s", command, end.said);
    char texts[512];
    snprintf(texts, sizeof texts, "%s", says);
    for (char *rest = NULL, *text = strtok_r(texts, "|", &rest); text;
         text = strtok_r(NULL, "|", &rest))
        if (!strstr(end.said, text))
            fail_msg("%s: '%s' is not in: %s", command, text, end.said);
    free(end.said);
}

void faultkit_fails(int code, const char *says, const char *fmt, ...)
{
    FORMAT_COMMAND;
    assert_one_line(code, says, command);
}

void faultkit_refuses(int code, const char *says, const char *fmt, ...)
{
    FORMAT_COMMAND;
    char *before = faultkit_listing();
    assert_one_line(code, says, command);
    char *after = faultkit_listing();
    if (strcmp(before, after) != 0) {
        kit_write(kit_path("before"), before);
        kit_write(kit_path("after"), after);
        char *difference = NULL;
        kit_run(&difference, "diff '%s' '%s'", kit_path("before"), kit_path("after"));
        fail_msg("%s: changed what is there:\n%s", command, difference);
    }
    free(before);
    free(after);
}

/* --- files --------------------------------------------------------------------------------------
 */
static FILE *listing_to;

static int list_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    const char *name = path + strlen(kit_dir());
    size_t n = 0;
    char *text = type == FTW_F ? kit_read(path, &n) : NULL;
    fprintf(listing_to, "%s %o %zu %016llx\n", name, (unsigned)st->st_mode, n,
            text ? (unsigned long long)XXH3_64bits(text, n) : 0);
    free(text);
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char *faultkit_listing(void)
{
    char *text = NULL, *sorted = NULL, *line[4096], *rest = NULL;
    size_t size = 0, n = 0;
    listing_to = open_memstream(&text, &size);
    assert_non_null(listing_to);
    nftw(kit_dir(), list_entry, 16, FTW_PHYS);
    fclose(listing_to);
    for (char *l = strtok_r(text, "\n", &rest); l && n < 4096; l = strtok_r(NULL, "\n", &rest))
        line[n++] = l;
    qsort(line, n, sizeof *line, by_text);
    FILE *f = open_memstream(&sorted, &size);
    assert_non_null(f);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s\n", line[i]);
    fclose(f);
    free(text);
    return sorted;
}

void faultkit_flip(const char *path, long at)
{
    size_t n;
    char *text = kit_read(path, &n);
    size_t i = at < 0 ? n - (size_t)-at : (size_t)at;
    assert_true(i < n);
    text[i] ^= 4;
    kit_write_bytes(path, text, n);
    free(text);
}

void faultkit_cut(const char *path, long bytes)
{
    assert_int_equal(truncate(path, bytes), 0);
}

void faultkit_replace(const char *path, const char *from, const char *to)
{
    size_t n;
    char *text = kit_read(path, &n), *at = strstr(text, from);
    if (!at)
        fail_msg("%s: there is no '%s'", path, from);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fwrite(text, 1, (size_t)(at - text), f);
    fputs(to, f);
    fputs(at + strlen(from), f);
    assert_int_equal(fclose(f), 0);
    free(text);
}

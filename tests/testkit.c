#include "tests/testkit.h"

#include <ftw.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256];
static uint64_t live_before;

void kit_assert_contains(const char *haystack, const char *needle)
{
    if (!strstr(haystack, needle))
        fail_msg("'%s' does not contain '%s'", haystack, needle);
}

void kit_assert_close(double a, double b, double tol, const char *what)
{
    double scale = fmax(1.0, fmax(fabs(a), fabs(b)));
    if (!(fabs(a - b) <= tol * scale))
        fail_msg("%s: %.17g and %.17g differ by more than %g", what, a, b, tol * scale);
}

int kit_setup(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/longhaul-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(dir))
        return -1;
    live_before = lh_mem_live();
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int kit_teardown(void **state)
{
    (void)state;
    lh_mem_fail_at(0);
    nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    dir[0] = '\0';
    uint64_t live = lh_mem_live();
    if (live != live_before) {
        print_error("%lld allocations were not released\n", (long long)(live - live_before));
        return -1;
    }
    return 0;
}

const char *kit_dir(void)
{
    return dir;
}

const char *kit_path(const char *name)
{
    static char ring[8][512];
    static unsigned at;
    char *p = ring[at++ % 8];
    snprintf(p, sizeof ring[0], "%s/%s", dir, name);
    return p;
}

void kit_write_bytes(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

void kit_write(const char *path, const char *text)
{
    kit_write_bytes(path, text, strlen(text));
}

static char *slurp(FILE *f, size_t *n)
{
    char *p = NULL;
    size_t used = 0, cap = 0;
    for (;;) {
        if (cap - used < 4097) {
            cap = cap ? cap * 2 : 16384;
            p = realloc(p, cap);
            assert_non_null(p);
        }
        size_t got = fread(p + used, 1, cap - used - 1, f);
        if (got == 0)
            break;
        used += got;
    }
    p[used] = '\0';
    if (n)
        *n = used;
    return p;
}

char *kit_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *p = slurp(f, n);
    fclose(f);
    return p;
}

int kit_run(char **out, const char *fmt, ...)
{
    char command[4096], whole[4200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    snprintf(whole, sizeof whole, "{ %s\n} 2>&1", command);
    FILE *f = popen(whole, "r");
    assert_non_null(f);
    char *text = slurp(f, NULL);
    int status = pclose(f);
    if (out)
        *out = text;
    else
        free(text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int kit_in_a_child(int (*run)(const char *), const char *at)
{
    pid_t child = fork();
    if (child == 0)
        _exit(run(at));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void kit_small_disk(const char *size)
{
    char options[32];
    assert_int_equal(mkdir(kit_path("disk"), 0777), 0);
    snprintf(options, sizeof options, "size=%s", size);
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", kit_path("disk"), "tmpfs", 0, options) != 0)
        skip();
}

void kit_resize_disk(const char *size)
{
    char options[32];
    snprintf(options, sizeof options, "size=%s", size);
    assert_int_equal(mount("tmpfs", kit_path("disk"), "tmpfs", MS_REMOUNT, options), 0);
}

int kit_disk_teardown(void **state)
{
    umount2(kit_path("disk"), MNT_DETACH);
    return kit_teardown(state);
}

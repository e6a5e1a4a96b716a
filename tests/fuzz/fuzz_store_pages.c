/* ps/store_pages and what stands behind it: a whole data.mdb. LMDB trusts its pages, so what the
 * check lets pass must be read to the end without a fault. */
#include "ps/store_pages.h"

#include "ps/store.h"
#include "tests/fuzz/fuzzkit.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct place {
    char dir[64], data[80];
};

static bool write_file(const struct place *p, const uint8_t *bytes, size_t n)
{
    int fd = open(p->data, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    bool ok = fd >= 0 && write(fd, bytes, n) == (ssize_t)n;
    if (fd >= 0)
        close(fd);
    return ok;
}

static void remove_place(const struct place *p)
{
    char path[96];
    unlink(p->data);
    snprintf(path, sizeof path, "%s/lock", p->dir);
    unlink(path);
    rmdir(p->dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct place p;
    struct lh_store *st = NULL;
    struct lh_store_version *v = NULL;
    size_t n = 0;
    snprintf(p.dir, sizeof p.dir, "/dev/shm/longhaul-fuzz-%ld", (long)getpid());
    snprintf(p.data, sizeof p.data, "%s/data.mdb", p.dir);
    mkdir(p.dir, 0700);
    lh_err_clear();
    if (write_file(&p, data, size) && fuzzkit_passed(lh_store_pages_check(p.data)) &&
        fuzzkit_passed(lh_store_open(&st, p.dir, NULL, 1)) &&
        fuzzkit_passed(lh_store_versions(st, &v, &n)))
        for (size_t i = 0; i < n; i++)
            fuzzkit_passed(lh_store_verify(st, v[i].version));
    lh_mem_free(v);
    lh_store_close(&st);
    remove_place(&p);
    return 0;
}

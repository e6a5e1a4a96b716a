/* ps/rowtable_run: a whole file of rows of a table. Byte 0 says of how many elements a row is. LMDB
 * trusts its pages, so what the check lets pass must be read to the end without a fault. */
#include "ps/rowtable_run.h"

#include "tests/fuzz/fuzzkit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NUMBER = 1 };

static bool write_file(const char *path, const uint8_t *bytes, size_t n)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    bool ok = fd >= 0 && write(fd, bytes, n) == (ssize_t)n;
    if (fd >= 0)
        close(fd);
    return ok;
}

static void read_all(struct lh_rowtable_run *run, uint32_t dim)
{
    struct lh_rowtable_record row;
    uint64_t last = 0;
    bool any = false;
    int rc = lh_rowtable_run_seek(run, 0, &row);
    for (; rc == 0; rc = lh_rowtable_run_next(run, &row)) {
        fuzzkit_require(!any || row.id > last, "ids ascend");
        any = true;
        last = row.id;
        if (row.updates > 0)
            fuzzkit_touch(row.arrays, (size_t)3 * dim * sizeof(float));
    }
    fuzzkit_require(rc == LH_NOTFOUND || *lh_err_text(), "a failure has a sentence");
    fuzzkit_require(rc == LH_NOTFOUND, "what was looked over is read to its end");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char dir[64], path[96];
    struct lh_rowtable_run *run = NULL;
    struct lh_rowtable_filter_room room = {1 << 20};
    if (size == 0)
        return 0;
    const uint32_t dim = data[0] % 8 + 1;
    struct lh_rowtable_run_ref ref = {.number = NUMBER, .records = data[0] / 8, .bytes = size - 1};
    snprintf(dir, sizeof dir, "/dev/shm/longhaul-fuzz-run-%ld", (long)getpid());
    snprintf(path, sizeof path, "%s/r%d.mdb", dir, NUMBER);
    mkdir(dir, 0700);
    lh_err_clear();
    if (write_file(path, data + 1, size - 1) &&
        fuzzkit_passed(lh_rowtable_run_open(&run, dir, &ref, dim, true, &room)))
        read_all(run, dim);
    lh_rowtable_run_close(&run);
    fuzzkit_require(room.left == 1 << 20, "a filter gives back what it took");
    unlink(path);
    rmdir(dir);
    return 0;
}

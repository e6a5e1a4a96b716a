/* Where rows that have to make room might go: into one LMDB file of the whole table, with and
 * without waiting for the disk, or into a run of those that changed since the last cut, as
 * ps/rowtable_run.h does. Why it is runs is in ps/TABLES.md.
 *
 *     bench_rowstore DIRECTORY [rows [elements]]
 *
 * A table of `rows` rows (a million) of `elements` (32), each there once. Then 250 write-backs of
 * 2048 random rows each, ascending, a transaction each. Rates are of processor time. Written bytes
 * are what the process gave to the system (wchar of /proc/self/io). Last, what finding costs: 4096
 * random ids, ascending, in the one file, and in the table's run behind 1, 3 and 7 runs of an
 * eighth of its rows each. */
#include "common/err.h"
#include "common/mem.h"
#include "common/rng.h"
#include "ps/rowtable_run.h"

#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 2048, BATCHES = 250, LOOKS = 50, AT_ONCE = 4096, RUNS = 8 };

struct work {
    const char *dir;
    uint64_t rows, draws;
    uint32_t dim;
    float *arrays; /* [3, dim], those of every row */
    uint64_t ids[AT_ONCE];
    struct lh_rowtable_record records[AT_ONCE];
};

/* Of this process' processor: others may be busy, and what the disk takes is not what is asked. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(int rc)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "bench_rowstore: %s\n", lh_err_text());
    exit(1);
}

static void must_mdb(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench_rowstore: %s\n", mdb_strerror(rc));
    exit(1);
}

static double written_mb(void)
{
    unsigned long long bytes = 0;
    char line[100];
    FILE *f = fopen("/proc/self/io", "r");
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "wchar: %llu", &bytes);
    if (f)
        fclose(f);
    return (double)bytes / 1e6;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* n different ids, ascending, of every `of`-th row. */
static void draw(struct work *w, size_t n, uint64_t of)
{
    const uint64_t spread = UINT64_MAX / w->rows;
    const struct lh_rng_at rng = {.seed = 1, .step = w->draws++};
    for (uint64_t i = 0; i < n; i++)
        w->ids[i] = lh_rng_permute(&rng, i, w->rows / of) * of * spread;
    qsort(w->ids, n, sizeof *w->ids, by_value);
    for (size_t i = 0; i < n; i++)
        w->records[i] = (struct lh_rowtable_record){w->ids[i], 1, 1, 1, w->arrays};
}

static void say(const char *what, double began, double wrote)
{
    const double n = (double)BATCH * BATCHES;
    printf("%-52s %6.3f million rows/s, %6.0f bytes written a row\n", what,
           n / (now() - began) / 1e6, (written_mb() - wrote) * 1e6 / n);
    fflush(stdout);
}

/* --- one file -------------------------------------------------------------------------------- */

static void put_all(struct work *w, MDB_env *env, size_t n)
{
    MDB_txn *txn;
    MDB_dbi dbi;
    must_mdb(mdb_txn_begin(env, NULL, 0, &txn));
    must_mdb(mdb_dbi_open(txn, NULL, 0, &dbi));
    for (size_t i = 0; i < n; i++) {
        unsigned char key[LH_ROWTABLE_BLOCK_KEY];
        MDB_val k = {sizeof key, key}, v = {lh_rowtable_block_size(&w->records[i], w->dim), NULL};
        lh_rowtable_block_key(key, w->ids[i]);
        must_mdb(mdb_put(txn, dbi, &k, &v, MDB_RESERVE));
        lh_rowtable_block_write(v.mv_data, &w->records[i], w->dim);
    }
    must_mdb(mdb_txn_commit(txn));
}

/* Every `of`-th row. */
static void each_row(struct work *w, uint64_t of, void (*put)(struct work *, void *, size_t),
                     void *to)
{
    const uint64_t spread = UINT64_MAX / w->rows;
    size_t n = 0;
    for (uint64_t i = 0; i < w->rows; i += of) {
        w->ids[n] = i * spread;
        w->records[n] = (struct lh_rowtable_record){w->ids[n], 1, 1, 1, w->arrays};
        if (++n == BATCH || i + of >= w->rows) {
            put(w, to, n);
            n = 0;
        }
    }
}

static void put_file(struct work *w, void *env, size_t n)
{
    put_all(w, env, n);
}

static void find_in_file(struct work *w, MDB_env *env)
{
    MDB_txn *txn;
    MDB_cursor *c;
    MDB_dbi dbi;
    double seconds = 0;
    must_mdb(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn));
    must_mdb(mdb_dbi_open(txn, NULL, 0, &dbi));
    must_mdb(mdb_cursor_open(txn, dbi, &c));
    for (int look = 0; look < LOOKS; look++) {
        draw(w, AT_ONCE, 1);
        const double began = now();
        for (size_t i = 0; i < AT_ONCE; i++) {
            unsigned char key[LH_ROWTABLE_BLOCK_KEY];
            MDB_val k = {sizeof key, key}, v;
            struct lh_rowtable_record row;
            lh_rowtable_block_key(key, w->ids[i]);
            must_mdb(mdb_cursor_get(c, &k, &v, MDB_SET));
            must(lh_rowtable_block_read(&row, w->ids[i], v.mv_data, v.mv_size, w->dim));
        }
        seconds += now() - began;
    }
    printf("%-52s %6.3f million rows/s\n", "found in the one file",
           (double)LOOKS * AT_ONCE / seconds / 1e6);
    mdb_cursor_close(c);
    mdb_txn_abort(txn);
}

static void one_file(struct work *w, bool sync)
{
    char path[600];
    MDB_env *env;
    snprintf(path, sizeof path, "%s/one.mdb", w->dir);
    unlink(path);
    must_mdb(mdb_env_create(&env));
    must_mdb(mdb_env_set_mapsize(env, (size_t)64 << 30));
    must_mdb(mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NORDAHEAD | MDB_NOSYNC, 0666));
    each_row(w, 1, put_file, env);
    must_mdb(mdb_env_sync(env, 1));
    if (sync)
        must_mdb(mdb_env_set_flags(env, MDB_NOSYNC, 0));
    double began = now(), wrote = written_mb();
    for (int i = 0; i < BATCHES; i++) {
        draw(w, BATCH, 1);
        put_all(w, env, BATCH);
    }
    must_mdb(mdb_env_sync(env, 1));
    say(sync ? "one file, each write-back waits for the disk" : "one file, nothing waits", began,
        wrote);
    if (!sync)
        find_in_file(w, env);
    mdb_env_close(env);
    unlink(path);
}

/* --- runs ------------------------------------------------------------------------------------ */

static void put_run(struct work *w, void *run, size_t n)
{
    must(lh_rowtable_run_put(run, w->records, n));
}

static void find_in_runs(struct work *w, struct lh_rowtable_run **runs, size_t n, bool filters)
{
    double seconds = 0;
    for (int look = 0; look < LOOKS; look++) {
        draw(w, AT_ONCE, 1);
        const double began = now();
        for (size_t i = 0; i < AT_ONCE; i++) {
            struct lh_rowtable_record row;
            int rc = LH_NOTFOUND;
            for (size_t k = n; rc == LH_NOTFOUND && k > 0; k--)
                must(rc = lh_rowtable_run_get(runs[k - 1], w->ids[i], &row));
        }
        seconds += now() - began;
    }
    printf("found in a run behind %zu others%-23s %6.3f million rows/s\n", n - 1,
           filters ? ", with filters" : "", (double)LOOKS * AT_ONCE / seconds / 1e6);
}

static void one_run(struct work *w)
{
    struct lh_rowtable_run *run = NULL;
    must(lh_rowtable_run_create(&run, w->dir, 100, w->dim, NULL, 0));
    double began = now(), wrote = written_mb();
    for (int i = 0; i < BATCHES; i++) {
        draw(w, BATCH, 1);
        must(lh_rowtable_run_put(run, w->records, BATCH));
    }
    must(lh_rowtable_run_seal(run));
    must(lh_rowtable_run_sync(w->dir, 100));
    say("a run of what changed", began, wrote);
    lh_rowtable_run_close(&run);
    must(lh_rowtable_run_remove(w->dir, 100));
}

static void many_runs(struct work *w, struct lh_rowtable_filter_room *room)
{
    struct lh_rowtable_run *at[RUNS] = {NULL};
    for (size_t i = 0; i < RUNS; i++) {
        must(lh_rowtable_run_create(&at[i], w->dir, i, w->dim, i > 0 ? room : NULL, 0));
        each_row(w, i == 0 ? 1 : 8, put_run, at[i]);
        must(lh_rowtable_run_seal(at[i]));
        if (i == 1 || i == 3 || i == 7)
            find_in_runs(w, at, i + 1, room != NULL);
    }
    for (size_t i = 0; i < RUNS; i++) {
        lh_rowtable_run_close(&at[i]);
        must(lh_rowtable_run_remove(w->dir, i));
    }
}

int main(int argc, char **argv)
{
    static struct work w;
    struct lh_rowtable_filter_room room;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_rowstore DIRECTORY [rows [elements]]\n");
        return 2;
    }
    w.dir = argv[1];
    w.rows = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    w.dim = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 32;
    must(LH_NEW_ARRAY(&w.arrays, (size_t)3 * w.dim, "bench"));
    atomic_init(&room.left, SIZE_MAX);
    one_run(&w);
    many_runs(&w, NULL);
    many_runs(&w, &room);
    one_file(&w, false);
    one_file(&w, true);
    lh_mem_free(w.arrays);
    return 0;
}

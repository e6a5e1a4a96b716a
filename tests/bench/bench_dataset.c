/* Writes a dataset of given widths, so that training can be timed at any size: trajectories of
 * LENGTH rows of normal numbers with rewards 0 to 4, all in the training split. The same arguments
 * give the same bytes.
 *
 *     bench_dataset DIR TRANSITIONS [HIGH LOW ACTION]      default 32 64 32 */
#include "common/dataset.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 20 };

struct rows {
    float *high, *low, *action, reward[LENGTH];
    int64_t time_us[LENGTH];
    uint32_t session[LENGTH];
};

static int name_columns(const char *prefix, size_t n, const char ***out)
{
    char *text = NULL;
    LH_TRY(LH_NEW_ARRAY(out, n, "names"));
    LH_TRY(LH_NEW_ARRAY(&text, n * 16, "names"));
    for (size_t i = 0; i < n; i++) {
        snprintf(text + i * 16, 16, "%.4s_%zu", prefix, i);
        (*out)[i] = text + i * 16;
    }
    return 0;
}

static int add_trajectory(struct lh_dataset_writer *w, const struct lh_dims *d, struct rows *r,
                          uint64_t id, size_t n)
{
    struct lh_rng_at at = {.seed = 1, .step = id};
    lh_rng_normal(&at, r->high, n * d->high);
    at.purpose = 1;
    lh_rng_normal(&at, r->low, n * d->low);
    at.purpose = 2;
    lh_rng_normal(&at, r->action, n * d->action);
    at.purpose = 3;
    for (size_t i = 0; i < n; i++) {
        r->reward[i] = (float)lh_rng_below(&at, i, 5);
        r->time_us[i] = (int64_t)i * 1000000;
        r->session[i] = 0;
    }
    return lh_dataset_writer_add(w, &(struct lh_trajectory){.split = LH_TRAIN,
                                                            .user = id,
                                                            .id = id,
                                                            .ends = true,
                                                            .n = n,
                                                            .high = r->high,
                                                            .low = r->low,
                                                            .action = r->action,
                                                            .reward = r->reward,
                                                            .time_us = r->time_us,
                                                            .session = r->session});
}

static void free_columns(const char **names)
{
    if (names)
        lh_mem_free((void *)(uintptr_t)names[0]); /* the text of all */
    lh_mem_free(names);
}

static int write_rows(const char *dir, uint64_t transitions, const struct lh_dataset_spec *spec,
                      struct rows *r)
{
    struct lh_dataset_writer *w = NULL;
    LH_TRY(lh_dataset_writer_open(&w, dir, spec));
    for (uint64_t at = 0; at < transitions; at += LENGTH) {
        uint64_t left = transitions - at;
        size_t n = left < LENGTH ? (size_t)left : LENGTH;
        int rc = add_trajectory(w, &spec->dims, r, at / LENGTH, n);
        if (rc < 0) {
            lh_dataset_writer_abort(&w);
            return rc;
        }
    }
    return lh_dataset_writer_commit(&w);
}

static int write_dataset(const char *dir, uint64_t transitions, const struct lh_dims *d)
{
    struct rows r = {0};
    struct lh_dataset_spec spec = {.dims = *d,
                                   .hash_partitions = 4,
                                   .kind = "import",
                                   .memory_limit = 256u << 20,
                                   .threads = 2,
                                   .replace = true};
    const char **high = NULL, **low = NULL, **action = NULL;
    int rc;
    LH_TRY_TO(done, name_columns("high", d->high, &high));
    LH_TRY_TO(done, name_columns("low", d->low, &low));
    LH_TRY_TO(done, name_columns("act", d->action, &action));
    spec.high_names = high;
    spec.low_names = low;
    spec.action_names = action;
    LH_TRY_TO(done, LH_NEW_ARRAY(&r.high, LENGTH * d->high, "rows"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&r.low, LENGTH * d->low, "rows"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&r.action, LENGTH * d->action, "rows"));
    rc = write_rows(dir, transitions, &spec, &r);
done:
    free_columns(high);
    free_columns(low);
    free_columns(action);
    lh_mem_free(r.high);
    lh_mem_free(r.low);
    lh_mem_free(r.action);
    return rc;
}

int main(int argc, char **argv)
{
    struct lh_dims d = {.high = 32, .low = 64, .action = 32};
    if (argc != 3 && argc != 6) {
        fprintf(stderr, "usage: bench_dataset DIR TRANSITIONS [HIGH LOW ACTION]\n");
        return 2;
    }
    if (argc == 6) {
        d.high = (uint32_t)strtoul(argv[3], NULL, 10);
        d.low = (uint32_t)strtoul(argv[4], NULL, 10);
        d.action = (uint32_t)strtoul(argv[5], NULL, 10);
    }
    int rc = write_dataset(argv[1], strtoull(argv[2], NULL, 10), &d);
    if (rc < 0)
        fprintf(stderr, "bench_dataset: %s\n", lh_err_text());
    return lh_err_exit_status(rc);
}

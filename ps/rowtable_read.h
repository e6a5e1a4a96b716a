/* A version of a whole table, read from the stores of a cut, of any number of shards, by whoever
 * needs it without a server: export, evaluation, a restore onto another number of servers. Files
 * of a version never change, so no lock is taken and a running server is not held up; what it
 * deletes meanwhile stays readable for who has it open. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_rowtable_reader;

struct lh_rowtable_info {
    uint32_t dim;
    uint64_t seed;
    double init_scale;
    uint32_t admit_after;
    uint64_t evict_after;
    uint64_t job_digest;
    uint64_t records; /* an upper bound of the rows */
};

/* One row. */
struct lh_rowtable_row {
    uint64_t id;
    uint64_t last;          /* the version made by the last step that saw it */
    uint32_t seen;          /* in how many steps it was seen */
    uint32_t updates;       /* how many it was updated in; 0: not admitted yet */
    const float *w, *m, *v; /* [dim] one behind the other; NULL where updates is 0: w is the
                               initial value then */
};

/* Opens version `version` of table `name` in the store directories of all its shards, in order.
 * Errors: LH_ENOENT if it is not there, LH_ECORRUPT, LH_EMISMATCH if the parts do not make up one
 * cut. */
int lh_rowtable_reader_open(struct lh_rowtable_reader **out, const char *name, uint64_t version,
                            const char *const *dirs, size_t n_dirs);
void lh_rowtable_reader_close(struct lh_rowtable_reader **r);
const struct lh_rowtable_info *lh_rowtable_reader_info(const struct lh_rowtable_reader *r);

/* The next row with something stored, in the order of ids over all shards; those of age are left
 * out. Valid until the next call. Returns LH_NOTFOUND behind the last. Errors: LH_ECORRUPT, naming
 * file and id. */
int lh_rowtable_reader_next(struct lh_rowtable_reader *r, struct lh_rowtable_row *out);
/* Begins anew, with the first id that is not below `id`. */
int lh_rowtable_reader_seek(struct lh_rowtable_reader *r, uint64_t id);

/* The weights of n ids, in any order, to rows [n, dim]: as lh_rowtable_pull would have answered at
 * that version. Does not move where lh_rowtable_reader_next is. */
int lh_rowtable_reader_pull(struct lh_rowtable_reader *r, const uint64_t *ids, size_t n,
                            float *rows);

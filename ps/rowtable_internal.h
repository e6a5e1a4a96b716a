/* A table's insides: what the files rowtable*.c that drive it share. */
#pragma once

#include "common/err.h"
#include "common/rng.h"
#include "ps/optimiser.h"
#include "ps/rowtable.h"
#include "ps/rowtable_aside.h"
#include "ps/rowtable_cache.h"
#include "ps/rowtable_files.h"
#include "ps/rowtable_run.h"

#include <stdatomic.h>

enum { LH_ROWTABLE_ADAM_KNOWN = 4096 }; /* updates whose scalars are worked out beforehand */

/* A sealed run of the current version. */
struct lh_rowtable_live {
    struct lh_rowtable_run *run;
    bool durable;
};

/* A version set aside, and what becomes of it. Belongs to whoever prepares it while `taken`. */
struct lh_rowtable_frozen {
    _Atomic int taken;
    struct lh_rowtable_version version;
    bool *durable; /* [version.n_runs] */
    bool prepared;
    size_t merge_from, merge_n; /* runs [from, from + n) have become `merged`, where n > 0 */
    struct lh_rowtable_run *merged;
};

/* A version on its way to be set aside: its changed rows are in `run`, or aside. */
struct lh_rowtable_cutting {
    bool begun;
    uint64_t version;
    /* What was open until it was begun. It may be there without a version that is begun: what is in
     * it is older than the open run and newer than the sealed ones in any case. */
    struct lh_rowtable_run *run;
    struct lh_rowtable_aside *aside;
    struct lh_err failed; /* why it was given up; code 0: it was not */
};

struct lh_rowtable {
    struct lh_rowtable_spec spec; /* its name is ours */
    char *name, *dir;
    struct lh_rng_at initial; /* of this table's initial values */
    uint64_t version;
    struct lh_rowtable_reduce *reduce;
    struct lh_rowtable_cache *cache;
    struct lh_rowtable_files *files;
    struct lh_rowtable_run *open;  /* takes what is written from now on; NULL until something is */
    struct lh_rowtable_live *live; /* [n_live] sealed, oldest first */
    /* For filters of all runs but the oldest, which has most of what is looked for. */
    struct lh_rowtable_filter_room filters;
    size_t n_live, cap_live;
    size_t applied; /* rows of the root that this step has updated already */
    /* the rows that the last step has seen, or this one already, as they were before it */
    uint64_t *before_ids; /* [n_before] ascending */
    float *before;        /* [n_before, dim] */
    size_t n_before, cap_before_ids, cap_before;
    bool has_before; /* there was a step since it was initialised or restored */
    struct lh_optimiser_adam adam[LH_ROWTABLE_ADAM_KNOWN];
    float *row; /* [dim] scratch */
    struct lh_rowtable_cutting cutting;
    struct lh_rowtable_frozen frozen;
    struct lh_rowtable_stats stats;
};

/* As if it had never been seen, at `version`. */
static inline bool lh_rowtable_is_old(uint64_t evict_after, uint32_t seen, uint64_t last,
                                      uint64_t version)
{
    return evict_after > 0 && seen > 0 && version - last >= evict_after;
}

/* Whether a version is that part of a cut of the table. */
int lh_rowtable_check_part(const struct lh_rowtable_version *v, const char *dir, const char *name,
                           size_t shard, size_t shards);
/* Forgets rows, runs and gradients: nothing is of any version any more. */
void lh_rowtable_empty(struct lh_rowtable *t);
/* Fills a slot, taken for that id, with what is stored of its row. */
void lh_rowtable_fill(struct lh_rowtable *t, uint32_t slot, const struct lh_rowtable_record *row);
/* Puts n rows into a run, which is made if there is none: `open` of the table, or that of the
 * version that is being set aside. */
int lh_rowtable_put(struct lh_rowtable *t, struct lh_rowtable_run **run,
                    const struct lh_rowtable_record *rows, size_t n);
/* So the changed rows of n slots, which are not changed then. */
int lh_rowtable_write(struct lh_rowtable *t, struct lh_rowtable_run **run, const uint32_t *slots,
                      size_t n);
/* Changed rows are written, so that the next slot can be taken. */
int lh_rowtable_make_room(struct lh_rowtable *t);

/* --- rowtable_settle.c: a row that is set aside, before it goes
 * ------------------------------------ None of these can fail: where the row cannot be written, the
 * version is given up, and the row is changed like others. */
/* Rows whose slots are to be taken: written if they can be. */
void lh_rowtable_settle_write(struct lh_rowtable *t, const uint32_t *slots, size_t n);
/* One that is to be changed: copied, or written. */
void lh_rowtable_settle_keep(struct lh_rowtable *t, uint32_t slot);

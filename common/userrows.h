/* One user's binary rows as the typed columns that rewards and features work on, sessions numbered;
 * and the cutting of what comes back into trajectories. */
#pragma once

#include "common/schema.h"

#include <stddef.h>
#include <stdint.h>

struct lh_userrows; /* one thread's scratch: grows to the longest user */

int lh_userrows_create(struct lh_userrows **out, const struct lh_schema *s);
void lh_userrows_destroy(struct lh_userrows **u); /* NULL content allowed */

/* `rows`: n binary rows of one user, sorted by (time, order). Fills *log, which lives until the
 * next call; its `split` is left to the caller. Sessions are numbered by their first row. Where
 * sessions of a user overlap, the one that began first comes first as a whole and the rows of the
 * next are taken to be no earlier than its end: so times never run backwards. *sessions is their
 * number. Errors: LH_ENOMEM; LH_ERANGE for 2^32 rows or more. */
int lh_userrows_load(struct lh_userrows *u, const char *rows, size_t n, struct lh_user_log *log,
                     uint64_t *sessions);

/* What features and rewards made of a log. */
struct lh_userrows_made {
    float *high, *low, *action, *reward;
    uint64_t *ids;
    unsigned char *keep; /* 0: the row is left out */
    struct lh_dims dims;
};

/* Cuts the log into trajectories as the schema says and gives each to `add`. Arrays of *made are
 * compacted in place. *left_out: rows not kept, or of trajectories that are too short. */
typedef int (*lh_userrows_add)(void *ctx, const struct lh_trajectory *t);
int lh_userrows_cut(struct lh_userrows *u, const struct lh_user_log *log,
                    struct lh_userrows_made *made, lh_userrows_add add, void *ctx,
                    uint64_t *left_out);

/* The thread that writes checkpoints, so that training does not wait for the disk: it takes frozen
 * versions and commits, one after the other, and says what it has done. */
#pragma once

#include "common/err.h"
#include "ps/rowtable.h"
#include "ps/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_writer;

enum lh_writer_kind { LH_WRITER_PREPARE, LH_WRITER_COMMIT, LH_WRITER_DROP };

struct lh_writer_done {
    enum lh_writer_kind kind;
    uint64_t version;
    double seconds;    /* that it took */
    struct lh_err err; /* code 0: durable */
};

/* `store` and the n_tables tables, whose files lie in it, outlive the writer. Deletes every version
 * of the store but those of `keep` (copied), since what was prepared and never became a cut may be
 * of another number of shards. A disk that is full, or fails, is no reason not to start: it is
 * tried again before each version that is written, and none is as long as it fails. Errors: those
 * of lh_store_prune but for LH_ENOSPC and LH_EIO. */
int lh_writer_start(struct lh_writer **out, struct lh_store *store,
                    struct lh_rowtable *const *tables, size_t n_tables, const uint64_t *keep,
                    size_t n_keep);
/* Finishes what is queued and ends the thread; what was done can still be polled. NULL allowed. */
void lh_writer_finish(struct lh_writer *w);
/* Finishes, and frees. NULL content allowed. */
void lh_writer_stop(struct lh_writer **w);

/* Queues writing a frozen version, for which every table is frozen too; all are thawed when it is
 * done. Tables are written first: a version that the store has, they have. Errors: LH_ENOMEM;
 * nothing is thawed then. */
int lh_writer_prepare(struct lh_writer *w, struct lh_shard *shard, const struct lh_frozen *frozen);
/* Queues a commit of `version`, then a pruning to `keep` (copied). Errors: LH_ENOMEM. */
int lh_writer_commit(struct lh_writer *w, uint64_t version, const uint64_t *keep, size_t n);
/* Queues deleting `version`, which will not be a cut. Errors: LH_ENOMEM. */
int lh_writer_drop(struct lh_writer *w, uint64_t version);

/* The oldest thing done that was not asked for yet; false if there is none. */
bool lh_writer_poll(struct lh_writer *w, struct lh_writer_done *out);
bool lh_writer_busy(const struct lh_writer *w);      /* something is queued or being written */
size_t lh_writer_pending(const struct lh_writer *w); /* how many such things */

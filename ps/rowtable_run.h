/* A run: one LMDB file of rows of a table, a row at most once. It is written by one thread while it
 * is the newest, without waiting for the disk; then it is sealed and never changes. Sealed ones may
 * be open more than once, in any process: there is nothing to lock. The file is DIR/rNUMBER.mdb. */
#pragma once

#include "ps/rowtable_block.h"
#include "ps/rowtable_filter.h"

#include <stdbool.h>

struct lh_rowtable_run;

/* Both may be closed at any time; an unsealed one is then worth nothing. Errors: of opening a file;
 * LH_ECORRUPT naming it if it is not as long as it was, or, with `check`, which reads the whole
 * file, if anything in it is damaged; LH_ENOMEM. `room` (NULL: none) is what a filter of its ids
 * may take, which spares looks into the file: of one that is made, for some n rows (0: nobody
 * knows); of one that is opened, if it is checked. */
int lh_rowtable_run_create(struct lh_rowtable_run **out, const char *dir, uint64_t number,
                           uint32_t dim, struct lh_rowtable_filter_room *room, size_t n);
int lh_rowtable_run_open(struct lh_rowtable_run **out, const char *dir,
                         const struct lh_rowtable_run_ref *ref, uint32_t dim, bool check,
                         struct lh_rowtable_filter_room *room);
void lh_rowtable_run_close(struct lh_rowtable_run **run);

/* Number, and, of the rows put so far, how many; bytes once it is sealed. */
const struct lh_rowtable_run_ref *lh_rowtable_run_ref(const struct lh_rowtable_run *run);

/* Writes rows, in transactions that hold some 8 MiB in memory at most. Rows of ascending ids, and
 * beyond those that are there, are written fastest and closest. Errors: LH_ENOSPC, LH_EIO; some
 * rows may have been written, all may be put again. */
int lh_rowtable_run_put(struct lh_rowtable_run *run, const struct lh_rowtable_record *rows,
                        size_t n);
/* No more is put. Errors: as opening; it may be called again. */
int lh_rowtable_run_seal(struct lh_rowtable_run *run);

/* The row of an id: 0 or LH_NOTFOUND. Its arrays are valid until the next put or close. Fastest for
 * ids that ascend from call to call. Errors: LH_ECORRUPT naming file and id, LH_EIO. */
int lh_rowtable_run_get(struct lh_rowtable_run *run, uint64_t id, struct lh_rowtable_record *out);
/* The first row whose id is not below `id`, and the one after the last that this or next returned:
 * as get. */
int lh_rowtable_run_seek(struct lh_rowtable_run *run, uint64_t id, struct lh_rowtable_record *out);
int lh_rowtable_run_next(struct lh_rowtable_run *run, struct lh_rowtable_record *out);

/* Makes a sealed run's content durable; its name is so with the directory. Any thread. */
int lh_rowtable_run_sync(const char *dir, uint64_t number);
int lh_rowtable_run_remove(const char *dir, uint64_t number); /* a missing one is fine */
/* Tells whether `name` is that of a run in its directory, and its number. */
bool lh_rowtable_run_is_name(const char *name, uint64_t *number);

/* The directory of a table: runs, and for each version a small file that names the runs it is made
 * of. A run is there for as long as a version names it, or the table holds it to make versions of;
 * then it is deleted. Any thread. */
#pragma once

#include "ps/rowtable_block.h"

struct lh_rowtable_files;

/* STORE/tables/NAME; the caller frees. */
int lh_rowtable_files_dir(char **out, const char *store, const char *name);

/* Makes the directory, looks what is there, and removes what no version names. A version file that
 * is damaged is kept, and with it every run, until it is pruned: who restores it will be told.
 * Errors: of making and listing a directory; LH_ENOMEM. */
int lh_rowtable_files_open(struct lh_rowtable_files **out, const char *dir);
void lh_rowtable_files_close(struct lh_rowtable_files **f);

/* A number for a new run that nobody else has here, held from now on. Errors: LH_ENOMEM. */
int lh_rowtable_files_take(struct lh_rowtable_files *f, uint64_t *number);
int lh_rowtable_files_hold(struct lh_rowtable_files *f, uint64_t number); /* one that is there */
int lh_rowtable_files_drop(struct lh_rowtable_files *f, uint64_t number); /* no longer held */

/* Writes a version's file, durable; the runs must be so already. Replaces an older one. Errors:
 * LH_ENOSPC, LH_EIO, LH_ENOMEM. */
int lh_rowtable_files_add(struct lh_rowtable_files *f, const struct lh_rowtable_version *v);
/* Deletes every version but those listed, then the runs that nobody needs any more. */
int lh_rowtable_files_prune(struct lh_rowtable_files *f, const uint64_t *keep, size_t n);

/* Reads the file of a version in the directory `dir`, open or not. The caller frees out->runs.
 * Errors: LH_ENOENT, LH_ECORRUPT, LH_EFORMAT, naming the file. */
int lh_rowtable_files_read(const char *dir, uint64_t version, struct lh_rowtable_version *out);

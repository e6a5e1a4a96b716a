/* The rows of several sealed runs, as one: in the order of ids, of each id the row of the newest
 * run that has it. */
#pragma once

#include "ps/rowtable_run.h"

struct lh_rowtable_scan;

/* Over n runs, oldest first, lent for as long as the scan lives; nobody else uses their
 * lh_rowtable_run_next meanwhile. Begins with the first row. Errors: as lh_rowtable_run_seek;
 * LH_ENOMEM.
 */
int lh_rowtable_scan_create(struct lh_rowtable_scan **out, struct lh_rowtable_run *const *runs,
                            size_t n);
void lh_rowtable_scan_destroy(struct lh_rowtable_scan **s);

/* Begins anew, with the first id that is not below `id`. */
int lh_rowtable_scan_seek(struct lh_rowtable_scan *s, uint64_t id);
/* The next row, whose arrays are valid for as long as its run is open; LH_NOTFOUND behind the
 * last. Errors: LH_ECORRUPT naming file and id. */
int lh_rowtable_scan_next(struct lh_rowtable_scan *s, struct lh_rowtable_record *out);

/* What the files of `longhaul inspect` share. */
#pragma once

#include "common/dataset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;

/* Columns of a kind; what points belongs to the dataset. */
struct lh_inspect_group {
    const char *name;
    uint32_t width;
    const char *const *names;
    const struct lh_column_stats *stats;
    const float *shift, *scale;
};

/* State_high, state_low, action, reward; returns their number. */
size_t lh_inspect_groups(const struct lh_dataset *ds, struct lh_inspect_group g[4]);
/* Microseconds as 2017-10-01T00:00:00.000000Z. */
void lh_inspect_time(int64_t us, char *out, size_t size);
/* Prints a line and frees. `ok`: nothing failed on the way. Errors: LH_ENOMEM. */
int lh_inspect_json(struct cJSON *o, bool ok);

/* Prints the row that `name`, like test:17, names. Errors: LH_EUSAGE. */
int lh_inspect_row(const struct lh_dataset *ds, const char *name, bool json);

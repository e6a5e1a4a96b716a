/* The manifest of a dataset: what manifest.json says, as one struct. Used by the dataset's reader
 * and writer only; others look through common/dataset.h. */
#pragma once

#include "common/dataset.h"

#include <stddef.h>
#include <stdint.h>

#define LH_MANIFEST_NAME    "manifest.json"
#define LH_MANIFEST_FORMAT  "longhaul-dataset"
#define LH_MANIFEST_VERSION 1
#define LH_CLASSES_MAX      32

enum { LH_GROUP_HIGH, LH_GROUP_LOW, LH_GROUP_ACTION, LH_GROUPS };

struct lh_manifest_part {
    char *file; /* relative to the dataset */
    int32_t day;
    uint32_t hash;
    uint64_t rows, halos, cuts, pieces, bytes, checksum;
};

struct lh_manifest {
    char *kind, *origin; /* origin: JSON text or NULL */
    struct lh_dims dims;
    char **names[LH_GROUPS]; /* [H], [L], [A] */
    char **id_names;         /* [I] */
    float reward_values[LH_CLASSES_MAX];
    struct lh_column_stats *stats[LH_GROUPS], reward_stats;
    struct lh_norm norm;
    struct lh_split_info split[LH_SPLITS]; /* rows, transitions, partitions: sums over parts */
    struct lh_manifest_part *parts[LH_SPLITS];
    int32_t first_day, last_day;
    uint64_t digest;
};

uint32_t lh_manifest_width(const struct lh_dims *dims, int group);

/* Allocates names (NULL each), statistics and norm for m->dims. */
int lh_manifest_reserve(struct lh_manifest *m);
void lh_manifest_fini(struct lh_manifest *m); /* zeroed content allowed */

/* Of all that training depends on: dims, names, normalisation, partitions' checksums; not of where
 * the log came from. */
uint64_t lh_manifest_digest(const struct lh_manifest *m);

int lh_manifest_print(const struct lh_manifest *m, char **text); /* the caller frees */

/* `name` is for sentences. Checks that sums are sums, that files stay inside the dataset, and the
 * digest. Errors: LH_EFORMAT, LH_ECORRUPT (digest). */
int lh_manifest_parse(struct lh_manifest *m, const char *text, size_t n, const char *name);

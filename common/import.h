/* From a log to a dataset: what `longhaul import` does. */
#pragma once

#include "common/ingest.h"

#include <stdbool.h>
#include <stdint.h>

enum lh_import_phase {
    LH_IMPORT_READ,    /* bytes of the files */
    LH_IMPORT_SORT,    /* buckets of users */
    LH_IMPORT_REWARDS, /* buckets: what rewards look at first */
    LH_IMPORT_FIT,     /* buckets: what features are fitted to */
    LH_IMPORT_ROWS,    /* buckets: features, rewards, trajectories */
    LH_IMPORT_WRITE,   /* partitions; no steps */
    LH_IMPORT_PHASES
};
extern const char *const lh_import_phase_names[LH_IMPORT_PHASES];

struct lh_import_spec {
    const struct lh_schema *schema;
    const char *data_dir;     /* where the schema's files are; NULL: where the program runs */
    const char *const *files; /* instead of the schema's, as they are; NULL: none */
    size_t n_files;
    const char *out;
    unsigned threads; /* 0: one a processor */
    /* What buffers may take, in bytes; 0: 1 GiB, at least 16 MiB. Beyond it the log goes through
     * temporary files beside `out`. What comes on top does not grow with the log: 16 MiB a thread,
     * and while it is at hand one user's rows with their features. */
    uint64_t memory;
    bool replace;
    /* Called now and then, by any thread but not by two at once; NULL allowed. total 0: unknown. */
    void (*progress)(void *ctx, enum lh_import_phase phase, uint64_t done, uint64_t total);
    void *ctx;
    bool (*interrupted)(void); /* NULL: never */
};

struct lh_import_report {
    struct lh_ingest_counts counts; /* of the text */
    uint64_t text_bytes, spilled_bytes;
    uint64_t users, users_left_out; /* of the log; not in any split */
    uint64_t rows_left_out;         /* by features, or in trajectories that are too short */
    uint64_t sessions[LH_SPLITS];
    double seconds[LH_IMPORT_PHASES], seconds_total;
    unsigned threads;
    size_t files;
};

/* Imports. *report is filled as far as it goes, also on failure. On failure nothing is left at
 * `out`. Errors: LH_ECONFIG (schema, or a log that does not fit it), LH_EFORMAT (too many bad rows,
 * with the first one's sentence; broken files), LH_EEXIST, LH_ENOENT, LH_ENOSPC, LH_EIO, LH_ENOMEM,
 * LH_ECANCELED. */
int lh_import_run(const struct lh_import_spec *spec, struct lh_import_report *report);

/* Expands the files of a schema under `data_dir`: patterns (*, ?, [) to sorted names; of a name
 * that is not there, NAME.gz, .xz, .zst and .bz2 are tried. Release with lh_import_files_free.
 * Errors: LH_ENOENT. */
int lh_import_files(char ***out, size_t *n, const char *data_dir, const char *const *files,
                    size_t n_files);
void lh_import_files_free(char ***files, size_t n);

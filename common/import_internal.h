/* What the files of an import share. import.c: the whole; import_read.c: text to buckets of rows;
 * import_users.c: buckets to users, splits and trajectories. */
#pragma once

#include "common/feature.h"
#include "common/import.h"
#include "common/reward.h"
#include "common/spool.h"
#include "common/userrows.h"

#include <pthread.h>

/* A user's place in the order of all. */
struct lh_import_place {
    uint64_t hash, user;
};

struct lh_importer {
    const struct lh_import_spec *spec;
    const struct lh_schema *s;
    struct lh_import_report *report;
    unsigned threads;
    uint64_t memory;

    char **files;
    size_t n_files;
    struct lh_reward_plan *rewards;
    struct lh_feature_plan *features;
    struct lh_dims dims;
    struct lh_dataset_writer *writer;
    struct lh_import_worker *workers; /* [threads] */

    struct lh_spool *raw, *sorted;
    unsigned bits; /* of the hash that choose the bucket */
    size_t buckets;
    struct lh_reader *reader;
    struct lh_layout_csv **layouts; /* one a file */
    size_t n_layouts;

    uint64_t *bucket_users;                /* [buckets] */
    struct lh_import_place end[LH_SPLITS]; /* the first user behind the split */
    bool open_end[LH_SPLITS];              /* there is none */

    enum lh_import_phase phase;
    pthread_mutex_t lock; /* of the report, and of what follows */
    uint64_t done, total;
};

/* One thread's own things. */
struct lh_import_worker {
    struct lh_ingest *ingest;
    struct lh_chunk chunk;
    uint32_t *start; /* [buckets + 1] */
    uint32_t *index;
    size_t cap_index;
    struct lh_userrows *rows;
    struct lh_userrows_made made;
    size_t cap_made; /* rows */
};

/* Clock and progress of a phase of `total` steps (0: unknown). */
void lh_import_begin_phase(struct lh_importer *im, enum lh_import_phase phase, uint64_t total);
void lh_import_end_phase(struct lh_importer *im);
/* One more of the phase's steps; any thread. */
void lh_import_step(struct lh_importer *im);
/* Errors: LH_ECANCELED once the import was interrupted. */
int lh_import_go_on(const struct lh_importer *im);

/* Reads all files to im->raw. */
int lh_import_read(struct lh_importer *im);
/* From im->raw to trajectories in im->writer. */
int lh_import_passes(struct lh_importer *im);

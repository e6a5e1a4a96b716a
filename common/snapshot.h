/* Snapshots: a trained policy as a directory that can be copied anywhere and acts by itself.
 *
 *   manifest.json        what it is: algorithm, dims, feature names, normalisation, step, digests;
 *                        size and checksum of the other files, and of itself; a probe
 *   weights.safetensors  parameters by name, weights [out, in], biases [out]; target copies under
 *                        "target." where there are any
 *   table-NAME.safetensors  for each embedding table of the job: ids and rows (common/rowfile.h)
 *   config.yaml          the resolved job
 *   evaluation.json      what the evaluation of this checkpoint said, if there was one
 *
 * It appears whole or not at all. The probe is what the policy answers to a fixed batch of states;
 * whoever opens the snapshot to act asks the same question and compares, so that a program that
 * would act otherwise (another version, a broken BLAS) refuses. */
#pragma once

#include "common/dataset.h"
#include "common/graph.h"
#include "common/job.h"
#include "common/rowfile.h"
#include "common/rowsource.h"

#define LH_PROBE_ROWS 8

struct lh_snapshot {
    struct lh_job *job; /* resolved */
    struct lh_norm norm;
    const char *const *high_names, *const *low_names, *const *action_names; /* [H], [L], [A] */
    uint64_t version;              /* steps it was trained for */
    const char *cut;               /* "best" or "last" */
    const struct lh_param *params; /* name, rows, cols, offset (and has_target) are meant */
    size_t n_params;
    const float *weights, *targets; /* flat; targets NULL if there are none */
    const float *probe;             /* [LH_PROBE_ROWS, A] actions, raw units */
    const char *evaluation_json;    /* an object; NULL if none */
    const char *const *id_names;    /* [n_ids] ids that the job's tables are looked up by */
    size_t n_ids;
    struct lh_rowfile tables[LH_GRAPH_TABLES_MAX]; /* of an open snapshot */
    /* To be written: puts the rows of table t where the path says. */
    int (*write_table)(void *ctx, size_t t, const char *path);
    void *ctx;
};

/* The states of the probe: high [LH_PROBE_ROWS, H], low [LH_PROBE_ROWS, L], raw units, spread as
 * the training split is; a function of `norm` alone. They are asked as states 0, 1, … with seed 0
 * and the job's number of estimators. */
void lh_snapshot_probe_states(const struct lh_norm *norm, float *high, float *low);

/* Holds answers [LH_PROBE_ROWS, A] against the recorded ones: equal within rounding of one BLAS
 * kernel against another, but for a quarter of the rows, where a choice between nearly equal
 * candidates may fall otherwise. Errors: LH_EMISMATCH. */
int lh_snapshot_probe_check(const struct lh_snapshot *s, const float *action);

/* Writes DIR. All members are loans. `replace` allows a snapshot to be there (it is exchanged in
 * one step), nothing else is ever replaced. Errors: LH_EEXIST, LH_ENOSPC, LH_EACCES, LH_EIO;
 * whatever was there stays. */
int lh_snapshot_write(const char *dir, const struct lh_snapshot *s, bool replace);

/* Looks rows up in an open snapshot, for as long as it is open. */
struct lh_row_source lh_snapshot_rows(const struct lh_snapshot *s);

/* Reads DIR and verifies sizes, checksums, shapes and ranges of all of it. All members live with
 * the snapshot. Errors: LH_ENOENT, LH_EFORMAT (no snapshot, or a newer format), LH_ECORRUPT,
 * LH_EMISMATCH. */
int lh_snapshot_open(struct lh_snapshot **out, const char *dir);
void lh_snapshot_close(struct lh_snapshot **s);

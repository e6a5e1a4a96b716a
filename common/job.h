/* A job: what `longhaul train JOB.yaml` does, as one plain struct. job_table.c has the table that
 * maps YAML keys to these members with type, default, unit, bounds and documentation; by it files
 * are validated (with line numbers and the nearest valid key), `longhaul help job` is printed, and
 * runs and snapshots get the resolved config. Paper: ResAct Table 5 gives the defaults. */
#pragma once

#include "common/graph.h"
#include "common/job_tables.h"
#include "common/log.h"

#include <stdbool.h>
#include <stdint.h>

enum lh_bound { LH_BOUND_CLIP, LH_BOUND_NONE };      /* DESIGN.md section 9, Bounds */
enum lh_job_security { LH_JOB_CURVE, LH_JOB_CLEAR }; /* cluster/SECURITY.md */
enum lh_sampling { LH_SAMPLING_EPOCH, LH_SAMPLING_UNIFORM };
enum lh_gradient_type { LH_GRADIENT_FLOAT32, LH_GRADIENT_BF16 }; /* on the wire; common/bf16.h */
enum lh_consistency { LH_SYNC, LH_SSP, LH_ASYNC };               /* ps/CONSISTENCY.md */
enum lh_unit { LH_UNIT_ROW, LH_UNIT_SESSION }; /* what an importance weight is of */
extern const char *const lh_unit_names[];      /* "row", "session", NULL */
enum lh_choose { LH_CHOOSE_VALUE, LH_CHOOSE_LAST };

struct lh_job {
    /* top level */
    const char *name;      /* "job" */
    uint64_t seed;         /* 1 */
    const char *dataset;   /* path, relative to the job file; required */
    const char *algorithm; /* "resact" | "il" | "il_cvae" */

    /* network: */
    size_t hidden[LH_MLP_HIDDEN_MAX]; /* [256, 256] */
    size_t n_hidden;
    size_t latent;        /* C; 0 = twice the action's width */
    size_t z_high, z_low; /* widths of z_h and z_l: 64, 64 */

    /* objective: */
    double gamma;                  /* 0.9 */
    size_t estimators;             /* N, 20 */
    double weight_exp;             /* 5e-2, Eq. 12 */
    double weight_con;             /* 5e-1, Eq. 14 */
    double weight_kl;              /* 1, Eq. 3 */
    double weight_j;               /* 1, J against L_Rec in Eq. 9, and L_Exp, L_Con */
    bool cvae;                     /* true; false: the deterministic reconstructor of Eq. 2 */
    enum lh_bound bound;           /* clip */
    double residual_scale;         /* phi, 0.1 */
    double log_std_lo, log_std_hi; /* -4, 15 */

    /* optimiser: Adam */
    double lr_actor, lr_critic, lr_cvae, lr_reward; /* 5e-6, 5e-5, 5e-5, 5e-5 */
    double beta1, beta2, epsilon;                   /* 0.9, 0.999, 1e-8 */
    double tau;                                     /* 1e-2 */
    uint32_t target_period;                         /* steps, 1 */
    uint32_t actor_period;                          /* steps, 1: delayed policy updates */

    /* train: */
    size_t batch;              /* 4096 transitions */
    size_t micro_batch;        /* rows, a power of two; batch / micro_batch rounded up leaves */
    double epochs;             /* 5; ignored if steps > 0 */
    uint64_t steps;            /* 0 */
    enum lh_sampling sampling; /* epoch */
    bool normalise;            /* true */
    enum lh_gradient_type gradient; /* float32 */

    /* tables: */
    struct lh_job_table tables[LH_GRAPH_TABLES_MAX];
    size_t n_tables;

    /* consistency: */
    enum lh_consistency consistency; /* sync */
    uint32_t staleness_bound;        /* steps, 4: of ssp */
    bool takeover;                   /* true: idle workers do what is late */

    /* checkpoint: */
    uint64_t checkpoint_every; /* steps; 0 = a tenth of the run */
    uint32_t checkpoint_keep;  /* complete cuts kept beside the best, 2 */

    /* evaluation: */
    uint64_t evaluate_every; /* steps; 0 = at each checkpoint */
    double ncis_cap;         /* c, 10 */
    enum lh_unit unit;       /* row */
    double ess_floor;        /* 0.1, share of the units */
    enum lh_choose choose;   /* value: which cut above the floor is best */
    const char *behaviour; /* "auto": IL trained to convergence beside the dataset; or a snapshot */

    /* cluster: */
    double heartbeat_seconds;      /* 1 */
    double deadline_seconds;       /* 10: a role silent for longer is taken for dead */
    enum lh_job_security security; /* curve: tcp with keys */
    uint32_t io_threads;           /* 1: of a server, for its connections */
    /* of an MPI job (cluster/placement.h, cluster/address.h): */
    uint32_t servers_per_host, workers_per_host; /* 0 */
    const char *placement, *interface;           /* "auto" */

    /* log: */
    enum lh_log_format log_format; /* text */
    enum lh_log_level log_level;   /* info */

    /* metrics: */
    const char *metrics_listen; /* where this process serves them; "" = not at all */

    /* resolved: set by lh_job_resolve from the dataset */
    struct lh_dims dims;
    uint64_t dataset_digest;
};

/* Reads, overlays `sets` (--set assignments, may be NULL), validates. Strings live in the job;
 * paths become absolute: relative to the job file, or to the working directory where they came from
 * --set. Errors: LH_ECONFIG, LH_ENOENT, LH_EUSAGE. */
int lh_job_load(struct lh_job **out, const char *path, const char *const *sets, size_t n_sets);
/* The same for a program that has its own mind: assignments "a.b=value" that hold where the file
 * has no such key, and such that hold always; NULL-terminated. `dataset` may be missing. */
int lh_job_load_assigned(struct lh_job **out, const char *path, const char *const *defaults,
                         const char *const *always);
/* The same from text; `name` stands for the file in complaints, paths are relative to `base_dir`
 * (NULL: left as they are). Here `dataset` may be missing (then it is NULL). */
int lh_job_load_text(struct lh_job **out, const char *text, size_t n, const char *name,
                     const char *base_dir);
void lh_job_destroy(struct lh_job **job);

/* Tells the job what the dataset is: members dims and dataset_digest. Errors: LH_EMISMATCH if the
 * job is resolved already (it came from a run or a snapshot) and says otherwise. */
int lh_job_resolve(struct lh_job *job, const struct lh_dims *dims, uint64_t dataset_digest);

/* The resolved config as YAML text, every key present, in table order; caller frees. Loading it
 * again gives the same job. */
int lh_job_print(const struct lh_job *job, char **out);
/* Steps of the run: steps, or epochs over `transitions`, at least 1. */
uint64_t lh_job_total_steps(const struct lh_job *job, uint64_t transitions);
/* Every key with type, default, unit, bounds and meaning, as text for `longhaul help job`. */
int lh_job_help(char **out);
/* A digest of everything that determines the weights of a version: the config without name, paths,
 * cluster, evaluation and checkpoint sections and without the length of the run (a run may be
 * prolonged), dims, dataset digest, seed. Roles compare it when they meet. */
uint64_t lh_job_digest(const struct lh_job *job);
/* The first key of the digest in which a differs from b, as "train.batch is 64, not 128"; "" where
 * there is none. */
void lh_job_difference(const struct lh_job *a, const struct lh_job *b, char *out, size_t size);

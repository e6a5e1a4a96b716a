/* Off-policy evaluation: walks the trajectories of a split, asks the policy and the behaviour model
 * for their actions, hands log weights to the estimator.
 *
 * phi_pi and phi_beta are diagonal Gaussians around the two models' actions with the behaviour
 * model's residual RMS as sigma (DESIGN.md section 9), so
 *   log rho = sum_j ((a_j - beta_j)^2 - (a_j - pi_j)^2) / (2 sigma_j^2),  capped at log c. */
#pragma once

#include "common/dataset.h"
#include "worker/behaviour.h"
#include "worker/choice.h"
#include "worker/est_ncis.h"
#include "worker/policy.h"

#include <stdbool.h>

struct lh_evaluation {
    struct lh_estimate policy;    /* NCIS, ResAct Eq. 15; all zero without a policy */
    struct lh_estimate behaviour; /* the log's own: all weights 1 */
    double cap;
    enum lh_unit unit;
    struct lh_choice choice; /* states 0: the policy does not choose among candidates */
};

struct lh_evaluate_spec {
    const struct lh_dataset *ds;
    enum lh_split split;
    struct lh_policy *policy; /* with behaviour; NULL, both: the log's own value only */
    const struct lh_behaviour *behaviour;
    double cap; /* c > 0 */
    enum lh_unit unit;
    uint64_t seed;             /* the noise of row i of the split is that of state i under it */
    bool (*interrupted)(void); /* asked every thousand rows, by any thread; NULL: never */
};

/* Evaluates on all rows of a split.
 *   per_trajectory     if not NULL: the policy's values (the log's own without one), for paired
 *                      comparisons, in order of first appearance; [out->behaviour.trajectories],
 *                      caller frees
 * The same bits for any number of threads. Memory grows with the number of trajectories (by
 * sessions: of sessions), not of rows. Errors: LH_EMISMATCH if the policy's widths are not the
 * dataset's, the split is empty, or sessions are the unit and no trajectory has two;
 * LH_ECANCELED when interrupted. */
int lh_evaluate(const struct lh_evaluate_spec *spec, double ess_floor, unsigned threads,
                struct lh_evaluation *out, double **per_trajectory);

/* --- in parts, so that several processes may share it -------------------------------------------
 */
/* What a block of rows holds of one trajectory (by sessions: of one session). Plain data without
 * padding: it may be sent. */
struct lh_evaluate_piece {
    uint64_t block, trajectory, session; /* session: 0 where rows are the unit */
    struct lh_ncis_sum sum;              /* of rows */
    double distance;                     /* of the whole block, in its first piece, ... */
    struct lh_choice_sum choice;         /* ... and this too */
};

struct lh_evaluate_pieces {
    struct lh_evaluate_piece *items; /* lh_mem_free */
    size_t n, cap;
};

/* Blocks of a split: what can be shared out. */
enum { LH_EVALUATE_BLOCK = 1024 }; /* rows of one, but of the last */
uint64_t lh_evaluate_blocks(const struct lh_dataset *ds, enum lh_split split);
/* Walks the blocks [first, first + n) and appends their pieces. Errors as of lh_evaluate. */
int lh_evaluate_part(const struct lh_evaluate_spec *spec, uint64_t first, uint64_t n,
                     unsigned threads, struct lh_evaluate_pieces *out);
/* The evaluation from the pieces of all blocks, in ascending order of blocks: the bits of
 * lh_evaluate, whoever walked which. spec->policy is not looked at. */
int lh_evaluate_join(const struct lh_evaluate_spec *spec, const struct lh_evaluate_pieces *pieces,
                     double ess_floor, struct lh_evaluation *out, double **per_trajectory);

struct cJSON;
/* One estimate as a cJSON object, the caller's; `weighted`: with what only a policy has. NULL if
 * memory is out. */
struct cJSON *lh_evaluate_json_estimate(const struct lh_estimate *e, enum lh_unit unit,
                                        bool weighted);
/* The same for what stands behind a policy's choices. */
struct cJSON *lh_evaluate_json_choice(const struct lh_choice *c);
extern const char *const lh_unit_plural[]; /* "rows", "sessions" */

/* The evaluation as a JSON object, what runs and snapshots record; caller frees (lh_mem_free). NAN
 * is written as null. */
int lh_evaluate_json(const struct lh_evaluation *e, enum lh_split split, char **out);

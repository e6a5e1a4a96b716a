/* Reconstructing the logged policy (ResAct section 3.1): what ResAct and the imitation baselines
 * share. Two forms over the network `cvae.decoder`:
 *   deterministic  D(a | s)                                                    Eq. 2
 *   CVAE           E(c | s, a) with D(a | s, c), the network `cvae.encoder`    Eq. 3
 * Under bound `clip` the decoder ends in tanh, since the log's actions lie in [-1, 1]. */
#pragma once

#include "common/graph.h"
#include "common/job.h"
#include "worker/algo.h"

/* The network all algorithms use: job's hidden layers, then `out` columns ending in `last`. */
struct lh_mlp_spec lh_reconstruct_mlp(const struct lh_job *job, size_t out,
                                      enum lh_activation last);

size_t lh_reconstruct_latent(const struct lh_job *job); /* C */

/* D: the reconstructed action [R, A] of states s [R, H + L]. c [R, C], or NULL for the
 * deterministic form. */
lh_node lh_reconstruct_decode(struct lh_graph *g, const struct lh_job *job, enum lh_use use,
                              lh_node s, const lh_node *c);

/* Declares the losses `rec` (and `kl` if cvae) over the logged s and a. Returns the
 * reconstructed action [B, A]. */
lh_node lh_reconstruct_train(struct lh_graph *g, const struct lh_job *job, lh_node s, lh_node a,
                             bool cvae);

/* How encoder and decoder are updated. */
struct lh_algo_group lh_reconstruct_group(const struct lh_job *job);

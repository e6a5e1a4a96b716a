/* What a server needs to know of a job, for the callbacks of lh_server_options: the algorithm's
 * layout and initial weights, which ps/ cannot ask worker/ for itself. */
#pragma once

#include "ps/server.h"

/* What a run begins with where that is not drawn by the seed. */
struct lh_role_initial {
    const float *weights, *targets; /* [flat_size] of the training graph */
};

/* ctx: a struct lh_role_initial, or NULL. */
int lh_role_model(void *ctx, const struct lh_job *job, size_t shards, bool initial,
                  struct lh_server_model *out);
void lh_role_model_fini(void *ctx, struct lh_server_model *model);

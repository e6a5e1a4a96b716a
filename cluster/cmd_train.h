/* What `longhaul train` and `longhaul scheduler` share: they are one run, placed differently. */
#pragma once

#include "cluster/train.h"

#include <stdbool.h>

struct lh_metrics;
/* Says where a process serves its metrics. */
void lh_cmd_tell_metrics(const struct lh_metrics *m);

/* How the command of a role ends: without a word where `others` say why, once for all. */
int lh_cmd_role_ended(int rc, bool others);

/* Loads the job, trains, prints the result: a table, or one JSON line. */
int lh_cmd_train_run(const char *job_path, const char *const *sets, size_t n_sets,
                     const struct lh_train_options *opt, bool json, bool verbose);

/* Training the behaviour model: IL on the training split until the validation error stops falling,
 * once for a dataset, kept beside it.
 *
 *   DATASET/.behaviour/<digest>/   a snapshot; <digest> is that of the imitation job below
 *
 * The recipe is fixed (it is not the evaluated job's), so that all policies of a dataset are
 * held against the same model. */
#pragma once

#include "common/dataset.h"

#include <stdbool.h>

/* Gives the path of the snapshot to open with lh_behaviour_open; caller frees.
 *   choice   job->behaviour: "auto", or a snapshot, whose path is then returned as it is
 * "auto" trains it (lh_train, no evaluation) unless it is there; another process that does the
 * same at the same time does no harm: the first whole one stays. Where the dataset's directory
 * cannot be written, LH_EACCES says to name a snapshot instead. */
int lh_behaviour_train_ensure(char **out, const struct lh_dataset *ds, const char *choice,
                              unsigned workers, bool quiet);

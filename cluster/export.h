/* From a run to a snapshot: gathers what a snapshot holds (weights of a cut, normalisation and
 * names of the dataset, the probe's answers) and writes it. */
#pragma once

#include "cluster/train.h"
#include "common/dataset.h"

/* Writes the cut that `run` holds as snapshot DIR.
 *   ds       the dataset the run was trained on
 *   cut      "best" or "last", for the manifest
 *   replace  a snapshot that is there is exchanged
 * Errors: those of lh_snapshot_write; LH_EMISMATCH if ds is another dataset. */
int lh_export_run(const char *dir, const struct lh_run *run, const struct lh_dataset *ds,
                  const char *cut, bool replace);

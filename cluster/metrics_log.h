/* metrics.jsonl: one JSON object a step.
 *   {"step": 12, "epoch": 0.4, "<loss or metric>": x, …, "seconds": 1.5, "transitions_per_s": 8e4}
 * step is the version the step made; epoch the passes over the training log so far; seconds since
 * this run (or its resumption) began. Numbers that are not finite are null. */
#pragma once

#include "common/graph.h"

#include <stddef.h>
#include <stdint.h>

struct lh_metrics_log;

struct lh_metrics_log_spec {
    const char *dir;
    const struct lh_graph *graph; /* names; lives as long as the log */
    uint64_t start;               /* lines of later steps are dropped: they will come again */
    uint64_t batch, transitions;
};

/* Opens DIR/metrics.jsonl to append behind step `start`. Errors: those of files. */
int lh_metrics_log_open(struct lh_metrics_log **out, const struct lh_metrics_log_spec *spec);
/* values [n_metrics] of the step that made `version`, `seconds` after the run began. */
int lh_metrics_log_add(struct lh_metrics_log *m, uint64_t version, const float *values,
                       double seconds);
/* Writes the lines of the steps added; what the disk does not take waits (cluster/step_lines.h). */
int lh_metrics_log_flush(struct lh_metrics_log *m);
int lh_metrics_log_sync(struct lh_metrics_log *m); /* and for a power failure, too */
/* The run goes back to `step`, whose clock begins anew: later lines are dropped. */
int lh_metrics_log_back(struct lh_metrics_log *m, uint64_t step);
int lh_metrics_log_close(struct lh_metrics_log **m); /* NULL content allowed */

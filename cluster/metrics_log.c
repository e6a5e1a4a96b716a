/* The writer of metrics.jsonl. */
#include "cluster/metrics_log.h"

#include "cluster/step_lines.h"
#include "common/err.h"
#include "common/mem.h"

#include <math.h>

struct lh_metrics_log {
    struct lh_metrics_log_spec spec;
    struct lh_step_lines *lines;
    double last_seconds;
};

int lh_metrics_log_open(struct lh_metrics_log **out, const struct lh_metrics_log_spec *spec)
{
    struct lh_metrics_log *m = NULL;
    char *path = NULL;
    int rc;
    LH_TRY(LH_NEW(&m, "metrics"));
    m->spec = *spec;
    LH_TRY_TO(fail, lh_mem_printf(&path, "%s/metrics.jsonl", spec->dir));
    LH_TRY_TO(fail, lh_step_lines_open(&m->lines, path, spec->start));
    lh_mem_free(path);
    *out = m;
    return 0;
fail:
    lh_mem_free(path);
    lh_metrics_log_close(&m);
    return rc;
}

static int number(struct lh_metrics_log *m, const char *name, double x)
{
    return isfinite(x) ? lh_step_lines_print(m->lines, ", \"%s\": %.7g", name, x)
                       : lh_step_lines_print(m->lines, ", \"%s\": null", name);
}

int lh_metrics_log_add(struct lh_metrics_log *m, uint64_t version, const float *values,
                       double seconds)
{
    double rows = (double)m->spec.batch;
    LH_TRY(lh_step_lines_print(m->lines, "{\"step\": %llu", (unsigned long long)version));
    LH_TRY(number(m, "epoch", (double)version * rows / (double)m->spec.transitions));
    for (size_t i = 0; i < lh_graph_metrics(m->spec.graph); i++)
        LH_TRY(number(m, lh_graph_metric_name(m->spec.graph, i), (double)values[i]));
    LH_TRY(number(m, "seconds", seconds));
    LH_TRY(number(m, "transitions_per_s", rows / (seconds - m->last_seconds)));
    m->last_seconds = seconds;
    return lh_step_lines_print(m->lines, "}\n");
}

int lh_metrics_log_flush(struct lh_metrics_log *m)
{
    return lh_step_lines_flush(m->lines);
}

int lh_metrics_log_sync(struct lh_metrics_log *m)
{
    return lh_step_lines_sync(m->lines);
}

int lh_metrics_log_back(struct lh_metrics_log *m, uint64_t step)
{
    m->last_seconds = 0;
    return lh_step_lines_back(m->lines, step);
}

int lh_metrics_log_close(struct lh_metrics_log **out)
{
    struct lh_metrics_log *m = *out;
    if (!m)
        return 0;
    int rc = lh_step_lines_close(&m->lines);
    lh_mem_free(m);
    *out = NULL;
    return rc;
}

/* The writer of metrics.jsonl. */
#include "cluster/metrics_log.h"

#include "cluster/step_lines.h"
#include "common/err.h"
#include "common/mem.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

struct lh_metrics_log {
    struct lh_metrics_log_spec spec;
    char *path;
    FILE *file;
    double last_seconds;
};

int lh_metrics_log_open(struct lh_metrics_log **out, const struct lh_metrics_log_spec *spec)
{
    struct lh_metrics_log *m = NULL;
    int rc;
    LH_TRY(LH_NEW(&m, "metrics"));
    m->spec = *spec;
    LH_TRY_TO(fail, lh_mem_printf(&m->path, "%s/metrics.jsonl", spec->dir));
    LH_TRY_TO(fail, lh_step_lines_open(&m->file, m->path, spec->start));
    *out = m;
    return 0;
fail:
    lh_metrics_log_close(&m);
    return rc;
}

static void number(FILE *f, const char *name, double x)
{
    if (isfinite(x))
        fprintf(f, ", \"%s\": %.7g", name, x);
    else
        fprintf(f, ", \"%s\": null", name);
}

static int failed(struct lh_metrics_log *m)
{
    return lh_err_errno(errno ? errno : EIO, "%s", m->path);
}

int lh_metrics_log_add(struct lh_metrics_log *m, uint64_t version, const float *values,
                       double seconds)
{
    FILE *f = m->file;
    double rows = (double)m->spec.batch;
    fprintf(f, "{\"step\": %llu", (unsigned long long)version);
    number(f, "epoch", (double)version * rows / (double)m->spec.transitions);
    for (size_t i = 0; i < lh_graph_metrics(m->spec.graph); i++)
        number(f, lh_graph_metric_name(m->spec.graph, i), (double)values[i]);
    number(f, "seconds", seconds);
    number(f, "transitions_per_s", rows / (seconds - m->last_seconds));
    fputs("}\n", f);
    m->last_seconds = seconds;
    return ferror(f) ? failed(m) : 0;
}

int lh_metrics_log_flush(struct lh_metrics_log *m)
{
    return fflush(m->file) != 0 ? failed(m) : 0;
}

int lh_metrics_log_close(struct lh_metrics_log **out)
{
    struct lh_metrics_log *m = *out;
    if (!m)
        return 0;
    int rc = 0;
    if (m->file && fclose(m->file) != 0)
        rc = failed(m);
    lh_mem_free(m->path);
    lh_mem_free(m);
    *out = NULL;
    return rc;
}

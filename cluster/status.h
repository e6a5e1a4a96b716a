/* status.json: how a running job stands, for `longhaul status` and `longhaul top`. Its scheduler
 * writes it beside run.json about once a second, aside and renamed, and not synced: it is for eyes.
 * What a run durably is stands in run.json.
 *
 * A file rather than a question to the scheduler: it can be read by whoever may read the run, from
 * any terminal of any host that sees the directory, whatever transport and keys the job uses; it
 * costs the scheduler nothing to be watched by many; and after a crash it still says how things
 * stood last. Elsewhere the same numbers are among the metrics. */
#pragma once

#include "common/err.h"
#include "common/http.h"
#include "common/metrics.h"
#include "common/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_status_role {
    uint32_t node;
    bool server;
    uint32_t shard; /* of a server */
    char host[64], metrics[LH_HTTP_ENDPOINT_MAX];
    char standing[16]; /* "hello", "planned", "ready", "gone" */
    uint64_t pid, version;
    double silent;             /* seconds since it was heard */
    double phases[LH_PHASE_N]; /* seconds, in the order of LH_PHASE_… */
    uint64_t steps, rows, dropped, bytes_in, bytes_out, memory;
    /* of a server: steps that weights lacked, over all steps, and at most; of shard 0: what idle
     * workers took over of others */
    uint64_t lacked, lacked_most, taken_over;
};

struct lh_status_loss {
    char name[64];
    double value;
};

struct lh_status {
    double written, began; /* seconds since 1970; when the scheduler began */
    char stage[16];        /* "gathering", "running", "pausing", "finishing", "stopping" */
    char job[64], algorithm[32], host[64];
    uint64_t pid;
    char endpoint[LH_NET_ENDPOINT_MAX], metrics[LH_HTTP_ENDPOINT_MAX];
    uint64_t step, start, until, total, batch; /* until: of this run; total: of the job */
    double rate; /* transitions a second, over the last ten seconds; NaN: not known yet */
    double eta;  /* seconds to `until` at that rate; NaN: not known */
    bool has_cut;
    uint64_t cut; /* the last complete one; 0 where it is older than this scheduler */
    double cut_at;
    uint64_t failed_cuts;     /* that did not come about since the last that did */
    char trouble[LH_ERR_MAX]; /* why; "": none failed */
    bool has_evaluation;      /* the last one of this scheduler */
    double value, lo, hi, ess_share;
    bool has_best;
    uint64_t best;
    double best_value;
    uint64_t memory; /* of the scheduler's process */
    uint32_t wanted_workers, wanted_servers;
    struct lh_status_loss *losses;
    size_t n_losses;
    struct lh_status_role *roles;
    size_t n_roles;
};

void lh_status_fini(struct lh_status *s); /* idempotent */

struct cJSON;
/* As an object; NULL when memory ends. Numbers that are not finite are null. */
struct cJSON *lh_status_json(const struct lh_status *s);
/* Errors: LH_ENOMEM; those of files. */
int lh_status_save(const struct lh_status *s, const char *path);
/* Reads into *out, which holds nothing before. Errors: LH_ENOENT; LH_EFORMAT naming file and
 * member; LH_ENOMEM. */
int lh_status_load(struct lh_status *out, const char *path);

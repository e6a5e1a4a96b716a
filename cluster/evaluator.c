/* The evaluator's thread. One result at a time is handed over, so that a slow reader slows the
 * evaluation and, at the next version to fetch, training: nothing piles up. */
#include "cluster/evaluator.h"

#include "common/mem.h"
#include "common/pull.h"
#include "common/term.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define POLL 0.05 /* seconds: how soon a stop is noticed */

struct lh_evaluator {
    struct lh_evaluator_spec spec;
    char **endpoints, **keys;
    float *weights, *targets;
    struct lh_rowpull rows;
    pthread_t thread;
    bool started;
    atomic_bool stop;
    _Atomic uint64_t next;
    /* the result, handed over by `full`: the thread writes while it is false, the reader reads
     * while it is true */
    atomic_bool full;
    uint64_t version;
    struct lh_verdict verdict;
    struct lh_err err;
};

static uint64_t next_version(const struct lh_clock *c, uint64_t after, bool first)
{
    if (first && lh_clock_evaluates(c, c->start))
        return c->start;
    uint64_t v = (after / c->evaluate_every + 1) * c->evaluate_every;
    if (v > c->total)
        v = c->total;
    return v > after && v <= c->until ? v : UINT64_MAX;
}

/* Takes in what has come. */
static int take(struct lh_evaluator *e, struct lh_pull *pull, struct lh_net_poll *polls)
{
    LH_TRY(lh_net_poll(polls, pull->n_shards, POLL));
    for (size_t i = 0; i < pull->n_shards; i++) {
        struct lh_net_message msg;
        int rc;
        while (polls[i].in && (rc = lh_net_recv(pull->shards[i].socket, &msg)) == 0) {
            rc = lh_rowpull_take(&e->rows, i, &msg);
            if (rc == LH_NOTFOUND)
                rc = lh_pull_take(pull, i, &msg);
            if (rc == LH_EPROTO)
                lh_net_reject(pull->shards[i].socket, &msg);
            lh_net_message_fini(&msg);
            if (rc < 0 && rc != LH_EPROTO)
                return rc;
        }
        if (polls[i].in && rc < 0)
            return rc;
    }
    return 0;
}

static int passed(uint64_t version)
{
    return lh_err_set(LH_EINTERNAL, "version %llu was passed before it was evaluated",
                      (unsigned long long)version);
}

/* The servers may pass that version now. A word that is lost is made up for by the next pull. */
static int say_fetched(struct lh_evaluator *e, struct lh_pull *pull)
{
    struct lh_envelope env = {.kind = LH__KIND__KIND_FETCHED,
                              .job = e->spec.job,
                              .step = pull->version,
                              .epoch = e->spec.generation};
    for (size_t i = 0; i < pull->n_shards; i++) {
        int rc = lh_net_send(pull->shards[i].socket, NULL, &env, NULL, 0);
        LH_TRY(rc);
    }
    return 0;
}

/* The rows first: a version that is evaluated waits until its weights were fetched. */
static int fetch_rows(struct lh_evaluator *e, struct lh_pull *pull, struct lh_net_poll *polls,
                      uint64_t version)
{
    if (e->spec.n_tables == 0)
        return 0;
    lh_rowpull_begin(&e->rows, version);
    LH_TRY(e->spec.ids(e->spec.ctx, &e->rows));
    LH_TRY(lh_rowpull_ask(&e->rows));
    while (!lh_rowpull_complete(&e->rows) && !atomic_load(&e->stop)) {
        int rc = lh_rowpull_send(&e->rows, pull);
        LH_TRY(rc < 0 ? rc : 0);
        LH_TRY(take(e, pull, polls));
        if (e->rows.gone)
            return passed(version);
        if (lh_now() - e->rows.since > e->spec.deadline) { /* lost, or not due yet */
            lh_rowpull_repeat(&e->rows);
            if (pull->complete) /* the word that it has the version before, too */
                LH_TRY(say_fetched(e, pull));
        }
    }
    return 0;
}

static int pull_rows(void *ctx, size_t t, const uint64_t *ids, size_t n, float *rows)
{
    const struct lh_evaluator *e = ctx;
    const size_t dim = e->rows.tables[t].dim;
    for (size_t i = 0; i < n; i++) {
        const float *row = lh_rowpull_find(&e->rows, t, ids[i]);
        if (!row)
            return lh_err_set(LH_EINTERNAL, "a row that was not fetched is looked up");
        memcpy(rows + i * dim, row, dim * sizeof *rows);
    }
    return 0;
}

static int fetch(struct lh_evaluator *e, struct lh_pull *pull, struct lh_net_poll *polls,
                 uint64_t version)
{
    LH_TRY(fetch_rows(e, pull, polls, version));
    LH_TRY(lh_pull_begin(pull, version));
    while (!pull->complete && !atomic_load(&e->stop)) {
        LH_TRY(take(e, pull, polls));
        if (!pull->complete && /* lost, or not due yet */
            (lh_pull_broke(pull) || lh_now() - pull->asked > e->spec.deadline))
            LH_TRY(lh_pull_begin(pull, pull->version));
    }
    if (pull->complete && pull->version != version)
        return passed(version);
    return pull->complete ? say_fetched(e, pull) : 0;
}

/* Takes over the verdict. False: stopped, nobody reads any more. */
static bool hand_over(struct lh_evaluator *e, uint64_t version, int rc, struct lh_verdict *verdict)
{
    struct lh_err err;
    lh_err_save(&err, rc < 0 ? rc : 0);
    while (atomic_load(&e->full) && !atomic_load(&e->stop))
        zmq_poll(NULL, 0, 5);
    if (atomic_load(&e->full)) {
        lh_mem_free(verdict->json);
        return false;
    }
    e->version = version;
    e->err = err;
    e->verdict = *verdict;
    atomic_store(&e->full, true);
    return true;
}

static int evaluate_all(struct lh_evaluator *e, struct lh_pull *pull, struct lh_net_poll *polls)
{
    uint64_t v = atomic_load(&e->next);
    while (v != UINT64_MAX && !atomic_load(&e->stop)) {
        struct lh_verdict verdict = {0};
        LH_TRY(fetch(e, pull, polls, v));
        if (!pull->complete)
            return 0; /* stopped */
        struct lh_evaluator_version version = {
            .number = v, .weights = e->weights, .targets = e->targets};
        if (e->spec.n_tables > 0)
            version.rows = (struct lh_row_source){.ctx = e, .pull = pull_rows};
        LH_TRY(e->spec.evaluate(e->spec.ctx, &version, &verdict));
        if (!hand_over(e, v, 0, &verdict))
            return 0;
        v = next_version(&e->spec.clock, v, false);
        atomic_store(&e->next, v);
    }
    return 0;
}

static void *run(void *arg)
{
    struct lh_evaluator *e = arg;
    struct lh_pull pull = {0};
    struct lh_net_poll *polls = NULL;
    int rc = lh_pull_open(&pull, &(struct lh_pull_spec){.zmq = e->spec.zmq,
                                                        .layout = e->spec.layout,
                                                        .endpoints = e->endpoints,
                                                        .keys = e->keys,
                                                        .security = e->spec.security,
                                                        .job = e->spec.job,
                                                        .generation = e->spec.generation,
                                                        .queue = 1 << 16});
    if (rc == 0)
        rc = LH_NEW_ARRAY(&polls, pull.n_shards, "sockets");
    for (size_t i = 0; rc == 0 && i < pull.n_shards; i++)
        polls[i].socket = pull.shards[i].socket;
    pull.weights = e->weights;
    pull.targets = e->targets;
    if (rc == 0)
        rc = evaluate_all(e, &pull, polls);
    if (rc < 0)
        hand_over(e, atomic_load(&e->next), rc, &(struct lh_verdict){0});
    atomic_store(&e->next, UINT64_MAX);
    lh_pull_close(&pull);
    lh_mem_free(polls);
    return NULL;
}

static void destroy(struct lh_evaluator *e)
{
    for (size_t i = 0; i < e->spec.layout->n_shards; i++) {
        if (e->endpoints)
            lh_mem_free(e->endpoints[i]);
        if (e->keys)
            lh_mem_free(e->keys[i]);
    }
    lh_mem_free(e->endpoints);
    lh_mem_free(e->keys);
    lh_mem_free(e->weights);
    lh_mem_free(e->targets);
    lh_rowpull_fini(&e->rows);
    lh_mem_free(e->verdict.json);
    lh_mem_free(e);
}

int lh_evaluator_start(struct lh_evaluator **out, const struct lh_evaluator_spec *spec)
{
    struct lh_evaluator *e = NULL;
    int rc;
    LH_TRY(LH_NEW(&e, "evaluator"));
    e->spec = *spec;
    atomic_init(&e->next, next_version(&spec->clock, spec->clock.start, true));
    size_t flat = spec->layout->flat_size;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&e->endpoints, spec->layout->n_shards, "endpoints"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&e->keys, spec->layout->n_shards, "keys"));
    for (size_t i = 0; i < spec->layout->n_shards; i++) {
        LH_TRY_TO(fail, lh_mem_strdup(&e->endpoints[i], spec->endpoints[i]));
        LH_TRY_TO(fail, lh_mem_strdup(&e->keys[i], spec->keys ? spec->keys[i] : ""));
    }
    LH_TRY_TO(fail,
              lh_rowpull_init(&e->rows, spec->tables, spec->n_tables, spec->layout->n_shards, 0));
    LH_TRY_TO(fail, lh_mem_alloc_aligned((void **)&e->weights, flat, sizeof(float), "weights"));
    LH_TRY_TO(fail, lh_mem_alloc_aligned((void **)&e->targets, flat, sizeof(float), "targets"));
    memset(e->weights, 0, flat * sizeof(float));
    memset(e->targets, 0, flat * sizeof(float));
    int n = pthread_create(&e->thread, NULL, run, e);
    if (n != 0) {
        rc = lh_err_errno(n, "starting the thread that evaluates");
        goto fail;
    }
    e->started = true;
    *out = e;
    return 0;
fail:
    destroy(e);
    return rc;
}

void lh_evaluator_stop(struct lh_evaluator **out)
{
    struct lh_evaluator *e = *out;
    if (!e)
        return;
    atomic_store(&e->stop, true);
    if (e->started)
        pthread_join(e->thread, NULL);
    destroy(e);
    *out = NULL;
}

bool lh_evaluator_poll(struct lh_evaluator *e, uint64_t *version, struct lh_verdict *out,
                       struct lh_err *err)
{
    if (!atomic_load(&e->full))
        return false;
    *version = e->version;
    *out = e->verdict;
    *err = e->err;
    e->verdict.json = NULL;
    atomic_store(&e->full, false);
    return true;
}

uint64_t lh_evaluator_next(const struct lh_evaluator *e)
{
    return atomic_load(&e->full) ? e->version : atomic_load(&e->next);
}

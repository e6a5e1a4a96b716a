/* Both ends of a shared evaluation. Weights go out before rank 0 begins its own part, and the
 * pieces are fetched after it. */
#include "cluster/rank_evaluation.h"

#include "cluster/cut_rows.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/term.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE      30.0 /* seconds for a message to go */
#define PATIENCE_MORE 10.0 /* for a helper's part, so many times what rank 0 took for its own */
#define PAUSE_US      1000
#define ROWS_BYTES    ((size_t)1 << 20) /* of a message of rows */

struct task {
    uint64_t number; /* of the evaluation, from 1 */
    uint64_t first, n, weights;
    uint64_t rows; /* floats of all rows of tables */
    uint32_t split, threads;
};

struct done {
    uint64_t number, pieces;
    int32_t code, unused;
    char text[LH_ERR_MAX];
};

static_assert(sizeof(struct done) <= LH_MPI_POSTED_MAX, "is posted");
static_assert(sizeof(struct task) <= LH_MPI_POSTED_MAX, "is posted");

/* Rows that travel together; both sides reckon so. */
static size_t rows_a_message(size_t dim)
{
    const size_t n = ROWS_BYTES / (dim * sizeof(float));
    return n > 0 ? n : 1;
}

/* --- rank 0 ------------------------------------------------------------------------------------
 */
struct helper {
    int rank;
    bool lost; /* died, or cannot */
    uint64_t first, n;
    struct lh_cut_rows rows; /* that its blocks name: their ids */
    struct lh_mpi_sending *sending;
    struct lh_evaluate_pieces pieces;
    bool answered;
};

struct lh_rank_lead {
    struct lh_mpi *mpi;
    struct helper *helpers;
    size_t n;
    double patience; /* seconds for a helper's part, at least */
    uint64_t number;
    char *setup; /* job, behaviour model: two strings */
    size_t setup_bytes;
};

int lh_rank_lead_create(struct lh_rank_lead **out, struct lh_mpi *m, const int *ranks, size_t n,
                        double patience)
{
    struct lh_rank_lead *l = NULL;
    LH_TRY(LH_NEW(&l, "evaluation over ranks"));
    l->mpi = m;
    l->patience = patience;
    l->n = n;
    int rc = LH_NEW_ARRAY(&l->helpers, n, "evaluation over ranks");
    if (rc < 0) {
        lh_mem_free(l);
        return rc;
    }
    for (size_t i = 0; i < n; i++)
        l->helpers[i].rank = ranks[i];
    *out = l;
    return 0;
}

void lh_rank_lead_destroy(struct lh_rank_lead **out)
{
    struct lh_rank_lead *l = *out;
    if (!l)
        return;
    for (size_t i = 0; i < l->n; i++) {
        lh_mem_free(l->helpers[i].pieces.items);
        lh_cut_rows_fini(&l->helpers[i].rows);
        lh_mem_free(l->helpers[i].sending); /* on its way to one that is lost */
    }
    lh_mem_free(l->helpers);
    lh_mem_free(l->setup);
    lh_mem_free(l);
    *out = NULL;
}

static void lose(struct lh_rank_lead *l, struct helper *h, const char *why)
{
    h->lost = true;
    lh_note("rank %d on %s does not help with evaluations: %s; rank 0 does its part", h->rank,
            lh_mpi_host(l->mpi, h->rank), why);
}

/* Waits until all that is on its way has gone. */
static void flush(struct lh_rank_lead *l)
{
    const double until = lh_now() + l->patience;
    for (bool waiting = true; waiting; usleep(PAUSE_US)) {
        waiting = false;
        for (size_t i = 0; i < l->n; i++) {
            struct helper *h = &l->helpers[i];
            if (h->lost || lh_mpi_sent(l->mpi, &h->sending))
                continue;
            if (lh_now() > until)
                lose(l, h, "it takes nothing");
            waiting = true;
        }
    }
}

static int send_all(struct lh_rank_lead *l, int kind, const void *data, size_t bytes)
{
    for (size_t i = 0; i < l->n; i++) {
        struct helper *h = &l->helpers[i];
        if (!h->lost && h->n > 0)
            LH_TRY(lh_mpi_send(l->mpi, h->rank, kind, data, bytes, &h->sending));
    }
    flush(l);
    return 0;
}

static int send_setup(struct lh_rank_lead *l, const struct lh_cut_evaluation *e)
{
    char *job = NULL;
    LH_TRY(lh_job_print(e->job, &job));
    size_t n = strlen(job) + 1, m = strlen(e->behaviour_path) + 1;
    int rc = LH_NEW_ARRAY(&l->setup, n + m, "evaluation over ranks");
    if (rc >= 0) {
        memcpy(l->setup, job, n);
        memcpy(l->setup + n, e->behaviour_path, m);
        l->setup_bytes = n + m;
    }
    lh_mem_free(job);
    LH_TRY(rc);
    for (size_t i = 0; i < l->n; i++)
        if (!l->helpers[i].lost)
            LH_TRY(lh_mpi_send(l->mpi, l->helpers[i].rank, LH_RANK_EVALUATION_SETUP, l->setup,
                               l->setup_bytes, &l->helpers[i].sending));
    flush(l);
    return 0;
}

/* The next of `walkers` equal parts of what is left. */
static uint64_t next_part(uint64_t *left, uint64_t *walkers)
{
    uint64_t part = (*left + *walkers - 1) / *walkers;
    *left -= part;
    --*walkers;
    return part;
}

/* Rank 0 walks [0, *own), helper after helper what follows. */
static int share_out(struct lh_rank_lead *l, const struct lh_cut_evaluation *e, enum lh_split split,
                     uint64_t blocks, uint64_t *own)
{
    uint64_t left = blocks, walkers = 1;
    for (size_t i = 0; i < l->n; i++)
        walkers += !l->helpers[i].lost;
    *own = next_part(&left, &walkers);
    for (size_t i = 0; i < l->n; i++) {
        struct helper *h = &l->helpers[i];
        h->first = blocks - left;
        h->n = h->lost ? 0 : next_part(&left, &walkers);
        h->answered = false;
        h->pieces.n = 0;
        lh_cut_rows_fini(&h->rows);
        if (h->n > 0)
            LH_TRY(lh_cut_rows_init(&h->rows, e, split, h->first, h->n));
    }
    return 0;
}

static uint64_t floats_of(const struct lh_cut_rows *r)
{
    uint64_t n = 0;
    for (size_t t = 0; t < r->n; t++)
        n += (uint64_t)r->tables[t].n * r->tables[t].dim;
    return n;
}

static int send_tasks(struct lh_rank_lead *l, const struct lh_cut_walk *w, size_t n_weights)
{
    for (size_t i = 0; i < l->n; i++) {
        struct helper *h = &l->helpers[i];
        struct task t = {.number = l->number,
                         .first = h->first,
                         .n = h->n,
                         .weights = n_weights,
                         .rows = floats_of(&h->rows),
                         .split = (uint32_t)w->split,
                         .threads = w->threads};
        if (h->lost || h->n == 0)
            continue;
        int rc = lh_mpi_post(l->mpi, h->rank, LH_RANK_EVALUATION_TASK, &t, sizeof t);
        if (rc == LH_AGAIN)
            lose(l, h, "it takes nothing");
        LH_TRY(rc);
    }
    size_t piece = LH_MPI_BYTES_MAX / sizeof *w->weights;
    for (size_t at = 0; at < n_weights; at += piece) {
        size_t n = n_weights - at < piece ? n_weights - at : piece;
        LH_TRY(send_all(l, LH_RANK_EVALUATION_WEIGHTS, w->weights + at, n * sizeof *w->weights));
    }
    return 0;
}

/* Those of one table to one helper, as many at a time as there is room for. */
static int send_rows_of(struct lh_rank_lead *l, struct helper *h, size_t t,
                        const struct lh_cut_walk *w, float *room)
{
    const size_t n = h->rows.tables[t].n, dim = h->rows.tables[t].dim, piece = rows_a_message(dim);
    for (size_t at = 0; at < n && !h->lost; at += piece) {
        const size_t m = n - at < piece ? n - at : piece;
        LH_TRY(w->rows.pull(w->rows.ctx, t, h->rows.tables[t].ids + at, m, room));
        LH_TRY(lh_mpi_send(l->mpi, h->rank, LH_RANK_EVALUATION_ROWS, room, m * dim * sizeof *room,
                           &h->sending));
        flush(l);
    }
    return 0;
}

static int send_rows(struct lh_rank_lead *l, const struct lh_cut_walk *w)
{
    float *room = NULL;
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < l->n; i++) {
        struct helper *h = &l->helpers[i];
        for (size_t t = 0; rc >= 0 && !h->lost && h->n > 0 && t < h->rows.n; t++) {
            const size_t dim = h->rows.tables[t].dim;
            lh_mem_free(room);
            rc = LH_NEW_ARRAY(&room, rows_a_message(dim) * dim, "rows of tables");
            if (rc >= 0)
                rc = send_rows_of(l, h, t, w, room);
        }
    }
    lh_mem_free(room);
    return rc;
}

static struct helper *find(struct lh_rank_lead *l, int rank)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->helpers[i].rank == rank)
            return &l->helpers[i];
    return NULL;
}

static int take_done(struct lh_rank_lead *l, struct helper *h, const struct done *d)
{
    if (d->code < 0) {
        if (!h->lost)
            lose(l, h, d->text);
        return 0;
    }
    struct lh_evaluate_pieces late = {0}, *to = d->number == l->number ? &h->pieces : &late;
    size_t n = (size_t)d->pieces, piece = LH_MPI_BYTES_MAX / sizeof *to->items;
    int rc = LH_GROW(&to->items, &to->cap, n ? n : 1, "evaluation over ranks");
    for (size_t at = 0; rc >= 0 && at < n; at += piece)
        rc = lh_mpi_recv(l->mpi, h->rank, LH_RANK_EVALUATION_PIECES, to->items + at,
                         (n - at < piece ? n - at : piece) * sizeof *to->items);
    to->n = n;
    lh_mem_free(late.items);
    h->answered = h->answered || (rc >= 0 && d->number == l->number);
    return rc;
}

static int take_answers(struct lh_rank_lead *l)
{
    int from, kind, rc;
    size_t bytes;
    while ((rc = lh_mpi_next(l->mpi, LH_RANK_EVALUATION_DONE, &from, &kind, &bytes)) == 0) {
        struct done d;
        struct helper *h = find(l, from);
        if (!h || bytes != sizeof d)
            return lh_err_set(LH_EPROTO, "rank %d sent a message of kind %d and %zu bytes", from,
                              kind, bytes);
        LH_TRY(lh_mpi_recv(l->mpi, from, kind, &d, sizeof d));
        LH_TRY(take_done(l, h, &d));
    }
    return rc < 0 ? rc : 0;
}

static int await_answers(struct lh_rank_lead *l, bool (*interrupted)(void), double patience)
{
    const double until = lh_now() + patience;
    for (bool waiting = true; waiting; usleep(PAUSE_US)) {
        LH_TRY(take_answers(l));
        if (interrupted && interrupted())
            return lh_err_set(LH_ECANCELED, "the evaluation was interrupted");
        waiting = false;
        for (size_t i = 0; i < l->n; i++) {
            struct helper *h = &l->helpers[i];
            if (h->lost || h->n == 0 || h->answered)
                continue;
            if (lh_now() > until)
                lose(l, h, "it does not answer");
            waiting = true;
        }
    }
    return 0;
}

static int append(struct lh_evaluate_pieces *out, const struct lh_evaluate_pieces *more)
{
    LH_TRY(LH_GROW(&out->items, &out->cap, out->n + more->n, "evaluation over ranks"));
    if (more->n > 0)
        memcpy(out->items + out->n, more->items, more->n * sizeof *out->items);
    out->n += more->n;
    return 0;
}

int lh_rank_lead_walk(void *ctx, const struct lh_cut_evaluation *e, const struct lh_cut_walk *w,
                      struct lh_evaluate_pieces *out)
{
    struct lh_rank_lead *l = ctx;
    const double began = lh_now();
    const uint64_t blocks = lh_evaluate_blocks(e->dataset, w->split);
    uint64_t own = 0;
    l->number++;
    if (!l->setup)
        LH_TRY(send_setup(l, e));
    LH_TRY(share_out(l, e, w->split, blocks, &own));
    LH_TRY(send_tasks(l, w, lh_graph_flat_size(e->model->graph)));
    LH_TRY(send_rows(l, w));
    LH_TRY(lh_cut_evaluation_walk(e, w, 0, own, out));
    double patience = PATIENCE_MORE * (lh_now() - began);
    LH_TRY(await_answers(l, w->interrupted, patience > l->patience ? patience : l->patience));
    uint64_t helped = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct helper *h = &l->helpers[i];
        helped += h->answered ? h->n : 0;
        if (h->answered)
            LH_TRY(append(out, &h->pieces));
        else if (h->n > 0)
            LH_TRY(lh_cut_evaluation_walk(e, w, h->first, h->n, out));
    }
    lh_log_event(LH_LOG_DEBUG, "shared", LH_FIELDS(LH_F("blocks", blocks), LH_F("helped", helped)));
    return 0;
}

/* --- a rank that helps -------------------------------------------------------------------------
 */
struct lh_rank_help {
    struct lh_mpi *mpi;
    unsigned threads;
    struct lh_err refused; /* why it cannot help; code 0: it can */
    struct lh_dataset *dataset;
    struct lh_job *job;
    struct lh_model model;
    struct lh_cut_evaluation evaluation;
    float *weights;
};

int lh_rank_help_create(struct lh_rank_help **out, struct lh_mpi *m, unsigned threads)
{
    LH_TRY(LH_NEW(out, "evaluation over ranks"));
    (*out)->mpi = m;
    (*out)->threads = threads ? threads : 1;
    return 0;
}

void lh_rank_help_destroy(struct lh_rank_help **out)
{
    struct lh_rank_help *h = *out;
    if (!h)
        return;
    lh_cut_evaluation_fini(&h->evaluation);
    lh_model_fini(&h->model);
    lh_dataset_close(&h->dataset);
    lh_job_destroy(&h->job);
    lh_mem_free(h->weights);
    lh_mem_free(h);
    *out = NULL;
}

static int open_all(struct lh_rank_help *h, const char *job, const char *behaviour)
{
    LH_TRY(lh_job_load_text(&h->job, job, strlen(job), "job", NULL));
    LH_TRY(lh_dataset_open(&h->dataset, h->job->dataset));
    const struct lh_dataset_info *info = lh_dataset_info(h->dataset);
    LH_TRY(lh_job_resolve(h->job, &info->dims, info->digest));
    LH_TRY(lh_model_init(&h->model, h->job, 1));
    LH_TRY(lh_mem_alloc_aligned((void **)&h->weights, lh_graph_flat_size(h->model.graph),
                                sizeof(float), "weights"));
    return lh_cut_evaluation_open(&h->evaluation, h->dataset, h->job, &h->model, behaviour);
}

static int take_setup(struct lh_rank_help *h, size_t bytes)
{
    char *text = NULL;
    LH_TRY(LH_NEW_ARRAY(&text, bytes + 1, "evaluation over ranks"));
    int rc = lh_mpi_recv(h->mpi, 0, LH_RANK_EVALUATION_SETUP, text, bytes);
    text[bytes] = '\0';
    if (rc >= 0)
        lh_err_save(&h->refused, open_all(h, text, text + strnlen(text, bytes) + (bytes > 0)));
    lh_mem_free(text);
    return rc;
}

/* The weights are taken in all the same where they are of no use. */
static int take_weights(struct lh_rank_help *h, const struct task *t)
{
    size_t want = h->refused.code == 0 ? lh_graph_flat_size(h->model.graph) : 0;
    size_t piece = LH_MPI_BYTES_MAX / sizeof(float);
    float *scratch = NULL, *to = h->weights;
    if (t->weights != want) {
        if (h->refused.code == 0)
            lh_err_save(&h->refused,
                        lh_err_set(LH_EMISMATCH, "%llu weights came, this rank's graph has %zu",
                                   (unsigned long long)t->weights, want));
        LH_TRY(LH_NEW_ARRAY(&scratch, (size_t)t->weights, "weights"));
        to = scratch;
    }
    int rc = 0;
    for (size_t at = 0; rc >= 0 && at < t->weights; at += piece)
        rc = lh_mpi_recv(h->mpi, 0, LH_RANK_EVALUATION_WEIGHTS, to + at,
                         (t->weights - at < piece ? t->weights - at : piece) * sizeof *to);
    lh_mem_free(scratch);
    return rc;
}

/* They cannot be used, and who sent them waits until they are taken. */
static int drop_rows(struct lh_rank_help *h, uint64_t floats)
{
    const double until = lh_now() + PATIENCE;
    while (floats > 0 && lh_now() < until) {
        char *scratch = NULL;
        size_t bytes;
        int from, kind, rc = lh_mpi_next(h->mpi, LH_RANK_EVALUATION_ROWS, &from, &kind, &bytes);
        if (rc == LH_AGAIN)
            usleep(PAUSE_US);
        if (rc == LH_AGAIN)
            continue;
        LH_TRY(rc);
        LH_TRY(LH_NEW_ARRAY(&scratch, bytes + 1, "rows of tables"));
        rc = lh_mpi_recv(h->mpi, from, kind, scratch, bytes);
        lh_mem_free(scratch);
        LH_TRY(rc);
        floats -= bytes / sizeof(float) < floats ? bytes / sizeof(float) : floats;
    }
    return 0;
}

/* Of the same dataset the list of ids is the same. What was sent is taken in, in any case. */
static int take_rows(struct lh_rank_help *h, const struct task *t, struct lh_cut_rows *rows)
{
    if (h->refused.code == 0) {
        int rc = lh_cut_rows_init(rows, &h->evaluation, (enum lh_split)t->split, t->first, t->n);
        if (rc >= 0 && floats_of(rows) != t->rows)
            rc = lh_err_set(LH_EMISMATCH, "rows of tables came that this rank's dataset does not "
                                          "name");
        if (rc >= 0)
            rc = lh_cut_rows_make(rows);
        lh_err_save(&h->refused, rc < 0 ? rc : 0);
    }
    if (h->refused.code < 0)
        return drop_rows(h, t->rows);
    for (size_t k = 0; k < rows->n; k++) {
        const size_t dim = rows->tables[k].dim, piece = rows_a_message(dim);
        for (size_t at = 0, m; at < rows->tables[k].n; at += m) {
            m = rows->tables[k].n - at < piece ? rows->tables[k].n - at : piece;
            LH_TRY(lh_mpi_recv(h->mpi, 0, LH_RANK_EVALUATION_ROWS, rows->tables[k].rows + at * dim,
                               m * dim * sizeof(float)));
        }
    }
    return 0;
}

static int send_pieces(struct lh_rank_help *h, const struct lh_evaluate_pieces *pieces)
{
    size_t piece = LH_MPI_BYTES_MAX / sizeof *pieces->items;
    for (size_t at = 0; at < pieces->n; at += piece) {
        struct lh_mpi_sending *s = NULL;
        size_t n = pieces->n - at < piece ? pieces->n - at : piece;
        const double until = lh_now() + PATIENCE;
        LH_TRY(lh_mpi_send(h->mpi, 0, LH_RANK_EVALUATION_PIECES, pieces->items + at,
                           n * sizeof *pieces->items, &s));
        while (!lh_mpi_sent(h->mpi, &s)) {
            if (lh_now() > until)
                return lh_err_set(LH_EPEER, "rank 0 takes no messages any more");
            usleep(PAUSE_US);
        }
    }
    return 0;
}

static int take_task(struct lh_rank_help *h)
{
    struct task t;
    struct lh_evaluate_pieces pieces = {0};
    struct done d = {0};
    struct lh_cut_rows rows = {.n = 0};
    LH_TRY(lh_mpi_recv(h->mpi, 0, LH_RANK_EVALUATION_TASK, &t, sizeof t));
    LH_TRY(take_weights(h, &t));
    int rc = take_rows(h, &t, &rows);
    if (rc < 0) {
        lh_cut_rows_fini(&rows);
        return rc;
    }
    rc = h->refused.code < 0 ? lh_err_load(&h->refused) : 0;
    if (rc == 0)
        rc = lh_cut_evaluation_walk(
            &h->evaluation,
            &(struct lh_cut_walk){.split = (enum lh_split)t.split,
                                  .threads = t.threads < h->threads ? t.threads : h->threads,
                                  .weights = h->weights,
                                  .rows = lh_cut_rows_source(&rows)},
            t.first, t.n, &pieces);
    lh_cut_rows_fini(&rows);
    d.number = t.number;
    d.pieces = pieces.n;
    d.code = rc < 0 ? rc : 0;
    if (rc < 0)
        snprintf(d.text, sizeof d.text, "%s", lh_err_text());
    rc = lh_mpi_post(h->mpi, 0, LH_RANK_EVALUATION_DONE, &d, sizeof d);
    if (rc == 0 && d.code == 0)
        rc = send_pieces(h, &pieces);
    lh_mem_free(pieces.items);
    return rc < 0 ? rc : 0;
}

int lh_rank_help_take(struct lh_rank_help *h, int kind, size_t bytes)
{
    if (kind == LH_RANK_EVALUATION_SETUP)
        return take_setup(h, bytes);
    if (kind == LH_RANK_EVALUATION_TASK && bytes == sizeof(struct task))
        return take_task(h);
    return lh_err_set(LH_EPROTO, "rank 0 sent a message of kind %d and %zu bytes", kind, bytes);
}

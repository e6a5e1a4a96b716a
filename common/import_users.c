/* From buckets to trajectories: each bucket is sorted by user and time; from then on users come one
 * after the other, in the order of their hashes, and a split is a range of that order. Rewards and
 * features may each ask for a pass over all users before the one that makes rows. */
#include "common/import_internal.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"
#include "common/rowsort.h"
#include "common/term.h"
#include "common/yaml.h"

#include <math.h>
#include <string.h>

static bool same_user(const struct lh_row *a, const struct lh_row *b)
{
    return a->hash == b->hash && a->user == b->user;
}

static int sort_bucket(void *ctx, size_t index, unsigned thread)
{
    (void)thread;
    struct lh_importer *im = ctx;
    LH_TRY(lh_import_go_on(im));
    int rc = lh_rowsort_bucket(im->raw, im->sorted, index, im->s->row_bytes, im->bits,
                               &im->bucket_users[index]);
    lh_import_step(im);
    return rc;
}

/* A bucket's sorted rows. */
struct bucket_rows {
    struct lh_spool_view view;
    const char *rows;
    size_t n;
};

static int open_bucket(struct lh_importer *im, size_t index, struct bucket_rows *b)
{
    LH_TRY(lh_spool_view_open(&b->view, im->sorted, index, 0));
    b->rows = b->view.n ? b->view.spans[0].data : NULL; /* one put, one span */
    b->n = b->view.n ? b->view.spans[0].bytes / im->s->row_bytes : 0;
    return 0;
}

/* How many rows from `at` on are of one user. */
static size_t user_rows(const struct lh_importer *im, const struct bucket_rows *b, size_t at,
                        struct lh_row *first)
{
    const size_t width = im->s->row_bytes;
    memcpy(first, b->rows + at * width, sizeof *first);
    size_t n = 1;
    for (struct lh_row row; at + n < b->n; n++) {
        memcpy(&row, b->rows + (at + n) * width, sizeof row);
        if (!same_user(&row, first))
            break;
    }
    return n;
}

/* --- splits ----------------------------------------------------------------------------------- */

/* The user of a rank in the order of hashes. */
static int find_rank(struct lh_importer *im, uint64_t rank, struct lh_import_place *out)
{
    size_t bucket = 0;
    while (rank >= im->bucket_users[bucket])
        rank -= im->bucket_users[bucket++];
    struct bucket_rows b;
    LH_TRY(open_bucket(im, bucket, &b));
    struct lh_row first = {.hash = 0};
    for (size_t at = 0, n; at < b.n; at += n) {
        n = user_rows(im, &b, at, &first);
        if (rank-- == 0)
            break;
    }
    *out = (struct lh_import_place){first.hash, first.user};
    lh_spool_view_close(&b.view);
    return 0;
}

static int set_splits(struct lh_importer *im)
{
    uint64_t users = 0, take[LH_SPLITS] = {0}, taken = 0;
    for (size_t b = 0; b < im->buckets; b++)
        users += im->bucket_users[b];
    for (int i = 0; i < LH_SPLITS; i++) {
        const struct lh_schema_split *s = &im->s->split[i];
        if (s->amount == LH_AMOUNT_SHARE)
            take[i] = (uint64_t)llround(s->share * (double)users);
        else if (s->amount == LH_AMOUNT_COUNT)
            take[i] = s->count;
        if (s->amount == LH_AMOUNT_SHARE && take[i] > users - (taken < users ? taken : users))
            take[i] = users - taken; /* rounding */
        taken += take[i];
    }
    if (taken > users)
        return lh_err_set(LH_ECONFIG,
                          "%s: split asks for %llu users, the log has %llu; lower the numbers or "
                          "use shares",
                          lh_yaml_name(im->s->doc), (unsigned long long)taken,
                          (unsigned long long)users);
    uint64_t end = 0;
    for (int i = 0; i < LH_SPLITS; i++) {
        end += im->s->split[i].amount == LH_AMOUNT_REST ? users - taken : take[i];
        im->open_end[i] = end == users;
        if (end < users)
            LH_TRY(find_rank(im, end, &im->end[i]));
    }
    im->report->users = users;
    im->report->users_left_out = users - end;
    return 0;
}

static int split_of(const struct lh_importer *im, const struct lh_row *row)
{
    for (int i = 0; i < LH_SPLITS; i++) {
        const struct lh_import_place *e = &im->end[i];
        if (im->open_end[i] || row->hash < e->hash || (row->hash == e->hash && row->user < e->user))
            return i;
    }
    return LH_SPLITS;
}

/* --- passes over users ------------------------------------------------------------------------ */

static int reserve_made(struct lh_importer *im, struct lh_import_worker *w, size_t n)
{
    struct lh_userrows_made *m = &w->made;
    m->dims = im->dims;
    if (n <= w->cap_made)
        return 0;
    size_t cap = n > 2 * w->cap_made ? n : 2 * w->cap_made;
    const size_t f = sizeof(float);
    LH_TRY(lh_mem_realloc((void **)&m->high, cap, im->dims.high * f, "features of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->low, cap, im->dims.low * f, "features of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->action, cap, im->dims.action * f, "features of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->ids, cap, im->dims.ids * sizeof *m->ids, "ids of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->reward, cap, f, "rewards of a user"));
    LH_TRY(lh_mem_realloc((void **)&m->keep, cap, 1, "rows of a user"));
    w->cap_made = cap;
    return 0;
}

static int add_trajectory(void *ctx, const struct lh_trajectory *t)
{
    return lh_dataset_writer_add(ctx, t);
}

/* One user, in the pass at hand. */
static int do_user(struct lh_importer *im, struct lh_import_worker *w,
                   const struct lh_user_log *log, uint64_t *left_out)
{
    struct lh_userrows_made *m = &w->made;
    if (im->phase == LH_IMPORT_REWARDS)
        return lh_reward_plan_observe(im->rewards, log);
    LH_TRY(reserve_made(im, w, log->n));
    LH_TRY(lh_reward_plan_apply(im->rewards, log, m->reward));
    if (im->phase == LH_IMPORT_FIT)
        return lh_feature_plan_observe(im->features, log, m->reward);
    memset(m->keep, 1, log->n);
    LH_TRY(
        lh_feature_plan_apply(im->features, log, m->reward, m->high, m->low, m->action, m->keep));
    lh_feature_plan_ids(im->features, log, m->ids);
    return lh_userrows_cut(w->rows, log, m, add_trajectory, im->writer, left_out);
}

static int pass_bucket(void *ctx, size_t index, unsigned thread)
{
    struct lh_importer *im = ctx;
    struct lh_import_worker *w = &im->workers[thread];
    uint64_t sessions[LH_SPLITS] = {0}, left_out = 0;
    struct bucket_rows b;
    int rc = 0;
    LH_TRY(lh_import_go_on(im));
    if (!w->rows)
        LH_TRY(lh_userrows_create(&w->rows, im->s));
    LH_TRY(open_bucket(im, index, &b));
    for (size_t at = 0, n; at < b.n; at += n) {
        struct lh_row first;
        struct lh_user_log log;
        uint64_t count;
        n = user_rows(im, &b, at, &first);
        int split = split_of(im, &first);
        if (split == LH_SPLITS)
            continue;
        LH_TRY_TO(done, lh_userrows_load(w->rows, b.rows + at * im->s->row_bytes, n, &log, &count));
        log.split = (enum lh_split)split;
        sessions[split] += count;
        LH_TRY_TO(done, do_user(im, w, &log, &left_out));
    }
done:
    lh_spool_view_close(&b.view);
    if (im->phase == LH_IMPORT_ROWS) {
        lh_spool_drop(im->sorted, index);
        pthread_mutex_lock(&im->lock);
        for (int i = 0; i < LH_SPLITS; i++)
            im->report->sessions[i] += sessions[i];
        im->report->rows_left_out += left_out;
        pthread_mutex_unlock(&im->lock);
    }
    lh_import_step(im);
    return rc;
}

static int pass(struct lh_importer *im, enum lh_import_phase phase, lh_pool_fn fn)
{
    lh_import_begin_phase(im, phase, im->buckets);
    LH_TRY(lh_pool_run(im->threads, im->buckets, fn, im));
    lh_import_end_phase(im);
    return 0;
}

int lh_import_passes(struct lh_importer *im)
{
    LH_TRY(pass(im, LH_IMPORT_SORT, sort_bucket));
    im->report->spilled_bytes = lh_spool_spilled(im->raw) + lh_spool_spilled(im->sorted);
    lh_spool_destroy(&im->raw);
    LH_TRY(set_splits(im));
    if (lh_reward_plan_needs_pass(im->rewards)) {
        LH_TRY(pass(im, LH_IMPORT_REWARDS, pass_bucket));
        LH_TRY(lh_reward_plan_finish(im->rewards));
    }
    if (lh_feature_plan_needs_pass(im->features)) {
        LH_TRY(pass(im, LH_IMPORT_FIT, pass_bucket));
        im->report->seconds[LH_IMPORT_FIT] -= lh_now();
        LH_TRY(lh_feature_plan_finish(im->features));
        im->report->seconds[LH_IMPORT_FIT] += lh_now();
    }
    return pass(im, LH_IMPORT_ROWS, pass_bucket);
}

/* Embeddings. A factorised one collects the training users' interactions under a lock, in whatever
 * order import's threads bring them, and puts them in one order (user, item, time) before the
 * fit. */
#include "common/embedding.h"

#include "common/delimited.h"
#include "common/err.h"
#include "common/factorise.h"
#include "common/idmap.h"
#include "common/mem.h"
#include "common/rng.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIM_MAX     1024
#define ROWS_LIMIT  INT64_C(20000000)
#define HALVING_MAX 63

enum value { ONE, COLUMN, REWARD };

struct user {
    uint64_t id, start; /* entries [start, start + n) */
    uint32_t n;
};

struct entry {
    uint32_t item; /* number in the order of arrival until finish */
    float value;
};

struct lh_embedding {
    char *name;
    size_t key;
    bool from_file, drops_unseen, finished;
    enum value value;
    size_t column; /* of the value */
    struct lh_factorise_spec spec;
    uint64_t max_rows;

    pthread_mutex_t lock;
    struct user *user;
    size_t n_users, cap_users;
    struct entry *entry;
    size_t n_entries, cap_entries;
    unsigned halvings; /* users with that many leading zero bits of their hash are kept */

    struct lh_idmap items;
    float *vector; /* [items.n, dim] */
};

/* --- reading the schema --------------------------------------------------------------------- */

static int read_value(struct lh_embedding *e, const struct lh_yaml_node *node,
                      const struct lh_column *columns, size_t n_columns)
{
    const struct lh_yaml_node *value = lh_yaml_get(node, "value");
    const char *text = NULL;
    LH_TRY(lh_yaml_string(value, &text));
    if (!value && !e->spec.implicit)
        return lh_yaml_fail(node, "explicit feedback needs value: the column of the rating, or "
                                  "reward");
    if (!value)
        return 0;
    e->value = strcmp(text, "reward") == 0 ? REWARD : COLUMN;
    if (e->value == REWARD)
        return 0;
    return lh_userlog_read_column(columns, n_columns, value, LH_COLUMN_NUMBER, &e->column);
}

static int read_factorise(struct lh_embedding *e, const struct lh_yaml_node *node,
                          const struct lh_column *columns, size_t n_columns)
{
    static const char *const feedbacks[] = {"explicit", "implicit"};
    int feedback = 0;
    int64_t dim = 32, iterations = 15, seed = (int64_t)e->spec.seed, max_rows = ROWS_LIMIT;
    LH_TRY(lh_yaml_enum(lh_yaml_get(node, "feedback"), feedbacks, 2, &feedback));
    e->spec.implicit = feedback == 1;
    e->spec.regularisation = e->spec.implicit ? 10.0 : 0.05;
    e->spec.confidence = 40.0; /* as in Hu, Koren, Volinsky */
    const struct lh_yaml_node *confidence = lh_yaml_get(node, "confidence");
    if (confidence && !e->spec.implicit)
        return lh_yaml_fail(confidence, "goes with feedback: implicit");
    LH_TRY(lh_yaml_int(lh_yaml_get(node, "dim"), 1, DIM_MAX, &dim));
    LH_TRY(lh_yaml_int(lh_yaml_get(node, "iterations"), 1, 1000, &iterations));
    LH_TRY(lh_yaml_int(lh_yaml_get(node, "seed"), 0, INT64_MAX, &seed));
    LH_TRY(lh_yaml_int(lh_yaml_get(node, "max_rows"), 1, INT64_MAX, &max_rows));
    LH_TRY(lh_yaml_double(lh_yaml_get(node, "regularisation"), 1e-6, 1e6, &e->spec.regularisation));
    LH_TRY(lh_yaml_double(confidence, 1e-6, 1e6, &e->spec.confidence));
    e->spec.dim = (uint32_t)dim;
    e->spec.iterations = (uint32_t)iterations;
    e->spec.seed = (uint64_t)seed;
    e->max_rows = (uint64_t)max_rows;
    return read_value(e, node, columns, n_columns);
}

/* id, then the vector, in each record; a header line, if there is one, names the id first. */
static int read_records(struct lh_embedding *e, struct lh_delimited *d)
{
    size_t cap = 0;
    int rc;
    while ((rc = lh_delimited_next(d)) == 0) {
        char *end = NULL;
        if (e->items.n == 0 && e->spec.dim == 0) {
            if (d->n_fields < 2 || d->n_fields > DIM_MAX + 1)
                return lh_delimited_fail(d, "%zu fields; an id and 1 to %d numbers are expected",
                                         d->n_fields, DIM_MAX);
            e->spec.dim = (uint32_t)d->n_fields - 1;
            strtod(d->field[1], &end);
            if (end == d->field[1])
                continue;
        }
        if (d->n_fields != e->spec.dim + 1)
            return lh_delimited_fail(d, "%zu fields where %u are expected", d->n_fields,
                                     e->spec.dim + 1);
        uint32_t number;
        size_t before = e->items.n, dim = e->spec.dim;
        LH_TRY(lh_idmap_add(&e->items, lh_userlog_id(d->field[0], strlen(d->field[0])), &number));
        if (e->items.n == before)
            return lh_delimited_fail(d, "the id '%.60s' came before", d->field[0]);
        LH_TRY(LH_GROW(&e->vector, &cap, e->items.n * dim, "embedding"));
        for (size_t k = 0; k < dim; k++) {
            float x = strtof(d->field[k + 1], &end);
            if (end == d->field[k + 1] || *end || !isfinite(x))
                return lh_delimited_fail(d, "'%.40s' is not a finite number", d->field[k + 1]);
            e->vector[(size_t)number * dim + k] = x;
        }
    }
    if (rc == LH_NOTFOUND && e->items.n == 0)
        return lh_delimited_fail(d, "holds no embedding");
    return rc == LH_NOTFOUND ? 0 : rc;
}

static int read_file(struct lh_embedding *e, const struct lh_yaml_node *file, const char *data_dir)
{
    const char *path = NULL;
    LH_TRY(lh_yaml_string(file, &path));
    struct lh_delimited d;
    LH_TRY(lh_delimited_open(&d, data_dir, path, ","));
    int rc = read_records(e, &d);
    lh_delimited_close(&d);
    return rc;
}

static int read_node(struct lh_embedding *e, const struct lh_yaml_node *node,
                     const struct lh_column *columns, size_t n_columns, const char *data_dir)
{
    static const char *const keys[] = {"key",   "method",     "file",       "feedback",
                                       "value", "dim",        "confidence", "regularisation",
                                       "seed",  "iterations", "unseen",     "max_rows"};
    static const char *const methods[] = {"factorise"};
    static const char *const unseens[] = {"zero", "drop"};
    LH_TRY(lh_yaml_expect(node, LH_YAML_MAPPING));
    LH_TRY(lh_yaml_check_keys(node, keys, sizeof keys / sizeof *keys));
    const struct lh_yaml_node *key = lh_yaml_get(node, "key"), *file = lh_yaml_get(node, "file");
    const struct lh_yaml_node *method = lh_yaml_get(node, "method");
    if (!key || (file != NULL) == (method != NULL))
        return lh_yaml_fail(node, "an embedding needs key:, and either file: or method: factorise");
    LH_TRY(lh_userlog_read_column(columns, n_columns, key, LH_COLUMN_ID, &e->key));
    int unseen = 0, which = 0;
    LH_TRY(lh_yaml_enum(lh_yaml_get(node, "unseen"), unseens, 2, &unseen));
    LH_TRY(lh_yaml_enum(method, methods, 1, &which));
    e->drops_unseen = unseen == 1;
    e->from_file = file != NULL;
    if (!file)
        return read_factorise(e, node, columns, n_columns);
    for (size_t k = 3; k < sizeof keys / sizeof *keys; k++) {
        const struct lh_yaml_node *o = lh_yaml_get(node, keys[k]);
        if (o && strcmp(keys[k], "unseen") != 0)
            return lh_yaml_fail(o, "goes with method: factorise");
    }
    return read_file(e, file, data_dir);
}

int lh_embedding_create(struct lh_embedding **out, const struct lh_yaml_node *node,
                        const struct lh_column *columns, size_t n_columns, const char *data_dir,
                        uint64_t seed, unsigned threads)
{
    struct lh_embedding *e = NULL;
    LH_TRY(LH_NEW(&e, "embedding"));
    pthread_mutex_init(&e->lock, NULL);
    e->spec.seed = seed & INT64_MAX;
    e->spec.threads = threads;
    int rc = 0;
    LH_TRY_TO(fail, lh_mem_strdup(&e->name, node->key ? node->key : "embedding"));
    LH_TRY_TO(fail, read_node(e, node, columns, n_columns, data_dir));
    *out = e;
    return 0;
fail:
    lh_embedding_destroy(&e);
    return rc;
}

void lh_embedding_destroy(struct lh_embedding **embedding)
{
    struct lh_embedding *e = *embedding;
    if (!e)
        return;
    lh_mem_free(e->name);
    lh_mem_free(e->user);
    lh_mem_free(e->entry);
    lh_mem_free(e->vector);
    lh_idmap_fini(&e->items);
    pthread_mutex_destroy(&e->lock);
    lh_mem_free(e);
    *embedding = NULL;
}

uint32_t lh_embedding_dim(const struct lh_embedding *e)
{
    return e->spec.dim;
}

size_t lh_embedding_key(const struct lh_embedding *e)
{
    return e->key;
}

bool lh_embedding_drops_unseen(const struct lh_embedding *e)
{
    return e->drops_unseen;
}

bool lh_embedding_needs_pass(const struct lh_embedding *e)
{
    return !e->from_file;
}

/* --- collecting ----------------------------------------------------------------------------- */

/* Which users stay when there are too many rows must depend on the user alone. */
static bool kept(const struct lh_embedding *e, uint64_t user)
{
    struct lh_rng_at at = {.seed = e->spec.seed, .purpose = lh_rng_purpose("keep"), .step = user};
    return e->halvings == 0 || lh_rng_u64(&at, 0) >> (64 - e->halvings) == 0;
}

/* Halves the share of users until the rows fit. The outcome is the same for any order of arrival: a
 * share that is too large for all users is found to be so at some point, one that fits never is. */
static void keep_fewer(struct lh_embedding *e)
{
    while (e->n_entries > e->max_rows && e->halvings < HALVING_MAX) {
        e->halvings++;
        size_t users = 0, entries = 0;
        for (size_t u = 0; u < e->n_users; u++) {
            struct user *from = &e->user[u];
            if (!kept(e, from->id))
                continue;
            memmove(e->entry + entries, e->entry + from->start, from->n * sizeof *e->entry);
            e->user[users++] = (struct user){from->id, entries, from->n};
            entries += from->n;
        }
        e->n_users = users;
        e->n_entries = entries;
    }
}

static int take_user(struct lh_embedding *e, const struct lh_user_log *log, const float *reward)
{
    if (!kept(e, log->user) || log->n == 0)
        return 0;
    LH_TRY(LH_GROW(&e->user, &e->cap_users, e->n_users + 1, "factorisation users"));
    LH_TRY(LH_GROW(&e->entry, &e->cap_entries, e->n_entries + log->n, "factorisation rows"));
    struct user *u = &e->user[e->n_users];
    *u = (struct user){.id = log->user, .start = e->n_entries};
    for (size_t i = 0; i < log->n; i++) {
        float v = 1.0f;
        if (e->value != ONE)
            v = e->value == REWARD ? reward[i] : log->column[e->column].number[i];
        if (!isfinite(v))
            continue;
        struct entry *to = &e->entry[e->n_entries + u->n];
        LH_TRY(lh_idmap_add(&e->items, log->column[e->key].id[i], &to->item));
        to->value = v;
        u->n++;
    }
    e->n_entries += u->n;
    e->n_users++;
    keep_fewer(e);
    return 0;
}

int lh_embedding_observe(struct lh_embedding *e, const struct lh_user_log *log, const float *reward)
{
    if (e->from_file || log->split != LH_TRAIN)
        return 0;
    pthread_mutex_lock(&e->lock);
    int rc = take_user(e, log, reward);
    pthread_mutex_unlock(&e->lock);
    return rc;
}

/* --- fitting -------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int by_user(const void *a, const void *b)
{
    uint64_t x = ((const struct user *)a)->id, y = ((const struct user *)b)->id;
    return (x > y) - (x < y);
}

/* Renumbers items ascending by id; those whose users were all let go fall out. */
static int renumber(struct lh_embedding *e)
{
    struct lh_idmap sorted = {0};
    uint64_t *id = NULL;
    uint32_t *to = NULL;
    unsigned char *used = NULL;
    size_t n = 0;
    int rc = 0;
    LH_TRY_TO(done, LH_NEW_ARRAY(&used, e->items.n, "items"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&id, e->items.n, "items"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&to, e->items.n, "items"));
    for (size_t k = 0; k < e->n_entries; k++)
        used[e->entry[k].item] = 1;
    for (size_t k = 0; k < e->items.n; k++) {
        if (used[k])
            id[n++] = e->items.id[k];
    }
    qsort(id, n, sizeof *id, by_id);
    uint32_t number;
    for (size_t k = 0; k < n; k++)
        LH_TRY_TO(done, lh_idmap_add(&sorted, id[k], &number));
    for (size_t k = 0; k < e->items.n; k++)
        to[k] = lh_idmap_find(&sorted, e->items.id[k]);
    for (size_t k = 0; k < e->n_entries; k++)
        e->entry[k].item = to[e->entry[k].item];
    lh_idmap_fini(&e->items);
    e->items = sorted;
    sorted = (struct lh_idmap){0};
done:
    lh_idmap_fini(&sorted);
    lh_mem_free(id);
    lh_mem_free(to);
    lh_mem_free(used);
    return rc;
}

/* Sorts a user's entries by item, stably in time: insertion for the few, else a merge by bottom-up
 * runs through `spare`. */
static void sort_entries(struct entry *a, struct entry *spare, size_t n)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n;
            size_t hi = lo + 2 * width < n ? lo + 2 * width : n;
            for (size_t i = lo, j = mid, k = lo; k < hi; k++) {
                bool left = i < mid && (j >= hi || a[i].item <= a[j].item);
                spare[k] = left ? a[i++] : a[j++];
            }
        }
        memcpy(a, spare, n * sizeof *a);
    }
}

/* Entries by user in order of user, items ascending, repeats joined: a later rating replaces,
 * counts add up. */
static int build(struct lh_embedding *e, uint64_t **start, uint32_t **item, float **value)
{
    size_t longest = 0, n = 0;
    if (e->n_users > 1)
        qsort(e->user, e->n_users, sizeof *e->user, by_user);
    for (size_t u = 0; u < e->n_users; u++)
        longest = e->user[u].n > longest ? e->user[u].n : longest;
    struct entry *spare = NULL;
    LH_TRY(LH_NEW_ARRAY(start, e->n_users + 1, "factorisation"));
    LH_TRY(LH_NEW_ARRAY(item, e->n_entries, "factorisation"));
    LH_TRY(LH_NEW_ARRAY(value, e->n_entries, "factorisation"));
    LH_TRY(LH_NEW_ARRAY(&spare, longest, "factorisation"));
    for (size_t u = 0; u < e->n_users; u++) {
        struct entry *a = e->entry + e->user[u].start;
        sort_entries(a, spare, e->user[u].n);
        (*start)[u] = n;
        for (size_t k = 0; k < e->user[u].n; k++) {
            if (k > 0 && a[k].item == a[k - 1].item) {
                (*value)[n - 1] = e->spec.implicit ? (*value)[n - 1] + a[k].value : a[k].value;
                continue;
            }
            (*item)[n] = a[k].item;
            (*value)[n++] = a[k].value;
        }
    }
    (*start)[e->n_users] = n;
    lh_mem_free(spare);
    return 0;
}

int lh_embedding_finish(struct lh_embedding *e)
{
    if (e->from_file || e->finished)
        return 0;
    uint64_t *start = NULL;
    uint32_t *item = NULL;
    float *value = NULL;
    struct lh_factors factors = {0};
    int rc = 0;
    if (e->n_entries == 0 && e->halvings > 0)
        LH_TRY_TO(done, lh_err_set(LH_ERANGE,
                                   "max_rows: %" PRIu64 " is less than any user's rows; "
                                   "raise it",
                                   e->max_rows));
    LH_TRY_TO(done, renumber(e));
    LH_TRY_TO(done, build(e, &start, &item, &value));
    lh_mem_free(e->entry);
    e->entry = NULL;
    struct lh_factorise_data data = {
        .n_users = e->n_users, .n_items = e->items.n, .start = start, .item = item, .value = value};
    LH_TRY_TO(done, lh_factorise_run(&e->spec, &data, &factors));
    e->vector = factors.item;
    factors.item = NULL;
    e->finished = true;
done:
    if (rc < 0)
        lh_err_prefix(rc, "embedding '%s'", e->name);
    lh_mem_free(start);
    lh_mem_free(item);
    lh_mem_free(value);
    lh_mem_free(e->user);
    e->user = NULL;
    lh_factorise_fini(&factors);
    return rc;
}

/* --- using it ------------------------------------------------------------------------------- */

uint32_t lh_embedding_find(const struct lh_embedding *e, uint64_t id)
{
    return lh_idmap_find(&e->items, id);
}

const float *lh_embedding_values(const struct lh_embedding *e)
{
    return e->vector;
}

size_t lh_embedding_count(const struct lh_embedding *e)
{
    return e->items.n;
}

int lh_embedding_write(const struct lh_embedding *e, const char *path)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return lh_err_errno(errno, "%s", path);
    uint32_t dim = e->spec.dim;
    fputs("id", f);
    for (uint32_t k = 0; k < dim; k++)
        fprintf(f, ",e_%u", k);
    fputc('\n', f);
    for (size_t i = 0; i < e->items.n; i++) {
        fprintf(f, "%" PRIu64, e->items.id[i]);
        for (uint32_t k = 0; k < dim; k++)
            fprintf(f, ",%.9g", (double)e->vector[i * dim + k]);
        fputc('\n', f);
    }
    int failed = fflush(f) != 0 || fsync(fileno(f)) != 0;
    int code = errno;
    if (fclose(f) != 0 && !failed) {
        failed = 1;
        code = errno;
    }
    return failed ? lh_err_errno(code, "%s", path) : 0;
}

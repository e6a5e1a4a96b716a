/* The book of loans. Invariant: a loan's entry is used from lh_loans_begin until its last frame is
 * released; only the server's thread hands entries out and takes them back. */
#include "ps/loan.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"

#include <stdatomic.h>
#include <string.h>

#define LOANS_MAX      4096
#define KEPT_FROM_ROWS 1024 /* entries that rows leave to weights */
#define NOTED          16   /* lines about peers that were cut off */
#define POOL           64   /* buffers of rows, of some 1 MB at most, that are kept for the next */
#define BUFFER_MIN     4096

struct buffer {
    void *data;
    size_t cap;
};

struct lh_loan {
    _Atomic uint32_t left; /* frames; 0: given back */
    struct lh_loans *book;
    void *token;        /* of the shard's generation; NULL: of rows, */
    struct buffer rows; /* which are here, until the entry is taken back */
    struct lh_net_peer peer;
    struct lh_net_connection connection;
    uint64_t version;
    double since;
    bool called_in;
};

struct lh_loans {
    _Atomic uint32_t refs; /* the server's, and one a loan: frames may outlive the server */
    struct lh_shard *shard;
    double patience;
    uint32_t used[LOANS_MAX], free[LOANS_MAX]; /* indices */
    size_t n_used, n_free, noted;
    struct buffer pool[POOL]; /* [n_pool] */
    size_t n_pool;
    struct lh_loan loans[LOANS_MAX];
};

int lh_loans_create(struct lh_loans **out, struct lh_shard *shard, double patience)
{
    struct lh_loans *l = NULL;
    LH_TRY(LH_NEW(&l, "loans"));
    atomic_init(&l->refs, 1);
    l->shard = shard;
    l->patience = patience;
    for (; l->n_free < LOANS_MAX; l->n_free++)
        l->free[l->n_free] = (uint32_t)(LOANS_MAX - 1 - l->n_free);
    *out = l;
    return 0;
}

static void drop(struct lh_loans *l)
{
    if (atomic_fetch_sub_explicit(&l->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < LOANS_MAX; i++)
        lh_mem_free(l->loans[i].rows.data);
    while (l->n_pool > 0)
        lh_mem_free(l->pool[--l->n_pool].data);
    lh_mem_free(l);
}

void lh_loans_destroy(struct lh_loans **l)
{
    if (*l)
        drop(*l);
    *l = NULL;
}

void lh_loan_release(void *data, void *loan)
{
    struct lh_loan *at = loan;
    /* that the entry is seen as it was lent is no business of the network's */
    atomic_load_explicit(&at->left, memory_order_acquire);
    struct lh_loans *book = at->book;
    void *token = at->token; /* the entry is another's once `left` is 0 */
    if (atomic_fetch_sub_explicit(&at->left, 1, memory_order_acq_rel) != 1)
        return;
    if (token)
        lh_shard_release(data, token);
    drop(book);
}

/* --- buffers of rows --------------------------------------------------------------------------
 */
static void put_back(struct lh_loans *l, struct buffer *b)
{
    if (b->data && l->n_pool < POOL)
        l->pool[l->n_pool++] = *b;
    else
        lh_mem_free(b->data);
    *b = (struct buffer){0};
}

/* The smallest in the pool that is large enough. Capacities are powers of two: then few sizes are
 * asked for, and the pool soon has them all; the last comes back first, while caches know it. */
static int take_buffer(struct lh_loans *l, size_t bytes, struct buffer *out)
{
    size_t best = SIZE_MAX, cap = BUFFER_MIN;
    for (size_t i = l->n_pool; i-- > 0;)
        if (l->pool[i].cap >= bytes && (best == SIZE_MAX || l->pool[i].cap < l->pool[best].cap))
            best = i;
    if (best != SIZE_MAX) {
        *out = l->pool[best];
        l->pool[best] = l->pool[--l->n_pool];
        return 0;
    }
    while (cap < bytes)
        cap *= 2;
    LH_TRY(lh_mem_alloc_aligned(&out->data, cap, 1, "rows that were asked for"));
    out->cap = cap;
    return 0;
}

/* --- loans --------------------------------------------------------------------------------------
 */
/* Takes back entries of loans that have ended. */
static void sweep(struct lh_loans *l)
{
    for (size_t i = 0; i < l->n_used;) {
        if (atomic_load_explicit(&l->loans[l->used[i]].left, memory_order_acquire) > 0) {
            i++;
            continue;
        }
        put_back(l, &l->loans[l->used[i]].rows);
        l->free[l->n_free++] = l->used[i];
        l->used[i] = l->used[--l->n_used];
    }
}

static bool same_peer(const struct lh_net_peer *a, const struct lh_net_peer *b)
{
    return a->size == b->size && memcmp(a->id, b->id, a->size) == 0;
}

/* An entry for `to`, which may have `most` of its kind. */
static int begin(struct lh_loans *l, const struct lh_net_peer *to, bool rows, size_t most,
                 struct lh_loan **out)
{
    size_t held = 0;
    sweep(l);
    for (size_t i = 0; i < l->n_used; i++) {
        const struct lh_loan *at = &l->loans[l->used[i]];
        held += !at->token == rows && same_peer(&at->peer, to);
    }
    if (held >= most || l->n_free <= (rows ? KEPT_FROM_ROWS : 0))
        return LH_AGAIN;
    uint32_t index = l->free[--l->n_free];
    struct lh_loan *at = &l->loans[index];
    l->used[l->n_used++] = index;
    at->book = l;
    at->peer = *to;
    at->connection = lh_net_connection_of(to);
    at->version = lh_shard_version(l->shard);
    at->since = lh_now();
    at->called_in = false;
    at->token = NULL;
    atomic_fetch_add_explicit(&l->refs, 1, memory_order_relaxed);
    *out = at;
    return 0;
}

int lh_loans_begin(struct lh_loans *l, const struct lh_net_peer *to, uint32_t pieces,
                   struct lh_loan **out)
{
    int rc = begin(l, to, false, LH_LOANS_A_PEER, out);
    if (rc != 0)
        return rc;
    lh_shard_lend(l->shard, 0, &(*out)->token);
    atomic_store_explicit(&(*out)->left, pieces, memory_order_release);
    return 0;
}

int lh_loans_begin_before(struct lh_loans *l, const struct lh_net_peer *to, uint32_t pieces,
                          struct lh_loan **out)
{
    int rc = begin(l, to, false, LH_LOANS_A_PEER, out);
    if (rc != 0)
        return rc;
    (*out)->version--;
    lh_shard_lend_before(l->shard, &(*out)->token);
    atomic_store_explicit(&(*out)->left, pieces, memory_order_release);
    return 0;
}

int lh_loans_begin_rows(struct lh_loans *l, const struct lh_net_peer *to, size_t bytes, void **rows,
                        struct lh_loan **out)
{
    int rc = begin(l, to, true, LH_LOANS_ROWS_A_PEER, out);
    if (rc != 0)
        return rc;
    atomic_store_explicit(&(*out)->left, 1, memory_order_release);
    rc = take_buffer(l, bytes, &(*out)->rows);
    if (rc < 0)
        lh_loan_release(NULL, *out);
    else
        *rows = (*out)->rows.data;
    return rc;
}

static void cut_off(struct lh_loans *l, struct lh_loan *at, double now)
{
    at->called_in = true;
    lh_net_cut_off(&at->connection);
    if (l->noted++ < NOTED)
        lh_note("cut off a peer that has not taken version %llu for %.1f s",
                (unsigned long long)at->version, now - at->since);
}

/* Versions on loan, the current one apart; *oldest is the lowest. */
static size_t count_versions(const struct lh_loans *l, uint64_t *oldest)
{
    uint64_t seen[LH_LOANS_VERSIONS + 1], current = lh_shard_version(l->shard);
    size_t n = 0;
    *oldest = UINT64_MAX;
    for (size_t i = 0; i < l->n_used; i++) {
        uint64_t v = l->loans[l->used[i]].version;
        size_t k = 0;
        if (!l->loans[l->used[i]].token)
            continue; /* rows are copies */
        while (k < n && seen[k] != v)
            k++;
        if (v != current && v < *oldest)
            *oldest = v;
        if (v != current && k == n && n <= LH_LOANS_VERSIONS)
            seen[n++] = v;
    }
    return n;
}

size_t lh_loans_call_in(struct lh_loans *l)
{
    uint64_t oldest;
    size_t n = 0;
    sweep(l);
    if (l->n_used == 0)
        return 0;
    double now = lh_now();
    bool many = count_versions(l, &oldest) > LH_LOANS_VERSIONS;
    for (size_t i = 0; i < l->n_used; i++) {
        struct lh_loan *at = &l->loans[l->used[i]];
        if (!at->called_in && at->connection.cookie &&
            (now - at->since > l->patience || (many && at->token && at->version == oldest))) {
            cut_off(l, at, now);
            n++;
        }
    }
    return n;
}

size_t lh_loans_count(struct lh_loans *l)
{
    sweep(l);
    return l->n_used;
}

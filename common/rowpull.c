/* Rows of tables from their servers. A request says which pull it belongs to and which piece it is,
 * so that its answer finds its place whatever came in between. */
#include "common/rowpull.h"

#include "common/dataset.h"
#include "common/err.h"
#include "common/idset.h"
#include "common/mem.h"
#include "common/rowlist.h"
#include "common/term.h"

#include <string.h>

#define OURS        (UINT64_C(1) << 63) /* requests of rows; those of weights count from 0 */
#define PIECE_BITS  24
#define SLOTS       LH_ROWPULL_SLOTS /* their serials never meet */
#define COMPACT_MIN 4096             /* ids */

int lh_rowpull_init(struct lh_rowpull *p, const struct lh_graph_table *tables, size_t n,
                    size_t shards, uint32_t slot)
{
    *p = (struct lh_rowpull){.n_tables = n, .shards = (uint32_t)shards, .serial = slot};
    for (size_t t = 0; t < n; t++) {
        p->tables[t].dim = (uint32_t)tables[t].dim;
        LH_TRY(LH_NEW_ARRAY(&p->tables[t].first, shards + 1, "a pull of rows"));
    }
    return 0;
}

void lh_rowpull_fini(struct lh_rowpull *p)
{
    for (size_t t = 0; t < p->n_tables; t++) {
        struct lh_rowpull_table *x = &p->tables[t];
        lh_mem_free(x->ids);
        lh_mem_free(x->rows);
        lh_mem_free(x->place);
        lh_mem_free(x->dealt);
        lh_mem_free(x->first);
    }
    lh_mem_free(p->pieces);
    *p = (struct lh_rowpull){.n_tables = 0};
}

void lh_rowpull_begin(struct lh_rowpull *p, uint64_t version)
{
    for (size_t t = 0; t < p->n_tables; t++)
        p->tables[t].n = p->tables[t].distinct = 0;
    p->version = version;
    p->n_pieces = p->unsent = p->missing = 0;
    p->asked = p->gone = false;
}

static int compact(struct lh_rowpull_table *x)
{
    LH_TRY(LH_GROW(&x->dealt, &x->cap_dealt, x->n, "ids of rows"));
    x->n = x->distinct = lh_idset_make(x->ids, x->n, x->dealt);
    return 0;
}

int lh_rowpull_add(struct lh_rowpull *p, size_t t, const uint64_t *ids, size_t n, size_t stride)
{
    struct lh_rowpull_table *x = &p->tables[t];
    if (x->n > COMPACT_MIN && x->n > 2 * x->distinct)
        LH_TRY(compact(x)); /* so that a walk over a log holds its different ids, not its rows */
    LH_TRY(LH_GROW(&x->ids, &x->cap, x->n + n, "ids of rows"));
    for (size_t i = 0; i < n; i++)
        if (ids[i * stride] != LH_ID_NONE)
            x->ids[x->n++] = ids[i * stride];
    return 0;
}

static int cut(struct lh_rowpull *p, size_t t)
{
    const struct lh_rowpull_table *x = &p->tables[t];
    const size_t most = LH_WIRE_PIECE / x->dim ? LH_WIRE_PIECE / x->dim : 1;
    for (uint32_t s = 0; s < p->shards; s++)
        for (size_t lo = x->first[s]; lo < x->first[s + 1]; lo += most) {
            const size_t left = x->first[s + 1] - lo;
            LH_TRY(LH_GROW(&p->pieces, &p->cap_pieces, p->n_pieces + 1, "a pull of rows"));
            p->pieces[p->n_pieces++] = (struct lh_rowpull_piece){
                .table = (uint32_t)t, .shard = s, .lo = lo, .hi = lo + (left < most ? left : most)};
        }
    return 0;
}

int lh_rowpull_ask(struct lh_rowpull *p)
{
    for (size_t t = 0; t < p->n_tables; t++) {
        struct lh_rowpull_table *x = &p->tables[t];
        size_t elements;
        LH_TRY(compact(x));
        LH_TRY(lh_mem_mul(&elements, x->n, x->dim));
        LH_TRY(LH_GROW(&x->rows, &x->cap_rows, elements, "rows of tables"));
        LH_TRY(LH_GROW(&x->place, &x->cap_place, x->n, "ids of rows"));
        lh_rowlist_split(x->ids, x->n, p->shards, x->place, x->first);
        for (size_t i = 0; i < x->n; i++)
            x->dealt[i] = x->ids[x->place[i]];
        LH_TRY(cut(p, t));
    }
    if (p->n_pieces >> PIECE_BITS)
        return lh_err_set(LH_ERANGE, "a pull of rows in %zu pieces; use more servers", p->n_pieces);
    p->serial += SLOTS;
    p->unsent = p->missing = p->n_pieces;
    p->asked = true;
    p->since = lh_now();
    return 0;
}

static void unsend(struct lh_rowpull *p, struct lh_rowpull_piece *piece)
{
    p->unsent += piece->sent;
    piece->sent = false;
}

/* A request, or its answer, that was under way over a connection that broke is lost. */
static void find_lost(struct lh_rowpull *p, const struct lh_pull *over)
{
    const uint64_t breaks = lh_pull_breaks(over);
    if (breaks == p->breaks)
        return;
    p->breaks = breaks;
    for (size_t k = 0; k < p->n_pieces; k++) {
        struct lh_rowpull_piece *piece = &p->pieces[k];
        if (!piece->got && piece->breaks != lh_net_breaks(over->shards[piece->shard].socket))
            unsend(p, piece);
    }
}

int lh_rowpull_send(struct lh_rowpull *p, struct lh_pull *over)
{
    if (p->missing > 0)
        find_lost(p, over);
    for (size_t k = 0; k < p->n_pieces && p->unsent > 0; k++) {
        struct lh_rowpull_piece *piece = &p->pieces[k];
        if (piece->sent)
            continue;
        const struct lh_envelope env = {.kind = LH__KIND__KIND_TABLE_PULL,
                                        .job = over->job,
                                        .node = over->node,
                                        .step = p->version,
                                        .first = piece->table,
                                        .count = piece->hi - piece->lo,
                                        .request = OURS | p->serial << PIECE_BITS | k,
                                        .epoch = over->generation};
        const struct lh_net_part part = {.data = p->tables[piece->table].dealt + piece->lo,
                                         .size = env.count * sizeof(uint64_t)};
        struct lh_net_socket *socket = over->shards[piece->shard].socket;
        piece->breaks = lh_net_breaks(socket);
        int rc = lh_net_send(socket, NULL, &env, &part, 1);
        if (rc == LH_AGAIN || (rc < 0 && rc != LH_NOTFOUND))
            return rc;
        piece->sent = true; /* if the connection is broken, that is noticed in time */
        p->unsent--;
    }
    return 0;
}

void lh_rowpull_repeat(struct lh_rowpull *p)
{
    p->since = lh_now();
    for (size_t k = 0; k < p->n_pieces; k++)
        if (!p->pieces[k].got)
            unsend(p, &p->pieces[k]);
}

static int take_rows(struct lh_rowpull *p, struct lh_rowpull_piece *piece,
                     const struct lh_net_message *msg)
{
    const struct lh_rowpull_table *x = &p->tables[piece->table];
    const size_t n = piece->hi - piece->lo, row = x->dim * sizeof(float);
    size_t bytes;
    const char *data = lh_net_frame(msg, 0, &bytes);
    if (msg->env.step != p->version || msg->env.count != n || bytes != n * row)
        return lh_err_set(LH_EPROTO,
                          "server %u sent %llu rows of version %llu in %zu bytes where %zu of "
                          "version %llu were asked for",
                          piece->shard, (unsigned long long)msg->env.count,
                          (unsigned long long)msg->env.step, bytes, n,
                          (unsigned long long)p->version);
    for (size_t i = 0; i < n; i++)
        memcpy(x->rows + (size_t)x->place[piece->lo + i] * x->dim, data + i * row, row);
    piece->got = true;
    p->missing--;
    p->since = lh_now();
    return 0;
}

int lh_rowpull_take(struct lh_rowpull *p, size_t i, const struct lh_net_message *msg)
{
    const uint64_t request = msg->env.request;
    const uint64_t k = request & ((UINT64_C(1) << PIECE_BITS) - 1);
    if (!p->asked || (request ^ k) != (OURS | p->serial << PIECE_BITS))
        return LH_NOTFOUND;
    if (k >= p->n_pieces || p->pieces[k].shard != i)
        return lh_err_set(LH_EPROTO, "server %zu answers a request that it was not sent", i);
    if (p->pieces[k].got)
        return 0;
    if (msg->env.kind == LH__KIND__KIND_MOVED) {
        p->gone = true;
        return 0;
    }
    if (msg->env.kind != LH__KIND__KIND_TABLE_ROWS)
        return lh_err_set(LH_EPROTO, "server %zu sent a %s where rows were expected", i,
                          lh_wire_kind_name(msg->env.kind));
    return take_rows(p, &p->pieces[k], msg);
}

const float *lh_rowpull_find(const struct lh_rowpull *p, size_t t, uint64_t id)
{
    const struct lh_rowpull_table *x = &p->tables[t];
    const size_t i = lh_idset_find(x->ids, x->n, id);
    return i == SIZE_MAX ? NULL : x->rows + i * x->dim;
}

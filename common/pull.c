/* The asking side of a pull, and the cut of an answer into pieces, which both sides share. */
#include "common/pull.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"

#include <string.h>

static int add_pieces(struct lh_pull_piece **out, size_t *n, size_t *cap, uint64_t first,
                      uint64_t count, bool targets)
{
    while (count > 0) {
        uint64_t c = count < LH_WIRE_PIECE ? count : LH_WIRE_PIECE;
        LH_TRY(LH_GROW(out, cap, *n + 1, "pieces of a pull"));
        (*out)[(*n)++] = (struct lh_pull_piece){.first = first, .count = c, .targets = targets};
        first += c;
        count -= c;
    }
    return 0;
}

int lh_pull_pieces(struct lh_pull_piece **out, size_t *n, const struct lh_shard_range *range)
{
    size_t cap = 0;
    int rc;
    *out = NULL;
    *n = 0;
    LH_TRY_TO(fail, add_pieces(out, n, &cap, 0, range->hi - range->lo, false));
    for (size_t i = 0; i < range->n_segments;) {
        if (!range->segments[i].has_target) {
            i++;
            continue;
        }
        /* Neighbours go together, with the padding between them. */
        size_t j = i;
        while (j + 1 < range->n_segments && range->segments[j + 1].has_target)
            j++;
        LH_TRY_TO(fail, add_pieces(out, n, &cap, range->segments[i].lo - range->lo,
                                   range->segments[j].hi - range->segments[i].lo, true));
        i = j + 1;
    }
    return 0;
fail:
    lh_mem_free(*out);
    *out = NULL;
    return rc;
}

static int open_shard(struct lh_pull *p, size_t i, const struct lh_pull_spec *spec)
{
    struct lh_pull_shard *s = &p->shards[i];
    const struct lh_shard_range *range = &spec->layout->shards[i];
    struct lh_net_address server = {.endpoint = spec->endpoints[i],
                                    .role = LH__ROLE__ROLE_SERVER,
                                    .key = spec->keys ? spec->keys[i] : NULL};
    struct lh_pull_piece *pieces = NULL;
    size_t n = 0;
    s->lo = range->lo;
    s->size = range->hi - range->lo;
    LH_TRY(lh_pull_pieces(&pieces, &n, range));
    for (size_t k = 0; k < n; k++)
        s->target_elements += pieces[k].targets ? pieces[k].count : 0;
    lh_mem_free(pieces);
    LH_TRY(lh_net_dealer(&s->socket, spec->zmq, &server, spec->queue, spec->security));
    lh_net_expect(s->socket, p->job);
    return 0;
}

int lh_pull_open(struct lh_pull *p, const struct lh_pull_spec *spec)
{
    int rc;
    *p = (struct lh_pull){.job = spec->job, .node = spec->node, .generation = spec->generation};
    LH_TRY(LH_NEW_ARRAY(&p->shards, spec->layout->n_shards, "shards to pull from"));
    p->n_shards = spec->layout->n_shards;
    for (size_t i = 0; i < p->n_shards; i++)
        LH_TRY_TO(fail, open_shard(p, i, spec));
    return 0;
fail:
    lh_pull_close(p);
    return rc;
}

void lh_pull_close(struct lh_pull *p)
{
    for (size_t i = 0; i < p->n_shards; i++)
        lh_net_close(&p->shards[i].socket);
    lh_mem_free(p->shards);
    p->shards = NULL;
    p->n_shards = 0;
}

static int ask(struct lh_pull *p, size_t i)
{
    struct lh_envelope env = {.kind = p->each ? LH__KIND__KIND_TAKE : LH__KIND__KIND_PULL,
                              .job = p->job,
                              .node = p->node,
                              .step = p->version,
                              .request = p->request,
                              .epoch = p->generation};
    int rc = lh_net_send(p->shards[i].socket, NULL, &env, NULL, 0);
    if (rc == LH_AGAIN || rc == LH_NOTFOUND)
        return lh_err_set(LH_EPEER, "server %zu at %s takes no requests any more", i,
                          lh_net_endpoint(p->shards[i].socket));
    return rc;
}

uint64_t lh_pull_breaks(const struct lh_pull *p)
{
    uint64_t n = 0;
    for (size_t i = 0; i < p->n_shards; i++)
        n += lh_net_breaks(p->shards[i].socket);
    return n;
}

bool lh_pull_broke(const struct lh_pull *p)
{
    return lh_pull_breaks(p) != p->breaks;
}

static int begin(struct lh_pull *p, uint64_t version)
{
    p->breaks = lh_pull_breaks(p);
    p->version = version;
    p->request++;
    p->complete = false;
    p->asked = lh_now();
    if (p->held)
        lh_held_drop(p->held);
    for (size_t i = 0; i < p->n_shards; i++) {
        p->shards[i].got_weights = p->shards[i].got_targets = 0;
        p->shards[i].done = false;
    }
    /* Which step of its own a worker has is for one shard to say. */
    size_t n = p->each && version == LH_WIRE_LATEST ? 1 : p->n_shards;
    for (size_t i = 0; i < n; i++)
        LH_TRY(ask(p, i));
    return 0;
}

int lh_pull_begin(struct lh_pull *p, uint64_t version)
{
    p->each = false;
    return begin(p, version);
}

int lh_pull_begin_step(struct lh_pull *p, uint64_t step)
{
    p->each = true;
    return begin(p, step);
}

static int take_piece(struct lh_pull *p, size_t i, struct lh_net_message *msg, bool targets)
{
    struct lh_pull_shard *s = &p->shards[i];
    size_t bytes;
    const void *data = lh_net_frame(msg, 0, &bytes);
    uint64_t first = msg->env.first, count = msg->env.count;
    if (count == 0 || count > s->size || first > s->size - count || bytes != count * sizeof(float))
        return lh_err_set(LH_EPROTO,
                          "server %zu sent elements %llu to %llu of a shard of %llu in %zu bytes",
                          i, (unsigned long long)first, (unsigned long long)(first + count),
                          (unsigned long long)s->size, bytes);
    float *to = targets ? p->targets : p->weights;
    if (p->held)
        lh_held_take(p->held, targets, s->lo + first, &msg->frame[0]);
    else if (to)
        memcpy(to + s->lo + first, data, bytes);
    if (targets)
        s->got_targets += count;
    else
        s->got_weights += count;
    if (s->got_weights > s->size || s->got_targets > s->target_elements)
        return lh_err_set(LH_EPROTO, "server %zu sent a piece of version %llu twice", i,
                          (unsigned long long)p->version);
    s->done = s->got_weights == s->size && s->got_targets == s->target_elements;
    return 0;
}

/* Shard 0 has said which step it is: the others are asked for its weights. */
static int take_step(struct lh_pull *p, uint64_t step)
{
    if (p->version != LH_WIRE_LATEST)
        return 0; /* said before */
    p->version = step;
    for (size_t k = 1; k < p->n_shards; k++)
        LH_TRY(ask(p, k));
    return 0;
}

/* A version that was asked for by its number is of that number; the latest of a shard is what its
 * first piece is of. */
static int check_version(const struct lh_pull *p, size_t i, uint64_t version)
{
    const struct lh_pull_shard *s = &p->shards[i];
    const bool first = s->got_weights == 0 && s->got_targets == 0;
    const uint64_t expected = p->version != LH_WIRE_LATEST ? p->version
                              : first                      ? version
                                                           : s->version;
    if (version == expected || p->each)
        return 0;
    return lh_err_set(LH_EPROTO, "server %zu sent version %llu where %llu was expected", i,
                      (unsigned long long)version, (unsigned long long)expected);
}

/* All shards have given what they have. Where one is ahead the others are not to be waited for: all
 * are asked for the version that they stand at. */
static int end(struct lh_pull *p)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (size_t k = 0; k < p->n_shards; k++) {
        least = p->shards[k].version < least ? p->shards[k].version : least;
        most = p->shards[k].version > most ? p->shards[k].version : most;
    }
    if (!p->each && least != most)
        return lh_pull_begin(p, least);
    if (!p->each)
        p->version = least;
    p->complete = true;
    if (p->held)
        lh_held_settle(p->held);
    return 0;
}

int lh_pull_take(struct lh_pull *p, size_t i, struct lh_net_message *msg)
{
    const struct lh_envelope *env = &msg->env;
    if (p->complete || env->request != p->request)
        return 0;
    if (env->kind == LH__KIND__KIND_MOVED && !p->each)
        return lh_pull_begin(p, LH_WIRE_LATEST);
    if (env->kind == LH__KIND__KIND_STEP && p->each && i == 0)
        return take_step(p, env->step);
    bool targets = env->kind == LH__KIND__KIND_TARGETS;
    if (!targets && env->kind != LH__KIND__KIND_WEIGHTS)
        return lh_err_set(LH_EPROTO, "server %zu sent a %s where weights were expected", i,
                          lh_wire_kind_name(env->kind));
    if (p->version == LH_WIRE_LATEST && p->each)
        return lh_err_set(LH_EPROTO, "server %zu sent weights before it gave a step", i);
    LH_TRY(check_version(p, i, env->step));
    LH_TRY(take_piece(p, i, msg, targets));
    p->shards[i].version = env->step;
    p->asked = lh_now();
    for (size_t k = 0; k < p->n_shards; k++)
        if (!p->shards[k].done)
            return 0;
    return end(p);
}

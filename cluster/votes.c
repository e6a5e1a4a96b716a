/* Votes of servers on cuts. */
#include "cluster/votes.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

int lh_votes_init(struct lh_votes *v, uint32_t shards)
{
    *v = (struct lh_votes){.shards = shards};
    return LH_NEW_ARRAY(&v->last, shards, "votes on checkpoints");
}

void lh_votes_fini(struct lh_votes *v)
{
    lh_mem_free(v->last);
    lh_mem_free(v->open);
    *v = (struct lh_votes){0};
}

void lh_votes_clear(struct lh_votes *v)
{
    v->n = 0;
    memset(v->last, 0, v->shards * sizeof *v->last);
}

/* The open vote on `version`, made where it belongs if there is none. */
static int find(struct lh_votes *v, uint64_t version, struct lh_vote **out)
{
    size_t at = v->n;
    while (at > 0 && v->open[at - 1].version >= version)
        at--;
    if (at == v->n || v->open[at].version != version) {
        LH_TRY(LH_GROW(&v->open, &v->cap, v->n + 1, "votes on checkpoints"));
        memmove(v->open + at + 1, v->open + at, (v->n - at) * sizeof *v->open);
        v->open[at] = (struct lh_vote){.version = version};
        v->n++;
    }
    *out = &v->open[at];
    return 0;
}

int lh_votes_cast(struct lh_votes *v, uint32_t shard, uint64_t version, bool prepared)
{
    struct lh_vote *vote = NULL;
    if (shard >= v->shards || version <= v->last[shard])
        return 0;
    LH_TRY(find(v, version, &vote));
    v->last[shard] = version;
    vote->prepared += prepared;
    vote->failed = vote->failed || !prepared;
    return 0;
}

bool lh_votes_decide(struct lh_votes *v, uint64_t *version, bool *complete)
{
    if (v->n == 0)
        return false;
    const struct lh_vote oldest = v->open[0];
    for (uint32_t i = 0; i < v->shards; i++)
        if (v->last[i] < oldest.version)
            return false;
    *version = oldest.version;
    *complete = oldest.prepared == v->shards;
    memmove(v->open, v->open + 1, --v->n * sizeof *v->open);
    return true;
}

bool lh_votes_failed(const struct lh_votes *v, uint64_t version)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->open[i].version == version)
            return v->open[i].failed;
    return false;
}

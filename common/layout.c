/* The layout: which flat elements lie on which shard and how each is updated, and the arithmetic of
 * the gradient tree's indices. Pure functions of their arguments, so that every role computes the
 * same. */
#include "common/layout.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>
#include <xxhash.h>

int lh_layout_match(const char *patterns, const char *name)
{
    for (const char *p = patterns; *p;) {
        p += strspn(p, " ");
        size_t n = strcspn(p, " ");
        if (n > 0 && p[n - 1] == '*') {
            if (strncmp(p, name, n - 1) == 0)
                return 1;
        } else if (n > 0 && strncmp(p, name, n) == 0 && name[n] == '\0') {
            return 1;
        }
        p += n;
    }
    return 0;
}

/* A chain of XXH3 hashes: each is the seed of the next. Numbers are hashed as little-endian bytes.
 */
static uint64_t digest_numbers(uint64_t seed, const uint64_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char b[8];
        for (int j = 0; j < 8; j++)
            b[j] = (unsigned char)(x[i] >> (8 * j));
        seed = XXH3_64bits_withSeed(b, sizeof b, seed);
    }
    return seed;
}

static uint64_t layout_digest(const struct lh_layout_params *from)
{
    uint64_t h = digest_numbers(0, (const uint64_t[]){from->flat_size, from->n_params}, 2);
    for (size_t i = 0; i < from->n_params; i++) {
        const struct lh_param *p = &from->params[i];
        h = XXH3_64bits_withSeed(p->name, strlen(p->name), h);
        const uint64_t shape[] = {p->rows, p->cols, p->offset, p->trained, p->has_target};
        h = digest_numbers(h, shape, sizeof shape / sizeof *shape);
    }
    return h;
}

/* The flat element at which row `row`, counted over all tensors, begins. The row after the last is
 * the end of the flat array, so that padding belongs to the row before it. */
static uint64_t row_start(const struct lh_layout_params *from, uint64_t row)
{
    if (row == 0)
        return 0;
    for (size_t i = 0; i < from->n_params; i++) {
        if (row < from->params[i].rows)
            return from->params[i].offset + row * from->params[i].cols;
        row -= from->params[i].rows;
    }
    return from->flat_size;
}

/* The row boundary nearest to flat element x. */
static uint64_t row_nearest(const struct lh_layout_params *from, uint64_t x)
{
    uint64_t rows = 0;
    for (size_t i = 0; i < from->n_params; i++) {
        const struct lh_param *p = &from->params[i];
        uint64_t end = p->offset + (uint64_t)p->rows * p->cols;
        if (x < end) {
            if (x <= p->offset)
                return rows;
            uint64_t r = (x - p->offset) / p->cols, past = (x - p->offset) % p->cols;
            return rows + r + (past * 2 > p->cols);
        }
        rows += p->rows;
    }
    return rows;
}

static const struct lh_update_rule *rule_of(const struct lh_update_rule *rules, size_t n_rules,
                                            const char *name)
{
    for (size_t i = 0; i < n_rules; i++) {
        if (lh_layout_match(rules[i].pattern, name))
            return &rules[i];
    }
    return NULL;
}

static int check(const struct lh_layout_params *from, const struct lh_update_rule *rules,
                 size_t n_rules, uint64_t *rows)
{
    uint64_t end = 0;
    *rows = 0;
    for (size_t i = 0; i < from->n_params; i++) {
        const struct lh_param *p = &from->params[i];
        if (p->rows == 0 || p->cols == 0 || p->offset < end)
            return lh_err_set(LH_EINTERNAL, "%s: parameters are not ascending and not empty",
                              p->name);
        end = p->offset + (uint64_t)p->rows * p->cols;
        *rows += p->rows;
        const struct lh_update_rule *rule = rule_of(rules, n_rules, p->name);
        if (p->trained && !rule)
            return lh_err_set(LH_ECONFIG,
                              "%s: is trained, but no update rule matches it; add a group for it "
                              "to the algorithm",
                              p->name);
        if (rule && (rule->period == 0 || rule->target_period == 0))
            return lh_err_set(LH_ECONFIG, "%s: rule '%s' has a period of 0; it must be at least 1",
                              p->name, rule->pattern);
    }
    if (end > from->flat_size)
        return lh_err_set(LH_EINTERNAL, "parameters end behind the flat array");
    return 0;
}

/* Writes (or, with out NULL, only counts) the segments of [lo, hi). */
static size_t segments_of(const struct lh_layout_params *from, const struct lh_update_rule *rules,
                          size_t n_rules, uint64_t lo, uint64_t hi, struct lh_segment *out)
{
    size_t n = 0;
    for (size_t i = 0; i < from->n_params; i++) {
        const struct lh_param *p = &from->params[i];
        uint64_t a = p->offset, b = p->offset + (uint64_t)p->rows * p->cols;
        a = a < lo ? lo : a;
        b = b > hi ? hi : b;
        if (a >= b)
            continue;
        if (out) {
            const struct lh_update_rule *rule = rule_of(rules, n_rules, p->name);
            out[n] = (struct lh_segment){
                .name = p->name,
                .param = (uint32_t)i,
                .lo = a,
                .hi = b,
                .row = (a - p->offset) / p->cols,
                .rows = (b - a) / p->cols,
                .cols = p->cols,
                .trained = p->trained,
                .has_target = p->has_target,
                .learning_rate = rule ? rule->learning_rate : 0,
                .period = rule ? rule->period : 1,
                .tau = rule ? rule->tau : 0,
                .target_period = rule ? rule->target_period : 1,
            };
        }
        n++;
    }
    return n;
}

int lh_layout_init_params(struct lh_layout *out, const struct lh_layout_params *from,
                          const struct lh_update_rule *rules, size_t n_rules, size_t n_shards)
{
    int rc;
    uint64_t rows = 0;
    struct lh_layout l = {
        .flat_size = from->flat_size, .params = from->params, .n_params = from->n_params};
    LH_TRY(check(from, rules, n_rules, &rows));
    if (n_shards == 0 || n_shards > rows || n_shards > UINT32_MAX)
        return lh_err_set(LH_ERANGE,
                          "%zu servers cannot share a model of %llu rows; use between 1 and %llu",
                          n_shards, (unsigned long long)rows, (unsigned long long)rows);
    l.digest = layout_digest(from);
    for (size_t i = 0; i < from->n_params; i++)
        l.elements += (uint64_t)from->params[i].rows * from->params[i].cols;
    LH_TRY(LH_NEW_ARRAY(&l.shards, n_shards, "layout"));
    l.n_shards = n_shards;
    uint64_t row = 0, lo = 0;
    for (size_t i = 0; i < n_shards; i++) {
        struct lh_shard_range *r = &l.shards[i];
        uint64_t left = n_shards - i - 1; /* shards behind this one, each needs a row */
        uint64_t ideal = (uint64_t)((unsigned __int128)l.flat_size * (i + 1) / n_shards);
        uint64_t next = left == 0 ? rows : row_nearest(from, ideal);
        next = next < row + 1 ? row + 1 : next;
        next = next > rows - left ? rows - left : next;
        *r = (struct lh_shard_range){.lo = lo,
                                     .hi = row_start(from, next),
                                     .shard = (uint32_t)i,
                                     .shards = (uint32_t)n_shards,
                                     .flat_size = l.flat_size,
                                     .digest = l.digest};
        r->n_segments = segments_of(from, rules, n_rules, r->lo, r->hi, NULL);
        LH_TRY_TO(fail, LH_NEW_ARRAY(&r->segments, r->n_segments, "layout"));
        segments_of(from, rules, n_rules, r->lo, r->hi, r->segments);
        row = next;
        lo = r->hi;
    }
    *out = l;
    return 0;
fail:
    lh_layout_fini(&l);
    return rc;
}

void lh_layout_fini(struct lh_layout *l)
{
    for (size_t i = 0; i < l->n_shards; i++)
        lh_mem_free(l->shards[i].segments);
    lh_mem_free(l->shards);
    *l = (struct lh_layout){0};
}

/* --- the gradient tree ----------------------------------------------------------------------- */

uint32_t lh_tree_height(uint32_t leaves)
{
    uint32_t h = 0;
    while (((uint64_t)1 << h) < leaves)
        h++;
    return h;
}

int lh_tree_has(uint32_t leaves, struct lh_tree_node node)
{
    return node.level <= lh_tree_height(leaves) &&
           (uint64_t)node.index << node.level < (uint64_t)leaves;
}

size_t lh_tree_share(uint32_t leaves, uint32_t w, uint32_t n, struct lh_tree_node out[64])
{
    const uint32_t height = lh_tree_height(leaves);
    uint64_t at = (uint64_t)w * leaves / n, end = (uint64_t)(w + 1) * leaves / n;
    size_t count = 0;
    while (at < end) {
        /* Grow the block while it stays aligned and what it has beyond `end` is absent. */
        uint32_t level = 0;
        while (level < height && at % ((uint64_t)2 << level) == 0) {
            uint64_t stop = at + ((uint64_t)2 << level);
            if (stop > end && end != leaves)
                break;
            level++;
        }
        out[count++] = (struct lh_tree_node){level, (uint32_t)(at >> level)};
        at += (uint64_t)1 << level;
    }
    return count;
}

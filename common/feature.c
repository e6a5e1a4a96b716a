/* The plan of a schema's features: its life, and the pass over users that embeddings need. Reading
 * the schema is feature_schema.c, computing rows feature_apply.c. */
#include "common/feature.h"

#include "common/embedding.h"
#include "common/err.h"
#include "common/feature_internal.h"
#include "common/join.h"
#include "common/mem.h"

int lh_feature_plan_create(struct lh_feature_plan **out, const struct lh_yaml_node *schema,
                           const struct lh_column *columns, size_t n_columns, const char *data_dir,
                           uint64_t seed, unsigned threads)
{
    struct lh_feature_plan *p = NULL;
    LH_TRY(LH_NEW(&p, "feature plan"));
    p->widest = 1;
    int rc = lh_feature_schema_read(p, schema, columns, n_columns, data_dir, seed, threads);
    if (rc < 0)
        lh_feature_plan_destroy(&p);
    else
        *out = p;
    return rc;
}

void lh_feature_plan_destroy(struct lh_feature_plan **plan)
{
    struct lh_feature_plan *p = *plan;
    if (!p)
        return;
    for (int g = 0; g < LH_FEATURE_GROUPS; g++) {
        for (size_t k = 0; k < p->group[g].n; k++)
            lh_mem_free((void *)(uintptr_t)p->group[g].item[k].name);
        for (size_t k = 0; k < p->group[g].width; k++)
            lh_mem_free(p->group[g].name[k]);
        lh_mem_free(p->group[g].item);
        lh_mem_free(p->group[g].name);
    }
    for (size_t k = 0; k < p->n_keyed; k++) {
        lh_mem_free((void *)(uintptr_t)p->keyed[k].name);
        lh_join_destroy(&p->keyed[k].join);
        lh_embedding_destroy(&p->keyed[k].embedding);
    }
    lh_mem_free(p->keyed);
    for (size_t k = 0; p->id_name && k < p->n_ids; k++)
        lh_mem_free(p->id_name[k]);
    lh_mem_free(p->id_name);
    lh_mem_free(p->id);
    lh_mem_free(p);
    *plan = NULL;
}

void lh_feature_plan_dims(const struct lh_feature_plan *p, struct lh_dims *out)
{
    out->high = (uint32_t)p->group[LH_FEATURE_HIGH].width;
    out->low = (uint32_t)p->group[LH_FEATURE_LOW].width;
    out->action = (uint32_t)p->group[LH_FEATURE_ACTION].width;
    out->classes = 0;
    out->ids = (uint32_t)p->n_ids;
}

const char *const *lh_feature_plan_names(const struct lh_feature_plan *p, int group)
{
    return (const char *const *)p->group[group].name;
}

const char *const *lh_feature_plan_id_names(const struct lh_feature_plan *p)
{
    return (const char *const *)p->id_name;
}

int lh_feature_plan_needs_pass(const struct lh_feature_plan *p)
{
    for (size_t k = 0; k < p->n_keyed; k++) {
        if (p->keyed[k].embedding && lh_embedding_needs_pass(p->keyed[k].embedding))
            return 1;
    }
    return 0;
}

int lh_feature_plan_observe(struct lh_feature_plan *p, const struct lh_user_log *log,
                            const float *reward)
{
    for (size_t k = 0; k < p->n_keyed; k++) {
        if (p->keyed[k].embedding)
            LH_TRY(lh_embedding_observe(p->keyed[k].embedding, log, reward));
    }
    return 0;
}

int lh_feature_plan_finish(struct lh_feature_plan *p)
{
    for (size_t k = 0; k < p->n_keyed; k++) {
        if (p->keyed[k].embedding)
            LH_TRY(lh_embedding_finish(p->keyed[k].embedding));
    }
    return 0;
}

int lh_feature_plan_write_embeddings(const struct lh_feature_plan *p, const char *dir)
{
    const struct lh_feature_group *action = &p->group[LH_FEATURE_ACTION];
    const struct lh_source *s = &action->item[0].source;
    bool items = action->n == 1 && s->kind == LH_SOURCE_KEYED;
    for (size_t k = 0; k < p->n_keyed; k++) {
        if (!p->keyed[k].embedding)
            continue;
        char *path = NULL;
        if (items && s->keyed == k)
            LH_TRY(lh_mem_printf(&path, "%s/items.csv", dir));
        else
            LH_TRY(lh_mem_printf(&path, "%s/embedding-%s.csv", dir, p->keyed[k].name));
        int rc = lh_embedding_write(p->keyed[k].embedding, path);
        lh_mem_free(path);
        LH_TRY(rc);
    }
    return 0;
}

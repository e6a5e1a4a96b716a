/* The ids that a state carries: a column of the log at the row itself or so many rows before it.
 * They travel as they are, 64 bits, for the embedding tables of a job. Like features they must not
 * see the present row's action. */
#include "common/feature_internal.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

/* An item of ids: the name of a column, or {id:, back:, name:}. */
static int read_id(struct lh_feature_plan *p, const struct lh_yaml_node *item,
                   const struct lh_column *columns, size_t n_columns, const bool *in_action,
                   size_t k)
{
    static const char *const keys[] = {"id", "back", "name"};
    size_t at = 0;
    const struct lh_yaml_node *where = item;
    const char *column = NULL, *name = NULL;
    int64_t back = 0;
    if (item->kind != LH_YAML_SCALAR) {
        LH_TRY(lh_yaml_check_keys(item, keys, sizeof keys / sizeof *keys));
        where = lh_yaml_get(item, "id");
        LH_TRY(lh_yaml_int(lh_yaml_get(item, "back"), 0, 1000, &back));
        LH_TRY(lh_yaml_string(lh_yaml_get(item, "name"), &name));
    }
    if (!where)
        return lh_yaml_fail(item, "names no column; write {id: item_id, back: 1}");
    LH_TRY(lh_yaml_string(where, &column));
    LH_TRY(lh_userlog_find_column(columns, n_columns, where, column, &at));
    if (columns[at].type != LH_COLUMN_ID)
        return lh_yaml_fail(where, "column '%s' is no id; declare it so under columns:", column);
    if (back == 0 && in_action[at])
        return lh_yaml_fail(where,
                            "'%s' is what the action is made of; the state may see it in past rows "
                            "only: {id: %s, back: 1}",
                            column, column);
    p->id[k] = (struct lh_feature_id){at, (size_t)back};
    if (name)
        LH_TRY(lh_mem_strdup(&p->id_name[k], name));
    else if (back)
        LH_TRY(lh_mem_printf(&p->id_name[k], "%s.back%d", column, (int)back));
    else
        LH_TRY(lh_mem_strdup(&p->id_name[k], column));
    for (size_t i = 0; i < k; i++)
        if (strcmp(p->id_name[i], p->id_name[k]) == 0)
            return lh_yaml_fail(
                item,
                "the id '%s' is in the list already; give one of them a name:", p->id_name[k]);
    return 0;
}

int lh_feature_ids_read(struct lh_feature_plan *p, const struct lh_yaml_node *schema,
                        const struct lh_column *columns, size_t n_columns, const bool *in_action)
{
    const struct lh_yaml_node *list = lh_yaml_get(schema, "ids");
    size_t k = 0;
    if (!list)
        return 0;
    LH_TRY(lh_yaml_expect(list, LH_YAML_SEQUENCE));
    if (list->n > LH_IDS_MAX)
        return lh_yaml_fail(list, "more than %d ids", LH_IDS_MAX);
    LH_TRY(LH_NEW_ARRAY(&p->id, list->n, "ids"));
    LH_TRY(LH_NEW_ARRAY(&p->id_name, list->n, "ids"));
    p->n_ids = list->n;
    for (const struct lh_yaml_node *item = list->child; item; item = item->next)
        LH_TRY(read_id(p, item, columns, n_columns, in_action, k++));
    return 0;
}

void lh_feature_plan_ids(const struct lh_feature_plan *p, const struct lh_user_log *log,
                         uint64_t *ids)
{
    for (size_t k = 0; k < p->n_ids; k++) {
        const uint64_t *from = log->column[p->id[k].column].id;
        for (size_t i = 0; i < log->n; i++)
            ids[i * p->n_ids + k] = i < p->id[k].back ? LH_ID_NONE : from[i - p->id[k].back];
    }
}

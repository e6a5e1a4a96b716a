/* Finding the columns that rewards and features name, and what ids are. */
#include "common/userlog.h"

#include "common/err.h"
#include "common/mem.h"

#include <xxhash.h>

#include <stdbool.h>
#include <string.h>

const char *lh_userlog_type_name(enum lh_column_type type)
{
    static const char *const names[] = {"number", "category", "id"};
    return names[type];
}

int lh_userlog_find_column(const struct lh_column *columns, size_t n_columns,
                           const struct lh_yaml_node *where, const char *name, size_t *out)
{
    for (size_t c = 0; c < n_columns; c++) {
        if (strcmp(columns[c].name, name) == 0) {
            *out = c;
            return 0;
        }
    }
    const char **names = NULL;
    LH_TRY(LH_NEW_ARRAY(&names, n_columns, "column names"));
    for (size_t c = 0; c < n_columns; c++)
        names[c] = columns[c].name;
    const char *near = lh_yaml_nearest(name, names, n_columns);
    int rc = near ? lh_yaml_fail(where, "there is no column '%s'; did you mean '%s'?", name, near)
                  : lh_yaml_fail(where, "there is no column '%s'; declare it under columns:", name);
    lh_mem_free(names);
    return rc;
}

int lh_userlog_read_column(const struct lh_column *columns, size_t n_columns,
                           const struct lh_yaml_node *node, enum lh_column_type type, size_t *out)
{
    const char *name = NULL;
    LH_TRY(lh_yaml_string(node, &name));
    LH_TRY(lh_userlog_find_column(columns, n_columns, node, name, out));
    if (columns[*out].type != type)
        return lh_yaml_fail(node, "column '%s' is of type %s; a %s is needed here", name,
                            lh_userlog_type_name(columns[*out].type), lh_userlog_type_name(type));
    return 0;
}

uint64_t lh_userlog_id(const char *text, size_t n)
{
    uint64_t id = 0;
    bool integer = n > 0 && n <= 20 && (text[0] != '0' || n == 1);
    for (size_t i = 0; integer && i < n; i++)
        integer = text[i] >= '0' && text[i] <= '9' && !__builtin_mul_overflow(id, 10, &id) &&
                  !__builtin_add_overflow(id, (uint64_t)(text[i] - '0'), &id);
    return integer ? id : XXH3_64bits(text, n);
}

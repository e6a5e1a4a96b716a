/* Tables joined by key: attributes of users or items, from a delimited file, as fixed vectors. */
#pragma once

#include "common/userlog.h"
#include "common/yaml.h"

struct lh_join;

/* `node` is one entry of the schema's `tables`. The file is read whole: 4 bytes a feature and 16 a
 * row. Errors: LH_ECONFIG, LH_ENOENT, LH_EIO, LH_EFORMAT with file and line, LH_ENOMEM. */
int lh_join_create(struct lh_join **out, const struct lh_yaml_node *node,
                   const struct lh_column *columns, size_t n_columns, const char *data_dir);
void lh_join_destroy(struct lh_join **j);

size_t lh_join_key(const struct lh_join *j); /* column of the log */
size_t lh_join_width(const struct lh_join *j);
/* Features of the table's column `name` (NULL: of all): [*offset, *offset + *width). Errors:
 * LH_NOTFOUND. */
int lh_join_column(const struct lh_join *j, const char *name, size_t *offset, size_t *width);
const char *const *lh_join_names(const struct lh_join *j);   /* [width], "gender=F" */
uint32_t lh_join_find(const struct lh_join *j, uint64_t id); /* row or LH_IDMAP_NONE */
const float *lh_join_values(const struct lh_join *j);        /* [rows, width] */

/* What schema.c and schema_columns.c share. */
#pragma once

#include "common/schema.h"

enum { LH_SCHEMA_TYPES = LH_SCHEMA_CATEGORY + 1 };
extern const char *const lh_schema_type_names[LH_SCHEMA_TYPES];

/* A scalar, or a list of scalars, in place of *out; NULL: what was there stays. */
int lh_schema_read_words(const struct lh_yaml_node *n, const char ***out, size_t *n_out);
/* The section `columns`. */
int lh_schema_read_columns(struct lh_schema *s, const struct lh_yaml_node *n);
void lh_schema_column_fini(struct lh_schema_column *c);

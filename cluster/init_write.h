/* Writing the schema and the job that `longhaul init` proposes for a log. */
#pragma once

#include "cluster/log_guess.h"

#include <stdio.h>

struct lh_init {
    const struct lh_log_probe *probe;
    const struct lh_log_guess *guess;
    const char *name;         /* of schema and job */
    const char *const *files; /* as the schema names them */
    size_t n_files;
    char **names; /* [n_columns] what the schema calls the columns */
};

/* Fills init->names: a column's own name, made into a word where it is none, each once. */
int lh_init_names(struct lh_init *init);
void lh_init_fini(struct lh_init *init);

/* What stands in the way of an import as it stands: its k-th reason from 0, a sentence; NULL if
 * there are not so many. */
const char *lh_init_undecided(const struct lh_init *init, size_t k);

void lh_init_write_schema(const struct lh_init *init, FILE *to);
void lh_init_write_job(const struct lh_init *init, FILE *to);

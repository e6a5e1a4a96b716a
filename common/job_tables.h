/* The section `tables` of a job: embedding tables, learnt with the rest, whose rows are looked up
 * by ids of the log and widen a state (common/graph.h, lh_graph_table). A mapping of names, each
 * with the keys of the table in job_tables.c:
 *
 *     tables:
 *       item: {ids: [movie_id.back1, movie_id.back2], into: state_low, dim: 16}
 */
#pragma once

#include "common/graph.h"
#include "common/yaml.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { LH_JOB_TABLE_IDS_MAX = 32 };

struct lh_job_table {
    char *name;
    char *ids[LH_JOB_TABLE_IDS_MAX]; /* names of the dataset's ids */
    size_t n_ids;
    int into;             /* 0: state_high; 1: state_low */
    uint32_t dim;         /* 16 */
    double learning_rate; /* 1e-3 */
    double init;          /* 0.05: U(-init, init) */
    uint32_t cache;       /* MB a server holds in memory, 256 */
    uint32_t admit_after; /* steps, 0 */
    uint64_t evict_after; /* steps; 0: never */
};

/* Reads the section (NULL: none) to out [LH_GRAPH_TABLES_MAX]. On failure what was read is the
 * caller's all the same. Errors: LH_ECONFIG with file, line and key. */
int lh_job_tables_read(struct lh_job_table *out, size_t *n, const struct lh_yaml_node *section);
void lh_job_tables_fini(struct lh_job_table *tables, size_t n);
/* Writes the section, every key present; nothing where there is no table. */
void lh_job_tables_print(FILE *to, const struct lh_job_table *tables, size_t n);
/* Chains `digest` with all that the weights depend on. */
uint64_t lh_job_tables_digest(const struct lh_job_table *tables, size_t n, uint64_t digest);
void lh_job_tables_help(FILE *to);

struct lh_job;
/* The part of a graph's spec that is a job's tables. */
void lh_job_tables_declare(const struct lh_job *job, struct lh_graph_spec *spec);
/* Finds the ids of table t among those of a dataset or snapshot: at [n_ids], indexes into names
 * [n]. Errors: LH_EMISMATCH, with the names there are. */
int lh_job_tables_find(const struct lh_job_table *t, const char *const *names, size_t n,
                       size_t *at);

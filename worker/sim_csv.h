/* The text of CSV logs: rows, compression, the schema beside them. Internal to sim_log.c. */
#pragma once

#include "worker/sim_log_internal.h"

struct sim_csv { /* a growing text, used again block after block */
    char *text;
    size_t n, cap;
    char *packed; /* gzip's output; swapped with text */
    size_t packed_cap;
};

void lh_sim_csv_reset(struct sim_csv *c);
void lh_sim_csv_fini(struct sim_csv *c);
int lh_sim_csv_header(struct sim_csv *c);
int lh_sim_csv_life(struct sim_csv *c, uint64_t user, const struct sim_life *life);
/* Replaces the text by one gzip member of it; members one after the other are a gzip file. */
int lh_sim_csv_gzip(struct sim_csv *c);
/* The schema under which `longhaul import` reads the log; the caller frees. */
int lh_sim_csv_schema(const struct lh_sim *sim, const struct lh_sim_log *log, char **out);

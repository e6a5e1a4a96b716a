/* Embeddings of ids: read from a file, or factorised from the training users' interactions. */
#pragma once

#include "common/userlog.h"
#include "common/yaml.h"

#include <stdbool.h>

struct lh_embedding;

/* `node` is one entry of the schema's `embeddings`. Reads the file of a `file:` embedding, from
 * under `data_dir` unless its path is absolute. `seed` is the default of `seed:`. Errors:
 * LH_ECONFIG, LH_ENOENT, LH_EFORMAT, LH_ENOMEM. */
int lh_embedding_create(struct lh_embedding **out, const struct lh_yaml_node *node,
                        const struct lh_column *columns, size_t n_columns, const char *data_dir,
                        uint64_t seed, unsigned threads);
void lh_embedding_destroy(struct lh_embedding **e);

uint32_t lh_embedding_dim(const struct lh_embedding *e);
size_t lh_embedding_key(const struct lh_embedding *e);        /* column of the log */
bool lh_embedding_drops_unseen(const struct lh_embedding *e); /* unseen: drop */
bool lh_embedding_needs_pass(const struct lh_embedding *e);   /* factorised */

/* Keeps a training user's interactions: 8 bytes a row, 16 a user, until finish; beyond `max_rows`
 * rows a share of the users, chosen by hash of the user and not by order. Other splits are passed
 * over. Any thread, any order. */
int lh_embedding_observe(struct lh_embedding *e, const struct lh_user_log *log,
                         const float *reward);
/* Factorises. The result depends on what was observed, not on its order or on threads. */
int lh_embedding_finish(struct lh_embedding *e);

/* Number of the id, or LH_IDMAP_NONE; and the vectors [n, dim] by number. */
uint32_t lh_embedding_find(const struct lh_embedding *e, uint64_t id);
const float *lh_embedding_values(const struct lh_embedding *e);
size_t lh_embedding_count(const struct lh_embedding *e);

/* CSV: id, e_0 .. e_(dim-1), ascending by id, with a header line. */
int lh_embedding_write(const struct lh_embedding *e, const char *path);

/* Features: the schema's `state_high`, `state_low`, `action` and `ids`, computed for one user's
 * rows at a time from columns, joined tables, embeddings and the user's own past. No feature may
 * look at the present row's outcome or at anything later.
 *
 *     tables:      users: {file: users.dat, separator: '::', key: user_id, columns: …}
 *     embeddings:  movie: {key: movie_id, method: factorise, value: rating, dim: 32}
 *     state_high:
 *       - table: users                                  # attributes of the present user
 *       - {mean: rating, at: session_start}             # over its rows before this session
 *       - {count: rows, log1p: true}
 *     state_low:
 *       - {mean: movie, last: 10}                       # mean embedding of the last 10 rows
 *       - {mean: movie, last: 10, weight: reward}
 *     action:
 *       - embedding: movie                              # of the present row
 *
 *     ids:
 *       - user_id                                       # of the present row
 *       - {id: movie_id, back: 1}                       # of the row before
 *
 * The grammar is told in full in common/README.md. Refused, because the state would see what it
 * must predict: present columns that the reward or the action is made of; past rewards that
 * average over the user's whole log (return time, session length). */
#pragma once

#include "common/userlog.h"
#include "common/yaml.h"

struct lh_feature_plan;

/* Parses and checks the feature part of a schema; loads joined tables and embedding files from
 * under `data_dir`. `threads` is what finish may use. The schema is read, not kept. */
int lh_feature_plan_create(struct lh_feature_plan **out, const struct lh_yaml_node *schema,
                           const struct lh_column *columns, size_t n_columns, const char *data_dir,
                           uint64_t seed, unsigned threads);
void lh_feature_plan_destroy(struct lh_feature_plan **p);

/* Widths and names of what apply fills (classes 0). Names live with the plan. */
void lh_feature_plan_dims(const struct lh_feature_plan *p, struct lh_dims *out);
const char *const *lh_feature_plan_names(const struct lh_feature_plan *p,
                                         int group /* 0 high, 1 low, 2 action */);

const char *const *lh_feature_plan_id_names(const struct lh_feature_plan *p);

/* Some features are fitted to the training users first (matrix factorisation). If true, import
 * calls observe for every user (any thread, any order; the plan sees to it that the result does
 * not depend on the order), then finish once, then apply for every user. reward: of
 * the user's rows. */
int lh_feature_plan_needs_pass(const struct lh_feature_plan *p);
int lh_feature_plan_observe(struct lh_feature_plan *p, const struct lh_user_log *log,
                            const float *reward);
int lh_feature_plan_finish(struct lh_feature_plan *p);

/* Fills high [n, H], low [n, L], action [n, A]; reward [n] are the user's rewards by row, of which
 * a feature at row i may use rows before i only. keep [n]: set to 0 for rows to drop (item without
 * embedding, missing value with `missing: drop`); initialised to 1 by the caller. A dropped row
 * stays part of the user's past. Any thread; takes one block of 4 bytes x n x (2 + tables +
 * embeddings). Errors: LH_ERANGE if a feature is not finite or a value is missing; LH_ENOMEM. */
int lh_feature_plan_apply(const struct lh_feature_plan *p, const struct lh_user_log *log,
                          const float *reward, float *high, float *low, float *action,
                          unsigned char *keep);

/* Fills ids [n, I]: those of the state of each row, LH_ID_NONE where there is none. */
void lh_feature_plan_ids(const struct lh_feature_plan *p, const struct lh_user_log *log,
                         uint64_t *ids);

/* Where the action is one embedding: writes it to DIR/items.csv (id, e_0, …; what `longhaul act
 * --items` ranks). The other embeddings go to DIR/embedding-NAME.csv. After finish. Import calls
 * this before commit, into the partial directory. An id that was text is written as its hash. */
int lh_feature_plan_write_embeddings(const struct lh_feature_plan *p, const char *dir);

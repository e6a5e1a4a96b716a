/* Raw states from lines of text, for `longhaul act`: CSV with or without a header line, or JSON
 * lines. Columns are matched to a snapshot's features by name; without names they come in order. */
#pragma once

#include "cluster/lines.h"
#include "common/tensor.h"

enum lh_state_format { LH_STATES_AUTO, LH_STATES_CSV, LH_STATES_JSONL };

struct lh_state_spec {
    struct lh_dims dims;
    const char *const *high_names, *const *low_names;
    enum lh_state_format format; /* AUTO: JSON lines if the first byte is '{' */
    char separator;
    const char *const *keep; /* columns to pass through */
    size_t n_keep;
    size_t n_ids; /* the last of them, which a policy's tables are looked up by */
};

struct lh_state_reader;

/* The spec's arrays must outlive the reader. */
int lh_state_reader_create(struct lh_state_reader **out, const struct lh_state_spec *spec);
void lh_state_reader_destroy(struct lh_state_reader **r);

/* Begins another input: its first line may be a header again. */
void lh_state_reader_begin(struct lh_state_reader *r);

/* Reads one line into high [H], low [L]. What was kept, one string a column, follows in `kept`
 * [n_keep]: JSON text if `kept_json`; valid until the next call. Returns LH_AGAIN if the line holds
 * no state (a header, or nothing). Errors: LH_EFORMAT with "file:line: " in front: the line is bad,
 * the next may be good; LH_EMISMATCH: the whole input is (its header lacks a feature). */
int lh_state_reader_line(struct lh_state_reader *r, const struct lh_lines *from, char *line,
                         size_t n, float *high, float *low, const char **kept, bool *kept_json);

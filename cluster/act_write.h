/* What `longhaul act` writes for a state: CSV rows, JSON lines, or text for people. */
#pragma once

#include "cluster/items.h"
#include "worker/policy.h"

#include <stdbool.h>
#include <stdio.h>

enum lh_act_format { LH_ACT_CSV, LH_ACT_JSONL, LH_ACT_TEXT };

struct lh_act_writer {
    FILE *to;
    enum lh_act_format format;
    char separator;
    size_t width;             /* A */
    const char *const *names; /* [A] */
    const char *const *keep;  /* names of columns passed through */
    size_t n_keep;
    size_t top;        /* ranked items a state; 0: none */
    size_t estimators; /* N, of explanations */
};

struct lh_act_answer {
    const float *action;     /* [A] */
    const char *const *kept; /* [n_keep] */
    bool kept_json;          /* they are JSON texts, else plain */
    const struct lh_item_score *items;
    size_t n_items;
    const struct lh_explain
        *explain; /* of this state, NULL if none; NAN where the policy has none */
};

/* The header line of CSV; nothing of the others. */
void lh_act_write_header(const struct lh_act_writer *w);
/* `number` of the state, from 1, for text. Errors of the stream are the caller's to look for. */
void lh_act_write(const struct lh_act_writer *w, uint64_t number, const struct lh_act_answer *a);

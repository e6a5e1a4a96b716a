/* What the columns of a log may mean, guessed from names and values. */
#pragma once

#include "cluster/log_probe.h"

enum lh_role {
    LH_ROLE_NONE,     /* not declared */
    LH_ROLE_USER,     /* who */
    LH_ROLE_SESSION,  /* which visit */
    LH_ROLE_TIME,     /* when */
    LH_ROLE_ITEM,     /* what was shown or chosen */
    LH_ROLE_RATING,   /* how it was liked, on a scale */
    LH_ROLE_REWARD,   /* a reward as it is */
    LH_ROLE_FEEDBACK, /* a signal of 0 or 1, or an amount, known after the action */
    LH_ROLE_EVENT,    /* the name of what the user did: "view", "purchase" */
    LH_ROLE_END,      /* whether the trajectory ended here */
    LH_ROLE_STATE,    /* a number known before the action */
    LH_ROLE_ACTION,   /* a component of the action */
    LH_ROLE_CONTEXT,  /* a category known before the action */
    LH_ROLES
};

struct lh_log_guess {
    enum lh_role *role; /* [n_columns] */
    enum lh_time_unit unit;
    /* columns; SIZE_MAX: none */
    size_t user, session, time, item, rating, reward, event, end;
    size_t states, actions, feedbacks, contexts; /* how many */
    bool user_is_session; /* there is no user; its sessions are taken for users */
    bool by_position;     /* no names: guessed from values and order alone */
};

int lh_log_guess_make(struct lh_log_guess *out, const struct lh_log_probe *p);
/* Whether a signal of that name speaks against what was shown: "is_hate". */
bool lh_log_guess_is_bad(const char *name);
void lh_log_guess_fini(struct lh_log_guess *g); /* idempotent */

/* The clock plan of a run: at which versions all shards are cut, and which cuts are evaluated. A
 * pure function of the config, so that servers and scheduler agree without a message. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct lh_clock {
    uint64_t start, until, total; /* versions: first, last of this run, last of the job */
    uint64_t checkpoint_every;    /* steps, >= 1 */
    uint64_t evaluate_every;      /* steps; 0: no evaluation */
    bool evaluate_start;          /* the cut this run starts from was not evaluated yet */
};

static inline bool lh_clock_evaluates(const struct lh_clock *c, uint64_t version)
{
    if (c->evaluate_every == 0)
        return false;
    if (version <= c->start)
        return version == c->start && c->evaluate_start;
    return version % c->evaluate_every == 0 || version == c->total;
}

/* An interrupted run has one cut more, at `until`, which is not evaluated: what is best must not
 * depend on interruptions. */
static inline bool lh_clock_cuts(const struct lh_clock *c, uint64_t version)
{
    return version > c->start && (version % c->checkpoint_every == 0 || version == c->until ||
                                  lh_clock_evaluates(c, version));
}

/* The last version at or before `step` that is cut or evaluated, or the run began at: what all
 * shards must hold before the step may begin, in any model of consistency. */
static inline uint64_t lh_clock_barrier(const struct lh_clock *c, uint64_t step)
{
    uint64_t last = c->start, cut = step - step % c->checkpoint_every;
    last = cut > last ? cut : last;
    cut = c->evaluate_every > 0 ? step - step % c->evaluate_every : 0;
    return cut > last ? cut : last;
}

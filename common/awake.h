/* Whether a role had its turns itself. While a run is suspended as a whole (SIGSTOP, a scheduler of
 * batch jobs, a laptop that sleeps), or gets no processor, nobody can be heard: that says nothing
 * of the others, whose silence counts anew. */
#pragma once

struct lh_awake {
    double last; /* turn, seconds; 0: none yet */
};

/* To be called each turn. Seconds since the last, if those are so many that somebody would soon be
 * taken for dead by a role that waits for `deadline`; else 0. */
static inline double lh_awake_gap(struct lh_awake *a, double now, double deadline)
{
    const double gap = a->last > 0 ? now - a->last : 0;
    a->last = now;
    return gap > deadline / 2 ? gap : 0;
}

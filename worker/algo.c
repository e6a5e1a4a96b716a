/* The registry of algorithms. */
#include "worker/algo.h"

#include <string.h>

static const struct lh_algo *const all[] = {&lh_algo_resact, &lh_algo_il, &lh_algo_il_cvae, NULL};

const struct lh_algo *lh_algo_find(const char *name)
{
    for (const struct lh_algo *const *a = all; *a; a++)
        if (!strcmp((*a)->name, name))
            return *a;
    return NULL;
}

const struct lh_algo *const *lh_algo_all(void)
{
    return all;
}

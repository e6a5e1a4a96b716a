/* Open addressing with linear probing over slots that hold numbers; ids lie apart, in order of
 * number, so that they are also the list of what is known. */
#include "common/idmap.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

/* Finaliser of splitmix64: ids are often small consecutive integers. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The slot that holds `id`, or the empty one where it belongs. */
static size_t probe(const struct lh_idmap *m, uint64_t id)
{
    size_t s = (size_t)mix(id) & (m->n_slots - 1);
    while (m->slot[s] != LH_IDMAP_NONE && m->id[m->slot[s]] != id)
        s = (s + 1) & (m->n_slots - 1);
    return s;
}

static int widen(struct lh_idmap *m)
{
    size_t n_slots = m->n_slots ? 2 * m->n_slots : 64;
    uint32_t *slot = NULL;
    LH_TRY(LH_NEW_ARRAY(&slot, n_slots, "id map"));
    memset(slot, 0xff, n_slots * sizeof *slot);
    lh_mem_free(m->slot);
    m->slot = slot;
    m->n_slots = n_slots;
    for (size_t k = 0; k < m->n; k++)
        m->slot[probe(m, m->id[k])] = (uint32_t)k;
    return 0;
}

int lh_idmap_add(struct lh_idmap *m, uint64_t id, uint32_t *number)
{
    if (2 * (m->n + 1) > m->n_slots)
        LH_TRY(widen(m));
    size_t s = probe(m, id);
    if (m->slot[s] == LH_IDMAP_NONE) {
        if (m->n >= LH_IDMAP_NONE)
            return lh_err_set(LH_ERANGE, "more than %u distinct ids", LH_IDMAP_NONE - 1);
        LH_TRY(LH_GROW(&m->id, &m->cap, m->n + 1, "ids"));
        m->id[m->n] = id;
        m->slot[s] = (uint32_t)m->n++;
    }
    *number = m->slot[s];
    return 0;
}

uint32_t lh_idmap_find(const struct lh_idmap *m, uint64_t id)
{
    return m->n_slots ? m->slot[probe(m, id)] : LH_IDMAP_NONE;
}

void lh_idmap_fini(struct lh_idmap *m)
{
    lh_mem_free(m->id);
    lh_mem_free(m->slot);
    *m = (struct lh_idmap){0};
}

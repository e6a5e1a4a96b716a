/* One user's rows. Columns are gathered from the binary rows into arrays that are kept from user to
 * user; sessions are numbered by a small hash table whose entries carry the user's stamp, so that
 * it need not be cleared. */
#include "common/userrows.h"

#include "common/err.h"
#include "common/mem.h"

#include <xxhash.h>

#include <string.h>

#define NONE     SIZE_MAX
#define ORDER_US INT64_C(1000000) /* between rows that have an order and no times */

struct slot {
    uint64_t id;
    uint32_t number, stamp;
};

struct lh_userrows {
    const struct lh_schema *s;
    size_t cap; /* rows that the arrays hold */
    void **column;
    union lh_column_data *data;
    int64_t *time;
    uint32_t *session, *order, *start;
    struct slot *slots;
    size_t n_slots;
    uint32_t stamp;
};

int lh_userrows_create(struct lh_userrows **out, const struct lh_schema *s)
{
    struct lh_userrows *u = NULL;
    int rc;
    LH_TRY(LH_NEW(&u, "user rows"));
    u->s = s;
    LH_TRY_TO(fail, LH_NEW_ARRAY(&u->column, s->n_visible, "user rows"));
    LH_TRY_TO(fail, LH_NEW_ARRAY(&u->data, s->n_visible, "user rows"));
    *out = u;
    return 0;
fail:
    lh_userrows_destroy(&u);
    return rc;
}

void lh_userrows_destroy(struct lh_userrows **p)
{
    struct lh_userrows *u = *p;
    if (!u)
        return;
    for (size_t i = 0; u->column && i < u->s->n_visible; i++)
        lh_mem_free(u->column[i]);
    lh_mem_free(u->column);
    lh_mem_free(u->data);
    lh_mem_free(u->time);
    lh_mem_free(u->session);
    lh_mem_free(u->order);
    lh_mem_free(u->start);
    lh_mem_free(u->slots);
    lh_mem_free(u);
    *p = NULL;
}

static size_t width_of(const struct lh_column *c)
{
    return c->type == LH_COLUMN_ID ? 8 : 4;
}

static int reserve(struct lh_userrows *u, size_t n)
{
    if (n <= u->cap)
        return 0;
    size_t cap = n > 2 * u->cap ? n : 2 * u->cap;
    for (size_t i = 0; i < u->s->n_visible; i++)
        LH_TRY(lh_mem_realloc(&u->column[i], cap, width_of(&u->s->visible[i]), "user rows"));
    LH_TRY(lh_mem_realloc((void **)&u->time, cap, sizeof *u->time, "user rows"));
    LH_TRY(lh_mem_realloc((void **)&u->session, cap, sizeof *u->session, "user rows"));
    LH_TRY(lh_mem_realloc((void **)&u->order, cap, sizeof *u->order, "user rows"));
    LH_TRY(lh_mem_realloc((void **)&u->start, cap + 1, sizeof *u->start, "user rows"));
    if (u->s->session != NONE) {
        size_t slots = 16;
        while (slots < 2 * cap)
            slots *= 2;
        lh_mem_free(u->slots);
        u->slots = NULL;
        LH_TRY(LH_NEW_ARRAY(&u->slots, slots, "sessions of a user"));
        u->n_slots = slots;
        u->stamp = 0;
    }
    u->cap = cap;
    return 0;
}

static struct slot *find_slot(struct lh_userrows *u, uint64_t id)
{
    size_t mask = u->n_slots - 1;
    size_t at = XXH3_64bits(&id, sizeof id) & mask;
    while (u->slots[at].stamp == u->stamp && u->slots[at].id != id)
        at = (at + 1) & mask;
    return &u->slots[at];
}

/* Numbers sessions of an id column by first appearance; returns how many, *mixed if some came back
 * after another had begun. */
static uint32_t number_sessions(struct lh_userrows *u, const char *rows, size_t n, bool *mixed)
{
    size_t offset = u->s->columns[u->s->session].offset;
    uint32_t sessions = 0;
    u->stamp++;
    if (u->stamp == 0) { /* stamps have come round */
        memset(u->slots, 0, u->n_slots * sizeof *u->slots);
        u->stamp = 1;
    }
    *mixed = false;
    for (size_t i = 0; i < n; i++) {
        uint64_t id;
        memcpy(&id, rows + i * u->s->row_bytes + offset, sizeof id);
        struct slot *slot = find_slot(u, id);
        if (slot->stamp != u->stamp)
            *slot = (struct slot){id, sessions++, u->stamp};
        u->session[i] = slot->number;
        *mixed |= i > 0 && slot->number < u->session[i - 1];
    }
    return sessions;
}

/* u->order becomes a stable order by session number; u->session is sorted. */
static void group_sessions(struct lh_userrows *u, size_t n, uint32_t sessions)
{
    memset(u->start, 0, (sessions + 1) * sizeof *u->start);
    for (size_t i = 0; i < n; i++)
        u->start[u->session[i] + 1]++;
    for (uint32_t k = 0; k < sessions; k++)
        u->start[k + 1] += u->start[k];
    for (size_t i = 0; i < n; i++)
        u->order[u->start[u->session[i]]++] = (uint32_t)i;
    /* start[k] is now the end of session k */
    for (uint32_t k = 0, i = 0; k < sessions; k++) {
        for (; i < u->start[k]; i++)
            u->session[i] = k;
    }
}

static void load_times(struct lh_userrows *u, const char *rows, size_t n, bool mixed)
{
    for (size_t i = 0; i < n; i++) {
        if (u->s->time == NONE) {
            u->time[i] = (int64_t)i * ORDER_US;
            continue;
        }
        size_t from = mixed ? u->order[i] : i;
        memcpy(&u->time[i], rows + from * u->s->row_bytes + offsetof(struct lh_row, time), 8);
        if (i > 0 && u->time[i] < u->time[i - 1])
            u->time[i] = u->time[i - 1];
    }
}

static void gather4(char *to, const char *from, size_t stride, size_t n, const uint32_t *order)
{
    for (size_t i = 0; i < n; i++)
        memcpy(to + 4 * i, from + (order ? order[i] : i) * stride, 4);
}

static void gather8(char *to, const char *from, size_t stride, size_t n, const uint32_t *order)
{
    for (size_t i = 0; i < n; i++)
        memcpy(to + 8 * i, from + (order ? order[i] : i) * stride, 8);
}

int lh_userrows_load(struct lh_userrows *u, const char *rows, size_t n, struct lh_user_log *log,
                     uint64_t *sessions)
{
    const struct lh_schema *s = u->s;
    bool mixed = false;
    uint32_t count = 1;
    struct lh_row first;
    if (n >= UINT32_MAX)
        return lh_err_set(LH_ERANGE, "a user has %zu rows; is '%s' a user id?", n,
                          s->columns[s->user].name);
    LH_TRY(reserve(u, n));
    memcpy(&first, rows, sizeof first);
    if (s->session != NONE) {
        count = number_sessions(u, rows, n, &mixed);
        if (mixed)
            group_sessions(u, n, count);
    }
    load_times(u, rows, n, mixed);
    if (s->session == NONE) {
        count = 0;
        for (size_t i = 0; i < n; i++) {
            count += s->gap_us > 0 && i > 0 && u->time[i] - u->time[i - 1] > s->gap_us;
            u->session[i] = count;
        }
        count++;
    }
    for (size_t c = 0; c < s->n_visible; c++) {
        const char *from = rows + s->columns[s->visible_column[c]].offset;
        const uint32_t *order = mixed ? u->order : NULL;
        if (width_of(&s->visible[c]) == 8)
            gather8(u->column[c], from, s->row_bytes, n, order);
        else
            gather4(u->column[c], from, s->row_bytes, n, order);
        u->data[c].id = u->column[c]; /* whichever member: all are pointers */
    }
    *log = (struct lh_user_log){
        .user = first.user, .n = n, .time_us = u->time, .session = u->session, .column = u->data};
    *sessions = count;
    return 0;
}

/* --- cutting --------------------------------------------------------------------------------- */

/* The end column, in the order of the log. */
static const float *ends_of(const struct lh_userrows *u)
{
    if (u->s->end != LH_END_COLUMN)
        return NULL;
    size_t c = 0;
    while (u->s->visible_column[c] != u->s->end_column)
        c++;
    return u->column[c];
}

static void move_row(struct lh_userrows *u, struct lh_userrows_made *m, size_t to, size_t from)
{
    if (to == from)
        return;
    const size_t f = sizeof(float);
    memmove(m->high + to * m->dims.high, m->high + from * m->dims.high, m->dims.high * f);
    memmove(m->low + to * m->dims.low, m->low + from * m->dims.low, m->dims.low * f);
    memmove(m->action + to * m->dims.action, m->action + from * m->dims.action, m->dims.action * f);
    if (m->dims.ids)
        memmove(m->ids + to * m->dims.ids, m->ids + from * m->dims.ids,
                m->dims.ids * sizeof *m->ids);
    m->reward[to] = m->reward[from];
    u->time[to] = u->time[from];
    u->session[to] = u->session[from];
}

struct cutter {
    struct lh_userrows *u;
    struct lh_userrows_made *m;
    lh_userrows_add add;
    void *ctx;
    struct lh_trajectory t; /* user and split */
    uint64_t number;        /* of the trajectory within the user */
    uint64_t left_out;
};

/* Rows lo .. hi-1, compacted, are a trajectory. */
static int emit(struct cutter *c, size_t lo, size_t hi, bool ends)
{
    const struct lh_userrows_made *m = c->m;
    if (hi - lo < c->u->s->min_length) {
        c->left_out += hi - lo;
        return 0;
    }
    uint64_t key[2] = {c->t.user, c->number++};
    struct lh_trajectory t = c->t;
    t.id = XXH3_64bits(key, sizeof key);
    t.ends = ends;
    t.n = hi - lo;
    t.high = m->high + lo * m->dims.high;
    t.low = m->low + lo * m->dims.low;
    t.action = m->action + lo * m->dims.action;
    t.reward = m->reward + lo;
    t.time_us = c->u->time + lo;
    t.session = c->u->session + lo;
    t.ids = m->dims.ids ? m->ids + lo * m->dims.ids : NULL;
    return c->add(c->ctx, &t);
}

int lh_userrows_cut(struct lh_userrows *u, const struct lh_user_log *log,
                    struct lh_userrows_made *made, lh_userrows_add add, void *ctx,
                    uint64_t *left_out)
{
    const struct lh_schema *s = u->s;
    const float *end_column = ends_of(u);
    struct cutter c = {u, made, add, ctx, {.split = log->split, .user = log->user}, 0, 0};
    size_t lo = 0, hi = 0; /* compacted rows of the trajectory at hand */
    for (size_t i = 0; i < log->n; i++) {
        bool last = i + 1 == log->n;
        bool flagged = end_column && end_column[i] > 0;
        bool border = last || flagged || (s->by_session && u->session[i + 1] != u->session[i]);
        if (made->keep[i])
            move_row(u, made, hi++, i);
        else
            c.left_out++;
        bool full = s->max_length > 0 && hi - lo == s->max_length;
        if ((border || full) && hi > lo) {
            bool ends = s->end == LH_END_COLUMN ? flagged : border && s->end == LH_END_TRUE;
            LH_TRY(emit(&c, lo, hi, ends));
            lo = hi;
        }
    }
    *left_out += c.left_out;
    return 0;
}

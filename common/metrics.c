/* The registry and its page. A value is one 64-bit atomic that holds a double; only its role's
 * thread writes it, so an addition needs no atomic exchange. Slots of a role lie in an array of its
 * own, on cache lines of its own. The lock guards the list of roles alone. */
#include "common/metrics.h"

#include "common/err.h"
#include "common/http.h"
#include "common/mem.h"
#include "common/net.h"
#include "common/term.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NOT_SET UINT64_MAX /* the bits of a NaN that no arithmetic gives */
#define ABSENT  SIZE_MAX

enum label { LABEL_NONE, LABEL_VERSION, LABEL_PHASE, LABEL_KIND, LABEL_LOSS, LABELS };

static const char *const versions[] = {LH_VERSION, NULL};
static const char *const phases[] = {"gather", "forward",  "backward", "reduce", "push", "take",
                                     "wait",   "optimise", "reply",    "freeze", NULL};
static const char *const kinds[] = {"worker", "server", NULL};
static const char *const *const label_values[LABELS] = {NULL, versions, phases, kinds, NULL};

static const enum label labels[LH_METRIC_N] = {
#define LABEL_OF(id, kind, roles, label, name, help) [LH_METRIC_##id] = LABEL_##label,
    LH_METRIC_FAMILIES(LABEL_OF)
#undef LABEL_OF
};

#define NAME_NONE    NULL
#define NAME_VERSION "version"
#define NAME_PHASE   "phase"
#define NAME_KIND    "kind"
#define NAME_LOSS    "loss"

static const struct lh_metric_family families[LH_METRIC_N] = {
#define FAMILY_OF(id, kind_, roles_, label_, name_, help_)                                         \
    [LH_METRIC_##id] = {.name = name_,                                                             \
                        .help = help_,                                                             \
                        .kind = LH_METRIC_##kind_,                                                 \
                        .roles = LH_METRICS_##roles_,                                              \
                        .label = NAME_##label_},
    LH_METRIC_FAMILIES(FAMILY_OF)
#undef FAMILY_OF
};

/* Upper ends of a histogram's buckets; the last, +Inf, is left out. */
struct bounds {
    size_t n;
    double at[16];
};

static const struct bounds seconds_bounds = {
    14, {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60}};
static const struct bounds steps_bounds = {8, {0, 1, 2, 4, 8, 16, 32, 64}};

struct lh_metrics_role {
    struct lh_metrics_role *next;
    unsigned role;
    char who[64]; /* role="server",node="2",shard="1" */
    size_t at[LH_METRIC_N], n_values[LH_METRIC_N];
    char **losses;
    size_t n_losses;
    _Atomic uint64_t *slots;
};

struct lh_metrics {
    pthread_mutex_t mutex; /* of the list */
    struct lh_metrics_role *first, **last;
    struct lh_metrics_role *process;
    struct lh_http *http;
};

/* --- slots -------------------------------------------------------------------------------------
 */
static const struct bounds *bounds_of(enum lh_metric m)
{
    return m == LH_METRIC_STALENESS ? &steps_bounds : &seconds_bounds;
}

/* A histogram: a count a bucket, the last for +Inf, then the sum. */
static size_t width_of(enum lh_metric m)
{
    return families[m].kind == LH_METRIC_HISTOGRAM ? bounds_of(m)->n + 2 : 1;
}

static size_t values_of(enum lh_metric m, const struct lh_metrics_who *who)
{
    size_t n = 0;
    if (labels[m] == LABEL_NONE)
        return 1;
    if (labels[m] == LABEL_LOSS)
        return who->n_losses;
    while (label_values[labels[m]][n])
        n++;
    return n;
}

static const char *value_name(const struct lh_metrics_role *r, enum lh_metric m, size_t i)
{
    return labels[m] == LABEL_LOSS ? r->losses[i] : label_values[labels[m]][i];
}

static double load(const _Atomic uint64_t *slot, bool *set)
{
    uint64_t bits = atomic_load_explicit(slot, memory_order_relaxed);
    double x;
    memcpy(&x, &bits, sizeof x);
    *set = bits != NOT_SET;
    return x;
}

static void store(_Atomic uint64_t *slot, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    atomic_store_explicit(slot, bits, memory_order_relaxed);
}

static void add(_Atomic uint64_t *slot, double x)
{
    bool set;
    double old = load(slot, &set);
    store(slot, set ? old + x : x);
}

static _Atomic uint64_t *slot_of(struct lh_metrics_role *r, enum lh_metric m, size_t at)
{
    if (!r || r->at[m] == ABSENT || at >= r->n_values[m])
        return NULL;
    return &r->slots[r->at[m] + at * width_of(m)];
}

void lh_metrics_set_at(struct lh_metrics_role *r, enum lh_metric m, size_t at, double value)
{
    _Atomic uint64_t *slot = slot_of(r, m, at);
    if (slot)
        store(slot, value);
}

void lh_metrics_add_at(struct lh_metrics_role *r, enum lh_metric m, size_t at, double value)
{
    _Atomic uint64_t *slot = slot_of(r, m, at);
    if (slot)
        add(slot, value);
}

void lh_metrics_set(struct lh_metrics_role *r, enum lh_metric m, double value)
{
    lh_metrics_set_at(r, m, 0, value);
}

void lh_metrics_add(struct lh_metrics_role *r, enum lh_metric m, double value)
{
    lh_metrics_add_at(r, m, 0, value);
}

void lh_metrics_observe(struct lh_metrics_role *r, enum lh_metric m, double value)
{
    _Atomic uint64_t *slots = slot_of(r, m, 0);
    const struct bounds *b = bounds_of(m);
    size_t i = 0;
    if (!slots)
        return;
    while (i < b->n && !(value <= b->at[i]))
        i++;
    add(&slots[i], 1);
    add(&slots[b->n + 1], value);
}

void lh_metrics_set_net(struct lh_metrics_role *r, const struct lh_net_counts *counts)
{
    lh_metrics_set(r, LH_METRIC_BYTES_IN, (double)counts->bytes_in);
    lh_metrics_set(r, LH_METRIC_BYTES_OUT, (double)counts->bytes_out);
    lh_metrics_set(r, LH_METRIC_MESSAGES_IN, (double)counts->messages_in);
    lh_metrics_set(r, LH_METRIC_MESSAGES_OUT, (double)counts->messages_out);
    lh_metrics_set(r, LH_METRIC_DROPPED, (double)counts->dropped);
}

/* --- roles -------------------------------------------------------------------------------------
 */
static void free_role(struct lh_metrics_role *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n_losses; i++)
        lh_mem_free(r->losses[i]);
    lh_mem_free(r->losses);
    lh_mem_free((void *)(uintptr_t)r->slots);
    lh_mem_free(r);
}

static void describe(struct lh_metrics_role *r, const struct lh_metrics_who *who)
{
    if (who->role == LH_METRICS_SERVER)
        snprintf(r->who, sizeof r->who,
                 "role=\"server\",node=\"%" PRIu32 "\",shard=\"%" PRIu32 "\"", who->node,
                 who->shard);
    else if (who->role != LH_METRICS_PROCESS)
        snprintf(r->who, sizeof r->who, "role=\"%s\",node=\"%" PRIu32 "\"",
                 who->role == LH_METRICS_WORKER ? "worker" : "scheduler", who->node);
}

/* Counters without a label and histograms begin at 0, so that they are seen from the first scrape
 * on; of the others what was never set is not shown. */
static void begin_slots(struct lh_metrics_role *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        atomic_init(&r->slots[i], NOT_SET);
    for (int m = 0; m < LH_METRIC_N; m++) {
        bool zero = families[m].kind == LH_METRIC_HISTOGRAM ||
                    (families[m].kind == LH_METRIC_COUNTER && labels[m] != LABEL_PHASE);
        for (size_t i = 0; zero && r->at[m] != ABSENT && i < r->n_values[m] * width_of(m); i++)
            store(&r->slots[r->at[m] + i], 0);
    }
}

static int make_role(const struct lh_metrics_who *who, struct lh_metrics_role **out)
{
    struct lh_metrics_role *r = NULL;
    void *slots = NULL;
    size_t n = 0;
    int rc;
    LH_TRY(LH_NEW(&r, "metrics of a role"));
    r->role = who->role;
    describe(r, who);
    LH_TRY_TO(fail, LH_NEW_ARRAY(&r->losses, who->n_losses, "metrics of a role"));
    for (; r->n_losses < who->n_losses; r->n_losses++)
        LH_TRY_TO(fail, lh_mem_strdup(&r->losses[r->n_losses], who->losses[r->n_losses]));
    for (int m = 0; m < LH_METRIC_N; m++) {
        bool here = (families[m].roles & who->role) != 0;
        r->at[m] = here ? n : ABSENT;
        r->n_values[m] = here ? values_of(m, who) : 0;
        n += r->n_values[m] * (here ? width_of(m) : 0);
    }
    LH_TRY_TO(fail, lh_mem_alloc_aligned(&slots, n, sizeof *r->slots, "metrics of a role"));
    r->slots = slots;
    begin_slots(r, n);
    *out = r;
    return 0;
fail:
    free_role(r);
    return rc;
}

int lh_metrics_join(struct lh_metrics *m, const struct lh_metrics_who *who,
                    struct lh_metrics_role **out)
{
    struct lh_metrics_role *r = NULL;
    *out = NULL;
    if (!m)
        return 0;
    LH_TRY(make_role(who, &r));
    pthread_mutex_lock(&m->mutex);
    *m->last = r;
    m->last = &r->next;
    pthread_mutex_unlock(&m->mutex);
    *out = r;
    return 0;
}

void lh_metrics_leave(struct lh_metrics *m, struct lh_metrics_role **out)
{
    struct lh_metrics_role **at, *r = *out;
    if (!r)
        return;
    pthread_mutex_lock(&m->mutex);
    for (at = &m->first; *at != r;)
        at = &(*at)->next;
    *at = r->next;
    if (m->last == &r->next)
        m->last = at;
    pthread_mutex_unlock(&m->mutex);
    free_role(r);
    *out = NULL;
}

/* --- the page ----------------------------------------------------------------------------------
 */
struct page {
    char *text;
    size_t n, cap;
    int rc; /* the first failure; nothing is written behind it */
};

__attribute__((format(printf, 2, 3))) static void put(struct page *p, const char *fmt, ...)
{
    if (p->rc < 0)
        return;
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    p->rc = LH_GROW(&p->text, &p->cap, p->n + (size_t)n + 1, "page of metrics");
    if (p->rc >= 0)
        p->n += (size_t)vsnprintf(p->text + p->n, (size_t)n + 1, fmt, again);
    va_end(again);
}

/* `quote`: of a label's value, where a quotation mark would end it. */
static void put_escaped(struct page *p, const char *s, bool quote)
{
    for (; *s; s++) {
        if (*s == '\\')
            put(p, "\\\\");
        else if (*s == '\n')
            put(p, "\\n");
        else if (*s == '"' && quote)
            put(p, "\\\"");
        else
            put(p, "%c", *s);
    }
}

static void put_number(struct page *p, double x)
{
    if (isnan(x))
        put(p, " NaN\n");
    else if (isinf(x))
        put(p, x > 0 ? " +Inf\n" : " -Inf\n");
    else if (x == trunc(x) && fabs(x) < 0x1p53)
        put(p, " %.0f\n", x);
    else
        put(p, " %.15g\n", x);
}

/* name{role="worker",node="1",phase="wait"} up to the value. `le`: NULL but in a bucket. */
static void put_series(struct page *p, const struct lh_metrics_role *r, enum lh_metric m,
                       const char *suffix, size_t at, const char *le)
{
    const char *comma = *r->who ? "," : "";
    bool labelled = *r->who || labels[m] != LABEL_NONE || le;
    put(p, "%s%s%s%s", families[m].name, suffix, labelled ? "{" : "", r->who);
    if (labels[m] != LABEL_NONE) {
        put(p, "%s%s=\"", comma, families[m].label);
        put_escaped(p, value_name(r, m, at), true);
        put(p, "\"");
        comma = ",";
    }
    if (le)
        put(p, "%sle=\"%s\"", comma, le);
    if (labelled)
        put(p, "}");
}

/* Buckets are cumulative, and the count is their last, so that a page never contradicts itself
 * though the role counts on meanwhile. */
static void put_histogram(struct page *p, const struct lh_metrics_role *r, enum lh_metric m)
{
    const struct bounds *b = bounds_of(m);
    const _Atomic uint64_t *slots = &r->slots[r->at[m]];
    double total = 0;
    bool set;
    for (size_t i = 0; i <= b->n; i++) {
        char le[32] = "+Inf";
        total += load(&slots[i], &set);
        if (i < b->n)
            snprintf(le, sizeof le, "%g", b->at[i]);
        put_series(p, r, m, "_bucket", 0, le);
        put_number(p, total);
    }
    put_series(p, r, m, "_sum", 0, NULL);
    put_number(p, load(&slots[b->n + 1], &set));
    put_series(p, r, m, "_count", 0, NULL);
    put_number(p, total);
}

static void put_values(struct page *p, const struct lh_metrics_role *r, enum lh_metric m)
{
    for (size_t i = 0; i < r->n_values[m]; i++) {
        bool set;
        double x = load(&r->slots[r->at[m] + i], &set);
        if (!set)
            continue;
        if (families[m].kind == LH_METRIC_SINCE)
            x = lh_now() - x;
        put_series(p, r, m, "", i, NULL);
        put_number(p, x);
    }
}

static void put_family(struct page *p, const struct lh_metrics *metrics, enum lh_metric m)
{
    static const char *const types[] = {"counter", "gauge", "gauge", "histogram"};
    bool first = true;
    for (const struct lh_metrics_role *r = metrics->first; r; r = r->next) {
        if (r->at[m] == ABSENT)
            continue;
        if (first) {
            put(p, "# HELP %s ", families[m].name);
            put_escaped(p, families[m].help, false);
            put(p, "\n# TYPE %s %s\n", families[m].name, types[families[m].kind]);
        }
        first = false;
        if (families[m].kind == LH_METRIC_HISTOGRAM)
            put_histogram(p, r, m);
        else
            put_values(p, r, m);
    }
}

/* Seconds since 1970; 0 where the system does not say. */
static double process_start(void)
{
    char text[1024] = "";
    unsigned long long ticks = 0;
    struct timespec boot, now;
    FILE *f = fopen("/proc/self/stat", "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    const char *behind = strrchr(text, ')'); /* the name before may hold anything */
    if (!behind || sscanf(behind + 1,
                          " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                          "%*s %*s %*s %*s %llu",
                          &ticks) != 1)
        return 0;
    clock_gettime(CLOCK_BOOTTIME, &boot);
    clock_gettime(CLOCK_REALTIME, &now);
    double up = (double)boot.tv_sec + 1e-9 * (double)boot.tv_nsec;
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec -
           (up - (double)ticks / (double)sysconf(_SC_CLK_TCK));
}

static void look_at_process(struct lh_metrics_role *r)
{
    struct timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    lh_metrics_set(r, LH_METRIC_MEMORY, (double)lh_mem_resident());
    lh_metrics_set(r, LH_METRIC_MEMORY_PEAK, (double)lh_mem_resident_peak());
    lh_metrics_set(r, LH_METRIC_CPU, (double)cpu.tv_sec + 1e-9 * (double)cpu.tv_nsec);
    lh_metrics_set(r, LH_METRIC_ALLOCATIONS, (double)lh_mem_count());
    lh_metrics_set(r, LH_METRIC_ALLOCATIONS_LIVE, (double)lh_mem_live());
}

int lh_metrics_render(struct lh_metrics *m, char **out, size_t *n)
{
    struct page p = {0};
    pthread_mutex_lock(&m->mutex);
    look_at_process(m->process);
    for (int i = 0; i < LH_METRIC_N; i++)
        put_family(&p, m, (enum lh_metric)i);
    pthread_mutex_unlock(&m->mutex);
    if (p.rc < 0) {
        lh_mem_free(p.text);
        return p.rc;
    }
    *out = p.text;
    *n = p.n;
    return 0;
}

const struct lh_metric_family *lh_metrics_family(enum lh_metric m)
{
    return &families[m];
}

const char *lh_metrics_phase_name(size_t phase)
{
    return phases[phase];
}

/* --- life --------------------------------------------------------------------------------------
 */
static int write_metrics(void *ctx, char **out, size_t *n)
{
    return lh_metrics_render(ctx, out, n);
}

static int write_health(void *ctx, char **out, size_t *n)
{
    (void)ctx;
    *n = strlen("ok\n");
    return lh_mem_strdup(out, "ok\n");
}

static const struct lh_http_page pages[] = {
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", write_metrics},
    {"/healthz", "text/plain; charset=utf-8", write_health},
};

int lh_metrics_open(struct lh_metrics **out, const char *listen)
{
    struct lh_metrics *m = NULL;
    int rc;
    LH_TRY(LH_NEW(&m, "metrics"));
    pthread_mutex_init(&m->mutex, NULL);
    m->last = &m->first;
    LH_TRY_TO(fail, lh_metrics_join(m, &(struct lh_metrics_who){.role = LH_METRICS_PROCESS},
                                    &m->process));
    lh_metrics_set(m->process, LH_METRIC_BUILD, 1);
    lh_metrics_set(m->process, LH_METRIC_STARTED, process_start());
    if (listen && *listen)
        LH_TRY_TO(fail, lh_http_start(&m->http, listen, pages, sizeof pages / sizeof *pages, m));
    *out = m;
    return 0;
fail:
    lh_metrics_close(&m);
    return rc;
}

void lh_metrics_close(struct lh_metrics **out)
{
    struct lh_metrics *m = *out;
    if (!m)
        return;
    lh_http_stop(&m->http);
    while (m->first) {
        struct lh_metrics_role *r = m->first;
        m->first = r->next;
        free_role(r);
    }
    pthread_mutex_destroy(&m->mutex);
    lh_mem_free(m);
    *out = NULL;
}

const char *lh_metrics_endpoint(const struct lh_metrics *m)
{
    return m && m->http ? lh_http_endpoint(m->http) : "";
}

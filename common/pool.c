/* Work on several threads. Threads are made for each call: a call stands for seconds of work, and a
 * pool that outlived it would be state to own. */
#include "common/pool.h"

#include "common/err.h"
#include "common/mem.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

struct shared {
    lh_pool_fn fn;
    void *ctx;
    size_t n;
    _Atomic size_t next;
    _Atomic int failed;
    pthread_mutex_t lock; /* of what follows */
    size_t failed_index;
    struct lh_err err;
};

struct member {
    struct shared *shared;
    unsigned thread;
    pthread_t id;
};

static void *work(void *arg)
{
    const struct member *m = arg;
    struct shared *s = m->shared;
    while (!atomic_load_explicit(&s->failed, memory_order_relaxed)) {
        size_t i = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
        if (i >= s->n)
            break;
        int rc = s->fn(s->ctx, i, m->thread);
        if (rc < 0) {
            pthread_mutex_lock(&s->lock);
            if (i < s->failed_index) {
                s->failed_index = i;
                lh_err_save(&s->err, rc);
            }
            pthread_mutex_unlock(&s->lock);
            atomic_store_explicit(&s->failed, 1, memory_order_relaxed);
        }
    }
    return NULL;
}

int lh_pool_run(unsigned threads, size_t n, lh_pool_fn fn, void *ctx)
{
    if (threads > n)
        threads = (unsigned)n;
    if (threads <= 1) {
        for (size_t i = 0; i < n; i++)
            LH_TRY(fn(ctx, i, 0));
        return 0;
    }
    struct shared s = {.fn = fn, .ctx = ctx, .n = n, .failed_index = SIZE_MAX};
    struct member *m;
    LH_TRY(LH_NEW_ARRAY(&m, threads, "threads"));
    pthread_mutex_init(&s.lock, NULL);
    unsigned started = 1;
    m[0] = (struct member){.shared = &s};
    for (; started < threads; started++) {
        m[started] = (struct member){.shared = &s, .thread = started};
        if (pthread_create(&m[started].id, NULL, work, &m[started]) != 0)
            break;
    }
    work(&m[0]);
    for (unsigned i = 1; i < started; i++)
        pthread_join(m[i].id, NULL);
    pthread_mutex_destroy(&s.lock);
    lh_mem_free(m);
    return s.failed_index == SIZE_MAX ? 0 : lh_err_load(&s.err);
}

unsigned lh_pool_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? (unsigned)n : 1;
}

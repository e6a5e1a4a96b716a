/* Heap memory: counted, able to fail on demand. The counters are atomics of their own because a
 * test reads them while threads run; they order nothing. */
#include "common/mem.h"

#include "common/err.h"

#include <limits.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t count;
static _Atomic uint64_t live;
static _Atomic uint64_t fail_at; /* allocations left until one fails; 0 = never */

static int refused(void)
{
    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    uint64_t left = atomic_load_explicit(&fail_at, memory_order_relaxed);
    while (left != 0) {
        if (atomic_compare_exchange_weak(&fail_at, &left, left - 1))
            return left == 1;
    }
    return 0;
}

static int out_of_memory(size_t n, size_t size, const char *what)
{
    lh_err_set(
        LH_ENOMEM,
        "%s: out of memory (%zu x %zu bytes); free memory or lower the size that asks for it", what,
        n, size);
    return LH_ENOMEM;
}

int lh_mem_alloc(void **out, size_t n, size_t size, const char *what)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        return out_of_memory(n, size, what);
    void *p = refused() ? NULL : calloc(1, bytes ? bytes : 1);
    if (!p)
        return out_of_memory(n, size, what);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *out = p;
    return 0;
}

int lh_mem_alloc_aligned(void **out, size_t n, size_t size, const char *what)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX - LH_CACHE_LINE)
        return out_of_memory(n, size, what);
    bytes = (bytes + LH_CACHE_LINE) / LH_CACHE_LINE * LH_CACHE_LINE; /* at least one line */
    void *p = refused() ? NULL : aligned_alloc(LH_CACHE_LINE, bytes);
    if (!p)
        return out_of_memory(n, size, what);
    atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *out = p;
    return 0;
}

int lh_mem_realloc(void **p, size_t n, size_t size, const char *what)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        return out_of_memory(n, size, what);
    void *q = refused() ? NULL : realloc(*p, bytes ? bytes : 1);
    if (!q)
        return out_of_memory(n, size, what);
    if (!*p)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    *p = q;
    return 0;
}

int lh_mem_grow(void **p, size_t *cap, size_t need, size_t size, const char *what)
{
    if (need <= *cap)
        return 0;
    size_t n = *cap < SIZE_MAX / 2 && *cap * 2 > need ? *cap * 2 : need;
    if (n < 16)
        n = 16;
    LH_TRY(lh_mem_realloc(p, n, size, what));
    *cap = n;
    return 0;
}

int lh_mem_strdup(char **out, const char *s)
{
    size_t n = strlen(s) + 1;
    void *p = NULL;
    LH_TRY(lh_mem_alloc(&p, n, 1, "string"));
    memcpy(p, s, n);
    *out = p;
    return 0;
}

int lh_mem_printf(char **out, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    void *p = NULL;
    int rc = n < 0 ? lh_err_set(LH_EINTERNAL, "format '%s' cannot be printed", fmt)
                   : lh_mem_alloc(&p, (size_t)n + 1, 1, "string");
    if (rc == 0) {
        vsnprintf(p, (size_t)n + 1, fmt, again);
        *out = p;
    }
    va_end(again);
    return rc;
}

void lh_mem_free(void *p)
{
    if (!p)
        return;
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    free(p);
}

int lh_mem_mul(size_t *out, size_t a, size_t b)
{
    if (__builtin_mul_overflow(a, b, out))
        return lh_err_set(LH_ERANGE, "a size of %zu x %zu does not fit in memory", a, b);
    return 0;
}

int lh_mem_add(size_t *out, size_t a, size_t b)
{
    if (__builtin_add_overflow(a, b, out))
        return lh_err_set(LH_ERANGE, "a size of %zu + %zu does not fit in memory", a, b);
    return 0;
}

void lh_mem_keep(void)
{
    /* Setting one of them stops glibc from moving them by itself. Padding is address space, not
     * memory; without it the arena of ZeroMQ's thread would give its last 64 MB back. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    mallopt(M_TOP_PAD, 64 << 20);
}

uint64_t lh_mem_count(void)
{
    return atomic_load(&count);
}

uint64_t lh_mem_live(void)
{
    return atomic_load(&live);
}

void lh_mem_fail_at(uint64_t nth)
{
    atomic_store(&fail_at, nth);
}

static size_t status_kib(const char *key)
{
    FILE *f = fopen("/proc/self/status", "r");
    if (!f)
        return 0;
    char line[256];
    size_t kib = 0;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            kib = strtoull(line + strlen(key), NULL, 10);
            break;
        }
    }
    fclose(f);
    return kib * 1024;
}

size_t lh_mem_resident(void)
{
    return status_kib("VmRSS:");
}

size_t lh_mem_resident_peak(void)
{
    return status_kib("VmHWM:");
}

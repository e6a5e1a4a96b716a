/* Heap memory: the one door to malloc. Counts, so that a test can show that a loop does not
 * allocate; and can be told to fail, so that a test can show that a failure is survived. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define LH_CACHE_LINE 64

/* Allocate; *out is zeroed memory of n * size bytes, malloc-aligned. n * size is checked against
 * overflow. n or size 0 gives a unique non-NULL pointer. Errors: LH_ENOMEM with a sentence that
 * names `what`. Release with lh_mem_free. Any thread. */
int lh_mem_alloc(void **out, size_t n, size_t size, const char *what);

/* As lh_mem_alloc, on a 64-byte boundary and NOT zeroed: for large numeric arrays. */
int lh_mem_alloc_aligned(void **out, size_t n, size_t size, const char *what);

/* Resizes *p (NULL allowed) to n * size bytes, contents kept, new bytes unspecified. On failure
 * *p is untouched. Not for lh_mem_alloc_aligned memory. */
int lh_mem_realloc(void **p, size_t n, size_t size, const char *what);

/* Grows an array *p of elements of `size` bytes so that it holds at least `need`; *cap is its
 * capacity in elements and is updated; doubling. */
int lh_mem_grow(void **p, size_t *cap, size_t need, size_t size, const char *what);

int lh_mem_strdup(char **out, const char *s);

/* printf into a fresh string; the caller frees it. */
int lh_mem_printf(char **out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void lh_mem_free(void *p); /* NULL allowed; for all of the above */

/* Typed conveniences. `out` is T **. */
#define LH_NEW(out, what)           lh_mem_alloc((void **)(out), 1, sizeof **(out), what)
#define LH_NEW_ARRAY(out, n, what)  lh_mem_alloc((void **)(out), n, sizeof **(out), what)
#define LH_GROW(p, cap, need, what) lh_mem_grow((void **)(p), cap, need, sizeof **(p), what)

/* Checked size arithmetic: 0, or LH_ERANGE with a sentence. */
int lh_mem_mul(size_t *out, size_t a, size_t b);
int lh_mem_add(size_t *out, size_t a, size_t b);

/* From now on memory below 32 MB that is freed stays with the process, for the next who asks. For
 * roles: frames of 1 MB come and go all the time, and a frame in memory that the kernel has to map
 * and clear first costs twice as much as one in memory that was used before. */
void lh_mem_keep(void);

/* For tests. Allocations made so far in this process (all threads), and how many are live. */
uint64_t lh_mem_count(void);
uint64_t lh_mem_live(void);
/* The nth allocation from now (1 = next) fails, once, on whichever thread makes it; 0 = never. */
void lh_mem_fail_at(uint64_t nth);
/* Bytes this process holds in physical memory now, and at its peak (Linux); 0 if unknown. */
size_t lh_mem_resident(void);
size_t lh_mem_resident_peak(void);

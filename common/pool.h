/* Work on several threads: a fork and a join, no more. */
#pragma once

#include <stddef.h>

/* Does item `index`, on thread number `thread` < threads. */
typedef int (*lh_pool_fn)(void *ctx, size_t index, unsigned thread);

/* Calls fn once for each index 0 .. n-1 on at most `threads` threads (the caller's is one of them;
 * 0 counts as 1), items handed out in ascending order. After a failure no further item is begun;
 * returns the failure with the lowest index, its sentence on the calling thread. Where no thread
 * can be started, those that run do all. */
int lh_pool_run(unsigned threads, size_t n, lh_pool_fn fn, void *ctx);

unsigned lh_pool_cpus(void); /* processors this process may run on, at least 1 */

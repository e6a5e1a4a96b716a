/* For tests of metrics: a scraper that knows nothing of the server, by a raw socket, and a reader
 * of the Prometheus text format. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* A TCP connection to "127.0.0.1:PORT"; fails the test if there is none. */
int scrapekit_connect(const char *endpoint);
/* Sends `request` as it stands and returns all that comes until the peer closes, at most 30 s;
 * free(). */
char *scrapekit_ask(const char *endpoint, const char *request);
/* GET path: the body of a 200; free(). Fails the test on any other answer. */
char *scrapekit_get(const char *endpoint, const char *path);

/* Value of a series written just so, as in `longhaul_steps_total{role="worker",node="1"}`; false if
 * the page has none. */
bool scrapekit_value(const char *page, const char *series, double *out);
/* The same for one that must be there. */
double scrapekit_of(const char *page, const char *series);

/* Of server `shard`: gradients whose weights lacked at most `le` of the steps before ("+Inf"). */
double scrapekit_lacking(const char *page, unsigned shard, const char *le);
/* What all servers have given to idle workers. */
double scrapekit_taken_over(const char *page);

/* Fails unless every line is what the format allows: families whole, with HELP and TYPE before
 * them, series once, buckets that rise; no counter of `later` may be below that of `page` (NULL:
 * none). */
void scrapekit_check(const char *page, const char *later);

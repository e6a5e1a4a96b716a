/* Files of a run with one JSON object a line, of ascending steps: {"step": N, …}. They are appended
 * to; a run that resumes or goes back drops the lines that will come again.
 *
 * Lines are gathered in memory and written by flush. A disk that takes none does not end a run:
 * what it did not take is kept and tried again, which is said once, and said again when it is over.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Bytes that may wait for a disk; then the run ends after all. */
#define LH_STEP_LINES_MAX ((size_t)64 << 20)

struct lh_step_lines;

/* Opens path to append behind the line of step `last`. Later lines, and one that a crash cut off,
 * are dropped. Errors: those of files. */
int lh_step_lines_open(struct lh_step_lines **out, const char *path, uint64_t last);
/* Goes on with the line under way; "\n" ends it. Errors: LH_ENOMEM. */
int lh_step_lines_print(struct lh_step_lines *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Writes the lines gathered. What the disk does not take is an error, one of files, only when more
 * than LH_STEP_LINES_MAX bytes wait for it. */
int lh_step_lines_flush(struct lh_step_lines *l);
/* And so that they are there after a power failure, too; a disk that cannot promise that is no
 * error. */
int lh_step_lines_sync(struct lh_step_lines *l);
/* Drops the lines of later steps, written or not. Errors: those of files. */
int lh_step_lines_back(struct lh_step_lines *l, uint64_t last);
/* Writes what waits, for the last time. Errors: those of files. NULL content allowed. */
int lh_step_lines_close(struct lh_step_lines **l);

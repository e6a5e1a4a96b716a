/* Lines of a file or of standard input, as they arrive: a reader that can tell whether another
 * line is there already, so that whoever works in batches knows when to stop gathering. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct lh_lines;

/* `path` "-" is standard input. Errors: LH_ENOENT, LH_EACCES, LH_EIO, LH_ENOMEM. */
int lh_lines_open(struct lh_lines **out, const char *path);
void lh_lines_close(struct lh_lines **l);

/* The next line without its end ("\n" or "\r\n"), NUL-terminated; the caller may write into it; it
 * lives until the next call. Waits for one. LH_NOTFOUND at the end of the input. A byte order mark
 * at the start is skipped. Errors: LH_EIO; LH_EFORMAT for a line beyond 64 MiB or with a NUL byte;
 * LH_ECANCELED after SIGINT or SIGTERM. */
int lh_lines_next(struct lh_lines *l, char **line, size_t *n);

/* Whether lh_lines_next would return without waiting. */
bool lh_lines_ready(struct lh_lines *l);

const char *lh_lines_name(const struct lh_lines *l); /* "standard input" for "-" */
size_t lh_lines_number(const struct lh_lines *l);    /* of the line last returned, from 1 */

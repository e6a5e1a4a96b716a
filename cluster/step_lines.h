/* Files of a run with one JSON object a line, of ascending steps: {"step": N, …}. They are appended
 * to; a run that resumes drops the lines that will come again. */
#pragma once

#include <stdint.h>
#include <stdio.h>

/* Opens path to append behind the line of step `last`; the caller closes *out. Later lines, and one
 * that a crash cut off, are dropped. Errors: those of files. */
int lh_step_lines_open(FILE **out, const char *path, uint64_t last);

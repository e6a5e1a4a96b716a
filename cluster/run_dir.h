/* The directory of a run, while it is trained: nobody else may work on it, and a run that could not
 * begin leaves nothing behind. */
#pragma once

#include <stdbool.h>

struct lh_run_dir {
    const char *path; /* outlives it */
    int lock;         /* -1: none */
    bool made;        /* the directory is of this call's making */
    bool locked;      /* its lock is ours */
};

/* Makes the directory where there is none, and locks it. To be closed also after a failure. Errors:
 * LH_EBUSY if another scheduler works on the run; those of files. */
int lh_run_dir_open(struct lh_run_dir *d, const char *path);
/* All-zero but for `lock`, -1, is a closed one. `remove`: with all that is in it, if it was made by
 * lh_run_dir_open, so that a run can be begun there once the cause is gone. */
void lh_run_dir_close(struct lh_run_dir *d, bool remove);

/* The path of what is in it; lh_mem_free. Errors: LH_ENOMEM. */
int lh_run_dir_in(const struct lh_run_dir *d, const char *name, char **out);
/* A file in it, whole or not at all, so that a resumed run never finds half of one. */
int lh_run_dir_write(const struct lh_run_dir *d, const char *name, const char *text);

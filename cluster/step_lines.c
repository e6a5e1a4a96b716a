/* Which lines stay when a file of steps is opened again. */
#include "cluster/step_lines.h"

#include "common/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes of the lines up to step `last`. */
static int whole_lines(FILE *f, uint64_t last, long *out)
{
    static const char head[] = "{\"step\": ";
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    *out = 0;
    while ((n = getline(&line, &cap, f)) > 0) {
        if (line[n - 1] != '\n' || strncmp(line, head, sizeof head - 1) != 0)
            break;
        char *at = line + sizeof head - 1, *end;
        unsigned long long step = strtoull(at, &end, 10);
        if (end == at || step > last)
            break;
        *out += n;
    }
    free(line);
    return ferror(f) ? -1 : 0;
}

int lh_step_lines_open(FILE **out, const char *path, uint64_t last)
{
    FILE *f = fopen(path, "a+");
    if (!f)
        return lh_err_errno(errno, "%s", path);
    long keep;
    rewind(f);
    if (whole_lines(f, last, &keep) != 0 || ftruncate(fileno(f), keep) != 0 ||
        fseek(f, 0, SEEK_END) != 0) {
        int rc = lh_err_errno(errno, "%s", path);
        fclose(f);
        return rc;
    }
    *out = f;
    return 0;
}

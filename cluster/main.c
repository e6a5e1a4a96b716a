/* longhaul: the one program. Finds the subcommand, runs it, turns an error's sentence into one line
 * and an exit status. */
#include "cluster/cli.h"
#include "common/err.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    (void)argv;
    if (argc < 2) {
        fprintf(stderr, "usage: longhaul COMMAND [options]\n");
        return lh_err_exit_status(LH_EUSAGE);
    }
    return 0;
}

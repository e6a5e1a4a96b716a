/* longhaul: the one program. Finds the subcommand, runs it, turns an error's sentence into one line
 * and an exit status. */
#include "cluster/bus_error.h"
#include "cluster/cli.h"
#include "cluster/commands.h"
#include "common/err.h"
#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* OpenBLAS reads its number of threads when it is loaded, before main: a pool of its own would
 * compete with our workers, and sums would depend on it (DESIGN.md, invariant 1). So the program
 * starts itself over, once, where the environment does not say 1. */
static int ensure_one_blas_thread(char **argv)
{
    const char *threads = getenv("OPENBLAS_NUM_THREADS");
    if (threads && strcmp(threads, "1") == 0)
        return 0;
    if (setenv("OPENBLAS_NUM_THREADS", "1", 1) == 0)
        execv("/proc/self/exe", argv);
    return lh_err_errno(errno, "restarting with OPENBLAS_NUM_THREADS=1 in the environment failed; "
                               "set it before the start");
}

/* Where standard input, output or error is closed, the next file to be opened would take its place:
 * a store, into which the result would then be printed. /dev/null takes it instead, opened so that
 * using it is an error, as it would have been. */
static int occupy_standard_files(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
            return lh_err_errno(errno, "/dev/null");
    return 0;
}

/* A partner that has read enough ('| head') is no failure: the process ends as cat would. */
static void end_if_nobody_reads(void)
{
    struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
    if (poll(&p, 1, 0) != 1 || !(p.revents & POLLERR))
        return;
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
}

/* What was printed must have arrived, or the status must say so. */
static int end_output(int rc)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return rc;
    int why = errno;
    if (rc < 0)
        return rc;
    end_if_nobody_reads();
    return lh_err_errno(why ? why : EIO, "standard output");
}

/* For tests of what happens when memory ends (tests/README.md): the N-th allocation fails. */
static void heed_allocation_failure(void)
{
    const char *nth = getenv("LONGHAUL_TEST_FAIL_ALLOCATION");
    if (nth)
        lh_mem_fail_at(strtoull(nth, NULL, 10));
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        lh_commands_overview(stderr);
        return lh_err_set(LH_EUSAGE, "a command is needed; 'longhaul help' lists them");
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("longhaul " LH_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        lh_commands_overview(stdout);
        return 0;
    }
    const struct lh_cmd *cmd = lh_commands_find(argv[1]);
    if (!cmd)
        return lh_commands_unknown(argv[1]);
    return cmd->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    lh_cli_catch_signals();
    lh_bus_error_catch();
    int rc = occupy_standard_files();
    if (rc == 0)
        rc = ensure_one_blas_thread(argv);
    heed_allocation_failure();
    if (rc == 0)
        rc = lh_log_environment();
    if (rc == 0)
        rc = dispatch(argc, argv);
    rc = end_output(rc);
    if (rc < 0)
        lh_log_tell(
            LH_LOG_ERROR, "error",
            LH_FIELDS(LH_F("code", lh_err_name(rc)), LH_F("status", lh_err_exit_status(rc))), "%s",
            *lh_err_text() ? lh_err_text() : lh_err_kind(rc));
    return lh_err_exit_status(rc);
}

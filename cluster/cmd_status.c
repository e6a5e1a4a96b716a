/* `longhaul status`: how a run stands, once. */
#include "cluster/cli.h"
#include "cluster/run_watch.h"
#include "common/err.h"
#include "common/mem.h"

#include <stdio.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_status = {
    .name = "status",
    .summary = "how a run stands: running, finished, dead",
    .usage = "--dir RUN [options]",
    .description =
        "Tells of the run in a directory, from any terminal of any host that sees it: whether it "
        "is prepared, gathers its roles, trains, ends, has finished, was stopped, failed or died, "
        "and what to do then; step, speed, time left, losses, the last checkpoint and its age, the "
        "last value, the best; and of each role its process, version, memory, traffic, and where "
        "its time went.\n\n"
        "A running scheduler writes RUN/status.json once a second; who works there is known by the "
        "lock of the directory, so that what is told of a dead run is true. Looking changes "
        "nothing and costs the run nothing.",
    .examples = "longhaul status --dir run\n"
                "longhaul status --dir run --json | jq .status.rate",
    .run = run,
};

static int show(const char *dir, bool json)
{
    struct lh_run_watch w = {0};
    char *text = NULL;
    if (!dir)
        return lh_err_set(LH_EUSAGE, "status: of which run? name its directory with --dir RUN");
    LH_TRY(lh_run_watch_look(&w, dir));
    int rc = json ? lh_run_watch_json(&w, dir, &text) : lh_run_watch_print(&w, NULL, dir, stdout);
    if (rc >= 0 && json)
        puts(text);
    lh_mem_free(text);
    lh_run_watch_fini(&w);
    return rc;
}

static int run(int argc, char **argv)
{
    const char *dir = NULL;
    bool json = false;
    const struct lh_opt opts[] = {
        {.name = "dir",
         .letter = 'd',
         .kind = LH_OPT_STRING,
         .value = &dir,
         .metavar = "RUN",
         .help = "The run directory."},
        {.name = "json",
         .kind = LH_OPT_FLAG,
         .value = &json,
         .help = "Print one JSON object: state, lives, detail, and all of run.json and status.json "
                 "that there is."},
    };
    size_t n_opts = sizeof opts / sizeof *opts;
    int rc = lh_cli_parse(&lh_cmd_status, opts, n_opts, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    rc = show(dir, json);
    lh_cli_fini(opts, n_opts);
    return rc;
}

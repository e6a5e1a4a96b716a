/* `longhaul help`: the overview, a command's manual page (as text or roff), the keys of a job. */
#include "cluster/commands.h"

#include "common/err.h"
#include "common/job.h"
#include "common/mem.h"

#include <string.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_help = {
    .name = "help",
    .summary = "show the manual page of a command, or the keys of a job file",
    .usage = "[COMMAND | job] [options]",
    .description = "Without an argument, lists the commands. With one, shows that command's manual "
                   "page, which "
                   "is also what 'longhaul COMMAND --help' shows. 'longhaul help job' documents "
                   "every key that "
                   "a job file may hold, with type, unit, bounds and default.",
    .examples = "longhaul help train\nlonghaul help job\nlonghaul help --man act | man -l -",
    .run = run,
};

static int print_job_keys(void)
{
    char *text = NULL;
    LH_TRY(lh_job_help(&text));
    fputs(text, stdout);
    lh_mem_free(text);
    return 0;
}

static int run(int argc, char **argv)
{
    bool man = false;
    const struct lh_opt opts[] = {
        {.name = "man",
         .kind = LH_OPT_FLAG,
         .value = &man,
         .help = "Write the page as roff, for man(1); this is how the installed pages are made."},
    };
    const char *topic = NULL;
    size_t n = 0;
    int rc = lh_cli_parse(&lh_cmd_help, opts, 1, argc, argv, &topic, 0, 1, &n);
    if (rc != 0)
        return rc;
    if (n == 0) {
        lh_commands_overview(stdout);
        return 0;
    }
    if (strcmp(topic, "job") == 0)
        return print_job_keys();
    const struct lh_cmd *cmd = lh_commands_find(topic);
    if (!cmd)
        return lh_commands_unknown(topic);
    char name[64], flag[16];
    snprintf(name, sizeof name, "%s", cmd->name);
    snprintf(flag, sizeof flag, "%s", man ? "--help=man" : "--help");
    return cmd->run(2, (char *[]){name, flag, NULL});
}

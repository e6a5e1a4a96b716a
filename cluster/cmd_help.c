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

static int print_job_keys(bool man)
{
    char *text = NULL;
    LH_TRY(lh_job_help(&text));
    if (man) {
        fputs(".TH LONGHAUL-job 5 \"\" \"longhaul " LH_VERSION "\" \"longhaul\"\n"
              ".SH NAME\nlonghaul\\-job \\- keys of a job file\n.SH DESCRIPTION\n.nf\n",
              stdout);
        lh_cli_roff_text(stdout, text);
        fputs(".fi\n.SH \"SEE ALSO\"\n.BR longhaul (1)\n", stdout);
    } else {
        fputs(text, stdout);
    }
    lh_mem_free(text);
    return 0;
}

static void print_names(void)
{
    for (const struct lh_cmd *const *c = lh_commands_all(); *c; c++)
        puts((*c)->name);
}

static int run(int argc, char **argv)
{
    bool man = false, list = false;
    const struct lh_opt opts[] = {
        {.name = "man",
         .kind = LH_OPT_FLAG,
         .value = &man,
         .help = "Write the page as roff, for man(1); this is how the installed pages are made."},
        {.name = "list",
         .kind = LH_OPT_FLAG,
         .value = &list,
         .help = "Print the names of all commands, one a line."},
    };
    const char *topic = NULL;
    size_t n = 0;
    int rc = lh_cli_parse(&lh_cmd_help, opts, 2, argc, argv, &topic, 0, 1, &n);
    if (rc != 0)
        return rc;
    if (list) {
        print_names();
        return 0;
    }
    if (n == 0) {
        (man ? lh_commands_overview_roff : lh_commands_overview)(stdout);
        return 0;
    }
    if (strcmp(topic, "job") == 0)
        return print_job_keys(man);
    const struct lh_cmd *cmd = lh_commands_find(topic);
    if (!cmd)
        return lh_commands_unknown(topic);
    char name[64], flag[16];
    snprintf(name, sizeof name, "%s", cmd->name);
    snprintf(flag, sizeof flag, "%s", man ? "--help=man" : "--help");
    return cmd->run(2, (char *[]){name, flag, NULL});
}

/* The subcommands, in the order in which the overview lists them. */
#pragma once

#include "cluster/cli.h"

const struct lh_cmd *const *lh_commands_all(void); /* NULL-terminated */
const struct lh_cmd *lh_commands_find(const char *name);

/* LH_EUSAGE for a name that is no command, with the nearest that is. */
int lh_commands_unknown(const char *name);

/* What `longhaul` without a command says: all commands with their summaries. */
void lh_commands_overview(FILE *to);
void lh_commands_overview_roff(FILE *to); /* longhaul(1) */

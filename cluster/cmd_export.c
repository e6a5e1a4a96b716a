/* `longhaul export`: a run's best or last checkpoint as a snapshot. */
#include "cluster/cli.h"
#include "cluster/export.h"
#include "cluster/train.h"
#include "common/dataset.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"

#include <string.h>

#include <cjson/cJSON.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_export = {
    .name = "export",
    .summary = "write a run's checkpoint as a snapshot that acts by itself",
    .usage = "--dir RUN --out SNAPSHOT [options]",
    .description =
        "Writes a directory that holds all that is needed to act: manifest.json (dimensions, names "
        "of features, normalisation, digests, checksums), weights.safetensors (readable by the "
        "public safetensors format), config.yaml and, if the checkpoint was evaluated, "
        "evaluation.json. It appears whole or not at all, and can be copied anywhere.\n"
        "\n"
        "The best checkpoint is the one with the highest value on validation (with the job's "
        "evaluation.choose: last, the last one) among those whose effective sample size is above "
        "the job's floor. Where there is none (a run without evaluations, or below the floor), it "
        "is the last one.",
    .examples = "longhaul export --dir RUN --out SNAPSHOT\n"
                "longhaul export --dir RUN --out SNAPSHOT --cut last --force",
    .run = run,
};

static const char *const cuts[] = {"best", "last", NULL};

struct options {
    const char *dir, *out, *dataset;
    int cut;
    bool force, json;
};

static int print_json(const struct options *o, const struct lh_run *r)
{
    cJSON *root = cJSON_CreateObject();
    bool ok =
        root && cJSON_AddStringToObject(root, "snapshot", o->out) &&
        cJSON_AddStringToObject(root, "run", o->dir) &&
        cJSON_AddStringToObject(root, "cut", cuts[r->cut]) &&
        cJSON_AddNumberToObject(root, "step", (double)r->version) &&
        cJSON_AddStringToObject(root, "algorithm", r->job->algorithm) &&
        cJSON_AddRawToObject(root, "evaluation", r->evaluation_json ? r->evaluation_json : "null");
    char *text = ok ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    if (!text)
        return lh_err_set(LH_ENOMEM, "export: out of memory while reporting");
    puts(text);
    cJSON_free(text);
    return 0;
}

static int export_run(const struct options *o)
{
    struct lh_run *r = NULL;
    struct lh_dataset *ds = NULL;
    int rc;
    LH_TRY(lh_run_open(&r, o->dir, (enum lh_which_cut)o->cut));
    LH_TRY_TO(done, lh_dataset_open(&ds, o->dataset ? o->dataset : r->job->dataset));
    LH_TRY_TO(done, lh_export_run(o->out, r, ds, cuts[r->cut], o->force));
    if (o->json)
        rc = print_json(o, r);
    else
        printf("%s: step %llu (%s) of %s, %s\n", o->out, (unsigned long long)r->version,
               cuts[r->cut], o->dir, r->job->algorithm);
    if ((int)r->cut != o->cut)
        lh_note("%s: none of its checkpoints was evaluated with an effective sample size above the "
                "floor, so this is the last",
                o->dir);
done:
    lh_dataset_close(&ds);
    lh_run_close(&r);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o = {0};
    const struct lh_opt opts[] = {
        {.name = "dir",
         .letter = 'd',
         .kind = LH_OPT_STRING,
         .value = &o.dir,
         .metavar = "RUN",
         .help = "The run's directory, as 'longhaul train --dir' made it."},
        {.name = "out",
         .letter = 'o',
         .kind = LH_OPT_STRING,
         .value = &o.out,
         .metavar = "SNAPSHOT",
         .help = "The directory to write."},
        {.name = "cut",
         .kind = LH_OPT_CHOICE,
         .value = &o.cut,
         .choices = cuts,
         .help = "Which checkpoint."},
        {.name = "dataset",
         .kind = LH_OPT_STRING,
         .value = &o.dataset,
         .metavar = "DIR",
         .help = "Where the run's dataset is now, if it was moved; names and normalisation come "
                 "from it."},
        {.name = "force",
         .letter = 'f',
         .kind = LH_OPT_FLAG,
         .value = &o.force,
         .help = "Replace a snapshot that is there. Nothing else is ever replaced."},
        {.name = "json",
         .kind = LH_OPT_FLAG,
         .value = &o.json,
         .help = "Report as one JSON object."},
    };
    enum { N_OPTS = sizeof opts / sizeof *opts };
    int rc = lh_cli_parse(&lh_cmd_export, opts, N_OPTS, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    if (!o.dir || !o.out)
        return lh_err_set(LH_EUSAGE, "export: --%s is needed; usage: longhaul export %s",
                          o.dir ? "out SNAPSHOT" : "dir RUN", lh_cmd_export.usage);
    return export_run(&o);
}

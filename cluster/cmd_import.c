/* `longhaul import`: raw logs become a dataset under a declared schema. */
#include "cluster/cli.h"
#include "common/err.h"
#include "common/import.h"
#include "common/mem.h"
#include "common/pool.h"
#include "common/term.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_import = {
    .name = "import",
    .summary = "turn raw logs into a dataset under a declared schema",
    .usage = "SCHEMA.yaml [FILE ...] --out DIR [options]",
    .description =
        "Reads logs (CSV with any separator, JSON lines; plain, gzip, bzip2, xz, zstd or lz4), "
        "computes rewards and features as SCHEMA.yaml declares, and writes a dataset: immutable "
        "partitions by split, day and hash of user, with a manifest and statistics. FILEs replace "
        "the schema's input.files; '-' is standard input. Of a file that is not there, FILE.gz, "
        ".xz, .zst and .bz2 are tried.\n\n"
        "A row that cannot be read is named with file, line, column and reason, and counted; the "
        "import stops when there are more than the schema's bad_rows allow. An import that fails "
        "or is killed leaves nothing at DIR: the dataset is written beside it and renamed when "
        "complete. The bytes of the dataset depend on log and schema, not on --threads, --memory "
        "or luck.\n\n"
        "Memory stays below --memory and 16 MiB a thread, and while they are at hand the rows of "
        "the one user with most of them, however long the log is and however far apart a user's "
        "rows lie: what does not fit goes through temporary files beside DIR, of about the size "
        "of the columns that the schema names (for logs up to a thousand times --memory). The page "
        "cache of those files comes and goes as "
        "the system likes.\n\n"
        "The grammar of schemas is in common/README.md; 'longhaul init' writes one for a new log.",
    .examples = "  longhaul import schema.yaml --out dataset\n"
                "  longhaul import schema.yaml --data /logs --out dataset --memory 4G\n"
                "  zcat day.csv.gz | longhaul import schema.yaml - --out dataset --json",
    .run = run,
};

struct options {
    const char *data, *out, *memory;
    int64_t threads;
    bool force, json, quiet;
    struct lh_opt_list set;
};

/* "512M", "4G", "1048576". */
static int parse_size(const char *text, uint64_t *out)
{
    char *end;
    double v = strtod(text, &end);
    static const char units[] = "KMGT";
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit) {
        v *= (double)(UINT64_C(1) << 10 * (unit - units + 1));
        end++;
        if (*end == 'i')
            end++;
    }
    if (*end == 'B' || *end == 'b')
        end++;
    if (end == text || *end || !(v >= 16 << 20) || v > 1e18)
        return lh_err_set(LH_EUSAGE,
                          "--memory %s: expected a size of at least 16M, like 512M or 4G", text);
    *out = (uint64_t)v;
    return 0;
}

/* --- what people see -------------------------------------------------------------------------- */

static const char *const phase_labels[LH_IMPORT_PHASES] = {
    "reading", "sorting", "looking at rewards", "fitting features", "making rows", "writing"};

struct watch {
    struct lh_progress bar;
    bool started, quiet;
    enum lh_import_phase phase;
};

static void watch(void *ctx, enum lh_import_phase phase, uint64_t done, uint64_t total)
{
    struct watch *w = ctx;
    if (!w->started || w->phase != phase) {
        if (w->started)
            lh_progress_finish(&w->bar);
        lh_progress_start(&w->bar, phase_labels[phase],
                          phase == LH_IMPORT_READ    ? "bytes"
                          : phase == LH_IMPORT_WRITE ? "pieces"
                                                     : "buckets",
                          total, w->quiet);
        w->started = true;
        w->phase = phase;
    }
    w->bar.total = total; /* of writing it is known when the pieces are counted */
    lh_progress_update(&w->bar, done);
}

/* The first `told` are in a sentence of their own already. */
static void show_bad_rows(const struct lh_import_report *r, size_t told)
{
    const struct lh_ingest_counts *c = &r->counts;
    for (size_t i = told; i < c->n_shown; i++)
        lh_note("bad row: %s", c->shown[i].text);
    if (c->bad > c->n_shown)
        lh_note("%" PRIu64 " bad rows in all; these are the first", c->bad);
}

static int print_table(const struct lh_dataset *ds, const struct lh_import_report *r)
{
    static const char *const headers[] = {"",     "users",      "sessions", "trajectories",
                                          "rows", "transitions"};
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    struct lh_table *t;
    int rc;
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (int s = 0; s < LH_SPLITS; s++) {
        const struct lh_split_info *i = &info->split[s];
        LH_TRY_TO(done, lh_table_cell(t, "%s", lh_split_names[s]));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i->users));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, r->sessions[s]));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i->trajectories));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i->rows));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i->transitions));
    }
    lh_table_print(t, stdout);
done:
    lh_table_destroy(&t);
    return rc;
}

static int print_text(const struct lh_dataset *ds, const struct lh_import_report *r,
                      const char *out)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    const struct lh_ingest_counts *c = &r->counts;
    LH_TRY(print_table(ds, r));
    printf("\n%s: s_h %u, s_l %u, action %u wide; %s\n", out, info->dims.high, info->dims.low,
           info->dims.action,
           info->dims.classes ? "rewards are classes" : "rewards are continuous");
    printf("%" PRIu64 " rows read", c->rows);
    if (c->bad)
        printf(", %" PRIu64 " bad", c->bad);
    if (c->dropped)
        printf(", %" PRIu64 " dropped as declared", c->dropped);
    if (r->rows_left_out)
        printf(", %" PRIu64 " left out by features or short trajectories", r->rows_left_out);
    if (r->users_left_out)
        printf(", %" PRIu64 " users in no split", r->users_left_out);
    printf("; %.1f s, %.0f rows/s, %.0f MB peak memory\n", r->seconds_total,
           (double)c->rows / r->seconds_total, (double)lh_mem_resident_peak() / 1e6);
    printf("next: longhaul inspect %s\n", out);
    return 0;
}

static bool add(cJSON *o, const char *key, double v)
{
    return cJSON_AddNumberToObject(o, key, v) != NULL;
}

static bool fill_json(cJSON *o, const struct lh_dataset *ds, const struct lh_import_report *r,
                      const char *out)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    const struct lh_ingest_counts *c = &r->counts;
    char digest[20];
    snprintf(digest, sizeof digest, "%016" PRIx64, info->digest);
    bool ok =
        cJSON_AddStringToObject(o, "dataset", out) &&
        cJSON_AddStringToObject(o, "digest", digest) && add(o, "state_high", info->dims.high) &&
        add(o, "state_low", info->dims.low) && add(o, "action", info->dims.action) &&
        add(o, "classes", info->dims.classes) && add(o, "rows", (double)c->rows) &&
        add(o, "bad_rows", (double)c->bad) && add(o, "dropped_rows", (double)c->dropped) &&
        add(o, "rows_left_out", (double)r->rows_left_out) && add(o, "users", (double)r->users) &&
        add(o, "users_left_out", (double)r->users_left_out);
    cJSON *bad = cJSON_AddArrayToObject(o, "first_bad_rows");
    for (size_t i = 0; i < c->n_shown && ok; i++)
        ok = cJSON_AddItemToArray(bad, cJSON_CreateString(c->shown[i].text));
    cJSON *splits = cJSON_AddObjectToObject(o, "splits");
    for (int s = 0; s < LH_SPLITS && ok; s++) {
        const struct lh_split_info *i = &info->split[s];
        cJSON *split = cJSON_AddObjectToObject(splits, lh_split_names[s]);
        ok = add(split, "users", (double)i->users) &&
             add(split, "sessions", (double)r->sessions[s]) &&
             add(split, "trajectories", (double)i->trajectories) &&
             add(split, "rows", (double)i->rows) &&
             add(split, "transitions", (double)i->transitions) &&
             add(split, "partitions", (double)i->partitions);
    }
    cJSON *phases = cJSON_AddObjectToObject(o, "phase_seconds");
    for (int p = 0; p < LH_IMPORT_PHASES && ok; p++)
        ok = add(phases, lh_import_phase_names[p], r->seconds[p]);
    return ok && add(o, "seconds", r->seconds_total) &&
           add(o, "rows_per_second", (double)c->rows / r->seconds_total) &&
           add(o, "text_bytes", (double)r->text_bytes) &&
           add(o, "spilled_bytes", (double)r->spilled_bytes) && add(o, "threads", r->threads) &&
           add(o, "peak_memory_bytes", (double)lh_mem_resident_peak());
}

static int print_json(const struct lh_dataset *ds, const struct lh_import_report *r,
                      const char *out)
{
    cJSON *o = cJSON_CreateObject();
    char *text = fill_json(o, ds, r, out) ? cJSON_PrintUnformatted(o) : NULL;
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "import: out of memory for the result");
    puts(text);
    cJSON_free(text);
    return 0;
}

/* --- the command ------------------------------------------------------------------------------ */

/* The directory of the first FILE, else of the schema; the caller frees. */
static int default_data(const char *schema_path, const char *const *files, size_t n_files,
                        char **out)
{
    const char *path = n_files > 0 && strcmp(files[0], "-") != 0 ? files[0] : schema_path;
    const char *slash = strrchr(path, '/');
    if (!slash)
        return lh_mem_strdup(out, ".");
    return lh_mem_printf(out, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static int import(const struct options *o, const char *schema_path, const char *const *files,
                  size_t n_files)
{
    struct lh_schema *schema = NULL;
    struct lh_dataset *ds = NULL;
    struct lh_import_report report;
    struct watch w = {.quiet = o->quiet || o->json};
    char *data = NULL;
    struct lh_import_spec spec = {.files = files,
                                  .n_files = n_files,
                                  .out = o->out,
                                  .threads = (unsigned)o->threads,
                                  .replace = o->force,
                                  .progress = watch,
                                  .ctx = &w,
                                  .interrupted = lh_cli_interrupted};
    int rc;
    if (!o->out)
        return lh_err_set(LH_EUSAGE, "import: needs --out DIR, where the dataset goes");
    LH_TRY(parse_size(o->memory, &spec.memory));
    if (!o->data)
        LH_TRY(default_data(schema_path, files, n_files, &data));
    spec.data_dir = o->data ? o->data : data;
    LH_TRY_TO(done, lh_schema_load(&schema, schema_path, o->set.items, o->set.n));
    spec.schema = schema;
    rc = lh_import_run(&spec, &report);
    if (w.started)
        lh_progress_finish(&w.bar);
    if (!o->json || rc < 0)
        show_bad_rows(&report, rc == LH_EFORMAT);
    LH_TRY_TO(done, rc);
    rc = lh_dataset_open(&ds, o->out);
    if (rc >= 0)
        rc = o->json ? print_json(ds, &report, o->out) : print_text(ds, &report, o->out);
    if (rc < 0)
        lh_err_prefix(rc, "%s is complete, but what it holds cannot be shown", o->out);
done:
    lh_dataset_close(&ds);
    lh_schema_destroy(&schema);
    lh_mem_free(data);
    return rc;
}

static int run(int argc, char **argv)
{
    enum { FILES_MAX = 4096 };
    struct options o = {.memory = "1G"};
    const struct lh_opt opts[] = {
        {.name = "out",
         .letter = 'o',
         .kind = LH_OPT_STRING,
         .value = &o.out,
         .metavar = "DIR",
         .help = "Where the dataset goes. Parent directories are made."},
        {.name = "data",
         .letter = 'd',
         .kind = LH_OPT_STRING,
         .value = &o.data,
         .metavar = "DIR",
         .help = "Where the files that the schema names are, tables included; by default the "
                 "directory of the first FILE, else that of SCHEMA.yaml."},
        {.name = "memory",
         .letter = 'm',
         .kind = LH_OPT_STRING,
         .value = &o.memory,
         .metavar = "SIZE",
         .help = "Memory for buffers, like 512M or 4G; at least 16M."},
        {.name = "threads",
         .letter = 't',
         .kind = LH_OPT_INT,
         .value = &o.threads,
         .metavar = "N",
         .help = "Threads to use; 0 for one a processor.",
         .min = 0,
         .max = 1024},
        {.name = "set",
         .kind = LH_OPT_LIST,
         .value = &o.set,
         .metavar = "KEY=VALUE",
         .help = "Overrides a key of the schema, like split.train=0.9."},
        {.name = "force",
         .letter = 'f',
         .kind = LH_OPT_FLAG,
         .value = &o.force,
         .help = "Replaces a dataset that is at DIR, once the new one is complete."},
        {.name = "json",
         .kind = LH_OPT_FLAG,
         .value = &o.json,
         .help = "Prints the result as one JSON object."},
        {.name = "quiet",
         .letter = 'q',
         .kind = LH_OPT_FLAG,
         .value = &o.quiet,
         .help = "Shows no progress."},
    };
    const size_t n_opts = sizeof opts / sizeof *opts;
    const char **positional = NULL;
    size_t n = 0;
    LH_TRY(LH_NEW_ARRAY(&positional, FILES_MAX + 1, "file names"));
    int rc =
        lh_cli_parse(&lh_cmd_import, opts, n_opts, argc, argv, positional, 1, FILES_MAX + 1, &n);
    if (rc == 0) {
        rc = import(&o, positional[0], positional + 1, n - 1);
        lh_cli_fini(opts, n_opts);
    }
    lh_mem_free(positional);
    return rc;
}

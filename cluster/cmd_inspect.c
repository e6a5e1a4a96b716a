/* `longhaul inspect`: what a dataset holds, down to a row, and whether its bytes are sound. Each
 * view is built once as JSON; text is written from the dataset itself where a table reads better.
 */
#include "cluster/cli.h"
#include "cluster/inspect.h"
#include "common/dataset.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/parse.h"
#include "common/partition.h"
#include "common/pool.h"
#include "common/term.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_inspect = {
    .name = "inspect",
    .summary = "show a dataset, a partition, a row, statistics; verify checksums",
    .usage = "DATASET [options]\nPARTITION.lhp [options]",
    .description =
        "Shows what a dataset holds: splits, days, dimensions, rewards. --features shows every "
        "column's statistics over the training rows, --partition one file's header and columns, "
        "--row one row with names, raw and normalised values. --verify reads every byte and checks "
        "it against its checksum; the first block that is damaged is named and the exit status is "
        "not 0.",
    .examples = "  longhaul inspect dataset --features\n"
                "  longhaul inspect dataset --row test:0\n"
                "  longhaul inspect dataset --partition train/day-17455/part-003.lhp --verify",
    .run = run,
};

struct options {
    const char *partition, *row;
    int64_t threads;
    bool features, verify, json;
};

#define DAY_US INT64_C(86400000000)

static void format_day(int64_t day, char *out, size_t size)
{
    int64_t year;
    unsigned month, d;
    lh_parse_date_from_days(day, &year, &month, &d);
    snprintf(out, size, "%04" PRId64 "-%02u-%02u", year, month, d);
}

void lh_inspect_time(int64_t us, char *out, size_t size)
{
    int64_t day = us / DAY_US - (us % DAY_US < 0), rest = us - day * DAY_US;
    char date[40];
    format_day(day, date, sizeof date);
    int64_t s = rest / 1000000;
    snprintf(out, size, "%sT%02d:%02d:%02d.%06dZ", date, (int)(s / 3600), (int)(s / 60 % 60),
             (int)(s % 60), (int)(rest % 1000000));
}

static bool add(cJSON *o, const char *key, double v)
{
    return cJSON_AddNumberToObject(o, key, v) != NULL;
}

int lh_inspect_json(cJSON *o, bool ok)
{
    char *text = ok ? cJSON_PrintUnformatted(o) : NULL;
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "inspect: out of memory for the result");
    puts(text);
    cJSON_free(text);
    return 0;
}

/* --- the whole -------------------------------------------------------------------------------- */

static uint64_t bytes_of(const struct lh_dataset *ds, enum lh_split s)
{
    uint64_t bytes = 0;
    const struct lh_partition *p;
    for (size_t i = 0; (p = lh_dataset_partition(ds, s, i, NULL, NULL)); i++)
        bytes += lh_partition_bytes(p);
    return bytes;
}

static int show_dataset_json(const struct lh_dataset *ds, bool verified)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    cJSON *o = cJSON_CreateObject();
    char text[40];
    snprintf(text, sizeof text, "%016" PRIx64, info->digest);
    bool ok = cJSON_AddStringToObject(o, "kind", info->kind) &&
              cJSON_AddStringToObject(o, "digest", text);
    format_day(info->first_day, text, sizeof text);
    ok = ok && cJSON_AddStringToObject(o, "first_day", text);
    format_day(info->last_day, text, sizeof text);
    ok = ok && cJSON_AddStringToObject(o, "last_day", text) &&
         add(o, "state_high", info->dims.high) && add(o, "state_low", info->dims.low) &&
         add(o, "ids", info->dims.ids) && add(o, "action", info->dims.action);
    cJSON *rewards = cJSON_AddArrayToObject(o, "reward_values");
    for (uint32_t i = 0; i < info->dims.classes && ok; i++)
        ok = cJSON_AddItemToArray(rewards, cJSON_CreateNumber((double)info->reward_values[i]));
    cJSON *splits = cJSON_AddObjectToObject(o, "splits");
    for (int s = 0; s < LH_SPLITS && ok; s++) {
        const struct lh_split_info *i = &info->split[s];
        cJSON *split = cJSON_AddObjectToObject(splits, lh_split_names[s]);
        ok = add(split, "users", (double)i->users) &&
             add(split, "trajectories", (double)i->trajectories) &&
             add(split, "rows", (double)i->rows) &&
             add(split, "transitions", (double)i->transitions) &&
             add(split, "partitions", (double)i->partitions) &&
             add(split, "bytes", (double)bytes_of(ds, (enum lh_split)s));
    }
    if (verified)
        ok = ok && cJSON_AddBoolToObject(o, "verified", true);
    return lh_inspect_json(o, ok);
}

static int show_splits(const struct lh_dataset *ds)
{
    static const char *const headers[] = {
        "", "users", "trajectories", "rows", "transitions", "partitions", "MB"};
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    struct lh_table *t;
    int rc;
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (int s = 0; s < LH_SPLITS; s++) {
        const struct lh_split_info *i = &info->split[s];
        LH_TRY_TO(done, lh_table_cell(t, "%s", lh_split_names[s]));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i->users));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i->trajectories));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i->rows));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i->transitions));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i->partitions));
        LH_TRY_TO(done, lh_table_cell(t, "%.1f", (double)bytes_of(ds, (enum lh_split)s) / 1e6));
    }
    lh_table_print(t, stdout);
done:
    lh_table_destroy(&t);
    return rc;
}

static int show_dataset(const struct lh_dataset *ds)
{
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    char first[40], last[40];
    format_day(info->first_day, first, sizeof first);
    format_day(info->last_day, last, sizeof last);
    printf("%s: made by %s, %s to %s, digest %016" PRIx64 "\n", lh_dataset_dir(ds),
           strcmp(info->kind, "simulate") == 0 ? "longhaul simulate" : "longhaul import", first,
           last, info->digest);
    printf("s_h %u, s_l %u, action %u wide\n", info->dims.high, info->dims.low, info->dims.action);
    for (uint32_t i = 0; i < info->dims.ids; i++)
        printf("%s%s%s", i ? ", " : "ids ", info->id_names[i], i + 1 < info->dims.ids ? "" : "\n");
    const struct lh_column_stats *r = info->reward_stats;
    printf("reward: mean %.6g, standard deviation %.6g, %.6g to %.6g", r->mean, r->std, r->min,
           r->max);
    for (uint32_t i = 0; i < info->dims.classes; i++)
        printf("%s%.6g", i ? ", " : "; values ", (double)info->reward_values[i]);
    printf("%s\n\n", info->dims.classes ? "" : "; continuous");
    return show_splits(ds);
}

/* --- statistics ------------------------------------------------------------------------------- */

size_t lh_inspect_groups(const struct lh_dataset *ds, struct lh_inspect_group g[4])
{
    static const char *const reward[] = {"reward"};
    const struct lh_dataset_info *i = lh_dataset_info(ds);
    const struct lh_norm *n = lh_dataset_norm(ds);
    g[0] = (struct lh_inspect_group){"state_high",  i->dims.high,  i->high_names,
                                     i->high_stats, n->high_shift, n->high_scale};
    g[1] = (struct lh_inspect_group){"state_low",  i->dims.low,  i->low_names,
                                     i->low_stats, n->low_shift, n->low_scale};
    g[2] = (struct lh_inspect_group){"action",        i->dims.action,  i->action_names,
                                     i->action_stats, n->action_shift, n->action_scale};
    g[3] = (struct lh_inspect_group){"reward", 1, reward, i->reward_stats, NULL, NULL};
    return 4;
}

static int show_features(const struct lh_dataset *ds)
{
    static const char *const headers[] = {"group", "column", "mean", "std",   "min", "0.1%",
                                          "25%",   "50%",    "75%",  "99.9%", "max"};
    struct lh_inspect_group g[4];
    struct lh_table *t;
    int rc;
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (size_t k = 0, n = lh_inspect_groups(ds, g); k < n; k++) {
        for (uint32_t i = 0; i < g[k].width; i++) {
            const struct lh_column_stats *s = &g[k].stats[i];
            const double v[] = {s->mean, s->std, s->min,  s->q001, s->q25,
                                s->q50,  s->q75, s->q999, s->max};
            LH_TRY_TO(done, lh_table_cell(t, "%s", g[k].name));
            LH_TRY_TO(done, lh_table_cell(t, "%s", g[k].names[i]));
            for (size_t j = 0; j < sizeof v / sizeof *v; j++)
                LH_TRY_TO(done, lh_table_cell(t, "%.5g", v[j]));
        }
    }
    lh_table_print(t, stdout);
done:
    lh_table_destroy(&t);
    return rc;
}

static int show_features_json(const struct lh_dataset *ds)
{
    struct lh_inspect_group g[4];
    cJSON *o = cJSON_CreateObject();
    bool ok = true;
    for (size_t k = 0, n = lh_inspect_groups(ds, g); k < n; k++) {
        cJSON *list = cJSON_AddArrayToObject(o, g[k].name);
        for (uint32_t i = 0; i < g[k].width && ok; i++) {
            const struct lh_column_stats *s = &g[k].stats[i];
            cJSON *c = cJSON_CreateObject();
            ok = cJSON_AddItemToArray(list, c) &&
                 cJSON_AddStringToObject(c, "name", g[k].names[i]) && add(c, "mean", s->mean) &&
                 add(c, "std", s->std) && add(c, "min", s->min) && add(c, "q001", s->q001) &&
                 add(c, "q25", s->q25) && add(c, "q50", s->q50) && add(c, "q75", s->q75) &&
                 add(c, "q999", s->q999) && add(c, "max", s->max);
            if (ok && g[k].shift)
                ok = add(c, "shift", (double)g[k].shift[i]) &&
                     add(c, "scale", (double)g[k].scale[i]);
        }
    }
    return lh_inspect_json(o, ok);
}

/* --- a partition ------------------------------------------------------------------------------ */

static int print_columns(const struct lh_partition *p)
{
    static const char *const headers[] = {"column", "type",  "width", "rows",
                                          "offset", "bytes", "blocks"};
    struct lh_table *t;
    int rc = 0;
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (int c = 0; c < LH_PART_COLUMNS; c++) {
        struct lh_partition_column_info i;
        lh_partition_column_info(p, (enum lh_part_column)c, &i);
        if (i.width == 0) /* no column of ids */
            continue;
        LH_TRY_TO(done, lh_table_cell(t, "%s", i.name));
        LH_TRY_TO(done, lh_table_cell(t, "%s", i.type));
        LH_TRY_TO(done, lh_table_cell(t, "%u", i.width));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i.rows));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i.offset));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i.bytes));
        LH_TRY_TO(done, lh_table_cell(t, "%" PRIu64, i.blocks));
    }
    lh_table_print(t, stdout);
done:
    lh_table_destroy(&t);
    return rc;
}

static int print_partition(const struct lh_partition *p, const char *name, bool verified)
{
    const struct lh_partition_head *h = lh_partition_head(p);
    char day[40];
    format_day(h->day, day, sizeof day);
    printf("%s: %s, day %d (%s), hash %u; %" PRIu64 " bytes, checksum %016" PRIx64 "%s\n", name,
           lh_split_names[h->split], h->day, day, h->hash, lh_partition_bytes(p),
           lh_partition_checksum(p), verified ? ", every block sound" : "");
    printf("%" PRIu64 " rows in %" PRIu64 " pieces of trajectories, %" PRIu64 " cut off, %" PRIu64
           " that go on in a later day\n\n",
           h->rows, h->pieces, h->cuts, h->halos);
    return print_columns(p);
}

static int print_partition_json(const struct lh_partition *p, const char *name, bool verified)
{
    const struct lh_partition_head *h = lh_partition_head(p);
    char checksum[20];
    snprintf(checksum, sizeof checksum, "%016" PRIx64, lh_partition_checksum(p));
    cJSON *o = cJSON_CreateObject();
    bool ok = cJSON_AddStringToObject(o, "file", name) &&
              cJSON_AddStringToObject(o, "split", lh_split_names[h->split]) &&
              add(o, "day", h->day) && add(o, "hash", h->hash) && add(o, "rows", (double)h->rows) &&
              add(o, "halos", (double)h->halos) && add(o, "cuts", (double)h->cuts) &&
              add(o, "pieces", (double)h->pieces) &&
              add(o, "bytes", (double)lh_partition_bytes(p)) &&
              cJSON_AddStringToObject(o, "checksum", checksum);
    cJSON *list = cJSON_AddArrayToObject(o, "columns");
    for (int c = 0; c < LH_PART_COLUMNS && ok; c++) {
        struct lh_partition_column_info i;
        lh_partition_column_info(p, (enum lh_part_column)c, &i);
        if (i.width == 0)
            continue;
        cJSON *item = cJSON_CreateObject();
        ok = cJSON_AddItemToArray(list, item) && cJSON_AddStringToObject(item, "name", i.name) &&
             cJSON_AddStringToObject(item, "type", i.type) && add(item, "width", i.width) &&
             add(item, "rows", (double)i.rows) && add(item, "offset", (double)i.offset) &&
             add(item, "bytes", (double)i.bytes);
    }
    if (verified)
        ok = ok && cJSON_AddBoolToObject(o, "verified", true);
    return lh_inspect_json(o, ok);
}

static int show_partition(const char *path, const struct options *o)
{
    struct lh_partition *p = NULL;
    LH_TRY(lh_partition_open(&p, path));
    int rc = o->verify ? lh_partition_verify(p) : 0;
    if (rc == 0)
        rc = o->json ? print_partition_json(p, path, o->verify)
                     : print_partition(p, path, o->verify);
    lh_partition_close(&p);
    return rc;
}

/* --- verification ----------------------------------------------------------------------------- */

static int verify_one(void *ctx, size_t index, unsigned thread)
{
    (void)thread;
    const struct lh_dataset *ds = ctx;
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    int s = 0;
    while (index >= info->split[s].partitions)
        index -= info->split[s++].partitions;
    if (lh_cli_interrupted())
        return lh_err_set(LH_ECANCELED, "inspect: interrupted");
    return lh_partition_verify(lh_dataset_partition(ds, (enum lh_split)s, index, NULL, NULL));
}

static int verify(struct lh_dataset *ds, const struct options *o)
{
    size_t files = 0;
    double begun = lh_now(), bytes = 0;
    for (int s = 0; s < LH_SPLITS; s++) {
        files += lh_dataset_info(ds)->split[s].partitions;
        bytes += (double)bytes_of(ds, (enum lh_split)s);
    }
    unsigned threads = o->threads ? (unsigned)o->threads : lh_pool_cpus();
    LH_TRY(lh_pool_run(threads, files, verify_one, ds));
    double seconds = lh_now() - begun;
    if (!o->json)
        printf("%zu partitions, %.1f MB: every block is sound (%.2f s, %.0f MB/s)\n", files,
               bytes / 1e6, seconds, bytes / 1e6 / seconds);
    return 0;
}

/* --- the command ------------------------------------------------------------------------------ */

static bool is_partition(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, ".lhp") == 0;
}

static int inspect_partition_of(const struct lh_dataset *ds, const struct options *o)
{
    for (int s = 0; s < LH_SPLITS; s++) {
        const char *file;
        for (size_t i = 0; lh_dataset_partition(ds, (enum lh_split)s, i, &file, NULL); i++) {
            if (strcmp(file, o->partition) != 0)
                continue;
            char *path;
            LH_TRY(lh_mem_printf(&path, "%s/%s", lh_dataset_dir(ds), file));
            int rc = show_partition(path, o);
            lh_mem_free(path);
            return rc;
        }
    }
    return lh_err_set(LH_EUSAGE,
                      "--partition %s: the dataset has no such file; expected one like "
                      "train/day-17455/part-003.lhp",
                      o->partition);
}

static int inspect(const char *path, const struct options *o)
{
    if (is_partition(path))
        return show_partition(path, o);
    struct lh_dataset *ds = NULL;
    int rc;
    LH_TRY(lh_dataset_open(&ds, path));
    if (o->partition) {
        rc = inspect_partition_of(ds, o);
        goto done;
    }
    bool view = o->features || o->row;
    if (o->verify)
        LH_TRY_TO(done, verify(ds, o));
    if (o->features)
        LH_TRY_TO(done, o->json ? show_features_json(ds) : show_features(ds));
    if (o->row)
        LH_TRY_TO(done, lh_inspect_row(ds, o->row, o->json));
    rc = 0;
    if (!view && o->json)
        rc = show_dataset_json(ds, o->verify);
    else if (!view && !o->verify)
        rc = show_dataset(ds);
done:
    lh_dataset_close(&ds);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o = {.partition = NULL};
    const struct lh_opt opts[] = {
        {.name = "features",
         .letter = 'F',
         .kind = LH_OPT_FLAG,
         .value = &o.features,
         .help = "Shows the statistics of every column over the training rows."},
        {.name = "partition",
         .letter = 'p',
         .kind = LH_OPT_STRING,
         .value = &o.partition,
         .metavar = "FILE",
         .help = "Shows one partition, named as in the manifest."},
        {.name = "row",
         .letter = 'r',
         .kind = LH_OPT_STRING,
         .value = &o.row,
         .metavar = "SPLIT:N",
         .help = "Shows row N, from 0, of train, validation or test."},
        {.name = "verify",
         .kind = LH_OPT_FLAG,
         .value = &o.verify,
         .help = "Reads every byte and checks it against its checksum."},
        {.name = "threads",
         .letter = 't',
         .kind = LH_OPT_INT,
         .value = &o.threads,
         .metavar = "N",
         .help = "Threads of --verify; 0 for one a processor.",
         .min = 0,
         .max = 1024},
        {.name = "json",
         .kind = LH_OPT_FLAG,
         .value = &o.json,
         .help = "Prints JSON, one object a line for each thing asked for."},
    };
    const size_t n_opts = sizeof opts / sizeof *opts;
    const char *path[1];
    size_t n;
    int rc = lh_cli_parse(&lh_cmd_inspect, opts, n_opts, argc, argv, path, 1, 1, &n);
    if (rc == 0) {
        rc = inspect(path[0], &o);
        lh_cli_fini(opts, n_opts);
    }
    return rc;
}

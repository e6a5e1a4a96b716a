/* `longhaul inspect --row`: one row with names, raw and normalised values. */
#include "cluster/inspect.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"

#include <cjson/cJSON.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse_row(const struct lh_dataset *ds, const char *text, enum lh_split *split,
                     uint64_t *row)
{
    const char *colon = strchr(text, ':');
    char *end = NULL;
    int s = 0;
    while (colon && s < LH_SPLITS &&
           (strlen(lh_split_names[s]) != (size_t)(colon - text) ||
            strncmp(lh_split_names[s], text, (size_t)(colon - text)) != 0))
        s++;
    if (colon)
        *row = strtoull(colon + 1, &end, 10);
    if (!colon || s == LH_SPLITS || end == colon + 1 || *end || colon[1] == '-')
        return lh_err_set(LH_EUSAGE, "--row %s: expected SPLIT:N, like train:0 or test:17", text);
    uint64_t rows = lh_dataset_info(ds)->split[s].rows;
    if (*row >= rows)
        return lh_err_set(LH_EUSAGE, "--row %s: the %s split has %" PRIu64 " rows, counted from 0",
                          text, lh_split_names[s], rows);
    *split = (enum lh_split)s;
    return 0;
}

struct row {
    struct lh_row_info info;
    float *raw[3], *normal[3]; /* high, low, action */
    float *next[2];            /* high, low; raw */
    uint64_t ids[LH_IDS_MAX], next_ids[LH_IDS_MAX];
    float reward, class;
};

static void row_fini(struct row *r)
{
    for (int k = 0; k < 3; k++) {
        lh_mem_free(r->raw[k]);
        lh_mem_free(r->normal[k]);
    }
    lh_mem_free(r->next[0]);
    lh_mem_free(r->next[1]);
}

static int read_row(const struct lh_dataset *ds, enum lh_split split, uint64_t row, struct row *r)
{
    struct lh_inspect_group g[4];
    lh_inspect_groups(ds, g);
    for (int k = 0; k < 3; k++) {
        LH_TRY(LH_NEW_ARRAY(&r->raw[k], g[k].width, "a row"));
        LH_TRY(LH_NEW_ARRAY(&r->normal[k], g[k].width, "a row"));
        if (k < 2)
            LH_TRY(LH_NEW_ARRAY(&r->next[k], g[k].width, "a row"));
    }
    struct lh_batch raw = {.high = r->raw[0],
                           .low = r->raw[1],
                           .action = r->raw[2],
                           .reward = &r->reward,
                           .reward_class = &r->class,
                           .next_high = r->next[0],
                           .next_low = r->next[1],
                           .ids = r->ids,
                           .next_ids = r->next_ids};
    struct lh_batch normal = {.high = r->normal[0], .low = r->normal[1], .action = r->normal[2]};
    LH_TRY(lh_dataset_row_info(ds, split, row, &r->info));
    LH_TRY(lh_dataset_gather(ds, split, &row, 1, NULL, &raw));
    return lh_dataset_gather(ds, split, &row, 1, lh_dataset_norm(ds), &normal);
}

static int id_cell(struct lh_table *t, uint64_t id)
{
    return id == LH_ID_NONE ? lh_table_cell(t, "-") : lh_table_cell(t, "%" PRIu64, id);
}

static int print_row_values(const struct lh_dataset *ds, const struct row *r)
{
    static const char *const headers[] = {"group", "column", "raw", "normalised", "next (raw)"};
    struct lh_inspect_group g[4];
    struct lh_table *t;
    int rc = 0;
    lh_inspect_groups(ds, g);
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (int k = 0; k < 3; k++) {
        for (uint32_t i = 0; i < g[k].width; i++) {
            LH_TRY_TO(done, lh_table_cell(t, "%s", g[k].name));
            LH_TRY_TO(done, lh_table_cell(t, "%s", g[k].names[i]));
            LH_TRY_TO(done, lh_table_cell(t, "%.9g", (double)r->raw[k][i]));
            LH_TRY_TO(done, lh_table_cell(t, "%.6g", (double)r->normal[k][i]));
            if (k < 2 && r->info.has_next)
                LH_TRY_TO(done, lh_table_cell(t, "%.9g", (double)r->next[k][i]));
            else
                LH_TRY_TO(done, lh_table_cell(t, "-"));
        }
    }
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    for (uint32_t i = 0; i < info->dims.ids; i++) {
        LH_TRY_TO(done, lh_table_cell(t, "ids"));
        LH_TRY_TO(done, lh_table_cell(t, "%s", info->id_names[i]));
        LH_TRY_TO(done, id_cell(t, r->ids[i]));
        LH_TRY_TO(done, lh_table_cell(t, "-"));
        LH_TRY_TO(done, id_cell(t, r->next_ids[i]));
    }
    lh_table_print(t, stdout);
done:
    lh_table_destroy(&t);
    return rc;
}

static int print_row(const struct lh_dataset *ds, const char *name, const struct row *r)
{
    char time[64];
    lh_inspect_time(r->info.time_us, time, sizeof time);
    printf("row %s: user %016" PRIx64 ", trajectory %016" PRIx64 ", session %" PRIu64 ", %s\n",
           name, r->info.user, r->info.trajectory, r->info.session, time);
    printf("%s%s%s\n", r->info.first ? "first of its trajectory, " : "",
           r->info.last ? "last of its trajectory, " : "",
           r->info.ends       ? "which truly ends here"
           : r->info.has_next ? "its next state is known"
                              : "its next state is not known (cut off)");
    printf("reward %.9g", (double)r->reward);
    if (lh_dataset_info(ds)->dims.classes)
        printf(", class %.0f", (double)r->class);
    printf("\n\n");
    return print_row_values(ds, r);
}

static int print_row_json(const struct lh_dataset *ds, const char *name, const struct row *r)
{
    struct lh_inspect_group g[4];
    char text[64];
    lh_inspect_groups(ds, g);
    cJSON *o = cJSON_CreateObject();
    bool ok = cJSON_AddStringToObject(o, "row", name);
    snprintf(text, sizeof text, "%016" PRIx64, r->info.user);
    ok = ok && cJSON_AddStringToObject(o, "user", text);
    snprintf(text, sizeof text, "%016" PRIx64, r->info.trajectory);
    ok = ok && cJSON_AddStringToObject(o, "trajectory", text);
    lh_inspect_time(r->info.time_us, text, sizeof text);
    ok = ok && cJSON_AddNumberToObject(o, "session", (double)r->info.session) &&
         cJSON_AddStringToObject(o, "time", text) &&
         cJSON_AddBoolToObject(o, "first", r->info.first) &&
         cJSON_AddBoolToObject(o, "last", r->info.last) &&
         cJSON_AddBoolToObject(o, "ends", r->info.ends) &&
         cJSON_AddBoolToObject(o, "has_next", r->info.has_next) &&
         cJSON_AddNumberToObject(o, "reward", (double)r->reward) &&
         cJSON_AddNumberToObject(o, "reward_class", (double)r->class);
    for (int k = 0; k < 3 && ok; k++) {
        cJSON *values = cJSON_AddObjectToObject(o, g[k].name);
        for (uint32_t i = 0; i < g[k].width && ok; i++)
            ok = cJSON_AddNumberToObject(values, g[k].names[i], (double)r->raw[k][i]);
    }
    const struct lh_dataset_info *info = lh_dataset_info(ds);
    cJSON *ids = info->dims.ids > 0 && ok ? cJSON_AddObjectToObject(o, "ids") : NULL;
    for (uint32_t i = 0; i < info->dims.ids && ok; i++) { /* as text: 64 bits */
        snprintf(text, sizeof text, "%" PRIu64, r->ids[i]);
        ok = r->ids[i] == LH_ID_NONE || cJSON_AddStringToObject(ids, info->id_names[i], text);
    }
    return lh_inspect_json(o, ok);
}

int lh_inspect_row(const struct lh_dataset *ds, const char *name, bool json)
{
    enum lh_split split = LH_TRAIN;
    uint64_t number = 0;
    struct row r = {.reward = 0};
    LH_TRY(parse_row(ds, name, &split, &number));
    int rc = read_row(ds, split, number, &r);
    if (rc == 0)
        rc = json ? print_row_json(ds, name, &r) : print_row(ds, name, &r);
    row_fini(&r);
    return rc;
}

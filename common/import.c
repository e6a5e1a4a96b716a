/* The import from end to end, and what its steps share: time, progress, interruption, clean-up. */
#include "common/import_internal.h"

#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"
#include "common/term.h"

#include <cjson/cJSON.h>

#include <string.h>

#define MEMORY_DEFAULT (UINT64_C(1) << 30)
#define MEMORY_MIN     (UINT64_C(16) << 20)

const char *const lh_import_phase_names[LH_IMPORT_PHASES] = {"read", "sort", "rewards",
                                                             "fit",  "rows", "write"};

void lh_import_begin_phase(struct lh_importer *im, enum lh_import_phase phase, uint64_t total)
{
    im->phase = phase;
    im->done = 0;
    im->total = total;
    im->report->seconds[phase] -= lh_now();
    if (im->spec->progress)
        im->spec->progress(im->spec->ctx, phase, 0, total);
}

void lh_import_end_phase(struct lh_importer *im)
{
    im->report->seconds[im->phase] += lh_now();
}

void lh_import_step(struct lh_importer *im)
{
    pthread_mutex_lock(&im->lock);
    im->done++;
    if (im->spec->progress)
        im->spec->progress(im->spec->ctx, im->phase, im->done, im->total);
    pthread_mutex_unlock(&im->lock);
}

int lh_import_go_on(const struct lh_importer *im)
{
    if (!im->spec->interrupted || !im->spec->interrupted())
        return 0;
    return lh_err_set(LH_ECANCELED, "import of %s: interrupted; nothing was left at %s",
                      im->s->name, im->spec->out);
}

static int open_plans(struct lh_importer *im)
{
    const struct lh_schema *s = im->s;
    LH_TRY(lh_reward_plan_create(&im->rewards, lh_yaml_get(s->root, "reward"), s->visible,
                                 s->n_visible));
    const char *dir = im->spec->data_dir ? im->spec->data_dir : ".";
    LH_TRY(lh_feature_plan_create(&im->features, s->root, s->visible, s->n_visible, dir, s->seed,
                                  im->threads));
    lh_feature_plan_dims(im->features, &im->dims);
    return 0;
}

static void on_write(void *ctx, uint64_t done, uint64_t total)
{
    const struct lh_importer *im = ctx;
    im->spec->progress(im->spec->ctx, LH_IMPORT_WRITE, done, total);
}

static int open_writer(struct lh_importer *im)
{
    struct lh_dataset_spec spec = {
        .dims = im->dims,
        .high_names = lh_feature_plan_names(im->features, 0),
        .low_names = lh_feature_plan_names(im->features, 1),
        .action_names = lh_feature_plan_names(im->features, 2),
        .id_names = lh_feature_plan_id_names(im->features),
        .hash_partitions = im->s->hash,
        .by_day = im->s->by_day,
        .kind = "import",
        .memory_limit = im->memory / 4,
        .threads = im->threads,
        .replace = im->spec->replace,
        .progress = im->spec->progress ? on_write : NULL,
        .ctx = im,
    };
    return lh_dataset_writer_open(&im->writer, im->spec->out, &spec);
}

static int find_files(struct lh_importer *im)
{
    const struct lh_import_spec *p = im->spec;
    if (p->n_files > 0)
        LH_TRY(lh_import_files(&im->files, &im->n_files, NULL, p->files, p->n_files));
    else
        LH_TRY(
            lh_import_files(&im->files, &im->n_files, p->data_dir, im->s->files, im->s->n_files));
    im->report->files = im->n_files;
    if (im->n_files == 0)
        return lh_err_set(LH_ECONFIG,
                          "%s: names no input.files; name them there or on the command "
                          "line",
                          lh_yaml_name(im->s->doc));
    return 0;
}

/* What the manifest says of where the dataset came from. */
static int set_origin(struct lh_importer *im)
{
    const struct lh_import_report *r = im->report;
    cJSON *o = cJSON_CreateObject();
    cJSON *files = cJSON_AddArrayToObject(o, "files");
    bool ok = cJSON_AddStringToObject(o, "schema", im->s->text) && files &&
              cJSON_AddNumberToObject(o, "rows", (double)r->counts.rows) &&
              cJSON_AddNumberToObject(o, "bad_rows", (double)r->counts.bad) &&
              cJSON_AddNumberToObject(o, "dropped_rows", (double)r->counts.dropped) &&
              cJSON_AddNumberToObject(o, "rows_left_out", (double)r->rows_left_out) &&
              cJSON_AddNumberToObject(o, "users_left_out", (double)r->users_left_out);
    for (size_t i = 0; i < im->n_files && ok; i++) {
        const char *slash = strrchr(im->files[i], '/');
        ok = cJSON_AddItemToArray(files, cJSON_CreateString(slash ? slash + 1 : im->files[i]));
    }
    char *text = ok ? cJSON_PrintUnformatted(o) : NULL;
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "manifest: out of memory");
    int rc = lh_dataset_writer_set_origin(im->writer, text);
    cJSON_free(text);
    return rc;
}

static int run(struct lh_importer *im)
{
    LH_TRY(find_files(im));
    LH_TRY(open_plans(im));
    LH_TRY(open_writer(im));
    LH_TRY(LH_NEW_ARRAY(&im->workers, im->threads, "threads"));
    LH_TRY(lh_import_read(im));
    LH_TRY(lh_import_passes(im));
    lh_spool_destroy(&im->sorted);
    LH_TRY(lh_feature_plan_write_embeddings(im->features, lh_dataset_writer_path(im->writer)));
    LH_TRY(set_origin(im));
    lh_import_begin_phase(im, LH_IMPORT_WRITE, 0);
    LH_TRY(lh_dataset_writer_commit(&im->writer));
    lh_import_end_phase(im);
    return 0;
}

static void clean(struct lh_importer *im)
{
    struct lh_err saved;
    lh_err_save(&saved, 0);
    for (unsigned i = 0; im->workers && i < im->threads; i++) {
        struct lh_import_worker *w = &im->workers[i];
        lh_ingest_destroy(&w->ingest);
        lh_chunk_fini(&w->chunk);
        lh_userrows_destroy(&w->rows);
        lh_mem_free(w->start);
        lh_mem_free(w->index);
        lh_mem_free(w->made.high);
        lh_mem_free(w->made.low);
        lh_mem_free(w->made.action);
        lh_mem_free(w->made.ids);
        lh_mem_free(w->made.reward);
        lh_mem_free(w->made.keep);
    }
    lh_mem_free(im->workers);
    lh_reader_destroy(&im->reader);
    for (size_t i = 0; i < im->n_layouts; i++)
        lh_ingest_layout_destroy(&im->layouts[i]);
    lh_mem_free(im->layouts);
    lh_mem_free(im->bucket_users);
    lh_spool_destroy(&im->raw);
    lh_spool_destroy(&im->sorted);
    lh_dataset_writer_abort(&im->writer);
    lh_feature_plan_destroy(&im->features);
    lh_reward_plan_destroy(&im->rewards);
    lh_import_files_free(&im->files, im->n_files);
    pthread_mutex_destroy(&im->lock);
    lh_err_load(&saved);
}

int lh_import_run(const struct lh_import_spec *spec, struct lh_import_report *report)
{
    struct lh_importer im = {.spec = spec, .s = spec->schema, .report = report};
    *report = (struct lh_import_report){.users = 0};
    im.threads = spec->threads ? spec->threads : lh_pool_cpus();
    im.memory = spec->memory ? spec->memory : MEMORY_DEFAULT;
    im.memory = im.memory < MEMORY_MIN ? MEMORY_MIN : im.memory;
    report->threads = im.threads;
    report->seconds_total = -lh_now();
    pthread_mutex_init(&im.lock, NULL);
    int rc = run(&im);
    report->seconds_total += lh_now();
    clean(&im);
    return rc;
}

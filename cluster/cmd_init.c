/* `longhaul init`: looks at a new log and proposes a schema and a job for it. */
#include "cluster/cli.h"
#include "cluster/init_write.h"
#include "cluster/log_guess.h"
#include "cluster/log_probe.h"
#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_init = {
    .name = "init",
    .summary = "look at a new log and write a schema and a job for it",
    .usage = "LOG... [--out DIR] [options]",
    .description =
        "Reads the beginning of a log (CSV with any separator, with or without a header line, or "
        "JSON "
        "lines; plain or compressed) and guesses which columns are users, sessions, times, items, "
        "ratings, feedback, states and actions, from their names and values. Writes "
        "DIR/schema.yaml "
        "and DIR/job.yaml with comments: what was guessed is marked 'check:', and what is not "
        "clear "
        "from the log stands there as a comment that says what to decide.\n"
        "\n"
        "Features that the schema proposes never look at the present row's outcome. What the log "
        "itself filled in after the fact cannot be told from its values: check the columns that "
        "stand in the state.",
    .examples = "longhaul init clicks.csv --out mine\n"
                "longhaul import mine/schema.yaml --out mine/dataset\n"
                "longhaul train mine/job.yaml --dir mine/run",
    .run = run,
};

struct options {
    const char *out;
    bool force, json;
    int64_t look;
};

/* "clicks" of "/logs/clicks.csv.gz". */
static int name_of(char **out, const char *path)
{
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    size_t n = strcspn(base, ".");
    return lh_mem_printf(out, "%.*s", n ? (int)n : 3, n ? base : "log");
}

/* A proposed file: `aside` becomes `path` once all are written. */
struct proposal {
    const char *name;
    void (*body)(const struct lh_init *, FILE *);
    char *path, *aside;
};

static int write_aside(const struct lh_init *in, const struct proposal *p)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return lh_err_errno(errno, "%s", p->path);
    p->body(in, f);
    bool bad = ferror(f) != 0;
    int rc = fclose(f) != 0 || bad
                 ? lh_err_set(LH_ENOMEM, "%s: out of memory while it is made", p->path)
                 : lh_fs_write_file(p->aside, text, n);
    free(text);
    return rc;
}

static const char *name_or_null(const struct lh_init *in, size_t column)
{
    return column == SIZE_MAX ? NULL : in->probe->columns[column].name;
}

static int report_json(const struct lh_init *in, const char *schema, const char *job)
{
    const struct lh_log_guess *g = in->guess;
    const struct {
        const char *key;
        size_t column;
    } roles[] = {{"user", g->user},   {"session", g->session}, {"time", g->time},
                 {"item", g->item},   {"rating", g->rating},   {"reward", g->reward},
                 {"event", g->event}, {"end", g->end}};
    cJSON *root = cJSON_CreateObject();
    bool ok = root && cJSON_AddStringToObject(root, "schema", schema) &&
              cJSON_AddStringToObject(root, "job", job) &&
              cJSON_AddNumberToObject(root, "rows", (double)in->probe->rows) &&
              cJSON_AddNumberToObject(root, "columns", (double)in->probe->n_columns);
    for (size_t i = 0; ok && i < sizeof roles / sizeof *roles; i++) {
        const char *name = name_or_null(in, roles[i].column);
        ok = name ? cJSON_AddStringToObject(root, roles[i].key, name) != NULL
                  : cJSON_AddNullToObject(root, roles[i].key) != NULL;
    }
    cJSON *list = ok ? cJSON_AddArrayToObject(root, "undecided") : NULL;
    const char *undecided;
    ok = list != NULL;
    for (size_t k = 0; ok && (undecided = lh_init_undecided(in, k)); k++)
        ok = cJSON_AddItemToArray(list, cJSON_CreateString(undecided));
    char *text = ok ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    if (!text)
        return lh_err_set(LH_ENOMEM, "init: out of memory while reporting");
    puts(text);
    cJSON_free(text);
    return 0;
}

static void report_role(const struct lh_init *in, const char *what, size_t column)
{
    if (column != SIZE_MAX)
        printf("  %-8s %s\n", what, in->probe->columns[column].name);
}

static void report(const struct lh_init *in, const char *out, const char *schema, const char *job)
{
    const struct lh_log_probe *p = in->probe;
    const struct lh_log_guess *g = in->guess;
    const char *separator = p->csv.separator[0] == '\t' ? "tab" : p->csv.separator;
    if (p->jsonl)
        printf("JSON lines, ");
    else
        printf("separator '%.*s', %s header, ",
               p->csv.separator[0] == '\t' ? 3 : (int)p->csv.separator_bytes, separator,
               p->header ? "with a" : "no");
    printf("%zu columns; %llu row%s looked at%s", p->n_columns, (unsigned long long)p->rows,
           p->rows == 1 ? "" : "s", p->whole ? " (all)" : "");
    if (p->odd_rows)
        printf(", %llu others do not fit", (unsigned long long)p->odd_rows);
    putchar('\n');
    report_role(in, "user", g->user);
    report_role(in, "session", g->session);
    report_role(in, "time", g->time);
    report_role(in, "item", g->item);
    report_role(in, "rating", g->rating);
    report_role(in, "reward", g->reward);
    report_role(in, "event", g->event);
    report_role(in, "end", g->end);
    if (g->states || g->actions || g->feedbacks || g->contexts)
        printf("  %zu state, %zu action, %zu feedback and %zu context columns\n", g->states,
               g->actions, g->feedbacks, g->contexts);
    printf("wrote %s and %s\n", schema, job);
    const char *undecided;
    for (size_t k = 0; (undecided = lh_init_undecided(in, k)); k++)
        printf("to decide: %s\n", undecided);
    printf("next: %slonghaul import %s --out %s/dataset && longhaul train %s --dir %s/run\n",
           lh_init_undecided(in, 0) ? "decide, then " : "", schema, out, job, out);
}

/* Both or none: what was there stays until both are on the disk. */
static int write_both(const struct lh_init *in, const char *out, const struct proposal *p)
{
    int rc;
    bool made = !lh_fs_exists(out);
    LH_TRY(lh_fs_mkdirs(out));
    for (size_t i = 0; i < 2; i++)
        LH_TRY_TO(fail, write_aside(in, &p[i]));
    for (size_t i = 0; i < 2; i++) {
        if (rename(p[i].aside, p[i].path) != 0) {
            rc = lh_err_errno(errno, "%s", p[i].path);
            goto fail;
        }
    }
    return lh_fs_sync_dir(out);
fail:
    for (size_t i = 0; i < 2; i++)
        unlink(p[i].aside);
    if (made)
        rmdir(out);
    return rc;
}

static int write_all(struct lh_init *in, const struct options *o)
{
    struct proposal p[2] = {{.name = "schema.yaml", .body = lh_init_write_schema},
                            {.name = "job.yaml", .body = lh_init_write_job}};
    int rc = 0;
    for (size_t i = 0; i < 2; i++) {
        LH_TRY_TO(done, lh_mem_printf(&p[i].path, "%s/%s", o->out, p[i].name));
        LH_TRY_TO(done, lh_mem_printf(&p[i].aside, "%s.partial", p[i].path));
        if (!o->force && lh_fs_exists(p[i].path)) {
            rc =
                lh_err_set(LH_EEXIST, "%s: is there already; remove it, or use --force", p[i].path);
            goto done;
        }
    }
    LH_TRY_TO(done, write_both(in, o->out, p));
    if (o->json)
        rc = report_json(in, p[0].path, p[1].path);
    else
        report(in, o->out, p[0].path, p[1].path);
done:
    for (size_t i = 0; i < 2; i++) {
        lh_mem_free(p[i].path);
        lh_mem_free(p[i].aside);
    }
    return rc;
}

/* The schema may lie elsewhere than the log: it names files by their whole paths. */
static int whole_paths(char **out, const char *const *files, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *path = realpath(files[i], NULL);
        if (!path)
            return lh_err_errno(errno, "%s", files[i]);
        int rc = lh_mem_strdup(&out[i], path);
        free(path);
        LH_TRY(rc);
    }
    return 0;
}

static int init(const struct options *o, const char *const *files, size_t n_files)
{
    struct lh_log_probe probe = {0};
    struct lh_log_guess guess = {0};
    struct lh_init in = {.probe = &probe, .guess = &guess, .n_files = n_files};
    char **paths = NULL, *name = NULL;
    int rc;
    LH_TRY(LH_NEW_ARRAY(&paths, n_files, "files"));
    LH_TRY_TO(done, whole_paths(paths, files, n_files));
    LH_TRY_TO(done, lh_log_probe_run(&probe, files, n_files, (uint64_t)o->look << 20));
    LH_TRY_TO(done, lh_log_guess_make(&guess, &probe));
    LH_TRY_TO(done, name_of(&name, files[0]));
    in.name = name;
    in.files = (const char *const *)paths;
    LH_TRY_TO(done, lh_init_names(&in));
    rc = write_all(&in, o);
done:
    lh_init_fini(&in);
    lh_log_guess_fini(&guess);
    lh_log_probe_fini(&probe);
    lh_mem_free(name);
    for (size_t i = 0; i < n_files; i++)
        lh_mem_free(paths[i]);
    lh_mem_free(paths);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o = {.out = ".", .look = 64};
    const struct lh_opt opts[] = {
        {.name = "out",
         .letter = 'o',
         .kind = LH_OPT_STRING,
         .value = &o.out,
         .metavar = "DIR",
         .help = "Where schema.yaml and job.yaml go; made if it is not there."},
        {.name = "look",
         .kind = LH_OPT_INT,
         .value = &o.look,
         .metavar = "MIB",
         .min = 1,
         .max = 1 << 20,
         .help = "How much of the log to look at, in MiB of text."},
        {.name = "force",
         .letter = 'f',
         .kind = LH_OPT_FLAG,
         .value = &o.force,
         .help = "Overwrite a schema.yaml and job.yaml that are there."},
        {.name = "json",
         .kind = LH_OPT_FLAG,
         .value = &o.json,
         .help = "Report what was found as one JSON object."},
    };
    enum { N_OPTS = sizeof opts / sizeof *opts };
    const char **files = NULL;
    size_t n = 0;
    LH_TRY(LH_NEW_ARRAY(&files, (size_t)argc, "files"));
    int rc = lh_cli_parse(&lh_cmd_init, opts, N_OPTS, argc, argv, files, 1, (size_t)argc, &n);
    if (rc == 0)
        rc = init(&o, files, n);
    lh_mem_free(files);
    return rc;
}

/* Jobs: one walk over the table of keys (job_table.c) reads a file, one prints it, one digests it.
 * Checks that involve more than one key are at the end of reading. */
#include "common/job.h"

#include "common/err.h"
#include "common/http.h"
#include "common/job_table.h"
#include "common/mem.h"
#include "common/yaml.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

static void *member(struct lh_job *job, const struct lh_job_key *k)
{
    return (char *)job + k->offset;
}

static const void *member_const(const struct lh_job *job, const struct lh_job_key *k)
{
    return (const char *)job + k->offset;
}

static bool is_text(const struct lh_job_key *k)
{
    return k->type == LH_KEY_TEXT || k->type == LH_KEY_WORD || k->type == LH_KEY_PATH;
}

static int set_text(struct lh_job *job, const struct lh_job_key *k, const char *text)
{
    char *copy = NULL, **at = member(job, k);
    if (text)
        LH_TRY(lh_mem_strdup(&copy, text));
    lh_mem_free(*at);
    *at = copy;
    return 0;
}

static int set_defaults(struct lh_job *job)
{
    for (size_t i = 0; i < lh_job_n_keys; i++) {
        const struct lh_job_key *k = &lh_job_keys[i];
        void *at = member(job, k);
        switch (k->type) {
        case LH_KEY_TEXT:
        case LH_KEY_WORD:
        case LH_KEY_PATH:
            LH_TRY(set_text(job, k, k->text));
            break;
        case LH_KEY_ENUM:
            *(int *)at = (int)k->number;
            break;
        case LH_KEY_BOOL:
            *(bool *)at = k->number != 0;
            break;
        case LH_KEY_U32:
            *(uint32_t *)at = (uint32_t)k->number;
            break;
        case LH_KEY_U64:
            *(uint64_t *)at = (uint64_t)k->number;
            break;
        case LH_KEY_DOUBLE:
            *(double *)at = k->number;
            break;
        case LH_KEY_WIDTHS:
            job->n_hidden = 2;
            job->hidden[0] = job->hidden[1] = (size_t)k->number;
            break;
        case LH_KEY_HEX:
            *(uint64_t *)at = 0;
            break;
        }
    }
    return 0;
}

/* --- reading ------------------------------------------------------------------------------- */

/* An absolute path without "." and needless slashes; ".." is left to the system, which alone knows
 * where symbolic links lead. */
static int absolute_path(char **out, const char *base_dir, const char *path)
{
    /* "./x" is x; "./" stays, and ".//x" does not become "/x" */
    while (strncmp(path, "./", 2) == 0 && path[2] != '/' && path[2])
        path += 2;
    if (path[0] == '/' || !base_dir)
        return lh_mem_strdup(out, path);
    char *base = realpath(base_dir, NULL);
    if (!base)
        return lh_err_errno(errno, "%s", base_dir);
    int rc = lh_mem_printf(out, "%s/%s", strcmp(base, "/") == 0 ? "" : base, path);
    free(base);
    return rc;
}

static int read_path(struct lh_job *job, const struct lh_job_key *k,
                     const struct lh_yaml_node *node, const char *base_dir)
{
    const char *text = NULL;
    LH_TRY(lh_yaml_string(node, &text));
    if (!*text)
        return lh_yaml_fail(node, "an empty path; name a directory");
    if (k->words && strcmp(text, k->words[0]) == 0)
        return set_text(job, k, text);
    char *path = NULL;
    LH_TRY(absolute_path(&path, node->line == 0 ? "." : base_dir, text));
    int rc = set_text(job, k, path);
    lh_mem_free(path);
    return rc;
}

static size_t count_words(const struct lh_job_key *k)
{
    size_t n = 0;
    while (k->words[n])
        n++;
    return n;
}

static int read_widths(struct lh_job *job, const struct lh_job_key *k,
                       const struct lh_yaml_node *node)
{
    LH_TRY(lh_yaml_expect(node, LH_YAML_SEQUENCE));
    if (node->n < 1 || node->n > LH_MLP_HIDDEN_MAX)
        return lh_yaml_fail(node, "%zu hidden layers; 1 to %d are possible", node->n,
                            LH_MLP_HIDDEN_MAX);
    size_t n = 0;
    for (const struct lh_yaml_node *c = node->child; c; c = c->next) {
        int64_t width = 0;
        LH_TRY(lh_yaml_int(c, (int64_t)k->min, (int64_t)k->max, &width));
        job->hidden[n++] = (size_t)width;
    }
    job->n_hidden = n;
    return 0;
}

static int read_hex(const struct lh_yaml_node *node, uint64_t *out)
{
    const char *text = NULL;
    LH_TRY(lh_yaml_string(node, &text));
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 16);
    if (end == text || *end || errno)
        return lh_yaml_fail(node, "'%s' is not a digest in hexadecimal digits", text);
    *out = v;
    return 0;
}

static int read_key(struct lh_job *job, const struct lh_job_key *k, const struct lh_yaml_node *node,
                    const char *base_dir)
{
    void *at = member(job, k);
    int64_t whole = 0;
    int index = 0;
    switch (k->type) {
    case LH_KEY_TEXT: {
        const char *text = NULL;
        LH_TRY(lh_yaml_string(node, &text));
        return set_text(job, k, text);
    }
    case LH_KEY_PATH:
        return read_path(job, k, node, base_dir);
    case LH_KEY_WORD:
        LH_TRY(lh_yaml_enum(node, k->words, count_words(k), &index));
        return set_text(job, k, k->words[index]);
    case LH_KEY_ENUM:
        return lh_yaml_enum(node, k->words, count_words(k), at);
    case LH_KEY_BOOL:
        return lh_yaml_bool(node, at);
    case LH_KEY_U32:
        LH_TRY(lh_yaml_int(node, (int64_t)k->min, (int64_t)k->max, &whole));
        *(uint32_t *)at = (uint32_t)whole;
        return 0;
    case LH_KEY_U64:
        LH_TRY(lh_yaml_int(node, (int64_t)k->min, k->max >= 0x1p63 ? INT64_MAX : (int64_t)k->max,
                           &whole));
        *(uint64_t *)at = (uint64_t)whole;
        return 0;
    case LH_KEY_DOUBLE:
        return lh_yaml_double(node, k->min, k->max, at);
    case LH_KEY_WIDTHS:
        return read_widths(job, k, node);
    case LH_KEY_HEX:
        return read_hex(node, at);
    }
    return lh_err_set(LH_EINTERNAL, "job key %s has no type", k->name);
}

/* Names of what may stand at top level (section NULL) or in one section. */
static size_t known_keys(const char *section, const char **names)
{
    size_t n = 0;
    for (size_t i = 0; i < lh_job_n_keys; i++) {
        const char *own = lh_job_keys[i].section, *name = lh_job_keys[i].name;
        if (section ? own && strcmp(own, section) == 0 : !own)
            names[n++] = name;
        else if (!section && (n == 0 || strcmp(names[n - 1], own) != 0))
            names[n++] = own;
    }
    return n;
}

static int check_keys(const struct lh_yaml_node *root)
{
    const char *names[LH_JOB_KEYS_MAX] = {0}, *sections[LH_JOB_KEYS_MAX] = {0};
    size_t n = known_keys(NULL, sections);
    sections[n++] = "tables";
    LH_TRY(lh_yaml_check_keys(root, sections, n));
    for (size_t i = 0; i < n; i++) {
        size_t m = known_keys(sections[i], names);
        if (m > 0)
            LH_TRY(lh_yaml_check_keys(lh_yaml_get(root, sections[i]), names, m));
    }
    return 0;
}

static const struct lh_yaml_node *get(const struct lh_yaml_node *root, const struct lh_job_key *k)
{
    return lh_yaml_get(k->section ? lh_yaml_get(root, k->section) : root, k->name);
}

/* The node to complain about: the key where it is set, else the document. */
static const struct lh_yaml_node *blame(const struct lh_yaml_node *root, const char *path)
{
    const struct lh_yaml_node *node = lh_yaml_get(root, path);
    return node ? node : root;
}

static int check_together(const struct lh_job *j, const struct lh_yaml_node *root)
{
    if (j->micro_batch & (j->micro_batch - 1)) {
        size_t below = 1;
        while (below * 2 < j->micro_batch)
            below *= 2;
        return lh_yaml_fail(blame(root, "train.micro_batch"),
                            "a micro-batch of %zu rows is not a power of two; take %zu or %zu",
                            j->micro_batch, below, below * 2);
    }
    if (j->batch < j->micro_batch)
        return lh_yaml_fail(blame(root, "train.batch"),
                            "a batch of %zu is smaller than a micro-batch of %zu; raise "
                            "train.batch or lower train.micro_batch",
                            j->batch, j->micro_batch);
    if (!(j->log_std_lo < j->log_std_hi))
        return lh_yaml_fail(blame(root, "objective.log_std_lo"),
                            "%g is not below objective.log_std_hi, %g", j->log_std_lo,
                            j->log_std_hi);
    if (j->n_tables > 0 && j->consistency != LH_SYNC)
        return lh_yaml_fail(blame(root, "tables"),
                            "tables are learnt with consistency.model: sync only; set that, or "
                            "remove the tables");
    if (j->deadline_seconds < 2 * j->heartbeat_seconds)
        return lh_yaml_fail(blame(root, "cluster.deadline_seconds"),
                            "%g s is less than two heartbeats of %g s; a living role would be "
                            "taken for dead",
                            j->deadline_seconds, j->heartbeat_seconds);
    if (*j->metrics_listen && lh_http_check(j->metrics_listen) < 0)
        return lh_yaml_fail(
            blame(root, "metrics.listen"),
            "'%s' is no address to serve metrics at; expected [ADDRESS:]PORT, as in "
            "127.0.0.1:9464 or 9464",
            j->metrics_listen);
    if (j->dims.action == 0 &&
        (j->dims.high || j->dims.low || j->dims.classes || j->dataset_digest))
        return lh_yaml_fail(blame(root, "resolved"),
                            "has no width of an action; leave the section out, or name them all");
    return 0;
}

/* Two workers can share any batch. */
static size_t default_micro_batch(size_t batch)
{
    size_t rows = 1;
    while (rows < 256 && rows * 4 <= batch)
        rows *= 2;
    return rows;
}

static int from_yaml(struct lh_job **out, const struct lh_yaml *doc, const char *base_dir)
{
    const struct lh_yaml_node *root = lh_yaml_root(doc);
    struct lh_job *job = NULL;
    int rc;
    LH_TRY(LH_NEW(&job, "job"));
    LH_TRY_TO(fail, set_defaults(job));
    LH_TRY_TO(fail, check_keys(root));
    for (size_t i = 0; i < lh_job_n_keys; i++) {
        const struct lh_yaml_node *node = get(root, &lh_job_keys[i]);
        if (node)
            LH_TRY_TO(fail, read_key(job, &lh_job_keys[i], node, base_dir));
    }
    LH_TRY_TO(fail, lh_job_tables_read(job->tables, &job->n_tables, lh_yaml_get(root, "tables")));
    if (job->micro_batch == 0)
        job->micro_batch = default_micro_batch(job->batch);
    LH_TRY_TO(fail, check_together(job, root));
    *out = job;
    return 0;
fail:
    lh_job_destroy(&job);
    return rc;
}

static int directory_of(char **out, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return lh_mem_strdup(out, ".");
    return lh_mem_printf(out, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* What a program assigns and finds no place for is the file's mistake, which is complained about
 * when it is read. */
static int assign(struct lh_yaml *doc, const char *assignment)
{
    int rc = lh_yaml_set(doc, assignment);
    return rc == LH_EUSAGE ? 0 : rc;
}

static int assign_default(struct lh_yaml *doc, const char *assignment)
{
    char *key = NULL;
    LH_TRY(lh_mem_printf(&key, "%.*s", (int)strcspn(assignment, "="), assignment));
    bool there = lh_yaml_get(lh_yaml_root(doc), key);
    lh_mem_free(key);
    return there ? 0 : assign(doc, assignment);
}

static int from_file(struct lh_job **out, const struct lh_yaml *doc, const char *path)
{
    char *base_dir = NULL;
    LH_TRY(directory_of(&base_dir, path));
    int rc = from_yaml(out, doc, base_dir);
    lh_mem_free(base_dir);
    return rc;
}

int lh_job_load(struct lh_job **out, const char *path, const char *const *sets, size_t n_sets)
{
    struct lh_yaml *doc = NULL;
    struct lh_job *job = NULL;
    int rc;
    LH_TRY(lh_yaml_load_file(&doc, path));
    for (size_t i = 0; i < n_sets; i++)
        LH_TRY_TO(done, lh_yaml_set(doc, sets[i]));
    LH_TRY_TO(done, from_file(&job, doc, path));
    if (!job->dataset) {
        rc = lh_err_set(LH_ECONFIG,
                        "%s: dataset is missing; name the directory that 'longhaul import' or "
                        "'longhaul simulate' wrote",
                        path);
        goto done;
    }
    *out = job;
    job = NULL;
done:
    lh_job_destroy(&job);
    lh_yaml_destroy(&doc);
    return rc;
}

int lh_job_load_assigned(struct lh_job **out, const char *path, const char *const *defaults,
                         const char *const *always)
{
    struct lh_yaml *doc = NULL;
    int rc;
    LH_TRY(lh_yaml_load_file(&doc, path));
    for (; *always; always++)
        LH_TRY_TO(done, assign(doc, *always));
    for (; *defaults; defaults++)
        LH_TRY_TO(done, assign_default(doc, *defaults));
    rc = from_file(out, doc, path);
done:
    lh_yaml_destroy(&doc);
    return rc;
}

int lh_job_load_text(struct lh_job **out, const char *text, size_t n, const char *name,
                     const char *base_dir)
{
    struct lh_yaml *doc = NULL;
    LH_TRY(lh_yaml_load_text(&doc, text, n, name));
    int rc = from_yaml(out, doc, base_dir);
    lh_yaml_destroy(&doc);
    return rc;
}

void lh_job_destroy(struct lh_job **job)
{
    if (!*job)
        return;
    for (size_t i = 0; i < lh_job_n_keys; i++)
        if (is_text(&lh_job_keys[i]))
            lh_mem_free(*(char **)member(*job, &lh_job_keys[i]));
    lh_job_tables_fini((*job)->tables, (*job)->n_tables);
    lh_mem_free(*job);
    *job = NULL;
}

int lh_job_resolve(struct lh_job *job, const struct lh_dims *dims, uint64_t dataset_digest)
{
    const struct lh_dims *d = &job->dims;
    if (d->action > 0) {
        if (d->high != dims->high || d->low != dims->low || d->action != dims->action ||
            d->classes != dims->classes)
            return lh_err_set(LH_EMISMATCH,
                              "the job was made for states of %u + %u, actions of %u and %u "
                              "reward classes, the dataset has %u + %u, %u and %u",
                              d->high, d->low, d->action, d->classes, dims->high, dims->low,
                              dims->action, dims->classes);
        if (job->dataset_digest != dataset_digest)
            return lh_err_set(LH_EMISMATCH,
                              "the job was made for the dataset with digest %016llx, this one has "
                              "%016llx; use the dataset the run began with",
                              (unsigned long long)job->dataset_digest,
                              (unsigned long long)dataset_digest);
        return 0;
    }
    job->dims = *dims;
    job->dataset_digest = dataset_digest;
    return 0;
}

/* --- printing ------------------------------------------------------------------------------ */

/* The shortest decimal that reads back as the same double. */
static void print_double(char *out, size_t size, double x)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, x);
        if (strtod(out, NULL) == x)
            return;
    }
}

static void print_value(FILE *to, const struct lh_job *job, const struct lh_job_key *k)
{
    const void *at = member_const(job, k);
    char number[40];
    switch (k->type) {
    case LH_KEY_TEXT:
    case LH_KEY_WORD:
    case LH_KEY_PATH:
        lh_yaml_write_text(to, *(const char *const *)at);
        break;
    case LH_KEY_ENUM:
        fputs(k->words[*(const int *)at], to);
        break;
    case LH_KEY_BOOL:
        fputs(*(const bool *)at ? "true" : "false", to);
        break;
    case LH_KEY_U32:
        fprintf(to, "%u", *(const uint32_t *)at);
        break;
    case LH_KEY_U64:
        fprintf(to, "%llu", (unsigned long long)*(const uint64_t *)at);
        break;
    case LH_KEY_DOUBLE:
        print_double(number, sizeof number, *(const double *)at);
        fputs(number, to);
        break;
    case LH_KEY_WIDTHS:
        for (size_t i = 0; i < job->n_hidden; i++)
            fprintf(to, "%s%zu", i ? ", " : "[", job->hidden[i]);
        fputc(']', to);
        break;
    case LH_KEY_HEX:
        fprintf(to, "\"%016llx\"", (unsigned long long)*(const uint64_t *)at);
        break;
    }
}

/* Moves what open_memstream wrote into counted memory. */
static int take_stream(char **out, FILE *stream, char *const *text)
{
    int rc = fclose(stream) != 0 ? lh_err_set(LH_ENOMEM, "job: out of memory while printing")
                                 : lh_mem_strdup(out, *text);
    free(*text);
    return rc;
}

int lh_job_print(const struct lh_job *job, char **out)
{
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    if (!to)
        return lh_err_set(LH_ENOMEM, "job: out of memory while printing");
    const char *section = NULL;
    for (size_t i = 0; i < lh_job_n_keys; i++) {
        const struct lh_job_key *k = &lh_job_keys[i];
        if (is_text(k) && !*(const char *const *)member_const(job, k))
            continue;
        if (k->resolved && job->dims.action == 0)
            continue;
        if (k->section && (!section || strcmp(section, k->section) != 0))
            fprintf(to, "%s:\n", k->section);
        section = k->section;
        fprintf(to, "%s%s: ", section ? "  " : "", k->name);
        print_value(to, job, k);
        fputc('\n', to);
    }
    lh_job_tables_print(to, job->tables, job->n_tables);
    return take_stream(out, to, &text);
}

uint64_t lh_job_total_steps(const struct lh_job *job, uint64_t transitions)
{
    if (job->steps > 0)
        return job->steps;
    double steps = ceil(job->epochs * (double)transitions / (double)job->batch);
    return steps < 1 ? 1 : (uint64_t)steps;
}

/* The texts, not the bytes in memory: the same on every machine and for every later layout of the
 * struct. */
enum { VALUE_MAX = 256 };
static bool value_text(const struct lh_job *job, const struct lh_job_key *k, char out[VALUE_MAX])
{
    memset(out, 0, VALUE_MAX);
    FILE *to = fmemopen(out, VALUE_MAX, "w");
    if (to) {
        print_value(to, job, k);
        fclose(to);
    }
    return to;
}

/* Of keys that hold a number. */
static bool is_default(const struct lh_job *job, const struct lh_job_key *k)
{
    const void *at = member_const(job, k);
    switch (k->type) {
    case LH_KEY_ENUM:
        return *(const int *)at == (int)k->number;
    case LH_KEY_BOOL:
        return *(const bool *)at == (k->number != 0);
    case LH_KEY_U32:
        return *(const uint32_t *)at == (uint32_t)k->number;
    case LH_KEY_U64:
        return *(const uint64_t *)at == (uint64_t)k->number;
    case LH_KEY_DOUBLE:
        return *(const double *)at == k->number;
    default:
        return false;
    }
}

uint64_t lh_job_digest(const struct lh_job *job)
{
    uint64_t digest = 0;
    for (size_t i = 0; i < lh_job_n_keys; i++) {
        const struct lh_job_key *k = &lh_job_keys[i];
        char value[VALUE_MAX], line[VALUE_MAX + 80];
        if (!k->digested || (k->younger && is_default(job, k)) || !value_text(job, k, value))
            continue;
        int n =
            snprintf(line, sizeof line, "%s.%s=%s", k->section ? k->section : "", k->name, value);
        digest = XXH3_64bits_withSeed(line, (size_t)n, digest);
    }
    return lh_job_tables_digest(job->tables, job->n_tables, digest);
}

void lh_job_difference(const struct lh_job *a, const struct lh_job *b, char *out, size_t size)
{
    out[0] = '\0';
    for (size_t i = 0; i < lh_job_n_keys && !out[0]; i++) {
        const struct lh_job_key *k = &lh_job_keys[i];
        char of_a[VALUE_MAX], of_b[VALUE_MAX];
        if (k->digested && value_text(a, k, of_a) && value_text(b, k, of_b) &&
            strcmp(of_a, of_b) != 0)
            snprintf(out, size, "%s%s%s is %s, not %s", k->section ? k->section : "",
                     k->section ? "." : "", k->name, of_a, of_b);
    }
}

/* --- documentation ------------------------------------------------------------------------- */

static void describe_type(FILE *to, const struct lh_job_key *k)
{
    char lo[40], hi[40];
    switch (k->type) {
    case LH_KEY_TEXT:
        fputs("text", to);
        break;
    case LH_KEY_PATH:
        fprintf(to, "directory%s%s", k->words ? ", or " : "", k->words ? k->words[0] : "");
        break;
    case LH_KEY_WORD:
    case LH_KEY_ENUM:
        for (size_t i = 0; k->words[i]; i++)
            fprintf(to, "%s%s", i ? " | " : "", k->words[i]);
        break;
    case LH_KEY_BOOL:
        fputs("true | false", to);
        break;
    case LH_KEY_U32:
    case LH_KEY_U64:
    case LH_KEY_DOUBLE:
    case LH_KEY_WIDTHS:
        print_double(lo, sizeof lo, k->min);
        print_double(hi, sizeof hi, k->max);
        fputs(k->type == LH_KEY_WIDTHS   ? "list of widths"
              : k->type == LH_KEY_DOUBLE ? "number"
                                         : "whole number",
              to);
        if (k->max >= 0x1p62)
            fprintf(to, ", %s or more", lo);
        else
            fprintf(to, ", %s to %s", lo, hi);
        break;
    case LH_KEY_HEX:
        fputs("hexadecimal digits", to);
        break;
    }
}

static void describe(FILE *to, const struct lh_job *defaults, const struct lh_job_key *k)
{
    const char *indent = k->section ? "  " : "";
    fprintf(to, "%s%s: ", indent, k->name);
    if (is_text(k) && !*(const char *const *)member_const(defaults, k))
        fputs("(required)", to);
    else
        print_value(to, defaults, k);
    fprintf(to, "\n%s    # ", indent);
    describe_type(to, k);
    if (k->unit)
        fprintf(to, "; %s", k->unit);
    for (const char *at = k->doc; *at;) {
        size_t n = strcspn(at, "\n");
        fprintf(to, "\n%s    # %.*s", indent, (int)n, at);
        at += n + (at[n] == '\n');
    }
    fputc('\n', to);
}

int lh_job_help(char **out)
{
    struct lh_job *defaults = NULL;
    LH_TRY(lh_job_load_text(&defaults, "", 0, "job", NULL));
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    if (!to) {
        lh_job_destroy(&defaults);
        return lh_err_set(LH_ENOMEM, "job: out of memory while printing");
    }
    fputs(
        "# A job file, with every key at its default. All but 'dataset' may be left out; any can\n"
        "# be overridden on the command line: --set train.batch=1024\n",
        to);
    const char *section = "";
    for (size_t i = 0; i < lh_job_n_keys; i++) {
        const struct lh_job_key *k = &lh_job_keys[i];
        if (k->resolved)
            continue;
        if (k->section && (!section || strcmp(section, k->section) != 0))
            fprintf(to, "\n%s:\n", k->section);
        section = k->section;
        describe(to, defaults, k);
    }
    lh_job_tables_help(to);
    lh_job_destroy(&defaults);
    return take_stream(out, to, &text);
}

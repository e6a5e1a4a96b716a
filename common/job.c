/* Reading jobs: one walk over the table of keys (job_table.c), then the checks that involve more
 * than one key. */
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

static void *member(struct lh_job *job, const struct lh_job_key *k)
{
    return (char *)job + k->offset;
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
        if (lh_job_key_is_text(&lh_job_keys[i]))
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

uint64_t lh_job_total_steps(const struct lh_job *job, uint64_t transitions)
{
    if (job->steps > 0)
        return job->steps;
    double steps = ceil(job->epochs * (double)transitions / (double)job->batch);
    return steps < 1 ? 1 : (uint64_t)steps;
}

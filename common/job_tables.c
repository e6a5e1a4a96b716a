/* Reading, printing and digesting the section `tables` of a job: one walk over a table of keys
 * each, as of the job's other keys (job.c, job_text.c), but for a mapping whose keys are names. */
#include "common/job_tables.h"

#include "common/err.h"
#include "common/job.h"
#include "common/mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

enum type { IDS, INTO, U32, U64, DOUBLE };

struct key {
    const char *name;
    enum type type;
    size_t offset;
    double number, min, max;
    const char *unit;
    bool digested;
    const char *doc;
};

#define AT(member) offsetof(struct lh_job_table, member)

static const char *const intos[] = {"state_high", "state_low"};

static const struct key keys[] = {
    {"ids", IDS, 0, 0, 0, 0, NULL, true,
     "Ids of the dataset (ids: in its schema), one or a list; each is looked up, and the rows\n"
     "found lie side by side behind the state. Of the next state likewise."},
    {"into", INTO, AT(into), 1, 0, 0, NULL, true, "The state that the rows widen."},
    {"dim", U32, AT(dim), 16, 1, 4096, NULL, true, "Width of a row."},
    {"learning_rate", DOUBLE, AT(learning_rate), 1e-3, 0, 10, NULL, true,
     "Adam's learning rate of the rows. Adam is lazy: a step touches the rows that its batch\n"
     "names, and each counts its own updates. beta1, beta2 and epsilon are the optimiser's."},
    {"init", DOUBLE, AT(init), 0.05, 0, 1e3, NULL, true,
     "A row begins with numbers from U(-init, init) that seed and id decide, whenever it comes."},
    {"cache", U32, AT(cache), 256, 1, 1 << 20, "MB", false,
     "Memory that each server may use for rows of this table; all others lie on its disk. The\n"
     "result does not depend on it."},
    {"admit_after", U32, AT(admit_after), 0, 0, UINT32_MAX, "steps", true,
     "A row is learnt once so many steps have named its id; until then it keeps its initial\n"
     "value. 0: at once."},
    {"evict_after", U64, AT(evict_after), 0, 0, 0x1p62, "steps", true,
     "A row that no step has named for so long is forgotten. 0: never."},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static int add_id(struct lh_job_table *t, const struct lh_yaml_node *node)
{
    const char *text = NULL;
    LH_TRY(lh_yaml_string(node, &text));
    if (t->n_ids == LH_JOB_TABLE_IDS_MAX)
        return lh_yaml_fail(node, "more than %d ids", LH_JOB_TABLE_IDS_MAX);
    for (size_t i = 0; i < t->n_ids; i++)
        if (strcmp(t->ids[i], text) == 0)
            return lh_yaml_fail(node, "the id '%s' is in the list already", text);
    LH_TRY(lh_mem_strdup(&t->ids[t->n_ids], text));
    t->n_ids++;
    return 0;
}

static int read_ids(struct lh_job_table *t, const struct lh_yaml_node *node)
{
    if (node->kind == LH_YAML_SCALAR)
        return add_id(t, node);
    LH_TRY(lh_yaml_expect(node, LH_YAML_SEQUENCE));
    for (const struct lh_yaml_node *c = node->child; c; c = c->next)
        LH_TRY(add_id(t, c));
    return 0;
}

static int read_key(struct lh_job_table *t, const struct key *k, const struct lh_yaml_node *node)
{
    void *at = (char *)t + k->offset;
    int64_t whole = (int64_t)k->number;
    switch (k->type) {
    case IDS:
        return node ? read_ids(t, node) : 0;
    case INTO:
        t->into = (int)k->number;
        return lh_yaml_enum(node, intos, 2, &t->into);
    case U32:
    case U64:
        LH_TRY(lh_yaml_int(node, (int64_t)k->min, (int64_t)k->max, &whole));
        if (k->type == U32)
            *(uint32_t *)at = (uint32_t)whole;
        else
            *(uint64_t *)at = (uint64_t)whole;
        return 0;
    case DOUBLE:
        *(double *)at = k->number;
        return lh_yaml_double(node, k->min, k->max, at);
    }
    return 0;
}

/* A name becomes part of file names and of tensors' names. */
static bool is_name(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '_' && name[i] != '-')
            return false;
    return n >= 1 && n <= 64;
}

static int read_table(struct lh_job_table *t, const struct lh_yaml_node *node)
{
    const char *names[N_KEYS];
    for (size_t i = 0; i < N_KEYS; i++)
        names[i] = keys[i].name;
    if (!is_name(node->key))
        return lh_yaml_fail(node, "a table's name has 1 to 64 letters, digits, '_' and '-'");
    LH_TRY(lh_yaml_check_keys(node, names, N_KEYS));
    LH_TRY(lh_mem_strdup(&t->name, node->key));
    for (size_t i = 0; i < N_KEYS; i++)
        LH_TRY(read_key(t, &keys[i], lh_yaml_get(node, keys[i].name)));
    if (t->n_ids == 0)
        return lh_yaml_fail(node, "names no ids; list those of the dataset that are looked up");
    return 0;
}

int lh_job_tables_read(struct lh_job_table *out, size_t *n, const struct lh_yaml_node *section)
{
    *n = 0;
    if (!section)
        return 0;
    LH_TRY(lh_yaml_expect(section, LH_YAML_MAPPING));
    if (section->n > LH_GRAPH_TABLES_MAX)
        return lh_yaml_fail(section, "%zu tables; at most %d are possible", section->n,
                            LH_GRAPH_TABLES_MAX);
    for (const struct lh_yaml_node *t = section->child; t; t = t->next) {
        out[*n] = (struct lh_job_table){.name = NULL};
        LH_TRY(read_table(&out[(*n)++], t));
    }
    return 0;
}

void lh_job_tables_fini(struct lh_job_table *tables, size_t n)
{
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < tables[t].n_ids; i++)
            lh_mem_free(tables[t].ids[i]);
        lh_mem_free(tables[t].name);
    }
}

/* The shortest decimal that reads back as the same double. */
static void print_double(FILE *to, double x)
{
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    fputs(text, to);
}

static void print_value(FILE *to, const struct lh_job_table *t, const struct key *k)
{
    const void *at = (const char *)t + k->offset;
    switch (k->type) {
    case IDS:
        for (size_t i = 0; i < t->n_ids; i++) {
            fputs(i ? ", " : "[", to);
            lh_yaml_write_text(to, t->ids[i]);
        }
        fputc(']', to);
        break;
    case INTO:
        fputs(intos[t->into], to);
        break;
    case U32:
        fprintf(to, "%u", *(const uint32_t *)at);
        break;
    case U64:
        fprintf(to, "%llu", (unsigned long long)*(const uint64_t *)at);
        break;
    case DOUBLE:
        print_double(to, *(const double *)at);
        break;
    }
}

void lh_job_tables_print(FILE *to, const struct lh_job_table *tables, size_t n)
{
    if (n > 0)
        fputs("tables:\n", to);
    for (size_t t = 0; t < n; t++) {
        fprintf(to, "  %s:\n", tables[t].name);
        for (size_t i = 0; i < N_KEYS; i++) {
            fprintf(to, "    %s: ", keys[i].name);
            print_value(to, &tables[t], &keys[i]);
            fputc('\n', to);
        }
    }
}

uint64_t lh_job_tables_digest(const struct lh_job_table *tables, size_t n, uint64_t digest)
{
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < N_KEYS; i++) {
            char *text = NULL;
            size_t bytes = 0;
            FILE *to = keys[i].digested ? open_memstream(&text, &bytes) : NULL;
            if (!to)
                continue;
            fprintf(to, "tables.%s.%s=", tables[t].name, keys[i].name);
            print_value(to, &tables[t], &keys[i]);
            fclose(to);
            digest = XXH3_64bits_withSeed(text, bytes, digest);
            free(text);
        }
    return digest;
}

static void describe_type(FILE *to, const struct key *k)
{
    if (k->type == IDS || k->type == INTO) {
        fputs(k->type == IDS ? "name or list of names" : "state_high | state_low", to);
        return;
    }
    fputs(k->type == DOUBLE ? "number" : "whole number", to);
    fputs(", ", to);
    print_double(to, k->min);
    if (k->max < 0x1p31) {
        fputs(" to ", to);
        print_double(to, k->max);
    } else {
        fputs(" or more", to);
    }
}

void lh_job_tables_help(FILE *to)
{
    fputs("\n# Embedding tables that are learnt with the rest, by name; none unless named. A state "
          "is\n"
          "# widened by the rows that its ids name.\n"
          "# tables:\n"
          "#   NAME:\n",
          to);
    for (size_t i = 0; i < N_KEYS; i++) {
        const struct key *k = &keys[i];
        struct lh_job_table t = {.name = NULL};
        fprintf(to, "#     %s: ", k->name);
        if (k->type == IDS) {
            fputs("(required)", to);
        } else {
            read_key(&t, k, NULL);
            print_value(to, &t, k);
        }
        fputs("\n#       # ", to);
        describe_type(to, k);
        if (k->unit)
            fprintf(to, "; %s", k->unit);
        for (const char *at = k->doc; *at;) {
            size_t n = strcspn(at, "\n");
            fprintf(to, "\n#       # %.*s", (int)n, at);
            at += n + (at[n] == '\n');
        }
        fputc('\n', to);
    }
}

void lh_job_tables_declare(const struct lh_job *job, struct lh_graph_spec *spec)
{
    spec->n_tables = job->n_tables;
    for (size_t t = 0; t < job->n_tables; t++)
        spec->tables[t] = (struct lh_graph_table){.name = job->tables[t].name,
                                                  .dim = job->tables[t].dim,
                                                  .ids = job->tables[t].n_ids,
                                                  .high = job->tables[t].into == 0};
}

int lh_job_tables_find(const struct lh_job_table *t, const char *const *names, size_t n, size_t *at)
{
    for (size_t i = 0; i < t->n_ids; i++) {
        size_t k = 0;
        while (k < n && strcmp(names[k], t->ids[i]) != 0)
            k++;
        if (k == n && n == 0)
            return lh_err_set(LH_EMISMATCH,
                              "tables.%s.ids: the dataset has no ids; list them under ids: in its "
                              "schema and import again",
                              t->name);
        if (k == n) {
            const char *near = lh_yaml_nearest(t->ids[i], names, n);
            return lh_err_set(LH_EMISMATCH,
                              "tables.%s.ids: the dataset has no id '%s'; did you mean '%s'?",
                              t->name, t->ids[i], near ? near : names[0]);
        }
        at[i] = k;
    }
    return 0;
}

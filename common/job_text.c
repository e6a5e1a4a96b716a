/* Jobs as text: walks over the table of keys (job_table.c) that print a job, digest it, tell two
 * apart, and document it. */
#include "common/job.h"

#include "common/err.h"
#include "common/job_table.h"
#include "common/mem.h"
#include "common/yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

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
    const void *at = lh_job_member(job, k);
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
        if (lh_job_key_is_text(k) && !*(const char *const *)lh_job_member(job, k))
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
    const void *at = lh_job_member(job, k);
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
    if (lh_job_key_is_text(k) && !*(const char *const *)lh_job_member(defaults, k))
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

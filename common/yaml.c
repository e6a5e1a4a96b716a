/* YAML trees with line numbers. Nodes and strings live in chunks owned by the document and die
 * with it; --set only adds and relinks nodes, it never edits one in place. */
#include "common/yaml.h"

#include "common/err.h"
#include "common/mem.h"

#include <yaml.h>

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEPTH_MAX 32
#define PATH_MAX_ 256

struct chunk {
    struct chunk *next;
};

struct lh_yaml {
    char *name;
    struct chunk *chunks;
    struct lh_yaml_node *root;
};

static int take(struct lh_yaml *doc, size_t bytes, void **out)
{
    void *p;
    LH_TRY(lh_mem_alloc(&p, 1, sizeof(struct chunk) + bytes, "yaml node"));
    struct chunk *c = p;
    c->next = doc->chunks;
    doc->chunks = c;
    *out = c + 1;
    return 0;
}

static int take_string(struct lh_yaml *doc, const char *s, size_t n, const char **out)
{
    void *p;
    LH_TRY(take(doc, n + 1, &p));
    memcpy(p, s, n);
    *out = p;
    return 0;
}

static int take_node(struct lh_yaml *doc, enum lh_yaml_kind kind, size_t line,
                     struct lh_yaml_node **out)
{
    void *p;
    LH_TRY(take(doc, sizeof **out, &p));
    *out = p;
    (*out)->kind = kind;
    (*out)->line = line;
    (*out)->doc = doc;
    return 0;
}

static void append(struct lh_yaml_node *parent, struct lh_yaml_node *node)
{
    struct lh_yaml_node **at = &parent->child;
    while (*at)
        at = &(*at)->next;
    *at = node;
    node->parent = parent;
    parent->n++;
}

static struct lh_yaml_node *find(const struct lh_yaml_node *map, const char *key, size_t n)
{
    if (!map || map->kind != LH_YAML_MAPPING)
        return NULL;
    for (struct lh_yaml_node *c = map->child; c; c = c->next) {
        if (strlen(c->key) == n && memcmp(c->key, key, n) == 0)
            return c;
    }
    return NULL;
}

/* --- reading ------------------------------------------------------------------------------- */

struct reader {
    yaml_parser_t parser;
    struct lh_yaml *doc;
    size_t line_shift; /* added to libyaml's 0-based lines; lines become 0 for --set values */
};

static size_t line_of(const struct reader *r, const yaml_event_t *e)
{
    return r->line_shift ? e->start_mark.line + r->line_shift : 0;
}

static int next_event(struct reader *r, yaml_event_t *e)
{
    if (yaml_parser_parse(&r->parser, e))
        return 0;
    if (r->parser.error == YAML_MEMORY_ERROR)
        return lh_err_set(LH_ENOMEM, "%s: out of memory while reading YAML", r->doc->name);
    return lh_err_set(LH_ECONFIG, "%s:%zu: not valid YAML: %s%s%s; check indentation and quotes",
                      r->doc->name, r->parser.problem_mark.line + 1,
                      r->parser.problem ? r->parser.problem : "unreadable",
                      r->parser.context ? " " : "", r->parser.context ? r->parser.context : "");
}

static int refuse_features(struct reader *r, const yaml_event_t *e)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;
    if (e->type == YAML_SCALAR_EVENT) {
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
    } else if (e->type == YAML_MAPPING_START_EVENT) {
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
    }
    if (e->type == YAML_ALIAS_EVENT || anchor || tag)
        return lh_err_set(LH_ECONFIG,
                          "%s:%zu: YAML anchors, aliases and tags are not used here; "
                          "write the value out",
                          r->doc->name, line_of(r, e));
    return 0;
}

/* Turns the event *e, already read, and those that belong to it into a node. Consumes *e. */
static int read_node(struct reader *r, yaml_event_t *e, int depth, struct lh_yaml_node **out);

static int read_sequence(struct reader *r, int depth, struct lh_yaml_node *seq)
{
    for (;;) {
        yaml_event_t e;
        LH_TRY(next_event(r, &e));
        if (e.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&e);
            return 0;
        }
        struct lh_yaml_node *item;
        LH_TRY(read_node(r, &e, depth + 1, &item));
        append(seq, item);
    }
}

static int read_mapping(struct reader *r, int depth, struct lh_yaml_node *map)
{
    for (;;) {
        yaml_event_t e;
        LH_TRY(next_event(r, &e));
        if (e.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&e);
            return 0;
        }
        size_t line = line_of(r, &e);
        struct lh_yaml_node *key, *value;
        LH_TRY(read_node(r, &e, depth + 1, &key));
        if (key->kind != LH_YAML_SCALAR)
            return lh_err_set(LH_ECONFIG, "%s:%zu: a key must be a plain word", r->doc->name, line);
        struct lh_yaml_node *twin = find(map, key->text, strlen(key->text));
        if (twin)
            return lh_err_set(LH_ECONFIG, "%s:%zu: key '%s' is already set on line %zu; keep one",
                              r->doc->name, line, key->text, twin->line);
        LH_TRY(next_event(r, &e));
        LH_TRY(read_node(r, &e, depth + 1, &value));
        value->key = key->text;
        value->line = line; /* a complaint about a value points at its key */
        append(map, value);
    }
}

static int read_node(struct reader *r, yaml_event_t *e, int depth, struct lh_yaml_node **out)
{
    size_t line = line_of(r, e);
    yaml_event_type_t type = e->type;
    int rc = refuse_features(r, e);
    struct lh_yaml_node *node = NULL;
    if (rc == 0 && depth > DEPTH_MAX)
        rc = lh_err_set(LH_ECONFIG, "%s:%zu: nested deeper than %d levels", r->doc->name, line,
                        DEPTH_MAX);
    if (rc == 0)
        rc = take_node(r->doc,
                       type == YAML_SEQUENCE_START_EVENT  ? LH_YAML_SEQUENCE
                       : type == YAML_MAPPING_START_EVENT ? LH_YAML_MAPPING
                                                          : LH_YAML_SCALAR,
                       line, &node);
    if (rc == 0 && type == YAML_SCALAR_EVENT) {
        const char *text = (const char *)e->data.scalar.value;
        if (memchr(text, '\0', e->data.scalar.length))
            rc = lh_err_set(LH_ECONFIG, "%s:%zu: a NUL byte in a value", r->doc->name, line);
        else
            rc = take_string(r->doc, text, e->data.scalar.length, &node->text);
        node->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    }
    yaml_event_delete(e);
    LH_TRY(rc);
    if (type == YAML_SEQUENCE_START_EVENT)
        LH_TRY(read_sequence(r, depth, node));
    else if (type == YAML_MAPPING_START_EVENT)
        LH_TRY(read_mapping(r, depth, node));
    *out = node;
    return 0;
}

static int expect_event(struct reader *r, yaml_event_type_t type)
{
    yaml_event_t e;
    LH_TRY(next_event(r, &e));
    yaml_event_type_t got = e.type;
    size_t line = line_of(r, &e);
    yaml_event_delete(&e);
    if (got != type)
        return lh_err_set(LH_ECONFIG, "%s:%zu: more than one YAML document; keep one", r->doc->name,
                          line);
    return 0;
}

/* Reads one document from text; *out is NULL for an empty one. */
static int read_text(struct lh_yaml *doc, const char *text, size_t n, size_t line_shift,
                     struct lh_yaml_node **out)
{
    struct reader r = {.doc = doc, .line_shift = line_shift};
    *out = NULL;
    if (!yaml_parser_initialize(&r.parser))
        return lh_err_set(LH_ENOMEM, "%s: out of memory while reading YAML", doc->name);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    yaml_event_t e;
    int rc;
    LH_TRY_TO(done, expect_event(&r, YAML_STREAM_START_EVENT));
    LH_TRY_TO(done, next_event(&r, &e));
    yaml_event_type_t type = e.type;
    yaml_event_delete(&e);
    if (type == YAML_STREAM_END_EVENT)
        goto done;
    LH_TRY_TO(done, next_event(&r, &e));
    LH_TRY_TO(done, read_node(&r, &e, 0, out));
    LH_TRY_TO(done, expect_event(&r, YAML_DOCUMENT_END_EVENT));
    LH_TRY_TO(done, expect_event(&r, YAML_STREAM_END_EVENT));
done:
    yaml_parser_delete(&r.parser);
    return rc;
}

int lh_yaml_load_text(struct lh_yaml **out, const char *text, size_t n, const char *name)
{
    struct lh_yaml *doc = NULL;
    int rc;
    LH_TRY(LH_NEW(&doc, "yaml document"));
    LH_TRY_TO(fail, lh_mem_strdup(&doc->name, name));
    LH_TRY_TO(fail, read_text(doc, text, n, 1, &doc->root));
    if (!doc->root || (doc->root->kind == LH_YAML_SCALAR && !*doc->root->text))
        LH_TRY_TO(fail, take_node(doc, LH_YAML_MAPPING, 1, &doc->root));
    *out = doc;
    return 0;
fail:
    lh_yaml_destroy(&doc);
    return rc;
}

#define FILE_MAX (16u << 20)

int lh_yaml_load_file(struct lh_yaml **out, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return lh_err_errno(errno, "%s", path);
    char *text = NULL;
    size_t n = 0, cap = 0;
    int rc;
    for (;;) {
        LH_TRY_TO(done, LH_GROW(&text, &cap, n + 65536, path));
        size_t got = fread(text + n, 1, cap - n, f);
        n += got;
        if (n > FILE_MAX) {
            rc = lh_err_set(LH_ECONFIG, "%s: larger than 16 MiB; this is no config", path);
            goto done;
        }
        if (got == 0)
            break;
    }
    if (ferror(f)) {
        rc = lh_err_errno(errno, "%s", path);
        goto done;
    }
    rc = lh_yaml_load_text(out, text, n, path);
done:
    fclose(f);
    lh_mem_free(text);
    return rc;
}

void lh_yaml_destroy(struct lh_yaml **doc)
{
    if (!*doc)
        return;
    struct chunk *c = (*doc)->chunks;
    while (c) {
        struct chunk *next = c->next;
        lh_mem_free(c);
        c = next;
    }
    lh_mem_free((*doc)->name);
    lh_mem_free(*doc);
    *doc = NULL;
}

const struct lh_yaml_node *lh_yaml_root(const struct lh_yaml *doc)
{
    return doc->root;
}

const char *lh_yaml_name(const struct lh_yaml *doc)
{
    return doc->name;
}

const struct lh_yaml_node *lh_yaml_get(const struct lh_yaml_node *map, const char *path)
{
    while (map) {
        size_t n = strcspn(path, ".");
        map = find(map, path, n);
        if (path[n] == '\0')
            return map;
        path += n + 1;
    }
    return NULL;
}

/* Puts `value` under `key` of `map`, in the place of a child of that name if there is one. */
static void put(struct lh_yaml_node *map, struct lh_yaml_node *value)
{
    for (struct lh_yaml_node **at = &map->child; *at; at = &(*at)->next) {
        if (strcmp((*at)->key, value->key) == 0) {
            value->next = (*at)->next;
            value->parent = map;
            *at = value;
            return;
        }
    }
    append(map, value);
}

int lh_yaml_set(struct lh_yaml *doc, const char *assignment)
{
    const char *eq = strchr(assignment, '=');
    if (!eq || eq == assignment)
        return lh_err_set(LH_EUSAGE, "--set %s: expected key=value, for example train.seed=7",
                          assignment);
    struct lh_yaml_node *value = NULL;
    if (read_text(doc, eq + 1, strlen(eq + 1), 0, &value) < 0)
        return lh_err_set(LH_EUSAGE, "--set %s: the value is not valid YAML", assignment);
    if (!value) {
        LH_TRY(take_node(doc, LH_YAML_SCALAR, 0, &value));
        value->text = "";
    }
    struct lh_yaml_node *map = doc->root;
    const char *at = assignment;
    for (;;) {
        size_t n = strcspn(at, ".=");
        if (n == 0 || map->kind != LH_YAML_MAPPING)
            return lh_err_set(LH_EUSAGE, "--set %s: '%.*s' is no place for a key", assignment,
                              (int)(at + n - assignment), assignment);
        const char *key;
        if (at + n == eq) {
            LH_TRY(take_string(doc, at, n, &key));
            value->key = key;
            put(map, value);
            return 0;
        }
        struct lh_yaml_node *inner = find(map, at, n);
        if (!inner) {
            LH_TRY(take_node(doc, LH_YAML_MAPPING, 0, &inner));
            LH_TRY(take_string(doc, at, n, &key));
            inner->key = key;
            append(map, inner);
        }
        map = inner;
        at += n + 1;
    }
}

/* --- complaining --------------------------------------------------------------------------- */

static void path_of(const struct lh_yaml_node *node, char *out, size_t size)
{
    const struct lh_yaml_node *up[DEPTH_MAX + 2];
    size_t n = 0;
    for (const struct lh_yaml_node *p = node; p && n < DEPTH_MAX + 2; p = p->parent)
        up[n++] = p;
    size_t used = 0;
    out[0] = '\0';
    while (n > 0) {
        const struct lh_yaml_node *p = up[--n];
        if (p->key) {
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? "." : "", p->key);
        } else if (p->parent) {
            size_t i = 0;
            for (const struct lh_yaml_node *c = p->parent->child; c != p; c = c->next)
                i++;
            used += (size_t)snprintf(out + used, size - used, "[%zu]", i);
        }
        if (used >= size)
            return;
    }
}

int lh_yaml_fail(const struct lh_yaml_node *node, const char *fmt, ...)
{
    char path[PATH_MAX_], text[LH_ERR_MAX];
    path_of(node, path, sizeof path);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (node->line == 0)
        return lh_err_set(LH_ECONFIG, "--set %s: %s", path, text);
    return lh_err_set(LH_ECONFIG, "%s:%zu: %s%s%s", node->doc->name, node->line, path,
                      *path ? ": " : "", text);
}

int lh_yaml_expect(const struct lh_yaml_node *node, enum lh_yaml_kind kind)
{
    static const char *const name[] = {"a single value", "a list", "a mapping (key: value lines)"};
    if (!node || node->kind == kind)
        return 0;
    return lh_yaml_fail(node, "expected %s, found %s", name[kind], name[node->kind]);
}

int lh_yaml_check_keys(const struct lh_yaml_node *map, const char *const *keys, size_t n)
{
    if (!map)
        return 0;
    LH_TRY(lh_yaml_expect(map, LH_YAML_MAPPING));
    for (const struct lh_yaml_node *c = map->child; c; c = c->next) {
        size_t i = 0;
        while (i < n && strcmp(keys[i], c->key) != 0)
            i++;
        if (i < n)
            continue;
        const char *near = lh_yaml_nearest(c->key, keys, n);
        if (near)
            return lh_yaml_fail(c, "unknown key; did you mean '%s'?", near);
        char all[LH_ERR_MAX / 2] = "";
        size_t used = 0;
        for (i = 0; i < n && used < sizeof all; i++)
            used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", keys[i]);
        return lh_yaml_fail(c, "unknown key; known here: %s", all);
    }
    return 0;
}

static int scalar(const struct lh_yaml_node *node, const char *expected)
{
    if (node->kind != LH_YAML_SCALAR)
        return lh_yaml_fail(node, "expected %s, found a %s", expected,
                            node->kind == LH_YAML_SEQUENCE ? "list" : "mapping");
    return 0;
}

int lh_yaml_int(const struct lh_yaml_node *node, int64_t min, int64_t max, int64_t *out)
{
    if (!node)
        return 0;
    LH_TRY(scalar(node, "a whole number"));
    char *end;
    errno = 0;
    long long v = strtoll(node->text, &end, 10);
    if (end == node->text || *end || errno)
        return lh_yaml_fail(node, "'%s' is not a whole number", node->text);
    if (v < min || v > max)
        return lh_yaml_fail(node, "%lld is outside %lld to %lld", v, (long long)min,
                            (long long)max);
    *out = v;
    return 0;
}

int lh_yaml_double(const struct lh_yaml_node *node, double min, double max, double *out)
{
    if (!node)
        return 0;
    LH_TRY(scalar(node, "a number"));
    char *end;
    double v = strtod(node->text, &end);
    if (end == node->text || *end || !isfinite(v))
        return lh_yaml_fail(node, "'%s' is not a finite number", node->text);
    if (v < min || v > max)
        return lh_yaml_fail(node, "%g is outside %g to %g", v, min, max);
    *out = v;
    return 0;
}

int lh_yaml_bool(const struct lh_yaml_node *node, bool *out)
{
    if (!node)
        return 0;
    LH_TRY(scalar(node, "true or false"));
    if (strcasecmp(node->text, "true") == 0 || strcasecmp(node->text, "yes") == 0)
        *out = true;
    else if (strcasecmp(node->text, "false") == 0 || strcasecmp(node->text, "no") == 0)
        *out = false;
    else
        return lh_yaml_fail(node, "'%s' is neither true nor false", node->text);
    return 0;
}

int lh_yaml_string(const struct lh_yaml_node *node, const char **out)
{
    if (!node)
        return 0;
    LH_TRY(scalar(node, "text"));
    *out = node->text;
    return 0;
}

int lh_yaml_enum(const struct lh_yaml_node *node, const char *const *names, size_t n, int *out)
{
    if (!node)
        return 0;
    LH_TRY(scalar(node, "a word"));
    char all[LH_ERR_MAX / 2] = "";
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(node->text, names[i]) == 0) {
            *out = (int)i;
            return 0;
        }
        if (used < sizeof all)
            used +=
                (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", names[i]);
    }
    return lh_yaml_fail(node, "'%s' is not one of: %s", node->text, all);
}

static size_t edit_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    size_t n = strlen(a), m = strlen(b), row[MAX + 1];
    if (n > MAX || m > MAX)
        return MAX;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t up = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (up + 1 < best)
                best = up + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = up;
            row[j] = best;
        }
    }
    return row[m];
}

#define NEAREST_MAX 60

const char *lh_yaml_nearest(const char *word, const char *const *words, size_t n)
{
    const char *best = NULL;
    size_t best_distance = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(words[i]), longer = len > strlen(word) ? len : strlen(word);
        if (len > NEAREST_MAX)
            continue; /* no name that a person would mistype */
        size_t d = edit_distance(word, words[i]);
        if (d <= len / 3 + 1 && d < longer && (!best || d < best_distance)) {
            best = words[i];
            best_distance = d;
        }
    }
    return best;
}

void lh_yaml_write_text(FILE *to, const char *s)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/.-";
    if (*s && *s != '-' && strspn(s, plain) == strlen(s)) {
        fputs(s, to);
        return;
    }
    fputc('"', to);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(to, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            fprintf(to, "\\x%02x", c);
        else
            fputc(c, to);
    }
    fputc('"', to);
}

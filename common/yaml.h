/* YAML documents as trees whose nodes know their line, so that every complaint about a config or a
 * schema can say where. A reader of libyaml's events; anchors, aliases and tags are refused (a
 * config needs none, and aliases are how a small file becomes a large one).
 *
 *     struct lh_yaml *doc = NULL;
 *     LH_TRY(lh_yaml_load_file(&doc, "job.yaml"));
 *     const struct lh_yaml_node *train = lh_yaml_get(lh_yaml_root(doc), "train");
 *     LH_TRY_TO(fail, lh_yaml_check_keys(train, KEYS, N_KEYS));          // "job.yaml:7: …"
 *     LH_TRY_TO(fail, lh_yaml_int(lh_yaml_get(train, "batch"), 1, 1 << 20, &batch));
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum lh_yaml_kind { LH_YAML_SCALAR, LH_YAML_SEQUENCE, LH_YAML_MAPPING };

struct lh_yaml_node {
    enum lh_yaml_kind kind;
    const char *key;             /* in a mapping; NULL elsewhere */
    const char *text;            /* of a scalar; NULL elsewhere */
    bool plain;                  /* scalar written without quotes */
    size_t line;                 /* 1-based; 0 for a node that came from --set */
    size_t n;                    /* children */
    struct lh_yaml_node *child;  /* first child */
    struct lh_yaml_node *next;   /* sibling */
    struct lh_yaml_node *parent; /* NULL at the root */
    struct lh_yaml *doc;
};

struct lh_yaml;

/* Errors: LH_ENOENT, LH_EIO; LH_ECONFIG with "file:line: …" for broken YAML, a repeated key, an
 * alias, nesting beyond 32, or more than one document. An empty file is an empty mapping. */
int lh_yaml_load_file(struct lh_yaml **out, const char *path);
int lh_yaml_load_text(struct lh_yaml **out, const char *text, size_t n, const char *name);
void lh_yaml_destroy(struct lh_yaml **doc);

const struct lh_yaml_node *lh_yaml_root(const struct lh_yaml *doc); /* never NULL */
const char *lh_yaml_name(const struct lh_yaml *doc);

/* Child of a mapping by key, NULL if absent or if `map` is NULL or no mapping. A dotted path
 * descends: "train.batch". */
const struct lh_yaml_node *lh_yaml_get(const struct lh_yaml_node *map, const char *path);

/* Overlays "a.b.c=value" (what --set takes): value is parsed as YAML (so 3, [1, 2], {x: 1} work);
 * mappings on the way are made. Errors: LH_EUSAGE for a bad assignment. */
int lh_yaml_set(struct lh_yaml *doc, const char *assignment);

/* Complains about the first key of `map` that is not among `keys`, naming the nearest that is. A
 * NULL map is fine; a node that is no mapping is an error. */
int lh_yaml_check_keys(const struct lh_yaml_node *map, const char *const *keys, size_t n);

/* LH_ECONFIG with "file:line: key.path: " in front. `node` may be the root. */
int lh_yaml_fail(const struct lh_yaml_node *node, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Typed readers. A NULL node leaves *out as it is and returns 0 (so defaults are set first).
 * Bounds are inclusive. Errors: LH_ECONFIG that names key, value, what was expected. */
int lh_yaml_int(const struct lh_yaml_node *node, int64_t min, int64_t max, int64_t *out);
int lh_yaml_double(const struct lh_yaml_node *node, double min, double max, double *out);
int lh_yaml_bool(const struct lh_yaml_node *node, bool *out);          /* true/false/yes/no */
int lh_yaml_string(const struct lh_yaml_node *node, const char **out); /* lives with doc */
/* *out = index into `names`. */
int lh_yaml_enum(const struct lh_yaml_node *node, const char *const *names, size_t n, int *out);
int lh_yaml_expect(const struct lh_yaml_node *node, enum lh_yaml_kind kind);

/* The word of `words` nearest to `word` by edit distance; NULL if none is near enough to help. */
const char *lh_yaml_nearest(const char *word, const char *const *words, size_t n);

/* Writes a text so that it reads back as it is: plain where that is safe, else in double quotes. */
void lh_yaml_write_text(FILE *to, const char *s);

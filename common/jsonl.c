/* JSON lines. The wanted names are a trie; the parser walks the line once and carries the trie's
 * node along, NULL where nothing below is wanted. It recurses by nesting, which is bounded. */
#include "common/jsonl.h"

#include "common/err.h"
#include "common/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64

struct node {
    char *key;
    size_t bytes;
    long index;                /* key as a number, -1 if it is none */
    size_t field;              /* SIZE_MAX: no name ends here */
    struct node *child, *next; /* first child; sibling */
};

struct lh_jsonl {
    struct node root;
    size_t n;
};

static void free_node(struct node *n)
{
    while (n) {
        struct node *next = n->next;
        free_node(n->child); /* as deep as a name has dots */
        lh_mem_free(n->key);
        lh_mem_free(n);
        n = next;
    }
}

static int child_of(struct node *parent, const char *key, size_t bytes, struct node **out)
{
    struct node **at = &parent->child;
    for (; *at; at = &(*at)->next) {
        if ((*at)->bytes == bytes && memcmp((*at)->key, key, bytes) == 0) {
            *out = *at;
            return 0;
        }
    }
    struct node *n = NULL;
    void *copy;
    LH_TRY(LH_NEW(&n, "JSON names"));
    int rc = lh_mem_alloc(&copy, bytes + 1, 1, "JSON names");
    if (rc < 0) {
        lh_mem_free(n);
        return rc;
    }
    n->key = copy;
    memcpy(n->key, key, bytes);
    n->bytes = bytes;
    n->field = SIZE_MAX;
    n->index = bytes > 0 && bytes < 10 && strspn(n->key, "0123456789") == bytes
                   ? strtol(n->key, NULL, 10)
                   : -1;
    *at = n;
    *out = n;
    return 0;
}

static int add_name(struct lh_jsonl *j, const char *name, size_t field)
{
    struct node *n;
    LH_TRY(child_of(&j->root, name, strlen(name), &n)); /* the key as it stands */
    n->field = field;
    const char *dot = strchr(name, '.');
    if (!dot)
        return 0;
    n = &j->root;
    for (const char *p = name;; p = dot + 1) {
        dot = strchr(p, '.');
        LH_TRY(child_of(n, p, dot ? (size_t)(dot - p) : strlen(p), &n));
        if (!dot)
            break;
    }
    n->field = field;
    return 0;
}

int lh_jsonl_create(struct lh_jsonl **out, const char *const *names, size_t n)
{
    struct lh_jsonl *j = NULL;
    int rc;
    LH_TRY(LH_NEW(&j, "JSON names"));
    j->n = n;
    for (size_t i = 0; i < n; i++)
        LH_TRY_TO(fail, add_name(j, names[i], i));
    *out = j;
    return 0;
fail:
    lh_jsonl_destroy(&j);
    return rc;
}

void lh_jsonl_destroy(struct lh_jsonl **j)
{
    if (!*j)
        return;
    free_node((*j)->root.child);
    lh_mem_free(*j);
    *j = NULL;
}

/* --- parsing --------------------------------------------------------------------------------- */

struct parser {
    const char *p, *end;
    struct lh_field *fields;
    const char *wrong;
};

static bool fail(struct parser *s, const char *what)
{
    if (!s->wrong)
        s->wrong = what;
    return false;
}

static void blanks(struct parser *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\r' || *s->p == '\n'))
        s->p++;
}

static bool parse_string(struct parser *s, struct lh_field *f)
{
    s->p++;
    *f = (struct lh_field){.text = s->p, .kind = LH_FIELD_QUOTED};
    for (; s->p < s->end; s->p++) {
        unsigned char c = (unsigned char)*s->p;
        if (c == '"') {
            f->n = (size_t)(s->p++ - f->text);
            return true;
        }
        if (c < 0x20)
            return fail(s, "a control character in a string");
        if (c == '\\') {
            f->escape = LH_ESCAPE_JSON;
            if (++s->p == s->end)
                break;
        }
    }
    return fail(s, "a string without an end");
}

static bool parse_plain(struct parser *s, struct lh_field *f)
{
    const char *start = s->p;
    while (s->p < s->end && (unsigned char)*s->p > ' ' && !strchr(",]}:{[\"", *s->p))
        s->p++;
    *f = (struct lh_field){.text = start, .n = (size_t)(s->p - start), .kind = LH_FIELD_PLAIN};
    if (f->n == 4 && memcmp(start, "null", 4) == 0) {
        *f = (struct lh_field){.kind = LH_FIELD_ABSENT};
        return true;
    }
    if ((f->n == 4 && memcmp(start, "true", 4) == 0) ||
        (f->n == 5 && memcmp(start, "false", 5) == 0) ||
        (f->n == 3 && memcmp(start, "NaN", 3) == 0)) /* as Python writes it */
        return true;
    if (f->n > 0 && (*start == '-' || (*start >= '0' && *start <= '9')))
        return true;
    s->p = start;
    return fail(s, "no value where one is expected");
}

static const struct node *find_key(const struct node *n, const struct lh_field *key,
                                   const struct node **guess)
{
    if (!n || key->escape != LH_ESCAPE_NONE) /* a key in escapes is not looked for */
        return NULL;
    /* keys mostly come in the order of the line before */
    const struct node *first = *guess ? *guess : n->child;
    for (const struct node *c = first; c; c = c->next) {
        if (c->bytes == key->n && memcmp(c->key, key->text, key->n) == 0) {
            *guess = c->next;
            return c;
        }
    }
    for (const struct node *c = n->child; c != first; c = c->next) {
        if (c->bytes == key->n && memcmp(c->key, key->text, key->n) == 0) {
            *guess = c->next;
            return c;
        }
    }
    return NULL;
}

static bool parse_value(struct parser *s, const struct node *n, int depth);

static bool parse_object(struct parser *s, const struct node *n, int depth)
{
    const struct node *guess = NULL;
    s->p++;
    blanks(s);
    if (s->p < s->end && *s->p == '}') {
        s->p++;
        return true;
    }
    for (;;) {
        struct lh_field key;
        blanks(s);
        if (s->p == s->end || *s->p != '"')
            return fail(s, "a key in quotes is expected");
        if (!parse_string(s, &key))
            return false;
        blanks(s);
        if (s->p == s->end || *s->p != ':')
            return fail(s, "':' is expected");
        s->p++;
        if (!parse_value(s, find_key(n, &key, &guess), depth))
            return false;
        blanks(s);
        if (s->p < s->end && *s->p == ',') {
            s->p++;
            continue;
        }
        if (s->p == s->end || *s->p != '}')
            return fail(s, "',' or '}' is expected");
        s->p++;
        return true;
    }
}

static const struct node *find_index(const struct node *n, long index, const struct node **guess)
{
    if (!n)
        return NULL;
    const struct node *first = *guess ? *guess : n->child;
    for (const struct node *c = first; c; c = c->next) {
        if (c->index == index) {
            *guess = c->next;
            return c;
        }
        if (*guess)
            break; /* ascending names match at once; do not search the rest for each element */
    }
    for (const struct node *c = n->child; c; c = c->next) {
        if (c->index == index) {
            *guess = c->next;
            return c;
        }
    }
    return NULL;
}

static bool parse_array(struct parser *s, const struct node *n, int depth)
{
    const struct node *guess = NULL;
    s->p++;
    blanks(s);
    if (s->p < s->end && *s->p == ']') {
        s->p++;
        return true;
    }
    for (long index = 0;; index++) {
        if (!parse_value(s, find_index(n, index, &guess), depth))
            return false;
        blanks(s);
        if (s->p < s->end && *s->p == ',') {
            s->p++;
            continue;
        }
        if (s->p == s->end || *s->p != ']')
            return fail(s, "',' or ']' is expected");
        s->p++;
        return true;
    }
}

static bool parse_value(struct parser *s, const struct node *n, int depth)
{
    struct lh_field f = {.kind = LH_FIELD_NESTED};
    blanks(s);
    if (s->p == s->end)
        return fail(s, "the line ends in the middle of a value");
    f.text = s->p;
    bool ok;
    if (*s->p == '{' || *s->p == '[') {
        if (depth >= DEPTH_MAX)
            return fail(s, "nested too deep");
        ok = *s->p == '{' ? parse_object(s, n, depth + 1) : parse_array(s, n, depth + 1);
        f.n = (size_t)(s->p - f.text);
    } else {
        ok = *s->p == '"' ? parse_string(s, &f) : parse_plain(s, &f);
    }
    if (ok && n && n->field != SIZE_MAX)
        s->fields[n->field] = f;
    return ok;
}

const char *lh_jsonl_parse(const struct lh_jsonl *j, const char *text, size_t n,
                           struct lh_field *fields, size_t *at)
{
    struct parser s = {.p = text, .end = text + n, .fields = fields};
    for (size_t i = 0; i < j->n; i++)
        fields[i] = (struct lh_field){.kind = LH_FIELD_ABSENT};
    blanks(&s);
    if (s.p == s.end || *s.p != '{')
        fail(&s, "an object '{…}' is expected");
    else if (parse_object(&s, &j->root, 1)) {
        blanks(&s);
        if (s.p < s.end)
            fail(&s, "something follows the object");
    }
    *at = (size_t)(s.p - text);
    return s.wrong;
}

/* The table of items: ids in one text block, embeddings in one matrix. */
#include "cluster/items.h"

#include "cluster/fields.h"
#include "cluster/lines.h"
#include "common/err.h"
#include "common/mem.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct lh_items {
    size_t n, width;
    float *e; /* [n, width] */
    size_t e_cap;
    char *ids; /* NUL-terminated, one after the other */
    size_t ids_n, ids_cap;
    size_t *id_at; /* [n] */
    size_t id_cap;
};

struct loader {
    struct lh_items *items;
    const char *const *names;
    struct lh_fields fields;
    size_t *column; /* [width] field of component j */
};

/* A header has no number in its second field. */
static bool is_header(const struct lh_fields *f)
{
    float x;
    return f->n > 1 && lh_fields_number(f->field[1], &x) < 0;
}

/* Finds the columns by name; where they are named otherwise they keep their order. */
static int read_header(struct loader *l)
{
    size_t found = 0;
    for (size_t j = 0; l->names && j < l->items->width; j++) {
        for (size_t c = 1; c < l->fields.n; c++) {
            if (strcmp(l->fields.field[c], l->names[j]) == 0) {
                l->column[j] = c;
                found++;
                break;
            }
        }
    }
    if (found == l->items->width)
        return 0;
    if (found > 0)
        return lh_err_set(LH_EMISMATCH, "%zu of the %zu action columns are in the header", found,
                          l->items->width);
    for (size_t j = 0; j < l->items->width; j++)
        l->column[j] = j + 1;
    return 0;
}

static int add_item(struct loader *l)
{
    struct lh_items *t = l->items;
    const struct lh_fields *f = &l->fields;
    size_t length = strlen(f->field[0]) + 1;
    if (length == 1)
        return lh_err_set(LH_EFORMAT, "the id is empty");
    LH_TRY(LH_GROW(&t->e, &t->e_cap, (t->n + 1) * t->width, "items"));
    LH_TRY(LH_GROW(&t->ids, &t->ids_cap, t->ids_n + length, "items"));
    LH_TRY(LH_GROW(&t->id_at, &t->id_cap, t->n + 1, "items"));
    for (size_t j = 0; j < t->width; j++) {
        size_t c = l->column[j];
        if (c >= f->n || lh_fields_number(f->field[c], &t->e[t->n * t->width + j]) < 0)
            return lh_err_set(LH_EFORMAT, "column %zu: '%.40s' is not a finite number", c + 1,
                              c < f->n ? f->field[c] : "");
    }
    memcpy(t->ids + t->ids_n, f->field[0], length);
    t->id_at[t->n++] = t->ids_n;
    t->ids_n += length;
    return 0;
}

static int take_line(struct loader *l, char *line, bool first)
{
    LH_TRY(lh_fields_split(&l->fields, line, ','));
    if (first && is_header(&l->fields))
        return read_header(l);
    if (l->fields.n < l->items->width + 1)
        return lh_err_set(LH_EMISMATCH, "%zu columns; an id and %zu numbers are needed",
                          l->fields.n, l->items->width);
    return add_item(l);
}

static int load(struct loader *l, struct lh_lines *lines)
{
    char *line;
    size_t n;
    int rc;
    bool first = true;
    while ((rc = lh_lines_next(lines, &line, &n)) == 0) {
        if (n == 0)
            continue;
        rc = take_line(l, line, first);
        if (rc < 0)
            return lh_err_prefix(rc, "%s:%zu", lh_lines_name(lines), lh_lines_number(lines));
        first = false;
    }
    if (rc == LH_NOTFOUND && l->items->n == 0)
        return lh_err_set(LH_EFORMAT, "%s: no items", lh_lines_name(lines));
    return rc == LH_NOTFOUND ? 0 : rc;
}

int lh_items_load(struct lh_items **out, const char *path, const char *const *names, size_t width)
{
    struct loader l = {.names = names};
    struct lh_lines *lines = NULL;
    int rc;
    LH_TRY(LH_NEW(&l.items, "items"));
    l.items->width = width;
    LH_TRY_TO(done, LH_NEW_ARRAY(&l.column, width, "items"));
    for (size_t j = 0; j < width; j++)
        l.column[j] = j + 1;
    LH_TRY_TO(done, lh_lines_open(&lines, path));
    LH_TRY_TO(done, load(&l, lines));
    *out = l.items;
    l.items = NULL;
done:
    lh_lines_close(&lines);
    lh_fields_fini(&l.fields);
    lh_mem_free(l.column);
    lh_items_destroy(&l.items);
    return rc;
}

void lh_items_destroy(struct lh_items **items)
{
    if (!*items)
        return;
    lh_mem_free((*items)->e);
    lh_mem_free((*items)->ids);
    lh_mem_free((*items)->id_at);
    lh_mem_free(*items);
    *items = NULL;
}

/* Eight sums side by side, so that the compiler may use vectors without reordering a sum. */
static float dot(const float *restrict a, const float *restrict b, size_t n)
{
    float part[8] = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t k = 0; k < 8; k++)
            part[k] += a[i + k] * b[i + k];
    for (size_t k = 0; i < n; i++, k++)
        part[k] += a[i] * b[i];
    return ((part[0] + part[4]) + (part[2] + part[6])) +
           ((part[1] + part[5]) + (part[3] + part[7]));
}

size_t lh_items_rank(const struct lh_items *items, const float *action, size_t k,
                     struct lh_item_score *out)
{
    size_t n = 0;
    for (size_t i = 0; i < items->n; i++) {
        float score = dot(items->e + i * items->width, action, items->width);
        if (n == k && !(score > out[n - 1].score))
            continue;
        size_t at = n < k ? n++ : n - 1; /* the worst makes room; insertion keeps them in order */
        for (; at > 0 && score > out[at - 1].score; at--)
            out[at] = out[at - 1];
        out[at] = (struct lh_item_score){.id = items->ids + items->id_at[i], .score = score};
    }
    return n;
}

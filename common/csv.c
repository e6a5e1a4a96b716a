/* Delimited text. Bytes are looked at 64 at a time: a mask says where a separator or a line end
 * may be, and fields are cut from bit to bit, so that the cost is that of the fields and not that
 * of their bytes. Only a field that opens with a quote leaves that path. */
#include "common/csv.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

static uint64_t mask_of(const char *p, char a, char b)
{
    uint64_t mask = 0;
#ifdef __SSE2__
    const __m128i va = _mm_set1_epi8(a), vb = _mm_set1_epi8(b);
    for (int i = 0; i < 4; i++) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i));
        __m128i hit = _mm_or_si128(_mm_cmpeq_epi8(x, va), _mm_cmpeq_epi8(x, vb));
        mask |= (uint64_t)(uint32_t)_mm_movemask_epi8(hit) << (16 * i);
    }
#else
    for (int i = 0; i < 64; i++)
        mask |= (uint64_t)(p[i] == a || p[i] == b) << i;
#endif
    return mask;
}

static void load(struct lh_csv_cursor *c, const char *block)
{
    size_t left = (size_t)(c->end - block);
    char tail[64];
    c->block = block;
    if (left >= 64) {
        c->mask = mask_of(block, c->csv->separator[0], '\n');
        return;
    }
    memcpy(tail, block, left);
    memset(tail + left, 0, sizeof tail - left);
    c->mask = mask_of(tail, c->csv->separator[0], '\n');
    c->mask &= (UINT64_C(1) << left) - 1; /* the separator may be a NUL */
}

/* Goes on at p, which is not before the block. */
static void seek(struct lh_csv_cursor *c, const char *p)
{
    if (p >= c->end) {
        c->block = c->end;
        c->mask = 0;
        return;
    }
    size_t at = (size_t)(p - c->data);
    const char *block = c->data + at / 64 * 64;
    if (block != c->block)
        load(c, block);
    c->mask &= ~UINT64_C(0) << at % 64;
}

/* The next separator byte or line end; `end` if there is none. */
static inline const char *next_mark(struct lh_csv_cursor *c)
{
    while (c->mask == 0) {
        if (c->end - c->block <= 64) {
            c->block = c->end;
            return c->end;
        }
        load(c, c->block + 64);
    }
    const char *p = c->block + __builtin_ctzll(c->mask);
    c->mask &= c->mask - 1;
    return p;
}

void lh_csv_begin(struct lh_csv_cursor *c, const struct lh_csv *csv, const char *data, size_t n,
                  size_t line)
{
    *c = (struct lh_csv_cursor){.csv = csv,
                                .data = data,
                                .end = data + n,
                                .at = data,
                                .block = data + n,
                                .line = line,
                                .next_line = line};
    if (n > 0)
        load(c, data);
}

static bool is_separator(const struct lh_csv_cursor *c, const char *p)
{
    size_t n = c->csv->separator_bytes;
    return n == 1 || ((size_t)(c->end - p) >= n && memcmp(p, c->csv->separator, n) == 0);
}

/* An unquoted field from `start`; returns the mark that ends it. */
static inline const char *plain_field(struct lh_csv_cursor *c, const char *start)
{
    for (;;) {
        const char *p = next_mark(c);
        /* a mark before `start` is a later byte of a long separator */
        if (p == c->end || (p >= start && (*p == '\n' || is_separator(c, p))))
            return p;
    }
}

/* A field whose quote is at `start`; returns what ends it, or NULL. */
static const char *quoted_field(struct lh_csv_cursor *c, const char *start, struct lh_field *f,
                                enum lh_csv_result *wrong)
{
    const char quote = (char)c->csv->quote;
    const char *p = start + 1;
    *f = (struct lh_field){.text = p, .kind = LH_FIELD_QUOTED, .quote = quote};
    for (;;) {
        p = memchr(p, quote, (size_t)(c->end - p));
        if (!p) {
            *wrong = LH_CSV_OPEN_QUOTE;
            return NULL;
        }
        if (p + 1 == c->end || p[1] != quote)
            break;
        f->escape = LH_ESCAPE_CSV;
        p += 2;
        if (p == c->end) {
            *wrong = LH_CSV_OPEN_QUOTE;
            return NULL;
        }
    }
    f->n = (size_t)(p - f->text);
    for (const char *q = f->text; (q = memchr(q, '\n', (size_t)(p - q))); q++)
        c->next_line++;
    p++;
    if (p < c->end && *p == '\r' && (p + 1 == c->end || p[1] == '\n'))
        p++;
    if (p < c->end && *p != '\n' && !(*p == c->csv->separator[0] && is_separator(c, p))) {
        *wrong = LH_CSV_BEHIND_QUOTE;
        seek(c, p);
        return NULL;
    }
    seek(c, p < c->end ? p + 1 : p);
    return p;
}

static void pass_line(struct lh_csv_cursor *c)
{
    const char *p;
    do
        p = next_mark(c);
    while (p < c->end && *p != '\n');
    c->at = p < c->end ? p + 1 : p;
}

enum lh_csv_result lh_csv_next(struct lh_csv_cursor *c, struct lh_field *fields, size_t max,
                               size_t *n)
{
    const int quote = c->csv->quote;
    struct lh_field unused;
    enum lh_csv_result wrong;
    while (c->at < c->end) {
        const char *start = c->at, *mark;
        size_t k = 0;
        bool blank = true;
        c->line = c->next_line++;
        for (;;) {
            struct lh_field *f = k < max ? &fields[k] : &unused;
            if (quote >= 0 && start < c->end && *start == (char)quote) {
                blank = false;
                mark = quoted_field(c, start, f, &wrong);
                if (!mark) {
                    if (wrong == LH_CSV_OPEN_QUOTE)
                        c->at = c->end;
                    else
                        pass_line(c);
                    return wrong;
                }
            } else {
                mark = plain_field(c, start);
                size_t length = (size_t)(mark - start);
                if (length > 0 && mark[-1] == '\r' && (mark == c->end || *mark == '\n'))
                    length--;
                *f = (struct lh_field){.text = start, .n = length, .kind = LH_FIELD_PLAIN};
                blank &= k == 0 && length == 0;
            }
            k++;
            if (mark == c->end || *mark == '\n')
                break;
            blank = false;
            start = mark + c->csv->separator_bytes;
        }
        c->at = mark < c->end ? mark + 1 : mark;
        if (!blank) {
            *n = k;
            return LH_CSV_RECORD;
        }
    }
    return LH_CSV_END;
}

size_t lh_csv_border(const struct lh_csv *csv, const char *data, size_t n)
{
    if (csv->quote < 0 || !memchr(data, csv->quote, n)) {
        const char *last = n ? memrchr(data, '\n', n) : NULL;
        return last ? (size_t)(last + 1 - data) : 0;
    }
    struct lh_csv_cursor c;
    size_t fields, border = 0;
    lh_csv_begin(&c, csv, data, n, 1);
    for (;;) {
        enum lh_csv_result r = lh_csv_next(&c, NULL, 0, &fields);
        if (r == LH_CSV_END || r == LH_CSV_OPEN_QUOTE)
            break;
        if (c.at < c.end || data[n - 1] == '\n')
            border = (size_t)(c.at - data);
    }
    return border;
}

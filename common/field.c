/* Escapes inside fields, resolved only for the few fields that have any and are wanted. */
#include "common/field.h"

#include "common/err.h"
#include "common/mem.h"

#include <string.h>

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static bool hex4(const char *p, const char *end, uint32_t *out)
{
    if (end - p < 4)
        return false;
    *out = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        uint32_t v = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                            : 16;
        if (v == 16)
            return false;
        *out = *out << 4 | v;
    }
    return true;
}

/* p is behind "\u". Returns where the escape ends. */
static const char *unicode(const char *p, const char *end, uint32_t *c)
{
    uint32_t low;
    if (!hex4(p, end, c)) {
        *c = 0xfffd;
        return p;
    }
    p += 4;
    if (*c >= 0xd800 && *c < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u' &&
        hex4(p + 2, end, &low) && low >= 0xdc00 && low < 0xe000) {
        *c = 0x10000 + ((*c - 0xd800) << 10) + (low - 0xdc00);
        return p + 6;
    }
    if (*c >= 0xd800 && *c < 0xe000)
        *c = 0xfffd;
    return p;
}

static size_t unescape_json(const struct lh_field *f, char *out)
{
    static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
    const char *p = f->text, *end = p + f->n;
    size_t n = 0;
    while (p < end) {
        if (*p != '\\' || p + 1 == end) {
            out[n++] = *p++;
            continue;
        }
        char c = p[1];
        p += 2;
        const char *known = c ? strchr(from, c) : NULL;
        if (c == 'u') {
            uint32_t code;
            p = unicode(p, end, &code);
            n += put_utf8(out + n, code);
        } else {
            out[n++] = known ? to[known - from] : c;
        }
    }
    return n;
}

static size_t unescape_csv(const struct lh_field *f, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) {
        out[n++] = f->text[i];
        if (f->text[i] == f->quote && i + 1 < f->n && f->text[i + 1] == f->quote)
            i++;
    }
    return n;
}

int lh_field_resolve(const struct lh_field *f, char **scratch, size_t *cap, const char **text,
                     size_t *n)
{
    *text = f->text;
    *n = f->n;
    if (f->escape == LH_ESCAPE_NONE)
        return 0;
    /* no escape grows: \uXXXX is 6 bytes for at most 3, a pair 12 for 4; a broken one 2 for 3 */
    LH_TRY(LH_GROW(scratch, cap, 2 * f->n + 4, "a field"));
    *n = f->escape == LH_ESCAPE_CSV ? unescape_csv(f, *scratch) : unescape_json(f, *scratch);
    *text = *scratch;
    return 0;
}

/* common/csv: byte 0 says which separator and quote, the rest is the text. */
#include "common/csv.h"

#include "common/parse.h"
#include "tests/fuzz/fuzzkit.h"

enum { FIELDS = 8 };

static void read_field(const struct lh_field *f, const char *begin, const char *end, char **scratch,
                       size_t *cap)
{
    const char *text;
    size_t n;
    double x;
    int64_t t;
    fuzzkit_require(f->text >= begin && f->text + f->n <= end, "a field lies in the text");
    if (lh_field_resolve(f, scratch, cap, &text, &n) != 0)
        return;
    fuzzkit_touch(text, n);
    lh_parse_double(text, n, &x);
    lh_parse_time(text, n, LH_TIME_ISO8601, &t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct lh_csv forms[] = {
        {",", 1, '"'}, {"\t", 1, -1}, {"::", 2, '"'}, {";", 1, '\''}};
    if (size == 0)
        return 0;
    const struct lh_csv *csv = &forms[data[0] % 4];
    const char *text = (const char *)data + 1, *end = (const char *)data + size;
    struct lh_csv_cursor c;
    struct lh_field fields[FIELDS];
    char *scratch = NULL;
    size_t cap = 0, n, last = 0, records = 0;
    enum lh_csv_result r;
    lh_csv_begin(&c, csv, text, size - 1, 1);
    while ((r = lh_csv_next(&c, fields, FIELDS, &n)) != LH_CSV_END) {
        fuzzkit_require(++records <= size, "records come to an end");
        fuzzkit_require(c.line > last, "lines rise");
        last = c.line;
        if (r == LH_CSV_OPEN_QUOTE)
            break;
        for (size_t i = 0; r == LH_CSV_RECORD && i < n && i < FIELDS; i++)
            read_field(&fields[i], text, end, &scratch, &cap);
    }
    const size_t border = lh_csv_border(csv, text, size - 1);
    fuzzkit_require(border <= size - 1, "the border lies in the text");
    lh_mem_free(scratch);
    return 0;
}

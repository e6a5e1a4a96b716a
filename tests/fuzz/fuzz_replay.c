/* A fuzz target's main where there is no fuzzing engine: runs every file of the corpus, then inputs
 * made of them by seeded mutations, for a bounded time. The n-th mutation is the same in every run,
 * and is written beside the program when it ends the process.
 *
 *     fuzz_csv CORPUS [SECONDS [FIRST]]     FIRST: number of the first mutation, to repeat one
 */
#include "tests/fuzz/fuzzkit.h"

#include "common/rng.h"

#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FILES_MAX = 512, SIZE_MAX_INPUT = 64 << 10, ROUNDS_MAX = 8 };

struct input {
    size_t n;
    unsigned char *bytes;
};

struct corpus {
    size_t n;
    struct input file[FILES_MAX];
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool load(struct corpus *c, const char *dir)
{
    struct dirent **names = NULL;
    int n = scandir(dir, &names, NULL, by_name);
    bool ok = n >= 0;
    for (int i = 0; i < n; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
        FILE *f = names[i]->d_name[0] != '.' && c->n < FILES_MAX ? fopen(path, "rb") : NULL;
        free(names[i]);
        if (!f)
            continue;
        struct input *in = &c->file[c->n++];
        in->bytes = malloc(SIZE_MAX_INPUT);
        in->n = in->bytes ? fread(in->bytes, 1, SIZE_MAX_INPUT, f) : 0;
        fclose(f);
    }
    free(names);
    return ok && c->n > 0;
}

/* The input is a block of exactly its size, so that ASan sees the first byte beyond. */
static void run(const unsigned char *bytes, size_t n)
{
    unsigned char *copy = malloc(n ? n : 1);
    if (!copy)
        abort();
    memcpy(copy, bytes, n);
    const uint64_t live = lh_mem_live();
    LLVMFuzzerTestOneInput(copy, n);
    fuzzkit_require(lh_mem_live() == live, "all memory is released");
    free(copy);
}

/* --- mutations ----------------------------------------------------------------------------------
 */
struct draw {
    struct lh_rng_at at;
    uint64_t i;
};

static size_t below(struct draw *d, size_t n)
{
    return n ? (size_t)lh_rng_below(&d->at, d->i++, n) : 0;
}

static void insert(struct input *x, size_t at, const void *p, size_t n)
{
    if (n > SIZE_MAX_INPUT - x->n)
        return;
    memmove(x->bytes + at + n, x->bytes + at, x->n - at);
    memcpy(x->bytes + at, p, n);
    x->n += n;
}

static void overwrite_number(struct input *x, struct draw *d)
{
    static const uint64_t special[] = {0,         1,          UINT64_MAX, INT64_MAX, UINT32_MAX,
                                       INT32_MAX, UINT16_MAX, 255,        127,       128,
                                       64,        1u << 16,   1ull << 32, 1ull << 62};
    const size_t width = (size_t)1 << below(d, 4);
    uint64_t v = special[below(d, sizeof special / sizeof *special)];
    if (x->n < width)
        return;
    size_t at = below(d, x->n - width + 1);
    if (below(d, 2)) /* headers keep numbers at even places */
        at -= at % width;
    if (below(d, 3) == 0) {
        memcpy(&v, x->bytes + at, width);
        v += below(d, 2) ? 1 + below(d, 16) : -(uint64_t)(1 + below(d, 16));
    }
    memcpy(x->bytes + at, &v, width);
}

static void overwrite_digits(struct input *x, struct draw *d)
{
    static const char *const texts[] = {"0",
                                        "-1",
                                        "18446744073709551616",
                                        "9223372036854775807",
                                        "1e999",
                                        "nan",
                                        "1e-40",
                                        "null",
                                        "4294967296",
                                        "0.1",
                                        "-",
                                        "\"\"",
                                        "[]",
                                        "{}",
                                        "\xff\xfe",
                                        "\\u0000"};
    const char *t = texts[below(d, sizeof texts / sizeof *texts)];
    size_t at = below(d, x->n + 1);
    while (at < x->n && (x->bytes[at] < '0' || x->bytes[at] > '9'))
        at++;
    size_t end = at;
    while (end < x->n && x->bytes[end] >= '0' && x->bytes[end] <= '9')
        end++;
    memmove(x->bytes + at, x->bytes + end, x->n - end);
    x->n -= end - at;
    insert(x, at, t, strlen(t));
}

static void mutate(struct input *x, const struct corpus *c, struct draw *d)
{
    const struct input *other = &c->file[below(d, c->n)];
    size_t at = below(d, x->n + 1), n;
    switch (below(d, 9)) {
    case 0: /* a bit */
        if (at < x->n)
            x->bytes[at] ^= (unsigned char)(1u << below(d, 8));
        break;
    case 1: /* a byte */
        if (at < x->n)
            x->bytes[at] = (unsigned char)below(d, 256);
        break;
    case 2: /* cut short */
        x->n = at;
        break;
    case 3: /* a stretch taken out */
        n = below(d, x->n - at + 1);
        n = n > 64 && below(d, 4) ? n % 64 : n;
        memmove(x->bytes + at, x->bytes + at + n, x->n - at - n);
        x->n -= n;
        break;
    case 4: { /* a stretch of another */
        const size_t from = below(d, other->n + 1);
        n = below(d, other->n - from + 1);
        insert(x, at, other->bytes + from, n > 256 && below(d, 4) ? n % 256 : n);
        break;
    }
    case 5: { /* a stretch again and again */
        unsigned char part[32];
        n = x->n - at < sizeof part ? x->n - at : 1 + below(d, sizeof part);
        memcpy(part, x->bytes + at, n);
        for (size_t k = 1 + below(d, 40); k > 0; k--)
            insert(x, at, part, n);
        break;
    }
    case 6:
        overwrite_digits(x, d);
        break;
    default:
        overwrite_number(x, d);
    }
}

/* --- the last input, for whoever looks at a crash -----------------------------------------------
 */
static struct input at_hand;
static char crash_path[256];

static void write_crash(int signal_number)
{
    FILE *f = fopen(crash_path, "wb");
    if (f) {
        fwrite(at_hand.bytes, 1, at_hand.n, f);
        fclose(f);
        fprintf(stderr, "the input is in %s\n", crash_path);
    }
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

int main(int argc, char **argv)
{
    static struct corpus corpus;
    if (argc < 2 || argc > 4 || !load(&corpus, argv[1])) {
        fprintf(stderr, "usage: %s CORPUS [SECONDS [FIRST]]: a directory that is not empty\n",
                argv[0]);
        return 2;
    }
    const double seconds = argc > 2 ? strtod(argv[2], NULL) : 2;
    const uint64_t first = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    snprintf(crash_path, sizeof crash_path, "%s.crash", argv[0]);
    signal(SIGABRT, write_crash);
    for (size_t i = 0; i < corpus.n; i++) {
        at_hand = corpus.file[i];
        run(corpus.file[i].bytes, corpus.file[i].n);
    }
    at_hand.bytes = malloc(SIZE_MAX_INPUT);
    if (!at_hand.bytes)
        return 1;
    uint64_t i = first;
    for (double until = now() + seconds; now() < until; i++) {
        struct draw d = {.at = {.seed = 20260, .step = i}};
        const struct input *from = &corpus.file[below(&d, corpus.n)];
        memcpy(at_hand.bytes, from->bytes, from->n);
        at_hand.n = from->n;
        for (size_t k = 1 + below(&d, ROUNDS_MAX); k > 0; k--)
            mutate(&at_hand, &corpus, &d);
        run(at_hand.bytes, at_hand.n);
    }
    printf("%s: %zu files, %llu mutations\n", argv[0], corpus.n, (unsigned long long)(i - first));
    free(at_hand.bytes);
    for (size_t k = 0; k < corpus.n; k++)
        free(corpus.file[k].bytes);
    return 0;
}

/* Rows as text. Numbers have at most six decimals, written by our own integer arithmetic: exact for
 * what they round to, and many times faster than printf. */
#include "worker/sim_csv.h"

#include "common/err.h"
#include "common/mem.h"

#include <archive.h>
#include <archive_entry.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NUMBER_MAX 24 /* characters of one number and its comma */
#define ROW_MAX    (NUMBER_MAX * (7 + LH_SIM_HIGH + LH_SIM_LOW + LH_SIM_ACTION))
#define DECIMALS   6
#define SCALE      1000000

void lh_sim_csv_reset(struct sim_csv *c)
{
    c->n = 0;
}

void lh_sim_csv_fini(struct sim_csv *c)
{
    lh_mem_free(c->text);
    lh_mem_free(c->packed);
    memset(c, 0, sizeof *c);
}

int lh_sim_csv_header(struct sim_csv *c)
{
    char line[2048];
    size_t n = (size_t)snprintf(line, sizeof line, "user_id,session_id,time,request");
    for (int group = 0; group < 3; group++) {
        size_t width = group == 0 ? LH_SIM_HIGH : group == 1 ? LH_SIM_LOW : LH_SIM_ACTION;
        for (size_t i = 0; i < width; i++)
            n += (size_t)snprintf(line + n, sizeof line - n, ",%s", lh_sim_names(group)[i]);
    }
    n += (size_t)snprintf(line + n, sizeof line - n, ",reward,session_length,return_hours\n");
    LH_TRY(LH_GROW(&c->text, &c->cap, c->n + n, "text of a log"));
    memcpy(c->text + c->n, line, n);
    c->n += n;
    return 0;
}

static char *put_integer(char *p, uint64_t x)
{
    char digits[20];
    int n = 0;
    do {
        digits[n++] = (char)('0' + x % 10);
        x /= 10;
    } while (x);
    while (n)
        *p++ = digits[--n];
    return p;
}

/* Six decimals, trailing zeros left out. |x| < 2^43. */
static char *put_number(char *p, double x)
{
    int64_t scaled = (int64_t)floor(x * SCALE + 0.5);
    if (scaled < 0)
        *p++ = '-';
    uint64_t u = (uint64_t)(scaled < 0 ? -scaled : scaled);
    p = put_integer(p, u / SCALE);
    uint32_t rest = (uint32_t)(u % SCALE);
    if (rest == 0)
        return p;
    *p++ = '.';
    for (uint32_t unit = SCALE / 10; rest; unit /= 10) {
        *p++ = (char)('0' + rest / unit);
        rest %= unit;
    }
    return p;
}

static char *put_floats(char *p, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        *p++ = ',';
        p = put_number(p, (double)x[i]);
    }
    return p;
}

int lh_sim_csv_life(struct sim_csv *c, uint64_t user, const struct sim_life *life)
{
    LH_TRY(LH_GROW(&c->text, &c->cap, c->n + life->n * ROW_MAX, "text of a log"));
    char *p = c->text + c->n;
    for (size_t i = 0; i < life->n; i++) {
        p = put_integer(p, user);
        *p++ = ',';
        p = put_integer(p, life->session[i]);
        *p++ = ',';
        p = put_integer(p, (uint64_t)life->time_us[i] / 1000000); /* steps take whole seconds */
        *p++ = ',';
        p = put_integer(p, life->position[i]);
        p = put_floats(p, life->high + i * LH_SIM_HIGH, LH_SIM_HIGH);
        p = put_floats(p, life->low + i * LH_SIM_LOW, LH_SIM_LOW);
        p = put_floats(p, life->action + i * LH_SIM_ACTION, LH_SIM_ACTION);
        *p++ = ',';
        p = put_number(p, (double)life->reward[i]);
        *p++ = ',';
        if (life->length[i])
            p = put_integer(p, life->length[i]);
        *p++ = ',';
        if (life->length[i])
            p = put_number(p, life->gap[i]);
        *p++ = '\n';
    }
    c->n = (size_t)(p - c->text);
    return 0;
}

static int gzip(struct archive *a, struct archive_entry *e, struct sim_csv *c, size_t *used)
{
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_pathname(e, "log");
    archive_entry_set_size(e, (int64_t)c->n);
    /* No time of day in the header, and no padding behind: the same bytes every time. */
    if (archive_write_set_format_raw(a) != ARCHIVE_OK ||
        archive_write_add_filter_gzip(a) != ARCHIVE_OK ||
        archive_write_set_filter_option(a, "gzip", "timestamp", NULL) != ARCHIVE_OK ||
        archive_write_set_filter_option(a, "gzip", "compression-level", "3") != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(a, 0) != ARCHIVE_OK ||
        archive_write_open_memory(a, c->packed, c->packed_cap, used) != ARCHIVE_OK ||
        archive_write_header(a, e) != ARCHIVE_OK ||
        archive_write_data(a, c->text, c->n) != (la_ssize_t)c->n ||
        archive_write_close(a) != ARCHIVE_OK)
        return lh_err_set(LH_EIO, "simulate: compressing failed: %s", archive_error_string(a));
    return 0;
}

int lh_sim_csv_gzip(struct sim_csv *c)
{
    if (c->n == 0)
        return 0;
    LH_TRY(LH_GROW(&c->packed, &c->packed_cap, c->n + c->n / 100 + 1024, "compressed log"));
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    size_t used = 0;
    int rc = a && e ? gzip(a, e, c, &used)
                    : lh_err_set(LH_ENOMEM, "simulate: out of memory for compressing");
    archive_entry_free(e);
    archive_write_free(a);
    LH_TRY(rc);
    char *text = c->text;
    size_t cap = c->cap;
    c->text = c->packed;
    c->cap = c->packed_cap;
    c->n = used;
    c->packed = text;
    c->packed_cap = cap;
    return 0;
}

/* Appends to the text; short pieces. */
__attribute__((format(printf, 2, 3))) static int say(struct sim_csv *c, const char *fmt, ...)
{
    char piece[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(piece, sizeof piece, fmt, args);
    va_end(args);
    LH_TRY(LH_GROW(&c->text, &c->cap, c->n + (size_t)n + 1, "schema of a log"));
    memcpy(c->text + c->n, piece, (size_t)n + 1);
    c->n += (size_t)n;
    return 0;
}

static size_t width_of(int group)
{
    return group == 0 ? LH_SIM_HIGH : group == 1 ? LH_SIM_LOW : LH_SIM_ACTION;
}

static int say_columns(struct sim_csv *c)
{
    LH_TRY(say(c, "columns:\n  user_id: id\n  session_id: id\n  time: {type: time, unit: s}\n"));
    for (int group = 0; group < 3; group++)
        for (size_t i = 0; i < width_of(group); i++)
            LH_TRY(say(c, "  %s: number\n", lh_sim_names(group)[i]));
    return say(c, "  earned: {type: number, from: reward}\n\n");
}

static int say_features(struct sim_csv *c)
{
    static const char *const keys[3] = {"state_high", "state_low", "action"};
    static const char *const about[3] = {"who the user is, and what earlier sessions left behind",
                                         "the request: its topic, how the session has been so far",
                                         "taste is to fit the user, lure calls"};
    for (int group = 0; group < 3; group++) {
        LH_TRY(say(c, "# %s\n%s:\n", about[group], keys[group]));
        for (size_t i = 0; i < width_of(group); i++)
            LH_TRY(say(c, "  - {column: %s}\n", lh_sim_names(group)[i]));
        LH_TRY(say(c, "\n"));
    }
    return 0;
}

static int say_schema(struct sim_csv *c, const struct lh_sim_log *log)
{
    LH_TRY(say(c,
               "# The log of a simulated world.\n#   longhaul import schema.yaml --out dataset\n"
               "name: simulation\nseed: %llu\n\ninput:\n  files: [\"log-*.csv%s\"]\n\n",
               (unsigned long long)log->seed, log->gzip ? ".gz" : ""));
    LH_TRY(say_columns(c));
    LH_TRY(say(c, "# A user is one trajectory through its sessions. The log ends where it was cut, "
                  "not because users left.\ntrajectory:\n  user: user_id\n  session: session_id\n"
                  "  time: time\n  end: cut_off\n\n"));
    LH_TRY(say(c, "split: {train: %.6g%%, validation: %.6g%%, test: rest}\n",
               100.0 * (1.0 - log->validation - log->test), 100.0 * log->validation));
    LH_TRY(say(c, "partition: {by_day: %s, hash: %u}\nbad_rows: {max: 0}\n\n",
               log->by_day ? "true" : "false", log->hash_partitions));
    LH_TRY(say(c, "# ResAct Eq. 21 and 22, 0.7 : 0.3, with the averages that users have in the "
                  "world. A log of the\n# same form without this column would say:\n"
                  "#   reward: {mix: [{weight: 0.7, rule: {return_time: {}}}, {weight: 0.3, rule: "
                  "{session_length: {}}}]}\nreward:\n  column: earned\n\n"));
    return say_features(c);
}

int lh_sim_csv_schema(const struct lh_sim *sim, const struct lh_sim_log *log, char **out)
{
    struct sim_csv c = {0};
    char *world = NULL;
    int rc;
    LH_TRY_TO(fail, say_schema(&c, log));
    LH_TRY_TO(fail, lh_sim_yaml(sim, "  ", &world));
    LH_TRY_TO(fail,
              say(&c, "# the world, so that policies can be played in it\nsimulation:\n%s", world));
    lh_mem_free(world);
    *out = c.text;
    return 0;
fail:
    lh_mem_free(world);
    lh_sim_csv_fini(&c);
    return rc;
}

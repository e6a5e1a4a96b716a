/* Raw sockets and lines of text. */
#include "tests/scrapekit.h"

#include "tests/testkit.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define LINE 1024

int scrapekit_connect(const char *endpoint)
{
    char host[64];
    unsigned port = 0;
    assert_int_equal(sscanf(endpoint, "%63[0-9.]:%u", host, &port), 2);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    assert_int_equal(inet_pton(AF_INET, host, &at.sin_addr), 1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 30};
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) != 0)
        fail_msg("%s: cannot connect", endpoint);
    return fd;
}

char *scrapekit_ask(const char *endpoint, const char *request)
{
    int fd = scrapekit_connect(endpoint);
    size_t n = 0, cap = 1 << 20;
    char *text = malloc(cap + 1);
    assert_non_null(text);
    ssize_t k = send(fd, request, strlen(request), MSG_NOSIGNAL);
    (void)k; /* who refuses may close before all is sent */
    while (n < cap && (k = recv(fd, text + n, cap - n, 0)) > 0)
        n += (size_t)k;
    text[n] = '\0';
    close(fd);
    return text;
}

char *scrapekit_get(const char *endpoint, const char *path)
{
    char request[256];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, endpoint);
    char *text = scrapekit_ask(endpoint, request);
    if (strncmp(text, "HTTP/1.1 200 ", 13) != 0)
        fail_msg("GET %s: %.200s", path, text);
    char *body = strstr(text, "\r\n\r\n");
    assert_non_null(body);
    memmove(text, body + 4, strlen(body + 4) + 1);
    return text;
}

bool scrapekit_value(const char *page, const char *series, double *out)
{
    size_t n = strlen(series);
    for (const char *at = page; (at = strstr(at, series)); at += n) {
        if ((at != page && at[-1] != '\n') || at[n] != ' ')
            continue;
        *out = strtod(at + n + 1, NULL);
        return true;
    }
    return false;
}

double scrapekit_of(const char *page, const char *series)
{
    double x = 0;
    if (!scrapekit_value(page, series, &x))
        fail_msg("no %s in:\n%s", series, page);
    return x;
}

double scrapekit_lacking(const char *page, unsigned shard, const char *le)
{
    const char *at = page, *name = "longhaul_push_staleness_steps_bucket{role=\"server\"";
    char of_shard[32], of_le[32];
    snprintf(of_shard, sizeof of_shard, "shard=\"%u\"", shard);
    snprintf(of_le, sizeof of_le, "le=\"%s\"} ", le);
    while ((at = strstr(at, name))) {
        const char *end = strchr(at, '\n'), *s = strstr(at, of_shard), *l = strstr(at, of_le);
        if (s && s < end && l && l < end)
            return strtod(l + strlen(of_le), NULL);
        at = end;
    }
    fail_msg("no bucket %s of shard %u", le, shard);
    return 0;
}

double scrapekit_taken_over(const char *page)
{
    const char *at = page, *name = "\nlonghaul_taken_over_total{role=\"server\"";
    double sum = 0;
    while ((at = strstr(at, name))) {
        sum += strtod(strchr(at, '}') + 1, NULL);
        at += strlen(name);
    }
    return sum;
}

/* --- the format --------------------------------------------------------------------------------
 */
/* Past name{label="value",…}; NULL if it is not one. */
static const char *skip_series(const char *s)
{
    if (!isalpha((unsigned char)*s) && *s != '_')
        return NULL;
    while (isalnum((unsigned char)*s) || *s == '_' || *s == ':')
        s++;
    if (*s != '{')
        return s;
    do {
        s++;
        if (!isalpha((unsigned char)*s) && *s != '_')
            return NULL;
        while (isalnum((unsigned char)*s) || *s == '_')
            s++;
        if (strncmp(s, "=\"", 2) != 0)
            return NULL;
        for (s += 2; *s != '"'; s++) {
            if (*s == '\n' || *s == '\0')
                return NULL;
            if (*s == '\\' && !strchr("\\\"n", *++s))
                return NULL;
        }
        s++;
    } while (*s == ',');
    return *s == '}' ? s + 1 : NULL;
}

struct reader {
    char family[256], type[32], last[LINE]; /* series without `le`, and its last bucket */
    double bucket;
};

static bool belongs(const struct reader *r, const char *series)
{
    size_t n = strlen(r->family);
    if (strncmp(series, r->family, n) != 0)
        return false;
    const char *rest = series + n;
    if (strcmp(r->type, "histogram") != 0)
        return *rest == '{' || *rest == '\0';
    return strncmp(rest, "_bucket{", 8) == 0 || strncmp(rest, "_sum", 4) == 0 ||
           strncmp(rest, "_count", 6) == 0;
}

static void check_bucket(struct reader *r, const char *series, double value)
{
    char stem[LINE];
    const char *le = strstr(series, "le=\"");
    if (!le)
        return;
    snprintf(stem, sizeof stem, "%.*s", (int)(le - series), series);
    if (strcmp(stem, r->last) == 0 && value < r->bucket)
        fail_msg("a bucket falls: %s %g after %g", series, value, r->bucket);
    snprintf(r->last, sizeof r->last, "%s", stem);
    r->bucket = value;
}

static void check_sample(struct reader *r, const char *page, const char *line, const char *later)
{
    char series[LINE], *end;
    const char *behind = skip_series(line);
    if (!behind || *behind != ' ')
        fail_msg("not a sample: %s", line);
    snprintf(series, sizeof series, "%.*s", (int)(behind - line), line);
    double value = strtod(behind + 1, &end), then;
    if (end == behind + 1 || *end)
        fail_msg("not a value: %s", line);
    if (!belongs(r, series))
        fail_msg("%s stands outside its family (after TYPE of %s)", line, r->family);
    size_t n = strlen(series), seen = 0;
    for (const char *at = page; (at = strstr(at, series)); at += n)
        seen += (at == page || at[-1] == '\n') && at[n] == ' ';
    if (seen != 1)
        fail_msg("%s is there %zu times", series, seen);
    if (strcmp(r->type, "histogram") == 0)
        check_bucket(r, series, value);
    if (later && strcmp(r->type, "gauge") != 0 && scrapekit_value(later, series, &then) &&
        then < value)
        fail_msg("%s fell from %.17g to %.17g", series, value, then);
}

static void check_line(struct reader *r, const char *page, const char *line, const char *later)
{
    char name[256], type[32];
    if (strncmp(line, "# HELP ", 7) == 0) {
        if (sscanf(line, "# HELP %255s %31s", r->family, type) != 2)
            fail_msg("help without a text: %s", line);
        r->type[0] = '\0';
    } else if (sscanf(line, "# TYPE %255s %31s", name, type) == 2) {
        if (strcmp(name, r->family) != 0 || r->type[0] ||
            (strcmp(type, "counter") && strcmp(type, "gauge") && strcmp(type, "histogram")))
            fail_msg("%s, after the help of %s", line, r->family);
        char again[300];
        snprintf(again, sizeof again, "# TYPE %s ", name);
        const char *first = strstr(page, again);
        if (!first || strstr(first + 1, again))
            fail_msg("%s is declared twice", name);
        snprintf(r->type, sizeof r->type, "%s", type);
    } else {
        check_sample(r, page, line, later);
    }
}

void scrapekit_check(const char *page, const char *later)
{
    struct reader r = {0};
    size_t n = strlen(page);
    assert_true(n > 0 && page[n - 1] == '\n');
    for (const char *at = page; *at;) {
        char line[LINE];
        size_t k = strcspn(at, "\n");
        assert_true(k < sizeof line);
        memcpy(line, at, k);
        line[k] = '\0';
        check_line(&r, page, line, later);
        at += k + 1;
    }
}

/* common/http: what it serves, whom it refuses, what strangers can take. */
#include "common/http.h"

#include "common/term.h"
#include "tests/scrapekit.h"
#include "tests/testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int write_page(void *ctx, char **out, size_t *n)
{
    const char *text = ctx;
    *n = strlen(text);
    return lh_mem_strdup(out, text);
}

static int write_failure(void *ctx, char **out, size_t *n)
{
    (void)ctx;
    (void)out;
    (void)n;
    return lh_err_set(LH_ENOMEM, "no memory for this page");
}

static const struct lh_http_page pages[] = {{"/page", "text/x-test", write_page},
                                            {"/fails", "text/x-test", write_failure}};
static char text[] = "what it says\n";

static struct lh_http *serve(void)
{
    struct lh_http *h = NULL;
    assert_ok(lh_http_start(&h, "127.0.0.1:0", pages, 2, text));
    return h;
}

static void expect_answer(struct lh_http *h, const char *request, const char *status,
                          const char *contains)
{
    char *said = scrapekit_ask(lh_http_endpoint(h), request);
    if (strncmp(said, status, strlen(status)) != 0)
        fail_msg("%.60s: %.300s", request, said);
    kit_assert_contains(said, contains);
    free(said);
}

static void request_for_a_page_is_answered(void **state)
{
    (void)state;
    struct lh_http *h = serve();
    char *said = scrapekit_get(lh_http_endpoint(h), "/page");
    assert_string_equal(said, text);
    free(said);
    expect_answer(h, "GET /page?seconds=1 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ",
                  "Content-Type: text/x-test\r\n");
    said = scrapekit_ask(lh_http_endpoint(h), "HEAD /page HTTP/1.1\r\nHost: x\r\n\r\n");
    kit_assert_contains(said, "HTTP/1.1 200 ");
    kit_assert_contains(said, "Content-Length: 13\r\n");
    assert_null(strstr(said, text));
    free(said);
    lh_http_stop(&h);
    assert_null(h);
    lh_http_stop(&h);
}

static void request_for_anything_else_is_refused(void **state)
{
    (void)state;
    struct lh_http *h = serve();
    expect_answer(h, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 ", "no such page");
    expect_answer(h, "GET /page/../page HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 ", "no such");
    expect_answer(h, "GET /page%00 HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 ", "");
    expect_answer(h, "DELETE /page HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 ",
                  "Allow: GET, HEAD\r\n");
    expect_answer(h, "POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\nabc",
                  "HTTP/1.1 405 ", "only GET and HEAD");
    expect_answer(h, "GET /fails HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 503 ",
                  "no memory for this page");
    lh_http_stop(&h);
}

/* Nonsense is closed upon or called bad, and the next one is served. */
static void request_that_is_hostile_harms_nobody(void **state)
{
    (void)state;
    struct lh_http *h = serve();
    size_t n = 1 << 20;
    char *long_one = malloc(n + 1);
    assert_non_null(long_one);
    memset(long_one, 'a', n);
    long_one[n] = '\0';
    memcpy(long_one, "GET /", 5);
    const char *const bad[] = {"\r\n\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
                               "GET /page HTTP/9.9\r\n\r\n", "GET\r\n\r\n", long_one};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = scrapekit_connect(lh_http_endpoint(h));
        char said[256] = "";
        send(fd, bad[i], strlen(bad[i]), MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR);
        ssize_t k = recv(fd, said, sizeof said - 1, 0);
        if (k > 0 && strstr(said, text))
            fail_msg("request %zu was served: %s", i, said);
        close(fd);
        char *good = scrapekit_get(lh_http_endpoint(h), "/page");
        assert_string_equal(good, text);
        free(good);
    }
    free(long_one);
    lh_http_stop(&h);
}

/* More connections than are taken, none of which says anything: those beyond are closed, and when
 * the others have timed out there is room again. */
static void connections_that_say_nothing_are_bounded_and_end(void **state)
{
    (void)state;
    enum { MANY = 24 };
    struct lh_http *h = serve();
    int fd[MANY];
    for (int i = 0; i < MANY; i++) {
        fd[i] = scrapekit_connect(lh_http_endpoint(h));
        send(fd[i], "GET", 3, MSG_NOSIGNAL);
    }
    int ended = 0;
    for (int i = 0; i < MANY; i++) {
        char c;
        ended += recv(fd[i], &c, 1, 0) <= 0; /* the server's doing: 30 s would be ours */
        close(fd[i]);
    }
    assert_int_equal(ended, MANY);
    /* the server may hear a moment later that they are gone: until then it takes no other */
    char *said = NULL;
    for (double until = lh_now() + 60; !said && lh_now() < until;) {
        said = scrapekit_ask(lh_http_endpoint(h), "GET /page HTTP/1.1\r\nHost: h\r\n\r\n");
        if (!strstr(said, text)) {
            free(said);
            said = NULL;
        }
    }
    assert_non_null(said);
    free(said);
    lh_http_stop(&h);
}

/* Each says a word now and then, which no time limit catches. */
static void crowd_that_lingers_keeps_nobody_out(void **state)
{
    (void)state;
    enum { MANY = 40 };
    struct lh_http *h = serve();
    int fd[MANY];
    for (int i = 0; i < MANY; i++) {
        fd[i] = scrapekit_connect(lh_http_endpoint(h));
        send(fd[i], "GET /page", 9, MSG_NOSIGNAL);
    }
    for (int turn = 0; turn < 3; turn++) {
        double began = lh_now();
        char *said = scrapekit_get(lh_http_endpoint(h), "/page");
        assert_string_equal(said, text);
        assert_true(lh_now() - began < 4); /* they are silent for 5 s at most */
        free(said);
        for (int i = 0; i < MANY; i++)
            send(fd[i], "a", 1, MSG_NOSIGNAL);
    }
    for (int i = 0; i < MANY; i++)
        close(fd[i]);
    lh_http_stop(&h);
}

static void start_takes_addresses_and_says_what_is_none(void **state)
{
    (void)state;
    struct lh_http *h = NULL;
    const char *const good[] = {"0", "localhost:0", "0.0.0.0:0"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(lh_http_check(good[i]));
        assert_ok(lh_http_start(&h, good[i], pages, 2, text));
        kit_assert_contains(lh_http_endpoint(h), i == 2 ? "0.0.0.0:" : "127.0.0.1:");
        lh_http_stop(&h);
    }
    assert_ok(lh_http_check("[::1]:9464"));
    const char *const bad[] = {"",           ":",           ":1",         "localhost",
                               "1.2.3.4:",   "1.2.3.4:x",   "::1:9464",   "example.com:80",
                               "1.2.3.4:-1", "1.2.3:4:5:6", "host:70000", "tcp://127.0.0.1:9464"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_err(lh_http_check(bad[i]), LH_ECONFIG, "expected [ADDRESS:]PORT");
        assert_err(lh_http_start(&h, bad[i], pages, 2, text), LH_ECONFIG, "expected");
        assert_null(h);
    }
}

static void start_at_an_address_in_use_says_so(void **state)
{
    (void)state;
    struct lh_http *h = serve(), *other = NULL;
    assert_err(lh_http_start(&other, lh_http_endpoint(h), pages, 2, text), LH_EBUSY, "in use");
    assert_err(lh_http_start(&other, "203.0.113.1:0", pages, 2, text), LH_ECONFIG,
               "no such address");
    assert_null(other);
    lh_http_stop(&h);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, kit_setup, kit_teardown)
    const struct CMUnitTest tests[] = {
        TEST(request_for_a_page_is_answered),
        TEST(request_for_anything_else_is_refused),
        TEST(request_that_is_hostile_harms_nobody),
        TEST(connections_that_say_nothing_are_bounded_and_end),
        TEST(crowd_that_lingers_keeps_nobody_out),
        TEST(start_takes_addresses_and_says_what_is_none),
        TEST(start_at_an_address_in_use_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

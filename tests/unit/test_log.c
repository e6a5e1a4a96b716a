/* common/log: lines to the letter, whatever is in them; and what a run says in each format. */
#include "common/log.h"

#include "common/term.h"
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

static int kept = -1;

/* Standard error goes to a file until heard(). */
static void listen_in(void)
{
    fflush(stderr);
    kept = dup(STDERR_FILENO);
    int fd = open(kit_path("said"), O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0666);
    assert_true(kept >= 0 && fd >= 0);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static char *heard(void)
{
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    lh_log_setup(LH_LOG_TEXT, LH_LOG_INFO);
    return kit_read(kit_path("said"), NULL);
}

/* Behind the time, whose form is checked. */
static const char *behind_time(const char *line, const char *before)
{
    size_t n = strlen(before);
    assert_int_equal(strncmp(line, before, n), 0);
    const char *t = line + n, *form = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; form[i]; i++)
        if (form[i] == 'd' ? t[i] < '0' || t[i] > '9' : t[i] != form[i])
            fail_msg("not a time: %s", t);
    return t + strlen(form);
}

static void say_all(void)
{
    const char *const odd = "a \"b\"\\\n\t\x01\x7f \xc3\xa4 \xff\xc0\xaf";
    lh_log_event(LH_LOG_INFO, "first", NULL);
    struct lh_log_who before = lh_log_as((struct lh_log_who){.role = "worker", .node = 3});
    lh_log_tell(LH_LOG_WARN, "second",
                LH_FIELDS(LH_F("whole", UINT64_MAX), LH_F("small", 7), LH_F("share", 0.25),
                          LH_F("word", "tcp://[::1]:*"), LH_F("path", "/a/b-c.d"),
                          LH_F("empty", ""), LH_F("odd", odd), LH_F("flag", (bool)true),
                          LH_F("none", NAN)),
                "it's %d", 42);
    lh_log_as(before);
    lh_note("plain %s", "note");
    lh_log_event(LH_LOG_DEBUG, "hidden", NULL);
}

static void line_in_logfmt_is_exact(void **state)
{
    (void)state;
    listen_in();
    lh_log_setup(LH_LOG_LOGFMT, LH_LOG_INFO);
    say_all();
    char *text = heard(), *line = strtok(text, "\n");
    assert_string_equal(behind_time(line, "time="), " level=info event=first");
    line = strtok(NULL, "\n");
    assert_string_equal(
        behind_time(line, "time="),
        " level=warn role=worker node=3 event=second whole=18446744073709551615 small=7 share=0.25 "
        "word=\"tcp://[::1]:*\" path=/a/b-c.d empty=\"\" "
        "odd=\"a \\\"b\\\"\\\\\\n\\t\\u0001\\u007f \xc3\xa4 \\ufffd\\ufffd\\ufffd\" flag=true "
        "none=nan msg=\"it's 42\"");
    line = strtok(NULL, "\n");
    assert_string_equal(behind_time(line, "time="), " level=info event=note msg=\"plain note\"");
    assert_null(strtok(NULL, "\n"));
    free(text);
}

static void line_in_json_is_exact(void **state)
{
    (void)state;
    listen_in();
    lh_log_setup(LH_LOG_JSON, LH_LOG_INFO);
    say_all();
    char *text = heard(), *line = strtok(text, "\n");
    assert_string_equal(behind_time(line, "{\"time\":\""),
                        "\",\"level\":\"info\",\"event\":\"first\"}");
    line = strtok(NULL, "\n");
    assert_string_equal(
        behind_time(line, "{\"time\":\""),
        "\",\"level\":\"warn\",\"role\":\"worker\",\"node\":3,\"event\":\"second\","
        "\"whole\":18446744073709551615,\"small\":7,\"share\":0.25,\"word\":\"tcp://[::1]:*\","
        "\"path\":\"/a/b-c.d\",\"empty\":\"\","
        "\"odd\":\"a \\\"b\\\"\\\\\\n\\t\\u0001\\u007f \xc3\xa4 \\ufffd\\ufffd\\ufffd\","
        "\"flag\":true,\"none\":null,\"msg\":\"it's 42\"}");
    cJSON *o = cJSON_Parse(line);
    assert_non_null(o);
    cJSON_Delete(o);
    assert_non_null(strtok(NULL, "\n"));
    assert_null(strtok(NULL, "\n"));
    free(text);
}

static void line_in_text_is_for_people(void **state)
{
    (void)state;
    listen_in();
    say_all();
    char *text = heard();
    assert_string_equal(text, "longhaul: it's 42\nlonghaul: plain note\n");
    free(text);
    /* nobody's text steers the terminal */
    listen_in();
    lh_note("of %s", "\033[2J\r\n\tthem");
    text = heard();
    assert_string_equal(text, "longhaul: of ?[2J?\n\tthem\n");
    free(text);
    /* who debugs sees the rest too */
    listen_in();
    lh_log_setup(LH_LOG_TEXT, LH_LOG_DEBUG);
    lh_log_event(LH_LOG_DEBUG, "written", LH_FIELDS(LH_F("step", 5), LH_F("why", "a b")));
    text = heard();
    assert_string_equal(text, "longhaul: written step=5 why=\"a b\"\n");
    free(text);
}

static void level_keeps_lesser_lines_back(void **state)
{
    (void)state;
    static const char *const names[] = {"error", "warn", "info", "debug"};
    for (int most = LH_LOG_ERROR; most <= LH_LOG_DEBUG; most++) {
        listen_in();
        lh_log_setup(LH_LOG_LOGFMT, (enum lh_log_level)most);
        for (int level = LH_LOG_ERROR; level <= LH_LOG_DEBUG; level++)
            lh_log_event((enum lh_log_level)level, names[level], NULL);
        char *text = heard();
        for (int level = LH_LOG_ERROR; level <= LH_LOG_DEBUG; level++) {
            char name[32];
            snprintf(name, sizeof name, "event=%s\n", names[level]);
            assert_int_equal(strstr(text, name) != NULL, level <= most);
        }
        free(text);
    }
}

/* Cut within its bounds, and still a line and an object. */
static void value_without_end_is_cut(void **state)
{
    (void)state;
    size_t n = 100000;
    char *huge = malloc(n + 1);
    assert_non_null(huge);
    memset(huge, '\x01', n);
    huge[n] = '\0';
    for (int format = LH_LOG_TEXT; format <= LH_LOG_JSON; format++) {
        listen_in();
        lh_log_setup((enum lh_log_format)format, LH_LOG_INFO);
        lh_log_tell(LH_LOG_INFO, "huge",
                    LH_FIELDS(LH_F("a", huge), LH_F("b", huge), LH_F("c", 1), LH_F("d", huge)),
                    "%s", huge);
        char *text = heard(), *end = strchr(text, '\n');
        assert_non_null(end);
        assert_string_equal(end, "\n");
        assert_true(end - text < 8192);
        if (format == LH_LOG_JSON) {
            cJSON *o = cJSON_Parse(text);
            assert_non_null(o);
            assert_true(cJSON_IsString(cJSON_GetObjectItem(o, "a")));
            cJSON_Delete(o);
        }
        free(text);
    }
    free(huge);
}

static void *talk(void *arg)
{
    lh_log_as((struct lh_log_who){.role = "worker", .node = *(const uint32_t *)arg});
    for (int i = 0; i < 500; i++)
        lh_log_event(LH_LOG_INFO, "tick",
                     LH_FIELDS(LH_F("i", i), LH_F("text", "so it is \"told\"")));
    return NULL;
}

static void lines_of_several_threads_do_not_mix(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    uint32_t nodes[THREADS];
    unsigned lines = 0, of[THREADS] = {0};
    listen_in();
    lh_log_setup(LH_LOG_JSON, LH_LOG_INFO);
    uint64_t before = lh_mem_count();
    for (uint32_t i = 0; i < THREADS; i++) {
        nodes[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, talk, &nodes[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(lh_mem_count(), before);
    char *text = heard();
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        cJSON *o = cJSON_Parse(line);
        if (!o)
            fail_msg("not one event: %s", line);
        unsigned node = (unsigned)cJSON_GetObjectItem(o, "node")->valuedouble;
        assert_true(node < THREADS);
        assert_int_equal((unsigned)cJSON_GetObjectItem(o, "i")->valuedouble, of[node]);
        of[node]++;
        cJSON_Delete(o);
    }
    assert_int_equal(lines, THREADS * 500);
    free(text);
}

static void environment_decides_before_a_job(void **state)
{
    (void)state;
    static const char *const bad[] = {"xml", "json,", "json,loud", ",info", "json,info,x", "JSON"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("LONGHAUL_LOG", bad[i], 1);
        assert_err(lh_log_environment(), LH_EUSAGE, "expected text, logfmt or json");
    }
    setenv("LONGHAUL_LOG", "", 1);
    assert_ok(lh_log_environment());
    lh_log_adopt(LH_LOG_LOGFMT, LH_LOG_INFO);
    assert_int_equal(lh_log_format_now(), LH_LOG_LOGFMT);
    setenv("LONGHAUL_LOG", "json,error", 1);
    assert_ok(lh_log_environment());
    lh_log_adopt(LH_LOG_LOGFMT, LH_LOG_DEBUG);
    assert_int_equal(lh_log_format_now(), LH_LOG_JSON);
    unsetenv("LONGHAUL_LOG");
    lh_log_setup(LH_LOG_TEXT, LH_LOG_INFO);
}

/* --- a run -------------------------------------------------------------------------------------
 */
/* Whether some line is of that event, by that role, and holds that field (NULL: any). */
static bool has_event(cJSON *const *lines, size_t n, const char *role, const char *event,
                      const char *field)
{
    for (size_t i = 0; i < n; i++) {
        const cJSON *r = cJSON_GetObjectItem(lines[i], "role");
        if (strcmp(cJSON_GetObjectItem(lines[i], "event")->valuestring, event) == 0 &&
            (!role || (r && strcmp(r->valuestring, role) == 0)) &&
            (!field || cJSON_GetObjectItem(lines[i], field)))
            return true;
    }
    return false;
}

static void run_in_json_tells_its_life_an_event_a_line(void **state)
{
    (void)state;
    enum { MAX = 400 };
    cJSON *lines[MAX];
    size_t n = 0;
    char *text = NULL;
    trainkit_dataset();
    trainkit_job_file(kit_path("job.yaml"), 12, 4, "log: {format: json, level: debug}\n");
    assert_int_equal(kit_run(NULL,
                             "%s train %s --dir %s --workers 2 --launcher processes "
                             "--no-evaluation 2>%s >/dev/null",
                             PROGRAM, kit_path("job.yaml"), kit_path("run"), kit_path("err")),
                     0);
    text = kit_read(kit_path("err"), NULL);
    for (char *line = strtok(text, "\n"); line && n < MAX; line = strtok(NULL, "\n")) {
        lines[n] = cJSON_Parse(line);
        if (!lines[n] || !cJSON_IsString(cJSON_GetObjectItem(lines[n], "event")) ||
            !cJSON_IsString(cJSON_GetObjectItem(lines[n], "level")) ||
            !cJSON_IsString(cJSON_GetObjectItem(lines[n], "time")))
            fail_msg("not an event: %s", line);
        n++;
    }
    assert_true(has_event(lines, n, "scheduler", "start", "seed"));
    assert_true(has_event(lines, n, "scheduler", "join", "host"));
    assert_true(has_event(lines, n, "worker", "join", "scheduler"));
    assert_true(has_event(lines, n, "server", "join", "scheduler"));
    assert_true(has_event(lines, n, "scheduler", "epoch", "workers"));
    assert_true(has_event(lines, n, "server", "written", "seconds"));
    assert_true(has_event(lines, n, "scheduler", "prepared", "step"));
    assert_true(has_event(lines, n, "scheduler", "checkpoint", "step"));
    assert_true(has_event(lines, n, NULL, "progress", "per_second"));
    assert_true(has_event(lines, n, "worker", "stop", "version"));
    assert_true(has_event(lines, n, "server", "stop", "version"));
    assert_true(has_event(lines, n, "scheduler", "stop", "state"));
    assert_false(has_event(lines, n, NULL, "error", NULL));
    for (size_t i = 0; i < n; i++)
        cJSON_Delete(lines[i]);
    free(text);
}

static void failure_in_logfmt_is_an_error_with_its_code(void **state)
{
    (void)state;
    char *text = NULL;
    assert_int_equal(kit_run(&text, "LONGHAUL_LOG=logfmt " PROGRAM " inspect %s", kit_path("none")),
                     4);
    behind_time(text, "time=");
    kit_assert_contains(text, " level=error event=error code=missing status=4 msg=\"");
    free(text);
    assert_int_equal(kit_run(&text, "LONGHAUL_LOG=loud " PROGRAM " help"), 2);
    kit_assert_contains(text, "longhaul: LONGHAUL_LOG=loud in the environment: expected");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(line_in_logfmt_is_exact),
        kit_test(line_in_json_is_exact),
        kit_test(line_in_text_is_for_people),
        kit_test(level_keeps_lesser_lines_back),
        kit_test(value_without_end_is_cut),
        kit_test(lines_of_several_threads_do_not_mix),
        kit_test(environment_decides_before_a_job),
        kit_test(run_in_json_tells_its_life_an_event_a_line),
        kit_test(failure_in_logfmt_is_an_error_with_its_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

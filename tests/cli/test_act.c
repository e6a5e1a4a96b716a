/* `longhaul act` from outside: the program, run on a snapshot made here from initial weights. */
#include "common/snapshot.h"
#include "tests/testkit.h"
#include "worker/policy.h"

#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"
#define H       2
#define L       3
#define A       2
#define N       4 /* estimators */

static const char *const high_names[H] = {"age", "tenure"};
static const char *const low_names[L] = {"hour", "age", "speed"}; /* age is in both states */
static const char *const action_names[A] = {"e_0", "e_1"};

static void make_snapshot(const char *dir, const char *algorithm)
{
    struct lh_job *job = NULL;
    struct lh_graph *g = NULL;
    struct lh_policy *policy = NULL;
    char text[512];
    snprintf(text, sizeof text,
             "algorithm: %s\nnetwork: {hidden: [16, 16], z_high: 4, z_low: 4}\n"
             "objective: {estimators: %d}\ntrain: {batch: 64, micro_batch: 64}\n"
             "resolved: {high: %d, low: %d, action: %d, classes: 3, dataset_digest: 1}\n",
             algorithm, N, H, L, A);
    assert_ok(lh_job_load_text(&job, text, strlen(text), "t.yaml", NULL));
    assert_ok(lh_graph_create(&g, &(struct lh_graph_spec){.rows = 64, .dims = job->dims}));
    assert_ok(lh_algo_find(algorithm)->declare_train(g, job));
    assert_ok(lh_graph_compile(g));
    struct lh_snapshot s = {.job = job,
                            .high_names = high_names,
                            .low_names = low_names,
                            .action_names = action_names,
                            .cut = "last"};
    float *weights = NULL, high[LH_PROBE_ROWS * H], low[LH_PROBE_ROWS * L],
          probe[LH_PROBE_ROWS * A];
    assert_ok(lh_mem_alloc_aligned((void **)&weights, lh_graph_flat_size(g), sizeof(float), "w"));
    lh_graph_init_params(g, 7, weights);
    s.weights = weights;
    s.params = lh_graph_params(g, &s.n_params);
    assert_ok(lh_norm_init(&s.norm, &job->dims));
    s.norm.action_shift[1] = 10;
    assert_ok(lh_policy_create(&policy, job, &s.norm, s.params, s.n_params, weights));
    lh_snapshot_probe_states(&s.norm, high, low);
    assert_ok(lh_policy_act(policy, high, low, LH_PROBE_ROWS, 0, 0, probe, NULL));
    s.probe = probe;
    assert_ok(lh_snapshot_write(dir, &s, true));
    lh_policy_destroy(&policy);
    lh_norm_fini(&s.norm);
    lh_mem_free(weights);
    lh_graph_destroy(&g);
    lh_job_destroy(&job);
}

/* Five states; age is shared by both. */
static const float age[5] = {30, 41.5f, -3, 0, 1e3f};

static void state_of(size_t i, float high[H], float low[L])
{
    high[0] = low[1] = age[i];
    high[1] = (float)i / 10;
    low[0] = 24 - (float)i;
    low[2] = 0.25f;
}

/* What the library answers, as the program prints it. */
static void expected_csv(char *out, uint64_t seed, size_t estimators)
{
    struct lh_policy *p = NULL;
    float high[5 * H], low[5 * L], action[5 * A];
    assert_ok(lh_policy_open(&p, kit_path("snap")));
    if (estimators)
        assert_ok(lh_policy_set_estimators(p, estimators));
    for (size_t i = 0; i < 5; i++)
        state_of(i, high + i * H, low + i * L);
    assert_ok(lh_policy_act(p, high, low, 5, seed, 0, action, NULL));
    out[0] = '\0';
    for (size_t i = 0; i < 5; i++)
        sprintf(out + strlen(out), "%.9g,%.9g\n", action[i * A], action[i * A + 1]);
    lh_policy_destroy(&p);
}

static void write_states(void)
{
    FILE *plain = fopen(kit_path("plain.csv"), "w"), *named = fopen(kit_path("named.csv"), "w");
    FILE *json = fopen(kit_path("named.jsonl"), "w"), *lists = fopen(kit_path("lists.jsonl"), "w");
    assert_true(plain && named && json && lists);
    fputs("\xef\xbb\xbfspeed, user,tenure,age,hour\r\n", named);
    for (size_t i = 0; i < 5; i++) {
        float h[H], l[L];
        state_of(i, h, l);
        fprintf(plain, "%.9g,%.9g,%.9g,%.9g,%.9g\n", h[0], h[1], l[0], l[1], l[2]);
        fprintf(named, "%.9g,\"u \"\"%zu\"\", x\",%.9g, %.9g ,%.9g\r\n", l[2], i, h[1], h[0], l[0]);
        fprintf(
            json,
            "{\"user\":{\"id\":%zu},\"speed\":%.9g,\"age\":%.9g,\"tenure\":%.9g,\"hour\":%.9g}\n",
            i, l[2], h[0], h[1], l[0]);
        fprintf(lists, "{\"low\":[%.9g,%.9g,%.9g],\"high\":[%.9g,%.9g]}\n", l[0], l[1], l[2], h[0],
                h[1]);
    }
    fclose(plain);
    fclose(named);
    fclose(json);
    fclose(lists);
}

static int setup(void **state)
{
    if (kit_setup(state) < 0)
        return -1;
    make_snapshot(kit_path("snap"), "resact");
    write_states();
    return kit_run(NULL,
                   "cd '%s' && tr , '\\t' < plain.csv > tabs.csv && cat plain.csv plain.csv > "
                   "twice.csv",
                   kit_dir());
}

/* Runs `longhaul act --snapshot snap ARGS` in the test's directory; returns its exit status. */
static int act(char **out, const char *args)
{
    return kit_run(out, "exec </dev/null; cd '%s' && %s act --snapshot snap %s", kit_dir(), PROGRAM,
                   args);
}

static void assert_prints(const char *args, const char *expected)
{
    char *out = NULL;
    int status = act(&out, args);
    if (status != 0 || strcmp(out, expected) != 0)
        fail_msg("act %s: status %d, printed\n%s\nexpected\n%s", args, status, out, expected);
    free(out);
}

static void every_form_of_input_gives_the_librarys_actions(void **state)
{
    (void)state;
    char rows[512], whole[600];
    expected_csv(rows, 0, 0);
    snprintf(whole, sizeof whole, "e_0,e_1\n%s", rows);
    assert_prints("plain.csv", whole);
    assert_prints("named.csv", whole);
    assert_prints("named.jsonl", whole);
    assert_prints("lists.jsonl", whole);
    assert_prints("< plain.csv", whole);
    assert_prints("- < plain.csv", whole);
    assert_prints("--no-header --format csv plain.csv", rows);
    assert_prints("--separator tab --no-header tabs.csv | tr '\\t' ,", rows);
}

static void seed_and_estimators_change_the_actions_as_in_the_library(void **state)
{
    (void)state;
    char zero[512], rows[512];
    expected_csv(zero, 0, 0);
    expected_csv(rows, 9, 0);
    assert_string_not_equal(zero, rows);
    assert_prints("--no-header --seed 9 plain.csv", rows);
    expected_csv(rows, 0, 1);
    assert_prints("--no-header --estimators 1 plain.csv", rows);
}

static void several_files_are_one_stream(void **state)
{
    (void)state;
    char *twice = NULL, *cat = NULL;
    assert_int_equal(act(&twice, "--no-header plain.csv plain.csv"), 0);
    assert_int_equal(act(&cat, "--no-header twice.csv"), 0);
    assert_string_equal(twice, cat);
    free(twice);
    free(cat);
    assert_int_equal(act(&twice, "--no-header named.csv lists.jsonl plain.csv | wc -l"), 0);
    assert_string_equal(twice, "15\n");
    free(twice);
}

static void kept_columns_pass_through(void **state)
{
    (void)state;
    char *out = NULL;
    assert_int_equal(act(&out, "--keep user named.csv | cut -d, -f1-2 | head -2"), 0);
    assert_string_equal(out, "user,e_0\n\"u \"\"0\"\", x\"\n");
    free(out);
    assert_int_equal(act(&out, "--keep user --out-format jsonl named.jsonl | head -1"), 0);
    kit_assert_contains(out, "{\"user\":{\"id\":0},\"action\":[");
    free(out);
    assert_int_equal(act(&out, "--keep user --out-format jsonl named.csv | head -1"), 0);
    kit_assert_contains(out, "{\"user\":\"u \\\"0\\\", x\",\"action\":[");
    free(out);
    assert_int_equal(act(&out, "--keep nobody named.csv"), 3);
    kit_assert_contains(out, "longhaul: named.csv:1: --keep nobody: the header has no such column");
    free(out);
}

static void bad_lines_name_file_line_and_reason(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *complaint;
    } cases[] = {
        {"1,2,3,4,x5\n", "bad:1: the header has no column 'age'"},
        {"1,2,3,4,5\n1,2,3,4\n", "bad:2: 4 columns instead of 5"},
        {"1,2,3,4,5\n\n1,2,3,nan,5\n", "bad:3: column 'age': 'nan' is not a finite number"},
        {"1,2,3,4,5\n1,2,3,,5\n", "bad:2: column 'age' is empty"},
        {"1,2,3,4,5\n1,2,3,4,1e99\n", "'1e99' is not a finite number"},
        {"1,2,3,4,5\n1,2,3,4,\"5\n", "bad:2: field 5: the quote is not closed"},
        {"1,2,3\n", "bad:1: 3 columns without a header, the snapshot needs 5 numbers"},
        {"age,tenur,hour,speed\n", "no column 'tenure', which the snapshot needs; is it 'tenur'?"},
        {"age,age,tenure,hour,speed\n", "column 'age' twice"},
        {"{\"high\":[1,2],\"low\":[1,2,3]}\n{\"high\":[1],\"low\":[1,2,3]}\n",
         "bad:2: 'high' must be a list of 2 numbers"},
        {"{\"age\":1,\"tenure\":2,\"hour\":3}\n", "bad:1: key 'speed' is missing"},
        {"{\"age\":1,\"tenure\":2,\"hour\":\"x\",\"speed\":1}\n", "'x' is not a finite number"},
        {"{\"age\":1,\"age\":1,\"tenure\":2,\"hour\":3,\"speed\":1}\n", "key 'age' is there twice"},
        {"{\"age\":1\n", "bad:1: not a JSON object on one line"},
        {"{} {}\n", "bad:1: not a JSON object on one line"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out = NULL;
        kit_write(kit_path("bad"), cases[i].lines);
        assert_int_equal(act(&out, "bad"), 3);
        kit_assert_contains(out, cases[i].complaint);
        free(out);
    }
    kit_write_bytes(kit_path("bad"), "1,2\0,3\n", 7);
    char *out = NULL;
    assert_int_equal(act(&out, "bad"), 3);
    kit_assert_contains(out, "bad:1: a NUL byte");
    free(out);
    assert_int_equal(act(&out, "absent.csv"), 4);
    kit_assert_contains(out, "longhaul: absent.csv: No such file");
    free(out);
}

static void skip_answers_the_good_lines_and_counts_the_bad(void **state)
{
    (void)state;
    char *out = NULL, rows[512];
    expected_csv(rows, 0, 0);
    assert_int_equal(kit_run(&out, "cd '%s'; sed '3i 1,2,3,bad,5' plain.csv > bad", kit_dir()), 0);
    free(out);
    assert_int_equal(act(&out, "--no-header --on-error skip bad 2>/dev/null"), 0);
    assert_string_equal(out, rows);
    free(out);
    assert_int_equal(act(&out, "--no-header --on-error skip bad >/dev/null"), 0);
    assert_string_equal(out,
                        "longhaul: bad:3: column 'age': 'bad' is not a finite number; skipped\n"
                        "longhaul: 1 bad line was skipped, 5 states answered\n");
    free(out);
    /* stopping, what came before is answered */
    assert_int_equal(act(&out, "--no-header bad 2>/dev/null | wc -l"), 0);
    assert_string_equal(out, "2\n");
    free(out);
}

static void explain_shows_what_was_chosen(void **state)
{
    (void)state;
    static const char check[] =
        "import sys, json\n"
        "for line in sys.stdin:\n"
        "    x = json.loads(line)\n"
        "    e = x['estimators']\n"
        "    assert len(e) == 4, e\n"
        "    q = [c['q'] for c in e]\n"
        "    assert x['chosen'] == q.index(max(q))\n"
        "    best = e[x['chosen']]\n"
        "    assert best['action'] == x['action'], (best, x['action'])\n"
        "    for c in e:\n"
        "        assert len(c['reconstructed']) == len(c['residual']) == 2\n"
        "        for a, r, d in zip(c['action'], c['reconstructed'], c['residual']):\n"
        "            assert abs(a - (r + d)) < 1e-4 or abs(r + d) >= 1, (a, r, d)\n"
        "    print('ok')\n";
    kit_write(kit_path("check.py"), check);
    char *out = NULL;
    assert_int_equal(act(&out, "--explain --out-format jsonl plain.csv | " LH_PYTHON " check.py"),
                     0);
    assert_string_equal(out, "ok\nok\nok\nok\nok\n");
    free(out);
    assert_int_equal(act(&out, "--explain plain.csv | head -6"), 0);
    kit_assert_contains(out, "state 1: action ");
    kit_assert_contains(out, "  -> ");
    free(out);
    assert_int_equal(act(&out, "--explain --out-format csv plain.csv"), 2);
    kit_assert_contains(out, "use --out-format text or jsonl");
    free(out);
}

static void policy_without_candidates_explains_that(void **state)
{
    (void)state;
    char *out = NULL;
    make_snapshot(kit_path("snap"), "il");
    assert_int_equal(act(&out, "--explain plain.csv"), 0);
    kit_assert_contains(out, "weighs no candidates");
    free(out);
    assert_int_equal(act(&out, "--explain --out-format jsonl plain.csv | head -1"), 0);
    kit_assert_contains(out, ",\"estimators\":[{}]}\n");
    free(out);
    assert_int_equal(act(&out, "--estimators 5 plain.csv"), 2);
    free(out);
}

static void items_are_ranked_by_inner_product(void **state)
{
    (void)state;
    char *out = NULL;
    kit_write(kit_path("items.csv"),
              "id,e_1,e_0\nlow,-1,0\nhigh,1,0\n\"mid, \"\"1\"\"\",0.5,0\nflat,0,0\n");
    assert_int_equal(act(&out, "--items items.csv --top 3 plain.csv | cut -d, -f1-3,5,8 | head -2"),
                     0);
    /* action's second component is about 10: shift of the norm */
    kit_assert_contains(out, "e_0,e_1,item_1,item_2,");
    kit_assert_contains(out, ",high,\"mid");
    free(out);
    assert_int_equal(act(&out, "--items items.csv --top 9 --out-format jsonl plain.csv | head -1 | "
                               "grep -o '\"id\":[^}]*' | cut -d, -f1"),
                     0);
    assert_string_equal(out, "\"id\":\"high\"\n\"id\":\"mid\n\"id\":\"flat\"\n\"id\":\"low\"\n");
    free(out);
    kit_write(kit_path("items.csv"), "a,1\n");
    assert_int_equal(act(&out, "--items items.csv plain.csv"), 3);
    kit_assert_contains(out, "items.csv:1: 2 columns; an id and 2 numbers are needed");
    free(out);
    kit_write(kit_path("items.csv"), "a,1,2\nb,1,zz\n");
    assert_int_equal(act(&out, "--items items.csv plain.csv"), 3);
    kit_assert_contains(out, "items.csv:2: column 3: 'zz' is not a finite number");
    free(out);
}

/* A child with pipes at both ends. */
struct child {
    pid_t pid;
    int to, from;
};

static struct child spawn(void)
{
    int in[2], out[2];
    struct child c;
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    c.pid = fork();
    assert_true(c.pid >= 0);
    if (c.pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        close(in[0]);
        close(in[1]);
        close(out[0]);
        close(out[1]);
        execl(PROGRAM, PROGRAM, "act", "--snapshot", kit_path("snap"), "--no-header", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    c.to = in[1];
    c.from = out[0];
    return c;
}

/* One line from the child; fails if none comes within ten seconds. */
static size_t read_line(struct child *c, char *line, size_t size)
{
    size_t n = 0;
    while (n + 1 < size) {
        struct pollfd p = {.fd = c->from, .events = POLLIN};
        if (poll(&p, 1, 10000) <= 0)
            fail_msg("no answer within ten seconds");
        if (read(c->from, line + n, 1) != 1 || line[n++] == '\n')
            break;
    }
    line[n] = '\0';
    return n;
}

static void say(struct child *c, const char *text)
{
    assert_int_equal(write(c->to, text, strlen(text)), (ssize_t)strlen(text));
}

static void pipe_is_answered_line_by_line(void **state)
{
    (void)state;
    char line[128], all[512] = "", rows[512];
    expected_csv(rows, 0, 0);
    struct child c = spawn();
    for (size_t i = 0; i < 5; i++) {
        char text[128];
        float h[H], l[L];
        state_of(i, h, l);
        snprintf(text, sizeof text, "%.9g,%.9g,%.9g,", h[0], h[1], l[0]);
        say(&c, text); /* half a line must not be taken for a whole one */
        snprintf(text, sizeof text, "%.9g,%.9g\n", l[1], l[2]);
        say(&c, text);
        assert_true(read_line(&c, line, sizeof line) > 0);
        strcat(all, line);
    }
    assert_string_equal(all, rows);
    close(c.to);
    assert_int_equal(read_line(&c, line, sizeof line), 0);
    int status;
    assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(c.from);
}

static void interrupt_ends_a_waiting_act(void **state)
{
    (void)state;
    char line[128];
    int status;
    struct child c = spawn();
    say(&c, "1,2,3,4,5\n");
    assert_true(read_line(&c, line, sizeof line) > 0); /* so it runs and waits */
    kill(c.pid, SIGINT);
    assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 130);
    close(c.to);
    close(c.from);
}

static void reader_that_went_away_ends_it_quietly(void **state)
{
    (void)state;
    int status;
    struct child c = spawn();
    close(c.from);
    say(&c, "1,2,3,4,5\n");
    assert_int_equal(waitpid(c.pid, &status, 0), c.pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
    close(c.to);
    char *out = NULL;
    assert_int_equal(act(&out, "plain.csv > /dev/full"), 4);
    kit_assert_contains(out, "longhaul: standard output: No space left on device");
    free(out);
}

static void damaged_snapshot_is_refused(void **state)
{
    (void)state;
    char *out = NULL;
    assert_int_equal(kit_run(&out,
                             "cd '%s' && printf x | dd of=snap/weights.safetensors bs=1 "
                             "seek=2000 conv=notrunc 2>/dev/null",
                             kit_dir()),
                     0);
    free(out);
    assert_int_equal(act(&out, "plain.csv"), 3);
    kit_assert_contains(out, "snap/weights.safetensors: its checksum does not match");
    free(out);
}

static void wrong_options_are_explained(void **state)
{
    (void)state;
    char *out = NULL;
    assert_int_equal(kit_run(&out, PROGRAM " act x.csv"), 2);
    kit_assert_contains(out, "--snapshot DIR is needed");
    free(out);
    assert_int_equal(act(&out, "--explian x.csv"), 2);
    kit_assert_contains(out, "did you mean '--explain'?");
    free(out);
    assert_int_equal(kit_run(&out, PROGRAM " act --snapshot '%s' x.csv", kit_path("none")), 4);
    kit_assert_contains(out, "none: no snapshot (there is no manifest.json");
    free(out);
}

#define act_test(f) cmocka_unit_test_setup_teardown(f, setup, kit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        act_test(every_form_of_input_gives_the_librarys_actions),
        act_test(seed_and_estimators_change_the_actions_as_in_the_library),
        act_test(several_files_are_one_stream),
        act_test(kept_columns_pass_through),
        act_test(bad_lines_name_file_line_and_reason),
        act_test(skip_answers_the_good_lines_and_counts_the_bad),
        act_test(explain_shows_what_was_chosen),
        act_test(policy_without_candidates_explains_that),
        act_test(items_are_ranked_by_inner_product),
        act_test(pipe_is_answered_line_by_line),
        act_test(interrupt_ends_a_waiting_act),
        act_test(reader_that_went_away_ends_it_quietly),
        act_test(damaged_snapshot_is_refused),
        act_test(wrong_options_are_explained),
    };
    return cmocka_run_group_tests_name("act", tests, NULL, NULL);
}

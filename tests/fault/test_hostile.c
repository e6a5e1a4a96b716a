/* A peer that sends anything at all to a running job: what it sends is counted and dropped, and the
 * job ends with the same bits. */
#include "tests/testkit.h"
#include "tests/trainkit.h"

#include "common/net.h"
#include "common/rng.h"
#include "common/term.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM LH_BINARY_DIR "/longhaul"

enum { STEPS = 120, EVERY = 10, MESSAGES = 4000 };

/* An envelope that passes as one of this job, with everything else at random. */
static struct lh_envelope any_envelope(uint64_t job, uint64_t i)
{
    struct lh_rng_at at = {.seed = 31, .step = i};
    static const uint32_t kinds[] = {
        LH__KIND__KIND_PUSH,       LH__KIND__KIND_PUSH,       LH__KIND__KIND_PULL,
        LH__KIND__KIND_WEIGHTS,    LH__KIND__KIND_TARGETS,    LH__KIND__KIND_MOVED,
        LH__KIND__KIND_HELLO,      LH__KIND__KIND_TAKE,       LH__KIND__KIND_IDLE,
        LH__KIND__KIND_TABLE_PUSH, LH__KIND__KIND_TABLE_PULL, LH__KIND__KIND_TABLE_ROWS};
    static const uint64_t numbers[] = {0, 1, 7, 1000, UINT32_MAX, UINT64_MAX, UINT64_MAX / 4 + 1};
    struct lh_envelope e = {.job = job};
    e.kind = kinds[lh_rng_below(&at, 0, sizeof kinds / sizeof *kinds)];
    e.step = numbers[3 + lh_rng_below(&at, 1, 4)]; /* a step that is not at hand */
    e.level = (uint32_t)numbers[lh_rng_below(&at, 2, 7)];
    e.index = (uint32_t)numbers[lh_rng_below(&at, 3, 7)];
    e.first = numbers[lh_rng_below(&at, 4, 7)];
    e.count = numbers[lh_rng_below(&at, 5, 7)];
    e.request = i;
    e.node = 1000;
    return e;
}

static void attack(const char *endpoint, uint64_t job)
{
    void *zmq = zmq_ctx_new();
    struct lh_net_socket *s = NULL;
    static unsigned char junk[5000];
    assert_ok(lh_net_dealer(&s, zmq, &(struct lh_net_address){.endpoint = endpoint}, 10000, NULL));
    for (uint64_t i = 0; i < MESSAGES; i++) {
        struct lh_envelope e = any_envelope(i % 5 ? job : i, i);
        struct lh_net_part parts[3];
        size_t n = i % 4;
        for (size_t k = 0; k < n; k++)
            parts[k] = (struct lh_net_part){.data = junk, .size = (i * 37 + k * 911) % sizeof junk};
        int rc = lh_net_send(s, NULL, &e, parts, n);
        assert_true(rc == 0 || rc == LH_AGAIN);
        struct lh_net_message m;
        while (lh_net_recv(s, &m) == 0)
            lh_net_message_fini(&m);
    }
    lh_net_close(&s);
    zmq_ctx_term(zmq);
}

/* One worker gives the same bits in every model. */
static void attack_job(const char *model)
{
    trainkit_dataset();
    struct lh_job *job = trainkit_job(STEPS, EVERY, model);
    struct lh_train_options opt = trainkit_options(kit_path("undisturbed"));
    struct lh_train_result result;
    assert_ok(lh_train(job, &opt, &result));
    struct trainkit_state want = trainkit_read(kit_path("undisturbed"));
    struct lh_job *resolved = NULL;
    assert_ok(lh_job_load(&resolved, kit_path("undisturbed/config.yaml"), NULL, 0));
    uint64_t digest = lh_job_digest(resolved);
    lh_job_destroy(&resolved);
    trainkit_job_file(kit_path("job.yaml"), STEPS, EVERY, model);
    char scheduler[300], server[300];
    snprintf(scheduler, sizeof scheduler, "ipc://%s/s", kit_dir());
    snprintf(server, sizeof server, "ipc://%s/p", kit_dir());
    const char *argv[3][12] = {{PROGRAM, "scheduler", kit_path("job.yaml"), "--dir",
                                kit_path("run"), "--bind", scheduler, "--no-evaluation", "--quiet"},
                               {PROGRAM, "server", "--scheduler", scheduler, "--bind", server},
                               {PROGRAM, "worker", "--scheduler", scheduler}};
    pid_t pid[3];
    for (int i = 0; i < 3; i++)
        pid[i] = trainkit_spawn(kit_path("log"), argv[i]);
    assert_true(trainkit_wait_cut(kit_path("run"), EVERY));
    attack(server, digest);
    attack(scheduler, digest);
    for (int i = 0; i < 3; i++)
        assert_int_equal(trainkit_wait_exit(pid[i]), 0);
    trainkit_assert_same(&want, kit_path("run"), "under attack");
    size_t n;
    char *log = kit_read(kit_path("log"), &n);
    kit_assert_contains(log, "dropped a message");
    assert_true(n < 20000); /* a line a peer, not one a message */
    free(log);
    lh_mem_free(want.values);
    lh_job_destroy(&job);
}

static void job_under_attack_ends_with_the_same_bits(void **state)
{
    (void)state;
    attack_job(NULL);
}

static void job_whose_steps_are_each_a_workers_own_ends_with_the_same_bits(void **state)
{
    (void)state;
    attack_job("consistency: {model: ssp, bound: 4}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(job_under_attack_ends_with_the_same_bits),
        kit_test(job_whose_steps_are_each_a_workers_own_ends_with_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

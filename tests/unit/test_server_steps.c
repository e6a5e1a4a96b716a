/* A server, of which the test plays the scheduler and the workers: what each of them is answered,
 * in orders of events that a whole training meets now and then. */
#include "ps/server.h"

#include "common/err.h"
#include "common/member.h"
#include "common/rowlist.h"
#include "common/term.h"
#include "tests/unit/net_rig.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum { SIZE = 8, LEAVES = 4, GENERATION = 7, STEPS = 100, WORKERS = 4 };
#define SCHEDULER "inproc://scheduler"
#define SERVER    "inproc://server"
#define LIVES     "cluster: {heartbeat_seconds: 3600, deadline_seconds: 86400}\n"
#define RATE      0.5f

static const char sync_job[] = "algorithm: il\n" LIVES;
#define TABLE "tables: {a: {ids: x, dim: 2, init: 0, learning_rate: 0.5}}\n"
static const char sync_table[] = "algorithm: il\n" TABLE LIVES;
static const char bound_0_table[] =
    "algorithm: il\nconsistency: {model: ssp, bound: 0}\n" TABLE LIVES;
static const char async_table[] = "algorithm: il\nconsistency: {model: async}\n" TABLE LIVES;
static const char bound_0[] = "algorithm: il\nconsistency: {model: ssp, bound: 0}\n" LIVES;
static const char bound_4[] = "algorithm: il\nconsistency: {model: ssp, bound: 4}\n" LIVES;

struct worker {
    struct lh_net_socket *socket;
    uint32_t node;
    uint64_t request;
};

struct rig {
    void *zmq;
    const char *job_text;
    uint64_t job, orders;
    struct lh_layout layout;
    struct lh_server_options opt;
    struct lh_net_socket *scheduler;
    struct lh_net_peer server;
    pthread_t thread;
    int rc; /* of the server */
    struct worker workers[WORKERS];
    uint32_t shard;
};

static const struct lh_param params[] = {
    {.name = "w", .rows = 2 * SIZE, .cols = 1, .trained = true}};
static const float initial[2 * SIZE];

static int model(void *ctx, const struct lh_job *job, size_t shards, bool fresh,
                 struct lh_server_model *out)
{
    struct rig *x = ctx;
    (void)job, (void)shards, (void)fresh;
    *out = (struct lh_server_model){.layout = &x->layout, .leaves = LEAVES, .weights = initial};
    return 0;
}

static void model_fini(void *ctx, struct lh_server_model *m)
{
    (void)ctx;
    *m = (struct lh_server_model){0};
}

static void *serve(void *arg)
{
    struct rig *x = arg;
    x->rc = lh_server_run(x->zmq, &x->opt);
    return NULL;
}

/* Shard `shard` of two, ready. */
static struct rig *rig_of(const char *job_text, uint32_t shard)
{
    struct rig *x = calloc(1, sizeof *x);
    struct lh_net_message m;
    struct lh_job *job = NULL;
    Lh__Plan plan = LH__PLAN__INIT;
    const struct lh_update_rule rule = {
        .pattern = "*", .learning_rate = RATE, .period = 1, .target_period = 1};
    assert_non_null(x);
    x->zmq = zmq_ctx_new();
    x->job_text = job_text;
    x->shard = shard;
    assert_ok(lh_layout_init_params(&x->layout, &(struct lh_layout_params){params, 1, 2 * SIZE},
                                    &rule, 1, 2));
    x->opt = (struct lh_server_options){.scheduler = SCHEDULER,
                                        .bind = SERVER,
                                        .store = kit_path(shard == 0 ? "store-0" : "store-1"),
                                        .patience = 10,
                                        .model = model,
                                        .model_fini = model_fini,
                                        .ctx = x};
    assert_ok(lh_net_router(&x->scheduler, x->zmq, SCHEDULER, 1000, NULL));
    assert_int_equal(pthread_create(&x->thread, NULL, serve, x), 0);
    rig_expect(x->scheduler, &m, LH__KIND__KIND_HELLO);
    x->server = m.peer;
    lh_net_message_fini(&m);
    assert_ok(lh_job_load_text(&job, job_text, strlen(job_text), "job", NULL));
    x->job = plan.job_digest = lh_job_digest(job);
    lh_job_destroy(&job);
    plan.job = (char *)(uintptr_t)job_text;
    plan.node = 1;
    plan.shard = shard;
    plan.shards = 2;
    plan.until = plan.total = plan.checkpoint_every = STEPS;
    plan.generation = GENERATION;
    struct lh_envelope env = {.kind = LH__KIND__KIND_PLAN, .job = x->job};
    assert_ok(lh_net_send_body(x->scheduler, &x->server, &env, &plan.base));
    rig_expect(x->scheduler, &m, LH__KIND__KIND_READY);
    lh_net_message_fini(&m);
    for (uint32_t i = 0; i < WORKERS; i++) {
        x->workers[i].node = 10 + i;
        assert_ok(rig_dial(&x->workers[i].socket, x->zmq, SERVER, 1000));
        lh_net_expect(x->workers[i].socket, x->job);
    }
    return x;
}

static void order(struct rig *x, uint32_t kind, uint32_t index)
{
    const struct lh_envelope env = {
        .kind = kind, .job = x->job, .index = index, .request = ++x->orders};
    Lh__Failure f = LH__FAILURE__INIT;
    f.text = (char *)"";
    assert_ok(lh_net_send_body(x->scheduler, &x->server, &env, &f.base));
}

static void rig_free(struct rig *x)
{
    order(x, LH__KIND__KIND_STOP, 0);
    assert_int_equal(pthread_join(x->thread, NULL), 0);
    assert_ok(x->rc);
    for (int i = 0; i < WORKERS; i++)
        lh_net_close(&x->workers[i].socket);
    lh_net_close(&x->scheduler);
    lh_layout_fini(&x->layout);
    zmq_ctx_term(x->zmq);
    free(x);
}

/* --- what workers say --------------------------------------------------------------------------
 */
static void say(struct rig *x, int w, struct lh_envelope env, const void *data, size_t n)
{
    const struct lh_net_part part = {.data = data, .size = n * sizeof(float)};
    env.job = x->job;
    env.node = x->workers[w].node;
    assert_ok(lh_net_send(x->workers[w].socket, NULL, &env, &part, n > 0));
}

static void ask(struct rig *x, int w, uint32_t kind, uint64_t step)
{
    say(x, w,
        (struct lh_envelope){
            .kind = kind, .step = step, .request = ++x->workers[w].request, .epoch = GENERATION},
        NULL, 0);
}

static void idle(struct rig *x, int w, uint64_t step, uint64_t usual)
{
    say(x, w,
        (struct lh_envelope){.kind = LH__KIND__KIND_IDLE,
                             .step = step,
                             .first = usual,
                             .count = usual,
                             .request = x->workers[w].request,
                             .epoch = GENERATION},
        NULL, 0);
}

/* Elements [first, end) of a node's sum, all of which are `value`. */
static void push_node(struct rig *x, int w, struct lh_envelope env, int first, int end, float value)
{
    float data[SIZE];
    for (int i = 0; i < SIZE; i++)
        data[i] = value;
    env.kind = LH__KIND__KIND_PUSH;
    env.first = (uint64_t)first;
    env.count = (uint64_t)(end - first);
    env.epoch = env.epoch ? env.epoch : GENERATION;
    say(x, w, env, data, (size_t)(end - first));
}

/* Of a step that it was given by its last request. */
static void push(struct rig *x, int w, uint64_t step, int first, int end, float value)
{
    push_node(x, w,
              (struct lh_envelope){.step = step, .level = 2, .request = x->workers[w].request},
              first, end, value);
}

/* The id that rows are pushed and asked of: one of this shard's. */
static uint64_t id_of(const struct rig *x)
{
    uint64_t id = 5;
    while (lh_rowlist_shard(id, 2) != x->shard)
        id++;
    return id;
}

/* A row of a node's sum, all of `value`; none of it where `value` is 0. */
static void push_row(struct rig *x, int w, struct lh_envelope env, float value)
{
    const uint64_t total = value != 0, id = id_of(x);
    const float row[] = {value, value};
    const uint64_t head[] = {0, total};
    const struct lh_net_part parts[] = {{.data = head, .size = sizeof head},
                                        {.data = &id, .size = total * sizeof id},
                                        {.data = row, .size = total * sizeof row}};
    env.kind = LH__KIND__KIND_TABLE_PUSH;
    env.job = x->job;
    env.node = x->workers[w].node;
    env.count = total;
    env.epoch = GENERATION;
    assert_ok(lh_net_send(x->workers[w].socket, NULL, &env, parts, 3));
}

/* --- what they are told ------------------------------------------------------------------------
 */
static void expect(struct rig *x, int w, uint32_t kind, struct lh_envelope *out)
{
    struct lh_net_message m;
    rig_expect(x->workers[w].socket, &m, kind);
    *out = m.env;
    lh_net_message_fini(&m);
}

/* The weights that it asked for, all of which are `value`. */
static void expect_weights(struct rig *x, int w, float value)
{
    struct lh_net_message m;
    size_t bytes;
    float got[SIZE];
    do /* what another was given is told as often as that */
        rig_receive(x->workers[w].socket, &m);
    while (m.env.kind == LH__KIND__KIND_GIVEN);
    assert_int_equal(m.env.kind, LH__KIND__KIND_WEIGHTS);
    assert_int_equal(m.env.request, x->workers[w].request);
    const void *data = lh_net_frame(&m, 0, &bytes);
    assert_int_equal(bytes, sizeof got);
    memcpy(got, data, sizeof got);
    for (int i = 0; i < SIZE; i++)
        assert_true(got[i] > value - 0.01f && got[i] < value + 0.01f);
    lh_net_message_fini(&m);
}

/* Connections take turns: when it has the weights at hand, what it said before is in. */
static void await_in(struct rig *x, int w, float value)
{
    ask(x, w, LH__KIND__KIND_PULL, LH_WIRE_LATEST);
    expect_weights(x, w, value);
}

/* Asks for whatever step, and gets `step` with such weights. */
static void take(struct rig *x, int w, uint64_t step, float value)
{
    struct lh_envelope env;
    ask(x, w, LH__KIND__KIND_TAKE, LH_WIRE_LATEST);
    expect(x, w, LH__KIND__KIND_STEP, &env);
    assert_int_equal(env.step, step);
    expect_weights(x, w, value);
}

static void ask_row(struct rig *x, int w, uint64_t step)
{
    const uint64_t id = id_of(x);
    const struct lh_net_part part = {.data = &id, .size = sizeof id};
    const struct lh_envelope env = {.kind = LH__KIND__KIND_TABLE_PULL,
                                    .job = x->job,
                                    .node = x->workers[w].node,
                                    .step = step,
                                    .count = 1,
                                    .request = 1000 + step,
                                    .epoch = GENERATION};
    assert_ok(lh_net_send(x->workers[w].socket, NULL, &env, &part, 1));
}

/* The next that it is told are the rows for a step, all of which are `value`. */
static void expect_row(struct rig *x, int w, uint64_t step, float value)
{
    struct lh_net_message m;
    float got[2];
    size_t bytes;
    rig_expect(x->workers[w].socket, &m, LH__KIND__KIND_TABLE_ROWS);
    assert_int_equal(m.env.request, 1000 + step);
    assert_int_equal(m.env.step, step);
    const void *data = lh_net_frame(&m, 0, &bytes);
    assert_int_equal(bytes, sizeof got);
    memcpy(got, data, sizeof got);
    for (int i = 0; i < 2; i++)
        assert_true(got[i] > value - 0.01f && got[i] < value + 0.01f);
    lh_net_message_fini(&m);
}

/* Gradient and rows of a step that it was given by its last request. */
static void push_own(struct rig *x, int w, uint64_t step, float value)
{
    const struct lh_envelope env = {.step = step, .level = 2, .request = x->workers[w].request};
    push(x, w, step, 0, SIZE, value);
    push_row(x, w, env, value);
}

/* Each over a connection of its own, as of who connects, asks, and is gone. */
static void node_has_only_so_many_requests_waiting(void **state)
{
    (void)state;
    enum { REQUESTS = 80, KEPT = 64 };
    struct rig *x = rig_of(sync_job, 0);
    struct lh_net_socket *others[REQUESTS] = {NULL};
    struct lh_net_message m;
    int answers = 0;
    for (int i = 0; i < REQUESTS; i++) {
        struct lh_envelope env = {.kind = LH__KIND__KIND_PULL,
                                  .job = x->job,
                                  .node = 99,
                                  .step = 1,
                                  .request = 1,
                                  .epoch = GENERATION};
        assert_ok(rig_dial(&others[i], x->zmq, SERVER, 1000));
        lh_net_expect(others[i], x->job);
        assert_ok(lh_net_send(others[i], NULL, &env, NULL, 0));
    }
    ask(x, 1, LH__KIND__KIND_PULL,
        0); /* connections take turns: when it is answered, all have asked */
    expect_weights(x, 1, 0);
    ask(x, 0, LH__KIND__KIND_PULL, 1);
    push_node(x, 0, (struct lh_envelope){.level = 2}, 0, SIZE, 1);
    expect_weights(x, 0, -RATE);
    for (double began = lh_now(); answers < KEPT && lh_now() - began < 10; usleep(1000))
        for (int i = 0; i < REQUESTS; i++)
            if (lh_net_recv(others[i], &m) == 0) {
                answers++;
                lh_net_message_fini(&m);
            }
    assert_int_equal(answers, KEPT);
    for (int i = 0; i < REQUESTS; i++)
        lh_net_close(&others[i]);
    rig_free(x);
}

/* --- steps that are a worker's own ---------------------------------------------------------------
 */
/* Adam's first step is the learning rate, against the sign of the gradient. */
static void own_step_is_one_workers_sum_though_two_send_it(void **state)
{
    (void)state;
    struct rig *x = rig_of(bound_4, 0);
    take(x, 0, 0, 0);
    push(x, 0, 0, 0, 6, 1);
    ask(x, 1, LH__KIND__KIND_TAKE, 0); /* the first is late */
    expect_weights(x, 1, 0);
    push(x, 1, 0, 4, SIZE, -1);
    push(x, 1, 0, 0, 4, -1);
    struct lh_envelope env;
    expect(x, 0, LH__KIND__KIND_IN, &env);
    assert_int_equal(env.step, 0);
    take(x, 1, 1, RATE);
    rig_free(x);
}

static void own_step_takes_nothing_of_who_was_not_given_it_or_another_generation(void **state)
{
    (void)state;
    struct rig *x = rig_of(bound_4, 0);
    take(x, 0, 0, 0);
    take(x, 1, 1, 0);
    push(x, 1, 0, 0, SIZE, -1);
    push_node(x, 0, (struct lh_envelope){.level = 2, .request = 77}, 0, SIZE, -1);
    push_node(x, 0, (struct lh_envelope){.level = 2, .request = 1, .epoch = GENERATION - 1}, 0,
              SIZE, -1);
    push_node(x, 0, (struct lh_envelope){.level = 1, .request = 1}, 0, SIZE, -1);
    push(x, 0, 0, 0, SIZE, 1);
    take(x, 0, 2, -RATE);
    rig_free(x);
}

/* Another shard has lost it: with bound 0 its gradient is to have the bits of sync. */
static void weights_for_the_step_that_came_last_are_those_before_it(void **state)
{
    (void)state;
    struct rig *x = rig_of(bound_0, 0);
    take(x, 0, 0, 0);
    push(x, 0, 0, 0, SIZE, 1);
    take(x, 0, 1, -RATE);
    ask(x, 1, LH__KIND__KIND_TAKE, 0);
    expect_weights(x, 1, 0);
    push(x, 1, 0, 0, SIZE, -1); /* is in */
    push(x, 0, 1, 0, SIZE, 1);
    ask(x, 0, LH__KIND__KIND_TAKE, 1); /* behind the push: when it is answered, that is in */
    expect_weights(x, 0, -RATE);
    ask(x, 1, LH__KIND__KIND_TAKE, 1);
    expect_weights(x, 1, -RATE);
    take(x, 1, 2, -2 * RATE);
    rig_free(x);
}

static void step_of_a_worker_that_is_lost_goes_to_who_waits(void **state)
{
    (void)state;
    struct rig *x = rig_of(bound_0, 0);
    struct lh_envelope env;
    take(x, 0, 0, 0);
    push(x, 0, 0, 0, 3, 1);
    ask(x, 1, LH__KIND__KIND_TAKE, LH_WIRE_LATEST);
    order(x, LH__KIND__KIND_LOST, x->workers[0].node);
    expect(x, 1, LH__KIND__KIND_STEP, &env);
    assert_int_equal(env.step, 0);
    expect_weights(x, 1, 0);
    push(x, 0, 0, 3, SIZE, 1); /* it was only slow */
    push(x, 1, 0, 0, SIZE, -1);
    take(x, 1, 1, RATE);
    rig_free(x);
}

/* A connection broke: what was sent over it did not come. */
static void worker_whose_push_was_lost_makes_it_good_before_it_goes_on(void **state)
{
    (void)state;
    struct rig *x = rig_of(bound_4, 1);
    struct lh_envelope env;
    ask(x, 0, LH__KIND__KIND_TAKE, 0);
    expect_weights(x, 0, 0);
    ask(x, 0, LH__KIND__KIND_TAKE, 1);
    idle(x, 0, 0, 1000000000);
    expect(x, 0, LH__KIND__KIND_LATE, &env);
    assert_int_equal(env.step, 0);
    ask(x, 0, LH__KIND__KIND_TAKE, 0);
    expect_weights(x, 0, 0);
    push(x, 0, 0, 0, SIZE, 1);
    ask(x, 0, LH__KIND__KIND_TAKE, 1);
    expect_weights(x, 0, -RATE);
    rig_free(x);
}

/* Rows are asked for as soon as the step is known, and come by the same rule as weights. */
static void rows_for_a_step_come_when_its_weights_may(void **state)
{
    (void)state;
    struct rig *x = rig_of(bound_0_table, 0);
    struct lh_envelope late;
    take(x, 0, 0, 0);
    ask_row(x, 0, 0);
    expect_row(x, 0, 0, 0);
    ask(x, 1, LH__KIND__KIND_TAKE, 1);
    ask_row(x, 1, 2); /* which it then is not given after all */
    ask_row(x, 1, 1);
    idle(x, 1, 0, 1);
    expect(x, 1, LH__KIND__KIND_LATE, &late); /* all of that was heard, and waits */
    push_own(x, 0, 0, 1);
    expect_weights(x, 1, -RATE);
    expect_row(x, 1, 1, -RATE);
    push_own(x, 1, 1, 1);
    take(x, 0, 2, -2 * RATE);
    ask_row(x, 0, 2);
    expect_row(x, 0, 2, -2 * RATE);
    rig_free(x);
}

/* As its weights: another shard has lost the step. */
static void rows_for_the_step_that_came_last_are_those_before_it(void **state)
{
    (void)state;
    struct rig *x = rig_of(bound_0_table, 1);
    ask(x, 0, LH__KIND__KIND_TAKE, 0);
    expect_weights(x, 0, 0);
    push_own(x, 0, 0, 1);
    ask(x, 1, LH__KIND__KIND_TAKE, 0);
    ask_row(x, 1, 0);
    expect_weights(x, 1, 0);
    expect_row(x, 1, 0, 0);
    push_own(x, 1, 0, -1); /* is in */
    ask(x, 1, LH__KIND__KIND_TAKE, 1);
    ask_row(x, 1, 1);
    expect_weights(x, 1, -RATE);
    expect_row(x, 1, 1, -RATE);
    rig_free(x);
}

/* Two have the step; of one the gradient comes, of the other the rows, and then all. */
static void own_step_is_one_workers_gradient_and_rows(void **state)
{
    (void)state;
    struct rig *x = rig_of(async_table, 0);
    struct lh_envelope env = {.level = 2};
    take(x, 0, 0, 0);
    ask(x, 1, LH__KIND__KIND_TAKE, 0);
    expect_weights(x, 1, 0);
    push(x, 0, 0, 0, SIZE, 1);
    env.request = x->workers[1].request;
    push_row(x, 1, env, -1);
    take(x, 2, 1, 0); /* nothing is in */
    ask_row(x, 2, 1);
    expect_row(x, 2, 1, 0);
    push(x, 1, 0, 0, SIZE, -1);
    await_in(x, 1, RATE);
    push_own(x, 2, 1, -1);
    take(x, 2, 2, 2 * RATE);
    ask_row(x, 2, 2);
    expect_row(x, 2, 2, 2 * RATE);
    rig_free(x);
}

/* What it sent before its connection broke was the gradient. */
static void worker_whose_rows_were_lost_makes_them_good_before_it_goes_on(void **state)
{
    (void)state;
    struct rig *x = rig_of(async_table, 1);
    struct lh_envelope env;
    ask(x, 0, LH__KIND__KIND_TAKE, 0);
    expect_weights(x, 0, 0);
    push(x, 0, 0, 0, SIZE, 1);
    ask(x, 0, LH__KIND__KIND_TAKE, 1);
    ask_row(x, 0, 1);
    idle(x, 0, 0, 1000000000);
    expect(x, 0, LH__KIND__KIND_LATE, &env);
    assert_int_equal(env.step, 0);
    ask(x, 0, LH__KIND__KIND_TAKE, 0);
    ask_row(x, 0, 0); /* not those for the other step any more */
    expect_weights(x, 0, 0);
    expect_row(x, 0, 0, 0);
    push_own(x, 0, 0, 1);
    ask(x, 0, LH__KIND__KIND_TAKE, 1);
    expect_weights(x, 0, -RATE);
    ask_row(x, 0, 1);
    expect_row(x, 0, 1, -RATE);
    rig_free(x);
}

/* --- steps that all share ------------------------------------------------------------------------
 */
/* Another shard may lack what somebody had of the step that is in here. Who comes in the place of
 * the one that is gone computes it, at the version before. */
static void version_before_is_given_too(void **state)
{
    (void)state;
    struct rig *x = rig_of(sync_job, 0);
    struct lh_envelope env;
    push(x, 0, 0, 0, SIZE, 1);
    ask(x, 0, LH__KIND__KIND_PULL, 1);
    expect_weights(x, 0, -RATE);
    ask(x, 1, LH__KIND__KIND_PULL, LH_WIRE_LATEST);
    expect_weights(x, 1, -RATE);
    ask(x, 1, LH__KIND__KIND_PULL, 0);
    expect_weights(x, 1, 0);
    push(x, 1, 0, 0, SIZE, 5); /* is in */
    push(x, 1, 1, 0, SIZE, 1);
    ask(x, 1, LH__KIND__KIND_PULL, 2);
    expect_weights(x, 1, -2 * RATE);
    ask(x, 1, LH__KIND__KIND_PULL, 1);
    expect_weights(x, 1, -RATE);
    ask(x, 1, LH__KIND__KIND_PULL, 0);
    expect(x, 1, LH__KIND__KIND_MOVED, &env);
    assert_int_equal(env.step, 2);
    rig_free(x);
}

/* --- what is late in sync ------------------------------------------------------------------------
 */
static bool has_come(struct rig *x, int w)
{
    struct lh_net_poll poll = {.socket = x->workers[w].socket};
    assert_ok(lh_net_poll(&poll, 1, 0.1));
    return poll.in;
}

/* Worker 0 says that it is idle, again and again until worker 1 is told what that was given: only
 * who waits is told, and what two workers say may come in any order. */
static void idle_until_the_other_is_told(struct rig *x, struct lh_envelope *given)
{
    enum { MOST = 100 };
    struct lh_envelope late[MOST];
    size_t n = 0, i = 0;
    do {
        assert_true(n < MOST);
        idle(x, 0, 0, 1); /* a microsecond: the other is late by any measure */
        expect(x, 0, LH__KIND__KIND_LATE, &late[n]);
        assert_int_equal(late[n].request, x->workers[0].request);
        assert_true(late[n].index << late[n].level >= 2); /* of the other's half */
        n++;
    } while (!has_come(x, 1));
    expect(x, 1, LH__KIND__KIND_GIVEN, given);
    while (i < n && !(late[i].level == given->level && late[i].index == given->index))
        i++;
    assert_true(i < n);
}

static void idle_worker_is_given_leaves_that_the_others_are_told_of_by_any_shard(void **state)
{
    (void)state;
    for (uint32_t shard = 0; shard < 2; shard++) {
        struct rig *x = rig_of(sync_job, shard);
        struct lh_envelope given;
        ask(x, 1, LH__KIND__KIND_PULL, LH_WIRE_LATEST);
        expect_weights(x, 1, 0);
        ask(x, 1, LH__KIND__KIND_PULL, 1);
        ask(x, 0, LH__KIND__KIND_PULL, 1);
        push_node(x, 0, (struct lh_envelope){.level = 1, .request = 1}, 0, SIZE, 1);
        idle_until_the_other_is_told(x, &given);
        push_node(x, 0, (struct lh_envelope){.level = given.level, .index = given.index}, 0, SIZE,
                  1);
        push_node(x, 1, (struct lh_envelope){.level = 1, .index = 1}, 0, SIZE, 1);
        expect_weights(x, 0, -RATE);
        expect_weights(x, 1, -RATE);
        rig_free(x);
    }
}

/* It stopped between a leaf's gradient and its rows. */
static void idle_worker_is_given_a_leaf_whose_rows_alone_are_missing(void **state)
{
    (void)state;
    struct rig *x = rig_of(sync_table, 0);
    const struct lh_envelope left = {.level = 1}, right = {.level = 1, .index = 1};
    struct lh_envelope late;
    struct lh_net_message m;
    int asked = 0;
    push_node(x, 1, right, 0, SIZE, 1);
    await_in(x, 1, 0);
    ask(x, 1, LH__KIND__KIND_PULL, 1);
    ask(x, 0, LH__KIND__KIND_PULL, 1);
    push_node(x, 0, left, 0, SIZE, 1);
    push_row(x, 0, left, 0);
    do { /* how late the other is, is a matter of time; a worker says it again, too */
        assert_true(asked++ < 100);
        idle(x, 0, 0, 1);
    } while (!has_come(x, 0));
    expect(x, 0, LH__KIND__KIND_LATE, &late);
    assert_true(late.index << late.level >= 2);
    for (uint32_t leaf = 2; leaf < LEAVES; leaf++) {
        push_row(x, 0, (struct lh_envelope){.index = leaf}, 1);
        push_row(x, 1, (struct lh_envelope){.index = leaf}, 1); /* late after all: ignored */
    }
    do
        rig_receive(x->workers[0].socket, &m);
    while (m.env.kind == LH__KIND__KIND_LATE);
    assert_int_equal(m.env.kind, LH__KIND__KIND_WEIGHTS);
    lh_net_message_fini(&m);
    await_in(x, 0, -RATE);
    rig_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        kit_test(version_before_is_given_too),
        kit_test(node_has_only_so_many_requests_waiting),
        kit_test(own_step_is_one_workers_sum_though_two_send_it),
        kit_test(own_step_takes_nothing_of_who_was_not_given_it_or_another_generation),
        kit_test(weights_for_the_step_that_came_last_are_those_before_it),
        kit_test(step_of_a_worker_that_is_lost_goes_to_who_waits),
        kit_test(worker_whose_push_was_lost_makes_it_good_before_it_goes_on),
        kit_test(rows_for_a_step_come_when_its_weights_may),
        kit_test(rows_for_the_step_that_came_last_are_those_before_it),
        kit_test(own_step_is_one_workers_gradient_and_rows),
        kit_test(worker_whose_rows_were_lost_makes_them_good_before_it_goes_on),
        kit_test(idle_worker_is_given_leaves_that_the_others_are_told_of_by_any_shard),
        kit_test(idle_worker_is_given_a_leaf_whose_rows_alone_are_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

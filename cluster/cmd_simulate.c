/* `longhaul simulate`: generates logs of the simulated world, and plays policies in it, so that
 * their true values are known. */
#include "cluster/cli.h"
#include "cluster/train.h"
#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/pool.h"
#include "common/term.h"
#include "worker/policy.h"
#include "worker/sim.h"
#include "worker/sim_log.h"
#include "worker/sim_play.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_simulate = {
    .name = "simulate",
    .summary = "generate a log of a simulated world, or play policies in it",
    .usage = "--out DIR [options]\n--play POLICY [--play POLICY ...] [options]",
    .description =
        "A world of users who come back, or do not: each has attributes, tastes and a satisfaction "
        "that what they are shown builds up or wears down. Session lengths and return times "
        "respond, "
        "also in later sessions. Its best policy is known, so the true value of a policy can be "
        "had "
        "by playing it, which no log can tell.\n\n"
        "With --out, the world's behaviour policy (good, but biased) serves users, and the log is "
        "written: as raw CSV files with a schema.yaml for 'longhaul import' and a world.json, or "
        "directly as a dataset for 'longhaul train'. The bytes depend on the options that describe "
        "log and world, never on --threads.\n\n"
        "With --play, policies serve fresh users that are in no log; all of them meet the same "
        "users "
        "with the same luck, so that differences are sharper than values. POLICY is a snapshot, a "
        "run directory (its best cut), or one of behaviour, mean (the behaviour without its noise: "
        "what perfect imitation would do), greedy (the best for the next reward alone), optimum, "
        "random. Behaviour and optimum are always shown. 'gain' is the difference of reward to "
        "behaviour with its 95% interval, 'closed' the share of the way from behaviour to optimum.",
    .examples = "  longhaul simulate --out log --users 5000 --format csv\n"
                "  longhaul simulate --out data --users 5000 --format dataset --world-seed 7\n"
                "  longhaul simulate --play snapshot --play greedy --dataset data",
    .run = run,
};

enum format { FORMAT_CSV, FORMAT_DATASET };

struct options {
    const char *out, *dataset, *world_file;
    int64_t users, sessions, seed, world_seed, files, threads, hash_partitions;
    double validation, test;
    int format;
    bool gzip, by_day, replace, json, quiet;
    struct lh_opt_list play, world;
};

/* --- progress --------------------------------------------------------------------------------- */

static unsigned threads_of(const struct options *o)
{
    return o->threads ? (unsigned)o->threads : lh_pool_cpus();
}

struct watch { /* a bar that threads may move */
    pthread_mutex_t lock;
    struct lh_progress bar;
    _Atomic uint64_t done;
    lh_policy_fn act; /* of a play */
    void *ctx;
};

static bool watch_log(void *ctx, uint64_t users)
{
    struct watch *w = ctx;
    pthread_mutex_lock(&w->lock);
    if (users > w->bar.done)
        lh_progress_update(&w->bar, users);
    pthread_mutex_unlock(&w->lock);
    return lh_cli_interrupted();
}

static int watch_act(void *ctx, unsigned thread, const float *high, const float *low, size_t n,
                     uint64_t seed, uint64_t first, float *action)
{
    struct watch *w = ctx;
    if (lh_cli_interrupted())
        return lh_err_set(LH_ECANCELED, "simulate: interrupted");
    LH_TRY(w->act(w->ctx, thread, high, low, n, seed, first, action));
    uint64_t done = atomic_fetch_add(&w->done, n) + n;
    pthread_mutex_lock(&w->lock);
    if (done > w->bar.done)
        lh_progress_update(&w->bar, done);
    pthread_mutex_unlock(&w->lock);
    return 0;
}

/* --- the log ---------------------------------------------------------------------------------- */

static int print_info(const struct lh_sim_log_info *i)
{
    static const char *const headers[] = {"", "mean", "25%", "75%", "ResAct Table 1"};
    struct lh_table *t = NULL;
    LH_TRY(lh_table_create(&t, headers, 5));
    int rc = 0;
    LH_TRY_TO(done, lh_table_cell(t, "session length"));
    LH_TRY_TO(done, lh_table_cell(t, "%.2f", i->length_mean));
    LH_TRY_TO(done, lh_table_cell(t, "%.2f", i->length_p25));
    LH_TRY_TO(done, lh_table_cell(t, "%.2f", i->length_p75));
    LH_TRY_TO(done, lh_table_cell(t, "4.04, 2.14, 4.88"));
    LH_TRY_TO(done, lh_table_cell(t, "return time (h)"));
    LH_TRY_TO(done, lh_table_cell(t, " "));
    LH_TRY_TO(done, lh_table_cell(t, "%.2f", i->hours_p25));
    LH_TRY_TO(done, lh_table_cell(t, "%.2f", i->hours_p75));
    LH_TRY_TO(done, lh_table_cell(t, "-, 4.33, 11.28"));
    LH_TRY_TO(done, lh_table_cell(t, "sessions"));
    LH_TRY_TO(done, lh_table_cell(t, "%.1f", i->visits_mean));
    LH_TRY_TO(done, lh_table_cell(t, "%.0f", i->visits_p25));
    LH_TRY_TO(done, lh_table_cell(t, "%.0f", i->visits_p75));
    LH_TRY_TO(done, lh_table_cell(t, "61.3, 30, 85"));
    lh_table_print(t, stdout);
done:
    lh_table_destroy(&t);
    return rc;
}

static void add(cJSON *object, const char *name, double value)
{
    cJSON_AddNumberToObject(object, name, value);
}

/* Prints one line and frees `doc`. */
static int print_document(cJSON *doc)
{
    char *text = cJSON_PrintUnformatted(doc);
    cJSON_Delete(doc);
    if (!text)
        return lh_err_set(LH_ENOMEM, "simulate: out of memory for the result");
    puts(text);
    cJSON_free(text);
    return 0;
}

static int print_info_json(const struct options *o, const struct lh_sim_log_info *i, double seconds)
{
    cJSON *doc = cJSON_CreateObject();
    cJSON_AddStringToObject(doc, "out", o->out);
    cJSON_AddStringToObject(doc, "format", o->format == FORMAT_CSV ? "csv" : "dataset");
    add(doc, "users", (double)i->users);
    add(doc, "sessions", (double)i->sessions);
    add(doc, "requests", (double)i->requests);
    cJSON *length = cJSON_AddObjectToObject(doc, "session_length");
    add(length, "mean", i->length_mean);
    add(length, "p25", i->length_p25);
    add(length, "p75", i->length_p75);
    cJSON *hours = cJSON_AddObjectToObject(doc, "return_hours");
    add(hours, "p25", i->hours_p25);
    add(hours, "p75", i->hours_p75);
    add(doc, "reward", i->reward);
    add(doc, "seconds", seconds);
    return print_document(doc);
}

static int generate(const struct options *o, const struct lh_sim *sim)
{
    struct lh_sim_log log;
    struct lh_sim_log_info info;
    struct watch w = {.lock = PTHREAD_MUTEX_INITIALIZER};
    lh_sim_log_default(&log);
    if (o->users)
        log.users = (uint64_t)o->users;
    log.sessions = (double)o->sessions;
    log.seed = (uint64_t)o->seed;
    log.threads = threads_of(o);
    log.validation = o->validation;
    log.test = o->test;
    log.hash_partitions = (uint32_t)o->hash_partitions;
    log.by_day = o->by_day;
    log.files = (unsigned)o->files;
    log.gzip = o->gzip;
    log.replace = o->replace;
    log.progress = watch_log;
    log.ctx = &w;
    double begun = lh_now();
    lh_progress_start(&w.bar, "simulate", "users", log.users, o->quiet);
    int rc = o->format == FORMAT_CSV ? lh_sim_log_csv(sim, &log, o->out, &info)
                                     : lh_sim_log_dataset(sim, &log, o->out, &info);
    lh_progress_finish(&w.bar);
    LH_TRY(rc);
    double seconds = lh_now() - begun;
    rc = o->json ? print_info_json(o, &info, seconds) : print_info(&info);
    if (rc < 0)
        return lh_err_prefix(rc, "%s is complete, but what it holds cannot be shown", o->out);
    if (o->json)
        return 0;
    printf("\n%s: %" PRIu64 " users, %" PRIu64 " sessions, %" PRIu64
           " requests, reward %.4f a request, %.1f s\n",
           o->out, info.users, info.sessions, info.requests, info.reward, seconds);
    if (o->format == FORMAT_CSV)
        printf("next: longhaul import %s/schema.yaml --out DATASET\n", o->out);
    return 0;
}

/* --- playing ---------------------------------------------------------------------------------- */

struct played {
    const char *name;
    struct lh_sim_value value;
    struct lh_sim_difference gain;
};

struct stage { /* what all plays share */
    const struct options *o;
    const struct lh_sim *sim;
    struct lh_sim_plan *optimum, *greedy;
    uint64_t users, sessions, seed;
    unsigned threads;
};

static int builtin_of(const char *name)
{
    for (int p = 0; p < LH_SIM_POLICIES; p++)
        if (strcmp(name, lh_sim_policy_names[p]) == 0)
            return p;
    return -1;
}

static int open_run(struct lh_policy **out, const char *dir)
{
    struct lh_run *r = NULL;
    struct lh_dataset *ds = NULL;
    LH_TRY(lh_run_open(&r, dir, LH_CUT_BEST));
    size_t n;
    const struct lh_param *params = lh_graph_params(r->graph, &n);
    int rc = r->job->n_tables > 0
                 ? lh_err_set(LH_EMISMATCH,
                              "%s: a policy with embedding tables cannot be played: states of the "
                              "simulated world have no ids",
                              dir)
                 : lh_dataset_open(&ds, r->job->dataset);
    if (rc == 0)
        rc = lh_policy_create(out, r->job, lh_dataset_norm(ds), params, n, r->weights);
    lh_dataset_close(&ds);
    lh_run_close(&r);
    return rc;
}

/* A run directory holds run.json, a snapshot does not. */
static int open_policy(struct lh_policy **out, const char *name)
{
    char *mark = NULL;
    LH_TRY(lh_mem_printf(&mark, "%s/run.json", name));
    bool is_run = lh_fs_exists(mark);
    lh_mem_free(mark);
    if (is_run)
        return open_run(out, name);
    if (!lh_fs_exists(name))
        return lh_err_set(LH_ENOENT,
                          "play: '%s' is no snapshot or run, nor one of behaviour, mean, greedy, "
                          "optimum, random",
                          name);
    return lh_policy_open(out, name);
}

static int play_trained(const struct stage *s, struct played *p)
{
    struct lh_policy *policy = NULL;
    struct lh_sim_players *players = NULL;
    struct watch w = {.lock = PTHREAD_MUTEX_INITIALIZER, .act = lh_sim_players_act};
    int rc = 0;
    LH_TRY_TO(done, open_policy(&policy, p->name));
    LH_TRY_TO(done, lh_sim_players_create(&players, policy, s->threads));
    w.ctx = players;
    lh_progress_start(&w.bar, "play", "requests", 0, s->o->quiet);
    rc = lh_sim_play(s->sim, watch_act, &w, s->users, s->sessions, s->seed, s->threads, &p->value);
    lh_progress_finish(&w.bar);
done:
    lh_sim_players_destroy(&players);
    lh_policy_destroy(&policy);
    return rc;
}

static int play_one(struct stage *s, struct played *p)
{
    int builtin = builtin_of(p->name);
    if (builtin < 0)
        return play_trained(s, p);
    const struct lh_sim_plan *plan = NULL;
    if (builtin == LH_SIM_OPTIMUM)
        plan = s->optimum;
    if (builtin == LH_SIM_GREEDY) {
        if (!s->greedy)
            LH_TRY(lh_sim_optimum_create(&s->greedy, s->sim, 0.0));
        plan = s->greedy;
    }
    return lh_sim_play_builtin(s->sim, (enum lh_sim_policy)builtin, plan, s->users, s->sessions,
                               s->seed, s->threads, &p->value);
}

/* Share of the way from behaviour to optimum. */
static double closed(const struct played *all, size_t n, size_t i)
{
    return all[i].gain.mean / all[n - 1].gain.mean;
}

static int print_table(const struct played *all, size_t n)
{
    static const char *const headers[] = {
        "policy",         "reward",          "+-",  "gain", "95%", "closed", "return",
        "session length", "return time (h)", "fit", "lure"};
    struct lh_table *t = NULL;
    int rc = 0;
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (size_t i = 0; i < n; i++) {
        const struct lh_sim_value *v = &all[i].value;
        const struct lh_sim_difference *d = &all[i].gain;
        LH_TRY_TO(done, lh_table_cell(t, "%s", all[i].name));
        LH_TRY_TO(done, lh_table_cell(t, "%.4f", v->reward.mean));
        LH_TRY_TO(done, lh_table_cell(t, "%.4f", 1.959964 * v->reward.se));
        LH_TRY_TO(done, i ? lh_table_cell(t, "%+.4f", d->mean) : lh_table_cell(t, "-"));
        LH_TRY_TO(done, i ? lh_table_cell(t, "%+.4f..%+.4f", d->lo, d->hi) : lh_table_cell(t, "-"));
        LH_TRY_TO(done, lh_table_cell(t, "%.0f%%", 100.0 * closed(all, n, i)));
        LH_TRY_TO(done, lh_table_cell(t, "%.3f", v->discounted.mean));
        LH_TRY_TO(done, lh_table_cell(t, "%.2f", v->session_length.mean));
        LH_TRY_TO(done, lh_table_cell(t, "%.2f", v->return_hours.mean));
        LH_TRY_TO(done, lh_table_cell(t, "%.3f", v->fit.mean));
        LH_TRY_TO(done, lh_table_cell(t, "%.3f", v->lure.mean));
    }
    lh_table_print(t, stdout);
done:
    lh_table_destroy(&t);
    return rc;
}

static void add_mean(cJSON *to, const char *name, const char *name_se, const struct lh_sim_mean *m)
{
    add(to, name, m->mean);
    add(to, name_se, m->se);
}

static int print_json(const struct stage *s, const struct played *all, size_t n)
{
    cJSON *doc = cJSON_CreateObject();
    add(doc, "users", (double)s->users);
    add(doc, "sessions", (double)s->sessions);
    add(doc, "seed", (double)s->seed);
    add(doc, "optimum_return_by_dynamic_programming", lh_sim_optimum_value(s->optimum));
    cJSON *list = cJSON_AddArrayToObject(doc, "policies");
    for (size_t i = 0; i < n; i++) {
        const struct lh_sim_value *v = &all[i].value;
        cJSON *p = cJSON_CreateObject();
        cJSON_AddItemToArray(list, p);
        cJSON_AddStringToObject(p, "policy", all[i].name);
        add(p, "requests", (double)v->requests);
        add_mean(p, "reward", "reward_se", &v->reward);
        add_mean(p, "return", "return_se", &v->discounted);
        add_mean(p, "session_length", "session_length_se", &v->session_length);
        add_mean(p, "return_hours", "return_hours_se", &v->return_hours);
        add_mean(p, "fit", "fit_se", &v->fit);
        add_mean(p, "lure", "lure_se", &v->lure);
        add(p, "gain", all[i].gain.mean);
        add(p, "gain_lo", all[i].gain.lo);
        add(p, "gain_hi", all[i].gain.hi);
        add(p, "closed", closed(all, n, i));
    }
    return print_document(doc);
}

/* Behaviour first, what was asked for, optimum last. */
static int play_all(struct stage *s, struct played *all, size_t *n, double *base, double *mine)
{
    *n = 0;
    all[(*n)++].name = lh_sim_policy_names[LH_SIM_BEHAVIOUR];
    for (size_t i = 0; i < s->o->play.n; i++) {
        int builtin = builtin_of(s->o->play.items[i]);
        if (builtin != LH_SIM_BEHAVIOUR && builtin != LH_SIM_OPTIMUM)
            all[(*n)++].name = s->o->play.items[i];
    }
    all[(*n)++].name = lh_sim_policy_names[LH_SIM_OPTIMUM];
    for (size_t i = 0; i < *n; i++) {
        all[i].value.reward_of_user = i ? mine : base;
        LH_TRY(play_one(s, &all[i]));
        all[i].gain = lh_sim_play_difference(i ? mine : base, base, s->users);
        if (lh_cli_interrupted())
            return lh_err_set(LH_ECANCELED, "simulate: interrupted");
    }
    return 0;
}

static int play(const struct options *o, const struct lh_sim *sim)
{
    struct stage s = {.o = o,
                      .sim = sim,
                      .users = o->users ? (uint64_t)o->users : 1000,
                      .sessions = (uint64_t)o->sessions,
                      .seed = (uint64_t)o->seed,
                      .threads = threads_of(o)};
    struct played *all = NULL;
    double *base = NULL, *mine = NULL;
    size_t n;
    int rc = 0;
    LH_TRY_TO(done, LH_NEW_ARRAY(&all, o->play.n + 2, "policies to play"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&base, s.users, "values of users"));
    LH_TRY_TO(done, LH_NEW_ARRAY(&mine, s.users, "values of users"));
    LH_TRY_TO(done, lh_sim_optimum_create(&s.optimum, sim, lh_sim_config_of(sim)->gamma));
    LH_TRY_TO(done, play_all(&s, all, &n, base, mine));
    rc = o->json ? print_json(&s, all, n) : print_table(all, n);
done:
    lh_sim_optimum_destroy(&s.optimum);
    lh_sim_optimum_destroy(&s.greedy);
    lh_mem_free(all);
    lh_mem_free(base);
    lh_mem_free(mine);
    return rc;
}

/* --- the command ------------------------------------------------------------------------------ */

static int create_world(struct lh_sim **out, const struct options *o)
{
    if (o->dataset && o->world_file)
        return lh_err_set(LH_EUSAGE, "simulate: --dataset and --world-file both name a world");
    if ((o->dataset || o->world_file) && (o->world.n || o->world_seed))
        return lh_err_set(LH_EUSAGE,
                          "simulate: --world and --world-seed describe a new world; leave them out "
                          "with --dataset or --world-file");
    if (o->world_file)
        return lh_sim_load(out, o->world_file);
    if (o->dataset) {
        struct lh_dataset *ds = NULL;
        LH_TRY(lh_dataset_open(&ds, o->dataset));
        int rc = lh_sim_from_dataset(out, ds);
        lh_dataset_close(&ds);
        if (rc == LH_NOTFOUND)
            return lh_err_set(LH_EFORMAT,
                              "%s: the dataset is no simulation; it has no world to "
                              "play in",
                              o->dataset);
        return rc;
    }
    struct lh_sim_config c;
    lh_sim_config_default(&c);
    if (o->world_seed)
        c.world_seed = (uint64_t)o->world_seed;
    for (size_t i = 0; i < o->world.n; i++)
        LH_TRY(lh_sim_config_set(&c, o->world.items[i]));
    return lh_sim_create(out, &c);
}

static int run_with(const struct options *o)
{
    if (!o->out && o->play.n == 0)
        return lh_err_set(LH_EUSAGE, "simulate: give --out DIR to write a log, or --play POLICY");
    struct lh_sim *sim = NULL;
    LH_TRY(create_world(&sim, o));
    int rc = o->out ? generate(o, sim) : 0;
    if (rc == 0 && o->play.n)
        rc = play(o, sim);
    lh_sim_destroy(&sim);
    return rc;
}

static int run(int argc, char **argv)
{
    static const char *const formats[] = {"csv", "dataset", NULL};
    struct options o = {.sessions = 20,
                        .seed = 1,
                        .files = 1,
                        .hash_partitions = 1,
                        .validation = 0.05,
                        .test = 0.15};
    const struct lh_opt opts[] = {
        {"out", 'o', LH_OPT_STRING, &o.out, "DIR",
         "Where the log goes; it appears when it is whole.", 0, 0, NULL},
        {"play", 'p', LH_OPT_LIST, &o.play, "POLICY",
         "Play a snapshot, a run, behaviour, mean, greedy, optimum or random. May be given several "
         "times.",
         0, 0, NULL},
        {"users", 'n', LH_OPT_INT, &o.users, "N",
         "Users of the log or of a play. 0 means 10000 for a log, 1000 for a play.", 0,
         INT64_C(1) << 32, NULL},
        {"sessions", 0, LH_OPT_INT, &o.sessions, "N",
         "Sessions of a user: the mean in a log, the number in a play.", 1, 10000, NULL},
        {"seed", 's', LH_OPT_INT, &o.seed, "S", "Which users, and their luck.", 0, INT64_MAX, NULL},
        {"world-seed", 0, LH_OPT_INT, &o.world_seed, "S",
         "Which world: what suits whom, and what the behaviour policy does. 0 means 1.", 0,
         (int64_t)LH_SIM_SEED_MAX, NULL},
        {"world", 0, LH_OPT_LIST, &o.world, "KEY=VALUE",
         "Change a member of the world, as world.json names them: bias, noise, width, lure, gamma, "
         "weight_return, weight_length, memory, return_by_long, return_by_fit, return_by_lure, "
         "stay_by_long, stay_by_lure, erosion. May be given several times.",
         0, 0, NULL},
        {"world-file", 0, LH_OPT_STRING, &o.world_file, "FILE", "Take the world of a world.json.",
         0, 0, NULL},
        {"dataset", 'd', LH_OPT_STRING, &o.dataset, "DIR",
         "Take the world of a dataset that was simulated.", 0, 0, NULL},
        {"format", 'f', LH_OPT_CHOICE, &o.format, "FORMAT", "csv or dataset.", 0, 0, formats},
        {"files", 0, LH_OPT_INT, &o.files, "N", "CSV files to write.", 1, 99999, NULL},
        {"gzip", 'z', LH_OPT_FLAG, &o.gzip, NULL, "Compress the CSV files.", 0, 0, NULL},
        {"validation", 0, LH_OPT_DOUBLE, &o.validation, "SHARE",
         "Share of users for validation, of a dataset.", 0, 0, NULL},
        {"test", 0, LH_OPT_DOUBLE, &o.test, "SHARE", "Share of users for test, of a dataset.", 0, 0,
         NULL},
        {"by-day", 0, LH_OPT_FLAG, &o.by_day, NULL, "Cut the dataset's partitions by day.", 0, 0,
         NULL},
        {"hash-partitions", 0, LH_OPT_INT, &o.hash_partitions, "N",
         "Partitions of a dataset a split and day, by hash of user.", 1, 4096, NULL},
        {"force", 'f', LH_OPT_FLAG, &o.replace, NULL,
         "Replace an earlier log or dataset at DIR, in one step. Nothing else is ever replaced.", 0,
         0, NULL},
        {"threads", 't', LH_OPT_INT, &o.threads, "N", "Threads to use; 0 for one a processor.", 0,
         1024, NULL},
        {"json", 0, LH_OPT_FLAG, &o.json, NULL, "Print JSON for programs.", 0, 0, NULL},
        {"quiet", 'q', LH_OPT_FLAG, &o.quiet, NULL, "Show no progress.", 0, 0, NULL},
    };
    enum { N = sizeof opts / sizeof *opts };
    int rc = lh_cli_parse(&lh_cmd_simulate, opts, N, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    rc = run_with(&o);
    lh_cli_fini(opts, N);
    return rc;
}

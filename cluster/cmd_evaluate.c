/* `longhaul evaluate`: what policies are worth on a dataset, by NCIS beside the log's own value; on
 * a log of the simulator, their true values too. */
#include "cluster/behaviour_train.h"
#include "cluster/cli.h"
#include "cluster/compare.h"
#include "cluster/train.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/pool.h"
#include "common/snapshot.h"
#include "common/term.h"
#include "worker/evaluate.h"
#include "worker/sim_play.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_evaluate = {
    .name = "evaluate",
    .summary = "estimate the value of policies from a log",
    .usage = "--snapshot DIR | --run DIR | --policy behaviour [options]",
    .description =
        "Estimates what policies would have earned on the users of a split by normalised capped "
        "importance sampling (ResAct Eq. 15): per trajectory the mean reward, weighted by how "
        "likely the policy and the behaviour model are to act as was logged; then the mean over "
        "trajectories. --unit session: the mean reward of a session, weighted by the mean weight "
        "of its rows; for rewards that a session earns as a whole. Beside each value stand "
        "its 95% interval over trajectories, the difference to the log's own value paired by "
        "trajectory, and the effective sample size (ESS): how many rows or sessions carry the "
        "estimate. A policy whose ESS is below the floor has left the data; its value is flagged "
        "and must not be ranked.\n"
        "With several policies each is one row, and every two are compared trajectory by "
        "trajectory. --pool makes the runs of one algorithm one policy, averaged by trajectory: "
        "for runs that differ in their training seed. With --seeds, execution is repeated with "
        "other random numbers and values are averaged by trajectory.\n"
        "For a policy that chooses among candidates a second table tells how: 'spread', the RMS "
        "distance of a state's candidates from their mean (near 0: there is nothing to choose); "
        "'Q gain', what the best has over the mean candidate in the critic's eyes; 'Q chosen', "
        "what the critic expects of it; 'residual', the norm of its residual.\n"
        "On a log that 'longhaul simulate' wrote, the policies are also played in the world "
        "behind it: 'true' is the reward per request that they really earn, 'return' the "
        "discounted return of a user.",
    .examples = "longhaul evaluate --snapshot policy/\n"
                "longhaul evaluate --run runs/resact --run runs/il --seeds 5\n"
                "longhaul evaluate --pool --run il-1 --run il-2 --run resact-1 --run resact-2\n"
                "longhaul evaluate --policy behaviour --dataset data/ml1m --split train",
    .run = run,
};

struct options {
    struct lh_opt_list snapshots, runs;
    const char *dataset, *behaviour;
    int policy, split, unit; /* unit -1: what the first policy's job says */
    double cap, floor;
    int64_t seed, seeds, estimators, threads, users, sessions;
    bool pool, json;
};

/* One row of the result. */
struct subject {
    const char *name;
    struct lh_policy *policy;     /* NULL: the log's own value */
    struct lh_run *run;           /* where it looks rows of tables up */
    struct lh_snapshot *snapshot; /* likewise */
    struct lh_estimate e;
    struct lh_choice choice;        /* mean over seeds; states 0: does not choose */
    double *values;                 /* [trajectories] */
    double seed_sd;                 /* of the value over seeds */
    struct lh_sim_value true_value; /* users 0: not played */
};

struct session {
    struct options o;
    struct lh_dataset *ds;
    struct lh_behaviour *behaviour;
    char *behaviour_path;
    struct lh_sim *sim; /* NULL: a real log */
    struct subject *subjects;
    size_t n;              /* [0] is the log itself */
    double *own, *scratch; /* [trajectories] */
    struct lh_compare compare;
};

/* --- opening ---------------------------------------------------------------------------------- */

static int open_dataset(struct session *s, const struct lh_job *job)
{
    const char *dir = s->o.dataset ? s->o.dataset : job ? job->dataset : NULL;
    if (s->ds)
        return 0;
    if (!dir)
        return lh_err_set(LH_EUSAGE, "which log? name it with --dataset DIR");
    return lh_dataset_open(&s->ds, dir);
}

static int open_run(struct session *s, struct subject *subject)
{
    size_t n;
    LH_TRY(lh_run_open(&subject->run, subject->name, LH_CUT_BEST));
    const struct lh_run *r = subject->run;
    LH_TRY(open_dataset(s, r->job));
    const struct lh_param *params = lh_graph_params(r->graph, &n);
    const struct lh_dataset_info *info = lh_dataset_info(s->ds);
    LH_TRY(
        lh_policy_create(&subject->policy, r->job, lh_dataset_norm(s->ds), params, n, r->weights));
    return lh_policy_attach(subject->policy, &r->rows, info->id_names, info->dims.ids);
}

static int open_snapshot(struct session *s, struct subject *subject)
{
    LH_TRY(lh_snapshot_open(&subject->snapshot, subject->name));
    LH_TRY(lh_policy_from_snapshot(&subject->policy, subject->snapshot));
    LH_TRY(open_dataset(s, subject->snapshot->job));
    const struct lh_dataset_info *info = lh_dataset_info(s->ds);
    const struct lh_row_source rows = lh_snapshot_rows(subject->snapshot);
    return lh_policy_attach(subject->policy, &rows, info->id_names, info->dims.ids);
}

static int open_subjects(struct session *s)
{
    const struct options *o = &s->o;
    LH_TRY(LH_NEW_ARRAY(&s->subjects, 1 + o->snapshots.n + o->runs.n, "evaluation"));
    s->subjects[s->n++].name = "the log";
    for (size_t i = 0; i < o->snapshots.n; i++) {
        struct subject *subject = &s->subjects[s->n++];
        subject->name = o->snapshots.items[i];
        LH_TRY(open_snapshot(s, subject));
    }
    for (size_t i = 0; i < o->runs.n; i++) {
        struct subject *subject = &s->subjects[s->n++];
        subject->name = o->runs.items[i];
        LH_TRY(open_run(s, subject));
    }
    for (size_t i = 1; o->estimators > 0 && i < s->n; i++)
        LH_TRY(lh_policy_set_estimators(s->subjects[i].policy, (size_t)o->estimators));
    return open_dataset(s, NULL);
}

static int open_behaviour(struct session *s)
{
    if (s->n == 1)
        return 0;
    const char *choice =
        s->o.behaviour ? s->o.behaviour : lh_policy_job(s->subjects[1].policy)->behaviour;
    LH_TRY(lh_behaviour_train_ensure(&s->behaviour_path, s->ds, choice, (unsigned)s->o.threads,
                                     s->o.json));
    return lh_behaviour_open(&s->behaviour, s->ds, s->behaviour_path);
}

/* --- estimating ------------------------------------------------------------------------------- */

static struct lh_evaluate_spec spec_of(const struct session *s, struct lh_policy *policy,
                                       int64_t seed)
{
    return (struct lh_evaluate_spec){.ds = s->ds,
                                     .split = (enum lh_split)s->o.split,
                                     .policy = policy,
                                     .behaviour = policy ? s->behaviour : NULL,
                                     .cap = s->o.cap,
                                     .unit = (enum lh_unit)s->o.unit,
                                     .seed = (uint64_t)seed,
                                     .interrupted = lh_cli_interrupted};
}

static int estimate_log(struct session *s)
{
    struct lh_evaluation e;
    struct lh_evaluate_spec spec = spec_of(s, NULL, 0);
    LH_TRY(lh_evaluate(&spec, s->o.floor, (unsigned)s->o.threads, &e, &s->own));
    s->subjects[0].e = e.behaviour;
    return LH_NEW_ARRAY(&s->scratch, e.behaviour.trajectories, "evaluation");
}

/* One seed after the other; the values of a trajectory are averaged, then compared and spread. */
static int estimate_policy(struct session *s, struct subject *subject)
{
    size_t n = (size_t)s->subjects[0].e.trajectories;
    double seeds = (double)s->o.seeds, sum = 0, squares = 0;
    struct lh_estimate mean = {0};
    LH_TRY(LH_NEW_ARRAY(&subject->values, n, "evaluation"));
    for (int64_t k = 0; k < s->o.seeds; k++) {
        struct lh_evaluation e;
        double *per = NULL;
        struct lh_evaluate_spec spec = spec_of(s, subject->policy, s->o.seed + k);
        LH_TRY(lh_evaluate(&spec, s->o.floor, (unsigned)s->o.threads, &e, &per));
        for (size_t i = 0; i < n; i++)
            subject->values[i] += per[i] / seeds;
        lh_mem_free(per);
        sum += e.policy.value;
        squares += e.policy.value * e.policy.value;
        mean.ess += e.policy.ess / seeds;
        mean.ess_share += e.policy.ess_share / seeds;
        mean.mean_distance += e.policy.mean_distance / seeds;
        subject->choice.states = e.choice.states;
        subject->choice.q += e.choice.q / seeds;
        subject->choice.gain += e.choice.gain / seeds;
        subject->choice.spread += e.choice.spread / seeds;
        subject->choice.residual += e.choice.residual / seeds;
    }
    lh_ncis_interval(subject->values, n, &mean.value, &mean.lo, &mean.hi);
    lh_ncis_pair(&mean, subject->values, s->own, n, s->scratch);
    mean.trajectories = n;
    mean.units = s->subjects[0].e.units;
    mean.collapsed = mean.ess_share < s->o.floor;
    subject->e = mean;
    if (s->o.seeds > 1)
        subject->seed_sd = sqrt(fmax(0, squares - sum * sum / seeds) / (seeds - 1));
    return 0;
}

static int play(struct session *s, struct subject *subject)
{
    uint64_t users = (uint64_t)s->o.users, sessions = (uint64_t)s->o.sessions;
    uint64_t seed = (uint64_t)s->o.seed;
    if (!s->sim || users == 0)
        return 0;
    if (!subject->policy)
        return lh_sim_play_builtin(s->sim, LH_SIM_BEHAVIOUR, NULL, users, sessions, seed,
                                   (unsigned)s->o.threads, &subject->true_value);
    return lh_sim_play_policy(s->sim, subject->policy, users, sessions, seed,
                              (unsigned)s->o.threads, &subject->true_value);
}

static int evaluate_all(struct session *s)
{
    LH_TRY(estimate_log(s));
    for (size_t i = 0; i < s->n; i++) {
        if (!s->o.json)
            lh_note("evaluating %s on %llu %s", s->subjects[i].name,
                    (unsigned long long)s->subjects[0].e.units, lh_unit_plural[s->o.unit]);
        if (s->subjects[i].policy)
            LH_TRY(estimate_policy(s, &s->subjects[i]));
        LH_TRY(play(s, &s->subjects[i]));
    }
    return 0;
}

static int compare(struct session *s)
{
    struct lh_compare_entry *entries = NULL;
    LH_TRY(LH_NEW_ARRAY(&entries, s->n, "comparison"));
    for (size_t i = 1; i < s->n; i++)
        entries[i - 1] =
            (struct lh_compare_entry){.name = s->subjects[i].name,
                                      .algorithm = lh_policy_job(s->subjects[i].policy)->algorithm,
                                      .values = s->subjects[i].values,
                                      .ess_share = s->subjects[i].e.ess_share};
    int rc = lh_compare_init(&s->compare, entries, s->n - 1, (size_t)s->subjects[0].e.trajectories,
                             s->o.pool);
    lh_mem_free(entries);
    return rc;
}

/* --- showing ---------------------------------------------------------------------------------- */

static int table_row(struct lh_table *t, const struct subject *u, bool seeds, bool played)
{
    const struct lh_estimate *e = &u->e;
    LH_TRY(lh_table_cell(t, "%s", u->name));
    LH_TRY(lh_table_cell(t, "%.4f", e->value));
    LH_TRY(lh_table_cell(t, "%.4f to %.4f", e->lo, e->hi));
    if (u->policy) {
        LH_TRY(lh_table_cell(t, "%+.4f (%+.4f to %+.4f)", e->difference, e->difference_lo,
                             e->difference_hi));
        LH_TRY(lh_table_cell(t, "%.0f (%.1f%%)", e->ess, 100 * e->ess_share));
        LH_TRY(lh_table_cell(t, "%.2f", e->mean_distance));
    } else {
        LH_TRY(lh_table_cell(t, "-"));
        LH_TRY(lh_table_cell(t, "%.0f (100%%)", e->ess));
        LH_TRY(lh_table_cell(t, "-"));
    }
    if (seeds)
        LH_TRY(u->policy ? lh_table_cell(t, "%.4f", u->seed_sd) : lh_table_cell(t, "-"));
    if (played) {
        const struct lh_sim_value *v = &u->true_value;
        LH_TRY(lh_table_cell(t, "%.4f +- %.4f", v->reward.mean, 1.96 * v->reward.se));
        LH_TRY(lh_table_cell(t, "%.4f +- %.4f", v->discounted.mean, 1.96 * v->discounted.se));
    }
    return lh_table_cell(t, "%s", e->collapsed ? "ESS COLLAPSED: left the data" : "");
}

/* Only where a policy chooses among candidates. */
static int print_choices(const struct session *s)
{
    static const char *const headers[] = {"policy", "candidates", "spread",
                                          "Q gain", "Q chosen",   "residual"};
    struct lh_table *t = NULL;
    size_t choosing = 0;
    int rc = 0;
    LH_TRY(lh_table_create(&t, headers, sizeof headers / sizeof *headers));
    for (size_t i = 1; i < s->n; i++) {
        const struct lh_choice *c = &s->subjects[i].choice;
        if (c->states == 0)
            continue;
        choosing++;
        LH_TRY_TO(fail, lh_table_cell(t, "%s", s->subjects[i].name));
        LH_TRY_TO(fail, lh_table_cell(t, "%zu", lh_policy_estimators(s->subjects[i].policy)));
        LH_TRY_TO(fail, lh_table_cell(t, "%.4f", c->spread));
        LH_TRY_TO(fail, lh_table_cell(t, "%.4f", c->gain));
        LH_TRY_TO(fail, lh_table_cell(t, "%.4f", c->q));
        LH_TRY_TO(fail, lh_table_cell(t, "%.4f", c->residual));
    }
    if (choosing) {
        printf("\nHow they choose, means over rows; actions in scaled units\n\n");
        lh_table_print(t, stdout);
    }
fail:
    lh_table_destroy(&t);
    return rc;
}

static int print_table(const struct session *s)
{
    bool seeds = s->o.seeds > 1, played = s->subjects[0].true_value.users > 0;
    const char *headers[10] = {"policy",       "value",      "95% interval",
                               "over the log", "ESS (rows)", "distance"};
    size_t n = 6;
    if (s->o.unit == LH_UNIT_SESSION)
        headers[4] = "ESS (sessions)";
    if (seeds)
        headers[n++] = "sd of seeds";
    if (played) {
        headers[n++] = "true";
        headers[n++] = "true return";
    }
    headers[n++] = "";
    struct lh_table *t = NULL;
    int rc = 0;
    LH_TRY(lh_table_create(&t, headers, n));
    for (size_t i = 0; i < s->n; i++)
        LH_TRY_TO(fail, table_row(t, &s->subjects[i], seeds, played));
    lh_table_print(t, stdout);
    printf("\nNCIS on %s, %s split: %llu trajectories, %llu %s, c = %g\n", lh_dataset_dir(s->ds),
           lh_split_names[s->o.split], (unsigned long long)s->subjects[0].e.trajectories,
           (unsigned long long)s->subjects[0].e.units, lh_unit_plural[s->o.unit], s->o.cap);
    LH_TRY_TO(fail, lh_compare_print(&s->compare, stdout));
    rc = print_choices(s);
fail:
    lh_table_destroy(&t);
    return rc;
}

static void add_mean(cJSON *o, const char *name, const struct lh_sim_mean *m)
{
    cJSON *v = cJSON_AddObjectToObject(o, name);
    cJSON_AddNumberToObject(v, "mean", m->mean);
    cJSON_AddNumberToObject(v, "se", m->se);
}

static cJSON *subject_json(const struct session *s, const struct subject *u)
{
    cJSON *o = lh_evaluate_json_estimate(&u->e, (enum lh_unit)s->o.unit, u->policy != NULL);
    cJSON_AddStringToObject(o, "name", u->name);
    if (u->policy) {
        cJSON_AddStringToObject(o, "algorithm", lh_policy_job(u->policy)->algorithm);
        cJSON_AddNumberToObject(o, "estimators", (double)lh_policy_estimators(u->policy));
        cJSON_AddNumberToObject(o, "seeds", (double)s->o.seeds);
        cJSON_AddNumberToObject(o, "seed_sd", u->seed_sd);
    }
    if (u->choice.states)
        cJSON_AddItemToObject(o, "choice", lh_evaluate_json_choice(&u->choice));
    if (u->true_value.users) {
        cJSON *t = cJSON_AddObjectToObject(o, "true");
        cJSON_AddNumberToObject(t, "users", (double)u->true_value.users);
        add_mean(t, "reward", &u->true_value.reward);
        add_mean(t, "return", &u->true_value.discounted);
        add_mean(t, "session_length", &u->true_value.session_length);
        add_mean(t, "return_hours", &u->true_value.return_hours);
    }
    return o;
}

static int print_json(const struct session *s)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "dataset", lh_dataset_dir(s->ds));
    cJSON_AddStringToObject(o, "split", lh_split_names[s->o.split]);
    cJSON_AddStringToObject(o, "estimator", "ncis");
    cJSON_AddNumberToObject(o, "cap", s->o.cap);
    cJSON_AddStringToObject(o, "unit", lh_unit_names[s->o.unit]);
    cJSON_AddNumberToObject(o, "ess_floor", s->o.floor);
    if (s->behaviour_path)
        cJSON_AddStringToObject(o, "behaviour_model", s->behaviour_path);
    cJSON_AddItemToObject(o, "log", subject_json(s, &s->subjects[0]));
    cJSON *policies = cJSON_AddArrayToObject(o, "policies");
    for (size_t i = 1; i < s->n; i++)
        cJSON_AddItemToArray(policies, subject_json(s, &s->subjects[i]));
    lh_compare_json(&s->compare, o);
    char *text = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "evaluation: out of memory; free memory and run it again");
    puts(text);
    cJSON_free(text);
    return 0;
}

/* --- the command ------------------------------------------------------------------------------ */

static int evaluate(struct session *s)
{
    if (s->o.snapshots.n + s->o.runs.n == 0 && s->o.policy < 0)
        return lh_err_set(LH_EUSAGE, "evaluate what? give --snapshot DIR, --run DIR, or --policy "
                                     "behaviour for the log's own value");
    LH_TRY(open_subjects(s));
    if (s->o.unit < 0)
        s->o.unit = s->n > 1 ? (int)lh_policy_job(s->subjects[1].policy)->unit : LH_UNIT_ROW;
    int rc = lh_sim_from_dataset(&s->sim, s->ds);
    if (rc < 0)
        return rc;
    LH_TRY(open_behaviour(s));
    LH_TRY(evaluate_all(s));
    LH_TRY(compare(s));
    return s->o.json ? print_json(s) : print_table(s);
}

static void session_fini(struct session *s)
{
    lh_compare_fini(&s->compare);
    for (size_t i = 0; i < s->n; i++) {
        lh_policy_destroy(&s->subjects[i].policy);
        lh_snapshot_close(&s->subjects[i].snapshot);
        lh_run_close(&s->subjects[i].run);
        lh_mem_free(s->subjects[i].values);
    }
    lh_mem_free(s->subjects);
    lh_mem_free(s->own);
    lh_mem_free(s->scratch);
    lh_sim_destroy(&s->sim);
    lh_behaviour_close(&s->behaviour);
    lh_mem_free(s->behaviour_path);
    lh_dataset_close(&s->ds);
}

static int run(int argc, char **argv)
{
    static const char *const policies[] = {"behaviour", NULL};
    static const char *const splits[] = {"train", "validation", "test", NULL};
    struct session s = {.o = {.policy = -1,
                              .split = LH_TEST,
                              .unit = -1,
                              .cap = 10,
                              .floor = 0.1,
                              .seeds = 1,
                              .users = 2000,
                              .sessions = 20}};
    struct options *o = &s.o;
    const struct lh_opt opts[] = {
        {.name = "snapshot",
         .kind = LH_OPT_LIST,
         .value = &o->snapshots,
         .metavar = "DIR",
         .help = "A snapshot ('longhaul export') to evaluate; may be given several times."},
        {.name = "run",
         .kind = LH_OPT_LIST,
         .value = &o->runs,
         .metavar = "DIR",
         .help = "A run ('longhaul train --dir'), whose best checkpoint is evaluated; may be given "
                 "several times."},
        {.name = "policy",
         .kind = LH_OPT_CHOICE,
         .value = &o->policy,
         .choices = policies,
         .help = "behaviour: only the log's own value, all weights 1. (It stands beside every "
                 "evaluation.)"},
        {.name = "dataset",
         .letter = 'd',
         .kind = LH_OPT_STRING,
         .value = &o->dataset,
         .metavar = "DIR",
         .help = "The log. By default the one the policy was trained on."},
        {.name = "split",
         .kind = LH_OPT_CHOICE,
         .value = &o->split,
         .choices = splits,
         .help = "Whose users."},
        {.name = "behaviour",
         .kind = LH_OPT_STRING,
         .value = &o->behaviour,
         .metavar = "DIR",
         .help = "The model of the logging policy: a snapshot, or auto, which trains an imitation "
                 "model once for the dataset. By default what the policy's job says."},
        {.name = "unit",
         .kind = LH_OPT_CHOICE,
         .value = &o->unit,
         .choices = lh_unit_names,
         .help = "What a weight is of: a row and its reward, or a session and all of its. By "
                 "default what the first policy's job says; without a policy, row."},
        {.name = "cap",
         .kind = LH_OPT_DOUBLE,
         .value = &o->cap,
         .metavar = "C",
         .help = "Importance weights are capped at C."},
        {.name = "ess-floor",
         .kind = LH_OPT_DOUBLE,
         .value = &o->floor,
         .metavar = "SHARE",
         .help = "A policy whose ESS is a smaller share of the rows or sessions is flagged."},
        {.name = "estimators",
         .kind = LH_OPT_INT,
         .value = &o->estimators,
         .metavar = "N",
         .min = 0,
         .max = LH_POLICY_ESTIMATORS_MAX,
         .help = "Candidates a state, instead of what the policy was trained with; 0: as trained."},
        {.name = "seed",
         .kind = LH_OPT_INT,
         .value = &o->seed,
         .metavar = "S",
         .min = 0,
         .max = INT64_MAX / 2,
         .help = "Of the policy's random numbers, and of the players."},
        {.name = "seeds",
         .kind = LH_OPT_INT,
         .value = &o->seeds,
         .metavar = "N",
         .min = 1,
         .max = 10000,
         .help = "Evaluate with seeds S to S + N - 1 and average."},
        {.name = "users",
         .kind = LH_OPT_INT,
         .value = &o->users,
         .metavar = "N",
         .min = 0,
         .max = 100000000,
         .help = "On a simulated log: users that are played for the true value; 0: none."},
        {.name = "sessions",
         .kind = LH_OPT_INT,
         .value = &o->sessions,
         .metavar = "N",
         .min = 1,
         .max = 1000000,
         .help = "On a simulated log: sessions that a user is played."},
        {.name = "threads",
         .kind = LH_OPT_INT,
         .value = &o->threads,
         .metavar = "N",
         .min = 0,
         .max = 4096,
         .help = "Threads; 0: one a processor. The result does not depend on it."},
        {.name = "pool",
         .kind = LH_OPT_FLAG,
         .value = &o->pool,
         .help = "Runs of one algorithm are one policy, averaged by trajectory."},
        {.name = "json",
         .kind = LH_OPT_FLAG,
         .value = &o->json,
         .help = "Write one JSON object instead of a table."},
    };
    size_t n_opts = sizeof opts / sizeof *opts, n = 0;
    const char *none[1];
    int rc = lh_cli_parse(&lh_cmd_evaluate, opts, n_opts, argc, argv, none, 0, 0, &n);
    if (o->threads == 0)
        o->threads = lh_pool_cpus();
    if (rc == 0 && !(o->cap > 0))
        rc = lh_err_set(LH_EUSAGE, "--cap %g: a positive number is needed", o->cap);
    if (rc == 0)
        rc = evaluate(&s);
    session_fini(&s);
    lh_cli_fini(opts, n_opts);
    return rc;
}

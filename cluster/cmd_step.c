/* `longhaul step`: training steps on given arrays, and everything that comes out of them. It is a
 * run like any other, with a scheduler, servers and workers: only rows, noise and first weights
 * come from files, and somebody looks at the sums of gradients that the servers have made. */
#include "cluster/cli.h"
#include "cluster/run.h"
#include "cluster/step_case.h"
#include "cluster/train.h"
#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/npy.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_step = {
    .name = "step",
    .summary = "run training steps on given arrays and write what comes out",
    .usage = "--case DIR --out OUT [options]",
    .description =
        "Runs one training step (or --steps N consecutive ones) of ResAct, IL or IL_CVAE on arrays "
        "from files, to hold it against another implementation. The step is that of training: "
        "workers pull weights from servers and push gradients, servers apply Adam and the soft "
        "update. Arrays are .npy files (version 1.0 or 2.0; float32, float64 or int64, C order); "
        "all is computed in float32.\n\n"
        "DIR holds\n"
        "  config.yaml       a job; its dataset and the lengths of batch and run do not matter,\n"
        "                    and objective.bound is none, the literal paper, unless it says\n"
        "                    otherwise. Nothing is normalised.\n"
        "  batch/NAME.npy    s_h s_l a s_h_next s_l_next [B, width]; r done [B]; and r_class [B],\n"
        "                    the reward's class for L_Exp, where rewards are classes: without it\n"
        "                    the reward head is a normal, mean and log standard deviation\n"
        "  noise/NAME.npy    standard normals [B, width]: c_enc, the encoder's latent; c_pi and\n"
        "                    c_next, the decoder's latents for the policy and the next action;\n"
        "                    h_pi and h_next, z_h now and next\n"
        "  param/NAME.npy    weights: cvae.encoder cvae.decoder actor.high actor.low actor.sub\n"
        "                    critic.1 critic.2 reward, each with .K.weight [out, in] and\n"
        "                    .K.bias [out], K = 0, 1, …\n"
        "  target/NAME.npy   target copies of decoder, actor and critics\n\n"
        "Only what the algorithm reads need be there: il reads s_h s_l a and cvae.decoder, whose "
        "input is (s_h, s_l); il_cvae reads c_enc and cvae.encoder as well. ResAct with "
        "objective.cvae: false has the decoder of il. With --steps N the arrays of batch and noise "
        "have N times B rows, batch after batch. B need not be a multiple of train.micro_batch.\n\n"
        "OUT gets\n"
        "  loss/NAME.npy     rec kl td1 td2 j exp con as they are before weighting (il: rec;\n"
        "                    il_cvae: rec kl): one number, or [N] with --steps N\n"
        "  metric/NAME.npy   what the algorithm reports besides, likewise\n"
        "  grad/NAME.npy     the gradient of the (last) batch, as the servers summed it\n"
        "  param_after/NAME.npy, target_after/NAME.npy   after Adam, and after the soft update\n\n"
        "OUT appears whole or not at all; an OUT of an earlier step is replaced.",
    .examples = "longhaul step --case case --out out\n"
                "longhaul step --case case --out out --steps 100 --workers 2 --servers 2",
    .run = run,
};

struct options {
    const char *dir, *out;
    int64_t steps, workers, servers;
    bool json;
};

struct step {
    const struct options *opt;
    struct lh_step_case *c;
    struct lh_fs_partial partial; /* OUT on its way */
    char *run_dir;                /* inside of it */
    float *gradient;              /* [flat_size] of the last step */
    float *metrics;               /* [steps, metrics] */
};

/* --- what comes out ---------------------------------------------------------------------------
 */

/* Each server writes its own range. */
static void look(void *onlooker, const struct lh_server_sum *sum)
{
    struct step *s = onlooker;
    const struct lh_shard_range *r = sum->range;
    const size_t n = lh_graph_metrics(s->c->model.graph);
    if (sum->metrics)
        memcpy(s->metrics + sum->step * n, sum->metrics, n * sizeof(float));
    if (sum->step + 1 == s->c->job->steps)
        memcpy(s->gradient + r->lo, sum->gradient, (size_t)(r->hi - r->lo) * sizeof(float));
}

static int write_array(const struct step *s, const char *folder, const char *name, const float *x,
                       const size_t *shape, size_t rank)
{
    char *path = NULL;
    LH_TRY(lh_mem_printf(&path, "%s/%s/%s.npy", s->partial.path, folder, name));
    int rc = lh_npy_write(path, x, shape, rank);
    lh_mem_free(path);
    return rc;
}

static int make_folder(const struct step *s, const char *folder)
{
    char *path = NULL;
    LH_TRY(lh_mem_printf(&path, "%s/%s", s->partial.path, folder));
    int rc = lh_fs_mkdirs(path);
    lh_mem_free(path);
    return rc;
}

static bool any(const struct lh_param *p)
{
    (void)p;
    return true;
}

static bool has_target(const struct lh_param *p)
{
    return p->has_target;
}

static int write_tensors(const struct step *s, const char *folder, const float *flat,
                         bool (*wanted)(const struct lh_param *p))
{
    size_t n, shape[2];
    const struct lh_param *p = lh_graph_params(s->c->model.graph, &n);
    LH_TRY(make_folder(s, folder));
    for (size_t i = 0; i < n; i++) {
        const size_t rank = lh_step_case_shape(&p[i], shape);
        if (wanted(&p[i]))
            LH_TRY(write_array(s, folder, p[i].name, flat + p[i].offset, shape, rank));
    }
    return 0;
}

static int write_metrics(const struct step *s)
{
    const struct lh_graph *g = s->c->model.graph;
    const size_t n = lh_graph_metrics(g), steps = s->c->job->steps;
    float *column = NULL;
    int rc;
    LH_TRY(LH_NEW_ARRAY(&column, steps, "metrics"));
    LH_TRY_TO(done, make_folder(s, "loss"));
    LH_TRY_TO(done, make_folder(s, "metric"));
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < steps; k++)
            column[k] = s->metrics[k * n + i];
        LH_TRY_TO(done, write_array(s, i < lh_graph_losses(g) ? "loss" : "metric",
                                    lh_graph_metric_name(g, i), column, &steps, steps > 1));
    }
done:
    lh_mem_free(column);
    return rc;
}

static int write_all(const struct step *s)
{
    struct lh_run *r = NULL;
    int rc;
    LH_TRY_TO(done, write_metrics(s));
    LH_TRY_TO(done, write_tensors(s, "grad", s->gradient, any));
    LH_TRY_TO(done, lh_run_open(&r, s->run_dir, LH_CUT_LAST));
    LH_TRY_TO(done, write_tensors(s, "param_after", r->weights, any));
    LH_TRY_TO(done, write_tensors(s, "target_after", r->targets, has_target));
done:
    lh_run_close(&r);
    return rc;
}

/* --- running ----------------------------------------------------------------------------------
 */
static int train(struct step *s)
{
    struct lh_train_result result;
    const struct lh_train_given given = {.batches = &s->c->batches,
                                         .initial = {s->c->weights, s->c->targets},
                                         .look = look,
                                         .onlooker = s};
    int rc = lh_train(s->c->job,
                      &(struct lh_train_options){.dir = s->run_dir,
                                                 .workers = (unsigned)s->opt->workers,
                                                 .servers = (unsigned)s->opt->servers,
                                                 .launcher = LH_LAUNCH_LOCAL,
                                                 .transport = LH_TRANSPORT_INPROC,
                                                 .quiet = true,
                                                 .no_evaluation = true,
                                                 .given = &given},
                      &result);
    if (rc == LH_ECANCELED)
        return lh_err_set(rc, "step: interrupted; %s was not written", s->opt->out);
    return rc;
}

static int print(const struct step *s)
{
    const struct lh_graph *g = s->c->model.graph;
    const struct lh_job *job = s->c->job;
    const float *last = s->metrics + (job->steps - 1) * lh_graph_metrics(g);
    if (!s->opt->json) {
        printf("%s: %" PRIu64 " step%s of %s, batch %zu:", s->opt->out, job->steps,
               job->steps == 1 ? "" : "s", job->algorithm, job->batch);
        for (size_t i = 0; i < lh_graph_losses(g); i++)
            printf(" %s %.6g", lh_graph_metric_name(g, i), (double)last[i]);
        putchar('\n');
        return 0;
    }
    cJSON *o = cJSON_CreateObject(), *losses = cJSON_AddObjectToObject(o, "loss");
    cJSON_AddStringToObject(o, "out", s->opt->out);
    cJSON_AddStringToObject(o, "algorithm", job->algorithm);
    cJSON_AddNumberToObject(o, "steps", (double)job->steps);
    cJSON_AddNumberToObject(o, "batch", (double)job->batch);
    for (size_t i = 0; i < lh_graph_losses(g); i++)
        cJSON_AddNumberToObject(losses, lh_graph_metric_name(g, i), (double)last[i]);
    char *text = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    if (!text)
        return lh_err_set(LH_ENOMEM, "step: out of memory for the result");
    puts(text);
    cJSON_free(text);
    return 0;
}

/* What may be replaced: what an earlier step wrote, or a directory without anything. */
static const char *marker_of(const char *out)
{
    DIR *d = opendir(out);
    bool empty = d;
    for (struct dirent *e; d && (e = readdir(d));)
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
    if (d)
        closedir(d);
    return empty ? "." : "param_after";
}

static int begin(struct step *s)
{
    const size_t steps = s->c->job->steps, flat = s->c->model.layout.flat_size;
    size_t n;
    LH_TRY(lh_mem_mul(&n, steps, lh_graph_metrics(s->c->model.graph)));
    LH_TRY(LH_NEW_ARRAY(&s->metrics, n, "metrics"));
    LH_TRY(LH_NEW_ARRAY(&s->gradient, flat, "gradient"));
    LH_TRY(lh_fs_partial_begin(&s->partial, s->opt->out, true, marker_of(s->opt->out)));
    return lh_mem_printf(&s->run_dir, "%s/run", s->partial.path);
}

static int step(const struct options *o)
{
    struct step s = {.opt = o, .partial = {.lock = -1}};
    int rc;
    LH_TRY_TO(done, lh_step_case_open(&s.c, o->dir, (uint64_t)o->steps));
    LH_TRY_TO(done, begin(&s));
    LH_TRY_TO(done, train(&s));
    LH_TRY_TO(done, write_all(&s));
    LH_TRY_TO(done, lh_fs_remove_tree(s.run_dir));
    LH_TRY_TO(done, lh_fs_partial_commit(&s.partial));
    rc = print(&s);
done:
    lh_fs_partial_abort(&s.partial);
    lh_mem_free(s.run_dir);
    lh_mem_free(s.metrics);
    lh_mem_free(s.gradient);
    lh_step_case_close(&s.c);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o = {.steps = 1, .workers = 1, .servers = 1};
    const struct lh_opt opts[] = {
        {.name = "case",
         .letter = 'c',
         .kind = LH_OPT_STRING,
         .value = &o.dir,
         .metavar = "DIR",
         .help = "The case: config.yaml, batch, noise, param, target."},
        {.name = "out",
         .letter = 'o',
         .kind = LH_OPT_STRING,
         .value = &o.out,
         .metavar = "OUT",
         .help = "The directory to write."},
        {.name = "steps",
         .kind = LH_OPT_INT,
         .value = &o.steps,
         .metavar = "N",
         .min = 1,
         .max = 1 << 20,
         .help = "Steps, one after the other; the optimiser's state is kept between them."},
        {.name = "workers",
         .letter = 'w',
         .kind = LH_OPT_INT,
         .value = &o.workers,
         .metavar = "N",
         .min = 1,
         .max = 4096,
         .help = "Workers; what comes out does not depend on it."},
        {.name = "servers",
         .letter = 's',
         .kind = LH_OPT_INT,
         .value = &o.servers,
         .metavar = "M",
         .min = 1,
         .max = 60,
         .help = "Parameter servers; what comes out does not depend on it."},
        {.name = "json",
         .kind = LH_OPT_FLAG,
         .value = &o.json,
         .help = "Report as one JSON object."},
    };
    enum { N_OPTS = sizeof opts / sizeof *opts };
    int rc = lh_cli_parse(&lh_cmd_step, opts, N_OPTS, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    if (!o.dir || !o.out)
        return lh_err_set(LH_EUSAGE, "step: --%s is needed; usage: longhaul step %s",
                          o.dir ? "out OUT" : "case DIR", lh_cmd_step.usage);
    return step(&o);
}

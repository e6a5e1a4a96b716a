/* The table of a job's keys. Order is the order of files that longhaul writes; sections must be
 * contiguous. Defaults of the method are ResAct's Table 5. */
#include "common/job_table.h"

#include "common/job.h"

#include <assert.h>
#include <stdint.h>

static_assert(sizeof(size_t) == sizeof(uint64_t), "sizes are read and written as 64-bit numbers");

static const char *const algorithms[] = {"resact", "il", "il_cvae", NULL};
static const char *const bounds[] = {"clip", "none", NULL};
static const char *const samplings[] = {"epoch", "uniform", NULL};
static const char *const gradients[] = {"float32", "bf16", NULL};
static const char *const consistencies[] = {"sync", "ssp", "async", NULL};
static const char *const chooses[] = {"value", "last", NULL};
const char *const lh_unit_names[] = {"row", "session", NULL};
static const char *const securities[] = {"curve", "none", NULL};
static const char *const behaviours[] = {"auto", NULL};

#define AT(member)      .offset = offsetof(struct lh_job, member)
#define BETWEEN(lo, hi) .min = (lo), .max = (hi)
#define UNBOUNDED       0x1p63

const struct lh_job_key lh_job_keys[] = {
    {NULL, "name", LH_KEY_TEXT, AT(name), .text = "job",
     .doc = "What reports and manifests call this job."},
    {NULL, "seed", LH_KEY_U64, AT(seed), .number = 1, BETWEEN(0, UNBOUNDED), .digested = true,
     .doc = "All randomness follows from it: the same log, config and seed give the same weights,\n"
            "bit by bit, on any number of workers and servers."},
    {NULL, "dataset", LH_KEY_PATH, AT(dataset),
     .doc = "What 'longhaul import' or 'longhaul simulate' wrote. A relative path is relative to\n"
            "this file."},
    {NULL, "algorithm", LH_KEY_WORD, AT(algorithm), .text = "resact", .words = algorithms,
     .digested = true,
     .doc =
         "resact: reconstruct the logged policy, then improve it by a residual. il: imitation by\n"
         "squared error. il_cvae: imitation by a conditional variational auto-encoder."},

    {"network", "hidden", LH_KEY_WIDTHS, AT(hidden), .number = 256, BETWEEN(1, 65536),
     .digested = true, .doc = "Hidden layers, ReLU, of every network; a linear output follows."},
    {"network", "latent", LH_KEY_U64, AT(latent), .number = 0, BETWEEN(0, 65536), .digested = true,
     .doc = "Width of the auto-encoder's latent; 0: twice the width of an action."},
    {"network", "z_high", LH_KEY_U64, AT(z_high), .number = 64, BETWEEN(1, 65536), .digested = true,
     .doc = "Width of z_h, the representation of the session-level state."},
    {"network", "z_low", LH_KEY_U64, AT(z_low), .number = 64, BETWEEN(1, 65536), .digested = true,
     .doc = "Width of z_l, the representation of the request-level state."},

    {"objective", "gamma", LH_KEY_DOUBLE, AT(gamma), .number = 0.9, BETWEEN(0, 1), .digested = true,
     .doc = "Discount factor."},
    {"objective", "estimators", LH_KEY_U64, AT(estimators), .number = 20, BETWEEN(1, 4096),
     .digested = true,
     .doc = "Behaviour estimators n: candidate actions per state, of which the critic chooses."},
    {"objective", "weight_exp", LH_KEY_DOUBLE, AT(weight_exp), .number = 5e-2, BETWEEN(0, 1e6),
     .digested = true, .doc = "Weight of L_Exp (Eq. 12); 0 leaves it out."},
    {"objective", "weight_con", LH_KEY_DOUBLE, AT(weight_con), .number = 5e-1, BETWEEN(0, 1e6),
     .digested = true, .doc = "Weight of L_Con (Eq. 14); 0 leaves it out."},
    {"objective", "weight_kl", LH_KEY_DOUBLE, AT(weight_kl), .number = 1, BETWEEN(0, 1e6),
     .digested = true, .doc = "Weight of the auto-encoder's KL term (Eq. 3)."},
    {"objective", "weight_j", LH_KEY_DOUBLE, AT(weight_j), .number = 1, BETWEEN(0, 1e6),
     .digested = true,
     .doc = "Weight of the policy's value J against the reconstruction in the decoder's update\n"
            "(Eq. 9), and against L_Exp and L_Con in that of z_h's encoder. J grows with the\n"
            "rewards' scale: where Q's slope is steep, 1 pulls the decoder out of the logged "
            "actions."},
    {"objective", "cvae", LH_KEY_BOOL, AT(cvae), .number = 1, .digested = true,
     .doc = "false: reconstruct the logged action by a deterministic network (Eq. 2)."},
    {"objective", "bound", LH_KEY_ENUM, AT(bound), .number = LH_BOUND_CLIP, .words = bounds,
     .digested = true,
     .doc = "clip: decoder and residual end in tanh and their sum is clipped to the range of the\n"
            "logged actions. none: the literal paper, which may diverge."},
    {"objective", "residual_scale", LH_KEY_DOUBLE, AT(residual_scale), .number = 0.1,
     BETWEEN(0, 1e3), .digested = true, .unit = "half-widths of the logged actions' range",
     .doc = "phi: the largest residual under bound: clip."},
    {"objective", "log_std_lo", LH_KEY_DOUBLE, AT(log_std_lo), .number = -4, BETWEEN(-50, 50),
     .digested = true, .doc = "Lower clamp of every log standard deviation."},
    {"objective", "log_std_hi", LH_KEY_DOUBLE, AT(log_std_hi), .number = 15, BETWEEN(-50, 50),
     .digested = true, .doc = "Upper clamp of every log standard deviation."},

    {"optimiser", "lr_actor", LH_KEY_DOUBLE, AT(lr_actor), .number = 5e-6, BETWEEN(0, 10),
     .digested = true, .doc = "Adam's learning rate of the actors."},
    {"optimiser", "lr_critic", LH_KEY_DOUBLE, AT(lr_critic), .number = 5e-5, BETWEEN(0, 10),
     .digested = true, .doc = "Adam's learning rate of the critics."},
    {"optimiser", "lr_cvae", LH_KEY_DOUBLE, AT(lr_cvae), .number = 5e-5, BETWEEN(0, 10),
     .digested = true, .doc = "Adam's learning rate of encoder and decoder, and of imitation."},
    {"optimiser", "lr_reward", LH_KEY_DOUBLE, AT(lr_reward), .number = 5e-5, BETWEEN(0, 10),
     .digested = true, .doc = "Adam's learning rate of the reward head (L_Exp)."},
    {"optimiser", "beta1", LH_KEY_DOUBLE, AT(beta1), .number = 0.9, BETWEEN(0, 0.999999),
     .digested = true, .doc = "Adam's decay of the first moment."},
    {"optimiser", "beta2", LH_KEY_DOUBLE, AT(beta2), .number = 0.999, BETWEEN(0, 0.99999999),
     .digested = true, .doc = "Adam's decay of the second moment."},
    {"optimiser", "epsilon", LH_KEY_DOUBLE, AT(epsilon), .number = 1e-8, BETWEEN(1e-20, 1),
     .digested = true, .doc = "Adam's epsilon."},
    {"optimiser", "tau", LH_KEY_DOUBLE, AT(tau), .number = 1e-2, BETWEEN(0, 1), .digested = true,
     .doc = "Rate of the soft update of target networks."},
    {"optimiser", "target_period", LH_KEY_U32, AT(target_period), .number = 1, BETWEEN(1, 1000000),
     .unit = "steps", .digested = true, .doc = "Steps between soft updates."},
    {"optimiser", "actor_period", LH_KEY_U32, AT(actor_period), .number = 1, BETWEEN(1, 1000000),
     .unit = "steps", .digested = true,
     .doc = "Actors are updated every so many steps (delayed policy updates)."},

    {"train", "batch", LH_KEY_U64, AT(batch), .number = 4096, BETWEEN(1, 1 << 24),
     .unit = "transitions", .digested = true, .doc = "Transitions of one step."},
    {"train", "micro_batch", LH_KEY_U64, AT(micro_batch), .number = 0, BETWEEN(0, 65536),
     .unit = "transitions", .digested = true,
     .doc =
         "A batch is computed in pieces of this many rows, a power of two, whatever the number\n"
         "of workers; the bits of the result depend on it, and no more workers than pieces can\n"
         "share a step. 0: 256, or half of a batch below 512. With few workers and large batches\n"
         "512 or 1024 save a little."},
    {"train", "epochs", LH_KEY_DOUBLE, AT(epochs), .number = 5, BETWEEN(0, 1e6),
     .doc = "Length of the run in passes over the training split; ignored if steps is set."},
    {"train", "steps", LH_KEY_U64, AT(steps), .number = 0, BETWEEN(0, UNBOUNDED), .unit = "steps",
     .doc = "Length of the run; 0: as many as epochs asks for."},
    {"train", "sampling", LH_KEY_ENUM, AT(sampling), .number = LH_SAMPLING_EPOCH,
     .words = samplings, .digested = true,
     .doc = "epoch: every transition once an epoch, in an order of its own. uniform: with\n"
            "replacement."},
    {"train", "normalise", LH_KEY_BOOL, AT(normalise), .number = 1, .digested = true,
     .doc =
         "Shift and scale states to mean 0 and deviation 1, actions to [-1, 1], by statistics of\n"
         "the training split; they travel inside snapshots."},

    {"train", "gradient", LH_KEY_ENUM, AT(gradient), .number = LH_GRADIENT_FLOAT32,
     .words = gradients, .digested = true, .younger = true,
     .doc = "How gradients travel. bf16: as bfloat16, half the bytes; the sum of each two\n"
            "micro-batches, of two such sums, and so on, is rounded to it, so that the weights are "
            "the\n"
            "same bits for any number of workers, but other bits than with float32."},

    {"consistency", "model", LH_KEY_ENUM, AT(consistency), .number = LH_SYNC,
     .words = consistencies, .digested = true, .younger = true,
     .doc =
         "sync: all workers share each step, and the weights are the same bits for any number of\n"
         "them. ssp, async: each worker has a step of its own, whose gradient is applied when it\n"
         "comes, so that none waits for a slow one; the weights then depend on timing. ssp: a\n"
         "step begins once the weights contain all steps but the last 'bound' before it. async:\n"
         "without a bound. Checkpoints and evaluations contain exactly the steps before them."},
    {"consistency", "bound", LH_KEY_U32, AT(staleness_bound), .number = 4, BETWEEN(0, 65536),
     .unit = "steps", .digested = true, .younger = true,
     .doc =
         "Of ssp: how many of the steps before it the weights of a step may lack. 0: none, which\n"
         "gives the bits of sync, by one worker at a time."},
    {"consistency", "takeover", LH_KEY_BOOL, AT(takeover), .number = 1,
     .doc = "Workers that have nothing to do take over what is late of others: in sync "
            "micro-batches,\n"
            "and the bits stay the same; in ssp and async steps."},

    {"checkpoint", "every", LH_KEY_U64, AT(checkpoint_every), .number = 0, BETWEEN(0, UNBOUNDED),
     .unit = "steps", .doc = "Steps between checkpoints; 0: a tenth of the run."},
    {"checkpoint", "keep", LH_KEY_U32, AT(checkpoint_keep), .number = 2, BETWEEN(1, 1000),
     .doc = "Complete checkpoints kept beside the best one."},

    {"evaluation", "every", LH_KEY_U64, AT(evaluate_every), .number = 0, BETWEEN(0, UNBOUNDED),
     .unit = "steps", .doc = "Steps between evaluations on validation; 0: at each checkpoint."},
    {"evaluation", "ncis_cap", LH_KEY_DOUBLE, AT(ncis_cap), .number = 10, BETWEEN(1e-3, 1e9),
     .doc = "c: importance weights are capped here (Eq. 15)."},
    {"evaluation", "unit", LH_KEY_ENUM, AT(unit), .number = LH_UNIT_ROW, .words = lh_unit_names,
     .doc =
         "What a weight of Eq. 15 is of. row: one row and its reward. session: a session and the\n"
         "sum of its rewards, by the mean weight of its rows; for rewards that a session earns as\n"
         "a whole (return_time, session_length), which stand on its last row."},
    {"evaluation", "ess_floor", LH_KEY_DOUBLE, AT(ess_floor), .number = 0.1, BETWEEN(0, 1),
     .unit = "share of units",
     .doc = "A checkpoint whose effective sample size is below is never taken for the best."},
    {"evaluation", "choose", LH_KEY_ENUM, AT(choose), .number = LH_CHOOSE_VALUE, .words = chooses,
     .doc = "Which checkpoint above ess_floor is the best: the one of the highest value on\n"
            "validation, or the last, for logs on which values do not rank checkpoints."},
    {"evaluation", "behaviour", LH_KEY_PATH, AT(behaviour), .text = "auto", .words = behaviours,
     .doc = "The model of the logging policy: auto trains an imitation model to convergence once\n"
            "for the dataset; or a snapshot."},

    {"cluster", "heartbeat_seconds", LH_KEY_DOUBLE, AT(heartbeat_seconds), .number = 1,
     BETWEEN(0.01, 3600), .unit = "seconds", .doc = "Roles tell each other they live this often."},
    {"cluster", "deadline_seconds", LH_KEY_DOUBLE, AT(deadline_seconds), .number = 10,
     BETWEEN(0.05, 86400), .unit = "seconds",
     .doc = "A role that is silent for longer is taken for dead."},
    {"cluster", "security", LH_KEY_ENUM, AT(security), .number = LH_JOB_CURVE, .words = securities,
     .doc =
         "curve: what goes over tcp is encrypted, and both ends prove who they are by keys, which\n"
         "launchers make for the run and 'longhaul keygen' for roles started by hand. none: in\n"
         "the clear, to whoever connects; for networks of one's own."},
    {"cluster", "io_threads", LH_KEY_U32, AT(io_threads), .number = 1, BETWEEN(1, 64),
     .unit = "threads",
     .doc =
         "Threads that move a server's bytes; each connection belongs to one of them. One moves\n"
         "about 4 GB/s over tcp in the clear and 1 GB/s encrypted: more where hundreds of workers\n"
         "wait for a server that has cores to spare. Of a server by hand: its --io-threads."},
    {"cluster", "servers_per_host", LH_KEY_U32, AT(servers_per_host), .number = 0, BETWEEN(0, 60),
     .unit = "ranks",
     .doc =
         "Under mpirun: ranks of each host that serve parameters; 0: one where two ranks or more\n"
         "are free, at least one in all. Rank 0 is the scheduler and does not count."},
    {"cluster", "workers_per_host", LH_KEY_U32, AT(workers_per_host), .number = 0, BETWEEN(0, 4096),
     .unit = "ranks", .doc = "Under mpirun: ranks of each host that compute; 0: all others."},
    {"cluster", "placement", LH_KEY_TEXT, AT(placement), .text = "auto",
     .doc = "Under mpirun: servers and workers of every host, instead of the two keys above:\n"
            "HOST:SERVERS+WORKERS, with blanks between, as in \"lh1:1+2 lh2:0+4\"."},
    {"cluster", "interface", LH_KEY_TEXT, AT(interface), .text = "auto",
     .doc =
         "Under mpirun: how hosts reach each other, as a network (10.1.0.0/16) or the name of an\n"
         "interface (eth0). auto: the loopback of a single host, else the network in which most\n"
         "of the hosts have an address."},

    {"log", "format", LH_KEY_ENUM, AT(log_format), .number = LH_LOG_TEXT, .words = lh_log_formats,
     .doc =
         "How events are written to standard error: text for people; logfmt or json for programs,\n"
         "one event a line with time, level, role and fields. LONGHAUL_LOG=FORMAT[,LEVEL] in the\n"
         "environment holds for all commands, and before this."},
    {"log", "level", LH_KEY_ENUM, AT(log_level), .number = LH_LOG_INFO, .words = lh_log_levels,
     .doc = "What is not written: what is less grave than this."},

    {"metrics", "listen", LH_KEY_TEXT, AT(metrics_listen), .text = "",
     .doc =
         "Where the run is observed: [ADDRESS:]PORT, at which the process serves its metrics over\n"
         "HTTP in the Prometheus text format. Without an address only this host is served, by\n"
         "127.0.0.1; port 0 takes a free one; empty: none. Whoever reaches it can read it."},

    {"resolved", "high", LH_KEY_U32, AT(dims.high), BETWEEN(0, 65536), .digested = true,
     .resolved = true, .doc = "Width of the session-level state."},
    {"resolved", "low", LH_KEY_U32, AT(dims.low), BETWEEN(0, 65536), .digested = true,
     .resolved = true, .doc = "Width of the request-level state."},
    {"resolved", "action", LH_KEY_U32, AT(dims.action), BETWEEN(0, 65536), .digested = true,
     .resolved = true, .doc = "Width of an action."},
    {"resolved", "classes", LH_KEY_U32, AT(dims.classes), BETWEEN(0, 65536), .digested = true,
     .resolved = true, .doc = "Distinct rewards; 0: too many to be classes."},
    {"resolved", "dataset_digest", LH_KEY_HEX, AT(dataset_digest), .digested = true,
     .resolved = true, .doc = "Digest of the dataset's manifest."},
};

const size_t lh_job_n_keys = sizeof lh_job_keys / sizeof *lh_job_keys;

static_assert(sizeof lh_job_keys / sizeof *lh_job_keys <= LH_JOB_KEYS_MAX, "raise LH_JOB_KEYS_MAX");

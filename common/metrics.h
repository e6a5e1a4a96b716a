/* What a process measures of itself, in the Prometheus text format. The families are declared once,
 * in LH_METRIC_FAMILIES; a role joins with its number and gets a slot for every value that its kind
 * of role has. The role's own thread writes them, without a lock and without waiting (relaxed
 * atomics); whoever renders reads them at any time.
 *
 *   struct lh_metrics *m;  struct lh_metrics_role *r;
 *   lh_metrics_open(&m, "127.0.0.1:9464");
 *   lh_metrics_join(m, &(struct lh_metrics_who){.role = LH_METRICS_WORKER, .node = 3}, &r);
 *   lh_metrics_add(r, LH_METRIC_STEPS, 1);                 longhaul_steps_total{role="worker",…} 1
 *   lh_metrics_set_at(r, LH_METRIC_PHASE, LH_PHASE_WAIT, seconds);
 *   lh_metrics_close(&m);
 *
 * Where metrics are off the role is NULL, and every call on it returns at once. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Whose a family is. */
enum {
    LH_METRICS_PROCESS = 1,
    LH_METRICS_WORKER = 2,
    LH_METRICS_SERVER = 4,
    LH_METRICS_SCHEDULER = 8,
    LH_METRICS_ROLES = 14,
    LH_METRICS_TRAINING = 10, /* worker, scheduler */
    LH_METRICS_DURABLE = 12   /* server, scheduler */
};

enum lh_metric_kind {
    LH_METRIC_COUNTER,
    LH_METRIC_GAUGE,
    LH_METRIC_SINCE, /* a gauge: set to a time of lh_now(), shown as the seconds since */
    LH_METRIC_HISTOGRAM
};

/* X(id, kind, roles, label, name, help). A family with a label has a value for each of the label's
 * values (metrics.c); names end in their unit, those of counters in _total.
 * cluster/OBSERVABILITY.md tells people the same. */
#define LH_METRIC_FAMILIES(X)                                                                      \
    X(BUILD, GAUGE, PROCESS, VERSION, "longhaul_build_info",                                       \
      "Always 1; the label says the release.")                                                     \
    X(MEMORY, GAUGE, PROCESS, NONE, "process_resident_memory_bytes", "Physical memory in use.")    \
    X(MEMORY_PEAK, GAUGE, PROCESS, NONE, "longhaul_resident_memory_peak_bytes",                    \
      "Most physical memory that was in use at once.")                                             \
    X(CPU, COUNTER, PROCESS, NONE, "process_cpu_seconds_total", "Processor time of all threads.")  \
    X(STARTED, GAUGE, PROCESS, NONE, "process_start_time_seconds",                                 \
      "When the process started, seconds since 1970.")                                             \
    X(ALLOCATIONS, COUNTER, PROCESS, NONE, "longhaul_allocations_total", "Heap allocations made.") \
    X(ALLOCATIONS_LIVE, GAUGE, PROCESS, NONE, "longhaul_allocations_live",                         \
      "Heap allocations not released.")                                                            \
    X(VERSION, GAUGE, ROLES, NONE, "longhaul_version_steps",                                       \
      "Version of the weights at which the role stands; one a step.")                              \
    X(STEPS, COUNTER, ROLES, NONE, "longhaul_steps_total",                                         \
      "Steps since the role began: made, taken part in, or heard of.")                             \
    X(TRANSITIONS, COUNTER, TRAINING, NONE, "longhaul_transitions_total",                          \
      "Transitions trained on; of a worker, computed by it.")                                      \
    X(STEP_TIME, HISTOGRAM, ROLES, NONE, "longhaul_step_seconds",                                  \
      "Time from one version to the next.")                                                        \
    X(PHASE, COUNTER, ROLES, PHASE, "longhaul_phase_seconds_total", "Where the role's time went.") \
    X(BYTES_IN, COUNTER, ROLES, NONE, "longhaul_network_receive_bytes_total",                      \
      "Bytes of messages between workers and servers, or to the scheduler, that came.")            \
    X(BYTES_OUT, COUNTER, ROLES, NONE, "longhaul_network_transmit_bytes_total",                    \
      "Bytes of such messages that were sent.")                                                    \
    X(MESSAGES_IN, COUNTER, ROLES, NONE, "longhaul_network_receive_messages_total",                \
      "Such messages that came.")                                                                  \
    X(MESSAGES_OUT, COUNTER, ROLES, NONE, "longhaul_network_transmit_messages_total",              \
      "Such messages that were sent.")                                                             \
    X(DROPPED, COUNTER, ROLES, NONE, "longhaul_network_dropped_messages_total",                    \
      "Malformed or foreign messages that were dropped.")                                          \
    X(PULL_RETRIES, COUNTER, WORKER, NONE, "longhaul_pull_retries_total",                          \
      "Versions asked for once more because no answer came: a connection broke.")                  \
    X(PUSH_RETRIES, COUNTER, WORKER, NONE, "longhaul_push_retries_total",                          \
      "Pieces of gradients that met a full queue and were sent again.")                            \
    X(PUSH_QUEUE, GAUGE, WORKER, NONE, "longhaul_push_queue_pieces",                               \
      "Pieces of gradients that wait for a full queue now.")                                       \
    X(PUSHES, COUNTER, SERVER, NONE, "longhaul_pushes_total",                                      \
      "Pieces of gradients taken into the sum of a step.")                                         \
    X(PUSHES_IGNORED, COUNTER, SERVER, NONE, "longhaul_pushes_ignored_total",                      \
      "Pieces of gradients that were there already or came too late.")                             \
    X(STALENESS, HISTOGRAM, SERVER, NONE, "longhaul_push_staleness_steps",                         \
      "Steps before its own that a gradient's weights lacked; in sync, versions it came late.")    \
    X(TAKEN_OVER, COUNTER, SERVER, NONE, "longhaul_taken_over_total",                              \
      "Late parts of steps, or steps, that idle workers took over.")                               \
    X(PULLS, COUNTER, SERVER, NONE, "longhaul_pulls_total", "Requests for a version.")             \
    X(PULL_QUEUE, GAUGE, SERVER, NONE, "longhaul_pull_queue_requests",                             \
      "Requests that wait for a version that does not exist yet.")                                 \
    X(SHARD_SIZE, GAUGE, SERVER, NONE, "longhaul_shard_elements",                                  \
      "Elements of the weights that this shard holds.")                                            \
    X(ROWS_CACHED, GAUGE, SERVER, NONE, "longhaul_table_rows_cached",                              \
      "Rows of embedding tables in memory.")                                                       \
    X(ROWS_HIT, COUNTER, SERVER, NONE, "longhaul_table_hits_total",                                \
      "Rows that pulls and steps asked for and found in memory.")                                  \
    X(ROWS_MISSED, COUNTER, SERVER, NONE, "longhaul_table_misses_total",                           \
      "Rows that they did not find there.")                                                        \
    X(TABLES_DISK, GAUGE, SERVER, NONE, "longhaul_table_disk_bytes",                               \
      "Disk that the tables of this server take at this version.")                                 \
    X(WRITER_QUEUE, GAUGE, SERVER, NONE, "longhaul_checkpoint_queue_commands",                     \
      "Checkpoints to write and to commit that wait for the disk.")                                \
    X(WRITE_TIME, HISTOGRAM, SERVER, NONE, "longhaul_checkpoint_write_seconds",                    \
      "Time to make this shard's part of a checkpoint durable.")                                   \
    X(CHECKPOINTS, COUNTER, DURABLE, NONE, "longhaul_checkpoints_total",                           \
      "Checkpoints made durable: of a server its part, of the scheduler complete ones.")           \
    X(CHECKPOINTS_FAILED, COUNTER, DURABLE, NONE, "longhaul_checkpoints_failed_total",             \
      "Checkpoints that could not be made durable, likewise.")                                     \
    X(CHECKPOINT_AGE, SINCE, DURABLE, NONE, "longhaul_checkpoint_age_seconds",                     \
      "Time since the last of them.")                                                              \
    X(JOB_STEPS, GAUGE, SCHEDULER, NONE, "longhaul_job_steps",                                     \
      "Steps at which the job is complete.")                                                       \
    X(PRESENT, GAUGE, SCHEDULER, KIND, "longhaul_roles", "Roles that take part now.")              \
    X(JOINED, COUNTER, SCHEDULER, KIND, "longhaul_roles_joined_total",                             \
      "Roles that were taken in.")                                                                 \
    X(LOST, COUNTER, SCHEDULER, KIND, "longhaul_roles_lost_total",                                 \
      "Roles that left, died or went silent before the end.")                                      \
    X(EPOCH, GAUGE, SCHEDULER, NONE, "longhaul_assignment_epoch",                                  \
      "Rises whenever workers are given new shares.")                                              \
    X(LAG, GAUGE, SCHEDULER, NONE, "longhaul_worker_lag_steps",                                    \
      "Versions between the newest and the slowest worker, by their last beats.")                  \
    X(LOSS, GAUGE, SCHEDULER, LOSS, "longhaul_loss", "Losses and metrics of the last step.")       \
    X(EVALUATIONS, COUNTER, SCHEDULER, NONE, "longhaul_evaluations_total",                         \
      "Checkpoints valued on the validation split.")                                               \
    X(VALUE, GAUGE, SCHEDULER, NONE, "longhaul_evaluation_value", "NCIS value of the last one.")   \
    X(ESS, GAUGE, SCHEDULER, NONE, "longhaul_evaluation_ess_ratio",                                \
      "Effective sample size of the last one, as a share of rows.")                                \
    X(BEST_VALUE, GAUGE, SCHEDULER, NONE, "longhaul_best_value", "NCIS value of the best one.")    \
    X(BEST_VERSION, GAUGE, SCHEDULER, NONE, "longhaul_best_version_steps",                         \
      "Version of the best one.")

enum lh_metric {
#define LH_METRIC_ID(id, kind, roles, label, name, help) LH_METRIC_##id,
    LH_METRIC_FAMILIES(LH_METRIC_ID)
#undef LH_METRIC_ID
        LH_METRIC_N
};

/* Values of the label `phase`. */
enum {
    LH_PHASE_GATHER,
    LH_PHASE_FORWARD,
    LH_PHASE_BACKWARD,
    LH_PHASE_REDUCE,
    LH_PHASE_PUSH,
    LH_PHASE_TAKE,
    LH_PHASE_WAIT,
    LH_PHASE_OPTIMISE,
    LH_PHASE_REPLY,
    LH_PHASE_FREEZE,
    LH_PHASE_N
};
/* Values of the label `kind`. */
enum { LH_METRICS_OF_WORKERS, LH_METRICS_OF_SERVERS };

struct lh_net_counts;   /* common/net.h */
struct lh_metrics;      /* of a process */
struct lh_metrics_role; /* of one role in it */

/* A registry, served at http://ENDPOINT/metrics (and /healthz) where `listen` is not NULL or empty
 * (common/http.h). Errors: those of lh_http_start. */
int lh_metrics_open(struct lh_metrics **out, const char *listen);
/* Ends the serving and frees the roles: their threads must have ended. NULL content allowed. */
void lh_metrics_close(struct lh_metrics **m);
/* Where it is served; "" where it is not, or m is NULL. */
const char *lh_metrics_endpoint(const struct lh_metrics *m);

struct lh_metrics_who {
    unsigned role; /* LH_METRICS_WORKER, … */
    uint32_t node;
    uint32_t shard;            /* of a server */
    const char *const *losses; /* of the scheduler: values of the label `loss`; copied */
    size_t n_losses;
};

/* A role's slots, until it leaves or the registry is closed: what has ended keeps its last values.
 * `m` NULL:
 * *out is NULL, and that is no error. Any thread. Errors: LH_ENOMEM. */
int lh_metrics_join(struct lh_metrics *m, const struct lh_metrics_who *who,
                    struct lh_metrics_role **out);
/* It is on the page no more: for one that joins again, perhaps as the same number, whose series
 * would be there twice. *r becomes NULL; NULL content allowed. */
void lh_metrics_leave(struct lh_metrics *m, struct lh_metrics_role **r);

/* By the role's one thread; nothing is allocated. A family that the role does not have, and a label
 * value that does not exist, are left alone. What was never set is not shown. */
void lh_metrics_set(struct lh_metrics_role *r, enum lh_metric m, double value);
void lh_metrics_add(struct lh_metrics_role *r, enum lh_metric m, double value);
void lh_metrics_observe(struct lh_metrics_role *r, enum lh_metric m, double value);
/* Of a family with a label: its value number `at`. */
void lh_metrics_set_at(struct lh_metrics_role *r, enum lh_metric m, size_t at, double value);
void lh_metrics_add_at(struct lh_metrics_role *r, enum lh_metric m, size_t at, double value);

/* The families of network traffic. */
void lh_metrics_set_net(struct lh_metrics_role *r, const struct lh_net_counts *counts);

/* The whole page; the caller frees. Any thread. Errors: LH_ENOMEM. */
int lh_metrics_render(struct lh_metrics *m, char **out, size_t *n);

/* What is declared, for those who hold the documentation against it. */
struct lh_metric_family {
    const char *name, *help;
    enum lh_metric_kind kind;
    unsigned roles;
    const char *label; /* NULL: none */
};
const struct lh_metric_family *lh_metrics_family(enum lh_metric m);
const char *lh_metrics_phase_name(size_t phase); /* "gather" */

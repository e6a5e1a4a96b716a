/* For tests that train: a tiny log, a tiny job, and everything a checkpoint holds, to compare. */
#pragma once

#include "cluster/train.h"

#include <sys/types.h>

/* Writes a dataset of 40 training trajectories (and 6 for validation) to kit_path("data"). */
void trainkit_dataset(void);

/* The same of `users` users (a fifth for validation and test), with ids: "user"; "item", of
 * `items`, whose meaning is the action; "before", the item before. */
enum { TRAINKIT_IDS = 3 };
void trainkit_dataset_of_items(uint64_t users, uint64_t items);
/* The item of a row: small numbers and 64-bit ones. Its meaning is known to nobody but by its id:
 * uniform in [-1, 1]. */
uint64_t trainkit_item(uint64_t user, size_t row, uint64_t items);
void trainkit_meaning(uint64_t item, float out[2]);

/* A ResAct job on it, with batches that are no multiple of the micro-batch. `more` is YAML behind
 * it, NULL for none. */
struct lh_job *trainkit_job(unsigned steps, unsigned cut_every, const char *more);
/* The same as a file. */
void trainkit_job_file(const char *path, unsigned steps, unsigned cut_every, const char *more);

/* Local, 1 worker, 1 server, no evaluation, quiet; to be changed as needed. */
struct lh_train_options trainkit_options(const char *dir);

/* Trains a job into dir: local where `servers` is positive, else as many processes over tcp. *page
 * (NULL: not wanted): its metrics, free with lh_mem_free. The version that it ended at. */
uint64_t trainkit_train(const struct lh_job *job, const char *dir, unsigned workers, int servers,
                        const char *program, char **page);

/* The same in three parts, by threads: stopped at stop[0] and stop[1], resumed each time with
 * another number of roles. The version that it ended at. */
uint64_t trainkit_train_parts(const struct lh_job *job, const char *dir, const unsigned stop[2],
                              const unsigned workers[3], const unsigned servers[3]);

/* A behaviour model for evaluations of jobs of this kit, trained and exported to `snapshot`. */
void trainkit_imitator(const char *snapshot);

/* Weights, moments, targets of a run's last cut, one after the other; free with lh_mem_free. Of its
 * tables how many rows they hold, and a digest of all of these. */
struct trainkit_state {
    uint64_t version;
    size_t n;
    float *values;
    uint64_t rows, digest;
    uint64_t updates; /* of Adam, over all tensors */
};
struct trainkit_state trainkit_read(const char *dir);
/* Both at `version`, and the same to the bit. */
void trainkit_assert_same(const struct trainkit_state *want, const char *dir, const char *what);

/* The dataset, the job and job.yaml, and what the job comes to where nothing disturbs it, in
 * undisturbed/. */
struct trainkit_undisturbed {
    struct lh_job *job;
    struct trainkit_state want;
};
struct trainkit_undisturbed trainkit_undisturbed(unsigned steps, unsigned cut_every,
                                                 const char *more);
void trainkit_undisturbed_free(struct trainkit_undisturbed *u);

/* A run's last value of a metric, as metrics.jsonl names it. */
double trainkit_last_metric(const char *dir, const char *name);
/* metrics.jsonl of a run must have a line for each of so many steps, and no other. */
void trainkit_assert_lines(const char *dir, unsigned steps);

/* Version of the last complete cut, 0 if none. */
uint64_t trainkit_last_cut(const char *dir);
/* Waits until the run in dir has a cut at or beyond `version`, at most 30 s; false if not. */
bool trainkit_wait_cut(const char *dir, uint64_t version);

/* Runs a program of this build in a process group of its own; output goes to a file. */
pid_t trainkit_spawn(const char *log, const char *const *argv);
/* So a training of job.yaml into run/ by processes, log and all in kit_dir; `set`: a KEY=VALUE of
 * the job, or NULL. */
pid_t trainkit_spawn_train(const char *program, const char *workers, const char *servers,
                           const char *set);
/* So one by threads, which starts a log anew; `more`: an option, or NULL. */
pid_t trainkit_spawn_here(const char *program, const char *more);
/* How often the log in kit_dir says so. */
size_t trainkit_said(const char *words);
/* Waits until it does, at most 60 s; then the test fails and shows what was said. */
void trainkit_await_said(const char *words);
/* Its exit status (1000 + the signal that ended it), at most 60 s from now; then its group is
 * killed: -1. */
int trainkit_wait_exit(pid_t pid);
/* The same must be `code`; else the test fails and shows what was said. */
void trainkit_assert_exits(pid_t pid, int code);
/* The endpoint that `longhaul scheduler` says on its log. */
void trainkit_await_endpoint(const char *log, char *out, size_t size);
/* Stops a worker of a run that trainkit_spawn_train began, until the others have made three more
 * checkpoints, `cut` steps apart, without it; awaits that the run ends well. */
void trainkit_stop_worker(pid_t run, uint64_t cut);
/* A descendant of `parent` (a process) that runs `longhaul ROLE`; 0 if there is none. */
pid_t trainkit_find_role(pid_t parent, const char *role);

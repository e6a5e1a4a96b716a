/* Small jobs for tests of algorithms, made by hand so that the double build needs no config. */
#pragma once

#include "common/job.h"

enum { JOB_HIGH = 4, JOB_LOW = 3, JOB_ACTION = 2, JOB_CLASSES = 3, JOB_LATENT = 3 };

static inline struct lh_job job_small(const char *algorithm)
{
    return (struct lh_job){
        .algorithm = algorithm,
        .hidden = {6, 5},
        .n_hidden = 2,
        .latent = JOB_LATENT,
        .z_high = 3,
        .z_low = 2,
        .gamma = 0.9,
        .estimators = 4,
        .weight_exp = 0.3,
        .weight_con = 0.5,
        .weight_kl = 0.7,
        .weight_j = 0.6,
        .cvae = true,
        .bound = LH_BOUND_CLIP,
        .residual_scale = 0.1,
        .log_std_lo = -4,
        .log_std_hi = 15,
        .lr_actor = 1,
        .lr_critic = 2,
        .lr_cvae = 3,
        .lr_reward = 4,
        .tau = 0.01,
        .target_period = 2,
        .actor_period = 3,
        .dims = {.high = JOB_HIGH, .low = JOB_LOW, .action = JOB_ACTION, .classes = JOB_CLASSES},
    };
}

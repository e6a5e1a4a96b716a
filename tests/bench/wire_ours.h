/* What our server and our clients of the wire benchmark agree on. */
#pragma once

#include "common/job.h"
#include "common/layout.h"
#include "tests/bench/wire_rig.h"

struct lh_server_options;

enum {
    WIRE_CHAIN = 8, /* pushes of a slot a step */
    WIRE_NODE = 3   /* all clients are this worker */
};

uint32_t wire_leaves(const struct wire_case *c);
/* The dense tensor: that of the case; of a case of rows, one that is as small as can be. */
int wire_layout(struct lh_layout *out, struct lh_param *p, const struct wire_case *c);
/* The text of the job (lh_mem_free). */
int wire_job_text(char **out, const struct wire_case *c);
int wire_job(struct lh_job **out, const struct wire_case *c);

/* For a server on a client's thread. `c` must outlive it. */
struct lh_server_options wire_server_options(const struct wire_case *c,
                                             const struct lh_security *security);
/* As wire_system has it. */
int wire_serve(void *zmq, const struct wire_case *c, void (*bound)(void *ctx, const char *at),
               void *ctx);

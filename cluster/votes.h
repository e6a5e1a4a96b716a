/* What servers say of a cut: each shard speaks once of every version that the clock names, in
 * order, that it has prepared it or that it could not. When all have spoken, the version is
 * complete if each of them has it, else void. A shard whose word was lost, and which speaks of a
 * later version, is one that does not have it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lh_vote { /* on a version that is not decided yet */
    uint64_t version;
    uint32_t prepared; /* shards that have it */
    bool failed;       /* one said that it has not */
};

struct lh_votes {
    uint64_t *last; /* [shards] the newest version each has spoken of; 0: none */
    uint32_t shards;
    struct lh_vote *open; /* ascending */
    size_t n, cap;
};

/* Errors: LH_ENOMEM. */
int lh_votes_init(struct lh_votes *v, uint32_t shards);
void lh_votes_fini(struct lh_votes *v); /* idempotent; all-zero content allowed */
void lh_votes_clear(struct lh_votes *v);

/* What a shard says of a version; ignored if it has spoken of that one, or of a later one, before.
 * Errors: LH_ENOMEM. */
int lh_votes_cast(struct lh_votes *v, uint32_t shard, uint64_t version, bool prepared);
/* Takes the oldest version of which all have spoken; false if there is none. */
bool lh_votes_decide(struct lh_votes *v, uint64_t *version, bool *complete);
/* Whether somebody said of a version that is not decided yet that it does not have it. */
bool lh_votes_failed(const struct lh_votes *v, uint64_t version);

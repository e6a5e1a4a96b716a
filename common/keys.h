/* Keys of roles (CurveZMQ: Curve25519), and the file that holds what one role needs: its own pair,
 * the scheduler's public key, and in the scheduler's file the allow-list, which is everybody else's
 * public key with the role it stands for. Keys are text, Z85.
 *
 * A line of a file is `own ROLE NAME PUBLIC SECRET` or `peer ROLE NAME PUBLIC`; lines that start
 * with # are comments. Names are for people. Several roles may share a worker's or a server's
 * file; nobody can then tell them apart. */
#pragma once

#include "proto/control.pb-c.h"

#include <stddef.h>

#define LH_KEY_SIZE     41 /* 40 characters and the end */
#define LH_KEY_NAME_MAX 48

/* Whose key it is. */
struct lh_key_owner {
    char key[LH_KEY_SIZE]; /* public */
    char name[LH_KEY_NAME_MAX];
    Lh__Role role;
};

struct lh_keys {
    struct lh_key_owner own, scheduler; /* the scheduler's own are the same twice */
    char secret[LH_KEY_SIZE];
    struct lh_key_owner *allowed; /* the allow-list; of the scheduler */
    size_t n_allowed, cap_allowed;
};

/* A fresh pair for `role`. `scheduler` says whom it will obey; NULL for the scheduler's own. */
int lh_keys_make(struct lh_keys *out, Lh__Role role, const char *name,
                 const struct lh_key_owner *scheduler);
/* Adds to the allow-list; a key that is there already is left as it is. Errors: LH_ECONFIG for no
 * key, or a name with blanks or too long. */
int lh_keys_allow(struct lh_keys *k, const struct lh_key_owner *who);
void lh_keys_fini(struct lh_keys *k); /* wipes the secret; idempotent, zeroed content allowed */

/* Reads the file of a role that is to act as `role`. Errors: LH_ENOENT; LH_EACCES if others than
 * its owner may read or write it, or the owner is neither we nor root; LH_EFORMAT with the line;
 * LH_EMISMATCH if it is another role's, or public and secret key are no pair. */
int lh_keys_load(struct lh_keys *out, const char *path, Lh__Role role);
/* The same from the text of a file; `path` is for sentences. */
int lh_keys_parse(struct lh_keys *out, char *text, const char *path);
/* Writes the file whole or not at all, with mode 0600. An existing one is replaced. */
int lh_keys_save(const struct lh_keys *k, const char *path);
/* Writes it to a descriptor, from its start. */
int lh_keys_write(const struct lh_keys *k, int fd, const char *path);

const char *lh_keys_role_name(Lh__Role role); /* "worker" */

/* `longhaul keygen`: key files of the roles of jobs that are started by hand. */
#include "cluster/cli.h"
#include "common/err.h"
#include "common/fs.h"
#include "common/keys.h"
#include "common/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_keygen = {
    .name = "keygen",
    .summary = "make keys for the roles of jobs over several hosts",
    .usage = "--out DIR [options]",
    .description =
        "Writes DIR/scheduler.keys, DIR/server-I.keys and DIR/worker-I.keys: for each role a file "
        "with its secret key and the public keys it must know. Copy to each host the files of its "
        "roles, over a channel that you trust, and give each role its own with --keys. Files are "
        "readable by their owner alone; roles refuse one that others may read.\n\n"
        "scheduler.keys also lists everybody else's public key: who is not on it is let in "
        "nowhere. Delete a line to shut a role out, at the scheduler's next start. The servers "
        "learn from the scheduler which workers to let in.\n\n"
        "What is in DIR already is kept: a call with more workers makes those that are missing "
        "and adds them to the list. Who was taken off the list stays off it: remove a file to "
        "have another made. One file may serve several workers; they can then act in each "
        "other's name.",
    .examples = "longhaul keygen --out keys --servers 2 --workers 8\n"
                "longhaul keygen --out keys --servers 2 --workers 12",
    .run = run,
};

struct options {
    const char *out;
    int64_t servers, workers;
};

/* Key files that are not there yet. */
struct made {
    struct lh_keys keys;
    char *path;
};

struct plan {
    const char *dir;
    struct lh_keys scheduler; /* its list is that of its file, and what is made */
    struct made *made;
    size_t n_made, cap_made;
    size_t kept, off; /* files that were there; of these, not on the list */
};

static bool is_listed(const struct lh_keys *scheduler, const char *key)
{
    for (size_t i = 0; i < scheduler->n_allowed; i++)
        if (strcmp(scheduler->allowed[i].key, key) == 0)
            return true;
    return false;
}

/* Who is not on the list was taken off it, and stays shut out. */
static int keep(struct plan *p, Lh__Role role, const char *path)
{
    struct lh_keys keys;
    int rc = 0;
    LH_TRY(lh_keys_load(&keys, path, role));
    if (strcmp(keys.scheduler.key, p->scheduler.own.key) != 0)
        rc = lh_err_set(LH_EMISMATCH,
                        "%s: made for another scheduler; remove it, or choose another --out", path);
    p->kept++;
    p->off += !is_listed(&p->scheduler, keys.own.key);
    lh_keys_fini(&keys);
    return rc;
}

static int make(struct plan *p, Lh__Role role, const char *name, char **path)
{
    LH_TRY(LH_GROW(&p->made, &p->cap_made, p->n_made + 1, "keys"));
    struct made *m = &p->made[p->n_made];
    LH_TRY(lh_keys_make(&m->keys, role, name, &p->scheduler.own));
    m->path = *path;
    *path = NULL;
    p->n_made++;
    return lh_keys_allow(&p->scheduler, &m->keys.own);
}

static int have_all(struct plan *p, Lh__Role role, int64_t n)
{
    int rc = 0;
    for (int64_t i = 0; i < n && rc == 0; i++) {
        char name[LH_KEY_NAME_MAX], *path = NULL;
        snprintf(name, sizeof name, "%s-%" PRId64, lh_keys_role_name(role), i);
        LH_TRY(lh_mem_printf(&path, "%s/%s.keys", p->dir, name));
        rc = lh_fs_exists(path) ? keep(p, role, path) : make(p, role, name, &path);
        lh_mem_free(path);
    }
    return rc;
}

/* The list first: a role's file that was written and is not on it would stay shut out. */
static int save(const struct plan *p, const char *scheduler)
{
    LH_TRY(lh_keys_save(&p->scheduler, scheduler));
    for (size_t i = 0; i < p->n_made; i++)
        LH_TRY(lh_keys_save(&p->made[i].keys, p->made[i].path));
    return 0;
}

static void forget(struct plan *p)
{
    for (size_t i = 0; i < p->n_made; i++) {
        lh_keys_fini(&p->made[i].keys);
        lh_mem_free(p->made[i].path);
    }
    lh_mem_free(p->made);
    lh_keys_fini(&p->scheduler);
}

static int make_keys(const struct options *o)
{
    struct plan p = {.dir = o->out};
    char *path = NULL;
    int rc;
    if (!o->out)
        return lh_err_set(LH_EUSAGE, "keygen: where to? name a directory with --out DIR");
    if (mkdir(o->out, 0700) != 0 && errno != EEXIST)
        return lh_err_errno(errno, "%s", o->out);
    LH_TRY(lh_mem_printf(&path, "%s/scheduler.keys", o->out));
    const bool known = lh_fs_exists(path);
    LH_TRY_TO(done, known
                        ? lh_keys_load(&p.scheduler, path, LH__ROLE__ROLE_SCHEDULER)
                        : lh_keys_make(&p.scheduler, LH__ROLE__ROLE_SCHEDULER, "scheduler", NULL));
    LH_TRY_TO(done, have_all(&p, LH__ROLE__ROLE_SERVER, o->servers));
    LH_TRY_TO(done, have_all(&p, LH__ROLE__ROLE_WORKER, o->workers));
    LH_TRY_TO(done, save(&p, path));
    printf("%s: %zu key files made, %zu kept; %zu keys on the scheduler's list", o->out,
           p.n_made + !known, p.kept + known, p.scheduler.n_allowed);
    printf(p.off ? "; %zu kept that are not on it\n" : "\n", p.off);
done:
    forget(&p);
    lh_mem_free(path);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o = {.servers = 1, .workers = 1};
    const struct lh_opt opts[] = {
        {.name = "out",
         .letter = 'o',
         .kind = LH_OPT_STRING,
         .value = &o.out,
         .metavar = "DIR",
         .help = "Where to; made if it is not there."},
        {.name = "servers",
         .letter = 's',
         .kind = LH_OPT_INT,
         .value = &o.servers,
         .metavar = "M",
         .min = 0,
         .max = 60,
         .help = "Files for parameter servers."},
        {.name = "workers",
         .letter = 'w',
         .kind = LH_OPT_INT,
         .value = &o.workers,
         .metavar = "N",
         .min = 0,
         .max = 4096,
         .help = "Files for workers."},
    };
    size_t n_opts = sizeof opts / sizeof *opts;
    int rc = lh_cli_parse(&lh_cmd_keygen, opts, n_opts, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    rc = make_keys(&o);
    lh_cli_fini(opts, n_opts);
    return rc;
}

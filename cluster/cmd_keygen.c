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
        "and adds them to the list. One file may serve several workers; they can then act in each "
        "other's name.",
    .examples = "longhaul keygen --out keys --servers 2 --workers 8\n"
                "longhaul keygen --out keys --servers 2 --workers 12",
    .run = run,
};

struct options {
    const char *out;
    int64_t servers, workers;
};

struct tally {
    unsigned made, kept;
};

/* The keys of a role: read, or made and saved. */
static int have(const char *dir, Lh__Role role, const char *name, const struct lh_keys *scheduler,
                struct lh_keys *out, struct tally *tally)
{
    char *path = NULL;
    int rc;
    LH_TRY(lh_mem_printf(&path, "%s/%s.keys", dir, name));
    if (lh_fs_exists(path)) {
        tally->kept++;
        LH_TRY_TO(done, lh_keys_load(out, path, role));
        if (scheduler && strcmp(out->scheduler.key, scheduler->own.key) != 0) {
            lh_keys_fini(out);
            rc = lh_err_set(LH_EMISMATCH,
                            "%s: made for another scheduler; remove it, or choose another --out",
                            path);
        }
    } else {
        tally->made++;
        LH_TRY_TO(done, lh_keys_make(out, role, name, scheduler ? &scheduler->own : NULL));
        rc = lh_keys_save(out, path);
        if (rc < 0)
            lh_keys_fini(out);
    }
done:
    lh_mem_free(path);
    return rc;
}

static int have_all(const char *dir, Lh__Role role, int64_t n, struct lh_keys *scheduler,
                    struct tally *tally)
{
    for (int64_t i = 0; i < n; i++) {
        struct lh_keys keys;
        char name[LH_KEY_NAME_MAX];
        snprintf(name, sizeof name, "%s-%" PRId64, lh_keys_role_name(role), i);
        LH_TRY(have(dir, role, name, scheduler, &keys, tally));
        int rc = lh_keys_allow(scheduler, &keys.own);
        lh_keys_fini(&keys);
        LH_TRY(rc);
    }
    return 0;
}

static int make_keys(const struct options *o)
{
    struct lh_keys scheduler = {0};
    struct tally tally = {0};
    char *path = NULL;
    int rc;
    if (!o->out)
        return lh_err_set(LH_EUSAGE, "keygen: where to? name a directory with --out DIR");
    if (mkdir(o->out, 0700) != 0 && errno != EEXIST)
        return lh_err_errno(errno, "%s", o->out);
    LH_TRY_TO(done, lh_mem_printf(&path, "%s/scheduler.keys", o->out));
    LH_TRY_TO(done, have(o->out, LH__ROLE__ROLE_SCHEDULER, "scheduler", NULL, &scheduler, &tally));
    LH_TRY_TO(done, have_all(o->out, LH__ROLE__ROLE_SERVER, o->servers, &scheduler, &tally));
    LH_TRY_TO(done, have_all(o->out, LH__ROLE__ROLE_WORKER, o->workers, &scheduler, &tally));
    LH_TRY_TO(done, lh_keys_save(&scheduler, path));
    printf("%s: %u key files made, %u kept; %zu keys on the scheduler's list\n", o->out, tally.made,
           tally.kept, scheduler.n_allowed);
done:
    lh_keys_fini(&scheduler);
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

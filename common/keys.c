/* Keys and their files. Secrets are wiped where they were read, parsed or printed; who may open a
 * socket with them is the business of security.c and guard.c. */
#include "common/keys.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#define FILE_MAX  (4u << 20)
#define WORDS_MAX 5

static const char *const role_names[] = {[LH__ROLE__ROLE_SERVER] = "server",
                                         [LH__ROLE__ROLE_WORKER] = "worker",
                                         [LH__ROLE__ROLE_SCHEDULER] = "scheduler",
                                         [LH__ROLE__ROLE_EVALUATION] = "evaluation"};
#define N_ROLES (sizeof role_names / sizeof *role_names)

const char *lh_keys_role_name(Lh__Role role)
{
    return (size_t)role < N_ROLES && role_names[role] ? role_names[role] : "nobody";
}

static bool is_key(const char *text)
{
    uint8_t bytes[32];
    return strlen(text) == LH_KEY_SIZE - 1 && zmq_z85_decode(bytes, text);
}

static bool is_name(const char *name)
{
    return *name && strlen(name) < LH_KEY_NAME_MAX && !strpbrk(name, " \t\r\n");
}

static int set_owner(struct lh_key_owner *out, Lh__Role role, const char *name, const char *key)
{
    if (!is_name(name))
        return lh_err_set(LH_ECONFIG,
                          "'%.60s' cannot name a key: expected 1 to %d characters without blanks",
                          name, LH_KEY_NAME_MAX - 1);
    if (!is_key(key))
        return lh_err_set(LH_ECONFIG, "the key of %s is none: expected 40 characters of Z85", name);
    *out = (struct lh_key_owner){.role = role};
    memcpy(out->name, name, strlen(name));
    memcpy(out->key, key, LH_KEY_SIZE);
    return 0;
}

int lh_keys_make(struct lh_keys *out, Lh__Role role, const char *name,
                 const struct lh_key_owner *scheduler)
{
    char key[LH_KEY_SIZE];
    *out = (struct lh_keys){0};
    if (zmq_curve_keypair(key, out->secret) != 0)
        return lh_err_set(LH_EINTERNAL, "making a key: %s", zmq_strerror(zmq_errno()));
    LH_TRY(set_owner(&out->own, role, name, key));
    out->scheduler = scheduler ? *scheduler : out->own;
    return 0;
}

int lh_keys_allow(struct lh_keys *k, const struct lh_key_owner *who)
{
    struct lh_key_owner checked;
    LH_TRY(set_owner(&checked, who->role, who->name, who->key));
    for (size_t i = 0; i < k->n_allowed; i++)
        if (strcmp(k->allowed[i].key, checked.key) == 0)
            return 0;
    LH_TRY(LH_GROW(&k->allowed, &k->cap_allowed, k->n_allowed + 1, "allow-list"));
    k->allowed[k->n_allowed++] = checked;
    return 0;
}

void lh_keys_fini(struct lh_keys *k)
{
    lh_mem_free(k->allowed);
    explicit_bzero(k, sizeof *k);
}

/* --- reading -----------------------------------------------------------------------------------
 */
/* The evaluation's key is made anew for each run, and is in no file. */
static Lh__Role role_of(const char *word)
{
    for (size_t i = 0; i <= LH__ROLE__ROLE_SCHEDULER; i++)
        if (role_names[i] && strcmp(role_names[i], word) == 0)
            return (Lh__Role)i;
    return LH__ROLE__ROLE_NONE;
}

static int take_own(struct lh_keys *k, Lh__Role role, char *const *word)
{
    char key[LH_KEY_SIZE];
    if (k->own.key[0])
        return lh_err_set(LH_EFORMAT, "a second line 'own'");
    LH_TRY(set_owner(&k->own, role, word[2], word[3]));
    if (!is_key(word[4]))
        return lh_err_set(LH_EFORMAT, "the secret key of %s is none", word[2]);
    memcpy(k->secret, word[4], LH_KEY_SIZE);
    if (zmq_curve_public(key, k->secret) != 0 || strcmp(key, k->own.key) != 0)
        return lh_err_set(LH_EMISMATCH, "public and secret key of %s are no pair", word[2]);
    if (role == LH__ROLE__ROLE_SCHEDULER)
        k->scheduler = k->own;
    return 0;
}

static int take_line(struct lh_keys *k, char *line)
{
    char *word[WORDS_MAX + 1], *rest = NULL;
    size_t n = 0;
    for (char *w = strtok_r(line, " \t\r", &rest); w; w = strtok_r(NULL, " \t\r", &rest)) {
        if (n > WORDS_MAX)
            break;
        word[n++] = w;
    }
    if (n == 0 || word[0][0] == '#')
        return 0;
    bool own = n == 5 && strcmp(word[0], "own") == 0;
    bool peer = n == 4 && strcmp(word[0], "peer") == 0;
    if (!own && !peer)
        return lh_err_set(LH_EFORMAT, "expected 'own ROLE NAME PUBLIC SECRET' or 'peer ROLE NAME "
                                      "PUBLIC'");
    Lh__Role role = role_of(word[1]);
    if (role == LH__ROLE__ROLE_NONE)
        return lh_err_set(LH_EFORMAT, "'%.20s' is no role: expected scheduler, server or worker",
                          word[1]);
    if (own)
        return take_own(k, role, word);
    struct lh_key_owner who;
    LH_TRY(set_owner(&who, role, word[2], word[3]));
    if (role != LH__ROLE__ROLE_SCHEDULER)
        return lh_keys_allow(k, &who);
    if (k->scheduler.key[0])
        return lh_err_set(LH_EFORMAT, "a second scheduler");
    k->scheduler = who;
    return 0;
}

int lh_keys_parse(struct lh_keys *out, char *text, const char *path)
{
    int rc = 0;
    unsigned number = 1;
    *out = (struct lh_keys){0};
    for (char *line = text, *end; *line; line = end, number++) {
        end = line + strcspn(line, "\n");
        if (*end)
            *end++ = '\0';
        rc = take_line(out, line);
        if (rc < 0) {
            lh_keys_fini(out);
            rc = rc == LH_ECONFIG ? LH_EFORMAT : rc;
            return lh_err_prefix(rc, "%s:%u", path, number);
        }
    }
    if (!out->own.key[0] || !out->scheduler.key[0]) {
        rc = lh_err_set(LH_EFORMAT,
                        "%s: no line '%s': not a key file; make one with 'longhaul "
                        "keygen'",
                        path, out->own.key[0] ? "peer scheduler" : "own");
        lh_keys_fini(out);
    }
    return rc;
}

/* Who else can read a secret has it. Asked of the file that is open, which no other can replace. */
static int check_mode(const struct stat *st, const char *path)
{
    if (!S_ISREG(st->st_mode))
        return lh_err_set(LH_EFORMAT,
                          "%s: not a key file; give one of those that 'longhaul "
                          "keygen' wrote",
                          path);
    if (st->st_mode & 077)
        return lh_err_set(LH_EACCES,
                          "%s: others may read or change this secret key (mode %04o); chmod 600 "
                          "it, or make new keys if somebody may have",
                          path, (unsigned)st->st_mode & 07777);
    if (st->st_uid != geteuid() && st->st_uid != 0)
        return lh_err_set(LH_EACCES, "%s: this secret key belongs to user %u; chown it to yours",
                          path, (unsigned)st->st_uid);
    return st->st_size <= FILE_MAX
               ? 0
               : lh_err_set(LH_EFORMAT, "%s: larger than %u bytes; not a key file", path, FILE_MAX);
}

/* All of it into memory of its size, so that growing leaves no secret behind. */
static int read_open(int fd, const char *path, char **out, size_t *n)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return lh_err_errno(errno, "%s", path);
    LH_TRY(check_mode(&st, path));
    LH_TRY(LH_NEW_ARRAY(out, (size_t)st.st_size + 1, path));
    *n = 0;
    while (*n < (size_t)st.st_size) {
        ssize_t got = pread(fd, *out + *n, (size_t)st.st_size - *n, (off_t)*n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return lh_err_errno(errno, "%s: cannot read", path);
        if (got == 0)
            break;
        *n += (size_t)got;
    }
    return 0;
}

/* O_NONBLOCK: who names a pipe is told so, not made to wait. */
static int read_secret(const char *path, char **out, size_t *n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT
                   ? lh_err_set(LH_ENOENT, "%s: no such key file; 'longhaul keygen' makes them",
                                path)
                   : lh_err_errno(errno, "%s", path);
    int rc = read_open(fd, path, out, n);
    close(fd);
    return rc;
}

int lh_keys_load(struct lh_keys *out, const char *path, Lh__Role role)
{
    char *text = NULL;
    size_t n = 0;
    *out = (struct lh_keys){0};
    int rc = read_secret(path, &text, &n);
    if (rc >= 0)
        rc = lh_keys_parse(out, text, path);
    if (text)
        explicit_bzero(text, n);
    lh_mem_free(text);
    LH_TRY(rc);
    if (out->own.role != role) {
        rc = lh_err_set(LH_EMISMATCH, "%s: these are the keys of a %s, not of a %s", path,
                        lh_keys_role_name(out->own.role), lh_keys_role_name(role));
        lh_keys_fini(out);
    }
    return rc;
}

/* --- writing -----------------------------------------------------------------------------------
 */
static int print(const struct lh_keys *k, char **out, size_t *size)
{
    const struct lh_key_owner *own = &k->own;
    size_t cap = 1024 + (k->n_allowed + 1) * (LH_KEY_SIZE + LH_KEY_NAME_MAX + 32), n = 0;
    LH_TRY(LH_NEW_ARRAY(out, cap, "key file"));
    n += (size_t)snprintf(*out, cap,
                          "# longhaul: keys of %s. Whoever reads the line 'own' can act as this "
                          "%s.\nown %s %s %s %s\n",
                          own->name, lh_keys_role_name(own->role), lh_keys_role_name(own->role),
                          own->name, own->key, k->secret);
    if (own->role != LH__ROLE__ROLE_SCHEDULER)
        n += (size_t)snprintf(*out + n, cap - n, "peer scheduler %s %s\n", k->scheduler.name,
                              k->scheduler.key);
    for (size_t i = 0; i < k->n_allowed; i++)
        n += (size_t)snprintf(*out + n, cap - n, "peer %s %s %s\n",
                              lh_keys_role_name(k->allowed[i].role), k->allowed[i].name,
                              k->allowed[i].key);
    *size = n;
    return 0;
}

int lh_keys_write(const struct lh_keys *k, int fd, const char *path)
{
    char *text = NULL;
    size_t n = 0;
    LH_TRY(print(k, &text, &n));
    int rc = lh_fs_pwrite(fd, text, n, 0, path);
    explicit_bzero(text, n);
    lh_mem_free(text);
    return rc;
}

int lh_keys_save(const struct lh_keys *k, const char *path)
{
    char *aside = NULL;
    LH_TRY(lh_mem_printf(&aside, "%s.partial", path));
    unlink(aside);
    int fd = open(aside, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    int rc = fd < 0 ? lh_err_errno(errno, "%s", aside) : lh_keys_write(k, fd, aside);
    if (rc == 0 && (fsync(fd) != 0 || rename(aside, path) != 0))
        rc = lh_err_errno(errno, "%s", path);
    if (fd >= 0) {
        close(fd);
        if (rc < 0)
            unlink(aside);
    }
    lh_mem_free(aside);
    return rc;
}

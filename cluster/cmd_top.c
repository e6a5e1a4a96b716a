/* `longhaul top`: how a run stands, again and again. On a terminal it fills the screen and leaves
 * it as it was, however it ends; elsewhere it prints plain text. */
#include "cluster/cli.h"
#include "cluster/run_watch.h"
#include "common/err.h"
#include "common/mem.h"
#include "common/term.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define CTRL_C      3
#define SCREEN_ON   "\033[?1049h\033[?25l" /* the other screen, no cursor */
#define SCREEN_OFF  "\033[?25h\033[?1049l"
#define SCREEN_HOME "\033[H"
#define LINE_REST   "\033[K"
#define SCREEN_REST "\033[J"

static int run(int argc, char **argv);

const struct lh_cmd lh_cmd_top = {
    .name = "top",
    .summary = "watch a running job",
    .usage = "--dir RUN [options]",
    .description =
        "What 'longhaul status' tells, renewed every --interval seconds until the run has ended; "
        "traffic and where the roles' time went are then those since the last look. On a terminal "
        "it takes the whole screen, and 'q' leaves it; elsewhere it prints a block of lines each "
        "time.",
    .examples = "longhaul top --dir run\n"
                "longhaul top --dir run --once",
    .run = run,
};

struct options {
    const char *dir;
    double interval;
    bool once;
};

/* --- the screen --------------------------------------------------------------------------------
 * A handler has nothing but file scope to write to. Interrupts are seen by
 * lh_cli_interrupted. */
static atomic_int asked; /* the signal that asks for the terminal back; 0: none */

static void on_signal(int signal)
{
    atomic_store(&asked, signal);
}

struct screen {
    bool on;
    struct termios before;
};

static void say(const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
}

static int screen_open(struct screen *s)
{
    if (tcgetattr(STDIN_FILENO, &s->before) != 0)
        return lh_err_errno(errno, "the terminal");
    struct termios raw = s->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0)
        return lh_err_errno(errno, "the terminal");
    s->on = true;
    say(SCREEN_ON);
    return 0;
}

static void screen_close(struct screen *s)
{
    if (!s->on)
        return;
    s->on = false;
    say(SCREEN_OFF);
    tcsetattr(STDIN_FILENO, TCSANOW, &s->before);
}

static void catch_signals(void)
{
    struct sigaction on = {.sa_handler = on_signal};
    sigemptyset(&on.sa_mask);
    sigaction(SIGTSTP, &on, NULL);
    sigaction(SIGHUP, &on, NULL);
    sigaction(SIGQUIT, &on, NULL);
    sigaction(SIGWINCH, &on, NULL); /* so that it ends the wait, and the screen is drawn anew */
}

/* Ctrl-Z: the terminal goes back to the shell, and is taken again when that says so. */
static int be_stopped(struct screen *s)
{
    screen_close(s);
    raise(SIGSTOP);
    return screen_open(s);
}

/* The lines of `text` that fit, each cut to the width. Counts bytes, which may cut a name short. */
static void draw(const char *text)
{
    struct winsize w = {.ws_row = 24, .ws_col = 80};
    ioctl(STDOUT_FILENO, TIOCGWINSZ, &w);
    fputs(SCREEN_HOME, stdout);
    for (unsigned row = 1; *text && row < w.ws_row; row++) {
        size_t n = strcspn(text, "\n");
        printf("%.*s" LINE_REST "\n", (int)(n < w.ws_col ? n : w.ws_col), text);
        text += n + (text[n] == '\n');
    }
    fputs(SCREEN_REST "q leaves", stdout);
    fflush(stdout);
}

/* --- looking -----------------------------------------------------------------------------------
 */
static int print(const struct lh_run_watch *now, const struct lh_run_watch *before, const char *dir,
                 bool screen)
{
    char *text = NULL;
    size_t n = 0;
    FILE *to = open_memstream(&text, &n);
    if (!to)
        return lh_err_set(LH_ENOMEM, "%s: no memory to print its status", dir);
    int rc = lh_run_watch_print(now, before, dir, to);
    if (fclose(to) != 0 && rc >= 0)
        rc = lh_err_set(LH_ENOMEM, "%s: no memory to print its status", dir);
    if (rc >= 0 && screen)
        draw(text);
    else if (rc >= 0)
        say(text);
    free(text);
    return rc;
}

/* Waits for the next look. Tells whether it is to be the end. */
static int wait_for(const struct options *o, struct screen *s, bool *end)
{
    const double until = lh_now() + o->interval;
    double left;
    while (!*end && (left = until - lh_now()) > 0) {
        struct pollfd in = {.fd = s->on ? STDIN_FILENO : -1, .events = POLLIN};
        char key[16];
        int n = poll(&in, 1, (int)(left * 1000) + 1);
        int signal = atomic_exchange(&asked, 0);
        ssize_t got = n > 0 ? read(STDIN_FILENO, key, sizeof key) : 0;
        for (ssize_t i = 0; i < got; i++)
            *end = *end || key[i] == 'q' || key[i] == 'Q' || key[i] == CTRL_C;
        if (n > 0 && got <= 0)
            *end = true; /* the terminal is gone */
        *end = *end || lh_cli_interrupted() || signal == SIGHUP || signal == SIGQUIT;
        if (signal == SIGTSTP && !*end) {
            if (s->on)
                return be_stopped(s);
            raise(SIGSTOP);
        }
        if (signal == SIGWINCH)
            return 0;
    }
    return 0;
}

static int watch(const struct options *o, struct screen *s)
{
    struct lh_run_watch now = {0}, before = {0};
    bool first = true, end = false;
    int rc = 0;
    while (!end) {
        LH_TRY_TO(done, lh_run_watch_look(&now, o->dir));
        bool moved = before.has_status && now.has_status && before.status.began == now.status.began;
        if (!s->on && !first)
            putchar('\n');
        LH_TRY_TO(done, print(&now, moved ? &before : NULL, o->dir, s->on));
        end = o->once || (!now.lives && !s->on);
        first = false;
        if (!end)
            LH_TRY_TO(done, wait_for(o, s, &end));
        /* a status that was not renewed is no later look */
        if (!before.has_status || !now.has_status || now.status.written > before.status.written) {
            lh_run_watch_fini(&before);
            before = now;
            now = (struct lh_run_watch){0};
        }
        lh_run_watch_fini(&now);
    }
done:
    lh_run_watch_fini(&now);
    lh_run_watch_fini(&before);
    return rc;
}

static int top(const struct options *o)
{
    struct screen s = {0};
    struct lh_err err;
    if (!o->dir)
        return lh_err_set(LH_EUSAGE, "top: of which run? name its directory with --dir RUN");
    if (o->interval < 0.1)
        return lh_err_set(LH_EUSAGE, "top: --interval %g: expected 0.1 or more", o->interval);
    if (!o->once && isatty(STDOUT_FILENO) && isatty(STDIN_FILENO)) {
        catch_signals();
        LH_TRY(screen_open(&s));
    }
    int rc = watch(o, &s);
    lh_err_save(&err, rc);
    screen_close(&s);
    return err.code < 0 ? lh_err_load(&err) : 0;
}

static int run(int argc, char **argv)
{
    struct options o = {.interval = 1};
    const struct lh_opt opts[] = {
        {.name = "dir",
         .letter = 'd',
         .kind = LH_OPT_STRING,
         .value = &o.dir,
         .metavar = "RUN",
         .help = "The run directory."},
        {.name = "interval",
         .letter = 'n',
         .kind = LH_OPT_DOUBLE,
         .value = &o.interval,
         .metavar = "SECONDS",
         .help = "Time between two looks; the run says how it stands once a second."},
        {.name = "once",
         .kind = LH_OPT_FLAG,
         .value = &o.once,
         .help = "Look once, as 'longhaul status' does."},
    };
    size_t n_opts = sizeof opts / sizeof *opts;
    int rc = lh_cli_parse(&lh_cmd_top, opts, n_opts, argc, argv, NULL, 0, 0, NULL);
    if (rc != 0)
        return rc;
    rc = top(&o);
    lh_cli_fini(opts, n_opts);
    return rc;
}

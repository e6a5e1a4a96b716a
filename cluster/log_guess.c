/* Guessing roles: a name is cut into words ("clickTimestamp" is click, timestamp), words are looked
 * up, values must agree. Where a role has several candidates the first wins. */
#include "cluster/log_guess.h"

#include "common/err.h"
#include "common/mem.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#define WORDS_MAX 12
#define WORD_MAX  32

struct words {
    char word[WORDS_MAX][WORD_MAX];
    size_t n;
};

static void cut(const char *name, struct words *w)
{
    size_t k = 0;
    char before = '\0';
    w->n = 0;
    for (;; before = *name++) {
        char c = *name;
        bool border = !isalnum((unsigned char)c) ||
                      (isupper((unsigned char)c) && islower((unsigned char)before));
        if (border && k > 0) {
            w->word[w->n++][k] = '\0';
            k = 0;
        }
        if (!c || w->n == WORDS_MAX)
            return;
        if (isalnum((unsigned char)c) && k < WORD_MAX - 1)
            w->word[w->n][k++] = (char)tolower((unsigned char)c);
    }
}

static bool has(const struct words *w, const char *const *list)
{
    for (size_t i = 0; i < w->n; i++)
        for (size_t j = 0; list[j]; j++)
            if (strcmp(w->word[i], list[j]) == 0)
                return true;
    return false;
}

static const char *const id_words[] = {"id",   "ids", "hash",  "key",  "no",       "nr", "number",
                                       "code", "idx", "index", "uuid", "original", NULL};
static const char *const user_words[] = {"user",     "userid",   "uid",    "visitor", "visitorid",
                                         "customer", "client",   "member", "account", "shopper",
                                         "reader",   "listener", "player", NULL};
static const char *const session_words[] = {"session", "sessionid", "visit", "visitid", NULL};
static const char *const time_words[] = {"time", "timestamp", "ts",        "date", "datetime",
                                         "when", "created",   "eventtime", "day",  NULL};
static const char *const item_words[] = {
    "item", "itemid", "movie", "movieid", "video",    "article", "product", "track",
    "song", "book",   "ad",    "news",    "doc",      "content", "sku",     "asin",
    "isbn", "post",   "photo", "listing", "playlist", "game",    NULL};
static const char *const rating_words[] = {"rating", "stars", "score", NULL};
static const char *const reward_words[] = {"reward", NULL};
static const char *const end_words[] = {"done", "terminal", "terminated", NULL};
static const char *const state_words[] = {"state",   "s", "obs", "observation",
                                          "feature", "f", "x",   NULL};
static const char *const action_words[] = {"action", "a", "act", NULL};
static const char *const event_words[] = {"event", "action", "behavior", "behaviour", NULL};
static const char *const feedback_words[] = {
    "click",      "clicked",   "like",   "liked", "purchase", "purchased", "buy",   "bought",
    "order",      "view",      "follow", "share", "comment",  "forward",   "hate",  "dislike",
    "conversion", "converted", "play",   "skip",  "skipped",  "watch",     "dwell", "duration",
    "cart",       "event",     "finish", "is",    NULL};
/* amounts and counts of what came after the fact: never a state */
static const char *const after_words[] = {"return", "length",     "size", "revenue",     "position",
                                          "rank",   "propensity", "prob", "probability", NULL};

static const char *const bad_words[] = {"hate",        "dislike", "disliked", "skip",
                                        "skipped",     "report",  "block",    "unlike",
                                        "unsubscribe", "return",  "bounce",   NULL};

/* A word of the list, and beside it none but those that names of ids have: "user_id", but not
 * "user_age". */
static bool names_id(const struct words *w, const char *const *list)
{
    for (size_t i = 0; i < w->n; i++) {
        struct words word = {.n = 1};
        memcpy(word.word[0], w->word[i], WORD_MAX);
        if (!has(&word, list) && !has(&word, id_words))
            return false;
    }
    return has(w, list);
}

static bool numeric(const struct lh_probe_column *c)
{
    return c->present > 0 && c->numbers == c->present;
}

static bool whole(const struct lh_probe_column *c)
{
    return c->present > 0 && c->whole == c->present;
}

/* Times since 1970 between 1990 and 2100, or dates. */
static bool time_unit(const struct lh_probe_column *c, enum lh_time_unit *unit)
{
    static const struct {
        enum lh_time_unit unit;
        double second;
    } units[] = {{LH_TIME_S, 1}, {LH_TIME_MS, 1e3}, {LH_TIME_US, 1e6}, {LH_TIME_NS, 1e9}};
    if (c->present > 0 && c->iso == c->present) {
        *unit = LH_TIME_ISO8601;
        return true;
    }
    for (size_t i = 0; numeric(c) && i < sizeof units / sizeof *units; i++) {
        if (c->lo >= 631152000 * units[i].second && c->hi <= 4102444800 * units[i].second) {
            *unit = units[i].unit;
            return true;
        }
    }
    return false;
}

/* 20220425: no count of anything, and as a category it would know only the days of this log. */
static bool calendar(const struct lh_probe_column *c)
{
    return whole(c) && c->lo >= 19000101 && c->hi <= 21001231;
}

/* A clock of its own, told by its name: seconds unless the name says otherwise. */
static bool own_clock(const struct lh_probe_column *c, const struct words *w,
                      enum lh_time_unit *unit)
{
    static const char *const ms[] = {"ms", "millis", NULL}, *const us[] = {"us", "micros", NULL};
    static const char *const ns[] = {"ns", "nanos", NULL}, *const day[] = {"day", NULL};
    if (!numeric(c) || c->lo < 0 || has(w, feedback_words) || has(w, after_words))
        return false;
    *unit = has(w, ms)    ? LH_TIME_MS
            : has(w, us)  ? LH_TIME_US
            : has(w, ns)  ? LH_TIME_NS
            : has(w, day) ? LH_TIME_DAY
                          : LH_TIME_S;
    return true;
}

static bool id_like(const struct lh_probe_column *c)
{
    return whole(c) || c->numbers < c->present;
}

/* state_12, s.3, action_0: a word of the list, then a number. */
static bool component(const struct words *w, const char *const *list)
{
    return w->n >= 2 && has(w, list) &&
           strspn(w->word[w->n - 1], "0123456789") == strlen(w->word[w->n - 1]);
}

static enum lh_role role_by_name(const struct lh_probe_column *c, enum lh_time_unit *unit)
{
    struct words w;
    cut(c->name, &w);
    if (component(&w, action_words) && numeric(c))
        return LH_ROLE_ACTION;
    if (component(&w, state_words) && numeric(c))
        return LH_ROLE_STATE;
    if (has(&w, time_words) && calendar(c))
        return LH_ROLE_NONE;
    if (has(&w, time_words) && (time_unit(c, unit) || own_clock(c, &w, unit)))
        return LH_ROLE_TIME;
    if (has(&w, reward_words) && numeric(c))
        return LH_ROLE_REWARD;
    if (names_id(&w, session_words) && id_like(c))
        return LH_ROLE_SESSION;
    if (names_id(&w, user_words) && id_like(c))
        return LH_ROLE_USER;
    if (has(&w, end_words) && numeric(c) && c->lo >= 0 && c->hi <= 1)
        return LH_ROLE_END;
    if (has(&w, rating_words) && numeric(c) && !c->many)
        return LH_ROLE_RATING;
    if (names_id(&w, item_words) && id_like(c))
        return LH_ROLE_ITEM;
    if (has(&w, event_words) && c->numbers == 0 && !c->many && c->n_values > 1)
        return LH_ROLE_EVENT;
    if (has(&w, feedback_words) && numeric(c) && c->lo >= 0)
        return LH_ROLE_FEEDBACK;
    if (has(&w, after_words) || c->present == 0)
        return LH_ROLE_NONE;
    if (!c->many && c->n_values > 1 && (c->numbers < c->present || whole(c)))
        return LH_ROLE_CONTEXT;
    return LH_ROLE_NONE;
}

/* Of several columns of time, the one that tells rows apart: since 1970 or a date before a clock of
 * its own, then many values before few. */
static bool better_time(const struct lh_probe_column *a, const struct lh_probe_column *b)
{
    enum lh_time_unit unit;
    bool since_a = time_unit(a, &unit), since_b = time_unit(b, &unit);
    if (since_a != since_b)
        return since_a;
    if (a->many != b->many)
        return a->many;
    return !a->many && a->n_values > b->n_values;
}

/* Keeps the first column of a role that only one may have; the others are left out. */
static size_t only(struct lh_log_guess *g, size_t n, enum lh_role role)
{
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        if (g->role[i] != role)
            continue;
        if (found == SIZE_MAX)
            found = i;
        else
            g->role[i] = LH_ROLE_NONE;
    }
    return found;
}

static size_t count(const struct lh_log_guess *g, size_t n, enum lh_role role)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        found += g->role[i] == role;
    return found;
}

/* Without names: the first id is the user, the second the item; a time is told by its values, a
 * rating by being few small numbers. */
static void guess_by_position(struct lh_log_guess *g, const struct lh_log_probe *p)
{
    for (size_t i = 0; i < p->n_columns; i++) {
        const struct lh_probe_column *c = &p->columns[i];
        enum lh_role *role = &g->role[i];
        if (time_unit(c, &g->unit) && count(g, i, LH_ROLE_TIME) == 0)
            *role = LH_ROLE_TIME;
        else if (id_like(c) && c->n_values > 20 && count(g, i, LH_ROLE_USER) == 0)
            *role = LH_ROLE_USER;
        else if (id_like(c) && c->n_values > 20 && count(g, i, LH_ROLE_ITEM) == 0)
            *role = LH_ROLE_ITEM;
        else if (numeric(c) && c->n_values <= 20 && c->lo >= 0 && c->hi <= 10 && c->hi > 1)
            *role = LH_ROLE_RATING;
        else
            *role = LH_ROLE_NONE;
    }
}

int lh_log_guess_make(struct lh_log_guess *out, const struct lh_log_probe *p)
{
    struct lh_log_guess *g = out;
    size_t n = p->n_columns;
    *g = (struct lh_log_guess){.by_position = !p->header && !p->jsonl};
    LH_TRY(LH_NEW_ARRAY(&g->role, n, "guesses"));
    if (g->by_position) {
        guess_by_position(g, p);
    } else {
        size_t time = SIZE_MAX;
        for (size_t i = 0; i < n; i++) {
            enum lh_time_unit unit = LH_TIME_S;
            g->role[i] = role_by_name(&p->columns[i], &unit);
            if (g->role[i] != LH_ROLE_TIME)
                continue;
            if (time != SIZE_MAX && !better_time(&p->columns[i], &p->columns[time])) {
                g->role[i] = LH_ROLE_NONE;
                continue;
            }
            if (time != SIZE_MAX)
                g->role[time] = LH_ROLE_NONE;
            time = i;
            g->unit = unit;
        }
    }
    g->user = only(g, n, LH_ROLE_USER);
    g->session = only(g, n, LH_ROLE_SESSION);
    g->time = only(g, n, LH_ROLE_TIME);
    g->item = only(g, n, LH_ROLE_ITEM);
    g->rating = only(g, n, LH_ROLE_RATING);
    g->reward = only(g, n, LH_ROLE_REWARD);
    g->event = only(g, n, LH_ROLE_EVENT);
    g->end = only(g, n, LH_ROLE_END);
    if (g->user == SIZE_MAX && g->session != SIZE_MAX) {
        g->user = g->session;
        g->session = SIZE_MAX;
        g->role[g->user] = LH_ROLE_USER;
        g->user_is_session = true;
    }
    g->states = count(g, n, LH_ROLE_STATE);
    g->actions = count(g, n, LH_ROLE_ACTION);
    g->feedbacks = count(g, n, LH_ROLE_FEEDBACK);
    g->contexts = count(g, n, LH_ROLE_CONTEXT);
    return 0;
}

bool lh_log_guess_is_bad(const char *name)
{
    struct words w;
    cut(name, &w);
    return has(&w, bad_words);
}

void lh_log_guess_fini(struct lh_log_guess *g)
{
    lh_mem_free(g->role);
    *g = (struct lh_log_guess){0};
}

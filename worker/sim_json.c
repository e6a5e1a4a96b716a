/* A world as text and back: the members of its config under "simulation", in the manifest of a
 * dataset (JSON) and in the schema beside a CSV log (YAML). Numbers are written so that reading
 * gives the same bits. */
#include "common/err.h"
#include "common/mem.h"
#include "worker/sim.h"
#include "worker/sim_internal.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1 /* of the dynamics: a change that changes a log raises it */

static double member(const struct lh_sim_config *c, size_t i)
{
    double v;
    memcpy(&v, (const char *)c + sim_members[i].offset, sizeof v);
    return v;
}

/* `quote` around names, `open` before and `line` before each member. */
static int print_members(const struct lh_sim_config *c, char **out, const char *quote,
                         const char *line, const char *comma)
{
    char text[64 * (SIM_MEMBERS + 2)];
    size_t used =
        (size_t)snprintf(text, sizeof text, "%s%sversion%s: %d%s%s%sworld_seed%s: %" PRIu64, line,
                         quote, quote, VERSION, comma, line, quote, quote, c->world_seed);
    for (size_t i = 0; i < SIM_MEMBERS && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%s%s%s: %.17g", comma, line,
                                 quote, sim_members[i].name, quote, member(c, i));
    return lh_mem_strdup(out, text);
}

int lh_sim_json(const struct lh_sim *sim, char **out)
{
    char *members = NULL;
    LH_TRY(print_members(&sim->c, &members, "\"", "", ", "));
    int rc = lh_mem_printf(out, "{\"simulation\": {%s}}", members);
    lh_mem_free(members);
    return rc;
}

int lh_sim_yaml(const struct lh_sim *sim, const char *indent, char **out)
{
    char *members = NULL;
    LH_TRY(print_members(&sim->c, &members, "", indent, "\n"));
    int rc = lh_mem_printf(out, "%s\n", members);
    lh_mem_free(members);
    return rc;
}

/* A number, or the text of one: a schema embedded as JSON may keep its scalars as text. */
static int number(const cJSON *object, const char *name, double *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (cJSON_IsNumber(item)) {
        *out = item->valuedouble;
        return 0;
    }
    char *end = NULL;
    if (cJSON_IsString(item)) {
        *out = strtod(item->valuestring, &end);
        if (end != item->valuestring && !*end)
            return 0;
    }
    return lh_err_set(LH_EFORMAT, "simulation: %s is %s; the world cannot be rebuilt without it",
                      name, item ? "no number" : "missing");
}

static int read_members(const cJSON *object, struct lh_sim_config *c)
{
    double version, seed;
    LH_TRY(number(object, "version", &version));
    if (version != VERSION)
        return lh_err_set(LH_EFORMAT,
                          "simulation: the world has version %g, this program knows %d; generate "
                          "the log anew",
                          version, VERSION);
    LH_TRY(number(object, "world_seed", &seed));
    if (!(seed >= 0 && seed <= LH_SIM_SEED_MAX && seed == (double)(uint64_t)seed))
        return lh_err_set(LH_EFORMAT, "simulation: world_seed is %g; expected a whole number",
                          seed);
    c->world_seed = (uint64_t)seed;
    for (size_t i = 0; i < SIM_MEMBERS; i++) {
        double v;
        LH_TRY(number(object, sim_members[i].name, &v));
        memcpy((char *)c + sim_members[i].offset, &v, sizeof v);
    }
    return 0;
}

int lh_sim_from_json(struct lh_sim **out, const char *json)
{
    cJSON *doc = cJSON_Parse(json);
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(doc, "simulation");
    if (!object) /* in a manifest it lies under its origin */
        object = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(doc, "origin"),
                                                  "simulation");
    struct lh_sim_config c;
    lh_sim_config_default(&c);
    int rc = LH_NOTFOUND;
    if (cJSON_IsObject(object)) {
        rc = read_members(object, &c);
        if (rc == 0)
            rc = lh_sim_create(out, &c);
    }
    cJSON_Delete(doc);
    return rc;
}

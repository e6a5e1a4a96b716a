/* A world as text and back: the members of its config under "simulation", in the manifest of a
 * dataset (JSON) and in the schema beside a CSV log (YAML). Numbers are written so that reading
 * gives the same bits. */
#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"
#include "common/yaml.h"
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

/* Where the members are read from: an object of a manifest, or a mapping of the schema that a log
 * was imported under. */
struct source {
    const cJSON *json;
    const struct lh_yaml_node *yaml;
};

static int number(const struct source *from, const char *name, double *out)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(from->json, name);
    const struct lh_yaml_node *node = lh_yaml_get(from->yaml, name);
    if (cJSON_IsNumber(item)) {
        *out = item->valuedouble;
        return 0;
    }
    if (node)
        return lh_yaml_double(node, -1e300, 1e300, out);
    return lh_err_set(LH_EFORMAT, "simulation: %s is %s; the world cannot be rebuilt without it",
                      name, item ? "no number" : "missing");
}

static int read_members(const struct source *from, struct lh_sim_config *c)
{
    double version, seed;
    LH_TRY(number(from, "version", &version));
    if (version != VERSION)
        return lh_err_set(LH_EFORMAT,
                          "simulation: the world has version %g, this program knows %d; generate "
                          "the log anew",
                          version, VERSION);
    LH_TRY(number(from, "world_seed", &seed));
    if (!(seed >= 0 && seed <= (double)LH_SIM_SEED_MAX && seed == (double)(uint64_t)seed))
        return lh_err_set(LH_EFORMAT, "simulation: world_seed is %g; expected a whole number",
                          seed);
    c->world_seed = (uint64_t)seed;
    for (size_t i = 0; i < SIM_MEMBERS; i++) {
        double v;
        LH_TRY(number(from, sim_members[i].name, &v));
        memcpy((char *)c + sim_members[i].offset, &v, sizeof v);
    }
    return 0;
}

static int create_from(struct lh_sim **out, const struct source *from)
{
    struct lh_sim_config c;
    LH_TRY(read_members(from, &c));
    return lh_sim_create(out, &c);
}

static int from_schema(struct lh_sim **out, const char *text)
{
    struct lh_yaml *doc = NULL;
    LH_TRY(lh_yaml_load_text(&doc, text, strlen(text), "schema"));
    struct source from = {.yaml = lh_yaml_get(lh_yaml_root(doc), "simulation")};
    int rc = from.yaml ? create_from(out, &from) : LH_NOTFOUND;
    lh_yaml_destroy(&doc);
    return rc;
}

/* The world lies at the top of what lh_sim_json wrote; in a manifest under `origin`, or under the
 * `simulation` of the schema embedded there. */
int lh_sim_from_json(struct lh_sim **out, const char *json)
{
    cJSON *doc = cJSON_Parse(json);
    const cJSON *origin = cJSON_GetObjectItemCaseSensitive(doc, "origin");
    const cJSON *schema = cJSON_GetObjectItemCaseSensitive(origin, "schema");
    struct source from = {.json = cJSON_GetObjectItemCaseSensitive(doc, "simulation")};
    if (!from.json)
        from.json = cJSON_GetObjectItemCaseSensitive(origin, "simulation");
    int rc = LH_NOTFOUND;
    if (cJSON_IsObject(from.json))
        rc = create_from(out, &from);
    else if (cJSON_IsString(schema))
        rc = from_schema(out, schema->valuestring);
    cJSON_Delete(doc);
    return rc;
}

int lh_sim_load(struct lh_sim **out, const char *path)
{
    char *text = NULL;
    size_t n;
    LH_TRY(lh_fs_read_file(&text, &n, path, 1 << 20));
    int rc = lh_sim_from_json(out, text);
    lh_mem_free(text);
    if (rc == LH_NOTFOUND)
        return lh_err_set(LH_EFORMAT,
                          "%s: no world of a simulation; expected a world.json as `longhaul "
                          "simulate` writes it",
                          path);
    return rc < 0 ? lh_err_prefix(rc, "%s", path) : 0;
}

int lh_sim_config_set(struct lh_sim_config *config, const char *assignment)
{
    const char *equals = strchr(assignment, '='), *names[SIM_MEMBERS];
    size_t n = equals ? (size_t)(equals - assignment) : strlen(assignment);
    for (size_t i = 0; i < SIM_MEMBERS; i++) {
        const char *name = names[i] = sim_members[i].name;
        if (strlen(name) != n || strncmp(name, assignment, n) != 0)
            continue;
        char *end = NULL;
        double v = equals ? strtod(equals + 1, &end) : 0;
        if (!equals || end == equals + 1 || *end)
            return lh_err_set(LH_EUSAGE, "world: '%s'; expected %s=NUMBER", assignment, name);
        memcpy((char *)config + sim_members[i].offset, &v, sizeof v);
        return 0;
    }
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)(n < 60 ? n : 60), assignment);
    const char *near = lh_yaml_nearest(word, names, SIM_MEMBERS);
    return lh_err_set(LH_EUSAGE, "world: '%s' is unknown; did you mean '%s'?", word,
                      near ? near : names[0]);
}

int lh_sim_from_dataset(struct lh_sim **out, const struct lh_dataset *ds)
{
    int rc = lh_sim_from_json(out, lh_dataset_manifest(ds));
    return rc < 0 ? lh_err_prefix(rc, "%s", lh_dataset_dir(ds)) : rc;
}

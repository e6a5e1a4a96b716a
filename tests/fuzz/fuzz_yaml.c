/* common/yaml, common/job, common/schema: byte 0 says as what the text is read. A job that passes
 * is printed and read again, and is then the same job. */
#include "common/yaml.h"

#include "common/job.h"
#include "common/schema.h"
#include "tests/fuzz/fuzzkit.h"

#include <string.h>

static void walk(const struct lh_yaml_node *n, unsigned depth)
{
    int64_t i;
    double x;
    bool b;
    const char *s;
    fuzzkit_require(depth <= 64, "nesting is bounded");
    lh_yaml_int(n, -5, 5, &i);
    lh_yaml_double(n, 0, 1, &x);
    lh_yaml_bool(n, &b);
    if (lh_yaml_string(n, &s) == 0 && n->kind == LH_YAML_SCALAR)
        fuzzkit_touch(s, strlen(s));
    for (const struct lh_yaml_node *c = n->child; c; c = c->next)
        walk(c, depth + 1);
}

static void as_job(const char *text, size_t n)
{
    struct lh_job *job = NULL, *again = NULL;
    char *printed = NULL;
    if (!fuzzkit_passed(lh_job_load_text(&job, text, n, "job.yaml", NULL)))
        return;
    fuzzkit_require(lh_job_print(job, &printed) == 0, "a job can be printed");
    fuzzkit_require(lh_job_load_text(&again, printed, strlen(printed), "again", NULL) == 0,
                    "what was printed is a job");
    fuzzkit_require(lh_job_digest(job) == lh_job_digest(again), "… and the same");
    lh_mem_free(printed);
    lh_job_destroy(&again);
    lh_job_destroy(&job);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    struct lh_yaml *doc = NULL;
    struct lh_schema *schema = NULL;
    lh_err_clear();
    switch (data[0] % 3) {
    case 0:
        if (fuzzkit_passed(lh_yaml_load_text(&doc, text, size - 1, "t.yaml")))
            walk(lh_yaml_root(doc), 0);
        lh_yaml_destroy(&doc);
        break;
    case 1:
        as_job(text, size - 1);
        break;
    default:
        fuzzkit_passed(lh_schema_load_text(&schema, text, size - 1, "s.yaml", NULL, 0));
        lh_schema_destroy(&schema);
    }
    return 0;
}

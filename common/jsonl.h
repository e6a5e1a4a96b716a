/* JSON lines: picks wanted values out of one object a line, without building anything. */
#pragma once

#include "common/field.h"

struct lh_jsonl;

/* `names` are keys of the line's object; dots descend into objects and, as numbers from 0, into
 * arrays ("user.id", "state.3"). A name that is a key as it stands, dots included, is that key.
 * Names must differ; they are copied. Errors: LH_ENOMEM. */
int lh_jsonl_create(struct lh_jsonl **out, const char *const *names, size_t n);
void lh_jsonl_destroy(struct lh_jsonl **j); /* NULL content allowed */

/* Parses one line (blanks around it are fine) into fields[i] for names[i]; a key that comes twice
 * counts the last time. NULL, or what is wrong, *at being the byte where. Any thread. */
const char *lh_jsonl_parse(const struct lh_jsonl *j, const char *text, size_t n,
                           struct lh_field *fields, size_t *at);

/* Which files a log is made of. */
#include "common/import.h"

#include "common/err.h"
#include "common/fs.h"
#include "common/mem.h"

#include <glob.h>
#include <string.h>

struct list {
    char **name;
    size_t n, cap;
};

static int add(struct list *l, const char *path)
{
    LH_TRY(LH_GROW(&l->name, &l->cap, l->n + 1, "file names"));
    LH_TRY(lh_mem_strdup(&l->name[l->n], path));
    l->n++;
    return 0;
}

static int add_pattern(struct list *l, const char *pattern)
{
    glob_t found;
    int got = glob(pattern, 0, NULL, &found); /* sorted */
    if (got == GLOB_NOMATCH)
        return lh_err_set(LH_ENOENT, "%s: no file matches", pattern);
    if (got != 0)
        return lh_err_set(got == GLOB_NOSPACE ? LH_ENOMEM : LH_EIO, "%s: cannot be searched",
                          pattern);
    int rc = 0;
    for (size_t i = 0; i < found.gl_pathc && rc == 0; i++)
        rc = add(l, found.gl_pathv[i]);
    globfree(&found);
    return rc;
}

static int add_name(struct list *l, const char *path)
{
    static const char *const suffix[] = {"", ".gz", ".xz", ".zst", ".bz2"};
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        char *name;
        LH_TRY(lh_mem_printf(&name, "%s%s", path, suffix[i]));
        bool there = lh_fs_exists(name);
        int rc = there ? add(l, name) : 0;
        lh_mem_free(name);
        if (there || rc < 0)
            return rc;
    }
    return lh_err_set(LH_ENOENT, "%s: no such file (nor with .gz, .xz, .zst, .bz2 behind it)",
                      path);
}

static int add_file(struct list *l, const char *data_dir, const char *file)
{
    if (strcmp(file, "-") == 0)
        return add(l, file);
    char *path;
    bool bare = !data_dir || !*data_dir || file[0] == '/';
    LH_TRY(bare ? lh_mem_strdup(&path, file) : lh_mem_printf(&path, "%s/%s", data_dir, file));
    bool pattern = strpbrk(file, "*?[") && !lh_fs_exists(path);
    int rc = pattern ? add_pattern(l, path) : add_name(l, path);
    lh_mem_free(path);
    return rc;
}

int lh_import_files(char ***out, size_t *n, const char *data_dir, const char *const *files,
                    size_t n_files)
{
    struct list l = {.n = 0};
    for (size_t i = 0; i < n_files; i++) {
        int rc = add_file(&l, data_dir, files[i]);
        if (rc < 0) {
            lh_import_files_free(&l.name, l.n);
            return rc;
        }
    }
    *out = l.name;
    *n = l.n;
    return 0;
}

void lh_import_files_free(char ***files, size_t n)
{
    for (size_t i = 0; i < n; i++)
        lh_mem_free((*files)[i]);
    lh_mem_free(*files);
    *files = NULL;
}

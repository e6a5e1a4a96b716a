/* Error sentences. The buffer is thread-local, so that roles that are threads of one process do
 * not overwrite each other's; it is the only mutable file-scope state of the project. */
#include "common/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char sentence[LH_ERR_MAX];

void lh_err_plain(char *text)
{
    unsigned char before = 0;
    for (unsigned char *at = (unsigned char *)text; *at; at++) {
        const unsigned char c = *at;
        /* the second half of the controls: alone, or as UTF-8 writes them */
        const bool high = c >= 0x80 && c < 0xa0 && (before < 0x80 || before == 0xc2);
        if (high && before == 0xc2)
            at[-1] = '?';
        if (high || c < 0x20 || c == 0x7f)
            *at = '?';
        before = high ? 0 : c;
    }
}

static void store(const char *text)
{
    size_t n = strnlen(text, LH_ERR_MAX - 1);
    memcpy(sentence, text, n);
    sentence[n] = '\0';
    lh_err_plain(sentence);
}

int lh_err_set(int code, const char *fmt, ...)
{
    char text[LH_ERR_MAX]; /* the arguments may point into `sentence` */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    store(text);
    return code;
}

static int code_of_errno(int e)
{
    switch (e) {
    case ENOENT:
    case ENOTDIR:
        return LH_ENOENT;
    case EACCES:
    case EPERM:
    case EROFS:
        return LH_EACCES;
    case ENOSPC:
    case EDQUOT:
        return LH_ENOSPC;
    case EEXIST:
    case ENOTEMPTY:
        return LH_EEXIST;
    case ENOMEM:
        return LH_ENOMEM;
    default:
        return LH_EIO;
    }
}

/* Where the cure is the same whoever failed. */
static const char *cure_of_errno(int e)
{
    switch (e) {
    case ENOSPC:
    case EDQUOT:
        return "; free some space and try again";
    case EFBIG:
        return "; raise the limit on the size of files (ulimit -f)";
    case EACCES:
    case EPERM:
        return "; check who owns it and its permissions";
    case EROFS:
        return "; choose another place";
    default:
        return "";
    }
}

int lh_err_errno(int errno_value, const char *fmt, ...)
{
    char text[LH_ERR_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char whole[LH_ERR_MAX + 224];
    snprintf(whole, sizeof whole, "%s: %s%s", text, strerror(errno_value),
             cure_of_errno(errno_value));
    store(whole);
    return code_of_errno(errno_value);
}

int lh_err_prefix(int code, const char *fmt, ...)
{
    char text[LH_ERR_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    char whole[2 * LH_ERR_MAX];
    snprintf(whole, sizeof whole, "%s: %s", text, sentence);
    store(whole);
    return code;
}

const char *lh_err_text(void)
{
    return sentence;
}

void lh_err_save(struct lh_err *out, int code)
{
    out->code = code;
    memcpy(out->text, sentence, sizeof out->text);
}

int lh_err_load(const struct lh_err *saved)
{
    store(saved->text);
    return saved->code;
}

void lh_err_clear(void)
{
    sentence[0] = '\0';
}

const char *lh_err_name(int code)
{
    switch (code) {
#define LH_ERR_NAME(code_, number, name, status, text)                                             \
    case code_:                                                                                    \
        return name;
        LH_ERRORS(LH_ERR_NAME)
#undef LH_ERR_NAME
    default:
        return code >= 0 ? "ok" : "unknown";
    }
}

const char *lh_err_kind(int code)
{
    switch (code) {
#define LH_ERR_KIND(code_, number, name, status, text)                                             \
    case code_:                                                                                    \
        return text;
        LH_ERRORS(LH_ERR_KIND)
#undef LH_ERR_KIND
    default:
        return code >= 0 ? "no error" : "an unknown error";
    }
}

int lh_err_exit_status(int code)
{
    switch (code) {
#define LH_ERR_STATUS(code_, number, name, status, text)                                           \
    case code_:                                                                                    \
        return status;
        LH_ERRORS(LH_ERR_STATUS)
#undef LH_ERR_STATUS
    default:
        return code >= 0 ? 0 : 1;
    }
}

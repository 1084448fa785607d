/* Errors: a code, one line of text, a hint. See error.h.
 *
 * Text is always formatted into a buffer of its own first, so that an error's own message may be
 * among the arguments. What does not fit is cut between two characters; control characters and
 * invalid UTF-8, which may come from a guest or a file name, become spaces and question marks.
 */
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/utf8.h"

static const struct {
    const char *name;
    int errnum;
} codes[] = {
    [VF_OK] = {"ok", 0},
    [VF_INVALID_ARGUMENT] = {"invalid_argument", EINVAL},
    [VF_NOT_FOUND] = {"not_found", ENOENT},
    [VF_CONFLICT] = {"conflict", EBUSY},
    [VF_PERMISSION] = {"permission", EACCES},
    [VF_TIMEOUT] = {"timeout", ETIMEDOUT},
    [VF_CANCELLED] = {"cancelled", ECANCELED},
    [VF_UNSUPPORTED] = {"unsupported", EOPNOTSUPP},
    [VF_NO_MEMORY] = {"no_memory", ENOMEM},
    [VF_NO_SPACE] = {"no_space", ENOSPC},
    [VF_IO] = {"io", EIO},
    [VF_CORRUPT] = {"corrupt", EBADMSG},
    [VF_PROTOCOL] = {"protocol", EPROTO},
    [VF_VMM_FAILED] = {"vmm_failed", EREMOTEIO},
    [VF_VMM_DIED] = {"vmm_died", EPIPE},
    [VF_GUEST_FAILED] = {"guest_failed", ECONNABORTED},
    [VF_PROOF_FAILED] = {"proof_failed", EKEYREJECTED},
    [VF_BUSY] = {"busy", EAGAIN},
    [VF_INTERNAL] = {"internal", EFAULT},
};
_Static_assert(sizeof(codes) / sizeof(codes[0]) == VF_CODE_COUNT, "a code without a name");

const char *vf_code_name(enum vf_code code)
{
    return (unsigned)code < VF_CODE_COUNT ? codes[code].name : "internal";
}

int vf_code_errno(enum vf_code code)
{
    return (unsigned)code < VF_CODE_COUNT ? -codes[code].errnum : -EFAULT;
}

enum vf_code vf_code_from_errno(int err)
{
    int e = err < 0 ? -err : err;

    for (int i = 0; i < VF_CODE_COUNT; i++) {
        if (codes[i].errnum == e)
            return (enum vf_code)i;
    }
    switch (e) {
    case ENAMETOOLONG:
    case ENOTDIR:
    case EISDIR:
    case ELOOP:
        return VF_INVALID_ARGUMENT;
    case ESRCH:
    case ENODEV:
    case ENXIO:
        return VF_NOT_FOUND;
    case EEXIST:
    case EADDRINUSE:
    case ENOTEMPTY:
    case ETXTBSY:
        return VF_CONFLICT;
    case EPERM:
    case EROFS:
        return VF_PERMISSION;
    case ETIME:
        return VF_TIMEOUT;
    case ENOSYS:
    case EPROTONOSUPPORT:
    case EAFNOSUPPORT:
        return VF_UNSUPPORTED;
    case EDQUOT:
    case EFBIG:
        return VF_NO_SPACE;
    case EMFILE:
    case ENFILE:
        return VF_BUSY;
    default:
        return VF_IO;
    }
}

/* Makes text one line of valid UTF-8, in place (no replacement is longer than what it replaces). */
static void clean(char *text)
{
    size_t len = strlen(text), out = 0;

    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = vf_utf8_next(text + i, len - i, &cp);

        if (n == 0) {
            text[out++] = '?';
            i++;
        } else if (vf_utf8_is_control(cp)) {
            text[out++] = cp == '\n' || cp == '\t' || cp == '\r' ? ' ' : '?';
            i += n;
        } else {
            memmove(text + out, text + i, n);
            out += n;
            i += n;
        }
    }
    text[out] = '\0';
}

static void format(char *buf, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(buf, size, fmt, ap);

    if (n < 0)
        buf[0] = '\0';
    else if ((size_t)n >= size)
        buf[vf_utf8_cut(buf, size - 1)] = '\0';
    clean(buf);
}

/* dst = first + separator + second, cut between characters. dst may be none of them. */
static void join(char *dst, size_t size, const char *first, const char *separator,
                 const char *second)
{
    int n = snprintf(dst, size, "%s%s%s", first, separator, second);

    if (n < 0)
        dst[0] = '\0';
    else if ((size_t)n >= size)
        dst[vf_utf8_cut(dst, size - 1)] = '\0';
}

int vf_fail(struct vf_error *err, enum vf_code code, const char *fmt, ...)
{
    char text[sizeof(err->msg)];
    va_list ap;

    if (err == NULL)
        return vf_code_errno(code);
    va_start(ap, fmt);
    format(text, sizeof(text), fmt, ap);
    va_end(ap);
    err->code = code;
    memcpy(err->msg, text, strlen(text) + 1);
    err->hint[0] = '\0';
    return vf_code_errno(code);
}

/* Four errnos stand for codes of ours that a system call can't mean: a pipe without a reader is not
 * a dead VMM. */
static enum vf_code code_from_syscall(int errnum)
{
    enum vf_code code = vf_code_from_errno(errnum);

    switch (code) {
    case VF_OK:
    case VF_VMM_FAILED:
    case VF_VMM_DIED:
    case VF_GUEST_FAILED:
    case VF_PROOF_FAILED:
        return VF_IO;
    default:
        return code;
    }
}

int vf_fail_errno(struct vf_error *err, int errnum, const char *fmt, ...)
{
    enum vf_code code = code_from_syscall(errnum);
    int e = errnum < 0 ? -errnum : errnum;
    const char *description = strerrordesc_np(e);
    char text[sizeof(err->msg)], number[32];
    va_list ap;

    if (err == NULL)
        return vf_code_errno(code);
    if (description == NULL) {
        snprintf(number, sizeof(number), "errno %d", e);
        description = number;
    }
    va_start(ap, fmt);
    format(text, sizeof(text), fmt, ap);
    va_end(ap);
    err->code = code;
    join(err->msg, sizeof(err->msg), text, ": ", description);
    err->hint[0] = '\0';
    if (e == EMFILE)
        vf_hint(err, "raise the limit of open files: ulimit -n, or LimitNOFILE= in a unit");
    return vf_code_errno(code);
}

int vf_wrap(struct vf_error *err, const char *fmt, ...)
{
    char text[sizeof(err->msg)], old[sizeof(err->msg)];
    va_list ap;

    if (err == NULL)
        return vf_code_errno(VF_INTERNAL);
    va_start(ap, fmt);
    format(text, sizeof(text), fmt, ap);
    va_end(ap);
    memcpy(old, err->msg, sizeof(old));
    join(err->msg, sizeof(err->msg), text, ": ", old);
    return vf_code_errno(err->code);
}

int vf_hint(struct vf_error *err, const char *fmt, ...)
{
    char text[sizeof(err->hint)];
    va_list ap;

    if (err == NULL)
        return vf_code_errno(VF_INTERNAL);
    if (err->hint[0] == '\0') {
        va_start(ap, fmt);
        format(text, sizeof(text), fmt, ap);
        va_end(ap);
        memcpy(err->hint, text, strlen(text) + 1);
    }
    return vf_code_errno(err->code);
}

int vf_error_copy(struct vf_error *dst, const struct vf_error *src)
{
    if (dst != NULL && dst != src)
        *dst = *src;
    return vf_code_errno(src->code);
}

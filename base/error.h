/* Errors: what went wrong, in words a person can act on.
 *
 * Inside the code a function returns 0 or a negative errno and fills a struct vf_error that its
 * caller owns. Each layer that knows something the layer below did not (which template, which
 * step) wraps the message once: "template web: restore: state file: short read". The edge (a
 * command, the API) prints or sends it once. Outputs (ret_*) are untouched on failure.
 *
 * All functions accept err == NULL. None allocates. Messages longer than the buffer are cut.
 */
#ifndef VF_BASE_ERROR_H
#define VF_BASE_ERROR_H

#include <stdarg.h>

enum vf_code {
    VF_OK = 0,
    VF_INVALID_ARGUMENT, /* the caller's input is wrong; the message names the field  -EINVAL */
    VF_NOT_FOUND,        /* -ENOENT */
    VF_CONFLICT,         /* exists already, is in use, is in the wrong state  -EBUSY */
    VF_PERMISSION,       /* -EACCES */
    VF_TIMEOUT,          /* a deadline passed; the message says which  -ETIMEDOUT */
    VF_CANCELLED,        /* the caller withdrew the request  -ECANCELED */
    VF_UNSUPPORTED,      /* the VMM, its version or this host can't  -EOPNOTSUPP */
    VF_NO_MEMORY,        /* -ENOMEM */
    VF_NO_SPACE,         /* disk full  -ENOSPC */
    VF_IO,               /* any other system call failure  -EIO */
    VF_CORRUPT,          /* stored data do not match their manifest  -EBADMSG */
    VF_PROTOCOL,         /* a peer (VMM, guest) broke its protocol  -EPROTO */
    VF_VMM_FAILED,       /* the VMM refused or failed a request  -EREMOTEIO */
    VF_VMM_DIED,         /* the VMM's process ended  -EPIPE */
    VF_GUEST_FAILED,     /* the guest answered with an error or ended  -ECONNABORTED */
    VF_PROOF_FAILED,     /* a VM could not prove what it is; never hand it out  -EKEYREJECTED */
    VF_BUSY,             /* too many of something; try again  -EAGAIN */
    VF_INTERNAL,         /* a bug of ours  -EFAULT */
    VF_CODE_COUNT
};

struct vf_error {
    enum vf_code code;
    char msg[768];  /* UTF-8, one line, outermost layer first */
    char hint[256]; /* what to do about it; may be empty */
};

/* "invalid_argument", …: stable names, as the API shows them. */
const char *vf_code_name(enum vf_code code);
/* The negative errno that stands for a code; 0 for VF_OK. */
int vf_code_errno(enum vf_code code);
/* The code that fits an errno (either sign), VF_IO where none does better. */
enum vf_code vf_code_from_errno(int err);

/* Sets code and message, clears the hint. Returns vf_code_errno(code). */
int vf_fail(struct vf_error *err, enum vf_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for a failed system call: errnum of either sign; ": strerror" is appended. */
int vf_fail_errno(struct vf_error *err, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Puts "text: " before the message. Returns vf_code_errno(err->code). */
int vf_wrap(struct vf_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Sets the hint if none is set yet (the innermost knows best). Returns vf_code_errno(err->code). */
int vf_hint(struct vf_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Copies; dst may be NULL. Returns vf_code_errno(src->code). */
int vf_error_copy(struct vf_error *dst, const struct vf_error *src);

#endif

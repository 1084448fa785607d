/* Named points at which a test kills the process, to see what a crash there leaves behind.
 *
 * The environment variable VF_FAILPOINT=NAME (read once, at the program's start) or
 * vf_failpoint_arm() arms one; the process that reaches it ends itself with SIGKILL. Unarmed, a
 * point costs one load and a branch. Every name is in vf_failpoint_names, so that tests can go
 * through them all; reaching one that is not listed while any is armed aborts. */
#ifndef VF_BASE_FAILPOINT_H
#define VF_BASE_FAILPOINT_H

extern const char *const vf_failpoint_names[]; /* NULL-ended */

/* Arms name (it must live on), or none if NULL. Returns 0, or -EINVAL for an unknown name. */
int vf_failpoint_arm(const char *name);

/* For vf_failpoint() alone. */
extern const char *vf_failpoint_armed;
void vf_failpoint_reached(const char *name);

static inline void vf_failpoint(const char *name)
{
    if (__builtin_expect(vf_failpoint_armed != 0, 0))
        vf_failpoint_reached(name);
}

#endif

/* What settings*.c share. */
#ifndef VF_POOL_SETTINGS_INTERNAL_H
#define VF_POOL_SETTINGS_INTERNAL_H

#include "pool/settings.h"

enum { VF_N_SETTINGS = 35 }; /* rows of vf_settings_table, its end not counted */
#define VF_SETTINGS_GROUP \
    "vmfactory" /* the default group, where it exists and root runs the daemon */

/* The member of s that t is about. */
static inline int64_t *vf_setting_int(const struct vf_settings *s, const struct vf_setting *t)
{
    return (int64_t *)((char *)s + t->field.offset);
}

static inline char **vf_setting_string(const struct vf_settings *s, const struct vf_setting *t)
{
    return (char **)((char *)s + t->field.offset);
}

static inline int *vf_setting_enum(const struct vf_settings *s, const struct vf_setting *t)
{
    return (int *)((char *)s + t->field.offset);
}

static inline bool *vf_setting_bool(const struct vf_settings *s, const struct vf_setting *t)
{
    return (bool *)((char *)s + t->field.offset);
}

/* That what is said about networks can be read, and goes together. */
int vf_settings_check_networks(const struct vf_settings *s, struct vf_error *err);
/* That a number is within its limits; the message names the unit. */
int vf_setting_check_limits(const struct vf_settings *s, const struct vf_setting *t,
                            struct vf_error *err);

#endif

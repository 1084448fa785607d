/* The settings as people read them: --help, `vmfactoryd config`, `vmfactory config`, and the man page's list. */
#ifndef VF_POOL_SETTINGS_TEXT_H
#define VF_POOL_SETTINGS_TEXT_H

#include <stdio.h>
#include "pool/settings.h"

/* One line a setting: name, default with its unit. */
void vf_settings_print_brief(FILE *f);
/* Name, value, meaning: what s holds. */
void vf_settings_print(FILE *f, const struct vf_settings *s);
/* The .TP list of a man page. */
void vf_settings_print_man(FILE *f);

/* As JSON, an array with an object for each: name, value (as text, NULL: none), default, unit, live, help. */
void vf_settings_write(struct vf_json_writer *w, const char *key, const struct vf_settings *s);

#endif

/* Names the template that a spec's text describes. */
#ifndef VF_TOOLS_VMFACTORY_SPEC_NAME_H
#define VF_TOOLS_VMFACTORY_SPEC_NAME_H

#include <stddef.h>
#include "base/error.h"

/* text with its "name" replaced by name, or put in; the rest byte for byte. malloc'd. Only text that is a JSON object
 * is taken. */
int vf_spec_rename(const char *text, size_t len, const char *name, char **ret,
                   struct vf_error *err);

#endif

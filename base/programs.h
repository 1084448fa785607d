/* Programs of the host: where they are on PATH. */
#ifndef VF_BASE_PROGRAMS_H
#define VF_BASE_PROGRAMS_H

#include "base/error.h"

/* The absolute path of an executable on PATH; malloc'd. from: what to install, for the hint. */
int vf_find_program(const char *name, const char *from, char **ret_path, struct vf_error *err);

#endif

/* Rows of pools: status and top show the same. */
#ifndef VF_TOOLS_VMFACTORY_POOLS_H
#define VF_TOOLS_VMFACTORY_POOLS_H

#include "base/json.h"
#include "tools/vmfactory/text.h"

extern const char *const vf_pool_heads[];
void vf_pool_row(struct vf_table *t, const struct vf_json *pool);

#endif

/* Leasing a VM as the options say: acquire, run and bench share it. */
#ifndef VF_TOOLS_VMFACTORY_VMS_H
#define VF_TOOLS_VMFACTORY_VMS_H

#include <stdio.h>
#include "tools/vmfactory/cli.h"

/* On cli->h, with --require, --timeout and --ttl. As vmfactory_acquire. */
int vf_lease(struct vf_cli *cli, const char *template_name, struct vmfactory_vm *ret,
             struct vmfactory_error *err);
/* Where it came from and what each stage took. */
void vf_say_times(const struct vmfactory_vm *vm, FILE *out);

#endif

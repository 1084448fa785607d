/* Leasing a VM as the options say: acquire, run and bench share it. */
#ifndef VF_TOOLS_VMFACTORY_VMS_H
#define VF_TOOLS_VMFACTORY_VMS_H

#include <stdio.h>
#include "tools/vmfactory/cli.h"

/* What only a look at an option's value shows; 0, or the exit status after having said what is wrong. */
int vf_lease_check(const struct vf_cli *cli);
/* On cli->h, with --require, --timeout, --ttl, --publish, --netns and --tap. As vmfactory_acquire. */
int vf_lease(struct vf_cli *cli, const char *template_name, struct vmfactory_vm *ret,
             struct vmfactory_error *err);
/* Where it came from, what each stage took, and where it is reached. */
void vf_say_times(const struct vmfactory_vm *vm, FILE *out);

#endif

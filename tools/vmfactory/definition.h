/* Files with a definition in them: a class, an asset. */
#ifndef VF_TOOLS_VMFACTORY_DEFINITION_H
#define VF_TOOLS_VMFACTORY_DEFINITION_H

#include "tools/vmfactory/cli.h"

/* Sends the definition in the file that is the first operand: PUT BEFORE/NAME. The name is --name, else the "name" in
 * it, else the file's own without .json. 0 with *ret, or the exit status after having said why not. */
int vf_put_definition(struct vf_cli *cli, const char *before, struct vmfactory_response *ret,
                      struct vf_json **ret_json);
/* Deletes each operand below before, saying what it is ("class"). */
int vf_delete_each(struct vf_cli *cli, const char *what, const char *before);
/* "a, b and 2 more"; "-" if the array of strings is empty. */
void vf_join_names(const struct vf_json *array, char *buf, size_t size);

#endif

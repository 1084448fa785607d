/* What the commands about assets share. */
#ifndef VF_TOOLS_VMFACTORY_ASSETS_H
#define VF_TOOLS_VMFACTORY_ASSETS_H

#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/text.h"

/* The asset's file for the daemon's host; NULL: it has none. */
const struct vf_json *vf_asset_here(const struct vf_json *asset);
bool vf_asset_fetched(const struct vf_json *asset);
/* The names of assets that a command is about: its operands, or all that pick returns true for. Ends the program
 * without memory; 0, or the exit status after having said why not. *ret is NULL-ended, to be freed with
 * vf_asset_names_free. */
int vf_asset_names(struct vf_cli *cli, bool (*pick)(const struct vf_json *asset), char ***ret);
void vf_asset_names_free(char **names);

#endif

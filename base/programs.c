#include "base/programs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"

int vf_find_program(const char *name, const char *from, char **ret_path, struct vf_error *err)
{
    const char *path = getenv("PATH");
    if (!path || !path[0])
        path = "/usr/local/bin:/usr/bin:/bin";
    while (*path) {
        size_t n = strcspn(path, ":");
        char *full = NULL;
        if (path[0] == '/' && asprintf(&full, "%.*s/%s", (int)n, path, name) < 0)
            return vf_fail(err, VF_NO_MEMORY, "PATH");
        if (full && access(full, X_OK) == 0) {
            *ret_path = full;
            return 0;
        }
        free(full);
        path += n + (path[n] == ':');
    }
    vf_fail(err, VF_NOT_FOUND, "%s is not on PATH", name);
    vf_hint(err, "install %s", from);
    return vf_code_errno(VF_NOT_FOUND);
}

/* The two forms of an exec share what comes before them: the body, its checks, the VM's agent. */
#ifndef VF_POOL_API_EXEC_H
#define VF_POOL_API_EXEC_H

#include "factory/exec.h"
#include "pool/api_internal.h"

struct vf_exec_body {
    struct vf_strv argv, env;
    char *cwd, *in;
    bool has_in;
    int64_t timeout_ms;
};
/* Starts the command on the VM that the route names. On failure the answer is given, and -1 returned. */
int vf_api_exec_start(struct vf_http_req *req, struct vf_api *a, const struct vf_exec_body *body,
                      const struct vf_exec_callbacks *cb, void *arg, struct vf_exec **ret);

/* The upgraded form; it answers req. api_exec_upgrade.c */
void vf_api_exec_upgrade(struct vf_http_req *req, struct vf_api *a,
                         const struct vf_exec_body *body);

#endif

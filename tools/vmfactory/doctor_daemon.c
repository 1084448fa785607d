/* doctor's checks of the daemon: is it there, may this user talk to it, are its templates well? */
#include "tools/vmfactory/doctor.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/version.h"
#include "tools/vmfactory/definition.h"

static void look_socket(struct vf_cli *cli, struct vf_finding *ret)
{
    struct vmfactory_error err;
    struct vmfactory_version v;
    int r = 0;

    if (cli->h == NULL)
        r = vmfactory_connect(cli->args.socket, &cli->h, &err);
    if (r < 0) {
        vf_find(ret, r == -EACCES ? VF_FINDING_BAD : VF_FINDING_WARN, err.hint, "%s", err.message);
        return;
    }
    if (vmfactory_version(cli->h, &v, &err) < 0) {
        vf_find(ret, VF_FINDING_BAD, err.hint, "%s: %s", vmfactory_socket_path(cli->h),
                err.message);
        return;
    }
    if (strcmp(v.version, VF_VERSION) != 0)
        vf_find(ret, VF_FINDING_WARN, "restart vmfactoryd after an upgrade",
                "vmfactoryd %s answers at %s; this command is %s", v.version,
                vmfactory_socket_path(cli->h), VF_VERSION);
    else
        vf_find(ret, VF_FINDING_OK, NULL, "vmfactoryd %s answers at %s, pid %" PRId64, v.version,
                vmfactory_socket_path(cli->h), v.pid);
}

static void look_permission(struct vf_cli *cli, struct vf_finding *ret)
{
    struct vmfactory_version v;
    const struct group *gr = NULL;
    struct stat st = {0};

    if (cli->h == NULL || vmfactory_version(cli->h, &v, NULL) < 0) {
        ret->verdict = VF_FINDING_SKIPPED;
        return;
    }
    if (stat(vmfactory_socket_path(cli->h), &st) == 0)
        gr = getgrgid(st.st_gid);
    if ((st.st_mode & S_IWOTH) != 0)
        vf_find(ret, VF_FINDING_WARN, "chmod o-rwx it; set the daemon's group instead",
                "everyone on this host may use %s", vmfactory_socket_path(cli->h));
    else
        vf_find(ret, VF_FINDING_OK, NULL, "mode %04o, group %s; you are %s admin",
                (unsigned)st.st_mode & 07777, gr != NULL ? gr->gr_name : "?",
                v.admin ? "an" : "no");
}

static void look_templates(struct vf_cli *cli, struct vf_finding *ret)
{
    struct vmfactory_response answer;
    struct vmfactory_error err;
    const struct vf_json *list, *t;
    struct vf_json *j;
    size_t n;

    if (cli->h == NULL) {
        ret->verdict = VF_FINDING_SKIPPED;
        return;
    }
    if (vmfactory_request(cli->h, "GET", "/v1/templates", NULL, 0, &answer, &err) < 0) {
        vf_find(ret, VF_FINDING_WARN, err.hint, "%s", err.message);
        return;
    }
    j = vf_json_parse(answer.body, answer.len);
    list = vf_json_get(j, "templates");
    for (n = 0; (t = vf_json_at(list, n)) != NULL; n++)
        if (strcmp(vf_json_str(vf_json_get(t, "state"), ""), "quarantined") == 0)
            break;
    if (t != NULL)
        vf_find(ret, VF_FINDING_BAD,
                "vmfactory template show names the failure; template build makes a new generation",
                "%s is quarantined: %s", vf_json_str(vf_json_get(t, "name"), "?"),
                vf_json_str(vf_json_get(t, "reason"), "no reason given"));
    else if (n == 0)
        vf_find(ret, VF_FINDING_WARN, "vmfactory template add FILE", "there are none");
    else
        vf_find(ret, VF_FINDING_OK, NULL, "%zu, none quarantined", n);
    vf_json_delete(j);
    vmfactory_response_free(&answer);
}

/* Classes that a template is built with can wait for their assets; those of the others can be fetched when they are
 * needed, but that takes its time then. */
static void look_assets(struct vf_cli *cli, struct vf_finding *ret)
{
    struct vmfactory_response answer;
    const struct vf_json *list, *c;
    struct vf_json *j;
    char missing[200];
    size_t n, pinned = 0;

    if (cli->h == NULL ||
        vmfactory_request(cli->h, "GET", "/v1/classes", NULL, 0, &answer, NULL) < 0) {
        ret->verdict = VF_FINDING_SKIPPED;
        return;
    }
    j = vf_json_parse(answer.body, answer.len);
    list = vf_json_get(j, "classes");
    for (n = 0; (c = vf_json_at(list, n)) != NULL; n++) {
        if (vf_json_at(vf_json_get(c, "missing"), 0) != NULL)
            break;
        pinned += vf_json_at(vf_json_get(c, "pins"), 0) != NULL;
    }
    if (c != NULL) {
        vf_join_names(vf_json_get(c, "missing"), missing, sizeof(missing));
        vf_find(ret, VF_FINDING_WARN, "vmfactory asset fetch, with the name, or --all",
                "class %.64s needs what is not fetched: %s",
                vf_json_str(vf_json_get(c, "name"), "?"), missing);
    } else if (pinned == 0)
        vf_find(ret, VF_FINDING_OK, NULL, "no class pins any: templates run the host's own VMMs");
    else
        vf_find(ret, VF_FINDING_OK, NULL, "all are fetched that %zu classes need", pinned);
    vf_json_delete(j);
    vmfactory_response_free(&answer);
}

const struct vf_check vf_daemon_checks[] = {
    {"daemon", look_socket},
    {"permission", look_permission},
    {"templates", look_templates},
    {"assets", look_assets},
    {NULL, NULL},
};

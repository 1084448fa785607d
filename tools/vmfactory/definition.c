/* See definition.h. */
#include "tools/vmfactory/definition.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "tools/vmfactory/spec_name.h"
#include "tools/vmfactory/text.h"

#define MAX_TEXT ((size_t)64 * 1024)

/* malloc'd; NULL without memory. */
static char *name_of(const struct vf_cli *cli, const char *text, size_t len)
{
    struct vf_json *j = vf_json_parse(text, len);
    const char *file = cli->operands[0], *base = strrchr(file, '/');
    const char *said = vf_json_str(vf_json_get(j, "name"), NULL);
    char *name;
    size_t n;

    base = base != NULL ? base + 1 : file;
    n = strlen(base);
    if (n > 5 && strcmp(base + n - 5, ".json") == 0)
        n -= 5;
    if (cli->args.name != NULL)
        name = strdup(cli->args.name);
    else
        name = said != NULL ? strdup(said) : strndup(base, n);
    vf_json_delete(j);
    return name;
}

int vf_put_definition(struct vf_cli *cli, const char *before, struct vmfactory_response *ret,
                      struct vf_json **ret_json)
{
    VF_CLEANUP_FREE char *text = NULL, *named = NULL, *name = NULL, *path = NULL;
    const char *file = cli->operands[0];
    struct vf_error err;
    size_t len;
    int r = vf_read_file(AT_FDCWD, file, MAX_TEXT, &text, &len, &err);

    if (r < 0)
        return vf_report_error(cli, &err);
    name = name_of(cli, text, len);
    if (name == NULL) {
        vf_fail(&err, VF_NO_MEMORY, "out of memory");
        return vf_report_error(cli, &err);
    }
    if (vf_spec_rename(text, len, name, &named, &err) < 0) {
        vf_wrap(&err, "%s", file);
        return vf_report_error(cli, &err);
    }
    path = vf_cli_path(before, name, "");
    return vf_cli_request(cli, "PUT", path, named, ret, ret_json);
}

int vf_delete_each(struct vf_cli *cli, const char *what, const char *before)
{
    int status = 0;

    for (int i = 0; i < cli->n_operands; i++) {
        VF_CLEANUP_FREE char *path = vf_cli_path(before, cli->operands[i], "");
        int r = vf_cli_request(cli, "DELETE", path, NULL, NULL, NULL);

        if (r == 0 && !cli->args.json)
            printf("%s %s removed\n", what, cli->operands[i]);
        if (r != 0)
            status = r;
        if (r == VF_EXIT_UNREACHABLE)
            break;
    }
    return status;
}

void vf_join_names(const struct vf_json *array, char *buf, size_t size)
{
    const struct vf_json *item;
    size_t used = 0, n = 0;

    snprintf(buf, size, "-");
    for (; (item = vf_json_at(array, n)) != NULL; n++) {
        const char *name = vf_json_str(item, "?");

        /* Room for " and 9999 more" is always left. */
        if (used + strlen(name) + 20 > size)
            break;
        used += (size_t)snprintf(buf + used, size - used, "%s%s", n > 0 ? ", " : "", name);
    }
    if (item != NULL) {
        size_t more = 0;

        while (vf_json_at(array, n + more) != NULL)
            more++;
        snprintf(buf + used, size - used, " and %zu more", more);
    }
}

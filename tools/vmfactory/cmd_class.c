/* class ls, show, set, rm. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/definition.h"
#include "tools/vmfactory/text.h"

#define NAMES 200

static const char *const heads[] = {"NAME", "VMM", "DEFAULT", "PINS", "TEMPLATES", "NOTE", NULL};

/* The assets of this host's architecture: which they are, the daemon says. */
static void row(struct vf_table *t, const struct vf_json *c)
{
    char pins[NAMES], templates[NAMES], missing[NAMES], note[NAMES + 40];

    vf_join_names(vf_json_get(c, "pins"), pins, sizeof(pins));
    vf_join_names(vf_json_get(c, "templates"), templates, sizeof(templates));
    vf_join_names(vf_json_get(c, "missing"), missing, sizeof(missing));
    vf_table_cell(t, vf_json_str(vf_json_get(c, "name"), "?"));
    vf_table_cell(t, vf_json_str(vf_json_get(c, "vmm"), "?"));
    vf_table_cell(t, vf_json_bool(vf_json_get(c, "default"), false) ? "yes" : "no");
    vf_table_cell(t, pins);
    vf_table_cell(t, templates);
    if (strcmp(missing, "-") != 0) {
        snprintf(note, sizeof(note), "not fetched: %s", missing);
        vf_table_cell_colored(t, note, VF_YELLOW);
    } else if (!vf_json_bool(vf_json_get(c, "builtin"), false))
        vf_table_cell(t, NULL);
    else
        vf_table_cell(t, strcmp(vf_json_str(vf_json_get(c, "vmm"), ""), "null") == 0
                             ? "built in"
                             : "built in: the host's own");
}

int vf_cmd_class_ls(struct vf_cli *cli)
{
    struct vmfactory_response answer;
    const struct vf_json *item;
    struct vf_table t;
    struct vf_json *j;
    int r = vf_cli_request(cli, "GET", "/v1/classes", NULL, &answer, &j);

    if (r != 0)
        return r;
    if (cli->args.json)
        vf_print_json(&answer);
    else {
        vf_table_init(&t, heads);
        for (size_t i = 0; (item = vf_json_at(vf_json_get(j, "classes"), i)) != NULL; i++)
            row(&t, item);
        vf_table_print(&t, stdout, cli->args.color);
    }
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

int vf_cmd_class_show(struct vf_cli *cli)
{
    VF_CLEANUP_FREE char *path = vf_cli_path("/v1/classes/", cli->operands[0], "");
    struct vmfactory_response answer;
    struct vf_table t;
    struct vf_json *j;
    int r = vf_cli_request(cli, "GET", path, NULL, &answer, &j);

    if (r != 0)
        return r;
    if (cli->args.json)
        vf_print_json(&answer);
    else {
        char *text = vf_json_print(vf_json_get(j, "definition"));

        vf_table_init(&t, heads);
        row(&t, j);
        vf_table_print(&t, stdout, cli->args.color);
        printf("\n%s", text != NULL ? text : "");
        free(text);
    }
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

int vf_cmd_class_set(struct vf_cli *cli)
{
    struct vmfactory_response answer;
    struct vf_json *j;
    char missing[NAMES];
    int r = vf_put_definition(cli, "/v1/classes/", &answer, &j);

    if (r != 0)
        return r;
    vf_join_names(vf_json_get(j, "missing"), missing, sizeof(missing));
    if (cli->args.json)
        vf_print_json(&answer);
    else if (strcmp(missing, "-") != 0)
        printf("class %s is in force; to fetch: %s\n", vf_json_str(vf_json_get(j, "name"), "?"),
               missing);
    else
        printf("class %s is in force\n", vf_json_str(vf_json_get(j, "name"), "?"));
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

int vf_cmd_class_rm(struct vf_cli *cli)
{
    return vf_delete_each(cli, "class", "/v1/classes/");
}

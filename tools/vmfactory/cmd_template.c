/* template add, ls, show, build, rm. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/spec_name.h"
#include "tools/vmfactory/text.h"

#define MAX_SPEC (1024 * 1024)

/* The file's text, and the absolute directory that it lies in. Both malloc'd. */
static int read_spec(const char *file, char **ret_text, size_t *ret_len, char **ret_dir,
                     struct vf_error *err)
{
    VF_CLEANUP_FREE char *real = realpath(file, NULL);
    int r;

    if (real == NULL)
        return vf_fail_errno(err, errno, "%s", file);
    r = vf_read_file(AT_FDCWD, real, MAX_SPEC, ret_text, ret_len, err);
    if (r < 0)
        return r;
    *strrchr(real, '/') = '\0';
    if (real[0] == '\0')
        strcpy(real, "/");
    *ret_dir = vf_steal_str(&real);
    return 0;
}

int vf_cmd_template_add(struct vf_cli *cli)
{
    VF_CLEANUP_FREE char *text = NULL, *dir = NULL, *path = NULL, *renamed = NULL;
    struct vmfactory_response answer;
    struct vf_error err;
    struct vf_json *j;
    size_t len;
    int r;

    if (read_spec(cli->operands[0], &text, &len, &dir, &err) < 0)
        return vf_report_error(cli, &err);
    if (cli->args.name != NULL && vf_spec_rename(text, len, cli->args.name, &renamed, &err) < 0) {
        vf_wrap(&err, "%s", cli->operands[0]);
        return vf_report_error(cli, &err);
    }
    path = vf_cli_path("/v1/templates?base_dir=", dir, "");
    r = vf_cli_request(cli, "POST", path, renamed != NULL ? renamed : text, &answer, &j);
    if (r != 0)
        return r;
    if (cli->args.json)
        vf_print_json(&answer);
    else
        printf("template %s added; vmfactory warm %s builds it\n",
               vf_json_str(vf_json_get(j, "name"), "?"), vf_json_str(vf_json_get(j, "name"), "?"));
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

static void row(struct vf_table *t, const struct vf_json *template)
{
    const char *state = vf_json_str(vf_json_get(template, "state"), "?");
    const char *version = vf_json_str(vf_json_get(template, "vmm_version"), "");
    const struct vf_json *build = vf_json_get(template, "build");
    int64_t generation = vf_json_int(vf_json_get(template, "generation"), 0);
    char buf[VF_TEXT], vmm[80];

    vf_table_cell(t, vf_json_str(vf_json_get(template, "name"), "?"));
    vf_table_cell_colored(t, state, vf_color_of_state(state));
    if (generation > 0)
        vf_table_int(t, generation);
    else
        vf_table_cell(t, "-");
    vf_table_cell(t, vf_text_age(buf, vf_json_str(vf_json_get(template, "created"), NULL)));
    vf_table_int(t, vf_json_int(vf_json_get(template, "clones"), 0));
    snprintf(vmm, sizeof(vmm), "%s%s%s", vf_json_str(vf_json_get(template, "vmm"), "?"),
             version[0] != '\0' ? " " : "", version);
    vf_table_cell(t, vmm);
    vf_table_cell(t, vf_json_str(vf_json_get(template, "class"), NULL));
    vf_table_cell(t, vf_json_str(vf_json_get(template, "accel"), NULL));
    vf_table_cell(t, vf_text_bytes(buf, vf_json_int(vf_json_get(template, "memory_bytes"), 0)));
    vf_table_int(t, vf_json_int(vf_json_get(template, "vcpus"), 0));
    if (vf_json_bool(vf_json_get(build, "running"), false)) {
        char text[80];

        snprintf(text, sizeof(text), "building: %s",
                 vf_json_str(vf_json_get(build, "stage"), "beginning"));
        vf_table_cell_colored(t, text, VF_YELLOW);
    } else {
        const char *why = vf_json_str(vf_json_get(vf_json_get(build, "error"), "message"), NULL);

        vf_table_cell(t, why != NULL ? why : vf_json_str(vf_json_get(template, "reason"), NULL));
    }
}

static const char *const heads[] = {"NAME",  "STATE", ">GEN",    ">AGE",   ">CLONES", "VMM",
                                    "CLASS", "ACCEL", ">MEMORY", ">VCPUS", "NOTE",    NULL};

int vf_cmd_template_ls(struct vf_cli *cli)
{
    struct vmfactory_response answer;
    const struct vf_json *list, *item;
    struct vf_table t;
    struct vf_json *j;
    int r = vf_cli_request(cli, "GET", "/v1/templates", NULL, &answer, &j);

    if (r != 0)
        return r;
    list = vf_json_get(j, "templates");
    vf_table_init(&t, heads);
    for (size_t i = 0; !cli->args.json && (item = vf_json_at(list, i)) != NULL; i++)
        row(&t, item);
    if (cli->args.json)
        vf_print_json(&answer);
    else if (t.n == 0)
        puts("no templates; vmfactory template add FILE adds one");
    else
        vf_table_print(&t, stdout, cli->args.color);
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

int vf_cmd_template_show(struct vf_cli *cli)
{
    VF_CLEANUP_FREE char *path = vf_cli_path("/v1/templates/", cli->operands[0], "");
    struct vmfactory_response answer;
    struct vf_json *j;
    int r = vf_cli_request(cli, "GET", path, NULL, &answer, &j);

    if (r != 0)
        return r;
    if (cli->args.json)
        vf_print_json(&answer);
    else {
        const struct vf_json *error = vf_json_get(vf_json_get(j, "build"), "error");
        char *spec = vf_json_print(vf_json_get(j, "spec"));
        struct vf_table t;

        vf_table_init(&t, heads);
        row(&t, j);
        vf_table_print(&t, stdout, cli->args.color);
        if (vf_json_is_object(error)) {
            const char *hint = vf_json_str(vf_json_get(error, "hint"), "");

            fputs("\nthe last build failed: ", stdout);
            vf_text_print(vf_json_str(vf_json_get(error, "message"), ""), stdout);
            fputs(hint[0] != '\0' ? "\n  hint: " : "", stdout);
            vf_text_print(hint, stdout);
            putchar('\n');
        }
        printf("\n%s", spec != NULL ? spec : "");
        free(spec);
    }
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

int vf_cmd_template_build(struct vf_cli *cli)
{
    VF_CLEANUP_FREE char *path = vf_cli_path("/v1/templates/", cli->operands[0], "/build");
    struct vmfactory_response answer;
    int r = vf_cli_request(cli, "POST", path, NULL, &answer, NULL);

    if (r != 0)
        return r;
    if (cli->args.json)
        vf_print_json(&answer);
    else
        printf("building %s in the background; vmfactory status shows how far it is\n",
               cli->operands[0]);
    vmfactory_response_free(&answer);
    return 0;
}

int vf_cmd_template_rm(struct vf_cli *cli)
{
    int status = 0;

    for (int i = 0; i < cli->n_operands; i++) {
        VF_CLEANUP_FREE char *path = vf_cli_path("/v1/templates/", cli->operands[i], "");
        int r = vf_cli_request(cli, "DELETE", path, NULL, NULL, NULL);

        if (r == 0 && !cli->args.json)
            printf("template %s removed\n", cli->operands[i]);
        if (r != 0)
            status = r;
        if (r == VF_EXIT_UNREACHABLE)
            break;
    }
    return status;
}

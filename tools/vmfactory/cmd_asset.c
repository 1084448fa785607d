/* asset ls, add, rm, verify, gc. */
#include "tools/vmfactory/assets.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "tools/vmfactory/definition.h"

#define NAMES 200
/* Hashing is as fast as the disk: there is no telling how long. */
#define NO_DEADLINE (-1)

const struct vf_json *vf_asset_here(const struct vf_json *asset)
{
    const struct vf_json *here = vf_json_get(asset, "here");

    return vf_json_is_object(here) ? here : NULL;
}

bool vf_asset_fetched(const struct vf_json *asset)
{
    return vf_json_bool(vf_json_get(vf_asset_here(asset), "fetched"), false);
}

static void *must(void *p)
{
    if (p == NULL) {
        fputs("vmfactory: out of memory\n", stderr);
        exit(VF_EXIT_FAILED);
    }
    return p;
}

int vf_asset_names(struct vf_cli *cli, bool (*pick)(const struct vf_json *asset), char ***ret)
{
    const struct vf_json *list, *item;
    struct vf_json *j = NULL;
    char **names;
    size_t n = 0, cap = (size_t)cli->n_operands;
    int r = cli->n_operands == 0 ? vf_cli_request(cli, "GET", "/v1/assets", NULL, NULL, &j) : 0;

    if (r != 0)
        return r;
    list = vf_json_get(j, "assets");
    while (vf_json_at(list, cap) != NULL)
        cap++;
    names = must(calloc(cap + 1, sizeof(*names)));
    for (int i = 0; i < cli->n_operands; i++)
        names[n++] = must(strdup(cli->operands[i]));
    for (size_t i = 0; (item = vf_json_at(list, i)) != NULL; i++)
        if (pick(item))
            names[n++] = must(strdup(vf_json_str(vf_json_get(item, "name"), "?")));
    vf_json_delete(j);
    *ret = names;
    return 0;
}

void vf_asset_names_free(char **names)
{
    for (size_t i = 0; names != NULL && names[i] != NULL; i++)
        free(names[i]);
    free(names);
}

/* ---- ls */

static void state(struct vf_table *t, const struct vf_json *asset)
{
    const struct vf_json *here = vf_asset_here(asset), *fetch = vf_json_get(asset, "fetch");
    int64_t done = vf_json_int(vf_json_get(fetch, "done_bytes"), 0);
    int64_t total = vf_json_int(vf_json_get(fetch, "total_bytes"), 0);
    char text[80], buf[VF_TEXT];

    if (here == NULL)
        vf_table_cell_colored(t, "not for this host", VF_PLAIN);
    else if (vf_asset_fetched(asset))
        vf_table_cell_colored(t, "fetched", VF_GREEN);
    else if (vf_json_bool(vf_json_get(fetch, "running"), false)) {
        if (total > 0)
            snprintf(text, sizeof(text), "fetching, %d%%",
                     (int)(100.0 * (double)done / (double)total));
        else
            snprintf(text, sizeof(text), "fetching, %s", vf_text_bytes(buf, done));
        vf_table_cell_colored(t, text, VF_YELLOW);
    } else if (vf_json_is_object(vf_json_get(fetch, "error")))
        vf_table_cell_colored(t, "failed", VF_RED);
    else
        vf_table_cell_colored(t, "not fetched", VF_YELLOW);
}

static void row(struct vf_table *t, const struct vf_json *asset)
{
    const struct vf_json *here = vf_asset_here(asset), *used = vf_json_get(asset, "used_by");
    const struct vf_json *error = vf_json_get(vf_json_get(asset, "fetch"), "error");
    int64_t size = vf_json_int(vf_json_get(here, "size"), 0);
    char classes[NAMES], templates[NAMES], digest[16], buf[VF_TEXT];

    snprintf(digest, sizeof(digest), "%.12s", vf_json_str(vf_json_get(here, "sha256"), "-"));
    vf_join_names(vf_json_get(used, "classes"), classes, sizeof(classes));
    vf_join_names(vf_json_get(used, "templates"), templates, sizeof(templates));
    vf_table_cell(t, vf_json_str(vf_json_get(asset, "name"), "?"));
    vf_table_cell(t, vf_json_str(vf_json_get(asset, "kind"), "?"));
    state(t, asset);
    vf_table_cell(t, size > 0 ? vf_text_bytes(buf, size) : NULL);
    vf_table_cell(t, digest);
    vf_table_cell(t, classes);
    vf_table_cell(t, templates);
    vf_table_cell(t, vf_json_str(vf_json_get(error, "message"), NULL));
}

int vf_cmd_asset_ls(struct vf_cli *cli)
{
    static const char *const heads[] = {"NAME",    "KIND",      "STATE", ">SIZE", "SHA256",
                                        "CLASSES", "TEMPLATES", "NOTE",  NULL};
    struct vmfactory_response answer;
    const struct vf_json *item;
    struct vf_table t;
    struct vf_json *j;
    int r = vf_cli_request(cli, "GET", "/v1/assets", NULL, &answer, &j);

    if (r != 0)
        return r;
    vf_table_init(&t, heads);
    for (size_t i = 0; !cli->args.json; i++) {
        item = vf_json_at(vf_json_get(j, "assets"), i);
        if (item == NULL)
            break;
        row(&t, item);
    }
    if (cli->args.json)
        vf_print_json(&answer);
    else if (t.n == 0)
        puts("no assets; vmfactory asset add FILE adds one");
    else
        vf_table_print(&t, stdout, cli->args.color);
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

/* ---- add, rm */

int vf_cmd_asset_add(struct vf_cli *cli)
{
    struct vmfactory_response answer;
    struct vf_json *j;
    const char *name;
    int r = vf_put_definition(cli, "/v1/assets/", &answer, &j);

    if (r != 0)
        return r;
    name = vf_json_str(vf_json_get(j, "name"), "?");
    if (cli->args.json)
        vf_print_json(&answer);
    else if (vf_asset_fetched(j))
        printf("asset %s added; it is here already\n", name);
    else if (vf_asset_here(j) != NULL)
        printf("asset %s added; vmfactory asset fetch %s fetches it\n", name, name);
    else
        printf("asset %s added; it has no file for the daemon's host\n", name);
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

int vf_cmd_asset_rm(struct vf_cli *cli)
{
    return vf_delete_each(cli, "asset", "/v1/assets/");
}

/* ---- verify */

/* One asset; its exit status. A line for each, also in JSON. */
static int verify(struct vf_cli *cli, const char *name)
{
    VF_CLEANUP_FREE char *path = vf_cli_path("/v1/assets/", name, "/verify");
    struct vmfactory_response answer;
    struct vmfactory_error err;
    int r = vf_cli_connect(cli);

    if (r != 0)
        return r;
    if (vmfactory_request(cli->h, "POST", path, NULL, NO_DEADLINE, &answer, &err) < 0)
        return vf_report(cli, &err);
    if (cli->args.json)
        vf_print_json(&answer);
    else
        printf("%s: is what its digest says\n", name);
    vmfactory_response_free(&answer);
    return 0;
}

int vf_cmd_asset_verify(struct vf_cli *cli)
{
    char **names;
    int status = 0, r = vf_asset_names(cli, vf_asset_fetched, &names);

    if (r != 0)
        return r;
    for (size_t i = 0; names[i] != NULL && status != VF_EXIT_UNREACHABLE; i++) {
        r = verify(cli, names[i]);
        if (r != 0)
            status = r;
    }
    if (names[0] == NULL && !cli->args.json)
        puts("no asset is fetched");
    vf_asset_names_free(names);
    return status;
}

/* ---- gc */

int vf_cmd_asset_gc(struct vf_cli *cli)
{
    static const char *const heads[] = {"SHA256", ">SIZE", "WAS", NULL};
    const char *body = cli->args.dry_run ? "{\"dry_run\":true}" : "{}";
    struct vmfactory_response answer;
    const struct vf_json *item;
    struct vf_table t;
    struct vf_json *j;
    char buf[VF_TEXT];
    int r = vf_cli_request(cli, "POST", "/v1/assets/gc", body, &answer, &j);

    if (r != 0)
        return r;
    if (cli->args.json) {
        vf_print_json(&answer);
        vmfactory_response_free(&answer);
        vf_json_delete(j);
        return 0;
    }
    vf_table_init(&t, heads);
    for (size_t i = 0; (item = vf_json_at(vf_json_get(j, "removed"), i)) != NULL; i++) {
        const char *name = vf_json_str(vf_json_get(item, "name"), NULL);

        vf_table_cell(&t, vf_json_str(vf_json_get(item, "sha256"), "?"));
        vf_table_cell(&t, vf_text_bytes(buf, vf_json_int(vf_json_get(item, "size"), 0)));
        vf_table_cell(&t, vf_json_bool(vf_json_get(item, "partial"), false) ? "a part of a fetch"
                          : name != NULL                                    ? name
                                                                            : "of no asset");
    }
    if (t.n > 0)
        vf_table_print(&t, stdout, cli->args.color);
    printf("%s %s\n", cli->args.dry_run ? "would free" : "freed",
           vf_text_bytes(buf, vf_json_int(vf_json_get(j, "removed_bytes"), 0)));
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

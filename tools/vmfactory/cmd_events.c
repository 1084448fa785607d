/* events, config, version: what is told, and by whom. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/version.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/text.h"

static enum vf_color color_of(const struct vmfactory_event *e)
{
    if (e->code[0] != '\0' || strstr(e->event, "failed") != NULL ||
        strstr(e->event, "died") != NULL || strstr(e->event, "quarantined") != NULL)
        return VF_RED;
    return strcmp(e->event, "missed") == 0 ? VF_YELLOW : VF_PLAIN;
}

static void print(const struct vf_cli *cli, const struct vmfactory_event *e)
{
    char line[1200], clean[1200];
    enum vf_color c = cli->args.color ? color_of(e) : VF_PLAIN;

    if (cli->args.json) {
        puts(e->json);
        return;
    }
    if (strcmp(e->event, "missed") == 0)
        snprintf(line, sizeof(line), "missed %" PRId64 " events: too slow", e->count);
    else
        snprintf(line, sizeof(line), "%-5" PRId64 " %s  %-22s %s%s%s%s%s%s%s", e->seq, e->time,
                 e->event, e->template_name, e->vm[0] != '\0' ? " " : "", e->vm,
                 e->code[0] != '\0' ? "  " : "", e->code,
                 e->message[0] != '\0' ? (e->code[0] != '\0' ? ": " : "  ") : "", e->message);
    vf_text_clean(line, clean, sizeof(clean));
    printf("%s%s%s\n", vf_color_on(c), clean, c != VF_PLAIN ? VF_COLOR_OFF : "");
}

int vf_cmd_events(struct vf_cli *cli)
{
    struct vmfactory_events *ev;
    struct vmfactory_event e;
    struct vmfactory_error err;
    int r = vf_cli_connect(cli);

    if (r != 0)
        return r;
    if (vmfactory_events_open(cli->h, cli->args.since, cli->args.follow, &ev, &err) < 0)
        return vf_report(cli, &err);
    while ((r = vmfactory_events_next(ev, -1, &e, &err)) > 0) {
        print(cli, &e);
        if (fflush(stdout) != 0)
            break;
    }
    vmfactory_events_close(ev);
    return r < 0 ? vf_report(cli, &err) : 0;
}

int vf_cmd_config(struct vf_cli *cli)
{
    static const char *const heads[] = {"SETTING", "VALUE",   "DEFAULT", "UNIT",
                                        "LIVE",    "MEANING", NULL};
    struct vmfactory_response answer;
    const struct vf_json *all, *one;
    struct vf_json *j;
    struct vf_table t;
    int r = vf_cli_request(cli, "GET", "/v1/settings", NULL, &answer, &j);

    if (r != 0)
        return r;
    if (cli->args.json) {
        vf_print_json(&answer);
    } else {
        vf_table_init(&t, heads);
        all = vf_json_get(j, "settings");
        for (size_t i = 0; (one = vf_json_at(all, i)) != NULL; i++) {
            vf_table_cell(&t, vf_json_str(vf_json_get(one, "name"), "?"));
            vf_table_cell(&t, vf_json_str(vf_json_get(one, "value"), NULL));
            vf_table_cell(&t, vf_json_str(vf_json_get(one, "default"), NULL));
            vf_table_cell(&t, vf_json_str(vf_json_get(one, "unit"), NULL));
            vf_table_cell(&t, vf_json_bool(vf_json_get(one, "live"), false) ? "yes" : "no");
            vf_table_cell(&t, vf_json_str(vf_json_get(one, "help"), NULL));
        }
        vf_table_print(&t, stdout, cli->args.color);
    }
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

int vf_cmd_version(struct vf_cli *cli)
{
    struct vmfactory_response answer;
    struct vf_json *j;
    int r;

    if (!cli->args.json) {
        puts("vmfactory " VF_VERSION);
        fflush(stdout);
    }
    r = vf_cli_request(cli, "GET", "/v1/version", NULL, &answer, &j);
    if (r != 0)
        return r;
    if (cli->args.json)
        vf_print_json(&answer);
    else
        printf("vmfactoryd %s (API %" PRId64 ", pid %" PRId64 ")\n",
               vf_json_str(vf_json_get(j, "version"), "?"), vf_json_int(vf_json_get(j, "api"), 0),
               vf_json_int(vf_json_get(j, "pid"), 0));
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

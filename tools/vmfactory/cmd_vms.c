/* acquire, ps, release, renew. */
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/network.h"
#include "tools/vmfactory/text.h"
#include "tools/vmfactory/vms.h"

void vf_say_times(const struct vmfactory_vm *vm, FILE *out)
{
    struct vf_json *j = vf_json_parse(vm->json, strlen(vm->json));
    const struct vf_json *stages = vf_json_get(j, "stages"), *s;
    char total[VF_TEXT], seen[VF_TEXT], buf[VF_TEXT], reason[300];

    vf_text_clean(vm->reason, reason, sizeof(reason));
    fprintf(out, "%s: %s%s%s%s, %s (%s seen from here)\n", vm->id, vm->source,
            reason[0] != '\0' ? " (" : "", reason, reason[0] != '\0' ? ")" : "",
            vf_text_us(total, vm->total_us), vf_text_us(seen, vm->roundtrip_us));
    for (size_t i = 0; (s = vf_json_at(stages, i)) != NULL; i++)
        fprintf(out, "%s%s %s", i == 0 ? "  " : ", ", vf_json_str(vf_json_get(s, "name"), "?"),
                vf_text_us(buf, vf_json_int(vf_json_get(s, "us"), 0)));
    if (vf_json_at(stages, 0) != NULL)
        fputc('\n', out);
    vf_say_network(j, out);
    vf_json_delete(j);
}

int vf_lease_check(const struct vf_cli *cli)
{
    struct vmfactory_port ports[VF_WORDS_MAX];
    struct vf_error err = {0};

    if (vf_publish_parse(&cli->args.publish, ports, &err) == 0)
        return 0;
    vf_report_error(cli, &err);
    return VF_EXIT_USAGE;
}

int vf_lease(struct vf_cli *cli, const char *template_name, struct vmfactory_vm *ret,
             struct vmfactory_error *err)
{
    struct vmfactory_acquire_options o = {.template_name = template_name,
                                          .require =
                                              cli->args.require.n > 0 ? cli->args.require.v : NULL,
                                          .timeout_ms = cli->args.timeout_ms,
                                          .ttl_ms = cli->args.ttl_ms};
    struct vmfactory_external external = {.netns = cli->args.netns, .tap = cli->args.tap};
    struct vmfactory_port ports[VF_WORDS_MAX];
    struct vf_error e = {0};

    if (cli->args.publish.n > 0 && vf_publish_parse(&cli->args.publish, ports, &e) == 0) {
        o.ports = ports;
        o.n_ports = cli->args.publish.n;
    }
    if (external.netns != NULL || external.tap != NULL)
        o.external = &external;
    return vmfactory_acquire(cli->h, &o, ret, err);
}

int vf_cmd_acquire(struct vf_cli *cli)
{
    struct vmfactory_error err;
    struct vmfactory_vm vm;
    int r = vf_lease_check(cli);

    if (r == 0)
        r = vf_cli_connect(cli);
    if (r != 0)
        return r;
    if (vf_lease(cli, cli->operands[0], &vm, &err) < 0)
        return vf_report(cli, &err);
    puts(cli->args.json ? vm.json : vm.id);
    /* An id that nobody can read must not stay leased. */
    if (fflush(stdout) != 0) {
        vmfactory_release(cli->h, vm.id, NULL);
        perror("vmfactory: write");
        r = VF_EXIT_FAILED;
    } else if (!cli->args.json)
        vf_say_times(&vm, stderr);
    vmfactory_vm_free(&vm);
    return r;
}

static void row(struct vf_table *t, const struct vf_json *vm)
{
    const struct vf_json *lease = vf_json_get(vm, "lease");
    const char *state = vf_json_str(vf_json_get(vm, "state"), "?");
    int64_t uid = vf_json_int(vf_json_get(lease, "uid"), -1);
    int64_t left_ms = vf_json_int(vf_json_get(lease, "expires_in_ms"), -1);
    const struct passwd *pw = uid >= 0 ? getpwuid((uid_t)uid) : NULL;
    char holder[80], buf[VF_TEXT], ports[80];

    vf_table_cell(t, vf_json_str(vf_json_get(vm, "id"), "?"));
    vf_table_cell(t, vf_json_str(vf_json_get(vm, "template"), "?"));
    vf_table_cell(t, vf_json_str(vf_json_get(vm, "source"), NULL));
    if (pw != NULL)
        snprintf(holder, sizeof(holder), "%s/%" PRId64, pw->pw_name,
                 vf_json_int(vf_json_get(lease, "pid"), 0));
    else
        snprintf(holder, sizeof(holder), "%" PRId64 "/%" PRId64, uid,
                 vf_json_int(vf_json_get(lease, "pid"), 0));
    vf_table_cell(t, uid >= 0 ? holder : NULL);
    vf_table_cell(t, vf_text_age(buf, vf_json_str(vf_json_get(vm, "created"), NULL)));
    vf_table_cell(t, left_ms >= 0 ? vf_text_ms(buf, left_ms) : NULL);
    vf_table_cell_colored(t, state, vf_color_of_state(state));
    vf_table_cell(t, vf_network_address(vm));
    vf_table_cell(t, vf_network_netns(vm));
    vf_table_cell(t, vf_network_ports(vm, ports, sizeof(ports)));
}

int vf_cmd_ps(struct vf_cli *cli)
{
    static const char *const heads[] = {"ID",        "TEMPLATE",  "SOURCE", "HOLDER/PID",
                                        ">AGE",      ">TTL LEFT", "STATE",  "ADDRESS",
                                        "NAMESPACE", "PORTS",     NULL};
    struct vmfactory_response answer;
    const struct vf_json *list, *vm;
    struct vf_table t;
    struct vf_json *j;
    int r = vf_cli_request(cli, "GET", cli->args.parked ? "/v1/vms?parked=true" : "/v1/vms", NULL,
                           &answer, &j);

    if (r != 0)
        return r;
    list = vf_json_get(j, "vms");
    if (cli->args.json)
        vf_print_json(&answer);
    else {
        vf_table_init(&t, heads);
        for (size_t i = 0; (vm = vf_json_at(list, i)) != NULL; i++)
            row(&t, vm);
        vf_table_print(&t, stdout, cli->args.color);
    }
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

int vf_cmd_release(struct vf_cli *cli)
{
    struct vmfactory_error err;
    int status = vf_cli_connect(cli);

    for (int i = 0; i < cli->n_operands && cli->h != NULL; i++) {
        int r = 0;

        if (vmfactory_release(cli->h, cli->operands[i], &err) < 0)
            r = vf_report(cli, &err);
        else if (!cli->args.json)
            printf("%s released\n", cli->operands[i]);
        if (r != 0)
            status = r;
        if (r == VF_EXIT_UNREACHABLE)
            break;
    }
    return status;
}

int vf_cmd_renew(struct vf_cli *cli)
{
    struct vmfactory_error err;
    struct vmfactory_vm vm;
    char buf[VF_TEXT];
    int r = vf_cli_connect(cli);

    if (r != 0)
        return r;
    if (vmfactory_renew(cli->h, cli->operands[0], cli->args.ttl_ms, &vm, &err) < 0)
        return vf_report(cli, &err);
    if (cli->args.json)
        puts(vm.json);
    else if (vm.expires_in_ms >= 0)
        printf("%s ends in %s\n", vm.id, vf_text_ms(buf, vm.expires_in_ms));
    else
        printf("%s does not end by itself\n", vm.id);
    vmfactory_vm_free(&vm);
    return 0;
}

/* What went wrong, said once; and the connection every command shares. */
#include "tools/vmfactory/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tools/vmfactory/text.h"

int vf_exit_of(const struct vf_cli *cli, const struct vmfactory_error *err)
{
    if (cli->command != NULL && cli->command->takes_command)
        return VF_EXIT_SELF;
    if (strcmp(err->code, "unreachable") == 0)
        return VF_EXIT_UNREACHABLE;
    if (strcmp(err->code, "timeout") == 0 || strcmp(err->code, "busy") == 0 || err->status == 429)
        return VF_EXIT_REFUSED;
    return VF_EXIT_FAILED;
}

int vf_report(const struct vf_cli *cli, const struct vmfactory_error *err)
{
    if (cli->args.json) {
        struct vf_json_writer w = {0};
        char *text;

        vf_jw_begin(&w, NULL, '{');
        vf_jw_begin(&w, "error", '{');
        vf_jw_string(&w, "code", err->code);
        vf_jw_string(&w, "message", err->message);
        vf_jw_string(&w, "hint", err->hint);
        if (err->status != 0)
            vf_jw_int(&w, "status", err->status);
        if (err->retry_after_s != 0)
            vf_jw_int(&w, "retry_after_s", err->retry_after_s);
        vf_jw_end(&w, '}');
        vf_jw_end(&w, '}');
        text = vf_jw_finish(&w);
        fprintf(stderr, "%s\n", text != NULL ? text : "{\"error\":{\"code\":\"no_memory\"}}");
        free(text);
        return vf_exit_of(cli, err);
    }
    fputs("vmfactory: ", stderr);
    vf_text_print(err->message, stderr);
    if (err->retry_after_s > 0)
        fprintf(stderr, " (try again in %d s)", err->retry_after_s);
    fputc('\n', stderr);
    if (err->hint[0] != '\0') {
        fputs("  hint: ", stderr);
        vf_text_print(err->hint, stderr);
        fputc('\n', stderr);
    }
    return vf_exit_of(cli, err);
}

int vf_report_error(const struct vf_cli *cli, const struct vf_error *err)
{
    struct vmfactory_error e = {0};

    snprintf(e.code, sizeof(e.code), "%s", vf_code_name(err->code));
    snprintf(e.message, sizeof(e.message), "%s", err->msg);
    snprintf(e.hint, sizeof(e.hint), "%s", err->hint);
    return vf_report(cli, &e);
}

int vf_cli_connect(struct vf_cli *cli)
{
    struct vmfactory_error err;

    if (cli->h != NULL || vmfactory_connect(cli->args.socket, &cli->h, &err) == 0)
        return 0;
    return vf_report(cli, &err);
}

int vf_cli_request(struct vf_cli *cli, const char *method, const char *path, const char *body,
                   struct vmfactory_response *ret, struct vf_json **ret_json)
{
    struct vmfactory_response answer;
    struct vmfactory_error err;
    int r = vf_cli_connect(cli);

    if (r != 0)
        return r;
    if (vmfactory_request(cli->h, method, path, body, 0, &answer, &err) < 0)
        return vf_report(cli, &err);
    if (ret_json != NULL) {
        *ret_json = vf_json_parse(answer.body, answer.len);
        if (*ret_json == NULL) {
            struct vf_error e;

            vmfactory_response_free(&answer);
            vf_fail(&e, VF_PROTOCOL, "the daemon's answer to %s %s is no JSON", method, path);
            return vf_report_error(cli, &e);
        }
    }
    if (ret != NULL)
        *ret = answer;
    else
        vmfactory_response_free(&answer);
    return 0;
}

void vf_print_json(const struct vmfactory_response *r)
{
    fwrite(r->body, 1, r->len, stdout);
    if (r->len == 0 || r->body[r->len - 1] != '\n')
        putchar('\n');
}

char *vf_cli_path(const char *before, const char *name, const char *after)
{
    char *path = vmfactory_path(before, name, after);

    if (path == NULL) {
        fputs("vmfactory: out of memory\n", stderr);
        exit(VF_EXIT_FAILED);
    }
    return path;
}

/* asset fetch: has assets fetched and waits for them: a bar that is redrawn on a terminal, else a line for each.
 *
 *     POST …/fetch for each -> look at each in turn until it is there or has failed
 *
 * The daemon fetches, several at once; when this command ends early, the fetches go on.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "tools/vmfactory/assets.h"

#define BAR 20
#define LOOK_EVERY_MS 200

struct show {
    bool terminal;
    int64_t began_us, deadline_us;
};

static void progress(const struct show *s, const char *name, const struct vf_json *asset,
                     size_t left)
{
    const struct vf_json *fetch = vf_json_get(asset, "fetch");
    int64_t done = vf_json_int(vf_json_get(fetch, "done_bytes"), 0);
    int64_t total = vf_json_int(vf_json_get(fetch, "total_bytes"), 0);
    char bar[BAR + 1], clean[100], more[40] = "", of[VF_TEXT + 8] = "", buf[VF_TEXT], now[VF_TEXT];
    int filled = total > 0 && done <= total ? (int)((double)done / (double)total * BAR) : 0;

    if (!s->terminal)
        return;
    for (int i = 0; i < BAR; i++)
        bar[i] = i < filled ? '#' : '.';
    bar[BAR] = '\0';
    vf_text_clean(name, clean, sizeof(clean));
    if (total > 0)
        snprintf(of, sizeof(of), " of %s", vf_text_bytes(buf, total));
    if (left > 0)
        snprintf(more, sizeof(more), ", %zu more", left);
    /* A line that is too long is cut, not wrapped: it is to be redrawn. */
    fprintf(stderr, "\r\033[K\033[?7l[%s] %s: %s%s%s, %s\033[?7h", bar, clean,
            vf_text_bytes(now, done), of, more,
            vf_text_ms(buf, (vf_now_us() - s->began_us) / 1000));
    fflush(stderr);
}

static void wipe(const struct show *s)
{
    if (s->terminal)
        fputs("\r\033[K", stderr);
}

/* Why asset can't be had, if that is so. */
static bool has_failed(const struct vf_json *asset, const char *name, struct vmfactory_error *ret)
{
    const struct vf_json *fetch = vf_json_get(asset, "fetch"), *e = vf_json_get(fetch, "error");

    if (vf_json_bool(vf_json_get(fetch, "running"), false))
        return false;
    *ret = (struct vmfactory_error){0};
    snprintf(ret->code, sizeof(ret->code), "%s", vf_json_str(vf_json_get(e, "code"), "cancelled"));
    snprintf(ret->message, sizeof(ret->message), "%.700s",
             vf_json_str(vf_json_get(e, "message"), "the fetch has ended without an error"));
    if (strstr(ret->message, name) == NULL)
        snprintf(ret->message, sizeof(ret->message), "%.64s: %.690s", name,
                 vf_json_str(vf_json_get(e, "message"), "the fetch has ended without an error"));
    snprintf(ret->hint, sizeof(ret->hint), "%s", vf_json_str(vf_json_get(e, "hint"), ""));
    return true;
}

static int late(const struct vf_cli *cli, const char *name)
{
    struct vf_error err;

    vf_fail(&err, VF_TIMEOUT, "%s is not fetched yet", name);
    vf_hint(&err, "it goes on in the background; see vmfactory asset ls");
    return vf_report_error(cli, &err);
}

/* Waits for one; its exit status. */
static int await(struct vf_cli *cli, const struct show *s, const char *name, size_t left)
{
    VF_CLEANUP_FREE char *path = vf_cli_path("/v1/assets/", name, "");
    struct vmfactory_error err;
    char buf[VF_TEXT];

    for (;;) {
        struct vmfactory_response answer;
        struct vf_json *asset;
        int r = vf_cli_request(cli, "GET", path, NULL, &answer, &asset);
        bool ended;

        if (r != 0)
            return r;
        ended = vf_asset_fetched(asset);
        if (ended) {
            int64_t size = vf_json_int(vf_json_get(vf_asset_here(asset), "size"), 0);

            wipe(s);
            if (cli->args.json)
                vf_print_json(&answer);
            else
                printf("%s: fetched, %s\n", name, vf_text_bytes(buf, size));
            fflush(stdout);
        } else if (has_failed(asset, name, &err)) {
            ended = true;
            wipe(s);
            r = vf_report(cli, &err);
        } else if (vf_now_us() >= s->deadline_us) {
            ended = true;
            wipe(s);
            r = late(cli, name);
        } else
            progress(s, name, asset, left);
        vmfactory_response_free(&answer);
        vf_json_delete(asset);
        if (ended)
            return r;
        poll(NULL, 0, LOOK_EVERY_MS);
    }
}

static bool is_to_fetch(const struct vf_json *asset)
{
    return vf_asset_here(asset) != NULL && !vf_asset_fetched(asset);
}

int vf_cmd_asset_fetch(struct vf_cli *cli)
{
    struct show s = {.terminal = isatty(STDERR_FILENO) && !cli->args.json,
                     .began_us = vf_now_us(),
                     .deadline_us = VF_NEVER};
    struct vf_error err;
    char **names;
    size_t n = 0;
    int status = 0, r;

    if (cli->args.all == (cli->n_operands > 0)) {
        vf_fail(&err, VF_INVALID_ARGUMENT, "asset fetch needs NAME... or --all%s",
                cli->args.all ? ", not both" : "");
        vf_report_error(cli, &err);
        return VF_EXIT_USAGE;
    }
    if (cli->args.timeout_ms > 0)
        s.deadline_us = vf_deadline_after_ms(cli->args.timeout_ms);
    r = vf_asset_names(cli, is_to_fetch, &names);
    if (r != 0)
        return r;
    while (names[n] != NULL)
        n++;
    for (size_t i = 0; i < n && status != VF_EXIT_UNREACHABLE; i++) {
        VF_CLEANUP_FREE char *path = vf_cli_path("/v1/assets/", names[i], "/fetch");

        r = vf_cli_request(cli, "POST", path, NULL, NULL, NULL);
        if (r != 0) {
            status = r;
            names[i][0] = '\0'; /* it is not under way: nothing to wait for */
        }
    }
    for (size_t i = 0; i < n && status != VF_EXIT_UNREACHABLE; i++) {
        r = names[i][0] != '\0' ? await(cli, &s, names[i], n - i - 1) : 0;
        if (r != 0)
            status = r;
    }
    if (n == 0 && !cli->args.json)
        puts("nothing to fetch");
    vf_asset_names_free(names);
    return status;
}

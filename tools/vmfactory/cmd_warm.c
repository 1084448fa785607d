/* warm: fills a pool and shows how far it is: a line that is redrawn on a terminal, else a line for each change. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/text.h"

#define BAR 20

struct show {
    bool terminal;
    int64_t began_us;
    char last[260]; /* what was said last, without the time */
};

/* What the pool is at, in a few words. */
static void describe(const struct vmfactory_pool *p, char *buf, size_t size)
{
    if (p->build_running)
        snprintf(buf, size, "building %s: %s", p->template_name,
                 p->build_stage[0] != '\0' ? p->build_stage : "beginning");
    else if (strcmp(p->state, "ready") != 0 && p->parked == 0)
        snprintf(buf, size, "%s: %s%s%.60s", p->template_name, p->state,
                 p->reason[0] != '\0' ? ", " : "", p->reason);
    else if (strcmp(p->refill_state, "backoff") == 0 || strcmp(p->refill_state, "pressure") == 0)
        snprintf(buf, size, "filling %s: %s%s%.60s", p->template_name, p->refill_state,
                 p->refill_reason[0] != '\0' ? ", " : "", p->refill_reason);
    else
        snprintf(buf, size, "filling %s", p->template_name);
}

static void progress(void *arg, const struct vmfactory_pool *p)
{
    int64_t target = p->target > 0 ? p->target : 1,
            filled = p->parked < target ? p->parked * BAR / target : BAR;
    char what[200], line[260], clean[260], bar[BAR + 1], buf[VF_TEXT];
    struct show *s = arg;

    describe(p, what, sizeof(what));
    snprintf(line, sizeof(line), "%s, %" PRId64 "/%" PRId64 " parked", what, p->parked, p->target);
    vf_text_clean(line, clean, sizeof(clean));
    if (s->terminal) {
        /* A line that is too long is cut, not wrapped: it is to be redrawn. */
        for (int i = 0; i < BAR; i++)
            bar[i] = i < filled ? '#' : '.';
        bar[BAR] = '\0';
        fprintf(stderr, "\r\033[K\033[?7l[%s] %s, %s\033[?7h", bar, clean,
                vf_text_ms(buf, (vf_now_us() - s->began_us) / 1000));
        fflush(stderr);
        return;
    }
    if (strcmp(s->last, clean) != 0)
        fprintf(stderr, "%s\n", clean);
    snprintf(s->last, sizeof(s->last), "%s", clean);
}

int vf_cmd_warm(struct vf_cli *cli)
{
    struct show s = {.terminal = isatty(STDERR_FILENO), .began_us = vf_now_us()};
    struct vmfactory_error err;
    struct vmfactory_pool p;
    char buf[VF_TEXT];
    int r = vf_cli_connect(cli);

    if (r != 0)
        return r;
    r = vmfactory_warm(cli->h, cli->operands[0], cli->args.count, cli->args.timeout_ms,
                       cli->args.json ? NULL : progress, &s, &p, &err);
    if (s.terminal && !cli->args.json)
        fputs("\r\033[K", stderr);
    if (r < 0)
        return vf_report(cli, &err);
    if (cli->args.json)
        puts(p.json);
    else
        printf("%s is warm: %" PRId64 " parked, generation %" PRId64 ", after %s\n",
               p.template_name, p.parked, p.generation,
               vf_text_ms(buf, (vf_now_us() - s.began_us) / 1000));
    vmfactory_pool_free(&p);
    return 0;
}

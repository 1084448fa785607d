/* bench: acquire and release by several callers at once, each with a connection of its own.
 *
 * What counts is what a caller sees: from the request's first byte sent (or the connecting, with --new-connection)
 * to the answer's last byte read. Releasing is timed apart.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "tools/vmfactory/bench.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/text.h"
#include "tools/vmfactory/vms.h"

#define KINDS 5
static const char *const kinds[KINDS] = {"hit", "standby", "clone", "cold", "release"};
enum { KIND_RELEASE = KINDS - 1 };

struct sample { /* one cycle */
    int kind;   /* of the source; -1: it failed */
    int64_t acquire_us, release_us;
};
struct bench {
    struct vf_cli *cli;
    struct sample *samples;
    int64_t count;
    atomic_llong next, failed;
    atomic_bool stop;
    pthread_mutex_t lock;
    struct vmfactory_error first; /* the first failure */
};

static void failed(struct bench *b, const struct vmfactory_error *err)
{
    pthread_mutex_lock(&b->lock);
    if (atomic_fetch_add(&b->failed, 1) == 0)
        b->first = *err;
    pthread_mutex_unlock(&b->lock);
    /* Being refused for now is a result; not being able to talk ends it. */
    if (err->status == 0)
        atomic_store(&b->stop, true);
}

static void cycle(struct bench *b, struct vf_cli *cli, struct sample *s)
{
    int64_t began_us = vf_now_us();
    struct vmfactory_error err;
    struct vmfactory_vm vm;

    s->kind = -1;
    if (cli->h == NULL && vmfactory_connect(cli->args.socket, &cli->h, &err) < 0) {
        failed(b, &err);
        return;
    }
    if (vf_lease(cli, cli->operands[0], &vm, &err) < 0) {
        failed(b, &err);
        return;
    }
    s->acquire_us = b->cli->args.kept ? vm.roundtrip_us : vf_now_us() - began_us;
    for (int k = 0; k < KIND_RELEASE; k++)
        if (strcmp(vm.source, kinds[k]) == 0)
            s->kind = k;
    began_us = vf_now_us();
    if (vmfactory_release(cli->h, vm.id, &err) < 0) {
        s->kind = -1;
        failed(b, &err);
    }
    s->release_us = vf_now_us() - began_us;
    vmfactory_vm_free(&vm);
    if (!b->cli->args.kept) {
        vmfactory_close(cli->h);
        cli->h = NULL;
    }
}

static void *caller(void *arg)
{
    struct bench *b = arg;
    struct vf_cli own = *b->cli;
    long long i;

    own.h = NULL;
    /* The kept connection is there before the first cycle. */
    if (own.args.kept && vmfactory_connect(own.args.socket, &own.h, NULL) < 0)
        own.h = NULL;
    while (!atomic_load(&b->stop) && (i = atomic_fetch_add(&b->next, 1)) < b->count)
        cycle(b, &own, &b->samples[i]);
    vmfactory_close(own.h);
    return NULL;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

void vf_quantiles(int64_t *us, size_t n, struct vf_quantiles *ret)
{
    static const int percents[] = {50, 90, 99, 100};
    int64_t *to[] = {&ret->p50_us, &ret->p90_us, &ret->p99_us, &ret->max_us};

    *ret = (struct vf_quantiles){.n = n};
    if (n == 0)
        return;
    qsort(us, n, sizeof(*us), by_size);
    for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++)
        /* The smallest of which at least that share is as small. */
        *to[i] = us[(n * (size_t)percents[i] + 99) / 100 - 1];
}

static void summarize(const struct bench *b, int64_t done, int kind, int64_t *us,
                      struct vf_quantiles *ret)
{
    size_t n = 0;

    for (int64_t i = 0; i < done; i++) {
        const struct sample *s = &b->samples[i];

        if (s->kind >= 0 && (kind == KIND_RELEASE || s->kind == kind))
            us[n++] = kind == KIND_RELEASE ? s->release_us : s->acquire_us;
    }
    vf_quantiles(us, n, ret);
}

static void print_json(const struct bench *b, const struct vf_quantiles *q, int64_t elapsed_us)
{
    struct vf_json_writer w = {0};
    char *text;

    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "template", b->cli->operands[0]);
    vf_jw_int(&w, "concurrency", b->cli->args.concurrency);
    vf_jw_string(&w, "connection", b->cli->args.kept ? "kept" : "new");
    vf_jw_int(&w, "done", (int64_t)q[KIND_RELEASE].n);
    vf_jw_int(&w, "failed", b->failed);
    vf_jw_int(&w, "elapsed_us", elapsed_us);
    vf_jw_begin(&w, "times", '{');
    for (int k = 0; k < KINDS; k++) {
        if (q[k].n == 0)
            continue;
        vf_jw_begin(&w, kinds[k], '{');
        vf_jw_int(&w, "n", (int64_t)q[k].n);
        vf_jw_int(&w, "p50_us", q[k].p50_us);
        vf_jw_int(&w, "p90_us", q[k].p90_us);
        vf_jw_int(&w, "p99_us", q[k].p99_us);
        vf_jw_int(&w, "max_us", q[k].max_us);
        vf_jw_end(&w, '}');
    }
    vf_jw_end(&w, '}');
    vf_jw_end(&w, '}');
    text = vf_jw_finish(&w);
    puts(text != NULL ? text : "{}");
    free(text);
}

static void print_table(const struct bench *b, const struct vf_quantiles *q, int64_t elapsed_us)
{
    static const char *const heads[] = {"", ">N", ">P50", ">P90", ">P99", ">MAX", NULL};
    struct vf_table t;
    char buf[VF_TEXT];

    vf_table_init(&t, heads);
    for (int k = 0; k < KINDS; k++) {
        if (q[k].n == 0)
            continue;
        vf_table_cell(&t, kinds[k]);
        vf_table_int(&t, (int64_t)q[k].n);
        vf_table_cell(&t, vf_text_us(buf, q[k].p50_us));
        vf_table_cell(&t, vf_text_us(buf, q[k].p90_us));
        vf_table_cell(&t, vf_text_us(buf, q[k].p99_us));
        vf_table_cell(&t, vf_text_us(buf, q[k].max_us));
    }
    vf_table_print(&t, stdout, b->cli->args.color);
    printf("\n%zu acquired and released in %s (%.0f/s) by %" PRId64 " callers, %s connection\n",
           q[KIND_RELEASE].n, vf_text_us(buf, elapsed_us),
           (double)q[KIND_RELEASE].n * 1e6 / (double)(elapsed_us > 0 ? elapsed_us : 1),
           b->cli->args.concurrency, b->cli->args.kept ? "kept" : "new");
}

static int run(struct bench *b, int64_t *us)
{
    struct vf_quantiles q[KINDS];
    pthread_t threads[256];
    int64_t began_us, elapsed_us, done, started = 0;

    began_us = vf_now_us();
    for (; started < b->cli->args.concurrency; started++)
        if (pthread_create(&threads[started], NULL, caller, b) != 0)
            break;
    for (int64_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    elapsed_us = vf_now_us() - began_us;
    done = b->next < b->count ? b->next : b->count;
    for (int k = 0; k < KINDS; k++)
        summarize(b, done, k, us, &q[k]);
    if (b->cli->args.json)
        print_json(b, q, elapsed_us);
    else if (q[KIND_RELEASE].n > 0)
        print_table(b, q, elapsed_us);
    if (b->failed == 0 && started == b->cli->args.concurrency)
        return 0;
    if (started < b->cli->args.concurrency)
        fputs("vmfactory: not all callers could be started\n", stderr);
    if (b->failed == 0)
        return VF_EXIT_FAILED;
    fflush(stdout);
    fprintf(stderr, "vmfactory: %lld of %" PRId64 " failed, the first:\n", (long long)b->failed,
            done);
    return vf_report(b->cli, &b->first);
}

int vf_cmd_bench(struct vf_cli *cli)
{
    struct bench b = {.cli = cli, .lock = PTHREAD_MUTEX_INITIALIZER};
    int64_t *us;
    int r = vf_cli_connect(cli);

    if (r != 0)
        return r;
    if (cli->args.count == 0)
        cli->args.count = 100;
    if (cli->args.concurrency == 0)
        cli->args.concurrency = 1;
    b.count = cli->args.count;
    b.samples = calloc((size_t)b.count, sizeof(*b.samples));
    us = calloc((size_t)b.count, sizeof(*us));
    if (b.samples == NULL || us == NULL) {
        perror("vmfactory");
        r = VF_EXIT_FAILED;
    } else
        r = run(&b, us);
    free(b.samples);
    free(us);
    return r;
}

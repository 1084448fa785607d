/* What networks cost a daemon's callers: templates with a network beside the same without, taking turns; and how soon a
 * restored guest's first packet passes. All of it in namespaces of the benchmark's own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include "base/clock.h"
#include "tools/bench/daemon.h"

#define AT_ONCE 16
#define WHO_PORT 7 /* where the tiny guest answers */
#define ANSWER_MS 5000

static int put(const char *path, struct vf_error *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), r = 0;
    if (fd < 0 || write(fd, "1", 1) != 1)
        r = vf_fail_errno(err, errno, "%s", path);
    if (fd >= 0)
        close(fd);
    return r;
}

int bench_nets_enter(struct vf_error *err)
{
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/run", "tmpfs", 0, "mode=755") < 0) {
        int r = vf_fail_errno(err, errno, "namespaces of its own");
        vf_hint(err, "--networks must be run as root");
        return r;
    }
    int r = put("/proc/sys/net/ipv4/ip_forward", err);
    return r < 0 ? r : put("/proc/sys/net/ipv6/conf/all/forwarding", err);
}

/* ---- a VM's first packet */

/* From asking until the guest has answered, once only: nothing is lost on the way. */
static int first_packet(const char *address, int64_t *ret_us, struct vf_error *err)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(WHO_PORT)};
    char answer[64];
    int r = 0, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
        r = vf_fail(err, VF_PROTOCOL, "acquire: '%s' is no address of the VM", address);
    int64_t t0 = vf_now_us();
    if (r == 0 && (sendto(fd, "who", 3, 0, (struct sockaddr *)&to, sizeof(to)) != 3 ||
                   poll(&p, 1, ANSWER_MS) != 1 || recv(fd, answer, sizeof(answer), 0) != 32))
        r = vf_fail(err, VF_TIMEOUT, "the guest at %s does not answer", address);
    *ret_us = vf_now_us() - t0;
    close(fd);
    return r;
}

/* Of the acquire that was just answered to c: its address, and how long ago, by then, its guest was resumed. */
static int read_answer(const struct client *c, char ret_address[64], int64_t *ret_prove_us,
                       struct vf_error *err)
{
    struct vf_json *j = vf_json_parse(c->body, strlen(c->body));
    const struct vf_json *stages = vf_json_get(j, "stages"), *st;
    *ret_prove_us = 0;
    for (size_t i = 0; (st = vf_json_at(stages, i)); i++)
        if (strcmp(vf_json_str(vf_json_get(st, "name"), ""), "prove") == 0)
            *ret_prove_us = vf_json_int(vf_json_get(st, "us"), 0);
    snprintf(ret_address, 64, "%s",
             vf_json_str(vf_json_get(vf_json_get(j, "network"), "address4"), ""));
    vf_json_delete(j);
    return ret_address[0] ? 0 : vf_fail(err, VF_PROTOCOL, "acquire: the VM has no address");
}

/* ---- with and without, in turn */

struct pair {
    struct bench_daemon *d;
    struct client c;
    const char *label;
    bool talks; /* its guest answers packets */
    char names[2][16];
    struct figure *hit, *clone, *packet, *since;
};

/* The k-th of a pair: 0 without a network, 1 with. */
static int take(struct pair *p, int k, const char *how, struct figure *f, char *ret_id,
                struct vf_error *err)
{
    struct got got;
    char address[64];
    int64_t prove_us, packet_us = 0;
    int r = pool_acquire(&p->c, p->names[k], how, &got, err);
    if (r < 0)
        return r;
    series_add(k ? &f->ours : &f->base, got.round_trip_us);
    strcpy(ret_id, got.id);
    if (!k || !p->talks || strcmp(how, "clone") != 0)
        return 0;
    r = read_answer(&p->c, address, &prove_us, err);
    if (r == 0)
        r = first_packet(address, &packet_us, err);
    if (r < 0)
        return r;
    series_add(&p->packet->ours, packet_us);
    series_add(&p->since->ours, prove_us + packet_us);
    return 0;
}

static int take_turns(struct pair *p, const char *how, struct figure *f, int n,
                      struct vf_error *err)
{
    char ids[2 * AT_ONCE][16];
    int r = pool_await(p->d, p->names[0], err), taken = 0;
    if (r == 0)
        r = pool_await(p->d, p->names[1], err);
    for (; r == 0 && taken < 2 * n; taken++)
        r = take(p, (taken % 4 == 0 || taken % 4 == 3), how, f, ids[taken], err);
    for (int i = 0; r == 0 && i < taken; i++)
        r = pool_release(&p->d->control, ids[i], err);
    return r;
}

/* What longest kept the daemon's loop from its callers, so far. */
static int stall(struct pair *p, const char *during, enum figure_judge judge, struct vf_error *err)
{
    static const char name[] = "\nvmfactory_loop_stall_max_seconds ";
    struct client c = {.fd = -1, .path = p->d->stats};
    int r = client_ask(&c, "GET", "/metrics", NULL, err);
    const char *at = r == 0 ? strstr(c.body, name) : NULL;
    if (r == 0 && !at)
        r = vf_fail(err, VF_PROTOCOL, "metrics: there is no loop stall");
    if (r == 0)
        figure_value(p->d->bench, judge, 5, "ms", strtod(at + sizeof(name) - 1, NULL) * 1e3,
                     "the daemon's longest stall, %s, %s", p->label, during);
    client_free(&c);
    return r;
}

static int fill(struct pair *p, const char *config, struct vf_error *err)
{
    int r = pool_fill(p->d, p->names[0], config, err);
    return r < 0 ? r : pool_fill(p->d, p->names[1], config, err);
}

static int measure(struct pair *p, int rounds, int n, struct vf_error *err)
{
    struct bench *b = p->d->bench;
    char config[128];
    p->hit = figure_add(b, JUDGE_OVER, 50, "no network", "hit, running, %s, nat", p->label);
    p->clone = figure_add(b, JUDGE_NONE, 0, "no network", "clone, %s, nat", p->label);
    if (p->talks) {
        p->packet = figure_add(b, JUDGE_P50, 10000, NULL,
                               "a clone's first packet and its answer, %s", p->label);
        p->since = figure_add(b, JUDGE_P50, 10000, NULL,
                              "the same since the resume, proofs included, %s", p->label);
    }
    snprintf(config, sizeof(config),
             "{\"max\":%d,\"target\":%d,\"park\":\"running\",\"refill_concurrency\":4}", n, n);
    int r = pool_fill(p->d, p->names[0], config, err);
    if (r == 0)
        r = stall(p, "no slot yet", JUDGE_NONE, err);
    if (r == 0)
        r = pool_fill(p->d, p->names[1], config, err);
    for (int i = 0; r == 0 && i < rounds; i++)
        r = take_turns(p, "hit", p->hit, n, err);
    if (r == 0)
        r = fill(p, "{\"target\":0}", err);
    for (int i = 0; r == 0 && i < rounds; i++)
        r = take_turns(p, "clone", p->clone, 1, err);
    return r;
}

/* The spec's text once more under another name, and with a network. */
static int add_pair(struct pair *p, const struct vf_spec *spec, struct vf_error *err)
{
    int r = 0;
    for (int k = 0; r == 0 && k < 2; k++) {
        struct vf_spec one;
        r = vf_spec_copy(spec, &one, err);
        if (r < 0)
            return r;
        snprintf(p->names[k], sizeof(p->names[k]), "%s", k ? "net" : "plain");
        free(one.name);
        one.name = strdup(p->names[k]);
        one.network.given = one.network.has_mode = true;
        one.network.mode = k ? VF_NETWORK_NAT : VF_NETWORK_NONE;
        char *text = one.name ? vf_spec_encode(&one) : NULL;
        r = text ? pool_add(p->d, text, "/", err) : vf_fail(err, VF_NO_MEMORY, "spec");
        free(text);
        vf_spec_free(&one);
    }
    return r;
}

static int both(struct bench *b, const struct vf_spec *spec, const char *label, bool talks,
                int rounds, int n, struct vf_error *err)
{
    char max_vms[32], ahead[32];
    const char *const settings[] = {"network=on", "network_prefixes=10.210.0.0/20,fd76:6d01::/112",
                                    ahead, max_vms, NULL};
    struct bench_daemon d;
    struct pair p = {.d = &d, .c = {.fd = -1, .path = d.api}, .label = label, .talks = talks};
    struct vf_error e;
    snprintf(max_vms, sizeof(max_vms), "max_vms=%d", 2 * n);
    snprintf(ahead, sizeof(ahead), "network_ahead=%d", n);
    fprintf(stderr, "measuring: networks, %s\n", label);
    int r = daemon_open(&d, b, settings, err);
    if (r == 0)
        r = add_pair(&p, spec, err);
    if (r == 0)
        r = measure(&p, rounds, n, err);
    if (r == 0)
        r = stall(&p, "slots being made and recycled", JUDGE_AT_MOST, err);
    client_free(&p.c);
    int closed = daemon_close(&d, r < 0 ? &e : err);
    return r < 0 ? r : closed;
}

int bench_nets(struct bench *b, const char *specs, struct vf_error *err)
{
    struct vf_spec spec = {0};
    int r = vf_spec_parse(NULL_SPEC, strlen(NULL_SPEC), NULL, NULL, &spec, err);
    if (r == 0)
        r = both(b, &spec, "null", false, b->hit_rounds * 2, AT_ONCE, err);
    vf_spec_free(&spec);
    for (int i = 0; r == 0 && bench_vmms[i] != VF_SPEC_VMM_COUNT; i++) {
        const struct subject of = {bench_vmms[i], "tiny", VF_ACCEL_KVM};
        char label[48];
        if (!bench_can(b, &of))
            continue;
        snprintf(label, sizeof(label), "%s tiny", vf_spec_vmm_names[of.vmm]);
        r = bench_spec(specs, &of, &spec, err);
        if (r == 0)
            r = both(b, &spec, label, true, b->hit_rounds * 2, 4, err);
        vf_spec_free(&spec);
    }
    return r;
}

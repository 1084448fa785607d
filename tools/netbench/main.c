/* vmfactory-netbench [SLOTS | throughput [PAIRS]]: what networks cost. See netbench.h.
 *
 * Medians of making, taking, recycling and removing slots, beside the bare system calls and beside ip and nft, all in
 * one run and taking turns. Needs CAP_NET_ADMIN and CAP_SYS_ADMIN. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "tools/netbench/netbench.h"

#define FEW 20
#define COMMANDS 10
#define PAIRS 40

void must(int r, const char *what, const struct vf_error *e)
{
    if (r >= 0)
        return;
    fprintf(stderr, "vmfactory-netbench: %s: %s%s%s\n", what, e->msg, e->hint[0] ? "\n  " : "",
            e->hint);
    exit(1);
}

void sample(struct samples *s, int64_t since_us)
{
    if (s->n < MAX_SAMPLES)
        s->us[s->n++] = vf_now_us() - since_us;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

int64_t median(struct samples *s)
{
    if (s->n == 0)
        return 0;
    qsort(s->us, (size_t)s->n, sizeof(s->us[0]), compare);
    return s->us[s->n / 2];
}

void show(struct samples *s)
{
    if (s->n == 0)
        return;
    int64_t middle = median(s);
    printf("%-44s %8lld %8lld %8lld %6d\n", s->name, (long long)middle,
           (long long)s->us[s->n * 9 / 10], (long long)s->us[s->n - 1], s->n);
}

/* ---- a place of our own */

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        fprintf(stderr, "vmfactory-netbench: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    close(fd);
}

static void enter(void)
{
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/run", "tmpfs", 0, "mode=755") < 0 || mkdir(VF_NETNS_DIR, 0755) < 0) {
        fprintf(stderr, "vmfactory-netbench: a namespace of its own: %s (it must be root)\n",
                strerror(errno));
        exit(1);
    }
    put("/proc/sys/net/ipv4/ip_forward", "1");
    put("/proc/sys/net/ipv6/conf/all/forwarding", "1");
}

/* The rules that ip and nft are to make: those of a slot of ours. */
static void save_rules(struct vf_net *slot)
{
    struct vf_net_info info;
    char command[300];
    vf_net_info(slot, &info);
    snprintf(command, sizeof(command), "nsenter --net=%s nft list ruleset >/run/netbench.nft",
             info.netns_path);
    if (system(command) != 0)
        exit(1);
}

/* ---- */

static void make(struct vf_nets *s, struct samples *to)
{
    struct vf_error e;
    int64_t start_us = vf_now_us();
    must(vf_net_make(s, &vf_net_shape_default, &e), "make", &e);
    sample(to, start_us);
}

/* From a send on the host to the frame in the guest's tap, for a slot that was just taken. */
static void first_packet(struct vf_net *slot, struct samples *to)
{
    struct vf_net_info info;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(80)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char frame[2048];
    vf_net_info(slot, &info);
    memcpy(&a.sin_addr, info.host4.b, 4);
    int64_t start_us = vf_now_us();
    sendto(fd, "first", 5, 0, (struct sockaddr *)&a, sizeof(a));
    for (;;) {
        struct pollfd p = {.fd = info.tap_fds[0], .events = POLLIN};
        if (poll(&p, 1, 10000) != 1) {
            fprintf(stderr, "vmfactory-netbench: %s: the first packet did not arrive\n", info.name);
            exit(1);
        }
        ssize_t n = read(info.tap_fds[0], frame, sizeof(frame));
        if (n > 5 && memcmp(frame + n - 5, "first", 5) == 0)
            break;
    }
    sample(to, start_us);
    close(fd);
}

/* A port of the host's, as a lease brings one, and none again. */
static void publish(struct vf_net *slot, struct samples *to)
{
    static const struct vf_port any = {.protocol = IPPROTO_TCP, .guest = 80};
    struct vf_port got;
    struct vf_error e;
    int64_t start_us = vf_now_us();
    must(vf_net_publish(slot, &any, 1, &got, &e), "publish", &e);
    sample(to, start_us);
}

/* A few packets, so that there is something to wipe. */
static void use(struct vf_net *slot)
{
    struct vf_net_info info;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(80)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    vf_net_info(slot, &info);
    memcpy(&to.sin_addr, info.host4.b, 4);
    for (int i = 0; i < 4; i++)
        sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to));
    close(fd);
}

int main(int argc, char **argv)
{
    static const char *const prefixes[] = {"10.210.0.0/16", "fd76:6d01::/64", NULL};
    static struct bare bare = {.namespace = {.name = "  namespace, bare"},
                               .tap = {.name = "  tap, bare"},
                               .veth = {.name = "  veth pair, bare"},
                               .all = {.name = "make, the bare system calls"}},
                       bare_many = {.all = {.name = "make, bare, after the last"}};
    static struct samples make_few = {.name = "make"}, make_many = {.name = "make, the last 50"},
                          take = {.name = "take a ready one"},
                          recycle = {.name = "give back (recycle)"},
                          destroy = {.name = "destroy one"},
                          closing = {.name = "destroy all others at once"},
                          commands = {.name = "make, by ip and nft"},
                          idle = {.name = "recycle, unused"},
                          published = {.name = "publish a port"},
                          first = {.name = "first packet, host to guest"};
    struct vf_nets_config cfg = {
        .run_dir = "/run/net", .prefixes = prefixes, .first_port = 30000, .last_port = 32767};
    int slots = argc > 1 ? atoi(argv[1]) : 500, failures = 0;
    struct vf_nets *s;
    struct vf_error e;

    if (argc > 1 && strcmp(argv[1], "throughput") == 0) {
        enter();
        return throughput(argc > 2 ? atoi(argv[2]) : PAIRS);
    }
    if (slots < FEW || slots > 2000) {
        fprintf(stderr,
                "usage: vmfactory-netbench [SLOTS | throughput [PAIRS]]   (20 to 2000 slots, 500 "
                "if not given; %d pairs)\n",
                PAIRS);
        return 2;
    }
    enter();
    must(vf_nets_open(&cfg, &s, &e), "open", &e);
    struct vf_net **all = calloc((size_t)slots, sizeof(struct vf_net *));
    for (int i = 0; i < FEW; i++) {
        make(s, &make_few);
        bare_make(&bare, i);
        if (i == 0) {
            must(vf_net_take(s, &vf_net_shape_default, &all[0], &e), "take", &e);
            save_rules(all[0]);
        }
        if (i < COMMANDS)
            by_commands(&commands, i);
    }
    for (int i = FEW; i < slots; i++) {
        int64_t start_us = vf_now_us();
        if (vf_net_make(s, &vf_net_shape_default, &e) < 0) {
            failures++;
            fprintf(stderr, "slot %d: %s\n", i, e.msg);
        } else if (i >= slots - 50) {

            sample(&make_many, start_us);
        }
    }
    for (int i = 1; i < slots - failures; i++) {
        int64_t start_us = vf_now_us();
        must(vf_net_take(s, &vf_net_shape_default, &all[i], &e), "take", &e);
        sample(&take, start_us);
        if (i < 100)
            first_packet(all[i], &first);
    }
    for (int i = 0; i < 100 && i < slots - failures; i++) {
        publish(all[i], &published);
        use(all[i]);
        int64_t start_us = vf_now_us();
        must(vf_net_give_back(all[i], NULL, &e), "give back", &e);
        sample(&recycle, start_us);
        must(vf_net_take(s, &vf_net_shape_default, &all[i], &e), "take", &e);
        start_us = vf_now_us();
        must(vf_net_give_back(all[i], NULL, &e), "give back", &e);
        sample(&idle, start_us);
        must(vf_net_take(s, &vf_net_shape_default, &all[i], &e), "take", &e);
    }
    for (int i = 0; i < FEW; i++)
        bare_make(&bare_many, FEW + i);
    for (int i = 0; i < FEW; i++) {
        int64_t start_us = vf_now_us();
        must(vf_net_destroy(all[i], &e), "destroy", &e);
        sample(&destroy, start_us);
    }
    for (int i = FEW; i < slots - failures; i++)
        must(vf_net_give_back(all[i], NULL, &e), "give back", &e);
    int64_t close_us = vf_now_us();
    free(all);
    vf_nets_close(s);
    sample(&closing, close_us);

    printf("%-44s %8s %8s %8s %6s\n", "µs", "median", "p90", "max", "n");
    struct samples *rows[] = {&make_few,  &bare.all,      &bare.namespace, &bare.tap, &bare.veth,
                              &make_many, &bare_many.all, &commands,       &take,     &published,
                              &first,     &recycle,       &idle,           &destroy,  &closing};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        show(rows[i]);
    printf("make: %.2f times the bare system calls; ip and nft take %.1f times as long\n",
           (double)median(&make_few) / (double)median(&bare.all),
           (double)median(&commands) / (double)median(&make_few));
    printf("%d of %d slots failed\n", failures, slots);
    return failures != 0;
}

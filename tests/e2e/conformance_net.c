/* Conformance: a VM in a network slot. The VMM runs in the slot's namespace and has its tap, by descriptors or by name;
 * a clone gets another slot than its template had, and is reached there under the slot's address, the guest's own being
 * the same in all of them. All of it happens in namespaces of the test's own (net_support.h).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "tests/e2e/conformance.h"
#include "tests/e2e/net_support.h"

#define WHO_PORT 7
#define JUMBO_MTU 9000
#define AGAIN_MS 200

static struct vf_vmm_caps caps_of(const struct fixture *f)
{
    struct vf_vmm_caps caps;
    vf_vmm_find(f->t->driver)->capabilities(NULL, &caps);
    return caps;
}

static bool is_null(const struct fixture *f)
{
    return strcmp(f->t->driver, "null") == 0;
}

static struct vf_net_shape shape_for(const struct fixture *f)
{
    struct vf_net_shape shape = vf_net_shape_default;
    shape.tap.by_name = !caps_of(f).nic_fds;
    return shape;
}

/* Lasts until the slot's VM was created. */
struct loan {
    int netns;
};

static struct loan wire(struct sup_vm *v, struct vf_net *slot)
{
    struct vf_net_info info;
    vf_net_info(slot, &info);
    struct loan l = {open(info.netns_path, O_RDONLY | O_CLOEXEC)};
    struct vf_vm_nic *n = &v->cfg.nics[0];
    cr_assert_geq(l.netns, 0, "%s: %s", info.netns_path, strerror(errno));
    *n = (struct vf_vm_nic){.tap = info.n_tap_fds ? NULL : info.tap,
                            .tap_owned = true,
                            .n_fds = info.n_tap_fds,
                            .mtu = info.shape.mtu};
    for (int i = 0; i < n->n_fds; i++)
        n->fds[i] = info.tap_fds[i];
    memcpy(n->mac, info.shape.guest_mac.b, 6);
    v->cfg.n_nics = 1;
    v->cfg.vcpus = info.shape.tap.queues;
    v->cfg.has_netns = true;
    v->cfg.netns_fd = l.netns;
    return l;
}

static void create_in(struct sup_vm *v, struct vf_net *slot)
{
    struct loan l = wire(v, slot);
    sup_must(v, VF_VM_OP_CREATE, -1);
    vf_net_close_fds(slot);
    close(l.netns);
}

/* Its VMM is in the slot's namespace, and holds nothing of a namespace. */
static void must_be_inside(struct sup_vm *v, struct vf_net *slot)
{
    char path[64], fds[64], target[256];
    struct vf_net_info info;
    struct stat of_slot, of_vmm;
    struct vf_names names = {0};
    pid_t pid = vf_vm_info_of(v->vm)->pid;
    if (pid == 0) /* null has no process */
        return;
    vf_net_info(slot, &info);
    snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
    cr_assert_eq(stat(info.netns_path, &of_slot), 0);
    cr_assert_eq(stat(path, &of_vmm), 0);
    cr_assert_eq(of_slot.st_ino, of_vmm.st_ino, "%s runs in another namespace", v->name);

    snprintf(fds, sizeof(fds), "/proc/%d/fd", (int)pid);
    VF_CLEANUP_FD int dir = open(fds, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(vf_dir_names(dir, &names, NULL), 0);
    for (size_t i = 0; i < names.n; i++) {
        ssize_t n = readlinkat(dir, names.v[i], target, sizeof(target) - 1);
        target[n > 0 ? n : 0] = 0;
        cr_assert_null(strstr(target, "net:["), "descriptor %s is %s", names.v[i], target);
    }
    vf_names_free(&names);
}

/* Nor can it change what is around it. */
static void must_be_bound(const struct sup_vm *v)
{
    static const char *const sets[] = {"CapPrm:", "CapEff:", "CapBnd:", "CapInh:", "CapAmb:"};
    char path[64], *text;
    size_t len;
    pid_t pid = vf_vm_info_of(v->vm)->pid;
    if (pid == 0)
        return;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    cr_assert_eq(vf_read_file(AT_FDCWD, path, 65536, &text, &len, NULL), 0);
    for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
        const char *at = strstr(text, sets[i]);
        cr_assert_not_null(at);
        uint64_t set = strtoull(at + strlen(sets[i]), NULL, 16);
        uint64_t files = 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_DAC_READ_SEARCH;
        cr_assert_eq(set & ~files & ~(1ull << CAP_IPC_LOCK), 0, "%s %llx", sets[i],
                     (unsigned long long)set);
    }
    free(text);
}

static void must_give_back(struct vf_net *slot)
{
    struct vf_error e;
    cr_assert_eq(vf_net_give_back(slot, NULL, &e), 0, "%s (%s)", e.msg, e.hint);
}

/* ---- the guest's answers */

/* Its NIC is as wide as the slot. */
static void must_be_wide(struct sup_agent *a, const struct vf_net_shape *shape)
{
    static const char *const argv[] = {
        "/bin/sh", "-c", "cd /sys/class/net/eth0 && echo $(cat mtu) $(ls -d queues/rx-* | wc -l)",
        NULL};
    char out[64], want[64];
    cr_assert_eq(sup_agent_exec(a, argv, out, sizeof(out)), 0, "%s", out);
    snprintf(want, sizeof(want), "%d %d\n", shape->mtu, shape->tap.queues);
    cr_assert_str_eq(out, want);
}

/* A Linux guest listens on TCP; it was told to before it was saved. */
static void listen_in_linux(struct sup_agent *a)
{
    static const char *const argv[] = {
        "/bin/sh", "-c",
        "exec 2>&1; (setsid nc -ll -p 7 -e /bin/cat /etc/machine-id </dev/null >/dev/null 2>&1 &)"
        "; for i in $(seq 200); do netstat -lnt | grep -q ':7 ' && exit 0; usleep 20000; done; "
        "exit 1",
        NULL};
    char out[256];
    cr_assert_eq(sup_agent_exec(a, argv, out, sizeof(out)), 0, "%s", out);
}

/* Says which guest this is, and where it is. */
static void renew(struct sup_agent *a, const uint8_t machine_id[16], int mtu)
{
    uint8_t ipv4[9], ipv6[33];
    memcpy(ipv4, vf_inside.guest4.b, 4);
    ipv4[4] = (uint8_t)vf_inside.bits4;
    memcpy(ipv4 + 5, vf_inside.gateway4.b, 4);
    memcpy(ipv6, vf_inside.guest6.b, 16);
    ipv6[16] = (uint8_t)vf_inside.bits6;
    memcpy(ipv6 + 17, vf_inside.gateway6.b, 16);
    sup_agent_start(a, VF_MSG_RENEW);
    vf_wire_put(&a->w, VF_TAG_MACHINE_ID, machine_id, 16);
    vf_wire_put(&a->w, VF_TAG_MAC, vf_inside.guest_mac.b, 6);
    vf_wire_put(&a->w, VF_TAG_IPV4, ipv4, sizeof(ipv4));
    vf_wire_put(&a->w, VF_TAG_IPV6, ipv6, sizeof(ipv6));
    vf_wire_put_u32(&a->w, VF_TAG_MTU, (uint32_t)mtu);
    vf_wire_put(&a->w, VF_TAG_GATEWAY_MAC, vf_inside.gateway_mac.b, 6);
    cr_assert_eq(sup_agent_ask(a, SUP_LONG_MS), 0);
    cr_assert_eq(a->frame.type, VF_MSG_RENEW_OK, "RENEW is answered by type 0x%x", a->frame.type);
}

/* The first packet counts, with two exceptions: a tap that the VMM has just opened by its name is not up yet, and a tiny
 * guest serves the first of several queues only, which Cloud Hypervisor does not mind. Then it is asked again, from
 * another port and so by another queue; a late answer to an earlier question is as good.
 */
static void ask_udp(const struct vf_net_info *info, const struct vf_ip *to, const char *text,
                    char *ret, size_t size)
{
    int64_t deadline_us = vf_deadline_after_ms(NET_TIMEOUT_MS);
    bool again = info->shape.tap.by_name || info->shape.tap.queues > 1;
    struct pollfd asked[NET_TIMEOUT_MS / AGAIN_MS];
    nfds_t n = 0;
    const char *got = NULL;
    while (!got && n < NET_TIMEOUT_MS / AGAIN_MS && vf_deadline_left_ms(deadline_us) > 0) {
        int fd = net_udp(-1, to->family == AF_INET ? "0.0.0.0" : "::", 0);
        net_udp_send(fd, to, WHO_PORT, text);
        asked[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
        poll(asked, n, again ? AGAIN_MS : vf_deadline_left_ms(deadline_us));
        for (nfds_t i = 0; i < n && !got; i++)
            got = asked[i].revents ? net_udp_receive(asked[i].fd, 0, NULL, NULL) : NULL;
    }
    for (nfds_t i = 0; i < n; i++)
        close(asked[i].fd);
    cr_assert_not_null(got, "the guest does not answer");
    cr_assert_lt(strlen(got), size);
    strcpy(ret, got);
}

/* A packet as long as they may be goes there and comes back. */
static void must_echo(const struct vf_net_info *info, const struct vf_ip *to)
{
    char text[VF_MTU_MAX], got[VF_MTU_MAX];
    size_t len = (size_t)info->shape.mtu - (to->family == AF_INET ? 20 : 40) - 8;
    for (size_t i = 0; i < len; i++)
        text[i] = (char)('a' + i % 26);
    text[len] = 0;
    ask_udp(info, to, text, got, sizeof(got));
    cr_assert_str_eq(got, text);
}

static void ask_tcp(const struct vf_ip *to, char *ret, size_t size)
{
    int fd = net_tcp_connect(-1, to, WHO_PORT);
    cr_assert_geq(fd, 0, "%s", strerror(errno));
    ssize_t n = 1;
    size_t got = 0;
    while (n > 0 && got + 1 < size) {
        n = read(fd, ret + got, size - 1 - got);
        got += n > 0 ? (size_t)n : 0;
    }
    cr_assert_eq(n, 0, "the guest's answer has no end: %s", strerror(errno));
    ret[got] = 0;
    ret[strcspn(ret, "\n")] = 0;
    close(fd);
}

/* The guest at the slot's address is the one of this machine-id. */
static void must_be_reached(const struct fixture *f, struct vf_net *slot,
                            const uint8_t machine_id[16])
{
    char want[33], got[64];
    struct vf_net_info info;
    vf_net_info(slot, &info);
    for (int i = 0; i < 16; i++)
        snprintf(want + 2 * i, 3, "%02x", machine_id[i]);
    for (int i = 0; i < 2; i++) {
        const struct vf_ip *ip = i ? &info.host6 : &info.host4;
        cr_assert(ip->family);
        if (f->t->linux_guest)
            ask_tcp(ip, got, sizeof(got));
        else
            ask_udp(&info, ip, "who", got, sizeof(got));
        cr_assert_str_eq(got, want, "over IPv%d", i ? 6 : 4);
        if (!f->t->linux_guest)
            must_echo(&info, ip);
    }
}

/* ---- a template and its clones */

static void save_template(struct fixture *f, struct sup_vm *tpl, struct vf_net *slot, int dirfd)
{
    uint8_t id[16];
    struct sup_hello hello;
    struct vf_net_info info;
    vf_random(id, sizeof(id));
    create_in(tpl, slot);
    must_be_inside(tpl, slot);
    must_be_bound(tpl);
    sup_must(tpl, VF_VM_OP_START, -1);
    struct sup_agent *a = sup_agent_open(tpl);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0, "the guest never answered");
    cr_assert(hello.features & VF_FEATURE_NET, "the guest has found no NIC");
    vf_net_info(slot, &info);
    if (f->t->linux_guest)
        must_be_wide(a, &info.shape); /* by the VMM alone */
    renew(a, id, info.shape.mtu);
    if (f->t->linux_guest)
        listen_in_linux(a);
    if (!is_null(f))
        must_be_reached(f, slot, id);
    sup_agent_start(a, VF_MSG_FREEZE);
    cr_assert_eq(sup_agent_ask(a, SUP_LONG_MS), 0);
    sup_must(tpl, VF_VM_OP_PAUSE, -1);
    sup_must(tpl, VF_VM_OP_SAVE, dirfd);
    sup_agent_close(a);
    sup_vm_stop(tpl, 0);
}

static void chain(struct fixture *f, const struct vf_net_shape *shape)
{
    struct net n;
    struct vf_net *slot[3];
    struct sup_vm *c[2];
    uint8_t id[2][16];
    struct sup_hello hello;
    struct vf_error e;
    net_open(&n, "conformance_net", f->t->name);
    for (int i = 0; i < 3; i++)
        slot[i] = net_slot_of(&n, shape);
    int dirfd = sup_dir(&f->s, "generation");
    struct sup_vm *tpl = ready_for(f, VF_VM_OP_CREATE);
    save_template(f, tpl, slot[0], dirfd);
    must_give_back(slot[0]);

    for (int k = 0; k < 2; k++) {
        c[k] = sup_vm_clone_of(&f->s, tpl, k ? "clone1" : "clone0");
        create_in(c[k], slot[k + 1]);
        must_be_inside(c[k], slot[k + 1]);
        must_be_bound(c[k]);
    }
    for (int k = 0; k < 2; k++)
        cr_assert_eq(sup_try(c[k], VF_VM_OP_RESTORE, dirfd, SUP_LONG_MS, &e), 0, "%s", e.msg);
    for (int k = 0; k < 2; k++)
        cr_assert_eq(sup_wait(c[k]), VF_OK, "%s (%s)", c[k]->op.err.msg, c[k]->op.err.hint);
    for (int k = 0; k < 2; k++) {
        sup_must(c[k], VF_VM_OP_RESUME, -1);
        struct sup_agent *a = sup_agent_open(c[k]);
        cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0, "clone %d is silent", k);
        vf_random(id[k], sizeof(id[k]));
        renew(a, id[k], shape->mtu);
        sup_agent_close(a);
    }
    for (int k = 0; k < 2 && !is_null(f); k++)
        must_be_reached(f, slot[k + 1], id[k]);
    for (int k = 0; k < 2; k++) {
        sup_vm_stop(c[k], 0);
        must_give_back(slot[k + 1]);
    }
    close(dirfd);
    net_close(&n);
}

static void net_slots(struct fixture *f)
{
    struct vf_net_shape shape = shape_for(f);
    chain(f, &shape);
}
FOR_EACH_TINY(net_slots)

/* As wide as a NIC can be here, with long packets. */
static void net_wide_slots(struct fixture *f)
{
    struct vf_net_shape shape = shape_for(f);
    shape.mtu = JUMBO_MTU;
    shape.tap.queues = caps_of(f).nic_queues < 2 ? 1 : 2;
    chain(f, &shape);
}
FOR_EACH_TARGET(net_wide_slots)

/* ---- what is no network */

static void must_refuse(struct fixture *f, const struct vf_vm_nic *nic, const char *words)
{
    struct vf_error e;
    struct sup_vm *v = ready_for(f, VF_VM_OP_CREATE);
    v->cfg.n_nics = 1;
    v->cfg.nics[0] = *nic;
    cr_assert_neq(sup_try(v, VF_VM_OP_CREATE, -1, 0, &e), 0, "%s", words);
    cr_assert(strstr(e.msg, words), "%s: %s", words, e.msg);
    cr_assert(e.code == VF_INVALID_ARGUMENT || e.code == VF_UNSUPPORTED, "%s", e.msg);
    cr_assert_eq(sup_count_files(v->dirfd), 0);
    sup_vm_stop(v, 0);
    cr_assert_eq(sup_count_children(), 0);
}

static void net_bad_descriptors(struct fixture *f)
{
    net_enter("conformance_net", f->t->name);
    const int many = NET_TAP | IFF_MULTI_QUEUE;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), plain = net_tap("plain", IFF_TAP | IFF_NO_PI);
    int single = net_tap("single", NET_TAP),
        wide[2] = {net_tap("wide", many), net_tap("wide", many)};
    int other = net_tap("other", many), closed = dup(null);
    close(closed);
    if (!caps_of(f).nic_fds) {
        struct vf_vm_nic nic = {.fds = {single}, .n_fds = 1};
        must_refuse(f, &nic, "takes a tap by its name only");
    } else {
        const struct {
            struct vf_vm_nic nic;
            const char *words;
        } cases[] = {
            {{.fds = {closed}, .n_fds = 1}, "nics[0].fds[0]: "},
            {{.fds = {-1}, .n_fds = 1}, "nics[0].fds[0]: -1 is no open descriptor"},
            {{.fds = {null}, .n_fds = 1}, "nics[0].fds[0]: is no descriptor of a tap"},
            {{.fds = {plain}, .n_fds = 1}, "tap plain has no virtio-net header"},
            {{.fds = {single, wide[0]}, .n_fds = 2}, "fds[1]: is of tap wide, not of single"},
            {{.fds = {wide[0], other}, .n_fds = 2}, "fds[1]: is of tap other, not of wide"},
            {{.fds = {single, single}, .n_fds = 2}, "fds[1]: is the same queue of tap single"},
            {{.fds = {wide[0]}, .n_fds = -1}, "nics[0]: -1 queue pairs"},
            {{.n_fds = VF_VM_MAX_QUEUE_PAIRS + 1}, "nics[0]: 9 queue pairs"},
            {{.fds = {single}, .n_fds = 1, .mtu = 67}, "nics[0].mtu: 67"},
            {{.fds = {single}, .n_fds = 1, .mtu = 65536}, "nics[0].mtu: 65536"},
        };
        for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
            must_refuse(f, &cases[i].nic, cases[i].words);
    }
    close(null);
    close(plain);
    close(single);
    close(wide[0]);
    close(wide[1]);
    close(other);
}
FOR_EACH_TINY(net_bad_descriptors)

/* By its name, a tap is the VMM's to open: its words are what is told. */
static void net_tap_in_use(struct fixture *f)
{
    if (is_null(f))
        sup_skip("conformance_net", f->t->name, "opens no tap");
    net_enter("conformance_net", f->t->name);
    int held = net_tap("busy", NET_TAP);
    struct sup_vm *v = ready_for(f, VF_VM_OP_CREATE);
    v->cfg.n_nics = 1;
    v->cfg.nics[0] = (struct vf_vm_nic){.tap = "busy"};
    memcpy(v->cfg.nics[0].mac, vf_inside.guest_mac.b, 6);
    enum vf_code code = sup_do(v, VF_VM_OP_CREATE, -1, 0);
    if (code == VF_OK) /* a configuration is tried late */
        code = sup_do(v, VF_VM_OP_START, -1, 0);
    cr_assert(code == VF_VMM_DIED || code == VF_VMM_FAILED, "%s: %s", vf_code_name(code),
              v->op.err.msg);
    cr_assert(strstr(v->op.err.msg, "busy") || strstr(v->op.err.hint, "busy"), "%s (%s)",
              v->op.err.msg, v->op.err.hint);
    sup_vm_stop(v, 0);
    cr_assert_eq(sup_count_children(), 0);
    close(held);
}
FOR_EACH_TINY(net_tap_in_use)

/* A template without a network of its own, where the VMM can have such a NIC: its clones come into networks. */
static void net_bare(struct fixture *f)
{
    struct net n;
    struct sup_hello hello;
    struct vf_net_shape shape = shape_for(f);
    uint8_t id[16];
    if (!caps_of(f).nic_bare)
        sup_skip("conformance_net", f->t->name, "has no NIC without a tap");
    net_open(&n, "conformance_net", f->t->name);
    int dirfd = sup_dir(&f->s, "generation");
    struct sup_vm *tpl = ready_for(f, VF_VM_OP_CREATE);
    tpl->cfg.n_nics = 1;
    tpl->cfg.nics[0] = (struct vf_vm_nic){.mtu = shape.mtu};
    memcpy(tpl->cfg.nics[0].mac, shape.guest_mac.b, 6);
    sup_must(tpl, VF_VM_OP_CREATE, -1);
    sup_must(tpl, VF_VM_OP_START, -1);
    struct sup_agent *a = sup_agent_open(tpl);
    cr_assert_eq(sup_agent_hello(a, SUP_LONG_MS, &hello), 0, "the guest never answered");
    cr_assert(hello.features & VF_FEATURE_NET, "the guest has found no NIC");
    vf_random(id, sizeof(id));
    renew(a, id, shape.mtu);
    if (f->t->linux_guest)
        listen_in_linux(a);
    sup_agent_close(a);
    sup_must(tpl, VF_VM_OP_PAUSE, -1);
    sup_must(tpl, VF_VM_OP_SAVE, dirfd);
    sup_vm_stop(tpl, 0);

    struct vf_net *slot = net_slot_of(&n, &shape);
    struct sup_vm *c = sup_vm_clone_of(&f->s, tpl, "clone");
    create_in(c, slot);
    sup_must(c, VF_VM_OP_RESTORE, dirfd);
    sup_must(c, VF_VM_OP_RESUME, -1);
    if (!is_null(f))
        must_be_reached(f, slot, id);
    sup_vm_stop(c, 0);
    must_give_back(slot);
    close(dirfd);
    net_close(&n);
}
FOR_EACH_TARGET(net_bare)

static void net_bad_namespaces(struct fixture *f)
{
    net_enter("conformance_net", f->t->name);
    const int fds[] = {-1, open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC),
                       open("/dev/null", O_RDONLY | O_CLOEXEC)};
    for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
        struct vf_error e;
        struct sup_vm *v = ready_for(f, VF_VM_OP_CREATE);
        v->cfg.has_netns = true;
        v->cfg.netns_fd = fds[i];
        cr_assert_eq(sup_try(v, VF_VM_OP_CREATE, -1, 0, &e), vf_code_errno(VF_INVALID_ARGUMENT));
        cr_assert(strstr(e.msg, "netns_fd: "), "%s", e.msg);
        cr_assert(strstr(e.msg, "is no network namespace"), "%s", e.msg);
        cr_assert_eq(sup_count_files(v->dirfd), 0);
        sup_vm_stop(v, 0);
        close(fds[i]);
    }
}
FOR_EACH_TINY(net_bad_namespaces)

/* A clone that is not as wide as what was saved: an error, in time, and its slot is as good as before. */
static void net_other_shape(struct fixture *f)
{
    struct net n;
    struct vf_net_shape shape = shape_for(f), wide = shape;
    wide.tap.queues = 2;
    if (is_null(f) || caps_of(f).nic_queues < 2)
        sup_skip("conformance_net", f->t->name, "has no NIC of several queues");
    net_open(&n, "conformance_net", f->t->name);
    struct vf_net *slot = net_slot_of(&n, &shape);
    int dirfd = sup_dir(&f->s, "generation");
    struct sup_vm *tpl = ready_for(f, VF_VM_OP_CREATE);
    save_template(f, tpl, slot, dirfd);
    must_give_back(slot);

    slot = net_slot_of(&n, &wide);
    struct sup_vm *c = sup_vm_clone_of(&f->s, tpl, "clone");
    struct loan l = wire(c, slot);
    if (strcmp(f->t->driver, "qemu") == 0)
        c->cfg.vcpus = 1; /* the NIC alone differs */
    sup_must(c, VF_VM_OP_CREATE, -1);
    vf_net_close_fds(slot);
    close(l.netns);
    enum vf_code code = sup_do(c, VF_VM_OP_RESTORE, dirfd, 0);
    cr_assert(code == VF_INVALID_ARGUMENT || code == VF_VMM_DIED || code == VF_VMM_FAILED, "%s: %s",
              vf_code_name(code), c->op.err.msg);
    sup_vm_stop(c, 0);
    cr_assert_eq(sup_count_children(), 0);
    must_give_back(slot);
    close(dirfd);
    net_close(&n);
}
FOR_EACH_TINY(net_other_shape)

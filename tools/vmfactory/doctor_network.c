/* doctor's checks of what networks for VMs need: privileges, /dev/net/tun, the kernel's parts, forwarding. Nothing is made
 * or loaded to find out, so what can't be seen that way is skipped, with the reason.
 *
 * Without networks VMs of mode none work all the same: so nothing here is bad.
 */
#include "tools/vmfactory/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "base/fd.h"

#define MODULES_MAX (4 << 20) /* bytes of a list of modules */
#define ANSWER_MS 1000

/* ---- who would do it: the daemon that runs, or somebody like this user */

struct who {
    bool daemon;
    long pid;
    char status[4096]; /* of /proc; "": it can't be read */
};

static void find_who(struct vf_cli *cli, struct who *ret)
{
    struct vf_json *j = vf_doctor_ask(cli, "/v1/version");
    char path[64];

    ret->daemon = j != NULL;
    ret->pid = (long)vf_json_int(vf_json_get(j, "pid"), 0);
    vf_json_delete(j);
    if (ret->daemon)
        snprintf(path, sizeof(path), "/proc/%ld/status", ret->pid);
    else
        snprintf(path, sizeof(path), "/proc/self/status");
    vf_doctor_read_proc(path, ret->status, sizeof(ret->status));
}

bool vf_doctor_has_cap(const char *status, int cap)
{
    const char *at = strstr(status, "\nCapEff:");

    return at != NULL && (strtoull(at + strlen("\nCapEff:"), NULL, 16) >> cap & 1) != 0;
}

static bool privileged(const struct who *w)
{
    return vf_doctor_has_cap(w->status, CAP_NET_ADMIN) &&
           vf_doctor_has_cap(w->status, CAP_SYS_ADMIN);
}

/* Whether networks are switched off by the daemon's setting. */
static bool switched_off(struct vf_cli *cli)
{
    char wanted[16] = "";

    return vf_doctor_setting(cli, "network", wanted, sizeof(wanted)) && strcmp(wanted, "off") == 0;
}

/* Namespaces are kept as mounts: in a mount namespace of the daemon's own nobody else sees them, this command neither. */
static bool has_own_mounts(long pid)
{
    char path[64], its[64], ours[64];
    ssize_t n, m;

    snprintf(path, sizeof(path), "/proc/%ld/ns/mnt", pid);
    n = readlink(path, its, sizeof(its));
    m = readlink("/proc/self/ns/mnt", ours, sizeof(ours));
    return n > 0 && m > 0 && (n != m || memcmp(its, ours, (size_t)n) != 0);
}

static void look_privileges(struct vf_cli *cli, struct vf_finding *ret)
{
    struct who w;

    if (switched_off(cli)) {
        vf_find(ret, VF_FINDING_SKIPPED, NULL,
                "networks: the setting network is \"off\", so VMs have mode none");
        return;
    }
    find_who(cli, &w);
    if (w.status[0] == '\0')
        vf_find(ret, VF_FINDING_SKIPPED, NULL,
                "/proc/%ld/status can't be read, so what vmfactoryd may do can't be told", w.pid);
    else if (!privileged(&w))
        vf_find(ret, VF_FINDING_WARN, "run vmfactoryd as root (its unit has both), or live without",
                "%s lacks CAP_NET_ADMIN or CAP_SYS_ADMIN: VMs can't have networks, mode none works",
                w.daemon ? "vmfactoryd" : "this user");
    else if (w.daemon && has_own_mounts(w.pid))
        vf_find(ret, VF_FINDING_WARN,
                "take what gives it one out of the unit; docs/operations.md has the list",
                "vmfactoryd runs in another mount namespace than this command: if it is not the "
                "host's, nobody else sees the VMs' network namespaces");
    else
        vf_find(ret, VF_FINDING_OK, NULL, "%s has CAP_NET_ADMIN and CAP_SYS_ADMIN",
                w.daemon ? "vmfactoryd" : "this user");
}

/* What the daemon found out at its start. Of a bridge only if there is to be one. */
void vf_doctor_judge_modes(const struct vf_json *settings, bool has_bridge, struct vf_finding *ret)
{
    static const char *const modes[] = {"nat", "bridge"};
    const struct vf_json *all = vf_json_get(settings, "networks");

    if (!vf_json_is_object(all))
        return; /* an older daemon does not tell */
    for (int i = 0; i < (has_bridge ? 2 : 1); i++) {
        const struct vf_json *mode = vf_json_get(all, modes[i]);
        const struct vf_json *reason = vf_json_get(mode, "reason");

        if (vf_json_bool(vf_json_get(mode, "available"), false))
            continue;
        vf_find(ret, VF_FINDING_WARN, vf_json_str(vf_json_get(reason, "hint"), NULL),
                "vmfactoryd refuses the mode %s: %s", modes[i],
                vf_json_str(vf_json_get(reason, "message"), "it does not say why"));
        return;
    }
    vf_find(ret, VF_FINDING_OK, NULL, "vmfactoryd has the mode nat%s",
            has_bridge ? " and the mode bridge" : "");
}

static void look_modes(struct vf_cli *cli, struct vf_finding *ret)
{
    struct vf_json *j = switched_off(cli) ? NULL : vf_doctor_ask(cli, "/v1/settings");
    char bridge[64] = "";

    ret->verdict = VF_FINDING_SKIPPED;
    if (j == NULL)
        return;
    vf_doctor_setting(cli, "network_bridge", bridge, sizeof(bridge));
    vf_doctor_judge_modes(j, bridge[0] != '\0', ret);
    vf_json_delete(j);
}

static void look_tun(struct vf_cli *cli, struct vf_finding *ret)
{
    VF_CLEANUP_FD int fd = -1;

    if (switched_off(cli)) {
        ret->verdict = VF_FINDING_SKIPPED;
        return;
    }
    /* An interface is made by an ioctl, not by this. */
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        vf_find(ret, VF_FINDING_OK, NULL, "/dev/net/tun opens");
    else if ((errno == EACCES || errno == EPERM) && geteuid() != 0)
        vf_find(ret, VF_FINDING_SKIPPED, NULL,
                "this user may not open /dev/net/tun; run doctor as root to see if vmfactoryd can");
    else
        vf_find(ret, VF_FINDING_WARN,
                "modprobe tun; in a container, give it the device /dev/net/tun",
                "/dev/net/tun: %s; VMs can't have networks", strerror(errno));
}

/* ---- the kernel's parts */

/* nft_chain_nat and nft-chain-nat are one name. */
static bool same_name(const char *at, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((at[i] == '-' ? '_' : at[i]) != name[i])
            return false;
    return strncmp(at + len, ".ko", 3) == 0;
}

bool vf_doctor_lists_module(const char *text, const char *name)
{
    size_t len = strlen(name);

    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *end = strpbrk(line, ":\n"), *at = end != NULL ? end : line + strlen(line);

        while (at > line && at[-1] != '/')
            at--;
        if (same_name(at, name, len))
            return true;
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return false;
}

/* The kernel's lists of modules; NULL if there is none. */
static char *read_list(const char *release, const char *list)
{
    char path[200], *text = NULL;
    size_t len;

    snprintf(path, sizeof(path), "/lib/modules/%.100s/%s", release, list);
    if (vf_read_file(AT_FDCWD, path, MODULES_MAX, &text, &len, NULL) < 0)
        return NULL;
    return text;
}

static bool is_loaded(const char *module)
{
    char path[100];

    snprintf(path, sizeof(path), "/sys/module/%s", module);
    return access(path, F_OK) == 0;
}

/* Asks for the number of nftables' changes, which has no consequence. Only the privileged are answered. */
static bool nf_tables_answers(void)
{
    struct {
        struct nlmsghdr head;
        struct nfgenmsg gen;
    } ask = {.head = {.nlmsg_len = sizeof(ask),
                      .nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN,
                      .nlmsg_flags = NLM_F_REQUEST}};
    VF_CLEANUP_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    struct timeval timeout = {.tv_sec = ANSWER_MS / 1000};
    union {
        struct nlmsghdr head;
        char b[1024];
    } answer;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
        send(fd, &ask, sizeof(ask), 0) < 0)
        return false;
    return recv(fd, &answer, sizeof(answer), 0) >= (ssize_t)sizeof(answer.head) &&
           answer.head.nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN);
}

/* What no version of the kernel has had built into something else. */
static const char *const parts[] = {"veth", "nf_tables", "nf_conntrack", "nf_nat", NULL};

/* Names of the parts that are neither there nor can be loaded. */
static void find_missing(const char *builtin, const char *loadable, char *buf, size_t size)
{
    size_t len = 0;

    buf[0] = '\0';
    for (int i = 0; parts[i] != NULL; i++)
        if (!is_loaded(parts[i]) &&
            !(builtin != NULL && vf_doctor_lists_module(builtin, parts[i])) &&
            !(loadable != NULL && vf_doctor_lists_module(loadable, parts[i])))
            len += (size_t)snprintf(buf + len, size - len, "%s%s", len > 0 ? ", " : "", parts[i]);
}

static void look_kernel_parts(struct vf_cli *cli, struct vf_finding *ret)
{
    VF_CLEANUP_FREE char *builtin = NULL, *loadable = NULL;
    char missing[100];
    struct utsname u;

    if (switched_off(cli) || uname(&u) != 0) {
        ret->verdict = VF_FINDING_SKIPPED;
        return;
    }
    builtin = read_list(u.release, "modules.builtin");
    loadable = read_list(u.release, "modules.dep");
    find_missing(builtin, loadable, missing, sizeof(missing));
    if (missing[0] == '\0')
        vf_find(ret, VF_FINDING_OK, NULL, "has nftables, connection tracking, NAT and veth");
    else if (builtin != NULL || loadable != NULL)
        vf_find(ret, VF_FINDING_WARN,
                "use a kernel with CONFIG_NF_TABLES, CONFIG_NF_CONNTRACK, CONFIG_NF_NAT and "
                "CONFIG_VETH, or install its package of modules",
                "lacks %s: VMs can't have networks", missing);
    else if (nf_tables_answers()) /* nothing could be loaded by asking */
        vf_find(ret, VF_FINDING_OK, NULL,
                "has nftables; without /lib/modules/%.64s the rest can't be told", u.release);
    else
        vf_find(ret, VF_FINDING_SKIPPED, NULL,
                "without /lib/modules/%.64s, its parts can't be told; vmfactoryd's log says at its "
                "start if one is missing",
                u.release);
}

/* ---- forwarding */

/* "1", "0", "" if there is no such family. */
static bool forwards(const char *path, bool *ret_there)
{
    char text[16];

    vf_doctor_read_proc(path, text, sizeof(text));
    *ret_there = text[0] != '\0';
    return text[0] != '\0' && text[0] != '0';
}

static void look_forwarding(struct vf_cli *cli, struct vf_finding *ret)
{
    bool there4, there6, on4 = forwards("/proc/sys/net/ipv4/ip_forward", &there4);
    bool on6 = forwards("/proc/sys/net/ipv6/conf/all/forwarding", &there6);

    if (switched_off(cli)) {
        ret->verdict = VF_FINDING_SKIPPED;
        return;
    }
    if (on4 && (on6 || !there6))
        vf_find(ret, VF_FINDING_OK, NULL, "IPv4%s", there6 ? " and IPv6" : "; there is no IPv6");
    else
        vf_find(ret, VF_FINDING_WARN,
                "in a file of /etc/sysctl.d: net.ipv4.ip_forward=1, "
                "net.ipv6.conf.all.forwarding=1, then sysctl --system; or set network_forwarding "
                "and restart vmfactoryd",
                "the host does not forward %s: VMs of mode nat reach nothing",
                on4      ? "IPv6"
                : on6    ? "IPv4"
                : there6 ? "IPv4 and IPv6"
                         : "IPv4");
}

const struct vf_check vf_network_checks[] = {
    {"networks", look_privileges},
    {"modes", look_modes},
    {"tun", look_tun},
    {"net kernel", look_kernel_parts},
    {"forwarding", look_forwarding},
    {"namespaces", vf_doctor_look_namespaces},
    {"prefixes", vf_doctor_look_prefixes},
    {NULL, NULL},
};

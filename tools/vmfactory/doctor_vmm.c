/* doctor's checks of the VMMs: which program each is, from where, and whether it can run, save and restore here.
 *
 *     default class's pinned asset, else the daemon's setting, else PATH -> --version -> what it needs of KVM
 *
 * Without a daemon only PATH is known. A VMM that is not there is no fault, unless none is.
 */
#include "tools/vmfactory/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"

#define ANSWER_MS 5000
#define DEFAULT_RUN_DIR "/run/vmfactory"
/* What stands behind the run directory in the path of a VM's socket, and what a socket's path may take. */
#define SOCKET_TAIL "/vms/0123456789ab/vsock.sock_65535"
#define SOCKET_PATH_MAX 107

struct vmm {
    const char *name;    /* of specs and classes */
    const char *title;   /* as it says itself in --version */
    const char *setting; /* of the daemon */
    const char *program; /* on PATH; with %s: the machine */
    const char *get;     /* how to get it */
};

static const struct vmm qemu = {"qemu", "QEMU", "qemu", "qemu-system-%s",
                                "apt-get install qemu-system-x86"};
static const struct vmm cloud_hypervisor = {
    "cloud-hypervisor", "Cloud Hypervisor", "cloud_hypervisor", "cloud-hypervisor",
    "put cloud-hypervisor on PATH, set cloud_hypervisor, or pin it: docs/operations.md"};
static const struct vmm firecracker = {
    "firecracker", "Firecracker", "firecracker", "firecracker",
    "put firecracker on PATH, set firecracker, or pin it: docs/operations.md"};

struct found {
    char path[PATH_MAX];
    char from[120]; /* "on PATH", "setting qemu", "asset ch of class prod" */
    char version[32];
    char missing[120]; /* the default class pins an asset that is not fetched: its name */
    int major, minor;
};

/* ---- what the daemon knows */

struct vf_json *vf_doctor_ask(struct vf_cli *cli, const char *path)
{
    struct vmfactory_response answer;
    struct vf_json *j;

    if (cli->h == NULL && vmfactory_connect(cli->args.socket, &cli->h, NULL) < 0)
        return NULL;
    if (vmfactory_request(cli->h, "GET", path, NULL, 0, &answer, NULL) < 0)
        return NULL;
    j = vf_json_parse(answer.body, answer.len);
    vmfactory_response_free(&answer);
    return j;
}

static const struct vf_json *named(const struct vf_json *list, const char *name)
{
    const struct vf_json *item;

    for (size_t i = 0; (item = vf_json_at(list, i)) != NULL; i++)
        if (strcmp(vf_json_str(vf_json_get(item, "name"), ""), name) == 0)
            return item;
    return NULL;
}

bool vf_doctor_setting(struct vf_cli *cli, const char *name, char *buf, size_t size)
{
    struct vf_json *j = vf_doctor_ask(cli, "/v1/settings");
    const struct vf_json *s = named(vf_json_get(j, "settings"), name);

    if (s != NULL)
        snprintf(buf, size, "%s", vf_json_str(vf_json_get(s, "value"), ""));
    vf_json_delete(j);
    return s != NULL;
}

/* The asset that the VMM's default class pins as its program: its path in the store. */
static void pinned(struct vf_cli *cli, const struct vmm *v, struct found *ret)
{
    struct vf_json *classes = vf_doctor_ask(cli, "/v1/classes"), *asset = NULL;
    const struct vf_json *c, *here;
    const char *name = NULL;
    struct utsname u;

    if (uname(&u) != 0)
        u.machine[0] = '\0';
    for (size_t i = 0; (c = vf_json_at(vf_json_get(classes, "classes"), i)) != NULL; i++)
        if (strcmp(vf_json_str(vf_json_get(c, "vmm"), ""), v->name) == 0 &&
            vf_json_bool(vf_json_get(c, "default"), false))
            break;
    here = vf_json_get(vf_json_get(vf_json_get(c, "definition"), "assets"), u.machine);
    name = vf_json_str(vf_json_get(here, "vmm"), NULL);
    if (name != NULL) {
        VF_CLEANUP_FREE char *path = vmfactory_path("/v1/assets/", name, "");
        const char *file;

        asset = path != NULL ? vf_doctor_ask(cli, path) : NULL;
        file = vf_json_str(vf_json_get(vf_json_get(asset, "here"), "path"), NULL);
        if (file != NULL)
            snprintf(ret->path, sizeof(ret->path), "%s", file);
        else
            snprintf(ret->missing, sizeof(ret->missing), "%s", name);
        snprintf(ret->from, sizeof(ret->from), "asset %.48s of class %.48s", name,
                 vf_json_str(vf_json_get(c, "name"), "?"));
    }
    vf_json_delete(asset);
    vf_json_delete(classes);
}

/* ---- the program */

static bool on_path(const char *program, char *ret, size_t size)
{
    const char *p = getenv("PATH");

    for (p = p != NULL ? p : ""; *p != '\0'; p += *p == ':') {
        int n = (int)strcspn(p, ":");

        snprintf(ret, size, "%.*s/%s", n, p, program);
        if (n > 0 && access(ret, X_OK) == 0)
            return true;
        p += n;
    }
    ret[0] = '\0';
    return false;
}

/* What PATH --version prints; "" if it says nothing in time. */
static void ask_version(const char *path, char *buf, size_t size)
{
    char *const argv[] = {(char *)path, "--version", NULL};
    int64_t deadline_us = vf_deadline_after_ms(ANSWER_MS);
    posix_spawn_file_actions_t files;
    extern char **environ;
    int fds[2];
    pid_t pid;
    size_t n = 0;

    buf[0] = '\0';
    if (pipe2(fds, O_CLOEXEC) != 0)
        return;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, fds[1], 1);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    bool runs = posix_spawn(&pid, path, &files, NULL, argv, environ) == 0;
    posix_spawn_file_actions_destroy(&files);
    close(fds[1]);
    while (runs && n < size - 1) {
        struct pollfd p = {.fd = fds[0], .events = POLLIN};
        ssize_t got;

        if (poll(&p, 1, vf_deadline_left_ms(deadline_us)) <= 0)
            break;
        got = read(fds[0], buf + n, size - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    buf[n] = '\0';
    close(fds[0]);
    if (runs) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

bool vf_doctor_version(const char *text, char *ret, size_t size, int *ret_major, int *ret_minor)
{
    const char *at = strpbrk(text, "0123456789"), *line = text + strcspn(text, "\n");
    int n;

    if (at == NULL || at >= line || sscanf(at, "%d.%d", ret_major, ret_minor) != 2)
        return false;
    n = (int)strspn(at, "0123456789.");
    while (n > 0 && at[n - 1] == '.')
        n--;
    snprintf(ret, size, "%.*s", n < 30 ? n : 30, at);
    return true;
}

/* false: there is none. */
static bool find(struct vf_cli *cli, const struct vmm *v, struct found *ret)
{
    char text[1024], program[100] = "";
    const char *wildcard = strchr(v->program, '%');
    struct utsname u;

    *ret = (struct found){0};
    if (wildcard != NULL && uname(&u) == 0)
        snprintf(program, sizeof(program), "%.*s%s", (int)(wildcard - v->program), v->program,
                 u.machine);
    pinned(cli, v, ret);
    if (ret->from[0] == '\0') {
        vf_doctor_setting(cli, v->setting, ret->path, sizeof(ret->path));
        snprintf(ret->from, sizeof(ret->from), "setting %s", v->setting);
    }
    if (ret->path[0] == '\0' && ret->missing[0] == '\0' &&
        on_path(wildcard != NULL ? program : v->program, ret->path, sizeof(ret->path)))
        snprintf(ret->from, sizeof(ret->from), "on PATH");
    if (ret->path[0] == '\0')
        return ret->missing[0] != '\0';
    ask_version(ret->path, text, sizeof(text));
    vf_doctor_version(text, ret->version, sizeof(ret->version), &ret->major, &ret->minor);
    return true;
}

/* ---- KVM, as these VMMs need it */

struct kvm {
    bool makes_vms;    /* opens, and a VM with a CPU can be made */
    bool nested_state; /* KVM_GET_NESTED_STATE is answered */
    bool runs_linux;   /* the CPU shows vmx or svm (x86), or is no x86 */
    int error;
};

static void look_at_kvm(struct kvm *ret)
{
    VF_CLEANUP_FD int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1, vcpu = -1;
    char text[16384] = "";
    FILE *f = fopen("/proc/cpuinfo", "re");

    *ret = (struct kvm){.nested_state = true, .error = errno};
    if (f != NULL) {
        text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
        fclose(f);
    }
    ret->runs_linux = strstr(text, "\nflags") == NULL || vf_doctor_cpu_has(text, "vmx") ||
                      vf_doctor_cpu_has(text, "svm");
    if (kvm >= 0)
        vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm >= 0)
        vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    if (vcpu < 0) {
        ret->error = errno;
        return;
    }
    ret->makes_vms = true;
#ifdef KVM_GET_NESTED_STATE
    union {
        struct kvm_nested_state state;
        char room[16384];
    } nested = {.state.size = sizeof(nested)};
    /* Asked as Cloud Hypervisor asks when it saves and restores. */
    ret->nested_state = ioctl(vcpu, KVM_GET_NESTED_STATE, &nested) == 0 || errno != EINVAL;
#endif
}

/* One that has no emulation to fall back to. */
static void look_kvm_only(struct vf_cli *cli, const struct vmm *v, int min_major, int min_minor,
                          const char *why_min, struct vf_finding *ret)
{
    struct found f;
    struct kvm k;

    if (!find(cli, v, &f)) {
        vf_find(ret, VF_FINDING_OK, NULL, "not installed; only templates with vmm %s need it",
                v->name);
        return;
    }
    look_at_kvm(&k);
    if (f.missing[0] != '\0')
        vf_find(ret, VF_FINDING_WARN, "vmfactory asset fetch, with its name",
                "the default class's asset %s is not fetched", f.missing);
    else if (f.version[0] == '\0')
        vf_find(ret, VF_FINDING_WARN, v->get, "%s (%s) does not say its version", f.path, f.from);
    else if (f.major < min_major || (f.major == min_major && f.minor < min_minor))
        vf_find(ret, VF_FINDING_WARN, v->get, "%s %s at %s (%s) is too old: %d.%d is needed, %s",
                v->title, f.version, f.path, f.from, min_major, min_minor, why_min);
    else if (!k.makes_vms)
        vf_find(ret, VF_FINDING_WARN, "see kvm above; use vmm qemu, which emulates, until then",
                "%s %s at %s (%s) can't run: it needs KVM, and /dev/kvm: %s", v->title, f.version,
                f.path, f.from, strerror(k.error));
    else if (!k.nested_state && v == &cloud_hypervisor)
        vf_find(ret, VF_FINDING_WARN,
                "use a host whose KVM answers KVM_GET_NESTED_STATE, or vmm qemu or firecracker",
                "%s %s at %s (%s) boots VMs but neither saves nor restores them: this KVM has no "
                "nested state, which it asks for each time",
                v->title, f.version, f.path, f.from);
    else if (!k.runs_linux)
        vf_find(ret, VF_FINDING_WARN, "use a host whose CPU shows vmx or svm",
                "%s %s at %s (%s) runs no Linux guest here: see cpu above", v->title, f.version,
                f.path, f.from);
    else
        vf_find(ret, VF_FINDING_OK, NULL, "%s %s at %s (%s)", v->title, f.version, f.path, f.from);
}

static void look_cloud_hypervisor(struct vf_cli *cli, struct vf_finding *ret)
{
    look_kvm_only(cli, &cloud_hypervisor, 51, 0,
                  "which opens the template's memory for reading only", ret);
}

static void look_firecracker(struct vf_cli *cli, struct vf_finding *ret)
{
    look_kvm_only(cli, &firecracker, 1, 4, "which gives guests entropy of their own", ret);
}

static void look_qemu(struct vf_cli *cli, struct vf_finding *ret)
{
    struct found f, other;

    if (!find(cli, &qemu, &f)) {
        bool others = find(cli, &cloud_hypervisor, &other) || find(cli, &firecracker, &other);

        vf_find(ret, others ? VF_FINDING_WARN : VF_FINDING_BAD, qemu.get,
                others ? "not installed; specs run on QEMU unless they name another VMM or class"
                       : "no VMM at all: no QEMU, Cloud Hypervisor or Firecracker");
        return;
    }
    if (f.missing[0] != '\0')
        vf_find(ret, VF_FINDING_WARN, "vmfactory asset fetch, with its name",
                "the default class's asset %s is not fetched", f.missing);
    else if (f.version[0] == '\0')
        vf_find(ret, VF_FINDING_BAD, qemu.get, "%s (%s) does not say its version", f.path, f.from);
    else if (f.major < 7 || (f.major == 7 && f.minor < 2))
        vf_find(ret, VF_FINDING_BAD, qemu.get, "QEMU %s at %s (%s) is too old: 7.2 is needed",
                f.version, f.path, f.from);
    else
        vf_find(ret, VF_FINDING_OK, NULL, "QEMU %s at %s (%s)", f.version, f.path, f.from);
}

/* ---- what they need of the host besides */

static void look_userfaultfd(struct vf_cli *cli, struct vf_finding *ret)
{
    VF_CLEANUP_FD int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    int error = errno;

    (void)cli;
    /* KVM itself touches guest memory, so one for user mode only would not do. */
    if (fd < 0)
        fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        vf_find(ret, VF_FINDING_OK, NULL, "works");
    else
        vf_find(ret, VF_FINDING_OK, NULL,
                "%s; only Cloud Hypervisor restores that load memory on demand need it, and clones "
                "of templates do not",
                strerror(error));
}

void vf_doctor_run_dir(struct vf_cli *cli, char *buf, size_t size)
{
    struct vf_json *j = vf_doctor_ask(cli, "/v1/version");

    snprintf(buf, size, "%s", vf_json_str(vf_json_get(j, "run_dir"), DEFAULT_RUN_DIR));
    vf_json_delete(j);
}

static void look_run_dir(struct vf_cli *cli, struct vf_finding *ret)
{
    char path[PATH_MAX], dir[PATH_MAX];
    struct statfs s;
    int r;

    vf_doctor_run_dir(cli, path, sizeof(path));
    snprintf(dir, sizeof(dir), "%s", path);
    while ((r = statfs(dir, &s)) != 0 && errno == ENOENT && strrchr(dir, '/') > dir)
        *strrchr(dir, '/') = '\0'; /* not made yet: where it will be */
    if (r != 0)
        vf_find(ret, VF_FINDING_WARN, "make it, or set run_dir", "%s: %s", path, strerror(errno));
    else if (s.f_type != TMPFS_MAGIC && s.f_type != RAMFS_MAGIC)
        vf_find(ret, VF_FINDING_WARN, "set run_dir to a directory on a tmpfs, as /run is",
                "%s is on a disk: hand-outs wait for it, and so does the memory of templates that "
                "Cloud Hypervisor builds, which is a file there",
                path);
    else
        vf_find(ret, VF_FINDING_OK, NULL, "%s is in memory (tmpfs)", path);
}

static void look_vsock(struct vf_cli *cli, struct vf_finding *ret)
{
    char path[PATH_MAX];

    vf_doctor_run_dir(cli, path, sizeof(path));
    if (strlen(path) + strlen(SOCKET_TAIL) > SOCKET_PATH_MAX)
        vf_find(ret, VF_FINDING_WARN, "set run_dir to a shorter path",
                "%s is %zu bytes long: with more than %zu, the path of a VM's vsock is longer than "
                "a socket's may be",
                path, strlen(path), SOCKET_PATH_MAX - strlen(SOCKET_TAIL));
    else
        vf_find(ret, VF_FINDING_OK, NULL,
                "Cloud Hypervisor and Firecracker carry it over unix sockets: no /dev/vhost-vsock "
                "is needed");
}

const struct vf_check vf_vmm_checks[] = {
    {"qemu", look_qemu},
    {"cloud-hyp.", look_cloud_hypervisor},
    {"firecracker", look_firecracker},
    {"userfaultfd", look_userfaultfd},
    {"run dir", look_run_dir},
    {"vsock", look_vsock},
    {NULL, NULL},
};

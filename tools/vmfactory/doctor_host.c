/* doctor's checks of the host: what vmfactoryd and its VMMs need, tried rather than guessed where that is possible. */
#include "tools/vmfactory/doctor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "base/fd.h"
#include "tools/vmfactory/text.h"

#define KVM_API 12
#define MIN_FILES 4096
#define GUEST_DIR "/var/lib/vmfactory/guest"

void vf_doctor_read_proc(const char *path, char *buf, size_t size)
{
    FILE *f = fopen(path, "re");
    size_t n = f != NULL ? fread(buf, 1, size - 1, f) : 0;

    buf[n] = '\0';
    if (f != NULL)
        fclose(f);
}

static void look_kvm(struct vf_cli *cli, struct vf_finding *ret)
{
    VF_CLEANUP_FD int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1;

    (void)cli;
    if (kvm < 0 && (errno == EACCES || errno == EPERM)) {
        vf_find(ret, VF_FINDING_WARN, "usermod -aG kvm USER, then log in again",
                "/dev/kvm may not be opened by this user; VMs would run emulated, slowly");
        return;
    }
    if (kvm < 0) {
        vf_find(ret, VF_FINDING_WARN,
                "load kvm_intel or kvm_amd, switch virtualization on in the firmware, or use a "
                "host with it",
                "/dev/kvm: %s; VMs run emulated (TCG), slowly", strerror(errno));
        return;
    }
    if (ioctl(kvm, KVM_GET_API_VERSION, 0) == KVM_API)
        vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        vf_find(ret, VF_FINDING_WARN, "see dmesg; inside a VM, its host must allow nesting",
                "/dev/kvm opens but makes no VM: %s; VMs run emulated (TCG)", strerror(errno));
    else
        vf_find(ret, VF_FINDING_OK, NULL, "/dev/kvm makes VMs");
}

bool vf_doctor_cpu_has(const char *cpuinfo, const char *flag)
{
    const char *line = strstr(cpuinfo, "\nflags"), *at;
    size_t len = strlen(flag), line_len;

    if (line == NULL)
        return false;
    line_len = strcspn(line + 1, "\n") + 1;
    for (at = strstr(line, flag); at != NULL && at < line + line_len; at = strstr(at + 1, flag))
        if (at[-1] == ' ' && (at[len] == ' ' || at[len] == '\n' || at[len] == '\0'))
            return true;
    return false;
}

static void look_cpu(struct vf_cli *cli, struct vf_finding *ret)
{
    char text[16384];
    bool intel, amd;

    (void)cli;
    vf_doctor_read_proc("/proc/cpuinfo", text, sizeof(text));
    intel = vf_doctor_cpu_has(text, "vmx");
    amd = vf_doctor_cpu_has(text, "svm");
    if (intel || amd)
        vf_find(ret, VF_FINDING_OK, NULL, "shows %s", intel ? "vmx" : "svm");
    else
        vf_find(ret, VF_FINDING_WARN,
                "use a host whose CPU shows vmx or svm (for a VM: one that allows nesting)",
                "shows neither vmx nor svm: what KVM there is can't run Linux, so emulation (TCG) "
                "is used");
}

static void look_memory(struct vf_cli *cli, struct vf_finding *ret)
{
    const int64_t low_kib = 512 * 1024, little_kib = 2 * 1024 * 1024;
    char text[4096], total[VF_TEXT], available[VF_TEXT];
    const char *t, *a;
    int64_t total_kib, available_kib;

    (void)cli;
    vf_doctor_read_proc("/proc/meminfo", text, sizeof(text));
    t = strstr(text, "MemTotal:");
    a = strstr(text, "MemAvailable:");
    if (t == NULL || a == NULL) {
        vf_find(ret, VF_FINDING_WARN, "mount /proc", "/proc/meminfo can't be read");
        return;
    }
    total_kib = strtoll(t + strlen("MemTotal:"), NULL, 10);
    available_kib = strtoll(a + strlen("MemAvailable:"), NULL, 10);
    vf_find(ret,
            available_kib < low_kib      ? VF_FINDING_BAD
            : available_kib < little_kib ? VF_FINDING_WARN
                                         : VF_FINDING_OK,
            available_kib < little_kib ? "free some memory, or give the host more" : NULL,
            "%s available of %s", vf_text_bytes(available, available_kib * 1024),
            vf_text_bytes(total, total_kib * 1024));
}

double vf_doctor_psi_avg10(const char *text)
{
    const char *at = strstr(text, "some avg10=");

    return at != NULL ? strtod(at + strlen("some avg10="), NULL) : -1;
}

static void look_pressure(struct vf_cli *cli, struct vf_finding *ret)
{
    char text[512];
    double avg10;

    (void)cli;
    vf_doctor_read_proc("/proc/pressure/memory", text, sizeof(text));
    avg10 = vf_doctor_psi_avg10(text);
    if (avg10 < 0)
        vf_find(ret, VF_FINDING_WARN, "boot with psi=1 (kernel 4.20 or later)",
                "no /proc/pressure/memory: pools look at MemAvailable alone");
    else if (avg10 >= 10)
        vf_find(ret, VF_FINDING_WARN, "lower the pools' targets, or give the host more memory",
                "tasks waited for memory %.1f%% of the last 10 s: pools may pause refilling",
                avg10);
    else
        vf_find(ret, VF_FINDING_OK, NULL, "measured (PSI), %.1f%% in the last 10 s", avg10);
}

static void look_kernel(struct vf_cli *cli, struct vf_finding *ret)
{
    struct utsname u;
    int major = 0, minor = 0;

    (void)cli;
    if (uname(&u) != 0 || sscanf(u.release, "%d.%d", &major, &minor) != 2)
        vf_find(ret, VF_FINDING_WARN, "use Linux 5.6 or later", "its version can't be read");
    else if (major < 5 || (major == 5 && minor < 6))
        vf_find(ret, VF_FINDING_BAD, "use Linux 5.6 or later",
                "Linux %s is too old: pidfds are needed", u.release);
    else
        vf_find(ret, VF_FINDING_OK, NULL, "Linux %s", u.release);
}

static void look_memfd(struct vf_cli *cli, struct vf_finding *ret)
{
    VF_CLEANUP_FD int fd = memfd_create("vmfactory-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    (void)cli;
    if (fd < 0 || ftruncate(fd, 4096) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        vf_find(ret, VF_FINDING_BAD, "use a kernel with CONFIG_MEMFD_CREATE",
                "sealed memory files (memfd): %s", strerror(errno));
    else
        vf_find(ret, VF_FINDING_OK, NULL, "sealed memory files (memfd) work");
}

static void look_files(struct vf_cli *cli, struct vf_finding *ret)
{
    struct rlimit r;

    (void)cli;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0)
        vf_find(ret, VF_FINDING_WARN, "see ulimit -Hn", "the limit can't be read");
    else if (r.rlim_max < MIN_FILES)
        vf_find(ret, VF_FINDING_WARN, "raise it: LimitNOFILE= in the unit, or limits.conf",
                "a process may have %" PRIu64 " files open; each VM takes a few",
                (uint64_t)r.rlim_max);
    else
        vf_find(ret, VF_FINDING_OK, NULL, "a process may have %" PRIu64 " open",
                (uint64_t)r.rlim_max);
}

static void look_guest(struct vf_cli *cli, struct vf_finding *ret)
{
    static const char *const dirs[] = {GUEST_DIR, "build/guest"};

    (void)cli;
    for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        char kernel[100], initrd[100];

        snprintf(kernel, sizeof(kernel), "%s/vmlinuz", dirs[i]);
        snprintf(initrd, sizeof(initrd), "%s/initramfs.cpio", dirs[i]);
        if (access(kernel, R_OK) == 0 && access(initrd, R_OK) == 0) {
            vf_find(ret, VF_FINDING_OK, NULL, "kernel and initramfs in %s", dirs[i]);
            return;
        }
    }
    vf_find(ret, VF_FINDING_WARN,
            "lib/vmfactory/build-image --agent lib/vmfactory/vmfactory-agent --out " GUEST_DIR
            ", unless your specs name your own",
            "none in " GUEST_DIR);
}

const struct vf_check vf_host_checks[] = {
    {"kvm", look_kvm},
    {"cpu", look_cpu},
    {"memory", look_memory},
    {"pressure", look_pressure},
    {"kernel", look_kernel},
    {"memfd", look_memfd},
    {"open files", look_files},
    {"guest images", look_guest},
    {NULL, NULL},
};

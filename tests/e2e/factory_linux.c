/* The chain with Linux guests beyond the plain one: a root image under overlays, NICs, q35, and a host whose
 * KVM can't run Linux. factory_linux_faults.c has what goes wrong inside.
 */
#include "tests/e2e/factory_support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "vmm/vmm.h"

/* ---- a root image */

Test(factory_linux, root_image_and_overlays, .timeout = 240)
{
    static const char *const warm[] = {"/bin/sh", "-c", "echo warm > /warmed; sync", NULL};
    struct fac f;
    char path[600], base[2][65], overlay[2][65];
    FAC_LINUX_OR_SKIP("factory_linux", "root_image_and_overlays");
    const char *image = sup_guest_file("root.ext4");
    if (access(image, R_OK) < 0)
        sup_skip("factory_linux", "root_image_and_overlays", "%s: %s", image, strerror(errno));
    fac_open(&f, &(struct vf_sync_options){.trial_clones = 1});
    struct vf_spec spec = fac_linux("rooted", VF_ACCEL_TCG, NULL);
    fac_set_root(&spec, image);
    fac_add_warmup(&spec, warm);
    fac_file_digest(image, base[0]);
    struct vf_generation *gen = fac_build(&f, &spec);
    snprintf(path, sizeof(path), "%s/overlay.qcow2", gen->path);
    fac_file_digest(path, overlay[0]);

    struct vf_instance *vm[2] = {fac_clone(&f, gen), fac_clone(&f, gen)};
    fac_check_proof(&f, vm[0], gen);
    fac_check_differ(&f, vm, 2);
    for (int i = 0; i < 2; i++)
        cr_assert_str_eq(fac_sh(&f, vm[i], "cat /warmed"), "warm");
    fac_sh(&f, vm[0],
           "dd if=/dev/urandom of=/mine bs=1M count=4 2>/dev/null; "
           "echo changed > /warmed; sync; echo 3 > /proc/sys/vm/drop_caches");
    cr_assert_str_eq(fac_sh(&f, vm[0], "cat /warmed; wc -c < /mine"), "changed\n4194304");
    cr_assert_str_eq(fac_sh(&f, vm[1],
                            "echo 3 > /proc/sys/vm/drop_caches; cat /warmed; ls /mine 2>&1"
                            " | grep -c 'No such'"),
                     "warm\n1");
    for (int i = 0; i < 2; i++)
        fac_destroy(&f, vm[i]);
    vf_generation_unref(gen);

    /* Also after a restart, and in the one that is made after another has written. */
    fac_reopen(&f, NULL);
    gen = fac_load(&f, "rooted");
    vm[0] = fac_clone(&f, gen);
    cr_assert_str_eq(fac_sh(&f, vm[0], "cat /warmed; test -e /mine || echo none"), "warm\nnone");
    fac_destroy(&f, vm[0]);
    fac_file_digest(image, base[1]);
    fac_file_digest(path, overlay[1]);
    cr_assert_str_eq(base[0], base[1], "the base image was written to");
    cr_assert_str_eq(overlay[0], overlay[1], "the template's overlay was written to");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- NICs */

Test(factory_linux, nic_without_a_tap, .timeout = 240)
{
    struct fac f;
    struct vf_error e = {0};
    struct vf_instance *vm[3];
    FAC_LINUX_OR_SKIP("factory_linux", "nic_without_a_tap");
    fac_open(&f, &(struct vf_sync_options){.trial_clones = 1});
    struct vf_spec spec = fac_linux("net", VF_ACCEL_TCG, NULL);
    spec.network.mode = VF_NETWORK_EXTERNAL;
    struct vf_generation *gen = fac_build(&f, &spec);
    vm[0] = fac_clone(&f, gen);
    vm[1] = fac_clone(&f, gen);
    struct vf_vm_options o = {.has_mac = true,
                              .mac = {0x02, 0x11, 0x22, 0x33, 0x44, 0x55},
                              .has_ipv4 = true,
                              .ipv4 = {10, 9, 8, 7},
                              .prefix_len = 24,
                              .gateway = {10, 9, 8, 1}};
    cr_assert_eq(vf_sync_clone(&f.sync, gen, &o, &vm[2], &e), 0, "%s", e.msg);
    for (int i = 0; i < 3; i++) {
        fac_check_proof(&f, vm[i], gen);
        cr_assert_eq(strlen(vf_instance_proof(vm[i])->mac), 17);
    }
    fac_check_differ(&f, vm, 3);
    cr_assert_str_eq(vf_instance_proof(vm[2])->mac, "02:11:22:33:44:55");
    cr_assert_str_eq(fac_sh(&f, vm[2], "ip -4 addr | grep -o '10.9.8.7/24'"), "10.9.8.7/24");
    cr_assert_str_eq(fac_sh(&f, vm[2], "ip route | grep -o 'default via 10.9.8.1'"),
                     "default via 10.9.8.1");
    cr_assert_str_eq(fac_sh(&f, vm[0], "ip -4 addr | grep -c 10.9.8 || true"), "0");
    for (int i = 0; i < 3; i++)
        fac_destroy(&f, vm[i]);
    o.tap = "no-such-tap0";
    struct vf_instance *none = NULL;
    cr_assert_lt(vf_sync_clone(&f.sync, gen, &o, &none, &e), 0);
    fac_expect(&e, VF_NOT_FOUND, "tap: there is no interface 'no-such-tap0'");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* A tap that stays when we close it, up, with an address. */
static void make_tap(const char *name, const char *address)
{
    struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    char command[200];
    VF_CLEANUP_FD int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
    cr_assert_eq(ioctl(fd, TUNSETIFF, &r), 0, "TUNSETIFF: %s", strerror(errno));
    cr_assert_eq(ioctl(fd, TUNSETPERSIST, 1), 0);
    snprintf(command, sizeof(command), "ip addr add %s dev %s && ip link set %s up", address, name,
             name);
    cr_assert_eq(system(command), 0, "%s", command);
}

static const char *can_make_taps(void)
{
    static char reason[128];
    VF_CLEANUP_FD int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        snprintf(reason, sizeof(reason), "/dev/net/tun: %s", strerror(errno));
    else if (unshare(CLONE_NEWNET) < 0)
        snprintf(reason, sizeof(reason), "a network namespace: %s", strerror(errno));
    return reason;
}

Test(factory_linux, nic_with_a_tap, .timeout = 240)
{
    static const char *const taps[] = {"vftap0", "vftap1"};
    struct fac f;
    struct vf_error e = {0};
    struct vf_instance *vm[2];
    FAC_LINUX_OR_SKIP("factory_linux", "nic_with_a_tap");
    const char *missing = can_make_taps();
    if (missing[0])
        sup_skip("factory_linux", "nic_with_a_tap", "%s", missing);
    make_tap(taps[0], "10.7.0.1/24");
    make_tap(taps[1], "10.7.1.1/24");
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = fac_linux("net", VF_ACCEL_TCG, NULL);
    spec.network.mode = VF_NETWORK_EXTERNAL;
    struct vf_generation *gen = fac_build(&f, &spec);
    for (uint8_t i = 0; i < 2; i++) {
        struct vf_vm_options o = {
            .tap = taps[i], .has_ipv4 = true, .ipv4 = {10, 7, i, 2}, .prefix_len = 24};
        cr_assert_eq(vf_sync_clone(&f.sync, gen, &o, &vm[i], &e), 0, "%s (%s)", e.msg, e.hint);
        fac_check_proof(&f, vm[i], gen);
    }
    fac_check_differ(&f, vm, 2);
    /* Frames go both ways, each clone's by its own tap. */
    cr_assert_str_eq(fac_sh(&f, vm[0], "ping -c 3 -W 5 10.7.0.1 >/dev/null && echo yes"), "yes");
    cr_assert_str_eq(fac_sh(&f, vm[1], "ping -c 3 -W 5 10.7.1.1 >/dev/null && echo yes"), "yes");
    cr_assert_str_eq(fac_sh(&f, vm[0], "ping -c 1 -W 1 10.7.1.1 >/dev/null 2>&1 || echo no way"),
                     "no way");
    for (int i = 0; i < 2; i++)
        fac_destroy(&f, vm[i]);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- q35 */

Test(factory_linux, q35, .timeout = 240)
{
    struct fac f;
    FAC_LINUX_OR_SKIP("factory_linux", "q35");
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = fac_linux("q35", VF_ACCEL_TCG, NULL);
    spec.machine = VF_MACHINE_Q35;
    spec.network.mode = VF_NETWORK_EXTERNAL;
    spec.vcpus = 2;
    fac_set_root(&spec, sup_guest_file("root.ext4"));
    struct vf_generation *gen = fac_build(&f, &spec);
    struct vf_instance *vm[2] = {fac_clone(&f, gen), fac_clone(&f, gen)};
    fac_check_proof(&f, vm[0], gen);
    fac_check_proof(&f, vm[1], gen);
    fac_check_differ(&f, vm, 2);
    cr_assert_str_eq(fac_sh(&f, vm[0], "grep -c ^processor /proc/cpuinfo"), "2");
    for (int i = 0; i < 2; i++)
        fac_destroy(&f, vm[i]);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- a KVM that opens and does not work */

Test(factory_linux, auto_where_kvm_cannot, .timeout = 300)
{
    struct fac f;
    const char *missing = fac_missing(true, VF_ACCEL_KVM);
    if (missing)
        sup_skip("factory_linux", "auto_where_kvm_cannot", "%s", missing);
    fac_open(&f, &(struct vf_sync_options){
                     .auto_accel = VF_ACCEL_KVM, .trial_clones = -1, .on_step = fac_hasten_kvm});
    struct vf_spec spec = fac_linux("auto", VF_ACCEL_AUTO, NULL);
    struct vf_instance *vm = fac_cold(&f, &spec);
    fac_check_proof(&f, vm, NULL);
    bool works = vf_vm_info_of(vf_instance_vm(vm))->accel == VF_ACCEL_KVM;
    fac_destroy(&f, vm);
    /* What the first found out holds for those that follow. */
    struct vf_generation *gen = fac_build(&f, &spec);
    cr_assert_eq(gen->manifest.vmm.accel == VF_ACCEL_KVM, works);
    vm = fac_clone(&f, gen);
    fac_check_proof(&f, vm, gen);
    cr_assert_eq(vf_vm_info_of(vf_instance_vm(vm))->accel, gen->manifest.vmm.accel);
    fac_destroy(&f, vm);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
    if (works)
        sup_skip("factory_linux", "auto_where_kvm_cannot", "KVM runs Linux on this host");
}

/* What Firecracker is told: the requests of a set-up, in order, and that of a restore, by version. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vmm/firecracker.h"

#define MIB ((uint64_t)1 << 20)

struct setup {
    struct vf_firecracker f;
    struct vf_vm_config c;
};

static void setup_open(struct setup *s)
{
    *s = (struct setup){0};
    s->c = (struct vf_vm_config){
        .id = "vm",
        .binary = "/usr/bin/firecracker",
        .machine = VF_MACHINE_MICROVM,
        .vcpus = 2,
        .memory_size = 128 * MIB,
        .memory_fd = memfd_create("memory", MFD_CLOEXEC),
        .memory_shared = true,
        .kernel = "/boot/vmlinux",
    };
    cr_assert_eq(ftruncate(s->c.memory_fd, 128 * (off_t)MIB), 0);
}

static void setup_close(struct setup *s)
{
    vf_firecracker_forget_setup(&s->f);
    close(s->c.memory_fd);
}

static void must_prepare(struct setup *s)
{
    struct vf_error e = {0};
    cr_assert_eq(vf_firecracker_prepare(&s->f, &s->c, &e), 0, "%s", e.msg);
}

static void must_be(const struct setup *s, int i, const char *path, const char *body)
{
    cr_assert_lt(i, s->f.n_setup);
    cr_assert_str_eq(s->f.setup[i].method, "PUT");
    cr_assert_str_eq(s->f.setup[i].path, path);
    cr_assert_str_eq(s->f.setup[i].body, body);
}

Test(firecracker_setup, least)
{
    struct setup s;
    setup_open(&s);
    must_prepare(&s);
    must_be(&s, 0, "/machine-config", "{\"vcpu_count\":2,\"mem_size_mib\":128}");
    must_be(&s, 1, "/boot-source", "{\"kernel_image_path\":\"/boot/vmlinux\"}");
    must_be(&s, 2, "/entropy", "{}");
    cr_assert_eq(s.f.n_setup, 3);
    setup_close(&s);
}

Test(firecracker_setup, most)
{
    struct setup s;
    setup_open(&s);
    s.c.initrd = "/boot/initrd";
    s.c.cmdline = "quiet x=\"a b\"\\";
    s.c.channel = VF_CHANNEL_VSOCK;
    s.c.balloon = true;
    s.c.n_disks = VF_VM_MAX_DISKS;
    for (int i = 0; i < s.c.n_disks; i++)
        s.c.disks[i] =
            (struct vf_vm_disk){.path = "/images/any", .format = "raw", .readonly = i == 0};
    s.c.n_nics = VF_VM_MAX_NICS;
    s.c.nics[0] = (struct vf_vm_nic){.tap = "tap0", .mac = {2, 0, 0, 0xab, 0xcd, 0xef}};
    s.c.nics[1] = (struct vf_vm_nic){.tap = "fifteen-letters"};
    must_prepare(&s);
    cr_assert_eq(s.f.n_setup, VF_FIRECRACKER_MAX_SETUP);
    must_be(&s, 1, "/boot-source",
            "{\"kernel_image_path\":\"/boot/vmlinux\",\"initrd_path\":\"/boot/initrd\","
            "\"boot_args\":\"quiet x=\\\"a b\\\"\\\\\"}");
    /* A name of its own directory: what a clone finds there is the clone's. */
    must_be(&s, 2, "/drives/disk0",
            "{\"drive_id\":\"disk0\",\"path_on_host\":\"disk0.raw\",\"is_root_device\":false,"
            "\"is_read_only\":true}");
    must_be(&s, 5, "/drives/disk3",
            "{\"drive_id\":\"disk3\",\"path_on_host\":\"disk3.raw\",\"is_root_device\":false,"
            "\"is_read_only\":false}");
    must_be(&s, 6, "/network-interfaces/net0",
            "{\"iface_id\":\"net0\",\"host_dev_name\":\"tap0\","
            "\"guest_mac\":\"02:00:00:ab:cd:ef\"}");
    must_be(&s, 8, "/vsock", "{\"guest_cid\":3,\"uds_path\":\"vsock.sock\"}");
    must_be(&s, 9, "/entropy", "{}");
    must_be(&s, 10, "/balloon", "{\"amount_mib\":0,\"deflate_on_oom\":true}");
    setup_close(&s);
}

/* Before 1.16 it is no field: the agent says it. */
Test(firecracker_setup, an_mtu_by_version)
{
    static const struct {
        const char *version, *mtu;
    } cases[] = {{"1.15.1", ""}, {"1.16.0", ",\"mtu\":9000"}, {"1.17.0-dev", ",\"mtu\":9000"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct setup s;
        char body[200];
        setup_open(&s);
        s.c.n_nics = 1;
        s.c.nics[0] = (struct vf_vm_nic){.tap = "tap0", .mac = {2, 0, 0, 0, 0, 1}, .mtu = 9000};
        must_prepare(&s);
        s.f.version = vf_firecracker_version(cases[i].version);
        cr_assert_eq(vf_firecracker_fit_setup(&s.f, NULL), 0);
        snprintf(body, sizeof(body),
                 "{\"iface_id\":\"net0\",\"host_dev_name\":\"tap0\","
                 "\"guest_mac\":\"02:00:00:00:00:01\"%s}",
                 cases[i].mtu);
        must_be(&s, 2, "/network-interfaces/net0", body);
        setup_close(&s);
    }
}

#define LOAD                                                            \
    "{\"snapshot_path\":\"/store/a \\\"b\\\"/state\",\"mem_backend\":{" \
    "\"backend_type\":\"File\",\"backend_path\":\"/proc/self/fd/3\"},"  \
    "\"resume_vm\":false"
#define NETS                                                            \
    ",\"network_overrides\":[{\"iface_id\":\"net0\",\"host_dev_name\":" \
    "\"tap7\"}]"
#define VSOCK ",\"vsock_override\":{\"uds_path\":\"vsock.sock\"}"
#ifdef __x86_64__
#define CLOCK ",\"clock_realtime\":true"
#else
#define CLOCK ""
#endif

Test(firecracker_setup, load_by_version)
{
    static const struct {
        const char *version;
        bool bare;
        const char *body;
    } cases[] = {
        {"1.4.0", true, LOAD "}"},
        {"1.12.0", false, LOAD NETS "}"},
        {"1.15.0", false, LOAD NETS "}"},
        {"1.15.1", false, LOAD NETS CLOCK "}"},
        {"1.16.0", false, LOAD NETS VSOCK CLOCK "}"},
        {"1.17.0-dev", true, LOAD CLOCK "}"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct setup s;
        setup_open(&s);
        s.c.incoming = true;
        s.c.memory_shared = false;
        if (!cases[i].bare) {
            s.c.channel = VF_CHANNEL_VSOCK;
            s.c.n_nics = 1;
            s.c.nics[0] = (struct vf_vm_nic){.tap = "tap7"};
        }
        must_prepare(&s);
        cr_assert_eq(s.f.n_setup, 0, "one to be restored is told nothing before");
        s.f.vm.incoming = true;
        s.f.version = vf_firecracker_version(cases[i].version);
        cr_assert_eq(vf_firecracker_check_version(&s.f, NULL), 0);
        char *body = vf_firecracker_load_body(&s.f, "/store/a \"b\"/state");
        cr_assert_str_eq(body, cases[i].body, "%s", cases[i].version);
        free(body);
        setup_close(&s);
    }
}

Test(firecracker_setup, version)
{
    static const struct {
        const char *text;
        int version;
    } cases[] = {{"1.16.1", 1016001},
                 {"1.17.0-dev", 1017000},
                 {"1.4", 1004000},
                 {"0.25.2", 25002},
                 {"999.999.999", 999999999},
                 {"", -1},
                 {"v1.16.1", -1},
                 {"1", -1},
                 {"-1.2.3", -1},
                 {" 1.2.3", -1},
                 {"one.two", -1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        cr_assert_eq(vf_firecracker_version(cases[i].text), cases[i].version, "'%s'",
                     cases[i].text);
}

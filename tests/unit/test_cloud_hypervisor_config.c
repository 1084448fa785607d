/* What Cloud Hypervisor is asked for, and a saved config made a clone's. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/fd.h"
#include "vmm/cloud_hypervisor.h"

static struct vf_vm_config base_config(void)
{
    return (struct vf_vm_config){
        .id = "x",
        .vcpus = 2,
        .memory_size = 64 << 20,
        .memory_shared = true,
        .kernel = "/k \"q\"",
        .cmdline = "a=b",
        .channel = VF_CHANNEL_SERIAL,
        .disks = {{.path = "/d0", .format = "raw", .readonly = true},
                  {.path = "/d1", .format = "qcow2"}},
        .n_disks = 2,
        .nics = {{.tap = "tap0", .mac = {2, 0, 0, 0, 0, 10}},
                 {.fds = {5, 6}, .n_fds = 2, .mac = {2, 0, 0, 0, 0, 11}}},
        .n_nics = 2,
        .balloon = true,
    };
}

static void must_have(const char *text, const char *part)
{
    cr_expect_not_null(strstr(text, part), "%s is not in %s", part, text);
}

static void must_lack(const char *text, const char *part)
{
    cr_expect_null(strstr(text, part), "%s is in %s", part, text);
}

Test(cloud_hypervisor_config, to_boot)
{
    struct vf_vm_config c = base_config();
    char *text = vf_ch_create_body(&c);
    struct vf_json *j = vf_json_parse(text, strlen(text));
    cr_assert(vf_json_is_object(j), "%s", text);
    vf_json_delete(j);
    must_have(text, "\"cpus\":{\"boot_vcpus\":2,\"max_vcpus\":2}");
    must_have(text, "\"memory\":{\"size\":0,\"zones\":[{\"id\":\"mem0\",\"size\":67108864,"
                    "\"file\":\"/proc/self/fd/5\",\"shared\":true,\"prefault\":false,"
                    "\"mergeable\":false}]}");
    must_have(text, "\"payload\":{\"kernel\":\"/k \\\"q\\\"\",\"cmdline\":\"a=b\"}");
    must_have(text, "{\"id\":\"disk0\",\"path\":\"/d0\",\"readonly\":true,\"image_type\":\"Raw\","
                    "\"backing_files\":false}");
    must_have(text, "{\"id\":\"disk1\",\"path\":\"/d1\",\"readonly\":false,"
                    "\"image_type\":\"Qcow2\",\"backing_files\":true}");
    must_have(text, "\"net\":[{\"id\":\"net0\",\"tap\":\"tap0\",\"mac\":\"02:00:00:00:00:0a\","
                    "\"num_queues\":2}]");
    must_have(text, "\"balloon\":{\"size\":0}");
    must_have(text, "\"serial\":{\"mode\":\"Socket\",\"socket\":\"agent.sock\"}");
    must_have(text, "\"console\":{\"mode\":\"Off\"}");
    must_lack(text, "vsock");
    free(text);
    text = vf_ch_add_net_body(&c, 1);
    cr_expect_str_eq(text, "{\"id\":\"net1\",\"mac\":\"02:00:00:00:00:0b\",\"num_queues\":4}");
    free(text);
}

Test(cloud_hypervisor_config, channels)
{
    struct vf_vm_config c = base_config();
    c.channel = VF_CHANNEL_VSOCK;
    char *text = vf_ch_create_body(&c);
    must_have(text, "\"vsock\":{\"cid\":3,\"socket\":\"vsock.sock\"}");
    must_have(text, "\"serial\":{\"mode\":\"Null\"}");
    free(text);
    c.console = true;
    text = vf_ch_create_body(&c);
    must_have(text, "\"serial\":{\"mode\":\"File\",\"file\":\"/proc/self/fd/1\"}");
    free(text);
}

/* It would set the interface's: the guest is told what that is. */
Test(cloud_hypervisor_config, an_mtu_is_the_interfaces)
{
    struct vf_vm_config c = base_config();
    c.nics[0].mtu = c.nics[1].mtu = 9000;
    char *text = vf_ch_add_net_body(&c, 1);
    must_lack(text, "mtu");
    free(text);
}

Test(cloud_hypervisor_config, to_restore)
{
    struct vf_vm_config c = base_config();
    char *text = vf_ch_restore_body(&c, false);
    cr_expect_str_eq(text, "{\"source_url\":\"file://restore\",\"prefault\":false,"
                           "\"net_fds\":[{\"id\":\"net1\",\"num_fds\":2}]}");
    free(text);
    c.n_nics = 0;
    text = vf_ch_restore_body(&c, true);
    cr_expect_str_eq(text, "{\"source_url\":\"file://restore\",\"prefault\":false,"
                           "\"memory_restore_mode\":\"OnDemand\"}");
    free(text);
}

#define SAVED                                                                                     \
    "{\"cpus\":{\"max\":18446744073709551615},\"memory\":{\"size\":0,\"mergeable\":true,"         \
    "\"shared\":true,\"zones\":[{\"id\":\"mem0\",\"size\":67108864,\"file\":\"/dev/shm/t\","      \
    "\"shared\":true,\"prefault\":true}]},"                                                       \
    "\"disks\":[{\"id\":\"disk1\",\"path\":\"/old1\",\"readonly\":false,\"image_type\":\"Raw\"}," \
    "{\"id\":\"disk0\",\"path\":\"/old0\",\"readonly\":true}],"                                   \
    "\"net\":[{\"id\":\"net0\",\"num_queues\":2},"                                                \
    "{\"id\":\"net1\",\"tap\":\"old\",\"num_queues\":4}],"                                        \
    "\"balloon\":{\"size\":0},\"serial\":{\"mode\":\"File\",\"file\":\"/old\"}}"

static int make_clone(const struct vf_vm_config *c, bool own_memory, char **ret,
                      struct vf_error *err)
{
    return vf_ch_clone_config(c, SAVED, strlen(SAVED), own_memory, ret, err);
}

Test(cloud_hypervisor_config, a_clone)
{
    struct vf_vm_config c = base_config();
    struct vf_error err;
    char *text = NULL;
    c.memory_shared = false;
    cr_assert_eq(make_clone(&c, false, &text, &err), 0, "%s", err.msg);
    cr_expect_str_eq(
        text,
        "{\"cpus\":{\"max\":18446744073709551615},\"memory\":{\"size\":0,\"mergeable\":false,"
        "\"shared\":false,\"zones\":[{\"id\":\"mem0\",\"size\":67108864,"
        "\"file\":\"/proc/self/fd/5\",\"shared\":false,\"prefault\":false,\"mergeable\":false}],"
        "\"prefault\":false},\"disks\":[{\"id\":\"disk1\",\"path\":\"/d1\",\"readonly\":false,"
        "\"image_type\":\"Qcow2\",\"backing_files\":true},{\"id\":\"disk0\",\"path\":\"/d0\","
        "\"readonly\":true,\"image_type\":\"Raw\",\"backing_files\":false}],"
        "\"net\":[{\"id\":\"net0\",\"num_queues\":2,\"tap\":\"tap0\"},"
        "{\"id\":\"net1\",\"num_queues\":4,\"fds\":[-1,-1]}],\"balloon\":{\"size\":0},"
        "\"serial\":{\"mode\":\"Socket\",\"socket\":\"agent.sock\"},"
        "\"console\":{\"mode\":\"Off\"}}");
    free(text);
}

Test(cloud_hypervisor_config, memory_that_the_save_holds_needs_no_file)
{
    struct vf_vm_config c = base_config();
    char *text = NULL;
    cr_assert_eq(make_clone(&c, true, &text, NULL), 0);
    must_have(text, "\"zones\":[{\"id\":\"mem0\",\"size\":67108864,\"shared\":false,");
    free(text);
}

Test(cloud_hypervisor_config, a_clone_of_another_shape)
{
    for (int i = 0; i < 7; i++) {
        static const char *const words[] = {
            "memory_size", "disks: ", "disks[1]", "nics: ", "nics[1]", "channel:", "nics[0]"};
        struct vf_vm_config c = base_config();
        struct vf_error err = {0};
        char *text = NULL;
        if (i == 0)
            c.memory_size *= 2;
        else if (i == 1)
            c.n_disks = 1;
        else if (i == 2)
            c.disks[1].readonly = true;
        else if (i == 3)
            c.n_nics = 0;
        else if (i == 4)
            c.nics[1].n_fds = 1;
        else if (i == 5)
            c.channel = VF_CHANNEL_VSOCK;
        else
            c.nics[0].n_fds = 2;
        cr_assert_eq(make_clone(&c, false, &text, &err), vf_code_errno(VF_INVALID_ARGUMENT), "%d",
                     i);
        cr_expect_not_null(strstr(err.msg, words[i]), "%s", err.msg);
        cr_expect_null(text);
    }
}

/* What is saved was written by a VMM that may have been broken out of. */
Test(cloud_hypervisor_config, a_saved_config_that_is_none)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"memory\":7}",
        "{\"memory\":{\"size\":0,\"zones\":[]}}",
        "{\"memory\":{\"size\":0,\"zones\":[{\"size\":67108864},{\"size\":1}]}}",
        "{\"memory\":{\"size\":5,\"zones\":[{\"size\":67108864}]}}",
        "{\"memory\":{\"size\":0,\"zones\":{\"0\":{\"size\":67108864}}}}",
    };
    struct vf_vm_config c = base_config();
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct vf_error err = {0};
        char *text = NULL;
        cr_assert_eq(vf_ch_clone_config(&c, texts[i], strlen(texts[i]), false, &text, &err),
                     vf_code_errno(VF_CORRUPT), "%s: %s", texts[i], err.msg);
        cr_expect_null(text);
    }
}

Test(cloud_hypervisor_config, copies)
{
    struct vf_vm_config c = base_config(), copy;
    struct vf_error err = {0};
    int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(ftruncate(fd, 64 << 20), 0);
    c.memory_fd = fd;
    c.nics[1].fds[0] = c.nics[1].fds[1] = fd;
    cr_assert_eq(vf_ch_config_copy(&c, &copy, &err), 0, "%s", err.msg);
    cr_expect_neq(copy.nics[1].fds[0], fd);
    cr_expect_neq(copy.kernel, c.kernel);
    cr_expect_str_eq(copy.disks[1].path, "/d1");
    vf_ch_config_free(&copy);

    c.nics[1].fds[1] = 999;
    cr_expect_lt(vf_ch_config_copy(&c, &copy, &err), 0);
    c.nics[1].fds[1] = fd;
    c.vcpus = 1;
    cr_expect_eq(vf_ch_config_copy(&c, &copy, &err), vf_code_errno(VF_INVALID_ARGUMENT));
    cr_expect_not_null(strstr(err.msg, "nics[1]: 2 queue pairs (descriptors) for 1 vCPUs"), "%s",
                       err.msg);
    c.vcpus = 2;
    c.nics[1].mtu = 1279;
    cr_expect_eq(vf_ch_config_copy(&c, &copy, &err), vf_code_errno(VF_INVALID_ARGUMENT));
    cr_expect_not_null(strstr(err.msg, "nics[1].mtu: 1279"), "%s", err.msg);
    c.nics[1].mtu = 0;
    c.memory_size *= 2;
    cr_expect_eq(vf_ch_config_copy(&c, &copy, &err), vf_code_errno(VF_INVALID_ARGUMENT));
    cr_expect_not_null(strstr(err.msg, "memory_fd: a file of 134217728 bytes"), "%s", err.msg);
    c.memory_size /= 2;
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    cr_expect_eq(vf_ch_config_copy(&c, &copy, &err), vf_code_errno(VF_INVALID_ARGUMENT));
    cr_expect_not_null(strstr(err.msg, "sealed"), "%s", err.msg);
    int after = dup(0);
    close(fd);
    cr_expect_eq(after, fd + 1, "descriptors are left");
    close(after);
}

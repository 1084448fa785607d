/* What a driver does to a VM whose process it could not take over. */
#include <criterion/criterion.h>

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/fd.h"
#include "tests/unit/scratch.h"
#include "vmm/process.h"
#include "vmm/vmm.h"

static struct vf_process launch_sleep(int dirfd)
{
    char *argv[] = {"sleep", "600", NULL};
    struct vf_process p = {.pidfd = -1};
    struct vf_error e = {0};
    int record = -1;
    cr_assert_eq(vf_process_record(dirfd, VF_PROCESS_NAME, &record, &e), 0, "%s", e.msg);
    struct vf_launch l = {.binary = "/bin/sleep", .argv = argv, .output = 2, .record = record};
    cr_assert_eq(vf_process_launch(&l, &p, &e), 0, "%s", e.msg);
    vf_close_fd(&record);
    return p;
}

static void must_not_come(void *arg, const struct vf_error *err)
{
    (void)arg;
    (void)err;
    cr_assert_fail("adopt was refused, and has ended all the same");
}

static void on_stopped(void *arg, const struct vf_error *err)
{
    cr_assert_null(err);
    *(bool *)arg = true;
}

/* As many descriptors as there are now, and one more: for the directory. */
static struct rlimit leave_one_descriptor(void)
{
    struct rlimit was, few;
    int next = dup(0);
    cr_assert_geq(next, 0);
    close(next);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &was), 0);
    few = was;
    few.rlim_cur = (rlim_t)next + 1;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    return was;
}

static void adopt_in_vain(const char *vmm)
{
    struct scratch s;
    struct vf_error e = {0};
    struct vf_vm *vm = NULL;
    uv_loop_t loop;
    pid_t pid = 0;
    uint64_t ticks = 0;
    bool stopped = false;
    scratch_open(&s);
    cr_assert_eq(uv_loop_init(&loop), 0);
    struct vf_process p = launch_sleep(s.fd);
    struct vf_vm_adopt a = {.id = "a",
                            .dirfd = s.fd,
                            .pid = p.pid,
                            .start_ticks = p.start_ticks,
                            .accel = VF_ACCEL_KVM,
                            .memory_size = 64 << 20};
    cr_assert_eq(vf_vm_new(&loop, vf_vmm_find(vmm), NULL, NULL, &vm, &e), 0, "%s", e.msg);

    struct rlimit was = leave_one_descriptor();
    int r = vf_vm_adopt(vm, &a, 0, must_not_come, NULL, &e);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &was), 0);
    cr_assert_lt(r, 0);
    cr_assert_eq(vf_vm_stop(vm, 0, on_stopped, &stopped, &e), 0, "%s", e.msg);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert(stopped);
    vf_vm_free(vm);
    cr_assert_eq(uv_loop_close(&loop), 0);

    cr_assert_eq(kill(p.pid, 0), 0, "%s: it must live, or this says nothing", vmm);
    cr_expect_eq(vf_process_read(s.fd, VF_PROCESS_NAME, &pid, &ticks, &e), 0, "%s: %s", vmm, e.msg);
    cr_expect_eq(pid, p.pid);
    cr_expect_eq(ticks, p.start_ticks);
    cr_assert_eq(vf_process_end(&p, 10000, &e), 0, "%s", e.msg);
    vf_close_fd(&p.pidfd);
    scratch_close(&s);
}

/* Without its record nobody would ever end it. */
Test(vmm_adopt, what_can_not_be_had_is_still_found_by_its_record)
{
    adopt_in_vain("qemu");
    adopt_in_vain("cloud-hypervisor");
    adopt_in_vain("firecracker");
}

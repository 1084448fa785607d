/* The launcher's record, and finding a process again by it. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fd.h"
#include "tests/unit/scratch.h"
#include "vmm/process.h"

static struct vf_process launch_sleep(int dirfd, const char *binary, int *ret_r)
{
    char *argv[] = {"sleep", "600", NULL};
    struct vf_process p = {.pidfd = -1};
    struct vf_error e = {0};
    int record = -1;
    cr_assert_eq(vf_process_record(dirfd, "process", &record, &e), 0, "%s", e.msg);
    struct vf_launch l = {.binary = binary, .argv = argv, .output = 2, .record = record};
    *ret_r = vf_process_launch(&l, &p, &e);
    vf_close_fd(&record);
    return p;
}

Test(process_find, a_process_is_found_by_its_record)
{
    struct scratch s;
    struct vf_error e = {0};
    pid_t pid = 0;
    uint64_t ticks = 0;
    int r;
    scratch_open(&s);
    cr_assert_eq(vf_process_read(s.fd, "process", &pid, &ticks, &e), vf_code_errno(VF_NOT_FOUND));
    struct vf_process p = launch_sleep(s.fd, "/bin/sleep", &r), found;
    cr_assert_eq(r, 0);
    cr_assert_eq(vf_process_read(s.fd, "process", &pid, &ticks, &e), 0, "%s", e.msg);
    cr_assert_eq(pid, p.pid);
    cr_assert_eq(ticks, p.start_ticks);
    cr_assert_neq(ticks, 0);
    cr_assert_eq(vf_process_open(pid, ticks + 1, &found, &e), vf_code_errno(VF_NOT_FOUND));
    cr_assert(strstr(e.msg, "another has its number"), "%s", e.msg);
    cr_assert_eq(vf_process_open(pid, ticks, &found, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_process_end(&found, 10000, &e), 0, "%s", e.msg);
    cr_assert_eq(kill(pid, 0), -1);                              /* reaped as well */
    cr_assert_eq(vf_process_end(&p, 10000, &e), 0, "%s", e.msg); /* it has ended: nothing to do */
    vf_close_fd(&found.pidfd);
    vf_close_fd(&p.pidfd);
    cr_assert_eq(vf_process_open(pid, ticks, &found, &e), vf_code_errno(VF_NOT_FOUND));
    scratch_close(&s);
}

/* One that has ended, but has not been waited for, is as good as gone. */
Test(process_find, a_zombie_is_nobody)
{
    struct scratch s;
    struct vf_error e;
    siginfo_t si;
    int r;
    scratch_open(&s);
    struct vf_process p = launch_sleep(s.fd, "/bin/sleep", &r), found;
    cr_assert_eq(r, 0);
    vf_process_kill(&p, SIGKILL);
    cr_assert_eq(waitid(P_PIDFD, (id_t)p.pidfd, &si, WEXITED | WNOWAIT), 0);
    cr_assert_eq(vf_process_open(p.pid, p.start_ticks, &found, &e), vf_code_errno(VF_NOT_FOUND));
    vf_close_fd(&p.pidfd);
    scratch_close(&s);
}

/* What could not be run has written itself down, and is gone. A second record is refused. */
Test(process_find, a_launch_that_fails)
{
    struct scratch s;
    struct vf_error e;
    struct vf_process found;
    pid_t pid;
    uint64_t ticks;
    int r, record = -1;
    scratch_open(&s);
    launch_sleep(s.fd, "/no/such/program", &r);
    cr_assert_eq(r, vf_code_errno(VF_NOT_FOUND));
    cr_assert_eq(vf_process_read(s.fd, "process", &pid, &ticks, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_process_open(pid, ticks, &found, &e), vf_code_errno(VF_NOT_FOUND));
    cr_assert_lt(vf_process_record(s.fd, "process", &record, &e), 0);
    cr_assert(strstr(e.msg, strerror(EEXIST)), "%s", e.msg);
    scratch_close(&s);
}

/* As long as somebody may still complete it, a record is not believed to be empty. */
static void *complete(void *arg)
{
    int fd = *(int *)arg;
    char boot_id[64];
    VF_CLEANUP_FD int from = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = read(from, boot_id, sizeof(boot_id));
    dprintf(fd, "77 (a (b) c) S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1\n%.*s",
            (int)n, boot_id);
    close(fd);
    return NULL;
}

Test(process_find, a_record_under_way_is_waited_for)
{
    struct scratch s;
    struct vf_error e = {0};
    pthread_t thread;
    pid_t pid;
    uint64_t ticks;
    int record;
    scratch_open(&s);
    for (int i = 0; i < 50; i++) {
        cr_assert_eq(vf_process_record(s.fd, "process", &record, &e), 0, "%s", e.msg);
        cr_assert_eq(pthread_create(&thread, NULL, complete, &record), 0);
        int r = vf_process_read(s.fd, "process", &pid, &ticks, &e);
        pthread_join(thread, NULL);
        cr_assert_eq(r, 0, "%s", e.msg);
        cr_assert_eq(pid, 77);
        cr_assert_eq(ticks, 4242);
        cr_assert_eq(unlinkat(s.fd, "process", 0), 0);
    }
    scratch_close(&s);
}

Test(process_find, start_ticks_of_odd_texts)
{
    cr_assert_eq(vf_process_start_ticks(""), 0);
    cr_assert_eq(vf_process_start_ticks("1 (x) S 1 2 3"), 0);
    cr_assert_eq(vf_process_start_ticks("no parenthesis 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"), 0);
    cr_assert_eq(
        vf_process_start_ticks("9 (x) 1 (y) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 20"),
        99);
}

/* Its parent alone is told how it ended. */
static void note_exit(struct vf_process *p, const struct vf_exit *how)
{
    *(struct vf_exit *)p->data = *how;
    uv_stop(p->poll.loop);
}

static void on_closed(uv_handle_t *h)
{
    (void)h;
}

Test(process_find, the_end_of_somebody_elses_child)
{
    struct scratch s;
    struct vf_error e = {0};
    struct vf_exit how = {0};
    struct vf_process p;
    pid_t pid;
    uint64_t ticks;
    uv_loop_t loop;
    char text[64];
    int r, status;
    scratch_open(&s);
    pid_t parent = fork();
    cr_assert_geq(parent, 0);
    if (parent == 0) {
        launch_sleep(s.fd, "/bin/sleep", &r);
        _exit(r == 0 ? 0 : 1);
    }
    cr_assert_eq(waitpid(parent, &status, 0), parent);
    cr_assert_eq(status, 0);
    cr_assert_eq(vf_process_read(s.fd, "process", &pid, &ticks, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_process_open(pid, ticks, &p, &e), 0, "%s", e.msg);
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_eq(vf_process_watch(&p, &loop, note_exit, &how, &e), 0, "%s", e.msg);
    vf_process_kill(&p, SIGKILL);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert(p.exited && how.unknown);
    vf_exit_text(&how, text, sizeof(text));
    cr_assert_str_eq(text, "ended");
    cr_assert(vf_process_close(&p, on_closed));
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
    cr_assert_eq(vf_process_open(pid, ticks, &p, &e), vf_code_errno(VF_NOT_FOUND));
    scratch_close(&s);
}

/* Lock files: one holder, by its name, and a killed holder's lock that a child of it still has. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/unit/scratch.h"

static int open_lock(const struct scratch *d)
{
    int fd = openat(d->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    return fd;
}

Test(fd_lock, the_second_is_told_who_has_it, .timeout = 30)
{
    struct scratch d;
    int64_t holder = 0;
    char text[24] = "";
    scratch_open(&d);
    int first = open_lock(&d), second = open_lock(&d);
    cr_expect_eq(vf_lock_file(first, &holder), 0);
    cr_expect_eq(vf_lock_file(second, &holder), -EWOULDBLOCK);
    cr_expect_eq(holder, getpid());
    cr_expect_gt(pread(second, text, sizeof(text) - 1, 0), 0);
    cr_expect_eq(strtol(text, NULL, 10), getpid());
    close(first);
    cr_expect_eq(vf_lock_file(second, &holder), 0);
    close(second);
    scratch_close(&d);
}

/* The holder ends at once; a child of it has the lock until the test lets it go, which it does as the lock is waited
 * for. */
Test(fd_lock, a_lock_left_with_a_child_is_waited_for, .timeout = 30)
{
    struct scratch d;
    int64_t holder = 0;
    int go[2];
    scratch_open(&d);
    cr_assert_eq(pipe2(go, O_CLOEXEC), 0);
    int fd = open_lock(&d);
    pid_t pid = fork();
    if (pid == 0) {
        int own = openat(d.fd, "lock", O_RDWR);
        if (vf_lock_file(own, &holder) != 0)
            _exit(1);
        if (fork() == 0) {
            char c;
            close(go[1]);
            while (read(go[0], &c, 1) < 0 && errno == EINTR)
                ;
            usleep(50000); /* let go while it is waited for */
            _exit(0);
        }
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    close(go[0]);
    close(go[1]); /* its end of file is the word to go */
    cr_expect_eq(vf_lock_file(fd, &holder), 0);
    close(fd);
    scratch_close(&d);
}

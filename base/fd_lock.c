/* A lock file that names its holder. See fd.h.
 *
 * flock(2) is the lock; the pid in the file is for messages, and for one case: a holder that was killed while it
 * started a process leaves its lock with that child until the child has become another program. That takes a moment,
 * and is waited for.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"

#define DEAD_HOLDER_MS 5000

static int64_t read_holder(int fd)
{
    char text[24] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return strtoll(text, NULL, 10);
}

/* Ended: gone, or a zombie. */
static bool has_ended(int64_t pid)
{
    char path[40], state = 0;
    FILE *f;

    if (pid <= 0)
        return false;
    if (kill((pid_t)pid, 0) != 0)
        return errno == ESRCH;
    snprintf(path, sizeof(path), "/proc/%" PRId64 "/stat", pid);
    f = fopen(path, "re");
    if (f != NULL) {
        if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
            state = 0;
        fclose(f);
    }
    return state == 'Z' || state == 'X';
}

int vf_lock_file(int fd, int64_t *ret_holder)
{
    static const struct timespec pause = {.tv_nsec = 5000000};
    int64_t deadline = vf_deadline_after_ms(DEAD_HOLDER_MS);
    char text[24];

    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            return -errno;
        *ret_holder = read_holder(fd);
        if (!has_ended(*ret_holder) || vf_deadline_left_ms(deadline) == 0)
            return -EWOULDBLOCK;
        nanosleep(&pause, NULL);
    }
    snprintf(text, sizeof(text), "%" PRId64 "\n", (int64_t)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, strlen(text), 0) != (ssize_t)strlen(text))
        return errno != 0 ? -errno : -EIO;
    return 0;
}

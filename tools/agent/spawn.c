/* One command of an EXEC message: its strings, its pipes, its start.
 *
 * The strings lie in the frame without NULs, so they are copied once, with NULs, into one block that
 * lives until the child has been started. A program named without a slash is looked for in the PATH
 * the command gets.
 */
#include "tools/agent/agent.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_STRINGS 4096
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct command {
    char *block;
    char **argv, **envp; /* NULL-ended, within one array */
    const char *cwd;
};

/* Same name before the equals sign? */
static bool same_name(const char *a, const char *b)
{
    while (*a && *a == *b && *a != '=')
        a++, b++;
    return *a == '=' && *b == '=';
}

static void free_command(struct command *c)
{
    free(c->block);
    free(c->argv);
}

static int read_command(const struct vf_wire_frame *f, struct command *ret)
{
    static char *const base_env[] = {DEFAULT_PATH, "HOME=/root", "TERM=dumb", NULL};
    size_t pos = 0, len, used = 0, n_argv = 0, n_envp = 0;
    uint16_t tag;
    const uint8_t *p;
    int more;
    struct command c = {.cwd = "/"};

    while ((more = vf_wire_next(f, &pos, &tag, &p, &len)) > 0) {
        if (tag != VF_TAG_ARG && tag != VF_TAG_ENV && tag != VF_TAG_CWD)
            continue;
        if (memchr(p, 0, len) || (tag == VF_TAG_ENV && !memchr(p, '=', len)))
            return -EINVAL;
        n_argv += tag == VF_TAG_ARG;
        n_envp += tag == VF_TAG_ENV;
    }
    if (more < 0 || n_argv == 0)
        return -EINVAL;
    if (n_argv + n_envp > MAX_STRINGS)
        return -E2BIG;
    c.block = malloc(f->body_len); /* each string's head is longer than its NUL */
    c.argv = calloc(n_argv + 1 + n_envp + 4, sizeof(char *));
    if (!c.block || !c.argv) {
        free_command(&c);
        return -ENOMEM;
    }
    c.envp = c.argv + n_argv + 1;
    n_argv = n_envp = pos = 0;
    while (vf_wire_next(f, &pos, &tag, &p, &len) > 0) {
        if (tag != VF_TAG_ARG && tag != VF_TAG_ENV && tag != VF_TAG_CWD)
            continue;
        char *s = c.block + used;
        memcpy(s, p, len);
        s[len] = 0;
        used += len + 1;
        if (tag == VF_TAG_ARG)
            c.argv[n_argv++] = s;
        else if (tag == VF_TAG_ENV)
            c.envp[n_envp++] = s;
        else
            c.cwd = s;
    }
    for (char *const *b = base_env; *b; b++) {
        bool given = false;
        for (size_t i = 0; i < n_envp; i++)
            given = given || same_name(c.envp[i], *b);
        if (!given)
            c.envp[n_envp++] = *b;
    }
    *ret = c;
    return 0;
}

/* Where the program is. Returns 0 or -errno. */
static int find_program(const struct command *c, char *ret_path, size_t size)
{
    const char *path = "";
    int err = -ENOENT;

    if (strchr(c->argv[0], '/')) {
        if (strlen(c->argv[0]) >= size)
            return -ENAMETOOLONG;
        strcpy(ret_path, c->argv[0]);
        return 0;
    }
    for (char **e = c->envp; *e; e++)
        if (same_name(*e, DEFAULT_PATH))
            path = *e + 5;
    while (*path && c->argv[0][0]) {
        int n = (int)strcspn(path, ":");
        if (n > 0 && snprintf(ret_path, size, "%.*s/%s", n, path, c->argv[0]) < (int)size) {
            if (access(ret_path, X_OK) == 0)
                return 0;
            if (errno == EACCES)
                err = -EACCES;
        }
        path += n + (path[n] == ':');
    }
    return err;
}

static int start(const struct command *c, const int child_fds[3], pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, ignored;
    char path[4096];
    int err = find_program(c, path, sizeof(path));

    if (err != 0)
        return err;
    sigemptyset(&none);
    sigemptyset(&ignored);
    sigaddset(&ignored, SIGPIPE);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &ignored);
    posix_spawn_file_actions_init(&actions);
    for (int i = 0; i < 3; i++)
        posix_spawn_file_actions_adddup2(&actions, child_fds[i], i);
    posix_spawn_file_actions_addchdir_np(&actions, c->cwd);
    err = -posix_spawn(ret_pid, path, &actions, &attr, c->argv, c->envp);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return err;
}

static void close_all(int fds[3])
{
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

pid_t spawn(const struct vf_wire_frame *f, int ret_fds[3])
{
    int ours[3] = {-1, -1, -1}, theirs[3] = {-1, -1, -1}, ends[2];
    struct command c;
    pid_t pid = 0;
    int err = read_command(f, &c);

    if (err != 0)
        return err;
    for (int i = 0; i < 3 && err == 0; i++) {
        if (pipe2(ends, O_CLOEXEC) != 0) {
            err = -errno;
            break;
        }
        ours[i] = ends[i == 0 ? 1 : 0];
        theirs[i] = ends[i == 0 ? 0 : 1];
        if (fcntl(ours[i], F_SETFL, O_NONBLOCK) != 0)
            err = -errno;
    }
    if (err == 0)
        err = start(&c, theirs, &pid);
    free_command(&c);
    close_all(theirs);
    if (err != 0) {
        close_all(ours);
        return err;
    }
    memcpy(ret_fds, ours, sizeof(ours));
    return pid;
}

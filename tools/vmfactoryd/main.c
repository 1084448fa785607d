/* vmfactoryd: keeps pools of ready VMs, hands them out on RUN/api.sock, tells about itself on RUN/stats.sock.
 *
 *     command line -> settings -> limits, umask, signals -> daemon_run() -> exit code
 *
 * The other commands print something and end.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/log.h"
#include "base/version.h"
#include "daemon.h"
#include "options.h"
#include "pool/settings_text.h"

#define FIRST_DESCRIPTORS 16384

static void complain(const struct vf_error *err)
{
    fprintf(stderr, "vmfactoryd: %s\n", err->msg);
    if (err->hint[0] != '\0')
        fprintf(stderr, "vmfactoryd: hint: %s\n", err->hint);
}

/* Each VM takes several descriptors, and so does each connection. */
static void raise_descriptor_limit(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        setrlimit(RLIMIT_NOFILE, &l); /* if not: then the lower one holds */
    }
}

/* The kernel makes a process's table of descriptors larger by doubling it, and in one with threads it waits each time
 * until no CPU can be looking at the old one: 5 to 15 ms in which the loop stands still, as a pool fills. There are no
 * threads yet, so the table is made large now; it costs 8 bytes a descriptor, of the kernel's memory. */
static void enlarge_descriptor_table(void)
{
    struct rlimit l;
    int highest = FIRST_DESCRIPTORS - 1, fd;

    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < FIRST_DESCRIPTORS)
        highest = (int)l.rlim_cur - 1;
    fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, highest);
    vf_close_fd(&fd);
}

static int run(const struct options *o, struct vf_settings *s)
{
    vf_log_setup(2, (enum vf_log_level)s->log_level, (enum vf_log_format)s->log_format);
    raise_descriptor_limit();
    enlarge_descriptor_table();
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    return daemon_run(o, s);
}

static int print_settings(const struct options *o, const struct vf_settings *s)
{
    char *json;

    if (!o->json) {
        vf_settings_print(stdout, s);
        return 0;
    }
    json = vf_settings_encode(s);
    if (json == NULL)
        return -1;
    puts(json);
    free(json);
    return 0;
}

/* The commands that need the settings. */
static int with_settings(const struct options *o)
{
    struct vf_settings s;
    struct vf_error err;
    int code = EXIT_OK;

    if (options_settings(o, &s, &err) < 0) {
        complain(&err);
        return EXIT_USAGE;
    }
    if (o->command == COMMAND_RUN)
        return run(o, &s);
    if (o->command == COMMAND_CONFIG && print_settings(o, &s) < 0)
        code = EXIT_FAILED;
    if (o->command == COMMAND_CHECK)
        printf("%s: the settings are good\n", o->config != NULL ? o->config : "no config file");
    vf_settings_free(&s);
    return code;
}

int main(int argc, char **argv)
{
    struct options o;
    struct vf_error err;
    int code = EXIT_OK;

    if (options_parse(argc, argv, &o, &err) < 0) {
        complain(&err);
        return EXIT_USAGE;
    }
    switch (o.command) {
    case COMMAND_HELP:
        print_help(stdout);
        break;
    case COMMAND_VERSION:
        puts("vmfactoryd " VF_VERSION);
        break;
    case COMMAND_MAN:
        print_man(stdout);
        break;
    case COMMAND_RUN:
    case COMMAND_CONFIG:
    case COMMAND_CHECK:
        code = with_settings(&o);
        break;
    }
    options_free(&o);
    if (fflush(stdout) != 0 && code == EXIT_OK) {
        perror("vmfactoryd: write");
        code = EXIT_FAILED;
    }
    return code;
}

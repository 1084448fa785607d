/* run and exec: a command in a VM, with this terminal's streams.
 *
 *     run:  acquire -> exec -> release, whatever happened between
 *
 * SIGINT, SIGTERM and SIGHUP go through a pipe: the handler writes the signal's number, the exec reads it and passes
 * it on to the command. A second one writes a zero, which ends the exec. Before the command runs, one is enough: the
 * pipe is what cancels the acquire. Releasing is not interrupted; the daemon does it in bounded time.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/text.h"
#include "tools/vmfactory/vms.h"

#define EXIT_TIMED_OUT 124

static int signal_pipe[2] = {-1, -1};
static volatile sig_atomic_t signals_seen, first_signal;

static void on_signal(int sig)
{
    int errnum = errno;
    char byte = signals_seen == 0 ? (char)sig : 0;

    if (signals_seen == 0)
        first_signal = sig;
    signals_seen = 1;
    /* The pipe holds more than two bytes: if it is full, enough was said. */
    if (write(signal_pipe[1], &byte, 1) < 0)
        signals_seen = 1;
    errno = errnum;
}

static int catch_signals(struct vf_error *err)
{
    static const int which[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, old;

    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return vf_fail_errno(err, errno, "pipe");
    sigemptyset(&a.sa_mask);
    for (size_t i = 0; i < sizeof(which) / sizeof(which[0]); i++)
        /* What our caller has us ignore (nohup), we ignore. */
        if (sigaction(which[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(which[i], &a, NULL);
    return 0;
}

/* The exit status for what has become of the command. */
static int status_of(const struct vmfactory_exit *e)
{
    if (e->timed_out)
        return EXIT_TIMED_OUT;
    return e->signal != 0 ? 128 + e->signal : e->code & 0xff;
}

static int execute(struct vf_cli *cli, const char *id)
{
    struct vmfactory_exec_options o = VMFACTORY_EXEC_OPTIONS_INIT;
    struct vmfactory_error err;
    struct vmfactory_exit end;
    int r;

    o.argv = cli->rest;
    o.env = cli->args.env.n > 0 ? cli->args.env.v : NULL;
    o.cwd = cli->args.cwd;
    /* For run, --timeout is the acquire's. */
    o.timeout_ms = cli->command->run == vf_cmd_exec ? cli->args.timeout_ms : 0;
    o.stdin_fd = cli->args.interactive ? STDIN_FILENO : -1;
    o.stdout_fd = STDOUT_FILENO;
    o.stderr_fd = STDERR_FILENO;
    o.signal_fd = signal_pipe[0];
    r = vmfactory_exec(cli->h, id, &o, &end, &err);
    if (r >= 0)
        return status_of(&end);
    if (r == -EPIPE && err.status == 0)
        return 128 + SIGPIPE; /* who read our output has left: nothing to say, as others do */
    if (r == -ECANCELED && signals_seen)
        return 128 + first_signal;
    return vf_report(cli, &err);
}

int vf_cmd_exec(struct vf_cli *cli)
{
    struct vf_error err;
    int r = vf_cli_connect(cli);

    if (r != 0)
        return r;
    if (catch_signals(&err) < 0)
        return vf_report_error(cli, &err);
    return execute(cli, cli->operands[0]);
}

int vf_cmd_run(struct vf_cli *cli)
{
    struct vmfactory_error err;
    struct vmfactory_vm vm;
    struct vf_error e;
    int status = vf_lease_check(cli), r;

    if (status == 0)
        status = vf_cli_connect(cli);
    if (status != 0)
        return status;
    if (catch_signals(&e) < 0)
        return vf_report_error(cli, &e);
    vmfactory_set_cancel_fd(cli->h, signal_pipe[0]);
    r = vf_lease(cli, cli->operands[0], &vm, &err);
    vmfactory_set_cancel_fd(cli->h, -1);
    if (r == -ECANCELED && signals_seen)
        return 128 + first_signal;
    if (r < 0)
        return vf_report(cli, &err);
    if (cli->args.verbose)
        vf_say_times(&vm, stderr);
    /* A signal that came just now lies in the pipe: the command gets it first. */
    status = execute(cli, vm.id);
    if (vmfactory_release(cli->h, vm.id, &err) < 0) {
        vf_report(cli, &err);
        fprintf(stderr, "vmfactory: %s may still be leased\n", vm.id);
        status = status == 0 ? VF_EXIT_SELF : status;
    }
    vmfactory_vm_free(&vm);
    return status;
}

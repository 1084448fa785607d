/* Acquires a VM, runs a command in it, releases it.
 *
 *     cc acquire.c $(pkg-config --cflags --libs vmfactory-client) -o acquire
 *     ./acquire linux uname -a
 */
#include <stdio.h>
#include <unistd.h>
#include <vmfactory-client.h>

static int fail(const struct vmfactory_error *err)
{
    fprintf(stderr, "%s: %s\n", err->code, err->message);
    if (err->hint[0] != '\0')
        fprintf(stderr, "hint: %s\n", err->hint);
    return 1;
}

int main(int argc, char **argv)
{
    struct vmfactory_acquire_options want = {.ttl_ms = 60000};
    struct vmfactory_exec_options exec = VMFACTORY_EXEC_OPTIONS_INIT;
    struct vmfactory_exit status;
    struct vmfactory_error err;
    struct vmfactory_vm vm;
    struct vmfactory *h;
    int r;

    if (argc < 3) {
        fprintf(stderr, "usage: %s TEMPLATE COMMAND [ARGUMENT…]\n", argv[0]);
        return 2;
    }
    want.template_name = argv[1];
    if (vmfactory_connect(NULL, &h, &err) < 0)
        return fail(&err);
    if (vmfactory_acquire(h, &want, &vm, &err) < 0) {
        vmfactory_close(h);
        return fail(&err);
    }
    fprintf(stderr, "%s: %s in %lld us (%s)\n", vm.id, vm.source, (long long)vm.total_us,
            vm.reason);

    exec.argv = (const char *const *)argv + 2;
    exec.stdout_fd = STDOUT_FILENO;
    exec.stderr_fd = STDERR_FILENO;
    r = vmfactory_exec(h, vm.id, &exec, &status, &err);
    if (r < 0)
        fail(&err);
    else if (status.signal != 0)
        fprintf(stderr, "ended by signal %d\n", status.signal);

    if (vmfactory_release(h, vm.id, &err) < 0)
        fail(&err);
    vmfactory_vm_free(&vm);
    vmfactory_close(h);
    return r < 0 ? 125 : status.signal != 0 ? 128 + status.signal : status.code;
}

/* The floor gets what the factory gets: the same VMM, spec, command line, sealed memory and state files. */
#include "tools/common/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/fd.h"
#include "factory/cmdline.h"
#include "vmm/vmm.h"

char *vf_floor_find(void)
{
    char self[PATH_MAX], *out = NULL;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        return NULL;
    self[n] = 0;
    if (asprintf(&out, "%s/vmfactory-floor", dirname(self)) < 0)
        return NULL;
    return out;
}

static void parse(const char *text, struct vf_floor_times *t)
{
    const struct {
        const char *name;
        int64_t *to;
    } fields[] = {{"vmm=", &t->vmm},     {"restore=", &t->restore}, {"resume=", &t->resume},
                  {"prove=", &t->prove}, {"boot=", &t->boot},       {"renew=", &t->renew},
                  {"total=", &t->total}, {"wake=", &t->wake},       {"save=", &t->save},
                  {"wall=", &t->wall}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        *fields[i].to = -1;
        for (const char *p = text; (p = strstr(p, fields[i].name)); p++)
            if (p == text || p[-1] == ' ' || p[-1] == '\n')
                *fields[i].to = strtoll(p + strlen(fields[i].name), NULL, 10);
    }
}

static int run(const struct vf_floor *f, char *const *argv, int memory_fd,
               struct vf_floor_times *ret, struct vf_error *err)
{
    int fds[2];
    char text[8192];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return vf_fail_errno(err, errno, "pipe");
    VF_CLEANUP_FD int said = memfd_create("floor-stderr", MFD_CLOEXEC);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], 1);
        dup2(said, 2);
        if (memory_fd >= 0)
            fcntl(memory_fd, F_SETFD, 0);
        execv(f->program, argv);
        _exit(127);
    }
    close(fds[1]);
    VF_CLEANUP_FD int in = fds[0];
    if (pid < 0)
        return vf_fail_errno(err, errno, "fork");
    size_t len = 0;
    ssize_t n;
    while (len < sizeof(text) - 1 &&
           ((n = read(in, text + len, sizeof(text) - 1 - len)) > 0 || (n < 0 && errno == EINTR)))
        len += n > 0 ? (size_t)n : 0;
    text[len] = 0;
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status != 0) {
        n = pread(said, text, sizeof(text) - 1, 0);
        text[n > 0 ? n : 0] = 0;
        vf_fail(err, VF_IO, "%s failed (status 0x%x)", f->program, status);
        return vf_hint(err, "it said: %.200s", text);
    }
    parse(text, ret);
    return 0;
}

struct args {
    char *v[40];
    int n;
    char memory[24], mib[24], parallel[16];
};

static void add(struct args *a, const char *name, const char *value)
{
    if (!value)
        return;
    a->v[a->n++] = (char *)name;
    a->v[a->n++] = (char *)value;
    a->v[a->n] = NULL;
}

static void common(struct args *a, const struct vf_floor *f, const char *what, const char *vmm,
                   const char *binary, const struct vf_spec *spec, enum vf_accel accel)
{
    a->v[a->n++] = (char *)f->program;
    a->v[a->n++] = (char *)what;
    snprintf(a->mib, sizeof(a->mib), "%lld", (long long)spec->memory.size_mib);
    add(a, "--vmm", vmm);
    add(a, "--binary", binary);
    add(a, "--machine", vf_machine_names[spec->machine]);
    add(a, "--accel", vf_accel_names[accel]);
    add(a, "--channel", vf_channel_names[spec->agent.channel]);
    add(a, "--memory-mib", a->mib);
    add(a, "--nics", spec->network.mode != VF_NETWORK_NONE ? "1" : "0");
    add(a, "--dir", f->dir);
}

/* The VMM's state file, or their directory if there are several. */
static char *state_of(const struct vf_generation *gen)
{
    const struct vf_vmm_ops *ops = vf_vmm_find(gen->manifest.vmm.name);
    char *path = NULL;
    bool one = ops && ops->state_files[0] && !ops->state_files[1];
    if (asprintf(&path, "%s/%s", gen->path, one ? ops->state_files[0] : "") < 0)
        return NULL;
    return path;
}

int vf_floor_clone(const struct vf_floor *f, const struct vf_generation *gen, int n,
                   struct vf_floor_times *ret, struct vf_error *err)
{
    struct args a = {.n = 0};
    const struct vf_manifest *m = &gen->manifest;
    VF_CLEANUP_FREE char *state = state_of(gen);
    if (!state)
        return vf_fail(err, VF_NO_MEMORY, "floor");
    common(&a, f, "clone", m->vmm.name, m->vmm.path, &m->spec, (enum vf_accel)m->vmm.accel);
    snprintf(a.memory, sizeof(a.memory), "%d", gen->memory_fd);
    snprintf(a.parallel, sizeof(a.parallel), "%d", n);
    add(&a, "--memory-fd", a.memory);
    add(&a, "--state", state);
    add(&a, "--parallel", a.parallel);
    return run(f, a.v, gen->memory_fd, ret, err);
}

int vf_floor_cold(const struct vf_floor *f, const struct vf_spec *spec, enum vf_accel accel,
                  struct vf_floor_times *ret, struct vf_error *err)
{
    struct args a = {.n = 0};
    VF_CLEANUP_FREE char *cmdline = vf_kernel_cmdline(spec, accel);
    if (!cmdline)
        return vf_fail(err, VF_NO_MEMORY, "floor");
    common(&a, f, "cold", vf_spec_vmm_names[spec->vmm], f->binaries[spec->vmm], spec, accel);
    add(&a, "--kernel", spec->boot.kernel);
    add(&a, "--initrd", spec->boot.initrd);
    add(&a, "--append", cmdline);
    return run(f, a.v, -1, ret, err);
}

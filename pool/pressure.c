/* See pressure.h. Formats: the kernel's Documentation/accounting/psi.rst and proc(5). */
#include "pool/pressure.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"

bool vf_memory_pressure_of(const struct vf_settings *s, const char *psi, const char *meminfo,
                           char *ret_why, size_t size)
{
    double some;
    long long kib;
    if (s->psi_some_percent > 0 && psi && sscanf(psi, "some avg10=%lf", &some) == 1 &&
        some > (double)s->psi_some_percent) {
        snprintf(ret_why, size, "memory pressure: PSI some avg10 is %.2f %%, over %lld %%", some,
                 (long long)s->psi_some_percent);
        return true;
    }
    const char *line = meminfo ? strstr(meminfo, "MemAvailable:") : NULL;
    if (s->min_available_mib > 0 && line && sscanf(line, "MemAvailable: %lld kB", &kib) == 1 &&
        kib / 1024 < s->min_available_mib) {
        snprintf(ret_why, size, "memory pressure: MemAvailable is %lld MiB, below %lld MiB",
                 kib / 1024, (long long)s->min_available_mib);
        return true;
    }
    return false;
}

static bool slurp(const char *path, char *buf, size_t size)
{
    VF_CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
    buf[n > 0 ? n : 0] = 0;
    return n > 0;
}

bool vf_memory_pressure(const struct vf_settings *s, char *ret_why, size_t size)
{
    char psi[512], meminfo[512]; /* MemAvailable is its third line */
    bool has_psi = s->psi_some_percent > 0 && slurp("/proc/pressure/memory", psi, sizeof(psi));
    bool has_mem = s->min_available_mib > 0 && slurp("/proc/meminfo", meminfo, sizeof(meminfo));
    return vf_memory_pressure_of(s, has_psi ? psi : NULL, has_mem ? meminfo : NULL, ret_why, size);
}

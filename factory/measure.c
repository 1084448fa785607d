/* smaps lists each mapping by a head line (addresses, permissions, …, name), then "Name: N kB" lines. The
 * guest's memory is the one mapping of a memfd. */
#include "factory/measure.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int vf_measure_memory(pid_t pid, struct vf_memory_use *ret, struct vf_error *err)
{
    char path[64], line[512];
    struct vf_memory_use m = {0};
    bool guest = false, found = false;
    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return vf_fail_errno(err, errno, "%s", path);
    while (fgets(line, sizeof(line), f)) {
        unsigned long from, to;
        long long kib;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
            guest = strstr(line, " /memfd:") != NULL;
            found |= guest;
        } else if (sscanf(line, "Anonymous: %lld", &kib) == 1)
            *(guest ? &m.guest_anonymous : &m.vmm_anonymous) += kib;
        else if (sscanf(line, "Pss: %lld", &kib) == 1)
            m.pss += kib;
    }
    fclose(f);
    if (!found)
        return vf_fail(err, VF_NOT_FOUND, "process %d maps no guest memory", (int)pid);
    *ret = m;
    return 0;
}

int vf_measure_resident(int memory_fd, int64_t *ret_kib, struct vf_error *err)
{
    struct stat st;
    if (fstat(memory_fd, &st) < 0)
        return vf_fail_errno(err, errno, "template memory");
    *ret_kib = (int64_t)st.st_blocks / 2;
    return 0;
}

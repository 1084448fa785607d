/* What a launched process may not do, although whoever launches it may: a guest that breaks out of its VMM comes into a
 * process that can neither leave its network namespace, nor load a module, nor mount, nor look into other processes.
 *
 * Happy path: all but a few capabilities leave the bounding set, so that exec of root's process does not bring them
 * back, then the other sets. Files stay readable, and writable, as they are for root.
 * On the way: the bounding set takes CAP_SETPCAP. Root without it would get all of them again at exec, which the kernel
 * would take for a rise in privilege (it ends the signal of the parent's death): then nothing is changed.
 */
#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vmm/process.h"

#define BIT(cap) ((uint64_t)1 << (cap))
/* Images and kernels that are somebody else's, and memory that is to stay in place. */
#define ALWAYS_KEPT (BIT(CAP_DAC_OVERRIDE) | BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_IPC_LOCK))

static uint64_t kept_by(const struct vf_launch *l)
{
    uint64_t kept = ALWAYS_KEPT;
    if (l->net_admin)
        kept |= BIT(CAP_NET_ADMIN);
    if (l->userfaults)
        kept |= BIT(CAP_SYS_PTRACE);
    return kept;
}

static bool bound(uint64_t kept)
{
    for (unsigned long cap = 0; cap < 64; cap++)
        if (!(kept & BIT(cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return errno == EINVAL; /* the kernel has no more of them */
    return true;
}

static uint32_t half(uint64_t kept, int i)
{
    return (uint32_t)(kept >> (32 * i));
}

int vf_process_drop_privileges(const struct vf_launch *l)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];
    uint64_t kept = kept_by(l);
    if (!bound(kept) && geteuid() == 0)
        return 0;
    if (syscall(SYS_capget, &header, sets) < 0)
        return -1;
    for (int i = 0; i < 2; i++) {
        sets[i].effective &= half(kept, i);
        sets[i].permitted &= half(kept, i);
        sets[i].inheritable &= half(kept, i);
    }
    return (int)syscall(SYS_capset, &header, sets); /* the ambient set follows */
}

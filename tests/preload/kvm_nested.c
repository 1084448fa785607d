/* For hosts whose KVM has no nested state (KVM_CAP_NESTED_STATE is 0, KVM_GET_NESTED_STATE answers EINVAL): Cloud
 * Hypervisor asks for that state in every snapshot and restore all the same, and fails there. Preloaded into it, this answers that
 * one request with "no nested state" and passes every other on. For tests only: a guest that runs VMs of its own would
 * lose them. kvm-shim (tests/fakes) says where it is needed. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    long r = syscall(SYS_ioctl, fd, request, arg);
    if (r < 0 && errno == EINVAL && request == KVM_GET_NESTED_STATE) {
        struct kvm_nested_state *state = arg;
        memset(state, 0, sizeof(*state));
        state->size = sizeof(*state);
        return 0;
    }
    return (int)r;
}

/* kvm-shim PROGRAM DIRECTORY: prints the path of what to run instead of PROGRAM on this host.
 *
 * That is PROGRAM itself, unless the host's KVM lacks nested state (tests/preload/kvm_nested.c): then it is a script
 * of the same name in DIRECTORY, which preloads the answer to that one request, from the directory this program is in.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static bool lacks_nested_state(void)
{
    union {
        struct kvm_nested_state state;
        uint8_t room[16384];
    } u;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    int vcpu = vm < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
    if (vcpu < 0)
        return false;
    memset(&u, 0, sizeof(u));
    u.state.size = sizeof(u);
    return ioctl(vcpu, KVM_GET_NESTED_STATE, &u) < 0 && errno == EINVAL;
}

int main(int argc, char **argv)
{
    char self[PATH_MAX], real[PATH_MAX], dir[PATH_MAX], script[2 * PATH_MAX];
    if (argc != 3 || !realpath(argv[1], real)) {
        fprintf(stderr, "usage: kvm-shim PROGRAM DIRECTORY\n");
        return 2;
    }
    if (!lacks_nested_state()) {
        puts(real);
        return 0;
    }
    if (!realpath("/proc/self/exe", self) || !realpath(argv[2], dir)) {
        perror(argv[2]);
        return 1;
    }
    snprintf(script, sizeof(script), "%s/%s", dir, basename(argv[1]));
    char text[3 * PATH_MAX], old[sizeof(text)] = "";
    snprintf(text, sizeof(text), "#!/bin/sh\nLD_PRELOAD='%s/kvm_nested.so' exec '%s' \"$@\"\n",
             dirname(self), real);
    /* What is as it must be stays: templates of other tests are bound to the very file. */
    FILE *f = fopen(script, "re");
    if (f) {
        size_t n = fread(old, 1, sizeof(old) - 1, f);
        fclose(f);
        old[n] = 0;
        if (strcmp(old, text) == 0) {
            puts(script);
            return 0;
        }
    }
    /* Written aside and renamed: another test may be running the old one. */
    char tmp[2 * PATH_MAX + 32];
    snprintf(tmp, sizeof(tmp), "%s.%d", script, (int)getpid());
    f = fopen(tmp, "we");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0 || chmod(tmp, 0755) < 0 ||
        rename(tmp, script) < 0) {
        perror(script);
        return 1;
    }
    puts(script);
    return 0;
}

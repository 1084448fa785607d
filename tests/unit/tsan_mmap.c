/* Lets Criterion run under ThreadSanitizer.
 *
 * Criterion's sandbox shares memory with its workers at a random fixed address between 0x2000… and
 * 0x6000…, nearly all of which is ThreadSanitizer's own on x86-64: the sandbox finds it mapped ten
 * times over, or the sanitizer's mmap refuses it, and no test runs. So such an address is called free,
 * and when it is mapped it is moved to a stretch that the sanitizer leaves to the program and that lies
 * below where the kernel puts programs. The sandbox takes the address it is given, and its workers map
 * the memory where their parent has it. Two tests that run at once may be sent to the same place: the
 * second goes to the next free one, for the sandbox would crash where it gets none.
 */
#if defined(__SANITIZE_THREAD__) && defined(__x86_64__)

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REFUSED_FROM UINT64_C(0x010000000000)
#define FREE_FROM UINT64_C(0x550000000000)
#define FREE_TO UINT64_C(0x555000000000)
#define PROGRAM_TO UINT64_C(0x568000000000)
#define REFUSED_TO UINT64_C(0x7b0000000000)
#define PLACE (UINT64_C(1) << 24) /* the sandbox's addresses are multiples of it */

/* Whether a program under the sanitizer can't have memory at addr; it may have it below FREE_TO. */
static int is_refused(const void *addr)
{
    uint64_t a = (uint64_t)(uintptr_t)addr;

    return a >= REFUSED_FROM && a < REFUSED_TO && (a < FREE_FROM || a >= PROGRAM_TO);
}

int mincore(void *addr, size_t len, unsigned char *vec)
{
    if (is_refused(addr)) {
        errno = ENOMEM;
        return -1;
    }
    return (int)syscall(SYS_mincore, addr, len, vec);
}

void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
    static void *(*next)(void *, size_t, int, int, int, off64_t);
    uint64_t a = (uint64_t)(uintptr_t)addr;

    if (next == NULL)
        *(void **)&next = dlsym(RTLD_NEXT, "mmap64");
    if ((flags & MAP_FIXED) && (flags & MAP_SHARED) && is_refused(addr)) {
        const uint64_t places = (FREE_TO - FREE_FROM) / PLACE;
        void *got = MAP_FAILED;

        flags = (flags & ~MAP_FIXED) | MAP_FIXED_NOREPLACE;
        for (uint64_t i = 0; i < places && got == MAP_FAILED; i++) {
            addr = (void *)(uintptr_t)(FREE_FROM + (a / PLACE + i) % places * PLACE);
            got = next(addr, len, prot, flags, fd, offset);
            if (got == MAP_FAILED && errno != EEXIST)
                break;
        }
        return got;
    }
    return next(addr, len, prot, flags, fd, offset);
}

#endif

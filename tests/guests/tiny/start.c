/* Where the VMM jumps to: 32-bit protected mode, flat segments, no paging, %ebx pointing to the PVH
 * start info. Sets up a stack and calls main; also what the compiler expects of a libc.
 */
#include "tests/guests/tiny/tiny.h"

__asm__(".pushsection .note.pvh, \"a\", @note\n"
        ".align 4\n"
        ".long 4, 4, 18\n" /* XEN_ELFNOTE_PHYS32_ENTRY */
        ".asciz \"Xen\"\n"
        ".long tiny_start\n"
        ".popsection\n"
        ".pushsection .text.start, \"ax\", @progbits\n"
        ".globl tiny_start\n"
        "tiny_start:\n"
        "  cli\n"
        "  cld\n"
        "  movl $stack_top, %esp\n"
        "  pushl %ebx\n"
        "  call tiny_main\n"
        "1: hlt\n"
        "  jmp 1b\n"
        ".popsection\n"
        ".pushsection .bss\n"
        ".align 16\n"
        ".skip 16384\n"
        "stack_top:\n"
        ".popsection\n");

#define PVH_MAGIC 0x336ec578u

struct pvh_start_info {
    uint32_t magic, version, flags, n_modules;
    uint64_t modules;
    uint64_t cmdline;
};

void main_loop(void) __attribute__((noreturn));
void tiny_main(const struct pvh_start_info *info);

static char cmdline[2048];

void tiny_main(const struct pvh_start_info *info)
{
    if (info && info->magic == PVH_MAGIC && info->cmdline != 0 && info->cmdline >> 32 == 0) {
        const char *from = (const char *)(uintptr_t)info->cmdline;
        for (size_t i = 0; i < sizeof(cmdline) - 1 && from[i]; i++)
            cmdline[i] = from[i];
    }
    main_loop();
}

const char *cmdline_value(const char *name, size_t *ret_len)
{
    return cmdline_next(name, NULL, ret_len);
}

const char *cmdline_next(const char *name, const char *after, size_t *ret_len)
{
    size_t len = text_len(name);

    for (const char *p = after ? after : cmdline; *p;) {
        const char *end = p;
        while (*end && *end != ' ')
            end++;
        if ((size_t)(end - p) > len && p[len] == '=' && text_is(p, len, name)) {
            *ret_len = (size_t)(end - p) - len - 1;
            return p + len + 1;
        }
        p = *end ? end + 1 : end;
    }
    return NULL;
}

/* String instructions: one instruction for any length also where each is emulated. */
void *memcpy(void *restrict to, const void *restrict from, size_t len)
{
    void *p = to;
    __asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(len) : : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t len)
{
    if ((uintptr_t)to <= (uintptr_t)from || (uintptr_t)to >= (uintptr_t)from + len)
        return memcpy(to, from, len);
    for (uint8_t *p = (uint8_t *)to + len; len > 0; len--)
        *--p = ((const uint8_t *)from)[len - 1];
    return to;
}

void *memset(void *to, int c, size_t len)
{
    void *p = to;
    __asm__ volatile("rep stosb" : "+D"(p), "+c"(len) : "a"(c) : "memory");
    return to;
}

size_t text_len(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

bool text_is(const void *data, size_t len, const char *s)
{
    const char *p = data;

    for (size_t i = 0; i < len; i++)
        if (s[i] == 0 || p[i] != s[i])
            return false;
    return s[len] == 0;
}

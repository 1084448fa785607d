# The tiny PVH guest: one ELF that QEMU, Cloud Hypervisor and Firecracker boot.
# 32-bit code, linked at 1 MiB, in an ELF64 container (some VMMs refuse ELF32).
TINY_SRC := $(wildcard tests/guests/tiny/*.c) base/wire.c base/sha256_small.c
TINY_OBJ := $(TINY_SRC:%.c=$(GUEST)/tiny/%.o)
# No instruction that a KVM without hardware support lacks (it emulates the guest's kernel mode, a
# million a second), and few of them: 32-bit code suffers from values kept across loop rounds.
TINY_CFLAGS := -std=c17 -I. -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
    -O2 -m32 -march=i686 -mno-sse -mno-mmx -mno-80387 -mno-red-zone -ffreestanding -fno-pic \
    -fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing \
    -fno-tree-loop-distribute-patterns -fno-tree-vectorize -fno-tree-pre -fno-predictive-commoning

$(GUEST)/tiny/%.o: %.c tests/guests/tiny.mk
	@mkdir -p $(@D)
	$(CC) $(TINY_CFLAGS) $(WERROR) -MMD -MP -c -o $@ $<

$(TINY): $(TINY_OBJ) tests/guests/tiny/tiny.lds
	$(LD) -m elf_i386 -n --build-id=none --no-warn-rwx-segments -T tests/guests/tiny/tiny.lds -o $(GUEST)/tiny/tiny32.elf \
	    $(TINY_OBJ)
	objcopy -I elf32-i386 -O elf64-x86-64 --strip-debug $(GUEST)/tiny/tiny32.elf $@

-include $(TINY_OBJ:.o=.d)

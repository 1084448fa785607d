/* The tiny guest: a PVH kernel of a few KiB that speaks the agent protocol over COM1, and over vsock if the
 * VM has such a device. It boots in about a millisecond and needs only in, out and plain integer
 * instructions, so it runs where Linux does not. No interrupts, no paging, no floating point: it polls.
 *
 *     start.c   entry from the VMM, command line, memory functions
 *     serial.c  COM1
 *     virtio*.c, vsock.c  the vsock device (virtio.h)
 *     net*.c    the NIC: ARP, neighbours, ping, and a responder on UDP port 7
 *     clock.c   time from the TSC
 *     state.c   what a clone must get anew: random state, clock, identity, nonce
 *     exec.c    the built-in commands and their streams
 *     main.c    the conversation, and the misbehaviours tests ask for
 */
#ifndef TINY_H
#define TINY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/wire.h"

static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline void outw(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}

static inline void outl(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static inline uint64_t rdtsc(void)
{
    uint64_t v;
    __asm__ volatile("rdtsc" : "=A"(v));
    return v;
}

/* --- start.c */
void *memcpy(void *restrict to, const void *restrict from, size_t len);
void *memmove(void *to, const void *from, size_t len);
void *memset(void *to, int c, size_t len);
size_t text_len(const char *s);
bool text_is(const void *data, size_t len, const char *s);
/* The value of a "name=value" word of the kernel command line, or NULL; not NUL-ended. */
const char *cmdline_value(const char *name, size_t *ret_len);
/* The same, of the next such word after the one whose value is after; NULL: the first. */
const char *cmdline_next(const char *name, const char *after, size_t *ret_len);

/* --- serial.c */
void serial_init(void);
/* Up to max bytes that are there now, ending early after a zero byte; 0 if there are none. */
size_t serial_read(uint8_t *buf, size_t max);
void serial_write(const uint8_t *data, size_t len);

/* --- vsock.c */
/* False: there is no such device. */
bool vsock_init(void);
/* Likewise; must be called for anything to go on there. */
size_t vsock_read(uint8_t *buf, size_t max);
/* Drops what is left if the connection ends, or another takes its place. */
void vsock_write(const uint8_t *data, size_t len);
extern uint32_t vsock_talks; /* connections so far */

/* --- net.c */
/* False: there is no NIC. */
bool net_init(void);
extern bool net_there;
/* Takes and answers what has come in; must be called for anything to go on there. */
void net_poll(void);
/* --- net_state.c: who the NIC is */
/* A RENEW begins; one of its records, taken and answered as read back if it is the NIC's. */
void net_renew_begin(void);
void net_renew(uint16_t tag, const uint8_t *p, size_t len, struct vf_wire_writer *w);

/* --- clock.c: ns since the clock was made; goes on across a restore like the TSC does */
void clock_init(void);
int64_t clock_ns(void);

/* --- state.c */
enum misbehaviour {
    BEHAVE,
    IGNORE_RESEED, /* the right digest, but the random state stays */
    NO_DIGEST,
    STALE_NONCE, /* from here on only after FREEZE */
    MUTE,
    HALF_FRAME,
    FLOOD,
    FLOOD_GARBAGE,
    MUTE_BOOT, /* from the start */
    PANIC_BOOT,
    LATE_CLOCK,    /* ignores TIME, is 10 s off */
    SAME_IDENTITY, /* ignores MACHINE_ID and HOSTNAME */
    WRONG_MAC,     /* from here on: a NIC that did not take what it was told */
    WRONG_IPV4,
    WRONG_IPV6,
    WRONG_MTU,
    WRONG_DNS,
    NO_DNS,
    WRONG_GATEWAY_MAC,
};
extern enum misbehaviour misbehaviour;
extern bool frozen; /* since a FREEZE was answered */

void state_init(void);
/* The next 32 bytes that follow from the random state. */
void state_random(uint8_t ret[32]);
void state_put_hello(struct vf_wire_writer *w);
/* Applies a RENEW and writes what it changed. */
void state_renew(const struct vf_wire_frame *f, struct vf_wire_writer *w);
extern char hostname[64];
extern uint8_t machine_id[16];

/* --- exec.c */
struct channel;
void exec_start(const struct vf_wire_frame *f);
void exec_stdin(const struct vf_wire_frame *f);
void exec_credit(const struct vf_wire_frame *f);
void exec_kill(const struct vf_wire_frame *f);
/* Ends those of one channel, or (NULL) all of them, without a word: their talk is over. */
void exec_end_all(const struct channel *c);
/* One step of whatever runs. Returns false if nothing can go on. */
bool exec_step(void);

/* --- main.c */
extern int64_t arrival_ns; /* clock_ns() when the first bytes of the frame being answered came */
/* A way to the host. Whoever speaks is answered on the channel it spoke on. */
struct channel {
    size_t (*read)(uint8_t *buf, size_t max);
    void (*write)(const uint8_t *data, size_t len);
    struct vf_wire_reader *reader;
};
extern struct channel *current; /* where send writes to */
extern struct vf_wire_writer writer;
void send(void); /* what writer holds */
void send_error(uint32_t id, uint32_t linux_errno, const char *text);

#endif

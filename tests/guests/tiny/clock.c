/* Time from the TSC, whose rate is measured once at boot against the PIT (5 ms of it).
 *
 * Where there is no PIT the rate is what the hypervisor says in CPUID, or the processor. If none does 1 GHz is
 * taken: the clock then is right when set and wrong later, and deadlines are only rough.
 */
#include "tests/guests/tiny/tiny.h"

#define PIT_HZ 1193182u
#define PIT_DATA 0x42
#define PIT_COMMAND 0x43
#define PIT_GATE 0x61
#define MEASURE_TICKS 5966 /* 5 ms */
#define MAX_TRIES 100000u
#define SHIFT 22

static uint64_t start;
static uint32_t mult; /* ns = ticks * mult >> SHIFT */

/* 64 by 32 bits; the caller knows that the quotient fits. */
static uint32_t divide(uint64_t a, uint32_t b)
{
    uint32_t quotient, rest;
    __asm__("divl %4"
            : "=a"(quotient), "=d"(rest)
            : "0"((uint32_t)a), "1"((uint32_t)(a >> 32)), "r"(b));
    return quotient;
}

static uint32_t read_pit(void)
{
    outb(PIT_COMMAND, 0x80); /* latch channel 2 */
    uint32_t low = inb(PIT_DATA);
    return low | (uint32_t)inb(PIT_DATA) << 8;
}

static uint32_t cpuid(uint32_t leaf, uint32_t *ret_b, uint32_t *ret_c)
{
    uint32_t a = leaf, d;
    *ret_c = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(*ret_b), "+c"(*ret_c), "=d"(d));
    return a;
}

static uint32_t told_khz(void)
{
    uint32_t b, c, a = cpuid(0x40000000, &b, &c);

    if (a >= 0x40000010 && a < 0x40010000 && (a = cpuid(0x40000010, &b, &c)) > 0)
        return a;
    uint32_t last = cpuid(0, &b, &c);
    if (last >= 0x15) {
        a = cpuid(0x15, &b, &c); /* TSC = crystal's c Hz * b / a */
        if (a > 0 && b > 0 && c > 0 && b / a < 1000)
            return divide((uint64_t)(c / 1000) * b, a);
    }
    if (last >= 0x16 && (a = cpuid(0x16, &b, &c) & 0xffff) > 0)
        return a * 1000;
    return 1000000;
}

void clock_init(void)
{
    uint32_t ticks = 0, khz = 0;

    start = rdtsc();
    outb(PIT_GATE, (uint8_t)((inb(PIT_GATE) & ~2) | 1)); /* channel 2 counts, the speaker is off */
    outb(PIT_COMMAND, 0xb4);                             /* channel 2, low and high byte, mode 2 */
    outb(PIT_DATA, 0xff);
    outb(PIT_DATA, 0xff);
    uint64_t begin = rdtsc(), end = begin;
    uint32_t first = read_pit();
    for (uint32_t tries = 0; ticks < MEASURE_TICKS && tries < MAX_TRIES; tries++) {
        uint32_t now = read_pit();
        end = rdtsc();
        ticks = (first - now) & 0xffff;
        if (now == 0xffff && tries > 20)
            break; /* nothing counts there */
    }
    uint64_t spent = end - begin;
    if (ticks >= MEASURE_TICKS && spent >> 32 == 0)
        khz = divide(spent * (PIT_HZ / 1000), ticks);
    if (khz == 0)
        khz = told_khz();
    if (khz < 1000)
        khz = 1000; /* below, mult would not fit in 32 bits */
    mult = divide((uint64_t)1000000 << SHIFT, khz);
}

int64_t clock_ns(void)
{
    uint64_t t = rdtsc() - start;
    uint64_t high = (t >> 32) * mult, low = (uint64_t)(uint32_t)t * mult;

    return (int64_t)((high << (32 - SHIFT)) + (low >> SHIFT));
}

/* Virtio over MMIO, version 2. The VMM tells where devices are on the command line:
 * virtio_mmio.device=SIZE@ADDRESS:IRQ, once for each.
 */
#include "tests/guests/tiny/virtio.h"

#define MAGIC 0x74726976u

/* Registers, in words. */
enum {
    R_MAGIC = 0x00 / 4,
    R_VERSION = 0x04 / 4,
    R_TYPE = 0x08 / 4,
    R_FEATURES = 0x20 / 4,
    R_FEATURES_SELECT = 0x24 / 4,
    R_QUEUE_SELECT = 0x30 / 4,
    R_QUEUE_MAX = 0x34 / 4,
    R_QUEUE_SIZE = 0x38 / 4,
    R_QUEUE_READY = 0x44 / 4,
    R_NOTIFY = 0x50 / 4,
    R_STATUS = 0x70 / 4,
    R_DESC = 0x80 / 4,
    R_AVAIL = 0x90 / 4,
    R_USED = 0xa0 / 4
};

static volatile uint32_t *reg;

static void set_status(uint8_t status)
{
    reg[R_STATUS] = status;
}

static uint8_t get_status(void)
{
    return (uint8_t)reg[R_STATUS];
}

static void set_features(uint32_t low, uint32_t high)
{
    reg[R_FEATURES_SELECT] = 0;
    reg[R_FEATURES] = low;
    reg[R_FEATURES_SELECT] = 1;
    reg[R_FEATURES] = high;
}

static bool set_queue(const struct virtq *q)
{
    reg[R_QUEUE_SELECT] = q->number;
    if (reg[R_QUEUE_MAX] < RING)
        return false;
    reg[R_QUEUE_SIZE] = RING;
    reg[R_DESC] = (uint32_t)(uintptr_t)&q->desc;
    reg[R_DESC + 1] = 0;
    reg[R_AVAIL] = (uint32_t)(uintptr_t)&q->avail;
    reg[R_AVAIL + 1] = 0;
    reg[R_USED] = (uint32_t)(uintptr_t)&q->used;
    reg[R_USED + 1] = 0;
    reg[R_QUEUE_READY] = 1;
    return true;
}

static void notify(uint16_t queue)
{
    reg[R_NOTIFY] = queue;
}

static const struct virtio_bus bus = {set_status, get_status, set_features, set_queue, notify};

/* The hexadecimal number after "@0x" in the word at p; 0 if there is none. */
static uint32_t address_in(const char *p, size_t len)
{
    uint32_t v = 0;
    size_t i = 0;

    while (i < len && p[i] != '@')
        i++;
    for (i += 3; i < len; i++) {
        uint32_t digit = (uint8_t)(p[i] - '0');
        if (digit > 9)
            digit = (uint32_t)(p[i] | 0x20) - 'a' + 10;
        if (digit > 15)
            break;
        v = v << 4 | digit;
    }
    return v;
}

const struct virtio_bus *virtio_mmio_find(uint32_t type)
{
    const char *word = NULL;
    size_t len;

    while ((word = cmdline_next("virtio_mmio.device", word, &len))) {
        uint32_t address = address_in(word, len);
        if (address == 0)
            continue;
        reg = (volatile uint32_t *)(uintptr_t)address;
        if (reg[R_MAGIC] == MAGIC && reg[R_VERSION] == 2 && reg[R_TYPE] == type)
            return &bus;
    }
    return NULL;
}

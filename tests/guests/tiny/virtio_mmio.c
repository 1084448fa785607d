/* Virtio over MMIO. The VMM tells where devices are on the command line: virtio_mmio.device=SIZE@ADDRESS:IRQ, once
 * for each. QEMU's microvm does not, but has them at a fixed place; its are of version 1, in which a queue is one
 * piece of memory, told by the number of its page.
 */
#include "tests/guests/tiny/virtio.h"

#define MAGIC 0x74726976u
#define MICROVM_BASE 0xfeb00000u
#define MICROVM_STEP 512
#define MICROVM_SLOTS 24

/* Registers, in words. */
enum {
    R_MAGIC = 0x00 / 4,
    R_VERSION = 0x04 / 4,
    R_TYPE = 0x08 / 4,
    R_OFFERED = 0x10 / 4,
    R_OFFERED_SELECT = 0x14 / 4,
    R_FEATURES = 0x20 / 4,
    R_FEATURES_SELECT = 0x24 / 4,
    R_PAGE_SIZE = 0x28 / 4, /* version 1 */
    R_QUEUE_SELECT = 0x30 / 4,
    R_QUEUE_MAX = 0x34 / 4,
    R_QUEUE_SIZE = 0x38 / 4,
    R_QUEUE_ALIGN = 0x3c / 4, /* version 1 */
    R_QUEUE_PAGE = 0x40 / 4,  /* version 1 */
    R_QUEUE_READY = 0x44 / 4,
    R_NOTIFY = 0x50 / 4,
    R_STATUS = 0x70 / 4,
    R_DESC = 0x80 / 4,
    R_AVAIL = 0x90 / 4,
    R_USED = 0xa0 / 4,
    R_CONFIG = 0x100 / 4
};

_Static_assert(offsetof(struct virtq, avail) == RING * 16 &&
                   offsetof(struct virtq, used) ==
                       (RING * 16 + 4 + 2 * RING + RING_ALIGN - 1) / RING_ALIGN * RING_ALIGN,
               "where version 1 looks for them");

static void set_status(struct virtio_device *d, uint8_t status)
{
    d->reg[R_STATUS] = status;
}

static uint8_t get_status(struct virtio_device *d)
{
    return (uint8_t)d->reg[R_STATUS];
}

static uint32_t get_features(struct virtio_device *d)
{
    d->reg[R_OFFERED_SELECT] = 0;
    return d->reg[R_OFFERED];
}

static void set_features(struct virtio_device *d, uint32_t low, uint32_t high)
{
    d->reg[R_FEATURES_SELECT] = 0;
    d->reg[R_FEATURES] = low;
    if (d->legacy)
        return;
    d->reg[R_FEATURES_SELECT] = 1;
    d->reg[R_FEATURES] = high;
}

static bool set_queue(struct virtio_device *d, const struct virtq *q)
{
    volatile uint32_t *reg = d->reg;

    reg[R_QUEUE_SELECT] = q->number;
    if (reg[R_QUEUE_MAX] < RING)
        return false;
    reg[R_QUEUE_SIZE] = RING;
    if (d->legacy) {
        reg[R_PAGE_SIZE] = RING_PAGE;
        reg[R_QUEUE_ALIGN] = RING_ALIGN;
        reg[R_QUEUE_PAGE] = (uint32_t)(uintptr_t)&q->desc / RING_PAGE;
        return true;
    }
    reg[R_DESC] = (uint32_t)(uintptr_t)&q->desc;
    reg[R_DESC + 1] = 0;
    reg[R_AVAIL] = (uint32_t)(uintptr_t)&q->avail;
    reg[R_AVAIL + 1] = 0;
    reg[R_USED] = (uint32_t)(uintptr_t)&q->used;
    reg[R_USED + 1] = 0;
    reg[R_QUEUE_READY] = 1;
    return true;
}

static void notify(struct virtio_device *d, uint16_t queue)
{
    d->reg[R_NOTIFY] = queue;
}

static uint8_t get_config(struct virtio_device *d, uint32_t offset)
{
    return ((volatile uint8_t *)&d->reg[R_CONFIG])[offset];
}

static const struct virtio_bus bus = {set_status, get_status, get_features, set_features,
                                      set_queue,  notify,     get_config};

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

static bool try_at(struct virtio_device *d, uint32_t address, uint32_t type)
{
    d->reg = (volatile uint32_t *)(uintptr_t)address;
    if (d->reg[R_MAGIC] != MAGIC || d->reg[R_TYPE] != type)
        return false;
    d->legacy = d->reg[R_VERSION] == 1;
    d->bus = &bus;
    return d->legacy || d->reg[R_VERSION] == 2;
}

bool virtio_mmio_find(struct virtio_device *d, uint32_t type)
{
    const char *word = NULL;
    size_t len;

    while ((word = cmdline_next("virtio_mmio.device", word, &len))) {
        uint32_t address = address_in(word, len);
        if (address != 0 && try_at(d, address, type))
            return true;
    }
    return false;
}

bool virtio_microvm_find(struct virtio_device *d, uint32_t type)
{
    size_t len;

    if (cmdline_value("virtio_mmio.device", &len) || virtio_pci_there())
        return false;
    for (uint32_t i = 0; i < MICROVM_SLOTS; i++)
        if (try_at(d, MICROVM_BASE + i * MICROVM_STEP, type))
            return true;
    return false;
}

/* Virtio over PCI, without its BARs: they may lie where 32 bits do not reach. The capability
 * VIRTIO_PCI_CAP_PCI_CFG is a window into them in configuration space, and that is reached by two ports.
 *
 * The window stays where it was turned to, so that a notification of the same queue is one access.
 */
#include "tests/guests/tiny/virtio.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define VENDOR_VIRTIO 0x1af4u
#define FIRST_OLD 0x1000u
#define FIRST_TYPE 0x1040u /* device id of type 0 */

#define CAP_VENDOR 0x09
#define CAP_COMMON 1
#define CAP_NOTIFY 2
#define CAP_CONFIG 4
#define CAP_WINDOW 5
#define MAX_CAPS 32

/* In the common structure. */
#define C_OFFERED_SELECT 0x00
#define C_OFFERED 0x04
#define C_FEATURES_SELECT 0x08
#define C_FEATURES 0x0c
#define C_STATUS 0x14
#define C_QUEUE_SELECT 0x16
#define C_QUEUE_SIZE 0x18
#define C_QUEUE_ENABLE 0x1c
#define C_QUEUE_NOTIFY 0x1e
#define C_QUEUE_DESC 0x20
#define C_QUEUE_AVAIL 0x28
#define C_QUEUE_USED 0x30

static void point(uint32_t slot, uint32_t offset)
{
    outl(CONFIG_ADDRESS, 0x80000000u | slot << 11 | (offset & 0xfc));
}

static uint32_t config_read(uint32_t slot, uint32_t offset)
{
    point(slot, offset);
    return inl(CONFIG_DATA);
}

static void config_write(uint32_t slot, uint32_t offset, uint32_t v)
{
    point(slot, offset);
    outl(CONFIG_DATA, v);
}

/* ---- through the window */

static void turn_window(struct virtio_device *d, const struct virtio_place *p, uint32_t offset,
                        uint32_t len)
{
    offset += p->offset;
    if (offset == d->pci.window_offset && len == d->pci.window_len)
        return;
    d->pci.window_offset = offset;
    d->pci.window_len = len;
    point(d->pci.slot, d->pci.window + 4);
    outb(CONFIG_DATA, (uint8_t)p->bar);
    config_write(d->pci.slot, d->pci.window + 8, offset);
    config_write(d->pci.slot, d->pci.window + 12, len);
}

static void put8(struct virtio_device *d, uint32_t offset, uint8_t v)
{
    turn_window(d, &d->pci.common, offset, 1);
    point(d->pci.slot, d->pci.window + 16);
    outb(CONFIG_DATA, v);
}

static void put16(struct virtio_device *d, const struct virtio_place *p, uint32_t offset,
                  uint16_t v)
{
    turn_window(d, p, offset, 2);
    point(d->pci.slot, d->pci.window + 16);
    outw(CONFIG_DATA, v);
}

static void put32(struct virtio_device *d, uint32_t offset, uint32_t v)
{
    turn_window(d, &d->pci.common, offset, 4);
    config_write(d->pci.slot, d->pci.window + 16, v);
}

/* A window is read four bytes at a time, and len says how many of them count. */
static uint32_t get(struct virtio_device *d, const struct virtio_place *p, uint32_t offset,
                    uint32_t len)
{
    turn_window(d, p, offset, len);
    return config_read(d->pci.slot, d->pci.window + 16);
}

/* ---- the bus */

static void set_status(struct virtio_device *d, uint8_t status)
{
    put8(d, C_STATUS, status);
}

static uint8_t get_status(struct virtio_device *d)
{
    return (uint8_t)get(d, &d->pci.common, C_STATUS, 1);
}

static uint32_t get_features(struct virtio_device *d)
{
    put32(d, C_OFFERED_SELECT, 0);
    return get(d, &d->pci.common, C_OFFERED, 4);
}

static void set_features(struct virtio_device *d, uint32_t low, uint32_t high)
{
    put32(d, C_FEATURES_SELECT, 0);
    put32(d, C_FEATURES, low);
    put32(d, C_FEATURES_SELECT, 1);
    put32(d, C_FEATURES, high);
}

static void put_address(struct virtio_device *d, uint32_t offset, const volatile void *p)
{
    put32(d, offset, (uint32_t)(uintptr_t)p);
    put32(d, offset + 4, 0);
}

static bool set_queue(struct virtio_device *d, const struct virtq *q)
{
    const struct virtio_place *common = &d->pci.common;

    put16(d, common, C_QUEUE_SELECT, q->number);
    if (q->number >= RING || (uint16_t)get(d, common, C_QUEUE_SIZE, 2) < RING)
        return false;
    d->pci.notify_of[q->number] = (uint16_t)get(d, common, C_QUEUE_NOTIFY, 2);
    put16(d, common, C_QUEUE_SIZE, RING);
    put_address(d, C_QUEUE_DESC, &q->desc);
    put_address(d, C_QUEUE_AVAIL, &q->avail);
    put_address(d, C_QUEUE_USED, &q->used);
    put16(d, common, C_QUEUE_ENABLE, 1);
    return true;
}

static void notify(struct virtio_device *d, uint16_t queue)
{
    put16(d, &d->pci.notifications, d->pci.notify_of[queue] * d->pci.notify_multiplier, queue);
}

static uint8_t get_config(struct virtio_device *d, uint32_t offset)
{
    return d->pci.config.there ? (uint8_t)get(d, &d->pci.config, offset, 1) : 0;
}

static const struct virtio_bus bus = {set_status, get_status, get_features, set_features,
                                      set_queue,  notify,     get_config};

static bool read_capabilities(struct virtio_device *d)
{
    uint32_t slot = d->pci.slot, at = config_read(slot, 0x34) & 0xfc;

    for (unsigned n = 0; at != 0 && n < MAX_CAPS; n++) {
        uint32_t head = config_read(slot, at);
        uint32_t kind = head >> 24;
        struct virtio_place p = {.there = true};
        if ((head & 0xff) == CAP_VENDOR) {
            p.bar = config_read(slot, at + 4) & 0xff;
            p.offset = config_read(slot, at + 8);
            if (kind == CAP_COMMON && !d->pci.common.there)
                d->pci.common = p;
            if (kind == CAP_CONFIG && !d->pci.config.there)
                d->pci.config = p;
            if (kind == CAP_NOTIFY && !d->pci.notifications.there) {
                d->pci.notifications = p;
                d->pci.notify_multiplier = config_read(slot, at + 16);
            }
            if (kind == CAP_WINDOW)
                d->pci.window = at;
        }
        at = head >> 8 & 0xfc;
    }
    return d->pci.common.there && d->pci.notifications.there && d->pci.window != 0;
}

/* A transitional device (QEMU's q35) has an old id, and its type in the subsystem's. */
static bool is_of_type(uint32_t slot, uint32_t type)
{
    uint32_t id = config_read(slot, 0);

    if ((id & 0xffff) != VENDOR_VIRTIO)
        return false;
    id >>= 16;
    return id == FIRST_TYPE + type ||
           (id >= FIRST_OLD && id < FIRST_TYPE && config_read(slot, 0x2c) >> 16 == type);
}

bool virtio_pci_there(void)
{
    return config_read(0, 0) != UINT32_MAX;
}

bool virtio_pci_find(struct virtio_device *d, uint32_t type)
{
    if (!virtio_pci_there())
        return false;
    for (uint32_t slot = 1; slot < 32; slot++) {
        if (!is_of_type(slot, type))
            continue;
        config_write(slot, 0x04, (config_read(slot, 0x04) & 0xffff) | 0x6); /* memory, bus master */
        memset(&d->pci, 0, sizeof(d->pci));
        d->pci.slot = slot;
        d->pci.window_offset = UINT32_MAX;
        d->legacy = false;
        d->bus = &bus;
        if (read_capabilities(d))
            return true;
    }
    return false;
}

/* Virtio over PCI, without its BARs: they may lie where 32 bits do not reach. The capability
 * VIRTIO_PCI_CAP_PCI_CFG is a window into them in configuration space, and that is reached by two ports.
 *
 * The window stays where it was turned to, so that a notification of the same queue is one access.
 */
#include "tests/guests/tiny/virtio.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define VENDOR_VIRTIO 0x1af4u
#define FIRST_TYPE 0x1040u /* device id of type 0 */

#define CAP_VENDOR 0x09
#define CAP_COMMON 1
#define CAP_NOTIFY 2
#define CAP_WINDOW 5
#define MAX_CAPS 32

/* In the common structure. */
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

struct place {
    uint32_t bar, offset;
    bool there;
};

static uint32_t slot; /* the device's number on bus 0 */
static struct place common, notifications;
static uint32_t notify_multiplier;
static uint32_t window; /* the capability's offset in configuration space */
static uint32_t window_offset = UINT32_MAX, window_len;
static uint16_t notify_of[RING]; /* each queue's place among the notifications */

static void point(uint32_t offset)
{
    outl(CONFIG_ADDRESS, 0x80000000u | slot << 11 | (offset & 0xfc));
}

static uint32_t config_read(uint32_t offset)
{
    point(offset);
    return inl(CONFIG_DATA);
}

static void config_write(uint32_t offset, uint32_t v)
{
    point(offset);
    outl(CONFIG_DATA, v);
}

/* ---- through the window */

static void turn_window(const struct place *p, uint32_t offset, uint32_t len)
{
    offset += p->offset;
    if (offset == window_offset && len == window_len)
        return;
    window_offset = offset;
    window_len = len;
    point(window + 4);
    outb(CONFIG_DATA, (uint8_t)p->bar);
    config_write(window + 8, offset);
    config_write(window + 12, len);
}

static void put8(const struct place *p, uint32_t offset, uint8_t v)
{
    turn_window(p, offset, 1);
    point(window + 16);
    outb(CONFIG_DATA, v);
}

static void put16(const struct place *p, uint32_t offset, uint16_t v)
{
    turn_window(p, offset, 2);
    point(window + 16);
    outw(CONFIG_DATA, v);
}

static void put32(const struct place *p, uint32_t offset, uint32_t v)
{
    turn_window(p, offset, 4);
    config_write(window + 16, v);
}

static uint16_t get16(const struct place *p, uint32_t offset)
{
    turn_window(p, offset, 2);
    return (uint16_t)config_read(window + 16);
}

/* ---- the bus */

static void set_status(uint8_t status)
{
    put8(&common, C_STATUS, status);
}

/* A window is read four bytes at a time, and length says how many of them count. */
static uint8_t get_status(void)
{
    turn_window(&common, C_STATUS, 1);
    return (uint8_t)config_read(window + 16);
}

static void set_features(uint32_t low, uint32_t high)
{
    put32(&common, C_FEATURES_SELECT, 0);
    put32(&common, C_FEATURES, low);
    put32(&common, C_FEATURES_SELECT, 1);
    put32(&common, C_FEATURES, high);
}

static void put_address(uint32_t offset, const volatile void *p)
{
    put32(&common, offset, (uint32_t)(uintptr_t)p);
    put32(&common, offset + 4, 0);
}

static bool set_queue(const struct virtq *q)
{
    put16(&common, C_QUEUE_SELECT, q->number);
    if (q->number >= RING || get16(&common, C_QUEUE_SIZE) < RING)
        return false;
    notify_of[q->number] = get16(&common, C_QUEUE_NOTIFY);
    put16(&common, C_QUEUE_SIZE, RING);
    put_address(C_QUEUE_DESC, &q->desc);
    put_address(C_QUEUE_AVAIL, &q->avail);
    put_address(C_QUEUE_USED, &q->used);
    put16(&common, C_QUEUE_ENABLE, 1);
    return true;
}

static void notify(uint16_t queue)
{
    put16(&notifications, notify_of[queue] * notify_multiplier, queue);
}

static const struct virtio_bus bus = {set_status, get_status, set_features, set_queue, notify};

static bool read_capabilities(void)
{
    uint32_t at = config_read(0x34) & 0xfc;

    common.there = notifications.there = false;
    window = 0;
    for (unsigned n = 0; at != 0 && n < MAX_CAPS; n++) {
        uint32_t head = config_read(at);
        uint32_t kind = head >> 24;
        struct place p = {.there = true};
        if ((head & 0xff) == CAP_VENDOR) {
            p.bar = config_read(at + 4) & 0xff;
            p.offset = config_read(at + 8);
            if (kind == CAP_COMMON && !common.there)
                common = p;
            if (kind == CAP_NOTIFY && !notifications.there) {
                notifications = p;
                notify_multiplier = config_read(at + 16);
            }
            if (kind == CAP_WINDOW)
                window = at;
        }
        at = head >> 8 & 0xfc;
    }
    return common.there && notifications.there && window != 0;
}

const struct virtio_bus *virtio_pci_find(uint32_t type)
{
    slot = 0;
    if (config_read(0) == UINT32_MAX)
        return NULL; /* there is no PCI */
    for (slot = 1; slot < 32; slot++) {
        if (config_read(0) != ((FIRST_TYPE + type) << 16 | VENDOR_VIRTIO))
            continue;
        config_write(0x04, (config_read(0x04) & 0xffff) | 0x6); /* memory, bus master */
        if (read_capabilities())
            return &bus;
    }
    return NULL;
}

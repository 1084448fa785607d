/* Virtio without interrupts: split rings in the guest's memory that are looked at, and the two ways to reach a
 * device. VIRTIO_F_VERSION_1 is taken, and what the driver asks for; a device over MMIO may also be of the version
 * before it (QEMU's microvm).
 *
 *     virtio.c       the rings, and a device found and brought up
 *     virtio_mmio.c  where the command line says virtio_mmio.device=… (Firecracker), or at a fixed place (microvm)
 *     virtio_pci.c   on PCI bus 0, through configuration space alone (Cloud Hypervisor)
 *     vsock.c        the socket device on top of them
 *     net.c          the NIC
 */
#ifndef TINY_VIRTIO_H
#define TINY_VIRTIO_H

#include "tests/guests/tiny/tiny.h"

#define RING 8 /* descriptors a ring, a power of two */

#define VIRTIO_ACKNOWLEDGE 1
#define VIRTIO_DRIVER 2
#define VIRTIO_DRIVER_OK 4
#define VIRTIO_FEATURES_OK 8

#define DESC_WRITE 2 /* the device writes it */

/* Aligned as devices of the older version are told: they take the whole ring as one. */
#define RING_PAGE 512
#define RING_ALIGN 64

struct virtq {
    volatile struct {
        uint64_t address;
        uint32_t len;
        uint16_t flags, next;
    } desc[RING] __attribute__((aligned(RING_PAGE)));
    volatile struct {
        uint16_t flags, index, ring[RING], used_event;
    } avail __attribute__((aligned(2)));
    volatile struct {
        uint16_t flags, index;
        struct {
            uint32_t id, len;
        } ring[RING];
        uint16_t avail_event;
    } used __attribute__((aligned(RING_ALIGN)));
    uint16_t number; /* of the queue in its device */
    uint16_t seen;   /* used entries taken so far */
};

struct virtio_place {
    uint32_t bar, offset;
    bool there;
};

struct virtio_bus;
struct virtio_device {
    const struct virtio_bus *bus; /* NULL: there is none */
    bool legacy;                  /* of the version before 1 */
    uint32_t features;            /* taken, of the low word */
    volatile uint32_t *reg;       /* over MMIO */
    struct {                      /* over PCI */
        uint32_t slot;            /* its number on bus 0 */
        struct virtio_place common, notifications, config;
        uint32_t notify_multiplier;
        uint32_t window; /* the capability's offset in configuration space */
        uint32_t window_offset, window_len;
        uint16_t notify_of[RING]; /* each queue's place among the notifications */
    } pci;
};

/* A way to a device that was found. */
struct virtio_bus {
    void (*set_status)(struct virtio_device *d, uint8_t status);
    uint8_t (*status)(struct virtio_device *d);
    uint32_t (*features)(struct virtio_device *d); /* offered, the low word */
    void (*set_features)(struct virtio_device *d, uint32_t low, uint32_t high);
    bool (*set_queue)(struct virtio_device *d, const struct virtq *q);
    void (*notify)(struct virtio_device *d, uint16_t queue);
    uint8_t (*config)(struct virtio_device *d, uint32_t offset);
};

/* The device of that type, into d; one of each at most is looked for. */
bool virtio_mmio_find(struct virtio_device *d, uint32_t type);
bool virtio_pci_find(struct virtio_device *d, uint32_t type);
/* Whether there is PCI at all. */
bool virtio_pci_there(void);
/* Where QEMU's microvm puts its devices, which it says only in ACPI's language. */
bool virtio_microvm_find(struct virtio_device *d, uint32_t type);

/* Finds the device and brings it up with its n queues and those of the features that it offers; false if there is
 * none, or it does not want to. Then the queues are posted to, and notified. */
bool virtio_start(struct virtio_device *d, uint32_t type, uint32_t features, struct virtq *queues,
                  unsigned n);
void virtio_notify(struct virtio_device *d, uint16_t queue);
/* Gives descriptor i with len bytes at p to the device. */
void virtq_post(struct virtq *q, unsigned i, const void *p, uint32_t len, uint16_t flags);
/* Whether the device has, since, used all that was posted before before_index and so may have stopped looking. */
bool virtq_starved(const struct virtq *q, uint16_t before_index);
/* Whether the device wants to be told of what was posted. */
bool virtq_wants_notice(const struct virtq *q);
/* The next descriptor that the device is done with, or -1. ret_len (may be NULL): how much it says it wrote. */
int virtq_take(struct virtq *q, uint32_t *ret_len);

#endif

/* Virtio without interrupts: split rings in the guest's memory that are looked at, and the two ways to reach a
 * device. Only VIRTIO_F_VERSION_1 is taken.
 *
 *     virtio.c       the rings, and a device brought up
 *     virtio_mmio.c  where the command line says virtio_mmio.device=… (Firecracker)
 *     virtio_pci.c   on PCI bus 0, through configuration space alone (Cloud Hypervisor)
 *     vsock.c        the socket device on top of them
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

struct virtq {
    volatile struct {
        uint64_t address;
        uint32_t len;
        uint16_t flags, next;
    } desc[RING] __attribute__((aligned(16)));
    volatile struct {
        uint16_t flags, index, ring[RING], used_event;
    } avail __attribute__((aligned(2)));
    volatile struct {
        uint16_t flags, index;
        struct {
            uint32_t id, len;
        } ring[RING];
        uint16_t avail_event;
    } used __attribute__((aligned(4)));
    uint16_t number; /* of the queue in its device */
    uint16_t seen;   /* used entries taken so far */
};

/* A way to a device that was found. */
struct virtio_bus {
    void (*set_status)(uint8_t status);
    uint8_t (*status)(void);
    void (*set_features)(uint32_t low, uint32_t high);
    bool (*set_queue)(const struct virtq *q);
    void (*notify)(uint16_t queue);
};

/* The device of that type, or NULL; one of each at most is looked for. */
const struct virtio_bus *virtio_mmio_find(uint32_t type);
const struct virtio_bus *virtio_pci_find(uint32_t type);

/* Brings the device up with its n queues; false if it does not want to. */
bool virtio_start(const struct virtio_bus *bus, struct virtq *queues, unsigned n);
/* Gives descriptor i with len bytes at p to the device. */
void virtq_post(struct virtq *q, unsigned i, const void *p, uint32_t len, uint16_t flags);
/* Whether the device has, since, used all that was posted before before_index and so may have stopped looking. */
bool virtq_starved(const struct virtq *q, uint16_t before_index);
/* The next descriptor that the device is done with, or -1. */
int virtq_take(struct virtq *q);

#endif

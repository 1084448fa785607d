/* Rings: a descriptor is posted by its number, which is also its slot; the device gives it back as used. The
 * device runs on another thread, so an index is written after what it stands for.
 */
#include "tests/guests/tiny/virtio.h"

#define NO_INTERRUPT 1

/* x86 keeps stores in order, so the compiler must. */
static void keep_order(void)
{
    __asm__ volatile("" ::: "memory");
}

bool virtio_start(const struct virtio_bus *bus, struct virtq *queues, unsigned n)
{
    uint8_t status = VIRTIO_ACKNOWLEDGE;

    bus->set_status(0);
    bus->set_status(status);
    bus->set_status(status |= VIRTIO_DRIVER);
    bus->set_features(0, 1); /* VIRTIO_F_VERSION_1 */
    bus->set_status(status |= VIRTIO_FEATURES_OK);
    if (!(bus->status() & VIRTIO_FEATURES_OK))
        return false;
    for (unsigned i = 0; i < n; i++) {
        queues[i].number = (uint16_t)i;
        queues[i].avail.flags = NO_INTERRUPT;
        if (!bus->set_queue(&queues[i]))
            return false;
    }
    bus->set_status(status | VIRTIO_DRIVER_OK);
    return true;
}

void virtq_post(struct virtq *q, unsigned i, const void *p, uint32_t len, uint16_t flags)
{
    uint16_t index = q->avail.index;

    q->desc[i].address = (uintptr_t)p;
    q->desc[i].len = len;
    q->desc[i].flags = flags;
    q->avail.ring[index % RING] = (uint16_t)i;
    keep_order();
    q->avail.index = (uint16_t)(index + 1);
}

bool virtq_starved(const struct virtq *q, uint16_t before_index)
{
    /* What was posted must be visible before it is seen how far the device is. */
    __asm__ volatile("lock addl $0, (%%esp)" ::: "memory", "cc");
    return q->used.index == before_index;
}

int virtq_take(struct virtq *q)
{
    if (q->used.index == q->seen)
        return -1;
    keep_order();
    return (int)(q->used.ring[q->seen++ % RING].id % RING);
}

/* Rings: a descriptor is posted by its number, which is also its slot; the device gives it back as used. The
 * device runs on another thread, so an index is written after what it stands for.
 */
#include "tests/guests/tiny/virtio.h"

#define NO_INTERRUPT 1 /* of us, in avail.flags */
#define NO_NOTICE 1    /* of the device, in used.flags */

/* x86 keeps stores in order, so the compiler must. */
static void keep_order(void)
{
    __asm__ volatile("" ::: "memory");
}

bool virtio_start(struct virtio_device *d, uint32_t type, uint32_t features, struct virtq *queues,
                  unsigned n)
{
    uint8_t status = VIRTIO_ACKNOWLEDGE;

    if (!virtio_mmio_find(d, type) && !virtio_pci_find(d, type) && !virtio_microvm_find(d, type))
        return false;
    const struct virtio_bus *bus = d->bus;
    d->bus = NULL;
    bus->set_status(d, 0);
    bus->set_status(d, status);
    bus->set_status(d, status |= VIRTIO_DRIVER);
    d->features = bus->features(d) & features;
    bus->set_features(d, d->features, d->legacy ? 0 : 1); /* VIRTIO_F_VERSION_1 */
    if (!d->legacy) {
        bus->set_status(d, status |= VIRTIO_FEATURES_OK);
        if (!(bus->status(d) & VIRTIO_FEATURES_OK))
            return false;
    }
    for (unsigned i = 0; i < n; i++) {
        queues[i].number = (uint16_t)i;
        queues[i].avail.flags = NO_INTERRUPT;
        if (!bus->set_queue(d, &queues[i]))
            return false;
    }
    bus->set_status(d, status | VIRTIO_DRIVER_OK);
    d->bus = bus;
    return true;
}

void virtio_notify(struct virtio_device *d, uint16_t queue)
{
    d->bus->notify(d, queue);
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

/* What was posted must be visible before it is seen how far the device is. */
static void let_it_see(void)
{
    __asm__ volatile("lock addl $0, (%%esp)" ::: "memory", "cc");
}

bool virtq_wants_notice(const struct virtq *q)
{
    let_it_see();
    return !(q->used.flags & NO_NOTICE);
}

bool virtq_starved(const struct virtq *q, uint16_t before_index)
{
    let_it_see();
    return q->used.index == before_index;
}

int virtq_take(struct virtq *q, uint32_t *ret_len)
{
    if (q->used.index == q->seen)
        return -1;
    keep_order();
    uint16_t i = q->seen++ % RING;
    if (ret_len)
        *ret_len = q->used.ring[i].len;
    return (int)(q->used.ring[i].id % RING);
}

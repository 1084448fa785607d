/* The NIC. One queue for each direction, no offloads: every frame is whole and has its checksums. Received frames are
 * answered at once, or not at all if the device still has all that is there to be sent.
 */
#include "tests/guests/tiny/net.h"
#include "tests/guests/tiny/virtio.h"

#define TYPE_NET 1
#define F_MTU (1u << 3)
#define F_MAC (1u << 5)
#define CONFIG_MAC 0
#define CONFIG_MTU 10

enum { RX, TX, QUEUES };

/* Before each frame, all zero but for the number of buffers, which is only there since version 1. */
#define HEADER 12
#define OLD_HEADER 10

struct packet {
    uint8_t bytes[HEADER + MAX_FRAME] __attribute__((aligned(8)));
};
/* Larger than what is taken: Firecracker stops looking while what is posted is less than 64 KiB in all. */
struct room {
    uint8_t bytes[16384];
};

static struct virtio_device device;
static struct virtq queues[QUEUES];
static struct room rx[RING];
static struct packet tx[RING];
static unsigned tx_sent; /* how many were sent: the first RING need not be waited for */
static int tx_next = -1; /* taken, and not sent yet */
bool net_there;

static uint32_t header_len(void)
{
    return device.legacy ? OLD_HEADER : HEADER;
}

bool net_init(void)
{
    if (!virtio_start(&device, TYPE_NET, F_MAC | F_MTU, queues, QUEUES))
        return false;
    if (device.features & F_MAC)
        for (uint32_t i = 0; i < sizeof(net.mac); i++)
            net.mac[i] = device.bus->config(&device, CONFIG_MAC + i);
    if (device.features & F_MTU) {
        uint32_t low = device.bus->config(&device, CONFIG_MTU);
        uint32_t mtu = low | (uint32_t)device.bus->config(&device, CONFIG_MTU + 1) << 8;
        net.mtu = mtu < MAX_MTU ? mtu : MAX_MTU;
    }
    for (unsigned i = 0; i < RING; i++)
        virtq_post(&queues[RX], i, &rx[i], sizeof(rx[i]), DESC_WRITE);
    virtio_notify(&device, RX);
    return true;
}

/* No more than are there in one round: whoever floods the NIC does not keep the guest from its channel. */
void net_poll(void)
{
    uint32_t len, header = header_len();
    unsigned n = 0;
    int i;

    for (; n < RING && (i = virtq_take(&queues[RX], &len)) >= 0; n++) {
        if (len > header && len <= header + MAX_FRAME)
            net_take(rx[i].bytes + header, len - header);
        virtq_post(&queues[RX], (unsigned)i, &rx[i], sizeof(rx[i]), DESC_WRITE);
    }
    if (n > 0 && virtq_wants_notice(&queues[RX]))
        virtio_notify(&device, RX);
}

uint8_t *net_begin(void)
{
    if (tx_next < 0)
        tx_next = tx_sent < RING ? (int)tx_sent : virtq_take(&queues[TX], NULL);
    return tx_next < 0 ? NULL : tx[tx_next].bytes + header_len();
}

void net_send(size_t len)
{
    uint8_t *bytes = tx[tx_next].bytes;

    memset(bytes, 0, header_len());
    if (tx_sent < RING)
        tx_sent++;
    virtq_post(&queues[TX], (unsigned)tx_next, bytes, header_len() + (uint32_t)len, 0);
    virtio_notify(&device, TX);
    tx_next = -1;
}

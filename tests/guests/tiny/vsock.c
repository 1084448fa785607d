/* The socket device: listens on the agent's port and takes one connection at a time.
 *
 *     REQUEST --> RESPONSE, RW and CREDIT_UPDATE both ways, until SHUTDOWN or RST
 *
 * A new REQUEST takes the place of the connection there is: after a restore the host knows nothing of that one.
 * The device then says TRANSPORT_RESET on its event queue or RST, which end it too; its answer to the event is
 * what makes some VMMs go on. Bytes are kept in a ring until they are read; credit is told as it is emptied.
 */
#include "tests/guests/tiny/virtio.h"

#define TYPE_VSOCK 19
#define HOST_CID 2

enum { RX, TX, EVENTS, QUEUES };

enum op { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
#define STREAM 1

struct header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

#define DATA (4096 - sizeof(struct header))
struct packet {
    struct header h;
    uint8_t data[DATA];
};

#define INPUT 32768 /* what the host may send unread */

static struct virtio_device device;
static struct virtq queues[QUEUES];
static struct packet rx[RING], tx[RING];
static uint64_t events[RING];
static unsigned tx_sent; /* how many were sent: the first RING need not be waited for */

static struct {
    bool open;
    uint64_t guest_cid;
    uint32_t port;                       /* the host's */
    uint32_t buf_alloc, fwd_cnt, tx_cnt; /* what the host takes, has taken, was sent */
    uint32_t rx_taken, rx_told;          /* bytes read here, and as the host was told */
} peer;
static uint8_t input[INPUT];
static uint32_t input_head, input_held;
uint32_t vsock_talks;

static int free_tx(void)
{
    return tx_sent < RING ? (int)tx_sent : virtq_take(&queues[TX], NULL);
}

static struct packet *await_tx(int *ret_i)
{
    while ((*ret_i = free_tx()) < 0)
        ;
    tx_sent++;
    return &tx[*ret_i];
}

/* Sends the packet, which is filled but for its header. */
static void send_packet(int i, enum op op, uint32_t port, uint32_t guest_port, uint32_t len)
{
    struct packet *p = &tx[i];

    p->h = (struct header){.src_cid = peer.guest_cid,
                           .dst_cid = HOST_CID,
                           .src_port = guest_port,
                           .dst_port = port,
                           .len = len,
                           .type = STREAM,
                           .op = (uint16_t)op,
                           .buf_alloc = INPUT,
                           .fwd_cnt = peer.rx_taken};
    peer.rx_told = peer.rx_taken;
    virtq_post(&queues[TX], (unsigned)i, p, (uint32_t)sizeof(p->h) + len, 0);
    virtio_notify(&device, TX);
}

static void say(enum op op, uint32_t port, uint32_t guest_port)
{
    int i;

    await_tx(&i);
    send_packet(i, op, port, guest_port, 0);
}

static void open(const struct header *h)
{
    if (peer.open && peer.port != h->src_port)
        say(RST, peer.port, VF_WIRE_VSOCK_PORT);
    peer.open = true;
    peer.guest_cid = h->dst_cid;
    peer.port = h->src_port;
    peer.buf_alloc = h->buf_alloc;
    peer.fwd_cnt = h->fwd_cnt;
    peer.tx_cnt = peer.rx_taken = peer.rx_told = 0;
    input_head = input_held = 0;
    vsock_talks++;
    say(RESPONSE, peer.port, VF_WIRE_VSOCK_PORT);
}

static void keep(const uint8_t *data, uint32_t len)
{
    uint32_t tail, part;

    if (len > INPUT - input_held) { /* more than it was told to send */
        peer.open = false;
        say(RST, peer.port, VF_WIRE_VSOCK_PORT);
        return;
    }
    if (input_held == 0)
        input_head = 0; /* touches as few pages as need be */
    tail = (input_head + input_held) % INPUT;
    part = INPUT - tail < len ? INPUT - tail : len;
    memcpy(input + tail, data, part);
    memcpy(input, data + part, len - part);
    input_held += len;
}

static void take_packet(const struct packet *p)
{
    const struct header *h = &p->h;

    if (h->op == REQUEST) {
        if (h->dst_port == VF_WIRE_VSOCK_PORT && h->type == STREAM) {
            open(h);
        } else {
            peer.guest_cid = h->dst_cid;
            say(RST, h->src_port, h->dst_port);
        }
        return;
    }
    if (!peer.open || h->src_port != peer.port || h->dst_port != VF_WIRE_VSOCK_PORT) {
        if (h->op != RST)
            say(RST, h->src_port, h->dst_port);
        return;
    }
    peer.buf_alloc = h->buf_alloc;
    peer.fwd_cnt = h->fwd_cnt;
    switch (h->op) {
    case RW:
        keep(p->data, h->len < DATA ? h->len : DATA);
        break;
    case CREDIT_REQUEST:
        say(CREDIT_UPDATE, peer.port, VF_WIRE_VSOCK_PORT);
        break;
    case SHUTDOWN:
        say(RST, peer.port, VF_WIRE_VSOCK_PORT);
        peer.open = false;
        break;
    case RST:
        peer.open = false;
        break;
    }
}

/* Looks at what the device has done; it is all in memory. Events come first: a reset is older than what
 * follows it. */
static void poll_device(void)
{
    uint16_t before = queues[EVENTS].avail.index;
    int i;

    if (queues[EVENTS].used.index != queues[EVENTS].seen) {
        while ((i = virtq_take(&queues[EVENTS], NULL)) >= 0) {
            peer.open = false; /* TRANSPORT_RESET is the only event there is */
            virtq_post(&queues[EVENTS], (unsigned)i, &events[i], sizeof(events[i]), DESC_WRITE);
        }
        virtio_notify(&device, EVENTS);
    }
    before = queues[RX].avail.index;
    if (queues[RX].used.index == queues[RX].seen)
        return;
    while ((i = virtq_take(&queues[RX], NULL)) >= 0) {
        take_packet(&rx[i]);
        virtq_post(&queues[RX], (unsigned)i, &rx[i], sizeof(rx[i]), DESC_WRITE);
        if (virtq_starved(&queues[RX], before))
            virtio_notify(&device, RX);
        before = queues[RX].avail.index;
    }
}

bool vsock_init(void)
{
    if (!virtio_start(&device, TYPE_VSOCK, 0, queues, QUEUES))
        return false;
    for (unsigned i = 0; i < RING; i++) {
        virtq_post(&queues[RX], i, &rx[i], sizeof(rx[i]), DESC_WRITE);
        virtq_post(&queues[EVENTS], i, &events[i], sizeof(events[i]), DESC_WRITE);
    }
    virtio_notify(&device, RX);
    virtio_notify(&device, EVENTS);
    return true;
}

size_t vsock_read(uint8_t *buf, size_t max)
{
    uint32_t talk = vsock_talks;
    size_t n;

    poll_device();
    if (vsock_talks != talk)
        return 0; /* whoever reads has to know first */
    n = input_held < max ? input_held : max;
    if (n > INPUT - input_head)
        n = INPUT - input_head;
    if (n == 0)
        return 0;
    memcpy(buf, input + input_head, n);
    input_head = (input_head + (uint32_t)n) % INPUT;
    input_held -= (uint32_t)n;
    peer.rx_taken += (uint32_t)n;
    if (peer.open && peer.rx_taken - peer.rx_told >= INPUT / 2)
        say(CREDIT_UPDATE, peer.port, VF_WIRE_VSOCK_PORT);
    return n;
}

void vsock_write(const uint8_t *data, size_t len)
{
    uint32_t talk = vsock_talks;

    while (len > 0) {
        uint32_t room = peer.buf_alloc - (peer.tx_cnt - peer.fwd_cnt), n = (uint32_t)len;
        struct packet *p;
        int i;
        if (!peer.open || vsock_talks != talk)
            return; /* nobody is there any more who asked for it */
        if (room == 0 || room > peer.buf_alloc) {
            poll_device(); /* until the host has read */
            continue;
        }
        n = n < room ? n : room;
        n = n < DATA ? n : DATA;
        p = await_tx(&i);
        memcpy(p->data, data, n);
        peer.tx_cnt += n;
        send_packet(i, RW, peer.port, VF_WIRE_VSOCK_PORT, n);
        data += n;
        len -= n;
    }
}

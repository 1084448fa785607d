/* COM1, a 16550, polled. The FIFO is on: 16 bytes may follow one look at the status when writing. */
#include "tests/guests/tiny/tiny.h"

#define COM1 0x3f8
#define DATA (COM1 + 0)
#define INTERRUPTS (COM1 + 1)
#define FIFO (COM1 + 2)
#define LINE (COM1 + 3)
#define MODEM (COM1 + 4)
#define STATUS (COM1 + 5)
#define STATUS_READABLE 0x01
#define STATUS_WRITABLE 0x20
#define FIFO_SIZE 16

void serial_init(void)
{
    outb(INTERRUPTS, 0);
    outb(LINE, 0x80); /* the divisor: 115200 baud */
    outb(DATA, 1);
    outb(INTERRUPTS, 0);
    outb(LINE, 0x03); /* 8 bits, no parity, 1 stop bit */
    outb(FIFO, 0xc1); /* on, filled 14 at a time; not cleared: the host may have spoken first */
    outb(MODEM, 0x03);
}

size_t serial_read(uint8_t *buf, size_t max)
{
    size_t n = 0;

    while (n < max && inb(STATUS) & STATUS_READABLE) {
        uint8_t c = inb(DATA);
        buf[n++] = c;
        if (c == 0)
            break;
    }
    return n;
}

void serial_write(const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n = len < FIFO_SIZE ? len : FIFO_SIZE;
        while (!(inb(STATUS) & STATUS_WRITABLE))
            ;
        len -= n;
        __asm__ volatile("rep outsb" : "+S"(data), "+c"(n) : "d"(DATA) : "memory");
    }
}

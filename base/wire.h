/* The agent protocol's frames and messages: one codec for the host, the Linux agent and the tiny
 * guest. Freestanding C: no libc beyond memcpy, memmove, memset; no allocation.
 *
 * A frame on the channel (virtio-serial, vsock, COM1):
 *
 *     COBS( header | body | crc32 ) 0x00
 *
 * COBS (Cheshire and Baker, 1999) removes every zero byte, so a zero byte is always the end of a
 * frame. Whoever (re)connects first sends one zero byte: it ends whatever was cut off when the
 * template was frozen in the middle of a message, and the next frame is whole again.
 *
 *     header, little endian:  u8 version (1) | u8 type | u16 body length | u32 id
 *     crc32: IEEE 802.3 (as zlib's), little endian, over header and body
 *     body: records  u16 tag | u16 length | bytes   (VF_TAG_*)
 *
 * A frame that fails its checks is dropped, and counted: on a fresh connection up to
 * VF_WIRE_MAX_GARBAGE bytes of it are the tail of an older talk; later it is a protocol error.
 *
 * Talk: the host asks, the guest answers with the same id. EXEC opens a stream under its id, on
 * which STDIN, STDOUT, STDERR, CREDIT, KILL and one EXIT follow. Unknown types are answered with
 * ERROR, unknown tags are skipped. HELLO begins a new talk: the guest ends the streams of the one
 * before without a word (FREEZE does too), drops what it had still to say and sends a zero byte first.
 * What of the old talk was on its way already may come before HELLO_OK: skip it. A guest that begins to
 * listen may say so with a HELLO_OK of id 0. STDOUT and STDERR share one window; CREDIT and STDIN for
 * a stream that has ended mean nothing.
 */
#ifndef VF_BASE_WIRE_H
#define VF_BASE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define VF_WIRE_VERSION 1
/* Where the agent listens if the channel is vsock: the bytes "VF". Free of what else listens in guests of
 * sandboxes (the kata-agent has 1024), and above 1023, so that it needs no privilege. */
#define VF_WIRE_VSOCK_PORT 0x5646
#define VF_WIRE_HEADER 8
#define VF_WIRE_MAX_BODY 16384
/* Longest frame before COBS, and after it with its delimiter. */
#define VF_WIRE_MAX_RAW (VF_WIRE_HEADER + VF_WIRE_MAX_BODY + 4)
#define VF_WIRE_MAX_FRAME (VF_WIRE_MAX_RAW + VF_WIRE_MAX_RAW / 254 + 2)
#define VF_WIRE_MAX_GARBAGE (2 * VF_WIRE_MAX_FRAME)

enum vf_msg {
    /* host -> guest */
    VF_MSG_HELLO = 1,  /* who are you? -> HELLO_OK */
    VF_MSG_RENEW = 2,  /* NONCE, ENTROPY, TIME, MACHINE_ID, HOSTNAME, MAC, IPV4 …: -> RENEW_OK */
    VF_MSG_PING = 3,   /* DATA -> PONG with the same DATA */
    VF_MSG_FREEZE = 4, /* end all execs, sync, answer, then only wait: -> FREEZE_OK */
    VF_MSG_EXEC = 5,   /* ARG…, ENV…, CWD, DEADLINE_MS -> EXEC_OK, or ERROR */
    VF_MSG_STDIN = 6,  /* DATA; without DATA: end of file */
    VF_MSG_KILL = 7,   /* SIGNAL */
    /* both ways */
    VF_MSG_CREDIT = 8, /* BYTES: the sender has consumed that much of the stream's data */
    /* guest -> host */
    VF_MSG_HELLO_OK = 0x81, /* BOOT_ID, NONCE (if planted), AGENT, FEATURES */
    VF_MSG_RENEW_OK =
        0x82, /* DIGEST and SAMPLE if ENTROPY was sent, TIME, MACHINE_ID, HOSTNAME, MAC,
                               IPV4, IPV6, MTU, DNS, GATEWAY_MAC as read back from the system, each if it was sent */
    VF_MSG_PONG = 0x83,
    VF_MSG_FREEZE_OK = 0x84,
    VF_MSG_EXEC_OK = 0x85, /* PID */
    VF_MSG_STDOUT = 0x86,  /* DATA; without DATA: end of file */
    VF_MSG_STDERR = 0x87,
    VF_MSG_EXIT = 0x88,  /* STATUS or SIGNAL, TIMED_OUT; after the last STDOUT and STDERR */
    VF_MSG_ERROR = 0xff, /* ERRNO, TEXT: the request with this id failed */
};

enum vf_tag {
    VF_TAG_BOOT_ID = 1,  /* 16 bytes: /proc/sys/kernel/random/boot_id */
    VF_TAG_NONCE = 2,    /* 32 bytes, planted after the template's boot, kept in RAM only */
    VF_TAG_AGENT = 3,    /* text: name and version of the agent */
    VF_TAG_FEATURES = 4, /* u32: VF_FEATURE_* */
    VF_TAG_ENTROPY = 5,  /* 64 to 512 bytes: credited in full, then the CRNG is reseeded */
    VF_TAG_DIGEST = 6,   /* 32 bytes: SHA-256 of the ENTROPY that arrived */
    VF_TAG_SAMPLE = 7,   /* 16 bytes: getrandom() after the reseed */
    VF_TAG_TIME = 8,     /* i64: ns since the Unix epoch; answer: the guest's clock after setting */
    VF_TAG_MACHINE_ID = 9,   /* 16 bytes */
    VF_TAG_HOSTNAME = 10,    /* text, at most 63 bytes */
    VF_TAG_MAC = 11,         /* 6 bytes, of the guest's first NIC */
    VF_TAG_IPV4 = 12,        /* 4 bytes address, u8 prefix length, 4 bytes gateway (0: none) */
    VF_TAG_DATA = 13,        /* bytes of a stream, or of a ping */
    VF_TAG_ARG = 14,         /* text, repeated, argv in order */
    VF_TAG_ENV = 15,         /* text NAME=value, repeated */
    VF_TAG_CWD = 16,         /* text */
    VF_TAG_DEADLINE_MS = 17, /* u32: then the command's process group is killed; 0: none */
    VF_TAG_PID = 18,         /* u32 */
    VF_TAG_STATUS = 19,      /* u32: exit status */
    VF_TAG_SIGNAL = 20,      /* u32 */
    VF_TAG_TIMED_OUT = 21,   /* empty: the command's deadline ended it */
    VF_TAG_BYTES = 22,       /* u32 */
    VF_TAG_ERRNO = 23,       /* u32, Linux numbers */
    VF_TAG_TEXT = 24,        /* text */
    VF_TAG_IPV6 = 25,        /* 16 bytes address, u8 prefix length, 16 bytes gateway (0: none) */
    VF_TAG_MTU = 26,         /* u32, of the guest's first NIC */
    VF_TAG_DNS = 27,         /* 4 or 16 bytes, repeated: the resolvers, all of them */
    VF_TAG_GATEWAY_MAC = 28, /* 6 bytes: a permanent neighbour for the gateways of IPV4 and IPV6 */
};

#define VF_FEATURE_EXEC 1u
#define VF_FEATURE_RESEED 2u /* a kernel CRNG, or its stand-in, takes the entropy */
#define VF_FEATURE_CLOCK 4u
#define VF_FEATURE_IDENTITY 8u /* machine-id and hostname */
#define VF_FEATURE_NET 16u     /* MAC and IPv4 of a NIC */
#define VF_FEATURE_NET2 32u    /* IPV6, MTU, DNS and GATEWAY_MAC, too */

/* A stream's receiver takes this much unasked; more needs CREDIT. */
#define VF_WIRE_WINDOW 262144

/* --- writing: start, put…, end; the buffer holds the encoded frame */
struct vf_wire_writer {
    uint8_t raw[VF_WIRE_MAX_RAW];
    size_t len;
    int failed; /* a record did not fit */
};
void vf_wire_start(struct vf_wire_writer *w, uint8_t type, uint32_t id);
void vf_wire_put(struct vf_wire_writer *w, uint16_t tag, const void *data, size_t len);
void vf_wire_put_u32(struct vf_wire_writer *w, uint16_t tag, uint32_t v);
void vf_wire_put_i64(struct vf_wire_writer *w, uint16_t tag, int64_t v);
/* Writes the encoded frame with its 0x00 to out (VF_WIRE_MAX_FRAME bytes). Returns its length, or 0
 * if a record did not fit. */
size_t vf_wire_end(struct vf_wire_writer *w, uint8_t *out);

/* --- reading */
struct vf_wire_frame {
    uint8_t type;
    uint32_t id;
    const uint8_t *body; /* in the reader's buffer, until the next feed */
    size_t body_len;
};
struct vf_wire_reader {
    uint8_t buf[VF_WIRE_MAX_FRAME];
    size_t len;
    int overrun;      /* the frame in progress was too long: skip to its delimiter */
    uint64_t garbage; /* bytes of frames dropped so far; an empty frame (a lone 0x00) is none */
};
void vf_wire_reset(struct vf_wire_reader *r);
/* Takes bytes from data until a frame is whole. Returns how many it took; *ret_frame->type is 0 if no
 * frame is whole yet. Call again with the rest. */
size_t vf_wire_feed(struct vf_wire_reader *r, const uint8_t *data, size_t len,
                    struct vf_wire_frame *ret_frame);
/* Walks the records: *pos starts at 0. Returns 1 with a record, 0 at the end, -1 if malformed. */
int vf_wire_next(const struct vf_wire_frame *f, size_t *pos, uint16_t *ret_tag,
                 const uint8_t **ret_data, size_t *ret_len);
/* The first record with tag, or NULL. *ret_len may be NULL. */
const uint8_t *vf_wire_find(const struct vf_wire_frame *f, uint16_t tag, size_t *ret_len);
uint32_t vf_wire_u32(const uint8_t *p);
int64_t vf_wire_i64(const uint8_t *p);
uint32_t vf_crc32(const void *data, size_t len);

#endif

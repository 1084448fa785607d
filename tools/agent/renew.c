/* HELLO and RENEW: who this guest is, and who it is from now on.
 *
 * Order: entropy, then time, then identity, then the NIC (renew_net.c), so that nothing that follows draws from the random state
 * all clones share. Every value in the answer is read back from the system, never echoed. A message
 * with a field of the wrong size changes nothing; a step that fails ends the rest with ERROR.
 */
#include "tools/agent/agent.h"
#include "base/sha256_small.h"
#include "tools/agent/netlink.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define MAX_ENTROPY 512

static uint8_t boot_id[16];
static uint8_t nonce[32]; /* nowhere else: only a restore of this memory can know it */
static bool has_nonce;
static int random_fd = -1;
static bool has_nic;

static const char hex_digits[] = "0123456789abcdef";

/* 2*len hex digits, which may have dashes between them. */
static bool parse_hex(const char *text, uint8_t *ret, size_t len)
{
    for (size_t i = 0; i < 2 * len; text++) {
        if (*text == '-' && i > 0)
            continue;
        const char *d = *text ? strchr(hex_digits, *text | 0x20) : NULL;
        if (!d)
            return false;
        ret[i / 2] = (uint8_t)(i % 2 ? ret[i / 2] | (d - hex_digits) : (d - hex_digits) << 4);
        i++;
    }
    return true;
}

void renew_setup(void)
{
    char text[64];

    if (read_text("/proc/sys/kernel/random/boot_id", text, sizeof(text)) < 0 ||
        !parse_hex(text, boot_id, sizeof(boot_id)))
        getrandom(boot_id, sizeof(boot_id), 0);
    random_fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (random_fd < 0)
        say("/dev/urandom: %s", strerror(errno));
    has_nic = net_has_nic();
    if (nl_open() < 0)
        say("netlink: %s", strerror(errno));
}

void put_hello(void)
{
    /* As a service it may have started before the NIC was there. */
    if (!has_nic && !as_init)
        has_nic = net_has_nic();
    vf_wire_put(&writer, VF_TAG_BOOT_ID, boot_id, sizeof(boot_id));
    if (has_nonce)
        vf_wire_put(&writer, VF_TAG_NONCE, nonce, sizeof(nonce));
    vf_wire_put(&writer, VF_TAG_AGENT, AGENT_NAME, sizeof(AGENT_NAME) - 1);
    vf_wire_put_u32(&writer, VF_TAG_FEATURES,
                    VF_FEATURE_EXEC | VF_FEATURE_RESEED | VF_FEATURE_CLOCK | VF_FEATURE_IDENTITY |
                        (has_nic ? VF_FEATURE_NET | VF_FEATURE_NET2 : 0));
}

/* Credits the entropy in full and makes the kernel draw its next keys from it. */
static int reseed(const uint8_t *entropy, size_t len)
{
    struct {
        int entropy_count, buf_size;
        uint8_t buf[MAX_ENTROPY];
    } add = {(int)len * 8, (int)len, {0}};
    uint8_t digest[VF_SHA256_SMALL_SIZE], sample[16];

    memcpy(add.buf, entropy, len);
    if (ioctl(random_fd, RNDADDENTROPY, &add) != 0 || ioctl(random_fd, RNDRESEEDCRNG) != 0)
        return -errno;
    if (getrandom(sample, sizeof(sample), 0) != (ssize_t)sizeof(sample))
        return -EIO;
    vf_sha256_small(entropy, len, digest);
    vf_wire_put(&writer, VF_TAG_DIGEST, digest, sizeof(digest));
    vf_wire_put(&writer, VF_TAG_SAMPLE, sample, sizeof(sample));
    explicit_bzero(add.buf, sizeof(add.buf));
    return 0;
}

/* told was true at arrival_ns. */
static int set_time(int64_t told, int64_t arrival_ns)
{
    if (arrival_ns != 0)
        told += now_ns() - arrival_ns;
    struct timespec ts = {told / 1000000000, told % 1000000000};
    if (told < 0 || clock_settime(CLOCK_REALTIME, &ts) != 0)
        return told < 0 ? -EINVAL : -errno;
    return 0;
}

/* Read last, so that the answer is fresh when it goes out. */
static void put_time(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    vf_wire_put_i64(&writer, VF_TAG_TIME, (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec);
}

static int set_machine_id(const uint8_t id[16])
{
    char text[34], back[64];
    uint8_t got[16];

    for (unsigned i = 0; i < 16; i++) {
        text[2 * i] = hex_digits[id[i] >> 4];
        text[2 * i + 1] = hex_digits[id[i] & 15];
    }
    text[32] = '\n';
    int err = write_etc("/etc/machine-id", "/run/machine-id", text, 33);
    if (err != 0)
        return err;
    err = read_text("/etc/machine-id", back, sizeof(back));
    if (err != 32 || !parse_hex(back, got, sizeof(got)))
        return err < 0 ? err : -EIO;
    vf_wire_put(&writer, VF_TAG_MACHINE_ID, got, sizeof(got));
    return 0;
}

static bool is_hostname(const uint8_t *p, size_t len)
{
    if (len == 0 || len > 63 || p[0] == '-' || p[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'z') ||
              (p[i] >= 'A' && p[i] <= 'Z') || p[i] == '-' || p[i] == '.'))
            return false;
    return true;
}

static int set_hostname(const uint8_t *name, size_t len)
{
    char text[65];
    struct utsname uts;

    memcpy(text, name, len);
    text[len] = '\n';
    if (sethostname(text, len) != 0)
        return -errno;
    int err = write_etc("/etc/hostname", "/run/hostname", text, len + 1);
    if (err != 0)
        return err;
    uname(&uts);
    vf_wire_put(&writer, VF_TAG_HOSTNAME, uts.nodename, strlen(uts.nodename));
    return 0;
}

/* The fields of a RENEW; NULL where it has none. */
struct fields {
    const uint8_t *nonce, *entropy, *time, *machine_id, *hostname;
    size_t entropy_len, hostname_len;
    struct net_fields net;
};

/* Returns NULL, or what is wrong with the message, until the next call. */
static const char *collect(const struct vf_wire_frame *f, struct fields *ret)
{
    static char words[32];
    size_t pos = 0, len;
    uint16_t tag;
    const uint8_t *p;
    int more;

    memset(ret, 0, sizeof(*ret));
    while ((more = vf_wire_next(f, &pos, &tag, &p, &len)) > 0) {
        bool good = true;
        switch (tag) {
        case VF_TAG_NONCE:
            good = len == sizeof(nonce);
            ret->nonce = p;
            break;
        case VF_TAG_ENTROPY:
            good = len >= 64 && len <= MAX_ENTROPY;
            ret->entropy = p;
            ret->entropy_len = len;
            break;
        case VF_TAG_TIME:
            good = len == 8;
            ret->time = p;
            break;
        case VF_TAG_MACHINE_ID:
            good = len == 16;
            ret->machine_id = p;
            break;
        case VF_TAG_HOSTNAME:
            good = is_hostname(p, len);
            ret->hostname = p;
            ret->hostname_len = len;
            break;
        default:
            good = renew_net_collect(tag, p, len, &ret->net);
        }
        if (!good) {
            snprintf(words, sizeof(words), "field %u is malformed", tag);
            return words;
        }
    }
    return more < 0 ? "the message is malformed" : NULL;
}

void renew(const struct vf_wire_frame *f, int64_t arrival_ns)
{
    struct fields in;
    const char *step = collect(f, &in);
    int err = 0;

    if (step) {
        send_error(f->id, EINVAL, step);
        return;
    }
    vf_wire_start(&writer, VF_MSG_RENEW_OK, f->id);
    if (in.nonce) {
        memcpy(nonce, in.nonce, sizeof(nonce));
        has_nonce = true;
    }
    if (in.entropy) {
        step = "reseed";
        err = reseed(in.entropy, in.entropy_len);
    }
    if (err == 0 && in.time) {
        step = "clock";
        err = set_time(vf_wire_i64(in.time), arrival_ns);
    }
    if (err == 0 && in.machine_id) {
        step = "machine-id";
        err = set_machine_id(in.machine_id);
    }
    if (err == 0 && in.hostname) {
        step = "hostname";
        err = set_hostname(in.hostname, in.hostname_len);
    }
    if (err == 0)
        err = renew_net(&in.net, &step);
    if (err != 0) {
        send_error(f->id, -err, step);
        return;
    }
    if (in.time)
        put_time();
    channel_send();
}

/* What a restored clone must get anew, all of it in RAM: the random state, the clock's offset, the
 * machine-id, the hostname; and what proves the restore: boot id and planted nonce.
 *
 * The random state changes only by entropy from RENEW and by being drawn from, so two clones of one
 * template that were not reseeded draw the same: a test can see whether entropy arrived.
 */
#include "tests/guests/tiny/tiny.h"
#include "base/sha256_small.h"

static uint8_t boot_id[16];
static uint8_t nonce[32];
static bool has_nonce;
static struct {
    uint8_t key[32];
    uint32_t draws;
} random_state;
static int64_t time_offset_ns;
char hostname[64] = "tiny";
uint8_t machine_id[16];

void state_init(void)
{
    struct {
        uint64_t tsc[8];
        uint8_t cmos[16];
    } seed;
    uint8_t digest[32];

    for (unsigned i = 0; i < 8; i++) {
        seed.tsc[i] = rdtsc();
        for (unsigned k = 0; k < 2; k++) { /* date and time; each access also takes a while */
            outb(0x70, (uint8_t)(2 * i + k));
            seed.cmos[2 * i + k] = inb(0x71);
        }
    }
    vf_sha256_small(&seed, sizeof(seed), digest);
    memcpy(boot_id, digest, sizeof(boot_id));
    memcpy(random_state.key, digest, sizeof(random_state.key));
    random_state.key[0] ^= 1; /* the boot id is public */
}

void state_random(uint8_t ret[32])
{
    vf_sha256_small(&random_state, sizeof(random_state), ret);
    random_state.draws++;
}

void state_put_hello(struct vf_wire_writer *w)
{
    static const char agent[] = "tiny 1";

    vf_wire_put(w, VF_TAG_BOOT_ID, boot_id, sizeof(boot_id));
    if (has_nonce) {
        uint8_t told[32];
        memcpy(told, nonce, sizeof(told));
        if (misbehaviour == STALE_NONCE && frozen)
            told[31] ^= 1;
        vf_wire_put(w, VF_TAG_NONCE, told, sizeof(told));
    }
    vf_wire_put(w, VF_TAG_AGENT, agent, sizeof(agent) - 1);
    vf_wire_put_u32(w, VF_TAG_FEATURES,
                    VF_FEATURE_EXEC | VF_FEATURE_RESEED | VF_FEATURE_CLOCK | VF_FEATURE_IDENTITY |
                        (net_there ? VF_FEATURE_NET | VF_FEATURE_NET2 : 0));
}

static void reseed(const uint8_t *entropy, size_t len, struct vf_wire_writer *w)
{
    uint8_t digest[32], sample[32];

    vf_sha256_small(entropy, len, digest);
    if (misbehaviour != IGNORE_RESEED)
        for (unsigned i = 0; i < sizeof(digest); i++)
            random_state.key[i] ^= digest[i];
    state_random(sample);
    if (misbehaviour == IGNORE_RESEED)
        random_state.draws--;
    if (misbehaviour != NO_DIGEST)
        vf_wire_put(w, VF_TAG_DIGEST, digest, sizeof(digest));
    vf_wire_put(w, VF_TAG_SAMPLE, sample, 16);
}

void state_renew(const struct vf_wire_frame *f, struct vf_wire_writer *w)
{
    size_t pos = 0, len;
    uint16_t tag;
    const uint8_t *p;

    net_renew_begin();
    while (vf_wire_next(f, &pos, &tag, &p, &len) > 0) {
        if (tag == VF_TAG_NONCE && len == sizeof(nonce)) {
            memcpy(nonce, p, len);
            has_nonce = true;
        } else if (tag == VF_TAG_ENTROPY) {
            reseed(p, len, w);
        } else if (tag == VF_TAG_TIME && len == 8) {
            /* It was true when the message began to arrive, which may be 20 ms ago. */
            time_offset_ns = vf_wire_i64(p) - arrival_ns;
            if (misbehaviour == LATE_CLOCK)
                time_offset_ns -= 10 * (int64_t)1000000000;
            vf_wire_put_i64(w, VF_TAG_TIME, time_offset_ns + clock_ns());
        } else if (tag == VF_TAG_MACHINE_ID && len == sizeof(machine_id)) {
            if (misbehaviour != SAME_IDENTITY)
                memcpy(machine_id, p, len);
            vf_wire_put(w, VF_TAG_MACHINE_ID, machine_id, sizeof(machine_id));
        } else if (tag == VF_TAG_HOSTNAME && len < sizeof(hostname)) {
            if (misbehaviour != SAME_IDENTITY) {
                memcpy(hostname, p, len);
                hostname[len] = 0;
            }
            vf_wire_put(w, VF_TAG_HOSTNAME, hostname, text_len(hostname));
        } else if (net_there) {
            net_renew(tag, p, len, w);
        }
    }
}

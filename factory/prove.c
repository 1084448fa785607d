/* The guest answers, proves what it is, and takes what makes it itself.
 *
 * HELLO tells the boot id and the nonce: a clone must return its template's (so a boot can't pass for a
 * restore), anything else must have none (so no image carries one). RENEW brings fresh entropy, the time
 * and an identity; the answer must show that each arrived: the entropy's digest, random bytes nobody
 * else drew, a clock within 50 ms of ours, machine-id, hostname and NIC (prove_network.c) as read back. One proof
 * missing, and the VM is destroyed with that reason.
 *
 * A clock is as right as its answer was quick: it was set to a time that was ours when we wrote it, and is read when it
 * arrives. So on a busy host the time is sent again, until one answer is quick enough or the deadline for answers is over,
 * which is then no fault of the guest. A guest that reads less than it was told, or more than the host has, is wrong.
 */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/hash.h"
#include "factory/instance.h"

#define CLOCK_GOOD_US 20000 /* better than this is not asked for */
#define CLOCK_LIMIT_US 50000
#define CLOCK_ROUNDS 3 /* to get it good */

static int64_t answer_timeout_ms(const struct vf_instance *vm)
{
    return vm->gen || vm->adopted ? vm->factory->answer_timeout_ms
                                  : vm->spec.agent.ready_timeout_ms;
}

static const char *hex_of(const uint8_t *p, size_t len, char *buf)
{
    vf_hex(p, len, buf);
    return buf;
}

/* An answer that is none, or that comes when nobody wants it any more. */
static bool no_answer(struct vf_instance *vm, const struct vf_error *err)
{
    if (vm->state != VF_INSTANCE_MAKING)
        return true;
    if (err)
        vf_instance_step_done(vm, err);
    return err != NULL;
}

static void answered(struct vf_instance *vm, int r, const struct vf_error *err)
{
    if (r < 0)
        vf_instance_step_done(vm, err);
    else if (--vm->waiting == 0 && vm->proving)
        vf_instance_step_done(vm, NULL);
}

/* ---- hello */

static int check_nonce(struct vf_instance *vm, const uint8_t *nonce, size_t len,
                       struct vf_error *err)
{
    char hex[65];
    if (!vm->due_nonce[0]) {
        if (nonce)
            return vf_fail(
                err, VF_PROOF_FAILED,
                "the guest booted with a template's nonce in it: its image holds what only "
                "a template's memory may hold");
        return 0;
    }
    if (!nonce || len != 32)
        return vf_fail(err, VF_PROOF_FAILED,
                       "the guest returned no nonce: it was booted, not restored");
    if (strcmp(hex_of(nonce, 32, hex), vm->due_nonce) != 0)
        return vf_fail(err, VF_PROOF_FAILED,
                       "the guest returned another nonce than its template's: it was not restored "
                       "from generation %lld",
                       (long long)vm->due_generation);
    snprintf(vm->proof.nonce, sizeof(vm->proof.nonce), "%s", hex);
    vm->proof.nonce_matched = true;
    vm->proof.generation = vm->due_generation;
    return 0;
}

static int check_hello(struct vf_instance *vm, const struct vf_wire_frame *f, struct vf_error *err)
{
    size_t id_len = 0, nonce_len = 0, n = 0;
    const uint8_t *id = vf_wire_find(f, VF_TAG_BOOT_ID, &id_len);
    const uint8_t *nonce = vf_wire_find(f, VF_TAG_NONCE, &nonce_len);
    const uint8_t *features = vf_wire_find(f, VF_TAG_FEATURES, &n);
    uint32_t need = VF_FEATURE_RESEED | VF_FEATURE_CLOCK | VF_FEATURE_IDENTITY;
    if (!id || id_len != 16)
        return vf_fail(err, VF_PROOF_FAILED, "the guest told no boot id");
    if (!features || n != 4 || (vf_wire_u32(features) & need) != need) {
        vf_fail(err, VF_UNSUPPORTED,
                "the guest's agent can't reseed its CRNG, set its clock and its identity");
        return vf_hint(err, "build the guest image with this version's vmfactory-agent");
    }
    vm->features = vf_wire_u32(features);
    int r = check_nonce(vm, nonce, nonce_len, err);
    if (r < 0)
        return r;
    vf_hex(id, 16, vm->proof.boot_id);
    if (vm->due_boot_id[0] && strcmp(vm->proof.boot_id, vm->due_boot_id) != 0)
        return vf_fail(err, VF_PROOF_FAILED, "the guest's boot id is not %s",
                       vm->adopted ? "what it was" : "its template's");
    return 0;
}

static int send_renew(struct vf_instance *vm, struct vf_error *err);

static void on_hello(void *arg, const struct vf_wire_frame *f, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    struct vf_error e;
    if (no_answer(vm, err))
        return;
    int r = check_hello(vm, f, &e);
    if (r == 0 && vm->waiting == 2) /* a clone */
        r = send_renew(vm, &e);
    answered(vm, r, &e);
}

int vf_step_hello(struct vf_instance *vm, struct vf_error *err)
{
    vm->waiting = 1;
    vm->proving = true;
    return vf_agent_hello(&vm->agent, answer_timeout_ms(vm), on_hello, vm, err);
}

static void on_hello_again(void *arg, const struct vf_wire_frame *f, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    (void)f;
    (void)err; /* that it is silent is no reason to take it from whoever has it */
    if (vm->state == VF_INSTANCE_MAKING)
        vf_instance_step_done(vm, NULL);
}

int vf_step_hello_again(struct vf_instance *vm, struct vf_error *err)
{
    if (vf_vm_info_of(vm->vm)->state == VF_VM_PAUSED)
        return VF_STEP_DONE;
    return vf_agent_hello(&vm->agent, answer_timeout_ms(vm), on_hello_again, vm, err);
}

/* ---- renew */

static bool beyond(int64_t us, int64_t limit_us)
{
    return us > limit_us || us < -limit_us;
}

/* Whether it is right is left to clock_is_done: the first answers may be slow. *ret_since_us: how much later the clock was
 * than the time it was told. */
static int read_clock(struct vf_instance *vm, const struct vf_wire_frame *f, int64_t *ret_since_us,
                      struct vf_error *err)
{
    size_t len = 0;
    const uint8_t *t = vf_wire_find(f, VF_TAG_TIME, &len);
    if (!t || len != 8)
        return vf_fail(err, VF_PROOF_FAILED, "the guest told no time");
    int64_t guest = vf_wire_i64(t) / 1000, host = vf_realtime_ns() / 1000;
    if (__builtin_sub_overflow(guest, host, &vm->proof.clock_offset_us) ||
        __builtin_sub_overflow(guest, vm->clock_told_ns / 1000, ret_since_us))
        return vf_fail(err, VF_PROOF_FAILED, "the guest's clock is absurd");
    return 0;
}

/* 1: it is as good as it gets. 0: the time must be sent again. */
static int clock_is_done(const struct vf_instance *vm, int64_t since_us, struct vf_error *err)
{
    int64_t off = vm->proof.clock_offset_us;
    if (!beyond(off, CLOCK_GOOD_US))
        return 1;
    if (vm->clock_rounds < CLOCK_ROUNDS)
        return 0;
    if (!beyond(off, CLOCK_LIMIT_US))
        return 1;
    if (off > 0 || since_us < -CLOCK_LIMIT_US)
        return vf_fail(err, VF_PROOF_FAILED, "the guest's clock is %lld ms off the host's",
                       (long long)off / 1000);
    if (vf_now_us() < vm->clock_until_us)
        return 0;
    vf_fail(err, VF_BUSY,
            "the guest took %lld ms to set its clock, %d times, so that it may be as far off the "
            "host's",
            (long long)-off / 1000, vm->clock_rounds);
    return vf_hint(err, "the host is too busy for it: have fewer VMs, or lower start_concurrency");
}

static int check_identity(struct vf_instance *vm, const struct vf_wire_frame *f,
                          struct vf_error *err)
{
    size_t len = 0;
    const uint8_t *p = vf_wire_find(f, VF_TAG_MACHINE_ID, &len);
    if (!p || len != 16 || memcmp(p, vm->machine_id, 16) != 0)
        return vf_fail(err, VF_PROOF_FAILED, "the guest did not take its machine-id");
    vf_hex(p, 16, vm->proof.machine_id);
    p = vf_wire_find(f, VF_TAG_HOSTNAME, &len);
    if (!p || len != strlen(vm->hostname) || memcmp(p, vm->hostname, len) != 0)
        return vf_fail(err, VF_PROOF_FAILED, "the guest did not take its hostname");
    snprintf(vm->proof.hostname, sizeof(vm->proof.hostname), "%s", vm->hostname);
    return vf_prove_network_check(vm, f, err);
}

static int check_renewal(struct vf_instance *vm, const struct vf_wire_frame *f,
                         struct vf_error *err)
{
    uint8_t digest[VF_SHA256_LEN];
    size_t len = 0;
    const uint8_t *p = vf_wire_find(f, VF_TAG_DIGEST, &len);
    vf_sha256(vm->entropy, sizeof(vm->entropy), digest);
    if (!p || len != sizeof(digest) || memcmp(p, digest, sizeof(digest)) != 0)
        return vf_fail(err, VF_PROOF_FAILED, "the guest did not take its fresh entropy");
    vf_hex(p, len, vm->proof.entropy_sha256);
    p = vf_wire_find(f, VF_TAG_SAMPLE, &len);
    if (!p || len != 16)
        return vf_fail(err, VF_PROOF_FAILED, "the guest drew no random bytes after its reseed");
    vf_hex(p, len, vm->proof.sample);
    /* The template's own draw may be older than this process. */
    if (!vf_samples_add(vm->factory->samples, p) ||
        (vm->gen && strcmp(vm->proof.sample, vm->gen->manifest.sample) == 0))
        return vf_fail(
            err, VF_PROOF_FAILED,
            "the guest drew the same random bytes as another VM: its reseed had no effect");
    explicit_bzero(vm->entropy, sizeof(vm->entropy)); /* the guest's secret now */
    return check_identity(vm, f, err);
}

static int send_time(struct vf_instance *vm, struct vf_error *err);

static void on_renewed(void *arg, const struct vf_wire_frame *f, const struct vf_error *err)
{
    struct vf_instance *vm = arg;
    struct vf_error e;
    int64_t since_us = 0;
    if (no_answer(vm, err))
        return;
    int r = vm->clock_rounds == 1 ? check_renewal(vm, f, &e) : 0;
    if (r == 0)
        r = read_clock(vm, f, &since_us, &e);
    if (r == 0)
        r = clock_is_done(vm, since_us, &e);
    if (r == 0) {
        /* A guest's first steps are slow (its code and pages are cold), so the time it was told was old
         * when it was set. Now they are warm. */
        if (send_time(vm, &e) < 0)
            vf_instance_step_done(vm, &e);
        return;
    }
    answered(vm, r, &e);
}

static void put_time(struct vf_instance *vm, struct vf_wire_writer *w)
{
    vm->clock_told_ns = vf_realtime_ns();
    vf_wire_put_i64(w, VF_TAG_TIME, vm->clock_told_ns);
}

static int send_time(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_wire_writer w;
    vm->clock_rounds++;
    vf_agent_start(&vm->agent, &w, VF_MSG_RENEW);
    put_time(vm, &w);
    return vf_agent_request(&vm->agent, &w, VF_MSG_RENEW_OK, answer_timeout_ms(vm), on_renewed, vm,
                            err);
}

static int send_renew(struct vf_instance *vm, struct vf_error *err)
{
    struct vf_wire_writer w;
    vm->clock_rounds = 1;
    vm->clock_until_us = vf_deadline_after_ms(vm->factory->answer_timeout_ms);
    vf_agent_start(&vm->agent, &w, VF_MSG_RENEW);
    vf_wire_put(&w, VF_TAG_ENTROPY, vm->entropy, sizeof(vm->entropy));
    vf_wire_put(&w, VF_TAG_MACHINE_ID, vm->machine_id, sizeof(vm->machine_id));
    vf_wire_put(&w, VF_TAG_HOSTNAME, vm->hostname, strlen(vm->hostname));
    int r = vf_prove_network_put(vm, &w, err);
    if (r < 0)
        return r;
    if (vm->plant)
        vf_wire_put(&w, VF_TAG_NONCE, vm->nonce, sizeof(vm->nonce));
    put_time(vm, &w);
    return vf_agent_request(&vm->agent, &w, VF_MSG_RENEW_OK, answer_timeout_ms(vm), on_renewed, vm,
                            err);
}

int vf_step_renew(struct vf_instance *vm, struct vf_error *err)
{
    vm->waiting = 1;
    vm->proving = true;
    return send_renew(vm, err);
}

/* For a clone: the hello lies ready when the guest wakes up, and is the first thing it does. The renewal waits for
 * the answer: a guest takes tens of milliseconds to wake up cold, and a time that was sent before that is old
 * when it is read. */
int vf_step_resume_clone(struct vf_instance *vm, struct vf_error *err)
{
    vm->waiting = 2;
    vm->proving = false;
    int r = vf_agent_hello(&vm->agent, answer_timeout_ms(vm), on_hello, vm, err);
    if (r < 0)
        return r;
    return vf_vm_info_of(vm->vm)->state == VF_VM_PAUSED ? vf_step_resume(vm, err) : VF_STEP_DONE;
}

int vf_step_prove(struct vf_instance *vm, struct vf_error *err)
{
    (void)err;
    vm->proving = true;
    return vm->waiting ? 0 : VF_STEP_DONE;
}

/* Each proof taken away in turn: the VM is destroyed, the reason named, nothing is left.
 *
 * The tiny guest breaks one promise at a time (tests/guests/tiny/tiny.h). A template whose clones can't
 * prove themselves never becomes one; made without trial clones it is there all the same, so that what
 * a clone of it does can be seen. factory_swapped.c goes on with templates that were tampered with.
 */
#include "tests/e2e/factory_support.h"

#include <stdio.h>
#include <signal.h>
#include <string.h>

#define SHORT_MS 2000

struct lie {
    const char *how; /* misbehave-frozen= */
    enum vf_code code;
    const char *
        words; /* the stage is not among them: a guest may answer before the VMM says that it resumed */
    bool quick; /* ends without a deadline */
    const char *hint;
};

static const struct lie lies[] = {
    {"no-digest", VF_PROOF_FAILED, "the guest did not take its fresh entropy", true, ""},
    {"stale-nonce", VF_PROOF_FAILED, "the guest returned another nonce than its template's", true,
     ""},
    {"late-clock", VF_PROOF_FAILED, "the guest's clock is -10", true, ""},
    {"same-identity", VF_PROOF_FAILED, "the guest did not take its machine-id", true, ""},
    {"flood", VF_PROTOCOL, "agent: the guest floods the channel", true, ""},
    {"flood-garbage", VF_PROTOCOL, "agent: the guest sends garbage", true, ""},
    {"mute", VF_TIMEOUT, "agent: the guest did not answer within its deadline", false, ""},
    {"half-frame", VF_TIMEOUT, "agent: the guest did not answer within its deadline", false,
     "bytes of an answer it did not finish"},
};
#define N_LIES (sizeof(lies) / sizeof(*lies))

static struct vf_spec liar(const char *word, const char *how)
{
    char text[64];
    snprintf(text, sizeof(text), "%s=%s", word, how);
    return fac_tiny("liar", VF_ACCEL_TCG, text);
}

static struct vf_sync_options options(bool quick, int trial_clones)
{
    return (struct vf_sync_options){.trial_clones = trial_clones,
                                    .answer_timeout_ms = quick ? SUP_LONG_MS : SHORT_MS};
}

/* ---- in clones */

Test(factory_proofs, clones_that_lie, .timeout = 180)
{
    struct fac f;
    fac_open(&f, NULL);
    for (size_t i = 0; i < N_LIES; i++) {
        struct vf_sync_options o = options(lies[i].quick, -1);
        fac_reopen(&f, &(struct vf_sync_options){.dir = f.dir,
                                                 .trial_clones = o.trial_clones,
                                                 .answer_timeout_ms = o.answer_timeout_ms});
        struct vf_spec spec = liar("misbehave-frozen", lies[i].how);
        struct vf_generation *gen = fac_build(&f, &spec);
        /* Not by chance: each of them. */
        for (int k = 0; k < 2; k++) {
            struct vf_error e = fac_clone_fails(&f, gen, lies[i].code, lies[i].words);
            cr_assert(strstr(e.hint, lies[i].hint), "%s: hint: %s", lies[i].how, e.hint);
        }
        vf_generation_unref(gen);
        vf_spec_free(&spec);
    }
    fac_close(&f);
}

/* The trial clones find it out: no such generation comes to be, and those that were are untouched. */
Test(factory_proofs, templates_that_would_lie, .timeout = 180)
{
    struct fac f;
    fac_open(&f, NULL);
    struct vf_spec good = fac_tiny("liar", VF_ACCEL_TCG, NULL);
    vf_generation_unref(fac_build(&f, &good));
    for (size_t i = 0; i < N_LIES; i++) {
        struct vf_sync_options o = options(lies[i].quick, 2);
        fac_reopen(&f, &(struct vf_sync_options){.dir = f.dir,
                                                 .trial_clones = o.trial_clones,
                                                 .answer_timeout_ms = o.answer_timeout_ms});
        struct vf_spec spec = liar("misbehave-frozen", lies[i].how);
        struct vf_error e = fac_build_fails(&f, &spec, lies[i].code, lies[i].words);
        cr_assert(strstr(e.msg, "a trial clone of the new template: "), "%s", e.msg);
        vf_spec_free(&spec);
    }
    fac_reopen(&f, &(struct vf_sync_options){.dir = f.dir});
    struct vf_generation *gen = fac_load(&f, "liar");
    cr_assert_eq(gen->number, 1);
    struct vf_instance *vm = fac_clone(&f, gen);
    fac_check_proof(&f, vm, gen);
    fac_destroy(&f, vm);
    vf_generation_unref(gen);
    vf_spec_free(&good);
    fac_close(&f);
}

/* ---- entropy that changes nothing */

#define SAME "drew the same random bytes as another VM"

/* The guest tells the right digest and draws on as before. */
Test(factory_proofs, ignored_reseed, .timeout = 120)
{
    struct fac f;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    /* From its boot on: a clone draws what the template drew. */
    struct vf_spec spec = liar("misbehave", "ignore-reseed");
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_clone_fails(&f, gen, VF_PROOF_FAILED, SAME);
    fac_clone_fails(&f, gen, VF_PROOF_FAILED, SAME);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    /* Also to a process that did not see the template draw. */
    fac_reopen(&f, NULL);
    gen = fac_load(&f, "liar");
    fac_clone_fails(&f, gen, VF_PROOF_FAILED, SAME);
    vf_generation_unref(gen);
    /* Since it was frozen: the second clone draws what the first drew. */
    spec = liar("misbehave-frozen", "ignore-reseed");
    gen = fac_build(&f, &spec);
    struct vf_instance *first = fac_clone(&f, gen);
    struct vf_instance *second = NULL;
    struct vf_error e = {0};
    cr_assert_lt(vf_sync_clone(&f.sync, gen, NULL, &second, &e), 0);
    fac_expect(&e, VF_PROOF_FAILED, SAME);
    fac_destroy(&f, first);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    /* And two trial clones are enough to see that. */
    fac_reopen(&f, &(struct vf_sync_options){.dir = f.dir, .trial_clones = 2});
    spec = liar("misbehave-frozen", "ignore-reseed");
    fac_build_fails(&f, &spec, VF_PROOF_FAILED, SAME);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- boots */

Test(factory_proofs, boots_that_fail, .timeout = 120)
{
    static const struct {
        const char *how;
        enum vf_code code;
        const char *words;
        int64_t ready_timeout_ms;
    } cases[] = {
        {"mute-boot", VF_TIMEOUT, "boot: agent: the guest did not answer within its deadline", 500},
        {"panic-boot", VF_GUEST_FAILED, "the guest shut down or reset itself", 90000},
        {"no-digest", VF_PROOF_FAILED, "renew: the guest did not take its fresh entropy", 90000},
        {"late-clock", VF_PROOF_FAILED, "renew: the guest's clock is -10", 90000},
        {"same-identity", VF_PROOF_FAILED, "renew: the guest did not take its machine-id", 90000},
    };
    struct fac f;
    fac_open(&f, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct vf_spec spec = liar("misbehave", cases[i].how);
        spec.agent.ready_timeout_ms = cases[i].ready_timeout_ms;
        fac_cold_fails(&f, &spec, cases[i].code, cases[i].words);
        fac_build_fails(&f, &spec, cases[i].code, cases[i].words);
        vf_spec_free(&spec);
    }
    fac_close(&f);
}

/* ---- a busy host */

static struct vf_spec null_spec(void)
{
    struct vf_spec spec = fac_tiny("null", VF_ACCEL_TCG, NULL);
    spec.vmm = VF_SPEC_VMM_NULL;
    return spec;
}

/* Answers too slow to show that the clock is right: the time is sent until one is quick. */
Test(factory_proofs, a_clock_that_is_late_at_first, .timeout = 120)
{
    struct fac f;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = 1});
    fac_null_script("renew:delay=60ms,times=20");
    struct vf_spec spec = null_spec();
    fac_works(&f, &spec);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* They stay slow: that is no proof, but nobody's lie. */
Test(factory_proofs, a_clock_that_stays_late, .timeout = 120)
{
    struct fac f;
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = null_spec();
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_null_script("renew:delay=60ms");
    vf_factory_set_answer_timeout(f.sync.factory, SHORT_MS);
    struct vf_error e = fac_clone_fails(&f, gen, VF_BUSY, "ms to set its clock");
    cr_assert(strstr(e.hint, "the host is too busy"), "%s", e.hint);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

/* ---- later */

/* A VM that stops answering between park and wake is destroyed, not handed out. */
Test(factory_proofs, hung_when_woken, .timeout = 120)
{
    struct fac f;
    struct vf_error e = {0};
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = fac_tiny("tiny", VF_ACCEL_TCG, NULL);
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_mark(&f);
    struct vf_instance *vm = fac_clone(&f, gen);
    cr_assert_eq(vf_sync_park(&f.sync, vm, &e), 0, "%s", e.msg);
    vf_factory_set_answer_timeout(f.sync.factory, SHORT_MS);
    pid_t pid = fac_child();
    cr_assert_gt(pid, 0);
    cr_assert_eq(kill(pid, SIGSTOP), 0);
    cr_assert_lt(vf_sync_wake(&f.sync, vm, &e), 0);
    fac_expect(&e, VF_TIMEOUT, "resume: resume: no answer from qemu within its deadline");
    fac_check(&f, "woken in vain");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

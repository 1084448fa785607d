/* The pool's parts that need no VM: the journal's records, autosizing, memory pressure. */
#include <math.h>
#include "base/clock.h"
#include "pool/autosize.h"
#include "pool/journal.h"
#include "pool/pressure.h"
#include "pool/stats.h"
#include <sys/stat.h>
#include "tests/unit/scratch.h"

/* ---- journal */

static struct vf_record leased(void)
{
    return (struct vf_record){
        .format = VF_RECORD_FORMAT,
        .id = "0123456789ab",
        .template_name = "web",
        .state = VF_RECORD_LEASED,
        .host_boot = "a-boot",
        .source = VF_SOURCE_CLONE,
        .generation = 7,
        .created_ms = 1700000000000,
        .got = VF_GOT_CLONE,
        .reason = "pool empty",
        .nonce = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        .boot_id = "00112233445566778899aabbccddeeff",
        .hostname = "vf-0123456789ab",
        .uid = 4294967294,
        .gid = 100,
        .pid = 4242,
        .acquired_ms = 1700000001000,
        .ttl_ms = 60000,
        .expires_us = INT64_C(9007199254740993), /* no double holds it */
    };
}

Test(journal, a_record_comes_back_as_it_was_written, .timeout = 30)
{
    struct scratch d;
    struct vf_error e;
    struct vf_record r = leased(), back;
    struct vf_proof proof;
    scratch_open(&d);
    cr_assert_eq(mkdirat(d.fd, r.id, 0700), 0);
    cr_assert_eq(vf_record_write(d.fd, &r, &e), 0, "%s", e.msg);
    r.state = VF_RECORD_RELEASING;
    cr_assert_eq(vf_record_write(d.fd, &r, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_record_read(d.fd, r.id, &back, &e), 0, "%s", e.msg);
    cr_expect_eq(back.state, VF_RECORD_RELEASING);
    cr_expect_eq(back.expires_us, r.expires_us);
    cr_expect_eq(back.uid, r.uid);
    cr_expect_eq(back.generation, 7);
    cr_expect_str_eq(back.reason, "pool empty");
    vf_record_proof(&back, &proof);
    cr_expect_str_eq(proof.nonce, r.nonce);
    cr_expect(proof.nonce_matched);
    cr_expect_str_eq(proof.hostname, r.hostname);
    vf_record_free(&back);
    scratch_close(&d);
}

Test(journal, a_record_keeps_the_network, .timeout = 30)
{
    struct vf_record_port ports[] = {{VF_SPEC_TCP, 8080, 80}, {VF_SPEC_UDP, 53, 5353}};
    struct scratch d;
    struct vf_error e;
    struct vf_record r = leased(), back;
    scratch_open(&d);
    cr_assert_eq(mkdirat(d.fd, r.id, 0700), 0);
    r.network = 0;
    r.netns = "/run/netns/vf-0";
    r.ports = (struct vf_json_array){ports, 2};
    cr_assert_eq(vf_record_write(d.fd, &r, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_record_read(d.fd, r.id, &back, &e), 0, "%s", e.msg);
    cr_expect_eq(back.network, 0);
    cr_expect_str_eq(back.netns, "/run/netns/vf-0");
    cr_assert_eq(back.ports.n, 2);
    const struct vf_record_port *p = &((const struct vf_record_port *)back.ports.items)[1];
    cr_expect(p->protocol == VF_SPEC_UDP && p->host == 53 && p->guest == 5353);
    vf_record_free(&back);
    scratch_close(&d);
}

/* As versions before wrote it. */
Test(journal, a_record_without_a_network_has_none, .timeout = 30)
{
    static const char text[] =
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\"}";
    struct vf_record r;
    struct vf_error e;
    cr_assert_eq(vf_record_parse(text, strlen(text), &r, &e), 0, "%s", e.msg);
    cr_expect_eq(r.network, -1);
    cr_expect_null(r.netns);
    cr_expect_eq(r.ports.n, 0);
    vf_record_free(&r);
}

/* The class may be another one, or gone, when the VM is adopted: its spec says all by itself. */
Test(journal, a_spec_of_a_class_is_spelled_out, .timeout = 30)
{
    static const char text[] = "{\"name\":\"web\",\"class\":\"fc\",\"boot\":{\"kernel\":\"/k\"}}";
    struct scratch d;
    struct vf_error e;
    struct vf_spec spec, back;
    scratch_open(&d);
    cr_assert_eq(mkdirat(d.fd, "0123456789ab", 0700), 0);
    cr_assert_eq(vf_spec_parse(text, strlen(text), NULL, NULL, &spec, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_spec_settle(&spec, VF_SPEC_VMM_FIRECRACKER, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_record_write_spec(d.fd, "0123456789ab", &spec, &e), 0, "%s", e.msg);
    cr_assert_eq(vf_record_read_spec(d.fd, "0123456789ab", &back, &e), 0, "%s", e.msg);
    cr_expect(vf_spec_knows_vmm(&back));
    cr_expect_eq(back.vmm, VF_SPEC_VMM_FIRECRACKER);
    cr_expect_eq(back.agent.channel, VF_CHANNEL_VSOCK);
    cr_expect_eq(back.park, VF_PARK_RUNNING);
    cr_expect_str_eq(back.class_name, "fc");
    vf_spec_free(&spec);
    vf_spec_free(&back);
    scratch_close(&d);
}

Test(journal, a_record_without_a_directory_is_an_error_and_leaves_nothing, .timeout = 30)
{
    struct scratch d;
    struct vf_error e;
    struct vf_record r = leased();
    char names[100];
    scratch_open(&d);
    cr_expect_lt(vf_record_write(d.fd, &r, &e), 0);
    cr_expect_eq(e.code, VF_NOT_FOUND, "%s", e.msg);
    scratch_list(&d, names, sizeof(names));
    cr_expect_str_empty(names);
    scratch_close(&d);
}

Test(journal, what_we_would_not_have_written_is_damage, .timeout = 30)
{
    static const char *const bad[] = {
        "",
        "{}",
        "[]",
        "{\"format\":1",
        "{\"format\":2,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\"}",
        "{\"format\":1,\"id\":\"0123456789aX\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\"}",
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"../x\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\"}",
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"gone\","
        "\"host_boot\":\"x\",\"source\":\"clone\"}",
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"build\"}",
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"parked\","
        "\"host_boot\":\"x\",\"source\":\"clone\"}", /* parked, and no boot id to prove */
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\",\"nonce\":\"zz\"}",
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\",\"extra\":1}",
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\",\"network\":-2}",
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\",\"netns\":\"vf-1\"}",
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\",\"ports\":[{\"protocol\":\"any\",\"host\":1,"
        "\"guest\":1}]}",
        "{\"format\":1,\"id\":\"0123456789ab\",\"template\":\"web\",\"state\":\"starting\","
        "\"host_boot\":\"x\",\"source\":\"clone\",\"ports\":[{\"protocol\":\"tcp\",\"host\":70000,"
        "\"guest\":1}]}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct vf_record r;
        struct vf_error e = {0};
        cr_expect_lt(vf_record_parse(bad[i], strlen(bad[i]), &r, &e), 0, "%s", bad[i]);
        cr_expect_eq(e.code, VF_CORRUPT, "%s: %s", bad[i], e.msg);
    }
}

Test(journal, a_record_under_another_ids_directory_is_damage, .timeout = 30)
{
    struct scratch d;
    struct vf_error e;
    struct vf_record r = leased(), back;
    scratch_open(&d);
    cr_assert_eq(mkdirat(d.fd, r.id, 0700), 0);
    cr_assert_eq(vf_record_write(d.fd, &r, &e), 0, "%s", e.msg);
    cr_assert_eq(renameat(d.fd, r.id, d.fd, "ba9876543210"), 0);
    cr_expect_lt(vf_record_read(d.fd, "ba9876543210", &back, &e), 0);
    cr_expect_eq(e.code, VF_CORRUPT, "%s", e.msg);
    scratch_close(&d);
}

/* ---- autosizing */

#define S INT64_C(1000000)

Test(autosize, even_arrivals_give_their_rate, .timeout = 30)
{
    struct vf_autosize a = {0};
    int64_t now = 1000 * S;
    for (int i = 0; i < 6000; i++) /* ten minutes of ten a second */
        vf_autosize_arrival(&a, now += S / 10);
    cr_expect_float_eq(vf_autosize_rate(&a, now), 10.0, 0.2);
    cr_expect_float_eq(vf_autosize_rate(&a, now + 60 * S), 5.0, 0.2); /* half a life later */
}

Test(autosize, the_target_follows_the_formula_within_its_limits, .timeout = 30)
{
    struct vf_autosize a = {0};
    int64_t now = 1000 * S;
    cr_expect_eq(vf_autosize_target(&a, now, 0.1, 0, 0, 64), 1);
    for (int i = 0; i < 60000; i++)
        vf_autosize_arrival(&a, now += S / 100);
    double lt = vf_autosize_rate(&a, now) * 0.09;
    int64_t want = (int64_t)ceil(lt + 2 * sqrt(lt)) + 1;
    cr_expect_eq(vf_autosize_target(&a, now, 0.09, 1, 0, 64), want);
    cr_expect_gt(want, 9);
    cr_expect_eq(vf_autosize_target(&a, now, 0.09, 1, 0, 5), 5);
    cr_expect_eq(vf_autosize_target(&a, now, 0.09, 1, 20, 64), 20);
}

Test(autosize, it_rises_at_once_and_falls_slowly, .timeout = 30)
{
    struct vf_autosize a = {0};
    int64_t now = 1000 * S, target;
    for (int i = 0; i < 6000; i++)
        vf_autosize_arrival(&a, now += S / 100);
    target = vf_autosize_target(&a, now, 1, 1, 0, 1000);
    cr_expect_gt(target, 50);
    now += 3600 * S; /* nobody came for an hour */
    cr_expect_eq(vf_autosize_target(&a, now, 1, target, 0, 1000), target - 1);
    cr_expect_eq(vf_autosize_target(&a, now + S, 1, target - 1, 0, 1000), target - 1);
    cr_expect_eq(vf_autosize_target(&a, now + 11 * S, 1, target - 1, 0, 1000), target - 2);
}

/* ---- pressure */

static const char psi_calm[] = "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\n"
                               "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
static const char psi_high[] = "some avg10=35.10 avg60=0.00 avg300=0.00 total=1\n";
static const char meminfo[] = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\n"
                              "MemAvailable:    1048576 kB\n";

Test(pressure, psi_and_available_memory_are_looked_at, .timeout = 30)
{
    struct vf_settings s = {.psi_some_percent = 20, .min_available_mib = 256};
    char why[128] = "";
    cr_expect_not(vf_memory_pressure_of(&s, psi_calm, meminfo, why, sizeof(why)));
    cr_expect(vf_memory_pressure_of(&s, psi_high, meminfo, why, sizeof(why)));
    cr_expect(strstr(why, "35.10"), "%s", why);
    s.min_available_mib = 1025;
    cr_expect(vf_memory_pressure_of(&s, psi_calm, meminfo, why, sizeof(why)));
    cr_expect(strstr(why, "MemAvailable is 1024 MiB"), "%s", why);
    cr_expect(vf_memory_pressure_of(&s, NULL, meminfo, why, sizeof(why)), "a kernel without PSI");
    s = (struct vf_settings){0};
    cr_expect_not(vf_memory_pressure_of(&s, psi_high, meminfo, why, sizeof(why)), "switched off");
    cr_expect_not(vf_memory_pressure_of(&s, "garbage", "garbage", why, sizeof(why)));
}

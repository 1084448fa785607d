/* What was counted arrives in all three forms, well-formed. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/json.h"
#include "pool/stats.h"
#include "pool/stats_internal.h"
#include "tests/unit/scratch.h"

static const struct vf_stage stages[] = {{"restore", 300}, {"prove", 4000}};

/* One of everything. */
static struct vf_stats_template *fill(struct vf_stats *s, const char *name)
{
    struct vf_stats_template *t = vf_stats_template(s, name);
    const struct vf_stats_pool pool = {.state = VF_TEMPLATE_QUARANTINED,
                                       .generation = 7,
                                       .min = 1,
                                       .max = 9,
                                       .target = 4,
                                       .parked = 3,
                                       .standby_target = 2,
                                       .standby = 1,
                                       .making = 5,
                                       .leased = 6,
                                       .waiting = 8,
                                       .drained = true,
                                       .backoff_ms = 1500,
                                       .template_memory_bytes = 1 << 20};
    const struct vf_stats_memory memory = {.template_resident_kib = 10,
                                           .vms_measured = 3,
                                           .guest_copied_kib = 11,
                                           .vmm_own_kib = 12,
                                           .pss_kib = 13};

    const struct vf_net_stats gone = {.in_bytes = 1000, .refused = {[VF_REFUSED_MAC] = 1}};
    const struct vf_net_stats leased = {
        .in_packets = 2, .in_bytes = 200, .out_packets = 3, .out_bytes = 300, .out_dropped = 4};
    const struct vf_nets_counts slots = {.capacity = 126,
                                         .making = 1,
                                         .ready = 2,
                                         .taken = 3,
                                         .dirty = 4,
                                         .made = 5,
                                         .recycled = 6,
                                         .destroyed = 7,
                                         .doubts = 8};
    struct vf_net_stats before[2] = {{0}};

    cr_assert_not_null(t);
    vf_stats_traffic(t, &before[0], &gone);
    vf_stats_traffic(t, &before[1], &leased);
    vf_stats_vm(t, "0123456789ab", &before[1]);
    vf_stats_set_slots(s, 1, &slots);
    vf_stats_set_pool(t, &pool);
    vf_stats_set_memory(t, &memory);
    vf_stats_acquired(t, VF_GOT_HIT, 50, stages, 2);
    vf_stats_acquired(t, VF_GOT_HIT, 51, stages, 1);
    vf_stats_acquired(t, VF_GOT_COLD, 31000000, NULL, 0);
    vf_stats_acquire_failed(t, VF_BUSY);
    vf_stats_lease_ended(t, VF_LEASE_DIED, 3000000);
    vf_stats_refilled(t, 250000);
    vf_stats_refill_failed(t, VF_VMM_DIED);
    vf_stats_built(t, 2000000);
    vf_stats_build_failed(t, VF_TIMEOUT);
    vf_stats_quarantined(t);
    vf_stats_parked_died(t);
    vf_stats_adopted(s, 2, 3, 4);
    vf_stats_loop_turn(s, 1234);
    return t;
}

static char *openmetrics(struct vf_stats *s)
{
    size_t len = 0;
    char *text = vf_stats_text(s, &len);

    cr_assert_not_null(text);
    cr_assert_eq(strlen(text), len);
    return text;
}

static void expect_line(const char *text, const char *line)
{
    char whole[300];

    snprintf(whole, sizeof(whole), "\n%s\n", line);
    cr_expect(strstr(text, whole) != NULL, "no line %s", line);
}

static const char *const common_lines[] = {
    "vmfactory_acquires_total{template=\"web\",source=\"hit\"} 2",
    "vmfactory_acquires_total{template=\"web\",source=\"clone\"} 0",
    "vmfactory_acquire_failures_total{template=\"web\",code=\"busy\"} 1",
    "vmfactory_acquire_failures_total{template=\"web\",code=\"timeout\"} 0",
    "vmfactory_acquire_duration_seconds_bucket{template=\"web\",source=\"hit\",le=\"5e-05\"} 1",
    "vmfactory_acquire_duration_seconds_bucket{template=\"web\",source=\"hit\",le=\"0.0001\"} 2",
    "vmfactory_acquire_duration_seconds_bucket{template=\"web\",source=\"hit\",le=\"+Inf\"} 2",
    "vmfactory_acquire_duration_seconds_bucket{template=\"web\",source=\"cold\",le=\"30.0\"} 0",
    "vmfactory_acquire_duration_seconds_bucket{template=\"web\",source=\"cold\",le=\"+Inf\"} 1",
    "vmfactory_acquire_duration_seconds_sum{template=\"web\",source=\"hit\"} 0.000101",
    "vmfactory_stage_duration_seconds_count{template=\"web\",stage=\"restore\"} 2",
    "vmfactory_stage_duration_seconds_count{template=\"web\",stage=\"prove\"} 1",
    "vmfactory_leases_total{template=\"web\"} 3",
    "vmfactory_lease_ends_total{template=\"web\",how=\"died\"} 1",
    "vmfactory_lease_held_seconds_sum{template=\"web\"} 3.000000",
    "vmfactory_refills_total{template=\"web\"} 1",
    "vmfactory_refill_failures_total{template=\"web\",code=\"vmm_died\"} 1",
    "vmfactory_refill_duration_seconds_count{template=\"web\"} 1",
    "vmfactory_builds_total{template=\"web\"} 1",
    "vmfactory_build_failures_total{template=\"web\",code=\"timeout\"} 1",
    "vmfactory_build_duration_seconds_sum{template=\"web\"} 2.000000",
    "vmfactory_quarantines_total{template=\"web\"} 1",
    "vmfactory_parked_deaths_total{template=\"web\"} 1",
    "vmfactory_template_state{template=\"web\",state=\"ready\"} 0",
    "vmfactory_template_state{template=\"web\",state=\"quarantined\"} 1",
    "vmfactory_template_generation{template=\"web\"} 7",
    "vmfactory_pool_min{template=\"web\"} 1",
    "vmfactory_pool_max{template=\"web\"} 9",
    "vmfactory_pool_target{template=\"web\"} 4",
    "vmfactory_pool_parked{template=\"web\"} 3",
    "vmfactory_pool_standby{template=\"web\"} 1",
    "vmfactory_pool_making{template=\"web\"} 5",
    "vmfactory_pool_leased{template=\"web\"} 6",
    "vmfactory_pool_waiting{template=\"web\"} 8",
    "vmfactory_pool_drained{template=\"web\"} 1",
    "vmfactory_pool_backoff_seconds{template=\"web\"} 1.500000",
    "vmfactory_memory_pressure{template=\"web\"} 0",
    "vmfactory_template_memory_bytes{template=\"web\"} 1048576",
    "vmfactory_template_memory_resident_bytes{template=\"web\"} 10240",
    "vmfactory_vms_measured{template=\"web\"} 3",
    "vmfactory_vm_guest_copied_bytes{template=\"web\"} 11264",
    "vmfactory_vm_own_bytes{template=\"web\"} 12288",
    "vmfactory_vm_pss_bytes{template=\"web\"} 13312",
    "vmfactory_network_bytes_total{template=\"web\",direction=\"in\"} 1200",
    "vmfactory_network_bytes_total{template=\"web\",direction=\"out\"} 300",
    "vmfactory_network_packets_total{template=\"web\",direction=\"out\"} 3",
    "vmfactory_network_dropped_packets_total{template=\"web\",direction=\"out\"} 4",
    "vmfactory_network_refused_packets_total{template=\"web\",rule=\"mac\"} 1",
    "vmfactory_network_refused_packets_total{template=\"web\",rule=\"host\"} 0",
    "vmfactory_vm_network_bytes_total{template=\"web\",vm=\"0123456789ab\",direction=\"in\"} 200",
    "vmfactory_vm_network_packets_total{template=\"web\",vm=\"0123456789ab\",direction=\"out\"} 3",
    "vmfactory_vm_network_refused_packets_total{template=\"web\",vm=\"0123456789ab\",rule=\"mac\"} "
    "0",
    "vmfactory_network_slots{mode=\"bridge\",state=\"making\"} 1",
    "vmfactory_network_slots{mode=\"bridge\",state=\"ready\"} 2",
    "vmfactory_network_slots{mode=\"bridge\",state=\"taken\"} 3",
    "vmfactory_network_slots{mode=\"bridge\",state=\"dirty\"} 4",
    "vmfactory_network_slots{mode=\"nat\",state=\"ready\"} 0",
    "vmfactory_network_slot_capacity{mode=\"bridge\"} 126",
    "vmfactory_network_slots_made_total{mode=\"bridge\"} 5",
    "vmfactory_network_slots_recycled_total{mode=\"bridge\"} 6",
    "vmfactory_network_slots_destroyed_total{mode=\"bridge\"} 7",
    "vmfactory_network_slots_doubted_total{mode=\"bridge\"} 8",
    "vmfactory_adopted_total{what=\"parked\"} 3",
    "vmfactory_loop_turn_seconds_bucket{le=\"0.0025\"} 1",
    "vmfactory_loop_stall_max_seconds 0.001234",
};

Test(stats, openmetrics_has_everything)
{
    struct vf_stats *s = vf_stats_new();
    char *text;

    fill(s, "web");
    text = openmetrics(s);
    for (size_t i = 0; i < sizeof(common_lines) / sizeof(common_lines[0]); i++)
        expect_line(text, common_lines[i]);
    expect_line(text, "# TYPE vmfactory_acquires counter");
    expect_line(text, "# TYPE vmfactory_build info");
    expect_line(text, "# UNIT vmfactory_vm_pss_bytes bytes");
    cr_expect_str_eq(text + strlen(text) - 7, "\n# EOF\n");
    free(text);
    vf_stats_free(s);
}

Test(stats, classic_has_everything_and_nothing_newer)
{
    struct vf_stats *s = vf_stats_new();
    size_t len = 0;
    char *text;

    fill(s, "web");
    text = vf_stats_text_classic(s, &len);
    cr_assert_not_null(text);
    for (size_t i = 0; i < sizeof(common_lines) / sizeof(common_lines[0]); i++)
        expect_line(text, common_lines[i]);
    expect_line(text, "# TYPE vmfactory_acquires_total counter");
    expect_line(text, "# TYPE vmfactory_build_info gauge");
    cr_expect_null(strstr(text, "# EOF"));
    cr_expect_null(strstr(text, "# UNIT"));
    free(text);
    vf_stats_free(s);
}

/* True if promtool had nothing to object to text. */
static bool promtool_accepts(const char *text)
{
    FILE *f = popen("promtool check metrics", "we");
    int status;

    cr_assert_not_null(f);
    fputs(text, f);
    status = pclose(f);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

Test(stats, promtool_accepts_the_classic_form)
{
    struct vf_stats *s;
    size_t len = 0;
    char *text;

    if (system("command -v promtool >/dev/null") != 0) {
        fprintf(stderr, "SKIPPED stats.promtool_accepts_the_classic_form: no promtool\n");
        cr_skip_test("no promtool");
    }
    s = vf_stats_new();
    fill(s, "web");
    fill(s, "o\"dd\\\n\xff");
    text = vf_stats_text_classic(s, &len);
    cr_expect(promtool_accepts(text));
    cr_expect_not(promtool_accepts("vmfactory_wrong{ 1\n"), "it does check");
    free(text);
    vf_stats_free(s);
}

Test(stats, labels_are_escaped)
{
    struct vf_stats *s = vf_stats_new();
    char *text;

    vf_stats_template(s, "a\"b\\c\nd\xff\xc3\xa9");
    text = openmetrics(s);
    expect_line(text, "vmfactory_pool_min{template=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\xc3\xa9\"} 0");
    free(text);
    vf_stats_free(s);
}

Test(stats, json_says_the_same)
{
    struct vf_stats *s = vf_stats_new();
    size_t len = 0;
    char *text;
    struct vf_json *j;
    const struct vf_json *t, *vm, *slots;

    fill(s, "we\"b");
    text = vf_stats_json(s, &len);
    cr_assert_not_null(text);
    j = vf_json_parse(text, len);
    cr_assert_not_null(j);
    t = vf_json_at(vf_json_get(j, "templates"), 0);
    cr_expect_str_eq(vf_json_str(vf_json_get(t, "template"), ""), "we\"b");
    cr_expect_str_eq(vf_json_str(vf_json_get(t, "template_state"), ""), "quarantined");
    cr_expect_eq(vf_json_int(vf_json_get(vf_json_get(t, "acquires_total"), "hit"), -1), 2);
    cr_expect_eq(vf_json_int(vf_json_get(vf_json_get(t, "acquire_failures_total"), "busy"), -1), 1);
    cr_expect_null(vf_json_get(vf_json_get(t, "acquire_failures_total"), "timeout"));
    cr_expect_eq(vf_json_int(vf_json_get(t, "leases_total"), -1), 3);
    cr_expect_eq(vf_json_int(vf_json_get(t, "vm_pss_bytes"), -1), 13312);
    cr_expect(vf_json_bool(vf_json_get(t, "pool_drained"), false));
    cr_expect_eq(
        vf_json_int(
            vf_json_get(vf_json_get(vf_json_get(t, "stage_duration_seconds"), "restore"), "count"),
            -1),
        2);
    cr_expect_eq(vf_json_int(vf_json_get(vf_json_get(t, "network_bytes_total"), "in"), -1), 1200);
    vm = vf_json_at(vf_json_get(t, "vms"), 0);
    cr_expect_str_eq(vf_json_str(vf_json_get(vm, "vm"), ""), "0123456789ab");
    cr_expect_eq(vf_json_int(vf_json_get(vf_json_get(vm, "vm_network_bytes_total"), "out"), -1),
                 300);
    slots = vf_json_get(vf_json_get(j, "network_slots"), "bridge");
    cr_expect_eq(vf_json_int(vf_json_get(slots, "taken"), -1), 3);
    cr_expect_eq(vf_json_int(vf_json_get(vf_json_get(j, "adopted_total"), "discarded"), -1), 4);
    cr_expect_gt(vf_json_int(vf_json_get(j, "process_open_fds"), -1), 2);
    cr_expect_gt(vf_json_int(vf_json_get(j, "process_resident_memory_bytes"), -1), 100000);
    vf_json_delete(j);
    free(text);
    vf_stats_free(s);
}

/* A VM is looked at now and then, and once more at its end: nothing is counted twice, and nothing goes back. */
Test(stats, traffic_counts_on_and_never_back)
{
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_template *t = vf_stats_template(s, "web");
    struct vf_net_stats a = {0}, b = {0};
    char *text;

    vf_stats_traffic(t, &a, &(struct vf_net_stats){.in_bytes = 100, .refused = {1}});
    vf_stats_vm(t, "a", &a);
    vf_stats_traffic(t, &b, &(struct vf_net_stats){.in_bytes = 10});
    vf_stats_vm(t, "b", &b);
    vf_stats_traffic(t, &a, &(struct vf_net_stats){.in_bytes = 50}); /* less than before */
    vf_stats_vm(t, "a", &a);
    text = openmetrics(s);
    expect_line(text, "vmfactory_network_bytes_total{template=\"web\",direction=\"in\"} 110");
    expect_line(text,
                "vmfactory_vm_network_bytes_total{template=\"web\",vm=\"a\",direction=\"in\"} 100");
    free(text);
    vf_stats_traffic(t, &a, &(struct vf_net_stats){.in_bytes = 150, .refused = {3}});
    vf_stats_vm_gone(t, "a");
    vf_stats_vm_gone(t, "never there");
    text = openmetrics(s);
    expect_line(text, "vmfactory_network_bytes_total{template=\"web\",direction=\"in\"} 160");
    expect_line(text, "vmfactory_network_refused_packets_total{template=\"web\",rule=\"mac\"} 3");
    cr_expect_null(strstr(text, "vm=\"a\""));
    cr_expect_not_null(strstr(text, "vm=\"b\""));
    free(text);
    vf_stats_free(s);
}

/* Whichever goes, the others keep theirs: each is found by its id, wherever it has been moved to. */
Test(stats, many_vms_come_and_go)
{
    enum { N = 1000 };
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_template *t = vf_stats_template(s, "web");
    struct vf_stats_snapshot snap;
    uint64_t seen = 0;
    char id[16];

    for (int round = 1; round <= 2; round++) {
        for (int i = 0; i < N; i++) {
            snprintf(id, sizeof(id), "%012x", i);
            vf_stats_vm(t, id, &(struct vf_net_stats){.in_bytes = (uint64_t)(round * i)});
        }
        cr_expect_eq(t->n_vms, N);
    }
    for (int i = 0; i < N; i += 3) { /* from the front, the middle, the end */
        snprintf(id, sizeof(id), "%012x", i * 7 % N);
        vf_stats_vm_gone(t, id);
        vf_stats_vm_gone(t, id);
    }
    cr_expect_eq(t->n_vms, N - (N + 2) / 3);
    cr_assert_eq(vf_stats_snapshot_take(s, &snap), 0);
    for (size_t i = 0; i < snap.templates[0].n_vms; i++) {
        const struct vf_stats_vm *vm = &snap.templates[0].vms[i];
        uint64_t number = strtoull(vm->id, NULL, 16);

        cr_expect_eq(vm->traffic.bytes[VF_TRAFFIC_IN], 2 * number);
        seen += number;
    }
    vf_stats_snapshot_free(&snap);
    for (int i = 0; i < N; i++) {
        bool gone = false;

        for (int k = 0; k < N && !gone; k += 3)
            gone = k * 7 % N == i;
        seen += gone ? (uint64_t)i : 0;
    }
    cr_expect_eq(seen, N * (N - 1) / 2);
    vf_stats_template_removed(t);
    cr_expect_eq(vf_stats_template(s, "web"), t);
    vf_stats_vm(t, "000000000001", &(struct vf_net_stats){.in_bytes = 1});
    vf_stats_vm_gone(t, "000000000002");
    cr_expect_eq(t->n_vms, 1);
    vf_stats_free(s);
}

Test(stats, what_is_removed_is_hidden_and_counts_on_when_back)
{
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_template *t = fill(s, "web");
    char *text;

    vf_stats_template_removed(t);
    text = openmetrics(s);
    cr_expect_null(strstr(text, "web"));
    free(text);
    cr_expect_eq(vf_stats_template(s, "web"), t);
    text = openmetrics(s);
    expect_line(text, "vmfactory_leases_total{template=\"web\"} 3");
    expect_line(text, "vmfactory_pool_parked{template=\"web\"} 0");
    free(text);
    vf_stats_free(s);
}

Test(stats, templates_are_in_the_order_of_their_names)
{
    struct vf_stats *s = vf_stats_new();
    char name[16], *text;
    const char *at;

    for (int i = 40; i-- > 0;) {
        snprintf(name, sizeof(name), "t%02d", i * 7 % 40);
        vf_stats_template(s, name);
    }
    text = openmetrics(s);
    at = text;
    for (int i = 0; i < 40; i++) {
        char line[64];

        snprintf(line, sizeof(line), "vmfactory_pool_min{template=\"t%02d\"} 0\n", i);
        at = strstr(at, line);
        cr_assert_not_null(at, "%s", line);
    }
    free(text);
    vf_stats_free(s);
}

Test(stats, stage_names_are_bounded)
{
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_template *t = vf_stats_template(s, "web");
    char *text;

    for (int i = 0; i < 100; i++) {
        char name[64];
        const struct vf_stage stage = {name, 1};

        snprintf(name, sizeof(name), "s%d-%040d", i, 0);
        vf_stats_acquired(t, VF_GOT_HIT, 1, &stage, 1);
        vf_stats_acquired(t, VF_GOT_HIT, 1, &stage, 1);
    }
    text = openmetrics(s);
    expect_line(text,
                "vmfactory_stage_duration_seconds_count{template=\"web\",stage=\"other\"} 154");
    expect_line(text, "vmfactory_stage_duration_seconds_count{template=\"web\",stage=\"s0-"
                      "00000000000000000000\"} 2");
    free(text);
    vf_stats_free(s);
}

Test(stats, out_of_range_is_counted_or_ignored_but_safe)
{
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_template *t = vf_stats_template(s, "web");
    char *text;

    vf_stats_acquired(t, (enum vf_got)99, 1, NULL, 0);
    vf_stats_lease_ended(t, (enum vf_lease_end)99, 1);
    vf_stats_acquire_failed(t, (enum vf_code)99);
    vf_stats_acquire_failed(t, VF_OK);
    vf_stats_refilled(t, -5);
    vf_stats_refilled(t, INT64_MAX);
    vf_stats_refilled(t, INT64_MAX);
    text = openmetrics(s);
    expect_line(text, "vmfactory_leases_total{template=\"web\"} 0");
    expect_line(text, "vmfactory_acquire_failures_total{template=\"web\",code=\"internal\"} 2");
    expect_line(text, "vmfactory_refills_total{template=\"web\"} 3");
    free(text);
    vf_stats_free(s);
}

Test(stats, quantiles)
{
    struct vf_histogram h = {0};

    cr_expect_eq(vf_histogram_quantile_us(&h, &vf_bounds_short, 0.5), 0);
    for (int i = 0; i < 100; i++)
        vf_histogram_add(&h, &vf_bounds_short, i < 90 ? 700 : 20000);
    cr_expect_eq(vf_histogram_count(&h), 100);
    cr_expect_eq(vf_histogram_quantile_us(&h, &vf_bounds_short, 0.45), 750); /* half of 500..1000 */
    cr_expect_eq(vf_histogram_quantile_us(&h, &vf_bounds_short, 0.9), 1000);
    cr_expect_eq(vf_histogram_quantile_us(&h, &vf_bounds_short, 0.95), 17500);
    vf_histogram_add(&h, &vf_bounds_short, INT64_C(1) << 40);
    cr_expect_eq(vf_histogram_quantile_us(&h, &vf_bounds_short, 1), 30000000);
}

Test(stats, bounds_rise_and_are_written_as_they_are)
{
    const struct vf_bounds *const all[] = {&vf_bounds_short, &vf_bounds_long};

    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < all[k]->n; i++) {
            cr_expect_float_eq(strtod(all[k]->upto[i].seconds, NULL) * 1e6, all[k]->upto[i].us,
                               0.001);
            cr_expect(i == 0 || all[k]->upto[i].us > all[k]->upto[i - 1].us);
        }
    }
}

#define HAMMERED 20000
static void *hammer(void *arg)
{
    struct vf_stats_template *t = (struct vf_stats_template *)arg;

    for (int i = 0; i < HAMMERED; i++) {
        vf_stats_acquired(t, VF_GOT_HIT, i % 200, stages, 2);
        vf_stats_lease_ended(t, VF_LEASE_RELEASED, i);
    }
    return NULL;
}

/* The value after sample; -1 if there is none. */
static long long value_of(const char *text, const char *sample)
{
    const char *at = strstr(text, sample);

    return at != NULL ? atoll(at + strlen(sample)) : -1;
}

Test(stats, read_while_counted)
{
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_template *t = vf_stats_template(s, "web");
    pthread_t a, b;
    char name[16], *text = NULL;
    long long n = 0;

    pthread_create(&a, NULL, hammer, t);
    pthread_create(&b, NULL, hammer, t);
    for (int i = 0; n < 2 * HAMMERED; i++) {
        free(text);
        text = openmetrics(s);
        n = value_of(text, "vmfactory_leases_total{template=\"web\"} ");
        /* one copy under one lock: the same number everywhere in a text */
        cr_assert_eq(n, value_of(text, "acquires_total{template=\"web\",source=\"hit\"} "));
        if (n > 0) /* before, there is no stage of that name */
            cr_assert_eq(n, value_of(text, "stage_duration_seconds_count{template=\"web\",stage="
                                           "\"prove\"} "));
        if (i < 100) {
            snprintf(name, sizeof(name), "a%d", i);
            vf_stats_template(s, name);
        }
    }
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    free(text);
    text = openmetrics(s);
    cr_expect_eq(value_of(text, "lease_ends_total{template=\"web\",how=\"released\"} "),
                 2 * HAMMERED);
    free(text);
    vf_stats_free(s);
}

Test(stats, live_and_ready)
{
    struct vf_stats *s = vf_stats_new();

    cr_expect(vf_stats_live(s, 60 * INT64_C(1000000)), "a daemon that starts is alive");
    cr_expect_not(vf_stats_live(s, -1));
    cr_expect_not(vf_stats_ready(s));
    vf_stats_set_ready(s, true);
    cr_expect(vf_stats_ready(s));
    vf_stats_loop_turn(s, 1);
    cr_expect_lt(vf_stats_last_turn_us(s), 60 * INT64_C(1000000));
    vf_stats_free(s);
}

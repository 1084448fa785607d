/* All that is shown, in the order in which it is shown. Every family has all of its labels from the start,
 * with 0 where nothing was counted: a rate over a series that appears with its first failure would not
 * see that failure. */
#include <stddef.h>
#include "pool/stats_internal.h"

static const char *got_name(int i)
{
    return vf_got_names[i];
}

static const char *code_name(int i)
{
    return vf_code_name((enum vf_code)i);
}

static const char *lease_end_name(int i)
{
    return vf_lease_end_names[i];
}

static const char *state_name(int i)
{
    return vf_template_state_names[i];
}

static const char *way_name(int i)
{
    static const char *const names[VF_TRAFFIC_WAYS] = {"in", "out"}; /* as the guest sees it */

    return names[i];
}

static const char *rule_name(int i)
{
    return vf_refusal_names[i];
}

static const char *mode_name(int i)
{
    return vf_network_mode_names[VF_NETWORK_NAT + i];
}

static const char *slots_name(int i)
{
    static const char *const names[VF_SLOTS_STATES] = {"making", "ready", "taken", "dirty"};

    return names[i];
}

static const char *adopted_name(int i)
{
    static const char *const names[VF_ADOPTED_COUNT] = {"leased", "parked", "discarded"};

    return names[i];
}

#define OF_TEMPLATE(member) .offset = offsetof(struct vf_stats_facts, member)
#define OF_POOL(member) OF_TEMPLATE(pool.member)
#define OF_TRAFFIC(member) OF_TEMPLATE(traffic.member)
#define OF_VM(member) .scope = VF_FACT_OF_VM, .offset = offsetof(struct vf_stats_vm, traffic.member)
#define OF_DAEMON(member) \
    .scope = VF_FACT_OF_DAEMON, .offset = offsetof(struct vf_stats_globals, member)
#define BY_SOURCE .label = "source", .label_value = got_name, .n = VF_GOT_COUNT
#define BY_CODE .label = "code", .label_value = code_name, .first = 1, .n = VF_CODE_COUNT
#define BY_WAY .label = "direction", .label_value = way_name, .n = VF_TRAFFIC_WAYS
#define BY_RULE .label = "rule", .label_value = rule_name, .n = VF_REFUSAL_COUNT
#define BY_MODE .label = "mode", .label_value = mode_name, .n = VF_STATS_NETWORKS
#define SECONDS .unit = "seconds"
#define BYTES .unit = "bytes"
#define SHORT .unit = "seconds", .bounds = &vf_bounds_short

const struct vf_stats_family vf_stats_families[] = {
    /* acquires and leases */
    {"vmfactory_acquires", VF_FACT_COUNTER, VF_FACT_HOW_MANY, OF_TEMPLATE(acquire), BY_SOURCE,
     .help = "VMs handed out, by where they came from."},
    {"vmfactory_acquire_failures", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TEMPLATE(acquire_failures),
     BY_CODE, .help = "Acquires that got no VM, by the error's code."},
    {"vmfactory_acquire_duration_seconds", VF_FACT_HISTOGRAM, VF_FACT_HISTOGRAMS,
     OF_TEMPLATE(acquire), BY_SOURCE, SHORT, .help = "From an acquire to its VM."},
    {"vmfactory_stage_duration_seconds", VF_FACT_HISTOGRAM, VF_FACT_STAGES, OF_TEMPLATE(stages),
     .label = "stage", SHORT, .help = "Each stage of the acquires that got a VM."},
    {"vmfactory_leases", VF_FACT_COUNTER, VF_FACT_HOW_MANY, OF_TEMPLATE(acquire), .n = VF_GOT_COUNT,
     .help = "Leases granted."},
    {"vmfactory_lease_ends", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TEMPLATE(lease_ends),
     .label = "how", .label_value = lease_end_name, .n = VF_LEASE_END_COUNT,
     .help = "Leases that ended, by how."},
    {"vmfactory_lease_held_seconds", VF_FACT_HISTOGRAM, VF_FACT_HISTOGRAMS, OF_TEMPLATE(lease_held),
     SECONDS, .bounds = &vf_bounds_long, .help = "How long leases were held."},
    /* refills and builds */
    {"vmfactory_refills", VF_FACT_COUNTER, VF_FACT_HOW_MANY, OF_TEMPLATE(refill),
     .help = "VMs made and parked."},
    {"vmfactory_refill_failures", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TEMPLATE(refill_failures),
     BY_CODE, .help = "VMs that could not be made or parked, by the error's code."},
    {"vmfactory_refill_duration_seconds", VF_FACT_HISTOGRAM, VF_FACT_HISTOGRAMS,
     OF_TEMPLATE(refill), SHORT, .help = "Making, proving and parking a VM."},
    {"vmfactory_builds", VF_FACT_COUNTER, VF_FACT_HOW_MANY, OF_TEMPLATE(build),
     .help = "Template generations built."},
    {"vmfactory_build_failures", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TEMPLATE(build_failures),
     BY_CODE, .help = "Builds that failed, by the error's code."},
    {"vmfactory_build_duration_seconds", VF_FACT_HISTOGRAM, VF_FACT_HISTOGRAMS, OF_TEMPLATE(build),
     SHORT, .help = "Building a template generation, trial clones included."},
    {"vmfactory_quarantines", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TEMPLATE(quarantines),
     .help = "Generations put out of use because their clones failed in a row."},
    {"vmfactory_parked_deaths", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TEMPLATE(parked_deaths),
     .help = "VMs that died while they were parked."},
    /* pools */
    {"vmfactory_template_state", VF_FACT_GAUGE, VF_FACT_STATE, OF_POOL(state), .label = "state",
     .label_value = state_name, .n = VF_TEMPLATE_STATE_COUNT,
     .help = "1 for the state the template is in, 0 for the others."},
    {"vmfactory_template_generation", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(generation),
     .help = "The generation in use; 0 without one."},
    {"vmfactory_template_building", VF_FACT_GAUGE, VF_FACT_BOOL, OF_POOL(building),
     .help = "1 while a generation is being built."},
    {"vmfactory_pool_min", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(min),
     .help = "The least that the target may be."},
    {"vmfactory_pool_max", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(max),
     .help = "The most that the target may be."},
    {"vmfactory_pool_target", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(target),
     .help = "VMs to keep parked."},
    {"vmfactory_pool_parked", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(parked),
     .help = "VMs that are parked, ready to be handed out."},
    {"vmfactory_pool_standby_target", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(standby_target),
     .help = "Empty VMMs to keep up."},
    {"vmfactory_pool_standby", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(standby),
     .help = "Empty VMMs that are up."},
    {"vmfactory_pool_making", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(making),
     .help = "VMs in the making."},
    {"vmfactory_pool_leased", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(leased),
     .help = "VMs that are leased."},
    {"vmfactory_pool_waiting", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(waiting),
     .help = "Acquires that wait for a VM."},
    {"vmfactory_pool_drained", VF_FACT_GAUGE, VF_FACT_BOOL, OF_POOL(drained),
     .help = "1 if the pool is drained: no refill and no hand-out."},
    {"vmfactory_pool_backoff_seconds", VF_FACT_GAUGE, VF_FACT_TIME, OF_POOL(backoff_ms),
     .scale = 1000, SECONDS, .help = "The pause before the next refill after failures; 0 without."},
    {"vmfactory_memory_pressure", VF_FACT_GAUGE, VF_FACT_BOOL, OF_POOL(under_pressure),
     .help = "1 while the pool is not refilled because the host is short of memory."},
    /* the memory ledger */
    {"vmfactory_template_memory_bytes", VF_FACT_GAUGE, VF_FACT_INT, OF_POOL(template_memory_bytes),
     BYTES, .help = "The memory that a guest sees."},
    {"vmfactory_template_memory_resident_bytes", VF_FACT_GAUGE, VF_FACT_INT,
     OF_TEMPLATE(memory.template_resident_kib), .scale = 1024, BYTES,
     .help = "What the template's memory takes, once for all of its clones."},
    {"vmfactory_vms_measured", VF_FACT_GAUGE, VF_FACT_INT, OF_TEMPLATE(memory.vms_measured),
     .help =
         "VMs of which the memory was measured, every 15 s, at most 256 of all; the vmfactory_vm_ "
         "families are sums over these."},
    {"vmfactory_vm_guest_copied_bytes", VF_FACT_GAUGE, VF_FACT_INT,
     OF_TEMPLATE(memory.guest_copied_kib), .scale = 1024, BYTES,
     .help = "Guest memory that the measured VMs have copied."},
    {"vmfactory_vm_own_bytes", VF_FACT_GAUGE, VF_FACT_INT, OF_TEMPLATE(memory.vmm_own_kib),
     .scale = 1024, BYTES, .help = "The measured VMs' VMMs' own memory."},
    {"vmfactory_vm_pss_bytes", VF_FACT_GAUGE, VF_FACT_INT, OF_TEMPLATE(memory.pss_kib),
     .scale = 1024, BYTES,
     .help = "All memory of the measured VMs, shared pages divided among those who map them."},
    /* networks */
    {"vmfactory_network_bytes", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TRAFFIC(bytes), BY_WAY, BYTES,
     .help = "To (in) and from (out) the template's VMs, those that have ended too."},
    {"vmfactory_network_packets", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TRAFFIC(packets), BY_WAY,
     .help = "The same in packets."},
    {"vmfactory_network_dropped_packets", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TRAFFIC(dropped),
     BY_WAY, .help = "Packets that the VMs' interfaces dropped, as they were full or too fast."},
    {"vmfactory_network_refused_packets", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_TRAFFIC(refused),
     BY_RULE, .help = "Packets that a rule refused, by the rule."},
    {"vmfactory_vm_network_bytes", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_VM(bytes), BY_WAY, BYTES,
     .help = "To (in) and from (out) a leased VM, looked at every 5 s."},
    {"vmfactory_vm_network_packets", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_VM(packets), BY_WAY,
     .help = "The same in packets."},
    {"vmfactory_vm_network_dropped_packets", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_VM(dropped),
     BY_WAY, .help = "Packets that its interface dropped."},
    {"vmfactory_vm_network_refused_packets", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_VM(refused),
     BY_RULE, .help = "Packets that a rule refused, by the rule."},
    {"vmfactory_network_slots", VF_FACT_GAUGE, VF_FACT_GRID, OF_DAEMON(slots.by_state), BY_MODE,
     .label2 = "state", .label2_value = slots_name, .n2 = VF_SLOTS_STATES,
     .help = "Network slots; dirty ones were given back and are not ready yet."},
    {"vmfactory_network_slot_capacity", VF_FACT_GAUGE, VF_FACT_COUNTS, OF_DAEMON(slots.capacity),
     BY_MODE, .help = "Network slots that there are addresses for."},
    {"vmfactory_network_slots_made", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_DAEMON(slots.made),
     BY_MODE, .help = "Network slots made."},
    {"vmfactory_network_slots_recycled", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_DAEMON(slots.recycled),
     BY_MODE, .help = "Network slots made ready for another VM."},
    {"vmfactory_network_slots_destroyed", VF_FACT_COUNTER, VF_FACT_COUNTS,
     OF_DAEMON(slots.destroyed), BY_MODE, .help = "Network slots destroyed."},
    {"vmfactory_network_slots_doubted", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_DAEMON(slots.doubted),
     BY_MODE, .help = "Of these, those that did not look as they must when they were given back."},
    /* the daemon */
    {"vmfactory_adopted", VF_FACT_COUNTER, VF_FACT_COUNTS, OF_DAEMON(adopted), .label = "what",
     .label_value = adopted_name, .n = VF_ADOPTED_COUNT,
     .help = "What an earlier daemon left: VMs adopted, or discarded because nothing accounted for "
             "them."},
    {"vmfactory_ready", VF_FACT_GAUGE, VF_FACT_BOOL, OF_DAEMON(ready),
     .help = "1 once adoption is over and the API answers."},
    {"vmfactory_loop_turn_seconds", VF_FACT_HISTOGRAM, VF_FACT_HISTOGRAMS, OF_DAEMON(turns), SHORT,
     .help = "How long the event loop worked before it looked for events again."},
    {"vmfactory_loop_stall_max_seconds", VF_FACT_GAUGE, VF_FACT_TIME, OF_DAEMON(longest_turn_us),
     SECONDS, .help = "The longest of these since the start."},
    {"vmfactory_loop_last_turn_age_seconds", VF_FACT_GAUGE, VF_FACT_TIME, OF_DAEMON(last_turn_us),
     SECONDS,
     .help = "Since the event loop last turned, as of this text, which may be 100 ms old; it turns "
             "every second when idle."},
    {"vmfactory_build", VF_FACT_INFO, VF_FACT_VERSION, .scope = VF_FACT_OF_DAEMON,
     .label = "version", .help = "The version that runs."},
    /* these have the names that every Prometheus client uses */
    {"process_resident_memory_bytes", VF_FACT_GAUGE, VF_FACT_INT, OF_DAEMON(process.resident_bytes),
     BYTES, .help = "The daemon's resident memory."},
    {"process_open_fds", VF_FACT_GAUGE, VF_FACT_INT, OF_DAEMON(process.open_fds),
     .help = "The daemon's open file descriptors."},
    {"process_max_fds", VF_FACT_GAUGE, VF_FACT_INT, OF_DAEMON(process.max_fds),
     .help = "How many it may open."},
    {"process_threads", VF_FACT_GAUGE, VF_FACT_INT, OF_DAEMON(process.threads),
     .help = "The daemon's threads."},
    {"process_cpu_seconds", VF_FACT_COUNTER, VF_FACT_TIME, OF_DAEMON(process.cpu_us), SECONDS,
     .help = "CPU time of the daemon, user and system."},
    {"process_start_time_seconds", VF_FACT_GAUGE, VF_FACT_TIME, OF_DAEMON(process.started_us),
     SECONDS, .help = "When the daemon started, since the Unix epoch."},
    {0},
};

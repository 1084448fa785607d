/* The settings' table. See settings.h. */
#include <assert.h>
#include <limits.h>
#include <stddef.h>
#include "base/log.h"
#include "pool/settings_internal.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define HOUR_MS (3600 * 1000)
#define YEAR_MS (INT64_C(366) * 24 * HOUR_MS)

const char *const vf_on_stop_names[] = {"keep-leases", "destroy-all", NULL};
static_assert(COUNT(vf_on_stop_names) == VF_ON_STOP_DESTROY_ALL + 2, "a name for each on_stop");
const char *const vf_networks_wanted_names[] = {"auto", "on", "off", NULL};
static_assert(COUNT(vf_networks_wanted_names) == VF_NETWORKS_OFF + 2, "a name for each");
static const char *const level_names[] = {"debug", "info", "warn", "error", "off", NULL};
static_assert(COUNT(level_names) == VF_LOG_OFF + 2, "a name for each level");
static const char *const format_names[] = {"text", "json", NULL};
static_assert(COUNT(format_names) == VF_LOG_JSON + 2, "a name for each format");

#define AT(member) .name = #member, .offset = offsetof(struct vf_settings, member)
#define INT(lowest, highest) .type = VF_JSON_INT, .min = (lowest), .max = (highest)
#define PATH .type = VF_JSON_STRING, .min = 1, .max = PATH_MAX - 1
#define OPTIONAL(longest) .type = VF_JSON_STRING, .max = (longest)
#define BOOL .type = VF_JSON_BOOL
#define ENUM(names) .type = VF_JSON_ENUM, .choices = (names)

const struct vf_setting vf_settings_table[] = {
    {{AT(state_dir), PATH,
      .help = "Templates, pools and generations. Other users than root: "
              "$XDG_STATE_HOME/vmfactory or ~/.local/state/vmfactory."},
     .dflt = "/var/lib/vmfactory"},
    {{AT(run_dir), PATH,
      .help = "The sockets, and a directory for each VM. Other users than root: "
              "$XDG_RUNTIME_DIR/vmfactory, or run/ in the state directory."},
     .dflt = "/run/vmfactory"},
    {{AT(group), OPTIONAL(64),
      .help = "The group whose members may use both sockets. Empty: only the daemon's own user. "
              "The default holds where root runs the daemon and that group exists."},
     .dflt = VF_SETTINGS_GROUP},
    {{AT(admin_group), OPTIONAL(64),
      .help = "The group whose members may see and do everything, as root may. Empty: none."},
     .dflt = ""},
    {{AT(qemu), OPTIONAL(PATH_MAX - 1),
      .help = "The QEMU to run, an absolute path. Empty: the host's own on PATH."},
     .dflt = ""},
    {{AT(cloud_hypervisor), OPTIONAL(PATH_MAX - 1),
      .help = "The Cloud Hypervisor to run, likewise."},
     .dflt = ""},
    {{AT(firecracker), OPTIONAL(PATH_MAX - 1), .help = "The Firecracker to run, likewise."},
     .dflt = ""},
    {{AT(runtime_dir), OPTIONAL(PATH_MAX - 1),
      .help = "Where runtime classes and assets are defined: classes/NAME.json, assets/NAME.json. "
              "Empty: runtime/ in the state directory."},
     .dflt = ""},
    {{AT(stats_listen), OPTIONAL(64),
      .help = "Answer stats requests over TCP too, on this address: 127.0.0.1:9464, [::1]:9464. "
              "Nobody is asked who they are there. Empty: only on stats.sock."},
     .dflt = ""},
    {{AT(max_connections), INT(1, 65536), .help = "Connections to each socket at once."},
     .dflt = "1024"},
    {{AT(request_timeout_ms), INT(100, 10 * 60 * 1000),
      .help = "How long a request may take to arrive whole, and how long a connection may idle."},
     .unit = "ms",
     .dflt = "30000"},
    {{AT(max_body_bytes), INT(1024, 16 << 20), .help = "The longest request body."},
     .unit = "bytes",
     .dflt = "1048576"},
    {{AT(network), ENUM(vf_networks_wanted_names),
      .help = "Networks for VMs. auto: where they can't be had the log says why, and only VMs "
              "without one are made. on: then the daemon does not start. off: none."},
     .dflt = "auto"},
    {{AT(network_prefixes), OPTIONAL(1024),
      .help = "Prefixes of this host's that VMs of mode nat get their addresses from, separated by "
              "commas; nothing else on the host may use them. A VM takes two addresses of each "
              "family. Empty: no mode nat."},
     .dflt = "10.210.0.0/16,fd76:6d01::/48"},
    {{AT(network_ahead), INT(0, 256),
      .help = "Networks kept ready of each kind that the templates ask for."},
     .dflt = "8"},
    {{AT(network_ports), OPTIONAL(16),
      .help = "Ports of this host for leases that leave the choice to the daemon, FIRST-LAST; best "
              "out of the range of net.ipv4.ip_local_port_range. Empty: each lease names its own."},
     .dflt = "30000-32767"},
    {{AT(network_forwarding), BOOL,
      .help = "Switch the host's IP forwarding on where it is off, instead of refusing the mode "
              "nat."},
     .dflt = "false"},
    {{AT(network_bridge), OPTIONAL(15),
      .help = "The bridge that VMs of mode bridge are put on. It must exist. Empty: no mode "
              "bridge."},
     .dflt = ""},
    {{AT(network_bridge_prefixes), OPTIONAL(1024),
      .help = "The prefixes of that bridge's network, separated by commas. VMs get addresses from "
              "them, so nothing else may give these out."},
     .dflt = ""},
    {{AT(network_bridge_gateways), OPTIONAL(256),
      .help = "The routers of that network, one of each family, separated by commas. Empty: VMs "
              "only answer those who are on it."},
     .dflt = ""},
    {{AT(network_netns_dir), OPTIONAL(100),
      .help = "Where the VMs' network namespaces are mounted. Empty: /run/netns, where ip netns "
              "sees them."},
     .dflt = ""},
    {{AT(log_level), ENUM(level_names), .help = "The least that is logged."},
     .dflt = "info",
     .live = true},
    {{AT(log_format), ENUM(format_names), .help = "Log lines as text or as JSON objects."},
     .dflt = "text",
     .live = true},
    {{AT(on_stop), ENUM(vf_on_stop_names),
      .help = "What SIGTERM ends: what nobody holds (leased VMs go on, and the next daemon adopts "
              "them), or every VM."},
     .dflt = "keep-leases",
     .live = true},
    {{AT(stop_timeout_ms), INT(100, HOUR_MS),
      .help = "How long stopping may take before the daemon ends all the same."},
     .unit = "ms",
     .dflt = "20000",
     .live = true},
    {{AT(max_vms), INT(0, 100000),
      .help = "VMs at once, leased, parked and in the making. 0: no limit."},
     .dflt = "0",
     .live = true},
    {{AT(max_leases_per_holder), INT(0, 100000),
      .help = "VMs that one user may hold at once, root and admins too. 0: no limit."},
     .dflt = "0",
     .live = true},
    {{AT(max_lease_ttl_ms), INT(0, YEAR_MS),
      .help = "The longest lease a caller may ask for. 0: no limit."},
     .unit = "ms",
     .dflt = "0",
     .live = true},
    {{AT(quarantine_after), INT(1, 1000),
      .help = "Clones of one generation that fail in a row before it is quarantined."},
     .dflt = "3",
     .live = true},
    {{AT(backoff_initial_ms), INT(10, HOUR_MS),
      .help = "The wait after a failed refill or build. It doubles with each failure in a row."},
     .unit = "ms",
     .dflt = "500",
     .live = true},
    {{AT(backoff_max_ms), INT(10, 24 * HOUR_MS), .help = "The longest such wait."},
     .unit = "ms",
     .dflt = "60000",
     .live = true},
    {{AT(psi_some_percent), INT(0, 100),
      .help = "Refilling stops while the host's tasks wait for memory this much of the time (avg10 "
              "of \"some\" in /proc/pressure/memory). 0: never."},
     .unit = "%",
     .dflt = "20",
     .live = true},
    {{AT(min_available_mib), INT(0, 16 << 20),
      .help = "Refilling stops while MemAvailable is less. 0: never."},
     .unit = "MiB",
     .dflt = "256",
     .live = true},
    {{AT(heartbeat_ms), INT(0, HOUR_MS),
      .help = "Between two pings of a VM that is parked running. 0: none."},
     .unit = "ms",
     .dflt = "5000",
     .live = true},
    {{AT(answer_timeout_ms), INT(10, 10 * 60 * 1000),
      .help = "How long a guest may take for each answer."},
     .unit = "ms",
     .dflt = "10000",
     .live = true},
    {.field = {.name = NULL}},
};
static_assert(COUNT(vf_settings_table) == VF_N_SETTINGS + 1, "the number of settings");

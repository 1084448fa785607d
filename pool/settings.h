/* The daemon's settings: one typed table gives the config file's parser (base/json.h), the defaults,
 * `vmfactoryd --help`, `vmfactory config`, and the man page's list.
 *
 * The config file is one JSON object; what it leaves out has its default. SIGHUP reads it again:
 * settings marked live take effect at once, a changed other one is named in the log and waits for a restart.
 * A bad file is refused whole, and what runs stays as it is.
 */
#ifndef VF_POOL_SETTINGS_H
#define VF_POOL_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/json.h"

#define VF_SETTINGS_MAX_TEXT (64 * 1024)

enum vf_on_stop { VF_ON_STOP_KEEP_LEASES, VF_ON_STOP_DESTROY_ALL };
extern const char *const vf_on_stop_names[]; /* "keep-leases", "destroy-all", NULL */
enum vf_networks_wanted { VF_NETWORKS_AUTO, VF_NETWORKS_ON, VF_NETWORKS_OFF };
extern const char *const vf_networks_wanted_names[]; /* "auto", "on", "off", NULL */

struct vf_settings {
    /* paths and access; not live */
    char *state_dir; /* templates, pools, generations */
    char *run_dir;   /* sockets, a directory per VM */
    char *group;     /* of both sockets; NULL: the daemon's own */
    char *
        admin_group; /* may see and do everything, as root and the daemon's own user may; NULL: none */
    char *qemu, *cloud_hypervisor, *firecracker; /* absolute; NULL: found on PATH */
    char *runtime_dir;  /* of classes/ and assets/, see templates/registry.h; NULL: STATE/runtime */
    char *stats_listen; /* "127.0.0.1:9464", "[::1]:9464"; NULL: only stats.sock */
    int64_t max_connections;    /* of each socket */
    int64_t request_timeout_ms; /* for a request to arrive whole, and for an idle connection */
    int64_t max_body_bytes;
    /* networks of VMs; not live; lists are separated by commas; see net/networks.h */
    int network;            /* enum vf_networks_wanted */
    char *network_prefixes; /* "10.210.0.0/16,fd76:6d01::/48"; NULL: no mode nat */
    int64_t network_ahead;
    char *network_ports; /* "30000-32767"; NULL: whoever opens a port names it */
    bool network_forwarding;
    char *network_bridge; /* an interface; NULL: no mode bridge */
    char *network_bridge_prefixes, *network_bridge_gateways;
    char *network_netns_dir; /* absolute; NULL: the host's /run/netns */
    /* live */
    int log_level;  /* enum vf_log_level */
    int log_format; /* enum vf_log_format */
    int on_stop;    /* enum vf_on_stop: SIGTERM ends what nobody holds, or everything */
    int64_t stop_timeout_ms;
    int64_t max_vms;               /* leased, parked and in the making; 0: no limit */
    int64_t max_leases_per_holder; /* by uid; 0: no limit; root and admins too */
    int64_t max_lease_ttl_ms;      /* the longest a caller may ask for; 0: no limit */
    int64_t quarantine_after;      /* clones of one generation that failed in a row */
    int64_t backoff_initial_ms,
        backoff_max_ms; /* between failed refills and builds, doubled, with jitter */
    int64_t
        psi_some_percent; /* memory pressure (PSI some avg10) at which refilling stops; 0: never */
    int64_t min_available_mib; /* MemAvailable below which refilling stops; 0: never */
    int64_t heartbeat_ms;      /* between pings of a VM that is parked running; 0: none */
    int64_t answer_timeout_ms; /* for each answer of a guest */
};

/* One setting as people see it. */
struct vf_setting {
    struct vf_json_field field; /* name, type, offset, limits, choices, help */
    const char *unit;           /* "ms", "MiB", …; NULL: none */
    const char *dflt; /* as text, for --help and the man page; set from it too; "": none */
    bool live;
};
extern const struct vf_setting vf_settings_table[]; /* ends with field.name == NULL */

/* The defaults. An unprivileged user's state and run directory lie below XDG_STATE_HOME and
 * XDG_RUNTIME_DIR, root's are /var/lib/vmfactory and /run/vmfactory. */
int vf_settings_init(struct vf_settings *ret, struct vf_error *err);
/* Defaults, then the file over them (path NULL: only defaults). Blocking. On failure *ret is untouched. */
int vf_settings_load(const char *path, struct vf_settings *ret, struct vf_error *err);
int vf_settings_parse(const char *text, size_t len, const char *where, struct vf_settings *ret,
                      struct vf_error *err);
/* One setting from text ("64", "keep-leases"; "" is none): for the command line. Checked by itself; after the
 * last one call vf_settings_check. */
int vf_settings_set(struct vf_settings *s, const char *name, const char *value,
                    struct vf_error *err);
/* Limits, and what settings mean together; that the groups exist. */
int vf_settings_check(const struct vf_settings *s, struct vf_error *err);
void vf_settings_free(struct vf_settings *s);
/* As JSON, all of them, "" where there is none; vf_settings_parse reads it. malloc'd; NULL without memory. */
char *vf_settings_encode(const struct vf_settings *s);
/* Puts from's live settings into s. ret_waiting: names of changed ones that wait for a restart, separated by
 * ", " (malloc'd, NULL if none). */
int vf_settings_apply(struct vf_settings *s, const struct vf_settings *from, char **ret_waiting,
                      struct vf_error *err);

/* ---- what the settings say about networks */
struct vf_networks_config;
/* What a config made of them points to. */
struct vf_settings_networks {
    char *run_dir;
    struct vf_strv prefixes, bridge_prefixes, bridge_gateways;
};
/* run_dir: the daemon's. ret_cfg is good as long as s and ret, which is to be freed. Not for the setting network "off". */
int vf_settings_networks(const struct vf_settings *s, const char *run_dir,
                         struct vf_settings_networks *ret, struct vf_networks_config *ret_cfg,
                         struct vf_error *err);
void vf_settings_networks_free(struct vf_settings_networks *n);

#endif

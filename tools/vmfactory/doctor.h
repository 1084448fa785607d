/* What doctor finds: one struct a check, filled by a function each. */
#ifndef VF_TOOLS_VMFACTORY_DOCTOR_H
#define VF_TOOLS_VMFACTORY_DOCTOR_H

#include <stddef.h>
#include "tools/vmfactory/cli.h"

/* Skipped: it can't be told; the detail says why, and if it is empty another finding does, and this one is not shown. */
enum vf_verdict { VF_FINDING_OK, VF_FINDING_WARN, VF_FINDING_BAD, VF_FINDING_SKIPPED };

struct vf_finding {
    enum vf_verdict verdict;
    char detail[400];
    char fix[320]; /* empty if it is ok */
};

struct vf_check {
    const char *name;
    void (*look)(struct vf_cli *cli, struct vf_finding *ret);
};
/* doctor_host.c, doctor_network.c, doctor_vmm.c, doctor_daemon.c; each ends with name == NULL. */
extern const struct vf_check vf_host_checks[];
extern const struct vf_check vf_network_checks[];
extern const struct vf_check vf_vmm_checks[];
extern const struct vf_check vf_daemon_checks[];

/* *ret = this; the fix may be NULL, detail is a format. */
void vf_find(struct vf_finding *ret, enum vf_verdict verdict, const char *fix, const char *detail,
             ...) __attribute__((format(printf, 4, 5)));

/* A small file of /proc, whose size says nothing; "" if there is none. */
void vf_doctor_read_proc(const char *path, char *buf, size_t size);
/* What the daemon answers to GET path. Connects if there is a daemon; NULL, and says nothing, if there is none, for another
 * check does. */
struct vf_json *vf_doctor_ask(struct vf_cli *cli, const char *path);
/* The setting of the daemon that runs; without one buf is as it was, and the result false. */
bool vf_doctor_setting(struct vf_cli *cli, const char *name, char *buf, size_t size);
void vf_doctor_run_dir(struct vf_cli *cli, char *buf, size_t size);

/* doctor_addresses.c */
void vf_doctor_look_namespaces(struct vf_cli *cli, struct vf_finding *ret);
void vf_doctor_look_prefixes(struct vf_cli *cli, struct vf_finding *ret);
/* The number of a name like prefix and a number, "vf-7"; negative: it is none. */
int vf_doctor_slot_number(const char *name, const char *prefix);
/* The first route in the text of /proc/net/route, or /proc/net/ipv6_route, that overlaps the prefix (text), as
 * "10.0.0.0/8 through eth0"; false: none does. Routes for all, and ours, do not count. */
bool vf_doctor_route_in_way(const char *routes, const char *prefix, char *ret, size_t size);
/* Of the answer to GET /v1/settings: which network modes the daemon refuses, and why; nothing if it does not tell. */
void vf_doctor_judge_modes(const struct vf_json *settings, bool has_bridge, struct vf_finding *ret);
/* Does the line CapEff: of /proc/PID/status have this capability? */
bool vf_doctor_has_cap(const char *status, int cap);
/* Is a module in the text of modules.builtin or modules.dep? */
bool vf_doctor_lists_module(const char *text, const char *name);

/* The version in what a VMM's --version prints first, "QEMU emulator version 7.2.22 (…)", "Firecracker v1.16.1";
 * false: there is none. */
bool vf_doctor_version(const char *text, char *ret, size_t size, int *ret_major, int *ret_minor);
/* "some avg10=1.50 …" -> 1.5; negative: not found. */
double vf_doctor_psi_avg10(const char *text);
/* Does a flags line of /proc/cpuinfo list this? */
bool vf_doctor_cpu_has(const char *cpuinfo, const char *flag);

#endif

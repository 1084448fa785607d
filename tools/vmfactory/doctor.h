/* What doctor finds: one struct a check, filled by a function each. */
#ifndef VF_TOOLS_VMFACTORY_DOCTOR_H
#define VF_TOOLS_VMFACTORY_DOCTOR_H

#include <stddef.h>
#include "tools/vmfactory/cli.h"

/* Skipped: it can't be told, and another finding says why; not shown. */
enum vf_verdict { VF_FINDING_OK, VF_FINDING_WARN, VF_FINDING_BAD, VF_FINDING_SKIPPED };

struct vf_finding {
    enum vf_verdict verdict;
    char detail[400];
    char fix[300]; /* empty if it is ok */
};

struct vf_check {
    const char *name;
    void (*look)(struct vf_cli *cli, struct vf_finding *ret);
};
/* doctor_host.c, doctor_vmm.c, doctor_daemon.c; each ends with name == NULL. */
extern const struct vf_check vf_host_checks[];
extern const struct vf_check vf_vmm_checks[];
extern const struct vf_check vf_daemon_checks[];

/* *ret = this; the fix may be NULL, detail is a format. */
void vf_find(struct vf_finding *ret, enum vf_verdict verdict, const char *fix, const char *detail,
             ...) __attribute__((format(printf, 4, 5)));

/* The version in what a VMM's --version prints first, "QEMU emulator version 7.2.22 (…)", "Firecracker v1.16.1";
 * false: there is none. */
bool vf_doctor_version(const char *text, char *ret, size_t size, int *ret_major, int *ret_minor);
/* "some avg10=1.50 …" -> 1.5; negative: not found. */
double vf_doctor_psi_avg10(const char *text);
/* Does a flags line of /proc/cpuinfo list this? */
bool vf_doctor_cpu_has(const char *cpuinfo, const char *flag);

#endif

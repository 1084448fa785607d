/* What a parked VM of the null driver costs this process: a thousand of them are to fit into a small one. */
#include "tests/e2e/factory_support.h"

#include <stdio.h>
#include <string.h>

#define VMS 200 /* within a usual limit of descriptors */
#define KIB_EACH 18
#define FDS_EACH 4

static long resident_kib(void)
{
    char *status = fac_read("/proc/self/status"), *p = strstr(status, "VmRSS:");
    long kib = 0;
    cr_assert(p && sscanf(p, "VmRSS: %ld", &kib) == 1);
    free(status);
    return kib;
}

Test(factory_cost, parked_null_vms, .timeout = 60)
{
    static struct vf_instance *vms[VMS];
    struct fac f;
    struct vf_error e;
#ifdef __SANITIZE_ADDRESS__
    sup_skip("factory_cost", "parked_null_vms", "a sanitizer's memory is not what is measured");
#endif
    fac_open(&f, &(struct vf_sync_options){.trial_clones = -1});
    struct vf_spec spec = fac_tiny("null", VF_ACCEL_TCG, NULL);
    spec.vmm = VF_SPEC_VMM_NULL;
    struct vf_generation *gen = fac_build(&f, &spec);
    fac_destroy(&f, fac_clone(&f, gen)); /* what is allocated once */
    fac_mark(&f);
    long before = resident_kib();
    for (int i = 0; i < VMS; i++) {
        vms[i] = fac_clone(&f, gen);
        cr_assert_eq(vf_sync_park(&f.sync, vms[i], &e), 0, "%s", e.msg);
    }
    long grown = resident_kib() - before;
    cr_assert_leq(grown, (long)VMS * KIB_EACH, "%ld KiB for %d VMs", grown, VMS);
    cr_assert_leq(sup_count_fds() - f.fds, VMS * FDS_EACH);
    for (int i = 0; i < VMS; i++)
        fac_destroy(&f, vms[i]);
    fac_check(&f, "all destroyed");
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    fac_close(&f);
}

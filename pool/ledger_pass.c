/* Measuring. See ledger_pass.h. */
#include "pool/ledger_pass.h"

#include <stdlib.h>
#include "base/fd.h"
#include "factory/measure.h"

int vf_ledger_choose(int i, int n, int of, unsigned turn)
{
    if (of <= n)
        return i;
    return (int)(((int64_t)i * of / n + (int64_t)(turn % (unsigned)of)) % of);
}

static void measure_vm(struct vf_ledger_pass *p, const struct vf_vm_process *vm)
{
    struct vf_memory_use use;

    if (vf_measure_memory(vm->pid, &use, NULL) < 0)
        return; /* it is gone, or on its way */
    for (int i = 0; i < p->n_templates; i++) {
        struct vf_stats_memory *sum = &p->templates[i].sum;

        if (p->templates[i].stats != vm->stats)
            continue;
        sum->vms_measured++;
        sum->guest_copied_kib += use.guest_anonymous;
        sum->vmm_own_kib += use.vmm_anonymous;
        sum->pss_kib += use.pss;
        return;
    }
}

void vf_ledger_pass_run(struct vf_ledger_pass *p)
{
    int n = p->n_vms < VF_LEDGER_VMS ? p->n_vms : VF_LEDGER_VMS;

    for (int i = 0; i < p->n_templates; i++) {
        struct vf_ledger_template *t = &p->templates[i];

        t->sum = (struct vf_stats_memory){0};
        if (t->memory_fd >= 0)
            (void)vf_measure_resident(t->memory_fd, &t->sum.template_resident_kib, NULL);
    }
    for (int i = 0; i < n && !atomic_load(&p->stop); i++)
        measure_vm(p, &p->vms[vf_ledger_choose(i, n, p->n_vms, p->turn)]);
    for (int i = 0; i < p->n_templates && !atomic_load(&p->stop); i++)
        vf_stats_set_memory(p->templates[i].stats, &p->templates[i].sum);
}

void vf_ledger_pass_clear(struct vf_ledger_pass *p)
{
    for (int i = 0; i < p->n_templates; i++)
        vf_close_fd(&p->templates[i].memory_fd);
    free(p->templates);
    free(p->vms);
    p->templates = NULL;
    p->vms = NULL;
    p->n_templates = p->n_vms = 0;
}

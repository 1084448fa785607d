/* Named points at which a test kills the process. See failpoint.h. */
#include "base/failpoint.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const vf_failpoint_names[] = {
    "store.begin.after-mkdir",
    "store.commit.before-hash",
    "store.commit.before-sync",
    "store.commit.before-manifest",
    "store.commit.after-manifest",
    "store.commit.before-rename",
    "store.commit.after-rename",
    "store.commit.after-sync",
    "store.quarantine.before-rename",
    "store.quarantine.after-rename",
    "store.remove.before-rename",
    "store.remove.after-rename",
    "store.remove.after-unlink",
    "asset.part.written",
    "asset.before-rename",
    "asset.after-rename",
    "factory.prepare.after-mkdir",
    "launch.after-clone",
    "factory.vmm.created",
    "factory.restored",
    "factory.resumed",
    "factory.proved",
    "factory.teardown.stopped",
    "factory.adopt.connected",
    "net.slot.recorded",
    "net.slot.namespace",
    "net.slot.kept",
    "net.slot.linked",
    "net.slot.addressed",
    "net.slot.ruled",
    "net.slot.joined",
    "net.recycle.reset",
    "net.recycle.wiped",
    "net.remove.unruled",
    "net.remove.unlinked",
    "net.remove.dropped",
    "network.taken",
    "pool.ports.opened",
    "network.given-back",
    "journal.starting.written",
    "journal.starting.renamed",
    "journal.restoring.written",
    "journal.restoring.renamed",
    "journal.proving.written",
    "journal.proving.renamed",
    "journal.standby.written",
    "journal.standby.renamed",
    "journal.parked.written",
    "journal.parked.renamed",
    "journal.leased.written",
    "journal.leased.renamed",
    "journal.releasing.written",
    "journal.releasing.renamed",
    NULL,
};

const char *vf_failpoint_armed;

static const char *known(const char *name)
{
    for (size_t i = 0; vf_failpoint_names[i] != NULL; i++) {
        if (strcmp(vf_failpoint_names[i], name) == 0)
            return vf_failpoint_names[i];
    }
    return NULL;
}

int vf_failpoint_arm(const char *name)
{
    const char *found = NULL;

    if (name != NULL) {
        found = known(name);
        if (found == NULL)
            return -EINVAL;
    }
    vf_failpoint_armed = found;
    return 0;
}

void vf_failpoint_reached(const char *name)
{
    if (known(name) == NULL) {
        fprintf(stderr, "failpoint %s is not in vf_failpoint_names\n", name);
        abort();
    }
    if (strcmp(vf_failpoint_armed, name) == 0) {
        kill(getpid(), SIGKILL);
        pause(); /* the signal is on its way; nothing after this point may run */
    }
}

/* Before main: nothing may read the environment while another thread changes it. */
__attribute__((constructor)) static void arm_from_environment(void)
{
    const char *name = getenv("VF_FAILPOINT");

    if (name != NULL && name[0] != '\0' && vf_failpoint_arm(name) != 0) {
        fprintf(stderr, "VF_FAILPOINT=%s: no such failpoint\n", name);
        exit(2);
    }
}

/* What the files of the host's table share; not for others. */
#ifndef VF_NET_RULES_HOST_H
#define VF_NET_RULES_HOST_H

#include <net/if.h>
#include "net/nft.h"
#include "net/rules.h"

#define VF_HOST_MAX_KEY 24
#define VF_HOST_MAX_DATA 20

enum { VF_HOST_SLOTS, VF_HOST_OPENED, VF_HOST_PORTS4, VF_HOST_PORTS6, VF_HOST_MARKS, VF_HOST_SETS };
extern const struct vf_nft_set vf_host_sets[VF_HOST_SETS];

struct vf_host_element {
    int set;
    uint8_t key[VF_HOST_MAX_KEY], data[VF_HOST_MAX_DATA];
    uint64_t packets;
};
struct vf_host_elements {
    struct vf_host_element *v;
    int n, cap, set;
    bool failed;
};

/* Blocks. Adds those of the sets first to last to e, whose v is the caller's to free, also after a failure. */
int vf_host_elements(struct vf_nl *nl, const struct vf_host_rules *h, int first, int last,
                     struct vf_host_elements *e, struct vf_error *err);
/* What a change of the table has returned, in words. */
int vf_host_rules_explain(int r, struct vf_error *err);

#endif

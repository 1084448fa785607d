/* Times what networks of VMs cost, in namespaces of its own: the machine's network is not touched. */
#ifndef VF_TOOLS_NETBENCH_H
#define VF_TOOLS_NETBENCH_H

#include <stdint.h>
#include "net/slot.h"

#define MAX_SAMPLES 4096

struct samples {
    const char *name;
    int n;
    int64_t us[MAX_SAMPLES];
};
void sample(struct samples *s, int64_t since_us);
void show(struct samples *s);
int64_t median(struct samples *s);
/* Ends the program if r < 0. */
void must(int r, const char *what, const struct vf_error *e);

/* bare.c: a slot's parts made by the bare system calls, with messages built beforehand. */
struct bare {
    struct samples namespace, tap, veth, all;
};
void bare_make(struct bare *b, int number);
/* The same by ip and nft. */
void by_commands(struct samples *s, int number);

/* throughput.c: TCP of a guest's through our rules and through none, in turns. What the program ends with. */
int throughput(int pairs);

#endif

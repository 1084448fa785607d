/* What the files of slots share; not for others. */
#ifndef VF_NET_SLOT_INTERNAL_H
#define VF_NET_SLOT_INTERNAL_H

#include <pthread.h>
#include "net/slot.h"

#define VF_NET_PREFIX_MAX 8

enum vf_net_state { VF_NET_MAKING, VF_NET_READY, VF_NET_TAKEN, VF_NET_DIRTY, VF_NET_STATES };

struct vf_net {
    struct vf_nets *slots;
    struct vf_net *next; /* among the ready ones */
    enum vf_net_state state;
    int number;
    char name[VF_LINK_NAME];
    struct vf_net_shape shape;
    int fds[VF_NETNS_MAX_TUNS]; /* attached to the tap */
    int n_fds;
    bool foreign;              /* the name is somebody else's since just now */
    bool settled;              /* generation is known */
    uint32_t generation;       /* of the namespace's rules, when we last changed them */
    bool set_rules, set_rates; /* a policy changed them */
    struct vf_link_info base;  /* the tap's counts when it became ready */
    struct vf_host_ports host; /* what it has of the host's */
};

struct vf_nets {
    struct vf_address_pool pool;
    struct vf_host_rules host;
    char *netns_dir;
    char prefix[VF_NET_PREFIX_MAX + 1], table[64];
    int run_dirfd;
    int bridge; /* its index; 0: routed */
    int first_port, last_port;
    pthread_mutex_t lock; /* what follows */
    struct vf_net *ready;
    int n[VF_NET_STATES];
    uint64_t made, recycled, destroyed, doubts;
    uint64_t booked[2][65536 / 64]; /* TCP's and UDP's ports of the host that lead to guests */
    unsigned next_port;             /* in the range, to choose from */
    pthread_mutex_t host_lock;      /* the sockets of the host's namespace */
    struct vf_nl host_nf, host_route;
};

/* Counts the slot in its new state. */
void vf_net_enter(struct vf_net *slot, enum vf_net_state state);
/* Was recycled: puts it with the ready ones. */
void vf_net_park(struct vf_net *slot);
/* Was made: the same, or it is the caller's. */
void vf_net_made(struct vf_net *slot, bool taken);
void vf_net_free(struct vf_net *slot); /* memory and descriptors; it counts no more */
struct vf_net *vf_net_new(struct vf_nets *s, int number, const struct vf_net_shape *shape);
void vf_net_name(const struct vf_nets *s, int number, char ret[VF_LINK_NAME]);
int vf_net_open_netns(const struct vf_net *slot, int n_tuns, struct vf_netns *ret,
                      struct vf_error *err);
struct vf_net_rules vf_net_rules(const struct vf_net *slot);
/* Ready slots of a shape. Never blocks. */
int vf_nets_ready(struct vf_nets *s, const struct vf_net_shape *shape);
/* Blocks. Destroys a ready one of that shape, or of any (NULL). Whether there was one. */
bool vf_nets_drop(struct vf_nets *s, const struct vf_net_shape *shape, struct vf_error *err);
/* As vf_net_make, but it is the caller's at once. */
int vf_net_make_taken(struct vf_nets *s, const struct vf_net_shape *shape, struct vf_net **ret,
                      struct vf_error *err);
/* MACs of a slot's two ends of the veth pair. */
void vf_net_macs(const struct vf_nets *s, int number, struct vf_mac *ret_host,
                 struct vf_mac *ret_slot);
/* Takes all parts of n slots away, their records last; goes on after a failure, and reports the first. Many at once take
 * little longer than one. Numbers that failed may be set to -1. */
int vf_net_remove(struct vf_nets *s, int *numbers, int n, struct vf_error *err);
/* Wipes the host's memory of the slot's connections. */
int vf_net_flush_host(struct vf_nets *s, int number, struct vf_error *err);

/* --- ports of the host (publish.c) */
int vf_net_check_ports(const struct vf_net *slot, const struct vf_policy *p, struct vf_error *err);
/* Blocks. Those it has give way to these; port 0: chosen. All or nothing. */
int vf_net_change_ports(struct vf_net *slot, const struct vf_host_ports *to, struct vf_error *err);
/* Ports are some slot's, or free again. */
void vf_net_book(struct vf_nets *s, const struct vf_host_ports *ports);
void vf_net_unbook(struct vf_nets *s, const struct vf_host_ports *ports);

/* Whether it looks inside as we made it, and nobody holds the tap (slot_check.c). */
int vf_net_check_inside(struct vf_net *slot, struct vf_nl *route, struct vf_link_info *ret_tap,
                        struct vf_error *err);

/* --- records (slot_record.c) */
int vf_net_record_write(const struct vf_net *slot, struct vf_error *err);
/* ret_base: the tap's counts alone. */
int vf_net_record_read(struct vf_nets *s, int number, struct vf_net_shape *ret,
                       struct vf_link_info *ret_base, struct vf_error *err);
int vf_net_record_remove(struct vf_nets *s, int number, struct vf_error *err);
bool vf_net_record_exists(struct vf_nets *s, int number);
/* The number in a record's name, -1 if it is none. */
int vf_net_record_number(const char *file);

#endif

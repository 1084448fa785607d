/* Private to the null driver: the VM's struct, its guest and the agent in it. */
#ifndef VF_VMM_NULL_GUEST_H
#define VF_VMM_NULL_GUEST_H

#include "base/wire.h"
#include "vmm/null.h"

#define NULL_MAX_DNS 8

/* As it was told last. */
struct null_nic {
    uint8_t mac[6], gateway_mac[6], ipv4[9], ipv6[33];
    uint8_t n_dns;
    struct {
        uint8_t len, address[16];
    } dns[NULL_MAX_DNS];
    uint32_t mtu;
};

/* The start of the VM's memory. */
struct null_ram {
    uint8_t magic[16];
    uint8_t boot_id[16];
    uint8_t nonce[32];
    uint8_t rng[32];
    uint8_t machine_id[16];
    uint8_t planted;
    struct null_nic nic;
    char hostname[64];
    int64_t clock_ns; /* the guest's clock when it last began to run; stands still while paused */
    uint64_t counter; /* requests served since boot, through all saves and restores */
    uint32_t runs;    /* of the command `counter` */
};

#define NULL_MAX_STREAMS 8

enum null_command { NULL_CAT, NULL_FLOOD, NULL_HANG };

/* A command that runs on. */
struct null_stream {
    bool used, eof;
    enum null_command command;
    uint32_t id;
    uint8_t *data;   /* cat's VF_WIRE_WINDOW bytes on their way from stdin to stdout */
    size_t len;      /* of data; of flood: bytes still to come */
    uint32_t credit; /* bytes of stdout the host still takes */
    int64_t deadline_us;
};

struct null_vm;

struct null_agent {
    struct null_vm *owner;
    uv_pipe_t listener, client;
    uv_timer_t delay;                   /* of the answer under way */
    uv_timer_t deadline;                /* the next of the streams' */
    bool listening, connected, waiting; /* waiting: a connection came while another is served */
    bool delay_open, deadline_open, closing;
    bool running; /* the guest's CPU runs */
    bool busy;    /* an answer is delayed; frame waits for it */
    bool flooding;
    const struct vf_null_step *step; /* how the frame is to be answered */
    int asked[VF_NULL_MSG_COUNT];    /* so often */
    /* A thousand idle guests are to cost little: what is only needed at work is there only then. */
    struct vf_wire_frame frame;
    struct vf_wire_reader *reader; /* while a frame is under way, or being answered */
    const uint8_t *in; /* what was read: shared by all guests, or kept if some of it has to wait */
    uint8_t *kept;
    size_t in_pos, in_len;
    struct null_stream streams[NULL_MAX_STREAMS];
};

struct null_vm {
    struct vf_vm vm;
    const struct vf_null_script *script; /* own_script, or that of a good VM */
    struct vf_null_script *own_script;
    uv_timer_t op_timer, life_timer;
    bool timers_open, created, closing, balloon, console;
    bool alive;       /* the memory holds a guest */
    bool socket_made; /* agent.sock is ours to remove */
    int life;         /* index of what the life timer brings */
    bool kill_asked;
    int handles;     /* open ones; gone when none is left */
    int dirfd;       /* the VM's directory */
    int state_dirfd; /* of the save or restore under way, else -1 */
    uint64_t target; /* of the balloon under way */
    bool has_nic;
    struct null_ram *ram;
    size_t ram_size;
    int64_t running_since_us;
    struct null_agent agent;
};

/* --- null_agent.c */
/* Listens on agent.sock in dirfd. */
int null_agent_open(struct null_vm *n, struct vf_error *err);
/* Closes all its handles; each calls null_handle_closed. */
void null_agent_close(struct null_vm *n);
/* Lets the guest's CPU run or stand. */
void null_agent_run(struct null_vm *n, bool running);
/* Frees what it still holds. */
void null_agent_free(struct null_vm *n);
/* Forgets what a boot or a restore does not keep. */
void null_agent_reset(struct null_vm *n);

/* --- null_nic.c: what a renewal says of the NIC */
uint32_t null_nic_features(const struct null_vm *n, unsigned flags);
/* What is wrong with it, or NULL. */
const char *null_nic_check(const struct null_vm *n, const struct vf_wire_frame *f);
/* Takes it and tells it as it is then. */
void null_nic_renew(struct null_vm *n, const struct vf_wire_frame *f, struct vf_wire_writer *w,
                    unsigned flags);

/* --- null_exec.c: the commands */
void null_exec(struct null_agent *a, const struct vf_wire_frame *f);
/* STDIN, KILL, CREDIT. */
void null_exec_message(struct null_agent *a, const struct vf_wire_frame *f);
void null_exec_end_all(struct null_agent *a);
/* What getrandom() is to it. */
void null_random(struct null_ram *ram, uint8_t ret[16]);
/* One frame to the host: begin, put what it holds, send. */
struct vf_wire_writer *null_agent_begin(struct null_agent *a, uint8_t type, uint32_t id);
void null_agent_send(struct null_agent *a);
void null_agent_error(struct null_agent *a, uint32_t id, int errnum, const char *text);

/* --- null.c */
/* The guest's clock, ns since the Unix epoch. */
int64_t null_clock_ns(const struct null_vm *n);
void null_set_clock_ns(struct null_vm *n, int64_t ns);
/* The process ends unasked. */
void null_exit(struct null_vm *n, const char *how);
void null_handle_closed(struct null_vm *n);

#endif

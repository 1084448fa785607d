/* The parts of vmfactory-floor: one way to do each step for each VMM, by blocking system calls. What fails ends the
 * program (die), and the VMM with it. */
#ifndef VF_TOOLS_FLOOR_FLOOR_H
#define VF_TOOLS_FLOOR_FLOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum channel { CHANNEL_VIRTIO_SERIAL, CHANNEL_SERIAL, CHANNEL_VSOCK };

struct options {
    const char *vmm, *binary, *machine, *accel, *channel_name, *kernel, *initrd, *cmdline;
    const char *state; /* what was saved: a file, or a directory for Cloud Hypervisor */
    const char *keep;  /* a cold boot saves into this directory; NULL: nowhere that stays */
    const char *dir;   /* the VM's own directory is made here */
    enum channel channel;
    uint64_t memory_mib, port;
    int memory_fd, parallel, nics;
};
extern struct options opt;

/* What a VMM is asked for. A clone: up, restore, resume, connect. A cold boot: up, boot, connect; later pause, save. */
struct floor_vmm {
    const char *name;
    bool
        linked_memory; /* the memory must be a file with a name, on a tmpfs, for a save to leave it alone */
    bool park_paused;          /* a clone can be paused and woken */
    void (*up)(bool incoming); /* starts it; ends when it answers */
    void (*boot)(void);
    void (*restore)(void);
    void (*resume)(void);
    void (*connect)(void); /* to the agent; NULL: it is already */
    void (*pause)(void);
    void (*save)(void); /* into save_dir */
};
extern const struct floor_vmm floor_qemu, floor_cloud_hypervisor, floor_firecracker;

/* --- main.c */
extern pid_t vmm;          /* its process; 0: none */
extern char save_dir[];    /* where a cold boot's state goes */
extern char memory_file[]; /* a cold boot's memory; empty: it has no name */
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
int64_t now_us(void);
/* In the child: dies with its parent; leads a session of its own, as a VMM that outlives its daemon does. Besides, the
 * kernel shares the CPUs among sessions (autogroup), so that it makes a difference on a busy host. */
void become_leader(void);
/* Into a buffer of size bytes; too long is fatal. */
void text(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* As it may stand in JSON; what would have to be escaped is fatal. */
const char *plain(const char *s);
void write_all(int fd, const void *data, size_t len);
/* The VM's own directory, made when it is first asked for and removed at the end. */
const char *own_dir(void);

/* --- agent.c: the talk with the guest */
void agent_use(int rx, int tx);
/* Connects to the unix socket own_dir()/name; vsock: and on to the guest's port. */
void agent_connect(const char *name, bool vsock);
void agent_greet(void); /* hello */
void agent_renew(void);
void agent_freeze(void);

/* --- http.c: the least HTTP/1.1, one request after the other */
struct sockaddr_un;
/* kept: all requests go over the connection fd; else -1, and each makes its own to addr. */
void http_to(const struct sockaddr_un *addr, size_t addr_len, int kept);
/* body NULL: none. Any answer but 2xx is fatal. */
void http(const char *method, const char *path, const char *body);
/* That makes it false. */
bool http_try(const char *method, const char *path, const char *body);

#endif

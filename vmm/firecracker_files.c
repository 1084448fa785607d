/* What lies in the directory of a Firecracker VM.
 *
 * Happy path: an empty record of the process to be (which also keeps a second VM out), two FIFOs if the serial port is
 * the agent's channel, a symlink for each disk. The sockets are Firecracker's to make: here only what would be in
 * their way is found.
 * On the way: something is there already (VF_CONFLICT): what was made so far goes again, what was there stays.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "vmm/firecracker.h"

const char *const vf_firecracker_file_names[] = {VF_PROCESS_NAME,      VF_FIRECRACKER_API_NAME,
                                                 VF_LINK_FIFO_IN_NAME, VF_LINK_FIFO_OUT_NAME,
                                                 VF_LINK_VSOCK_NAME,   "disk0.raw",
                                                 "disk1.raw",          "disk2.raw",
                                                 "disk3.raw"};
static_assert(sizeof(vf_firecracker_file_names) / sizeof(*vf_firecracker_file_names) ==
                  VF_FIRECRACKER_FILE_COUNT,
              "a name per file");

/* Firecracker will make it, and would fail on one that is there. */
static int expect(struct vf_firecracker *f, int i, struct vf_error *err)
{
    const char *name = vf_firecracker_file_names[i];
    if (faccessat(f->dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return vf_fail(err, VF_CONFLICT, "socket %s: it is there already", name);
    if (errno != ENOENT)
        return vf_fail_errno(err, errno, "socket %s", name);
    f->files |= 1u << i;
    return 0;
}

/* Opened for both directions, so that Firecracker's end sees neither an end of file nor a broken pipe while nobody
 * has the other: the host's side comes and goes. Not blocking, because it reads until there is nothing. */
static int make_fifo(struct vf_firecracker *f, int i, int *ret_fd, struct vf_error *err)
{
    const char *name = vf_firecracker_file_names[i];
    if (mkfifoat(f->dirfd, name, 0600) < 0)
        return vf_fail_errno(err, errno, "FIFO %s", name);
    f->files |= 1u << i;
    *ret_fd = openat(f->dirfd, name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    return *ret_fd < 0 ? vf_fail_errno(err, errno, "FIFO %s", name) : 0;
}

static int make_links(struct vf_firecracker *f, const struct vf_vm_config *c, struct vf_error *err)
{
    for (int i = 0; i < c->n_disks; i++) {
        const char *name = vf_firecracker_file_names[VF_FIRECRACKER_DISK + i];
        if (symlinkat(c->disks[i].path, f->dirfd, name) < 0)
            return vf_fail_errno(err, errno, "disks[%d]: link %s", i, name);
        f->files |= 1u << (VF_FIRECRACKER_DISK + i);
    }
    return 0;
}

/* The serial port is the process's stdin and stdout, whoever wants it or not. */
static int make_stdio(struct vf_firecracker *f, const struct vf_vm_config *c,
                      struct vf_firecracker_pieces *p, struct vf_error *err)
{
    if (c->channel == VF_CHANNEL_SERIAL) {
        int r = make_fifo(f, VF_FIRECRACKER_FIFO_IN, &p->input, err);
        return r < 0 ? r : make_fifo(f, VF_FIRECRACKER_FIFO_OUT, &p->output, err);
    }
    if (c->console)
        return 0; /* as the log: into the last words */
    p->input = open("/dev/null", O_RDONLY | O_CLOEXEC);
    p->output = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return p->input < 0 || p->output < 0 ? vf_fail_errno(err, errno, "open /dev/null") : 0;
}

int vf_firecracker_make_files(struct vf_firecracker *f, const struct vf_vm_config *c,
                              struct vf_firecracker_pieces *p, struct vf_error *err)
{
    f->dirfd = fcntl(c->dirfd, F_DUPFD_CLOEXEC, 0);
    if (f->dirfd < 0)
        return vf_fail_errno(err, errno, "the VM's directory");
    int r = vf_process_record(f->dirfd, VF_PROCESS_NAME, &p->record, err);
    if (r < 0)
        return r;
    f->files |= 1u << VF_FIRECRACKER_RECORD;
    r = expect(f, VF_FIRECRACKER_API, err);
    if (r == 0 && c->channel == VF_CHANNEL_VSOCK)
        r = expect(f, VF_FIRECRACKER_VSOCK, err);
    if (r == 0)
        r = make_stdio(f, c, p, err);
    return r < 0 ? r : make_links(f, c, err);
}

void vf_firecracker_remove_files(struct vf_firecracker *f)
{
    for (int i = 0; i < VF_FIRECRACKER_FILE_COUNT; i++)
        if (f->files & 1u << i)
            unlinkat(f->dirfd, vf_firecracker_file_names[i], 0);
    f->files = 0;
}

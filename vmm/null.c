/* The null driver: the life cycle, by a script, in memory.
 *
 * Happy path: create maps the memory and makes the agent's socket; each operation waits its script's
 * delay on op_timer and is then done for real: start writes a fresh guest into the memory, save
 * writes the device state to a file named "state", restore checks one against the memory it is given.
 * On the way: the script ends an operation by an error, by nothing at all, or by the end of the
 * "process", which closes the socket as the kernel would. Whatever ended meanwhile by deadline or
 * cancel is dropped when the timer comes. stop closes every handle and is through when the last is.
 */
#include "vmm/null.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/fd.h"
#include "base/hash.h"
#include "vmm/null_guest.h"

static const uint8_t ram_magic[16] = "vf null guest 1";
static const char state_name[] = "state";
static const struct vf_null_script good_script;
static struct vf_null_script default_script;
static bool has_default;

/* The device state: all that is not memory. */
struct saved_state {
    char magic[16];
    uint64_t memory_size;
    int64_t clock_ns; /* must be what the memory says: the two belong together */
    uint64_t counter;
    uint64_t balloon_actual;
    uint8_t digest[VF_SHA256_LEN]; /* of all before it */
};
static const char state_magic[16] = "vf null state 1";

static struct null_vm *null_of(struct vf_vm *vm)
{
    return (struct null_vm *)vm;
}

static void capabilities(const char *version, struct vf_vmm_caps *ret_caps)
{
    (void)version;
    *ret_caps = (struct vf_vmm_caps){.save = true,
                                     .shared_memory_save = true,
                                     .balloon = true,
                                     .console = true,
                                     .standby = true,
                                     .park_paused = true,
                                     .early_channel = true,
                                     .qcow2 = true,
                                     .nic_fds = true,
                                     .nic_queues = VF_VM_MAX_QUEUE_PAIRS,
                                     .nic_bare = true,
                                     .channel_virtio_serial = true,
                                     .channel_serial = true,
                                     .kvm = true,
                                     .tcg = true};
}

static bool take_script(struct null_vm *n, const struct vf_null_script *s)
{
    if (!n->own_script && !(n->own_script = malloc(sizeof(*n->own_script))))
        return false;
    *n->own_script = *s;
    n->script = n->own_script;
    return true;
}

static int alloc(uv_loop_t *loop, struct vf_vm **ret_vm, struct vf_error *err)
{
    (void)loop;
    struct null_vm *n = calloc(1, sizeof(*n));
    if (!n)
        return vf_fail(err, VF_NO_MEMORY, "null: no memory for a VM");
    n->script = &good_script;
    if (has_default && !take_script(n, &default_script)) {
        free(n);
        return vf_fail(err, VF_NO_MEMORY, "null: no memory for a VM");
    }
    n->dirfd = n->state_dirfd = -1;
    n->agent.owner = n;
    *ret_vm = &n->vm;
    return 0;
}

/* ---- the guest's clock and its CPU */

int64_t null_clock_ns(const struct null_vm *n)
{
    int64_t ran_us = n->agent.running ? vf_now_us() - n->running_since_us : 0;
    return n->ram->clock_ns + ran_us * 1000;
}

void null_set_clock_ns(struct null_vm *n, int64_t ns)
{
    n->ram->clock_ns = ns;
    n->running_since_us = vf_now_us();
}

/* ---- its end */

static void shut_down(struct null_vm *n);

void null_exit(struct null_vm *n, const char *how)
{
    if (n->vm.exited || n->closing)
        return;
    null_agent_close(n);
    uv_timer_stop(&n->op_timer);
    uv_timer_stop(&n->life_timer);
    vf_vm_process_exited(&n->vm, how);
    if (n->vm.stopping) /* the grace of a stop need not be waited for */
        shut_down(n);
}

enum { LIFE_EXIT, LIFE_PANIC, LIFE_SHUTDOWN, LIFE_FAILED, LIFE_COUNT };

static void on_life(uv_timer_t *t)
{
    struct null_vm *n = t->data;
    if (n->kill_asked) {
        null_exit(n, "was killed by signal 9 (Killed)");
        return;
    }
    switch (n->life) {
    case LIFE_PANIC:
        null_agent_run(n, false);
        vf_vm_say(&n->vm, "null guest: panic\n", 18);
        vf_vm_emit(&n->vm, VF_VM_EVENT_GUEST_PANICKED, "panic by script");
        break;
    case LIFE_SHUTDOWN:
        null_agent_run(n, false);
        vf_vm_emit(&n->vm, VF_VM_EVENT_GUEST_SHUTDOWN, "shutdown by script");
        break;
    case LIFE_FAILED:
        null_agent_run(n, false);
        vf_vm_emit(&n->vm, VF_VM_EVENT_FAILED, "failure by script");
        break;
    default:
        null_exit(n, "exited with status 1");
    }
}

/* The first of what the script has for a running guest; the others would come too late to matter. */
static void arm_life(struct null_vm *n)
{
    const struct vf_null_script *s = n->script;
    const int64_t after[LIFE_COUNT] = {s->exit_after_us, s->panic_after_us, s->shutdown_after_us,
                                       s->failed_after_us};
    int first = -1;
    for (int i = 0; i < LIFE_COUNT; i++)
        if (after[i] > 0 && (first < 0 || after[i] < after[first]))
            first = i;
    if (first < 0 || n->kill_asked)
        return;
    n->life = first;
    vf_timer_at(&n->life_timer, vf_now_us() + after[first], on_life);
}

void vf_null_kill(struct vf_vm *vm)
{
    struct null_vm *n = null_of(vm);
    if (!n->timers_open || n->closing || vm->exited)
        return;
    n->kill_asked = true;
    vf_timer_at(&n->life_timer, 0, on_life);
}

static void run_guest(struct null_vm *n)
{
    n->running_since_us = vf_now_us();
    null_agent_run(n, true);
    arm_life(n);
    vf_vm_emit(&n->vm, VF_VM_EVENT_RESUMED, NULL);
}

static void stand_guest(struct null_vm *n)
{
    null_set_clock_ns(n, null_clock_ns(n));
    null_agent_run(n, false);
    if (!n->kill_asked)
        uv_timer_stop(&n->life_timer);
    vf_vm_emit(&n->vm, VF_VM_EVENT_PAUSED, NULL);
}

/* ---- what the operations do */

static void boot_guest(struct null_vm *n)
{
    struct null_ram *ram = n->ram;
    memset(ram, 0, sizeof(*ram));
    memcpy(ram->magic, ram_magic, sizeof(ram->magic));
    vf_random(ram->boot_id, sizeof(ram->boot_id));
    vf_random(ram->rng, sizeof(ram->rng));
    vf_random(ram->machine_id, sizeof(ram->machine_id));
    snprintf(ram->hostname, sizeof(ram->hostname), "null");
    ram->clock_ns = vf_realtime_ns();
    n->alive = true;
    null_agent_reset(n);
    if (n->console)
        vf_vm_say(&n->vm, "null guest: booted\n", 19);
}

static int save_state(struct null_vm *n, struct vf_error *err)
{
    struct saved_state st = {.memory_size = n->ram_size,
                             .clock_ns = n->ram->clock_ns,
                             .counter = n->ram->counter,
                             .balloon_actual = n->vm.info.balloon_actual};
    memcpy(st.magic, state_magic, sizeof(st.magic));
    vf_sha256(&st, offsetof(struct saved_state, digest), st.digest);
    VF_CLEANUP_FD int fd = openat(n->state_dirfd, state_name,
                                  O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return vf_fail_errno(err, errno, "file %s", state_name);
    int r = vf_write_all(fd, &st, sizeof(st), state_name, err);
    if (r < 0)
        unlinkat(n->state_dirfd, state_name, 0);
    return r;
}

static int restore_state(struct null_vm *n, struct vf_error *err)
{
    VF_CLEANUP_FREE char *data = NULL;
    struct saved_state st;
    uint8_t digest[VF_SHA256_LEN];
    size_t len;
    int r = vf_read_file(n->state_dirfd, state_name, 65536, &data, &len, err);
    if (r < 0)
        return r;
    if (len != sizeof(st))
        return vf_fail(err, VF_CORRUPT, "%s: %zu bytes instead of %zu", state_name, len,
                       sizeof(st));
    memcpy(&st, data, sizeof(st));
    vf_sha256(&st, offsetof(struct saved_state, digest), digest);
    if (memcmp(st.magic, state_magic, sizeof(st.magic)) != 0)
        return vf_fail(err, VF_CORRUPT, "%s: not a state of this driver", state_name);
    if (memcmp(digest, st.digest, sizeof(digest)) != 0)
        return vf_fail(err, VF_CORRUPT, "%s: its digest does not match", state_name);
    if (st.memory_size != n->ram_size)
        return vf_fail(err, VF_VMM_FAILED,
                       "%s: was saved with %llu bytes of memory, the VM has %zu", state_name,
                       (unsigned long long)st.memory_size, n->ram_size);
    /* Memory that is not this state's holds no guest that could run: as a real one, it is silent. */
    n->alive = memcmp(n->ram->magic, ram_magic, sizeof(ram_magic)) == 0 &&
               n->ram->clock_ns == st.clock_ns && n->ram->counter == st.counter;
    if (n->balloon)
        n->vm.info.balloon_actual = st.balloon_actual;
    null_agent_reset(n);
    return 0;
}

static int do_op(struct null_vm *n, enum vf_vm_op op, struct vf_error *err)
{
    switch (op) {
    case VF_VM_OP_CREATE:
        snprintf(n->vm.info.version, sizeof(n->vm.info.version), "1");
        return 0;
    case VF_VM_OP_START:
        boot_guest(n);
        run_guest(n);
        return 0;
    case VF_VM_OP_PAUSE:
        stand_guest(n);
        return 0;
    case VF_VM_OP_SAVE:
        return save_state(n, err);
    case VF_VM_OP_RESTORE:
        return restore_state(n, err);
    case VF_VM_OP_RESUME:
        run_guest(n);
        return 0;
    case VF_VM_OP_BALLOON:
        n->vm.info.balloon_actual = n->target;
        return 0;
    default: /* a query: all is known */
        return 0;
    }
}

static void on_op(uv_timer_t *t)
{
    struct null_vm *n = t->data;
    enum vf_vm_op op = n->vm.op;
    if (op == VF_VM_OP_NONE || n->kill_asked) /* a deadline, a cancel or a kill was faster */
        return;
    const struct vf_null_step *s = &n->script->op[op];
    struct vf_error e;
    int r;
    if (s->action == VF_NULL_HANG)
        return;
    if (s->action == VF_NULL_EXIT) {
        null_exit(n, "exited with status 1");
        return;
    }
    if (s->action == VF_NULL_FAIL)
        r = vf_fail(&e, s->code == VF_OK ? VF_VMM_FAILED : s->code, "%s",
                    s->message[0] ? s->message : "failed by script");
    else
        r = do_op(n, op, &e);
    vf_close_fd(&n->state_dirfd);
    vf_vm_op_done(&n->vm, r < 0 ? &e : NULL);
}

static int begin(struct vf_vm *vm)
{
    struct null_vm *n = null_of(vm);
    int64_t delay_us = n->script->op[vm->op].delay_us;
    /* Deadlines are rounded up to whole ms; without a delay it is the loop's next turn. */
    vf_timer_at(&n->op_timer, delay_us ? vf_now_us() + delay_us : 0, on_op);
    return 0;
}

static int begin_simple(struct vf_vm *vm, struct vf_error *err)
{
    (void)err;
    return begin(vm);
}

/* ---- the ops */

static int map_memory(struct null_vm *n, const struct vf_vm_config *c, struct vf_error *err)
{
    struct stat st;
    if (fstat(c->memory_fd, &st) < 0)
        return vf_fail_errno(err, errno, "memory_fd");
    if ((uint64_t)st.st_size < c->memory_size)
        return vf_fail(err, VF_INVALID_ARGUMENT, "memory_fd: %lld bytes, memory_size is %llu",
                       (long long)st.st_size, (unsigned long long)c->memory_size);
    void *p = mmap(NULL, c->memory_size, PROT_READ | PROT_WRITE,
                   (c->memory_shared ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE, c->memory_fd, 0);
    if (p == MAP_FAILED)
        return vf_fail_errno(err, errno, "memory_fd: mmap");
    n->ram = p;
    n->ram_size = c->memory_size;
    return 0;
}

static int open_timers(struct null_vm *n, struct vf_error *err)
{
    int r = uv_timer_init(n->vm.loop, &n->op_timer);
    if (r < 0)
        return vf_fail_errno(err, r, "timer");
    uv_timer_init(n->vm.loop, &n->life_timer); /* can't fail if the first did not */
    n->op_timer.data = n->life_timer.data = n;
    n->handles += 2;
    n->timers_open = true;
    return 0;
}

static int create(struct vf_vm *vm, const struct vf_vm_config *c, struct vf_error *err)
{
    struct null_vm *n = null_of(vm);
    n->balloon = c->balloon;
    n->console = c->console;
    n->has_nic = c->n_nics > 0;
    if (c->balloon)
        vm->info.balloon_actual = c->memory_size;
    n->dirfd = fcntl(c->dirfd, F_DUPFD_CLOEXEC, 0);
    if (n->dirfd < 0)
        return vf_fail_errno(err, errno, "dirfd");
    int r = map_memory(n, c, err);
    if (r < 0 || (r = open_timers(n, err)) < 0)
        return r;
    if (c->channel != VF_CHANNEL_NONE && (r = null_agent_open(n, err)) < 0)
        return r;
    n->created = true;
    return begin(vm);
}

static int keep_dirfd(struct null_vm *n, int dirfd, struct vf_error *err)
{
    vf_close_fd(&n->state_dirfd);
    n->state_dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0);
    return n->state_dirfd < 0 ? vf_fail_errno(err, errno, "directory") : 0;
}

static int save(struct vf_vm *vm, int dirfd, struct vf_error *err)
{
    struct stat st;
    if (fstatat(dirfd, state_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return vf_fail(err, VF_CONFLICT, "file %s exists already", state_name);
    int r = keep_dirfd(null_of(vm), dirfd, err);
    return r < 0 ? r : begin(vm);
}

static int restore(struct vf_vm *vm, int dirfd, struct vf_error *err)
{
    int r = keep_dirfd(null_of(vm), dirfd, err);
    return r < 0 ? r : begin(vm);
}

static int balloon(struct vf_vm *vm, uint64_t target, struct vf_error *err)
{
    struct null_vm *n = null_of(vm);
    if (!n->balloon)
        return vf_fail(err, VF_UNSUPPORTED, "the VM was created without a balloon");
    n->target = target;
    return begin(vm);
}

/* ---- stop */

static void check_gone(struct null_vm *n)
{
    if (n->closing && n->handles == 0)
        vf_vm_gone(&n->vm);
}

void null_handle_closed(struct null_vm *n)
{
    n->handles--;
    check_gone(n);
}

static void on_timer_closed(uv_handle_t *h)
{
    null_handle_closed(h->data);
}

static void shut_down(struct null_vm *n)
{
    if (n->closing)
        return;
    if (n->created && !n->vm.exited)
        vf_vm_process_exited(&n->vm, "was stopped");
    n->handles++; /* so that none of what follows is the last */
    n->closing = true;
    null_agent_close(n);
    if (n->timers_open) {
        uv_close((uv_handle_t *)&n->op_timer, on_timer_closed);
        uv_close((uv_handle_t *)&n->life_timer, on_timer_closed);
    }
    if (n->ram)
        munmap(n->ram, n->ram_size);
    n->ram = NULL;
    if (n->socket_made)
        unlinkat(n->dirfd, "agent.sock", 0);
    vf_close_fd(&n->dirfd);
    vf_close_fd(&n->state_dirfd);
    null_handle_closed(n);
}

static void on_grace(uv_timer_t *t)
{
    shut_down(t->data);
}

static void stop(struct vf_vm *vm, bool graceful)
{
    struct null_vm *n = null_of(vm);
    if (n->closing)
        return;
    if (!graceful || !n->timers_open || vm->exited) {
        shut_down(n);
        return;
    }
    if (n->script->stop.action != VF_NULL_HANG)
        vf_timer_at(&n->op_timer, vf_now_us() + n->script->stop.delay_us, on_grace);
}

static void null_free(struct vf_vm *vm)
{
    struct null_vm *n = null_of(vm);
    null_agent_free(n);
    free(n->own_script);
    free(n);
}

void vf_null_set_script(struct vf_vm *vm, const struct vf_null_script *s)
{
    if (!take_script(null_of(vm), s))
        abort(); /* a test's */
}

void vf_null_set_default(const struct vf_null_script *s)
{
    has_default = s != NULL;
    if (s)
        default_script = *s;
}

static const char *const state_files[] = {state_name, NULL};

const struct vf_vmm_ops vf_null_ops = {
    .name = "null",
    .state_files = state_files,
    .capabilities = capabilities,
    .alloc = alloc,
    .create = create,
    .start = begin_simple,
    .pause = begin_simple,
    .save = save,
    .restore = restore,
    .resume = begin_simple,
    .balloon = balloon,
    .info = begin_simple,
    .stop = stop,
    .free = null_free,
};

/* The null driver: a VM's life in memory, for tests. No process, no guest code, and every delay and
 * failure by script; but the same states, the same agent socket, and real copy-on-write memory.
 *
 * Its guest is a few hundred bytes at the start of the VM's memory: boot id, nonce, random state,
 * clock, machine-id, hostname. A shared VM writes them through to memory_fd, a private one keeps its
 * copy, exactly as with a real VMM: a clone knows the nonce only if its template's memory holds it.
 *
 * A script, in a struct or as text: subjects separated by ';', each with words separated by ','
 *
 *     restore:delay=5ms;resume:fail=vmm_failed,message=no more;agent:stale-nonce
 *
 *     create start pause save restore resume balloon query     an operation
 *         delay=TIME  first wait (TIME: a number and us, ms or s; loops tick in ms)
 *         fail[=CODE] end with this error (vf_code_name; vmm_failed), message=TEXT its words
 *         hang        never end
 *         exit        the process ends instead
 *     stop: delay, hang   the graceful end only; a kill always works at once
 *     hello renew ping freeze exec     what the agent does when asked: delay, fail, hang, exit, and
 *         half        write half an answer
 *         garbage     answer with noise
 *         flood       write noise for ever
 *         close       drop the connection
 *         times=N     only the first N times, then as it should
 *     running: exit=TIME, panic=TIME, shutdown=TIME, failed=TIME    what happens, how long after start or
 *         resume
 *     agent: flags, the names of VF_NULL_AGENT_* in lower case with '-'
 */
#ifndef VF_VMM_NULL_H
#define VF_VMM_NULL_H

#include "vmm/driver.h"

enum vf_null_action {
    VF_NULL_DO, /* as it should */
    VF_NULL_FAIL,
    VF_NULL_HANG,
    VF_NULL_EXIT,
    /* of the agent only */
    VF_NULL_HALF,
    VF_NULL_GARBAGE,
    VF_NULL_FLOOD,
    VF_NULL_CLOSE,
};

struct vf_null_step {
    enum vf_null_action action;
    int64_t delay_us;
    int times;         /* of the agent only: then as it should; 0: always like this */
    enum vf_code code; /* of FAIL; VF_OK: VF_VMM_FAILED */
    char message[128];
};

enum vf_null_msg {
    VF_NULL_MSG_HELLO,
    VF_NULL_MSG_RENEW,
    VF_NULL_MSG_PING,
    VF_NULL_MSG_FREEZE,
    VF_NULL_MSG_EXEC,
    VF_NULL_MSG_COUNT
};

#define VF_NULL_AGENT_ABSENT 1u          /* nobody reads the channel */
#define VF_NULL_AGENT_STALE_NONCE 2u     /* a nonce, but not the one planted */
#define VF_NULL_AGENT_NO_NONCE 4u        /* as after a boot */
#define VF_NULL_AGENT_NEW_BOOT_ID 8u     /* another one at each hello */
#define VF_NULL_AGENT_IGNORE_ENTROPY 16u /* neither stirred nor digested */
#define VF_NULL_AGENT_WRONG_DIGEST 32u   /* digests something else */
#define VF_NULL_AGENT_SAME_SAMPLE 64u  /* entropy digested, but not stirred: clones sample alike */
#define VF_NULL_AGENT_IGNORE_TIME 128u /* the clock stays; the answer tells */
#define VF_NULL_AGENT_IGNORE_IDENTITY 256u /* machine-id and hostname stay; the answer tells */
/* The NIC's values are taken, but told as others; no-dns: resolvers are not told at all. */
#define VF_NULL_AGENT_WRONG_MAC 512u
#define VF_NULL_AGENT_WRONG_IPV4 1024u
#define VF_NULL_AGENT_WRONG_IPV6 2048u
#define VF_NULL_AGENT_WRONG_MTU 4096u
#define VF_NULL_AGENT_WRONG_DNS 8192u
#define VF_NULL_AGENT_NO_DNS 16384u
#define VF_NULL_AGENT_WRONG_GATEWAY_MAC 32768u
#define VF_NULL_AGENT_OLD_NET 65536u /* knows of a NIC no more than MAC and IPv4 address */

struct vf_null_script {
    struct vf_null_step op[VF_VM_OP_COUNT];
    struct vf_null_step stop;
    struct vf_null_step msg[VF_NULL_MSG_COUNT];
    /* What happens how long after each start and resume; 0: nothing. */
    int64_t exit_after_us, panic_after_us, shutdown_after_us, failed_after_us;
    unsigned agent_flags;
};

/* *ret is untouched on failure; the message names the part that is wrong. "" is a good VM. */
int vf_null_script_parse(const char *text, struct vf_null_script *ret, struct vf_error *err);
/* For one VM; copied, takes effect at once. vm must be of the null driver. */
void vf_null_set_script(struct vf_vm *vm, const struct vf_null_script *s);
/* For VMs made from now on; NULL: none. Process-wide, so set it before threads. */
void vf_null_set_default(const struct vf_null_script *s);
/* The process ends as if killed, on the loop's next turn. Only once created. */
void vf_null_kill(struct vf_vm *vm);

#endif

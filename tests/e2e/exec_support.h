/* What the tests of commands over the API share: a daemon with a leased VM in memory, and frames. */
#ifndef VF_TESTS_E2E_EXEC_SUPPORT_H
#define VF_TESTS_E2E_EXEC_SUPPORT_H

#include "pool/exec_frames.h"
#include "tests/e2e/daemon_support.h"

#define EXE_FLOOD_MIB 32
/* What a daemon may grow by while it holds back a flood of that size, sanitizers included. */
#define EXE_HELD_BACK_KIB (16 * 1024)

struct exe {
    struct dmn d;
    char path[64], exec[80]; /* /v1/vms/ID, /v1/vms/ID/exec */
};
void exe_open(struct exe *v);
/* Releases the VM, of which nothing may be left. */
void exe_close(struct exe *v);

/* The plain form's answer; the test frees it. */
char *exe_run(struct exe *v, const char *body);
void exe_expect_run(struct exe *v, const char *body, const char *want);
/* A guest runs a bounded number of commands at once: that more than so many end says that none was left running. */
void exe_expect_none_runs(struct exe *v);
/* No more descriptors than before, but for connections that just were closed. */
void exe_expect_fds(struct exe *v, int before);
/* Until the daemon has filled what there is to fill on the way to a reader that does not read. */
void exe_wait_full(struct exe *v, const struct dmn_conn *c);

#define EXE_UPGRADE "Connection: Upgrade\r\nUpgrade: vmfactory-exec\r\n"
void exe_upgrade(struct exe *v, struct dmn_conn *c, const char *body);
bool exe_send_frame(struct dmn_conn *c, enum vf_exec_frame type, const void *data, size_t len);
/* The next frame's type; its payload, NUL-terminated, is in a static buffer. -1: closed. */
int exe_receive_frame(struct dmn_conn *c, const char **ret_data, size_t *ret_len);

#endif

/* The daemon is killed at every step of its journal and of a VM's making; the next one has everything again.
 *
 * Each test: a daemon with one leased and one parked VM (real QEMU, the tiny guest) is killed; another is started
 * that kills itself at the failpoint, either as it adopts or at what the test has it do; a third adopts what is
 * left. Then: every VM whose acquire was answered is still leased to its holder and runs commands, no id was handed out
 * twice, and once all is released and the daemon has stopped no process, memory or file of it is left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "tests/e2e/daemon_support.h"
#include "tests/e2e/support.h"

enum what { START, TAKE, RELEASE, STANDBY };

struct killed {
    struct dmn d;
    char name[32];  /* of the template */
    char qemu[100]; /* a name of QEMU's, of this test alone */
    char set[120];  /* the option that says so */
    char lease[16], taken[16];
};

static void await_vmms(const struct killed *k, int n)
{
    int64_t until = vf_deadline_after_ms(DMN_LONG_MS);
    while (dmn_vmms(k->qemu) != n && vf_now_us() < until)
        usleep(20000); /* no event tells when another's process has ended */
    cr_expect_eq(dmn_vmms(k->qemu), n, "%d VMMs run, not %d", dmn_vmms(k->qemu), n);
}

static void add_template(struct killed *k)
{
    char body[1000];
    snprintf(
        body, sizeof(body),
        "{\"name\":\"%s\",\"accel\":\"tcg\",\"memory\":{\"size_mib\":32},"
        "\"boot\":{\"kernel\":\"%s\"},\"agent\":{\"channel\":\"serial\"},\"park\":\"running\"}",
        k->name, sup_guest_file("tiny.elf"));
    free(dmn_call(&k->d, 201, "POST", "/v1/templates", body));
}

static void pool_path(const struct killed *k, const char *more, char ret[100])
{
    snprintf(ret, 100, "/v1/pools/%s%s", k->name, more);
}

static void take(struct killed *k, char id[16])
{
    char body[100];
    snprintf(body, sizeof(body), "{\"template\":\"%s\"}", k->name);
    struct vf_json *j = dmn_json(&k->d, 201, "POST", "/v1/vms", body);
    snprintf(id, 16, "%s", dmn_str(j, "id"));
    vf_json_delete(j);
}

static void runs_commands(struct killed *k, const char *id)
{
    char path[64];
    snprintf(path, sizeof(path), "/v1/vms/%.15s/exec", id);
    char *text =
        dmn_call(&k->d, 200, "POST", path, "{\"argv\":[\"cat\"],\"stdin\":\"still here\"}");
    cr_expect(strstr(text, "still here"), "%s: %s", id, text);
    cr_expect(strstr(text, "\"exit\""), "%s: %s", id, text);
    free(text);
}

static void set_up(struct killed *k, const char *point)
{
    char path[100];
    const char *guest = sup_guest_file("tiny.elf");
    if (access(guest, R_OK) < 0)
        sup_skip("daemon_killed", point, "the tiny guest is not built: %s", guest);
    const char *qemu = sup_qemu();
    if (!qemu)
        sup_skip("daemon_killed", point, "qemu-system-x86_64 is not on PATH");
    memset(k, 0, sizeof(*k));
    snprintf(k->name, sizeof(k->name), "k%d", (int)getpid());
    dmn_prepare(&k->d, NULL);
    snprintf(k->qemu, sizeof(k->qemu), "%s/qemu", k->d.dir);
    snprintf(k->set, sizeof(k->set), "qemu=%s", k->qemu);
    cr_assert_eq(symlink(qemu, k->qemu), 0);
    k->d.args[0] = "--set";
    k->d.args[1] = k->set;
    dmn_start(&k->d);
    add_template(k);
    pool_path(k, "/warm", path);
    free(dmn_call(&k->d, 202, "POST", path, "{\"count\":1}"));
    pool_path(k, "", path);
    dmn_wait_for(&k->d, path, "parked", 1);
    take(k, k->lease);
    dmn_wait_for(&k->d, path, "parked", 1);
    dmn_kill(&k->d);
    await_vmms(k, 2);
}

/* Has the daemon do what leads to the point, over a connection that may break. */
static void provoke(struct killed *k, enum what what)
{
    struct dmn_conn c;
    char path[100], body[100] = "";
    const char *method = "POST";
    snprintf(path, sizeof(path), "/v1/vms");
    snprintf(body, sizeof(body), "{\"template\":\"%s\"}", k->name);
    if (what == RELEASE) {
        method = "DELETE";
        snprintf(path, sizeof(path), "/v1/vms/%s", k->lease);
        body[0] = 0;
    } else if (what == STANDBY) {
        method = "PATCH";
        pool_path(k, "", path);
        snprintf(body, sizeof(body), "{\"standby\":1}");
    }
    dmn_dial(&k->d, &c, "api.sock");
    dmn_ask(&c, method, path, NULL, body[0] ? body : NULL);
    int status = dmn_head(&c);
    if (what == TAKE && status == 201) {
        char *text = dmn_rest(&c);
        struct vf_json *j = vf_json_parse(text, strlen(text));
        snprintf(k->taken, sizeof(k->taken), "%s", dmn_str(j, "id"));
        vf_json_delete(j);
        free(text);
    }
    dmn_hang_up(&c);
}

static void check_after(struct killed *k, enum what what)
{
    char path[100];
    bool lease_seen = false, taken_seen = false;
    struct vf_json *j = dmn_json(&k->d, 200, "GET", "/v1/vms", NULL);
    const struct vf_json *vms = vf_json_get(j, "vms"), *vm;
    char ids[8][16];
    int n = 0;
    for (size_t i = 0; (vm = vf_json_at(vms, i)) && n < 8; i++) {
        snprintf(ids[n], sizeof(ids[n]), "%s", dmn_str(vm, "id"));
        cr_expect_str_eq(dmn_str(vm, "state"), "leased");
        cr_expect_eq(dmn_int(vm, "lease.uid"), (int64_t)getuid());
        lease_seen |= strcmp(ids[n], k->lease) == 0;
        taken_seen |= strcmp(ids[n], k->taken) == 0;
        n++;
    }
    vf_json_delete(j);
    cr_expect(lease_seen || what == RELEASE, "the lease is lost");
    cr_expect(taken_seen || !k->taken[0], "the second lease is lost");
    for (int i = 0; i < n; i++)
        runs_commands(k, ids[i]);
    /* What is handed out from here on is none of these. */
    char id[16];
    take(k, id);
    for (int i = 0; i < n; i++)
        cr_expect_str_neq(id, ids[i], "handed out twice");
    snprintf(ids[n++], sizeof(ids[0]), "%s", id);
    pool_path(k, "/drain", path);
    free(dmn_call(&k->d, 202, "POST", path, NULL));
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof(path), "/v1/vms/%.15s", ids[i]);
        free(dmn_call(&k->d, 204, "DELETE", path, NULL));
    }
    pool_path(k, "", path);
    dmn_wait_for(&k->d, path, "making", 0);
    dmn_wait_for(&k->d, path, "parked", 0);
    await_vmms(k, 0);
    dmn_await_vm_dirs(&k->d, 0);
    cr_expect_eq(dmn_stop(&k->d), 0);
    await_vmms(k, 0);
}

static void killed_at(const char *point, enum what what)
{
    struct killed k;
    set_up(&k, point);
    setenv("VF_FAILPOINT", point, 1);
    bool ready = dmn_try_start(&k.d);
    unsetenv("VF_FAILPOINT");
    if (ready) {
        provoke(&k, what);
        cr_expect_eq(dmn_wait(&k.d), 128 + 9, "it was not killed at %s", point);
    } else
        cr_expect_eq(dmn_wait(&k.d), 128 + 9, "it ended in another way than at %s", point);
    dmn_start(&k.d);
    check_after(&k, what);
    dmn_close(&k.d);
}

#define KILLED(name, point, what)             \
    Test(daemon_killed, name, .timeout = 180) \
    {                                         \
        killed_at(point, what);               \
    }

KILLED(adopting, "factory.adopt.connected", START)
KILLED(directory_made, "factory.prepare.after-mkdir", TAKE)
KILLED(starting_written, "journal.starting.written", TAKE)
KILLED(starting_renamed, "journal.starting.renamed", TAKE)
KILLED(process_launched, "launch.after-clone", TAKE)
KILLED(vmm_created, "factory.vmm.created", TAKE)
KILLED(restoring_written, "journal.restoring.written", TAKE)
KILLED(restoring_renamed, "journal.restoring.renamed", TAKE)
KILLED(restored, "factory.restored", TAKE)
KILLED(resumed, "factory.resumed", TAKE)
KILLED(proving_written, "journal.proving.written", TAKE)
KILLED(proving_renamed, "journal.proving.renamed", TAKE)
KILLED(proved, "factory.proved", TAKE)
KILLED(parked_written, "journal.parked.written", TAKE)
KILLED(parked_renamed, "journal.parked.renamed", TAKE)
KILLED(leased_written, "journal.leased.written", TAKE)
KILLED(leased_renamed, "journal.leased.renamed", TAKE)
KILLED(standby_written, "journal.standby.written", STANDBY)
KILLED(standby_renamed, "journal.standby.renamed", STANDBY)
KILLED(releasing_written, "journal.releasing.written", RELEASE)
KILLED(releasing_renamed, "journal.releasing.renamed", RELEASE)
KILLED(torn_down, "factory.teardown.stopped", RELEASE)

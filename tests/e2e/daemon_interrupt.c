/* SIGTERM and SIGINT in the middle of everything: the daemon ends in order, with 0, and leaves no VMM, no VM's
 * directory and no half-built generation. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/e2e/daemon_support.h"
#include "tests/e2e/support.h"

/* Half-built generations of a template. */
static int unfinished(const struct dmn *d, const char *name)
{
    char path[200];
    int n = 0;
    snprintf(path, sizeof(path), "%s/templates/%s", d->state, name);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));)
        n += strncmp(e->d_name, "tmp-", 4) == 0;
    if (dir)
        closedir(dir);
    return n;
}

/* Reads events until one has these words. */
static void await_event(struct dmn *d, const char *words)
{
    struct dmn_conn c;
    char line[4096];
    dmn_dial(d, &c, "api.sock");
    dmn_ask(&c, "GET", "/v1/events?since=0", NULL, NULL);
    cr_assert_eq(dmn_head(&c), 200);
    do
        cr_assert(dmn_line(&c, line, sizeof(line)), "no event says %s", words);
    while (!strstr(line, words));
    dmn_hang_up(&c);
}

/* A daemon that begins to warm a template; qemu, set: room for what it is told. */
static void begin(struct dmn *d, char qemu[100], char set[120])
{
    char body[600];
    dmn_prepare(d, NULL);
    snprintf(qemu, 100, "%s/qemu", d->dir);
    snprintf(set, 120, "qemu=%s", qemu);
    cr_assert_eq(symlink(sup_qemu(), qemu), 0);
    d->args[0] = "--set";
    d->args[1] = set;
    dmn_start(d);
    snprintf(body, sizeof(body),
             "{\"name\":\"web\",\"accel\":\"tcg\",\"memory\":{\"size_mib\":32},"
             "\"boot\":{\"kernel\":\"%s\"},\"agent\":{\"channel\":\"serial\"}}",
             sup_guest_file("tiny.elf"));
    free(dmn_call(d, 201, "POST", "/v1/templates", body));
    free(dmn_call(d, 202, "POST", "/v1/pools/web/warm", "{\"count\":3}"));
}

static void interrupt(const char *words, int signum)
{
    struct dmn d;
    char qemu[100], set[120];
    begin(&d, qemu, set);
    await_event(&d, words);
    dmn_signal(&d, signum);
    cr_expect_eq(dmn_wait(&d), 0, "after %s", words);
    cr_expect_eq(dmn_vmms(qemu), 0, "after %s: a VMM is left", words);
    cr_expect_eq(dmn_vm_dirs(&d), 0, "after %s: a VM's directory is left", words);
    cr_expect_eq(unfinished(&d, "web"), 0, "after %s: half a generation is left", words);
    dmn_close(&d);
}

static void need_qemu(const char *name)
{
    if (!sup_qemu() || access(sup_guest_file("tiny.elf"), R_OK) < 0)
        sup_skip("daemon_interrupt", name, "needs QEMU and the tiny guest");
}

static void each_signal(const char *const *words)
{
    need_qemu(words[0]);
    for (int i = 0; words[i]; i++) {
        interrupt(words[i], i % 2 ? SIGTERM : SIGINT);
        interrupt(words[i], i % 2 ? SIGINT : SIGTERM);
    }
}

Test(daemon_interrupt, while_it_builds, .timeout = 180)
{
    static const char *const words[] = {"\"prepare\"", "\"vmm\"",   "\"boot\"",  "\"freeze\"",
                                        "\"save\"",    "\"store\"", "\"prove\"", NULL};
    each_signal(words);
}

Test(daemon_interrupt, while_it_fills, .timeout = 180)
{
    static const char *const words[] = {"template.built", "vm.parked", NULL};
    each_signal(words);
}

Test(daemon_interrupt, who_waits_is_told, .timeout = 60)
{
    struct dmn d;
    struct dmn_conn c;
    char qemu[100], set[120];
    need_qemu("who_waits_is_told");
    begin(&d, qemu, set);
    dmn_dial(&d, &c, "api.sock");
    dmn_ask(&c, "POST", "/v1/vms", NULL, "{\"template\":\"web\",\"require\":[\"hit\"]}");
    dmn_wait_for(&d, "/v1/pools/web", "waiting", 1);
    dmn_signal(&d, SIGTERM);
    cr_expect_eq(dmn_head(&c), 503);
    char *text = dmn_rest(&c);
    cr_expect(strstr(text, "stopping"), "%s", text);
    free(text);
    dmn_hang_up(&c);
    cr_expect_eq(dmn_wait(&d), 0);
    dmn_close(&d);
}

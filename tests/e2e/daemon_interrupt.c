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

static void interrupt(const char *words, int signum)
{
    struct dmn d;
    char body[600], qemu[100], set[120];
    dmn_prepare(&d, NULL);
    snprintf(qemu, sizeof(qemu), "%s/qemu", d.dir);
    snprintf(set, sizeof(set), "qemu=%s", qemu);
    cr_assert_eq(symlink(sup_qemu(), qemu), 0);
    d.args[0] = "--set";
    d.args[1] = set;
    dmn_start(&d);
    snprintf(body, sizeof(body),
             "{\"name\":\"web\",\"accel\":\"tcg\",\"memory\":{\"size_mib\":32},"
             "\"boot\":{\"kernel\":\"%s\"},\"agent\":{\"channel\":\"serial\"}}",
             sup_guest_file("tiny.elf"));
    free(dmn_call(&d, 201, "POST", "/v1/templates", body));
    free(dmn_call(&d, 202, "POST", "/v1/pools/web/warm", "{\"count\":3}"));
    await_event(&d, words);
    dmn_signal(&d, signum);
    cr_expect_eq(dmn_wait(&d), 0, "after %s", words);
    cr_expect_eq(dmn_vmms(qemu), 0, "after %s: a VMM is left", words);
    cr_expect_eq(dmn_vm_dirs(&d), 0, "after %s: a VM's directory is left", words);
    cr_expect_eq(unfinished(&d, "web"), 0, "after %s: half a generation is left", words);
    dmn_close(&d);
}

static void each_signal(const char *const *words)
{
    if (!sup_qemu() || access(sup_guest_file("tiny.elf"), R_OK) < 0)
        sup_skip("daemon_interrupt", words[0], "needs QEMU and the tiny guest");
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

/* Runtime classes over the API and from files: what is wrong is refused whole, and the set in force stays. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/e2e/daemon_guest.h"

TestSuite(api_classes, .timeout = 120);

#define DIGEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ASSET(name, kind, arch)                                       \
    "{\"name\":\"" name "\",\"kind\":\"" kind "\",\"files\":{\"" arch \
    "\":{\"url\":\"https://example.org/" name "\",\"sha256\":\"" DIGEST "\"}}}"
#if defined(__aarch64__)
#define HERE "aarch64"
#define ELSEWHERE "x86_64"
#else
#define HERE "x86_64"
#define ELSEWHERE "aarch64"
#endif

static char *classes(struct dmn *d)
{
    return dmn_call(d, 200, "GET", "/v1/classes", NULL);
}

/* PUT, refused with a message that has these words. */
static void refused(struct dmn *d, const char *path, const char *body, const char *words)
{
    struct vf_json *j = dmn_json(d, 400, "PUT", path, body);

    cr_expect_not_null(strstr(dmn_str(j, "error.message"), words), "\"%s\" is not in: %s", words,
                       dmn_str(j, "error.message"));
    vf_json_delete(j);
}

static void dir_of(const struct dmn *d, const char *kind, char *buf, size_t size)
{
    snprintf(buf, size, "%s/runtime/%s", d->state, kind);
}

static int count_files(const struct dmn *d)
{
    char command[300];
    int n = -1;
    FILE *f;

    snprintf(command, sizeof(command), "find %s/runtime -type f | wc -l", d->state);
    f = popen(command, "re");
    cr_assert_not_null(f);
    cr_assert_eq(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

Test(api_classes, what_is_wrong_is_refused_whole)
{
    char *before, *after;
    struct dmn d;
    int files;

    dmn_open(&d, NULL);
    free(dmn_call(&d, 200, "PUT", "/v1/assets/ch", ASSET("ch", "vmm", HERE)));
    free(dmn_call(&d, 200, "PUT", "/v1/assets/far", ASSET("far", "vmm", ELSEWHERE)));
    free(dmn_call(&d, 200, "PUT", "/v1/assets/image", ASSET("image", "image", HERE)));
    free(dmn_call(
        &d, 200, "PUT", "/v1/classes/prod",
        "{\"name\":\"prod\",\"vmm\":\"cloud-hypervisor\",\"default\":true,\"assets\":{\"" HERE
        "\":{\"vmm\":\"ch\"}}}"));
    before = classes(&d);
    files = count_files(&d);
    cr_expect_eq(files, 4);
    refused(&d, "/v1/classes/a",
            "{\"name\":\"a\",\"vmm\":\"qemu\",\"assets\":{\"" HERE "\":{\"vmm\":\"none\"}}}",
            "there is no asset \"none\"");
    refused(&d, "/v1/classes/a",
            "{\"name\":\"a\",\"vmm\":\"qemu\",\"assets\":{\"" HERE "\":{\"vmm\":\"image\"}}}",
            "of kind \"image\"");
    refused(&d, "/v1/classes/a",
            "{\"name\":\"a\",\"vmm\":\"qemu\",\"assets\":{\"" ELSEWHERE "\":{\"vmm\":\"far\"}}}",
            "none for this host's " HERE);
    refused(&d, "/v1/classes/a", "{\"name\":\"a\",\"vmm\":\"cloud-hypervisor\",\"default\":true}",
            "default");
    refused(&d, "/v1/classes/qemu", "{\"name\":\"qemu\",\"vmm\":\"qemu\"}", "built-in");
    refused(&d, "/v1/classes/a",
            "{\"name\":\"a\",\"vmm\":\"cloud-hypervisor\",\"options\":{\"prefault\":true}}",
            "options.prefault");
    /* An asset that a class needs as it is. */
    refused(&d, "/v1/assets/ch", ASSET("ch", "kernel", HERE), "of kind \"kernel\"");
    refused(&d, "/v1/assets/b",
            "{\"name\":\"b\",\"kind\":\"vmm\",\"files\":{\"" HERE
            "\":{\"url\":\"https://example.org/b\"}}}",
            "sha256");
    after = classes(&d);
    cr_expect_str_eq(after, before);
    cr_expect_eq(count_files(&d), files);
    free(before);
    free(after);
    dmn_close(&d);
}

Test(api_classes, what_was_set_outlives_the_daemon)
{
    char *before, *after;
    struct dmn d;

    dmn_open(&d, NULL);
    free(dmn_call(&d, 200, "PUT", "/v1/classes/fast", "{\"name\":\"fast\",\"vmm\":\"null\"}"));
    before = classes(&d);
    dmn_kill(&d);
    dmn_start(&d);
    after = classes(&d);
    cr_expect_str_eq(after, before);
    free(before);
    free(after);
    free(dmn_call(&d, 204, "DELETE", "/v1/classes/fast", NULL));
    cr_expect_eq(count_files(&d), 0);
    dmn_close(&d);
}

Test(api_classes, a_hangup_reads_the_files_again_or_changes_nothing)
{
    struct gst_events ev;
    char dir[200], path[300], *before, *after;
    struct vf_json *j;
    struct dmn d;

    dmn_open(&d, NULL);
    dir_of(&d, "classes", dir, sizeof(dir));
    gst_follow(&d, &ev);
    gst_write(dir, "fast.json", "{\"name\":\"fast\",\"vmm\":\"null\",\"default\":true}", 0644);
    dmn_signal(&d, SIGHUP);
    gst_await_event(&ev, "class.reloaded", NULL);
    free(dmn_call(&d, 200, "GET", "/v1/classes/fast", NULL));
    before = classes(&d);
    /* One of two is good; none of them is taken. */
    gst_write(dir, "good.json", "{\"name\":\"good\",\"vmm\":\"qemu\"}", 0644);
    gst_write(dir, "bad.json", "{\"name\":\"bad\",\"vmm\":\"null\",\"default\":true}", 0644);
    dmn_signal(&d, SIGHUP);
    j = gst_event(&ev, "class.reload_failed", NULL);
    cr_expect_not_null(strstr(dmn_str(j, "message"), "default"), "%s", dmn_str(j, "message"));
    vf_json_delete(j);
    after = classes(&d);
    cr_expect_str_eq(after, before);
    /* A change would have to read it too. */
    free(dmn_call(&d, 400, "PUT", "/v1/classes/more", "{\"name\":\"more\",\"vmm\":\"qemu\"}"));
    snprintf(path, sizeof(path), "%s/bad.json", dir);
    cr_assert_eq(unlink(path), 0);
    dmn_signal(&d, SIGHUP);
    gst_await_event(&ev, "class.reloaded", NULL);
    free(dmn_call(&d, 200, "GET", "/v1/classes/good", NULL));
    free(before);
    free(after);
    gst_unfollow(&ev);
    dmn_close(&d);
}

/* The built-in classes would run other binaries than those that somebody pinned. */
Test(api_classes, a_daemon_does_not_start_with_a_bad_set)
{
    char dir[200], path[300], *log;
    struct dmn d;

    dmn_prepare(&d, NULL);
    dir_of(&d, "classes", dir, sizeof(dir));
    gst_write(dir, "bad.json", "{\"name\":\"bad\",\"vmm\":\"cloud-hypervisor\",\"assets\":{}",
              0644);
    cr_expect_eq(dmn_start_fails(&d), 1);
    log = dmn_log(&d);
    cr_expect_not_null(strstr(log, "classes/bad.json"), "%s", log);
    cr_expect_not_null(strstr(log, "mend it"), "%s", log);
    free(log);
    snprintf(path, sizeof(path), "%s/bad.json", dir);
    cr_assert_eq(unlink(path), 0);
    dmn_start(&d);
    dmn_close(&d);
}

Test(api_classes, templates_and_vms_say_their_class)
{
    struct vf_json *j;
    struct dmn d;

    dmn_open(&d, NULL);
    free(dmn_call(&d, 200, "PUT", "/v1/classes/fast", "{\"name\":\"fast\",\"vmm\":\"null\"}"));
    dmn_null_template(&d, "plain", 1);
    free(dmn_call(&d, 201, "POST", "/v1/templates",
                  "{\"name\":\"web\",\"class\":\"fast\",\"memory\":{\"size_mib\":16}}"));
    j = dmn_json(&d, 200, "GET", "/v1/templates/web", NULL);
    cr_expect_str_eq(dmn_str(j, "class"), "fast");
    vf_json_delete(j);
    free(dmn_call(&d, 202, "POST", "/v1/pools/web/warm", "{\"count\":1}"));
    dmn_wait_for(&d, "/v1/pools/web", "parked", 1);
    j = dmn_json(&d, 200, "GET", "/v1/templates/web", NULL);
    cr_expect_str_eq(dmn_str(j, "class"), "fast");
    cr_expect_str_eq(dmn_str(j, "vmm"), "null");
    vf_json_delete(j);
    j = dmn_json(&d, 201, "POST", "/v1/vms", "{\"template\":\"web\"}");
    cr_expect_str_eq(dmn_str(j, "class"), "fast");
    vf_json_delete(j);
    j = dmn_json(&d, 201, "POST", "/v1/vms", "{\"template\":\"plain\"}");
    cr_expect_str_eq(dmn_str(j, "class"), "null");
    vf_json_delete(j);
    j = dmn_json(&d, 200, "GET", "/v1/classes/fast", NULL);
    cr_expect_str_eq(dmn_str(j, "templates.0"), "web");
    vf_json_delete(j);
    /* Named: it stays. */
    j = dmn_json(&d, 409, "DELETE", "/v1/classes/fast", NULL);
    cr_expect_not_null(strstr(dmn_str(j, "error.message"), "template web names it"));
    vf_json_delete(j);
    j = dmn_json(&d, 404, "POST", "/v1/templates",
                 "{\"name\":\"other\",\"class\":\"fats\",\"memory\":{\"size_mib\":16}}");
    cr_expect_not_null(strstr(dmn_str(j, "error.message"), "fats"), "%s",
                       dmn_str(j, "error.message"));
    vf_json_delete(j);
    dmn_signal(&d, SIGTERM);
    cr_expect_eq(dmn_wait(&d), 0);
    dmn_close(&d);
}

/* The next request on a connection that the daemon knows already. */
static void prime(struct dmn_conn *c)
{
    dmn_ask(c, "GET", "/v1/classes", NULL, NULL);
    cr_assert_eq(dmn_head(c), 200);
    free(dmn_rest(c));
}

static void expect_words(struct dmn_conn *c, const char *words)
{
    char *text = dmn_rest(c);

    cr_expect_not_null(strstr(text, words), "%s", text);
    free(text);
}

/* The daemon finds both requests together, so neither has ended when the other one begins; which of them is the first is
 * its affair. */
Test(api_classes, a_template_and_its_class_come_and_go_together)
{
    static const char class[] = "{\"name\":\"fast\",\"vmm\":\"null\"}",
                      web[] = "{\"name\":\"web\",\"class\":\"fast\",\"memory\":{\"size_mib\":16}}";
    struct dmn_conn add, gone;
    siginfo_t info;
    struct dmn d;

    dmn_open(&d, NULL);
    dmn_dial(&d, &add, "api.sock");
    dmn_dial(&d, &gone, "api.sock");
    for (int i = 0; i < 8; i++) {
        free(dmn_call(&d, 200, "PUT", "/v1/classes/fast", class));
        prime(&add);
        prime(&gone);
        dmn_signal(&d, SIGSTOP);
        cr_assert_eq(waitid(P_PID, (id_t)d.pid, &info, WSTOPPED), 0);
        dmn_ask(&add, "POST", "/v1/templates", NULL, web);
        dmn_ask(&gone, "DELETE", "/v1/classes/fast", NULL, NULL);
        dmn_signal(&d, SIGCONT);
        dmn_head(&add);
        dmn_head(&gone);
        if (add.status == 201) {
            cr_assert_eq(gone.status, 409, "the class is gone (%d), a template names it",
                         gone.status);
            expect_words(&gone, "template web names it");
            free(dmn_rest(&add));
            free(dmn_call(&d, 200, "GET", "/v1/classes/fast", NULL));
            free(dmn_call(&d, 204, "DELETE", "/v1/templates/web", NULL));
        } else {
            cr_assert(gone.status == 204 && (add.status == 409 || add.status == 404), "%d, %d",
                      gone.status, add.status);
            expect_words(&add, add.status == 409 ? "is being removed" : "there is no class");
            free(dmn_call(&d, 404, "GET", "/v1/templates/web", NULL));
        }
    }
    dmn_hang_up(&add);
    dmn_hang_up(&gone);
    dmn_close(&d);
}

Test(api_classes, a_name_that_is_too_long_is_not_another_ones)
{
    char name[66], path[100], body[200];
    struct dmn d;

    memset(name, 'a', sizeof(name));
    name[64] = '\0'; /* the longest that there may be */
    dmn_open(&d, NULL);
    snprintf(path, sizeof(path), "/v1/classes/%s", name);
    snprintf(body, sizeof(body), "{\"name\":\"%s\",\"vmm\":\"null\"}", name);
    free(dmn_call(&d, 200, "PUT", path, body));
    free(dmn_call(&d, 200, "GET", path, NULL));
    name[64] = 'a';
    name[65] = '\0';
    snprintf(path, sizeof(path), "/v1/classes/%s", name);
    free(dmn_call(&d, 404, "GET", path, NULL));
    free(dmn_call(&d, 400, "PUT", path, body));
    dmn_close(&d);
}

Test(api_classes, others_than_admins_may_only_look)
{
    static const struct {
        const char *method, *path, *body;
    } asked[] = {
        {"PUT", "/v1/classes/a", "{\"name\":\"a\",\"vmm\":\"null\"}"},
        {"DELETE", "/v1/classes/fast", NULL},
        {"PUT", "/v1/assets/a", ASSET("a", "vmm", HERE)},
        {"DELETE", "/v1/assets/ch", NULL},
        {"POST", "/v1/assets/ch/fetch", NULL},
        {"POST", "/v1/assets/ch/verify", NULL},
        {"POST", "/v1/assets/gc", NULL},
        {"GET", "/v1/classes/fast", NULL},
        {"GET", "/v1/assets/ch", NULL},
        {"GET", "/v1/assets", NULL},
    };
    static const char signed_url[] =
        "{\"name\":\"ch\",\"kind\":\"vmm\",\"files\":{\"" HERE
        "\":{\"url\":\"https://h/ch?signature\",\"sha256\":\"00000000000000000000000000000000"
        "00000000000000000000000000000000\"}}}";
    char *text;
    struct dmn d;

    if (geteuid() != 0) {
        fprintf(stderr, "SKIPPED api_classes.others: to call as another user takes root\n");
        cr_skip_test();
    }
    dmn_open(&d, NULL);
    free(dmn_call(&d, 200, "PUT", "/v1/classes/fast", "{\"name\":\"fast\",\"vmm\":\"null\"}"));
    free(dmn_call(&d, 200, "PUT", "/v1/assets/ch", signed_url));
    dmn_let_all_in(&d);
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        bool looks = strcmp(asked[i].method, "GET") == 0;
        struct dmn_conn c;

        cr_assert_eq(seteuid(65534), 0);
        dmn_dial(&d, &c, "api.sock");
        cr_assert_eq(seteuid(0), 0);
        dmn_ask(&c, asked[i].method, asked[i].path, NULL, asked[i].body);
        cr_expect_eq(dmn_head(&c), looks ? 200 : 403, "%s %s: %d", asked[i].method, asked[i].path,
                     c.status);
        text = dmn_rest(&c);
        cr_expect_null(strstr(text, "signature"), "%s", text);
        free(text);
        dmn_hang_up(&c);
    }
    free(dmn_call(&d, 200, "GET", "/v1/classes/fast", NULL));
    text = dmn_call(&d, 200, "GET", "/v1/assets/ch", NULL);
    cr_expect_not_null(strstr(text, "https://h/ch?signature"), "%s", text);
    free(text);
    dmn_close(&d);
}

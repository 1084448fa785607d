/* The daemon's settings: defaults, what is refused and how that is said, what a reload changes. */
#include <errno.h>
#include <grp.h>
#include <unistd.h>
#include "base/log.h"
#include "pool/settings.h"
#include "pool/settings_text.h"
#include "scratch.h"

TestSuite(settings, .timeout = 30);

static struct vf_error err;

static int parse(const char *text, struct vf_settings *ret)
{
    return vf_settings_parse(text, strlen(text), "v.json", ret, &err);
}

/* That text is refused with exactly this message, and the output left alone. */
static void refused(const char *text, const char *message)
{
    struct vf_settings s;

    memset(&s, 0x5a, sizeof(s));
    cr_expect_lt(parse(text, &s), 0, "%s", text);
    cr_expect_str_eq(err.msg, message);
    for (size_t i = 0; i < sizeof(s); i++)
        cr_assert_eq(((unsigned char *)&s)[i], 0x5a);
}

Test(settings, defaults)
{
    struct vf_settings s;

    cr_assert_eq(parse("{}", &s), 0, "%s", err.msg);
    cr_expect_eq(s.max_connections, 1024);
    cr_expect_eq(s.request_timeout_ms, 30000);
    cr_expect_eq(s.max_body_bytes, 1 << 20);
    cr_expect_eq(s.log_level, VF_LOG_INFO);
    cr_expect_eq(s.log_format, VF_LOG_TEXT);
    cr_expect_eq(s.on_stop, VF_ON_STOP_KEEP_LEASES);
    cr_expect_eq(s.stop_timeout_ms, 20000);
    cr_expect_eq(s.max_vms, 0);
    cr_expect_eq(s.max_leases_per_holder, 0);
    cr_expect_eq(s.max_lease_ttl_ms, 0);
    cr_expect_eq(s.quarantine_after, 3);
    cr_expect_eq(s.backoff_initial_ms, 500);
    cr_expect_eq(s.backoff_max_ms, 60000);
    cr_expect_eq(s.psi_some_percent, 20);
    cr_expect_eq(s.min_available_mib, 256);
    cr_expect_eq(s.heartbeat_ms, 5000);
    cr_expect_eq(s.answer_timeout_ms, 10000);
    cr_expect_null(s.qemu);
    cr_expect_null(s.cloud_hypervisor);
    cr_expect_null(s.firecracker);
    cr_expect_null(s.runtime_dir);
    cr_expect_null(s.stats_listen);
    cr_expect_null(s.admin_group);
    vf_settings_free(&s);
    vf_settings_free(&s);
    vf_settings_free(NULL);
}

/* Each default lies within its own limits, and each setting has its help. */
Test(settings, table_is_sound)
{
    struct vf_settings s;
    size_t n = 0;

    cr_assert_eq(vf_settings_init(&s, &err), 0, "%s", err.msg);
    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++, n++) {
        cr_expect_not_null(t->field.help, "%s", t->field.name);
        cr_expect_eq(t->field.help[strlen(t->field.help) - 1], '.', "%s", t->field.name);
        cr_expect_eq(vf_settings_set(&s, t->field.name, t->dflt, &err), 0, "%s", err.msg);
    }
    cr_expect_gt(n, 20);
    vf_settings_free(&s);
}

Test(settings, directories_of_root)
{
    struct vf_settings s;

    if (geteuid() != 0)
        cr_skip_test("needs root");
    cr_assert_eq(vf_settings_init(&s, &err), 0, "%s", err.msg);
    cr_expect_str_eq(s.state_dir, "/var/lib/vmfactory");
    cr_expect_str_eq(s.run_dir, "/run/vmfactory");
    cr_expect_eq(s.group != NULL, getgrnam("vmfactory") != NULL);
    vf_settings_free(&s);
}

/* Becomes another user in this test's own process. */
static void be_a_user(void)
{
    if (geteuid() == 0)
        cr_assert_eq(setresuid(65534, 65534, 65534), 0);
}

Test(settings, directories_of_a_user)
{
    struct vf_settings s;

    be_a_user();
    setenv("XDG_STATE_HOME", "/x/state", 1);
    setenv("XDG_RUNTIME_DIR", "/x/run", 1);
    cr_assert_eq(vf_settings_init(&s, &err), 0, "%s", err.msg);
    cr_expect_str_eq(s.state_dir, "/x/state/vmfactory");
    cr_expect_str_eq(s.run_dir, "/x/run/vmfactory");
    cr_expect_null(s.group);
    vf_settings_free(&s);

    setenv("HOME", "/x/home", 1);
    setenv("XDG_STATE_HOME", "not/absolute", 1);
    unsetenv("XDG_RUNTIME_DIR");
    cr_assert_eq(vf_settings_init(&s, &err), 0, "%s", err.msg);
    cr_expect_str_eq(s.state_dir, "/x/home/.local/state/vmfactory");
    cr_expect_str_eq(s.run_dir, "/x/home/.local/state/vmfactory/run");
    vf_settings_free(&s);
}

Test(settings, refusals)
{
    refused("{\"stop_timout_ms\":5}",
            "v.json: stop_timout_ms: unknown key, did you mean \"stop_timeout_ms\"?");
    refused("{\"stop_timeout_ms\":5}", "v.json: stop_timeout_ms: must be at least 100 ms (is 5)");
    refused("{\"psi_some_percent\":101}",
            "v.json: psi_some_percent: must be at most 100 % (is 101)");
    refused("{\"min_available_mib\":-1}",
            "v.json: min_available_mib: must be at least 0 MiB (is -1)");
    refused("{\"max_vms\":1e3}",
            "v.json: max_vms: must be an integer, without fraction or exponent (is 1e3)");
    refused("{\"max_vms\":1000000}", "v.json: max_vms: must be at most 100000 (is 1000000)");
    refused("{\"on_stop\":\"keep-lease\"}",
            "v.json: on_stop: must be \"keep-leases\" or \"destroy-all\" (is \"keep-lease\"), did "
            "you mean \"keep-leases\"?");
    refused("{\"max_vms\":1,\"max_vms\":2}", "v.json: max_vms: is given twice");
    refused("{\"qemu\":\"qemu-system-x86_64\"}",
            "v.json: qemu: must be an absolute path (is \"qemu-system-x86_64\")");
    refused("{\"cloud_hypervisor\":\"cloud-hypervisor\"}",
            "v.json: cloud_hypervisor: must be an absolute path (is \"cloud-hypervisor\")");
    refused("{\"firecracker\":\"./fc\"}",
            "v.json: firecracker: must be an absolute path (is \"./fc\")");
    refused("{\"runtime_dir\":\"classes\"}",
            "v.json: runtime_dir: must be an absolute path (is \"classes\")");
    refused("{\"run_dir\":\"run\"}", "v.json: run_dir: must be an absolute path (is \"run\")");
    refused("{\"state_dir\":\"\"}", "v.json: state_dir: must not be empty");
    refused("{\"group\":\"no-such-group-vf\"}",
            "v.json: group: there is no group \"no-such-group-vf\"");
    refused("{\"admin_group\":\"no-such-group-vf\"}",
            "v.json: admin_group: there is no group \"no-such-group-vf\"");
    refused("{\"backoff_initial_ms\":700,\"backoff_max_ms\":600}",
            "v.json: backoff_initial_ms: must be at most backoff_max_ms, 600 ms (is 700)");
    refused("[]", "v.json: must be an object (is an array)");
}

Test(settings, stats_addresses)
{
    static const char *const good[] = {"127.0.0.1:9464", "0.0.0.0:1", "[::1]:65535", "[::]:80",
                                       NULL};
    static const char *const bad[] = {"9464",           ":9464",
                                      "127.0.0.1",      "127.0.0.1:",
                                      "127.0.0.1:0",    "127.0.0.1:65536",
                                      "127.0.0.1:-1",   "::1:9464",
                                      "[::1]",          "[::1:9464",
                                      "localhost:9464", "[127.0.0.1]:80",
                                      "[]:80",          "[:80",
                                      "127.0.0.1:+80",  NULL};
    struct vf_settings s;
    char text[100];

    for (int i = 0; good[i] != NULL; i++) {
        snprintf(text, sizeof(text), "{\"stats_listen\":\"%s\"}", good[i]);
        cr_assert_eq(parse(text, &s), 0, "%s", err.msg);
        cr_expect_str_eq(s.stats_listen, good[i]);
        vf_settings_free(&s);
    }
    for (int i = 0; bad[i] != NULL; i++) {
        snprintf(text, sizeof(text), "{\"stats_listen\":\"%s\"}", bad[i]);
        cr_expect_lt(parse(text, &s), 0, "%s", bad[i]);
    }
}

Test(settings, empty_strings_are_none)
{
    struct vf_settings s;

    cr_assert_eq(parse("{\"group\":\"\",\"admin_group\":\"root\",\"qemu\":\"\"}", &s), 0, "%s",
                 err.msg);
    cr_expect_null(s.group);
    cr_expect_null(s.qemu);
    cr_expect_str_eq(s.admin_group, "root");
    vf_settings_free(&s);
}

Test(settings, one_by_one)
{
    struct vf_settings s;

    cr_assert_eq(vf_settings_init(&s, &err), 0, "%s", err.msg);
    cr_expect_eq(vf_settings_set(&s, "max_vms", "64", &err), 0);
    cr_expect_eq(s.max_vms, 64);
    cr_expect_eq(vf_settings_set(&s, "on_stop", "destroy-all", &err), 0);
    cr_expect_eq(s.on_stop, VF_ON_STOP_DESTROY_ALL);
    cr_expect_eq(vf_settings_set(&s, "qemu", "/usr/bin/qemu \"x\"", &err), 0);
    cr_expect_str_eq(s.qemu, "/usr/bin/qemu \"x\"");
    cr_expect_eq(vf_settings_set(&s, "qemu", "", &err), 0);
    cr_expect_null(s.qemu);

    cr_expect_eq(vf_settings_set(&s, "max_vmz", "1", &err), -EINVAL);
    cr_expect_str_eq(err.msg, "max_vmz: unknown key, did you mean \"max_vms\"?");
    cr_expect_eq(vf_settings_set(&s, "max_vms", "1,\"qemu\":\"/x\"", &err), -EINVAL);
    cr_expect_eq(vf_settings_set(&s, "max_vms", "", &err), -EINVAL);
    cr_expect_eq(vf_settings_set(&s, "max_vms", "-", &err), -EINVAL);
    cr_expect_eq(vf_settings_set(&s, "max_vms", "-1", &err), -EINVAL);
    cr_expect_str_eq(err.msg, "max_vms: must be at least 0 (is -1)");
    cr_expect_eq(vf_settings_set(&s, "max_vms", "99999999999999999999", &err), -EINVAL);
    cr_expect_eq(vf_settings_set(&s, "log_level", "loud", &err), -EINVAL);
    cr_expect_eq(vf_settings_set(&s, "state_dir", "", &err), -EINVAL);
    cr_expect_eq(s.max_vms, 64);
    cr_expect_not_null(s.state_dir);

    /* Together they are looked at only when all are there. */
    cr_expect_eq(vf_settings_set(&s, "backoff_initial_ms", "70000", &err), 0);
    cr_expect_eq(vf_settings_check(&s, &err), -EINVAL);
    cr_expect_eq(vf_settings_set(&s, "backoff_max_ms", "80000", &err), 0);
    cr_expect_eq(vf_settings_check(&s, &err), 0);
    vf_settings_free(&s);
}

Test(settings, round_trip)
{
    struct vf_settings s, again;
    char *text, *second;

    cr_assert_eq(parse("{\"stats_listen\":\"[::1]:80\",\"log_level\":\"off\",\"group\":\"\","
                       "\"log_format\":\"json\",\"max_lease_ttl_ms\":31536000000}",
                       &s),
                 0, "%s", err.msg);
    text = vf_settings_encode(&s);
    cr_assert_not_null(text);
    cr_assert_eq(parse(text, &again), 0, "%s", err.msg);
    cr_expect_eq(again.max_lease_ttl_ms, INT64_C(31536000000));
    second = vf_settings_encode(&again);
    cr_expect_str_eq(text, second);
    free(text);
    free(second);
    vf_settings_free(&s);
    vf_settings_free(&again);
}

Test(settings, from_a_file)
{
    struct scratch dir;
    struct vf_settings s;
    char path[260], want[300];
    char *big;

    scratch_open(&dir);
    snprintf(path, sizeof(path), "%s/vmfactoryd.json", dir.path);
    cr_expect_eq(vf_settings_load(path, &s, &err), -ENOENT);
    cr_expect_not_null(strstr(err.msg, path), "%s", err.msg);

    cr_assert_eq(vf_write_file(dir.fd, "vmfactoryd.json", "{\"max_vms\": 7}\n", 15, 0644, &err), 0);
    cr_assert_eq(vf_settings_load(path, &s, &err), 0, "%s", err.msg);
    cr_expect_eq(s.max_vms, 7);
    vf_settings_free(&s);

    cr_assert_eq(vf_write_file(dir.fd, "vmfactoryd.json", "{\"max_vms\": ", 12, 0644, &err), 0);
    cr_expect_eq(vf_settings_load(path, &s, &err), -EINVAL);
    snprintf(want, sizeof(want), "%s: ", path);
    cr_expect_eq(strncmp(err.msg, want, strlen(want)), 0, "%s", err.msg);

    big = malloc(VF_SETTINGS_MAX_TEXT + 1);
    cr_assert_not_null(big);
    memset(big, ' ', VF_SETTINGS_MAX_TEXT + 1);
    memcpy(big, "{}", 2);
    cr_assert_eq(vf_write_file(dir.fd, "vmfactoryd.json", big, VF_SETTINGS_MAX_TEXT, 0644, &err),
                 0);
    cr_expect_eq(vf_settings_load(path, &s, &err), 0, "%s", err.msg);
    vf_settings_free(&s);
    cr_assert_eq(
        vf_write_file(dir.fd, "vmfactoryd.json", big, VF_SETTINGS_MAX_TEXT + 1, 0644, &err), 0);
    cr_expect_eq(vf_settings_load(path, &s, &err), -EINVAL);
    free(big);
    scratch_close(&dir);
}

Test(settings, a_reload_changes_what_is_live)
{
    struct vf_settings running, file;
    char *waiting = NULL;

    cr_assert_eq(parse("{\"group\":\"\"}", &running), 0, "%s", err.msg);
    cr_assert_eq(parse("{\"group\":\"\",\"max_vms\":9,\"log_level\":\"debug\"}", &file), 0);
    cr_assert_eq(vf_settings_apply(&running, &file, &waiting, &err), 0);
    cr_expect_eq(running.max_vms, 9);
    cr_expect_eq(running.log_level, VF_LOG_DEBUG);
    cr_expect_null(waiting);
    vf_settings_free(&file);

    cr_assert_eq(parse("{\"group\":\"root\",\"max_connections\":9,\"quarantine_after\":8}", &file),
                 0);
    cr_assert_eq(vf_settings_apply(&running, &file, &waiting, &err), 0);
    cr_expect_str_eq(waiting, "group, max_connections");
    cr_expect_null(running.group);
    cr_expect_eq(running.max_connections, 1024);
    cr_expect_eq(running.quarantine_after, 8);
    cr_expect_eq(running.max_vms, 0, "what the file leaves out has its default again");
    free(waiting);
    vf_settings_free(&file);
    vf_settings_free(&running);
}

/* Each text shows each setting, with the value it has. */
Test(settings, texts)
{
    struct vf_settings s;
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    cr_assert_eq(parse("{\"max_vms\":4711}", &s), 0, "%s", err.msg);
    vf_settings_print(f, &s);
    fputc('\f', f);
    vf_settings_print_brief(f);
    fputc('\f', f);
    vf_settings_print_man(f);
    fclose(f);
    for (const char *part = strtok(text, "\f"); part != NULL; part = strtok(NULL, "\f"))
        for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++)
            cr_expect_not_null(strstr(part, t->field.name), "%s", t->field.name);
    cr_expect_not_null(strstr(text, "4711"));
    cr_expect_null(strstr(text, "(null)"));
    free(text);
    vf_settings_free(&s);
}

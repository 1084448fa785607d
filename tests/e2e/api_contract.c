/* docs/openapi.yaml against the daemon, both ways: every operation is a route and every route an operation; what a
 * running daemon answers is what is documented, and what is documented is answered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "pool/api.h"
#include "pool/exec_frames.h"
#include "templates/registry.h"
#include "templates/spec.h"
#include "tests/e2e/daemon_support.h"
#include "tests/e2e/net_support.h"

TestSuite(api_contract, .timeout = 120);

#define CHECK "/usr/bin/python3 tests/e2e/openapi_check.py docs/openapi.yaml "

/* Runs the script and fails with what it prints. */
static void must_pass(const char *command)
{
    char text[65536];
    FILE *f = popen(command, "re");
    size_t n;

    cr_assert_not_null(f);
    n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    cr_expect_eq(pclose(f), 0, "%s:\n%s", command, text);
}

Test(api_contract, each_operation_is_a_route_and_each_route_an_operation)
{
    char line[256], method[16], path[128], who[16];
    bool documented[64] = {false};
    FILE *f = popen(CHECK "routes", "re");
    int n = 0;

    cr_assert_not_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        int i = 0;

        cr_assert_eq(sscanf(line, "%15s %127s %15s", method, path, who), 3);
        while (vf_api_routes[i].method != NULL && (strcmp(vf_api_routes[i].method, method) != 0 ||
                                                   strcmp(vf_api_routes[i].pattern, path) != 0))
            i++;
        cr_expect_not_null(vf_api_routes[i].method, "no route: %s", line);
        if (vf_api_routes[i].method == NULL)
            continue;
        cr_expect_eq(vf_api_routes[i].admin, strcmp(who, "admin") == 0, "x-admin of %s", line);
        documented[i] = true;
        n++;
    }
    cr_assert_eq(pclose(f), 0);
    cr_expect_gt(n, 0);
    for (int i = 0; vf_api_routes[i].method != NULL; i++)
        cr_expect(documented[i], "not documented: %s %s", vf_api_routes[i].method,
                  vf_api_routes[i].pattern);
}

Test(api_contract, the_spec_is_the_one_that_is_decoded)
{
    must_pass(CHECK "schema Spec templates/spec.schema.json");
}

static void same_schema(const char *name, const struct vf_json_field *fields)
{
    char file[] = "/tmp/vf-schema-XXXXXX", command[200];
    char *text = vf_json_schema(fields, NULL, NULL);
    int fd = mkstemp(file);

    cr_assert_not_null(text);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    snprintf(command, sizeof(command), CHECK "schema %s %s", name, file);
    must_pass(command);
    unlink(file);
    free(text);
}

Test(api_contract, definitions_are_those_that_are_decoded)
{
    same_schema("ClassDefinition", vf_class_fields);
    same_schema("AssetDefinition", vf_asset_fields);
}

/* ---- answers */

struct talk {
    struct dmn d;
    char file[100];
    FILE *f;
    bool bad_body; /* the next request's body does not fit its schema */
};

static void record(struct talk *t, const struct dmn_conn *c, const char *method, const char *path,
                   const char *request, const char *body)
{
    struct vf_json_writer w = {0};
    const char *type = dmn_header(c, "Content-Type");
    char *text;

    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, "method", method);
    vf_jw_string(&w, "path", path);
    vf_jw_int(&w, "status", c->status);
    vf_jw_string(&w, "type", type != NULL ? type : "");
    vf_jw_begin(&w, "headers", '[');
    for (const char *p = c->head; *p != '\0'; p = strchr(p, '\n') + 1) {
        char name[64];

        snprintf(name, sizeof(name), "%.*s", (int)strcspn(p, ":"), p);
        for (char *q = name; *q != '\0'; q++)
            *q = *q >= 'A' && *q <= 'Z' ? (char)(*q + 32) : *q;
        vf_jw_string(&w, NULL, name);
    }
    vf_jw_end(&w, ']');
    vf_jw_string(&w, "request", request);
    vf_jw_string(&w, "body", body);
    if (t->bad_body)
        vf_jw_bool(&w, "bad_body", true);
    vf_jw_end(&w, '}');
    text = vf_jw_finish(&w);
    fprintf(t->f, "%s\n", text);
    free(text);
    t->bad_body = false;
}

/* Asks, expects that status, records; the body, which the test frees. */
static char *ask_on(struct talk *t, struct dmn_conn *c, int want, const char *method,
                    const char *path, const char *headers, const char *request)
{
    char *body;

    dmn_ask(c, method, path, headers, request);
    dmn_head(c);
    body = dmn_rest(c);
    cr_expect_eq(c->status, want, "%s %s %s: %d %s", method, path, request != NULL ? request : "",
                 c->status, body);
    record(t, c, method, path, request, body);
    return body;
}

static char *ask(struct talk *t, int want, const char *method, const char *path,
                 const char *request)
{
    struct dmn_conn c;
    char *body;

    dmn_dial(&t->d, &c, "api.sock");
    body = ask_on(t, &c, want, method, path, NULL, request);
    dmn_hang_up(&c);
    return body;
}

#define ASK(...) free(ask(t, __VA_ARGS__))
#define BAD(...)               \
    do {                       \
        t->bad_body = true;    \
        ASK(400, __VA_ARGS__); \
    } while (0)

/* As somebody who is no admin. The kernel notes who connects. */
static void ask_as_nobody(struct talk *t, int want, const char *method, const char *path,
                          const char *request)
{
    struct dmn_conn c;

    dmn_let_all_in(&t->d);
    cr_assert_eq(seteuid(65534), 0);
    dmn_dial(&t->d, &c, "api.sock");
    cr_assert_eq(seteuid(0), 0);
    free(ask_on(t, &c, want, method, path, NULL, request));
    dmn_hang_up(&c);
}

static void templates(struct talk *t)
{
    static const char spec[] = "{\"name\":\"web\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16}}";

    ASK(200, "GET", "/v1/version", NULL);
    ASK(400, "GET", "/v1/version?verbose=1", NULL);
    ASK(405, "PUT", "/v1/version", NULL);
    ASK(200, "GET", "/v1/settings", NULL);
    ASK(400, "GET", "/v1/settings?verbose=1", NULL);
    ASK(405, "PUT", "/v1/settings", NULL);
    ASK(404, "GET", "/v1/nothing", NULL);
    ASK(200, "GET", "/v1/templates", NULL);
    ASK(201, "POST", "/v1/templates", spec);
    ASK(201, "POST", "/v1/templates?base_dir=/tmp", spec);
    ASK(400, "POST", "/v1/templates?base_dir=tmp", spec);
    BAD("POST", "/v1/templates", "{\"name\":\"web\",\"vmn\":\"null\"}");
    BAD("POST", "/v1/templates", "{\"name\":\"web\",\"vcpus\":0}");
    BAD("POST", "/v1/templates", "[]");
    ASK(404, "POST", "/v1/templates", "{\"name\":\"web\",\"class\":\"none\"}");
    ASK(200, "GET", "/v1/templates", NULL);
    ASK(400, "GET", "/v1/templates?all=1", NULL);
    ASK(405, "PATCH", "/v1/templates", NULL);
    ASK(200, "GET", "/v1/templates/web", NULL);
    ASK(400, "GET", "/v1/templates/web?x", NULL);
    ASK(404, "GET", "/v1/templates/wep", NULL);
    ASK(405, "PATCH", "/v1/templates/web", NULL);
    ASK(202, "POST", "/v1/templates/web/build", NULL);
    ASK(202, "POST", "/v1/templates/web/build", "{}");
    BAD("POST", "/v1/templates/web/build", "{\"now\":true}");
    ASK(404, "POST", "/v1/templates/wep/build", NULL);
    dmn_wait_for(&t->d, "/v1/templates/web", "generation", 1);
    ASK(200, "GET", "/v1/templates/web", NULL);
}

/* Its one asset is a copy of true(1), which no VM runs. */
static void classes_and_assets(struct talk *t)
{
    char command[300], digest[80] = "", asset[600];
    FILE *f;

    snprintf(command, sizeof(command), "cp /bin/true %.63s/tool && sha256sum <%.63s/tool", t->d.dir,
             t->d.dir);
    f = popen(command, "re");
    cr_assert_not_null(f);
    cr_assert_eq(fscanf(f, "%79s", digest), 1);
    cr_assert_eq(pclose(f), 0);
    snprintf(
        asset, sizeof(asset),
        "{\"name\":\"tool\",\"kind\":\"vmm\",\"files\":{\"x86_64\":{\"url\":\"file://%.63s/tool\","
        "\"sha256\":\"%.64s\"},\"aarch64\":{\"url\":\"https://example.org/"
        "tool\",\"sha256\":\"%.64s\","
        "\"size\":1}},\"bearer_file\":\"/etc/token\"}",
        t->d.dir, digest, digest);
    ASK(200, "GET", "/v1/assets", NULL);
    ASK(400, "GET", "/v1/assets?all=1", NULL);
    ASK(405, "POST", "/v1/assets", NULL);
    ASK(200, "PUT", "/v1/assets/tool", asset);
    ASK(400, "PUT", "/v1/assets/other", asset);
    BAD("PUT", "/v1/assets/tool", "{\"name\":\"tool\",\"kind\":\"vmm\"}");
    BAD("PUT", "/v1/assets/tool", "{\"name\":\"tool\",\"kind\":\"vm\",\"files\":{}}");
    ASK(200, "GET", "/v1/assets/tool", NULL);
    ASK(400, "GET", "/v1/assets/tool?x=1", NULL);
    ASK(404, "GET", "/v1/assets/tol", NULL);
    ASK(405, "POST", "/v1/assets/tool", NULL);
    ASK(404, "POST", "/v1/assets/tool/verify", NULL);
    ASK(202, "POST", "/v1/assets/tool/fetch", NULL);
    BAD("POST", "/v1/assets/tool/fetch", "{\"now\":true}");
    ASK(404, "POST", "/v1/assets/tol/fetch", NULL);
    dmn_wait_for(&t->d, "/v1/assets/tool", "here.fetched", 1);
    ASK(202, "POST", "/v1/assets/tool/fetch", "{}");
    ASK(200, "GET", "/v1/assets", NULL);
    ASK(200, "POST", "/v1/assets/tool/verify", NULL);
    BAD("POST", "/v1/assets/tool/verify", "{\"deep\":true}");

    ASK(200, "GET", "/v1/classes", NULL);
    ASK(400, "GET", "/v1/classes?all=1", NULL);
    ASK(405, "POST", "/v1/classes", NULL);
    ASK(200, "PUT", "/v1/classes/pinned",
        "{\"name\":\"pinned\",\"vmm\":\"qemu\",\"assets\":{\"x86_64\":{\"vmm\":\"tool\"},"
        "\"aarch64\":{"
        "\"vmm\":\"tool\"}},\"options\":{\"sandbox\":false}}");
    ASK(400, "PUT", "/v1/classes/other", "{\"name\":\"pinned\",\"vmm\":\"qemu\"}");
    BAD("PUT", "/v1/classes/pinned", "{\"name\":\"pinned\"}");
    BAD("PUT", "/v1/classes/pinned", "{\"name\":\"pinned\",\"vmm\":\"kvm\"}");
    ASK(200, "GET", "/v1/classes", NULL);
    ASK(200, "GET", "/v1/classes/pinned", NULL);
    ASK(400, "GET", "/v1/classes/pinned?x=1", NULL);
    ASK(404, "GET", "/v1/classes/pined", NULL);
    ASK(405, "POST", "/v1/classes/pinned", NULL);
    ASK(200, "POST", "/v1/assets/gc", NULL);
    ASK(409, "DELETE", "/v1/assets/tool", NULL);
    ASK(409, "DELETE", "/v1/classes/qemu", NULL);
    ASK(404, "DELETE", "/v1/classes/pined", NULL);
    ASK(400, "DELETE", "/v1/classes/pinned?force=true", NULL);
    ASK(204, "DELETE", "/v1/classes/pinned", NULL);
    ASK(200, "POST", "/v1/assets/gc", "{\"dry_run\":true}");
    BAD("POST", "/v1/assets/gc", "{\"dry_run\":1}");
    ASK(404, "DELETE", "/v1/assets/tol", NULL);
    ASK(400, "DELETE", "/v1/assets/tool?force=true", NULL);
    ASK(204, "DELETE", "/v1/assets/tool", NULL);
    ASK(200, "POST", "/v1/assets/gc", "{\"dry_run\":false}");
}

static void pools(struct talk *t)
{
    ASK(200, "GET", "/v1/pools", NULL);
    ASK(400, "GET", "/v1/pools?all=true", NULL);
    ASK(405, "POST", "/v1/pools", NULL);
    ASK(200, "GET", "/v1/pools/web", NULL);
    ASK(400, "GET", "/v1/pools/web?x=", NULL);
    ASK(404, "GET", "/v1/pools/wep", NULL);
    ASK(405, "DELETE", "/v1/pools/web", NULL);
    ASK(200, "PATCH", "/v1/pools/web", "{\"max\":8,\"park\":\"running\",\"autosize\":false}");
    BAD("PATCH", "/v1/pools/web", "{\"maximum\":8}");
    BAD("PATCH", "/v1/pools/web", "{\"refill_concurrency\":0}");
    ASK(400, "PATCH", "/v1/pools/web", "{\"min\":9}");
    ASK(404, "PATCH", "/v1/pools/wep", "{}");
    ASK(202, "POST", "/v1/pools/web/warm", NULL);
    ASK(202, "POST", "/v1/pools/web/warm", "{\"count\":2}");
    BAD("POST", "/v1/pools/web/warm", "{\"count\":0}");
    ASK(404, "POST", "/v1/pools/wep/warm", NULL);
    dmn_wait_for(&t->d, "/v1/pools/web", "parked", 2);
    ASK(200, "GET", "/v1/pools/web", NULL);
}

static void exec_upgraded(struct talk *t, const char *path)
{
    struct dmn_conn c;
    uint8_t head[VF_EXEC_FRAME_HEADER];

    dmn_dial(&t->d, &c, "api.sock");
    free(ask_on(t, &c, 101, "POST", path, "Connection: Upgrade\r\nUpgrade: vmfactory-exec\r\n",
                "{\"argv\":[\"true\"]}"));
    cr_expect(dmn_bytes(&c, head, sizeof(head)));
    cr_expect_eq(head[0], VF_EXEC_STDOUT);
    dmn_await_close(&c);
    dmn_hang_up(&c);
}

/* Bodies that say something wrong about networks; the template has none. */
static void networks(struct talk *t)
{
    static const char *const bad[] = {
        "\"ports\":[{}]",
        "\"ports\":[{\"guest\":0}]",
        "\"ports\":[{\"guest\":80,\"host\":65536}]",
        "\"ports\":[{\"guest\":80,\"protocol\":\"sctp\"}]",
        "\"network\":{}",
        "\"network\":{\"namespace\":\"/run/netns/a\"}",
        "\"network\":{\"namespace\":\"a\",\"tap\":\"tap0\"}",
        "\"network\":{\"tap\":\"a-name-too-long-\"}",
        "\"network\":{\"tap\":\"two words\"}",
        "\"network\":{\"tap\":\"tap0\",\"bridge\":\"br0\"}",
        "\"network\":{\"tap\":\"tap0\",\"mac\":\"02:00\"}",
        "\"network\":{\"tap\":\"tap0\",\"address4\":\"10.0.0.1\"}",
        "\"network\":{\"tap\":\"tap0\",\"address6\":\"fd00::1\"}",
        "\"network\":{\"tap\":\"tap0\",\"taps\":\"00000000000000000000000000000000\"}",
        "\"network\":{\"taps\":\"0\"}",
    };
    char body[200];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(body, sizeof(body), "{\"template\":\"web\",%s}", bad[i]);
        BAD("POST", "/v1/vms", body);
    }
    ASK(404, "POST", "/v1/vms",
        "{\"template\":\"web\",\"network\":{\"taps\":\"00000000000000000000000000000000\"}}");
    ask_as_nobody(t, 403, "POST", "/v1/vms",
                  "{\"template\":\"web\",\"network\":{\"tap\":\"tap0\"}}");
}

static void vms(struct talk *t)
{
    char *text = ask(t, 201, "POST", "/v1/vms", "{\"template\":\"web\"}"), path[128], sub[160];
    struct vf_json *vm = vf_json_parse(text, strlen(text));

    snprintf(path, sizeof(path), "/v1/vms/%s", dmn_str(vm, "id"));
    cr_expect_str_eq(dmn_str(vm, "source"), "hit");
    vf_json_delete(vm);
    free(text);
    ASK(201, "POST", "/v1/vms",
        "{\"template\":\"web\",\"require\":[\"cold\"],\"timeout_ms\":30000,\"ttl_ms\":60000}");
    ASK(409, "DELETE", "/v1/templates/web", NULL);
    BAD("POST", "/v1/vms", "{}");
    BAD("POST", "/v1/vms", "{\"template\":\"web\",\"require\":[]}");
    BAD("POST", "/v1/vms", "{\"template\":\"web\",\"require\":[\"warm\"]}");
    BAD("POST", "/v1/vms", "{\"template\":\"web\",\"timeout\":1}");
    networks(t);
    ASK(404, "POST", "/v1/vms", "{\"template\":\"wep\"}");
    ASK(200, "PATCH", "/v1/pools/web", "{\"max_leases\":2}");
    ASK(429, "POST", "/v1/vms", "{\"template\":\"web\"}");
    ASK(200, "GET", "/v1/vms", NULL);
    ASK(200, "GET", "/v1/vms?parked=true", NULL);
    ASK(400, "GET", "/v1/vms?parked=yes", NULL);
    ASK(405, "DELETE", "/v1/vms", NULL);
    ASK(200, "GET", path, NULL);
    ASK(404, "GET", "/v1/vms/nobody", NULL);
    ASK(405, "PUT", path, NULL);
    snprintf(sub, sizeof(sub), "%s?x=1", path);
    ASK(400, "GET", sub, NULL);
    ASK(400, "DELETE", sub, NULL);
    snprintf(sub, sizeof(sub), "%s/renew", path);
    ASK(200, "POST", sub, "{\"ttl_ms\":60000}");
    ASK(200, "POST", sub, "{\"ttl_ms\":0}");
    BAD("POST", sub, "{}");
    BAD("POST", sub, "{\"ttl_ms\":-1}");
    ASK(404, "POST", "/v1/vms/nobody/renew", "{\"ttl_ms\":0}");
    snprintf(sub, sizeof(sub), "%s/exec", path);
    ASK(200, "POST", sub,
        "{\"argv\":[\"cat\"],\"stdin\":\"text\",\"env\":[\"A=b\"],\"cwd\":\"/\",\"timeout_ms\":0}");
    ASK(200, "POST", sub, "{\"argv\":[\"flood\",\"1000\"]}");
    ASK(200, "POST", sub, "{\"argv\":[\"complain\",\"x\"]}");
    ASK(200, "POST", sub, "{\"argv\":[\"hang\"],\"timeout_ms\":1}");
    ASK(200, "POST", sub, "{\"argv\":[\"no-such-program\"]}");
    exec_upgraded(t, sub);
    BAD("POST", sub, "{\"argv\":[]}");
    BAD("POST", sub, "{\"argv\":[\"true\"],\"env\":[\"A\"]}");
    BAD("POST", sub, "{\"argv\":[\"true\"],\"cwd\":\"tmp\"}");
    ASK(404, "POST", "/v1/vms/nobody/exec", "{\"argv\":[\"true\"]}");
    if (geteuid() == 0) {
        ask_as_nobody(t, 404, "GET", path, NULL);
        ask_as_nobody(t, 404, "DELETE", path, NULL);
        ask_as_nobody(t, 403, "GET", "/v1/vms?parked=true", NULL);
        ask_as_nobody(t, 200, "GET", "/v1/vms", NULL);
    }
    ASK(204, "DELETE", path, NULL);
    ASK(204, "DELETE", path, NULL);
    ASK(404, "DELETE", "/v1/vms/nobody", NULL);
}

static void taps(struct talk *t)
{
    struct dmn_conn c;

    ASK(400, "POST", "/v1/taps", NULL);
    BAD("POST", "/v1/taps", "{\"n\":1}");
    dmn_dial(&t->d, &c, "api.sock");
    free(ask_on(t, &c, 101, "POST", "/v1/taps",
                "Connection: Upgrade\r\nUpgrade: vmfactory-taps\r\n", NULL));
    dmn_hang_up(&c);
}

/* Its traffic is counted every few seconds; no event tells. */
static void wait_counted(struct talk *t, const char *path)
{
    int64_t deadline = vf_deadline_after_ms(DMN_LONG_MS), packets = -1;

    while (packets < 0 && vf_deadline_left_ms(deadline) > 0) {
        struct vf_json *vm = dmn_json(&t->d, 200, "GET", path, NULL);

        packets = dmn_int(vm, "network.traffic.in.packets");
        vf_json_delete(vm);
        if (packets < 0)
            usleep(50000);
    }
    cr_expect_geq(packets, 0);
}

/* VMs with slots and with what was brought: their answers, and what is taken and used up. */
static void slots(struct talk *t)
{
    char *text, path[128];
    struct vf_json *vm;

    ASK(201, "POST", "/v1/templates",
        "{\"name\":\"nat\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16},\"network\":{\"egress\":{"
        "\"policy\":\"list\",\"list\":[{\"to\":\"192.0.2.0/"
        "24\",\"protocol\":\"tcp\",\"first_port\":80}]},"
        "\"dns\":[\"192.0.2.53\"],\"ports\":[{\"guest\":80}]}}");
    ASK(201, "POST", "/v1/templates",
        "{\"name\":\"out\",\"vmm\":\"null\",\"memory\":{\"size_mib\":16},\"network\":{\"mode\":"
        "\"external\"}}");
    BAD("POST", "/v1/templates", "{\"name\":\"nat\",\"network\":{\"mode\":\"nat\",\"mtu\":100}}");
    text = ask(t, 201, "POST", "/v1/vms",
               "{\"template\":\"nat\",\"ports\":[{\"guest\":80,\"host\":8080},{\"guest\":53,"
               "\"protocol\":\"udp\"}]}");
    vm = vf_json_parse(text, strlen(text));
    snprintf(path, sizeof(path), "/v1/vms/%s", dmn_str(vm, "id"));
    cr_expect_str_eq(dmn_str(vm, "network.mode"), "nat");
    vf_json_delete(vm);
    free(text);
    wait_counted(t, path);
    ASK(200, "GET", path, NULL);
    ASK(409, "POST", "/v1/vms", "{\"template\":\"nat\",\"ports\":[{\"guest\":80,\"host\":8080}]}");
    ASK(201, "POST", "/v1/vms", "{\"template\":\"nat\"}");
    ASK(201, "POST", "/v1/vms",
        "{\"template\":\"out\",\"network\":{\"namespace\":\"/run/netns/blue\",\"tap\":\"tap3\","
        "\"mac\":\"02:00:00:00:00:03\",\"address4\":\"10.1.2.3/24\",\"gateway4\":\"10.1.2.1\","
        "\"address6\":\"fd00::3/64\",\"gateway6\":\"fe80::1\"}}");
    ASK(400, "POST", "/v1/vms", "{\"template\":\"out\"}");
}

static void not_for_everyone(struct talk *t)
{
    static const struct {
        const char *method, *path, *body;
    } admin_only[] = {
        {"POST", "/v1/templates", "{}"},
        {"DELETE", "/v1/templates/web", NULL},
        {"POST", "/v1/templates/web/build", NULL},
        {"PATCH", "/v1/pools/web", "{}"},
        {"POST", "/v1/pools/web/warm", NULL},
        {"POST", "/v1/pools/web/drain", NULL},
        {"PUT", "/v1/classes/a", "{}"},
        {"DELETE", "/v1/classes/a", NULL},
        {"PUT", "/v1/assets/a", "{}"},
        {"DELETE", "/v1/assets/a", NULL},
        {"POST", "/v1/assets/a/fetch", NULL},
        {"POST", "/v1/assets/a/verify", NULL},
        {"POST", "/v1/assets/gc", NULL},
    };

    for (size_t i = 0; i < sizeof(admin_only) / sizeof(admin_only[0]); i++)
        ask_as_nobody(t, 403, admin_only[i].method, admin_only[i].path, admin_only[i].body);
    ask_as_nobody(t, 200, "GET", "/v1/version", NULL);
}

static void too_long(struct talk *t)
{
    static const char *const posts[] = {
        "/v1/templates", "/v1/templates/web/build", "/v1/pools/web/warm",  "/v1/pools/web/drain",
        "/v1/vms",       "/v1/vms/x/renew",         "/v1/vms/x/exec",      "/v1/taps",
        "/v1/assets/gc", "/v1/assets/a/fetch",      "/v1/assets/a/verify",
    };
    char *body = malloc(70001);

    memset(body, ' ', 70000);
    body[70000] = '\0';
    for (size_t i = 0; i < sizeof(posts) / sizeof(posts[0]); i++)
        ASK(413, "POST", posts[i], body);
    ASK(413, "PATCH", "/v1/pools/web", body);
    ASK(413, "PUT", "/v1/classes/a", body);
    ASK(413, "PUT", "/v1/assets/a", body);
    free(body);
}

static void ends(struct talk *t)
{
    struct vf_json *vms;

    ASK(200, "GET", "/v1/events?since=0&follow=false", NULL);
    ASK(200, "GET", "/v1/events?follow=false", NULL);
    ASK(400, "GET", "/v1/events?since=-1", NULL);
    ASK(400, "GET", "/v1/events?folow=true", NULL);
    ASK(405, "POST", "/v1/events", NULL);
    ASK(202, "POST", "/v1/pools/web/drain", NULL);
    BAD("POST", "/v1/pools/web/drain", "{\"fast\":true}");
    ASK(404, "POST", "/v1/pools/wep/drain", NULL);
    ASK(409, "POST", "/v1/vms", "{\"template\":\"web\"}");
    vms = dmn_json(&t->d, 200, "GET", "/v1/vms", NULL);
    for (int i = 0; vf_json_at(vf_json_get(vms, "vms"), (size_t)i) != NULL; i++) {
        char path[128], at[32];

        snprintf(at, sizeof(at), "vms.%d.id", i);
        snprintf(path, sizeof(path), "/v1/vms/%s", dmn_str(vms, at));
        ASK(204, "DELETE", path, NULL);
    }
    vf_json_delete(vms);
    ASK(400, "DELETE", "/v1/templates/web?force=true", NULL);
    ASK(404, "DELETE", "/v1/templates/wep", NULL);
    ASK(204, "DELETE", "/v1/templates/web", NULL);
    ASK(204, "DELETE", "/v1/templates/nat", NULL);
    ASK(204, "DELETE", "/v1/templates/out", NULL);
    ASK(200, "GET", "/v1/events?follow=false", NULL);
}

Test(api_contract, what_is_answered_is_documented_and_what_is_documented_is_answered)
{
    static const char *const args[] = {
        "--set", "max_body_bytes=65536",           "--set", "network=on",
        "--set", "network_prefixes=10.210.0.0/28", NULL};
    struct talk talk = {0}, *t = &talk;
    char command[300];

    if (geteuid() != 0) {
        fprintf(stderr, "SKIPPED api_contract.answers: to call as another user takes root\n");
        cr_skip_test();
    }
    net_enter("api_contract", "answers");
    net_shell("ip netns add blue; ip -n blue tuntap add tap3 mode tap vnet_hdr");
    dmn_open(&t->d, args);
    snprintf(t->file, sizeof(t->file), "%.63s/answers", t->d.dir);
    t->f = fopen(t->file, "we");
    cr_assert_not_null(t->f);
    templates(t);
    classes_and_assets(t);
    pools(t);
    vms(t);
    taps(t);
    slots(t);
    not_for_everyone(t);
    too_long(t);
    ends(t);
    fclose(t->f);
    snprintf(command, sizeof(command), CHECK "answers <%s", t->file);
    must_pass(command);
    dmn_close(&t->d);
}

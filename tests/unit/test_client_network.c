/* What the library says and reads of networks: ports, taps by name, taps by descriptors. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/unit/fake_daemon.h"
#include "tools/vmfactory/network.h"

TestSuite(client_network, .timeout = 60);

#define UPGRADED \
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: vmfactory-taps\r\n\r\n"

static const char vm_json[] =
    "{\"id\":\"a\",\"network\":{\"mode\":\"nat\",\"address4\":\"10.210.0.15\",\"address6\":\"fd76:"
    "6d01::f\","
    "\"namespace\":\"/run/netns/vf-7\",\"interface\":\"vf-7\",\"ports\":[{\"protocol\":\"tcp\","
    "\"host\":30000,\"guest\":80},{\"protocol\":\"udp\",\"host\":53,\"guest\":5353}],\"guest\":{}}"
    "}";

static struct fake fake;
static struct vmfactory_error err;
static int pipe_fds[2]; /* stands for a tap: the fake daemon writes to its copy */

/* ---- ports and names */

static void serve_ports(struct fake *f)
{
    int fd = fake_accept(f);

    fake_expect(fake_read_request(f, fd), "a request");
    fake_expect_body(
        f, "{\"template\":\"web\",\"ports\":[{\"guest\":80,\"host\":8080,\"protocol\":\"tcp\"},"
           "{\"guest\":53,\"host\":0,\"protocol\":\"udp\"}]}");
    fake_answer(fd, "201 Created", vm_json);
    fake_expect(fake_read_request(f, fd), "a request");
    fake_expect_body(f, "{\"template\":\"web\",\"ports\":[]}");
    fake_answer(fd, "201 Created", "{\"id\":\"a\",\"network\":null}");
    fake_expect(fake_read_request(f, fd), "a request");
    fake_expect_body(f, "{\"template\":\"web\"}");
    fake_answer(fd, "201 Created", "{\"id\":\"a\"}");
    fake_await_close(fd);
}

Test(client_network, ports_are_asked_for_and_answered)
{
    static const struct vmfactory_port ports[] = {{.guest = 80, .host = 8080},
                                                  {.guest = 53, .udp = true}};
    struct vmfactory_acquire_options o = {.template_name = "web", .ports = ports, .n_ports = 2};
    struct vmfactory_vm vm;

    fake_start(&fake, serve_ports);
    cr_assert_eq(vmfactory_acquire(fake.h, &o, &vm, &err), 0, "%s", err.message);
    cr_expect_str_eq(vm.network_mode, "nat");
    cr_expect_str_eq(vm.address4, "10.210.0.15");
    cr_expect_str_eq(vm.address6, "fd76:6d01::f");
    cr_expect_str_eq(vm.netns, "/run/netns/vf-7");
    cr_expect_str_eq(vm.interface, "vf-7");
    cr_assert_eq(vm.n_ports, 2);
    cr_expect(vm.ports[0].guest == 80 && vm.ports[0].host == 30000 && !vm.ports[0].udp);
    cr_expect(vm.ports[1].guest == 5353 && vm.ports[1].host == 53 && vm.ports[1].udp);
    vmfactory_vm_free(&vm);
    o.n_ports = 0;
    cr_assert_eq(vmfactory_acquire(fake.h, &o, &vm, &err), 0, "%s", err.message);
    cr_expect_str_eq(vm.network_mode, "none");
    cr_expect_str_eq(vm.address4, "");
    cr_expect_eq(vm.n_ports, 0);
    vmfactory_vm_free(&vm);
    o.ports = NULL;
    cr_assert_eq(vmfactory_acquire(fake.h, &o, &vm, &err), 0, "%s", err.message);
    vmfactory_vm_free(&vm);
    fake_stop(&fake);
}

/* More ports than there is room for, and members of other types. */
static void serve_odd(struct fake *f)
{
    static char text[8192] = "{\"id\":\"a\",\"network\":{\"mode\":7,\"address4\":"
                             "\"255.255.255.255.255.255\",\"namespace\":null,\"ports\":[";
    int fd = fake_accept(f);

    for (int i = 0; i < 100; i++)
        strcat(text, "{\"host\":\"80\",\"guest\":1},");
    strcat(text, "null]}}");
    fake_serve(f, fd, "200 OK", text);
    fake_await_close(fd);
}

Test(client_network, odd_answers_are_cut)
{
    struct vmfactory_vm vm;

    fake_start(&fake, serve_odd);
    cr_assert_eq(vmfactory_get_vm(fake.h, "a", &vm, &err), 0, "%s", err.message);
    cr_expect_str_eq(vm.network_mode, "");
    cr_expect_str_eq(vm.address4, "255.255.255.255");
    cr_expect_eq(vm.n_ports, VMFACTORY_MAX_PORTS);
    cr_expect_eq(vm.ports[63].host, 0);
    vmfactory_vm_free(&vm);
    fake_stop(&fake);
}

static void serve_names(struct fake *f)
{
    int fd = fake_accept(f);

    fake_expect(fake_read_request(f, fd), "a request");
    fake_expect_body(
        f, "{\"template\":\"web\",\"network\":{\"namespace\":\"/run/netns/x\",\"tap\":\"tap0\","
           "\"mac\":\"02:00:00:00:00:01\",\"address4\":\"10.1.2.3/24\",\"gateway4\":\"10.1.2.1\","
           "\"address6\":\"fd00::3/64\",\"gateway6\":\"fe80::1\"}}");
    fake_answer(fd, "201 Created", vm_json);
    fake_await_close(fd);
}

Test(client_network, a_tap_by_its_name)
{
    const struct vmfactory_external e = {.netns = "/run/netns/x",
                                         .tap = "tap0",
                                         .mac = "02:00:00:00:00:01",
                                         .address4 = "10.1.2.3/24",
                                         .gateway4 = "10.1.2.1",
                                         .address6 = "fd00::3/64",
                                         .gateway6 = "fe80::1"};
    struct vmfactory_acquire_options o = {.template_name = "web", .external = &e};
    struct vmfactory_vm vm;

    fake_start(&fake, serve_names);
    cr_assert_eq(vmfactory_acquire(fake.h, &o, &vm, &err), 0, "%s", err.message);
    vmfactory_vm_free(&vm);
    fake_stop(&fake);
}

/* ---- descriptors */

/* Takes the connection that waits for descriptors, and what comes; returns it and the last of n descriptors. */
static int take(struct fake *f, int n, int *ret_fd)
{
    union {
        char buf[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control;
    char data[2];
    struct iovec iov = {data, 2};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof(control.buf)};
    struct cmsghdr *c;
    struct pollfd p;
    int fd = fake_accept(f), fds[8];

    fake_expect(fake_read_request(f, fd), "a request for taps");
    fake_expect_line(f, "POST /v1/taps");
    fake_expect(strstr(f->request, "Upgrade: vmfactory-taps\r\n") != NULL, f->request);
    p = (struct pollfd){.fd = fd, .events = POLLIN};
    fake_expect(poll(&p, 1, 50) == 0, "nothing before the 101");
    fake_text(fd, UPGRADED);
    p.revents = 0;
    fake_expect(poll(&p, 1, 20000) == 1, "descriptors");
    fake_expect(recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) == 1 && data[0] == 'T', "one byte, T");
    c = CMSG_FIRSTHDR(&msg);
    fake_expect(c != NULL && c->cmsg_type == SCM_RIGHTS &&
                    c->cmsg_len == CMSG_LEN((size_t)n * sizeof(int)),
                "as many descriptors as were given");
    memcpy(fds, CMSG_DATA(c), (size_t)n * sizeof(int));
    for (int i = 0; i < n - 1; i++)
        close(fds[i]);
    *ret_fd = fds[n - 1];
    return fd;
}

static void serve_taps(struct fake *f)
{
    int fd = fake_accept(f), tap, taps = take(f, 2, &tap);
    struct pollfd p = {.fd = taps, .events = POLLIN};

    fake_expect(write(tap, "x", 1) == 1, "the descriptor is the caller's");
    close(tap);
    fake_text(taps, "{\"taps\":\"0011");
    fake_text(taps, "2233\"}\n");
    fake_expect(fake_read_request(f, fd), "a request");
    fake_expect_body(
        f,
        "{\"template\":\"web\",\"network\":{\"taps\":\"00112233\",\"mac\":\"02:00:00:00:00:01\"}}");
    fake_expect(poll(&p, 1, 50) == 0, "the connection is kept until the answer");
    fake_answer(fd, "201 Created", vm_json);
    fake_await_close(taps);
    fake_expect(fake_read_request(f, fd), "the handle's connection is kept");
    fake_answer(fd, "201 Created", vm_json);
    fake_await_close(fd);
}

static int acquire_with_taps(size_t n)
{
    int fds[9];
    const struct vmfactory_external e = {
        .tap_fds = fds, .n_tap_fds = n, .mac = "02:00:00:00:00:01"};
    struct vmfactory_acquire_options o = {.template_name = "web", .external = &e};
    struct vmfactory_vm vm;
    int r;

    cr_assert_eq(pipe(pipe_fds), 0);
    for (size_t i = 0; i < 9; i++)
        fds[i] = pipe_fds[1];
    r = vmfactory_acquire(fake.h, &o, &vm, &err);
    if (r == 0)
        vmfactory_vm_free(&vm);
    close(pipe_fds[1]);
    return r;
}

Test(client_network, taps_by_descriptors)
{
    struct vmfactory_vm vm;
    char got[2];

    fake_start(&fake, serve_taps);
    cr_assert_eq(acquire_with_taps(2), 0, "%s", err.message);
    cr_expect_eq(read(pipe_fds[0], got, 2), 1);
    cr_expect_eq(got[0], 'x');
    cr_assert_eq(vmfactory_get_vm(fake.h, "a", &vm, &err), 0, "%s", err.message);
    vmfactory_vm_free(&vm);
    fake_stop(&fake);
    close(pipe_fds[0]);
}

static const char *said;

static void serve_refusal(struct fake *f)
{
    int fd = fake_accept(f), tap, taps = take(f, 1, &tap);

    fake_text(taps, said);
    close(taps);
    close(tap);
    fake_await_close(fd); /* no acquire came */
    fake_expect(f->requests == 1, "no acquire");
}

static int refused_with(const char *text)
{
    int r;

    said = text;
    fake_start(&fake, serve_refusal);
    r = acquire_with_taps(1);
    close(pipe_fds[0]);
    fake_stop(&fake);
    return r;
}

Test(client_network, taps_that_are_refused)
{
    cr_expect_eq(
        refused_with("{\"error\":{\"code\":\"invalid_argument\",\"message\":\"taps[0]: is no "
                     "descriptor of a tap\",\"hint\":\"bring one\"}}\n"),
        -EINVAL);
    cr_expect_str_eq(err.code, "invalid_argument");
    cr_expect_str_eq(err.message, "taps[0]: is no descriptor of a tap");
    cr_expect_str_eq(err.hint, "bring one");
    cr_expect_eq(refused_with(""), -EPROTO);
    cr_expect_eq(refused_with("{\"taps\":\"0011"), -EPROTO, "cut");
    cr_expect_eq(refused_with("\n"), -EPROTO);
    cr_expect_eq(refused_with("{\"taps\":7}\n"), -EPROTO);
    cr_expect_eq(
        refused_with("{\"taps\":\"0123456789012345678901234567890123456789012345678901234567"
                     "890123456789\"}\n"),
        -EPROTO, "too long");
}

static void serve_busy(struct fake *f)
{
    int fd = fake_accept(f), taps = fake_accept(f);

    fake_expect(fake_read_request(f, taps), "a request for taps");
    fake_answer(taps, "429 Busy",
                "{\"error\":{\"code\":\"busy\",\"message\":\"too many\",\"hint\":\"\"}}");
    fake_await_close(taps);
    fake_await_close(fd);
}

Test(client_network, taps_that_the_daemon_does_not_take)
{
    fake_start(&fake, serve_busy);
    cr_expect_eq(acquire_with_taps(9), -EINVAL, "too many");
    close(pipe_fds[0]);
    cr_expect_eq(acquire_with_taps(1), -EAGAIN);
    cr_expect_eq(err.status, 429);
    close(pipe_fds[0]);
    fake_stop(&fake);
}

/* ---- the command's words */

static void expect_port(const char *word, int host, int guest, bool udp)
{
    const struct vf_words words = {.v = {word}, .n = 1};
    struct vmfactory_port p = {0};
    struct vf_error e = {0};

    cr_expect_eq(vf_publish_parse(&words, &p, &e), 0, "%s: %s", word, e.msg);
    cr_expect(p.host == host && p.guest == guest && p.udp == udp, "%s: %d:%d", word, p.host,
              p.guest);
}

Test(client_network, ports_on_the_command_line)
{
    static const char *const bad[] = {"",       ":",    "0",         "65536",    "80:", ":80",
                                      "8080:0", "80/x", "80/",       "80:80:80", "-1",  "+80",
                                      "80 ",    "0x50", "80/tcp:80", "65536:80", "http"};
    struct vf_error e;

    expect_port("80", 0, 80, false);
    expect_port("8080:80", 8080, 80, false);
    expect_port("0:80/tcp", 0, 80, false);
    expect_port("53:5353/udp", 53, 5353, true);
    expect_port("65535/udp", 0, 65535, true);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct vf_words words = {.v = {"80", bad[i]}, .n = 2};
        struct vmfactory_port p[2];

        cr_expect_eq(vf_publish_parse(&words, p, &e), -EINVAL, "%s", bad[i]);
        cr_expect_not_null(strstr(e.msg, "--publish: "), "%s", e.msg);
    }
}

Test(client_network, where_a_vm_is_reached)
{
    struct vf_json *vm = vf_json_parse(vm_json, strlen(vm_json)),
                   *none = vf_json_parse("{\"network\":null}", 16);
    char ports[64], small[20];

    cr_expect_str_eq(vf_network_address(vm), "10.210.0.15");
    cr_expect_str_eq(vf_network_netns(vm), "/run/netns/vf-7");
    cr_expect_str_eq(vf_network_ports(vm, ports, sizeof(ports)), "30000->80 53->5353/udp");
    cr_expect_str_eq(vf_network_ports(vm, small, sizeof(small)), "30000->80 ...");
    cr_expect_str_eq(vf_network_address(none), "");
    cr_expect_str_eq(vf_network_netns(none), "");
    cr_expect_str_eq(vf_network_ports(none, ports, sizeof(ports)), "");
    vf_json_delete(vm);
    vf_json_delete(none);
}

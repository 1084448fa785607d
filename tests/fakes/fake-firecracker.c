/* Stands in for Firecracker in tests and misbehaves. It takes Firecracker's command line, of which it looks only at
 * `--api-sock PATH`, and speaks HTTP there, one connection after the other.
 *
 * What goes wrong is in the name it is called by (tests make symlinks): fake-firecracker-MODE or
 * fake-firecracker-MODE-at-N, where N counts the requests from 1. fake-firecracker-good does all as it should.
 *
 * at start:      exit0 exit-words segv no-socket bind-only late-listen version-MAJOR.MINOR.PATCH
 * GET /version:  version-number version-none version-text
 * all along:     bytewise noisy (stderr) contrary (refuses PATCH /vm, but does it)
 * load:          load-fails (an answer, then the end) load-fails-late (the end, then an answer) load-exits load-crashes
 * guest:         resets (ends well once it runs) talks (on its console)
 * at a request:  die hang close error plain-error text half endless-head endless-body nul bomb array
 *
 * As the real one it refuses what its version does not know, and besides what this driver should have sent to a version
 * that does.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char *mode;
static int sock, at, count;
static int version[3] = {1, 17, 0};
static const char *state = "Not started";
static int saves;

static bool is(const char *name)
{
    return strcmp(mode, name) == 0;
}

static bool knows(int major, int minor, int patch)
{
    int v[3] = {major, minor, patch};
    for (int i = 0; i < 3; i++)
        if (version[i] != v[i])
            return version[i] > v[i];
    return true;
}

static void put(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(sock, data, is("bytewise") ? 1 : len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return; /* nobody is there any more */
        data += n;
        len -= (size_t)n;
    }
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    put(text, (size_t)n);
}

static _Noreturn void hang(void)
{
    for (;;)
        pause();
}

static void crash(void)
{
    signal(SIGSEGV, SIG_DFL); /* a sanitizer has its own */
    raise(SIGSEGV);
}

static void endless(const char *piece)
{
    for (;;)
        if (write(sock, piece, strlen(piece)) < 0 && errno != EINTR)
            hang();
}

static void answer(int status, const char *body)
{
    if (!body)
        say("HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n", status);
    else
        say("HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"
            "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
            status, strlen(body), body);
}

static void refuse(const char *why)
{
    char body[256];
    snprintf(body, sizeof(body), "{\"fault_message\":\"%s\"}", why);
    answer(400, body);
}

static void answer_version(void)
{
    char body[80];
    snprintf(body, sizeof(body), "{\"firecracker_version\":\"%d.%d.%d\"}", version[0], version[1],
             version[2]);
    if (is("version-number"))
        answer(200, "{\"firecracker_version\":1.17}");
    else if (is("version-none"))
        answer(200, "{\"hello\":[\"world\"]}");
    else if (is("version-text"))
        answer(200, "SSH-2.0-OpenSSH_9.2");
    else
        answer(200, body);
}

/* What goes wrong with the request at hand, whose turn it is. */
static void misbehave(const char *path)
{
    if (is("die"))
        _exit(7);
    if (is("hang"))
        hang();
    if (is("error")) {
        char why[128];
        snprintf(why, sizeof(why), "fake refuses %s", path);
        refuse(why);
    } else if (is("plain-error"))
        say("HTTP/1.1 500 Oops\r\nContent-Length: 12\r\n\r\nfake refuses");
    else if (is("text"))
        say("SSH-2.0-OpenSSH_9.2\r\n");
    else if (is("half"))
        say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"half\":");
    else if (is("endless-head")) {
        say("HTTP/1.1 204 \r\n");
        endless("X-Header: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n");
    } else if (is("endless-body")) {
        say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        endless("40\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n");
    } else if (is("nul"))
        put("HTTP/1.1 200 \0\r\nContent-\0Length: 0\r\n\r\n", 39);
    else if (is("bomb")) {
        say("HTTP/1.1 400 \r\nContent-Length: 10000\r\n\r\n");
        for (int i = 0; i < 10000; i++)
            put("[", 1);
    } else if (is("array"))
        answer(400, "[[[],{\"fault_message\":7}],null]");
}

static void value_of(const char *body, const char *key, char *ret, size_t size)
{
    char pattern[64];
    snprintf(pattern, sizeof(pattern), "\"%s\":\"", key);
    const char *p = strstr(body, pattern);
    ret[0] = 0;
    if (p) {
        p += strlen(pattern);
        snprintf(ret, size, "%.*s", (int)strcspn(p, "\""), p);
    }
}

static void save(const char *body)
{
    char path[4096], type[16];
    value_of(body, "snapshot_path", path, sizeof(path));
    value_of(body, "snapshot_type", type, sizeof(type));
    if (strcmp(type, knows(1, 13, 0) && saves == 0 ? "Diff" : "Full") != 0) {
        refuse("not the snapshot_type for this version");
        return;
    }
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC); /* made by whoever asks */
    if (fd < 0 || write(fd, "fake", 4) != 4 || close(fd) < 0) {
        refuse("no file at snapshot_path");
        return;
    }
    fd = open("/proc/self/fd/3", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "fake", 4) != 4) {
        refuse("no memory at descriptor 3");
        return;
    }
    close(fd);
    saves++;
    answer(204, NULL);
}

static void load(const char *body)
{
    char path[4096], text[8] = "";
    if (is("load-exits")) {
        fprintf(stderr, "Error: RunWithApi(BuildMicroVmError(Restore))\n");
        _exit(1);
    }
    if (is("load-crashes"))
        crash();
    if (is("load-fails-late")) {
        if (fork())
            _exit(1);
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
    }
    if (is("load-fails") || is("load-fails-late")) {
        refuse("Load snapshot error: fake state is corrupt");
        _exit(1);
    }
    const struct {
        const char *field;
        bool known;
    } fields[] = {{"clock_realtime", knows(1, 15, 1)},
                  {"vsock_override", knows(1, 16, 0)},
                  {"network_overrides", knows(1, 12, 0)}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++)
        if (strncmp(mode, "version-", 8) == 0 &&
            !!strstr(body, fields[i].field) != fields[i].known) {
            refuse(fields[i].field);
            return;
        }
    value_of(body, "snapshot_path", path, sizeof(path));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, 4) != 4 || strcmp(text, "fake") != 0) {
        refuse("no state at snapshot_path");
        return;
    }
    close(fd);
    state = "Paused";
    answer(204, NULL);
}

static void run(void)
{
    state = "Running";
    if (is("talks")) {
        printf("the guest says hello\n");
        fflush(stdout);
    }
    answer(204, NULL);
    if (is("resets"))
        _exit(0);
}

static void obey(const char *method, const char *path, const char *body)
{
    char text[256];
    if (is("noisy"))
        for (int i = 0; i < 100; i++)
            fprintf(stderr, "warning: noise %d\n", i);
    if (strcmp(path, "/version") == 0)
        answer_version();
    else if (strcmp(method, "GET") == 0) {
        snprintf(text, sizeof(text),
                 "{\"app_name\":\"Firecracker\",\"id\":\"x\",\"state\":\"%s\",\"vmm_version\":"
                 "\"%d.%d.%d\"}",
                 state, version[0], version[1], version[2]);
        answer(200, text);
    } else if (strcmp(path, "/vm") == 0) {
        state = strstr(body, "Paused") ? "Paused" : "Running";
        if (is("contrary"))
            refuse("it is so already");
        else
            answer(204, NULL);
    } else if (strcmp(path, "/snapshot/create") == 0)
        save(body);
    else if (strcmp(path, "/snapshot/load") == 0)
        load(body);
    else if (strcmp(path, "/actions") == 0)
        run();
    else
        answer(204, NULL);
}

/* One request; false: the connection has ended before. */
static bool read_request(char *buf, size_t size, char **ret_body)
{
    size_t len = 0, want = 0;
    *ret_body = NULL;
    while (!*ret_body || len < want) {
        ssize_t n = read(sock, buf + len, size - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        len += (size_t)n;
        buf[len] = 0;
        char *end = strstr(buf, "\r\n\r\n"), *length = strcasestr(buf, "content-length:");
        if (!*ret_body && end) {
            *ret_body = end + 4;
            want = (size_t)(*ret_body - buf) +
                   (length && length < end ? (size_t)atol(length + 15) : 0);
        }
    }
    return true;
}

static void serve(int listener)
{
    static char buf[65536];
    char method[8], path[64], *body;
    for (;;) {
        sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (sock < 0)
            continue;
        if (read_request(buf, sizeof(buf), &body)) {
            if (sscanf(buf, "%7s %63s HTTP/1.1\r\n", method, path) != 2)
                _exit(8); /* the client's request is not what it should be */
            bool turn = ++count == at;
            if (turn && !is("close"))
                misbehave(path);
            else if (!turn)
                obey(method, path, body);
            if (turn && is("half"))
                shutdown(sock, SHUT_RDWR);
            /* The client closes when it has what it wants. */
            while (!(turn && is("close")) && read(sock, buf, sizeof(buf)) > 0) {
            }
        }
        close(sock);
    }
}

static int start(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (is("exit0"))
        _exit(0);
    if (is("exit-words")) {
        fprintf(stderr, "Error: FailedToBindSocket(\"\x1b[31mno\tmore\")\n");
        _exit(1);
    }
    if (is("segv"))
        crash();
    if (is("no-socket"))
        hang();
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        _exit(3);
    if (is("bind-only"))
        hang();
    if (is("late-listen"))
        nanosleep(&(struct timespec){.tv_nsec = 40 * 1000000}, NULL);
    listen(fd, 10);
    return fd;
}

int main(int argc, char **argv)
{
    static char name[128];
    const char *base = strrchr(argv[0], '/'), *path = NULL;
    base = base ? base + 1 : argv[0];
    snprintf(name, sizeof(name), "%s",
             strncmp(base, "fake-firecracker-", 17) == 0 ? base + 17 : "good");
    char *number = strstr(name, "-at-");
    if (number) {
        at = atoi(number + 4);
        *number = 0;
    }
    mode = name;
    sscanf(mode, "version-%d.%d.%d", &version[0], &version[1], &version[2]);
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--api-sock") == 0)
            path = argv[i + 1];
    if (!path) {
        fprintf(stderr, "fake-firecracker: no --api-sock PATH\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    serve(start(path));
}

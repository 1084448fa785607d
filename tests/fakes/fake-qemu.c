/* Stands in for QEMU in tests and misbehaves. It takes QEMU's command line, of which it looks only at
 * `-chardev socket,id=qmp,fd=N,…`, and speaks QMP on that listening socket.
 *
 * What goes wrong is in the name it is called by (tests make symlinks): fake-qemu-MODE or
 * fake-qemu-MODE-at-N, where N counts the commands from 1. fake-qemu-good does all as it should.
 *
 * at start:     exit0 exit-words segv no-greeting half-greeting greeting-text greeting-object
 *               greeting-twice greeting-endless greeting-nul greeting-bomb greeting-no-version
 *               version-MAJOR.MINOR close flood-early
 * all along:    bytewise chatty (events before each reply) noisy (stderr) no-quit no-stop-event
 * migration:    save-fails restore-fails restore-fails-alive
 * at a command: die hang error close wrong-id no-id text endless nul bomb array flood
 *               then-close (after it was answered)
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
#include <unistd.h>

static const char *mode;
static int sock, at, state_fd = -1;
static char running[16] = "prelaunch";

static bool is(const char *name)
{
    return strcmp(mode, name) == 0;
}

static void put(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(sock, data, is("bytewise") ? 1 : len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            _exit(0); /* nobody is there any more */
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

static _Noreturn void endless(const char *piece)
{
    for (;;)
        put(piece, strlen(piece));
}

static void repeat(const char *piece, int n)
{
    for (int i = 0; i < n; i++)
        put(piece, strlen(piece));
}

#define NUL_LINE "{\"return\":\0\0{}}\n"

static void greet(void)
{
    int major = 7, minor = 2;
    if (is("exit0"))
        _exit(0);
    if (is("exit-words")) {
        fprintf(stderr, "fake-qemu: cannot set up guest memory 'ram': \x1b[31mno\tmore\n");
        _exit(1);
    }
    if (is("segv")) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (is("no-greeting"))
        hang();
    if (is("close") && at == 0) {
        close(sock);
        hang();
    }
    if (is("half-greeting")) {
        say("{\"QMP\": {\"version\": {\"qemu\": {\"maj");
        hang();
    }
    if (is("greeting-text"))
        say("SSH-2.0-OpenSSH_9.2\r\n");
    else if (is("greeting-object"))
        say("{\"hello\": \"world\"}\n");
    else if (is("greeting-no-version"))
        say("{\"QMP\": {\"version\": {\"qemu\": {\"major\": \"seven\"}}}}\n");
    else if (is("greeting-endless"))
        endless("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    else if (is("greeting-nul"))
        put(NUL_LINE, sizeof(NUL_LINE) - 1);
    else if (is("greeting-bomb")) {
        repeat("[", 100000);
        put("\n", 1);
    } else {
        sscanf(mode, "version-%d.%d", &major, &minor);
        for (int i = 0; i < (is("greeting-twice") ? 2 : 1); i++)
            say("{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": %d, \"major\": %d}, "
                "\"package\": \"fake\"}, \"capabilities\": [\"oob\"]}}\r\n",
                minor, major);
    }
    if (is("flood-early"))
        endless("{\"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 1}}\r\n");
}

/* What goes wrong with the command at hand, whose turn it is. */
static void misbehave(const char *name, int id)
{
    if (is("die"))
        _exit(7);
    if (is("hang"))
        hang();
    if (is("close")) {
        close(sock);
        hang();
    }
    if (is("error"))
        say("{\"id\": %d, \"error\": {\"class\": \"GenericError\", \"desc\": \"fake refuses "
            "%s\"}}\n",
            id, name);
    else if (is("wrong-id"))
        say("{\"id\": %d, \"return\": {}}\n", id + 1000000);
    else if (is("no-id"))
        say("{\"return\": {}}\n");
    else if (is("text"))
        say("Segmentation fault (core dumped)\n");
    else if (is("endless"))
        endless("{\"return\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    else if (is("nul"))
        put(NUL_LINE, sizeof(NUL_LINE) - 1);
    else if (is("bomb")) {
        repeat("{\"a\":", 5000);
        put("\n", 1);
    } else if (is("array"))
        say("[{\"id\": %d, \"return\": {}}]\n", id);
    else if (is("flood"))
        endless("{\"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 1}}\r\n");
}

static void event(const char *name, const char *data)
{
    say("{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"%s\", \"data\": "
        "%s}\r\n",
        name, data);
}

static void migrate(bool incoming, int id)
{
    char buf[16];
    say("{\"id\": %d, \"return\": {}}\n", id);
    event("MIGRATION", "{\"status\": \"setup\"}");
    event("MIGRATION", "{\"status\": \"active\"}");
    if (!incoming && is("save-fails")) {
        event("MIGRATION", "{\"status\": \"failed\"}");
        return;
    }
    if (incoming && is("restore-fails-alive")) {
        event("MIGRATION", "{\"status\": \"failed\"}");
        return;
    }
    if (incoming && (is("restore-fails") || read(state_fd, buf, 4) != 4)) {
        event("MIGRATION", "{\"status\": \"failed\"}");
        fprintf(stderr, "fake-qemu: load of migration failed: Invalid argument\n");
        _exit(1);
    }
    if (!incoming && write(state_fd, "fake", 4) != 4)
        _exit(9);
    close(state_fd);
    state_fd = -1;
    strcpy(running, incoming ? "paused" : "postmigrate");
    event("MIGRATION", "{\"status\": \"completed\"}");
}

static void obey(const char *name, int id)
{
    if (is("chatty"))
        for (int i = 0; i < 50; i++)
            event("NIC_RX_FILTER_CHANGED", "{\"path\": \"x\", \"deep\": [[[[{\"a\": 1}]]]]}");
    if (is("noisy"))
        for (int i = 0; i < 100; i++)
            fprintf(stderr, "warning: noise %d\n", i);
    if (strcmp(name, "migrate") == 0 || strcmp(name, "migrate-incoming") == 0) {
        migrate(name[7] != 0, id);
        return;
    }
    if (strcmp(name, "cont") == 0) {
        strcpy(running, "running");
        event("RESUME", "{}");
    } else if (strcmp(name, "stop") == 0) {
        strcpy(running, "paused");
        event("STOP", "{}");
    }
    if (strcmp(name, "query-status") == 0)
        say("{\"id\": %d, \"return\": {\"status\": \"%s\", \"running\": false}}\n", id, running);
    else if (strcmp(name, "query-balloon") == 0)
        say("{\"id\": %d, \"return\": {\"actual\": 1048576}}\n", id);
    else if (strcmp(name, "query-migrate") == 0)
        say("{\"id\": %d, \"return\": {\"status\": \"failed\", \"error-desc\": \"fake disk is "
            "full\"}}\n",
            id);
    else
        say("{\"return\": {}, \"id\": %d}\r\n", id);
    if (strcmp(name, "quit") == 0 && !is("no-quit"))
        _exit(0);
}

/* One command a line; a descriptor may come with it. */
static void serve(void)
{
    static char line[65536];
    size_t len = 0;
    int count = 0;
    for (;;) {
        char control[CMSG_SPACE(sizeof(int))];
        struct iovec iov = {line + len, sizeof(line) - 1 - len};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            hang(); /* QEMU lives on without its monitor */
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        if (c && c->cmsg_type == SCM_RIGHTS)
            memcpy(&state_fd, CMSG_DATA(c), sizeof(int));
        len += (size_t)n;
        line[len] = 0;
        for (char *nl; (nl = strchr(line, '\n'));) {
            char name[64];
            int id;
            *nl = 0;
            if (sscanf(line, "{\"execute\":\"%63[^\"]\",\"id\":%d", name, &id) != 2)
                _exit(8); /* the client's line is not what it should be */
            if (++count == at && !is("then-close"))
                misbehave(name, id);
            else
                obey(name, id);
            if (count == at && is("then-close")) {
                close(sock);
                hang();
            }
            len -= (size_t)(nl + 1 - line);
            memmove(line, nl + 1, len + 1);
        }
    }
}

int main(int argc, char **argv)
{
    static char name[128];
    int listener = -1;
    const char *base = strrchr(argv[0], '/');
    base = base ? base + 1 : argv[0];
    snprintf(name, sizeof(name), "%s", strncmp(base, "fake-qemu-", 10) == 0 ? base + 10 : "good");
    char *number = strstr(name, "-at-");
    if (number) {
        at = atoi(number + 4);
        *number = 0;
    }
    mode = name;
    for (int i = 1; i < argc; i++)
        sscanf(argv[i], "socket,id=qmp,fd=%d,server=on,wait=off", &listener);
    if (listener < 0) {
        fprintf(stderr, "fake-qemu: no -chardev socket,id=qmp,fd=N\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (sock < 0)
        return 3;
    greet();
    serve();
}

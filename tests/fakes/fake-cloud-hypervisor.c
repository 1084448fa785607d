/* Stands in for Cloud Hypervisor in tests and misbehaves. It takes its command line, of which it looks only at
 * `--api-socket fd=N` and `--event-monitor fd=N`, and serves the API on that listening socket, one request a connection.
 *
 * What goes wrong is in the name it is called by (tests make symlinks): fake-cloud-hypervisor-MODE or
 * fake-cloud-hypervisor-MODE-at-N, where N counts the requests from 1. …-good does all as it should; what it saves as
 * config.json is what vm.create was given.
 *
 * at start:     exit0 exit-words segv deaf (nobody accepts) version-MAJOR.MINOR version-v version-number version-none
 * all along:    bytewise noisy (events that are none) no-quit forgetful (drops what a restore says of its mode)
 *               busy-state (vm.info tells a state no VM is left in)
 * saves:        save-memory (writes memory that is shared) save-nothing
 * at a request: die hang error error-text error-object close cut text endless big no-length done-already (does it, and
 *               says that it was refused)
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_REQUEST 100000

static const char *mode = "good", *state;
static int sock, at, n_requests, events = -1;
static char request[MAX_REQUEST], config[MAX_REQUEST];

static bool is(const char *name)
{
    return strcmp(mode, name) == 0;
}

static void put(const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(sock, data, is("bytewise") ? 1 : len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return; /* nobody is there any more */
        data += n;
        len -= (size_t)n;
    }
}

static void put_text(const char *text)
{
    put(text, strlen(text));
}

static void answer(int status, const char *body)
{
    char head[200];
    if (status == 204)
        snprintf(head, sizeof(head),
                 "HTTP/1.1 204 \r\nServer: fake\r\nConnection: keep-alive\r\n\r\n");
    else
        snprintf(head, sizeof(head),
                 "HTTP/1.1 %d \r\nServer: fake\r\nContent-Type: application/json\r\n"
                 "Content-Length: %zu\r\n\r\n",
                 status, strlen(body));
    put(head, strlen(head));
    if (status != 204)
        put(body, strlen(body));
}

static _Noreturn void hang(void)
{
    for (;;)
        pause();
}

static void say(const char *event)
{
    char text[200];
    int n = snprintf(text, sizeof(text),
                     "{\n  \"timestamp\": {\n    \"secs\": 0\n  },\n  \"source\": \"vm\",\n"
                     "  \"event\": \"%s\",\n  \"properties\": null\n}\n\n",
                     event);
    if (write(events, text, (size_t)n) < 0)
        return; /* as the real one does */
}

static void make_noise(void)
{
    static const char *const noise[] = {"}\n\n", "\n\n\n\n", "{\"source\": 7, \"event\": []}\n\n",
                                        "[]\n\n", "{\"source\": \"vm\"\n\n"};
    for (size_t i = 0; i < sizeof(noise) / sizeof(*noise); i++)
        if (write(events, noise[i], strlen(noise[i])) < 0)
            return;
    for (int i = 0; i < 9000; i++)
        if (write(events, "x", 1) < 0)
            return;
    if (write(events, "\n\n", 2) < 0)
        return;
}

/* ---- what it can do */

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[1000];
    snprintf(path, sizeof(path), "%.700s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fprintf(stderr, "fake: %s: %s\n", path, strerror(errno));
    close(fd);
}

/* The path of the file:// URL that is field of the request. */
static bool url_of(const char *field, char ret[800])
{
    char key[64];
    snprintf(key, sizeof(key), "\"%s\":\"file://", field);
    const char *p = strstr(request, key);
    return p && sscanf(p + strlen(key), "%799[^\"]", ret) == 1;
}

static bool save(void)
{
    char dir[800];
    if (!url_of("destination_url", dir))
        return false;
    if (is("save-nothing"))
        return true;
    write_file(dir, "config.json", config);
    write_file(dir, "state.json", "{}");
    if (is("save-memory") || strstr(config, "\"shared\":false"))
        write_file(dir, "memory-ranges", "memory");
    return true;
}

static bool restore(void)
{
    char dir[800], path[1000];
    struct stat st;
    if (!url_of("source_url", dir))
        return false;
    snprintf(path, sizeof(path), "%.700s/state.json", dir);
    if (stat(path, &st) < 0)
        return false;
    snprintf(path, sizeof(path), "%.700s/config.json", dir);
    FILE *f = fopen(path, "re");
    config[f ? fread(config, 1, sizeof(config) - 1, f) : 0] = 0;
    if (f)
        fclose(f);
    return strstr(config, "\"shared\":false") != NULL;
}

static bool go(const char *from, const char *to)
{
    if (!state || strcmp(state, from) != 0)
        return false;
    state = to;
    return true;
}

/* Does what the request asks for; false: it is to be refused. Body of the answer, or NULL for 204. */
static bool act(const char **ret_body)
{
    static char text[200];
    char name[64] = "";
    *ret_body = NULL;
    sscanf(request, "%*s /api/v1/%63[^ ]", name);
    if (strcmp(name, "vmm.ping") == 0) {
        const char *v = strncmp(mode, "version-", 8) == 0 ? mode + 8 : "54.0";
        snprintf(text, sizeof(text),
                 "{\"build_version\":\"fake\",\"version\":\"%.20s.0\",\"pid\":1}", v);
        if (is("version-number"))
            snprintf(text, sizeof(text), "{\"version\":54}");
        else if (is("version-none"))
            snprintf(text, sizeof(text), "[\"version\"]");
        else if (is("version-v"))
            snprintf(text, sizeof(text), "{\"version\":\"v53.0\"}");
        *ret_body = text;
        return true;
    }
    if (strcmp(name, "vm.create") == 0) {
        snprintf(config, sizeof(config), "%s", strstr(request, "\r\n\r\n") + 4);
        state = "Created";
        return true;
    }
    if (strcmp(name, "vm.info") == 0) {
        snprintf(text, sizeof(text), "{\"config\":{},\"state\":\"%s\",\"memory_actual_size\":%s}",
                 is("busy-state") ? "BreakPoint"
                 : state          ? state
                                  : "",
                 "33554432");
        *ret_body = text;
        return state != NULL;
    }
    if (strcmp(name, "vm.boot") == 0)
        return go("Created", "Running");
    if (strcmp(name, "vm.pause") == 0)
        return go("Running", "Paused");
    if (strcmp(name, "vm.resume") == 0)
        return go("Paused", "Running");
    if (strcmp(name, "vm.snapshot") == 0)
        return save();
    if (strcmp(name, "vm.restore") == 0) {
        state = "Paused";
        return restore();
    }
    if (strcmp(name, "vmm.shutdown") == 0 && !is("no-quit")) {
        say("shutdown");
        answer(200, "");
        _exit(0);
    }
    return true;
}

/* ---- the server */

static bool read_request(void)
{
    size_t len = 0;
    for (;;) {
        ssize_t n = recv(sock, request + len, sizeof(request) - 1 - len, 0);
        if (n <= 0)
            return false;
        len += (size_t)n;
        request[len] = 0;
        const char *end = strstr(request, "\r\n\r\n"), *l = strstr(request, "Content-Length: ");
        size_t body = l && l < end ? strtoul(l + 16, NULL, 10) : 0;
        if (end && len >= (size_t)(end + 4 - request) + body)
            return true;
    }
}

static void misbehave(void)
{
    const char *body;
    if (is("die"))
        _exit(7);
    if (is("hang"))
        hang();
    if (is("error"))
        answer(500, "[\"Error from API\",\"The fake could not\",\"fake refuses\"]");
    else if (is("error-text"))
        answer(500, "fake refuses");
    else if (is("error-object"))
        answer(400, "{\"fault_message\":\"fake refuses\"}");
    else if (is("cut"))
        put_text("HTTP/1.1 200 \r\nContent-Length: 100\r\n\r\n{");
    else if (is("text"))
        put_text("SSH-2.0-OpenSSH_9.2\r\n");
    else if (is("no-length"))
        put_text("HTTP/1.1 200 \r\nServer: fake\r\n\r\n{}");
    else if (is("big"))
        put_text("HTTP/1.1 200 \r\nContent-Length: 99999999\r\n\r\n{");
    else if (is("endless")) {
        put_text("HTTP/1.1 200 \r\n");
        for (int i = 0; i < 10000; i++)
            put_text("X-Endless: xxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n");
    } else if (is("done-already")) {
        act(&body);
        answer(500, "[\"Error from API\",\"InvalidStateTransition\"]");
    }
    /* close: nothing */
}

static void serve(int listener)
{
    const char *body;
    sock = accept(listener, NULL, NULL);
    if (sock < 0 && (errno == EAGAIN || errno == EINTR)) {
        usleep(200); /* the listener does not block, and this is no place for an event loop */
        return;
    }
    if (sock < 0)
        _exit(9);
    if (read_request()) {
        n_requests++;
        if (is("noisy"))
            make_noise();
        if (at && n_requests == at)
            misbehave();
        else if (act(&body))
            answer(body ? 200 : 204, body);
        else
            answer(500, "[\"Error from API\",\"the fake has no VM for that\"]");
    }
    close(sock);
}

int main(int argc, char **argv)
{
    char self[1000];
    int listener = -1;
    snprintf(self, sizeof(self), "%s", argv[0]);
    const char *m = strstr(self, "fake-cloud-hypervisor-");
    if (m)
        mode = m + strlen("fake-cloud-hypervisor-");
    char *n = strstr(self, "-at-");
    if (n) {
        *n = 0;
        at = atoi(n + 4);
    }
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], "--api-socket") == 0)
            sscanf(argv[i + 1], "fd=%d", &listener);
        if (strcmp(argv[i], "--event-monitor") == 0)
            sscanf(argv[i + 1], "fd=%d", &events);
    }
    signal(SIGPIPE, SIG_IGN);
    if (is("exit0"))
        return 0;
    if (is("exit-words")) {
        fprintf(stderr, "fake: cannot create hypervisor: \x1b[31mno\t/dev/kvm\n");
        return 1;
    }
    if (is("segv")) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (is("deaf"))
        hang();
    fcntl(listener, F_SETFL, fcntl(listener, F_GETFL) & ~O_NONBLOCK);
    for (;;)
        serve(listener);
}

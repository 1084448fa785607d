/* The API's HTTP server against a client that sends anything: the input is what comes over one connection, in pieces
 * whose length the first byte says. Each handler's request is answered, and each answer is HTTP. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/fd.h"
#include "fuzz.h"
#include "pool/http.h"

#define MAX_TURNS 64

struct body {
    char *word;
    int64_t n;
};
static const struct vf_json_field fields[] = {
    {.name = "word", .type = VF_JSON_STRING, .offset = offsetof(struct body, word)},
    {.name = "n", .type = VF_JSON_INT, .offset = offsetof(struct body, n), .max = 100},
    {.name = NULL},
};

static uv_loop_t loop;
static struct vf_http *server;
static int channel_dir = -1;

static void post(struct vf_http_req *req, void *arg)
{
    struct body b = {0};
    struct vf_json_writer w = {0};

    (void)arg;
    if (vf_http_decode(req, fields, &b)) {
        vf_jw_begin(&w, NULL, '{');
        vf_jw_string(&w, "word", b.word);
        vf_jw_string(&w, "query", vf_http_query(req, "q"));
        vf_jw_end(&w, '}');
        vf_http_reply_json(req, 201, vf_jw_finish(&w));
    }
    vf_json_free(fields, &b);
}

static void show(struct vf_http_req *req, void *arg)
{
    struct vf_error err;

    (void)arg;
    FUZZ_CHECK(vf_http_param(req, 0) != NULL);
    vf_fail(&err, VF_NOT_FOUND, "nothing is called %s", vf_http_param(req, 0));
    vf_http_reply_error(req, &err, 0);
}

static void drop(struct vf_http_req *req, void *arg)
{
    (void)arg;
    vf_http_reply_empty(req, 204);
}

static const struct vf_http_route routes[] = {
    {"POST", "/v1/things", false, post},
    {"GET", "/v1/things/{name}", false, show},
    {"DELETE", "/v1/things/{name}/parts/{part}", false, drop},
    {.method = NULL},
};

static void close_dir(void)
{
    char path[64], target[64];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", channel_dir);
    n = readlink(path, target, sizeof(target) - 1);
    unlinkat(channel_dir, "api", 0);
    if (n > 0) {
        target[n] = '\0';
        rmdir(target);
    }
}

static void open_once(void)
{
    struct vf_http_options o = {.routes = routes,
                                .max_connections = 8,
                                .request_timeout_ms = 30000,
                                .max_body_bytes = 1024,
                                .admin_gid = (gid_t)-1};
    char path[] = "/tmp/vf-fuzz-XXXXXX";
    int fd = -1;

    if (server != NULL)
        return;
    FUZZ_CHECK(uv_loop_init(&loop) == 0);
    FUZZ_CHECK(mkdtemp(path) != NULL);
    FUZZ_CHECK(vf_open_dir(path, 0, 0, &channel_dir, NULL) == 0);
    FUZZ_CHECK(vf_unix_listen(channel_dir, "api", 8, &fd, NULL) == 0);
    FUZZ_CHECK(vf_http_open(&loop, fd, &o, &server, NULL) == 0);
    atexit(close_dir);
}

/* The first answer begins as one must. */
static void take_answers(int fd, bool *ret_seen, bool *ret_closed)
{
    char buf[8192];
    ssize_t n;

    while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
        FUZZ_CHECK(*ret_seen || (n >= 9 && memcmp(buf, "HTTP/1.", 7) == 0));
        *ret_seen = true;
    }
    *ret_closed = n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    size_t step = (size_t)fuzz_byte(&in) * 8 + 1;
    bool seen = false, closed = false;
    int fd = -1;

    open_once();
    FUZZ_CHECK(vf_unix_connect(channel_dir, "api", &fd, NULL) == 0);
    while (in.left > 0 && !closed) {
        size_t len = step;
        const uint8_t *p = fuzz_piece(&in, &len);

        if (send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            break;
        uv_run(&loop, UV_RUN_NOWAIT);
        take_answers(fd, &seen, &closed);
    }
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < MAX_TURNS && !closed; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        take_answers(fd, &seen, &closed);
    }
    close(fd);
    for (int i = 0; i < 4; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    return 0;
}

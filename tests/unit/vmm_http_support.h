/* A VMM's API socket with a scripted server behind it, in a thread of its own, and a client on a loop of the test's. */
#ifndef VF_TESTS_VMM_HTTP_SUPPORT_H
#define VF_TESTS_VMM_HTTP_SUPPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include "tests/unit/scratch.h"
#include "vmm/http.h"

#define HTTP_MAX_REQUEST 400000
#define HTTP_MAX_CONNECTIONS 8

struct served; /* what the server's thread works with */
typedef void (*serve_fn)(struct served *s, int fd);

struct served {
    struct scratch dir;
    int listener;
    pthread_t thread;
    bool running;
    serve_fn serve; /* called for each connection, closes nothing */
    const char *answer;
    size_t answer_len;
    int stop[2]; /* closing [1] ends what a script waits for */
    char request[HTTP_MAX_REQUEST];
    size_t request_len;
    int fds[32];
    int n_fds;
    atomic_int n_connections;

    uv_loop_t loop;
    struct vf_vmm_http *http;
};

/* Listens, and serves each connection, one after the other, by serve. NULL: listens only. */
void served_start(struct served *s, serve_fn serve);
/* Closes the client and ends the server; everything must be gone. */
void served_stop(struct served *s);

/* For scripts: reads one whole request into s->request (with its descriptors); false at an end of file. */
bool served_read(struct served *s, int fd);
void served_write(int fd, const char *text, size_t len);
/* Reads a request, writes s->answer, done. */
void serve_answer(struct served *s, int fd);
/* Reads a request, writes s->answer, then holds the connection open until the test ends. */
void serve_and_hold(struct served *s, int fd);

struct outcome {
    int calls;
    int status;
    char body[4096]; /* its beginning */
    size_t len;
    bool is_json;
    char field[64]; /* "version" of the JSON */
    struct vf_error err;
};
void on_outcome(void *arg, const struct vf_vmm_http_reply *reply, const struct vf_error *err);
/* Sends and runs the loop until the callback has come. */
void served_ask(struct served *s, const struct vf_vmm_http_request *r, struct outcome *o);
/* Runs the loop until o->calls is n; fails the test after some seconds. */
void served_wait(struct served *s, const struct outcome *o, int n);
/* Closes the client if it is open, and waits for that. */
void served_close(struct served *s);

#endif

/* An HTTP server on a loop in a thread of its own, and blocking clients for the test's thread. */
#ifndef VF_TESTS_HTTP_SUPPORT_H
#define VF_TESTS_HTTP_SUPPORT_H

#include <semaphore.h>
#include <stdatomic.h>
#include "pool/http.h"
#include "tests/unit/scratch.h"

struct http_fixture {
    struct scratch dir;
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t async;
    sem_t async_done;
    void (*call)(void *arg);
    void *call_arg;
    struct vf_http *http;
    struct vf_http_options options;
    atomic_bool closed;
};

/* Starts a server with these options (routes and limits). */
void http_start(struct http_fixture *f, const struct vf_http_options *o);
/* Calls fn on the loop and waits until it has returned. */
void http_call(struct http_fixture *f, void (*fn)(void *arg), void *arg);
/* vf_http_close, until done was called. */
void http_close(struct http_fixture *f);
/* Closes if that was not done; everything must be gone. */
void http_stop(struct http_fixture *f);

/* A connection to the server, blocking, with a receive timeout. */
int http_connect(struct http_fixture *f);
void http_send(int fd, const char *text);

struct http_answer {
    int status;
    char head[2000];
    char body[70000];
    size_t body_len;
};
/* Reads one whole answer; head_only: to a HEAD request. False at an end of file or error before it is whole. */
bool http_read(int fd, struct http_answer *a, bool head_only);
/* Sends a request made of a method, a path, more headers ("A: b\r\n") and a body, and reads its answer. */
void http_ask(int fd, struct http_answer *a, const char *method, const char *path,
              const char *headers, const char *body);
/* Whether there is something to read; waits until there is. */
bool http_readable(int fd);
void http_wait_readable(int fd);
/* Waits for the server to close fd. */
void http_expect_closed(int fd);
/* Waits for a semaphore, with a deadline. */
void http_wait(sem_t *s);

#endif

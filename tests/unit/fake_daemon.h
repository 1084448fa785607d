/* A daemon of a few lines for tests of the client: a thread with a listening socket that runs a script in C, and the
 * library's handle on it. */
#ifndef VF_TESTS_FAKE_DAEMON_H
#define VF_TESTS_FAKE_DAEMON_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include "tests/unit/scratch.h"
#include "tools/client/vmfactory-client.h"

struct fake {
    struct scratch dir;
    struct vmfactory *h;
    int listen_fd;
    pthread_t thread;
    void (*script)(struct fake *f);
    char request[8192]; /* the last one read, head and body */
    int requests;
};

void fake_start(struct fake *f, void (*script)(struct fake *f));
/* Closes the handle and waits for the script's end. */
void fake_stop(struct fake *f);

/* --- for scripts, which fail the test by abort(): they run in a thread of their own */
int fake_accept(struct fake *f);
/* Into f->request; false: the peer has closed. */
bool fake_read_request(struct fake *f, int fd);
/* The last one read begins with this line ("GET /v1/vms"), and its body is this. */
void fake_expect_line(const struct fake *f, const char *line);
void fake_expect_body(const struct fake *f, const char *body);
void fake_send(int fd, const void *data, size_t len);
void fake_text(int fd, const char *text);
/* A whole answer with a length. */
void fake_answer(int fd, const char *status, const char *json);
/* Reads a request, whichever, and answers it. */
void fake_serve(struct fake *f, int fd, const char *status, const char *json);
/* Waits for the peer to close. */
void fake_await_close(int fd);
void fake_expect(bool ok, const char *what);

#endif

/* What tests of the HTTP server share where more happens than a request and its answer: a server whose handlers answer
 * later, are told whether an answer was read, answer in pieces, or take the connection; and what they have counted.
 *
 *     GET  /hello                  at once
 *     POST /hello                  the same
 *     GET  /later                  when life_answer says so
 *     GET  /at-once                deferred, and answered in the handler
 *     GET  /watched[?size=N]       watched until it is lost or kept; N bytes
 *     GET  /watched-later          both
 *     GET  /stream                 what life_allow allows
 *     POST /upgrade                an echo on the connection, if that is asked for
 */
#ifndef VF_TESTS_HTTP_LIFE_SUPPORT_H
#define VF_TESTS_HTTP_LIFE_SUPPORT_H

#include "tests/unit/http_support.h"

#define LIFE_MAX_LATER 64

struct life {
    struct http_fixture server;
    struct vf_http_req *later[LIFE_MAX_LATER];
    /* How many were, or did; closed: a stream or an upgraded connection. */
    atomic_int n_later, gone, lost, kept, closed, failed, upgraded;
    /* Posted with each: a deferred answer or a stream that begins, gone, lost or kept, closed, upgraded. */
    sem_t deferred, gone_sem, decided, closed_sem, upgraded_sem;
    /* Of the stream: how much it may give; everything, ever, if < 0. */
    atomic_llong allowed, given;
    struct vf_http_req *stream;
    bool ended;
};
/* The test's only one. */
extern struct life life;

void life_start(int max_connections, int64_t timeout_ms);
void life_stop(void);
int life_connect(void);

/* Answers the nth that was deferred, with {"n":n}. On the loop, life_answer_nth does: arg is an int *. */
void life_answer(int n);
void life_answer_nth(void *arg);
/* The stream may give n bytes more; n < 0: the end. */
void life_allow(long long n);

/* Asks for /later, until the handler has deferred it. */
void life_ask_later(int fd);
/* A connection on which "/watched" and rest ("?size=9 HTTP/1.1") was asked for. */
int life_ask_watched(const char *rest);
/* Everything that the server had to do up to now is done after this. */
void life_settle(void);

#endif

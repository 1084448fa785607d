/* Descriptors closed by a thread that nobody waits for. See fd.h. */
#include <pthread.h>
#include <stdatomic.h>
#include <signal.h>
#include <string.h>
#include "base/fd.h"

#define MOST 16
#define STACK (256 << 10)

struct batch {
    int fds[MOST], n;
};

static atomic_int closing;

static void *close_all(void *arg)
{
    struct batch *b = arg;
    for (int i = 0; i < b->n; i++)
        vf_close_fd(&b->fds[i]);
    free(b);
    atomic_fetch_sub(&closing, 1);
    return NULL;
}

/* Signals are the business of other threads. */
static int start(struct batch *b)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, before;
    int r = pthread_attr_init(&attr);
    if (r != 0)
        return r;
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attr, close_all, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return r;
}

void vf_close_beside(int *fds, int n)
{
    struct batch b = {.n = 0}, *own;
    for (int i = 0; i < n; i++)
        if (fds[i] >= 0) {
            if (b.n == MOST) /* not foreseen */
                vf_close_fd(&fds[i]);
            else
                b.fds[b.n++] = vf_steal_fd(&fds[i]);
        }
    if (b.n == 0)
        return;
    own = malloc(sizeof(*own));
    atomic_fetch_add(&closing, 1);
    if (own) {
        *own = b;
        if (start(own) == 0)
            return;
        free(own);
    }
    atomic_fetch_sub(&closing, 1);
    for (int i = 0; i < b.n; i++)
        vf_close_fd(&b.fds[i]);
}

int vf_closing_beside(void)
{
    return atomic_load(&closing);
}

/* A scripted web server on loopback, in threads of its own, for the tests of assets: unit tests speak plain HTTP with
 * it, end-to-end tests TLS. Each connection carries one request. */
#ifndef VF_TESTS_ASSET_SERVER_H
#define VF_TESTS_ASSET_SERVER_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ASV_ROUTES = 16, ASV_CONNS = 64 };

/* What is answered to GET path. Set before asv_add, or under asv_lock. */
struct asv_route {
    char path[64];
    const void *body;
    size_t len;
    int status;                /* 0: 200, or 206 to a Range */
    char location[300];        /* "": none */
    int fail_first;            /* so many requests get fail_status first */
    int fail_status;           /* 0: the connection is closed without an answer */
    const char *authorization; /* any other gets 401; NULL: none is asked for */
    bool no_length;            /* its end is the connection's */
    long longer;               /* added to the Content-Length that is claimed */
    bool no_ranges;            /* a Range is answered with all of it */
    bool other_range;          /* answers from another byte than was asked for */
    bool endless;              /* the body is repeated as long as someone takes it */
    bool hold;                 /* nothing is answered before asv_release */
    bool stall;                /* after cut bytes nothing comes any more */
    size_t
        cut; /* only so many bytes of the body come, then the end; 0: all. For cut_first requests */
    int cut_first; /* 0: each time */
    /* what came */
    int hits; /* requests */
    char got_authorization[200], got_range[64], got_agent[64];
};

struct asv {
    int fd, port;
    int stop_fd, release_fd; /* eventfds */
    SSL_CTX *tls;            /* NULL: plain */
    pthread_mutex_t lock;
    pthread_t thread;
    struct {
        pthread_t thread;
        int fd;
        bool used, ended;
    } conns[ASV_CONNS];
    struct asv_route routes[ASV_ROUTES];
    int n_routes, n_conns;  /* connections so far */
    int tunnel_port;        /* as a proxy: where CONNECT leads, whatever it names; 0: nowhere */
    int connects;           /* so many were asked for */
    char got_connect[4096]; /* the last such request */
    int now, peak;          /* requests being answered now; the most at once */
};

/* Listens on ip (NULL: 127.0.0.1), any port. The server owns tls. */
void asv_open(struct asv *s, const char *ip, SSL_CTX *tls);
void asv_close(struct asv *s);
struct asv_route *asv_add(struct asv *s, const struct asv_route *r);
/* "http://host:port/path", or https; in ret. */
void asv_url(const struct asv *s, const char *host, const char *path, char ret[200]);
/* Those that are held are answered from now on. */
void asv_release(struct asv *s);
int asv_hits(struct asv *s, const struct asv_route *r);
/* Of all routes together: being answered now, and the most at once. */
int asv_now(struct asv *s);
int asv_peak(struct asv *s);

#endif

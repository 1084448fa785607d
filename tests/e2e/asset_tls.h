/* A web server with TLS for the tests of assets, and the certificates for it: of an authority of our own, made here. */
#ifndef VF_TESTS_E2E_ASSET_TLS_H
#define VF_TESTS_E2E_ASSET_TLS_H

#include "tests/unit/asset_server.h"
#include "tests/unit/asset_support.h"

struct asx {
    struct ast t;
    struct asv web;              /* https://localhost:…, https://127.0.0.1:… */
    char ca[300], other_ca[300]; /* files with the authority of web's certificate, and another */
    char trust[400];             /* "ca_file":"…" of the first */
};
void asx_open(struct asx *x);
void asx_close(struct asx *x);
/* Only the server and the certificates, around an x->t that is open. */
void asx_start(struct asx *x);
void asx_stop(struct asx *x);

enum asx_certificate { ASX_GOOD, ASX_EXPIRED, ASX_NOT_YET };
/* A server's side, with a certificate for localhost and 127.0.0.1 by that authority. */
SSL_CTX *asx_tls(struct asx *x, enum asx_certificate kind);

/* A route of x->web at path that serves x->t.body; the rest as in more (may be NULL). Its URL. */
struct asv_route *asx_serve(struct asx *x, const char *path, const struct asv_route *more,
                            char url[200]);
/* A fetch of x->t.body from there, with its size, trusting our authority. */
enum vf_code asx_fetch(struct asx *x, const char *url, struct vf_error *ret_err);
/* more: further members of the asset, as JSON. */
enum vf_code asx_fetch_with(struct asx *x, const char *url, int64_t size, const char *more,
                            struct vf_error *ret_err);

#endif

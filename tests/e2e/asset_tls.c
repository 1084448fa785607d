/* Certificates, and a web server with them. See asset_tls.h. */
#include "tests/e2e/asset_tls.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

struct authority {
    EVP_PKEY *key;
    X509 *cert;
};
static struct authority ours;

static void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    cr_assert_not_null(e, "%s", value);
    cr_assert_eq(X509_add_ext(cert, e, -1), 1);
    X509_EXTENSION_free(e);
}

/* Signed by a; a->cert NULL: it is the authority's own. Valid from and to, seconds from now. */
static X509 *certify(const struct authority *a, EVP_PKEY *key, const char *name, long from, long to)
{
    X509 *cert = X509_new();
    X509 *issuer = a->cert ? a->cert : cert;
    cr_assert_not_null(cert);
    X509_set_version(cert, X509_VERSION_3);
    static long serial;
    ASN1_INTEGER_set(X509_get_serialNumber(cert), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), from);
    X509_gmtime_adj(X509_getm_notAfter(cert), to);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer));
    if (a->cert) {
        extend(cert, issuer, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    } else {
        extend(cert, issuer, NID_basic_constraints, "critical,CA:TRUE");
        extend(cert, issuer, NID_key_usage, "critical,keyCertSign");
    }
    cr_assert_gt(X509_sign(cert, a->key, EVP_sha256()), 0);
    return cert;
}

static void make_authority(struct authority *a, const char *name, const char *path)
{
    *a = (struct authority){.key = EVP_EC_gen("P-256")};
    a->cert = certify(a, a->key, name, -86400, 86400);
    FILE *f = fopen(path, "we");
    cr_assert_not_null(f);
    cr_assert_eq(PEM_write_X509(f, a->cert), 1);
    cr_assert_eq(fclose(f), 0);
}

static void free_authority(struct authority *a)
{
    X509_free(a->cert);
    EVP_PKEY_free(a->key);
}

SSL_CTX *asx_tls(struct asx *x, enum asx_certificate kind)
{
    static const long valid[][2] = {
        [ASX_GOOD] = {-3600, 3600}, [ASX_EXPIRED] = {-7200, -3600}, [ASX_NOT_YET] = {3600, 7200}};
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    (void)x;
    cr_assert(tls && key);
    X509 *cert = certify(&ours, key, "a server", valid[kind][0], valid[kind][1]);
    cr_assert_eq(SSL_CTX_use_certificate(tls, cert), 1);
    cr_assert_eq(SSL_CTX_use_PrivateKey(tls, key), 1);
    X509_free(cert);
    EVP_PKEY_free(key);
    return tls;
}

void asx_start(struct asx *x)
{
    struct authority other;
    snprintf(x->ca, sizeof(x->ca), "%s/ca.pem", x->t.scratch.path);
    snprintf(x->other_ca, sizeof(x->other_ca), "%s/other.pem", x->t.scratch.path);
    snprintf(x->trust, sizeof(x->trust), "\"ca_file\":\"%s\"", x->ca);
    make_authority(&ours, "Ours", x->ca);
    make_authority(&other, "Another", x->other_ca);
    free_authority(&other);
    asv_open(&x->web, NULL, asx_tls(x, ASX_GOOD));
}

void asx_stop(struct asx *x)
{
    asv_close(&x->web);
    free_authority(&ours);
}

void asx_open(struct asx *x)
{
    ast_open(&x->t);
    asx_start(x);
}

void asx_close(struct asx *x)
{
    asx_stop(x);
    ast_close(&x->t);
}

struct asv_route *asx_serve(struct asx *x, const char *path, const struct asv_route *more,
                            char url[200])
{
    struct asv_route r = more ? *more : (struct asv_route){0};
    snprintf(r.path, sizeof(r.path), "%s", path);
    r.body = x->t.body;
    r.len = x->t.len;
    asv_url(&x->web, "localhost", path, url);
    return asv_add(&x->web, &r);
}

enum vf_code asx_fetch(struct asx *x, const char *url, struct vf_error *ret_err)
{
    return asx_fetch_with(x, url, (int64_t)x->t.len, "", ret_err);
}

enum vf_code asx_fetch_with(struct asx *x, const char *url, int64_t size, const char *more,
                            struct vf_error *ret_err)
{
    char all[1200];
    snprintf(all, sizeof(all), "%s%s%s", strstr(more, "ca_file") ? "" : x->trust,
             more[0] && !strstr(more, "ca_file") ? "," : "", more);
    return ast_fetch_url(&x->t, url, size, all, ret_err);
}

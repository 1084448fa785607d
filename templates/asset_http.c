/* Gets an asset, or the rest of it, from a server by libcurl: one attempt. See asset_internal.h.
 *
 *     credentials from their file -> request (Range, if there is a part) -> redirects, by hand, at most
 *         VF_ASSET_REDIRECTS_MAX -> the first body byte: is it what was asked for, how long will it be? -> write
 *
 * Redirects are followed by hand so that each target keeps to the same rules as an asset's own URL, and credentials go
 * to the first server alone: once another host, port or scheme was asked, they are not sent any more. They are in no
 * message; nor is a URL's query, which may hold a signature.
 */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/version.h"
#include "templates/asset_internal.h"

#define SECRET_MAX 8192
#define SKIPPED_MAX (64 * 1024) /* of a redirect's body */
#define POLL_MS 1000

struct get {
    struct vf_download *d;
    CURL *easy;
    char *secret;        /* a token, or a user; NULL: none, or no more */
    char *password;      /* of that user, in the same memory; NULL: it is a token */
    int64_t range_start; /* of Content-Range; -1: there is none */
    bool begun;          /* the body is the file's */
    size_t skipped;
    bool failed; /* err says how: in a callback */
    struct vf_error err;
    char words[CURL_ERROR_SIZE];
};

static void init_once(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

void vf_asset_http_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, init_once);
}

/* --- credentials */

static void forget(struct get *g)
{
    if (g->secret != NULL)
        explicit_bzero(g->secret, SECRET_MAX);
    free(g->secret);
    g->secret = g->password = NULL;
}

static int check_line(const char *text, size_t len, const char *field, const char *path,
                      struct vf_error *err)
{
    if (len == 0 || len == SECRET_MAX || len != strlen(text))
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: %s: must be one line of at most %d bytes",
                       field, path, SECRET_MAX - 1);
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "%s: %s: must be one line without control characters", field, path);
    }
    return 0;
}

static int read_secret(struct get *g, const char *path, const char *field, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    ssize_t n;
    int r = vf_open_regular(path, field, &fd, err);

    if (r < 0)
        return r;
    g->secret = (char *)calloc(1, SECRET_MAX + 1);
    if (g->secret == NULL)
        return vf_fail(err, VF_NO_MEMORY, "%s: no memory", field);
    do
        n = read(fd, g->secret, SECRET_MAX);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return vf_fail_errno(err, errno, "%s: %s: read", field, path);
    while (n > 0 && (g->secret[n - 1] == '\n' || g->secret[n - 1] == '\r'))
        g->secret[--n] = '\0';
    return check_line(g->secret, (size_t)n, field, path, err);
}

static int split_password(struct get *g, const char *path, struct vf_error *err)
{
    char *colon = g->secret != NULL ? strchr(g->secret, ':') : NULL;

    if (colon == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "basic_file: %s: must be user:password", path);
    *colon = '\0';
    g->password = colon + 1;
    return 0;
}

/* Anew each time: they may have been replaced. */
static int get_secret(struct get *g, struct vf_error *err)
{
    const struct vf_asset *a = &g->d->asset;
    int r = 0;

    if (a->bearer_file != NULL)
        return read_secret(g, a->bearer_file, "bearer_file", err);
    if (a->basic_file != NULL)
        r = read_secret(g, a->basic_file, "basic_file", err);
    if (a->basic_file != NULL && r == 0)
        r = split_password(g, a->basic_file, err);
    return r;
}

/* --- what the server sends */

static size_t on_header(char *line, size_t one, size_t n, void *arg)
{
    static const char name[] = "content-range:";
    struct get *g = (struct get *)arg;
    char text[64];

    (void)one;
    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        g->range_start = -1;
    } else if (n > sizeof(name) && strncasecmp(line, name, sizeof(name) - 1) == 0) {
        size_t len =
            n - (sizeof(name) - 1) < sizeof(text) ? n - (sizeof(name) - 1) : sizeof(text) - 1;

        memcpy(text, line + sizeof(name) - 1, len);
        text[len] = '\0';
        if (sscanf(text, " bytes %" SCNd64 "-", &g->range_start) != 1)
            g->range_start = -1;
    }
    return n;
}

static long status_of(const struct get *g)
{
    long status = 0;

    curl_easy_getinfo(g->easy, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static bool is_file(long status)
{
    return status == 200 || status == 206;
}

/* The headers say that the file comes: from where on, and how much? */
static int begin(struct get *g, struct vf_error *err)
{
    struct vf_download *d = g->d;
    curl_off_t length = -1;
    int r = 0;

    g->begun = true;
    if (status_of(g) == 206) {
        if (d->at == 0 || g->range_start != d->at)
            return vf_fail(err, VF_PROTOCOL, "answered with another range than was asked for");
        d->pieced = true;
    } else if (d->at > 0) {
        r = vf_download_restart(d, err); /* ranges are beyond it */
    }
    curl_easy_getinfo(g->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (r == 0 && length >= 0)
        r = length > VF_ASSET_SIZE_MAX ? vf_download_expect(d, INT64_MAX, err)
                                       : vf_download_expect(d, d->at + length, err);
    return r;
}

static size_t on_body(char *data, size_t one, size_t n, void *arg)
{
    struct get *g = (struct get *)arg;
    int r = 0;

    (void)one;
    if (!is_file(status_of(g))) {
        g->skipped += n;
        return g->skipped <= SKIPPED_MAX ? n : 0;
    }
    if (!g->begun)
        r = begin(g, &g->err);
    if (r == 0)
        r = vf_download_write(g->d, data, n, &g->err);
    g->failed = r < 0;
    return r == 0 ? n : 0;
}

/* --- one request */

#define SET(option, value)                                            \
    do {                                                              \
        if (curl_easy_setopt(g->easy, (option), (value)) != CURLE_OK) \
            return vf_fail(err, VF_INTERNAL, "libcurl: " #option);    \
    } while (0)

static int set_credentials(struct get *g, struct vf_error *err)
{
    if (g->password != NULL) {
        SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        SET(CURLOPT_USERNAME, g->secret);
        SET(CURLOPT_PASSWORD, g->password);
    } else if (g->secret != NULL) {
        SET(CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
        SET(CURLOPT_XOAUTH2_BEARER, g->secret);
    }
    return 0;
}

static int set_limits(struct get *g, struct vf_error *err)
{
    const struct vf_fetch_limits *l = &g->d->store->limits;

    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)l->connect_timeout_ms);
    SET(CURLOPT_LOW_SPEED_LIMIT, (long)l->stall_bytes_per_s);
    SET(CURLOPT_LOW_SPEED_TIME, (long)l->stall_timeout_s);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L); /* a cancelled one does not wait for a name server */
    return 0;
}

static int set_server(struct get *g, const char *url, struct vf_error *err)
{
    const struct vf_asset *a = &g->d->asset;

    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_USERAGENT, "vmfactory/" VF_VERSION);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    if (a->ca_file != NULL) {
        SET(CURLOPT_CAINFO, a->ca_file);
        SET(CURLOPT_CAPATH, NULL);
    }
    if (strncasecmp(url, "http:", 5) == 0)
        SET(CURLOPT_PROXY, ""); /* it is this host */
    else if (a->proxy != NULL)
        SET(CURLOPT_PROXY, a->proxy);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    return 0;
}

static int set_up(struct get *g, const char *url, struct vf_error *err)
{
    char range[32];
    int r;

    curl_easy_reset(g->easy);
    g->begun = g->failed = false;
    g->skipped = 0;
    g->range_start = -1;
    g->words[0] = '\0';
    SET(CURLOPT_ERRORBUFFER, g->words);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, g);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, g);
    if (g->d->at > 0) {
        snprintf(range, sizeof(range), "%" PRId64 "-", g->d->at);
        SET(CURLOPT_RANGE, range);
    }
    r = set_server(g, url, err);
    if (r == 0)
        r = set_limits(g, err);
    return r == 0 ? set_credentials(g, err) : r;
}

/* A multi handle for one transfer, because it can be woken when the download is abandoned. */
static CURLcode perform(struct get *g)
{
    CURLM *multi = curl_multi_init();
    CURLcode result = CURLE_ABORTED_BY_CALLBACK;
    const CURLMsg *m;
    int running = 1, left;

    if (multi == NULL || curl_multi_add_handle(multi, g->easy) != CURLM_OK) {
        curl_multi_cleanup(multi);
        return CURLE_OUT_OF_MEMORY;
    }
    vf_download_wakes(g->d, multi);
    while (!vf_download_abandoned(g->d)) {
        if (curl_multi_perform(multi, &running) != CURLM_OK || running == 0)
            break;
        curl_multi_poll(multi, NULL, 0, POLL_MS, NULL);
    }
    vf_download_wakes(g->d, NULL);
    m = curl_multi_info_read(multi, &left);
    if (m != NULL && m->msg == CURLMSG_DONE)
        result = m->data.result;
    curl_multi_remove_handle(multi, g->easy);
    curl_multi_cleanup(multi);
    return result;
}

/* --- what came of it */

static int transfer_failed(const struct get *g, CURLcode c, bool *ret_again, struct vf_error *err)
{
    const char *words = g->words[0] != '\0' ? g->words : curl_easy_strerror(c);

    switch (c) {
    case CURLE_OPERATION_TIMEDOUT:
        *ret_again = true;
        return vf_fail(err, VF_TIMEOUT, "%s", words);
    case CURLE_PEER_FAILED_VERIFICATION:
        vf_fail(err, VF_PROTOCOL, "the server's certificate is not trusted: %s", words);
        return vf_hint(err, "name the certificates to trust in ca_file, and see that this host's "
                            "clock is right");
    case CURLE_SSL_CACERT_BADFILE:
        return vf_fail(err, VF_INVALID_ARGUMENT, "ca_file: %s", words);
    case CURLE_OUT_OF_MEMORY:
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    case CURLE_WRITE_ERROR:
        return vf_fail(err, VF_PROTOCOL, "HTTP status %ld, with more than %d bytes beside it",
                       status_of(g), SKIPPED_MAX);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        *ret_again = true;
        vf_fail(err, VF_PROTOCOL, "%s", words);
        return vf_hint(err, "check the host's name, this host's name servers, and https_proxy");
    default:
        *ret_again = c != CURLE_UNSUPPORTED_PROTOCOL && c != CURLE_URL_MALFORMAT;
        return vf_fail(err, VF_PROTOCOL, "%s", words);
    }
}

static int refused(const struct get *g, long status, bool *ret_again, struct vf_error *err)
{
    switch (status) {
    case 401:
    case 403:
    case 407:
        vf_fail(err, VF_PERMISSION, "the server refuses it: HTTP status %ld", status);
        return vf_hint(err, "%s",
                       g->d->asset.bearer_file != NULL || g->d->asset.basic_file != NULL
                           ? "are the credentials in its file still right?"
                           : "name a file with credentials in bearer_file or basic_file");
    case 404:
    case 410:
        return vf_fail(err, VF_NOT_FOUND, "the server does not have it: HTTP status %ld", status);
    case 408:
    case 429:
        *ret_again = true;
        break;
    default:
        *ret_again = status >= 500;
        break;
    }
    return vf_fail(err, VF_PROTOCOL, "HTTP status %ld", status);
}

/* 1 with the URL to ask next; 0 if the file has come. */
static int judge(struct get *g, CURLcode c, char **ret_next, bool *ret_again, struct vf_error *err)
{
    long status = status_of(g);
    int r;

    if (g->failed)
        return vf_error_copy(err, &g->err);
    if (vf_download_abandoned(g->d))
        return vf_fail(err, VF_CANCELLED, "nobody waits for it any more");
    if (status == 416 && g->d->at > 0) { /* it has not even as much as we have of it */
        *ret_again = true;
        r = vf_download_restart(g->d, err);
        return r < 0 ? r : vf_fail(err, VF_PROTOCOL, "HTTP status 416");
    }
    if (status >= 400)
        return refused(g, status, ret_again, err);
    if (c != CURLE_OK)
        return transfer_failed(g, c, ret_again, err);
    if (is_file(status))
        return g->begun ? 0 : begin(g, err);
    curl_easy_getinfo(g->easy, CURLINFO_REDIRECT_URL, ret_next);
    if (*ret_next != NULL)
        return 1;
    return vf_fail(err, VF_PROTOCOL, "HTTP status %ld, which makes no sense here", status);
}

/* Makes *url what the server says, if that is allowed. */
static int redirect(struct get *g, const char *next, char **url, struct vf_error *err)
{
    struct vf_error why;
    char plain[256];

    vf_asset_plain_url(next, plain, sizeof(plain));
    if (vf_asset_check_url(next, "its target", false, &why) < 0)
        return vf_fail(err, VF_PROTOCOL, "is redirected to %s, which is refused: %s", plain,
                       why.msg);
    if (strncasecmp(*url, "https:", 6) == 0 && strncasecmp(next, "https:", 6) != 0)
        return vf_fail(err, VF_PROTOCOL, "is redirected from https to %s, which is refused", plain);
    if (!vf_asset_same_server(*url, next))
        forget(g);
    free(*url);
    *url = strdup(next);
    return *url != NULL ? 0 : vf_fail(err, VF_NO_MEMORY, "no memory");
}

static int follow(struct get *g, char **url, bool *ret_again, struct vf_error *err)
{
    for (int i = 0; i <= VF_ASSET_REDIRECTS_MAX; i++) {
        char *next = NULL;
        int r = set_up(g, *url, err);

        if (r == 0)
            r = judge(g, perform(g), &next, ret_again, err);
        if (r <= 0 || next == NULL)
            return i > 0 && r < 0 ? vf_wrap(err, "after %d redirects", i) : r;
        r = redirect(g, next, url, err);
        if (r < 0)
            return r;
    }
    return vf_fail(err, VF_PROTOCOL, "is redirected more than %d times", VF_ASSET_REDIRECTS_MAX);
}

int vf_asset_http_get(struct vf_download *d, bool *ret_again, struct vf_error *err)
{
    VF_CLEANUP_FREE char *url = strdup(d->file->url);
    struct get *g = (struct get *)calloc(1, sizeof(*g));
    int r;

    *ret_again = false;
    if (g == NULL || url == NULL) {
        free(g);
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    }
    g->d = d;
    g->easy = curl_easy_init();
    r = g->easy != NULL ? get_secret(g, err) : vf_fail(err, VF_NO_MEMORY, "no memory");
    if (r == 0)
        r = follow(g, &url, ret_again, err);
    curl_easy_cleanup(g->easy);
    forget(g);
    free(g);
    return r;
}

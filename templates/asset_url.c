/* The URLs of assets: which are taken, which are the same server's, and what of one may be shown. See asset_internal.h.
 *
 * A redirect's target keeps to the same rules as an asset's own URL, but for file://.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include "base/utf8.h"
#include "templates/asset_internal.h"

/* That host is this one, whatever a name server says: localhost, 127.0.0.0/8, [::1]. */
static bool is_loopback(const char *host)
{
    struct in_addr four;
    struct in6_addr six;
    char bare[INET6_ADDRSTRLEN + 1];
    size_t len = strlen(host);

    if (strcasecmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, host, &four) == 1)
        return ntohl(four.s_addr) >> 24 == 127;
    if (len < 3 || len - 2 >= sizeof(bare) || host[0] != '[' || host[len - 1] != ']')
        return false;
    memcpy(bare, host + 1, len - 2);
    bare[len - 2] = '\0';
    return inet_pton(AF_INET6, bare, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

static char *part(CURLU *u, CURLUPart what)
{
    char *s = NULL;

    return curl_url_get(u, what, &s, 0) == CURLUE_OK ? s : NULL;
}

static int check_parts(CURLU *u, const char *field, bool file_too, struct vf_error *err)
{
    char *scheme = part(u, CURLUPART_SCHEME), *host = part(u, CURLUPART_HOST);
    char *user = part(u, CURLUPART_USER), *password = part(u, CURLUPART_PASSWORD);
    int r = 0;

    if (scheme == NULL) {
        r = vf_fail(err, VF_NO_MEMORY, "%s: no memory", field);
    } else if (user != NULL || password != NULL) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: must not contain credentials: they would be logged",
                field);
        r = vf_hint(err, "put them into a file and name that in basic_file or bearer_file");
    } else if (strcmp(scheme, "http") == 0 && (host == NULL || !is_loopback(host))) {
        vf_fail(err, VF_INVALID_ARGUMENT,
                "%s: plain http is only for this host (localhost), not %s", field,
                host != NULL ? host : "another");
        r = vf_hint(err, "use https");
    } else if (strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0 &&
               !(file_too && strcmp(scheme, "file") == 0)) {
        r = vf_fail(err, VF_INVALID_ARGUMENT, "%s: must begin with https://%s, not %s://", field,
                    file_too ? " or file:///" : "", scheme);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_free(password);
    return r;
}

int vf_asset_check_url(const char *url, const char *field, bool file_too, struct vf_error *err)
{
    CURLU *u;
    CURLUcode c;
    int r = vf_no_control(url, field, err);

    if (r < 0)
        return r;
    if (strncasecmp(url, "file:", 5) == 0 && strncasecmp(url, "file:///", 8) != 0)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "%s: must name the file by its absolute path: file:///…", field);
    u = curl_url();
    if (u == NULL)
        return vf_fail(err, VF_NO_MEMORY, "%s: no memory", field);
    c = curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME);
    if (c == CURLUE_OK)
        r = check_parts(u, field, file_too, err);
    else /* libcurl's words don't quote the URL, which may hold a password */
        r = vf_fail(err, VF_INVALID_ARGUMENT, "%s: must be a URL like https://host/path (%s)",
                    field, curl_url_strerror(c));
    curl_url_cleanup(u);
    return r;
}

void vf_asset_plain_url(const char *url, char *ret, size_t size)
{
    static const CURLUPart secret[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_OPTIONS,
                                       CURLUPART_QUERY, CURLUPART_FRAGMENT};
    CURLU *u = curl_url();
    char *plain = NULL;

    if (u != NULL && curl_url_set(u, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK) {
        for (size_t i = 0; i < sizeof(secret) / sizeof(*secret); i++)
            curl_url_set(u, secret[i], NULL, 0);
        if (curl_url_get(u, CURLUPART_URL, &plain, 0) != CURLUE_OK)
            plain = NULL;
    }
    snprintf(ret, size, "%s", plain != NULL ? plain : "(a URL that can't be read)");
    curl_free(plain);
    curl_url_cleanup(u);
}

static bool same_part(CURLU *a, CURLU *b, CURLUPart what)
{
    char *x = NULL, *y = NULL;
    bool same = curl_url_get(a, what, &x, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                curl_url_get(b, what, &y, CURLU_DEFAULT_PORT) == CURLUE_OK && strcasecmp(x, y) == 0;

    curl_free(x);
    curl_free(y);
    return same;
}

bool vf_asset_same_server(const char *url, const char *other)
{
    CURLU *a = curl_url(), *b = curl_url();
    bool same = a != NULL && b != NULL && curl_url_set(a, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_set(b, CURLUPART_URL, other, 0) == CURLUE_OK &&
                same_part(a, b, CURLUPART_SCHEME) && same_part(a, b, CURLUPART_HOST) &&
                same_part(a, b, CURLUPART_PORT);

    curl_url_cleanup(a);
    curl_url_cleanup(b);
    return same;
}

/* Paths, queries and header tokens: bytes from a client, and nothing but their text.
 *
 * "/v1/vms/a%20b?parked=true" -> segments v1, vms, "a b"; query parked=true. A path is split before it is decoded, so
 * that %2F stays within its segment. Refused: escapes that are none, NUL, too many segments or arguments.
 */
#include "pool/http_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes s in place. plus: "+" is a space, as in queries. */
static bool decode(char *s, bool plus)
{
    char *to = s;

    for (; *s != '\0'; s++) {
        int hi, lo;

        if (*s != '%') {
            *to++ = plus && *s == '+' ? ' ' : *s;
            continue;
        }
        hi = hex(s[1]);
        lo = hi < 0 ? -1 : hex(s[2]);
        if (lo < 0 || hi * 16 + lo == 0)
            return false;
        *to++ = (char)(hi * 16 + lo);
        s += 2;
    }
    *to = '\0';
    return true;
}

static int split_path(struct vf_http_uri *u, char *path, struct vf_error *err)
{
    while (path != NULL) {
        char *segment = path, *slash = strchr(path, '/');

        if (slash != NULL)
            *slash++ = '\0';
        path = slash;
        if (u->n_segments == VF_HTTP_MAX_SEGMENTS)
            return vf_fail(err, VF_INVALID_ARGUMENT, "the path has more than %d parts",
                           VF_HTTP_MAX_SEGMENTS);
        if (!decode(segment, false))
            return vf_fail(err, VF_INVALID_ARGUMENT, "the path has a wrong %% escape");
        u->segments[u->n_segments++] = segment;
    }
    return 0;
}

static int split_query(struct vf_http_uri *u, char *query, struct vf_error *err)
{
    while (query != NULL) {
        char *name = query, *end = strchr(query, '&'), *value;

        if (end != NULL)
            *end++ = '\0';
        query = end;
        if (*name == '\0')
            continue;
        value = strchr(name, '=');
        if (value != NULL)
            *value++ = '\0';
        else
            value = name + strlen(name);
        if (u->n_query == VF_HTTP_MAX_QUERY)
            return vf_fail(err, VF_INVALID_ARGUMENT, "the query has more than %d arguments",
                           VF_HTTP_MAX_QUERY);
        if (!decode(name, true) || !decode(value, true))
            return vf_fail(err, VF_INVALID_ARGUMENT, "the query has a wrong %% escape");
        u->query[u->n_query].name = name;
        u->query[u->n_query++].value = value;
    }
    return 0;
}

int vf_http_uri_parse(struct vf_http_uri *u, const char *target, struct vf_error *err)
{
    char *path, *query;
    int r;

    *u = (struct vf_http_uri){0};
    if (strncasecmp(target, "http://", 7) == 0) { /* to be taken by every server; the host is us */
        target = strchr(target + 7, '/');
        if (target == NULL)
            target = "/";
    }
    if (*target != '/')
        return vf_fail(err, VF_INVALID_ARGUMENT, "the path must begin with /");
    u->text = strdup(target);
    if (u->text == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory for the request");
    path = u->text + 1;
    query = strchr(path, '?');
    if (query != NULL)
        *query++ = '\0';
    r = split_path(u, path, err);
    if (r == 0)
        r = split_query(u, query, err);
    if (r < 0)
        vf_http_uri_free(u);
    return r;
}

void vf_http_uri_free(struct vf_http_uri *u)
{
    free(u->text);
    *u = (struct vf_http_uri){0};
}

/* The next segment of a pattern, which begins at *p (after its slash); NULL at the end. */
static const char *next_segment(const char **p, size_t *ret_len)
{
    const char *s = *p;

    if (s == NULL)
        return NULL;
    *ret_len = strcspn(s, "/");
    *p = s[*ret_len] == '/' ? s + *ret_len + 1 : NULL;
    return s;
}

bool vf_http_uri_match(const struct vf_http_uri *u, const char *pattern,
                       const char *ret_params[VF_HTTP_MAX_PARAMS])
{
    const char *p = pattern + 1, *want, *params[VF_HTTP_MAX_PARAMS] = {NULL};
    size_t len = 0, i = 0, n = 0;

    while ((want = next_segment(&p, &len)) != NULL) {
        if (i == u->n_segments)
            return false;
        if (*want == '{') {
            if (*u->segments[i] == '\0')
                return false;
            if (n < VF_HTTP_MAX_PARAMS)
                params[n++] = u->segments[i];
        } else if (strlen(u->segments[i]) != len || memcmp(want, u->segments[i], len) != 0) {
            return false;
        }
        i++;
    }
    if (i != u->n_segments)
        return false;
    memcpy(ret_params, params, sizeof(params));
    return true;
}

void vf_http_uri_nearest(const struct vf_http_uri *u, const struct vf_http_route *routes, char *buf,
                         size_t size)
{
    enum { MAX_ROUTES = 64, LONGEST = 100 };
    char text[MAX_ROUTES][LONGEST], path[LONGEST] = "";
    const char *names[MAX_ROUTES + 1], *best;
    size_t n = 0, used = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < u->n_segments; i++) {
        int r = snprintf(path + used, sizeof(path) - used, "/%s", u->segments[i]);

        if (r < 0 || (size_t)r >= sizeof(path) - used)
            return;
        used += (size_t)r;
    }
    /* Each pattern with the path's own parts at its {…}, so that only the rest is compared. */
    for (; routes->method != NULL && n < MAX_ROUTES; routes++) {
        const char *p = routes->pattern + 1, *want;
        size_t len = 0, i = 0;

        used = 0;
        while ((want = next_segment(&p, &len)) != NULL) {
            bool ours = *want == '{' && i < u->n_segments && *u->segments[i] != '\0';
            int r = ours ? snprintf(text[n] + used, LONGEST - used, "/%s", u->segments[i])
                         : snprintf(text[n] + used, LONGEST - used, "/%.*s", (int)len, want);

            used += r > 0 && (size_t)r < LONGEST - used ? (size_t)r : 0;
            i++;
        }
        names[n] = text[n];
        n++;
    }
    names[n] = NULL;
    best = vf_nearest(path, names);
    if (best != NULL)
        snprintf(buf, size, "%s", best);
}

bool vf_http_has_token(const char *value, const char *token)
{
    size_t len = strlen(token);

    while (value != NULL && *value != '\0') {
        size_t n;

        value += strspn(value, " \t,");
        n = strcspn(value, ",");
        while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t'))
            n--;
        if (n == len && strncasecmp(value, token, len) == 0)
            return true;
        value += strcspn(value, ",");
    }
    return false;
}

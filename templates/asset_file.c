/* Gets an asset from a file of this host. See asset_internal.h. Not by libcurl: that would wait for ever for a pipe's
 * other end, and takes a directory or a device for a file. */
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/fd.h"
#include "templates/asset_internal.h"

#define CHUNK ((size_t)256 * 1024)

/* The path in a file:// URL; to be freed with curl_free. */
static char *path_of(const char *url)
{
    CURLU *u = curl_url();
    char *path = NULL;

    if (u != NULL && (curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
                      curl_url_get(u, CURLUPART_PATH, &path, CURLU_URLDECODE) != CURLUE_OK))
        path = NULL;
    curl_url_cleanup(u);
    return path;
}

static int copy(struct vf_download *d, int fd, struct vf_error *err)
{
    VF_CLEANUP_FREE char *buf = (char *)malloc(CHUNK);

    if (buf == NULL)
        return vf_fail(err, VF_NO_MEMORY, "no memory");
    while (!vf_download_abandoned(d)) {
        ssize_t n = read(fd, buf, CHUNK);
        int r;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vf_fail_errno(err, errno, "read");
        if (n == 0)
            return 0;
        r = vf_download_write(d, buf, (size_t)n, err);
        if (r < 0)
            return r;
    }
    return vf_fail(err, VF_CANCELLED, "nobody waits for it any more");
}

int vf_asset_file_get(struct vf_download *d, struct vf_error *err)
{
    VF_CLEANUP_FD int fd = -1;
    char *path = path_of(d->file->url);
    struct stat st;
    int r;

    if (path == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "names no file (its path can't be decoded)");
    r = vf_open_regular(path, "its file", &fd, err);
    curl_free(path);
    if (r == 0 && fstat(fd, &st) != 0)
        r = vf_fail_errno(err, errno, "stat");
    if (r == 0 && d->at > 0) /* reading is cheap */
        r = vf_download_restart(d, err);
    if (r == 0)
        r = vf_download_expect(d, st.st_size, err);
    return r == 0 ? copy(d, fd, err) : r;
}

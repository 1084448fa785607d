/* CPU, kernel and memory of this host, from /proc. See host.h. */
#include "templates/host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include "base/fd.h"

#define CPUINFO "/proc/cpuinfo"
#define MEMINFO "/proc/meminfo"
#define MAX_CPUINFO (64u * 1024 * 1024) /* 8,192 CPUs have about 20 MB */

/* The value of the first line "key<blanks>: value", cut to its end; NULL if there is none. */
static char *value_of(const char *text, const char *key)
{
    size_t key_len = strlen(key);

    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *end = strchr(line, '\n');
        const char *colon;

        if (strncmp(line, key, key_len) == 0) {
            colon = line + key_len + strspn(line + key_len, " \t");
            if (*colon == ':') {
                const char *from = colon + 1 + strspn(colon + 1, " \t");

                return strndup(from, end != NULL ? (size_t)(end - from) : strlen(from));
            }
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return NULL;
}

static int compare_words(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The digest of a line of words does not depend on their order. The line is taken apart. */
static int digest_words(char *line, char ret_hex[VF_SHA256_HEX])
{
    char *words[1024], *save = NULL;
    size_t n = 0, len = 0;
    uint8_t digest[VF_SHA256_LEN];
    VF_CLEANUP_FREE char *sorted = (char *)malloc(strlen(line) + 2);

    if (sorted == NULL)
        return -ENOMEM;
    for (char *w = strtok_r(line, " \t", &save); w != NULL && n < 1024;
         w = strtok_r(NULL, " \t", &save))
        words[n++] = w;
    qsort(words, n, sizeof(words[0]), compare_words);
    for (size_t i = 0; i < n; i++) {
        size_t l = strlen(words[i]);

        memcpy(sorted + len, words[i], l);
        len += l;
        sorted[len++] = ' ';
    }
    vf_sha256(sorted, len, digest);
    vf_hex(digest, sizeof(digest), ret_hex);
    return 0;
}

int vf_host_parse_cpuinfo(const char *text, struct vf_host *ret_host, struct vf_error *err)
{
    VF_CLEANUP_FREE char *model = value_of(text, "model name");
    VF_CLEANUP_FREE char *flags = value_of(text, "flags");
    char hex[VF_SHA256_HEX];

    if (flags == NULL)
        flags = value_of(text, "Features");
    if (flags == NULL)
        return vf_fail(err, VF_UNSUPPORTED, CPUINFO ": has no line \"flags\"");
    if (digest_words(flags, hex) != 0)
        return vf_fail(err, VF_NO_MEMORY, CPUINFO ": no memory");
    snprintf(ret_host->cpu_model, sizeof(ret_host->cpu_model), "%s",
             model != NULL && model[0] != '\0' ? model : "unknown");
    memcpy(ret_host->cpu_flags_sha256, hex, sizeof(hex));
    return 0;
}

int vf_host_read(struct vf_host *ret_host, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL;
    struct vf_host host = {0};
    struct utsname u;
    size_t len;
    int r;

    r = vf_read_file(AT_FDCWD, CPUINFO, MAX_CPUINFO, &text, &len, err);
    if (r < 0)
        return r;
    r = vf_host_parse_cpuinfo(text, &host, err);
    if (r < 0)
        return r;
    if (uname(&u) != 0)
        return vf_fail_errno(err, errno, "uname");
    snprintf(host.kernel, sizeof(host.kernel), "%s", u.release);
    *ret_host = host;
    return 0;
}

/* "MemTotal: 24000000 kB" */
static int kib_line(const char *text, const char *key, uint64_t *ret_bytes, struct vf_error *err)
{
    VF_CLEANUP_FREE char *value = value_of(text, key);
    uint64_t kib;

    if (value == NULL || sscanf(value, "%" SCNu64 " kB", &kib) != 1)
        return vf_fail(err, VF_UNSUPPORTED, MEMINFO ": has no line \"%s\"", key);
    *ret_bytes = kib * 1024;
    return 0;
}

int vf_host_memory(uint64_t *ret_total, uint64_t *ret_available, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL;
    uint64_t total, available;
    size_t len;
    int r;

    r = vf_read_file(AT_FDCWD, MEMINFO, 65536, &text, &len, err);
    if (r == 0)
        r = kib_line(text, "MemTotal", &total, err);
    if (r == 0)
        r = kib_line(text, "MemAvailable", &available, err);
    if (r < 0)
        return r;
    if (ret_total != NULL)
        *ret_total = total;
    if (ret_available != NULL)
        *ret_available = available;
    return 0;
}

/* The guest's resolvers: /etc/resolv.conf has them, and nothing else. */
#include "tools/agent/agent.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH "/etc/resolv.conf"
#define MAX_TEXT 4096

int resolvers_get(struct resolvers *ret)
{
    char text[MAX_TEXT], *save = NULL;
    int n = read_text(PATH, text, sizeof(text));

    *ret = (struct resolvers){0};
    if (n < 0)
        return n;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char word[16], address[64];
        struct resolver r = {.len = 4};
        if (sscanf(line, " %15s %63s", word, address) != 2 || strcmp(word, "nameserver") != 0)
            continue;
        if (inet_pton(AF_INET, address, r.address) != 1) {
            r.len = 16;
            if (inet_pton(AF_INET6, address, r.address) != 1)
                continue;
        }
        if (ret->n == MAX_RESOLVERS)
            return -E2BIG;
        ret->list[ret->n++] = r;
    }
    return 0;
}

static bool are(const struct resolvers *a, const struct resolvers *b)
{
    for (unsigned i = 0; i < a->n && i < b->n; i++)
        if (a->list[i].len != b->list[i].len ||
            memcmp(a->list[i].address, b->list[i].address, a->list[i].len) != 0)
            return false;
    return a->n == b->n;
}

int resolvers_set(const struct resolvers *r)
{
    struct resolvers is;
    struct stat st;
    char text[MAX_RESOLVERS * 64], address[INET6_ADDRSTRLEN];
    size_t len = 0;

    if (resolvers_get(&is) == 0 && are(&is, r))
        return 0;
    for (unsigned i = 0; i < r->n; i++) {
        inet_ntop(r->list[i].len == 4 ? AF_INET : AF_INET6, r->list[i].address, address,
                  sizeof(address));
        len += (size_t)snprintf(text + len, sizeof(text) - len, "nameserver %s\n", address);
    }
    /* A link leads to a file that somebody else keeps writing. Where it can't be removed its target is written. */
    if (lstat(PATH, &st) == 0 && S_ISLNK(st.st_mode) && unlink(PATH) != 0 && errno != EROFS)
        return -errno;
    return write_etc(PATH, "/run/resolv.conf", text, len);
}

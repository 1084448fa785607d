/* See network.h. */
#include "tools/vmfactory/network.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A port's number at text, up to end; -1: there is none. */
static int number(const char *text, const char *end, int min)
{
    char *stop;
    long n;

    if (text == end || *text < '0' || *text > '9')
        return -1;
    n = strtol(text, &stop, 10);
    return stop == end && n >= min && n <= 65535 ? (int)n : -1;
}

static int parse(const char *word, struct vmfactory_port *ret, struct vf_error *err)
{
    const char *slash = strchr(word, '/'), *end = slash != NULL ? slash : word + strlen(word);
    const char *colon = memchr(word, ':', (size_t)(end - word));
    struct vmfactory_port p = {0};

    if (slash != NULL && strcmp(slash, "/udp") != 0 && strcmp(slash, "/tcp") != 0)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "--publish: the protocol is /tcp or /udp (is \"%.60s\")", word);
    p.udp = slash != NULL && slash[1] == 'u';
    p.host = colon != NULL ? number(word, colon, 0) : 0;
    p.guest = number(colon != NULL ? colon + 1 : word, end, 1);
    if (p.host < 0 || p.guest < 0)
        return vf_fail(
            err, VF_INVALID_ARGUMENT,
            "--publish: must be [HOST:]GUEST[/udp], ports from 1 to 65535 (is \"%.60s\")", word);
    *ret = p;
    return 0;
}

int vf_publish_parse(const struct vf_words *words, struct vmfactory_port *ret, struct vf_error *err)
{
    for (size_t i = 0; i < words->n; i++)
        if (parse(words->v[i], &ret[i], err) < 0)
            return -EINVAL;
    return 0;
}

const char *vf_network_address(const struct vf_json *vm)
{
    const struct vf_json *n = vf_json_get(vm, "network");
    const char *v4 = vf_json_str(vf_json_get(n, "address4"), NULL);

    return v4 != NULL ? v4 : vf_json_str(vf_json_get(n, "address6"), "");
}

const char *vf_network_netns(const struct vf_json *vm)
{
    return vf_json_str(vf_json_get(vf_json_get(vm, "network"), "namespace"), "");
}

const char *vf_network_ports(const struct vf_json *vm, char *buf, size_t size)
{
    const struct vf_json *ports = vf_json_get(vf_json_get(vm, "network"), "ports"), *p;
    size_t len = 0;

    buf[0] = '\0';
    for (size_t i = 0; len < size && (p = vf_json_at(ports, i)) != NULL; i++) {
        bool udp = strcmp(vf_json_str(vf_json_get(p, "protocol"), ""), "udp") == 0;
        int n = snprintf(buf + len, size - len, "%s%" PRId64 "->%" PRId64 "%s", i > 0 ? " " : "",
                         vf_json_int(vf_json_get(p, "host"), 0),
                         vf_json_int(vf_json_get(p, "guest"), 0), udp ? "/udp" : "");

        if (n < 0 || len + (size_t)n >= size) {
            snprintf(buf + (len < size - 5 ? len : size - 5), 5, " ...");
            break;
        }
        len += (size_t)n;
    }
    return buf;
}

void vf_say_network(const struct vf_json *vm, FILE *out)
{
    const struct vf_json *n = vf_json_get(vm, "network");
    const char *v4 = vf_json_str(vf_json_get(n, "address4"), ""),
               *v6 = vf_json_str(vf_json_get(n, "address6"), ""), *netns = vf_network_netns(vm);
    char ports[512], line[2048];

    if (!vf_json_is_object(n))
        return;
    vf_network_ports(vm, ports, sizeof(ports));
    snprintf(line, sizeof(line), "%s%s%s%s%s%s%s%s", vf_json_str(vf_json_get(n, "mode"), "?"),
             v4[0] != '\0' ? " " : "", v4, v6[0] != '\0' ? " " : "", v6,
             netns[0] != '\0' ? ", namespace " : "", netns, ports[0] != '\0' ? ", ports " : "");
    fputs("  network: ", out);
    vf_text_print(line, out);
    vf_text_print(ports, out);
    fputc('\n', out);
}

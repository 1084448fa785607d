/* The null driver's scripts as text (grammar in vmm/null.h).
 *
 * Happy path: split at ';' into parts, each at ':' into subject and words, each word at '=' into name
 * and value; fill a script of our own, copy it out at the end. Whatever is not understood ends it
 * with VF_INVALID_ARGUMENT, naming the part and what would have been right.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/null.h"

#define MAX_TEXT 4096

struct kind {
    const char *name;
    struct vf_null_step *step; /* NULL: running or agent */
    bool is_message, is_stop;
};

static const char *const agent_flags[] = {
    "absent",          "stale-nonce",  "no-nonce",    "new-boot-id",
    "ignore-entropy",  "wrong-digest", "same-sample", "ignore-time",
    "ignore-identity", "wrong-mac",    "wrong-ipv4",  "wrong-ipv6",
    "wrong-mtu",       "wrong-dns",    "no-dns",      "wrong-gateway-mac",
    "old-net"};

/* "5ms" -> 5000. Returns -1 if it is none. */
static int64_t parse_time(const char *text)
{
    static const struct {
        const char *name;
        int64_t us;
    } units[] = {{"us", 1}, {"ms", 1000}, {"s", 1000000}};
    char *end;
    if (*text < '0' || *text > '9')
        return -1;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
        if (strcmp(end, units[i].name) == 0)
            return errno || v > 3600000000 / units[i].us ? -1 : v * units[i].us;
    return -1;
}

static int bad_time(const char *part, const char *value, struct vf_error *err)
{
    return vf_fail(err, VF_INVALID_ARGUMENT,
                   "null script: %s: '%s' is no time; write 500us, 5ms or 1s, at most an hour",
                   part, value);
}

static int parse_code(const char *name, enum vf_code *ret)
{
    for (int c = VF_OK + 1; c < VF_CODE_COUNT; c++)
        if (strcmp(vf_code_name((enum vf_code)c), name) == 0) {
            *ret = (enum vf_code)c;
            return 0;
        }
    return -EINVAL;
}

static int step_word(const struct kind *k, const char *word, const char *value,
                     struct vf_error *err)
{
    static const struct {
        const char *name;
        enum vf_null_action action;
        bool message_only;
    } actions[] = {{"fail", VF_NULL_FAIL, false},      {"hang", VF_NULL_HANG, false},
                   {"exit", VF_NULL_EXIT, false},      {"half", VF_NULL_HALF, true},
                   {"garbage", VF_NULL_GARBAGE, true}, {"flood", VF_NULL_FLOOD, true},
                   {"close", VF_NULL_CLOSE, true}};
    struct vf_null_step *s = k->step;

    if (strcmp(word, "delay") == 0) {
        int64_t us = parse_time(value ? value : "");
        if (us < 0)
            return bad_time(k->name, value ? value : "", err);
        s->delay_us = us;
        return 0;
    }
    if (strcmp(word, "times") == 0 && k->is_message) {
        char *end = NULL;
        long n = value ? strtol(value, &end, 10) : 0;
        if (n < 1 || n > 1000000 || *end)
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "null script: %s: times: a number from 1 to 1000000, not '%s'", k->name,
                           value ? value : "");
        s->times = (int)n;
        return 0;
    }
    if (strcmp(word, "message") == 0 && value && !k->is_stop) {
        if (strlen(value) >= sizeof(s->message))
            return vf_fail(err, VF_INVALID_ARGUMENT, "null script: %s: message: at most %zu bytes",
                           k->name, sizeof(s->message) - 1);
        snprintf(s->message, sizeof(s->message), "%s", value);
        return 0;
    }
    for (size_t i = 0; i < sizeof(actions) / sizeof(*actions); i++) {
        if (strcmp(word, actions[i].name) != 0)
            continue;
        if ((actions[i].message_only && !k->is_message) ||
            (k->is_stop && actions[i].action != VF_NULL_HANG))
            return vf_fail(err, VF_INVALID_ARGUMENT, "null script: %s: %s makes no sense here",
                           k->name, word);
        if (s->action != VF_NULL_DO)
            return vf_fail(err, VF_INVALID_ARGUMENT, "null script: %s: one way to end, not two",
                           k->name);
        if (value && actions[i].action != VF_NULL_FAIL)
            return vf_fail(err, VF_INVALID_ARGUMENT, "null script: %s: %s takes no value", k->name,
                           word);
        if (value && parse_code(value, &s->code) < 0)
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "null script: %s: fail: '%s' is no error code; vmm_failed is one",
                           k->name, value);
        s->action = actions[i].action;
        return 0;
    }
    return vf_fail(err, VF_INVALID_ARGUMENT,
                   "null script: %s: unknown word '%s'; known: delay=TIME, fail[=CODE], "
                   "message=TEXT, hang, exit%s",
                   k->name, word, k->is_message ? ", half, garbage, flood, close, times=N" : "");
}

static int running_word(struct vf_null_script *s, const char *word, const char *value,
                        struct vf_error *err)
{
    int64_t *field = strcmp(word, "exit") == 0       ? &s->exit_after_us
                     : strcmp(word, "panic") == 0    ? &s->panic_after_us
                     : strcmp(word, "shutdown") == 0 ? &s->shutdown_after_us
                     : strcmp(word, "failed") == 0   ? &s->failed_after_us
                                                     : NULL;
    if (!field)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "null script: running: unknown word '%s'; known: exit, panic, shutdown and "
                       "failed, each =TIME",
                       word);
    int64_t us = parse_time(value ? value : "");
    if (us < 0)
        return bad_time("running", value ? value : "", err);
    *field = us ? us : 1; /* 0 would be never */
    return 0;
}

static int agent_word(struct vf_null_script *s, const char *word, const char *value,
                      struct vf_error *err)
{
    for (size_t i = 0; !value && i < sizeof(agent_flags) / sizeof(*agent_flags); i++)
        if (strcmp(word, agent_flags[i]) == 0) {
            s->agent_flags |= 1u << i;
            return 0;
        }
    return vf_fail(err, VF_INVALID_ARGUMENT,
                   "null script: agent: unknown word '%s'; known: absent, stale-nonce, no-nonce, "
                   "new-boot-id, ignore-entropy, wrong-digest, same-sample, ignore-time, "
                   "ignore-identity, wrong-mac, wrong-ipv4, wrong-ipv6, wrong-mtu, wrong-dns, "
                   "no-dns, wrong-gateway-mac, old-net",
                   word);
}

static int parse_part(struct vf_null_script *s, char *part, struct vf_error *err)
{
    const struct kind kinds[] = {
        {"create", &s->op[VF_VM_OP_CREATE], false, false},
        {"start", &s->op[VF_VM_OP_START], false, false},
        {"pause", &s->op[VF_VM_OP_PAUSE], false, false},
        {"save", &s->op[VF_VM_OP_SAVE], false, false},
        {"restore", &s->op[VF_VM_OP_RESTORE], false, false},
        {"resume", &s->op[VF_VM_OP_RESUME], false, false},
        {"balloon", &s->op[VF_VM_OP_BALLOON], false, false},
        {"query", &s->op[VF_VM_OP_QUERY], false, false},
        {"stop", &s->stop, false, true},
        {"hello", &s->msg[VF_NULL_MSG_HELLO], true, false},
        {"renew", &s->msg[VF_NULL_MSG_RENEW], true, false},
        {"ping", &s->msg[VF_NULL_MSG_PING], true, false},
        {"freeze", &s->msg[VF_NULL_MSG_FREEZE], true, false},
        {"exec", &s->msg[VF_NULL_MSG_EXEC], true, false},
        {"running", NULL, false, false},
        {"agent", NULL, false, false},
    };
    const struct kind *k = NULL;
    char *words = strchr(part, ':');
    if (words)
        *words++ = 0;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        if (strcmp(kinds[i].name, part) == 0)
            k = &kinds[i];
    if (!k)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "null script: unknown subject '%s'; known: an operation (restore), stop, a "
                       "message (hello, renew, ping, freeze, exec), running, agent",
                       part);
    if (!words || !*words)
        return vf_fail(err, VF_INVALID_ARGUMENT,
                       "null script: %s: what of it? write for example %s:%s", k->name, k->name,
                       k->step             ? "delay=5ms"
                       : k->name[0] == 'r' ? "exit=20ms"
                                           : "stale-nonce");

    char *next;
    for (char *word = words; word; word = next) {
        next = strchr(word, ',');
        if (next)
            *next++ = 0;
        char *value = strchr(word, '=');
        if (value)
            *value++ = 0;
        int r = k->step             ? step_word(k, word, value, err)
                : k->name[0] == 'r' ? running_word(s, word, value, err)
                                    : agent_word(s, word, value, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int vf_null_script_parse(const char *text, struct vf_null_script *ret, struct vf_error *err)
{
    struct vf_null_script s = {0};
    char copy[MAX_TEXT];
    size_t len = strlen(text);
    if (len >= sizeof(copy))
        return vf_fail(err, VF_INVALID_ARGUMENT, "null script: at most %zu bytes (is %zu)",
                       sizeof(copy) - 1, len);
    memcpy(copy, text, len + 1);

    char *next;
    for (char *part = copy; part; part = next) {
        next = strchr(part, ';');
        if (next)
            *next++ = 0;
        if (!*part) /* "" and a ';' at the end are fine */
            continue;
        int r = parse_part(&s, part, err);
        if (r < 0)
            return r;
    }
    *ret = s;
    return 0;
}

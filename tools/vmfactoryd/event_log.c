/* Follows the events and logs them, each at its level. See event_log.h.
 *
 * Leases come by the thousand: what is below the log's level is told by the start of its line and not parsed.
 */
#include "event_log.h"

#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "base/log.h"

struct event_log {
    struct vf_event_follower *follower;
    const struct vf_settings *settings;
};

/* The first whose prefix fits. The daemon's own are logged where they happen. */
static const struct {
    const char *prefix;
    enum vf_log_level level;
} levels[] = {
    {"daemon.", VF_LOG_OFF},
    {"vm.died", VF_LOG_WARN},
    {"vm.discarded", VF_LOG_WARN},
    {"vm.", VF_LOG_DEBUG},
    {"pool.backoff", VF_LOG_WARN},
    {"pool.pressure_over", VF_LOG_INFO},
    {"pool.pressure", VF_LOG_WARN},
    {"asset.corrupt", VF_LOG_WARN},
    {"asset.fetch_failed", VF_LOG_WARN},
    {"class.reload_failed", VF_LOG_ERROR},
    {"template.build_failed", VF_LOG_WARN},
    {"template.building", VF_LOG_DEBUG},
    {"template.quarantine", VF_LOG_WARN},
    {"template.unfit", VF_LOG_WARN},
    {"", VF_LOG_INFO},
};

static enum vf_log_level level_of(const char *line)
{
    static const char key[] = "\"event\":\"";
    const char *name = strstr(line, key);
    size_t i = 0;

    if (name == NULL)
        return VF_LOG_INFO;
    name += sizeof(key) - 1;
    while (strncmp(name, levels[i].prefix, strlen(levels[i].prefix)) != 0)
        i++;
    return levels[i].level;
}

static void log_event(enum vf_log_level level, const struct vf_json *j)
{
    const char *template_name = vf_json_str(vf_json_get(j, "template"), NULL);
    const char *message = vf_json_str(vf_json_get(j, "message"), NULL);
    const char *code = vf_json_str(vf_json_get(j, "code"), NULL);

    vf_log(level, vf_json_str(vf_json_get(j, "vm"), NULL), "%s%s%s%s%s%s%s%s",
           vf_json_str(vf_json_get(j, "event"), "event"), template_name != NULL ? " " : "",
           template_name != NULL ? template_name : "", message != NULL ? ": " : "",
           message != NULL ? message : "", code != NULL ? " (code " : "", code != NULL ? code : "",
           code != NULL ? ")" : "");
}

static void on_more(void *arg)
{
    struct event_log *l = arg;
    const char *line;

    while ((line = vf_event_next(l->follower)) != NULL) {
        enum vf_log_level level = level_of(line);
        struct vf_json *j;

        if ((int)level < l->settings->log_level || level == VF_LOG_OFF)
            continue;
        j = vf_json_parse(line, strlen(line));
        log_event(level, j);
        vf_json_delete(j);
    }
}

struct event_log *event_log_start(struct vf_events *events, const struct vf_settings *settings)
{
    struct event_log *l = calloc(1, sizeof(*l));

    if (l == NULL)
        return NULL;
    l->settings = settings;
    l->follower = vf_event_follow(events, -1, 0, true, on_more, l);
    if (l->follower == NULL) {
        free(l);
        return NULL;
    }
    on_more(l); /* from here on it is told of each */
    return l;
}

void event_log_stop(struct event_log *l)
{
    if (l == NULL)
        return;
    vf_event_unfollow(l->follower);
    free(l);
}

/* What happens, in the log too: for those who read only that. */
#ifndef VF_VMFACTORYD_EVENT_LOG_H
#define VF_VMFACTORYD_EVENT_LOG_H

#include "pool/events.h"
#include "pool/settings.h"

struct event_log;
/* NULL without memory. settings (its log_level) and events must outlive it. */
struct event_log *event_log_start(struct vf_events *events, const struct vf_settings *settings);
void event_log_stop(struct event_log *l); /* NULL is fine */

#endif

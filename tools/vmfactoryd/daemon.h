/* The daemon's life, from its settings to its exit code. */
#ifndef VF_VMFACTORYD_DAEMON_H
#define VF_VMFACTORYD_DAEMON_H

#include "options.h"

/* Runs until it is told to stop. settings are taken over. Returns the exit code; what went wrong is in the log. */
int daemon_run(const struct options *o, struct vf_settings *settings);

#endif

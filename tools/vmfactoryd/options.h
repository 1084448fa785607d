/* The daemon's command line. */
#ifndef VF_VMFACTORYD_OPTIONS_H
#define VF_VMFACTORYD_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>
#include "pool/settings.h"

/* Exit codes, as the man page has them. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_IN_USE = 3 };

#define CONFIG_FILE "/etc/vmfactory/vmfactoryd.json" /* root's, where it exists */
#define MAX_OVERRIDES 64

enum command {
    COMMAND_RUN,
    COMMAND_CONFIG,
    COMMAND_CHECK,
    COMMAND_MAN,
    COMMAND_HELP,
    COMMAND_VERSION
};

struct options {
    enum command command;
    const char *config; /* NULL: only defaults */
    bool json;
    struct {
        const char *name;
        char *value;
    } overrides[MAX_OVERRIDES]; /* over what the file says, also when it is read again */
    int n_overrides;
};

/* Fails with what to tell the user, and EXIT_USAGE is due. Relative directories are seen from where we are. */
int options_parse(int argc, char **argv, struct options *ret, struct vf_error *err);
void options_free(struct options *o);
/* The file, then the command line over it, checked together. */
int options_settings(const struct options *o, struct vf_settings *ret, struct vf_error *err);
void print_help(FILE *f);
/* vmfactoryd.8 */
void print_man(FILE *f);

#endif

/* The command's own interfaces: a table of commands gives parsing, --help, completion and the man page.
 *
 * A command is a function that gets what was parsed and returns the exit status.
 */
#ifndef VF_TOOLS_VMFACTORY_CLI_H
#define VF_TOOLS_VMFACTORY_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/json.h"
#include "tools/client/vmfactory-client.h"

enum vf_exit {
    VF_EXIT_OK = 0,
    VF_EXIT_FAILED = 1,
    VF_EXIT_USAGE = 2,
    VF_EXIT_UNREACHABLE = 3,
    VF_EXIT_REFUSED = 4, /* for now: too busy, or a deadline passed */
    VF_EXIT_SELF = 125   /* run, exec: vmfactory failed, not the command */
};

enum vf_option_kind {
    VF_OPTION_FLAG,     /* bool */
    VF_OPTION_NOT_FLAG, /* bool, set to false */
    VF_OPTION_INT,      /* int64_t, min..max */
    VF_OPTION_DURATION, /* int64_t, ms, from "90", "90s", "500ms", "5m", "2h" */
    VF_OPTION_STRING,   /* const char * */
    VF_OPTION_STRINGS   /* struct vf_words, may be given several times */
};

#define VF_WORDS_MAX 64
struct vf_words {
    const char *v[VF_WORDS_MAX + 1]; /* NULL-ended */
    size_t n;
};

/* Every option's value; which of them a command knows, its table says. */
struct vf_args {
    const char *socket;
    bool json, color, help, version;
    const char *name, *cwd, *netns, *tap;
    struct vf_words env, require, publish;
    int64_t count, timeout_ms, ttl_ms, since, concurrency; /* 0: not given; since: -1 */
    bool verbose, follow, parked, kept, interactive, all, dry_run;
};

struct vf_option {
    const char *name;
    const char *metavar; /* NULL: takes no value */
    enum vf_option_kind kind;
    size_t offset; /* in struct vf_args */
    int64_t min, max;
    const char *complete; /* what a value is, see VF_COMPLETE_* */
    const char *help;     /* one sentence */
};

/* What words on the command line are, for completion. */
#define VF_COMPLETE_TEMPLATES "templates"
#define VF_COMPLETE_VMS "vms"
#define VF_COMPLETE_CLASSES "classes"
#define VF_COMPLETE_ASSETS "assets"
#define VF_COMPLETE_FILES "files"
#define VF_COMPLETE_DIRS "dirs"

struct vf_cli;
struct vf_command {
    const char *name;               /* "template add": one or two words */
    const char *operands;           /* "NAME", "ID...", for the usage line */
    int min_operands, max_operands; /* max -1: any number */
    bool takes_command;             /* after the operands: [--] COMMAND [ARGUMENT...] */
    bool hidden;
    const char *complete;
    const char *summary; /* a few words, no full stop */
    const char *about;   /* sentences for --help and the man page; NULL: the summary says it */
    const struct vf_option *options; /* ends with name == NULL; NULL: only the global ones */
    int (*run)(struct vf_cli *cli);
};
extern const struct vf_command vf_commands[]; /* ends with name == NULL */
extern const struct vf_option vf_global_options[];
/* What the man page and --help say of exit statuses and the environment: pairs, NULL-ended. */
extern const char *const vf_exit_statuses[][2];
extern const char *const vf_environment[][2];

struct vf_cli {
    const struct vf_command *command;
    struct vf_args args;
    const char *operands[VF_WORDS_MAX + 1]; /* NULL-ended */
    int n_operands;
    const char *const *rest; /* the command for a VM, NULL-ended; of argv */
    struct vmfactory *h;     /* see vf_cli_connect */
};

/* --- args.c */
/* argv into *ret. 0; or -EINVAL and what is wrong with it, with a suggestion. With args.help set, operands are not
 * checked. argv must outlive *ret. */
int vf_args_parse(int argc, char **argv, struct vf_cli *ret, struct vf_error *err);
int vf_args_duration(const char *text, int64_t *ret_ms);
/* The command named by words (NULL-ended), and how many of them name it; NULL: none. */
const struct vf_command *vf_args_command(const char *const *words, int *ret_used);

/* --- help.c; both to stdout */
void vf_help_all(void);
void vf_help_command(const struct vf_command *c);
/* "vmfactory warm [OPTIONS] NAME"; into buf. */
void vf_usage_line(const struct vf_command *c, char *buf, size_t size);

/* --- report.c: what went wrong, and the connection */
/* Says it on stderr, returns the exit status that fits. */
int vf_report(const struct vf_cli *cli, const struct vmfactory_error *err);
int vf_report_error(const struct vf_cli *cli, const struct vf_error *err);
int vf_exit_of(const struct vf_cli *cli, const struct vmfactory_error *err);
/* Connects cli->h unless it is. 0, or the exit status after having said why not. */
int vf_cli_connect(struct vf_cli *cli);
/* A request whose answer is parsed: 0 with *ret_json (vf_json_delete it) and *ret (free it), or the exit status after
 * having said why not. ret_json, ret may be NULL. */
int vf_cli_request(struct vf_cli *cli, const char *method, const char *path, const char *body,
                   struct vmfactory_response *ret, struct vf_json **ret_json);
/* As vmfactory_path, but ends the program without memory. */
char *vf_cli_path(const char *before, const char *name, const char *after);
/* Prints the API's JSON as it is. */
void vf_print_json(const struct vmfactory_response *r);

/* --- the commands, a file each family */
int vf_cmd_template_add(struct vf_cli *cli);
int vf_cmd_template_ls(struct vf_cli *cli);
int vf_cmd_template_show(struct vf_cli *cli);
int vf_cmd_template_build(struct vf_cli *cli);
int vf_cmd_template_rm(struct vf_cli *cli);
int vf_cmd_class_ls(struct vf_cli *cli);
int vf_cmd_class_show(struct vf_cli *cli);
int vf_cmd_class_set(struct vf_cli *cli);
int vf_cmd_class_rm(struct vf_cli *cli);
int vf_cmd_asset_ls(struct vf_cli *cli);
int vf_cmd_asset_add(struct vf_cli *cli);
int vf_cmd_asset_rm(struct vf_cli *cli);
int vf_cmd_asset_fetch(struct vf_cli *cli);
int vf_cmd_asset_verify(struct vf_cli *cli);
int vf_cmd_asset_gc(struct vf_cli *cli);
int vf_cmd_warm(struct vf_cli *cli);
int vf_cmd_status(struct vf_cli *cli);
int vf_cmd_pool_show(struct vf_cli *cli);
int vf_cmd_pool_set(struct vf_cli *cli);
int vf_cmd_drain(struct vf_cli *cli);
int vf_cmd_acquire(struct vf_cli *cli);
int vf_cmd_ps(struct vf_cli *cli);
int vf_cmd_release(struct vf_cli *cli);
int vf_cmd_renew(struct vf_cli *cli);
int vf_cmd_run(struct vf_cli *cli);
int vf_cmd_exec(struct vf_cli *cli);
int vf_cmd_events(struct vf_cli *cli);
int vf_cmd_top(struct vf_cli *cli);
int vf_cmd_bench(struct vf_cli *cli);
int vf_cmd_doctor(struct vf_cli *cli);
int vf_cmd_config(struct vf_cli *cli);
int vf_cmd_version(struct vf_cli *cli);
int vf_cmd_generate(struct vf_cli *cli);

#endif

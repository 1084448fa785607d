/* The commands and their options: the one place that --help, completion, the man page and the parser read. */
#include "tools/vmfactory/cli.h"

#define AT(member) offsetof(struct vf_args, member)
#define END          \
    {                \
        .name = NULL \
    }
#define MS_OF_A_YEAR (366LL * 24 * 3600 * 1000)

const struct vf_option vf_global_options[] = {
    {"socket", "PATH", VF_OPTION_STRING, AT(socket), 0, 0, VF_COMPLETE_FILES,
     "The daemon's api.sock."},
    {"json", NULL, VF_OPTION_FLAG, AT(json), 0, 0, NULL,
     "Print JSON for programs: the API's own where there is one."},
    {"no-color", NULL, VF_OPTION_NOT_FLAG, AT(color), 0, 0, NULL, "Print without colors."},
    {"help", NULL, VF_OPTION_FLAG, AT(help), 0, 0, NULL, "Print this and exit."},
    {"version", NULL, VF_OPTION_FLAG, AT(version), 0, 0, NULL, "Print the version and exit."},
    END,
};

#define OPTION_TTL                                                            \
    {                                                                         \
        "ttl", "TIME", VF_OPTION_DURATION, AT(ttl_ms), 0, MS_OF_A_YEAR, NULL, \
            "When the lease ends by itself, from now on (default: never)."    \
    }
#define OPTION_REQUIRE                                                                       \
    {                                                                                        \
        "require", "SOURCE", VF_OPTION_STRINGS, AT(require), 0, 0, "hit standby clone cold", \
            "Take a VM from this source only: hit, standby, clone or cold. May be repeated." \
    }
#define OPTION_TIMEOUT(what)                                                               \
    {                                                                                      \
        "timeout", "TIME", VF_OPTION_DURATION, AT(timeout_ms), 1, MS_OF_A_YEAR, NULL, what \
    }
#define OPTIONS_NETWORK                                                                            \
    {"publish",                                                                                    \
     "[HOST:]GUEST[/udp]",                                                                         \
     VF_OPTION_STRINGS,                                                                            \
     AT(publish),                                                                                  \
     0,                                                                                            \
     0,                                                                                            \
     NULL,                                                                                         \
     "Have a port of the daemon's host lead to a port of the guest; without HOST, a free one. "    \
     "Instead of those of the template's spec. May be repeated."},                                 \
        {"netns",                                                                                  \
         "PATH",                                                                                   \
         VF_OPTION_STRING,                                                                         \
         AT(netns),                                                                                \
         0,                                                                                        \
         0,                                                                                        \
         VF_COMPLETE_FILES,                                                                        \
         "The network namespace with the tap, for a template whose network is external. For "      \
         "admins."},                                                                               \
    {                                                                                              \
        "tap", "NAME", VF_OPTION_STRING, AT(tap), 0, 0, NULL, "The tap for such a VM. For admins." \
    }
#define OPTION_ENV                                                          \
    {                                                                       \
        "env", "NAME=VALUE", VF_OPTION_STRINGS, AT(env), 0, 0, NULL,        \
            "Set a variable of the command's environment. May be repeated." \
    }
#define OPTION_CWD                                                                                \
    {                                                                                             \
        "cwd", "DIR", VF_OPTION_STRING, AT(cwd), 0, 0, NULL, "The command's directory in the VM." \
    }
#define OPTION_NO_STDIN                                                    \
    {                                                                      \
        "no-stdin", NULL, VF_OPTION_NOT_FLAG, AT(interactive), 0, 0, NULL, \
            "Give the command no input."                                   \
    }

static const struct vf_option add_options[] = {{"name", "NAME", VF_OPTION_STRING, AT(name), 0, 0,
                                                NULL,
                                                "Name the template so, whatever the file says."},
                                               END};
static const struct vf_option define_options[] = {
    {"name", "NAME", VF_OPTION_STRING, AT(name), 0, 0, NULL,
     "Its name, whatever the file says. Default: the name in the file, else the file's own."},
    END};
static const struct vf_option fetch_options[] = {
    {"all", NULL, VF_OPTION_FLAG, AT(all), 0, 0, NULL,
     "Fetch every asset that has a file for the daemon's host and is not there yet."},
    OPTION_TIMEOUT("How long to wait for it (default: as long as it takes)."),
    END};
static const struct vf_option gc_options[] = {
    {"dry-run", NULL, VF_OPTION_FLAG, AT(dry_run), 0, 0, NULL, "Only say what would be removed."},
    END};
static const struct vf_option warm_options[] = {
    {"count", "N", VF_OPTION_INT, AT(count), 1, 1000000, NULL,
     "How many VMs to keep parked (default: the pool's target, at least 1)."},
    OPTION_TIMEOUT("How long to wait for it (default 300s)."),
    END};
static const struct vf_option acquire_options[] = {
    OPTION_TTL, OPTION_REQUIRE, OPTIONS_NETWORK,
    OPTION_TIMEOUT("How long to wait for a VM (default 30s)."), END};
static const struct vf_option run_options[] = {
    OPTION_TTL,
    OPTION_REQUIRE,
    OPTIONS_NETWORK,
    OPTION_TIMEOUT("How long to wait for a VM (default 30s)."),
    OPTION_ENV,
    OPTION_CWD,
    OPTION_NO_STDIN,
    {"verbose", NULL, VF_OPTION_FLAG, AT(verbose), 0, 0, NULL,
     "Say on stderr where the VM came from and how long each stage took."},
    END};
static const struct vf_option exec_options[] = {
    OPTION_TIMEOUT("Have the guest kill the command after this time (default: never)."), OPTION_ENV,
    OPTION_CWD, OPTION_NO_STDIN, END};
static const struct vf_option ps_options[] = {{"parked", NULL, VF_OPTION_FLAG, AT(parked), 0, 0,
                                               NULL, "Also VMs that wait in pools (admins only)."},
                                              END};
static const struct vf_option renew_options[] = {
    {"ttl", "TIME", VF_OPTION_DURATION, AT(ttl_ms), 0, MS_OF_A_YEAR, NULL,
     "When the lease ends by itself, from now on; 0: never (default)."},
    END};
static const struct vf_option events_options[] = {
    {"since", "N", VF_OPTION_INT, AT(since), 0, INT64_MAX, NULL,
     "Begin after event number N; 0: with the oldest that is kept (default: only new ones)."},
    {"no-follow", NULL, VF_OPTION_NOT_FLAG, AT(follow), 0, 0, NULL,
     "Print what there is and exit, instead of waiting for more."},
    END};
static const struct vf_option bench_options[] = {
    {"count", "N", VF_OPTION_INT, AT(count), 1, 10000000, NULL,
     "How many VMs to acquire and release (default 100)."},
    {"concurrency", "N", VF_OPTION_INT, AT(concurrency), 1, 256, NULL,
     "How many callers at once (default 1)."},
    {"new-connection", NULL, VF_OPTION_NOT_FLAG, AT(kept), 0, 0, NULL,
     "Connect anew for each acquire, and count that in."},
    {"kept", NULL, VF_OPTION_FLAG, AT(kept), 0, 0, NULL,
     "Keep one connection for each caller (default)."},
    OPTION_REQUIRE,
    OPTION_TIMEOUT("How long to wait for each VM (default 30s)."),
    END};

const struct vf_command vf_commands[] = {
    {"doctor", "", 0, 0, false, false, NULL, "check this host",
     "Checks what vmfactory needs of this host, with a fix for each finding: KVM, memory and its "
     "pressure, QEMU, "
     "the kernel, limits, the daemon and its sockets, guest images. Works without the daemon. "
     "Exits with 1 if "
     "something that is needed is missing.",
     NULL, vf_cmd_doctor},
    {"template add", "FILE", 1, 1, false, false, VF_COMPLETE_FILES, "add or replace a template",
     "Sends the spec in FILE to the daemon; relative paths in it are seen from the file's "
     "directory. Nothing is "
     "built yet: warm or template build does that. For admins.",
     add_options, vf_cmd_template_add},
    {"template ls", "", 0, 0, false, false, NULL, "list the templates", NULL, NULL,
     vf_cmd_template_ls},
    {"template show", "NAME", 1, 1, false, false, VF_COMPLETE_TEMPLATES,
     "show a template and its spec", NULL, NULL, vf_cmd_template_show},
    {"template build", "NAME", 1, 1, false, false, VF_COMPLETE_TEMPLATES,
     "build a new generation in the background",
     "Begins to build a new generation, which takes over from the old one when it is ready. For "
     "admins.",
     NULL, vf_cmd_template_build},
    {"template rm", "NAME...", 1, VF_WORDS_MAX, false, false, VF_COMPLETE_TEMPLATES,
     "remove templates with all that was built of them",
     "Destroys what is parked and removes the templates. Refused while VMs of one are leased. For "
     "admins.",
     NULL, vf_cmd_template_rm},
    {"class ls", "", 0, 0, false, false, NULL, "list the runtime classes",
     "A class says which VMM runs a template, with which pinned assets. Each VMM has a built-in "
     "one: the host's own "
     "binary.",
     NULL, vf_cmd_class_ls},
    {"class show", "NAME", 1, 1, false, false, VF_COMPLETE_CLASSES,
     "show a class and its definition", NULL, NULL, vf_cmd_class_show},
    {"class set", "FILE", 1, 1, false, false, VF_COMPLETE_FILES, "add or replace a class",
     "Sends the definition in FILE to the daemon. It comes into force with all other classes, or, "
     "if something is "
     "wrong with it, nothing changes. Generations that were built keep what they were built with. "
     "For admins.",
     define_options, vf_cmd_class_set},
    {"class rm", "NAME...", 1, VF_WORDS_MAX, false, false, VF_COMPLETE_CLASSES, "remove classes",
     "Refused while a template names the class. For admins.", NULL, vf_cmd_class_rm},
    {"asset ls", "", 0, 0, false, false, NULL, "list the assets, and which are fetched", NULL, NULL,
     vf_cmd_asset_ls},
    {"asset add", "FILE", 1, 1, false, false, VF_COMPLETE_FILES, "add or replace an asset",
     "Sends the definition in FILE, URLs and SHA-256 digests, to the daemon. Nothing is fetched "
     "yet: asset fetch does "
     "that. For admins.",
     define_options, vf_cmd_asset_add},
    {"asset rm", "NAME...", 1, VF_WORDS_MAX, false, false, VF_COMPLETE_ASSETS, "remove assets",
     "Removes the definitions; asset gc removes the files. Refused while a class names the asset. "
     "For admins.",
     NULL, vf_cmd_asset_rm},
    {"asset fetch", "NAME...|--all", 0, VF_WORDS_MAX, false, false, VF_COMPLETE_ASSETS,
     "fetch assets into the daemon's store and wait for them",
     "The daemon fetches them, resumes what was fetched in part, and keeps nothing whose digest is "
     "not the one that is "
     "pinned. Shows progress on a terminal, else a line for each. For admins.",
     fetch_options, vf_cmd_asset_fetch},
    {"asset verify", "[NAME...]", 0, VF_WORDS_MAX, false, false, VF_COMPLETE_ASSETS,
     "hash what was fetched again",
     "Without a name, all that are fetched. What is not what its digest says is moved aside, so "
     "that asset fetch gets it "
     "anew, and the exit status is 1. For admins.",
     NULL, vf_cmd_asset_verify},
    {"asset gc", "", 0, 0, false, false, NULL, "remove files that nothing uses",
     "Removes from the store what no class, no template's generation and no running VM uses, and "
     "parts of fetches that "
     "are not under way. For admins.",
     gc_options, vf_cmd_asset_gc},
    {"warm", "NAME", 1, 1, false, false, VF_COMPLETE_TEMPLATES,
     "fill a template's pool and wait until it is full",
     "Builds the template if need be, has VMs parked, and waits for them. Shows progress on a "
     "terminal, else a line "
     "for each change. Fails when the build fails, or three clones in a row. For admins.",
     warm_options, vf_cmd_warm},
    {"status", "", 0, 0, false, false, NULL, "show the daemon, templates and pools", NULL, NULL,
     vf_cmd_status},
    {"acquire", "NAME", 1, 1, false, false, VF_COMPLETE_TEMPLATES, "lease a VM of a template",
     "Prints the VM's id on the first line, for scripts, and more about it on stderr, with the "
     "address under which the host reaches the guest. The lease "
     "lasts until release, "
     "or as long as --ttl says.",
     acquire_options, vf_cmd_acquire},
    {"run", "NAME", 1, 1, true, false, VF_COMPLETE_TEMPLATES, "run one command in a fresh VM",
     "Leases a VM, runs the command with this terminal's input and output, and releases the VM "
     "however it ends. "
     "SIGINT and SIGTERM are passed on to the command; a second one ends it. The exit status is "
     "the command's.",
     run_options, vf_cmd_run},
    {"exec", "ID", 1, 1, true, false, VF_COMPLETE_VMS, "run a command in a leased VM",
     "Runs the command with this terminal's input and output; the exit status is the command's.",
     exec_options, vf_cmd_exec},
    {"ps", "", 0, 0, false, false, NULL, "list VMs", "Lists your VMs; everyone's for admins.",
     ps_options, vf_cmd_ps},
    {"release", "ID...", 1, VF_WORDS_MAX, false, false, VF_COMPLETE_VMS, "destroy leased VMs",
     "Ends the leases and destroys the VMs. One that is gone already is no error.", NULL,
     vf_cmd_release},
    {"renew", "ID", 1, 1, false, false, VF_COMPLETE_VMS, "change when a lease ends", NULL,
     renew_options, vf_cmd_renew},
    {"pool show", "NAME", 1, 1, false, false, VF_COMPLETE_TEMPLATES, "show a pool and its settings",
     NULL, NULL, vf_cmd_pool_show},
    {"pool set", "NAME KEY=VALUE...", 2, VF_WORDS_MAX, false, false, VF_COMPLETE_TEMPLATES,
     "change a pool's settings",
     "Changes min, max, target, standby, park, refill_concurrency, start_concurrency, max_waiting, "
     "max_age_s, "
     "max_clones, max_leases or autosize, at once and for good. For admins.",
     NULL, vf_cmd_pool_set},
    {"drain", "NAME", 1, 1, false, false, VF_COMPLETE_TEMPLATES, "empty a pool and keep it empty",
     "Destroys what is parked, and hands out no more until warm is called. Leased VMs go on. For "
     "admins.",
     NULL, vf_cmd_drain},
    {"events", "", 0, 0, false, false, NULL, "follow what happens", NULL, events_options,
     vf_cmd_events},
    {"top", "", 0, 0, false, false, NULL, "watch pools, leases and rates",
     "Redraws each second until q or Ctrl-C; prints once where stdout is no terminal.", NULL,
     vf_cmd_top},
    {"bench", "NAME", 1, 1, false, false, VF_COMPLETE_TEMPLATES, "time acquire and release",
     "Acquires and releases VMs and prints p50, p90, p99 and the maximum for each source, from the "
     "request's sending "
     "to the answer's last byte.",
     bench_options, vf_cmd_bench},
    {"config", "", 0, 0, false, false, NULL, "print the daemon's settings in force", NULL, NULL,
     vf_cmd_config},
    {"version", "", 0, 0, false, false, NULL, "print the versions of this command and the daemon",
     NULL, NULL, vf_cmd_version},
    {"generate", "man|bash|zsh|templates|vms|classes|assets", 1, 1, false, true, NULL,
     "print the man page, completions, or names for these", NULL, NULL, vf_cmd_generate},
    END,
};

const char *const vf_exit_statuses[][2] = {
    {"0", "done"},
    {"1", "failed"},
    {"2", "wrong usage"},
    {"3", "the daemon can't be reached"},
    {"4", "refused for now: too busy, or a deadline passed; trying again may help"},
    {"N", "run, exec: the command's own; 128 + the number of the signal that ended it"},
    {"124", "run, exec: the command was killed after its --timeout"},
    {"125", "run, exec: vmfactory itself failed"},
    {NULL, NULL},
};

const char *const vf_environment[][2] = {
    {"VMFACTORY_SOCKET",
     "The daemon's api.sock, where --socket is not given. Else /run/vmfactory/api.sock, then "
     "$XDG_RUNTIME_DIR/vmfactory/api.sock is used."},
    {"NO_COLOR", "Not empty: print without colors."},
    {NULL, NULL},
};

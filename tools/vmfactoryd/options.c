/* The command line: what to do, which file, and settings over what the file says. See options.h.
 *
 * Every option but --config and --json is a setting under its own or a shorter name, so that the file and the
 * command line can't differ in what they take.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"

enum { OPT_SETTING = 256, OPT_SET, OPT_CONFIG, OPT_JSON, OPT_HELP, OPT_VERSION };

static const struct option long_options[] = {
    {"config", required_argument, NULL, OPT_CONFIG},
    {"state", required_argument, NULL, OPT_SETTING},
    {"run", required_argument, NULL, OPT_SETTING},
    {"log-level", required_argument, NULL, OPT_SETTING},
    {"log-format", required_argument, NULL, OPT_SETTING},
    {"set", required_argument, NULL, OPT_SET},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};
static const char *const option_names[] = {"config", "state", "run",  "log-level", "log-format",
                                           "set",    "json",  "help", "version",   NULL};

/* Which setting an OPT_SETTING is. */
static const struct {
    const char *option, *setting;
} shorter[] = {
    {"state", "state_dir"},
    {"run", "run_dir"},
    {"log-level", "log_level"},
    {"log-format", "log_format"},
};

/* Words that may come first; words: how many of argv they take. */
static const struct {
    const char *name;
    enum command command;
} commands[] = {
    {"config", COMMAND_CONFIG},
    {"check", COMMAND_CHECK},
    {"generate", COMMAND_MAN},
    {"help", COMMAND_HELP},
};
static const char *const command_names[] = {"config", "check", "generate", "help", NULL};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int usage(struct vf_error *err)
{
    return vf_hint(err, "vmfactoryd --help lists what there is");
}

/* value is copied; a relative directory becomes absolute. */
static int add_override(struct options *o, const char *name, const char *value,
                        struct vf_error *err)
{
    bool dir = strcmp(name, "state_dir") == 0 || strcmp(name, "run_dir") == 0;
    char cwd[PATH_MAX], *copy = NULL;

    if (o->n_overrides == MAX_OVERRIDES)
        return vf_fail(err, VF_INVALID_ARGUMENT, "at most %d settings fit on the command line",
                       MAX_OVERRIDES);
    if (dir && value[0] != '/' && value[0] != '\0') {
        if (getcwd(cwd, sizeof(cwd)) == NULL)
            return vf_fail_errno(err, errno, "%s: find the current directory", name);
        if (asprintf(&copy, "%s/%s", cwd, value) < 0)
            copy = NULL;
    } else {
        copy = strdup(value);
    }
    if (copy == NULL)
        return vf_fail(err, VF_NO_MEMORY, "command line: no memory");
    o->overrides[o->n_overrides].name = name;
    o->overrides[o->n_overrides++].value = copy;
    return 0;
}

/* NAME=VALUE */
static int add_set(struct options *o, char *arg, struct vf_error *err)
{
    char *equals = strchr(arg, '=');

    if (equals == NULL || equals == arg)
        return vf_fail(err, VF_INVALID_ARGUMENT, "--set %s: must be NAME=VALUE", arg);
    *equals = '\0';
    return add_override(o, arg, equals + 1, err);
}

static int add_short(struct options *o, const char *option, const char *value, struct vf_error *err)
{
    for (size_t i = 0; i < COUNT(shorter); i++)
        if (strcmp(shorter[i].option, option) == 0)
            return add_override(o, shorter[i].setting, value, err);
    return vf_fail(err, VF_INTERNAL, "--%s names no setting", option);
}

static int unknown(const char *what, const char *word, const char *const *names,
                   struct vf_error *err)
{
    const char *near = vf_nearest(word, names);

    if (near != NULL)
        vf_fail(err, VF_INVALID_ARGUMENT, "unknown %s %s, did you mean %s?", what, word, near);
    else
        vf_fail(err, VF_INVALID_ARGUMENT, "unknown %s %s", what, word);
    return usage(err);
}

/* The words that are no options: nothing, a command, or "generate man". */
static int parse_words(char **words, int n, struct options *o, struct vf_error *err)
{
    int want = 1;
    size_t i = 0;

    if (n == 0)
        return 0;
    while (i < COUNT(commands) && strcmp(commands[i].name, words[0]) != 0)
        i++;
    if (i == COUNT(commands))
        return unknown("command", words[0], command_names, err);
    o->command = commands[i].command;
    if (o->command == COMMAND_MAN) {
        if (n < 2 || strcmp(words[1], "man") != 0) {
            vf_fail(err, VF_INVALID_ARGUMENT, "generate: only \"generate man\" is known");
            return usage(err);
        }
        want = 2;
    }
    if (n > want) {
        vf_fail(err, VF_INVALID_ARGUMENT, "%s: unexpected argument %s", words[0], words[want]);
        return usage(err);
    }
    return 0;
}

static int parse(int argc, char **argv, struct options *o, struct vf_error *err)
{
    bool help = false, version = false;
    int c, index = 0, r = 0;

    opterr = 0;
    while (r == 0 && (c = getopt_long(argc, argv, ":hV", long_options, &index)) != -1) {
        switch (c) {
        case OPT_CONFIG:
            o->config = optarg;
            break;
        case OPT_SETTING:
            r = add_short(o, long_options[index].name, optarg, err);
            break;
        case OPT_SET:
            r = add_set(o, optarg, err);
            break;
        case OPT_JSON:
            o->json = true;
            break;
        case OPT_HELP:
        case 'h':
            help = true;
            break;
        case OPT_VERSION:
        case 'V':
            version = true;
            break;
        case ':':
            vf_fail(err, VF_INVALID_ARGUMENT, "%s: needs a value", argv[optind - 1]);
            return usage(err);
        default:
            if (strncmp(argv[optind - 1], "--", 2) != 0)
                return unknown("option", argv[optind - 1], (const char *const[]){NULL}, err);
            return unknown("option", argv[optind - 1] + 2, option_names, err);
        }
    }
    if (r == 0)
        r = parse_words(argv + optind, argc - optind, o, err);
    if (r < 0)
        return r;
    if (help || version)
        o->command = help ? COMMAND_HELP : COMMAND_VERSION;
    if (o->json && o->command != COMMAND_CONFIG) {
        vf_fail(err, VF_INVALID_ARGUMENT, "--json goes with \"config\" alone");
        return usage(err);
    }
    return 0;
}

int options_parse(int argc, char **argv, struct options *ret, struct vf_error *err)
{
    struct options o = {.command = COMMAND_RUN};
    int r = parse(argc, argv, &o, err);

    if (r < 0) {
        options_free(&o);
        return r;
    }
    if (o.config == NULL && geteuid() == 0 && access(CONFIG_FILE, F_OK) == 0)
        o.config = CONFIG_FILE;
    *ret = o;
    return 0;
}

void options_free(struct options *o)
{
    for (int i = 0; i < o->n_overrides; i++)
        free(o->overrides[i].value);
    o->n_overrides = 0;
}

int options_settings(const struct options *o, struct vf_settings *ret, struct vf_error *err)
{
    struct vf_settings s;
    int r = vf_settings_load(o->config, &s, err);

    if (r < 0)
        return r;
    for (int i = 0; i < o->n_overrides && r == 0; i++)
        r = vf_settings_set(&s, o->overrides[i].name, o->overrides[i].value, err);
    if (r == 0)
        r = vf_settings_check(&s, err);
    if (r < 0) {
        vf_settings_free(&s);
        return r;
    }
    *ret = s;
    return 0;
}

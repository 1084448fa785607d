/* The command line by the table of commands. Options may stand before, between and after operands; what follows
 * "--", or the operands of a command that takes a command, is left alone. */
#include "tools/vmfactory/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAMES 64

static int usage(struct vf_error *err, const char *what, const char *word, const char *const *names,
                 const char *prefix)
{
    const char *near = vf_nearest(word, names);
    int r;

    if (near == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s \"%.100s\"", what, word);
    r = vf_fail(err, VF_INVALID_ARGUMENT, "%s \"%.100s\"; did you mean \"%s%s\"?", what, word,
                prefix, near);
    return r;
}

int vf_args_duration(const char *text, int64_t *ret_ms)
{
    static const struct {
        const char *name;
        int64_t ms;
    } units[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    char *end;
    long long n;

    if (text[0] < '0' || text[0] > '9')
        return -EINVAL;
    errno = 0;
    n = strtoll(text, &end, 10);
    for (size_t i = 0; errno == 0 && i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        if (n > INT64_MAX / units[i].ms)
            return -ERANGE;
        *ret_ms = n * units[i].ms;
        return 0;
    }
    return -EINVAL;
}

const struct vf_command *vf_args_command(const char *const *words, int *ret_used)
{
    char two[100];

    for (const struct vf_command *c = vf_commands; c->name != NULL && words[0] != NULL; c++) {
        bool pair = strchr(c->name, ' ') != NULL;

        if (pair && words[1] == NULL)
            continue;
        if (pair)
            snprintf(two, sizeof(two), "%s %s", words[0], words[1]);
        if (strcmp(c->name, pair ? two : words[0]) == 0) {
            *ret_used = pair ? 2 : 1;
            return c;
        }
    }
    return NULL;
}

static const struct vf_option *find(const struct vf_option *table, const char *name, size_t len)
{
    for (; table != NULL && table->name != NULL; table++)
        if (strncmp(table->name, name, len) == 0 && table->name[len] == '\0')
            return table;
    return NULL;
}

static int unknown_option(const struct vf_cli *cli, const char *name, struct vf_error *err)
{
    const char *names[MAX_NAMES] = {NULL};
    const struct vf_option *tables[] = {vf_global_options,
                                        cli->command != NULL ? cli->command->options : NULL};
    size_t n = 0;

    for (size_t t = 0; t < 2; t++)
        for (const struct vf_option *o = tables[t]; o != NULL && o->name != NULL; o++)
            if (n < MAX_NAMES - 1)
                names[n++] = o->name;
    return usage(err, "unknown option", name, names, "--");
}

/* The words that can stand where word does: first words, or the second ones of a group. */
static int unknown_command(const char *group, const char *word, struct vf_error *err)
{
    const char *names[MAX_NAMES] = {NULL};
    static char first[MAX_NAMES][20];
    size_t n = 0;

    for (const struct vf_command *c = vf_commands; c->name != NULL && n < MAX_NAMES - 1; c++) {
        size_t len = strcspn(c->name, " ");

        if (c->hidden ||
            (group != NULL && (strlen(group) != len || strncmp(c->name, group, len) != 0)))
            continue;
        snprintf(first[n], sizeof(first[n]), "%.*s", (int)(group != NULL ? 19 : len),
                 group != NULL ? c->name + len + 1 : c->name);
        names[n] = first[n];
        n++;
    }
    if (word == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "which %s command?", group);
    return usage(err, "unknown command", word, names, "");
}

static bool is_group(const char *word)
{
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++) {
        size_t len = strcspn(c->name, " ");

        if (c->name[len] == ' ' && strlen(word) == len && strncmp(c->name, word, len) == 0)
            return true;
    }
    return false;
}

static int set(struct vf_args *args, const struct vf_option *o, const char *value,
               struct vf_error *err)
{
    char *at = (char *)args + o->offset, *end;
    struct vf_words *words;
    int64_t n = 0;

    switch (o->kind) {
    case VF_OPTION_FLAG:
    case VF_OPTION_NOT_FLAG:
        *(bool *)(void *)at = o->kind == VF_OPTION_FLAG;
        return 0;
    case VF_OPTION_STRING:
        if (value[0] == '\0')
            return vf_fail(err, VF_INVALID_ARGUMENT, "--%s: must not be empty", o->name);
        *(const char **)(void *)at = value;
        return 0;
    case VF_OPTION_STRINGS:
        words = (struct vf_words *)(void *)at;
        if (words->n == VF_WORDS_MAX)
            return vf_fail(err, VF_INVALID_ARGUMENT, "--%s: at most %d of them", o->name,
                           VF_WORDS_MAX);
        words->v[words->n++] = value;
        return 0;
    case VF_OPTION_DURATION:
        if (vf_args_duration(value, &n) < 0)
            return vf_fail(err, VF_INVALID_ARGUMENT,
                           "--%s: must be a time like 90s, 500ms or 5m (is \"%.60s\")", o->name,
                           value);
        break;
    case VF_OPTION_INT:
        errno = 0;
        n = strtoll(value, &end, 10);
        if (end == value || *end != '\0' || errno != 0)
            return vf_fail(err, VF_INVALID_ARGUMENT, "--%s: must be a whole number (is \"%.60s\")",
                           o->name, value);
        break;
    }
    if (n < o->min || n > o->max)
        return vf_fail(err, VF_INVALID_ARGUMENT, "--%s: must be from %lld to %lld%s (is \"%.60s\")",
                       o->name, (long long)o->min, (long long)o->max,
                       o->kind == VF_OPTION_DURATION ? " ms" : "", value);
    *(int64_t *)(void *)at = n;
    return 0;
}

/* argv[i], "--name", "--name=value" or "-h"; *ret_next is behind what it used. */
static int option(struct vf_cli *cli, char **argv, int i, int *ret_next, struct vf_error *err)
{
    const char *word = argv[i], *name = word + 2, *equals = strchr(word, '='), *value = NULL;
    const struct vf_option *o;
    size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);
    char shown[100];

    if (word[1] != '-') {
        if (strcmp(word, "-h") != 0)
            return vf_fail(err, VF_INVALID_ARGUMENT, "unknown option \"%.100s\"", word);
        cli->args.help = true;
        *ret_next = i + 1;
        return 0;
    }
    o = find(vf_global_options, name, len);
    if (o == NULL && cli->command != NULL)
        o = find(cli->command->options, name, len);
    snprintf(shown, sizeof(shown), "%.*s", (int)(len < 60 ? len : 60), name);
    if (o == NULL)
        return unknown_option(cli, shown, err);
    *ret_next = i + 1;
    if (o->metavar == NULL && equals != NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "--%s takes no value", o->name);
    if (o->metavar != NULL) {
        value = equals != NULL ? equals + 1 : argv[i + 1];
        if (value == NULL)
            return vf_fail(err, VF_INVALID_ARGUMENT, "--%s needs %s", o->name, o->metavar);
        *ret_next += equals == NULL;
    }
    return set(&cli->args, o, value, err);
}

/* A word that is no option: names the command, or is an operand of it. */
static int word_of_command(struct vf_cli *cli, const char **pending, const char *word,
                           struct vf_error *err)
{
    const char *const words[] = {*pending != NULL ? *pending : word, *pending != NULL ? word : NULL,
                                 NULL};
    int used;

    if (cli->command != NULL) {
        int max = cli->command->max_operands;

        if (cli->n_operands >= (max < 0 || max > VF_WORDS_MAX ? VF_WORDS_MAX : max))
            return vf_fail(err, VF_INVALID_ARGUMENT, "%s: one word too many: \"%.100s\"",
                           cli->command->name, word);
        cli->operands[cli->n_operands++] = word;
        return 0;
    }
    cli->command = vf_args_command(words, &used);
    if (cli->command != NULL) {
        *pending = NULL;
        return 0;
    }
    if (*pending == NULL && is_group(word)) {
        *pending = word;
        return 0;
    }
    return unknown_command(*pending, word, err);
}

static int check_operands(const struct vf_cli *cli, const char *pending, struct vf_error *err)
{
    const struct vf_command *c = cli->command;

    if (pending != NULL)
        return unknown_command(pending, NULL, err);
    if (c == NULL)
        return vf_fail(err, VF_INVALID_ARGUMENT, "which command?");
    if (cli->n_operands < c->min_operands)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s needs %s", c->name, c->operands);
    if (c->takes_command && (cli->rest == NULL || cli->rest[0] == NULL))
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s needs a command: %s %s -- COMMAND...", c->name,
                       c->name, c->operands);
    return 0;
}

int vf_args_parse(int argc, char **argv, struct vf_cli *ret, struct vf_error *err)
{
    const char *pending = NULL; /* "template", whose second word is still to come */
    struct vf_cli cli = {
        .args = {.since = -1, .follow = true, .kept = true, .interactive = true, .color = true}};
    bool only_operands = false;
    int r = 0;

    for (int i = 1, next; i < argc && r == 0; i = next) {
        const struct vf_command *c = cli.command;
        const char *word = argv[i];

        next = i + 1;
        if (c != NULL && c->takes_command && cli.n_operands == c->max_operands &&
            (strcmp(word, "--") == 0 || word[0] != '-')) {
            cli.rest = (const char *const *)argv + i + (word[0] == '-');
            break;
        }
        if (!only_operands && strcmp(word, "--") == 0)
            only_operands = true;
        else if (!only_operands && word[0] == '-' && word[1] != '\0')
            r = option(&cli, argv, i, &next, err);
        else
            r = word_of_command(&cli, &pending, word, err);
    }
    if (r == 0 && !cli.args.help && !cli.args.version)
        r = check_operands(&cli, pending, err);
    *ret = cli;
    return r;
}

/* generate: the man page and the completions from the table of commands, and names for those to offer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/version.h"
#include "tools/vmfactory/cli.h"

/* ---- man page */

/* Text for troff: nothing in it may look like a request or an escape. */
static void roff(const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", stdout);
    for (; *text != '\0'; text++) {
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
    }
}

static void man_options(const struct vf_option *o)
{
    for (; o != NULL && o->name != NULL; o++) {
        fputs(".TP\n\\fB\\-\\-", stdout);
        roff(o->name);
        fputs("\\fR", stdout);
        if (o->metavar != NULL)
            printf(" \\fI%s\\fR", o->metavar);
        putchar('\n');
        roff(o->help);
        putchar('\n');
    }
}

static void man_pairs(const char *section, const char *const (*pairs)[2])
{
    printf(".SH %s\n", section);
    for (; (*pairs)[0] != NULL; pairs++) {
        fputs(".TP\n\\fB", stdout);
        roff((*pairs)[0]);
        fputs("\\fR\n", stdout);
        roff((*pairs)[1]);
        putchar('\n');
    }
}

static void man(void)
{
    printf(".TH VMFACTORY 1 \"\" \"vmfactory %s\" \"User Commands\"\n", VF_VERSION);
    fputs(".SH NAME\nvmfactory \\- lease VMs from vmfactoryd's warm pools\n"
          ".SH SYNOPSIS\n\\fBvmfactory\\fR [\\fIOPTION\\fR...] \\fICOMMAND\\fR ...\n"
          ".SH DESCRIPTION\nTalks to vmfactoryd over its unix socket: fills its pools, leases VMs, "
          "runs "
          "commands in\nthem, and shows how they fare. Tables are for people; with "
          "\\fB\\-\\-json\\fR, "
          "output is the API's\nown JSON, one object, and errors are JSON on standard error.\n"
          ".PP\nTimes are given as 90 or 90s, 500ms, 5m, 2h or 1d.\n"
          ".SH COMMANDS\n",
          stdout);
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++) {
        if (c->hidden)
            continue;
        printf(".SS \"%s%s%s%s\"\n", c->name, c->operands[0] != '\0' ? " " : "", c->operands,
               c->takes_command ? " [\\-\\-] COMMAND [ARGUMENT...]" : "");
        if (c->about != NULL)
            roff(c->about);
        else
            printf("%c%s.", c->summary[0] - 'a' + 'A', c->summary + 1);
        putchar('\n');
        man_options(c->options);
    }
    puts(".SH OPTIONS\nThese may stand anywhere before a command that is to run in a VM.");
    man_options(vf_global_options);
    man_pairs("EXIT STATUS", vf_exit_statuses);
    man_pairs("ENVIRONMENT", vf_environment);
    puts(".SH EXAMPLES\n.nf\n"
         "vmfactory template add /usr/local/share/vmfactory/specs/linux.json\n"
         "vmfactory warm linux \\-\\-count 4\n"
         "vmfactory run linux \\-\\- uname \\-a\n"
         "id=$(vmfactory acquire linux \\-\\-ttl 10m 2>/dev/null)\n"
         "vmfactory exec \"$id\" \\-\\- cat /etc/machine\\-id; vmfactory release \"$id\"\n.fi\n"
         ".SH SEE ALSO\n.BR vmfactoryd (8),\n.BR libvmfactory\\-client (3)");
}

/* ---- completions: what they need to know is told in shell variables, the rest is the same for every command */

static int group_len(const char *name)
{
    return (int)strcspn(name, " ");
}

/* Groups are the first words of commands of two words, in the table's order. The one after g (NULL: the first), as the
 * name of its first command; NULL: g was the last. */
static const char *next_group(const char *g)
{
    bool behind = g == NULL;

    for (const struct vf_command *c = vf_commands; c->name != NULL; c++) {
        bool same = g != NULL && group_len(c->name) == group_len(g) &&
                    strncmp(c->name, g, (size_t)group_len(g) + 1) == 0;

        if (behind && !same && !c->hidden && strchr(c->name, ' ') != NULL)
            return c->name;
        behind = behind || same;
    }
    return NULL;
}

static void groups(const char *separator)
{
    for (const char *g = NULL, *next = next_group(NULL); (g = next) != NULL;) {
        next = next_group(g);
        printf("%.*s%s", group_len(g), g, next != NULL ? separator : "");
    }
}

/* The second words of g's commands, with before and after around each. */
static void members(const char *g, const char *before, const char *after)
{
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++)
        if (strncmp(c->name, g, (size_t)group_len(g) + 1) == 0 && !c->hidden)
            printf("%s%s%s", before, c->name + group_len(g) + 1, after);
}

static void words_of_options(const struct vf_option *o, const char *separator)
{
    for (; o != NULL && o->name != NULL; o++)
        printf("--%s%s%s", o->name, o->metavar != NULL ? "=" : "", separator);
}

static void bash_values(const struct vf_option *o)
{
    for (; o != NULL && o->name != NULL; o++) {
        if (o->complete == NULL)
            continue;
        if (strcmp(o->complete, VF_COMPLETE_FILES) == 0)
            printf("            --%s) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", o->name);
        else
            printf("            --%s) COMPREPLY=($(compgen -W \"%s\" -- \"$cur\")); return ;;\n",
                   o->name, o->complete);
    }
}

/* "--name|" for each that takes a value. */
static void value_options(const struct vf_option *o)
{
    for (; o != NULL && o->name != NULL; o++)
        if (o->metavar != NULL)
            printf("--%s|", o->name);
}

static void bash_case(const struct vf_command *c)
{
    printf("        \"%s\")\n            options=\"", c->name);
    words_of_options(c->options, " ");
    printf("\" operands=%s command=%s ;;\n", c->complete != NULL ? c->complete : "none",
           c->takes_command ? "yes" : "no");
}

static void bash(void)
{
    fputs("# bash completion for vmfactory, made by vmfactory generate bash\n"
          "_vmfactory()\n{\n"
          "    local cur prev word group= name= options= operands=none command=no i n=0\n"
          "    cur=${COMP_WORDS[COMP_CWORD]}\n    prev=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}\n"
          "    [[ $cur == = ]] && cur=\n"
          "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
          "        word=${COMP_WORDS[i]}\n"
          "        case $word in\n            --) [[ -n $name ]] && n=99 ;;\n",
          stdout);
    /* bash takes --name=value for three words. */
    fputs("            =) i=$((i + 1)) ;;\n            ", stdout);
    value_options(vf_global_options);
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++)
        value_options(c->options);
    fputs("--=)\n                [[ ${COMP_WORDS[i+1]} == = ]] || i=$((i + 1)) ;;\n"
          "            -*) ;;\n"
          "            *)\n                if [[ -n $name ]]; then n=$((n + 1))\n"
          "                elif [[ -n $group ]]; then name=\"$group $word\"\n"
          "                else\n                    case $word in\n"
          "                        ",
          stdout);
    groups("|");
    fputs(") group=$word ;;\n"
          "                        *) name=$word ;;\n"
          "                    esac\n                fi ;;\n"
          "        esac\n    done\n"
          "    case $name in\n",
          stdout);
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++)
        if (!c->hidden)
            bash_case(c);
    fputs("    esac\n    if [[ $prev == --* ]]; then\n        case $prev in\n", stdout);
    bash_values(vf_global_options);
    fputs("            --require) COMPREPLY=($(compgen -W \"hit standby clone cold\" -- "
          "\"$cur\")); return ;;\n"
          "        esac\n    fi\n"
          "    if [[ $command == yes && $n -gt 1 ]]; then\n"
          "        COMPREPLY=($(compgen -c -- \"$cur\"))\n        return\n    fi\n"
          "    if [[ $cur == -* ]]; then\n        COMPREPLY=($(compgen -W \"$options ",
          stdout);
    words_of_options(vf_global_options, " ");
    fputs("\" -- \"$cur\"))\n"
          "        [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n        return\n    fi\n"
          "    if [[ -z $name ]]; then\n        case $group in\n",
          stdout);
    for (const char *g = NULL; (g = next_group(g)) != NULL;) {
        printf("            %.*s) COMPREPLY=($(compgen -W \"", group_len(g), g);
        members(g, "", " ");
        fputs("\" -- \"$cur\")) ;;\n", stdout);
    }
    fputs("            *) COMPREPLY=($(compgen -W \"", stdout);
    groups(" ");
    putchar(' ');
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++)
        if (!c->hidden && strchr(c->name, ' ') == NULL)
            printf("%s ", c->name);
    fputs("\" -- \"$cur\")) ;;\n        esac\n        return\n    fi\n"
          "    case $operands in\n"
          "        files) COMPREPLY=($(compgen -f -- \"$cur\")) ;;\n"
          "        templates|vms|classes|assets) COMPREPLY=($(compgen -W \"$(vmfactory generate "
          "\"$operands\" "
          "2>/dev/null)\" "
          "-- \"$cur\")) ;;\n"
          "    esac\n}\ncomplete -F _vmfactory vmfactory\n",
          stdout);
}

/* Text inside zsh's '…[…]': without what would end it. */
static void zsh_text(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (*text == '[' || *text == ']' || *text == ':')
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void zsh_options(const struct vf_option *o)
{
    for (; o != NULL && o->name != NULL; o++) {
        printf("            '%s--%s%s[", o->kind == VF_OPTION_STRINGS ? "*" : "", o->name,
               o->metavar != NULL ? "=" : "");
        zsh_text(o->help);
        putchar(']');
        if (o->metavar != NULL) {
            printf(":%s:", o->metavar);
            if (o->complete != NULL && strcmp(o->complete, VF_COMPLETE_FILES) == 0)
                fputs("_files", stdout);
            else if (o->complete != NULL)
                printf("(%s)", o->complete);
        }
        fputs("' \\\n", stdout);
    }
}

static void zsh(void)
{
    fputs("#compdef vmfactory\n# zsh completion for vmfactory, made by vmfactory generate zsh\n"
          "_vmfactory_names() {\n"
          "    local -a names\n    names=(${(f)\"$(vmfactory generate $1 2>/dev/null)\"})\n"
          "    compadd -a names\n}\n"
          "_vmfactory() {\n    local name=$words[2]\n    local -a commands global\n    global=(\n",
          stdout);
    for (const struct vf_option *o = vf_global_options; o->name != NULL; o++) {
        printf("        '--%s%s[", o->name, o->metavar != NULL ? "=" : "");
        zsh_text(o->help);
        printf("]%s'\n", o->metavar != NULL ? ":PATH:_files" : "");
    }
    fputs("    )\n    commands=(\n       ", stdout);
    for (const char *g = NULL; (g = next_group(g)) != NULL;)
        printf(" '%.*s:%.*s commands'", group_len(g), g, group_len(g), g);
    putchar('\n');
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++) {
        if (c->hidden || strchr(c->name, ' ') != NULL)
            continue;
        printf("        '%s:", c->name);
        zsh_text(c->summary);
        fputs("'\n", stdout);
    }
    fputs("    )\n    if (( CURRENT == 2 )); then\n"
          "        _describe command commands\n        _arguments $global\n        return\n    fi\n"
          "    if [[ $name == (",
          stdout);
    groups("|");
    fputs(") ]]; then\n"
          "        if (( CURRENT == 3 )); then\n            case $name in\n",
          stdout);
    for (const char *g = NULL; (g = next_group(g)) != NULL;) {
        printf("            %.*s) compadd", group_len(g), g);
        members(g, " ", "");
        fputs(" ;;\n", stdout);
    }
    fputs("            esac\n            return\n        fi\n        name=\"$name $words[3]\"\n"
          "        words=($words[1] $words[3,-1])\n        (( CURRENT-- ))\n    fi\n"
          "    words=($words[2,-1])\n    (( CURRENT-- ))\n    case $name in\n",
          stdout);
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++) {
        if (c->hidden)
            continue;
        printf("    '%s')\n        _arguments $global \\\n", c->name);
        zsh_options(c->options);
        if (c->complete == NULL)
            fputs("            ;;\n", stdout);
        else if (strcmp(c->complete, VF_COMPLETE_FILES) == 0)
            fputs("            '*:file:_files' ;;\n", stdout);
        else
            printf("            '%s:%s: _vmfactory_names %s'%s ;;\n",
                   c->max_operands == 1 ? "1" : "*", c->complete, c->complete,
                   c->takes_command ? " '*::argument:_files'" : "");
    }
    fputs("    esac\n}\n_vmfactory \"$@\"\n", stdout);
}

/* ---- names, for the completions */

static int names(struct vf_cli *cli, const char *path, const char *list, const char *key)
{
    const struct vf_json *item;
    struct vf_json *j;
    int r = vf_cli_request(cli, "GET", path, NULL, NULL, &j);

    if (r != 0)
        return r;
    for (size_t i = 0; (item = vf_json_at(vf_json_get(j, list), i)) != NULL; i++)
        puts(vf_json_str(vf_json_get(item, key), ""));
    vf_json_delete(j);
    return 0;
}

int vf_cmd_generate(struct vf_cli *cli)
{
    static const struct {
        const char *what;
        void (*print)(void);
    } texts[] = {{"man", man}, {"bash", bash}, {"zsh", zsh}};
    static const char *const known[] = {"man", "bash",    "zsh",    "templates",
                                        "vms", "classes", "assets", NULL};
    const char *what = cli->operands[0], *near;
    struct vf_error err;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (strcmp(what, texts[i].what) == 0) {
            texts[i].print();
            return 0;
        }
    }
    if (strcmp(what, "templates") == 0)
        return names(cli, "/v1/templates", "templates", "name");
    if (strcmp(what, "vms") == 0)
        return names(cli, "/v1/vms", "vms", "id");
    if (strcmp(what, "classes") == 0)
        return names(cli, "/v1/classes", "classes", "name");
    if (strcmp(what, "assets") == 0)
        return names(cli, "/v1/assets", "assets", "name");
    near = vf_nearest(what, known);
    vf_fail(&err, VF_INVALID_ARGUMENT, "generate \"%.60s\"?%s%s%s", what,
            near != NULL ? " did you mean \"" : "", near != NULL ? near : "",
            near != NULL ? "\"?" : "");
    vf_report_error(cli, &err);
    return VF_EXIT_USAGE;
}

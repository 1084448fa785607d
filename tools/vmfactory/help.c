/* --help, from the table of commands. */
#include "tools/vmfactory/cli.h"

#include <stdio.h>
#include <string.h>

#define WIDTH 80

/* Text in lines of at most WIDTH, each after indent spaces; the cursor stands at column. */
static void wrapped(const char *text, int indent, int column)
{
    while (*text != '\0') {
        int word = (int)strcspn(text, " ");

        if (column > indent && column + 1 + word > WIDTH) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        } else if (column < indent) {
            printf("%*s", indent - column, "");
            column = indent;
        }
        printf("%.*s", word, text);
        column += word;
        text += word;
        text += *text == ' ';
    }
    putchar('\n');
}

/* "  label   text", wrapped. */
static void entry(const char *label, int width, const char *text)
{
    int n = printf("  %s", label);

    if (n > width + 2) {
        putchar('\n');
        n = 0;
    }
    wrapped(text, width + 4, n);
}

static void options(const struct vf_option *o)
{
    char label[64];

    for (; o != NULL && o->name != NULL; o++) {
        snprintf(label, sizeof(label), "--%s%s%s", o->name, o->metavar != NULL ? " " : "",
                 o->metavar != NULL ? o->metavar : "");
        entry(label, 20, o->help);
    }
}

void vf_usage_line(const struct vf_command *c, char *buf, size_t size)
{
    snprintf(buf, size, "vmfactory %s [OPTION...]%s%s%s", c->name,
             c->operands[0] != '\0' ? " " : "", c->operands,
             c->takes_command ? " [--] COMMAND [ARGUMENT...]" : "");
}

void vf_help_command(const struct vf_command *c)
{
    char line[200];

    vf_usage_line(c, line, sizeof(line));
    printf("%s\n\n", line);
    if (c->about != NULL)
        wrapped(c->about, 0, 0);
    else
        printf("%c%s.\n", c->summary[0] - 'a' + 'A', c->summary + 1);
    if (c->options != NULL) {
        puts("\nOptions:");
        options(c->options);
    }
    puts("\nGlobal options:");
    options(vf_global_options);
}

void vf_help_all(void)
{
    puts(
        "vmfactory [OPTION...] COMMAND ...\n\nTalks to vmfactoryd: fills its pools, leases VMs and "
        "runs commands in them.\n\nCommands:");
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++)
        if (!c->hidden)
            entry(c->name, 16, c->summary);
    puts("\nGlobal options:");
    options(vf_global_options);
    puts("\nExit status:");
    for (int i = 0; vf_exit_statuses[i][0] != NULL; i++)
        entry(vf_exit_statuses[i][0], 4, vf_exit_statuses[i][1]);
    puts("\nEnvironment:");
    for (int i = 0; vf_environment[i][0] != NULL; i++)
        entry(vf_environment[i][0], 20, vf_environment[i][1]);
    puts("\nvmfactory COMMAND --help says more of each.");
}

/* vmfactory: the command. Reads its words, runs the command they name, exits with its status.
 *
 *     vf_args_parse -> the command's function -> one request or a few -> a table or JSON -> exit status
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/version.h"
#include "tools/vmfactory/cli.h"

static int wrong_usage(const struct vf_cli *cli, const struct vf_error *err)
{
    char line[200];

    vf_report_error(cli, err);
    if (cli->command != NULL && !cli->args.json) {
        vf_usage_line(cli->command, line, sizeof(line));
        fprintf(stderr, "usage: %s\n", line);
    } else if (!cli->args.json)
        fputs("usage: vmfactory COMMAND ...; vmfactory --help lists the commands\n", stderr);
    return cli->command != NULL && cli->command->takes_command ? VF_EXIT_SELF : VF_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    const char *no_color = getenv("NO_COLOR");
    struct vf_cli cli;
    struct vf_error err;
    int status;

    /* Whoever reads our output may go away: then writing fails, and what is leased is released. */
    signal(SIGPIPE, SIG_IGN);
    if (vf_args_parse(argc, argv, &cli, &err) < 0)
        return wrong_usage(&cli, &err);
    if (cli.args.help) {
        if (cli.command != NULL)
            vf_help_command(cli.command);
        else
            vf_help_all();
        return 0;
    }
    if (cli.command == NULL) {
        puts("vmfactory " VF_VERSION);
        return 0;
    }
    if (no_color != NULL && no_color[0] != '\0')
        cli.args.color = false;
    if (!isatty(STDOUT_FILENO))
        cli.args.color = false;
    status = cli.command->run(&cli);
    vmfactory_close(cli.h);
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
        perror("vmfactory: write");
        status = VF_EXIT_FAILED;
    }
    return status;
}

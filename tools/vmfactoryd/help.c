/* --help, and the man page, both with the settings' table in them. See options.h. */
#include "base/version.h"
#include "options.h"
#include "pool/settings_text.h"

#include <string.h>

static const struct {
    const char *option, *meaning;
} option_help[] = {
    {"--config FILE", "Read the settings from FILE, a JSON object. root's default, if it is there: "
                      "/etc/vmfactory/vmfactoryd.json"},
    {"--state DIR", "The state directory: templates, pools, generations"},
    {"--run DIR", "The run directory: the sockets, and a directory for each VM"},
    {"--log-level LEVEL", "debug, info, warn, error or off"},
    {"--log-format FORMAT", "text or json"},
    {"--set NAME=VALUE", "Any setting, over what the file says; as often as needed"},
    {"-h, --help", "This text"},
    {"-V, --version", "The version"},
};

static const struct {
    const char *command, *meaning;
} command_help[] = {
    {"config [--json]", "Print the settings that would be in force"},
    {"check", "Read the settings, say what is wrong with them, and exit"},
    {"generate man", "Print the man page"},
};

static const struct {
    const char *code, *meaning;
} exit_help[] = {
    {"0", "Stopped in order"},
    {"1", "Failed, or was not done stopping in time; the log says why"},
    {"2", "The command line or the settings are wrong"},
    {"3", "Another daemon uses the run or the state directory"},
};

static const struct {
    const char *name, *meaning;
} signal_help[] = {
    {"SIGTERM, SIGINT",
     "Stop: VMs that nobody holds are destroyed, leased ones go on and are adopted "
     "by the next daemon (setting on_stop). A second one ends the daemon at once"},
    {"SIGHUP", "Read the settings, runtime classes and assets again. A bad file is refused whole"},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

void print_help(FILE *f)
{
    fputs("Usage: vmfactoryd [OPTION…] [COMMAND]\n\n"
          "Keeps pools of ready virtual machines and hands them out over RUN/api.sock.\n"
          "Without a command it runs in the foreground and logs to stderr.\n\nOptions:\n",
          f);
    for (size_t i = 0; i < COUNT(option_help); i++)
        fprintf(f, "  %-22s%s\n", option_help[i].option, option_help[i].meaning);
    fputs("\nCommands:\n", f);
    for (size_t i = 0; i < COUNT(command_help); i++)
        fprintf(f, "  %-22s%s\n", command_help[i].command, command_help[i].meaning);
    fputs("\nSignals:\n", f);
    for (size_t i = 0; i < COUNT(signal_help); i++)
        fprintf(f, "  %-22s%s\n", signal_help[i].name, signal_help[i].meaning);
    fputs("\nExit codes:\n", f);
    for (size_t i = 0; i < COUNT(exit_help); i++)
        fprintf(f, "  %-22s%s\n", exit_help[i].code, exit_help[i].meaning);
    fputs("\nSettings and their defaults (\"vmfactoryd config\" explains them):\n", f);
    vf_settings_print_brief(f);
}

/* A hyphen that a reader may copy is \-; nothing else in our own texts is special to roff. */
static void roff(FILE *f, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '-')
            fputs("\\-", f);
        else if (strncmp(text, "…", 3) == 0) {
            fputs("\\|.\\|.\\|.", f);
            text += 2;
        } else
            fputc(*text, f);
    }
}

static void entry(FILE *f, const char *term, const char *meaning)
{
    fputs(".TP\n.B ", f);
    roff(f, term);
    fputc('\n', f);
    roff(f, meaning);
    fputs(".\n", f);
}

void print_man(FILE *f)
{
    fprintf(f,
            ".\\\" Made by \"vmfactoryd generate man\".\n"
            ".TH VMFACTORYD 8 \"\" \"vmfactory %s\" \"System administration\"\n",
            VF_VERSION);
    fputs(".SH NAME\nvmfactoryd \\- keeps pools of ready virtual machines\n"
          ".SH SYNOPSIS\n.B vmfactoryd\n.RI [ OPTION \\|.\\|.\\|.]\n.RI [ COMMAND ]\n"
          ".SH DESCRIPTION\n"
          ".B vmfactoryd\n"
          "boots a template once, saves it, keeps copy\\-on\\-write clones of it ready, and hands "
          "one "
          "out for each request on its socket.\n"
          "It runs in the foreground, logs to standard error, and needs no other service.\n"
          ".PP\nVMs outlive the daemon: the next one on the same directories adopts what is leased "
          "and cleans up what nobody accounts for.\n"
          ".SH OPTIONS\n",
          f);
    for (size_t i = 0; i < COUNT(option_help); i++)
        entry(f, option_help[i].option, option_help[i].meaning);
    fputs(".SH COMMANDS\n", f);
    for (size_t i = 0; i < COUNT(command_help); i++)
        entry(f, command_help[i].command, command_help[i].meaning);
    fputs(
        ".SH SETTINGS\nThe settings file is one JSON object; what it leaves out has its default.\n"
        "Settings called live take effect when the file is read again; a changed other one is "
        "named in the log and waits for a restart.\n",
        f);
    vf_settings_print_man(f);
    fputs(".SH SIGNALS\n", f);
    for (size_t i = 0; i < COUNT(signal_help); i++)
        entry(f, signal_help[i].name, signal_help[i].meaning);
    fputs(".SH FILES\n", f);
    entry(f, CONFIG_FILE, "The settings, if root runs the daemon without \\fB--config\\fR");
    entry(f, "RUN/api.sock", "The API: HTTP/1.1 and JSON. Mode 0660 for the group of the settings");
    entry(f, "RUN/stats.sock", "/metrics (OpenMetrics), /stats (JSON) and /healthz");
    entry(f, "RUN/vms/ID/", "A VM's sockets, and its journal");
    entry(f, "STATE/specs/, STATE/pools/", "What was added: worth a backup");
    entry(f, "STATE/runtime/classes/, STATE/runtime/assets/",
          "Runtime classes and assets, unless runtime_dir says otherwise: worth a backup");
    entry(f, "STATE/templates/", "Generations: made from the above at any time");
    entry(f, "STATE/assets/", "What was fetched, by its SHA-256 digest");
    fputs(".SH ENVIRONMENT\n", f);
    entry(f, "NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID",
          "The service manager's, see \\fBsd_notify\\fR(3)");
    entry(f, "LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES",
          "Sockets named \"api\" and \"stats\" are taken from it, see \\fBsd_listen_fds\\fR(3)");
    entry(f, "XDG_STATE_HOME, XDG_RUNTIME_DIR",
          "Where other users than root have their directories");
    fputs(".SH EXIT STATUS\n", f);
    for (size_t i = 0; i < COUNT(exit_help); i++)
        entry(f, exit_help[i].code, exit_help[i].meaning);
    fputs(".SH SEE ALSO\n.BR vmfactory (1),\n.BR systemd.service (5)\n", f);
}

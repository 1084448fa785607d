/* The command's parts without a daemon: its words, tables, times, what it generates. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/unit/scratch.h"
#include "tools/vmfactory/bench.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/doctor.h"
#include "tools/vmfactory/spec_name.h"
#include "tools/vmfactory/text.h"

TestSuite(client_command, .timeout = 60);

static struct vf_cli cli;
static struct vf_error err;

/* Words separated by single spaces, after the program's name. They stay until the next call. */
static int parse(const char *line)
{
    static char text[400], *argv[64];
    int argc = 1;

    snprintf(text, sizeof(text), "%s", line);
    argv[0] = "vmfactory";
    for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    argv[argc] = NULL;
    return vf_args_parse(argc, argv, &cli, &err);
}

Test(client_command, words)
{
    cr_assert_eq(parse("--json warm linux --count=4 --timeout 5m"), 0, "%s", err.msg);
    cr_expect_str_eq(cli.command->name, "warm");
    cr_expect_str_eq(cli.operands[0], "linux");
    cr_expect_eq(cli.args.count, 4);
    cr_expect_eq(cli.args.timeout_ms, 300000);
    cr_expect(cli.args.json);
    cr_assert_eq(parse("pool set a target=3 max=9 --socket /s"), 0, "%s", err.msg);
    cr_expect_str_eq(cli.command->name, "pool set");
    cr_expect_eq(cli.n_operands, 3);
    cr_expect_str_eq(cli.args.socket, "/s");
    cr_assert_eq(parse("release -- -x a"), 0, "%s", err.msg);
    cr_expect_eq(cli.n_operands, 2);
    cr_expect_str_eq(cli.operands[0], "-x");
    cr_assert_eq(parse("acquire a --require hit --require clone"), 0, "%s", err.msg);
    cr_expect_eq(cli.args.require.n, 2u);
    cr_expect_null(cli.args.require.v[2]);
    cr_assert_eq(parse("events --no-follow"), 0);
    cr_expect_not(cli.args.follow);
    cr_expect_eq(cli.args.since, -1);
    cr_assert_eq(parse("template --help"), 0);
    cr_assert_eq(parse("bench --help"), 0);
    cr_expect_str_eq(cli.command->name, "bench");
    cr_assert_eq(parse("--version"), 0);
}

Test(client_command, a_command_for_a_vm_is_left_alone)
{
    cr_assert_eq(parse("run linux --ttl 5 -- ls --json -h -- x"), 0, "%s", err.msg);
    cr_expect_eq(cli.args.ttl_ms, 5000);
    cr_expect_not(cli.args.json);
    cr_expect_not(cli.args.help);
    cr_expect_str_eq(cli.rest[0], "ls");
    cr_expect_str_eq(cli.rest[3], "--");
    cr_expect_str_eq(cli.rest[4], "x");
    cr_expect_null(cli.rest[5]);
    cr_assert_eq(parse("exec id ls -l"), 0, "%s", err.msg);
    cr_expect_str_eq(cli.rest[1], "-l");
    cr_expect_eq(parse("exec id --"), -EINVAL);
    cr_expect_eq(parse("run linux"), -EINVAL);
}

Test(client_command, words_that_are_refused)
{
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"", "which command?"},
        {"warn linux", "did you mean \"warm\"?"},
        {"stauts", "did you mean \"status\"?"},
        {"xyzzy", "unknown command \"xyzzy\""},
        {"template", "which template command?"},
        {"template shwo x", "did you mean \"show\"?"},
        {"warm linux --cuont 3", "did you mean \"--count\"?"},
        {"warm linux --parked", "unknown option \"parked\""},
        {"ps --jsn", "did you mean \"--json\"?"},
        {"ps -x", "unknown option \"-x\""},
        {"ps a", "one word too many"},
        {"warm", "warm needs NAME"},
        {"pool set a", "pool set needs NAME KEY=VALUE"},
        {"warm linux --count", "--count needs N"},
        {"warm linux --count x", "whole number"},
        {"warm linux --count 0", "from 1 to"},
        {"warm linux --count 99999999999999999999", "whole number"},
        {"warm linux --timeout 5y", "must be a time"},
        {"warm linux --timeout -5", "must be a time"},
        {"warm linux --timeout 400d", "from 1 to"},
        {"ps --json=yes", "takes no value"},
        {"ps --socket=", "must not be empty"},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(parse(bad[i].line), -EINVAL, "%s", bad[i].line);
        cr_expect_not_null(strstr(err.msg, bad[i].says), "%s: %s", bad[i].line, err.msg);
    }
}

Test(client_command, durations)
{
    int64_t ms = 0;

    cr_expect(vf_args_duration("0", &ms) == 0 && ms == 0);
    cr_expect(vf_args_duration("90", &ms) == 0 && ms == 90000);
    cr_expect(vf_args_duration("500ms", &ms) == 0 && ms == 500);
    cr_expect(vf_args_duration("2h", &ms) == 0 && ms == 7200000);
    cr_expect_lt(vf_args_duration("", &ms), 0);
    cr_expect_lt(vf_args_duration("s", &ms), 0);
    cr_expect_lt(vf_args_duration("1.5s", &ms), 0);
    cr_expect_lt(vf_args_duration("9223372036854775807d", &ms), 0);
}

/* Every command can be shown, completed and described; options of a command don't hide global ones. */
Test(client_command, the_table_is_whole)
{
    for (const struct vf_command *c = vf_commands; c->name != NULL; c++) {
        size_t last = strlen(c->summary) - 1;

        cr_expect_not_null(c->run, "%s", c->name);
        cr_expect(islower((unsigned char)c->summary[0]) && c->summary[last] != '.', "%s", c->name);
        cr_expect(c->about == NULL || c->about[strlen(c->about) - 1] == '.', "%s", c->name);
        for (const struct vf_option *o = c->options; o != NULL && o->name != NULL; o++) {
            cr_expect_eq(o->help[strlen(o->help) - 1], '.', "%s --%s", c->name, o->name);
            cr_expect_eq(o->metavar == NULL,
                         o->kind == VF_OPTION_FLAG || o->kind == VF_OPTION_NOT_FLAG, "%s --%s",
                         c->name, o->name);
            for (const struct vf_option *g = vf_global_options; g->name != NULL; g++)
                cr_expect_str_neq(o->name, g->name, "%s", c->name);
        }
    }
}

static char *printed(struct vf_table *t, bool color)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);

    vf_table_print(t, f, color);
    fclose(f);
    return text;
}

Test(client_command, tables)
{
    static const char *const heads[] = {"NAME", ">N", "NOTE", NULL};
    struct vf_table t;
    char *text;

    vf_table_init(&t, heads);
    vf_table_cell(&t, "größer");
    vf_table_int(&t, 1234);
    vf_table_cell(&t, NULL);
    vf_table_cell(&t, "a\033[31m\n");
    vf_table_int(&t, 5);
    vf_table_cell_colored(&t, "x", VF_RED);
    text = printed(&t, false);
    cr_expect_str_eq(text, "NAME        N  NOTE\n"
                           "größer   1234  -\n"
                           "a?[31m?     5  x\n");
    free(text);
    vf_table_init(&t, heads);
    vf_table_cell(&t, "a");
    vf_table_int(&t, 5);
    vf_table_cell_colored(&t, "x", VF_RED);
    text = printed(&t, true);
    cr_expect_not_null(strstr(text, "\033[31mx\033[0m\n"), "%s", text);
    free(text);
    vf_table_init(&t, heads);
    text = printed(&t, false);
    cr_expect_str_eq(text, "NAME  N  NOTE\n");
    free(text);
}

Test(client_command, numbers_for_people)
{
    char buf[VF_TEXT];

    cr_expect_str_eq(vf_text_bytes(buf, 0), "0 B");
    cr_expect_str_eq(vf_text_bytes(buf, 268435456), "256 MiB");
    cr_expect_str_eq(vf_text_bytes(buf, 1610612736), "1.5 GiB");
    cr_expect_str_eq(vf_text_us(buf, 85), "85 us");
    cr_expect_str_eq(vf_text_us(buf, 1204), "1.20 ms");
    cr_expect_str_eq(vf_text_us(buf, 250000), "250 ms");
    cr_expect_str_eq(vf_text_us(buf, 3100000), "3.1 s");
    cr_expect_str_eq(vf_text_ms(buf, 450), "0.4s");
    cr_expect_str_eq(vf_text_ms(buf, 200000), "3m20s");
    cr_expect_str_eq(vf_text_ms(buf, 7500000), "2h05m");
    cr_expect_str_eq(vf_text_ms(buf, 4 * 86400000LL), "4d");
    cr_expect_str_eq(vf_text_ms(buf, -1), "-");
    cr_expect_eq(vf_text_parse_time_ms("1970-01-02T00:00:01.250Z"), 86401250);
    cr_expect_eq(vf_text_parse_time_ms("1970-01-01T00:00:01Z"), 1000);
    cr_expect_eq(vf_text_parse_time_ms("yesterday"), -1);
    cr_expect_eq(vf_text_parse_time_ms("1970-01-01T00:00:01"), -1);
    cr_expect_eq(vf_text_parse_time_ms(NULL), -1);
    cr_expect_str_eq(vf_text_age(buf, NULL), "-");
}

Test(client_command, quantiles)
{
    int64_t us[200];
    struct vf_quantiles q;

    for (int i = 0; i < 200; i++)
        us[i] = 200 - i;
    vf_quantiles(us, 200, &q);
    cr_expect_eq(q.p50_us, 100);
    cr_expect_eq(q.p90_us, 180);
    cr_expect_eq(q.p99_us, 198);
    cr_expect_eq(q.max_us, 200);
    vf_quantiles(us, 1, &q);
    cr_expect(q.p50_us == 1 && q.p99_us == 1 && q.max_us == 1);
    vf_quantiles(us, 0, &q);
    cr_expect_eq(q.n, 0u);
}

static void expect_renamed(const char *text, const char *want)
{
    char *got = NULL;

    cr_assert_eq(vf_spec_rename(text, strlen(text), "b\"c", &got, &err), 0, "%s: %s", text,
                 err.msg);
    cr_expect_str_eq(got, want);
    free(got);
}

Test(client_command, a_spec_gets_another_name)
{
    char *got = NULL;

    expect_renamed("{\"name\":\"a\"}", "{\"name\":\"b\\\"c\"}");
    expect_renamed(" { \"boot\": {\"name\": \"x{\"}, \"name\" :\n \"a\\\"\" , \"n\":1}\n",
                   " { \"boot\": {\"name\": \"x{\"}, \"name\" :\n \"b\\\"c\" , \"n\":1}\n");
    expect_renamed("{\"vmm\":\"name\"}", "{\"name\":\"b\\\"c\",\"vmm\":\"name\"}");
    expect_renamed("{ }", "{\"name\":\"b\\\"c\" }");
    cr_expect_lt(vf_spec_rename("[1]", 3, "b", &got, &err), 0);
    cr_expect_lt(vf_spec_rename("{\"name\":1}", 10, "b", &got, &err), 0);
    cr_expect_lt(vf_spec_rename("{\"n\\u0061me\":\"x\"}", 17, "b", &got, &err), 0);
    cr_expect_lt(vf_spec_rename("{", 1, "b", &got, &err), 0);
    cr_expect_null(got);
}

Test(client_command, what_doctor_reads)
{
    static const char cpu[] = "processor\t: 0\nflags\t\t: fpu vme vmx64 svm\nbugs\t: vmx\n";
    char version[32];
    int major, minor;

    cr_expect_not(vf_doctor_cpu_has(cpu, "vmx"));
    cr_expect(vf_doctor_cpu_has(cpu, "svm"));
    cr_expect(vf_doctor_cpu_has(cpu, "vme"));
    cr_expect_not(vf_doctor_cpu_has("", "svm"));
    cr_assert(vf_doctor_version("QEMU emulator version 7.2.22 (Debian 1:7.2)", version,
                                sizeof(version), &major, &minor));
    cr_expect_str_eq(version, "7.2.22");
    cr_expect_eq(major, 7);
    cr_expect_eq(minor, 2);
    cr_assert(vf_doctor_version("Firecracker v1.16.1\n\n2026-01-01T00:00:00 exiting\n", version,
                                sizeof(version), &major, &minor));
    cr_expect_str_eq(version, "1.16.1");
    cr_expect_eq(minor, 16);
    cr_assert(vf_doctor_version("cloud-hypervisor v53.0-246-g0123abc-dirty", version,
                                sizeof(version), &major, &minor));
    cr_expect_str_eq(version, "53.0");
    cr_expect_eq(major, 53);
    cr_expect_not(vf_doctor_version("sh: not found", version, sizeof(version), &major, &minor));
    cr_expect_not(vf_doctor_version("usage\n1.2", version, sizeof(version), &major, &minor));
    cr_expect_not(vf_doctor_version("", version, sizeof(version), &major, &minor));
    cr_expect_float_eq(vf_doctor_psi_avg10("some avg10=1.50 avg60=0.00"), 1.5, 1e-9);
    cr_expect_lt(vf_doctor_psi_avg10(""), 0);
}

/* Runs vmfactory generate what in this process; returns the file that has its output. */
static void generate(const struct scratch *s, const char *what, char *path, size_t size)
{
    char line[60];

    snprintf(path, size, "%s/%s", s->path, what);
    snprintf(line, sizeof(line), "generate %s", what);
    cr_assert_eq(parse(line), 0, "%s", err.msg);
    cr_assert_not_null(freopen(path, "w", stdout));
    cr_expect_eq(cli.command->run(&cli), 0);
    fflush(stdout);
}

static char *read_all(const char *path)
{
    char *text;
    size_t len;

    cr_assert_eq(vf_read_file(AT_FDCWD, path, 1 << 20, &text, &len, &err), 0, "%s", err.msg);
    return text;
}

Test(client_command, completion_and_man_page_name_every_command)
{
    static const struct {
        const char *what, *check;
    } made[] = {{"bash", "bash -n %s"},
                {"zsh", "! command -v zsh >/dev/null || zsh -n %s"},
                {"man", "! command -v man >/dev/null || "
                        "[ -z \"$(LC_ALL=C.UTF-8 man --warnings -l %s 2>&1 >/dev/null)\" ]"}};
    char path[300], command[800];
    struct scratch s;

    scratch_open(&s);
    for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
        char *text;

        generate(&s, made[i].what, path, sizeof(path));
        snprintf(command, sizeof(command), made[i].check, path);
        cr_expect_eq(system(command), 0, "%s", command);
        text = read_all(path);
        for (const struct vf_command *c = vf_commands; c->name != NULL; c++) {
            if (c->hidden)
                continue;
            cr_expect_not_null(strstr(text, c->name), "%s: %s", made[i].what, c->name);
            for (const struct vf_option *o = c->options; o != NULL && o->name != NULL; o++) {
                /* troff wants hyphens escaped. */
                cr_expect_not_null(
                    strstr(text, strrchr(o->name, '-') ? strrchr(o->name, '-') + 1 : o->name),
                    "%s: --%s", made[i].what, o->name);
            }
        }
        free(text);
    }
    scratch_close(&s);
}

/* What bash offers for a command line, asked of the completion itself. */
Test(client_command, bash_completes)
{
    static const struct {
        const char *words, *offers;
    } asked[] = {{"vmfactory wa", "warm"},
                 {"vmfactory template sh", "show"},
                 {"vmfactory warm --co", "--count="},
                 {"vmfactory warm --timeout 5 --co", "--count="},
                 {"vmfactory --socket /x po", "pool"},
                 {"vmfactory as", "asset"},
                 {"vmfactory asset f", "fetch"},
                 {"vmfactory asset gc --dr", "--dry-run"},
                 {"vmfactory class se", "set"},
                 {"vmfactory acquire a --require co", "cold"}};
    char path[300], command[900];
    struct scratch s;

    scratch_open(&s);
    generate(&s, "bash", path, sizeof(path));
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        snprintf(
            command, sizeof(command),
            "bash -c '. %s; compopt() { :; }; COMP_WORDS=(%s); "
            "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _vmfactory; [ \"${COMPREPLY[*]}\" = \"%s\" ] "
            "|| { echo \"${COMPREPLY[*]}\" >&2; exit 1; }'",
            path, asked[i].words, asked[i].offers);
        cr_expect_eq(system(command), 0, "%s", asked[i].words);
    }
    scratch_close(&s);
}

/* The library's man page describes every function of its header. */
Test(client_command, the_librarys_man_page_is_whole)
{
    char root[600] = __FILE__, *tail = strstr(root, "/tests/unit/"), *header, *page, name[100];
    int functions = 0;

    if (root[0] == '/' && tail != NULL) {
        *tail = '\0';
        cr_assert_eq(chdir(root), 0);
    }
    header = read_all("tools/client/vmfactory-client.h");
    page = read_all("docs/man/libvmfactory-client.3");
    for (char *at = header; (at = strstr(at, "VMFACTORY_API ")) != NULL; at++) {
        char *begin = strstr(at, "vmfactory_"), *paren = strchr(at, '(');

        while (begin != NULL && begin + strcspn(begin, " (,;\n") != paren)
            begin = strstr(begin + 1, "vmfactory_");
        if (begin == NULL || begin > paren || paren > strchr(at, ';'))
            continue;
        snprintf(name, sizeof(name), "%.*s(", (int)(paren - begin), begin);
        cr_expect_not_null(strstr(page, name), "%s", name);
        functions++;
    }
    cr_expect_geq(functions, 19);
    free(header);
    free(page);
}

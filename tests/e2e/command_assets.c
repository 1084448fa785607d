/* The commands about classes and assets, against a real daemon. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/e2e/daemon_guest.h"

TestSuite(command_assets, .timeout = 120);

#if defined(__aarch64__)
#define HERE "aarch64"
#else
#define HERE "x86_64"
#endif

static struct dmn d;
static char out[65536], errout[65536]; /* of the last command */

static void slurp(const char *name, char *buf, size_t size)
{
    char path[200];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", d.dir, name);
    f = fopen(path, "re");
    cr_assert_not_null(f, "%s", path);
    buf[fread(buf, 1, size - 1, f)] = '\0';
    fclose(f);
}

/* Runs a line of shell in which V is the command and D the test's directory; its exit status. */
static int shell(const char *line)
{
    const char *tests = getenv("VF_TESTS");
    char text[3000], path[4096];
    int status;

    snprintf(path, sizeof(path), "%s/../vmfactory", tests != NULL ? tests : "build/tests");
    cr_assert_eq(access(path, X_OK), 0, "%s", path);
    setenv("V", path, 1);
    snprintf(path, sizeof(path), "%s/api.sock", d.run);
    setenv("VMFACTORY_SOCKET", path, 1);
    setenv("D", d.dir, 1);
    snprintf(text, sizeof(text), "{ %s\n} >%s/out 2>%s/err", line, d.dir, d.dir);
    fflush(NULL);
    status = system(text);
    slurp("out", out, sizeof(out));
    slurp("err", errout, sizeof(errout));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define EXPECT_SHELL(want, line)                                           \
    do {                                                                   \
        int got_ = shell(line);                                            \
        cr_assert_eq(got_, want, "%s: %d\n%s%s", line, got_, out, errout); \
    } while (0)
#define EXPECT_HAS(text, what) \
    cr_expect_not_null(strstr(text, what), "no \"%s\" in:\n%s", what, text)

/* tool.json and lost.json, assets whose files are there and not there. */
static void open_with_files(void)
{
    dmn_open(&d, NULL);
    EXPECT_SHELL(0, "cp /bin/true $D/tool; s=$(sha256sum <$D/tool | cut -d' ' -f1)\n"
                    "for n in tool lost; do echo '{\"kind\":\"vmm\",\"files\":{\"" HERE
                    "\":{\"url\":\"file://'$D/$n'\",\"sha256\":\"'$s'\"}}}' >$D/$n.json; done\n"
                    "sed -i s/$s/$(echo x | sha256sum | cut -d' ' -f1)/ $D/lost.json");
}

Test(command_assets, an_assets_life)
{
    open_with_files();
    EXPECT_SHELL(0, "$V asset ls");
    EXPECT_HAS(out, "no assets");
    EXPECT_SHELL(0, "$V asset add $D/tool.json");
    EXPECT_HAS(out, "asset tool added; vmfactory asset fetch tool fetches it");
    EXPECT_SHELL(0, "$V asset ls");
    EXPECT_HAS(out, "not fetched");
    EXPECT_SHELL(0, "$V asset verify");
    EXPECT_HAS(out, "no asset is fetched");
    EXPECT_SHELL(1, "$V asset verify tool");
    EXPECT_SHELL(0, "$V asset fetch tool");
    EXPECT_HAS(out, "tool: fetched");
    EXPECT_SHELL(0, "$V asset fetch tool --json");
    EXPECT_HAS(out, "\"fetched\":true");
    EXPECT_SHELL(0, "$V asset fetch --all");
    EXPECT_HAS(out, "nothing to fetch");
    EXPECT_SHELL(0, "$V asset ls --json");
    EXPECT_HAS(out, "\"attempts\":2");
    EXPECT_SHELL(0, "$V asset verify");
    EXPECT_HAS(out, "tool: is what its digest says");
    EXPECT_SHELL(0, "$V asset add $D/tool.json --name other");
    EXPECT_HAS(out, "it is here already");
    EXPECT_SHELL(0, "$V asset gc --dry-run");
    EXPECT_HAS(out, "would free");
    EXPECT_SHELL(0, "$V asset rm tool other");
    EXPECT_SHELL(1, "$V asset rm tool");
    EXPECT_SHELL(0, "$V asset gc");
    EXPECT_HAS(out, "of no asset");
    EXPECT_HAS(out, "freed");
    EXPECT_SHELL(0, "$V asset gc --json");
    EXPECT_HAS(out, "\"removed\":[]");
    dmn_close(&d);
}

Test(command_assets, what_fails_is_said_and_the_others_go_on)
{
    open_with_files();
    EXPECT_SHELL(0, "$V asset add $D/lost.json && $V asset add $D/tool.json");
    EXPECT_SHELL(1, "$V asset fetch --all");
    EXPECT_HAS(out, "tool: fetched");
    EXPECT_HAS(errout, "lost");
    EXPECT_SHELL(1, "$V asset fetch tol tool");
    EXPECT_HAS(out, "tool: fetched");
    EXPECT_HAS(errout, "did you mean tool?");
    EXPECT_SHELL(2, "$V asset fetch");
    EXPECT_SHELL(2, "$V asset fetch --all tool");
    EXPECT_SHELL(0, "p=$(find $D/state/assets/sha256 -type f); chmod u+w $p; echo >>$p");
    EXPECT_SHELL(1, "$V asset verify");
    EXPECT_HAS(errout, "asset tool");
    EXPECT_HAS(errout, "fetch it again");
    EXPECT_SHELL(0, "$V asset ls | grep tool");
    EXPECT_HAS(out, "not fetched");
    EXPECT_SHELL(1, "$V asset add $D/none.json");
    EXPECT_SHELL(0, "cp $D/tool.json $D/Bad.json");
    EXPECT_SHELL(1, "$V asset add $D/Bad.json");
    EXPECT_HAS(errout, "name");
    dmn_close(&d);
}

Test(command_assets, a_classs_life)
{
    open_with_files();
    EXPECT_SHELL(0, "$V class ls");
    EXPECT_HAS(out, "built in: the host's own");
    EXPECT_SHELL(0, "$V asset add $D/tool.json");
    EXPECT_SHELL(0, "echo '{\"vmm\":\"firecracker\",\"default\":true,\"assets\":{\"" HERE
                    "\":{\"vmm\":\"tool\"}}}' >$D/prod.json; $V class set $D/prod.json");
    EXPECT_HAS(out, "class prod is in force; to fetch: tool");
    EXPECT_SHELL(0, "$V class ls | grep prod");
    EXPECT_HAS(out, "not fetched: tool");
    EXPECT_SHELL(0, "$V doctor; true");
    EXPECT_HAS(out, "class prod needs what is not fetched: tool");
    EXPECT_HAS(out, "the default class's asset tool is not fetched");
    EXPECT_SHELL(0, "$V asset fetch tool && $V class set $D/prod.json");
    EXPECT_HAS(out, "class prod is in force\n");
    EXPECT_SHELL(0, "$V class show prod");
    EXPECT_HAS(out, "\"default\": true");
    EXPECT_SHELL(0, "$V class show prod --json");
    EXPECT_HAS(out, "\"missing\":[]");
    EXPECT_SHELL(1, "$V class set $D/prod.json --name second");
    EXPECT_HAS(errout, "default");
    EXPECT_SHELL(1, "$V class show second");
    EXPECT_SHELL(1, "$V asset rm tool");
    EXPECT_HAS(errout, "still names it");
    EXPECT_SHELL(0, "$V generate classes | grep -x prod && $V generate assets | grep -x tool");
    EXPECT_SHELL(1, "$V class rm firecracker");
    EXPECT_SHELL(0, "$V class rm prod && $V asset rm tool");
    EXPECT_SHELL(3, "$V --socket $D/none class ls");
    dmn_close(&d);
}

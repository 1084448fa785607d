/* docs/operations.md says what each metric means: all of them, and none that is not there. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "pool/stats.h"

static char *read_page(void)
{
    char path[600] = __FILE__, *tail = strstr(path, "/tests/unit/"), *text = NULL;
    struct vf_error err;
    size_t len = 0;

    if (path[0] == '/' && tail != NULL) { /* else the tests are run from the root of the tree */
        *tail = '\0';
        cr_assert_eq(chdir(path), 0);
    }
    cr_assert_eq(vf_read_file(AT_FDCWD, "docs/operations.md", 1 << 20, &text, &len, &err), 0, "%s",
                 err.msg);
    return text;
}

/* The metrics' text for one template, with all that a family can have. */
static char *read_metrics(void)
{
    struct vf_stats *s = vf_stats_new();
    struct vf_stats_template *t = vf_stats_template(s, "web");
    struct vf_stage stage = {"resume", 5};
    size_t len = 0;
    char *text;

    vf_stats_acquired(t, VF_GOT_HIT, 10, &stage, 1);
    vf_stats_acquire_failed(t, VF_BUSY);
    vf_stats_refill_failed(t, VF_TIMEOUT);
    vf_stats_build_failed(t, VF_TIMEOUT);
    text = vf_stats_text(s, &len);
    cr_assert_not_null(text);
    vf_stats_free(s);
    return text;
}

/* name, a whole word, within text. */
static bool mentions(const char *text, const char *name)
{
    size_t len = strlen(name);

    for (const char *at = strstr(text, name); at != NULL; at = strstr(at + 1, name)) {
        char next = at[len];

        if (next == '`' || next == '{' || strncmp(at + len, "_total", 6) == 0 ||
            strncmp(at + len, "_info", 5) == 0)
            return true;
    }
    return false;
}

Test(operations, every_metric_is_explained)
{
    char *page = read_page(), *metrics = read_metrics();
    size_t n = 0;

    for (char *line = strtok(metrics, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char name[200];

        if (sscanf(line, "# TYPE %199s", name) != 1)
            continue;
        n++;
        cr_expect(mentions(page, name), "docs/operations.md does not explain %s", name);
    }
    cr_expect_gt(n, 40);
    free(page);
    free(metrics);
}

Test(operations, no_metric_is_made_up)
{
    char *page = read_page(), *metrics = read_metrics();
    size_t n = 0;

    for (const char *at = strstr(page, "vmfactory_"); at != NULL;
         at = strstr(at + 1, "vmfactory_")) {
        size_t len = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
        char name[200], line[220];

        snprintf(name, sizeof(name), "%.*s", (int)len, at);
        if (len > 6 && strcmp(name + len - 6, "_total") == 0)
            name[len - 6] = '\0';
        if (len > 5 && strcmp(name + len - 5, "_info") == 0)
            name[len - 5] = '\0';
        n++;
        snprintf(line, sizeof(line), "# TYPE %s ", name);
        cr_expect_not_null(strstr(metrics, line), "docs/operations.md explains %s, which is none",
                           name);
    }
    cr_expect_gt(n, 40);
    free(page);
    free(metrics);
}

/* Overlays made by qemu-img whose backing file is named anew: as qemu-img sees them. */
#include <criterion/criterion.h>
#include <sys/stat.h>
#include <unistd.h>
#include "factory/overlay.h"
#include "tests/unit/scratch.h"

static struct scratch dir;

static void open_scratch(void)
{
    scratch_open(&dir);
}

static void close_scratch(void)
{
    scratch_close(&dir);
}

TestSuite(overlay, .init = open_scratch, .fini = close_scratch, .timeout = 60);

static void make(const char *name, off_t size)
{
    VF_CLEANUP_FD int fd = openat(dir.fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_eq(ftruncate(fd, size), 0);
    cr_assert_eq(pwrite(fd, "base", 4, 0), 4);
}

static void expect_says(const char *command, const char *expected)
{
    char line[1000], text[400] = "";
    snprintf(line, sizeof(line), "cd %s && %s 2>&1", dir.path, command);
    FILE *f = popen(line, "r");
    cr_assert_not_null(f);
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = 0;
    cr_expect_eq(pclose(f), 0, "%s: %s", command, text);
    cr_expect_str_eq(text, expected);
}

Test(overlay, backing_file_is_named_anew)
{
    struct vf_error err;
    char base[300], middle[300];
    make("base.raw", 1 << 20);
    snprintf(base, sizeof(base), "%s/base.raw", dir.path);
    snprintf(middle, sizeof(middle), "%s/middle.qcow2", dir.path);
    cr_assert_eq(vf_overlay_create(dir.path, "middle.qcow2", base, "raw", &err), 0, "%s", err.msg);
    cr_assert_eq(vf_copy_file(dir.fd, "middle.qcow2", dir.fd, "top.qcow2", 0600, &err), 0);
    cr_assert_eq(vf_overlay_set_backing(dir.fd, "top.qcow2", middle, &err), 0, "%s", err.msg);
    char expected[700];
    snprintf(expected, sizeof(expected), "%s qcow2\n%s raw\n", middle, base);
    expect_says("qemu-img info --backing-chain --output=json top.qcow2 | "
                "jq -r '.[] | select(.[\"full-backing-filename\"]) | "
                ".[\"full-backing-filename\"] + \" \" + .[\"backing-filename-format\"]'",
                expected);
    expect_says("qemu-img check -q top.qcow2", "");
    expect_says("qemu-img convert -O raw top.qcow2 out.raw && head -c 4 out.raw", "base");
}

Test(overlay, refusals)
{
    struct vf_error err;
    char path[1100];
    memset(path, 'a', sizeof(path) - 1);
    path[sizeof(path) - 1] = 0;
    make("raw", 1 << 20);
    cr_expect_lt(vf_overlay_set_backing(dir.fd, "raw", "/x", &err), 0);
    cr_expect_eq(err.code, VF_CORRUPT);
    cr_expect_lt(vf_overlay_set_backing(dir.fd, "raw", path, &err), 0);
    cr_expect_eq(err.code, VF_INVALID_ARGUMENT);
    cr_expect_lt(vf_overlay_set_backing(dir.fd, "missing", "/x", &err), 0);
    cr_expect_eq(err.code, VF_NOT_FOUND);
}

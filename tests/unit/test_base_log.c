/* Log lines: their fields, and that nobody can forge one. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"

static int log_fd = -1;
static char text[1 << 20];

static void start(void)
{
    log_fd = memfd_create("vf-test-log", MFD_CLOEXEC);
    cr_assert_geq(log_fd, 0);
}

static void end(void)
{
    vf_close_fd(&log_fd);
}

TestSuite(base_log, .init = start, .fini = end, .timeout = 30);

/* All that was logged so far. */
static const char *logged(void)
{
    ssize_t n = pread(log_fd, text, sizeof(text) - 1, 0);

    cr_assert_geq(n, 0);
    text[n] = '\0';
    return text;
}

static size_t count_lines(const char *s)
{
    size_t n = 0;

    for (; *s != '\0'; s++)
        n += *s == '\n';
    return n;
}

/* What follows the time stamp of the only line. */
static const char *after_time(void)
{
    const char *s = logged();

    cr_assert_eq(count_lines(s), 1, "%s", s);
    cr_assert_gt(strlen(s), 28);
    cr_expect_eq(s[10], 'T');
    cr_expect_eq(s[26], 'Z');
    return s + 28;
}

Test(base_log, text_line)
{
    vf_log_setup(log_fd, VF_LOG_INFO, VF_LOG_TEXT);
    vf_log(VF_LOG_WARN, "vm-7", "%d of %s", 3, "many");
    cr_expect_str_eq(after_time(), "WARN [vm-7] 3 of many\n");
}

Test(base_log, text_line_without_a_vm_and_with_an_error)
{
    struct vf_error err;

    vf_log_setup(log_fd, VF_LOG_DEBUG, VF_LOG_TEXT);
    vf_fail(&err, VF_TIMEOUT, "no answer");
    vf_log_error(VF_LOG_ERROR, NULL, &err, "clone");
    cr_expect_str_eq(after_time(), "ERROR clone: no answer (code timeout)\n");
    cr_assert_eq(ftruncate(log_fd, 0), 0);
    cr_assert_eq(lseek(log_fd, 0, SEEK_SET), 0);
    vf_hint(&err, "wait longer");
    vf_log_error(VF_LOG_DEBUG, "a", &err, "clone");
    cr_expect_str_eq(after_time(),
                     "DEBUG [a] clone: no answer (code timeout; hint: wait longer)\n");
}

Test(base_log, levels_are_kept_out)
{
    vf_log_setup(log_fd, VF_LOG_WARN, VF_LOG_TEXT);
    vf_log(VF_LOG_DEBUG, NULL, "no");
    vf_log(VF_LOG_INFO, NULL, "no");
    vf_log(VF_LOG_WARN, NULL, "yes");
    vf_log(VF_LOG_ERROR, NULL, "yes");
    cr_expect_eq(count_lines(logged()), 2);
    cr_expect_null(strstr(logged(), "no"));
    vf_log_setup(log_fd, VF_LOG_OFF, VF_LOG_TEXT);
    vf_log(VF_LOG_ERROR, NULL, "no");
    vf_log(VF_LOG_OFF, NULL, "no");
    cr_expect_eq(count_lines(logged()), 2);
}

Test(base_log, level_names)
{
    static const char *const names[] = {"debug", "info", "warn", "error", "off"};
    enum vf_log_level level = VF_LOG_OFF;

    for (int i = 0; i < 5; i++) {
        cr_expect_eq(vf_log_parse_level(names[i], &level), 0);
        cr_expect_eq((int)level, i);
    }
    cr_expect_eq(vf_log_parse_level("WARN", &level), -EINVAL);
    cr_expect_eq(vf_log_parse_level("", &level), -EINVAL);
    cr_expect_eq(level, VF_LOG_OFF, "touched on failure");
}

/* What a hostile guest might say: new lines, a terminal's control sequences, C1, reordering. */
#define HOSTILE                                                 \
    "a\n2026-01-01T00:00:00.000000Z ERROR "                     \
    "forged\r\x1b[2J\x7f\t\xc2\x9b\xe2\x80\xa8\xe2\x80\xae\xff" \
    "\\n\"é€"

Test(base_log, nobody_can_forge_a_text_line)
{
    const char *s;
    struct vf_error err = {.code = VF_GUEST_FAILED};

    vf_log_setup(log_fd, VF_LOG_DEBUG, VF_LOG_TEXT);
    strcpy(err.msg, HOSTILE); /* not by vf_fail, which would clean it */
    strcpy(err.hint, HOSTILE);
    vf_log_error(VF_LOG_INFO, "vm\nx", &err, "says %s", HOSTILE);
    s = after_time();
    for (const char *p = s; p[1] != '\0'; p++) {
        cr_assert((unsigned char)*p >= 0x20 && *p != 0x7f, "byte %02x in %s", *p, s);
        cr_assert(strncmp(p, "\xc2\x9b", 2) != 0 && strncmp(p, "\xe2\x80\xae", 3) != 0 &&
                  *p != '\xff');
    }
    cr_expect_eq(strstr(s, "INFO [vm\\x0ax] says a\\x0a2026-"), s, "%s", s);
    cr_expect_not_null(strstr(s, "\\x1b[2J\\x7f\\x09\\xc2\\x9b\\xe2\\x80\\xa8"));
    cr_expect_not_null(strstr(s, "\\xff\\\\n\"é€: a\\x0a"));
}

static char *decoded_msg, *decoded_error;

/* Every line must parse; returns how many did. The last one's message and error are kept. */
static size_t parse_lines(void)
{
    const char *s = logged(), *nl;
    size_t n = 0;

    for (; (nl = strchr(s, '\n')) != NULL; s = nl + 1, n++) {
        struct vf_json *j = vf_json_parse(s, (size_t)(nl - s));

        cr_assert_not_null(j, "%.*s", (int)(nl - s), s);
        cr_expect_eq(strlen(vf_json_str(vf_json_get(j, "time"), "")), 27);
        cr_expect_str_eq(vf_json_str(vf_json_get(j, "level"), ""), "info");
        free(decoded_msg);
        free(decoded_error);
        decoded_msg = strdup(vf_json_str(vf_json_get(j, "msg"), "none"));
        decoded_error = strdup(vf_json_str(vf_json_get(j, "error"), "none"));
        vf_json_delete(j);
    }
    cr_expect_str_empty(s, "no line is unfinished");
    return n;
}

Test(base_log, json_lines_parse_whatever_is_said)
{
    struct vf_error err = {.code = VF_GUEST_FAILED};

    vf_log_setup(log_fd, VF_LOG_DEBUG, VF_LOG_JSON);
    strcpy(err.msg, HOSTILE);
    strcpy(err.hint, HOSTILE);
    vf_log_error(VF_LOG_INFO, "vm\n\"x", &err, "%s", HOSTILE);
    cr_expect_eq(parse_lines(), 1);
    /* All comes back, but for the byte that is no UTF-8. */
    cr_expect_eq(strncmp(decoded_msg, HOSTILE,
                         strlen("a\n2026-01-01T00:00:00.000000Z ERROR forged"
                                "\r\x1b[2J\x7f\t")),
                 0);
    cr_expect_not_null(strstr(decoded_msg, "\xef\xbf\xbd\\n\"é€"));
    cr_expect_str_eq(decoded_msg, decoded_error);
    for (int c = 1; c < 256; c++)
        vf_log(VF_LOG_INFO, NULL, "byte %c", c);
    cr_expect_eq(parse_lines(), 256);
    free(decoded_msg);
    free(decoded_error);
}

Test(base_log, json_fields)
{
    struct vf_error err;
    const char *s;

    vf_log_setup(log_fd, VF_LOG_DEBUG, VF_LOG_JSON);
    vf_fail(&err, VF_CORRUPT, "short");
    vf_hint(&err, "rebuild");
    vf_log_error(VF_LOG_ERROR, "vm-1", &err, "restore");
    s = strstr(logged(), ",\"level\"");
    cr_assert_not_null(s);
    cr_expect_str_eq(s, ",\"level\":\"error\",\"vm\":\"vm-1\",\"msg\":\"restore\","
                        "\"code\":\"corrupt\",\"error\":\"short\",\"hint\":\"rebuild\"}\n");
}

Test(base_log, a_huge_message_is_cut_to_one_whole_line)
{
    static char huge[100001];
    struct vf_error err = {.code = VF_IO};

    memset(huge, '\n', sizeof(huge) - 1);
    memset(err.msg, '\n', sizeof(err.msg) - 1);
    memset(err.hint, '\n', sizeof(err.hint) - 1);
    vf_log_setup(log_fd, VF_LOG_INFO, VF_LOG_TEXT);
    vf_log_error(VF_LOG_INFO, huge, &err, "%s", huge);
    cr_expect_eq(count_lines(logged()), 1);
    cr_expect_lt(strlen(logged()), 20000);
    cr_assert_eq(ftruncate(log_fd, 0), 0);
    cr_assert_eq(lseek(log_fd, 0, SEEK_SET), 0);
    vf_log_setup(log_fd, VF_LOG_INFO, VF_LOG_JSON);
    vf_log_error(VF_LOG_INFO, NULL, &err, "%s", huge);
    cr_expect_eq(parse_lines(), 1);
    free(decoded_msg);
    free(decoded_error);
}

Test(base_log, errno_survives_even_a_bad_descriptor)
{
    vf_log_setup(-1, VF_LOG_INFO, VF_LOG_TEXT);
    errno = EXDEV;
    vf_log(VF_LOG_ERROR, NULL, "lost");
    cr_expect_eq(errno, EXDEV);
}

enum { THREADS = 4, LINES = 500 };

static void *chatter(void *arg)
{
    for (int i = 0; i < LINES; i++)
        vf_log(VF_LOG_INFO, (const char *)arg, "line %d of this thread, long enough to be cut", i);
    return NULL;
}

Test(base_log, threads_do_not_mix_their_lines)
{
    static const char *const ids[THREADS] = {"aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"};
    pthread_t threads[THREADS];
    size_t n = 0;

    vf_log_setup(log_fd, VF_LOG_INFO, VF_LOG_TEXT);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, chatter, (void *)ids[i]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (const char *s = logged(), *nl; (nl = strchr(s, '\n')) != NULL; s = nl + 1, n++) {
        int number = -1, end_at = -1;
        char id[20];

        sscanf(s + 28, "INFO [%8[a-d]] line %d of this thread, long enough to be cut%n", id,
               &number, &end_at);
        cr_assert_eq(s + 28 + end_at, nl, "mixed: %.*s", (int)(nl - s), s);
        cr_assert(number >= 0 && number < LINES);
    }
    cr_expect_eq(n, THREADS * LINES);
}

/* The pure parts of an exec: frames, the queue of output, lines of JSON. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/json.h"
#include "pool/exec_frames.h"
#include "pool/exec_queue.h"
#include "pool/exec_text.h"

TestSuite(exec_frames, .timeout = 60);

/* ---- frames */

Test(exec_frames, a_header_is_as_documented)
{
    uint8_t h[VF_EXEC_FRAME_HEADER];

    vf_exec_frame_header(h, VF_EXEC_STDERR, 0x10000);
    cr_expect_arr_eq(h, ((uint8_t[]){2, 0, 0, 0, 0, 1, 0, 0}), 8);
    vf_exec_frame_header(h, VF_EXEC_EXIT, 0x1234);
    cr_expect_arr_eq(h, ((uint8_t[]){3, 0, 0, 0, 0, 0, 0x12, 0x34}), 8);
}

/* Decodes all of data in steps and writes what was said: "[stdin]", "<end>", "<15>". */
static int say(const uint8_t *data, size_t len, size_t step, char *out, size_t size,
               struct vf_error *err)
{
    struct vf_exec_decoder d = {0};
    size_t at = 0, o = 0;

    out[0] = '\0';
    while (at < len) {
        size_t n = len - at < step ? len - at : step, done = 0;

        while (done < n) {
            struct vf_exec_piece p;
            ssize_t used = vf_exec_decode(&d, data + at + done, n - done, &p, err);

            if (used < 0)
                return (int)used;
            cr_assert(used > 0 && (size_t)used <= n - done, "progress, within the input");
            done += (size_t)used;
            if (p.what == VF_EXEC_SAID_STDIN)
                o += (size_t)snprintf(out + o, size - o, "%.*s", (int)p.len, (const char *)p.data);
            else if (p.what == VF_EXEC_SAID_END)
                o += (size_t)snprintf(out + o, size - o, "<end>");
            else if (p.what == VF_EXEC_SAID_SIGNAL)
                o += (size_t)snprintf(out + o, size - o, "<%d>", p.signal);
        }
        at += n;
    }
    return 0;
}

Test(exec_frames, what_a_client_says_is_decoded_however_it_is_cut)
{
    static const uint8_t talk[] = {0, 0, 0, 0, 0, 0,   0, 5, 'h', 'e', 'l', 'l', 'o', 4,
                                   0, 0, 0, 0, 0, 0,   4, 0, 0,   0,   15,  0,   0,   0,
                                   0, 0, 0, 0, 1, '!', 0, 0, 0,   0,   0,   0,   0,   0,
                                   4, 0, 0, 0, 0, 0,   0, 4, 0,   0,   0,   64};

    for (size_t step = 1; step <= sizeof(talk); step++) {
        char out[100];
        struct vf_error err = {0};

        cr_assert_eq(say(talk, sizeof(talk), step, out, sizeof(out), &err), 0, "%s", err.msg);
        cr_expect_str_eq(out, "hello<15>!<end><64>", "step %zu: %s", step, out);
    }
}

Test(exec_frames, what_is_no_frame_of_a_client_is_refused)
{
    static const struct {
        uint8_t bytes[24];
        size_t len;
        const char *says;
    } cases[] = {
        {{1, 0, 0, 0, 0, 0, 0, 1}, 8, "type 1"},
        {{3, 0, 0, 0, 0, 0, 0, 1}, 8, "type 3"},
        {{255, 0, 0, 0, 0, 0, 0, 1}, 8, "type 255"},
        {{0, 0, 1, 0, 0, 0, 0, 1}, 8, "must be zero"},
        {{0, 0, 0, 0, 0, 1, 0, 1}, 8, "65537 bytes"},
        {{0, 0, 0, 0, 255, 255, 255, 255}, 8, "4294967295 bytes"},
        {{4, 0, 0, 0, 0, 0, 0, 3}, 8, "4 bytes"},
        {{4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0}, 12, "signal 0"},
        {{4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 65}, 12, "signal 65"},
        {{4, 0, 0, 0, 0, 0, 0, 4, 128, 0, 0, 9}, 12, "signal 2147483657"},
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 16, "after its end"},
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 16, "after its end"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t step = 1; step <= cases[i].len; step++) {
            char out[100];
            struct vf_error err = {0};

            cr_expect_lt(say(cases[i].bytes, cases[i].len, step, out, sizeof(out), &err), 0,
                         "case %zu", i);
            cr_expect_eq(err.code, VF_PROTOCOL);
            cr_expect_not_null(strstr(err.msg, cases[i].says), "case %zu: %s", i, err.msg);
        }
    }
}

Test(exec_frames, the_longest_frame_is_allowed)
{
    struct vf_exec_decoder d = {0};
    struct vf_exec_piece p;
    size_t size = VF_EXEC_FRAME_HEADER + VF_EXEC_FRAME_MAX;
    uint8_t *frame = calloc(1, size);

    vf_exec_frame_header(frame, VF_EXEC_STDIN, VF_EXEC_FRAME_MAX);
    cr_expect_eq(vf_exec_decode(&d, frame, size, &p, NULL), (ssize_t)size);
    cr_expect_eq(p.what, VF_EXEC_SAID_STDIN);
    cr_expect_eq(p.len, VF_EXEC_FRAME_MAX);
    cr_expect_eq(p.data, frame + VF_EXEC_FRAME_HEADER);
    free(frame);
}

/* ---- the queue */

Test(exec_frames, the_queue_keeps_order_and_joins_neighbours)
{
    struct vf_exec_queue q = {0};
    const uint8_t *data;
    size_t len;
    int fd;

    cr_expect_not(vf_exec_queue_peek(&q, &fd, &data, &len));
    vf_exec_queue_put(&q, 1, "ab", 2);
    vf_exec_queue_put(&q, 1, "cd", 2);
    vf_exec_queue_put(&q, 2, "x", 1);
    vf_exec_queue_put(&q, 2, NULL, 0);
    vf_exec_queue_put(&q, 1, "e", 1);
    cr_assert(vf_exec_queue_peek(&q, &fd, &data, &len));
    cr_expect(fd == 1 && len == 4 && memcmp(data, "abcd", 4) == 0);
    vf_exec_queue_take(&q, 3);
    cr_assert(vf_exec_queue_peek(&q, &fd, &data, &len));
    cr_expect(fd == 1 && len == 1 && data[0] == 'd');
    vf_exec_queue_take(&q, 1);
    cr_assert(vf_exec_queue_peek(&q, &fd, &data, &len));
    cr_expect(fd == 2 && len == 1 && data[0] == 'x');
    vf_exec_queue_take(&q, 1);
    cr_assert(vf_exec_queue_peek(&q, &fd, &data, &len));
    cr_expect(fd == 2 && len == 0);
    vf_exec_queue_take(&q, 0);
    cr_assert(vf_exec_queue_peek(&q, &fd, &data, &len));
    cr_expect(fd == 1 && len == 1 && data[0] == 'e');
    vf_exec_queue_take(&q, 1);
    cr_expect_not(vf_exec_queue_peek(&q, &fd, &data, &len));
    vf_exec_queue_free(&q);
}

/* Against two plain counters: bytes of a stream come out in their order, whatever is put and taken. */
Test(exec_frames, the_queue_loses_and_mixes_nothing)
{
    struct vf_exec_queue q = {0};
    uint8_t in[2] = {0, 0}, out[2] = {0, 0}, piece[70000];
    size_t held = 0, most = 0;
    unsigned seed = 1;

    for (int i = 0; i < 20000; i++) {
        const uint8_t *data;
        size_t len, n;
        int fd;

        seed = seed * 1103515245 + 12345;
        if (held < 500000 && (seed >> 16) % 3 != 0) {
            fd = 1 + (int)(seed >> 20) % 2;
            n = (seed >> 8) % 50 == 0 ? (seed >> 12) % sizeof(piece) : (seed >> 24) % 100 + 1;
            for (size_t k = 0; k < n; k++)
                piece[k] = in[fd - 1]++;
            cr_assert_eq(vf_exec_queue_put(&q, fd, piece, n), 0);
            held += n;
            most = held > most ? held : most;
        } else if (vf_exec_queue_peek(&q, &fd, &data, &len) && len > 0) {
            n = (seed >> 18) % len + 1;
            for (size_t k = 0; k < n; k++)
                cr_assert_eq(data[k], out[fd - 1]++);
            vf_exec_queue_take(&q, n);
            held -= n;
        } else if (held == 0) {
            continue;
        } else {
            vf_exec_queue_take(&q, 0);
        }
    }
    cr_expect_gt(most, 100000, "the queue was long");
    cr_expect_leq(q.cap, 16 * most, "its buffer is of the order of what it holds");
    vf_exec_queue_free(&q);
}

Test(exec_frames, tiny_pieces_of_two_streams_cost_little)
{
    struct vf_exec_queue q = {0};

    for (int i = 0; i < 2 * VF_WIRE_WINDOW; i++)
        cr_assert_eq(vf_exec_queue_put(&q, 1 + i % 2, "x", 1), 0);
    cr_expect_leq(q.cap, (size_t)16 << 20);
    vf_exec_queue_free(&q);
}

/* ---- lines */

static char *all_lines(struct vf_exec_text *t, struct vf_exec_queue *q, bool ended, char *out,
                       size_t size)
{
    size_t o = 0, len = 0, taken = 0;
    char *line;

    out[0] = '\0';
    while (vf_exec_text_next(t, q, ended, &line, &len, &taken) == 1) {
        cr_assert(len > 0 && line[len - 1] == '\n');
        cr_assert_lt(o + len, size);
        memcpy(out + o, line, len);
        o += len;
        out[o] = '\0';
        free(line);
    }
    return out;
}

Test(exec_frames, output_becomes_lines)
{
    struct vf_exec_queue q = {0};
    struct vf_exec_text t = {0};
    char out[1000];

    vf_exec_queue_put(&q, 1, "a\"b\n", 4);
    vf_exec_queue_put(&q, 2, "\xff\xfe", 2);
    vf_exec_queue_put(&q, 1, "\0", 1);
    vf_exec_queue_put(&q, 1, NULL, 0);
    cr_expect_str_eq(all_lines(&t, &q, false, out, sizeof(out)),
                     "{\"stream\":\"stdout\",\"data\":\"a\\\"b\\n\"}\n"
                     "{\"stream\":\"stderr\",\"base64\":\"//4=\"}\n"
                     "{\"stream\":\"stdout\",\"base64\":\"AA==\"}\n");
    vf_exec_queue_free(&q);
}

Test(exec_frames, a_character_is_not_cut)
{
    struct vf_exec_queue q = {0};
    struct vf_exec_text t = {0};
    char out[1000];

    vf_exec_queue_put(&q, 1, "x\xe2\x82", 3);
    cr_expect_str_eq(all_lines(&t, &q, false, out, sizeof(out)),
                     "{\"stream\":\"stdout\",\"data\":\"x\"}\n");
    vf_exec_queue_put(&q, 2, "y", 1); /* the other stream does not wait for it */
    cr_expect_str_eq(all_lines(&t, &q, false, out, sizeof(out)),
                     "{\"stream\":\"stderr\",\"data\":\"y\"}\n");
    vf_exec_queue_put(&q, 1, "\xac", 1);
    cr_expect_str_eq(all_lines(&t, &q, false, out, sizeof(out)),
                     "{\"stream\":\"stdout\",\"data\":\"\xe2\x82\xac\"}\n");
    /* One that never ends comes out at the stream's end, or at the command's. */
    vf_exec_queue_put(&q, 1, "\xf0\x9f", 2);
    vf_exec_queue_put(&q, 1, NULL, 0);
    cr_expect_str_eq(all_lines(&t, &q, false, out, sizeof(out)),
                     "{\"stream\":\"stdout\",\"base64\":\"8J8=\"}\n");
    vf_exec_queue_put(&q, 2, "\xc3", 1);
    cr_expect_str_eq(all_lines(&t, &q, false, out, sizeof(out)), "");
    cr_expect_str_eq(all_lines(&t, &q, true, out, sizeof(out)),
                     "{\"stream\":\"stderr\",\"base64\":\"ww==\"}\n");
    vf_exec_queue_free(&q);
}

Test(exec_frames, long_output_is_cut_into_lines_that_join_again)
{
    struct vf_exec_queue q = {0};
    struct vf_exec_text t = {0};
    size_t len, taken, all = 0, total = 0, lines = 0;
    char *line;

    for (int i = 0; i < 20000; i++)
        vf_exec_queue_put(&q, 1, "\xe2\x82\xac", 3);
    while (vf_exec_text_next(&t, &q, true, &line, &len, &taken) == 1) {
        struct vf_json *j = vf_json_parse(line, len);
        const char *data = vf_json_str(vf_json_get(j, "data"), "");

        cr_assert_eq(strlen(data) % 3, 0);
        all += strlen(data);
        total += taken;
        lines++;
        vf_json_delete(j);
        free(line);
    }
    cr_expect_eq(all, 60000);
    cr_expect_eq(total, 60000);
    cr_expect_geq(lines, 60000 / VF_EXEC_TEXT_PIECE);
    vf_exec_queue_free(&q);
}

Test(exec_frames, how_it_ended)
{
    struct vf_error err = {0};
    static const struct {
        struct vf_exec_status st;
        const char *text;
    } cases[] = {
        {{false, false, 3}, "{\"exit\":{\"code\":3,\"signal\":null,\"timed_out\":false}}"},
        {{true, true, 9}, "{\"exit\":{\"code\":null,\"signal\":9,\"timed_out\":true}}"},
    };

    for (size_t i = 0; i < 2; i++) {
        char *text = vf_exec_end_text(&cases[i].st, NULL);
        cr_expect_str_eq(text, cases[i].text);
        free(text);
    }
    vf_fail(&err, VF_VMM_DIED, "qemu: gone");
    char *text = vf_exec_end_text(NULL, &err);
    cr_expect_str_eq(
        text, "{\"error\":{\"code\":\"vmm_died\",\"message\":\"qemu: gone\",\"hint\":\"\"}}");
    free(text);
}

/* What a client sends on an upgraded exec connection, cut into pieces whose length the first byte says: the pieces make
 * no difference to what was said. */
#include "fuzz.h"
#include "pool/exec_frames.h"

struct said {
    size_t stdin_bytes, signals;
    uint32_t sum; /* of stdin's bytes and of signals, in order */
    bool end, refused;
};

static void feed(const uint8_t *data, size_t size, size_t step, struct said *said)
{
    struct vf_exec_decoder d = {0};
    struct vf_exec_piece piece;
    struct vf_error err;

    *said = (struct said){0};
    for (size_t pos = 0; pos < size && !said->refused;) {
        size_t n = size - pos < step ? size - pos : step;
        ssize_t took = vf_exec_decode(&d, data + pos, n, &piece, &err);

        if (took < 0) {
            FUZZ_CHECK(err.msg[0] != '\0');
            said->refused = true;
            break;
        }
        FUZZ_CHECK((size_t)took <= n && (took > 0 || piece.what != VF_EXEC_SAID_NOTHING));
        pos += (size_t)took;
        if (piece.what == VF_EXEC_SAID_STDIN) {
            FUZZ_CHECK(!said->end && piece.data >= data && piece.data + piece.len <= data + size);
            said->stdin_bytes += piece.len;
            for (size_t i = 0; i < piece.len; i++)
                said->sum = said->sum * 31 + piece.data[i];
        } else if (piece.what == VF_EXEC_SAID_SIGNAL) {
            FUZZ_CHECK(piece.signal >= 1 && piece.signal <= 64);
            said->signals++;
            said->sum = said->sum * 31 + (uint32_t)piece.signal;
        } else if (piece.what == VF_EXEC_SAID_END) {
            said->end = true;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct said whole, pieces;

    if (size == 0)
        return 0;
    feed(data + 1, size - 1, size, &whole);
    feed(data + 1, size - 1, (size_t)data[0] + 1, &pieces);
    FUZZ_CHECK(whole.end == pieces.end && whole.refused == pieces.refused);
    FUZZ_CHECK(whole.sum == pieces.sum && whole.signals == pieces.signals);
    FUZZ_CHECK(whole.stdin_bytes == pieces.stdin_bytes);
    return 0;
}

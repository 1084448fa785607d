/* A command's output as lines of JSON:
 *
 *     {"stream":"stdout","data":"text"}       {"stream":"stderr","base64":"AP8="}
 *     {"exit":{"code":0,"signal":null,"timed_out":false}}       {"error":{"code","message","hint"}}
 *
 * Text is cut between characters: the first bytes of one wait for the others. Bytes that are not UTF-8, and
 * NUL bytes, go as base64.
 */
#ifndef VF_POOL_EXEC_TEXT_H
#define VF_POOL_EXEC_TEXT_H

#include "factory/exec.h"
#include "pool/exec_queue.h"

#define VF_EXEC_TEXT_PIECE 8192 /* bytes of output a line, at most */

struct vf_exec_text { /* zeroed to begin with */
    char rest[2][4];  /* the beginning of a character, of stdout and of stderr */
    size_t n_rest[2];
};
/* The next line, with its newline, malloc'd. ended: no more will be put into q, so that nothing is waited for.
 * *ret_taken: bytes taken off q. 1: a line, 0: none now, -ENOMEM. */
int vf_exec_text_next(struct vf_exec_text *t, struct vf_exec_queue *q, bool ended, char **ret_line,
                      size_t *ret_len, size_t *ret_taken);
/* {"exit":…} or {"error":…}, without a newline; exactly one of status and err. malloc'd; NULL without memory. */
char *vf_exec_end_text(const struct vf_exec_status *status, const struct vf_error *err);

#endif

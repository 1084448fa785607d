/* Taps that callers handed over by POST /v1/taps, until an acquire takes them. */
#ifndef VF_POOL_API_TAPS_H
#define VF_POOL_API_TAPS_H

#include "pool/api_internal.h"

#define VF_TAPS_PROTOCOL "vmfactory-taps"
#define VF_TAPS_BYTE 'T' /* what the descriptors come with */
#define VF_TAPS_MAX 8    /* descriptors: one for each queue pair */
#define VF_TAPS_TOKEN 33 /* 128 random bits in hex, with the NUL */
#define VF_TAPS_MAX_OF_USER 32
#define VF_TAPS_MAX_ALL 256 /* connections, whether they have brought descriptors yet or not */

#define VF_TAPS_MAX_CLOSING 64 /* threads that close some */

struct vf_taps;
/* Who's own, not yet used. Errors name network.taps. The descriptors stay ours, and the token can be found until it is
 * used or its connection ends. */
int vf_taps_find(struct vf_api *a, const char *token, const struct vf_caller *who,
                 struct vf_taps **ret, struct vf_error *err);
const int *vf_taps_fds(const struct vf_taps *t, int *ret_n);
/* The token is used up; the descriptors are closed. */
void vf_taps_used(struct vf_taps *t);

#endif

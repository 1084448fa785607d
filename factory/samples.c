/* Random bytes that guests drew after their reseed. Two VMs that drew the same share a secret. */
#include <stdlib.h>
#include <string.h>
#include "factory/instance.h"

#define REMEMBERED 4096

struct vf_samples {
    uint8_t seen[REMEMBERED][16];
    size_t total;
};

struct vf_samples *vf_samples_new(void)
{
    return calloc(1, sizeof(struct vf_samples));
}

void vf_samples_free(struct vf_samples *s)
{
    free(s);
}

bool vf_samples_add(struct vf_samples *s, const uint8_t sample[16])
{
    size_t n = s->total < REMEMBERED ? s->total : REMEMBERED;
    for (size_t i = 0; i < n; i++)
        if (memcmp(s->seen[i], sample, 16) == 0)
            return false;
    memcpy(s->seen[s->total++ % REMEMBERED], sample, 16);
    return true;
}

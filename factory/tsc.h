/* The host's time-stamp counter. */
#ifndef VF_FACTORY_TSC_H
#define VF_FACTORY_TSC_H

#include <stdint.h>

/* Its frequency in kHz, to about ten parts in a million; 0 on hosts that have none. The first call blocks for
 * some 20 ms (worker threads), later ones return what it found. Thread-safe. */
int64_t vf_tsc_khz(void);

#endif

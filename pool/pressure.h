/* Whether the host's memory is short: PSI where the kernel has it, and MemAvailable. */
#ifndef VF_POOL_PRESSURE_H
#define VF_POOL_PRESSURE_H

#include <stdbool.h>
#include <stddef.h>
#include "pool/settings.h"

/* Reads /proc (some 50 µs). ret_why: "PSI some avg10 35.10 % > 20 %". */
bool vf_memory_pressure(const struct vf_settings *s, char *ret_why, size_t size);
/* The same from the texts of /proc/pressure/memory (NULL: none) and /proc/meminfo. */
bool vf_memory_pressure_of(const struct vf_settings *s, const char *psi, const char *meminfo,
                           char *ret_why, size_t size);

#endif

/* The one place that says which version this is; the Makefile reads it from here too. */
#ifndef VF_BASE_VERSION_H
#define VF_BASE_VERSION_H

#define VF_VERSION "0.6.0"

#endif

/* This process as /proc/self sees it. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "pool/stats_internal.h"

/* The fields of /proc/self/stat that matter here, by their numbers in proc(5). */
struct stat_fields {
    long long utime, stime, threads, started; /* 14, 15, 20, 22; times in clock ticks */
    long long resident_pages;                 /* 24 */
};

static bool read_stat(struct stat_fields *ret)
{
    char line[1024];
    const char *p;
    FILE *f = fopen("/proc/self/stat", "re");
    size_t n = f != NULL ? fread(line, 1, sizeof(line) - 1, f) : 0;

    if (f != NULL)
        fclose(f);
    line[n] = '\0';
    p = strrchr(line, ')'); /* the name before it may hold anything */
    return p != NULL &&
           sscanf(p + 1,
                  " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lld %lld %*d %*d %*d %*d %lld %*d "
                  "%lld %*u %lld",
                  &ret->utime, &ret->stime, &ret->threads, &ret->started,
                  &ret->resident_pages) == 5;
}

static int64_t ticks_us(long long ticks)
{
    return ticks * 1000000 / sysconf(_SC_CLK_TCK);
}

static int64_t count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int64_t n = -3; /* ., .. and the one that reads */

    if (d == NULL)
        return 0;
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

void vf_stats_process_read(struct vf_stats_process *ret)
{
    struct stat_fields st;
    struct rlimit limit;

    if (read_stat(&st)) {
        ret->resident_bytes = st.resident_pages * sysconf(_SC_PAGESIZE);
        ret->threads = st.threads;
        ret->cpu_us = ticks_us(st.utime + st.stime);
    }
    ret->open_fds = count_fds();
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        ret->max_fds = limit.rlim_cur > INT64_MAX ? INT64_MAX : (int64_t)limit.rlim_cur;
}

int64_t vf_stats_process_started_us(void)
{
    struct stat_fields st;
    struct timespec boot;

    if (!read_stat(&st) || clock_gettime(CLOCK_BOOTTIME, &boot) != 0)
        return 0;
    return vf_realtime_ns() / 1000 -
           ((int64_t)boot.tv_sec * 1000000 + boot.tv_nsec / 1000 - ticks_us(st.started));
}

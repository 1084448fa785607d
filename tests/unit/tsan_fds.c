/* Keeps ThreadSanitizer from seeing races on numbers of descriptors.
 *
 * It takes a descriptor's making, use and closing for accesses to one place. libuv closes by a system call of its own
 * that the sanitizer does not see: the number's next owner, in another thread, then seems to race with the one before,
 * who had long let go of it. So reports in which a descriptor is made or closed are left out; races on memory are not.
 */
#if defined(__SANITIZE_THREAD__)

const char *__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void)
{
    /* As the sanitizer itself calls what it puts in the place of these; its reports leave the prefix out. */
    return "race:interceptor_accept4$\nrace:interceptor_close$\nrace:interceptor_closedir$\n"
           "race:interceptor_connect$\nrace:interceptor_dup$\nrace:interceptor_eventfd$\n"
           "race:interceptor_fclose$\nrace:interceptor_open$\nrace:interceptor_open64$\n"
           "race:interceptor_pipe2$\nrace:interceptor_socket$\n"
           "race:interceptor_socketpair$\n";
}

#endif

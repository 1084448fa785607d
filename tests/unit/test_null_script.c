/* The null driver's scripts: what is understood, and that nothing else is. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "vmm/null.h"

static struct vf_null_script parse(const char *text)
{
    struct vf_null_script s;
    struct vf_error e = {0};
    cr_assert_eq(vf_null_script_parse(text, &s, &e), 0, "%s: %s", text, e.msg);
    return s;
}

Test(null_script, empty_is_a_good_vm)
{
    struct vf_null_script s = parse(""), zero = {0};
    cr_assert_eq(memcmp(&s, &zero, sizeof(s)), 0);
    s = parse(";;");
    cr_assert_eq(memcmp(&s, &zero, sizeof(s)), 0);
}

Test(null_script, operations)
{
    struct vf_null_script s =
        parse("restore:delay=5ms;resume:fail;save:fail=no_space,message=disk: full = bad;"
              "create:hang;start:delay=7us,exit;stop:delay=2s,hang");
    cr_assert_eq(s.op[VF_VM_OP_RESTORE].delay_us, 5000);
    cr_assert_eq(s.op[VF_VM_OP_RESTORE].action, VF_NULL_DO);
    cr_assert_eq(s.op[VF_VM_OP_RESUME].action, VF_NULL_FAIL);
    cr_assert_eq(s.op[VF_VM_OP_SAVE].code, VF_NO_SPACE);
    cr_assert_str_eq(s.op[VF_VM_OP_SAVE].message, "disk: full = bad");
    cr_assert_eq(s.op[VF_VM_OP_CREATE].action, VF_NULL_HANG);
    cr_assert_eq(s.op[VF_VM_OP_START].delay_us, 7);
    cr_assert_eq(s.op[VF_VM_OP_START].action, VF_NULL_EXIT);
    cr_assert_eq(s.stop.delay_us, 2000000);
    cr_assert_eq(s.stop.action, VF_NULL_HANG);
}

Test(null_script, guest)
{
    struct vf_null_script s =
        parse("hello:half;renew:flood,delay=1ms;ping:garbage,times=20;freeze:close;"
              "running:exit=20ms,panic=1s;agent:stale-nonce,ignore-identity");
    cr_assert_eq(s.msg[VF_NULL_MSG_HELLO].action, VF_NULL_HALF);
    cr_assert_eq(s.msg[VF_NULL_MSG_RENEW].action, VF_NULL_FLOOD);
    cr_assert_eq(s.msg[VF_NULL_MSG_RENEW].delay_us, 1000);
    cr_assert_eq(s.msg[VF_NULL_MSG_PING].action, VF_NULL_GARBAGE);
    cr_assert_eq(s.msg[VF_NULL_MSG_PING].times, 20);
    cr_assert_eq(s.msg[VF_NULL_MSG_FREEZE].action, VF_NULL_CLOSE);
    cr_assert_eq(s.exit_after_us, 20000);
    cr_assert_eq(s.panic_after_us, 1000000);
    cr_assert_eq(s.agent_flags, VF_NULL_AGENT_STALE_NONCE | VF_NULL_AGENT_IGNORE_IDENTITY);
    cr_assert_eq(parse("agent:absent").agent_flags, VF_NULL_AGENT_ABSENT);
}

Test(null_script, refusals_name_the_part)
{
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"reboot:fail", "unknown subject 'reboot'"},
        {"restore", "restore: what of it?"},
        {"restore:", "restore: what of it?"},
        {"save:hang;restore:dely=5ms", "restore: unknown word 'dely'"},
        {"restore:delay", "'' is no time"},
        {"restore:delay=5", "'5' is no time"},
        {"restore:delay=-5ms", "'-5ms' is no time"},
        {"restore:delay=5 ms", "'5 ms' is no time"},
        {"restore:delay=99999999999999999999ms", "is no time"},
        {"restore:delay=2h", "'2h' is no time"},
        {"restore:fail=nonsense", "'nonsense' is no error code"},
        {"restore:fail=ok", "'ok' is no error code"},
        {"restore:hang=1", "hang takes no value"},
        {"restore:hang,fail", "one way to end"},
        {"restore:flood", "flood makes no sense here"},
        {"restore:hang,times=2", "unknown word 'times'"},
        {"renew:hang,times", "a number from 1"},
        {"renew:hang,times=0", "a number from 1"},
        {"renew:hang,times=2x", "not '2x'"},
        {"stop:fail", "fail makes no sense here"},
        {"running:panic", "'' is no time"},
        {"running:dance=1s", "unknown word 'dance'"},
        {"agent:lazy", "unknown word 'lazy'"},
        {"agent:absent=1", "unknown word 'absent'"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct vf_null_script s = {.agent_flags = 12345};
        struct vf_error e = {0};
        cr_assert_eq(vf_null_script_parse(bad[i].text, &s, &e), vf_code_errno(VF_INVALID_ARGUMENT),
                     "%s", bad[i].text);
        cr_assert(strstr(e.msg, bad[i].words), "%s: %s", bad[i].text, e.msg);
        cr_assert_eq(s.agent_flags, 12345);
    }
}

Test(null_script, limits)
{
    char text[8192];
    struct vf_null_script s;
    struct vf_error e = {0};
    memset(text, ';', sizeof(text));
    text[sizeof(text) - 1] = 0;
    cr_assert_eq(vf_null_script_parse(text, &s, &e), vf_code_errno(VF_INVALID_ARGUMENT));
    snprintf(text, sizeof(text), "save:fail,message=%0200d", 0);
    cr_assert_eq(vf_null_script_parse(text, &s, &e), vf_code_errno(VF_INVALID_ARGUMENT));
    cr_assert(strstr(e.msg, "message: at most 127 bytes"), "%s", e.msg);
}

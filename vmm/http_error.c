/* What a VMM's error answer says, as one line.
 *
 * Cloud Hypervisor since v48 sends a JSON array of strings, outermost first; before, plain text. Firecracker sends
 * {"fault_message": "…"}. The innermost string is the cause; the one before it says of what (a path, a device), so both
 * are kept. Anything else is taken as text. Whatever it is, it is cut, and cleaned of what must not reach a terminal.
 */
#include <stdio.h>
#include <string.h>
#include "base/utf8.h"
#include "vmm/http_internal.h"

#define MAX_TEXT 400

/* One line, cut, without control characters; what is no UTF-8 becomes '?'. */
static void clean(const char *text, size_t len, char ret[MAX_TEXT + 1])
{
    size_t n = 0;
    for (size_t i = 0; i < len && n < MAX_TEXT;) {
        uint32_t cp = 0;
        size_t size = vf_utf8_next(text + i, len - i, &cp);
        const char *put = text + i;
        size_t put_len = size;
        if (size == 0)
            size = put_len = 1, put = "?";
        else if (vf_utf8_is_control(cp))
            put_len = 1, put = " ";
        i += size;
        if (*put == ' ' && (n == 0 || ret[n - 1] == ' '))
            continue;
        if (put_len > MAX_TEXT - n)
            break;
        memcpy(ret + n, put, put_len);
        n += put_len;
    }
    while (n && ret[n - 1] == ' ')
        n--;
    ret[n] = 0;
}

static bool chain(const struct vf_json *array, char ret[MAX_TEXT + 1])
{
    const char *before = "", *last = "", *s;
    char text[2 * MAX_TEXT + 3];
    for (size_t i = 0; i < 64 && (s = vf_json_str(vf_json_at(array, i), NULL)); i++)
        if (*s) {
            before = last;
            last = s;
        }
    if (!*last)
        return false;
    if (!*before || strstr(last, before))
        snprintf(text, sizeof(text), "%s", last);
    else if (strstr(before, last))
        snprintf(text, sizeof(text), "%s", before);
    else
        snprintf(text, sizeof(text), "%.*s: %.*s", MAX_TEXT / 2, before, MAX_TEXT / 2, last);
    clean(text, strlen(text), ret);
    return true;
}

void vf_vmm_http_error(const char *name, int status, const char *body, size_t len,
                       struct vf_error *err)
{
    char text[MAX_TEXT + 1] = "";
    struct vf_json *json = len ? vf_json_parse(body, len) : NULL;
    const char *fault = vf_json_str(vf_json_get(json, "fault_message"), NULL);
    if (!fault)
        fault = vf_json_str(json, NULL); /* a string alone */
    if (fault)
        clean(fault, strlen(fault), text);
    else if (!chain(json, text))
        clean(body, len, text);
    vf_json_delete(json);
    vf_fail(err, VF_VMM_FAILED, "%s: %d: %s", name, status, *text ? text : "no reason given");
}

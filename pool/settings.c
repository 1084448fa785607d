/* Reading, changing and writing settings. See settings.h; settings_table.c is the table,
 * settings_check.c says what is refused (settings_networks.c of networks), settings_text.c shows them.
 *
 * defaults -> the file's JSON by the table -> limits -> what settings mean together. Whatever fails, the
 * caller's settings are as they were.
 */
#include <assert.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/fd.h"
#include "pool/settings_internal.h"

/* The table for the decoder. Numbers pass whole: their limits are checked here, where the unit is known. */
static void decoder_fields(struct vf_json_field ret[VF_N_SETTINGS + 1])
{
    for (size_t i = 0; i <= VF_N_SETTINGS; i++) {
        ret[i] = vf_settings_table[i].field;
        if (ret[i].type == VF_JSON_INT) {
            ret[i].min = INT64_MIN;
            ret[i].max = INT64_MAX;
        }
    }
}

/* Strings that were given as "" are none. */
static void drop_empty_strings(struct vf_settings *s)
{
    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++) {
        if (t->field.type == VF_JSON_STRING && *vf_setting_string(s, t) != NULL &&
            **vf_setting_string(s, t) == '\0') {
            free(*vf_setting_string(s, t));
            *vf_setting_string(s, t) = NULL;
        }
    }
}

/* Text to value by the table, over what s holds. where: for messages, or NULL. */
static int decode(const char *text, size_t len, const char *where, struct vf_settings *s,
                  struct vf_error *err)
{
    struct vf_json_field fields[VF_N_SETTINGS + 1];
    int r;

    decoder_fields(fields);
    r = vf_json_decode(text, len, VF_SETTINGS_MAX_TEXT, fields, s, where, err);
    drop_empty_strings(s);
    return r;
}

/* "{"name":value}", as the file would say it; NULL without memory. */
static char *as_json(const struct vf_setting *t, const char *name, const char *value)
{
    struct vf_json_writer w = {0};
    char *text = NULL;

    if (t != NULL && (t->field.type == VF_JSON_INT || t->field.type == VF_JSON_BOOL))
        return asprintf(&text, "{\"%s\":%s}", name, value) < 0 ? NULL : text;
    vf_jw_begin(&w, NULL, '{');
    vf_jw_string(&w, name, value);
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

static bool is_integer(const char *s)
{
    const char *digits = s[0] == '-' ? s + 1 : s;

    return digits[0] != '\0' && strspn(digits, "0123456789") == strlen(digits);
}

static const struct vf_setting *find(const char *name)
{
    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++)
        if (strcmp(t->field.name, name) == 0)
            return t;
    return NULL;
}

int vf_settings_set(struct vf_settings *s, const char *name, const char *value,
                    struct vf_error *err)
{
    const struct vf_setting *t = find(name);
    VF_CLEANUP_FREE char *json = NULL;
    struct vf_settings one = {0};
    int r;

    if (t != NULL && t->field.type == VF_JSON_INT && !is_integer(value))
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: must be an integer (is \"%.64s\")", name,
                       value);
    if (t != NULL && t->field.type == VF_JSON_BOOL && strcmp(value, "true") != 0 &&
        strcmp(value, "false") != 0)
        return vf_fail(err, VF_INVALID_ARGUMENT, "%s: must be true or false (is \"%.64s\")", name,
                       value);
    json = as_json(t, name, value);
    if (json == NULL)
        return vf_fail(err, VF_NO_MEMORY, "settings: no memory");
    r = decode(json, strlen(json), NULL, &one, err); /* refuses an unknown name */
    if (r == 0)
        r = vf_setting_check_limits(&one, t, err);
    if (r < 0) {
        vf_settings_free(&one);
        return r;
    }
    switch (t->field.type) {
    case VF_JSON_INT:
        *vf_setting_int(s, t) = *vf_setting_int(&one, t);
        break;
    case VF_JSON_ENUM:
        *vf_setting_enum(s, t) = *vf_setting_enum(&one, t);
        break;
    case VF_JSON_BOOL:
        *vf_setting_bool(s, t) = *vf_setting_bool(&one, t);
        break;
    default:
        free(*vf_setting_string(s, t));
        *vf_setting_string(s, t) = *vf_setting_string(&one, t);
        break;
    }
    return 0;
}

/* dir + "/" + name, or NULL without memory. */
static char *below(const char *dir, const char *name)
{
    char *path = NULL;

    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

/* The XDG specification has relative paths ignored. */
static const char *absolute_env(const char *name)
{
    const char *v = getenv(name);

    return v != NULL && v[0] == '/' ? v : NULL;
}

/* Where a user other than root has them. */
static int user_directories(struct vf_settings *s, struct vf_error *err)
{
    const char *state = absolute_env("XDG_STATE_HOME"), *run = absolute_env("XDG_RUNTIME_DIR");
    const char *home = absolute_env("HOME");
    const struct passwd *pw = home == NULL ? getpwuid(geteuid()) : NULL;

    if (pw != NULL)
        home = pw->pw_dir;
    if (state == NULL && (home == NULL || home[0] != '/')) {
        vf_fail(err, VF_NOT_FOUND, "state_dir: this user has no home directory");
        return vf_hint(err, "set state_dir and run_dir");
    }
    vf_free_str(&s->state_dir);
    vf_free_str(&s->run_dir);
    s->state_dir =
        state != NULL ? below(state, "vmfactory") : below(home, ".local/state/vmfactory");
    if (s->state_dir != NULL)
        s->run_dir = run != NULL ? below(run, "vmfactory") : below(s->state_dir, "run");
    if (s->state_dir == NULL || s->run_dir == NULL)
        return vf_fail(err, VF_NO_MEMORY, "settings: no memory");
    return 0;
}

int vf_settings_init(struct vf_settings *ret, struct vf_error *err)
{
    struct vf_settings s = {0};
    bool root = geteuid() == 0;
    int r = 0;

    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL && r == 0; t++)
        if (t->dflt[0] != '\0')
            r = vf_settings_set(&s, t->field.name, t->dflt, err);
    if (r == 0 && !root)
        r = user_directories(&s, err);
    if (r == 0 && (!root || getgrnam(VF_SETTINGS_GROUP) == NULL))
        vf_free_str(&s.group);
    if (r < 0) {
        vf_settings_free(&s);
        return r;
    }
    *ret = s;
    return 0;
}

int vf_settings_parse(const char *text, size_t len, const char *where, struct vf_settings *ret,
                      struct vf_error *err)
{
    struct vf_settings s;
    int r = vf_settings_init(&s, err);

    if (r < 0)
        return r;
    r = decode(text, len, where, &s, err);
    if (r == 0) {
        r = vf_settings_check(&s, err);
        if (r < 0 && where != NULL)
            vf_wrap(err, "%s", where);
    }
    if (r < 0) {
        vf_settings_free(&s);
        return r;
    }
    *ret = s;
    return 0;
}

int vf_settings_load(const char *path, struct vf_settings *ret, struct vf_error *err)
{
    VF_CLEANUP_FREE char *text = NULL;
    VF_CLEANUP_FD int fd = -1;
    size_t len = 0;
    ssize_t n;
    int r;

    if (path == NULL)
        return vf_settings_parse("{}", 2, NULL, ret, err);
    r = vf_open_regular(path, "config file", &fd, err);
    if (r < 0)
        return r;
    text = (char *)malloc(VF_SETTINGS_MAX_TEXT + 1); /* one more, so that a longer file is seen */
    if (text == NULL)
        return vf_fail(err, VF_NO_MEMORY, "settings: no memory");
    while (len <= VF_SETTINGS_MAX_TEXT) {
        n = read(fd, text + len, VF_SETTINGS_MAX_TEXT + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vf_fail_errno(err, errno, "config file: %s: read", path);
        if (n == 0)
            break;
        len += (size_t)n;
    }
    return vf_settings_parse(text, len, path, ret, err);
}

void vf_settings_free(struct vf_settings *s)
{
    struct vf_json_field fields[VF_N_SETTINGS + 1];

    if (s == NULL)
        return;
    decoder_fields(fields);
    vf_json_free(fields, s);
}

char *vf_settings_encode(const struct vf_settings *s)
{
    struct vf_json_writer w = {0};

    vf_jw_begin(&w, NULL, '{');
    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++) {
        const char *text;

        switch (t->field.type) {
        case VF_JSON_INT:
            vf_jw_int(&w, t->field.name, *vf_setting_int(s, t));
            break;
        case VF_JSON_ENUM:
            vf_jw_string(&w, t->field.name, t->field.choices[*vf_setting_enum(s, t)]);
            break;
        case VF_JSON_BOOL:
            vf_jw_bool(&w, t->field.name, *vf_setting_bool(s, t));
            break;
        default: /* none is "", as the parser takes it */
            text = *vf_setting_string(s, t);
            vf_jw_string(&w, t->field.name, text != NULL ? text : "");
            break;
        }
    }
    vf_jw_end(&w, '}');
    return vf_jw_finish(&w);
}

static bool differs(const struct vf_settings *a, const struct vf_settings *b,
                    const struct vf_setting *t)
{
    const char *x, *y;

    switch (t->field.type) {
    case VF_JSON_INT:
        return *vf_setting_int(a, t) != *vf_setting_int(b, t);
    case VF_JSON_ENUM:
        return *vf_setting_enum(a, t) != *vf_setting_enum(b, t);
    case VF_JSON_BOOL:
        return *vf_setting_bool(a, t) != *vf_setting_bool(b, t);
    default:
        x = *vf_setting_string(a, t);
        y = *vf_setting_string(b, t);
        return (x == NULL) != (y == NULL) || (x != NULL && strcmp(x, y) != 0);
    }
}

int vf_settings_apply(struct vf_settings *s, const struct vf_settings *from, char **ret_waiting,
                      struct vf_error *err)
{
    char waiting[1024] = "";
    size_t len = 0;
    char *copy = NULL;

    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++) {
        if (!t->live && differs(s, from, t))
            len += (size_t)snprintf(waiting + len, sizeof(waiting) - len, "%s%s",
                                    len > 0 ? ", " : "", t->field.name);
        assert(len < sizeof(waiting)); /* all names together are shorter */
    }
    if (len > 0 && (copy = strdup(waiting)) == NULL)
        return vf_fail(err, VF_NO_MEMORY, "settings: no memory");
    for (const struct vf_setting *t = vf_settings_table; t->field.name != NULL; t++) {
        if (!t->live)
            continue;
        assert(t->field.type != VF_JSON_STRING); /* copying one could fail half-way */
        if (t->field.type == VF_JSON_INT)
            *vf_setting_int(s, t) = *vf_setting_int(from, t);
        else if (t->field.type == VF_JSON_BOOL)
            *vf_setting_bool(s, t) = *vf_setting_bool(from, t);
        else
            *vf_setting_enum(s, t) = *vf_setting_enum(from, t);
    }
    *ret_waiting = copy;
    return 0;
}

/* status, pool show, pool set, drain. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/pools.h"

const char *const vf_pool_heads[] = {"TEMPLATE", "STATE",   ">GEN",    ">PARKED",
                                     ">STANDBY", ">MAKING", ">LEASED", ">WAITING",
                                     ">RATE/S",  ">CLONE",  "REFILL",  NULL};

static int64_t get(const struct vf_json *j, const char *key)
{
    return vf_json_int(vf_json_get(j, key), 0);
}

/* What there is to say of a pool beside numbers: a failure first, then what it is at. */
static void note(const struct vf_json *pool, char *buf, size_t size, enum vf_color *ret_color)
{
    const struct vf_json *build = vf_json_get(pool, "build"), *refill = vf_json_get(pool, "refill");
    const char *state = vf_json_str(vf_json_get(refill, "state"), "idle");
    const char *why = vf_json_str(vf_json_get(vf_json_get(refill, "error"), "message"), NULL);
    const char *build_why = vf_json_str(vf_json_get(vf_json_get(build, "error"), "message"), NULL);

    if (why == NULL)
        why = vf_json_str(vf_json_get(refill, "reason"), NULL);
    *ret_color = vf_color_of_state(state);
    if (vf_json_bool(vf_json_get(build, "running"), false)) {
        snprintf(buf, size, "building: %s", vf_json_str(vf_json_get(build, "stage"), "beginning"));
        *ret_color = VF_YELLOW;
    } else if (vf_json_bool(vf_json_get(pool, "drained"), false)) {
        snprintf(buf, size, "drained");
        *ret_color = VF_YELLOW;
    } else if (build_why != NULL &&
               strcmp(vf_json_str(vf_json_get(pool, "state"), ""), "ready") != 0) {
        snprintf(buf, size, "build failed: %s", build_why);
        *ret_color = VF_RED;
    } else if (strcmp(state, "backoff") == 0 || strcmp(state, "pressure") == 0)
        snprintf(buf, size, "%s%s%s", state, why != NULL ? ": " : "", why != NULL ? why : "");
    else
        snprintf(buf, size, "%s", state);
}

void vf_pool_row(struct vf_table *t, const struct vf_json *pool)
{
    const char *state = vf_json_str(vf_json_get(pool, "state"), "?");
    const struct vf_json *config = vf_json_get(pool, "config");
    int64_t generation = get(pool, "generation"), old = get(pool, "parked_old");
    double clone_ms = vf_json_double(vf_json_get(pool, "clone_ms"), -1);
    enum vf_color color;
    char text[600], buf[VF_TEXT];

    vf_table_cell(t, vf_json_str(vf_json_get(pool, "template"), "?"));
    vf_table_cell_colored(t, state, vf_color_of_state(state));
    snprintf(text, sizeof(text), "%" PRId64, generation);
    vf_table_cell(t, generation > 0 ? text : NULL);
    if (old > 0)
        snprintf(text, sizeof(text), "%" PRId64 "+%" PRId64 "/%" PRId64, get(pool, "parked"), old,
                 get(config, "target"));
    else
        snprintf(text, sizeof(text), "%" PRId64 "/%" PRId64, get(pool, "parked"),
                 get(config, "target"));
    vf_table_cell_colored(t, text,
                          get(pool, "parked") >= get(config, "target") ? VF_PLAIN : VF_YELLOW);
    snprintf(text, sizeof(text), "%" PRId64 "/%" PRId64, get(pool, "standby"),
             get(config, "standby"));
    vf_table_cell(t, text);
    vf_table_int(t, get(pool, "making"));
    vf_table_int(t, get(pool, "leased"));
    vf_table_int(t, get(pool, "waiting"));
    snprintf(text, sizeof(text), "%.1f", vf_json_double(vf_json_get(pool, "arrivals_per_s"), 0));
    vf_table_cell(t, text);
    vf_table_cell(t, clone_ms >= 0 ? vf_text_us(buf, (int64_t)(clone_ms * 1000)) : NULL);
    note(pool, text, sizeof(text), &color);
    vf_table_cell_colored(t, text, color);
}

int vf_cmd_status(struct vf_cli *cli)
{
    struct vmfactory_response version, pools;
    struct vf_json *v, *j;
    const struct vf_json *list, *pool;
    struct vf_table t;
    char buf[VF_TEXT];
    int r;

    r = vf_cli_request(cli, "GET", "/v1/version", NULL, &version, &v);
    if (r != 0)
        return r;
    r = vf_cli_request(cli, "GET", "/v1/pools", NULL, &pools, &j);
    if (r != 0) {
        vmfactory_response_free(&version);
        vf_json_delete(v);
        return r;
    }
    list = vf_json_get(j, "pools");
    vf_table_init(&t, vf_pool_heads);
    if (cli->args.json && list != NULL)
        /* Two answers in one: the daemon's own, and its pools. */
        printf("{\"daemon\":%s,%s\n", version.body, strchr(pools.body, '{') + 1);
    else {
        printf("%s %s, pid %" PRId64 ", up %s, at %s%s\n", vf_json_str(vf_json_get(v, "name"), "?"),
               vf_json_str(vf_json_get(v, "version"), "?"), get(v, "pid"),
               vf_text_ms(buf, get(v, "uptime_ms")), vmfactory_socket_path(cli->h),
               vf_json_bool(vf_json_get(v, "admin"), false) ? "" : "; you are no admin");
        for (size_t i = 0; (pool = vf_json_at(list, i)) != NULL; i++)
            vf_pool_row(&t, pool);
        if (t.n == 0)
            puts("no templates; vmfactory template add FILE adds one");
        else {
            putchar('\n');
            vf_table_print(&t, stdout, cli->args.color);
        }
    }
    vmfactory_response_free(&version);
    vmfactory_response_free(&pools);
    vf_json_delete(v);
    vf_json_delete(j);
    return 0;
}

static void show(const struct vf_cli *cli, const struct vmfactory_response *answer,
                 const struct vf_json *j)
{
    const struct vf_json *failed = vf_json_get(vf_json_get(j, "refill"), "error");
    struct vf_table t;
    char *config;

    if (cli->args.json) {
        vf_print_json(answer);
        return;
    }
    vf_table_init(&t, vf_pool_heads);
    vf_pool_row(&t, j);
    vf_table_print(&t, stdout, cli->args.color);
    if (vf_json_is_object(failed)) {
        fputs("\nthe last refill failed: ", stdout);
        vf_text_print(vf_json_str(vf_json_get(failed, "message"), ""), stdout);
        putchar('\n');
    }
    config = vf_json_print(vf_json_get(j, "config"));
    printf("\n%s", config != NULL ? config : "");
    free(config);
}

/* A request about the pool that is named first; its answer is shown. */
static int pool_command(struct vf_cli *cli, const char *method, const char *suffix,
                        const char *body)
{
    VF_CLEANUP_FREE char *path = vf_cli_path("/v1/pools/", cli->operands[0], suffix);
    struct vmfactory_response answer;
    struct vf_json *j;
    int r = vf_cli_request(cli, method, path, body, &answer, &j);

    if (r != 0)
        return r;
    show(cli, &answer, j);
    vmfactory_response_free(&answer);
    vf_json_delete(j);
    return 0;
}

int vf_cmd_pool_show(struct vf_cli *cli)
{
    return pool_command(cli, "GET", "", NULL);
}

int vf_cmd_drain(struct vf_cli *cli)
{
    return pool_command(cli, "POST", "/drain", NULL);
}

/* value as the JSON that it looks like: a number, true, false, or else a string. */
static void put_value(struct vf_json_writer *w, const char *key, const char *value)
{
    char *end;
    int64_t n;

    errno = 0;
    n = strtoll(value, &end, 10);
    if (end != value && *end == '\0' && errno == 0)
        vf_jw_int(w, key, n);
    else if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)
        vf_jw_bool(w, key, value[0] == 't');
    else
        vf_jw_string(w, key, value);
}

int vf_cmd_pool_set(struct vf_cli *cli)
{
    VF_CLEANUP_FREE char *body = NULL;
    struct vf_json_writer w = {0};
    struct vf_error err;

    vf_jw_begin(&w, NULL, '{');
    for (int i = 1; i < cli->n_operands; i++) {
        const char *word = cli->operands[i], *equals = strchr(word, '=');
        char key[64];

        if (equals == NULL || equals == word || (size_t)(equals - word) >= sizeof(key)) {
            free(vf_jw_finish(&w));
            vf_fail(&err, VF_INVALID_ARGUMENT, "\"%.100s\" must be KEY=VALUE, like target=8", word);
            vf_report_error(cli, &err);
            return VF_EXIT_USAGE;
        }
        memcpy(key, word, (size_t)(equals - word));
        key[equals - word] = '\0';
        put_value(&w, key, equals + 1);
    }
    vf_jw_end(&w, '}');
    body = vf_jw_finish(&w);
    if (body == NULL) {
        vf_fail(&err, VF_NO_MEMORY, "out of memory");
        return vf_report_error(cli, &err);
    }
    return pool_command(cli, "PATCH", "", body);
}

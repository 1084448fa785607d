/* top: pools, acquires and leases, redrawn each second on the terminal's other screen, which is left however it ends.
 *
 * A frame is put together in memory and written at once, so that it does not flicker. Rates are the difference between
 * two looks at stats.sock, which lies beside api.sock; without it, there are none.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "base/clock.h"
#include "tools/vmfactory/cli.h"
#include "tools/vmfactory/network.h"
#include "tools/vmfactory/pools.h"

#define EVERY_MS 1000
#define SOURCES 4
#define MAX_TEMPLATES 256
#define SLOT_MODES 2

static const char *const sources[SOURCES] = {"hit", "standby", "clone", "cold"};

struct counts {
    char name[64];
    int64_t acquires[SOURCES];
    double hit_p50_s, hit_p99_s;
};
struct slots { /* of networks */
    int64_t capacity, taken, ready, making, dirty;
};
struct look {
    struct slots slots[SLOT_MODES];
    struct counts t[MAX_TEMPLATES];
    size_t n;
    int64_t at_us;
};
struct top {
    struct vf_cli *cli;
    struct vmfactory *stats; /* NULL: not reached */
    struct look looks[2];
    int now; /* the newer one; the other is the one before */
    bool two;
};

static const char *const slot_modes[SLOT_MODES] = {"nat", "bridge"};

static volatile sig_atomic_t over;

static void on_signal(int sig)
{
    (void)sig;
    over = 1;
}

static void connect_stats(struct top *top)
{
    const char *api = vmfactory_socket_path(top->cli->h), *slash = strrchr(api, '/');
    int dir = slash != NULL ? (int)(slash - api) + 1 : 0;
    char *path;

    if (top->stats != NULL || asprintf(&path, "%.*sstats.sock", dir, api) < 0)
        return;
    if (vmfactory_connect(path, &top->stats, NULL) == 0)
        vmfactory_set_timeout_ms(top->stats, EVERY_MS);
    free(path);
}

static void read_slots(const struct vf_json *stats, struct look *l)
{
    const struct vf_json *slots = vf_json_get(stats, "network_slots"),
                         *capacity = vf_json_get(stats, "network_slot_capacity");

    for (int i = 0; i < SLOT_MODES; i++) {
        const struct vf_json *s = vf_json_get(slots, slot_modes[i]);

        l->slots[i] =
            (struct slots){.capacity = vf_json_int(vf_json_get(capacity, slot_modes[i]), 0),
                           .taken = vf_json_int(vf_json_get(s, "taken"), 0),
                           .ready = vf_json_int(vf_json_get(s, "ready"), 0),
                           .making = vf_json_int(vf_json_get(s, "making"), 0),
                           .dirty = vf_json_int(vf_json_get(s, "dirty"), 0)};
    }
}

static void print_slots(const struct look *l, FILE *out)
{
    for (int i = 0; i < SLOT_MODES; i++) {
        const struct slots *s = &l->slots[i];

        if (s->capacity > 0)
            fprintf(out,
                    "\n%s networks: %" PRId64 " taken, %" PRId64 " ready, %" PRId64
                    " making, %" PRId64 " dirty, of %" PRId64 "\n",
                    slot_modes[i], s->taken, s->ready, s->making, s->dirty, s->capacity);
    }
}

/* Reads the counters; false: there are none. */
static bool look(struct top *top, struct look *l)
{
    struct vmfactory_response answer;
    const struct vf_json *list, *item;
    struct vf_json *j;

    l->n = 0;
    l->at_us = vf_now_us();
    connect_stats(top);
    if (top->stats == NULL ||
        vmfactory_request(top->stats, "GET", "/stats", NULL, 0, &answer, NULL) < 0)
        return false;
    j = vf_json_parse(answer.body, answer.len);
    vmfactory_response_free(&answer);
    list = vf_json_get(j, "templates");
    for (size_t i = 0; l->n < MAX_TEMPLATES && (item = vf_json_at(list, i)) != NULL; i++) {
        const struct vf_json *acquires = vf_json_get(item, "acquires_total");
        const struct vf_json *hit =
            vf_json_get(vf_json_get(item, "acquire_duration_seconds"), "hit");
        struct counts *c = &l->t[l->n++];

        snprintf(c->name, sizeof(c->name), "%s", vf_json_str(vf_json_get(item, "template"), ""));
        for (int s = 0; s < SOURCES; s++)
            c->acquires[s] = vf_json_int(vf_json_get(acquires, sources[s]), 0);
        c->hit_p50_s = vf_json_double(vf_json_get(hit, "p50_s"), 0);
        c->hit_p99_s = vf_json_double(vf_json_get(hit, "p99_s"), 0);
    }
    read_slots(j, l);
    vf_json_delete(j);
    return true;
}

static const struct counts *find(const struct look *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->t[i].name, name) == 0)
            return &l->t[i];
    return NULL;
}

static void print_acquires(const struct top *top, FILE *out)
{
    static const char *const rates[] = {"TEMPLATE", ">HIT/S",   ">STANDBY/S", ">CLONE/S",
                                        ">COLD/S",  ">HIT P50", ">HIT P99",   NULL};
    static const char *const totals[] = {"TEMPLATE", ">HITS",    ">STANDBYS", ">CLONES",
                                         ">COLD",    ">HIT P50", ">HIT P99",  NULL};
    const struct look *now = &top->looks[top->now], *before = &top->looks[!top->now];
    double seconds = (double)(now->at_us - before->at_us) / 1e6;
    struct vf_table t;
    char text[VF_TEXT];

    vf_table_init(&t, top->two ? rates : totals);
    for (size_t i = 0; i < now->n; i++) {
        const struct counts *c = &now->t[i], *old = top->two ? find(before, c->name) : NULL;

        vf_table_cell(&t, c->name);
        for (int s = 0; s < SOURCES; s++) {
            int64_t n = c->acquires[s] - (old != NULL ? old->acquires[s] : 0);

            if (top->two)
                snprintf(text, sizeof(text), "%.1f", old != NULL ? (double)n / seconds : 0.0);
            else
                snprintf(text, sizeof(text), "%" PRId64, n);
            vf_table_cell(&t, text);
        }
        vf_table_cell(&t,
                      c->acquires[0] > 0 ? vf_text_us(text, (int64_t)(c->hit_p50_s * 1e6)) : NULL);
        vf_table_cell(&t,
                      c->acquires[0] > 0 ? vf_text_us(text, (int64_t)(c->hit_p99_s * 1e6)) : NULL);
    }
    fputc('\n', out);
    vf_table_print(&t, out, top->cli->args.color);
}

static void print_leases(const struct top *top, const struct vf_json *vms, FILE *out)
{
    static const char *const heads[] = {"VM",      "TEMPLATE",  "SOURCE", ">AGE", "STATE",
                                        "ADDRESS", "NAMESPACE", "PORTS",  NULL};
    const struct vf_json *vm;
    struct vf_table t;
    char buf[VF_TEXT], ports[80];

    vf_table_init(&t, heads);
    for (size_t i = 0; (vm = vf_json_at(vms, i)) != NULL; i++) {
        const struct vf_json *lease = vf_json_get(vm, "lease");
        const char *state = vf_json_str(vf_json_get(vm, "state"), "?");

        vf_table_cell(&t, vf_json_str(vf_json_get(vm, "id"), "?"));
        vf_table_cell(&t, vf_json_str(vf_json_get(vm, "template"), "?"));
        vf_table_cell(&t, vf_json_str(vf_json_get(vm, "source"), NULL));
        vf_table_cell(&t, vf_text_age(buf, vf_json_str(vf_json_get(lease, "acquired"), NULL)));
        vf_table_cell_colored(&t, state, vf_color_of_state(state));
        vf_table_cell(&t, vf_network_address(vm));
        vf_table_cell(&t, vf_network_netns(vm));
        vf_table_cell(&t, vf_network_ports(vm, ports, sizeof(ports)));
    }
    fputc('\n', out);
    vf_table_print(&t, out, top->cli->args.color);
}

/* One frame. 0, or the exit status after saying why not. */
static int frame(struct top *top, FILE *out)
{
    struct vf_json *v, *pools, *vms;
    const struct vf_json *pool;
    struct vf_table t;
    bool counted;
    char buf[VF_TEXT];
    int r;

    r = vf_cli_request(top->cli, "GET", "/v1/version", NULL, NULL, &v);
    if (r != 0)
        return r;
    fprintf(out, "vmfactoryd %s, up %s\n\n", vf_json_str(vf_json_get(v, "version"), "?"),
            vf_text_ms(buf, vf_json_int(vf_json_get(v, "uptime_ms"), 0)));
    vf_json_delete(v);
    r = vf_cli_request(top->cli, "GET", "/v1/pools", NULL, NULL, &pools);
    if (r != 0)
        return r;
    vf_table_init(&t, vf_pool_heads);
    for (size_t i = 0; (pool = vf_json_at(vf_json_get(pools, "pools"), i)) != NULL; i++)
        vf_pool_row(&t, pool);
    vf_table_print(&t, out, top->cli->args.color);
    vf_json_delete(pools);
    top->now = !top->now;
    counted = look(top, &top->looks[top->now]);
    if (counted) {
        print_acquires(top, out);
        print_slots(&top->looks[top->now], out);
    }
    top->two = counted;
    r = vf_cli_request(top->cli, "GET", "/v1/vms", NULL, NULL, &vms);
    if (r != 0)
        return r;
    print_leases(top, vf_json_get(vms, "vms"), out);
    vf_json_delete(vms);
    return 0;
}

/* Shows as many lines of text as the screen has. */
static void draw(const char *text)
{
    struct winsize size = {0};
    int rows = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;

    fputs("\033[H", stdout);
    for (int i = 0; i < rows && *text != '\0'; i++) {
        int len = (int)strcspn(text, "\n");

        printf("%s%.*s\033[K", i > 0 ? "\r\n" : "", len, text);
        text += len + (text[len] == '\n');
    }
    fputs("\033[J", stdout);
    fflush(stdout);
}

/* Waits for the next second; false: q or Ctrl-C. */
static bool wait_a_second(bool keys)
{
    int64_t until_us = vf_deadline_after_ms(EVERY_MS);
    struct pollfd p = {.fd = keys ? STDIN_FILENO : -1, .events = POLLIN};
    int left;

    while (!over && (left = vf_deadline_left_ms(until_us)) != 0) {
        char key;

        if (poll(&p, 1, left) <= 0)
            continue;
        if (read(STDIN_FILENO, &key, 1) != 1)
            p.fd = -1;
        else if (key == 'q' || key == 'Q')
            return false;
    }
    return !over;
}

static int watch(struct top *top)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct termios before, raw;
    struct sigaction a = {.sa_handler = on_signal};
    bool keys = tcgetattr(STDIN_FILENO, &before) == 0;
    char *text = NULL, *shown;
    size_t len = 0;
    int r = 0;

    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        sigaction(ends[i], &a, NULL);
    raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    if (keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    /* The other screen, no cursor, long lines cut instead of wrapped. */
    fputs("\033[?1049h\033[?25l\033[?7l\033[2J", stdout);
    do {
        FILE *out = open_memstream(&text, &len);

        if (out == NULL)
            break;
        r = frame(top, out);
        shown = fclose(out) == 0 ? text : NULL;
        if (r == 0 && shown != NULL)
            draw(shown);
        free(text);
        text = NULL;
    } while (r == 0 && wait_a_second(keys));
    fputs("\033[?7h\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    if (keys)
        tcsetattr(STDIN_FILENO, TCSANOW, &before);
    return r;
}

int vf_cmd_top(struct vf_cli *cli)
{
    struct top *top;
    int r = vf_cli_connect(cli);

    if (r != 0)
        return r;
    if (cli->args.json)
        return vf_cmd_status(cli);
    top = calloc(1, sizeof(*top));
    if (top == NULL) {
        perror("vmfactory");
        return VF_EXIT_FAILED;
    }
    top->cli = cli;
    r = isatty(STDOUT_FILENO) ? watch(top) : frame(top, stdout);
    vmfactory_close(top->stats);
    free(top);
    return r;
}

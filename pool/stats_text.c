/* Stats as OpenMetrics 1.0, and as the text format 0.0.4 that came before it.
 *
 *     # HELP name …      # TYPE name …      # UNIT name …      name{labels} value      …      # EOF
 *
 * Before OpenMetrics a counter's HELP and TYPE name it with its _total, an info is a gauge, and there is neither
 * UNIT nor EOF. The samples are the same.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/utf8.h"
#include "base/version.h"
#include "pool/stats_internal.h"

struct text {
    char *buf;
    size_t len, cap;
    bool failed, openmetrics;
};

/* Room for n more bytes and a NUL. */
static bool reserve(struct text *t, size_t n)
{
    size_t cap = t->cap == 0 ? 16384 : t->cap;
    char *bigger;

    if (t->failed)
        return false;
    if (t->cap - t->len > n)
        return true;
    while (cap - t->len <= n)
        cap *= 2;
    bigger = (char *)realloc(t->buf, cap);
    if (bigger == NULL) {
        t->failed = true;
        return false;
    }
    t->buf = bigger;
    t->cap = cap;
    return true;
}

static void add(struct text *t, const char *s, size_t n)
{
    if (!reserve(t, n))
        return;
    memcpy(t->buf + t->len, s, n);
    t->len += n;
}

static void puts_to(struct text *t, const char *s)
{
    add(t, s, strlen(s));
}

static void print(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void print(struct text *t, const char *fmt, ...)
{
    char line
        [512]; /* of this file's own formats; names and help are not cut, they go through puts_to */
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(line))
        t->failed = true;
    else
        add(t, line, (size_t)n);
}

/* A label's value: backslash, quote and newline are escaped, what is no UTF-8 becomes U+FFFD. */
static void put_value(struct text *t, const char *s)
{
    size_t len = strlen(s);

    for (size_t i = 0; i < len;) {
        size_t n = vf_utf8_next(s + i, len - i, NULL);

        if (n == 0)
            puts_to(t, "\xef\xbf\xbd");
        else if (s[i] == '\n')
            puts_to(t, "\\n");
        else if (s[i] == '"' || s[i] == '\\')
            print(t, "\\%c", s[i]);
        else
            add(t, s + i, n);
        i += n == 0 ? 1 : n;
    }
}

/* Which sample of a family: at most the template, the VM, the family's labels, and a bucket's bound. */
struct labels {
    const char *template_name, *vm, *label, *value, *label2, *value2, *le;
};

static void put_label(struct text *t, const char *name, const char *value, bool *first)
{
    if (value == NULL)
        return;
    print(t, "%c%s=\"", *first ? '{' : ',', name);
    put_value(t, value);
    puts_to(t, "\"");
    *first = false;
}

static void put_name(struct text *t, const struct vf_stats_family *f, const char *suffix,
                     const struct labels *l)
{
    bool first = true;

    puts_to(t, f->name);
    puts_to(t, suffix);
    put_label(t, "template", l->template_name, &first);
    put_label(t, "vm", l->vm, &first);
    put_label(t, l->label, l->value, &first);
    put_label(t, l->label2, l->value2, &first);
    put_label(t, "le", l->le, &first);
    puts_to(t, first ? " " : "} ");
}

static const char *suffix_of(const struct vf_stats_family *f)
{
    return f->type == VF_FACT_COUNTER ? "_total" : f->type == VF_FACT_INFO ? "_info" : "";
}

static void put_int(struct text *t, const struct vf_stats_family *f, const struct labels *l,
                    int64_t v)
{
    put_name(t, f, suffix_of(f), l);
    print(t, "%" PRId64 "\n", v);
}

/* In seconds, with no help of the locale. */
static void put_time(struct text *t, const struct vf_stats_family *f, const char *suffix,
                     const struct labels *l, int64_t us)
{
    put_name(t, f, suffix, l);
    if (us < 0)
        us = 0;
    print(t, "%" PRId64 ".%06" PRId64 "\n", us / 1000000, us % 1000000);
}

static void put_histogram(struct text *t, const struct vf_stats_family *f, const struct labels *l,
                          const struct vf_histogram *h)
{
    struct labels with = *l;
    uint64_t n = 0;

    for (int i = 0; i < f->bounds->n; i++) {
        n += h->in[i];
        with.le = f->bounds->upto[i].seconds;
        put_name(t, f, "_bucket", &with);
        print(t, "%" PRIu64 "\n", n);
    }
    n += h->in[f->bounds->n];
    with.le = "+Inf";
    put_name(t, f, "_bucket", &with);
    print(t, "%" PRIu64 "\n", n);
    put_name(t, f, "_count", l);
    print(t, "%" PRIu64 "\n", n);
    put_time(t, f, "_sum", l, h->sum_us);
}

/* The families that may have a label: one sample by each of its values, or all added up. */
static void put_counts(struct text *t, const struct vf_stats_family *f, struct labels *l,
                       const void *at)
{
    uint64_t sum = 0;

    for (int i = f->first; i < (f->n == 0 ? 1 : f->n); i++) {
        uint64_t n = f->kind == VF_FACT_COUNTS
                         ? ((const uint64_t *)at)[i]
                         : vf_histogram_count(&((const struct vf_histogram *)at)[i]);

        sum += n;
        l->value = f->label != NULL ? f->label_value(i) : NULL;
        if (l->value != NULL)
            put_int(t, f, l, (int64_t)n);
    }
    if (f->label == NULL)
        put_int(t, f, l, (int64_t)sum);
}

static void put_grid(struct text *t, const struct vf_stats_family *f, struct labels *l,
                     const uint64_t *at)
{
    for (int i = 0; i < f->n; i++) {
        l->value = f->label_value(i);
        for (int k = 0; k < f->n2; k++) {
            l->value2 = f->label2_value(k);
            put_int(t, f, l, (int64_t)at[i * f->n2 + k]);
        }
    }
}

static void put_histograms(struct text *t, const struct vf_stats_family *f, struct labels *l,
                           const struct vf_histogram *h)
{
    for (int i = f->first; i < (f->n == 0 ? 1 : f->n); i++) {
        l->value = f->label != NULL ? f->label_value(i) : NULL;
        put_histogram(t, f, l, &h[i]);
    }
}

static void put_stages(struct text *t, const struct vf_stats_family *f, struct labels *l,
                       const struct vf_stats_facts *facts)
{
    for (int i = 0; i < facts->n_stages; i++) {
        l->value = facts->stages[i].name;
        put_histogram(t, f, l, &facts->stages[i].took);
    }
}

static void put_state(struct text *t, const struct vf_stats_family *f, struct labels *l, int state)
{
    for (int i = 0; i < f->n; i++) {
        l->value = f->label_value(i);
        put_int(t, f, l, i == state);
    }
}

/* base: the facts of a VM (vm not NULL), of a template, or of the daemon (template_name NULL). */
static void put_samples(struct text *t, const struct vf_stats_family *f, const char *template_name,
                        const char *vm, const void *base)
{
    const char *at = (const char *)base + f->offset;
    int64_t scale = f->scale == 0 ? 1 : f->scale;
    struct labels l = {
        .template_name = template_name, .vm = vm, .label = f->label, .label2 = f->label2};

    switch (f->kind) {
    case VF_FACT_INT:
        put_int(t, f, &l, *(const int64_t *)at * scale);
        break;
    case VF_FACT_TIME:
        put_time(t, f, suffix_of(f), &l, *(const int64_t *)at * scale);
        break;
    case VF_FACT_BOOL:
        put_int(t, f, &l, *(const bool *)at ? 1 : 0);
        break;
    case VF_FACT_COUNTS:
    case VF_FACT_HOW_MANY:
        put_counts(t, f, &l, at);
        break;
    case VF_FACT_GRID:
        put_grid(t, f, &l, (const uint64_t *)at);
        break;
    case VF_FACT_HISTOGRAMS:
        put_histograms(t, f, &l, (const struct vf_histogram *)at);
        break;
    case VF_FACT_STAGES:
        put_stages(t, f, &l, (const struct vf_stats_facts *)base);
        break;
    case VF_FACT_STATE:
        put_state(t, f, &l, (int)*(const enum vf_template_state *)at);
        break;
    case VF_FACT_VERSION:
        l.value = VF_VERSION;
        put_int(t, f, &l, 1);
        break;
    }
}

static void put_template(struct text *t, const struct vf_stats_family *f,
                         const struct vf_stats_template *of)
{
    if (f->scope == VF_FACT_OF_TEMPLATE)
        put_samples(t, f, of->name, NULL, &of->facts);
    for (size_t i = 0; f->scope == VF_FACT_OF_VM && i < of->n_vms; i++)
        put_samples(t, f, of->name, of->vms[i].id, &of->vms[i]);
}

static void put_head(struct text *t, const struct vf_stats_family *f)
{
    static const char *const types[] = {
        [VF_FACT_COUNTER] = "counter",
        [VF_FACT_GAUGE] = "gauge",
        [VF_FACT_HISTOGRAM] = "histogram",
        [VF_FACT_INFO] = "info",
    };
    const char *suffix = t->openmetrics ? "" : suffix_of(f);
    const char *type = types[f->type];

    if (f->type == VF_FACT_INFO && !t->openmetrics)
        type = "gauge";
    print(t, "# HELP %s%s ", f->name, suffix);
    puts_to(t, f->help);
    print(t, "\n# TYPE %s%s %s\n", f->name, suffix, type);
    if (t->openmetrics && f->unit != NULL)
        print(t, "# UNIT %s %s\n", f->name, f->unit);
}

static char *render(struct vf_stats *s, bool openmetrics, size_t *ret_len)
{
    struct text t = {.openmetrics = openmetrics};
    struct vf_stats_snapshot snap;

    if (vf_stats_snapshot_take(s, &snap) < 0)
        return NULL;
    for (const struct vf_stats_family *f = vf_stats_families; f->name != NULL; f++) {
        put_head(&t, f);
        if (f->scope == VF_FACT_OF_DAEMON)
            put_samples(&t, f, NULL, NULL, &snap.g);
        for (size_t i = 0; f->scope != VF_FACT_OF_DAEMON && i < snap.n; i++)
            put_template(&t, f, &snap.templates[i]);
    }
    vf_stats_snapshot_free(&snap);
    if (openmetrics)
        puts_to(&t, "# EOF\n");
    if (t.failed) {
        free(t.buf);
        return NULL;
    }
    t.buf[t.len] = '\0';
    *ret_len = t.len;
    return t.buf;
}

char *vf_stats_text(struct vf_stats *s, size_t *ret_len)
{
    return render(s, true, ret_len);
}

char *vf_stats_text_classic(struct vf_stats *s, size_t *ret_len)
{
    return render(s, false, ret_len);
}

/* Stats as JSON: the same facts under the same names, without "vmfactory_".
 *
 *     {"build_info":{"version":…},…,"templates":[{"template":NAME,"acquires_total":{"hit":N,…},
 *      "acquire_duration_seconds":{"hit":{"count","sum_s","p50_s","p90_s","p99_s"},…},
 *      "template_state":"ready","pool_parked":N,…,"vms":[{"vm":ID,"vm_network_bytes_total":{"in":N,…},…}]}]}
 *
 * A family with a label is an object by its values; of codes only those that came. Quantiles are estimates from the
 * histogram's buckets.
 */
#include <stdio.h>
#include <string.h>
#include "base/json.h"
#include "base/version.h"
#include "pool/stats_internal.h"

static void write_histogram(struct vf_json_writer *w, const char *key, const struct vf_histogram *h,
                            const struct vf_bounds *b)
{
    static const struct {
        const char *key;
        double q;
    } quantiles[] = {{"p50_s", 0.5}, {"p90_s", 0.9}, {"p99_s", 0.99}};

    vf_jw_begin(w, key, '{');
    vf_jw_int(w, "count", (int64_t)vf_histogram_count(h));
    vf_jw_double(w, "sum_s", (double)h->sum_us / 1e6, 6);
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++)
        vf_jw_double(w, quantiles[i].key,
                     (double)vf_histogram_quantile_us(h, b, quantiles[i].q) / 1e6, 6);
    vf_jw_end(w, '}');
}

static uint64_t count_at(const struct vf_stats_family *f, const void *at, int i)
{
    return f->kind == VF_FACT_COUNTS ? ((const uint64_t *)at)[i]
                                     : vf_histogram_count(&((const struct vf_histogram *)at)[i]);
}

static void write_counts(struct vf_json_writer *w, const char *key, const struct vf_stats_family *f,
                         const void *at)
{
    int n = f->n == 0 ? 1 : f->n;
    bool all = f->label == NULL || strcmp(f->label, "code") != 0;
    uint64_t sum = 0;

    if (f->label != NULL)
        vf_jw_begin(w, key, '{');
    for (int i = f->first; i < n; i++) {
        uint64_t count = count_at(f, at, i);

        sum += count;
        if (f->label != NULL && (count > 0 || all))
            vf_jw_int(w, f->label_value(i), (int64_t)count);
    }
    if (f->label != NULL)
        vf_jw_end(w, '}');
    else
        vf_jw_int(w, key, (int64_t)sum);
}

static void write_grid(struct vf_json_writer *w, const char *key, const struct vf_stats_family *f,
                       const uint64_t *at)
{
    vf_jw_begin(w, key, '{');
    for (int i = 0; i < f->n; i++) {
        vf_jw_begin(w, f->label_value(i), '{');
        for (int k = 0; k < f->n2; k++)
            vf_jw_int(w, f->label2_value(k), (int64_t)at[i * f->n2 + k]);
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, '}');
}

static void write_histograms(struct vf_json_writer *w, const char *key,
                             const struct vf_stats_family *f, const struct vf_histogram *h)
{
    if (f->label == NULL) {
        write_histogram(w, key, h, f->bounds);
        return;
    }
    vf_jw_begin(w, key, '{');
    for (int i = f->first; i < f->n; i++)
        write_histogram(w, f->label_value(i), &h[i], f->bounds);
    vf_jw_end(w, '}');
}

static void write_stages(struct vf_json_writer *w, const char *key, const struct vf_stats_family *f,
                         const struct vf_stats_facts *facts)
{
    vf_jw_begin(w, key, '{');
    for (int i = 0; i < facts->n_stages; i++)
        write_histogram(w, facts->stages[i].name, &facts->stages[i].took, f->bounds);
    vf_jw_end(w, '}');
}

static void write_version(struct vf_json_writer *w, const char *key)
{
    vf_jw_begin(w, key, '{');
    vf_jw_string(w, "version", VF_VERSION);
    vf_jw_end(w, '}');
}

static void write_family(struct vf_json_writer *w, const struct vf_stats_family *f,
                         const void *base)
{
    const char *at = (const char *)base + f->offset, *name = f->name;
    int64_t scale = f->scale == 0 ? 1 : f->scale;
    char key[80];

    if (strncmp(name, "vmfactory_", 10) == 0)
        name += 10;
    snprintf(key, sizeof(key), "%s%s", name,
             f->type == VF_FACT_COUNTER ? "_total"
             : f->type == VF_FACT_INFO  ? "_info"
                                        : "");
    switch (f->kind) {
    case VF_FACT_INT:
        vf_jw_int(w, key, *(const int64_t *)at * scale);
        break;
    case VF_FACT_TIME:
        vf_jw_double(w, key, (double)(*(const int64_t *)at * scale) / 1e6, 6);
        break;
    case VF_FACT_BOOL:
        vf_jw_bool(w, key, *(const bool *)at);
        break;
    case VF_FACT_COUNTS:
    case VF_FACT_HOW_MANY:
        write_counts(w, key, f, at);
        break;
    case VF_FACT_GRID:
        write_grid(w, key, f, (const uint64_t *)at);
        break;
    case VF_FACT_HISTOGRAMS:
        write_histograms(w, key, f, (const struct vf_histogram *)at);
        break;
    case VF_FACT_STAGES:
        write_stages(w, key, f, (const struct vf_stats_facts *)base);
        break;
    case VF_FACT_STATE:
        vf_jw_string(w, key, f->label_value((int)*(const enum vf_template_state *)at));
        break;
    case VF_FACT_VERSION:
        write_version(w, key);
        break;
    }
}

static void write_families(struct vf_json_writer *w, enum vf_fact_scope scope, const void *base)
{
    for (const struct vf_stats_family *f = vf_stats_families; f->name != NULL; f++) {
        if (f->scope == scope)
            write_family(w, f, base);
    }
}

static void write_template(struct vf_json_writer *w, const struct vf_stats_template *t)
{
    vf_jw_begin(w, NULL, '{');
    vf_jw_string(w, "template", t->name);
    write_families(w, VF_FACT_OF_TEMPLATE, &t->facts);
    vf_jw_begin(w, "vms", '[');
    for (size_t i = 0; i < t->n_vms; i++) {
        vf_jw_begin(w, NULL, '{');
        vf_jw_string(w, "vm", t->vms[i].id);
        write_families(w, VF_FACT_OF_VM, &t->vms[i]);
        vf_jw_end(w, '}');
    }
    vf_jw_end(w, ']');
    vf_jw_end(w, '}');
}

char *vf_stats_json(struct vf_stats *s, size_t *ret_len)
{
    struct vf_json_writer w = {0};
    struct vf_stats_snapshot snap;
    char *text;

    if (vf_stats_snapshot_take(s, &snap) < 0)
        return NULL;
    vf_jw_begin(&w, NULL, '{');
    write_families(&w, VF_FACT_OF_DAEMON, &snap.g);
    vf_jw_begin(&w, "templates", '[');
    for (size_t i = 0; i < snap.n; i++)
        write_template(&w, &snap.templates[i]);
    vf_jw_end(&w, ']');
    vf_jw_end(&w, '}');
    vf_stats_snapshot_free(&snap);
    text = vf_jw_finish(&w);
    if (text != NULL)
        *ret_len = strlen(text);
    return text;
}

/* doctor: every check, one after the other; a table with a fix for each finding. */
#include "tools/vmfactory/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tools/vmfactory/text.h"

static const char *const verdicts[] = {"ok", "warn", "bad", "skip"};

void vf_find(struct vf_finding *ret, enum vf_verdict verdict, const char *fix, const char *detail,
             ...)
{
    va_list ap;

    ret->verdict = verdict;
    va_start(ap, detail);
    vsnprintf(ret->detail, sizeof(ret->detail), detail, ap);
    va_end(ap);
    snprintf(ret->fix, sizeof(ret->fix), "%s", fix != NULL ? fix : "");
}

static void write_json(struct vf_json_writer *w, const char *name, const struct vf_finding *f)
{
    vf_jw_begin(w, NULL, '{');
    vf_jw_string(w, "check", name);
    vf_jw_string(w, "state", verdicts[f->verdict]);
    vf_jw_string(w, "detail", f->detail);
    vf_jw_string(w, "fix", f->fix[0] != '\0' ? f->fix : NULL);
    vf_jw_end(w, '}');
}

static void print_finding(const struct vf_cli *cli, const char *name, const struct vf_finding *f)
{
    char detail[sizeof(f->detail)], fix[sizeof(f->fix)];
    const char *on = cli->args.color ? vf_color_on(vf_color_of_state(verdicts[f->verdict])) : "";

    vf_text_clean(f->detail, detail, sizeof(detail));
    vf_text_clean(f->fix, fix, sizeof(fix));
    printf("%s%-4s%s  %-12s %s\n", on, verdicts[f->verdict], on[0] != '\0' ? VF_COLOR_OFF : "",
           name, detail);
    if (fix[0] != '\0')
        printf("      %-12s fix: %s\n", "", fix);
}

int vf_cmd_doctor(struct vf_cli *cli)
{
    const struct vf_check *tables[] = {vf_host_checks, vf_network_checks, vf_vmm_checks,
                                       vf_daemon_checks};
    struct vf_json_writer w = {0};
    int counts[4] = {0};
    char *text;

    vf_jw_begin(&w, NULL, '{');
    vf_jw_begin(&w, "findings", '[');
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        for (const struct vf_check *c = tables[i]; c->name != NULL; c++) {
            struct vf_finding f = {0};

            c->look(cli, &f);
            if (f.verdict == VF_FINDING_SKIPPED && f.detail[0] == '\0')
                continue;
            counts[f.verdict]++;
            write_json(&w, c->name, &f);
            if (!cli->args.json)
                print_finding(cli, c->name, &f);
        }
    }
    vf_jw_end(&w, ']');
    vf_jw_bool(&w, "ok", counts[VF_FINDING_BAD] == 0);
    vf_jw_end(&w, '}');
    text = vf_jw_finish(&w);
    if (cli->args.json)
        puts(text != NULL ? text : "{\"ok\":false}");
    else
        printf("\n%d ok, %d to look at, %d bad\n", counts[0], counts[1], counts[2]);
    free(text);
    return counts[VF_FINDING_BAD] == 0 ? VF_EXIT_OK : VF_EXIT_FAILED;
}

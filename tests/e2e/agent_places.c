/* The agent elsewhere than as init of the shipped image: as a service under another init, in a system
 * whose /etc can't be written. The image is the shipped one with a second archive behind it that brings
 * the other init (Linux unpacks initramfs archives one after the other).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/fd.h"
#include "tests/e2e/factory_support.h"

/* vf.init= is run by the agent's own start as pid 1; from there on it is pid 1 itself. */
static const char service_init[] = "#!/bin/sh\n"
                                   "mkdir /etc-ro && cp -a /etc/. /etc-ro/\n"
                                   "mount --bind /etc-ro /etc && mount -o remount,ro,bind /etc\n"
                                   "/init &\n"
                                   "exec sleep 1000000\n";

static void make_image(struct fac *f, char *path, size_t size)
{
    char command[2048], script[480];
    snprintf(path, size, "%s/service.cpio", f->dir);
    snprintf(script, sizeof(script), "%s/service-init", f->dir);
    fac_write(script, service_init, 0755);
    snprintf(command, sizeof(command),
             "cp %s %s && cd %s && echo service-init | cpio --quiet -o -H newc >> %s",
             sup_guest_file("initramfs.cpio"), path, f->dir, path);
    cr_assert_eq(system(command), 0, "%s", command);
}

Test(agent_places, service_and_readonly_etc, .timeout = 180)
{
    FAC_LINUX_OR_SKIP("agent_places", "service_and_readonly_etc");
    struct fac f;
    char image[480];
    fac_open(&f, NULL);
    make_image(&f, image, sizeof(image));
    struct vf_spec spec = fac_linux("service", VF_ACCEL_TCG, "vf.init=/service-init");
    free(spec.boot.initrd);
    spec.boot.initrd = strdup(image);
    struct vf_generation *gen = fac_build(&f, &spec);
    struct vf_instance *vms[2] = {fac_clone(&f, gen), fac_clone(&f, gen)};
    for (int i = 0; i < 2; i++) {
        const struct vf_proof *p = vf_instance_proof(vms[i]);
        fac_check_proof(&f, vms[i], gen);
        cr_expect_str_eq(fac_sh(&f, vms[i], "cat /proc/1/comm"), "sleep");
        cr_expect_str_eq(fac_sh(&f, vms[i], "cat /etc/machine-id"), p->machine_id);
        cr_expect_str_eq(fac_sh(&f, vms[i], "cat /etc/hostname"), p->hostname);
        cr_expect_str_eq(fac_sh(&f, vms[i], "touch /etc/new 2>/dev/null || echo refused"),
                         "refused");
    }
    fac_check_differ(&f, vms, 2);
    for (int i = 0; i < 2; i++)
        fac_destroy(&f, vms[i]);
    vf_generation_unref(gen);
    vf_spec_free(&spec);
    remove(image);
    snprintf(image, sizeof(image), "%s/service-init", f.dir);
    remove(image);
    fac_close(&f);
}

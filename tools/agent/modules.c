/* Loads kernel modules in the order of /etc/vf-modules, which the image's builder wrote:
 *
 *     WHEN PATH
 *
 * WHEN is always; pci: there is a PCI device; virtio=N: there is a virtio device of that number, seen
 * once its bus driver has been loaded; root: the root is on a disk image. What this machine has no device
 * for is not loaded: it would cost boot time and template memory.
 */
#include "tools/agent/agent.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LIST "/etc/vf-modules"

static bool has_pci(void)
{
    DIR *d = opendir("/sys/bus/pci/devices");
    bool found = false;

    for (struct dirent *e; d && !found && (e = readdir(d));)
        found = e->d_name[0] != '.';
    if (d)
        closedir(d);
    return found;
}

static bool has_virtio(unsigned long number)
{
    DIR *d = opendir("/sys/bus/virtio/devices");
    bool found = false;
    char path[320], text[32];

    for (struct dirent *e; d && !found && (e = readdir(d));) {
        snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/device", e->d_name);
        found = e->d_name[0] != '.' && read_text(path, text, sizeof(text)) > 0 &&
                strtoul(text, NULL, 16) == number;
    }
    if (d)
        closedir(d);
    return found;
}

static bool is_wanted(const char *when, bool for_root)
{
    if (strncmp(when, "virtio=", 7) == 0)
        return has_virtio(strtoul(when + 7, NULL, 10));
    if (strcmp(when, "pci") == 0)
        return has_pci();
    if (strcmp(when, "root") == 0)
        return for_root;
    return strcmp(when, "always") == 0;
}

static void load(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
        say("module %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

void modules_load(bool for_root)
{
    FILE *f = fopen(LIST, "re");
    char line[512], when[32], path[256];

    while (f && fgets(line, sizeof(line), f)) {
        if (line[0] == '#' || sscanf(line, "%31s %255s", when, path) != 2)
            continue;
        if (is_wanted(when, for_root))
            load(path);
    }
    if (f)
        fclose(f);
}

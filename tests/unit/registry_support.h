/* What tests of the registry of runtime classes and assets share: a directory of definitions with a configuration, and
 * texts of definitions.
 *
 * reg_open leaves three there: the assets "fc-1" (a VMM, DIGEST_A) and "linux" (a kernel, DIGEST_B), and of these the
 * class "pinned" of Firecracker. QEMU and Firecracker of the host are /opt/qemu and /opt/firecracker.
 */
#ifndef VF_TESTS_REGISTRY_SUPPORT_H
#define VF_TESTS_REGISTRY_SUPPORT_H

#include "templates/registry.h"
#include "templates_support.h"

#define DIGEST_A "94b7ea371ce324ea4e66a43dfb7c082fd9ce51a40a5f7b1e4e88aeb66e46cb61" /* of "a VMM" */
#define DIGEST_B \
    "4fff0d3e643b3894c17a0738fbdc591953aa722c9d42774425090accc4377126" /* of "a kernel" */
#define FILE_OF(digest) "{\"url\":\"file:///x\",\"sha256\":\"" digest "\"}"
#define ASSET(name, kind, digest)                             \
    "{\"name\":\"" name "\",\"kind\":\"" kind "\",\"files\":" \
    "{\"x86_64\":" FILE_OF(digest) ",\"aarch64\":" FILE_OF(digest) "}}"
#define BOTH(assets) "\"assets\":{\"x86_64\":" assets ",\"aarch64\":" assets "}"
#define CLASS(name, more) "{\"name\":\"" name "\",\"vmm\":\"firecracker\"," more "}"

struct reg {
    struct scratch s;
    char dir[300]; /* of the definitions; cfg points to it */
    struct vf_registry_config cfg;
};
/* The test's only one. */
extern struct reg reg;

void reg_open(void);
void reg_close(void);
/* A file in dir/kind, which is made where it is missing. */
void reg_write(const char *kind, const char *file, const char *text);
void reg_remove(const char *kind, const char *file);
/* Must succeed; the test unrefs it. */
struct vf_registry *reg_load(void);

#endif

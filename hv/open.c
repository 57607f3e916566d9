/*
 * open.c - which machine a name means.
 *
 * Owns: hv_open(), the one place that knows every backend by name.
 * Why a file of its own: a program that links no libxenctrl (unit tests) opens its
 * backend itself and never pulls this object out of the library.
 */
#include <string.h>

#include "hv_priv.h"

static fs_status_t open_machine(const struct hv_config *config, struct hv_backend **out, struct fs_error *err)
{
    const char *machine = config->machine;

    if (machine == NULL || strcmp(machine, "xen") == 0) {
        return hv_xen_open(out, err);
    }
    if (strncmp(machine, "embedded", 8) == 0 && (machine[8] == '\0' || machine[8] == ':')) {
        return hv_embedded_open(machine[8] == ':' ? machine + 9 : NULL, config->kernel, out, err);
    }
    return fs_fail(err, FS_USAGE, "unknown machine \"%s\": xen or embedded", machine);
}

fs_status_t hv_open(const struct hv_config *config, struct hv **out, struct fs_error *err)
{
    struct hv_backend *be;
    *out = NULL;
    fs_status_t s = open_machine(config, &be, err);
    if (s != FS_OK) {
        return s;
    }
    s = hv_open_backend(config, be, out);
    if (s != FS_OK) {
        be->ops->close(be);
    }
    return s;
}

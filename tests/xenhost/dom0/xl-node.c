/*
 * Owns: on which NUMA node (which DIMM) a new guest's memory is taken.
 * Why: xl has no option for it. `cpus=` only hints, needs a processor on that node, and pins the guest's vCPUs there; libxl itself takes a
 * node map in the domain's configuration. This object is preloaded into `xl create` and fills that map from XENHOST_NODE.
 * Xen treats a node affinity as a preference (a full node overflows), so xenhost.sh checks afterwards where the memory landed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <libxl.h>
#include <libxl_utils.h>

int libxl_domain_create_new(libxl_ctx *ctx, libxl_domain_config *config, uint32_t *domid,
                            const libxl_asyncop_how *how, const libxl_asyncprogress_how *console_how)
{
    int (*create)(libxl_ctx *, libxl_domain_config *, uint32_t *, const libxl_asyncop_how *, const libxl_asyncprogress_how *);
    const char *node = getenv("XENHOST_NODE");

    *(void **)&create = dlsym(RTLD_NEXT, "libxl_domain_create_new");
    if (!create)
        return ERROR_FAIL;
    if (node) {
        libxl_bitmap *map = &config->b_info.nodemap;

        if (libxl_node_bitmap_alloc(ctx, map, 0))
            return ERROR_NOMEM;
        if (!libxl_bitmap_cpu_valid(map, atoi(node)))
            return ERROR_INVAL;
        libxl_bitmap_set(map, atoi(node));
        libxl_defbool_set(&config->b_info.numa_placement, false);
    }
    return create(ctx, config, domid, how, console_how);
}

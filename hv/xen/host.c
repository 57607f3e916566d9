/*
 * host.c - the machine: size, nodes, RAM ranges, firmware tables.
 *
 * Owns: host(), ram(), table(), and the cached set of RAM ranges.
 * Invariants:
 *  I1  x->ram holds whole frames only, cut inward at the edges of the machine's
 *      memory map, and nothing at or above max_mfn: what is in it can be asked
 *      about frame by frame.
 *  I2  a firmware table comes back only whole: a length that disagrees with the
 *      file is FS_BAD_INPUT for an ACPI table, and the parser's business for SMBIOS.
 * Why the memory map and not the nodes' sizes: a node's span has holes, and
 * marking a frame that is not RAM aborts a whole call.
 * Why descending_needed and pcpu0_marking_hangs are constant: both faults are in
 * every release of the supported ones that can be told by its version number; a
 * stable update that has the fix shows the same number as one that lacks it.
 * Cost: four hypercalls for host(), one (cached) for ram().
 */
#include "xen_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define E820_TYPE_RAM   1u
#define E820_MAX        1024u
#define TABLE_MAX_BYTES (16u << 20)
#define ACPI_HEADER_BYTES 36u

static fs_status_t load_nodes(struct xen_be *x, struct hv_host *out, struct fs_error *err)
{
    unsigned count = 0;
    if (xc_numainfo(x->xch, &count, NULL, NULL) != 0) {
        return xen_fail(err, errno, "cannot ask Xen for its NUMA nodes");
    }
    if (count > HV_NODES_MAX) {
        count = HV_NODES_MAX;
    }
    xc_meminfo_t info[HV_NODES_MAX];
    memset(info, 0, sizeof info);
    if (count && xc_numainfo(x->xch, &count, info, NULL) != 0) {
        return xen_fail(err, errno, "cannot ask Xen for its NUMA nodes");
    }
    if (count > HV_NODES_MAX) {
        count = HV_NODES_MAX;
    }
    for (unsigned i = 0; i < count; i++) {
        if (info[i].memsize == XEN_INVALID_MEM_SZ || info[i].memsize == 0) {
            continue;
        }
        out->nodes[out->node_count++] = (struct hv_node){
            .id = i,
            .total_pages = info[i].memsize >> FS_PAGE_SHIFT,
            .free_pages = info[i].memfree >> FS_PAGE_SHIFT,
        };
    }
    return FS_OK;
}

fs_status_t xen_host(struct hv_backend *be, struct hv_host *out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    xc_physinfo_t info = { 0 };
    if (xc_physinfo(x->xch, &info) != 0) {
        return xen_fail(err, errno, "cannot ask Xen for the machine's size");
    }
    *out = (struct hv_host){
        .version_major = x->version_major,
        .version_minor = x->version_minor,
        .max_mfn = info.max_mfn + 1,
        .total_pages = info.total_pages,
        .free_pages = info.free_pages,
        .scrub_pages = info.scrub_pages,
        .pcpus = info.nr_cpus,
        .descending_needed = true,
        .pcpu0_marking_hangs = true,
    };
    memcpy(out->version_text, x->version_text, sizeof out->version_text);
    return load_nodes(x, out, err);
}

fs_status_t xen_ram_load(struct xen_be *x, struct fs_error *err)
{
    if (x->ram_known) {
        return FS_OK;
    }
    struct e820entry *map = calloc(E820_MAX, sizeof *map);
    if (!map) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for the machine's memory map");
    }
    fs_status_t s = FS_OK;
    int count = xc_get_machine_memory_map(x->xch, map, E820_MAX);
    if (count < 0) {
        s = xen_fail(err, errno, "cannot read the machine's memory map");
        goto out;
    }
    for (int i = 0; i < count && s == FS_OK; i++) {
        uint64_t addr = map[i].addr, size = map[i].size;
        if (map[i].type != E820_TYPE_RAM || addr + size < addr) {
            continue;
        }
        uint64_t start = (addr + FS_PAGE_BYTES - 1) >> FS_PAGE_SHIFT;
        uint64_t end = (addr + size) >> FS_PAGE_SHIFT;
        if (end > x->max_mfn) {
            end = x->max_mfn;
        }
        if (start < end) {
            s = mfn_set_add(&x->ram, (struct mfn_range){ mfn_make(start), mfn_make(end) });
        }
    }
    if (s != FS_OK) {
        mfn_set_free(&x->ram);
        s = fs_fail(err, s, "cannot keep the machine's memory map");
        goto out;
    }
    x->ram_known = true;
out:
    free(map);
    return s;
}

fs_status_t xen_ram(struct hv_backend *be, struct mfn_range_set *out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    fs_status_t s = xen_ram_load(x, err);
    if (s != FS_OK) {
        return s;
    }
    *out = (struct mfn_range_set){ 0 };
    s = mfn_set_copy(out, &x->ram);
    return s == FS_OK ? s : fs_fail(err, s, "no memory for the machine's RAM ranges");
}

static fs_status_t read_whole(const char *path, uint8_t **out, size_t *bytes, struct fs_error *err)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        return fs_fail(err, errno == ENOENT ? FS_NOT_FOUND : FS_IO, "cannot read %s: %s", path, strerror(errno));
    }
    fs_status_t s = FS_OK;
    size_t size = 0, capacity = 0;
    uint8_t *data = NULL;
    for (;;) {
        if (size == capacity) {
            capacity = capacity ? capacity * 2 : 16384;
            uint8_t *bigger = capacity > TABLE_MAX_BYTES ? NULL : realloc(data, capacity);
            if (!bigger) {
                s = fs_fail(err, FS_NO_MEMORY, "%s is larger than %u bytes", path, TABLE_MAX_BYTES);
                goto out;
            }
            data = bigger;
        }
        size_t n = fread(data + size, 1, capacity - size, f);
        if (n == 0) {
            break;
        }
        size += n;
    }
    if (ferror(f)) {
        s = fs_fail(err, FS_IO, "cannot read %s to its end", path);
    }
out:
    fclose(f);
    if (s != FS_OK) {
        free(data);
        return s;
    }
    *out = data;
    *bytes = size;
    return FS_OK;
}

fs_status_t xen_table(struct hv_backend *be, enum hv_table table, uint8_t **out, size_t *bytes, struct fs_error *err)
{
    (void)be;
    const char *path = table == HV_TABLE_SMBIOS ? "/sys/firmware/dmi/tables/DMI" : "/sys/firmware/acpi/tables/SRAT";
    fs_status_t s = read_whole(path, out, bytes, err);
    if (s != FS_OK || table == HV_TABLE_SMBIOS) {
        return s;
    }
    uint32_t length = 0;
    if (*bytes >= ACPI_HEADER_BYTES) {
        memcpy(&length, *out + 4, sizeof length);       /* every ACPI table: signature, length */
    }
    if (length < ACPI_HEADER_BYTES || length > *bytes || memcmp(*out, "SRAT", 4) != 0) {   /* I2 */
        free(*out);
        *out = NULL;
        return fs_fail(err, FS_BAD_INPUT, "%s: %zu bytes, but its header tells of %u", path, *bytes, length);
    }
    *bytes = length;
    return FS_OK;
}

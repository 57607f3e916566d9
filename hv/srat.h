/*
 * srat.h - where the NUMA nodes lie, by ACPI's System Resource Affinity Table.
 *
 * Owns: the parser.  Source: ACPI 6.5, 5.2.16; the numbering of nodes is Xen's.
 */
#ifndef FRAMESHIFT_HV_SRAT_H
#define FRAMESHIFT_HV_SRAT_H

#include "backend.h"

struct srat {
    struct { uint32_t node, pxm; struct mfn_range_set ranges; } nodes[HV_NODES_MAX];   /* by node; may have no memory */
    size_t count;                       /* 0: nothing in it can be used, reason says why */
    char reason[128];
};

/* FS_NO_MEMORY, else FS_OK.  Never reads beyond bytes.  Free in every case. */
fs_status_t srat_parse(const uint8_t *table, size_t bytes, struct srat *out) FS_MUST_CHECK;
void srat_free(struct srat *s);

#endif

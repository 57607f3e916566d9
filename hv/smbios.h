/*
 * smbios.h - the memory part of the SMBIOS structure table.
 *
 * Owns: the parser of types 16 (physical memory array), 17 (memory device), 19
 * (memory array mapped address) and 20 (memory device mapped address).  What the
 * records mean together is topology's business.  Source: DSP0134 3.7.
 */
#ifndef FRAMESHIFT_HV_SMBIOS_H
#define FRAMESHIFT_HV_SMBIOS_H

#include "frameshift/frame.h"
#include "frameshift/status.h"

#define SMBIOS_NAME_BYTES  64
#define SMBIOS_RECORDS_MAX 2048         /* of each type: several times the largest machine's */
#define SMBIOS_UNKNOWN     0xffu        /* of position, depth, width */

struct smbios_array {                   /* type 16 */
    uint16_t handle;
    uint8_t use;                        /* 3: system memory */
};

struct smbios_device {                  /* type 17, empty slots included */
    uint16_t handle, array;
    bool size_known;
    uint64_t size_bytes;                /* 0 with size_known: an empty slot */
    char locator[SMBIOS_NAME_BYTES];    /* printable; "" where the table has none */
    char bank[SMBIOS_NAME_BYTES];
};

struct smbios_array_range {             /* type 19 */
    uint16_t handle, array;
    uint8_t width;                      /* devices in a row of this range; SMBIOS_UNKNOWN */
    struct mfn_range range;
};

struct smbios_device_range {            /* type 20 */
    uint16_t handle, device, array_range;
    uint8_t position, depth;            /* as in the table; 0 not interleaved, SMBIOS_UNKNOWN */
    struct mfn_range range;
};

struct smbios_memory {
    struct smbios_array *arrays;
    struct smbios_device *devices;
    struct smbios_array_range *array_ranges;
    struct smbios_device_range *device_ranges;
    size_t array_count, device_count, array_range_count, device_range_count;
    /* What was wrong; every such record was left out, or the field taken as unknown. */
    unsigned short_records, bad_strings, bad_ranges, too_many;
    bool torn;                          /* a record did not fit into the table */
    bool no_end;                        /* no end-of-table record */
};

/* FS_NO_MEMORY, else FS_OK.  Never reads beyond bytes.  Free in every case. */
fs_status_t smbios_parse(const uint8_t *table, size_t bytes, struct smbios_memory *out) FS_MUST_CHECK;
void smbios_free(struct smbios_memory *m);

#endif

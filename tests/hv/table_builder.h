/*
 * table_builder.h - firmware tables of real machines' shapes, for tests.
 *
 * Owns: a growing byte buffer with one function for each kind of record, and the
 * fixtures: machines whose tables have the shapes (and the mistakes) that
 * firmware really writes.
 */
#ifndef TESTS_TABLE_BUILDER_H
#define TESTS_TABLE_BUILDER_H

#include "backend.h"
#include "range.h"

#define GIB (1ull << 30)
#define MIB_BYTES (1ull << 20)
#define FRAMES_PER_GIB (GIB / FS_PAGE_BYTES)

struct table {
    uint8_t *p;
    size_t bytes, capacity;
};

void table_put(struct table *t, const void *data, size_t bytes);
void table_put_number(struct table *t, uint64_t value, size_t bytes);
void table_free(struct table *t);

/* Record n's formatted area as given (type, length and handle are put before it), then the strings up to NULL. */
void smb_record(struct table *t, uint8_t type, uint16_t handle, const void *body, size_t bytes, const char *const *strings);
void smb_array(struct table *t, uint16_t handle, uint8_t use);
/* size_bytes 0: an empty slot; UINT64_MAX: unknown. */
void smb_device(struct table *t, uint16_t handle, uint16_t array, uint64_t size_bytes, const char *locator, const char *bank);
/* Half-open byte ranges; encoded in KiB where they fit, else extended. */
void smb_array_range(struct table *t, uint16_t handle, uint16_t array, uint64_t start, uint64_t end, uint8_t width);
void smb_device_range(struct table *t, uint16_t handle, uint16_t device, uint16_t array_range, uint64_t start, uint64_t end,
                      uint8_t position, uint8_t depth);
void smb_end(struct table *t);

#define SRAT_ENABLED 1u
#define SRAT_HOTPLUG 2u
void srat_begin(struct table *t, uint8_t revision);
void srat_apic(struct table *t, uint32_t pxm, uint8_t apic, uint32_t flags);
void srat_x2apic(struct table *t, uint32_t pxm, uint32_t apic, uint32_t flags);
void srat_memory(struct table *t, uint32_t pxm, uint64_t start, uint64_t end, uint32_t flags);
void srat_end(struct table *t);             /* sets length and checksum */

struct machine {
    struct table smbios, srat;
    struct mfn_range_set ram;
    struct hv_host host;
};
void machine_ram(struct machine *m, uint64_t start_byte, uint64_t end_byte);
/* nodes of equal spans, as Xen reports them */
void machine_nodes(struct machine *m, uint32_t count, uint64_t bytes_each);
void machine_free(struct machine *m);

enum fixture {
    FIXTURE_SERVER,             /* 2 sockets x 4 x 16 GiB, interleaved in each socket */
    FIXTURE_SERVER_SEQUENTIAL,  /* 2 sockets x 2 controllers x 3 x 32 GiB, interleaved, ranges one behind the other, hole forgotten */
    FIXTURE_LAPTOP,             /* 2 x 8 GiB interleaved, ranges one behind the other, hole forgotten */
    FIXTURE_LAPTOP_SHARED,      /* the same machine with ranges as they are */
    FIXTURE_DESKTOP,            /* 4 x 4 GiB not interleaved, hole below 4 GiB told right */
    FIXTURE_DESKTOP_NO_HOLE,    /* the same, hole forgotten */
    FIXTURE_CHANNELS,           /* Xeon: an array and a type 19 for each of 4 channels, no type 20 */
    FIXTURE_ONE_ARRAY,          /* 2 sockets, 24 slots in one array, no type 20 */
    FIXTURE_LARGE,              /* 24 x 256 GiB, addresses beyond 4 TiB: extended fields */
    FIXTURE_QEMU,               /* what QEMU makes of -m 4G with four nodes */
    FIXTURE_QEMU_40G,           /* 3 type 17, one node */
    FIXTURE_TESTHOST,           /* four nodes of 1 GiB, each a DIMM by type 20 */
    FIXTURE_COUNT
};
const char *fixture_name(enum fixture f);
void fixture_make(struct machine *m, enum fixture f);

#endif

/*
 * table_builder.c - firmware tables of real machines' shapes, for tests.
 *
 * Owns: the encoders of SMBIOS types 16, 17, 19, 20, 127 and of SRAT entries, and
 * the fixtures.  The layouts are written down here once more, apart from the
 * parsers, so that a wrong offset there does not pass unseen.
 */
#include "table_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"

void table_put(struct table *t, const void *data, size_t bytes)
{
    if (t->bytes + bytes > t->capacity) {
        t->capacity = (t->bytes + bytes) * 2;
        t->p = realloc(t->p, t->capacity);
        ASSERT(t->p);
    }
    if (bytes) {
        memcpy(t->p + t->bytes, data, bytes);
    }
    t->bytes += bytes;
}

void table_put_number(struct table *t, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        uint8_t b = (uint8_t)(value >> (8 * i));

        table_put(t, &b, 1);
    }
}

void table_free(struct table *t)
{
    free(t->p);
    *t = (struct table){ 0 };
}

/* ---- SMBIOS --------------------------------------------------------------------- */

void smb_record(struct table *t, uint8_t type, uint16_t handle, const void *body, size_t bytes, const char *const *strings)
{
    table_put_number(t, type, 1);
    table_put_number(t, bytes + 4, 1);
    table_put_number(t, handle, 2);
    table_put(t, body, bytes);
    if (!strings || !*strings) {
        table_put(t, "", 1);
    }
    for (; strings && *strings; strings++) {
        table_put(t, *strings, strlen(*strings) + 1);
    }
    table_put(t, "", 1);
}

void smb_array(struct table *t, uint16_t handle, uint8_t use)
{
    struct table b = { 0 };

    table_put_number(&b, 3, 1);                 /* 04 location: system board */
    table_put_number(&b, use, 1);               /* 05 */
    table_put_number(&b, 6, 1);                 /* 06 multi-bit ECC */
    table_put_number(&b, 0x80000000, 4);        /* 07 maximum capacity: see 0f */
    table_put_number(&b, 0xfffe, 2);            /* 0b no error record */
    table_put_number(&b, 24, 2);                /* 0d devices */
    table_put_number(&b, 1ull << 44, 8);        /* 0f */
    smb_record(t, 16, handle, b.p, b.bytes, NULL);
    table_free(&b);
}

void smb_device(struct table *t, uint16_t handle, uint16_t array, uint64_t size_bytes, const char *locator, const char *bank)
{
    /* An empty string would end the list: a name that is not there has number 0. */
    const char *strings[] = { locator, *bank ? bank : "Vendor", *bank ? "Vendor" : "0123ABCD", *bank ? "0123ABCD" : NULL, NULL };
    const uint8_t vendor = *bank ? 3 : 2;
    const uint64_t mib = size_bytes >> 20;
    struct table b = { 0 };

    table_put_number(&b, array, 2);             /* 04 */
    table_put_number(&b, 0xfffe, 2);            /* 06 */
    table_put_number(&b, 72, 2);                /* 08 total width */
    table_put_number(&b, 64, 2);                /* 0a data width */
    table_put_number(&b, size_bytes == UINT64_MAX ? 0xffff : mib >= 0x7fff ? 0x7fff : mib, 2);  /* 0c */
    table_put_number(&b, 9, 1);                 /* 0e DIMM */
    table_put_number(&b, 0, 1);                 /* 0f */
    table_put_number(&b, 1, 1);                 /* 10 locator */
    table_put_number(&b, *bank ? 2 : 0, 1);     /* 11 bank */
    table_put_number(&b, 0x1a, 1);              /* 12 DDR4 */
    table_put_number(&b, 0x80, 2);              /* 13 synchronous */
    table_put_number(&b, 2933, 2);              /* 15 */
    table_put_number(&b, vendor, 1);            /* 17 manufacturer */
    table_put_number(&b, vendor + 1u, 1);       /* 18 serial number */
    table_put_number(&b, 0, 2);                 /* 19, 1a */
    table_put_number(&b, 2, 1);                 /* 1b two ranks */
    table_put_number(&b, mib >= 0x7fff && size_bytes != UINT64_MAX ? mib : 0, 4);               /* 1c */
    table_put_number(&b, 2933, 2);              /* 20 */
    table_put_number(&b, 0, 6);                 /* 22 voltages */
    smb_record(t, 17, handle, b.p, b.bytes, strings);
    table_free(&b);
}

static void put_range(struct table *b, uint64_t start, uint64_t end, bool *extended)
{
    *extended = (end - 1) >> 10 >= UINT32_MAX;
    table_put_number(b, *extended ? UINT32_MAX : start >> 10, 4);
    table_put_number(b, *extended ? UINT32_MAX : (end >> 10) - 1, 4);
}

void smb_array_range(struct table *t, uint16_t handle, uint16_t array, uint64_t start, uint64_t end, uint8_t width)
{
    struct table b = { 0 };
    bool extended;

    put_range(&b, start, end, &extended);       /* 04, 08 */
    table_put_number(&b, array, 2);             /* 0c */
    table_put_number(&b, width, 1);             /* 0e */
    table_put_number(&b, extended ? start : 0, 8);      /* 0f */
    table_put_number(&b, extended ? end - 1 : 0, 8);    /* 17 */
    smb_record(t, 19, handle, b.p, b.bytes, NULL);
    table_free(&b);
}

void smb_device_range(struct table *t, uint16_t handle, uint16_t device, uint16_t array_range, uint64_t start, uint64_t end,
                      uint8_t position, uint8_t depth)
{
    struct table b = { 0 };
    bool extended;

    put_range(&b, start, end, &extended);       /* 04, 08 */
    table_put_number(&b, device, 2);            /* 0c */
    table_put_number(&b, array_range, 2);       /* 0e */
    table_put_number(&b, 1, 1);                 /* 10 row position */
    table_put_number(&b, position, 1);          /* 11 */
    table_put_number(&b, depth, 1);             /* 12 */
    table_put_number(&b, extended ? start : 0, 8);      /* 13 */
    table_put_number(&b, extended ? end - 1 : 0, 8);    /* 1b */
    smb_record(t, 20, handle, b.p, b.bytes, NULL);
    table_free(&b);
}

void smb_end(struct table *t)
{
    smb_record(t, 127, 0xfeff, NULL, 0, NULL);
}

/* ---- SRAT ------------------------------------------------------------------------ */

void srat_begin(struct table *t, uint8_t revision)
{
    table_put(t, "SRAT", 4);
    table_put_number(t, 0, 4);                  /* 04 length, by srat_end */
    table_put_number(t, revision, 1);
    table_put_number(t, 0, 1);                  /* 09 checksum */
    table_put(t, "VENDORMACHINE ", 14);         /* 0a OEM ids */
    table_put_number(t, 1, 4);
    table_put(t, "TEST", 4);
    table_put_number(t, 1, 4);
    table_put_number(t, 1, 4);                  /* 24 reserved, 1 */
    table_put_number(t, 0, 8);
}

void srat_apic(struct table *t, uint32_t pxm, uint8_t apic, uint32_t flags)
{
    table_put_number(t, 0, 1);
    table_put_number(t, 16, 1);
    table_put_number(t, pxm & 0xff, 1);
    table_put_number(t, apic, 1);
    table_put_number(t, flags, 4);
    table_put_number(t, 0, 1);
    table_put_number(t, pxm >> 8, 3);
    table_put_number(t, 0, 4);
}

void srat_x2apic(struct table *t, uint32_t pxm, uint32_t apic, uint32_t flags)
{
    table_put_number(t, 2, 1);
    table_put_number(t, 24, 1);
    table_put_number(t, 0, 2);
    table_put_number(t, pxm, 4);
    table_put_number(t, apic, 4);
    table_put_number(t, flags, 4);
    table_put_number(t, 0, 8);
}

void srat_memory(struct table *t, uint32_t pxm, uint64_t start, uint64_t end, uint32_t flags)
{
    table_put_number(t, 1, 1);
    table_put_number(t, 40, 1);
    table_put_number(t, pxm, 4);
    table_put_number(t, 0, 2);
    table_put_number(t, start, 8);
    table_put_number(t, end - start, 8);
    table_put_number(t, 0, 4);
    table_put_number(t, flags, 4);
    table_put_number(t, 0, 8);
}

void srat_end(struct table *t)
{
    uint8_t sum = 0;

    for (size_t i = 0; i < 4; i++) {
        t->p[4 + i] = (uint8_t)(t->bytes >> (8 * i));
    }
    for (size_t i = 0; i < t->bytes; i++) {
        sum = (uint8_t)(sum + t->p[i]);
    }
    t->p[9] = (uint8_t)-sum;
}

/* ---- machines --------------------------------------------------------------------- */

void machine_ram(struct machine *m, uint64_t start_byte, uint64_t end_byte)
{
    fs_status_t s = mfn_set_add(&m->ram, (struct mfn_range){ mfn_make(start_byte / FS_PAGE_BYTES), mfn_make(end_byte / FS_PAGE_BYTES) });

    ASSERT_CMP(s, ==, FS_OK);
}

void machine_nodes(struct machine *m, uint32_t count, uint64_t bytes_each)
{
    m->host.node_count = count;
    for (uint32_t i = 0; i < count; i++) {
        m->host.nodes[i] = (struct hv_node){ .id = i, .total_pages = bytes_each / FS_PAGE_BYTES };
    }
}

void machine_free(struct machine *m)
{
    table_free(&m->smbios);
    table_free(&m->srat);
    mfn_set_free(&m->ram);
}

/* RAM as a PC has it: a hole for legacy devices, a hole from low to 4 GiB. */
static void pc_ram(struct machine *m, uint64_t low, uint64_t end)
{
    machine_ram(m, 0, 0x9f000);
    machine_ram(m, 0x100000, low);
    if (end > 4 * GIB) {
        machine_ram(m, 4 * GIB, end);
    }
}

static void one_node_srat(struct machine *m, uint64_t end)
{
    srat_begin(&m->srat, 3);
    srat_apic(&m->srat, 0, 0, SRAT_ENABLED);
    srat_memory(&m->srat, 0, 0, end, SRAT_ENABLED);
    srat_end(&m->srat);
    machine_nodes(m, 1, end);
}

static void server(struct machine *m)
{
    char locator[32], bank[32];
    const struct { uint64_t start, end; int socket; } parts[] = { { 0, 2 * GIB, 0 }, { 4 * GIB, 66 * GIB, 0 }, { 66 * GIB, 130 * GIB, 1 } };

    for (uint16_t socket = 0; socket < 2; socket++) {
        smb_array(&m->smbios, (uint16_t)(0x1000 + socket), 3);
        for (uint16_t i = 0; i < 8; i++) {
            snprintf(locator, sizeof(locator), "P%u-DIMM%c%u", socket + 1u, 'A' + i / 2, i % 2 + 1u);
            snprintf(bank, sizeof(bank), "P%u_Node0_Channel%u_Dimm%u", socket, i / 2u, i % 2u);
            smb_device(&m->smbios, (uint16_t)(0x1100 + socket * 16 + i), (uint16_t)(0x1000 + socket), i % 2 ? 0 : 16 * GIB, locator, bank);
        }
    }
    for (uint16_t part = 0; part < 3; part++) {
        uint16_t socket = (uint16_t)parts[part].socket;

        smb_array_range(&m->smbios, (uint16_t)(0x1300 + part), (uint16_t)(0x1000 + socket), parts[part].start, parts[part].end, 4);
        for (uint16_t i = 0; i < 4; i++) {
            smb_device_range(&m->smbios, (uint16_t)(0x1400 + part * 16 + i), (uint16_t)(0x1100 + socket * 16 + i * 2),
                             (uint16_t)(0x1300 + part), parts[part].start, parts[part].end, (uint8_t)(i + 1), 1);
        }
    }
    smb_end(&m->smbios);
    machine_ram(m, 0, 0x9f000);
    machine_ram(m, 0x100000, 0x6f000000);       /* firmware keeps the rest below 2 GiB */
    machine_ram(m, 4 * GIB, 130 * GIB);
    srat_begin(&m->srat, 3);
    for (uint8_t cpu = 0; cpu < 8; cpu++) {
        srat_apic(&m->srat, cpu / 4, (uint8_t)(cpu * 2), SRAT_ENABLED);
    }
    srat_memory(&m->srat, 0, 0, 2 * GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 0, 4 * GIB, 66 * GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 1, 66 * GIB, 130 * GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 1, 130 * GIB, 1024 * GIB, SRAT_ENABLED | SRAT_HOTPLUG);
    srat_end(&m->srat);
    machine_nodes(m, 2, 66 * GIB);
}

/* As a Cisco UCS server lists its DIMMs. */
static void server_sequential(struct machine *m)
{
    const uint64_t size = 32 * GIB;
    char locator[32], bank[40];

    for (uint16_t c = 0; c < 4; c++) {
        smb_array(&m->smbios, (uint16_t)(0x30 + 0x20 * c), 3);
        smb_array_range(&m->smbios, (uint16_t)(0x31 + 0x20 * c), (uint16_t)(0x30 + 0x20 * c), c * 3 * size, (c + 1ull) * 3 * size, 3);
        for (uint16_t d = 0; d < 3; d++) {
            const uint16_t handle = (uint16_t)(0x32 + 0x20 * c + 2 * d);
            const uint64_t start = (c * 3ull + d) * size;

            snprintf(locator, sizeof(locator), "DIMM_%c1", 'A' + c * 3 + d);
            snprintf(bank, sizeof(bank), "NODE %u CHANNEL %u DIMM 0", c / 2u, c % 2u * 3 + d);
            smb_device(&m->smbios, handle, (uint16_t)(0x30 + 0x20 * c), size, locator, bank);
            smb_device_range(&m->smbios, (uint16_t)(handle + 1), handle, (uint16_t)(0x31 + 0x20 * c), start, start + size,
                             (uint8_t)(d + 1), 3);
        }
    }
    smb_end(&m->smbios);
    pc_ram(m, 2 * GIB, 12 * size + 2 * GIB);
    srat_begin(&m->srat, 3);
    srat_memory(&m->srat, 0, 0, 2 * GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 0, 4 * GIB, 6 * size + 2 * GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 1, 6 * size + 2 * GIB, 12 * size + 2 * GIB, SRAT_ENABLED);
    srat_end(&m->srat);
    machine_nodes(m, 2, 6 * size + 2 * GIB);
}

static void laptop(struct machine *m, bool shared)
{
    smb_array(&m->smbios, 5, 3);
    smb_device(&m->smbios, 6, 5, 8 * GIB, "ChannelA-DIMM0", "BANK 0");
    smb_device(&m->smbios, 7, 5, 0, "ChannelA-DIMM1", "BANK 1");
    smb_device(&m->smbios, 8, 5, 8 * GIB, "ChannelB-DIMM0", "BANK 2");
    smb_device(&m->smbios, 9, 5, 0, "ChannelB-DIMM1", "BANK 3");
    if (shared) {
        smb_array_range(&m->smbios, 10, 5, 0, 17 * GIB, 2);
        smb_device_range(&m->smbios, 11, 6, 10, 0, 17 * GIB, 1, 1);
        smb_device_range(&m->smbios, 12, 8, 10, 0, 17 * GIB, 2, 1);
    } else {
        smb_array_range(&m->smbios, 10, 5, 0, 16 * GIB, 2);
        smb_device_range(&m->smbios, 11, 6, 10, 0, 8 * GIB, 1, 1);
        smb_device_range(&m->smbios, 12, 8, 10, 8 * GIB, 16 * GIB, 2, 1);
    }
    smb_array(&m->smbios, 13, 5);               /* the firmware's own chip, in an array that is no system memory */
    smb_device(&m->smbios, 14, 13, 16 * MIB_BYTES, "SYSTEM ROM", "");
    smb_end(&m->smbios);
    pc_ram(m, 3 * GIB - 300 * MIB_BYTES, 17 * GIB - 256 * MIB_BYTES);
    machine_nodes(m, 1, 17 * GIB);              /* and no SRAT */
}

static void desktop(struct machine *m, bool hole)
{
    static const char *const locators[] = { "DIMM_A1", "DIMM_A2", "DIMM_B1", "DIMM_B2" };
    const uint64_t shift = hole ? GIB : 0;

    smb_array(&m->smbios, 0x40, 3);
    for (uint16_t i = 0; i < 4; i++) {
        uint64_t start = i * 4 * GIB + (i ? shift : 0), end = (i + 1ull) * 4 * GIB + shift;

        smb_device(&m->smbios, (uint16_t)(0x41 + i), 0x40, 4 * GIB, locators[i], i / 2 ? "ChannelB" : "ChannelA");
        if (!i && hole) {
            smb_device_range(&m->smbios, 0x60, 0x41, 0x50, 0, 3 * GIB, 0, 0);
            smb_device_range(&m->smbios, 0x61, 0x41, 0x51, 4 * GIB, 5 * GIB, 0, 0);
        } else {
            smb_device_range(&m->smbios, (uint16_t)(0x61 + i), (uint16_t)(0x41 + i), 0x51, start, end, 0, 0);
        }
    }
    smb_array_range(&m->smbios, 0x50, 0x40, 0, hole ? 3 * GIB : 16 * GIB, 1);
    if (hole) {
        smb_array_range(&m->smbios, 0x51, 0x40, 4 * GIB, 17 * GIB, 1);
    }
    smb_end(&m->smbios);
    pc_ram(m, 3 * GIB, 17 * GIB);
    one_node_srat(m, 17 * GIB);
}

static void channels(struct machine *m)
{
    char locator[32];

    for (uint16_t c = 0; c < 4; c++) {
        smb_array(&m->smbios, (uint16_t)(0x10 + c), 3);
        for (uint16_t d = 0; d < 2; d++) {
            snprintf(locator, sizeof(locator), "CPU%u_DIMM_%c%u", c / 2 + 1u, 'A' + c % 2, d + 1u);
            smb_device(&m->smbios, (uint16_t)(0x20 + c * 2 + d), (uint16_t)(0x10 + c), d ? 0 : 32 * GIB, locator, "");
        }
    }
    smb_array_range(&m->smbios, 0x30, 0x10, 0, 2 * GIB, 1);
    smb_array_range(&m->smbios, 0x31, 0x10, 4 * GIB, 34 * GIB, 1);
    smb_array_range(&m->smbios, 0x32, 0x11, 34 * GIB, 66 * GIB, 1);
    smb_array_range(&m->smbios, 0x33, 0x12, 66 * GIB, 98 * GIB, 1);
    smb_array_range(&m->smbios, 0x34, 0x13, 98 * GIB, 130 * GIB, 1);
    smb_end(&m->smbios);
    pc_ram(m, 2 * GIB, 130 * GIB);
    srat_begin(&m->srat, 1);
    srat_memory(&m->srat, 0, 0, 66 * GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 1, 66 * GIB, 130 * GIB, SRAT_ENABLED);
    srat_end(&m->srat);
    machine_nodes(m, 2, 66 * GIB);
}

static void one_array(struct machine *m)
{
    char locator[32];

    smb_array(&m->smbios, 0x1000, 3);
    for (uint16_t i = 0; i < 24; i++) {
        snprintf(locator, sizeof(locator), "%c%u", i < 12 ? 'A' : 'B', i % 12 + 1u);
        smb_device(&m->smbios, (uint16_t)(0x1100 + i), 0x1000, i % 12 < 4 ? 32 * GIB : 0, locator, "Not Specified");
    }
    smb_array_range(&m->smbios, 0x1300, 0x1000, 0, 2 * GIB, 2);
    smb_array_range(&m->smbios, 0x1301, 0x1000, 4 * GIB, 258 * GIB, 2);
    smb_end(&m->smbios);
    pc_ram(m, 2 * GIB, 258 * GIB);
    srat_begin(&m->srat, 3);
    srat_x2apic(&m->srat, 1, 0, SRAT_ENABLED);  /* the second socket comes first: Xen calls it node 0 */
    srat_x2apic(&m->srat, 0, 1, SRAT_ENABLED);
    srat_memory(&m->srat, 0, 0, 130 * GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 1, 130 * GIB, 258 * GIB, SRAT_ENABLED);
    srat_end(&m->srat);
    machine_nodes(m, 2, 130 * GIB);
}

static void large(struct machine *m)
{
    char locator[32];

    srat_begin(&m->srat, 3);
    for (uint16_t set = 0; set < 4; set++) {
        const uint64_t size = 6 * 256 * GIB, start = set ? set * size + 2 * GIB : 4 * GIB, end = (set + 1) * size + 2 * GIB;

        smb_array(&m->smbios, (uint16_t)(0x100 + set), 3);
        smb_array_range(&m->smbios, (uint16_t)(0x200 + set), (uint16_t)(0x100 + set), start, end, 6);
        for (uint16_t i = 0; i < 6; i++) {
            snprintf(locator, sizeof(locator), "DIMM %u", i);
            smb_device(&m->smbios, (uint16_t)(0x300 + set * 8 + i), (uint16_t)(0x100 + set), 256 * GIB, locator,
                       (const char *[]){ "SET 0", "SET 1", "SET 2", "SET 3" }[set]);
            smb_device_range(&m->smbios, (uint16_t)(0x400 + set * 8 + i), (uint16_t)(0x300 + set * 8 + i), (uint16_t)(0x200 + set),
                             start, end, (uint8_t)(i + 1), 0xff);
            if (!set) {
                smb_device_range(&m->smbios, (uint16_t)(0x500 + i), (uint16_t)(0x300 + i), 0x200, 0, 2 * GIB, (uint8_t)(i + 1), 0xff);
            }
        }
        srat_memory(&m->srat, set, set ? start : 0, end, SRAT_ENABLED);
    }
    smb_end(&m->smbios);
    srat_end(&m->srat);
    pc_ram(m, 2 * GIB, 4 * 6 * 256 * GIB + 2 * GIB);
    machine_nodes(m, 4, 6 * 256 * GIB + 4 * GIB);
}

static void qemu_tables(struct machine *m, uint64_t bytes)
{
    const uint64_t low = 3 * GIB;
    uint16_t i = 0;
    char locator[32];

    smb_array(&m->smbios, 0x1000, 3);
    for (uint64_t left = bytes; left; i++) {
        uint64_t size = left < 16 * GIB ? left : 16 * GIB;

        snprintf(locator, sizeof(locator), "DIMM %u", i);
        smb_device(&m->smbios, (uint16_t)(0x1100 + i), 0x1000, size, locator, "");
        left -= size;
    }
    smb_array_range(&m->smbios, 0x1300, 0x1000, 0, low, 1);
    smb_array_range(&m->smbios, 0x1301, 0x1000, 4 * GIB, bytes - low + 4 * GIB, 1);
    smb_record(&m->smbios, 32, 0x2000, "\0\0\0\0\0\0\0", 7, NULL);
    smb_end(&m->smbios);
    pc_ram(m, low, bytes - low + 4 * GIB);
}

static void four_nodes(struct machine *m)
{
    srat_begin(&m->srat, 1);
    srat_apic(&m->srat, 0, 0, SRAT_ENABLED);
    srat_apic(&m->srat, 1, 1, SRAT_ENABLED);
    srat_memory(&m->srat, 0, 0, 0xa0000, SRAT_ENABLED);
    srat_memory(&m->srat, 0, 0x100000, GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 1, GIB, 2 * GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 2, 2 * GIB, 3 * GIB, SRAT_ENABLED);
    srat_memory(&m->srat, 3, 4 * GIB, 5 * GIB, SRAT_ENABLED);
    srat_end(&m->srat);
    machine_nodes(m, 4, GIB);
}

static void testhost(struct machine *m)
{
    char locator[32], bank[32];

    smb_array(&m->smbios, 0x1000, 3);
    for (uint16_t i = 0; i < 4; i++) {
        uint64_t start = (i < 3 ? i : 4) * GIB;

        snprintf(locator, sizeof(locator), "DIMM%u", i);
        snprintf(bank, sizeof(bank), "NODE%u", i);
        smb_device(&m->smbios, (uint16_t)(0x1100 + i), 0x1000, GIB, locator, bank);
        smb_array_range(&m->smbios, (uint16_t)(0x1300 + i), 0x1000, start, start + GIB, 1);
        smb_device_range(&m->smbios, (uint16_t)(0x1400 + i), (uint16_t)(0x1100 + i), (uint16_t)(0x1300 + i), start, start + GIB, 0, 0);
    }
    smb_end(&m->smbios);
    pc_ram(m, 3 * GIB, 5 * GIB);
    four_nodes(m);
}

const char *fixture_name(enum fixture f)
{
    static const char *const names[FIXTURE_COUNT] = {
        "server", "server, sequential", "laptop", "laptop, shared", "desktop", "desktop, no hole", "channels", "one array", "large", "qemu", "qemu 40G",
        "test host",
    };

    return names[f];
}

void fixture_make(struct machine *m, enum fixture f)
{
    *m = (struct machine){ 0 };
    switch (f) {
    case FIXTURE_SERVER: server(m); break;
    case FIXTURE_SERVER_SEQUENTIAL: server_sequential(m); break;
    case FIXTURE_LAPTOP: laptop(m, false); break;
    case FIXTURE_LAPTOP_SHARED: laptop(m, true); break;
    case FIXTURE_DESKTOP: desktop(m, true); break;
    case FIXTURE_DESKTOP_NO_HOLE: desktop(m, false); break;
    case FIXTURE_CHANNELS: channels(m); break;
    case FIXTURE_ONE_ARRAY: one_array(m); break;
    case FIXTURE_LARGE: large(m); break;
    case FIXTURE_QEMU:
        qemu_tables(m, 4 * GIB);
        four_nodes(m);
        break;
    case FIXTURE_QEMU_40G:
        qemu_tables(m, 40 * GIB);
        one_node_srat(m, 41 * GIB);
        break;
    case FIXTURE_TESTHOST: testhost(m); break;
    case FIXTURE_COUNT: break;
    }
}

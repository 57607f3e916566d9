/*
 * show_meminfo.c - a guest's memory as text: the tables that Linux has in /proc and debugfs, and the settings.
 *
 * Owns: nothing.
 * Invariants: I1 no byte of the guest reaches a terminal but through text_clean() or as a number.
 * Why these shapes: whoever reads a Linux kernel's buddyinfo reads this one.
 */
#include "show.h"

#include <inttypes.h>
#include <string.h>

#include "text.h"

static const char *const kinds[HV_ZONE_KINDS] = { "DMA", "Normal", "Movable" };
static const char *const types[HV_MIGRATETYPES] = { "Unmovable", "Movable", "Reclaimable", "Accounted", "HighAtomic", "Isolate" };

static void zone_title(FILE *f, const struct hv_meminfo_zone *z)
{
    fprintf(f, "Node %" PRIu32 ", zone %8s", z->node, kinds[z->kind < HV_ZONE_KINDS ? z->kind : 0]);
}

static void show_buddyinfo(FILE *f, const struct hv_meminfo *m)
{
    fprintf(f, "buddyinfo\n");
    for (size_t i = 0; i < m->zone_count; i++) {
        zone_title(f, &m->zones[i]);
        for (unsigned o = 0; o < HV_ORDERS; o++) {
            uint64_t n = 0;
            for (unsigned t = 0; t < HV_MIGRATETYPES; t++) {
                n += m->zones[i].free_units[t][o];
            }
            fprintf(f, " %6" PRIu64, n);
        }
        fprintf(f, "\n");
    }
}

static void show_pagetypeinfo(FILE *f, const struct hv_meminfo *m)
{
    fprintf(f, "\npagetypeinfo\nFree pages count per migrate type at order  ");
    for (unsigned o = 0; o < HV_ORDERS; o++) {
        fprintf(f, " %6u", o);
    }
    fprintf(f, "\n");
    for (size_t i = 0; i < m->zone_count; i++) {
        for (unsigned t = 0; t < HV_MIGRATETYPES; t++) {
            zone_title(f, &m->zones[i]);
            fprintf(f, ", type %12s  ", types[t]);
            for (unsigned o = 0; o < HV_ORDERS; o++) {
                fprintf(f, " %6" PRIu64, m->zones[i].free_units[t][o]);
            }
            fprintf(f, "\n");
        }
    }
    fprintf(f, "Number of blocks type ");
    for (unsigned t = 0; t < HV_MIGRATETYPES; t++) {
        fprintf(f, " %12s", types[t]);
    }
    fprintf(f, "\n");
    for (size_t i = 0; i < m->zone_count; i++) {
        zone_title(f, &m->zones[i]);
        for (unsigned t = 0; t < HV_MIGRATETYPES; t++) {
            fprintf(f, " %12" PRIu64, m->zones[i].blocks[t]);
        }
        fprintf(f, "\n");
    }
}

static void show_indices(FILE *f, const struct hv_meminfo *m)
{
    fprintf(f, "\nunusable_index\n");
    for (size_t i = 0; i < m->zone_count; i++) {
        zone_title(f, &m->zones[i]);
        for (unsigned o = 0; o < HV_ORDERS; o++) {
            fprintf(f, " %6.3f", (double)m->zones[i].unusable[o] / 1000);
        }
        fprintf(f, "\n");
    }
    fprintf(f, "\nextfrag_index\n");
    for (size_t i = 0; i < m->zone_count; i++) {
        zone_title(f, &m->zones[i]);
        for (unsigned o = 0; o < HV_ORDERS; o++) {
            fprintf(f, " %6.3f", (double)m->zones[i].extfrag[o] / 1000);
        }
        fprintf(f, "\n");
    }
}

static void show_zones(FILE *f, const struct hv_meminfo *m)
{
    fprintf(f, "\nzoneinfo\n");
    for (size_t i = 0; i < m->zone_count; i++) {
        const struct hv_meminfo_zone *z = &m->zones[i];
        zone_title(f, z);
        fprintf(f, "  free %" PRIu64 "  min %" PRIu64 "  low %" PRIu64 "  high %" PRIu64 "  present %" PRIu64 "  managed %" PRIu64 "  isolated %" PRIu64
                "  fragmentation score %" PRIu32 "\n", z->free_pages, z->watermark[0], z->watermark[1], z->watermark[2], z->present_pages,
                z->managed_pages, z->isolated_pages, z->score);
    }
}

static void value_name(FILE *f, const char name[32], bool wide)
{
    char clean[4 * 32 + 1];

    text_clean(clean, sizeof(clean), name, 32, 32);
    fprintf(f, wide ? "%-32s" : "%s", clean);
}

static void show_values(FILE *f, const struct hv_meminfo *m)
{
    fprintf(f, "\nvmstat\n");
    for (size_t i = 0; i < m->counter_count; i++) {
        value_name(f, m->counters[i].name, false);
        fprintf(f, " %" PRIu64 "\n", m->counters[i].value);
    }
    fprintf(f, "\nsettings\n");
    for (size_t i = 0; i < m->tunable_count; i++) {
        const struct hv_meminfo_value *v = &m->tunables[i];
        value_name(f, v->name, true);
        if (v->action) {
            fprintf(f, "       (does something)");
        } else {
            fprintf(f, " %10" PRIu64 "            ", v->value);
        }
        fprintf(f, "  %" PRIu64 " to %" PRIu64 "\n", v->least, v->most);
    }
}

void show_meminfo(FILE *f, const struct hv_meminfo *m, bool quiet)
{
    char name[4 * HV_NAME_BYTES];

    text_clean(name, sizeof(name), m->name, sizeof(m->name), 40);
    for (size_t i = 0; i < m->set_count; i++) {
        fprintf(f, "%s: ", name);
        value_name(f, m->sets[i].name, false);
        fprintf(f, " %" PRIu64 " -> %" PRIu64 "\n", m->sets[i].before, m->sets[i].after);
    }
    if (quiet) {
        return;
    }
    if (m->set_count > 0) {
        fprintf(f, "\n");
    }
    show_buddyinfo(f, m);
    show_pagetypeinfo(f, m);
    show_indices(f, m);
    show_zones(f, m);
    show_values(f, m);
}

/*
 * drill_config.c - which machine a drill is held on.
 *
 * Owns: the guests' words ("pv=NAME,MIB,VCPUS,DIMM"), the default guests, and the limits.
 * Invariants:
 *  I1 a word that is not understood is FS_USAGE and named; nothing is guessed;
 *  I2 names are unique: a guest that is saved and restored is known by its name only.
 * Why defaults by share of a DIMM: `--dimms 4x16` and `--dimms 4x1024` are both the same drill, small and large.
 * Each of the two DIMMs that are emptied by default holds guests, and the guests of one fit into the others.
 * A kind that a DIMM is too small for is left out.
 */
#include <stdio.h>
#include <string.h>

#include "drill.h"

#define DIMM_MIB_MAX (1u << 20)
#define VCPUS_MAX 16u
#define PAGES_PER_MIB 256u

static const struct { const char *word; enum rig_kind kind; } kinds[] = { { "pv=", RIG_PV }, { "pvh=", RIG_PVH },
                                                                   { "coop=", RIG_COOP } };

static fs_status_t parse_guest(const struct rig_ops *rig, const char *word, struct rig_config *c, struct fs_error *err)
{
    struct rig_guest_config g = { 0 };
    unsigned long long mib = 0, vcpus = 0, dimm = 0;
    const char *rest = NULL;
    int end = 0;

    for (size_t i = 0; i < FS_ARRAY_SIZE(kinds); i++) {
        if (strncmp(word, kinds[i].word, strlen(kinds[i].word)) == 0) {
            g.kind = kinds[i].kind;
            rest = word + strlen(kinds[i].word);
        }
    }
    /* NOLINTNEXTLINE(cert-err34-c): seven digits at most, which cannot overflow. */
    if (rest == NULL || sscanf(rest, "%63[A-Za-z0-9_.-],%7llu,%7llu,%7llu%n", g.name, &mib, &vcpus, &dimm, &end) != 4 || rest[end] != '\0') {
        return fs_fail(err, FS_USAGE, "guest \"%.60s\" is not understood; write KIND=NAME,MIB,VCPUS,DIMM with pv, pvh or coop", word);
    }
    uint64_t least = rig->least_pages(c, g.kind);
    if (least == UINT64_MAX) {
        return fs_fail(err, FS_USAGE, "guest \"%.60s\": this program has no kernel for it", word);
    }
    if (mib * PAGES_PER_MIB < least || mib > DIMM_MIB_MAX || vcpus == 0 || vcpus > VCPUS_MAX || dimm >= c->dimms) {
        return fs_fail(err, FS_USAGE, "guest \"%.60s\": it needs %llu MiB or more, 1 to %u vCPUs, and a DIMM below %u", word,
                       (unsigned long long)(least / PAGES_PER_MIB), VCPUS_MAX, c->dimms);
    }
    for (size_t i = 0; i < c->guest_count; i++) {
        if (strcmp(c->guests[i].name, g.name) == 0) {       /* I2 */
            return fs_fail(err, FS_USAGE, "two guests are named \"%s\"; give each its own name", g.name);
        }
    }
    g.pages = mib * PAGES_PER_MIB;
    g.vcpus = (uint32_t)vcpus;
    g.dimm = (uint32_t)dimm;
    c->guests[c->guest_count++] = g;
    return FS_OK;
}

static void default_guests(const struct rig_ops *rig, struct rig_config *c)
{
    const uint32_t second = 2 % c->dimms;
    const struct { const char *name; enum rig_kind kind; uint32_t sixteenths, vcpus, dimm; } guests[] = {
        { "pv1", RIG_PV, 5, 2, 1 }, { "pvh1", RIG_PVH, 4, 2, 1 }, { "coop1", RIG_COOP, 5, 2, 1 }, { "pv2", RIG_PV, 4, 1, second },
        { "pvh2", RIG_PVH, 4, 1, second },
    };

    for (size_t i = 0; i < FS_ARRAY_SIZE(guests); i++) {
        if (c->dimm_pages * guests[i].sixteenths / 16 < rig->least_pages(c, guests[i].kind)) {
            continue;
        }
        struct rig_guest_config *g = &c->guests[c->guest_count++];
        *g = (struct rig_guest_config){ .kind = guests[i].kind, .pages = c->dimm_pages * guests[i].sixteenths / 16, .vcpus = guests[i].vcpus,
                                        .dimm = guests[i].dimm };
        (void)snprintf(g->name, sizeof(g->name), "%s", guests[i].name);
    }
}

fs_status_t drill_config(const struct rig_ops *rig, const struct hv_drill_options *o, struct rig_config *out, struct fs_error *err)
{
    *out = (struct rig_config){ .dimms = o->dimms == 0 ? 4 : o->dimms, .threads = o->threads, .kernel = o->kernel };
    uint64_t mib = o->dimm_mib == 0 ? 64 : o->dimm_mib;
    if (out->dimms < 2 || out->dimms > RIG_DIMMS_MAX || mib < 16 || mib > DIMM_MIB_MAX) {
        return fs_fail(err, FS_USAGE, "a drill needs 2 to %u DIMMs of 16 MiB to 1 TiB each", RIG_DIMMS_MAX);
    }
    if (o->guest_count > RIG_GUESTS_MAX) {
        return fs_fail(err, FS_USAGE, "more than %u guests", RIG_GUESTS_MAX);
    }
    out->dimm_pages = mib * PAGES_PER_MIB;
    out->dom0_pages = out->dimm_pages / 8;
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < o->guest_count && s == FS_OK; i++) {
        s = parse_guest(rig, o->guests[i], out, err);
    }
    if (s == FS_OK && o->guest_count == 0) {
        default_guests(rig, out);
    }
    return s;
}

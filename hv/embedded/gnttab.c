/*
 * gnttab.c - the grant table of a core domain: entries, uses of them, growth and end.
 *
 * Owns: core->gnttab; the bits GTF_reading and GTF_writing of the shared entries.
 * Invariants:
 *  I1 active[ref].pin[k] is the number of handles of all domains that use ref in the way k (a copy's use
 *     begins and ends within its call);
 *  I2 while a reference is in use it leads to the frame that the first use found, and to the domain that made
 *     it, whatever the granter writes into the entry meanwhile;
 *  I3 GTF_reading is set while it is in use, GTF_writing while a use may write: the granter may overwrite both,
 *     so nothing here reads them;
 *  I4 shared frames are Xen's, owned by the domain, of type writable for ever: they can be mapped by
 *     it, neither moved nor made a table of.
 * Lock order: the machine's lock is held.  The guest writes entries meanwhile: an entry is read once as one word
 * and changed by compare and exchange, five times at most.
 * Source: public/grant_table.h; common/grant_table.c _set_status_v1(), reduce_status_for_pin(), gnttab_grow_table(),
 * gnttab_release_mappings(); share_xen_page_with_guest().
 * Why the first frame is not there from the start, as it is on Xen: a domain that makes no grants has one frame
 * less that cannot move.  Nothing else differs: an entry not yet allocated grants nothing.
 * Cost: O(1) a use; the end of a domain is linear in its handles.
 */
#include "emb_core.h"

#include <xen/xen.h>
#include <xen/grant_table.h>

#define TRIES 5

_Static_assert(sizeof(grant_entry_v1_t) == 8 && sizeof(struct emb_active) == 16, "flags and domid are the first word, the frame is the second");
_Static_assert(EMB_GNT_FRAME_REFS * sizeof(grant_entry_v1_t) == FS_PAGE_BYTES, "a frame of entries");

int emb_gnttab_grow(struct emb_machine *m, struct emb_domain *d, uint32_t frames)
{
    struct emb_gnttab *t = &d->core->gnttab;
    while (t->frames < frames) {
        uint64_t mfn = emb_share_page(m, d);
        if (mfn == FS_FRAME_NONE) {
            return -ENOMEM;             /* those that it got stay: Xen would give them back, no guest can tell */
        }
        t->shared[t->frames++] = mfn;
    }
    return 0;
}

int16_t emb_gnt_find(struct emb_machine *m, struct emb_domain *granter, uint32_t ref, uint32_t **entry, struct emb_active **act)
{
    const struct emb_gnttab *t = granter->core ? &granter->core->gnttab : NULL;
    uint32_t frames = t && t->frames > 0 ? t->frames : 1;
    if (ref >= frames * EMB_GNT_FRAME_REFS) {
        return GNTST_bad_gntref;
    }
    if (!t || t->frames == 0) {
        return GNTST_general_error;     /* all entries are GTF_invalid, or for dom0's daemons */
    }
    *entry = (uint32_t *)(void *)(emb_bytes(m, t->shared[ref / EMB_GNT_FRAME_REFS]) + ref % EMB_GNT_FRAME_REFS * sizeof(grant_entry_v1_t));
    *act = &granter->core->gnttab.active[ref];
    return GNTST_okay;
}

uint64_t emb_gnt_frame(const uint32_t *entry)
{
    return __atomic_load_n(entry + 1, __ATOMIC_SEQ_CST);
}

bool emb_gnt_offers(struct emb_machine *m, struct emb_domain *granter, uint32_t ref, uint64_t *mfn, uint32_t *flags)
{
    uint32_t *entry;
    struct emb_active *act;
    int16_t rc = emb_gnt_find(m, granter, ref, &entry, &act);
    ASSERT_CMP(rc, ==, GNTST_okay);
    *flags = __atomic_load_n(entry, __ATOMIC_SEQ_CST);
    *mfn = emb_gnt_frame(entry);
    return (*flags & GTF_type_mask) == GTF_permit_access;
}

uint32_t emb_gnt_kinds(uint32_t flags)
{
    bool write = !(flags & GNTMAP_readonly);
    return (flags & GNTMAP_host_map ? 1u << (write ? EMB_PIN_HSTW : EMB_PIN_HSTR) : 0) |
           (flags & GNTMAP_device_map ? 1u << (write ? EMB_PIN_DEVW : EMB_PIN_DEVR) : 0);
}

bool emb_gnt_in_use(const struct emb_active *a)
{
    return a->pin[EMB_PIN_HSTR] || a->pin[EMB_PIN_HSTW] || a->pin[EMB_PIN_DEVR] || a->pin[EMB_PIN_DEVW];
}

static bool written(const struct emb_active *a)
{
    return a->pin[EMB_PIN_HSTW] || a->pin[EMB_PIN_DEVW];
}

static bool writes(uint32_t kinds)
{
    return kinds & (1u << EMB_PIN_HSTW | 1u << EMB_PIN_DEVW);
}

/* I3.  The first word: flags in the low half, domid in the high one. */
static int16_t mark(uint32_t *entry, const struct emb_active *act, uint16_t by, bool write, bool mapping)
{
    uint32_t mask = GTF_type_mask | (mapping ? GTF_sub_page : 0), set = GTF_reading | (write ? GTF_writing : 0);
    uint32_t seen = __atomic_load_n(entry, __ATOMIC_SEQ_CST);
    for (int i = 0; i < TRIES; i++) {
        if (!emb_gnt_in_use(act) && ((seen & mask) != GTF_permit_access || seen >> 16 != by)) {
            return GNTST_general_error;
        }
        if (write && (seen & GTF_readonly)) {
            return GNTST_general_error;
        }
        if (__atomic_compare_exchange_n(entry, &seen, seen | set, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            return GNTST_okay;
        }
    }
    return GNTST_general_error;         /* a granter that never stops writing it */
}

static void unmark(uint32_t *entry, const struct emb_active *act, bool write)
{
    uint32_t clear = emb_gnt_in_use(act) ? 0 : GTF_reading;
    if (write && !written(act)) {
        clear |= GTF_writing;
    }
    if (clear) {
        (void)__atomic_fetch_and(entry, ~clear, __ATOMIC_SEQ_CST);
    }
}

static bool has_frame(struct emb_machine *m, const struct emb_domain *d, uint64_t mfn)
{
    if (emb_get_page(m, mfn, d) != 0) {
        return false;
    }
    emb_put_page(m, mfn);
    return true;
}

/* The frame of a first use; a copy that is the first to write looks again, as Xen does. */
static int16_t find_frame(struct emb_machine *m, const struct emb_domain *granter, const uint32_t *entry, struct emb_active *act, bool mapping)
{
    bool first = !emb_gnt_in_use(act);
    if (!first && mapping) {
        return GNTST_okay;              /* I2 */
    }
    uint64_t mfn = emb_gnt_frame(entry);
    if (!has_frame(m, granter, mfn)) {
        return GNTST_bad_page;
    }
    if (!first) {
        return act->mfn == mfn ? GNTST_okay : GNTST_general_error;
    }
    act->mfn = mfn;
    return GNTST_okay;
}

int16_t emb_gnt_pin(struct emb_machine *m, struct emb_domain *granter, uint32_t ref, uint16_t by, uint32_t kinds, bool mapping)
{
    uint32_t *entry;
    struct emb_active *act;
    int16_t rc = emb_gnt_find(m, granter, ref, &entry, &act);
    if (rc != GNTST_okay) {
        return rc;
    }
    bool used = emb_gnt_in_use(act), write = writes(kinds);
    for (uint32_t k = 0; k < EMB_PIN_KINDS; k++) {
        if (used && (act->domid != by || ((kinds >> k & 1) && act->pin[k] >= EMB_PIN_MAX))) {
            return GNTST_general_error;
        }
    }
    if (!used || (write && !written(act))) {
        rc = mark(entry, act, by, write, mapping);
        if (rc != GNTST_okay) {
            return rc;
        }
        rc = find_frame(m, granter, entry, act, mapping);
    } else if (!mapping && (!has_frame(m, granter, act->mfn) || granter->dying)) {
        rc = GNTST_bad_domain;
    }
    if (rc != GNTST_okay) {
        unmark(entry, act, write);
        return rc;
    }
    act->domid = by;
    for (uint32_t k = 0; k < EMB_PIN_KINDS; k++) {
        act->pin[k] = (uint8_t)(act->pin[k] + (kinds >> k & 1));
    }
    return GNTST_okay;
}

void emb_gnt_unpin(struct emb_machine *m, struct emb_domain *granter, uint32_t ref, uint32_t kinds)
{
    uint32_t *entry = NULL;
    struct emb_active *act = &granter->core->gnttab.active[ref];
    int16_t rc = emb_gnt_find(m, granter, ref, &entry, &act);
    ASSERT(rc == GNTST_okay || granter->dying); /* a table never shrinks, but goes with the last frame */
    for (uint32_t k = 0; k < EMB_PIN_KINDS; k++) {
        if (kinds >> k & 1) {
            ASSERT_CMP(act->pin[k], >, 0);
            act->pin[k]--;
        }
    }
    if (rc == GNTST_okay) {
        unmark(entry, act, writes(kinds));
    }
}

void emb_gnttab_release(struct emb_machine *m, struct emb_domain *d)
{
    for (uint32_t i = 0; d->core && i < EMB_MAPTRACK_MAX; i++) {
        struct emb_maptrack *t = &d->core->gnttab.maptrack[i];
        struct emb_domain *granter = t->flags ? emb_domain_find(m, t->domid) : NULL;
        bool device = t->flags & GNTMAP_device_map, write = !(t->flags & GNTMAP_readonly);
        uint32_t kinds = emb_gnt_kinds(t->flags);
        t->flags = 0;
        if (!granter || !granter->core) {
            continue;
        }
        uint64_t mfn = granter->core->gnttab.active[t->ref].mfn;
        emb_gnt_unpin(m, granter, t->ref, kinds);
        /* An entry of its tables holds the reference of a host mapping, and goes with the table. */
        if (device && write) {
            emb_put_page_and_type(m, mfn);
        } else if (device) {
            emb_put_page(m, mfn);
        }
    }
}

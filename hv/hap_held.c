/*
 * hap_held.c - which frames of a translated guest Xen itself holds, known before anything moves.
 *
 * Owns: the list of candidates (job->held), the scans that fill it, and what becomes of each
 * candidate.  The questions to the machine are hap_refs.c's, the shapes held_shape.c's.
 *
 * The problem: for a translated domain Xen keeps three kinds of guest page mapped from
 * registration until the domain ends: vcpu_info, FIFO event array pages, FIFO control
 * blocks.  It maps the machine frame; moving it leaves Xen writing to the old frame and the
 * guest reading the new one, and event delivery is dead.
 * The argument:
 *  I1 exact: each registration takes a type reference on the frame, and on a translated domain's
 *     frame nothing else does.  Xen tells a frame's type count (frame_refs), at the price of a line on
 *     its console: too dear for every frame, cheap for the few that
 *  I2 have the shape: every page of the range is looked at, and any that could be one of the three
 *     is asked about.  The shape only chooses whom to ask, and is as wide as can be afforded.
 *  I3 complete: a page that Xen holds and that has no such shape would be missed.  So the type
 *     references are counted: at least one vcpu_info and, with FIFO channels, one control block for each
 *     online vCPU, and one page for each 1024 channels.  What the range does not show is looked for
 *     in the whole guest.  If the count still falls short, the guest keeps such pages in a form that
 *     we do not know, and nothing of it moves.
 *  I4 neither can be registered twice.  Once there are as many as the domain has vCPUs, no
 *     other page can become one; until then a page that has the shape when it is about to move
 *     (a vCPU came up meanwhile) is set aside in its pause, and asked about at the end, the
 *     last time inside the pause that moves it.
 * Cost: one read of the range; a few milliseconds for each candidate, while the guest runs; a read of
 * the rest of the guest only where I3 asks for it.
 */
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hap_priv.h"
#include "held_shape.h"

#define PIECE_PAGES 512u
#define CANDIDATES_MAX 200000u
#define PORT_LIMIT (1u << 17)           /* the link field of an event word */

static fs_status_t look(struct hap_job *job, uint64_t gfn, uint32_t index, const uint8_t *page, struct fs_error *err)
{
    struct hap_held *h = &job->held;
    struct hap_candidate c = { .gfn = gfn, .index = index, .kinds = (uint8_t)held_shape(page, PORT_LIMIT) };

    if (c.kinds == 0) {
        return FS_OK;
    }
    if (h->count == h->capacity) {
        size_t capacity = h->capacity ? h->capacity * 2 : 64;
        struct hap_candidate *grown = capacity <= CANDIDATES_MAX ? realloc(h->list, capacity * sizeof(*grown)) : NULL;

        if (!grown) {
            return fs_fail(err, FS_NO_MEMORY, "domain %u: too many pages look like event pages (%zu)", job->domid, h->count);
        }
        h->list = grown;
        h->capacity = capacity;
    }
    c.likely = (uint8_t)((held_shape_array(page) ? HELD_ARRAY : 0) | (held_shape_vcpu_likely(page) ? HELD_VCPU : 0)
                         | (held_shape_control(page, hap_ports_limit(h->ports)) ? HELD_CONTROL : 0));
    c.array_agrees = c.kinds & HELD_ARRAY && hap_ports_agree(h->ports, page);
    c.mfn = index == HAP_NO_INDEX ? FS_FRAME_NONE : hap_mfn_at(job, index).n;
    h->list[h->count++] = c;
    return FS_OK;
}

static fs_status_t scan_piece(struct hap_job *job, const uint64_t *gfns, const uint32_t *indices, size_t count, struct fs_error *err)
{
    int page_err[PIECE_PAGES];
    void *map;
    fs_status_t st = job->ops->map(job->be, job->domid, gfns, count, HV_MAP_READ, page_err, &map, err);

    if (st != FS_OK) {
        return hap_why(job, st, err);
    }
    for (size_t i = 0; i < count && st == FS_OK; i++) {
        if (page_err[i] == 0) {
            st = look(job, gfns[i], indices ? indices[i] : HAP_NO_INDEX, (const uint8_t *)map + i * FS_PAGE_BYTES, err);
        }
    }
    job->ops->unmap(job->be, map, count);
    return st;
}

static fs_status_t scan_range(struct hap_job *job, struct fs_error *err)
{
    uint64_t gfns[PIECE_PAGES];
    uint32_t indices[PIECE_PAGES];
    size_t n = 0;
    fs_status_t st = FS_OK;

    for (size_t i = 0; i < job->count && st == FS_OK; i++) {
        if (job->states[i] != HAP_TODO && job->states[i] != HAP_BUSY) {
            continue;
        }
        gfns[n] = hap_gfn_at(job, i);
        indices[n++] = (uint32_t)i;
        if (n == PIECE_PAGES) {
            st = scan_piece(job, gfns, indices, n, err);
            n = 0;
        }
    }
    return n > 0 && st == FS_OK ? scan_piece(job, gfns, indices, n, err) : st;
}

/* Every gfn that some frame of the machine claims: a superset of this guest's gfns, far smaller than its gfn space. */
static fs_status_t claimed_gfns(struct hap_job *job, uint64_t *bits, uint64_t limit, struct fs_error *err)
{
    struct mfn_range_set ram = { 0 };
    mfn_t mfns[PIECE_PAGES];
    uint64_t gfns[PIECE_PAGES];
    fs_status_t st = job->ops->ram(job->be, &ram, err);

    for (size_t r = 0; r < ram.count && st == FS_OK; r++) {
        for (uint64_t m = ram.ranges[r].start.n; m < ram.ranges[r].end.n && st == FS_OK; ) {
            size_t n = 0;

            while (n < PIECE_PAGES && m < ram.ranges[r].end.n) {
                mfns[n++] = mfn_make(m++);
            }
            st = job->ops->m2p(job->be, mfns, n, gfns, err);
            for (size_t i = 0; i < n && st == FS_OK; i++) {
                if (gfns[i] < limit) {
                    bits[gfns[i] / 64] |= 1ull << (gfns[i] % 64);
                }
            }
        }
    }
    mfn_set_free(&ram);
    return st;
}

static fs_status_t scan_rest(struct hap_job *job, struct fs_error *err)
{
    uint64_t gfns[PIECE_PAGES], limit;
    size_t n = 0;
    fs_status_t st = job->ops->gfn_limit(job->be, job->domid, &limit, err);

    if (st != FS_OK) {
        return hap_why(job, st, err);
    }
    if (limit > 1ull << 36) {
        return fs_fail(err, FS_BAD_INPUT, "domain %u: highest gfn 0x%llx is not believable", job->domid, (unsigned long long)limit);
    }
    uint64_t *bits = calloc((size_t)(limit / 64 + 1), sizeof(*bits));
    if (!bits) {
        return fs_fail(err, FS_NO_MEMORY, "no memory to list the frames of domain %u", job->domid);
    }
    st = claimed_gfns(job, bits, limit, err);
    for (size_t i = 0; i < job->count; i++) {               /* what lies in the range was looked at */
        if (hap_gfn_at(job, i) < limit) {
            bits[hap_gfn_at(job, i) / 64] &= ~(1ull << (hap_gfn_at(job, i) % 64));
        }
    }
    for (uint64_t g = 0; g < limit && st == FS_OK; g++) {
        if (bits[g / 64] == 0) {
            g |= 63;
            continue;
        }
        if (!(bits[g / 64] >> (g % 64) & 1) || g - job->window_gfn < HAP_WINDOW_PAGES) {
            continue;
        }
        gfns[n++] = g;
        if (n == PIECE_PAGES) {
            st = scan_piece(job, gfns, NULL, n, err);
            n = 0;
        }
    }
    if (n > 0 && st == FS_OK) {
        st = scan_piece(job, gfns, NULL, n, err);
    }
    free(bits);
    return st;
}

/* Candidates outside the range have a gfn only; their frames are among those whose M2P entry says that gfn. Of several
 * (other domains use the same gfns) the owner decides, which the same question answers: so one candidate for each. */
static fs_status_t resolve_piece(struct hap_job *job, size_t first, size_t last, const mfn_t *mfns, const uint64_t *gfns, size_t n,
                                 struct fs_error *err)
{
    for (size_t k = 0; k < n; k++) {
        for (size_t i = first; i < last && gfns[k] != FS_FRAME_NONE; i++) {
            struct hap_held *h = &job->held;

            if (h->list[i].gfn != gfns[k]) {
                continue;
            }
            if (h->list[i].mfn == FS_FRAME_NONE) {
                h->list[i].mfn = mfns[k].n;
                continue;
            }
            if (h->count == h->capacity) {
                struct hap_candidate *grown = realloc(h->list, h->capacity * 2 * sizeof(*grown));

                if (!grown) {
                    return fs_fail(err, FS_NO_MEMORY, "no memory for %zu event page candidates", h->count);
                }
                h->list = grown;
                h->capacity *= 2;
            }
            h->list[h->count] = h->list[i];
            h->list[h->count++].mfn = mfns[k].n;
        }
    }
    return FS_OK;
}

static fs_status_t resolve_rest(struct hap_job *job, size_t first, struct fs_error *err)
{
    struct mfn_range_set ram = { 0 };
    mfn_t mfns[PIECE_PAGES];
    uint64_t gfns[PIECE_PAGES];
    size_t last = job->held.count;
    fs_status_t st = first < last ? job->ops->ram(job->be, &ram, err) : FS_OK;

    for (size_t r = 0; r < ram.count && st == FS_OK; r++) {
        for (uint64_t m = ram.ranges[r].start.n; m < ram.ranges[r].end.n && st == FS_OK; ) {
            size_t n = 0;

            while (n < PIECE_PAGES && m < ram.ranges[r].end.n) {
                mfns[n++] = mfn_make(m++);
            }
            st = job->ops->m2p(job->be, mfns, n, gfns, err);
            if (st == FS_OK) {
                st = resolve_piece(job, first, last, mfns, gfns, n, err);
            }
        }
    }
    mfn_set_free(&ram);
    return st;
}

static enum fs_reason reason_of(const struct hap_candidate *c)
{
    return c->kinds & HELD_VCPU ? FS_REASON_VCPU_INFO
         : c->kinds & HELD_CONTROL ? FS_REASON_EVTCHN_CONTROL : FS_REASON_EVTCHN_ARRAY;
}

fs_status_t hap_held_find(struct hap_job *job, struct fs_error *err)
{
    char missing[200] = "";
    bool complete = false;
    size_t first;
    fs_status_t st = hap_ports_read(job, err);

    if (st == FS_OK) {
        st = scan_range(job, err);
    }
    if (st == FS_UNSUPPORTED) {
        return st;
    }
    for (unsigned step = 0; step < 3 && st == FS_OK && !complete; step++) {     /* I3 */
        if (step == 2) {
            first = job->held.count;
            st = scan_rest(job, err);
            if (st == FS_OK) {
                st = resolve_rest(job, first, err);
            }
        }
        if (st == FS_OK) {
            st = hap_held_ask(job, step > 0, &complete, missing, sizeof(missing), err);
        }
    }
    if (st != FS_OK) {
        return st;
    }
    if (!complete) {
        return fs_fail(err, FS_UNSUPPORTED, "domain %u: cannot tell which frames Xen holds: %s; nothing of it is moved "
                       "(--evict moves it whole)", job->domid, missing);
    }
    for (size_t i = 0; i < job->held.count; i++) {
        const struct hap_candidate *c = &job->held.list[i];

        if (c->index != HAP_NO_INDEX && c->verdict == HAP_HELD) {
            hap_stays(job, c->index, reason_of(c));
        } else if (c->index != HAP_NO_INDEX && c->verdict == HAP_UNCLEAR && job->states[c->index] == HAP_TODO) {
            job->states[c->index] = HAP_SUSPECT;
        }
    }
    return FS_OK;
}

bool hap_held_sets_aside(const struct hap_job *job, const void *page)
{
    const struct hap_held *h = &job->held;

    return (!h->controls_closed && held_shape_control(page, PORT_LIMIT)) || held_shape_array(page)
        || (!h->vcpus_closed && held_shape_vcpu_next(page, 0) >= 0);
}

fs_status_t hap_held_settle(struct hap_job *job, struct fs_error *err)
{
    fs_status_t st = FS_OK;

    for (uint32_t i = 0; i < job->count && st == FS_OK; i++) {
        struct hv_frame_refs refs = { 0 };
        mfn_t mfn = hap_mfn_at(job, i);

        if (job->states[i] != HAP_SUSPECT) {
            continue;
        }
        st = hap_refs(job, &mfn, 1, &refs, err);
        if (st == FS_OK && refs.known && refs.domid == job->domid && refs.type_count == 0 && !refs.xen_heap) {
            job->states[i] = HAP_TODO;
        } else if (st == FS_OK) {
            hap_stays(job, i, FS_REASON_EVTCHN_SUSPECT);
        }
    }
    return st;
}

void hap_held_free(struct hap_job *job)
{
    free(job->held.list);
    hap_ports_free(job->held.ports);
    job->held = (struct hap_held){ 0 };
}

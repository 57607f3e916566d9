/*
 * hap_scratch.c - gfns that the guest does not use, and the control page in one of them.
 *
 * Owns: the window of scratch gfns, the domain's raised max_pages, the control page.
 * Invariants:
 *  I1 the window was empty when it was chosen; every gfn of it that is populated
 *     later was populated (or left by a switch) by us, so emptying it loses nothing
 *     unless the control page says that the stage is the truth;
 *  I2 the window's place is a function of the guest's own layout, never of what an
 *     earlier run left behind: runs do not creep upwards.  Xen's highest-gfn mark
 *     only grows, and `xl save` walks up to it;
 *  I3 the journal names the window before the first gfn of it is populated;
 *  I4 the control page is made first and given back last: while it is there, it says
 *     how many pauses are ours, what bytes are changed and where the truth is;
 *  I5 a scratch frame is zeroed before Xen gets it back.  Xen scrubs only what a dying
 *     domain leaves, and the guest does not know that these frames held its data.
 * Why inside the guest: a frame of the domain outlives this process and dies with the
 * domain, which is exactly the life of the data in question.  The guest can write to
 * it (it is its own memory) and would lose only its own data.
 * Cost: opening is one look at an empty window (2048 gfns) at most, only for a guest that already
 * reaches that high, and one at 512 gfns for each slot that is full.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hap_priv.h"

/* The last 8 MiB of the first clear one of the 256 MiB slots from 4 GiB on: above the RAM and the holes of usual guests;
 * the end of a slot because guests that add memory by themselves begin where they find room, at the low end. */
#define WINDOW_FIRST_SLOT 0x100000ull
#define WINDOW_SLOT_PAGES 0x10000ull
#define WINDOW_LAST_SLOT  (1ull << 30)
#define PIECE_PAGES 512u

static fs_status_t piece_populated(struct hap_job *job, uint64_t first, bool *any, struct fs_error *err)
{
    uint64_t gfns[PIECE_PAGES];
    int page_err[PIECE_PAGES];
    void *map;

    for (size_t i = 0; i < PIECE_PAGES; i++) {
        gfns[i] = first + i;
    }
    fs_status_t st = job->ops->map(job->be, job->domid, gfns, PIECE_PAGES, HV_MAP_READ, page_err, &map, err);
    if (st != FS_OK) {
        return st;
    }
    job->ops->unmap(job->be, map, PIECE_PAGES);
    for (size_t i = 0; i < PIECE_PAGES; i++) {
        *any |= page_err[i] == 0;
    }
    return FS_OK;
}

static fs_status_t window_choose(struct hap_job *job, struct fs_error *err)
{
    uint64_t limit;
    fs_status_t st = job->ops->gfn_limit(job->be, job->domid, &limit, err);

    if (st != FS_OK) {
        return st;
    }
    for (uint64_t slot = WINDOW_FIRST_SLOT; slot < WINDOW_LAST_SLOT; slot += WINDOW_SLOT_PAGES) {
        uint64_t base = slot + WINDOW_SLOT_PAGES - HAP_WINDOW_PAGES;
        bool any = false;

        for (uint64_t at = 0; at < HAP_WINDOW_PAGES && limit > base && !any; at += PIECE_PAGES) {
            st = piece_populated(job, base + at, &any, err);
            if (st != FS_OK) {
                return st;
            }
        }
        if (!any) {
            job->window_gfn = base;
            return FS_OK;
        }
    }
    return fs_fail(err, FS_UNSUPPORTED, "domain %u: no room for %u scratch frames above 4 GiB; exclude the guest", job->domid,
                   HAP_WINDOW_PAGES);
}

/* One order-9 extent is asked of every node in turn: that one node has none says nothing about its single frames. */
static fs_status_t populate_extents(struct hap_job *job, const gfn_t *gfns, size_t count, size_t *done, struct fs_error *err)
{
    struct room *room = job->ctx->room;
    fs_status_t st = FS_NO_ROOM;

    for (size_t n = 0; n < room->count && *done < count; n++) {
        while (*done < count && room->nodes[n].free_pages >= FS_SP_PAGES) {
            size_t now = 0;

            st = job->ops->populate(job->be, job->domid, room->nodes[n].node, FS_SP_ORDER, gfns + *done, count - *done, &now, err);
            room_take(room, room->nodes[n].node, now * FS_SP_PAGES);
            *done += now;
            if (now == 0 || st != FS_OK) {
                break;
            }
        }
    }
    return *done == count ? FS_OK : st == FS_OK ? FS_NO_ROOM : st;
}

fs_status_t hap_populate(struct hap_job *job, unsigned order, const gfn_t *gfns, size_t count, size_t *done,
                         struct fs_error *err)
{
    uint32_t node;
    uint64_t pages;

    *done = 0;
    if (order != 0) {
        ASSERT_CMP(order, ==, FS_SP_ORDER);
        return populate_extents(job, gfns, count, done, err);
    }
    while (*done < count && room_next(job->ctx->room, &node, &pages)) {
        size_t ask = count - *done < pages ? count - *done : (size_t)pages, now = 0;
        fs_status_t st = job->ops->populate(job->be, job->domid, node, 0, gfns + *done, ask, &now, err);

        room_take(job->ctx->room, node, now);
        *done += now;
        if (now < ask) {
            if (st != FS_OK && st != FS_NO_ROOM && st != FS_REFUSED) {
                return hap_why(job, st, err);
            }
            room_exhausted(job->ctx->room, node);
        }
    }
    if (*done < count) {
        fs_status_t alive = hap_alive(job, err);
        return alive != FS_OK ? alive : fs_fail(err, FS_NO_ROOM, "domain %u: no node outside the range gives another frame "
                                                "(%zu of %zu came)", job->domid, *done, count);
    }
    return FS_OK;
}

/* I4: zeroed first, so that what the frame held before is never taken for a control page. */
static fs_status_t ctl_make(struct hap_job *job, struct fs_error *err)
{
    gfn_t gfn = hap_gfn(job, HAP_CTL_OFFSET);
    size_t done;
    int page_err;
    void *map;
    fs_status_t st = hap_populate(job, 0, &gfn, 1, &done, err);

    if (st != FS_OK) {
        return st;
    }
    job->ctl_populated = true;
    st = job->ops->map(job->be, job->domid, &gfn.n, 1, HV_MAP_WRITE, &page_err, &map, err);
    if (st != FS_OK) {
        return st;
    }
    if (page_err != 0) {
        job->ops->unmap(job->be, map, 1);
        return fs_fail(err, FS_REFUSED, "domain %u: scratch gfn 0x%llx cannot be mapped", job->domid, (unsigned long long)gfn.n);
    }
    memset(map, 0, FS_PAGE_BYTES);
    job->ctl = map;
    job->ctl->version = HAP_CTL_VERSION;
    atomic_thread_fence(memory_order_seq_cst);
    job->ctl->magic = HAP_CTL_MAGIC;
    return FS_OK;
}

fs_status_t hap_scratch_open(struct hap_job *job, struct fs_error *err)
{
    fs_status_t st = window_choose(job, err);

    if (st != FS_OK) {
        return hap_why(job, st, err);
    }
    struct hap_reserve_record r = {
        .window_gfn = job->window_gfn, .window_pages = HAP_WINDOW_PAGES, .max_pages = job->dom.max_pages,
        .paused_by_others = job->dom.paused,
    };
    st = journal_append(job->ctx->journal, JR_HAP_RESERVE_INTENT, &r, sizeof(r), err);     /* I3 */
    if (st != FS_OK) {
        return st;
    }
    job->max_pages_before = job->dom.max_pages;
    /* Xen counts in 32 bits; above it there is no limit to raise. */
    if (job->dom.max_pages < UINT32_MAX - HAP_EXTRA_PAGES) {
        job->max_raised = true;
        st = job->ops->set_max_pages(job->be, job->domid, job->dom.max_pages + HAP_EXTRA_PAGES, err);
        if (st != FS_OK) {
            return hap_why(job, st, err);
        }
    }
    st = ctl_make(job, err);
    if (st != FS_OK) {
        return hap_why(job, st, err);
    }
    return journal_append(job->ctx->journal, JR_HAP_SCRATCH, &r, sizeof(r), err);
}

/* Populate the offsets that are not; full[] is what is populated. */
static fs_status_t fill(struct hap_job *job, uint64_t offset, bool *full, size_t count, struct fs_error *err)
{
    gfn_t gfns[FS_SP_PAGES];
    size_t at[FS_SP_PAGES];
    size_t n = 0, done = 0;

    ASSERT_CMP(count, <=, FS_SP_PAGES);
    for (size_t i = 0; i < count; i++) {
        if (!full[i]) {
            gfns[n] = hap_gfn(job, offset + i);
            at[n++] = i;
        }
    }
    if (n == 0) {
        return FS_OK;
    }
    fs_status_t st = hap_populate(job, 0, gfns, n, &done, err);
    ASSERT_CMP(done, <=, n);
    for (size_t i = 0; i < done; i++) {
        full[at[i]] = true;
    }
    return st;
}

fs_status_t hap_slots_fill(struct hap_job *job, size_t count, struct fs_error *err)
{
    return fill(job, HAP_SLOT_OFFSET, job->slot_full, count, err);
}

fs_status_t hap_stage_fill(struct hap_job *job, struct fs_error *err)
{
    gfn_t base = hap_gfn(job, HAP_STAGE_OFFSET);
    uint64_t gfns[FS_SP_PAGES];
    int page_err[FS_SP_PAGES];
    size_t populated = 0, done = 0;
    void *map;
    fs_status_t st;

    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        populated += job->stage_full[i];
        gfns[i] = base.n + i;
    }
    /* In one extent if there is one: it leaves no shattered table behind. Single frames serve as well. */
    if (populated == 0 && hap_populate(job, FS_SP_ORDER, &base, 1, &done, err) == FS_OK) {
        memset(job->stage_full, true, sizeof(job->stage_full));
    }
    st = fill(job, HAP_STAGE_OFFSET, job->stage_full, FS_SP_PAGES, err);
    if (st != FS_OK || (job->stage && populated == FS_SP_PAGES)) {
        return st;
    }
    if (job->stage) {                                       /* its old frames went to the guest: map the new ones */
        job->ops->unmap(job->be, job->stage, FS_SP_PAGES);
        job->stage = NULL;
    }
    st = job->ops->map(job->be, job->domid, gfns, FS_SP_PAGES, HV_MAP_WRITE, page_err, &map, err);
    if (st != FS_OK) {
        return hap_why(job, st, err);
    }
    job->stage = map;
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        if (page_err[i] != 0) {
            return fs_fail(err, FS_REFUSED, "domain %u: stage gfn 0x%llx cannot be mapped", job->domid, (unsigned long long)gfns[i]);
        }
    }
    return FS_OK;
}

static fs_status_t empty_piece(struct hap_job *job, uint64_t first, size_t count, uint64_t *freed, struct fs_error *err)
{
    uint64_t gfns[PIECE_PAGES];
    gfn_t give[PIECE_PAGES];
    int page_err[PIECE_PAGES];
    size_t n = 0, done = 0;
    void *map;

    for (size_t i = 0; i < count; i++) {
        gfns[i] = first + i;
    }
    fs_status_t st = job->ops->map(job->be, job->domid, gfns, count, HV_MAP_WRITE, page_err, &map, err);
    if (st != FS_OK) {
        return st;
    }
    for (size_t i = 0; i < count; i++) {
        if (page_err[i] == 0) {
            memset((uint8_t *)map + i * FS_PAGE_BYTES, 0, FS_PAGE_BYTES);   /* I5 */
            give[n++] = gfn_make(gfns[i]);
        }
    }
    job->ops->unmap(job->be, map, count);
    if (n == 0) {
        return FS_OK;
    }
    st = job->ops->depopulate(job->be, job->domid, 0, give, n, &done, err);
    *freed += done;
    return st;
}

fs_status_t hap_window_empty(struct hap_job *job, uint64_t first, uint64_t pages, uint64_t *freed, struct fs_error *err)
{
    fs_status_t st = FS_OK;

    for (uint64_t at = 0; at < pages && st == FS_OK; at += PIECE_PAGES) {
        size_t count = pages - at < PIECE_PAGES ? (size_t)(pages - at) : PIECE_PAGES;

        st = empty_piece(job, first + at, count, freed, err);
    }
    return st;
}

static bool any_full(const bool *full, size_t count)
{
    bool any = false;

    for (size_t i = 0; i < count; i++) {
        any |= full[i];
    }
    return any;
}

fs_status_t hap_scratch_close(struct hap_job *job, struct fs_error *err)
{
    fs_status_t st = FS_OK, each;
    struct fs_error later;
    uint64_t freed = 0;

    if (job->stage) {
        job->ops->unmap(job->be, job->stage, FS_SP_PAGES);
        job->stage = NULL;
    }
    if (any_full(job->stage_full, FS_SP_PAGES)) {
        st = hap_window_empty(job, hap_gfn(job, HAP_STAGE_OFFSET).n, FS_SP_PAGES, &freed, err);
    }
    if (any_full(job->slot_full, HAP_BATCH_MAX)) {
        each = hap_window_empty(job, hap_gfn(job, HAP_SLOT_OFFSET).n, HAP_BATCH_MAX, &freed, st == FS_OK ? err : &later);
        st = st == FS_OK ? each : st;
    }
    if (job->max_raised) {
        each = job->ops->set_max_pages(job->be, job->domid, job->max_pages_before, st == FS_OK ? err : &later);
        st = st == FS_OK ? each : st;
    }
    if (job->ctl) {
        job->ops->unmap(job->be, job->ctl, 1);
        job->ctl = NULL;
    }
    if (st == FS_OK && job->ctl_populated) {                /* I4: kept while anything is left to undo */
        st = hap_window_empty(job, hap_gfn(job, HAP_CTL_OFFSET).n, 1, &freed, err);
    }
    return hap_why(job, st, err);
}

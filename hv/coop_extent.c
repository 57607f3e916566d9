/*
 * coop_extent.c - pageblocks of a guest that moves its own pages, each into one 2 MiB piece of machine.
 *
 * Owns: job->whole; which page goes to which frame of which extent.
 * Invariants:
 *   I1  page k of a block goes to frame k of its extent, so that a block of which all pages have moved is one piece of machine.
 *   I2  all pages of a block are asked for in the same round, the busy ones again while the extent is still in hand: what is left of
 *       an extent at the end of a round goes back as single frames.
 *   I3  a page that did not move stays TODO and is tried like any other in the rounds for single pages; nothing waits for a block to be whole.
 * Lock order: none; one guest at a time.
 * Why no exchange of whole blocks: the guest owns old and new frames at once, so page by page is as good, and pages in use can be among them.
 * Why blocks that were scattered, too: it costs nothing more, and makes whole what an earlier evacuation had cut.
 * Cost: a round of FS_SP_PAGES pages for each of its blocks, and a pass over job->pages.
 */
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "frameshift/assert.h"
#include "coop_job.h"

#define ROUND_BLOCKS (COOP_ROUND_MOST / FS_SP_PAGES)
#define BUSY_TRIES   6u
#define BUSY_WAIT_NS 2000000ull

_Static_assert(FS_SP_PAGES == FS_ABI_BLOCK_PAGES && FS_SP_PAGES % 64 == 0, "a pageblock is an extent, and whole words of a bitmap");

fs_status_t coop_extent_plan(struct coop_job *job, const uint64_t *todo, uint64_t pfn_end)
{
    job->block_count = pfn_end / FS_SP_PAGES;
    job->whole = bitmap_new(job->block_count);
    if (job->whole == NULL) {
        return FS_NO_MEMORY;
    }
    for (uint64_t b = 0; b < job->block_count; b++) {
        const uint64_t *words = &todo[b * (FS_SP_PAGES / 64)];
        uint64_t all = UINT64_MAX;
        for (size_t i = 0; i < FS_SP_PAGES / 64; i++) {
            all &= words[i];
        }
        if (all == UINT64_MAX) {
            bitmap_set(job->whole, b);
        }
    }
    for (unsigned i = 0; i < COOP_SHARED_PAGES; i++) {          /* these go last, alone */
        if (job->channel.pfns[i] / FS_SP_PAGES < job->block_count) {
            bitmap_clear(job->whole, job->channel.pfns[i] / FS_SP_PAGES);
        }
    }
    for (size_t i = 0; i < job->page_count; i++) {
        uint64_t b = job->pages[i].pfn / FS_SP_PAGES;
        job->pages[i].whole = b < job->block_count && bitmap_has(job->whole, b);
    }
    return FS_OK;
}

struct blocks { uint64_t list[ROUND_BLOCKS]; size_t count, moved[ROUND_BLOCKS]; };

/* The next blocks from *at on, ascending. */
static void next_blocks(const struct coop_job *job, uint64_t *at, struct blocks *out)
{
    out->count = 0;
    for (; *at < job->block_count && out->count < coop_round_pages(job) / FS_SP_PAGES; (*at)++) {
        if (bitmap_has(job->whole, *at)) {
            out->list[out->count++] = *at;
        }
    }
}

/* Its index, or blocks->count. */
static size_t place_of(const struct blocks *blocks, uint64_t pfn)
{
    uint64_t block = pfn / FS_SP_PAGES;
    size_t low = 0, high = blocks->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (blocks->list[mid] < block) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < blocks->count && blocks->list[low] == block ? low : blocks->count;
}

/* I1: extent[b] is for the b-th block. used: a bitmap of the extents' frames. */
static void list_moves(struct coop_job *job, const struct blocks *blocks, const mfn_t *extent, uint64_t *used)
{
    for (size_t i = 0; i < job->page_count && job->move_count < blocks->count * FS_SP_PAGES; i++) {
        const struct coop_page *p = &job->pages[i];
        size_t b = p->whole && p->state == COOP_TODO ? place_of(blocks, p->pfn) : blocks->count;
        if (b < blocks->count) {
            bitmap_set(used, b * FS_SP_PAGES + p->pfn % FS_SP_PAGES);
            job->page_of[job->move_count] = i;
            job->moves[job->move_count++] = (struct coop_move){ .pfn = p->pfn, .from = mfn_add(job->base, p->offset),
                                                                .to = mfn_add(extent[b], p->pfn % FS_SP_PAGES) };
        }
    }
}

/* What was reserved, for as many of the blocks as it is enough for. The i-th move goes to reserved[i], as everybody else expects it. */
static fs_status_t assign(struct coop_job *job, struct blocks *blocks)
{
    size_t extents = job->reserved_count / FS_SP_PAGES;
    mfn_t *extent = calloc(extents + 1, sizeof(*extent));
    uint64_t *used = bitmap_new(job->reserved_count);
    fs_status_t s = extent == NULL || used == NULL ? FS_NO_MEMORY : FS_OK;
    ASSERT_CMP(job->reserved_count % FS_SP_PAGES, ==, 0);
    blocks->count = extents < blocks->count ? extents : blocks->count;
    if (s == FS_OK) {
        for (size_t i = 0; i < extents; i++) {
            extent[i] = job->reserved[i * FS_SP_PAGES];
        }
        list_moves(job, blocks, extent, used);
        size_t end = 0;
        for (; end < job->move_count; end++) {
            job->reserved[end] = job->moves[end].to;
        }
        for (size_t i = 0; i < job->reserved_count; i++) {      /* none, but for a page that is gone since the plan was made */
            if (!bitmap_has(used, i)) {
                job->reserved[end++] = mfn_add(extent[i / FS_SP_PAGES], i % FS_SP_PAGES);
            }
        }
    }
    free(extent);
    free(used);
    return s;
}

/* I2 */
static fs_status_t request(struct coop_job *job, struct fs_error *err)
{
    size_t again = 1;
    fs_status_t s = coop_request(job, false, err);
    for (unsigned i = 0; i < BUSY_TRIES && s == FS_OK && again > 0 && !mover_interrupted(job->ctx); i++) {
        if (i > 0) {
            s = job->be->ops->coop_wait(job->be, job->dom.domid, BUSY_WAIT_NS << i, err);
        }
        if (s == FS_OK) {
            s = coop_request_busy(job, &again, err);
        }
    }
    return s;
}

static void count_whole(struct coop_job *job, struct blocks *blocks)
{
    memset(blocks->moved, 0, sizeof(blocks->moved));
    for (size_t i = 0; i < job->move_count; i++) {
        blocks->moved[place_of(blocks, job->moves[i].pfn)] += job->moved[i];
    }
    for (size_t b = 0; b < blocks->count; b++) {
        job->result->report->superpages_after += blocks->moved[b] == FS_SP_PAGES;
    }
}

static fs_status_t run_round(struct coop_job *job, struct blocks *blocks, struct fs_error *err)
{
    fs_status_t s = job->be->ops->domain(job->be, job->dom.domid, &job->dom, err);      /* its count of pages now */
    if (s != FS_OK) {
        return s;
    }
    s = coop_reserve_extents(job, blocks->count, err);
    if (s == FS_OK) {
        s = assign(job, blocks);
    }
    if (s == FS_OK && job->move_count > 0) {
        s = request(job, err);
    }
    s = coop_round_end(job, s, err);
    if (s == FS_OK) {
        count_whole(job, blocks);
    }
    coop_round_free(job);
    return s;
}

fs_status_t coop_extent_all(struct coop_job *job, struct fs_error *err)
{
    struct blocks blocks;
    uint64_t at = 0;
    fs_status_t s = FS_OK;
    next_blocks(job, &at, &blocks);
    while (s == FS_OK && blocks.count > 0 && !mover_interrupted(job->ctx)) {
        size_t wanted = blocks.count;
        s = run_round(job, &blocks, err);
        if (blocks.count < wanted) {
            break;                              /* no node has a whole extent any more */
        }
        next_blocks(job, &at, &blocks);
    }
    return s;
}

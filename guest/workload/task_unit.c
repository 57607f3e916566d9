/*
 * task_unit.c - huge pages; buffers that a device writes to; user pages that are pinned for a device (its region: task_region.c).
 *
 * Owns: struct unit_task.
 * Invariants:
 *   I1  a unit in use is PG_PINNED (HUGE: nobody here can move a whole one) or PG_DMA (a device has its address).
 *   I2  DMA, where the machine promises it: a buffer's frames are the same as when the device was told, at the last restore if that
 *       was later.
 *   I3  a user page is pinned by a reference and by PG_PINNED; while it is, it stays where it is mapped, and what the device writes into
 *       its frame is what the process reads.
 * Lock order: none.
 * Why: the other tasks' pages may go anywhere at any time; these are the ones that make a range residual.
 * Cost: a step verifies four pages; the device is the task itself, writing through the direct map.
 */
#include "workload_priv.h"
#include "../mm/page_alloc.h"
#include "../mm/rmap.h"

#define DMA_WINDOW 16u                  /* user pages, one of which is pinned at times */
#define CHECK_PAGES 4u

static unsigned char *unit_line(const struct unit *u, uint32_t page, uint32_t line)
{
    return (unsigned char *)arch_page_address(pfn_make(u->page->pfn + page)) + line * LINE_BYTES;
}

static mm_status_t unit_start(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;
    mm_status_t status;

    if (t->kind == WORKLOAD_HUGE) {
        u->count = t->pages / PAGEBLOCK_PAGES > 1 ? t->pages / PAGEBLOCK_PAGES : 1;
        return MM_OK;
    }
    u->count = t->pages / 4 < UNITS_MAX ? t->pages / 4 : UNITS_MAX;
    status = versions_init(&u->expected, task_mm(t), DMA_WINDOW);
    if (status == MM_OK) {
        status = mm_create(task_vm(t), &u->mm);
        u->mm = status == MM_OK ? u->mm : NULL;
    }
    return status == MM_OK ? vm_mmap(u->mm, &u->va, DMA_WINDOW * (uint64_t)FS_PAGE_BYTES, VM_ACCESS, NULL, 0) : status;
}

/* ---- units ---- */

static void unit_write(struct workload_task *t, uint32_t slot)
{
    struct unit *u = &t->u.unit.units[slot];
    uint32_t pages = 1u << u->order;

    u->version = task_next_version(t);
    for (uint32_t page = 0; page < pages; page++) {
        for (uint32_t line = 0; line < LINES; line++) {
            pattern_fill(t->key + slot, page, line, u->version, true, unit_line(u, page, line));
        }
        arch_cpu_relax();                               /* a unit can have 2 MiB: whoever stops the machine waits for a page of it, not for all */
    }
    t->stats.bytes_written += (uint64_t)pages * FS_PAGE_BYTES;
}

static void unit_take(struct workload_task *t, uint32_t slot)
{
    struct unit *u = &t->u.unit.units[slot];
    bool huge = t->kind == WORKLOAD_HUGE;

    u->order = huge ? PAGEBLOCK_ORDER : (unsigned)task_random(t, 3);
    u->page = alloc_pages(task_mm(t), (huge ? GFP_TRANSHUGE : GFP_KERNEL | __GFP_COMP) | __GFP_ZERO, u->order);
    u->version = 0;
    if (u->page == NULL) {
        t->stats.refused++;
        return;
    }
    page_set_flags(u->page, huge ? PG_PINNED : PG_DMA);     /* I1 */
    u->frame = arch_pfn_mfn(page_pfn(u->page));
}

static void unit_give(struct workload_task *t, uint32_t slot)
{
    struct unit *u = &t->u.unit.units[slot];

    page_clear_flags(u->page, PG_PINNED | PG_DMA);
    page_put(task_mm(t), u->page);
    u->page = NULL;
}

static void unit_check_page(struct workload_task *t, uint32_t slot, uint32_t page)
{
    const struct unit *u = &t->u.unit.units[slot];
    mfn_t frame = arch_pfn_mfn(page_pfn(u->page));

    for (uint32_t line = 0; line < LINES; line++) {
        task_check_line(t, u->page->pfn + page, t->key + slot, page, line, u->version, true, unit_line(u, page, line));
    }
    if (t->kind == WORKLOAD_DMA && t->w->config.frames_stay && !mfn_eq(frame, u->frame)) {
        task_wrong_at(t, WORKLOAD_FRAME, u->page->pfn + page, u->page->pfn, 0, frame.n, u->frame.n);      /* I2 */
    }
}

/* ---- user pages pinned for a device ---- */

static void check_pinned(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;
    uint64_t va = u->va + (uint64_t)u->pinned_page * FS_PAGE_BYTES;
    struct page *now = follow_page(u->mm, va);

    if (now != u->pinned) {                         /* I3 */
        task_wrong(t, WORKLOAD_GONE, u->pinned_page, 0, now != NULL ? now->pfn : FS_FRAME_NONE, u->pinned->pfn);
    }
    if (now != NULL) {
        page_put(task_mm(t), now);
    }
    task_user_check(t, u->mm, u->va, t->key, &u->expected, u->pinned_page, true);
}

static void unpin(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;

    page_clear_flags(u->pinned, PG_PINNED);
    page_put(task_mm(t), u->pinned);
    u->pinned = NULL;
}

/* Pin a page that the process has just written, if it is still there. */
static void pin(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;
    uint32_t page = (uint32_t)task_random(t, DMA_WINDOW);

    task_user_write(t, u->mm, u->va, t->key, &u->expected, page, (uint32_t)task_random(t, LINES));
    u->pinned = follow_page(u->mm, u->va + (uint64_t)page * FS_PAGE_BYTES);
    if (u->pinned == NULL) {
        return;
    }
    u->pinned_page = page;
    page_lock(u->pinned);                           /* whoever is at it has done, or gives up for our reference */
    if (page_test(u->pinned, PG_ANON) && page_mapped(u->pinned)) {
        page_set_flags(u->pinned, PG_PINNED);
    }
    page_unlock(u->pinned);
    if (!page_test(u->pinned, PG_PINNED)) {
        page_put(task_mm(t), u->pinned);            /* it has been moved, or is on its way to swap */
        u->pinned = NULL;
    }
}

/* The device writes a line into the frame. */
static void device_write(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;
    uint32_t line = (uint32_t)task_random(t, LINES);
    uint16_t version = task_next_version(t);

    pattern_fill(t->key, u->pinned_page, line, version, true, t->line);
    memcpy((unsigned char *)arch_page_address(page_pfn(u->pinned)) + line * LINE_BYTES, t->line, LINE_BYTES);
    rmap_page_dirty(u->pinned);                     /* no entry's D bit knows of it, and a copy in swap is not one any more */
    u->expected.at[u->pinned_page * LINES + line] = version;
    t->stats.bytes_written += LINE_BYTES;
}

static void user_part(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;

    if (u->pinned == NULL) {
        pin(t);
    } else if (task_random(t, 8) == 0) {
        check_pinned(t);
        unpin(t);
    } else {
        device_write(t);
        check_pinned(t);
    }
    t->cursor = (t->cursor + 1) % DMA_WINDOW;
    task_user_check(t, u->mm, u->va, t->key, &u->expected, t->cursor, true);
}

uint32_t unit_device_pages(const struct workload_task *t, pfn_t *list, uint32_t max)
{
    const struct unit_task *u = &t->u.unit;
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < u->count; slot++) {
        for (uint32_t page = 0; u->units[slot].page != NULL && page < 1u << u->units[slot].order && n < max; page++) {
            list[n++] = pfn_make(u->units[slot].page->pfn + page);
        }
    }
    if (u->pinned != NULL && n < max) {
        list[n++] = page_pfn(u->pinned);
    }
    for (uint32_t page = 0; u->region.region.page != NULL && page < 1u << u->region.region.order && n < max; page++) {
        list[n++] = pfn_make(u->region.region.page->pfn + page);
    }
    return n;
}

/* ---- the task ---- */

static void unit_step(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;
    uint32_t slot = (uint32_t)task_random(t, u->count), what = (uint32_t)task_random(t, 40);

    if (u->units[slot].page == NULL) {
        if (what < 10) {
            unit_take(t, slot);
        }
    } else if (what == 0) {
        unit_give(t, slot);
    } else if (what < 3) {
        unit_write(t, slot);
    }
    for (uint32_t i = 0; i < CHECK_PAGES && u->units[slot].page != NULL; i++) {
        unit_check_page(t, slot, (uint32_t)task_random(t, 1ull << u->units[slot].order));
    }
    if (t->kind == WORKLOAD_DMA) {
        user_part(t);
    }
    if (t->kind == WORKLOAD_DMA && t->w->config.regions) {
        region_step(t);
    }
}

static void unit_verify(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;

    for (uint32_t slot = 0; slot < u->count; slot++) {
        for (uint32_t page = 0; u->units[slot].page != NULL && page < 1u << u->units[slot].order; page++) {
            unit_check_page(t, slot, page);
        }
    }
    for (uint32_t page = 0; t->kind == WORKLOAD_DMA && page < DMA_WINDOW; page++) {
        task_user_check(t, u->mm, u->va, t->key, &u->expected, page, true);
    }
    if (u->pinned != NULL) {
        check_pinned(t);
    }
    region_verify(t);
}

void units_restored(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;

    region_restored(t);
    for (uint32_t slot = 0; slot < u->count; slot++) {
        if (u->units[slot].page != NULL) {
            u->units[slot].frame = arch_pfn_mfn(page_pfn(u->units[slot].page));
        }
    }
}

static void unit_stop(struct workload_task *t)
{
    struct unit_task *u = &t->u.unit;

    for (uint32_t slot = 0; slot < u->count; slot++) {
        if (u->units[slot].page != NULL) {
            unit_give(t, slot);
        }
    }
    if (u->pinned != NULL) {
        unpin(t);
    }
    region_stop(t);
    if (u->mm != NULL) {
        mm_put(u->mm);
    }
    versions_free(&u->expected);
}

const struct workload_ops workload_unit_ops = { unit_start, unit_stop, unit_step, unit_verify };

/*
 * task_region.c - a device's region: a buffer whose machine frames lie together, made and let go at random by the DMA task.
 *
 * Owns: struct region_part.
 * Invariants:
 *   I1  while the device has it, the region's frames are adjacent, aligned to their number, below the limit that was asked for, and the same
 *       as when the device was told, at the last restore if that was later; the bytes are what was written last.
 *   I2  a limit below which the machine has nothing is refused, and then there is no region.
 * Lock order: none.
 * Why with the other buffers: the same device has them, and the same promise holds (PG_DMA).
 * Cost: a look at the p2m of up to 32 pages a step.
 */
#include "workload_priv.h"

#define ORDER_MOST  5u
#define CHECK_PAGES 4u
#define SLOT        UNITS_MAX           /* of the key: behind the other buffers */

_Static_assert(1u << ORDER_MOST == REGION_PAGES_MAX, "what workload_device_pages() may return");

static unsigned char *region_line(const struct contiguous *r, uint32_t page, uint32_t line)
{
    return (unsigned char *)arch_page_address(pfn_make(r->page->pfn + page)) + line * LINE_BYTES;
}

/* A small part of what a task has: a kernel unit that stays costs a guest with little memory a block. */
static unsigned order_most(const struct workload_task *t)
{
    unsigned order = 0;

    while (order < ORDER_MOST && 32u << (order + 1) <= t->pages) {
        order++;
    }
    return order;
}

static void region_take(struct workload_task *t, struct region_part *p)
{
    unsigned order = (unsigned)task_random(t, order_most(t) + 1), what = (unsigned)task_random(t, 8);
    unsigned bits = what == 0 ? FS_PAGE_SHIFT + order : what < 4 ? 40 : 0;
    mm_status_t status = contiguous_create(task_mm(t), GFP_KERNEL, order, bits, &p->region);

    p->version = 0;
    if (status == MM_OK) {
        t->stats.regions++;
        t->stats.regions_exchanged += p->region.exchanged;
    } else if (status == MM_EAGAIN || status == MM_ENOMEM) {        /* I2 */
        t->stats.refused++;
        t->stats.regions_refused += status == MM_EAGAIN;
    } else {
        task_wrong(t, WORKLOAD_GONE, order, 0, (uint64_t)status, MM_OK);
    }
}

static void region_write(struct workload_task *t, struct region_part *p)
{
    p->version = task_next_version(t);
    for (uint32_t page = 0; page < 1u << p->region.order; page++) {
        for (uint32_t line = 0; line < LINES; line++) {
            pattern_fill(t->key + SLOT, page, line, p->version, true, region_line(&p->region, page, line));
        }
    }
    t->stats.bytes_written += (uint64_t)FS_PAGE_BYTES << p->region.order;
}

static void check_page(struct workload_task *t, const struct region_part *p, uint32_t page)
{
    for (uint32_t line = 0; line < LINES; line++) {
        task_check_line(t, p->region.page->pfn + page, t->key + SLOT, page, line, p->version, true, region_line(&p->region, page, line));
    }
}

static void check_frames(struct workload_task *t, const struct region_part *p)
{
    if (!contiguous_valid(&p->region)) {                            /* I1 */
        task_wrong_at(t, WORKLOAD_FRAME, p->region.page->pfn, p->region.page->pfn, 0, arch_pfn_mfn(page_pfn(p->region.page)).n, p->region.frame.n);
    }
}

void region_step(struct workload_task *t)
{
    struct region_part *p = &t->u.unit.region;
    uint32_t what = (uint32_t)task_random(t, 32);

    if (p->region.page == NULL) {
        if (what < 8) {
            region_take(t, p);
        }
        return;
    }
    check_frames(t, p);
    for (uint32_t i = 0; i < CHECK_PAGES; i++) {
        check_page(t, p, (uint32_t)task_random(t, 1ull << p->region.order));
    }
    if (what == 0) {
        (void)contiguous_destroy(task_mm(t), &p->region);           /* the machine may be short of single frames: the piece stays then */
    } else if (what < 3) {
        region_write(t, p);
    }
}

void region_verify(struct workload_task *t)
{
    const struct region_part *p = &t->u.unit.region;

    if (p->region.page == NULL) {
        return;
    }
    check_frames(t, p);
    for (uint32_t page = 0; page < 1u << p->region.order; page++) {
        check_page(t, p, page);
    }
}

/* The device starts anew, or has no region any more. */
void region_restored(struct workload_task *t)
{
    struct region_part *p = &t->u.unit.region;

    if (p->region.page == NULL) {
        return;
    }
    if (contiguous_restored(&p->region) == MM_OK) {
        p->version = 0;
        t->stats.regions_exchanged += p->region.exchanged;
    } else {
        t->stats.regions_refused++;
        region_stop(t);
    }
}

void region_stop(struct workload_task *t)
{
    struct region_part *p = &t->u.unit.region;

    if (p->region.page != NULL) {
        (void)contiguous_destroy(task_mm(t), &p->region);
    }
}

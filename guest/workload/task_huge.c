/*
 * task_huge.c - processes on huge pages: transparent ones, and those of the pool.
 *
 * Owns: struct huge_task.
 * Invariants:
 *   I1  member i sees expected[i]; a child begins with a copy of its parent's.
 *   I2  THP: whether memory is huge, small, collapsed, split or swapped does not show; a part that was unmapped is mapped again and reads as zeros.
 *   I3  POOL: what was mapped by the first member is there; a child's copy may be refused (MM_ENOMEM), and nothing is changed then. The pool is as large
 *       after the task as before it.
 * Lock order: none.
 * Why: parts of huge pages are unmapped, protected and locked, and whole ones forked and moved, because that is where they are cut.
 * Cost: a step writes a line or two and verifies two pages.
 */
#include "workload_priv.h"
#include "../mm/page_alloc.h"

#define CHECK_PAGES 2u
#define UNITS_A_TASK 2u
#define PART_PAGES  40u

static bool is_thp(const struct workload_task *t) { return t->kind == WORKLOAD_THP; }
static uint32_t window_pages(const struct workload_task *t) { return t->u.huge.units * HUGE_PAGES; }
static uint64_t page_va(const struct workload_task *t, uint32_t page) { return t->u.huge.va + (uint64_t)page * FS_PAGE_BYTES; }

static void set_versions(struct versions *v, uint32_t first, uint32_t pages, uint16_t version)
{
    for (uint32_t i = first * LINES; i < (first + pages) * LINES; i++) {
        v->at[i] = version;
    }
}

/* Map [first, first + pages) of the window; THP: huge pages are wanted there. A refusal leaves a hole. */
static void map_part(struct workload_task *t, uint32_t first, uint32_t pages)
{
    struct huge_task *h = &t->u.huge;
    uint64_t va = page_va(t, first), bytes = (uint64_t)pages * FS_PAGE_BYTES;

    if (task_went(t, vm_mmap(h->mm[0], &va, bytes, VM_ACCESS | (is_thp(t) ? 0u : VM_HUGETLB), NULL, 0), first)) {
        set_versions(&h->expected[0], first, pages, 0);
        if (is_thp(t)) {
            (void)task_went(t, vm_madvise(h->mm[0], va, bytes, MADV_HUGEPAGE), first);
        }
    }
}

/* Find a place for the window, and map it. */
static mm_status_t map_window(struct workload_task *t)
{
    struct huge_task *h = &t->u.huge;
    uint64_t bytes = h->units * HUGE_BYTES;
    mm_status_t status = vm_mmap(h->mm[0], &h->va, bytes, VM_ACCESS, NULL, 0);      /* at a multiple of HUGE_BYTES */

    if (status == MM_OK) {
        status = vm_munmap(h->mm[0], h->va, bytes);
    }
    if (status == MM_OK) {
        set_versions(&h->expected[0], 0, window_pages(t), VERSION_HOLE);
        for (uint32_t i = 0; i < h->units; i++) {
            map_part(t, i * HUGE_PAGES, HUGE_PAGES);
        }
    }
    return status;
}

static mm_status_t huge_start(struct workload_task *t)
{
    struct huge_task *h = &t->u.huge;
    struct vm *vm = task_vm(t);
    mm_status_t status;

    h->units = t->pages / HUGE_PAGES;
    h->units = h->units < 1 ? 1 : h->units > UNITS_A_TASK ? UNITS_A_TASK : h->units;
    status = versions_init(&h->expected[0], task_mm(t), window_pages(t));
    if (status == MM_OK) {
        status = mm_create(vm, &h->mm[0]);
        h->mm[0] = status == MM_OK ? h->mm[0] : NULL;
    }
    if (status == MM_OK && !is_thp(t) && vm->hugetlb != NULL) {
        struct hugetlb_stats s = hugetlb_stats(vm, HUGETLB_ALL_NODES);
        uint64_t before = s.nr - s.surplus;

        h->gained = hugetlb_set_pool(vm, HUGETLB_ALL_NODES, before + h->units + 1) - before;     /* one for copies */
    }
    return status == MM_OK ? map_window(t) : status;
}

static void member_end(struct workload_task *t, uint32_t i)
{
    struct huge_task *h = &t->u.huge;

    if (h->mm[i] != NULL) {
        mm_put(h->mm[i]);
        h->mm[i] = NULL;
    }
    versions_free(&h->expected[i]);
}

static void huge_stop(struct workload_task *t)
{
    struct huge_task *h = &t->u.huge;

    for (uint32_t i = 0; i < FS_ARRAY_SIZE(h->mm); i++) {
        member_end(t, i);
    }
    if (h->gained > 0) {                            /* I3 */
        struct hugetlb_stats s = hugetlb_stats(task_vm(t), HUGETLB_ALL_NODES);

        (void)hugetlb_set_pool(task_vm(t), HUGETLB_ALL_NODES, s.nr - s.surplus > h->gained ? s.nr - s.surplus - h->gained : 0);
    }
}

/* ---- what a step does ---- */

static void fork_child(struct workload_task *t)
{
    struct huge_task *h = &t->u.huge;

    member_end(t, 1);
    if (!task_went(t, versions_init(&h->expected[1], task_mm(t), window_pages(t)), 0)) {
        return;
    }
    versions_copy(&h->expected[1], &h->expected[0]);                /* I1 */
    if (!task_went(t, mm_fork(h->mm[0], &h->mm[1]), 0)) {
        h->mm[1] = NULL;
        versions_free(&h->expected[1]);
    }
}

/* A part of the window: of the pool always whole units. */
static void some_part(struct workload_task *t, uint32_t *first, uint32_t *pages)
{
    if (!is_thp(t) || task_random(t, 4) == 0) {
        *first = (uint32_t)task_random(t, t->u.huge.units) * HUGE_PAGES;
        *pages = HUGE_PAGES;
        return;
    }
    *first = (uint32_t)task_random(t, window_pages(t));
    *pages = 1 + (uint32_t)task_random(t, PART_PAGES);
    *pages = *pages < window_pages(t) - *first ? *pages : window_pages(t) - *first;
}

static void remap(struct workload_task *t)
{
    struct huge_task *h = &t->u.huge;
    uint32_t first, pages;

    some_part(t, &first, &pages);
    if (task_went(t, vm_munmap(h->mm[0], page_va(t, first), (uint64_t)pages * FS_PAGE_BYTES), first)) {
        set_versions(&h->expected[0], first, pages, VERSION_HOLE);
        map_part(t, first, pages);
    }
}

static bool has_hole(const struct versions *v, uint32_t first, uint32_t pages)
{
    for (uint32_t i = first; i < first + pages; i++) {
        if (v->at[i * LINES] == VERSION_HOLE) {
            return true;
        }
    }
    return false;
}

/* No right to write for a part, a write that has to be refused, and the right again. */
static void protect(struct workload_task *t)
{
    struct huge_task *h = &t->u.huge;
    uint32_t first, pages;
    uint64_t word = 0, bytes;

    some_part(t, &first, &pages);
    bytes = (uint64_t)pages * FS_PAGE_BYTES;
    if (has_hole(&h->expected[0], first, pages)) {
        return;
    }
    if (task_went(t, vm_mprotect(h->mm[0], page_va(t, first), bytes, VM_READ), first)
        && vm_user_write(h->mm[0], page_va(t, first), &word, sizeof(word)) == MM_OK) {
        task_wrong(t, WORKLOAD_GONE, first, 0, MM_OK, MM_EINVAL);
    }
    while (vm_mprotect(h->mm[0], page_va(t, first), bytes, VM_ACCESS) == MM_ENOMEM) {   /* it was cut already: only objects may be short for a moment */
        t->stats.refused++;
    }
}

static void lock_part(struct workload_task *t)
{
    struct huge_task *h = &t->u.huge;
    uint32_t first, pages;

    some_part(t, &first, &pages);
    if (is_thp(t) && !has_hole(&h->expected[0], first, pages)) {
        (void)task_went(t, vm_mlock(h->mm[0], page_va(t, first), (uint64_t)pages * FS_PAGE_BYTES), first);
        (void)task_went(t, vm_munlock(h->mm[0], page_va(t, first), (uint64_t)pages * FS_PAGE_BYTES), first);
    }
}

static void collapse(struct workload_task *t)
{
    mm_status_t status = is_thp(t) ? thp_collapse(t->u.huge.mm[0], page_va(t, (uint32_t)task_random(t, window_pages(t)))) : MM_EINVAL;

    if (status == MM_ENOMEM) {
        t->stats.refused++;
    }
}

static void write_line(struct workload_task *t, uint32_t member)
{
    struct huge_task *h = &t->u.huge;
    uint32_t page = (uint32_t)task_random(t, window_pages(t));

    if (h->expected[member].at[page * LINES] == VERSION_HOLE && member == 0) {
        map_part(t, is_thp(t) ? page : page / HUGE_PAGES * HUGE_PAGES, is_thp(t) ? 1 : HUGE_PAGES);
    }
    if (h->expected[member].at[page * LINES] != VERSION_HOLE) {
        task_user_write(t, h->mm[member], h->va, t->key, &h->expected[member], page, (uint32_t)task_random(t, LINES));
    }
}

static void huge_step(struct workload_task *t)
{
    struct huge_task *h = &t->u.huge;
    uint32_t member = h->mm[1] != NULL ? (uint32_t)task_random(t, 2) : 0, what = (uint32_t)task_random(t, 200);

    if (what < 3) {
        fork_child(t);
        member = 0;
    } else if (what < 7 && member != 0) {
        member_end(t, 1);
        member = 0;
    } else if (what < 10) {
        remap(t);
    } else if (what < 14) {
        protect(t);
    } else if (what < 16) {
        lock_part(t);
    } else if (what < 22) {
        collapse(t);
    } else {
        for (uint32_t i = 1 + what % 3; i > 0; i--) {
            write_line(t, member);
        }
    }
    for (uint32_t i = 0; i < CHECK_PAGES; i++) {
        t->cursor = (t->cursor + 1) % window_pages(t);
        task_user_check(t, h->mm[member], h->va, t->key, &h->expected[member], t->cursor, true);
    }
}

static void huge_verify(struct workload_task *t)
{
    struct huge_task *h = &t->u.huge;

    for (uint32_t i = 0; i < FS_ARRAY_SIZE(h->mm); i++) {
        for (uint32_t page = 0; h->mm[i] != NULL && page < window_pages(t); page++) {
            task_user_check(t, h->mm[i], h->va, t->key, &h->expected[i], page, true);
        }
    }
}

const struct workload_ops workload_huge_ops = { huge_start, huge_stop, huge_step, huge_verify };

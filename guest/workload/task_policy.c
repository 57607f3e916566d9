/*
 * task_policy.c - a process with memory policies: an interleaved part, a bound part, one whose pages it moves itself, and a device's memory.
 *
 * Owns: struct policy_task; the device's frames.
 * Invariants:
 *   I1  a bound page is on one of its nodes, always: since the policy was set with everything moved, or while nothing was there. Only memory
 *       that goes offline takes pages along to other nodes, where its own has no room; that is counted (ZC_evacuate_away), and nothing is sure then.
 *   I2  an interleaved page is on the node that its address says, as long as no page of anybody had to go elsewhere for lack of memory.
 *   I3  a page whose move was reported done is on that node until the next move (or it is swapped out, and comes back anywhere).
 *   I4  a device's frame is a page of the kernel's with PG_DMA; while index i moves, frame() says so, and no process has an entry for it.
 * Lock order: mmap_lock, i_mmap_lock, page_table_lock, the device's lock.
 * Why: contents alone do not show whether policies work: the task works out each page's node by itself, from the address.
 * Cost: a step writes a line or two, verifies two pages; a step that moves touches a third of the window.
 */
#include "workload_priv.h"
#include "../mm/move_pages.h"
#include "../mm/page_alloc.h"
#include "../mm/pfnmap.h"

#define CHECK_PAGES  2u
#define MOVE_AT_ONCE 4u

/* ---- the device ---- */

static mm_status_t device_frame(struct address_space *as, uint64_t index, pfn_t *pfn)
{
    struct policy_device *d = pfnmap_device(as);
    mm_status_t status = MM_EINVAL;

    spin_lock(&d->lock);
    if (index < DEVICE_PAGES && d->pages[index] != NULL) {
        *pfn = page_pfn(d->pages[index]);
        status = d->moving >> index & 1 ? MM_EAGAIN : MM_OK;
    }
    spin_unlock(&d->lock);
    return status;
}

static uint32_t device_node(struct address_space *as, uint64_t index)
{
    struct policy_device *d = pfnmap_device(as);
    uint32_t node = 0;

    spin_lock(&d->lock);
    if (index < DEVICE_PAGES && d->pages[index] != NULL) {
        node = page_node(d->mm, d->pages[index]);
    }
    spin_unlock(&d->lock);
    return node;
}

static struct page *device_page(struct mm *mm, nodemask_t nodes)
{
    struct page *p = alloc_pages_nodemask(mm, mm_local_node(mm), nodes, GFP_KERNEL | __GFP_ZERO, 0);

    if (p != NULL) {
        page_set_flags(p, PG_DMA);
    }
    return p;
}

static void device_page_free(struct mm *mm, struct page *p)
{
    if (p != NULL) {
        page_clear_flags(p, PG_DMA);
        page_put(mm, p);
    }
}

static mm_status_t device_migrate(struct address_space *as, uint64_t index, nodemask_t nodes)
{
    struct policy_device *d = pfnmap_device(as);
    struct page *from, *to;

    if (index >= DEVICE_PAGES) {
        return MM_EBUSY;
    }
    to = device_page(d->mm, nodes);
    if (to == NULL) {
        return MM_ENOMEM;
    }
    spin_lock(&d->lock);
    from = d->moving >> index & 1 ? NULL : d->pages[index];
    d->moving |= 1u << index;                       /* I4 */
    spin_unlock(&d->lock);
    if (from == NULL) {
        device_page_free(d->mm, to);
        return MM_EBUSY;
    }
    pfnmap_unmap(as, index, index + 1);
    arch_page_copy(page_pfn(to), page_pfn(from));
    spin_lock(&d->lock);
    d->pages[index] = to;
    d->moving &= ~(1u << index);
    spin_unlock(&d->lock);
    device_page_free(d->mm, from);
    return MM_OK;
}

static const struct vma_ops device_ops = { device_frame, device_node, device_migrate };

static mm_status_t device_start(struct workload_task *t)
{
    struct policy_task *u = &t->u.policy;
    mm_status_t status = MM_OK;

    u->device.mm = task_mm(t);
    for (uint32_t i = 0; i < DEVICE_PAGES && status == MM_OK; i++) {
        u->device.pages[i] = device_page(task_mm(t), mm_nodes(task_mm(t)));
        status = u->device.pages[i] != NULL ? MM_OK : MM_ENOMEM;
    }
    if (status == MM_OK) {
        status = pfnmap_init(task_vm(t), &u->as, &device_ops, &u->device);
        u->made = status == MM_OK;
    }
    return status;
}

/* ---- the window ---- */

/* A third each; the device's memory is elsewhere, and its pages are numbered behind the window's. */
enum part { INTERLEAVED, BOUND, MOVED, PARTS };

static uint32_t part_first(const struct workload_task *t, enum part part) { return t->pages / PARTS * (uint32_t)part; }
static uint32_t part_pages(const struct workload_task *t) { return t->pages / PARTS; }
static uint64_t page_va(const struct workload_task *t, uint32_t page) { return t->u.policy.va + (uint64_t)page * FS_PAGE_BYTES; }

static nodemask_t some_nodes(struct workload_task *t)
{
    nodemask_t all = mm_nodes(task_mm(t)), nodes = (nodemask_t)task_random(t, 1u << MM_NODES_MAX) & all;

    return nodes != 0 ? nodes : all;
}

static nodemask_t some_node(struct workload_task *t)
{
    nodemask_t nodes = some_nodes(t);

    return nodes & ~(nodes - 1);
}

/* False: refused. MM_ENODEV: the node's memory has gone offline meanwhile */
static bool policy_went(struct workload_task *t, mm_status_t status, uint64_t page)
{
    if (status == MM_EIO || status == MM_EAGAIN || status == MM_ENODEV) {
        t->stats.refused++;
        return false;
    }
    return task_went(t, status, page);
}

/* Another policy for a part, with its pages. */
static void rebind(struct workload_task *t, enum part part)
{
    struct policy_task *u = &t->u.policy;
    uint32_t first = part_first(t, part);
    nodemask_t nodes = part == BOUND && task_random(t, 2) == 0 ? some_node(t) : some_nodes(t);
    uint64_t misses = vm_counter(task_vm(t), VMC_policy_miss), away = mm_counter(task_mm(t), ZC_evacuate_away);
    mm_status_t status = vm_mbind(u->mm, page_va(t, first), (uint64_t)part_pages(t) * FS_PAGE_BYTES, part == BOUND ? MPOL_BIND : MPOL_INTERLEAVE,
                                  nodes, MPOL_MF_MOVE | MPOL_MF_STRICT, NULL);

    if (policy_went(t, status, first)) {
        u->nodes[part] = nodes;
        u->away[part] = away;
        u->misses = part == INTERLEAVED ? misses : u->misses;
    } else if (status == MM_EIO) {
        u->nodes[part] = 0;                         /* some pages could not be moved: nothing is sure */
    }
}

static uint32_t nth_node(nodemask_t nodes, uint64_t n)
{
    uint32_t list[MM_NODES_MAX], count = 0;

    for (uint32_t i = 0; i < MM_NODES_MAX; i++) {
        if (nodes >> i & 1) {
            list[count++] = i;
        }
    }
    return list[n % count];
}

/* Where a page is, and whether it may be there (I1 to I3). */
static void check_place(struct workload_task *t, uint32_t page)
{
    struct policy_task *u = &t->u.policy;
    enum part part = page / part_pages(t) < PARTS ? (enum part)(page / part_pages(t)) : PARTS;
    struct page *p = part < PARTS ? follow_page(u->mm, page_va(t, page)) : NULL;
    uint32_t node = p != NULL ? page_node(task_mm(t), p) : 0, should = 0;

    if (p == NULL) {
        return;
    }
    page_put(task_mm(t), p);
    if (mm_counter(task_mm(t), ZC_evacuate_away) != u->away[part]) {
        return;
    }
    if (part == BOUND && u->nodes[BOUND] != 0 && !(u->nodes[BOUND] >> node & 1)) {
        task_wrong(t, WORKLOAD_PLACE, page, 0, node, u->nodes[BOUND]);
    }
    if (part == INTERLEAVED && u->nodes[INTERLEAVED] != 0) {
        should = nth_node(u->nodes[INTERLEAVED], page_va(t, page) / FS_PAGE_BYTES);
        if (node != should && vm_counter(task_vm(t), VMC_policy_miss) == u->misses) {
            task_wrong(t, WORKLOAD_PLACE, page, 0, node, should);
        }
    }
    t->stats.places_verified++;
}

/* Single pages of the last part, each to a node of its own; the answers must be true. */
static void move_some(struct workload_task *t)
{
    struct policy_task *u = &t->u.policy;
    uint64_t at[MOVE_AT_ONCE];
    int32_t nodes[MOVE_AT_ONCE], status[MOVE_AT_ONCE];
    uint32_t pages[MOVE_AT_ONCE];
    uint64_t away = mm_counter(task_mm(t), ZC_evacuate_away);

    for (uint32_t i = 0; i < MOVE_AT_ONCE; i++) {      /* each page once */
        pages[i] = part_first(t, MOVED) + (uint32_t)(task_random(t, part_pages(t) / MOVE_AT_ONCE) * MOVE_AT_ONCE + i);
        at[i] = page_va(t, pages[i]);
        nodes[i] = (int32_t)fs_ctz64(some_node(t));
    }
    if (!task_went(t, vm_move_pages(u->mm, MOVE_AT_ONCE, at, nodes, status, MPOL_MF_MOVE), pages[0])) {
        return;
    }
    for (uint32_t i = 0; i < MOVE_AT_ONCE; i++) {
        struct page *p = status[i] >= 0 ? follow_page(u->mm, at[i]) : NULL;

        if (p != NULL) {
            uint32_t node = page_node(task_mm(t), p);

            if (status[i] != nodes[i] || (node != (uint32_t)nodes[i] && mm_counter(task_mm(t), ZC_evacuate_away) == away)) {
                task_wrong(t, WORKLOAD_PLACE, pages[i], 0, node, (uint64_t)nodes[i]);
            }
            page_put(task_mm(t), p);
        } else if (status[i] == MOVE_EACCES || status[i] == MOVE_EFAULT || status[i] == MOVE_EINVAL) {
            task_wrong(t, WORKLOAD_GONE, pages[i], 0, (uint64_t)status[i], 0);     /* it is ours alone, and mapped */
        } else {
            t->stats.refused += status[i] == MOVE_ENOMEM || status[i] == MOVE_EBUSY;
        }
    }
}

/* The device's memory, all of it to one node, by its own hook. */
static void move_device(struct workload_task *t)
{
    struct policy_task *u = &t->u.policy;
    nodemask_t node = some_node(t);

    if (!policy_went(t, vm_mbind(u->mm, u->device_va, DEVICE_PAGES * (uint64_t)FS_PAGE_BYTES, MPOL_BIND, node, MPOL_MF_MOVE | MPOL_MF_STRICT, NULL),
                     t->pages)) {
        return;
    }
    for (uint32_t i = 0; i < DEVICE_PAGES; i++) {
        uint32_t is = device_node(&u->as, i);

        if (!(node >> is & 1)) {
            task_wrong(t, WORKLOAD_PLACE, t->pages + i, 0, is, node);
        }
    }
}

/* The process leaves some nodes: what was bound or interleaved is where it was told to go, so it is told again where to be. */
static void leave_nodes(struct workload_task *t)
{
    struct policy_task *u = &t->u.policy;

    u->nodes[INTERLEAVED] = u->nodes[BOUND] = 0;
    (void)policy_went(t, vm_migrate_nodes(u->mm, some_nodes(t), some_nodes(t), MPOL_MF_MOVE, NULL), 0);
    rebind(t, INTERLEAVED);
    rebind(t, BOUND);
}

/* ---- the task ---- */

static uint64_t line_va(const struct workload_task *t, uint32_t page)
{
    return page < t->pages ? page_va(t, page) : t->u.policy.device_va + (uint64_t)(page - t->pages) * FS_PAGE_BYTES;
}

/* task_user_*() take the window's first page: the device's is elsewhere. */
static uint64_t base_va(const struct workload_task *t, uint32_t page)
{
    return line_va(t, page) - (uint64_t)page * FS_PAGE_BYTES;
}

static mm_status_t policy_start(struct workload_task *t)
{
    struct policy_task *u = &t->u.policy;
    mm_status_t status = versions_init(&u->expected, task_mm(t), t->pages + DEVICE_PAGES);

    if (status == MM_OK) {
        status = device_start(t);
    }
    if (status == MM_OK) {
        status = mm_create(task_vm(t), &u->mm);
        u->mm = status == MM_OK ? u->mm : NULL;
    }
    if (status == MM_OK) {
        status = vm_mmap(u->mm, &u->va, (uint64_t)t->pages * FS_PAGE_BYTES, VM_ACCESS, NULL, 0);
    }
    if (status == MM_OK) {
        status = vm_mmap(u->mm, &u->device_va, DEVICE_PAGES * (uint64_t)FS_PAGE_BYTES, VM_ACCESS | VM_SHARED, &u->as, 0);
    }
    if (status == MM_OK) {
        rebind(t, INTERLEAVED);
        rebind(t, BOUND);
        status = t->stats.refused != 0 ? MM_ENOMEM : MM_OK;
    }
    return status;
}

static void policy_stop(struct workload_task *t)
{
    struct policy_task *u = &t->u.policy;

    if (u->mm != NULL) {
        mm_put(u->mm);
    }
    if (u->made) {
        address_space_destroy(&u->as);
    }
    for (uint32_t i = 0; i < DEVICE_PAGES; i++) {
        device_page_free(task_mm(t), u->device.pages[i]);
    }
    versions_free(&u->expected);
}

static void check_page(struct workload_task *t, uint32_t page)
{
    struct policy_task *u = &t->u.policy;

    task_user_check(t, u->mm, base_va(t, page), t->key, &u->expected, page, true);
    check_place(t, page);
}

static void policy_step(struct workload_task *t)
{
    struct policy_task *u = &t->u.policy;
    uint32_t what = (uint32_t)task_random(t, 100), all = t->pages + DEVICE_PAGES;

    if (what < 2) {
        rebind(t, INTERLEAVED);
    } else if (what < 4) {
        rebind(t, BOUND);
    } else if (what < 8) {
        move_some(t);
    } else if (what < 9) {
        move_device(t);
    } else if (what < 10) {
        leave_nodes(t);
    } else {
        for (uint32_t i = 1 + what % 3; i > 0; i--) {
            uint32_t page = (uint32_t)task_random(t, all);

            task_user_write(t, u->mm, base_va(t, page), t->key, &u->expected, page, (uint32_t)task_random(t, LINES));
        }
    }
    for (uint32_t i = 0; i < CHECK_PAGES; i++) {
        t->cursor = (t->cursor + 1) % all;
        check_page(t, t->cursor);
    }
}

static void policy_verify(struct workload_task *t)
{
    for (uint32_t page = 0; page < t->pages + DEVICE_PAGES; page++) {
        check_page(t, page);
    }
}

const struct workload_ops workload_policy_ops = { policy_start, policy_stop, policy_step, policy_verify };

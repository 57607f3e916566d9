/*
 * move_pages.c - single pages of a process to single nodes, with a status for each.
 *
 * Owns: what becomes of each address.
 * Invariants:
 *   I1  each page has one status, written once: what was wrong with the address or the node, where it is, or why it stayed.
 *   I2  a page that is in the list already is moved before it is looked at again, so addresses that mean the same page take effect in order.
 *   I3  what one page's status is changes nothing for the others.
 * Lock order: as node_move.c.
 * Why: the caller learns of each page, because he knows what to do about each: a page that is busy is asked for again, one that is shared is not.
 * Cost: as node_move.c.
 *
 * Layer: L4
 */
#include "move_pages.h"
#include "pfnmap.h"
#include "pgtable.h"
#include "vma.h"
#include "frameshift/assert.h"

const char *move_status_name(int32_t status)
{
    switch (status) {
    case MOVE_ENOENT: return "ENOENT";
    case MOVE_EFAULT: return "EFAULT";
    case MOVE_EACCES: return "EACCES";
    case MOVE_EBUSY: return "EBUSY";
    case MOVE_EINVAL: return "EINVAL";
    case MOVE_ENODEV: return "ENODEV";
    case MOVE_ENOMEM: return "ENOMEM";
    default: return status >= 0 && status < (int32_t)MM_NODES_MAX ? "node" : "bad";
    }
}

/* What is asked for, and what of it is under way. */
struct request {
    struct mm_struct *mm;
    const uint64_t *addresses;
    const int32_t *nodes;
    int32_t *status;
    bool all;
    struct move_list list;
};

static int32_t status_of(const struct move_list *l, size_t i)
{
    switch (l->items[i].status) {
    case MM_OK: return l->items[i].to != NULL ? (int32_t)l->node[i] : MOVE_ENOENT;
    case MM_ENOMEM: return MOVE_ENOMEM;
    default: return MOVE_EBUSY;
    }
}

static void take(struct request *r, size_t i);

static void flush(struct request *r)
{
    struct migrate_result result;
    uint64_t again[NODE_MOVE_BATCH];
    size_t n = 0;

    if (r->list.count == 0) {
        return;
    }
    move_list_run(&r->list, &result);
    for (size_t i = 0; i < r->list.count; i++) {
        if (r->list.split[i]) {
            again[n++] = r->list.at[i];         /* it was about a part of it: that is a small page now */
        } else {
            r->status[r->list.at[i]] = status_of(&r->list, i);
        }
    }
    r->list.count = 0;
    for (size_t i = 0; i < n; i++) {
        take(r, again[i]);
    }
}

/* Is there anything to say about the node before the page is looked at? 0: no */
static int32_t node_status(const struct mm *mm, int32_t node)
{
    if (node < 0 || node >= (int32_t)MM_NODES_MAX) {
        return MOVE_EINVAL;
    }
    return mm_nodes(mm) >> node & 1 ? 0 : MOVE_ENODEV;
}

/* A device's memory: it says where it is, and moves it. pre: mmap_lock for reading */
static int32_t device_status(const struct request *r, const struct vm_area *v, uint64_t va, size_t i)
{
    uint32_t node = v->file->ops->node(v->file, vma_index(v, va));
    mm_status_t status = MM_OK;

    if (r->nodes != NULL && r->nodes[i] != (int32_t)node) {
        status = device_page_move(v, va, 1u << r->nodes[i], r->all);
        node = v->file->ops->node(v->file, vma_index(v, va));
    }
    return status == MM_OK ? (int32_t)node : -(int32_t)(status == MM_EAGAIN ? MM_EBUSY : status);
}

/* The page with a reference, or NULL with the status. */
static struct page *find_page(const struct request *r, size_t i, int32_t *status)
{
    struct mm_struct *mm = r->mm;
    uint64_t va = r->addresses[i] & ~(uint64_t)(FS_PAGE_BYTES - 1), entry = 0;
    const struct vm_area *v;
    struct page *page = NULL;

    read_lock(&mm->mmap_lock);
    v = va < ARCH_USER_END ? find_vma(mm, va) : NULL;
    if (v == NULL || v->start > va) {
        *status = MOVE_EFAULT;
    } else if (v->flags & VM_PFNMAP) {
        *status = device_status(r, v, va, i);
    } else {
        page = page_at(mm, va, &entry);
        *status = pte_is(entry, PTE_MIGRATION) ? MOVE_EBUSY : MOVE_ENOENT;
    }
    read_unlock(&mm->mmap_lock);
    return page;
}

/* Look at one address; its page goes into the list, or its status is known (I1). */
static void take(struct request *r, size_t i)
{
    const struct mm *mm = r->mm->vm->mm;
    int32_t bad = r->nodes != NULL ? node_status(mm, r->nodes[i]) : 0;
    struct page *page = bad == 0 ? find_page(r, i, &bad) : NULL;

    while (page != NULL && move_list_has(&r->list, page)) {    /* I2: it may be mapped at two addresses */
        page_put(r->mm->vm->mm, page);
        flush(r);
        page = find_page(r, i, &bad);
    }
    r->status[i] = bad;
    if (page == NULL) {
        return;
    }
    r->status[i] = (int32_t)page_node(mm, page);
    if (r->nodes != NULL && r->status[i] != r->nodes[i]) {
        if (!r->all && page_users(r->mm->vm, page, r->mm).others) {
            r->status[i] = MOVE_EACCES;
        } else {
            move_list_add(&r->list, page, 1u << r->nodes[i], i);
            return;
        }
    }
    page_put(r->mm->vm->mm, page);
}

mm_status_t vm_move_pages(struct mm_struct *mm, size_t count, const uint64_t *addresses, const int32_t *nodes, int32_t *status, unsigned flags)
{
    struct request r = { .mm = mm, .addresses = addresses, .nodes = nodes, .status = status, .all = flags == MPOL_MF_MOVE_ALL,
                         .list = { .vm = mm->vm, .reclaim = true } };

    if (flags != MPOL_MF_MOVE && flags != MPOL_MF_MOVE_ALL && (flags != 0 || nodes != NULL)) {
        return MM_EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        if (move_list_full(&r.list)) {
            flush(&r);
        }
        take(&r, i);
    }
    while (r.list.count > 0) {
        flush(&r);
    }
    return MM_OK;
}

/*
 * vma_tree.c - the vmas of a process by address, and those of a file.
 *
 * Owns: mm_struct.root, first, the links of vm_area in both lists.
 * Invariants:
 *   I1  the treap is ordered by start, and no child has a higher priority than its parent; the list has the same members in order.
 *   I2  vmas do not overlap, and start does not change while a vma is a member.
 *   I3  in a file's list a child's vma comes after its parent's (as in anon_vma.c I3).
 * Lock order: mmap_lock, i_mmap_lock, both held by the caller.
 * Why: a treap keeps its balance by a hash of the address: two short loops for insert and remove, and no rotations.
 * Cost: find, insert and remove: O(log n) expected.
 *
 * Layer: L3
 */
#include "vma.h"
#include "pagecache.h"
#include "frameshift/assert.h"

static uint32_t priority_of(uint64_t start)
{
    uint64_t x = start / FS_PAGE_BYTES + 0x9e3779b97f4a7c15ull;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)(x >> 32);
}

struct vm_area *find_vma(const struct mm_struct *mm, uint64_t va)
{
    struct vm_area *best = NULL;

    for (struct vm_area *v = mm->root; v != NULL;) {
        if (v->end > va) {
            best = v;
            v = v->left;
        } else {
            v = v->right;
        }
    }
    return best;
}

void vma_insert(struct mm_struct *mm, struct vm_area *vma)
{
    struct vm_area **at = &mm->root, **low = &vma->left, **high = &vma->right, *rest, *prev = NULL;

    vma->priority = priority_of(vma->start);
    for (struct vm_area *v = mm->root; v != NULL;) {
        ASSERT(v->end <= vma->start || v->start >= vma->end);           /* I2 */
        prev = v->start < vma->start ? v : prev;
        v = v->start < vma->start ? v->right : v->left;
    }
    while (*at != NULL && (*at)->priority >= vma->priority) {
        at = vma->start < (*at)->start ? &(*at)->left : &(*at)->right;
    }
    rest = *at;
    *at = vma;
    while (rest != NULL) {                      /* what was below is split by the new start */
        if (rest->start < vma->start) {
            *low = rest;
            low = &rest->right;
            rest = *low;
        } else {
            *high = rest;
            high = &rest->left;
            rest = *high;
        }
    }
    *low = *high = NULL;
    vma->prev = prev;
    vma->next = prev != NULL ? prev->next : mm->first;
    if (vma->next != NULL) {
        vma->next->prev = vma;
    }
    if (prev != NULL) {
        prev->next = vma;
    } else {
        mm->first = vma;
    }
    mm->vma_count++;
    mm->total_pages += vma_pages(vma);
    mm->locked_pages += vma->flags & VM_LOCKED ? vma_pages(vma) : 0;
}

void vma_remove(struct mm_struct *mm, struct vm_area *vma)
{
    struct vm_area **at = &mm->root, *low = vma->left, *high = vma->right;

    while (*at != vma) {
        ASSERT(*at != NULL);
        at = vma->start < (*at)->start ? &(*at)->left : &(*at)->right;
    }
    while (low != NULL && high != NULL) {       /* its children are merged in its place */
        if (low->priority >= high->priority) {
            *at = low;
            at = &low->right;
            low = *at;
        } else {
            *at = high;
            at = &high->left;
            high = *at;
        }
    }
    *at = low != NULL ? low : high;
    if (vma->next != NULL) {
        vma->next->prev = vma->prev;
    }
    if (vma->prev != NULL) {
        vma->prev->next = vma->next;
    } else {
        mm->first = vma->next;
    }
    vma->next = vma->prev = vma->left = vma->right = NULL;
    mm->vma_count--;
    mm->total_pages -= vma_pages(vma);
    mm->locked_pages -= vma->flags & VM_LOCKED ? vma_pages(vma) : 0;
}

void i_mmap_link(struct vm_area *vma, struct vm_area *after)
{
    struct address_space *as = vma->file;

    vma->i_mmap_prev = after;
    vma->i_mmap_next = after != NULL ? after->i_mmap_next : as->i_mmap;
    if (vma->i_mmap_next != NULL) {
        vma->i_mmap_next->i_mmap_prev = vma;
    }
    if (after != NULL) {
        after->i_mmap_next = vma;
    } else {
        as->i_mmap = vma;
    }
}

void i_mmap_unlink(struct vm_area *vma)
{
    if (vma->i_mmap_next != NULL) {
        vma->i_mmap_next->i_mmap_prev = vma->i_mmap_prev;
    }
    if (vma->i_mmap_prev != NULL) {
        vma->i_mmap_prev->i_mmap_next = vma->i_mmap_next;
    } else {
        vma->file->i_mmap = vma->i_mmap_next;
    }
    vma->i_mmap_next = vma->i_mmap_prev = NULL;
}

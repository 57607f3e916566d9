/*
 * mempolicy_fsck.c - policies recomputed and compared.
 *
 * Owns: mempolicy.check; else it only reads.
 * Invariants checked: mempolicy.c I1 to I4; with MPOL_FSCK_PLACES where each page lies.
 * Lock order: takes page_table_lock, tree_lock and swap.lock for single looks; the caller keeps everybody out.
 * Why: a policy that is shared by reference is right only if every owner is known: they are counted anew by writing a count into each policy,
 *   and the number of policies is compared with what their slab cache has given out.  Where a page should be is worked out from the index with
 *   code of its own.
 * Cost: three passes over vmas and ranges; with PLACES one look at each page of each process and object.
 *
 * Layer: L6
 */
#include "mempolicy_fsck.h"
#include "hugetlb.h"
#include "pagecache.h"
#include "pfnmap.h"
#include "pgtable.h"
#include "slab.h"
#include "swap.h"
#include "vma.h"

struct check {
    struct vm *vm;
    mpol_fsck_fn report;
    void *ctx;
    uint64_t faults, policies, ranges;
    const struct mm_struct *mm;                 /* at hand; NULL: an object */
    uint64_t va;
};

static void say(struct check *c, enum mpol_fsck_fault f, uint64_t is, uint64_t should_be)
{
    c->faults++;
    if (c->report != NULL) {
        c->report(c->ctx, f, c->mm, c->va, is, should_be);
    }
}

/* ---- references ---- */

enum pass { PASS_FORGET, PASS_COUNT, PASS_COMPARE };
#define TOLD UINT32_MAX

static void check_policy(struct check *c, const struct mempolicy *p)
{
    bool needs = p->mode == MPOL_PREFERRED || p->mode == MPOL_BIND || p->mode == MPOL_INTERLEAVE;

    if ((!needs && p->mode != MPOL_LOCAL) || needs != (p->nodes != 0) || (p->mode == MPOL_PREFERRED && (p->nodes & (p->nodes - 1)) != 0)) {
        say(c, MPOL_FSCK_MODE, p->mode, p->nodes);
    }
    if (p->nodes >> c->vm->mm->node_count != 0) {
        say(c, MPOL_FSCK_NODE, p->nodes, c->vm->mm->node_count);
    }
}

static void touch(struct check *c, struct mempolicy *p, enum pass pass)
{
    uint32_t refs;

    if (p == NULL) {
        return;
    }
    switch (pass) {
    case PASS_FORGET:
        p->check = 0;
        break;
    case PASS_COUNT:
        p->check++;
        break;
    case PASS_COMPARE:
        refs = (uint32_t)atomic_load_explicit(&p->refs, memory_order_relaxed);
        if (p->check == TOLD) {
            break;
        }
        c->policies++;
        check_policy(c, p);
        if (refs != p->check) {
            say(c, MPOL_FSCK_REFS, refs, p->check);
        }
        p->check = TOLD;
        break;
    }
}

/* Everybody who has a policy. */
static void owners(struct check *c, enum pass pass)
{
    for (const struct mm_struct *mm = c->vm->mms; mm != NULL; mm = mm->next) {
        c->mm = mm;
        c->va = UINT64_MAX;
        touch(c, mm->policy, pass);
        for (const struct vm_area *v = mm->first; v != NULL; v = v->next) {
            c->va = v->start;
            touch(c, v->policy, pass);
        }
    }
    c->mm = NULL;
    c->va = UINT64_MAX;
    for (const struct address_space *as = c->vm->pagecache != NULL ? c->vm->pagecache->spaces : NULL; as != NULL; as = as->next) {
        for (const struct policy_range *r = as->policy.first; r != NULL; r = r->next) {
            touch(c, r->policy, pass);
        }
    }
    for (const struct hugetlb_file *f = c->vm->hugetlb != NULL ? c->vm->hugetlb->files : NULL; f != NULL; f = f->next) {
        for (const struct policy_range *r = f->as.policy.first; r != NULL; r = r->next) {
            touch(c, r->policy, pass);
        }
    }
}

/* ---- shapes ---- */

static void check_vmas(struct check *c)
{
    for (const struct mm_struct *mm = c->vm->mms; mm != NULL; mm = mm->next) {
        c->mm = mm;
        for (const struct vm_area *v = mm->first; v != NULL; v = v->next) {
            c->va = v->start;
            if ((v->flags & VM_SHARED) && v->policy != NULL) {
                say(c, MPOL_FSCK_VMA, v->policy->mode, MPOL_DEFAULT);
            }
        }
    }
    c->mm = NULL;
    c->va = UINT64_MAX;
}

static void check_ranges(struct check *c, const struct shared_policy *s)
{
    uint32_t n = 0, count = atomic_load_explicit(&s->count, memory_order_relaxed);
    const struct policy_range *prev = NULL;

    if (spin_held(&s->lock)) {
        say(c, MPOL_FSCK_LOCK_HELD, 1, 0);
    }
    for (const struct policy_range *r = s->first; r != NULL && n <= count; r = r->next) {
        if (r->first >= r->end || r->policy == NULL || (prev != NULL && r->first < prev->end)) {
            say(c, MPOL_FSCK_RANGE, r->first, r->end);
        }
        if (prev != NULL && prev->end == r->first && mpol_equal(prev->policy, r->policy)) {
            say(c, MPOL_FSCK_MERGE, prev->end, 0);
        }
        prev = r;
        n++;
    }
    c->ranges += n;
    if (n != count) {
        say(c, MPOL_FSCK_RANGES, count, n);
    }
}

/* ---- places ---- */

/* By counting, not by what placed it. */
static bool wants(const struct mempolicy *p, uint64_t index, uint32_t node)
{
    uint32_t nodes[MM_NODES_MAX], n = 0;

    if (p == NULL || p->mode == MPOL_LOCAL) {
        return true;
    }
    for (uint32_t i = 0; i < MM_NODES_MAX; i++) {
        if (p->nodes >> i & 1) {
            nodes[n++] = i;
        }
    }
    return p->mode == MPOL_INTERLEAVE ? n > 0 && nodes[index % n] == node : (p->nodes >> node & 1) != 0;
}

static void check_place(struct check *c, const struct mempolicy *p, uint64_t index, uint32_t node)
{
    if (!wants(p, index, node)) {
        say(c, MPOL_FSCK_PLACE, node, p->nodes);
    }
}

/* Private pages. What is mapped shared is looked at in its object, where it has a policy. */
static void check_vma_places(struct check *c, const struct vm_area *v)
{
    const struct mempolicy *p = vma_policy(v);

    for (uint64_t va = v->start; va < v->end && p != NULL; va += FS_PAGE_BYTES) {
        struct pte_ref at;
        struct page *page;
        uint64_t e;

        if (!pgtable_find(v->mm, va, &at)) {
            va = pte_table_end(va) - FS_PAGE_BYTES;
            continue;
        }
        e = pte_read(&at);
        page = pte_maps(e) ? mm_page(c->vm->mm, pte_pfn(e)) : NULL;
        if (page != NULL && page_test(page, PG_ANON)) {
            c->va = va;
            check_place(c, p, vma_index(v, va) >> page_order(page), page_node(c->vm->mm, page));       /* interleave counts units */
        }
    }
}

static const struct mempolicy *range_policy(const struct shared_policy *s, uint64_t index)
{
    for (const struct policy_range *r = s->first; r != NULL; r = r->next) {
        if (index >= r->first && index < r->end) {
            return r->policy;
        }
    }
    return NULL;
}

static void check_object_places(struct check *c, struct address_space *as)
{
    uint64_t index = 0, word;

    if (as->policy.first == NULL) {
        return;
    }
    while ((word = radix_next(&as->tree, &index, false)) != 0) {
        if (!radix_is_value(word)) {
            check_place(c, range_policy(&as->policy, index), index, page_node(c->vm->mm, (const struct page *)(uintptr_t)word));
        }
        index++;
    }
}

static void check_places(struct check *c)
{
    for (const struct mm_struct *mm = c->vm->mms; mm != NULL; mm = mm->next) {
        c->mm = mm;
        for (const struct vm_area *v = mm->first; v != NULL; v = v->next) {
            if (!(v->flags & VM_SHARED)) {
                check_vma_places(c, v);
                continue;
            }
            for (uint64_t va = v->start; (v->flags & VM_PFNMAP) && v->file->policy.first != NULL && va < v->end; va += FS_PAGE_BYTES) {
                uint64_t i = vma_index(v, va);

                c->va = va;
                check_place(c, range_policy(&v->file->policy, i), i, v->file->ops->node(v->file, i));
            }
        }
    }
    c->mm = NULL;
    c->va = UINT64_MAX;
    for (struct address_space *as = c->vm->pagecache != NULL ? c->vm->pagecache->spaces : NULL; as != NULL; as = as->next) {
        check_object_places(c, as);
    }
}

/* ---- all ---- */

uint64_t mempolicy_fsck(struct vm *vm, unsigned flags, mpol_fsck_fn report, void *ctx)
{
    struct check c = { .vm = vm, .report = report, .ctx = ctx, .va = UINT64_MAX };

    for (enum pass pass = PASS_FORGET; pass <= PASS_COMPARE; pass++) {
        owners(&c, pass);
    }
    check_vmas(&c);
    for (const struct address_space *as = vm->pagecache != NULL ? vm->pagecache->spaces : NULL; as != NULL; as = as->next) {
        check_ranges(&c, &as->policy);
    }
    for (const struct hugetlb_file *f = vm->hugetlb != NULL ? vm->hugetlb->files : NULL; f != NULL; f = f->next) {
        check_ranges(&c, &f->as.policy);
    }
    if (kmem_cache_used(vm->policy_cache) != c.policies) {
        say(&c, MPOL_FSCK_LOST, kmem_cache_used(vm->policy_cache), c.policies);
    }
    if (kmem_cache_used(vm->policy_range_cache) != c.ranges) {
        say(&c, MPOL_FSCK_LOST, kmem_cache_used(vm->policy_range_cache), c.ranges);
    }
    if (flags & MPOL_FSCK_PLACES) {
        check_places(&c);
    }
    return c.faults;
}

const char *mpol_fsck_name(enum mpol_fsck_fault f)
{
    static const char *const names[MPOL_FSCK_FAULTS] = {
#define X(name, text) #name,
        MPOL_FSCK_LIST(X)
#undef X
    };
    return (unsigned)f < MPOL_FSCK_FAULTS ? names[f] : "bad";
}

const char *mpol_fsck_text(enum mpol_fsck_fault f)
{
    static const char *const texts[MPOL_FSCK_FAULTS] = {
#define X(name, text) text,
        MPOL_FSCK_LIST(X)
#undef X
    };
    return (unsigned)f < MPOL_FSCK_FAULTS ? texts[f] : "bad";
}

/*
 * mempolicy_dump.c - the pages of a process by node, in the shape of numa_maps.
 *
 * Owns: nothing; it only reads.
 * Invariants: none of its own.
 * Lock order: mmap_lock for reading, under it page_table_lock for single looks; the lines are given out under mmap_lock.
 * Why: whoever sets policies wants to see what became of them: the line of a vma says where its pages are and how many are not where the
 *   policy wants them.
 * Cost: one look at each entry.
 *
 * Layer: L6
 */
#include "mempolicy_fsck.h"
#include "pagecache.h"
#include "pfnmap.h"
#include "pgtable.h"
#include "vma.h"
#include "../lib/text.h"

struct counts { uint64_t nodes[MM_NODES_MAX], anon, file, device, dirty, swap, moving, misplaced; };

static void add_nodes(struct text *t, nodemask_t nodes)
{
    bool first = true;

    for (uint32_t n = 0; n < 32; n++) {
        uint32_t last = n;

        if (!(nodes >> n & 1)) {
            continue;
        }
        while (last + 1 < 32 && nodes >> (last + 1) & 1) {
            last++;
        }
        text_word(t, first ? ":" : ",");
        text_number(t, n);
        if (last > n) {
            text_word(t, "-");
            text_number(t, last);
        }
        first = false;
        n = last;
    }
}

static void add_policy(struct text *t, const struct mempolicy *p)
{
    text_word(t, mpol_mode_name(p != NULL ? p->mode : MPOL_DEFAULT));
    add_nodes(t, p != NULL ? p->nodes : 0);
}

static void add_count(struct text *t, const char *name, uint64_t n)
{
    if (n != 0) {
        text_word(t, " ");
        text_word(t, name);
        text_word(t, "=");
        text_number(t, n);
    }
}

/* What is wanted of it is the vma's affair, or its object's. */
static void count_wanted(const struct vm_area *v, uint64_t va, unsigned order, uint32_t node, struct counts *c)
{
    struct mempolicy *p = vma_policy_get(v, vma_index(v, va));

    c->misplaced += !(mpol_nodes(v->mm->vm->mm, p, vma_index(v, va) >> order) >> node & 1);
    mpol_put(v->mm->vm, p);
}

/* pre: page_table_lock. The node, or MM_NODES_MAX where no page of ours is mapped. */
static uint32_t look(const struct vm_area *v, const struct pte_ref *at, struct counts *c, bool *anon, unsigned *order)
{
    uint64_t e = pte_read(at);
    const struct page *page;

    c->swap += pte_is(e, PTE_SWAP);
    c->moving += pte_is(e, PTE_MIGRATION);
    c->device += pte_special(e);
    if (!pte_maps(e)) {
        return MM_NODES_MAX;
    }
    page = mm_page(v->mm->vm->mm, pte_pfn(e));
    *anon = page_test(page, PG_ANON);
    *order = page_order(page);                  /* interleave counts units */
    c->anon += *anon;
    c->file += !*anon;
    c->dirty += page_test(page, PG_DIRTY) || (pte_present(e) && (e & ARCH_PTE_DIRTY));
    return page_node(v->mm->vm->mm, page);
}

static struct counts count_vma(const struct vm_area *v)
{
    struct counts c = { .anon = 0 };

    for (uint64_t va = v->start; va < v->end;) {
        uint32_t node = MM_NODES_MAX;
        struct pte_ref at;
        bool table, anon = false;
        unsigned order = 0;

        spin_lock(&v->mm->page_table_lock);
        table = pgtable_find(v->mm, va, &at);
        if (table) {
            node = look(v, &at, &c, &anon, &order);
        }
        spin_unlock(&v->mm->page_table_lock);
        if (v->flags & VM_PFNMAP) {
            node = v->file->ops->node(v->file, vma_index(v, va));
        }
        if (node < MM_NODES_MAX) {
            c.nodes[node]++;
            if (anon || (v->flags & VM_SHARED)) {
                count_wanted(v, va, order, node, &c);
            }
        }
        va = table || (v->flags & VM_PFNMAP) ? va + FS_PAGE_BYTES : pte_table_end(va);
    }
    return c;
}

static void vma_line(const struct vm_area *v, mm_line_fn out, void *ctx)
{
    struct mempolicy *p = vma_policy_get(v, v->pgoff);
    struct counts c = count_vma(v);
    struct text t;

    text_clear(&t);
    text_hex(&t, v->start);
    text_word(&t, " ");
    add_policy(&t, p);
    mpol_put(v->mm->vm, p);
    if (v->file != NULL) {
        text_word(&t, v->flags & VM_PFNMAP ? " device" : v->file->backing != NULL ? " file" : " shm");
        text_word(&t, v->flags & VM_SHARED ? "" : " private");
    }
    add_count(&t, "anon", c.anon);
    add_count(&t, "mapped", c.file);
    add_count(&t, "special", c.device);
    add_count(&t, "dirty", c.dirty);
    add_count(&t, "swap", c.swap);
    add_count(&t, "moving", c.moving);
    for (uint32_t n = 0; n < MM_NODES_MAX; n++) {
        char name[3] = { 'N', (char)('0' + n), '\0' };

        add_count(&t, name, c.nodes[n]);
    }
    add_count(&t, "misplaced", c.misplaced);
    out(ctx, t.line);
}

void mempolicy_dump(struct mm_struct *mm, mm_line_fn out, void *ctx)
{
    read_lock(&mm->mmap_lock);
    for (const struct vm_area *v = mm->first; v != NULL; v = v->next) {
        vma_line(v, out, ctx);
    }
    read_unlock(&mm->mmap_lock);
}

void shared_policy_dump(struct shared_policy *s, mm_line_fn out, void *ctx)
{
    spin_lock(&s->lock);
    for (const struct policy_range *r = s->first; r != NULL; r = r->next) {
        struct text t;

        text_clear(&t);
        text_hex(&t, r->first);
        text_word(&t, "-");
        text_hex(&t, r->end);
        text_word(&t, " ");
        add_policy(&t, r->policy);
        out(ctx, t.line);
    }
    spin_unlock(&s->lock);
}

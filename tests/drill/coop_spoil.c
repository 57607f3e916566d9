/*
 * coop_spoil.c - see coop_spoil.h.
 *
 * Owns: nothing.
 * Invariants:
 *   I1  the byte is one that its owner knows: of a mapped page any, of a slab a word of a node in use, of a table the user bit of an entry
 *       that is present.  The last is no matter of the machine's: it counts frames, not rights to read, so nobody but the guest's own check can find it.
 * Lock order: takes the machine's lock for a table, which the guest cannot write.
 */
#include "coop_spoil.h"

#include <string.h>

#include "../../guest/mm/page.h"
#include "../../guest/mm/rmap.h"
#include "../../guest/mm/thp.h"
#include "../../guest/workload/workload_priv.h"
#include "../../hv/embedded/emb_priv.h"

const char *spoil_name(enum spoil_kind kind)
{
    static const char *const names[] = { "user page", "slab page", "page table", "huge page" };
    return names[kind];
}

static bool is_huge(const struct page *p) { return page_is_thp(p) || page_test(p, PG_HUGE); }

static bool spoil_byte(uint8_t *at)
{
    *at ^= 0x10;
    return true;
}

/* A page of a unit that a process maps. */
static bool spoil_mapped(const struct page *head, uint64_t pfn, bool huge)
{
    if (!(page_test(head, PG_ANON) || huge) || is_huge(head) != huge || !page_mapped(head)) {
        return false;
    }
    return spoil_byte((uint8_t *)arch_page_address(pfn_make(pfn)) + pfn * 61 % FS_PAGE_BYTES);
}

static bool spoil_slab(const struct page *slab)
{
    const struct kmem_cache *c = slab->mapping;
    if (!page_test(slab, PG_SLAB) || strcmp(c->name, "workload_node") != 0) {
        return false;
    }
    for (uint32_t i = 0; i < c->objects; i++) {
        struct node *n = kmem_object(slab, c, i);
        if (kmem_slab_out(slab, i) && n->slot != SLAB_FREE) {
            return spoil_byte((uint8_t *)&n->words[3] + 5);
        }
    }
    return false;
}

/* The page that the spoilt entry leads to. */
static uint64_t spoil_table(struct emb_machine *m, const struct guest *g, const struct page *p)
{
    uint64_t pfn = FS_FRAME_NONE;
    if (!page_test(p, PG_TABLE) || p->private != 1) {
        return pfn;
    }
    emb_lock(m);
    uint64_t *e = emb_table(m, g->machine.p2m[p->pfn]);
    for (uint32_t i = 0; i < 512 && pfn == FS_FRAME_NONE; i++) {
        if ((e[i] & (EMB_PTE_P | EMB_PTE_USER)) == (EMB_PTE_P | EMB_PTE_USER)) {
            e[i] ^= EMB_PTE_USER;
            pfn = emb_core_m2p(m, emb_pte_mfn(e[i]));
        }
    }
    emb_unlock(m);
    return pfn;
}

uint64_t spoil(struct emb_machine *m, struct coop_guest *c, enum spoil_kind kind, bool (*wanted)(void *ctx, uint64_t pfn), void *ctx)
{
    struct guest *g = coop_guest_kernel(c);
    const struct page *head = NULL;

    guest_cpu_become(&g->machine.cpu[0]);
    for (uint64_t pfn = 0; pfn < g->mm->end_pfn; pfn++) {
        const struct page *p = mm_pfn_valid(g->mm, pfn_make(pfn)) ? mm_page(g->mm, pfn_make(pfn)) : NULL;

        if (p != NULL && page_state(p) == PAGE_USED) {
            head = p;
        }
        if (p == NULL || head == NULL || pfn >= head->pfn + (1ull << page_order(head)) || !wanted(ctx, pfn)) {
            continue;
        }
        uint64_t spoilt = kind == SPOIL_TABLE ? p == head ? spoil_table(m, g, p) : FS_FRAME_NONE :
                          (kind == SPOIL_SLAB ? p == head && spoil_slab(p) : spoil_mapped(head, pfn, kind == SPOIL_HUGE)) ? pfn : FS_FRAME_NONE;

        if (spoilt != FS_FRAME_NONE) {
            return spoilt;
        }
    }
    return FS_FRAME_NONE;
}

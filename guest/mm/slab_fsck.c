/*
 * slab_fsck.c - every cache against its slabs.
 *
 * Layer: L6
 * Owns: nothing; it only reads.
 * Invariants checked: slab.c I1 and I2; red zones and poison of caches with KMEM_DEBUG.
 * Lock order: takes no lock; the caller keeps everybody out.
 * Why: an object in two hands is found by whoever is hit by it, much later.  Here each object has one place: free in its
 *   slab, waiting at one CPU, or with a user.
 * Cost: one pass over the memmap and over the slabs; what waits at the CPUs is compared pair by pair, at most
 *   KMEM_MAGAZINE a CPU.
 */
#include "slab_fsck.h"

static const struct { const char *name, *text; } faults[SLAB_FAULTS] = {
#define X(name, text) { #name, text },
    SLAB_FAULT_LIST(X)
#undef X
};

const char *slab_fault_name(enum slab_fault fault)
{
    return (unsigned)fault < SLAB_FAULTS ? faults[fault].name : "bad";
}

const char *slab_fault_text(enum slab_fault fault)
{
    return (unsigned)fault < SLAB_FAULTS ? faults[fault].text : "bad";
}

struct walk {
    const struct mm *mm;
    const struct kmem_cache *c;
    slab_fault_fn report;
    void *ctx;
    uint64_t faults;
};

static void fault(struct walk *w, enum slab_fault f, uint64_t pfn, uint64_t is, uint64_t should_be)
{
    w->faults++;
    if (w->report != NULL) {
        w->report(w->ctx, f, w->c, pfn_make(pfn), is, should_be);
    }
}

static void expect(struct walk *w, enum slab_fault f, uint64_t pfn, uint64_t is, uint64_t should_be)
{
    if (is != should_be) {
        fault(w, f, pfn, is, should_be);
    }
}

static enum migratetype cache_type(const struct kmem_cache *c)
{
    return c->flags & KMEM_RECLAIMABLE ? MIGRATE_RECLAIMABLE : c->flags & KMEM_ACCOUNT ? MIGRATE_ACCOUNTED : MIGRATE_UNMOVABLE;
}

static bool is_slab_of(const struct page *p, const struct kmem_cache *c)
{
    return page_state(p) == PAGE_USED && page_test(p, PG_SLAB) && p->mapping == c && page_order(p) == c->order;
}

/* The slab and index of an address, if it is an object of the cache; NULL else. */
static const struct page *find_object(const struct walk *w, const void *object, uint32_t *index)
{
    const struct kmem_cache *c = w->c;
    uintptr_t offset = (uintptr_t)object - c->map_base;
    uint64_t pfn = (uint64_t)(offset / FS_PAGE_BYTES) & ~((1ull << c->order) - 1);

    if ((uintptr_t)object < c->map_base || !mm_pfn_valid(w->mm, pfn_make(pfn)) || !is_slab_of(mm_page(w->mm, pfn_make(pfn)), c)) {
        return NULL;
    }
    offset -= (uintptr_t)pfn * FS_PAGE_BYTES;
    *index = (uint32_t)(offset / c->stride);
    return offset % c->stride == 0 && *index < c->objects ? mm_page(w->mm, pfn_make(pfn)) : NULL;
}

static bool waits(const struct kmem_cache *c, const void *object, unsigned before_cpu, uint32_t before)
{
    for (unsigned cpu = 0; cpu < c->cpu_count && cpu <= before_cpu; cpu++) {
        uint32_t count = c->cpu[cpu].count <= KMEM_MAGAZINE ? c->cpu[cpu].count : KMEM_MAGAZINE;

        for (uint32_t i = 0; i < (cpu == before_cpu ? before : count); i++) {
            if (c->cpu[cpu].objects[i] == object) {
                return true;
            }
        }
    }
    return false;
}

static void check_cpus(struct walk *w)
{
    const struct kmem_cache *c = w->c;

    for (unsigned cpu = 0; cpu < c->cpu_count; cpu++) {
        uint32_t count = c->cpu[cpu].count, index = 0;

        if (count > c->magazine) {
            fault(w, SLAB_FAULT_CPU_COUNT, FS_FRAME_NONE, count, c->magazine);
            continue;
        }
        for (uint32_t i = 0; i < count; i++) {
            const void *object = c->cpu[cpu].objects[i];
            const struct page *slab = find_object(w, object, &index);

            if (slab == NULL || !kmem_slab_out(slab, index) || waits(c, object, cpu, i)) {
                fault(w, SLAB_FAULT_CPU, slab != NULL ? slab->pfn : FS_FRAME_NONE, (uintptr_t)object, 0);
            }
        }
    }
}

/* Red zones of all objects, poison of the free ones. */
static void check_debug(struct walk *w, const struct page *slab)
{
    const struct kmem_cache *c = w->c;

    for (uint32_t i = 0; i < c->objects; i++) {
        unsigned char *object = kmem_object(slab, c, i);
        bool is_free = !kmem_slab_out(slab, i) || waits(c, object, c->cpu_count, 0);
        uint32_t at = 0;

        expect(w, SLAB_FAULT_REDZONE, slab->pfn, *kmem_redzone(c, object), is_free ? KMEM_RED_FREE : KMEM_RED_USED);
        while (is_free && c->ctor == NULL && at < c->size && object[at] == KMEM_POISON) {
            at++;
        }
        if (is_free && c->ctor == NULL && at < c->size) {
            fault(w, SLAB_FAULT_POISON, slab->pfn, object[at], KMEM_POISON);
        }
    }
}

/* One slab; returns the objects that are out of it. */
static uint32_t check_slab(struct walk *w, const struct page *slab, enum kmem_list which)
{
    const struct kmem_cache *c = w->c;
    uint32_t out = 0;

    for (uint32_t i = 0; i < KMEM_OBJECTS_MAX; i++) {
        if (kmem_slab_out(slab, i)) {
            out++;
            if (i >= c->objects) {
                fault(w, SLAB_FAULT_MAP, slab->pfn, i, c->objects);
            }
        }
    }
    expect(w, SLAB_FAULT_TYPE, slab->pfn, page_type(slab), cache_type(c));
    expect(w, SLAB_FAULT_LIST, slab->pfn, which, out == 0 ? KMEM_EMPTY : out == c->objects ? KMEM_FULL : KMEM_PARTIAL);
    if (kmem_debug(c)) {
        check_debug(w, slab);
    }
    return out;
}

static uint64_t slabs_in_memmap(const struct walk *w)
{
    uint64_t n = 0;

    for (uint64_t pfn = 0; pfn < w->mm->end_pfn; pfn++) {
        n += mm_pfn_valid(w->mm, pfn_make(pfn)) && is_slab_of(mm_page(w->mm, pfn_make(pfn)), w->c);
    }
    return n;
}

static void check_cache(struct walk *w, uint64_t slabs_max)
{
    const struct kmem_cache *c = w->c;
    uint64_t total = 0, used = 0;

    for (unsigned which = 0; which < KMEM_LISTS; which++) {
        const struct page *before = NULL;
        uint64_t n = 0;

        for (const struct page *slab = c->slabs[which]; slab != NULL; slab = slab->lru_next) {
            if (n > slabs_max || slab->lru_prev != before) {
                fault(w, SLAB_FAULT_LINK, slab->pfn, n, slabs_max);
                break;
            }
            if (!is_slab_of(slab, c)) {
                fault(w, SLAB_FAULT_PAGE, slab->pfn, page_word(slab), c->order);
                break;
            }
            used += check_slab(w, slab, (enum kmem_list)which);
            before = slab;
            n++;
        }
        expect(w, SLAB_FAULT_COUNT, FS_FRAME_NONE, c->slab_count[which], n);
        total += n;
    }
    expect(w, SLAB_FAULT_USED, FS_FRAME_NONE, c->used, used);
    expect(w, SLAB_FAULT_STRAY, FS_FRAME_NONE, slabs_max, total);
    check_cpus(w);
}

/* Pages that say they are slabs, of a cache that there is not. */
static void check_strays(struct walk *w)
{
    for (uint64_t pfn = 0; pfn < w->mm->end_pfn; pfn++) {
        const struct page *p = mm_pfn_valid(w->mm, pfn_make(pfn)) ? mm_page(w->mm, pfn_make(pfn)) : NULL;
        const struct kmem_cache *c = w->mm->caches;

        if (p == NULL || page_state(p) != PAGE_USED || !page_test(p, PG_SLAB)) {
            continue;
        }
        while (c != NULL && c != p->mapping) {
            c = c->next;
        }
        if (c == NULL) {
            fault(w, SLAB_FAULT_STRAY, pfn, (uintptr_t)p->mapping, 0);
        }
    }
}

uint64_t slab_fsck(const struct mm *mm, slab_fault_fn report, void *ctx)
{
    struct walk w = { .mm = mm, .report = report, .ctx = ctx };

    for (w.c = mm->caches; w.c != NULL; w.c = w.c->next) {
        check_cache(&w, slabs_in_memmap(&w));
    }
    check_strays(&w);
    return w.faults;
}

/*
 * slab.c - caches of equal objects, in slabs of pages.
 *
 * Owns: struct kmem_cache; of a slab's struct page: mapping (the cache), index and private (the map), lru_next, lru_prev.
 * Invariants:
 *   I1  an object is out (its bit in the slab's map is set) exactly while a user has it or it waits at a CPU.
 *   I2  a slab is on the list of its fullness: empty, partial, full; used is the number of bits set in all of them.
 *   I3  a constructed object that is free is in its constructed state: nothing of ours is ever written into it.
 *   I4  a page that has stopped to be a slab keeps its contents as long as somebody holds a reference: who walks a
 *       range may look at objects that are free by now.
 *   I5  users > 0 keeps the cache from being destroyed.
 * Lock order: mm->caches_lock; a CPU's lock, then cache.lock.  None is held when pages are taken or given back or an owner is called.
 * Why: the map of a slab fits into its struct page, so objects carry no header, need no link through them, and
 *   a slab of 64-byte objects fills its page to the last byte.  Objects of a slab that has become partial last are taken
 *   first: those slabs are the fullest, and the others get a chance to become empty.
 * Cost: the common call is one uncontended exchange and one array access.  A refill or a flush of half a magazine
 *   takes cache.lock once; a flushed object costs one division.
 */
#include "slab.h"
#include "page_alloc.h"
#include "frameshift/assert.h"

void *memset(void *to, int c, size_t bytes);

#define KEEP_EMPTY 1u               /* empty slabs that wait for the next refill */

#ifdef FS_SLOW_CHECKS
#define FLAGS_ALWAYS KMEM_DEBUG
#else
#define FLAGS_ALWAYS 0u
#endif

/* ---- lists of slabs. pre: cache.lock held ---- */

static void list_add(struct kmem_cache *c, enum kmem_list which, struct page *slab)
{
    struct page *first = c->slabs[which];

    slab->lru_prev = NULL;
    slab->lru_next = first;
    if (first != NULL) {
        first->lru_prev = slab;
    }
    c->slabs[which] = slab;
    c->slab_count[which]++;
}

static void list_del(struct kmem_cache *c, enum kmem_list which, struct page *slab)
{
    struct page *next = slab->lru_next, *prev = slab->lru_prev;

    if (next != NULL) {
        next->lru_prev = prev;
    }
    if (prev != NULL) {
        prev->lru_next = next;
    } else {
        c->slabs[which] = next;
    }
    c->slab_count[which]--;
}

/* The bits of a word, without asking for an instruction that not every machine has. */
static uint32_t bits_set(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555ull;
    x = (x & 0x3333333333333333ull) + (x >> 2 & 0x3333333333333333ull);
    return (uint32_t)(((x + (x >> 4)) & 0x0f0f0f0f0f0f0f0full) * 0x0101010101010101ull >> 56);
}

static uint32_t slab_out_count(const struct page *slab)
{
    return bits_set(slab->index) + bits_set(slab->private);
}

static enum kmem_list slab_list(const struct kmem_cache *c, uint32_t out)
{
    return out == 0 ? KMEM_EMPTY : out == c->objects ? KMEM_FULL : KMEM_PARTIAL;
}

static void slab_relist(struct kmem_cache *c, struct page *slab, uint32_t out_before)
{
    enum kmem_list was = slab_list(c, out_before), is = slab_list(c, slab_out_count(slab));

    if (was != is) {
        list_del(c, was, slab);
        list_add(c, is, slab);
    }
}

/* ---- objects and their slabs ---- */

/* The slab of an object; checks that it is one of this cache. */
static struct page *object_slab(const struct kmem_cache *c, const void *object, uint32_t *index)
{
    uintptr_t offset = (uintptr_t)object - c->map_base;
    uint64_t pfn = (uint64_t)(offset / FS_PAGE_BYTES) & ~((1ull << c->order) - 1);
    struct page *slab;

    ASSERT(mm_pfn_valid(c->mm, pfn_make(pfn)));
    slab = mm_page(c->mm, pfn_make(pfn));
    ASSERT(page_test(slab, PG_SLAB) && slab->mapping == c);
    offset -= (uintptr_t)pfn * FS_PAGE_BYTES;
    *index = (uint32_t)(offset / c->stride);
    ASSERT_CMP(offset % c->stride, ==, 0);
    ASSERT_CMP(*index, <, c->objects);
    return slab;
}

static uint64_t *slab_word(struct page *slab, uint32_t i)
{
    return i < 64 ? &slab->index : &slab->private;
}

/* Take up to n free objects of a slab. pre: cache.lock held */
static uint32_t slab_take(struct kmem_cache *c, struct page *slab, void **to, uint32_t n)
{
    uint32_t out = slab_out_count(slab), got = 0;

    for (uint32_t base = 0; base < c->objects && got < n; base += 64) {
        uint64_t *word = slab_word(slab, base);
        uint64_t valid = c->objects - base >= 64 ? UINT64_MAX : (1ull << (c->objects - base)) - 1;

        while (got < n && (~*word & valid) != 0) {
            uint32_t i = fs_ctz64(~*word & valid);

            *word |= 1ull << i;
            to[got++] = kmem_object(slab, c, base + i);
        }
    }
    c->used += got;
    slab_relist(c, slab, out);
    return got;
}

/* pre: cache.lock held */
static void slab_give(struct kmem_cache *c, void *object)
{
    uint32_t i, out;
    struct page *slab = object_slab(c, object, &i);

    ASSERT(kmem_slab_out(slab, i));                 /* freed twice */
    out = slab_out_count(slab);
    *slab_word(slab, i) &= ~(1ull << i % 64);
    c->used--;
    slab_relist(c, slab, out);
}

/* Cut empty slabs beyond keep off; a chain by lru_next, for slabs_release(). pre: cache.lock held */
static struct page *empty_slabs(struct kmem_cache *c, uint64_t keep)
{
    struct page *chain = NULL;

    while (c->slab_count[KMEM_EMPTY] > keep) {
        struct page *slab = c->slabs[KMEM_EMPTY];

        list_del(c, KMEM_EMPTY, slab);
        page_clear_flags(slab, PG_SLAB);
        __atomic_store_n(&slab->mapping, NULL, __ATOMIC_RELAXED);
        slab->lru_next = chain;
        chain = slab;
        c->reaped++;
    }
    return chain;
}

static uint64_t slabs_release(struct kmem_cache *c, struct page *chain)
{
    uint64_t pages = 0;

    while (chain != NULL) {
        struct page *next = chain->lru_next;

        chain->lru_next = NULL;
        page_put(c->mm, chain);
        pages += 1ull << c->order;
        chain = next;
    }
    return pages;
}

static void object_init(struct kmem_cache *c, void *object)
{
    if (kmem_debug(c)) {
        if (c->ctor == NULL) {
            memset(object, (int)KMEM_POISON, c->size);
        }
        *kmem_redzone(c, object) = KMEM_RED_FREE;
    }
    if (c->ctor != NULL) {
        c->ctor(object);
    }
}

/* A new empty slab. pre: no lock held */
static bool cache_grow(struct kmem_cache *c, gfp_t gfp)
{
    struct page *slab = alloc_pages(c->mm, (gfp & ~__GFP_ZERO) | c->gfp, c->order);

    if (slab == NULL) {
        return false;
    }
    /* The direct map is linear: that is what finds an object's page. */
    ASSERT_CMP((uintptr_t)arch_page_address(page_pfn(slab)), ==, c->map_base + (uintptr_t)slab->pfn * FS_PAGE_BYTES);
    for (uint32_t i = 0; i < c->objects; i++) {
        object_init(c, kmem_object(slab, c, i));
    }
    slab->index = slab->private = 0;
    __atomic_store_n(&slab->mapping, c, __ATOMIC_RELAXED);
    spin_lock(&c->lock);
    page_set_flags(slab, PG_SLAB);
    list_add(c, KMEM_EMPTY, slab);
    c->grown++;
    spin_unlock(&c->lock);
    return true;
}

/* ---- the fast path ---- */

static struct kmem_cpu *this_cpu(struct kmem_cache *c)
{
    unsigned cpu = arch_cpu_id();

    return &c->cpu[cpu < c->cpu_count ? cpu : 0];
}

/* pre: the CPU's lock is held, nothing waits there */
FS_NOINLINE static void refill(struct kmem_cache *c, struct kmem_cpu *cpu)
{
    uint32_t want = (c->magazine + 1) / 2;

    spin_lock(&c->lock);
    while (cpu->count < want) {
        struct page *slab = c->slabs[KMEM_PARTIAL] != NULL ? c->slabs[KMEM_PARTIAL] : c->slabs[KMEM_EMPTY];

        if (slab == NULL) {
            break;
        }
        cpu->count += slab_take(c, slab, cpu->objects + cpu->count, want - cpu->count);
    }
    spin_unlock(&c->lock);
}

/* Give the oldest n objects of a CPU back to their slabs; returns slabs to release. pre: the CPU's lock is held */
FS_NOINLINE static struct page *flush(struct kmem_cache *c, struct kmem_cpu *cpu, uint32_t n, uint64_t keep_empty)
{
    struct page *chain;

    spin_lock(&c->lock);
    for (uint32_t i = 0; i < n; i++) {
        slab_give(c, cpu->objects[i]);
    }
    chain = empty_slabs(c, keep_empty);
    spin_unlock(&c->lock);
    for (uint32_t i = n; i < cpu->count; i++) {
        cpu->objects[i - n] = cpu->objects[i];
    }
    cpu->count -= n;
    return chain;
}

static uint64_t drain(struct kmem_cache *c, uint64_t keep_empty)
{
    uint64_t pages = 0;

    for (unsigned i = 0; i < c->cpu_count; i++) {
        struct kmem_cpu *cpu = &c->cpu[i];
        struct page *chain;

        spin_lock(&cpu->lock);
        chain = flush(c, cpu, cpu->count, keep_empty);
        spin_unlock(&cpu->lock);
        pages += slabs_release(c, chain);
    }
    return pages;
}

static bool poison_intact(const struct kmem_cache *c, const void *object)
{
    const unsigned char *b = object;
    uint32_t i = 0;

    while (i < c->size && b[i] == KMEM_POISON) {
        i++;
    }
    return i == c->size;
}

static void debug_taken(const struct kmem_cache *c, void *object)
{
    ASSERT_CMP(*kmem_redzone(c, object), ==, KMEM_RED_FREE);
    ASSERT(c->ctor != NULL || poison_intact(c, object));    /* written to after it was freed */
    *kmem_redzone(c, object) = KMEM_RED_USED;
}

static void debug_given(const struct kmem_cache *c, void *object)
{
    uint32_t i;

    (void)object_slab(c, object, &i);
    ASSERT_CMP(*kmem_redzone(c, object), ==, KMEM_RED_USED);    /* freed twice, or written past its end */
    if (c->ctor == NULL) {
        memset(object, (int)KMEM_POISON, c->size);
    }
    *kmem_redzone(c, object) = KMEM_RED_FREE;
}

static void *try_alloc(struct kmem_cache *c)
{
    struct kmem_cpu *cpu = this_cpu(c);
    void *object = NULL;

    spin_lock(&cpu->lock);
    if (fs_unlikely(cpu->count == 0)) {
        refill(c, cpu);
    }
    if (fs_likely(cpu->count > 0)) {
        object = cpu->objects[--cpu->count];
        cpu->allocs++;
    }
    spin_unlock(&cpu->lock);
    return object;
}

void *kmem_cache_alloc(struct kmem_cache *c, gfp_t gfp)
{
    void *object;

    ASSERT(!(gfp & (__GFP_MOVABLE | __GFP_RECLAIMABLE | __GFP_ACCOUNT)) && !((gfp & __GFP_ZERO) && c->ctor != NULL));
    while (fs_unlikely((object = try_alloc(c)) == NULL)) {
        if (!cache_grow(c, gfp)) {
            (void)drain(c, KEEP_EMPTY);             /* what waits at other CPUs serves too */
            object = try_alloc(c);
            break;
        }
    }
    if (fs_unlikely(object == NULL)) {
        return NULL;
    }
    if (fs_unlikely(kmem_debug(c))) {
        debug_taken(c, object);
    }
    if (gfp & __GFP_ZERO) {
        memset(object, 0, c->size);
    }
    return object;
}

void kmem_cache_free(struct kmem_cache *c, void *object)
{
    struct kmem_cpu *cpu = this_cpu(c);
    struct page *chain = NULL;

    if (fs_unlikely(kmem_debug(c))) {
        debug_given(c, object);
    }
    spin_lock(&cpu->lock);
    if (fs_unlikely(cpu->count >= c->magazine)) {
        chain = flush(c, cpu, (c->magazine + 1) / 2, KEEP_EMPTY);
    }
    cpu->objects[cpu->count++] = object;
    cpu->frees++;
    spin_unlock(&cpu->lock);
    if (fs_unlikely(chain != NULL)) {
        (void)slabs_release(c, chain);
    }
}

/* ---- making and destroying caches ---- */

/* The smallest slab that wastes at most an eighth, or else the largest. */
static void choose_order(struct kmem_cache *c)
{
    for (c->order = 0; c->order <= KMEM_ORDER_MAX; c->order++) {
        uint32_t bytes = FS_PAGE_BYTES << c->order;

        c->objects = bytes / c->stride < KMEM_OBJECTS_MAX ? bytes / c->stride : KMEM_OBJECTS_MAX;
        if ((c->objects > 0 && (bytes - c->objects * c->stride) * 8 <= bytes) || c->order == KMEM_ORDER_MAX) {
            break;
        }
    }
    ASSERT_CMP(c->objects, >, 0);
    c->magazine = c->stride <= 256 ? KMEM_MAGAZINE : c->stride <= 1024 ? KMEM_MAGAZINE / 2 : KMEM_MAGAZINE / 8;
}

static void cache_init(struct kmem_cache *c, const char *name, uint32_t size, uint32_t align, unsigned flags,
                       void (*ctor)(void *object), const struct kmem_reclaim *reclaim)
{
    uint32_t bytes = size;

    align = flags & KMEM_PAGE_ALIGNED ? FS_PAGE_BYTES : align < 8 ? 8 : align;
    c->flags = flags | FLAGS_ALWAYS;
    if (kmem_debug(c)) {
        bytes = (size + 7) / 8 * 8 + (uint32_t)sizeof(uint64_t);
    }
    bytes = bytes < FS_PAGE_BYTES / KMEM_OBJECTS_MAX ? FS_PAGE_BYTES / KMEM_OBJECTS_MAX : bytes;
    c->size = size;
    c->stride = (bytes + align - 1) & ~(align - 1);
    c->gfp = (flags & KMEM_RECLAIMABLE ? __GFP_RECLAIMABLE : flags & KMEM_ACCOUNT ? __GFP_ACCOUNT : 0u);
    c->ctor = ctor;
    if (reclaim != NULL) {
        c->reclaim = *reclaim;
    }
    for (uint32_t i = 0; i + 1 < KMEM_NAME_BYTES && name[i] != '\0'; i++) {
        c->name[i] = name[i];
    }
    choose_order(c);
    c->gfp |= c->order > 0 ? __GFP_COMP : 0u;
}

struct kmem_cache *kmem_cache_create(struct mm *mm, const char *name, uint32_t size, uint32_t align, unsigned flags,
                                     void (*ctor)(void *object), const struct kmem_reclaim *reclaim)
{
    size_t bytes = sizeof(struct kmem_cache) + sizeof(struct kmem_cpu) * mm->cpus;
    struct kmem_cache *c;
    unsigned order = 0;
    struct page *p;

    ASSERT(size > 0 && size <= KMEM_SIZE_MAX && (align & (align - 1)) == 0 && align <= FS_PAGE_BYTES);
    ASSERT((flags & (KMEM_RECLAIMABLE | KMEM_ACCOUNT)) != (KMEM_RECLAIMABLE | KMEM_ACCOUNT));
    ASSERT(reclaim == NULL || ((flags & KMEM_RECLAIMABLE) && (reclaim->evict == NULL || ctor != NULL)));
    while (FS_PAGE_BYTES << order < bytes) {
        order++;
    }
    p = alloc_pages(mm, GFP_KERNEL | (order > 0 ? __GFP_COMP : 0u), order);
    if (p == NULL) {
        return NULL;
    }
    c = arch_page_address(page_pfn(p));
    memset(c, 0, bytes);
    c->mm = mm;
    c->map_base = (uintptr_t)c - (uintptr_t)p->pfn * FS_PAGE_BYTES;
    c->cpu_count = mm->cpus;
    cache_init(c, name, size, align, flags, ctor, reclaim);
    spin_lock(&mm->caches_lock);
    c->next = mm->caches;
    mm->caches = c;
    spin_unlock(&mm->caches_lock);
    return c;
}

mm_status_t kmem_cache_destroy(struct kmem_cache *c)
{
    struct mm *mm = c->mm;
    struct kmem_cache **at = &mm->caches;
    uint64_t used;

    (void)kmem_cache_shrink(c);
    spin_lock(&c->lock);
    used = c->used;
    spin_unlock(&c->lock);
    if (used > 0) {
        return MM_EBUSY;
    }
    spin_lock(&mm->caches_lock);
    while (c->users > 0) {                          /* I5 */
        spin_unlock(&mm->caches_lock);
        arch_cpu_relax();
        spin_lock(&mm->caches_lock);
    }
    while (*at != c) {
        ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    *at = c->next;
    spin_unlock(&mm->caches_lock);
    page_put(mm, mm_page(mm, pfn_make(((uintptr_t)c - c->map_base) / FS_PAGE_BYTES)));
    return MM_OK;
}

/* ---- counts and shrinking ---- */

uint64_t kmem_cache_used(struct kmem_cache *c)
{
    uint64_t waiting = 0, out;

    for (unsigned i = 0; i < c->cpu_count; i++) {
        spin_lock(&c->cpu[i].lock);
        waiting += c->cpu[i].count;
        spin_unlock(&c->cpu[i].lock);
    }
    spin_lock(&c->lock);
    out = c->used;
    spin_unlock(&c->lock);
    return out > waiting ? out - waiting : 0;
}

uint64_t kmem_cache_pages(struct kmem_cache *c)
{
    uint64_t slabs = 0;

    spin_lock(&c->lock);
    for (unsigned i = 0; i < KMEM_LISTS; i++) {
        slabs += c->slab_count[i];
    }
    spin_unlock(&c->lock);
    return slabs << c->order;
}

bool kmem_cache_owns(const struct kmem_cache *c, const void *object)
{
    uintptr_t offset = (uintptr_t)object - c->map_base;
    uint64_t pfn = (uint64_t)(offset / FS_PAGE_BYTES) & ~((1ull << c->order) - 1);
    const struct page *slab;

    if ((uintptr_t)object < c->map_base || !mm_pfn_valid(c->mm, pfn_make(pfn))) {
        return false;
    }
    slab = mm_page(c->mm, pfn_make(pfn));
    offset -= (uintptr_t)pfn * FS_PAGE_BYTES;
    return page_test(slab, PG_SLAB) && __atomic_load_n(&slab->mapping, __ATOMIC_RELAXED) == c && offset % c->stride == 0
        && offset / c->stride < c->objects;
}

/* The fullest partial slabs first, so that the emptiest have the best chance to become empty. pre: cache.lock held */
static void sort_partial(struct kmem_cache *c)
{
    struct page *by_out[KMEM_OBJECTS_MAX] = { NULL };

    while (c->slabs[KMEM_PARTIAL] != NULL) {
        struct page *slab = c->slabs[KMEM_PARTIAL];
        uint32_t out = slab_out_count(slab);

        list_del(c, KMEM_PARTIAL, slab);
        slab->lru_next = by_out[out];
        by_out[out] = slab;
    }
    for (uint32_t out = 1; out < KMEM_OBJECTS_MAX; out++) {
        while (by_out[out] != NULL) {
            struct page *slab = by_out[out];

            by_out[out] = slab->lru_next;
            list_add(c, KMEM_PARTIAL, slab);
        }
    }
}

uint64_t kmem_cache_shrink(struct kmem_cache *c)
{
    struct page *chain;
    uint64_t pages = drain(c, 0);

    spin_lock(&c->lock);
    sort_partial(c);
    chain = empty_slabs(c, 0);
    spin_unlock(&c->lock);
    return pages + slabs_release(c, chain);
}

/* ---- reclaim ---- */

/* The next cache after one that is pinned (NULL: the first), pinned instead of it; NULL: there is none. */
static struct kmem_cache *next_cache(struct mm *mm, struct kmem_cache *pinned)
{
    struct kmem_cache *next;

    spin_lock(&mm->caches_lock);
    next = pinned == NULL ? mm->caches : pinned->next;
    if (pinned != NULL) {
        pinned->users--;
    }
    if (next != NULL) {
        next->users++;                              /* I5 */
    }
    spin_unlock(&mm->caches_lock);
    return next;
}

uint64_t kmem_shrink_caches(struct mm *mm, uint64_t part, uint64_t whole)
{
    uint64_t pages = 0;

    ASSERT(whole > 0);
    part = part < whole ? part : whole;
    for (struct kmem_cache *c = next_cache(mm, NULL); c != NULL; c = next_cache(mm, c)) {
        if ((c->flags & KMEM_RECLAIMABLE) && c->reclaim.scan != NULL) {
            uint64_t objects = c->reclaim.count != NULL ? c->reclaim.count(c->reclaim.ctx) : kmem_cache_used(c);

            objects = (objects / whole) * part + (objects % whole) * part / whole;
            /* Less than a slab frees no page but by luck. */
            objects = objects < c->objects ? c->objects : objects;
            (void)c->reclaim.scan(c->reclaim.ctx, objects);
        }
        if ((c->flags & KMEM_RECLAIMABLE) || part >= whole / 4) {       /* what waits at CPUs is worth little */
            pages += kmem_cache_shrink(c);
        }
    }
    return pages;
}

/* The reclaimable cache that a page is a slab of, pinned; NULL: none, or its owner cannot be asked. pre: a reference is held on the page */
static struct kmem_cache *pin_cache_of(struct mm *mm, struct page *slab)
{
    const void *mapping = __atomic_load_n(&slab->mapping, __ATOMIC_RELAXED);
    struct kmem_cache *c;

    spin_lock(&mm->caches_lock);
    for (c = mm->caches; c != NULL && c != mapping; c = c->next) {
    }
    if (c != NULL && c->reclaim.evict != NULL) {
        c->users++;
    } else {
        c = NULL;
    }
    spin_unlock(&mm->caches_lock);
    return c;
}

static void unpin_cache(struct mm *mm, struct kmem_cache *c)
{
    spin_lock(&mm->caches_lock);
    c->users--;
    spin_unlock(&mm->caches_lock);
}

/* Ask for the objects of a slab one by one. pre: the cache is pinned, a reference is held on the page */
static bool evict_slab(struct kmem_cache *c, struct page *slab)
{
    bool any = false;

    for (uint32_t i = 0; i < c->objects; i++) {
        bool out;

        spin_lock(&c->lock);
        out = page_test(slab, PG_SLAB) && slab->mapping == c && kmem_slab_out(slab, i);
        spin_unlock(&c->lock);
        if (out) {
            any |= c->reclaim.evict(c->reclaim.ctx, kmem_object(slab, c, i));       /* I4: it may be free by now */
        }
    }
    return any;
}

uint64_t kmem_shrink_range(struct mm *mm, pfn_t start, pfn_t end)
{
    unsigned walk = mm_walk_begin(mm);
    uint64_t pages = 0;

    for (uint64_t pfn = start.n; pfn < end.n; pfn++) {
        struct page *p = mm_pfn_valid(mm, pfn_make(pfn)) ? mm_page(mm, pfn_make(pfn)) : NULL;
        struct kmem_cache *c = NULL;

        if (p == NULL || !page_test(p, PG_SLAB) || !page_try_get(p)) {
            continue;
        }
        if (page_test(p, PG_SLAB)) {
            c = pin_cache_of(mm, p);
        }
        if (c != NULL && evict_slab(c, p)) {
            pages += kmem_cache_shrink(c);
        }
        page_put(mm, p);
        if (c != NULL) {
            unpin_cache(mm, c);
        }
    }
    mm_walk_end(mm, walk);
    return pages;
}

uint64_t kmem_pages(struct mm *mm, bool reclaimable_only)
{
    uint64_t pages = 0;

    for (struct kmem_cache *c = next_cache(mm, NULL); c != NULL; c = next_cache(mm, c)) {
        if (!reclaimable_only || (c->flags & KMEM_RECLAIMABLE)) {
            pages += kmem_cache_pages(c);
        }
    }
    return pages;
}

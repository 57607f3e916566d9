/*
 * check_slab.c - caches of every kind: sizes, alignments, constructors, reclaim, red zones.
 *
 * Owns: the objects of its caches, in slots by number.
 * Invariants:
 *   I1  an object in use holds its number and its slot's stamp all over; where the cache has a constructor, its first word is what
 *       the constructor wrote, also right after it was taken.
 *   I2  an object lies where its cache says: aligned, inside the direct map.
 * Lock order: none (one vCPU).
 * Why: objects are reached through the direct map, whose address here is Xen's to allow.
 * Cost: a few thousand objects a cache.
 */
#include "check.h"
#include "../../mm/slab.h"
#include "../../mm/slab_fsck.h"

#define CONSTRUCTED 0xc0057ac7ed0b1ec7ull
#define SLOTS 1500u

struct kind {
    const char *name;
    uint32_t size, align;
    unsigned flags;
    bool ctor;
};
static const struct kind kinds[] = {
    { "word", 8, 0, 0, false },
    { "odd", 52, 0, KMEM_DEBUG, false },
    { "vma", 144, 0, KMEM_ACCOUNT, false },
    { "inode", 600, 64, KMEM_RECLAIMABLE, true },
    { "locked", 256, 0, KMEM_ACCOUNT | KMEM_DEBUG, true },
    { "page", 4096, 4096, KMEM_PAGE_ALIGNED, false },
    { "large", 9000, 0, KMEM_RECLAIMABLE, false },
};

static uint64_t *objects[SLOTS];
static uint64_t constructed;

static void construct(void *object)
{
    *(uint64_t *)object = CONSTRUCTED;
    constructed++;
}

static uint64_t stamp_of(uint32_t slot, uint32_t word)
{
    return (slot + 1) * 0x9e3779b97f4a7c15ull ^ word;
}

static void object_take(struct kmem_cache *cache, const struct kind *k, uint32_t slot)
{
    gfp_t zero = !k->ctor && slot % 3 == 0 ? __GFP_ZERO : 0;
    uint64_t *o = kmem_cache_alloc(cache, GFP_KERNEL | zero);

    objects[slot] = o;
    if (o == NULL) {
        return;
    }
    CHECK((uintptr_t)o >= DIRECT_BASE && (uintptr_t)o + k->size <= DIRECT_BASE + boot_memory.pages * FS_PAGE_BYTES, "an object is not in memory",
          (uintptr_t)o);
    CHECK((uintptr_t)o % (k->align != 0 ? k->align : 8) == 0, "an object is misaligned", (uintptr_t)o);
    CHECK(!k->ctor || o[0] == CONSTRUCTED, "an object is not constructed", (uintptr_t)o);
    for (uint32_t w = k->ctor; w < k->size / 8; w++) {
        CHECK(zero == 0 || o[w] == 0, "an object that should be zero is not", (uintptr_t)o);
        o[w] = stamp_of(slot, w);
    }
}

static void object_give(struct kmem_cache *cache, const struct kind *k, uint32_t slot)
{
    uint64_t *o = objects[slot];

    if (o == NULL) {
        return;
    }
    CHECK(!k->ctor || o[0] == CONSTRUCTED, "an object lost what it was constructed with", (uintptr_t)o);
    for (uint32_t w = k->ctor; w < k->size / 8; w++) {
        CHECK(o[w] == stamp_of(slot, w), "wrong bytes in an object", (uintptr_t)o);
    }
    objects[slot] = NULL;
    kmem_cache_free(cache, o);
}

static void print_fault(void *ctx, enum slab_fault fault, const struct kmem_cache *cache, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    print("  slab fsck: ");
    print(cache != NULL ? cache->name : "-");
    print(" ");
    print(slab_fault_name(fault));
    print_number(" pfn", pfn.n);
    print_number(" is", is);
    print_number(" should be", should_be);
    print_line("");
}

static void slab_check(struct check *c, const char *when)
{
    uint64_t faults;

    check_fsck(c, when);
    faults = slab_fsck(&c->mm, print_fault, NULL);
    CHECK(faults == 0, when, faults);
}

static void cache_use(struct check *c, const struct kind *k)
{
    struct kmem_cache *cache = kmem_cache_create(&c->mm, k->name, k->size, k->align, k->flags, k->ctor ? construct : NULL, NULL);
    uint64_t used = 0, slots = c->start_free / 8 * FS_PAGE_BYTES / k->size;
    mm_status_t status;

    CHECK(cache != NULL, "no cache of size", k->size);
    slots = slots < SLOTS ? slots : SLOTS;
    for (uint32_t i = 0; i < slots; i++) {
        object_take(cache, k, i);
        CHECK(objects[i] != NULL, "no object of size", k->size);
    }
    CHECK(kmem_cache_used(cache) == slots, "a cache counts other objects than are out", kmem_cache_used(cache));
    CHECK(kmem_cache_pages(cache) * FS_PAGE_BYTES >= slots * k->size, "a cache has too few pages", kmem_cache_pages(cache));
    slab_check(c, "faults in full slabs");
    for (uint32_t i = 0; i < 4 * slots; i++) {
        uint32_t slot = (uint32_t)check_random(c, slots);

        if (objects[slot] != NULL) {
            object_give(cache, k, slot);
        } else {
            object_take(cache, k, slot);
        }
    }
    slab_check(c, "faults in partial slabs");
    status = kmem_cache_destroy(cache);
    CHECK(status == MM_EBUSY, "a cache in use was destroyed", status);
    for (uint32_t i = 0; i < slots; i++) {
        used += objects[i] != NULL;
        object_give(cache, k, i);
    }
    CHECK(used > 0 && kmem_cache_used(cache) == 0, "a cache counts objects that are not out", kmem_cache_used(cache));
    c->objects += 4 * slots;
    slab_check(c, "faults in empty slabs");
    (void)kmem_cache_shrink(cache);
    CHECK(kmem_cache_pages(cache) == 0, "a cache without objects keeps pages", kmem_cache_pages(cache));
    status = kmem_cache_destroy(cache);
    CHECK(status == MM_OK, "an empty cache was not destroyed", status);
}

/* Reclaim asks the owner of a reclaimable cache: here, whoever holds objects[]. */
static struct { struct kmem_cache *cache; const struct kind *kind; uint64_t scanned; } owner;

static uint64_t reclaim_count(void *ctx)
{
    uint64_t n = 0;

    (void)ctx;
    for (uint32_t i = 0; i < SLOTS; i++) {
        n += objects[i] != NULL;
    }
    return n;
}

static uint64_t reclaim_scan(void *ctx, uint64_t want)
{
    uint64_t n = 0;

    (void)ctx;
    for (uint32_t i = 0; i < SLOTS && n < want; i++) {
        if (objects[i] != NULL) {
            object_give(owner.cache, owner.kind, i);
            n++;
        }
    }
    owner.scanned += n;
    return n;
}

static void cache_reclaim(struct check *c)
{
    static const struct kind kind = { "dentry", 192, 0, KMEM_RECLAIMABLE, true };
    struct kmem_reclaim reclaim = { .count = reclaim_count, .scan = reclaim_scan };
    uint64_t gained;
    mm_status_t status;

    owner.cache = kmem_cache_create(&c->mm, kind.name, kind.size, kind.align, kind.flags, construct, &reclaim);
    owner.kind = &kind;
    CHECK(owner.cache != NULL, "no reclaimable cache", 0);
    for (uint32_t i = 0; i < SLOTS; i++) {
        object_take(owner.cache, &kind, i);
        CHECK(objects[i] != NULL, "no reclaimable object", i);
    }
    gained = kmem_shrink_caches(&c->mm, 1, 2);
    CHECK(owner.scanned > 0 && gained > 0, "half of a reclaimable cache was asked for and no page came", gained);
    slab_check(c, "faults after reclaim");
    (void)kmem_shrink_caches(&c->mm, 1, 1);
    CHECK(kmem_cache_used(owner.cache) == 0 && kmem_pages(&c->mm, true) == 0, "reclaim of everything left something", kmem_cache_used(owner.cache));
    status = kmem_cache_destroy(owner.cache);
    CHECK(status == MM_OK, "the reclaimed cache was not destroyed", status);
}

void check_slab(struct check *c)
{
    for (unsigned i = 0; i < FS_ARRAY_SIZE(kinds); i++) {
        cache_use(c, &kinds[i]);
    }
    CHECK(constructed > 0, "no constructor ran", 0);
    cache_reclaim(c);
    c->caches = FS_ARRAY_SIZE(kinds) + 1;
}

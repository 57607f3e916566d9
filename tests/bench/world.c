/*
 * world.c - a replay by lifetime: objects live as they lived, our allocator places them.
 *
 * Owns: struct world.
 * Invariants:
 *   I1  object_of[trace pfn] names the object that lives there in the trace, and the object covers
 *       2^order entries from trace_pfn on.
 *   I2  an object's page is a used unit of its order whose private field is the object's number.
 * Lock order: none; one thread, but the CPU of each record is the one that it was recorded on.
 * Why: a trace's frames say what Linux decided.  Only lifetimes, sizes and what callers said are
 *   the workload; the rest is what is being compared.
 * Cost: O(1) a record, O(2^order) for the table.
 */
#include "world.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "mm_fsck.h"
#include "pageblock.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The recorded kernel's bits that mean something to us. */
gfp_t gfp_from_linux(uint32_t bits)
{
    static const struct { uint32_t linux_bit; gfp_t ours; } table[] = {
        { 0x2, __GFP_HIGHMEM }, { 0x8, __GFP_MOVABLE }, { 0x10, __GFP_RECLAIMABLE }, { 0x20, __GFP_HIGH }, { 0x200, __GFP_ATOMIC },
        { 0x400, __GFP_DIRECT_RECLAIM }, { 0x800, __GFP_KSWAPD_RECLAIM }, { 0x10000, __GFP_NORETRY }, { 0x20000, __GFP_MEMALLOC },
        { 0x400000, __GFP_ACCOUNT },
    };
    gfp_t gfp = 0;

    for (size_t i = 0; i < FS_ARRAY_SIZE(table); i++) {
        gfp |= bits & table[i].linux_bit ? table[i].ours : 0;
    }
    return gfp & __GFP_MOVABLE ? gfp & ~(__GFP_RECLAIMABLE | __GFP_ACCOUNT) : gfp;
}

static void *boot_alloc(void *ctx, size_t bytes, size_t align)
{
    struct world *w = ctx;
    void **boot = realloc(w->boot, sizeof(void *) * (w->boot_count + 1));
    void *p = aligned_alloc(align, (bytes + align - 1) / align * align);

    if (boot == NULL || p == NULL) {
        free(p);
        return NULL;
    }
    memset(p, 0, bytes);
    w->boot = boot;
    w->boot[w->boot_count++] = p;
    return p;
}

/* RAM is what lies between the holes; what was in use when the trace begins stays reserved. */
static mm_status_t build_memory(struct world *w, const struct pagetrace *t)
{
    struct mm_range *ram = calloc(t->hole_count + 1, sizeof(*ram));
    struct mm_config config = { .ram = ram, .cpus = 2, .policy = w->options.policy, .movable_low = w->options.movable_low,
                                .kernelcore_pages = w->options.kernelcore_pages,
                                .pcp_batch = w->options.pcp_batch, .pcp_high = w->options.pcp_high, .boot_alloc = boot_alloc,
                                .boot_ctx = w };
    uint64_t at = 0;
    mm_status_t status = MM_ENOMEM;

    for (size_t i = 0; ram != NULL && i <= t->hole_count; i++) {
        uint64_t end = i < t->hole_count ? t->hole_runs[i].first_pfn : t->pfns;

        if (end > at) {
            ram[config.ram_count++] = (struct mm_range){ pfn_make(at), pfn_make(end), 0 };
        }
        at = i < t->hole_count ? end + t->hole_runs[i].pages : at;
    }
    for (size_t i = 0; i < t->zone_count; i++) {
        config.min_free_pages += t->zones[i].min;
    }
    if (ram != NULL) {
        status = mm_init(&w->mm, &config);
        if (status == MM_OK) {
            status = compaction_init(&w->mm, &config);
        }
    }
    free(ram);
    return status;
}

static void wake(struct mm *mm, struct zone *zone)
{
    struct world *w = FS_CONTAINER_OF(mm, struct world, mm);

    (void)zone;
    w->woken = true;
}

/* Our migration: the object learns its new place. */
static mm_status_t move(void *ctx, struct page *from, struct page *to)
{
    struct world *w = ctx;
    struct object *o = &w->objects[from->private];

    if (o->pinned) {
        return MM_EBUSY;
    }
    to->private = from->private;
    o->page = to;
    page_put(&w->mm, from);                 /* the owner's reference; the caller still has one */
    w->migrated += 1ull << o->order;
    return MM_OK;
}

bool world_init(struct world *w, const struct pagetrace *t, const struct world_options *options, char *error, size_t error_bytes)
{
    uint64_t at = 0;

    *w = (struct world){ .options = *options, .pfns = t->pfns, .object_count = OBJECT_FIRST, .free_least = UINT64_MAX };
    w->object_of = calloc(t->pfns, sizeof(uint32_t));
    if (w->object_of == NULL || build_memory(w, t) != MM_OK) {
        snprintf(error, error_bytes, "%s: memory of %" PRIu64 " pages cannot be built", t->name, t->pfns);
        world_free(w);
        return false;
    }
    w->mm.hooks.wake = wake;
    w->mm.migrate.move = move;
    w->mm.migrate.ctx = w;
    if (options->claim_window >= 0) {
        w->mm.claim_window = (uint32_t)options->claim_window;
    }
    if (options->proactiveness >= 0) {
        w->mm.compaction_proactiveness = (uint32_t)options->proactiveness;
    }
    for (size_t i = 0; i <= t->init_count; i++) {
        uint64_t end = i < t->init_count ? t->init_runs[i].first_pfn : t->pfns;

        mm_free_boot(&w->mm, pfn_make(at), pfn_make(end));
        for (uint64_t pfn = end; i < t->init_count && pfn < end + t->init_runs[i].pages; pfn++) {
            w->object_of[pfn] = OBJECT_BOOT;
            w->boot_pages_left++;
        }
        at = i < t->init_count ? end + t->init_runs[i].pages : at;
    }
    mm_boot_done(&w->mm);
    w->live_pages = w->boot_pages_left;
    return true;
}

static uint32_t object_new(struct world *w)
{
    uint32_t id = w->object_free;

    if (id != 0) {
        w->object_free = w->objects[id].next_free;
        return id;
    }
    if (w->object_count == w->object_capacity || w->objects == NULL) {
        uint32_t capacity = w->object_capacity != 0 ? w->object_capacity * 2 : 1u << 16;
        struct object *objects = realloc(w->objects, sizeof(*objects) * capacity);

        if (objects == NULL) {
            return OBJECT_NONE;
        }
        w->objects = objects;
        w->object_capacity = capacity;
    }
    return w->object_count++;
}

static void set_names(struct world *w, uint64_t trace_pfn, unsigned order, uint32_t id)
{
    for (uint64_t i = 0; i < 1ull << order; i++) {
        w->object_of[trace_pfn + i] = id;
    }
}

static bool do_alloc(struct world *w, const struct trace_record *r)
{
    gfp_t gfp = gfp_from_linux(r->gfp);
    struct page *p = alloc_pages(&w->mm, gfp, r->order);
    uint32_t id = OBJECT_LOST;

    w->allocs++;
    if (p == NULL) {
        /* The recorded kernel had reclaimed enough; what the trace says is live must fit. */
        w->below_watermark++;
        p = alloc_pages(&w->mm, gfp | __GFP_MEMALLOC, r->order);
    }
    w->alloc_failed += p == NULL;
    if (p != NULL) {
        id = object_new(w);
        if (id == OBJECT_NONE) {
            return false;
        }
        w->objects[id] = (struct object){ .page = p, .trace_pfn = (uint32_t)r->pfn, .order = r->order, .type = r->type };
        p->private = id;
        w->live_pages += 1ull << r->order;
    }
    set_names(w, r->pfn, r->order, id);
    w->live_peak = w->live_pages > w->live_peak ? w->live_pages : w->live_peak;
    w->free_least = w->pfns - w->live_pages < w->free_least ? w->pfns - w->live_pages : w->free_least;
    return true;
}

/* Cut an object into objects of order. */
static bool split_object(struct world *w, uint32_t id, unsigned order)
{
    struct object whole = w->objects[id];

    page_split(whole.page, order);
    for (uint32_t i = 0; i < 1u << whole.order; i += 1u << order) {
        uint32_t part = i == 0 ? id : object_new(w);

        if (part == OBJECT_NONE) {
            return false;
        }
        w->objects[part] = whole;
        w->objects[part].page = whole.page + i;
        w->objects[part].trace_pfn = whole.trace_pfn + i;
        w->objects[part].order = (uint8_t)order;
        whole.page[i].private = part;
        set_names(w, whole.trace_pfn + i, order, part);
    }
    return true;
}

void world_free_object(struct world *w, uint32_t id)
{
    struct object *o = &w->objects[id];

    set_names(w, o->trace_pfn, o->order, OBJECT_NONE);
    w->live_pages -= 1ull << o->order;
    page_put(&w->mm, o->page);
    *o = (struct object){ .next_free = w->object_free };
    w->object_free = id;
}

/* Make objects end at the edges of [pfn, pfn + 2^order). */
static bool cut_at_edges(struct world *w, uint64_t pfn, unsigned order)
{
    uint32_t id = w->object_of[pfn];

    return id < OBJECT_FIRST || w->objects[id].order <= order || split_object(w, id, order);
}

static bool do_free(struct world *w, const struct trace_record *r)
{
    if (r->flags & (TRACE_FREE_MOVED | TRACE_FREE_UNUSED)) {
        return true;                        /* an old copy or an unused target: the trace's own compaction */
    }
    if (!cut_at_edges(w, r->pfn, r->order)) {
        return false;
    }
    w->frees++;
    for (uint64_t pfn = r->pfn; pfn < r->pfn + (1ull << r->order); pfn++) {
        uint32_t id = w->object_of[pfn];

        if (id >= OBJECT_FIRST) {
            world_free_object(w, id);
        } else {
            w->object_of[pfn] = OBJECT_NONE;
            if (id == OBJECT_BOOT) {
                w->boot_pages_left--;
                w->live_pages -= mm_free_boot(&w->mm, pfn_make(pfn), pfn_make(pfn + 1));
            }
        }
    }
    return true;
}

/* The trace's own compaction renamed a range. */
static bool do_migrate(struct world *w, const struct trace_record *r)
{
    uint64_t from = r->pfn, to = r->other_pfn, pages = 1ull << r->order;

    if (!cut_at_edges(w, from, r->order)) {
        return false;
    }
    for (uint64_t i = 0; i < pages; i++) {
        uint32_t id = w->object_of[from + i];

        if (id >= OBJECT_FIRST && w->objects[id].trace_pfn == from + i) {
            w->objects[id].trace_pfn = (uint32_t)(to + i);
        }
        w->object_of[to + i] = id == OBJECT_BOOT ? OBJECT_NONE : id;
        w->object_of[from + i] = id == OBJECT_BOOT ? OBJECT_BOOT : OBJECT_NONE;
    }
    return true;
}

void world_background(struct world *w)
{
    if (w->woken) {
        w->woken = false;
        for (uint32_t i = 0; i < w->mm.zone_count; i++) {
            (void)compaction_background(&w->mm, &w->mm.zones[i]);
        }
    }
}

bool world_step(struct world *w, const struct trace_record *r, char *error, size_t error_bytes)
{
    bool ok = true;

    arch_hosted_set_cpu(r->cpu);
    switch (r->kind) {
    case TRACE_ALLOC:
        for (uint64_t i = 0; i < 1ull << r->order; i++) {
            if (w->object_of[r->pfn + i] != OBJECT_NONE) {
                snprintf(error, error_bytes, "the trace allocates pfn %" PRIu64 " twice", r->pfn + i);
                return false;
            }
        }
        ok = do_alloc(w, r);
        break;
    case TRACE_FREE:
        ok = do_free(w, r);
        break;
    case TRACE_MIGRATE:
        ok = do_migrate(w, r);
        break;
    default:
        break;
    }
    world_background(w);                /* after the request */
    if (r->time_us >= w->next_tick_us) {
        w->next_tick_us = r->time_us + KCOMPACTD_TICK_NS / 1000;
        for (uint32_t node = 0; node < w->mm.node_count; node++) {
            (void)compaction_proactive(&w->mm, node);
        }
    }
    if (!ok) {
        snprintf(error, error_bytes, "out of memory for objects");
    }
    return ok;
}

void world_set_kinds(struct world *w, const uint8_t *kinds)
{
    for (uint32_t id = OBJECT_FIRST; id < w->object_count; id++) {
        if (w->objects[id].page != NULL) {
            w->objects[id].kind = kinds[w->objects[id].trace_pfn];
        }
    }
}

static void print_fault(void *ctx, enum mm_fault fault, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    fprintf(stderr, "fsck: %s at pfn %" PRIu64 ": %s (is %" PRIu64 ", should be %" PRIu64 ")\n", mm_fault_name(fault), pfn.n,
            mm_fault_text(fault), is, should_be);
}

uint64_t world_check(struct world *w)
{
    uint64_t faults = mm_fsck(&w->mm, print_fault, NULL), live = w->boot_pages_left;

    for (uint32_t id = OBJECT_FIRST; id < w->object_count; id++) {
        const struct object *o = &w->objects[id];

        if (o->page == NULL) {
            continue;
        }
        live += 1ull << o->order;
        if (page_state(o->page) != PAGE_USED || page_order(o->page) != o->order || o->page->private != id
            || w->object_of[o->trace_pfn] != id) {
            fprintf(stderr, "fsck: object %u is not on its page\n", id);
            faults++;
        }
    }
    if (live != w->live_pages) {
        fprintf(stderr, "fsck: %" PRIu64 " pages live, counted %" PRIu64 "\n", live, w->live_pages);
        faults++;
    }
    return faults;
}

void world_free(struct world *w)
{
    for (size_t i = 0; i < w->boot_count; i++) {
        free(w->boot[i]);
    }
    free(w->boot);
    free(w->object_of);
    free(w->objects);
    *w = (struct world){ .pfns = 0 };
}

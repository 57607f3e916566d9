/*
 * coop.c - the guest's side of frameshift/abi.h: one request at a time.
 *
 * Layer: L7
 * Owns: the shared pages, the session, the export.
 * Invariants:
 *   I1  every word of a shared page is read once, into memory of our own, and checked there.
 *   I2  between two calls of coop_poll() no page is half moved: a new session is answered at once.
 *   I3  at most FS_ABI_SLOTS requests can be open; an index that says otherwise sets `broken`, and nothing more is served.
 *   I4  an answer is complete before response_produced says so (release).
 * Lock order: none; one caller.
 * Why polling: a request is rare and may wait a millisecond; no event channel is needed to begin with.
 * Cost: an idle poll reads two words.
 */
#include "coop.h"
#include "compaction.h"
#include "coop_table.h"
#include "frameshift/assert.h"
#include "page_alloc.h"
#include "pageblock.h"
#include "shrink.h"

static uint32_t read_once(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void *shared_pages(struct mm *mm, unsigned order, pfn_t *pfn)
{
    struct page *p = alloc_pages(mm, GFP_KERNEL | __GFP_ZERO, order);

    if (p == NULL) {
        return NULL;
    }
    *pfn = page_pfn(p);
    return arch_page_address(page_pfn(p));
}

mm_status_t coop_init(struct coop *c, struct mm *mm, struct vm *vm, const struct hotplug_ops *hotplug)
{
    uint64_t blocks = mm->end_pfn / FS_ABI_BLOCK_PAGES, pages = (blocks + FS_ABI_BLOCKS_PER_PAGE - 1) / FS_ABI_BLOCKS_PER_PAGE;
    unsigned order = 0;
    pfn_t pfn;

    __builtin_memset(c, 0, sizeof(*c));
    c->mm = mm;
    c->vm = vm;
    c->hotplug = hotplug != NULL ? *hotplug : (struct hotplug_ops){ 0 };
    relocate_init(&c->relocate, mm, vm);
    c->control = shared_pages(mm, 0, &c->control_pfn);
    if (c->control == NULL) {
        return MM_ENOMEM;
    }
    for (unsigned i = 0; i < FS_ABI_SLOTS; i++) {
        c->list[i] = shared_pages(mm, 0, &pfn);
        if (c->list[i] == NULL) {
            return MM_ENOMEM;
        }
        c->control->list_pfn[i] = pfn.n;
    }
    while ((1ull << order) < pages) {
        order++;
    }
    c->blocks = order <= MAX_ORDER ? shared_pages(mm, order, &pfn) : NULL;
    if (c->blocks != NULL) {
        c->control->export_pfn = pfn.n;
        c->control->export_pages = c->export_pages = (uint32_t)pages;
    }
    c->control->magic = FS_ABI_MAGIC;
    c->control->version = FS_ABI_VERSION;
    c->control->features = FS_ABI_FEATURE_SHRINK_VALUES | FS_ABI_FEATURE_INFO;
    c->control->pfn_end = mm->end_pfn;
    c->control->block_pages = FS_ABI_BLOCK_PAGES;
    return MM_OK;
}

/* ---- the export ---- */

static struct fs_abi_block *export_block(struct coop *c, uint64_t block)
{
    unsigned char *page = (unsigned char *)c->blocks + block / FS_ABI_BLOCKS_PER_PAGE * FS_PAGE_BYTES;

    return (struct fs_abi_block *)(void *)page + block % FS_ABI_BLOCKS_PER_PAGE;
}

static void export_one(struct coop *c, uint32_t block)
{
    struct fs_abi_block *b = export_block(c, block);
    struct page *pages;

    __builtin_memset(b, 0, sizeof(*b));
    if (!mm_pfn_valid(c->mm, block_pfn(block)) || mm_block(c->mm, block)->offline) {
        b->flags = FS_ABI_BLOCK_ABSENT;
        return;
    }
    b->type = (uint8_t)pageblock_type(c->mm, block);
    pages = mm_block_page(c->mm, block);
    for (uint32_t i = 0; i < FS_ABI_BLOCK_PAGES;) {
        uint32_t word = page_word(&pages[i]), n = 1u << word_order(word);
        bool free = word_state(word) == PAGE_PCP || page_is_free(c->mm, &pages[i]);

        n = n > FS_ABI_BLOCK_PAGES - i || word_state(word) == PAGE_NONE ? 1 : n;   /* a snapshot without locks: order may be anything */
        for (uint32_t k = i; free && k < i + n; k++) {
            b->free[k / 64] |= 1ull << k % 64;
        }
        b->free_pages = (uint16_t)(b->free_pages + (free ? n : 0));
        i += n;
    }
}

static void export_all(struct coop *c)
{
    unsigned walk = mm_walk_begin(c->mm);

    for (uint32_t block = 0; c->blocks != NULL && block < c->mm->end_pfn / FS_ABI_BLOCK_PAGES; block++) {
        export_one(c, block);
    }
    mm_walk_end(c->mm, walk);
    c->export_sequence++;
}

/* ---- requests ---- */

static enum fs_abi_status do_query(struct coop *c, const struct fs_abi_request *q, struct fs_abi_response *a)
{
    uint64_t free_blocks = 0;

    if (q->flags & FS_ABI_QUERY_EXPORT) {
        export_all(c);
    }
    for (uint32_t z = 0; z < c->mm->zone_count; z++) {
        a->value[FS_ABI_QUERIED_PAGES] += c->mm->zones[z].managed_pages;
        for (unsigned t = 0; t < MIGRATE_TYPES; t++) {
            free_blocks += c->mm->zones[z].free_units[PAGEBLOCK_ORDER][t];
        }
    }
    a->value[FS_ABI_QUERIED_FREE_PAGES] = mm_free_pages(c->mm);
    a->value[FS_ABI_QUERIED_FREE_BLOCKS] = free_blocks;
    a->value[FS_ABI_QUERIED_GIVEN_PAGES] = c->given_pages;
    a->value[FS_ABI_QUERIED_STOP_COUNT] = c->relocate.stops;
    a->value[FS_ABI_QUERIED_STOP_LONGEST_NS] = c->relocate.longest_ns;
    a->value[FS_ABI_QUERIED_STOP_P99_NS] = relocate_stop_ns(&c->relocate, 990);
    a->value[FS_ABI_QUERIED_STOP_P50_NS] = relocate_stop_ns(&c->relocate, 500);
    a->value[FS_ABI_QUERIED_EXPORT_SEQUENCE] = c->export_sequence;
    a->value[FS_ABI_QUERIED_SHRINK_PAGES] = c->hotplug.give != NULL ? shrink_possible(c->mm) : 0;
    return FS_ABI_STATUS_OK;
}

static enum fs_abi_status do_move(struct coop *c, unsigned slot, const struct fs_abi_request *q, struct fs_abi_response *a)
{
    struct relocate_counts counts;
    bool valid = q->count >= 1 && q->count <= FS_ABI_LIST_MAX;

    for (uint32_t i = 0; valid && i < q->count; i++) {                     /* I1 */
        struct fs_abi_move m;

        __builtin_memcpy(&m, &c->list[slot][i], sizeof(m));
        valid = m.reserved == 0;
        c->entries[i] = (struct relocate_entry){ .pfn = pfn_make(m.pfn), .from = mfn_make(m.from), .to = mfn_make(m.to) };
    }
    if (!valid) {
        return FS_ABI_STATUS_INVALID;
    }
    relocate_pages(&c->relocate, c->entries, q->count, (q->flags & FS_ABI_MOVE_VERIFY) != 0, &counts);
    for (uint32_t i = 0; i < q->count; i++) {
        c->list[slot][i].status = c->entries[i].status;
    }
    __builtin_memcpy(a->value, counts.value, sizeof(counts.value));
    a->count = q->count;
    c->moved_free += counts.value[FS_ABI_MOVED_FREE];
    c->moved_user += counts.value[FS_ABI_MOVED_USER];
    c->moved_kernel += counts.value[FS_ABI_MOVED_KERNEL];
    c->moved_table += counts.value[FS_ABI_MOVED_TABLE];
    c->failed += counts.value[FS_ABI_MOVED_FAILED];
    return counts.value[FS_ABI_MOVED_FAILED] > 0 ? FS_ABI_STATUS_PARTIAL : FS_ABI_STATUS_OK;
}

static enum fs_abi_status do_compact(struct coop *c, const struct fs_abi_request *q, struct fs_abi_response *a)
{
    struct compact_request request = { .targets = TARGET_DEFAULT, .mode = COMPACT_SYNC, .ignore_hints = true };
    uint64_t wanted = q->argument[0] == 0 || q->argument[0] > UINT32_MAX ? UINT32_MAX : q->argument[0];

    if (c->mm->migrate.move == NULL) {
        return FS_ABI_STATUS_UNSUPPORTED;
    }
    for (uint32_t z = 0; z < c->mm->zone_count && a->count < wanted; z++) {
        struct compact_result result = { 0 };

        request.blocks_wanted = (uint32_t)(wanted - a->count);
        if (compact_zone(c->mm, &c->mm->zones[z], &request, &result) == MM_OK) {
            a->count += result.blocks_made;
        }
    }
    return FS_ABI_STATUS_OK;
}

static enum fs_abi_status answer_pages(struct fs_abi_response *a, uint64_t want, const struct shrink_result *r)
{
    const uint64_t values[FS_ABI_SHRUNK_VALUES] = {
        [FS_ABI_SHRUNK_BLOCKS] = r->blocks, [FS_ABI_SHRUNK_SINGLE_PAGES] = r->single_pages, [FS_ABI_SHRUNK_EXTENTS] = r->machine_extents,
        [FS_ABI_SHRUNK_SECTIONS] = r->sections, [FS_ABI_SHRUNK_MIGRATED] = r->migrated_pages, [FS_ABI_SHRUNK_RESIDUAL_BLOCKS] = r->residual_blocks,
        [FS_ABI_SHRUNK_STAYS_DMA] = r->stays[SHRINK_STAYS_dma], [FS_ABI_SHRUNK_STAYS_BOOT] = r->stays[SHRINK_STAYS_boot],
        [FS_ABI_SHRUNK_STAYS_TABLE] = r->stays[SHRINK_STAYS_table], [FS_ABI_SHRUNK_STAYS_KERNEL] = r->stays[SHRINK_STAYS_kernel],
        [FS_ABI_SHRUNK_STAYS_BUSY] = r->stays[SHRINK_STAYS_busy], [FS_ABI_SHRUNK_MEMMAP] = r->memmap_pages,
    };

    __builtin_memcpy(a->value, values, sizeof(values));
    a->count = r->pages > UINT32_MAX ? UINT32_MAX : (uint32_t)r->pages;
    return r->pages >= want ? FS_ABI_STATUS_OK : r->low ? FS_ABI_STATUS_NO_MEMORY : FS_ABI_STATUS_PARTIAL;
}

static enum fs_abi_status do_shrink(struct coop *c, const struct fs_abi_request *q, struct fs_abi_response *a)
{
    struct shrink_result r;

    if (c->hotplug.give == NULL) {
        return FS_ABI_STATUS_UNSUPPORTED;
    }
    shrink_pages(c->mm, q->argument[0], &c->hotplug, &r);
    c->given_pages += r.pages;
    return answer_pages(a, q->argument[0], &r);
}

static enum fs_abi_status do_grow(struct coop *c, const struct fs_abi_request *q, struct fs_abi_response *a)
{
    struct shrink_result r;

    if (c->hotplug.take == NULL) {
        return FS_ABI_STATUS_UNSUPPORTED;
    }
    grow_pages(c->mm, q->argument[0], &c->hotplug, &r);
    c->given_pages -= r.pages < c->given_pages ? r.pages : c->given_pages;
    return answer_pages(a, q->argument[0], &r);
}

static enum fs_abi_status do_info(struct coop *c, unsigned slot, const struct fs_abi_request *q, struct fs_abi_response *a)
{
    return coop_table_page(c->mm, c->vm, q->argument[0], q->argument[1], c->list[slot], &a->count, &a->value[FS_ABI_INFO_TOTAL]);
}

static enum fs_abi_status do_tune(struct coop *c, unsigned slot, struct fs_abi_response *a)
{
    struct fs_abi_value wanted;

    __builtin_memcpy(&wanted, c->list[slot], sizeof(wanted));                         /* I1 */
    return coop_table_tune(c->mm, &wanted, a->value);
}

static bool request_valid(const struct fs_abi_request *q)
{
    uint16_t flags = q->op == FS_ABI_QUERY ? FS_ABI_QUERY_EXPORT : q->op == FS_ABI_MOVE ? FS_ABI_MOVE_VERIFY : 0;
    bool info = q->op == FS_ABI_INFO, argued = q->op == FS_ABI_COMPACT || q->op == FS_ABI_SHRINK || q->op == FS_ABI_GROW || info;

    return (q->flags & ~flags) == 0 && q->reserved == 0 && (info || q->argument[1] == 0) && (argued || q->argument[0] == 0)
           && (q->op == FS_ABI_MOVE || q->count == (q->op == FS_ABI_TUNE));
}

static void serve(struct coop *c, uint32_t number)
{
    unsigned slot = number % FS_ABI_SLOTS;
    struct fs_abi_request q;
    struct fs_abi_response a = { 0 };
    enum fs_abi_status s = FS_ABI_STATUS_UNSUPPORTED;

    __builtin_memcpy(&q, &c->control->request[slot], sizeof(q));                      /* I1 */
    a.id = q.id;
    a.op = q.op;
    if (q.op >= FS_ABI_QUERY && q.op <= FS_ABI_TUNE && !request_valid(&q)) {
        s = FS_ABI_STATUS_INVALID;
    } else if (q.op == FS_ABI_QUERY) {
        s = do_query(c, &q, &a);
    } else if (q.op == FS_ABI_MOVE) {
        s = do_move(c, slot, &q, &a);
    } else if (q.op == FS_ABI_COMPACT) {
        s = do_compact(c, &q, &a);
    } else if (q.op == FS_ABI_SHRINK) {
        s = do_shrink(c, &q, &a);
    } else if (q.op == FS_ABI_GROW) {
        s = do_grow(c, &q, &a);
    } else if (q.op == FS_ABI_INFO) {
        s = do_info(c, slot, &q, &a);
    } else if (q.op == FS_ABI_TUNE) {
        s = do_tune(c, slot, &a);
    }
    a.status = (uint16_t)s;
    c->requests++;
    c->invalid += s == FS_ABI_STATUS_INVALID || s == FS_ABI_STATUS_UNSUPPORTED;
    __builtin_memcpy(&c->control->response[slot], &a, sizeof(a));
    c->served = number + 1;
    __atomic_store_n(&c->control->response_produced, c->served, __ATOMIC_RELEASE);     /* I4 */
}

static void new_session(struct coop *c, uint32_t session)
{
    c->session = session;
    c->served = 0;
    c->sessions++;
    __builtin_memset(c->control->request, 0, sizeof(c->control->request));
    __builtin_memset(c->control->response, 0, sizeof(c->control->response));
    c->control->broken = 0;
    c->control->request_produced = 0;
    c->control->response_produced = 0;
    __atomic_store_n(&c->control->session_guest, session, __ATOMIC_RELEASE);
}

bool coop_poll(struct coop *c)
{
    uint32_t session = read_once(&c->control->session_hv), produced;

    if (session != c->session) {
        new_session(c, session);
        return true;
    }
    produced = read_once(&c->control->request_produced);
    if (session == 0 || produced == c->served || c->control->broken != 0) {
        return false;
    }
    if (produced - c->served > FS_ABI_SLOTS) {                              /* I3 */
        c->broken++;
        c->control->broken = 1;
        return true;
    }
    serve(c, c->served);
    return true;
}

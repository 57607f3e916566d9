/*
 * coop_table.c - the tables that the tool reads of a guest, and what it may set.
 *
 * Layer: L7
 * Owns: nothing; it reads, and sets tunables.
 * Invariants:
 *   I1  every byte of a list page that is answered is written here: nothing of the kernel's is left in it.
 *   I2  a name from outside is used only if it ends within its field and everything that must be 0 is.
 * Lock order: zone lock for the rows of a zone; the counters are read without.
 * Why pages of a table: an answer has twelve words, a guest has a hundred counters.
 * Cost: a table is walked once for each page of it.
 */
#include "coop_table.h"
#include "fragmentation.h"
#include "tunables.h"
#include "vmstat.h"

_Static_assert(FS_ABI_ORDERS == MAX_ORDER + 1 && FS_ABI_TYPES == MIGRATE_TYPES, "the tables have every order and type");

struct page_of_values { struct fs_abi_value *at; uint64_t first, seen; uint32_t count; };

static void name_copy(char to[FS_ABI_NAME_BYTES], const char *from)
{
    for (unsigned i = 0; i < FS_ABI_NAME_BYTES - 1 && from[i] != '\0'; i++) {
        to[i] = from[i];                        /* the rest is 0 already */
    }
}

static struct fs_abi_value *next_value(struct page_of_values *p, const char *name)
{
    struct fs_abi_value *v = NULL;

    if (p->seen++ >= p->first && p->count < FS_ABI_VALUES_PER_PAGE) {
        v = &p->at[p->count++];
        name_copy(v->name, name);
    }
    return v;
}

static void put_counter(void *ctx, const char *name, uint64_t value)
{
    struct fs_abi_value *v = next_value(ctx, name);

    if (v != NULL) {
        v->value = value;
    }
}

/* The allocator's own, where there is no virtual memory above it. */
static void put_zone_counters(const struct mm *mm, struct page_of_values *p)
{
    put_counter(p, "nr_free_pages", mm_free_pages(mm));
    for (unsigned c = 0; c < ZONE_COUNTERS; c++) {
        put_counter(p, zone_counter_name((enum zone_counter)c), mm_counter(mm, (enum zone_counter)c));
    }
}

static void put_tunables(const struct mm *mm, struct page_of_values *p)
{
    for (unsigned t = 0; t < TUNABLES; t++) {
        struct tunable_info info = tunable_info(mm, (enum tunable)t);
        struct fs_abi_value *v = next_value(p, info.name);

        if (v != NULL) {
            v->value = info.value;
            v->least = info.least;
            v->most = info.most;
            v->flags = info.action ? FS_ABI_VALUE_ACTION : 0;
        }
    }
}

static uint32_t saturated(uint64_t n)
{
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

static void put_zone(struct fs_abi_zone *o, struct zone *z)
{
    o->node = z->node;
    o->kind = z->kind;
    zone_lock(z);
    o->present_pages = z->present_pages;
    o->managed_pages = z->managed_pages;
    o->free_pages = zone_free_pages(z);
    o->isolated_pages = z->isolated_free_pages;
    for (unsigned w = 0; w < WMARKS; w++) {
        o->watermark[w] = z->watermark[w];
    }
    for (unsigned t = 0; t < MIGRATE_TYPES; t++) {
        o->blocks[t] = saturated(z->blocks_of[t]);
        for (unsigned order = 0; order <= MAX_ORDER; order++) {
            o->free[t][order] = saturated(zone_free_units(z, order, (enum migratetype)t));
        }
    }
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        o->unusable[order] = (uint16_t)zone_unusable_index(z, order);
        o->extfrag[order] = (int16_t)zone_extfrag_index(z, order);
    }
    o->score = zone_fragmentation_score(z);
    zone_unlock(z);
}

enum fs_abi_status coop_table_page(struct mm *mm, struct vm *vm, uint64_t table, uint64_t first, void *page, uint32_t *count, uint64_t *total)
{
    struct page_of_values values = { .at = page, .first = first };
    struct fs_abi_zone *zones = page;

    if (table < FS_ABI_TABLE_COUNTERS || table > FS_ABI_TABLE_TUNABLES) {
        return FS_ABI_STATUS_INVALID;
    }
    __builtin_memset(page, 0, FS_PAGE_BYTES);       /* I1 */
    *count = 0;
    if (table == FS_ABI_TABLE_ZONES) {
        *total = mm->zone_count;
        for (uint64_t i = first; i < mm->zone_count && *count < FS_ABI_ZONES_PER_PAGE; i++) {
            put_zone(&zones[(*count)++], &mm->zones[i]);
        }
    } else {
        if (table == FS_ABI_TABLE_TUNABLES) {
            put_tunables(mm, &values);
        } else if (vm != NULL) {
            vmstat(vm, put_counter, &values);
        } else {
            put_zone_counters(mm, &values);
        }
        *count = values.count;
        *total = values.seen;
    }
    return first < *total || *total == 0 ? FS_ABI_STATUS_OK : FS_ABI_STATUS_INVALID;
}

/* I2 */
static bool name_ends(const char name[FS_ABI_NAME_BYTES])
{
    bool ended = false;

    for (unsigned i = 0; i < FS_ABI_NAME_BYTES; i++) {
        if (ended && name[i] != '\0') {
            return false;
        }
        ended = ended || name[i] == '\0';
    }
    return ended;
}

enum fs_abi_status coop_table_tune(struct mm *mm, const struct fs_abi_value *wanted, uint64_t value[FS_ABI_VALUES])
{
    enum tunable t;

    if (!name_ends(wanted->name) || wanted->least != 0 || wanted->most != 0 || wanted->flags != 0 || wanted->reserved != 0) {
        return FS_ABI_STATUS_INVALID;
    }
    if (!tunable_find(wanted->name, &t)) {
        value[FS_ABI_TUNED_WHY] = FS_ABI_TUNE_UNKNOWN;
        return FS_ABI_STATUS_INVALID;
    }
    value[FS_ABI_TUNED_BEFORE] = tunable_info(mm, t).value;
    if (tunable_set(mm, t, wanted->value) != MM_OK) {
        value[FS_ABI_TUNED_WHY] = FS_ABI_TUNE_RANGE;
        return FS_ABI_STATUS_INVALID;
    }
    value[FS_ABI_TUNED_AFTER] = tunable_info(mm, t).value;
    return FS_ABI_STATUS_OK;
}

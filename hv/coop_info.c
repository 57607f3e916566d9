/*
 * coop_info.c - the tables of a guest that speaks abi.h, read and checked.
 *
 * Owns: nothing.
 * Invariants:
 *   I1  a list page is copied once and checked in the copy.
 *   I2  a table has at most ENTRIES_MAX entries and each answer at least one: reading ends.
 *   I3  names are a-z, 0-9 and _; numbers of pages are not above what the guest's frame numbers allow.
 * Lock order: none.
 * Why whole tables: a person wants them all, and they are small.
 * Cost: a request for each page of a table.
 */
#include "coop_info.h"

#include <stdlib.h>
#include <string.h>

#define ENTRIES_MAX 4096u
#define ZONES_MAX   64u

static fs_status_t bad(const struct coop_channel *ch, const char *what, struct fs_error *err)
{
    return fs_fail(err, FS_BAD_INPUT, "domain %u: what it says of its memory is no good: %s", ch->dom->domid, what);
}

static void *list_page(const struct coop_channel *ch, uint32_t number)
{
    return (char *)ch->map + (number % FS_ABI_SLOTS + 1u) * FS_PAGE_BYTES;
}

/* One request; the list page of its answer is copied into page, if that is not NULL. */
static fs_status_t ask(struct coop_channel *ch, const struct fs_abi_request *q, const struct fs_abi_value *wanted, void *page, struct fs_abi_response *a,
                       struct fs_error *err)
{
    uint32_t number = ch->produced;
    if (wanted != NULL) {
        memcpy(list_page(ch, number), wanted, sizeof(*wanted));
    }
    coop_send(ch, q, NULL);
    fs_status_t s = coop_receive(ch, a, NULL, MFN_NONE, err);
    if (s == FS_OK && page != NULL) {
        memcpy(page, list_page(ch, number), FS_PAGE_BYTES);                     /* I1 */
    }
    return s;
}

/* The entries of a table from *first on; *first and *total go on. */
static fs_status_t ask_page(struct coop_channel *ch, enum fs_abi_table table, uint32_t per_page, uint64_t *first, uint64_t *total, void *page,
                            uint32_t *count, struct fs_error *err)
{
    struct fs_abi_request q = { .op = FS_ABI_INFO, .argument = { table, *first } };
    struct fs_abi_response a;
    if (!(ch->features & FS_ABI_FEATURE_INFO)) {
        return fs_fail(err, FS_UNSUPPORTED, "domain %u speaks abi.h, but its kernel tells nothing of its memory and takes no settings", ch->dom->domid);
    }
    fs_status_t s = ask(ch, &q, NULL, page, &a, err);
    if (s != FS_OK) {
        return s;
    }
    if (a.status != FS_ABI_STATUS_OK || a.count > per_page) {
        return bad(ch, "status or count of a table", err);
    }
    *total = a.value[FS_ABI_INFO_TOTAL];
    *count = a.count;
    if (*total > ENTRIES_MAX || a.count > *total - (*first < *total ? *first : *total) || (a.count == 0 && *first < *total)) {
        return bad(ch, "the length of a table", err);                           /* I2 */
    }
    *first += a.count;
    return FS_OK;
}

/* ---- values ---- */

static bool name_ok(const char name[FS_ABI_NAME_BYTES])
{
    size_t n = 0;
    while (n < FS_ABI_NAME_BYTES && ((name[n] >= 'a' && name[n] <= 'z') || (name[n] >= '0' && name[n] <= '9') || name[n] == '_')) {
        n++;
    }
    return n > 0 && n < FS_ABI_NAME_BYTES && name[n] == '\0';                   /* I3 */
}

static bool value_ok(const struct fs_abi_value *v, enum fs_abi_table table)
{
    bool limits = table == FS_ABI_TABLE_TUNABLES;
    return name_ok(v->name) && v->reserved == 0 && (v->flags & ~FS_ABI_VALUE_ACTION) == 0 && v->least <= v->most &&
           (limits || (v->least == 0 && v->most == 0 && v->flags == 0));
}

fs_status_t coop_info_values(struct coop_channel *ch, enum fs_abi_table table, struct hv_meminfo_value **out, size_t *count, struct fs_error *err)
{
    struct fs_abi_value page[FS_ABI_VALUES_PER_PAGE];
    struct hv_meminfo_value *list = calloc(ENTRIES_MAX, sizeof(*list));
    uint64_t first = 0, total = 0;
    fs_status_t s = list == NULL ? FS_NO_MEMORY : FS_OK;
    *out = NULL;
    *count = 0;
    do {
        uint32_t n = 0;
        s = s == FS_OK ? ask_page(ch, table, FS_ABI_VALUES_PER_PAGE, &first, &total, page, &n, err) : s;
        for (uint32_t i = 0; i < n && s == FS_OK; i++) {
            const struct fs_abi_value *v = &page[i];
            if (!value_ok(v, table)) {
                s = bad(ch, "an entry's name or limits", err);
                break;
            }
            struct hv_meminfo_value *to = &list[(*count)++];
            *to = (struct hv_meminfo_value){ .value = v->value, .least = v->least, .most = v->most, .action = (v->flags & FS_ABI_VALUE_ACTION) != 0 };
            memcpy(to->name, v->name, sizeof(to->name));
        }
    } while (s == FS_OK && first < total);
    if (s != FS_OK) {
        free(list);
        *count = 0;
        return s;
    }
    *out = list;
    return FS_OK;
}

/* ---- zones ---- */

static bool zone_ok(const struct fs_abi_zone *z, uint64_t pfn_end)
{
    bool ok = z->kind < HV_ZONE_KINDS && z->node < 1024 && z->score <= 100 && z->present_pages <= pfn_end && z->managed_pages <= pfn_end &&
              z->free_pages <= pfn_end && z->isolated_pages <= pfn_end;
    for (unsigned i = 0; i < FS_ARRAY_SIZE(z->reserved); i++) {
        ok = ok && z->reserved[i] == 0;
    }
    for (unsigned o = 0; o < FS_ABI_ORDERS; o++) {
        ok = ok && z->unusable[o] <= 1000 && z->extfrag[o] >= -1000 && z->extfrag[o] <= 1000;
        for (unsigned t = 0; t < FS_ABI_TYPES; t++) {
            ok = ok && z->free[t][o] <= pfn_end >> o;
        }
    }
    for (unsigned t = 0; t < FS_ABI_TYPES; t++) {
        ok = ok && z->blocks[t] <= pfn_end / FS_ABI_BLOCK_PAGES + 1;
    }
    return ok;
}

static void zone_copy(struct hv_meminfo_zone *to, const struct fs_abi_zone *from)
{
    *to = (struct hv_meminfo_zone){ .node = from->node, .kind = (enum hv_zone_kind)from->kind, .present_pages = from->present_pages,
                                    .managed_pages = from->managed_pages, .free_pages = from->free_pages, .isolated_pages = from->isolated_pages,
                                    .score = from->score };
    for (unsigned w = 0; w < 3; w++) {
        to->watermark[w] = from->watermark[w];
    }
    for (unsigned t = 0; t < HV_MIGRATETYPES; t++) {
        to->blocks[t] = from->blocks[t];
        for (unsigned o = 0; o < HV_ORDERS; o++) {
            to->free_units[t][o] = from->free[t][o];
        }
    }
    for (unsigned o = 0; o < HV_ORDERS; o++) {
        to->unusable[o] = from->unusable[o];
        to->extfrag[o] = from->extfrag[o];
    }
}

fs_status_t coop_info_zones(struct coop_channel *ch, struct hv_meminfo_zone **out, size_t *count, struct fs_error *err)
{
    _Static_assert(HV_ORDERS == FS_ABI_ORDERS && HV_MIGRATETYPES == FS_ABI_TYPES, "the tables of both interfaces");
    struct fs_abi_zone page[FS_ABI_ZONES_PER_PAGE];
    struct hv_meminfo_zone *list = calloc(ZONES_MAX, sizeof(*list));
    uint64_t first = 0, total = 0;
    fs_status_t s = list == NULL ? FS_NO_MEMORY : FS_OK;
    *out = NULL;
    *count = 0;
    do {
        uint32_t n = 0;
        s = s == FS_OK ? ask_page(ch, FS_ABI_TABLE_ZONES, FS_ABI_ZONES_PER_PAGE, &first, &total, page, &n, err) : s;
        if (s == FS_OK && total > ZONES_MAX) {
            s = bad(ch, "the number of zones", err);
        }
        for (uint32_t i = 0; i < n && s == FS_OK; i++) {
            if (!zone_ok(&page[i], ch->pfn_end)) {
                s = bad(ch, "the numbers of a zone", err);
                break;
            }
            zone_copy(&list[(*count)++], &page[i]);
        }
    } while (s == FS_OK && first < total);
    if (s != FS_OK) {
        free(list);
        *count = 0;
        return s;
    }
    *out = list;
    return FS_OK;
}

/* ---- settings ---- */

fs_status_t coop_info_tune(struct coop_channel *ch, const char *name, uint64_t value, struct hv_meminfo_set *out, struct fs_error *err)
{
    struct fs_abi_request q = { .op = FS_ABI_TUNE, .count = 1 };
    struct fs_abi_value v = { .value = value };
    struct fs_abi_response a;
    size_t n = strlen(name);
    if (n >= sizeof(v.name)) {
        return fs_fail(err, FS_REFUSED, "domain %u has no setting called %s", ch->dom->domid, name);
    }
    memcpy(v.name, name, n);
    fs_status_t s = ask(ch, &q, &v, NULL, &a, err);
    if (s != FS_OK) {
        return s;
    }
    switch (a.status) {
    case FS_ABI_STATUS_OK:
        *out = (struct hv_meminfo_set){ .before = a.value[FS_ABI_TUNED_BEFORE], .after = a.value[FS_ABI_TUNED_AFTER] };
        memcpy(out->name, v.name, sizeof(out->name));
        return FS_OK;
    case FS_ABI_STATUS_INVALID:
        return a.value[FS_ABI_TUNED_WHY] == FS_ABI_TUNE_UNKNOWN
                   ? fs_fail(err, FS_REFUSED, "domain %u has no setting called %s", ch->dom->domid, name)
                   : fs_fail(err, FS_REFUSED, "domain %u: %s does not take %llu now", ch->dom->domid, name, (unsigned long long)value);
    default:
        return bad(ch, "the answer to a setting", err);
    }
}

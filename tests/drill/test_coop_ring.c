/*
 * test_coop_ring.c - abi.h with one side that lies, and its requests other than MOVE.
 *
 * A tool that writes anything into the shared pages: the guest stays whole, and serves an honest one afterwards.
 * A guest that answers anything: the engine ends, with a reason for every frame; the machine's counts are right, no other
 * guest is touched, and once the guest is honest again recovery and another evacuation work.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <xen/xen.h>
#include "coop_channel.h"
#include "coop_info.h"
#include "coop_world.h"

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t n = text != NULL ? strtoull(text, NULL, 10) : otherwise;
    return n != 0 ? n : otherwise;
}

static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* ---- a hostile tool ------------------------------------------------------------------------ */

/* Numbers that are nearly right. */
static uint64_t odd_number(struct world *w, uint64_t *r)
{
    const struct guest_machine *g = &coop_guest_kernel(w->c)->machine;
    switch (next(r) % 8) {
    case 0: return next(r);
    case 1: return UINT64_MAX - next(r) % 3;
    case 2: return next(r) % (w->pages + 2);
    case 3: return atomic_load(&g->p2m[next(r) % w->pages]);                /* a frame in use */
    case 4: return atomic_load(&g->p2m[g->tables_first + next(r) % g->tables]);
    case 5: return next(r) % (3 * NODE_PAGES);                              /* somebody's, or nobody's */
    case 6: return 1ull << next(r) % 64;
    default: return next(r) % 4;
    }
}

static void hostile_request(struct world *w, uint64_t *r)
{
    struct coop *c = coop_guest_kernel(w->c)->coop;
    const struct guest_machine *g = &coop_guest_kernel(w->c)->machine;
    unsigned slot = c->control->request_produced % FS_ABI_SLOTS;
    struct fs_abi_request q = { .id = (uint32_t)next(r), .op = (uint16_t)(next(r) % 4 == 0 ? next(r) : FS_ABI_MOVE),
                                .flags = (uint16_t)(next(r) % 4 == 0 ? next(r) : next(r) % 2),
                                .count = (uint32_t)(next(r) % 4 == 0 ? odd_number(w, r) : 1 + next(r) % FS_ABI_LIST_MAX),
                                .reserved = next(r) % 16 == 0, .argument = { next(r) % 8 == 0 ? odd_number(w, r) : 0, 0 } };
    if (q.op == FS_ABI_INFO || next(r) % 16 == 0) {
        q.argument[1] = odd_number(w, r);
    }
    q.op = q.op == FS_ABI_SHRINK || q.op == FS_ABI_GROW ? FS_ABI_QUERY : q.op;      /* honest answers to these change the guest: below */
    for (unsigned i = 0; i < FS_ABI_LIST_MAX; i++) {
        uint64_t pfn = next(r) % w->pages;
        bool plausible = next(r) % 2 == 0;
        c->list[slot][i] = (struct fs_abi_move){ .pfn = plausible ? pfn : odd_number(w, r),
                                                 .from = plausible ? atomic_load(&g->p2m[pfn]) : odd_number(w, r), .to = odd_number(w, r),
                                                 .status = (uint32_t)next(r), .reserved = next(r) % 500 == 0 };
    }
    memcpy(&c->control->request[slot], &q, sizeof(q));
    c->control->request_produced += next(r) % 32 == 0 ? (uint32_t)next(r) : 1;
}

static void a_hostile_tool(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= env_number("SEEDS", 4); seed++) {
        struct world w;
        uint64_t r = seed, invalid, broken;
        world_make(&w, seed, 1, SMALL_PAGES);
        struct coop *c = coop_guest_kernel(w.c)->coop;
        for (unsigned i = 0; i < env_number("STEPS", 400); i++) {
            if (next(&r) % 4 == 0) {
                c->control->session_hv = (uint32_t)next(&r);
            }
            hostile_request(&w, &r);
            coop_guest_step(w.c, 1 + next(&r) % 6);
            if (i % 100 == 0) {
                world_sane(&w, "hostile request", i);
            }
        }
        invalid = c->invalid;
        broken = c->broken;
        assert_true(c->requests > 50 && invalid > 0 && broken > 0);
        assert_int_equal(c->moved_user + c->moved_kernel + c->moved_table + c->moved_free, 0);      /* it owns no spare frame */
        world_sane(&w, "hostile tool", seed);
        struct hv_report report = { 0 };
        struct fs_error err = { "" };
        fs_status_t s = world_evacuate(&w, "NODE1", NULL, &report, &err);
        if (s != FS_PARTIAL || report.frames_moved != w.pages) {
            fail_msg("seed %llu: an honest tool afterwards: %s: %s", (unsigned long long)seed, fs_status_name(s), err.text);
        }
        world_sane(&w, "honest tool", seed);
        hv_report_free(&report);
        world_end(&w);
    }
}

/* ---- a hostile guest ------------------------------------------------------------------------- */

enum lie { LIE_ID, LIE_OP, LIE_STATUS, LIE_COUNT, LIE_PRODUCED, LIE_BROKEN, LIE_ENTRIES_MOVED, LIE_ENTRIES_ANY, LIE_SILENT,
           LIE_SESSION, LIE_VALUES, LIE_P2M, LIES };

struct liar { struct world *w; enum lie lie; uint64_t r; uint64_t told; uint64_t after; };

static void tell(struct liar *l)
{
    struct coop *c = coop_guest_kernel(l->w->c)->coop;
    struct fs_abi_response *a = &c->control->response[(c->served + FS_ABI_SLOTS - 1) % FS_ABI_SLOTS];
    struct fs_abi_move *list = c->list[(c->served + FS_ABI_SLOTS - 1) % FS_ABI_SLOTS];
    switch (l->lie) {
    case LIE_ID:       a->id ^= 1u << next(&l->r) % 32; break;
    case LIE_OP:       a->op = (uint16_t)next(&l->r); break;
    case LIE_STATUS:   a->status = (uint16_t)(6 + next(&l->r) % 1000); break;
    case LIE_COUNT:    a->count = FS_ABI_LIST_MAX + 1 + (uint32_t)(next(&l->r) % 1000); break;
    case LIE_PRODUCED: c->control->response_produced += 1 + (uint32_t)(next(&l->r) % 1000); break;
    case LIE_BROKEN:   c->control->broken = 1; break;
    case LIE_VALUES:
        for (unsigned i = 0; i < FS_ABI_VALUES; i++) {
            a->value[i] = next(&l->r);
        }
        break;
    case LIE_ENTRIES_MOVED:
    case LIE_ENTRIES_ANY:
        for (unsigned i = 0; i < FS_ABI_LIST_MAX; i++) {
            list[i].status = l->lie == LIE_ENTRIES_ANY ? (uint32_t)next(&l->r) : FS_ABI_ENTRY_USER;
        }
        break;
    default: break;
    }
    l->told++;
}

/* The whole answer is made up: all moved, says the p2m, and perhaps the M2P too; every entry still leads to the old frames. */
static void pretend(struct liar *l)
{
    struct guest_machine *g = &coop_guest_kernel(l->w->c)->machine;
    struct coop *c = coop_guest_kernel(l->w->c)->coop;
    for (; c->served != c->control->request_produced; c->served++) {
        unsigned slot = c->served % FS_ABI_SLOTS;
        const struct fs_abi_request *q = &c->control->request[slot];
        c->control->response[slot] = (struct fs_abi_response){ .id = q->id, .op = q->op, .count = q->count };
        for (unsigned i = 0; q->op == FS_ABI_MOVE && i < q->count; i++) {
            struct fs_abi_move *m = &c->list[slot][i];
            struct mmu_update u = { .ptr = m->to << FS_PAGE_SHIFT | MMU_MACHPHYS_UPDATE, .val = m->pfn };
            atomic_store(&g->p2m[m->pfn], m->to);
            if (l->r % 2 == 0) {
                (void)guest_hypercall(g, 0, __HYPERVISOR_mmu_update, (uint64_t)(uintptr_t)&u, 1, 0, DOMID_SELF);
            }
            m->status = FS_ABI_ENTRY_KERNEL;
            l->told++;
        }
        c->control->response_produced = c->served + 1;
    }
}

static void lying_step(void *arg)
{
    struct liar *l = arg;
    struct coop *c = coop_guest_kernel(l->w->c)->coop;
    uint32_t served = c->served, session = c->session;
    uint64_t requests = c->requests;
    if ((l->lie == LIE_SILENT && requests >= l->after) || (l->lie == LIE_SESSION && l->after == 0)) {
        l->told++;
        return;
    }
    if (l->lie == LIE_P2M && session != 0 && c->session == c->control->session_hv) {
        pretend(l);
        return;
    }
    coop_guest_step(l->w->c, 1);
    if (c->requests > l->after && (c->served != served || c->session != session)) {
        tell(l);
    }
}

static void a_hostile_guest(void **state)
{
    uint64_t told[LIES] = { 0 };
    (void)state;
    for (uint64_t seed = 1; seed <= env_number("SEEDS", 3) * LIES; seed++) {
        struct world w;
        struct hv_report report = { 0 };
        struct fs_error err = { "" };
        struct hv_evacuate_options o = { .suspend_timeout_ns = 30000000 };
        struct emb_domain_config other = { .kind = HV_DOMAIN_PV, .name = "other", .pages = 1024, .vcpus = 1, .seed = seed, .node = 1 };
        uint16_t stranger;
        uint64_t recovered = 0;
        world_make(&w, seed, 1, SMALL_PAGES);
        assert_int_equal(emb_domain_create(w.m, &other, &stranger), 0);
        struct liar l = { .w = &w, .lie = (enum lie)(seed % LIES), .r = seed, .after = coop_guest_kernel(w.c)->coop->requests + seed % 5 };
        if (l.lie == LIE_SESSION) {
            l.after = 0;
        }
        emb_core_step_with(w.m, coop_guest_domid(w.c), lying_step, &l);
        fs_status_t s = world_evacuate(&w, "NODE1", &o, &report, &err);
        told[l.lie] += l.told;
        assert_int_equal(emb_fsck(w.m, stderr), 0);
        assert_int_equal(emb_guest_check(w.m, stranger, stderr), 0);
        if (l.lie != LIE_P2M) {                 /* a guest with a wrong p2m is its own undoing; the machine's counts are right */
            struct hv_recover_report rr = { 0 };
            coop_guest_step(w.c, 5);
            emb_core_step_with(w.m, coop_guest_domid(w.c), NULL, NULL);
            coop_guest_hosts_steps(w.c);
            if (world_needs_recovery(&w, s)) {
                recovered++;
                s = world_recover(&w, &rr, &err);
                if (s != FS_OK) {
                    fail_msg("seed %llu, lie %d; recovery: %s: %s", (unsigned long long)seed, l.lie, fs_status_name(s), err.text);
                }
            }
            world_sane(&w, "liar", seed);
        }
        hv_report_free(&report);
        assert_int_equal(emb_domain_destroy(w.m, stranger), 0);
        if (l.lie == LIE_P2M) {
            world_drop(&w);
        } else {
            world_end(&w);
        }
    }
    for (unsigned i = 0; i < LIES; i++) {
        assert_true(told[i] > 0);
    }
}

/* What it published, and its constants. */
static void bad_beginnings(void **state)
{
    struct world w;
    struct hv_domain dom;
    struct coop_channel ch;
    struct fs_error err;
    (void)state;
    world_make(&w, 3, 1, SMALL_PAGES);
    struct hv_backend *be = emb_backend(w.m);
    uint16_t domid = coop_guest_domid(w.c);
    struct coop *c = coop_guest_kernel(w.c)->coop;
    struct fs_abi_control good = *c->control;
    char text[32];
    assert_int_equal(be->ops->domain(be, domid, &dom, NULL), FS_OK);
#define OPEN() coop_open(&ch, be, &dom, 1u << 20, 20000000, NULL, &err)
    static const char *const numbers[] = { "", "-1", "0x10", "99999999999999999999999", "12 ", "4294967296000" };
    for (unsigned i = 0; i < FS_ARRAY_SIZE(numbers); i++) {
        assert_int_equal(emb_core_publish(w.m, domid, FS_ABI_KEY_CONTROL, numbers[i]), 0);
        assert_int_equal(OPEN(), FS_BAD_INPUT);
    }
    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)c->control_pfn.n);
    assert_int_equal(emb_core_publish(w.m, domid, FS_ABI_KEY_CONTROL, text), 0);
#define BAD(change) do { *c->control = good; c->control->change; assert_int_equal(OPEN(), FS_BAD_INPUT); } while (0)
    BAD(magic = 0);
    BAD(version = 2);
    BAD(pfn_end = 0);
    BAD(pfn_end = UINT64_MAX);
    BAD(block_pages = 511);
    BAD(list_pfn[0] = c->control_pfn.n);
    BAD(list_pfn[3] = good.list_pfn[0]);
    BAD(list_pfn[2] = UINT64_MAX);
    BAD(list_pfn[1] = good.pfn_end);
    BAD(export_pfn = UINT64_MAX - 1);
    BAD(export_pages = UINT32_MAX);
    *c->control = good;
    assert_int_equal(OPEN(), FS_OK);
    coop_close(&ch);
    be->ops->close(be);
    world_sane(&w, "bad beginnings", 0);
    world_end(&w);
}

/* ---- the other requests ------------------------------------------------------------------------ */

static struct fs_abi_response ask(struct coop_channel *ch, enum fs_abi_op op, uint64_t argument)
{
    struct fs_abi_request q = { .op = (uint16_t)op, .argument = { argument, 0 } };
    struct fs_abi_response a;
    struct fs_error err = { "" };
    coop_send(ch, &q, NULL);
    fs_status_t s = coop_receive(ch, &a, NULL, MFN_NONE, &err);
    if (s != FS_OK) {
        fail_msg("op %d: %s: %s", op, fs_status_name(s), err.text);
    }
    return a;
}

static void shrink_grow_compact(void **state)
{
    struct world w;
    struct hv_domain dom;
    struct coop_channel ch;
    struct fs_error err = { "" };
    (void)state;
    world_make(&w, 4, 2, GUEST_PAGES);
    struct hv_backend *be = emb_backend(w.m);
    assert_int_equal(be->ops->domain(be, coop_guest_domid(w.c), &dom, NULL), FS_OK);
    assert_int_equal(coop_open(&ch, be, &dom, 1u << 20, 10000000000ull, NULL, &err), FS_OK);
    uint64_t tot = dom.tot_pages;
    struct fs_abi_response before = ask(&ch, FS_ABI_QUERY, 0), a = ask(&ch, FS_ABI_SHRINK, 4 * 512);
    assert_int_equal(a.status, FS_ABI_STATUS_OK);
    assert_true(a.count >= 4 * 512);
    assert_int_equal(be->ops->domain(be, dom.domid, &dom, NULL), FS_OK);
    assert_int_equal(dom.tot_pages, tot - a.count);
    world_sane(&w, "shrunk", 0);
    struct fs_abi_response shrunk = ask(&ch, FS_ABI_QUERY, 0);
    assert_int_equal(shrunk.value[FS_ABI_QUERIED_GIVEN_PAGES], a.count);
    assert_int_equal(shrunk.value[FS_ABI_QUERIED_PAGES], before.value[FS_ABI_QUERIED_PAGES] - a.count);
    a = ask(&ch, FS_ABI_SHRINK, 1u << 30);                  /* more than can be had */
    assert_int_equal(a.status, FS_ABI_STATUS_PARTIAL);
    world_sane(&w, "shrunk again", 0);
    a = ask(&ch, FS_ABI_GROW, 1u << 30);
    assert_int_equal(a.status, FS_ABI_STATUS_PARTIAL);
    assert_int_equal(be->ops->domain(be, dom.domid, &dom, NULL), FS_OK);
    assert_int_equal(dom.tot_pages, tot);
    world_sane(&w, "grown", 0);
    a = ask(&ch, FS_ABI_COMPACT, 0);
    assert_int_equal(a.status, FS_ABI_STATUS_OK);
    world_sane(&w, "compacted", 0);
    struct fs_abi_response after = ask(&ch, FS_ABI_QUERY, 0);
    assert_int_equal(after.value[FS_ABI_QUERIED_PAGES], before.value[FS_ABI_QUERIED_PAGES]);
    assert_int_equal(ask(&ch, (enum fs_abi_op)99, 0).status, FS_ABI_STATUS_UNSUPPORTED);
    assert_int_equal(ask(&ch, FS_ABI_QUERY, 1).status, FS_ABI_STATUS_INVALID);
    coop_close(&ch);
    be->ops->close(be);
    world_end(&w);
}

/* ---- tables and settings ------------------------------------------------------------------------- */

static uint64_t value_of(const struct hv_meminfo_value *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name) == 0) {
            return list[i].value;
        }
    }
    fail_msg("there is no %s", name);
    return 0;
}

static struct coop_channel open_for_info(struct world *w, struct hv_backend **be, struct hv_domain *dom)
{
    struct coop_channel ch;
    struct fs_error err = { "" };
    *be = emb_backend(w->m);
    assert_int_equal((*be)->ops->domain(*be, coop_guest_domid(w->c), dom, NULL), FS_OK);
    assert_int_equal(coop_open(&ch, *be, dom, 1u << 20, 10000000000ull, NULL, &err), FS_OK);
    return ch;
}

/* What the tool reads is what the kernel has; a setting is made, or refused with the reason. */
static void tables_and_settings(void **state)
{
    struct world w;
    struct hv_backend *be;
    struct hv_domain dom;
    struct hv_meminfo_value *values;
    struct hv_meminfo_zone *zones;
    struct hv_meminfo_set set;
    struct fs_error err = { "" };
    size_t count;
    (void)state;
    world_make(&w, 5, 1, SMALL_PAGES);
    const struct mm *mm = coop_guest_kernel(w.c)->mm;
    struct coop_channel ch = open_for_info(&w, &be, &dom);
    assert_int_equal(coop_info_values(&ch, FS_ABI_TABLE_COUNTERS, &values, &count, &err), FS_OK);
    assert_true(count > FS_ABI_VALUES_PER_PAGE);                            /* more than one page */
    assert_int_equal(value_of(values, count, "compact_run"), mm_counter(mm, ZC_compact_run));
    assert_true(value_of(values, count, "nr_free_pages") > 0);
    free(values);
    assert_int_equal(coop_info_zones(&ch, &zones, &count, &err), FS_OK);
    assert_int_equal(count, mm->zone_count);
    for (size_t i = 0; i < count; i++) {
        uint64_t free_pages = 0;
        for (unsigned t = 0; t < HV_MIGRATETYPES - 1; t++) {
            for (unsigned o = 0; o < HV_ORDERS; o++) {
                free_pages += zones[i].free_units[t][o] << o;
            }
        }
        assert_int_equal(free_pages, zones[i].free_pages);
        assert_int_equal(zones[i].managed_pages, mm->zones[i].managed_pages);
    }
    free(zones);
    assert_int_equal(coop_info_tune(&ch, "extfrag_threshold", 300, &set, &err), FS_OK);
    assert_int_equal(set.before, 500);
    assert_int_equal(set.after, 300);
    assert_int_equal(mm->extfrag_threshold, 300);
    assert_int_equal(coop_info_values(&ch, FS_ABI_TABLE_TUNABLES, &values, &count, &err), FS_OK);
    assert_int_equal(value_of(values, count, "extfrag_threshold"), 300);
    free(values);
    uint64_t runs = mm_counter(mm, ZC_compact_run);
    assert_int_equal(coop_info_tune(&ch, "compact_memory", 1, &set, &err), FS_OK);
    assert_true(mm_counter(mm, ZC_compact_run) > runs);
    assert_int_equal(coop_info_tune(&ch, "extfrag_threshold", 1001, &set, &err), FS_REFUSED);
    assert_non_null(strstr(err.text, "does not take 1001"));
    assert_int_equal(coop_info_tune(&ch, "no_such_thing", 1, &set, &err), FS_REFUSED);
    assert_non_null(strstr(err.text, "no_such_thing"));
    assert_int_equal(mm->extfrag_threshold, 300);
    struct fs_abi_request bad[] = {
        { .op = FS_ABI_INFO, .argument = { 0, 0 } }, { .op = FS_ABI_INFO, .argument = { 4, 0 } }, { .op = FS_ABI_INFO, .argument = { FS_ABI_TABLE_ZONES, 99 } },
        { .op = FS_ABI_INFO, .argument = { FS_ABI_TABLE_COUNTERS, UINT64_MAX } }, { .op = FS_ABI_INFO, .argument = { 1, 0 }, .flags = 1 },
        { .op = FS_ABI_INFO, .argument = { 1, 0 }, .count = 1 }, { .op = FS_ABI_TUNE }, { .op = FS_ABI_TUNE, .count = 2 },
        { .op = FS_ABI_TUNE, .count = 1, .argument = { 1, 0 } },
    };
    for (size_t i = 0; i < FS_ARRAY_SIZE(bad); i++) {
        struct fs_abi_response a;
        coop_send(&ch, &bad[i], NULL);
        assert_int_equal(coop_receive(&ch, &a, NULL, MFN_NONE, &err), FS_OK);
        if (a.status != FS_ABI_STATUS_INVALID) {
            fail_msg("bad request %zu: status %u", i, a.status);
        }
    }
    coop_close(&ch);
    be->ops->close(be);
    world_sane(&w, "tables", 0);
    world_end(&w);
}

/* A guest that answers anything in its tables: the tool refuses or hands out what is in bounds. */
struct table_liar { struct world *w; uint64_t r, told; };

static void lie_in_tables(void *arg)
{
    struct table_liar *l = arg;
    struct coop *c = coop_guest_kernel(l->w->c)->coop;
    uint32_t served = c->served;
    coop_guest_step(l->w->c, 1);
    if (c->served != served) {
        unsigned slot = (c->served + FS_ABI_SLOTS - 1) % FS_ABI_SLOTS;
        uint64_t *words = (uint64_t *)(void *)c->list[slot];
        if (next(&l->r) % 2 == 0) {
            c->control->response[slot].value[FS_ABI_INFO_TOTAL] = odd_number(l->w, &l->r);
        }
        if (next(&l->r) % 2 == 0) {
            c->control->response[slot].count = (uint32_t)odd_number(l->w, &l->r);
        }
        for (unsigned i = 0; i < next(&l->r) % 4; i++) {
            words[next(&l->r) % 64] = odd_number(l->w, &l->r);
        }
        l->told++;
    }
}

static void lies_in_tables(void **state)
{
    struct world w;
    struct hv_backend *be;
    struct hv_domain dom;
    unsigned refused = 0;
    (void)state;
    world_make(&w, 6, 1, SMALL_PAGES);
    struct coop_channel ch = open_for_info(&w, &be, &dom);
    struct table_liar l = { .w = &w, .r = 6 };
    emb_core_step_with(w.m, coop_guest_domid(w.c), lie_in_tables, &l);
    for (unsigned i = 0; i < env_number("STEPS", 400); i++) {
        struct hv_meminfo_value *values;
        struct hv_meminfo_zone *zones;
        struct fs_error err = { "" };
        size_t count;
        fs_status_t s = coop_info_values(&ch, i % 2 == 0 ? FS_ABI_TABLE_COUNTERS : FS_ABI_TABLE_TUNABLES, &values, &count, &err);
        assert_true(s == FS_OK || s == FS_BAD_INPUT);
        refused += s != FS_OK;
        for (size_t k = 0; s == FS_OK && k < count; k++) {
            assert_true(values[k].name[0] != '\0' && memchr(values[k].name, 0, sizeof(values[k].name)) != NULL && values[k].least <= values[k].most);
        }
        if (s == FS_OK) {
            free(values);
        }
        s = coop_info_zones(&ch, &zones, &count, &err);
        assert_true(s == FS_OK || s == FS_BAD_INPUT);
        refused += s != FS_OK;
        for (size_t k = 0; s == FS_OK && k < count; k++) {
            assert_true(zones[k].kind < HV_ZONE_KINDS && zones[k].free_pages <= w.pages && zones[k].score <= 100);
        }
        if (s == FS_OK) {
            free(zones);
        }
    }
    assert_true(l.told > 400 && refused > 100);
    coop_close(&ch);
    be->ops->close(be);
    coop_guest_hosts_steps(w.c);
    world_sane(&w, "lies in tables", 0);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_beginnings), cmocka_unit_test(shrink_grow_compact), cmocka_unit_test(tables_and_settings),
        cmocka_unit_test(lies_in_tables), cmocka_unit_test(a_hostile_tool), cmocka_unit_test(a_hostile_guest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

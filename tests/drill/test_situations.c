/*
 * test_situations.c - situations 3, 4 and 5 with a hypervisor underneath: what cannot leave by migration leaves by its frame.
 *
 * A guest of 256 MiB on the embedded machine ages (tests/situations); then each of its sections leaves (memory_offline, residual), and the DIMM that
 * most of its frames lay in is evacuated while the guest goes on: the pages that had to stay get other frames. At the end the guest, whole
 * again, leaves one node and then the other.  Of no DIMM any frame of the guest may be left but those under a device, under
 * a page that a device has pinned for the moment, and shared_info.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "../situations/ager.h"
#include "../situations/census.h"
#include <stdatomic.h>
#include "../../guest/arch/embedded/balloon.h"
#include "drill/coop_guest.h"
#include "hv_priv.h"

#define PAGES       (2u * SECTION_PAGES)
#define SPARE_PAGES 8192u
#define SWAP_SLOTS  32768u
#define PINNED_MOST 2u                  /* there is one such task, and it has one page at a time */

struct machine {
    struct emb_machine *m;
    struct coop_guest *c;
    struct hotplug_ops balloon;
    uint8_t gone[PAGES];
    unsigned char *swap_bytes;
    char dir[64];
    uint64_t busy;                      /* frames that the last evacuation left because a device had the page pinned for the moment */
    uint64_t held;                      /* frames that it left to a device; its task may have let go since, for it goes on meanwhile */
    bool lives;                         /* the ager goes on while the engine works */
    struct site site;
    struct ager ager;
};
static struct machine w;

/* ---- a site ---- */

static void become(struct site *s, unsigned cpu)
{
    (void)s;
    guest_cpu_become(&coop_guest_kernel(w.c)->machine.cpu[cpu]);
}

static uint64_t fsck(struct site *s, FILE *out)
{
    return emb_fsck(w.m, out) + coop_guest_check(w.c, out) + s->host_faults;
}

static mm_status_t give(void *ctx, pfn_t pfn, unsigned order)
{
    struct site *s = ctx;
    mm_status_t status = w.balloon.give(w.balloon.ctx, pfn, order);

    for (uint64_t i = pfn.n; status == MM_OK && i < pfn.n + (1ull << order); i++) {
        s->host_faults += w.gone[i] != 0;
        w.gone[i] = 1;
    }
    return status;
}

static mm_status_t take(void *ctx, pfn_t pfn, unsigned order)
{
    struct site *s = ctx;
    mm_status_t status = w.balloon.take(w.balloon.ctx, pfn, order);

    for (uint64_t i = pfn.n; status == MM_OK && i < pfn.n + (1ull << order); i++) {
        s->host_faults += w.gone[i] != 1;
        w.gone[i] = 0;
    }
    return status;
}

static uint64_t gone(const struct site *s, uint64_t start, uint64_t end)
{
    uint64_t n = 0;

    (void)s;
    for (uint64_t i = start; i < end; i++) {
        n += w.gone[i];
    }
    return n;
}

static mm_status_t swap_read(void *ctx, uint32_t slot, void *bytes)
{
    memcpy(bytes, (unsigned char *)ctx + slot * (size_t)FS_PAGE_BYTES, FS_PAGE_BYTES);
    return MM_OK;
}

static mm_status_t swap_write(void *ctx, uint32_t slot, const void *bytes)
{
    memcpy((unsigned char *)ctx + slot * (size_t)FS_PAGE_BYTES, bytes, FS_PAGE_BYTES);
    return MM_OK;
}

static void ager_step(void *arg, struct guest *g, uint64_t random)
{
    (void)g, (void)random;
    if (w.lives) {
        ager_run(arg, 1);
    }
}

static void make(uint64_t seed)
{
    static const struct swap_backing swap_ops = { swap_read, swap_write };
    struct emb_config config = { .nodes = { { SPARE_PAGES, 0 }, { PAGES + SPARE_PAGES, 0 }, { PAGES + SPARE_PAGES, 0 } }, .node_count = 3, .seed = seed };
    struct coop_guest_config guest = { .name = "aged", .pages = PAGES, .vcpus = 1, .node = 1, .boot = { .seed = seed } };
    struct ager_config ager = { .tasks = 1, .task_pages = 512, .kinds = WORKLOAD_ALL & ~(1u << WORKLOAD_HUGE | 1u << WORKLOAD_POLICY),
                                .long_permille = 60, .files = 1600, .grow_events = 1500, .frames_stay = true };
    struct guest *g;

    w = (struct machine){ .dir = "/dev/shm/situations-XXXXXX" };
    assert_non_null(mkdtemp(w.dir));
    w.m = emb_machine_create(&config);
    assert_non_null(w.m);
    assert_int_equal(coop_guest_create(w.m, &guest, &w.c), 0);
    g = coop_guest_kernel(w.c);
    w.balloon = guest_balloon_ops(&g->machine);
    w.site = (struct site){ .mm = g->mm, .vm = g->vm, .lru = g->lru, .pagecache = g->pagecache, .cpus = 1, .random = seed, .become = become,
                            .fsck = fsck, .gone = gone, .host = { .give = give, .take = take, .ctx = &w.site } };
    w.swap_bytes = malloc(SWAP_SLOTS * (size_t)FS_PAGE_BYTES);
    assert_non_null(w.swap_bytes);
    become(&w.site, 0);
    assert_int_equal(swap_add_area(g->swap, SWAP_SLOTS, &swap_ops, w.swap_bytes), MM_OK);
    assert_true(ager_init(&w.ager, &w.site, &ager));
    assert_true(guest_add_task(g, ager_step, &w.ager));
    ager_fill(&w.ager);
    ager_run(&w.ager, 1500);
}

static void sane(const char *what)
{
    uint64_t faults = fsck(&w.site, stderr), wrong;

    become(&w.site, 0);
    wrong = ager_verify(&w.ager);
    if (faults + wrong > 0) {
        fail_msg("%s: %llu faults, %llu wrong", what, (unsigned long long)faults, (unsigned long long)wrong);
    }
}

static void end(void)
{
    char cmd[96];

    become(&w.site, 0);
    ager_end(&w.ager);
    assert_int_equal(w.ager.wrong + w.ager.files.wrong, 0);
    assert_int_equal(coop_guest_check(w.c, stderr), 0);
    coop_guest_destroy(w.c);
    free(w.swap_bytes);
    assert_int_equal(emb_fsck(w.m, stderr), 0);
    emb_machine_destroy(w.m);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", w.dir);
    assert_int_equal(system(cmd), 0);
}

/* ---- the drill ---- */

static mfn_t frame(uint64_t pfn) { return mfn_make(atomic_load(&coop_guest_kernel(w.c)->machine.p2m[pfn])); }

/* The node that most frames of the range's pages lie in: the DIMM that is to be emptied. */
static uint32_t node_of(uint64_t start, uint64_t end_pfn)
{
    struct mfn_range one = emb_node_range(w.m, 1);
    uint64_t in = 0;

    for (uint64_t pfn = start; pfn < end_pfn; pfn++) {
        in += mfn_range_contains(one, frame(pfn));
    }
    return in * 2 >= end_pfn - start ? 1 : 2;
}

static uint64_t evacuate(const char *target)
{
    struct hv hv = { .be = emb_backend(w.m), .state_dir = w.dir };
    struct hv_evacuate_options o = { .target = target, .verify = true };
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    uint64_t moved, pages;
    fs_status_t s;

    w.lives = true;
    w.busy = w.held = 0;
    s = hv_evacuate(&hv, &o, &r, &err);
    w.lives = false;
    if (s != FS_OK && s != FS_PARTIAL) {
        fail_msg("%s: %s: %s", target, fs_status_name(s), err.text);
    }
    moved = r.frames_moved;
    for (size_t i = 0; i < r.blocker_count; i++) {          /* what stays is a device's, Xen's page, or pinned for the moment */
        enum fs_reason why = r.blockers[i].reason;

        w.busy += why == FS_REASON_GUEST_BUSY;
        w.held += why == FS_REASON_FOREIGN_REF;
        if (why != FS_REASON_FOREIGN_REF && why != FS_REASON_XEN && why != FS_REASON_GUEST_BUSY) {
            fail_msg("%s: frame %#llx (pfn %#llx) stays: %s", target, (unsigned long long)r.blockers[i].frame, (unsigned long long)r.blockers[i].gfn,
                     fs_reason_name(why));
        }
    }
    assert_true(w.busy <= PINNED_MOST);
    hv_report_free(&r);
    assert_int_equal(hv_online(&hv, target, &pages, &err), FS_OK);
    hv.be->ops->close(hv.be);
    return moved;
}

/* Device pages with their frames in the range: the only ones that may be left there, by the guest's p2m and by the machine's own list. */
static uint64_t device_frames(struct mfn_range range, uint64_t *others)
{
    uint64_t device = 0, held;

    *others = 0;
    for (uint64_t pfn = 0; pfn < PAGES; pfn++) {
        mfn_t mfn = w.gone[pfn] ? MFN_NONE : frame(pfn);
        bool dma = false;

        if (mfn.n < range.start.n || mfn.n >= range.end.n) {
            continue;
        }
        for (unsigned order = 0; order <= KMEM_ORDER_MAX && !dma; order++) {            /* the unit that the page lies in */
            const struct page *head = mm_page(w.site.mm, pfn_make(pfn & ~((1ull << order) - 1)));

            dma = page_state(head) == PAGE_USED && page_order(head) >= order && page_test(head, PG_DMA);
        }
        device += dma;
        *others += !dma;
    }
    assert_int_equal(emb_guest_frames_in(w.m, coop_guest_domid(w.c), range, &held), device + *others);
    return device;
}

static uint64_t section_leaves(uint32_t section)
{
    uint64_t start = (uint64_t)section * SECTION_PAGES, end_pfn = start + SECTION_PAGES, others, residual, device, moved;
    uint32_t node = node_of(start, end_pfn);
    struct hotplug_report report;
    struct census c;
    char target[64];

    become(&w.site, 0);
    for (unsigned tries = 0; tries < 20; tries++) {
        assert_int_equal(memory_offline(w.site.mm, pfn_make(start), pfn_make(end_pfn), OFFLINE_RESIDUAL_OK, &w.site.host, &report, NULL), MM_OK);
        census_range(w.site.mm, start, end_pfn, &c);
        if (c.stays[STAYS_PINNED] == 0) {
            break;
        }
        ager_run(&w.ager, 50);
    }
    assert_int_equal(c.movable + c.free, 0);
    residual = SECTION_PAGES - gone(&w.site, start, end_pfn);
    assert_int_equal(residual, c.fixed);
    sane("section away");
    (void)snprintf(target, sizeof(target), "NODE%u", node);
    moved = evacuate(target);
    device = device_frames(emb_node_range(w.m, node), &others);
    assert_true(device + others <= w.held + w.busy);
    sane("its frames away");
    become(&w.site, 0);
    assert_int_equal(memory_online(w.site.mm, pfn_make(start), pfn_make(end_pfn), &w.site.host, &report), MM_OK);
    sane("section back");
    print_message("section %u: %llu of %u pages given, %llu stay; node %u evacuated: %llu frames moved underneath, %llu under devices left\n",
                  section, (unsigned long long)(SECTION_PAGES - residual), SECTION_PAGES, (unsigned long long)residual, node, (unsigned long long)moved,
                  (unsigned long long)device);
    return residual;
}

static void sections_and_the_node(void **state)
{
    const char *text = getenv("FRAMESHIFT_SEED");
    uint64_t others, moved, device;

    (void)state;
    make(text != NULL ? strtoull(text, NULL, 0) : 1);
    sane("aged");
    assert_int_equal(section_leaves(1), 0);                 /* movable pages lie there: it goes wholly */
    assert_true(section_leaves(0) > 4000);                  /* boot memory, kernel, page tables */
    (void)evacuate("NODE1");
    moved = evacuate("NODE2");                              /* all of it, section by section or not */
    device = device_frames(emb_node_range(w.m, 2), &others);
    assert_true(device + others <= w.held + w.busy);
    sane("node away");
    print_message("the other node: %llu frames moved, %llu under devices left\n", (unsigned long long)moved, (unsigned long long)device);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(sections_and_the_node) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

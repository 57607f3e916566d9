/*
 * conform_offline.c - checks of the offline state, and of saving and restoring.
 *
 * Owns: mark_offline, mark_owned, mark_online, query_offline, save, restore.
 * Ranges of all alignments inside free memory are marked and given back, with allocations in
 * between that walk over their edges: a heap that was broken by the marking dies of them.
 */
#include "conform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool one_cpu(struct conform *c)
{
    struct hv_host h;
    return c->ops->host(c->be, &h, &c->err) == FS_OK && h.pcpus < 2;
}

static uint64_t count_flag(const uint8_t *flags, uint64_t pages, uint8_t bit)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < pages; i++) {
        n += (flags[i] & bit) != 0;
    }
    return n;
}

/* Mark a free range, look at it in every way, give it back. */
static void mark_and_return(struct conform *c, struct mfn_range r)
{
    uint64_t pages = mfn_range_pages(r), onlined = 0, offlined = 0;
    struct hv_mark_result *res = calloc(pages, sizeof *res);
    struct hv_frame *f = calloc(pages, sizeof *f);
    uint8_t *flags = calloc(pages, 1);
    bool marked = false;
    uint64_t before = conform_free_pages(c);
    WANT(c, res && f && flags, "memory");
    marked = true;
    WANT_OK(c, c->ops->mark_offline(c->be, r, res, &c->err));
    uint64_t after = conform_free_pages(c);
    for (uint64_t i = 0; i < pages; i++) {
        offlined += res[i].mark == HV_MARK_OFFLINED;
    }
    WANT_OK(c, c->ops->query_offline(c->be, r, flags, &c->err));
    WANT(c, count_flag(flags, pages, 1) == offlined, "query tells of %llu, marking of %llu",
         (unsigned long long)count_flag(flags, pages, 1), (unsigned long long)offlined);
    WANT_OK(c, c->ops->frames(c->be, r, f, &c->err));
    for (uint64_t i = 0; i < pages; i++) {
        WANT(c, (f[i].owner == HV_FRAME_OFFLINED) == ((flags[i] & 1) != 0), "frame %#llx", (unsigned long long)(r.start.n + i));
    }
    WANT(c, offlined + 64 >= pages, "%llu of %llu offlined", (unsigned long long)offlined, (unsigned long long)pages);
    /* Not one frame outside may have stayed offline. */
    WANT(c, before - after <= offlined + 64 && before - after + 64 >= offlined, "free pages fell by %llu for %llu marked",
         (unsigned long long)(before - after), (unsigned long long)offlined);
out:
    if (marked) {
        fs_status_t s = c->ops->mark_online(c->be, r, &onlined, &c->err);
        if (s != FS_OK || onlined < offlined) {
            conform_fail(c, __FILE__, __LINE__, "online: %llu of %llu: %s", (unsigned long long)onlined, (unsigned long long)offlined, c->err.text);
        }
        uint64_t back = conform_free_pages(c);
        if (back + 64 < before) {
            conform_fail(c, __FILE__, __LINE__, "%llu pages lost at [%#llx, %#llx)", (unsigned long long)(before - back),
                         (unsigned long long)r.start.n, (unsigned long long)r.end.n);
        }
    }
    free(res);
    free(f);
    free(flags);
}

/* Where marking would hang the machine, it is refused before anything is marked. */
static void refused_with_one_cpu(struct conform *c)
{
    struct hv_host h;
    EXPECT_OK(c, c->ops->host(c->be, &h, &c->err));
    if (!h.pcpu0_marking_hangs) {
        conform_skip(c, "one CPU, and marking is harmless there");
        return;
    }
    struct mfn_range r = conform_unowned_run(c, 64, 64);
    struct hv_mark_result res[64];
    uint8_t flags[64];
    mfn_t one = r.start;
    EXPECT(c, mfn_range_pages(r) == 64, "no free run of 64 frames");
    fs_status_t s = c->ops->mark_offline(c->be, r, res, &c->err);
    EXPECT(c, s == FS_UNSUPPORTED && c->err.text[0], "%s", fs_status_name(s));
    s = c->ops->mark_owned(c->be, &one, 1, res, &c->err);
    EXPECT(c, s == FS_UNSUPPORTED, "%s", fs_status_name(s));
    EXPECT_OK(c, c->ops->query_offline(c->be, r, flags, &c->err));
    EXPECT(c, count_flag(flags, 64, 0xff) == 0, "frames were marked");
    conform_note(c, "refused: %s", c->err.text);
}

static void check_free_range(struct conform *c)
{
    if (one_cpu(c)) {
        refused_with_one_cpu(c);
        return;
    }
    struct mfn_range r = conform_unowned_run(c, 2048, 2048);
    EXPECT(c, mfn_range_pages(r) == 2048, "no free run of 2048 frames");
    uint64_t start = c->ops->clock_ns(c->be);
    mark_and_return(c, r);
    conform_note(c, "2048 frames at %#llx, marked, queried and returned in %.1f ms", (unsigned long long)r.start.n,
                 (double)(c->ops->clock_ns(c->be) - start) / 1e6);
}

/* Take and give frames of that node, so that the heap splits and merges blocks around the marked range. */
static void churn(struct conform *c, uint32_t node, size_t count)
{
    mfn_t *list = calloc(count, sizeof *list);
    size_t given = 0, done = 0;
    if (!list || !c->pv_name) {
        free(list);
        return;
    }
    if (c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages + count, &c->err) == FS_OK) {
        (void)c->ops->increase(c->be, c->pv.domid, node, count, list, &given, &c->err);
        if (given && c->ops->decrease(c->be, c->pv.domid, list, given, &done, &c->err) != FS_OK) {
            conform_fail(c, __FILE__, __LINE__, "decrease: %s", c->err.text);
        }
        (void)c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages, &c->err);
    }
    free(list);
}

static void check_any_alignment(struct conform *c)
{
    static const struct { uint64_t start, end; } cases[] = {
        { 0, 2 }, { 1, 4 }, { 3, 6 }, { 5, 258 }, { 510, 1026 }, { 7, 700 }, { 512, 1536 }, { 255, 3000 }, { 0, 4094 },
        { 1024, 1026 }, { 1000, 1280 }, { 2048, 3072 },
    };
    if (one_cpu(c)) {
        conform_skip(c, "one CPU");
        return;
    }
    struct mfn_range r = conform_unowned_run(c, 8192, 8192);
    EXPECT(c, mfn_range_pages(r) == 8192, "no free run of 8192 frames");
    for (size_t i = 0; i < FS_ARRAY_SIZE(cases) && !c->check_failed; i++) {
        struct mfn_range part = { mfn_add(r.start, cases[i].start), mfn_add(r.start, cases[i].end) };
        mark_and_return(c, part);
        for (uint32_t node = 0; node < HV_NODES_MAX && node < 8; node++) {
            churn(c, node, 3000);
        }
    }
}

/* Marked, left marked while others allocate around it, then returned. */
static void check_marked_under_load(struct conform *c)
{
    if (one_cpu(c) || !c->pv_name) {
        conform_skip(c, "one CPU, or no PV guest to allocate with");
        return;
    }
    struct mfn_range r = conform_unowned_run(c, 8192, 8192);
    EXPECT(c, mfn_range_pages(r) == 8192, "no free run of 8192 frames");
    struct mfn_range part = { mfn_add(r.start, 333), mfn_add(r.start, 5002) };
    uint64_t pages = mfn_range_pages(part), onlined = 0;
    struct hv_mark_result *res = calloc(pages, sizeof *res);
    EXPECT(c, res, "memory");
    fs_status_t s = c->ops->mark_offline(c->be, part, res, &c->err);
    uint32_t node = conform_node_with(c, 4096);
    for (int i = 0; i < 6 && s == FS_OK; i++) {
        churn(c, node, 20000);
    }
    free(res);
    EXPECT(c, s == FS_OK, "%s", c->err.text);
    EXPECT_OK(c, c->ops->mark_online(c->be, part, &onlined, &c->err));
    EXPECT(c, onlined + 64 >= pages, "%llu back", (unsigned long long)onlined);
    churn(c, node, 20000);
}

static int by_mfn(const void *a, const void *b)
{
    uint64_t x = ((const mfn_t *)a)->n, y = ((const mfn_t *)b)->n;
    return x < y ? -1 : x > y;
}

/* A range that ends between a free pair's frames, and one that ends between an owned frame and its free neighbour. */
static void check_odd_end(struct conform *c)
{
    enum { N = 4096 };
    struct mfn_range r = conform_unowned_run(c, 16, 16);
    mfn_t *list = calloc(N, sizeof *list);
    size_t given = 0, done = 0, at = N;
    struct hv_mark_result res[2];
    uint8_t flag[2] = { 0 };
    uint64_t onlined = 0;
    uint32_t node = conform_node_with(c, 2 * N);
    WANT(c, mfn_range_pages(r) == 16, "no free run");
    if (one_cpu(c) || !c->pv_name) {
        conform_skip(c, "one CPU, or no PV guest to allocate with");
        goto out;
    }
    mark_and_return(c, (struct mfn_range){ r.start, mfn_add(r.start, 7) });
    WANT_OK(c, c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages + N, &c->err));
    WANT_OK(c, c->ops->increase(c->be, c->pv.domid, node, N, list, &given, &c->err));
    qsort(list, given, sizeof *list, by_mfn);
    for (size_t i = 0; i + 1 < given && at == N; i++) {
        at = list[i].n % 2 == 0 && list[i + 1].n == list[i].n + 1 ? i : N;
    }
    WANT(c, at < N, "no aligned pair among %d new frames", N);
    mfn_t low = list[at], high = list[at + 1];
    list[at + 1] = list[given - 1];
    WANT_OK(c, c->ops->decrease(c->be, c->pv.domid, &high, 1, &done, &c->err));
    given--;
    struct mfn_range pair = { low, mfn_add(low, 2) };
    WANT_OK(c, c->ops->mark_offline(c->be, (struct mfn_range){ low, high }, res, &c->err));
    WANT_OK(c, c->ops->query_offline(c->be, pair, flag, &c->err));
    struct hv_host h;
    WANT_OK(c, c->ops->host(c->be, &h, &c->err));
    if (h.descending_needed) {
        WANT(c, res[0].mark == HV_MARK_FAILED && flag[0] == 0 && flag[1] == 0, "mark %u, flags %u %u", res[0].mark, flag[0], flag[1]);
    } else {
        WANT_OK(c, c->ops->mark_online(c->be, pair, &onlined, &c->err));
    }
out:
    if (given && c->ops->decrease(c->be, c->pv.domid, list, given, &done, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "decrease: %s", c->err.text);
    }
    if (c->pv_name) {
        (void)c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages, &c->err);
    }
    free(list);
}

static void mark_guest(struct conform *c, const struct hv_domain *d)
{
    enum { MOST = 20000 };
    size_t count = 0, mine = 0, pending = 0;
    uint64_t onlined = 0;
    mfn_t *list = conform_frames_of(c, d->domid, &count);
    struct hv_mark_result *res = calloc(MOST, sizeof *res);
    uint8_t flag = 0;
    WANT(c, list && res && count > 100, "%zu frames", count);
    count = count > MOST ? MOST : count;
    uint64_t start = c->ops->clock_ns(c->be);
    WANT_OK(c, c->ops->mark_owned(c->be, list, count, res, &c->err));
    conform_note(c, "%s: %zu owned frames marked in %.1f ms", d->name, count, (double)(c->ops->clock_ns(c->be) - start) / 1e6);
    for (size_t i = 0; i < count; i++) {
        mine += res[i].mark == HV_MARK_PENDING_OWNED && res[i].domid == d->domid;
        WANT(c, res[i].mark != HV_MARK_UNTRIED, "frame %#llx was not reached", (unsigned long long)list[i].n);
    }
    for (size_t i = 0; i < count; i += 61) {
        struct mfn_range one = { list[i], mfn_add(list[i], 1) };
        WANT_OK(c, c->ops->query_offline(c->be, one, &flag, &c->err));
        pending += flag == 2;
    }
    WANT(c, mine + 16 >= count, "%zu of %zu are pending for their owner", mine, count);
    WANT(c, pending + 16 >= count / 61, "%zu pending", pending);
out:
    for (size_t i = 0; list && i < count; i++) {
        struct mfn_range one = { list[i], mfn_add(list[i], 1) };
        while (i + 1 < count && list[i + 1].n == one.end.n) {
            one.end = mfn_add(one.end, 1);
            i++;
        }
        if (c->ops->mark_online(c->be, one, &onlined, &c->err) != FS_OK) {
            conform_fail(c, __FILE__, __LINE__, "online: %s", c->err.text);
            break;
        }
    }
    free(list);
    free(res);
}

static void check_mark_owned(struct conform *c)
{
    if (one_cpu(c)) {
        conform_skip(c, "one CPU");
        return;
    }
    if (c->pv_name) {
        mark_guest(c, &c->pv);
    }
    if (c->hap_name) {
        mark_guest(c, &c->hap);
    }
}

/* The range that holds guest frames, marked as an evacuation would, and given back. */
static void check_mixed_range(struct conform *c)
{
    size_t count = 0;
    const struct hv_domain *d = c->pv_name ? &c->pv : &c->hap;
    if (one_cpu(c) || (!c->pv_name && !c->hap_name)) {
        conform_skip(c, "one CPU, or no guest");
        return;
    }
    mfn_t *list = conform_frames_of(c, d->domid, &count);
    EXPECT(c, list && count > 1000, "%zu frames", count);
    mfn_t at = list[count / 2];
    free(list);
    struct mfn_range r = { mfn_make(at.n & ~16383ull), mfn_make((at.n & ~16383ull) + 16384) };
    uint64_t pages = mfn_range_pages(r), onlined = 0, kinds[HV_MARK_FAILED + 1] = { 0 };
    struct hv_mark_result *res = calloc(pages, sizeof *res);
    EXPECT(c, res, "memory");
    uint64_t start = c->ops->clock_ns(c->be);
    fs_status_t s = c->ops->mark_offline(c->be, r, res, &c->err);
    uint64_t ns = c->ops->clock_ns(c->be) - start;
    for (uint64_t i = 0; i < pages; i++) {
        kinds[res[i].mark]++;
    }
    free(res);
    fs_status_t back = c->ops->mark_online(c->be, r, &onlined, &c->err);
    conform_note(c, "%llu frames at %#llx in %.1f ms: offlined %llu, owned %llu, Xen %llu, anonymous %llu, image %llu, not RAM %llu, "
                 "failed %llu; %llu back", (unsigned long long)pages, (unsigned long long)r.start.n, (double)ns / 1e6,
                 (unsigned long long)kinds[HV_MARK_OFFLINED], (unsigned long long)kinds[HV_MARK_PENDING_OWNED],
                 (unsigned long long)kinds[HV_MARK_PENDING_XEN], (unsigned long long)kinds[HV_MARK_ANON],
                 (unsigned long long)kinds[HV_MARK_XEN_IMAGE], (unsigned long long)kinds[HV_MARK_NOT_RAM],
                 (unsigned long long)kinds[HV_MARK_FAILED], (unsigned long long)onlined);
    EXPECT(c, s == FS_OK && back == FS_OK, "%s", c->err.text);
    EXPECT(c, kinds[HV_MARK_UNTRIED] == 0 && kinds[HV_MARK_PENDING_OWNED] > 0, "marks");
    EXPECT(c, onlined >= kinds[HV_MARK_OFFLINED], "back");
}

static void check_save_restore(struct conform *c)
{
    const struct hv_domain *both[] = { c->pv_name ? &c->pv : NULL, c->hap_name ? &c->hap : NULL };
    for (size_t k = 0; k < 2; k++) {
        if (!both[k]) {
            continue;
        }
        char path[256];
        struct hv_domain again;
        uint16_t domid = FS_DOMID_NONE;
        snprintf(path, sizeof path, "%s/%s.save", c->work_dir ? c->work_dir : "/tmp", both[k]->name);
        uint64_t start = c->ops->clock_ns(c->be);
        EXPECT_OK(c, c->ops->save(c->be, both[k]->domid, path, &c->err));
        EXPECT(c, c->ops->domain(c->be, both[k]->domid, &again, &c->err) == FS_GUEST_GONE || again.dying, "still there after the save");
        uint64_t mid = c->ops->clock_ns(c->be);
        EXPECT_OK(c, c->ops->restore(c->be, path, &domid, &c->err));
        uint64_t end = c->ops->clock_ns(c->be);
        (void)unlink(path);
        EXPECT_OK(c, c->ops->domain(c->be, domid, &again, &c->err));
        conform_note(c, "%s: saved in %.0f ms, restored in %.0f ms as domain %u", both[k]->name, (double)(mid - start) / 1e6,
                     (double)(end - mid) / 1e6, domid);
        EXPECT(c, memcmp(again.uuid, both[k]->uuid, sizeof again.uuid) == 0 && strcmp(again.name, both[k]->name) == 0, "another guest");
        char nowhere[] = "/nonexistent/x.save";
        EXPECT(c, c->ops->restore(c->be, nowhere, &domid, &c->err) != FS_OK && c->err.text[0], "restored from nothing");
    }
}

/* A domain that goes away while its frames are marked: every one of them ends offlined, and comes back. */
static void check_evict_marked(struct conform *c)
{
    char path[256];
    size_t count = 0, offlined = 0;
    uint16_t domid = FS_DOMID_NONE;
    uint64_t onlined = 0;
    struct hv_mark_result *res = NULL;
    mfn_t *list = conform_frames_of(c, c->pv.domid, &count);
    struct hv_domain gone;
    snprintf(path, sizeof path, "%s/%s.save", c->work_dir ? c->work_dir : "/tmp", c->pv.name);
    res = calloc(count ? count : 1, sizeof *res);
    WANT(c, list && res && count > 100, "%zu frames", count);
    WANT_OK(c, c->ops->mark_owned(c->be, list, count, res, &c->err));
    WANT_OK(c, c->ops->save(c->be, c->pv.domid, path, &c->err));
    for (int i = 0; i < 300 && c->ops->domain(c->be, c->pv.domid, &gone, &c->err) == FS_OK; i++) {
        usleep(100000);                 /* its memory is given back while it dies */
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t flag = 0;
        struct mfn_range one = { list[i], mfn_add(list[i], 1) };
        WANT_OK(c, c->ops->query_offline(c->be, one, &flag, &c->err));
        offlined += flag == 1;
    }
    conform_note(c, "%zu of %zu frames are offlined", offlined, count);
    WANT_OK(c, c->ops->restore(c->be, path, &domid, &c->err));
    WANT(c, offlined + 16 >= count, "%zu of %zu", offlined, count);
out:
    for (size_t i = 0; list && i < count; i++) {
        uint64_t n = 0;
        struct mfn_range one = { list[i], mfn_add(list[i], 1) };
        if (c->ops->mark_online(c->be, one, &n, &c->err) == FS_OK) {
            onlined += n;
        }
    }
    conform_note(c, "%llu online again", (unsigned long long)onlined);
    (void)unlink(path);
    free(list);
    free(res);
}

const struct conform_check conform_offline_checks[] = {
    { .name = "offline-free", .fn = check_free_range },
    { .name = "offline-alignment", .fn = check_any_alignment },
    { .name = "offline-load", .fn = check_marked_under_load },
    { .name = "offline-odd-end", .fn = check_odd_end },
    { .name = "offline-owned", .fn = check_mark_owned },
    { .name = "offline-mixed", .fn = check_mixed_range },
    { .name = "evict", .fn = check_save_restore, .heavy = true },
    { .name = "leave-marked", .fn = check_evict_marked, .needs_pv = true, .heavy = true },
    { 0 }
};

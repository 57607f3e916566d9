/*
 * conform_host.c - checks of the read-only members, and of pausing.
 *
 * Owns: host, ram, table, domains, frames, m2p, types, specials, the oracles, monitors.
 * The strong ones: the frames that the owner scan gives a guest are as many as the machine says it
 * owns, and looking changes neither the machine's free pages nor a second look.
 */
#include "conform.h"
#include "frameshift/abi.h"

#include <stdlib.h>
#include <string.h>

#define NO_DOMAIN 32000u

static void check_host(struct conform *c)
{
    struct hv_host h;
    EXPECT_OK(c, c->ops->host(c->be, &h, &c->err));
    EXPECT(c, h.pcpus >= 1 && h.max_mfn > 0 && h.version_text[0], "pcpus %u", h.pcpus);
    EXPECT(c, h.free_pages <= h.total_pages, "free %llu total %llu", (unsigned long long)h.free_pages, (unsigned long long)h.total_pages);
    EXPECT(c, h.node_count >= 1 && h.node_count <= HV_NODES_MAX, "nodes %u", h.node_count);
    uint64_t free_pages = 0;
    for (uint32_t i = 0; i < h.node_count; i++) {
        EXPECT(c, h.nodes[i].free_pages <= h.nodes[i].total_pages, "node %u", h.nodes[i].id);
        free_pages += h.nodes[i].free_pages;
    }
    uint64_t off = free_pages > h.free_pages ? free_pages - h.free_pages : h.free_pages - free_pages;
    EXPECT(c, off <= 64, "the nodes' free pages %llu and the host's %llu", (unsigned long long)free_pages, (unsigned long long)h.free_pages);
}

static void check_ram(struct conform *c)
{
    struct mfn_range_set ram = { 0 };
    struct hv_host h;
    EXPECT_OK(c, c->ops->host(c->be, &h, &c->err));
    EXPECT_OK(c, c->ops->ram(c->be, &ram, &c->err));
    bool good = mfn_set_check(&ram) && ram.count > 0 && ram.ranges[ram.count - 1].end.n <= h.max_mfn;
    uint64_t pages = mfn_set_pages(&ram);
    mfn_set_free(&ram);
    EXPECT(c, good, "not sorted, disjoint, below max_mfn");
    EXPECT(c, pages >= h.free_pages, "ram %llu", (unsigned long long)pages);
}

static void check_tables(struct conform *c)
{
    static const enum hv_table tables[] = { HV_TABLE_SMBIOS, HV_TABLE_SRAT };
    for (size_t i = 0; i < FS_ARRAY_SIZE(tables); i++) {
        uint8_t *bytes = NULL;
        size_t size = 0;
        fs_status_t s = c->ops->table(c->be, tables[i], &bytes, &size, &c->err);
        EXPECT(c, s == FS_OK || s == FS_NOT_FOUND, "table %zu: %s", i, c->err.text);
        conform_note(c, "table %zu: %zu bytes", i, size);
        bool good = s != FS_OK || (size >= 4 && (tables[i] != HV_TABLE_SRAT || memcmp(bytes, "SRAT", 4) == 0));
        free(bytes);
        EXPECT(c, good, "table %zu", i);
    }
}

static void check_domains(struct conform *c)
{
    struct hv_domain *list = NULL, one;
    size_t count = 0, control = 0;
    WANT_OK(c, c->ops->domains(c->be, &list, &count, &c->err));
    for (size_t i = 0; i < count; i++) {
        WANT(c, i == 0 || list[i].domid > list[i - 1].domid, "not sorted at %zu", i);
        WANT_OK(c, c->ops->domain(c->be, list[i].domid, &one, &c->err));
        WANT(c, one.kind == list[i].kind && memcmp(one.uuid, list[i].uuid, sizeof one.uuid) == 0 && strcmp(one.name, list[i].name) == 0,
             "domain %u differs when asked for alone", one.domid);
        WANT(c, memchr(list[i].name, '\0', sizeof list[i].name) != NULL, "name of %u", one.domid);
        control += list[i].kind == HV_DOMAIN_CONTROL;
    }
    WANT(c, control == 1, "%zu control domains", control);
    fs_status_t s = c->ops->domain(c->be, 0x7000, &one, &c->err);
    WANT(c, s == FS_GUEST_GONE, "a domain that is not there: %s", fs_status_name(s));
out:
    free(list);
}

static bool frame_same(const struct hv_frame *a, const struct hv_frame *b)
{
    return a->owner == b->owner && a->domid == b->domid;
}

/* Counts what the scan gives a domain and compares with the machine's own count. */
static void check_owner_count(struct conform *c, const struct hv_frame *f, uint64_t max, const struct hv_domain *d)
{
    uint64_t mine = 0, ambiguous = 0;
    for (uint64_t m = 0; m < max; m++) {
        mine += f[m].owner == HV_FRAME_DOMAIN && f[m].domid == d->domid;
        ambiguous += f[m].owner == HV_FRAME_AMBIGUOUS;
    }
    conform_note(c, "%s: %llu frames found, the machine says %llu; %llu ambiguous on the host", d->name, (unsigned long long)mine,
                 (unsigned long long)d->tot_pages, (unsigned long long)ambiguous);
    if (ambiguous == 0 || d->kind == HV_DOMAIN_PV) {
        EXPECT(c, mine <= d->tot_pages && d->tot_pages - mine <= 2, "%s", d->name);
    } else {
        EXPECT(c, mine <= d->tot_pages && mine + ambiguous + 2 >= d->tot_pages, "%s", d->name);
    }
}

static void check_frames(struct conform *c)
{
    uint64_t max = 0, again = 0, changed = 0;
    uint64_t free_before = conform_free_pages(c);
    struct hv_frame *a = conform_all_frames(c, &max), *b = NULL;
    struct mfn_range_set ram = { 0 };
    if (!a) {
        return;
    }
    uint64_t start = c->ops->clock_ns(c->be);
    b = conform_all_frames(c, &again);
    WANT(c, b && again == max, "second look");
    conform_note(c, "%llu frames in %.1f ms", (unsigned long long)max, (double)(c->ops->clock_ns(c->be) - start) / 1e6);
    WANT_OK(c, c->ops->ram(c->be, &ram, &c->err));
    for (uint64_t m = 0; m < max; m++) {
        changed += !frame_same(&a[m], &b[m]);
        bool is_ram = mfn_set_contains(&ram, mfn_make(m));
        WANT(c, (a[m].owner == HV_FRAME_HOLE) == !is_ram, "frame %#llx: hole or RAM", (unsigned long long)m);
        WANT(c, a[m].type == HV_TYPE_NONE || a[m].owner == HV_FRAME_DOMAIN, "frame %#llx has a type and no owner", (unsigned long long)m);
    }
    /* The control domain's own balloon moves a little; a scan with an effect would show in the thousands. */
    WANT(c, changed < 256, "%llu frames changed between two looks", (unsigned long long)changed);
    uint64_t free_after = conform_free_pages(c);
    WANT(c, free_after + 256 > free_before && free_before + 256 > free_after, "free pages %llu then %llu", (unsigned long long)free_before,
         (unsigned long long)free_after);
    if (c->pv_name) {
        check_owner_count(c, a, max, &c->pv);
    }
    if (c->hap_name) {
        check_owner_count(c, a, max, &c->hap);
    }
out:
    mfn_set_free(&ram);
    free(a);
    free(b);
}

static void check_m2p(struct conform *c)
{
    uint64_t max = 0, sample = 0;
    struct hv_frame *f = conform_all_frames(c, &max);
    if (!f) {
        return;
    }
    for (uint64_t m = 0; m < max; m += 97) {
        if (f[m].owner != HV_FRAME_DOMAIN || f[m].domid == 0) {
            continue;
        }
        mfn_t mfn = mfn_make(m);
        uint64_t gfn = 0;
        WANT_OK(c, c->ops->m2p(c->be, &mfn, 1, &gfn, &c->err));
        sample++;
        WANT(c, gfn == f[m].gfn, "frame %#llx: gfn %#llx and %#llx", (unsigned long long)m, (unsigned long long)gfn, (unsigned long long)f[m].gfn);
    }
    mfn_t beyond = mfn_make(max + 5);
    uint64_t gfn = 0;
    WANT_OK(c, c->ops->m2p(c->be, &beyond, 1, &gfn, &c->err));
    WANT(c, gfn == FS_FRAME_NONE, "beyond the end");
    WANT(c, sample > 0 || !(c->pv_name || c->hap_name), "no guest frame in the sample");
out:
    free(f);
}

static void check_specials(struct conform *c)
{
    const struct hv_domain *both[] = { c->pv_name ? &c->pv : NULL, c->hap_name ? &c->hap : NULL };
    for (size_t k = 0; k < 2; k++) {
        if (!both[k]) {
            continue;
        }
        struct hv_special *list = NULL;
        size_t count = 0, kinds[HV_SPECIAL_GRANT_OFFERED + 1] = { 0 };
        EXPECT_OK(c, c->ops->specials(c->be, both[k]->domid, &list, &count, &c->err));
        bool framed = true;
        for (size_t i = 0; i < count; i++) {
            kinds[list[i].kind]++;
            framed = framed && (both[k]->kind == HV_DOMAIN_PV ? !mfn_is_none(list[i].mfn) : list[i].gfn != FS_FRAME_NONE);
        }
        free(list);
        conform_note(c, "%s: xenstore %zu, console %zu, ioreq %zu, grants in use %zu, offered %zu", both[k]->name,
                     kinds[HV_SPECIAL_XENSTORE], kinds[HV_SPECIAL_CONSOLE], kinds[HV_SPECIAL_IOREQ], kinds[HV_SPECIAL_GRANT_MAPPED],
                     kinds[HV_SPECIAL_GRANT_OFFERED]);
        EXPECT(c, framed, "an entry without a frame");
        EXPECT(c, kinds[HV_SPECIAL_XENSTORE] == 1 && kinds[HV_SPECIAL_CONSOLE] == 1, "rings");
        EXPECT(c, kinds[HV_SPECIAL_GRANT_MAPPED] >= 1, "both daemons map their ring by grant");
    }
}

static void check_pause(struct conform *c)
{
    const struct hv_domain *d = c->pv_name ? &c->pv : &c->hap;
    if (!c->pv_name && !c->hap_name) {
        conform_skip(c, "no guest");
        return;
    }
    struct hv_domain now;
    EXPECT_OK(c, c->ops->pause(c->be, d->domid, &c->err));
    EXPECT_OK(c, c->ops->pause(c->be, d->domid, &c->err));
    EXPECT_OK(c, c->ops->unpause(c->be, d->domid, &c->err));
    if (!conform_refresh(c, d->domid, &now)) {
        return;
    }
    bool still = now.paused;
    EXPECT_OK(c, c->ops->unpause(c->be, d->domid, &c->err));
    EXPECT(c, still, "two pauses and one unpause: not paused");
    if (conform_refresh(c, d->domid, &now)) {
        EXPECT(c, !now.paused, "still paused");
    }
    fs_status_t s = c->ops->pause(c->be, 0x7000, &c->err);
    EXPECT(c, s == FS_GUEST_GONE, "pausing nobody: %s", fs_status_name(s));
}

static void check_max_pages(struct conform *c)
{
    const struct hv_domain *d = c->pv_name ? &c->pv : &c->hap;
    if (!c->pv_name && !c->hap_name) {
        conform_skip(c, "no guest");
        return;
    }
    struct hv_domain now;
    EXPECT_OK(c, c->ops->set_max_pages(c->be, d->domid, d->max_pages + 1024, &c->err));
    bool ok = conform_refresh(c, d->domid, &now);
    EXPECT_OK(c, c->ops->set_max_pages(c->be, d->domid, d->max_pages, &c->err));
    EXPECT(c, ok && now.max_pages == d->max_pages + 1024, "limit %llu", (unsigned long long)now.max_pages);
}

static void check_monitor(struct conform *c)
{
    const struct hv_domain *d = c->pv_name ? &c->pv : &c->hap;
    uint32_t held = 0;
    if (!c->pv_name && !c->hap_name) {
        conform_skip(c, "no guest");
        return;
    }
    EXPECT_OK(c, c->ops->monitor_hold(c->be, d->domid, &held, &c->err));
    EXPECT_OK(c, c->ops->monitor_release(c->be, d->domid, &c->err));
    EXPECT_OK(c, c->ops->monitor_release(c->be, d->domid, &c->err));
    conform_note(c, "%u held", held);
}

static void check_oracles(struct conform *c)
{
    const struct hv_domain *both[] = { c->pv_name ? &c->pv : NULL, c->hap_name ? &c->hap : NULL };
    for (size_t k = 0; k < 2; k++) {
        if (!both[k]) {
            continue;
        }
        uint8_t upcall[64] = { 0 }, ports[512] = { 0 };
        size_t port_count = 0, valid = 0;
        fs_status_t s = c->ops->vcpu_upcall_state(c->be, both[k]->domid, upcall, both[k]->vcpus, &c->err);
        if (s == FS_UNSUPPORTED) {
            conform_skip(c, "%s", c->err.text);
            return;
        }
        EXPECT(c, s == FS_OK, "%s", c->err.text);
        for (uint32_t v = 0; v < both[k]->vcpus; v++) {
            EXPECT(c, upcall[v] & 0x80, "%s: vCPU %u has no state", both[k]->name, v);
        }
        EXPECT_OK(c, c->ops->evtchn_state(c->be, both[k]->domid, ports, FS_ARRAY_SIZE(ports), &port_count, &c->err));
        for (size_t p = 0; p < FS_ARRAY_SIZE(ports); p++) {
            valid += (ports[p] & 0x80) != 0;
        }
        conform_note(c, "%s: %zu ports of %zu", both[k]->name, valid, port_count);
        EXPECT(c, valid >= 2 && port_count >= valid, "a Linux guest has at least two ports");
    }
}

/* A paused guest makes and ends no grant: what the watch reads is what the table says, each frame at least once, nothing besides. */
static void check_watch(struct conform *c, const struct hv_domain *d, struct hv_grants *g)
{
    struct hv_special *list = NULL;
    const uint64_t *frames;
    size_t count = 0, grants = 0, read = 0;
    WANT_OK(c, c->ops->specials(c->be, d->domid, &list, &count, &c->err));
    for (int again = 0; again < 2; again++) {
        WANT_OK(c, c->ops->grants_read(c->be, g, &frames, &read, &c->err));
    }
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        if (list[i].kind != HV_SPECIAL_GRANT_MAPPED && list[i].kind != HV_SPECIAL_GRANT_OFFERED) {
            continue;
        }
        for (size_t k = 0; k < read && !found; k++) {
            found = frames[k] == (d->kind == HV_DOMAIN_PV ? list[i].mfn.n : list[i].gfn);
        }
        WANT(c, found, "%s: grant %u is in the table and not in the watch", d->name, list[i].grant_ref);
        grants++;
    }
    WANT(c, read >= (grants > 0) && (grants > 0 || read == 0), "%s: %zu in the watch, %zu in the table", d->name, read, grants);
    conform_note(c, "%s: %zu grants, %zu frames", d->name, grants, read);
out:
    free(list);
}

static void check_grants(struct conform *c)
{
    const struct hv_domain *both[] = { c->pv_name ? &c->pv : NULL, c->hap_name ? &c->hap : NULL };
    if (!c->ops->grants_begin || !c->ops->grants_read || !c->ops->grants_end) {
        EXPECT(c, !c->ops->grants_begin && !c->ops->grants_read && !c->ops->grants_end, "all three or none");
        conform_skip(c, "the machine has no watch");
        return;
    }
    for (size_t k = 0; k < 2; k++) {
        struct hv_grants *g = NULL, *second = NULL;
        if (!both[k]) {
            continue;
        }
        EXPECT_OK(c, c->ops->grants_begin(c->be, both[k]->domid, &g, &c->err));
        EXPECT_OK(c, c->ops->grants_begin(c->be, both[k]->domid, &second, &c->err));       /* watches do not know of each other */
        c->ops->grants_end(c->be, second);
        if (c->ops->pause(c->be, both[k]->domid, &c->err) == FS_OK) {
            check_watch(c, both[k], g);
            (void)!c->ops->unpause(c->be, both[k]->domid, &c->err);
        } else {
            conform_fail(c, __FILE__, __LINE__, "pause: %s", c->err.text);
        }
        c->ops->grants_end(c->be, g);
    }
    struct hv_grants *none = NULL;
    EXPECT(c, c->ops->grants_begin(c->be, NO_DOMAIN, &none, &c->err) == FS_GUEST_GONE, "no such domain: %s", c->err.text);
    EXPECT(c, none == NULL, "a watch over nobody");
    c->ops->grants_end(c->be, NULL);
}

#define WAIT_NS   5000000ull

static const struct hv_domain *find_domain(struct conform *c, const char *name, struct hv_domain *out)
{
    struct hv_domain *list = NULL;
    size_t count = 0;
    const struct hv_domain *found = NULL;
    if (c->ops->domains(c->be, &list, &count, &c->err) == FS_OK) {
        for (size_t i = 0; i < count && !found; i++) {
            if (strcmp(list[i].name, name) == 0) {
                *out = list[i];
                found = out;
            }
        }
    }
    free(list);
    return found;
}

static void check_coop(struct conform *c)
{
    struct hv_coop coop;
    struct hv_domain d;
    uint64_t limit;
    if (!c->ops->coop_find || !c->ops->coop_wait) {
        EXPECT(c, !c->ops->coop_find && !c->ops->coop_wait, "both or none");
        conform_skip(c, "the machine has no such guests");
        return;
    }
    EXPECT(c, c->ops->coop_find(c->be, NO_DOMAIN, &coop, &c->err) != FS_OK, "found in a domain that is not there");
    EXPECT(c, c->ops->coop_wait(c->be, NO_DOMAIN, WAIT_NS, &c->err) == FS_GUEST_GONE, "waited for a domain that is not there: %s", c->err.text);
    if (c->pv_name) {
        EXPECT(c, c->ops->coop_find(c->be, c->pv.domid, &coop, &c->err) == FS_NOT_FOUND, "a stock guest publishes nothing: %s", c->err.text);
        uint64_t since = c->ops->clock_ns(c->be);
        EXPECT_OK(c, c->ops->coop_wait(c->be, c->pv.domid, WAIT_NS, &c->err));
        EXPECT(c, c->ops->clock_ns(c->be) - since >= WAIT_NS / 2, "a wait that does not wait");
    }
    if (!c->coop_name) {
        conform_skip(c, "no guest that moves its own pages");
        return;
    }
    EXPECT(c, find_domain(c, c->coop_name, &d), "no guest %s", c->coop_name);
    EXPECT_OK(c, c->ops->coop_find(c->be, d.domid, &coop, &c->err));
    EXPECT(c, coop.version == FS_ABI_VERSION, "version %u", coop.version);
    EXPECT_OK(c, c->ops->gfn_limit(c->be, d.domid, &limit, &c->err));
    EXPECT(c, coop.control.n < limit, "control page %#llx of %#llx", (unsigned long long)coop.control.n, (unsigned long long)limit);
    EXPECT_OK(c, c->ops->coop_wait(c->be, d.domid, WAIT_NS, &c->err));
}

const struct conform_check conform_host_checks[] = {
    { .name = "host", .fn = check_host },
    { .name = "ram", .fn = check_ram },
    { .name = "tables", .fn = check_tables },
    { .name = "domains", .fn = check_domains },
    { .name = "frames", .fn = check_frames },
    { .name = "m2p", .fn = check_m2p },
    { .name = "specials", .fn = check_specials },
    { .name = "pause", .fn = check_pause },
    { .name = "max-pages", .fn = check_max_pages },
    { .name = "monitor", .fn = check_monitor },
    { .name = "oracles", .fn = check_oracles },
    { .name = "grants", .fn = check_grants },
    { .name = "coop", .fn = check_coop },
    { 0 }
};

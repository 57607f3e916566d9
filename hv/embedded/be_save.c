/*
 * be_save.c - save a guest to a file and make it again: what the toolstack does for --evict.
 *
 * Owns: the file format, private to one run of one machine (never kept).
 * Format: header, configuration, the truth (roles, generations, tables), then 4096 bytes
 * for each page that holds data, as the guest has them at that moment.
 * Invariants: I1 the restored guest gets its bytes from the file, not from the patterns:
 *  a page that was wrong when saved is wrong afterwards;
 *  I2 save ends the domain, as the toolstack does; restore gives it a new domid and other frames.
 * Lock order: the machine's lock during each call.
 * Cost: linear in the guest.
 */
#include <stdlib.h>

#include "emb_backend.h"

#define SAVE_MAGIC 0x4653454d42303176ull

struct save_header {
    uint64_t magic, pfns, max_pfn, p2m_entries;
    uint32_t table_count;
    uint8_t uuid[16];
    struct emb_domain_config config;
    struct emb_guest guest;             /* its pointers are not read back */
};

static bool put(FILE *f, const void *p, size_t bytes)
{
    return fwrite(p, 1, bytes, f) == bytes;
}

static bool get(FILE *f, void *p, size_t bytes)
{
    return fread(p, 1, bytes, f) == bytes;
}

static bool is_data(const struct emb_guest *g, uint64_t pfn)
{
    return g->role[pfn] == EMB_R_DATA || g->role[pfn] == EMB_R_RING || g->role[pfn] == EMB_R_VCPU_INFO;
}

static bool write_pages(struct emb_machine *m, const struct emb_domain *d, FILE *f)
{
    const struct emb_guest *g = d->guest;
    for (uint64_t pfn = 0; pfn < g->pfns; pfn++) {
        if (!is_data(g, pfn)) {
            continue;
        }
        uint64_t mfn;
        if (d->kind == HV_DOMAIN_HAP) {
            mfn = emb_p2m_get(m, d, pfn);
        } else if (!emb_guest_p2m(m, d, pfn, &mfn, NULL)) {
            return false;
        }
        if (!emb_is_ram(m, mfn) || !put(f, emb_bytes(m, mfn), FS_PAGE_BYTES)) {
            return false;
        }
    }
    return true;
}

static bool write_all(struct emb_machine *m, const struct emb_domain *d, FILE *f)
{
    const struct emb_guest *g = d->guest;
    struct save_header h = { .magic = SAVE_MAGIC, .pfns = g->pfns, .max_pfn = g->max_pfn, .p2m_entries = g->pfns / 512 + 8,
                             .table_count = g->table_count, .config = d->config, .guest = *g };
    memcpy(h.uuid, d->uuid, sizeof(h.uuid));
    bool ok = put(f, &h, sizeof(h)) && put(f, g->role, g->pfns) && put(f, g->gen, g->pfns * sizeof(g->gen[0])) &&
              put(f, g->table, g->pfns * sizeof(g->table[0])) && put(f, g->p2m_pfn, h.p2m_entries * sizeof(g->p2m_pfn[0]));
    for (uint32_t i = 0; ok && i < g->table_count; i++) {
        ok = put(f, g->tables[i], sizeof(*g->tables[i]));
    }
    return ok && write_pages(m, d, f);
}

fs_status_t emb_op_save(struct hv_backend *be, uint16_t domid, const char *path, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_save, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    FILE *f = NULL;
    if (!d->guest || !c.m->contents || d->dying || (d->kind == HV_DOMAIN_PV && (d->shutdown || d->config.wont_suspend))) {
        s = emb_refused(d, -EINVAL, err, "saving");
        goto out;
    }
    f = fopen(path, "wbe");
    if (!f) {
        s = fs_fail(err, FS_IO, "%s: %s", path, strerror(errno));
        goto out;
    }
    if (d->kind == HV_DOMAIN_PV) {
        emb_pv_pre_suspend(c.m, d);
    }
    bool ok = write_all(c.m, d, f);
    ok = fclose(f) == 0 && ok;
    if (ok) {
        emb_domain_kill(c.m, d);        /* I2 */
    } else {
        emb_guest_wakes(c.m, d);
        s = fs_fail(err, FS_IO, "domain %u: saving to %s failed: %s", domid, path, strerror(errno));
    }
out:
    emb_leave(&c);
    return s;
}

/* ---- restore ------------------------------------------------------------- */

static bool read_truth(struct emb_machine *m, struct emb_domain *d, const struct save_header *h, FILE *f)
{
    struct emb_guest *fresh = emb_guest_new(m, h->pfns, h->config.seed);
    if (!fresh) {
        return false;
    }
    struct emb_guest *g = d->guest = fresh;
    struct emb_guest kept = *fresh;
    *g = h->guest;
    g->role = kept.role;
    g->gen = kept.gen;
    g->table = kept.table;
    g->tables = kept.tables;
    g->p2m_pfn = kept.p2m_pfn;
    g->table_capacity = kept.table_capacity;
    g->table_count = 0;
    g->suspended = false;
    g->events_sent = 0;
    bool ok = h->table_count <= g->table_capacity && get(f, g->role, g->pfns) && get(f, g->gen, g->pfns * sizeof(g->gen[0])) &&
              get(f, g->table, g->pfns * sizeof(g->table[0])) && get(f, g->p2m_pfn, h->p2m_entries * sizeof(g->p2m_pfn[0]));
    for (uint32_t i = 0; ok && i < h->table_count; i++) {
        struct emb_ptable *t = emb_alloc(m, sizeof(*t));
        ok = t && get(f, t, sizeof(*t));
        g->tables[g->table_count] = t;
        g->table_count += t != NULL;
    }
    return ok;
}

static bool read_pages(struct emb_machine *m, struct emb_domain *d, FILE *f)
{
    uint8_t page[FS_PAGE_BYTES];
    for (uint64_t pfn = 0; pfn < d->guest->pfns; pfn++) {
        if (!is_data(d->guest, pfn)) {
            continue;
        }
        uint64_t mfn = emb_guest_reach(m, d, pfn, NULL);
        if (mfn == FS_FRAME_NONE || !get(f, page, sizeof(page))) {
            return false;
        }
        memcpy(emb_bytes(m, mfn), page, sizeof(page));
    }
    return true;
}

static fs_status_t restore_from(struct emb_machine *m, FILE *f, const char *path, uint16_t *new_domid, struct fs_error *err)
{
    struct save_header h;
    if (!get(f, &h, sizeof(h)) || h.magic != SAVE_MAGIC || h.pfns != h.config.pages || h.pfns >= m->max_mfn || h.config.vcpus > EMB_VCPUS_MAX) {
        return fs_fail(err, FS_BAD_INPUT, "%s: not a saved guest of this machine", path);
    }
    int rc;
    struct emb_domain *d = emb_domain_new(m, &h.config, &rc);
    if (!d) {
        return fs_fail(err, FS_NO_ROOM, "%s: no new domain: %s", path, strerror(-rc));
    }
    memcpy(d->uuid, h.uuid, sizeof(d->uuid));
    bool hap = h.config.kind == HV_DOMAIN_HAP;
    if (hap) {
        uint64_t space = h.pfns + 0x100 > 0x200000 ? h.pfns * 2 + 0x400000 : 0x400000;
        rc = emb_p2m_init(m, d, space);
        d->max_pages = h.pfns + h.guest.special_count;
    }
    fs_status_t s = rc == 0 && read_truth(m, d, &h, f) ? FS_OK : FS_BAD_INPUT;
    if (s == FS_OK && (rc = hap ? emb_hap_build(m, d) : emb_pv_build(m, d)) != 0) {
        s = rc == -ENOMEM ? FS_NO_ROOM : FS_REFUSED;
    }
    if (s == FS_OK && !read_pages(m, d, f)) {
        s = FS_BAD_INPUT;
    }
    if (s != FS_OK) {
        emb_domain_kill(m, d);
        return fs_fail(err, s, "%s: the guest could not be restored", path);
    }
    *new_domid = d->domid;
    return FS_OK;
}

fs_status_t emb_op_restore(struct hv_backend *be, const char *path, uint16_t *new_domid, struct fs_error *err)
{
    struct emb_call c;
    fs_status_t s = emb_enter(be, EMB_OP_restore, &c, err);
    if (s != FS_OK) {
        return s;
    }
    FILE *f = fopen(path, "rbe");
    if (!f) {
        s = fs_fail(err, FS_IO, "%s: %s", path, strerror(errno));
    } else {
        s = restore_from(c.m, f, path, new_domid, err);
        (void)fclose(f);
    }
    emb_leave(&c);
    return s;
}

/*
 * be_map.c - foreign mappings and copies: what a dom0 tool does with a domain's bytes.
 *
 * Owns: client->mappings and the host mappings behind them.
 * Invariants:
 *  I1 a mapped page holds one general reference, and a writable mapping of a PV
 *     domain's page one writable type reference: a page table cannot be mapped writable (EBUSY),
 *     a frame mapped writable cannot become one, a frame given back meanwhile lives on;
 *  I2 a HAP domain's pages are mapped by gfn and take no type reference; a hole is EINVAL;
 *  I3 the record of a mapping lies in the arena before the first byte can be touched; a copy's
 *     references are recorded alike while it runs.
 * Lock order: the machine's lock; copies run outside it while references keep their frames.
 * Source: arch/x86/mm.c get_page_from_l1e, mod_l1_entry (foreign page owner).
 * Cost: one mmap() for each run of contiguous frames.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "emb_backend.h"

static uint64_t record_bytes(uint64_t count)
{
    return sizeof(struct emb_mapping) + count * sizeof(uint64_t);
}

static void drop_record(struct emb_machine *m, struct emb_mapping *r)
{
    for (uint64_t i = 0; i < r->count; i++) {
        if (!r->mfn1[i]) {
            continue;
        }
        uint64_t mfn = (r->mfn1[i] & ~EMB_MAPPED_TYPE) - 1;
        if (r->mfn1[i] & EMB_MAPPED_TYPE) {
            emb_put_page_and_type(m, mfn);
        } else {
            emb_put_page(m, mfn);
        }
    }
    emb_free(m, r, record_bytes(r->count));
}

void emb_client_drop(struct emb_machine *m, struct emb_client *c)
{
    while (c->mappings) {
        struct emb_mapping *r = c->mappings;
        c->mappings = r->next;
        drop_record(m, r);
    }
}

/* 0 and the frame with its references taken, or the number that the mapping call would give. */
static int map_page(struct emb_machine *m, struct emb_domain *d, uint64_t frame, bool write, uint64_t *mfn1)
{
    bool hap = d->kind == HV_DOMAIN_HAP || d->kind == HV_DOMAIN_OTHER;
    uint64_t mfn = d->kind == HV_DOMAIN_HAP ? emb_p2m_get(m, d, frame) : frame;
    *mfn1 = 0;
    if (mfn == FS_FRAME_NONE) {
        return EINVAL;
    }
    if (emb_get_page(m, mfn, d) != 0) {
        return EINVAL;
    }
    if (write && !hap && !(emb_frame_at(m, mfn)->flags & EMB_F_XEN_HEAP)) {
        if (emb_get_type(m, mfn, EMB_T_WRITABLE) != 0) {
            emb_put_page(m, mfn);
            return EBUSY;
        }
        *mfn1 = EMB_MAPPED_TYPE;
    }
    *mfn1 |= mfn + 1;
    return 0;
}

static bool place_run(struct emb_machine *m, uint8_t *at, uint64_t mfn, uint64_t pages, int prot)
{
    return mmap(at, pages * FS_PAGE_BYTES, prot, MAP_SHARED | MAP_FIXED, m->contents_fd, (off_t)(mfn * FS_PAGE_BYTES)) != MAP_FAILED;
}

static bool place_pages(struct emb_machine *m, const struct emb_mapping *r, uint8_t *base)
{
    int prot = r->write ? PROT_READ | PROT_WRITE : PROT_READ;
    for (uint64_t i = 0; i < r->count;) {
        uint64_t mfn1 = r->mfn1[i] & ~EMB_MAPPED_TYPE, n = 1;
        while (mfn1 && i + n < r->count && (r->mfn1[i + n] & ~EMB_MAPPED_TYPE) == mfn1 + n) {
            n++;
        }
        if (mfn1 && !place_run(m, base + i * FS_PAGE_BYTES, mfn1 - 1, n, prot)) {
            return false;
        }
        i += n;
    }
    return true;
}

fs_status_t emb_op_map(struct hv_backend *be, uint16_t domid, const uint64_t *frames, size_t count, enum hv_map_prot prot,
                       int *page_err, void **out, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *out = NULL;
    fs_status_t s = emb_enter_domain(be, EMB_OP_map, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    struct emb_mapping *r = NULL;
    void *base = MAP_FAILED;
    if (!c.m->contents) {
        s = fs_fail(err, FS_UNSUPPORTED, "this machine has metadata only: nothing can be mapped");
        goto out;
    }
    r = count ? emb_alloc(c.m, record_bytes(count)) : NULL;
    base = r ? mmap(NULL, count * FS_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
    if (base == MAP_FAILED) {
        emb_free(c.m, r, record_bytes(count));
        s = fs_fail(err, count ? FS_NO_MEMORY : FS_REFUSED, "domain %u: mapping %zu frames: no room", domid, count);
        goto out;
    }
    *r = (struct emb_mapping){ .addr = (uint64_t)(uintptr_t)base, .count = count, .slot = emb_slot(c.m, d), .write = prot == HV_MAP_WRITE };
    for (size_t i = 0; i < count; i++) {
        page_err[i] = map_page(c.m, d, frames[i], r->write, &r->mfn1[i]);
    }
    if (!place_pages(c.m, r, base)) {
        drop_record(c.m, r);
        (void)munmap(base, count * FS_PAGE_BYTES);
        s = fs_fail(err, FS_NO_MEMORY, "domain %u: mapping %zu frames: %s", domid, count, strerror(errno));
        goto out;
    }
    r->next = emb_be(be)->client->mappings;
    emb_be(be)->client->mappings = r;
    emb_charge(c.m, 500 * count);
    *out = base;
out:
    emb_leave(&c);
    return s;
}

void emb_op_unmap(struct hv_backend *be, void *addr, size_t count)
{
    struct emb_be *e = emb_be(be);
    if (!addr) {
        return;
    }
    (void)munmap(addr, count * FS_PAGE_BYTES);
    emb_lock(e->m);
    struct emb_mapping **at = &e->client->mappings;
    while (*at && (*at)->addr != (uint64_t)(uintptr_t)addr) {
        at = &(*at)->next;
    }
    struct emb_mapping *r = *at;
    ASSERT(r);                          /* the caller's error: never mapped, or unmapped twice */
    ASSERT_CMP(r->count, ==, count);
    *at = r->next;
    drop_record(e->m, r);
    emb_unlock(e->m);
}

static void unlink_record(struct emb_client *c, const struct emb_mapping *r)
{
    struct emb_mapping **at = &c->mappings;
    while (*at != r) {
        at = &(*at)->next;
    }
    *at = r->next;
}

struct emb_mapping *emb_client_hold(struct emb_machine *m, struct emb_client *c, const struct emb_domain *d, const uint64_t *mfns, size_t count)
{
    struct emb_mapping *r = emb_alloc(m, record_bytes(count));
    if (!r) {
        return NULL;
    }
    *r = (struct emb_mapping){ .count = count, .slot = emb_slot(m, d) };
    for (size_t i = 0; i < count; i++) {
        if (emb_get_page(m, mfns[i], d) != 0) {
            drop_record(m, r);
            return NULL;
        }
        r->mfn1[i] = mfns[i] + 1;
    }
    r->next = c->mappings;
    c->mappings = r;
    return r;
}

void emb_client_let_go(struct emb_machine *m, struct emb_client *c, struct emb_mapping *r)
{
    if (r) {
        unlink_record(c, r);
        drop_record(m, r);
    }
}

/* ---- copies -------------------------------------------------------------- */

#define COPY_BATCH 128u

/* References for a batch, recorded so that they go if this process does; how many could be had, *rc why not the next. */
static size_t hold_batch(struct emb_machine *m, struct emb_domain *d, const struct hv_copy *list, size_t count, struct emb_mapping *r, int *rc)
{
    size_t i = 0;
    *rc = 0;
    for (; i < count; i++) {
        if ((*rc = emb_get_page(m, list[i].from.n, d)) != 0) {
            break;
        }
        r->mfn1[2 * i] = list[i].from.n + 1;
        if ((*rc = emb_get_page_and_type(m, list[i].to.n, d, EMB_T_WRITABLE)) != 0) {
            *rc = -EINVAL;
            break;
        }
        r->mfn1[2 * i + 1] = (list[i].to.n + 1) | EMB_MAPPED_TYPE;
    }
    return i;
}

/* One batch; how many pages were copied. */
static size_t copy_batch(struct emb_machine *m, struct emb_client *c, struct emb_domain *d, const struct hv_copy *list, size_t count, int *rc)
{
    struct emb_mapping *r = emb_alloc(m, record_bytes(2 * COPY_BATCH));
    if (!r) {
        *rc = -ENOMEM;
        return 0;
    }
    *r = (struct emb_mapping){ .count = 2 * COPY_BATCH, .slot = emb_slot(m, d), .next = c->mappings };
    c->mappings = r;
    size_t n = hold_batch(m, d, list, count, r, rc);
    if (m->contents) {
        emb_unlock(m);                  /* several threads copy at once; the references keep the frames */
        for (size_t i = 0; i < n; i++) {
            memmove(emb_bytes(m, list[i].to.n), emb_bytes(m, list[i].from.n), FS_PAGE_BYTES);
        }
        emb_lock(m);
    }
    emb_client_let_go(m, c, r);
    return n;
}

fs_status_t emb_op_copy(struct hv_backend *be, uint16_t domid, const struct hv_copy *list, size_t count, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_copy, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    int rc = d->kind == HV_DOMAIN_HAP ? -EINVAL : 0;
    size_t share = emb_share(&c, count), done = 0;
    while (rc == 0 && done < share) {
        size_t want = share - done < COPY_BATCH ? share - done : COPY_BATCH;
        done += copy_batch(c.m, emb_be(be)->client, d, list + done, want, &rc);
    }
    emb_charge(c.m, 2800 * done);
    s = done < share ? emb_refused(d, rc, err, "copying frame %#llx to %#llx", (unsigned long long)list[done].from.n,
                                   (unsigned long long)list[done].to.n)
                     : emb_planned(&c, err);
    emb_leave(&c);
    return s;
}

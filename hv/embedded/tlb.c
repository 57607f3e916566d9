/*
 * tlb.c - memory as a vCPU sees it: page walks and a software TLB that goes stale.
 *
 * Owns: vCPUs' tlb[].
 * Invariants:
 *  I1 a hit is used whatever the tables say now, until a flush: a forgotten flush reads and writes
 *     where the entry led when it was loaded;
 *  I2 a stale entry never reaches a frame that was freed and given to somebody (m->tlb_epoch), nor writes
 *     a frame that became a table or descriptor page (d's vCPUs are flushed at a type change): Xen sees to both;
 *  I3 a walk sets accessed bits in every level, and dirty at the first write through an entry.
 * Lock order: takes the machine's lock for each access.
 * Why I1: a guest that forgets to flush works on a machine without TLB and corrupts memory on a real one.
 * Cost: a hit is a few comparisons and a copy.
 */
#include "emb_core.h"

void emb_tlb_flush(struct emb_domain *d, uint64_t vcpu_mask)
{
    for (uint32_t i = 0; d->core && i < d->vcpu_count; i++) {
        d->core->vcpus[i].tlb_seq += (uint32_t)(vcpu_mask >> i & 1);
    }
}

void emb_tlb_invlpg(struct emb_domain *d, uint64_t vcpu_mask, uint64_t va)
{
    uint64_t page = va >> FS_PAGE_SHIFT;
    for (uint32_t i = 0; d->core && i < d->vcpu_count; i++) {
        struct emb_tlb_entry *e = &d->core->vcpus[i].tlb[page % EMB_TLB_ENTRIES];
        if ((vcpu_mask >> i & 1) && (e->va1 & ~(1ull << 63)) == page + 1) {
            e->va1 = 0;
        }
    }
}

/* The walk of a CPU, with its bits. */
static bool walk_and_mark(struct emb_machine *m, uint64_t root, uint64_t va, bool write, bool user, struct emb_tlb_entry *out)
{
    uint64_t rights = EMB_PTE_RW | EMB_PTE_USER, mfn = root;
    uint64_t *slots[5];
    for (unsigned level = 4; level >= 1; level--) {
        if (mfn == 0 || !emb_is_ram(m, mfn)) {
            return false;
        }
        slots[level] = &emb_table(m, mfn)[va >> (12 + 9 * (level - 1)) & 511];
        if (!(*slots[level] & EMB_PTE_P)) {
            return false;
        }
        rights &= *slots[level];
        mfn = emb_pte_mfn(*slots[level]);
    }
    bool kernel_page = *slots[1] & EMB_PTE_KERNEL;
    if ((write && !(rights & EMB_PTE_RW)) || (user && (!(rights & EMB_PTE_USER) || kernel_page)) || !emb_is_ram(m, mfn)) {
        return false;
    }
    for (unsigned level = 4; level >= 1; level--) {
        *slots[level] |= EMB_PTE_A;
    }
    if (write) {
        *slots[1] |= EMB_PTE_D;
    }
    out->mfn = mfn;
    out->write = rights & EMB_PTE_RW;
    out->user = !kernel_page;
    out->dirty = *slots[1] & EMB_PTE_D;
    return true;
}

static uint8_t *translate(struct emb_machine *m, struct emb_domain *d, uint32_t vcpu, uint64_t va, bool write, bool user)
{
    struct emb_core_vcpu *v = &d->core->vcpus[vcpu];
    uint64_t page = va >> FS_PAGE_SHIFT, key = (page + 1) | (user ? 1ull << 63 : 0);
    struct emb_tlb_entry *e = &v->tlb[page % EMB_TLB_ENTRIES];
    bool hit = e->va1 == key && e->seq == v->tlb_seq && e->epoch == m->tlb_epoch && (!write || (e->write && e->dirty)) && (!user || e->user);
    if (!hit) {
        struct emb_tlb_entry fresh = { .va1 = key, .seq = v->tlb_seq, .epoch = m->tlb_epoch };
        uint64_t root = user && d->vcpus[vcpu].user_cr3 ? d->vcpus[vcpu].user_cr3 : d->vcpus[vcpu].cr3;
        if (!walk_and_mark(m, root, va, write, user, &fresh)) {
            return NULL;
        }
        *e = fresh;
    }
    return emb_bytes(m, e->mfn) + (va & (FS_PAGE_BYTES - 1));
}

static int access_user(struct emb_machine *m, uint16_t domid, uint32_t vcpu, bool user, uint64_t va, uint8_t *buf, size_t bytes, bool write, uint64_t *fault)
{
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    int rc = d && d->core && vcpu < d->vcpu_count ? 0 : -ESRCH;
    emb_unlock(m);
    while (rc == 0 && bytes > 0) {
        size_t n = FS_PAGE_BYTES - (va & (FS_PAGE_BYTES - 1));
        n = n < bytes ? n : bytes;
        emb_machine_begin(d, vcpu);
        emb_lock(m);
        uint8_t *p = translate(m, d, vcpu, va, write, user);
        if (!p) {
            rc = -EFAULT;
            *fault = va;
        } else if (write) {
            /* A stale entry may write a frame that was freed and is nobody's yet: Xen lets it, so it is no fault of the heap. */
            emb_frame_at(m, (uint64_t)(p - m->contents) / FS_PAGE_BYTES)->flags &= (uint8_t)~EMB_F_POISONED;
            memcpy(p, buf, n);
        } else {
            memcpy(buf, p, n);
        }
        emb_unlock(m);
        emb_machine_end(d, vcpu);
        va += n;
        buf += n;
        bytes -= n;
    }
    return rc;
}

int emb_vcpu_read(struct emb_machine *m, uint16_t domid, uint32_t vcpu, bool user, uint64_t va, void *buf, size_t bytes, uint64_t *fault)
{
    return access_user(m, domid, vcpu, user, va, buf, bytes, false, fault);
}

int emb_vcpu_write(struct emb_machine *m, uint16_t domid, uint32_t vcpu, bool user, uint64_t va, const void *buf, size_t bytes, uint64_t *fault)
{
    return access_user(m, domid, vcpu, user, va, (uint8_t *)(uintptr_t)buf, bytes, true, fault);
}

/*
 * ptes.c - which machine frame does a translated domain's gfn lead to?
 *
 * Owns: xen_gfns_to_mfns(), and where our process's page tables are (x->root).
 * Xen has no call that tells.  But dom0 is a PV domain: when it maps a guest's gfn, Xen translates it and the
 * machine frame stands in dom0's own page table entry.  Linux hides it from /proc (it translates
 * back), the table itself does not: its frames belong to dom0, which may map them read-only.
 * Only the way to the root is long: Xen tells a vCPU's root table to another vCPU of the same domain.  So a
 * thread of ours spins on one vCPU while we ask from another.
 * Invariants:
 *  I1  a root is believed only if walking it from the address of a page of ours leads to a frame
 *      that holds the 32 random bytes that we have put there.
 *  I2  nothing is written: tables are mapped read-only, gfns too.
 *  I3  a frame number read from a table is below max_mfn, or the walk fails.
 *  I4  affinities of the calling thread are put back on every path.
 * Why not the M2P alone: it gives a frame's gfn, not its domain, and all guests have the same gfns.
 * Cost: a mapping of each gfn (a few microseconds), one of each page table page in use.
 */
#include "ptes.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "frameshift/assert.h"

#define PTE_PRESENT 1ull
#define PTE_LARGE   0x80ull
#define PTE_MFN(e)  (((e) >> FS_PAGE_SHIFT) & ((1ull << 40) - 1))
#define MAP_STEP    8192u               /* gfns mapped at a time: 32 MiB */
#define TRIES       64
#define PROOF_BYTES 32

/* ---- reading a table page of our own ---- */

static const uint64_t *map_own(struct xen_be *x, uint64_t mfn)
{
    xen_pfn_t frame = mfn;
    int e = 0;
    if (mfn >= x->max_mfn) {            /* I3 */
        return NULL;
    }
    void *p = xenforeignmemory_map(x->fmem, DOMID_SELF, PROT_READ, 1, &frame, &e);
    if (p && e) {
        (void)xenforeignmemory_unmap(x->fmem, p, 1);
        p = NULL;
    }
    return p;
}

static void unmap_own(struct xen_be *x, const uint64_t *p)
{
    (void)xenforeignmemory_unmap(x->fmem, (void *)(uintptr_t)p, 1);
}

/* The entry for address at the table of that level (4..1); false: not present. */
static bool entry(struct xen_be *x, uint64_t table, unsigned level, uintptr_t address, uint64_t *out)
{
    const uint64_t *p = map_own(x, table);
    if (!p) {
        return false;
    }
    *out = *(const volatile uint64_t *)&p[(address >> (FS_PAGE_SHIFT + 9 * (level - 1))) & 511];
    unmap_own(x, p);
    return (*out & PTE_PRESENT) != 0 && (level == 1 || !(*out & PTE_LARGE));
}

/* The L1 table that maps address; false: none. */
static bool l1_of(struct xen_be *x, uint64_t root, uintptr_t address, uint64_t *l1)
{
    uint64_t table = root, e;
    for (unsigned level = 4; level >= 2; level--) {
        if (!entry(x, table, level, address, &e)) {
            return false;
        }
        table = PTE_MFN(e);
    }
    *l1 = table;
    return true;
}

/* ---- finding the root ---- */

static bool root_is_ours(struct xen_be *x, uint64_t root, const uint8_t *proof)
{
    uint64_t l1, e;
    if (!l1_of(x, root, (uintptr_t)proof, &l1) || !entry(x, l1, 1, (uintptr_t)proof, &e)) {
        return false;
    }
    const uint64_t *p = map_own(x, PTE_MFN(e));
    bool same = p && memcmp((const uint8_t *)p + ((uintptr_t)proof & (FS_PAGE_BYTES - 1)), proof, PROOF_BYTES) == 0;     /* I1 */
    if (p) {
        unmap_own(x, p);
    }
    return same;
}

struct spinner {
    atomic_bool stop;
    int cpu;
};

static void *spin(void *arg)
{
    struct spinner *s = arg;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((unsigned)s->cpu, &one);
    (void)sched_setaffinity(0, sizeof one, &one);
    while (!atomic_load(&s->stop)) {
    }
    return NULL;
}

/* Two CPUs of dom0: the one that we are on (we are tied to it meanwhile), and another. */
static bool two_cpus(struct xen_be *x, int *here, int *there)
{
    *here = sched_getcpu();
    for (int v = 0; v < CPU_SETSIZE && v < 4096; v++) {
        xc_vcpuinfo_t info;
        if (xc_vcpu_getinfo(x->xch, x->self, (uint32_t)v, &info) != 0) {
            if (errno == EINVAL) {
                break;                  /* beyond the last */
            }
            continue;
        }
        if (info.online && v != *here) {
            *there = v;
            return *here >= 0;
        }
    }
    return false;
}

static bool try_roots(struct xen_be *x, int vcpu, const uint8_t *proof)
{
    vcpu_guest_context_any_t *ctx = calloc(1, sizeof *ctx);
    bool found = false;
    for (int i = 0; ctx && i < TRIES && !found; i++) {
        if (xc_vcpu_getcontext(x->xch, x->self, (uint32_t)vcpu, ctx) == 0) {
            const uint64_t roots[2] = { ctx->x64.ctrlreg[1], ctx->x64.ctrlreg[3] };
            for (int k = 0; k < 2 && !found; k++) {
                found = roots[k] && root_is_ours(x, xen_cr3_to_pfn(roots[k]), proof);
                x->root = found ? xen_cr3_to_pfn(roots[k]) : 0;
            }
        }
        if (!found) {
            sched_yield();              /* another program ran there this moment */
        }
    }
    free(ctx);
    return found;
}

static bool find_root(struct xen_be *x, const uint8_t *proof)
{
    cpu_set_t before, one;
    struct spinner s = { .stop = false };
    int here;
    pthread_t thread;
    if (x->root && root_is_ours(x, x->root, proof)) {
        return true;
    }
    x->root = 0;
    if (sched_getaffinity(0, sizeof before, &before) != 0 || !two_cpus(x, &here, &s.cpu)) {
        return false;
    }
    CPU_ZERO(&one);
    CPU_SET((unsigned)here, &one);
    bool found = false;
    if (sched_setaffinity(0, sizeof one, &one) == 0 && pthread_create(&thread, NULL, spin, &s) == 0) {
        found = try_roots(x, s.cpu, proof);
        atomic_store(&s.stop, true);
        pthread_join(thread, NULL);
    }
    (void)sched_setaffinity(0, sizeof before, &before);         /* I4 */
    return found;
}

/* ---- the question ---- */

static bool read_mapped(struct xen_be *x, const uint8_t *base, size_t count, const int *page_err, uint64_t *mfns)
{
    const uint64_t *table = NULL;
    uint64_t table_of = UINT64_MAX;
    bool good = true;
    for (size_t i = 0; i < count && good; i++) {
        uintptr_t address = (uintptr_t)base + i * FS_PAGE_BYTES;
        mfns[i] = FS_FRAME_NONE;
        if (page_err[i]) {
            continue;
        }
        if (address >> 21 != table_of) {
            uint64_t l1;
            if (table) {
                unmap_own(x, table);
            }
            table = l1_of(x, x->root, address, &l1) ? map_own(x, l1) : NULL;
            table_of = address >> 21;
        }
        uint64_t e = table ? table[(address >> FS_PAGE_SHIFT) & 511] : 0;
        good = (e & PTE_PRESENT) && PTE_MFN(e) < x->max_mfn;
        mfns[i] = PTE_MFN(e);
    }
    if (table) {
        unmap_own(x, table);
    }
    return good;
}

fs_status_t xen_gfns_to_mfns(struct xen_be *x, uint16_t domid, const uint64_t *gfns, size_t count, uint64_t *mfns, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    int *page_err = calloc(MAP_STEP, sizeof *page_err);
    uint8_t *proof = mmap(NULL, FS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (!page_err || proof == MAP_FAILED) {
        s = fs_fail(err, FS_NO_MEMORY, "no memory to look into our page tables");
        goto out;
    }
    if (mlock(proof, FS_PAGE_BYTES) != 0 || getrandom(proof, PROOF_BYTES, 0) != PROOF_BYTES) {
        s = xen_fail(err, errno, "cannot prepare a look into our page tables");
        goto out;
    }
    if (!find_root(x, proof)) {
        s = fs_fail(err, FS_UNSUPPORTED, "cannot find our own page tables (dom0 needs a second virtual CPU for that)");
        goto out;
    }
    for (size_t at = 0; at < count && s == FS_OK; at += MAP_STEP) {
        size_t n = count - at < MAP_STEP ? count - at : MAP_STEP;
        memset(page_err, 0, MAP_STEP * sizeof *page_err);
        void *p = xenforeignmemory_map(x->fmem, domid, PROT_READ, n, (const xen_pfn_t *)&gfns[at], page_err);
        if (!p) {
            s = xen_fail_domain(x, domid, err, errno, "cannot map gfn %#llx of domain %u", (unsigned long long)gfns[at], domid);
            break;
        }
        if (!read_mapped(x, p, n, page_err, &mfns[at])) {
            s = fs_fail(err, FS_UNSUPPORTED, "our page tables do not show what was just mapped");
        }
        (void)xenforeignmemory_unmap(x->fmem, p, n);
    }
out:
    if (proof != MAP_FAILED) {
        (void)munmap(proof, FS_PAGE_BYTES);
    }
    free(page_err);
    return s;
}

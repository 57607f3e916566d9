/*
 * move_hosted.c - the flat hosted machine has one frame for each page, for ever.
 *
 * Owns: nothing.
 * Why: the core's relocation links on every machine; here it finds no frame that a page could move to, and says so.
 * guest/arch/embedded has frames of its own.
 * Invariants: I1  nothing is ever done.
 * Lock order: none.
 * Cost: none.
 */
#include "arch_hosted.h"
#include "hosted_priv.h"
#include <errno.h>

pfn_t arch_mfn_pfn(mfn_t mfn)
{
    return mfn.n >= HOSTED_MFN_OFFSET && mfn.n - HOSTED_MFN_OFFSET < hosted_memory_pages() ? pfn_make(mfn.n - HOSTED_MFN_OFFSET) : PFN_NONE;
}

size_t arch_frames_move(struct arch_frame_move *list, size_t count, bool verify, uint64_t *verified)
{
    (void)verify, (void)verified;
    for (size_t i = 0; i < count; i++) {
        list[i].done = false;
    }
    return 0;
}

int arch_table_move(const struct arch_frame_move *m, const struct arch_table_place *at, bool verify)
{
    (void)m, (void)at, (void)verify;
    return -EOPNOTSUPP;
}

bool arch_boot_table(pfn_t pfn, struct arch_table_place *at)
{
    (void)pfn, (void)at;
    return false;
}

bool arch_frames_exchange(pfn_t pfn, unsigned order, bool join, unsigned address_bits)
{
    (void)pfn, (void)order, (void)join, (void)address_bits;
    return false;                               /* frames lie together as pages do: only a limit can be missed */
}

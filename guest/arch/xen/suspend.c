/*
 * suspend.c - this domain is saved, or stands still for its frames to be exchanged by a tool, and goes on.
 *
 * Owns: what of this domain is different when it goes on.
 * Invariants:
 *   I1  while the domain is suspended no page table maps a frame that is not in the p2m (shared_info, a page in the window): tools refuse
 *       such a table, as they could not say which frame it should name elsewhere.
 *   I2  start_info names the two ring pages by pfn then, as tools expect it; afterwards by frame again.
 *   I3  whatever the answer is, shared_info is mapped, the rings are found anew and the p2m is registered before this returns.
 * Lock order: none (one vCPU).
 * Why both ways alike: "cancelled" (1) means the same domain, perhaps with other frames; 0 means a new one, restored: then Xen's
 *   shared_info is another page, ports are new, and xenstore knows nothing of us.  What is right for the second is right for the first.
 * Cost: a few hypercalls, beside the time away.
 */
#include "serve.h"
#include "frameshift/assert.h"

int serve_suspend(void)
{
    uint64_t console = memory_pfn(start_info->console.domU.mfn), store = memory_pfn(start_info->store_mfn);
    uint64_t info = memory_direct_pfn(start_info);
    struct sched_shutdown shutdown = { .reason = SHUTDOWN_suspend };
    int64_t answer;

    ASSERT_CMP(console, !=, FS_FRAME_NONE);
    ASSERT_CMP(store, !=, FS_FRAME_NONE);
    ASSERT_CMP(arch_space_enter(PFN_NONE), ==, 0);
    start_info->console.domU.mfn = console;                     /* I2 */
    start_info->store_mfn = store;
    shared_info_unmap();                                        /* I1 */
    answer = hypercall(__HYPERVISOR_sched_op, SCHEDOP_shutdown, hypercall_pointer(&shutdown), memory_mfn(info), 0);
    if (answer != 0) {                                          /* the tools have written new ones otherwise */
        start_info->console.domU.mfn = memory_mfn(console);
        start_info->store_mfn = memory_mfn(store);
    }
    shared_info_map();                                          /* I3 */
    memory_register();
    time_again();
    console_open(direct_map(console), start_info->console.domU.evtchn);
    return answer == 0 ? 1 : answer == 1 ? 0 : (int)answer;
}

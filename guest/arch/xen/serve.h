/*
 * serve.h - this kernel as a guest that works, verifies what it has, and moves its own pages when it is asked to.
 */
#ifndef GUEST_ARCH_XEN_SERVE_H
#define GUEST_ARCH_XEN_SERVE_H

#include "kernel.h"
#include "../../mm/coop.h"
#include "../../mm/hugetlb.h"
#include "../../mm/lru.h"
#include "../../mm/pagecache.h"
#include "../../mm/swap.h"
#include "../../workload/workload.h"
#include "reservation.h"

/* In boot memory, so that it moves like any other page. */
struct serve {
    struct mm mm;
    struct vm vm;
    struct lru lru;
    struct pagecache pagecache;
    struct swap swap;
    struct hugetlb hugetlb;
    struct coop coop;
    struct workload workload;
    uint64_t random, start_ns, start_free;
    struct reservation reservation;
    uint64_t seq, beat_ns, seen_ns, gap_ns, max_gap_ns, nap_ns;     /* the beat; when a task last had the CPU */
    uint64_t suspends, faults;
};

/* serve.c */
void serve_run(uint64_t seconds);           /* until somebody asks for the end, or the time is over (0: no limit); prints the line of result */
/* suspend.c: 0: the same domain goes on, 1: this is a restored one, -errno: not suspended. xenstore is closed in both good cases. */
int serve_suspend(void);
/* serve_check.c */
uint64_t serve_fsck(struct serve *s);       /* every fsck of the core, the p2m and the direct map; prints the first faults */
void serve_balance(struct serve *s);        /* all is given back: is every page free again? Panics where not */
void serve_plant(struct serve *s);          /* one wrong byte in a page of a process; a fault of the frames with plant=frame */

#endif

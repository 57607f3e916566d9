/*
 * fake_hap.h - a small translated domain to move, that lives longer than the process that moves it.
 *
 * Everything is in shared memory: a child may be killed in the middle of a move, and its parent (or the
 * next child) finds the machine as it was left.  Bytes of frames are pages of a memfd, so that mappings are
 * real.  The guest runs between calls, whenever nobody has paused it: it writes pages, makes and
 * ends grants, gives pages up.  A peer writes to granted frames, Xen to the frames that it holds, also in
 * pauses, and by frame, not by gfn: if a frame moves that must not, the bytes are lost and the check says so.
 */
#ifndef FRAMESHIFT_TESTS_FAKE_HAP_H
#define FRAMESHIFT_TESTS_FAKE_HAP_H

#include "backend.h"
#include "mover.h"

#define FAKE_FRAMES    8192u
#define FAKE_RANGE     ((struct mfn_range){ { 1024 }, { 3072 } })    /* node 1, to be emptied */
#define FAKE_NEW       4096u                                         /* first frame of node 0 */
#define FAKE_GFNS      4096u            /* low gfns */
#define FAKE_WINDOW    0x10f800ull         /* where the mover's own rule puts it */
#define FAKE_WINDOW_GFNS 2048u
#define FAKE_DOMID     7
#define FAKE_VCPUS     2u
#define FAKE_GRANTS    4u

enum fake_action { FAKE_NOTHING, FAKE_FAIL, FAKE_KILL_BEFORE, FAKE_KILL_AFTER, FAKE_DIE };

struct fake_options {
    uint64_t seed;
    bool quiet;                         /* the guest does nothing */
    bool balloons, grants;
    uint32_t superpages;                /* order-9 extents that populate can still give */
    bool no_refs, no_kinds;             /* the machine does not tell */
    bool lose_control_block;            /* one control block is not in a page of its own */
    bool hotplug;                       /* vCPU 1 comes up (registers its pages) during the move */
    uint32_t bad_word_at;               /* verify: damage this many copies on their way (0 none) */
    enum fake_action action;
    uint32_t at_call;                   /* 1-based; the action happens at this backend call */
};

struct fake_result {
    uint64_t calls, pauses_left, max_pages, tot_pages, scratch_left, in_range_left, offlined;
    uint64_t unscrubbed;                /* frames let go with bytes in them */
};

/* Makes the machine anew. */
void fake_hap_make(const struct fake_options *o);
struct hv_backend *fake_hap_backend(void);
/* What evacuate.c would hand over; malloc'd. */
size_t fake_hap_list(struct mover_list *list);
void fake_hap_domain(struct hv_domain *out);
void fake_hap_room(struct room *room);
/* The process that used the machine has ended: its mappings go. */
void fake_hap_process_died(void);
void fake_hap_arm(enum fake_action action, uint32_t at_call);
void fake_hap_stop_guest(void);         /* grants end, nothing more happens */
struct fake_result fake_hap_result(void);
/* NULL, or what is wrong: bytes of every gfn, held frames where they were. */
const char *fake_hap_check(void);
bool fake_hap_is_held(uint64_t gfn);
bool fake_hap_gone(void);               /* the domain died */

#endif

/*
 * plan.h - what an evacuation would do, from what was seen (pure: no backend).
 *
 * Owns: building struct hv_plan.  The caller (survey.c) feeds what it read of the
 * machine; nothing here changes or asks anything.
 * Order of calls: plan_begin, plan_add_frames (ascending), plan_domain_* in any
 * order, plan_finish.
 */
#ifndef FRAMESHIFT_HV_PLAN_H
#define FRAMESHIFT_HV_PLAN_H

#include "backend.h"
#include "hv.h"

struct plan_cost {                  /* measured on this host while surveying; 0: unknown */
    uint64_t type_scan_ns_per_frame;
};

struct plan_options {
    bool evict, verify;
    uint64_t max_blackout_ns, max_pause_ns;
    const uint16_t *exclude;
    size_t exclude_count;
};

fs_status_t plan_begin(struct hv_plan *p, const char *target, const struct mfn_range_set *ranges,
                       const struct hv_domain *domains, size_t count, const struct plan_options *options) FS_MUST_CHECK;
/* Frames [start, start + count). */
fs_status_t plan_add_frames(struct hv_plan *p, mfn_t start, const struct hv_frame *frames, size_t count,
                            const struct hv_domain *domains, size_t domain_count) FS_MUST_CHECK;
/* Frames of the range that a domain's rings and grants name (PV: by mfn, HAP: by gfn, resolved by the caller). */
fs_status_t plan_block(struct hv_plan *p, uint16_t domid, mfn_t mfn, uint64_t gfn, enum fs_reason reason) FS_MUST_CHECK;
/* Frames of a PV domain's p2m list that lie in the range; tables of the whole domain. */
void plan_domain_pv(struct hv_plan *p, uint16_t domid, uint64_t p2m_pages_in_range, uint64_t tables_total);
/* Room, refusals, expected stops. reserved_free: free frames inside the range on that node (they are no room). */
fs_status_t plan_finish(struct hv_plan *p, const struct hv_host *host, const uint64_t in_range_unowned[HV_NODES_MAX],
                        const struct plan_options *options, const struct plan_cost *cost) FS_MUST_CHECK;
struct hv_plan_domain *plan_domain(struct hv_plan *p, uint16_t domid);      /* NULL: has no frame in the range */

#endif

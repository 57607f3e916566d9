/*
 * pv_held.c - a word for each frame of a PV guest that somebody else holds.
 *
 * Owns: pv_held_name(), pv_held_ldt().
 * Invariants:
 *   I1  that a frame is held is Xen's answer (the probe) and is never changed here; only the reason's name is.
 *   I2  a name is given where the page looks like one of the three kinds that Xen keeps mapped, and nothing else;
 *       what looks like none of them keeps the name "foreign-reference".
 *   I3  an LDT page is one by Xen's own word: its type and type count (frame_refs). Xen maps it for a vCPU and lets go when
 *       that vCPU changes its root or its LDT, which a guest that runs does soon and a stopped one never.
 * Why after the resume and not in the stop: a name is for people, and each page is the same after it. The guest may write while
 * we look; the shapes hold at every moment (held_shape.c).
 * Lock order: none.
 * Cost: one mapping of the held frames, a few for each vCPU.
 */
#include <stdlib.h>
#include <time.h>

#include "held_shape.h"
#include "pv_job.h"

#define HELD_MAX   512u             /* more are not looked at: a guest that shares that much keeps "foreign-reference" */
#define PORT_LIMIT 131072u
#define TYPE_DESCRIPTORS 5u         /* Xen's PGT_seg_desc_page */
#define LDT_LOOKS   15u
#define LDT_WAIT_NS 100000000l

/* A vCPU's clock is in use there. A PV guest's vcpu_info lies among other per-CPU data, anywhere in its page. */
static bool vcpu_clock(const uint8_t *page)
{
    return held_shape_vcpu_next(page, 0) >= 0;
}

static enum fs_reason name_of(const uint8_t *page)
{
    return held_shape_control(page, PORT_LIMIT) ? FS_REASON_EVTCHN_CONTROL
         : held_shape_array(page)               ? FS_REASON_EVTCHN_ARRAY
         : vcpu_clock(page)                     ? FS_REASON_VCPU_INFO
         :                                        FS_REASON_FOREIGN_REF;
}

void pv_held_name(const struct mover_ctx *ctx, uint16_t domid, struct mover_result *result)
{
    uint64_t *frames = malloc(HELD_MAX * sizeof(*frames));
    size_t *which = malloc(HELD_MAX * sizeof(*which)), n = 0;
    int *errors = calloc(HELD_MAX, sizeof(*errors));
    void *map = NULL;
    for (size_t i = 0; frames != NULL && which != NULL && i < result->blocker_count && n < HELD_MAX; i++) {
        if (result->blockers[i].reason == FS_REASON_FOREIGN_REF) {
            frames[n] = result->blockers[i].frame;
            which[n++] = i;
        }
    }
    if (n > 0 && errors != NULL && ctx->be->ops->map(ctx->be, domid, frames, n, HV_MAP_READ, errors, &map, NULL) == FS_OK) {
        for (size_t k = 0; k < n; k++) {
            if (errors[k] == 0) {
                result->blockers[which[k]].reason = (uint8_t)name_of((const uint8_t *)map + k * FS_PAGE_BYTES);
            }
        }
        ctx->be->ops->unmap(ctx->be, map, n);
    }
    free(errors);
    free(which);
    free(frames);
}

/* Refs of the blockers with that reason; n of them, at most HELD_MAX. */
static size_t ask(const struct mover_ctx *ctx, struct mover_result *result, enum fs_reason reason, size_t *which, struct hv_frame_refs *refs)
{
    mfn_t mfns[64];
    size_t n = 0;
    for (size_t i = 0; i < result->blocker_count && n < FS_ARRAY_SIZE(mfns); i++) {
        if (result->blockers[i].reason == reason) {
            which[n] = i;
            mfns[n++] = fs_blocker_mfn(&result->blockers[i]);
        }
    }
    return n > 0 && ctx->be->ops->frame_refs(ctx->be, mfns, n, refs, NULL) == FS_OK ? n : 0;
}

bool pv_held_ldt(const struct mover_ctx *ctx, struct mover_result *result, bool wait)
{
    struct hv_frame_refs refs[64];
    size_t which[64], ldts = 0;
    bool any = false;
    if (ctx->be->ops->frame_refs == NULL) {
        return false;
    }
    for (size_t n = ask(ctx, result, FS_REASON_FOREIGN_REF, which, refs), i = 0; i < n; i++) {
        if (refs[i].known && refs[i].type == TYPE_DESCRIPTORS) {
            result->blockers[which[i]].reason = FS_REASON_LDT;
            ldts++;
        }
    }
    for (unsigned look = 0; wait && look < LDT_LOOKS && ldts > 0 && !any && !mover_interrupted(ctx); look++) {
        if (look > 0) {
            nanosleep(&(struct timespec){ .tv_nsec = LDT_WAIT_NS }, NULL);
        }
        for (size_t n = ask(ctx, result, FS_REASON_LDT, which, refs), i = 0; i < n; i++) {
            if (refs[i].known && refs[i].type_count == 0) {
                result->blockers[which[i]].reason = FS_REASON_NONE;
                any = true;
            }
        }
    }
    return any;
}

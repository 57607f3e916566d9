/*
 * mover.c - what every mover shares: lists of frames, blockers, events, phases, names.
 *
 * Owns: growth of lists of frames, of struct mover_result's blocker list and of a domain
 * report's phase table.
 * Invariants:
 *  I1 a phase name appears once in a report; times and counts of one name add up;
 *  I2 the last slot of a full phase table collects the rest as "other", so that
 *     the sum over phases stays the time spent.
 * Lock order: none; movers report from one thread.
 * Cost: amortised O(1) a blocker; O(phases) a phase, at most HV_PHASES_MAX.
 */
#include "mover.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"

const char *hv_mover_name(enum hv_mover m)
{
    switch (m) {
    case HV_MOVER_NONE: return "none";
    case HV_MOVER_PV: return "pv";
    case HV_MOVER_HAP: return "hap";
    case HV_MOVER_COOP: return "coop";
    case HV_MOVER_EVICT: return "evict";
    }
    return "unknown";
}

fs_status_t mover_block(struct mover_result *r, mfn_t mfn, uint64_t gfn, uint16_t domid, enum fs_reason reason)
{
    ASSERT_CMP(reason, <, FS_REASON_COUNT);
    if (r->blocker_count == r->blocker_capacity) {
        size_t capacity = r->blocker_capacity ? r->blocker_capacity * 2 : 64;
        struct fs_blocker *grown = realloc(r->blockers, capacity * sizeof(*grown));

        if (!grown) {
            return FS_NO_MEMORY;
        }
        r->blockers = grown;
        r->blocker_capacity = capacity;
    }
    r->blockers[r->blocker_count++] = fs_blocker_make(mfn, gfn, domid, reason);
    return FS_OK;
}

fs_status_t mover_list_add(struct mover_list *l, mfn_t mfn, uint64_t gfn)
{
    ASSERT(mfn.n >= l->base.n);
    if (mfn.n - l->base.n > UINT32_MAX) {
        return FS_BAD_RANGE;
    }
    if (l->count == l->capacity) {
        /* By an eighth: a doubled list of a large guest would be most of what the engine takes. */
        size_t capacity = l->capacity + l->capacity / 8 + 4096;
        struct mover_frame *grown = realloc(l->list, capacity * sizeof(*grown));

        if (!grown) {
            return FS_NO_MEMORY;
        }
        l->list = grown;
        l->capacity = capacity;
    }
    l->list[l->count++] = (struct mover_frame){ .offset = (uint32_t)(mfn.n - l->base.n), .gfn = gfn < UINT32_MAX ? (uint32_t)gfn : UINT32_MAX };
    return FS_OK;
}

void mover_list_free(struct mover_list *l)
{
    free(l->list);
    l->list = NULL;
    l->count = l->capacity = 0;
}

void mover_event(const struct mover_ctx *ctx, enum fs_event_id id, uint16_t domid, uint64_t a, uint64_t b, const char *note)
{
    if (!ctx->on_event) {
        return;
    }
    struct fs_event event = {
        .id = id, .domid = domid, .time_ns = ctx->be->ops->clock_ns(ctx->be), .a = a, .b = b, .note = note,
    };
    ctx->on_event(ctx->event_arg, &event);
}

void mover_phase(struct hv_domain_report *r, const char *name, uint64_t ns, uint64_t count)
{
    struct hv_phase *p = NULL;

    ASSERT_CMP(r->phase_count, <=, HV_PHASES_MAX);
    ASSERT_CMP(strlen(name), <, sizeof(p->name));       /* a cut name would merge two phases (I1) */
    for (size_t i = 0; i < r->phase_count && !p; i++) {
        if (!strcmp(r->phases[i].name, name)) {
            p = &r->phases[i];
        }
    }
    if (!p && r->phase_count < HV_PHASES_MAX) {
        p = &r->phases[r->phase_count++];
        *p = (struct hv_phase){ 0 };
        const char *kept = r->phase_count == HV_PHASES_MAX ? "other" : name;    /* I2 */
        (void)snprintf(p->name, sizeof(p->name), "%s", kept);
    } else if (!p) {
        p = &r->phases[HV_PHASES_MAX - 1];
    }
    p->ns += ns;
    p->count += count;
}

/*
 * groups.c - blockers by owner and reason, and what a person can do about each.
 *
 * Owns: struct blocker_groups.
 * Invariants:
 *  I1 the frames of all groups add up to the number of blockers, of a plan to what its
 *     domains count as blocked and the blockers without a domain of the plan;
 *  I2 every reason of FS_REASON_LIST has advice: the compiler complains where a new
 *     one has none (the switches have no default).
 * Why a list and not a hash: a host has a few owners times a few reasons, and
 * blockers come in runs, so that the group hit last is most often the next one.
 * Cost: O(blockers x groups) at worst, O(blockers) where they come in runs.
 */
#include "groups.h"

#include <stdlib.h>
#include <string.h>

static struct blocker_group *group_find(struct blocker_groups *g, const struct fs_blocker *b, size_t *last)
{
    if (*last < g->count && g->groups[*last].domid == b->domid && g->groups[*last].reason == b->reason) {
        return &g->groups[*last];
    }
    for (size_t i = 0; i < g->count; i++) {
        if (g->groups[i].domid == b->domid && g->groups[i].reason == b->reason) {
            *last = i;
            return &g->groups[i];
        }
    }
    return NULL;
}

static struct blocker_group *group_add(struct blocker_groups *g, const struct fs_blocker *b, size_t *last)
{
    /* Grown by a power of two: count alone tells the capacity. */
    if ((g->count & (g->count - 1)) == 0) {
        size_t capacity = g->count == 0 ? 1 : 2 * g->count;
        struct blocker_group *grown = realloc(g->groups, capacity * sizeof(*grown));
        if (!grown) {
            return NULL;
        }
        g->groups = grown;
    }
    *last = g->count++;
    g->groups[*last] = (struct blocker_group){ .domid = b->domid, .reason = b->reason };
    return &g->groups[*last];
}

static int group_order(const void *x, const void *y)
{
    const struct blocker_group *a = x, *b = y;

    if (a->frames != b->frames) {
        return a->frames > b->frames ? -1 : 1;
    }
    if (a->domid != b->domid) {
        return a->domid < b->domid ? -1 : 1;
    }
    return (a->reason > b->reason) - (a->reason < b->reason);
}

fs_status_t groups_make(const struct fs_blocker *blockers, size_t count, struct blocker_groups *out)
{
    size_t last = 0;

    *out = (struct blocker_groups){ 0 };
    for (size_t i = 0; i < count; i++) {
        struct blocker_group *g = group_find(out, &blockers[i], &last);
        if (!g) {
            g = group_add(out, &blockers[i], &last);
        }
        if (!g) {
            groups_free(out);
            return FS_NO_MEMORY;
        }
        if (g->first_count < GROUP_FIRST_MAX) {
            g->first[g->first_count++] = fs_blocker_mfn(&blockers[i]);
        }
        g->frames++;
    }
    if (out->count > 1) {
        qsort(out->groups, out->count, sizeof(out->groups[0]), group_order);
    }
    return FS_OK;
}

/* Why a domain is left alone as a whole. */
static enum fs_reason reason_of_domain(const struct hv_plan_domain *d)
{
    if (strncmp(d->kind, "dom0", sizeof(d->kind)) == 0) {
        return FS_REASON_DOM0;
    }
    /* A kind that has a mover has none here only where the user excluded it. */
    if (strncmp(d->kind, "pv32", sizeof(d->kind)) == 0 || strncmp(d->kind, "other", sizeof(d->kind)) == 0) {
        return FS_REASON_NO_MOVER;
    }
    return d->mover == HV_MOVER_NONE ? FS_REASON_GUEST_EXCLUDED : FS_REASON_OWNER_UNKNOWN;
}

fs_status_t groups_make_plan(const struct hv_plan *plan, struct blocker_groups *out)
{
    fs_status_t s = groups_make(plan->blockers, plan->blocker_count, out);

    for (size_t i = 0; i < plan->domain_count && s == FS_OK; i++) {
        const struct hv_plan_domain *d = &plan->domains[i];
        struct fs_blocker key = { .domid = d->domid, .reason = (uint8_t)reason_of_domain(d) };
        uint64_t listed = groups_frames_of(out, d->domid);
        size_t last = 0;
        if (d->pages_blocked <= listed) {
            continue;
        }
        struct blocker_group *g = group_find(out, &key, &last);
        g = g ? g : group_add(out, &key, &last);
        if (!g) {
            groups_free(out);
            return FS_NO_MEMORY;
        }
        g->frames += d->pages_blocked - listed;
    }
    if (s == FS_OK && out->count > 1) {
        qsort(out->groups, out->count, sizeof(out->groups[0]), group_order);
    }
    return s;
}

uint64_t groups_frames(const struct blocker_groups *g)
{
    uint64_t frames = 0;

    for (size_t i = 0; i < g->count; i++) {
        frames += g->groups[i].frames;
    }
    return frames;
}

uint64_t groups_frames_of(const struct blocker_groups *g, uint16_t domid)
{
    uint64_t frames = 0;

    for (size_t i = 0; i < g->count; i++) {
        frames += g->groups[i].domid == domid ? g->groups[i].frames : 0;
    }
    return frames;
}

void groups_free(struct blocker_groups *g)
{
    free(g->groups);
    *g = (struct blocker_groups){ 0 };
}

const char *reason_advice(unsigned reason)
{
    if (reason >= FS_REASON_COUNT) {
        return "unknown to this version";
    }
    switch ((enum fs_reason)reason) {       /* I2 */
    case FS_REASON_NONE:           return "nothing holds it any more";
    case FS_REASON_DOM0:           return "boot with dom0_nodes= (and dom0_mem=) that leave this memory out";
    case FS_REASON_XEN:            return "Xen's own, until the next boot";
    case FS_REASON_XEN_SHARED:
    case FS_REASON_XENSTORE_RING:
    case FS_REASON_CONSOLE_RING:
    case FS_REASON_IOREQ:
    case FS_REASON_VCPU_INFO:
    case FS_REASON_EVTCHN_ARRAY:
    case FS_REASON_EVTCHN_CONTROL: return "leaves with its guest: --evict";
    case FS_REASON_EVTCHN_SUSPECT: return "perhaps an event-channel page: try again, or --evict";
    case FS_REASON_GRANTED:        return "when the other side ends its I/O: try again, or --evict";
    case FS_REASON_LDT:            return "when the guest's vCPU runs another process: try again, or --evict";
    case FS_REASON_FOREIGN_REF:    return "when its other holder lets go: try again, or --evict";
    case FS_REASON_NO_MOVER:       return "migrate or shut down this guest: frames of its kind cannot be moved";
    case FS_REASON_NOT_IN_P2M:     return "in no table of its guest: try again, or --evict";
    case FS_REASON_GUEST_REFUSED:  return "the guest did not stop, or is paused: unpause it, see its console, try again";
    case FS_REASON_GUEST_BUSY:     return "in use in its guest each time it was asked: try again when the guest is less busy";
    case FS_REASON_GUEST_ABI:      return "its guest's kernel did not answer as it should: see the guest's console, try again, or --exclude it";
    case FS_REASON_NO_ROOM:        return "no free frame outside the range: free memory there (--make-room, or shrink guests), try again";
    case FS_REASON_GUEST_EXCLUDED: return "you excluded its guest";
    case FS_REASON_XEN_REFUSED:    return "Xen refused: try again, see `xl dmesg`";
    case FS_REASON_ONE_PCPU:       return "needs a second CPU: with one, marking would hang Xen";
    case FS_REASON_BROKEN:         return "out of use already";
    case FS_REASON_OWNER_UNKNOWN:  return "its owner could not be told: try again";
    case FS_REASON_COUNT:          break;
    }
    return "unknown to this version";
}

bool reason_is_evictable(unsigned reason)
{
    if (reason >= FS_REASON_COUNT) {
        return false;
    }
    switch ((enum fs_reason)reason) {       /* I2 */
    case FS_REASON_XEN_SHARED:
    case FS_REASON_XENSTORE_RING:
    case FS_REASON_CONSOLE_RING:
    case FS_REASON_IOREQ:
    case FS_REASON_VCPU_INFO:
    case FS_REASON_EVTCHN_ARRAY:
    case FS_REASON_EVTCHN_CONTROL:
    case FS_REASON_EVTCHN_SUSPECT:
    case FS_REASON_GRANTED:
    case FS_REASON_FOREIGN_REF:
    case FS_REASON_LDT:
    case FS_REASON_NOT_IN_P2M:
        return true;
    case FS_REASON_NONE:
    case FS_REASON_DOM0:
    case FS_REASON_XEN:
    case FS_REASON_NO_MOVER:
    case FS_REASON_GUEST_REFUSED:
    case FS_REASON_GUEST_EXCLUDED:
    case FS_REASON_XEN_REFUSED:
    case FS_REASON_ONE_PCPU:
    case FS_REASON_BROKEN:
    case FS_REASON_OWNER_UNKNOWN:
    case FS_REASON_GUEST_BUSY:
    case FS_REASON_GUEST_ABI:
    case FS_REASON_NO_ROOM:
    case FS_REASON_COUNT:
        break;
    }
    return false;
}

const char *verdict_name(enum fs_verdict v)
{
    switch (v) {
    case FS_VERDICT_UNKNOWN:    return "unknown";
    case FS_VERDICT_DONE:       return "done";
    case FS_VERDICT_NOT_NEEDED: return "not-needed";
    case FS_VERDICT_LATER:      return "later";
    case FS_VERDICT_NEVER:      return "never";
    }
    return "unknown";
}

/*
 * progress.c - how far an evacuation is, from its events.
 *
 * Owns: the arithmetic of done, rate and time left.
 * Invariants:
 *  I1 what is shown never goes back and never passes the total: a rolled-back guest
 *     stands still for the reader until others have made up for it;
 *  I2 no rate and no time left before something has moved: a division by a guess is
 *     worse than silence.
 * Why three counts for the domain at work: a PV stop tells its copy; the PVH/HVM mover
 * tells extents one by one and, now and then, the frames of its whole share so far.
 * Cost: O(1) an event.
 */
#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "frameshift/frame.h"
#include "frameshift/status.h"
#include "text.h"

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Of the domain at work, but for the copy that a stop has under way. */
static uint64_t share_done(const struct progress *p) { return larger(p->swap_frames, p->extent_frames); }

/* The domain at work changes: what the last one did stays done. */
static void settle(struct progress *p, uint16_t domid)
{
    p->settled_frames += share_done(p);
    p->swap_frames = p->extent_frames = p->copy_frames = 0;
    p->domid = domid;
}

static const char *words(enum fs_event_id id)
{
    switch (id) {
    case EV_PLAN_BEGIN:   return "looking at every frame";
    case EV_PLAN_END:     return "planned";
    case EV_OFFLINE_FREE: return "taking free frames out of use";
    case EV_RESERVE:      return "reserving new frames";
    case EV_SUSPEND:      return "suspended";
    case EV_PROBE:        return "looking for frames held elsewhere";
    case EV_DROP:         return "references dropped";
    case EV_COPY:         return "copying";
    case EV_REWRITE:      return "page tables rewritten";
    case EV_P2M:
    case EV_M2P:          return "p2m rewritten";
    case EV_PIN:          return "page tables pinned";
    case EV_RESUME:       return "running again";
    case EV_SUPERPAGE:    return "moving 2 MiB extents";
    case EV_PAUSE:
    case EV_SWAP:         return "swapping frames";
    case EV_RELEASE:      return "releasing old frames";
    case EV_VERIFY:       return "verified";
    case EV_EVICT:        return "saving and restoring";
    case EV_ROLLBACK:     return "rolled back";
    case EV_RECOVER:      return "recovering";
    case EV_SWEEP:        return "last look at the range";
    case EV_SHRINK:       return "giving memory back";
    case EV_GROW:         return "taking memory again";
    case EV_WARNING:
    case EV_COUNT:        break;
    }
    return "";
}

void progress_event(struct progress *p, const struct fs_event *e, uint64_t now_ns)
{
    if (e->domid != FS_DOMID_NONE && e->domid != p->domid) {
        settle(p, e->domid);
    }
    switch (e->id) {
    case EV_PLAN_END:
        p->total_frames = e->a;
        break;
    case EV_COPY:
        p->copy_frames = larger(p->copy_frames, e->a);
        break;
    case EV_RESUME:
        p->settled_frames += e->b;
        p->copy_frames = 0;
        break;
    case EV_ROLLBACK:
        p->copy_frames = 0;
        break;
    case EV_SWAP:
        p->swap_frames = larger(p->swap_frames, e->a);
        break;
    case EV_SHRINK:
    case EV_GROW:
        p->total_frames = larger(p->total_frames, e->b);
        p->swap_frames = larger(p->swap_frames, e->a);
        break;
    case EV_SUPERPAGE:
        p->extent_frames += e->a * FS_SP_PAGES;
        break;
    case EV_WARNING:
        return;
    default:
        break;
    }
    p->last = e->id;
    if (p->begin_ns == 0 && (e->id == EV_RESERVE || e->id == EV_COPY || e->id == EV_SWAP || e->id == EV_SUPERPAGE || e->id == EV_SHRINK || e->id == EV_GROW)) {
        p->begin_ns = now_ns;
    }
}

void progress_line(struct progress *p, const char *name, uint64_t now_ns, char *line, size_t bytes)
{
    uint64_t done = p->settled_frames + share_done(p) + p->copy_frames;
    char rate[64] = "", owner[64] = "";

    done = done > p->total_frames ? p->total_frames : done;
    p->shown_frames = done = larger(done, p->shown_frames);     /* I1 */
    if (name[0] != '\0') {
        (void)snprintf(owner, sizeof(owner), "%.*s: ", 60, name);
    }
    if (p->total_frames == 0) {
        (void)snprintf(line, bytes, "%s%s", owner, words(p->last));
        return;
    }
    if (done > 0 && p->begin_ns > 0 && now_ns > p->begin_ns) {  /* I2 */
        double per_second = (double)done * 1e9 / (double)(now_ns - p->begin_ns);
        uint64_t left_s = (uint64_t)((double)(p->total_frames - done) / per_second + 0.5);
        (void)snprintf(rate, sizeof(rate), "  %s/s  %" PRIu64 ":%02u left", text_count((uint64_t)per_second).s, left_s / 60,
                       (unsigned)(left_s % 60));
    }
    (void)snprintf(line, bytes, "%3u%%  %s of %s frames%s  %s%s", (unsigned)((double)done * 100.0 / (double)p->total_frames),
                   text_count(done).s, text_count(p->total_frames).s, rate, owner, words(p->last));
}

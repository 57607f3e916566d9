/*
 * scrub.c - waiting until Xen has scrubbed its free memory.
 *
 * Owns: xen_scrub_wait(), x->scrub_looked_ns.
 * A free page that waits for scrubbing is counted per node.  Taken offline in that state it is counted for
 * ever: nothing scrubs it, nothing takes it off the count, and Xen's idle loop, which goes on while
 * any node has something to scrub, never sleeps again on that node's CPUs.  Free pages wait after a domain's
 * end, and after boot.
 * Invariants:
 *  I1  the wait ends: at no count, when the count has not fallen for two seconds (pages that were
 *      lost that way before, or no idle CPU), or after ten seconds.  It never fails a marking.
 *      A few pages come and go all the time (Xen scrubs its own pools' pages as well): they get less.
 *  I2  Xen is asked at most once in LOOK_AGAIN_NS if nothing was to be scrubbed.
 * Why debug key 'H': physinfo.scrub_pages is always 0.
 * Cost: about 40 lines of Xen's console a node and look.
 */
#include "xen_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOOK_AGAIN_NS 30000000000ull
#define LIMIT_NS      10000000000ull
#define STUCK_NS      2000000000ull
#define FEW_PAGES     64u
#define FEW_STUCK_NS  300000000ull

static bool unscrubbed(struct xen_be *x, uint64_t *pages)
{
    char *text = NULL, *save = NULL;
    struct fs_error ignored;
    if (xen_debug_key(x, 'H', &text, &ignored) != FS_OK) {
        return false;
    }
    *pages = 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *at = strstr(line, "Node ");
        unsigned long long n;
        int end = 0;
        if (at && sscanf(at, "Node %*u has %llu unscrubbed pages%n", &n, &end) == 1 && end > 0) {
            *pages += n;
        }
    }
    free(text);
    return true;
}

void xen_scrub_wait(struct xen_be *x)
{
    uint64_t start = xen_clock_ns(NULL), fell = start, last = UINT64_MAX, pages = 0;
    if (x->scrub_looked_ns && start - x->scrub_looked_ns < LOOK_AGAIN_NS) {
        return;
    }
    for (;;) {
        uint64_t now = xen_clock_ns(NULL);
        if (!unscrubbed(x, &pages) || pages == 0) {
            break;
        }
        fell = pages < last ? now : fell;
        last = pages;
        if (now - fell > (pages <= FEW_PAGES ? FEW_STUCK_NS : STUCK_NS) || now - start > LIMIT_NS) {
            break;
        }
        nanosleep(&(struct timespec){ .tv_nsec = 100000000 }, NULL);
    }
    x->scrub_looked_ns = xen_clock_ns(NULL);
}

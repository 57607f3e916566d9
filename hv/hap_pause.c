/*
 * hap_pause.c - pauses that are short, counted, and never forgotten.
 *
 * Owns: pausing and unpausing of the domain, the list of pause times, the batch
 * size that keeps swaps inside the limit, and the question whether the domain is
 * still the one that we began with.
 * Invariants:
 *  I1 at most one pause of ours is in force; Xen counts pauses, so ours does not
 *     disturb anybody else's;
 *  I2 ctl->pauses is never lower, and ctl->pauses_sure never higher, than the number
 *     of our pauses that Xen has: recovery after kill -9 undoes exactly ours, but for
 *     the one hypercall in which the tool died, where the two differ by one;
 *  I3 a pause is measured from before the pause call to the unpause call, and what that takes at
 *     least is added: longer than what the guest loses, never shorter.  What it takes beyond is not
 *     the guest's loss: it runs already, and where processors are scarce it is our turn that waits.
 * Why adaptive: what a frame costs in the pause differs fifty-fold between machines,
 * and is not known before the first batch.  So the first batch is small, a batch grows
 * while it stays well inside the limit, and shrinks in proportion when it does not.
 * The aim is two fifths of the limit: pauses have a long tail on a loaded host, and
 * the limit is a promise about the longest.
 * Cost: 8 bytes a pause; one sort at the end.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hap_priv.h"

#define BATCH_FIRST_PAGES 16u
#define BATCH_LEAST_PAGES 16u           /* what these add to a pause is less than what the pause costs without them */
#define DEFAULT_LIMIT_NS  10000000ull

fs_status_t hap_alive(struct hap_job *job, struct fs_error *err)
{
    struct hv_domain now;
    fs_status_t st = job->ops->domain(job->be, job->domid, &now, NULL);

    if (st == FS_NOT_FOUND || st == FS_GUEST_GONE) {
        return fs_fail(err, FS_GUEST_GONE, "domain %u has gone while its frames were moved", job->domid);
    }
    if (st == FS_OK && now.dying) {
        return fs_fail(err, FS_GUEST_GONE, "domain %u is dying while its frames are moved", job->domid);
    }
    if (st == FS_OK && memcmp(now.uuid, job->dom.uuid, sizeof(now.uuid)) != 0) {
        return fs_fail(err, FS_GUEST_GONE, "domain %u is another domain than it was when the move began", job->domid);
    }
    return FS_OK;
}

fs_status_t hap_why(struct hap_job *job, fs_status_t st, struct fs_error *err)
{
    if (st == FS_OK || st == FS_GUEST_GONE) {
        return st;
    }
    fs_status_t alive = hap_alive(job, err);
    return alive != FS_OK ? alive : st;
}

void hap_pause_init(struct hap_job *job)
{
    uint64_t limit = job->ctx->options ? job->ctx->options->max_pause_ns : 0;

    job->pauses.limit_ns = limit != 0 ? limit : DEFAULT_LIMIT_NS;
    job->batch_pages = BATCH_FIRST_PAGES;
}

static bool remember(struct hap_pauses *p, uint64_t ns)
{
    if (p->count == p->capacity) {
        size_t capacity = p->capacity ? p->capacity * 2 : 1024;
        uint64_t *grown = realloc(p->ns, capacity * sizeof(*grown));

        if (!grown) {
            return false;
        }
        p->ns = grown;
        p->capacity = capacity;
    }
    p->ns[p->count++] = ns;
    return true;
}

fs_status_t hap_pause(struct hap_job *job, struct fs_error *err)
{
    struct hap_pauses *p = &job->pauses;

    ASSERT_CMP(p->depth, ==, 0);                            /* I1 */
    ASSERT(job->ctl != NULL);
    job->ctl->pauses++;                                     /* I2 */
    atomic_thread_fence(memory_order_seq_cst);
    p->begin_ns = job->ops->clock_ns(job->be);
    fs_status_t st = job->ops->pause(job->be, job->domid, err);
    if (st != FS_OK) {
        job->ctl->pauses--;
        return hap_why(job, st, err);
    }
    job->ctl->pauses_sure++;
    p->depth = 1;
    return FS_OK;
}

static void adapt(struct hap_job *job, size_t pages, uint64_t ns)
{
    uint64_t aim = job->pauses.limit_ns * 2 / 5;

    if (ns > aim) {
        uint64_t fits = (uint64_t)pages * aim / ns;
        uint32_t half = job->batch_pages / 2;                   /* one stall of the host is no measure */
        uint32_t least = half > BATCH_LEAST_PAGES ? half : BATCH_LEAST_PAGES;

        if (fits < job->batch_pages) {
            job->batch_pages = fits > least ? (uint32_t)fits : least;
        }
    } else if (ns < aim * 3 / 4 && pages >= job->batch_pages && job->batch_pages < HAP_BATCH_MAX) {
        job->batch_pages += ns < aim / 3 ? job->batch_pages : job->batch_pages / 4 + 1;
        if (job->batch_pages > HAP_BATCH_MAX) {
            job->batch_pages = HAP_BATCH_MAX;
        }
    }
}

fs_status_t hap_unpause(struct hap_job *job, size_t pages, uint64_t *pause_ns, struct fs_error *err)
{
    struct hap_pauses *p = &job->pauses;

    ASSERT_CMP(p->depth, ==, 1);
    job->ctl->pauses_sure--;
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t at = job->ops->clock_ns(job->be);
    fs_status_t st = job->ops->unpause(job->be, job->domid, err);
    uint64_t call_ns = job->ops->clock_ns(job->be) - at;
    p->unpause_ns = p->unpause_ns == 0 || call_ns < p->unpause_ns ? call_ns : p->unpause_ns;
    uint64_t ns = at - p->begin_ns + p->unpause_ns;             /* I3 */
    mover_phase(job->report, "unpause", call_ns, 1);
    p->depth = 0;
    if (st != FS_OK) {
        st = hap_why(job, st, err);
        return st == FS_GUEST_GONE ? st : fs_fail(err, FS_NEEDS_RECOVER, "domain %u could not be unpaused; "
                                                  "run `frameshift recover`", job->domid);
    }
    job->ctl->pauses--;
    p->total_ns += ns;
    p->max_ns = ns > p->max_ns ? ns : p->max_ns;
    if (pages > 0) {
        adapt(job, pages, ns);
    }
    if (pause_ns) {
        *pause_ns = ns;
    }
    return remember(p, ns) ? FS_OK : fs_fail(err, FS_NO_MEMORY, "no memory for the list of pauses");
}

static int by_ns(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

void hap_pause_report(struct hap_job *job)
{
    struct hap_pauses *p = &job->pauses;
    struct hv_domain_report *r = job->report;

    r->pauses = p->count;
    r->max_pause_ns = p->max_ns;
    r->longest_blackout_ns = p->max_ns;
    r->blackout_ns = p->total_ns;
    if (p->count > 0) {
        qsort(p->ns, p->count, sizeof(*p->ns), by_ns);
        r->p99_pause_ns = p->ns[(p->count * 99 + 99) / 100 - 1];    /* nearest rank */
        r->p50_pause_ns = p->ns[(p->count + 1) / 2 - 1];
    }
    free(p->ns);
    p->ns = NULL;
    p->count = p->capacity = 0;
}

/*
 * hap_recover.c - after a tool that was killed while it moved frames of a PVH/HVM guest.
 *
 * Owns: hap_recover().
 * Invariants:
 *  I1 the journal says where the window is, the control page in it what state the guest is in.  No
 *     window in the journal: nothing was done.  No control page: no pause of ours is in force and the
 *     stage is not the truth, because both come after it and go before it;
 *  I2 the guest is paused while it is put in order; then exactly our pauses are undone.  In the one
 *     hypercall where the number is in doubt the guest decides it (is it paused?), and where
 *     somebody else had paused it before, the lower number is taken: rather once too often paused
 *     than started against its owner's will;
 *  I3 only then is the window emptied, the control page last;
 *  I4 what the control page says is believed only where the journal agrees: an extent must be one of
 *     those that were about to be moved;
 *  I5 every step may be done again.
 * Frames that moved stay moved.  Scratch frames are zeroed before Xen gets them back.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hap_priv.h"

#define UNPAUSES_MAX 8u

struct found {
    bool window, cleaned, moved;
    struct hap_reserve_record reserve;
};

static fs_status_t read_journal(const struct mover_ctx *ctx, size_t first, size_t last, struct found *f, struct fs_error *err)
{
    *f = (struct found){ 0 };
    for (size_t i = first; i < last; i++) {
        const void *data;
        size_t bytes;
        enum journal_type type = journal_record(ctx->journal, i, &data, &bytes);

        if (type == JR_HAP_RESERVE_INTENT) {
            if (bytes != sizeof(f->reserve)) {
                return fs_fail(err, FS_BAD_INPUT, "journal record %zu (scratch frames) is damaged", i);
            }
            memcpy(&f->reserve, data, sizeof(f->reserve));
            if (f->reserve.window_pages != HAP_WINDOW_PAGES || f->reserve.window_gfn > 1ull << 40) {
                return fs_fail(err, FS_BAD_INPUT, "journal record %zu (scratch frames) makes no sense", i);
            }
            f->window = true;
            f->cleaned = false;
        }
        f->cleaned |= type == JR_HAP_CLEANED;
        f->moved |= type == JR_HAP_BATCH_DONE || type == JR_HAP_EXTENT_DONE;
    }
    return FS_OK;
}

/* I4 */
static bool was_intended(const struct mover_ctx *ctx, size_t first, size_t last, uint64_t gfn, uint64_t mfn)
{
    for (size_t i = first; i < last; i++) {
        const void *data;
        size_t bytes;
        struct hap_run run;

        if (journal_record(ctx->journal, i, &data, &bytes) != JR_HAP_EXTENT_INTENT) {
            continue;
        }
        for (size_t at = 0; at + sizeof(run) <= bytes; at += sizeof(run)) {
            memcpy(&run, (const char *)data + at, sizeof(run));
            if (run.gfn == gfn && run.mfn == mfn && run.pages == FS_SP_PAGES) {
                return true;
            }
        }
    }
    return false;
}

static fs_status_t ctl_find(struct hap_job *job, struct fs_error *err)
{
    uint64_t gfn = hap_gfn(job, HAP_CTL_OFFSET).n;
    int page_err;
    void *map;
    fs_status_t st = job->ops->map(job->be, job->domid, &gfn, 1, HV_MAP_WRITE, &page_err, &map, err);

    if (st != FS_OK) {
        return st;
    }
    job->ctl_populated = page_err == 0;
    const struct hap_ctl *ctl = map;
    if (page_err == 0 && ctl->magic == HAP_CTL_MAGIC && ctl->version == HAP_CTL_VERSION) {
        job->ctl = map;
        return FS_OK;
    }
    job->ops->unmap(job->be, map, 1);
    return FS_OK;
}

/* I2 */
static fs_status_t undo_pauses(struct hap_job *job, bool paused_by_others, struct fs_error *err)
{
    uint32_t count = paused_by_others ? job->ctl->pauses_sure : job->ctl->pauses;
    fs_status_t st = FS_OK;

    for (uint32_t i = 0; i < count && i < UNPAUSES_MAX && st == FS_OK; i++) {
        struct hv_domain now;

        st = job->ops->domain(job->be, job->domid, &now, err);
        if (st != FS_OK || !now.paused) {
            break;
        }
        if (job->ctl->pauses_sure > 0) {
            job->ctl->pauses_sure--;
        }
        atomic_thread_fence(memory_order_seq_cst);
        st = job->ops->unpause(job->be, job->domid, err);
        if (st == FS_OK) {
            job->ctl->pauses--;
        }
    }
    if (st == FS_OK) {
        job->ctl->pauses = job->ctl->pauses_sure = 0;
    }
    return st;
}

/* Put the guest in order and let it run. */
static fs_status_t settle_guest(struct hap_job *job, const struct found *f, size_t first, size_t last, struct fs_error *err)
{
    struct hap_ctl *ctl = job->ctl;
    size_t put = 0;

    if (ctl->pauses == 0 && ctl->stage_phase == HAP_STAGE_IDLE) {
        return FS_OK;
    }
    ctl->pauses++;
    atomic_thread_fence(memory_order_seq_cst);
    fs_status_t st = job->ops->pause(job->be, job->domid, err);
    if (st != FS_OK) {
        ctl->pauses--;
        return st;
    }
    ctl->pauses_sure++;
    if (ctl->stage_phase == HAP_STAGE_FULL && was_intended(job->ctx, first, last, ctl->stage_gfn, ctl->stage_mfn)) {
        st = hap_extent_put_back(job, &put, err);
        mover_event(job->ctx, EV_ROLLBACK, job->domid, job->domid, put, "an extent was put together from its copy");
    }
    if (st != FS_OK) {
        return st;                                          /* stays paused: its memory is not whole */
    }
    return undo_pauses(job, f->reserve.paused_by_others != 0, err);
}

static fs_status_t empty_window(struct hap_job *job, uint64_t *freed, struct fs_error *err)
{
    fs_status_t st = hap_window_empty(job, job->window_gfn, HAP_CTL_OFFSET, freed, err);

    if (st == FS_OK) {
        st = hap_window_empty(job, job->window_gfn + HAP_CTL_OFFSET + 1, HAP_WINDOW_PAGES - HAP_CTL_OFFSET - 1, freed, err);
    }
    if (st == FS_OK && job->dom.max_pages == job->max_pages_before + HAP_EXTRA_PAGES) {
        st = job->ops->set_max_pages(job->be, job->domid, job->max_pages_before, err);
    }
    if (job->ctl) {
        job->ops->unmap(job->be, job->ctl, 1);
        job->ctl = NULL;
    }
    if (st == FS_OK && job->ctl_populated) {
        st = hap_window_empty(job, hap_gfn(job, HAP_CTL_OFFSET).n, 1, freed, err);
    }
    return st;
}

static fs_status_t recover_window(struct hap_job *job, const struct found *f, size_t first, size_t last, uint64_t *freed,
                                  struct fs_error *err)
{
    fs_status_t st = ctl_find(job, err);

    if (st == FS_OK && job->ctl) {
        st = settle_guest(job, f, first, last, err);
    }
    if (st == FS_OK) {
        st = empty_window(job, freed, err);                 /* I3 */
    }
    if (job->ctl) {
        job->ops->unmap(job->be, job->ctl, 1);
        job->ctl = NULL;
    }
    return st;
}

fs_status_t hap_recover(const struct mover_ctx *ctx, uint16_t domid, size_t first, size_t last,
                        struct hv_recover_report *out, struct fs_error *err)
{
    struct hap_job job = { .ctx = ctx, .be = ctx->be, .ops = ctx->be->ops, .domid = domid };
    struct found f;
    uint64_t freed = 0;
    fs_status_t st = read_journal(ctx, first, last, &f, err);

    if (st != FS_OK || !f.window || f.cleaned) {
        return st;                                          /* I1 */
    }
    st = job.ops->domain(job.be, domid, &job.dom, err);
    if (st == FS_NOT_FOUND) {
        out->domains_gone++;
        return FS_OK;
    }
    job.window_gfn = f.reserve.window_gfn;
    job.max_pages_before = f.reserve.max_pages;
    if (st == FS_OK) {
        st = recover_window(&job, &f, first, last, &freed, err);
        st = hap_why(&job, st, err);
    }
    if (st == FS_GUEST_GONE) {
        out->domains_gone++;
        return FS_OK;
    }
    if (st != FS_OK) {
        return st;
    }
    out->frames_released += freed;
    out->domains_finished += f.moved;
    out->domains_rolled_back += !f.moved;
    mover_event(ctx, EV_RECOVER, domid, domid, freed, NULL);
    return journal_append(ctx->journal, JR_HAP_CLEANED, NULL, 0, err);
}

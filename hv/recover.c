/*
 * recover.c - after a tool that was killed: finish or roll back, from the journal.
 *
 * Owns: hv_recover().
 * Invariants:
 *   I1  the journal is the only source; what it does not name was not done.
 *   I2  a domain is touched only if its uuid is the journaled one: domids are reused.
 *   I3  recovery may be killed as well: every step is idempotent, and the journal is
 *       removed only after the last.
 *   I4  afterwards every guest runs, and the range is online again: frames that moved
 *       stay moved, and a new evacuation begins from a clean state.
 * Lock order: the journal's lock is held throughout.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hv_priv.h"
#include "journal.h"
#include "range.h"
#include "shrink.h"

static fs_status_t read_ranges(const struct journal *j, struct mfn_range_set *out, struct fs_error *err)
{
    for (size_t i = 0; i < journal_count(j); i++) {
        const void *data;
        size_t bytes;
        if (journal_record(j, i, &data, &bytes) != JR_RANGES) {
            continue;
        }
        if (bytes % sizeof(struct mfn_range) != 0) {
            return fs_fail(err, FS_BAD_INPUT, "the journal's ranges are damaged");
        }
        for (size_t k = 0; k < bytes / sizeof(struct mfn_range); k++) {
            struct mfn_range r;
            memcpy(&r, (const char *)data + k * sizeof(r), sizeof(r));
            fs_status_t s = mfn_set_add(out, r);
            if (s != FS_OK) {
                return fs_fail(err, s, "the journal's ranges are damaged");
            }
        }
    }
    return FS_OK;
}

/* The domain whose DOMAIN_BEGIN has no DOMAIN_END: at most one, the last. */
struct open_domain { bool any; struct journal_domain record; size_t first; };

static fs_status_t find_open(const struct journal *j, struct open_domain *out, bool *version_ok, struct fs_error *err)
{
    memset(out, 0, sizeof(*out));
    *version_ok = false;
    for (size_t i = 0; i < journal_count(j); i++) {
        const void *data;
        size_t bytes;
        enum journal_type type = journal_record(j, i, &data, &bytes);
        if (type == JR_BEGIN && bytes == sizeof(struct journal_begin)) {
            struct journal_begin begin;
            memcpy(&begin, data, sizeof(begin));
            *version_ok = begin.version == JOURNAL_VERSION;
        } else if (type == JR_DOMAIN_BEGIN) {
            if (bytes != sizeof(out->record)) {
                return fs_fail(err, FS_BAD_INPUT, "the journal's domain record %zu is damaged", i);
            }
            memcpy(&out->record, data, sizeof(out->record));
            out->any = true;
            out->first = i + 1;
        } else if (type == JR_DOMAIN_END) {
            out->any = false;
        }
    }
    return FS_OK;
}

static fs_status_t recover_domain(const struct mover_ctx *ctx, const char *state_dir, const struct open_domain *open, struct hv_recover_report *out,
                                  struct fs_error *err)
{
    struct hv_domain dom;
    struct fs_error words;
    fs_status_t s = ctx->be->ops->domain(ctx->be, open->record.domid, &dom, &words);
    if (s == FS_NOT_FOUND || s == FS_GUEST_GONE || (s == FS_OK && (dom.dying || memcmp(dom.uuid, open->record.uuid, sizeof(dom.uuid)) != 0))) {
        out->domains_gone++;                                                    /* I2 */
        return FS_OK;
    }
    if (s != FS_OK) {
        return fs_fail(err, s, "%s", words.text);
    }
    if (shrink_recorded(ctx->journal, open->first, journal_count(ctx->journal))) {
        return shrink_recover(ctx, state_dir, dom.domid, open->first, journal_count(ctx->journal), out, err);
    }
    const struct mover_ops *ops = hv_mover_ops((enum hv_mover)open->record.mover);
    if (ops == NULL) {
        return fs_fail(err, FS_BAD_INPUT, "the journal names mover %u, which this build does not have", open->record.mover);
    }
    return ops->recover(ctx, dom.domid, open->first, journal_count(ctx->journal), out, err);
}

static fs_status_t recover_all(struct hv *hv, struct mover_ctx *ctx, struct mfn_range_set *ranges, struct hv_recover_report *out,
                               struct fs_error *err)
{
    struct open_domain open;
    bool version_ok;
    fs_status_t s = read_ranges(ctx->journal, ranges, err);
    if (s == FS_OK) {
        s = find_open(ctx->journal, &open, &version_ok, err);
    }
    if (s == FS_OK && !version_ok) {
        s = fs_fail(err, FS_BAD_INPUT, "the journal was written by another version of frameshift: use that one to recover");
    }
    if (s == FS_OK && open.any) {
        s = recover_domain(ctx, hv_state_dir(hv), &open, out, err);
    }
    if (s == FS_OK) {
        s = evict_recover(ctx, 0, journal_count(ctx->journal), out, err);
    }
    for (size_t i = 0; i < ranges->count && s == FS_OK; i++) {                  /* I4 */
        uint64_t pages = 0;
        s = hv->be->ops->mark_online(hv->be, ranges->ranges[i], &pages, err);
        out->frames_onlined += pages;
    }
    return s;
}

fs_status_t hv_recover(struct hv *hv, struct hv_recover_report *out, struct fs_error *err)
{
    struct hv_evacuate_options options = { 0 };
    struct mfn_range_set ranges = { 0 };
    struct room room = { 0 };
    struct mover_ctx ctx = { .be = hv->be, .options = &options, .ranges = &ranges, .room = &room,
                             .on_event = hv->config.on_event, .event_arg = hv->config.event_arg, .one_thread = hv->config.one_thread };
    memset(out, 0, sizeof(*out));
    fs_status_t s = journal_open(hv_state_dir(hv), true, &ctx.journal, err);
    if (s != FS_OK) {
        return s;
    }
    if (journal_count(ctx.journal) == 0) {
        snprintf(out->text, sizeof(out->text), "nothing to recover");
        s = journal_finish(ctx.journal, err);
        goto out;
    }
    out->needed = true;
    s = hv->be->ops->host(hv->be, &ctx.host, err);
    if (s == FS_OK) {
        s = recover_all(hv, &ctx, &ranges, out, err);
    }
    if (s == FS_OK) {
        s = journal_finish(ctx.journal, err);
        snprintf(out->text, sizeof(out->text), "%u domain(s) finished, %u rolled back, %u gone; %llu frames given back, %llu online again",
                 out->domains_finished, out->domains_rolled_back, out->domains_gone,
                 (unsigned long long)out->frames_released, (unsigned long long)out->frames_onlined);
    }
out:
    journal_close(ctx.journal);
    mfn_set_free(&ranges);
    return s;
}

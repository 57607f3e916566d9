/*
 * evict.c - local save and restore of one guest, so that none of its frames stays.
 *
 * Owns: the last resort that the user allowed with --evict.
 * Invariants:
 *   I1  the caller marked every frame of the range before the first save, so that they
 *       leave the heap when their owner is destroyed or lets go, and no restore can get
 *       them.
 *   I2  the saved image is deleted only after the restored guest exists.
 *   I3  EVICT_SAVED on disk and no domain with the guest's uuid alive: the image is
 *       the guest; recovery restores it.
 * Why: the frames that Xen or a backend holds (rings, vcpu_info, event pages) are given
 * anew to the new domain; nothing else on this Xen moves them.
 * Cost: the guest is stopped for a whole save and restore.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv_priv.h"
#include "journal.h"

struct evict_record {
    uint16_t domid;
    uint8_t uuid[16];
    char name[HV_NAME_BYTES];
    char path[256];
};

fs_status_t evict_domain(const struct mover_ctx *ctx, const char *dir, struct hv_domain_report *r, struct fs_error *err)
{
    struct evict_record record = { .domid = r->plan.domid };
    uint64_t since = ctx->be->ops->clock_ns(ctx->be);
    memcpy(record.uuid, r->plan.uuid, sizeof(record.uuid));
    snprintf(record.name, sizeof(record.name), "%s", r->plan.name);
    int n = snprintf(record.path, sizeof(record.path), "%s/evict-%u.save", dir, r->plan.domid);
    if (n < 0 || (size_t)n >= sizeof(record.path)) {
        return fs_fail(err, FS_USAGE, "--evict-dir %s is too long a path", dir);
    }
    fs_status_t s = journal_append(ctx->journal, JR_EVICT_INTENT, &record, sizeof(record), err);
    if (s == FS_OK) {
        s = ctx->be->ops->save(ctx->be, r->plan.domid, record.path, err);
    }
    if (s != FS_OK) {
        unlink(record.path);
        return s;
    }
    uint64_t saved = ctx->be->ops->clock_ns(ctx->be);
    mover_phase(r, "evict-save", saved - since, r->plan.pages_total);
    s = journal_append(ctx->journal, JR_EVICT_SAVED, &record, sizeof(record), err);
    uint16_t new_domid = FS_DOMID_NONE;
    if (s == FS_OK) {
        s = ctx->be->ops->restore(ctx->be, record.path, &new_domid, err);
    }
    if (s != FS_OK) {
        char words[sizeof(err->text)];
        snprintf(words, sizeof(words), "%s", err != NULL ? err->text : "");
        return fs_fail(err, FS_NEEDS_RECOVER, "domain %u (%s) is saved in %s but was not restored: %.200s; run `frameshift recover`",
                       r->plan.domid, r->plan.name, record.path, words);
    }
    r->evicted_to = new_domid;
    uint64_t now = ctx->be->ops->clock_ns(ctx->be);
    mover_phase(r, "evict-restore", now - saved, r->plan.pages_total);
    r->blackout_ns += now - since;
    mover_event(ctx, EV_EVICT, r->plan.domid, r->plan.domid, new_domid, NULL);
    s = journal_append(ctx->journal, JR_EVICT_RESTORED, &record, sizeof(record), err);
    unlink(record.path);                                                             /* I2 */
    return s;
}

static fs_status_t uuid_alive(const struct mover_ctx *ctx, const uint8_t uuid[16], bool *alive, struct fs_error *err)
{
    struct hv_domain *list = NULL;
    size_t count = 0;
    *alive = false;
    fs_status_t s = ctx->be->ops->domains(ctx->be, &list, &count, err);
    for (size_t i = 0; s == FS_OK && i < count; i++) {
        *alive |= !list[i].dying && memcmp(list[i].uuid, uuid, sizeof(list[i].uuid)) == 0;
    }
    free(list);
    return s;
}

fs_status_t evict_recover(const struct mover_ctx *ctx, size_t first, size_t last, struct hv_recover_report *out, struct fs_error *err)
{
    struct evict_record record = { .domid = FS_DOMID_NONE };
    bool intent = false, saved = false;
    for (size_t i = first; i < last; i++) {
        const void *data;
        size_t bytes;
        enum journal_type type = journal_record(ctx->journal, i, &data, &bytes);
        if (type != JR_EVICT_INTENT && type != JR_EVICT_SAVED && type != JR_EVICT_RESTORED) {
            continue;
        }
        if (bytes != sizeof(record)) {
            return fs_fail(err, FS_BAD_INPUT, "the journal's evict record is damaged");
        }
        memcpy(&record, data, sizeof(record));
        record.path[sizeof(record.path) - 1] = '\0';
        intent = type != JR_EVICT_RESTORED;
        saved = type == JR_EVICT_SAVED;
    }
    if (!intent) {
        return FS_OK;
    }
    bool alive;
    fs_status_t s = uuid_alive(ctx, record.uuid, &alive, err);
    if (s != FS_OK) {
        return s;
    }
    if (alive) {                    /* the save never finished, or the restore did */
        unlink(record.path);
        out->domains_rolled_back += !saved;
        out->domains_finished += saved;
        return FS_OK;
    }
    uint16_t new_domid = FS_DOMID_NONE;
    s = ctx->be->ops->restore(ctx->be, record.path, &new_domid, err);                /* I3 */
    if (s == FS_OK) {
        out->domains_finished++;
        mover_event(ctx, EV_EVICT, record.domid, record.domid, new_domid, "recovered");
        unlink(record.path);
    }
    return s;
}

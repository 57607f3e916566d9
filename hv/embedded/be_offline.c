/*
 * be_offline.c - marking frames offline and online.
 *
 * Owns: nothing; changes frames' states through heap.c.
 * Rules (public/sysctl.h XEN_SYSCTL_page_offline_op; common/page_alloc.c offline_page):
 * free goes at once; owned becomes pending and names its owner; the Xen heap's becomes
 * pending; a frame in use by Xen without owner is marked but never goes by itself;
 * Xen's image is EPERM, a hole EINVAL.  Marking twice changes nothing.  The backend
 * goes round what aborts the rest of a real call, as the real backend does.
 * With one pCPU: FS_UNSUPPORTED before anything is marked, because real Xen 4.17 would hang.
 * Lock order: the machine's lock during each call.
 * Cost: O(EMB_MAX_ORDER) a free frame, O(1) an owned one.
 */
#include "emb_backend.h"

static struct hv_mark_result mark_one(struct emb_machine *m, uint64_t mfn)
{
    struct hv_mark_result r = { .mark = HV_MARK_NOT_RAM, .domid = FS_DOMID_NONE };
    if (!emb_is_ram(m, mfn)) {
        return r;
    }
    struct emb_frame *f = emb_frame_at(m, mfn);
    if (f->flags & EMB_F_IMAGE) {
        r.mark = HV_MARK_XEN_IMAGE;
        return r;
    }
    if (f->flags & EMB_F_BROKEN) {
        r.mark = HV_MARK_BROKEN;
        return r;
    }
    if (f->state == EMB_S_FREE) {
        emb_heap_take(m, mfn);
    } else if (f->state == EMB_S_INUSE) {
        f->state = EMB_S_OFFLINING;
    }
    if (f->state == EMB_S_OFFLINED) {
        r.mark = HV_MARK_OFFLINED;
    } else if (f->flags & EMB_F_XEN_HEAP) {
        r.mark = HV_MARK_PENDING_XEN;
    } else if (f->owner && f->count > 0) {
        r.mark = HV_MARK_PENDING_OWNED;
        r.domid = emb_owner(m, f)->domid;
    } else {
        r.mark = HV_MARK_ANON;
    }
    return r;
}

static fs_status_t enter_mark(struct hv_backend *be, enum emb_op op, struct emb_call *c, struct fs_error *err)
{
    if (emb_be(be)->m->config.pcpus < 2) {
        return fs_fail(err, FS_UNSUPPORTED, "this host has one physical CPU: Xen 4.17 would hang when a PV guest's frame is marked; "
                                            "give it a second one");
    }
    return emb_enter(be, op, c, err);
}

fs_status_t emb_op_mark_offline(struct hv_backend *be, struct mfn_range range, struct hv_mark_result *out, struct fs_error *err)
{
    struct emb_call c;
    fs_status_t s = enter_mark(be, EMB_OP_mark_offline, &c, err);
    if (s != FS_OK) {
        return s;
    }
    for (uint64_t mfn = range.end.n; mfn-- > range.start.n;) {
        out[mfn - range.start.n] = mark_one(c.m, mfn);
    }
    emb_charge(c.m, 1000 * mfn_range_pages(range));
    emb_leave(&c);
    return FS_OK;
}

fs_status_t emb_op_mark_owned(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_mark_result *out, struct fs_error *err)
{
    struct emb_call c;
    fs_status_t s = enter_mark(be, EMB_OP_mark_owned, &c, err);
    if (s != FS_OK) {
        return s;
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = mark_one(c.m, mfns[i].n);
    }
    emb_charge(c.m, 1000 * count);
    emb_leave(&c);
    return FS_OK;
}

fs_status_t emb_op_mark_online(struct hv_backend *be, struct mfn_range range, uint64_t *onlined_pages, struct fs_error *err)
{
    struct emb_call c;
    *onlined_pages = 0;
    fs_status_t s = emb_enter(be, EMB_OP_mark_online, &c, err);
    if (s != FS_OK) {
        return s;
    }
    for (uint64_t mfn = range.start.n; mfn < range.end.n; mfn++) {
        if (emb_is_ram(c.m, mfn)) {
            *onlined_pages += emb_heap_online(c.m, mfn);
        }
    }
    emb_leave(&c);
    return FS_OK;
}

fs_status_t emb_op_query_offline(struct hv_backend *be, struct mfn_range range, uint8_t *flags, struct fs_error *err)
{
    struct emb_call c;
    fs_status_t s = emb_enter(be, EMB_OP_query_offline, &c, err);
    if (s != FS_OK) {
        return s;
    }
    for (uint64_t mfn = range.start.n; mfn < range.end.n; mfn++) {
        uint8_t bits = 0;
        if (emb_is_ram(c.m, mfn)) {
            const struct emb_frame *f = emb_frame_at(c.m, mfn);
            bits = (uint8_t)((f->state == EMB_S_OFFLINED) | (f->state == EMB_S_OFFLINING) << 1 | !!(f->flags & EMB_F_BROKEN) << 2);
        }
        flags[mfn - range.start.n] = bits;
    }
    emb_leave(&c);
    return FS_OK;
}

/*
 * emb_backend.h - what the files of the embedded backend share.
 *
 * Owns: struct emb_be, one tool's handle, and the entry and error helpers.
 * Rule: every operation is emb_enter() ... emb_leave(), so that the fault plan sees
 * each call once and the lock is held in between.
 */
#ifndef FRAMESHIFT_EMB_BACKEND_H
#define FRAMESHIFT_EMB_BACKEND_H

#include "emb_guest.h"

struct emb_be {
    struct hv_backend be;
    struct emb_machine *m;
    struct emb_client *client;
    bool owns_machine;                  /* made by hv_embedded_open() */
    const struct emb_kernel_ops *kernel;    /* of its guests that run one, which end with it */
    void *kernels[EMB_DOMAINS_MAX];
    uint32_t kernel_count;
};

static inline struct emb_be *emb_be(struct hv_backend *be)
{
    return FS_CONTAINER_OF(be, struct emb_be, be);
}

struct emb_call {
    struct emb_machine *m;
    fs_status_t planned;                /* not FS_OK: do half of the list, then return this */
};
/* Locked when FS_OK comes back. */
fs_status_t emb_enter(struct hv_backend *be, enum emb_op op, struct emb_call *call, struct fs_error *err);
void emb_leave(struct emb_call *call);
/* As emb_enter(), and finds the domain: FS_GUEST_GONE where it does not exist. */
fs_status_t emb_enter_domain(struct hv_backend *be, enum emb_op op, uint16_t domid, struct emb_call *call, struct emb_domain **d,
                             struct fs_error *err);
/* How much of a list to do. */
static inline size_t emb_share(const struct emb_call *call, size_t count)
{
    return call->planned == FS_OK ? count : count / 2;
}
/* The status that a planned failure ends with; FS_OK if none is planned. */
fs_status_t emb_planned(const struct emb_call *call, struct fs_error *err);
/* A hypercall said rc: status and words. */
FS_PRINTF(4, 5) fs_status_t emb_refused(const struct emb_domain *d, int rc, struct fs_error *err, const char *fmt, ...);
void emb_charge(struct emb_machine *m, uint64_t ns);        /* virtual clock */

/* be_host.c */
fs_status_t emb_op_host(struct hv_backend *be, struct hv_host *out, struct fs_error *err);
fs_status_t emb_op_ram(struct hv_backend *be, struct mfn_range_set *out, struct fs_error *err);
fs_status_t emb_op_table(struct hv_backend *be, enum hv_table table, uint8_t **out, size_t *bytes, struct fs_error *err);
fs_status_t emb_op_domains(struct hv_backend *be, struct hv_domain **out, size_t *count, struct fs_error *err);
fs_status_t emb_op_domain(struct hv_backend *be, uint16_t domid, struct hv_domain *out, struct fs_error *err);
fs_status_t emb_op_frames(struct hv_backend *be, struct mfn_range range, struct hv_frame *out, struct fs_error *err);
fs_status_t emb_op_m2p(struct hv_backend *be, const mfn_t *mfns, size_t count, uint64_t *gfns, struct fs_error *err);
fs_status_t emb_op_types(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, uint8_t *types, uint8_t *flags,
                         bool *owned, struct fs_error *err);
fs_status_t emb_op_frame_refs(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_frame_refs *out, struct fs_error *err);
uint64_t emb_op_clock_ns(struct hv_backend *be);
/* be_offline.c */
fs_status_t emb_op_mark_offline(struct hv_backend *be, struct mfn_range range, struct hv_mark_result *out, struct fs_error *err);
fs_status_t emb_op_mark_owned(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_mark_result *out, struct fs_error *err);
fs_status_t emb_op_mark_online(struct hv_backend *be, struct mfn_range range, uint64_t *onlined_pages, struct fs_error *err);
fs_status_t emb_op_query_offline(struct hv_backend *be, struct mfn_range range, uint8_t *flags, struct fs_error *err);
/* be_control.c */
fs_status_t emb_op_pause(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t emb_op_unpause(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t emb_op_suspend(struct hv_backend *be, uint16_t domid, uint64_t timeout_ns, uint64_t *stopped_ns, struct fs_error *err);
fs_status_t emb_op_resume(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t emb_op_monitor_hold(struct hv_backend *be, uint16_t domid, uint32_t *held, struct fs_error *err);
fs_status_t emb_op_monitor_release(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t emb_op_set_max_pages(struct hv_backend *be, uint16_t domid, uint64_t pages, struct fs_error *err);
fs_status_t emb_op_specials(struct hv_backend *be, uint16_t domid, struct hv_special **out, size_t *count, struct fs_error *err);
fs_status_t emb_op_vcpu_upcall_state(struct hv_backend *be, uint16_t domid, uint8_t *out, size_t count, struct fs_error *err);
fs_status_t emb_op_evtchn_state(struct hv_backend *be, uint16_t domid, uint8_t *state, size_t count, size_t *ports, struct fs_error *err);
/* be_memory.c */
fs_status_t emb_op_increase_extents(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err);
fs_status_t emb_op_increase(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err);
fs_status_t emb_op_decrease(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, size_t *done, struct fs_error *err);
fs_status_t emb_op_populate(struct hv_backend *be, uint16_t domid, uint32_t node, unsigned order, const gfn_t *gfns, size_t count,
                            size_t *done, struct fs_error *err);
fs_status_t emb_op_depopulate(struct hv_backend *be, uint16_t domid, unsigned order, const gfn_t *gfns, size_t count, size_t *done, struct fs_error *err);
fs_status_t emb_op_remap(struct hv_backend *be, uint16_t domid, const gfn_t *from, const gfn_t *to, size_t count, size_t *done, struct fs_error *err);
fs_status_t emb_op_gfn_limit(struct hv_backend *be, uint16_t domid, uint64_t *limit, struct fs_error *err);
fs_status_t emb_op_probe_held(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, const mfn_t spare[2],
                              bool *held, uint64_t *calls, struct fs_error *err);
/* be_map.c */
fs_status_t emb_op_map(struct hv_backend *be, uint16_t domid, const uint64_t *frames, size_t count, enum hv_map_prot prot,
                       int *page_err, void **out, struct fs_error *err);
void emb_op_unmap(struct hv_backend *be, void *addr, size_t count);
/* References on frames of d, recorded as a mapping of that tool without an address; NULL: no room, or one of them is none of d's.
 * The lock is held. */
struct emb_mapping *emb_client_hold(struct emb_machine *m, struct emb_client *c, const struct emb_domain *d, const uint64_t *mfns, size_t count);
void emb_client_let_go(struct emb_machine *m, struct emb_client *c, struct emb_mapping *r);        /* r may be NULL */
fs_status_t emb_op_copy(struct hv_backend *be, uint16_t domid, const struct hv_copy *list, size_t count, struct fs_error *err);
/* be_pv.c */
fs_status_t emb_op_unpin(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, struct fs_error *err);
fs_status_t emb_op_pin(struct hv_backend *be, uint16_t domid, const struct hv_pin *pins, size_t count, struct fs_error *err);
fs_status_t emb_op_m2p_set(struct hv_backend *be, uint16_t domid, const struct hv_m2p_set *list, size_t count, struct fs_error *err);
fs_status_t emb_op_vcpu_save(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct hv_pv_vcpu *out, struct fs_error *err);
fs_status_t emb_op_vcpu_reset(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct fs_error *err);
fs_status_t emb_op_vcpu_load(struct hv_backend *be, uint16_t domid, const struct hv_pv_vcpu *v, struct fs_error *err);
/* be_grants.c */
fs_status_t emb_op_grants_begin(struct hv_backend *be, uint16_t domid, struct hv_grants **out, struct fs_error *err);
fs_status_t emb_op_grants_read(struct hv_backend *be, struct hv_grants *g, const uint64_t **gfns, size_t *count, struct fs_error *err);
void emb_op_grants_end(struct hv_backend *be, struct hv_grants *g);
/* be_dirty.c */
fs_status_t emb_op_dirty_enable(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t emb_op_dirty_read(struct hv_backend *be, uint16_t domid, uint64_t *bitmap, uint64_t limit, bool clean, uint64_t *dirty_pages, struct fs_error *err);
fs_status_t emb_op_dirty_disable(struct hv_backend *be, uint16_t domid, struct fs_error *err);
/* be_save.c */
fs_status_t emb_op_save(struct hv_backend *be, uint16_t domid, const char *path, struct fs_error *err);
fs_status_t emb_op_restore(struct hv_backend *be, const char *path, uint16_t *new_domid, struct fs_error *err);
/* be_coop.c */
fs_status_t emb_op_coop_find(struct hv_backend *be, uint16_t domid, struct hv_coop *out, struct fs_error *err);
fs_status_t emb_op_coop_wait(struct hv_backend *be, uint16_t domid, uint64_t ns, struct fs_error *err);

/* be_open.c */
extern const struct hv_backend_ops emb_backend_ops;
struct hv_backend *emb_backend_owning(struct emb_machine *m);

#endif

/*
 * backend.c - what every backend shares: the completeness check, vCPU state.
 *
 * Owns: hv_backend_check() and hv_vcpu_free().
 * Invariants: I1 the list below names every member of struct hv_backend_ops; its
 * length is checked against the struct's size at compile time, so that a member
 * added to the header and forgotten here does not build.
 */
#include "backend.h"

#include <stdlib.h>

#include "frameshift/assert.h"

#define BACKEND_MEMBERS(X)                                                                             \
    X(name) X(close) X(host) X(ram) X(table) X(domains) X(domain) X(frames) X(m2p) X(types)            \
    X(mark_offline) X(mark_owned) X(mark_online) X(query_offline)                                      \
    X(pause) X(unpause) X(suspend) X(resume) X(monitor_hold) X(monitor_release) X(set_max_pages)       \
    X(increase) X(increase_extents) X(decrease) X(populate) X(depopulate) X(remap) X(gfn_limit) X(probe_held)              \
    X(map) X(unmap) X(copy) X(unpin) X(pin) X(m2p_set) X(vcpu_save) X(vcpu_reset) X(vcpu_load)         \
    X(specials) X(vcpu_upcall_state) X(evtchn_state) X(dirty_enable) X(dirty_read) X(dirty_disable)    \
    X(save) X(restore) X(clock_ns)
#define BACKEND_OPTIONAL(X) X(frame_refs) X(grants_begin) X(grants_read) X(grants_end) X(coop_find) X(coop_wait)

enum {
#define X(member) MEMBER_##member,
    BACKEND_MEMBERS(X) BACKEND_OPTIONAL(X)
#undef X
    MEMBER_COUNT
};
_Static_assert(sizeof(struct hv_backend_ops) == MEMBER_COUNT * sizeof(void (*)(void)), "I1: a member is missing above");

void hv_backend_check(const struct hv_backend_ops *ops)
{
    ASSERT(ops);
#define X(member) ASSERT(ops->member);
    BACKEND_MEMBERS(X)
#undef X
}

void hv_vcpu_free(struct hv_pv_vcpu *v)
{
    free(v->opaque);
    *v = (struct hv_pv_vcpu){ 0 };
}

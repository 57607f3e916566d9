/*
 * be_open.c - the embedded machine as a backend: handles, entry of every call, errors.
 *
 * Owns: struct emb_be, m->clients[] (who has what mapped).
 * Invariants:
 *  I1 a client slot with mappings belongs to a live process, or is reaped before the
 *     slot is used again: a dead tool holds no reference, as a kernel would see to;
 *  I2 pause counts, marks, frames and limits set by a dead tool stay: they are Xen's.
 * Lock order: emb_enter() takes the machine's lock, emb_leave() gives it back.
 * Errors: numbers of hypercalls become statuses the way the real backend does it; a
 * domain that is gone or dying is FS_GUEST_GONE whatever number came.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "emb_backend.h"
#include "emb_core.h"

void emb_charge(struct emb_machine *m, uint64_t ns)
{
    m->clock_ns += ns;
}

fs_status_t emb_enter(struct hv_backend *be, enum emb_op op, struct emb_call *call, struct fs_error *err)
{
    struct emb_machine *m = emb_be(be)->m;
    fs_status_t status;
    bool partial;
    *call = (struct emb_call){ .m = m, .planned = FS_OK };
    if (emb_fault_enter(m, op, &status, &partial)) {
        if (!partial) {
            return fs_fail(err, status, "%s: failure injected", emb_op_name(op));
        }
        call->planned = status;
    }
    emb_lock(m);
    emb_charge(m, 1000);
    return FS_OK;
}

void emb_leave(struct emb_call *call)
{
    emb_unlock(call->m);
}

fs_status_t emb_enter_domain(struct hv_backend *be, enum emb_op op, uint16_t domid, struct emb_call *call, struct emb_domain **d,
                             struct fs_error *err)
{
    fs_status_t s = emb_enter(be, op, call, err);
    if (s != FS_OK) {
        return s;
    }
    *d = emb_domain_find(call->m, domid);
    if (!*d) {
        emb_leave(call);
        return fs_fail(err, FS_GUEST_GONE, "%s: domain %u does not exist", emb_op_name(op), domid);
    }
    return FS_OK;
}

fs_status_t emb_planned(const struct emb_call *call, struct fs_error *err)
{
    return call->planned == FS_OK ? FS_OK : fs_fail(err, call->planned, "failure injected half way");
}

fs_status_t emb_refused(const struct emb_domain *d, int rc, struct fs_error *err, const char *fmt, ...)
{
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    fs_status_t s = FS_REFUSED;
    if (d->dying || !d->used) {
        s = FS_GUEST_GONE;
    } else if (rc == -EOPNOTSUPP) {
        s = FS_UNSUPPORTED;
    }
    return fs_fail(err, s, "domain %u: %s: %s", d->domid, what, strerror(-rc));
}

/* ---- handles ------------------------------------------------------------- */

static void reap_locked(struct emb_machine *m)
{
    for (uint32_t i = 0; i < EMB_CLIENTS_MAX; i++) {
        struct emb_client *c = &m->clients[i];
        if (c->pid != 0 && c->pid != getpid() && kill(c->pid, 0) != 0 && errno == ESRCH) {
            emb_client_drop(m, c);
            c->pid = 0;
        }
    }
}

void emb_machine_reap(struct emb_machine *m)
{
    emb_lock(m);
    reap_locked(m);
    for (uint32_t i = 0; i < EMB_DOMAINS_MAX; i++) {
        if (m->domains[i].used) {
            emb_core_refresh(m, &m->domains[i]);
        }
    }
    emb_unlock(m);
}

static void be_close(struct hv_backend *be)
{
    struct emb_be *e = emb_be(be);
    emb_lock(e->m);
    emb_client_drop(e->m, e->client);
    e->client->pid = 0;
    emb_unlock(e->m);
    for (uint32_t i = 0; i < e->kernel_count; i++) {
        e->kernel->destroy(e->kernels[i]);
    }
    if (e->owns_machine) {
        emb_machine_destroy(e->m);
    }
    free(e);
}

uint64_t emb_op_clock_ns(struct hv_backend *be)
{
    return emb_core_time_ns(emb_be(be)->m);
}

const struct hv_backend_ops emb_backend_ops = {
    .name = "embedded",
    .close = be_close,
    .clock_ns = emb_op_clock_ns,
    .unmap = emb_op_unmap,
    .grants_end = emb_op_grants_end,
#define X(member, status, partial) .member = emb_op_##member,
    EMB_OP_LIST(X)
#undef X
};

struct hv_backend *emb_backend(struct emb_machine *m)
{
    struct emb_be *e = calloc(1, sizeof(*e));
    if (!e) {
        return NULL;
    }
    hv_backend_check(&emb_backend_ops);
    e->be.ops = &emb_backend_ops;
    e->m = m;
    emb_lock(m);
    reap_locked(m);
    for (uint32_t i = 0; i < EMB_CLIENTS_MAX && !e->client; i++) {
        if (m->clients[i].pid == 0) {
            e->client = &m->clients[i];
            e->client->pid = getpid();
        }
    }
    emb_unlock(m);
    if (!e->client) {
        free(e);
        return NULL;
    }
    return &e->be;
}

struct hv_backend *emb_backend_owning(struct emb_machine *m)
{
    struct hv_backend *be = emb_backend(m);
    if (be) {
        emb_be(be)->owns_machine = true;
    }
    return be;
}

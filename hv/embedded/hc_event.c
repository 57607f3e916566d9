/*
 * hc_event.c - event channels of a core domain, in the two-level ABI (public/event_channel.h).
 *
 * Owns: core->ports[].
 * Invariants: I1 a port's peer is interdomain and names it back, or it is not interdomain;
 * I2 raising a port sets its pending bit; if that was clear and the port is unmasked, the vCPU's
 * selector bit and upcall flag; a blocked vCPU is woken.
 * Rules: port 0 is never given out; ENOSPC without a free one; EINVAL for a port that is not what the
 * call needs; send to an unbound port succeeds and goes nowhere; only the own domain may be named
 * in alloc_unbound's dom; bind_interdomain wants an unbound port that names the caller.
 * A virq is bound once for each vCPU (EEXIST).
 * Lock order: the machine's lock is held.
 * Cost: O(ports) to allocate, O(1) to send.
 */
#include "emb_core.h"

#include <xen/xen.h>
#include <xen/event_channel.h>

static shared_info_t *shared(struct emb_machine *m, const struct emb_domain *d)
{
    return (shared_info_t *)(void *)emb_bytes(m, d->shared_info);
}

void emb_port_raise(struct emb_machine *m, struct emb_domain *d, uint32_t port)
{
    shared_info_t *s = shared(m, d);
    struct emb_core_vcpu *v = &d->core->vcpus[d->core->ports[port].vcpu];
    uint64_t bit = 1ull << port % 64;
    if (__atomic_fetch_or(&s->evtchn_pending[port / 64], bit, __ATOMIC_SEQ_CST) & bit) {
        return;
    }
    if (__atomic_load_n(&s->evtchn_mask[port / 64], __ATOMIC_SEQ_CST) & bit) {
        return;
    }
    struct vcpu_info *info = emb_vcpu_info(m, d, d->core->ports[port].vcpu);
    __atomic_fetch_or(&info->evtchn_pending_sel, 1ull << port / 64, __ATOMIC_SEQ_CST);
    __atomic_store_n(&info->evtchn_upcall_pending, 1, __ATOMIC_SEQ_CST);
    v->blocked = false;
    emb_runstate_sync(m, d);
    emb_vcpus_wake(d);
}

/* Virqs that each vCPU has of its own; the others are one for the domain. */
static bool of_each_vcpu(uint32_t virq)
{
    return virq == VIRQ_TIMER || virq == VIRQ_DEBUG || virq == VIRQ_XENOPROF || virq == VIRQ_XENPMU;
}

void emb_virq_raise(struct emb_machine *m, struct emb_domain *d, uint32_t virq, uint32_t vcpu)
{
    for (uint32_t i = 1; i < EMB_PORTS; i++) {
        const struct emb_port *p = &d->core->ports[i];
        if (p->state == EVTCHNSTAT_virq && p->remote_port == virq && p->vcpu == vcpu) {
            emb_port_raise(m, d, i);
        }
    }
}

static int free_port(struct emb_core *core, uint32_t *port)
{
    for (*port = 1; *port < EMB_PORTS; (*port)++) {
        if (core->ports[*port].state == EVTCHNSTAT_closed) {
            return 0;
        }
    }
    return -ENOSPC;
}

static struct emb_port *port_at(struct emb_core *core, uint32_t port)
{
    return port > 0 && port < EMB_PORTS && core->ports[port].state != EVTCHNSTAT_closed ? &core->ports[port] : NULL;
}

static int alloc_unbound(struct emb_hcall *h, struct evtchn_alloc_unbound *e)
{
    int rc = emb_self_only(h, e->dom);
    rc = rc ? rc : free_port(h->d->core, &e->port);
    if (rc == 0) {
        uint16_t remote = e->remote_dom == DOMID_SELF ? h->d->domid : e->remote_dom;
        h->d->core->ports[e->port] = (struct emb_port){ .state = EVTCHNSTAT_unbound, .remote_domid = remote };
    }
    return rc;
}

static int bind_interdomain(struct emb_hcall *h, struct evtchn_bind_interdomain *e)
{
    uint16_t domid = e->remote_dom == DOMID_SELF ? h->d->domid : e->remote_dom;
    struct emb_domain *r = emb_domain_find(h->m, domid);
    if (!r || !r->core) {
        return -ESRCH;
    }
    struct emb_port *peer = port_at(r->core, e->remote_port);
    if (!peer || peer->state != EVTCHNSTAT_unbound || peer->remote_domid != h->d->domid) {
        return -EINVAL;
    }
    int rc = free_port(h->d->core, &e->local_port);
    if (rc == 0) {
        h->d->core->ports[e->local_port] = (struct emb_port){ .state = EVTCHNSTAT_interdomain, .remote_domid = domid, .remote_port = e->remote_port };
        peer->state = EVTCHNSTAT_interdomain;
        peer->remote_port = e->local_port;
        emb_port_raise(h->m, h->d, e->local_port);      /* it may have been signalled before it was bound */
    }
    return rc;
}

static int bind_local(struct emb_hcall *h, uint8_t state, uint32_t virq, uint32_t vcpu, uint32_t *port)
{
    if (vcpu >= h->d->vcpu_count) {
        return -ENOENT;
    }
    for (uint32_t i = 1; state == EVTCHNSTAT_virq && i < EMB_PORTS; i++) {
        const struct emb_port *p = &h->d->core->ports[i];
        if (p->state == EVTCHNSTAT_virq && p->remote_port == virq && p->vcpu == vcpu) {
            return -EEXIST;
        }
    }
    int rc = free_port(h->d->core, port);
    if (rc == 0) {
        h->d->core->ports[*port] = (struct emb_port){ .state = state, .vcpu = (uint8_t)vcpu, .remote_port = virq };
    }
    return rc;
}

static int close_port(struct emb_hcall *h, uint32_t port)
{
    struct emb_port *p = port_at(h->d->core, port);
    if (!p) {
        return -EINVAL;
    }
    if (p->state == EVTCHNSTAT_interdomain) {
        struct emb_domain *r = emb_domain_find(h->m, p->remote_domid);
        struct emb_port *peer = r && r->core ? port_at(r->core, p->remote_port) : NULL;
        if (peer) {
            peer->state = EVTCHNSTAT_unbound;
            peer->remote_domid = h->d->domid;
        }
    }
    *p = (struct emb_port){ 0 };
    __atomic_fetch_and(&shared(h->m, h->d)->evtchn_pending[port / 64], ~(1ull << port % 64), __ATOMIC_SEQ_CST);
    return 0;
}

static int send_port(struct emb_hcall *h, uint32_t port)
{
    const struct emb_port *p = port_at(h->d->core, port);
    if (!p || p->state == EVTCHNSTAT_virq) {
        return -EINVAL;
    }
    if (p->state == EVTCHNSTAT_ipi) {
        emb_port_raise(h->m, h->d, port);
    } else if (p->state == EVTCHNSTAT_interdomain) {
        struct emb_domain *r = emb_domain_find(h->m, p->remote_domid);
        if (r && r->core && port_at(r->core, p->remote_port)) {
            emb_port_raise(h->m, r, p->remote_port);
        }
    }
    return 0;
}

static int unmask(struct emb_hcall *h, uint32_t port)
{
    if (!port_at(h->d->core, port)) {
        return -EINVAL;
    }
    shared_info_t *s = shared(h->m, h->d);
    uint64_t bit = 1ull << port % 64;
    __atomic_fetch_and(&s->evtchn_mask[port / 64], ~bit, __ATOMIC_SEQ_CST);
    if (__atomic_fetch_and(&s->evtchn_pending[port / 64], ~bit, __ATOMIC_SEQ_CST) & bit) {
        emb_port_raise(h->m, h->d, port);
    }
    return 0;
}

static int status(struct emb_hcall *h, struct evtchn_status *e)
{
    int rc = emb_self_only(h, e->dom);
    if (rc || e->port >= EMB_PORTS) {
        return rc ? rc : -EINVAL;
    }
    const struct emb_port *p = &h->d->core->ports[e->port];
    e->status = p->state;
    e->vcpu = p->vcpu;
    if (p->state == EVTCHNSTAT_interdomain) {
        e->u.interdomain.dom = p->remote_domid;
        e->u.interdomain.port = p->remote_port;
    } else if (p->state == EVTCHNSTAT_unbound) {
        e->u.unbound.dom = p->remote_domid;
    } else if (p->state == EVTCHNSTAT_virq) {
        e->u.virq = p->remote_port;
    }
    return 0;
}

static int bind_vcpu(struct emb_hcall *h, const struct evtchn_bind_vcpu *e)
{
    struct emb_port *p = port_at(h->d->core, e->port);
    if (e->vcpu >= h->d->vcpu_count) {
        return -ENOENT;
    }
    if (!p || p->state == EVTCHNSTAT_ipi || (p->state == EVTCHNSTAT_virq && of_each_vcpu(p->remote_port))) {
        return -EINVAL;
    }
    p->vcpu = (uint8_t)e->vcpu;
    return 0;
}

long emb_hc_event(struct emb_hcall *h)
{
    union {
        struct evtchn_alloc_unbound alloc_unbound;
        struct evtchn_bind_interdomain bind_interdomain;
        struct evtchn_bind_virq bind_virq;
        struct evtchn_bind_ipi bind_ipi;
        struct evtchn_close close;
        struct evtchn_send send;
        struct evtchn_status status;
        struct evtchn_bind_vcpu bind_vcpu;
        struct evtchn_unmask unmask;
    } u;
    static const size_t bytes[] = {
        [EVTCHNOP_bind_interdomain] = sizeof(u.bind_interdomain), [EVTCHNOP_bind_virq] = sizeof(u.bind_virq),
        [EVTCHNOP_close] = sizeof(u.close), [EVTCHNOP_send] = sizeof(u.send), [EVTCHNOP_status] = sizeof(u.status),
        [EVTCHNOP_alloc_unbound] = sizeof(u.alloc_unbound), [EVTCHNOP_bind_ipi] = sizeof(u.bind_ipi),
        [EVTCHNOP_bind_vcpu] = sizeof(u.bind_vcpu), [EVTCHNOP_unmask] = sizeof(u.unmask),
    };
    uint64_t cmd = h->a[0];
    size_t size = cmd < FS_ARRAY_SIZE(bytes) ? bytes[cmd] : 0;
    if (size == 0) {
        return -ENOSYS;
    }
    memset(&u, 0, sizeof(u));
    int rc = emb_from_guest(&u, h->a[1], size);
    if (rc) {
        return rc;
    }
    switch (cmd) {
    case EVTCHNOP_alloc_unbound: rc = alloc_unbound(h, &u.alloc_unbound); break;
    case EVTCHNOP_bind_interdomain: rc = bind_interdomain(h, &u.bind_interdomain); break;
    case EVTCHNOP_bind_virq: rc = bind_local(h, EVTCHNSTAT_virq, u.bind_virq.virq, u.bind_virq.vcpu, &u.bind_virq.port); break;
    case EVTCHNOP_bind_ipi: rc = bind_local(h, EVTCHNSTAT_ipi, 0, u.bind_ipi.vcpu, &u.bind_ipi.port); break;
    case EVTCHNOP_close: rc = close_port(h, u.close.port); break;
    case EVTCHNOP_send: rc = send_port(h, u.send.port); break;
    case EVTCHNOP_status: rc = status(h, &u.status); break;
    case EVTCHNOP_bind_vcpu: rc = bind_vcpu(h, &u.bind_vcpu); break;
    default: rc = unmask(h, u.unmask.port); break;
    }
    return rc ? rc : emb_to_guest(h->a[1], &u, size);
}

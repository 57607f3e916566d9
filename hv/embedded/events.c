/*
 * events.c - event traffic between Xen and a guest, through pages that Xen holds.
 *
 * Owns: g->events_sent, g->events_seen, and the bytes of vcpu_info, event array
 * and control block pages.
 * Invariants: I1 Xen writes to the frames in d->held[], whatever gfn leads there; the guest reads
 * through its own tables: a frame moved under Xen's feet loses every later event;
 * I2 after a guest that runs took its events, sent == seen, or it is deaf.
 * Lock order: the machine's lock is held, but for emb_xen_tick().
 * Format: public/event_channel.h (FIFO): word bits 31 pending, 30 masked, 29 linked;
 * control block: ready bits, one head for each queue; public/xen.h struct vcpu_info.
 * Cost: O(holds) an event.
 */
#include "emb_guest.h"

#define PENDING (1u << 31)
#define QUEUE 7u

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static const struct emb_held *find_hold(const struct emb_domain *d, enum emb_held_kind kind, uint32_t vcpu)
{
    for (uint32_t i = 0; i < d->held_count; i++) {
        if (d->held[i].kind == kind && (kind == EMB_HELD_EVT_ARRAY || d->held[i].vcpu == vcpu)) {
            return &d->held[i];
        }
    }
    return NULL;
}

static void send_one(struct emb_machine *m, struct emb_domain *d, uint32_t vcpu)
{
    const struct emb_held *info = find_hold(d, EMB_HELD_VCPU_INFO, vcpu), *array = find_hold(d, EMB_HELD_EVT_ARRAY, 0),
                          *control = find_hold(d, EMB_HELD_EVT_CONTROL, vcpu);
    if (!info) {
        return;
    }
    uint32_t port = EMB_PORT_FIRST + vcpu * EMB_PORTS_PER_VCPU + (uint32_t)(emb_random(&m->rng) % EMB_PORTS_PER_VCPU);
    if (array && control) {
        uint8_t *word = emb_bytes(m, array->mfn) + port * 4;
        put32(word, get32(word) | PENDING);
        uint8_t *block = emb_bytes(m, control->mfn);
        put32(block, get32(block) | 1u << QUEUE);
        put32(block + 8 + QUEUE * 4, port);
    }
    emb_bytes(m, info->mfn)[info->offset] = 1;
    d->guest->events_sent |= 1ull << vcpu;
}

void emb_xen_events(struct emb_machine *m, struct emb_domain *d, uint32_t events)
{
    if (!m->contents || !d->guest || d->dying) {
        return;
    }
    for (uint32_t i = 0; i < events; i++) {
        uint32_t vcpu = (uint32_t)(emb_random(&m->rng) % d->vcpu_count);
        if (d->guest->vcpus[vcpu].runs) {
            send_one(m, d, vcpu);
        }
    }
}

/* Every vCPU that was sent something must find its pending flag set where it looks. */
void emb_guest_events(struct emb_machine *m, struct emb_domain *d)
{
    struct emb_guest *g = d->guest;
    for (uint32_t i = 0; i < g->hold_count; i++) {
        const struct emb_held *h = &g->holds[i];
        if (h->kind != EMB_HELD_VCPU_INFO || !(g->events_sent >> h->vcpu & 1)) {
            continue;
        }
        uint64_t mfn = emb_guest_reach(m, d, h->gfn, NULL);
        if (mfn == FS_FRAME_NONE || emb_bytes(m, mfn)[h->offset] != 1) {
            g->dead = true;
            continue;
        }
        emb_bytes(m, mfn)[h->offset] = 0;
        g->events_sent &= ~(1ull << h->vcpu);
        g->events_seen++;
    }
    for (uint32_t i = 0; i < g->hold_count; i++) {
        const struct emb_held *h = &g->holds[i];
        uint64_t mfn = h->kind == EMB_HELD_EVT_ARRAY || h->kind == EMB_HELD_EVT_CONTROL ? emb_guest_reach(m, d, h->gfn, NULL) : FS_FRAME_NONE;
        if (mfn == FS_FRAME_NONE) {
            continue;
        }
        uint8_t *p = emb_bytes(m, mfn);
        if (h->kind == EMB_HELD_EVT_CONTROL) {
            put32(p, 0);                /* ready bits taken; heads stay, as Linux leaves them */
            continue;
        }
        for (uint32_t port = EMB_PORT_FIRST; port < EMB_PORT_FIRST + d->vcpu_count * EMB_PORTS_PER_VCPU; port++) {
            put32(p + port * 4, get32(p + port * 4) & ~PENDING);
        }
    }
}

void emb_guest_wakes(struct emb_machine *m, struct emb_domain *d)
{
    struct emb_guest *g = d->guest;
    if (!g || d->pause_count > 0 || d->shutdown || d->dying) {
        return;
    }
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        if (g->vcpus[i].runs && (!d->vcpus[i].initialised || !d->vcpus[i].online)) {
            g->dead = true;             /* a CPU that should run has no state */
        }
    }
    if (!g->dead && d->kind == HV_DOMAIN_PV) {
        emb_pv_post_suspend(m, d);
    }
}

void emb_xen_tick(struct emb_machine *m, uint32_t events)
{
    emb_lock(m);
    for (uint32_t i = 0; i < EMB_DOMAINS_MAX; i++) {
        if (m->domains[i].used) {
            emb_xen_events(m, &m->domains[i], events);
        }
    }
    emb_unlock(m);
}

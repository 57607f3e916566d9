/*
 * create.c - emb_domain_create(): from a configuration to a running domain.
 *
 * Owns: nothing.  Invariants: I1 a domain that could not be built whole is killed
 * again and leaves no frame behind.
 * Lock order: takes the machine's lock.
 * The control domain and kinds without a mover get frames and an M2P, no image: nothing
 * looks inside them.
 * Cost: linear in the domain's frames.
 */
#include "emb_guest.h"

static int plain_build(struct emb_machine *m, struct emb_domain *d)
{
    for (uint64_t pfn = 0; pfn < d->config.pages; pfn++) {
        uint64_t mfn;
        int rc = emb_place(m, d, 0, &mfn);
        if (rc) {
            return rc;
        }
        emb_frame_at(m, mfn)->m2p1 = pfn + 1;
    }
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        d->vcpus[i].initialised = d->vcpus[i].online = true;
    }
    return 0;
}

int emb_domain_create(struct emb_machine *m, const struct emb_domain_config *config, uint16_t *domid)
{
    if (config->vcpus == 0 || config->vcpus > EMB_VCPUS_MAX || config->node >= m->config.node_count ||
        config->pages >= m->max_mfn) {
        return -EINVAL;
    }
    emb_lock(m);
    int rc;
    struct emb_domain *d = NULL;
    if (config->kind == HV_DOMAIN_CONTROL && emb_domain_find(m, 0)) {
        rc = -EEXIST;
        goto out;
    }
    d = emb_domain_new(m, config, &rc);
    if (!d) {
        goto out;
    }
    if (config->kind == HV_DOMAIN_PV) {
        rc = emb_pv_plan(m, d);
        rc = rc ? rc : emb_pv_build(m, d);
    } else if (config->kind == HV_DOMAIN_HAP) {
        rc = emb_hap_plan(m, d);
        rc = rc ? rc : emb_hap_build(m, d);
    } else {
        rc = plain_build(m, d);
    }
    if (rc) {
        emb_domain_kill(m, d);          /* I1 */
    } else {
        *domid = d->domid;
    }
out:
    emb_unlock(m);
    return rc;
}

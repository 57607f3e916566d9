/*
 * coop_guest.c - a guest kernel of this program as a domain of the embedded machine.
 *
 * Owns: struct coop_guest and the table that binds the two.
 * Invariants:
 *   I1  guest/ knows nothing of hv/ and hv/ nothing of guest/: what each needs of the other passes here.
 *   I2  the domain's kernel runs either by steps or by threads, never by both.
 * Lock order: none.
 * Why here: tools/ is where programs are put together (doc/DESIGN.md, "Who calls whom").
 * Cost: one more call for each hypercall.
 */
#include "coop_guest.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <xen/xen.h>

struct vcpu_thread { struct coop_guest *owner; uint32_t vcpu; pthread_t thread; bool runs; int rc; };

struct coop_guest {
    struct emb_machine *m;
    uint16_t domid;
    struct emb_core_boot boot;
    struct guest guest;
    uint32_t vcpus;
    struct vcpu_thread threads[GUEST_CPUS_MAX];
    _Atomic uint64_t hypercalls, fail_in;
};

static bool may_fail(unsigned nr)
{
    return nr == __HYPERVISOR_mmu_update || nr == __HYPERVISOR_mmuext_op || nr == __HYPERVISOR_update_va_mapping || nr == __HYPERVISOR_memory_op;
}

static long host_hypercall(void *ctx, uint32_t vcpu, unsigned nr, const uint64_t args[5])
{
    struct coop_guest *c = ctx;
    if (may_fail(nr)) {
        uint64_t left = atomic_load(&c->fail_in);
        atomic_fetch_add(&c->hypercalls, 1);
        while (left != 0 && !atomic_compare_exchange_weak(&c->fail_in, &left, left - 1)) {
        }
        if (left == 1) {
            return nr == __HYPERVISOR_memory_op ? 0 : -ENOMEM;
        }
    }
    return emb_hypercall(c->m, c->domid, vcpu, nr, args);
}

static int host_user(void *ctx, uint32_t vcpu, uint64_t va, void *buf, size_t bytes, bool write, uint64_t *fault)
{
    struct coop_guest *c = ctx;
    return write ? emb_vcpu_write(c->m, c->domid, vcpu, true, va, buf, bytes, fault) : emb_vcpu_read(c->m, c->domid, vcpu, true, va, buf, bytes, fault);
}

static uint64_t host_m2p(void *ctx, uint64_t mfn)
{
    return emb_core_m2p(((struct coop_guest *)ctx)->m, mfn);
}

static int host_publish(void *ctx, const char *key, const char *value)
{
    struct coop_guest *c = ctx;
    return emb_core_publish(c->m, c->domid, key, value);
}

static bool host_wants_suspend(void *ctx)
{
    struct coop_guest *c = ctx;
    return emb_core_wants_suspend(c->m, c->domid);
}

static struct shared_info *host_shared(void *ctx)
{
    struct coop_guest *c = ctx;
    return emb_core_shared(c->m, c->domid);
}

static int host_run(void *ctx, uint32_t vcpu, void (*fn)(void *arg), void *arg)
{
    struct coop_guest *c = ctx;
    return emb_vcpu_run(c->m, c->domid, vcpu, fn, arg);
}

static void step(void *arg)
{
    guest_step(&((struct coop_guest *)arg)->guest);
}

int coop_guest_create(struct emb_machine *m, const struct coop_guest_config *config, struct coop_guest **out)
{
    struct emb_core_config core = { .pages = config->pages, .vcpus = config->vcpus, .node = config->node, .any_node = config->any_node };
    struct coop_guest *c = calloc(1, sizeof(*c));
    *out = NULL;
    if (!c) {
        return -ENOMEM;
    }
    memcpy(core.name, config->name, sizeof(core.name));
    *c = (struct coop_guest){ .m = m, .vcpus = config->vcpus };
    struct guest_host host = { .ctx = c, .hypercall = host_hypercall, .user = host_user, .m2p = host_m2p, .publish = host_publish,
                               .wants_suspend = host_wants_suspend, .shared_info = host_shared, .run = host_run };
    int rc = config->vcpus <= GUEST_CPUS_MAX ? emb_core_create(m, &core, &c->domid) : -EINVAL;
    if (rc) {
        free(c);
        return rc;
    }
    rc = emb_core_boot(m, c->domid, &c->boot);
    if (rc == 0) {
        rc = guest_boot(&c->guest, &host, c->boot.direct, c->boot.direct + c->boot.start_info * FS_PAGE_BYTES, config->vcpus, &config->boot);
    }
    if (rc) {
        coop_guest_destroy(c);
        return rc;
    }
    emb_core_step_with(m, c->domid, step, c);
    *out = c;
    return 0;
}

void coop_guest_destroy(struct coop_guest *c)
{
    if (c) {
        (void)coop_guest_stop(c);
        emb_core_step_with(c->m, c->domid, NULL, NULL);
        emb_core_unmap(c->m, c->domid);
        (void)emb_domain_destroy(c->m, c->domid);
        free(c);
    }
}

uint16_t coop_guest_domid(const struct coop_guest *c)
{
    return c->domid;
}

struct guest *coop_guest_kernel(struct coop_guest *c)
{
    return &c->guest;
}

void coop_guest_step(struct coop_guest *c, uint64_t steps)
{
    while (steps-- > 0) {
        guest_step(&c->guest);
    }
}

void coop_guest_hosts_steps(struct coop_guest *c)
{
    emb_core_step_with(c->m, c->domid, step, c);
}

/* ---- threads ---- */

static void vcpu_main(void *arg)
{
    struct vcpu_thread *t = arg;
    guest_cpu_main(&t->owner->guest.machine.cpu[t->vcpu], &t->owner->guest);
}

static void *thread_main(void *arg)
{
    struct vcpu_thread *t = arg;
    t->rc = host_run(t->owner, t->vcpu, vcpu_main, t);
    return NULL;
}

int coop_guest_start(struct coop_guest *c)
{
    int rc = 0;
    emb_core_step_with(c->m, c->domid, NULL, NULL);                         /* I2 */
    atomic_store(&c->guest.stop, false);
    for (uint32_t i = 0; i < c->vcpus && rc == 0; i++) {
        c->threads[i] = (struct vcpu_thread){ .owner = c, .vcpu = i };
        rc = -pthread_create(&c->threads[i].thread, NULL, thread_main, &c->threads[i]);
        c->threads[i].runs = rc == 0;
    }
    return rc;
}

int coop_guest_stop(struct coop_guest *c)
{
    int rc = 0;
    bool any = false;
    atomic_store(&c->guest.stop, true);
    for (uint32_t i = 0; i < c->vcpus; i++) {
        if (c->threads[i].runs) {
            (void)pthread_join(c->threads[i].thread, NULL);
            c->threads[i].runs = false;
            rc = c->threads[i].rc ? c->threads[i].rc : rc;
            any = true;
        }
    }
    if (any) {
        emb_core_step_with(c->m, c->domid, step, c);
    }
    return rc;
}

/* ---- checks, faults ---- */

static void print_line(void *arg, const char *text)
{
    fprintf(arg, "  %s\n", text);
}

uint64_t coop_guest_check(struct coop_guest *c, FILE *out)
{
    return guest_fsck(&c->guest, out ? print_line : NULL, out);
}

void coop_guest_fail_nth(struct coop_guest *c, uint64_t n)
{
    atomic_store(&c->fail_in, n);
}

uint64_t coop_guest_hypercalls(const struct coop_guest *c)
{
    return atomic_load(&c->hypercalls);
}

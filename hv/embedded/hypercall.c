/*
 * hypercall.c - the door: a core domain's hypercalls by number.
 *
 * Owns: nothing.
 * Invariants:
 *  I1 structures come in and go out by copies through the kernel (process_vm_readv), so a bad pointer
 *     is EFAULT, and nothing is read twice; by a plain copy what lies on the caller's own stack, and long lists where the
 *     direct map is known to show them;
 *  I2 the caller's own domain is the only one that it may name: others are EPERM if they exist,
 *     ESRCH if not (an unprivileged domain's answers).
 * Lock order: the machine's lock is held during a call, but where it waits.
 * Source: public/xen.h for numbers; each hc_*.c names its header.
 * Cost: one system call for each copied list, but for those.
 */
#include "emb_core.h"

#include <sys/uio.h>
#include <unistd.h>

#include <xen/xen.h>
#include <xen/version.h>

int emb_from_guest(void *to, uint64_t from, size_t bytes)
{
    struct iovec local = { to, bytes }, remote = { (void *)(uintptr_t)from, bytes };
    if (emb_own_stack(from, bytes)) {
        memcpy(to, (const void *)(uintptr_t)from, bytes);
        return 0;
    }
    return bytes == 0 || process_vm_readv(emb_pid(), &local, 1, &remote, 1, 0) == (ssize_t)bytes ? 0 : -EFAULT;
}

int emb_list_from_guest(const struct emb_hcall *h, void *to, uint64_t from, size_t bytes)
{
    if (emb_direct_shows(h->d->core, from, bytes)) {
        memcpy(to, (const void *)(uintptr_t)from, bytes);
        return 0;
    }
    return emb_from_guest(to, from, bytes);
}

int emb_to_guest(uint64_t to, const void *from, size_t bytes)
{
    struct iovec local = { (void *)(uintptr_t)from, bytes }, remote = { (void *)(uintptr_t)to, bytes };
    if (emb_own_stack(to, bytes)) {
        memcpy((void *)(uintptr_t)to, from, bytes);
        return 0;
    }
    return bytes == 0 || process_vm_writev(emb_pid(), &local, 1, &remote, 1, 0) == (ssize_t)bytes ? 0 : -EFAULT;
}

int emb_self_only(const struct emb_hcall *h, uint16_t domid)
{
    if (domid == DOMID_SELF || domid == h->d->domid) {
        return 0;
    }
    return emb_domain_find(h->m, domid) ? -EPERM : -ESRCH;
}

static long hc_console(struct emb_hcall *h)
{
    char text[256];
    uint64_t left = h->a[1], from = h->a[2];
    if (h->a[0] != 0) {                 /* CONSOLEIO_write */
        return -ENOSYS;
    }
    while (left > 0) {
        size_t n = left < sizeof(text) ? left : sizeof(text);
        int rc = emb_from_guest(text, from, n);
        if (rc) {
            return rc;
        }
        fprintf(stderr, "(d%u) %.*s", h->d->domid, (int)n, text);
        left -= n;
        from += n;
    }
    return 0;
}

static long hc_version(struct emb_hcall *h)
{
    return h->a[0] == XENVER_version ? 4 << 16 | 17 : -ENOSYS;
}

static long dispatch(struct emb_hcall *h, unsigned nr)
{
    switch (nr) {
    case __HYPERVISOR_memory_op: return emb_hc_memory(h);
    case __HYPERVISOR_mmu_update: return emb_hc_mmu_update(h);
    case __HYPERVISOR_mmuext_op: return emb_hc_mmuext(h);
    case __HYPERVISOR_update_va_mapping: return emb_hc_update_va(h);
    case __HYPERVISOR_set_gdt: return emb_hc_set_gdt(h);
    case __HYPERVISOR_sched_op: return emb_hc_sched(h);
    case __HYPERVISOR_vcpu_op: return emb_hc_vcpu(h);
    case __HYPERVISOR_event_channel_op: return emb_hc_event(h);
    case __HYPERVISOR_grant_table_op: return emb_hc_grant(h);
    case __HYPERVISOR_console_io: return hc_console(h);
    case __HYPERVISOR_xen_version: return hc_version(h);
    default: return -ENOSYS;
    }
}

long emb_hypercall(struct emb_machine *m, uint16_t domid, uint32_t vcpu, unsigned nr, const uint64_t args[5])
{
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    long rc = d && d->core && !d->dying && vcpu < d->vcpu_count ? 0 : -ESRCH;
    if (rc == 0) {
        emb_core_refresh(m, d);
    }
    emb_unlock(m);
    if (rc) {
        return rc;
    }
    emb_machine_begin(d, vcpu);
    emb_lock(m);
    struct emb_hcall h = { m, d, vcpu, args };
    d->core->vcpus[vcpu].blocked = false;       /* without a thread it left its block at once */
    emb_timers_run(m, d);
    emb_runstate_sync(m, d);
    rc = dispatch(&h, nr);
    emb_unlock(m);
    emb_machine_end(d, vcpu);
    return rc;
}

/*
 * host.h - what a paravirtual guest of this process needs from the machine under it.
 *
 * Owns: struct guest_host, a table that the program fills in which links both the guest and a machine: guest/ includes
 * nothing of hv/.  Hypercalls have Xen's numbers, public structures and error numbers; pointers in them are host pointers.
 * Every member is set.
 */
#ifndef GUEST_ARCH_EMBEDDED_HOST_H
#define GUEST_ARCH_EMBEDDED_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct shared_info;

struct guest_host {
    void *ctx;
    /* __HYPERVISOR_nr, made by that vCPU. */
    long (*hypercall)(void *ctx, uint32_t vcpu, unsigned nr, const uint64_t args[5]);
    /* User memory as the vCPU sees it, with its TLB; 0, or not 0 with *fault. */
    int (*user)(void *ctx, uint32_t vcpu, uint64_t va, void *buf, size_t bytes, bool write, uint64_t *fault);
    /* Xen's machine-to-phys table, which every PV guest can read; UINT64_MAX: no entry. */
    uint64_t (*m2p)(void *ctx, uint64_t mfn);
    /* Instead of xenstore: data/frameshift/key. 0 or -errno. */
    int (*publish)(void *ctx, const char *key, const char *value);
    /* The toolstack wrote control/shutdown = suspend. */
    bool (*wants_suspend)(void *ctx);
    struct shared_info *(*shared_info)(void *ctx);
    /* Turn the calling thread into that vCPU while fn runs; 0, or -errno where the domain is gone. */
    int (*run)(void *ctx, uint32_t vcpu, void (*fn)(void *arg), void *arg);
};

#endif

/*
 * hypercall.h - the hypercalls that this kernel makes, and nothing else of Xen's interface.
 *
 * Owns: how a hypercall is made. Each wrapper returns what Xen answered: 0 or more, or -errno.
 * All of them may be called at any time on the boot CPU; none allocates.
 */
#ifndef GUEST_ARCH_XEN_HYPERCALL_H
#define GUEST_ARCH_XEN_HYPERCALL_H

#include <stddef.h>
#include <stdint.h>
#include <xen/xen.h>
#include <xen/sched.h>
#include <xen/event_channel.h>
#include <xen/callback.h>
#include <xen/memory.h>
#include <xen/version.h>

extern char hypercall_page[];

/* Argument registers are clobbered (Xen's ABI); the entry is hypercall_page + 32 * number. */
static inline int64_t hypercall(unsigned number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    register uint64_t fourth __asm__("r10") = d;
    int64_t result;

    __asm__ volatile("call *%%rax"
                     : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(fourth)
                     : "0"(hypercall_page + (size_t)number * 32)
                     : "rcx", "r8", "r9", "r11", "memory", "cc");
    return result;
}

static inline uint64_t hypercall_pointer(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static inline int64_t hv_set_trap_table(const struct trap_info *table)
{
    return hypercall(__HYPERVISOR_set_trap_table, hypercall_pointer(table), 0, 0, 0);
}

static inline int64_t hv_callback(unsigned command, void *argument)
{
    return hypercall(__HYPERVISOR_callback_op, command, hypercall_pointer(argument), 0, 0);
}

/* *done: how many of the updates were made. */
static inline int64_t hv_mmu_update(const struct mmu_update *updates, uint64_t count, uint32_t *done)
{
    return hypercall(__HYPERVISOR_mmu_update, hypercall_pointer(updates), count, hypercall_pointer(done), DOMID_SELF);
}

static inline int64_t hv_mmuext(struct mmuext_op *ops, uint64_t count, uint32_t *done)
{
    return hypercall(__HYPERVISOR_mmuext_op, hypercall_pointer(ops), count, hypercall_pointer(done), DOMID_SELF);
}

static inline int64_t hv_update_va_mapping(uint64_t va, uint64_t entry, uint64_t flags)
{
    return hypercall(__HYPERVISOR_update_va_mapping, va, entry, flags, 0);
}

static inline int64_t hv_memory(unsigned command, void *argument)
{
    return hypercall(__HYPERVISOR_memory_op, command, hypercall_pointer(argument), 0, 0);
}

static inline int64_t hv_sched(unsigned command, void *argument)
{
    return hypercall(__HYPERVISOR_sched_op, command, hypercall_pointer(argument), 0, 0);
}

static inline int64_t hv_event(unsigned command, void *argument)
{
    return hypercall(__HYPERVISOR_event_channel_op, command, hypercall_pointer(argument), 0, 0);
}

/* Xen's own console; an ordinary domain may only where Xen was built so (else -EPERM). */
static inline int64_t hv_console_write(const char *text, uint64_t bytes)
{
    return hypercall(__HYPERVISOR_console_io, CONSOLEIO_write, bytes, hypercall_pointer(text), 0);
}

#endif

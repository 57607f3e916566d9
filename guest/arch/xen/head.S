/*
 * head.S - what the PV kernel says to Xen's domain builder, its first instruction, and where Xen enters it again.
 *
 * Owns: the ELF notes, the hypercall page, the boot stack, the stubs of the trap table and of the two callbacks.
 * Invariants:
 *   I1  a stub ends with struct trap_frame (traps.c) complete on the stack: fifteen registers, vector, error code, then
 *       what Xen pushed (rip, cs, rflags, rsp, ss).
 *   I2  the page below the stack is unmapped once memory.c has its own tables: an overflow is a double fault, not a wrong byte.
 * Why: Xen pushes rcx and r11 above every frame, because it enters a 64-bit PV kernel by SYSRET, which destroys them.
 *   A kernel returns to itself by iretq; Xen clears the privilege bits of cs to say "kernel", so they are set again first.
 */
#define __ASSEMBLY__ 1
#include <xen/elfnote.h>
#include <xen/arch-x86/xen-x86_64.h>

#define NOTE(type, ...) \
    .pushsection .note.Xen, "a", @note; \
    .balign 4; \
    .long 4, 2f - 1f, type; \
    .asciz "Xen"; \
1:  __VA_ARGS__; \
2:  .balign 4; \
    .popsection

NOTE(XEN_ELFNOTE_GUEST_OS, .asciz "frameshift-guest")
NOTE(XEN_ELFNOTE_GUEST_VERSION, .asciz "1")
NOTE(XEN_ELFNOTE_XEN_VERSION, .asciz "xen-3.0")
NOTE(XEN_ELFNOTE_LOADER, .asciz "generic")
NOTE(XEN_ELFNOTE_PAE_MODE, .asciz "yes")
NOTE(XEN_ELFNOTE_FEATURES, .asciz "!writable_page_tables|pae_pgdir_above_4gb")
NOTE(XEN_ELFNOTE_VIRT_BASE, .quad virt_base)
NOTE(XEN_ELFNOTE_PADDR_OFFSET, .quad 0)
NOTE(XEN_ELFNOTE_ENTRY, .quad kernel_entry)
NOTE(XEN_ELFNOTE_HYPERCALL_PAGE, .quad hypercall_page)
/* How a tool tells a valid entry of a page table: the present bit. */
NOTE(XEN_ELFNOTE_L1_MFN_VALID, .quad 1; .quad 1)

    .section .text.entry, "ax", @progbits
    .balign 4096
    .globl hypercall_page
hypercall_page:
    .skip 4096

/* rsi: start_info. rsp: the stack that the builder made, the last thing that it mapped. */
    .globl kernel_entry
kernel_entry:
    cld
    movq %rsi, %rdi
    movq %rsp, %rsi
    leaq kernel_stack_top(%rip), %rsp
    xorl %ebp, %ebp
    call kernel_main
    ud2

/* Vectors with an error code have a bit in the mask: 8, 10 to 14, 17, 21. */
#define HAS_ERROR_CODE 0x227d00

#define TRAP_VECTORS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21

    .irp vector, TRAP_VECTORS
trap_stub_\vector:
    popq %rcx
    popq %r11
    .if !((HAS_ERROR_CODE >> \vector) & 1)
    pushq $0
    .endif
    pushq $\vector
    jmp trap_common
    .endr

trap_common:
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rbp
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    movq %rsp, %rbx
    andq $-16, %rsp
    call trap_handle
    movq %rbx, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rbp
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    addq $16, %rsp
    orb $3, 8(%rsp)
    iretq

/* Events are masked from the first instruction to the last, and no segment is ever loaded: neither can be called. */
    .globl event_callback, failsafe_callback
event_callback:
    leaq event_words(%rip), %rdi
    jmp callback_unexpected
failsafe_callback:
    leaq failsafe_words(%rip), %rdi
callback_unexpected:
    andq $-16, %rsp
    call kernel_panic

/* bool probe_write(uint64_t *at, uint64_t value): false where the write faults (traps.c knows the two labels). */
    .globl probe_write, probe_write_store, probe_write_fault
probe_write:
probe_write_store:
    movq %rsi, (%rdi)
    movl $1, %eax
    ret
probe_write_fault:
    xorl %eax, %eax
    ret

    .section .rodata
    .globl trap_stubs
    .balign 8
trap_stubs:
    .irp vector, TRAP_VECTORS
    .quad trap_stub_\vector
    .endr
event_words:
    .asciz "an event was delivered although events are masked"
failsafe_words:
    .asciz "Xen called the failsafe callback: a segment selector went bad"

    .section .bss.page, "aw", @nobits
    .balign 4096
    .globl stack_guard, kernel_stack_top
stack_guard:
    .skip 4096
    .skip 65536
kernel_stack_top:

    .section .note.GNU-stack, "", @progbits

/*
 * switch.S - another frame under a page of the image's data: the stack itself, or what C code writes while it runs.
 *
 * Owns: nothing.
 * Invariants:
 *   I1  from the first byte copied until the page's two mappings name the new frame, nothing is written but the copy: no push, no
 *       call, no store.  Hypercalls are made by the instruction itself, because the hypercall page's stubs push.
 *   I2  events are masked and there is one vCPU, so nobody else writes either; Xen does not touch this kernel's stack in a hypercall.
 *   I3  where Xen refuses the second mapping the first is as before.
 * Why: everything else that moves is copied and switched by C code, which uses the stack and may use any data meanwhile.
 */
#define __ASSEMBLY__ 1
#include <xen/xen.h>

/* update_va_mapping(va, entry, UVMF_INVLPG | UVMF_LOCAL); 0 or -errno in rax. Clobbers rcx, r11, rdx, rsi, rdi. */
    .macro map va, entry
    movq \va, %rdi
    movq \entry, %rsi
    movl $(UVMF_INVLPG | UVMF_LOCAL), %edx
    movl $__HYPERVISOR_update_va_mapping, %eax
    syscall
    .endm

/* int64_t image_switch(const void *direct, void *window, uint64_t entry, const void *image, uint64_t old_entry)
 * window maps the new frame writable, and nothing afterwards. 0, 1 (the copy differs) or -errno: then nothing has changed. */
    .text
    .globl image_switch
image_switch:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rdi, %r12                 /* direct */
    movq %rsi, %r13                 /* window */
    movq %rdx, %rbx                 /* entry */
    movq %rcx, %r14                 /* image */
    movq %r8, %r15                  /* old_entry */
    cld
    movq %r12, %rsi
    movq %r13, %rdi
    movl $512, %ecx
    rep movsq                       /* I1 from here */
    movq %r12, %rsi
    movq %r13, %rdi
    movl $512, %ecx
    repe cmpsq
    movl $0, %ebp
    setne %bpl                      /* 1: differs */
    map %r13, $0
    testl %ebp, %ebp
    jnz 1f
    movq %rax, %rbp
    testq %rax, %rax
    jnz 1f
    map %r12, %rbx
    movq %rax, %rbp
    testq %rax, %rax
    jnz 1f
    map %r14, %rbx
    movq %rax, %rbp
    testq %rax, %rax
    jz 1f                           /* ... to here */
    map %r12, %r15                  /* I3 */
1:  movq %rbp, %rax
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .section .note.GNU-stack, "", @progbits

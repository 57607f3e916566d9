/*
 * traps.c - what a processor exception does to this kernel.
 *
 * Owns: the trap table, and the last words after a fault.
 * Invariants:
 *   I1  every vector that Xen may deliver has a stub in head.S that leaves a complete struct trap_frame.
 *   I2  a fault inside the handler ends the guest: in_fault is set before anything is printed.
 * Lock order: none.
 * Why: nothing here is paged and no exception is expected, so a fault is a mistake of ours: say where and stop with
 *   SHUTDOWN_crash, which tells the toolstack.  The one exception is probe_write(), which tests whether a page is read-only by
 *   writing to it; a page fault at that very instruction resumes behind it.
 * Cost: none until something is wrong.
 */
#include "kernel.h"
#include "../../lib/text.h"

struct trap_frame {                                 /* as head.S pushes it, the last push first */
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

#define TRAPS 22u
#define TRAP_PAGE_FAULT 14u

extern const uint64_t trap_stubs[TRAPS];
extern char event_callback[], failsafe_callback[], probe_write_store[], probe_write_fault[];
void trap_handle(struct trap_frame *f);

uint64_t probe_faults;
static bool in_fault;

void traps_init(void)
{
    static struct trap_info table[TRAPS + 1];       /* the sentinel is zero */
    struct callback_register event = { .type = CALLBACKTYPE_event, .address = (uint64_t)(uintptr_t)event_callback };
    struct callback_register failsafe = { .type = CALLBACKTYPE_failsafe, .address = (uint64_t)(uintptr_t)failsafe_callback };
    uint32_t used = 0;

    for (uint32_t v = 0; v < TRAPS; v++) {
        if (v == 2 || v == 15) {                    /* NMI has a callback of its own; 15 is reserved */
            continue;
        }
        /* int3 and overflow may be raised by an instruction. */
        table[used++] = (struct trap_info){ .vector = (uint8_t)v, .flags = v == 3 || v == 4 ? 3 : 0, .cs = FLAT_KERNEL_CS,
                                            .address = trap_stubs[v] };
    }
    if (hv_set_trap_table(table) != 0 || hv_callback(CALLBACKOP_register, &event) != 0
        || hv_callback(CALLBACKOP_register, &failsafe) != 0) {
        kernel_panic("Xen does not take the trap table or the callbacks");
    }
}

static void print_register(const char *name, uint64_t value, const char *end)
{
    struct text t;

    text_clear(&t);
    text_word(&t, name);
    text_word(&t, "=");
    text_hex(&t, value);
    text_word(&t, end);
    arch_console_write(t.line, t.bytes);
}

/* Words of the stack that lie in the image's text: callers, and what is left of earlier ones. */
static void print_callers(uint64_t rsp)
{
    uint64_t top = (uint64_t)(uintptr_t)kernel_stack_top;
    unsigned shown = 0;

    if (rsp < (uint64_t)(uintptr_t)stack_guard + FS_PAGE_BYTES || rsp >= top || rsp % 8 != 0) {
        return;
    }
    for (; rsp < top && shown < 24; rsp += 8) {
        uint64_t word = *(const uint64_t *)(uintptr_t)rsp;

        if (word >= (uint64_t)(uintptr_t)image_start && word < (uint64_t)(uintptr_t)text_end) {
            print_register("  on the stack", word, "\n");
            shown++;
        }
    }
}

void trap_handle(struct trap_frame *f)
{
    if (f->vector == TRAP_PAGE_FAULT && f->rip == (uint64_t)(uintptr_t)probe_write_store) {
        probe_faults++;
        f->rip = (uint64_t)(uintptr_t)probe_write_fault;
        return;
    }
    if (in_fault) {                                 /* I2 */
        kernel_shutdown(SHUTDOWN_crash);
    }
    in_fault = true;
    print("frameshift-guest: FAULT ");
    print_number("vector", f->vector);
    print_register(" error", f->error, "");
    print_register(" rip", f->rip, "");
    print_register(" cr2", shared_info != NULL ? shared_info->vcpu_info[0].arch.cr2 : 0, "\n");
    print_register("  rax", f->rax, "");
    print_register(" rbx", f->rbx, "");
    print_register(" rcx", f->rcx, "");
    print_register(" rdx", f->rdx, "\n");
    print_register("  rsi", f->rsi, "");
    print_register(" rdi", f->rdi, "");
    print_register(" rbp", f->rbp, "");
    print_register(" rsp", f->rsp, "\n");
    print_register("  r8", f->r8, "");
    print_register(" r9", f->r9, "");
    print_register(" r10", f->r10, "");
    print_register(" r11", f->r11, "\n");
    print_register("  r12", f->r12, "");
    print_register(" r13", f->r13, "");
    print_register(" r14", f->r14, "");
    print_register(" r15", f->r15, "\n");
    print_register("  cs", f->cs, "");
    print_register(" ss", f->ss, "");
    print_register(" rflags", f->rflags, "\n");
    print_callers(f->rsp);
    kernel_shutdown(SHUTDOWN_crash);
}

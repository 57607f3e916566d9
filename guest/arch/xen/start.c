/*
 * start.c - the first C function, the last one, and what was said on the command line.
 *
 * Owns: start_info and shared_info, the order of things at boot, the ways out.
 * Invariants:
 *   I1  start_info comes from the toolstack: every field is checked before it is used as an address or a length.
 *   I2  every way out is SCHEDOP_shutdown, after the console was read or its time was over; nothing returns from it.
 *   I3  the command line is read through a copy of our own, terminated here.
 * Lock order: none (one vCPU, events masked).
 * Why: the console comes first, so that whatever is wrong later is told; then traps, then memory.
 * Cost: once.
 */
#include "kernel.h"
#include "check.h"
#include "serve.h"
#include "frameshift/assert.h"
#include "../../lib/text.h"

#define DRAIN_NS 10000000000ull

struct start_info *start_info;
struct shared_info *shared_info;

/* Xen maps the record over this page of the image. */
static FS_ALIGNED(4096) unsigned char shared_info_page[FS_PAGE_BYTES] __attribute__((section(".bss.page")));
static char command_line[MAX_GUEST_CMDLINE + 1];
static bool in_panic;

void kernel_main(struct start_info *info, uint64_t boot_stack);

FS_NORETURN void kernel_shutdown(unsigned reason)
{
    struct sched_shutdown shutdown = { .reason = reason };

    console_drain(DRAIN_NS);
    for (;;) {                                      /* I2 */
        (void)hv_sched(SCHEDOP_shutdown, &shutdown);
    }
}

FS_NORETURN void kernel_panic_number(const char *words, uint64_t n)
{
    struct text t;

    if (!in_panic) {
        in_panic = true;
        text_clear(&t);
        text_word(&t, "frameshift-guest: FAIL ");
        text_word(&t, words);
        text_word(&t, " (");
        text_hex(&t, n);
        text_word(&t, ")\n");
        arch_console_write(t.line, t.bytes);
        (void)hv_console_write(t.line, t.bytes);
    }
    kernel_shutdown(SHUTDOWN_crash);
}

FS_NORETURN void kernel_panic(const char *words)
{
    kernel_panic_number(words, 0);
}

void fs_assert_fail(const char *file, int line, const char *expr, unsigned long long a, unsigned long long b)
{
    struct text t;

    if (in_panic) {
        kernel_shutdown(SHUTDOWN_crash);
    }
    in_panic = true;
    text_clear(&t);
    text_word(&t, "frameshift-guest: FAIL assertion ");
    text_word(&t, file);
    text_word(&t, ":");
    text_number(&t, (uint64_t)line);
    text_word(&t, ": ");
    text_word(&t, expr);
    text_word(&t, " a=");
    text_hex(&t, a);
    text_word(&t, " b=");
    text_hex(&t, b);
    text_word(&t, "\n");
    arch_console_write(t.line, t.bytes);
    (void)hv_console_write(t.line, t.bytes);
    kernel_shutdown(SHUTDOWN_crash);
}

/* What follows "name=" at the beginning of a word, or NULL. */
static const char *option_find(const char *name)
{
    for (const char *at = command_line; *at != '\0'; at++) {
        size_t i = 0;

        if (at != command_line && at[-1] != ' ') {
            continue;
        }
        while (name[i] != '\0' && at[i] == name[i]) {
            i++;
        }
        if (name[i] == '\0' && at[i] == '=') {
            return at + i + 1;
        }
    }
    return NULL;
}

uint64_t option_number(const char *name, uint64_t otherwise)
{
    const char *at = option_find(name);
    uint64_t n = 0;

    if (at == NULL || *at < '0' || *at > '9') {
        return otherwise;
    }
    while (*at >= '0' && *at <= '9' && n < 1000000000) {
        n = n * 10 + (uint64_t)(*at++ - '0');
    }
    return n;
}

bool option_is(const char *name, const char *word)
{
    const char *at = option_find(name);

    if (at == NULL) {
        return false;
    }
    while (*word != '\0' && *at == *word) {
        at++;
        word++;
    }
    return *word == '\0' && (*at == '\0' || *at == ' ');
}

/* Is [va, va + bytes) inside what the builder mapped, behind the image's first byte? */
static bool boot_va_good(uint64_t va, uint64_t bytes, uint64_t end)
{
    uint64_t base = (uint64_t)(uintptr_t)virt_base;

    return va >= base && va % 8 == 0 && va < end && bytes <= end - va;
}

/* I1: the builder lays everything out before its stack. */
static void start_info_check(const struct start_info *info, uint64_t end)
{
    static const char magic[] = "xen-";

    for (unsigned i = 0; magic[i] != '\0'; i++) {
        if (info->magic[i] != magic[i]) {
            kernel_panic("start_info does not begin with xen-");
        }
    }
    if (info->nr_pages == 0 || info->nr_pages > (1ull << 32)) {
        kernel_panic_number("start_info.nr_pages is not a size of memory", info->nr_pages);
    }
    if (!boot_va_good(info->mfn_list, info->nr_pages * 8, end) || info->mfn_list % FS_PAGE_BYTES != 0) {
        kernel_panic_number("start_info.mfn_list is not in the builder's mapping", info->mfn_list);
    }
    if (info->nr_pt_frames > info->nr_pages || info->pt_base % FS_PAGE_BYTES != 0
        || !boot_va_good(info->pt_base, info->nr_pt_frames * FS_PAGE_BYTES, end)) {
        kernel_panic_number("start_info.pt_base is not in the builder's mapping", info->pt_base);
    }
    if (info->shared_info % FS_PAGE_BYTES != 0) {
        kernel_panic_number("start_info.shared_info is not a page", info->shared_info);
    }
}

void shared_info_unmap(void)
{
    if (hv_update_va_mapping((uint64_t)(uintptr_t)shared_info_page, 0, UVMF_INVLPG | UVMF_LOCAL) != 0) {
        kernel_panic("Xen does not unmap shared_info");
    }
    shared_info = NULL;
}

void shared_info_map(void)
{
    uint64_t va = (uint64_t)(uintptr_t)shared_info_page;
    int64_t error = hv_update_va_mapping(va, start_info->shared_info | ARCH_PTE_PRESENT | ARCH_PTE_WRITE | ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY,
                                         UVMF_INVLPG | UVMF_LOCAL);

    if (error != 0) {
        kernel_panic_number("Xen does not map shared_info", (uint64_t)-error);
    }
    shared_info = (struct shared_info *)(void *)shared_info_page;
}

/* The ring is one of the builder's pages. Found by M2P alone, so that there is a console for all that may be wrong. */
static uint64_t console_find(uint64_t end)
{
    uint64_t base = (uint64_t)(uintptr_t)virt_base, pfn = memory_m2p(start_info->console.domU.mfn);

    if (pfn >= (end - base) / FS_PAGE_BYTES) {
        kernel_shutdown(SHUTDOWN_crash);
    }
    console_open((char *)virt_base + pfn * FS_PAGE_BYTES, start_info->console.domU.evtchn);
    return pfn;
}

void kernel_main(struct start_info *info, uint64_t boot_stack)
{
    uint64_t base = (uint64_t)(uintptr_t)virt_base, console_pfn;

    if (boot_stack % FS_PAGE_BYTES != 0 || (uint64_t)(uintptr_t)info % FS_PAGE_BYTES != 0
        || !boot_va_good((uint64_t)(uintptr_t)info, sizeof(*info), boot_stack) || (info->flags & SIF_INITDOMAIN)) {
        kernel_panic("start_info is not where the domain builder puts it, or this is dom0");
    }
    start_info = info;
    m2p_open();
    console_pfn = console_find(boot_stack);
    traps_init();
    start_info_check(info, boot_stack);
    for (unsigned i = 0; i < MAX_GUEST_CMDLINE; i++) {      /* I3 */
        command_line[i] = (char)info->cmd_line[i];
    }
    p2m_open();
    shared_info_map();
    memory_own_tables(boot_stack);
    start_info = direct_map(((uint64_t)(uintptr_t)info - base) / FS_PAGE_BYTES);
    console_moved(direct_map(console_pfn));
    if (option_number("serve", UINT64_MAX) != UINT64_MAX) {
        serve_run(option_number("serve", 0));
    }
    check_all();
    kernel_shutdown(SHUTDOWN_poweroff);
}

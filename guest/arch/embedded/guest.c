/*
 * guest.c - one guest kernel of this process: boot, the loops of its CPUs, its own check.
 *
 * Owns: struct guest.
 * Invariants:
 *   I1  every structure that the kernel calls its own lies in boot memory, so in frames of the guest.
 *   I2  a deterministic step is whole: between two of them no lock is held and no page is half moved.
 *   I3  guest_fsck(): each page with a frame has an M2P entry that leads back and is mapped in the direct map by exactly
 *       that frame; a boot table is read-only there, a page without a frame is not mapped.
 * Lock order: none of its own.
 * Why one kernel thread on CPU 0: suspend and abi.h are served between tasks, as a kernel's threads would be.
 * Cost: booting writes 68 bytes for each page of whole sections of 128 MiB.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "balloon.h"
#include "frameshift/assert.h"
#include "guest.h"
#include "../../mm/background.h"
#include "../../mm/compaction.h"
#include "../../mm/migrate.h"
#include "../../mm/mm_fsck.h"
#include "../../mm/reclaim.h"
#include "../../mm/slab_fsck.h"
#include "../../mm/vm_fsck.h"

#define IDLE_NS 50000
#define STEP_NS 1000000             /* what a deterministic step counts for the background */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static int boot_core(struct guest *g, const struct guest_boot_config *c)
{
    struct guest_machine *m = &g->machine;
    struct mm_range ram = { .start = pfn_make(0), .end = pfn_make(m->pages) };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .dma_pages = c->dma_pages, .core_percent = c->core_percent,
                                .kernelcore_pages = c->kernelcore_pages,
                                .min_free_pages = c->min_free_pages, .cpus = m->cpus, .policy = CLAIM_CLEAR_FIRST,
                                .boot_alloc = guest_boot_alloc, .boot_ctx = m, .direct_map = m->direct };
    struct hotplug_ops balloon = guest_balloon_ops(m);

    g->mm = guest_boot_alloc(m, sizeof(*g->mm), 64);                        /* I1 */
    g->coop = guest_boot_alloc(m, sizeof(*g->coop), 64);
    g->vm = guest_boot_alloc(m, sizeof(*g->vm), 64);
    g->lru = guest_boot_alloc(m, sizeof(*g->lru), 64);
    g->pagecache = guest_boot_alloc(m, sizeof(*g->pagecache), 64);
    g->swap = guest_boot_alloc(m, sizeof(*g->swap), 64);
    g->hugetlb = guest_boot_alloc(m, sizeof(*g->hugetlb), 64);
    if (!guest_balloon_init(m)) {
        return -ENOMEM;
    }
    if (g->mm == NULL || g->coop == NULL || g->vm == NULL || g->lru == NULL || g->pagecache == NULL || g->swap == NULL || g->hugetlb == NULL ||
        mm_init(g->mm, &config) != MM_OK || compaction_init(g->mm, &config) != MM_OK) {
        return -ENOMEM;
    }
    (void)mm_free_boot(g->mm, guest_boot_done(m), pfn_make(m->pages));
    mm_boot_done(g->mm);
    if (vm_init(g->vm, g->mm) != MM_OK) {
        return -ENOMEM;
    }
    lru_init(g->lru, g->mm);
    g->vm->lru = g->lru;
    if (pagecache_init(g->pagecache, g->vm) != MM_OK) {
        return -ENOMEM;
    }
    swap_init(g->swap, g->vm);
    reclaim_init(g->vm);
    hugetlb_init(g->hugetlb, g->vm);
    vm_install_migrate(g->vm);
    background_init(g->mm);
    return coop_init(g->coop, g->mm, g->vm, &balloon) == MM_OK ? 0 : -ENOMEM;
}

static int publish(struct guest *g)
{
    char text[32];
    int rc;

    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)g->coop->control_pfn.n);
    rc = g->machine.host.publish(g->machine.host.ctx, FS_ABI_KEY_CONTROL, text);
    if (rc == 0) {
        (void)snprintf(text, sizeof(text), "%u", FS_ABI_VERSION);
        rc = g->machine.host.publish(g->machine.host.ctx, FS_ABI_KEY_VERSION, text);
    }
    return rc;
}

int guest_boot(struct guest *g, const struct guest_host *host, uint8_t *direct, const void *start_info, unsigned cpus,
               const struct guest_boot_config *config)
{
    int rc;

    *g = (struct guest){ .random = config->seed };
    rc = guest_machine_init(&g->machine, host, direct, start_info, cpus);
    if (rc == 0) {
        rc = boot_core(g, config);
    }
    return rc == 0 && !config->no_coop ? publish(g) : rc;
}

bool guest_add_task(struct guest *g, void (*step)(void *arg, struct guest *g, uint64_t random), void *arg)
{
    if (g->task_count == GUEST_TASKS_MAX) {
        return false;
    }
    g->tasks[g->task_count++] = (struct guest_task){ .step = step, .arg = arg };
    return true;
}

/* What is neither a task's business nor waits: on CPU 0. now_ns: the background's clock. */
static bool kernel_thread(struct guest *g, uint64_t now_ns)
{
    bool busy;

    if (g->machine.host.wants_suspend(g->machine.host.ctx) && guest_suspend(&g->machine) == 0) {
        g->suspends++;
    }
    busy = background_poll(g->mm, g->vm, now_ns);
    return coop_poll(g->coop) || busy;
}

void guest_step(struct guest *g)
{
    unsigned cpu = (unsigned)(next_random(&g->random) % g->machine.cpus);

    if (g->task_count > 0) {
        const struct guest_task *t = &g->tasks[next_random(&g->random) % g->task_count];

        guest_cpu_become(&g->machine.cpu[cpu]);
        t->step(t->arg, g, next_random(&g->random));
    }
    guest_cpu_become(&g->machine.cpu[0]);
    (void)kernel_thread(g, g->steps * STEP_NS);
    g->steps++;
}

void guest_cpu_main(struct guest_cpu *cpu, struct guest *g)
{
    uint64_t random = g->random + cpu->id * 7919u;

    guest_cpu_online(cpu);
    while (!atomic_load_explicit(&g->stop, memory_order_relaxed)) {
        bool busy = cpu->id == 0 && kernel_thread(g, arch_time_ns());
        uint32_t mine = (g->task_count + g->machine.cpus - 1 - cpu->id) / g->machine.cpus;

        if (mine > 0) {
            const struct guest_task *t = &g->tasks[cpu->id + next_random(&random) % mine * g->machine.cpus];

            t->step(t->arg, g, next_random(&random));
        } else if (!busy) {
            (void)nanosleep(&(struct timespec){ .tv_nsec = IDLE_NS }, NULL);
        }
        guest_safepoint();
    }
    guest_cpu_offline();
}

/* ---- check ---- */

struct check { void (*line)(void *arg, const char *text); void *arg; uint64_t faults; };

static void fault(struct check *c, const char *what, uint64_t pfn, uint64_t is, uint64_t should_be)
{
    char text[160];

    (void)snprintf(text, sizeof(text), "pfn %#llx: %s: is %#llx, should be %#llx", (unsigned long long)pfn, what, (unsigned long long)is,
                   (unsigned long long)should_be);
    if (c->line != NULL && c->faults < 20) {
        c->line(c->arg, text);
    }
    c->faults++;
}

static void on_mm_fault(void *ctx, enum mm_fault f, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    fault(ctx, mm_fault_text(f), pfn.n, is, should_be);
}

static void on_slab_fault(void *ctx, enum slab_fault f, const struct kmem_cache *cache, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    (void)cache;
    fault(ctx, slab_fault_text(f), pfn.n, is, should_be);
}

static void on_vm_fault(void *ctx, enum vm_fsck_fault f, const struct vm_fsck_place *place, uint64_t is, uint64_t should_be)
{
    char what[120];

    (void)snprintf(what, sizeof(what), "user address %#llx: %s", (unsigned long long)place->va, vm_fsck_text(f));
    fault(ctx, place->va != UINT64_MAX ? what : vm_fsck_text(f), place->pfn.n, is, should_be);
}

static void check_frame(struct check *c, struct guest_machine *m, uint64_t pfn)
{
    uint64_t mfn = atomic_load(&m->p2m[pfn]), pte = 0;
    pfn_t table;
    uint32_t slot;
    bool boot_table = pfn - m->tables_first < m->tables;

    if (guest_walk(m, (uint64_t)(uintptr_t)m->direct + pfn * FS_PAGE_BYTES, 1, &table, &slot)) {
        pte = guest_table(m, table)[slot];
    } else {
        fault(c, "no table for the direct map", pfn, 0, 1);
    }
    if (mfn == UINT64_MAX) {
        if (pte & ARCH_PTE_PRESENT) {
            fault(c, "mapped without a frame", pfn, pte, 0);
        }
        return;
    }
    if (m->host.m2p(m->host.ctx, mfn) != pfn) {
        fault(c, "the M2P of its frame", pfn, m->host.m2p(m->host.ctx, mfn), pfn);
    }
    if (!(pte & ARCH_PTE_PRESENT) || (pte & ARCH_PTE_FRAME) >> FS_PAGE_SHIFT != mfn) {
        fault(c, "the direct map's entry", pfn, pte, mfn << FS_PAGE_SHIFT);
    }
    if (boot_table && (pte & ARCH_PTE_WRITE)) {
        fault(c, "a page table is writable", pfn, pte, pte & ~ARCH_PTE_WRITE);
    }
}

uint64_t guest_fsck(struct guest *g, void (*line)(void *arg, const char *text), void *arg)
{
    struct check c = { .line = line, .arg = arg };
    uint64_t reported;

    guest_cpu_become(&g->machine.cpu[0]);
    reported = mm_fsck(g->mm, on_mm_fault, &c);
    reported += slab_fsck(g->mm, on_slab_fault, &c) + vm_fsck(g->vm, on_vm_fault, &c);
    ASSERT_CMP(reported, ==, c.faults);
    for (uint64_t pfn = 0; pfn < g->machine.pages; pfn++) {
        check_frame(&c, &g->machine, pfn);
    }
    return c.faults;
}

/*
 * coop_world.c - a machine with one guest that moves its own pages.
 *
 * Owns: tasks that hold kernel pages and verify every byte of them whenever they are looked at.
 */
#include "coop_world.h"

#include "../../guest/mm/page_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SWAP_SLOTS 4096u

/* ---- kernel pages ---- */

static uint64_t word_of(uint64_t seed, uint64_t page, uint64_t i)
{
    return (seed + page * 512 + i) * 0x9e3779b97f4a7c15ull;
}

static void fill(struct kernel_pool *k, unsigned u)
{
    for (uint64_t p = 0; p < (1ull << k->units[u].order); p++) {
        uint64_t *at = arch_page_address(pfn_make(k->units[u].page->pfn + p));
        for (unsigned i = 0; i < 512; i++) {
            at[i] = word_of(k->units[u].seed, p, i);
        }
    }
}

static void verify(struct kernel_pool *k, unsigned u)
{
    for (uint64_t p = 0; p < (1ull << k->units[u].order); p++) {
        const uint64_t *at = arch_page_address(pfn_make(k->units[u].page->pfn + p));
        for (unsigned i = 0; i < 512; i++) {
            k->wrong += at[i] != word_of(k->units[u].seed, p, i);
        }
    }
    k->checks++;
}

static void pool_step(void *arg, struct guest *g, uint64_t random)
{
    static const gfp_t kinds[] = { GFP_KERNEL, GFP_KERNEL | __GFP_RECLAIMABLE, GFP_KERNEL | __GFP_ACCOUNT };
    struct kernel_pool *k = arg;
    unsigned u = (unsigned)(random % POOL_UNITS);

    if (k->units[u].page == NULL) {
        k->units[u].order = (unsigned)(random >> 16) % 8 == 0 ? (unsigned)(random >> 24) % 6 : 0;
        k->units[u].seed = random;
        k->units[u].page = alloc_pages(g->mm, kinds[(random >> 32) % 3], k->units[u].order);
        if (k->units[u].page != NULL) {
            fill(k, u);
            k->units[u].dma = k->dma_wanted > 0;
            if (k->units[u].dma) {
                k->dma_wanted--;
                page_set_flags(k->units[u].page, PG_DMA);
            }
        }
        return;
    }
    verify(k, u);
    if ((random >> 40) % 3 == 0 && !k->units[u].dma) {
        page_put(g->mm, k->units[u].page);
        k->units[u].page = NULL;
    } else if ((random >> 40) % 3 == 1) {
        k->units[u].seed = random;
        fill(k, u);
    }
}

/* ---- the world ---- */

static mm_status_t swap_read(void *ctx, uint32_t slot, void *bytes)
{
    memcpy(bytes, (unsigned char *)ctx + slot * (size_t)FS_PAGE_BYTES, FS_PAGE_BYTES);
    return MM_OK;
}

static mm_status_t swap_write(void *ctx, uint32_t slot, const void *bytes)
{
    memcpy((unsigned char *)ctx + slot * (size_t)FS_PAGE_BYTES, bytes, FS_PAGE_BYTES);
    return MM_OK;
}

static void world_swap(struct world *w)
{
    static const struct swap_backing ops = { swap_read, swap_write };

    w->swap_bytes = malloc(SWAP_SLOTS * (size_t)FS_PAGE_BYTES);
    assert_non_null(w->swap_bytes);
    assert_int_equal(swap_add_area(coop_guest_kernel(w->c)->swap, SWAP_SLOTS, &ops, w->swap_bytes), MM_OK);
}

void world_make(struct world *w, uint64_t seed, uint32_t vcpus, uint64_t pages)
{
    struct emb_config c = { .nodes = { { NODE_PAGES, 0 }, { NODE_PAGES, 0 }, { NODE_PAGES, 0 } }, .node_count = 3, .seed = seed };
    struct coop_guest_config g = { .name = "coop", .pages = pages, .vcpus = vcpus, .node = 1, .boot = { .seed = seed } };

    /* The journal syncs at each step; what it survives here is a killed process, not a power cut. */
    *w = (struct world){ .dir = "/dev/shm/coop-XXXXXX", .seed = seed, .pages = pages };
    assert_non_null(mkdtemp(w->dir));
    w->m = emb_machine_create(&c);
    assert_non_null(w->m);
    assert_int_equal(coop_guest_create(w->m, &g, &w->c), 0);
    w->max_pages = emb_domain_max_pages(w->m, coop_guest_domid(w->c));
    w->pool_count = 2;
    for (uint32_t i = 0; i < w->pool_count; i++) {
        assert_true(guest_add_task(coop_guest_kernel(w->c), pool_step, &w->pools[i]));
    }
    world_swap(w);
    w->family_count = vcpus + 1 > 4 ? 4 : vcpus + 1;
    for (uint32_t i = 0; i < w->family_count; i++) {
        family_init(&w->families[i], coop_guest_kernel(w->c));
        assert_true(guest_add_task(coop_guest_kernel(w->c), family_step, &w->families[i]));
    }
    for (uint32_t i = 0; i < 2; i++) {
        fiber_init(&w->fibers[i], coop_guest_kernel(w->c), seed + i);
        assert_true(guest_add_task(coop_guest_kernel(w->c), fiber_step, &w->fibers[i]));
    }
    coop_guest_step(w->c, 2000);
    world_sane(w, "fresh", 0);
}

void world_end(struct world *w)
{
    char cmd[96];

    for (uint32_t i = 0; i < w->family_count; i++) {
        family_end(&w->families[i]);
    }
    assert_int_equal(coop_guest_check(w->c, stderr), 0);
    free(w->swap_bytes);
    coop_guest_destroy(w->c);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    emb_machine_destroy(w->m);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", w->dir);
    assert_int_equal(system(cmd), 0);
}

void world_drop(struct world *w)
{
    char cmd[96];

    for (uint32_t i = 0; i < w->family_count; i++) {
        free(w->families[i].store);
    }
    free(w->swap_bytes);
    coop_guest_destroy(w->c);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    emb_machine_destroy(w->m);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", w->dir);
    assert_int_equal(system(cmd), 0);
}

fs_status_t world_evacuate(struct world *w, const char *target, const struct hv_evacuate_options *more, struct hv_report *report, struct fs_error *err)
{
    struct hv hv = { .be = emb_backend(w->m), .state_dir = w->dir };
    struct hv_evacuate_options o = more != NULL ? *more : (struct hv_evacuate_options){ .verify = true };

    assert_non_null(hv.be);
    o.target = target;
    fs_status_t s = hv_evacuate(&hv, &o, report, err);
    hv.be->ops->close(hv.be);
    return s;
}

fs_status_t world_recover(struct world *w, struct hv_recover_report *r, struct fs_error *err)
{
    struct hv hv = { .be = emb_backend(w->m), .state_dir = w->dir };

    assert_non_null(hv.be);
    fs_status_t s = hv_recover(&hv, r, err);
    hv.be->ops->close(hv.be);
    return s;
}

static pid_t host;                      /* the process that runs the guest */

bool world_run_and_kill(struct world *w, void (*tool)(struct world *w, void *arg), void *arg)
{
    int status;
    host = getpid();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        tool(w, arg);
        _exit(0);
    }
    while (waitpid(pid, &status, WNOHANG) == 0) {
        coop_guest_step(w->c, 1);
        (void)nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
    }
    emb_fault_arm(w->m, NULL);
    emb_machine_reap(w->m);
    return WIFSIGNALED(status);
}

void world_kill_tool(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)arg, (void)m, (void)op, (void)call;
    if (getpid() != host) {
        (void)raise(SIGKILL);
    }
}

bool world_needs_recovery(const struct world *w, fs_status_t s)
{
    char path[96];

    (void)snprintf(path, sizeof(path), "%s/journal", w->dir);
    return s == FS_NEEDS_RECOVER || access(path, F_OK) == 0;
}

uint64_t world_wrong(const struct world *w)
{
    uint64_t wrong = 0;

    for (uint32_t i = 0; i < w->pool_count; i++) {
        wrong += w->pools[i].wrong;
    }
    for (uint32_t i = 0; i < w->family_count; i++) {
        wrong += w->families[i].wrong;
    }
    wrong += w->fibers[0].wrong + w->fibers[1].wrong;
    return wrong;
}

static void verify_all(struct world *w)
{
    guest_cpu_become(&coop_guest_kernel(w->c)->machine.cpu[0]);
    for (uint32_t i = 0; i < w->pool_count; i++) {
        for (unsigned u = 0; u < POOL_UNITS; u++) {
            if (w->pools[i].units[u].page != NULL) {
                verify(&w->pools[i], u);
            }
        }
    }
    for (uint32_t i = 0; i < w->family_count; i++) {
        family_verify(&w->families[i]);
    }
}

static uint64_t hv_faults(struct world *w)
{
    struct hv hv = { .be = emb_backend(w->m), .state_dir = w->dir };
    struct hv_fsck_report r = { 0 };
    struct fs_error err = { "" };
    fs_status_t s = hv_fsck(&hv, coop_guest_domid(w->c), false, &r, &err);
    uint64_t faults = r.fault_count + (s != FS_OK);

    if (faults > 0) {
        fprintf(stderr, "hv_fsck: %s: %s\n", err.text, r.fault_count > 0 ? r.faults[0].text : "");
    }
    hv_fsck_free(&r);
    hv.be->ops->close(hv.be);
    return faults;
}

void world_sane_at(struct world *w, int line, const char *what, uint64_t n)
{
    uint64_t faults = emb_fsck(w->m, stderr) + coop_guest_check(w->c, stderr) + hv_faults(w);
    uint64_t limit = emb_domain_max_pages(w->m, coop_guest_domid(w->c));

    verify_all(w);
    coop_guest_step(w->c, 50);
    verify_all(w);
    if (w->max_pages != limit) {
        fprintf(stderr, "its limit was %llu and is %llu\n", (unsigned long long)w->max_pages, (unsigned long long)limit);
        faults++;
    }
    if (emb_domain_pause_count(w->m, coop_guest_domid(w->c)) != 0) {
        fprintf(stderr, "the guest is paused\n");
        faults++;
    }
    if (faults > 0 || world_wrong(w) > 0) {
        fail_msg("line %d: seed %llu, %s %llu: %llu faults, %llu wrong words", line, (unsigned long long)w->seed, what, (unsigned long long)n,
                 (unsigned long long)faults, (unsigned long long)world_wrong(w));
    }
}

uint64_t report_count(const struct hv_report *r, const char *phase)
{
    for (size_t d = 0; d < r->domain_count; d++) {
        for (size_t i = 0; i < r->domains[d].phase_count; i++) {
            if (strcmp(r->domains[d].phases[i].name, phase) == 0) {
                return r->domains[d].phases[i].count;
            }
        }
    }
    return 0;
}

/*
 * shrink.c - what it costs a guest to give memory back and to take it again, on the embedded machine.
 *
 * Counted: everything between the request and the answer in the guest and in the machine: finding blocks, taking them off the free lists,
 * unmapping them from the direct map, the p2m, the machine's references and heap, all the way to frames that are free; not counted: the tool.
 * Freed frames keep their bytes, as under a release build of Xen (a debug build, and this machine by default, overwrites them).
 * Cases, alternating in rounds, each on a guest of its own:
 *   never    blocks that nobody has touched since boot
 *   used     every page of every block had been allocated and written, and is free now
 *   moves    a part of each block is in use and is moved out by migration first (the copies are counted)
 * "host" is the part that is this process's own host: mmap() and mremap() of the direct map's pages (on Xen there is no such call).
 * Prints medians over the rounds, per block of 2 MiB, and counts of calls.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "../../guest/mm/page_alloc.h"
#include "../../guest/mm/shrink.h"
#include "drill/coop_guest.h"

#define GUEST_MIB   384u
#define ROUNDS_MAX  101u

static uint64_t host_ns, host_calls;    /* of mmap() and mremap(), below */
void *__real_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset);
void *__real_mremap(void *at, size_t bytes, size_t new_bytes, int flags, void *to);
void *__wrap_mremap(void *at, size_t bytes, size_t new_bytes, int flags, void *to);

/* One thread does everything, in the guest and in the machine, and waits for nobody: its time on a CPU is all of it. */
static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void *__wrap_mremap(void *at, size_t bytes, size_t new_bytes, int flags, void *to)
{
    uint64_t since = now_ns();
    void *p = __real_mremap(at, bytes, new_bytes, flags, to);
    host_ns += now_ns() - since;
    host_calls++;
    return p;
}

void *__wrap_mmap(void *at, size_t bytes, int prot, int flags, int fd, off_t offset)
{
    uint64_t since = now_ns();
    void *p = __real_mmap(at, bytes, prot, flags, fd, offset);
    host_ns += now_ns() - since;
    host_calls++;
    return p;
}

enum which { NEVER, USED, MOVES, CASES };
static const char *const names[CASES] = { "never", "used", "moves" };

struct sample { double shrink, shrink_host, grow, grow_host; };
struct counts { uint64_t blocks, extents, migrated, hypercalls, maps; };

/* ---- a guest whose movable pages have an owner: an array of ours --------------------------------------- */

struct owner { struct page **page_of; uint32_t count; };

static mm_status_t move(void *ctx, struct page *from, struct page *to)
{
    struct owner *o = ctx;
    arch_page_copy(page_pfn(to), page_pfn(from));
    to->private = from->private;
    o->page_of[from->private] = to;
    atomic_store(&to->refs, 1);
    atomic_fetch_sub(&from->refs, 1);
    return MM_OK;
}

/* Take all there is, write it, and free what is not to stay: one page in keep_one_in. */
static void use_memory(struct guest *g, struct owner *o, uint32_t keep_one_in)
{
    struct page *p;
    uint32_t kept = 0;
    while ((p = alloc_pages(g->mm, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0)) != NULL) {
        memset(arch_page_address(page_pfn(p)), 0x5a, FS_PAGE_BYTES);
        p->private = o->count;
        o->page_of[o->count++] = p;
    }
    for (uint32_t i = 0; i < o->count; i++) {
        if (keep_one_in != 0 && i % keep_one_in == 0) {
            o->page_of[kept] = o->page_of[i];
            o->page_of[kept]->private = kept;
            kept++;
        } else {
            page_put(g->mm, o->page_of[i]);
        }
    }
    o->count = kept;
    mm_drain(g->mm);
}

static void one_round(enum which which, uint64_t seed, uint64_t blocks, struct sample *s, struct counts *n)
{
    struct emb_config c = { .nodes = { { (GUEST_MIB + 128) * 256, 0 } }, .node_count = 1, .seed = seed, .no_poison = true };
    struct coop_guest_config config = { .name = "bench", .pages = GUEST_MIB * 256, .vcpus = 1, .boot = { .seed = seed } };
    struct coop_guest *guest = NULL;
    struct emb_machine *m = emb_machine_create(&c);
    struct owner o = { .page_of = calloc(GUEST_MIB * 256, sizeof(*o.page_of)) };
    if (m == NULL || o.page_of == NULL || coop_guest_create(m, &config, &guest) != 0) {
        fprintf(stderr, "no memory for a guest of %u MiB\n", GUEST_MIB);
        exit(1);
    }
    struct guest *g = coop_guest_kernel(guest);
    guest_cpu_become(&g->machine.cpu[0]);
    g->mm->migrate = (struct migrate_ops){ .move = move, .ctx = &o };
    if (which != NEVER) {
        use_memory(g, &o, which == MOVES ? 8 : 0);
    }
    struct shrink_result r;
    /* The host maps lazily: the p2m, page tables and struct pages of every block have been looked at once, and of the blocks themselves nothing. */
    if (coop_guest_check(guest, stderr) != 0) {
        exit(1);
    }
    uint64_t calls = coop_guest_hypercalls(guest), maps = host_calls, mapped = host_ns, since = now_ns();
    shrink_pages(g->mm, blocks * 512, &g->coop->hotplug, &r);
    uint64_t ns = now_ns() - since;
    if (r.blocks != blocks) {
        fprintf(stderr, "%s: only %llu blocks of %llu went\n", names[which], (unsigned long long)r.blocks, (unsigned long long)blocks);
        exit(1);
    }
    s->shrink = (double)ns / (double)blocks;
    s->shrink_host = (double)(host_ns - mapped) / (double)blocks;
    *n = (struct counts){ .blocks = r.blocks, .extents = r.machine_extents, .migrated = r.migrated_pages,
                          .hypercalls = coop_guest_hypercalls(guest) - calls, .maps = host_calls - maps };
    mapped = host_ns;
    since = now_ns();
    grow_pages(g->mm, blocks * 512, &g->coop->hotplug, &r);
    s->grow = (double)(now_ns() - since) / (double)blocks;
    s->grow_host = (double)(host_ns - mapped) / (double)blocks;
    if (r.blocks != blocks || emb_fsck(m, stderr) != 0 || coop_guest_check(guest, stderr) != 0) {
        fprintf(stderr, "%s: it is not whole afterwards\n", names[which]);
        exit(1);
    }
    coop_guest_destroy(guest);
    emb_machine_destroy(m);
    free(o.page_of);
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *list, size_t count)
{
    qsort(list, count, sizeof(*list), by_value);
    return list[count / 2];
}

int main(int argc, char **argv)
{
    static struct sample samples[CASES][ROUNDS_MAX];
    static const double required_us[CASES] = { 0.5, 6.0, 0 };
    struct counts counts[CASES];
    size_t rounds = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 11;
    rounds = rounds == 0 || rounds > ROUNDS_MAX ? 11 : rounds;
    for (size_t i = 0; i < rounds; i++) {
        for (unsigned w = 0; w < CASES; w++) {
            one_round((enum which)w, i + 1, w == MOVES ? 64 : 160, &samples[w][i], &counts[w]);
        }
    }
    printf("shrinking a guest of %u MiB, per block of 2 MiB, medians of %zu rounds; microseconds\n", GUEST_MIB, rounds);
    printf("  %-6s %7s %9s %9s %9s %9s %9s   %s\n", "case", "blocks", "shrink", "of it", "without", "grow", "of it", "required: shrink");
    printf("  %-6s %7s %9s %9s %9s %9s %9s\n", "", "", "", "host", "host", "", "host");
    for (unsigned w = 0; w < CASES; w++) {
        double v[5][ROUNDS_MAX];
        for (size_t i = 0; i < rounds; i++) {
            const struct sample *s = &samples[w][i];
            v[0][i] = s->shrink / 1e3;
            v[1][i] = s->shrink_host / 1e3;
            v[2][i] = (s->shrink - s->shrink_host) / 1e3;
            v[3][i] = s->grow / 1e3;
            v[4][i] = s->grow_host / 1e3;
        }
        printf("  %-6s %7llu %9.2f %9.2f %9.2f %9.2f %9.2f", names[w], (unsigned long long)counts[w].blocks, median(v[0], rounds), median(v[1], rounds),
               median(v[2], rounds), median(v[3], rounds), median(v[4], rounds));
        if (required_us[w] > 0) {
            printf("   %.1f: %s", required_us[w], median(v[0], rounds) <= required_us[w] ? "met" : "not met");
        }
        printf("\n");
    }
    for (unsigned w = 0; w < CASES; w++) {
        printf("  %-6s %.2f hypercalls, %.2f host mmap() and mremap() a block; %llu of %llu blocks one machine extent; %.1f pages moved a block\n", names[w],
               (double)counts[w].hypercalls / (double)counts[w].blocks, (double)counts[w].maps / (double)counts[w].blocks,
               (unsigned long long)counts[w].extents, (unsigned long long)counts[w].blocks, (double)counts[w].migrated / (double)counts[w].blocks);
    }
    return 0;
}

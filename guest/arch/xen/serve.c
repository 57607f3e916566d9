/*
 * serve.c - a guest at work: verifying tasks in a loop, abi.h and the background beside them, a beat on the console, an end when it is asked for.
 *
 * Owns: struct serve, what it says in xenstore, the order of things from start to the line of result.
 * Invariants:
 *   I1  between two tasks' steps no lock is held and no page is half moved: requests, the background, suspend and the end are looked at there only.
 *   I2  PASS is printed only if every task found every byte right at the end, every fsck found nothing, and every page that was
 *       free at the start is free again; exactly one line begins with "frameshift-guest: PASS" or "FAIL".
 *   I3  struct serve and all that the core keeps lie in boot memory or in pages of the core: they move like a user's page.
 * Lock order: none (one vCPU).
 * Why one loop: there is one vCPU, so a step, a request and a nap in turn are what threads would be.  Naps leave the processor to
 *   others (idle=PERCENT of the time); while requests come in or the background has work there are none.
 * Options on the command line: serve=SECONDS (0: no limit), seed=N, tasks=N of each kind, pages=N of each task, kinds=MASK, idle=PERCENT.
 * Cost: a pass looks at four words beside the step.
 */
#include "serve.h"
#include "check.h"
#include "../../lib/text.h"
#include "../../mm/background.h"
#include "../../mm/compaction.h"
#include "../../mm/memmap.h"
#include "../../mm/migrate.h"
#include "../../mm/page_alloc.h"
#include "../../mm/reclaim.h"

#define BEAT_NS     1000000000ull
#define WORK_NS     2000000ull              /* between two naps */
#define TASKS_MAX   4u
#define SHARES      14u                     /* of free memory a task of each kind gets one: families of four, tables, slab */
#define HUGE_KINDS  (1u << WORKLOAD_THP | 1u << WORKLOAD_POOL)  /* where a task's share is a huge page at least */
/* Only on request (kinds=): a huge page of the kernel's own is pinned as long as its task has it, and nobody moves it; memory policies need
 * nodes, of which there is one; tasks on huge pages in processes have not been looked at on real Xen yet. */
#define KINDS       (WORKLOAD_ALL & ~(1u << WORKLOAD_HUGE | 1u << WORKLOAD_POLICY | HUGE_KINDS))
#define WRONG_LINES 20u
#define CONTROL     "control/shutdown"
#define KEYS        "data/frameshift/"

static void on_wrong(void *ctx, const struct workload_wrong *w)
{
    struct serve *s = ctx;
    struct text t;

    if (s->faults++ >= WRONG_LINES) {
        return;
    }
    text_clear(&t);
    text_word(&t, "WRONG ");
    text_word(&t, workload_name(w->kind));
    text_word(&t, " ");
    text_word(&t, workload_fault_name(w->fault));
    text_word(&t, " page ");
    text_number(&t, w->page);
    text_word(&t, " byte ");
    text_number(&t, w->byte);
    text_word(&t, " is ");
    text_hex(&t, w->is);
    text_word(&t, " should be ");
    text_hex(&t, w->should_be);
    print_line(t.line);
}

/* ---- start ---- */

static struct serve *core_start(void)
{
    struct mm_range ram = { pfn_make(0), pfn_make(boot_memory.pages), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 1, .policy = CLAIM_CLEAR_FIRST, .boot_alloc = memory_boot_alloc,
                                .direct_map = direct_map(0) };
    struct serve *s = memory_boot_alloc(NULL, sizeof(*s), 64);              /* I3 */
    struct hotplug_ops hotplug;
    mm_status_t status;

    CHECK(s != NULL, "no memory for the kernel's own records; pages", boot_memory.pages);
    status = mm_init(&s->mm, &config);
    CHECK(status == MM_OK, "mm_init", status);
    status = compaction_init(&s->mm, &config);
    CHECK(status == MM_OK, "compaction_init", status);
    (void)mm_free_boot(&s->mm, pfn_make(boot_memory.next), pfn_make(boot_memory.pages));
    (void)mm_free_boot(&s->mm, pfn_make(boot_memory.old_start), pfn_make(boot_memory.old_end));
    mm_boot_done(&s->mm);
    s->start_free = mm_free_pages(&s->mm) + memmap_pages(&s->mm);
    hotplug = reservation_ops(&s->reservation);
    status = vm_init(&s->vm, &s->mm);
    CHECK(status == MM_OK, "vm_init", status);
    lru_init(&s->lru, &s->mm);
    s->vm.lru = &s->lru;
    status = pagecache_init(&s->pagecache, &s->vm);
    CHECK(status == MM_OK, "pagecache_init", status);
    swap_init(&s->swap, &s->vm);
    reclaim_init(&s->vm);
    hugetlb_init(&s->hugetlb, &s->vm);
    vm_install_migrate(&s->vm);
    background_init(&s->mm);
    status = coop_init(&s->coop, &s->mm, &s->vm, &hotplug);
    CHECK(status == MM_OK, "coop_init", status);
    return s;
}

static void tasks_start(struct serve *s)
{
    uint64_t tasks = option_number("tasks", 1), pages;
    struct workload_config config = { .vm = &s->vm, .seed = option_number("seed", 1), .frames_stay = true, .regions = true,
                                      .wrong = on_wrong, .ctx = s };
    mm_status_t status;

    tasks = tasks == 0 ? 1 : tasks < TASKS_MAX ? tasks : TASKS_MAX;
    pages = option_number("pages", mm_free_pages(&s->mm) / SHARES / tasks);
    config.kinds = (unsigned)option_number("kinds", KINDS);
    config.kinds &= pages >= PAGEBLOCK_PAGES ? WORKLOAD_ALL : ~HUGE_KINDS;
    config.tasks = (uint32_t)tasks;
    config.pages = (uint32_t)(pages < WORKLOAD_PAGES_MAX ? pages : WORKLOAD_PAGES_MAX);
    status = workload_start(&s->workload, &config);
    CHECK(status == MM_OK, "the tasks do not start", status);
    s->random = config.seed;
    print_number("frameshift-guest: serving tasks", s->workload.count);
    print_number(" pages_each", config.pages);
    print_number(" free", mm_free_pages(&s->mm));
    print_line("");
}

static void say(const char *key, uint64_t number)
{
    char path[64] = KEYS;
    struct text t;
    size_t at = sizeof(KEYS) - 1;

    for (; *key != '\0' && at < sizeof(path) - 1; key++) {
        path[at++] = *key;
    }
    text_clear(&t);
    text_number(&t, number);
    if (!xenstore_write(path, t.line)) {
        kernel_panic(xenstore_trouble());
    }
}

/* The page first: whoever sees a version finds the page as well. */
static void publish(const struct serve *s)
{
    if (!xenstore_open() || !xenstore_watch(CONTROL)) {
        kernel_panic(xenstore_trouble());
    }
    say(FS_ABI_KEY_CONTROL, s->coop.control_pfn.n);
    say(FS_ABI_KEY_VERSION, FS_ABI_VERSION);
}

/* ---- the beat ---- */

static void put(struct text *t, const char *name, uint64_t n)
{
    text_word(t, name);
    text_number(t, n);
}

/* Two lines of known form: the second is what the stock guests' verifier prints (tests/xenhost); whoever sees it has the first as well. */
static void beat(struct serve *s, uint64_t now)
{
    struct workload_stats sum = workload_total(&s->workload);
    const struct coop *c = &s->coop;
    struct text t;

    s->max_gap_ns = s->gap_ns > s->max_gap_ns ? s->gap_ns : s->max_gap_ns;
    text_clear(&t);
    put(&t, "COOP sessions=", c->sessions);
    put(&t, " requests=", c->requests);
    put(&t, " free=", c->moved_free);
    put(&t, " user=", c->moved_user);
    put(&t, " kernel=", c->moved_kernel);
    put(&t, " table=", c->moved_table);
    put(&t, " failed=", c->failed);
    put(&t, " stops=", c->relocate.stops);
    put(&t, " given=", s->reservation.given_pages);
    put(&t, " extents_given=", s->reservation.extents_given);
    put(&t, " extents_taken=", s->reservation.extents_taken);
    put(&t, " suspends=", s->suspends);
    put(&t, " regions=", sum.regions);
    put(&t, " regions_exchanged=", sum.regions_exchanged);
    put(&t, " regions_refused=", sum.regions_refused);
    text_word(&t, " end");
    print_line(t.line);
    text_clear(&t);
    put(&t, "BEAT seq=", ++s->seq);
    put(&t, " t_ns=", now);
    put(&t, " steps=", sum.steps);
    put(&t, " checked_bytes=", sum.bytes_verified);
    put(&t, " wrong_bytes=", sum.wrong);
    put(&t, " refused=", sum.refused);
    put(&t, " gap_ns=", s->gap_ns);
    put(&t, " max_gap_ns=", s->max_gap_ns);
    put(&t, " workers=", s->workload.count);
    text_word(&t, " end");
    print_line(t.line);
    s->beat_ns = now;
    s->gap_ns = 0;
}

/* ---- control/shutdown ---- */

static bool same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static void suspend(struct serve *s)
{
    int how = serve_suspend();

    if (how < 0) {
        kernel_panic_number("Xen does not suspend this domain", (uint64_t)-how);
    }
    if (how == 1) {
        workload_restored(&s->workload);
    }
    s->suspends++;
    publish(s);                             /* a restored domain has a xenstore folder of its own; else it says what is there already */
}

/* What is asked for: SHUTDOWN_*, or -1 for nothing that ends the work. */
static int control(struct serve *s)
{
    static const struct { const char *word; int reason; } words[] = { { "poweroff", SHUTDOWN_poweroff }, { "halt", SHUTDOWN_poweroff },
                                                                      { "reboot", SHUTDOWN_reboot }, { "suspend", SHUTDOWN_suspend } };
    char value[32];

    if (!xenstore_read(CONTROL, value, sizeof(value)) || value[0] == '\0') {
        return -1;
    }
    for (unsigned i = 0; i < FS_ARRAY_SIZE(words); i++) {
        if (!same(value, words[i].word)) {
            continue;
        }
        if (!xenstore_write(CONTROL, "")) {     /* "taken": who asked is waiting for it */
            print_line(xenstore_trouble());
        }
        if (words[i].reason != SHUTDOWN_suspend) {
            return words[i].reason;
        }
        suspend(s);
        return -1;
    }
    print_line("frameshift-guest: control/shutdown has a word that is not known here");
    return -1;
}

/* ---- the loop ---- */

static void nap(struct serve *s, uint64_t now, uint64_t idle_percent)
{
    evtchn_port_t port = xenstore_port();

    if (idle_percent == 0 || now - s->nap_ns < WORK_NS) {
        return;
    }
    event_clear(port);                      /* what it announced is looked at in the next pass */
    event_wait(&port, 1, WORK_NS * idle_percent / (100 - idle_percent));
    s->nap_ns = arch_time_ns();
}

/* Until somebody asks for the end, or the time is over: SHUTDOWN_*. */
static unsigned work(struct serve *s, uint64_t seconds)
{
    uint64_t idle = option_number("idle", 50), until = seconds == 0 ? UINT64_MAX : s->start_ns + seconds * BEAT_NS;
    int reason = -1;

    idle = idle < 95 ? idle : 95;
    while (reason < 0) {
        uint64_t now = arch_time_ns();
        bool busy;

        s->gap_ns = now - s->seen_ns > s->gap_ns ? now - s->seen_ns : s->gap_ns;
        s->seen_ns = now;
        s->random = s->random * 6364136223846793005ull + 1442695040888963407ull;        /* Knuth's MMIX generator */
        (void)workload_step(&s->workload, (uint32_t)((s->random >> 33) % s->workload.count));
        busy = background_poll(&s->mm, &s->vm, now);
        if (!coop_poll(&s->coop) && !busy) {
            nap(s, now, idle);
        }
        if (now - s->beat_ns >= BEAT_NS) {
            beat(s, now);
            if (s->seq == 3) {
                serve_plant(s);
            }
        }
        if (xenstore_fired()) {
            reason = control(s);
        }
        reason = reason < 0 && now > until ? SHUTDOWN_poweroff : reason;
    }
    return (unsigned)reason;
}

static void result_line(const struct serve *s, const struct workload_stats *sum)
{
    struct text t;

    text_clear(&t);
    put(&t, "frameshift-guest: PASS pages=", boot_memory.pages);
    put(&t, " served_s=", (arch_time_ns() - s->start_ns) / BEAT_NS);
    put(&t, " steps=", sum->steps);
    put(&t, " verified=", sum->bytes_verified);
    put(&t, " written=", sum->bytes_written);
    put(&t, " wrong=", sum->wrong);
    put(&t, " moved=", s->coop.moved_free + s->coop.moved_user + s->coop.moved_kernel + s->coop.moved_table);
    put(&t, " max_gap_ns=", s->max_gap_ns);
    put(&t, " suspends=", s->suspends);
    put(&t, " regions=", sum->regions);
    put(&t, " regions_exchanged=", sum->regions_exchanged);
    print_line(t.line);
}

void serve_run(uint64_t seconds)
{
    struct serve *s = core_start();
    struct workload_stats sum;
    unsigned reason;
    uint64_t faults;

    tasks_start(s);
    publish(s);
    s->start_ns = s->beat_ns = s->seen_ns = s->nap_ns = arch_time_ns();
    reason = work(s, seconds);
    (void)workload_verify_all(&s->workload);
    beat(s, arch_time_ns());
    sum = workload_total(&s->workload);
    CHECK(sum.wrong == 0, "the tasks found so much that is wrong", sum.wrong);          /* I2 */
    faults = serve_fsck(s);
    CHECK(faults == 0, "faults after the tasks' last step", faults);
    workload_stop(&s->workload);
    faults = serve_fsck(s);
    CHECK(faults == 0, "faults after the tasks' end", faults);
    serve_balance(s);
    result_line(s, &sum);
    kernel_shutdown(reason);
}

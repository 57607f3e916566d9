/*
 * test_embedded.c - the backend suite on the embedded machine.
 *
 * The guests run in a thread of their own, as guests do beside a tool: writing, remapping,
 * taking events.  Afterwards every byte of theirs and every count of the machine is checked.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "conform.h"
#include "embedded/core.h"
#include "embedded/embedded.h"
#include "frameshift/abi.h"
#include "frameshift/assert.h"

struct world {
    struct emb_machine *m;
    uint16_t domids[2];
    atomic_bool stop;
};

static void *run_guests(void *arg)
{
    struct world *w = arg;
    while (!atomic_load(&w->stop)) {
        for (int i = 0; i < 2; i++) {
            (void)emb_guest_run(w->m, w->domids[i], 20);
        }
        emb_xen_tick(w->m, 1);
        (void)nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    }
    return NULL;
}

static bool build(struct world *w)
{
    struct emb_config c = { .nodes = { { 32768, 0 }, { 65536, 0 }, { 65536, 4096 } }, .node_count = 3, .seed = 11, .anon_pages = 16 };
    struct emb_domain_config dom0 = { .kind = HV_DOMAIN_CONTROL, .name = "Domain-0", .pages = 4096, .vcpus = 2, .node = 0 };
    struct emb_domain_config pv = { .kind = HV_DOMAIN_PV, .name = "pv", .pages = 8192, .vcpus = 2, .seed = 1, .node = 1, .grants_mapped = 1 };
    struct emb_domain_config hap = { .kind = HV_DOMAIN_HAP, .name = "hap", .pages = 32768, .vcpus = 2, .seed = 2, .node = 1, .grants_mapped = 1 };
    struct emb_core_config coop = { .name = "coop", .pages = 4096, .vcpus = 1, .node = 2 };
    uint16_t zero, domid;
    w->m = emb_machine_create(&c);
    return w->m && emb_domain_create(w->m, &dom0, &zero) == 0 && emb_domain_create(w->m, &pv, &w->domids[0]) == 0 &&
           emb_domain_create(w->m, &hap, &w->domids[1]) == 0 && emb_core_create(w->m, &coop, &domid) == 0 &&
           emb_core_publish(w->m, domid, FS_ABI_KEY_VERSION, "1") == 0 && emb_core_publish(w->m, domid, FS_ABI_KEY_CONTROL, "77") == 0;
}

static unsigned suite(struct hv_backend *be, const char *only)
{
    struct conform c = { .be = be, .pv_name = "pv", .hap_name = "hap", .coop_name = "coop", .only = only, .work_dir = "/tmp" };
    return conform_run(&c);
}

int main(void)
{
    struct world w = { 0 };
    pthread_t thread;
    ASSERT(build(&w));
    struct hv_backend *be = emb_backend(w.m);
    ASSERT(be);
    ASSERT(pthread_create(&thread, NULL, run_guests, &w) == 0);
    unsigned failed = suite(be, NULL);
    atomic_store(&w.stop, true);
    ASSERT(pthread_join(thread, NULL) == 0);
    uint64_t faults = emb_fsck(w.m, stderr) + emb_guest_check(w.m, w.domids[0], stderr) + emb_guest_check(w.m, w.domids[1], stderr);
    printf("after the suite: %llu faults\n", (unsigned long long)faults);
    failed += suite(be, "evict");           /* replaces the guests, so it comes last */
    faults += emb_fsck(w.m, stderr);
    be->ops->close(be);
    emb_machine_destroy(w.m);
    return failed || faults ? 1 : 0;
}

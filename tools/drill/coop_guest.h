/*
 * coop_guest.h - a guest kernel of this program as a domain of the embedded machine.
 *
 * Owns: the binding of guest/arch/embedded to hv/embedded/core.h: the one place that knows both.  For the drill and for tests.
 *
 *   coop_guest_create()   builds the domain, boots the kernel, publishes abi.h; deterministic: it runs where the tool
 *                         waits for it (coop_wait, suspend), or by coop_guest_step()
 *   coop_guest_start()    instead: one thread for each vCPU, until coop_guest_stop()
 *   coop_guest_check()    the kernel's own checks
 *   coop_guest_destroy()  destroys the domain and frees everything
 *
 * The process that creates it hosts it; an engine in a forked child sees the same machine (the child must not step it).
 */
#ifndef FRAMESHIFT_TOOLS_COOP_GUEST_H
#define FRAMESHIFT_TOOLS_COOP_GUEST_H

#include <stdio.h>

#include "../../guest/arch/embedded/guest.h"
#include "../../hv/embedded/core.h"

struct coop_guest_config {
    char name[64];
    uint64_t pages;
    uint32_t vcpus;
    uint32_t node;              /* where its frames come from */
    bool any_node;
    struct guest_boot_config boot;
};

struct coop_guest;

/* 0 or -errno. */
int coop_guest_create(struct emb_machine *m, const struct coop_guest_config *config, struct coop_guest **out);
void coop_guest_destroy(struct coop_guest *c);
uint16_t coop_guest_domid(const struct coop_guest *c);
/* The kernel itself: tasks are added to it, counters read (guest->coop). */
struct guest *coop_guest_kernel(struct coop_guest *c);

/* Deterministic mode: so many steps now; also run wherever the machine waits for the guest. Not while threads run. */
void coop_guest_step(struct coop_guest *c, uint64_t steps);
/* The machine runs a step wherever it waits for the guest (so it is from the beginning; again after another step function was set). */
void coop_guest_hosts_steps(struct coop_guest *c);
/* Threaded mode. 0 or -errno. stop: every thread has left its loop. */
int coop_guest_start(struct coop_guest *c);
int coop_guest_stop(struct coop_guest *c);

/* guest_fsck(); the first faults are described on out (may be NULL). pre: no thread runs */
uint64_t coop_guest_check(struct coop_guest *c, FILE *out);

/* The n-th hypercall from now on that may fail does so with -ENOMEM, without having done anything; 0: none. Calls that only
 * read or that a kernel cannot survive (SCHEDOP_shutdown, console) do not count. */
void coop_guest_fail_nth(struct coop_guest *c, uint64_t n);
uint64_t coop_guest_hypercalls(const struct coop_guest *c);

#endif

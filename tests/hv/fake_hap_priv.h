/*
 * fake_hap_priv.h - the state of the fake machine, for its calls (fake_hap.c) and its judge (fake_hap_check.c).
 *
 * S lies in shared memory, so that a tool in a forked child works on the same machine.
 */
#ifndef TESTS_HV_FAKE_HAP_PRIV_H
#define TESTS_HV_FAKE_HAP_PRIV_H

#include "fake_hap.h"

#define NONE UINT32_MAX

enum gfn_kind { EMPTY, DATA, VCPU, ARRAY, CONTROL, RING, DECOY, SCRATCH };

struct fake_frame {
    uint32_t gfn;                       /* index into p2m, or NONE */
    uint16_t maps, grants;
    uint8_t types;                      /* Xen's registrations */
    bool owned, marked, offlined;
};
struct fake_grant { bool made, mapped; uint32_t slot, mfn; };

struct fake_state {
    struct fake_options o;
    struct fake_frame frames[FAKE_FRAMES];
    uint32_t p2m[FAKE_GFNS + FAKE_WINDOW_GFNS];
    uint8_t kind[FAKE_GFNS];
    uint32_t version[FAKE_GFNS];
    uint32_t held_mfn[FAKE_GFNS];
    struct fake_grant grants[FAKE_GRANTS];
    uint64_t rng, calls, clock, max_pages, tot_pages;
    int64_t pauses;
    uint32_t gfn_top, online, superpages, bad_copies;
    uint64_t unscrubbed;
    bool dying, stopped, check_scrub, control_lost;
    char words[200];
};
extern struct fake_state *S;

uint8_t *fake_bytes(uint32_t mfn);
/* The i-th word of a data page: of its gfn's slot and its version. */
uint64_t fake_word(uint32_t slot, uint32_t version, unsigned i);

#endif

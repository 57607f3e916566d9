/*
 * rig.h - the seam between the drill and a machine that is made to be judged.
 *
 * Owns: struct rig_ops: what drill.c asks of such a machine beside its backend: guests that run
 * and write while the engine works, a judge that knows every byte, an account of free
 * frames, failures on purpose.  hv/embedded/rig.c implements it.
 * Why beside backend.h: no engine may know the truth about a guest; a drill must.
 * Rules: every member is set.  One thread calls, but for the guests' own threads, which run only between
 * start() and stop().
 */
#ifndef FRAMESHIFT_HV_RIG_H
#define FRAMESHIFT_HV_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "backend.h"

#define RIG_GUESTS_MAX 16u
#define RIG_DIMMS_MAX 16u

enum rig_kind { RIG_PV, RIG_PVH, RIG_COOP };      /* COOP: a kernel of this program, which moves its own pages */

struct emb_kernel_ops;                  /* the machine's business: hv/embedded/core.h */

struct rig_guest_config {
    enum rig_kind kind;
    char name[64];
    uint64_t pages;
    uint32_t vcpus;
    uint32_t dimm;                      /* where its frames come from */
};

struct rig_config {
    uint64_t seed;                      /* decides what the guests look like and do */
    uint32_t dimms;
    uint64_t dimm_pages, dom0_pages;    /* dom0 lives on DIMM 0 */
    struct rig_guest_config guests[RIG_GUESTS_MAX];
    size_t guest_count;
    const struct emb_kernel_ops *kernel;    /* for RIG_COOP; NULL: there is none */
    bool threads;                       /* each guest in a thread of its own, real time; else between the engine's calls, a modelled clock */
};

struct rig;

struct rig_account {                    /* guests' frames in some ranges */
    uint64_t frames;
    uint64_t bound;                     /* of them: in the hands of Xen, of a daemon or of another domain, or offered to one */
};

struct rig_ops {
    fs_status_t (*open)(const struct rig_config *config, struct rig **out, struct fs_error *err);
    void (*close)(struct rig *rig);     /* the backend is closed before it */
    uint64_t (*least_pages)(const struct rig_config *config, enum rig_kind kind);     /* a smaller guest cannot be built; UINT64_MAX: none can */
    /* The tool's handle; the caller closes it. */
    fs_status_t (*backend)(struct rig *rig, struct hv_backend **out, struct fs_error *err);

    /* Guests run from start() to stop(), whatever the engine does meanwhile. */
    fs_status_t (*start)(struct rig *rig, struct fs_error *err);
    void (*stop)(struct rig *rig);
    /* Guests run for a while, alone.  Not between start() and stop(). */
    fs_status_t (*run)(struct rig *rig, struct fs_error *err);
    uint64_t (*writes)(struct rig *rig);        /* pages that guests wrote, so far */

    /* Every byte of every guest, every count of the machine, whether each guest lives and has its limit and no pause left.
     * Number of faults; words for the first ones of each kind on out.  *pages: guest pages compared. */
    uint64_t (*judge)(struct rig *rig, FILE *out, uint64_t *pages);
    void (*account)(struct rig *rig, const struct mfn_range_set *ranges, struct rig_account *out);
    /* Every guest ends.  False where the free frames are not what they were before the first guest came. */
    bool (*shutdown)(struct rig *rig, uint64_t *free_pages, uint64_t *expected_pages);

    /* Count backend calls from here on, and let that one fail (0: none). */
    void (*count_calls)(struct rig *rig, uint64_t fail_call);
    uint64_t (*calls)(struct rig *rig, bool *failed);
};

extern const struct rig_ops hv_embedded_rig;

#endif

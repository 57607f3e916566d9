/*
 * coop_channel.h - the tool's end of frameshift/abi.h: shared pages, session, requests and answers.
 *
 * Owns: struct coop_channel.  Everything that the guest wrote is checked here; what comes out is in bounds, but
 * that a page moved is only what the guest says.
 */
#ifndef FRAMESHIFT_HV_COOP_CHANNEL_H
#define FRAMESHIFT_HV_COOP_CHANNEL_H

#include "backend.h"
#include "frameshift/abi.h"

#define COOP_SHARED_PAGES (FS_ABI_SLOTS + 1u)

struct coop_channel {
    struct hv_backend *be;
    const struct hv_domain *dom;
    uint64_t limit_pfns, timeout_ns;
    const volatile int *interrupted;            /* may be NULL */
    uint64_t pfns[COOP_SHARED_PAGES];           /* the control page, then the lists */
    mfn_t frames[COOP_SHARED_PAGES];            /* where they are mapped from */
    void *map;                                  /* COOP_SHARED_PAGES pages; NULL: not mapped */
    uint64_t pfn_end, export_pfn;
    uint32_t export_pages, features;            /* FS_ABI_FEATURE_* */
    uint32_t session, produced, consumed;
    struct fs_abi_request sent[FS_ABI_SLOTS];
};

/* Find the guest's pages, check them, begin a session: the guest is idle when FS_OK comes back. FS_NOT_FOUND, FS_BAD_INPUT, FS_TIMEOUT. */
fs_status_t coop_open(struct coop_channel *ch, struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns, uint64_t timeout_ns,
                      const volatile int *interrupted, struct fs_error *err) FS_MUST_CHECK;
/* Map the shared pages where the p2m says that they are now. */
fs_status_t coop_map(struct coop_channel *ch, struct fs_error *err) FS_MUST_CHECK;
void coop_close(struct coop_channel *ch);
bool coop_is_shared(const struct coop_channel *ch, uint64_t pfn);

static inline bool coop_full(const struct coop_channel *ch) { return ch->produced - ch->consumed == FS_ABI_SLOTS; }
static inline bool coop_idle(const struct coop_channel *ch) { return ch->produced == ch->consumed; }
/* pre: not coop_full(). list: MOVE's entries, request->count of them; else NULL. */
void coop_send(struct coop_channel *ch, const struct fs_abi_request *request, const struct fs_abi_move *list);
/* Wait for the oldest answer. status: of each entry of a MOVE, FS_ABI_LIST_MAX of them; may be NULL. control_to: the frame that
 * this request moves the control page to, or MFN_NONE. pre: not coop_idle(). FS_TIMEOUT, FS_BAD_INPUT: the channel is of no more use. */
fs_status_t coop_receive(struct coop_channel *ch, struct fs_abi_response *out, uint32_t *status, mfn_t control_to, struct fs_error *err) FS_MUST_CHECK;

/* The exported page state: a bit in free, which is all 0, for each free pfn below count, as of a moment ago; none where the guest exports
 * nothing. */
fs_status_t coop_read_export(struct coop_channel *ch, uint64_t *free, uint64_t count, struct fs_error *err) FS_MUST_CHECK;

#endif

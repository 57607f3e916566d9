/*
 * xen_priv.h - what the files of the real backend share.
 *
 * Owns: struct xen_be, the one root of a session with the hypervisor, and the
 * helpers that every file uses.  Nothing outside hv/xen/ includes it.
 * Locking: members marked [mt] may be used by any thread; everything else
 * belongs to the one thread that drives the backend.
 */
#ifndef FRAMESHIFT_HV_XEN_PRIV_H
#define FRAMESHIFT_HV_XEN_PRIV_H

#include "backend.h"
#include "range.h"

#include <xenctrl.h>
#include <xencall.h>
#include <xenforeignmemory.h>
#include <xenhypfs.h>
#include <xenstore.h>
#include <xentoollog.h>

_Static_assert(sizeof(xen_pfn_t) == sizeof(uint64_t), "frame lists go to Xen as they are");
_Static_assert(sizeof(mfn_t) == sizeof(xen_pfn_t) && sizeof(gfn_t) == sizeof(xen_pfn_t), "boxed frames are Xen's frames");

/* Frames per call, each a power of two; the limits are Xen's or bound one call's time. */
#define XEN_INFO_BATCH     1024u        /* getpageframeinfo3: Xen says E2BIG above */
#define XEN_OFFLINE_BATCH  1024u        /* page_offline: one page of status, kept by Xen meanwhile */
#define XEN_MMUEXT_BATCH   2048u
#define XEN_RESERVE_BATCH  4096u
#define XEN_EXCHANGE_ORDER 12u          /* Xen's default for dom0 (memop-max-order) */

/* One M2P chunk is what XENMEM_machphys_mfn_list counts: 2 MiB of table, 1 GiB of machine. */
#define XEN_M2P_CHUNK_BYTES   (2u << 20)
#define XEN_M2P_CHUNK_ENTRIES (XEN_M2P_CHUNK_BYTES / 8u)

struct xen_be {
    struct hv_backend be;
    xentoollog_logger *log;
    xc_interface *xch;
    xencall_handle *xcall;              /* [mt] */
    xenforeignmemory_handle *fmem;      /* [mt] */
    struct xs_handle *xsh;
    xenhypfs_handle *hypfs;             /* opened on first use */
    uint64_t quiet_until_ns;            /* refs.c: until then the guest log level is taken as quiet */
    uint16_t self;                      /* the domain that we run in */
    uint32_t version_major, version_minor;
    char version_text[64];
    uint64_t max_mfn;                   /* highest frame + 1 at open */
    struct mfn_range_set ram;
    bool ram_known;
    void *hbuf;                         /* hypercall-safe scratch, XEN_HBUF_PAGES */
    const uint64_t **m2p_chunks;        /* mapped on first use */
    xen_pfn_t *m2p_extents;
    size_t m2p_chunk_count;
    uint64_t scrub_looked_ns;           /* scrub.c: the last look; 0: look before the next marking */
    struct xen_cpu *cpu;                /* cpu.h: what keeps us off pCPU 0; NULL: nothing */
    uint64_t root;                      /* ptes.c: our process's root table; 0: not known */
    struct mfn_range image;             /* Xen's own image, where marking is refused; empty: not known */
};
#define XEN_HBUF_PAGES 32u

static inline struct xen_be *xen_be(struct hv_backend *be)
{
    return FS_CONTAINER_OF(be, struct xen_be, be);
}

/* ---- errors ---- */
/* Words and a status for a failed call: errno_value is what Xen or Linux said. */
FS_PRINTF(3, 4) fs_status_t xen_fail(struct fs_error *err, int errno_value, const char *fmt, ...);
/* The same where the call was about a domain: a domain that is gone or dying is FS_GUEST_GONE. */
FS_PRINTF(5, 6) fs_status_t xen_fail_domain(struct xen_be *x, uint16_t domid, struct fs_error *err, int errno_value,
                                            const char *fmt, ...);

/* ---- raw calls (errno is set where they return -1) ---- */
/* arg must lie in a hypercall-safe buffer.  [mt] */
long xen_memory_op(struct xen_be *x, unsigned cmd, void *arg) FS_MUST_CHECK;
/* cmd: sysctl_page_offline, _online, _query_page_offline.  status gets pages entries; untouched ones read 0x01010101. */
int xen_page_offline_op(struct xen_be *x, uint32_t cmd, uint64_t start, uint64_t pages, uint32_t *status) FS_MUST_CHECK;
#define XEN_OFFLINE_UNTRIED 0x01010101u

/* ---- domains ---- */
bool xen_domain_info(struct xen_be *x, uint16_t domid, xc_domaininfo_t *info) FS_MUST_CHECK;
uint8_t xen_domain_kind(struct xen_be *x, const xc_domaininfo_t *info);
/* Looking at a gfn of such a domain may populate it. */
bool xen_domain_has_pod(struct xen_be *x, uint16_t domid);

/* ---- xenstore ---- */
/* A node's text, NUL-terminated, malloc'd; NULL where absent. */
char *xen_store_read(struct xen_be *x, const char *path);
/* Strict: digits only, at most max; false otherwise. */
bool xen_parse_u64(const char *text, uint64_t max, uint64_t *out) FS_MUST_CHECK;

/* ---- frames ---- */
fs_status_t xen_m2p_entry(struct xen_be *x, uint64_t mfn, uint64_t *gfn, struct fs_error *err) FS_MUST_CHECK;
void xen_m2p_close(struct xen_be *x);
/* getpageframeinfo3 of up to XEN_INFO_BATCH frames; types in Xen's XEN_DOMCTL_PFINFO_* words, in place. */
int xen_page_info(struct xen_be *x, uint16_t domid, uint64_t *frames, size_t count) FS_MUST_CHECK;
fs_status_t xen_ram_load(struct xen_be *x, struct fs_error *err) FS_MUST_CHECK;

/* ---- console ring: Xen's own words ---- */
/* Presses a debug key (Xen handles it before the call returns) and gives all text that appeared; malloc'd. */
fs_status_t xen_debug_key(struct xen_be *x, char key, char **text, struct fs_error *err) FS_MUST_CHECK;
struct xen_console_mark { uint32_t index; };
fs_status_t xen_console_mark(struct xen_be *x, struct xen_console_mark *mark, struct fs_error *err) FS_MUST_CHECK;
/* Text since the mark; FS_UNSUPPORTED where the ring wrapped over its start. */
fs_status_t xen_console_since(struct xen_be *x, const struct xen_console_mark *mark, char **text, struct fs_error *err) FS_MUST_CHECK;

/* Waits, for a limited time, until Xen has scrubbed what is free. */
void xen_scrub_wait(struct xen_be *x);

/* ---- refs.c: owner and reference count of frames, as Xen prints them ---- */
struct xen_refs {
    bool known;
    uint16_t domid;                     /* owner; FS_DOMID_NONE: none */
    uint64_t count;                     /* references, the allocation's own included */
    uint64_t type_count;
    uint8_t type;                       /* Xen's PGT_*: 1..4 page table, 5 segment descriptors, 7 writable */
    bool xen_heap;
};
fs_status_t xen_refs_query(struct xen_be *x, const mfn_t *mfns, size_t count, struct xen_refs *out, struct fs_error *err) FS_MUST_CHECK;
/* Where the host logs guests' failed lookups, scans by lookup would flood the console: silence it, and put it back. */
struct xen_quiet { char saved[32]; bool changed; };
void xen_quiet_begin(struct xen_be *x, struct xen_quiet *q);
void xen_quiet_end(struct xen_be *x, struct xen_quiet *q);

/* ---- the members, by file ---- */
fs_status_t xen_host(struct hv_backend *be, struct hv_host *out, struct fs_error *err);
fs_status_t xen_ram(struct hv_backend *be, struct mfn_range_set *out, struct fs_error *err);
fs_status_t xen_table(struct hv_backend *be, enum hv_table table, uint8_t **out, size_t *bytes, struct fs_error *err);
fs_status_t xen_domains(struct hv_backend *be, struct hv_domain **out, size_t *count, struct fs_error *err);
fs_status_t xen_domain(struct hv_backend *be, uint16_t domid, struct hv_domain *out, struct fs_error *err);
fs_status_t xen_frames(struct hv_backend *be, struct mfn_range range, struct hv_frame *out, struct fs_error *err);
fs_status_t xen_m2p(struct hv_backend *be, const mfn_t *mfns, size_t count, uint64_t *gfns, struct fs_error *err);
fs_status_t xen_types(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count,
                      uint8_t *types, uint8_t *flags, bool *owned, struct fs_error *err);
fs_status_t xen_mark_offline(struct hv_backend *be, struct mfn_range range, struct hv_mark_result *out, struct fs_error *err);
fs_status_t xen_mark_owned(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_mark_result *out, struct fs_error *err);
fs_status_t xen_mark_online(struct hv_backend *be, struct mfn_range range, uint64_t *onlined_pages, struct fs_error *err);
fs_status_t xen_query_offline(struct hv_backend *be, struct mfn_range range, uint8_t *flags, struct fs_error *err);
fs_status_t xen_pause(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t xen_unpause(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t xen_suspend(struct hv_backend *be, uint16_t domid, uint64_t timeout_ns, uint64_t *stopped_ns, struct fs_error *err);
fs_status_t xen_resume(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t xen_monitor_hold(struct hv_backend *be, uint16_t domid, uint32_t *held, struct fs_error *err);
fs_status_t xen_monitor_release(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t xen_set_max_pages(struct hv_backend *be, uint16_t domid, uint64_t pages, struct fs_error *err);
fs_status_t xen_increase_extents(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err);
fs_status_t xen_increase(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err);
fs_status_t xen_decrease(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, size_t *done, struct fs_error *err);
fs_status_t xen_populate(struct hv_backend *be, uint16_t domid, uint32_t node, unsigned order, const gfn_t *gfns, size_t count,
                         size_t *done, struct fs_error *err);
fs_status_t xen_depopulate(struct hv_backend *be, uint16_t domid, unsigned order, const gfn_t *gfns, size_t count, size_t *done, struct fs_error *err);
fs_status_t xen_remap(struct hv_backend *be, uint16_t domid, const gfn_t *from, const gfn_t *to, size_t count, size_t *done, struct fs_error *err);
fs_status_t xen_gfn_limit(struct hv_backend *be, uint16_t domid, uint64_t *limit, struct fs_error *err);
fs_status_t xen_probe_held(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, const mfn_t spare[2],
                           bool *held, uint64_t *calls, struct fs_error *err);
fs_status_t xen_map(struct hv_backend *be, uint16_t domid, const uint64_t *frames, size_t count, enum hv_map_prot prot,
                    int *page_err, void **out, struct fs_error *err);
void xen_unmap(struct hv_backend *be, void *addr, size_t count);
fs_status_t xen_copy(struct hv_backend *be, uint16_t domid, const struct hv_copy *list, size_t count, struct fs_error *err);
fs_status_t xen_unpin(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, struct fs_error *err);
fs_status_t xen_pin(struct hv_backend *be, uint16_t domid, const struct hv_pin *pins, size_t count, struct fs_error *err);
fs_status_t xen_m2p_set(struct hv_backend *be, uint16_t domid, const struct hv_m2p_set *list, size_t count, struct fs_error *err);
fs_status_t xen_vcpu_save(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct hv_pv_vcpu *out, struct fs_error *err);
fs_status_t xen_vcpu_reset(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct fs_error *err);
fs_status_t xen_vcpu_load(struct hv_backend *be, uint16_t domid, const struct hv_pv_vcpu *v, struct fs_error *err);
/* suspend.c's part of pv.c: vCPU 0's suspend call returns 1 ("cancelled"), and no vector state is lost. */
fs_status_t xen_vcpu_set_cancelled(struct xen_be *x, uint16_t domid, struct fs_error *err) FS_MUST_CHECK;
fs_status_t xen_specials(struct hv_backend *be, uint16_t domid, struct hv_special **out, size_t *count, struct fs_error *err);
fs_status_t xen_vcpu_upcall_state(struct hv_backend *be, uint16_t domid, uint8_t *out, size_t count, struct fs_error *err);
fs_status_t xen_frame_refs(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_frame_refs *out, struct fs_error *err);
fs_status_t xen_evtchn_state(struct hv_backend *be, uint16_t domid, uint8_t *state, size_t count, size_t *ports, struct fs_error *err);
fs_status_t xen_dirty_enable(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t xen_dirty_read(struct hv_backend *be, uint16_t domid, uint64_t *bitmap, uint64_t limit, bool clean, uint64_t *dirty_pages, struct fs_error *err);
fs_status_t xen_dirty_disable(struct hv_backend *be, uint16_t domid, struct fs_error *err);
fs_status_t xen_save(struct hv_backend *be, uint16_t domid, const char *path, struct fs_error *err);
fs_status_t xen_restore(struct hv_backend *be, const char *path, uint16_t *new_domid, struct fs_error *err);
uint64_t xen_clock_ns(struct hv_backend *be);
fs_status_t xen_coop_find(struct hv_backend *be, uint16_t domid, struct hv_coop *out, struct fs_error *err);
fs_status_t xen_coop_wait(struct hv_backend *be, uint16_t domid, uint64_t ns, struct fs_error *err);

#endif

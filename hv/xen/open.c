/*
 * open.c - a session with the hypervisor, and what its refusals mean.
 *
 * Owns: hv_xen_open(), close, the ops table, errno-to-status translation.
 * Invariants:
 *  I1  a session exists only if one privileged call succeeded: after open no
 *      failure is due to a missing device, a missing right or another
 *      interface version.
 *  I2  every check names one thing to do; the checks go from the outside in
 *      (root, Xen, dom0, device, kind of dom0, version, call), so that the first
 *      failure is the cause and not a consequence.
 *  I3  no errno leaves this backend: xen_fail() is the only translator.
 * Lock order: none; one thread opens and closes.
 * Why an own xencall handle beside libxenctrl's: the copy and mapping members
 * are [mt], and libxenctrl's error state is per handle.
 * Cost: about twenty system calls.
 */
#include "cpu.h"
#include "grants.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <xen/kexec.h>
#include <xen/version.h>

#include "frameshift/assert.h"

/* ---- errors ---- */

static fs_status_t status_of_errno(int e)
{
    switch (e) {
    case ENOMEM:     return FS_NO_MEMORY;
    case EPERM:
    case EACCES:     return FS_NO_PERMISSION;
    case ENOSYS:
    case EOPNOTSUPP: return FS_UNSUPPORTED;
    case ESRCH:      return FS_GUEST_GONE;
    case ENOENT:     return FS_NOT_FOUND;
    case EIO:
    case EFAULT:
    case ENOSPC:     return FS_IO;
    default:         return FS_REFUSED;
    }
}

static fs_status_t fail_v(struct fs_error *err, fs_status_t status, int errno_value, const char *fmt, va_list ap)
{
    char what[400];
    vsnprintf(what, sizeof what, fmt, ap);
    return fs_fail(err, status, "%s: %s", what, strerror(errno_value));
}

fs_status_t xen_fail(struct fs_error *err, int errno_value, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fs_status_t s = fail_v(err, status_of_errno(errno_value), errno_value, fmt, ap);
    va_end(ap);
    return s;
}

fs_status_t xen_fail_domain(struct xen_be *x, uint16_t domid, struct fs_error *err, int errno_value, const char *fmt, ...)
{
    fs_status_t status = status_of_errno(errno_value);
    xc_domaininfo_t info;
    /* Xen answers a dead domain with many errnos; the domain itself tells. */
    if (!xen_domain_info(x, domid, &info) || (info.flags & XEN_DOMINF_dying)) {
        status = FS_GUEST_GONE;
    }
    va_list ap;
    va_start(ap, fmt);
    fail_v(err, status, errno_value, fmt, ap);
    va_end(ap);
    return status;
}

/* ---- raw calls ---- */

long xen_memory_op(struct xen_be *x, unsigned cmd, void *arg)
{
    return xencall2L(x->xcall, __HYPERVISOR_memory_op, cmd, (uint64_t)(uintptr_t)arg);
}

uint64_t xen_clock_ns(struct hv_backend *be)
{
    (void)be;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- the environment, from the outside in (I2) ---- */

static bool file_has(const char *path, const char *word)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        return false;
    }
    char line[256] = "";
    size_t n = fread(line, 1, sizeof line - 1, f);
    fclose(f);
    line[n] = '\0';
    return strstr(line, word) != NULL;
}

static fs_status_t check_environment(struct fs_error *err)
{
    if (geteuid() != 0) {
        return fs_fail(err, FS_NO_PERMISSION, "not root: frameshift drives the hypervisor; run it as root in dom0");
    }
    if (!file_has("/sys/hypervisor/type", "xen")) {
        return fs_fail(err, FS_NO_XEN, "this machine does not run under Xen (/sys/hypervisor/type); run it in dom0 of a Xen host");
    }
    if (access("/proc/xen/capabilities", F_OK) != 0) {
        return fs_fail(err, FS_NO_XEN, "xenfs is missing: `modprobe xenfs; mount -t xenfs xenfs /proc/xen`");
    }
    if (!file_has("/proc/xen/capabilities", "control_d")) {
        return fs_fail(err, FS_NO_PERMISSION, "this is a guest, not dom0 (/proc/xen/capabilities); run it in dom0");
    }
    if (access("/dev/xen/privcmd", R_OK | W_OK) != 0 && access("/proc/xen/privcmd", R_OK | W_OK) != 0) {
        return fs_fail(err, FS_NO_XEN, "privcmd is missing: `modprobe xen-privcmd` (it makes /dev/xen/privcmd)");
    }
    if (access("/sys/hypervisor/guest_type", R_OK) == 0 && !file_has("/sys/hypervisor/guest_type", "PV")) {
        return fs_fail(err, FS_UNSUPPORTED, "dom0 is not PV; frames of PV guests can be moved from a PV dom0 only "
                       "(boot Xen without dom0=pvh)");
    }
    if (file_has("/sys/hypervisor/guest_type", "PVH")) {
        return fs_fail(err, FS_UNSUPPORTED, "dom0 is PVH; boot Xen without dom0=pvh");
    }
    return FS_OK;
}

static fs_status_t open_handles(struct xen_be *x, struct fs_error *err)
{
    x->log = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
    x->xch = xc_interface_open(x->log, x->log, 0);
    if (!x->xch) {
        return xen_fail(err, errno, "cannot open libxenctrl's interface (/dev/xen/privcmd)");
    }
    x->xcall = xencall_open(x->log, 0);
    x->fmem = xenforeignmemory_open(x->log, 0);
    if (!x->xcall || !x->fmem) {
        return xen_fail(err, errno, "cannot open /dev/xen/privcmd for hypercalls");
    }
    x->xsh = xs_open(0);
    if (!x->xsh) {
        return fs_fail(err, FS_NO_XEN, "cannot reach xenstored: %s; is it running?", strerror(errno));
    }
    x->hbuf = xencall_alloc_buffer_pages(x->xcall, XEN_HBUF_PAGES);
    if (!x->hbuf) {
        return xen_fail(err, errno, "cannot get hypercall memory");
    }
    return FS_OK;
}

static fs_status_t check_version(struct xen_be *x, struct fs_error *err)
{
    int v = xc_version(x->xch, XENVER_version, NULL);
    if (v < 0) {
        return xen_fail(err, errno, "cannot ask Xen for its version");
    }
    x->version_major = (uint32_t)v >> 16;
    x->version_minor = (uint32_t)v & 0xffffu;
    xen_extraversion_t extra = "";
    if (xc_version(x->xch, XENVER_extraversion, &extra) < 0) {
        extra[0] = '\0';
    }
    extra[sizeof extra - 1] = '\0';
    snprintf(x->version_text, sizeof x->version_text, "%u.%u%s", x->version_major, x->version_minor, extra);
    if (x->version_major < 4 || (x->version_major == 4 && x->version_minor < 17)) {
        return fs_fail(err, FS_BAD_VERSION, "Xen %s is too old; 4.17 or newer is needed", x->version_text);
    }
    /* I1: a privileged call tells whether library and hypervisor speak the same interface. */
    xc_physinfo_t info = { 0 };
    if (xc_physinfo(x->xch, &info) != 0) {
        if (errno == EACCES) {
            return fs_fail(err, FS_BAD_VERSION, "Xen %s and the installed libxenctrl have different interface versions; "
                           "install the library that belongs to the running hypervisor", x->version_text);
        }
        return xen_fail(err, errno, "Xen refuses a privileged call");
    }
    x->max_mfn = info.max_mfn + 1;
    xc_domaininfo_t dom;
    if (!xen_domain_info(x, x->self, &dom)) {
        return errno == EACCES
            ? fs_fail(err, FS_BAD_VERSION, "Xen %s and the installed libxenctrl have different interface versions", x->version_text)
            : xen_fail(err, errno, "Xen refuses to describe our own domain");
    }
    if (dom.flags & XEN_DOMINF_hvm_guest) {
        return fs_fail(err, FS_UNSUPPORTED, "dom0 is PVH; boot Xen without dom0=pvh");
    }
    return FS_OK;
}

/* A Xen without kexec does not tell; then nothing is assumed about its place. */
static void find_image(struct xen_be *x)
{
    uint64_t bytes = 0, start = 0;
    if (xc_kexec_get_range(x->xch, KEXEC_RANGE_MA_XEN, 0, &bytes, &start) == 0 && bytes && start + bytes > start) {
        /* Xen maps and guards its image in whole 2 MiB pages. */
        x->image.start = mfn_make((start >> FS_PAGE_SHIFT) & ~(uint64_t)(FS_SP_PAGES - 1));
        x->image.end = mfn_make(((start + bytes - 1) >> FS_PAGE_SHIFT | (FS_SP_PAGES - 1)) + 1);
    }
}

static void xen_close(struct hv_backend *be)
{
    struct xen_be *x = xen_be(be);
    xen_cpu_release(x);
    xen_m2p_close(x);
    mfn_set_free(&x->ram);
    if (x->hbuf) {
        xencall_free_buffer_pages(x->xcall, x->hbuf, XEN_HBUF_PAGES);
    }
    if (x->hypfs) {
        xenhypfs_close(x->hypfs);
    }
    if (x->xsh) {
        xs_close(x->xsh);
    }
    if (x->fmem) {
        xenforeignmemory_close(x->fmem);
    }
    if (x->xcall) {
        xencall_close(x->xcall);
    }
    if (x->xch) {
        xc_interface_close(x->xch);
    }
    if (x->log) {
        xtl_logger_destroy(x->log);
    }
    free(x);
}

static const struct hv_backend_ops xen_ops = {
    .name = "xen",
    .close = xen_close,
    .host = xen_host,
    .ram = xen_ram,
    .table = xen_table,
    .domains = xen_domains,
    .domain = xen_domain,
    .frames = xen_frames,
    .m2p = xen_m2p,
    .types = xen_types,
    .mark_offline = xen_mark_offline,
    .mark_owned = xen_mark_owned,
    .mark_online = xen_mark_online,
    .query_offline = xen_query_offline,
    .pause = xen_pause,
    .unpause = xen_unpause,
    .suspend = xen_suspend,
    .resume = xen_resume,
    .monitor_hold = xen_monitor_hold,
    .monitor_release = xen_monitor_release,
    .set_max_pages = xen_set_max_pages,
    .increase = xen_increase,
    .increase_extents = xen_increase_extents,
    .decrease = xen_decrease,
    .populate = xen_populate,
    .depopulate = xen_depopulate,
    .remap = xen_remap,
    .gfn_limit = xen_gfn_limit,
    .probe_held = xen_probe_held,
    .map = xen_map,
    .unmap = xen_unmap,
    .copy = xen_copy,
    .unpin = xen_unpin,
    .pin = xen_pin,
    .m2p_set = xen_m2p_set,
    .vcpu_save = xen_vcpu_save,
    .vcpu_reset = xen_vcpu_reset,
    .vcpu_load = xen_vcpu_load,
    .specials = xen_specials,
    .vcpu_upcall_state = xen_vcpu_upcall_state,
    .evtchn_state = xen_evtchn_state,
    .dirty_enable = xen_dirty_enable,
    .dirty_read = xen_dirty_read,
    .dirty_disable = xen_dirty_disable,
    .save = xen_save,
    .restore = xen_restore,
    .clock_ns = xen_clock_ns,
    .frame_refs = xen_frame_refs,
    .grants_begin = xen_grants_begin,
    .grants_read = xen_grants_read,
    .grants_end = xen_grants_end,
    .coop_find = xen_coop_find,
    .coop_wait = xen_coop_wait,
};

fs_status_t hv_xen_open(struct hv_backend **out, struct fs_error *err)
{
    fs_status_t s = check_environment(err);
    if (s != FS_OK) {
        return s;
    }
    struct xen_be *x = calloc(1, sizeof *x);
    if (!x) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for the Xen session");
    }
    x->be.ops = &xen_ops;
    s = open_handles(x, err);
    if (s == FS_OK) {
        /* The control domain is not domain 0 on disaggregated hosts; xenstored knows which one asks. */
        char *text = xen_store_read(x, "domid");
        uint64_t id = 0;
        if (text && xen_parse_u64(text, DOMID_FIRST_RESERVED - 1, &id)) {
            x->self = (uint16_t)id;
        }
        free(text);
        s = check_version(x, err);
        find_image(x);
    }
    if (s != FS_OK) {
        xen_close(&x->be);
        return s;
    }
    hv_backend_check(&xen_ops);
    *out = &x->be;
    return FS_OK;
}

/*
 * cpu.h - keeping the calling thread off physical CPU 0 (see cpu.c for why).
 */
#ifndef FRAMESHIFT_HV_XEN_CPU_H
#define FRAMESHIFT_HV_XEN_CPU_H

#include "xen_priv.h"

/* post (FS_OK): the calling thread runs on no pCPU 0 until release.  FS_UNSUPPORTED: it cannot be had; nothing changed.
 * May be called again while held: what holds is checked, and had anew if somebody changed it. */
fs_status_t xen_cpu_hold(struct xen_be *x, struct fs_error *err) FS_MUST_CHECK;
void xen_cpu_release(struct xen_be *x);         /* no effect if not held */

#endif

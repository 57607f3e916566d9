/*
 * cpu.h - keeping the calling thread off physical CPU 0 (see cpu.c for why).
 */
#ifndef FRAMESHIFT_HV_XEN_CPU_H
#define FRAMESHIFT_HV_XEN_CPU_H

#include "xen_priv.h"

#include <sched.h>

struct xen_cpu {
    int vcpu;                   /* the vCPU we are tied to; -1 none */
    bool changed;               /* its hard affinity was changed */
    xc_cpumap_t hard;           /* its hard affinity before */
    cpu_set_t thread;           /* our own affinity before */
};
/* post (FS_OK): the calling thread runs on no pCPU 0 until end.  FS_UNSUPPORTED: it cannot be had; nothing changed. */
fs_status_t xen_cpu_begin(struct xen_be *x, struct xen_cpu *c, struct fs_error *err) FS_MUST_CHECK;
void xen_cpu_end(struct xen_be *x, struct xen_cpu *c);      /* accepts what a failed begin left */

#endif

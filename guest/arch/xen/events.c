/*
 * events.c - waiting for somebody in dom0, with events masked.
 *
 * Owns: the pending bits of the ports that this kernel waits on.
 * Invariants:
 *   I1  a port comes from start_info, so it is checked before its bit is touched: below EVENT_PORTS, as many as shared_info has.
 *   I2  no wait is without an end: the caller's time, or EVENT_WAIT_NS if that is further away.
 * Lock order: none (one vCPU).
 * Why: SCHEDOP_poll needs no upcall.  It returns at once while a bit is pending, so bits are cleared before what they announce
 *   is looked at: whoever waits looks again after clearing.
 * Cost: one hypercall a wait, one a notification.
 */
#include "kernel.h"
#include "frameshift/assert.h"

#define EVENT_PORTS   4096u
#define EVENT_WAIT_NS 1000000000ull

bool event_port_good(evtchn_port_t port)
{
    return port != 0 && port < EVENT_PORTS;
}

void event_clear(evtchn_port_t port)
{
    ASSERT_CMP(port, <, EVENT_PORTS);               /* I1: event_port_good() was asked */
    __atomic_and_fetch(&shared_info->evtchn_pending[port / 64], ~(1ull << (port % 64)), __ATOMIC_SEQ_CST);
}

void event_send(evtchn_port_t port)
{
    struct evtchn_send send = { .port = port };

    (void)hv_event(EVTCHNOP_send, &send);
}

void event_wait(evtchn_port_t *ports, uint32_t count, uint64_t ns)
{
    struct sched_poll poll = { .nr_ports = count, .timeout = time_system_ns() + (ns < EVENT_WAIT_NS ? ns : EVENT_WAIT_NS) };      /* I2 */

    set_xen_guest_handle(poll.ports, ports);
    (void)hv_sched(SCHEDOP_poll, &poll);
}
